//! `harness serve`: a replay server. It speaks to clients as the recorded server did: handshake, authentication, TLS, wire
//! compression, the queries of a start, both dump commands; and then shows the recorded stream from the place that was asked for.
//!
//! ```text
//! listen ─► session ─► answers (queries, from the sidecar)
//!                   └► plan (which events) ─► projector (sends them, paced, with faults) ◄─ film (the recording in memory)
//! ```
//! It shares the codecs of `protocol` with the engine, so it is itself proven with foreign clients (`tests/serve.rs`).

mod answers;
mod fault;
mod film;
mod plan;
mod projector;
mod rsa;
mod select;
mod session;
mod wire;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use fixtures::{FixtureError, Recording, Sidecar};
use protocol::mysql::Flavour;
use protocol::mysql::auth::Plugin;
use protocol::mysql::handshake::capability;
use rustls::ServerConfig;
use tokio::net::TcpListener;

pub use fault::{Action, Fault, InvalidFault, Place};
use film::Film;

use crate::cli::Outcome;

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

/// What is served, and how.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// User and password that are let in; anybody where there are none.
    pub user: Option<(String, String)>,
    /// How passwords are proven.
    pub auth_plugin: Plugin,
    /// Offer TLS, with a certificate made for this server ([`Server::ca_pem`]).
    pub tls: bool,
    /// How fast the stream is sent; as fast as the socket takes it where there is none.
    pub rate: Option<Rate>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Instead of the recording as it is, one transaction of so many rows, made of the recording's ROWS events.
    pub transaction_rows: Option<u64>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            user: None,
            auth_plugin: Plugin::CachingSha2Password,
            tls: false,
            rate: None,
            faults: Vec::new(),
            transaction_rows: None,
        }
    }
}

/// What happened so far.
#[derive(Debug, Default)]
struct Statistics {
    started: AtomicBool,
    first_byte_at: OnceLock<Instant>,
    bytes: AtomicU64,
    connections: AtomicU32,
    ends: AtomicU32,
}

impl Statistics {
    fn first_byte(&self) {
        if !self.started.swap(true, Ordering::Relaxed) {
            let _ = self.first_byte_at.set(crate::clock::now());
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    film: Film,
    sidecar: Sidecar,
    facts: answers::Facts,
    options: ServeOptions,
    rate: Option<Rate>,
    tls: Option<Arc<ServerConfig>>,
    key: OnceLock<rsa::Key>,
    cached: Mutex<HashSet<String>>,
    faults: Mutex<Vec<Fault>>,
    faulty: AtomicBool,
    statistics: Statistics,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    fn capabilities(&self) -> u32 {
        let mut all = capability::REQUIRED
            | capability::LONG_FLAG
            | capability::CONNECT_WITH_DB
            | capability::COMPRESS
            | capability::TRANSACTIONS
            | capability::CONNECT_ATTRS
            | capability::PLUGIN_AUTH_LENENC_CLIENT_DATA
            | capability::DEPRECATE_EOF
            | capability::LONG_PASSWORD;
        // MariaDB without the first bit would announce its extended capabilities, none of which is spoken here.
        if self.film.flavour == Flavour::MySql {
            all |= capability::ZSTD_COMPRESSION;
        }
        if self.tls.is_some() {
            all |= capability::SSL;
        }
        all
    }

    /// MariaDB puts a version before its own that old replicas take for MySQL's.
    fn greeting_version(&self) -> String {
        let version = &self.sidecar.version;
        match self.film.flavour == Flavour::MariaDb && !version.starts_with("5.5.5-") {
            true => format!("5.5.5-{version}"),
            false => version.clone(),
        }
    }

    fn server_id(&self) -> u32 {
        self.sidecar
            .variables
            .get("server_id")
            .and_then(|id| id.parse().ok())
            .unwrap_or(1)
    }

    fn key(&self) -> &rsa::Key {
        self.key.get_or_init(rsa::Key::generate)
    }

    fn remember(&self, user: &str) {
        locked(&self.cached).insert(user.to_owned());
    }

    fn remembers(&self, user: &str) -> bool {
        locked(&self.cached).contains(user)
    }

    fn has_faults(&self) -> bool {
        self.faulty.load(Ordering::Relaxed)
    }

    /// The first fault inside the event at `place` of the stream, and how far inside it is. It will not come again.
    fn take_fault(&self, place: u64, length: u64, changes: &Range<u64>) -> Option<(Fault, u64)> {
        let mut faults = locked(&self.faults);
        let inside = |fault: &Fault| match fault.at {
            Place::Bytes(at) => (at < place + length).then(|| at.saturating_sub(place)),
            Place::Changes(at) if changes.contains(&at) => {
                // Rows of one event are of similar length: somewhere about the row, never in the header.
                let share = (at - changes.start) as f64 / (changes.end - changes.start) as f64;
                Some(length / 8 + (share * (length - length / 8) as f64) as u64)
            }
            Place::Changes(at) => (at < changes.start).then_some(0),
        };
        let (index, at) = (faults.iter().enumerate())
            .filter_map(|(i, fault)| Some((i, inside(fault)?)))
            .min_by_key(|(_, at)| *at)?;
        let fault = faults.remove(index);
        self.faulty.store(!faults.is_empty(), Ordering::Relaxed);
        Some((fault, at.min(length - 1)))
    }

    fn put_back(&self, fault: Fault) {
        locked(&self.faults).push(fault);
        self.faulty.store(true, Ordering::Relaxed);
    }
}

/// A running replay server; it stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: Option<String>,
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
        let mut film = Film::load(recording)?;
        if let Some(rows) = options.transaction_rows {
            film = film.one_transaction(rows)?;
        }
        let (tls, ca_pem) = match options.tls {
            true => certificate().map(|(config, pem)| (Some(config), Some(pem)))?,
            false => (None, None),
        };
        let listen = |source| ServeError::Listen {
            address: address.to_owned(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(Shared {
            facts: answers::Facts {
                end: film.end.clone(),
                executed: film.executed.to_string(),
                purged: film.purged.to_string(),
            },
            film,
            sidecar: recording.sidecar.clone(),
            rate: options.rate,
            tls,
            key: OnceLock::new(),
            cached: Mutex::new(HashSet::new()),
            faulty: AtomicBool::new(!options.faults.is_empty()),
            faults: Mutex::new(options.faults.clone()),
            statistics: Statistics::default(),
            options,
        });
        let task = tokio::spawn(listen_for_clients(listener, shared.clone()));
        Ok(Self {
            shared,
            address,
            ca_pem,
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
        self.ca_pem.as_deref()
    }

    /// Row changes in the whole stream.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.shared.film.changes()
    }

    /// Where the stream ends: `FILE:OFFSET`.
    #[must_use]
    pub fn end(&self) -> String {
        self.shared.film.end.to_string()
    }

    /// When the first byte of a stream was sent.
    #[must_use]
    pub fn first_byte_at(&self) -> Option<Instant> {
        self.shared.statistics.first_byte_at.get().copied()
    }

    /// Bytes of streams sent, packet headers included, before compression and TLS.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.statistics.bytes.load(Ordering::Relaxed)
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.shared.statistics.connections.load(Ordering::Relaxed)
    }

    /// How often a stream was sent up to its end.
    #[must_use]
    pub fn ends_reached(&self) -> u32 {
        self.shared.statistics.ends.load(Ordering::Relaxed)
    }

    /// Schedules another fault.
    pub fn schedule(&self, fault: Fault) {
        self.shared.put_back(fault);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen_for_clients(listener: TcpListener, shared: Arc<Shared>) {
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
        let id = shared
            .statistics
            .connections
            .fetch_add(1, Ordering::Relaxed)
            + 1;
        let shared = shared.clone();
        clients.spawn(async move {
            if let Err(error) = session::serve(shared, wire::Wire::new(stream), id).await {
                tracing::debug!(%error, id, "connection ended");
            }
        });
    }
}

fn certificate() -> Result<(Arc<ServerConfig>, String), ServeError> {
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
    Ok((Arc::new(config), made.cert.pem()))
}

/// Which database is played.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Database {
    /// MySQL or MariaDB, as the recording says.
    Mysql,
}

/// Arguments of `harness serve`.
#[derive(Debug, Parser)]
pub struct Args {
    #[arg(value_enum)]
    database: Database,
    /// The recording, FILE.zst with FILE.toml beside it; or the name of one of `fixtures/recordings`.
    #[arg(long)]
    recording: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:3306")]
    listen: String,
    /// User that is let in; anybody without it.
    #[arg(long)]
    user: Option<String>,
    /// The user's password.
    #[arg(
        long,
        default_value = "",
        env = "HARNESS_SERVE_PASSWORD",
        hide_env_values = true
    )]
    password: String,
    /// caching_sha2_password, sha256_password, mysql_native_password or client_ed25519.
    #[arg(long, default_value = "caching_sha2_password", value_parser = plugin)]
    auth_plugin: Plugin,
    /// Offer TLS with a certificate made for this run, which is written to this file (PEM).
    #[arg(long, value_name = "CA_FILE")]
    tls: Option<PathBuf>,
    /// Changes per second (100000) or bytes per second (1000000b); as fast as the socket takes it without it.
    #[arg(long)]
    rate: Option<Rate>,
    /// Break the connection at this change (400000) or byte (1024b), once; may be given again.
    #[arg(long, value_name = "PLACE")]
    cut_at: Vec<Place>,
    /// cut@PLACE, stall@PLACE+MSms, split@PLACE+BYTES, corrupt@PLACE; once; may be given again.
    #[arg(long)]
    fault: Vec<Fault>,
    /// Serve one transaction of so many rows, made of the recording's.
    #[arg(long, value_name = "ROWS")]
    transaction_rows: Option<u64>,
}

fn plugin(text: &str) -> Result<Plugin, String> {
    Plugin::named(text).ok_or_else(|| {
        let known: Vec<&str> = Plugin::ALL.iter().map(|plugin| plugin.name()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// Serves until stopped.
///
/// # Errors
/// [`ServeError`].
pub async fn run(args: Args) -> Outcome {
    let Database::Mysql = args.database;
    let recording = match args.recording.exists() || args.recording.components().count() > 1 {
        true => Recording::open(&args.recording)?,
        false => Recording::named(&args.recording.to_string_lossy())?,
    };
    let cuts = args.cut_at.into_iter().map(|at| Fault {
        at,
        action: Action::Cut,
    });
    let options = ServeOptions {
        user: args.user.map(|user| (user, args.password)),
        auth_plugin: args.auth_plugin,
        tls: args.tls.is_some(),
        rate: args.rate,
        faults: args.fault.into_iter().chain(cuts).collect(),
        transaction_rows: args.transaction_rows,
    };
    let server = Server::start(&recording, &args.listen, options).await?;
    if let (Some(file), Some(pem)) = (&args.tls, server.ca_pem()) {
        std::fs::write(file, pem)?;
    }
    println!(
        "serving {} on {}: {} changes up to {}",
        recording.name,
        server.address(),
        server.changes(),
        server.end()
    );
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}
