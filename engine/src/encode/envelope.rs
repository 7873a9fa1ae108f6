//! The envelope around the row images, and the headers: everything that rows of one group share, written once per group.
//!
//! ```text
//! {"before":ROW|null,"after":ROW|null                 per row
//!   ,"source":{"version":…,"connector":…,"name":…,    per table, transaction and group, with gaps for what the row alone knows
//!     …},"transaction":null,"op":"                    (mysql/envelope.rs, postgres/envelope.rs)
//!     c                                               per row
//!     ","ts_ms":N,"ts_us":N,"ts_ns":N}                per batch
//! ```
//! The order of the fields is Debezium 3.1.3's.

use std::time::Duration;

use protocol::Span;
use protocol::kafka::record_batch::{Header, RecordHeaders, encode_header};

use super::error::EncodeErrorKind;
use super::number::{write_int, write_uint};

/// The prepared parts of the present group.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// From `,"source":{` to the first gap.
    pub(super) source: Vec<u8>,
    /// From the last gap to the end, with a byte for the operation at `op_at`.
    tail: Vec<u8>,
    op_at: usize,
    /// `","ts_ms":…}`
    times: Vec<u8>,
    /// The transaction's place and a slash, and a row's number behind it: the value of the header `pos`.
    position: Vec<u8>,
    position_len: usize,
    /// The header `gtid`, encoded; empty without GTIDs.
    gtid_header: Vec<u8>,
    /// The headers of every record of the present row, encoded.
    headers: Vec<u8>,
    file: String,
    offset: u64,
    /// Empty without GTIDs.
    gtid: String,
    row: u64,
    /// What is prepared: transaction, table, server and statement.
    prepared: Option<(u32, u32, u32, Span)>,
    /// `unchanged` of records that show the before image, and of those that show the after image.
    pub(super) unchanged_before: Vec<u8>,
    pub(super) unchanged_after: Vec<u8>,
}

/// What [`Envelope::place`] says of the present row.
pub(super) type Place<'a> = (&'a str, u64, Option<&'a str>, u64);

impl Envelope {
    /// Begins a batch that is encoded at `now`, since 1970.
    pub(super) fn start(&mut self, now: Duration) {
        self.prepared = None;
        self.times.clear();
        self.times.extend_from_slice(b"\",\"ts_ms\":");
        write_times(&mut self.times, now.as_nanos(), b"");
        self.times.push(b'}');
    }

    /// Whether other things have to be prepared than those that are. They count as prepared from then on.
    pub(super) fn is_new(
        &mut self,
        transaction: u32,
        table: u32,
        server: u32,
        query: Span,
    ) -> bool {
        let wanted = Some((transaction, table, server, query));
        let is_new = self.prepared != wanted;
        self.prepared = wanted;
        is_new
    }

    /// What failed is not prepared.
    #[cold]
    pub(super) fn forget(&mut self) {
        self.prepared = None;
    }

    /// Sets the end: `last`, which ends the source block, and what every envelope has behind it.
    pub(super) fn set_tail(&mut self, write_last: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut self.tail;
        out.clear();
        write_last(out);
        out.extend_from_slice(b"},\"transaction\":null,\"op\":\"");
        self.op_at = out.len();
        out.push(b'?');
        out.extend_from_slice(&self.times);
    }

    /// Sets the place of the transaction, `position` being its text in the header `pos`.
    pub(super) fn set_place(
        &mut self,
        file: &str,
        offset: u64,
        gtid: Option<&str>,
        position: std::fmt::Arguments<'_>,
    ) {
        use std::io::Write as _;
        self.position.clear();
        // Writing to a vector does not fail.
        let _ = self.position.write_fmt(position);
        self.position.push(b'/');
        self.position_len = self.position.len();
        self.gtid.clear();
        self.gtid.push_str(gtid.unwrap_or_default());
        self.gtid_header.clear();
        if !self.gtid.is_empty() {
            encode_header(
                &mut self.gtid_header,
                Header::new("gtid", self.gtid.as_bytes()),
            );
        }
        self.file.clear();
        self.file.push_str(file);
        self.offset = offset;
    }

    /// Turns to the transaction's `row`th row: `pos` is `file:offset/row`, PostgreSQL's `commit LSN/row`.
    #[inline]
    pub(super) fn turn_to(&mut self, row: u64) {
        self.position.truncate(self.position_len);
        write_uint(&mut self.position, row);
        self.row = row;
        self.headers.clear();
        encode_header(&mut self.headers, Header::new("pos", &self.position));
        self.headers.extend_from_slice(&self.gtid_header);
    }

    /// File and offset of the transaction (see [`crate::batch::Transaction`]), its GTID, and the present row's number in it.
    pub(super) fn place(&self) -> Place<'_> {
        let gtid = (!self.gtid.is_empty()).then_some(&*self.gtid);
        (&self.file, self.offset, gtid, self.row)
    }

    /// The headers of a record of the present row, `others` behind those that every record has.
    #[inline]
    pub(super) fn headers<'a>(&'a self, others: &'a [Header<'a>]) -> RecordHeaders<'a> {
        RecordHeaders {
            encoded: &self.headers,
            encoded_count: 1 + usize::from(!self.gtid_header.is_empty()),
            others,
        }
    }

    /// Appends the end.
    #[inline]
    pub(super) fn write_tail(&self, out: &mut Vec<u8>, operation: u8) {
        let op = out.len() + self.op_at;
        out.extend_from_slice(&self.tail);
        if let Some(place) = out.get_mut(op) {
            *place = operation;
        }
    }
}

/// The text in `of` that `span` names.
pub(super) fn text<'a>(
    span: Span,
    of: &'a [u8],
    what: &'static str,
) -> Result<&'a str, EncodeErrorKind> {
    span.of(of)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(EncodeErrorKind::Batch(what))
}

/// `MS` `between` `,"ts_us":US,"ts_ns":NS`.
pub(super) fn write_times(out: &mut Vec<u8>, nanos: u128, between: &[u8]) {
    write_wide(out, nanos / 1_000_000);
    out.extend_from_slice(between);
    write_fine_times(out, nanos);
}

/// `,"ts_us":US,"ts_ns":NS`.
pub(super) fn write_fine_times(out: &mut Vec<u8>, nanos: u128) {
    out.extend_from_slice(b",\"ts_us\":");
    write_wide(out, nanos / 1_000);
    out.extend_from_slice(b",\"ts_ns\":");
    write_wide(out, nanos);
}

fn write_wide(out: &mut Vec<u8>, nanos: u128) {
    write_int(out, i64::try_from(nanos).unwrap_or(i64::MAX));
}
