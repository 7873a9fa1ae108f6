//! A server whose heartbeats stop: it counts as gone, and the stream goes on over a new line. No test waits for that long: what is
//! changed is when the server was heard last.

use protocol::mysql::event::{HEADER_LENGTH, Kind};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::served::{Dump, Rows, rows, send, serve};
use super::*;
use crate::batch::Batch;
use crate::config::{Keys, Origin, Selection, SlotSettings, SourceAddress, SourceSettings, Start};
use crate::source::mysql::MySql;
use crate::source::reconnect::{Database as _, Reconnecting};
use crate::source::{Filled, Limits};

/// A server without GTIDs and checksums, whose only file holds 9,999 bytes.
fn answers() -> Vec<(&'static str, Rows)> {
    let variables = rows(&[
        &["version", "8.4.0"],
        &["server_uuid", UUID],
        &["server_id", "1"],
        &["log_bin", "ON"],
        &["gtid_mode", "OFF"],
        &["binlog_checksum", "NONE"],
    ]);
    let grants = "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `cdc`@`%`";
    vec![
        ("SHOW GLOBAL VARIABLES", variables),
        ("SHOW GRANTS", rows(&[&[grants]])),
        (
            "SHOW BINARY LOG STATUS",
            rows(&[&["binlog.000001", "9999", "", "", ""]]),
        ),
        ("SHOW BINARY LOGS", rows(&[&["binlog.000001", "9999"]])),
    ]
}

async fn connect(port: u16, state: &std::path::Path) -> Reconnecting<MySql> {
    let url = format!("mysql://cdc:right@127.0.0.1:{port}?tls=disable&compression=off");
    let settings = SourceSettings {
        name: "shop".into(),
        address: SourceAddress::parse(&url, &Origin::Argument("URL"), &|_| None).unwrap(),
        tables: Selection::new(&["*.*"]).unwrap(),
        keys: Keys::default(),
        start: Start::Earliest,
        server_id: 85_744,
        slot: SlotSettings::of("shop"),
        row_max: 1 << 20,
        truncates: false,
    };
    let limits = Limits {
        batch_bytes: 1 << 16,
        row_max: 1 << 20,
        io: Io::Epoll,
        until_end: false,
    };
    MySql::connect(&settings, None, limits, state)
        .await
        .unwrap()
}

/// The payload of a HEARTBEAT: nothing new before `offset`.
fn heartbeat(offset: u32) -> Vec<u8> {
    let file = b"binlog.000001";
    let mut payload = vec![0; 1 + HEADER_LENGTH];
    payload[5] = Kind::HEARTBEAT.0;
    let length = (HEADER_LENGTH + file.len()) as u32;
    payload[10..14].copy_from_slice(&length.to_le_bytes());
    payload[14..18].copy_from_slice(&offset.to_le_bytes());
    payload.extend_from_slice(file);
    payload
}

#[tokio::test]
async fn a_server_without_heartbeats_is_left_and_the_stream_goes_on() {
    // One that is late, or lost, does not end a line.
    assert!(MySql::SILENCE_MAX >= 3 * HEARTBEAT);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = tempfile::tempdir().unwrap();
    let answers = answers();
    let served = serve(&listener, &answers);
    let (mut source, served) = tokio::join!(connect(port, state.path()), served);
    let (mut silent, statements, dump) = served;
    assert_eq!(dump, Dump::At("binlog.000001:4".into()));
    // It would not send any unasked.
    let period = format!("@source_heartbeat_period = {}", HEARTBEAT.as_nanos());
    let asks = |statement: &String| statement.contains(&period);
    assert!(statements.iter().any(asks), "{statements:#?}");

    // A heartbeat is a sign of life: the line stays, and its time counts from there.
    let mut batch = Batch::default();
    let before = *source.last_read_mut();
    send(&mut silent, &heartbeat(500), 1).await;
    let filled = source.fill(&mut batch).await.unwrap();
    assert_eq!(filled, Filled::More);
    assert_eq!(source.database().place().to_string(), "binlog.000001:500");
    assert!(*source.last_read_mut() > before);
    assert_eq!(source.database().counters().reconnects, 0);

    // None for as long as a server may be silent, while the line stands.
    let long_ago = source.last_read_mut().checked_sub(MySql::SILENCE_MAX);
    *source.last_read_mut() = long_ago.expect("a machine that runs for longer than this");
    let serve_again = async {
        let (mut stream, _, dump) = serve(&listener, &answers).await;
        send(&mut stream, &heartbeat(900), 1).await;
        (stream, dump)
    };
    let (filled, (_stream, dump)) = tokio::join!(source.fill(&mut batch), serve_again);
    assert_eq!(dump, Dump::At("binlog.000001:500".into()));
    // The next server may be another one: nothing of it is put to what the batch has of the first one.
    assert_eq!(filled.unwrap(), Filled::Nothing);
    assert_eq!(source.database().place().to_string(), "binlog.000001:500");
    let filled = source.fill(&mut batch).await.unwrap();
    assert_eq!(filled, Filled::More);
    assert_eq!(source.database().place().to_string(), "binlog.000001:900");
    assert_eq!(source.database().counters().reconnects, 1);
    // The old line is closed: the server need not keep it.
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}
