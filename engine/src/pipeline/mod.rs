//! Joins a source, the encoding threads, a producer and a checkpoint store into one stream.
//!
//! ```text
//!  feed (this task)                 encoding threads          delivery (a task)
//! ┌──────────────────────────┐ job ┌───────────────┐ in order ┌──────────────────────────────┐
//! │ fill a Batch, seal it,   ├────►│ Batch → record├─────────►│ producer.send, acknowledged, │
//! │ name its topics          │     │ batches       │          │ ledger, checkpoint           │
//! └───────────▲──────────────┘     └───────────────┘          └──────────────┬───────────────┘
//!             └────────── recycled batches, progress, memory ────────────────┘
//! ```
//! Batching happens here, without a timer. A batch is sealed as soon as nothing is in flight; under load it stays open until it is
//! full, or until an encoding thread is free and Kafka has acknowledged something since the last seal. So an idle stream waits
//! for nothing, and a busy one grows its batches by itself. Kafka takes one record batch per partition and request, and a request
//! takes its time however little is in it: where answers take longer than batches take to fill, and requests are small, a full one
//! may grow beyond the usual size, and none is sealed early while others wait for a place on the wire (docs/decisions/producer.md).
//! Acknowledgements come in order, so while a partition cannot be written, what the others have written counts instead.

mod account;
mod codec;
mod delivery;
mod encoding;
mod expansion;
mod feed;
mod memory;
mod processors;
mod resume;
mod saver;
mod stretch;
mod timing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tracing::{info, warn};

use self::account::Account;
use self::delivery::Delivery;
use self::encoding::EncodingThreads;
use self::expansion::Expansion;
use self::feed::{Feed, FeedEnd, Templates};
use self::memory::Memory;
use self::saver::Saver;
use self::stretch::Stretch;
use crate::batch::Batch;
use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::clock;
use crate::config::{Compression, Config, Io, SourceSettings};
use crate::encode::{EncodeError, TopicError, Topics, UnknownKeyColumn};
use crate::position::Position;
use crate::producer::{Producer, ProducerError, ProducerMetrics};
use crate::settled::SettledError;
use crate::source::{self, Counters, SourceError};

pub use self::account::Totals;
pub use self::codec::Codecs;
pub use self::timing::Timings;

/// How long a server may stay away before the stream has begun, in a run that is to end by itself: whoever waits for that end is to
/// hear of it. A run without an end waits for as long as it takes, as it does for a server that is lost later on.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long a stopping pipeline waits for acknowledgements.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the delivery may take to write its checkpoint after that: a disk that does not answer would hold it for ever.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// A batch is full at this many received bytes, where `memory_max` allows as much.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// A batch is full at this many where answers are slow and `memory_max` allows as much: encoded for three partitions still less than
/// a topic's usual `max.message.bytes` (1 MiB) each.
const STRETCHED_BYTES_MAX: usize = 2 << 20;

/// Batches that may be larger than usual at the same time: one that is filled, one that is encoded, and one in between.
const STRETCHED_MAX: usize = 3;

/// Batches get smaller than this for no configuration.
const BATCH_BYTES_MIN: usize = 16 << 10;

/// Why a pipeline ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The source cannot go on.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// A change cannot be written as a record.
    #[error("{0}")]
    Encode(#[from] EncodeError),
    /// Kafka cannot go on.
    #[error("{0}")]
    Producer(#[from] ProducerError),
    /// The checkpoint cannot be read or written.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// What is in the topics does not fit this server.
    #[error("{0}")]
    Settled(#[from] SettledError),
    /// A table cannot have a topic.
    #[error("{0}")]
    Topic(#[from] TopicError),
    /// A table lacks a column that was to be its key.
    #[error("{0}")]
    Key(#[from] UnknownKeyColumn),
    /// Something between these; the text says what and what to do.
    #[error("{0}")]
    Halt(String),
}

/// What ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Only a signal or an error.
    Stopped,
    /// Everything that the source held at start is acknowledged.
    End,
}

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// Totals of acknowledged work.
    pub totals: Totals,
    /// From start to the last acknowledgement.
    pub elapsed: Duration,
    /// What the source counted.
    pub source: Counters,
    /// What read its stream.
    pub io: Io,
    /// What the producer counted.
    pub producer: ProducerMetrics,
    /// With `kafka.compression = "auto"`: which codecs were used.
    pub codecs: Option<Codecs>,
    /// The durable position.
    pub position: Position,
    /// How long changes took from station to station.
    pub timings: Timings,
    /// The error that ended it, if one did. Everything else in here still holds.
    pub error: Option<PipelineError>,
}

/// What a pipeline shows while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Batches handed to the encoding threads.
    pub submitted: u64,
    /// Batches encoded and handed to the producer.
    pub encoded: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Row changes acknowledged.
    pub changes: u64,
    /// The stream is past everything that an earlier run had written.
    pub tails_passed: bool,
    /// How much encoding makes of what is received.
    expansion: Expansion,
}

/// Streams one source into Kafka until it is told to stop, its end is reached, or something fails. Returns what was done even then;
/// `Err` only when nothing could begin, `None` when it was told to stop before anything had begun.
///
/// `stop` turning true ends reading; what is on its way gets 10 seconds to be acknowledged. `shown` is kept up to date for whoever
/// displays it.
///
/// # Errors
/// The checkpoint cannot be read, Kafka or the source cannot be reached, or they do not fit the checkpoint.
pub async fn run(
    config: &Config,
    settings: &SourceSettings,
    store: Arc<dyn CheckpointStore>,
    until: Until,
    mut stop: watch::Receiver<bool>,
    shown: watch::Sender<Progress>,
) -> Result<Option<Outcome>, PipelineError> {
    let started = clock::now();
    let threads_settings = Arc::new(config.encode_settings(settings));
    let threads = EncodingThreads::start(&threads_settings, config.engine.encode_threads)
        .map_err(|e| PipelineError::Halt(format!("cannot start the encoding threads: {e}")))?;
    let buffers = threads.count() + 2;
    let batch_bytes = batch_bytes(config.engine.memory_max, buffers);
    let limits = source::Limits {
        batch_bytes,
        row_max: config.engine.row_max,
        io: config.engine.io,
        until_end: until == Until::End,
    };
    let patience = limits.until_end.then_some(START_PATIENCE);
    // The source only once Kafka is there: its start changes its server (a slot keeps log from then on) and has it send.
    let begin = async {
        let producer = match limits.until_end {
            true => Producer::connect(&config.kafka).await?,
            false => Producer::reach(&config.kafka).await?,
        };
        let producer = Arc::new(producer);
        let resumed =
            resume::resume(config, settings, limits, patience, &*store, &producer).await?;
        Ok::<_, PipelineError>((producer, resumed))
    };
    let (producer, resumed) = tokio::select! {
        begun = begin => begun?,
        _ = stop.wait_for(|stop| *stop) => {
            info!(source = %settings.name, "stopped before the stream began");
            return Ok(None);
        }
    };

    let stretch = Stretch::new(
        stretch(config.engine.memory_max, batch_bytes),
        STRETCHED_MAX.min(buffers),
    );
    // What the buffers take is set aside for good; the rest is for what is encoded.
    let held = buffers * batch_bytes + stretch.limit();
    let memory = Memory::new(config.engine.memory_max.saturating_sub(held));
    let (queue, queued) = mpsc::unbounded_channel();
    let (new_topics, named) = mpsc::unbounded_channel();
    let (recycled, free) = mpsc::unbounded_channel();
    for _ in 0..buffers {
        // The receiver is a few lines above.
        drop(recycled.send(Batch::default()));
    }
    let progress = shown.subscribe();
    let confirmer = resumed.source.confirmer();
    let give_up = Arc::new(Notify::new());
    let delivery = Delivery {
        producer: Arc::clone(&producer),
        account: Account::new(resumed.ledger),
        queue: queued,
        new_topics: named,
        free: recycled,
        progress: shown,
        memory: Arc::clone(&memory),
        batch_bytes,
        topics: resumed.topics,
        saver: Saver::new(store, &settings.name, confirmer.clone()),
        settled: resumed.settled.clone(),
        server: resumed.source.identity().clone(),
        give_up: Arc::clone(&give_up),
    };
    let mut feed = Feed {
        templates: Templates::new(
            Topics::new(&config.kafka.topic, &settings.name),
            delivery.topics.keys().copied(),
        ),
        auto: (config.kafka.compression == Compression::Auto).then(Default::default),
        announced: resumed.source.identity().clone(),
        read_from: resumed.source.identity().clone(),
        filled_from: resumed.source.identity().clone(),
        source: resumed.source,
        producer: Arc::clone(&producer),
        threads,
        settings: threads_settings,
        queue,
        new_topics,
        free,
        progress,
        memory,
        stretch,
        settled: resumed.settled,
        ordinal: 0,
        acknowledged_at_seal: 0,
        written_at_seal: 0,
    };
    let mut delivering = tokio::spawn(delivery.run());
    let (fed, early) = tokio::select! {
        fed = feed.run() => (fed, None),
        _ = stop.wait_for(|stop| *stop) => {
            info!(source = %settings.name, "stopping: waiting for acknowledgements");
            (Ok(FeedEnd::Stopped), None)
        }
        delivered = &mut delivering => (Ok(FeedEnd::DeliveryEnded), Some(ended(delivered))),
    };
    let counters = feed.source.counters();
    let io = feed.source.io();
    let codecs = feed.auto.as_ref().map(|(auto, _)| auto.codecs());
    drop(feed);
    // Dropping the feed closed the queue: the delivery ends when everything in it is acknowledged. At the end of the source that
    // takes as long as it takes; after a signal or an error it gets a while.
    let patience = match fed {
        Ok(FeedEnd::Reached) => None,
        _ => Some(DRAIN_TIMEOUT),
    };
    let delivered = match early {
        Some(delivered) => delivered,
        None => drain(delivering, patience, &mut stop, &give_up).await,
    };
    let (account, delivered) = delivered?;
    confirmer.close().await;
    let metrics = producer.metrics();
    // Nobody else holds it any more. What it has not got acknowledged by now has had its time.
    if let Some(producer) = Arc::into_inner(producer) {
        drop(producer.close(Duration::ZERO).await);
    }
    Ok(Some(Outcome {
        totals: account.totals(),
        elapsed: account
            .last_acknowledged_at()
            .map_or(Duration::ZERO, |last| {
                last.saturating_duration_since(started)
            }),
        source: counters,
        io,
        producer: metrics,
        codecs,
        position: account.checkpoint().position.clone(),
        timings: account.timings().clone(),
        // The delivery's error explains the feed's end where both have one.
        error: delivered.err().or(fed.err()),
    }))
}

type Delivered = (Account, Result<(), PipelineError>);

/// Waits until everything on its way is acknowledged; after `patience` (or, without one, that long after `stop`) what is left is left
/// to the next start.
async fn drain(
    mut delivering: JoinHandle<Delivered>,
    patience: Option<Duration>,
    stop: &mut watch::Receiver<bool>,
    give_up: &Notify,
) -> Result<Delivered, PipelineError> {
    let out_of_patience = async {
        if patience.is_none() && stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(patience.unwrap_or(DRAIN_TIMEOUT)).await;
    };
    tokio::select! {
        delivered = &mut delivering => ended(delivered),
        () = out_of_patience => {
            warn!("Kafka has not acknowledged everything in time; the next start writes the rest");
            give_up.notify_one();
            given_up(delivering, GIVE_UP_TIMEOUT).await
        }
    }
}

/// Waits for a delivery that was told to give up, for so long.
async fn given_up(
    delivering: JoinHandle<Delivered>,
    patience: Duration,
) -> Result<Delivered, PipelineError> {
    match tokio::time::timeout(patience, delivering).await {
        Ok(delivered) => ended(delivered),
        Err(_) => Err(PipelineError::Halt(format!(
            "the checkpoint could not be written within {} s of giving up: the disk of the `state` directory does not answer; the next \
             start goes on after the last checkpoint that was written",
            patience.as_secs()
        ))),
    }
}

fn ended(delivering: Result<Delivered, JoinError>) -> Result<Delivered, PipelineError> {
    delivering.map_err(|e| PipelineError::Halt(format!("the delivery task ended: {e}")))
}

/// Received bytes that fill a batch: an eighth of what a buffer could have of the memory, so that records and events fit beside it.
fn batch_bytes(memory_max: usize, buffers: usize) -> usize {
    (memory_max / (8 * buffers)).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX)
}

/// How much more may fill a batch where answers are slow: as much as makes [`STRETCHED_MAX`] of them an eighth of the memory.
fn stretch(memory_max: usize, batch_bytes: usize) -> usize {
    (memory_max / (8 * STRETCHED_MAX))
        .min(STRETCHED_BYTES_MAX)
        .saturating_sub(batch_bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{STRETCHED_MAX, batch_bytes, given_up, stretch};

    /// It would wait for ever, and this test with it.
    #[tokio::test]
    async fn a_delivery_that_does_not_give_up_is_left() {
        let delivering = tokio::spawn(std::future::pending());
        let error = given_up(delivering, Duration::ZERO).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("checkpoint could not be written"), "{text}");
    }

    #[test]
    fn buffers_take_no_more_than_a_quarter_of_the_memory() {
        // Less would be refused; from so many buffers on the least size counts.
        for memory_max in [8 << 20, 32 << 20, 1 << 30, 1 << 40] {
            for buffers in [3, 4, 10, 60] {
                let usual = batch_bytes(memory_max, buffers);
                let more = stretch(memory_max, usual);
                let held = buffers * usual + STRETCHED_MAX * more;
                assert!(held <= memory_max / 4, "{memory_max} {buffers}: {held}");
            }
        }
        let usual = batch_bytes(32 << 20, 3);
        assert_eq!(
            (usual, usual + stretch(32 << 20, usual)),
            (512 << 10, 1_398_101)
        );
        assert_eq!(stretch(8 << 20, batch_bytes(8 << 20, 3)), 0);
    }
}
