//! Which batch goes to which broker when, and what that means for the ordinals: the producer's state machine. Pure logic: sockets,
//! tasks and clocks are in `native`.
//!
//! ```text
//! enqueue ──► partitions ──► next_request(broker) ──► (the wire) ──► response | lost
//!                 ▲                                                       │
//!  metadata, identity, elapsed                                            ▼
//!                                                              poll_acknowledged, failure
//! ```
//! A request is composed when its broker can take one, of one batch of every partition that has one for it: batching by what waits,
//! without a timer.

mod ceiling;
mod leaders;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::{info, warn};

use crate::encoded::EncodedBatch;

use super::error::ProducerError;
use super::ledger::Ledger;
use super::partition::{Identity, Outcome, Partition, Shrunk, Taken, WINDOW_MAX, Waiting};
use super::{Acknowledged, ProducerMetrics, verdict};
use ceiling::Ceiling;
pub use traffic::Traffic;

/// Produce requests on the wire to one broker: as many as idempotence allows.
pub(super) const IN_FLIGHT_MAX: usize = 5;

/// A request is closed at this size, in bytes, unless its first batch alone is larger, and sooner at a broker that hangs up on it
/// ([`Ceiling`]). Far below a broker's `socket.request.max.bytes` (100 MiB by default).
pub(super) const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What a partition that cannot be written means for the rest.
const OTHERS_GO_ON: &str = "other partitions are written meanwhile, for as long as memory_max has room, and the checkpoint waits";

const _: () = assert!(
    IN_FLIGHT_MAX <= WINDOW_MAX,
    "leaders remember that many batches of a partition"
);

/// A topic's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PartitionKey {
    /// [`Route::topic_id`](crate::encoded::Route::topic_id).
    pub(super) topic_id: u32,
    /// The partition, from 0.
    pub(super) partition: i32,
}

/// One produce request: a batch each of some partitions, in the order of their topics.
#[derive(Debug)]
pub(super) struct Request {
    /// Ours; the wire's correlation id is a matter of the connection.
    pub(super) id: u64,
    /// At most one batch per partition.
    pub(super) parts: Vec<(PartitionKey, Bytes)>,
}

/// A broker's answer to one batch of a request.
#[derive(Debug, Clone)]
pub(super) struct PartResult {
    /// Whose batch.
    pub(super) key: PartitionKey,
    /// Error code, 0 for none.
    pub(super) code: i16,
    /// Offset of its first record.
    pub(super) base_offset: i64,
    /// The broker's own words.
    pub(super) message: Option<String>,
}

/// Something that happened and that tasks wait for.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Brokers that have something to be sent now.
    pub(super) brokers: Vec<i32>,
    /// An ordinal is complete, or nothing will be any more.
    pub(super) acknowledged: bool,
    /// Metadata, a producer id or a timer is wanted.
    pub(super) driver: bool,
    /// While partitions are held up: something has been answered, or they have just come to be.
    pub(super) traffic: bool,
}

/// A request without an answer.
#[derive(Debug)]
struct OnWire {
    id: u64,
    partitions: Vec<usize>,
    /// Of its batches.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Broker {
    ready: VecDeque<usize>,
    in_flight: Vec<OnWire>,
    ceiling: Ceiling,
    /// It could not be connected to, or has broken the connection, or is silent while answers are due, and has not answered since.
    is_unreachable: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    topics: HashMap<u32, Arc<str>>,
    keys: Vec<PartitionKey>,
    partitions: Vec<Partition>,
    index: HashMap<PartitionKey, usize>,
    brokers: HashMap<i32, Broker>,
    paused: Vec<usize>,
    /// Partitions that have something to be written and cannot be, whatever their broker does.
    held_up: BTreeSet<usize>,
    /// Topics with partitions that wait for a leader: how many answers in a row named none.
    leaderless: BTreeMap<u32, u32>,
    /// Brokers that may lead no longer what they refuse, and nobody has been asked since.
    doubted: BTreeSet<i32>,
    ledger: Ledger,
    next_request: u64,
    waiting: usize,
    waiting_bytes: usize,
    written: u64,
    unrewarded: u64,
    bytes_per_broker: usize,
    identity: Option<Identity>,
    wants_identity: bool,
    wants_metadata: bool,
    failure: Option<ProducerError>,
    signals: Signals,
    metrics: ProducerMetrics,
}

impl Dispatch {
    /// Makes a topic's partitions known; leaders come by [`metadata`](Self::metadata).
    pub(super) fn register(&mut self, topic_id: u32, topic: Arc<str>, partitions: u32) {
        self.topics.insert(topic_id, topic);
        for partition in (0..partitions).filter_map(|number| i32::try_from(number).ok()) {
            let key = PartitionKey {
                topic_id,
                partition,
            };
            if !self.index.contains_key(&key) {
                self.index.insert(key, self.partitions.len());
                self.keys.push(key);
                self.partitions.push(Partition::new());
            }
        }
    }

    /// Takes the batches of an ordinal. Ordinals are acknowledged in the order of these calls.
    pub(super) fn enqueue(&mut self, ordinal: u64, parts: Vec<EncodedBatch>, now: Instant) {
        let serial = self.ledger.enter(ordinal, parts.len());
        self.unrewarded += 1;
        let (mut bytes, mut brokers) = (0, Vec::new());
        for part in parts {
            let key = PartitionKey {
                topic_id: part.topic_id,
                partition: part.partition,
            };
            let Some(&at) = self.index.get(&key) else {
                self.fail(ProducerError::partition(
                    self.topics.get(&part.topic_id).map_or("?", |name| name),
                    part.partition,
                    "records for a partition that was never asked for: this is a defect of walbrook, please report it",
                ));
                return;
            };
            self.waiting += 1;
            self.waiting_bytes += part.bytes.len();
            bytes += part.bytes.len();
            // Partitions without a leader count as one broker's.
            let leader = self.partitions[at].leader();
            if !brokers.contains(&leader) {
                brokers.push(leader);
            }
            self.partitions[at].push(Waiting {
                serial,
                records: part.records,
                bytes: part.bytes,
            });
            self.touch(at, now);
        }
        if let Some(each) = bytes.checked_div(brokers.len()) {
            self.bytes_per_broker = each;
        }
        self.signals.acknowledged |= self.ledger.is_ready();
    }

    /// Takes the producer id that a broker gave us. Partitions without one use it from now on.
    pub(super) fn identify(&mut self, identity: Identity, now: Instant) {
        self.identity = Some(identity);
        self.wants_identity = false;
        for at in 0..self.partitions.len() {
            self.touch(at, now);
        }
    }

    fn topic(&self, topic_id: u32) -> Arc<str> {
        self.topics.get(&topic_id).cloned().unwrap_or_default()
    }

    /// Who leads a partition, and its epoch; `None` where that has to be asked for.
    pub(super) fn leader(&self, key: &PartitionKey) -> Option<(i32, i32)> {
        let partition = &self.partitions[*self.index.get(key)?];
        Some((partition.leader()?, partition.leader_epoch()))
    }

    /// The next produce request for `broker`, if it may take one and there is something to send.
    pub(super) fn next_request(&mut self, broker: i32, now: Instant) -> Option<Request> {
        let state = self.brokers.get_mut(&broker)?;
        if self.failure.is_some()
            || state.in_flight.len() >= IN_FLIGHT_MAX
            || state.ready.is_empty()
        {
            return None;
        }
        let id = self.next_request;
        let mut parts = Vec::new();
        let mut taken = Vec::new();
        let mut passed_over = Vec::new();
        let mut bytes = 0;
        while let Some(at) = state.ready.pop_front() {
            let partition = &mut self.partitions[at];
            if partition.queued != Some(broker) {
                continue;
            }
            let Some(size) = partition
                .sendable(now)
                .filter(|_| partition.leader() == Some(broker))
            else {
                partition.queued = None;
                passed_over.push(at);
                continue;
            };
            if !taken.is_empty() && bytes + size > state.ceiling.bytes() {
                state.ready.push_front(at);
                break;
            }
            partition.queued = None;
            let Some((batch, attempt)) = partition.take(id, broker) else {
                continue;
            };
            bytes += size;
            match attempt {
                Taken::First { serial } => {
                    self.ledger.sent(serial, now);
                    self.waiting -= 1;
                    self.waiting_bytes -= batch.len();
                }
                Taken::Again => self.metrics.retries += 1,
            }
            parts.push((self.keys[at], batch));
            taken.push(at);
        }
        if !taken.is_empty() {
            self.next_request += 1;
            self.metrics.requests += 1;
            state.in_flight.push(OnWire {
                id,
                partitions: taken.clone(),
                bytes,
            });
        }
        for at in taken.into_iter().chain(passed_over) {
            self.touch(at, now);
        }
        parts.sort_unstable_by_key(|(key, _)| *key);
        (!parts.is_empty()).then_some(Request { id, parts })
    }

    /// The broker's answer to a request. Batches that it does not mention count as unanswered.
    pub(super) fn response(
        &mut self,
        broker: i32,
        request: u64,
        mut results: Vec<PartResult>,
        now: Instant,
    ) {
        results.sort_unstable_by_key(|result| result.key);
        for at in self.end_request(broker, request) {
            let key = self.keys[at];
            match results.binary_search_by_key(&key, |result| result.key) {
                Ok(found) => self.answered(at, broker, request, &results[found], now),
                Err(_) => {
                    self.partitions[at].lost(request);
                    self.wants_metadata = true;
                    self.signals.driver = true;
                }
            }
            self.touch(at, now);
        }
        if let Some(state) = self.brokers.get_mut(&broker) {
            state.is_unreachable = false;
            state.ceiling.answered();
        }
        self.note_traffic();
        self.wake(broker);
    }

    /// The connection to a broker is gone and with it the answers to everything that was on the wire.
    pub(super) fn lost(&mut self, broker: i32, now: Instant) {
        let Some(state) = self.brokers.get_mut(&broker) else {
            return;
        };
        let unanswered = std::mem::take(&mut state.in_flight);
        if let Some(oldest) = unanswered.first()
            && state.ceiling.ended(oldest.bytes)
        {
            warn!(
                broker,
                bytes = oldest.bytes,
                "the connection ends again and again without an answer to a large request, requests are smaller meanwhile: if the \
                 broker's log names InvalidReceiveException, raise its socket.request.max.bytes"
            );
        }
        // A broker also hangs up when nothing was sent for long: no reason to ask where the partitions are.
        self.wants_metadata |= !unanswered.is_empty();
        self.signals.driver |= !unanswered.is_empty();
        for OnWire { id, partitions, .. } in unanswered {
            for at in partitions {
                self.partitions[at].lost(id);
                self.touch(at, now);
            }
        }
        self.wake(broker);
    }

    /// A broker cannot be connected: perhaps its partitions have moved.
    pub(super) fn unreachable(&mut self, broker: i32) {
        let has_work = self.has_work(broker);
        self.wants_metadata |= has_work;
        self.signals.driver |= has_work;
        if let Some(state) = self.brokers.get_mut(&broker) {
            state.is_unreachable = true;
        }
        self.note_traffic();
    }

    /// Looks at what waited for time to pass; answers when to come again.
    pub(super) fn elapsed(&mut self, now: Instant) -> Option<Instant> {
        // Who asks knows already that there are pauses.
        let driver = self.signals.driver;
        for at in std::mem::take(&mut self.paused) {
            self.partitions[at].paused = false;
            self.touch(at, now);
        }
        self.signals.driver = driver;
        self.paused
            .iter()
            .filter_map(|at| self.partitions[*at].not_before())
            .min()
    }

    /// The next ordinal that is complete, in the order in which they were given.
    pub(super) fn poll_acknowledged(&mut self) -> Option<Acknowledged> {
        self.ledger.poll()
    }

    /// Why nothing will be sent any more.
    pub(super) fn failure(&self) -> Option<&ProducerError> {
        self.failure.as_ref()
    }

    /// Stops sending, for good; the first reason stays.
    pub(super) fn fail(&mut self, error: ProducerError) {
        self.failure.get_or_insert(error);
        self.signals.acknowledged = true;
        self.signals.driver = true;
    }

    /// Whether metadata would help.
    pub(super) fn wants_metadata(&self) -> bool {
        self.failure.is_none() && self.wants_metadata
    }

    /// Whether a (new) producer id is needed.
    pub(super) fn wants_identity(&self) -> bool {
        self.failure.is_none() && self.wants_identity
    }

    /// Whether a connection to `broker` would be of use now.
    pub(super) fn has_work(&self, broker: i32) -> bool {
        let queued = |at: &usize| self.partitions[*at].queued == Some(broker);
        self.failure.is_none()
            && self
                .brokers
                .get(&broker)
                .is_some_and(|state| state.ready.iter().any(queued))
    }

    /// Brokers that lead, or led, a partition of ours.
    pub(super) fn brokers(&self) -> impl Iterator<Item = i32> + '_ {
        self.brokers.keys().copied()
    }

    /// Produce requests on the wire.
    pub(super) fn in_flight_requests(&self) -> usize {
        self.brokers
            .values()
            .map(|state| state.in_flight.len())
            .sum()
    }

    /// Record batches that have not been sent yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Their bytes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether batches wait although everything is on the wire to some broker that may be. A batch that waits for its broker's task
    /// to be run, or for a connection, a leader or a broker that is cut off, does not make it so.
    pub(super) fn is_pressed(&self) -> bool {
        let others_answer = self.others_answer();
        let is_full = |broker: &Broker| {
            broker.in_flight.len() >= IN_FLIGHT_MAX && !broker.is_cut_off(others_answer)
        };
        self.waiting > 0 && self.brokers.values().any(is_full)
    }

    /// Bytes that the last ordinal with any has for each broker that it goes to.
    pub(super) fn bytes_per_broker(&self) -> usize {
        self.bytes_per_broker
    }

    /// Record batches that are not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.partitions.iter().map(Partition::unacknowledged).sum()
    }

    /// What happened since the last call that tasks wait for.
    pub(super) fn take_signals(&mut self) -> Signals {
        std::mem::take(&mut self.signals)
    }

    /// Counters.
    pub(super) fn metrics(&mut self) -> &mut ProducerMetrics {
        &mut self.metrics
    }

    fn end_request(&mut self, broker: i32, request: u64) -> Vec<usize> {
        let Some(state) = self.brokers.get_mut(&broker) else {
            return Vec::new();
        };
        let found = state.in_flight.iter().position(|of| of.id == request);
        found.map_or_else(Vec::new, |at| state.in_flight.remove(at).partitions)
    }

    fn answered(
        &mut self,
        at: usize,
        broker: i32,
        request: u64,
        result: &PartResult,
        now: Instant,
    ) {
        let PartitionKey {
            topic_id,
            partition,
        } = self.keys[at];
        let topic = self.topic(topic_id);
        match self.partitions[at].answered(request, result.code, result.base_offset, now) {
            Outcome::Written { serial, next_offset } => {
                self.written += 1;
                self.unrewarded = 0;
                self.ledger.written(serial, self.keys[at], next_offset);
                self.signals.acknowledged |= self.ledger.is_ready();
            }
            Outcome::Retry { refresh } => {
                self.unrewarded = self.unrewarded.saturating_sub(1);
                self.wants_metadata |= refresh;
                self.signals.driver |= refresh;
                if refresh && self.partitions[at].is_doubtful() {
                    self.doubted.insert(broker);
                }
            }
            Outcome::Halt { bytes } => {
                let reason = verdict::remedy(&topic, result.code, bytes, result.message.as_deref());
                self.fail(ProducerError::partition(&topic, partition, reason));
            }
            Outcome::KeepsForgetting => self.fail(ProducerError::partition(
                &topic,
                partition,
                format!(
                    "the leader does not keep track of our producer ids ({}), also not of new ones: look at the broker's log and \
                     disk, then start again",
                    verdict::name(result.code)
                ),
            )),
            Outcome::Unknown => {}
        }
        if let Some(Shrunk {
            acknowledged,
            written,
        }) = self.partitions[at].shrunk()
        {
            warn!(
                %topic, partition, acknowledged, written,
                "the partition has lost records that were acknowledged, by an election of a leader that lacked them or as the topic was \
                 made anew; changes that were written there are missing: give a position before them to walbrook position set to have \
                 them written again"
            );
        }
        if let Some(code) = self.partitions[at].warning() {
            warn!(%topic, partition, error = verdict::name(code), "records are not taken, retrying until they are; {OTHERS_GO_ON}");
        } else if self.partitions[at].recovered() {
            info!(%topic, partition, "records are taken again");
        }
    }

    fn fail_unordered(&mut self, at: usize) {
        let PartitionKey {
            topic_id,
            partition,
        } = self.keys[at];
        let topic = self.topic(topic_id);
        self.fail(ProducerError::partition(
            &topic,
            partition,
            "the leader has lost track of our producer between two batches of which it has written the later one; it may have written \
             the earlier one as well (after a restart it remembers the last alone), but if not, going on would put changes out of order, \
             or lose them: give the checkpoint's own position (walbrook position show) to walbrook position set, \
             and changes since then are written once more",
        ));
    }

    /// Puts a partition where it belongs after anything has happened to it.
    fn touch(&mut self, at: usize, now: Instant) {
        self.note_held_up(at);
        if self.partitions[at].is_unordered() {
            self.fail_unordered(at);
            return;
        }
        let partition = &mut self.partitions[at];
        if partition.wants_identity() {
            if let Some(identity) = self.identity {
                partition.identify(identity);
            }
            if partition.wants_identity() {
                self.wants_identity = true;
                self.signals.driver = true;
            }
        }
        if partition.wants_leader() {
            self.wants_metadata = true;
            self.signals.driver = true;
            return;
        }
        let Some(leader) = partition.leader() else {
            return;
        };
        let broker = self.brokers.entry(leader).or_default();
        if partition.queued == Some(leader) {
            return;
        }
        if partition.sendable(now).is_some() {
            partition.queued = Some(leader);
            broker.ready.push_back(at);
            self.wake(leader);
        } else if !partition.paused
            && !partition.is_idle()
            && partition.not_before().is_some_and(|until| until > now)
        {
            partition.paused = true;
            self.paused.push(at);
            self.signals.driver = true;
        }
    }

    fn wake(&mut self, broker: i32) {
        if !self.signals.brokers.contains(&broker) {
            self.signals.brokers.push(broker);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
