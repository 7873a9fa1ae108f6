//! From messages of the output plugin to events of a Batch.
//!
//! ```text
//! Begin ─► Relation ─► Insert | Update | Delete … ─► Commit      one transaction at a time, in the order of their commits
//! ```
//! A row becomes an event with spans into the bytes as received; rows that follow each other in one table share a group.

use std::ops::Range;
use std::sync::Arc;

use protocol::postgres::Lsn;
use protocol::postgres::pgoutput::{Message, OldTuple, Relation};
use protocol::{DecodeError, Span};

use super::shapes::Shape;
use super::tables::{self, Described, DescribedColumn, Question, Tables, Wanted};
use super::transaction::{Open, Partial, Place, since_1970};
use crate::batch::{Batch, Event, Operation, RowGroup, Transaction};
use crate::config::Selection;
use crate::position::Position;
use crate::source::{Counters, SourceError};

/// A row change as either plugin has it, its tuples as ranges of the batch's bytes.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) relation: u32,
    pub(super) operation: Operation,
    pub(super) before: Option<Range<usize>>,
    pub(super) before_is_key: bool,
    pub(super) after: Option<Range<usize>>,
    pub(super) lsn: Lsn,
}

/// The group that the last row went into.
#[derive(Debug, Clone, Copy)]
struct LastGroup {
    batch: u64,
    relation: u32,
    before_is_key: bool,
    index: u32,
    /// The number in the transaction that continues the group.
    next_row: u64,
    row: u32,
}

/// Decodes one session after another into one unbroken stream.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) tables: Tables,
    pub(super) selection: Selection,
    open: Option<Open>,
    place: Place,
    /// What has been handed out of the transaction that was open when the connection was lost.
    partial: Option<Partial>,
    group: Option<LastGroup>,
    /// Number of the batch that is being filled.
    batch: u64,
    /// Whether a transaction ended, or nothing was to come before a later place, since the last seal.
    ended: bool,
    counters: Counters,
    /// Grows with everything that makes the stream longer.
    progress: u64,
    /// Tables whose TRUNCATE was passed over and said so.
    truncated: Vec<u32>,
}

impl Decoder {
    pub(super) fn new(database: &str, selection: Selection, start: Lsn) -> Self {
        Self {
            tables: Tables::new(database),
            selection,
            open: None,
            place: Place {
                safe: start,
                previous_commit: None,
            },
            partial: None,
            group: None,
            batch: 0,
            ended: false,
            counters: Counters::default(),
            progress: 0,
            truncated: Vec::new(),
        }
    }

    /// Where this batch's table slots and groups begin anew.
    pub(super) fn forget_group(&mut self) {
        self.group = None;
    }

    /// Begins a session that starts after [`Decoder::safe`]: what an open transaction brought so far will come again.
    pub(super) fn begin_session(&mut self) {
        if let Some(open) = self.open.take() {
            let before = self.partial.filter(|partial| partial.commit == open.commit);
            let (rows, captured) =
                before.map_or((0, 0), |partial| (partial.rows, partial.captured));
            self.partial = Some(Partial {
                commit: open.commit,
                rows: open.rows.max(rows),
                captured: open.captured.max(captured),
            });
        }
        self.group = None;
    }

    /// Decodes the message at `range` of `batch.bytes`, which stands at `lsn`. Returns a table that has to be completed before the
    /// next message.
    #[inline]
    pub(super) fn message(
        &mut self,
        batch: &mut Batch,
        range: Range<usize>,
        lsn: Lsn,
    ) -> Result<Option<Question>, SourceError> {
        let bytes = batch.bytes.get(range.clone()).unwrap_or_default();
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(error) => return Err(self.unreadable(lsn, error)),
        };
        let moved = |tuple: Range<usize>| range.start + tuple.start..range.start + tuple.end;
        let change = match message {
            Message::Insert(insert) => Change {
                relation: insert.relation,
                operation: Operation::Create,
                before: None,
                before_is_key: false,
                after: Some(moved(insert.new)),
                lsn,
            },
            Message::Update(update) => Change {
                relation: update.relation,
                operation: Operation::Update,
                before_is_key: matches!(update.old, Some(OldTuple::Key(_))),
                before: update.old.map(|old| moved(old.range())),
                after: Some(moved(update.new)),
                lsn,
            },
            Message::Delete(delete) => Change {
                relation: delete.relation,
                operation: Operation::Delete,
                before_is_key: matches!(delete.old, OldTuple::Key(_)),
                before: Some(moved(delete.old.range())),
                after: None,
                lsn,
            },
            Message::Relation(relation) => {
                let described = describe(&relation).map_err(|error| self.unreadable(lsn, error))?;
                self.group = None;
                let wanted = self.tables.note(described, &self.selection);
                return Ok(wanted.map(Question::Relation));
            }
            other => {
                self.rarer(&other, lsn)?;
                return Ok(None);
            }
        };
        self.change(batch, change)?;
        Ok(None)
    }

    /// Gives a table what the catalog says about it.
    pub(super) fn complete(&mut self, wanted: &Wanted, shape: Shape) {
        for row in shape.types {
            self.tables.types.insert(row);
        }
        self.tables.complete(wanted, &shape.indices);
    }

    /// Everything that is neither a row nor a table.
    fn rarer(&mut self, message: &Message<'_>, lsn: Lsn) -> Result<(), SourceError> {
        match message {
            Message::Begin(begin) => {
                self.begin(begin.final_lsn, begin.xid, since_1970(begin.commit_us))
            }
            Message::Commit(commit) => self.commit(commit.commit_lsn, commit.end_lsn),
            Message::Truncate(truncate) => {
                for relation in truncate.relations() {
                    self.truncate(relation);
                }
                Ok(())
            }
            // What another server wrote first, names of types whose OIDs columns have, and what applications write for others.
            Message::Origin(_) | Message::Type(_) | Message::Message(_) => Ok(()),
            _ => Err(SourceError::halt(format!(
                "at {lsn}: the server sends transactions in pieces or in two phases, which was not asked for; is the slot another \
                 program's?"
            ))),
        }
    }

    pub(super) fn begin(
        &mut self,
        commit: Lsn,
        xid: u32,
        commit_us: Option<u64>,
    ) -> Result<(), SourceError> {
        if let Some(open) = &self.open {
            return Err(self.misplaced(
                commit,
                &format!("the transaction that commits at {} has no end", open.commit),
            ));
        }
        if let Some(partial) = self.partial
            && partial.commit != commit
        {
            if partial.captured > 0 {
                return Err(SourceError::resync(format!(
                    "the server does not have the transaction any more that committed at {}, of which {} rows have been read (the \
                     next one commits at {commit}): it was probably promoted before that reached it. Undo them downstream or \
                     write them again, then go on with `walbrook position set`",
                    partial.commit, partial.captured
                )));
            }
            self.partial = None;
        }
        self.open = Some(Open {
            commit,
            xid,
            commit_us,
            rows: 0,
            captured: 0,
            slot: None,
        });
        Ok(())
    }

    pub(super) fn commit(&mut self, commit: Lsn, end: Lsn) -> Result<(), SourceError> {
        let Some(open) = self.open.take() else {
            return Err(self.misplaced(commit, "a commit without its beginning"));
        };
        if open.commit != commit {
            let what = format!("the transaction said that it commits at {}", open.commit);
            return Err(self.misplaced(commit, &what));
        }
        self.partial = None;
        self.group = None;
        self.place = Place {
            safe: end,
            previous_commit: Some(end),
        };
        self.counters.transactions += 1;
        self.ended = true;
        self.progress += 1;
        Ok(())
    }

    /// The server has nothing for us before `end`.
    pub(super) fn keepalive(&mut self, end: Lsn) {
        if self.open.is_none() && self.partial.is_none() && end > self.place.safe {
            self.place.safe = end;
            self.ended = true;
            self.progress += 1;
        }
    }

    pub(super) fn truncate(&mut self, relation: u32) {
        let Some(entry) = self.tables.find(relation) else {
            return;
        };
        if matches!(entry.shape, tables::Shape::Captured(_)) && !self.truncated.contains(&relation)
        {
            let Described { schema, name, .. } = &entry.described;
            tracing::warn!(
                "{schema}.{name} was truncated: its rows are gone without a record of each"
            );
            self.truncated.push(relation);
        }
    }

    /// Puts a row into the batch, unless an earlier connection did.
    #[inline]
    pub(super) fn change(&mut self, batch: &mut Batch, change: Change) -> Result<(), SourceError> {
        let Some(open) = &mut self.open else {
            return Err(self.misplaced(change.lsn, "a row outside of a transaction"));
        };
        let number = open.rows;
        open.rows += 1;
        let Some(entry) = self.tables.find(change.relation) else {
            let what = format!(
                "a row of relation {}, which was not described",
                change.relation
            );
            return Err(self.misplaced(change.lsn, &what));
        };
        let table = match &entry.shape {
            tables::Shape::Captured(table) => table,
            tables::Shape::Excluded => {
                self.counters.rows_filtered += 1;
                return Ok(());
            }
            tables::Shape::Wanted => {
                return Err(self.misplaced(change.lsn, "a row of a table that is not complete"));
            }
        };
        open.captured += 1;
        if self.partial.is_some_and(|partial| number < partial.rows) {
            return Ok(());
        }
        if entry.slot.0 != self.batch {
            entry.slot = (self.batch, batch.tables.len() as u32);
            batch.tables.push(Arc::clone(table));
        }
        let table = entry.slot.1;
        let (group, row) = match &mut self.group {
            Some(last)
                if last.batch == self.batch
                    && last.relation == change.relation
                    && last.next_row == number
                    && last.before_is_key == change.before_is_key =>
            {
                last.row += 1;
                last.next_row += 1;
                (last.index, last.row)
            }
            _ => {
                let transaction = transaction(batch, open, self.place, self.batch);
                let index = batch.groups.len() as u32;
                batch.groups.push(RowGroup {
                    table,
                    transaction,
                    first_row: number,
                    offset: 0,
                    timestamp_s: 0,
                    server_id: 0,
                    columns_before: Span::NONE,
                    columns_after: Span::NONE,
                    before_is_key: change.before_is_key,
                    partial_json: false,
                    query: Span::NONE,
                });
                self.group = Some(LastGroup {
                    batch: self.batch,
                    relation: change.relation,
                    before_is_key: change.before_is_key,
                    index,
                    next_row: number + 1,
                    row: 0,
                });
                (index, 0)
            }
        };
        let span = |range: Option<Range<usize>>| match range {
            None => Some(Span::NONE),
            Some(range) => Span::new(range),
        };
        let (Some(before), Some(after)) = (span(change.before), span(change.after)) else {
            return Err(self.misplaced(change.lsn, "a row beyond 4 GiB of a batch"));
        };
        batch.events.push(Event {
            operation: change.operation,
            group,
            row,
            before,
            after,
        });
        batch.lsns.push(change.lsn.0);
        self.counters.rows += 1;
        self.progress += 1;
        Ok(())
    }

    /// Ends the batch: what comes next goes into another one.
    pub(super) fn seal(&mut self, batch: &mut Batch) {
        batch.end = std::mem::take(&mut self.ended).then(|| self.position());
        self.batch += 1;
    }

    pub(super) fn position(&self) -> Position {
        Position::Postgres {
            lsn: self.place.safe,
        }
    }

    /// From where a new session loses nothing.
    pub(super) fn safe(&self) -> Lsn {
        self.place.safe
    }

    pub(super) fn is_between_transactions(&self) -> bool {
        self.open.is_none() && self.partial.is_none()
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    #[cold]
    pub(super) fn unreadable(&self, lsn: Lsn, error: DecodeError) -> SourceError {
        SourceError::retry(format!("at {lsn}: a message cannot be read")).because(error)
    }

    #[cold]
    pub(super) fn misplaced(&self, lsn: Lsn, what: &str) -> SourceError {
        SourceError::retry(format!("at {lsn}, after {}: {what}", self.place.safe))
    }
}

/// The open transaction's index in the batch.
fn transaction(batch: &mut Batch, open: &mut Open, place: Place, number: u64) -> u32 {
    match open.slot {
        Some((batch, index)) if batch == number => index,
        _ => {
            let index = batch.transactions.len() as u32;
            batch.transactions.push(Transaction {
                file: Span::NONE,
                offset: open.commit.0,
                gtid: Span::NONE,
                commit_us: open.commit_us,
                thread: None,
                xid: Some(open.xid),
                previous_commit: place.previous_commit.map(|lsn| lsn.0),
            });
            open.slot = Some((number, index));
            index
        }
    }
}

fn describe(relation: &Relation<'_>) -> Result<Described, DecodeError> {
    let mut columns = Vec::new();
    for column in relation.columns() {
        let column = column?;
        columns.push(DescribedColumn {
            name: column.name.into(),
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            is_key: column.is_key,
        });
    }
    Ok(Described {
        relation: relation.oid,
        schema: relation.schema.into(),
        name: relation.name.into(),
        identity: relation.identity,
        columns: columns.into(),
    })
}
