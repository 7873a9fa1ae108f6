//! Keeps the checkpoint of a running source: what may be saved, after what was acknowledged.
//!
//! ```text
//! batches   …── n ──|── n+1 ──|── n+2 ──…       in the order of the stream, acknowledged in that order
//! n+1 ends a transaction at P:    [ rows before P | rows of the next transaction ]
//! ```
//! Once `n+1` is acknowledged, everything before P is, and P may be saved. Its own offsets may not yet: they lie behind records of rows
//! after P, which a restart from P must find in the tail, or it writes them twice. The offsets of a batch are saved once the position
//! is behind the beginning, and so behind the end, of the last transaction that has rows in it: the next end, usually, but
//! much later where a prepared XA transaction holds the position back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Checkpoint;
use crate::position::Position;
use crate::settled::{Settled, split_file};
use crate::source::Identity;

/// Batches whose offsets wait one by one; when a position is held back for longer, neighbours wait together.
const WAITING_MAX: usize = 256;

/// What a start found, and what it decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The server that is being read.
    pub server: Identity,
    /// Where reading begins.
    pub position: Position,
    /// What decides which row goes to which partition: [`Checkpoint::selection`].
    pub selection: String,
    /// The Kafka cluster that is written to, where it says who it is: [`Checkpoint::cluster`].
    pub cluster: Option<String>,
    /// The ids of our producer in this process (one, where the client does not use several).
    pub producers: Vec<i64>,
}

/// The checkpoint of a running source.
#[derive(Debug)]
pub struct Ledger {
    checkpoint: Checkpoint,
    /// Offsets of acknowledged batches that may hold rows after `checkpoint.position`, in the order of the stream.
    waiting: VecDeque<Waiting>,
    /// Offsets of batches before `checkpoint.position` that are not in it yet.
    reached: Offsets,
    /// Where the tails that were read at start end; until they are passed, offsets before them stay.
    tail_ends: Offsets,
    /// Producer ids of earlier runs that are still needed.
    predecessors: BTreeSet<i64>,
    /// The server of the positions from the next end on, where that is another one.
    server_next: Option<Identity>,
    /// Whether the saved checkpoint has not got what sending relies on.
    must_save: bool,
}

/// Where records end, per topic and partition.
type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;

/// What acknowledged batches wrote.
#[derive(Debug)]
struct Waiting {
    /// Where the last transaction begins that has rows in them; `None` when that was on another server than the next ones.
    until: Option<Position>,
    offsets: Offsets,
}

impl Ledger {
    /// Starts with what an earlier run left and what its tails say: its producer ids stay until [`Ledger::tails_passed`], and so do the
    /// offsets of partitions where `settled` found something. Where it found nothing at all, that is at once. On another server new records may belong to transactions before those
    /// that were found, so that an offset behind the new ones would hide the found ones.
    ///
    /// Topics that have another number of partitions by now are to be taken out of `previous` (and not read): rows go elsewhere there.
    #[must_use]
    pub fn continued(mut previous: Checkpoint, resume: Resume, settled: &Settled) -> Self {
        let predecessors = previous
            .producers
            .keys()
            .copied()
            .filter(|id| !resume.producers.contains(id))
            .collect();
        for (topic, ends) in settled.restarted() {
            // Not raised: a topic that was created anew ends before what the checkpoint says.
            previous
                .offsets
                .entry(topic.clone())
                .or_default()
                .extend(ends);
        }
        let mut ledger = Self {
            checkpoint: Checkpoint {
                position: resume.position,
                server: Some(resume.server.clone()),
                selection: resume.selection,
                cluster: resume.cluster,
                ..previous
            },
            waiting: VecDeque::new(),
            reached: Offsets::new(),
            tail_ends: settled.ends().clone(),
            predecessors,
            server_next: None,
            must_save: true,
        };
        ledger.producers(&resume.producers, &resume.server);
        // Nothing of ours to pass: nobody would ever say that it is passed.
        if settled.is_empty() {
            ledger.tails_passed();
        }
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
                cluster: resume.cluster,
                producers: BTreeMap::new(),
                offsets: BTreeMap::new(),
            },
            waiting: VecDeque::new(),
            reached: Offsets::new(),
            tail_ends: BTreeMap::new(),
            predecessors: BTreeSet::new(),
            server_next: None,
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
    }

    /// The batch that is acknowledged next was sealed while reading from `server`. The checkpoint names it from the next end of a
    /// transaction on: until then its position is one of the server before, and means nothing on this one.
    pub fn read_from(&mut self, server: Identity) {
        for waiting in &mut self.waiting {
            waiting.until = None;
        }
        self.server_next = Some(server);
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

    /// One batch was acknowledged, in the order of the stream: where the records it wrote end in each partition, where the last
    /// transaction begins that has rows in it, and the position after the last transaction that ended in it. A batch without records
    /// (all filtered or settled) counts too.
    pub fn acknowledged<'a>(
        &mut self,
        offsets: impl IntoIterator<Item = (&'a str, i32, i64)>,
        last: Option<Position>,
        end: Option<&Position>,
    ) {
        let mut written = Offsets::new();
        for (topic, partition, next) in offsets {
            let partitions = match written.get_mut(topic) {
                Some(partitions) => partitions,
                None => written.entry(topic.to_owned()).or_default(),
            };
            partitions.insert(partition, next);
        }
        if !written.is_empty() {
            self.wait(Waiting {
                until: last,
                offsets: written,
            });
        }
        if let Some(end) = end {
            self.checkpoint.position = end.clone();
            if let Some(server) = self.server_next.take() {
                self.checkpoint.server = Some(server);
            }
            let ended = |waiting: &Waiting| {
                waiting
                    .until
                    .as_ref()
                    .is_some_and(|begin| is_before(begin, end))
            };
            let ended = self
                .waiting
                .iter()
                .take_while(|waiting| ended(waiting))
                .count();
            for waiting in self.waiting.drain(..ended) {
                merge(&mut self.reached, waiting.offsets);
            }
            self.settle();
        }
    }

    /// Puts a batch at the end of those that wait, together with those before it that cannot be told apart by position.
    fn wait(&mut self, mut batch: Waiting) {
        let apart = match self.waiting.len() < WAITING_MAX {
            true => self
                .waiting
                .iter()
                .rposition(|before| before.until.is_some())
                .map_or(0, |at| at + 1),
            false => WAITING_MAX / 2,
        };
        for before in self.waiting.drain(apart..) {
            merge(&mut batch.offsets, before.offsets);
        }
        self.waiting.push_back(batch);
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
        self.reached.retain(|topic, partitions| {
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

fn merge(into: &mut Offsets, from: Offsets) {
    for (topic, partitions) in from {
        raise(into.entry(topic).or_default(), &partitions);
    }
}

/// Whether a transaction that begins at `begin` has ended at `position`, which stands between two transactions of the same server.
/// A log that was given another name since begins behind everything. Of a position that is known by its GTIDs alone nobody can say.
fn is_before(begin: &Position, position: &Position) -> bool {
    match (begin, position) {
        (Position::MySql { .. }, Position::MySql { binlog, .. }) if binlog.file.is_empty() => false,
        (Position::MySql { binlog: begin, .. }, Position::MySql { binlog, .. }) => {
            let (base_before, number_before) = split_file(&begin.file);
            let (base, number) = split_file(&binlog.file);
            base_before != base || (number_before, begin.offset) < (number, binlog.offset)
        }
        // What names a transaction is its commit, and the position stands behind commits.
        (Position::Postgres { lsn: commit }, Position::Postgres { lsn }) => commit < lsn,
        // A source keeps its kind for as long as it runs.
        _ => false,
    }
}

fn raise(partitions: &mut BTreeMap<i32, i64>, to: &BTreeMap<i32, i64>) {
    for (partition, next) in to {
        let at = partitions.entry(*partition).or_insert(*next);
        *at = (*at).max(*next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settled::Tails;

    fn at(offset: u64) -> Position {
        format!("binlog.000001:{offset}").parse().unwrap()
    }

    fn resume(producer: i64) -> Resume {
        Resume {
            server: "mysql:a".parse().unwrap(),
            position: at(4),
            selection: "s".into(),
            cluster: None,
            producers: vec![producer],
        }
    }

    fn offset(ledger: &Ledger, partition: i32) -> i64 {
        ledger.checkpoint().offsets["t"][&partition]
    }

    #[test]
    fn offsets_of_a_batch_wait_until_its_last_transaction_has_ended() {
        let mut ledger = Ledger::fresh(resume(1));
        ledger.topic("t", &[(0, 10), (1, 20)]);
        assert!(ledger.must_save());
        ledger.saved();
        ledger.topic("t", &[(0, 99), (1, 99)]);
        let offsets = |ledger: &Ledger| (offset(ledger, 0), offset(ledger, 1));
        // Ends one transaction at 100 and holds rows of the next, which begins there.
        ledger.acknowledged([("t", 0, 12)], Some(at(100)), Some(&at(100)));
        assert!(!ledger.must_save());
        assert_eq!(
            (offsets(&ledger), &ledger.checkpoint().position),
            ((10, 20), &at(100))
        );
        ledger.acknowledged([("t", 1, 25)], Some(at(100)), None);
        assert_eq!(offsets(&ledger), (10, 20));
        ledger.acknowledged([("t", 0, 14)], Some(at(100)), Some(&at(200)));
        assert_eq!(offsets(&ledger), (14, 25));
        // A prepared XA transaction holds the position at 200 while others commit behind it.
        ledger.acknowledged([("t", 0, 16)], Some(at(300)), Some(&at(200)));
        ledger.acknowledged([("t", 0, 18)], Some(at(400)), Some(&at(200)));
        assert_eq!(offsets(&ledger), (14, 25));
        ledger.acknowledged([], None, Some(&at(350)));
        assert_eq!(offsets(&ledger), (16, 25));
        ledger.acknowledged([], None, Some(&at(500)));
        assert_eq!(offsets(&ledger), (18, 25));
        ledger.producers(&[2], &"mysql:a".parse().unwrap());
        assert!(ledger.must_save());
    }

    #[test]
    fn a_position_without_a_file_is_behind_nothing() {
        let mut ledger = Ledger::fresh(resume(1));
        ledger.topic("t", &[(0, 10)]);
        // An XA transaction that was prepared on another server holds the position.
        let held: Position = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23".parse().unwrap();
        ledger.acknowledged([("t", 0, 12)], Some(at(300)), Some(&held));
        ledger.acknowledged([], None, Some(&held));
        assert_eq!(offset(&ledger, 0), 10);
        ledger.acknowledged([], None, Some(&at(350)));
        assert_eq!(offset(&ledger, 0), 12);
    }

    #[test]
    fn waiting_batches_are_bounded_and_never_early() {
        let mut ledger = Ledger::fresh(resume(1));
        ledger.topic("t", &[(0, 0)]);
        for n in 1..=5000 {
            ledger.acknowledged([("t", 0, n)], Some(at(1000 + n as u64)), Some(&at(500)));
            assert!(ledger.waiting.len() <= WAITING_MAX);
        }
        for n in [1, 3000, 4999] {
            ledger.acknowledged([], None, Some(&at(1001 + n)));
            assert!(offset(&ledger, 0) <= n as i64);
        }
        ledger.acknowledged([], None, Some(&at(7000)));
        assert_eq!(offset(&ledger, 0), 5000);
    }

    #[test]
    fn offsets_stay_before_what_was_found_until_it_is_passed() {
        let mut ledger = Ledger::fresh(resume(1));
        ledger.topic("t", &[(0, 10), (1, 20)]);
        let mut tails = Tails::new(ledger.checkpoint(), &resume(2).server);
        tails.begin("t", 0, 0, 10, 10);
        tails
            .record(0, 0, 10, 1, Some(b"binlog.000001:50/0"), None)
            .unwrap();
        tails.finish(0, 0, 11);
        tails.begin("t", 0, 1, 20, 20);
        tails.finish(0, 1, 20);
        let settled = tails.settled(None).unwrap();
        let mut ledger = Ledger::continued(ledger.checkpoint().clone(), resume(2), &settled);
        assert_eq!(
            ledger.checkpoint().producers.keys().collect::<Vec<_>>(),
            [&1, &2]
        );
        ledger.acknowledged([("t", 0, 12), ("t", 1, 22)], Some(at(30)), None);
        ledger.acknowledged([], None, Some(&at(40)));
        assert_eq!((offset(&ledger, 0), offset(&ledger, 1)), (10, 22));
        assert!(!settled.is_passed(&at(50)) && settled.is_passed(&at(51)));
        ledger.tails_passed();
        ledger.acknowledged([], None, Some(&at(60)));
        assert_eq!(offset(&ledger, 0), 12);
        assert_eq!(
            ledger.checkpoint().producers.keys().collect::<Vec<_>>(),
            [&2]
        );
    }

    #[test]
    fn tails_without_records_of_ours_are_passed_at_once() {
        let mut ledger = Ledger::fresh(resume(1));
        ledger.topic("t", &[(0, 10), (1, 20)]);
        let mut tails = Tails::new(ledger.checkpoint(), &resume(2).server);
        tails.begin("t", 0, 0, 10, 10);
        tails.record(0, 0, 10, 99, Some(b"theirs"), None).unwrap();
        tails.finish(0, 0, 11);
        tails.begin("t", 0, 1, 20, 20);
        tails.finish(0, 1, 20);
        let settled = tails.settled(None).unwrap();
        assert!(settled.is_empty());
        let mut ledger = Ledger::continued(ledger.checkpoint().clone(), resume(2), &settled);
        assert_eq!(
            ledger.checkpoint().producers.keys().collect::<Vec<_>>(),
            [&2]
        );
        assert_eq!((offset(&ledger, 0), offset(&ledger, 1)), (11, 20));
        ledger.acknowledged([("t", 0, 15)], Some(at(30)), None);
        ledger.acknowledged([], None, Some(&at(40)));
        assert_eq!(offset(&ledger, 0), 15);
    }

    #[test]
    fn a_position_and_its_server_change_together() {
        let mut ledger = Ledger::fresh(resume(1));
        let (a, b): (Identity, Identity) = ("mysql:a".parse().unwrap(), "mysql:b".parse().unwrap());
        ledger.acknowledged([], None, Some(&at(100)));
        ledger.saved();
        ledger.producers(&[1], &b);
        assert!(
            ledger.must_save(),
            "whose changes follow is to be known before they are sent"
        );
        ledger.acknowledged([], None, Some(&at(200)));
        assert_eq!(ledger.checkpoint().server, Some(a.clone()));
        ledger.read_from(b.clone());
        ledger.acknowledged([], None, None);
        assert_eq!(
            (&ledger.checkpoint().server, &ledger.checkpoint().position),
            (&Some(a), &at(200))
        );
        ledger.acknowledged([], None, Some(&at(50)));
        assert_eq!(
            (&ledger.checkpoint().server, &ledger.checkpoint().position),
            (&Some(b), &at(50))
        );
    }

    #[test]
    fn a_topic_that_was_created_anew_is_followed_down() {
        let mut ledger = Ledger::fresh(resume(1));
        ledger.topic("t", &[(0, 1000)]);
        let mut tails = Tails::new(ledger.checkpoint(), &resume(2).server);
        tails.begin("t", 0, 0, 1000, 1000);
        tails.finish(0, 0, 3);
        let settled = tails.settled(None).unwrap();
        assert!(settled.is_empty());
        assert_eq!(settled.restarted()["t"][&0], 3);
        let ledger = Ledger::continued(ledger.checkpoint().clone(), resume(2), &settled);
        assert_eq!(offset(&ledger, 0), 3);
    }
}
