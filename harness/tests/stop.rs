//! A replay that is told to end leaves nothing behind: no engine, no directory.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory); with `CI=true` a missing one is a failure.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::replay::program_for_test_of;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes longer; who hangs is found out.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replay of 40 s: long enough that no machine is through with it when the signal comes.
const SCENARIO: &str = "[[source]]\nrecording = \"mysql-9.7-20k\"\nrate_changes_per_second = 500\n";

/// Ends with the test.
struct Harness(Child);

impl Drop for Harness {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process but the harness itself was started with a path below `directory`.
fn has_engine(directory: &Path) -> bool {
    let below = format!("{}/walbrook-replay-", directory.display());
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let mut commands = processes.filter_map(|process| {
        let command = std::fs::read(process.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&command).into_owned())
    });
    commands.any(|command| command.contains(&below))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_a_replay_and_all_that_it_started() {
    let Some(program) = program_for_test_of("the end by a signal") else {
        return;
    };
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let files = tempfile::tempdir().expect("a directory");
        let scenario = files.path().join("slow.toml");
        std::fs::write(&scenario, SCENARIO).expect("a writable directory");
        let directory = tempfile::tempdir().expect("a directory");
        let child = Command::new(env!("CARGO_BIN_EXE_harness"))
            .arg("replay")
            .arg(&scenario)
            .arg("--walbrook")
            .arg(&program)
            .env("TMPDIR", directory.path())
            .env_remove("WALBROOK_KEEP")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let mut harness = Harness(child.expect("a harness"));
        wait_for("the engine to run", || has_engine(directory.path()));
        let pid = i32::try_from(harness.0.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("a running harness");
        let mut ended = None;
        wait_for("the harness to end", || {
            ended = harness.0.try_wait().expect("its status");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|ended| ended.code()), Some(status));
        assert!(!has_engine(directory.path()), "an engine is left");
        let left = std::fs::read_dir(directory.path()).expect("a directory");
        assert_eq!(left.count(), 0, "files are left");
    }
}
