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
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(WAITS) {
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

    /// All changes have arrived, each once.
    async fn verify(&self) {
        let truth = Truth::read(&self.recording.truth_path()).expect("a truth");
        let settings = verify::Settings {
            brokers: self.broker.bootstrap(),
            topic: Some(format!("live.{}.{}", truth.schema, truth.table)),
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
