//! Bad input and bad luck through the real program: each time a message that says what to do, exit status 1, and nothing lost.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::servers::{Flavour, Server};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::records::states;
use crate::{configured, position, ready, run_to_end, run_to_halt};

/// One server for all of them, and a new engine and broker for each.
struct Ground {
    program: std::path::PathBuf,
    server: Server,
    connection: Conn,
    rows: u64,
}

/// An engine of its own.
struct Try {
    engine: Engine,
    broker: Broker,
    directory: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Option<Self> {
        let (program, server) = ready(Flavour::Mysql).await?;
        let connection = server.connect().await.expect("a connection");
        let mut ground = Self {
            program,
            server,
            connection,
            rows: 0,
        };
        ground.run("CREATE DATABASE shop").await;
        ground
            .run("CREATE TABLE shop.t (id INT PRIMARY KEY, v LONGTEXT)")
            .await;
        ground.insert().await;
        Some(ground)
    }

    async fn run(&mut self, statement: &str) {
        (self.connection.query_drop(statement).await)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    async fn insert(&mut self) {
        self.rows += 1;
        let insert = format!("INSERT INTO shop.t VALUES ({}, 'v')", self.rows);
        self.run(&insert).await;
    }

    async fn attempt(&self) -> Try {
        let broker = Broker::loopback().await.expect("a broker");
        let directory = tempfile::tempdir().expect("a directory");
        let url = self.server.cdc_url();
        let tables = ["shop.*"];
        let engine = configured(&self.program, directory.path(), &url, &tables, &broker);
        Try {
            engine,
            broker,
            directory,
        }
    }
}

impl Try {
    /// Replaces a part of the configuration.
    fn configure(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.engine.config()).expect("a configuration");
        assert!(text.contains(old), "{old} is not in {text}");
        std::fs::write(self.engine.config(), text.replace(old, new)).expect("a configuration");
    }

    /// How many rows the records leave in `shop.t`.
    async fn rows(&self) -> u64 {
        let mut states = states(&self.broker).await;
        let table = states.remove(&("shop".to_owned(), "t".to_owned()));
        table.map_or(0, |rows| rows.len() as u64)
    }

    /// Halts with all of `parts` in its words.
    async fn halts(&self, parts: &[&str]) {
        let said = run_to_halt(&self.engine).await;
        for part in parts {
            assert!(said.contains(part), "{part:?} is missing:\n{said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_what_is_refused_says_what_to_do() {
    let Some(mut ground) = Ground::new().await else {
        return;
    };
    access(&mut ground).await;
    kafka(&mut ground).await;
    disk(&mut ground).await;
    same_server_id(&mut ground).await;
    positions(&mut ground).await;
}

/// Passwords and grants, also those that are taken away.
async fn access(ground: &mut Ground) {
    let it = ground.attempt().await;
    it.configure("cdc:cdc@", "cdc:wrong@");
    it.halts(&["refused user \"cdc\"", "check user and password"])
        .await;
    it.configure("cdc:wrong@", "cdc:cdc@");
    run_to_end(&it.engine).await;
    ground
        .run("REVOKE REPLICATION SLAVE ON *.* FROM 'cdc'@'%'")
        .await;
    ground.insert().await;
    it.halts(&["GRANT REPLICATION SLAVE ON *.* TO"]).await;
    ground
        .run("GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%'")
        .await;
    run_to_end(&it.engine).await;
    assert_eq!(it.rows().await, ground.rows);
    assert_eq!(it.broker.counts().records, ground.rows);
}

/// A broker that is down, a topic that cannot be made, a record that is too large.
async fn kafka(ground: &mut Ground) {
    let it = ground.attempt().await;
    it.broker.stop(0);
    it.halts(&[&it.broker.bootstrap(), "kafka.brokers"]).await;
    it.broker.resume(0);
    let refusal = ResponseError::PolicyViolation;
    it.broker
        .faults()
        .fail(ApiKey::CreateTopics, refusal, u64::MAX);
    it.halts(&["live.shop.t", "POLICY_VIOLATION"]).await;
    it.broker.faults().clear();
    it.configure("[kafka.topics]\n", "[kafka.topics]\ncreate = false\n");
    it.halts(&["live.shop.t", "kafka-topics.sh --create"]).await;
    it.configure("create = false\n", "");
    run_to_end(&it.engine).await;
    assert_eq!(it.rows().await, ground.rows);

    ground
        .run("INSERT INTO shop.t VALUES (1000, REPEAT('x', 300000))")
        .await;
    it.configure(
        "[kafka]\n",
        "[kafka]\nbatch_max = \"100KiB\"\ncompression = \"none\"\n",
    );
    it.halts(&["table shop.t", "{\"id\":1000}", "batch_max"])
        .await;
    it.configure("batch_max = \"100KiB\"\n", "batch_max = \"1MiB\"\n");
    run_to_end(&it.engine).await;
    assert_eq!(it.rows().await, ground.rows + 1);
    ground.run("DELETE FROM shop.t WHERE id = 1000").await;
}

/// No room for the checkpoint: what stands before it stands, and a later start goes on from there.
async fn disk(ground: &mut Ground) {
    let it = ground.attempt().await;
    run_to_end(&it.engine).await;
    ground.insert().await;
    let state = it.directory.path().join("walbrook-state");
    let temporary = state.join("live.checkpoint.tmp");
    // Every write to it is answered with ENOSPC.
    std::os::unix::fs::symlink("/dev/full", &temporary).expect("a link");
    it.halts(&["No space left on device", "free some space and start again"])
        .await;
    let _ = std::fs::remove_file(&temporary);
    run_to_end(&it.engine).await;
    assert_eq!(it.rows().await, ground.rows);
}

/// A second engine under the same id: the server drops the first one, which says why.
async fn same_server_id(ground: &mut Ground) {
    let (first, second) = (ground.attempt().await, ground.attempt().await);
    let mut running = forever(&first.engine);
    let log = first.engine.log();
    wait_for(&log, "streaming", &mut running);
    run_to_end(&second.engine).await;
    let status = ended(&mut running, &log);
    let said = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("another replica has connected with our server_id 4711"),
        "{said}"
    );
}

/// Positions that the server does not have any more, or never had.
async fn positions(ground: &mut Ground) {
    let it = ground.attempt().await;
    run_to_end(&it.engine).await;
    position(&it.engine, &["set", "binlog.000099:4"]);
    it.halts(&[
        "binlog file binlog.000099",
        "is gone",
        "the server has binlog.000001 to",
    ])
    .await;
    position(&it.engine, &["set", "binlog.000001:900000000"]);
    it.halts(&["lies behind the end of its file"]).await;

    let it = ground.attempt().await;
    run_to_end(&it.engine).await;
    // Purged while the engine is down.
    ground.insert().await;
    ground.run("FLUSH BINARY LOGS").await;
    ground.insert().await;
    let last: mysql_async::Row = (ground.connection.query("SHOW BINARY LOGS").await)
        .expect("files")
        .pop()
        .expect("a file");
    let last: String = last.get(0).expect("a name");
    ground.run(&format!("PURGE BINARY LOGS TO '{last}'")).await;
    it.halts(&[
        "the server has purged transactions",
        "`walbrook position reset`",
    ])
    .await;

    let it = ground.attempt().await;
    run_to_end(&it.engine).await;
    ground.run("RESET BINARY LOGS AND GTIDS").await;
    ground.insert().await;
    it.halts(&[
        "the server never had transactions",
        "`walbrook position reset`",
    ])
    .await;
}

/// `walbrook run`, without an end.
fn forever(engine: &Engine) -> Child {
    let log = std::fs::File::create(engine.log()).expect("a log");
    Command::new(&engine.program)
        .args(["run", "-c"])
        .arg(engine.config())
        .current_dir(&engine.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the engine starts")
}

fn wait_for(log: &Path, words: &str, running: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        if said.contains(words) {
            return;
        }
        let over = running.try_wait().expect("a child").is_some() || Instant::now() > deadline;
        if over {
            let _ = running.kill();
            panic!("{words:?} does not come:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ended(running: &mut Child, log: &Path) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = running.try_wait().expect("a child") {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = running.kill();
            panic!(
                "it does not end:\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
