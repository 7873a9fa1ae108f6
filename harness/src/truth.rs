//! What must come out of a workload, in a few lines: parameters, counts, digests; not the rows.
//!
//! ```text
//! text(row)    = id 0x1f category 0x1f domain 0x1f timestamp            timestamp as the records spell it: 2025-02-17T15:19:39Z
//! step         = op:1 ("c" "u" "d")  before? text(before)  0x1e  after? text(after)      before: nothing with [`Images::Key`]
//! chain[k]     = first 16 bytes of SHA-256(chain[k] ‖ step)             starts as 16 zero bytes, one link per change of key k
//! history      = Σ first 16 bytes of SHA-256("h" ‖ k as i64 ‖ chain[k]) over all keys, little endian, modulo 2^128
//! state        = Σ first 16 bytes of SHA-256("s" ‖ text(row))           over the rows that are there at the end
//! ```
//!
//! A sum does not depend on the order among keys, which topics with several partitions do not keep; a chain depends on the order
//! within its key, on every value, and on every repeated or missing change. The generator ([`Workload`]) can be run again to
//! name the first key that differs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::Outcome;
use crate::workload::{Change, Operation, Row, Workload};

/// `harness truth`: what a workload must make of a table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Row changes of one pass.
    #[arg(long)]
    rows: u64,
    /// Seed of the workload.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How often the same changes come one after the other.
    #[arg(long, default_value_t = 1)]
    passes: u32,
    /// What the records tell of the rows as they were.
    #[arg(long, value_enum, default_value_t)]
    images: Images,
    /// Where to write it; stdout when absent.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What updates and deletes tell of the row as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Images {
    /// Everything: MySQL's full images, PostgreSQL's `REPLICA IDENTITY FULL`.
    #[default]
    Full,
    /// Deletes the key, the other columns null; updates nothing: PostgreSQL's default replica identity.
    Key,
}

impl Images {
    fn is_full(&self) -> bool {
        *self == Images::Full
    }
}

/// What a consumer of the topics must find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// Row changes in all.
    pub changes: u64,
    /// Of these, inserts.
    pub inserts: u64,
    /// Of these, updates.
    pub updates: u64,
    /// Of these, deletes: each is a record and a tombstone.
    pub deletes: u64,
    /// Different keys.
    pub keys: u64,
    /// Rows that are there at the end.
    pub live_rows: u64,
    /// Digest of the rows at the end, hex.
    pub state: String,
    /// Digest of every key's history, hex.
    pub history: String,
    /// What the records tell of the rows as they were.
    #[serde(default, skip_serializing_if = "Images::is_full")]
    pub images: Images,
    /// The database or schema of the table.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// The table.
    #[serde(default = "default_table")]
    pub table: String,
    /// The generator's parameters; absent where an independent decoder wrote the truth of a foreign recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

fn default_schema() -> String {
    "walbrook".to_owned()
}

fn default_table() -> String {
    "events".to_owned()
}

impl Truth {
    /// Runs the generator and notes what comes out where records have full images; about 1 µs per change.
    pub fn of(workload: &Workload) -> Truth {
        Truth::with(workload, Images::Full)
    }

    /// The same for records that tell of the rows as they were what `images` says.
    pub fn with(workload: &Workload, images: Images) -> Truth {
        let mut history = History::new(images);
        for _ in 0..workload.passes {
            for transaction in workload.transactions() {
                transaction
                    .runs
                    .iter()
                    .flat_map(|run| &run.changes)
                    .for_each(|change| history.change(change));
            }
        }
        Truth {
            workload: Some(workload.clone()),
            ..history.truth()
        }
    }

    /// Reads a truth file.
    ///
    /// # Errors
    /// A message with path and reason.
    pub fn read(path: &Path) -> Result<Truth, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The truth as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Every line in which `found` differs, as `what: expected …, found …`; empty when it holds.
    pub fn differences(&self, found: &Truth) -> Vec<String> {
        let counts = [
            ("changes", self.changes, found.changes),
            ("inserts", self.inserts, found.inserts),
            ("updates", self.updates, found.updates),
            ("deletes", self.deletes, found.deletes),
            ("keys", self.keys, found.keys),
            ("live rows", self.live_rows, found.live_rows),
        ];
        let digests = [
            ("final state", &self.state, &found.state),
            ("history of the keys", &self.history, &found.history),
        ];
        let counts = counts
            .into_iter()
            .filter(|(_, expected, found)| expected != found);
        let counts = counts
            .map(|(what, expected, found)| format!("{what}: expected {expected}, found {found}"));
        let digests = digests
            .into_iter()
            .filter(|(_, expected, found)| expected != found);
        counts
            .chain(digests.map(|(what, expected, found)| {
                format!("{what}: expected {expected}, found {found}")
            }))
            .collect()
    }
}

/// What one key has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHistory {
    /// See the module's head.
    pub chain: [u8; 16],
    /// Changes of this key.
    pub changes: u32,
    /// Digest of the row as it is now; `None` after a delete.
    pub row: Option<[u8; 16]>,
}

/// Collects changes, from the generator or from a reader of the topics, into a [`Truth`]; 40 bytes per key.
///
/// Changes of one key come in their order; keys in any order.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: HashMap<i64, KeyHistory>,
    images: Images,
    /// Inserts, updates, deletes.
    counts: [u64; 3],
    text: Vec<u8>,
}

impl History {
    /// An empty one; with [`Images::Key`] it leaves out what rows were before.
    pub fn new(images: Images) -> History {
        History {
            images,
            ..History::default()
        }
    }

    /// Adds a change of the generator's.
    pub fn change(&mut self, change: &Change) {
        let Some(key) = change
            .before
            .as_ref()
            .or(change.after.as_ref())
            .map(|row| row.id)
        else {
            return;
        };
        let text = |row: &Option<Row>| row.as_ref().map(row_text);
        let (before, after) = (text(&change.before), text(&change.after));
        self.add(key, change.operation(), before.as_deref(), after.as_deref());
    }

    /// Adds a change by the texts of its rows, [`columns_text`].
    pub fn add(
        &mut self,
        key: i64,
        operation: Operation,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) {
        let before = before.filter(|_| self.images == Images::Full);
        self.counts[operation as usize] += 1;
        let history = self.keys.entry(key).or_default();
        self.text.clear();
        self.text.extend_from_slice(&history.chain);
        self.text.push(match operation {
            Operation::Insert => b'c',
            Operation::Update => b'u',
            Operation::Delete => b'd',
        });
        self.text.extend_from_slice(before.unwrap_or_default());
        self.text.push(0x1e);
        self.text.extend_from_slice(after.unwrap_or_default());
        history.chain = digest(&[&self.text]);
        history.changes += 1;
        history.row = after.map(row_digest);
    }

    /// What the key has been through so far.
    pub fn key(&self, key: i64) -> Option<KeyHistory> {
        self.keys.get(&key).copied()
    }

    /// Keys whose history is not the same in both, smallest first.
    pub fn differing_keys(&self, other: &History) -> Vec<i64> {
        let mut keys: Vec<i64> = self.keys.keys().chain(other.keys.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.keys.get(key) != other.keys.get(key));
        keys
    }

    /// Counts and digests, without the generator's parameters.
    pub fn truth(&self) -> Truth {
        let (mut state, mut history, mut live_rows) = (0u128, 0u128, 0);
        for (key, entry) in &self.keys {
            history = history.wrapping_add(u128::from_le_bytes(digest(&[
                b"h",
                &key.to_le_bytes(),
                &entry.chain,
            ])));
            if let Some(row) = entry.row {
                state = state.wrapping_add(u128::from_le_bytes(row));
                live_rows += 1;
            }
        }
        let [inserts, updates, deletes] = self.counts;
        Truth {
            changes: inserts + updates + deletes,
            inserts,
            updates,
            deletes,
            keys: self.keys.len() as u64,
            live_rows,
            state: format!("{state:032x}"),
            history: format!("{history:032x}"),
            images: self.images,
            schema: default_schema(),
            table: default_table(),
            workload: None,
        }
    }
}

/// The text of a row of the generator's, as digests take it.
pub fn row_text(row: &Row) -> Vec<u8> {
    let mut text = Vec::with_capacity(96);
    columns_text(
        row.id,
        &row.category,
        &row.domain,
        &timestamp_text(row.timestamp_s),
        &mut text,
    );
    text
}

/// What a row adds to [`Truth::state`], by its [`columns_text`].
pub fn row_digest(text: &[u8]) -> [u8; 16] {
    digest(&[b"s", text])
}

/// Writes the text of a row as digests take it; `timestamp` as the records spell it.
pub fn columns_text(id: i64, category: &str, domain: &str, timestamp: &str, text: &mut Vec<u8>) {
    text.extend_from_slice(id.to_string().as_bytes());
    for column in [category, domain, timestamp] {
        text.push(0x1f);
        text.extend_from_slice(column.as_bytes());
    }
}

/// Seconds since 1970 as the records spell a TIMESTAMP: `2025-02-17T15:19:39Z`.
pub fn timestamp_text(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, `civil_from_days`,
/// <https://howardhinnant.github.io/date_algorithms.html>).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) = (
        day_of_year - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

/// Runs `harness truth`.
///
/// # Errors
/// When the file cannot be written.
pub fn run(args: Args) -> Outcome {
    let workload = Workload {
        changes: args.rows,
        seed: args.seed,
        passes: args.passes,
    };
    let truth = Truth::with(&workload, args.images).to_toml();
    match args.out {
        Some(path) => {
            std::fs::write(&path, truth).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => print!("{truth}"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(changes: &[Change]) -> History {
        let mut history = History::default();
        changes.iter().for_each(|change| history.change(change));
        history
    }

    fn sample() -> Vec<Change> {
        let runs = Workload::new(3000, 7)
            .transactions()
            .flat_map(|transaction| transaction.runs);
        runs.flat_map(|run| run.changes).collect()
    }

    #[test]
    fn the_truth_does_not_depend_on_the_order_among_keys_but_on_the_order_within_one() {
        let changes = sample();
        let truth = history(&changes).truth();
        assert_eq!(
            (truth.changes, truth.inserts, truth.updates, truth.deletes),
            (3000, 1500, 750, 750)
        );
        let mut by_key = changes.clone();
        by_key.sort_by_key(|change| {
            change
                .before
                .as_ref()
                .or(change.after.as_ref())
                .map(|row| row.id)
        });
        assert_eq!(history(&by_key).truth(), truth);
        let updated = by_key.windows(2).position(|pair| {
            pair.iter()
                .all(|change| change.operation() == Operation::Update)
                && pair[0].after == pair[1].before
        });
        by_key.swap(updated.unwrap(), updated.unwrap() + 1);
        let differences = truth.differences(&history(&by_key).truth());
        assert!(
            differences
                .iter()
                .any(|line| line.starts_with("history of the keys")),
            "{differences:?}"
        );
    }

    #[test]
    fn without_images_only_what_rows_become_counts() {
        let changes = sample();
        let mut whole = History::new(Images::Key);
        let mut without = History::new(Images::Key);
        for change in &changes {
            whole.change(change);
            let (row, after) = (
                change.before.as_ref().or(change.after.as_ref()),
                &change.after,
            );
            let after = after.as_ref().map(row_text);
            without.add(row.unwrap().id, change.operation(), None, after.as_deref());
        }
        assert_eq!(whole.truth(), without.truth());
        assert_eq!(whole.truth().images, Images::Key);
        assert_eq!(whole.truth().state, history(&changes).truth().state);
        assert_ne!(whole.truth().history, history(&changes).truth().history);
    }

    #[test]
    fn a_lost_a_repeated_and_a_changed_change_are_seen_and_the_key_is_named() {
        let changes = sample();
        let whole = history(&changes);
        let mut lost = changes.clone();
        let gone = lost.remove(1000);
        let key = gone.before.or(gone.after).unwrap().id;
        assert_eq!(whole.differing_keys(&history(&lost)), [key]);
        let mut repeated = changes.clone();
        repeated.push(changes[0].clone());
        assert!(
            !whole
                .truth()
                .differences(&history(&repeated).truth())
                .is_empty()
        );
        let mut changed = changes;
        changed[0].after.as_mut().unwrap().domain.push('x');
        assert!(
            !whole
                .truth()
                .differences(&history(&changed).truth())
                .is_empty()
        );
    }

    #[test]
    fn the_truth_of_given_parameters_never_changes() {
        let truth = Truth::of(&Workload::new(20_000, 42));
        assert_eq!(toml::from_str::<Truth>(&truth.to_toml()).unwrap(), truth);
        // Committed truths depend on this: a new digest here means that recordings no longer match them.
        assert_eq!((truth.keys, truth.live_rows), (10_000, 5_000));
        assert_eq!(truth.state, "251c0fb56615e75c4b815b5a78978a83");
        assert_eq!(truth.history, "4f79b6a13a436a86fd12dd95bc98e8b9");
    }

    #[test]
    fn timestamps_are_spelled_as_records_do() {
        assert_eq!(timestamp_text(1_739_805_579), "2025-02-17T15:19:39Z");
        assert_eq!(timestamp_text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(timestamp_text(951_782_400), "2000-02-29T00:00:00Z");
    }
}
