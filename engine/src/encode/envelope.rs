//! The envelope around the row images, and the headers: everything that rows of one group share, written once per group.
//!
//! ```text
//! {"before":ROW|null,"after":ROW|null                                                              per row
//!   ,"source":{"version":…,"connector":…,"name":…,"ts_ms":N,"snapshot":"false","db":…,             per table and transaction
//!     "sequence":null,"ts_us":N,"ts_ns":N,"table":…,"server_id":N,"gtid":…,"file":…,"pos":         per table and transaction
//!     N,"row":                                                                                     per group
//!     N                                                                                            per row
//!     ,"thread":N,"query":…},"transaction":null,"op":"                                             per transaction
//!     c                                                                                            per row
//!     ","ts_ms":N,"ts_us":N,"ts_ns":N}                                                             per batch
//! ```
//! The order of the fields is Debezium 3.1.3's.

use std::time::Duration;

use crate::batch::{Batch, RowGroup, Transaction};
use protocol::Span;

use super::error::EncodeErrorKind;
use super::number::{write_int, write_uint};
use super::template::Template;
use super::text::write_string;

/// The prepared parts of the present group.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// From `,"source":{` to `"row":`.
    source: Vec<u8>,
    /// Length of `source` up to and with `"pos":`.
    before_pos: usize,
    /// From `,"thread":` to the end, with a byte for the operation at `op_at`.
    tail: Vec<u8>,
    op_at: usize,
    /// `","ts_ms":…}`
    times: Vec<u8>,
    /// `file:offset/`, and a row's number behind it.
    position: Vec<u8>,
    position_len: usize,
    file: String,
    offset: u64,
    /// Empty without GTIDs.
    gtid: String,
    row: u64,
    /// What is prepared: transaction, table, server and statement.
    prepared: Option<(u32, u32, u32, Span)>,
}

impl Envelope {
    /// Begins a batch that is encoded at `now`, since 1970.
    pub(super) fn start(&mut self, now: Duration) {
        self.prepared = None;
        self.times.clear();
        write_times(&mut self.times, b"\",\"ts_ms\":", now.as_nanos());
        self.times.push(b'}');
    }

    /// Prepares for the rows of `group`.
    pub(super) fn prepare(
        &mut self,
        batch: &Batch,
        group: &RowGroup,
        template: &Template,
    ) -> Result<(), EncodeErrorKind> {
        let wanted = (group.transaction, group.table, group.server_id, group.query);
        if self.prepared != Some(wanted) {
            let transaction = batch
                .transactions
                .get(group.transaction as usize)
                .ok_or(EncodeErrorKind::Batch("a group without its transaction"))?;
            self.prepare_transaction(batch, group, transaction, template)?;
            self.prepared = Some(wanted);
        }
        self.source.truncate(self.before_pos);
        write_uint(&mut self.source, group.offset);
        self.source.extend_from_slice(b",\"row\":");
        Ok(())
    }

    fn prepare_transaction(
        &mut self,
        batch: &Batch,
        group: &RowGroup,
        transaction: &Transaction,
        template: &Template,
    ) -> Result<(), EncodeErrorKind> {
        let file = text(
            transaction.file,
            &batch.text,
            "a transaction's file name is not in its text",
        )?;
        let gtid = match transaction.gtid {
            Span::NONE => None,
            span => Some(text(
                span,
                &batch.text,
                "a transaction's GTID is not in its text",
            )?),
        };
        let nanos = match transaction.commit_us {
            Some(micros) => u128::from(micros) * 1_000,
            None => u128::from(group.timestamp_s) * 1_000_000_000,
        };

        let out = &mut self.source;
        out.clear();
        out.extend_from_slice(&template.source_head);
        write_wide(out, nanos / 1_000_000);
        out.extend_from_slice(&template.source_database);
        write_wide(out, nanos / 1_000);
        out.extend_from_slice(b",\"ts_ns\":");
        write_wide(out, nanos);
        out.extend_from_slice(&template.source_table);
        write_uint(out, group.server_id.into());
        out.extend_from_slice(b",\"gtid\":");
        write_optional(out, gtid);
        out.extend_from_slice(b",\"file\":");
        write_string(out, file);
        out.extend_from_slice(b",\"pos\":");
        self.before_pos = out.len();

        let out = &mut self.tail;
        out.clear();
        out.extend_from_slice(b",\"thread\":");
        match transaction.thread {
            Some(thread) => write_uint(out, thread.into()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"query\":");
        // A statement is in the session's character set, which the event does not name; nearly always it is UTF-8.
        match group.query.of(&batch.bytes) {
            Some(query) => write_string(out, &String::from_utf8_lossy(query)),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"},\"transaction\":null,\"op\":\"");
        self.op_at = out.len();
        out.push(b'?');
        out.extend_from_slice(&self.times);

        let out = &mut self.position;
        out.clear();
        out.extend_from_slice(file.as_bytes());
        out.push(b':');
        write_uint(out, transaction.offset);
        out.push(b'/');
        self.position_len = out.len();
        self.gtid.clear();
        self.gtid.push_str(gtid.unwrap_or_default());
        self.file.clear();
        self.file.push_str(file);
        self.offset = transaction.offset;
        Ok(())
    }

    /// Names the transaction's `row`th row in [`Self::position`].
    #[inline]
    pub(super) fn turn_to(&mut self, row: u64) {
        self.position.truncate(self.position_len);
        write_uint(&mut self.position, row);
        self.row = row;
    }

    /// File and offset of the transaction's first event, its GTID, and the present row's number in it.
    pub(super) fn place(&self) -> (&str, u64, Option<&str>, u64) {
        let gtid = (!self.gtid.is_empty()).then_some(&*self.gtid);
        (&self.file, self.offset, gtid, self.row)
    }

    /// The `pos` header of the present row: `file:offset/row`.
    #[inline]
    pub(super) fn position(&self) -> &[u8] {
        &self.position
    }

    /// The `gtid` header.
    #[inline]
    pub(super) fn gtid(&self) -> Option<&[u8]> {
        (!self.gtid.is_empty()).then_some(self.gtid.as_bytes())
    }

    /// Appends everything behind the row images; `row` counts within the group.
    #[inline]
    pub(super) fn write_end(&self, out: &mut Vec<u8>, row: u32, operation: u8) {
        out.extend_from_slice(&self.source);
        write_uint(out, row.into());
        let op = out.len() + self.op_at;
        out.extend_from_slice(&self.tail);
        if let Some(place) = out.get_mut(op) {
            *place = operation;
        }
    }
}

fn text<'a>(span: Span, of: &'a [u8], what: &'static str) -> Result<&'a str, EncodeErrorKind> {
    span.of(of)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(EncodeErrorKind::Batch(what))
}

/// `MS,"ts_us":US,"ts_ns":NS` behind `name`.
fn write_times(out: &mut Vec<u8>, name: &[u8], nanos: u128) {
    out.extend_from_slice(name);
    write_wide(out, nanos / 1_000_000);
    out.extend_from_slice(b",\"ts_us\":");
    write_wide(out, nanos / 1_000);
    out.extend_from_slice(b",\"ts_ns\":");
    write_wide(out, nanos);
}

fn write_wide(out: &mut Vec<u8>, nanos: u128) {
    write_int(out, i64::try_from(nanos).unwrap_or(i64::MAX));
}

fn write_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}
