//! Logs: `tracing` to stderr, as lines for people or as JSON.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Starts logging for the life of the process. `WALBROOK_LOG` takes a filter in `tracing`'s syntax and overrides `-v` and `-q`.
pub fn start(format: LogFormat, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let default = format!("warn,engine={level}");
    let filter =
        EnvFilter::try_from_env("WALBROOK_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // A second start keeps the first subscriber: tests of several commands share a process.
    match format {
        LogFormat::Text => drop(subscriber.with_target(false).try_init()),
        LogFormat::Json => drop(subscriber.json().flatten_event(true).try_init()),
    }
}
