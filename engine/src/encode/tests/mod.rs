//! Tests of whole records: batches put together by hand, encoded, and read back by independent decoders (`kafka-protocol` for the
//! record batches, `serde_json` for keys and values).

mod column_types;
mod documented;
mod key_changes;
mod layout;
mod limits;
mod postgres;
mod reference;
mod round_trip;
mod truncates;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;
use protocol::Span;
use protocol::kafka::record_batch::stamp;
use protocol::mysql::charset::Charset;
use protocol::mysql::{Column, ColumnType};

use super::*;
use crate::batch::{Batch, Event, Operation, RowGroup, Transaction};
use crate::config::{Compression, EncodeSettings, Keys};
use crate::encoded::{EncodedBatch, Route};
use crate::schema::{Columns, Table};

pub(super) const UTF8: Charset = Charset { collation: 255 };

/// When the tests' batches are encoded.
pub(super) const NOW: Duration = Duration::new(1_795_253_701, 178_462_084);

pub(super) fn settings() -> EncodeSettings {
    EncodeSettings {
        source: "tmy".into(),
        connector: "mysql",
        version: "3.1.3.Final",
        keys: Keys::default(),
        compression: Compression::None,
        batch_max: 1 << 20,
        row_max: 64 << 20,
        tombstones: true,
    }
}

pub(super) fn column(name: &str, kind: ColumnType) -> Column {
    Column {
        name: name.into(),
        kind,
        nullable: true,
        visible: true,
    }
}

pub(super) fn int(name: &str) -> Column {
    column(name, ColumnType::Int { unsigned: false })
}

pub(super) fn varchar(name: &str) -> Column {
    let kind = ColumnType::VarChar {
        length_bytes: 1,
        charset: UTF8,
        compressed: false,
    };
    column(name, kind)
}

pub(super) fn table(name: &str, key: &[u16], columns: Vec<Column>) -> Arc<Table> {
    Arc::new(Table {
        version: 1,
        schema: "tt".into(),
        name: name.into(),
        key: key.into(),
        columns: Columns::MySql(columns.into()),
    })
}

pub(super) fn templates(batch: &Batch, settings: &EncodeSettings) -> Vec<Arc<Template>> {
    let template = |(n, table): (usize, &Arc<Table>)| {
        let route = Route {
            topic: format!("tmy.tt.{}", table.name).into(),
            topic_id: n as u32,
            partitions: 3,
        };
        Template::new(Arc::clone(table), route, settings).unwrap()
    };
    batch.tables.iter().enumerate().map(template).collect()
}

/// A value as it stands in a row image; `None` is NULL.
pub(super) type Stored = Option<Vec<u8>>;

pub(super) fn stored_int(value: i32) -> Stored {
    Some(value.to_le_bytes().to_vec())
}

/// Bytes behind a length of one byte.
pub(super) fn stored_text(text: impl AsRef<[u8]>) -> Stored {
    let text = text.as_ref();
    Some([&[u8::try_from(text.len()).unwrap()], text].concat())
}

/// A row image of those of `values` that are there: NULL bits, then values.
pub(super) fn image(values: &[Stored]) -> Vec<u8> {
    let mut image = vec![0; values.len().div_ceil(8)];
    for (n, value) in values.iter().enumerate() {
        match value {
            Some(bytes) => image.extend_from_slice(bytes),
            None => image[n / 8] |= 1 << (n % 8),
        }
    }
    image
}

/// A bit for each of `count` columns, set for those in `present`.
pub(super) fn bitmap(count: usize, present: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let mut bits = vec![0; count.div_ceil(8)];
    for n in present {
        bits[n / 8] |= 1 << (n % 8);
    }
    bits
}

/// Puts batches together.
pub(super) struct Maker {
    pub(super) batch: Batch,
}

impl Maker {
    /// A batch with one transaction.
    pub(super) fn new() -> Self {
        let mut batch = Batch::default();
        batch
            .text
            .extend_from_slice(b"binlog.000002a6255251-e58c-11f1-8263-02fc00000001:2709");
        batch.transactions.push(Transaction {
            file: Span { start: 0, end: 13 },
            offset: 1000,
            gtid: Span {
                start: 13,
                end: batch.text.len() as u32,
            },
            commit_us: Some(1_795_253_701_114_918),
            thread: Some(34),
            xid: None,
            previous_commit: None,
            first_event: 0,
        });
        Self { batch }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Span {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        Span::new(start..self.batch.bytes.len()).unwrap()
    }

    /// Begins a group whose images hold the columns that the bitmaps say.
    pub(super) fn group_of(
        &mut self,
        table: &Arc<Table>,
        before: &[u8],
        after: &[u8],
    ) -> &mut RowGroup {
        let number = match self
            .batch
            .tables
            .iter()
            .position(|known| Arc::ptr_eq(known, table))
        {
            Some(number) => number,
            None => {
                self.batch.tables.push(Arc::clone(table));
                self.batch.tables.len() - 1
            }
        };
        let rows = self.batch.events.len() as u64;
        let group = RowGroup {
            table: number as u32,
            transaction: self.batch.transactions.len() as u32 - 1,
            first_row: rows,
            offset: 2000 + rows,
            timestamp_s: 1_795_253_701,
            server_id: 5302,
            columns_before: self.bytes(before),
            columns_after: self.bytes(after),
            before_is_key: false,
            partial_json: false,
            query: Span::NONE,
        };
        self.batch.groups.push(group);
        self.batch.groups.last_mut().unwrap()
    }

    /// Begins a group with full images.
    pub(super) fn group(&mut self, table: &Arc<Table>) -> &mut RowGroup {
        let columns = table.columns.mysql();
        let all = bitmap(columns.len(), 0..columns.len());
        self.group_of(table, &all, &all)
    }

    /// Adds a change to the last group.
    pub(super) fn row(&mut self, before: Option<&[Stored]>, after: Option<&[Stored]>) {
        let operation = match (&before, &after) {
            (None, _) => Operation::Create,
            (_, None) => Operation::Delete,
            _ => Operation::Update,
        };
        let before = before.map_or(Span::NONE, |values| self.bytes(&image(values)));
        let after = after.map_or(Span::NONE, |values| self.bytes(&image(values)));
        let group = self.batch.groups.len() as u32 - 1;
        let row = self
            .batch
            .events
            .iter()
            .filter(|event| event.group == group)
            .count() as u32;
        self.batch.events.push(Event {
            operation,
            group,
            row,
            before,
            after,
        });
    }
}

/// A record as an independent decoder reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) topic_id: u32,
    pub(super) partition: i32,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timestamp: i64,
}

impl Read {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.value.as_deref().unwrap()).unwrap()
    }
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8(bytes.as_ref().to_vec()).unwrap()
}

pub(super) fn read(parts: &[EncodedBatch]) -> Vec<Read> {
    let mut read = Vec::new();
    for part in parts {
        let mut bytes = part.bytes.to_vec();
        stamp(&mut bytes, 7, 0, 0).unwrap();
        let set = RecordBatchDecoder::decode(&mut Bytes::from(bytes)).unwrap();
        assert_eq!(set.records.len(), part.records as usize);
        read.extend(set.records.into_iter().map(|record| {
            Read {
                topic_id: part.topic_id,
                partition: part.partition,
                key: record.key.map(text),
                value: record.value.map(text),
                headers: record
                    .headers
                    .into_iter()
                    .map(|(name, value)| (name.to_string(), text(value.unwrap())))
                    .collect(),
                timestamp: record.timestamp,
            }
        }));
    }
    read
}

pub(super) fn encode_with(
    batch: &Batch,
    settings: EncodeSettings,
) -> Result<Vec<EncodedBatch>, EncodeError> {
    let templates = templates(batch, &settings);
    Encoder::new(Arc::new(settings)).encode(batch, &templates, None, NOW)
}

pub(super) fn encode(batch: &Batch) -> Vec<Read> {
    read(&encode_with(batch, settings()).unwrap())
}
