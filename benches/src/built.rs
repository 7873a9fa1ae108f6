//! Beside each of criterion's results, which commit and machine it is of: criterion does not write that down, and `target/criterion` outlives
//! many builds. `harness stages` and `harness compare` read it.
//!
//! ```text
//! target/criterion/GROUP/BENCH/{new,NAME}/estimates.json    criterion's
//!                                         built.json        {"commit": …, "machine": …, "median_ns": …}
//! ```
//! `median_ns` is that of the estimates: what older benches, which write no such file, have measured since is not taken for this.
//!
//! ```text
//! criterion_main!(built::begin, benches, built::end);
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::machine;

/// Directories inside each other at most: group, bench, parameter, baseline.
const DEPTH_MAX: usize = 5;

static BEGUN: OnceLock<SystemTime> = OnceLock::new();

/// Before a process's benches: its results are those that are written from here on.
pub fn begin() {
    BEGUN.get_or_init(SystemTime::now);
}

/// After a process's benches: marks their results with the commit that they were built from. What keeps it from that goes to stderr, and
/// the results are then of no known commit.
pub fn end() {
    // What this option copies about was measured by another process.
    let is_loaded = std::env::args().any(|argument| argument.starts_with("--load-baseline"));
    let (Some(since), Some(directory), false) = (BEGUN.get(), directory(), is_loaded) else {
        return;
    };
    if let Err(error) = mark(&directory, *since, env!("WALBROOK_COMMIT")) {
        eprintln!("benches: the results do not say what they were built from: {error}");
    }
}

/// Where criterion has written, if it has. Source: criterion's `default_output_directory`, which asks cargo where this looks above the
/// program.
fn directory() -> Option<PathBuf> {
    let told = std::env::var_os("CRITERION_HOME").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    match told.or(target.map(|target| target.join("criterion"))) {
        Some(directory) => directory.is_dir().then_some(directory),
        None => {
            let program = std::env::current_exe().ok()?;
            let mut places = program.ancestors().map(|above| above.join("criterion"));
            places.find(|place| place.is_dir())
        }
    }
}

/// Writes `built.json` beside each result below `directory` that is not older than `since`: of `commit`, on this machine.
///
/// # Errors
/// A path and what is wrong there: a directory that cannot be read, estimates without a median, a file that cannot be written.
pub fn mark(directory: &Path, since: SystemTime, commit: &str) -> Result<(), String> {
    let machine = machine::here();
    below(directory, 0, &mut |results| {
        let path = results.join("estimates.json");
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let written = std::fs::metadata(&path).and_then(|file| file.modified());
        if written.map_err(|error| at(&error))? < since {
            return Ok(());
        }
        let text = std::fs::read_to_string(&path).map_err(|error| at(&error))?;
        let estimates: Value = serde_json::from_str(&text).map_err(|error| at(&error))?;
        let median = &estimates["median"]["point_estimate"];
        if !median.is_number() {
            return Err(at(&"no median"));
        }
        let built = json!({ "commit": commit, "machine": machine, "median_ns": median });
        let path = results.join("built.json");
        std::fs::write(&path, format!("{built:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))
    })
}

/// Hands over every directory below `directory` that holds a result. Comparisons of results lack `benchmark.json`.
fn below(
    directory: &Path,
    depth: usize,
    results: &mut dyn FnMut(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let holds = |name: &str| directory.join(name).is_file();
    if holds("estimates.json") && holds("benchmark.json") {
        return results(directory);
    }
    if depth == DEPTH_MAX {
        return Ok(());
    }
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(|error| format!("{}: {error}", directory.display()))? {
        if entry.path().is_dir() {
            below(&entry.path(), depth + 1, results)?;
        }
    }
    Ok(())
}
