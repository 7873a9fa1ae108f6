//! `[source.NAME]`: where a server is, what of it is captured, and what it keeps for us.

use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::config::document::{Entry, Node, Section, Value};
use crate::config::error::{ConfigError, Origin, suggestion};
use crate::config::expand::Variables;
use crate::config::{
    EngineSettings, KafkaSettings, Keys, OnUnpublished, Plugin, Selection, SlotSettings,
    SourceAddress, SourceKind, SourceSettings, Start,
};

/// Kafka's own limit is 249 for the whole topic name.
const NAME_MAX: usize = 100;
/// Derived server ids stay out of the range that people give by hand, and below 2³¹ for tools that read them as signed.
pub(super) const SERVER_ID_DERIVED_MIN: u32 = 1_000_000;
pub(super) const SERVER_ID_DERIVED_MAX: u32 = i32::MAX as u32;

/// Every source of the file, in its order.
pub(super) fn sources(
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
