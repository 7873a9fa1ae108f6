//! Against a server of a few lines, made of the codecs' server half (which foreign clients prove in `harness`).

use std::time::Duration;

use protocol::mysql::auth::{Plugin, Server, ServerStep};
use protocol::mysql::handshake::{Answer as HandshakeAnswer, NONCE_LENGTH};
use protocol::mysql::resultset::encode_ok;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::*;
use crate::source::Verdict;

const NONCE: [u8; NONCE_LENGTH] = [7; NONCE_LENGTH];

/// One client's server: lets in the password `right`, answers one query with a row and every other with an error, and sends
/// `dump` after a dump command.
async fn serve(listener: TcpListener, capabilities: u32, dump: Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let greeting = Greeting {
        version: "9.7.0".into(),
        connection_id: 5,
        nonce: NONCE.to_vec(),
        capabilities: capability::REQUIRED
            | capability::PLUGIN_AUTH_LENENC_CLIENT_DATA
            | capabilities,
        charset: 45,
        status: 2,
        plugin: "caching_sha2_password".into(),
    };
    let mut payload = Vec::new();
    greeting.encode(&mut payload);
    send(&mut stream, &payload, 0).await;
    let response = receive(&mut stream).await.unwrap();
    let HandshakeAnswer::Response(response) = HandshakeAnswer::decode(&response).unwrap() else {
        panic!("no TLS here");
    };
    let mut server = Server::new(Plugin::CachingSha2Password, &NONCE, b"right", false, true);
    let ServerStep::Accept(Some(fast)) = server.answer(&response.auth_response, b"", |_| None)
    else {
        let error = ServerError::new(
            1045,
            "28000",
            "Access denied for user 'cdc'@'here' (using password: YES)",
        );
        payload.clear();
        error.encode(&mut payload);
        send(&mut stream, &payload, 2).await;
        return;
    };
    send(&mut stream, &fast, 2).await;
    let mut ok = Vec::new();
    encode_ok(&mut ok, 0);
    send(&mut stream, &ok, 3).await;
    let deprecate_eof = response.capabilities & capability::DEPRECATE_EOF != 0;
    while let Some(command) = receive(&mut stream).await {
        match Command::decode(&command).unwrap() {
            Command::Query(b"SELECT 1, NULL") => {
                let rows = ResultSet {
                    columns: vec!["1".into(), "NULL".into()],
                    rows: vec![vec![Some(b"1".to_vec()), None]],
                };
                let mut bytes = Vec::new();
                rows.encode(deprecate_eof, &mut bytes, &mut 1);
                stream.write_all(&bytes).await.unwrap();
            }
            Command::Query(_) => {
                payload.clear();
                ServerError::new(1193, "HY000", "Unknown system variable 'x'").encode(&mut payload);
                send(&mut stream, &payload, 1).await;
            }
            Command::BinlogDump(asked) => {
                assert_eq!((asked.offset, asked.file), (4, &b"binlog.000001"[..]));
                stream.write_all(&dump).await.unwrap();
            }
            Command::Quit => return,
            _ => send(&mut stream, &ok, 1).await,
        }
    }
}

async fn send(stream: &mut TcpStream, payload: &[u8], mut sequence: u8) {
    let mut bytes = Vec::new();
    packet::write(&mut bytes, &mut sequence, payload);
    stream.write_all(&bytes).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = [0; packet::HEADER_LENGTH];
    stream.read_exact(&mut header).await.ok()?;
    let mut payload = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(payload)
}

async fn options(password: &str, capabilities: u32, dump: &[u8]) -> ConnectOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve(listener, capabilities, dump.to_vec()));
    ConnectOptions {
        host: "127.0.0.1".into(),
        port,
        user: "cdc".into(),
        password: Secret::new(password),
        tls: SourceTls {
            mode: TlsMode::Prefer,
            ca: None,
        },
        compression: None,
        timeout: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn queries_then_the_bytes_of_a_dump() {
    for capabilities in [0, capability::DEPRECATE_EOF] {
        let dump = b"\x03\x00\x00\x01\x00ab\x02\x00\x00\x02\x00";
        let mut connection = Connection::connect(&options("right", capabilities, dump).await)
            .await
            .unwrap();
        assert_eq!(connection.flavour(), Flavour::MySql);
        let rows = connection.query("SELECT 1, NULL").await.unwrap();
        assert_eq!(
            (rows.columns.len(), &rows.rows[0]),
            (2, &vec![Some(b"1".to_vec()), None])
        );
        let error = connection.query("SELECT @@x").await.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (
                Some(1193),
                "server error 1193 (HY000): Unknown system variable 'x', on \"SELECT @@x\""
            )
        );
        connection.ping().await.unwrap();
        connection.register_replica(7).await.unwrap();
        let position = "binlog.000001:4".parse().unwrap();
        connection.binlog_dump(&position, 7, 0).await.unwrap();
        let mut read = b"kept".to_vec();
        while read.len() < 4 + dump.len() {
            assert!(connection.read_into(&mut read).await.unwrap() > 0);
        }
        assert_eq!(&read[4..], dump);
    }
}

#[tokio::test]
async fn refusals_name_the_user_and_no_secret() {
    let error = Connection::connect(&options("wrong password", 0, b"").await)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert_eq!((error.code(), error.verdict()), (Some(1045), Verdict::Halt));
    assert!(
        text.contains("\"cdc\"")
            && text.contains("check user and password")
            && !text.contains("wrong password"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_asked_and_not_there() {
    let mut wants_tls = options("right", 0, b"").await;
    wants_tls.tls.mode = TlsMode::Require;
    let error = Connection::connect(&wants_tls).await.unwrap_err();
    assert!(
        error.to_string().contains("the server offers no TLS"),
        "{error}"
    );

    let mut nobody = wants_tls.clone();
    nobody.port = 1;
    let error = Connection::connect(&nobody).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Retry, "{error}");

    let mut far = Connection::connect(&options("right", 0, b"").await)
        .await
        .unwrap();
    let position = BinlogPosition {
        file: "binlog.000001".into(),
        offset: 1 << 32,
    };
    let error = far.binlog_dump(&position, 7, 0).await.unwrap_err();
    assert!(
        error.to_string().contains("4294967296 is over the limit"),
        "{error}"
    );
}
