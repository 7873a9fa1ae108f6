//! `harness record`: captures a real server's replication stream as sent, and what a client would have been told at its start.

pub(crate) mod mysql;
pub(crate) mod postgres;

use std::path::PathBuf;
use std::process::ExitCode;

use fixtures::Sidecar;
use protocol::DecodeError;

use crate::cli::Outcome;
use crate::seed;
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
    /// Read the password from this file instead of the URL.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
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
pub async fn run(mut args: Args) -> Outcome {
    args.url = seed::with_password(args.server, args.url, args.password_file.as_deref())?;
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::Parser as _;
    use fixtures::Recording;

    use super::*;
    use crate::serve::{ServeOptions, Server};

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    /// What `harness record` says of a played server that asks for a password, with this one in its file; nothing when all is well.
    async fn said(flavour: &str, recording: &str, password: &str) -> String {
        let options = ServeOptions {
            user: Some(("u".to_owned(), "a p:ssw@rd".to_owned())),
            ..ServeOptions::default()
        };
        let recording = Recording::named(recording).unwrap();
        let server = Server::start(&recording, "127.0.0.1:0", options);
        let server = server.await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let url = format!("{flavour}://u@{}/walbrook", server.address());
        let out = directory.path().join("x.zst");
        let line: [&OsStr; 10] = [
            "record".as_ref(),
            flavour.as_ref(),
            "--url".as_ref(),
            url.as_ref(),
            "--slot".as_ref(),
            "walbrook".as_ref(),
            "--password-file".as_ref(),
            file.as_ref(),
            "--out".as_ref(),
            out.as_ref(),
        ];
        let command = Command::try_parse_from(line).unwrap();
        let outcome = run(command.args).await;
        outcome.map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_password_of_a_file_lets_in_and_no_other_does() {
        for (flavour, recording, refusal) in [
            ("mysql", "mysql-9.7-20k", "Access denied"),
            (
                "postgres",
                "postgres-15-20k",
                "password authentication failed",
            ),
        ] {
            let refused = said(flavour, recording, "another").await;
            assert!(refused.contains(refusal), "{flavour}: {refused}");
            // What a played server cannot answer comes after it has let us in.
            let entered = said(flavour, recording, "a p:ssw@rd").await;
            assert!(!entered.contains(refusal), "{flavour}: {entered}");
            assert!(!entered.contains("authentication"), "{flavour}: {entered}");
        }
    }
}
