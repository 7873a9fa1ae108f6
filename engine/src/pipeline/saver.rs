//! Writes checkpoints beside the stream: on a blocking thread, one at a time, at most every 100 ms, and less often the more partitions
//! are in them. What is durable is said to the source, whose server may keep its log until then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::account::Account;
use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointStore};
use crate::clock;
use crate::position::Position;
use crate::source::Confirmer;

/// A checkpoint of up to [`PARTITIONS_PER_INTERVAL`] partitions is written at most this often, but for those that something waits for.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(100);

/// A checkpoint is written whole, with some 30 bytes for each partition: of more than these it is written that much less often, so that
/// it takes some 300 kB/s of the disk however many there are.
const PARTITIONS_PER_INTERVAL: usize = 1000;

/// Never less often: what is written in between is read back after a crash.
const CHECKPOINT_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// Where one source's checkpoints go.
#[derive(Debug)]
pub(super) struct Saver {
    store: Arc<dyn CheckpointStore>,
    source: Arc<str>,
    writing: Option<JoinHandle<Result<(), CheckpointError>>>,
    /// The position of the checkpoint that is being written.
    position: Option<Position>,
    /// Hears of positions that have become durable.
    confirmer: Confirmer,
    due: Instant,
}

impl Saver {
    pub(super) fn new(store: Arc<dyn CheckpointStore>, source: &str, confirmer: Confirmer) -> Self {
        Self {
            store,
            source: source.into(),
            writing: None,
            position: None,
            confirmer,
            due: Instant::from_std(clock::now()),
        }
    }

    /// Does the next thing that is due: begins to write a changed checkpoint when the interval has passed, or waits for the one being
    /// written. Pends for ever when there is nothing to do. Cancel-safe.
    pub(super) async fn tick(&mut self, account: &mut Account) -> Result<(), CheckpointError> {
        if self.writing.is_some() {
            self.written().await
        } else if account.is_dirty() {
            sleep_until(self.due).await;
            self.begin(account);
            Ok(())
        } else {
            std::future::pending().await
        }
    }

    /// Writes the checkpoint, if it has changed, and waits until it is durable.
    pub(super) async fn save_now(&mut self, account: &mut Account) -> Result<(), CheckpointError> {
        self.written().await?;
        self.begin(account);
        self.written().await
    }

    fn begin(&mut self, account: &mut Account) {
        let mut rest = CHECKPOINT_INTERVAL;
        if let Some(checkpoint) = account.take_unsaved() {
            let store = Arc::clone(&self.store);
            let source = Arc::clone(&self.source);
            rest = interval(&checkpoint);
            self.position = Some(checkpoint.position.clone());
            self.writing = Some(tokio::task::spawn_blocking(move || {
                store.save(&source, &checkpoint)
            }));
        }
        self.due = Instant::from_std(clock::now() + rest);
    }

    /// Waits for the write that is under way, if one is.
    async fn written(&mut self) -> Result<(), CheckpointError> {
        let Some(thread) = &mut self.writing else {
            return Ok(());
        };
        let result = thread.await;
        self.writing = None;
        if let (Ok(Ok(())), Some(position)) = (&result, self.position.take()) {
            self.confirmer.confirm(&position);
        }
        result.unwrap_or_else(|cause| {
            Err(CheckpointError::Io {
                doing: "save checkpoint of",
                path: (&*self.source).into(),
                cause: std::io::Error::other(cause),
            })
        })
    }
}

/// How long the next checkpoint waits after this one.
fn interval(checkpoint: &Checkpoint) -> Duration {
    let partitions: usize = checkpoint.offsets.values().map(BTreeMap::len).sum();
    let times = u32::try_from(partitions.div_ceil(PARTITIONS_PER_INTERVAL)).unwrap_or(u32::MAX);
    CHECKPOINT_INTERVAL
        .saturating_mul(times.max(1))
        .min(CHECKPOINT_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::postgres::Lsn;

    #[test]
    fn large_checkpoints_are_written_less_often() {
        for (topics, partitions, ms) in [
            (0, 0, 100),
            (1, 3, 100),
            (500, 2, 100),
            (501, 2, 200),
            (5000, 3, 1500),
            (100_000, 3, 5000),
        ] {
            let lsn = Lsn(1);
            let mut checkpoint = Checkpoint::set_by_operator(Position::Postgres { lsn });
            for topic in 0..topics {
                let offsets = (0..partitions).map(|partition| (partition, 7)).collect();
                checkpoint.offsets.insert(format!("t{topic}"), offsets);
            }
            let expected = Duration::from_millis(ms);
            assert_eq!(interval(&checkpoint), expected, "{topics} of {partitions}");
        }
    }
}
