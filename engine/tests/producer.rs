//! The producer against librdkafka's mock cluster, read back by librdkafka's consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::config::{Compression, KafkaSettings, OnOversize, ProducerKind, TopicSettings};
use engine::encoded::{EncodedBatch, Route};
use engine::producer::{Acknowledged, Producer, ProducerError};
use protocol::kafka;
use protocol::kafka::record_batch::{Builder, Header};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::time::timeout;

const TOPIC: &str = "shop.orders";
const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 3).unwrap();
    cluster
}

fn settings(cluster: &Cluster) -> KafkaSettings {
    KafkaSettings {
        brokers: cluster
            .bootstrap_servers()
            .split(',')
            .map(str::to_owned)
            .collect(),
        topic: "{source}.{schema}.{table}".to_owned(),
        compression: Compression::Lz4,
        producer: ProducerKind::Native,
        batch_max: 1 << 20,
        on_oversize: OnOversize::Halt,
        tombstones: true,
        truncates: false,
        tls: None,
        sasl: None,
        topics: TopicSettings {
            create: false,
            partitions: PARTITIONS,
            replication: -1,
        },
    }
}

/// A batch of `records` records whose values count on from `first`.
fn batch(route: &Route, partition: i32, first: u64, records: u64) -> EncodedBatch {
    let mut builder = Builder::new(kafka::Compression::Lz4);
    for number in first..first + records {
        let value = number.to_string();
        let pos = format!("binlog.000001:{number}/0");
        let headers = [
            Header::new("pos", pos.as_bytes()),
            Header::new("gtid", b"uuid:1"),
        ];
        builder
            .append(
                1_700_000_000_000,
                Some(b"key"),
                Some(value.as_bytes()),
                &headers,
            )
            .unwrap();
    }
    EncodedBatch {
        topic_id: route.topic_id,
        partition,
        records: records as u32,
        changes: records as u32,
        bytes: builder.finish().unwrap().into(),
    }
}

/// Numbers, batch after batch and partition after partition.
struct Feed {
    route: Route,
    next: Vec<u64>,
    ordinal: u64,
}

impl Feed {
    fn new(route: &Route) -> Self {
        Self {
            route: route.clone(),
            next: vec![0; PARTITIONS as usize],
            ordinal: 0,
        }
    }

    fn send(&mut self, producer: &Producer) {
        let mut parts = Vec::new();
        for partition in 0..PARTITIONS {
            let next = &mut self.next[partition as usize];
            for records in [3, 1] {
                parts.push(batch(&self.route, partition, *next, records));
                *next += records;
            }
        }
        producer.send(self.ordinal, parts);
        self.ordinal += 1;
    }
}

async fn acknowledged(producer: &Producer) -> Acknowledged {
    timeout(PATIENCE, producer.acknowledged())
        .await
        .expect("acknowledged in time")
        .expect("no error")
}

/// All values of every partition, once `expected` records have been read and for a moment nothing more comes.
fn read_back(cluster: &Cluster, expected: usize) -> BTreeMap<i32, Vec<u64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment
            .add_partition_offset(TOPIC, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut values: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    let mut count = 0;
    let mut idle = 0;
    while idle < 3 {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
                values
                    .entry(message.partition())
                    .or_default()
                    .push(text.parse().unwrap());
                count += 1;
            }
            Some(Err(_)) => {}
            None if count >= expected => idle += 1,
            None => {}
        }
    }
    values
}

fn expect_all(cluster: &Cluster, feed: &Feed) {
    expect(feed, &read_back(cluster, total(feed)));
}

fn total(feed: &Feed) -> usize {
    feed.next.iter().sum::<u64>() as usize
}

fn expect(feed: &Feed, values: &BTreeMap<i32, Vec<u64>>) {
    for partition in 0..PARTITIONS {
        let expected: Vec<u64> = (0..feed.next[partition as usize]).collect();
        assert_eq!(
            values.get(&partition),
            Some(&expected),
            "partition {partition}"
        );
    }
}

async fn connect(cluster: &Cluster) -> (Producer, Feed) {
    let producer = Producer::connect(&settings(cluster)).await.unwrap();
    let routes = producer.topics(&[TOPIC]).await.unwrap();
    assert_eq!(routes[0].partitions, PARTITIONS as u32);
    let feed = Feed::new(&routes[0]);
    (producer, feed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_in_order_and_acknowledges_in_order() {
    let cluster = cluster();
    for partition in 0..PARTITIONS {
        cluster.partition_leader(TOPIC, partition, Some(1)).unwrap();
    }
    let (producer, mut feed) = connect(&cluster).await;
    for _ in 0..50 {
        feed.send(&producer);
    }
    producer.send(50, Vec::new());
    let mut offsets = BTreeMap::new();
    for ordinal in 0..=50 {
        let acknowledged = acknowledged(&producer).await;
        assert_eq!(acknowledged.ordinal, ordinal);
        for (_, partition, next) in acknowledged.offsets {
            offsets.insert(partition, next);
        }
    }
    assert_eq!(
        offsets,
        (0..PARTITIONS).map(|partition| (partition, 200)).collect()
    );
    assert_eq!(producer.in_flight_requests(), 0);
    let metrics = producer.metrics();
    assert!(
        metrics.requests < 150,
        "batches of several partitions share requests: {metrics:?}"
    );
    assert_eq!(metrics.retries, 0);
    producer.close(PATIENCE).await.unwrap();
    expect_all(&cluster, &feed);
}

/// Connections break under requests. The mock cluster neither checks sequences nor recognises repeated batches: with several
/// requests on the wire it writes what stands behind a lost one, which a real broker refuses. So one batch at a time, and what
/// counts is the first time of each record; the model test beside the dispatch has brokers that check, and several requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_broken_connections_without_reordering() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    let broken = RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT;
    let fine = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[fine, broken, fine, fine, broken, broken, fine, broken],
    );
    for ordinal in 0..30 {
        let partition = (ordinal % PARTITIONS as u64) as i32;
        let next = &mut feed.next[partition as usize];
        producer.send(ordinal, vec![batch(&feed.route, partition, *next, 2)]);
        *next += 2;
        assert_eq!(acknowledged(&producer).await.ordinal, ordinal);
    }
    assert!(producer.metrics().retries > 0);
    producer.close(PATIENCE).await.unwrap();
    let mut values = read_back(&cluster, total(&feed));
    for written in values.values_mut() {
        let mut seen = BTreeSet::new();
        written.retain(|number| seen.insert(*number));
    }
    expect(&feed, &values);
}

/// The mock cluster does not check sequences either: one batch at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_what_passes() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
    ] {
        cluster.request_errors(RDKafkaApiKey::Produce, &[error, error]);
        let next = &mut feed.next[0];
        producer.send(feed.ordinal, vec![batch(&feed.route, 0, *next, 2)]);
        *next += 2;
        feed.ordinal += 1;
        acknowledged(&producer).await;
    }
    assert_eq!(producer.metrics().retries, 16);
    producer.close(PATIENCE).await.unwrap();
    let values = read_back(&cluster, 16);
    assert_eq!(values[&0], (0..16).collect::<Vec<_>>());
}

/// A topic of which metadata know nothing, once there is something to be written, is asked about until it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_a_topic_that_is_gone() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    let mut send = |ordinal| {
        let next = &mut feed.next[0];
        producer.send(ordinal, vec![batch(&feed.route, 0, *next, 2)]);
        *next += 2;
    };
    send(0);
    acknowledged(&producer).await;
    let gone = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error(TOPIC, gone).unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[gone]);
    send(1);
    let nothing = timeout(Duration::from_millis(1500), producer.acknowledged()).await;
    assert!(nothing.is_err(), "nobody leads it: {nothing:?}");
    let fine = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    cluster.topic_error(TOPIC, fine).unwrap();
    assert_eq!(acknowledged(&producer).await.ordinal, 1);
    producer.close(PATIENCE).await.unwrap();
    let values = read_back(&cluster, 4);
    assert_eq!(values[&0], [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_brokers_that_are_down() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    feed.send(&producer);
    acknowledged(&producer).await;
    cluster.broker_down(-1).unwrap();
    for _ in 0..10 {
        feed.send(&producer);
    }
    let nothing = timeout(Duration::from_millis(700), producer.acknowledged()).await;
    assert!(
        nothing.is_err(),
        "nothing is acknowledged while all brokers are down: {nothing:?}"
    );
    cluster.broker_up(-1).unwrap();
    for ordinal in 1..=10 {
        assert_eq!(acknowledged(&producer).await.ordinal, ordinal);
    }
    producer.close(PATIENCE).await.unwrap();
    expect_all(&cluster, &feed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_leaders() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    for round in 0..12 {
        for partition in 0..PARTITIONS {
            cluster
                .partition_leader(TOPIC, partition, Some(1 + (partition + round) % 3))
                .unwrap();
        }
        for _ in 0..5 {
            feed.send(&producer);
        }
        for _ in 0..5 {
            acknowledged(&producer).await;
        }
    }
    producer.close(PATIENCE).await.unwrap();
    expect_all(&cluster, &feed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halts_when_a_batch_is_too_large() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large; 9]);
    feed.send(&producer);
    let error = timeout(PATIENCE, producer.acknowledged())
        .await
        .unwrap()
        .unwrap_err();
    let text = error.to_string();
    for part in [
        TOPIC,
        "kafka.batch_max",
        "max.message.bytes",
        "message.max.bytes",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(
        producer.acknowledged().await,
        Err(error),
        "and stays halted"
    );
}

/// Over a long line a connection takes a while: it is made before it is known what the broker leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_to_brokers_before_there_is_anything_to_send() {
    let cluster = cluster();
    let producer = Producer::connect(&settings(&cluster)).await.unwrap();
    let all = async {
        while producer.metrics().connections < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("three connections");
    let routes = producer.topics(&[TOPIC]).await.unwrap();
    let mut feed = Feed::new(&routes[0]);
    feed.send(&producer);
    acknowledged(&producer).await;
    assert_eq!(producer.metrics().connections, 3, "they are used");
    expect_all(&cluster, &feed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_what_is_missing() {
    let cluster = cluster();
    let (producer, _) = connect(&cluster).await;
    let error = producer
        .topics(&["shop.unknown"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("shop.unknown") && error.contains("kafka.topics.create"),
        "{error}"
    );
    // Whoever only wants to read what is there is not refused, and makes nothing.
    let creates = KafkaSettings {
        topics: TopicSettings {
            create: true,
            ..settings(&cluster).topics
        },
        ..settings(&cluster)
    };
    let creating = Producer::connect(&creates).await.unwrap();
    for producer in [&producer, &creating] {
        let there = producer.existing(&["shop.another", TOPIC]).await.unwrap();
        assert_eq!(there.len(), 1, "{there:?}");
        assert_eq!((&*there[0].topic, there[0].partitions), (TOPIC, 3));
    }
    assert!(
        creating
            .existing(&["shop.another"])
            .await
            .unwrap()
            .is_empty()
    );

    let nobody = KafkaSettings {
        brokers: vec!["127.0.0.1:1".to_owned()],
        ..settings(&cluster)
    };
    let error = Producer::connect(&nobody).await.err().unwrap();
    assert!(
        matches!(error, ProducerError::Unreachable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_tails() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    for _ in 0..20 {
        feed.send(&producer);
    }
    for _ in 0..20 {
        acknowledged(&producer).await;
    }
    let first_ids = producer.producer_ids();
    drop(producer);

    let (producer, _) = connect(&cluster).await;
    assert_ne!(producer.producer_ids(), first_ids);
    let mut seen: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let ends = producer
        .tails(
            &[(0, 0, 78), (0, 1, 0), (0, 2, 80)],
            |_| true,
            |record| {
                assert_eq!(record.producer_id, first_ids[0]);
                assert!(record.has_key && record.has_value);
                assert_eq!(record.gtid, Some(&b"uuid:1"[..]));
                let pos = String::from_utf8(record.pos.unwrap().to_vec()).unwrap();
                seen.entry(record.partition).or_default().push(pos);
            },
        )
        .await
        .unwrap();
    assert_eq!(ends, [(0, 0, 80), (0, 1, 80), (0, 2, 80)]);
    assert_eq!(seen[&0], ["binlog.000001:78/0", "binlog.000001:79/0"]);
    assert_eq!(seen[&1].len(), 80);
    assert_eq!(seen.get(&2), None);
}

/// Another source that shares the topics, or another engine, never stops writing: a restart does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_tails_while_others_write() {
    let cluster = cluster();
    let (producer, mut feed) = connect(&cluster).await;
    for _ in 0..20 {
        feed.send(&producer);
    }
    for _ in 0..20 {
        acknowledged(&producer).await;
    }
    let ours = producer.producer_ids();
    drop(producer);

    let (others, mut others_feed) = connect(&cluster).await;
    others_feed.send(&others);
    acknowledged(&others).await;
    let writing = tokio::spawn(async move {
        loop {
            others_feed.send(&others);
            acknowledged(&others).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let (producer, _) = connect(&cluster).await;
    let mut seen: BTreeMap<i32, usize> = BTreeMap::new();
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let tails = producer.tails(
        &[(0, 0, 0), (0, 1, 0), (0, 2, 0)],
        |record| ours.contains(&record.producer_id),
        |record| {
            let before = last.insert(record.partition, record.offset);
            assert_eq!(before.map_or(0, |before| before + 1), record.offset);
            *seen.entry(record.partition).or_default() +=
                usize::from(ours.contains(&record.producer_id));
        },
    );
    let ends = timeout(PATIENCE, tails)
        .await
        .expect("others do not hold it")
        .unwrap();
    writing.abort();
    assert_eq!(seen, BTreeMap::from([(0, 80), (1, 80), (2, 80)]));
    let read_to: Vec<_> = last.iter().map(|(p, last)| (0, *p, last + 1)).collect();
    assert_eq!(ends, read_to, "nothing is shown that is behind the ends");
    assert!(ends.iter().any(|(_, _, end)| *end > 80), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rskafka_writes_the_same() {
    let cluster = cluster();
    let settings = KafkaSettings {
        producer: ProducerKind::Rskafka,
        ..settings(&cluster)
    };
    let producer = Producer::connect(&settings).await.unwrap();
    let routes = producer.topics(&[TOPIC]).await.unwrap();
    let mut feed = Feed::new(&routes[0]);
    for _ in 0..10 {
        feed.send(&producer);
    }
    for ordinal in 0..10 {
        assert_eq!(acknowledged(&producer).await.ordinal, ordinal);
    }
    let mut seen = 0;
    let ends = producer
        .tails(
            &[(0, 1, 30)],
            |_| true,
            |record| {
                assert_eq!(record.producer_id, -1);
                assert!(record.pos.is_some());
                seen += 1;
            },
        )
        .await
        .unwrap();
    assert_eq!((ends, seen), (vec![(0, 1, 40)], 10));
    producer.close(PATIENCE).await.unwrap();
    expect_all(&cluster, &feed);
}

/// The ends of a new topic are asked for as long as its leader is away: meanwhile others' leaders move, and are asked for all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_leaders_while_a_new_topic_is_waited_for() {
    const NEW: &str = "shop.new";
    let cluster = cluster();
    let lead = |topic, leader| {
        let led = cluster.partition_leader(topic, 0, Some(leader));
        led.unwrap();
    };
    let (producer, mut feed) = connect(&cluster).await;
    lead(TOPIC, 1);
    feed.send(&producer);
    acknowledged(&producer).await;
    cluster.create_topic(NEW, 1, 3).unwrap();
    lead(NEW, 2);
    let routes = producer.topics(&[NEW]).await.unwrap();
    cluster.broker_down(2).unwrap();
    for partition in 1..PARTITIONS {
        let led = cluster.partition_leader(TOPIC, partition, Some(3));
        led.unwrap();
    }
    let written = async {
        for leader in [3, 1, 3] {
            lead(TOPIC, leader);
            feed.send(&producer);
            acknowledged(&producer).await;
        }
    };
    tokio::select! {
        biased;
        ends = producer.ends(&routes) => panic!("nobody leads it: {ends:?}"),
        () = written => {}
    }
    cluster.broker_up(2).unwrap();
    let id = routes[0].topic_id;
    assert_eq!(producer.ends(&routes).await.unwrap(), [(id, 0, 0)]);
    producer.close(PATIENCE).await.unwrap();
    expect_all(&cluster, &feed);
}
