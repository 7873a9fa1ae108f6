//! What the project promises, against what the scenarios expect, and against what was recorded.

use std::path::PathBuf;

use super::{Expect, Scenario};
use crate::report::document::Document;

/// A limit of a scenario.
type Of = fn(&Expect) -> Option<f64>;

const RATE: Of = |expect| expect.changes_per_second_min;
const CPU: Of = |expect| expect.cpu_us_per_change_max;
const SECONDS: Of = |expect| expect.seconds_max;
const MEMORY: Of = |expect| expect.rss_mib_max;
const TIMING: Of = |expect| expect.timing_share_max;
const COMMIT_P50: Of = |expect| expect.commit_p50_ms_max;
const COMMIT_P99: Of = |expect| expect.commit_p99_ms_max;
const DUE_P99: Of = |expect| expect.due_p99_ms_max;
const ACKNOWLEDGED_P99: Of = |expect| expect.acknowledged_p99_ms_max;
const OVER_P50: Of = |expect| expect.commit_p50_over_round_trip_ms_max;
const OVER_P99: Of = |expect| expect.commit_p99_over_round_trip_ms_max;
const OF_BARE: Of = |expect| expect.of_bare_reader_min;
const TIMES_LIMIT: Of = |expect| expect.times_limit_max;

/// Scenarios by name, and what they promise.
const PROMISED: [(&str, &[(Of, f64)]); 31] = [
    (
        "mysql-1m",
        &[(RATE, 1.5e6), (CPU, 0.6), (MEMORY, 64.0), (TIMING, 0.01)],
    ),
    (
        "postgres-1m",
        &[(RATE, 1.2e6), (CPU, 0.8), (MEMORY, 64.0), (TIMING, 0.01)],
    ),
    ("postgres-wal2json-100k", &[(RATE, 8e5)]),
    ("mysql-live-1m", &[(RATE, 1.3e6)]),
    ("mysql-live-kafka-1m", &[(RATE, 1.2e6)]),
    ("mysql-live-kafka-3", &[(RATE, 6e5)]),
    ("10m-transaction", &[(MEMORY, 32.0)]),
    ("postgres-10m-transaction", &[(MEMORY, 32.0)]),
    ("postgres-live-1m", &[(OF_BARE, 0.9)]),
    ("postgres-live-wal2json-100k", &[(OF_BARE, 0.9)]),
    ("list-sync", &[(SECONDS, 5.0)]),
    ("list-sync-kafka", &[(SECONDS, 10.0)]),
    ("far-source", &[(SECONDS, 12.0)]),
    ("far-source-off", &[(SECONDS, 35.0), (TIMES_LIMIT, 1.4)]),
    ("slow-link", &[(SECONDS, 60.0), (TIMES_LIMIT, 1.2)]),
    ("slow-link-auto", &[(SECONDS, 30.0)]),
    (
        "mysql-idle",
        &[(COMMIT_P50, 2.0), (COMMIT_P99, 10.0), (TIMING, 0.01)],
    ),
    (
        "mariadb-idle",
        &[(COMMIT_P50, 2.0), (COMMIT_P99, 10.0), (TIMING, 0.01)],
    ),
    (
        "postgres-idle",
        &[(COMMIT_P50, 2.0), (COMMIT_P99, 10.0), (TIMING, 0.01)],
    ),
    ("mysql-idle-link", &[(OVER_P50, 2.0), (OVER_P99, 10.0)]),
    ("mariadb-idle-link", &[(OVER_P50, 2.0), (OVER_P99, 10.0)]),
    ("postgres-idle-link", &[(OVER_P50, 2.0), (OVER_P99, 10.0)]),
    ("mysql-1k", &[(COMMIT_P99, 10.0), (TIMING, 0.01)]),
    ("mariadb-1k", &[(COMMIT_P99, 10.0), (TIMING, 0.01)]),
    ("postgres-1k", &[(COMMIT_P99, 10.0), (TIMING, 0.01)]),
    (
        "mysql-50k",
        &[
            (COMMIT_P99, 20.0),
            (DUE_P99, 20.0),
            (ACKNOWLEDGED_P99, 20.0),
            (TIMING, 0.01),
        ],
    ),
    (
        "mariadb-50k",
        &[(COMMIT_P99, 20.0), (DUE_P99, 20.0), (TIMING, 0.01)],
    ),
    (
        "postgres-50k",
        &[
            (COMMIT_P99, 20.0),
            (DUE_P99, 20.0),
            (ACKNOWLEDGED_P99, 20.0),
            (TIMING, 0.01),
        ],
    ),
    ("mysql-saturated", &[(MEMORY, 64.0), (TIMING, 0.01)]),
    ("mariadb-saturated", &[(MEMORY, 64.0), (TIMING, 0.01)]),
    ("postgres-saturated", &[(MEMORY, 64.0), (TIMING, 0.01)]),
];

/// What this project promises of itself stands in the scenarios that measure it.
#[test]
fn promised_figures_are_expected() {
    for (name, figures) in PROMISED {
        let expect = Scenario::read(name.as_ref()).unwrap().expect;
        for (number, (of, promised)) in figures.iter().enumerate() {
            assert_eq!(of(&expect), Some(*promised), "figure {number} of {name}");
        }
    }
}

/// The directories of which `benches/record/README.md` says that they have what is promised.
fn records() -> Vec<PathBuf> {
    let records = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../benches/record");
    let text = std::fs::read_to_string(records.join("README.md")).unwrap();
    let (before, _) = text
        .split_once("have every scenario that promises something")
        .expect("README.md names the directories that have every scenario that promises something");
    let line = before.lines().last().unwrap_or_default();
    let links = line.split("](").skip(1).map(|link| {
        let (page, _) = link.split_once("/README.md)").expect("a link to a page");
        records.join(page)
    });
    links.collect()
}

/// What is promised was measured, by builds that users run, and was held.
#[test]
fn the_records_have_what_is_promised() {
    let records = records();
    let (mut missing, mut missed) = (Vec::new(), Vec::new());
    for (name, _) in PROMISED {
        let paths = (records.iter()).map(|record| record.join(format!("{name}.json")));
        let found: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
        if found.is_empty() {
            missing.push(name);
        }
        for path in found {
            let report = Document::read(&path).unwrap();
            assert_eq!(report.scenario, name, "{}", path.display());
            assert_eq!(report.build.as_deref(), Some("release"), "{name}");
            if !report.holds() {
                missed.push(path);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "{records:?} have no report of {}: harness replay {} --report DIR",
        missing.join(", "),
        missing.join(" ")
    );
    assert!(missed.is_empty(), "these failed: {missed:?}");
}
