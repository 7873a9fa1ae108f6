//! The choice against a model of what it steers: a source that never waits, one encoding thread, a link with a rate and a round
//! trip, five requests on it, a bounded memory, two processors that others use as well.
//!
//! ```text
//! seal (asks for the codec) ─► encode, one at a time ─► wait ─► at most 5 on the link: serialise, then half a round trip each way
//! ```

use std::collections::VecDeque;

use protocol::kafka;
use protocol::kafka::record_batch::Builder;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::*;
use crate::config::Config;
use crate::encoded::EncodedBatch;

/// Changes of a batch.
const BATCH: f64 = 10_000.0;
const IN_FLIGHT_MAX: usize = 5;
/// Batches that are received or being encoded at once: buffers, but one that is being filled.
const ENCODING_MAX: usize = 2;

/// Processors of the machine, and seconds that what they have left over is measured for.
const PROCESSORS: f64 = 2.0;
const SPAN: f64 = 0.1;

/// Seconds per change and bytes per change, by codec. The figures are of the order of what was measured; the rules do not
/// depend on them.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    bytes: f64,
}

const LZ4: Cost = Cost {
    seconds: 0.6e-6,
    bytes: 62.0,
};
const ZSTD: Cost = Cost {
    seconds: 1.1e-6,
    bytes: 38.0,
};

struct Model {
    auto: Auto,
    now: f64,
    /// Bytes per second.
    rate: f64,
    round_trip: f64,
    memory: f64,
    /// Seconds between the batches of the source.
    every: f64,
    zstd: Cost,
    /// Processors that others keep busy.
    others: f64,
    /// When something was encoded, from and to.
    encoded: VecDeque<(f64, f64)>,
    measured: (f64, Spare),
    sealed_at: f64,
    /// When the encoder is done with each of them, and its bytes.
    encoding: VecDeque<(f64, f64)>,
    waiting: VecDeque<f64>,
    /// When each request is acknowledged, and its bytes.
    wire: VecDeque<(f64, f64)>,
    link_free_at: f64,
    acknowledged: u64,
}

impl Model {
    fn new(mbit: f64, round_trip_ms: f64) -> Self {
        Self {
            auto: Auto::default(),
            now: 0.0,
            rate: mbit * 1e6 / 8.0,
            round_trip: round_trip_ms / 1e3,
            memory: 30e6,
            every: 0.0,
            zstd: ZSTD,
            others: 0.0,
            encoded: VecDeque::new(),
            measured: (0.0, Spare::Unmeasured),
            sealed_at: 0.0,
            encoding: VecDeque::new(),
            waiting: VecDeque::new(),
            wire: VecDeque::new(),
            link_free_at: 0.0,
            acknowledged: 0,
        }
    }

    fn held(&self) -> f64 {
        self.waiting.iter().sum::<f64>() + self.wire.iter().map(|(_, bytes)| bytes).sum::<f64>()
    }

    /// Lets everything happen that is due.
    fn settle(&mut self) {
        while self.wire.front().is_some_and(|(at, _)| *at <= self.now) {
            self.wire.pop_front();
            self.acknowledged += 1;
        }
        while self.encoding.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, bytes) = self.encoding.pop_front().unwrap();
            self.waiting.push_back(bytes);
        }
        // Until a leader has written something, one batch of each partition is on the wire.
        let most = if self.acknowledged == 0 {
            1
        } else {
            IN_FLIGHT_MAX
        };
        while self.wire.len() < most {
            let Some(bytes) = self.waiting.pop_front() else {
                break;
            };
            self.link_free_at = self.link_free_at.max(self.now) + bytes / self.rate;
            self.wire
                .push_back((self.link_free_at + self.round_trip, bytes));
        }
    }

    fn can_seal(&self) -> bool {
        self.now >= self.sealed_at + self.every
            && self.encoding.len() < ENCODING_MAX
            && self.held() + BATCH * LZ4.bytes < self.memory
            && !self.load().is_ahead()
    }

    fn load(&self) -> Load {
        Load {
            is_pressed: !self.waiting.is_empty(),
            bytes: self.waiting.iter().sum::<f64>() as usize,
        }
    }

    /// Idle processors in the last span that has ended.
    fn spare(&mut self) -> Spare {
        let (since, _) = self.measured;
        let span = self.now - since;
        if span >= SPAN {
            self.encoded.retain(|(_, to)| *to > since);
            let within = |(from, to): &(f64, f64)| (to.min(self.now) - from.max(since)).max(0.0);
            let encoding: f64 = self.encoded.iter().map(within).sum();
            let encoding = encoding / span;
            let idle = (PROCESSORS - self.others - encoding).max(0.0);
            let spare = Spare::Measured { idle, encoding };
            self.measured = (self.now, spare);
        }
        self.measured.1
    }

    /// Seals `batches` more; how long that took, in seconds.
    fn run(&mut self, batches: u64) -> f64 {
        let began = self.now;
        for _ in 0..batches {
            self.settle();
            while !self.can_seal() {
                let due = [
                    self.encoding.front().map(|(at, _)| *at),
                    self.wire.front().map(|(at, _)| *at),
                    Some(self.sealed_at + self.every).filter(|at| *at > self.now),
                ];
                self.now = due.into_iter().flatten().fold(f64::INFINITY, f64::min);
                self.settle();
            }
            let sample = Sample {
                load: self.load(),
                encoding: self.encoding.len() as u64,
                threads: 1,
                spare: self.spare(),
            };
            let cost = match self.auto.next(sample).0 {
                Compression::Zstd => self.zstd,
                _ => LZ4,
            };
            let free_at = self.encoding.back().map_or(self.now, |(at, _)| *at);
            let begun = free_at.max(self.now);
            let done = begun + BATCH * cost.seconds;
            self.encoded.push_back((begun, done));
            self.encoding.push_back((done, BATCH * cost.bytes));
            self.sealed_at = self.now;
        }
        self.now - began
    }
}

#[test]
fn a_slow_link_gets_zstd_soon_and_for_good() {
    let mut model = Model::new(20.0, 400.0);
    model.run(100);
    let codecs = model.auto.codecs();
    assert!(codecs.lz4 <= 12, "{codecs:?}");
    model.run(1000);
    let codecs = model.auto.codecs();
    assert_eq!((codecs.switches, codecs.lz4 <= 12), (1, true), "{codecs:?}");
}

#[test]
fn a_fast_link_never_leaves_lz4() {
    for (mbit, round_trip_ms) in [(10_000.0, 0.1), (10_000.0, 20.0), (1_500.0, 1.0)] {
        let mut model = Model::new(mbit, round_trip_ms);
        model.run(2000);
        let codecs = model.auto.codecs();
        assert_eq!(codecs.switches, 0, "{mbit} Mbit/s: {codecs:?}");
    }
}

#[test]
fn a_source_that_is_slower_than_the_link_never_leaves_lz4() {
    let mut model = Model::new(20.0, 400.0);
    model.every = 0.5;
    model.run(500);
    assert_eq!(model.auto.codecs().switches, 0);
}

#[test]
fn a_link_that_recovers_gets_lz4_again() {
    let mut model = Model::new(20.0, 400.0);
    model.run(200);
    model.rate = 10e9 / 8.0;
    model.round_trip = 1e-4;
    model.run(1000);
    let before = model.auto.codecs();
    assert_eq!(before.switches, 2, "{before:?}");
    model.run(1000);
    let after = model.auto.codecs();
    assert_eq!(after.switches, 2, "{after:?}");
    assert_eq!(after.zstd, before.zstd);
}

/// A broker on the same machine takes bytes as slowly as a link of 600 Mbit/s: not by what they are, but by the processor time it gets.
#[test]
fn a_broker_that_takes_the_processors_never_gets_zstd() {
    let mut model = Model::new(600.0, 1.0);
    model.others = 1.3;
    model.run(2000);
    let codecs = model.auto.codecs();
    assert_eq!(codecs.switches, 0, "{codecs:?}");
}

#[test]
fn lz4_comes_back_soon_where_others_take_the_processors() {
    let mut model = Model::new(100.0, 1.0);
    model.run(200);
    let before = model.auto.codecs();
    assert_eq!(before.switches, 1, "{before:?}");
    model.others = 2.0;
    model.run(40);
    let soon = model.auto.codecs();
    assert_eq!(soon.switches, 2, "{soon:?}");
    model.run(1000);
    let after = model.auto.codecs();
    assert_eq!((after.switches, after.zstd), (2, soon.zstd), "{after:?}");
}

/// What waits for the link is what keeps it busy, and not more.
#[test]
fn no_more_waits_for_a_slow_link_than_it_takes_to_keep_it_busy() {
    let mut model = Model::new(20.0, 400.0);
    for _ in 0..200 {
        model.run(1);
        let load = model.load();
        assert!(
            load.bytes < AHEAD + 4 * (BATCH * LZ4.bytes) as usize,
            "{load:?}"
        );
    }
    let seconds = model.run(500);
    let best = 500.0 * BATCH * ZSTD.bytes / model.rate;
    assert!(
        seconds < best * 1.01,
        "{seconds} s, {best} s by the link's rate"
    );
}

/// lz4 is too much for the link, zstd for the encoding thread, or neither of them for anything: the worst that can be steered
/// into is going to and fro, and it becomes rare.
#[test]
fn between_two_bottlenecks_it_does_not_flap() {
    for (mbit, zstd_us) in [
        (400.0, 1.1),
        (400.0, 3.0),
        (500.0, 0.9),
        (700.0, 1.2),
        (300.0, 0.9),
    ] {
        let mut model = Model::new(mbit, 20.0);
        model.zstd.seconds = zstd_us * 1e-6;
        model.run(20_000);
        let early = model.auto.codecs();
        model.run(20_000);
        let late = model.auto.codecs();
        let switches = late.switches - early.switches;
        assert!(
            switches <= 40,
            "{mbit} Mbit/s, zstd {zstd_us} µs: {early:?} {late:?}"
        );
    }
}

/// What it costs not to know the best codec beforehand: never much more than the worse of both, mostly close to the better.
#[test]
fn it_comes_close_to_the_better_codec() {
    let fixed = |mbit: f64, cost: Cost| {
        // One after the other without a queue: the slower of encoding and sending.
        (BATCH * cost.seconds).max(BATCH * cost.bytes * 8.0 / (mbit * 1e6))
    };
    for mbit in [20.0, 50.0, 100.0, 200.0, 1000.0, 10_000.0] {
        let mut model = Model::new(mbit, 20.0);
        let batches = 5000;
        let seconds = model.run(batches) / batches as f64;
        let best = fixed(mbit, LZ4).min(fixed(mbit, ZSTD));
        assert!(
            seconds <= best * 1.05,
            "{mbit} Mbit/s: {seconds:.5} s a batch, {best:.5} by the better codec, {:?}",
            model.auto.codecs()
        );
    }
}

/// A few batches that wait for a broker to be there do not wait for the link: its first answers are still to come. Over a long line many
/// would be encoded before those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_broker_is_no_reason_to_compress_more() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let text = format!(
        "[source.a]\nurl = 'mysql://u@db1'\n[kafka]\nbrokers = ['{}']\ntopics = {{ create = false }}\n",
        cluster.bootstrap_servers()
    );
    let config = Config::parse(&text, &"w.toml".into(), &[] as &[&str], &|_| None).unwrap();
    let producer = Producer::connect(&config.kafka).await.unwrap();
    let route = producer.topics(&["t"]).await.unwrap().remove(0);
    cluster.broker_down(-1).unwrap();
    let send = |ordinal| {
        let mut builder = Builder::new(kafka::Compression::Lz4);
        builder.append(0, None, Some(b"row"), &[]).unwrap();
        let batch = EncodedBatch {
            topic_id: route.topic_id,
            partition: 0,
            records: 1,
            changes: 1,
            bytes: builder.finish().unwrap().into(),
        };
        producer.send(ordinal, vec![batch]);
    };
    (0..FEW as u64).for_each(send);
    let of = |producer: &Producer| Sample {
        load: Load::of(producer),
        encoding: 0,
        threads: 1,
        spare: Spare::Measured {
            idle: PROCESSORS,
            encoding: 0.0,
        },
    };
    assert!(producer.waiting() > 0);
    let mut auto = Auto::default();
    for _ in 0..2 * PRESSED {
        let (codec, _) = auto.next(of(&producer));
        assert_eq!(codec, Compression::Lz4);
    }
    // One of them may have been taken for a request.
    (FEW as u64..FEW as u64 + 2).for_each(send);
    for _ in 1..PRESSED {
        let (codec, _) = auto.next(of(&producer));
        assert_eq!(codec, Compression::Lz4);
    }
    let (codec, is_new) = auto.next(of(&producer));
    assert_eq!((codec, is_new), (Compression::Zstd, true));
}
