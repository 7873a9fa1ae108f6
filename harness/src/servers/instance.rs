//! One running server: data directory, options, start, wait, end.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::install::{Installation, install};
use super::process::{End, Process, free_ports};
use super::{Flavour, ServerError, mysql, postgres, registry};

/// How long a server may take to answer; a first start on a loaded machine takes 10 s.
const START_MAX: Duration = Duration::from_secs(120);

/// A private server that ends, with its data, when this is dropped or the process dies.
#[derive(Debug)]
pub struct Server {
    flavour: Flavour,
    process: Process,
    port: u16,
    options: Vec<String>,
    /// Whether dropping ends it.
    owned: bool,
}

impl Server {
    /// Starts a server with complete row-based binlogs and GTIDs, and `options` (`--name=value`) over ours.
    ///
    /// Users: `root` without a password (all privileges), and `cdc` with password `cdc`, who may what a change capture needs:
    /// REPLICATION SLAVE, REPLICATION CLIENT, SELECT. PostgreSQL's: `postgres` without a password, and `cdc` with password `cdc`,
    /// SELECT and REPLICATION, in the database `walbrook`; logical WAL, and TLS by a certificate of [`Server::ca`].
    ///
    /// # Errors
    /// [`ServerError`]: not to be had, or its log's last lines.
    pub async fn start(flavour: Flavour, options: &[&str]) -> Result<Server, ServerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        registry::remove_leftovers();
        let name = format!(
            "{}-{}-{}",
            flavour.name(),
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = registry::directory()?.join(name);
        Server::start_in(flavour, directory, options, true).await
    }

    /// Starts the instance of `servers up` and answers its URL.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(super) async fn start_standing(flavour: Flavour) -> Result<String, ServerError> {
        let directory = registry::standing_directory(flavour)?;
        registry::remove(&directory);
        let mut server = Server::start_in(flavour, directory, &[], true).await?;
        server.owned = false;
        Ok(server.url())
    }

    async fn start_in(
        flavour: Flavour,
        directory: PathBuf,
        options: &[&str],
        owned: bool,
    ) -> Result<Server, ServerError> {
        let standing = directory
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("up-"));
        let installation = tokio::task::block_in_place(|| install(flavour))?;
        fs::create_dir_all(directory.join("tmp")).map_err(ServerError::io(&directory))?;
        if !standing {
            registry::note(&directory.join("owner"), std::process::id())?;
        }
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Server {
            flavour,
            process: Process::new(directory),
            port: 0,
            options,
            owned,
        };
        let installation = tokio::task::block_in_place(|| match flavour {
            Flavour::Mysql | Flavour::Mariadb => {
                mysql::prepare(flavour, &installation, &server.directory().join("data"))?;
                Ok(installation)
            }
            Flavour::Postgres => {
                let installation = postgres::reachable(installation, server.directory())?;
                postgres::prepare(&installation, server.directory())?;
                Ok(installation)
            }
        })?;
        server.launch(&installation, standing).await?;
        Ok(server)
    }

    /// Kills the server and starts it again on the same port and data, as after a crash of the machine.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process.kill();
        let mut installation = tokio::task::block_in_place(|| install(self.flavour))?;
        if self.flavour == Flavour::Postgres {
            installation = postgres::reachable(installation, self.directory())?;
        }
        self.launch(&installation, false).await
    }

    /// Which kind.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// `127.0.0.1` port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of the user `root` or `postgres`, who may everything.
    pub fn url(&self) -> String {
        match self.flavour {
            Flavour::Postgres => self.address("postgres"),
            Flavour::Mysql | Flavour::Mariadb => self.address("root"),
        }
    }

    /// URL of the user `cdc`, who may what a change capture needs.
    pub fn cdc_url(&self) -> String {
        self.address("cdc:cdc")
    }

    fn address(&self, user: &str) -> String {
        let database = match self.flavour {
            Flavour::Postgres => "/walbrook",
            Flavour::Mysql | Flavour::Mariadb => "",
        };
        format!(
            "{}://{user}@127.0.0.1:{}{database}",
            self.flavour.name(),
            self.port
        )
    }

    /// A connection to MySQL or MariaDB as root, for SQL.
    ///
    /// # Errors
    /// Those of `mysql_async`.
    pub async fn connect(&self) -> Result<mysql_async::Conn, mysql_async::Error> {
        mysql::connect(self.port).await
    }

    /// A connection to PostgreSQL's database `walbrook` as `postgres`, for SQL.
    ///
    /// # Errors
    /// Those of `tokio_postgres`.
    pub async fn connect_postgres(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        postgres::connect(self.port).await
    }

    /// The authority (PEM) that signed the certificate of a PostgreSQL server, for `localhost` and `127.0.0.1`.
    pub fn ca(&self) -> PathBuf {
        self.directory().join(postgres::CA)
    }

    /// The directory with data, log and socket.
    pub fn directory(&self) -> &Path {
        self.process.directory()
    }

    async fn launch(
        &mut self,
        installation: &Installation,
        standing: bool,
    ) -> Result<(), ServerError> {
        let mut reason = String::new();
        // The port may be taken between finding it and listening on it.
        for _ in 0..3 {
            let port = if self.port == 0 {
                free_ports(Ipv4Addr::LOCALHOST.into(), 1)?[0]
            } else {
                self.port
            };
            self.spawn(installation, port, standing)?;
            match self.answers(port).await {
                Ok(()) => {
                    self.port = port;
                    let url = self.directory().join("url");
                    return fs::write(&url, self.url()).map_err(ServerError::io(&url));
                }
                Err(why) => reason = why,
            }
            self.process.kill();
        }
        Err(ServerError::Start {
            flavour: self.flavour.title(),
            reason,
            log: self.process.last_words(),
        })
    }

    fn spawn(
        &mut self,
        installation: &Installation,
        port: u16,
        standing: bool,
    ) -> Result<(), ServerError> {
        let directory = self.directory();
        let (end, options) = match self.flavour {
            Flavour::Postgres => (End::Quit, postgres::options(installation, directory, port)?),
            Flavour::Mysql | Flavour::Mariadb => {
                let init = directory.join("init.sql");
                fs::write(&init, mysql::users(self.flavour)).map_err(ServerError::io(&init))?;
                (End::Kill, mysql::options(self.flavour, directory, port))
            }
        };
        let parts = [
            &installation.command,
            &installation.options,
            &options,
            &self.options,
        ];
        let command: Vec<String> = parts.into_iter().flatten().cloned().collect();
        self.process.spawn(&command, end, standing)
    }

    /// Waits until the administrator can run a statement on `port` and the users are there.
    async fn answers(&self, port: u16) -> Result<(), String> {
        let deadline = crate::clock::now() + START_MAX;
        loop {
            let answer = match self.flavour {
                Flavour::Postgres => postgres::answers(port).await,
                Flavour::Mysql | Flavour::Mariadb => mysql::answers(port).await,
            };
            let Err(error) = answer else {
                return Ok(());
            };
            if self.process.running().is_none() {
                return Err("it ended at once".to_owned());
            }
            if crate::clock::now() > deadline {
                return Err(format!(
                    "no answer within {} s: {error}",
                    START_MAX.as_secs()
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.owned {
            self.process.kill();
            registry::remove(self.directory());
        }
    }
}
