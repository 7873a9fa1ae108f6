//! What a table looks like at one position of the stream, in neutral terms.

use protocol::{mysql, postgres};

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
    /// MySQL and MariaDB. Those at the end without a name are the server's own: images hold them, records do not.
    MySql(Box<[mysql::Column]>),
    /// PostgreSQL.
    Postgres(Postgres),
}

impl Columns {
    /// MySQL's columns; none of another source's.
    #[inline]
    #[must_use]
    pub fn mysql(&self) -> &[mysql::Column] {
        match self {
            Self::MySql(columns) => columns,
            Self::Postgres(_) => &[],
        }
    }

    /// PostgreSQL's columns; none of another source's.
    #[inline]
    #[must_use]
    pub fn postgres(&self) -> &[postgres::Column] {
        match self {
            Self::Postgres(table) => &table.columns,
            Self::MySql(_) => &[],
        }
    }
}

/// A PostgreSQL table's columns.
#[derive(Debug)]
pub struct Postgres {
    /// Name of the database that the table lies in.
    pub database: Box<str>,
    /// In the order of the tuples.
    pub columns: Box<[postgres::Column]>,
    /// Columns of the replica identity: an update that changes none of them comes without an image before.
    pub identity: Box<[u16]>,
    /// Whether the identity is the whole row (FULL), so that no update comes without one, but of a partition with another identity.
    pub is_full: bool,
}
