//! Faults at given places, as a client sees them; and the start of MariaDB's GTIDs, heartbeats and rates.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::serve::{Action, Fault, Place, Rate, ServeOptions, Server};
use protocol::mysql::command::{BinlogDump, Command, DUMP_NON_BLOCK};
use protocol::mysql::event::{Checksum, Format, Message};
use protocol::mysql::handshake::{Greeting, Response};
use protocol::mysql::packet::{self, Frames};

use crate::start;

/// A client of a few lines: what it reads is looked at byte by byte.
struct Raw {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Raw {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut raw = Self {
            stream,
            bytes: Vec::new(),
        };
        let greeting = Greeting::decode(&raw.payload(0)).unwrap();
        let response = Response {
            capabilities: greeting.capabilities & protocol::mysql::handshake::capability::REQUIRED,
            plugin: greeting.plugin,
            ..Response::default()
        };
        let mut payload = Vec::new();
        response.encode(&mut payload);
        raw.send(&payload, 1);
        assert_eq!(raw.payload(2)[0], 0);
        raw
    }

    fn send(&mut self, payload: &[u8], mut sequence: u8) {
        let mut bytes = Vec::new();
        packet::write(&mut bytes, &mut sequence, payload);
        std::io::Write::write_all(&mut self.stream, &bytes).unwrap();
    }

    fn payload(&mut self, sequence: u8) -> Vec<u8> {
        loop {
            if let Some(frame) = Frames::starting_at(sequence).next(&self.bytes).unwrap() {
                let payload = self.bytes[frame.payload()].to_vec();
                self.bytes.drain(..frame.wire_length);
                return payload;
            }
            let mut chunk = [0; 4096];
            let length = self.stream.read(&mut chunk).unwrap();
            assert!(length > 0, "closed");
            self.bytes.extend_from_slice(&chunk[..length]);
        }
    }

    fn query(&mut self, statement: &str) {
        let mut payload = Vec::new();
        Command::Query(statement.as_bytes()).encode(&mut payload);
        self.send(&payload, 0);
        assert_eq!(self.payload(1)[0], 0, "{statement}");
    }

    fn dump(&mut self, file: &str, flags: u16) {
        let mut payload = Vec::new();
        let dump = BinlogDump {
            offset: 4,
            flags,
            server_id: 99,
            file: file.as_bytes(),
        };
        Command::BinlogDump(dump).encode(&mut payload);
        self.send(&payload, 0);
    }

    /// Everything up to the end of the connection, and whether it was broken rather than closed.
    fn rest(mut self) -> (Vec<u8>, bool) {
        let broken = self.stream.read_to_end(&mut self.bytes).is_err();
        (self.bytes, broken)
    }
}

/// A whole dump as the client receives it.
fn dumped(server: &Server) -> (Vec<u8>, bool) {
    let mut raw = Raw::connect(server);
    raw.query("SET @master_binlog_checksum = @@GLOBAL.binlog_checksum");
    raw.dump("", DUMP_NON_BLOCK);
    raw.rest()
}

fn events(stream: &[u8]) -> Vec<&[u8]> {
    let (mut frames, mut at, mut all) = (Frames::starting_at(1), 0, Vec::new());
    while let Some(frame) = frames.next(&stream[at..]).unwrap() {
        let payload = &stream[at..][frame.payload()];
        if payload[0] == 0 {
            all.push(&payload[1..]);
        }
        at += frame.wire_length;
    }
    all
}

/// The first event that is not right, and how many come before it.
fn first_wrong(stream: &[u8]) -> Option<(usize, String)> {
    let mut format = Format::before_description(Checksum::Crc32);
    for (i, event) in events(stream).into_iter().enumerate() {
        match Message::parse(&format, event) {
            Ok((_, Message::FormatDescription(new))) => format = new,
            Ok(_) => {}
            Err(error) => return Some((i, error.to_string())),
        }
    }
    None
}

async fn with_fault(text: &str) -> Server {
    let options = ServeOptions {
        faults: vec![text.parse().unwrap()],
        ..ServeOptions::default()
    };
    start("mysql-9.7-20k", options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_breaks_once_and_the_next_connection_is_whole() {
    let whole = dumped(&start("mysql-9.7-20k", ServeOptions::default()).await);
    assert!(!whole.1 && first_wrong(&whole.0).is_none());
    for text in ["cut@10000", "cut@500000b", "cut@0b", "cut@19999"] {
        let server = with_fault(text).await;
        let (cut, _) = dumped(&server);
        assert!(
            cut.len() < whole.0.len() && whole.0.starts_with(&cut),
            "{text}: {} bytes",
            cut.len()
        );
        assert_eq!(dumped(&server).0, whole.0, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_bytes_and_stalls_change_nothing() {
    let whole = dumped(&start("mysql-9.7-20k", ServeOptions::default()).await).0;
    assert_eq!(dumped(&with_fault("split@0b+20000").await).0, whole);
    let server = with_fault("stall@10000+300ms").await;
    let started = Instant::now();
    assert_eq!(dumped(&server).0, whole);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_one_byte_and_the_checksum_tells() {
    let whole = dumped(&start("mysql-9.7-20k", ServeOptions::default()).await).0;
    let server = with_fault("corrupt@12345").await;
    let (flipped, _) = dumped(&server);
    let different: Vec<usize> = (0..whole.len())
        .filter(|i| whole[*i] != flipped[*i])
        .collect();
    assert_eq!(different.len(), 1);
    let (_, error) = first_wrong(&flipped).unwrap();
    assert!(error.contains("checksum"), "{error}");
    server.schedule(Fault {
        at: Place::Bytes(200),
        action: Action::Corrupt(0xff),
    });
    assert!(first_wrong(&dumped(&server).0).is_some());
    assert!(first_wrong(&dumped(&server).0).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    let options = ServeOptions {
        rate: Some(Rate::Changes(40_000)),
        ..ServeOptions::default()
    };
    let server = start("mysql-9.7-20k", options).await;
    let started = Instant::now();
    dumped(&server);
    let seconds = started.elapsed().as_secs_f64();
    // Half a second, and on a busy machine any time longer.
    assert!(seconds >= 0.4, "{seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_when_asked_for() {
    let server = start("mysql-9.7-20k", ServeOptions::default()).await;
    let end = server.end();
    for flags in [0, protocol::mysql::command::DUMP_HEARTBEAT_V2] {
        let mut raw = Raw::connect(&server);
        raw.query("SET @source_binlog_checksum = 'CRC32', @source_heartbeat_period = 50000000");
        raw.dump("", flags);
        let mut format = Format::before_description(Checksum::Crc32);
        let mut sequence = 1u8;
        loop {
            let payload = raw.payload(sequence);
            sequence = sequence.wrapping_add(1);
            match Message::parse(&format, &payload[1..]).unwrap().1 {
                Message::FormatDescription(new) => format = new,
                Message::Heartbeat(beat) => {
                    assert_eq!(format!("{}:{}", beat.file, beat.position), end);
                    assert_eq!(beat.wide, flags != 0);
                    break;
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_goes_on_after_a_gtid() {
    let server = start("mariadb-10.11-20k", ServeOptions::default()).await;
    let mut whole = 0;
    for (state, expected) in [("", None), ("0-1001-10", Some(11)), ("0-1001-29", None)] {
        let mut raw = Raw::connect(&server);
        raw.query("SET @mariadb_slave_capability = 4");
        raw.query("SET @master_binlog_checksum = @@GLOBAL.binlog_checksum");
        raw.query(&format!("SET @slave_connect_state = '{state}'"));
        raw.dump("ignored", DUMP_NON_BLOCK);
        let (stream, _) = raw.rest();
        let mut format = Format::before_description(Checksum::Crc32);
        let mut first = None;
        for event in events(&stream) {
            match Message::parse(&format, event).unwrap().1 {
                Message::FormatDescription(new) => format = new,
                Message::MariaDbGtid(gtid) => first = first.or(Some(gtid.sequence)),
                Message::RowsQuery(_) => panic!("nobody asked for ANNOTATE_ROWS"),
                _ => {}
            }
        }
        match state {
            "" => whole = stream.len(),
            "0-1001-29" => assert_eq!(first, None),
            _ => assert!(first == expected && stream.len() < whole, "{first:?}"),
        }
    }
    let mut raw = Raw::connect(&server);
    raw.query("SET @master_binlog_checksum = 'CRC32', @slave_connect_state = '0-1001-9999'");
    raw.dump("", 0);
    let refused = raw.payload(1);
    let text = String::from_utf8_lossy(&refused);
    assert!(
        refused[0] == 0xff && text.contains("which is not in the master's binlog"),
        "{text}"
    );
}
