//! Criterion's results: read from its own directory or from the small file that `harness stages` makes of it, so that one page shows
//! stages beside wholes.
//!
//! ```text
//! target/criterion/GROUP/BENCH/new/{benchmark,estimates,sample}.json    what the last `cargo bench` measured
//! target/criterion/GROUP/BENCH/NAME/…                                   `cargo bench -p benches -- --save-baseline NAME`
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::judgement::{Better, Judged, Verdict, median};
use super::statistics::{self, Mean};
use crate::report::number;

/// Standard deviation between processes that run the same bench, as a part of the figure, where only one process was measured: layout and
/// caches differ from process to process, and the samples of one do not show it.
const BETWEEN_PROCESSES: f64 = 0.02;
/// Directories inside each other at most: group, bench, parameter.
const DEPTH_MAX: usize = 5;

/// All benches of a commit on a machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stages {
    /// Version of the harness that gathered them.
    pub version: String,
    /// Processor, cores and kernel.
    pub machine: String,
    /// Commit that the benches were built from.
    pub commit: String,
    /// One entry per bench, in the order of names.
    pub stages: Vec<Stage>,
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

/// Judges the benches that both sides have; time per iteration, so less is better.
#[must_use]
pub fn judged(before: &Stages, after: &Stages, tolerance: f64, alpha: f64) -> Vec<Judged> {
    let pairs: Vec<(&Stage, &Stage)> = (before.stages.iter())
        .filter_map(|stage| {
            let other = after.stages.iter().find(|other| other.name == stage.name)?;
            Some((stage, other))
        })
        .collect();
    let alpha = alpha / pairs.len().max(1) as f64;
    let judge = |(before, after): &(&Stage, &Stage)| {
        let difference = (before.mean().zip(after.mean()))
            .map(|(before, after)| statistics::difference(&before, &after, alpha));
        let same_work = (before.per, before.count) == (after.per, after.count);
        Judged {
            name: before.name.clone(),
            before: before.shown(),
            after: after.shown(),
            ratio: after.each_ns() / before.each_ns(),
            better: Better::Lower,
            verdict: match same_work {
                true => Verdict::of(difference.as_ref(), Better::Lower, tolerance, alpha),
                false => Verdict::NotComparable,
            },
            difference: difference.filter(|_| same_work),
            // Of processes: the page says what is assumed of one.
            is_noise_assumed: false,
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

    /// Reads criterion's directory; `baseline` is `new` for what was measured last.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what criterion writes; a directory without any results of that name.
    pub fn of_criterion(directory: &Path, baseline: &str) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        gather(directory, baseline, 0, &mut found)?;
        if found.is_empty() {
            return Err(format!(
                "{}: no results named `{baseline}`; make some: cargo bench -p benches, or with `-- --save-baseline {baseline}`",
                directory.display()
            ));
        }
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: crate::replay::report::machine(),
            commit: env!("WALBROOK_COMMIT").to_owned(),
            stages: found.into_values().collect(),
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
        for stage in other.stages {
            match self.stages.iter_mut().find(|ours| ours.name == stage.name) {
                Some(ours) if (ours.per, ours.count) != (stage.per, stage.count) => {
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

#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
enum Throughput {
    Elements(u64),
    Bytes(u64),
    BytesDecimal(u64),
    Bits(u64),
    ElementsAndBytes { elements: u64 },
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    standard_error: f64,
}

#[derive(Deserialize)]
struct Sample {
    times: Vec<f64>,
}

fn gather(
    directory: &Path,
    baseline: &str,
    depth: usize,
    found: &mut BTreeMap<String, Stage>,
) -> Result<(), String> {
    let results = directory.join(baseline);
    if results.join("estimates.json").is_file() {
        let stage = stage(&results)?;
        found.insert(stage.name.clone(), stage);
        return Ok(());
    }
    if depth == DEPTH_MAX {
        return Ok(());
    }
    let entries = std::fs::read_dir(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut below: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    below.sort();
    below
        .iter()
        .try_for_each(|path| gather(path, baseline, depth + 1, found))
}

fn stage(results: &Path) -> Result<Stage, String> {
    let benchmark: Benchmark = json(&results.join("benchmark.json"))?;
    let estimates: Estimates = json(&results.join("estimates.json"))?;
    let sample: Sample = json(&results.join("sample.json"))?;
    let (per, count) = match benchmark.throughput {
        Some(Throughput::Elements(count) | Throughput::ElementsAndBytes { elements: count }) => {
            (Per::Element, count)
        }
        Some(Throughput::Bytes(count) | Throughput::BytesDecimal(count)) => (Per::Byte, count),
        Some(Throughput::Bits(count)) => (Per::Byte, count / 8),
        None => (Per::Iteration, 1),
    };
    let Estimate {
        point_estimate,
        standard_error,
    } = estimates.median;
    if !(point_estimate.is_finite() && point_estimate > 0.0 && standard_error.is_finite()) {
        return Err(format!(
            "{}: a median of {point_estimate} ± {standard_error}",
            results.join("estimates.json").display()
        ));
    }
    Ok(Stage {
        name: benchmark.full_id,
        per,
        count,
        processes: vec![Process {
            median_ns: point_estimate,
            error_ns: standard_error.abs(),
            samples: sample.times.len(),
        }],
    })
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{shown}: {error}: this is not what criterion writes"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A directory as criterion leaves it, of (full id, median in ns).
    pub(in crate::compare) fn criterion(
        benches: &[(&str, f64)],
        baseline: &str,
    ) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (id, median) in benches {
            let results = directory.path().join(id).join(baseline);
            std::fs::create_dir_all(&results).unwrap();
            let write =
                |name: &str, text: String| std::fs::write(results.join(name), text).unwrap();
            write(
                "benchmark.json",
                format!(
                    "{{\"group_id\":\"g\",\"function_id\":\"f\",\"value_str\":null,\"throughput\":{{\"Elements\":1000}},\"full_id\":\"{id}\",\"directory_name\":\"g/f\",\"title\":\"g/f\"}}"
                ),
            );
            let estimate = format!(
                "{{\"confidence_interval\":{{\"confidence_level\":0.95,\"lower_bound\":1.0,\"upper_bound\":2.0}},\"point_estimate\":{median},\"standard_error\":{}}}",
                median / 500.0
            );
            write(
                "estimates.json",
                format!("{{\"mean\":{estimate},\"median\":{estimate},\"slope\":null}}"),
            );
            write(
                "sample.json",
                format!(
                    "{{\"sampling_mode\":\"Flat\",\"iters\":[1.0,1.0],\"times\":[{median},{median}]}}"
                ),
            );
        }
        directory
    }

    fn stages(benches: &[(&str, f64)]) -> Stages {
        Stages::of_criterion(criterion(benches, "new").path(), "new").unwrap()
    }

    #[test]
    fn criterion_is_read_and_kept() {
        let read = stages(&[("decode/ours", 29_000.0), ("decode/theirs", 996_000.0)]);
        assert_eq!(read.stages.len(), 2);
        assert_eq!(read.stages[0].shown(), "29.0 ns");
        assert_eq!(read.stages[0].processes[0].samples, 2);
        let text = serde_json::to_string(&read).unwrap();
        assert_eq!(Stages::parse(&text).unwrap().stages, read.stages);
    }

    #[test]
    fn a_saved_baseline_is_asked_for_by_name() {
        let directory = criterion(&[("a/b", 5.0)], "main");
        assert_eq!(
            Stages::of_criterion(directory.path(), "main")
                .unwrap()
                .stages
                .len(),
            1
        );
        let none = Stages::of_criterion(directory.path(), "new").unwrap_err();
        assert!(
            none.contains("no results named `new`") && none.contains("cargo bench"),
            "{none}"
        );
    }

    #[test]
    fn damaged_files_say_which_and_what() {
        let directory = criterion(&[("a/b", 5.0)], "new");
        let estimates = directory.path().join("a/b/new/estimates.json");
        std::fs::write(&estimates, "{\"median\":{\"point_estimate\":5.0}}").unwrap();
        let error = Stages::of_criterion(directory.path(), "new").unwrap_err();
        assert!(
            error.contains("estimates.json") && error.contains("standard_error"),
            "{error}"
        );
        std::fs::write(
            &estimates,
            "{\"median\":{\"point_estimate\":-1.0,\"standard_error\":0.0}}",
        )
        .unwrap();
        let error = Stages::of_criterion(directory.path(), "new").unwrap_err();
        assert!(error.contains("a median of -1"), "{error}");
        std::fs::remove_file(directory.path().join("a/b/new/sample.json")).unwrap();
        let error = Stages::of_criterion(directory.path(), "new").unwrap_err();
        assert!(error.contains("sample.json"), "{error}");
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
    fn other_work_is_no_comparison() {
        let before = stages(&[("a/b", 100.0)]);
        let mut after = before.clone();
        after.stages[0].count = 2000;
        assert_eq!(
            judged(&before, &after, 1.05, 0.05)[0].verdict,
            Verdict::NotComparable
        );
        let mut elsewhere = before.clone();
        elsewhere.machine = "another".into();
        let error = elsewhere.add(before).unwrap_err();
        assert!(error.contains("one file holds one machine"), "{error}");
    }
}
