//! One partition's log: the batches as they were received, their offsets beside them, and what its producers have written.
//!
//! Offsets and leader epoch stand outside of a batch's checksum. They are kept beside the batch and put in when it is fetched,
//! so that an append touches no byte of it.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use protocol::kafka::record_batch::{BatchHeader, Decoder};

/// Batches of one producer that a repeated request can still be answered for; the Java broker keeps as many.
const REMEMBERED_BATCHES: usize = 5;

/// Base offset, length and leader epoch: what is put in front of a stored batch's remaining bytes.
const ASSIGNED_LEN: usize = 16;

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: i64,
    /// The batch was there already and nothing was written.
    pub duplicate: bool,
}

#[derive(Debug)]
struct Stored {
    base_offset: i64,
    next_offset: i64,
    leader_epoch: i32,
    max_timestamp: i64,
    appended_at: Instant,
    bytes: Bytes,
}

#[derive(Debug)]
struct ProducerState {
    epoch: i16,
    /// First sequence, last sequence, base offset; latest last.
    batches: VecDeque<(i32, i32, i64)>,
}

/// Figures of one partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Records written.
    pub records: u64,
    /// Bytes of their batches, as received.
    pub bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Batches that came again and were answered without being written.
    pub duplicates: u64,
    /// When the first batch was written.
    pub first_append: Option<Instant>,
    /// When the last batch was written.
    pub last_append: Option<Instant>,
}

/// A partition.
#[derive(Debug)]
pub(super) struct Partition {
    batches: Vec<Stored>,
    /// Batches are counted and not kept.
    discard: bool,
    next_offset: i64,
    /// Set: consumers see no further than this.
    held_high_watermark: Option<i64>,
    /// Set: what every append is refused with.
    pub(super) refusal: Option<ResponseError>,
    producers: HashMap<i64, ProducerState>,
    /// Node that leads it.
    pub(super) leader: i32,
    /// Epochs and the offsets they begin at, oldest first; never empty.
    epochs: Vec<(i32, i64)>,
    figures: Figures,
}

impl Partition {
    pub(super) fn new(leader: i32, discard: bool) -> Self {
        Self {
            batches: Vec::new(),
            discard,
            next_offset: 0,
            held_high_watermark: None,
            refusal: None,
            producers: HashMap::new(),
            leader,
            epochs: vec![(0, 0)],
            figures: Figures::default(),
        }
    }

    /// Offset that the next record gets.
    pub(super) fn log_end(&self) -> i64 {
        self.next_offset
    }

    /// First offset that consumers do not see yet.
    pub(super) fn high_watermark(&self) -> i64 {
        self.held_high_watermark
            .unwrap_or(i64::MAX)
            .min(self.next_offset)
    }

    pub(super) fn hold_high_watermark(&mut self, at: Option<i64>) {
        self.held_high_watermark = at;
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        self.epochs.last().map_or(0, |(epoch, _)| *epoch)
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures
    }

    pub(super) fn elect(&mut self, leader: i32) {
        self.leader = leader;
        self.epochs
            .push((self.leader_epoch() + 1, self.next_offset));
    }

    /// The epoch at or below `epoch` and the offset where it ends; `(-1, -1)` for one that has not begun.
    pub(super) fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        if epoch > self.leader_epoch() {
            return (-1, -1);
        }
        let after = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let end = self
            .epochs
            .get(after)
            .map_or(self.next_offset, |(_, start)| *start);
        let known = after.checked_sub(1).and_then(|i| self.epochs.get(i));
        (known.map_or(-1, |(known, _)| *known), end)
    }

    /// Appends a batch whose checksum has been verified.
    pub(super) fn append(
        &mut self,
        header: &BatchHeader,
        bytes: Bytes,
        now: Instant,
    ) -> Result<Appended, ResponseError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        if header.producer_id >= 0
            && let Some(base_offset) = self.duplicate_of(header)?
        {
            self.figures.duplicates += 1;
            return Ok(Appended {
                base_offset,
                duplicate: true,
            });
        }
        let base_offset = self.next_offset;
        self.next_offset += i64::from(header.records);
        if header.producer_id >= 0 {
            self.remember(header, base_offset);
        }
        self.figures.records += u64::from(header.records.unsigned_abs());
        self.figures.bytes += bytes.len() as u64;
        self.figures.batches += 1;
        self.figures.first_append.get_or_insert(now);
        self.figures.last_append = Some(now);
        if self.discard {
            return Ok(Appended {
                base_offset,
                duplicate: false,
            });
        }
        self.batches.push(Stored {
            base_offset,
            next_offset: self.next_offset,
            leader_epoch: self.leader_epoch(),
            max_timestamp: header.max_timestamp,
            appended_at: now,
            bytes,
        });
        Ok(Appended {
            base_offset,
            duplicate: false,
        })
    }

    /// The base offset of the same batch, written before; `None` for the one that is due now. As
    /// `ProducerAppendInfo.checkSequence` of Kafka 3.9 has it, which lets an unknown producer begin anywhere.
    fn duplicate_of(&self, header: &BatchHeader) -> Result<Option<i64>, ResponseError> {
        let first = header.base_sequence;
        let last = last_sequence(header);
        let Some(known) = self.producers.get(&header.producer_id) else {
            return Ok(None);
        };
        if header.producer_epoch < known.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > known.epoch {
            return if first == 0 {
                Ok(None)
            } else {
                Err(ResponseError::OutOfOrderSequenceNumber)
            };
        }
        let same = known
            .batches
            .iter()
            .find(|(f, l, _)| (*f, *l) == (first, last));
        if let Some((.., base_offset)) = same {
            return Ok(Some(*base_offset));
        }
        match known.batches.back() {
            Some((_, latest, _)) if first == next_sequence(*latest) => Ok(None),
            Some((_, latest, _)) if last <= *latest => Err(ResponseError::DuplicateSequenceNumber),
            Some(_) => Err(ResponseError::OutOfOrderSequenceNumber),
            None => Ok(None),
        }
    }

    fn remember(&mut self, header: &BatchHeader, base_offset: i64) {
        let epoch = header.producer_epoch;
        let state = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| ProducerState {
                epoch,
                batches: VecDeque::new(),
            });
        if state.epoch != epoch {
            state.epoch = epoch;
            state.batches.clear();
        }
        if state.batches.len() == REMEMBERED_BATCHES {
            state.batches.pop_front();
        }
        state
            .batches
            .push_back((header.base_sequence, last_sequence(header), base_offset));
    }

    /// Base offset of every batch, and when it was written.
    pub(super) fn appends(&self) -> Vec<(i64, Instant)> {
        let batches = self.batches.iter();
        batches
            .map(|batch| (batch.base_offset, batch.appended_at))
            .collect()
    }

    /// Batches from the one that holds `offset` up to the high watermark, at most `max_bytes`, but the first one whatever its
    /// size where `at_least_one` says so.
    pub(super) fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Bytes, ResponseError> {
        if offset < 0 || offset > self.next_offset {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let first = self
            .batches
            .partition_point(|batch| batch.next_offset <= offset);
        let visible = self.high_watermark();
        let mut length = 0;
        let chosen: Vec<_> = self.batches[first..]
            .iter()
            .take_while(|batch| batch.next_offset <= visible)
            .take_while(|batch| {
                let fits = length + batch.bytes.len() <= max_bytes || (length == 0 && at_least_one);
                length += batch.bytes.len();
                fits
            })
            .collect();
        let mut out = BytesMut::with_capacity(chosen.iter().map(|batch| batch.bytes.len()).sum());
        for batch in chosen {
            out.put_i64(batch.base_offset);
            out.put_slice(&batch.bytes[8..12]);
            out.put_i32(batch.leader_epoch);
            out.put_slice(&batch.bytes[ASSIGNED_LEN..]);
        }
        Ok(out.freeze())
    }

    /// Timestamp and offset of the first record at or after `timestamp_ms`; `(-1, -1)` where there is none.
    pub(super) fn offset_at(&self, timestamp_ms: i64) -> (i64, i64) {
        let found = self.batches.iter().find(|batch| {
            batch.max_timestamp >= timestamp_ms && batch.next_offset <= self.high_watermark()
        });
        let Some(batch) = found else {
            return (-1, -1);
        };
        let mut decoder = Decoder::new();
        let Ok(Some((header, records))) = decoder.decode(&batch.bytes) else {
            return (batch.max_timestamp, batch.base_offset);
        };
        // A stored batch has the offsets that its producer gave it.
        let assigned = batch.base_offset - header.base_offset;
        records
            .filter_map(Result::ok)
            .find(|record| record.timestamp_ms >= timestamp_ms)
            .map_or((-1, -1), |record| {
                (record.timestamp_ms, assigned + record.offset)
            })
    }

    /// Latest timestamp and the offset of the last record of its batch; `(-1, -1)` where nothing is written.
    pub(super) fn max_timestamp(&self) -> (i64, i64) {
        self.batches
            .iter()
            .max_by_key(|batch| batch.max_timestamp)
            .map_or((-1, -1), |batch| {
                (batch.max_timestamp, batch.next_offset - 1)
            })
    }
}

fn last_sequence(header: &BatchHeader) -> i32 {
    let last = i64::from(header.base_sequence) + i64::from(header.last_offset_delta);
    // Sequences go on at 0 behind i32::MAX.
    (last & i64::from(i32::MAX)) as i32
}

fn next_sequence(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use protocol::kafka::Compression;
    use protocol::kafka::record_batch::{self, Builder};

    use super::*;

    fn batch(records: usize, epoch: i16, sequence: i32) -> (BatchHeader, Bytes) {
        let mut builder = Builder::new(Compression::None);
        for i in 0..records {
            builder
                .append(1000 + i as i64, None, Some(b"v"), &[])
                .unwrap();
        }
        let mut bytes = builder.finish().unwrap();
        record_batch::stamp(&mut bytes, 1, epoch, sequence).unwrap();
        let header = BatchHeader::parse(&bytes).unwrap().unwrap();
        (header, Bytes::from(bytes))
    }

    fn append(
        partition: &mut Partition,
        records: usize,
        epoch: i16,
        sequence: i32,
    ) -> Result<(i64, bool), i16> {
        let (header, bytes) = batch(records, epoch, sequence);
        partition
            .append(&header, bytes, crate::clock::now())
            .map(|appended| (appended.base_offset, appended.duplicate))
            .map_err(|error| error.code())
    }

    #[test]
    fn sequences_are_checked_as_kafka_does() {
        let mut partition = Partition::new(0, false);
        assert_eq!(append(&mut partition, 3, 0, 0), Ok((0, false)));
        assert_eq!(append(&mut partition, 2, 0, 3), Ok((3, false)));
        assert_eq!(append(&mut partition, 3, 0, 0), Ok((0, true)));
        assert_eq!(append(&mut partition, 2, 0, 3), Ok((3, true)));
        assert_eq!(append(&mut partition, 1, 0, 7), Err(45));
        assert_eq!(append(&mut partition, 1, 0, 1), Err(46));
        assert_eq!(append(&mut partition, 1, 1, 5), Err(45));
        assert_eq!(append(&mut partition, 1, 1, 0), Ok((5, false)));
        assert_eq!(append(&mut partition, 1, 0, 5), Err(47));
        for sequence in 1..6 {
            assert_eq!(
                append(&mut partition, 1, 1, sequence),
                Ok((5 + i64::from(sequence), false))
            );
        }
        assert_eq!(append(&mut partition, 1, 1, 1), Ok((6, true)));
        assert_eq!(
            append(&mut partition, 1, 1, 0),
            Err(46),
            "older than the five remembered"
        );
        assert_eq!(partition.figures().records, 11);
        assert_eq!(partition.figures().duplicates, 3);
    }

    #[test]
    fn sequences_go_on_behind_the_largest() {
        let mut partition = Partition::new(0, false);
        assert_eq!(append(&mut partition, 3, 0, i32::MAX - 1), Ok((0, false)));
        assert_eq!(append(&mut partition, 1, 0, 1), Ok((3, false)));
    }

    #[test]
    fn reads_start_at_the_batch_that_holds_the_offset_and_end_at_the_high_watermark() {
        let mut partition = Partition::new(0, false);
        for sequence in [0, 10, 20] {
            append(&mut partition, 10, 0, sequence).unwrap();
        }
        let one = batch(10, 0, 0).1.len();
        let offsets = |bytes: Bytes| {
            let mut rest = &bytes[..];
            let mut offsets = Vec::new();
            while let Some(header) = BatchHeader::parse(rest).unwrap() {
                offsets.push(header.base_offset);
                rest = &rest[header.encoded_len()..];
            }
            offsets
        };
        assert_eq!(
            offsets(partition.read(0, usize::MAX, false).unwrap()),
            [0, 10, 20]
        );
        assert_eq!(
            offsets(partition.read(19, usize::MAX, false).unwrap()),
            [10, 20]
        );
        assert_eq!(offsets(partition.read(19, one, false).unwrap()), [10]);
        assert_eq!(
            offsets(partition.read(0, one - 1, false).unwrap()),
            Vec::<i64>::new()
        );
        assert_eq!(offsets(partition.read(0, one - 1, true).unwrap()), [0]);
        assert_eq!(
            offsets(partition.read(30, one, true).unwrap()),
            Vec::<i64>::new()
        );
        assert_eq!(
            partition.read(31, one, true),
            Err(ResponseError::OffsetOutOfRange)
        );
        partition.hold_high_watermark(Some(20));
        assert_eq!(
            offsets(partition.read(0, usize::MAX, false).unwrap()),
            [0, 10]
        );
        assert_eq!((partition.high_watermark(), partition.log_end()), (20, 30));
        assert_eq!(partition.offset_at(1004), (1004, 4));
        partition.hold_high_watermark(None);
        assert_eq!(partition.offset_at(1010), (-1, -1));
        assert_eq!(partition.max_timestamp(), (1009, 29));
    }

    #[test]
    fn epochs_end_where_the_next_begins() {
        let mut partition = Partition::new(0, false);
        append(&mut partition, 4, 0, 0).unwrap();
        partition.elect(1);
        append(&mut partition, 4, 0, 4).unwrap();
        assert_eq!(partition.end_of_epoch(0), (0, 4));
        assert_eq!(partition.end_of_epoch(1), (1, 8));
        assert_eq!(partition.end_of_epoch(2), (-1, -1));
    }
}
