//! Produce: records of about 600 bytes into lz4 batches of 2,000, over loopback into the embedded broker, until they are acknowledged:
//! the engine's own producer, the one it has of rskafka (`walbrook, rskafka`), and `rskafka` and `rdkafka` (librdkafka) by themselves
//! beside it. The broker keeps nothing.
//!
//! Everybody gets keys, positions and fields as bytes, writes the records to one partition of one topic with `acks=all`, at most five
//! batches unacknowledged at a time, and an iteration ends when all of its sixteen batches are. Two figures: wall time, and CPU time of the
//! whole process, the broker's share (the same for all: it sees the same batches) included.
//! What differs: ours and rdkafka are idempotent producers, rskafka has none; ours and rskafka are told where a batch ends, rdkafka batches
//! by itself (its own limits set to the same size, and told to send what it has at each iteration's end).

use std::collections::BTreeMap;
use std::time::Duration;

use benches::built;
use benches::cpu_time::CpuTime;
use benches::records::{RECORDS, Row, TIMESTAMP_MS, build, rows};
use criterion::measurement::{Measurement, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::config::{Compression, KafkaSettings, OnOversize, ProducerKind, TopicSettings};
use engine::encoded::EncodedBatch;
use engine::producer::Producer;
use harness::broker::{Broker, Settings};
use protocol::kafka;
use protocol::kafka::record_batch::Builder;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Batches of an iteration.
const BATCHES: u64 = 16;
/// Unacknowledged at a time, as the engine allows per broker.
const IN_FLIGHT: u64 = 5;
const TOPIC: &str = "t";

fn settings(broker: &Broker, producer: ProducerKind) -> KafkaSettings {
    KafkaSettings {
        brokers: vec![broker.bootstrap()],
        topic: TOPIC.to_owned(),
        compression: Compression::Lz4,
        producer,
        batch_max: 1 << 20,
        on_oversize: OnOversize::Halt,
        tombstones: true,
        truncates: false,
        tls: None,
        sasl: None,
        topics: TopicSettings {
            create: false,
            partitions: 1,
            replication: 1,
        },
    }
}

/// Sends one iteration's batches, from `ordinal` on, and waits for them.
async fn ours(
    producer: &Producer,
    builder: &mut Builder,
    rows: &[Row],
    topic_id: u32,
    ordinal: &mut u64,
) {
    let mut waiting = 0;
    for _ in 0..BATCHES {
        if waiting == IN_FLIGHT {
            producer.acknowledged().await.expect("acknowledged");
            waiting -= 1;
        }
        let bytes = build(builder, rows);
        let part = EncodedBatch {
            topic_id,
            partition: 0,
            records: RECORDS as u32,
            changes: RECORDS as u32,
            bytes: bytes.into(),
        };
        producer.send(*ordinal, vec![part]);
        *ordinal += 1;
        waiting += 1;
    }
    for _ in 0..waiting {
        producer.acknowledged().await.expect("acknowledged");
    }
}

async fn rskafka(client: &std::sync::Arc<PartitionClient>, rows: &[Row]) {
    let timestamp = DateTime::<Utc>::from_timestamp_millis(TIMESTAMP_MS).expect("a time");
    let mut sending = JoinSet::new();
    for _ in 0..BATCHES {
        if sending.len() as u64 == IN_FLIGHT {
            sending.join_next().await.expect("one").expect("no panic");
        }
        let record = |row: &Row| Record {
            key: Some(row.key.clone()),
            value: Some(row.value()),
            headers: BTreeMap::from([("pos".to_owned(), row.position.clone())]),
            timestamp,
        };
        let records: Vec<Record> = rows.iter().map(record).collect();
        let client = std::sync::Arc::clone(client);
        sending.spawn(async move {
            let lz4 = rskafka::client::partition::Compression::Lz4;
            client.produce(records, lz4).await.expect("acknowledged");
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent.expect("no panic");
    }
}

fn rdkafka(producer: &BaseProducer, rows: &[Row], value: &mut Vec<u8>) {
    for row in (0..BATCHES).flat_map(|_| rows) {
        value.clear();
        row.write_value(value);
        let header = Header {
            key: "pos",
            value: Some(&row.position),
        };
        let mut record = BaseRecord::to(TOPIC)
            .partition(0)
            .key(&row.key)
            .payload(value.as_slice())
            .timestamp(TIMESTAMP_MS)
            .headers(OwnedHeaders::new_with_capacity(1).insert(header));
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
            );
            producer.poll(Duration::from_millis(1));
            record = back;
        }
    }
    producer
        .flush(Duration::from_secs(10))
        .expect("acknowledged");
    assert_eq!(producer.in_flight_count(), 0);
}

fn librdkafka(broker: &Broker) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("compression.codec", "lz4")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set(
            "max.in.flight.requests.per.connection",
            IN_FLIGHT.to_string(),
        )
        .set("batch.num.messages", RECORDS.to_string())
        .set("batch.size", (2 << 20).to_string())
        .set("linger.ms", "5")
        .set(
            "queue.buffering.max.messages",
            (IN_FLIGHT * RECORDS * 2).to_string(),
        )
        .create()
        .expect("a producer")
}

fn produce<M: Measurement + 'static>(c: &mut Criterion<M>, name: &str) {
    let runtime = Runtime::new().expect("threads");
    let discarding = Settings {
        discard: true,
        ..Settings::default()
    };
    let broker = runtime.block_on(Broker::start(discarding)).expect("a port");
    broker.create_topic(TOPIC, 1).expect("a topic");
    let rows = rows();
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(RECORDS * BATCHES));

    for (name, kind) in [
        ("walbrook", ProducerKind::Native),
        ("walbrook, rskafka", ProducerKind::Rskafka),
    ] {
        let producer = runtime
            .block_on(Producer::connect(&settings(&broker, kind)))
            .expect("a producer");
        let routes = runtime
            .block_on(producer.topics(&[TOPIC]))
            .expect("a topic");
        let (mut builder, mut ordinal) = (Builder::new(kafka::Compression::Lz4), 0);
        group.bench_function(name, |b| {
            b.iter(|| {
                runtime.block_on(ours(
                    &producer,
                    &mut builder,
                    &rows,
                    routes[0].topic_id,
                    &mut ordinal,
                ))
            });
        });
        runtime
            .block_on(producer.close(Duration::from_secs(5)))
            .expect("closed");
    }

    let client = runtime.block_on(async {
        let client = ClientBuilder::new(vec![broker.bootstrap()])
            .build()
            .await
            .expect("a client");
        let client = client
            .partition_client(TOPIC, 0, UnknownTopicHandling::Error)
            .await;
        std::sync::Arc::new(client.expect("a partition"))
    });
    group.bench_function("rskafka", |b| {
        b.iter(|| runtime.block_on(rskafka(&client, &rows)))
    });

    let (producer, mut value) = (librdkafka(&broker), Vec::new());
    group.bench_function("rdkafka", |b| {
        b.iter(|| rdkafka(&producer, &rows, &mut value))
    });
    group.finish();
}

fn wall(c: &mut Criterion<WallTime>) {
    produce(c, "produce, wall time");
}

fn cpu(c: &mut Criterion<CpuTime>) {
    produce(c, "produce, CPU time");
}

criterion_group! {
    name = wall_time;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = wall
}
criterion_group! {
    name = cpu_time;
    config = Criterion::default().with_measurement(CpuTime::Process).sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = cpu
}
criterion_main!(built::begin, wall_time, cpu_time, built::end);
