//! Where the stream stands, and the transaction that is being read.

use protocol::postgres::Lsn;

/// The transaction being read.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// Where its commit stands: what names it.
    pub(super) commit: Lsn,
    pub(super) xid: u32,
    /// Microseconds since 1970 of its commit; `None` before 1970.
    pub(super) commit_us: Option<u64>,
    /// Rows read so far, of all tables.
    pub(super) rows: u64,
    /// Rows of captured tables among them: what cannot be taken back.
    pub(super) captured: u64,
    /// Where the transaction stands in the present batch: the batch's number, and its index there.
    pub(super) slot: Option<(u64, u32)>,
}

/// A transaction of which a lost connection brought only a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) commit: Lsn,
    /// Rows of it, of all tables, that have been handed out or passed over.
    pub(super) rows: u64,
    /// Rows of captured tables among them.
    pub(super) captured: u64,
}

/// Where the stream stands between transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// After the last whole transaction, or as far as a keepalive says that there is nothing for us.
    pub(super) safe: Lsn,
    /// After the last commit that was seen.
    pub(super) previous_commit: Option<Lsn>,
}

/// Microseconds between 1970 and PostgreSQL's epoch, 2000-01-01.
const EPOCH_US: i64 = 946_684_800_000_000;

/// A server's time, microseconds since 2000, as microseconds since 1970.
pub(super) fn since_1970(us: i64) -> Option<u64> {
    u64::try_from(us.checked_add(EPOCH_US)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_other_epoch() {
        assert_eq!(since_1970(0), Some(946_684_800_000_000));
        assert_eq!(since_1970(-EPOCH_US), Some(0));
        assert_eq!(since_1970(-EPOCH_US - 1), None);
        assert_eq!(since_1970(i64::MAX), None);
    }
}
