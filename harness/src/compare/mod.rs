//! `harness compare`: two reports, or a report and a stored baseline, side by side, with a verdict that knows what noise is; criterion's
//! results beside them. And `harness stages`, which makes a small file of criterion's results.
//!
//! ```text
//! A: reports, stages ─┐
//!                     ├─ joined by scenario and bench ─ statistics ─ judgement ─► table, page, exit status
//! B: reports, stages ─┘
//! ```

mod forest;
pub mod judgement;
mod machine;
mod obstacles;
mod page;
mod side;
pub mod stages;
pub mod statistics;
mod whole;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli;
use crate::report::number::change;
use judgement::{Judged, Rules, Verdict};
use side::Side;
use stages::Stages;
use whole::Pair;

/// Exit status when not everything could be judged: another machine, scenario or setting, something that B lacks, files that cannot be read.
const NOT_COMPARABLE: u8 = 2;

/// `harness compare`: two sides, figure by figure, and whether B is worse than A.
///
/// A side is a report of `harness replay --report`, a file of `harness stages`, criterion's directory (`target/criterion`, or
/// `target/criterion:NAME` for a saved baseline), or a directory with any of these; reports are joined by scenario, stages by name.
///
/// Exit status: 0 no regression, 1 a regression beyond noise and tolerance, 2 not comparable: different machines, scenarios or
/// settings, something in A that B lacks, files that cannot be read.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The side before: a report, or a stored baseline such as benches/record/COMMIT.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The side after.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Write a page with pictures.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Differences of at most so many percent do not matter.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    tolerance: f64,
    /// How certain all intervals of a kind are together, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, value_parser = percent)]
    confidence: f64,
    /// Judge although machines, scenarios or settings differ, or B lacks what A has.
    #[arg(long)]
    across: bool,
}

/// `harness stages`: criterion's results as one small file that can be kept and compared.
#[derive(Debug, clap::Args)]
pub struct StagesArgs {
    /// Criterion's directory, or DIR:NAME for a saved baseline.
    #[arg(default_value = "target/criterion")]
    criterion: PathBuf,
    /// Where to write; stdout when absent.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Add to what the file holds: another process's figures of the same benches, so that noise between processes is known.
    #[arg(long, requires = "out")]
    add: bool,
}

/// Two sides, joined and judged.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) before: Side,
    pub(crate) after: Side,
    pub(crate) rules: Rules,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) stages: Vec<Judged>,
    /// Why the stages are no measure of each other.
    pub(crate) stage_obstacles: Vec<String>,
    /// What a reader should know of them besides.
    pub(crate) stage_notes: Vec<String>,
    /// What only one side has.
    pub(crate) unmatched: Vec<String>,
    /// Whether B lacks something that A has, and that matters: what is gone cannot be told to be no worse.
    lacks: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(percent),
        _ => Err("expected a number above 0 and below 100".into()),
    }
}

/// Runs `harness compare`.
///
/// # Errors
/// None: what cannot be read or written, and nothing that both sides have, goes to stderr with the status of what cannot be judged.
pub fn run(args: &Args) -> cli::Outcome {
    // Status 1, that of other errors, would say that there is a regression.
    Ok(compared(args).unwrap_or_else(|error| {
        eprintln!("harness: {error}");
        ExitCode::from(NOT_COMPARABLE)
    }))
}

fn compared(args: &Args) -> cli::Outcome {
    let rules = Rules {
        tolerance: 1.0 + args.tolerance / 100.0,
        alpha: 1.0 - args.confidence / 100.0,
    };
    let (before, after) = (Side::read(&args.before)?, Side::read(&args.after)?);
    let comparison = Comparison::of(before, after, rules, args.across)?;
    comparison.print();
    if let Some(path) = &args.html {
        crate::report::put(path, &page::html(&comparison)?)?;
        println!("\nThe pictures: {}", path.display());
    }
    Ok(comparison.status())
}

/// Runs `harness stages`.
///
/// # Errors
/// Results that cannot be read, a file that cannot be written or is of another machine or commit.
pub fn run_stages(args: &StagesArgs) -> cli::Outcome {
    let side = Side::read(&args.criterion)?;
    let Some(new) = side.stages else {
        return Err(format!("{}: reports, but no results of criterion", side.shown).into());
    };
    let mut stages = match (&args.out, args.add) {
        (Some(path), true) => {
            let shown = path.display();
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
            Stages::parse(&text).map_err(|error| format!("{shown}: {error}"))?
        }
        _ => Stages {
            stages: Vec::new(),
            ..new.clone()
        },
    };
    stages.add(new)?;
    let text = serde_json::to_string_pretty(&stages)? + "\n";
    match &args.out {
        Some(path) => crate::report::put(path, &text)?,
        None => print!("{text}"),
    }
    for stage in &stages.stages {
        eprintln!(
            "{:<52}{:>12}  {} processes",
            stage.name,
            stage.shown(),
            stage.processes.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}

impl Comparison {
    /// Joins and judges; `across`: although machines, scenarios or settings differ.
    ///
    /// # Errors
    /// When there is nothing that both sides have.
    pub(crate) fn of(
        before: Side,
        after: Side,
        rules: Rules,
        across: bool,
    ) -> Result<Self, String> {
        let (pairs, mut gone, mut new) = joined(&before, &after);
        let pairs = whole::judged(pairs, &rules, across);
        for pair in &pairs {
            gone.extend(figures_only(&before, &pair.before.scenario, &pair.gone));
            new.extend(figures_only(&after, &pair.after.scenario, &pair.new));
        }
        let mut comparison = Self {
            pairs,
            lacks: !gone.is_empty() && !across,
            unmatched: gone.into_iter().chain(new).collect(),
            rules,
            stages: Vec::new(),
            stage_obstacles: Vec::new(),
            stage_notes: Vec::new(),
            before,
            after,
        };
        if let (Some(old), Some(new)) = (&comparison.before.stages, &comparison.after.stages) {
            comparison.stages = stages::judged(old, new, rules.tolerance, rules.alpha);
            if !machine::is_same(&old.machine, &new.machine) {
                let obstacle = format!(
                    "different machines: {} before, {} after",
                    old.machine, new.machine
                );
                comparison.stage_obstacles.push(obstacle);
            }
            comparison.stage_notes = machine::silence(&old.machine, &new.machine)
                .into_iter()
                .collect();
        }
        if !comparison.stage_obstacles.is_empty() && !across {
            for stage in &mut comparison.stages {
                stage.verdict = Verdict::NotComparable;
            }
        }
        if comparison.pairs.is_empty() && comparison.stages.is_empty() {
            return Err(format!(
                "{} and {} have nothing in common to compare: {}",
                comparison.before.shown,
                comparison.after.shown,
                comparison.unmatched.join("; "),
            ));
        }
        Ok(comparison)
    }

    /// Every judged figure, with the scenario or `stages`.
    pub(crate) fn judged(&self) -> impl Iterator<Item = (&str, &Judged)> {
        let whole = (self.pairs.iter()).flat_map(|pair| {
            pair.figures
                .iter()
                .map(|figure| (pair.after.scenario.as_str(), figure))
        });
        whole.chain(self.stages.iter().map(|stage| ("stages", stage)))
    }

    fn having(&self, verdict: Verdict) -> Vec<String> {
        (self
            .judged()
            .filter(|(_, judged)| judged.verdict == verdict))
        .map(|(place, judged)| format!("{place}: {} {}", judged.name, judged.change()))
        .collect()
    }

    /// Whether nothing is worse and everything could be judged.
    pub(crate) fn is_good(&self) -> bool {
        self.having(Verdict::Regression).is_empty()
            && self.having(Verdict::NotComparable).is_empty()
            && !self.lacks
    }

    /// What it comes to, in one sentence.
    pub(crate) fn verdict(&self) -> String {
        let (worse, better) = (
            self.having(Verdict::Regression),
            self.having(Verdict::Improvement),
        );
        if !worse.is_empty() {
            let plural = if worse.len() == 1 { "" } else { "s" };
            return format!("{} regression{plural}: {}", worse.len(), worse.join("; "));
        }
        if self.lacks || !self.having(Verdict::NotComparable).is_empty() {
            return "NOT COMPARABLE: see above; --across judges all the same".into();
        }
        let open = (self.judged())
            .filter(|(_, judged)| matches!(judged.verdict, Verdict::CannotTell { .. }));
        let (open, all) = (open.count(), self.judged().count());
        let better = match better.is_empty() {
            true => String::new(),
            false => format!("; better: {}", better.join("; ")),
        };
        match open {
            0 => format!("no regression{better}"),
            open => format!(
                "no regression found; {open} of {all} figures cannot be told with so few runs{better}"
            ),
        }
    }

    fn status(&self) -> ExitCode {
        if !self.having(Verdict::Regression).is_empty() {
            ExitCode::FAILURE
        } else if self.is_good() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(NOT_COMPARABLE)
        }
    }

    fn print(&self) {
        for pair in &self.pairs {
            let (before, after) = (&pair.before, &pair.after);
            println!(
                "{}: {} ({} runs) → {} ({} runs)",
                after.scenario,
                before.commit,
                before.runs.len(),
                after.commit,
                after.runs.len()
            );
            pair.obstacles
                .iter()
                .for_each(|obstacle| println!("  !! {obstacle}"));
            pair.notes.iter().for_each(|note| println!("  {note}"));
            table(&pair.figures, self.rules.tolerance);
            println!();
        }
        if !self.stages.is_empty() {
            println!("stages, time per row, record or byte");
            self.stage_obstacles
                .iter()
                .for_each(|obstacle| println!("  !! {obstacle}"));
            self.stage_notes
                .iter()
                .for_each(|note| println!("  {note}"));
            table(&self.stages, self.rules.tolerance);
            println!();
        }
        self.unmatched.iter().for_each(|line| println!("{line}"));
        println!("{}", self.verdict());
    }
}

fn table(figures: &[Judged], tolerance: f64) {
    let widest = figures
        .iter()
        .map(|figure| figure.name.chars().count())
        .max();
    let width = widest.unwrap_or(0).max(26) + 2;
    println!(
        "  {:<width$}{:>12}{:>12}{:>10}{:>22}  verdict",
        "", "before", "after", "change", "interval"
    );
    for figure in figures {
        let (moved, interval) = match &figure.difference {
            Some(of) => (
                change(of.ratio),
                format!("{} … {}", change(of.low), change(of.high)),
            ),
            None => (change(figure.ratio), "unknown".into()),
        };
        println!(
            "  {:<width$}{:>12}{:>12}{moved:>10}{interval:>22}  {}",
            figure.name,
            figure.before,
            figure.after,
            figure.said(tolerance)
        );
    }
}

type Documents = (
    crate::report::document::Document,
    crate::report::document::Document,
);

/// Reports of the same scenario; two single reports whatever they are of. What only `before` has, and what only `after` has.
fn joined(before: &Side, after: &Side) -> (Vec<Documents>, Vec<String>, Vec<String>) {
    if let (1, 1) = (before.reports.len(), after.reports.len()) {
        let pair = before
            .reports
            .values()
            .cloned()
            .zip(after.reports.values().cloned());
        return (
            pair.collect(),
            stages_only(before, after),
            stages_only(after, before),
        );
    }
    let pairs = (before.reports.iter())
        .filter_map(|(name, report)| Some((report.clone(), after.reports.get(name)?.clone())));
    let only = |one: &Side, other: &Side| {
        let names = (one.reports.keys()).filter(|name| !other.reports.contains_key(*name));
        let reports = names.map(|name| format!("only in {}: {name}", one.shown));
        reports.chain(stages_only(one, other)).collect()
    };
    (pairs.collect(), only(before, after), only(after, before))
}

/// Stages that `one` has and `other` has not; a word where `other` has none at all.
fn stages_only(one: &Side, other: &Side) -> Vec<String> {
    let shown = &one.shown;
    match (&one.stages, &other.stages) {
        (None, _) => Vec::new(),
        (Some(_), None) => vec![format!("only in {shown}: stages")],
        (Some(of), Some(others)) => (of.only(others).iter())
            .map(|name| format!("only in {shown}: stage {name}"))
            .collect(),
    }
}

/// Figures of a scenario that `one` alone has, in a line.
fn figures_only(one: &Side, scenario: &str, names: &[&str]) -> Option<String> {
    let names = names.join("; ");
    (!names.is_empty()).then(|| format!("only in {}: {scenario}: {names}", one.shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    const RULES: Rules = Rules {
        tolerance: 1.05,
        alpha: 0.05,
    };

    fn side(rate: f64) -> Side {
        let report = samples::document(5, rate);
        let stage = |name: &str, ns: f64| stages::Stage {
            name: name.into(),
            per: stages::Per::Element,
            count: 1000,
            processes: vec![stages::Process {
                median_ns: ns,
                error_ns: ns / 1e3,
                samples: 50,
            }],
        };
        Side {
            shown: format!("{rate}"),
            reports: [(report.scenario.clone(), report)].into(),
            stages: Some(Stages {
                version: "0.1.0".into(),
                machine: "m".into(),
                commit: "c".into(),
                stages: vec![
                    stage("decode/ours", 6e10 / rate),
                    stage("decode/theirs", 1e6),
                ],
            }),
        }
    }

    #[test]
    fn a_regression_is_named_and_the_status_says_so() {
        let comparison = Comparison::of(side(2e6), side(1.5e6), RULES, false).unwrap();
        let verdict = comparison.verdict();
        assert!(
            verdict.contains("mysql-1m: changes per second −25.0 %"),
            "{verdict}"
        );
        assert!(verdict.contains("stages: decode/ours +33.3 %"), "{verdict}");
        assert!(!verdict.contains("theirs"), "{verdict}");
        assert_eq!(comparison.status(), ExitCode::FAILURE);
        let same = Comparison::of(side(2e6), side(2e6), RULES, false).unwrap();
        assert!(
            same.verdict().starts_with("no regression"),
            "{}",
            same.verdict()
        );
        assert_eq!(same.status(), ExitCode::SUCCESS);
    }

    #[test]
    fn a_run_that_misses_its_time_is_a_regression_and_no_obstacle() {
        let mut after = side(2e6 / 1.5);
        let miss = "expected at most 0.6 seconds, measured 0.75";
        for report in after.reports.values_mut() {
            report.unmet = vec![miss.into()];
        }
        let comparison = Comparison::of(side(2e6), after, RULES, false).unwrap();
        assert_eq!(comparison.status(), ExitCode::FAILURE);
        let pair = &comparison.pairs[0];
        assert_eq!(pair.obstacles, [""; 0]);
        let note = format!("the report after misses what is expected: {miss}");
        assert!(pair.notes.contains(&note), "{:?}", pair.notes);
    }

    #[test]
    fn another_machine_has_a_status_of_its_own() {
        let mut after = side(1.5e6);
        after
            .reports
            .values_mut()
            .for_each(|report| report.machine = "other, 8 cores".into());
        after.stages.as_mut().unwrap().machine = "other".into();
        let comparison = Comparison::of(side(2e6), after.clone(), RULES, false).unwrap();
        assert_eq!(comparison.status(), ExitCode::from(NOT_COMPARABLE));
        assert!(comparison.verdict().starts_with("NOT COMPARABLE"));
        let across = Comparison::of(side(2e6), after, RULES, true).unwrap();
        assert_eq!(across.status(), ExitCode::FAILURE);
        // Of the same name, but another generation; what an older file does not say is only said.
        let (mut old, mut new) = (side(2e6), side(2e6));
        let machine = |model: u32| format!("m (family 25 model {model} stepping 1)");
        old.stages.as_mut().unwrap().machine = machine(1);
        new.stages.as_mut().unwrap().machine = machine(17);
        let comparison = Comparison::of(old, new.clone(), RULES, false).unwrap();
        assert_eq!(comparison.stage_obstacles.len(), 1);
        assert_eq!(comparison.status(), ExitCode::from(NOT_COMPARABLE));
        let comparison = Comparison::of(side(2e6), new, RULES, false).unwrap();
        assert_eq!(comparison.status(), ExitCode::SUCCESS);
        assert_eq!(comparison.stage_notes.len(), 1);
    }

    #[test]
    fn what_is_gone_is_said_and_not_good() {
        let mut fewer = side(2e6);
        fewer.stages.as_mut().unwrap().stages.pop();
        let compared = |before, after, across| Comparison::of(before, after, RULES, across);
        let gone = compared(side(2e6), fewer.clone(), false).unwrap();
        assert_eq!(gone.unmatched, ["only in 2000000: stage decode/theirs"]);
        assert_eq!(gone.status(), ExitCode::from(NOT_COMPARABLE));
        assert!(gone.verdict().starts_with("NOT COMPARABLE") && !gone.is_good());
        let across = compared(side(2e6), fewer.clone(), true).unwrap();
        assert_eq!(across.status(), ExitCode::SUCCESS);
        // What is new has nothing to be worse than.
        let new = compared(fewer, side(2e6), false).unwrap();
        assert_eq!(new.unmatched, ["only in 2000000: stage decode/theirs"]);
        assert_eq!(new.status(), ExitCode::SUCCESS);

        let mut more = side(2e6);
        let another = samples::document(5, 2e6);
        more.reports.insert("postgres-1m".into(), another);
        let gone = compared(more, side(2e6), false).unwrap();
        assert_eq!(gone.unmatched, ["only in 2000000: postgres-1m"]);
        assert_eq!(gone.status(), ExitCode::from(NOT_COMPARABLE));
        let mut bare = side(2e6);
        bare.stages = None;
        let gone = compared(side(2e6), bare, false).unwrap();
        assert_eq!(gone.unmatched, ["only in 2000000: stages"]);
        assert_eq!(gone.status(), ExitCode::from(NOT_COMPARABLE));
        // A regression is one, whatever is missing.
        let mut worse = side(1e6);
        worse.stages = None;
        let worse = compared(side(2e6), worse, false).unwrap();
        assert_eq!(worse.status(), ExitCode::FAILURE);
    }

    #[test]
    fn a_figure_that_is_gone_is_not_good() {
        let mut without = side(2e6);
        for report in without.reports.values_mut() {
            report.runs.iter_mut().for_each(|run| run.latency_ms = None);
        }
        let compared = |before, after, across| Comparison::of(before, after, RULES, across);
        let gone = compared(side(2e6), without.clone(), false).unwrap();
        let line = "only in 2000000: mysql-1m: latency, median; latency, 99 %; latency, 99.9 %";
        assert_eq!(gone.unmatched, [line]);
        assert_eq!(gone.status(), ExitCode::from(NOT_COMPARABLE));
        assert!(gone.verdict().starts_with("NOT COMPARABLE") && !gone.is_good());
        let across = compared(side(2e6), without.clone(), true).unwrap();
        assert_eq!(across.status(), ExitCode::SUCCESS);
        let new = compared(without, side(2e6), false).unwrap();
        assert_eq!(new.unmatched, [line]);
        assert_eq!(new.status(), ExitCode::SUCCESS);
    }

    #[test]
    fn what_cannot_be_read_is_no_regression() {
        let args = Args {
            before: "/nowhere/a.json".into(),
            after: "/nowhere/b.json".into(),
            html: None,
            tolerance: 5.0,
            confidence: 95.0,
            across: false,
        };
        assert_eq!(run(&args).unwrap(), ExitCode::from(NOT_COMPARABLE));
    }

    #[test]
    fn nothing_in_common_is_an_error_that_names_what_there_is() {
        let mut before = side(2e6);
        before.stages = None;
        let mut after = side(2e6);
        after.reports.clear();
        let error = Comparison::of(before, after, RULES, false).unwrap_err();
        assert!(
            error.contains("only in 2000000: mysql-1m") && error.contains("stages"),
            "{error}"
        );
    }

    #[test]
    fn a_page_holds_both_sides_and_loads_nothing() {
        let comparison = Comparison::of(side(2e6), side(1.5e6), RULES, false).unwrap();
        let page = page::html(&comparison).unwrap();
        for text in [
            "regression",
            "before",
            "after",
            "decode/theirs",
            "−25.0 %",
            "Latency percentiles",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert_eq!(page.matches("<svg").count(), 5);
        for text in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(text), "{text}");
        }
        if let Some(path) = std::env::var_os("WALBROOK_COMPARE_PAGE") {
            std::fs::write(path, page).unwrap();
        }
    }

    #[test]
    fn percentages_are_checked() {
        assert_eq!(percent("5"), Ok(5.0));
        assert!(percent("0").is_err() && percent("100").is_err() && percent("x").is_err());
    }
}
