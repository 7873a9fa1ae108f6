//! Writes one batch, record by record: values go straight into the buffer that is compressed, block by block, while it is still
//! in the cache. Nothing is allocated per record, and per batch only the output, which can be handed back.

use std::fmt;

use super::{HEADER_LEN, Header, LENGTH_END, MAGIC};
use crate::kafka::compression::{CompressionFailed, Compressor, Input};
use crate::kafka::lz4::{self, Anchor};
use crate::kafka::{Compression, varint};
use crate::limits;

/// Why a record or batch could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// The record, or with it the batch, would exceed [`limits::KAFKA_BATCH_MAX`].
    TooLarge {
        /// Bytes that it would have.
        bytes: usize,
    },
    /// The codec failed, which only a lack of memory explains.
    Compression(Compression),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => write!(
                f,
                "a record of {bytes} bytes does not fit a record batch (at most {})",
                limits::KAFKA_BATCH_MAX
            ),
            Self::Compression(codec) => write!(f, "compressing a record batch by {codec:?} failed"),
        }
    }
}

impl std::error::Error for BuildError {}

/// The headers of a record: some encoded beforehand by [`encode_header`], because many records have them, and others behind them.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordHeaders<'a> {
    /// Encoded headers, one behind the other.
    pub encoded: &'a [u8],
    /// How many those are.
    pub encoded_count: usize,
    /// The others.
    pub others: &'a [Header<'a>],
}

impl<'a> From<&'a [Header<'a>]> for RecordHeaders<'a> {
    fn from(others: &'a [Header<'a>]) -> Self {
        Self {
            others,
            ..Self::default()
        }
    }
}

/// Appends a header as it stands in a record.
#[inline]
pub fn encode_header(out: &mut Vec<u8>, header: Header<'_>) {
    write_bytes(out, Some(header.name.as_bytes()));
    write_bytes(out, header.value);
}

/// Where a builder stood: what [`Builder::rollback`] returns to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Mark {
    plain_len: usize,
    records: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Mark {
    /// Records that the batch had then.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records as u32
    }
}

/// Where in the records texts begin that most likely stood in the record before, too: LZ4 looks there first, which makes it faster.
/// Other codecs ignore them.
#[derive(Debug, Default)]
pub struct Anchors {
    /// In the order of their positions in the records that wait to be compressed.
    places: Vec<Anchor>,
    wanted: bool,
}

impl Anchors {
    /// How many kinds of texts can be told apart.
    pub const KINDS: u8 = lz4::KINDS as u8;

    /// Says that the next text written to `out` began like this at the last mark of the same `kind`, below [`Self::KINDS`]. A
    /// mark that is wrong costs some time and nothing else.
    #[inline]
    pub fn mark(&mut self, kind: u8, out: &[u8]) {
        debug_assert!(kind < Self::KINDS, "no such kind of anchor");
        if self.wanted {
            let at = out.len() as u32;
            self.places.push(Anchor { at, kind });
        }
    }

    /// Forgets those from `end` on.
    #[inline]
    fn truncate(&mut self, end: usize) {
        while (self.places.last()).is_some_and(|anchor| anchor.at as usize >= end) {
            self.places.pop();
        }
    }

    /// Forgets those before `from`, from where positions are counted now.
    fn advance(&mut self, from: usize) {
        self.places.retain_mut(|anchor| {
            let left = (anchor.at as usize).checked_sub(from);
            anchor.at = left.unwrap_or_default() as u32;
            left.is_some()
        });
    }
}

/// A batch in the making. Reusable: [`Self::finish`] leaves it empty, with its tables and contexts warm.
///
/// ```
/// use protocol::kafka::record_batch::{self, BuildError, Builder, Header};
/// use protocol::kafka::Compression;
///
/// let mut builder = Builder::new(Compression::Lz4);
/// builder.append_with(1_700_000_000_000, Some(b"{\"id\":1}"), &[Header::new("pos", b"binlog.000002:4/0")], |out| {
///     out.extend_from_slice(b"{}");
///     Ok::<_, BuildError>(())
/// })?;
/// builder.append(1_700_000_000_000, Some(b"{\"id\":1}"), None, &[])?;
/// let mut batch = builder.finish()?;
/// record_batch::stamp(&mut batch, 7, 0, 0).unwrap();
/// # Ok::<_, BuildError>(())
/// ```
pub struct Builder {
    compression: Compression,
    compressor: Compressor,
    /// The batch as it will be sent, from the header on; without compression the records go straight into it.
    out: Vec<u8>,
    /// Records that wait to be compressed.
    pending: Vec<u8>,
    /// In `pending`.
    anchors: Anchors,
    /// A [`Mark`] is out: what follows it must stay uncompressed.
    held: bool,
    records: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// Widths of the last record's length and value length: the guess for the next one.
    widths: (usize, usize),
}

impl Builder {
    /// An empty batch.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            compressor: Compressor::new(compression),
            out: Vec::new(),
            pending: Vec::new(),
            anchors: Anchors {
                places: Vec::new(),
                wanted: compression == Compression::Lz4,
            },
            held: false,
            records: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            widths: (2, 2),
        }
    }

    /// The codec that it was made with.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// Records so far.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records as u32
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// At most this many bytes [`Self::finish`] would give now: exact without compression; otherwise what is compressed so far
    /// plus the bound of the block that is still open (64 KiB; zstd: 128 KiB).
    #[must_use]
    #[inline]
    pub fn encoded_len_bound(&self) -> usize {
        self.out.len().max(HEADER_LEN) + self.compression.bound(self.pending.len())
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        let anchors = self.anchors.places.capacity() * size_of::<Anchor>();
        self.out.capacity() + self.pending.capacity() + anchors
    }

    /// Gives it a buffer for the next batch; only its capacity counts. Ignored while a batch is open.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.out.is_empty() && buffer.capacity() > self.out.capacity() {
            buffer.clear();
            self.out = buffer;
        }
    }

    /// Remembers where the batch stands, so that the records of a row which turn out not to fit can be taken back. Ends the
    /// reach of earlier marks.
    ///
    /// # Errors
    /// [`BuildError::Compression`]: full blocks are compressed here.
    #[inline]
    pub fn mark(&mut self) -> Result<Mark, BuildError> {
        self.compress_full_blocks()?;
        self.held = true;
        let plain_len = self.plain().len();
        Ok(Mark {
            plain_len,
            records: self.records,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
        })
    }

    /// Takes back every record since `mark`, which must be the latest one and of this batch.
    pub fn rollback(&mut self, mark: Mark) {
        debug_assert!(
            self.held && mark.records <= self.records,
            "the mark is of another batch"
        );
        self.plain().truncate(mark.plain_len);
        self.anchors.truncate(mark.plain_len);
        self.records = mark.records;
        self.base_timestamp = mark.base_timestamp;
        self.max_timestamp = mark.max_timestamp;
    }

    /// Appends a record whose value is at hand; `None` is a tombstone. `timestamp_ms` counts from 1970.
    ///
    /// # Errors
    /// See [`BuildError`]; the record is not in the batch then.
    #[inline]
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), BuildError> {
        match value {
            Some(value) => self.append_with(timestamp_ms, key, headers, |out| {
                out.extend_from_slice(value);
                Ok(())
            }),
            None => self.append_null(timestamp_ms, key, headers.into()),
        }
    }

    /// Appends a record whose value `write` appends to the buffer it is given, and to nothing but its end.
    ///
    /// # Errors
    /// What `write` returns, or a [`BuildError`]; the record is not in the batch then.
    #[inline]
    pub fn append_with<E: From<BuildError>>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        headers: &[Header<'_>],
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.append_prepared(timestamp_ms, key, headers.into(), |out, _| write(out))
    }

    /// The same with headers that are encoded in part and a `write` that may say where texts begin that stood in the record before.
    ///
    /// # Errors
    /// As [`Self::append_with`].
    // The lengths in front of the value are known only behind it. Room is left for as many bytes as the last record's lengths
    // took; where that proves wrong (once in thousands of records) the rest of the record is moved.
    pub fn append_prepared<E: From<BuildError>>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        headers: RecordHeaders<'_>,
        write: impl FnOnce(&mut Vec<u8>, &mut Anchors) -> Result<(), E>,
    ) -> Result<(), E> {
        self.before_record(timestamp_ms)?;
        let delta = timestamp_ms.wrapping_sub(self.base_timestamp);
        let (record_width, value_width) = self.widths;
        let offset_delta = self.records;
        let out = match self.compression {
            Compression::None => &mut self.out,
            _ => &mut self.pending,
        };
        let start = out.len();
        out.extend_from_slice(blank(record_width));
        write_prefix(out, delta, offset_delta, key);
        let value_length_at = out.len();
        out.extend_from_slice(blank(value_width));
        let value_at = out.len();
        if let Err(error) = write(out, &mut self.anchors) {
            out.truncate(start);
            self.anchors.truncate(start);
            return Err(error);
        }
        debug_assert!(out.len() >= value_at, "a value writer only appends");
        let value_len = out.len().saturating_sub(value_at);
        write_headers(out, headers);

        let value_width = settle(out, value_length_at, value_width, value_len);
        let record_len = out.len() - start - record_width;
        let record_width = settle(out, start, record_width, record_len);
        self.widths = (record_width, value_width);
        self.after_record(start, timestamp_ms).map_err(E::from)
    }

    /// Appends a record without a value.
    ///
    /// # Errors
    /// See [`BuildError`]; the record is not in the batch then.
    pub fn append_null(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        headers: RecordHeaders<'_>,
    ) -> Result<(), BuildError> {
        self.before_record(timestamp_ms)?;
        let delta = timestamp_ms.wrapping_sub(self.base_timestamp);
        let offset_delta = self.records;
        let out = self.plain();
        let start = out.len();
        // A tombstone with its key and position stays below 64 bytes or not far above.
        out.extend_from_slice(blank(1));
        write_prefix(out, delta, offset_delta, key);
        varint::write(out, -1);
        write_headers(out, headers);
        let record_len = out.len() - start - 1;
        settle(out, start, 1, record_len);
        self.after_record(start, timestamp_ms)
    }

    /// Ends the batch and returns it, complete but for producer id, epoch, sequence (all -1) and checksum (0), which
    /// [`super::stamp`] fills in. The builder is empty then.
    ///
    /// # Errors
    /// See [`BuildError`]; the batch is lost then.
    pub fn finish(&mut self) -> Result<Vec<u8>, BuildError> {
        let finished = self.finish_stream();
        let mut batch = std::mem::take(&mut self.out);
        self.pending.clear();
        self.anchors.places.clear();
        let (records, base_timestamp, max_timestamp) =
            (self.records, self.base_timestamp, self.max_timestamp);
        self.held = false;
        self.records = 0;
        finished?;
        let length = batch.len() - LENGTH_END;
        if length > limits::KAFKA_BATCH_MAX {
            return Err(BuildError::TooLarge { bytes: batch.len() });
        }
        let mut header = [0; HEADER_LEN];
        let mut at = header.as_mut_slice();
        put(&mut at, 0_i64.to_be_bytes());
        put(&mut at, (length as i32).to_be_bytes());
        // The leader's epoch is the broker's to know.
        put(&mut at, (-1_i32).to_be_bytes());
        put(&mut at, MAGIC.to_be_bytes());
        put(&mut at, 0_u32.to_be_bytes());
        put(&mut at, (self.compression as i16).to_be_bytes());
        put(&mut at, (records - 1).max(0).to_be_bytes());
        put(&mut at, base_timestamp.to_be_bytes());
        put(&mut at, max_timestamp.to_be_bytes());
        put(&mut at, (-1_i64).to_be_bytes());
        put(&mut at, (-1_i16).to_be_bytes());
        put(&mut at, (-1_i32).to_be_bytes());
        put(&mut at, records.to_be_bytes());
        if let Some(place) = batch.first_chunk_mut::<HEADER_LEN>() {
            *place = header;
        }
        Ok(batch)
    }

    /// Drops what the open batch holds and keeps the buffers.
    pub fn clear(&mut self) {
        self.out.clear();
        self.pending.clear();
        self.anchors.places.clear();
        self.held = false;
        self.records = 0;
    }

    fn finish_stream(&mut self) -> Result<(), BuildError> {
        let failed = |_: CompressionFailed| BuildError::Compression(self.compression);
        if self.out.is_empty() {
            self.out.resize(HEADER_LEN, 0);
            self.compressor.start(&mut self.out).map_err(failed)?;
        }
        if !self.pending.is_empty() {
            let all = 0..self.pending.len();
            let input = Input::new(&self.pending, all, &self.anchors.places);
            self.compressor
                .block(input, &mut self.out)
                .map_err(failed)?;
        }
        self.compressor.finish(&mut self.out).map_err(failed)
    }

    /// Where records are written.
    #[inline]
    fn plain(&mut self) -> &mut Vec<u8> {
        match self.compression {
            Compression::None => &mut self.out,
            _ => &mut self.pending,
        }
    }

    #[inline]
    fn before_record(&mut self, timestamp_ms: i64) -> Result<(), BuildError> {
        if self.out.is_empty() {
            self.start()?;
        }
        if self.records == 0 {
            self.base_timestamp = timestamp_ms;
            self.max_timestamp = timestamp_ms;
        }
        if !self.held {
            self.compress_full_blocks()?;
        }
        Ok(())
    }

    #[cold]
    fn start(&mut self) -> Result<(), BuildError> {
        self.out.resize(HEADER_LEN, 0);
        self.compressor
            .start(&mut self.out)
            .map_err(|_| BuildError::Compression(self.compression))
    }

    #[inline]
    fn after_record(&mut self, start: usize, timestamp_ms: i64) -> Result<(), BuildError> {
        let bytes = self.plain().len();
        if bytes > limits::KAFKA_BATCH_MAX || self.records == i32::MAX {
            self.plain().truncate(start);
            self.anchors.truncate(start);
            return Err(BuildError::TooLarge { bytes });
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        self.records += 1;
        Ok(())
    }

    #[inline]
    fn compress_full_blocks(&mut self) -> Result<(), BuildError> {
        if self.pending.len() < self.compression.block_len() {
            return Ok(());
        }
        self.compress_pending()
    }

    #[inline(never)]
    fn compress_pending(&mut self) -> Result<(), BuildError> {
        let block_len = self.compression.block_len();
        let whole = self.pending.len() / block_len * block_len;
        for from in (0..whole).step_by(block_len) {
            let range = from..from + block_len;
            let input = Input::new(&self.pending, range, &self.anchors.places);
            self.compressor
                .block(input, &mut self.out)
                .map_err(|_| BuildError::Compression(self.compression))?;
        }
        self.anchors.advance(whole);
        self.pending.copy_within(whole.., 0);
        self.pending.truncate(self.pending.len() - whole);
        Ok(())
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("compression", &self.compression)
            .field("records", &self.records)
            .field("encoded_len_bound", &self.encoded_len_bound())
            .finish_non_exhaustive()
    }
}

#[inline]
fn write_prefix(out: &mut Vec<u8>, timestamp_delta: i64, offset_delta: i32, key: Option<&[u8]>) {
    out.push(0);
    varint::write(out, timestamp_delta);
    varint::write(out, i64::from(offset_delta));
    write_bytes(out, key);
}

#[inline]
fn write_headers(out: &mut Vec<u8>, headers: RecordHeaders<'_>) {
    varint::write(out, (headers.encoded_count + headers.others.len()) as i64);
    out.extend_from_slice(headers.encoded);
    for header in headers.others {
        encode_header(out, *header);
    }
}

#[inline]
fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::write(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::write(out, -1),
    }
}

/// `width` bytes to be overwritten.
#[inline]
fn blank(width: usize) -> &'static [u8] {
    const BLANK: &[u8] = &[0; varint::VARLONG_MAX];
    BLANK.get(..width).unwrap_or(BLANK)
}

/// Writes `length` into the `reserved` bytes at `at`, moving what follows where it needs another width, which it returns.
#[inline]
fn settle(out: &mut Vec<u8>, at: usize, reserved: usize, length: usize) -> usize {
    let width = varint::width(length as i64);
    if width != reserved {
        move_tail(out, at + reserved, at + width);
    }
    if let Some(place) = out.get_mut(at..at + width) {
        varint::write_at(place, length as i64);
    }
    width
}

#[cold]
fn move_tail(out: &mut Vec<u8>, from: usize, to: usize) {
    let end = out.len();
    if to > from {
        out.resize(end + (to - from), 0);
        out.copy_within(from..end, to);
    } else {
        out.copy_within(from..end, to);
        out.truncate(end - (from - to));
    }
}

#[inline]
fn put<const N: usize>(at: &mut &mut [u8], bytes: [u8; N]) {
    if let Some((place, rest)) = std::mem::take(at).split_first_chunk_mut::<N>() {
        *place = bytes;
        *at = rest;
    }
}
