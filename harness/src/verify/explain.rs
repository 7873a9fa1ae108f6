//! Where topic and truth differ: the first differing keys, what happened to them and what should have.

use std::collections::BTreeMap;

use super::EXAMPLES_MAX;
use super::check::{Envelope, key_id, shown};
use super::read::Read;
use crate::truth::{History, Images, row_text};
use crate::workload::{Change, Operation, Workload};

/// A change of a key as it can be compared and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    operation: Operation,
    after: Vec<u8>,
}

impl Step {
    fn shown(&self) -> String {
        let operation = match self.operation {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => return "delete".into(),
        };
        format!(
            "{operation} {}",
            shown(Some(&self.after)).replace('\u{1f}', "|")
        )
    }
}

/// Collects both sides of the differing keys.
pub(super) struct Explainer {
    images: Images,
    differing: usize,
    expected: BTreeMap<i64, Vec<Step>>,
    found: BTreeMap<i64, Vec<(Step, String)>>,
}

impl Explainer {
    /// Runs the generator once for the keys that differ and once for their changes.
    pub(super) fn new(workload: &Workload, images: Images, found: &History) -> Self {
        let mut whole = History::new(images);
        each(workload, |change| whole.change(change));
        let keys = whole.differing_keys(found);
        let chosen: BTreeMap<i64, Vec<Step>> = keys
            .iter()
            .take(EXAMPLES_MAX)
            .map(|key| (*key, Vec::new()))
            .collect();
        let mut expected = chosen.clone();
        each(workload, |change| {
            let row = change.after.as_ref().or(change.before.as_ref());
            if let Some(steps) = row.and_then(|row| expected.get_mut(&row.id)) {
                let after = change.after.as_ref().map(row_text).unwrap_or_default();
                steps.push(Step {
                    operation: change.operation(),
                    after,
                });
            }
        });
        let found = chosen.keys().map(|key| (*key, Vec::new())).collect();
        Self {
            images,
            differing: keys.len(),
            expected,
            found,
        }
    }

    pub(super) fn record(&mut self, record: &Read<'_>) {
        let (Some(value), Some(id)) = (record.value, key_id(record.key)) else {
            return;
        };
        let Some(steps) = self.found.get_mut(&id) else {
            return;
        };
        let mut value = value.to_vec();
        let Ok(envelope) = simd_json::serde::from_slice::<Envelope<'_>>(&mut value) else {
            return;
        };
        let Some(operation) = envelope.operation(self.images) else {
            return;
        };
        let mut after = Vec::new();
        if let Some(row) = &envelope.after {
            row.text(&mut after);
        }
        let place = format!(
            "partition {} offset {} pos {}",
            record.partition,
            record.offset,
            shown(record.pos)
        );
        steps.push((Step { operation, after }, place));
    }

    /// One line per key.
    pub(super) fn finish(self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .expected
            .iter()
            .map(|(key, expected)| {
                let found = self.found.get(key).map(Vec::as_slice).unwrap_or_default();
                format!("key {key}: {}", verdict(expected, found))
            })
            .collect();
        if self.differing > lines.len() {
            lines.push(format!("and {} more keys", self.differing - lines.len()));
        }
        lines
    }
}

fn each(workload: &Workload, mut f: impl FnMut(&Change)) {
    for _ in 0..workload.passes {
        for transaction in workload.transactions() {
            transaction
                .runs
                .iter()
                .flat_map(|run| &run.changes)
                .for_each(&mut f);
        }
    }
}

/// Missing, duplicate, out of order or altered.
fn verdict(expected: &[Step], found: &[(Step, String)]) -> String {
    if expected.is_empty() {
        let places: Vec<_> = found.iter().map(|(_, place)| place.as_str()).collect();
        return format!("should not exist, but is at {}", places.join(", "));
    }
    let mut left: Vec<_> = found.iter().collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(
            |step| match left.iter().position(|(other, _)| other == *step) {
                Some(i) => {
                    left.remove(i);
                    false
                }
                None => true,
            },
        )
        .map(Step::shown)
        .collect();
    let extra: Vec<_> = left
        .iter()
        .map(|(step, place)| {
            let what = if expected.contains(step) {
                "duplicate"
            } else {
                "unexpected"
            };
            format!("{what} {} at {place}", step.shown())
        })
        .collect();
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) if expected.iter().eq(found.iter().map(|(step, _)| step)) => {
            "as expected but for its before images".into()
        }
        (true, true) => {
            let places: Vec<_> = found
                .iter()
                .map(|(step, place)| format!("{} at {place}", step.shown()))
                .collect();
            format!("out of order: {}", places.join(", "))
        }
        (false, true) => format!("missing {}", missing.join(", ")),
        (true, false) => extra.join(", "),
        (false, false) => format!("missing {}; {}", missing.join(", "), extra.join(", ")),
    }
}
