//! MySQL's and MariaDB's rows as JSON.

pub(super) mod row;
mod temporal;
pub(super) mod value;
