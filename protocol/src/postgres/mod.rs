//! PostgreSQL: the frontend/backend protocol as far as logical replication needs it, and the output of its plugins.

pub mod catalog;
pub mod column;
pub mod position;

pub use column::{Column, ColumnType};
pub use position::Lsn;
