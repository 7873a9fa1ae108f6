//! One running server: data directory, options, start, wait, end.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::install::{Installation, install};
use super::process::{End, Process, free_ports};
use super::{Flavour, ServerError, mysql, postgres, registry};

/// How long a server may take to answer; a first start on a loaded machine takes 10 s.
const START_MAX: Duration = Duration::from_secs(120);
/// How long a server may take to end.
const STOP_MAX: Duration = Duration::from_secs(60);

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
        registry::remove_leftovers();
        let directory = Server::directory_of(flavour)?;
        Server::start_in(flavour, directory, options, true, None).await
    }

    /// A directory that no other instance has.
    fn directory_of(flavour: Flavour) -> Result<PathBuf, ServerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{}-{}-{}",
            flavour.name(),
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        Ok(registry::directory()?.join(name))
    }

    /// Starts the instance of `servers up` and answers its URL.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(super) async fn start_standing(flavour: Flavour) -> Result<String, ServerError> {
        let directory = registry::standing_directory(flavour)?;
        registry::remove(&directory);
        let mut server = Server::start_in(flavour, directory, &[], true, None).await?;
        server.owned = false;
        Ok(server.url())
    }

    async fn start_in(
        flavour: Flavour,
        directory: PathBuf,
        options: &[&str],
        owned: bool,
        primary: Option<(u16, &str)>,
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
        let installation = tokio::task::block_in_place(|| match (flavour.postgres(), primary) {
            (None, _) => {
                mysql::prepare(flavour, &installation, &server.directory().join("data"))?;
                Ok(installation)
            }
            (Some(major), primary) => {
                let installation = postgres::reachable(major, installation, server.directory())?;
                match primary {
                    None => postgres::prepare(&installation, server.directory())?,
                    Some((port, slot)) => {
                        postgres::copy(&installation, server.directory(), port, slot)?;
                    }
                }
                Ok(installation)
            }
        })?;
        server.launch(&installation, standing).await?;
        Ok(server)
    }

    /// Starts a standby of this PostgreSQL, which keeps its log for it in a physical slot `slot` that this makes. `options` as in
    /// [`Server::start`], over those of the primary. It answers once it takes connections; `pg_promote()` ends its being one.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn standby(&self, slot: &str, options: &[&str]) -> Result<Server, ServerError> {
        let all: Vec<&str> = (self.options.iter().map(String::as_str))
            .chain(options.iter().copied())
            .collect();
        let directory = Server::directory_of(self.flavour)?;
        let primary = Some((self.port, slot));
        Server::start_in(self.flavour, directory, &all, true, primary).await
    }

    /// Kills the server and starts it again on the same port and data, as after a crash of the machine.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process.kill();
        self.start_again().await
    }

    /// Starts the server, which has ended, again on the same port and data.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_again(&mut self) -> Result<(), ServerError> {
        let mut installation = tokio::task::block_in_place(|| install(self.flavour))?;
        if let Some(major) = self.flavour.postgres() {
            installation = postgres::reachable(major, installation, self.directory())?;
        }
        self.launch(&installation, false).await
    }

    /// Ends the server by `signal` and waits until it is gone; its data stays. PostgreSQL takes SIGTERM for a shutdown that waits for
    /// its clients, SIGINT for a fast one and SIGQUIT for an immediate one.
    ///
    /// # Errors
    /// It does not end within a minute.
    pub fn stop(&mut self, signal: Signal) -> Result<(), ServerError> {
        let ended = registry::ends_by(self.directory(), signal, STOP_MAX);
        // Whatever came of it: the watcher ends the server the hard way.
        self.process.kill();
        match ended {
            true => Ok(()),
            false => Err(ServerError::Install(format!(
                "{} did not end by {signal} within {} s",
                self.flavour.title(),
                STOP_MAX.as_secs()
            ))),
        }
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
        match self.flavour.postgres() {
            Some(_) => self.address("postgres"),
            None => self.address("root"),
        }
    }

    /// URL of the user `cdc`, who may what a change capture needs.
    pub fn cdc_url(&self) -> String {
        self.address("cdc:cdc")
    }

    fn address(&self, user: &str) -> String {
        let database = match self.flavour.postgres() {
            Some(_) => "/walbrook",
            None => "",
        };
        format!(
            "{}://{user}@127.0.0.1:{}{database}",
            self.flavour.scheme(),
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
        let (end, options) = match self.flavour.postgres() {
            Some(_) => (End::Quit, postgres::options(installation, directory, port)?),
            None => {
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
            let answer = match self.flavour.postgres() {
                Some(_) => postgres::answers(port).await,
                None => mysql::answers(port).await,
            };
            // Between finding a port and listening on it another server may have taken it.
            let ours = self.directory().join("data").canonicalize();
            let error = match answer {
                Ok(data) if data.canonicalize().ok() == ours.ok() => return Ok(()),
                Ok(data) => format!("port {port} is that of a server on {}", data.display()),
                Err(error) => error,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tests would have one server, and end it for each other.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_on_the_port_that_was_found_is_not_taken_for_ours() {
        for flavour in [Flavour::Mysql, Flavour::Postgres] {
            let installed = tokio::task::block_in_place(|| install(flavour));
            if let Err(reason) = installed {
                assert!(!crate::is_ci(), "required in CI: {reason}");
                eprintln!("\n*** SKIPPED: two of {}: {reason}\n", flavour.title());
                continue;
            }
            let first = Server::start(flavour, &[]).await.unwrap();
            let mut second = Server::start(flavour, &[]).await.unwrap();
            assert_ne!(first.port(), second.port());
            second.process.kill();
            second.port = first.port();
            let error = second.start_again().await.unwrap_err().to_string();
            assert!(error.contains("ended at once"), "{error}");
            assert!(first.answers(first.port()).await.is_ok());
        }
    }
}
