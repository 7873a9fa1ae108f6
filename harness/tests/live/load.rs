//! Rows committed while the engine streams: each arrives once, as it was written, and was timed. How long it took is not asserted.

use std::path::{Path, PathBuf};

use harness::replay;
use harness::replay::scenario::Scenario;
use harness::servers::{Flavour, install};

use crate::engine;

#[tokio::test(flavor = "multi_thread")]
async fn mysql_under_a_short_load() {
    short_load(Flavour::Mysql, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_under_a_short_load() {
    short_load(Flavour::Mariadb, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_under_a_short_load() {
    short_load(Flavour::Postgres, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_under_as_much_as_it_takes() {
    saturated(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_under_as_much_as_it_takes() {
    saturated(Flavour::Postgres).await;
}

/// Of a server whose changes wait in its log as of one under a load.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_started_with_the_scenario_s_options() {
    let Some(program) = program(Flavour::Mysql) else {
        return;
    };
    let text =
        "[[source]]\nserver = \"mysql\"\nrows = 10\nserver_options = [\"--no-such-option=1\"]\n";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("a writable file");
    let scenario = Scenario::read(file.path()).expect("a scenario");
    let run = replay::replay(&scenario, &program, 1, false).await;
    let error = run.map(drop).expect_err("no server takes this").to_string();
    assert!(error.contains("no-such-option"), "{error}");
}

/// The engine, where it and the server can be had; says loudly what is skipped otherwise.
pub(crate) fn program(flavour: Flavour) -> Option<PathBuf> {
    let installed =
        tokio::task::block_in_place(|| install(flavour)).map_err(|error| error.to_string());
    match installed.and_then(|_| engine()) {
        Ok(program) => Some(program),
        Err(reason) => {
            assert!(!harness::is_ci(), "required in CI: {reason}");
            let title = flavour.title();
            eprintln!("\n*** SKIPPED: no load on {title}: {reason}\n");
            None
        }
    }
}

/// The scenario `NAME-saturated`, shorter: nothing is due, so nothing is late.
async fn saturated(flavour: Flavour) {
    let Some(program) = program(flavour) else {
        return;
    };
    let name = format!("{}-saturated", flavour.name());
    let mut scenario = Scenario::read(Path::new(&name)).expect("a scenario");
    let load = scenario.load.as_mut().expect("a load");
    (load.warm_up_seconds, load.seconds, load.bare_seconds) = (0.2, 1.5, 0.0);
    let (report, _) = replay::replay(&scenario, &program, 1, false)
        .await
        .expect("a run");
    assert!(report.holds(), "{:#?} {:#?}", report.failures, report.unmet);
    let figures = &report.figures;
    let load = figures.load.as_ref().expect("figures of the load");
    assert_eq!(figures.changes, load.commits * 100);
    assert_eq!(figures.records, figures.changes + 1);
    assert_eq!(load.offered_commits_per_second, None);
    assert!(load.due_latency_ms.is_none() && load.bare_latency_ms.is_none());
    assert!(figures.commit_ms("p50") > Some(0.0));
    eprintln!("{name}: {} commits", load.commits);
}

/// The scenario `NAME-50k`, shorter and slower.
pub(crate) fn short(flavour: Flavour) -> Scenario {
    let name = format!("{}-50k", flavour.name());
    let mut scenario = Scenario::read(Path::new(&name)).expect("a scenario");
    let load = scenario.load.as_mut().expect("a load");
    (load.commits_per_second, load.rows_per_commit) = (Some(100.0), 10);
    (load.warm_up_seconds, load.seconds, load.bare_seconds) = (0.5, 2.5, 1.5);
    scenario
}

/// [`short`]; `has_commit_times`: the source says when a transaction was committed.
async fn short_load(flavour: Flavour, has_commit_times: bool) {
    let Some(program) = program(flavour) else {
        return;
    };
    let scenario = short(flavour);
    let (report, _) = replay::replay(&scenario, &program, 1, false)
        .await
        .expect("a run");
    assert!(report.holds(), "{:#?} {:#?}", report.failures, report.unmet);

    let figures = &report.figures;
    let load = figures.load.as_ref().expect("figures of the load");
    assert!(load.commits > 100, "{} commits", load.commits);
    assert_eq!(figures.changes, load.commits * 10);
    // The first row comes before the load.
    assert_eq!(figures.records, figures.changes + 1);
    let commit = |name| figures.commit_ms(name).expect("a percentile");
    assert!(commit("p50") > 0.0 && commit("p50") <= commit("max"));
    assert!(load.due_latency_ms.expect("a rate was offered").max >= commit("max"));
    assert!(load.bare_latency_ms.expect("a bare reader").p50 > 0.0);
    assert_eq!(load.acknowledged_ms("p99").is_some(), has_commit_times);
    assert_eq!(report.sources[0].io.as_deref(), Some("epoll"));
    let stations = ["decoded", "encoded", "sent", "acknowledged"];
    let timed = |station: &&str| figures.stations[*station]["ms"]["max"].as_f64() > Some(0.0);
    assert!(stations.iter().all(timed), "{}", figures.stations);
    assert!(figures.timing["clock_reads"].as_u64() > Some(0));
    eprintln!("{}: {}", scenario.name, figures.commit_latency_ms);
}
