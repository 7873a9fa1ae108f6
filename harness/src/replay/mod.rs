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
mod expected;
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
use expected::{failed_by_any, unmet_by_any, unmet_by_median};
pub use kafka::Kept;
use load::LoadFigures;
use report::{Figures, Percentiles, Report, median};
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
        machine: crate::machine::here(),
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
    } else if report
        .sources
        .iter()
        .any(|of| of.io.as_deref() == Some("uring"))
    {
        println!("  read by uring");
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

    /// A run of ten changes that took so long.
    pub(super) fn outcome(seconds: f64) -> Outcome {
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

    #[test]
    fn the_commit_is_that_of_the_engine_that_ran() {
        let mut run = outcome(1.0);
        assert_eq!(commit(&run), env!("WALBROOK_COMMIT"));
        run.engine_report = serde_json::json!({ "commit": "0123456789ab" });
        assert_eq!(commit(&run), "0123456789ab");
    }
}
