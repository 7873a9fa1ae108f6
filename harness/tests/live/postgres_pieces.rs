//! Transactions that the server sends before their ends: several at once, with parts that are rolled back, some of them prepared, while the
//! engine is killed and the server goes away.

use std::path::Path;

use harness::broker::Broker;
use harness::replay;
use harness::replay::scenario::Scenario;
use harness::seed::interleaved::{self, Interleaving};
use harness::seed::postgres::Identity;
use harness::servers::Flavour;
use nix::sys::signal::Signal;

use crate::postgres_faults::{NAME, complete, prepare};
use crate::{configured, ready, until};

const PLAN: Interleaving = Interleaving {
    changes: 24_000,
    seed: 7,
    sessions: 4,
    two_phase: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_sends_open_and_prepared_transactions() {
    killed(true).await;
}

/// The same from a recording, with the line cut as well: no server is needed.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_pieces_of_a_recording_survive_cuts_and_kills() {
    let program = crate::engine().expect("the engine is built");
    let scenario = Scenario::read(Path::new("postgres-streamed")).expect("a scenario");
    let outcome = replay::replay(&scenario, &program, 1, false).await;
    let (_, outcome) = outcome.expect("a replay");
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
}

/// A slot with `two_phase` sends what is prepared, though nobody asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_sends_prepared_transactions() {
    killed(false).await;
}

async fn killed(streaming: bool) {
    let Some((program, mut server)) = ready(Flavour::Postgres).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    if streaming {
        let text = std::fs::read_to_string(engine.config()).expect("a configuration");
        let text = text.replace("[kafka]\n", "streaming = \"on\"\n[kafka]\n");
        std::fs::write(engine.config(), text).expect("a writable directory");
    }
    prepare(&server, true).await;
    let client = server.connect_postgres().await.expect("a connection");
    for setting in [
        "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'",
        "SELECT pg_reload_conf()",
    ] {
        client.batch_execute(setting).await.expect("a setting");
    }
    let mut running = engine.start_until_stopped().expect("the engine starts");
    let url = server.url();
    let writing =
        tokio::spawn(async move { interleaved::seed(&url, PLAN, Identity::Default).await });
    // In the midst of it, again and again; the last kill may come after the end.
    let streamed =
        format!("SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = '{NAME}'");
    for kill in 1..=4 {
        until("records of another part", async || {
            broker.counts().records >= kill * 5000
        })
        .await;
        running.kill().expect("a running engine");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        assert!(running.ended(deadline).await.expect("a child").is_some());
        running = engine.start_until_stopped().expect("the engine starts");
    }
    let truth = writing.await.expect("a task").expect("the workload");
    let row = client.query_one(&streamed, &[]).await.expect("statistics");
    assert_eq!(row.get::<_, bool>(0), streaming, "what was streamed");
    // A server that is away when the engine starts ends it.
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'");
    until("the engine to read", async || {
        client.query_one(&active, &[]).await.expect("a slot").get(0)
    })
    .await;
    drop(client);
    server.stop(Signal::SIGQUIT).expect("the server ends");
    server.start_again().await.expect("the server starts");
    complete(&engine, running, &broker, truth).await;
    let held = directory.path().join("walbrook-state/live.held");
    assert!(!held.exists(), "what was kept is left behind");
}
