//! Batches made of a recording, as the engine's source makes them: for benches of what comes after it.

use std::collections::HashMap;
use std::sync::Arc;

use engine::batch::{Batch, Event, Operation, RowGroup, Transaction};
use engine::schema::{Columns, Table};
use fixtures::Recording;
use protocol::Span;
use protocol::mysql::event::{Checksum, Format, Gtid, Message};
use protocol::mysql::rows::{Rows, RowsKind};
use protocol::mysql::table_map::TableMap;

/// The batches of the recording `name`, each of at least `size` bytes, and the number of changes in them.
///
/// # Panics
/// Recordings are committed with what reads them: one that is missing or does not decode is a mistake.
#[must_use]
pub fn of_recording(name: &str, size: usize) -> (Vec<Batch>, u64) {
    let recording = Recording::named(name).expect("a recording");
    let mut stream = recording.events().expect("its stream");
    let mut maker = Maker {
        batch: Batch::default(),
        tables: HashMap::new(),
        rows: 0,
    };
    let mut format = Format::before_description(Checksum::Crc32);
    let mut batches = Vec::new();
    let mut changes = 0;
    loop {
        let offset = stream.offset();
        let Some(event) = stream.next_event().expect("an event") else {
            break;
        };
        let (header, message) = Message::parse(&format, event).expect("a readable event");
        match message {
            Message::FormatDescription(described) => format = described,
            Message::Gtid(gtid) => {
                if maker.batch.bytes.len() >= size {
                    changes += maker.batch.events.len() as u64;
                    batches.push(std::mem::take(&mut maker.batch));
                }
                maker.transaction(&gtid, offset);
            }
            Message::TableMap(map) => maker.table(&map),
            Message::Rows(rows) => maker.rows(&rows, offset, header.timestamp_s, header.server_id),
            _ => {}
        }
    }
    changes += maker.batch.events.len() as u64;
    batches.push(maker.batch);
    (batches, changes)
}

struct Maker {
    batch: Batch,
    tables: HashMap<u64, Arc<Table>>,
    rows: u64,
}

impl Maker {
    fn text(&mut self, text: &str) -> Span {
        let start = self.batch.text.len();
        self.batch.text.extend_from_slice(text.as_bytes());
        Span::new(start..self.batch.text.len()).unwrap_or_default()
    }

    fn transaction(&mut self, gtid: &Gtid<'_>, offset: u64) {
        let uuid: String = gtid.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [
            &uuid[..8],
            &uuid[8..12],
            &uuid[12..16],
            &uuid[16..20],
            &uuid[20..],
        ];
        let text = format!("{}:{}", parts.join("-"), gtid.number);
        let transaction = Transaction {
            file: self.text("binlog.000001"),
            offset,
            gtid: self.text(&text),
            commit_us: gtid.original_commit_us,
            thread: Some(34),
            xid: None,
            previous_commit: None,
            first_event: self.batch.events.len() as u32,
        };
        self.batch.transactions.push(transaction);
        self.rows = 0;
    }

    fn table(&mut self, map: &TableMap<'_>) {
        let version = map.table_id;
        self.tables.entry(version).or_insert_with(|| {
            let description = map.describe().expect("a table's description");
            let key = description.primary_key.unwrap_or_default();
            Arc::new(Table {
                version,
                schema: map.database.into(),
                name: map.table.into(),
                key: key.iter().map(|part| part.column).collect(),
                columns: Columns::MySql(description.columns.into()),
            })
        });
    }

    fn rows(&mut self, rows: &Rows<'_>, offset: u64, timestamp_s: u32, server_id: u32) {
        let table = &self.tables[&rows.table_id];
        let known = self
            .batch
            .tables
            .iter()
            .position(|known| Arc::ptr_eq(known, table));
        let number = known.unwrap_or_else(|| {
            self.batch.tables.push(Arc::clone(table));
            self.batch.tables.len() - 1
        });
        let base = self.batch.bytes.len() as u32;
        self.batch.bytes.extend_from_slice(rows.bytes());
        let moved = |span: Span| match span {
            Span::NONE => span,
            Span { start, end } => Span {
                start: start + base,
                end: end + base,
            },
        };
        self.batch.groups.push(RowGroup {
            table: number as u32,
            transaction: self.batch.transactions.len() as u32 - 1,
            first_row: self.rows,
            offset,
            timestamp_s,
            server_id,
            columns_before: moved(rows.columns_before),
            columns_after: moved(rows.columns_after),
            before_is_key: false,
            partial_json: rows.partial,
            query: Span::NONE,
        });
        let columns = table.columns.mysql();
        for (row, spans) in rows.walk(columns).expect("rows").enumerate() {
            let spans = spans.expect("a row");
            self.batch.events.push(Event {
                operation: match rows.kind {
                    RowsKind::Write => Operation::Create,
                    RowsKind::Update => Operation::Update,
                    RowsKind::Delete => Operation::Delete,
                },
                group: self.batch.groups.len() as u32 - 1,
                row: row as u32,
                before: moved(spans.before),
                after: moved(spans.after),
            });
            self.rows += 1;
        }
    }
}
