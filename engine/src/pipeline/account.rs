//! What is in flight, in order, and what it adds up to once it is acknowledged. Pure bookkeeping: no I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::mysql::BinlogPosition;
use protocol::postgres::Lsn;

use super::memory::Reservation;
use super::timing::{Commit, Stamps, Timings};
use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, Ledger};
use crate::position::Position;
use crate::producer::Acknowledged;
use crate::source::Identity;

/// What a batch takes until it is acknowledged in its turn, beside its records and what it knows of its transactions: entries here and
/// at the producer, positions with names of files and GTIDs. While a partition cannot be written there may be very many.
const DEPARTURE_BYTES: usize = 1 << 10;

/// The same for each of its record batches: the offset that the producer keeps for it.
const PART_BYTES: usize = 40;

/// What a submitted batch leaves behind when its bytes are recycled.
#[derive(Debug)]
pub(super) struct Departure {
    /// Number of the batch, from 1.
    pub(super) ordinal: u64,
    /// Position after the last transaction that ended in it.
    end: Option<Position>,
    /// When its first bytes were read, if any were.
    read_at: Option<Instant>,
    /// When it was sealed.
    decoded_at: Instant,
    /// When its transactions were committed.
    commits: Box<[Commit]>,
    /// Where the last transaction begins that has rows in it.
    last: Option<Position>,
    /// The server that it was read from, where that is another one than before.
    server: Option<Identity>,
    /// Bytes received.
    pub(super) bytes: usize,
}

impl Departure {
    /// Notes what has to be known of `batch` after it was encoded.
    pub(super) fn of(
        ordinal: u64,
        batch: &Batch,
        server: Option<Identity>,
        decoded_at: Instant,
    ) -> Self {
        Self {
            ordinal,
            last: last_begin(batch),
            server,
            end: batch.end.clone(),
            read_at: batch.read_at,
            decoded_at,
            commits: Commit::of(batch),
            bytes: batch.bytes.len(),
        }
    }

    /// Bytes that are held until it is acknowledged, however soon its record batches are written: so many of them.
    pub(super) fn held(&self, parts: usize) -> usize {
        DEPARTURE_BYTES + parts * PART_BYTES + size_of_val(&*self.commits)
    }
}

/// Where the last transaction of `batch` begins.
fn last_begin(batch: &Batch) -> Option<Position> {
    let last = batch.transactions.last()?;
    if last.file.is_none() {
        let lsn = Lsn(last.offset);
        return Some(Position::Postgres { lsn });
    }
    let file = std::str::from_utf8(last.file.of(&batch.text)?).ok()?;
    Some(Position::MySql {
        binlog: BinlogPosition {
            file: file.into(),
            offset: last.offset,
        },
        gtids: None,
    })
}

#[derive(Debug)]
struct InFlight {
    departure: Departure,
    encoded_at: Instant,
    changes: u64,
    records: u64,
    bytes: u64,
    /// What this takes; records have their own, held until the broker has them.
    _memory: Reservation,
}

/// Totals of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Row changes acknowledged.
    pub changes: u64,
    /// Records acknowledged, tombstones included.
    pub records: u64,
    /// Bytes of record batches acknowledged.
    pub bytes_out: u64,
}

/// Batches in flight in order, totals, and the checkpoint as it would be written now.
#[derive(Debug)]
pub(super) struct Account {
    in_flight: VecDeque<InFlight>,
    ledger: Ledger,
    /// Whether the checkpoint differs from what was saved last.
    dirty: bool,
    totals: Totals,
    timings: Timings,
    last_acknowledged_at: Option<Instant>,
}

impl Account {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            in_flight: VecDeque::new(),
            ledger,
            dirty: true,
            totals: Totals::default(),
            timings: Timings::default(),
            last_acknowledged_at: None,
        }
    }

    /// A batch is encoded and handed to the producer.
    pub(super) fn departed(
        &mut self,
        departure: Departure,
        encoded_at: Instant,
        changes: u64,
        records: u64,
        bytes: u64,
        memory: Reservation,
    ) {
        debug_assert!(
            self.in_flight
                .back()
                .is_none_or(|last| last.departure.ordinal < departure.ordinal),
            "batches depart in order"
        );
        self.in_flight.push_back(InFlight {
            departure,
            encoded_at,
            changes,
            records,
            bytes,
            _memory: memory,
        });
    }

    /// Kafka has everything of a batch, at a time of the monotonic clock and one since 1970. Returns false for an ordinal that is not the oldest in flight: a defect of the producer.
    #[must_use]
    pub(super) fn acknowledged(
        &mut self,
        acknowledged: &Acknowledged,
        topics: &HashMap<u32, Arc<str>>,
        (now, since_epoch): (Instant, Duration),
    ) -> bool {
        let Some(front) = self.in_flight.pop_front() else {
            return false;
        };
        if front.departure.ordinal != acknowledged.ordinal {
            return false;
        }
        self.totals.changes += front.changes;
        self.totals.records += front.records;
        self.totals.bytes_out += front.bytes;
        if front.records > 0 {
            let stamps = Stamps {
                read: front.departure.read_at,
                decoded: front.departure.decoded_at,
                encoded: front.encoded_at,
            };
            self.timings
                .record(&stamps, acknowledged.sent_at, now, front.records);
            self.timings
                .record_commits(&front.departure.commits, since_epoch);
            self.last_acknowledged_at = Some(now);
        }
        let offsets = acknowledged
            .offsets
            .iter()
            .filter_map(|(id, partition, next)| {
                topics.get(id).map(|name| (&**name, *partition, *next))
            });
        if let Some(server) = front.departure.server {
            self.ledger.read_from(server);
        }
        self.ledger
            .acknowledged(offsets, front.departure.last, front.departure.end.as_ref());
        self.dirty |= front.records > 0 || front.departure.end.is_some();
        true
    }

    /// Changes the checkpoint for another reason than an acknowledgement (new topics, a new producer id, another server).
    pub(super) fn amend(&mut self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.ledger);
        self.dirty = true;
    }

    /// The checkpoint to write, if it differs from the last one taken.
    pub(super) fn take_unsaved(&mut self) -> Option<Checkpoint> {
        std::mem::take(&mut self.dirty).then(|| self.ledger.checkpoint().clone())
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        self.ledger.checkpoint()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn timings(&self) -> &Timings {
        &self.timings
    }

    /// When Kafka last acknowledged a record.
    pub(super) fn last_acknowledged_at(&self) -> Option<Instant> {
        self.last_acknowledged_at
    }
}
