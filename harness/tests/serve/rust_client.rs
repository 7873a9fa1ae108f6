//! `mysql_async`: handshakes, queries, and its own binlog stream.

use futures_util::StreamExt as _;
use harness::serve::{ServeOptions, Server};
use mysql_async::binlog::EventType;
use mysql_async::binlog::events::EventData;
use mysql_async::prelude::Queryable as _;
use mysql_async::{BinlogStreamRequest, Compression, Conn, OptsBuilder, Sid, SslOpts};
use protocol::mysql::auth::Plugin;

use crate::{PASSWORD, USER, guarded, start};

fn options(server: &Server, password: &str) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(server.address().port())
        .user(Some(USER))
        .pass(Some(password))
        .prefer_socket(false)
}

/// Counts of what mysql_async reads from a dump up to its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    transactions: u64,
    rows_events: u64,
    rows: u64,
    end: u32,
}

async fn read(conn: Conn, request: BinlogStreamRequest<'_>) -> Result<Seen, mysql_async::Error> {
    let mut stream = conn.get_binlog_stream(request.with_non_blocking()).await?;
    let mut seen = Seen::default();
    while let Some(event) = stream.next().await {
        let event = event?;
        match event.header().event_type() {
            Ok(EventType::XID_EVENT) => seen.transactions += 1,
            Ok(EventType::ROTATE_EVENT) => continue,
            _ => {}
        }
        seen.end = event.header().log_pos();
        if let Some(EventData::RowsEvent(rows)) = event.read_data()? {
            seen.rows_events += 1;
            let map = stream.get_tme(rows.table_id()).unwrap();
            for row in rows.rows(map) {
                row?;
                seen.rows += 1;
            }
        }
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plugin_with_and_without_tls() {
    for plugin in Plugin::ALL {
        for tls in [false, true] {
            // mysql_async knows no sha256_password, and ed25519 only with another feature: `mariadb` covers both.
            if matches!(plugin, Plugin::ClientEd25519 | Plugin::Sha256Password) {
                continue;
            }
            let server = start("mysql-9.7-20k", guarded(plugin, tls)).await;
            let ssl = tls.then(|| {
                let ca = server.ca_pem().unwrap().as_bytes().to_vec();
                SslOpts::default()
                    .with_disable_built_in_roots(true)
                    .with_root_certs(vec![ca.into()])
            });
            // The second time caching_sha2_password takes its fast path.
            for round in ["full", "cached"] {
                let conn = Conn::new(options(&server, PASSWORD).ssl_opts(ssl.clone())).await;
                let mut conn =
                    conn.unwrap_or_else(|error| panic!("{plugin:?} tls {tls} {round}: {error}"));
                let format: Option<String> =
                    conn.query_first("SELECT @@binlog_format").await.unwrap();
                assert_eq!(format.as_deref(), Some("ROW"));
                conn.disconnect().await.unwrap();
            }
            let error = Conn::new(options(&server, "wrong").ssl_opts(ssl))
                .await
                .unwrap_err();
            assert!(
                error.to_string().contains("Access denied"),
                "{plugin:?} tls {tls}: {error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_stream_by_position_and_by_gtid() {
    let server = start("mysql-9.7-20k", ServeOptions::default()).await;
    let connect = async || Conn::new(options(&server, "")).await.unwrap();
    let (file, end) = server
        .end()
        .rsplit_once(':')
        .map(|(f, o)| (f.to_owned(), o.parse().unwrap()))
        .unwrap();
    let request = || BinlogStreamRequest::new(99).with_filename(file.as_bytes());
    let whole = read(connect().await, request().with_pos(4)).await.unwrap();
    assert_eq!((whole.rows, whole.end), (20_000, end), "{whole:?}");

    let by_gtid = read(connect().await, BinlogStreamRequest::new(99).with_gtid())
        .await
        .unwrap();
    assert_eq!(by_gtid, whole);

    let mut conn = connect().await;
    let executed: String = conn
        .query_first("SELECT @@GLOBAL.gtid_executed")
        .await
        .unwrap()
        .unwrap();
    let all: Sid = executed.parse().unwrap();
    let nothing = read(
        conn,
        BinlogStreamRequest::new(99)
            .with_gtid()
            .with_gtid_set([all]),
    )
    .await
    .unwrap();
    assert_eq!((nothing.rows, nothing.transactions), (0, 0));

    let (uuid, _) = executed.split_once(':').unwrap();
    let some: Sid = format!("{uuid}:1-10").parse().unwrap();
    let rest = read(
        connect().await,
        BinlogStreamRequest::new(99)
            .with_gtid()
            .with_gtid_set([some]),
    )
    .await
    .unwrap();
    assert!(
        rest.rows > 0 && rest.rows < whole.rows && rest.end == end,
        "{rest:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wire_compression_carries_queries_and_streams() {
    let server = start("mysql-9.7-20k", ServeOptions::default()).await;
    let opts = options(&server, "").compression(Some(Compression::default()));
    let conn = Conn::new(opts).await.unwrap();
    let (file, _) = server
        .end()
        .rsplit_once(':')
        .map(|(f, o)| (f.to_owned(), o.to_owned()))
        .unwrap();
    let seen = read(
        conn,
        BinlogStreamRequest::new(99)
            .with_filename(file.as_bytes())
            .with_pos(4),
    )
    .await
    .unwrap();
    assert_eq!(seen.rows, 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_places_get_the_servers_error() {
    let server = start("mysql-9.7-20k", ServeOptions::default()).await;
    let connect = async || Conn::new(options(&server, "")).await.unwrap();
    for (file, offset, expected) in [
        (
            "binlog.000000",
            4,
            "Could not find first log file name in binary log index file",
        ),
        ("binlog.000001", 5, "bogus data in log event"),
        ("binlog.000001", u64::from(u32::MAX), "position > file size"),
        ("binlog.000001", 0, "position < 4"),
    ] {
        let request = BinlogStreamRequest::new(99)
            .with_filename(file.as_bytes())
            .with_pos(offset);
        let error = read(connect().await, request)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("1236") && error.contains(expected),
            "{file}:{offset}: {error}"
        );
    }
    let mut conn = connect().await;
    let executed: String = conn
        .query_first("SELECT @@GLOBAL.gtid_executed")
        .await
        .unwrap()
        .unwrap();
    let (uuid, _) = executed.split_once(':').unwrap();
    let more: Sid = format!("{uuid}:1-99999").parse().unwrap();
    let request = BinlogStreamRequest::new(99)
        .with_gtid()
        .with_gtid_set([more]);
    let error = read(conn, request).await.unwrap_err().to_string();
    assert!(error.contains("Replica has more GTIDs"), "{error}");
    let mut conn = connect().await;
    let error = conn
        .query_drop("SELECT * FROM shop.nothing")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("this recording cannot answer: SELECT * FROM shop.nothing"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_of_any_length() {
    for rows in [1, 777, 20_000, 20_001, 45_678] {
        let options_of = ServeOptions {
            transaction_rows: Some(rows),
            ..ServeOptions::default()
        };
        let server = start("mysql-9.7-20k", options_of).await;
        assert_eq!(server.changes(), rows);
        let conn = Conn::new(options(&server, "")).await.unwrap();
        let (file, end) = server
            .end()
            .rsplit_once(':')
            .map(|(f, o)| (f.to_owned(), o.parse().unwrap()))
            .unwrap();
        let request = BinlogStreamRequest::new(99)
            .with_filename(file.as_bytes())
            .with_pos(4);
        let seen = read(conn, request).await.unwrap();
        assert_eq!((seen.rows, seen.end), (rows, end), "{seen:?}");
        assert!(seen.transactions <= 2, "setting up, and the one: {seen:?}");
    }
}
