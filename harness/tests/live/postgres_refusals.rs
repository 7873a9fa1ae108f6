//! What cannot be captured is refused at the start, or where it becomes so: exit status 1, and words that say what to do.

use std::path::Path;

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::seed::postgres as seed;
use harness::servers::{Flavour, Server};
use harness::workload::Workload;
use tokio_postgres::Client;

use crate::postgres::set_plugin;
use crate::postgres_faults::{NAME, prepare};
use crate::{configured, ready_with, run_to_end, until};

/// A server, a broker, and a place for engines.
pub(crate) struct Stage {
    pub(crate) program: std::path::PathBuf,
    pub(crate) server: Server,
    pub(crate) broker: Broker,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) client: Client,
}

impl Stage {
    pub(crate) async fn set(options: &[&str]) -> Option<Stage> {
        Stage::of(Flavour::Postgres, options).await
    }

    async fn of(flavour: Flavour, options: &[&str]) -> Option<Stage> {
        let (program, server) = ready_with(flavour, options).await?;
        let client = server.connect_postgres().await.expect("a connection");
        Some(Stage {
            program,
            broker: Broker::loopback().await.expect("a broker"),
            directory: tempfile::tempdir().expect("a directory"),
            client,
            server,
        })
    }

    /// A stage on which the engine `first` has streamed a workload to its end.
    async fn streamed(options: &[&str]) -> Option<(Stage, Engine)> {
        let stage = Stage::set(options).await?;
        prepare(&stage.server, false).await;
        let engine = stage.engine("first");
        stage.write(1).await;
        run_to_end(&engine).await;
        Some((stage, engine))
    }

    /// An engine whose state is in `name`.
    pub(crate) fn engine(&self, name: &str) -> Engine {
        self.engine_at(name, &self.server.cdc_url())
    }

    pub(crate) fn engine_at(&self, name: &str, url: &str) -> Engine {
        let directory = self.directory.path().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        configured(
            &self.program,
            &directory,
            url,
            &["walbrook.*"],
            &self.broker,
        )
    }

    pub(crate) async fn run(&self, statements: &str) {
        let done = self.client.batch_execute(statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    pub(crate) async fn write(&self, seed_of: u64) {
        let transactions = Workload::new(500, seed_of);
        self.run(&format!("TRUNCATE {}", seed::TABLE)).await;
        seed::write(&self.client, transactions.transactions())
            .await
            .expect("the workload");
    }
}

/// Replaces a part of an engine's configuration.
pub(crate) fn configure(engine: &Engine, old: &str, new: &str) {
    let text = std::fs::read_to_string(engine.config()).expect("a configuration");
    assert!(text.contains(old), "{old} is not in {text}");
    std::fs::write(engine.config(), text.replace(old, new)).expect("a writable directory");
}

/// Runs the engine, which must end with exit status 1 and these words in its log.
pub(crate) async fn refused(engine: &Engine, words: &[&str]) {
    let log = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let before = log(&engine.log()).len();
    let mut running = engine.start().expect("the engine starts");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let status = running.ended(deadline).await.expect("a child");
    let said = log(&engine.log()).split_off(before);
    let code = status.map(|status| status.code());
    assert_eq!(code, Some(Some(1)), "expected {words:?}:\n{said}");
    for words in words {
        assert!(said.contains(words), "expected {words:?}:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_slots_of_others_are_refused() {
    let Some((stage, engine)) = Stage::streamed(&["-c", "wal_sender_timeout=12s"]).await else {
        return;
    };

    // Read by somebody else.
    let other = stage.engine("other");
    let mut reading = other.start_until_stopped().expect("the engine starts");
    until("the other to read", async || {
        let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'");
        let row = stage.client.query_one(&active, &[]).await.expect("a slot");
        row.get(0)
    })
    .await;
    // The other might be on a machine that is gone: the server would take its time to notice.
    let waits = format!("slot {NAME} is still being read from: waiting for 2 s more");
    refused(&engine, &[&waits, "somebody reads from it (server process"]).await;
    // And it has read what the first has not.
    stage.write(2).await;
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= pg_current_wal_insert_lsn() - 1000 FROM pg_replication_slots WHERE slot_name = '{NAME}'"
    );
    until("the other to have read", async || {
        let row = stage.client.query_one(&confirmed, &[]).await;
        row.expect("a slot").get(0)
    })
    .await;
    reading.kill().expect("a running engine");
    drop(reading);
    refused(
        &engine,
        &["beyond the position", "somebody else has read from it"],
    )
    .await;

    // Gone.
    let drop_slot = format!("SELECT pg_drop_replication_slot('{NAME}')");
    until("the slot to be free", async || {
        stage.client.batch_execute(&drop_slot).await.is_ok()
    })
    .await;
    let words = format!("slot {NAME} is gone, and with it the log between");
    refused(&engine, &[&words, "walbrook position reset"]).await;
    let fresh = stage.engine("fresh");
    refused(
        &fresh,
        &[
            "start = \"earliest\" begins where slot",
            "use start = \"now\"",
        ],
    )
    .await;

    // Another plugin's, a standby's, another database's.
    let make = format!("SELECT pg_create_logical_replication_slot('{NAME}', 'test_decoding')");
    stage.run(&make).await;
    let words = "it decodes with test_decoding, not pgoutput";
    refused(&fresh, &[words, "name another one by slot"]).await;
    stage.run(&drop_slot).await;
    let make = format!("SELECT pg_create_physical_replication_slot('{NAME}')");
    stage.run(&make).await;
    refused(&fresh, &["it is a physical slot"]).await;
    stage.run(&drop_slot).await;
    stage.run("CREATE DATABASE elsewhere").await;
    let elsewhere = stage.server.url().replace("/walbrook", "/elsewhere");
    let client = seed::connect(&elsewhere).await.expect("a connection");
    seed::make_slot(&client, NAME, "pgoutput", false)
        .await
        .expect("a slot");
    refused(&fresh, &["it belongs to database elsewhere"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_log_that_is_gone_is_named() {
    let Some((stage, engine)) = Stage::streamed(&[]).await else {
        return;
    };
    stage
        .run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        .await;
    stage.run("SELECT pg_reload_conf()").await;
    let lost =
        format!("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{NAME}'");
    until("the slot to be lost", async || {
        let written = "CREATE TABLE IF NOT EXISTS filler (n int)";
        stage.run(written).await;
        stage.run("INSERT INTO filler VALUES (1)").await;
        stage.run("SELECT pg_switch_wal()").await;
        stage.run("CHECKPOINT").await;
        let row = stage.client.query_one(&lost, &[]).await.expect("a slot");
        row.get(0)
    })
    .await;
    refused(
        &engine,
        &[
            "max_slot_wal_keep_size",
            "take a new snapshot of the captured tables",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_publication_that_was_dropped_is_named() {
    let Some((stage, engine)) = Stage::streamed(&[]).await else {
        return;
    };
    stage.run(&format!("DROP PUBLICATION {NAME}")).await;
    stage.write(2).await;
    // Our role may not make one: the statements are printed.
    refused(&engine, &[&format!("CREATE PUBLICATION {NAME}")]).await;
    // Made again: the server cannot decode what was written in between.
    stage
        .run(&format!(
            "CREATE PUBLICATION {NAME} FOR TABLE {}",
            seed::TABLE
        ))
        .await;
    refused(
        &engine,
        &["is gone, and the server cannot decode what was written while it was"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_roles_that_may_not_are_refused() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    prepare(&stage.server, false).await;
    let wrong = stage.server.cdc_url().replace("cdc:cdc", "cdc:wrong");
    let engine = stage.engine_at("wrong", &wrong);
    refused(
        &engine,
        &["password authentication failed for user \"cdc\""],
    )
    .await;
    let log = std::fs::read_to_string(engine.log()).expect("a log");
    assert!(!log.contains("wrong@"), "the password is in the log: {log}");
    stage.run("ALTER ROLE cdc NOREPLICATION").await;
    let words = [
        "must be superuser or replication role",
        "run ALTER ROLE … REPLICATION",
    ];
    refused(&stage.engine("role"), &words).await;
    // What is enough on Amazon RDS is not with any other server, which says so.
    stage
        .run("CREATE ROLE rds_replication; GRANT rds_replication TO cdc")
        .await;
    refused(&stage.engine("member"), &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_without_a_logical_log_is_refused() {
    let Some(stage) = Stage::set(&["-c", "wal_level=replica"]).await else {
        return;
    };
    refused(
        &stage.engine("level"),
        &["wal_level is logical: it is replica; run ALTER SYSTEM SET wal_level = 'logical'"],
    )
    .await;
}

/// Minor versions of 2025 and later load only the output plugins that a setting names.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_plugins_that_are_not_allowed_are_refused() {
    let options = ["-c", "output_plugin_libraries=pgoutput"];
    let Some(stage) = Stage::of(Flavour::Postgres17, &options).await else {
        return;
    };
    prepare(&stage.server, false).await;
    let engine = stage.engine("plugin");
    run_to_end(&engine).await;
    let drop_slot = format!("SELECT pg_drop_replication_slot('{NAME}')");
    until("the slot to be free", async || {
        stage.client.batch_execute(&drop_slot).await.is_ok()
    })
    .await;
    let engine = stage.engine("other");
    set_plugin(&engine, "wal2json");
    configure(&engine, "start = \"earliest\"", "start = \"now\"");
    // Our role may not see the setting: the server's refusal names it. Who may see it is told before.
    refused(
        &engine,
        &[
            "\"wal2json\" may not be used as an output plugin",
            "run ALTER SYSTEM SET output_plugin_libraries",
        ],
    )
    .await;
    stage.run("GRANT pg_read_all_settings TO cdc").await;
    refused(
        &engine,
        &["ALTER SYSTEM SET output_plugin_libraries = 'pgoutput, wal2json'"],
    )
    .await;
}
