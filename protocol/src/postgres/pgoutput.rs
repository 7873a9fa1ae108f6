//! The messages of the server's own output plugin, protocols 1 to 4 (section "Logical Replication Message Formats").
//!
//! ```text
//! R Relation   Y Type   I Insert   U Update   D Delete   T Truncate   M Message   B Begin   C Commit   O Origin        1
//! S Stream Start   E Stream Stop   c Stream Commit   A Stream Abort                                                  2, 4
//! b Begin Prepare   P Prepare   K Commit Prepared   r Rollback Prepared   p Stream Prepare                             3
//!
//! I | relation 4 | N TupleData
//! U | relation 4 | [K TupleData | O TupleData] | N TupleData
//! D | relation 4 | K TupleData | O TupleData
//! M | flags 1 | LSN 8 | prefix 0 | length 4 | bytes
//! O | origin's LSN 8 | name 0
//! ```
//! Between Stream Start and Stream Stop the first line's messages have an `xid 4` after their letter, of the (sub)transaction that they
//! belong to. Nothing in the message tells: the caller knows in what it stands.

use std::ops::Range;

use super::Lsn;
use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};

pub use relation::{Relation, RelationColumn, Truncate, Type};
pub use transaction::{
    Begin, Commit, CommitPrepared, Prepare, RollbackPrepared, StreamAbort, StreamCommit,
    StreamStart,
};
pub use tuple::{Tuple, TupleValue};

mod relation;
mod transaction;
mod tuple;

#[cfg(test)]
mod tests;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A transaction begins.
    Begin(Begin),
    /// A transaction ends.
    Commit(Commit),
    /// Where the transaction was first committed.
    Origin(Origin<'a>),
    /// What a table looks like from here on.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type(Type<'a>),
    /// A new row.
    Insert(Insert),
    /// A changed row.
    Update(Update),
    /// A removed row.
    Delete(Delete),
    /// Emptied tables.
    Truncate(Truncate<'a>),
    /// What `pg_logical_emit_message` wrote.
    Message(LogicalMessage<'a>),
    /// A piece of a transaction that is still open begins (`streaming`).
    StreamStart(StreamStart),
    /// The piece ends.
    StreamStop,
    /// A transaction that came in pieces ends.
    StreamCommit(StreamCommit),
    /// A transaction that came in pieces, or a subtransaction of it, is rolled back.
    StreamAbort(StreamAbort),
    /// A transaction begins that ends with being prepared (`two_phase`).
    BeginPrepare(Prepare<'a>),
    /// It is prepared.
    Prepare(Prepare<'a>),
    /// A prepared transaction is committed.
    CommitPrepared(CommitPrepared<'a>),
    /// A prepared transaction is rolled back.
    RollbackPrepared(RollbackPrepared<'a>),
    /// A transaction that came in pieces is prepared.
    StreamPrepare(Prepare<'a>),
}

/// Where the transaction was first committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The commit there.
    pub lsn: Lsn,
    /// The origin's name.
    pub name: &'a str,
}

/// A new row. Ranges are of the message's bytes and hold TupleData.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The table.
    pub relation: u32,
    /// The row.
    pub new: Range<usize>,
}

/// A changed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The table.
    pub relation: u32,
    /// The row before, where the replica identity has the server send it.
    pub old: Option<OldTuple>,
    /// The row after.
    pub new: Range<usize>,
}

/// A removed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The table.
    pub relation: u32,
    /// The row before.
    pub old: OldTuple,
}

/// A row before its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldTuple {
    /// The replica identity's columns; the others are null whatever they were.
    Key(Range<usize>),
    /// All of it (`REPLICA IDENTITY FULL`).
    Full(Range<usize>),
}

impl OldTuple {
    /// Its bytes.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        match self {
            Self::Key(range) | Self::Full(range) => range,
        }
    }
}

/// What `pg_logical_emit_message` wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to the open transaction.
    pub transactional: bool,
    /// Where it stands.
    pub lsn: Lsn,
    /// Whose it is.
    pub prefix: &'a str,
    /// What it says.
    pub content: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one message that stands outside of Stream Start and Stream Stop. Every length in it has been checked then.
    ///
    /// # Errors
    /// It ends too early or late, or is of a kind or has flags that protocols 1 to 4 do not have.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let kind = cursor.u8("pgoutput message")?;
        Self::decode_rest(kind, cursor)
    }

    /// Reads one message that stands between Stream Start and Stream Stop, and the (sub)transaction that it belongs to; `None` for
    /// messages about transactions, which have their own.
    ///
    /// # Errors
    /// As [`Message::decode`].
    pub fn decode_streamed(bytes: &'a [u8]) -> Result<(Option<u32>, Self), DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let kind = cursor.u8("pgoutput message")?;
        let xid = match kind {
            b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => Some(cursor.u32_be("xid")?),
            _ => None,
        };
        Ok((xid, Self::decode_rest(kind, cursor)?))
    }

    #[inline]
    fn decode_rest(kind: u8, mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let message = match kind {
            b'I' => {
                let relation = cursor.u32_be("Insert relation")?;
                one_of(&mut cursor, b"N", "Insert marker")?;
                let new = tuple::range(&mut cursor)?;
                Self::Insert(Insert { relation, new })
            }
            b'U' => {
                let relation = cursor.u32_be("Update relation")?;
                let old = match cursor.peek() {
                    Some(b'N') => None,
                    _ => Some(old(&mut cursor, "Update marker")?),
                };
                one_of(&mut cursor, b"N", "Update marker")?;
                let new = tuple::range(&mut cursor)?;
                Self::Update(Update { relation, old, new })
            }
            b'D' => Self::Delete(Delete {
                relation: cursor.u32_be("Delete relation")?,
                old: old(&mut cursor, "Delete marker")?,
            }),
            other => rarer(other, &mut cursor)?,
        };
        cursor.finish("pgoutput message")?;
        Ok(message)
    }
}

fn rarer<'a>(kind: u8, cursor: &mut Cursor<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(match kind {
        b'B' => Message::Begin(Begin::decode(cursor)?),
        b'C' => Message::Commit(Commit::decode(cursor)?),
        b'O' => Message::Origin(Origin {
            lsn: Lsn(cursor.u64_be("Origin LSN")?),
            name: text(cursor, "Origin name")?,
        }),
        b'R' => Message::Relation(Relation::decode(cursor)?),
        b'Y' => Message::Type(Type::decode(cursor)?),
        b'T' => Message::Truncate(Truncate::decode(cursor)?),
        b'M' => Message::Message(LogicalMessage::decode(cursor)?),
        b'S' => Message::StreamStart(StreamStart::decode(cursor)?),
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit(StreamCommit::decode(cursor)?),
        b'A' => Message::StreamAbort(StreamAbort::decode(cursor)?),
        b'b' => Message::BeginPrepare(Prepare::decode(cursor)?),
        b'P' => Message::Prepare(Prepare::decode_flagged(cursor)?),
        b'K' => Message::CommitPrepared(CommitPrepared::decode(cursor)?),
        b'r' => Message::RollbackPrepared(RollbackPrepared::decode(cursor)?),
        b'p' => Message::StreamPrepare(Prepare::decode_flagged(cursor)?),
        other => {
            let value = other.into();
            let kind = DecodeErrorKind::Unsupported { value };
            return Err(DecodeError::new("pgoutput message", 0, kind));
        }
    })
}

impl<'a> LogicalMessage<'a> {
    fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let transactional = one_of(cursor, &[0, 1], "Message flags")? == 1;
        let lsn = Lsn(cursor.u64_be("Message LSN")?);
        let prefix = text(cursor, "Message prefix")?;
        let length = cursor.u32_be("Message length")?;
        Ok(Self {
            transactional,
            lsn,
            prefix,
            content: cursor.take(length as usize, "Message content")?,
        })
    }
}

fn text<'a>(cursor: &mut Cursor<'a>, what: &'static str) -> Result<&'a str, DecodeError> {
    let at = cursor.at();
    std::str::from_utf8(cursor.until_nul(what)?)
        .map_err(|_| DecodeError::new(what, at as u64, DecodeErrorKind::Encoding))
}

/// A byte that is one of `allowed`: what another one means is not known, so the rest is not either.
#[inline]
fn one_of(cursor: &mut Cursor<'_>, allowed: &[u8], what: &'static str) -> Result<u8, DecodeError> {
    match cursor.peek() {
        Some(found) if !allowed.contains(&found) => Err(cursor.invalid(what, found.into())),
        _ => cursor.u8(what),
    }
}

fn old(cursor: &mut Cursor<'_>, what: &'static str) -> Result<OldTuple, DecodeError> {
    match one_of(cursor, b"KO", what)? {
        b'K' => tuple::range(cursor).map(OldTuple::Key),
        _ => tuple::range(cursor).map(OldTuple::Full),
    }
}
