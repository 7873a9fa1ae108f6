//! Writes record batches into Kafka, in order, and says what Kafka has acknowledged.
//!
//! ```text
//! send(ordinal, parts) ─► waiting batches per partition ─► produce requests per broker ─► acknowledged(ordinal, offsets)
//! ```
//! A caller numbers what it sends with ordinals; it learns in the same order when everything of an ordinal is written. Order per
//! partition is the order of [`Producer::send`]. Faults that pass are retried for as long as they last; what remains is a
//! [`ProducerError`] that ends the run. How much is in flight is the caller's business: it holds back when its memory is full.
//!
//! `native` is our own client, `rskafka` the crate of that name behind the same interface; `docs/decisions/rskafka.md` says what the
//! latter cannot promise.

mod backoff;
mod broker;
mod connection;
mod dispatch;
mod error;
mod identity;
mod ledger;
mod metadata;
#[cfg(test)]
mod model;
mod native;
mod partition;
mod produce;
mod registry;
mod response;
mod rskafka;
mod sasl;
mod tail;
mod tls;
mod topics;
mod verdict;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::warn;

use crate::config::{KafkaSettings, ProducerKind};
use crate::encoded::{EncodedBatch, Route};

use self::backoff::Backoff;
use self::dispatch::PartitionKey;
pub use dispatch::Traffic;
pub use error::ProducerError;

/// The pauses between attempts to find Kafka at the start, each of some seconds.
const REACH_MIN: Duration = Duration::from_secs(1);
const REACH_MAX: Duration = Duration::from_secs(30);

/// Everything sent under an ordinal is written by all in-sync replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// As given to [`Producer::send`].
    pub ordinal: u64,
    /// Per topic id and partition that the ordinal touched: the offset after its last record. Where the broker recognised a
    /// repeated batch without naming its offset the partition is absent.
    pub offsets: Vec<(u32, i32, i64)>,
    /// When the last of its record batches was first put on the wire; `None` for an ordinal without any.
    pub sent_at: Option<Instant>,
}

/// A record at the end of a partition, as far as a restart needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailRecord<'a> {
    /// [`Route::topic_id`].
    pub topic_id: u32,
    /// The partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Who wrote it; −1 for producers that are not idempotent.
    pub producer_id: i64,
    /// Whether it has a key.
    pub has_key: bool,
    /// Whether it has a value; tombstones have none.
    pub has_value: bool,
    /// Header `pos`.
    pub pos: Option<&'a [u8]>,
    /// Header `gtid`.
    pub gtid: Option<&'a [u8]>,
}

/// A producer id that was taken anew while running, and is not used yet.
#[derive(Debug)]
pub struct NewId {
    /// The id.
    pub id: i64,
    used: oneshot::Sender<()>,
}

impl NewId {
    /// Records may be written under it.
    pub fn use_it(self) {
        // The producer may be gone.
        let _ = self.used.send(());
    }
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerMetrics {
    /// Bytes of produce requests, record batches and framing, repeated ones included.
    pub bytes_sent: u64,
    /// Produce requests sent.
    pub requests: u64,
    /// Record batches that were sent again.
    pub retries: u64,
    /// Connections made.
    pub connections: u64,
}

/// Writes into Kafka.
pub struct Producer {
    client: Client,
}

enum Client {
    Native(native::Native),
    Rskafka(Box<rskafka::Rskafka>),
}

impl Producer {
    /// Connects to the first broker that answers, and gets a producer id. Within a tokio runtime; tasks run until the producer is
    /// closed or dropped.
    ///
    /// # Errors
    /// No broker answers within some seconds, TLS or authentication fails, we may not write at all.
    pub async fn connect(settings: &KafkaSettings) -> Result<Self, ProducerError> {
        let client = match settings.producer {
            ProducerKind::Native => Client::Native(native::Native::connect(settings).await?),
            ProducerKind::Rskafka => {
                Client::Rskafka(Box::new(rskafka::Rskafka::connect(settings).await?))
            }
        };
        Ok(Self { client })
    }

    /// As [`connect`](Self::connect), but brokers that do not answer are asked again for as long as it takes.
    ///
    /// # Errors
    /// TLS or authentication fails, we may not write at all.
    pub async fn reach(settings: &KafkaSettings) -> Result<Self, ProducerError> {
        let mut backoff = Backoff::new(REACH_MIN, REACH_MAX);
        loop {
            match Self::connect(settings).await {
                Err(error @ ProducerError::Unreachable { .. }) => {
                    warn!(%error, "trying again until one does");
                    sleep(backoff.pause()).await;
                }
                done => return done,
            }
        }
    }

    /// Where topics lead, in the order of `names`; missing topics are created where `kafka.topics.create` is set. One round trip for
    /// all that are not known yet, none when all are.
    ///
    /// # Errors
    /// A topic that cannot be used or created. Faults that pass are waited out.
    pub async fn topics(&self, names: &[&str]) -> Result<Vec<Route>, ProducerError> {
        match &self.client {
            Client::Native(native) => native.topics(names).await,
            Client::Rskafka(rskafka) => rskafka.topics(names).await,
        }
    }

    /// As [`topics`](Self::topics), but topics that do not exist are neither created nor an error: they are left out.
    ///
    /// # Errors
    /// A topic that cannot be used. Faults that pass are waited out.
    pub async fn existing(&self, names: &[&str]) -> Result<Vec<Route>, ProducerError> {
        match &self.client {
            Client::Native(native) => native.existing(names).await,
            Client::Rskafka(rskafka) => rskafka.existing(names).await,
        }
    }

    /// The largest record batch that a topic takes, in bytes: `kafka.batch_max`, or the topic's `max.message.bytes` where that is
    /// known and lower.
    #[must_use]
    pub fn batch_max(&self, topic_id: u32) -> usize {
        match &self.client {
            Client::Native(native) => native.batch_max(topic_id),
            Client::Rskafka(rskafka) => rskafka.batch_max(topic_id),
        }
    }

    /// Hands record batches over, to partitions of topics that [`topics`](Self::topics) has answered. Does not block and does not
    /// copy; what is not acknowledged is held in memory. Per partition they are written in the order of these calls.
    pub fn send(&self, ordinal: u64, parts: Vec<EncodedBatch>) {
        match &self.client {
            Client::Native(native) => native.send(ordinal, parts),
            Client::Rskafka(rskafka) => rskafka.send(ordinal, parts),
        }
    }

    /// Waits for the next ordinal to be written, in the order of [`send`](Self::send). Cancel safe; for one caller
    /// at a time.
    ///
    /// # Errors
    /// Why nothing will be written any more; ordinals that were complete before are answered first.
    pub async fn acknowledged(&self) -> Result<Acknowledged, ProducerError> {
        match &self.client {
            Client::Native(native) => native.acknowledged().await,
            Client::Rskafka(rskafka) => rskafka.acknowledged().await,
        }
    }

    /// Shows every record from the given offsets (topic id, partition, offset) on to the partitions' ends, partition by partition
    /// and in order, once none has come for a while that `is_ours`, whatever others write; answers topic id, partition and end of those
    /// that exist. Bounded memory. To be called before the first [`send`](Self::send).
    ///
    /// # Errors
    /// What does not pass: a record batch that cannot be decoded, a missing permission to read.
    pub async fn tails(
        &self,
        from: &[(u32, i32, i64)],
        is_ours: impl Fn(&TailRecord<'_>) -> bool + Sync,
        mut visit: impl FnMut(TailRecord<'_>) + Send,
    ) -> Result<Vec<(u32, i32, i64)>, ProducerError> {
        match &self.client {
            Client::Native(native) => native.tails(from, &is_ours, &mut visit).await,
            Client::Rskafka(rskafka) => rskafka.tails(from, &is_ours, &mut visit).await,
        }
    }

    /// From which offset on there may be records of ours: the log end of every partition of these topics as it stands now, by topic
    /// id and partition; 0 without asking where the topic was created here. What a partition lacks is absent. To be called before
    /// the first [`send`](Self::send) to them.
    ///
    /// # Errors
    /// What does not pass, such as a missing permission.
    pub async fn ends(&self, routes: &[Route]) -> Result<Vec<(u32, i32, i64)>, ProducerError> {
        let partitions = |route: &Route| {
            let topic_id = route.topic_id;
            (0..)
                .take(route.partitions as usize)
                .map(move |partition| PartitionKey {
                    topic_id,
                    partition,
                })
        };
        let was_created = |key: &PartitionKey| match &self.client {
            Client::Native(native) => native.was_created(key.topic_id),
            Client::Rskafka(rskafka) => rskafka.was_created(key.topic_id),
        };
        let keys = routes.iter().flat_map(partitions);
        let (created, keys): (Vec<_>, Vec<_>) = keys.partition(was_created);
        let mut ends: BTreeMap<PartitionKey, i64> =
            created.into_iter().map(|key| (key, 0)).collect();
        if !keys.is_empty() {
            ends.extend(match &self.client {
                Client::Native(native) => native.ends(&keys).await?,
                Client::Rskafka(rskafka) => rskafka.ends(&keys).await?,
            });
        }
        let ends = ends.into_iter();
        Ok(ends
            .map(|(key, end)| (key.topic_id, key.partition, end))
            .collect())
    }

    /// Produce requests on the wire. 0: everything that was sent is acknowledged or waits for a broker.
    #[must_use]
    pub fn in_flight_requests(&self) -> usize {
        match &self.client {
            Client::Native(native) => native.in_flight_requests(),
            Client::Rskafka(rskafka) => rskafka.in_flight_requests(),
        }
    }

    /// Record batches that wait for a request: as many as may be are on the wire, or a broker cannot be had.
    #[must_use]
    pub fn waiting(&self) -> usize {
        match &self.client {
            Client::Native(native) => native.waiting(),
            Client::Rskafka(rskafka) => rskafka.waiting(),
        }
    }

    /// Bytes of them. Not known of rskafka, and none there.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        match &self.client {
            Client::Native(native) => native.waiting_bytes(),
            Client::Rskafka(_) => 0,
        }
    }

    /// Whether record batches wait because as many requests are on the wire as may be: what is encoded now only joins them.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        match &self.client {
            Client::Native(native) => native.is_pressed(),
            Client::Rskafka(rskafka) => rskafka.waiting() > 0,
        }
    }

    /// What is on its way, and whether some of it is held up. Nothing ever is where rskafka writes, which does not tell.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match &self.client {
            Client::Native(native) => native.traffic(),
            Client::Rskafka(_) => Traffic::default(),
        }
    }

    /// While partitions are held up: waits until something has been answered, or until they have come to be. Cancel safe; for one
    /// caller at a time.
    pub async fn traffic_changed(&self) {
        match &self.client {
            Client::Native(native) => native.traffic_changed().await,
            Client::Rskafka(_) => std::future::pending().await,
        }
    }

    /// Bytes that the record batches handed over last, under one ordinal, have for each broker that they go to: what one of them adds to
    /// a request. Not known of rskafka, and as much as there can be.
    #[must_use]
    pub fn bytes_per_broker(&self) -> usize {
        match &self.client {
            Client::Native(native) => native.bytes_per_broker(),
            // It copies every record: larger batches would only cost it more memory.
            Client::Rskafka(_) => usize::MAX,
        }
    }

    /// The producer ids that our records carry since the start, the present one last: for the checkpoint. −1 stands for records of a
    /// client that is not idempotent.
    #[must_use]
    pub fn producer_ids(&self) -> Vec<i64> {
        match &self.client {
            Client::Native(native) => native.producer_ids(),
            Client::Rskafka(_) => vec![-1],
        }
    }

    /// Tells of producer ids that are taken anew while running (a leader has forgotten ours), the one that asked last. From now on
    /// nothing is written under such an id before [`NewId::use_it`].
    #[must_use]
    pub fn new_ids(&self) -> mpsc::UnboundedReceiver<NewId> {
        match &self.client {
            Client::Native(native) => native.new_ids(),
            Client::Rskafka(_) => mpsc::unbounded_channel().1,
        }
    }

    /// The Kafka cluster's own name for itself; `None` where it, or the client, does not say.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        match &self.client {
            Client::Native(native) => native.cluster_id(),
            Client::Rskafka(_) => None,
        }
    }

    /// Counters since the start.
    #[must_use]
    pub fn metrics(&self) -> ProducerMetrics {
        match &self.client {
            Client::Native(native) => native.metrics(),
            Client::Rskafka(rskafka) => rskafka.metrics(),
        }
    }

    /// Waits until everything is acknowledged, but not longer than `patience`; then closes. Acknowledgements that nobody has asked
    /// for are lost: callers that keep a checkpoint use up [`acknowledged`](Self::acknowledged) first.
    ///
    /// # Errors
    /// Something is not acknowledged.
    pub async fn close(&self, patience: Duration) -> Result<(), ProducerError> {
        match &self.client {
            Client::Native(native) => native.close(patience).await,
            Client::Rskafka(rskafka) => rskafka.close(patience).await,
        }
    }
}
