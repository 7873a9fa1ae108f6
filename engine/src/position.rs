//! Where a source stands, whatever the source is.

use protocol::mysql::{BinlogPosition, GtidSet};

/// A place between two transactions of a source's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// MySQL and MariaDB: file and offset, with the set of executed GTIDs where the server has them.
    MySql {
        /// Place in the server's own binary log.
        binlog: BinlogPosition,
        /// GTIDs executed up to here; `None` without GTIDs.
        gtids: Option<GtidSet>,
    },
}
