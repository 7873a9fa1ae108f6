//! `[kafka]`: where records go, and how.

use std::path::PathBuf;

use super::MIB;
use crate::config::document::{Node, Section, Value};
use crate::config::error::{ConfigError, Origin, suggestion};
use crate::config::expand::Variables;
use crate::config::{
    Compression, KafkaSettings, KafkaTls, OnOversize, ProducerKind, Sasl, SaslMechanism, Secret,
    TopicSettings,
};

const BATCH_MAX_DEFAULT: usize = MIB;

/// The section, and where it says `batch_max`.
pub(super) fn kafka(
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
    if settings.producer == ProducerKind::Rskafka && settings.shares_topics() {
        return Err(ConfigError::new(
            &section.origin,
            format!(
                "topic = \"{}\" without {{source}} needs producer = \"native\": rskafka's records do not say who wrote them, so a restart \
                 would take another source's for ours and leave out rows; name {{source}} in topic, or use native",
                settings.topic
            ),
        ));
    }
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
