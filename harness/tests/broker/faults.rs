//! Faults on command, and an idempotent producer that survives them without loss, repetition or reordering.

use std::time::{Duration, Instant};

use harness::broker::{Broker, Drop};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};

use crate::support::{PATIENCE, broker, read_rskafka, rskafka};

fn producer(broker: &Broker) -> ThreadedProducer<DefaultProducerContext> {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("enable.idempotence", "true")
        .set("batch.num.messages", "100")
        .set("linger.ms", "1")
        .set("retry.backoff.ms", "10")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "50")
        .set("topic.metadata.refresh.fast.interval.ms", "20")
        .create()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_producer_survives_all_of_them() {
    let broker = broker(2).await;
    let faults = broker.faults();
    faults.fail_after(5, ApiKey::Produce, ResponseError::NotEnoughReplicas, 2);
    faults.drop_connection(ApiKey::Produce, Drop::After, 3, 1);
    faults.drop_connection(ApiKey::Produce, Drop::Before, 9, 1);
    faults.fail(
        ApiKey::InitProducerId,
        ResponseError::CoordinatorLoadInProgress,
        1,
    );
    let producer = producer(&broker);
    const RECORDS: usize = 20_000;
    for i in 0..RECORDS {
        let value = i.to_string();
        let mut record = BaseRecord::<(), _>::to("t").payload(&value).partition(0);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(
                error.rdkafka_error_code(),
                Some(rdkafka::error::RDKafkaErrorCode::QueueFull)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
            record = back;
        }
        match i {
            8000 => broker.move_leader("t", 0, 1).unwrap(),
            12_000 => broker.disconnect(1),
            15_000 => {
                broker.stop(1);
                broker.move_leader("t", 0, 0).unwrap();
            }
            _ => {}
        }
        if i % 1000 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    tokio::task::spawn_blocking(move || producer.flush(PATIENCE))
        .await
        .unwrap()
        .unwrap();
    broker.resume(1);
    let seen = read_rskafka(&rskafka(&broker).await, "t", 0).await;
    let values: Vec<usize> = seen
        .iter()
        .map(|record| {
            std::str::from_utf8(record.value.as_deref().unwrap())
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert!(
        values.iter().copied().eq(0..RECORDS),
        "{} records, or another order",
        values.len()
    );
    assert!(
        broker.counts().duplicates > 0,
        "the answer that was dropped led to a repetition"
    );
}

#[tokio::test]
async fn a_delay_is_a_long_line_and_a_held_watermark_hides_records() {
    let broker = broker(1).await;
    let client = rskafka(&broker).await;
    let partition = client
        .partition_client("t", 0, UnknownTopicHandling::Error)
        .await
        .unwrap();
    broker
        .faults()
        .delay(Some(ApiKey::ListOffsets), Duration::from_millis(80));
    let begun = Instant::now();
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(80));
    broker.faults().clear();

    let records = (0..10).map(crate::rskafka_client::record).collect();
    partition
        .produce(records, rskafka::client::partition::Compression::Lz4)
        .await
        .unwrap();
    broker.hold_high_watermark("t", 0, Some(0)).unwrap();
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 0);
    assert_eq!(broker.log_end("t", 0), Some(10));
    let (records, _) = partition.fetch_records(0, 1..1000, 50).await.unwrap();
    assert!(records.is_empty());
    // A fetch that waits is woken when they become visible.
    let waiting = tokio::spawn(async move { partition.fetch_records(0, 1..100_000, 20_000).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    broker.hold_high_watermark("t", 0, None).unwrap();
    let (records, _) = tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(records.len(), 10);
}

#[tokio::test]
async fn topics_that_may_not_be_created() {
    let broker = broker(1).await;
    broker.faults().fail(
        ApiKey::CreateTopics,
        ResponseError::TopicAuthorizationFailed,
        u64::MAX,
    );
    let client = rskafka(&broker).await;
    let error = client
        .controller_client()
        .unwrap()
        .create_topic("no", 1, 1, 1000)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("TopicAuthorizationFailed"),
        "{error}"
    );
}
