//! Our own client: tasks and sockets around [`Dispatch`].
//!
//! ```text
//! Producer ──► Dispatch (behind a mutex, held for moments) ◄── broker task each: write half, read half, watchdog
//!                  ▲        ▲
//!      driver task, timer task, identity task
//!   (metadata)  (ends of pauses)  (producer ids)
//! ```
//! The mutex is never held across an await. Whoever changes the dispatch passes its [`Signals`] on to the tasks that wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::clock;
use crate::config::{Compression, KafkaSettings, TopicSettings};
use crate::encoded::{EncodedBatch, Route};

use super::backoff::Backoff;
use super::broker;
use super::connection::{Connector, Endpoint, Fault};
use super::dispatch::{Dispatch, PartitionKey, Signals, Traffic};
use super::error::ProducerError;
use super::identity;
use super::metadata::Cluster;
use super::partition::Identity;
use super::registry::Registry;
use super::response::TopicMetadata;
use super::tail::{IsOurs, Leader, Leaders};
use super::{Acknowledged, NewId, ProducerMetrics, TailRecord, tail, topics};

/// In a cluster of at most so many brokers each is connected to at the start, whatever it leads: over a long line with TLS and
/// authentication a connection takes seconds, and topics' partitions are on all of them anyway.
const EARLY_MAX: usize = 8;

/// The pauses between questions about leaders.
const REFRESH_MIN: Duration = Duration::from_millis(50);
const REFRESH_MAX: Duration = Duration::from_secs(1);

/// The native producer.
pub(super) struct Native {
    shared: Arc<Shared>,
    settings: TopicSettings,
    batch_max: usize,
    compression: Compression,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks have in common.
pub(super) struct Shared {
    dispatch: Mutex<Dispatch>,
    cluster: tokio::sync::Mutex<Cluster>,
    /// The cluster's own name for itself, where it says it.
    pub(super) cluster_id: Option<Box<str>>,
    /// A broker has turned out to belong to another one, and the log says so.
    pub(super) is_elsewhere: AtomicBool,
    pub(super) connector: Arc<Connector>,
    endpoints: Mutex<BTreeMap<i32, Endpoint>>,
    registry: Mutex<Registry>,
    brokers: Mutex<HashMap<i32, BrokerTask>>,
    producer_ids: Mutex<Vec<i64>>,
    /// Who wants to hear of a new producer id before it is used.
    new_ids: Mutex<Option<mpsc::UnboundedSender<NewId>>>,
    acknowledged: Notify,
    traffic: Notify,
    driver: Notify,
    timer: Notify,
    /// A producer id may be wanted.
    pub(super) unidentified: Notify,
}

struct BrokerTask {
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Native {
    pub(super) async fn connect(settings: &KafkaSettings) -> Result<Self, ProducerError> {
        let connector = Arc::new(Connector::new(settings)?);
        let mut cluster = Cluster::new(Arc::clone(&connector), &settings.brokers)?;
        let identity = identity::start(&mut cluster, settings).await?;
        let shared = Arc::new(Shared {
            endpoints: Mutex::new(cluster.brokers().clone()),
            dispatch: Mutex::default(),
            cluster_id: cluster.cluster_id().map(Into::into),
            is_elsewhere: AtomicBool::default(),
            cluster: tokio::sync::Mutex::new(cluster),
            connector,
            registry: Mutex::default(),
            brokers: Mutex::default(),
            producer_ids: Mutex::new(vec![identity.id]),
            new_ids: Mutex::default(),
            acknowledged: Notify::new(),
            traffic: Notify::new(),
            driver: Notify::new(),
            timer: Notify::new(),
            unidentified: Notify::new(),
        });
        shared.with(|dispatch| dispatch.identify(identity, clock::now()));
        let brokers: Vec<i32> = lock(&shared.endpoints).keys().copied().collect();
        if brokers.len() <= EARLY_MAX {
            serve_brokers(&shared, brokers);
        }
        let tasks = vec![
            tokio::spawn(drive(Arc::clone(&shared))),
            tokio::spawn(keep_time(Arc::clone(&shared))),
            tokio::spawn(identity::keep(Arc::clone(&shared))),
        ];
        Ok(Self {
            shared,
            settings: settings.topics,
            batch_max: settings.batch_max,
            compression: settings.compression,
            tasks,
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
        let shared = &self.shared;
        let compression = self.compression;
        let found = topics::look_up(
            &shared.cluster,
            &shared.registry,
            names,
            settings,
            compression,
        )
        .await?;
        if !found.is_empty() {
            *lock(&self.shared.endpoints) = self.shared.cluster.lock().await.brokers().clone();
            for topic in &found {
                self.shared.register(&topic.metadata.name);
            }
            let leaders = self.shared.named(found.iter().map(|topic| &topic.metadata));
            self.shared
                .with(|dispatch| dispatch.metadata(&leaders, clock::now()));
            start_brokers(&self.shared);
        }
        Ok(())
    }

    pub(super) fn was_created(&self, topic_id: u32) -> bool {
        lock(&self.shared.registry).was_created(topic_id)
    }

    pub(super) fn batch_max(&self, topic_id: u32) -> usize {
        lock(&self.shared.registry).batch_max(topic_id, self.batch_max)
    }

    pub(super) fn send(&self, ordinal: u64, parts: Vec<EncodedBatch>) {
        self.shared
            .with(|dispatch| dispatch.enqueue(ordinal, parts, clock::now()));
    }

    pub(super) async fn acknowledged(&self) -> Result<Acknowledged, ProducerError> {
        loop {
            let ready = self
                .shared
                .with(|dispatch| match dispatch.poll_acknowledged() {
                    Some(acknowledged) => Some(Ok(acknowledged)),
                    None => dispatch.failure().cloned().map(Err),
                });
            match ready {
                Some(result) => return result,
                None => self.shared.acknowledged.notified().await,
            }
        }
    }

    pub(super) async fn tails(
        &self,
        from: &[(u32, i32, i64)],
        is_ours: IsOurs<'_>,
        visit: &mut (dyn FnMut(TailRecord<'_>) + Send),
    ) -> Result<Vec<(u32, i32, i64)>, ProducerError> {
        let name = |topic_id| self.shared.name(topic_id);
        let keys = from.iter().map(|(topic_id, partition, _)| PartitionKey {
            topic_id: *topic_id,
            partition: *partition,
        });
        let leaders = self.shared.leaders(keys);
        tail::read(&self.shared.cluster, &name, from, leaders, is_ours, visit).await
    }

    pub(super) async fn ends(
        &self,
        keys: &[PartitionKey],
    ) -> Result<BTreeMap<PartitionKey, i64>, ProducerError> {
        let name = |topic_id| self.shared.name(topic_id);
        let leaders = self.shared.leaders(keys.iter().copied());
        tail::ends(&self.shared.cluster, &name, keys, leaders).await
    }

    pub(super) fn in_flight_requests(&self) -> usize {
        self.shared.with(|dispatch| dispatch.in_flight_requests())
    }

    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.shared.cluster_id.as_deref()
    }

    pub(super) fn new_ids(&self) -> mpsc::UnboundedReceiver<NewId> {
        let (tell, hear) = mpsc::unbounded_channel();
        *lock(&self.shared.new_ids) = Some(tell);
        hear
    }

    pub(super) fn waiting(&self) -> usize {
        self.shared.with(|dispatch| dispatch.waiting())
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.shared.with(|dispatch| dispatch.waiting_bytes())
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.shared.with(|dispatch| dispatch.traffic())
    }

    pub(super) async fn traffic_changed(&self) {
        self.shared.traffic.notified().await;
    }

    pub(super) fn is_pressed(&self) -> bool {
        self.shared.with(|dispatch| dispatch.is_pressed())
    }

    pub(super) fn bytes_per_broker(&self) -> usize {
        self.shared.with(|dispatch| dispatch.bytes_per_broker())
    }

    pub(super) fn producer_ids(&self) -> Vec<i64> {
        lock(&self.shared.producer_ids).clone()
    }

    pub(super) fn metrics(&self) -> ProducerMetrics {
        self.shared.with(|dispatch| *dispatch.metrics())
    }

    pub(super) async fn close(&self, patience: Duration) -> Result<(), ProducerError> {
        let deadline = clock::now() + patience;
        loop {
            let (left, failure) = self
                .shared
                .with(|dispatch| (dispatch.unacknowledged(), dispatch.failure().cloned()));
            if let Some(failure) = failure {
                return Err(failure);
            }
            if left == 0 {
                return Ok(());
            }
            let now = clock::now();
            if now >= deadline {
                return Err(ProducerError::Unacknowledged { batches: left });
            }
            // Acknowledgements are not consumed here: looking again now and then is all that is left to do.
            sleep(Duration::from_millis(5).min(deadline - now)).await;
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for (_, broker) in lock(&self.shared.brokers).drain() {
            broker.task.abort();
        }
    }
}

impl Shared {
    /// Changes the dispatch and passes on what follows from it.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Dispatch) -> T) -> T {
        let (result, signals) = {
            let mut dispatch = lock(&self.dispatch);
            let result = change(&mut dispatch);
            (result, dispatch.take_signals())
        };
        self.pass_on(signals);
        result
    }

    fn pass_on(&self, signals: Signals) {
        if signals.acknowledged {
            self.acknowledged.notify_one();
        }
        if signals.traffic {
            self.traffic.notify_one();
        }
        if signals.driver {
            self.driver.notify_one();
            self.timer.notify_one();
            self.unidentified.notify_one();
        }
        if !signals.brokers.is_empty() {
            let brokers = lock(&self.brokers);
            for id in signals.brokers {
                match brokers.get(&id) {
                    Some(broker) => broker.wake.notify_one(),
                    // No task serves it yet: the driver starts one.
                    None => self.driver.notify_one(),
                }
            }
        }
    }

    /// Where a broker listens, as metadata said last.
    pub(super) fn endpoint(&self, broker: i32) -> Option<Endpoint> {
        lock(&self.endpoints).get(&broker).cloned()
    }

    /// The name of a topic.
    pub(super) fn name(&self, topic_id: u32) -> Arc<str> {
        lock(&self.registry).name(topic_id)
    }

    /// The number of a topic.
    pub(super) fn topic_id(&self, name: &str) -> Option<u32> {
        lock(&self.registry).id(name)
    }

    fn register(&self, name: &str) {
        let route = lock(&self.registry).route(name);
        if let Some(route) = route {
            self.with(|dispatch| dispatch.register(route.topic_id, route.topic, route.partitions));
        }
    }

    /// The leaders of these partitions as metadata said last; none where one of them is not known.
    fn leaders(&self, keys: impl Iterator<Item = PartitionKey>) -> Leaders {
        let known = |dispatch: &mut Dispatch| {
            let leader = |key| {
                let (id, epoch) = dispatch.leader(&key)?;
                Some((key, Leader { id, epoch }))
            };
            keys.map(leader).collect::<Option<Leaders>>()
        };
        self.with(known).unwrap_or_default()
    }

    /// The leaders that metadata name, and their terms.
    fn named<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t TopicMetadata>,
    ) -> Vec<(PartitionKey, Option<i32>, i32)> {
        let mut leaders = Vec::new();
        for topic in topics {
            let Some(topic_id) = self.topic_id(&topic.name) else {
                continue;
            };
            for partition in &topic.partitions {
                let key = PartitionKey {
                    topic_id,
                    partition: partition.index,
                };
                let leader = Some(partition.leader).filter(|leader| *leader >= 0);
                leaders.push((key, leader, partition.leader_epoch));
            }
        }
        leaders
    }

    async fn refresh(&self) -> Result<(), Fault> {
        let names = lock(&self.registry).names();
        let metadata = {
            let mut cluster = self.cluster.lock().await;
            let doubts = self.with(Dispatch::take_doubts);
            if doubts.of_answers {
                cluster.ask_another();
            }
            cluster.avoid(&doubts.brokers);
            let metadata = cluster.metadata(&names).await?;
            *lock(&self.endpoints) = cluster.brokers().clone();
            metadata
        };
        let leaders = self.named(&metadata.topics);
        let refused = metadata.topics.iter().filter(|topic| topic.code != 0);
        let refused: Vec<_> = refused
            .filter_map(|topic| Some((self.topic_id(&topic.name)?, topic.code)))
            .collect();
        self.with(|dispatch| dispatch.refreshed(&leaders, &refused, clock::now()));
        Ok(())
    }

    /// What is known of the cluster, to be asked over connections of its own.
    pub(super) async fn another_cluster(&self) -> Cluster {
        self.cluster.lock().await.another()
    }

    /// Takes a producer id in place of one that is forgotten.
    pub(super) async fn identify(&self, identity: Identity) {
        warn!(
            producer_id = identity.id,
            "a broker has forgotten our producer id; going on with a new one"
        );
        lock(&self.producer_ids).push(identity.id);
        let listener = lock(&self.new_ids).clone();
        if let Some(listener) = listener {
            let (used, may_use) = oneshot::channel();
            let told = listener.send(NewId {
                id: identity.id,
                used,
            });
            // Without anybody who notes it, nothing may be written under it.
            if told.is_err() || may_use.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        self.with(|dispatch| dispatch.identify(identity, clock::now()));
    }
}

/// Keeps brokers served and leaders known.
async fn drive(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(REFRESH_MIN, REFRESH_MAX);
    let mut troubled = false;
    loop {
        start_brokers(&shared);
        let (wanted, failed) =
            shared.with(|dispatch| (dispatch.wants_metadata(), dispatch.failure().is_some()));
        if failed {
            return;
        }
        if !wanted {
            backoff.reset();
            shared.driver.notified().await;
            continue;
        }
        match shared.refresh().await {
            Ok(()) if troubled => {
                troubled = false;
                info!("a broker answers again");
            }
            Ok(()) => {}
            Err(Fault::Passing(reason)) => {
                if !troubled {
                    warn!(%reason, "no broker answers, retrying until one does");
                }
                troubled = true;
            }
            Err(Fault::Lasting(error)) => shared.with(|dispatch| dispatch.fail(error)),
        }
        // What is still wanted is asked for again after a growing pause: elections take their time.
        start_brokers(&shared);
        sleep(backoff.pause()).await;
    }
}

/// A task for every broker that leads something.
fn start_brokers(shared: &Arc<Shared>) {
    let leading = shared.with(|dispatch| dispatch.brokers().collect());
    serve_brokers(shared, leading);
}

fn serve_brokers(shared: &Arc<Shared>, ids: Vec<i32>) {
    let mut brokers = lock(&shared.brokers);
    for id in ids {
        brokers.entry(id).or_insert_with(|| {
            let wake = Arc::new(Notify::new());
            wake.notify_one();
            let task = tokio::spawn(broker::serve(Arc::clone(shared), id, Arc::clone(&wake)));
            BrokerTask { wake, task }
        });
    }
}

/// Ends pauses.
async fn keep_time(shared: Arc<Shared>) {
    loop {
        let now = clock::now();
        let wake = shared.with(|dispatch| dispatch.elapsed(now));
        let changed = shared.timer.notified();
        match wake {
            Some(at) => {
                let _ = timeout(at.saturating_duration_since(now), changed).await;
            }
            None => changed.await,
        }
    }
}

#[cfg(test)]
mod tests;
