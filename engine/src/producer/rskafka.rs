//! The `rskafka` crate behind the producer's interface.
//!
//! Record batches are taken apart into the crate's records and produced one request per partition at a time, so that order holds.
//! What it cannot promise is in `docs/decisions/rskafka.md`: it is not idempotent, so a retry after a lost answer writes twice.
//! Topics and tails are served by our own client, which knows how to ask for log ends.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::rskafka::BackoffConfig;
use ::rskafka::chrono::DateTime;
use ::rskafka::client::error::{Error, ProtocolError};
use ::rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use ::rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use ::rskafka::record::Record;
use protocol::kafka::record_batch::Decoder;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::clock;
use crate::config::{self, KafkaSettings, SaslMechanism, TopicSettings};
use crate::encoded::{EncodedBatch, Route};

use super::backoff::Backoff;
use super::connection::{Connector, Fault, REQUEST_TIMEOUT};
use super::dispatch::PartitionKey;
use super::error::ProducerError;
use super::ledger::Ledger;
use super::metadata::Cluster;
use super::registry::Registry;
use super::tail::IsOurs;
use super::{Acknowledged, ProducerMetrics, TailRecord, tail, tls, topics, verdict};

/// How long brokers may be silent to the crate at start.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// The rskafka client.
pub(super) struct Rskafka {
    shared: Arc<Shared>,
    cluster: tokio::sync::Mutex<Cluster>,
    settings: TopicSettings,
    batch_max: usize,
    compression: config::Compression,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    client: Client,
    compression: Compression,
    registry: Mutex<Registry>,
    state: Mutex<State>,
    acknowledged: Notify,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    queues: HashMap<PartitionKey, Queue>,
    failure: Option<ProducerError>,
    in_flight: usize,
    unacknowledged: usize,
    metrics: ProducerMetrics,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, EncodedBatch)>,
    wake: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rskafka {
    pub(super) async fn connect(settings: &KafkaSettings) -> Result<Self, ProducerError> {
        // Our own connection first: it says better what is wrong.
        let connector = Arc::new(Connector::new(settings)?);
        let mut cluster = Cluster::new(connector, &settings.brokers)?;
        let unreachable = |reason: String| ProducerError::Unreachable {
            brokers: settings.brokers.join(", ").into(),
            reason: reason.into(),
        };
        match cluster.metadata(&[]).await {
            Ok(_) => {}
            Err(Fault::Lasting(error)) => return Err(error),
            Err(Fault::Passing(reason)) => return Err(unreachable(reason)),
        }
        // The crate takes one of them at random, and waits for it as long as TCP does: it gets the one that has just answered.
        let answering = cluster.answering().map(ToString::to_string);
        let brokers = answering.map_or_else(|| settings.brokers.clone(), |broker| vec![broker]);
        let client = timeout(START_PATIENCE, builder(settings, brokers)?.build())
            .await
            .map_err(|_| unreachable(format!("rskafka gets no answer within {START_PATIENCE:?}")))?
            .map_err(|error| unreachable(format!("rskafka: {error}")))?;
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                compression: compression(settings.compression),
                registry: Mutex::default(),
                state: Mutex::default(),
                acknowledged: Notify::new(),
            }),
            cluster: tokio::sync::Mutex::new(cluster),
            settings: settings.topics,
            batch_max: settings.batch_max,
            compression: settings.compression,
            tasks: Mutex::default(),
        })
    }

    pub(super) async fn topics(&self, names: &[&str]) -> Result<Vec<Route>, ProducerError> {
        self.look_up(names, Some(&self.settings)).await?;
        lock(&self.shared.registry).routes(names)
    }

    pub(super) async fn existing(&self, names: &[&str]) -> Result<Vec<Route>, ProducerError> {
        self.look_up(names, None).await?;
        Ok(lock(&self.shared.registry).known_routes(names))
    }

    /// Registers the topics that are not known yet; missing ones are created by these settings, or left out without.
    async fn look_up(
        &self,
        names: &[&str],
        settings: Option<&TopicSettings>,
    ) -> Result<(), ProducerError> {
        let compression = self.compression;
        topics::look_up(
            &self.cluster,
            &self.shared.registry,
            names,
            settings,
            compression,
        )
        .await?;
        Ok(())
    }

    pub(super) fn was_created(&self, topic_id: u32) -> bool {
        lock(&self.shared.registry).was_created(topic_id)
    }

    pub(super) fn batch_max(&self, topic_id: u32) -> usize {
        lock(&self.shared.registry).batch_max(topic_id, self.batch_max)
    }

    pub(super) fn send(&self, ordinal: u64, parts: Vec<EncodedBatch>) {
        let mut state = lock(&self.shared.state);
        let serial = state.ledger.enter(ordinal, parts.len());
        state.unacknowledged += parts.len();
        for part in parts {
            let key = PartitionKey {
                topic_id: part.topic_id,
                partition: part.partition,
            };
            let is_new = !state.queues.contains_key(&key);
            let queue = state.queues.entry(key).or_default();
            queue.waiting.push_back((serial, part));
            queue.wake.notify_one();
            if is_new {
                let task = tokio::spawn(serve(
                    Arc::clone(&self.shared),
                    key,
                    Arc::clone(&queue.wake),
                ));
                lock(&self.tasks).push(task);
            }
        }
        if state.ledger.is_ready() {
            self.shared.acknowledged.notify_one();
        }
    }

    pub(super) async fn acknowledged(&self) -> Result<Acknowledged, ProducerError> {
        loop {
            {
                let mut state = lock(&self.shared.state);
                if let Some(acknowledged) = state.ledger.poll() {
                    return Ok(acknowledged);
                }
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
            }
            self.shared.acknowledged.notified().await;
        }
    }

    pub(super) async fn tails(
        &self,
        from: &[(u32, i32, i64)],
        is_ours: IsOurs<'_>,
        visit: &mut (dyn FnMut(TailRecord<'_>) + Send),
    ) -> Result<Vec<(u32, i32, i64)>, ProducerError> {
        let name = |topic_id| lock(&self.shared.registry).name(topic_id);
        tail::read(&self.cluster, &name, from, BTreeMap::new(), is_ours, visit).await
    }

    pub(super) async fn ends(
        &self,
        keys: &[PartitionKey],
    ) -> Result<BTreeMap<PartitionKey, i64>, ProducerError> {
        let name = |topic_id| lock(&self.shared.registry).name(topic_id);
        tail::ends(&self.cluster, &name, keys, BTreeMap::new()).await
    }

    pub(super) fn in_flight_requests(&self) -> usize {
        lock(&self.shared.state).in_flight
    }

    pub(super) fn waiting(&self) -> usize {
        let state = lock(&self.shared.state);
        state.unacknowledged.saturating_sub(state.in_flight)
    }

    pub(super) fn metrics(&self) -> ProducerMetrics {
        lock(&self.shared.state).metrics
    }

    pub(super) async fn close(&self, patience: Duration) -> Result<(), ProducerError> {
        let deadline = clock::now() + patience;
        loop {
            let batches = {
                let state = lock(&self.shared.state);
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                state.unacknowledged
            };
            let left = deadline.saturating_duration_since(clock::now());
            if batches == 0 {
                return Ok(());
            }
            if left.is_zero() {
                return Err(ProducerError::Unacknowledged { batches });
            }
            sleep(Duration::from_millis(5).min(left)).await;
        }
    }
}

impl Drop for Rskafka {
    fn drop(&mut self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

fn builder(settings: &KafkaSettings, brokers: Vec<String>) -> Result<ClientBuilder, ProducerError> {
    let mut builder = ClientBuilder::new(brokers)
        .client_id("walbrook")
        .backoff_config(BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
            deadline: None,
        });
    if let Some(tls) = &settings.tls {
        builder = builder.tls_config(tls::client_config(tls)?);
    }
    if let Some(sasl) = &settings.sasl {
        let credentials =
            Credentials::new(sasl.username.clone(), sasl.password.reveal().to_owned());
        builder = builder.sasl_config(match sasl.mechanism {
            SaslMechanism::Plain => SaslConfig::Plain(credentials),
            SaslMechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
            SaslMechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
        });
    }
    Ok(builder)
}

const fn compression(compression: config::Compression) -> Compression {
    match compression {
        config::Compression::None => Compression::NoCompression,
        // `auto` is refused with this producer, which compresses all alike.
        config::Compression::Lz4 | config::Compression::Auto => Compression::Lz4,
        config::Compression::Zstd => Compression::Zstd,
        config::Compression::Snappy => Compression::Snappy,
        config::Compression::Gzip => Compression::Gzip,
    }
}

/// Writes what waits for one partition, one record batch after the other.
async fn serve(shared: Arc<Shared>, key: PartitionKey, wake: Arc<Notify>) {
    let topic = lock(&shared.registry).name(key.topic_id);
    let mut client = None;
    loop {
        let next = {
            let mut state = lock(&shared.state);
            if state.failure.is_some() {
                return;
            }
            let next = state
                .queues
                .get_mut(&key)
                .and_then(|queue| queue.waiting.pop_front());
            if let Some((serial, _)) = &next {
                state.in_flight += 1;
                state.ledger.sent(*serial, clock::now());
            }
            next
        };
        let Some((serial, batch)) = next else {
            wake.notified().await;
            continue;
        };
        let result = produce(&shared, &topic, key, &mut client, &batch).await;
        let mut state = lock(&shared.state);
        state.in_flight -= 1;
        match result {
            Ok(next_offset) => {
                state.unacknowledged -= 1;
                state.ledger.written(serial, key, next_offset);
                if state.ledger.is_ready() {
                    shared.acknowledged.notify_one();
                }
            }
            Err(error) => {
                state.failure.get_or_insert(error);
                shared.acknowledged.notify_one();
                return;
            }
        }
    }
}

/// Writes one record batch, for as long as it takes; answers the offset after its last record.
async fn produce(
    shared: &Shared,
    topic: &Arc<str>,
    key: PartitionKey,
    client: &mut Option<PartitionClient>,
    batch: &EncodedBatch,
) -> Result<Option<i64>, ProducerError> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        let partition = match client {
            Some(partition) => partition,
            None => {
                let handling = UnknownTopicHandling::Retry;
                match shared
                    .client
                    .partition_client(topic.to_string(), key.partition, handling)
                    .await
                {
                    Ok(partition) => client.insert(partition),
                    Err(error) => {
                        pause(topic, key, batch, &error, &mut backoff).await?;
                        continue;
                    }
                }
            }
        };
        // The crate owns every key, value and header of a record: a second copy of the batch, decompressed, while it is on its way.
        let records = records(topic, key, batch)?;
        {
            let metrics = &mut lock(&shared.state).metrics;
            metrics.requests += 1;
            metrics.bytes_sent += batch.bytes.len() as u64;
            metrics.retries += u64::from(backoff.attempts() > 0);
        }
        let produced = partition.produce(records, shared.compression);
        let silent = || {
            warn!(
                %topic, partition = key.partition,
                "no answer within {REQUEST_TIMEOUT:?}, and rskafka waits for as long as the connection lasts: if the broker is gone for \
                 good, start again, or set kafka.producer = \"native\""
            );
        };
        match told_if_slow(REQUEST_TIMEOUT, produced, silent).await {
            Ok(offsets) => {
                if backoff.attempts() > 0 {
                    info!(%topic, partition = key.partition, "records are taken again");
                }
                return Ok(offsets.last().map(|offset| offset + 1));
            }
            Err(error) => {
                *client = None;
                pause(topic, key, batch, &error, &mut backoff).await?;
            }
        }
    }
}

/// Waits for `work`, and tells once when that takes longer than `patience`.
async fn told_if_slow<T>(
    patience: Duration,
    work: impl Future<Output = T>,
    tell: impl FnOnce(),
) -> T {
    let mut work = std::pin::pin!(work);
    match timeout(patience, work.as_mut()).await {
        Ok(done) => done,
        Err(_) => {
            tell();
            work.await
        }
    }
}

async fn pause(
    topic: &str,
    key: PartitionKey,
    batch: &EncodedBatch,
    error: &Error,
    backoff: &mut Backoff,
) -> Result<(), ProducerError> {
    let halt = |reason: String| Err(ProducerError::partition(topic, key.partition, reason));
    match error {
        Error::Connection(_) | Error::Request(_) | Error::Timeout | Error::RetryFailed(_) => {}
        Error::ServerError {
            protocol_error,
            error_message,
            ..
        } => {
            let code = code(*protocol_error);
            if !matches!(
                verdict::verdict(code),
                verdict::Verdict::Pause | verdict::Verdict::Refresh | verdict::Verdict::Doubtful
            ) {
                return halt(verdict::remedy(
                    topic,
                    code,
                    batch.bytes.len(),
                    error_message.as_deref(),
                ));
            }
        }
        other => return halt(format!("rskafka cannot write: {other}")),
    }
    if backoff.attempts() == 0 {
        warn!(%topic, partition = key.partition, %error, "records are not taken, retrying until they are");
    }
    sleep(backoff.pause()).await;
    Ok(())
}

/// The wire's number of an error; the crate keeps its conversion to itself.
fn code(error: ProtocolError) -> i16 {
    const UNKNOWN_SERVER_ERROR: i16 = -1;
    let same = |code: &i16| ProtocolError::new(*code).as_ref() == Some(&error);
    (-1..=200).find(same).unwrap_or(UNKNOWN_SERVER_ERROR)
}

/// Takes a record batch apart.
fn records(
    topic: &str,
    key: PartitionKey,
    batch: &EncodedBatch,
) -> Result<Vec<Record>, ProducerError> {
    let undecodable = |reason: String| {
        ProducerError::partition(
            topic,
            key.partition,
            format!(
                "a record batch of our own cannot be taken apart ({reason}): this is a defect of walbrook, please report it"
            ),
        )
    };
    let mut bytes = batch.bytes.clone();
    // The decoder proves checksums, and ours is written with the stamp.
    protocol::kafka::record_batch::stamp(&mut bytes, -1, -1, -1)
        .map_err(|error| undecodable(error.to_string()))?;
    let mut decoder = Decoder::new();
    let decoded = decoder
        .decode(&bytes)
        .map_err(|error| undecodable(error.to_string()))?;
    let (_, decoded) = decoded.ok_or_else(|| undecodable("it is not complete".to_owned()))?;
    let mut records = Vec::with_capacity(batch.records as usize);
    for record in decoded {
        let record = record.map_err(|error| undecodable(error.to_string()))?;
        let headers: BTreeMap<String, Vec<u8>> = record
            .headers
            .clone()
            .map(|(name, value)| {
                (
                    String::from_utf8_lossy(name).into_owned(),
                    value.unwrap_or_default().to_vec(),
                )
            })
            .collect();
        records.push(Record {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
            timestamp: DateTime::from_timestamp_millis(record.timestamp_ms).unwrap_or_default(),
        });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_long_says_so_once_and_waits_on() {
        let (answer, asked) = oneshot::channel();
        let mut told = 0;
        // Nobody answers before it is told.
        let done = told_if_slow(Duration::from_millis(1), asked, || {
            told += 1;
            answer.send(7).unwrap();
        });
        assert_eq!(done.await, Ok(7));
        assert_eq!(told, 1);
        let at_once = told_if_slow(Duration::MAX, std::future::ready(8), || told += 1);
        assert_eq!((at_once.await, told), (8, 1));
    }
}
