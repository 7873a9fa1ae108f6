//! The records that a change becomes.
//!
//! | change | records |
//! |---|---|
//! | create | `c` |
//! | update | `u` |
//! | delete | `d`, tombstone |
//! | update of the key | under the old key `d` and tombstone, both with `__debezium.newkey`; under the new key `c` with `__debezium.oldkey` |
//!
//! Every record has the header `pos`, with GTIDs also `gtid`; `unchanged` names columns that are null because the server did not
//! send them.

use std::time::Duration;

use protocol::kafka::record_batch::{Builder, Header};

use crate::batch::{Batch, Event, RowGroup};
use crate::settled::Settled;

use super::envelope::Envelope;
use super::error::EncodeErrorKind;
use super::mysql::row::{RowImage, is_key_kept, write_key, write_row, write_unchanged};
use super::mysql::value::ValueWriter;
use super::partition_of;
use super::template::Template;

/// One record of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The envelope's `op`; `None` for a tombstone.
    operation: Option<u8>,
    /// Whether its key is the one before the change.
    old_key: bool,
    /// Whether it names the change's other key in a header.
    names_other_key: bool,
}

impl Step {
    pub(super) const CREATE: Self = Self::of(Some(b'c'), false, false);
    pub(super) const UPDATE: Self = Self::of(Some(b'u'), false, false);
    pub(super) const DELETE: Self = Self::of(Some(b'd'), true, false);
    pub(super) const TOMBSTONE: Self = Self::of(None, true, false);
    /// The old key of an update that changes the key.
    pub(super) const LEAVE: Self = Self::of(Some(b'd'), true, true);
    pub(super) const LEAVE_TOMBSTONE: Self = Self::of(None, true, true);
    /// The new key of an update that changes the key.
    pub(super) const ARRIVE: Self = Self::of(Some(b'c'), false, true);

    const fn of(operation: Option<u8>, old_key: bool, names_other_key: bool) -> Self {
        Self {
            operation,
            old_key,
            names_other_key,
        }
    }

    pub(super) const fn is_tombstone(self) -> bool {
        self.operation.is_none()
    }
}

/// Which images of a group hold every column.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Full {
    before: bool,
    after: bool,
}

/// The partitions of an update's keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keys {
    /// The update keeps the key.
    Kept(u32),
    /// The update changes the key.
    Changed { old: u32, new: u32 },
}

/// A row change with its images found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    template: &'a Template,
    before: Option<RowImage<'a>>,
    after: Option<RowImage<'a>>,
    /// Number within its group.
    number: u32,
    /// What Kafka has already.
    pub(super) settled: Option<&'a Settled>,
}

impl<'a> Row<'a> {
    #[inline]
    pub(super) fn new(
        batch: &'a Batch,
        group: &RowGroup,
        event: &Event,
        template: &'a Template,
        full: Full,
        settled: Option<&'a Settled>,
    ) -> Result<Self, EncodeErrorKind> {
        let image = |present: protocol::Span, bytes: protocol::Span, partial, full| {
            if bytes.is_none() {
                return Ok(None);
            }
            match (present.of(&batch.bytes), bytes.of(&batch.bytes)) {
                (Some(present), Some(bytes)) => Ok(Some(RowImage {
                    present,
                    bytes,
                    partial,
                    full,
                })),
                _ => Err(EncodeErrorKind::Batch("a row image outside of the batch")),
            }
        };
        Ok(Self {
            template,
            before: image(group.columns_before, event.before, false, full.before)?,
            after: image(
                group.columns_after,
                event.after,
                group.partial_json,
                full.after,
            )?,
            number: event.row,
            settled,
        })
    }
}

/// Writes records; keeps what rows of one group share, and the keys of the present row.
#[derive(Debug)]
pub(super) struct RecordWriter {
    envelope: Envelope,
    values: ValueWriter,
    old_key: Vec<u8>,
    new_key: Vec<u8>,
    /// `unchanged` of records that show the before image, and of those that show the after image.
    unchanged_before: Vec<u8>,
    unchanged_after: Vec<u8>,
    full: Full,
    timestamp_ms: i64,
}

impl RecordWriter {
    pub(super) fn new(row_max: usize) -> Self {
        Self {
            envelope: Envelope::default(),
            values: ValueWriter::new(row_max),
            old_key: Vec::new(),
            new_key: Vec::new(),
            unchanged_before: Vec::new(),
            unchanged_after: Vec::new(),
            full: Full::default(),
            timestamp_ms: 0,
        }
    }

    /// Begins a batch that is encoded at `now`, since 1970.
    pub(super) fn start(&mut self, now: Duration) {
        self.envelope.start(now);
        self.timestamp_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    }

    /// Prepares for the rows of `group`.
    pub(super) fn prepare(
        &mut self,
        batch: &Batch,
        group: &RowGroup,
        template: &Template,
    ) -> Result<(), EncodeErrorKind> {
        self.envelope.prepare(batch, group, template)?;
        let before = group.columns_before.of(&batch.bytes);
        let after = group.columns_after.of(&batch.bytes);
        self.full = Full {
            before: before.is_some_and(|present| is_full(template, present)),
            after: after.is_some_and(|present| is_full(template, present)) && !group.partial_json,
        };
        self.unchanged_before.clear();
        self.unchanged_after.clear();
        if let Some(present) = before {
            write_unchanged(&mut self.unchanged_before, template, present, None);
        }
        if let Some(present) = after {
            write_unchanged(&mut self.unchanged_after, template, present, before);
        }
        Ok(())
    }

    /// Turns to the transaction's `row`th row.
    #[inline]
    pub(super) fn turn_to(&mut self, row: u64) {
        self.envelope.turn_to(row);
    }

    /// Whether what the present row puts into `partition` is in Kafka already.
    #[cold]
    pub(super) fn is_settled(&self, settled: &Settled, row: &Row<'_>, partition: u32) -> bool {
        let (file, offset, gtid, number) = self.envelope.place();
        let topic_id = row.template.route.topic_id;
        settled.is_settled(topic_id, partition as i32, file, offset, gtid, number)
    }

    pub(super) fn zero_dates(&self) -> u64 {
        self.values.zero_dates
    }

    /// Writes the key after the change and returns its partition.
    #[inline]
    pub(super) fn write_new_key(&mut self, row: &Row<'_>) -> Result<u32, EncodeErrorKind> {
        let Some(after) = row.after else {
            return Err(EncodeErrorKind::Batch("a change without its after image"));
        };
        key_and_partition(&mut self.new_key, row, after, row.before, &mut self.values)
    }

    /// Writes the key before the change and returns its partition.
    #[inline]
    pub(super) fn write_old_key(&mut self, row: &Row<'_>) -> Result<u32, EncodeErrorKind> {
        let Some(before) = row.before else {
            return Err(EncodeErrorKind::Batch("a change without its before image"));
        };
        // What only the after image holds has changed: the old key is unknown then, and guessing would split the row's history.
        key_and_partition(&mut self.old_key, row, before, None, &mut self.values)
    }

    /// Writes both keys of an update and returns their partitions; one key and the same partition twice where it is kept.
    #[inline]
    pub(super) fn write_both_keys(&mut self, row: &Row<'_>) -> Result<Keys, EncodeErrorKind> {
        let new = self.write_new_key(row)?;
        if let (Some(before), Some(after)) = (row.before, row.after)
            && is_key_kept(row.template, before, after)
        {
            return Ok(Keys::Kept(new));
        }
        let old = self.write_old_key(row)?;
        Ok(match self.old_key == self.new_key {
            true => Keys::Kept(new),
            false => Keys::Changed { old, new },
        })
    }

    /// Which images of the present group hold every column.
    #[inline]
    pub(super) fn full(&self) -> Full {
        self.full
    }

    /// The key of a row's records, for messages.
    #[cold]
    pub(super) fn key_text(&self, steps: &[Step]) -> String {
        let old = steps.first().is_some_and(|step| step.old_key);
        let key = if old { &self.old_key } else { &self.new_key };
        String::from_utf8_lossy(key).into_owned()
    }

    /// Appends one record of the present row.
    #[inline]
    pub(super) fn append(
        &mut self,
        builder: &mut Builder,
        step: Step,
        row: &Row<'_>,
    ) -> Result<(), EncodeErrorKind> {
        let Self {
            envelope,
            values,
            old_key,
            new_key,
            unchanged_before,
            unchanged_after,
            timestamp_ms,
            ..
        } = self;
        let (key, other_key) = match step.old_key {
            true => (&*old_key, &*new_key),
            false => (&*new_key, &*old_key),
        };
        let mut headers = Headers::new(envelope);
        if step.names_other_key {
            let name = match step.old_key {
                true => "__debezium.newkey",
                false => "__debezium.oldkey",
            };
            headers.push(Header::new(name, other_key));
        }
        let key = (!key.is_empty()).then_some(&**key);
        let Some(operation) = step.operation else {
            return Ok(builder.append(*timestamp_ms, key, None, headers.as_slice())?);
        };
        let unchanged = match operation {
            b'd' => unchanged_before,
            _ => unchanged_after,
        };
        if !unchanged.is_empty() {
            headers.push(Header::new("unchanged", unchanged));
        }
        builder.append_with(*timestamp_ms, key, headers.as_slice(), |out| {
            let Row {
                template,
                before,
                after,
                number,
                ..
            } = *row;
            out.extend_from_slice(b"{\"before\":");
            match before.filter(|_| operation != b'c') {
                Some(before) => write_row(out, template, before, None, values)?,
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"after\":");
            match after.filter(|_| operation != b'd') {
                Some(after) => write_row(out, template, after, before, values)?,
                None => out.extend_from_slice(b"null"),
            }
            envelope.write_end(out, number, operation);
            Ok(())
        })
    }
}

fn key_and_partition(
    key: &mut Vec<u8>,
    row: &Row<'_>,
    image: RowImage<'_>,
    other: Option<RowImage<'_>>,
    values: &mut ValueWriter,
) -> Result<u32, EncodeErrorKind> {
    if row.template.key.is_empty() {
        key.clear();
        return Ok(row.template.null_key_partition);
    }
    write_key(key, row.template, image, other, values)?;
    Ok(partition_of(key, row.template.route.partitions))
}

fn is_full(template: &Template, present: &[u8]) -> bool {
    let mut columns = 0..template.mysql_columns().len();
    columns.all(|n| {
        present
            .get(n / 8)
            .is_some_and(|byte| byte >> (n % 8) & 1 != 0)
    })
}

/// The headers of a record, without a vector.
struct Headers<'a> {
    headers: [Header<'a>; 4],
    count: usize,
}

impl<'a> Headers<'a> {
    #[inline]
    fn new(envelope: &'a Envelope) -> Self {
        let empty = Header::new("", b"");
        let mut headers = Self {
            headers: [Header::new("pos", envelope.position()), empty, empty, empty],
            count: 1,
        };
        if let Some(gtid) = envelope.gtid() {
            headers.push(Header::new("gtid", gtid));
        }
        headers
    }

    #[inline]
    fn push(&mut self, header: Header<'a>) {
        if let Some(place) = self.headers.get_mut(self.count) {
            *place = header;
            self.count += 1;
        }
    }

    #[inline]
    fn as_slice(&self) -> &[Header<'a>] {
        &self.headers[..self.count]
    }
}
