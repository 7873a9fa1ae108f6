//! What the benches share: batches made of recordings as the engine's sources make them, records as its encoder writes them, and
//! processor time as criterion's measure, and what is written beside its results. The benches themselves are in `benches/`, their recorded
//! results in `record/`.
#![forbid(unsafe_code)]

pub mod batches;
pub mod built;
pub mod cpu_time;
// The harness's own. To link the harness into every bench would take each of them a minute.
#[path = "../../harness/src/machine.rs"]
pub mod machine;
pub mod postgres_batches;
pub mod records;
