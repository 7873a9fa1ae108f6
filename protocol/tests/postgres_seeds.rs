//! The fuzz targets' work on PostgreSQL over recorded seeds and seeded mutations of them, for machines without nightly and cargo-fuzz.
//!
//! Messages of pgoutput and of wal2json: the distinct kinds and sizes of the types recordings. `MUTATIONS=5000 cargo test -p protocol
//! --test postgres_seeds` does it for long.

mod mutate;

use std::collections::HashMap;

use fixtures::Recording;
use protocol::postgres::copy::Replication;
use protocol::postgres::packet;
use protocol::postgres::pgoutput::{Message, Tuple};
use protocol::postgres::wal2json::{self, Described, Shape};

use mutate::{Random, mutations};

/// Of each seed in CI.
const MUTATIONS: u64 = 200;
/// Seeds of one kind and about one size; more of the same would show nothing new.
const ALIKE_MAX: usize = 6;

/// What the plugin wrote.
fn messages(name: &str) -> Vec<Vec<u8>> {
    let recording = Recording::named(name).unwrap();
    let mut frames = recording.frames().unwrap();
    let mut alike: HashMap<(u8, u8, usize), usize> = HashMap::new();
    let mut found = Vec::new();
    while let Some(message) = frames.next_frame().unwrap() {
        let frame = packet::next(message).unwrap().unwrap();
        let body = &message[frame.body];
        if frame.tag != b'd' || body.len() > 4000 {
            continue;
        }
        if let Replication::XLogData(_) = Replication::decode(body).unwrap() {
            // `w`, three LSNs and times of 8 bytes.
            let data = body[25..].to_vec();
            let kind = |at: usize| data.get(at).copied().unwrap_or(0);
            let count = alike
                .entry((kind(0), kind(11), data.len() / 8))
                .or_default();
            *count += 1;
            if *count <= ALIKE_MAX {
                found.push(data);
            }
        }
    }
    assert!(found.len() > 20, "{name}: {}", found.len());
    found
}

#[test]
fn pgoutput_and_its_mutations() {
    let mut random = Random::new();
    for seed in messages("postgres-15-types") {
        Message::decode(&seed).unwrap();
        for _ in 0..mutations(MUTATIONS) {
            let bytes = random.mutate(&seed);
            drop(Message::decode_streamed(&bytes));
            let Ok(message) = Message::decode(&bytes) else {
                continue;
            };
            let row = match message {
                Message::Insert(row) => row.new,
                Message::Update(row) => row.new,
                _ => continue,
            };
            // A tuple that was accepted can be read to its end.
            let mut tuple = Tuple::new(&bytes[row]).unwrap();
            while tuple.next().unwrap().is_some() {}
        }
    }
}

#[test]
fn wal2json_and_its_mutations() {
    let mut random = Random::new();
    let mut rewritten = 0;
    for seed in messages("postgres-15-wal2json-types") {
        for _ in 0..mutations(MUTATIONS) {
            let text = random.mutate(&seed);
            let Ok(head) = wal2json::Message::decode(&text) else {
                continue;
            };
            let Ok(described) = Described::read(&text, &head) else {
                continue;
            };
            let columns = described.columns.or(described.identity).unwrap_or_default();
            let mut bytes = text.clone();
            let whole = 0..bytes.len();
            let row = Shape::new(&columns).rewrite(&mut bytes, 0, whole, head.action, head.row_at);
            rewritten += u32::from(row.is_ok());
            assert!(
                row.is_ok() || bytes == text,
                "an error left the bytes changed"
            );
        }
    }
    assert!(rewritten > 100, "only {rewritten} messages were still rows");
}
