//! Committed scenarios that take minutes, in variants that take seconds: one transaction larger than memory should hold, the other producer,
//! and real brokers that go away. Everything is verified; times are reported, not asserted.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory); Kafka and a real server where a scenario has them. With `CI=true`
//! a missing one is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::replay::scenario::Scenario;
use harness::replay::{Outcome, program_for_test_of, replay};
use harness::servers::kafka::Programs;
use harness::servers::{Flavour, install};

fn engine() -> Option<PathBuf> {
    program_for_test_of("scenarios")
}

/// Says that what `name` tests cannot be tested here.
fn skipped(name: &str, why: &dyn std::fmt::Display) {
    assert!(!harness::is_ci(), "required in CI: {why}");
    eprintln!("\n*** SKIPPED: {name}: {why}\n");
}

/// The committed scenario `name` with each of these texts in it replaced, as a file in `directory`.
fn small(directory: &Path, name: &str, replaced: &[(&str, &str)]) -> PathBuf {
    let committed = fixtures::directory().join(format!("scenarios/{name}.toml"));
    let mut text = std::fs::read_to_string(committed).expect("a scenario");
    for (large, small) in replaced {
        assert!(text.contains(large), "{large}: {text}");
        text = text.replace(large, small);
    }
    let path = directory.join(format!("{name}.toml"));
    std::fs::write(&path, text).expect("a writable directory");
    path
}

async fn verified(scenario: &Scenario, program: &Path) -> Outcome {
    let name = &scenario.name;
    let run = replay(scenario, program, 1, false).await;
    let (report, outcome) = run.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(
        report.holds(),
        "{name}: {:#?} {:#?}",
        report.failures,
        report.unmet
    );
    let figures = &report.figures;
    eprintln!(
        "{name}: {:.2} s, {:.1} MiB",
        figures.seconds,
        figures.rss_mib()
    );
    outcome
}

/// With little memory, so that a transaction of seconds is many times what may be held of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_many_rows() {
    const MEMORY_MAX: u64 = 4 << 20;
    let Some(program) = engine() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    for (name, recording) in [
        ("10m-transaction", "\"mysql-9.7-1m\""),
        ("postgres-10m-transaction", "\"postgres-15-1m\""),
    ] {
        let short = recording.replace("1m", "20k");
        let replaced = [
            (recording, &*short),
            ("10_000_000", "600_000"),
            ("rss_mib_max = 32", "rss_mib_max = 24"),
        ];
        let path = small(directory.path(), name, &replaced);
        let mut scenario = Scenario::read(&path).expect("a scenario");
        for setting in ["engine.memory_max=4MiB", "kafka.batch_max=512KiB"] {
            scenario.set(setting).expect("a setting");
        }
        let outcome = verified(&scenario, &program).await;
        let figures = &outcome.figures;
        let (came, held) = (figures.bytes_in, figures.rss_max_bytes);
        assert!(came > 2 * MEMORY_MAX, "{name}: {came} bytes");
        // The whole process is smaller than the transaction; a debug build's size says little.
        let is_small = came > held || !outcome.is_of_release_build();
        assert!(is_small, "{name}: {held} bytes held of {came}");
    }
}

/// Committed scenarios that take seconds as they are, and that no other test runs.
#[tokio::test(flavor = "multi_thread")]
async fn short_ones_as_they_are() {
    let Some(program) = engine() else { return };
    for name in [
        "mysql-5.6-20k",
        "mysql-zlib-20k",
        "mariadb-kill-20k",
        "postgres-full-50k",
        "postgres-wal2json-100k",
    ] {
        let scenario = Scenario::read(name.as_ref()).expect("a scenario");
        verified(&scenario, &program).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rskafka_is_the_producer() {
    let Some(program) = engine() else { return };
    for name in ["mysql-20k", "postgres-20k"] {
        let mut scenario = Scenario::read(name.as_ref()).expect("a scenario");
        scenario.set("kafka.producer=rskafka").expect("a setting");
        verified(&scenario, &program).await;
    }
}

/// Into brokers that `WALBROOK_KAFKA` names, or one that is started for it.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_into_a_real_broker() {
    let Some(program) = engine() else { return };
    if let Err(error) = tokio::task::block_in_place(Programs::install) {
        return skipped("postgres-kafka-1m", &error);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let replaced = [
        ("postgres-15-1m", "postgres-15-20k"),
        ("rows = 1_000_000", "rows = 20_000"),
        ("warm_up_records = 12_000_000", "warm_up_records = 0"),
    ];
    let path = small(directory.path(), "postgres-kafka-1m", &replaced);
    verified(&Scenario::read(&path).expect("a scenario"), &program).await;
}

/// A live server into three brokers, one of which is killed and comes back, whose leaders move, and a killed engine. As a process, because
/// this one's environment may name brokers for other tests.
#[test]
fn a_real_broker_is_killed_and_comes_back() {
    const NAME: &str = "mysql-kafka-restart";
    let Some(program) = engine() else { return };
    let needed = [
        Programs::install().map(drop),
        install(Flavour::Mysql).map(drop),
    ];
    if let Some(error) = needed.into_iter().find_map(Result::err) {
        return skipped(NAME, &error);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let replaced = [
        ("1_000_000", "200_000"),
        ("at_changes = 200_000", "at_changes = 40_000"),
        ("at_changes = 450_000", "at_changes = 90_000"),
        ("at_changes = 700_000", "at_changes = 140_000"),
        ("warm_up_records = 100_000", "warm_up_records = 0"),
        ("for_ms = 3_000", "for_ms = 1_000"),
    ];
    let path = small(directory.path(), NAME, &replaced);
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["replay", "--no-timing", "--walbrook"])
        .arg(&program)
        .arg(&path)
        .env_remove("WALBROOK_KAFKA")
        .output()
        .expect("the harness runs");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("3 faults: verified"), "{said}");
}
