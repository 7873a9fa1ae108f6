//! Takes encoded batches in order, hands them to the producer, hears what Kafka acknowledged, and keeps the checkpoint.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::account::{Account, Departure};
use super::encoding::Encoded;
use super::feed::{Departing, NewTopics, Submitted};
use super::memory::{Memory, Reservation};
use super::saver::Saver;
use super::{PipelineError, Progress};
use crate::batch::Batch;
use crate::checkpoint::Ledger;
use crate::clock;
use crate::producer::Producer;
use crate::settled::Settled;
use crate::source::Identity;

/// A recycled batch keeps at most this many times the usual size: one giant row must not be paid for ever.
const RECYCLED_EXCESS: usize = 2;

/// The delivering half of a pipeline.
pub(super) struct Delivery {
    pub(super) producer: Arc<Producer>,
    pub(super) account: Account,
    pub(super) queue: mpsc::UnboundedReceiver<Submitted>,
    pub(super) new_topics: mpsc::UnboundedReceiver<NewTopics>,
    pub(super) free: mpsc::UnboundedSender<Batch>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) memory: Arc<Memory>,
    pub(super) batch_bytes: usize,
    pub(super) topics: HashMap<u32, Arc<str>>,
    pub(super) saver: Saver,
    /// The server whose changes are written, as the feed announced it last.
    pub(super) server: Identity,
    /// What an earlier run wrote beyond the checkpoint, until the stream has passed it.
    pub(super) settled: Option<Arc<Settled>>,
    /// Ends the delivery although not everything is acknowledged.
    pub(super) give_up: Arc<Notify>,
}

impl Delivery {
    /// Runs until the feed is gone and everything is acknowledged, or until something fails. The account always comes back; the
    /// checkpoint has been written as far as it could be.
    pub(super) async fn run(mut self) -> (Account, Result<(), PipelineError>) {
        // The producer id of this run has to be known before anything is sent under it, or a restart takes our records for others'.
        let delivered = match self.saver.save_now(&mut self.account).await {
            Ok(()) => self.deliver().await,
            Err(e) => Err(e.into()),
        };
        let saved = self.saver.save_now(&mut self.account).await;
        let result = delivered.and(saved.map_err(PipelineError::from));
        (self.account, result)
    }

    async fn deliver(&mut self) -> Result<(), PipelineError> {
        let mut new_ids = self.producer.new_ids();
        let mut encoding: Option<(Departing, oneshot::Receiver<Encoded>)> = None;
        let mut fed = true;
        while fed || encoding.is_some() || !self.account.is_idle() {
            tokio::select! {
                acknowledged = self.producer.acknowledged(), if !self.account.is_idle() => {
                    let acknowledged = acknowledged?;
                    let now = (clock::now(), clock::since_epoch());
                    if !self.account.acknowledged(&acknowledged, &self.topics, now) {
                        return Err(PipelineError::Halt(format!(
                            "the producer acknowledged batch {} out of order; this is a defect of walbrook, please report it",
                            acknowledged.ordinal
                        )));
                    }
                    self.acknowledged(acknowledged.ordinal);
                }
                submitted = self.queue.recv(), if fed && encoding.is_none() => match submitted {
                    Some(Submitted { departing, encoded }) => encoding = Some((departing, encoded)),
                    None => fed = false,
                },
                encoded = finished(&mut encoding) => {
                    let (Departing { departure, expected, stretch }, encoded) = encoded;
                    let Ok(encoded) = encoded else {
                        return Err(PipelineError::Halt("the encoding threads ended".to_owned()));
                    };
                    self.depart(departure, encoded, stretch)?;
                    drop(expected);
                }
                Some(new) = self.new_topics.recv() => self.register(new).await?,
                Some(new) = new_ids.recv() => {
                    self.note_ids().await?;
                    new.use_it();
                }
                saved = self.saver.tick(&mut self.account) => saved?,
                () = self.give_up.notified() => return Ok(()),
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, ordinal: u64) {
        let position = &self.account.checkpoint().position;
        if self
            .settled
            .as_ref()
            .is_some_and(|settled| settled.is_passed(position))
        {
            self.settled = None;
            self.account.amend(Ledger::tails_passed);
        }
        let changes = self.account.totals().changes;
        let tails_passed = self.settled.is_none();
        self.progress.send_modify(|progress| {
            progress.acknowledged = ordinal;
            progress.changes = changes;
            progress.tails_passed = tails_passed;
        });
    }

    fn depart(
        &mut self,
        departure: Departure,
        encoded: Encoded,
        stretch: Option<Reservation>,
    ) -> Result<(), PipelineError> {
        let Encoded {
            mut batch,
            parts,
            at,
        } = encoded;
        batch.clear();
        // A read fills what capacity there is: what was lent for one batch may not be in the next one.
        let excess = match stretch {
            Some(_) => 1,
            None => RECYCLED_EXCESS,
        };
        batch.shrink(self.batch_bytes * excess);
        drop(stretch);
        // The feed may be gone already; then nobody needs the batch.
        drop(self.free.send(batch));
        let mut parts = parts?;
        let (mut changes, mut records, mut bytes, mut held) = (0, 0, 0, 0);
        for part in &mut parts {
            changes += u64::from(part.changes);
            records += u64::from(part.records);
            bytes += part.bytes.len() as u64;
            held += part.bytes.capacity();
            // Given back part by part: while one partition cannot be written, others' records take no room for longer than they need.
            let memory = self.memory.reserve(part.bytes.capacity());
            part.bytes.keep(memory);
        }
        let ordinal = departure.ordinal;
        let received = departure.bytes as u64;
        let memory = self.memory.reserve(departure.held(parts.len()));
        self.account
            .departed(departure, at, changes, records, bytes, memory);
        self.producer.send(ordinal, parts);
        self.progress.send_modify(|progress| {
            progress.encoded = ordinal;
            progress.expansion.add(received, held as u64);
        });
        Ok(())
    }

    /// Makes the checkpoint name the producer's ids before records are written under a new one: a restart would take them for
    /// somebody else's, and write their rows again.
    async fn note_ids(&mut self) -> Result<(), PipelineError> {
        let producer_ids = self.producer.producer_ids();
        let server = self.server.clone();
        self.account
            .amend(|ledger| ledger.producers(&producer_ids, &server));
        self.saver.save_now(&mut self.account).await?;
        Ok(())
    }

    /// Makes the checkpoint name new topics before the first record is sent to them.
    async fn register(&mut self, new: NewTopics) -> Result<(), PipelineError> {
        let producer_ids = self.producer.producer_ids();
        self.account.amend(|ledger| {
            ledger.producers(&producer_ids, &new.server);
            for topic in &new.topics {
                ledger.topic(&topic.name, &topic.ends);
            }
        });
        self.server = new.server;
        for topic in new.topics {
            self.topics.insert(topic.id, topic.name);
        }
        self.saver.save_now(&mut self.account).await?;
        // The feed may have been stopped meanwhile.
        let _ = new.done.send(());
        Ok(())
    }
}

/// Awaits the oldest batch in the encoding threads; pends for ever when there is none. Cancel-safe: the batch stays until it is done.
async fn finished(
    encoding: &mut Option<(Departing, oneshot::Receiver<Encoded>)>,
) -> (Departing, Result<Encoded, oneshot::error::RecvError>) {
    let Some((_, receiver)) = encoding else {
        return std::future::pending().await;
    };
    let result = receiver.await;
    match encoding.take() {
        Some((departing, _)) => (departing, result),
        None => std::future::pending().await,
    }
}
