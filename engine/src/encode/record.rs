//! The records that a change becomes.
//!
//! | change | records |
//! |---|---|
//! | create | `c` |
//! | update | `u` |
//! | delete | `d`, tombstone |
//! | truncate | `t` without a key |
//! | update of the key | under the old key `d` and tombstone, both with `__debezium.newkey`; under the new key `c` with `__debezium.oldkey` |
//!
//! Every record has the header `pos`, with GTIDs also `gtid`; `unchanged` names columns that are null because the server did not
//! send them.

use std::time::Duration;

use protocol::kafka::record_batch::{Builder, Header};

use crate::batch::{Batch, Event, RowGroup};
use crate::settled::Settled;

use super::dialect::Dialect;
use super::envelope::Envelope;
use super::error::EncodeErrorKind;
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
    pub(super) const TRUNCATE: Self = Self::of(Some(b't'), false, false);
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
pub(super) struct Row<'a, I> {
    template: &'a Template,
    before: Option<I>,
    after: Option<I>,
    /// Number within its group.
    number: u32,
    /// What Kafka has already.
    pub(super) settled: Option<&'a Settled>,
}

/// Writes records; keeps what rows of one group share, and the keys of the present row.
#[derive(Debug)]
pub(super) struct RecordWriter<D> {
    envelope: Envelope,
    pub(super) dialect: D,
    old_key: Vec<u8>,
    new_key: Vec<u8>,
    timestamp_ms: i64,
}

impl<D: Dialect> RecordWriter<D> {
    pub(super) fn new(dialect: D) -> Self {
        Self {
            envelope: Envelope::default(),
            dialect,
            old_key: Vec::new(),
            new_key: Vec::new(),
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
        self.dialect
            .prepare(&mut self.envelope, batch, group, template)
    }

    /// Turns to event number `index` of the batch, a row of the present group.
    #[inline]
    pub(super) fn turn_to<'a>(
        &mut self,
        batch: &'a Batch,
        index: usize,
        event: &Event,
        group: &RowGroup,
        template: &'a Template,
        settled: Option<&'a Settled>,
    ) -> Result<Row<'a, D::Image<'a>>, EncodeErrorKind> {
        let images = self.dialect.images(batch, group, event)?;
        self.dialect.turn_to(batch, index)?;
        self.envelope
            .turn_to(group.first_row + u64::from(event.row));
        Ok(Row {
            template,
            before: images.before,
            after: images.after,
            number: event.row,
            settled,
        })
    }

    /// Whether what the present row puts into `partition` is in Kafka already.
    #[cold]
    pub(super) fn is_settled(
        &self,
        settled: &Settled,
        row: &Row<'_, D::Image<'_>>,
        partition: u32,
    ) -> bool {
        let (file, offset, gtid, number) = self.envelope.place();
        let topic_id = row.template.route.topic_id;
        settled.is_settled(topic_id, partition as i32, file, offset, gtid, number)
    }

    /// Writes the key after the change and returns its partition.
    #[inline]
    pub(super) fn write_new_key(
        &mut self,
        row: &Row<'_, D::Image<'_>>,
    ) -> Result<u32, EncodeErrorKind> {
        let Some(after) = row.after else {
            return Err(EncodeErrorKind::Batch("a change without its after image"));
        };
        key_and_partition(
            &mut self.new_key,
            row.template,
            after,
            row.before,
            &mut self.dialect,
        )
    }

    /// Writes the key before the change and returns its partition.
    #[inline]
    pub(super) fn write_old_key(
        &mut self,
        row: &Row<'_, D::Image<'_>>,
    ) -> Result<u32, EncodeErrorKind> {
        let Some(before) = row.before else {
            return Err(EncodeErrorKind::Batch("a change without its before image"));
        };
        // What only the after image holds has changed: the old key is unknown then, and guessing would split the row's history.
        key_and_partition(
            &mut self.old_key,
            row.template,
            before,
            None,
            &mut self.dialect,
        )
    }

    /// Leaves the key empty and returns the partition of the table's records without one.
    #[cold]
    pub(super) fn write_no_key(&mut self, row: &Row<'_, D::Image<'_>>) -> u32 {
        self.new_key.clear();
        row.template.null_key_partition
    }

    /// Writes both keys of an update and returns their partitions; one key and the same partition twice where it is kept.
    #[inline]
    pub(super) fn write_both_keys(
        &mut self,
        row: &Row<'_, D::Image<'_>>,
    ) -> Result<Keys, EncodeErrorKind> {
        let new = self.write_new_key(row)?;
        if row.before.is_none() && !D::UPDATES_HAVE_BEFORE {
            if let Some(column) = row.template.unseen_key_column {
                let column = row.template.column_name(usize::from(column));
                return Err(EncodeErrorKind::ReplicaIdentity { column });
            }
            return Ok(Keys::Kept(new));
        }
        if let (Some(before), Some(after)) = (row.before, row.after)
            && self.dialect.is_key_kept(row.template, before, after)
        {
            return Ok(Keys::Kept(new));
        }
        let old = self.write_old_key(row)?;
        Ok(match self.old_key == self.new_key {
            true => Keys::Kept(new),
            false => Keys::Changed { old, new },
        })
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
        row: &Row<'_, D::Image<'_>>,
    ) -> Result<(), EncodeErrorKind> {
        let Self {
            envelope,
            dialect,
            old_key,
            new_key,
            timestamp_ms,
        } = self;
        let (key, other_key) = match step.old_key {
            true => (&*old_key, &*new_key),
            false => (&*new_key, &*old_key),
        };
        let mut others = Others::default();
        if step.names_other_key {
            let name = match step.old_key {
                true => "__debezium.newkey",
                false => "__debezium.oldkey",
            };
            others.push(Header::new(name, other_key));
        }
        let key = (!key.is_empty()).then_some(&**key);
        let Some(operation) = step.operation else {
            let headers = envelope.headers(others.as_slice());
            return Ok(builder.append_null(*timestamp_ms, key, headers)?);
        };
        let unchanged = match operation {
            b'd' => &envelope.unchanged_before,
            _ => &envelope.unchanged_after,
        };
        if !unchanged.is_empty() {
            others.push(Header::new("unchanged", unchanged));
        }
        let headers = envelope.headers(others.as_slice());
        builder.append_prepared(*timestamp_ms, key, headers, |out, anchors| {
            let Row {
                template,
                before,
                after,
                number,
                ..
            } = *row;
            let shown = before.filter(|_| operation != b'c');
            anchors.mark(anchor::start(shown.is_some()), out);
            out.extend_from_slice(b"{\"before\":");
            match shown {
                Some(before) => {
                    dialect.write_row(out, template, before, None)?;
                    anchors.mark(anchor::after(operation), out);
                }
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"after\":");
            match after.filter(|_| operation != b'd') {
                Some(after) => dialect.write_row(out, template, after, before)?,
                None => out.extend_from_slice(b"null"),
            }
            dialect.write_end(envelope, out, anchors, number, operation);
            Ok(())
        })
    }
}

/// The texts that a record has in common with the one before, by the kinds of their anchors: what stands there takes most of a record.
pub(super) mod anchor {
    /// `,"source":{`
    pub(in crate::encode) const SOURCE: u8 = 0;
    /// What follows the row's first number in the source block.
    pub(in crate::encode) const SOURCE_REST: u8 = 1;
    /// What follows the last number in the source block.
    pub(in crate::encode) const TAIL: u8 = 2;

    /// `{"before":`, with a row behind it or null.
    pub(super) const fn start(has_before: bool) -> u8 {
        3 + has_before as u8
    }

    /// `,"after":` behind a row, with null behind it or a row.
    pub(super) const fn after(operation: u8) -> u8 {
        match operation {
            b'd' => 5,
            _ => 6,
        }
    }
}

#[inline]
fn key_and_partition<D: Dialect>(
    key: &mut Vec<u8>,
    template: &Template,
    image: D::Image<'_>,
    other: Option<D::Image<'_>>,
    dialect: &mut D,
) -> Result<u32, EncodeErrorKind> {
    if template.key.is_empty() {
        key.clear();
        return Ok(template.null_key_partition);
    }
    dialect.write_key(key, template, image, other)?;
    Ok(partition_of(key, template.route.partitions))
}

/// The headers that not every record has, without a vector.
struct Others<'a> {
    headers: [Header<'a>; 2],
    count: usize,
}

impl Default for Others<'_> {
    #[inline]
    fn default() -> Self {
        Self {
            headers: [Header::new("", b""); 2],
            count: 0,
        }
    }
}

impl<'a> Others<'a> {
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
