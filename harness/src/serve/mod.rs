//! `harness serve`: a replay server. It speaks to clients as the recorded server did: handshake, authentication, TLS, wire
//! compression, the queries of a start, both dump commands; and then shows the recorded stream from the place that was asked for.
//!
//! ```text
//! listen ─► mysql ─┐
//!        └► postgres ─► what the recorded server says ─► outlet (paced, with faults) ─► stream (socket, TLS)
//! ```
//! It shares the codecs of `protocol` with the engine, so it is itself proven with foreign clients (`tests/serve.rs`).

mod command;
mod fault;
mod mysql;
mod outlet;
mod postgres;
mod stage;
mod stream;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use fixtures::{FixtureError, Recording};
use protocol::mysql::auth::Plugin;
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};

pub use command::{Args, run};
pub use fault::{Action, Fault, InvalidFault, Place};
use stage::Stage;

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The recording cannot be read.
    #[error(transparent)]
    Fixture(#[from] FixtureError),
    /// The recording can be read and makes no sense.
    #[error("{0}")]
    Recording(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// No certificate could be made.
    #[error("tls: {0}")]
    Tls(String),
}

/// How fast the stream is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Row changes per second.
    Changes(u64),
    /// Bytes on the wire (before TLS and compression) per second.
    Bytes(u64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?}: expected changes per second (100000) or bytes per second (1000000b)")
        };
        let number = |text: &str| {
            text.replace('_', "")
                .parse()
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(wrong)
        };
        match text.strip_suffix('b') {
            Some(bytes) => number(bytes).map(Self::Bytes),
            None => number(text).map(Self::Changes),
        }
    }
}

/// How much one write takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// Half a megabyte at a time.
    #[default]
    Large,
    /// One event each, as a real walsender does.
    #[value(name = "message")]
    #[serde(rename = "message")]
    Each,
}

/// How a client of PostgreSQL proves its password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMethod {
    /// SCRAM-SHA-256, with TLS also SCRAM-SHA-256-PLUS.
    #[default]
    ScramSha256,
    /// A salted MD5 hash.
    Md5,
    /// The password itself.
    Password,
}

/// Where replication slots begin that clients create.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum NewSlots {
    /// Where the recording begins: what was recorded is what happens next.
    #[default]
    Start,
    /// Where it ends: what was recorded is past.
    End,
}

/// What only PostgreSQL has.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// How passwords are proven.
    pub auth: AuthMethod,
    /// The slot that is there from the beginning; the recording's where there is none.
    pub slot: Option<String>,
    /// Where slots begin that clients create.
    pub new_slots: NewSlots,
}

/// What is served, and how.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// User and password that are let in; anybody where there are none.
    pub user: Option<(String, String)>,
    /// How passwords are proven to MySQL.
    pub auth_plugin: Plugin,
    /// What only PostgreSQL has.
    pub postgres: PostgresOptions,
    /// Offer TLS, with a certificate made for this server ([`Server::ca_pem`]).
    pub tls: bool,
    /// How fast the stream is sent; as fast as the socket takes it where there is none.
    pub rate: Option<Rate>,
    /// How much one write takes.
    pub writes: Writes,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Instead of the recording as it is, one transaction of so many rows, made of the recording's ROWS events.
    pub transaction_rows: Option<u64>,
    /// The emulated host on which it listens.
    pub host: Option<netem::Host>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            user: None,
            auth_plugin: Plugin::CachingSha2Password,
            postgres: PostgresOptions::default(),
            tls: false,
            rate: None,
            writes: Writes::Large,
            faults: Vec::new(),
            transaction_rows: None,
            host: None,
        }
    }
}

/// What a client needs of the TLS that is offered.
#[derive(Debug)]
struct Tls {
    config: Arc<ServerConfig>,
    /// The certificate, in PEM.
    pem: String,
    /// Its SHA-256: what `tls-server-end-point` binds to.
    end_point: Vec<u8>,
}

/// The server that is played.
#[derive(Debug, Clone)]
enum Play {
    Mysql(Arc<mysql::Shared>),
    Postgres(Arc<postgres::Shared>),
}

impl Play {
    fn load(recording: &Recording, stage: &Arc<Stage>) -> Result<Self, ServeError> {
        let stage = stage.clone();
        Ok(match recording.sidecar.is_postgres() {
            true => Self::Postgres(Arc::new(postgres::Shared::load(recording, stage)?)),
            false => Self::Mysql(Arc::new(mysql::Shared::load(recording, stage)?)),
        })
    }

    /// Serves one client until it leaves.
    async fn serve(self, stream: TcpStream, id: u32) -> std::io::Result<()> {
        match self {
            Self::Mysql(shared) => shared.serve(stream, id).await,
            Self::Postgres(shared) => shared.serve(stream, id).await,
        }
    }
}

/// A running replay server; it stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    play: Play,
    stage: Arc<Stage>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Loads `recording` and listens on `address` (port 0: any free one).
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(
        recording: &Recording,
        address: &str,
        options: ServeOptions,
    ) -> Result<Self, ServeError> {
        let tls = options.tls.then(certificate).transpose()?;
        let host = options.host.clone();
        let stage = Arc::new(Stage::new(options, tls));
        let play = Play::load(recording, &stage)?;
        let listen = |source| ServeError::Listen {
            address: address.to_owned(),
            source,
        };
        let listener = match &host {
            None => TcpListener::bind(address).await,
            Some(_) => {
                let address =
                    (address.parse()).map_err(|error| listen(std::io::Error::other(error)))?;
                crate::links::listen(host.as_ref(), address).await
            }
        };
        let listener = listener.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let task = tokio::spawn(listen_for_clients(listener, play.clone(), stage.clone()));
        Ok(Self {
            play,
            stage,
            address,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate to trust, in PEM, where TLS is offered. It is for `localhost`, `127.0.0.1` and `::1`.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.stage.tls.as_ref().map(|tls| tls.pem.as_str())
    }

    /// Row changes in the whole stream.
    #[must_use]
    pub fn changes(&self) -> u64 {
        match &self.play {
            Play::Mysql(shared) => shared.changes(),
            Play::Postgres(shared) => shared.changes(),
        }
    }

    /// Where the stream ends: `FILE:OFFSET`, or an LSN.
    #[must_use]
    pub fn end(&self) -> String {
        match &self.play {
            Play::Mysql(shared) => shared.end(),
            Play::Postgres(shared) => shared.end(),
        }
    }

    /// When the first byte of a stream was sent.
    #[must_use]
    pub fn first_byte_at(&self) -> Option<Instant> {
        self.stage.statistics.first_byte_at()
    }

    /// Bytes of streams sent, packet headers included, before compression and TLS.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.stage.statistics.bytes.load(Ordering::Relaxed)
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.stage.statistics.connections.load(Ordering::Relaxed)
    }

    /// How often a stream was sent up to its end.
    #[must_use]
    pub fn ends_reached(&self) -> u32 {
        self.stage.statistics.ends.load(Ordering::Relaxed)
    }

    /// What a replication slot has confirmed, an LSN; none where there is no such slot.
    #[must_use]
    pub fn confirmed(&self, slot: &str) -> Option<String> {
        match &self.play {
            Play::Mysql(_) => None,
            Play::Postgres(shared) => shared.confirmed(slot),
        }
    }

    /// What clients did that they must not do, such as confirming what they were not sent.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.stage.complaints()
    }

    /// The faults that happened so far, in their order.
    #[must_use]
    pub fn faults_taken(&self) -> Vec<Fault> {
        self.stage.faults_taken()
    }

    /// The faults that have not happened: no client was sent the stream up to their place.
    #[must_use]
    pub fn faults_left(&self) -> Vec<Fault> {
        self.stage.faults_left()
    }

    /// Schedules another fault.
    pub fn schedule(&self, fault: Fault) {
        self.stage.schedule(fault);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen_for_clients(listener: TcpListener, play: Play, stage: Arc<Stage>) {
    // Aborted with this task, so that a dropped server leaves no connection behind.
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = clients.join_next() => continue,
        };
        let _ = stream.set_nodelay(true);
        let id = stage.statistics.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let play = play.clone();
        clients.spawn(async move {
            if let Err(error) = play.serve(stream, id).await {
                tracing::debug!(%error, id, "connection ended");
            }
        });
    }
}

fn certificate() -> Result<Tls, ServeError> {
    let fault = |error: &dyn std::fmt::Display| ServeError::Tls(error.to_string());
    let names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| fault(&error))?;
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| fault(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|error| fault(&error))?;
    Ok(Tls {
        config: Arc::new(config),
        pem: made.cert.pem(),
        end_point: Sha256::digest(made.cert.der()).to_vec(),
    })
}
