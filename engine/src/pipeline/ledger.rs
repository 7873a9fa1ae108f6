//! What is in flight, in order, and what may be written down once it is acknowledged. Pure bookkeeping: no I/O, no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::memory::Reservation;
use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, RowPosition};
use crate::position::Position;
use crate::producer::Acknowledged;

/// Longest latency that the histogram tells apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// What a submitted batch leaves behind when its bytes are recycled.
#[derive(Debug)]
pub(super) struct Departure {
    /// Number of the batch, from 1.
    pub(super) ordinal: u64,
    /// Position after the last transaction that ended in it.
    end: Option<Position>,
    /// Its last row.
    through: Option<RowPosition>,
    /// When its first bytes were read.
    read_at: Option<Instant>,
    /// Bytes received.
    pub(super) bytes: usize,
}

impl Departure {
    /// Notes what has to be known of `batch` after it was encoded.
    pub(super) fn of(ordinal: u64, batch: &Batch) -> Self {
        Self {
            ordinal,
            end: batch.end.clone(),
            through: last_row(batch),
            read_at: batch.read_at,
            bytes: batch.bytes.len(),
        }
    }
}

fn last_row(batch: &Batch) -> Option<RowPosition> {
    let event = batch.events.last()?;
    let group = batch.groups.get(event.group as usize)?;
    let transaction = batch.transactions.get(group.transaction as usize)?;
    let text = |span: protocol::Span| {
        let bytes = span.of(&batch.text)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    Some(RowPosition {
        file: text(transaction.file)?,
        offset: transaction.offset,
        gtid: text(transaction.gtid),
        row: group.first_row + u64::from(event.row),
    })
}

#[derive(Debug)]
struct InFlight {
    departure: Departure,
    changes: u64,
    records: u64,
    bytes: u64,
    /// Held until the broker has the records.
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

/// Batches in flight in order, and the checkpoint as it would be written now.
#[derive(Debug)]
pub(super) struct Ledger {
    in_flight: VecDeque<InFlight>,
    checkpoint: Checkpoint,
    /// Whether the checkpoint differs from what was saved last.
    dirty: bool,
    totals: Totals,
    /// Microseconds from read to acknowledged, one count per record.
    latency: Histogram<u64>,
    first_acknowledged_at: Option<Instant>,
    last_acknowledged_at: Option<Instant>,
}

impl Ledger {
    pub(super) fn new(checkpoint: Checkpoint) -> Self {
        Self {
            in_flight: VecDeque::new(),
            checkpoint,
            dirty: true,
            totals: Totals::default(),
            // Three significant digits up to an hour: bounds that the constructor accepts by its own documentation.
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .unwrap_or_else(|_| Histogram::new(3).unwrap_or_else(|_| unreachable!())),
            first_acknowledged_at: None,
            last_acknowledged_at: None,
        }
    }

    /// A batch is encoded and handed to the producer.
    pub(super) fn departed(
        &mut self,
        departure: Departure,
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
            changes,
            records,
            bytes,
            _memory: memory,
        });
    }

    /// Kafka has everything of a batch. Returns false for an ordinal that is not the oldest in flight: a defect of the producer.
    #[must_use]
    pub(super) fn acknowledged(
        &mut self,
        acknowledged: &Acknowledged,
        topic_name: impl Fn(u32) -> Option<String>,
        now: Instant,
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
        if let Some(read_at) = front.departure.read_at.filter(|_| front.records > 0) {
            let waited = now.saturating_duration_since(read_at).as_micros();
            let waited = u64::try_from(waited).unwrap_or(u64::MAX).clamp(1, LATENCY_US_MAX);
            self.latency.saturating_record_n(waited, front.records);
        }
        if front.records > 0 {
            self.first_acknowledged_at.get_or_insert(now);
            self.last_acknowledged_at = Some(now);
        }
        for (topic_id, partition, next_offset) in &acknowledged.offsets {
            if let Some(topic) = topic_name(*topic_id) {
                self.checkpoint.set_offset(&topic, *partition, *next_offset);
                self.dirty = true;
            }
        }
        if let Some(end) = front.departure.end {
            self.dirty |= self.checkpoint.position != end;
            self.checkpoint.position = end;
        }
        if front.departure.through.is_some() {
            self.checkpoint.through = front.departure.through;
            self.dirty = true;
        }
        true
    }

    /// Changes the checkpoint for another reason than an acknowledgement (new topics, a new producer id, another server).
    pub(super) fn amend(&mut self, change: impl FnOnce(&mut Checkpoint)) {
        change(&mut self.checkpoint);
        self.dirty = true;
    }

    /// The checkpoint to write, if it differs from the last one taken.
    pub(super) fn take_unsaved(&mut self) -> Option<Checkpoint> {
        std::mem::take(&mut self.dirty).then(|| self.checkpoint.clone())
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
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

    pub(super) fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// From the first to the last acknowledgement.
    pub(super) fn acknowledged_within(&self) -> Duration {
        match (self.first_acknowledged_at, self.last_acknowledged_at) {
            (Some(first), Some(last)) => last.saturating_duration_since(first),
            _ => Duration::ZERO,
        }
    }
}
