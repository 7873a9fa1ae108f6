//! `walbrook`: change data capture from MySQL, MariaDB and PostgreSQL into Apache Kafka.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use engine::cli::Cli;

fn main() -> ExitCode {
    // clap exits with 2 on a usage error by itself, as `interface` asks.
    engine::commands::run(Cli::parse())
}
