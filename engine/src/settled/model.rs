//! The guarantee itself, against a model: random streams of transactions over partitions, changed keys (one row in two
//! partitions), filtered rows, log compaction, and repeated crashes with a random part of what was sent written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use protocol::mysql::{BinlogPosition, GtidSet};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::checkpoint::{Checkpoint, Ledger, Resume};
use crate::source::Identity;

const TOPIC: &str = "shop.shop.events";
const PARTITIONS: i32 = 3;
const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

/// A row change: the keys whose records it makes (two for a changed key), none when it is filtered.
type Keys = Vec<u8>;

/// A transaction's number, from 1, is its GTID's.
type Transactions = Vec<Vec<Keys>>;

/// A server: in which order its binary log holds which transactions.
#[derive(Debug, Clone)]
struct Server {
    identity: Identity,
    log: Vec<usize>,
    with_gtids: bool,
}

impl Server {
    /// Where transaction `at` of the log begins, and where it ends: another scale on each server, a new file every five.
    fn place(&self, at: usize) -> BinlogPosition {
        let file = format!("binlog.{:06}", 1 + at / 5);
        let step = 100
            + self
                .identity
                .to_string()
                .bytes()
                .map(u64::from)
                .sum::<u64>()
                % 50;
        BinlogPosition {
            file: file.into(),
            offset: 4 + (at % 5) as u64 * step,
        }
    }

    /// The position after the first `n` of the log, having executed `done`.
    fn position(&self, n: usize, done: &BTreeSet<usize>) -> Position {
        let mut binlog = self.place(n.max(1) - 1);
        binlog.offset += if n == 0 { 0 } else { 50 };
        Position::MySql {
            binlog,
            gtids: self.with_gtids.then(|| set_text(done)),
        }
    }
}

fn set_text(done: &BTreeSet<usize>) -> String {
    let mut set = GtidSet::empty(protocol::mysql::Flavour::MySql);
    for n in done {
        set.add(&gtid(*n).parse().unwrap());
    }
    set.to_string()
}

fn gtid(transaction: usize) -> String {
    format!("{UUID}:{transaction}")
}

fn partition_of(key: u8) -> i32 {
    i32::from(key) % PARTITIONS
}

/// What a record says, as far as the model compares.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    offset: i64,
    producer: i64,
    key: u8,
    transaction: usize,
    row: u64,
    pos: String,
    gtid: Option<String>,
}

impl Record {
    /// What another producer wrote: nothing of it is ours to read.
    fn foreign(offset: i64) -> Self {
        Self {
            offset,
            producer: 1,
            key: u8::MAX,
            transaction: 0,
            row: 0,
            pos: "theirs".into(),
            gtid: None,
        }
    }
}

/// A partition: what is there now, and everything that ever was.
#[derive(Debug, Default)]
struct Log {
    records: Vec<Record>,
    history: Vec<(usize, u64, u8)>,
    end: i64,
}

/// Kafka, the disk with the checkpoint, and who gets the next producer id.
struct World {
    transactions: Transactions,
    logs: BTreeMap<i32, Log>,
    saved: Option<Checkpoint>,
    next_producer: i64,
    /// Where a prepared XA transaction holds the position.
    held: Option<Position>,
    rng: StdRng,
}

/// Records that one batch puts into one partition, not yet offered to Kafka.
type Part = (i32, Vec<Record>);

/// A batch on its way: its parts, where its last transaction begins, the position at its end.
type Sent = (Vec<Part>, Option<Position>, Option<Position>);

impl World {
    fn new(transactions: Transactions, seed: u64) -> Self {
        let logs = (0..PARTITIONS).map(|p| (p, Log::default())).collect();
        Self {
            transactions,
            logs,
            saved: None,
            next_producer: 1000,
            held: None,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Reads the tails as the engine does.
    fn tails(&self, checkpoint: &Checkpoint, server: &Server) -> Tails {
        let mut tails = Tails::new(checkpoint, &server.identity);
        for (partition, from) in &checkpoint.offsets[TOPIC] {
            let log = &self.logs[partition];
            tails.begin(TOPIC, 0, *partition, *from, *from);
            for r in log.records.iter().filter(|r| r.offset >= *from) {
                tails
                    .record(
                        0,
                        *partition,
                        r.offset,
                        r.producer,
                        Some(r.pos.as_bytes()),
                        r.gtid.as_deref().map(str::as_bytes),
                    )
                    .unwrap();
            }
            tails.finish(0, *partition, log.end);
        }
        tails
    }

    /// One life of the engine: streams from `server` until the end, or until it is killed at a random point.
    fn run(&mut self, server: &Server, killed: bool) -> Result<(), SettledError> {
        let producer = self.next_producer;
        self.next_producer += 1;
        let (done, mut next) = self.resume_place(server);
        let resume = Resume {
            server: server.identity.clone(),
            position: server.position(next, &done),
            selection: "s".into(),
            cluster: None,
            producers: vec![producer],
        };
        let executed: GtidSet = set_text(&server.log.iter().copied().collect())
            .parse()
            .unwrap();
        let (mut ledger, mut settled) = match self.saved.clone() {
            Some(checkpoint) => {
                let tails = self.tails(&checkpoint, server);
                let settled = tails.settled(Some(&executed))?;
                let ledger = Ledger::continued(checkpoint, resume, &settled);
                (ledger, (!settled.is_empty()).then_some(settled))
            }
            None => (Ledger::fresh(resume), None),
        };
        ledger.topic(
            TOPIC,
            &self
                .logs
                .iter()
                .map(|(p, log)| (*p, log.end))
                .collect::<Vec<_>>(),
        );
        assert!(ledger.must_save());
        self.save(&mut ledger);

        let mut done = done;
        let mut in_flight: Vec<Sent> = Vec::new();
        self.held = None;
        let steps = if killed {
            self.rng.random_range(0..40)
        } else {
            usize::MAX
        };
        let mut row = 0;
        for _ in 0..steps {
            if next >= server.log.len() && in_flight.is_empty() {
                break;
            }
            if self.rng.random_bool(0.5) && next < server.log.len() {
                let batch = self.batch(
                    server,
                    producer,
                    settled.as_ref(),
                    &mut next,
                    &mut row,
                    &mut done,
                );
                in_flight.push(batch);
            } else {
                self.write_some(&mut in_flight);
                self.acknowledge(&mut in_flight, &mut ledger, &mut settled);
                if self.rng.random_bool(0.3) || !killed {
                    self.save(&mut ledger);
                }
            }
        }
        // What is on the wire when it dies arrives or does not, in order per partition.
        self.write_some(&mut in_flight);
        Ok(())
    }

    /// What of the server's log is done, and where its reading begins.
    fn resume_place(&self, server: &Server) -> (BTreeSet<usize>, usize) {
        let Some(saved) = &self.saved else {
            return (BTreeSet::new(), 0);
        };
        let Position::MySql { binlog, gtids } = &saved.position else {
            unreachable!("the model is a MySQL server");
        };
        let done = |n: &usize| match gtids {
            Some(text) => text
                .parse::<GtidSet>()
                .unwrap()
                .contains(&gtid(*n).parse().unwrap()),
            None => {
                let place = server.place(server.log.iter().position(|t| t == n).unwrap());
                (place.file, place.offset) < (binlog.file.clone(), binlog.offset)
            }
        };
        let done: BTreeSet<usize> = server.log.iter().copied().filter(done).collect();
        let first = server
            .log
            .iter()
            .position(|t| !done.contains(t))
            .unwrap_or(server.log.len());
        (done, first)
    }

    /// The next few rows of the stream as one batch, the position at its last transaction's end with it.
    fn batch(
        &mut self,
        server: &Server,
        producer: i64,
        settled: Option<&Settled>,
        next: &mut usize,
        row: &mut u64,
        done: &mut BTreeSet<usize>,
    ) -> Sent {
        let mut parts: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
        let (mut last, mut end) = (None, None);
        let mut left = self.rng.random_range(1..8);
        while left > 0 && *next < server.log.len() {
            let transaction = server.log[*next];
            if done.contains(&transaction) {
                *next += 1;
                continue;
            }
            let place = server.place(*next);
            last = Some(Position::MySql {
                binlog: place.clone(),
                gtids: None,
            });
            let gtid = server.with_gtids.then(|| gtid(transaction));
            let rows = &self.transactions[transaction - 1];
            while left > 0 && (*row as usize) < rows.len() {
                for key in &rows[*row as usize] {
                    let partition = partition_of(*key);
                    let known = settled.is_some_and(|s| {
                        s.is_settled(
                            0,
                            partition,
                            &place.file,
                            place.offset,
                            gtid.as_deref(),
                            *row,
                        )
                    });
                    if !known {
                        let pos = Pos {
                            file: &place.file,
                            offset: place.offset,
                            row: *row,
                        }
                        .to_string();
                        let record = Record {
                            offset: -1,
                            producer,
                            key: *key,
                            transaction,
                            row: *row,
                            pos,
                            gtid: gtid.clone(),
                        };
                        parts.entry(partition).or_default().push(record);
                    }
                }
                *row += 1;
                left -= 1;
            }
            if *row as usize == rows.len() {
                done.insert(transaction);
                *next += 1;
                *row = 0;
                end = Some(self.position(server, *next, done));
            }
        }
        (parts.into_iter().collect(), last, end)
    }

    /// The position after `n` transactions, or an earlier one while a prepared XA transaction holds it back.
    fn position(&mut self, server: &Server, n: usize, done: &BTreeSet<usize>) -> Position {
        let now = server.position(n, done);
        match &self.held {
            Some(held) if self.rng.random_bool(0.7) => held.clone(),
            _ => {
                self.held = self.rng.random_bool(0.2).then(|| now.clone());
                now
            }
        }
    }

    /// Kafka appends some of what is in flight: per partition a prefix, a record batch whole or not at all.
    fn write_some(&mut self, in_flight: &mut [Sent]) {
        let mut blocked: BTreeSet<i32> = (0..PARTITIONS)
            .filter(|_| self.rng.random_bool(0.3))
            .collect();
        for (parts, _, _) in in_flight.iter_mut() {
            for (partition, records) in parts
                .iter_mut()
                .filter(|(_, records)| records.first().is_some_and(|r| r.offset < 0))
            {
                if blocked.contains(partition) || self.rng.random_bool(0.2) {
                    blocked.insert(*partition);
                    continue;
                }
                let log = self.logs.get_mut(partition).unwrap();
                // Now and then another producer writes there too.
                if self.rng.random_bool(0.1) {
                    log.records.push(Record::foreign(log.end));
                    log.end += 1;
                }
                for record in records.iter_mut() {
                    record.offset = log.end;
                    log.end += 1;
                    log.history
                        .push((record.transaction, record.row, record.key));
                    log.records.push(record.clone());
                }
            }
        }
    }

    /// Acknowledges batches whose every part is written, in order; the answer to a written part may still be outstanding.
    fn acknowledge(
        &mut self,
        in_flight: &mut Vec<Sent>,
        ledger: &mut Ledger,
        settled: &mut Option<Settled>,
    ) {
        while let Some((parts, last, end)) = in_flight.first() {
            let written = parts
                .iter()
                .all(|(_, records)| records.iter().all(|r| r.offset >= 0));
            if !written || self.rng.random_bool(0.3) {
                return;
            }
            let offsets = parts
                .iter()
                .map(|(p, records)| (TOPIC, *p, records.last().unwrap().offset + 1));
            ledger.acknowledged(offsets, last.clone(), end.as_ref());
            if settled
                .as_ref()
                .is_some_and(|s| s.is_passed(&ledger.checkpoint().position))
            {
                ledger.tails_passed();
                *settled = None;
            }
            in_flight.remove(0);
        }
    }

    fn save(&mut self, ledger: &mut Ledger) {
        self.saved = Some(ledger.checkpoint().clone());
        ledger.saved();
    }

    /// Log compaction: removes some records whose key has a later one in the partition.
    fn compact(&mut self) {
        for log in self.logs.values_mut() {
            let last: HashMap<u8, i64> = log.records.iter().map(|r| (r.key, r.offset)).collect();
            let rng = &mut self.rng;
            log.records
                .retain(|r| last[&r.key] == r.offset || rng.random_bool(0.4));
        }
    }

    /// What each partition must have got, in the order of `server`.
    fn expected(&self, server: &Server) -> BTreeMap<i32, Vec<(usize, u64, u8)>> {
        let mut expected: BTreeMap<i32, Vec<_>> =
            (0..PARTITIONS).map(|p| (p, Vec::new())).collect();
        for transaction in &server.log {
            for (row, keys) in self.transactions[*transaction - 1].iter().enumerate() {
                for key in keys {
                    expected.get_mut(&partition_of(*key)).unwrap().push((
                        *transaction,
                        row as u64,
                        *key,
                    ));
                }
            }
        }
        expected
    }
}

fn server(name: &str, log: Vec<usize>, with_gtids: bool) -> Server {
    Server {
        identity: format!("mysql:{name}").parse().unwrap(),
        log,
        with_gtids,
    }
}

/// The log of a replica that applied in parallel: transactions without a common key may have changed places.
fn reordered(transactions: &Transactions, rng: &mut StdRng) -> Vec<usize> {
    let mut log: Vec<usize> = (1..=transactions.len()).collect();
    let keys = |n: usize| {
        transactions[n - 1]
            .iter()
            .flatten()
            .collect::<BTreeSet<_>>()
    };
    for _ in 0..transactions.len() * 2 {
        let at = rng.random_range(0..log.len().max(2) - 1);
        if at + 1 < log.len() && keys(log[at]).is_disjoint(&keys(log[at + 1])) {
            log.swap(at, at + 1);
        }
    }
    log
}

fn transactions() -> impl Strategy<Value = Transactions> {
    let row = prop_oneof![
        1 => Just(vec![]),
        6 => (0u8..9).prop_map(|key| vec![key]),
        2 => (0u8..9, 0u8..9).prop_filter("another key", |(a, b)| a != b).prop_map(|(a, b)| vec![a, b]),
    ];
    proptest::collection::vec(proptest::collection::vec(row, 0..7), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// On one server, with GTIDs or without, compacted or not: every partition gets exactly what belongs there, in order.
    #[test]
    fn same_server(transactions in transactions(), seed in any::<u64>(), with_gtids in any::<bool>(), crashes in 0usize..6) {
        let log = (1..=transactions.len()).collect();
        let server = server("a", log, with_gtids);
        let mut world = World::new(transactions, seed);
        for _ in 0..crashes {
            world.run(&server, true).unwrap();
            if world.rng.random_bool(0.5) {
                world.compact();
            }
        }
        world.run(&server, false).unwrap();
        for (partition, expected) in world.expected(&server) {
            prop_assert_eq!(&world.logs[&partition].history, &expected, "partition {}", partition);
        }
    }

    /// From server to server and back, their logs in different orders: nothing lost, nothing twice, in order per key.
    #[test]
    fn other_servers(transactions in transactions(), seed in any::<u64>(), crashes in 0usize..8) {
        let mut rng = StdRng::seed_from_u64(seed);
        let servers: Vec<Server> = ["a", "bb", "ccc"]
            .map(|name| server(name, reordered(&transactions, &mut rng), true))
            .into();
        let mut world = World::new(transactions, seed);
        let mut at = 0;
        for _ in 0..crashes {
            world.run(&servers[at], true).unwrap();
            at = rng.random_range(0..servers.len());
        }
        world.run(&servers[at], false).unwrap();
        for (partition, expected) in world.expected(&servers[0]) {
            let history = &world.logs[&partition].history;
            prop_assert_eq!(by_key(history), by_key(&expected), "partition {}", partition);
        }
    }

    /// The same with compacted tails: repeats are allowed, loss and a wrong last word are not.
    #[test]
    fn other_servers_compacted(transactions in transactions(), seed in any::<u64>(), crashes in 1usize..6) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut servers: Vec<Server> = ["a", "bb"]
            .map(|name| server(name, reordered(&transactions, &mut rng), true))
            .into();
        let mut world = World::new(transactions, seed);
        for _ in 0..crashes {
            world.run(&servers[0], true).unwrap();
            world.compact();
            servers.shuffle(&mut rng);
        }
        world.run(&servers[0], false).unwrap();
        for (partition, expected) in world.expected(&servers[0]) {
            let history = by_key(&world.logs[&partition].history);
            for (key, expected) in by_key(&expected) {
                let got = history.get(&key).cloned().unwrap_or_default();
                prop_assert_eq!(got.last(), expected.last(), "last of key {}", key);
                // In order, with steps back only to repeat: each row follows the one before it somewhere.
                let first_seen: Vec<_> = got.iter().enumerate().filter(|(i, r)| !got[..*i].contains(r)).map(|(_, r)| *r).collect();
                prop_assert_eq!(first_seen, expected, "key {}", key);
            }
        }
    }
}

fn by_key(history: &[(usize, u64, u8)]) -> BTreeMap<u8, Vec<(usize, u64)>> {
    let mut keys: BTreeMap<u8, Vec<_>> = BTreeMap::new();
    for (transaction, row, key) in history {
        keys.entry(*key).or_default().push((*transaction, *row));
    }
    keys
}
