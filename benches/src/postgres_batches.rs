//! Batches made of a recording of PostgreSQL (pgoutput), as the engine's source makes them: for benches and tests of what comes after it.

use std::collections::HashMap;
use std::sync::Arc;

use engine::batch::{Batch, Event, Operation, RowGroup, Transaction};
use engine::schema::{Columns, Postgres, Table};
use fixtures::{Recording, Sidecar};
use protocol::Span;
use protocol::postgres::copy::Replication;
use protocol::postgres::pgoutput::{Message, OldTuple, Relation};
use protocol::postgres::{Column, ColumnType, TypeCatalog, TypeKind, TypeRow, catalog};

/// Seconds from 1970 to 2000, whose microseconds PostgreSQL counts.
const EPOCH_2000_S: i64 = 946_684_800;

/// The batches of the recording `name`, each of at least `size` bytes, and the number of changes in them.
///
/// # Panics
/// Recordings are committed with what reads them: one that is missing or does not decode is a mistake.
#[must_use]
pub fn of_recording(name: &str, size: usize) -> (Vec<Batch>, u64) {
    let recording = Recording::named(name).expect("a recording");
    let mut frames = recording.frames().expect("its stream");
    let mut maker = Maker::new(recording.sidecar.clone());
    let mut batches = Vec::new();
    while let Some(frame) = frames.next_frame().expect("a frame") {
        let (Some(b'd'), Some(body)) = (frame.first(), frame.get(5..)) else {
            continue;
        };
        let Replication::XLogData(data) = Replication::decode(body).expect("a replication message")
        else {
            continue;
        };
        let message = Message::decode(data.message).expect("a readable message");
        if matches!(message, Message::Begin(_)) && maker.batch.bytes.len() >= size {
            batches.push(std::mem::take(&mut maker.batch));
        }
        maker.message(message, data.message, data.start.0);
    }
    batches.push(maker.batch);
    let changes = batches.iter().map(|batch| batch.events.len() as u64).sum();
    (batches, changes)
}

struct Maker {
    batch: Batch,
    sidecar: Sidecar,
    types: TypeCatalog,
    tables: HashMap<u32, Arc<Table>>,
    previous_commit: Option<u64>,
    rows: u64,
}

impl Maker {
    fn new(sidecar: Sidecar) -> Self {
        let mut types = TypeCatalog::new();
        types.note_money(2);
        for row in rows(&sidecar, catalog::TYPES) {
            let text = |column| row[column];
            let number = |column| row[column].parse::<i64>().expect("a number");
            types.insert(TypeRow {
                oid: number("oid") as u32,
                schema: text("nspname").into(),
                name: text("typname").into(),
                kind: TypeKind::of(text("typtype")).expect("a kind"),
                category: text("typcategory").as_bytes()[0],
                element: number("typelem") as u32,
                base: number("typbasetype") as u32,
                type_modifier: number("typtypmod") as i32,
                delimiter: text("typdelim").as_bytes()[0],
                length: number("typlen") as i16,
            });
        }
        Self {
            batch: Batch::default(),
            sidecar,
            types,
            tables: HashMap::new(),
            previous_commit: None,
            rows: 0,
        }
    }

    fn message(&mut self, message: Message<'_>, bytes: &[u8], lsn: u64) {
        let (relation, operation, before, after) = match message {
            Message::Begin(begin) => {
                self.rows = 0;
                self.batch.transactions.push(Transaction {
                    file: Span::NONE,
                    offset: begin.final_lsn.0,
                    gtid: Span::NONE,
                    commit_us: u64::try_from(begin.commit_us + EPOCH_2000_S * 1_000_000).ok(),
                    thread: None,
                    xid: Some(begin.xid),
                    previous_commit: self.previous_commit,
                    first_event: self.batch.events.len() as u32,
                });
                return;
            }
            Message::Commit(commit) => {
                self.previous_commit = Some(commit.end_lsn.0);
                return;
            }
            Message::Relation(relation) => {
                self.tables.insert(relation.oid, self.table(&relation));
                return;
            }
            Message::Insert(insert) => (insert.relation, Operation::Create, None, Some(insert.new)),
            Message::Update(update) => (
                update.relation,
                Operation::Update,
                update.old,
                Some(update.new),
            ),
            Message::Delete(delete) => (delete.relation, Operation::Delete, Some(delete.old), None),
            _ => return,
        };
        let base = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        let span = |range: std::ops::Range<usize>| {
            Span::new(range.start + base..range.end + base).expect("a short stream")
        };
        let before_is_key = matches!(before, Some(OldTuple::Key(_)));
        let (number, first_row) = self.group(relation, before_is_key);
        self.batch.events.push(Event {
            operation,
            group: number,
            row: (self.rows - first_row) as u32,
            before: before.map_or(Span::NONE, |old| span(old.range())),
            after: after.map_or(Span::NONE, span),
        });
        self.batch.lsns.push(lsn);
        self.rows += 1;
    }

    /// The group that the next row belongs to, and its first row.
    fn group(&mut self, relation: u32, before_is_key: bool) -> (u32, u64) {
        let table = &self.tables[&relation];
        let tables = &mut self.batch.tables;
        let known = tables.iter().position(|known| Arc::ptr_eq(known, table));
        let number = known.unwrap_or_else(|| {
            tables.push(Arc::clone(table));
            tables.len() - 1
        }) as u32;
        let transaction = self.batch.transactions.len() as u32 - 1;
        let groups = &mut self.batch.groups;
        let same = groups.last().filter(|group| {
            (group.table, group.transaction, group.before_is_key)
                == (number, transaction, before_is_key)
        });
        if same.is_none() {
            groups.push(RowGroup {
                table: number,
                transaction,
                first_row: self.rows,
                offset: 0,
                timestamp_s: 0,
                server_id: 0,
                columns_before: Span::NONE,
                columns_after: Span::NONE,
                before_is_key,
                partial_json: false,
                query: Span::NONE,
            });
        }
        let first_row = groups.last().map_or(0, |group| group.first_row);
        (groups.len() as u32 - 1, first_row)
    }

    fn table(&self, relation: &Relation<'_>) -> Arc<Table> {
        let described = relation.columns().map(|column| column.expect("a column"));
        let described: Vec<_> = described.collect();
        let column = |of: &protocol::postgres::pgoutput::RelationColumn<'_>| Column {
            name: of.name.into(),
            type_oid: of.type_oid,
            type_modifier: of.type_modifier,
            // Types that were dropped before the recording ended are not in its catalog.
            kind: (self.types.resolve(of.type_oid, of.type_modifier)).unwrap_or(ColumnType::Text),
        };
        let columns: Box<[Column]> = described.iter().map(column).collect();
        let indices: Vec<_> = rows(&self.sidecar, catalog::KEYS)
            .filter(|row| row["relation"] == relation.oid.to_string())
            .collect();
        // The key is what every image before holds.
        let is_sent = |name: &str| {
            let mut columns = described.iter();
            relation.identity == b'f' || columns.any(|of| of.is_key && of.name == name)
        };
        let index = |flag: &str| {
            indices
                .iter()
                .find(|row| row[flag] == "t")
                .map(|row| row["index"])
        };
        let parts = |index: &str| -> Vec<&str> {
            let mut parts: Vec<_> = indices.iter().filter(|row| row["index"] == index).collect();
            parts.sort_by_key(|row| row["position"].parse::<u32>().expect("a number"));
            parts.iter().map(|row| row["attname"]).collect()
        };
        let key = [
            index("indisprimary"),
            index("indisreplident"),
            indices.first().map(|row| row["index"]),
        ]
        .into_iter()
        .flatten()
        .map(parts)
        .find(|parts| parts.iter().all(|name| is_sent(name)));
        let place = |name: &str| {
            let place = columns.iter().position(|column| &*column.name == name);
            place.expect("a column of the table") as u16
        };
        Arc::new(Table {
            version: u64::from(relation.oid),
            schema: relation.schema.into(),
            name: relation.name.into(),
            key: key.unwrap_or_default().into_iter().map(place).collect(),
            columns: Columns::Postgres(Postgres {
                database: (self.sidecar.postgres.as_ref())
                    .map_or("", |of| &of.database)
                    .into(),
                columns,
                identity: Box::default(),
                is_full: false,
            }),
        })
    }
}

/// The rows of an answer that the recording has, by column.
fn rows<'a>(sidecar: &'a Sidecar, query: &str) -> impl Iterator<Item = HashMap<&'a str, &'a str>> {
    let answer = sidecar.answer(query).expect("an answer");
    let columns = || answer.columns.iter().map(String::as_str);
    (answer.rows.iter()).map(move |row| columns().zip(row.iter().map(String::as_str)).collect())
}
