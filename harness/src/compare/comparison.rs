//! Two sides joined by scenario and bench, and what they come to together: a sentence, and an exit status.

use std::process::ExitCode;

use super::join::{self, Join, Lacking};
use super::judgement::{Judged, Rules, Verdict};
use super::side::Side;
use super::whole::{self, Pair};
use super::{machine, stages};
use crate::report::number::counted;

/// Exit status when not everything could be judged: another machine, scenario or setting, something that B lacks, files that cannot be read.
pub(super) const NOT_COMPARABLE: u8 = 2;

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
    /// What only one side has, in lines.
    pub(crate) unmatched: Vec<String>,
    /// What B lacks of A, and that matters: what is gone cannot be told to be no worse.
    lacking: Lacking,
}

impl Comparison {
    /// Joins and judges.
    ///
    /// # Errors
    /// When there is nothing that both sides have.
    pub(crate) fn of(
        before: Side,
        after: Side,
        rules: Rules,
        passed: Join,
    ) -> Result<Self, String> {
        let pairs = whole::judged(join::pairs(&before, &after), &rules, passed.across);
        let (unmatched, lacking) = join::unmatched(&before, &after, &pairs, passed);
        let mut comparison = Self {
            pairs,
            unmatched,
            lacking,
            rules,
            stages: Vec::new(),
            stage_obstacles: Vec::new(),
            stage_notes: Vec::new(),
            before,
            after,
        };
        comparison.judge_stages(passed);
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

    fn judge_stages(&mut self, passed: Join) {
        let (Some(old), Some(new)) = (&self.before.stages, &self.after.stages) else {
            return;
        };
        self.stages = stages::judged(old, new, self.rules.tolerance, self.rules.alpha);
        if let Some((old, new)) = machine::difference(&old.machine, &new.machine) {
            let obstacle = format!("different machines: {old} before, {new} after");
            self.stage_obstacles.push(obstacle);
        }
        self.stage_notes = machine::notes(&old.machine, &new.machine);
        self.stage_notes.extend(stages::other_work(old, new));
        self.stage_notes.extend(of_peers(&self.stages));
        for (side, of) in [("before", old), ("after", new)] {
            let doubt = of.doubt().map(|doubt| format!("{side}: {doubt}"));
            self.stage_notes.extend(doubt);
        }
        if !self.stage_obstacles.is_empty() && !passed.across {
            for stage in &mut self.stages {
                stage.verdict = Verdict::NotComparable;
            }
        }
    }

    /// Every judged figure of ours, with the scenario or `stages`.
    pub(crate) fn judged(&self) -> impl Iterator<Item = (&str, &Judged)> {
        let whole = (self.pairs.iter()).flat_map(|pair| {
            pair.figures
                .iter()
                .map(|figure| (pair.after.scenario.as_str(), figure))
        });
        let stages = self.stages.iter().filter(|stage| !stage.is_peer);
        whole.chain(stages.map(|stage| ("stages", stage)))
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
            && !self.lacking.is_something()
    }

    /// What it comes to: a sentence, and the figures that it is about, each in a line.
    pub(crate) fn verdict(&self) -> (String, Vec<String>) {
        let worse = self.having(Verdict::Regression);
        if !worse.is_empty() {
            return (counted(worse.len(), "regression"), worse);
        }
        let all = self.judged().count();
        let unlike = self.having(Verdict::NotComparable).len();
        if unlike > 0 {
            let text = format!(
                "NOT COMPARABLE: {unlike} of {all} figures, for what is said with them; --across judges all the same"
            );
            return (text, Vec::new());
        }
        if self.lacking.is_something() {
            let lacking = self.lacking.text();
            let text =
                format!("NOT COMPARABLE: B lacks {lacking}; no regression in what both have");
            return (text, Vec::new());
        }
        let open = (self.judged())
            .filter(|(_, judged)| matches!(judged.verdict, Verdict::CannotTell { .. }));
        let text = match open.count() {
            0 => "no regression".to_owned(),
            open => format!(
                "no regression found; {open} of {all} figures cannot be told with so few runs"
            ),
        };
        match self.having(Verdict::Improvement) {
            better if better.is_empty() => (text, better),
            better => (format!("{text}; {} better", better.len()), better),
        }
    }

    /// The exit status.
    pub(crate) fn status(&self) -> ExitCode {
        if !self.having(Verdict::Regression).is_empty() {
            ExitCode::FAILURE
        } else if self.is_good() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(NOT_COMPARABLE)
        }
    }
}

/// A line where peers are not what they were: nothing in them is ours, so something else differs.
fn of_peers(stages: &[Judged]) -> Option<String> {
    let peers = || stages.iter().filter(|stage| stage.is_peer);
    let changed =
        |judged: &&Judged| matches!(judged.verdict, Verdict::Regression | Verdict::Improvement);
    let (changed, all) = (peers().filter(changed).count(), peers().count());
    (changed > 0).then(|| {
        format!(
            "slower or faster are also {changed} of {}, in which nothing is ours: sessions or the peers' versions differ by as much",
            counted(all, "peer")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::page;
    use crate::compare::stages::{CommitOf, Stages};
    use crate::report::samples;

    const ACROSS: Join = Join {
        across: true,
        part: false,
    };
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
            is_one: false,
            reports: [(report.scenario.clone(), report)].into(),
            stages: Some(Stages {
                version: "0.1.0".into(),
                machine: "m".into(),
                commit: "c".into(),
                commit_of: CommitOf::Benches,
                stages: vec![
                    stage("decode/walbrook", 6e10 / rate),
                    stage("decode/theirs", 1e6),
                ],
            }),
        }
    }

    /// The verdict, line by line.
    fn said(comparison: &Comparison) -> String {
        let (text, figures) = comparison.verdict();
        [vec![text], figures].concat().join("\n")
    }

    #[test]
    fn a_slower_peer_is_no_regression_but_a_measure_of_what_else_differs() {
        let mut after = side(2e6);
        for process in &mut after.stages.as_mut().unwrap().stages[1].processes {
            process.median_ns *= 1.5;
        }
        let comparison = Comparison::of(side(2e6), after, RULES, Join::default()).unwrap();
        assert_eq!(comparison.stages[1].name, "decode/theirs");
        assert_eq!(comparison.stages[1].said(1.05), "slower, but a peer");
        assert_eq!(
            comparison.status(),
            ExitCode::SUCCESS,
            "{}",
            said(&comparison)
        );
        let note = "slower or faster are also 1 of 1 peer";
        assert!(
            comparison.stage_notes[0].starts_with(note),
            "{:?}",
            comparison.stage_notes
        );
    }

    #[test]
    fn a_regression_is_named_and_the_status_says_so() {
        let comparison = Comparison::of(side(2e6), side(1.5e6), RULES, Join::default()).unwrap();
        let verdict = said(&comparison);
        assert!(verdict.starts_with("3 regressions\n"), "{verdict}");
        assert!(
            verdict.contains("\nmysql-1m: changes per second −25.0 %"),
            "{verdict}"
        );
        assert!(
            verdict.contains("\nstages: decode/walbrook +33.3 %"),
            "{verdict}"
        );
        assert_eq!(comparison.status(), ExitCode::FAILURE);
        let same = Comparison::of(side(2e6), side(2e6), RULES, Join::default()).unwrap();
        assert!(said(&same).starts_with("no regression"), "{}", said(&same));
        assert_eq!(same.status(), ExitCode::SUCCESS);
    }

    #[test]
    fn a_run_that_misses_its_time_is_a_regression_and_no_obstacle() {
        let mut after = side(2e6 / 1.5);
        let miss = "expected at most 0.6 seconds, measured 0.75";
        for report in after.reports.values_mut() {
            report.unmet = vec![miss.into()];
        }
        let comparison = Comparison::of(side(2e6), after, RULES, Join::default()).unwrap();
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
        let comparison = Comparison::of(side(2e6), after.clone(), RULES, Join::default()).unwrap();
        assert_eq!(comparison.status(), ExitCode::from(NOT_COMPARABLE));
        assert!(said(&comparison).starts_with("NOT COMPARABLE"));
        let across = Comparison::of(side(2e6), after, RULES, ACROSS).unwrap();
        assert_eq!(across.status(), ExitCode::FAILURE);
        // Of the same name, but another generation; what an older file does not say is only said.
        let (mut old, mut new) = (side(2e6), side(2e6));
        let machine = |model: u32| format!("m (family 25 model {model} stepping 1)");
        old.stages.as_mut().unwrap().machine = machine(1);
        new.stages.as_mut().unwrap().machine = machine(17);
        let comparison = Comparison::of(old, new.clone(), RULES, Join::default()).unwrap();
        assert_eq!(comparison.stage_obstacles.len(), 1);
        assert_eq!(comparison.status(), ExitCode::from(NOT_COMPARABLE));
        let comparison = Comparison::of(side(2e6), new, RULES, Join::default()).unwrap();
        assert_eq!(comparison.status(), ExitCode::SUCCESS);
        assert_eq!(comparison.stage_notes.len(), 1);
    }

    #[test]
    fn what_is_gone_is_said_and_not_good() {
        let mut fewer = side(2e6);
        fewer.stages.as_mut().unwrap().stages.pop();
        let compared = |before, after, across: bool| {
            let join = if across { ACROSS } else { Join::default() };
            Comparison::of(before, after, RULES, join)
        };
        let gone = compared(side(2e6), fewer.clone(), false).unwrap();
        assert_eq!(gone.unmatched, ["only in 2000000: stage decode/theirs"]);
        assert_eq!(gone.status(), ExitCode::from(NOT_COMPARABLE));
        assert!(said(&gone).starts_with("NOT COMPARABLE") && !gone.is_good());
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
    fn a_part_is_compared_with_what_a_has_of_it() {
        let whole = || {
            let mut whole = side(2e6);
            let another = samples::document(5, 2e6);
            whole.reports.insert("postgres-1m".into(), another);
            whole
        };
        let mut report = side(2e6);
        report.stages = None;
        let of = |after: &Side, part: bool| {
            let join = Join {
                part,
                across: false,
            };
            Comparison::of(whole(), after.clone(), RULES, join).unwrap()
        };
        // A directory in which something is missing, and one that is said to be a part.
        let gone = of(&report, false);
        assert_eq!(gone.status(), ExitCode::from(NOT_COMPARABLE));
        let expected = "NOT COMPARABLE: B lacks 1 scenario, 2 stages of A (--part leaves them out); no regression in what both have";
        assert_eq!(said(&gone), expected);
        let part = of(&report, true);
        assert_eq!(part.status(), ExitCode::SUCCESS, "{}", said(&part));
        let lines = ["only in 2000000: postgres-1m", "only in 2000000: stages"];
        assert_eq!(part.unmatched, lines);
        // A report by itself, and stages by themselves.
        report.is_one = true;
        let one = of(&report, false);
        assert_eq!(one.status(), ExitCode::SUCCESS);
        assert_eq!(one.unmatched[0], "only in 2000000: 1 scenario");
        let mut stages = side(2e6);
        (stages.reports, stages.is_one) = ([].into(), true);
        assert_eq!(of(&stages, false).status(), ExitCode::SUCCESS);
        // Of which none may be missing either, unless that is said; nor may a scenario's figures.
        stages.stages.as_mut().unwrap().stages.pop();
        let fewer = of(&stages, false);
        assert_eq!(fewer.status(), ExitCode::from(NOT_COMPARABLE));
        assert!(said(&fewer).contains("B lacks 1 stage of A"));
        assert_eq!(of(&stages, true).status(), ExitCode::SUCCESS);
        for document in report.reports.values_mut() {
            document
                .runs
                .iter_mut()
                .for_each(|run| run.latency_ms = None);
        }
        let figures = of(&report, true);
        assert_eq!(figures.status(), ExitCode::from(NOT_COMPARABLE));
        let expected = "B lacks 3 figures of A (--across judges all the same)";
        assert!(said(&figures).contains(expected), "{}", said(&figures));
    }

    #[test]
    fn another_kernel_is_no_obstacle_to_stages() {
        let on = |kernel: &str| {
            let mut side = side(2e6);
            side.stages.as_mut().unwrap().machine = format!("m, 2 cores, Linux {kernel}");
            side
        };
        let comparison = Comparison::of(on("6.1"), on("6.2"), RULES, Join::default()).unwrap();
        assert_eq!(comparison.stage_obstacles, [""; 0]);
        assert!(comparison.stage_notes[0].starts_with("another kernel: "));
        assert_eq!(comparison.status(), ExitCode::SUCCESS);
    }

    #[test]
    fn stages_of_an_unknown_commit_are_said_to_be() {
        let mut before = side(2e6);
        before.stages.as_mut().unwrap().commit_of = CommitOf::Harness;
        let comparison = Comparison::of(before, side(2e6), RULES, Join::default()).unwrap();
        let said = "before: criterion's results do not say what they were built from: c is the commit of the harness";
        let page = page::html(&comparison).unwrap();
        assert_eq!(comparison.stage_notes.len(), 1);
        assert!(comparison.stage_notes[0].starts_with(said));
        assert!(page.contains(said), "{page}");
    }

    #[test]
    fn a_figure_that_is_gone_is_not_good() {
        let mut without = side(2e6);
        for report in without.reports.values_mut() {
            report.runs.iter_mut().for_each(|run| run.latency_ms = None);
        }
        let compared = |before, after, across: bool| {
            let join = if across { ACROSS } else { Join::default() };
            Comparison::of(before, after, RULES, join)
        };
        let gone = compared(side(2e6), without.clone(), false).unwrap();
        let line = "only in 2000000: mysql-1m: latency, median; latency, 99 %; latency, 99.9 %";
        assert_eq!(gone.unmatched, [line]);
        assert_eq!(gone.status(), ExitCode::from(NOT_COMPARABLE));
        assert!(said(&gone).starts_with("NOT COMPARABLE") && !gone.is_good());
        let across = compared(side(2e6), without.clone(), true).unwrap();
        assert_eq!(across.status(), ExitCode::SUCCESS);
        let new = compared(without, side(2e6), false).unwrap();
        assert_eq!(new.unmatched, [line]);
        assert_eq!(new.status(), ExitCode::SUCCESS);
    }

    #[test]
    fn nothing_in_common_is_an_error_that_names_what_there_is() {
        let mut before = side(2e6);
        before.stages = None;
        let mut after = side(2e6);
        after.reports.clear();
        let error = Comparison::of(before, after, RULES, Join::default()).unwrap_err();
        assert!(
            error.contains("only in 2000000: mysql-1m") && error.contains("stages"),
            "{error}"
        );
    }

    #[test]
    fn a_page_holds_both_sides_and_loads_nothing() {
        let comparison = Comparison::of(side(2e6), side(1.5e6), RULES, Join::default()).unwrap();
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
}
