//! Every column type of a real MySQL 9.7 (`fixtures/recordings/mysql-9.7-types`, made by `fixtures/sql/types-mysql.sql`) as records:
//! `fixtures/golden/mysql-9.7-types.txt`, which `UPDATE_GOLDEN=1` rewrites. What a value must be is read from the SQL; the
//! reference for how it is written is Debezium's output (`engine/src/encode/tests/reference.rs`).

#[path = "../../benches/src/batches.rs"]
#[allow(unreachable_pub)]
mod batches;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use engine::config::{Compression, EncodeSettings};
use engine::encode::{Encoder, Template, topic_name};
use engine::encoded::Route;
use protocol::kafka::record_batch::{Decoder, stamp};

const NOW: Duration = Duration::new(1_795_253_701, 178_462_084);

/// One record a line: topic, partition, headers | key | value.
fn records(recording: &str) -> String {
    let settings = Arc::new(EncodeSettings {
        source: "golden".into(),
        connector: "mysql",
        version: "0",
        compression: Compression::None,
        batch_max: 1 << 20,
        row_max: 64 << 20,
        tombstones: true,
    });
    let mut encoder = Encoder::new(Arc::clone(&settings));
    let mut lines = String::new();
    let (batches, _) = batches::of_recording(recording, usize::MAX);
    for batch in &batches {
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
            Template::new(Arc::clone(table), route, &settings)
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

#[test]
fn every_type_of_mysql() {
    let path = fixtures::directory().join("golden/mysql-9.7-types.txt");
    let found = records("mysql-9.7-types");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (found, golden) in found.lines().zip(golden.lines()) {
        assert_eq!(found, golden);
    }
    assert_eq!(found.lines().count(), golden.lines().count());
}
