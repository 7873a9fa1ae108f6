//! What the project promises, against what the scenarios expect.

use super::{Expect, Scenario};

/// What this project promises of itself stands in the scenarios that measure it.
#[test]
fn promised_figures_are_expected() {
    type Of = fn(&Expect) -> Option<f64>;
    let rate: Of = |expect| expect.changes_per_second_min;
    let cpu: Of = |expect| expect.cpu_us_per_change_max;
    let seconds: Of = |expect| expect.seconds_max;
    let memory: Of = |expect| expect.rss_mib_max;
    let timing: Of = |expect| expect.timing_share_max;
    let commit_p50: Of = |expect| expect.commit_p50_ms_max;
    let commit_p99: Of = |expect| expect.commit_p99_ms_max;
    let due_p99: Of = |expect| expect.due_p99_ms_max;
    let over_p50: Of = |expect| expect.commit_p50_over_round_trip_ms_max;
    let over_p99: Of = |expect| expect.commit_p99_over_round_trip_ms_max;
    let of_bare: Of = |expect| expect.of_bare_reader_min;
    let times_limit: Of = |expect| expect.times_limit_max;
    let promised: [(&str, &[(Of, f64)]); 30] = [
        (
            "mysql-1m",
            &[(rate, 1.5e6), (cpu, 0.6), (memory, 64.0), (timing, 0.01)],
        ),
        (
            "postgres-1m",
            &[(rate, 1.2e6), (cpu, 0.8), (memory, 64.0), (timing, 0.01)],
        ),
        ("postgres-wal2json-100k", &[(rate, 8e5)]),
        ("mysql-live-1m", &[(rate, 1.3e6)]),
        ("mysql-live-kafka-1m", &[(rate, 1.2e6)]),
        ("mysql-live-kafka-3", &[(rate, 6e5)]),
        ("10m-transaction", &[(memory, 32.0)]),
        ("postgres-10m-transaction", &[(memory, 32.0)]),
        ("postgres-live-1m", &[(of_bare, 0.9)]),
        ("postgres-live-wal2json-100k", &[(of_bare, 0.9)]),
        ("list-sync", &[(seconds, 5.0)]),
        ("list-sync-kafka", &[(seconds, 10.0)]),
        ("far-source", &[(seconds, 12.0)]),
        ("far-source-off", &[(seconds, 35.0), (times_limit, 1.4)]),
        ("slow-link", &[(seconds, 60.0), (times_limit, 1.2)]),
        ("slow-link-auto", &[(seconds, 30.0)]),
        (
            "mysql-idle",
            &[(commit_p50, 2.0), (commit_p99, 10.0), (timing, 0.01)],
        ),
        (
            "mariadb-idle",
            &[(commit_p50, 2.0), (commit_p99, 10.0), (timing, 0.01)],
        ),
        (
            "postgres-idle",
            &[(commit_p50, 2.0), (commit_p99, 10.0), (timing, 0.01)],
        ),
        ("mysql-idle-link", &[(over_p50, 2.0), (over_p99, 10.0)]),
        ("postgres-idle-link", &[(over_p50, 2.0), (over_p99, 10.0)]),
        ("mysql-1k", &[(commit_p99, 10.0), (timing, 0.01)]),
        ("mariadb-1k", &[(commit_p99, 10.0), (timing, 0.01)]),
        ("postgres-1k", &[(commit_p99, 10.0), (timing, 0.01)]),
        (
            "mysql-50k",
            &[(commit_p99, 20.0), (due_p99, 20.0), (timing, 0.01)],
        ),
        (
            "mariadb-50k",
            &[(commit_p99, 20.0), (due_p99, 20.0), (timing, 0.01)],
        ),
        (
            "postgres-50k",
            &[(commit_p99, 20.0), (due_p99, 20.0), (timing, 0.01)],
        ),
        ("mysql-saturated", &[(memory, 64.0), (timing, 0.01)]),
        ("mariadb-saturated", &[(memory, 64.0), (timing, 0.01)]),
        ("postgres-saturated", &[(memory, 64.0), (timing, 0.01)]),
    ];
    for (name, figures) in promised {
        let expect = Scenario::read(name.as_ref()).unwrap().expect;
        for (number, (of, promised)) in figures.iter().enumerate() {
            assert_eq!(of(&expect), Some(*promised), "figure {number} of {name}");
        }
    }
}
