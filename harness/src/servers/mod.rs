//! Private instances of real servers for tests and recordings: installed by ourselves, on free loopback ports, with data in a
//! temporary directory.
//!
//! `harness servers up` starts instances that stay until `down`; tests hold a [`Server`], which ends with them. What a killed
//! process leaves behind is ended by its watcher (a shell that waits for the closing of a pipe) or, at the latest, by the next start.

mod install;
mod instance;
pub mod kafka;
mod mysql;
mod postgres;
mod process;
mod registry;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum as _;

pub use install::{Installation, install};
pub use instance::Server;
pub use kafka::Kafka;

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
    /// PostgreSQL 17 with wal2json.
    #[value(name = "postgres-17")]
    Postgres17,
    /// PostgreSQL 18 with wal2json.
    #[value(name = "postgres-18")]
    Postgres18,
}

impl Flavour {
    /// Every flavour.
    pub const ALL: [Flavour; 5] = [
        Flavour::Mysql,
        Flavour::Mariadb,
        Flavour::Postgres,
        Flavour::Postgres17,
        Flavour::Postgres18,
    ];

    /// As typed: `mysql`, `mariadb`, `postgres`, `postgres-17`, `postgres-18`.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Mysql => "mysql",
            Flavour::Mariadb => "mariadb",
            Flavour::Postgres => "postgres",
            Flavour::Postgres17 => "postgres-17",
            Flavour::Postgres18 => "postgres-18",
        }
    }

    /// As written, with the version.
    pub fn title(self) -> &'static str {
        match self {
            Flavour::Mysql => "MySQL 9.x",
            Flavour::Mariadb => "MariaDB 10.11",
            Flavour::Postgres => "PostgreSQL 15",
            Flavour::Postgres17 => "PostgreSQL 17",
            Flavour::Postgres18 => "PostgreSQL 18",
        }
    }

    /// PostgreSQL's major version; none of the others.
    pub fn postgres(self) -> Option<u32> {
        match self {
            Flavour::Mysql | Flavour::Mariadb => None,
            Flavour::Postgres => Some(15),
            Flavour::Postgres17 => Some(17),
            Flavour::Postgres18 => Some(18),
        }
    }

    /// The scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Flavour::Mysql | Flavour::Mariadb => self.name(),
            Flavour::Postgres | Flavour::Postgres17 | Flavour::Postgres18 => "postgres",
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
    /// Which servers; all but kafka-3 when none is named.
    #[arg(value_parser = named())]
    servers: Vec<Named>,
}

/// A server of the command line.
#[derive(Clone, Copy, Debug)]
enum Named {
    Database(Flavour),
    /// Apache Kafka, one broker or three.
    Kafka(&'static str, usize),
}

const KAFKA: Named = Named::Kafka("kafka", 1);
const KAFKA_3: Named = Named::Kafka("kafka-3", 3);

impl Named {
    /// What is meant where nothing is named.
    fn all() -> Vec<Named> {
        let databases = Flavour::ALL.into_iter().map(Named::Database);
        databases.chain([KAFKA]).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Named::Database(flavour) => flavour.name(),
            Named::Kafka(name, _) => name,
        }
    }

    fn install(self) -> Result<(), ServerError> {
        match self {
            Named::Database(flavour) => install(flavour).map(drop),
            Named::Kafka(..) => kafka::Programs::install().map(drop),
        }
    }

    fn standing(self) -> Option<String> {
        match self {
            Named::Database(flavour) => registry::standing(flavour),
            Named::Kafka(name, count) => kafka::standing(name, count),
        }
    }

    async fn start(self) -> Result<String, ServerError> {
        match self {
            Named::Database(flavour) => Server::start_standing(flavour).await,
            Named::Kafka(name, count) => Kafka::stand(name, count).await,
        }
    }

    fn down(self) -> Result<(), ServerError> {
        match self {
            Named::Database(flavour) => registry::down(flavour),
            Named::Kafka(name, count) => kafka::down(name, count),
        }
    }
}

/// Reads a server's name; help lists them.
fn named() -> impl clap::builder::TypedValueParser<Value = Named> {
    use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
    let databases = Flavour::value_variants().iter();
    let values: Vec<PossibleValue> = databases
        .filter_map(clap::ValueEnum::to_possible_value)
        .chain([
            PossibleValue::new(KAFKA.name()).help("Apache Kafka 3.9, one broker"),
            PossibleValue::new(KAFKA_3.name())
                .help("Three of them, replication 3, min.insync.replicas 2"),
        ])
        .collect();
    PossibleValuesParser::new(values).try_map(|name| {
        let kafka = [KAFKA, KAFKA_3]
            .into_iter()
            .find(|kafka| kafka.name() == name);
        let database = || Flavour::from_str(&name, false).map(Named::Database);
        kafka.map_or_else(database, Ok)
    })
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
        Named::all()
    } else {
        args.servers
    };
    registry::remove_leftovers();
    let mut status = ExitCode::SUCCESS;
    for server in servers {
        match args.action {
            Action::Install => tokio::task::block_in_place(|| server.install())?,
            Action::Up => {
                let url = match server.standing() {
                    Some(url) => url,
                    None => server.start().await?,
                };
                println!("{} {url}", server.name());
            }
            Action::Down => server.down()?,
            Action::Status => match server.standing() {
                Some(url) => println!("{} {url}", server.name()),
                None => {
                    println!("{} down", server.name());
                    status = ExitCode::FAILURE;
                }
            },
        }
    }
    Ok(status)
}
