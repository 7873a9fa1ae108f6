//! Private instances of real servers for tests and recordings: installed by ourselves, on free loopback ports, with data in a
//! temporary directory.
//!
//! `harness servers up` starts instances that stay until `down`; tests hold a [`Server`], which ends with them. What a killed
//! process leaves behind is ended by its watcher (a shell that waits for the closing of a pipe) or, at the latest, by the next start.

mod install;
mod instance;
mod mysql;
mod postgres;
mod registry;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use install::{Installation, install};
pub use instance::Server;

use crate::cli::Outcome;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavour {
    /// MySQL 9.x.
    Mysql,
    /// MariaDB 10.11.
    Mariadb,
    /// PostgreSQL 15 with wal2json.
    Postgres,
}

impl Flavour {
    /// Every flavour.
    pub const ALL: [Flavour; 3] = [Flavour::Mysql, Flavour::Mariadb, Flavour::Postgres];

    /// As typed: `mysql`, `mariadb`, `postgres`.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Mysql => "mysql",
            Flavour::Mariadb => "mariadb",
            Flavour::Postgres => "postgres",
        }
    }

    /// As written, with the version.
    pub fn title(self) -> &'static str {
        match self {
            Flavour::Mysql => "MySQL 9.x",
            Flavour::Mariadb => "MariaDB 10.11",
            Flavour::Postgres => "PostgreSQL 15",
        }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file or directory.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The programs cannot be had.
    #[error("{0}")]
    Install(String),
    /// The server does not start or answer.
    #[error("{flavour} does not start: {reason}; its log ends:\n{log}")]
    Start {
        /// Which server.
        flavour: &'static str,
        /// What was seen.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
}

impl ServerError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ServerError + '_ {
        move |source| ServerError::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// `harness servers`: real servers for tests, installed by the command itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[arg(value_enum)]
    action: Action,
    /// Which servers; all when none is named.
    #[arg(value_enum)]
    servers: Vec<Flavour>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Action {
    /// Install what is missing.
    Install,
    /// Install what is missing, start what does not run, wait until it answers, print the URLs.
    Up,
    /// Stop and remove the data.
    Down,
    /// Print what runs.
    Status,
}

/// Runs `harness servers`; `status` exits with 1 when a named server does not run.
///
/// # Errors
/// [`ServerError`].
pub async fn run(args: Args) -> Outcome {
    let servers = if args.servers.is_empty() {
        Flavour::ALL.to_vec()
    } else {
        args.servers
    };
    registry::remove_leftovers();
    let mut status = ExitCode::SUCCESS;
    for flavour in servers {
        match args.action {
            Action::Install => drop(tokio::task::block_in_place(|| install(flavour))?),
            Action::Up => {
                let url = match registry::standing(flavour) {
                    Some(url) => url,
                    None => Server::start_standing(flavour).await?,
                };
                println!("{} {url}", flavour.name());
            }
            Action::Down => registry::down(flavour)?,
            Action::Status => match registry::standing(flavour) {
                Some(url) => println!("{} {url}", flavour.name()),
                None => {
                    println!("{} down", flavour.name());
                    status = ExitCode::FAILURE;
                }
            },
        }
    }
    Ok(status)
}
