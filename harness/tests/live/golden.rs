//! Records of recordings as files, `fixtures/golden/*-types.txt`: one of MariaDB's is made here, through the whole engine, because its
//! binary log does not tell UUID and INET columns from binary ones; and every golden row is held against a SELECT (`column_types`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use fixtures::Recording;
use harness::broker::Broker;
use harness::serve::{ServeOptions, Server};
use harness::servers::Flavour;

use crate::records::{State, apply, records};
use crate::{configured, engine, run_to_end};

fn path(flavour: Flavour) -> PathBuf {
    let name = match flavour {
        Flavour::Mariadb => "mariadb-10.11-types.txt",
        _ => "mysql-9.7-types.txt",
    };
    fixtures::directory().join("golden").join(name)
}

/// What the golden records leave in each table.
pub(crate) fn states(flavour: Flavour) -> BTreeMap<(String, String), State> {
    let path = path(flavour);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut states = BTreeMap::new();
    for line in text.lines() {
        let (_, record) = line.split_once(" | ").expect("topic and place");
        // A tombstone has no value, a table without a key no key.
        if let Some((key, value)) = record.split_once(" | {\"before\":")
            && !key.is_empty()
        {
            let value = format!("{{\"before\":{value}");
            apply(&mut states, key.as_bytes(), value.as_bytes());
        }
    }
    states
}

/// A line as golden files have it: without what differs from run to run.
fn line(topic: &str, pos: &str, key: &str, value: &str) -> String {
    // The envelope ends with the times of the encoding; `source` has others.
    let value = match value.rsplit_once(",\"ts_ms\":") {
        Some((value, _)) => format!("{value}}}"),
        None => value.to_owned(),
    };
    let value = match value.split_once("\"source\":{\"version\":\"") {
        Some((head, tail)) => {
            let (_, tail) = tail.split_once('"').expect("the end of a version");
            format!("{head}\"source\":{{\"version\":\"0\"{tail}")
        }
        None => value,
    };
    format!("{topic} {pos} | {key} | {value}")
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_types_as_records() {
    let program = match engine() {
        Ok(program) => program,
        Err(reason) => {
            assert!(!harness::is_ci(), "required in CI: {reason}");
            eprintln!("\n*** SKIPPED: no golden records of MariaDB: {reason}\n");
            return;
        }
    };
    let recording = Recording::named("mariadb-10.11-types").expect("a recording");
    let server = Server::start(&recording, "127.0.0.1:0", ServeOptions::default())
        .await
        .expect("a replay server");
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("mariadb://cdc@{}", server.address());
    let tables = ["types.*", "tt.*"];
    let engine = configured(&program, directory.path(), &url, &tables, &broker);
    let text = std::fs::read_to_string(engine.config()).expect("a configuration");
    let text = text.replace("partitions = 3", "partitions = 1");
    std::fs::write(engine.config(), text).expect("a configuration");
    run_to_end(&engine).await;

    let mut found = String::new();
    for (topic, record) in records(&broker).await {
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default());
        let pos = record.headers.get("pos").cloned();
        let (pos, key) = (text(pos).expect("text"), text(record.key).expect("text"));
        let value = text(record.value).expect("text");
        writeln!(found, "{}", line(&topic, &pos, &key, &value)).expect("a string");
    }
    let path = path(Flavour::Mariadb);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("a writable file");
    }
    let golden = std::fs::read_to_string(&path).expect("a golden file");
    for (found, golden) in found.lines().zip(golden.lines()) {
        assert_eq!(found, golden);
    }
    assert_eq!(found.lines().count(), golden.lines().count());
}
