//! Encoding recordings of real servers.
//!
//! Every column type of a real MySQL 9.7 (`fixtures/recordings/mysql-9.7-types`, made by `fixtures/sql/types-mysql.sql`) as records:
//! `fixtures/golden/mysql-9.7-types.txt`, and of PostgreSQL 15 (`postgres-15-types`, `fixtures/sql/types-postgres.sql`):
//! `fixtures/golden/postgres-15-types.txt`; `UPDATE_GOLDEN=1` rewrites them. What a value must be is read from the SQL; the
//! reference for how it is written is Debezium's output (`engine/src/encode/tests/reference.rs`, `…/tests/postgres/reference.rs`).

#[path = "../../benches/src/batches.rs"]
#[allow(unreachable_pub)]
mod batches;
#[path = "../../benches/src/postgres_batches.rs"]
#[allow(unreachable_pub)]
mod postgres_batches;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use engine::batch::Batch;
use engine::checkpoint::Checkpoint;
use engine::config::{Compression, EncodeSettings, Keys};
use engine::encode::{Encoder, Template, topic_name};
use engine::encoded::Route;
use engine::position::Position;
use engine::settled::{Settled, Tails};
use engine::source::Identity;
use protocol::kafka::record_batch::{Decoder, stamp};

const NOW: Duration = Duration::new(1_795_253_701, 178_462_084);

fn settings(
    source: &str,
    connector: &'static str,
    compression: Compression,
) -> Arc<EncodeSettings> {
    Arc::new(EncodeSettings {
        source: source.into(),
        connector,
        version: "0",
        keys: Keys::default(),
        compression,
        batch_max: 1 << 20,
        row_max: 64 << 20,
        tombstones: true,
    })
}

/// One record a line: topic, place | key | value.
fn records(connector: &'static str, batches: &[Batch]) -> String {
    let settings = settings("golden", connector, Compression::None);
    let mut encoder = Encoder::new(Arc::clone(&settings));
    let mut lines = String::new();
    for batch in batches {
        let names: Vec<String> = batch
            .tables
            .iter()
            .map(|table| topic_name("{source}.{schema}.{table}", "golden", table))
            .collect();
        let template = |(n, table): (usize, &Arc<_>)| {
            let route = Route {
                topic: names[n].as_str().into(),
                topic_id: n as u32,
                partitions: 1,
            };
            Template::new(Arc::clone(table), route, &settings).unwrap()
        };
        let templates: Vec<_> = batch.tables.iter().enumerate().map(template).collect();
        let text =
            |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        for mut part in encoder.encode(batch, &templates, None, NOW).unwrap() {
            stamp(&mut part.bytes, -1, -1, -1).unwrap();
            let mut decoder = Decoder::new();
            let (_, records) = decoder.decode(&part.bytes).unwrap().unwrap();
            for record in records {
                let record = record.unwrap();
                let topic = &names[part.topic_id as usize];
                let pos = text(record.header("pos"));
                let (key, value) = (text(record.key), text(record.value));
                if let Some(value) = record.value {
                    serde_json::from_slice::<serde_json::Value>(value).unwrap();
                }
                writeln!(lines, "{topic} {pos} | {key} | {value}").unwrap();
            }
        }
    }
    lines
}

/// Compares with a golden file, or writes it.
fn is_golden(name: &str, found: &str) {
    let path = fixtures::directory().join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (found, golden) in found.lines().zip(golden.lines()) {
        assert_eq!(found, golden);
    }
    assert_eq!(found.lines().count(), golden.lines().count());
}

#[test]
fn every_type_of_mysql() {
    let (batches, _) = batches::of_recording("mysql-9.7-types", usize::MAX);
    is_golden("mysql-9.7-types.txt", &records("mysql", &batches));
}

/// The schemas `types` and `public`: tables of every type, and those of Debezium's reference.
#[test]
fn every_type_of_postgres() {
    let (batches, changes) = postgres_batches::of_recording("postgres-15-types", usize::MAX);
    let records = records("postgresql", &batches);
    // Every change of the recording becomes a record, also those that are left out of the golden file for their size.
    assert!(records.lines().count() as u64 >= changes);
    let is_kept =
        |line: &&str| line.starts_with("golden.types.") || line.starts_with("golden.public.");
    let kept: String = records
        .lines()
        .filter(is_kept)
        .map(|line| format!("{line}\n"))
        .collect();
    is_golden("postgres-15-types.txt", &kept);
}

/// What a key's records say, in order: partition, and the value without `source` and the time of encoding; none for a tombstone.
type Histories = BTreeMap<String, Vec<(i32, Option<serde_json::Value>)>>;

fn histories(connector: &'static str, batches: &[Batch]) -> Histories {
    let settings = settings("twin", connector, Compression::None);
    let mut encoder = Encoder::new(Arc::clone(&settings));
    let route = Route {
        topic: "twin.walbrook.events".into(),
        topic_id: 0,
        partitions: 3,
    };
    let mut histories = Histories::new();
    for batch in batches {
        let template =
            |table: &Arc<_>| Template::new(Arc::clone(table), route.clone(), &settings).unwrap();
        let templates: Vec<_> = batch.tables.iter().map(template).collect();
        for mut part in encoder.encode(batch, &templates, None, NOW).unwrap() {
            stamp(&mut part.bytes, -1, -1, -1).unwrap();
            let mut decoder = Decoder::new();
            let (_, records) = decoder.decode(&part.bytes).unwrap().unwrap();
            for record in records {
                let record = record.unwrap();
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                let value = record.value.map(|value| {
                    let mut value: serde_json::Value = serde_json::from_slice(value).unwrap();
                    value.as_object_mut().unwrap().remove("source").unwrap();
                    value
                });
                let history = histories.entry(key).or_default();
                history.push((part.partition, value));
            }
        }
    }
    histories
}

/// The workload of one seed as two servers recorded it. Servers order the rows of one statement as they like, so keys are compared
/// one by one; PostgreSQL's default replica identity sends less of the row before.
#[test]
fn the_same_workload_gives_the_same_records() {
    let (mysql, changes) = batches::of_recording("mysql-9.7-20k", 256 << 10);
    let (postgres, same) = postgres_batches::of_recording("postgres-15-20k", 256 << 10);
    assert_eq!(changes, same);
    let mut expected = histories("mysql", &mysql);
    for (_, value) in expected.values_mut().flatten() {
        let Some(value) = value else { continue };
        match value["op"].as_str().unwrap() {
            "u" => value["before"] = serde_json::Value::Null,
            "d" => {
                for (name, of) in value["before"].as_object_mut().unwrap() {
                    if name != "id" {
                        *of = serde_json::Value::Null;
                    }
                }
            }
            _ => {}
        }
    }
    let found = histories("postgresql", &postgres);
    assert_eq!(found.len(), expected.len());
    for (key, expected) in &expected {
        assert_eq!(&found[key], expected, "{key}");
    }
}

/// With `REPLICA IDENTITY FULL` the row before is what the record before it left.
#[test]
fn full_images_are_what_the_record_before_left() {
    let (batches, _) = postgres_batches::of_recording("postgres-15-full-50k", 256 << 10);
    let mut befores = 0;
    for (key, history) in histories("postgresql", &batches) {
        let mut row = serde_json::Value::Null;
        for (_, value) in history {
            let Some(mut value) = value else { continue };
            assert_eq!(value["before"], row, "{key}");
            befores += u64::from(!row.is_null());
            row = value["after"].take();
        }
    }
    // 12,500 updates and as many deletes.
    assert_eq!(befores, 25_000);
}

/// After a crash: what the partitions' tails show is not encoded again, everything behind it is, in the same partitions.
#[test]
fn settled_rows_are_left_out() {
    let settings = settings("golden", "mysql", Compression::Lz4);
    let (batches, changes) = batches::of_recording("mysql-9.7-20k", usize::MAX);
    let route = Route {
        topic: "golden.events".into(),
        topic_id: 4,
        partitions: 3,
    };
    let template =
        |table: &Arc<_>| Template::new(Arc::clone(table), route.clone(), &settings).unwrap();
    let templates: Vec<_> = batches[0].tables.iter().map(template).collect();
    let mut encoder = Encoder::new(Arc::clone(&settings));
    let mut encode = |settled: Option<&Settled>| {
        let mut pos: [Vec<String>; 3] = Default::default();
        let parts = encoder
            .encode(&batches[0], &templates, settled, NOW)
            .unwrap();
        let count: u32 = parts.iter().map(|part| part.changes).sum();
        for mut part in parts {
            stamp(&mut part.bytes, -1, -1, -1).unwrap();
            let mut decoder = Decoder::new();
            let (_, records) = decoder.decode(&part.bytes).unwrap().unwrap();
            let named = records.map(|record| record.unwrap().header("pos").unwrap().to_vec());
            pos[part.partition as usize].extend(named.map(|pos| String::from_utf8(pos).unwrap()));
        }
        (pos, count)
    };
    let (all, count) = encode(None);
    assert_eq!(u64::from(count), changes);

    let server: Identity = "mysql:f2c86e73-e59c-11f1-baeb-02fc00000001"
        .parse()
        .unwrap();
    let start = Position::MySql {
        binlog: "binlog.000001:4".parse().unwrap(),
        gtids: None,
    };
    let mut checkpoint = Checkpoint::set_by_operator(start);
    checkpoint.producers.insert(7, [server.to_string()].into());
    // Partition 0 has nothing, partition 1 a third of its records, partition 2 all of them.
    let mut tails = Tails::new(&checkpoint, &server);
    let written = [0, all[1].len() / 3, all[2].len()];
    for (partition, written) in (0..).zip(written) {
        tails.begin("golden.events", 4, partition, 0, 0);
        for (offset, pos) in (0..).zip(&all[partition as usize][..written]) {
            tails
                .record(4, partition, offset, 7, Some(pos.as_bytes()), None)
                .unwrap();
        }
        tails.finish(4, partition, written as i64);
    }
    let settled = tails.settled(None).unwrap();
    let (rest, _) = encode(Some(&settled));
    assert_eq!(rest[0], all[0]);
    assert_eq!(rest[2].len(), 0);
    // A row's records are written together: the last one there may be followed by its own tombstone only.
    let last = &all[1][written[1] - 1];
    let behind = all[1].iter().rposition(|pos| pos == last).unwrap() + 1;
    assert_eq!(rest[1], all[1][behind..]);
}
