//! ROWS events into row groups and row changes of a Batch.

use std::sync::Arc;

use protocol::mysql::event::{Header, Kind};
use protocol::mysql::gtid::Gtid;
use protocol::mysql::rows::{Rows, RowsKind};
use protocol::{DecodeError, Span};

use super::super::shapes;
use super::super::tables::Shape;
use super::super::transaction::Open;
use super::Decoder;
use crate::batch::{Event, Operation, RowGroup, Transaction};
use crate::schema::Table;
use crate::source::SourceError;

impl Decoder {
    /// A ROWS event: `base` is where it starts in the batch's bytes.
    #[inline]
    pub(super) fn rows(
        &mut self,
        sink: &mut Sink<'_>,
        header: &Header,
        rows: &Rows<'_>,
        base: usize,
        offset: u64,
    ) -> Result<(), SourceError> {
        let Some(open) = &mut self.open else {
            return Err(self.refuse(offset, IN_A_TRANSACTION));
        };
        let Some(entry) = self.tables.entry(rows.table_id) else {
            // The end of a statement without rows (`DUMMY_TABLE_ID`, MySQL 5.6 and MariaDB).
            if rows.column_count == 0 {
                return Ok(());
            }
            return Err(self.refuse(offset, IN_A_TRANSACTION));
        };
        let first_row = open.rows;
        let skip = match &self.delivered {
            Some(delivered) => delivered.rows.saturating_sub(first_row),
            None => 0,
        };
        let first_event = sink.events.len();
        let walked = match &entry.shape {
            Shape::Captured(table) => {
                let group = Group {
                    rows,
                    base,
                    header,
                    offset,
                    first_row,
                    skip,
                    row_max: self.row_max,
                };
                let names = Names {
                    batch: self.batch,
                    file_text: &mut self.file_text,
                };
                walk(sink, names, open, table, &mut entry.slot, &group)
            }
            _ => count(rows, entry.columns()),
        };
        let walked = match walked {
            Ok(walked) => walked,
            Err(Unwalkable::Event(error)) => {
                sink.events.truncate(first_event);
                return Err(self.unwalkable(rows.table_id, header.kind, offset, error));
            }
            Err(Unwalkable::Large(bytes)) => {
                sink.events.truncate(first_event);
                let table = match &entry.shape {
                    Shape::Captured(table) => format!("{}.{}", table.schema, table.name),
                    _ => String::new(),
                };
                let max = self.row_max;
                return Err(self.refuse(
                    offset,
                    format_args!(
                        "a row of {table} has {bytes} bytes, more than row_max ({max}); raise engine.row_max, or leave the \
                         table out by tables = [\"!{table}\"]"
                    ),
                ));
            }
        };
        open.rows += walked;
        let pushed = (sink.events.len() - first_event) as u64;
        if let Shape::Captured(_) = entry.shape {
            open.captured += walked;
            self.counters.rows += pushed;
        } else {
            self.counters.rows_filtered += walked;
        }
        Ok(())
    }

    /// A table's rows do not have the lengths that its columns give them.
    #[cold]
    pub(super) fn unwalkable(
        &mut self,
        table_id: u64,
        kind: Kind,
        offset: u64,
        error: DecodeError,
    ) -> SourceError {
        let gtid = self.open.as_ref().and_then(|open| open.gtid);
        let entry = self.tables.entry(table_id);
        let hidden = entry.and_then(|entry| {
            let columns = shapes::hidden_widths(entry.columns())?;
            Some(hidden_widths(&entry.name, &columns))
        });
        match hidden {
            Some(text) if matches!(gtid, Some(Gtid::MariaDb(_))) => {
                self.refuse(offset, text).because(error)
            }
            _ => self.unreadable(kind, offset, error),
        }
    }
}

const IN_A_TRANSACTION: &str = "rows come without their transaction and table: the position is inside a transaction; use one that \
     lies between two, as `walbrook position show` prints it";

/// Rows of a MariaDB table with temporal columns of the old form do not have the lengths that the server's present description of
/// the table gives them.
fn hidden_widths(table: &str, columns: &str) -> String {
    format!(
        "rows of {table} do not fit its present definition: columns {columns} are stored as before MariaDB 10.1, where the binary log \
         does not tell how many fractional digits, and so bytes, they have, and they had others here than now; run SET GLOBAL \
         mysql56_temporal_format = ON, then ALTER TABLE {table} FORCE, and go on behind it by `walbrook position set` after a new \
         snapshot of the table, or leave it out by tables = [\"!{table}\"]"
    )
}

/// The parts of a batch that are not its bytes.
pub(super) struct Sink<'b> {
    pub(super) text: &'b mut Vec<u8>,
    pub(super) tables: &'b mut Vec<Arc<Table>>,
    pub(super) transactions: &'b mut Vec<Transaction>,
    pub(super) groups: &'b mut Vec<RowGroup>,
    pub(super) events: &'b mut Vec<Event>,
}

/// What the texts of a batch need.
pub(super) struct Names<'b> {
    pub(super) batch: u64,
    pub(super) file_text: &'b mut Option<(Arc<str>, Span)>,
}

/// A ROWS event and what its rows share.
struct Group<'e> {
    rows: &'e Rows<'e>,
    base: usize,
    header: &'e Header,
    offset: u64,
    first_row: u64,
    /// This many rows are passed over.
    skip: u64,
    row_max: usize,
}

enum Unwalkable {
    Event(DecodeError),
    /// Bytes of a row over the limit.
    Large(usize),
}

impl From<DecodeError> for Unwalkable {
    fn from(error: DecodeError) -> Self {
        Self::Event(error)
    }
}

/// Counts the rows of a table that is not captured.
fn count(rows: &Rows<'_>, columns: &[protocol::mysql::Column]) -> Result<u64, Unwalkable> {
    let mut counted = 0;
    for row in rows.walk(columns)? {
        row?;
        counted += 1;
    }
    Ok(counted)
}

/// Pushes the rows of a captured table and returns how many there are, those passed over included.
#[inline]
fn walk(
    sink: &mut Sink<'_>,
    names: Names<'_>,
    open: &mut Open,
    table: &Arc<Table>,
    slot: &mut (u64, u32),
    group: &Group<'_>,
) -> Result<u64, Unwalkable> {
    let columns = table.columns.mysql();
    let Group { rows, base, .. } = *group;
    let operation = match rows.kind {
        RowsKind::Write => Operation::Create,
        RowsKind::Update => Operation::Update,
        RowsKind::Delete => Operation::Delete,
    };
    // Bounded by the batch's size and MYSQL_EVENT_MAX, so that every offset in it fits 32 bits.
    let event_end = base + rows.bytes().len();
    if u32::try_from(event_end).is_err() {
        return Err(Unwalkable::Large(rows.bytes().len()));
    }
    let base = base as u32;
    let shifted = |span: Span| match span.is_none() {
        true => span,
        false => Span {
            start: span.start + base,
            end: span.end + base,
        },
    };
    let number = sink.groups.len() as u32;
    let first_event = sink.events.len() as u32;
    let mut row_number: u32 = 0;
    for row in rows.walk(columns)? {
        let row = row?;
        let length = row.before.len() + row.after.len();
        if length > group.row_max {
            return Err(Unwalkable::Large(length));
        }
        if u64::from(row_number) >= group.skip {
            sink.events.push(Event {
                operation,
                group: number,
                row: row_number,
                before: shifted(row.before),
                after: shifted(row.after),
            });
        }
        row_number += 1;
    }
    if u64::from(row_number) <= group.skip {
        return Ok(u64::from(row_number));
    }
    if slot.0 != names.batch {
        *slot = (names.batch, sink.tables.len() as u32);
        sink.tables.push(Arc::clone(table));
    }
    let transaction = transaction(sink, names, open, first_event);
    sink.groups.push(RowGroup {
        table: slot.1,
        transaction,
        first_row: group.first_row,
        offset: group.offset,
        timestamp_s: group.header.timestamp_s,
        server_id: group.header.server_id,
        columns_before: shifted(rows.columns_before),
        columns_after: shifted(rows.columns_after),
        before_is_key: false,
        partial_json: rows.partial,
        query: Span::NONE,
    });
    Ok(u64::from(row_number))
}

/// The open transaction's index in the batch; `first_event` is the place of its first row there, where it is the first.
#[inline]
pub(super) fn transaction(
    sink: &mut Sink<'_>,
    names: Names<'_>,
    open: &mut Open,
    first_event: u32,
) -> u32 {
    match open.slot {
        Some((batch, index)) if batch == names.batch => index,
        _ => {
            let index = sink.transactions.len() as u32;
            let file = match names.file_text {
                Some((file, span)) if *file == open.first.file => *span,
                other => {
                    let span = append(sink.text, |text| {
                        text.extend_from_slice(open.first.file.as_bytes());
                    });
                    *other = Some((Arc::clone(&open.first.file), span));
                    span
                }
            };
            let gtid = match open.gtid {
                Some(gtid) => append(sink.text, |text| {
                    use std::io::Write as _;
                    // Writing into a vector does not fail.
                    drop(write!(text, "{gtid}"));
                }),
                None => Span::NONE,
            };
            sink.transactions.push(Transaction {
                file,
                offset: open.first.offset,
                gtid,
                commit_us: open.commit_us,
                thread: open.thread,
                xid: None,
                previous_commit: None,
                first_event,
            });
            open.slot = Some((names.batch, index));
            index
        }
    }
}

fn append(text: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Span {
    let start = text.len();
    write(text);
    Span::new(start..text.len()).unwrap_or(Span::NONE)
}
