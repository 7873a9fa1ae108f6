//! Reads the topic back: every row once, as it was written, in the order of its writer, and how long each was under way.

use std::collections::HashMap;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::Value;

use super::super::run::verification_client;
use super::rows::Rows;
use super::write::Written;
use super::{Load, Scenario, histogram, note};
use crate::broker::Broker;
use crate::verify::{self, Read};

/// Failures that are told apart; the rest is counted.
const FAILURES_MAX: usize = 10;

/// What was found in the topic.
#[derive(Debug)]
pub(super) struct Timed {
    /// From sending COMMIT to the broker's log, a count per row.
    pub(super) from_sent: Histogram<u64>,
    /// From when the commit was due.
    pub(super) from_due: Histogram<u64>,
    /// From sending COMMIT to the server's answer, a count per commit.
    pub(super) server_commit: Histogram<u64>,
    /// Rows of the load.
    pub(super) changes: u64,
    pub(super) failures: Vec<String>,
}

impl Default for Timed {
    fn default() -> Self {
        Timed {
            from_sent: histogram(),
            from_due: histogram(),
            server_commit: histogram(),
            changes: 0,
            failures: Vec::new(),
        }
    }
}

/// Reads `topic` by a client that had no part in writing it, and compares it with what was committed.
///
/// # Errors
/// Where the topic cannot be read.
pub(super) async fn timed(
    scenario: &Scenario,
    broker: &Broker,
    topic: &str,
    rows: &Rows,
    load: &Load,
    written: &Written,
) -> Result<Timed, verify::Error> {
    let partitions: Vec<i32> = (0..scenario.broker.partitions).collect();
    let appends = partitions
        .iter()
        .map(|partition| broker.appends(topic, *partition))
        .collect();
    let mut reading = Reading {
        rows,
        written,
        writers: load.writers,
        appends,
        seen: vec![false; written.commits.len() * load.rows_per_commit as usize],
        per_commit: load.rows_per_commit,
        latest: HashMap::new(),
        timed: Timed::default(),
        unnamed: 0,
        records: 0,
    };
    let client = verification_client(scenario);
    verify::records(
        client,
        &broker.observed_bootstrap(),
        topic,
        &partitions,
        |record| {
            reading.record(&record);
        },
    )
    .await?;
    let (read, written) = (reading.records, broker.counts().records);
    if read != written {
        reading.fail(format!(
            "records: {written} are in the broker, {read} in the topic that was verified"
        ));
    }
    Ok(reading.finish())
}

struct Reading<'a> {
    rows: &'a Rows,
    written: &'a Written,
    writers: u64,
    /// Per partition: base offsets of batches, and when they were written.
    appends: Vec<Vec<(i64, Instant)>>,
    /// A row each, in the order of the commits.
    seen: Vec<bool>,
    per_commit: u64,
    /// Per partition and writer the last id.
    latest: HashMap<(i32, u64), u64>,
    timed: Timed,
    unnamed: usize,
    /// That were read.
    records: u64,
}

impl Reading<'_> {
    fn fail(&mut self, failure: String) {
        match self.timed.failures.len() < FAILURES_MAX {
            true => self.timed.failures.push(failure),
            false => self.unnamed += 1,
        }
    }

    fn record(&mut self, record: &Read<'_>) {
        self.records += 1;
        let place = format!("partition {} offset {}", record.partition, record.offset);
        let value: Value = match record.value.map(serde_json::from_slice) {
            Some(Ok(value)) => value,
            Some(Err(error)) => return self.fail(format!("{place}: no JSON: {error}")),
            None => return self.fail(format!("{place}: a tombstone, and nothing was deleted")),
        };
        let after = &value["after"];
        let Some(id) = after["id"].as_u64() else {
            return self.fail(format!("{place}: a record without an id: {value}"));
        };
        let Some(number) = self.rows.commit_of(id) else {
            // The row that came before the load.
            return;
        };
        let written = self.written;
        let Ok(at) = (written.commits).binary_search_by_key(&number, |commit| commit.number) else {
            return self.fail(format!("{place}: row {id} was not committed"));
        };
        let commit = &written.commits[at];
        if value["op"] != "c"
            || after["due_us"] != commit.due_us
            || after["note"] != self.rows.note(id)
        {
            self.fail(format!(
                "{place}: row {id} is not as it was written: {value}"
            ));
        }
        let key: Option<Value> = record.key.and_then(|key| serde_json::from_slice(key).ok());
        if key.is_none_or(|key| key["id"] != id) {
            self.fail(format!("{place}: row {id} has another key"));
        }
        let row = at * self.per_commit as usize + ((id - 1) % self.per_commit) as usize;
        if std::mem::replace(&mut self.seen[row], true) {
            self.fail(format!("{place}: row {id} is there twice"));
        }
        let writer = (record.partition, number % self.writers);
        let before = self.latest.insert(writer, id);
        if before.is_some_and(|before| before >= id) {
            self.fail(format!("{place}: row {id} comes after {before:?}"));
        }
        self.timed.changes += 1;
        if !written.is_timed(commit) {
            return;
        }
        let Some(appended) = self.appended(record) else {
            return self.fail(format!(
                "{place}: the broker does not know when it was written"
            ));
        };
        note(&mut self.timed.from_sent, commit.sent, appended, 1);
        if let Some(due) = commit.due {
            note(&mut self.timed.from_due, due, appended, 1);
        }
    }

    /// When the batch was written that holds the record.
    fn appended(&self, record: &Read<'_>) -> Option<Instant> {
        let appends = self.appends.get(usize::try_from(record.partition).ok()?)?;
        let after = appends.partition_point(|(base, _)| *base <= record.offset);
        appends.get(after.checked_sub(1)?).map(|(_, at)| *at)
    }

    fn finish(mut self) -> Timed {
        for commit in self.written.timed() {
            note(
                &mut self.timed.server_commit,
                commit.sent,
                commit.answered,
                1,
            );
        }
        let missing = self.seen.iter().filter(|seen| !**seen).count();
        if missing > 0 {
            let first = self.seen.iter().position(|seen| !seen).unwrap_or_default();
            let commit = self.written.commits[first / self.per_commit as usize].number;
            self.fail(format!(
                "{missing} of {} rows are missing, the first of commit {commit}",
                self.seen.len()
            ));
        }
        if self.unnamed > 0 {
            let more = self.unnamed;
            self.timed
                .failures
                .push(format!("and {more} more like these"));
        }
        self.timed
    }
}
