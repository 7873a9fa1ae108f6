//! What a table looks like at one position of the stream, in neutral terms.

use protocol::mysql;

/// One version of a table. A change of its shape makes a new version; a version never changes.
#[derive(Debug)]
pub struct Table {
    /// Unique per version within this process: what caches are keyed by.
    pub version: u64,
    /// Database (MySQL) or schema (PostgreSQL).
    pub schema: Box<str>,
    /// Table name.
    pub name: Box<str>,
    /// Indices of the key columns in key order: the primary key, otherwise the first unique index without nullable columns;
    /// empty when there is neither.
    pub key: Box<[u16]>,
    /// The columns, in the source's own terms.
    pub columns: Columns,
}

/// Columns in table order, as the source's decoder needs them.
#[derive(Debug)]
pub enum Columns {
    /// MySQL and MariaDB.
    MySql(Box<[mysql::Column]>),
}
