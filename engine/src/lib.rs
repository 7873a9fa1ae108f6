//! The engine: sources, batches, schema, record encoding, producer, checkpoints, and the commands of `walbrook`.
//!
//! Layer rules (checked by the `tidy` test):
//! - `source` imports neither `encode` nor `producer`; `encode` neither `source` nor `producer`; `producer` neither `source` nor
//!   `encode`; only `pipeline` joins them;
//! - `Instant::now` and `SystemTime::now` stand in `clock.rs` alone.
#![forbid(unsafe_code)]

pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod encode;
pub mod encoded;
pub mod logging;
pub mod pipeline;
pub mod position;
pub mod producer;
pub mod report;
pub mod schema;
pub mod settled;
pub mod source;
