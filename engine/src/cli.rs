//! The command line of `walbrook`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Version and commit, as `--version` prints them after the program's name.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("WALBROOK_COMMIT"),
    ")"
);

/// Change data capture from MySQL, MariaDB and PostgreSQL into Apache Kafka.
#[derive(Debug, Parser)]
#[command(name = "walbrook", version = VERSION, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How logs are written; they go to stderr, results go to stdout.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Log more: -v debug, -vv trace.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Log warnings and errors only, and show no progress.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stream every source of the file into Kafka until stopped.
    Run(RunArguments),
    /// Validate the configuration, connect everywhere, and say what is missing and how to mend it. Changes nothing.
    Check {
        /// The configuration and what overrides it.
        #[command(flatten)]
        file: ConfigArguments,
    },
    /// Print changes as JSON lines, without Kafka and without keeping a position.
    Tap(TapArguments),
    /// Read or change the checkpoint of a source while no engine runs.
    Position {
        /// What to do with it.
        #[command(subcommand)]
        action: PositionAction,
    },
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// The configuration file.
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: PathBuf,
    /// Override a value of the file, e.g. --set kafka.compression=zstd; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `walbrook run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The configuration and what overrides it.
    #[command(flatten)]
    pub file: ConfigArguments,
    /// Stop when everything that the sources held at start is acknowledged.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub until: Option<UntilArgument>,
    /// Write a JSON summary to this file on exit.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// `--until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UntilArgument {
    /// What the sources held at start.
    End,
}

/// `walbrook tap`.
#[derive(Debug, Args)]
pub struct TapArguments {
    /// mysql://user:password@host:port, mariadb://… or postgres://user:password@host:port/database; ${NAME} is expanded from the environment.
    #[arg(value_name = "URL")]
    pub url: String,
    /// Tables to show, as globs of database.table; !GLOB excludes.
    #[arg(long, value_name = "GLOB", num_args = 1.., default_value = "*.*")]
    pub tables: Vec<String>,
    /// Record format.
    #[arg(long, value_name = "FORMAT", default_value = "debezium")]
    pub format: String,
    /// Stop after this many changes.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Read the password from this file instead of the URL.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where to begin: now, earliest, or a position.
    #[arg(long, value_name = "POSITION", default_value = "now")]
    pub start: String,
}

/// `walbrook position`.
#[derive(Debug, Subcommand)]
pub enum PositionAction {
    /// Print the checkpoint.
    Show {
        /// The configuration and what overrides it.
        #[command(flatten)]
        file: ConfigArguments,
        /// The source's name.
        source: String,
    },
    /// Go on from POSITION at the next start.
    Set {
        /// The configuration and what overrides it.
        #[command(flatten)]
        file: ConfigArguments,
        /// The source's name.
        source: String,
        /// FILE:OFFSET of the binary log, a set of GTIDs, or an LSN of PostgreSQL.
        position: String,
    },
    /// Forget the checkpoint: the next start begins where `start` of the configuration says.
    Reset {
        /// The configuration and what overrides it.
        #[command(flatten)]
        file: ConfigArguments,
        /// The source's name.
        source: String,
    },
}
