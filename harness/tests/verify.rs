//! `harness verify` over the embedded broker: the truth holds for records written from the workload, and every way to break it is
//! named. The records are written here by hand, as the format's description has them, and sent by rskafka.

use std::collections::BTreeMap;

use harness::broker::Broker;
use harness::truth::{Images, Truth, timestamp_text};
use harness::verify::{Client, Findings, Settings, verify};
use harness::workload::{Change, Operation, Row, Workload};
use protocol::kafka::murmur2;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;

const TOPIC: &str = "shop.walbrook.events";
const CHANGES: u64 = 3000;

/// The records of every partition, in order.
type Log = Vec<Vec<Record>>;

fn row(row: &Row) -> String {
    format!(
        r#"{{"id":{},"category":"{}","domain":"{}","timestamp":"{}"}}"#,
        row.id,
        row.category,
        row.domain,
        timestamp_text(row.timestamp_s)
    )
}

fn records(change: &Change, position: &str) -> Vec<Record> {
    let id = change.after.as_ref().or(change.before.as_ref()).unwrap().id;
    let image = |row_: &Option<Row>| row_.as_ref().map_or("null".to_owned(), row);
    let op = match change.operation() {
        Operation::Insert => "c",
        Operation::Update => "u",
        Operation::Delete => "d",
    };
    let value = format!(
        r#"{{"before":{},"after":{},"source":{{"connector":"mysql","db":"walbrook","table":"events"}},"transaction":null,"op":"{op}","ts_ms":1}}"#,
        image(&change.before),
        image(&change.after)
    );
    let record = |value: Option<Vec<u8>>| Record {
        key: Some(format!(r#"{{"id":{id}}}"#).into_bytes()),
        value,
        headers: BTreeMap::from([("pos".to_owned(), position.as_bytes().to_vec())]),
        timestamp: DateTime::<Utc>::from_timestamp_millis(1).unwrap(),
    };
    let mut records = vec![record(Some(value.into_bytes()))];
    if op == "d" {
        records.push(record(None));
    }
    records
}

fn log() -> Log {
    let mut log = vec![Vec::new(); 3];
    for (t, transaction) in Workload::new(CHANGES, 42).transactions().enumerate() {
        let changes = transaction.runs.iter().flat_map(|run| &run.changes);
        for (r, change) in changes.enumerate() {
            let records = records(change, &format!("binlog.000002:{}/{r}", 4 + t * 1000));
            let partition = murmur2::partition(records[0].key.as_deref().unwrap(), 3);
            log[partition as usize].extend(records);
        }
    }
    log
}

async fn findings(log: Log, client: Client, allow_repeated: bool) -> Findings {
    let truth = Truth::of(&Workload::new(CHANGES, 42));
    compared(log, client, allow_repeated, truth).await
}

async fn compared(log: Log, client: Client, allow_repeated: bool, truth: Truth) -> Findings {
    let broker = Broker::loopback().await.unwrap();
    broker.create_topic(TOPIC, 3).unwrap();
    broker.create_topic("other", 1).unwrap();
    let writer = ClientBuilder::new(vec![broker.bootstrap()])
        .build()
        .await
        .unwrap();
    for (partition, records) in log.into_iter().enumerate() {
        let writer = writer
            .partition_client(TOPIC, partition as i32, UnknownTopicHandling::Error)
            .await
            .unwrap();
        for chunk in records.chunks(500) {
            writer
                .produce(chunk.to_vec(), Compression::Lz4)
                .await
                .unwrap();
        }
    }
    let settings = Settings {
        brokers: broker.bootstrap(),
        truth,
        topic: None,
        client,
        allow_repeated,
    };
    verify(&settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_clients_find_that_the_truth_holds() {
    for client in [Client::Rskafka, Client::Rdkafka] {
        let findings = findings(log(), client, false).await;
        assert!(findings.holds(), "{findings:?}");
        assert_eq!(
            (findings.changes, findings.records, findings.tombstones),
            (CHANGES, 3750, 750)
        );
        assert_eq!((findings.partitions, findings.topic.as_str()), (3, TOPIC));
    }
}

/// The same records as PostgreSQL's default replica identity has them: only deletes tell of the row before, and only its key.
fn with_key_images(mut log: Log) -> Log {
    for record in log.iter_mut().flatten() {
        let Some(value) = &record.value else { continue };
        let mut value: serde_json::Value = serde_json::from_slice(value).unwrap();
        value["source"] =
            serde_json::json!({"db": "shop", "schema": "walbrook", "table": "events"});
        value["before"] = match value["op"].as_str() {
            Some("d") => {
                let id = value["before"]["id"].clone();
                serde_json::json!({"id": id, "category": null, "domain": null, "timestamp": null})
            }
            _ => serde_json::Value::Null,
        };
        record.value = Some(value.to_string().into_bytes());
    }
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_tell_only_the_key_of_the_row_before_are_told_from_those_with_all() {
    let workload = Workload::new(CHANGES, 42);
    let key = Truth::with(&workload, Images::Key);
    let found = compared(with_key_images(log()), Client::Rskafka, false, key.clone()).await;
    assert!(found.holds(), "{found:?}");
    assert_eq!(found.changes, CHANGES);
    let key_for_full = findings(with_key_images(log()), Client::Rskafka, false).await;
    let full_for_key = compared(log(), Client::Rskafka, false, key).await;
    for found in [key_for_full, full_for_key] {
        let failures = found.failures.join("\n");
        assert!(
            failures.contains("does not go with its images"),
            "{failures}"
        );
    }
}

/// Index of a record that is an insert, with another record of the same partition behind it.
fn an_insert(records: &[Record]) -> usize {
    let is_insert = |record: &Record| {
        record
            .value
            .as_deref()
            .is_some_and(|value| value.starts_with(br#"{"before":null"#))
    };
    records.iter().position(is_insert).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_change_is_named() {
    let mut log = log();
    let at = an_insert(&log[1]);
    let key = String::from_utf8(log[1].remove(at).key.unwrap()).unwrap();
    let findings = findings(log, Client::Rskafka, false).await;
    let failures = findings.failures.join("\n");
    assert!(
        failures.contains("changes: expected 3000, found 2999"),
        "{failures}"
    );
    let id = key.trim_start_matches("{\"id\":").trim_end_matches('}');
    assert!(
        failures.contains(&format!("key {id}: missing insert {id}|")),
        "{failures}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restart_repeats_is_counted_and_may_be_allowed() {
    let mut log = log();
    let again = log[0][100..160].to_vec();
    log[0].splice(160..160, again);
    let strict = findings(log.clone(), Client::Rskafka, false).await;
    assert_eq!(
        (strict.repeated, strict.failures.len()),
        (60, 1),
        "{strict:?}"
    );
    assert!(
        strict.failures[0]
            .starts_with("60 records are repeated or out of order: partition 0 offset 160 has pos")
    );
    let lenient = findings(log, Client::Rskafka, true).await;
    assert!(lenient.holds(), "{lenient:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_not_what_they_must_be_are_named() {
    let mut broken = log();
    let moved = broken[0].remove(0);
    broken[1].insert(0, moved);
    let tombstone = broken[2]
        .iter()
        .position(|record| record.value.is_none())
        .unwrap();
    broken[2].remove(tombstone);
    broken[2][0].headers.clear();
    let at = an_insert(&broken[2][5..]) + 5;
    broken[2][at].value = Some(b"{\"op\":".to_vec());
    let findings = findings(broken, Client::Rskafka, false).await;
    let failures = findings.failures.join("\n");
    for expected in [
        "belongs into partition 0",
        "has no tombstone",
        "partition 2 offset 0: it has no header pos",
        "its value: ",
    ] {
        assert!(failures.contains(expected), "{expected}: {failures}");
    }
}
