//! `walbrook tap` and a reader that pauses: the lines wait for him, and signals are heard meanwhile.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory); with `CI=true` a missing one is a failure.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fixtures::Recording;
use harness::replay::program_for_test_of;
use harness::serve::{ServeOptions, Server};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Its lines are many times what a pipe holds.
const RECORDING: &str = "mysql-9.7-20k";
/// Nothing here takes longer; who hangs is found out.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends with the test.
struct Tap {
    child: Child,
    out: PipeReader,
    /// The other end of `out`.
    end: Option<PipeWriter>,
    log: std::path::PathBuf,
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tap {
    fn start(program: &Path, server: &Server, directory: &Path, count: u64) -> Self {
        let (out, end) = std::io::pipe().expect("a pipe");
        let log = directory.join("log");
        let url = format!("mysql://cdc:cdc@{}", server.address());
        let child = Command::new(program)
            .args(["tap", &url, "--start", "earliest", "--count"])
            .arg(count.to_string())
            .env("TMPDIR", directory)
            .stdin(Stdio::null())
            .stdout(end.try_clone().expect("a pipe"))
            .stderr(std::fs::File::create(&log).expect("a file"))
            .spawn();
        Self {
            child: child.expect("walbrook runs"),
            out,
            end: Some(end),
            log,
        }
    }

    /// Waits until the pipe takes nothing any more.
    fn fills_the_pipe(&mut self) {
        let end = self.end.take().expect("waited for once");
        let is_full = || {
            let mut writable = [PollFd::new(end.as_fd(), PollFlags::POLLOUT)];
            poll(&mut writable, PollTimeout::ZERO).expect("a pipe") == 0
        };
        let begun = Instant::now();
        while !is_full() {
            let ended = self.child.try_wait().expect("a child");
            assert_eq!(ended, None, "{}", self.said());
            assert!(begun.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ends(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "hangs: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

async fn serve(recording: &Recording) -> Server {
    let options = ServeOptions {
        user: Some(("cdc".to_owned(), "cdc".to_owned())),
        ..ServeOptions::default()
    };
    let server = Server::start(recording, "127.0.0.1:0", options).await;
    server.expect("a replay server")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_tap_though_nobody_reads() {
    let Some(program) = program_for_test_of("tap and signals") else {
        return;
    };
    let recording = Recording::named(RECORDING).expect("a recording");
    let server = serve(&recording).await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut tap = Tap::start(&program, &server, directory.path(), u64::MAX);
        tap.fills_the_pipe();
        let process = Pid::from_raw(i32::try_from(tap.child.id()).expect("a process"));
        kill(process, signal).expect("it runs");
        let status = tap.ends();
        assert!(status.success(), "{signal}: {status}: {}", tap.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tap_has_every_line_for_a_reader_that_paused() {
    let Some(program) = program_for_test_of("tap and a pause") else {
        return;
    };
    let recording = Recording::named(RECORDING).expect("a recording");
    let server = serve(&recording).await;
    let directory = tempfile::tempdir().expect("a directory");
    let changes = recording.sidecar.changes;
    let mut tap = Tap::start(&program, &server, directory.path(), changes);
    tap.fills_the_pipe();
    let out = tap.out.try_clone().expect("a pipe");
    let mut lines = 0;
    for line in BufReader::new(out).lines() {
        let line: serde_json::Value =
            serde_json::from_str(&line.expect("a line")).expect("whole JSON");
        assert!(line["op"].is_string(), "{line}");
        lines += 1;
    }
    assert_eq!(lines, changes);
    let status = tap.ends();
    assert!(status.success(), "{status}: {}", tap.said());
}
