//! What a client asks at its start, asked once and written down.

use std::collections::BTreeMap;

use fixtures::{Answer, NULL};
use protocol::postgres::catalog::{SLOTS, WHOLE};

use super::client::{Client, Rows};
use crate::record::RecordError;

/// Statements beyond those of the catalog that clients ask, `psql` among them.
const STATEMENTS: [&str; 3] = [
    "SELECT version()",
    "SELECT current_user",
    "SHOW server_version",
];

/// Every setting that bears on replication, text and time; not the machine's paths and sizes.
const VARIABLES: &str = "SELECT name, setting FROM pg_catalog.pg_settings \
     WHERE category ~ '^(Replication|Write-Ahead Log|Client Connection Defaults|Preset Options|Version and Platform)' ORDER BY name";

/// A server's answers.
pub(super) struct Catalog {
    pub(super) variables: BTreeMap<String, String>,
    pub(super) answers: Vec<Answer>,
}

/// What the catalog tells of a slot.
pub(super) struct Slot {
    pub(super) plugin: String,
    pub(super) database: String,
    /// Where its stream begins.
    pub(super) confirmed: String,
}

impl Catalog {
    /// Asks everything.
    pub(super) fn read(client: &mut Client) -> Result<Catalog, RecordError> {
        let mut answers = Vec::new();
        for query in WHOLE.into_iter().chain(STATEMENTS) {
            let rows = client.rows(query)?;
            answers.push(answer(query, rows));
        }
        let (_, rows) = client.rows(VARIABLES)?;
        let pairs = rows.into_iter().filter_map(|row| {
            let mut row = row.into_iter();
            Some((row.next()??, row.next()??))
        });
        let variables = pairs.filter(|(_, value)| !value.contains('/'));
        Ok(Catalog {
            variables: variables.collect(),
            answers,
        })
    }

    /// The slot `name`.
    pub(super) fn slot(&self, name: &str) -> Result<Slot, RecordError> {
        let slots = self.answers.iter().find(|answer| answer.query == SLOTS);
        let slots = slots.ok_or(RecordError::Unexpected("no slots"))?;
        let column = |name: &str| slots.columns.iter().position(|column| column == name);
        let cell = |row: &[String], name| {
            let cell = column(name).and_then(|at| row.get(at));
            cell.cloned().unwrap_or_default()
        };
        let row = slots.rows.iter().find(|row| cell(row, "slot_name") == name);
        let row = row.ok_or_else(|| {
            RecordError::Usage(format!(
                "--slot {name}: no such slot; harness seed postgres --slot {name} makes it"
            ))
        })?;
        Ok(Slot {
            plugin: cell(row, "plugin"),
            database: cell(row, "database"),
            confirmed: cell(row, "confirmed_flush_lsn"),
        })
    }
}

/// An answer as the sidecar has it.
pub(super) fn answer(query: &str, (columns, rows): Rows) -> Answer {
    let text = |cell: Option<String>| cell.unwrap_or_else(|| NULL.to_owned());
    let rows = rows
        .into_iter()
        .map(|row| row.into_iter().map(text).collect())
        .collect();
    Answer {
        query: query.to_owned(),
        columns,
        rows,
    }
}
