//! What is asked of a server, told by one of a few lines: it answers what a case says and keeps what it was asked.

use protocol::mysql::command::Command;
use protocol::mysql::handshake::{Greeting, NONCE_LENGTH};
use protocol::mysql::packet;
use protocol::mysql::resultset::encode_ok;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Secret, SourceTls, TlsMode, WireCompression};
use crate::source::mysql::compression::Choice;

pub(super) type Rows = Vec<Vec<String>>;

/// A table of one row, or several.
pub(super) fn rows(rows: &[&[&str]]) -> Rows {
    let row = |row: &&[&str]| row.iter().map(|&cell| cell.to_owned()).collect();
    rows.iter().map(row).collect()
}

/// One client's server, until a dump is asked for: answers a statement that begins as a case says with its rows, any other with
/// nothing. Returns the line, the statements, and the dump.
pub(super) async fn serve(
    listener: &TcpListener,
    answers: &[(&'static str, Rows)],
) -> (TcpStream, Vec<String>, Dump) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let greeting = Greeting {
        version: "8.4.0".into(),
        connection_id: 5,
        nonce: vec![7; NONCE_LENGTH],
        capabilities: capability_bits(),
        charset: 45,
        status: 2,
        plugin: "caching_sha2_password".into(),
    };
    let mut payload = Vec::new();
    greeting.encode(&mut payload);
    send(&mut stream, &payload, 0).await;
    receive(&mut stream).await;
    let mut ok = Vec::new();
    encode_ok(&mut ok, 0);
    send(&mut stream, &ok, 2).await;
    let mut statements = Vec::new();
    loop {
        let payload = receive(&mut stream).await;
        match Command::decode(&payload).unwrap() {
            Command::Query(statement) => {
                let statement = String::from_utf8(statement.to_vec()).unwrap();
                let known = answers
                    .iter()
                    .find(|(begin, _)| statement.starts_with(begin));
                match known {
                    Some((_, rows)) => send_rows(&mut stream, rows).await,
                    None => send(&mut stream, &ok, 1).await,
                }
                statements.push(statement);
            }
            Command::BinlogDump(dump) => {
                let file = String::from_utf8(dump.file.to_vec()).unwrap();
                let dump = Dump::At(format!("{file}:{}", dump.offset));
                return (stream, statements, dump);
            }
            Command::BinlogDumpGtid(dump) => {
                let dump = Dump::After(dump.gtids.to_string());
                return (stream, statements, dump);
            }
            _ => send(&mut stream, &ok, 1).await,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dump {
    At(String),
    After(String),
}

fn capability_bits() -> u32 {
    use protocol::mysql::handshake::capability;
    capability::REQUIRED | capability::PLUGIN_AUTH_LENENC_CLIENT_DATA
}

pub(super) async fn send(stream: &mut TcpStream, payload: &[u8], mut sequence: u8) {
    let mut bytes = Vec::new();
    packet::write(&mut bytes, &mut sequence, payload);
    stream.write_all(&bytes).await.unwrap();
}

async fn send_rows(stream: &mut TcpStream, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(1, Vec::len);
    let cell = |cell: &String| Some(cell.clone().into_bytes());
    let set = ResultSet {
        columns: (0..columns).map(|n| format!("c{n}")).collect(),
        rows: (rows.iter())
            .map(|row| row.iter().map(cell).collect())
            .collect(),
    };
    let mut bytes = Vec::new();
    set.encode(false, &mut bytes, &mut 1);
    stream.write_all(&bytes).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; packet::HEADER_LENGTH];
    stream.read_exact(&mut head).await.unwrap();
    let [a, b, c, _] = head;
    let mut payload = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
    stream.read_exact(&mut payload).await.unwrap();
    payload
}

/// Opens a session with a server that answers so; what it was asked.
async fn open(from: From, answers: Vec<(&'static str, Rows)>) -> (Session, Vec<String>, Dump) {
    open_after(None, from, answers).await
}

/// The same with a point that was read from the server of this name.
async fn open_after(
    server_before: Option<&str>,
    from: From,
    answers: Vec<(&'static str, Rows)>,
) -> (Session, Vec<String>, Dump) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server: JoinHandle<_> = tokio::spawn(async move { serve(&listener, &answers).await });
    let plan = Plan {
        options: ConnectOptions {
            host: "127.0.0.1".into(),
            port,
            user: "cdc".into(),
            password: Secret::new("right"),
            tls: SourceTls {
                mode: TlsMode::Disable,
                ca: None,
            },
            compression: WireCompression::Off,
            round_trip: None,
            timeout: Duration::from_secs(60),
        },
        server_id: 85_744,
        tables: Selection::everything(),
        from,
        server: server_before.map(|name| name.parse().unwrap()),
        check: false,
        io: Io::Epoll,
    };
    let session = Session::open(&plan).await.unwrap();
    assert_eq!(session.connection.compression(), Choice::OFF);
    let (_, statements, dump) = server.await.unwrap();
    (session, statements, dump)
}

fn mysql_answers(executed: &str, cut_at: usize, place: [&str; 2]) -> Vec<(&'static str, Rows)> {
    let [file, offset] = place;
    let cut = &executed[..executed.len().min(cut_at)];
    vec![
        (
            "SHOW GLOBAL VARIABLES",
            rows(&[
                &["version", "8.4.0"],
                &["server_uuid", UUID],
                &["log_bin", "ON"],
                &["gtid_mode", "ON"],
                &["gtid_executed", cut],
                &["gtid_owned", ""],
                &["gtid_purged", ""],
            ]),
        ),
        (
            "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, @@GLOBAL.gtid_owned",
            rows(&[&[executed, "", ""]]),
        ),
        (
            "SHOW BINARY LOG STATUS",
            rows(&[&[file, offset, "", "", executed]]),
        ),
        ("SHOW BINARY LOGS", rows(&[&["binlog.000001", "9999"]])),
    ]
}

#[tokio::test]
async fn a_stream_from_now_on_begins_where_the_set_ends_not_at_the_place() {
    // The server's set was copied before its place was looked up: 10 and 12 stand before the place, and their commits are not through.
    let executed = format!("{UUID}:1-9:11");
    for place in [["binlog.000001", "5000"], ["binlog.000001", "5000000000"]] {
        let answers = mysql_answers(&executed, 1024, place);
        let (session, _, dump) = open(From::Now, answers).await;
        assert_eq!(dump, Dump::After(executed.clone()));
        assert!(!session.warm_up);
        assert_eq!(session.start.gtids, session.end.gtids);
        assert_eq!(
            session.start.place.to_position().to_string(),
            "binlog.000001:4"
        );
        let start = session.start;
        // The line breaks before anything has come: the same stream again.
        let answers = mysql_answers(&format!("{UUID}:1-12"), 1024, place);
        let (_, _, again) = open(From::Point(start), answers).await;
        assert_eq!(again, dump);
    }
}

#[tokio::test]
async fn mariadb_says_what_stands_before_the_place_itself() {
    let answers = vec![
        (
            "SHOW GLOBAL VARIABLES",
            rows(&[
                &["version", "10.11.6-MariaDB-log"],
                &["server_id", "7"],
                &["gtid_domain_id", "0"],
                &["gtid_binlog_pos", "0-7-100"],
            ]),
        ),
        ("SELECT @@GLOBAL.gtid_binlog_pos", rows(&[&["0-7-100"]])),
        (
            "SHOW BINARY LOG STATUS",
            rows(&[&["b.000001", "330", "", ""]]),
        ),
        (
            "SELECT BINLOG_GTID_POS('b.000001', 330)",
            rows(&[&["0-7-99"]]),
        ),
        ("SHOW BINARY LOGS", rows(&[&["b.000001", "9999"]])),
    ];
    let (session, statements, dump) = open(From::Now, answers.clone()).await;
    assert_eq!(dump, Dump::At("b.000001:330".into()));
    assert_eq!(session.start.gtids, Some("0-7-99".parse().unwrap()));
    let connect_state = |statements: &[String]| {
        let with = |statement: &&String| statement.contains("@slave_connect_state");
        statements.iter().find(with).cloned()
    };
    assert_eq!(connect_state(&statements), None);
    // It would pass over what another server wrote since, where it does not have the transaction itself.
    let (_, statements, _) = open(From::Point(session.start), answers).await;
    let set = connect_state(&statements).unwrap();
    assert!(set.contains("@slave_connect_state = '0-7-99'"), "{set}");
    assert!(set.contains("@slave_gtid_strict_mode = 1"), "{set}");
}

#[tokio::test]
async fn a_set_longer_than_what_show_variables_tells_is_gone_on_from() {
    let sources: Vec<String> = (0..30)
        .map(|n| format!("3e11fa47-71ca-11e1-9e33-c80aa95624{n:02}:1-5"))
        .collect();
    let executed = sources.join(",\n");
    let place = ["binlog.000001", "5000"];
    let (session, _, _) = open(From::Now, mysql_answers(&executed, 1024, place)).await;
    // In the middle of a set's text, and between two of its sources.
    for cut_at in [1024, executed[..1024].rfind(',').unwrap()] {
        let answers = mysql_answers(&executed, cut_at, place);
        let (again, ..) = open(From::Point(session.start.clone()), answers).await;
        assert_eq!(again.start.gtids, session.start.gtids);
    }
}

/// The names of a server that is gone on from at `place` of one called `before`, and what it is asked to begin with.
async fn named(
    before: &str,
    place: &str,
    gtids: Option<&str>,
    answers: &[(&'static str, Rows)],
) -> (String, String) {
    let point = Point {
        place: Place::new(&place.parse().unwrap()),
        gtids: gtids.map(|set| set.parse().unwrap()),
    };
    let from = From::Point(point);
    let (session, ..) = open_after(Some(before), from, answers.to_vec()).await;
    let start = session.start.place.to_position().to_string();
    (session.identity.to_string(), start)
}

#[tokio::test]
async fn a_mariadb_of_the_same_number_is_another_server_where_the_place_has_other_gtids() {
    let answers = |before: Option<&str>| {
        let mut answers = vec![
            (
                "SHOW GLOBAL VARIABLES",
                rows(&[
                    &["version", "10.11.6-MariaDB-log"],
                    &["server_id", "7"],
                    &["gtid_domain_id", "0"],
                    &["gtid_binlog_pos", "0-7-100"],
                ]),
            ),
            ("SELECT @@GLOBAL.gtid_binlog_pos", rows(&[&["0-7-100"]])),
            (
                "SHOW BINARY LOG STATUS",
                rows(&[&["b.000012", "330", "", ""]]),
            ),
            (
                "SELECT BINLOG_GTID_POS('b.000012', 330)",
                rows(&[&["0-7-100"]]),
            ),
            ("SHOW BINARY LOGS", rows(&[&["b.000001", "9999"]])),
        ];
        answers
            .extend(before.map(|set| ("SELECT BINLOG_GTID_POS('b.000057', 900)", rows(&[&[set]]))));
        answers
    };
    let (place, set) = ("b.000057:900", Some("0-7-90"));
    let name = |before: &'static str, answers: Vec<(&'static str, Rows)>| async move {
        named(before, place, set, &answers).await
    };
    let own = answers(Some("0-7-90"));
    let expected = ("mariadb:7:0".to_owned(), place.to_owned());
    assert_eq!(name("mariadb:7:0", own.clone()).await, expected);
    assert_eq!(name("mariadb:7:0/3", own).await.0, "mariadb:7:0/3");
    // Other transactions before the place, and no such file (nothing is answered where the server says NULL): GTIDs alone say where to
    // begin.
    for other in [answers(Some("0-7-89")), answers(None)] {
        let expected = ("mariadb:7:0/2".to_owned(), "b.000001:4".to_owned());
        assert_eq!(name("mariadb:7:0", other.clone()).await, expected);
        assert_eq!(
            name("mariadb:7:0/2", other.clone()).await.0,
            "mariadb:7:0/3"
        );
        assert_eq!(name("mariadb:8:0", other).await.0, "mariadb:7:0");
    }
}

#[tokio::test]
async fn a_mysql_of_the_same_uuid_is_another_server_where_the_place_is_gone() {
    let before = format!("mysql:{UUID}");
    let other = (format!("{before}/2"), "binlog.000001:4".to_owned());
    let set = format!("{UUID}:1-9");
    let answers = mysql_answers(&set, 1024, ["binlog.000001", "5000"]);
    for (place, is_own) in [
        ("binlog.000001:5000", true),
        // Its only file has 9,999 bytes.
        ("binlog.000001:10000", false),
        ("binlog.000057:5000", false),
    ] {
        let expected = match is_own {
            true => (before.clone(), place.to_owned()),
            false => other.clone(),
        };
        let found = named(&before, place, Some(&set), &answers).await;
        assert_eq!(found, expected, "{place}");
    }
}
