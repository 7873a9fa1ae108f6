//! Reads batches: bounded decompression into a buffer that is reused, records as slices of it.

use super::{BatchHeader, HEADER_LEN, verify_crc};
use crate::kafka::{Compression, compression, varint};
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// Reads batches one after the other, reusing the buffer that they are decompressed into.
#[derive(Debug, Default)]
pub struct Decoder {
    plain: Vec<u8>,
}

impl Decoder {
    /// A decoder without a buffer yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { plain: Vec::new() }
    }

    /// The header and the records of the batch at the start of `bytes`, after checking its CRC; [`BatchHeader::encoded_len`]
    /// bytes further the next one stands. `None`: the batch is not complete.
    ///
    /// # Errors
    /// A malformed header, a checksum that differs, or compressed bytes that the codec refuses or that expand beyond
    /// [`crate::limits::KAFKA_BATCH_UNCOMPRESSED_MAX`].
    pub fn decode<'a>(
        &'a mut self,
        bytes: &'a [u8],
    ) -> Result<Option<(BatchHeader, Records<'a>)>, DecodeError> {
        let Some(header) = BatchHeader::parse(bytes)? else {
            return Ok(None);
        };
        let batch = bytes.get(..header.encoded_len()).unwrap_or_default();
        verify_crc(batch)?;
        let stored = batch.get(HEADER_LEN..).unwrap_or_default();
        let plain = match header.compression() {
            Compression::None => stored,
            codec => {
                compression::decompress(codec, stored, &mut self.plain, HEADER_LEN as u64)?;
                self.plain.as_slice()
            }
        };
        let records = Records {
            cursor: Cursor::new(plain),
            left: header.records,
            header,
        };
        Ok(Some((header, records)))
    }
}

/// The records of a batch, in order. Ends with an error where fewer or more bytes are there than the count announces; offsets of
/// errors count from the first record, decompressed.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    left: i32,
    header: BatchHeader,
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its timestamp, ms since 1970.
    pub timestamp_ms: i64,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of a record: names and values, in order.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    cursor: Cursor<'a>,
    left: i32,
}

impl<'a> Record<'a> {
    /// The value of the first header of this name; `None` where there is none or it is null.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers
            .clone()
            .find(|(header, _)| *header == name.as_bytes())
            .and_then(|(_, value)| value)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            self.left = -1;
            return self.cursor.finish("records of the batch").err().map(Err);
        }
        if self.left < 0 {
            return None;
        }
        let record = self.record();
        self.left = if record.is_ok() { self.left - 1 } else { -1 };
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left.max(0) as usize + 1))
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<Record<'a>, DecodeError> {
        let length = varint::read(&mut self.cursor, "record length")?;
        let at = self.cursor.at() as u64;
        let Ok(length) = usize::try_from(length) else {
            return Err(self.cursor.invalid("record length", length as u64));
        };
        let body = self.cursor.take(length, "record")?;
        parse(body, &self.header).map_err(|error| error.shifted(at))
    }
}

fn parse<'a>(body: &'a [u8], header: &BatchHeader) -> Result<Record<'a>, DecodeError> {
    let mut c = Cursor::new(body);
    // No attribute is defined; the specification has readers ignore them.
    c.skip(1, "record attributes")?;
    let timestamp_delta = varint::read_long(&mut c, "timestamp delta")?;
    let offset_delta = varint::read(&mut c, "offset delta")?;
    let key = bytes(&mut c, "record key")?;
    let value = bytes(&mut c, "record value")?;
    let count = varint::read(&mut c, "header count")?;
    // A header takes two bytes at least.
    if count < 0 || count as usize > c.remaining() / 2 {
        return Err(c.invalid("header count", count as u64));
    }
    let headers = Headers {
        cursor: c,
        left: count,
    };
    for _ in 0..count {
        name(&mut c)?;
        bytes(&mut c, "header value")?;
    }
    c.finish("record")?;
    // Log append time: the broker's clock replaces the records' timestamps.
    let timestamp_ms = match header.attributes & 0x08 {
        0 => header.base_timestamp.wrapping_add(timestamp_delta),
        _ => header.max_timestamp,
    };
    Ok(Record {
        offset: header.base_offset.wrapping_add(i64::from(offset_delta)),
        timestamp_ms,
        key,
        value,
        headers,
    })
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        // Parsed once already, so neither fails.
        let name = name(&mut self.cursor).ok()?;
        Some((name, bytes(&mut self.cursor, "header value").ok()?))
    }
}

fn name<'a>(c: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
    let at = c.at() as u64;
    bytes(c, "header name")?.ok_or_else(|| {
        DecodeError::new(
            "header name",
            at,
            DecodeErrorKind::Invalid { value: u64::MAX },
        )
    })
}

/// A length and that many bytes; -1 is null.
fn bytes<'a>(c: &mut Cursor<'a>, what: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
    match varint::read(c, what)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) => c.take(length, what).map(Some),
            Err(_) => Err(c.invalid(what, length as u64)),
        },
    }
}
