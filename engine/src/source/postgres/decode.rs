//! From messages of the output plugin to events of a Batch.
//!
//! ```text
//! Begin ─► Relation ─► Insert | Update | Delete … ─► Commit      one transaction at a time, in the order of their commits
//! Stream Start … Stream Stop, Begin Prepare … Prepare            kept aside until they commit (see `held`)
//! ```
//! A row becomes an event with spans into the bytes as received; rows that follow each other in one table share a group.

mod truncates;

use std::ops::Range;
use std::sync::Arc;

use protocol::postgres::Lsn;
use protocol::postgres::pgoutput::{Commit, Message, OldTuple, Prepare, Relation};
use protocol::{DecodeError, Span};

use super::held::{self, Replay};
use super::shapes::Shape;
use super::tables::{self, Described, DescribedColumn, Question, Tables, Wanted};
use super::transaction::{Open, Partial, Place, since_1970};
use crate::batch::{Batch, Event, Operation, RowGroup, Transaction};
use crate::config::Selection;
use crate::position::Position;
use crate::source::{Counters, SourceError};

/// What has to happen before the next message.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing.
    Message,
    /// A table has to be completed; then the same message again.
    Ask(Question),
    /// The messages of a committed transaction that were kept come here; [`Decoder::replayed`] afterwards.
    Replay(Box<Replay>),
}

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
    /// Whether a TRUNCATE becomes a change.
    records_truncates: bool,
    /// Tables whose TRUNCATE was passed over and said so.
    truncated: Vec<u32>,
    held: held::Store,
}

impl Decoder {
    pub(super) fn new(database: &str, selection: Selection, start: Lsn, held: held::Store) -> Self {
        Self {
            held,
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
            records_truncates: false,
            truncated: Vec::new(),
        }
    }

    /// Where this batch's table slots and groups begin anew.
    pub(super) fn forget_group(&mut self) {
        self.group = None;
    }

    /// Begins a session that starts after [`Decoder::safe`]: what an open transaction brought so far will come again.
    pub(super) fn begin_session(&mut self) {
        self.held.begin_session();
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

    /// Decodes the message at `range` of `batch.bytes`, which stands at `lsn`.
    #[inline]
    pub(super) fn message(
        &mut self,
        batch: &mut Batch,
        range: Range<usize>,
        lsn: Lsn,
    ) -> Result<Next, SourceError> {
        let bytes = batch.bytes.get(range.clone()).unwrap_or_default();
        if let Some(in_pieces) = self.held.arriving() {
            return self.keep(bytes, in_pieces, lsn);
        }
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
                return self.describe(&relation, lsn);
            }
            Message::Truncate(truncate) => {
                for relation in truncate.relations().collect::<Vec<_>>() {
                    self.truncate(batch, relation, lsn)?;
                }
                return Ok(Next::Message);
            }
            other => return self.rarer(&other, lsn),
        };
        self.change(batch, change)?;
        Ok(Next::Message)
    }

    /// Takes note of what a table looks like from here on.
    fn describe(&mut self, relation: &Relation<'_>, lsn: Lsn) -> Result<Next, SourceError> {
        let described = described(relation).map_err(|error| self.unreadable(lsn, error))?;
        self.group = None;
        let wanted = self.tables.note(described, &self.selection);
        Ok(wanted.map_or(Next::Message, |wanted| {
            Next::Ask(Question::Relation(wanted))
        }))
    }

    /// Gives a table what the catalog says about it.
    pub(super) fn complete(&mut self, wanted: &Wanted, shape: Shape) {
        self.tables.learn(&shape);
        self.tables.complete(wanted, shape.identity, &shape.indices);
    }

    /// Everything that is neither a row nor a table.
    fn rarer(&mut self, message: &Message<'_>, lsn: Lsn) -> Result<Next, SourceError> {
        match message {
            Message::Begin(begin) => {
                self.begin(begin.final_lsn, begin.xid, since_1970(begin.commit_us))?;
            }
            Message::Commit(commit) => self.commit(commit.commit_lsn, commit.end_lsn)?,
            // What another server wrote first, names of types whose OIDs columns have, and what applications write for others.
            Message::Origin(_) | Message::Type(_) | Message::Message(_) => {}
            _ => return self.held(message, lsn),
        }
        Ok(Next::Message)
    }

    /// Transactions that come before their end.
    fn held(&mut self, message: &Message<'_>, lsn: Lsn) -> Result<Next, SourceError> {
        if let Some(open) = &self.open {
            let what = format!(
                "another transaction inside the one that commits at {}",
                open.commit
            );
            return Err(self.misplaced(lsn, &what));
        }
        match message {
            Message::StreamStart(start) => {
                if !self.held.start(start.xid, start.is_first)? {
                    let what = format!("a piece of transaction {} without the first", start.xid);
                    return Err(self.misplaced(lsn, &what));
                }
            }
            Message::StreamAbort(abort) => self.held.abort(abort.xid, abort.subxid),
            Message::StreamCommit(end) => {
                let replay = self.held.commit(end.xid, end.commit)?;
                let Some(replay) = replay else {
                    let what = format!("the commit of transaction {}, which has not come", end.xid);
                    return Err(self.misplaced(lsn, &what));
                };
                return self.replay(end.xid, replay);
            }
            Message::BeginPrepare(prepare) => self.held.start_prepare(prepare.xid)?,
            Message::StreamPrepare(prepare) => self.prepared(prepare)?,
            Message::CommitPrepared(end) => {
                let replay = (self.held).commit_prepared(end.xid, end.gid, end.commit)?;
                if let Some(replay) = replay {
                    return self.replay(end.xid, replay);
                }
                if !self.held.was_decided(end.commit.commit_lsn) {
                    return Err(self.prepared_before(end.gid, end.commit.commit_lsn));
                }
                self.keepalive(end.commit.end_lsn);
            }
            Message::RollbackPrepared(end) => {
                self.held.roll_back_prepared(end.xid);
                self.keepalive(end.end_lsn);
            }
            _ => return Err(self.misplaced(lsn, "an end without its beginning")),
        }
        Ok(Next::Message)
    }

    /// A message of a transaction that has not committed.
    #[cold]
    fn keep(&mut self, bytes: &[u8], in_pieces: bool, lsn: Lsn) -> Result<Next, SourceError> {
        let decoded = match in_pieces {
            true => Message::decode_streamed(bytes),
            false => Message::decode(bytes).map(|message| (None, message)),
        };
        let (part, message) = decoded.map_err(|error| self.unreadable(lsn, error))?;
        let rest = if in_pieces { 5 } else { 1 };
        match &message {
            Message::Insert(_)
            | Message::Update(_)
            | Message::Delete(_)
            | Message::Truncate(_)
            | Message::Relation(_) => {}
            Message::Origin(_) | Message::Type(_) | Message::Message(_) => {
                return Ok(Next::Message);
            }
            Message::StreamStop if in_pieces => {
                self.held.stop()?;
                return Ok(Next::Message);
            }
            Message::Prepare(prepare) if !in_pieces => {
                self.held.stop()?;
                self.prepared(prepare)?;
                return Ok(Next::Message);
            }
            _ => return Err(self.misplaced(lsn, "a transaction inside one that has not ended")),
        }
        // What the server describes outside of pieces it does not describe again to transactions that commit before this one.
        if let (Message::Relation(relation), false) = (&message, in_pieces)
            && let Next::Ask(question) = self.describe(relation, lsn)?
        {
            return Ok(Next::Ask(question));
        }
        let kind = bytes.first().copied().unwrap_or_default();
        (self.held).push(part, lsn, kind, bytes.get(rest..).unwrap_or_default())?;
        Ok(Next::Message)
    }

    fn prepared(&mut self, prepare: &Prepare<'_>) -> Result<(), SourceError> {
        if !self.held.prepare(prepare.xid, prepare.gid, self.place.safe) {
            let what = format!("{} is prepared, and has not come", prepare.gid);
            return Err(self.misplaced(prepare.prepare_lsn, &what));
        }
        self.keepalive(prepare.end_lsn);
        Ok(())
    }

    /// A transaction that was kept commits.
    fn replay(&mut self, xid: u32, replay: Replay) -> Result<Next, SourceError> {
        let commit = &replay.commit;
        self.begin(commit.commit_lsn, xid, since_1970(commit.commit_us))?;
        Ok(Next::Replay(Box::new(replay)))
    }

    /// All of what [`Next::Replay`] asked for has been read.
    pub(super) fn replayed(&mut self, commit: &Commit) -> Result<(), SourceError> {
        self.commit(commit.commit_lsn, commit.end_lsn)?;
        self.held.replayed(commit.end_lsn)
    }

    #[cold]
    fn prepared_before(&self, gid: &str, at: Lsn) -> SourceError {
        SourceError::resync(format!(
            "transaction {gid:?} commits at {at}, but it was prepared before the stream began, so its rows were not read; take a new \
             snapshot of the captured tables, then go on behind it by `walbrook position set`"
        ))
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
        let earliest = self.held.earliest().unwrap_or(self.place.safe);
        Position::Postgres {
            lsn: earliest.min(self.place.safe),
        }
    }

    /// From where a new session of this process loses nothing.
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
                first_event: batch.events.len() as u32,
            });
            open.slot = Some((number, index));
            index
        }
    }
}

fn described(relation: &Relation<'_>) -> Result<Described, DecodeError> {
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
