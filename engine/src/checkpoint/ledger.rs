//! Keeps the checkpoint of a running source: what may be saved, after what was acknowledged.
//!
//! ```text
//! batches   …── n ──|── n+1 ──|── n+2 ──…       in the order of the stream, acknowledged in that order
//! n+1 ends a transaction at P:    [ rows before P | rows of the next transaction ]
//! ```
//! Once `n+1` is acknowledged, everything before P is, and P may be saved. Its own offsets may not yet: they lie behind records of rows
//! after P, which a restart from P must find in the tail, or it writes them twice. The offsets of the batches before it may.

use std::collections::{BTreeMap, BTreeSet};

use super::Checkpoint;
use crate::position::Position;
use crate::settled::Settled;
use crate::source::Identity;

/// What a start found, and what it decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The server that is being read.
    pub server: Identity,
    /// Where reading begins.
    pub position: Position,
    /// What decides which row goes to which partition: [`Checkpoint::selection`].
    pub selection: String,
    /// The ids of our producer in this process (one, where the client does not use several).
    pub producers: Vec<i64>,
}

/// The checkpoint of a running source.
#[derive(Debug)]
pub struct Ledger {
    checkpoint: Checkpoint,
    /// Offsets of acknowledged batches that may hold rows after `checkpoint.position`.
    ahead: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Where the tails that were read at start end; until they are passed, offsets before them stay.
    tail_ends: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Producer ids of earlier runs that are still needed.
    predecessors: BTreeSet<i64>,
    /// Whether the saved checkpoint has not got what sending relies on.
    must_save: bool,
}

impl Ledger {
    /// Starts with what an earlier run left and what its tails say: its producer ids stay until [`Ledger::tails_passed`], and so do the
    /// offsets of partitions where `settled` found something. On another server new records may belong to transactions before those
    /// that were found, so that an offset behind the new ones would hide the found ones.
    ///
    /// Topics that have another number of partitions by now are to be taken out of `previous` (and not read).
    #[must_use]
    pub fn continued(mut previous: Checkpoint, resume: Resume, settled: &Settled) -> Self {
        let predecessors = previous
            .producers
            .keys()
            .copied()
            .filter(|id| !resume.producers.contains(id))
            .collect();
        for (topic, ends) in settled.restarted() {
            raise(previous.offsets.entry(topic.clone()).or_default(), ends);
        }
        let mut ledger = Self {
            checkpoint: Checkpoint {
                position: resume.position,
                server: Some(resume.server.clone()),
                selection: resume.selection,
                ..previous
            },
            ahead: BTreeMap::new(),
            tail_ends: settled.ends().clone(),
            predecessors,
            must_save: true,
        };
        ledger.producers(&resume.producers, &resume.server);
        ledger
    }

    /// Starts without dedupe: nothing of an earlier run counts.
    #[must_use]
    pub fn fresh(resume: Resume) -> Self {
        let mut ledger = Self {
            checkpoint: Checkpoint {
                position: resume.position,
                server: Some(resume.server.clone()),
                selection: resume.selection,
                producers: BTreeMap::new(),
                offsets: BTreeMap::new(),
            },
            ahead: BTreeMap::new(),
            tail_ends: BTreeMap::new(),
            predecessors: BTreeSet::new(),
            must_save: true,
        };
        ledger.producers(&resume.producers, &resume.server);
        ledger
    }

    /// Notes the producer ids that records of `server`'s changes will carry from now on. Call it again when either changes (a
    /// producer that had to take a new id, a reconnect that reached another server), before anything of it is sent.
    pub fn producers(&mut self, ids: &[i64], server: &Identity) {
        let name = server.to_string();
        for id in ids {
            self.must_save |= self
                .checkpoint
                .producers
                .entry(*id)
                .or_default()
                .insert(name.clone());
        }
        if self.checkpoint.server.as_ref() != Some(server) {
            self.checkpoint.server = Some(server.clone());
            self.must_save = true;
        }
    }

    /// Notes a topic before the first record is sent to it: `ends` are the log end offsets of its partitions. Known ones stay as they
    /// are. Also says how many partitions the topic has, because with another number rows go elsewhere.
    pub fn topic(&mut self, topic: &str, ends: &[(i32, i64)]) {
        if self.checkpoint.offsets.contains_key(topic) {
            return;
        }
        self.checkpoint
            .offsets
            .insert(topic.to_owned(), ends.iter().copied().collect());
        self.must_save = true;
    }

    /// Whether the checkpoint has to be saved before anything more is sent.
    #[must_use]
    pub const fn must_save(&self) -> bool {
        self.must_save
    }

    /// The checkpoint was saved as [`Ledger::checkpoint`] gave it.
    pub fn saved(&mut self) {
        self.must_save = false;
    }

    /// One batch was acknowledged, in the order of the stream: where the records it wrote end in each partition, and the
    /// position after the last transaction that ended in it. A batch without records (all filtered or settled) counts too.
    pub fn acknowledged<'a>(
        &mut self,
        offsets: impl IntoIterator<Item = (&'a str, i32, i64)>,
        end: Option<&Position>,
    ) {
        if let Some(end) = end {
            self.checkpoint.position = end.clone();
            self.settle();
        }
        for (topic, partition, next) in offsets {
            // Two steps: an entry by &str must not allocate for a topic that is there.
            if !self.ahead.contains_key(topic) {
                self.ahead.insert(topic.to_owned(), BTreeMap::new());
            }
            if let Some(partitions) = self.ahead.get_mut(topic) {
                let at = partitions.entry(partition).or_insert(next);
                *at = (*at).max(next);
            }
        }
    }

    /// The position is past everything that was found in the tails ([`Settled::is_passed`]): records of earlier
    /// runs are before it, and need not be read again.
    pub fn tails_passed(&mut self) {
        for (topic, ends) in std::mem::take(&mut self.tail_ends) {
            if let Some(partitions) = self.checkpoint.offsets.get_mut(&topic) {
                raise(partitions, &ends);
            }
        }
        for id in std::mem::take(&mut self.predecessors) {
            self.checkpoint.producers.remove(&id);
        }
    }

    /// Takes over the offsets of batches before the position, but for partitions whose tails still matter.
    fn settle(&mut self) {
        let (offsets, tail_ends) = (&mut self.checkpoint.offsets, &self.tail_ends);
        self.ahead.retain(|topic, partitions| {
            let ends = tail_ends.get(topic);
            let known = offsets.entry(topic.clone()).or_default();
            partitions.retain(|partition, next| {
                let held = ends.is_some_and(|ends| {
                    ends.get(partition)
                        .is_some_and(|end| known.get(partition).is_some_and(|from| from < end))
                });
                if !held {
                    let at = known.entry(*partition).or_insert(*next);
                    *at = (*at).max(*next);
                }
                held
            });
            !partitions.is_empty()
        });
    }

    /// What may be saved now.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

fn raise(partitions: &mut BTreeMap<i32, i64>, to: &BTreeMap<i32, i64>) {
    for (partition, next) in to {
        let at = partitions.entry(*partition).or_insert(*next);
        *at = (*at).max(*next);
    }
}
