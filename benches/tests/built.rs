//! What criterion really writes, marked by the benches' library and read by the harness.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use benches::built;
use criterion::Criterion;
use harness::compare::stages::{CommitOf, Stages};

/// Long before anything here runs.
const EARLIER: Duration = Duration::from_secs(3600);

/// A directory of this test's own, empty.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory).expect("ours");
    }
    fs::create_dir_all(&directory).expect("a directory for tests");
    directory
}

/// Measures something, as quickly as criterion can, and keeps it in `directory`, also as the baseline `before`.
fn measure(directory: &Path, bench: &str) {
    let mut criterion = Criterion::default()
        .output_directory(directory)
        .save_baseline("before".to_owned())
        .without_plots()
        .sample_size(10)
        .nresamples(100)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(5));
    let mut group = criterion.benchmark_group("group");
    group.bench_function(bench, |b| b.iter(|| black_box(1u64) + 1));
    group.finish();
}

#[test]
fn what_was_measured_is_of_the_commit_that_was_built() {
    let directory = directory("built");
    measure(&directory, "new");
    built::mark(&directory, SystemTime::now() - EARLIER, "c0ffee").expect("criterion's files");
    for baseline in ["new", "before"] {
        let read = Stages::of_criterion(&directory, baseline).expect("criterion's files");
        let is = (read.commit.as_str(), read.commit_of);
        assert_eq!(is, ("c0ffee", CommitOf::Benches), "{baseline}");
        assert_eq!(read.machine, harness::machine::here());
    }
    // Measured again by benches that mark nothing.
    measure(&directory, "new");
    let read = Stages::of_criterion(&directory, "new").expect("criterion's files");
    assert_eq!(read.commit_of, CommitOf::Harness);
}

#[test]
fn what_another_process_has_measured_before_is_not_marked() {
    let directory = directory("built_before");
    measure(&directory, "old");
    let old = directory.join("group/old/new/estimates.json");
    let (file, then) = (
        File::options().write(true).open(&old),
        SystemTime::now() - EARLIER,
    );
    file.and_then(|file| file.set_modified(then)).expect("ours");
    measure(&directory, "new");
    built::mark(&directory, then + EARLIER / 2, "c0ffee").expect("criterion's files");
    let is_marked = |bench: &str| {
        directory
            .join("group")
            .join(bench)
            .join("new/built.json")
            .is_file()
    };
    assert_eq!((is_marked("old"), is_marked("new")), (false, true));
    let mixed = Stages::of_criterion(&directory, "new").expect_err("two builds");
    assert!(
        mixed.contains("`group/old` does not say what it was built from"),
        "{mixed}"
    );
}

#[test]
fn estimates_that_are_none_are_named() {
    let directory = directory("built_damaged");
    measure(&directory, "bench");
    let estimates = directory.join("group/bench/new/estimates.json");
    fs::write(&estimates, "{}").expect("ours");
    let error = built::mark(&directory, SystemTime::UNIX_EPOCH, "c0ffee").expect_err("no median");
    assert!(
        error.ends_with("group/bench/new/estimates.json: no median"),
        "{error}"
    );
}
