//! Starts against servers that are not there yet, go away in the middle, or refuse: what passes is waited for, what does not ends at
//! once.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory); with `CI=true` a missing one is a failure.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fixtures::Recording;
use harness::broker::Broker;
use harness::replay::engine::{Engine, Running};
use harness::replay::program_for_test_of;
use harness::serve::{ServeOptions, Server};
use harness::truth::Truth;
use harness::verify;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const RECORDINGS: [&str; 2] = ["mysql-9.7-20k", "postgres-15-20k"];
/// What the engine says when it will try again.
const WAITS: &str = "cannot begin yet, trying again";
/// Nothing here takes longer; who hangs is found out.
const PATIENCE: Duration = Duration::from_secs(120);

fn program() -> Option<PathBuf> {
    program_for_test_of("the start")
}

async fn serve(name: &str, listen: &str) -> Server {
    let recording = Recording::named(name).expect("a recording");
    let options = ServeOptions {
        user: Some(("cdc".to_owned(), "cdc".to_owned())),
        ..ServeOptions::default()
    };
    let server = Server::start(&recording, listen, options).await;
    server.expect("a replay server")
}

/// An engine that streams a recording, and where it writes.
struct Run {
    recording: Recording,
    broker: Broker,
    engine: Engine,
    _directory: tempfile::TempDir,
}

impl Run {
    /// The engine is told that the server listens at `address`, and `password`.
    async fn new(program: &Path, name: &str, address: SocketAddr, password: &str) -> Self {
        let recording = Recording::named(name).expect("a recording");
        let broker = Broker::loopback().await.expect("a broker");
        let directory = tempfile::tempdir().expect("a directory");
        let engine = Engine {
            program: program.to_owned(),
            directory: directory.path().to_owned(),
            host: None,
        };
        let truth = Truth::read(&recording.truth_path()).expect("a truth");
        let source = match &recording.sidecar.postgres {
            None => format!("url = \"mysql://cdc:{password}@{address}\"\n"),
            Some(postgres) => format!(
                "url = \"postgres://cdc:{password}@{address}/{}\"\nslot = {:?}\npublication = {:?}\n",
                postgres.database, postgres.slot, postgres.slot
            ),
        };
        let configuration = format!(
            "[source.live]\n{source}tables = [\"{}.{}\"]\nstart = \"earliest\"\n[kafka]\nbrokers = [{:?}]\n",
            truth.schema,
            truth.table,
            broker.bootstrap()
        );
        std::fs::write(engine.config(), configuration).expect("a writable directory");
        Self {
            recording,
            broker,
            engine,
            _directory: directory,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.engine.log()).unwrap_or_default()
    }

    /// Waits until the engine has said that it will try again.
    async fn waits(&self, running: &mut Running) {
        self.says(running, WAITS).await;
    }

    /// Waits until the engine has said `what`.
    async fn says(&self, running: &mut Running, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(what) {
            let look = Instant::now() + Duration::from_millis(5);
            let ended = running.ended(look).await.expect("a child");
            assert_eq!(ended, None, "{}", self.engine.last_words());
            assert!(Instant::now() < deadline, "{}", self.engine.last_words());
        }
    }

    /// Waits for the engine's end, and answers its status.
    async fn ends(&self, mut running: Running) -> Option<i32> {
        let status = running.ended(Instant::now() + PATIENCE).await;
        let status = status.expect("a child");
        let status = status.unwrap_or_else(|| panic!("hangs:\n{}", self.engine.last_words()));
        status.code()
    }

    fn topic(&self) -> String {
        let truth = Truth::read(&self.recording.truth_path()).expect("a truth");
        format!("live.{}.{}", truth.schema, truth.table)
    }

    /// The text of the checkpoint.
    fn checkpoint(&self) -> String {
        let path = self.engine.directory.join("walbrook-state/live.checkpoint");
        std::fs::read_to_string(path).expect("a checkpoint")
    }

    /// All changes have arrived, each once.
    async fn verify(&self) {
        let truth = Truth::read(&self.recording.truth_path()).expect("a truth");
        let settings = verify::Settings {
            brokers: self.broker.bootstrap(),
            topic: Some(self.topic()),
            truth,
            client: verify::Client::Rskafka,
            allow_repeated: false,
        };
        let findings = verify::verify(&settings).await.expect("a readable topic");
        assert!(findings.failures.is_empty(), "{:#?}", findings.failures);
    }
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_is_waited_for() {
    let Some(program) = program() else { return };
    for name in RECORDINGS {
        let address = nobody().await;
        let run = Run::new(&program, name, address, "cdc").await;
        let mut running = run.engine.start().expect("the engine starts");
        run.waits(&mut running).await;
        let _server = serve(name, &address.to_string()).await;
        assert_eq!(
            run.ends(running).await,
            Some(0),
            "{}",
            run.engine.last_words()
        );
        run.verify().await;
    }
}

/// A topic that the engine creates is empty: nothing has to be asked about it. One that is there may be long, and only its end says from
/// where on a restart has to look for records of ours.
#[tokio::test(flavor = "multi_thread")]
async fn only_topics_that_were_there_are_asked_for_their_ends() {
    let Some(program) = program() else { return };
    let name = RECORDINGS[0];
    let server = serve(name, "127.0.0.1:0").await;
    let run = Run::new(&program, name, server.address(), "cdc").await;
    let refused = ResponseError::TopicAuthorizationFailed;
    run.broker.faults().fail(ApiKey::ListOffsets, refused, 1000);
    let running = run.engine.start().expect("the engine starts");
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());

    std::fs::remove_dir_all(run.engine.directory.join("walbrook-state")).expect("a state");
    let running = run.engine.start().expect("the engine starts");
    assert_eq!(run.ends(running).await, Some(1), "{}", run.log());
    assert!(run.log().contains("we may not read it"), "{}", run.log());
    run.broker.faults().clear();
    run.verify().await;
}

/// Somebody has dropped a table and deleted its topic, which the checkpoint still names.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_deleted_is_neither_missed_nor_made_again() {
    let Some(program) = program() else { return };
    for create in [true, false] {
        let server = serve(RECORDINGS[0], "127.0.0.1:0").await;
        let run = Run::new(&program, RECORDINGS[0], server.address(), "cdc").await;
        let running = run.engine.start().expect("the engine starts");
        assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
        let topic = run.topic();
        assert!(run.checkpoint().contains(&topic));
        run.broker.delete_topic(&topic).expect("a topic");

        let text = std::fs::read_to_string(run.engine.config()).expect("a configuration");
        let text = format!("{text}[kafka.topics]\ncreate = {create}\n");
        std::fs::write(run.engine.config(), text).expect("a writable directory");
        let running = run.engine.start().expect("the engine starts");
        assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
        let log = run.log();
        assert!(log.contains("does not exist any more"), "{log}");
        assert_eq!(run.broker.log_end(&topic, 0), None, "it was made again");
        assert!(!run.checkpoint().contains(&topic));
    }
}

/// An unclean election cuts off what was to be read, and so does a topic that is made anew meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_while_it_is_read_ends_there() {
    let Some(program) = program() else { return };
    let server = serve(RECORDINGS[0], "127.0.0.1:0").await;
    let run = Run::new(&program, RECORDINGS[0], server.address(), "cdc").await;
    let text = std::fs::read_to_string(run.engine.config()).expect("a configuration");
    let ours = format!("{text}topic = \"shared\"\n");
    // What another source has written to the same topic is behind the checkpoint's offsets of the first one.
    let others = ours.replace("[source.live]", "[source.others]");
    for text in [&ours, &others] {
        std::fs::write(run.engine.config(), text).expect("a writable directory");
        let running = run.engine.start().expect("the engine starts");
        assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    }
    std::fs::write(run.engine.config(), &ours).expect("a writable directory");
    let refused = ResponseError::NotLeaderOrFollower;
    run.broker.faults().fail(ApiKey::Fetch, refused, 1_000_000);
    let mut running = run.engine.start().expect("the engine starts");
    run.says(&mut running, "records cannot be read").await;
    run.broker.delete_topic("shared").expect("a topic");
    run.broker.create_topic("shared", 3).expect("no topic");
    run.broker.faults().clear();
    assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    let log = run.log();
    assert!(log.contains("has lost records while it was read"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_restarts_leave_one_producer_in_the_checkpoint() {
    let Some(program) = program() else { return };
    let server = serve(RECORDINGS[0], "127.0.0.1:0").await;
    let run = Run::new(&program, RECORDINGS[0], server.address(), "cdc").await;
    for _ in 0..3 {
        let running = run.engine.start().expect("the engine starts");
        assert_eq!(run.ends(running).await, Some(0), "{}", run.log());
    }
    let checkpoint = run.checkpoint();
    let (_, rest) = checkpoint
        .split_once("\"producers\":{")
        .expect("producers in it");
    let (producers, _) = rest.split_once('}').expect("JSON");
    assert_eq!(producers.matches('[').count(), 1, "{checkpoint}");
    run.verify().await;
}

/// Passes connections on to `server`; of each of the first ones only so many bytes of what the server says.
async fn cutting(server: SocketAddr, cuts: &'static [usize]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut cuts = cuts.iter();
        while let Ok((mut client, _)) = listener.accept().await {
            let Ok(mut server) = TcpStream::connect(server).await else {
                return;
            };
            let Some(&left) = cuts.next() else {
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
                continue;
            };
            let (mut from_client, mut to_client) = client.split();
            let (from_server, mut to_server) = server.split();
            let mut from_server = from_server.take(left as u64);
            let answers = async {
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                let _ = to_client.shutdown().await;
            };
            // Both are closed when the server has said as much as it may.
            tokio::select! {
                () = answers => {}
                _ = async {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    std::future::pending::<()>().await
                } => {}
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_in_the_middle_is_tried_again() {
    /// Before it says anything, in its first words, while it lets us in, and while it is asked.
    const CUTS: &[usize] = &[0, 7, 100, 1000];
    let Some(program) = program() else { return };
    for name in RECORDINGS {
        let server = serve(name, "127.0.0.1:0").await;
        let front = cutting(server.address(), CUTS).await;
        let run = Run::new(&program, name, front, "cdc").await;
        let running = run.engine.start().expect("the engine starts");
        assert_eq!(
            run.ends(running).await,
            Some(0),
            "{}",
            run.engine.last_words()
        );
        let log = run.log();
        assert_eq!(log.matches(WAITS).count(), CUTS.len(), "{name}: {log}");
        run.verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_at_once() {
    let Some(program) = program() else { return };
    for name in RECORDINGS {
        let server = serve(name, "127.0.0.1:0").await;
        let run = Run::new(&program, name, server.address(), "wrong").await;
        let running = run.engine.start_until_stopped();
        let status = run.ends(running.expect("the engine starts")).await;
        let log = run.log();
        assert_eq!(status, Some(1), "{log}");
        assert!(log.contains("the server refused user \"cdc\""), "{log}");
        assert!(!log.contains(WAITS), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_server_can_be_stopped() {
    let Some(program) = program() else { return };
    let run = Run::new(&program, RECORDINGS[0], nobody().await, "cdc").await;
    let running = run.engine.start_until_stopped();
    let mut running = running.expect("the engine starts");
    run.waits(&mut running).await;
    running.terminate().expect("a signal");
    let status = run.ends(running).await;
    let log = run.log();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("stopped before the stream began"), "{log}");
}
