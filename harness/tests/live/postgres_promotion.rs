//! A standby that is promoted in the middle of a transaction, behind an address that leads to whoever is the primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::seed::postgres::{self as seed, Identity};
use harness::servers::{Flavour, Server};
use harness::truth::{Images, Truth};
use harness::workload::{Transaction, Workload};
use nix::sys::signal::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

use crate::postgres_faults::{NAME, complete, prepare};
use crate::{configured, killed_unheard, often, ready, until};

const CHANGES: u64 = 60_000;

/// An address that leads to a port that may change; connections stay where they are.
struct Address {
    port: u16,
    target: Arc<AtomicU16>,
}

impl Address {
    async fn of(server: &Server) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let target = Arc::new(AtomicU16::new(server.port()));
        let to = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let port = to.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Address { port, target }
    }

    fn url(&self, server: &Server) -> String {
        let (own, here) = (server.port().to_string(), self.port.to_string());
        server.cdc_url().replace(&own, &here)
    }
}

async fn truth_of(client: &Client, query: &str) -> bool {
    let row = client.query_opt(query, &[]).await.expect("an answer");
    row.and_then(|row| row.get(0)).unwrap_or(false)
}

/// A transaction with half of the workload, and the rest of it.
fn halves(workload: &Workload) -> (Transaction, Vec<Transaction>) {
    let mut all: Vec<_> = workload.transactions().collect();
    let rest = all.split_off(all.len() / 2);
    let runs = all.into_iter().flat_map(|transaction| transaction.runs);
    let first = Transaction {
        runs: runs.collect(),
    };
    (first, rest)
}

/// Waits until the standby has replayed what the primary has, then takes the primary away and promotes.
async fn promote(primary: &mut Server, standby: &Server, address: &Address) -> Client {
    let client = primary.connect_postgres().await.expect("a connection");
    let row = client
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .await
        .expect("a place");
    let end: String = row.get(0);
    let other = standby.connect_postgres().await.expect("a connection");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
    until("the standby to follow", async || {
        truth_of(&other, &replayed).await
    })
    .await;
    drop(client);
    primary.stop(Signal::SIGQUIT).expect("the primary ends");
    assert!(truth_of(&other, "SELECT pg_promote()").await);
    address.target.store(standby.port(), Ordering::SeqCst);
    other
}

/// Before version 17 no standby has the primary's slots.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_standby_without_the_slot_is_named() {
    let Some((program, mut primary)) = ready(Flavour::Postgres).await else {
        return;
    };
    let standby = primary.standby("standby", &[]).await.expect("a standby");
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let address = Address::of(&primary).await;
    let url = address.url(&primary);
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    prepare(&primary, false).await;
    let client = primary.connect_postgres().await.expect("a connection");
    let mut running = engine.start_until_stopped().expect("the engine starts");
    let (first, _) = halves(&Workload::new(CHANGES, 42));
    seed::write(&client, std::iter::once(first))
        .await
        .expect("the workload");
    until("the first records", async || broker.counts().records > 1000).await;
    drop(client);
    promote(&mut primary, &standby, &address).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let status = running.ended(deadline).await.expect("a child");
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(1),
        "{}",
        engine.last_words()
    );
    let log = std::fs::read_to_string(engine.log()).expect("a log");
    let words = format!("slot {NAME} is gone, and with it the log between");
    assert!(log.contains(&words), "{}", engine.last_words());
}

/// From version 17 on the standby has it, and everything goes on there; also after a kill, which leaves records behind the checkpoint that
/// the same producer wrote as those from before the promotion.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_17_goes_on_at_the_promoted_standby() {
    let Some((program, mut primary)) = ready(Flavour::Postgres17).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let address = Address::of(&primary).await;
    let client = primary.connect_postgres().await.expect("a connection");
    seed::prepare(&client, Identity::Default)
        .await
        .expect("a table");
    seed::publish(&client, NAME, Some(seed::TABLE))
        .await
        .expect("a publication");
    let options = [
        "-c",
        "hot_standby_feedback=on",
        "-c",
        "sync_replication_slots=on",
    ];
    let standby = primary
        .standby("standby", &options)
        .await
        .expect("a standby");
    for setting in [
        "ALTER SYSTEM SET synchronized_standby_slots = 'standby'",
        "SELECT pg_reload_conf()",
    ] {
        client.batch_execute(setting).await.expect("a setting");
    }
    let url = address.url(&primary);
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    start_now(&engine);
    let mut running = engine.start_until_stopped().expect("the engine starts");
    let failover = format!("SELECT failover FROM pg_replication_slots WHERE slot_name = '{NAME}'");
    until("the slot", async || truth_of(&client, &failover).await).await;
    let other = standby.connect_postgres().await.expect("a connection");
    let synced = format!(
        "SELECT synced AND NOT temporary AND invalidation_reason IS NULL FROM pg_replication_slots WHERE slot_name = '{NAME}'"
    );
    until("the standby to have the slot", async || {
        // A standby cannot take the slot over before there is a snapshot behind it.
        let snapshot = "SELECT pg_log_standby_snapshot()";
        client.batch_execute(snapshot).await.expect("a snapshot");
        truth_of(&other, &synced).await
    })
    .await;
    let workload = Workload::new(CHANGES, 42);
    let (first, rest) = halves(&workload);
    seed::write(&client, std::iter::once(first))
        .await
        .expect("the first half");
    until("the first records", async || broker.counts().records > 1000).await;
    drop(client);
    let client = promote(&mut primary, &standby, &address).await;
    until("a position on the new timeline", async || {
        let state = engine.directory.join("walbrook-state/live.checkpoint");
        let text = std::fs::read_to_string(state).expect("a checkpoint");
        text.contains(r#""server":"postgres:"#) && text.contains(r#":2","selection""#)
    })
    .await;
    let mut rest = rest.into_iter();
    let more = rest.by_ref().take(20);
    killed_unheard(&mut running, &broker, async {
        (seed::write(&client, more).await).expect("more");
    })
    .await;
    let running = engine.start_until_stopped().expect("the engine starts");
    seed::write(&client, rest).await.expect("the rest");
    complete(
        &engine,
        running,
        &broker,
        Truth::with(&workload, Images::Key),
    )
    .await;
    let log = std::fs::read_to_string(engine.log()).expect("a log");
    assert!(log.contains("going on after a promotion"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_17_goes_on_after_the_promotion_of_its_standby() {
    through_a_promotion(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_17_comes_back_after_the_promotion_of_its_standby() {
    through_a_promotion(true).await;
}

/// The engine reads from a standby, which is promoted under the stream, and writes on; then the engine is killed and started again, or its
/// connection is cut.
async fn through_a_promotion(is_cut: bool) {
    let Some((program, mut primary)) = ready(Flavour::Postgres17).await else {
        return;
    };
    let client = primary.connect_postgres().await.expect("a connection");
    seed::prepare(&client, Identity::Default)
        .await
        .expect("a table");
    seed::publish(&client, NAME, Some(seed::TABLE))
        .await
        .expect("a publication");
    let extra = "CREATE TABLE walbrook.extra (id int PRIMARY KEY)";
    client.batch_execute(extra).await.expect("a table");
    let standby = primary
        .standby("standby", &["-c", "hot_standby_feedback=on"])
        .await
        .expect("a standby");
    let address = Address::of(&standby).await;
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    // Who may alter the publication, where it can be altered.
    let url = standby.url();
    let mut engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    start_now(&engine);
    engine.program = often(&engine);
    let mut running = engine.start_until_stopped().expect("the engine starts");
    let other = standby.connect_postgres().await.expect("a connection");
    let reads = format!(
        "SELECT active AND confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = '{NAME}'"
    );
    until("the slot", async || {
        let ended = running.ended(std::time::Instant::now()).await;
        assert!(ended.expect("a child").is_none(), "{}", engine.last_words());
        // A standby cannot make one before there is a snapshot.
        let snapshot = "SELECT pg_log_standby_snapshot()";
        client.batch_execute(snapshot).await.expect("a snapshot");
        truth_of(&other, &reads).await
    })
    .await;
    let said = || std::fs::read_to_string(engine.log()).expect("a log");
    let statement = format!(
        "run ALTER PUBLICATION {NAME} ADD TABLE ONLY walbrook.extra on the primary, as their owner"
    );
    until("the missing table to be named", async || {
        // At the start, and by the look at the publication.
        said().matches(&statement).count() >= 2
    })
    .await;

    let workload = Workload::new(CHANGES, 42);
    let (first, mut rest) = halves(&workload);
    let last = rest.split_off(rest.len() / 2);
    seed::write(&client, std::iter::once(first))
        .await
        .expect("the first half");
    until("the first records", async || broker.counts().records > 1000).await;
    drop(client);
    let client = promote(&mut primary, &standby, &address).await;
    seed::write(&client, rest.into_iter())
        .await
        .expect("what the promoted one writes");
    let row = client
        .query_one("SELECT pg_current_wal_insert_lsn()::text", &[])
        .await
        .expect("a place");
    let end: String = row.get(0);
    let read = format!(
        "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{NAME}'"
    );
    until("it to be read", async || truth_of(&client, &read).await).await;
    if is_cut {
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots";
        client.batch_execute(end).await.expect("it ends");
    } else {
        running.kill().expect("a running engine");
        drop(running);
        running = engine.start_until_stopped().expect("the engine starts");
    }
    seed::write(&client, last.into_iter())
        .await
        .expect("the rest");
    complete(
        &engine,
        running,
        &broker,
        Truth::with(&workload, Images::Key),
    )
    .await;
    let words = "going on after a promotion that the stream went through";
    assert_eq!(said().matches(words).count(), 1, "{}", said());
}

/// Has the engine make its slot itself.
fn start_now(engine: &Engine) {
    let text = std::fs::read_to_string(engine.config()).expect("a configuration");
    let text = text.replace("start = \"earliest\"", "start = \"now\"");
    std::fs::write(engine.config(), text).expect("a writable directory");
}
