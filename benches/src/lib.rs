//! What the benches share: batches made of recordings as the engine's sources make them, records as its encoder writes them, and
//! processor time as criterion's measure. The benches themselves are in `benches/`, their recorded results in `record/`.
#![forbid(unsafe_code)]

pub mod batches;
pub mod cpu_time;
pub mod postgres_batches;
pub mod records;
