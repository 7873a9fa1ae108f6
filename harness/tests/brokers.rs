//! The engine while its brokers change, or differ: a partition that cannot be written, certificates that are renewed, one broker that
//! cannot be trusted, one that falls silent, sessions that end.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory); with `CI=true` a missing one is a failure.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fixtures::Recording;
use harness::broker::{Broker, Listener, Settings, Tls};
use harness::replay::engine::{Engine, Running};
use harness::replay::program_for_test_of;
use harness::serve::{Rate, ServeOptions, Server};
use kafka_protocol::ResponseError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const RECORDING: &str = "mysql-9.7-20k";
const TOPIC: &str = "live.walbrook.events";
/// Nothing here takes longer; who hangs is found out.
const PATIENCE: Duration = Duration::from_secs(120);
const USER: (&str, &str) = ("cdc", "secret");
const HOST: &str = "127.0.0.1";

/// A recording that is served, an engine that streams it, and where it writes.
struct Run {
    broker: Broker,
    engine: Engine,
    directory: tempfile::TempDir,
    server: Server,
}

impl Run {
    /// `kafka` is what the configuration says of Kafka beside the brokers.
    async fn new(
        program: &Path,
        (recording, tables): (&str, &[&str]),
        rate: u64,
        broker: Settings,
        kafka: &str,
    ) -> Self {
        let recording = Recording::named(recording).expect("a recording");
        let options = ServeOptions {
            user: Some(("cdc".to_owned(), "cdc".to_owned())),
            rate: Some(Rate::Changes(rate)),
            ..ServeOptions::default()
        };
        let server = Server::start(&recording, "127.0.0.1:0", options).await;
        let server = server.expect("a replay server");
        let broker = Broker::start(broker).await.expect("a broker");
        let directory = tempfile::tempdir().expect("a directory");
        let engine = Engine {
            program: program.to_owned(),
            directory: directory.path().to_owned(),
            host: None,
        };
        let brokers: Vec<String> = broker.bootstrap().split(',').map(str::to_owned).collect();
        let configuration = format!(
            "[source.live]\nurl = \"mysql://cdc:cdc@{}\"\ntables = {tables:?}\nstart = \"earliest\"\n\
             [kafka]\nbrokers = {brokers:?}\n{kafka}",
            server.address()
        );
        std::fs::write(engine.config(), configuration).expect("a writable directory");
        Self {
            broker,
            engine,
            directory,
            server,
        }
    }

    /// As [`new`](Self::new), with the recording whose truth is known.
    async fn of_truth(program: &Path, rate: u64, broker: Settings, kafka: &str) -> Self {
        Self::new(program, (RECORDING, &["walbrook.*"]), rate, broker, kafka).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.engine.log()).unwrap_or_default()
    }

    /// Writes a file into the engine's directory.
    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("a writable directory");
    }

    /// Waits for something while the engine runs.
    async fn until(&self, running: &mut Running, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            let look = Instant::now() + Duration::from_millis(5);
            let ended = running.ended(look).await.expect("a child");
            let words = || self.engine.last_words();
            let is_early = ended.is_some() && !is_so(self);
            assert!(!is_early, "it ended before {what}: {}", words());
            assert!(Instant::now() < deadline, "{what}: {}", words());
        }
    }

    /// Waits for the engine's end, and answers its status.
    async fn ends(&self, mut running: Running) -> Option<i32> {
        let status = running.ended(Instant::now() + PATIENCE).await;
        let status = status.expect("a child");
        let status = status.unwrap_or_else(|| panic!("hangs:\n{}", self.engine.last_words()));
        status.code()
    }

    /// Records of a topic.
    fn records(&self, topic: &str) -> u64 {
        let counts = self.broker.counts().partitions;
        let of_topic = counts.iter().filter(|(name, ..)| name == topic);
        of_topic.map(|(.., figures)| figures.records).sum()
    }

    /// The engine's own count.
    fn reported(&self, name: &str) -> u64 {
        let report = std::fs::read_to_string(self.engine.report()).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        report[name].as_u64().expect("a number")
    }

    /// All changes have arrived; a delete is followed by a tombstone.
    fn expect_all(&self) {
        let (records, changes) = (self.records(TOPIC), self.server.changes());
        assert!(records >= changes, "{records} records of {changes} changes");
    }
}

/// Acknowledgements come in order, so what is refused keeps the checkpoint back; and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_cannot_be_written_does_not_hold_up_others() {
    const REFUSED: &str = "live.types.integers";
    const OTHER: &str = "live.types.numbers";
    let Some(program) = program_for_test_of("partitions that cannot be written") else {
        return;
    };
    let tables = ["types.integers", "types.numbers"];
    // Rows come one by one, first those that are refused: others are in later batches.
    let run = Run::new(
        &program,
        ("mysql-9.7-types", &tables),
        50,
        Settings::default(),
        "",
    )
    .await;
    let broker = &run.broker;
    for topic in [REFUSED, OTHER] {
        broker.create_topic(topic, 3).expect("a new topic");
    }
    let refuse = |error| {
        for partition in 0..3 {
            let refused = broker.refuse(REFUSED, partition, error);
            refused.expect("a partition");
        }
    };
    refuse(Some(ResponseError::NotEnoughReplicas));
    let running = run.engine.start_until_stopped();
    let mut running = running.expect("the engine starts");
    let other_is_written = |run: &Run| run.records(OTHER) > 0;
    run.until(&mut running, "rows of the other table", other_is_written)
        .await;
    assert_eq!(run.records(REFUSED), 0, "it is refused");
    let log = run.log();
    assert!(log.contains("the checkpoint waits"), "{log}");

    refuse(None);
    let all_is_written = |run: &Run| run.log().contains("records are taken again");
    run.until(&mut running, "the end of the refusal", all_is_written)
        .await;
    running.terminate().expect("a signal");
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    assert!(run.records(REFUSED) > 0);
}

/// A request takes one batch of a partition: what has come as thousands of small ones takes as many turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_nobody_can_be_reached_leaves_in_few_batches() {
    let Some(program) = program_for_test_of("clusters that are away for a while") else {
        return;
    };
    let run = Run::of_truth(&program, 10_000, Settings::default(), "").await;
    let broker = &run.broker;
    broker.create_topic(TOPIC, 1).expect("a new topic");
    let mut running = run.engine.start().expect("the engine starts");
    let is_begun = |run: &Run| run.records(TOPIC) > 0;
    run.until(&mut running, "the first records", is_begun).await;
    broker.stop(0);
    let before = broker.counts();
    let all_is_sent = |run: &Run| run.server.ends_reached() > 0;
    run.until(&mut running, "the end of the stream", all_is_sent)
        .await;
    broker.resume(0);
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    run.expect_all();
    let batches = broker.counts().batches - before.batches;
    let records = broker.counts().records - before.records;
    // As they come they are more than a hundred.
    assert!(batches < 20, "{records} records in {batches} batches");
}

fn encrypted(nodes: &[&Tls]) -> Settings {
    let listener = |tls: &&Tls| Listener {
        tls: Some(tls.server.clone()),
        ..Listener::loopback()
    };
    Settings {
        listeners: nodes.iter().map(listener).collect(),
        ..Settings::default()
    }
}

/// An authority that asks clients for certificates.
fn mutual() -> Tls {
    let mut tls = Tls::generate(&[HOST]).expect("certificates");
    tls.server.client_ca = Some(tls.ca.clone());
    tls
}

const FILES: &str = "tls = { ca = \"ca.pem\", cert = \"client.pem\", key = \"client.key\" }\n";

/// Replaces the files of an engine that has shown certificates before.
fn place(run: &Run, tls: &Tls) {
    run.file("ca.pem", &tls.ca);
    run.file("client.pem", &tls.client_certificate);
    run.file("client.key", &tls.client_key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_while_the_engine_runs() {
    let Some(program) = program_for_test_of("renewed certificates") else {
        return;
    };
    let (first, second) = (mutual(), mutual());
    let run = Run::of_truth(&program, 10_000, encrypted(&[&first]), FILES).await;
    place(&run, &first);
    let mut running = run.engine.start().expect("the engine starts");
    let is_begun = |run: &Run| run.records(TOPIC) > 0;
    run.until(&mut running, "the first records", is_begun).await;
    place(&run, &second);
    let renewed = run.broker.renew_tls(0, &second.server);
    renewed.expect("a certificate");
    run.broker.disconnect(0);
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    let log = run.log();
    assert!(log.contains("files of kafka.tls have changed"), "{log}");
    run.expect_all();
}

/// With TLS 1.3 the client has connected before the broker looks at its certificate: the refusal comes as an alert right after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_taken_any_more_ends_the_run() {
    let Some(program) = program_for_test_of("refused certificates") else {
        return;
    };
    let (ours, others) = (mutual(), mutual());
    let run = Run::of_truth(&program, 1_000, encrypted(&[&ours]), FILES).await;
    place(&run, &ours);
    let mut running = run.engine.start().expect("the engine starts");
    let is_begun = |run: &Run| run.records(TOPIC) > 0;
    run.until(&mut running, "the first records", is_begun).await;
    let mut changed = ours.server.clone();
    changed.client_ca = Some(others.ca.clone());
    run.broker.renew_tls(0, &changed).expect("a certificate");
    run.broker.disconnect(0);
    assert_eq!(run.ends(running).await, Some(1), "{}", run.log());
    let log = run.log();
    for part in ["TLS fails", "alert", "kafka.tls"] {
        assert!(log.contains(part), "{part} is missing in {log}");
    }
}

/// One of three brokers shows a certificate that nobody can trust, and nothing of ours is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker_that_cannot_be_trusted_is_passed_over() {
    let Some(program) = program_for_test_of("brokers that cannot be trusted") else {
        return;
    };
    let good = Tls::generate(&[HOST]).expect("certificates");
    let bad = Tls::generate(&[HOST]).expect("certificates");
    let tls = "tls = { ca = \"ca.pem\" }\n";
    // It is the first that is asked.
    let nodes = encrypted(&[&bad, &good, &good]);
    let run = Run::of_truth(&program, 5_000, nodes, tls).await;
    run.file("ca.pem", &good.ca);
    let broker = &run.broker;
    broker.create_topic(TOPIC, 3).expect("a new topic");
    broker.move_leader(TOPIC, 0, 1).expect("a partition");
    let mut running = run.engine.start().expect("the engine starts");
    let is_begun = |run: &Run| run.records(TOPIC) > 0;
    run.until(&mut running, "the first records", is_begun).await;
    // Whoever is asked where the partitions are is another one each time.
    for round in 0..3 {
        let before = run.records(TOPIC);
        for node in [1, 2] {
            broker.disconnect(node);
        }
        let leader = 1 + round % 2;
        broker.move_leader(TOPIC, 0, leader).expect("a partition");
        let goes_on = |run: &Run| run.records(TOPIC) > before.min(run.server.changes() - 1);
        let ended = running.ended(Instant::now()).await.expect("a child");
        if ended.is_some() {
            break;
        }
        run.until(&mut running, "more records", goes_on).await;
    }
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    run.expect_all();
}

/// Stands before a node, and can keep everything that comes to itself, as a machine does that hangs or is gone.
struct Relay {
    address: SocketAddr,
    node: Arc<OnceLock<SocketAddr>>,
    is_silent: watch::Sender<bool>,
}

impl Relay {
    async fn start() -> Self {
        let listener = TcpListener::bind((HOST, 0)).await.expect("a free port");
        let relay = Self {
            address: listener.local_addr().expect("an address"),
            node: Arc::default(),
            is_silent: watch::Sender::new(false),
        };
        let (node, is_silent) = (Arc::clone(&relay.node), relay.is_silent.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let node = *node.get().expect("the node has been started");
                let server = TcpStream::connect(node).await.expect("the node listens");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, is_silent.clone()));
                tokio::spawn(pass(from_server, to_client, is_silent.clone()));
            }
        });
        relay
    }
}

/// Passes on what comes, while it may.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_silent: watch::Receiver<bool>,
) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let may_pass = is_silent.wait_for(|is_silent| !is_silent).await.is_ok();
        if !may_pass || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// One of three brokers hangs: it is the one that knows the cluster, leads a partition, and has it taken from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker_that_falls_silent_is_waited_for_by_nobody() {
    let Some(program) = program_for_test_of("brokers that fall silent") else {
        return;
    };
    let relay = Relay::start().await;
    let behind = Listener {
        advertised: Some((HOST.to_owned(), relay.address.port())),
        ..Listener::loopback()
    };
    let nodes = Settings {
        listeners: vec![behind, Listener::loopback(), Listener::loopback()],
        ..Settings::default()
    };
    let run = Run::of_truth(&program, 2_000, nodes, "").await;
    let broker = &run.broker;
    relay.node.set(broker.addresses()[0]).expect("once");
    broker.create_topic(TOPIC, 3).expect("a new topic");
    for partition in 0..3 {
        let moved = broker.move_leader(TOPIC, partition, partition);
        moved.expect("a partition");
    }
    let elsewhere = |run: &Run| {
        let counts = run.broker.counts().partitions;
        let others = counts.iter().filter(|(_, partition, _)| *partition > 0);
        others.map(|(.., figures)| figures.records).sum::<u64>()
    };
    let mut running = run.engine.start().expect("the engine starts");
    let is_begun = |run: &Run| run.broker.log_end(TOPIC, 0) > Some(0);
    run.until(&mut running, "the first records", is_begun).await;
    relay.is_silent.send_replace(true);
    let before = elsewhere(&run);
    let goes_on = |run: &Run| elsewhere(run) > before + 1_000;
    run.until(&mut running, "records elsewhere", goes_on).await;
    broker.move_leader(TOPIC, 0, 1).expect("a partition");
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    let log = run.log();
    assert!(log.contains("silent, going on with those"), "{log}");
    assert!(!log.contains("connection lost"), "it was waited for: {log}");
    run.expect_all();
}

/// rskafka takes a broker of those that it is given at random, and waits for it without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rskafka_starts_while_most_brokers_are_silent() {
    let Some(program) = program_for_test_of("rskafka and brokers that are silent") else {
        return;
    };
    let kafka = "producer = \"rskafka\"\n";
    let run = Run::of_truth(&program, 20_000, Settings::default(), kafka).await;
    let mut silent = Vec::new();
    let mut brokers = vec![run.broker.bootstrap()];
    for _ in 0..4 {
        let listener = TcpListener::bind((HOST, 0)).await.expect("a free port");
        brokers.push(listener.local_addr().expect("an address").to_string());
        // The kernel takes connections for it.
        silent.push(listener);
    }
    // Our own part asks one after the other.
    brokers.swap(0, 1);
    let configuration = std::fs::read_to_string(run.engine.config()).expect("what was written");
    let known = format!("{:?}", [run.broker.bootstrap()]);
    assert!(configuration.contains(&known), "{configuration}");
    let configuration = configuration.replace(&known, &format!("{brokers:?}"));
    std::fs::write(run.engine.config(), configuration).expect("a writable directory");
    let running = run.engine.start().expect("the engine starts");
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    run.expect_all();
}

/// What `connections.max.reauth.ms` asks for is done before the broker does anything about it. This one never does, so that a test does
/// not depend on the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_replaced_before_their_sessions_end() {
    let Some(program) = program_for_test_of("sessions that end") else {
        return;
    };
    let listener = Listener {
        sasl: true,
        ..Listener::loopback()
    };
    for mechanism in ["plain", "scram-sha-256"] {
        let (user, password) = USER;
        let settings = Settings {
            listeners: vec![listener.clone(); 2],
            users: vec![(user.to_owned(), password.to_owned())],
            session_lifetime_ms: 1,
            ..Settings::default()
        };
        let sasl = format!(
            "sasl = {{ mechanism = \"{mechanism}\", username = \"{user}\", password = \"{password}\" }}\n"
        );
        let run = Run::of_truth(&program, 10_000, settings, &sasl).await;
        let running = run.engine.start().expect("the engine starts");
        assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
        let log = run.log();
        assert!(!log.contains("connection lost"), "{mechanism}: {log}");
        // One to ask about the cluster, and one for each broker, would do.
        let logins = run.broker.logins();
        assert!(logins > 6, "{mechanism}: {logins} logins");
        assert_eq!(run.reported("retries"), 0, "{mechanism}");
        run.expect_all();
    }
}
