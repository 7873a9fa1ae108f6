//! Where transactions begin and end: whole or in pieces, in one phase or in two.
//!
//! ```text
//! B | final LSN 8 | commit time 8 | xid 4
//! C | flags 1 | commit LSN 8 | end LSN 8 | commit time 8
//! S | xid 4 | first 1                                                                    E |
//! c | xid 4 | flags 1 | commit LSN 8 | end LSN 8 | commit time 8
//! A | xid 4 | subxid 4 | [abort LSN 8 | abort time 8]                                    in brackets: streaming = parallel
//! b |           prepare LSN 8 | end LSN 8 | prepare time 8 | xid 4 | gid 0
//! P | flags 1 | prepare LSN 8 | end LSN 8 | prepare time 8 | xid 4 | gid 0               p alike
//! K | flags 1 | commit LSN 8 | end LSN 8 | commit time 8 | xid 4 | gid 0
//! r | flags 1 | prepare's end LSN 8 | end LSN 8 | prepare time 8 | rollback time 8 | xid 4 | gid 0
//! ```
//! Flags are 0 so far. Times are microseconds since 2000-01-01 UTC.

use super::super::Lsn;
use super::{one_of, text};
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// A transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit stands.
    pub final_lsn: Lsn,
    /// When it was committed, microseconds since 2000-01-01 UTC.
    pub commit_us: i64,
    /// Its id.
    pub xid: u32,
}

/// A transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit stands.
    pub commit_lsn: Lsn,
    /// After its commit.
    pub end_lsn: Lsn,
    /// When it was committed, microseconds since 2000-01-01 UTC.
    pub commit_us: i64,
}

/// A piece of a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStart {
    /// The transaction.
    pub xid: u32,
    /// Whether it is the transaction's first piece in this session.
    pub is_first: bool,
}

/// A transaction that came in pieces ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCommit {
    /// The transaction.
    pub xid: u32,
    /// Its end.
    pub commit: Commit,
}

/// A transaction that came in pieces is rolled back, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamAbort {
    /// The transaction.
    pub xid: u32,
    /// What is rolled back: `xid` itself, or a subtransaction of it.
    pub subxid: u32,
    /// With `streaming = parallel`: where the abort stands, and when it was, microseconds since 2000-01-01 UTC.
    pub place: Option<(Lsn, i64)>,
}

/// A transaction that is prepared, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// Where the prepare stands.
    pub prepare_lsn: Lsn,
    /// After it.
    pub end_lsn: Lsn,
    /// When it was prepared, microseconds since 2000-01-01 UTC.
    pub prepare_us: i64,
    /// Its id.
    pub xid: u32,
    /// Its name.
    pub gid: &'a str,
}

/// A prepared transaction is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitPrepared<'a> {
    /// Its end.
    pub commit: Commit,
    /// Its id.
    pub xid: u32,
    /// Its name.
    pub gid: &'a str,
}

/// A prepared transaction is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollbackPrepared<'a> {
    /// After its prepare: tells whether this client was sent it.
    pub prepare_end_lsn: Lsn,
    /// After the rollback.
    pub end_lsn: Lsn,
    /// When it was prepared, microseconds since 2000-01-01 UTC.
    pub prepare_us: i64,
    /// When it was rolled back, microseconds since 2000-01-01 UTC.
    pub rollback_us: i64,
    /// Its id.
    pub xid: u32,
    /// Its name.
    pub gid: &'a str,
}

impl Begin {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            final_lsn: Lsn(cursor.u64_be("Begin final LSN")?),
            commit_us: cursor.i64_be("Begin time")?,
            xid: cursor.u32_be("Begin xid")?,
        })
    }
}

impl Commit {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        one_of(cursor, &[0], "Commit flags")?;
        Ok(Self {
            commit_lsn: Lsn(cursor.u64_be("Commit LSN")?),
            end_lsn: Lsn(cursor.u64_be("Commit end LSN")?),
            commit_us: cursor.i64_be("Commit time")?,
        })
    }
}

impl StreamStart {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            xid: cursor.u32_be("Stream Start xid")?,
            is_first: one_of(cursor, &[0, 1], "Stream Start first")? == 1,
        })
    }
}

impl StreamCommit {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            xid: cursor.u32_be("Stream Commit xid")?,
            commit: Commit::decode(cursor)?,
        })
    }
}

impl StreamAbort {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            xid: cursor.u32_be("Stream Abort xid")?,
            subxid: cursor.u32_be("Stream Abort subxid")?,
            // There or not as the session asked; the message's end says so too.
            place: match cursor.is_empty() {
                true => None,
                false => Some((
                    Lsn(cursor.u64_be("Stream Abort LSN")?),
                    cursor.i64_be("Stream Abort time")?,
                )),
            },
        })
    }
}

impl<'a> Prepare<'a> {
    pub(super) fn decode_flagged(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        one_of(cursor, &[0], "Prepare flags")?;
        Self::decode(cursor)
    }

    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            prepare_lsn: Lsn(cursor.u64_be("Prepare LSN")?),
            end_lsn: Lsn(cursor.u64_be("Prepare end LSN")?),
            prepare_us: cursor.i64_be("Prepare time")?,
            xid: cursor.u32_be("Prepare xid")?,
            gid: text(cursor, "Prepare gid")?,
        })
    }
}

impl<'a> CommitPrepared<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            commit: Commit::decode(cursor)?,
            xid: cursor.u32_be("Commit Prepared xid")?,
            gid: text(cursor, "Commit Prepared gid")?,
        })
    }
}

impl<'a> RollbackPrepared<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        one_of(cursor, &[0], "Rollback Prepared flags")?;
        Ok(Self {
            prepare_end_lsn: Lsn(cursor.u64_be("Rollback Prepared prepare LSN")?),
            end_lsn: Lsn(cursor.u64_be("Rollback Prepared LSN")?),
            prepare_us: cursor.i64_be("Rollback Prepared prepare time")?,
            rollback_us: cursor.i64_be("Rollback Prepared time")?,
            xid: cursor.u32_be("Rollback Prepared xid")?,
            gid: text(cursor, "Rollback Prepared gid")?,
        })
    }
}
