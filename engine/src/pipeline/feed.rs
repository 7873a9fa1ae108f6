//! Fills batches from the source, decides when one is sealed, names its topics, and hands it to the encoding threads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use super::account::Departure;
use super::codec::{Auto, Load, Sample};
use super::encoding::{Encoded, EncodingThreads, Job};
use super::memory::{Memory, Reservation};
use super::processors::{Processors, Spare};
use super::stretch::Stretch;
use super::{PipelineError, Progress};
use crate::batch::Batch;
use crate::clock;
use crate::config::{Compression, EncodeSettings};
use crate::encode::{Template, Topics};
use crate::encoded::Route;
use crate::producer::{Producer, Traffic};
use crate::schema::Table;
use crate::settled::Settled;
use crate::source::{Filled, Identity, Source};

/// While encoding waits for the link: how often it is asked about, beside every answer that moves the position.
const LOOK: Duration = Duration::from_millis(10);

/// Batches that leave early in a row of which nothing is written: partitions take one batch of a request, and thousands of small ones would
/// keep them behind for long.
const UNREWARDED_MAX: u64 = 256;

/// A batch on its way through the encoding threads.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) departing: Departing,
    pub(super) encoded: oneshot::Receiver<Encoded>,
}

/// What is known of such a batch while it is encoded.
#[derive(Debug)]
pub(super) struct Departing {
    pub(super) departure: Departure,
    /// What the records are expected to take; the delivery replaces it by what they do take.
    pub(super) expected: Reservation,
    /// What it holds beyond the usual size; the delivery gives it back with the batch.
    pub(super) stretch: Option<Reservation>,
}

/// Topics that are about to be written for the first time in this run.
#[derive(Debug)]
pub(super) struct NewTopics {
    pub(super) topics: Vec<NewTopic>,
    /// The server whose changes they will hold.
    pub(super) server: Identity,
    /// Answered when the checkpoint that names them is durable.
    pub(super) done: oneshot::Sender<()>,
}

#[derive(Debug)]
pub(super) struct NewTopic {
    pub(super) id: u32,
    pub(super) name: Arc<str>,
    /// End offset of each partition before our first record.
    pub(super) ends: Vec<(i32, i64)>,
}

/// Why feeding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedEnd {
    /// It was told to.
    Stopped,
    /// Everything up to the source's end has been submitted.
    Reached,
    /// The delivery is gone: it has the error.
    DeliveryEnded,
}

/// The feeding half of a pipeline.
pub(super) struct Feed {
    pub(super) source: Source,
    pub(super) producer: Arc<Producer>,
    pub(super) threads: EncodingThreads,
    pub(super) settings: Arc<EncodeSettings>,
    pub(super) queue: mpsc::UnboundedSender<Submitted>,
    pub(super) new_topics: mpsc::UnboundedSender<NewTopics>,
    pub(super) free: mpsc::UnboundedReceiver<Batch>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) memory: Arc<Memory>,
    /// What batches may have beyond the usual size; set aside from `memory`.
    pub(super) stretch: Stretch,
    pub(super) settled: Option<Arc<Settled>>,
    pub(super) templates: Templates,
    /// With `kafka.compression = "auto"`: what decides, and what it has to know.
    pub(super) auto: Option<(Auto, Processors)>,
    /// The server that the checkpoint names.
    pub(super) announced: Identity,
    /// The server that the last batch was read from.
    pub(super) read_from: Identity,
    /// The server that the batch is read from that is being filled.
    pub(super) filled_from: Identity,
    pub(super) ordinal: u64,
    /// Acknowledged batches when the last one was sealed.
    pub(super) acknowledged_at_seal: u64,
    /// Record batches written by then.
    pub(super) written_at_seal: u64,
}

impl Feed {
    /// Runs until the source ends, fails, or the delivery is gone.
    pub(super) async fn run(&mut self) -> Result<FeedEnd, PipelineError> {
        let Some(mut batch) = self.free.recv().await else {
            return Ok(FeedEnd::DeliveryEnded);
        };
        let mut has_more = false;
        loop {
            let filled = tokio::select! {
                filled = self.source.fill(&mut batch) => filled,
                changed = self.progress.changed(), if has_more => match changed {
                    Ok(()) => Ok(Filled::Nothing),
                    Err(_) => return Ok(FeedEnd::DeliveryEnded),
                },
                () = self.producer.traffic_changed(), if has_more => Ok(Filled::Nothing),
            };
            // Of a batch of two servers nobody could say whose places its end and its rows have.
            let moved = self.filled_from != *self.source.identity();
            let seal = match &filled {
                Ok(Filled::Nothing) => has_more && (moved || self.may_seal_early()),
                Ok(Filled::More) => {
                    has_more = true;
                    self.may_seal_early()
                }
                Ok(Filled::Full) => {
                    has_more = true;
                    !self.stretch(&mut batch)
                }
                Ok(Filled::End) => true,
                Err(_) => has_more,
            };
            if seal {
                self.source.seal(&mut batch);
                if !self.submit(std::mem::take(&mut batch)).await? {
                    return Ok(FeedEnd::DeliveryEnded);
                }
                has_more = false;
            }
            if moved {
                self.filled_from.clone_from(self.source.identity());
            }
            match filled? {
                Filled::End => return Ok(FeedEnd::Reached),
                _ if seal => match self.free.recv().await {
                    Some(recycled) => batch = recycled,
                    None => return Ok(FeedEnd::DeliveryEnded),
                },
                _ => continue,
            }
        }
    }

    /// Whether a batch that is not full should leave now: nothing is in flight, or an encoding thread is free and something has been
    /// acknowledged since the last one left. Not while encoded ones wait: this one would only wait behind them, and be smaller than it
    /// could be. What they wait for makes the progress that leads here again.
    fn may_seal_early(&mut self) -> bool {
        let progress = *self.progress.borrow_and_update();
        if progress.tails_passed {
            self.settled = None;
        }
        let encoding = self.ordinal - progress.encoded;
        let in_flight = self.ordinal - progress.acknowledged;
        in_flight == 0
            || (encoding < self.threads.count() as u64
                && progress.acknowledged > self.acknowledged_at_seal
                && !self.producer.is_pressed())
            || self.may_overtake(encoding)
    }

    /// Whether a batch that is not full should leave although nothing is acknowledged, because partitions that cannot be written hold
    /// up what is before it: others are not to wait for them. As for [`may_seal_early`](Self::may_seal_early), of what is not held up.
    /// Not when memory is scarce: full batches take the least of it. Nor when nobody can be reached; and where all refuse, after a while only
    /// as often as they do.
    fn may_overtake(&self, encoding: u64) -> bool {
        let traffic = self.producer.traffic();
        if !traffic.is_held_up || !traffic.is_anyone_there || self.memory.is_scarce() {
            return false;
        }
        is_idle(&traffic, encoding)
            || (encoding < self.threads.count() as u64
                && traffic.written > self.written_at_seal
                && !self.producer.is_pressed())
    }

    /// Lets a batch that is full grow, where that is for the better; false when it has to leave.
    fn stretch(&mut self, batch: &mut Batch) -> bool {
        let progress = *self.progress.borrow();
        let more = self
            .stretch
            .grow(&progress, self.producer.bytes_per_broker());
        batch.stretch = more.unwrap_or(batch.stretch);
        more.is_some()
    }

    /// Hands a sealed batch on; false when the delivery is gone.
    async fn submit(&mut self, batch: Batch) -> Result<bool, PipelineError> {
        let decoded_at = clock::now();
        let templates = self.prepare(&batch.tables).await?;
        let Some(templates) = templates else {
            return Ok(false);
        };
        // A reconnect may have reached another server: a restart must know whose changes are in the topics.
        let other = (self.read_from != self.filled_from).then(|| self.filled_from.clone());
        if let Some(server) = &other {
            self.read_from = server.clone();
            if self.settled.is_some() {
                // What is settled was read for the server before: its places in the log say nothing about this one's.
                return Err(PipelineError::Halt(format!(
                    "the source was continued on another server, {server}, before the changes that an earlier run wrote were passed; \
                     nothing is lost: start again, and the topics are read for that server"
                )));
            }
            if self.announced != *server && !self.announce(Vec::new()).await? {
                return Ok(false);
            }
        }
        let expected = self.progress.borrow().expansion.expect(batch.bytes.len());
        self.memory.room_for(expected).await;
        let expected = self.memory.reserve(expected);
        let compression = self.compression().await;
        self.ordinal += 1;
        self.acknowledged_at_seal = self.progress.borrow().acknowledged;
        self.written_at_seal = self.producer.traffic().written;
        let departure = Departure::of(self.ordinal, &batch, other, decoded_at);
        let encoded = self.threads.submit(Job {
            batch,
            templates,
            compression,
            settled: self.settled.clone(),
        });
        let departing = Departing {
            departure,
            expected,
            stretch: self.stretch.take(),
        };
        let submitted = Submitted { departing, encoded };
        Ok(self.queue.send(submitted).is_ok())
    }

    /// What the next batch is compressed by. Where that is chosen, it waits first until what is encoded already does not lie far ahead of
    /// the link, so that the choice is of now.
    async fn compression(&mut self) -> Compression {
        let Some((auto, processors)) = &mut self.auto else {
            return self.settings.compression;
        };
        let (load, spare) = loop {
            let load = Load::of(&self.producer);
            let spare = match load.is_pressed {
                true => processors.spare(clock::now(), self.threads.worked()),
                false => Spare::Unmeasured,
            };
            // Others are not to wait for partitions that cannot be written.
            if !load.is_ahead() || self.producer.traffic().is_held_up {
                break (load, spare);
            }
            tokio::select! {
                changed = self.progress.changed() => if changed.is_err() {
                    break (load, spare);
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        let sample = Sample {
            load,
            encoding: self.ordinal - self.progress.borrow().encoded,
            threads: self.threads.count() as u64,
            spare,
        };
        let (compression, is_new) = auto.next(sample);
        if is_new {
            let source = &self.settings.source;
            match compression {
                Compression::Zstd => info!(
                    %source,
                    "compressing by zstd from here on: encoded batches wait for the link to Kafka, and processors are idle"
                ),
                _ => info!(
                    %source,
                    "compressing by lz4 again: the link to Kafka has kept up for a while, or processors are not idle any more"
                ),
            }
        }
        compression
    }

    /// The templates of `tables`, made where missing. `None` when the delivery is gone.
    async fn prepare(
        &mut self,
        tables: &[Arc<Table>],
    ) -> Result<Option<Vec<Arc<Template>>>, PipelineError> {
        let missing: Vec<&Arc<Table>> = tables
            .iter()
            .filter(|table| !self.templates.by_version.contains_key(&table.version))
            .collect();
        if !missing.is_empty() && !self.name_topics(&missing).await? {
            return Ok(None);
        }
        let found = tables
            .iter()
            .filter_map(|table| self.templates.by_version.get(&table.version).cloned())
            .collect();
        Ok(Some(found))
    }

    /// Creates or looks up the topics of new table versions; the checkpoint names every topic before its first record is sent, so that
    /// a restart knows from which offset to look for records of ours.
    async fn name_topics(&mut self, tables: &[&Arc<Table>]) -> Result<bool, PipelineError> {
        let mut names = Vec::with_capacity(tables.len());
        for table in tables {
            names.push(self.templates.topics.topic(table)?);
        }
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let routes = self.producer.topics(&asked).await?;
        let mut unknown: Vec<Route> = routes
            .iter()
            .filter(|route| !self.templates.known.contains(&route.topic_id))
            .cloned()
            .collect();
        unknown.sort_unstable_by_key(|route| route.topic_id);
        unknown.dedup();
        let ends = self.producer.ends(&unknown).await?;
        let new: Vec<NewTopic> = unknown
            .into_iter()
            .map(|route| NewTopic {
                id: route.topic_id,
                ends: ends
                    .iter()
                    .filter(|(id, ..)| *id == route.topic_id)
                    .map(|(_, partition, end)| (*partition, *end))
                    .collect(),
                name: route.topic,
            })
            .collect();
        self.templates
            .known
            .extend(new.iter().map(|topic| topic.id));
        for (table, route) in tables.iter().zip(routes) {
            let settings = EncodeSettings {
                batch_max: self.producer.batch_max(route.topic_id),
                ..EncodeSettings::clone(&self.settings)
            };
            let template = Template::new(Arc::clone(table), route, &settings)?;
            self.templates.by_version.insert(table.version, template);
        }
        if new.is_empty() {
            return Ok(true);
        }
        self.announce(new).await
    }

    /// Has the checkpoint name topics and the server before records of them are sent; false when the delivery is gone.
    async fn announce(&mut self, new: Vec<NewTopic>) -> Result<bool, PipelineError> {
        self.announced.clone_from(&self.filled_from);
        let (done, durable) = oneshot::channel();
        let told = self.new_topics.send(NewTopics {
            topics: new,
            server: self.announced.clone(),
            done,
        });
        Ok(told.is_ok() && durable.await.is_ok())
    }
}

/// Templates by table version, and the topics that they write to.
#[derive(Debug)]
pub(super) struct Templates {
    by_version: HashMap<u64, Arc<Template>>,
    topics: Topics,
    /// Topics that the checkpoint names already.
    known: HashSet<u32>,
}

impl Templates {
    pub(super) fn new(topics: Topics, known: impl IntoIterator<Item = u32>) -> Self {
        Self {
            by_version: HashMap::new(),
            topics,
            known: known.into_iter().collect(),
        }
    }
}

/// Whether a batch more would be written at once, as everything that can be has been; for as long as what left so before is written.
fn is_idle(traffic: &Traffic, encoding: u64) -> bool {
    encoding == 0 && !traffic.is_busy && traffic.unrewarded < UNREWARDED_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_all_refuse_batches_stop_leaving_for_others() {
        let idle = |unrewarded, is_busy, encoding| {
            let traffic = Traffic {
                is_held_up: true,
                is_anyone_there: true,
                is_busy,
                unrewarded,
                written: 7,
            };
            is_idle(&traffic, encoding)
        };
        assert!(idle(UNREWARDED_MAX - 1, false, 0));
        assert!(!idle(UNREWARDED_MAX, false, 0), "nothing is written");
        assert!(!idle(0, true, 0), "something is on its way");
        assert!(!idle(0, false, 1), "something will be");
    }
}
