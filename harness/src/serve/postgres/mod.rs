//! PostgreSQL as recorded: start-up, authentication, TLS, SQL of a start, replication commands; and then the stream from the place
//! that was asked for, or that the slot has confirmed.
//!
//! ```text
//! handshake ─► session ─► answers (SQL: sidecar, slots, publications)
//!                      └► plan (which stretches) ─► projector (sends them) ◄─ film (the recording in memory)
//!                                     feedback (checks what clients confirm) ─► slots
//! ```
//! Nothing here uses the engine's codecs but LSNs and the texts of its catalog queries: both sides of a test that fails together
//! would not be seen.

mod answers;
mod command;
mod error;
mod feedback;
mod film;
mod frame;
mod handshake;
mod lexer;
mod plan;
mod projector;
mod publications;
mod scram;
mod session;
mod slots;
mod start;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use fixtures::{PostgresRecording, Recording, Sidecar};
use protocol::postgres::{Lsn, catalog};
use tokio::net::TcpStream;

use super::stage::Stage;
use super::stream::Stream;
use super::{AuthMethod, NewSlots, ServeError};
use error::Failure;
use film::Film;
use publications::Publications;
use slots::{Slot, Slots};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    film: Film,
    sidecar: Sidecar,
    recorded: PostgresRecording,
    slots: Slots,
    publications: Publications,
    stage: Arc<Stage>,
}

impl Shared {
    /// Loads what `stage` shall show.
    pub(super) fn load(recording: &Recording, stage: Arc<Stage>) -> Result<Self, ServeError> {
        let mut film = Film::load(recording)?;
        if let Some(rows) = stage.options.transaction_rows {
            film = film.one_transaction(rows)?;
        }
        let recorded = recording.sidecar.postgres.clone().unwrap_or_default();
        let shared = Self {
            publications: Publications::load(&recording.sidecar),
            film,
            sidecar: recording.sidecar.clone(),
            slots: Slots::default(),
            recorded,
            stage,
        };
        let name = shared.stage.options.postgres.slot.as_ref();
        let name = name.unwrap_or(&shared.recorded.slot).clone();
        let slot = shared.slot(
            &shared.recorded.plugin,
            shared.database(),
            shared.film.start,
        );
        let created = shared.slots.create(&name, slot);
        created.map_err(|failure| ServeError::Recording(failure.message))?;
        Ok(shared)
    }

    /// Row changes in the whole stream.
    pub(super) fn changes(&self) -> u64 {
        self.film.changes()
    }

    /// Where the stream ends: an LSN.
    pub(super) fn end(&self) -> String {
        self.film.end.to_string()
    }

    /// What the slot `name` has confirmed.
    pub(super) fn confirmed(&self, name: &str) -> Option<String> {
        self.slots
            .all()
            .get(name)
            .map(|slot| slot.confirmed.to_string())
    }

    /// Serves one client until it leaves.
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream, id: u32) -> std::io::Result<()> {
        let served = session::serve(&self, Stream::Plain(stream), id).await;
        self.slots.leave(id);
        served
    }

    /// The recorded database.
    fn database(&self) -> &str {
        &self.recorded.database
    }

    /// Besides the recorded one there are those that every cluster has.
    fn has_database(&self, name: &str) -> bool {
        [self.database(), "postgres", "template1"].contains(&name)
    }

    fn may_replicate(&self) -> bool {
        let role = publications::rows(
            &self.sidecar,
            catalog::ROLE,
            &["rolsuper", "rolreplication"],
        );
        role.first()
            .is_none_or(|role| role.iter().any(|flag| flag == "t"))
    }

    /// The recorded value of a setting; `name` in lower case.
    fn setting(&self, name: &str) -> Option<String> {
        let is = |(known, value): (&String, &String)| {
            known.eq_ignore_ascii_case(name).then(|| value.clone())
        };
        let parameters = self.recorded.parameters.iter().find_map(is);
        // What clients ask for their own sake, and a recording may have left out.
        let usual = || match name {
            "data_directory_mode" => Some("0700".to_owned()),
            "client_encoding" => Some("UTF8".to_owned()),
            "timezone" => Some("UTC".to_owned()),
            _ => None,
        };
        parameters
            .or_else(|| self.sidecar.variables.iter().find_map(is))
            .or_else(usual)
    }

    /// Whether a client may set it: where a recording has the server's settings, only those.
    fn knows_setting(&self, name: &str) -> bool {
        // Without these the recording holds a choice of settings, not all.
        let complete = self.sidecar.variables.len() > 200;
        !complete || name.contains('.') || self.setting(name).is_some()
    }

    /// What ParameterStatus tells this client.
    fn parameters(&self, client: &handshake::Client) -> BTreeMap<String, String> {
        let mut all = self.recorded.parameters.clone();
        all.entry("server_version".into())
            .or_insert_with(|| self.sidecar.version.clone());
        let others = [
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("integer_datetimes", "on"),
        ];
        for (name, value) in others {
            all.entry(name.into()).or_insert_with(|| value.into());
        }
        for (name, value) in &mut all {
            if let Some(own) = client.settings.get(&name.to_ascii_lowercase()) {
                let is_style = name == "DateStyle" && !own.contains(',');
                *value = if is_style {
                    format!("{own}, MDY")
                } else {
                    own.clone()
                };
            }
        }
        all.insert("session_authorization".into(), client.user.clone());
        let application = client.settings.get("application_name");
        all.insert(
            "application_name".into(),
            application.cloned().unwrap_or_default(),
        );
        all
    }

    /// As `SELECT version()` says it.
    fn version(&self) -> String {
        format!("PostgreSQL {}", self.sidecar.version)
    }

    /// 15 of 15.14.
    fn major(&self) -> u32 {
        let digits = self.sidecar.version.split(|c: char| !c.is_ascii_digit());
        digits
            .into_iter()
            .find_map(|part| part.parse().ok())
            .unwrap_or(15)
    }

    fn slot(&self, plugin: &str, database: &str, confirmed: Lsn) -> Slot {
        Slot {
            plugin: plugin.to_owned(),
            database: database.to_owned(),
            confirmed,
            active: None,
            temporary: None,
            two_phase: false,
            failover: false,
        }
    }

    /// Makes a slot; the place that it begins at.
    fn create_slot(
        &self,
        name: &str,
        plugin: &str,
        database: &str,
        temporary: Option<u32>,
    ) -> Result<Lsn, Failure> {
        self.check_wal_level()?;
        if !["pgoutput", "wal2json", "test_decoding"].contains(&plugin) {
            let what = format!("could not access file \"{plugin}\": No such file or directory");
            return Err(Failure::new("58P01", what));
        }
        let at = match self.stage.options.postgres.new_slots {
            NewSlots::Start => self.film.start,
            NewSlots::End => self.film.end,
        };
        let slot = Slot {
            temporary,
            ..self.slot(plugin, database, at)
        };
        self.slots.create(name, slot)?;
        Ok(at)
    }

    fn check_wal_level(&self) -> Result<(), Failure> {
        match self.setting("wal_level") {
            Some(level) if level != "logical" => Err(Failure::new(
                "55000",
                "logical decoding requires wal_level >= logical",
            )),
            _ => Ok(()),
        }
    }
}
