//! Single steps of the dispatch; `model` beside it walks through all of them at random.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::leaders::{Doubts, LEADERLESS_UNTIL_WARNING};
use super::*;
use crate::clock;

const TOPIC: &str = "shop.orders";
const BROKER: i32 = 1;
const PARTITIONS: u32 = 2;

const UNKNOWN_SERVER_ERROR: i16 = -1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER: i16 = 6;
const REQUEST_TIMED_OUT: i16 = 7;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;

/// What the log says when records are gone.
pub(in crate::producer) const LOST: &str = "has lost records that were acknowledged";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the log tells of `run`.
pub(in crate::producer) fn told(run: impl FnOnce()) -> String {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || written.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = std::mem::take(&mut *log.0.lock().unwrap());
    String::from_utf8(bytes).unwrap()
}

fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic_id: 0,
        partition,
    }
}

/// Both partitions, led by the one broker.
fn led() -> Vec<(PartitionKey, Option<i32>, i32)> {
    vec![(key(0), Some(BROKER), 7), (key(1), Some(BROKER), 7)]
}

fn part(partition: i32) -> EncodedBatch {
    EncodedBatch {
        topic_id: 0,
        partition,
        records: 1,
        changes: 1,
        bytes: vec![0; 61].into(),
    }
}

fn result(partition: i32, code: i16, base_offset: i64) -> PartResult {
    PartResult {
        key: key(partition),
        code,
        base_offset,
        message: None,
    }
}

/// A dispatch that knows its leaders, whose first batch, for partition 1, the broker has refused with `code`.
fn refused(code: i16) -> (Dispatch, Instant) {
    let (mut dispatch, now) = (Dispatch::default(), clock::now());
    dispatch.register(0, TOPIC.into(), PARTITIONS);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.refreshed(&led(), &[], now);
    dispatch.enqueue(0, vec![part(1)], now);
    let request = dispatch.next_request(BROKER, now).unwrap();
    dispatch.response(BROKER, request.id, vec![result(1, code, -1)], now);
    assert!(dispatch.wants_metadata());
    (dispatch, now)
}

/// The batch is sent and written.
fn is_written(dispatch: &mut Dispatch, now: Instant) {
    let now = now + Duration::from_secs(5);
    dispatch.elapsed(now);
    let request = dispatch.next_request(BROKER, now).unwrap();
    dispatch.response(BROKER, request.id, vec![result(1, 0, 0)], now);
    assert_eq!(dispatch.poll_acknowledged().unwrap().ordinal, 0);
    assert!(!dispatch.wants_metadata());
}

#[test]
fn leaders_are_asked_for_until_they_are_named() {
    for code in [NOT_LEADER, UNKNOWN_TOPIC_OR_PARTITION] {
        for missing in [
            // The topic is deleted, or this broker does not know it yet.
            Some((0, UNKNOWN_TOPIC_OR_PARTITION)),
            Some((0, LEADER_NOT_AVAILABLE)),
            // The topic was made anew with fewer partitions.
            None,
        ] {
            let (mut dispatch, now) = refused(code);
            let named = match missing {
                Some(_) => Vec::new(),
                None => vec![(key(0), Some(BROKER), 0)],
            };
            let topics: Vec<_> = missing.into_iter().collect();
            let told = told(|| {
                for _ in 0..3 * LEADERLESS_UNTIL_WARNING {
                    dispatch.take_signals();
                    dispatch.refreshed(&named, &topics, now);
                    assert!(dispatch.wants_metadata(), "{code} {missing:?}");
                    assert!(dispatch.take_signals().driver, "{code} {missing:?}");
                    assert_eq!(dispatch.failure(), None);
                }
                dispatch.refreshed(&led(), &[], now);
            });
            assert_eq!(told.matches("cannot be written").count(), 1, "{told}");
            assert_eq!(told.matches("has leaders again").count(), 1, "{told}");
            is_written(&mut dispatch, now);
        }
    }
}

/// What is asked about other topics says nothing of those that wait.
#[test]
fn an_answer_about_other_topics_does_not_end_the_question() {
    let (mut dispatch, now) = refused(NOT_LEADER);
    dispatch.register(1, "shop.items".into(), 1);
    let other = PartitionKey {
        topic_id: 1,
        partition: 0,
    };
    dispatch.metadata(&[(other, Some(BROKER), 0)], now);
    assert!(dispatch.wants_metadata());
}

/// A connection that was lost asks for all leaders; a question about another topic, on its way already, does not answer that.
#[test]
fn leaders_of_what_was_lost_are_asked_for_whatever_else_is_asked() {
    let (mut dispatch, now) = (Dispatch::default(), clock::now());
    dispatch.register(0, TOPIC.into(), PARTITIONS);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.refreshed(&led(), &[], now);
    dispatch.enqueue(0, vec![part(1)], now);
    dispatch.next_request(BROKER, now).unwrap();
    dispatch.lost(BROKER, now);
    dispatch.register(1, "shop.items".into(), 1);
    let other = PartitionKey {
        topic_id: 1,
        partition: 0,
    };
    dispatch.metadata(&[(other, Some(BROKER), 0)], now);
    assert!(dispatch.wants_metadata());
    dispatch.refreshed(&led(), &[], now);
    assert!(!dispatch.wants_metadata());
}

/// A leader that is cut off from the others but not from us goes on refusing, and knows of no other.
#[test]
fn a_leader_that_keeps_refusing_is_left_for_the_one_that_others_name() {
    const OTHER: i32 = 2;
    for (code, refusals) in [(REQUEST_TIMED_OUT, 1), (NOT_ENOUGH_REPLICAS, 4)] {
        let (mut dispatch, mut now) = (Dispatch::default(), clock::now());
        dispatch.register(0, TOPIC.into(), PARTITIONS);
        dispatch.identify(Identity { id: 100, epoch: 0 }, now);
        dispatch.refreshed(&led(), &[], now);
        dispatch.enqueue(0, vec![part(1)], now);
        for refusal in 0..refusals {
            assert!(!dispatch.wants_metadata(), "{code}: {refusal} refusals");
            assert_eq!(dispatch.take_doubts(), Doubts::default());
            now += Duration::from_secs(5);
            dispatch.elapsed(now);
            dispatch.take_signals();
            let request = dispatch.next_request(BROKER, now).unwrap();
            dispatch.response(BROKER, request.id, vec![result(1, code, -1)], now);
        }
        assert!(dispatch.wants_metadata(), "{code}");
        assert!(dispatch.take_signals().driver, "{code}");
        let doubts = Doubts {
            brokers: BTreeSet::from([BROKER]),
            of_answers: true,
        };
        assert_eq!(dispatch.take_doubts(), doubts, "{code}");
        // Meanwhile it is the leader, and is asked again.
        assert_eq!(dispatch.leader(&key(1)), Some((BROKER, 7)));
        dispatch.refreshed(&[(key(1), Some(OTHER), 8)], &[], now);
        now += Duration::from_secs(5);
        dispatch.elapsed(now);
        let request = dispatch.next_request(OTHER, now).unwrap();
        dispatch.response(OTHER, request.id, vec![result(1, 0, 0)], now);
        assert_eq!(dispatch.poll_acknowledged().unwrap().ordinal, 0, "{code}");
    }
}

/// Terms of a topic that is made anew count from 0.
#[test]
fn a_topic_that_is_made_anew_is_believed_at_once() {
    let (mut dispatch, now) = refused(UNKNOWN_TOPIC_OR_PARTITION);
    dispatch.refreshed(&[], &[(0, UNKNOWN_TOPIC_OR_PARTITION)], now);
    dispatch.refreshed(&[(key(1), Some(BROKER), 0)], &[], now);
    is_written(&mut dispatch, now);
}

#[test]
fn a_topic_that_may_not_be_seen_halts_what_waits_for_it() {
    let (mut dispatch, now) = refused(NOT_LEADER);
    dispatch.refreshed(&[], &[(0, TOPIC_AUTHORIZATION_FAILED)], now);
    let text = dispatch.failure().unwrap().to_string();
    assert!(
        text.contains(TOPIC) && text.contains("kafka-acls.sh"),
        "{text}"
    );

    let mut idle = Dispatch::default();
    idle.register(0, TOPIC.into(), PARTITIONS);
    idle.refreshed(&[], &[(0, TOPIC_AUTHORIZATION_FAILED)], now);
    assert_eq!(idle.failure(), None, "nothing is to be written there");
}

#[test]
fn says_why_nobody_leads() {
    let (dispatch, _) = refused(NOT_LEADER);
    for (code, is_named, expected) in [
        (
            UNKNOWN_TOPIC_OR_PARTITION,
            false,
            ["does not exist any more", "--create", "--partitions 2"],
        ),
        (
            0,
            false,
            ["no such partition any more", "--alter", "--partitions 2"],
        ),
        (0, true, ["it has no leader", "", ""]),
        (
            LEADER_NOT_AVAILABLE,
            false,
            ["cannot be asked about", "LEADER_NOT_AVAILABLE", ""],
        ),
    ] {
        let text = dispatch.leaderless_because(TOPIC, key(1), code, is_named);
        for part in expected {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}

/// A dispatch of which the broker has written a batch of one record at offset 10, and has been sent the next.
fn written_once() -> (Dispatch, Request, Instant) {
    let (mut dispatch, now) = (Dispatch::default(), clock::now());
    dispatch.register(0, TOPIC.into(), PARTITIONS);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.refreshed(&led(), &[], now);
    dispatch.enqueue(0, vec![part(1)], now);
    dispatch.enqueue(1, vec![part(1)], now);
    let request = dispatch.next_request(BROKER, now).unwrap();
    dispatch.response(BROKER, request.id, vec![result(1, 0, 10)], now);
    let request = dispatch.next_request(BROKER, now).unwrap();
    (dispatch, request, now)
}

/// An election of a leader that lacks what was acknowledged shows only in where it writes what comes next.
#[test]
fn tells_of_acknowledged_records_that_are_gone() {
    for (offset, is_lost) in [(3, true), (11, false), (12, false)] {
        let (mut dispatch, request, now) = written_once();
        let results = vec![result(1, OUT_OF_ORDER_SEQUENCE, -1)];
        dispatch.response(BROKER, request.id, results, now);
        assert!(dispatch.wants_identity());
        let later = now + Duration::from_secs(5);
        dispatch.identify(Identity { id: 101, epoch: 0 }, later);
        dispatch.elapsed(later);
        let request = dispatch.next_request(BROKER, later).unwrap();
        let results = vec![result(1, 0, offset)];
        let told = told(|| dispatch.response(BROKER, request.id, results, later));
        assert_eq!(told.contains(LOST), is_lost, "{offset}: {told}");
        if is_lost {
            for part in [TOPIC, "partition=1", "acknowledged=11", "written=3"] {
                assert!(told.contains(part), "{part} is missing in {told}");
            }
        }
        assert_eq!(dispatch.poll_acknowledged().unwrap().ordinal, 0);
        assert_eq!(dispatch.poll_acknowledged().unwrap().ordinal, 1);
    }
}

/// Also where the leader takes our sequence for a first one, as it does in a topic that was made anew; and once only.
#[test]
fn tells_of_a_partition_that_begins_anew() {
    let (mut dispatch, request, now) = written_once();
    let results = vec![result(1, 0, 0)];
    let first = told(|| dispatch.response(BROKER, request.id, results, now));
    assert!(first.contains(LOST), "{first}");
    dispatch.enqueue(2, vec![part(1)], now);
    let request = dispatch.next_request(BROKER, now).unwrap();
    let results = vec![result(1, 0, 1)];
    let second = told(|| dispatch.response(BROKER, request.id, results, now));
    assert!(!second.contains(LOST), "{second}");
}

/// Ordinals come in order, so the one that is refused keeps the next one from being told; that it is written shows all the same.
#[test]
fn shows_what_is_written_beside_a_partition_that_is_held_up() {
    let now = clock::now();
    for code in [NOT_ENOUGH_REPLICAS, NOT_LEADER] {
        let mut dispatch = Dispatch::default();
        dispatch.register(0, TOPIC.into(), PARTITIONS);
        dispatch.identify(Identity { id: 100, epoch: 0 }, now);
        dispatch.refreshed(&led(), &[], now);
        let idle = Traffic {
            is_anyone_there: true,
            ..Traffic::default()
        };
        assert_eq!(dispatch.traffic(), idle);
        dispatch.enqueue(0, vec![part(1)], now);
        let request = dispatch.next_request(BROKER, now).unwrap();
        let busy = Traffic {
            is_busy: true,
            unrewarded: 1,
            ..idle
        };
        assert_eq!(dispatch.traffic(), busy);
        assert!(!dispatch.take_signals().traffic, "nothing is held up");
        dispatch.response(BROKER, request.id, vec![result(1, code, -1)], now);
        let held_up = Traffic {
            is_held_up: true,
            ..idle
        };
        assert_eq!(dispatch.traffic(), held_up, "{code}");
        assert!(dispatch.take_signals().traffic, "{code}");

        dispatch.enqueue(1, vec![part(0)], now);
        let request = dispatch.next_request(BROKER, now).unwrap();
        assert!(dispatch.traffic().is_busy, "{code}");
        dispatch.response(BROKER, request.id, vec![result(0, 0, 0)], now);
        assert!(dispatch.take_signals().traffic, "{code}");
        let written = Traffic {
            written: 1,
            ..held_up
        };
        assert_eq!(dispatch.traffic(), written, "{code}");
        assert_eq!(dispatch.poll_acknowledged(), None, "{code}");

        let later = now + Duration::from_secs(5);
        dispatch.refreshed(&led(), &[], later);
        dispatch.elapsed(later);
        let request = dispatch.next_request(BROKER, later).unwrap();
        dispatch.response(BROKER, request.id, vec![result(1, 0, 0)], later);
        let written = Traffic { written: 2, ..idle };
        assert_eq!(dispatch.traffic(), written, "{code}");
    }
}

#[test]
fn a_broker_that_cannot_be_reached_holds_up_what_it_leads() {
    let (mut dispatch, now) = (Dispatch::default(), clock::now());
    dispatch.register(0, TOPIC.into(), PARTITIONS);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.refreshed(&led(), &[], now);
    dispatch.unreachable(BROKER);
    assert!(!dispatch.traffic().is_held_up, "nothing is to be written");
    dispatch.enqueue(0, vec![part(1)], now);
    dispatch.unreachable(BROKER);
    assert!(dispatch.take_signals().traffic);
    let traffic = dispatch.traffic();
    assert!(traffic.is_held_up && !traffic.is_busy, "{traffic:?}");
    assert!(!traffic.is_anyone_there, "whom could others be written to?");
    dispatch.refreshed(&[(key(0), Some(2), 8)], &[], now);
    let traffic = dispatch.traffic();
    assert!(traffic.is_held_up && traffic.is_anyone_there, "{traffic:?}");
    let request = dispatch.next_request(BROKER, now).unwrap();
    dispatch.response(BROKER, request.id, vec![result(1, 0, 0)], now);
    assert!(!dispatch.traffic().is_held_up);
}

/// Where all refuse, each ordinal more only makes the queue longer: they are counted, and each refusal makes room for one.
#[test]
fn counts_what_is_handed_over_while_nothing_is_written() {
    let (mut dispatch, request, mut now) = written_once();
    let refused = vec![result(1, NOT_ENOUGH_REPLICAS, -1)];
    dispatch.response(BROKER, request.id, refused, now);
    for ordinal in 2..12 {
        dispatch.enqueue(ordinal, vec![part(1)], now);
    }
    assert_eq!(dispatch.traffic().unrewarded, 10);
    let mut answer = |dispatch: &mut Dispatch, code, offset| {
        now += Duration::from_secs(5);
        dispatch.elapsed(now);
        let request = dispatch.next_request(BROKER, now).unwrap();
        dispatch.response(BROKER, request.id, vec![result(1, code, offset)], now);
    };
    answer(&mut dispatch, NOT_ENOUGH_REPLICAS, -1);
    assert_eq!(dispatch.traffic().unrewarded, 9);
    answer(&mut dispatch, 0, 11);
    assert_eq!(dispatch.traffic().unrewarded, 0);
}

/// A leader that refuses what is on the wire refuses five batches at once, and the first of them has ten attempts all the same.
#[test]
fn what_may_pass_has_ten_rounds_however_much_is_on_the_wire() {
    let (mut dispatch, request, mut now) = written_once();
    dispatch.response(BROKER, request.id, vec![result(1, 0, 11)], now);
    for ordinal in 2..2 + IN_FLIGHT_MAX as u64 {
        dispatch.enqueue(ordinal, vec![part(1)], now);
    }
    for round in 0..=verdict::DOUBTFUL_ATTEMPTS_MAX {
        assert_eq!(dispatch.failure(), None, "after {round} rounds");
        let requests: Vec<_> = std::iter::from_fn(|| dispatch.next_request(BROKER, now)).collect();
        assert_eq!(requests.len(), IN_FLIGHT_MAX, "round {round}");
        for request in requests {
            let refused = vec![result(1, UNKNOWN_SERVER_ERROR, -1)];
            dispatch.response(BROKER, request.id, refused, now);
        }
        now += Duration::from_secs(5);
        dispatch.elapsed(now);
    }
    let text = dispatch.failure().unwrap().to_string();
    assert!(text.contains("UNKNOWN_SERVER_ERROR"), "{text}");
}

/// What waits for a broker that is cut off is no sign of a link that does not keep up.
#[test]
fn a_broker_that_is_cut_off_does_not_press() {
    const OTHER: i32 = 2;
    let (mut dispatch, request, now) = written_once();
    dispatch.response(BROKER, request.id, vec![result(1, 0, 11)], now);
    for ordinal in 2..=2 + IN_FLIGHT_MAX as u64 {
        dispatch.enqueue(ordinal, vec![part(1)], now);
    }
    while dispatch.next_request(BROKER, now).is_some() {}
    assert!(dispatch.is_pressed());
    dispatch.silent(BROKER);
    assert!(dispatch.is_pressed(), "the line may be thin");
    dispatch.refreshed(&[(key(0), Some(OTHER), 8)], &[], now);
    assert!(!dispatch.is_pressed(), "others answer");
}

/// A broker hangs up on what is larger than its `socket.request.max.bytes`, without a word.
#[test]
fn requests_that_end_connections_become_smaller() {
    let (mut dispatch, now) = (Dispatch::default(), clock::now());
    dispatch.register(0, TOPIC.into(), PARTITIONS);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.refreshed(&led(), &[], now);
    let large = |partition| EncodedBatch {
        bytes: vec![0; REQUEST_BYTES_MAX * 7 / 16].into(),
        ..part(partition)
    };
    dispatch.enqueue(0, vec![large(0), large(1)], now);
    let mut parts = Vec::new();
    let told = told(|| {
        for _ in 0..3 {
            parts.push(dispatch.next_request(BROKER, now).unwrap().parts.len());
            dispatch.lost(BROKER, now);
        }
    });
    assert_eq!(parts, [2, 2, 1], "batches of each request");
    assert!(told.contains("socket.request.max.bytes"), "{told}");
    // They are taken, and it is not tried again at once with larger ones.
    for _ in 0..2 {
        let request = dispatch.next_request(BROKER, now).unwrap();
        let [(of, _)] = request.parts[..] else {
            panic!("{} parts", request.parts.len())
        };
        dispatch.response(BROKER, request.id, vec![result(of.partition, 0, 0)], now);
    }
    assert_eq!(dispatch.poll_acknowledged().unwrap().ordinal, 0);
    dispatch.enqueue(1, vec![large(0), large(1)], now);
    assert_eq!(dispatch.next_request(BROKER, now).unwrap().parts.len(), 1);
}

/// Others are not to wait for a broker that is silent, nor its partitions for its connection once others lead them.
#[test]
fn a_silent_broker_holds_up_what_it_leads_until_others_lead_it() {
    const OTHER: i32 = 2;
    let (mut dispatch, now) = (Dispatch::default(), clock::now());
    dispatch.register(0, TOPIC.into(), PARTITIONS);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.refreshed(
        &[(key(0), Some(OTHER), 7), (key(1), Some(BROKER), 7)],
        &[],
        now,
    );
    dispatch.enqueue(0, vec![part(1)], now);
    let request = dispatch.next_request(BROKER, now).unwrap();
    dispatch.take_signals();
    assert!(!dispatch.silent(BROKER), "it leads what is on the wire");
    let signals = dispatch.take_signals();
    assert!(signals.traffic && signals.driver, "{signals:?}");
    assert!(dispatch.wants_metadata());
    let traffic = dispatch.traffic();
    assert!(traffic.is_held_up && !traffic.is_busy, "{traffic:?}");
    let doubts = Doubts {
        brokers: BTreeSet::from([BROKER]),
        of_answers: false,
    };
    assert_eq!(dispatch.take_doubts(), doubts);

    // It was only slow.
    dispatch.response(BROKER, request.id, vec![result(1, 0, 0)], now);
    assert!(!dispatch.traffic().is_held_up);
    assert_eq!(dispatch.take_doubts(), Doubts::default());

    dispatch.enqueue(1, vec![part(1)], now);
    dispatch.next_request(BROKER, now).unwrap();
    assert!(!dispatch.silent(BROKER));
    dispatch.refreshed(&[(key(1), Some(OTHER), 8)], &[], now);
    assert!(dispatch.next_request(OTHER, now).is_none(), "out of order");
    assert!(dispatch.silent(BROKER), "nothing to wait for");
    dispatch.lost(BROKER, now);
    assert!(dispatch.next_request(OTHER, now).is_some());
}

/// Over a thin line answers are seconds apart: that is no reason to make small batches of what waits for the line.
#[test]
fn where_all_are_silent_nothing_is_held_up() {
    let (mut dispatch, now) = (Dispatch::default(), clock::now());
    dispatch.register(0, TOPIC.into(), PARTITIONS);
    dispatch.identify(Identity { id: 100, epoch: 0 }, now);
    dispatch.refreshed(&[(key(0), Some(2), 7), (key(1), Some(BROKER), 7)], &[], now);
    dispatch.enqueue(0, vec![part(0), part(1)], now);
    for broker in [BROKER, 2] {
        dispatch.next_request(broker, now).unwrap();
    }
    for broker in [BROKER, 2] {
        dispatch.silent(broker);
    }
    let traffic = dispatch.traffic();
    assert!(!traffic.is_held_up && traffic.is_busy, "{traffic:?}");
}
