//! From row changes to Kafka records: a function of a [`Batch`].
//!
//! ```text
//! Batch ──┬─ events ─► key ─► murmur2 ─► partition ─► record batch (open, one per partition) ─► EncodedBatch
//!         └─ tables ─► Template (once per table version): names, quotes and envelope, prepared
//! ```
//! Values are decoded from the row image and written as JSON straight into the record batch that is sent; nothing is allocated per
//! row. Which record a change becomes, and what is in it: docs/formats.md.

mod binary;
mod dialect;
mod envelope;
mod error;
mod lanes;
mod mysql;
mod number;
mod postgres;
mod record;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod topic;

use std::sync::Arc;
use std::time::Duration;

use protocol::kafka::Compression;
use protocol::kafka::murmur2;
use protocol::postgres::Lsn;

use crate::batch::{Batch, Event, Operation, RowGroup};
use crate::config::{self, EncodeSettings};
use crate::encoded::EncodedBatch;
use crate::schema::Columns;
use crate::settled::Settled;

pub use error::{EncodeError, EncodeErrorKind};
pub use template::{Template, UnknownKeyColumn};
pub use topic::{TOPIC_NAME_MAX, TopicError, Topics, topic_name};

use dialect::Dialect;
use lanes::Lanes;
use mysql::MySql;
use postgres::Postgres;
use record::{Keys, RecordWriter, Row, Step};

/// Turns batches into record batches; one per thread, since it keeps its buffers.
pub struct Encoder {
    settings: Arc<EncodeSettings>,
    lanes: Lanes,
    mysql: RecordWriter<MySql>,
    postgres: RecordWriter<Postgres>,
}

impl Encoder {
    /// An encoder that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Arc<EncodeSettings>) -> Self {
        Self {
            lanes: Lanes::new(codec(settings.compression)),
            mysql: RecordWriter::new(MySql::new(settings.row_max)),
            postgres: RecordWriter::new(Postgres::default()),
            settings,
        }
    }

    /// Zero dates (`0000-00-00`, month or day 0, the zero TIMESTAMP) that were written as null so far.
    #[must_use]
    pub fn zero_dates(&self) -> u64 {
        self.mysql.dialect.zero_dates()
    }

    /// From the next batch on records are compressed by this.
    pub fn set_compression(&mut self, compression: config::Compression) {
        self.lanes.set_compression(codec(compression));
    }

    /// Encodes every change of `batch`: one or more record batches per partition that it touches, those of one partition in the order
    /// of the stream, each at most `batch_max` bytes, all records that one row puts into a partition in the same one.
    ///
    /// `templates` is parallel to `batch.tables`. Records that are `settled` are left out. `now` counts from 1970: the envelope's `ts_ms` and the records' timestamps.
    ///
    /// # Errors
    /// The first row that cannot become a record, by table, position and column. Nothing of the batch is handed out then.
    pub fn encode(
        &mut self,
        batch: &Batch,
        templates: &[Arc<Template>],
        settled: Option<&Settled>,
        now: Duration,
    ) -> Result<Vec<EncodedBatch>, EncodeError> {
        self.lanes.start(templates);
        let Self {
            settings,
            lanes,
            mysql,
            postgres,
        } = self;
        match batch.tables.first().map(|table| &table.columns) {
            Some(Columns::Postgres(_)) => Encoding {
                settings,
                lanes,
                records: postgres,
                settled,
            }
            .run(batch, templates, now)?,
            Some(Columns::MySql(_)) | None => Encoding {
                settings,
                lanes,
                records: mysql,
                settled,
            }
            .run(batch, templates, now)?,
        }
        self.lanes
            .finish()
            .map_err(|error| EncodeError::from(EncodeErrorKind::from(error)))
    }
}

/// The codec of a setting; that of `auto` before anything has been decided.
const fn codec(compression: config::Compression) -> Compression {
    match compression {
        config::Compression::None => Compression::None,
        config::Compression::Lz4 | config::Compression::Auto => Compression::Lz4,
        config::Compression::Zstd => Compression::Zstd,
        config::Compression::Snappy => Compression::Snappy,
        config::Compression::Gzip => Compression::Gzip,
    }
}

/// The encoding of one batch, whose source speaks `D`.
struct Encoding<'e, D> {
    settings: &'e EncodeSettings,
    lanes: &'e mut Lanes,
    records: &'e mut RecordWriter<D>,
    settled: Option<&'e Settled>,
}

impl<D: Dialect> Encoding<'_, D> {
    fn run(
        &mut self,
        batch: &Batch,
        templates: &[Arc<Template>],
        now: Duration,
    ) -> Result<(), EncodeError> {
        self.records.start(now);
        let mut present = None;
        for (index, event) in batch.events.iter().enumerate() {
            let encoded = group_of(batch, templates, event).and_then(|(group, template)| {
                if present != Some(event.group) {
                    self.records.prepare(batch, group, template)?;
                    present = Some(event.group);
                }
                self.encode_event(batch, group, template, index, event)
            });
            if let Err(kind) = encoded {
                return Err(placed(batch, event, kind));
            }
        }
        Ok(())
    }

    #[inline]
    fn encode_event(
        &mut self,
        batch: &Batch,
        group: &RowGroup,
        template: &Template,
        index: usize,
        event: &Event,
    ) -> Result<(), EncodeErrorKind> {
        let records = &mut *self.records;
        let row = records.turn_to(batch, index, event, group, template, self.settled)?;
        match event.operation {
            Operation::Create => {
                let partition = records.write_new_key(&row)?;
                self.put(group, partition, 1, &[Step::CREATE], &row)
            }
            Operation::Delete => {
                let partition = records.write_old_key(&row)?;
                self.put(group, partition, 1, &[Step::DELETE, Step::TOMBSTONE], &row)
            }
            Operation::Truncate => {
                let partition = records.write_no_key(&row);
                self.put(group, partition, 1, &[Step::TRUNCATE], &row)
            }
            Operation::Update => match records.write_both_keys(&row)? {
                Keys::Kept(partition) => self.put(group, partition, 1, &[Step::UPDATE], &row),
                Keys::Changed { old, new } if old == new => {
                    let steps = [Step::LEAVE, Step::LEAVE_TOMBSTONE, Step::ARRIVE];
                    self.put(group, new, 1, &steps, &row)
                }
                Keys::Changed { old, new } => {
                    self.put(group, old, 1, &[Step::LEAVE, Step::LEAVE_TOMBSTONE], &row)?;
                    self.put(group, new, 0, &[Step::ARRIVE], &row)
                }
            },
        }
    }

    /// Appends the records that the present row puts into one partition.
    #[inline]
    fn put(
        &mut self,
        group: &RowGroup,
        partition: u32,
        changes: u32,
        steps: &[Step],
        row: &Row<'_, D::Image<'_>>,
    ) -> Result<(), EncodeErrorKind> {
        let Self {
            settings,
            lanes,
            records,
            ..
        } = self;
        if row
            .settled
            .is_some_and(|settled| records.is_settled(settled, row, partition))
        {
            return Ok(());
        }
        let lane = lanes.lane(group.table, partition);
        let appended = lanes.append(lane, changes, |builder| {
            for step in steps {
                if settings.tombstones || !step.is_tombstone() {
                    records.append(builder, *step, row)?;
                }
            }
            Ok(())
        });
        match appended {
            Err(EncodeErrorKind::Oversize { size, limit, .. }) => Err(EncodeErrorKind::Oversize {
                key: records.key_text(steps).into(),
                size,
                limit,
            }),
            other => other,
        }
    }
}

/// The partition of a key's bytes among `partitions`, as Kafka's Java client chooses it.
fn partition_of(key: &[u8], partitions: u32) -> u32 {
    murmur2::partition(key, partitions.max(1))
}

#[inline]
fn group_of<'a>(
    batch: &'a Batch,
    templates: &'a [Arc<Template>],
    event: &Event,
) -> Result<(&'a RowGroup, &'a Template), EncodeErrorKind> {
    let group = batch
        .groups
        .get(event.group as usize)
        .ok_or(EncodeErrorKind::Batch("an event without its group"))?;
    let template = templates
        .get(group.table as usize)
        .ok_or(EncodeErrorKind::Batch("a table without its template"))?;
    Ok((group, template))
}

/// Says which row an error is about.
#[cold]
fn placed(batch: &Batch, event: &Event, kind: EncodeErrorKind) -> EncodeError {
    let mut error = EncodeError::from(kind);
    if let Some(group) = batch.groups.get(event.group as usize) {
        if let Some(table) = batch.tables.get(group.table as usize) {
            error.table = format!("{}.{}", table.schema, table.name).into();
        }
        if let Some(transaction) = batch.transactions.get(group.transaction as usize) {
            let place = match transaction.file.of(&batch.text) {
                Some(file) => format!("{}:{}", String::from_utf8_lossy(file), transaction.offset),
                None => Lsn(transaction.offset).to_string(),
            };
            let row = group.first_row + u64::from(event.row);
            error.position = format!("{place}/{row}").into();
        }
    }
    error
}
