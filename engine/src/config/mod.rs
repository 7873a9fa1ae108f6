//! `walbrook.toml` and URL arguments, checked and typed. `docs/walbrook.toml` is the annotated example of all of it.

mod document;
mod error;
mod expand;
mod file;
pub mod keys;
pub mod secret;
mod size;
pub mod tables;
mod url;

use std::path::PathBuf;

pub use error::{ConfigError, Origin};
pub use expand::{Variables, environment};
pub(crate) use file::derived_server_id;
pub use keys::Keys;
pub use secret::Secret;
pub use tables::Selection;

use crate::position::Position;

/// A whole configuration, valid in itself; whether servers agree is for `walbrook check`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the checkpoints, as written (relative to the working directory).
    pub state: PathBuf,
    /// The sources, in the order of the file.
    pub sources: Vec<SourceSettings>,
    /// Where records go.
    pub kafka: KafkaSettings,
    /// How the engine runs.
    pub engine: EngineSettings,
}

/// One `[source.NAME]`.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Its name: topic prefix and name of the checkpoint. Letters, digits, `.`, `_`, `-`.
    pub name: Box<str>,
    /// Where the server is, who we are there, and how the connection is protected.
    pub address: SourceAddress,
    /// Which tables are captured.
    pub tables: Selection,
    /// The columns that make a table's record key, where they are named.
    pub keys: Keys,
    /// Where to begin without a checkpoint.
    pub start: Start,
    /// MySQL: the id by which the server knows us as a replica; unique among its replicas.
    pub server_id: u32,
    /// PostgreSQL: what the server keeps for us and how it decodes.
    pub slot: SlotSettings,
    /// A single row may be this large, in bytes (`engine.row_max`).
    pub row_max: usize,
    /// Whether a TRUNCATE becomes a change (`kafka.truncates`).
    pub truncates: bool,
}

/// What a PostgreSQL server keeps for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSettings {
    /// The replication slot.
    pub name: Box<str>,
    /// Whether the slot goes with the connection that made it (`walbrook tap`).
    pub temporary: bool,
    /// The publication; unused with wal2json.
    pub publication: Box<str>,
    /// What decodes the log there.
    pub plugin: Plugin,
    /// What becomes of tables that `tables` selects and the publication lacks, when it may not be altered, and of those that wal2json leaves
    /// rows out of.
    pub on_unpublished: OnUnpublished,
    /// Whether the server is to send large transactions before they commit.
    pub streaming: bool,
}

/// `plugin` of a PostgreSQL source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The server's own.
    PgOutput,
    /// wal2json, format 2.
    Wal2Json,
}

impl Plugin {
    /// The name that CREATE_REPLICATION_SLOT takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PgOutput => "pgoutput",
            Self::Wal2Json => "wal2json",
        }
    }
}

/// `on_unpublished` of a PostgreSQL source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnpublished {
    /// Say so, with the statement that mends it, and go on without them.
    Warn,
    /// Stop.
    Halt,
}

/// A source's URL, taken apart.
#[derive(Debug, Clone)]
pub struct SourceAddress {
    /// Which server the URL promises.
    pub kind: SourceKind,
    /// Name or address, without brackets.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
    /// User name.
    pub user: Box<str>,
    /// Password; empty without one.
    pub password: Secret,
    /// PostgreSQL: the database. Otherwise empty: a binary log is the whole server's.
    pub database: Box<str>,
    /// `?tls=…&ca=…`.
    pub tls: SourceTls,
    /// MySQL and MariaDB: `?compression=…`. Otherwise [`WireCompression::Off`].
    pub compression: WireCompression,
}

/// `compression=` of a source URL: of MySQL's stream of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireCompression {
    /// On a far server: zstd where it is offered, otherwise zlib, otherwise none (the default).
    Auto,
    /// zstd, which the server has to offer.
    Zstd,
    /// zlib, which the server has to offer.
    Zlib,
    /// Never.
    Off,
}

/// Which server a URL promises. Both are spoken to alike where the server does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `mysql://`
    MySql,
    /// `mariadb://`
    MariaDb,
    /// `postgres://`
    Postgres,
}

/// How a source connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTls {
    /// How much protection is asked for.
    pub mode: TlsMode,
    /// PEM file of the authorities to trust in place of the system's; only with [`TlsMode::VerifyFull`] or [`TlsMode::Require`]
    /// (which then verifies the chain, not the name).
    pub ca: Option<PathBuf>,
}

/// `tls=` of a source URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// When the server offers it, unverified (the default).
    Prefer,
    /// Always; unverified unless `ca` is given.
    Require,
    /// Always, with chain and host name verified.
    VerifyFull,
}

/// Where a source begins without a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the server's present end.
    Now,
    /// At the first binlog that is still there.
    Earliest,
    /// At this position.
    At(Position),
}

/// `[kafka]`.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port` of the brokers to ask first.
    pub brokers: Vec<String>,
    /// Topic name template of `{source}`, `{schema}`, `{table}`.
    pub topic: String,
    /// How record batches are compressed.
    pub compression: Compression,
    /// Which client writes.
    pub producer: ProducerKind,
    /// One record batch as sent, in bytes.
    pub batch_max: usize,
    /// What happens to a record that the broker is too small for.
    pub on_oversize: OnOversize,
    /// Whether a delete's record is followed by a tombstone.
    pub tombstones: bool,
    /// Whether a TRUNCATE becomes a record.
    pub truncates: bool,
    /// TLS towards the brokers; `None`: plain text.
    pub tls: Option<KafkaTls>,
    /// How we authenticate; `None`: not at all.
    pub sasl: Option<Sasl>,
    /// How missing topics are created.
    pub topics: TopicSettings,
}

impl KafkaSettings {
    /// Whether sources may write to the same topics: their names do not tell them apart.
    #[must_use]
    pub fn shares_topics(&self) -> bool {
        !self.topic.contains("{source}")
    }
}

/// `kafka.compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Lz4,
    Zstd,
    Snappy,
    Gzip,
    /// lz4 while the link keeps up, zstd where encoded batches wait for it; chosen for each Batch.
    Auto,
}

/// `kafka.producer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerKind {
    /// Our own: idempotent, record batches built in place.
    Native,
    /// The rskafka crate.
    Rskafka,
}

/// `kafka.on_oversize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOversize {
    /// Stop, naming table, key, size and the settings.
    Halt,
}

/// `kafka.tls`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KafkaTls {
    /// PEM file of the authorities to trust; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate chain; together with `key`.
    pub cert: Option<PathBuf>,
    /// PEM file of our private key.
    pub key: Option<PathBuf>,
}

/// `kafka.sasl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// `kafka.sasl.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN
    Plain,
    /// SCRAM-SHA-256
    ScramSha256,
    /// SCRAM-SHA-512
    ScramSha512,
}

/// `kafka.topics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSettings {
    /// Whether missing topics are created.
    pub create: bool,
    /// Partitions of a created topic.
    pub partitions: i32,
    /// Replicas of a created topic; −1: the broker's default.
    pub replication: i16,
}

/// `[engine]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// What reads the sources' streams.
    pub io: Io,
    /// Threads that encode, for each source: at least 1, `encode_threads = 0` already resolved.
    pub encode_threads: usize,
    /// Everything per change of one source, in bytes: received, decompressed, encoded, unacknowledged.
    pub memory_max: usize,
    /// A single row may exceed `memory_max` up to this, in bytes.
    pub row_max: usize,
}

/// `engine.io`: what reads the sources' streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// epoll by tokio, of PostgreSQL `poll` on a thread.
    Epoll,
    /// io_uring by tokio-uring on a thread, where the machine has it, otherwise epoll.
    Uring,
}

impl Io {
    /// As the configuration spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Uring => "uring",
        }
    }

    /// io_uring where both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::Epoll => Self::Epoll,
            Self::Uring => other,
        }
    }
}

/// What the encoder of one source has to know.
#[derive(Debug, Clone)]
pub struct EncodeSettings {
    /// The source's name: `source.name` of the envelope.
    pub source: Box<str>,
    /// `source.connector` of the envelope: `mysql`, `mariadb` or `postgresql`.
    pub connector: &'static str,
    /// `source.version` of the envelope: ours.
    pub version: &'static str,
    /// The columns that make a table's record key, where they are named.
    pub keys: Keys,
    /// How record batches are compressed.
    pub compression: Compression,
    /// One record batch as sent, in bytes; the producer lowers it to what broker and topic take.
    pub batch_max: usize,
    /// A value of a compressed column may expand to this, in bytes (`engine.row_max`).
    pub row_max: usize,
    /// Whether a delete's record is followed by a tombstone.
    pub tombstones: bool,
}

impl SourceKind {
    /// The envelope's `source.connector`, also a URL scheme.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgresql",
        }
    }

    /// The port that such servers listen on unless told otherwise.
    const fn port_default(self) -> u16 {
        match self {
            Self::MySql | Self::MariaDb => 3306,
            Self::Postgres => 5432,
        }
    }
}

impl Config {
    /// What the encoder of `source` has to know.
    #[must_use]
    pub fn encode_settings(&self, source: &SourceSettings) -> EncodeSettings {
        EncodeSettings {
            source: source.name.clone(),
            connector: source.address.kind.as_str(),
            version: env!("CARGO_PKG_VERSION"),
            keys: source.keys.clone(),
            compression: self.kafka.compression,
            batch_max: self.kafka.batch_max,
            row_max: source.row_max,
            tombstones: self.kafka.tombstones,
        }
    }
}
