//! The producer against a real Kafka that the environment names, as `harness servers up kafka-3` starts it and `./test` does. Without
//! one these tests say so loudly and do nothing; with `CI=true` that is a failure.
//!
//! | variable | what |
//! |---|---|
//! | `WALBROOK_KAFKA` | plain-text brokers, comma-separated |
//! | `WALBROOK_KAFKA_SASL` | brokers of a SASL_PLAINTEXT listener that knows user `cdc`, password `secret`, by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 |
//! | `WALBROOK_KAFKA_TLS` | brokers of a SASL_SSL listener with the same user, client certificates required |
//! | `WALBROOK_KAFKA_TLS_FILES` | directory with `ca.pem`, `client.pem`, `client.key` |
//! | `WALBROOK_KAFKA_SOAK` | seconds to write into `WALBROOK_KAFKA` while somebody kills and restarts its brokers |

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::config::{
    Compression, KafkaSettings, KafkaTls, OnOversize, ProducerKind, Sasl, SaslMechanism,
    TopicSettings,
};
use engine::encoded::{EncodedBatch, Route};
use engine::producer::{Producer, ProducerError};
use protocol::kafka;
use protocol::kafka::record_batch::{Builder, Header};
use tokio::time::timeout;

/// A hang, not a slow machine: three brokers that share two cores with a build take a minute for hundreds of topics.
const PATIENCE: Duration = Duration::from_secs(300);

fn brokers(variable: &str) -> Option<Vec<String>> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty());
    if text.is_none() {
        let reason = format!("{variable} is not set: harness servers up kafka-3 prints its value");
        let is_required = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
        assert!(!is_required, "required in CI: {reason}");
        eprintln!("\n*** SKIPPED: no test against a real Kafka: {reason}\n");
    }
    Some(text?.split(',').map(str::to_owned).collect())
}

fn settings(brokers: Vec<String>, producer: ProducerKind) -> KafkaSettings {
    KafkaSettings {
        brokers,
        topic: "{source}.{schema}.{table}".to_owned(),
        compression: Compression::Zstd,
        producer,
        batch_max: 1 << 20,
        on_oversize: OnOversize::Halt,
        tombstones: true,
        truncates: false,
        tls: None,
        sasl: None,
        topics: TopicSettings {
            create: true,
            partitions: 2,
            replication: -1,
        },
    }
}

fn sasl(mechanism: SaslMechanism, password: &str) -> Option<Sasl> {
    Some(Sasl {
        mechanism,
        username: "cdc".to_owned(),
        password: password.to_owned().into(),
    })
}

/// Now: leaders forget producers by the age of their records' timestamps, and retention deletes by it.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

/// A topic name that no other run has used.
fn unique(name: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("walbrook-test.{name}.{}", since.as_nanos())
}

fn batch(
    route: &Route,
    partition: i32,
    first: u64,
    records: u32,
    codec: kafka::Compression,
    size: usize,
) -> EncodedBatch {
    let mut builder = Builder::new(codec);
    for number in first..first + u64::from(records) {
        let mut value = number.to_string().into_bytes();
        value.resize(size.max(value.len()), b'.');
        let pos = format!("binlog.000001:{number}/0");
        let headers = [Header::new("pos", pos.as_bytes())];
        builder
            .append(now_ms(), Some(b"key"), Some(&value), &headers)
            .unwrap();
    }
    EncodedBatch {
        topic_id: route.topic_id,
        partition,
        records,
        changes: records,
        bytes: builder.finish().unwrap().into(),
    }
}

/// Creates a topic, writes into both partitions with every codec, reads the tails back.
async fn round_trip(settings: &KafkaSettings, name: &str) {
    let producer = Producer::connect(settings).await.unwrap();
    let topic = unique(name);
    let other = unique(&format!("{name}-other"));
    let routes = producer.topics(&[&topic, &other, &topic]).await.unwrap();
    assert_eq!(routes[0], routes[2]);
    assert_eq!(
        (routes[0].partitions, &*routes[0].topic),
        (2, topic.as_str())
    );
    assert_eq!(producer.batch_max(routes[0].topic_id), 1 << 20);
    let mut first = 0;
    let mut ordinal = 0;
    for _ in 0..20 {
        for codec in [
            kafka::Compression::None,
            kafka::Compression::Lz4,
            kafka::Compression::Zstd,
            kafka::Compression::Snappy,
            kafka::Compression::Gzip,
        ] {
            let parts = [0, 1].map(|partition| batch(&routes[0], partition, first, 7, codec, 20));
            producer.send(ordinal, parts.to_vec());
            first += 7;
            ordinal += 1;
        }
    }
    for expected in 0..ordinal {
        let acknowledged = timeout(PATIENCE, producer.acknowledged())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(acknowledged.ordinal, expected);
        let next = (expected as i64 + 1) * 7;
        let id = routes[0].topic_id;
        assert_eq!(acknowledged.offsets, [(id, 0, next), (id, 1, next)]);
    }
    let ids = producer.producer_ids();
    producer.close(PATIENCE).await.unwrap();
    drop(producer);

    let producer = Producer::connect(settings).await.unwrap();
    let routes = producer.topics(&[&topic]).await.unwrap();
    let id = routes[0].topic_id;
    let mut seen = vec![Vec::new(); 2];
    let ends = producer
        .tails(
            &[(id, 0, 0), (id, 1, 600)],
            |_| true,
            |record| {
                assert_eq!(record.producer_id, ids[0]);
                seen[record.partition as usize]
                    .push(String::from_utf8(record.pos.unwrap().to_vec()).unwrap());
            },
        )
        .await
        .unwrap();
    assert_eq!(ends, [(id, 0, 700), (id, 1, 700)]);
    let expected = |from: u64| {
        (from..700)
            .map(|number| format!("binlog.000001:{number}/0"))
            .collect::<Vec<_>>()
    };
    assert_eq!(seen, [expected(0), expected(600)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_reads_tails() {
    let Some(brokers) = brokers("WALBROOK_KAFKA") else {
        return;
    };
    round_trip(&settings(brokers, ProducerKind::Native), "native").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rskafka_writes_and_reads_tails() {
    let Some(brokers) = brokers("WALBROOK_KAFKA") else {
        return;
    };
    round_trip(&settings(brokers, ProducerKind::Rskafka), "rskafka").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authenticates() {
    let Some(brokers) = brokers("WALBROOK_KAFKA_SASL") else {
        return;
    };
    for mechanism in [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
    ] {
        let settings = KafkaSettings {
            sasl: sasl(mechanism, "secret"),
            ..settings(brokers.clone(), ProducerKind::Native)
        };
        round_trip(&settings, "sasl").await;
        let wrong = KafkaSettings {
            sasl: sasl(mechanism, "wrong"),
            ..settings
        };
        let error = Producer::connect(&wrong).await.err().unwrap();
        assert!(
            matches!(error, ProducerError::Authentication { .. }),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("kafka.sasl.password") && !text.contains("wrong"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypts() {
    let Some(brokers) = brokers("WALBROOK_KAFKA_TLS") else {
        return;
    };
    let files = std::env::var("WALBROOK_KAFKA_TLS_FILES").unwrap();
    let files = Path::new(&files);
    let tls = KafkaTls {
        ca: Some(files.join("ca.pem")),
        cert: Some(files.join("client.pem")),
        key: Some(files.join("client.key")),
    };
    for kind in [ProducerKind::Native, ProducerKind::Rskafka] {
        let settings = KafkaSettings {
            tls: Some(tls.clone()),
            sasl: sasl(SaslMechanism::ScramSha512, "secret"),
            ..settings(brokers.clone(), kind)
        };
        round_trip(&settings, "tls").await;
    }
    let system_authorities = KafkaSettings {
        tls: Some(KafkaTls::default()),
        ..settings(brokers.clone(), ProducerKind::Native)
    };
    let error = Producer::connect(&system_authorities)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("kafka.tls"), "{error}");
    let plain = settings(brokers, ProducerKind::Native);
    let error = Producer::connect(&plain).await.err().unwrap().to_string();
    assert!(
        error.contains("kafka.tls") || error.contains("closed the connection"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_what_the_broker_refuses() {
    let Some(brokers) = brokers("WALBROOK_KAFKA") else {
        return;
    };
    let settings = settings(brokers, ProducerKind::Native);
    let producer = Producer::connect(&settings).await.unwrap();
    let routes = producer.topics(&[&unique("refuses")]).await.unwrap();
    let large = batch(&routes[0], 0, 0, 1, kafka::Compression::None, 2 << 20);
    producer.send(0, vec![large]);
    let error = timeout(PATIENCE, producer.acknowledged())
        .await
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("MESSAGE_TOO_LARGE") && error.contains("kafka.batch_max"),
        "{error}"
    );

    let error = producer
        .topics(&["not a topic"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("not a topic") && error.contains("kafka.topic"),
        "{error}"
    );
    let many = KafkaSettings {
        topics: TopicSettings {
            replication: 99,
            ..settings.topics
        },
        ..settings
    };
    let producer = Producer::connect(&many).await.unwrap();
    let error = producer
        .topics(&[&unique("replicas")])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("kafka.topics.replication"), "{error}");
}

/// Thousands of topics in one go, and a batch for each of them under one ordinal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_many_topics() {
    let Some(brokers) = brokers("WALBROOK_KAFKA") else {
        return;
    };
    let producer = Producer::connect(&settings(brokers, ProducerKind::Native))
        .await
        .unwrap();
    let prefix = unique("many");
    let names: Vec<String> = (0..300)
        .map(|number| format!("{prefix}.{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let routes = producer.topics(&names).await.unwrap();
    for ordinal in 0..3 {
        let parts = routes
            .iter()
            .map(|route| batch(route, 1, ordinal, 1, kafka::Compression::Lz4, 10));
        producer.send(ordinal, parts.collect());
    }
    for ordinal in 0..3 {
        let acknowledged = timeout(PATIENCE, producer.acknowledged())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (acknowledged.ordinal, acknowledged.offsets.len()),
            (ordinal, 300)
        );
    }
    let requests = producer.metrics().requests;
    assert!(
        requests <= 30,
        "{requests} requests for 900 batches of 300 topics"
    );
}

/// Writes for a while, whatever happens to the brokers meanwhile; then every record must be there once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soaks() {
    let Some(brokers) = brokers("WALBROOK_KAFKA") else {
        return;
    };
    let Some(seconds) = std::env::var("WALBROOK_KAFKA_SOAK")
        .ok()
        .and_then(|text| text.parse().ok())
    else {
        return;
    };
    const RECORDS: u32 = 500;
    let settings = settings(brokers, ProducerKind::Native);
    let producer = Producer::connect(&settings).await.unwrap();
    let topic = unique("soak");
    let route = producer.topics(&[&topic]).await.unwrap().remove(0);
    let started = Instant::now();
    let (mut sent, mut acknowledged) = (0_u64, 0_u64);
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    while acknowledged < sent || started.elapsed() < Duration::from_secs(seconds) {
        if sent - acknowledged < 32 && started.elapsed() < Duration::from_secs(seconds) {
            let first = sent * u64::from(RECORDS);
            let parts = [0, 1].map(|partition| {
                batch(
                    &route,
                    partition,
                    first,
                    RECORDS,
                    kafka::Compression::Lz4,
                    300,
                )
            });
            producer.send(sent, parts.to_vec());
            sent += 1;
            continue;
        }
        let got = timeout(PATIENCE, producer.acknowledged())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(got.ordinal, acknowledged);
        acknowledged += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    let id = route.topic_id;
    let mut next = [0_u64; 2];
    let ends = producer
        .tails(
            &[(id, 0, 0), (id, 1, 0)],
            |_| true,
            |record| {
                let next = &mut next[record.partition as usize];
                assert_eq!(
                    record.pos,
                    Some(format!("binlog.000001:{next}/0").as_bytes()),
                    "{record:?}"
                );
                *next += 1;
            },
        )
        .await
        .unwrap();
    let expected = sent * u64::from(RECORDS);
    assert_eq!(next, [expected; 2]);
    assert_eq!(ends, [(id, 0, expected as i64), (id, 1, expected as i64)]);
    eprintln!(
        "{} records in {:?}, longest wait {longest:?}, {:?}",
        expected * 2,
        started.elapsed(),
        producer.metrics()
    );
}
