//! The deterministic workload: row changes on one table, from parameters alone.
//!
//! Half of the changes insert, a quarter updates, a quarter deletes; they come in transactions of 500 to 1000 rows, in runs of
//! one operation, as an application's multi-row statements make them. The same parameters give the same changes for ever, on
//! every machine: the random numbers are our own (SplitMix64), no library's.
//!
//! ```sql
//! CREATE TABLE events (id BIGINT PRIMARY KEY, category VARCHAR(64), domain VARCHAR(255), timestamp TIMESTAMP)
//! ```

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Rows of one transaction, inclusive.
const TRANSACTION_ROWS: (u64, u64) = (500, 1000);
/// Rows of one statement, inclusive.
const RUN_ROWS: (u64, u64) = (100, 250);
/// 2025-01-01T00:00:00Z.
const EPOCH_2025_S: i64 = 1_735_689_600;

/// What determines a workload completely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Row changes in one pass.
    pub changes: u64,
    /// The seed of the random numbers.
    pub seed: u64,
    /// How often the same changes come one after the other (a replay server may repeat a recording); 1 for a real server.
    #[serde(default = "once")]
    pub passes: u32,
}

fn once() -> u32 {
    1
}

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Op `c`.
    Insert,
    /// Op `u`.
    Update,
    /// Op `d`.
    Delete,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Primary key.
    pub id: i64,
    /// Of a few dozen.
    pub category: String,
    /// A host name, unlike most others.
    pub domain: String,
    /// Seconds since 1970-01-01 UTC.
    pub timestamp_s: i64,
}

/// One row change: `before` without `after` is a delete, `after` without `before` an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row as it was.
    pub before: Option<Row>,
    /// The row as it is now.
    pub after: Option<Row>,
}

impl Change {
    /// What happened.
    pub fn operation(&self) -> Operation {
        match (&self.before, &self.after) {
            (None, _) => Operation::Insert,
            (Some(_), Some(_)) => Operation::Update,
            (Some(_), None) => Operation::Delete,
        }
    }
}

/// Changes of one operation in the order of one multi-row statement; no key twice, and ascending keys for deletes, because that
/// is the order in which a server walks them.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the statement does.
    pub operation: Operation,
    /// Its rows.
    pub changes: Vec<Change>,
}

/// The runs of one transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// In order.
    pub runs: Vec<Run>,
}

impl Workload {
    /// One pass of `changes` changes from `seed`.
    pub fn new(changes: u64, seed: u64) -> Workload {
        Workload {
            changes,
            seed,
            passes: 1,
        }
    }

    /// The transactions of one pass, in order.
    pub fn transactions(&self) -> Transactions {
        let deletes = self.changes / 4;
        let updates = self.changes / 4;
        Transactions {
            random: SplitMix64(self.seed),
            left: [self.changes - updates - deletes, updates, deletes],
            next_id: 1,
            live: Vec::new(),
        }
    }
}

/// Iterator over a pass's transactions; holds the live rows, about 100 bytes each.
#[derive(Debug)]
pub struct Transactions {
    random: SplitMix64,
    /// Inserts, updates and deletes still to come.
    left: [u64; 3],
    next_id: i64,
    live: Vec<Row>,
}

impl Iterator for Transactions {
    type Item = Transaction;

    fn next(&mut self) -> Option<Transaction> {
        let mut rows = self.random.between(TRANSACTION_ROWS.0, TRANSACTION_ROWS.1);
        let mut runs = Vec::new();
        while rows > 0 && self.left.iter().sum::<u64>() > 0 {
            let operation = self.operation();
            let left = self.left[operation as usize];
            let wanted = self
                .random
                .between(RUN_ROWS.0, RUN_ROWS.1)
                .min(rows)
                .min(left);
            let changes = self.run(operation, wanted as usize);
            self.left[operation as usize] -= changes.len() as u64;
            rows -= changes.len() as u64;
            runs.push(Run { operation, changes });
        }
        (!runs.is_empty()).then_some(Transaction { runs })
    }
}

impl Transactions {
    /// Draws an operation by what is left of each; only an insert where there is no row yet.
    fn operation(&mut self) -> Operation {
        let [inserts, updates, deletes] = self.left;
        if self.live.is_empty() && inserts > 0 {
            return Operation::Insert;
        }
        let draw = self.random.below(inserts + updates + deletes);
        match draw {
            _ if draw < inserts => Operation::Insert,
            _ if draw < inserts + updates => Operation::Update,
            _ => Operation::Delete,
        }
    }

    fn run(&mut self, operation: Operation, wanted: usize) -> Vec<Change> {
        match operation {
            Operation::Insert => (0..wanted).map(|_| self.insert()).collect(),
            Operation::Update => {
                let places = self.places(wanted);
                places.into_iter().map(|place| self.update(place)).collect()
            }
            Operation::Delete => {
                // From the highest place down, so that swap_remove moves no row that is still to be taken.
                let mut places = self.places(wanted);
                places.sort_unstable_by(|left, right| right.cmp(left));
                let mut gone: Vec<Row> = places
                    .into_iter()
                    .map(|place| self.live.swap_remove(place))
                    .collect();
                gone.sort_unstable_by_key(|row| row.id);
                gone.into_iter()
                    .map(|row| Change {
                        before: Some(row),
                        after: None,
                    })
                    .collect()
            }
        }
    }

    /// Up to `wanted` different places of live rows.
    fn places(&mut self, wanted: usize) -> Vec<usize> {
        let live = self.live.len() as u64;
        let wanted = wanted.min(self.live.len());
        let mut seen = std::collections::HashSet::with_capacity(wanted);
        let mut places = Vec::with_capacity(wanted);
        while places.len() < wanted {
            let place = self.random.below(live) as usize;
            if seen.insert(place) {
                places.push(place);
            }
        }
        places
    }

    fn insert(&mut self) -> Change {
        let row = Row {
            id: self.next_id,
            category: self.category(),
            domain: self.domain(),
            timestamp_s: EPOCH_2025_S + self.random.below(180 * 86_400) as i64,
        };
        self.next_id += 1;
        self.live.push(row.clone());
        Change {
            before: None,
            after: Some(row),
        }
    }

    /// Changes two of the three columns: a row that stays the same would not be written to the binlog.
    fn update(&mut self, place: usize) -> Change {
        let category = self.category();
        let later_s = 1 + self.random.below(3600) as i64;
        let row = &mut self.live[place];
        let before = row.clone();
        row.category = category;
        row.timestamp_s += later_s;
        Change {
            before: Some(before),
            after: Some(row.clone()),
        }
    }

    fn category(&mut self) -> String {
        const KINDS: [&str; 8] = [
            "malware", "phishing", "benign", "spam", "adware", "botnet", "scam", "tracker",
        ];
        let kind = KINDS[self.random.below(KINDS.len() as u64) as usize];
        format!("{kind}-{}", self.random.below(8))
    }

    fn domain(&mut self) -> String {
        const WORDS: [&str; 16] = [
            "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet",
            "jetty", "knoll", "lagoon", "marsh", "north", "ocean", "prairie",
        ];
        const ENDS: [&str; 6] = ["com", "net", "org", "io", "dev", "example"];
        let mut domain = String::with_capacity(32);
        let bits = self.random.draw();
        let word = |shift: u32| WORDS[(bits >> shift) as usize % WORDS.len()];
        let _ = write!(
            domain,
            "{}-{}{}.{}",
            word(0),
            word(4),
            (bits >> 8) % 10_000,
            ENDS[(bits >> 32) as usize % ENDS.len()]
        );
        domain
    }
}

/// Sebastiano Vigna's SplitMix64 (public domain, <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is at least 1 (by multiplication: the bias at our sizes is below 2⁻⁴⁰).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn splitmix64_is_the_published_one() {
        // First outputs of splitmix64.c for seed 1234567.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(
            [random.draw(), random.draw()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }

    #[test]
    fn half_inserts_a_quarter_updates_a_quarter_deletes_and_all_are_possible() {
        let mut counts = [0u64; 3];
        let mut table: HashMap<i64, Row> = HashMap::new();
        let transactions: Vec<Transaction> = Workload::new(20_000, 42).transactions().collect();
        for transaction in &transactions[..transactions.len() - 1] {
            let rows: usize = transaction.runs.iter().map(|run| run.changes.len()).sum();
            assert!((500..=1000).contains(&rows), "{rows}");
        }
        for run in transactions
            .iter()
            .flat_map(|transaction| &transaction.runs)
        {
            assert!(!run.changes.is_empty());
            for change in &run.changes {
                assert_eq!(change.operation(), run.operation);
                counts[run.operation as usize] += 1;
                let key = change.before.as_ref().or(change.after.as_ref()).unwrap().id;
                assert_eq!(table.remove(&key), change.before);
                assert_ne!(change.before, change.after);
                if let Some(after) = &change.after {
                    table.insert(key, after.clone());
                }
            }
        }
        assert_eq!(counts, [10_000, 5_000, 5_000]);
        assert_eq!(table.len(), 5_000);
    }
}
