//! The encoding threads: batches in, record batches out, in the order in which they came.
//!
//! ```text
//!            ┌─ thread 0 ─┐
//! submit ───►├─ thread 1 ─┤───► a oneshot per batch, awaited in order of submission
//!            └─ …        ─┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::Batch;
use crate::clock;
use crate::config::{Compression, EncodeSettings};
use crate::encode::{EncodeError, Encoder, Template};
use crate::encoded::EncodedBatch;
use crate::settled::Settled;

/// What a thread gets.
#[derive(Debug)]
pub(super) struct Job {
    /// The batch.
    pub(super) batch: Batch,
    /// One template per entry of [`Batch::tables`].
    pub(super) templates: Vec<Arc<Template>>,
    /// What its record batches are compressed by.
    pub(super) compression: Compression,
    /// What an earlier process has written already.
    pub(super) settled: Option<Arc<Settled>>,
}

/// What comes back: the batch, to be recycled, and its records.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) batch: Batch,
    pub(super) parts: Result<Vec<EncodedBatch>, EncodeError>,
    /// When they were complete.
    pub(super) at: Instant,
}

type Order = (Job, oneshot::Sender<Encoded>);

/// Threads that encode. Dropped, they end with the job they are at.
#[derive(Debug)]
pub(super) struct EncodingThreads {
    jobs: mpsc::Sender<Order>,
    count: usize,
    /// Nanoseconds that all jobs which have ended took.
    worked: Arc<AtomicU64>,
}

impl EncodingThreads {
    /// Starts `count` threads, at least one.
    pub(super) fn start(settings: &Arc<EncodeSettings>, count: usize) -> std::io::Result<Self> {
        let count = count.max(1);
        let (jobs, queue) = mpsc::channel::<Order>();
        let queue = Arc::new(Mutex::new(queue));
        let worked = Arc::new(AtomicU64::new(0));
        for n in 0..count {
            let queue = Arc::clone(&queue);
            let settings = Arc::clone(settings);
            let worked = Arc::clone(&worked);
            thread::Builder::new()
                .name(format!("encode-{n}"))
                .spawn(move || work(&queue, settings, &worked))?;
        }
        Ok(Self {
            jobs,
            count,
            worked,
        })
    }

    /// Number of threads.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What encoding has taken since the start, over all threads.
    pub(super) fn worked(&self) -> Duration {
        Duration::from_nanos(self.worked.load(Ordering::Relaxed))
    }

    /// Queues a batch; the receiver yields its records. It yields an error only when the threads are gone.
    pub(super) fn submit(&self, job: Job) -> oneshot::Receiver<Encoded> {
        let (reply, receiver) = oneshot::channel();
        // A queue without threads drops the order, and with it the sender: the receiver reports that.
        drop(self.jobs.send((job, reply)));
        receiver
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Order>>, settings: Arc<EncodeSettings>, worked: &AtomicU64) {
    let mut encoder = Encoder::new(settings);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((job, reply)) = next else { return };
        let begun = clock::now();
        encoder.set_compression(job.compression);
        let parts = encoder.encode(
            &job.batch,
            &job.templates,
            job.settled.as_deref(),
            clock::since_epoch(),
        );
        let at = clock::now();
        let took = u64::try_from(at.saturating_duration_since(begun).as_nanos());
        worked.fetch_add(took.unwrap_or(u64::MAX), Ordering::Relaxed);
        // Nobody listens any more when the run has ended: what was encoded is not needed then.
        drop(reply.send(Encoded {
            batch: job.batch,
            parts,
            at,
        }));
    }
}
