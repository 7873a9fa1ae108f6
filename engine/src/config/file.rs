//! `walbrook.toml` into a [`Config`]: defaults, bounds, and what must hold between settings.

mod kafka;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::kafka::kafka;
pub(crate) use self::source::derived_server_id;
use self::source::sources;
use super::document::{self, Node, Section, Value, apply_set};
use super::error::{ConfigError, Origin, suggestion};
use super::expand::{Variables, environment};
use super::{Config, EngineSettings, Io, Plugin, SlotSettings, SourceKind, SourceSettings, size};

const MIB: usize = 1 << 20;
const MEMORY_MAX_DEFAULT: usize = 32 * MIB;
const ROW_MAX_DEFAULT: usize = 64 * MIB;
/// MySQL's largest packet: no row is larger.
const ROW_MAX_LIMIT: usize = 1 << 30;
/// A batch being received, one being encoded and the requests in flight have to fit: with fewer batches than this nothing overlaps.
const BATCHES_IN_MEMORY_MIN: usize = 8;
/// As many encoding threads as one reading and sending thread can feed, and a few more (docs/decisions/encode-threads.md).
const ENCODE_THREADS_MAX: usize = 8;

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

    /// A digest of what decides which row goes to which topic and partition, and which number it has in its transaction: the
    /// `selection` of checkpoints.
    #[must_use]
    pub fn routing_digest(&self, source: &SourceSettings) -> String {
        super::tables::short_digest(&format!(
            "{}\n{}{}{}",
            source.tables.digest(),
            self.kafka.topic,
            source.keys.text(),
            sender_text(source)
        ))
    }
}

/// What decides on a PostgreSQL server which rows it sends, and so how they are numbered. Defaults are left out: checkpoints from
/// before this counted hold on.
fn sender_text(source: &SourceSettings) -> String {
    let (slot, default) = (&source.slot, SlotSettings::of(&source.name));
    match slot.plugin {
        _ if source.address.kind != SourceKind::Postgres => String::new(),
        // It has no publication.
        Plugin::Wal2Json => format!("\nplugin={}", slot.plugin.as_str()),
        Plugin::PgOutput if slot.publication == default.publication => String::new(),
        // The name may hold any character: its debug form is unambiguous.
        Plugin::PgOutput => format!("\npublication={:?}", slot.publication),
    }
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
            cores.min(ENCODE_THREADS_MAX)
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
