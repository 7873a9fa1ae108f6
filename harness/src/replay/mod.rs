//! `harness replay`: scenarios from a recording or a live server, through the engine, into a broker, under faults; and whether
//! everything expected holds.
//!
//! ```text
//! recording ─ replay server ─┐                 ┌─ embedded broker or Kafka ─ verify ─ truth
//! live server ───────────────┴─► walbrook run ─┘
//!             cut, stall          kill -9            cut, stall, restart, leader moves
//! ```

mod bare;
pub mod engine;
mod faults;
mod kafka;
mod live;
pub mod load;
pub mod report;
mod run;
pub mod scenario;
mod sink;
mod source;
pub mod sources;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;

use crate::cli;
use crate::links::report::LinkFigures;
use crate::report::timeline::Timeline;
pub use kafka::Kept;
use load::LoadFigures;
use report::{Figures, Percentiles, Report, machine, median};
pub use run::{Outcome, Progress, run as run_once};
use scenario::Scenario;

/// `harness replay`: scenarios, and whether what they expect holds.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Scenario files, or names of `fixtures/scenarios`.
    #[arg(required = true)]
    scenarios: Vec<PathBuf>,
    /// Write `NAME.json`, the engine's own `NAME.engine.json` and a page with pictures, `NAME.html`, into this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Repeat so often and report the median and every run.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    runs: usize,
    /// Any setting of walbrook.toml, over the scenario's own: `--set engine.io=uring`. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Report times, but do not assert them.
    #[arg(long)]
    no_timing: bool,
    /// The engine; beside the harness when absent.
    #[arg(long, value_name = "PATH", env = "WALBROOK")]
    walbrook: Option<PathBuf>,
}

/// Runs `harness replay`; status 1 when anything expected does not hold.
///
/// # Errors
/// What keeps a scenario from being run.
pub async fn run(args: Args) -> cli::Outcome {
    let program = program(args.walbrook.as_deref())?;
    if let Some(directory) = &args.report {
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let mut scenarios: Vec<Scenario> = args
        .scenarios
        .iter()
        .map(|path| Scenario::read(path))
        .collect::<Result<_, _>>()?;
    for setting in &args.set {
        for scenario in &mut scenarios {
            scenario.set(setting)?;
        }
    }
    let mut status = ExitCode::SUCCESS;
    for scenario in &scenarios {
        let (report, outcome) = replay(scenario, &program, args.runs, !args.no_timing).await?;
        print(&report);
        if !report.holds() {
            status = ExitCode::FAILURE;
        }
        if let Some(directory) = &args.report {
            crate::report::write(&report, &outcome.engine_report, directory)?;
        }
    }
    Ok(status)
}

/// Runs `scenario` so often; the report and the median run.
///
/// # Errors
/// What keeps it from being run.
pub async fn replay(
    scenario: &Scenario,
    program: &Path,
    runs: usize,
    timing: bool,
) -> Result<(Report, Outcome), Box<dyn std::error::Error + Send + Sync>> {
    let mut outcomes = Vec::with_capacity(runs);
    let mut kept = Kept::new(runs);
    for _ in 0..runs {
        outcomes.push(run_once(scenario, program, &mut kept, &|_, _| {}).await?);
    }
    Ok(summary(scenario, outcomes, timing))
}

/// The report of these runs, of which there is at least one, and the median one.
pub fn summary(scenario: &Scenario, mut outcomes: Vec<Outcome>, timing: bool) -> (Report, Outcome) {
    let runs: Vec<Figures> = outcomes
        .iter()
        .map(|outcome| outcome.figures.clone())
        .collect();
    let (mut failures, mut unmet) = (Vec::new(), Vec::new());
    for (number, outcome) in outcomes.iter().enumerate() {
        let of_run = |failure: String| match runs.len() {
            1 => failure,
            _ => format!("run {}: {failure}", number + 1),
        };
        let content = outcome.failures.iter().cloned();
        let content = content.chain(failed_by_any(scenario, outcome));
        failures.extend(content.map(of_run));
        unmet.extend(unmet_by_any(scenario, outcome, timing).map(of_run));
    }
    let middle = outcomes.swap_remove(median(&runs));
    if timing {
        unmet.extend(unmet_by_median(scenario, &middle));
    }
    let sources = scenario.source.iter().map(scenario::Source::title);
    let sources: Vec<String> = sources.collect();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: machine(),
        commit: commit(&middle),
        build: build(&middle),
        scenario: scenario.name.clone(),
        set: scenario.set.clone(),
        settings: scenario.settings(),
        source: sources.join(" + "),
        sources: middle.sources.clone(),
        broker: middle.broker.clone(),
        figures: middle.figures.clone(),
        verified: failures.is_empty(),
        failures,
        unmet,
        faults: middle.faults.clone(),
        runs,
        timeline: Timeline::of(&middle),
    };
    (report, middle)
}

/// The commit of what was measured: the engine's, or ours where it left no report.
fn commit(outcome: &Outcome) -> String {
    let engine = outcome.engine_report.get("commit");
    let engine = engine.and_then(serde_json::Value::as_str);
    engine.unwrap_or(env!("WALBROOK_COMMIT")).to_owned()
}

/// The build of what was measured, where it says so itself.
fn build(outcome: &Outcome) -> Option<String> {
    let build = outcome.engine_report.get("build")?.as_str()?;
    Some(build.to_owned())
}

/// What the scenario expects of every run's content and this one does not have.
fn failed_by_any(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
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
fn unmet_by_any(scenario: &Scenario, outcome: &Outcome, timing: bool) -> Option<String> {
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
fn unmet_by_median(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
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

/// Whether the content is right, and whether it came as it was expected to.
fn verdict(report: &Report) -> &'static str {
    match (report.verified, report.unmet.is_empty()) {
        (false, _) => "FAILED",
        (true, false) => "verified, but MISSED what is expected",
        (true, true) => "verified",
    }
}

/// One line, then a line per run, failure and missed expectation.
fn print(report: &Report) {
    let figures = &report.figures;
    println!(
        "{}: {} changes in {:.3} s, {:.2} M/s, {:.3} µs of CPU per change, {:.1} MiB, {:.1} MB to Kafka, {} faults: {}",
        report.scenario,
        figures.changes,
        figures.seconds,
        figures.changes_per_second / 1e6,
        figures.cpu_us_per_change(),
        figures.rss_mib(),
        figures.bytes_out as f64 / 1e6,
        report.faults.len(),
        verdict(report),
    );
    if report.sources.len() > 1 {
        for source in &report.sources {
            println!("  {}", source.line());
        }
    }
    if report.broker != sink::EMBEDDED {
        println!("  into {}", report.broker);
    }
    if let Some(bare) = figures.bare_changes_per_second {
        println!(
            "  a bare reader: {:.2} M/s, of which this is {:.0} %",
            bare / 1e6,
            100.0 * figures.changes_per_second / bare
        );
    }
    for line in (figures.links.iter()).flat_map(LinkFigures::lines) {
        println!("  {line}");
    }
    if let Some(load) = &figures.load {
        print_load(load, figures);
    }
    if report.runs.len() > 1 {
        for (number, run) in report.runs.iter().enumerate() {
            let rate = run.changes_per_second / 1e6;
            println!(
                "  run {}: {:.3} s, {rate:.2} M/s, {:.3} µs, {:.1} MiB",
                number + 1,
                run.seconds,
                run.cpu_us_per_change(),
                run.rss_mib()
            );
        }
    }
    for failure in report.failures.iter().chain(&report.unmet) {
        println!("  {failure}");
    }
}

/// What a load took, by percentiles.
fn print_load(load: &LoadFigures, figures: &Figures) {
    let offered = match load.offered_changes_per_second {
        Some(rate) => format!("{rate:.0} changes/s offered"),
        None => "as many changes offered as the server takes".to_owned(),
    };
    println!(
        "  {offered}, {} a commit, {:.0}/s committed by {} writers",
        load.rows_per_commit, load.committed_changes_per_second, load.writers
    );
    if let Some(links) = &load.over_links {
        println!("  {}", links.line());
    }
    let line = |what: &str, times: [Option<f64>; 4]| {
        let shown = times.map(|time| time.map_or("-".to_owned(), |time| format!("{time:.2}")));
        let [p50, p90, p99, max] = shown;
        println!("  {what:<44} p50 {p50:>7} ms, p90 {p90:>7}, p99 {p99:>7}, max {max:>7}");
    };
    let measured = |value: &serde_json::Value| {
        ["p50", "p90", "p99", "max"].map(|name| value.get(name).and_then(serde_json::Value::as_f64))
    };
    let percentiles = |of: &Percentiles| [of.p50, of.p90, of.p99, of.max].map(Some);
    line(
        "commit sent to broker's log",
        measured(&figures.commit_latency_ms),
    );
    if let Some(over) = figures.over_round_trip() {
        line(
            "commit sent to acknowledged, over the links",
            percentiles(&over),
        );
    }
    if let Some(due) = &load.due_latency_ms {
        line("commit due to broker's log", percentiles(due));
    }
    if let Some(bare) = &load.bare_latency_ms {
        line("commit sent to a bare reader", percentiles(bare));
    }
    line(
        "commit sent to the server's answer",
        percentiles(&load.server_commit_ms),
    );
    line(
        "server's timestamp to acknowledged (engine)",
        measured(&load.engine_commit_latency_ms),
    );
    line(
        "read to acknowledged (engine)",
        measured(&figures.latency_ms),
    );
    for station in ["decoded", "encoded", "sent", "acknowledged"] {
        let ms = figures.stations.get(station).and_then(|of| of.get("ms"));
        let ms = ms.unwrap_or(&serde_json::Value::Null);
        line(&format!("  to {station}"), measured(ms));
    }
}

/// The engine: `given`, or `walbrook` beside this program.
///
/// # Errors
/// When it is not there, with the command that builds it.
pub fn program(given: Option<&Path>) -> Result<PathBuf, String> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("walbrook"));
    let path = given
        .map(Path::to_owned)
        .or_else(beside)
        .unwrap_or_default();
    // The engine runs in a directory of its own.
    path.canonicalize().map_err(|error| {
        format!(
            "{}: {error}; build it: cargo build --release -p engine, or name it: --walbrook PATH, WALBROOK=PATH",
            path.display()
        )
    })
}

/// The engine for a test: `WALBROOK`, or `walbrook` of the same build, whose tests are a directory deeper.
///
/// # Errors
/// As [`program`].
pub fn program_for_test() -> Result<PathBuf, String> {
    let given = std::env::var_os("WALBROOK").map(PathBuf::from);
    let of_build = || {
        let test = std::env::current_exe().ok()?;
        Some(test.parent()?.parent()?.join("walbrook"))
    };
    program(given.or_else(of_build).as_deref())
}

/// As [`program_for_test`]; where the engine is missing this says loudly that `what` is skipped.
///
/// # Panics
/// In CI, where nothing may be skipped.
#[must_use]
pub fn program_for_test_of(what: &str) -> Option<PathBuf> {
    let program = program_for_test();
    if let Err(reason) = &program {
        assert!(!crate::is_ci(), "required in CI: {reason}");
        eprintln!("\n*** SKIPPED: no test of {what}: {reason}\n");
    }
    program.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(seconds: f64) -> Outcome {
        Outcome {
            figures: Figures {
                changes: 10,
                seconds,
                changes_per_second: 10.0 / seconds,
                ..Figures::default()
            },
            sources: Vec::new(),
            failures: Vec::new(),
            faults: Vec::new(),
            samples: Vec::new(),
            arrivals: Vec::new(),
            start: crate::clock::now(),
            broker: String::new(),
            engine_report: serde_json::Value::Null,
        }
    }

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

    #[test]
    fn the_commit_is_that_of_the_engine_that_ran() {
        let mut run = outcome(1.0);
        assert_eq!(commit(&run), env!("WALBROOK_COMMIT"));
        run.engine_report = serde_json::json!({ "commit": "0123456789ab" });
        assert_eq!(commit(&run), "0123456789ab");
    }
}
