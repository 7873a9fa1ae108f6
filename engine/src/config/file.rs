//! `walbrook.toml` into a [`Config`]: defaults, bounds, and what must hold between settings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::document::{self, Entry, Node, Section, Value, apply_set};
use super::error::{ConfigError, Origin, suggestion};
use super::expand::{Variables, environment};
use super::{
    Compression, Config, EngineSettings, Io, KafkaSettings, KafkaTls, Keys, OnOversize,
    OnUnpublished, Plugin, ProducerKind, Sasl, SaslMechanism, Secret, Selection, SlotSettings,
    SourceAddress, SourceKind, SourceSettings, Start, TopicSettings, size,
};

const MIB: usize = 1 << 20;
const BATCH_MAX_DEFAULT: usize = MIB;
const MEMORY_MAX_DEFAULT: usize = 32 * MIB;
const ROW_MAX_DEFAULT: usize = 64 * MIB;
/// MySQL's largest packet: no row is larger.
const ROW_MAX_LIMIT: usize = 1 << 30;
/// A batch being received, one being encoded and the requests in flight have to fit: with fewer batches than this nothing overlaps.
const BATCHES_IN_MEMORY_MIN: usize = 8;
/// Kafka's own limit is 249 for the whole topic name.
const NAME_MAX: usize = 100;
/// Derived server ids stay out of the range that people give by hand, and below 2³¹ for tools that read them as signed.
const SERVER_ID_DERIVED_MIN: u32 = 1_000_000;
const SERVER_ID_DERIVED_MAX: u32 = i32::MAX as u32;

impl Config {
    /// Reads a file, with `--set KEY=VALUE` in `sets` overriding it and `${NAME}` taken from the environment.
    ///
    /// # Errors
    /// The first thing that is wrong, with file and line, or the `--set`.
    pub fn load<S: AsRef<str>>(path: &Path, sets: &[S]) -> Result<Self, ConfigError> {
        let name: Arc<str> = path.display().to_string().into();
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            origin: Origin::Argument("--config"),
            text: format!("cannot read {name}: {e}"),
        })?;
        Self::parse(&text, &name, sets, &environment)
    }

    /// Reads a file's text; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse<S: AsRef<str>>(
        text: &str,
        name: &Arc<str>,
        sets: &[S],
        variables: Variables<'_>,
    ) -> Result<Self, ConfigError> {
        let mut root = document::parse(text, name)?;
        for set in sets {
            apply_set(&mut root, set.as_ref())?;
        }
        let mut top = Section::new(
            root,
            "the file",
            &["state", "source", "kafka", "engine"],
            &[],
            variables,
        )?;
        let state = top
            .text("state", "\"walbrook-state\"")?
            .map_or_else(|| "walbrook-state".into(), |(text, _)| text);
        let state = PathBuf::from(state);
        let empty = |origin: &Origin| Node {
            origin: origin.clone(),
            value: Value::Table(Vec::new()),
        };
        let kafka_node = top.take("kafka").ok_or_else(|| {
            ConfigError::new(
                &top.origin,
                "there is no [kafka] section: it needs brokers = [\"HOST:9092\"]",
            )
        })?;
        let (kafka, batch_max_origin) = kafka(kafka_node, variables)?;
        let engine = match top.take("engine") {
            Some(node) => node,
            None => empty(&top.origin),
        };
        let (engine, engine_origin) = self::engine(engine, variables)?;
        if engine.memory_max < BATCHES_IN_MEMORY_MIN * kafka.batch_max {
            return Err(ConfigError::new(
                batch_max_origin.as_ref().unwrap_or(&engine_origin),
                format!(
                    "kafka.batch_max = \"{}\" is too large for engine.memory_max = \"{}\": memory_max has to hold {BATCHES_IN_MEMORY_MIN} of them",
                    size::show(kafka.batch_max),
                    size::show(engine.memory_max)
                ),
            ));
        }
        let sources = sources(&mut top, &state, (&kafka, &engine), variables)?;
        Ok(Self {
            state,
            sources,
            kafka,
            engine,
        })
    }

    /// The source of this name.
    ///
    /// # Errors
    /// There is none; says which there are.
    pub fn source(&self, name: &str) -> Result<&SourceSettings, ConfigError> {
        self.sources
            .iter()
            .find(|source| &*source.name == name)
            .ok_or_else(|| {
                let known: Vec<&str> = self.sources.iter().map(|source| &*source.name).collect();
                ConfigError {
                    origin: Origin::Argument("SOURCE"),
                    text: format!("there is no source \"{name}\"{}", suggestion(name, &known)),
                }
            })
    }

    /// A digest of what decides which row goes to which topic and partition: the `selection` of checkpoints.
    #[must_use]
    pub fn routing_digest(&self, source: &SourceSettings) -> String {
        super::tables::short_digest(&format!(
            "{}\n{}{}",
            source.tables.digest(),
            self.kafka.topic,
            source.keys.text()
        ))
    }
}

fn sources(
    top: &mut Section<'_>,
    state: &Path,
    others: (&KafkaSettings, &EngineSettings),
    variables: Variables<'_>,
) -> Result<Vec<SourceSettings>, ConfigError> {
    let none =
        "there is no source: add [source.NAME] with url = \"mysql://USER:PASSWORD@HOST:3306\"";
    let Some(node) = top.take("source") else {
        return Err(ConfigError::new(&top.origin, none));
    };
    let Value::Table(entries) = node.value else {
        return Err(ConfigError::new(
            &node.origin,
            "source is no table: write [source.NAME]",
        ));
    };
    if entries.is_empty() {
        return Err(ConfigError::new(&node.origin, none));
    }
    let mut sources = Vec::with_capacity(entries.len());
    let mut seen = BTreeSet::new();
    let mut slots = BTreeSet::new();
    for Entry { key, origin, node } in entries {
        if !matches!(node.value, Value::Table(_)) {
            // [source] with url directly in it: the name is missing.
            return Err(ConfigError::new(
                &origin,
                format!("\"{key}\" in [source]: a source has a name, write [source.NAME]"),
            ));
        }
        check_name(&key, &origin)?;
        let settings = source(&key, node, state, others, variables)?;
        if settings.address.kind == SourceKind::Postgres {
            let place = (settings.address.host.clone(), settings.address.port);
            if !slots.insert((place, settings.slot.name.clone())) {
                return Err(ConfigError::new(
                    &origin,
                    format!(
                        "source \"{key}\" has the slot {} of another source on the same server, which only one can read",
                        settings.slot.name
                    ),
                ));
            }
        } else if !seen.insert((
            settings.address.host.clone(),
            settings.address.port,
            settings.server_id,
        )) {
            return Err(ConfigError::new(
                &origin,
                format!(
                    "source \"{key}\" has the server_id {} of another source on the same server, which would disconnect them in turn",
                    settings.server_id
                ),
            ));
        }
        sources.push(settings);
    }
    Ok(sources)
}

/// Names are topic prefixes and file names.
fn check_name(name: &str, origin: &Origin) -> Result<(), ConfigError> {
    let good = !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    match good {
        true => Ok(()),
        false => Err(ConfigError::new(
            origin,
            format!(
                "\"{name}\" is no name for a source: letters, digits, '.', '_' and '-', at most {NAME_MAX}, not beginning with '.'"
            ),
        )),
    }
}

fn source(
    name: &str,
    node: Node,
    state: &Path,
    (kafka, engine): (&KafkaSettings, &EngineSettings),
    variables: Variables<'_>,
) -> Result<SourceSettings, ConfigError> {
    let title = format!("[source.{name}]");
    let known = [
        "url",
        "tables",
        "keys",
        "start",
        "server_id",
        "slot",
        "publication",
        "plugin",
        "on_unpublished",
        "streaming",
    ];
    let mut section = Section::new(node, &title, &known, &[], variables)?;
    let (url, origin) = section
        .raw_text("url", "\"mysql://user:${PASSWORD}@host:3306\"")?
        .ok_or_else(|| section.missing("url", "\"mysql://user:${PASSWORD}@host:3306\""))?;
    let address = SourceAddress::parse(&url, &origin, variables)?;
    let tables = match section.texts("tables", "[\"shop.*\"]")? {
        None => Selection::everything(),
        Some((globs, origin)) => {
            if globs.is_empty() {
                return Err(ConfigError::new(
                    &origin,
                    "tables selects nothing; leave it out for every table, or give [\"shop.*\"]",
                ));
            }
            for (glob, origin) in &globs {
                Selection::new(&[glob])
                    .map_err(|e| ConfigError::new(origin, format!("tables: {e}")))?;
            }
            let globs: Vec<String> = globs.into_iter().map(|(glob, _)| glob).collect();
            Selection::new(&globs).map_err(|e| ConfigError::new(&origin, format!("tables: {e}")))?
        }
    };
    let keys = match section.take("keys") {
        Some(node) => Keys::parse(node, &tables)?,
        None => Keys::default(),
    };
    let start = match section.text("start", "\"now\"")? {
        None => Start::Now,
        Some((text, origin)) => {
            Start::parse(&text).map_err(|e| ConfigError::new(&origin, format!("start: {e}")))?
        }
    };
    let server_id = match section.integer("server_id", 1..=i64::from(u32::MAX))? {
        Some((id, _)) => id as u32,
        None => derived_server_id(name, &address, state),
    };
    let slot = slot(&mut section, name, address.kind)?;
    Ok(SourceSettings {
        name: name.into(),
        address,
        tables,
        keys,
        start,
        server_id,
        slot,
        row_max: engine.row_max,
        truncates: kafka.truncates,
    })
}

/// What only PostgreSQL has, refused elsewhere.
fn slot(
    section: &mut Section<'_>,
    name: &str,
    kind: SourceKind,
) -> Result<SlotSettings, ConfigError> {
    let mut settings = SlotSettings::of(name);
    let mut text = |key: &str, example: &str| {
        let found = section.text(key, example)?;
        match found {
            Some((_, origin)) if kind != SourceKind::Postgres => Err(ConfigError::new(
                &origin,
                format!("{key} is for sources of postgres://"),
            )),
            other => Ok(other),
        }
    };
    if let Some((slot, origin)) = text("slot", "\"walbrook_shop\"")? {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if slot.is_empty() || slot.len() > 63 || !slot.bytes().all(allowed) {
            return Err(ConfigError::new(
                &origin,
                "slot: a slot's name has lower-case letters, digits and _, at most 63 of them",
            ));
        }
        settings.name = slot.into();
    }
    if let Some((publication, origin)) = text("publication", "\"walbrook_shop\"")? {
        if publication.is_empty() || publication.len() > 63 {
            return Err(ConfigError::new(
                &origin,
                "publication: a name has 1 to 63 bytes",
            ));
        }
        settings.publication = publication.into();
    }
    if let Some((plugin, origin)) = text("plugin", "\"pgoutput\"")? {
        settings.plugin = match plugin.as_str() {
            "pgoutput" => Plugin::PgOutput,
            "wal2json" => Plugin::Wal2Json,
            other => {
                return Err(ConfigError::new(
                    &origin,
                    format!(
                        "plugin = \"{other}\" is not known{}",
                        suggestion(other, &["pgoutput", "wal2json"])
                    ),
                ));
            }
        };
    }
    if let Some((reaction, origin)) = text("on_unpublished", "\"warn\"")? {
        settings.on_unpublished = match reaction.as_str() {
            "warn" => OnUnpublished::Warn,
            "halt" => OnUnpublished::Halt,
            other => {
                return Err(ConfigError::new(
                    &origin,
                    format!(
                        "on_unpublished = \"{other}\" is not known{}",
                        suggestion(other, &["warn", "halt"])
                    ),
                ));
            }
        };
    }
    if let Some((streaming, origin)) = text("streaming", "\"off\"")? {
        settings.streaming = match (streaming.as_str(), settings.plugin) {
            ("off", _) => false,
            ("on", Plugin::PgOutput) => true,
            ("on", Plugin::Wal2Json) => {
                return Err(ConfigError::new(
                    &origin,
                    "streaming = \"on\" is for plugin = \"pgoutput\": wal2json sends transactions whole",
                ));
            }
            (other, _) => {
                return Err(ConfigError::new(
                    &origin,
                    format!(
                        "streaming = \"{other}\" is not known{}",
                        suggestion(other, &["on", "off"])
                    ),
                ));
            }
        };
    }
    Ok(settings)
}

impl SlotSettings {
    /// The defaults of a source `name`: slot and publication are called `walbrook_NAME`, in the letters that slots may have.
    pub(crate) fn of(name: &str) -> Self {
        let allowed = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        };
        let called: String = "walbrook_"
            .chars()
            .chain(name.chars().map(allowed))
            .take(63)
            .collect();
        Self {
            name: called.as_str().into(),
            temporary: false,
            publication: called.into(),
            plugin: Plugin::PgOutput,
            on_unpublished: OnUnpublished::Warn,
            streaming: false,
        }
    }
}

impl Start {
    /// Reads `now`, `earliest` or a position.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "now" => Ok(Self::Now),
            "earliest" => Ok(Self::Earliest),
            other => other
                .parse()
                .map(Self::At)
                .map_err(|e| format!("{e}; or now, or earliest")),
        }
    }
}

/// The same for the same engine, another for any other: MySQL disconnects the older of two replicas with one id.
pub(crate) fn derived_server_id(name: &str, address: &SourceAddress, state: &Path) -> u32 {
    // The absolute path tells two engines apart that were started in different directories with the same file.
    let state = std::path::absolute(state).unwrap_or_else(|_| state.to_path_buf());
    let machine = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let text = format!(
        "{name}\n{}:{}\n{}\n{}",
        address.host,
        address.port,
        state.display(),
        machine.trim()
    );
    let hash = Sha256::digest(text);
    let number = hash
        .iter()
        .take(8)
        .fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let span = u64::from(SERVER_ID_DERIVED_MAX - SERVER_ID_DERIVED_MIN);
    SERVER_ID_DERIVED_MIN + (number % span) as u32
}

fn kafka(
    node: Node,
    variables: Variables<'_>,
) -> Result<(KafkaSettings, Option<Origin>), ConfigError> {
    let known = [
        "brokers",
        "topic",
        "format",
        "compression",
        "acks",
        "producer",
        "batch_max",
        "on_oversize",
        "tombstones",
        "truncates",
        "tls",
        "sasl",
        "topics",
    ];
    let mut section = Section::new(node, "[kafka]", &known, &[], variables)?;
    let (brokers, origin) = section
        .texts("brokers", "[\"k1:9092\"]")?
        .ok_or_else(|| section.missing("brokers", "[\"k1:9092\"]"))?;
    if brokers.is_empty() {
        return Err(ConfigError::new(
            &origin,
            "brokers is empty, expected at least one, for example [\"k1:9092\"]",
        ));
    }
    let brokers = brokers
        .into_iter()
        .map(|(text, origin)| broker(&text, &origin))
        .collect::<Result<_, _>>()?;
    let topic = match section.text("topic", "\"{source}.{schema}.{table}\"")? {
        None => "{source}.{schema}.{table}".to_owned(),
        Some((text, origin)) => topic_template(text, &origin)?,
    };
    section.word(
        "format",
        &[("debezium", ())],
        &["flat", "wal2json", "protobuf"],
    )?;
    let compression = section.word(
        "compression",
        &[
            ("none", Compression::None),
            ("lz4", Compression::Lz4),
            ("zstd", Compression::Zstd),
            ("snappy", Compression::Snappy),
            ("gzip", Compression::Gzip),
            ("auto", Compression::Auto),
        ],
        &[],
    )?;
    section.word("acks", &[("all", ())], &[])?;
    let producer = section.word(
        "producer",
        &[
            ("native", ProducerKind::Native),
            ("rskafka", ProducerKind::Rskafka),
        ],
        &[],
    )?;
    if compression == Some(Compression::Auto) && producer == Some(ProducerKind::Rskafka) {
        return Err(ConfigError::new(
            &section.origin,
            "compression = \"auto\" needs producer = \"native\": rskafka compresses every batch alike",
        ));
    }
    let batch_max = section.size("batch_max", 16 << 10..=256 * MIB)?;
    let on_oversize = section.word("on_oversize", &[("halt", OnOversize::Halt)], &[])?;
    let tombstones = section.boolean("tombstones")?;
    let truncates = section.boolean("truncates")?;
    let settings = KafkaSettings {
        brokers,
        topic,
        compression: compression.unwrap_or(Compression::Lz4),
        producer: producer.unwrap_or(ProducerKind::Native),
        batch_max: batch_max
            .as_ref()
            .map_or(BATCH_MAX_DEFAULT, |(bytes, _)| *bytes),
        on_oversize: on_oversize.unwrap_or(OnOversize::Halt),
        tombstones: tombstones.unwrap_or(true),
        truncates: truncates.unwrap_or(false),
        tls: kafka_tls(section.take("tls"), variables)?,
        sasl: section
            .take("sasl")
            .map(|node| sasl(node, variables))
            .transpose()?,
        topics: topics(section.take("topics"), variables)?,
    };
    Ok((settings, batch_max.map(|(_, origin)| origin)))
}

/// `host:port`; without a port Kafka's usual one.
fn broker(text: &str, origin: &Origin) -> Result<String, ConfigError> {
    let text = text.trim();
    let bad = |why: &str| {
        ConfigError::new(
            origin,
            format!("broker \"{text}\": {why}, expected HOST:PORT, for example \"k1:9092\""),
        )
    };
    if text.contains("://") {
        return Err(bad("a scheme does not belong here"));
    }
    if text.contains(|c: char| c.is_whitespace() || c == ',' || c == '/' || c == '@') {
        return Err(bad("one broker per item"));
    }
    let bracketed = text.starts_with('[');
    match text.rsplit_once(':') {
        Some((host, port)) if !bracketed || host.ends_with(']') => {
            if host.is_empty() || (!bracketed && host.contains(':')) {
                return Err(bad(if host.is_empty() {
                    "it has no host"
                } else {
                    "an IPv6 address stands in brackets"
                }));
            }
            match port.parse::<u16>() {
                Ok(port) if port > 0 => Ok(text.to_owned()),
                _ => Err(bad("its port is not a number from 1 to 65535")),
            }
        }
        _ if text.is_empty() => Err(bad("it is empty")),
        _ => Ok(format!("{text}:9092")),
    }
}

fn topic_template(text: String, origin: &Origin) -> Result<String, ConfigError> {
    const NAMES: [&str; 3] = ["source", "schema", "table"];
    let mut rest = text.as_str();
    let mut literal = String::new();
    while let Some(at) = rest.find('{') {
        literal += &rest[..at];
        let end = rest[at..].find('}').ok_or_else(|| {
            ConfigError::new(origin, format!("topic = \"{text}\": \"{{\" without \"}}\""))
        })?;
        let name = &rest[at + 1..at + end];
        if !NAMES.contains(&name) {
            return Err(ConfigError::new(
                origin,
                format!(
                    "topic = \"{text}\": {{{name}}} is not known{}",
                    suggestion(name, &NAMES)
                ),
            ));
        }
        rest = &rest[at + end + 1..];
    }
    literal += rest;
    if let Some(bad) = literal
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c))
    {
        let text = format!(
            "topic = \"{text}\": Kafka takes no '{bad}' in topic names: letters, digits, '.', '_' and '-'"
        );
        return Err(ConfigError::new(origin, text));
    }
    if text.is_empty() {
        return Err(ConfigError::new(origin, "topic is empty"));
    }
    Ok(text)
}

/// `tls = true`, or a table.
fn kafka_tls(
    node: Option<Node>,
    variables: Variables<'_>,
) -> Result<Option<KafkaTls>, ConfigError> {
    let Some(node) = node else {
        return Ok(None);
    };
    if let Value::Boolean(on) = node.value {
        return Ok(on.then(KafkaTls::default));
    }
    let mut section = Section::new(node, "kafka.tls", &["ca", "cert", "key"], &[], variables)?;
    let mut file = |key| -> Result<Option<PathBuf>, ConfigError> {
        Ok(section
            .text(key, "\"ca.pem\"")?
            .map(|(text, _)| PathBuf::from(text)))
    };
    let tls = KafkaTls {
        ca: file("ca")?,
        cert: file("cert")?,
        key: file("key")?,
    };
    if tls.cert.is_some() != tls.key.is_some() {
        return Err(ConfigError::new(
            &section.origin,
            "kafka.tls: cert and key belong together, one is missing",
        ));
    }
    Ok(Some(tls))
}

fn sasl(node: Node, variables: Variables<'_>) -> Result<Sasl, ConfigError> {
    let mut section = Section::new(
        node,
        "kafka.sasl",
        &["mechanism", "username", "password"],
        &[],
        variables,
    )?;
    let mechanisms = [
        ("plain", SaslMechanism::Plain),
        ("scram-sha-256", SaslMechanism::ScramSha256),
        ("scram-sha-512", SaslMechanism::ScramSha512),
    ];
    let mechanism = section
        .word("mechanism", &mechanisms, &[])?
        .ok_or_else(|| section.missing("mechanism", "\"scram-sha-512\""))?;
    let (username, _) = section
        .text("username", "\"walbrook\"")?
        .ok_or_else(|| section.missing("username", "\"walbrook\""))?;
    let (password, _) = section
        .text("password", "\"${KAFKA_PASSWORD}\"")?
        .ok_or_else(|| section.missing("password", "\"${KAFKA_PASSWORD}\""))?;
    Ok(Sasl {
        mechanism,
        username,
        password: Secret::from(password),
    })
}

fn topics(node: Option<Node>, variables: Variables<'_>) -> Result<TopicSettings, ConfigError> {
    let mut settings = TopicSettings {
        create: true,
        partitions: 3,
        replication: -1,
    };
    let Some(node) = node else {
        return Ok(settings);
    };
    let mut section = Section::new(
        node,
        "kafka.topics",
        &["create", "partitions", "replication"],
        &[],
        variables,
    )?;
    if let Some(create) = section.boolean("create")? {
        settings.create = create;
    }
    if let Some((partitions, _)) = section.integer("partitions", 1..=100_000)? {
        settings.partitions = partitions as i32;
    }
    if let Some((replication, origin)) = section.integer("replication", -1..=i64::from(i16::MAX))? {
        if replication == 0 {
            return Err(ConfigError::new(
                &origin,
                "replication is 0, expected a number of replicas, or -1 for the broker's default",
            ));
        }
        settings.replication = replication as i16;
    }
    Ok(settings)
}

fn engine(node: Node, variables: Variables<'_>) -> Result<(EngineSettings, Origin), ConfigError> {
    let known = ["io", "encode_threads", "memory_max", "row_max"];
    let mut section = Section::new(node, "[engine]", &known, &[], variables)?;
    let io = section.word("io", &[("epoll", Io::Epoll), ("uring", Io::Uring)], &[])?;
    let threads = section
        .integer("encode_threads", 0..=256)?
        .map_or(0, |(n, _)| n as usize);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_max = section.size("memory_max", 4 * MIB..=1 << 40)?;
    let row_max = section.size("row_max", MIB..=ROW_MAX_LIMIT)?;
    let origin = memory_max
        .as_ref()
        .map_or_else(|| section.origin.clone(), |(_, origin)| origin.clone());
    let settings = EngineSettings {
        io: io.unwrap_or(Io::Epoll),
        encode_threads: if threads == 0 {
            (cores - 1).max(1)
        } else {
            threads
        },
        memory_max: memory_max.map_or(MEMORY_MAX_DEFAULT, |(bytes, _)| bytes),
        row_max: row_max.map_or(ROW_MAX_DEFAULT, |(bytes, _)| bytes),
    };
    Ok((settings, origin))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
