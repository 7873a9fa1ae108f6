//! All types: what the records leave in each table is what a SELECT finds there.

use std::collections::BTreeMap;

use harness::broker::Broker;
use harness::seed;
use harness::servers::{Flavour, Server};
use mysql_async::prelude::Queryable as _;
use serde_json::{Map, Value};

use crate::records::{State, states};
use crate::{configured, golden, ready, run_to_end, select};

/// Tables whose records cannot add up to their rows, and why.
const APART: [(&str, &str); 4] = [
    ("images", "MINIMAL and NOBLOB images leave columns out"),
    ("versioned", "system versioning keeps rows that are deleted"),
    ("cpk", "truncated, and truncates are skipped"),
    ("selected", "no key"),
];

#[tokio::test(flavor = "multi_thread")]
async fn mysql_types() {
    types(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_types() {
    types(Flavour::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_types_without_names() {
    let scripts = ["types-mysql", "debezium-sample"];
    let set = "SET GLOBAL binlog_row_metadata = MINIMAL";
    streamed(Flavour::Mysql, &[set], &scripts, &["types", "tt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_types_without_names() {
    let scripts = ["types-mariadb", "debezium-sample"];
    let set = "SET GLOBAL binlog_row_metadata = NO_LOG";
    streamed(Flavour::Mariadb, &[set], &scripts, &["types", "tt"]).await;
}

async fn types(flavour: Flavour) {
    // What the recordings do not have: labels in a character set without text, as MediaWiki makes its tables.
    let labels = [
        "CREATE DATABASE labels",
        "CREATE TABLE labels.l (id INT PRIMARY KEY, e ENUM('a', 'ü') CHARACTER SET binary, s SET('x', 'é') CHARACTER SET binary)",
        "CREATE TABLE labels.m (id INT PRIMARY KEY, e ENUM('a', 'ü'), s SET('x', 'é')) DEFAULT CHARSET = binary",
        "INSERT INTO labels.l VALUES (1, 'a', 'x,é'), (2, 'ü', ''), (3, NULL, 'é')",
        "INSERT INTO labels.m SELECT * FROM labels.l",
    ];
    let (types, forms) = (
        format!("types-{}", flavour.name()),
        format!("forms-{}", flavour.name()),
    );
    let scripts = [&*types, &*forms, "debezium-sample"];
    let schemas = ["labels", "types", "forms", "tt"];
    let Some(server) = streamed(flavour, &labels, &scripts, &schemas).await else {
        return;
    };
    // The golden records were made elsewhere, of the same scripts; `forms` says when it ran.
    compare(flavour, &server, &golden::states(flavour), &["types", "tt"]).await;
}

/// Runs `statements` and then `scripts`, streams what they leave in `schemas` and compares it; the server afterwards.
async fn streamed(
    flavour: Flavour,
    statements: &[&str],
    scripts: &[&str],
    schemas: &[&str],
) -> Option<Server> {
    let (program, server) = ready(flavour).await?;
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let tables: Vec<String> = schemas.iter().map(|schema| format!("{schema}.*")).collect();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &tables, &broker);
    let mut connection = server.connect().await.expect("a connection");
    for statement in statements {
        let done = connection.query_drop(*statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    // Settings are those of new sessions.
    let mut connection = server.connect().await.expect("a connection");
    for script in scripts {
        let path = (fixtures::directory().join("sql")).join(format!("{script}.sql"));
        seed::mysql::script(&mut connection, &path)
            .await
            .expect("the script runs");
    }
    drop(connection);
    run_to_end(&engine).await;
    compare(flavour, &server, &states(&broker).await, schemas).await;
    Some(server)
}

/// Holds what records leave in every table of `schemas` against a SELECT.
async fn compare(
    flavour: Flavour,
    server: &Server,
    states: &BTreeMap<(String, String), State>,
    schemas: &[&str],
) {
    // A new session: the scripts changed theirs.
    let mut connection = server.connect().await.expect("a connection");
    connection
        .query_drop("SET time_zone = '+00:00', NAMES utf8mb4")
        .await
        .expect("a session");
    let query = "SELECT table_schema, table_name FROM information_schema.tables \
                 WHERE table_schema IN ('types', 'forms', 'tt', 'labels') AND table_type = 'BASE TABLE' ORDER BY 1, 2";
    let tables: Vec<(String, String)> = connection.query(query).await.expect("tables");
    let (mut compared, mut differences) = (0, Vec::new());
    for (schema, table) in tables
        .iter()
        .filter(|(schema, _)| schemas.contains(&schema.as_str()))
    {
        let (columns, key) = select::columns(&mut connection, schema, table).await;
        // MariaDB leaves deletes by cascade to InnoDB: they are not in its binlog.
        let cascaded = flavour == Flavour::Mariadb && table == "child";
        if key.is_empty() || cascaded || APART.iter().any(|(name, _)| name == table) {
            continue;
        }
        let rows = select::rows(&mut connection, schema, table, &columns).await;
        let empty = State::new();
        let state = states
            .get(&(schema.clone(), table.clone()))
            .unwrap_or(&empty);
        if state.len() != rows.len() {
            differences.push(format!(
                "{schema}.{table}: {} rows by the records, {} by SELECT",
                state.len(),
                rows.len()
            ));
        }
        for row in rows {
            let expected: Map<String, Value> = columns
                .iter()
                .zip(&row)
                .map(|(column, cell)| {
                    (
                        column.name.clone(),
                        select::expected(column, cell.as_deref()),
                    )
                })
                .collect();
            let key: Map<String, Value> = key
                .iter()
                .map(|name| (name.clone(), expected[name].clone()))
                .collect();
            let key = Value::Object(key).to_string();
            let Some(found) = state.get(&key) else {
                differences.push(format!("{schema}.{table}: no record for {key}"));
                continue;
            };
            for column in &columns {
                compared += 1;
                if !select::agrees(column, &expected[&column.name], &found[&column.name]) {
                    let (found, expected) =
                        (short(&found[&column.name]), short(&expected[&column.name]));
                    differences.push(format!(
                        "{schema}.{table} {key} {}: record {found}, SELECT {expected}",
                        column.name
                    ));
                }
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {compared} values differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(compared > 500, "only {compared} values compared");
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(120).collect()
}
