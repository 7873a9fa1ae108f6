//! `harness compare`: two reports, or a report and a stored baseline, side by side, with a verdict that knows what noise is; criterion's
//! results beside them. And `harness stages`, which makes a small file of criterion's results.
//!
//! ```text
//! A: reports, stages ─┐
//!                     ├─ joined by scenario and bench ─ statistics ─ judgement ─► table, page, exit status
//! B: reports, stages ─┘
//! ```

mod command;
mod comparison;
mod criterion;
mod forest;
mod join;
pub mod judgement;
mod machine;
mod obstacles;
mod page;
mod side;
pub mod stages;
pub mod statistics;
mod table;
mod whole;

pub use command::{Args, StagesArgs, run, run_stages};
