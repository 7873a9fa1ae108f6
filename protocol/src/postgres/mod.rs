//! PostgreSQL: the frontend/backend protocol as far as logical replication needs it, and the output of its plugins.

mod builtin;
pub mod catalog;
pub mod column;
pub mod position;
pub mod type_catalog;
mod type_name;

pub use column::{Array, Column, ColumnType};
pub use position::Lsn;
pub use type_catalog::{TypeCatalog, TypeKind, TypeRow};
