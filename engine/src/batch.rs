//! A Batch owns the bytes as they came off the wire; its events are indices into them.
//!
//! ```text
//! bytes        [ frame | frame | frame | … ]            as received (or as a compressed payload expanded)
//! text         [ gtid, file names … ]                   short texts that the wire does not hold as such
//! tables       [ Arc<Table>, … ]                        every table version that a group names
//! transactions [ Transaction, … ]                       the first may have begun in an earlier batch
//! groups       [ RowGroup, … ]                          what the rows of one ROWS event (or Relation run) share
//! events       [ Event, … ]                             one per row change, in the order of the server
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
    /// The row before, in `bytes`; [`Span::NONE`] for a create.
    pub before: Span,
    /// The row after, in `bytes`; [`Span::NONE`] for a delete.
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
    /// Offset of the ROWS event in its binlog file (inside a compressed payload: the payload event's).
    pub offset: u64,
    /// The event header's timestamp: seconds since 1970, UTC.
    pub timestamp_s: u32,
    /// The event header's server id.
    pub server_id: u32,
    /// Which columns the before images hold, a bit each, in `bytes`.
    pub columns_before: Span,
    /// Which columns the after images hold, a bit each, in `bytes`.
    pub columns_after: Span,
    /// Whether after images carry partial JSON (PARTIAL_UPDATE_ROWS).
    pub partial_json: bool,
    /// The statement, in `bytes`, where a source hands it on; [`Span::NONE`] otherwise, always for MySQL (Debezium's `include.query`
    /// is off by default, too).
    pub query: Span,
}

/// What the rows of one transaction share.
#[derive(Debug, Clone, Copy)]
pub struct Transaction {
    /// Name of the binlog file of the transaction's first event, in `text`.
    pub file: Span,
    /// Offset of the transaction's first event in that file. It grows along the stream, because dedupe after a restart compares it
    /// ([`crate::settled`]): rows that come with an XA COMMIT have the place of that commit's group, not of the XA START.
    pub offset: u64,
    /// The transaction's GTID as text, in `text`; [`Span::NONE`] without GTIDs.
    pub gtid: Span,
    /// Microseconds since 1970 of the original commit; `None` where the server does not say.
    pub commit_us: Option<u64>,
    /// The session that wrote it; `None` where the server does not say.
    pub thread: Option<u32>,
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
    /// Position after the last transaction that ended in this batch; `None` when none did. Everything before it is in this
    /// batch or an earlier one.
    pub end: Option<Position>,
    /// When its first bytes were read.
    pub read_at: Option<Instant>,
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
        self.end = None;
        self.read_at = None;
    }

    /// Gives back what an unusually large batch made it hold: `bytes` keeps at most `bytes_max` of capacity.
    pub fn shrink(&mut self, bytes_max: usize) {
        if self.bytes.capacity() > bytes_max {
            self.bytes.shrink_to(bytes_max);
            self.events.shrink_to(bytes_max / size_of::<Event>());
        }
    }

    /// Bytes of memory that it holds, counted against `memory_max`.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.text.capacity()
            + self.events.capacity() * size_of::<Event>()
            + self.groups.capacity() * size_of::<RowGroup>()
            + self.transactions.capacity() * size_of::<Transaction>()
    }
}
