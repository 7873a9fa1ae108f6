//! See the crate's README section in docs/architecture.md.
#![forbid(unsafe_code)]

pub mod batches;
pub mod cpu_time;
pub mod postgres_batches;
