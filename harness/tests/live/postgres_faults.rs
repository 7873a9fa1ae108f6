//! A server that goes away in the middle of a large transaction and comes back: nothing lost, nothing twice, order kept. And one that is
//! idle where it concerns us: its log is let go all the same.

use harness::broker::Broker;
use harness::replay::engine::{Engine, Running};
use harness::seed::postgres::{self as seed, Identity};
use harness::servers::{Flavour, Server};
use harness::truth::{Images, Truth};
use harness::workload::{Transaction, Workload};
use nix::sys::signal::Signal;

use crate::{configured, ready, stop, until, verified};

/// Enough that the server is in the midst of sending it when it is seen.
const CHANGES: u64 = 60_000;
/// Slot and publication of a source `live`.
pub(crate) const NAME: &str = "walbrook_live";

/// A workload as a single transaction.
pub(crate) fn in_one(workload: &Workload) -> Transaction {
    Transaction {
        runs: (workload.transactions())
            .flat_map(|transaction| transaction.runs)
            .collect(),
    }
}

/// Table, publication and slot of the workload.
pub(crate) async fn prepare(server: &Server, two_phase: bool) {
    let client = server.connect_postgres().await.expect("a connection");
    seed::prepare(&client, Identity::Default)
        .await
        .expect("a table");
    seed::publish(&client, NAME, Some(seed::TABLE))
        .await
        .expect("a publication");
    seed::make_slot(&client, NAME, "pgoutput", two_phase)
        .await
        .expect("a slot");
}

/// Waits until all records of `truth` are there, ends the engine, and compares.
pub(crate) async fn complete(engine: &Engine, mut running: Running, broker: &Broker, truth: Truth) {
    let records = truth.changes + truth.deletes;
    until("all records", async || {
        let ended = running.ended(std::time::Instant::now()).await;
        let ended = ended.expect("a child");
        assert!(ended.is_none(), "{ended:?}:\n{}", engine.last_words());
        broker.counts().records >= records
    })
    .await;
    stop(engine, running).await;
    verified(broker, truth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_shuts_down_fast_inside_a_transaction() {
    goes_away(Some(Signal::SIGINT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_shuts_down_at_once_inside_a_transaction() {
    goes_away(Some(Signal::SIGQUIT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_ends_its_sender_inside_a_transaction() {
    goes_away(None).await;
}

/// With `signal` the server ends and starts again, without it ends the process that sends.
async fn goes_away(signal: Option<Signal>) {
    let Some((program, mut server)) = ready(Flavour::Postgres).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    prepare(&server, false).await;
    let workload = Workload::new(CHANGES, 42);
    let client = server.connect_postgres().await.expect("a connection");
    seed::write(&client, std::iter::once(in_one(&workload)))
        .await
        .expect("the workload");
    let running = engine.start_until_stopped().expect("the engine starts");
    until("the first records", async || broker.counts().records > 1000).await;
    match signal {
        Some(signal) => {
            drop(client);
            server.stop(signal).expect("the server ends");
            server.start_again().await.expect("the server starts");
        }
        None => {
            let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots";
            client.batch_execute(end).await.expect("it ends");
        }
    }
    complete(
        &engine,
        running,
        &broker,
        Truth::with(&workload, Images::Key),
    )
    .await;
}

/// Nothing that is captured changes, but something else does: the server may forget its log.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_may_forget_what_does_not_concern_us() {
    let Some((program, server)) = ready(Flavour::Postgres).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    prepare(&server, false).await;
    let running = engine.start_until_stopped().expect("the engine starts");
    let client = server.connect_postgres().await.expect("a connection");
    for _ in 0..2 {
        client
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS other (n int); INSERT INTO other SELECT generate_series(1, 1000)",
            )
            .await
            .expect("other changes");
        let row = client
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
            .await
            .expect("a place");
        let end: String = row.get(0);
        until("the slot to follow the log", async || {
            let reached = format!(
                "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{NAME}'"
            );
            let row = client.query_one(&reached, &[]).await.expect("a slot");
            row.get(0)
        })
        .await;
    }
    assert_eq!(broker.counts().records, 0);
    stop(&engine, running).await;
}

/// A table that is made while the engine runs is published by it where it may, and otherwise named; one whose updates would fail for
/// it is named, too, and left alone.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_publication_follows_the_tables() {
    let Some((program, server)) = ready(Flavour::Postgres).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    // The administrator owns the publication and every table.
    let url = server.url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    let engine = Engine {
        program: crate::often(&engine),
        ..engine
    };
    prepare(&server, false).await;
    let client = server.connect_postgres().await.expect("a connection");
    let running = engine.start_until_stopped().expect("the engine starts");
    let new = "CREATE TABLE walbrook.later (id int PRIMARY KEY); CREATE TABLE outside (id int PRIMARY KEY); \
               CREATE TABLE walbrook.work (a int); INSERT INTO walbrook.work VALUES (1)";
    client.batch_execute(new).await.expect("tables");
    let published = format!(
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = '{NAME}'"
    );
    until("the new table to be published", async || {
        let row = client.query_one(&published, &[]).await.expect("tables");
        row.get::<_, String>(0) == "events later"
    })
    .await;
    let insert = "INSERT INTO walbrook.later VALUES (1); INSERT INTO outside VALUES (1)";
    client.batch_execute(insert).await.expect("a row");
    until("its record", async || broker.counts().records == 1).await;
    let words = format!(
        "run ALTER TABLE walbrook.work REPLICA IDENTITY FULL; then ALTER PUBLICATION {NAME} ADD TABLE ONLY walbrook.work"
    );
    let said = || std::fs::read_to_string(engine.log()).expect("a log");
    until("the table to be named", async || said().contains(&words)).await;
    let update = "UPDATE walbrook.work SET a = 2; DELETE FROM walbrook.work";
    client.batch_execute(update).await.expect("changed rows");
    stop(&engine, running).await;
    assert_eq!(said().matches(&words).count(), 1, "{}", said());
    // What it had before it was published would be missed without a word.
    let words = format!(
        "ALTER PUBLICATION {NAME} ADD TABLE ONLY walbrook.later: what was written there before is not captured"
    );
    assert_eq!(said().matches(&words).count(), 1, "{}", said());
    // Where such a table is a reason to stop, it is one at the start.
    let remove = "DROP TABLE walbrook.work";
    client.batch_execute(remove).await.expect("no table");

    // As somebody who may not: named, and where that is asked for a reason to stop.
    let url = server.cdc_url();
    let cdc = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    let text = std::fs::read_to_string(cdc.config()).expect("a configuration");
    let text = text.replace("[kafka]\n", "on_unpublished = \"halt\"\n[kafka]\n");
    std::fs::write(cdc.config(), text).expect("a writable directory");
    let mut running = engine.start_until_stopped().expect("the engine starts");
    until("the engine to read", async || {
        let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'");
        client.query_one(&active, &[]).await.expect("a slot").get(0)
    })
    .await;
    let new = "CREATE TABLE walbrook.latest (id int PRIMARY KEY)";
    client.batch_execute(new).await.expect("a table");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let status = running.ended(deadline).await.expect("a child");
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    let log = std::fs::read_to_string(engine.log()).expect("a log");
    let words = format!("ALTER PUBLICATION {NAME} ADD TABLE ONLY walbrook.latest");
    assert!(log.contains(&words), "{}", engine.last_words());
}
