//! MySQL and MariaDB: the client/server protocol as far as replication needs it, and the binary log.

pub mod auth;
pub mod charset;
pub mod column;
pub mod column_compression;
pub mod command;
pub mod compress;
pub mod decimal;
pub mod event;
pub mod gtid;
pub mod handshake;
pub mod json;
pub mod lenenc;
pub mod packet;
pub mod payload;
pub mod position;
pub mod resultset;
pub mod rows;
pub mod statement;
pub mod table_map;
pub mod temporal;
pub mod value;

pub use column::{Column, ColumnType};
pub use gtid::{Flavour, Gtid, GtidSet};
pub use position::BinlogPosition;
pub use value::Value;
