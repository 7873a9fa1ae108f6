//! An engine that is told to end while Kafka acknowledges nothing: it waits for a while, and a second signal ends it at once.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory); with `CI=true` a missing one is a failure.

use std::time::{Duration, Instant};

use fixtures::Recording;
use harness::broker::Broker;
use harness::replay::engine::{Engine, Running};
use harness::replay::program_for_test_of;
use harness::serve::{ServeOptions, Server};
use kafka_protocol::messages::ApiKey;

/// Nothing here takes longer; who hangs is found out.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// Waits until `holds` while the engine runs.
async fn until(engine: &Engine, running: &mut Running, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        let look = Instant::now() + Duration::from_millis(5);
        let ended = running.ended(look).await.expect("a child");
        assert_eq!(ended, None, "{}", engine.last_words());
        assert!(Instant::now() < deadline, "{}", engine.last_words());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let Some(program) = program_for_test_of("the end by a second signal") else {
        return;
    };
    let recording = Recording::named("mysql-9.7-20k").expect("a recording");
    let server = Server::start(&recording, "127.0.0.1:0", ServeOptions::default()).await;
    let server = server.expect("a replay server");
    let broker = Broker::loopback().await.expect("a broker");
    broker.faults().delay(Some(ApiKey::Produce), NEVER);
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine {
        program,
        directory: directory.path().to_owned(),
        host: None,
    };
    let configuration = format!(
        "[source.live]\nurl = \"mysql://cdc:cdc@{}\"\ntables = [\"*.*\"]\nstart = \"earliest\"\n[kafka]\nbrokers = [{:?}]\n",
        server.address(),
        broker.bootstrap()
    );
    std::fs::write(engine.config(), configuration).expect("a writable directory");
    let log = || std::fs::read_to_string(engine.log()).unwrap_or_default();
    let mut running = engine.start_until_stopped().expect("the engine starts");
    // They are written, and it never hears of it.
    until(&engine, &mut running, || broker.counts().records > 0).await;
    running.terminate().expect("it runs");
    let stopping = "stopping: waiting for acknowledgements";
    until(&engine, &mut running, || log().contains(stopping)).await;
    running.terminate().expect("it runs");
    let ended = running.ended(Instant::now() + PATIENCE).await;
    let ended = ended.expect("a child").expect("an end");
    assert_eq!(ended.code(), Some(143), "{}", log());
    let words = "received SIGTERM while stopping: ending at once";
    assert!(log().contains(words), "{}", log());
}
