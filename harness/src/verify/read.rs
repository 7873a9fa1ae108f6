//! The independent clients: every record of a topic from its beginning to its present end.

use std::fmt;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use rskafka::client::{Client as Rskafka, ClientBuilder};
use rskafka::record::RecordAndOffset;
use tokio::sync::mpsc;

use super::{Error, Topic};

/// Longest silence before a broker counts as gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of one fetch.
const FETCH_BYTES: i32 = 4 << 20;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    /// rskafka: for everything that our own producer wrote.
    Rskafka,
    /// librdkafka: for what rskafka wrote.
    Rdkafka,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rskafka => "rskafka",
            Self::Rdkafka => "librdkafka",
        })
    }
}

/// One record as a client hands it over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// The header `pos`.
    pub(crate) pos: Option<&'a [u8]>,
}

/// All topics with their partitions.
pub(super) async fn topics(client: Client, brokers: &str) -> Result<Vec<Topic>, Error> {
    let failed = |why: String| Error::Read {
        topic: "the list of topics".into(),
        client,
        why,
    };
    match client {
        Client::Rskafka => {
            let client = connect(brokers).await.map_err(failed)?;
            let topics = client
                .list_topics()
                .await
                .map_err(|error| failed(error.to_string()))?;
            let partitions =
                |topic: rskafka::topic::Topic| (topic.name, topic.partitions.into_iter().collect());
            Ok(topics.into_iter().map(partitions).collect())
        }
        Client::Rdkafka => {
            let brokers = brokers.to_owned();
            let list = move || -> Result<Vec<Topic>, String> {
                let consumer = consumer(&brokers)?;
                let metadata = consumer
                    .fetch_metadata(None, PATIENCE)
                    .map_err(|error| error.to_string())?;
                let topics = metadata.topics().iter().map(|topic| {
                    let partitions = topic.partitions().iter().map(|partition| partition.id());
                    (topic.name().to_owned(), partitions.collect())
                });
                Ok(topics.collect())
            };
            blocking(list).await.map_err(failed)
        }
    }
}

/// Calls `each` with every record, in order per partition.
pub(crate) async fn records(
    client: Client,
    brokers: &str,
    topic: &str,
    partitions: &[i32],
    mut each: impl FnMut(Read<'_>),
) -> Result<(), Error> {
    let failed = |why: String| Error::Read {
        topic: topic.to_owned(),
        client,
        why,
    };
    match client {
        Client::Rskafka => {
            let client = connect(brokers).await.map_err(failed)?;
            let (sender, mut chunks) = mpsc::channel(2);
            let mut readers = tokio::task::JoinSet::new();
            for &partition in partitions {
                let client = client
                    .partition_client(topic, partition, UnknownTopicHandling::Error)
                    .await
                    .map_err(|error| failed(error.to_string()))?;
                readers.spawn(read_partition(client, partition, sender.clone()));
            }
            drop(sender);
            while let Some((partition, records)) = chunks.recv().await {
                for record in &records {
                    each(Read {
                        partition,
                        offset: record.offset,
                        key: record.record.key.as_deref(),
                        value: record.record.value.as_deref(),
                        pos: record.record.headers.get("pos").map(Vec::as_slice),
                    });
                }
            }
            while let Some(ended) = readers.join_next().await {
                ended
                    .map_err(|error| failed(error.to_string()))?
                    .map_err(failed)?;
            }
            Ok(())
        }
        Client::Rdkafka => {
            let (brokers, name, partitions) =
                (brokers.to_owned(), topic.to_owned(), partitions.to_vec());
            tokio::task::block_in_place(|| read_by_librdkafka(&brokers, &name, &partitions, each))
                .map_err(failed)
        }
    }
}

type Chunk = (i32, Vec<RecordAndOffset>);

async fn read_partition(
    client: rskafka::client::partition::PartitionClient,
    partition: i32,
    sender: mpsc::Sender<Chunk>,
) -> Result<(), String> {
    let text = |error: rskafka::client::error::Error| error.to_string();
    let mut next = client.get_offset(OffsetAt::Earliest).await.map_err(text)?;
    let end = client.get_offset(OffsetAt::Latest).await.map_err(text)?;
    while next < end {
        let (mut records, _) = client
            .fetch_records(next, 1..FETCH_BYTES, 1000)
            .await
            .map_err(text)?;
        records.retain(|record| record.offset < end);
        let Some(last) = records.last() else {
            return Err(format!(
                "partition {partition} has nothing at offset {next}, before its end {end}"
            ));
        };
        next = last.offset + 1;
        if sender.send((partition, records)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn connect(brokers: &str) -> Result<Rskafka, String> {
    let brokers = brokers.split(',').map(str::to_owned).collect();
    let backoff = rskafka::BackoffConfig {
        deadline: Some(PATIENCE),
        ..rskafka::BackoffConfig::default()
    };
    ClientBuilder::new(brokers)
        .client_id("harness-verify")
        .max_message_size(256 << 20)
        .backoff_config(backoff)
        .build()
        .await
        .map_err(|error| error.to_string())
}

fn consumer(brokers: &str) -> Result<BaseConsumer, String> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "harness-verify")
        .set("group.id", "harness-verify")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "100")
        .create()
        .map_err(|error| error.to_string())
}

fn read_by_librdkafka(
    brokers: &str,
    topic: &str,
    partitions: &[i32],
    mut each: impl FnMut(Read<'_>),
) -> Result<(), String> {
    let text = |error: rdkafka::error::KafkaError| error.to_string();
    let consumer = consumer(brokers)?;
    let mut list = TopicPartitionList::new();
    let mut left = 0;
    let mut ends = std::collections::HashMap::new();
    for &partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .map_err(text)?;
        list.add_partition_offset(topic, partition, Offset::Offset(low))
            .map_err(text)?;
        ends.insert(partition, high);
        left += usize::from(low < high);
    }
    consumer.assign(&list).map_err(text)?;
    while left > 0 {
        let message = consumer
            .poll(PATIENCE)
            .ok_or("nothing came any more before the end was reached")?;
        let message = message.map_err(text)?;
        let end = ends.get(&message.partition()).copied().unwrap_or_default();
        if message.offset() < end {
            each(Read {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key(),
                value: message.payload(),
                pos: position(&message),
            });
        }
        left -= usize::from(message.offset() + 1 == end);
    }
    Ok(())
}

fn position<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    message
        .headers()?
        .iter()
        .find(|header| header.key == "pos")?
        .value
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(f)
        .await
        .map_err(|error| error.to_string())?
}
