//! PostgreSQL: the frontend/backend protocol as far as logical replication needs it, and the output of its plugins.

pub mod array;
pub mod auth;
mod builtin;
pub mod catalog;
pub mod column;
pub mod command;
pub mod copy;
pub mod hstore;
pub mod interval;
pub mod packet;
pub mod pgoutput;
pub mod position;
pub mod resultset;
mod scan;
pub mod temporal;
pub mod type_catalog;
mod type_name;
pub mod value;
pub mod wal2json;

pub use column::{Array, Column, ColumnType};
pub use position::Lsn;
pub use type_catalog::{MONEY, TypeCatalog, TypeKind, TypeRow};
