//! A database's stream of batches, in words that no database owns.
//!
//! ```text
//! connect ─► fill ─► fill ─► seal ─► (batch leaves, a recycled one comes) ─► fill ─► …
//!              │                └ cuts the batch after its last whole event and writes `Batch::end`
//!              └ awaits one read of the socket, decodes every whole event that it brought
//! ```
//! A source reconnects by itself (backoff with jitter) after the last whole transaction and drops the rows of a transaction that
//! it has handed out already: the pipeline sees one unbroken stream. What reaches the pipeline as an error is final.

mod arrivals;
mod asker;
mod backoff;
pub mod connection_error;
mod error;
pub mod mysql;
pub mod postgres;
pub mod receive;
mod reconnect;
pub mod ring;
#[cfg(test)]
mod seed;
mod socket;
mod spill;
mod tls;
mod wire;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use error::{SourceError, Verdict};

use backoff::Backoff;
use reconnect::Reconnecting;

use crate::batch::Batch;
use crate::clock;
use crate::config::{Io, SourceKind, SourceSettings};
use crate::position::Position;

/// What a checkpoint says about where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// After the last transaction that is done with.
    pub position: Position,
    /// The server that the position was read from, where known: on another server only GTIDs count.
    pub server: Option<Identity>,
}

/// Which server a position belongs to. Its text is what checkpoints keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// MySQL's `server_uuid`.
    MySql {
        /// As the server spells it.
        uuid: String,
        /// Which of the logs that went by this uuid, from 1: [`Identity::with_another_log`].
        log: u32,
    },
    /// MariaDB, which has no uuid.
    MariaDb {
        /// `@@server_id`.
        server_id: u32,
        /// `@@gtid_domain_id`.
        domain: u32,
        /// Which of the logs that went by these numbers, from 1: [`Identity::with_another_log`].
        log: u32,
    },
    /// PostgreSQL: a timeline of a cluster. A standby that is promoted begins another one.
    Postgres {
        /// `system_identifier` of IDENTIFY_SYSTEM.
        system: u64,
        /// `timeline` of IDENTIFY_SYSTEM.
        timeline: u32,
    },
}

impl Identity {
    /// Number of the first log of a server.
    pub const FIRST_LOG: u32 = 1;

    /// Whether `other` says of itself what this one does, whichever log it has.
    #[must_use]
    pub fn is_called_as(&self, other: &Self) -> bool {
        self.with_log(Self::FIRST_LOG) == other.with_log(Self::FIRST_LOG)
    }

    /// The same name with a log in which this one's places mean nothing: a cluster whose servers share their numbers, or a server that was
    /// built anew under its old uuid.
    #[must_use]
    pub fn with_another_log(&self) -> Self {
        match self {
            Self::MySql { log, .. } | Self::MariaDb { log, .. } => {
                self.with_log(log.saturating_add(1))
            }
            // A timeline is one log.
            Self::Postgres { .. } => self.clone(),
        }
    }

    fn with_log(&self, number: u32) -> Self {
        let mut identity = self.clone();
        match &mut identity {
            Self::MySql { log, .. } | Self::MariaDb { log, .. } => *log = number,
            Self::Postgres { .. } => {}
        }
        identity
    }
}

/// `mysql:UUID`, `mariadb:SERVER_ID:DOMAIN` or `postgres:SYSTEM:TIMELINE`; behind the first two `/2` for the second log of that name.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = match self {
            Self::MySql { uuid, log } => write!(f, "mysql:{uuid}").map(|()| *log)?,
            Self::MariaDb {
                server_id,
                domain,
                log,
            } => write!(f, "mariadb:{server_id}:{domain}").map(|()| *log)?,
            Self::Postgres { system, timeline } => {
                return write!(f, "postgres:{system}:{timeline}");
            }
        };
        match log {
            Self::FIRST_LOG => Ok(()),
            log => write!(f, "/{log}"),
        }
    }
}

/// A text that names no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidIdentity;

impl fmt::Display for InvalidIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected mysql:UUID, mariadb:SERVER_ID:DOMAIN or postgres:SYSTEM:TIMELINE")
    }
}

impl std::error::Error for InvalidIdentity {}

impl std::str::FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').ok_or(InvalidIdentity)?;
        let (name, log) = match rest.split_once('/') {
            Some((name, log)) => (name, log.parse().map_err(|_| InvalidIdentity)?),
            None => (rest, Self::FIRST_LOG),
        };
        match kind {
            "mysql" if !name.is_empty() => Ok(Self::MySql {
                uuid: name.into(),
                log,
            }),
            "mariadb" => {
                let (server_id, domain) = name.split_once(':').ok_or(InvalidIdentity)?;
                Ok(Self::MariaDb {
                    server_id: server_id.parse().map_err(|_| InvalidIdentity)?,
                    domain: domain.parse().map_err(|_| InvalidIdentity)?,
                    log,
                })
            }
            "postgres" => {
                let (system, timeline) = rest.split_once(':').ok_or(InvalidIdentity)?;
                Ok(Self::Postgres {
                    system: system.parse().map_err(|_| InvalidIdentity)?,
                    timeline: timeline.parse().map_err(|_| InvalidIdentity)?,
                })
            }
            _ => Err(InvalidIdentity),
        }
    }
}

/// What is said of a TRUNCATE that becomes no record.
fn truncate_passed_over(schema: &str, table: &str) -> String {
    format!(
        "{schema}.{table} was truncated: its rows are gone without a record of each; kafka.truncates = true makes one of the TRUNCATE"
    )
}

/// What one call of [`Source::fill`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// The read completed nothing: part of an event, or a heartbeat that says what was known. Or the connection was established anew, and
    /// what comes next may be another server's ([`Source::identity`]).
    Nothing,
    /// The batch has more to it: events, or at least a later position.
    More,
    /// The batch is full: seal it before the next call, or let it hold more ([`Batch::stretch`]).
    Full,
    /// Everything up to [`Source::end`] is in this batch or an earlier one. Returned once per call from then on, with or without new
    /// events; only when [`Limits::until_end`] is set.
    End,
}

/// Sizes that the source keeps to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A batch is full when its received bytes reach this many, and its [`Batch::stretch`] more. A single event may exceed it, up to
    /// `row_max`.
    pub batch_bytes: usize,
    /// The largest row, in bytes of its images as received; a larger one halts.
    pub row_max: usize,
    /// What reads the stream.
    pub io: Io,
    /// Report [`Filled::End`] once the server's position at connect is reached.
    pub until_end: bool,
}

/// A connected source.
#[derive(Debug)]
pub struct Source(Of);

/// Which database it is of.
#[derive(Debug)]
enum Of {
    /// MySQL or MariaDB.
    MySql(Box<Reconnecting<mysql::MySql>>),
    /// PostgreSQL.
    Postgres(Box<Reconnecting<postgres::Postgres>>),
}

impl Source {
    /// As [`Source::connect`], again and again while the server cannot be reached or goes away in the middle of it, with growing pauses
    /// and a warning each: it is restarted, or another one takes its place. Where `patience` is given, for that long.
    ///
    /// # Errors
    /// As [`Source::connect`], but for what may pass; that only when patience has run out (`Halt`).
    pub async fn connect_patiently(
        settings: &SourceSettings,
        resume: Option<Resume>,
        limits: Limits,
        state: &Path,
        patience: Option<Duration>,
    ) -> Result<Self, SourceError> {
        let began = clock::now();
        let mut backoff = Backoff::default();
        loop {
            let error = match Self::connect(settings, resume.clone(), limits, state).await {
                Err(error) if error.verdict() == Verdict::Retry => error,
                connected => return connected,
            };
            let pause = backoff.next(rand::random());
            let attempts = backoff.attempts();
            if let Some(patience) = patience
                && clock::now() + pause > began + patience
            {
                return Err(SourceError::halt(format!(
                    "{error}; given up at attempt {attempts}, after {} s",
                    patience.as_secs()
                )));
            }
            tracing::warn!(
                source = %settings.name, attempts,
                "cannot begin yet, trying again in {:.1} s: {error}", pause.as_secs_f64()
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Connects, checks what the server must have, and begins the stream: after `resume`, otherwise where `settings.start` says.
    /// One attempt; [`Source::connect_patiently`] makes more.
    ///
    /// `state` is the directory where the source may keep files under its name.
    ///
    /// # Errors
    /// The server cannot be reached (`Retry`), lacks something or is another one (`Halt`), or has the position no more (`Resync`).
    pub async fn connect(
        settings: &SourceSettings,
        resume: Option<Resume>,
        limits: Limits,
        state: &Path,
    ) -> Result<Self, SourceError> {
        match settings.address.kind {
            SourceKind::MySql | SourceKind::MariaDb => {
                let source = mysql::MySql::connect(settings, resume, limits, state).await?;
                Ok(Self(Of::MySql(Box::new(source))))
            }
            SourceKind::Postgres => {
                let source = postgres::Postgres::connect(settings, resume, limits, state).await?;
                Ok(Self(Of::Postgres(Box::new(source))))
            }
        }
    }

    /// As [`Source::connect`] without a checkpoint, for a stream that leaves nothing behind on the server: until `stop` ends (`None`), or
    /// when it fails, what was made there is taken away again. Not to be dropped before it is over.
    ///
    /// # Errors
    /// As [`Source::connect`].
    pub async fn connect_until(
        settings: &SourceSettings,
        limits: Limits,
        state: &Path,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Self>, SourceError> {
        match settings.address.kind {
            SourceKind::MySql | SourceKind::MariaDb => tokio::select! {
                source = Self::connect(settings, None, limits, state) => source.map(Some),
                () = stop => Ok(None),
            },
            SourceKind::Postgres => {
                let connected =
                    postgres::Postgres::connect_until(settings, limits, state, stop).await?;
                Ok(connected.map(|source| Self(Of::Postgres(Box::new(source)))))
            }
        }
    }

    /// Connects, judges every requirement, and disconnects. Changes nothing.
    ///
    /// # Errors
    /// The server cannot be reached or refuses us.
    pub async fn check(settings: &SourceSettings) -> Result<Vec<Requirement>, SourceError> {
        match settings.address.kind {
            SourceKind::MySql | SourceKind::MariaDb => mysql::MySql::check(settings).await,
            SourceKind::Postgres => postgres::Postgres::check(settings).await,
        }
    }

    /// Awaits one read of the server's stream and decodes what it brought into `batch`. Cancel-safe: dropping the future loses
    /// nothing. Does not await when the batch is full or decoded input is waiting (a compressed transaction being expanded, what was
    /// cut off by the last seal).
    ///
    /// The same batch is handed in until [`Source::seal`]; then an empty one.
    ///
    /// # Errors
    /// Final ones only: the stream cannot continue without loss or without the operator. The rows decoded before the error are in
    /// the batch and sound.
    pub async fn fill(&mut self, batch: &mut Batch) -> Result<Filled, SourceError> {
        match &mut self.0 {
            Of::MySql(source) => source.fill(batch).await,
            Of::Postgres(source) => source.fill(batch).await,
        }
    }

    /// Closes the batch: keeps the bytes after its last whole event for the next one and writes [`Batch::end`].
    pub fn seal(&mut self, batch: &mut Batch) {
        match &mut self.0 {
            Of::MySql(source) => source.seal(batch),
            Of::Postgres(source) => source.seal(batch),
        }
    }

    /// Ends the stream, and takes away what the source made on the server for this stream alone.
    pub async fn close(self) {
        match self.0 {
            Of::MySql(source) => source.close().await,
            Of::Postgres(source) => source.close().await,
        }
    }

    /// The position after the last whole transaction that was decoded, from where a restart loses nothing: before the earliest
    /// transaction that is prepared and not yet decided.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.0 {
            Of::MySql(source) => source.database().position(),
            Of::Postgres(source) => source.database().position(),
        }
    }

    /// The server's last position when the source connected: what `--until end` waits for.
    #[must_use]
    pub fn end(&self) -> &Position {
        match &self.0 {
            Of::MySql(source) => source.database().end(),
            Of::Postgres(source) => source.database().end(),
        }
    }

    /// The server that is being read. Changes when a reconnect reaches another one that can continue the stream.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match &self.0 {
            Of::MySql(source) => source.database().identity(),
            Of::Postgres(source) => source.database().identity(),
        }
    }

    /// Servers whose history this one shares, each up to a position: the timelines that a promoted standby went on from. What was read
    /// of them before it is the same here.
    #[must_use]
    pub fn ancestors(&self) -> &[(Identity, Position)] {
        match &self.0 {
            Of::MySql(_) => &[],
            Of::Postgres(source) => source.database().ancestors(),
        }
    }

    /// Where to say what has become durable. It may be used for as long as it is held, also after the source is gone.
    #[must_use]
    pub fn confirmer(&self) -> Confirmer {
        Confirmer(match &self.0 {
            Of::MySql(_) => None,
            Of::Postgres(source) => Some(source.database().confirmed()),
        })
    }

    /// What has read the stream so far: [`Io::Uring`] only where every connection was read so.
    #[must_use]
    pub fn io(&self) -> Io {
        match &self.0 {
            Of::MySql(source) => source.database().io(),
            Of::Postgres(source) => source.database().io(),
        }
    }

    /// What the source counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        match &self.0 {
            Of::MySql(source) => source.database().counters(),
            Of::Postgres(source) => source.database().counters(),
        }
    }
}

/// Tells the server how far its log is safe to forget, where it keeps log for us: only what is durable elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Confirmer(Option<Arc<postgres::Confirmed>>);

impl Confirmer {
    /// Everything before `position` is durable.
    pub fn confirm(&self, position: &Position) {
        if let (Some(confirmed), Position::Postgres { lsn }) = (&self.0, position) {
            confirmed.confirm(*lsn);
        }
    }

    /// Waits until the server has been told, for a short while; afterwards it is told no more.
    pub async fn close(&self) {
        if let Some(confirmed) = &self.0 {
            confirmed.close().await;
        }
    }
}

/// Counts since connect, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of the stream as read, before decompression.
    pub bytes: u64,
    /// Whole transactions, with or without captured rows.
    pub transactions: u64,
    /// Rows put into batches.
    pub rows: u64,
    /// Rows of tables that are not captured.
    pub rows_filtered: u64,
    /// Times the connection was established anew.
    pub reconnects: u64,
}

/// One line of `walbrook check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// What is required, e.g. `binlog_format is ROW`.
    pub what: String,
    /// Whether it holds.
    pub outcome: Outcome,
}

/// Whether a requirement holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Met,
    /// It does not, but streaming works; says what is lost and what would mend it.
    Advice(String),
    /// It does not, and streaming is refused; says the exact statement or setting that mends it.
    Missing(String),
}

/// Whether a table has the columns that the configuration names for its key; `columns` is empty where it does not exist.
fn key_columns(schema: &str, table: &str, key: &[String], columns: &[String]) -> Requirement {
    let missing: Vec<&str> = (key.iter().map(String::as_str))
        .filter(|name| !columns.iter().any(|column| column == name))
        .collect();
    Requirement {
        what: format!("keys: {schema}.{table} has {}", key.join(", ")),
        outcome: match missing.is_empty() {
            true => Outcome::Met,
            false if columns.is_empty() => Outcome::Advice(format!(
                "there is no table {schema}.{table}, or this user may not see it"
            )),
            false => Outcome::Missing(format!(
                "it has no {}; its columns are {}",
                missing.join(", "),
                columns.join(", ")
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Keys, Origin, Selection, SlotSettings, SourceAddress, Start};

    #[test]
    fn names_of_servers_are_read_as_they_are_printed() {
        for text in [
            "mysql:u-1",
            "mariadb:7:3",
            "postgres:9:1",
            "mysql:u/2",
            "mariadb:7:3/4",
        ] {
            let read: Identity = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        let [first, second]: [Identity; 2] =
            ["mariadb:7:3", "mariadb:7:3/2"].map(|text| text.parse().unwrap());
        assert_eq!(first.with_another_log(), second);
        assert!(first != second && first.is_called_as(&second) && second.is_called_as(&first));
        assert!(!first.is_called_as(&"mariadb:7:4".parse().unwrap()));
        for text in [
            "",
            "mysql:",
            "mysql:/2",
            "mysql:u/",
            "mysql:u/x",
            "mariadb:7",
            "mariadb:7/2",
            "oracle:1",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(InvalidIdentity), "{text}");
        }
    }

    /// Port 1 of this machine: nobody listens there.
    fn nobody(kind: &str) -> SourceSettings {
        let url = format!("{kind}://u@127.0.0.1:1/");
        let url = match kind {
            "postgres" => url + "shop",
            _ => url.trim_end_matches('/').to_owned(),
        };
        let origin = Origin::Argument("URL");
        SourceSettings {
            name: "shop".into(),
            address: SourceAddress::parse(&url, &origin, &|_| None).unwrap(),
            tables: Selection::new(&["*.*".to_owned()]).unwrap(),
            keys: Keys::default(),
            start: Start::Now,
            server_id: 7,
            slot: SlotSettings::of("shop"),
            row_max: 1 << 20,
            truncates: false,
        }
    }

    #[tokio::test]
    async fn patience_with_a_server_that_does_not_come_ends() {
        let state = tempfile::tempdir().unwrap();
        let limits = Limits {
            batch_bytes: 1 << 16,
            row_max: 1 << 20,
            io: Io::Epoll,
            until_end: true,
        };
        for kind in ["mysql", "postgres"] {
            let patience = Some(Duration::from_secs(1));
            let settings = nobody(kind);
            let error =
                Source::connect_patiently(&settings, None, limits, state.path(), patience).await;
            let error = error.unwrap_err();
            assert_eq!(error.verdict(), Verdict::Halt);
            let text = error.to_string();
            assert!(
                text.starts_with("cannot connect to 127.0.0.1:1: ")
                    && text.contains("; given up at attempt "),
                "{text}"
            );
        }
    }
}
