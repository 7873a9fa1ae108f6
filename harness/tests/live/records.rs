//! Every record of a broker, read with rskafka: a client that shares nothing with the engine or the broker.

use std::collections::BTreeMap;

use harness::broker::Broker;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::UnknownTopicHandling;
use rskafka::record::Record;
use serde_json::Value;

/// What a table looks like after all records: row by the text of its key.
pub(crate) type State = BTreeMap<String, Value>;

/// The state of every table, by `(database, table)` as the records name them, PostgreSQL's by `(schema, table)`. Records without a key are left out.
pub(crate) async fn states(broker: &Broker) -> BTreeMap<(String, String), State> {
    let mut states: BTreeMap<(String, String), State> = BTreeMap::new();
    for (_, record) in records(broker).await {
        if let (Some(key), Some(value)) = (record.key, record.value) {
            apply(&mut states, &key, &value);
        }
    }
    states
}

/// Every record with its topic: topic by topic by name, partition by partition, in order.
pub(crate) async fn records(broker: &Broker) -> Vec<(String, Record)> {
    let brokers = broker.bootstrap().split(',').map(str::to_owned).collect();
    let client = ClientBuilder::new(brokers).build().await.expect("a client");
    let mut all = Vec::new();
    let mut topics = client.list_topics().await.expect("topics");
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    for topic in topics {
        for partition in topic.partitions.iter().copied() {
            let reader = client
                .partition_client(&topic.name, partition, UnknownTopicHandling::Retry)
                .await
                .expect("a partition");
            let mut offset = 0;
            loop {
                let (records, _) = reader
                    .fetch_records(offset, 1..50_000_000, 100)
                    .await
                    .expect("records");
                let Some(last) = records.last() else { break };
                offset = last.offset + 1;
                all.extend((records.into_iter()).map(|it| (topic.name.clone(), it.record)));
            }
        }
    }
    all
}

/// Applies one record to the states.
pub(crate) fn apply(states: &mut BTreeMap<(String, String), State>, key: &[u8], value: &[u8]) {
    // simd-json reads floating point numbers exactly; serde_json as it is built here may be one digit off.
    let value: Value = simd_json::serde::from_slice(&mut value.to_vec())
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(value)));
    let name = |field: &str| {
        value["source"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let schema = match value["source"]["schema"].is_string() {
        true => name("schema"),
        false => name("db"),
    };
    let state = states.entry((schema, name("table"))).or_default();
    let key = serde_json::from_slice::<Value>(key)
        .expect("a key in JSON")
        .to_string();
    match value["after"].is_null() {
        true => drop(state.remove(&key)),
        false => drop(state.insert(key, value["after"].clone())),
    }
}
