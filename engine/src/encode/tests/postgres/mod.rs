//! PostgreSQL's rows as records: batches put together by hand of TupleData, encoded, and read back by independent decoders.

mod changes;
mod column_types;
mod documented;
mod layout;
mod noise;
mod reference;
mod server;
mod twin;

use std::sync::Arc;

use protocol::Span;
use protocol::postgres::{Column, ColumnType, Lsn};

use super::{NOW, Read, read, settings as mysql_settings, templates};
use crate::batch::{Batch, Event, Operation, RowGroup, Transaction};
use crate::config::EncodeSettings;
use crate::encode::{EncodeError, Encoder};
use crate::encoded::EncodedBatch;
use crate::schema::{Columns, Postgres, Table};

/// The commit of [`Maker`]'s transaction.
const COMMIT: Lsn = Lsn(0x16_b374_d848);

fn settings() -> EncodeSettings {
    EncodeSettings {
        source: "tpg".into(),
        connector: "postgresql",
        ..mysql_settings()
    }
}

fn table(name: &str, key: &[u16], columns: &[(&str, ColumnType)]) -> Arc<Table> {
    let column = |(name, kind): &(&str, ColumnType)| Column {
        name: (*name).into(),
        type_oid: 0,
        type_modifier: -1,
        kind: kind.clone(),
    };
    Arc::new(Table {
        version: 1,
        schema: "public".into(),
        name: name.into(),
        key: key.into(),
        columns: Columns::Postgres(Postgres {
            database: "tt".into(),
            columns: columns.iter().map(column).collect(),
            identity: key.into(),
            is_full: false,
        }),
    })
}

/// A column of TupleData.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'a> {
    Null,
    Unchanged,
    Text(&'a str),
    Binary(&'a [u8]),
}

use Cell::{Binary, Null, Text, Unchanged};

/// TupleData as pgoutput sends it.
fn tuple(cells: &[Cell<'_>]) -> Vec<u8> {
    let mut data = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    let sized = |kind, value: &[u8], data: &mut Vec<u8>| {
        data.push(kind);
        data.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        data.extend_from_slice(value);
    };
    for cell in cells {
        match cell {
            Null => data.push(b'n'),
            Unchanged => data.push(b'u'),
            Text(text) => sized(b't', text.as_bytes(), &mut data),
            Binary(bytes) => sized(b'b', bytes, &mut data),
        }
    }
    data
}

/// What an update or a delete says of the row before.
#[derive(Debug, Clone, Copy)]
enum Before<'a> {
    /// Nothing: an insert, or an update that keeps the key.
    Nothing,
    /// `K`.
    Key(&'a [Cell<'a>]),
    /// `O`.
    Full(&'a [Cell<'a>]),
}

/// Puts batches together.
struct Maker {
    batch: Batch,
}

impl Maker {
    /// A batch with one transaction.
    fn new() -> Self {
        let mut batch = Batch::default();
        batch.transactions.push(Transaction {
            file: Span::NONE,
            offset: COMMIT.0,
            gtid: Span::NONE,
            commit_us: Some(1_795_253_701_114_918),
            thread: None,
            xid: Some(802),
            previous_commit: Some(36_529_000),
            first_event: 0,
        });
        Self { batch }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Span {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        Span::new(start..self.batch.bytes.len()).unwrap()
    }

    /// Adds a change in a group of its own, at LSN 1000 and a hundred more for each before it.
    fn row(&mut self, table: &Arc<Table>, before: Before<'_>, after: Option<&[Cell<'_>]>) {
        let tables = &mut self.batch.tables;
        let known = tables.iter().position(|known| Arc::ptr_eq(known, table));
        let number = known.unwrap_or_else(|| {
            tables.push(Arc::clone(table));
            tables.len() - 1
        });
        let operation = match (before, after) {
            (_, None) => Operation::Delete,
            (Before::Nothing, _) => Operation::Create,
            _ => Operation::Update,
        };
        let (before, before_is_key) = match before {
            Before::Nothing => (Span::NONE, false),
            Before::Key(cells) => (self.bytes(&tuple(cells)), true),
            Before::Full(cells) => (self.bytes(&tuple(cells)), false),
        };
        let after = after.map_or(Span::NONE, |cells| self.bytes(&tuple(cells)));
        let rows = self.batch.events.len() as u64;
        self.batch.groups.push(RowGroup {
            table: number as u32,
            transaction: 0,
            first_row: rows,
            offset: 0,
            timestamp_s: 0,
            server_id: 0,
            columns_before: Span::NONE,
            columns_after: Span::NONE,
            before_is_key,
            partial_json: false,
            query: Span::NONE,
        });
        self.batch.events.push(Event {
            operation,
            group: self.batch.groups.len() as u32 - 1,
            row: 0,
            before,
            after,
        });
        self.batch.lsns.push(1000 + 100 * rows);
    }

    fn create(&mut self, table: &Arc<Table>, cells: &[Cell<'_>]) {
        self.row(table, Before::Nothing, Some(cells));
    }

    /// An update, also one without an image before.
    fn update(&mut self, table: &Arc<Table>, before: Before<'_>, after: &[Cell<'_>]) {
        self.row(table, before, Some(after));
        self.batch.events.last_mut().unwrap().operation = Operation::Update;
    }

    fn truncate(&mut self, table: &Arc<Table>) {
        self.row(table, Before::Nothing, None);
        self.batch.events.last_mut().unwrap().operation = Operation::Truncate;
    }

    fn delete(&mut self, table: &Arc<Table>, before: Before<'_>) {
        self.row(table, before, None);
    }
}

fn encode_with(batch: &Batch, settings: EncodeSettings) -> Result<Vec<EncodedBatch>, EncodeError> {
    let templates = templates(batch, &settings);
    Encoder::new(Arc::new(settings)).encode(batch, &templates, None, NOW)
}

fn encode(batch: &Batch) -> Vec<Read> {
    read(&encode_with(batch, settings()).unwrap())
}

/// The only column's value of a row, as it stands in the record.
fn written(kind: &ColumnType, text: &str) -> Result<String, EncodeError> {
    let mut maker = Maker::new();
    maker.create(&table("t", &[], &[("v", kind.clone())]), &[Text(text)]);
    let records = read(&encode_with(&maker.batch, settings())?);
    let value = records[0].value.as_ref().unwrap();
    let (_, rest) = value.split_once("\"after\":{\"v\":").unwrap();
    let (value, _) = rest.split_once("},\"source\":").unwrap();
    Ok(value.to_owned())
}
