//! PostgreSQL: all types against what a SELECT says; the workload with the server's crash and the engine's restart in the middle.

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::seed::postgres::{self as seed, Identity};
use harness::servers::Flavour;
use harness::truth::Truth;
use harness::workload::Workload;
use serde_json::{Map, Value};

use crate::postgres_select::{SESSION, Types, agrees, tables};
use crate::records::{State, states};
use crate::{configured, ready, run_to_end, verified};

const CHANGES: u64 = 20_000;
/// Slot and publication of a source `live`.
const NAME: &str = "walbrook_live";

/// Tables whose records cannot add up to their rows, and why.
const APART: [(&str, &str); 6] = [
    ("by_index", "its records have the index's columns for a key"),
    ("emptied", "truncated, and truncates are skipped"),
    ("emptied_child", "truncated, and truncates are skipped"),
    ("inside", "columns change without rows being written"),
    ("labelled", "a label changes without rows being written"),
    ("recreated", "dropped with rows in it"),
];

/// Tables that wal2json tells of in its own way, and why.
const APART_WAL2JSON: [(&str, &str); 1] = [("parted", "it names the partitions, not their root")];

#[tokio::test(flavor = "multi_thread")]
async fn postgres_types() {
    types(Flavour::Postgres, "pgoutput", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_types_by_wal2json() {
    types(Flavour::Postgres, "wal2json", &APART_WAL2JSON).await;
}

/// Debian 13 has the plugin's version 2.6, which writes every number.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_17_types_by_wal2json() {
    types(Flavour::Postgres17, "wal2json", &APART_WAL2JSON).await;
}

async fn types(flavour: Flavour, plugin: &str, also_apart: &[(&str, &str)]) {
    // Debian 12 has its version 2.5.
    let loses = plugin == "wal2json" && flavour == Flavour::Postgres;
    let Some((program, server)) = ready(flavour).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let globs = ["types.*", "forms.*", "public.*"];
    let engine = configured(
        &program,
        directory.path(),
        &server.cdc_url(),
        &globs,
        &broker,
    );
    set_plugin(&engine, plugin);
    let client = server.connect_postgres().await.expect("a connection");
    seed::publish(&client, NAME, None)
        .await
        .expect("a publication");
    seed::make_slot(&client, NAME, plugin, false)
        .await
        .expect("a slot");
    for script in [
        "types-postgres",
        "forms-postgres",
        "debezium-sample-postgres",
    ] {
        let path = fixtures::directory()
            .join("sql")
            .join(format!("{script}.sql"));
        seed::script(&client, &path).await.expect("the script runs");
    }
    run_to_end(&engine).await;

    let states = states(&broker).await;
    // A new session: the scripts changed theirs.
    let client = server.connect_postgres().await.expect("a connection");
    client.batch_execute(SESSION).await.expect("a session");
    let types = Types::read(&client).await;
    let (mut compared, mut differences) = (0, Vec::new());
    for table in tables(&client, "'types', 'forms', 'public'").await {
        let name = format!("{}.{}", table.schema, table.name);
        if table.key.is_empty()
            || APART
                .iter()
                .chain(also_apart)
                .any(|(apart, _)| *apart == table.name)
        {
            continue;
        }
        let rows = table.expected(&client, &types).await;
        let empty = State::new();
        let state = states
            .get(&(table.schema.clone(), table.name.clone()))
            .unwrap_or(&empty);
        if state.len() != rows.len() {
            let (found, expected) = (state.len(), rows.len());
            differences.push(format!(
                "{name}: {found} rows by the records, {expected} by SELECT"
            ));
        }
        for row in rows {
            let key: Map<String, Value> = table
                .key
                .iter()
                .map(|column| (column.clone(), row[column].clone()))
                .collect();
            let key = Value::Object(key).to_string();
            let Some(found) = state.get(&key) else {
                differences.push(format!("{name}: no record for {key}"));
                continue;
            };
            for column in &table.columns {
                let (narrow, column) = (types.is_narrow(column), &column.name);
                let expected = &row[column];
                compared += 1;
                let lost = loses && is_lost(expected, &found[column]);
                if !lost && !agrees(narrow, expected, &found[column]) {
                    let (found, expected) = (short(&found[column]), short(expected));
                    differences.push(format!(
                        "{name} {key} {column}: record {found}, SELECT {expected}"
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
    assert!(compared > 1000, "only {compared} values compared");
}

/// Whether a number is one that JSON has no form for: wal2json before 2.6 writes null in its place, and nobody can tell.
fn is_lost(expected: &Value, found: &Value) -> bool {
    found.is_null() && matches!(expected.as_str(), Some("NaN" | "Infinity" | "-Infinity"))
}

/// Has the engine's one source decode by `plugin`.
pub(crate) fn set_plugin(engine: &Engine, plugin: &str) {
    let file = engine.config();
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let text = text.replace("[kafka]\n", &format!("plugin = \"{plugin}\"\n[kafka]\n"));
    std::fs::write(&file, text).expect("a writable directory");
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(120).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_workload_with_a_restart_in_the_middle() {
    restart_in_the_middle("pgoutput", Identity::Default).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_workload_by_wal2json() {
    restart_in_the_middle("wal2json", Identity::Default).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_workload_with_whole_images() {
    restart_in_the_middle("pgoutput", Identity::Full).await;
}

/// Half of the workload, a run to the end; the server's crash; the other half, another run that must go on exactly there. Over
/// TLS with a checked certificate.
async fn restart_in_the_middle(plugin: &str, identity: Identity) {
    let Some((program, mut server)) = ready(Flavour::Postgres).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!(
        "{}?tls=verify-full&ca={}",
        server.cdc_url(),
        server.ca().display()
    );
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    set_plugin(&engine, plugin);

    let workload = Workload::new(CHANGES, 42);
    let transactions: Vec<_> = workload.transactions().collect();
    let (first, second) = transactions.split_at(transactions.len() / 2);
    let client = server.connect_postgres().await.expect("a connection");
    seed::prepare(&client, identity).await.expect("a table");
    seed::publish(&client, NAME, Some(seed::TABLE))
        .await
        .expect("a publication");
    seed::make_slot(&client, NAME, plugin, false)
        .await
        .expect("a slot");
    seed::write(&client, first.iter().cloned())
        .await
        .expect("the first half");
    run_to_end(&engine).await;
    let halfway = broker.counts().records;
    server.restart().await.expect("the server starts again");
    let client = server.connect_postgres().await.expect("a connection");
    seed::write(&client, second.iter().cloned())
        .await
        .expect("the second half");
    run_to_end(&engine).await;
    assert!(
        halfway > 0 && broker.counts().records > halfway,
        "both runs wrote"
    );

    verified(&broker, Truth::with(&workload, identity.images())).await;
}
