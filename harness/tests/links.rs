//! Scenarios over emulated links: the engine as a process in a namespace, everything verified. Times are reported, not asserted.
//!
//! Needs root, iproute2 and `/dev/net/tun`, and the built engine (`WALBROOK`, or beside this test's own directory). Without privileges
//! these tests say so and pass, except with `CI=true`.

use std::path::PathBuf;

use harness::links::Links;
use harness::replay::scenario::Scenario;
use harness::replay::{program, replay};

/// `WALBROOK`, or `walbrook` of the same build.
fn engine() -> PathBuf {
    let given = std::env::var_os("WALBROOK").map(PathBuf::from);
    let path = given.unwrap_or_else(|| {
        let test = std::env::current_exe().expect("this test's path");
        let build = test.parent().and_then(|deps| deps.parent());
        build.expect("a build directory").join("walbrook")
    });
    program(Some(&path)).unwrap_or_else(|error| panic!("{error}"))
}

/// One scenario at a time: each takes the whole machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn verified(name: &str) {
    let _alone = ALONE.lock().await;
    let scenario = Scenario::read(name.as_ref()).unwrap();
    if let Err(error) = Links::open(&scenario, None) {
        let is_required = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!is_required, "required in CI: {error}");
        eprintln!("SKIPPED {name}: {error}");
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
