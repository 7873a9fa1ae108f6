//! Streams byte by byte: where they begin, what comes first, what clients may say, faults at given places.

use std::time::{Duration, Instant};

use fixtures::Recording;
use harness::serve::{NewSlots, PostgresOptions, ServeOptions, Server, Writes};

use super::raw::{Raw, error, lsn, number, shown, start_at};
use crate::start;

const RECORDING: &str = "postgres-15-20k";

/// Bodies of the recording's XLogData messages.
fn recorded(name: &str) -> Vec<Vec<u8>> {
    let recording = Recording::named(name).unwrap();
    let mut frames = recording.frames().unwrap();
    let mut bodies = Vec::new();
    while let Some(frame) = frames.next_frame().unwrap() {
        if frame[0] == b'd' && frame[5] == b'w' {
            bodies.push(frame[5..].to_vec());
        }
    }
    bodies
}

/// The plugin's message in an XLogData.
fn payload(body: &[u8]) -> &[u8] {
    &body[25..]
}

async fn plain() -> Server {
    start(RECORDING, ServeOptions::default()).await
}

fn streamed(server: &Server, from: &str) -> Vec<Vec<u8>> {
    let mut raw = Raw::replicating(server);
    raw.start(&start_at(from));
    raw.stream_until(lsn(&server.end()))
}

/// Waits for what the server does by itself once a client has said something or left.
fn until(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it does not happen"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_recording_comes_as_it_was_recorded() {
    let expected = recorded(RECORDING);
    for writes in [Writes::Large, Writes::Each] {
        let options = ServeOptions {
            writes,
            ..ServeOptions::default()
        };
        let server = start(RECORDING, options).await;
        assert_eq!(server.changes(), 20_000);
        assert!(streamed(&server, "0/0") == expected, "{writes:?}");
        assert_eq!(server.ends_reached(), 1);
        assert_eq!(server.complaints(), Vec::<String>::new());
    }
}

/// Every transaction of the recording: commit LSN, end LSN, its messages.
fn transactions() -> Vec<(u64, u64, Vec<Vec<u8>>)> {
    let mut all: Vec<(u64, u64, Vec<Vec<u8>>)> = Vec::new();
    for body in recorded(RECORDING) {
        if payload(&body)[0] == b'B' {
            all.push((number(&payload(&body)[1..9]), 0, Vec::new()));
        }
        let current = all.last_mut().unwrap();
        if payload(&body)[0] == b'C' {
            current.1 = number(&payload(&body)[10..18]);
        }
        current.2.push(body);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_the_middle_gets_whole_transactions_and_the_definitions_they_need() {
    let transactions = transactions();
    assert!(transactions.len() > 10);
    let relation = transactions[0]
        .2
        .iter()
        .find(|body| payload(body)[0] == b'R')
        .unwrap();
    let server = plain().await;
    for index in [1, 2, transactions.len() / 2, transactions.len() - 1] {
        let (commit, _, _) = transactions[index];
        let (_, before, _) = transactions[index - 1];
        // At the end of the transaction before, at the commit record itself, and somewhere inside the transaction.
        for from in [before, commit, commit - 1] {
            let stream = streamed(&server, &shown(from));
            let mut expected: Vec<&Vec<u8>> =
                transactions[index..].iter().flat_map(|t| &t.2).collect();
            expected.insert(1, relation);
            assert!(stream.iter().eq(expected), "from {}", shown(from));
        }
        // Behind its commit record it is the next one's turn.
        let stream = streamed(&server, &shown(commit + 1));
        let expected: usize = transactions[index + 1..].iter().map(|t| t.2.len()).sum();
        assert_eq!(stream.len(), if expected == 0 { 0 } else { expected + 1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_below_what_is_confirmed_is_forwarded() {
    let transactions = transactions();
    let (_, end, _) = transactions[4];
    let server = plain().await;
    let mut raw = Raw::replicating(&server);
    raw.start(&start_at("0/0"));
    let seen = raw.stream_until(lsn(&server.end()));
    assert_eq!(seen.len(), recorded(RECORDING).len());
    raw.confirm(end, end, false);
    until(|| server.confirmed("walbrook") == Some(shown(end)));
    drop(raw);
    let expected: usize = transactions[5..].iter().map(|t| t.2.len()).sum();
    // The slot is free once the server has seen that the first client left.
    let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'walbrook'";
    until(|| Raw::replicating(&server).rows(active) == [[Some("f".to_owned())]]);
    let stream = streamed(&server, "0/0");
    assert_eq!(stream.len(), expected + 1);
    assert_eq!(server.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_streamed_gets_the_servers_words() {
    let server = plain().await;
    let mut holder = Raw::replicating(&server);
    holder.start(&start_at("0/0"));
    let mut raw = Raw::replicating(&server);
    let start = |slot: &str, options: &str| {
        format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})")
    };
    let usual = "proto_version '1', publication_names 'walbrook'";
    raw.query("CREATE_REPLICATION_SLOT free LOGICAL pgoutput (SNAPSHOT 'nothing')");
    raw.query("CREATE_REPLICATION_SLOT other LOGICAL test_decoding (SNAPSHOT 'nothing')");
    for (statement, code, words) in [
        (
            start("nobody", usual),
            "42704",
            "replication slot \"nobody\" does not exist",
        ),
        (
            start("walbrook", usual),
            "55006",
            "replication slot \"walbrook\" is active for PID 1",
        ),
        (
            start("free", "publication_names 'walbrook'"),
            "0A000",
            "client sent proto_version=0 but we only support protocol 1 or higher",
        ),
        (
            start("free", "proto_version '9', publication_names 'x'"),
            "0A000",
            "client sent proto_version=9 but we only support protocol 3 or lower",
        ),
        (
            start("free", "proto_version '1', nonsense '1'"),
            "XX000",
            "unrecognized pgoutput option: nonsense",
        ),
        (
            start(
                "free",
                "proto_version '1', publication_names 'walbrook', binary 'on'",
            ),
            "XX000",
            "this recording was made with binary = 'false'",
        ),
        (
            start("other", usual),
            "XX000",
            "this recording was made with plugin pgoutput, and slot \"other\" is of test_decoding",
        ),
        (
            "CREATE_REPLICATION_SLOT free LOGICAL pgoutput".into(),
            "42710",
            "replication slot \"free\" already exists",
        ),
        (
            "CREATE_REPLICATION_SLOT \"A b\" LOGICAL pgoutput".into(),
            "42602",
            "replication slot name \"A b\" contains invalid character",
        ),
        (
            "CREATE_REPLICATION_SLOT x LOGICAL nothing".into(),
            "58P01",
            "could not access file \"nothing\": No such file or directory",
        ),
        (
            "CREATE_REPLICATION_SLOT x LOGICAL pgoutput (FAILOVER)".into(),
            "XX000",
            "unrecognized option: failover",
        ),
        (
            "DROP_REPLICATION_SLOT walbrook".into(),
            "55006",
            "replication slot \"walbrook\" is active for PID 1",
        ),
        (
            "START_REPLICATION SLOT free LOGICAL 0".into(),
            "42601",
            "syntax error at end of input",
        ),
    ] {
        let (found, said) = error(&raw.query(&statement));
        assert_eq!(
            (found.as_str(), said.as_str()),
            (code, words),
            "{statement}"
        );
    }
    let mut elsewhere = Raw::connect(
        &server,
        &[("database", "postgres"), ("replication", "database")],
    );
    let (code, said) = error(&elsewhere.query(&start("free", usual)));
    assert_eq!(
        (code.as_str(), said.as_str()),
        (
            "55000",
            "replication slot \"free\" was not created in this database"
        )
    );
    let (_, refused) = Raw::greet(
        &server,
        &[("database", "walbrook"), ("replication", "maybe")],
    );
    assert_eq!(error(&refused).0, "22023");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_not_there_is_noticed_at_the_first_row() {
    let server = plain().await;
    let mut raw = Raw::replicating(&server);
    raw.start("START_REPLICATION SLOT walbrook LOGICAL 0/0 (proto_version '1', publication_names 'dropped')");
    let messages = raw.until(b'Z');
    assert_eq!(
        error(&messages),
        (
            "42704".into(),
            "publication \"dropped\" does not exist".into()
        )
    );
    // The session goes on, and the slot is free.
    raw.start(&start_at("0/0"));
    assert_eq!(raw.stream_until(lsn(&server.end())), recorded(RECORDING));
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_slots_end_with_their_session_or_its_first_error() {
    let server = plain().await;
    let create = "CREATE_REPLICATION_SLOT mine TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')";
    let mut raw = Raw::replicating(&server);
    let made = raw.rows(create);
    let begin = Recording::named(RECORDING)
        .unwrap()
        .sidecar
        .postgres
        .unwrap()
        .start;
    assert_eq!(
        made,
        [[
            Some("mine".into()),
            Some(begin),
            None,
            Some("pgoutput".to_owned())
        ]]
    );
    assert!(server.confirmed("mine").is_some());
    assert_eq!(error(&raw.query("DROP_REPLICATION_SLOT nobody")).0, "42704");
    assert_eq!(server.confirmed("mine"), None);
    raw.rows(create);
    raw.send(b'X', b"");
    assert_eq!(raw.rest(), b"");
    until(|| server.confirmed("mine").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_slots_can_begin_at_the_end() {
    let options = ServeOptions {
        postgres: PostgresOptions {
            new_slots: NewSlots::End,
            slot: Some("first".into()),
            ..PostgresOptions::default()
        },
        ..ServeOptions::default()
    };
    let server = start(RECORDING, options).await;
    assert!(server.confirmed("first").is_some() && server.confirmed("walbrook").is_none());
    let mut raw = Raw::replicating(&server);
    raw.query("CREATE_REPLICATION_SLOT walbrook LOGICAL pgoutput (SNAPSHOT 'nothing')");
    assert_eq!(server.confirmed("walbrook"), Some(server.end()));
    raw.start(&start_at("0/0"));
    assert_eq!(raw.stream_until(lsn(&server.end())), Vec::<Vec<u8>>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn confirming_what_was_not_sent_or_going_back_is_a_complaint() {
    let end = lsn(&plain().await.end());
    for (first, second, words) in [
        (end, end + 1, "was sent only up to"),
        (end, end - 1, "goes back"),
    ] {
        let server = plain().await;
        let mut raw = Raw::replicating(&server);
        raw.start(&start_at("0/0"));
        raw.stream_until(end);
        raw.confirm(first, first, false);
        raw.confirm(second, second, false);
        let (code, said) = error(&raw.until(b'E'));
        assert!(code == "08P01" && said.contains(words), "{code} {said}");
        assert!(raw.next().is_none());
        let complaints = server.complaints();
        assert!(
            complaints.len() == 1 && complaints[0].contains(words),
            "{complaints:?}"
        );
        assert_eq!(server.confirmed("walbrook"), Some(shown(first)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_in_the_middle_and_copy_done_ends_between_messages() {
    let options = ServeOptions {
        rate: Some(harness::serve::Rate::Changes(20_000)),
        ..ServeOptions::default()
    };
    let server = start(RECORDING, options).await;
    let mut raw = Raw::replicating(&server);
    raw.start(&start_at("0/0"));
    raw.confirm(0, 0, true);
    let mut before = 0;
    let place = loop {
        let (tag, body) = raw.next().unwrap();
        assert_eq!(tag, b'd');
        if body[0] == b'k' && before > 0 {
            break number(&body[1..9]);
        }
        before += 1;
    };
    assert!(
        place < lsn(&server.end()) && before < 15_000,
        "{before} messages before the answer"
    );
    raw.send(b'c', b"");
    let rest = raw.until(b'Z');
    let tags: Vec<u8> = rest
        .iter()
        .map(|(tag, _)| *tag)
        .filter(|tag| *tag != b'd')
        .collect();
    assert_eq!(tags, b"cCCZ");
    assert_eq!(raw.rows("SHOW wal_level"), [[Some("logical".to_owned())]]);
    // A query in the middle of a stream is an error that ends the session.
    raw.start(&start_at("0/0"));
    raw.send(b'Q', b"SELECT 1\0");
    let (code, said) = error(&raw.until(b'E'));
    assert_eq!(
        (code.as_str(), said.as_str()),
        ("08P01", "invalid standby message type \"Q\"")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_asked_and_then_given_up() {
    let server = plain().await;
    // Long enough that a busy machine does not make the client seem silent between question and answer.
    let options = "-c wal_sender_timeout=8s";
    let parameters = [
        ("database", "walbrook"),
        ("replication", "database"),
        ("options", options),
    ];
    let mut raw = Raw::connect(&server, &parameters);
    raw.start(&start_at(&server.end()));
    // Twice: what it says puts the end off.
    for _ in 0..2 {
        let asks = |(tag, body): &(u8, Vec<u8>)| *tag == b'd' && body[0] == b'k' && body[17] == 1;
        while !asks(&raw.next().unwrap()) {}
        raw.confirm(0, 0, false);
    }
    while raw.next().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_of_any_length() {
    for rows in [1_u64, 20_000, 45_003] {
        let options = ServeOptions {
            transaction_rows: Some(rows),
            ..ServeOptions::default()
        };
        let server = start(RECORDING, options).await;
        assert_eq!(server.changes(), rows);
        let stream = streamed(&server, "0/0");
        let kind = |body: &Vec<u8>| payload(body)[0];
        let (begin, commit) = (&stream[0], stream.last().unwrap());
        assert_eq!((kind(begin), kind(commit)), (b'B', b'C'));
        let final_lsn = number(&payload(begin)[1..9]);
        assert_eq!(final_lsn, number(&payload(commit)[2..10]));
        assert_eq!(shown(number(&payload(commit)[10..18])), server.end());
        let places: Vec<u64> = stream
            .iter()
            .filter(|body| b"IUD".contains(&kind(body)))
            .map(|body| number(&body[1..9]))
            .collect();
        assert_eq!(places.len() as u64, rows);
        assert!(places.is_sorted_by(|a, b| a < b) && *places.last().unwrap() < final_lsn);
        assert_eq!(kind(&stream[1]), b'R');
        assert!(streamed(&server, &server.end()).is_empty());
    }
}

/// Everything of a stream up to the server's last keepalive, or to where the connection breaks.
fn bytes(server: &Server) -> Vec<u8> {
    let mut raw = Raw::replicating(server);
    raw.start(&start_at("0/0"));
    let mut all = Vec::new();
    let end = lsn(&server.end());
    while let Some((tag, body)) = raw.next() {
        if body.first() == Some(&b'k') && number(&body[1..9]) == end {
            return all;
        }
        if body.first() != Some(&b'k') {
            all.push(tag);
            all.extend(body);
        }
    }
    all.extend(raw.rest());
    all
}

async fn with_fault(text: &str) -> Server {
    let options = ServeOptions {
        faults: vec![text.parse().unwrap()],
        ..ServeOptions::default()
    };
    start(RECORDING, options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_once_at_their_place() {
    let whole = bytes(&plain().await);
    for text in ["cut@10000", "cut@500000b", "cut@19999", "cut@0b"] {
        let server = with_fault(text).await;
        let cut = bytes(&server);
        assert!(cut.len() < whole.len(), "{text}");
        let same = cut.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        // What is cut inside a message lacks nothing but its end; its header is not in `whole`.
        assert!(same + 200 >= cut.len(), "{text}: {same} of {}", cut.len());
        assert!(bytes(&server) == whole, "{text}");
    }
    for text in ["split@0b+20000", "stall@10000+300ms"] {
        let server = with_fault(text).await;
        let started = Instant::now();
        assert!(bytes(&server) == whole, "{text}");
        assert!(!text.starts_with("stall") || started.elapsed() >= Duration::from_millis(300));
    }
    for text in ["corrupt@12345", "corrupt@0"] {
        let server = with_fault(text).await;
        let flipped = bytes(&server);
        assert_eq!(flipped.len(), whole.len(), "{text}");
        let different = flipped.iter().zip(&whole).filter(|(a, b)| a != b).count();
        assert_eq!(different, 1, "{text}");
    }
}
