//! `harness record`: captures a real server's replication stream as sent, and what a client would have been told at its start.

pub(crate) mod mysql;
pub(crate) mod postgres;

use std::path::PathBuf;
use std::process::ExitCode;

use fixtures::Sidecar;
use protocol::DecodeError;

use crate::cli::Outcome;
use crate::servers::Flavour;
use crate::truth::Truth;

/// `harness record`: a real server's stream into a file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind of server.
    #[arg(value_enum)]
    server: Flavour,
    /// `mysql://user:password@host:port` or `postgres://user:password@host:port/database`; `${NAME}` stands for an environment
    /// variable. MySQL's user needs REPLICATION SLAVE, REPLICATION CLIENT and SELECT, PostgreSQL's REPLICATION and SELECT.
    #[arg(long)]
    url: String,
    /// The recording, `NAME.zst`; `NAME.toml` is written beside it.
    #[arg(long)]
    out: PathBuf,
    /// MySQL: where to begin, `FILE:OFFSET`; the oldest binlog when absent.
    #[arg(long)]
    from: Option<String>,
    /// PostgreSQL: the slot to read, and its publication's name; nothing is confirmed, so that it can be read again.
    #[arg(
        long,
        required_if_eq_any([("server", "postgres"), ("server", "postgres-17"), ("server", "postgres-18")])
    )]
    slot: Option<String>,
    /// PostgreSQL: an option of the output plugin over ours, `NAME=VALUE`.
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// The truth that `harness seed` wrote; copied to `NAME.truth.toml`.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// How the stream was made, for the sidecar.
    #[arg(long, default_value = "harness record")]
    provenance: String,
    /// Compression level of the file.
    #[arg(long, default_value_t = 19)]
    level: i32,
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The socket.
    #[error("connection to the server: {0}")]
    Connection(std::io::Error),
    /// The password is wrong or the plugin unknown.
    #[error("authentication: {0}")]
    Authentication(String),
    /// The server's words.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// Bytes that are no protocol.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// Something else was due.
    #[error("the server sent something unexpected: {0}")]
    Unexpected(&'static str),
    /// The recording's files.
    #[error("{0}")]
    Fixture(#[from] fixtures::FixtureError),
    /// An argument.
    #[error("{0}")]
    Usage(String),
}

/// Runs `harness record`.
///
/// # Errors
/// [`RecordError`].
pub async fn run(args: Args) -> Outcome {
    let truth = args.truth.as_deref().map(Truth::read).transpose()?;
    let recording = tokio::task::block_in_place(|| match args.server {
        Flavour::Mysql | Flavour::Mariadb => mysql::record(&args, truth.as_ref()),
        Flavour::Postgres | Flavour::Postgres17 | Flavour::Postgres18 => {
            postgres::record(&args, truth.as_ref())
        }
    })?;
    if let Some(truth) = truth {
        std::fs::write(recording.truth_path(), truth.to_toml())?;
    }
    let size = std::fs::metadata(&recording.path)?.len();
    let Sidecar {
        bytes,
        end,
        postgres,
        ..
    } = &recording.sidecar;
    let end = match postgres {
        Some(postgres) => postgres.end.clone(),
        None => format!("{}:{}", end.file, end.offset),
    };
    println!(
        "{}: {bytes} bytes up to {end}, {size} on disk",
        recording.path.display()
    );
    Ok(ExitCode::SUCCESS)
}
