//! Scenarios over emulated links: the engine as a process in a namespace, everything verified. Times are reported, not asserted.
//!
//! Needs root, iproute2 and `/dev/net/tun`, and the built engine (`WALBROOK`, or beside this test's own directory). Without privileges
//! these tests say so and pass, except with `CI=true`.

use std::path::PathBuf;
use std::process::Command;

use harness::links::Links;
use harness::replay::scenario::Scenario;
use harness::replay::{program_for_test, replay};
use harness::servers::kafka::Programs;

fn engine() -> PathBuf {
    program_for_test().unwrap_or_else(|error| panic!("{error}"))
}

/// One scenario at a time: each takes the whole machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Says that what `name` tests cannot be tested here.
fn skipped(name: &str, why: &dyn std::fmt::Display) {
    assert!(!harness::is_ci(), "required in CI: {why}");
    eprintln!("SKIPPED {name}: {why}");
}

async fn verified(name: &str) {
    let _alone = ALONE.lock().await;
    let scenario = Scenario::read(name.as_ref()).unwrap();
    if let Err(error) = Links::open(&scenario, None) {
        skipped(name, &error);
        return;
    }
    let (report, _) = replay(&scenario, &engine(), 1, false).await.unwrap();
    let figures = &report.figures;
    println!(
        "{name}: {} changes in {:.2} s",
        figures.changes, figures.seconds
    );
    for line in figures.links.iter().flat_map(|links| links.lines()) {
        println!("  {line}");
    }
    assert!(report.verified, "{name}: {:#?}", report.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_behind_links_at_once_from_two_databases() {
    verified("list-sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_lost() {
    verified("lossy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_cut_again_and_again() {
    verified("flapping").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_fall_silent() {
    verified("stall").await;
}

/// As `list-sync-kafka`, with fewer rows, cold brokers and links that fail. As a process, because this one's environment may name brokers
/// for other tests.
#[tokio::test(flavor = "multi_thread")]
async fn real_brokers_are_behind_links_of_their_own() {
    const NAME: &str = "list-sync-kafka";
    let _alone = ALONE.lock().await;
    let committed = fixtures::directory().join(format!("scenarios/{NAME}.toml"));
    if let Err(error) = Links::open(&Scenario::read(&committed).unwrap(), None) {
        skipped(NAME, &error);
        return;
    }
    if let Err(error) = tokio::task::block_in_place(Programs::install) {
        skipped(NAME, &error);
        return;
    }
    let mut text = std::fs::read_to_string(&committed).unwrap();
    for (large, small) in [
        ("mysql-9.7-1m", "mysql-9.7-20k"),
        ("postgres-15-1m", "postgres-15-20k"),
        ("rows = 2_000_000", "rows = 40_000\nfaults_min = 2"),
        ("warm_up_records = 4_000_000", "warm_up_records = 0"),
    ] {
        assert!(text.contains(large), "{large}: {text}");
        text = text.replace(large, small);
    }
    text += "[[fault]]\nat_changes = 8_000\nlink = \"brokers\"\ndo = \"stall\"\nfor_ms = 700\n\
             [[fault]]\nat_changes = 20_000\nlink = \"kafka\"\ndo = \"cut\"\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("small.toml");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["replay", "--no-timing", "--report"])
        .arg(directory.path())
        .arg("--walbrook")
        .arg(engine())
        .arg(&path)
        .env_remove("WALBROOK_KAFKA")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let report = std::fs::read(directory.path().join("small.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(report["faults"].as_array().map(Vec::len), Some(2));
    let links = report["links"]["links"].as_array().unwrap();
    let bytes = |link: &serde_json::Value, way: &str| link[way]["bytes"].as_u64().unwrap();
    let of = |kind: &'static str| links.iter().filter(move |link| link["link"] == kind);
    // Everything goes to the leaders once, and from each leader to each other broker once.
    let sent: u64 = of("kafka").map(|link| bytes(link, "from_engine")).sum();
    let copied: u64 = (of("brokers"))
        .map(|link| bytes(link, "to_engine") + bytes(link, "from_engine"))
        .sum();
    let stored = report["bytes_out"].as_u64().unwrap();
    assert_eq!((of("kafka").count(), of("brokers").count()), (3, 3));
    assert!(sent >= stored && copied >= 2 * stored, "{report}");
    // Nobody but the engine uses its links: the verification reads everything once more, past them.
    let answered: u64 = of("kafka").map(|link| bytes(link, "to_engine")).sum();
    assert!(answered < stored, "{report}");
}
