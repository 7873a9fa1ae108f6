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
//! for nothing, and a busy one grows its batches by itself.

mod delivery;
mod encoding;
mod feed;
mod ledger;
mod memory;
mod resume;

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use self::delivery::Delivery;
use self::encoding::EncodingThreads;
use self::feed::{Feed, FeedEnd};
use self::ledger::Ledger;
use self::memory::Memory;
use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::clock;
use crate::config::{Config, SourceSettings};
use crate::encode::EncodeError;
use crate::position::Position;
use crate::producer::{Producer, ProducerError, ProducerMetrics};
use crate::source::{Counters, Source, SourceError};

pub use self::ledger::Totals;

/// How long a stopping pipeline waits for acknowledgements.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A batch is full at this many received bytes, where `memory_max` allows as much.
const BATCH_BYTES_MAX: usize = 512 << 10;

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
    /// What the producer counted.
    pub producer: ProducerMetrics,
    /// The durable position.
    pub position: Position,
    /// Microseconds from read to acknowledged, a count per record.
    pub latency: Histogram<u64>,
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
}
