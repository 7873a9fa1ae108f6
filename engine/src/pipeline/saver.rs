//! Writes checkpoints beside the stream: on a blocking thread, one at a time, at most every 100 ms.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::ledger::Ledger;
use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::clock;

/// A checkpoint is written at most this often, but for those that something waits for.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(100);

type Store = Box<dyn CheckpointStore>;

/// The store, at home or lent to the thread that writes.
#[derive(Debug)]
pub(super) struct Saver {
    place: Place,
    due: Instant,
}

#[derive(Debug)]
enum Place {
    Home(Store),
    Writing(JoinHandle<(Store, Result<(), CheckpointError>)>),
    /// The writing thread is gone with the store; nothing can be saved any more.
    Lost,
}

impl Saver {
    pub(super) fn new(store: Store) -> Self {
        Self {
            place: Place::Home(store),
            due: Instant::from_std(clock::now()),
        }
    }

    /// Does the next thing that is due: begins to write a changed checkpoint when the interval has passed, or waits for the one being
    /// written. Pends for ever when there is nothing to do. Cancel-safe.
    pub(super) async fn tick(&mut self, ledger: &mut Ledger) -> Result<(), CheckpointError> {
        match &self.place {
            Place::Writing(_) => self.written().await,
            Place::Home(_) if ledger.is_dirty() => {
                sleep_until(self.due).await;
                self.begin(ledger);
                Ok(())
            }
            Place::Home(_) | Place::Lost => std::future::pending().await,
        }
    }

    /// Writes the checkpoint, if it has changed, and waits until it is durable.
    pub(super) async fn save_now(&mut self, ledger: &mut Ledger) -> Result<(), CheckpointError> {
        if matches!(self.place, Place::Writing(_)) {
            self.written().await?;
        }
        self.begin(ledger);
        if matches!(self.place, Place::Writing(_)) {
            self.written().await?;
        }
        Ok(())
    }

    fn begin(&mut self, ledger: &mut Ledger) {
        self.place = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Home(mut store) => match ledger.take_unsaved() {
                Some(checkpoint) => Place::Writing(tokio::task::spawn_blocking(move || {
                    let result = store.save(&checkpoint);
                    (store, result)
                })),
                None => Place::Home(store),
            },
            other => other,
        };
        self.due = Instant::from_std(clock::now() + CHECKPOINT_INTERVAL);
    }

    async fn written(&mut self) -> Result<(), CheckpointError> {
        let Place::Writing(thread) = &mut self.place else {
            return Ok(());
        };
        match thread.await {
            Ok((store, result)) => {
                self.place = Place::Home(store);
                result
            }
            Err(_) => {
                self.place = Place::Lost;
                Err(CheckpointError::interrupted())
            }
        }
    }
}
