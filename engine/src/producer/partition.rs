//! The queue of one partition: what waits, what is on the wire, and in which order it may be (re)sent. Pure logic, no IO.
//!
//! ```text
//!            window (sequence numbers given, at most 5)                waiting (no sequence yet)
//! front ► [ Written | Failed | InFlight | InFlight | … ]           [ batch | batch | … ] ◄ push
//! ```
//! A leader takes the batches of an idempotent producer only in sequence and remembers the last five of each, so that a batch sent
//! again within that window is recognised (Kafka, KIP-98). Hence the rules here:
//! - a batch keeps its sequence whatever happens to it, because an attempt without an answer may have been written;
//! - after a failure nothing of the partition is sent until every batch on the wire has its answer; then all that failed goes again,
//!   in order, before anything new;
//! - batches stay in the window, written ones too, until all before them are written: the window never exceeds what leaders remember;
//! - until a leader has written something of ours, and again after a long silence, one batch is on the wire at a time: a leader that does
//!   not know the producer takes any sequence for the first, so that the second batch could overtake the first;
//! - a new producer id starts sequences anew and so loses the leader's memory of what was written: it is taken only when nothing is
//!   on the wire and no batch behind a failed one has been written.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::kafka::record_batch;

use crate::encoded::{Attached, Buffer};

use super::verdict::{DOUBTFUL_ATTEMPTS_MAX, Verdict, is_leader_change, is_timeout, verdict};

/// Batches of one partition that a leader can tell apart from repetitions (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
pub(super) const WINDOW_MAX: usize = 5;

/// The first pause after a fault that is to pass by itself; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A leader that knows nothing of a producer takes whatever sequence comes first, so a batch could overtake the one before it. It
/// surely knows us for this long after it has written a batch (`producer.id.expiration.ms` is a day by default).
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Producer ids lost in a row, without a batch written in between, before that halts the engine.
const IDENTITIES_LOST_MAX: u32 = 5;

/// Metadata older than what we know is ignored this often; then it is believed (a topic that was created anew counts from 0 again).
const STALE_MAX: u32 = 20;

/// Faults in a row, those of all batches on the wire, after which somebody else is asked who leads, and after how many again.
const FAULTS_UNTIL_DOUBT: u32 = 4;
const DOUBT_EVERY: u32 = 16;

/// A producer id with its epoch, given by a broker (InitProducerId).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// The producer id.
    pub(super) id: i64,
    /// Its epoch.
    pub(super) epoch: i16,
}

/// A record batch as it was handed to us.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Serial number of the ordinal that it belongs to.
    pub(super) serial: u64,
    /// Records in it.
    pub(super) records: u32,
    /// The batch, not yet stamped.
    pub(super) bytes: Buffer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// May be sent (again).
    Ready,
    /// On the wire.
    InFlight { request: u64, broker: i32 },
    /// Its last attempt failed or has no answer; waits until nothing of the partition is on the wire.
    Failed,
    /// Written, but something before it is not.
    Written,
}

#[derive(Debug)]
struct Sent {
    serial: u64,
    records: u32,
    attempts: u32,
    /// Empty once it is written.
    bytes: Bytes,
    /// What was kept with them, which copies of them do not have.
    kept: Option<Attached>,
    state: State,
    /// The offset after its last record, once it is written and the broker has said where.
    next_offset: Option<i64>,
}

/// Whether a batch that is taken goes out for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It does.
    First {
        /// As in [`Waiting::serial`].
        serial: u64,
    },
    /// An attempt before this one failed.
    Again,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The batch is written: its ordinal's serial number, and the offset after its last record where the broker said it.
    Written {
        /// As in [`Waiting::serial`].
        serial: u64,
        /// `None` when the broker recognised a repetition without telling its offset.
        next_offset: Option<i64>,
    },
    /// It is not; it will be sent again. `refresh`: after metadata have been asked for.
    Retry {
        /// Whether metadata are needed.
        refresh: bool,
    },
    /// It never will be.
    Halt {
        /// Size of the batch.
        bytes: usize,
    },
    /// New producer ids do not help.
    KeepsForgetting,
    /// The answer belongs to nothing that is on the wire.
    Unknown,
}

/// A log that ends before what its leader had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shrunk {
    /// The offset after the last record that was acknowledged.
    pub(super) acknowledged: i64,
    /// The offset that the next record behind it has got.
    pub(super) written: i64,
}

/// One partition.
#[derive(Debug, Default)]
pub(super) struct Partition {
    leader: Option<i32>,
    leader_epoch: i32,
    stale: u32,
    identity: Option<Identity>,
    /// The identity is lost: a new one is needed before anything is sent.
    forgotten: bool,
    identities_lost: u32,
    next_sequence: i32,
    /// When the leader last said that it has written a batch of this identity.
    known_at: Option<Instant>,
    window: VecDeque<Sent>,
    waiting: VecDeque<Waiting>,
    /// The offset after the last batch before the window, as far as brokers have said it.
    acknowledged: Option<i64>,
    shrunk: Option<Shrunk>,
    /// Faults in a row.
    faults: u32,
    /// Of those that have no business lasting: how often the oldest batch met one.
    doubtful: u32,
    fault: i16,
    warned: bool,
    not_before: Option<Instant>,
    /// The broker in whose queue it stands.
    pub(super) queued: Option<i32>,
    /// Whether it stands among those that wait for a pause to end.
    pub(super) paused: bool,
}

impl Partition {
    pub(super) fn new() -> Self {
        Self {
            leader_epoch: -1,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, batch: Waiting) {
        self.waiting.push_back(batch);
    }

    pub(super) fn leader(&self) -> Option<i32> {
        self.leader
    }

    /// The leader's term, −1 where the broker does not say.
    pub(super) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Whether there is anything left to write.
    pub(super) fn is_idle(&self) -> bool {
        self.window.is_empty() && self.waiting.is_empty()
    }

    /// Batches that are not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.window
            .iter()
            .filter(|sent| sent.state != State::Written)
            .count()
            + self.waiting.len()
    }

    /// Whether it waits for a producer id.
    pub(super) fn wants_identity(&self) -> bool {
        (self.identity.is_none() || (self.forgotten && !self.has_in_flight())) && !self.is_idle()
    }

    /// Whether it waits for metadata.
    pub(super) fn wants_leader(&self) -> bool {
        self.leader.is_none() && !self.is_idle()
    }

    /// Whether there is something to write and nothing of it can be now: nobody leads it, or its leader refuses.
    pub(super) fn is_held_up(&self) -> bool {
        !self.is_idle() && (self.leader.is_none() || self.forgotten || self.faults > 0)
    }

    /// When a pause ends that keeps it from sending.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Whether faults have come in a row for long enough that somebody else should be asked who leads; now and then while they do.
    pub(super) fn persists(&self) -> bool {
        self.faults == FAULTS_UNTIL_DOUBT
            || (self.faults > 0 && self.faults.is_multiple_of(DOUBT_EVERY))
    }

    /// Whether its last fault is one that a leader that is cut off from the others may answer for ever, or has lasted.
    pub(super) fn is_doubtful(&self) -> bool {
        self.faults > 0 && (is_timeout(self.fault) || self.persists())
    }

    /// The current fault, once there have been enough in a row to tell, and once only.
    pub(super) fn warning(&mut self) -> Option<i16> {
        let patience = if is_leader_change(self.fault) { 4 } else { 1 };
        if self.warned || self.faults < patience {
            return None;
        }
        self.warned = true;
        Some(self.fault)
    }

    /// Whether a fault that was warned of has passed; once only.
    pub(super) fn recovered(&mut self) -> bool {
        self.faults == 0 && std::mem::take(&mut self.warned)
    }

    /// Whether records that were acknowledged are gone; once for each time.
    pub(super) fn shrunk(&mut self) -> Option<Shrunk> {
        self.shrunk.take()
    }

    /// Takes a producer id: the first one, or a new one when the old one is lost. Batches of the window are numbered anew.
    ///
    /// Nothing may be on the wire; nothing in the window may be written.
    pub(super) fn identify(&mut self, identity: Identity) {
        if !self.wants_identity() || self.identity == Some(identity) {
            return;
        }
        assert!(
            !self.has_in_flight(),
            "a new producer id while batches are on the wire"
        );
        self.identity = Some(identity);
        self.forgotten = false;
        self.known_at = None;
        self.next_sequence = 0;
        for sent in &mut self.window {
            assert!(
                sent.state != State::Written,
                "a new producer id behind a written batch"
            );
            sent.bytes = stamped(sent.bytes.to_vec().into(), identity, self.next_sequence);
            self.next_sequence = sequence_after(self.next_sequence, sent.records);
            sent.state = State::Ready;
        }
    }

    /// What metadata say of its leader.
    pub(super) fn lead(&mut self, leader: Option<i32>, epoch: i32) {
        if epoch >= 0 && epoch < self.leader_epoch && self.stale < STALE_MAX {
            self.stale += 1;
            return;
        }
        self.stale = 0;
        self.leader_epoch = epoch;
        self.leader = leader;
    }

    /// Its topic does not exist: one of that name that is made anew has leaders that do not know us, and counts their terms from 0.
    pub(super) fn gone(&mut self) {
        self.known_at = None;
        self.leader_epoch = -1;
        self.stale = 0;
    }

    /// Whether its producer id is lost while a batch behind an unwritten one is written: a new id could only put the former behind
    /// the latter.
    pub(super) fn is_unordered(&self) -> bool {
        self.forgotten
            && !self.has_in_flight()
            && self.window.iter().any(|sent| sent.state == State::Written)
    }

    fn has_in_flight(&self) -> bool {
        self.window
            .iter()
            .any(|sent| matches!(sent.state, State::InFlight { .. }))
    }

    /// Bytes of the batch that may be sent to the leader now.
    pub(super) fn sendable(&self, now: Instant) -> Option<usize> {
        let leader = self.leader?;
        self.identity?;
        if self.forgotten || self.not_before.is_some_and(|until| until > now) {
            return None;
        }
        let mut ready = None;
        let mut in_flight = 0;
        for sent in &self.window {
            match sent.state {
                State::Failed => return None,
                State::InFlight { broker, .. } if broker != leader => return None,
                State::InFlight { .. } => in_flight += 1,
                State::Ready if ready.is_none() => ready = Some(sent.bytes.len()),
                State::Ready | State::Written => {}
            }
        }
        let is_known = |at| now.saturating_duration_since(at) < KNOWN_FOR;
        if in_flight > 0 && !self.known_at.is_some_and(is_known) {
            return None;
        }
        match ready {
            Some(bytes) => Some(bytes),
            None if self.window.len() < WINDOW_MAX => {
                self.waiting.front().map(|batch| batch.bytes.len())
            }
            None => None,
        }
    }

    /// Gives the batch that [`sendable`](Self::sendable) announced to `request`: its bytes, and whether they were sent before.
    pub(super) fn take(&mut self, request: u64, broker: i32) -> Option<(Bytes, Taken)> {
        let in_flight = State::InFlight { request, broker };
        if let Some(sent) = self
            .window
            .iter_mut()
            .find(|sent| sent.state == State::Ready)
        {
            sent.state = in_flight;
            sent.attempts = sent.attempts.saturating_add(1);
            let taken = match sent.attempts {
                0 | 1 => Taken::First {
                    serial: sent.serial,
                },
                _ => Taken::Again,
            };
            return Some((sent.bytes.clone(), taken));
        }
        let identity = self.identity?;
        let Waiting {
            serial,
            records,
            mut bytes,
        } = self.waiting.pop_front()?;
        let kept = bytes.take_kept();
        let bytes = stamped(bytes, identity, self.next_sequence);
        self.next_sequence = sequence_after(self.next_sequence, records);
        self.window.push_back(Sent {
            serial,
            records,
            attempts: 1,
            bytes: bytes.clone(),
            kept,
            state: in_flight,
            next_offset: None,
        });
        Some((bytes, Taken::First { serial }))
    }

    /// The broker's answer to the batch in `request`.
    pub(super) fn answered(
        &mut self,
        request: u64,
        code: i16,
        base_offset: i64,
        now: Instant,
    ) -> Outcome {
        let Some(at) = self.position(request) else {
            return Outcome::Unknown;
        };
        let first_unwritten = self
            .window
            .iter()
            .take(at)
            .all(|sent| sent.state == State::Written);
        match verdict(code) {
            Verdict::Written => {
                self.written(at, Some(base_offset).filter(|offset| *offset >= 0), now)
            }
            Verdict::Repeated => self.written(at, None, now),
            Verdict::OutOfSequence if !first_unwritten => self.failed(at, false),
            Verdict::OutOfSequence | Verdict::Forgotten => self.forgotten(at, code, now),
            Verdict::Pause => {
                self.fault(code, now);
                // It may be one that leads no longer, and that is cut off from all who could tell it so.
                self.failed(at, is_timeout(code) || self.persists())
            }
            Verdict::Refresh => {
                self.fault(code, now);
                self.leader = None;
                self.failed(at, true)
            }
            // Those behind it are refused along with it, and would use up its attempts.
            Verdict::Doubtful if !first_unwritten || self.doubtful < DOUBTFUL_ATTEMPTS_MAX => {
                self.doubtful += u32::from(first_unwritten);
                self.fault(code, now);
                self.failed(at, false)
            }
            Verdict::Doubtful | Verdict::Halt => Outcome::Halt {
                bytes: self.window.get(at).map_or(0, |sent| sent.bytes.len()),
            },
        }
    }

    /// `request` will never be answered: its connection is gone. The batch may have been written.
    pub(super) fn lost(&mut self, request: u64) {
        if let Some(at) = self.position(request) {
            self.failed(at, true);
        }
    }

    fn position(&self, request: u64) -> Option<usize> {
        self.window.iter().position(
            |sent| matches!(sent.state, State::InFlight { request: of, .. } if of == request),
        )
    }

    fn written(&mut self, at: usize, base_offset: Option<i64>, now: Instant) -> Outcome {
        self.known_at = Some(now);
        self.faults = 0;
        self.doubtful = 0;
        self.identities_lost = 0;
        let Some(sent) = self.window.get_mut(at) else {
            return Outcome::Unknown;
        };
        sent.state = State::Written;
        // It may stay for as long as what is before it, and is not sent again.
        sent.bytes = Bytes::new();
        sent.kept = None;
        sent.next_offset = base_offset.map(|base| base + i64::from(sent.records));
        let outcome = Outcome::Written {
            serial: sent.serial,
            next_offset: sent.next_offset,
        };
        // What left the window was written before this batch, so it stands before it, also where an earlier attempt's offset is told.
        if let (Some(acknowledged), Some(written)) = (self.acknowledged, base_offset)
            && written < acknowledged
        {
            self.shrunk = Some(Shrunk {
                acknowledged,
                written,
            });
            self.acknowledged = None;
        }
        while let Some(front) = self.window.front()
            && front.state == State::Written
        {
            self.acknowledged = front.next_offset.or(self.acknowledged);
            self.window.pop_front();
        }
        self.release();
        outcome
    }

    fn failed(&mut self, at: usize, refresh: bool) -> Outcome {
        if let Some(sent) = self.window.get_mut(at) {
            sent.state = State::Failed;
        }
        self.release();
        Outcome::Retry { refresh }
    }

    fn forgotten(&mut self, at: usize, code: i16, now: Instant) -> Outcome {
        if !self.forgotten {
            self.forgotten = true;
            self.identities_lost += 1;
        }
        self.fault(code, now);
        if self.identities_lost > IDENTITIES_LOST_MAX {
            return Outcome::KeepsForgetting;
        }
        self.failed(at, false)
    }

    /// Once nothing is on the wire, everything that failed may go again.
    fn release(&mut self) {
        if self.forgotten || self.has_in_flight() {
            return;
        }
        for sent in &mut self.window {
            if sent.state == State::Failed {
                sent.state = State::Ready;
            }
        }
    }

    fn fault(&mut self, code: i16, now: Instant) {
        let doublings = self.faults.min(10);
        self.faults = self.faults.saturating_add(1);
        self.fault = code;
        self.not_before = Some(now + (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX));
    }
}

/// The batch with its producer id, epoch, first sequence and checksum.
fn stamped(mut bytes: Buffer, identity: Identity, sequence: i32) -> Bytes {
    record_batch::stamp(&mut bytes, identity.id, identity.epoch, sequence)
        .expect("a record batch that was encoded here has a header");
    Bytes::from_owner(bytes)
}

/// The sequence after `records` records from `sequence` on: after `i32::MAX` comes 0 (`DefaultRecordBatch.incrementSequence`).
fn sequence_after(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    i32::try_from(next).unwrap_or(0)
}

#[cfg(test)]
mod tests;
