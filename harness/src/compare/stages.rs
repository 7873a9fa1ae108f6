//! Criterion's results as the small file that `harness stages` makes of them, and how two of them are judged, so that one page shows
//! stages beside wholes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::judgement::{Better, Judged, Verdict, median};
use super::statistics::{self, Difference, Mean};
use crate::report::number::{self, counted};

/// Standard deviation between processes that run the same bench, as a part of the figure, where only one process was measured: layout and
/// caches differ from process to process, and the samples of one do not show it.
const BETWEEN_PROCESSES: f64 = 0.02;

/// All benches of a commit on a machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stages {
    /// Version of the harness that gathered them.
    pub version: String,
    /// Processor, cores and kernel.
    pub machine: String,
    /// Commit that the benches were built from, as far as that is known.
    pub commit: String,
    /// Who says so; older files do not say, and have the harness's.
    #[serde(default)]
    pub commit_of: CommitOf,
    /// One entry per bench, in the order of names.
    pub stages: Vec<Stage>,
}

/// Who said which commit the benches were built from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitOf {
    /// Nobody: it is the commit of the harness that gathered the results.
    #[default]
    Harness,
    /// The benches, beside each result.
    Benches,
}

/// One bench.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Group and function: `decode/mysql_common`.
    pub name: String,
    /// What an iteration goes through.
    pub per: Per,
    /// How many of them.
    pub count: u64,
    /// What each process measured.
    pub processes: Vec<Process>,
}

/// What a throughput counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Rows, records.
    Element,
    /// Bytes.
    Byte,
    /// Nothing: the iteration itself.
    Iteration,
}

/// One process's figures, of one iteration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Median over the samples.
    pub median_ns: f64,
    /// Standard error of the median.
    pub error_ns: f64,
    /// How many samples.
    pub samples: usize,
}

impl Stage {
    /// Nanoseconds per element, byte or iteration: median over the processes.
    #[must_use]
    pub fn each_ns(&self) -> f64 {
        median(&self.processes()) / self.count.max(1) as f64
    }

    /// As people read it: `29.1 ns` or `1.27 GB/s`.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.per {
            Per::Element => number::milliseconds(self.each_ns() / 1e6),
            Per::Iteration => number::milliseconds(self.each_ns() / 1e6),
            Per::Byte => format!("{} GB/s", number::three_digits(1.0 / self.each_ns())),
        }
    }

    /// What an iteration goes through, and how much of it.
    #[must_use]
    pub fn work(&self) -> (Per, u64) {
        (self.per, self.count)
    }

    fn group(&self) -> &str {
        self.name.split_once('/').map_or("", |(group, _)| group)
    }

    fn is_ours(&self) -> bool {
        let (_, bench) = self.name.split_once('/').unwrap_or_default();
        bench.starts_with("walbrook")
    }

    fn processes(&self) -> Vec<f64> {
        self.processes
            .iter()
            .map(|process| process.median_ns)
            .collect()
    }

    fn mean(&self) -> Option<Mean> {
        match self.processes.as_slice() {
            [one] => Mean::of_one(one.median_ns, one.error_ns, BETWEEN_PROCESSES),
            _ => Mean::of_runs(&self.processes()),
        }
    }
}

/// Benches of both sides that do other work, and so are no measure of each other; a line each.
#[must_use]
pub fn other_work(before: &Stages, after: &Stages) -> Vec<String> {
    let pairs = before.stages.iter().filter_map(|stage| {
        let other = after.stages.iter().find(|other| other.name == stage.name)?;
        (stage.work() != other.work()).then_some((stage, other))
    });
    let said = |stage: &Stage| {
        let what = match stage.per {
            Per::Element => "element",
            Per::Byte => "byte",
            Per::Iteration => "iteration",
        };
        counted(stage.count as usize, what)
    };
    let line = |(before, after): (&Stage, &Stage)| {
        let (name, old, new) = (&before.name, said(before), said(after));
        format!("{name} does other work: {old} before, {new} after")
    };
    pairs.map(line).collect()
}

/// Judges the benches that both sides have: times, of which less is better, and bytes by time, of which more is.
#[must_use]
pub fn judged(before: &Stages, after: &Stages, tolerance: f64, alpha: f64) -> Vec<Judged> {
    let pairs: Vec<(&Stage, &Stage)> = (before.stages.iter())
        .filter_map(|stage| {
            let other = after.stages.iter().find(|other| other.name == stage.name)?;
            Some((stage, other))
        })
        .collect();
    let alpha = alpha / pairs.len().max(1) as f64;
    // Where one of a group is ours by name, the others are peers; where none is, all are ways of ours.
    let all = before.stages.iter().chain(&after.stages);
    let ours = all.filter(|stage| stage.is_ours());
    let ours: BTreeSet<&str> = ours.map(Stage::group).collect();
    let judge = |(before, after): &(&Stage, &Stage)| {
        let times = (before.mean().zip(after.mean()))
            .map(|(before, after)| statistics::difference(&before, &after, alpha));
        let ratio = after.each_ns() / before.each_ns();
        let (better, difference, ratio) = match before.per {
            Per::Byte => (Better::Higher, times.map(Difference::inverted), 1.0 / ratio),
            Per::Element | Per::Iteration => (Better::Lower, times, ratio),
        };
        let same_work = before.work() == after.work();
        Judged {
            name: before.name.clone(),
            before: before.shown(),
            after: after.shown(),
            ratio,
            better,
            verdict: match same_work {
                true => Verdict::of(difference.as_ref(), better, tolerance, alpha),
                false => Verdict::NotComparable,
            },
            difference: difference.filter(|_| same_work),
            // Of processes: the page says what is assumed of one.
            is_noise_assumed: false,
            is_peer: ours.contains(before.group()) && !before.is_ours(),
        }
    };
    pairs.iter().map(judge).collect()
}

impl Stages {
    /// Reads a file that `harness stages` wrote.
    ///
    /// # Errors
    /// What is wrong with it; the caller names the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let stages: Self = serde_json::from_str(text)
            .map_err(|error| format!("{error}: this is no file of `harness stages`"))?;
        for stage in &stages.stages {
            let sound = |of: &Process| {
                of.median_ns.is_finite()
                    && of.median_ns > 0.0
                    && of.error_ns.is_finite()
                    && of.error_ns >= 0.0
            };
            if stage.processes.is_empty() || !stage.processes.iter().all(sound) {
                return Err(format!(
                    "{}: a median that is no positive number, or none at all",
                    stage.name
                ));
            }
        }
        Ok(stages)
    }

    /// A line for readers where the commit is not the benches' own word.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        (self.commit_of == CommitOf::Harness).then(|| {
            format!(
                "criterion's results do not say what they were built from: {} is the commit of the harness that gathered them",
                self.commit
            )
        })
    }

    /// The names of benches that `others` has not.
    #[must_use]
    pub fn only(&self, others: &Self) -> Vec<&str> {
        let names = self.stages.iter().map(|stage| stage.name.as_str());
        names
            .filter(|name| others.stages.iter().all(|stage| stage.name != *name))
            .collect()
    }

    /// Adds another process's figures to those of the same benches; benches that are new are added.
    ///
    /// # Errors
    /// Another machine, commit or amount of work.
    pub fn add(&mut self, other: Self) -> Result<(), String> {
        for (what, ours, theirs) in [
            ("machine", &self.machine, &other.machine),
            ("commit", &self.commit, &other.commit),
        ] {
            if ours != theirs {
                return Err(format!(
                    "the file is of {what} `{ours}`, these results are of `{theirs}`: one file holds one {what}"
                ));
            }
        }
        // Only as sure as the less sure of both.
        if other.commit_of == CommitOf::Harness {
            self.commit_of = CommitOf::Harness;
        }
        for stage in other.stages {
            match self.stages.iter_mut().find(|ours| ours.name == stage.name) {
                Some(ours) if ours.work() != stage.work() => {
                    return Err(format!(
                        "{}: the file's iterations do other work than these",
                        stage.name
                    ));
                }
                // The same results gathered twice are one process's.
                Some(ours) => {
                    let new = stage.processes.into_iter();
                    let new: Vec<Process> = new
                        .filter(|process| !ours.processes.contains(process))
                        .collect();
                    ours.processes.extend(new);
                }
                None => self.stages.push(stage),
            }
        }
        self.stages
            .sort_by(|left, right| left.name.cmp(&right.name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::criterion::tests::criterion;

    fn stages(benches: &[(&str, f64)]) -> Stages {
        Stages::of_criterion(criterion(benches, "new").path(), "new").unwrap()
    }

    #[test]
    fn a_file_that_is_none_of_ours_says_so() {
        let error = Stages::parse("{\"version\":1}").unwrap_err();
        assert!(error.contains("no file of `harness stages`"), "{error}");
    }

    #[test]
    fn several_processes_are_judged_by_what_lies_between_them() {
        let merged = |medians: &[f64]| {
            let mut all = stages(&[("a/b", medians[0])]);
            medians[1..]
                .iter()
                .for_each(|median| all.add(stages(&[("a/b", *median)])).unwrap());
            all
        };
        let before = merged(&[100.0, 101.0, 99.0]);
        let of = |after: &Stages| judged(&before, after, 1.05, 0.05)[0].verdict;
        assert_eq!(of(&merged(&[130.0, 131.0, 129.0])), Verdict::Regression);
        assert_eq!(of(&merged(&[80.0, 81.0, 79.5])), Verdict::Improvement);
        assert_eq!(of(&merged(&[100.5, 99.0, 101.0])), Verdict::Equal);
        let mut twice = merged(&[100.0]);
        twice.add(merged(&[100.0])).unwrap();
        assert_eq!(twice.stages[0].processes.len(), 1, "gathered twice");
    }

    #[test]
    fn one_process_is_believed_only_beyond_what_processes_differ_by() {
        let of = |before: f64, after: f64| {
            judged(
                &stages(&[("a/b", before)]),
                &stages(&[("a/b", after)]),
                1.05,
                0.05,
            )[0]
            .verdict
        };
        assert_eq!(of(100.0, 120.0), Verdict::Regression);
        assert_eq!(of(100.0, 80.0), Verdict::Improvement);
        assert!(
            matches!(of(100.0, 104.0), Verdict::CannotTell { .. }),
            "{:?}",
            of(100.0, 104.0)
        );
    }

    #[test]
    fn more_bytes_by_time_is_better_and_shown_as_more() {
        let bytes = |ns: f64| {
            let mut stages = stages(&[("frame/walbrook", ns)]);
            stages.stages[0].per = Per::Byte;
            stages
        };
        let of =
            |before: f64, after: f64| judged(&bytes(before), &bytes(after), 1.05, 0.05).remove(0);
        let faster = of(1000.0, 800.0);
        assert_eq!(
            (faster.before.as_str(), faster.after.as_str()),
            ("1.00 GB/s", "1.25 GB/s")
        );
        assert!((faster.ratio - 1.25).abs() < 1e-9);
        assert!(
            faster.change().starts_with("+25.0 % (+"),
            "{}",
            faster.change()
        );
        assert_eq!(faster.verdict, Verdict::Improvement);
        let slower = of(800.0, 1000.0);
        assert!(
            slower.change().starts_with("−20.0 % (−"),
            "{}",
            slower.change()
        );
        assert_eq!(slower.verdict, Verdict::Regression);
    }

    #[test]
    fn a_peer_is_one_where_another_of_its_group_is_ours() {
        let names = [
            "decode/serde",
            "decode/walbrook walk",
            "receive/epoll",
            "receive/uring",
        ];
        let stages = stages(&names.map(|name| (name, 100.0)));
        let judged = judged(&stages, &stages, 1.05, 0.05);
        let peers = judged.iter().filter(|judged| judged.is_peer);
        let peers: Vec<&str> = peers.map(|judged| judged.name.as_str()).collect();
        assert_eq!(peers, ["decode/serde"]);
    }

    #[test]
    fn a_file_is_as_sure_of_its_commit_as_the_least_sure_results_in_it() {
        let [assumed, known] = [CommitOf::Harness, CommitOf::Benches].map(|commit_of| Stages {
            commit_of,
            commit: "c0ffee".into(),
            ..stages(&[("a/b", 100.0)])
        });
        for (first, second) in [(&assumed, &known), (&known, &assumed)] {
            let mut both = first.clone();
            both.add(second.clone()).unwrap();
            assert_eq!(both.commit_of, CommitOf::Harness);
            let doubt = both.doubt().unwrap();
            assert!(
                doubt.contains("c0ffee is the commit of the harness"),
                "{doubt}"
            );
        }
        assert_eq!(known.doubt(), None);
        // A file from before benches wrote down what they were built from.
        let mut file = serde_json::to_value(&known).unwrap();
        assert_eq!(file["commit_of"], "benches");
        file.as_object_mut().unwrap().remove("commit_of");
        let older = Stages::parse(&file.to_string()).unwrap();
        assert_eq!(older.commit_of, CommitOf::Harness);
    }

    #[test]
    fn other_work_is_no_comparison() {
        let before = stages(&[("a/b", 100.0)]);
        let mut after = before.clone();
        after.stages[0].count = 2000;
        assert_eq!(
            judged(&before, &after, 1.05, 0.05)[0].verdict,
            Verdict::NotComparable
        );
        let expected = "a/b does other work: 1000 elements before, 2000 elements after";
        assert_eq!(other_work(&before, &after), [expected]);
        assert_eq!(other_work(&before, &before), [""; 0]);
        let mut elsewhere = before.clone();
        elsewhere.machine = "another".into();
        let error = elsewhere.add(before).unwrap_err();
        assert!(error.contains("one file holds one machine"), "{error}");
    }
}
