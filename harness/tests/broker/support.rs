//! What the tests of the broker share: topics read back by rskafka and by librdkafka.

use std::time::Duration;

use harness::broker::{Broker, Listener, Settings};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};

/// Longest that a client may take for what should take milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A record as every client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) timestamp_ms: i64,
}

/// A broker of `nodes` listeners with topic `t` of three partitions.
pub(crate) async fn broker(nodes: usize) -> Broker {
    let settings = Settings {
        listeners: vec![Listener::loopback(); nodes],
        validate_records: true,
        ..Settings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    broker.create_topic("t", 3).unwrap();
    broker
}

pub(crate) async fn rskafka(broker: &Broker) -> Client {
    let brokers = broker.addresses().iter().map(ToString::to_string).collect();
    ClientBuilder::new(brokers).build().await.unwrap()
}

/// Everything in a partition, by rskafka.
pub(crate) async fn read_rskafka(client: &Client, topic: &str, partition: i32) -> Vec<Seen> {
    let client = client
        .partition_client(topic, partition, UnknownTopicHandling::Error)
        .await
        .unwrap();
    let end = client.get_offset(OffsetAt::Latest).await.unwrap();
    let mut seen = Vec::new();
    let mut next = client.get_offset(OffsetAt::Earliest).await.unwrap();
    while next < end {
        let (records, high_watermark) =
            client.fetch_records(next, 1..1_000_000, 100).await.unwrap();
        assert_eq!(high_watermark, end);
        for record in records {
            next = record.offset + 1;
            seen.push(Seen {
                offset: record.offset,
                key: record.record.key,
                value: record.record.value,
                headers: record.record.headers.into_iter().collect(),
                timestamp_ms: record.record.timestamp.timestamp_millis(),
            });
        }
    }
    seen
}

/// Everything in a partition, by librdkafka, checking CRCs.
pub(crate) async fn read_rdkafka(broker: &Broker, topic: &str, partition: i32) -> Vec<Seen> {
    let (brokers, topic) = (broker.bootstrap(), topic.to_owned());
    let read = move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "reader")
            .set("check.crcs", "true")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let (low, high) = consumer
            .fetch_watermarks(&topic, partition, PATIENCE)
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, partition, Offset::Offset(low))
            .unwrap();
        consumer.assign(&list).unwrap();
        let mut seen: Vec<Seen> = Vec::new();
        while seen.last().map_or(low, |last| last.offset + 1) < high {
            let message = consumer.poll(PATIENCE).expect("nothing came").unwrap();
            let headers = message.headers().map(|headers| {
                let owned = headers.iter().map(|header| {
                    (
                        header.key.to_owned(),
                        header.value.unwrap_or_default().to_vec(),
                    )
                });
                owned.collect()
            });
            seen.push(Seen {
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: headers.unwrap_or_default(),
                timestamp_ms: message.timestamp().to_millis().unwrap(),
            });
        }
        seen
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}
