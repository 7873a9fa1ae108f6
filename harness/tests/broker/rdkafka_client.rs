//! librdkafka unmodified: idempotent producers in every codec, consumer groups with rebalances, committed offsets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::support::{PATIENCE, broker, read_rdkafka, read_rskafka, rskafka};

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

#[tokio::test]
async fn idempotent_producers_in_every_codec() {
    let broker = broker(2).await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer: FutureProducer = config(&broker.bootstrap())
            .set("enable.idempotence", "true")
            .set("compression.type", codec)
            .set("linger.ms", "5")
            .create()
            .unwrap();
        let sends = (0..200).map(|i: i32| {
            let producer = producer.clone();
            async move {
                let (key, value) = (format!("{codec}-{i}"), "v".repeat(500));
                let headers = OwnedHeaders::new().insert(Header {
                    key: "pos",
                    value: Some("f:4/0"),
                });
                let record = FutureRecord::to("t")
                    .key(&key)
                    .payload(&value)
                    .headers(headers)
                    .partition(i % 3);
                producer.send(record, PATIENCE).await.unwrap()
            }
        });
        let tasks: Vec<_> = sends.map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    assert_eq!(broker.counts().records, 1000);
    let client = rskafka(&broker).await;
    for partition in 0..3 {
        let seen = read_rdkafka(&broker, "t", partition).await;
        assert!((330..=335).contains(&seen.len()), "{}", seen.len());
        assert_eq!(read_rskafka(&client, "t", partition).await, seen);
    }
}

#[tokio::test]
async fn groups_share_partitions_and_go_on_where_they_stopped() {
    let broker = broker(2).await;
    let producer: FutureProducer = config(&broker.bootstrap()).create().unwrap();
    for i in 0..90 {
        let value = i.to_string();
        let record = FutureRecord::<(), _>::to("t")
            .payload(&value)
            .partition(i % 3);
        producer.send(record, PATIENCE).await.unwrap();
    }
    let brokers = broker.bootstrap();
    let consume = move || {
        let consumer = |id: &str| -> BaseConsumer {
            let consumer: BaseConsumer = config(&brokers)
                .set("group.id", "g")
                .set("client.id", id)
                .set("auto.offset.reset", "earliest")
                .set("enable.auto.commit", "false")
                .set("session.timeout.ms", "6000")
                .set("heartbeat.interval.ms", "200")
                .create()
                .unwrap();
            consumer.subscribe(&["t"]).unwrap();
            consumer
        };
        let first = consumer("first");
        let mut seen = BTreeSet::new();
        let take = |consumer: &BaseConsumer, seen: &mut BTreeSet<i64>, wait: Duration| {
            if let Some(message) = consumer.poll(wait) {
                let message = message.unwrap();
                let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
                assert!(seen.insert(value.parse().unwrap()), "{value} came twice");
            }
        };
        while seen.len() < 90 {
            take(&first, &mut seen, PATIENCE);
        }
        first.commit_consumer_state(CommitMode::Sync).unwrap();
        // A second member: both end up with a part of the partitions, and nothing comes again.
        let second = consumer("second");
        let begun = Instant::now();
        loop {
            take(&first, &mut seen, Duration::from_millis(50));
            take(&second, &mut seen, Duration::from_millis(50));
            let counts = [&first, &second].map(|consumer| consumer.assignment().unwrap().count());
            if counts.iter().sum::<usize>() == 3 && counts.iter().all(|count| *count > 0) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "no rebalance: {counts:?}");
        }
        drop(first);
        let begun = Instant::now();
        while second.assignment().unwrap().count() < 3 {
            take(&second, &mut seen, Duration::from_millis(50));
            assert!(
                begun.elapsed() < PATIENCE,
                "the one that stays gets everything"
            );
        }
        let committed = second.committed(PATIENCE).unwrap();
        assert_eq!(
            committed
                .elements()
                .iter()
                .map(|e| e.offset().to_raw().unwrap())
                .sum::<i64>(),
            90
        );
    };
    tokio::task::spawn_blocking(consume).await.unwrap();
}

// Several threads: fetching metadata blocks the one of the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administration() {
    let broker = broker(2).await;
    let admin: AdminClient<DefaultClientContext> = config(&broker.bootstrap()).create().unwrap();
    let topic =
        NewTopic::new("configured", 5, TopicReplication::Fixed(2)).set("max.message.bytes", "2000");
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let created = admin.create_topics([&topic], &options).await.unwrap();
    assert_eq!(created, [Ok("configured".to_owned())]);
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic("configured")], &options)
        .await
        .unwrap();
    let resource: &ConfigResource = described[0].as_ref().unwrap();
    let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
    assert_eq!(value("max.message.bytes").as_deref(), Some("2000"));
    assert_eq!(value("cleanup.policy").as_deref(), Some("delete"));
    let metadata = admin
        .inner()
        .fetch_metadata(Some("configured"), PATIENCE)
        .unwrap();
    let leaders: Vec<_> = metadata.topics()[0]
        .partitions()
        .iter()
        .map(|p| p.leader())
        .collect();
    assert_eq!(leaders, [0, 1, 0, 1, 0]);
    let deleted = admin
        .delete_topics(&["configured"], &options)
        .await
        .unwrap();
    assert_eq!(deleted, [Ok("configured".to_owned())]);
}
