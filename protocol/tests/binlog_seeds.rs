//! The fuzz targets' work over recorded seeds and seeded mutations of them, for machines without nightly and cargo-fuzz.
//!
//! Events: every distinct one of the types recordings. JSON: every document in them. Statements: every QUERY. Each is run as it
//! is and with a few bytes overwritten, removed or repeated: `MUTATIONS=5000 cargo test -p protocol --test binlog_seeds` does it for long.

mod mutate;

use std::collections::{BTreeSet, HashMap};

use fixtures::Recording;
use protocol::mysql::event::{Checksum, Format, Message};
use protocol::mysql::json;
use protocol::mysql::rows::{Image, Rows};
use protocol::mysql::statement::{SqlMode, Statement};
use protocol::mysql::table_map::Description;
use protocol::mysql::value::Value;

use mutate::{Random, mutations};

/// Of each seed in CI.
const MUTATIONS: u64 = 60;

#[derive(Default)]
struct Seeds {
    events: BTreeSet<Vec<u8>>,
    documents: BTreeSet<Vec<u8>>,
    statements: BTreeSet<String>,
}

/// Reads a recording for its distinct events without checksums, JSON documents and statements.
fn collect(name: &str, seeds: &mut Seeds) {
    let recording = Recording::named(name).unwrap();
    let mut stream = recording.events().unwrap();
    let mut format = Format::before_description(Checksum::Crc32);
    let mut tables: HashMap<u64, Description> = HashMap::new();
    while let Some(event) = stream.next_event().unwrap() {
        match Message::parse(&format, event).unwrap().1 {
            Message::FormatDescription(described) => {
                format = described;
                continue;
            }
            Message::TableMap(map) => {
                tables.insert(map.table_id, map.describe().unwrap());
            }
            // MariaDB's old temporal types come with too little to be read without a catalog; MariaDB has no binary JSON either.
            Message::Rows(rows) if !format.mariadb => {
                documents(&rows, &tables[&rows.table_id], seeds)
            }
            Message::Query(query) => {
                seeds.statements.insert(query.text().into_owned());
            }
            _ => {}
        }
        if event.len() < 2000 {
            let mut plain = event[..event.len() - 4].to_vec();
            let length = plain.len() as u32;
            plain[9..13].copy_from_slice(&length.to_le_bytes());
            seeds.events.insert(plain);
        }
    }
}

fn documents(rows: &Rows<'_>, table: &Description, seeds: &mut Seeds) {
    for row in rows.walk(&table.columns).unwrap() {
        let row = row.unwrap();
        // Partial images are left out: their documents are diffs.
        let sides = [
            (rows.columns_before, row.before),
            (rows.columns_after, row.after),
        ];
        let whole = if rows.partial { 1 } else { 2 };
        for (present, span) in sides.into_iter().take(whole) {
            let Some(image) = span.of(rows.bytes()) else {
                continue;
            };
            let present = present.of(rows.bytes()).unwrap();
            let mut image = Image::new(&table.columns, present, image).unwrap();
            while let Some((_, value)) = image.next().unwrap() {
                if let Some(Value::Json(document)) = value {
                    seeds.documents.insert(document.to_vec());
                }
            }
        }
    }
}

#[test]
fn seeds_and_their_mutations() {
    let mut seeds = Seeds::default();
    for name in ["mysql-9.7-types", "mariadb-10.11-types"] {
        collect(name, &mut seeds);
    }
    let (events, documents, statements) = (
        seeds.events.len(),
        seeds.documents.len(),
        seeds.statements.len(),
    );
    println!("{events} events, {documents} documents, {statements} statements");
    assert!(events > 100 && documents > 10 && statements > 50);
    let (mut random, mutations) = (Random::new(), mutations(MUTATIONS));
    let format = Format::before_description(Checksum::Off);
    for seed in &seeds.events {
        for _ in 0..mutations {
            let mut event = random.mutate(seed);
            // Mostly with a length that fits, so that the body is read at all.
            if random.below(8) > 0 && event.len() >= 13 {
                let length = event.len() as u32;
                event[9..13].copy_from_slice(&length.to_le_bytes());
            }
            match Message::parse(&format, &event) {
                Ok((_, Message::TableMap(map))) => drop(map.describe()),
                Ok((_, Message::Query(query))) => drop(query.recognise()),
                Ok(_) => {}
                Err(error) => assert!(error.at <= event.len() as u64 + 8, "{error}"),
            }
        }
    }
    for seed in &seeds.documents {
        json::write_text(seed, &mut Vec::new()).unwrap();
        for _ in 0..mutations {
            let document = random.mutate(seed);
            let mut out = Vec::new();
            let _ = json::write_text(&document, &mut out);
            assert!(out.len() <= 30 * (document.len() + 1));
        }
    }
    for seed in &seeds.statements {
        for _ in 0..mutations {
            let text = random.mutate(seed.as_bytes());
            let mode = if random.below(2) == 0 {
                SqlMode::ANSI_QUOTES
            } else {
                SqlMode::NO_BACKSLASH_ESCAPES
            };
            let _ = Statement::recognise(&String::from_utf8_lossy(&text), mode);
        }
    }
}
