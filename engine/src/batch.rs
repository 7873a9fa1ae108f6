//! A Batch owns the bytes as they came off the wire; its events are indices into them.
//!
//! ```text
//! bytes        [ frame | frame | frame | … ]            as received (or as a compressed payload expanded)
//! text         [ gtid, file names … ]                   short texts that the wire does not hold as such
//! tables       [ Arc<Table>, … ]                        every table version that a group names
//! transactions [ Transaction, … ]                       the first may have begun in an earlier batch
//! groups       [ RowGroup, … ]                          what the rows of one ROWS event (or Relation run) share
//! events       [ Event, … ]                             one per row change, in the order of the server
//! lsns         [ u64, … ]                               PostgreSQL: where each of them stands
//! ```
//! Nothing is copied until a record is encoded. Batches are recycled: [`Batch::clear`] keeps every allocation.

use std::sync::Arc;
use std::time::Instant;

use protocol::Span;

use crate::position::Position;
use crate::schema::Table;

/// What a change did to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new row (`c`).
    Create,
    /// A changed row (`u`).
    Update,
    /// A removed row (`d`).
    Delete,
    /// All rows of the table at once, none of them named (`t`): TRUNCATE. It has no image and no key, and counts as one row of its
    /// transaction.
    Truncate,
}

/// One row change.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// What happened.
    pub operation: Operation,
    /// Index into [`Batch::groups`].
    pub group: u32,
    /// Number of this row within its group, from 0.
    pub row: u32,
    /// The row before, in `bytes`; [`Span::NONE`] for a create or truncate, and where the server sends none (PostgreSQL, an update that keeps the
    /// replica identity). MySQL: a row image. PostgreSQL: TupleData, its count of columns included.
    pub before: Span,
    /// The row after, in `bytes`; [`Span::NONE`] for a delete or truncate.
    pub after: Span,
}

/// What the rows of one ROWS event share.
#[derive(Debug, Clone, Copy)]
pub struct RowGroup {
    /// Index into [`Batch::tables`].
    pub table: u32,
    /// Index into [`Batch::transactions`].
    pub transaction: u32,
    /// Rows of this transaction that came before this group, filtered ones included.
    pub first_row: u64,
    /// MySQL: offset of the ROWS event in its binlog file (inside a compressed payload: the payload event's). PostgreSQL: 0, every row
    /// has an LSN of its own in [`Batch::lsns`].
    pub offset: u64,
    /// MySQL: the event header's timestamp, seconds since 1970, UTC. PostgreSQL: 0, the transaction has a finer one.
    pub timestamp_s: u32,
    /// MySQL: the event header's server id. PostgreSQL: 0.
    pub server_id: u32,
    /// Which columns the before images hold, a bit each, in `bytes`. PostgreSQL: [`Span::NONE`], its tuples say so themselves.
    pub columns_before: Span,
    /// Which columns the after images hold, a bit each, in `bytes`. PostgreSQL: [`Span::NONE`].
    pub columns_after: Span,
    /// PostgreSQL: whether before images hold nothing but the replica identity's columns (`K`), the others being null there whatever
    /// they were.
    pub before_is_key: bool,
    /// Whether after images carry partial JSON (PARTIAL_UPDATE_ROWS).
    pub partial_json: bool,
    /// The statement, in `bytes`, where a source hands it on; [`Span::NONE`] otherwise, always for MySQL (Debezium's `include.query`
    /// is off by default, too).
    pub query: Span,
}

/// What the rows of one transaction share.
#[derive(Debug, Clone, Copy)]
pub struct Transaction {
    /// MySQL: name of the binlog file of the transaction's first event, in `text`. PostgreSQL: [`Span::NONE`].
    pub file: Span,
    /// MySQL: offset of the transaction's first event in that file. PostgreSQL: LSN of the commit (`Begin.final_lsn`). It grows along the stream, because dedupe after a restart compares it
    /// ([`crate::settled`]): rows that come with an XA COMMIT have the place of that commit's group, not of the XA START.
    pub offset: u64,
    /// The transaction's GTID as text, in `text`; [`Span::NONE`] without GTIDs.
    pub gtid: Span,
    /// Microseconds since 1970 of the original commit; `None` where the server does not say.
    pub commit_us: Option<u64>,
    /// The session that wrote it; `None` where the server does not say.
    pub thread: Option<u32>,
    /// PostgreSQL: the transaction's id.
    pub xid: Option<u32>,
    /// PostgreSQL: LSN after the commit before this one, as far as this run has seen one.
    pub previous_commit: Option<u64>,
    /// Index into [`Batch::events`] of its first row in this batch; those before it belong to the transactions before it.
    pub first_event: u32,
}

/// Received bytes, the changes in them, and the Position at their end.
#[derive(Debug, Default)]
pub struct Batch {
    /// Bytes as received.
    pub bytes: Vec<u8>,
    /// Short texts that spans of transactions point into.
    pub text: Vec<u8>,
    /// Table versions.
    pub tables: Vec<Arc<Table>>,
    /// Transactions that the groups belong to.
    pub transactions: Vec<Transaction>,
    /// Row groups, in order.
    pub groups: Vec<RowGroup>,
    /// Row changes, in order.
    pub events: Vec<Event>,
    /// PostgreSQL: the LSN of each row change, parallel to `events`. MySQL: empty.
    pub lsns: Vec<u64>,
    /// Position after the last transaction that ended in this batch; `None` when none did. Everything before it is in this
    /// batch or an earlier one.
    pub end: Option<Position>,
    /// When the first of its bytes were read, those included that the batch before left over.
    pub read_at: Option<Instant>,
    /// Bytes that it may hold beyond the [`Limits::batch_bytes`](crate::source::Limits::batch_bytes) at which batches are full.
    pub stretch: usize,
}

impl Batch {
    /// Empties it and keeps its allocations.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.text.clear();
        self.tables.clear();
        self.transactions.clear();
        self.groups.clear();
        self.events.clear();
        self.lsns.clear();
        self.end = None;
        self.read_at = None;
        self.stretch = 0;
    }

    /// Gives back what an unusually large batch made it hold: `bytes` keeps at most `bytes_max` of capacity.
    pub fn shrink(&mut self, bytes_max: usize) {
        if self.bytes.capacity() > bytes_max {
            self.bytes.shrink_to(bytes_max);
            self.events.shrink_to(bytes_max / size_of::<Event>());
            self.lsns.shrink_to(bytes_max / size_of::<Event>());
        }
    }

    /// Bytes of memory that it holds, counted against `memory_max`.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.text.capacity()
            + self.events.capacity() * size_of::<Event>()
            + self.lsns.capacity() * size_of::<u64>()
            + self.groups.capacity() * size_of::<RowGroup>()
            + self.transactions.capacity() * size_of::<Transaction>()
    }
}
