//! The dispatch against a cluster in memory that does what Kafka may do: lose connections before and after it has written, be silent, process
//! requests of dead connections late, move leaders, cut off what was never confirmed, answer errors with and without having written,
//! hand out stale metadata and such without topics, forget producers or all but their last batches. Every run follows from a seed; a
//! failure prints it.
//!
//! What leaders check of an idempotent producer follows `ProducerAppendInfo` and `ProducerStateManager` of Kafka 3.9.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::dispatch::tests::{LOST, told};
use super::dispatch::{Dispatch, IN_FLIGHT_MAX, PartResult, PartitionKey, Request};
use super::partition::Identity;
use crate::clock;
use crate::encoded::EncodedBatch;

const BROKERS: [i32; 3] = [1, 2, 3];
const TOPICS: u32 = 2;
const PARTITIONS: u32 = 2;

/// UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC: i16 = 3;

/// Bytes of a batch header; what the model writes behind it is the batch's number.
const HEADER: usize = 61;

/// The number of a batch.
fn number(batch: &[u8]) -> u64 {
    u64::from_be_bytes(batch[HEADER..HEADER + 8].try_into().unwrap())
}

/// A written batch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    number: u64,
    records: u32,
    offset: i64,
    producer: i64,
    sequence: i32,
    /// Some answer said that it is written (or a later one): it may not be cut off any more.
    confirmed: bool,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    leader: i32,
    epoch: i32,
    /// Producers that the leader has forgotten, with the length of the log at that moment.
    forgotten: BTreeMap<i64, usize>,
    /// The length of the log when the leader was last restarted from a snapshot, which has each producer's last batch alone.
    snapshot: usize,
    /// Whether it refuses producers that it has forgotten (Kafka before 2.5), or takes them as new.
    says_unknown: bool,
}

impl Log {
    fn end(&self) -> i64 {
        self.entries
            .last()
            .map_or(0, |entry| entry.offset + i64::from(entry.records))
    }

    /// What the leader remembers of a producer, latest first.
    fn remembered(&self, producer: i64) -> Vec<&Entry> {
        let from = self
            .forgotten
            .get(&producer)
            .copied()
            .unwrap_or(0)
            .min(self.entries.len());
        let of = |(_, entry): &(usize, &Entry)| entry.producer == producer;
        self.entries
            .iter()
            .enumerate()
            .skip(from)
            .rev()
            .filter(of)
            .enumerate()
            .filter(|(back, (at, _))| *back == 0 || *at >= self.snapshot)
            .map(|(_, (_, entry))| entry)
            .take(5)
            .collect()
    }

    /// Error code and base offset.
    fn append(&mut self, batch: &[u8]) -> (i16, i64) {
        let producer = i64::from_be_bytes(batch[43..51].try_into().unwrap());
        let sequence = i32::from_be_bytes(batch[53..57].try_into().unwrap());
        let records = u32::from_be_bytes(batch[HEADER + 8..HEADER + 12].try_into().unwrap());
        let number = number(batch);
        let remembered = self.remembered(producer);
        if let Some(same) = remembered.iter().find(|entry| entry.sequence == sequence) {
            assert_eq!(same.number, number, "two batches under one sequence");
            return (0, same.offset);
        }
        match remembered.first() {
            // An old sequence that it does not remember is none to it, either: it never says 46.
            Some(last) if sequence != last.sequence + last.records as i32 => return (45, -1),
            Some(_) => {}
            None if self.forgotten.contains_key(&producer) && self.says_unknown => return (59, -1),
            // A leader that does not know the producer takes any sequence for its first.
            None => {}
        }
        let offset = self.end();
        self.entries.push(Entry {
            number,
            records,
            offset,
            producer,
            sequence,
            confirmed: false,
        });
        (0, offset)
    }

    fn confirm(&mut self, offset: i64) {
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| entry.offset <= offset)
        {
            entry.confirmed = true;
        }
    }
}

#[derive(Debug, Default)]
struct Wire {
    requests: VecDeque<Request>,
    responses: VecDeque<(u64, Vec<PartResult>)>,
}

struct World {
    random: StdRng,
    now: Instant,
    dispatch: Dispatch,
    logs: BTreeMap<PartitionKey, Log>,
    wires: BTreeMap<i32, Wire>,
    /// Brokers that were silent, and have not answered since.
    silent: BTreeSet<i32>,
    /// Requests of dead connections that brokers have yet to process.
    late: Vec<(i32, Request)>,
    stale_metadata: Vec<(PartitionKey, Option<i32>, i32)>,
    sent: BTreeMap<PartitionKey, Vec<u64>>,
    ordinals: u64,
    acknowledged: u64,
    batches: u64,
    /// Batches that have been on the wire.
    seen: BTreeSet<u64>,
    producer_ids: i64,
    faults: bool,
    forgets: bool,
}

fn keys() -> impl Iterator<Item = PartitionKey> {
    (0..TOPICS).flat_map(|topic_id| {
        (0..PARTITIONS as i32).map(move |partition| PartitionKey {
            topic_id,
            partition,
        })
    })
}

impl World {
    fn new(seed: u64, forgets: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut dispatch = Dispatch::default();
        for topic_id in 0..TOPICS {
            dispatch.register(topic_id, format!("topic-{topic_id}").into(), PARTITIONS);
        }
        let logs = keys()
            .map(|key| {
                let log = Log {
                    leader: BROKERS[random.random_range(0..BROKERS.len())],
                    says_unknown: true,
                    ..Log::default()
                };
                (key, log)
            })
            .collect();
        let mut world = Self {
            random,
            now: clock::now(),
            dispatch,
            logs,
            wires: BROKERS
                .iter()
                .map(|broker| (*broker, Wire::default()))
                .collect(),
            silent: BTreeSet::new(),
            late: Vec::new(),
            stale_metadata: Vec::new(),
            sent: BTreeMap::new(),
            ordinals: 0,
            acknowledged: 0,
            batches: 0,
            seen: BTreeSet::new(),
            producer_ids: 100,
            faults: true,
            forgets,
        };
        world.stale_metadata = world.metadata();
        world
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.faults && self.random.random_range(0..100) < percent
    }

    fn metadata(&self) -> Vec<(PartitionKey, Option<i32>, i32)> {
        self.logs
            .iter()
            .map(|(key, log)| (*key, Some(log.leader), log.epoch))
            .collect()
    }

    fn send(&mut self) {
        let mut parts = Vec::new();
        for key in keys() {
            for _ in 0..self.random.random_range(0..3) {
                let records: u32 = self.random.random_range(1..4);
                let mut bytes = vec![0; HEADER];
                bytes.extend_from_slice(&self.batches.to_be_bytes());
                bytes.extend_from_slice(&records.to_be_bytes());
                self.sent.entry(key).or_default().push(self.batches);
                self.batches += 1;
                parts.push(EncodedBatch {
                    topic_id: key.topic_id,
                    partition: key.partition,
                    records,
                    changes: records,
                    bytes: bytes.into(),
                });
            }
        }
        self.dispatch.enqueue(self.ordinals, parts, self.now);
        self.ordinals += 1;
    }

    /// One batch at a leader: error code and base offset.
    fn process(&mut self, broker: i32, key: PartitionKey, batch: &[u8]) -> (i16, i64) {
        if self.chance(4) {
            return ([19, 7, 3, 56, -1, 5][self.random.random_range(0..6)], -1);
        }
        let after = self
            .chance(4)
            .then(|| [7, 20][self.random.random_range(0..2)]);
        let log = self.logs.get_mut(&key).unwrap();
        if log.leader != broker {
            return (6, -1);
        }
        let (code, offset) = log.append(batch);
        match after {
            Some(after) if code == 0 => (after, -1),
            _ => {
                if code == 0 {
                    log.confirm(offset);
                }
                (code, offset)
            }
        }
    }

    fn process_request(&mut self, broker: i32, request: &Request) -> Vec<PartResult> {
        let mut results = Vec::new();
        for (key, batch) in &request.parts {
            let (code, base_offset) = self.process(broker, *key, batch);
            results.push(PartResult {
                key: *key,
                code,
                base_offset,
                message: None,
            });
        }
        results
    }

    fn broker_step(&mut self, broker: i32) {
        if let Some(request) = self.dispatch.next_request(broker, self.now) {
            let mut partitions: Vec<_> = request.parts.iter().map(|(key, _)| *key).collect();
            partitions.dedup();
            assert_eq!(
                partitions.len(),
                request.parts.len(),
                "two batches of a partition in one request"
            );
            self.seen
                .extend(request.parts.iter().map(|(_, batch)| number(batch)));
            self.wires
                .get_mut(&broker)
                .unwrap()
                .requests
                .push_back(request);
        }
        let wire = self.wires.get_mut(&broker).unwrap();
        assert!(wire.requests.len() + wire.responses.len() <= IN_FLIGHT_MAX);
        self.check_pressure();
        if self.random.random_bool(0.5)
            && let Some(request) = self.wires.get_mut(&broker).unwrap().requests.pop_front()
        {
            let results = self.process_request(broker, &request);
            self.wires
                .get_mut(&broker)
                .unwrap()
                .responses
                .push_back((request.id, results));
        }
        if self.random.random_bool(0.5)
            && let Some((request, results)) =
                self.wires.get_mut(&broker).unwrap().responses.pop_front()
        {
            self.dispatch.response(broker, request, results, self.now);
            self.silent.remove(&broker);
        }
        let mut ends = self.chance(2);
        if self.chance(2) && self.dispatch.brokers().any(|known| known == broker) {
            self.silent.insert(broker);
            ends |= self.dispatch.silent(broker);
        }
        if ends {
            let wire = std::mem::take(self.wires.get_mut(&broker).unwrap());
            for request in wire.requests {
                if self.random.random_bool(0.5) {
                    self.late.push((broker, request));
                }
            }
            self.dispatch.lost(broker, self.now);
        }
        self.check_pressure();
    }

    /// The dispatch is pressed exactly when something was never sent while some wire is full, that of a silent broker only where all are.
    fn check_pressure(&self) {
        let waiting = self.batches - self.seen.len() as u64;
        let others_answer = self.dispatch.brokers().any(|id| !self.silent.contains(&id));
        let is_full = |(id, wire): (&i32, &Wire)| {
            let is_cut_off = others_answer && self.silent.contains(id);
            wire.requests.len() + wire.responses.len() == IN_FLIGHT_MAX && !is_cut_off
        };
        let is_pressed = waiting > 0 && self.wires.iter().any(is_full);
        assert_eq!(self.dispatch.is_pressed(), is_pressed, "{waiting} wait");
    }

    fn cluster_step(&mut self) {
        if self.chance(2) {
            let key = keys()
                .nth(self.random.random_range(0..(TOPICS * PARTITIONS) as usize))
                .unwrap();
            let leader = BROKERS[self.random.random_range(0..BROKERS.len())];
            let cut = self.random.random_bool(0.5);
            let log = self.logs.get_mut(&key).unwrap();
            log.leader = leader;
            log.epoch += 1;
            if cut {
                let confirmed = log
                    .entries
                    .iter()
                    .take_while(|entry| entry.confirmed)
                    .count();
                log.entries.truncate(confirmed);
                log.snapshot = log.snapshot.min(confirmed);
            }
        }
        if self.forgets && self.chance(1) {
            let key = keys()
                .nth(self.random.random_range(0..(TOPICS * PARTITIONS) as usize))
                .unwrap();
            let is_snapshot = self.random.random_bool(0.5);
            let log = self.logs.get_mut(&key).unwrap();
            let length = log.entries.len();
            if is_snapshot {
                log.snapshot = length;
            } else {
                let producers = log.entries.iter().map(|entry| (entry.producer, length));
                log.forgotten.extend(producers);
            }
        }
        if !self.late.is_empty() && (!self.faults || self.random.random_bool(0.2)) {
            let at = self.random.random_range(0..self.late.len());
            let (broker, request) = self.late.remove(at);
            self.process_request(broker, &request);
        }
        if self.dispatch.wants_metadata() && self.random.random_bool(0.3) {
            let mut leaders = if self.chance(20) {
                self.stale_metadata.clone()
            } else {
                self.metadata()
            };
            // A broker that has just started does not know all topics.
            let mut unknown = Vec::new();
            if self.chance(20) {
                unknown.push((self.random.random_range(0..TOPICS), UNKNOWN_TOPIC));
                leaders.retain(|(key, ..)| unknown.iter().all(|(of, _)| *of != key.topic_id));
            }
            self.dispatch.refreshed(&leaders, &unknown, self.now);
            if self.random.random_bool(0.3) {
                self.stale_metadata = self.metadata();
            }
        }
        if self.dispatch.wants_identity() && self.random.random_bool(0.3) {
            self.producer_ids += 1;
            let identity = Identity {
                id: self.producer_ids,
                epoch: 0,
            };
            self.dispatch.identify(identity, self.now);
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(0..20));
        self.dispatch.elapsed(self.now);
        for broker in BROKERS {
            self.broker_step(broker);
        }
        self.cluster_step();
        while let Some(acknowledged) = self.dispatch.poll_acknowledged() {
            assert_eq!(
                acknowledged.ordinal, self.acknowledged,
                "acknowledged in order"
            );
            self.acknowledged += 1;
            for (topic_id, partition, next) in acknowledged.offsets {
                let log = &self.logs[&PartitionKey {
                    topic_id,
                    partition,
                }];
                let ends_there = |entry: &Entry| {
                    entry.offset + i64::from(entry.records) == next && entry.confirmed
                };
                assert!(
                    log.entries.iter().any(ends_there),
                    "no confirmed batch ends at {next}"
                );
            }
        }
    }

    fn run(&mut self, ordinals: u64) {
        while self.ordinals < ordinals {
            if self.ordinals - self.acknowledged < 6 && self.random.random_bool(0.4) {
                self.send();
            }
            self.step();
            if self.dispatch.failure().is_some() {
                return;
            }
        }
        self.faults = false;
        for _ in 0..20_000 {
            if self.acknowledged == self.ordinals && self.late.is_empty() {
                break;
            }
            self.step();
        }
    }

    fn written(&self, key: PartitionKey) -> Vec<u64> {
        self.logs[&key]
            .entries
            .iter()
            .map(|entry| entry.number)
            .collect()
    }
}

/// What fills a wire is sent; what comes then waits, until an answer makes room.
#[test]
fn a_full_wire_presses_until_it_is_answered() {
    let key = PartitionKey {
        topic_id: 0,
        partition: 0,
    };
    let mut world = World::new(1, false);
    let (dispatch, now) = (&mut world.dispatch, world.now);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.metadata(&[(key, Some(1), 0)], now);
    let mut ordinals = 0..;
    let mut give = |dispatch: &mut Dispatch| {
        let part = EncodedBatch {
            topic_id: 0,
            partition: 0,
            records: 1,
            changes: 1,
            bytes: vec![0; HEADER + 12].into(),
        };
        dispatch.enqueue(ordinals.next().unwrap(), vec![part], now);
    };
    let written = PartResult {
        key,
        code: 0,
        base_offset: 0,
        message: None,
    };
    // A leader that does not know us yet gets one batch, and what waits for that does not press.
    give(dispatch);
    give(dispatch);
    let first = dispatch.next_request(1, now).unwrap();
    assert!(dispatch.next_request(1, now).is_none());
    assert_eq!((dispatch.waiting(), dispatch.is_pressed()), (1, false));
    assert_eq!(dispatch.waiting_bytes(), HEADER + 12);
    dispatch.response(1, first.id, vec![written.clone()], now);
    for _ in 1..IN_FLIGHT_MAX {
        give(dispatch);
    }
    let requests: Vec<_> = std::iter::from_fn(|| dispatch.next_request(1, now)).collect();
    assert_eq!(requests.len(), IN_FLIGHT_MAX);
    assert_eq!((dispatch.waiting(), dispatch.is_pressed()), (0, false));
    assert_eq!(dispatch.waiting_bytes(), 0);
    give(dispatch);
    assert_eq!((dispatch.waiting(), dispatch.is_pressed()), (1, true));
    dispatch.response(1, requests[0].id, vec![written], now);
    assert!(!dispatch.is_pressed());
    assert_eq!(dispatch.next_request(1, now).unwrap().parts.len(), 1);
    give(dispatch);
    assert!(dispatch.is_pressed());
    dispatch.lost(1, now);
    assert!(!dispatch.is_pressed(), "nothing is on the wire");
}

#[test]
fn bytes_are_counted_for_each_broker_that_an_ordinal_goes_to() {
    let key = |partition| PartitionKey {
        topic_id: 0,
        partition,
    };
    let part = |partition, length| EncodedBatch {
        topic_id: 0,
        partition,
        records: 1,
        changes: 1,
        bytes: vec![0; length].into(),
    };
    let mut world = World::new(1, false);
    let (dispatch, now) = (&mut world.dispatch, world.now);
    assert_eq!(dispatch.bytes_per_broker(), 0);
    dispatch.metadata(&[(key(0), Some(1), 0), (key(1), Some(2), 0)], now);
    dispatch.enqueue(0, vec![part(0, 500), part(1, 300), part(0, 200)], now);
    assert_eq!(dispatch.bytes_per_broker(), 500, "two brokers");
    dispatch.enqueue(1, Vec::new(), now);
    assert_eq!(dispatch.bytes_per_broker(), 500, "nothing came");
    dispatch.metadata(&[(key(1), Some(1), 1)], now);
    dispatch.enqueue(2, vec![part(0, 500), part(1, 300)], now);
    assert_eq!(dispatch.bytes_per_broker(), 800, "one broker");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// As long as leaders remember their producers, every batch is written once and in order, whatever else happens.
    #[test]
    fn every_batch_once_and_in_order(seed: u64) {
        let mut world = World::new(seed, false);
        let told = told(|| world.run(40));
        prop_assert!(!told.contains(LOST), "nothing that was confirmed is cut off: {}", told);
        prop_assert_eq!(world.dispatch.failure(), None);
        prop_assert_eq!(world.acknowledged, world.ordinals, "everything is acknowledged");
        prop_assert_eq!(world.dispatch.in_flight_requests(), 0);
        prop_assert_eq!(world.dispatch.unacknowledged(), 0);
        for key in keys() {
            prop_assert_eq!(world.written(key), world.sent.get(&key).cloned().unwrap_or_default(), "{:?}", key);
        }
    }

    /// When leaders forget producers, batches may come twice, but none is lost, and the first occurrences are in order; or the
    /// dispatch has halted rather than break the order.
    #[test]
    fn nothing_is_lost_when_producers_are_forgotten(seed: u64) {
        let mut world = World::new(seed, true);
        let told = told(|| world.run(40));
        prop_assert!(!told.contains(LOST), "nothing that was confirmed is cut off: {}", told);
        if let Some(failure) = world.dispatch.failure() {
            let text = failure.to_string();
            prop_assert!(text.contains("lost track of our producer") || text.contains("does not keep track"), "{}", text);
            return Ok(());
        }
        prop_assert_eq!(world.acknowledged, world.ordinals);
        for key in keys() {
            let mut first = Vec::new();
            for number in world.written(key) {
                if !first.contains(&number) {
                    first.push(number);
                }
            }
            prop_assert_eq!(first, world.sent.get(&key).cloned().unwrap_or_default(), "{:?}", key);
        }
    }
}
