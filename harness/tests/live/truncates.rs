//! `kafka.truncates = true`: a TRUNCATE is one record without a key, neither lost nor repeated, wherever the engine ends.

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::servers::Flavour;
use serde_json::Value;

use crate::postgres::set_plugin;
use crate::records::records;
use crate::session::{Session, slot};
use crate::{configured, ready, run_to_end, stop, until};

#[tokio::test(flavor = "multi_thread")]
async fn mysql_truncates_are_records() {
    truncates(Flavour::Mysql, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_truncates_are_records() {
    truncates(Flavour::Mariadb, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_truncates_are_records() {
    truncates(Flavour::Postgres, "pgoutput").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_truncates_are_records_by_wal2json() {
    truncates(Flavour::Postgres, "wal2json").await;
}

async fn truncates(flavour: Flavour, plugin: &str) {
    let Some((program, server)) = ready(flavour).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let tables = ["shop.*", "!shop.other"];
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &tables, &broker);
    replace(&engine, "[kafka]\n", "[kafka]\ntruncates = true\n");
    let mut session = Session::of(&server).await;
    session.run("CREATE SCHEMA shop").await;
    for table in ["t", "other"] {
        let create = format!("CREATE TABLE shop.{table} (id INT PRIMARY KEY, v INT)");
        session.run(&create).await;
    }
    if let Session::Postgres(client) = &session {
        set_plugin(&engine, plugin);
        slot(client, plugin).await;
    }

    // The first statement of the stream empties a table of which nothing has been said.
    session.run("TRUNCATE TABLE shop.t").await;
    session
        .run("INSERT INTO shop.t VALUES (1, 1), (2, 2)")
        .await;
    session.run("TRUNCATE shop.t").await;
    session.run("TRUNCATE TABLE shop.other").await;
    session.run("INSERT INTO shop.t VALUES (3, 3)").await;
    run_to_end(&engine).await;
    let mut expected = vec!["t", "c", "c", "t", "c"];
    assert_eq!(story(&broker).await, expected);

    // What PostgreSQL does within a transaction, MySQL does between two.
    let (begin, commit) = match &session {
        Session::MySql(_) => ("", ""),
        Session::Postgres(_) => ("BEGIN; ", "; COMMIT"),
    };
    if begin.is_empty() {
        session.run("DELETE FROM shop.t").await;
        session.run("INSERT INTO shop.t VALUES (4, 4)").await;
        session.run("truncate /* all of it */ `shop` . `t`").await;
        session.run("INSERT INTO shop.t VALUES (5, 5)").await;
        expected.extend(["d", "c", "t", "c"]);
    } else {
        let statements = "INSERT INTO shop.t VALUES (4, 4); TRUNCATE shop.other, shop.t; \
                          INSERT INTO shop.t VALUES (5, 5)";
        session.run(&format!("{begin}{statements}{commit}")).await;
        expected.extend(["c", "t", "c"]);
    }
    run_to_end(&engine).await;
    assert_eq!(story(&broker).await, expected);
    run_to_end(&engine).await;
    assert_eq!(story(&broker).await, expected, "a clean restart");

    // Killed as soon as the TRUNCATE's record is there: whether the checkpoint holds it already, or not yet.
    for n in 0..4 {
        let mut running = engine.start_until_stopped().expect("the engine starts");
        let statement = format!("INSERT INTO shop.t VALUES ({n}, 100)");
        session.run("TRUNCATE shop.t").await;
        expected.push("t");
        if n % 2 == 0 {
            session.run(&statement).await;
            expected.push("c");
        }
        let truncates = expected.iter().filter(|op| **op == "t").count();
        until("the TRUNCATE's record", async || {
            let found = story(&broker).await;
            found.iter().filter(|op| *op == "t").count() >= truncates
        })
        .await;
        running.kill().expect("a running engine");
    }
    run_to_end(&engine).await;
    assert_eq!(story(&broker).await, expected, "after kills");

    // Left out as the default has it; rows keep their numbers, so what is written stays written.
    replace(&engine, "truncates = true\n", "");
    let running = engine.start_until_stopped().expect("the engine starts");
    session.run("TRUNCATE shop.t").await;
    session.run("INSERT INTO shop.t VALUES (6, 6)").await;
    expected.push("c");
    until("the row behind the last TRUNCATE", async || {
        story(&broker).await.len() >= expected.len()
    })
    .await;
    stop(&engine, running).await;
    assert_eq!(story(&broker).await, expected);
    let log = std::fs::read_to_string(engine.log()).expect("a log");
    let warning = "shop.t was truncated: its rows are gone without a record of each";
    assert!(log.contains(warning), "{log}");
    assert!(!log.contains("shop.other was truncated"), "{log}");
}

fn replace(engine: &Engine, old: &str, new: &str) {
    let file = engine.config();
    let text = std::fs::read_to_string(&file).expect("a configuration");
    assert!(text.contains(old), "{text}");
    std::fs::write(&file, text.replace(old, new)).expect("a writable directory");
}

/// `op` of every record of `shop.t` in the order of the server, that of `pos`.
async fn story(broker: &Broker) -> Vec<String> {
    let mut told = Vec::new();
    for (topic, record) in records(broker).await {
        assert_eq!(topic, "live.shop.t");
        // A delete's tombstone.
        let Some(value) = record.value else { continue };
        let value: Value = serde_json::from_slice(&value).expect("JSON");
        let op = value["op"].as_str().expect("an operation").to_owned();
        assert_eq!(record.key.is_none(), op == "t", "{value}");
        if op == "t" {
            assert!(value["before"].is_null() && value["after"].is_null());
            assert_eq!(value["source"]["table"], "t");
        }
        let pos = String::from_utf8(record.headers["pos"].clone()).expect("text");
        told.push((place(&pos), op));
    }
    told.sort();
    let places: Vec<_> = told.iter().map(|(place, _)| place).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "written twice: {told:?}");
    told.into_iter().map(|(_, op)| op).collect()
}

/// A `pos` header as numbers that sort: `binlog.000002:1234/5`, `16/B374D848/5`.
fn place(pos: &str) -> [u64; 3] {
    let (transaction, row) = pos.rsplit_once('/').expect("a row");
    let row = row.parse().expect("a number");
    match transaction.split_once(':') {
        Some((file, offset)) => {
            let (_, number) = file.rsplit_once('.').expect("a number");
            let (number, offset) = (number.parse(), offset.parse());
            [number.expect("a number"), offset.expect("a number"), row]
        }
        None => {
            let (high, low) = transaction.split_once('/').expect("an LSN");
            let hexadecimal = |text| u64::from_str_radix(text, 16).expect("a number");
            [hexadecimal(high), hexadecimal(low), row]
        }
    }
}
