//! What every record must be, one after the other per partition.

use protocol::kafka::murmur2;
use serde::Deserialize;
use simd_json::Buffers;

use super::position::RowPosition;
use super::read::Read;
use super::{EXAMPLES_MAX, Findings};
use crate::truth::{History, Images, Truth, columns_text};
use crate::workload::Operation;

/// A value, as far as it is compared. Unknown columns are an error, fields beside these are the format's own matter.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub(super) before: Option<Columns<'a>>,
    #[serde(borrow)]
    pub(super) after: Option<Columns<'a>>,
    #[serde(borrow)]
    source: Source<'a>,
    op: &'a str,
}

/// The columns of the workload's table; null only where the server told of nothing but the key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Columns<'a> {
    id: i64,
    #[serde(borrow)]
    category: Option<&'a str>,
    #[serde(borrow)]
    domain: Option<&'a str>,
    #[serde(borrow)]
    timestamp: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Source<'a> {
    db: &'a str,
    #[serde(default)]
    schema: Option<&'a str>,
    table: &'a str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    id: i64,
}

impl Columns<'_> {
    /// The row's text, whatever is null left empty.
    pub(super) fn text(&self, text: &mut Vec<u8>) {
        text.clear();
        let [category, domain, timestamp] =
            [self.category, self.domain, self.timestamp].map(Option::unwrap_or_default);
        columns_text(self.id, category, domain, timestamp, text);
    }

    fn is_whole(&self) -> bool {
        self.category.is_some() && self.domain.is_some() && self.timestamp.is_some()
    }

    fn is_key(&self) -> bool {
        self.category.is_none() && self.domain.is_none() && self.timestamp.is_none()
    }
}

impl Envelope<'_> {
    /// The operation, where `op` and the images agree, and the images are what the server tells.
    pub(super) fn operation(&self, images: Images) -> Option<Operation> {
        let after = self.after.as_ref().filter(|row| row.is_whole());
        match (self.op, images, &self.before, after) {
            ("c", _, None, Some(_)) => Some(Operation::Insert),
            ("u", Images::Full, Some(before), Some(_)) if before.is_whole() => {
                Some(Operation::Update)
            }
            ("u", Images::Key, None, Some(_)) => Some(Operation::Update),
            ("d", Images::Full, Some(before), None)
                if self.after.is_none() && before.is_whole() =>
            {
                Some(Operation::Delete)
            }
            ("d", Images::Key, Some(before), None) if self.after.is_none() && before.is_key() => {
                Some(Operation::Delete)
            }
            _ => None,
        }
    }
}

/// The id of a key, `{"id":42}`.
pub(super) fn key_id(key: Option<&[u8]>) -> Option<i64> {
    serde_json::from_slice(key?).ok().map(|key: Key| key.id)
}

/// What a partition is in the middle of.
#[derive(Debug, Clone, Default)]
struct Progress {
    records: u64,
    /// Highest position so far.
    position: Option<RowPosition>,
    /// A delete whose tombstone must come next: its key's id and position.
    tombstone_due: Option<(i64, RowPosition)>,
    /// The tombstone of a repeated delete is repeated, too.
    repeating: bool,
}

/// Compares record by record and collects what must be compared in the end.
pub(super) struct Checker {
    schema: String,
    table: String,
    images: Images,
    partitions: Vec<Progress>,
    findings: Findings,
    /// Failures beyond the examples.
    unnamed: u64,
    history: History,
    buffers: Buffers,
    value: Vec<u8>,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Checker {
    pub(super) fn new(truth: &Truth, partitions: usize) -> Self {
        Self {
            schema: truth.schema.clone(),
            table: truth.table.clone(),
            images: truth.images,
            partitions: vec![Progress::default(); partitions],
            findings: Findings::default(),
            unnamed: 0,
            history: History::new(truth.images),
            buffers: Buffers::new(4096),
            value: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// Takes the next record of a partition.
    pub(super) fn record(&mut self, record: &Read<'_>) {
        self.findings.records += 1;
        if let Err(why) = self.check(record) {
            self.fail(format!(
                "partition {} offset {}: {why}",
                record.partition, record.offset
            ));
        }
    }

    fn fail(&mut self, failure: String) {
        if self.findings.failures.len() < EXAMPLES_MAX {
            self.findings.failures.push(failure);
        } else {
            self.unnamed += 1;
        }
    }

    fn check(&mut self, record: &Read<'_>) -> Result<(), String> {
        let id = key_id(record.key).ok_or_else(|| format!("its key is {}", shown(record.key)))?;
        let key = record.key.unwrap_or_default();
        let text = record.pos.ok_or("it has no header pos")?;
        let position = RowPosition::parse(text)
            .ok_or_else(|| format!("its header pos is {}", shown(Some(text))))?;
        let partitions = self.partitions.len() as u32;
        let expected = murmur2::partition(key, partitions);
        let progress = usize::try_from(record.partition)
            .ok()
            .and_then(|partition| self.partitions.get_mut(partition))
            .ok_or("it is in a partition that was not there")?;
        progress.records += 1;
        if i64::from(expected) != i64::from(record.partition) {
            return Err(format!("key {id} belongs into partition {expected}"));
        }
        match record.value {
            None => self.tombstone(record, id, position),
            Some(value) => {
                let due = progress.tombstone_due.take();
                progress.repeating = progress.position.is_some_and(|highest| position <= highest);
                if progress.repeating {
                    self.repeated(record, text);
                    return Ok(());
                }
                progress.position = Some(position);
                self.change(record, id, position, value)?;
                match due {
                    Some((id, _)) => {
                        Err(format!("the delete of key {id} before it has no tombstone"))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn tombstone(
        &mut self,
        record: &Read<'_>,
        id: i64,
        position: RowPosition,
    ) -> Result<(), String> {
        let Some(progress) = self.partitions.get_mut(record.partition as usize) else {
            return Ok(());
        };
        if progress.repeating {
            self.findings.repeated += 1;
            return Ok(());
        }
        self.findings.tombstones += 1;
        match progress.tombstone_due.take() {
            Some(due) if due == (id, position) => Ok(()),
            Some((other, _)) => Err(format!(
                "a tombstone of key {id} behind a delete of key {other}, or with another pos"
            )),
            None => Err(format!("a tombstone of key {id} that follows no delete")),
        }
    }

    fn repeated(&mut self, record: &Read<'_>, position: &[u8]) {
        self.findings.repeated += 1;
        if self.findings.repeated_examples.len() < EXAMPLES_MAX {
            let (partition, offset) = (record.partition, record.offset);
            let example = format!(
                "partition {partition} offset {offset} has pos {}, which is not behind those before it",
                shown(Some(position))
            );
            self.findings.repeated_examples.push(example);
        }
    }

    fn change(
        &mut self,
        record: &Read<'_>,
        id: i64,
        position: RowPosition,
        value: &[u8],
    ) -> Result<(), String> {
        self.value.clear();
        self.value.extend_from_slice(value);
        let envelope: Envelope<'_> =
            simd_json::serde::from_slice_with_buffers(&mut self.value, &mut self.buffers)
                .map_err(|error| format!("its value: {error}: {}", shown(Some(value))))?;
        let operation = envelope
            .operation(self.images)
            .ok_or_else(|| format!("op {} does not go with its images", envelope.op))?;
        let ids = [&envelope.before, &envelope.after]
            .into_iter()
            .flatten()
            .map(|row| row.id);
        if ids.clone().any(|row| row != id) {
            return Err(format!(
                "its key is {id}, its rows' {:?}",
                ids.collect::<Vec<_>>()
            ));
        }
        let schema = envelope.source.schema.unwrap_or(envelope.source.db);
        if schema != self.schema || envelope.source.table != self.table {
            return Err(format!("it is of table {schema}.{}", envelope.source.table));
        }
        if let Some(row) = &envelope.before {
            row.text(&mut self.before);
        }
        if let Some(row) = &envelope.after {
            row.text(&mut self.after);
        }
        let before = envelope.before.is_some().then_some(&self.before[..]);
        let after = envelope.after.is_some().then_some(&self.after[..]);
        self.history.add(id, operation, before, after);
        if operation == Operation::Delete
            && let Some(progress) = self.partitions.get_mut(record.partition as usize)
        {
            progress.tombstone_due = Some((id, position));
        }
        Ok(())
    }

    /// What was found so far, and every key's history.
    pub(super) fn finish(mut self) -> (Findings, History) {
        for partition in 0..self.partitions.len() {
            if let Some((id, _)) = self.partitions[partition].tombstone_due {
                self.fail(format!(
                    "partition {partition}: the delete of key {id} at its end has no tombstone"
                ));
            }
        }
        if self.unnamed > 0 {
            let more = format!(
                "and {} more records that are not what they must be",
                self.unnamed
            );
            self.findings.failures.push(more);
        }
        let found = self.history.truth();
        let findings = Findings {
            partitions: self.partitions.iter().filter(|p| p.records > 0).count(),
            changes: found.changes,
            inserts: found.inserts,
            updates: found.updates,
            deletes: found.deletes,
            ..self.findings
        };
        (findings, self.history)
    }
}

/// Bytes as text, shortened.
pub(super) fn shown(bytes: Option<&[u8]>) -> String {
    const SHOWN_MAX: usize = 120;
    let Some(bytes) = bytes else {
        return "null".into();
    };
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
