//! MySQL and MariaDB as recorded: handshake, authentication, TLS, wire compression, the queries of a start, both dump commands;
//! and then the stream from the place that was asked for.
//!
//! ```text
//! session ─► answers (queries, from the sidecar)
//!         └► plan (which events) ─► projector (sends them) ◄─ film (the recording in memory)
//! ```

mod answers;
mod film;
mod plan;
mod projector;
mod rsa;
mod select;
mod session;
mod wire;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock};

use fixtures::{Recording, Sidecar};
use protocol::mysql::Flavour;
use protocol::mysql::handshake::capability;
use tokio::net::TcpStream;

use super::ServeError;
use super::stage::{Stage, locked};
use film::Film;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    film: Film,
    sidecar: Sidecar,
    facts: answers::Facts,
    stage: Arc<Stage>,
    key: OnceLock<rsa::Key>,
    cached: Mutex<HashSet<String>>,
}

impl Shared {
    /// Loads what `stage` shall show.
    pub(super) fn load(recording: &Recording, stage: Arc<Stage>) -> Result<Self, ServeError> {
        let mut film = Film::load(recording)?;
        if let Some(rows) = stage.options.transaction_rows {
            film = film.one_transaction(rows)?;
        }
        Ok(Self {
            facts: answers::Facts {
                end: film.end.clone(),
                executed: film.executed.to_string(),
                purged: film.purged.to_string(),
                sets: film.sets(),
            },
            film,
            sidecar: recording.sidecar.clone(),
            stage,
            key: OnceLock::new(),
            cached: Mutex::new(HashSet::new()),
        })
    }

    /// Row changes in the whole stream.
    pub(super) fn changes(&self) -> u64 {
        self.film.changes()
    }

    /// Where the stream ends: `FILE:OFFSET`.
    pub(super) fn end(&self) -> String {
        self.film.end.to_string()
    }

    /// Serves one client until it leaves.
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream, id: u32) -> std::io::Result<()> {
        session::serve(self, wire::Wire::new(stream), id).await
    }

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
        if self.stage.tls.is_some() {
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
}
