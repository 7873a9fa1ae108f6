//! What a scenario expects, and whether a run has it: content, and what it may take.

use super::run::Outcome;
use super::scenario::Scenario;

/// What the scenario expects of every run's content and this one does not have.
pub(super) fn failed_by_any(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let (expect, figures) = (&scenario.expect, &outcome.figures);
    let mut failures = Vec::new();
    if let Some(rows) = expect.rows
        && rows != figures.changes
    {
        failures.push(format!(
            "expected {rows} changes, {} arrived",
            figures.changes
        ));
    }
    if let Some(least) = expect.faults_min
        && outcome.faults.len() < least
    {
        failures.push(format!(
            "expected at least {least} faults, {} happened",
            outcome.faults.len()
        ));
    }
    failures
}

/// What the scenario expects every run to take and this one passes. Memory is not time; but a debug build takes more of it.
pub(super) fn unmet_by_any(scenario: &Scenario, outcome: &Outcome, timing: bool) -> Option<String> {
    let is_asserted = timing || outcome.is_of_release_build();
    let limit = scenario.expect.rss_mib_max.filter(|_| is_asserted);
    at_most("MiB of memory", limit, Some(outcome.figures.rss_mib()))
}

/// That `found` is more than `limit`, where there is one; nothing measured is not little measured.
fn at_most(what: &str, limit: Option<f64>, found: Option<f64>) -> Option<String> {
    let limit = limit?;
    match found {
        None => Some(format!(
            "expected at most {limit} {what}, and nothing was measured"
        )),
        Some(found) => (found.is_nan() || found > limit)
            .then(|| format!("expected at most {limit} {what}, measured {found:.2}")),
    }
}

/// What the scenario expects of the times and the median run does not do.
pub(super) fn unmet_by_median(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let (expect, figures) = (&scenario.expect, &outcome.figures);
    let due = figures.load.as_ref().and_then(|load| load.due_latency_ms);
    let most = [
        ("seconds", expect.seconds_max, Some(figures.seconds)),
        (
            "µs of processor time per change",
            expect.cpu_us_per_change_max,
            Some(figures.cpu_us_per_change()),
        ),
        (
            "ms from commit to the broker's log for half of the rows",
            expect.commit_p50_ms_max,
            figures.commit_ms("p50"),
        ),
        (
            "ms from commit to the broker's log for 99 of 100 rows",
            expect.commit_p99_ms_max,
            figures.commit_ms("p99"),
        ),
        (
            "ms over the links' round trip from commit to acknowledged for half of the rows",
            expect.commit_p50_over_round_trip_ms_max,
            figures.over_round_trip().map(|over| over.p50),
        ),
        (
            "ms over the links' round trip from commit to acknowledged for 99 of 100 rows",
            expect.commit_p99_over_round_trip_ms_max,
            figures.over_round_trip().map(|over| over.p99),
        ),
        (
            "ms from when a commit was due to the broker's log for 99 of 100 rows",
            expect.due_p99_ms_max,
            due.map(|due| due.p99),
        ),
        (
            "ms from the server's timestamp of a commit to acknowledged (engine) for 99 of 100 rows",
            expect.acknowledged_p99_ms_max,
            (figures.load.as_ref()).and_then(|load| load.acknowledged_ms("p99")),
        ),
        (
            "of the engine's processor time for reading clocks",
            expect.timing_share_max,
            figures
                .timing
                .get("cpu_share")
                .and_then(|share| share.as_f64()),
        ),
        (
            "times the links' limit",
            expect.times_limit_max,
            (figures.links.as_ref()).and_then(|links| links.times_limit),
        ),
    ];
    let most = most.into_iter();
    let mut failures: Vec<String> = most
        .filter_map(|(what, limit, found)| at_most(what, limit, found))
        .collect();
    if let Some(least) = expect.of_bare_reader_min {
        match figures.bare_changes_per_second {
            None => failures.push(format!(
                "expected at least {least} of a bare reader's changes per second, and no bare reader was measured: only PostgreSQL has one"
            )),
            Some(bare) if figures.changes_per_second / bare < least => {
                let part = figures.changes_per_second / bare;
                failures.push(format!(
                    "expected at least {least} of a bare reader's {bare:.0} changes per second, measured {part:.2}"
                ));
            }
            Some(_) => {}
        }
    }
    if let Some(least) = expect.changes_per_second_min
        && figures.changes_per_second < least
    {
        failures.push(format!(
            "expected at least {least} changes per second, measured {:.0}",
            figures.changes_per_second
        ));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::super::load::LoadFigures;
    use super::super::report::Percentiles;
    use super::super::tests::outcome;
    use super::super::{summary, verdict};
    use super::*;

    fn failures(expect: &str, outcomes: Vec<Outcome>) -> Vec<String> {
        judged(expect, outcomes, true)
    }

    fn judged(expect: &str, outcomes: Vec<Outcome>, timing: bool) -> Vec<String> {
        let text = format!("[[source]]\nrecording = \"x\"\n[expect]\n{expect}");
        let scenario: Scenario = toml::from_str(&text).unwrap();
        let (report, _) = summary(&scenario, outcomes, timing);
        assert_eq!(report.verified, report.failures.is_empty());
        let all: Vec<String> = report
            .failures
            .iter()
            .chain(&report.unmet)
            .cloned()
            .collect();
        assert_eq!(report.holds(), all.is_empty());
        all
    }

    #[test]
    fn what_takes_too_long_or_too_much_is_verified_all_the_same() {
        let expect = "rows = 10\nseconds_max = 1.0\ncpu_us_per_change_max = 1.0\nrss_mib_max = 64\nchanges_per_second_min = 9.0";
        let text = format!("[[source]]\nrecording = \"x\"\n[expect]\n{expect}");
        let scenario: Scenario = toml::from_str(&text).unwrap();
        let mut slow = outcome(2.0);
        (slow.figures.rss_max_bytes, slow.figures.cpu_seconds) = (65 << 20, 1.0);
        let (report, _) = summary(&scenario, vec![slow], true);
        assert!(report.verified && !report.holds());
        assert_eq!((report.failures.len(), report.unmet.len()), (0, 4));
        assert_eq!(verdict(&report), "verified, but MISSED what is expected");
        let mut short = outcome(2.0);
        short.figures.changes = 9;
        let (report, _) = summary(&scenario, vec![short], false);
        assert!(!report.verified && report.unmet.is_empty());
        assert_eq!(verdict(&report), "FAILED");
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        for expect in [
            "times_limit_max = 2.0",
            "of_bare_reader_min = 0.5",
            "commit_p50_ms_max = 1.0",
            "commit_p99_ms_max = 1.0",
            "due_p99_ms_max = 1.0",
            "acknowledged_p99_ms_max = 1.0",
            "timing_share_max = 0.01",
            "commit_p50_over_round_trip_ms_max = 1.0",
            "commit_p99_over_round_trip_ms_max = 1.0",
        ] {
            let failures = failures(expect, vec![outcome(1.0)]);
            assert_eq!(failures.len(), 1, "{expect}: {failures:?}");
            assert!(failures[0].contains("measured"), "{expect}: {failures:?}");
        }
        let kept = "seconds_max = 1.5\nchanges_per_second_min = 9.0\nrows = 10";
        assert_eq!(failures(kept, vec![outcome(1.0)]), [""; 0]);
    }

    #[test]
    fn every_run_must_have_its_rows_its_faults_and_its_memory() {
        let runs = || [1.0, 2.0, 3.0].map(outcome);
        let mut few = runs();
        few[2].figures.changes = 9;
        let found = failures("rows = 10", few.into());
        assert_eq!(found, ["run 3: expected 10 changes, 9 arrived"]);
        let mut large = runs();
        large[0].figures.rss_max_bytes = 65 << 20;
        let found = failures("rss_mib_max = 64", large.into());
        let expected = "run 1: expected at most 64 MiB of memory, measured 65.00";
        assert_eq!(found, [expected]);
        let found = failures("faults_min = 1", runs().into());
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[1].starts_with("run 2: expected at least 1 faults"));
        // Times are the median run's.
        assert_eq!(failures("seconds_max = 2.5", runs().into()), [""; 0]);
    }

    #[test]
    fn memory_is_asserted_without_times_where_the_build_is_what_users_run() {
        let large = |build: &str| {
            let mut run = outcome(2.0);
            run.figures.rss_max_bytes = 65 << 20;
            run.engine_report = serde_json::json!({ "build": build });
            vec![run]
        };
        let expect = "rss_mib_max = 64\nseconds_max = 1.0";
        let found = judged(expect, large("release"), false);
        let expected = "expected at most 64 MiB of memory, measured 65.00";
        assert_eq!(found, [expected]);
        assert_eq!(judged(expect, large("debug"), false), [""; 0]);
        assert_eq!(judged(expect, large("debug"), true).len(), 2);
    }

    #[test]
    fn what_the_engine_took_to_an_acknowledgement_is_asserted() {
        let none = Percentiles {
            p50: 0.0,
            p90: 0.0,
            p99: 0.0,
            p999: 0.0,
            max: 0.0,
        };
        let acknowledged = |p99: f64| {
            let mut run = outcome(1.0);
            run.figures.load = Some(LoadFigures {
                offered_commits_per_second: None,
                offered_changes_per_second: None,
                committed_changes_per_second: 10.0,
                commits: 1,
                rows_per_commit: 10,
                writers: 1,
                offered_seconds: 1.0,
                server_commit_ms: none,
                due_latency_ms: None,
                due_histogram: None,
                bare_latency_ms: None,
                bare_histogram: None,
                over_links: None,
                engine_commit_latency_ms: serde_json::json!({ "p50": 30.0, "p99": p99 }),
            });
            vec![run]
        };
        let expect = "acknowledged_p99_ms_max = 20.0";
        assert_eq!(failures(expect, acknowledged(20.0)), [""; 0]);
        let found = failures(expect, acknowledged(20.5));
        let expected = "expected at most 20 ms from the server's timestamp of a commit to acknowledged (engine) for 99 of 100 rows, measured 20.50";
        assert_eq!(found, [expected]);
        assert_eq!(judged(expect, acknowledged(20.5), false), [""; 0]);
    }

    #[test]
    fn what_reading_clocks_costs_is_asserted() {
        let timed = |share: f64| {
            let mut run = outcome(1.0);
            run.figures.timing = serde_json::json!({ "cpu_share": share });
            vec![run]
        };
        let expect = "timing_share_max = 0.01";
        assert_eq!(failures(expect, timed(0.009)), [""; 0]);
        assert_eq!(failures(expect, timed(0.011)).len(), 1);
        assert_eq!(judged(expect, timed(0.011), false), [""; 0]);
    }
}
