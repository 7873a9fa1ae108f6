//! TRUNCATE's record against the one that Debezium's documentation shows, field by field, from the same change.
//!
//! The golden files have no such record. The documentation's examples (their fields and values are given beside each test) are of
//! messages with schemas and leave out fields that are null; what a `source` block is, they say, is the same as for other changes. So the
//! fields that must be there are those of the real create events in `fixtures/golden/debezium-3.1`: JsonConverter writes every field of
//! the envelope's schema, and `Envelope.truncate` sets `source`, `op` and the times, nothing else. The values are the examples'.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

/// A record's fields by their paths, `source.ts_ms`; of objects the fields inside.
fn fields(value: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    for (name, value) in value.as_object().unwrap() {
        match value.as_object() {
            Some(inner) if name == "source" => {
                let named =
                    |(inner, value): (&String, &Value)| (format!("{name}.{inner}"), value.clone());
                fields.extend(inner.iter().map(named));
            }
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
    fields
}

/// `record` has the fields of the first create event in `reference` and no others, those of `documented` as they are there, and null in
/// all others but `told`, which the documentation's example does not show although every real record has it.
pub(super) fn compare(record: &Read, documented: &Value, reference: &str, told: &[(&str, Value)]) {
    assert_eq!(record.key, None, "a truncate has no key");
    let real = reference
        .lines()
        .filter_map(|line| Some(line.splitn(3, " | ").nth(2)?.trim()));
    let real = real.map(|value| serde_json::from_str::<Value>(value).unwrap_or_default());
    let real = real
        .filter(|value| value["op"] == "c")
        .map(|value| fields(&value))
        .next()
        .expect("a create event in the reference");
    let ours = fields(&record.json());
    let names = |fields: &BTreeMap<String, Value>| fields.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&real));
    let mut expected: BTreeMap<String, Value> = real
        .keys()
        .map(|name| (name.clone(), Value::Null))
        .collect();
    for (name, value) in fields(documented) {
        let known = expected.insert(name.clone(), value);
        assert!(
            known.is_some(),
            "{name} is documented, but not in real records"
        );
    }
    expected.extend(
        told.iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    assert_eq!(ours, expected);
}

/// `source.snapshot` is documented as `false`, for creates as well, and in every real record the text.
pub(super) fn snapshot() -> (&'static str, Value) {
    ("source.snapshot", json!("false"))
}

/// From "truncate events" in `documentation/modules/ROOT/partials/modules/all-connectors/shared-mariadb-mysql.adoc` of
/// <https://github.com/debezium/debezium> at 0aae2f44, also
/// <https://debezium.io/documentation/reference/stable/connectors/mysql.html#mysql-truncate-events>, without its second `name` and the
/// comma behind `thread`.
#[test]
fn mysqls_truncate_is_the_documented_one() {
    let documented = json!({
        "source": {
            "version": "3.1.3.Final", "connector": "mysql", "name": "mysql-server-1",
            "ts_ms": 1_465_581_029_100_u64, "ts_us": 1_465_581_029_100_000_u64, "ts_ns": 1_465_581_029_100_000_000_u64,
            "snapshot": false, "db": "inventory", "table": "customers", "server_id": 223_344, "gtid": null,
            "file": "mysql-bin.000003", "pos": 484, "row": 0, "thread": 7,
        },
        "op": "t",
        "ts_ms": 1_465_581_029_523_u64, "ts_us": 1_465_581_029_523_468_u64, "ts_ns": 1_465_581_029_523_468_471_u64,
    });
    let customers = Arc::new(Table {
        version: 1,
        schema: "inventory".into(),
        name: "customers".into(),
        key: [].into(),
        columns: Columns::MySql([].into()),
    });
    let mut maker = Maker::new();
    truncates::truncate(&mut maker, &customers);
    let batch = &mut maker.batch;
    batch.text = b"mysql-bin.000003".to_vec();
    let transaction = &mut batch.transactions[0];
    transaction.file = Span { start: 0, end: 16 };
    (transaction.gtid, transaction.thread) = (Span::NONE, Some(7));
    transaction.commit_us = Some(1_465_581_029_100_000);
    (batch.groups[0].offset, batch.groups[0].server_id) = (484, 223_344);
    let settings = EncodeSettings {
        source: "mysql-server-1".into(),
        ..settings()
    };
    let templates = templates(batch, &settings);
    let now = Duration::new(1_465_581_029, 523_468_471);
    let parts = Encoder::new(Arc::new(settings))
        .encode(batch, &templates, None, now)
        .unwrap();
    let reference = include_str!("../../../../fixtures/golden/debezium-3.1/mysql.txt");
    let [record] = &read(&parts)[..] else {
        panic!("one record");
    };
    compare(record, &documented, reference, &[snapshot()]);
}
