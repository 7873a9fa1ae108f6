//! TRUNCATE: a statement of a transaction of its own, and a change without rows.
//!
//! ```text
//! GTID ─ QUERY TRUNCATE TABLE …          one change, which counts as row 0 of its transaction
//! ```
//! It counts as a row whether it becomes a record or not, so that what a restart compares does not depend on a setting.

use std::collections::HashSet;
use std::sync::Arc;

use protocol::Span;
use protocol::mysql::event::{Header, Query};
use protocol::mysql::statement::TableName;

use super::rows::{Names, Sink, transaction};
use super::{Decoder, Truncated};
use crate::batch::{Event, Operation, RowGroup};
use crate::source::mysql::names;
use crate::source::{SourceError, truncate_passed_over};

/// What becomes of the server's TRUNCATEs.
#[derive(Debug, Default)]
pub(in crate::source::mysql) struct Truncates {
    /// Whether they become changes.
    are_recorded: bool,
    /// Tables whose TRUNCATE was passed over and said so.
    told: HashSet<(String, String)>,
}

impl Truncates {
    pub(in crate::source::mysql) fn new(are_recorded: bool) -> Self {
        Self {
            are_recorded,
            told: HashSet::new(),
        }
    }
}

impl Decoder {
    /// The statement `query` is a TRUNCATE of the table that it calls `named`.
    ///
    /// # Errors
    /// Its table cannot be told, and a record is asked for.
    pub(super) fn truncate(
        &mut self,
        sink: &mut Sink<'_>,
        header: &Header,
        query: &Query<'_>,
        named: &TableName,
        offset: u64,
    ) -> Result<(), SourceError> {
        // What stands before the start is not looked at.
        if self.warm_up.is_some() {
            return Ok(());
        }
        let (schema, table) = names::stored(named, query.database, self.folds_names);
        let is_told = |name: &str| !name.contains(char::REPLACEMENT_CHARACTER);
        if self.truncates.are_recorded && !(is_told(&schema) && is_told(&table)) {
            return Err(self.refuse(offset, unnamed(query)));
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let number = open.rows;
        open.rows += 1;
        if !self.selection.includes(&schema, &table) {
            self.counters.rows_filtered += 1;
            return Ok(());
        }
        if !self.truncates.are_recorded {
            let text = truncate_passed_over(&schema, &table);
            if self.truncates.told.insert((schema, table)) {
                tracing::warn!("{text}");
            }
            return Ok(());
        }
        open.captured += 1;
        // An earlier connection brought it.
        if (self.delivered.as_ref()).is_some_and(|delivered| number < delivered.rows) {
            return Ok(());
        }
        if !open.begun {
            open.thread = Some(query.thread);
        }
        let Truncated { table, slot } = self.tables.truncated(&schema, &table);
        if slot.0 != self.batch {
            *slot = (self.batch, sink.tables.len() as u32);
            sink.tables.push(Arc::clone(table));
        }
        let table = slot.1;
        let first_event = sink.events.len() as u32;
        let names = Names {
            batch: self.batch,
            file_text: &mut self.file_text,
        };
        let transaction = transaction(sink, names, open, first_event);
        let group = sink.groups.len() as u32;
        sink.groups.push(RowGroup {
            table,
            transaction,
            first_row: number,
            offset,
            timestamp_s: header.timestamp_s,
            server_id: header.server_id,
            columns_before: Span::NONE,
            columns_after: Span::NONE,
            before_is_key: false,
            partial_json: false,
            query: Span::NONE,
        });
        sink.events.push(Event {
            operation: Operation::Truncate,
            group,
            row: 0,
            before: Span::NONE,
            after: Span::NONE,
        });
        self.counters.rows += 1;
        Ok(())
    }
}

fn unnamed(query: &Query<'_>) -> String {
    format!(
        "which table {:?} empties cannot be told, because its name is no text in the character set of the session that ran it; see \
         which one it was, delete its rows downstream, and go on behind it by `walbrook position set`",
        query.text()
    )
}
