//! The engine's producer against a broker that checks sequences and fails at every turn while several batches are on the wire:
//! connections dropped before and after a request takes effect, refusals that pass, leaders that move.
//!
//! Needs the built engine (`WALBROOK`, or beside this test's own directory); with `CI=true` a missing one is a failure. The faults
//! follow from a seed, which is printed; `WALBROOK_SEED` sets it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fixtures::Recording;
use harness::broker::{Broker, Drop, Listener, Settings};
use harness::replay::engine::Engine;
use harness::replay::program_for_test_of;
use harness::serve::{ServeOptions, Server};
use harness::truth::Truth;
use harness::verify;
use harness::workload::SplitMix64;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

const RECORDING: &str = "mysql-9.7-20k";
const TOPIC: &str = "live.walbrook.events";
const NODES: usize = 3;
const PARTITIONS: i32 = 3;
/// Nothing here takes longer; who hangs is found out.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the answer to a request takes: long enough that all that may be on the wire is there.
const LINE: Duration = Duration::from_millis(4);
/// Faults that are met by the number of requests.
const FAULTS: usize = 40;

fn engine() -> Option<PathBuf> {
    program_for_test_of("the producer")
}

fn seeds() -> Vec<u64> {
    let set = std::env::var("WALBROOK_SEED").ok();
    set.map_or(vec![1, 2, 3], |text| {
        vec![text.parse().expect("WALBROOK_SEED is a number")]
    })
}

/// A recording that is served, an engine that streams it, and where it writes.
struct Bench {
    recording: Recording,
    broker: Broker,
    engine: Engine,
    _server: Server,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new(program: &Path) -> Self {
        let recording = Recording::named(RECORDING).expect("a recording");
        let options = ServeOptions {
            user: Some(("cdc".to_owned(), "cdc".to_owned())),
            ..ServeOptions::default()
        };
        let server = Server::start(&recording, "127.0.0.1:0", options)
            .await
            .expect("a replay server");
        let broker = Broker::start(Settings {
            listeners: vec![Listener::loopback(); NODES],
            validate_records: true,
            ..Settings::default()
        })
        .await
        .expect("a broker");
        let directory = tempfile::tempdir().expect("a directory");
        let engine = Engine {
            program: program.to_owned(),
            directory: directory.path().to_owned(),
            host: None,
        };
        let brokers: Vec<String> = broker.bootstrap().split(',').map(str::to_owned).collect();
        // Without compression and with the smallest batches there are about a thousand of them.
        let configuration = format!(
            "[source.live]\nurl = \"mysql://cdc:cdc@{}\"\ntables = [\"walbrook.*\"]\nstart = \"earliest\"\n\
             [kafka]\nbrokers = {brokers:?}\ncompression = \"none\"\nbatch_max = \"16KiB\"\n\
             [kafka.topics]\npartitions = {PARTITIONS}\nreplication = 1\n",
            server.address()
        );
        std::fs::write(engine.config(), configuration).expect("a writable directory");
        Self {
            recording,
            broker,
            engine,
            _server: server,
            _directory: directory,
        }
    }
}

/// Faults at seeded numbers of produce requests.
fn arm(broker: &Broker, random: &mut SplitMix64) {
    let faults = broker.faults();
    faults.delay(Some(ApiKey::Produce), LINE);
    let mut at = 10;
    for _ in 0..FAULTS {
        match random.between(0, 5) {
            0 | 1 => {
                faults.drop_connection(ApiKey::Produce, Drop::Before, at, 1);
            }
            2 | 3 => {
                faults.drop_connection(ApiKey::Produce, Drop::After, at, 1);
            }
            4 => {
                let times = random.between(1, 4);
                let error = ResponseError::NotEnoughReplicas;
                faults.fail_after(at, ApiKey::Produce, error, times);
            }
            _ => {
                let error = ResponseError::NotLeaderOrFollower;
                faults.fail_after(at, ApiKey::Produce, error, 1);
            }
        }
        at += random.between(5, 15);
    }
}

/// Runs the engine to its end while leaders move and all connections of a node break, again and again.
async fn run(engine: &Engine, broker: &Broker, random: &mut SplitMix64) {
    let mut running = engine.start().expect("the engine starts");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pause = Duration::from_millis(random.between(10, 40));
        let look = Instant::now() + pause;
        if let Some(status) = running.ended(look.min(deadline)).await.expect("a child") {
            let words = engine.last_words();
            assert!(status.success(), "the engine ended with {status}:\n{words}");
            return;
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "the engine hangs:\n{}", engine.last_words());
        let node = random.between(0, NODES as u64 - 1);
        if random.between(0, 1) == 0 {
            broker.disconnect(node as usize);
        } else {
            let partition = random.between(0, 2) as i32;
            // Before the engine has created the topic there is nothing to move.
            let _ = broker.move_leader(TOPIC, partition, node as i32);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_order_when_connections_break_under_several_batches() {
    let Some(program) = engine() else { return };
    for seed in seeds() {
        eprintln!("seed {seed}: WALBROOK_SEED={seed} repeats it");
        let mut random = SplitMix64(seed);
        let bench = Bench::new(&program).await;
        let (broker, engine) = (&bench.broker, &bench.engine);
        arm(broker, &mut random);
        run(engine, broker, &mut random).await;

        let report = std::fs::read_to_string(engine.report()).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        let figure = |name: &str| report[name].as_u64().unwrap_or_default();
        let (counts, drops) = (broker.counts(), broker.faults().drops());
        eprintln!(
            "seed {seed}: {} requests, {} batches sent again, {drops:?}, {} batches recognised as repeated",
            figure("requests"),
            figure("retries"),
            counts.duplicates
        );
        // Otherwise this test would test nothing.
        assert!(
            drops.in_midst > 0 && figure("retries") >= drops.all,
            "seed {seed}: several batches were on the wire when connections broke: {drops:?}, {report:#}"
        );
        assert!(
            counts.duplicates > 0,
            "seed {seed}: answers were lost after batches were written"
        );
        broker.faults().clear();
        let settings = verify::Settings {
            brokers: broker.bootstrap(),
            truth: Truth::read(&bench.recording.truth_path()).expect("a truth"),
            topic: Some(TOPIC.to_owned()),
            client: verify::Client::Rskafka,
            allow_repeated: false,
        };
        let findings = verify::verify(&settings).await.expect("a readable topic");
        assert!(
            findings.failures.is_empty(),
            "seed {seed}: {:#?}",
            findings.failures
        );
        assert_eq!(findings.repeated, 0, "seed {seed}");
    }
}

/// Brokers that know nothing of a topic, be it that it was deleted, are asked until they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_when_its_topic_is_made_anew() {
    let Some(program) = engine() else { return };
    let bench = Bench::new(&program).await;
    let (broker, engine) = (&bench.broker, &bench.engine);
    // Of the many batches only the first are let in until the topic is gone, however late this is seen.
    let passes = ResponseError::NotEnoughReplicas;
    (broker.faults()).fail_after(20, ApiKey::Produce, passes, u64::MAX);
    let mut running = engine.start().expect("the engine starts");
    let deadline = Instant::now() + PATIENCE;
    while broker.counts().batches < 20 {
        let late = Instant::now() >= deadline;
        assert!(!late, "nothing is written:\n{}", engine.last_words());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    broker.delete_topic(TOPIC).expect("the engine's topic");
    broker.faults().clear();
    let absence = Instant::now() + Duration::from_secs(2);
    let ended = running.ended(absence).await.expect("a child");
    let words = || engine.last_words();
    assert!(ended.is_none(), "nothing is left to write:\n{}", words());
    broker
        .create_topic(TOPIC, PARTITIONS)
        .expect("a new topic of that name");
    let status = running.ended(deadline).await.expect("a child");
    let status = status.unwrap_or_else(|| panic!("the engine hangs:\n{}", words()));
    // It ends once everything is acknowledged.
    assert!(status.success(), "{status}:\n{}", words());
    for partition in 0..PARTITIONS {
        let end = broker.log_end(TOPIC, partition);
        assert!(end > Some(0), "partition {partition} ends at {end:?}");
    }
}
