//! Against real servers that `harness servers` installs: every type against what a SELECT says, the workload verified, a restart in
//! the middle.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory) and the servers. With `CI=true` a missing one is a
//! failure; elsewhere the test is skipped, and says so loudly.

mod column_types;
mod compression;
mod failover;
mod golden;
mod io;
mod large_rows;
mod load;
mod mysql_authentication;
mod mysql_checksums;
mod postgres;
mod postgres_authentication;
mod postgres_commands;
mod postgres_encodings;
mod postgres_faults;
mod postgres_identities;
mod postgres_left_out;
mod postgres_losses;
mod postgres_pieces;
mod postgres_promotion;
mod postgres_refusals;
mod postgres_select;
mod postgres_tap;
mod postgres_unpublished;
mod postgres_waits;
mod records;
mod refusals;
mod select;
mod session;
mod shapes;
mod truncates;
mod unlogged;
mod workload;
mod xa;

use std::path::{Path, PathBuf};

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::replay::program_for_test;
use harness::servers::{Flavour, Server};
use harness::truth::Truth;
use harness::verify;
use kafka_protocol::messages::ApiKey;

/// The engine and a server, or `None` after saying why not.
async fn ready(flavour: Flavour) -> Option<(PathBuf, Server)> {
    ready_with(flavour, &[]).await
}

/// The same with options of the server.
async fn ready_with(flavour: Flavour, options: &[&str]) -> Option<(PathBuf, Server)> {
    let program = engine();
    let server = match &program {
        Ok(_) => Server::start(flavour, options)
            .await
            .map_err(|error| error.to_string()),
        Err(reason) => Err(reason.clone()),
    };
    match (program, server) {
        (Ok(program), Ok(server)) => Some((program, server)),
        (_, Err(reason)) | (Err(reason), _) => {
            assert!(!harness::is_ci(), "required in CI: {reason}");
            eprintln!(
                "\n*** SKIPPED: no live test with {}: {reason}\n",
                flavour.title()
            );
            None
        }
    }
}

fn engine() -> Result<PathBuf, String> {
    program_for_test()
}

/// An engine in `directory` that streams `tables` of the server at `url` into `broker`, from the oldest binlog on.
fn configured(
    program: &Path,
    directory: &Path,
    url: &str,
    tables: &[&str],
    broker: &Broker,
) -> Engine {
    let engine = Engine {
        program: program.to_owned(),
        directory: directory.to_owned(),
        host: None,
    };
    let brokers: Vec<String> = broker.bootstrap().split(',').map(str::to_owned).collect();
    let configuration = format!(
        "[source.live]\nurl = {url:?}\ntables = {tables:?}\nstart = \"earliest\"\nserver_id = 4711\n[kafka]\nbrokers = {brokers:?}\n\
         [kafka.topics]\npartitions = 3\nreplication = 1\n"
    );
    std::fs::write(engine.config(), configuration).expect("a writable directory");
    engine
}

/// A program that runs the engine with its publication looked at several times a second.
fn often(engine: &Engine) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let script = engine.directory.join("often");
    let text = format!(
        "#!/bin/sh\nWALBROOK_TEST_PUBLICATION_CHECK_MS=200 exec '{}' \"$@\"\n",
        engine.program.display()
    );
    std::fs::write(&script, text).expect("a writable directory");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, executable).expect("a writable directory");
    script
}

/// Waits until `holds`; `what` says for what. Whoever waits for ever hangs, and the test says where.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(180);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "waiting for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Exit status and lines of `walbrook check`.
async fn check(engine: &Engine) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(&engine.program);
    command.args(["check", "-c"]).arg(engine.config());
    command.current_dir(&engine.directory);
    // The broker that it asks runs here.
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("walbrook runs");
    let said = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), said)
}

/// Has a running engine stop, and expects that it ends as it should.
async fn stop(engine: &Engine, mut running: harness::replay::engine::Running) {
    running.terminate().expect("a running engine");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let status = running.ended(deadline).await.expect("a child");
    let status = status.unwrap_or_else(|| panic!("the engine hangs:\n{}", engine.last_words()));
    assert!(
        status.success(),
        "the engine ended with {status}:\n{}",
        engine.last_words()
    );
}

/// Kills a running engine when Kafka has records of which it never heard: what it wrote is beyond its checkpoint. `write` is what there is
/// to be read.
async fn killed_unheard(
    running: &mut harness::replay::engine::Running,
    broker: &Broker,
    write: impl Future<Output = ()>,
) {
    let never = std::time::Duration::from_secs(3600);
    broker.faults().delay(Some(ApiKey::Produce), never);
    let before = broker.counts().records;
    write.await;
    until("records beyond the checkpoint", async || {
        broker.counts().records > before
    })
    .await;
    running.kill().expect("a running engine");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    running.ended(deadline).await.expect("a child");
    broker.faults().clear();
}

/// Runs the engine until it has what the server held at start.
async fn run_to_end(engine: &Engine) {
    let mut running = engine.start().expect("the engine starts");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let status = running.ended(deadline).await.expect("a child");
    let status = status.unwrap_or_else(|| panic!("the engine hangs:\n{}", engine.last_words()));
    assert!(
        status.success(),
        "the engine ended with {status}:\n{}",
        engine.last_words()
    );
}

/// Runs the engine until it halts, and answers what it said in this run.
async fn run_to_halt(engine: &Engine) -> String {
    let before = std::fs::read_to_string(engine.log()).map_or(0, |log| log.len());
    let mut running = engine.start().expect("the engine starts");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let status = running.ended(deadline).await.expect("a child");
    let said = std::fs::read_to_string(engine.log()).expect("a log");
    let said = said.get(before..).unwrap_or_default().to_owned();
    let status = status.unwrap_or_else(|| panic!("the engine hangs:\n{said}"));
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

/// Compares the workload's topic with what must be in it: every change once and in order.
async fn verified(broker: &Broker, truth: Truth) {
    let changes = truth.changes;
    let settings = verify::Settings {
        brokers: broker.bootstrap(),
        truth,
        topic: Some("live.walbrook.events".to_owned()),
        client: verify::Client::Rskafka,
        allow_repeated: false,
    };
    let findings = verify::verify(&settings).await.expect("a readable topic");
    assert!(findings.failures.is_empty(), "{:#?}", findings.failures);
    assert_eq!((findings.changes, findings.repeated), (changes, 0));
}

/// `walbrook position …` of the only source.
fn position(engine: &Engine, arguments: &[&str]) -> String {
    let (verb, rest) = arguments.split_first().expect("a verb");
    let output = std::process::Command::new(&engine.program)
        .args(["position", verb, "-c"])
        .arg(engine.config())
        .arg("live")
        .args(rest)
        .current_dir(&engine.directory)
        .output()
        .expect("walbrook runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}
