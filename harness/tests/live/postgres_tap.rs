//! `walbrook tap` with a real PostgreSQL that has to wait, or whose reader does: the publication goes, the server is answered.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use harness::seed::postgres::{self as seed, Identity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::postgres_refusals::Stage;
use crate::until;

/// Ends with the test.
struct Tap {
    child: Child,
    log: PathBuf,
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tap {
    fn start(stage: &Stage, out: impl Into<Stdio>, options: &[&str]) -> Self {
        let log = stage.directory.path().join("log");
        let child = Command::new(&stage.program)
            .args(["tap", &stage.server.url()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(std::fs::File::create(&log).expect("a file"))
            .spawn();
        Self {
            child: child.expect("walbrook runs"),
            log,
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Waits until `query` answers true while it runs.
    async fn until(&mut self, stage: &Stage, what: &str, query: &str) {
        until(what, async || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}: {}", self.said());
            holds(stage, query).await
        })
        .await;
    }

    async fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        until("tap to end", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }
}

async fn holds(stage: &Stage, query: &str) -> bool {
    let row = stage.client.query_one(query, &[]).await;
    row.expect("an answer").get(0)
}

/// The publication is there, and the slot waits for older transactions.
const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_publication) AND EXISTS (SELECT FROM pg_replication_slots WHERE temporary AND active \
                     AND confirmed_flush_lsn IS NULL)";
const STREAMS: &str = "SELECT EXISTS (SELECT FROM pg_publication) AND EXISTS (SELECT FROM pg_replication_slots WHERE temporary AND active \
                       AND confirmed_flush_lsn IS NOT NULL)";

/// Stopped by a signal, or by an error, while the server makes the slot: until then there is no stream that could be closed.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_tap_that_has_not_begun_leaves_nothing() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    seed::prepare(&stage.client, Identity::Default)
        .await
        .expect("a table");
    let old = stage.server.connect_postgres().await.expect("a connection");
    let begin = format!(
        "BEGIN; INSERT INTO {} VALUES (1, 'c', 'd', DEFAULT)",
        seed::TABLE
    );
    old.batch_execute(&begin).await.expect("a transaction");
    // Of one table, and of all.
    for options in [&["--tables", "walbrook.*"][..], &[]] {
        for signal in [Some(Signal::SIGINT), Some(Signal::SIGTERM), None] {
            let mut tap = Tap::start(&stage, Stdio::null(), options);
            tap.until(&stage, "the slot to wait", WAITS).await;
            match signal {
                Some(signal) => {
                    let process = i32::try_from(tap.child.id()).expect("a process");
                    kill(Pid::from_raw(process), signal).expect("it runs");
                }
                None => {
                    let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE temporary";
                    stage.run(end).await;
                }
            }
            let status = tap.ends().await;
            let expected = if signal.is_some() { 0 } else { 1 };
            assert_eq!(status.code(), Some(expected), "{signal:?}: {}", tap.said());
            let gone = "SELECT NOT EXISTS (SELECT FROM pg_publication)";
            assert!(holds(&stage, gone).await, "{signal:?}: {}", tap.said());
            // The server itself notices when it has done waiting.
            let end = "SELECT count(pg_terminate_backend(active_pid)) >= 0 FROM pg_replication_slots WHERE temporary";
            assert!(holds(&stage, end).await);
            let free = "SELECT NOT EXISTS (SELECT FROM pg_replication_slots)";
            until("the slot to go", async || holds(&stage, free).await).await;
        }
    }
}

/// The server asks who is silent for half of `wal_sender_timeout`, and drops who does not answer in the other half.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_tap_answers_the_server_while_nobody_reads() {
    let Some(stage) = Stage::set(&["-c", "wal_sender_timeout=1s"]).await else {
        return;
    };
    seed::prepare(&stage.client, Identity::Default)
        .await
        .expect("a table");
    let (out, end) = std::io::pipe().expect("a pipe");
    let options = ["--tables", "walbrook.*", "--count", "50000"];
    let mut tap = Tap::start(&stage, end, &options);
    tap.until(&stage, "the slot", STREAMS).await;
    // Many times what the pipe holds.
    let written = format!(
        "INSERT INTO {} (id, category, domain) SELECT n, 'c', 'd' FROM generate_series(1, 50000) n",
        seed::TABLE
    );
    stage.run(&written).await;
    let row = stage
        .client
        .query_one("SELECT clock_timestamp()::text", &[])
        .await;
    let then: String = row.expect("the time").get(0);
    let answered = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE reply_time > '{then}'::timestamptz + interval '4 s')"
    );
    let streams = "SELECT EXISTS (SELECT FROM pg_stat_replication)";
    until("the server to be answered for long", async || {
        assert!(holds(&stage, streams).await, "dropped: {}", tap.said());
        holds(&stage, &answered).await
    })
    .await;
    assert_eq!(BufReader::new(out).lines().count(), 50_000);
    let status = tap.ends().await;
    assert!(status.success(), "{}", tap.said());
}
