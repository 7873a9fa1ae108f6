//! Against a server of a few lines, made of the codecs' server half (which foreign clients prove in `harness`).

use std::time::Duration;

use protocol::mysql::auth::{Plugin, Server, ServerStep};
use protocol::mysql::compress::{Algorithm, Compressor, Decompressor};
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
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = Peer {
        stream,
        codec: None,
        received: Vec::new(),
    };
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
    peer.send(&payload, 0).await;
    let response = peer.receive().await.unwrap();
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
        peer.send(&payload, 2).await;
        return;
    };
    peer.send(&fast, 2).await;
    let mut ok = Vec::new();
    encode_ok(&mut ok, 0);
    peer.send(&ok, 3).await;
    peer.compress(response.capabilities & capabilities, response.zstd_level);
    let deprecate_eof = response.capabilities & capability::DEPRECATE_EOF != 0;
    while let Some(command) = peer.receive().await {
        match Command::decode(&command).unwrap() {
            Command::Query(b"SELECT 1, NULL") => {
                let rows = ResultSet {
                    columns: vec!["1".into(), "NULL".into()],
                    rows: vec![vec![Some(b"1".to_vec()), None]],
                };
                let mut bytes = Vec::new();
                rows.encode(deprecate_eof, &mut bytes, &mut 1);
                peer.write(&bytes).await;
            }
            Command::Query(_) => {
                payload.clear();
                ServerError::new(1193, "HY000", "Unknown system variable 'x'").encode(&mut payload);
                peer.send(&payload, 1).await;
            }
            Command::BinlogDump(asked) => {
                assert_eq!((asked.offset, asked.file), (4, &b"binlog.000001"[..]));
                peer.write(&dump).await;
            }
            Command::Quit => return,
            _ => peer.send(&ok, 1).await,
        }
    }
}

/// The server's side of the line.
struct Peer {
    stream: TcpStream,
    codec: Option<(Compressor, Decompressor)>,
    received: Vec<u8>,
}

impl Peer {
    fn compress(&mut self, agreed: u32, level: u8) {
        let algorithm = match agreed {
            bits if bits & capability::ZSTD_COMPRESSION != 0 => Algorithm::Zstd { level },
            bits if bits & capability::COMPRESS != 0 => Algorithm::Zlib,
            _ => return,
        };
        let decompressor = Decompressor::new(algorithm).unwrap();
        self.codec = Some((Compressor::new(algorithm), decompressor));
    }

    async fn send(&mut self, payload: &[u8], mut sequence: u8) {
        let mut bytes = Vec::new();
        packet::write(&mut bytes, &mut sequence, payload);
        self.write(&bytes).await;
    }

    async fn write(&mut self, packets: &[u8]) {
        let mut bytes = Vec::new();
        match &mut self.codec {
            None => bytes.extend_from_slice(packets),
            Some((compressor, _)) => {
                compressor.restart_at(1);
                // Compressed packets end anywhere in a packet.
                packets
                    .chunks(70)
                    .for_each(|part| compressor.write(part, &mut bytes));
            }
        }
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The client's next payload; `None` when it is gone.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some((_, decompressor)) = &mut self.codec {
            decompressor.restart_at(0);
        }
        loop {
            if let Some([a, b, c, _]) = bytes.first_chunk().copied() {
                let end = packet::HEADER_LENGTH + u32::from_le_bytes([a, b, c, 0]) as usize;
                if bytes.len() >= end {
                    return Some(bytes[packet::HEADER_LENGTH..end].to_vec());
                }
            }
            match &mut self.codec {
                None => {
                    // One byte at a time: the client says nothing more before its answer, but TLS would.
                    let byte = self.stream.read_u8().await.ok()?;
                    bytes.push(byte);
                }
                Some((_, decompressor)) => {
                    bytes.reserve(1024);
                    let before = bytes.len();
                    let used = decompressor.read(&self.received, &mut bytes).unwrap();
                    self.received.drain(..used);
                    if bytes.len() == before
                        && self.stream.read_buf(&mut self.received).await.ok()? == 0
                    {
                        return None;
                    }
                }
            }
        }
    }
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
        compression: WireCompression::Auto,
        round_trip: None,
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

/// Packets of a dump that compress well.
fn dump() -> Vec<u8> {
    let (mut bytes, mut sequence) = (Vec::new(), 1);
    for n in 0..100_u8 {
        packet::write(&mut bytes, &mut sequence, &[n; 99]);
    }
    bytes
}

#[tokio::test]
async fn both_algorithms_carry_queries_and_a_dump() {
    let both = capability::COMPRESS | capability::ZSTD_COMPRESSION;
    for (wanted, says) in [
        (WireCompression::Zstd, "zstd: as the url says"),
        (WireCompression::Zlib, "zlib: as the url says"),
    ] {
        let dump = dump();
        let mut options = options("right", both, &dump).await;
        options.compression = wanted;
        let mut connection = Connection::connect(&options).await.unwrap();
        assert_eq!(connection.compression().to_string(), says);
        assert!(connection.is_compressed());
        for _ in 0..3 {
            let rows = connection.query("SELECT 1, NULL").await.unwrap();
            assert_eq!(rows.rows[0], vec![Some(b"1".to_vec()), None]);
        }
        let position = "binlog.000001:4".parse().unwrap();
        connection.binlog_dump(&position, 7, 0).await.unwrap();
        let (mut read, mut received) = (Vec::with_capacity(1000), 0);
        while read.len() < dump.len() {
            received += connection.read_into(&mut read).await.unwrap();
        }
        assert!(read == dump);
        assert!(received < dump.len(), "{received} bytes came over the line");
    }
}

#[tokio::test]
async fn a_far_server_is_compressed_and_a_choice_is_kept() {
    let mut options = options("right", capability::ZSTD_COMPRESSION, b"").await;
    let far = Duration::from_millis(300);
    options.round_trip = Some(far);
    let connection = Connection::connect(&options).await.unwrap();
    assert!(connection.is_compressed(), "{}", connection.compression());
    assert_eq!(connection.round_trip(), far);
}

#[tokio::test]
async fn what_the_server_does_not_offer_is_said() {
    let mut options = options("right", capability::COMPRESS, b"").await;
    options.compression = WireCompression::Zstd;
    let error = Connection::connect(&options).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Halt);
    let text = error.to_string();
    assert!(
        text.starts_with("the server does not offer zstd compression"),
        "{text}"
    );
}

#[tokio::test]
async fn a_broken_compressed_packet_is_named_with_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut transport = Transport::plain(
        TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap(),
    );
    transport.compress(Algorithm::Zlib).unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    let mut compressor = Compressor::new(Algorithm::Zlib);
    compressor.write(b"sound", &mut bytes);
    compressor.write(&[7; 1000], &mut bytes);
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    server.write_all(&bytes).await.unwrap();
    let mut read = Vec::with_capacity(5);
    transport.read(&mut read).await.unwrap();
    assert_eq!(read, b"sound");
    let mut read = Vec::with_capacity(2000);
    let error = loop {
        match transport.read(&mut read).await {
            Ok(()) => {}
            Err(error) => break failed("reading the binary log", error),
        }
    };
    assert_eq!(
        error.to_string(),
        "the server sent what is not MySQL's protocol while reading the binary log: compressed packet payload at byte 19: \
         corrupt, it cannot be decompressed"
    );
}
