//! The configuration file: what it means, and what is said when it means nothing.

use super::source::{SERVER_ID_DERIVED_MAX, SERVER_ID_DERIVED_MIN};
use super::*;
use crate::config::{
    Compression, KafkaTls, OnUnpublished, Plugin, ProducerKind, SourceKind, Start, TlsMode,
    TopicSettings,
};

const SHORT: &str = r#"
[source.shop]
url = "mysql://cdc:${SHOP_PASSWORD}@db1:3306"
tables = ["shop.*"]
[kafka]
brokers = ["k1:9092"]
"#;

fn variables(name: &str) -> Option<String> {
    match name {
        "SHOP_PASSWORD" => Some("se@same:/?".into()),
        "BROKER" => Some("k9:9999".into()),
        _ => None,
    }
}

fn parse_with(text: &str, sets: &[&str]) -> Result<Config, String> {
    Config::parse(text, &"w.toml".into(), sets, &variables).map_err(|e| e.to_string())
}

fn error(text: &str) -> String {
    parse_with(text, &[]).unwrap_err()
}

#[test]
fn five_lines_are_enough() {
    let config = parse_with(SHORT, &[]).unwrap();
    assert_eq!(config.state, Path::new("walbrook-state"));
    let [source] = &config.sources[..] else {
        panic!("one source")
    };
    assert_eq!(
        (&*source.name, source.address.password.reveal()),
        ("shop", "se@same:/?")
    );
    assert_eq!(
        (source.address.kind, source.address.tls.mode),
        (SourceKind::MySql, TlsMode::Prefer)
    );
    assert!(source.tables.includes("shop", "x") && !source.tables.includes("other", "x"));
    assert_eq!(source.start, Start::Now);
    assert!((SERVER_ID_DERIVED_MIN..SERVER_ID_DERIVED_MAX).contains(&source.server_id));
    let kafka = &config.kafka;
    assert_eq!(
        (kafka.compression, kafka.producer, kafka.batch_max),
        (Compression::Lz4, ProducerKind::Native, MIB)
    );
    assert_eq!(
        kafka.topics,
        TopicSettings {
            create: true,
            partitions: 3,
            replication: -1
        }
    );
    assert!(kafka.tombstones && !kafka.truncates && !source.truncates);
    assert!(kafka.tls.is_none() && kafka.sasl.is_none());
    assert_eq!(
        (config.engine.memory_max, config.engine.row_max),
        (32 * MIB, 64 * MIB)
    );
    assert!(config.engine.encode_threads >= 1);
    assert!(!format!("{config:?}").contains("se@same"));
}

#[test]
fn derived_server_ids_are_stable_and_differ() {
    let id = |sets: &[&str]| parse_with(SHORT, sets).unwrap().sources[0].server_id;
    assert_eq!(id(&[]), id(&["kafka.compression=none"]));
    assert_ne!(id(&[]), id(&["state=elsewhere"]));
    assert_ne!(id(&[]), id(&["source.shop.url=mysql://cdc@db2"]));
    assert_eq!(id(&["source.shop.server_id=85744"]), 85_744);
}

#[test]
fn sets_override_and_add() {
    let config = parse_with(
        SHORT,
        &[
            "kafka.compression=zstd",
            "kafka.brokers=[\"${BROKER}\", \"k2\"]",
            "source.shop.start=earliest",
            "source.shop.tables=other.*",
            "engine.memory_max=16MiB",
            "engine.encode_threads=4",
            "kafka.topics.partitions=12",
            "kafka.sasl={ mechanism = \"plain\", username = \"u\", password = \"${SHOP_PASSWORD}\" }",
        ],
    )
    .unwrap();
    assert_eq!(config.kafka.compression, Compression::Zstd);
    assert_eq!(config.kafka.brokers, ["k9:9999", "k2:9092"]);
    assert_eq!(config.sources[0].start, Start::Earliest);
    assert!(config.sources[0].tables.includes("other", "t"));
    assert_eq!(
        (config.engine.memory_max, config.engine.encode_threads),
        (16 * MIB, 4)
    );
    assert_eq!(config.kafka.topics.partitions, 12);
    assert_eq!(config.kafka.sasl.unwrap().password.reveal(), "se@same:/?");
    for (set, expected) in [
        ("kafka", "--set: expected KEY=VALUE"),
        (
            "kafka.compresion=zstd",
            "--set kafka.compresion: unknown key \"compresion\" in [kafka]; did you mean \"compression\"?",
        ),
        (
            "kafka.batch_max=7MiB",
            "--set kafka.batch_max: kafka.batch_max = \"7MiB\" is too large",
        ),
        (
            "kafka.batch_max.x=1",
            "--set kafka.batch_max.x: batch_max is a table, expected a size",
        ),
        ("a b=1", "--set: \"a b\" is not a key"),
    ] {
        let error = parse_with(SHORT, &[set]).unwrap_err();
        assert!(error.starts_with(expected), "{set}: {error}");
    }
}

#[test]
fn errors_name_file_line_and_the_nearest_key() {
    let with = |old: &str, new: &str| error(&SHORT.replace(old, new));
    for (old, new, expected) in [
        (
            "brokers",
            "brokerz",
            "w.toml:6: unknown key \"brokerz\" in [kafka]; did you mean \"brokers\"?",
        ),
        (
            "tables",
            "table",
            "w.toml:4: unknown key \"table\" in [source.shop]; did you mean \"tables\"?",
        ),
        (
            "[kafka]",
            "[kafak]",
            "w.toml:5: unknown key \"kafak\" in the file; did you mean \"kafka\"?",
        ),
        (
            "[source.shop]",
            "[source]",
            "w.toml:3: \"url\" in [source]: a source has a name, write [source.NAME]",
        ),
        (
            "[source.shop]",
            "[source.\"a b\"]",
            "w.toml:2: \"a b\" is no name for a source",
        ),
        (
            "url = ",
            "#",
            "w.toml:2: [source.shop] needs url, for example",
        ),
        (
            "SHOP_PASSWORD",
            "SHOP_PASSWORT",
            "w.toml:3: environment variable SHOP_PASSWORT is not set",
        ),
        (
            "mysql://",
            "postgres://",
            "w.toml:3: the url names no database: a slot of PostgreSQL belongs to one",
        ),
        (
            "tables = [\"shop.*\"]",
            "tables = [\n\"a.*\",\n\"shop\"]",
            "w.toml:6: tables: \"shop\": expected DATABASE.TABLE",
        ),
        (
            "tables = [\"shop.*\"]",
            "tables = []",
            "w.toml:4: tables selects nothing",
        ),
        (
            "tables = [\"shop.*\"]",
            "tables = [1]",
            "w.toml:4: an item of tables is a number, expected a list of texts",
        ),
        (
            "tables = [\"shop.*\"]",
            "start = \"yesterday\"",
            "w.toml:4: start: \"yesterday\" is not a position: expected FILE:OFFSET",
        ),
        (
            "tables = [\"shop.*\"]",
            "server_id = 0",
            "w.toml:4: server_id is 0, expected 1 to 4294967295",
        ),
        (
            "tables = [\"shop.*\"]",
            "slot = \"x\"",
            "w.toml:4: slot is for sources of postgres://",
        ),
        ("[\"k1:9092\"]", "[]", "w.toml:6: brokers is empty"),
        (
            "[\"k1:9092\"]",
            "[\"k1:x\"]",
            "w.toml:6: broker \"k1:x\": its port is not a number from 1 to 65535",
        ),
        (
            "[\"k1:9092\"]",
            "[\"k1,k2\"]",
            "w.toml:6: broker \"k1,k2\": one broker per item",
        ),
        (
            "[\"k1:9092\"]",
            "[\"kafka://k1\"]",
            "w.toml:6: broker \"kafka://k1\": a scheme does not belong here",
        ),
        ("[\"k1:9092\"]", "[\"k1\"", "w.toml:6: "),
    ] {
        let text = with(old, new);
        assert!(text.starts_with(expected), "{new}: {text}");
        assert!(!text.contains("se@same"), "{text}");
    }
    assert!(error("[kafka]\nbrokers=['k']").starts_with("w.toml:1: there is no source"));
    assert!(error(SHORT.split("[kafka]").next().unwrap()).contains("there is no [kafka] section"));
}

#[test]
fn kafka_and_engine_values_are_checked() {
    for (line, expected) in [
        (
            "format = \"flat\"",
            "w.toml:7: format = \"flat\" is not available in this version",
        ),
        (
            "format = \"debesium\"",
            "w.toml:7: format = \"debesium\" is not known; did you mean \"debezium\"?",
        ),
        (
            "compression = \"brotli\"",
            "w.toml:7: compression = \"brotli\" is not known",
        ),
        (
            "compression = \"brotli\"",
            "w.toml:7: compression = \"brotli\" is not known",
        ),
        (
            "compression = 4",
            "w.toml:7: compression is a number, expected a text",
        ),
        ("acks = \"1\"", "w.toml:7: acks = \"1\" is not known"),
        ("batch_max = \"1MB!\"", "w.toml:7: \"1MB!\" is not a size"),
        (
            "batch_max = \"1KiB\"",
            "w.toml:7: batch_max is 1KiB, expected 16KiB to 256MiB",
        ),
        (
            "batch_max = \"8MiB\"",
            "w.toml:7: kafka.batch_max = \"8MiB\" is too large for engine.memory_max = \"32MiB\"",
        ),
        (
            "topic = \"{source}.{tabel}\"",
            "w.toml:7: topic = \"{source}.{tabel}\": {tabel} is not known; did you mean \"table\"?",
        ),
        (
            "topic = \"a b\"",
            "w.toml:7: topic = \"a b\": Kafka takes no ' ' in topic names",
        ),
        (
            "tls = { ca = \"a\", cert = \"b\" }",
            "w.toml:7: kafka.tls: cert and key belong together",
        ),
        (
            "tls = { cca = \"a\" }",
            "w.toml:7: unknown key \"cca\" in kafka.tls; did you mean \"ca\"?",
        ),
        (
            "sasl = { username = \"u\" }",
            "w.toml:7: kafka.sasl needs mechanism, for example mechanism = \"scram-sha-512\"",
        ),
        (
            "sasl = { mechanism = \"gssapi\" }",
            "w.toml:7: mechanism = \"gssapi\" is not known",
        ),
        ("topics = { replication = 0 }", "w.toml:7: replication is 0"),
        (
            "topics = { partitions = 0 }",
            "w.toml:7: partitions is 0, expected 1 to 100000",
        ),
        (
            "compression = \"auto\"\nproducer = \"rskafka\"",
            "w.toml:5: compression = \"auto\" needs producer = \"native\"",
        ),
        (
            "topic = \"{schema}.{table}\"\nproducer = \"rskafka\"",
            "w.toml:5: topic = \"{schema}.{table}\" without {source} needs producer = \"native\"",
        ),
        (
            "topics = { create = \"yes\" }",
            "w.toml:7: create is a text, expected true or false",
        ),
        (
            "[engine]\nio = \"urin\"",
            "w.toml:8: io = \"urin\" is not known",
        ),
        (
            "[engine]\nmemory_max = \"5MiB\"",
            "w.toml:8: kafka.batch_max = \"1MiB\" is too large for engine.memory_max = \"5MiB\"",
        ),
        (
            "[engine]\nencode_threads = -1",
            "w.toml:8: encode_threads is -1, expected 0 to 256",
        ),
    ] {
        let text = error(&format!("{SHORT}{line}"));
        assert!(text.starts_with(expected), "{line}: {text}");
    }
    let config = parse_with(
        &format!("{SHORT}tls = true\nacks = \"all\"\nformat = \"debezium\""),
        &[],
    )
    .unwrap();
    assert_eq!(config.kafka.tls, Some(KafkaTls::default()));
}

#[test]
fn sources_that_would_fight_are_refused() {
    let two = format!(
        "{SHORT}[source.b]\nurl='mysql://u@db1'\nserver_id=7\n[source.c]\nurl='mysql://u@db1'\nserver_id=7\n"
    );
    assert!(
        error(&two).contains("has the server_id 7 of another source"),
        "{}",
        error(&two)
    );
}

#[test]
fn postgresql_has_settings_of_its_own() {
    let of = |rest: &str| format!("{SHORT}[source.b-1]\nurl='postgres://u@db1/crm'\n{rest}");
    let parsed = parse_with(&of("plugin = 'wal2json'\non_unpublished = 'halt'"), &[]).unwrap();
    let source = parsed.sources.iter().find(|s| &*s.name == "b-1").unwrap();
    assert_eq!(
        (&*source.address.database, source.address.port),
        ("crm", 5432)
    );
    assert_eq!(
        (&*source.slot.name, &*source.slot.publication),
        ("walbrook_b_1", "walbrook_b_1")
    );
    assert_eq!(source.slot.plugin, Plugin::Wal2Json);
    assert_eq!(source.slot.on_unpublished, OnUnpublished::Halt);
    for (rest, words) in [
        ("slot = 'Shop'", "lower-case letters, digits and _"),
        ("plugin = 'wal2jsn'", "did you mean \"wal2json\""),
        ("on_unpublished = 'hlt'", "did you mean \"halt\""),
        ("streaming = 'offf'", "did you mean \"off\""),
        (
            "plugin = 'wal2json'\nstreaming = 'on'",
            "wal2json sends transactions whole",
        ),
        (
            "slot = 's'\n[source.c]\nurl='postgres://u@db1/other'\nslot = 's'",
            "has the slot s of another source",
        ),
        (
            "[source.c]\nurl='mysql://u@db3'\nslot = 's'",
            "slot is for sources of postgres://",
        ),
    ] {
        assert!(
            error(&of(rest)).contains(words),
            "{rest}: {}",
            error(&of(rest))
        );
    }
}

#[test]
fn keys_are_columns_of_captured_tables() {
    let of = |keys: &str| {
        format!(
            "[source.b]\nurl='mysql://u@db1'\ntables=['shop.*']\nkeys = {keys}\n[kafka]\nbrokers=['k']"
        )
    };
    let config = parse_with(&of(r#"{ "shop.audit" = ["a", "b"] }"#), &[]).unwrap();
    let keys = &config.sources[0].keys;
    assert_eq!(keys.of("shop", "audit").unwrap(), ["a", "b"]);
    assert_eq!(keys.of("shop", "other"), None);
    let digest = |keys: &str| {
        let config = parse_with(&of(keys), &[]).unwrap();
        config.routing_digest(&config.sources[0])
    };
    let none = digest("{}");
    let one = digest(r#"{ "shop.audit" = ["a", "b"] }"#);
    assert_ne!(one, none);
    assert_ne!(one, digest(r#"{ "shop.audit" = ["b", "a"] }"#));
    assert_ne!(one, digest(r#"{ "shop.audit" = ["a\", \"b"] }"#));
    for (keys, words) in [
        ("['a']", "keys is no table"),
        (r#"{ audit = ["a"] }"#, "\"audit\" names no table"),
        (
            r#"{ "other.audit" = ["a"] }"#,
            "table other.audit is not captured",
        ),
        (r#"{ "shop.audit" = "a" }"#, "has no list of columns"),
        (r#"{ "shop.audit" = [] }"#, "has no columns"),
        (r#"{ "shop.audit" = [1] }"#, "a column that is no text"),
        (r#"{ "shop.audit" = ["a", "a"] }"#, "named twice"),
    ] {
        let said = error(&of(keys));
        assert!(said.contains(words), "{keys}: {said}");
        assert!(said.contains(":4"), "{keys}: {said}");
    }
}

/// Another plugin, or another publication, sends other rows: those of a transaction are not numbered alike.
#[test]
fn plugin_and_publication_count_for_the_digest() {
    let of = |url: &str, more: &str| {
        let text =
            format!("[source.b]\nurl='{url}'\ntables=['shop.*']\n{more}\n[kafka]\nbrokers=['k']");
        let config = parse_with(&text, &[]).unwrap();
        config.routing_digest(&config.sources[0])
    };
    let postgres = |more: &str| of("postgres://u@db1/shop", more);
    let default = postgres("");
    // As checkpoints have it that were written before these counted, and as MySQL's do.
    assert_eq!(default, of("mysql://u@db1", ""));
    assert_eq!(default, "945480400bc296b0");
    assert_eq!(
        default,
        postgres("publication='walbrook_b'\nplugin='pgoutput'")
    );
    assert_eq!(default, postgres("slot='other'\nstreaming='on'"));
    let others = [
        postgres("publication='other'"),
        postgres("publication='another'"),
        postgres("plugin='wal2json'"),
    ];
    for (at, digest) in others.iter().enumerate() {
        assert!(*digest != default && !others[..at].contains(digest));
    }
    // wal2json has no publication.
    assert_eq!(
        others[2],
        postgres("plugin='wal2json'\npublication='other'")
    );
}

#[test]
fn sources_are_found_by_name() {
    let config = parse_with(SHORT, &[]).unwrap();
    assert!(config.source("shop").is_ok());
    assert_eq!(
        config.source("shp").unwrap_err().to_string(),
        "SOURCE: there is no source \"shp\"; did you mean \"shop\"?"
    );
    let digest = config.routing_digest(&config.sources[0]);
    let other = parse_with(SHORT, &["kafka.topic=one"]).unwrap();
    assert_ne!(digest, other.routing_digest(&other.sources[0]));
}

#[test]
fn the_annotated_example_is_valid_and_shows_the_defaults() {
    let text = include_str!("../../../docs/walbrook.toml");
    let config = parse_with(text, &[]).unwrap();
    let short = parse_with(SHORT, &[]).unwrap();
    assert_eq!(config.state, short.state);
    assert_eq!(config.engine, short.engine);
    let (mut ours, mut theirs) = (config.kafka.clone(), short.kafka.clone());
    // These three are examples, not defaults: without them the rest is equal.
    assert!(ours.tls.take().is_some() && ours.sasl.take().is_some());
    ours.brokers = Vec::new();
    theirs.brokers = Vec::new();
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}
