//! `harness`: replays recorded streams of real servers and proves what arrived.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    harness::cli::main(harness::cli::Cli::parse())
}
