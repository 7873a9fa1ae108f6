//! After a restart: which rows are in Kafka already, so that they are not written again.
//!
//! Every record carries `pos`, `<file:offset of the transaction's first event>/<row>`, and `gtid` where the server has GTIDs. On start the
//! tail of each partition is read, from the offset that the checkpoint names to its end:
//!
//! ```text
//! partition 0   … │ a/0  a/3  b/1            │   the producer wrote each partition in the order of the stream,
//! partition 1   … │ a/1  a/2  b/0  c/5  c/7  │   so what is there is a prefix of what belongs there
//!                 └ checkpoint's offset      └ end
//! ```
//! - Records of other producers are ignored: only ids that the checkpoint names are ours.
//! - **On the same server** its log orders everything: rows up to the highest `pos` of a partition are written. This holds when
//!   compaction has removed some, because it never removes the last record of a partition.
//! - **On another server** positions mean nothing: only GTID and row decide, per transaction up to its highest row in that partition,
//!   never the order of transactions. A compacted tail proves nothing there and settles nothing: its rows are
//!   written again from the checkpoint on, in order. Tails without GTIDs, or with transactions that the new server never
//!   had, halt.
//!
//! The same server is the same log: one that goes by the same name and has another log comes with another identity
//! ([`Identity::with_another_log`](crate::source::Identity::with_another_log)).
//!
//! PostgreSQL's `pos` is `<commit LSN>/<row>`, and its server is a timeline of a cluster. Another timeline of the same cluster is the same
//! server up to the place where it branched off.
//!
//! This needs `pos` to grow along the stream. So the rows of an XA transaction, which come with its XA COMMIT, carry the
//! position of that commit, not of the XA START that stands in the log before other transactions' rows.

mod pos;
mod tails;

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::mysql::{Gtid, GtidSet};
use protocol::postgres::Lsn;

pub use pos::{InvalidPos, Pos};
pub(crate) use tails::NO_PRODUCER;
pub use tails::{SettledError, Tails};

use crate::position::Position;
use pos::Place;
pub(crate) use pos::split_file;

/// What is known to be written: an answer for every row of the stream from one server.
#[derive(Debug, Default)]
pub struct Settled {
    partitions: HashMap<(u32, i32), Partition>,
    ends: Ends,
    restarted: Ends,
}

/// An offset for each partition of some topics.
type Ends = BTreeMap<String, BTreeMap<i32, i64>>;

/// What one partition's tail says.
#[derive(Debug, Default, Clone)]
struct Partition {
    /// Highest place and row of records of this server, per base name of its binlog files (more than one only after `log_bin`
    /// was changed).
    highest: Vec<(Box<str>, Place)>,
    /// Highest row per transaction.
    gtids: HashMap<Box<str>, u64>,
}

impl Settled {
    /// Nothing is known to be written.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Whether no row is known to be written: then nobody need ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Per topic and partition: where the records of earlier runs end.
    #[must_use]
    pub const fn ends(&self) -> &BTreeMap<String, BTreeMap<i32, i64>> {
        &self.ends
    }

    /// Partitions whose tails prove nothing (compacted and written from another server, or ending before the checkpoint's offset
    /// because the topic was created anew), each with its end: from the checkpoint on they are written again, and what is before
    /// that end counts no more. Worth a log line each.
    #[must_use]
    pub const fn restarted(&self) -> &BTreeMap<String, BTreeMap<i32, i64>> {
        &self.restarted
    }

    /// Whether the records that `row` of a transaction puts into this partition are there already. `file` and `offset` are where the
    /// transaction begins in the binary log, `row` counts from 0 over all its rows.
    #[must_use]
    pub fn is_settled(
        &self,
        topic_id: u32,
        partition: i32,
        file: &str,
        offset: u64,
        gtid: Option<&str>,
        row: u64,
    ) -> bool {
        let Some(partition) = self.partitions.get(&(topic_id, partition)) else {
            return false;
        };
        let (base, number) = pos::split_file(file);
        let place = Place {
            number,
            offset,
            row,
        };
        if partition
            .highest
            .iter()
            .any(|(b, highest)| &**b == base && place <= *highest)
        {
            return true;
        }
        gtid.and_then(|gtid| partition.gtids.get(gtid))
            .is_some_and(|highest| row <= *highest)
    }

    /// Whether `position` is behind everything that was found: then every question is answered with no, and this can be dropped and
    /// [`crate::checkpoint::Ledger::tails_passed`] told.
    #[must_use]
    pub fn is_passed(&self, position: &Position) -> bool {
        let (binlog, gtids) = match position {
            Position::MySql { binlog, gtids } => (binlog, gtids),
            Position::Postgres { lsn } => return self.is_passed_at(*lsn),
        };
        let (base, number) = pos::split_file(&binlog.file);
        // A transaction that begins before the position has ended before it: positions stand between transactions.
        let reached = Place {
            number,
            offset: binlog.offset,
            row: 0,
        };
        let in_order = |(b, highest): &(Box<str>, Place)| &**b == base && *highest < reached;
        if !self
            .partitions
            .values()
            .all(|p| p.highest.iter().all(in_order))
        {
            return false;
        }
        let named: HashSet<&str> = self
            .partitions
            .values()
            .flat_map(|p| p.gtids.keys())
            .map(|gtid| &**gtid)
            .collect();
        if named.is_empty() {
            return true;
        }
        let Some(executed) = gtids
            .as_deref()
            .and_then(|text| text.parse::<GtidSet>().ok())
        else {
            return false;
        };
        named.iter().all(|gtid| {
            gtid.parse::<Gtid>()
                .is_ok_and(|gtid| executed.contains(&gtid))
        })
    }

    /// [`Settled::is_passed`] for PostgreSQL: a commit stands before the position after it.
    fn is_passed_at(&self, Lsn(reached): Lsn) -> bool {
        let mut highest = self.partitions.values().flat_map(|p| &p.highest);
        highest.all(|(base, highest)| base.is_empty() && highest.offset < reached)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod examples;
#[cfg(test)]
mod model;
