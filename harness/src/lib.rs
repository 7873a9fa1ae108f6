//! Proves the engine from outside: real servers, recordings, replay servers, an embedded broker, faults, verification, reports.
//!
//! Layer rule: never imports `engine`. What must come out follows from the workload that went in ([`workload`], [`truth`]) and
//! from independent decoders; the engine runs as a process of its own. Codecs shared with it (`protocol`) are themselves proven
//! with foreign clients.
#![forbid(unsafe_code)]

pub mod admin;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod demo;
pub mod links;
pub mod machine;
pub mod record;
pub mod replay;
pub mod report;
pub mod seed;
pub mod serve;
pub mod servers;
mod stop;
pub mod truth;
pub mod verify;
pub mod workload;

/// Whether this is CI, where no test may be skipped: the variable `CI` is set and not empty.
#[must_use]
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| !ci.is_empty())
}
