//! Criterion's own directory, read; and what the benches write beside its results, which criterion does not: what they were built from
//! (`benches/src/built.rs`).
//!
//! ```text
//! target/criterion/GROUP/BENCH/new/{benchmark,estimates,sample}.json    what the last `cargo bench` measured
//!                                  built.json                           commit and machine of that
//! target/criterion/GROUP/BENCH/NAME/…                                   `cargo bench -p benches -- --save-baseline NAME`
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::stages::{CommitOf, Per, Process, Stage, Stages};

/// Directories inside each other at most: group, bench, parameter.
const DEPTH_MAX: usize = 5;
/// Medians are written with all their digits: what differs by more than rounding is another one.
const SAME_MEDIAN: f64 = 1e-9;

/// What a result was built from, and ran on; `None` where nobody says so.
type Origin = Option<Build>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Build {
    commit: String,
    machine: String,
}

/// `built.json`.
#[derive(Deserialize)]
struct Built {
    commit: String,
    machine: String,
    /// Of the estimates that it was written for.
    median_ns: f64,
}

impl Stages {
    /// Reads criterion's directory; `baseline` is `new` for what was measured last.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what criterion writes; a directory without any results of that name; results of
    /// several builds or machines.
    pub fn of_criterion(directory: &Path, baseline: &str) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        gather(directory, baseline, 0, &mut found)?;
        if found.is_empty() {
            return Err(format!(
                "{}: no results named `{baseline}`; make some: cargo bench -p benches, or with `-- --save-baseline {baseline}`",
                directory.display()
            ));
        }
        let (build, commit_of) = match origin_of_all(directory, &found)? {
            Some(build) => (build, CommitOf::Benches),
            None => (
                Build {
                    commit: env!("WALBROOK_COMMIT").to_owned(),
                    machine: crate::machine::here(),
                },
                CommitOf::Harness,
            ),
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: build.machine,
            commit: build.commit,
            commit_of,
            stages: found.into_values().map(|(stage, _)| stage).collect(),
        })
    }
}

/// What all of `found` come from.
///
/// # Errors
/// Two that do not come from the same.
fn origin_of_all(
    directory: &Path,
    found: &BTreeMap<String, (Stage, Origin)>,
) -> Result<Origin, String> {
    let said = |origin: &Origin| match origin {
        Some(Build { commit, machine }) => format!("is of commit {commit} on {machine}"),
        None => "does not say what it was built from".to_owned(),
    };
    let mut all = found.iter();
    let Some((first, (_, origin))) = all.next() else {
        return Ok(None);
    };
    match all.find(|(_, (_, other))| other != origin) {
        None => Ok(origin.clone()),
        Some((second, (_, other))) => Err(format!(
            "{}: `{first}` {}, `{second}` {}: results of several builds; remove the directory, and measure all of them by one cargo bench",
            directory.display(),
            said(origin),
            said(other),
        )),
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
    found: &mut BTreeMap<String, (Stage, Origin)>,
) -> Result<(), String> {
    let results = directory.join(baseline);
    if results.join("estimates.json").is_file() {
        let stage = stage(&results)?;
        let origin = origin(&results, &stage)?;
        found.insert(stage.name.clone(), (stage, origin));
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

/// What `stage` comes from; nothing where benches measured it that wrote nothing beside it, be it that those before them did.
fn origin(results: &Path, stage: &Stage) -> Result<Origin, String> {
    let path = results.join("built.json");
    if !path.is_file() {
        return Ok(None);
    }
    let built: Built = json(&path)?;
    let is_of = |process: &Process| (built.median_ns / process.median_ns - 1.0).abs() < SAME_MEDIAN;
    let is_of_these = stage.processes.iter().all(is_of);
    Ok(is_of_these.then_some(Build {
        commit: built.commit,
        machine: built.machine,
    }))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| {
        format!("{shown}: {error}: this is not what `cargo bench -p benches` writes")
    })
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

    #[test]
    fn criterion_is_read_and_kept() {
        let directory = criterion(
            &[("decode/ours", 29_000.0), ("decode/theirs", 996_000.0)],
            "new",
        );
        let read = Stages::of_criterion(directory.path(), "new").unwrap();
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
    }

    /// Writes `built.json` as the benches do.
    pub(in crate::compare) fn build(directory: &Path, bench: &str, commit: &str, median: f64) {
        let path = directory.join(bench).join("new/built.json");
        let text = format!("{{\"commit\":\"{commit}\",\"machine\":\"m\",\"median_ns\":{median}}}");
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn results_are_of_the_commit_that_the_benches_wrote_down() {
        let directory = criterion(&[("a/b", 5.0), ("a/c", 7.0)], "new");
        let read = || Stages::of_criterion(directory.path(), "new");
        let silent = read().unwrap();
        assert_eq!(silent.commit, env!("WALBROOK_COMMIT"));
        assert_eq!(silent.commit_of, CommitOf::Harness);
        assert_eq!(silent.machine, crate::machine::here());
        build(directory.path(), "a/b", "c0ffee", 5.0);
        let half = read().unwrap_err();
        let expected = "`a/b` is of commit c0ffee on m, `a/c` does not say what it was built from";
        assert!(half.contains(expected), "{half}");
        build(directory.path(), "a/c", "c0ffee", 7.0);
        let said = read().unwrap();
        let is = (said.commit.as_str(), said.machine.as_str(), said.commit_of);
        assert_eq!(is, ("c0ffee", "m", CommitOf::Benches));
        build(directory.path(), "a/c", "decaf", 7.0);
        let two = read().unwrap_err();
        assert!(two.contains("`a/c` is of commit decaf"), "{two}");
        assert!(two.contains("results of several builds"), "{two}");
    }

    #[test]
    fn what_was_measured_again_by_benches_that_write_nothing_is_of_no_known_commit() {
        let directory = criterion(&[("a/b", 5.0)], "new");
        build(directory.path(), "a/b", "c0ffee", 5.1);
        let read = Stages::of_criterion(directory.path(), "new").unwrap();
        assert_eq!(read.commit_of, CommitOf::Harness);
    }

    #[test]
    fn a_damaged_word_of_the_benches_is_an_error() {
        let directory = criterion(&[("a/b", 5.0)], "new");
        std::fs::write(directory.path().join("a/b/new/built.json"), "{}").unwrap();
        let error = Stages::of_criterion(directory.path(), "new").unwrap_err();
        assert!(
            error.contains("built.json") && error.contains("commit"),
            "{error}"
        );
    }
}
