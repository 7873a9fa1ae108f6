//! Compressed events: MySQL's TRANSACTION_PAYLOAD and MariaDB's compressed QUERY and ROWS events.
//!
//! ```text
//! TRANSACTION_PAYLOAD: { type lenenc, length lenenc, value } …, type 0 ends; then the payload: whole events without checksums
//! MariaDB body:        | 0x80 | algorithm 0 (zlib) << 4 | bytes of length 1 | length, big-endian | zlib stream |
//! ```
//! Sources: `libs/mysql/binlog/event/codecs/binary.cpp`, MariaDB's `sql/log_event.cc` (`binlog_buf_uncompress`).

use std::io::{BufRead, Read};
use std::ops::Range;

use super::event::{Format, HEADER_LENGTH, Header, Kind};
use super::lenenc;
use crate::limits::MYSQL_EVENT_MAX;
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// A compressed transaction: its TABLE_MAP, ROWS, XID … events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionPayload<'a> {
    /// Whether the payload is a zstd frame; plain events otherwise.
    pub compressed: bool,
    /// Bytes of the events when expanded, as the server claims.
    pub expanded_length: u64,
    payload: &'a [u8],
    at: usize,
}

mod field {
    pub(super) const END: u64 = 0;
    pub(super) const PAYLOAD_SIZE: u64 = 1;
    pub(super) const COMPRESSION: u64 = 2;
    pub(super) const EXPANDED_SIZE: u64 = 3;
}

const ZSTD: u64 = 0;
const NONE: u64 = 255;

impl<'a> TransactionPayload<'a> {
    pub(super) fn parse(mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let (mut size, mut compression, mut expanded) = (None, None, None);
        loop {
            let kind = lenenc::integer(&mut cursor, "TRANSACTION_PAYLOAD field type")?;
            if kind == field::END {
                break;
            }
            let bytes = lenenc::string(&mut cursor, "TRANSACTION_PAYLOAD field")?;
            let at = (cursor.at() - bytes.len()) as u64;
            let mut value = Cursor::new(bytes);
            let slot = match kind {
                field::PAYLOAD_SIZE => &mut size,
                field::COMPRESSION => &mut compression,
                field::EXPANDED_SIZE => &mut expanded,
                _ => continue,
            };
            let read = lenenc::integer(&mut value, "TRANSACTION_PAYLOAD field")
                .and_then(|read| value.finish("TRANSACTION_PAYLOAD field").map(|()| read));
            *slot = Some(read.map_err(|error| error.shifted(at))?);
        }
        let at = cursor.at();
        let payload = cursor.rest();
        if size != Some(payload.len() as u64) {
            return Err(DecodeError::new(
                "TRANSACTION_PAYLOAD size",
                at as u64,
                DecodeErrorKind::Invalid {
                    value: size.unwrap_or(0),
                },
            ));
        }
        let compressed = match compression {
            Some(ZSTD) => true,
            Some(NONE) => false,
            other => {
                return Err(DecodeError::new(
                    "TRANSACTION_PAYLOAD compression",
                    at as u64,
                    DecodeErrorKind::Unsupported {
                        value: other.unwrap_or(u64::MAX),
                    },
                ));
            }
        };
        Ok(Self {
            compressed,
            expanded_length: expanded.unwrap_or(payload.len() as u64),
            payload,
            at,
        })
    }

    /// Where its (compressed) events stand, counted from the event's first byte.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.at..self.at + self.payload.len()
    }

    /// Starts reading its events. They carry no checksums ([`Format::without_checksum`]); the outer event's covers them.
    ///
    /// # Errors
    /// The decompressor cannot be set up.
    pub fn events(&self) -> Result<PayloadEvents<&'a [u8]>, DecodeError> {
        PayloadEvents::new(self.compressed, self.payload, self.at as u64)
    }
}

enum PayloadSource<R: BufRead> {
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
    Plain(R),
}

/// Expands a transaction's events a bounded piece at a time.
pub struct PayloadEvents<R: BufRead> {
    source: PayloadSource<R>,
    at: u64,
    expanded: u64,
    large: Option<Large>,
}

/// An event that is taken in pieces.
struct Large {
    header: Header,
    /// The header's bytes, until they are taken.
    head: Option<[u8; HEADER_LENGTH]>,
    /// Bytes behind the header that are still to come.
    left: usize,
}

fn corrupt(at: u64, expanded: u64) -> DecodeError {
    DecodeError::new(
        "TRANSACTION_PAYLOAD zstd stream",
        at,
        DecodeErrorKind::Invalid { value: expanded },
    )
}

impl<R: BufRead> PayloadEvents<R> {
    /// Reads events out of `payload`, which stands at `at` in its event: for readers that own the bytes. See
    /// [`TransactionPayload::events`].
    ///
    /// # Errors
    /// The decompressor cannot be set up.
    pub fn new(compressed: bool, payload: R, at: u64) -> Result<Self, DecodeError> {
        let source = if compressed {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(payload).map_err(|_| corrupt(at, 0))?;
            PayloadSource::Zstd(Box::new(decoder.single_frame()))
        } else {
            PayloadSource::Plain(payload)
        };
        Ok(Self {
            source,
            at,
            expanded: 0,
            large: None,
        })
    }

    /// Appends whole events to `out` until at least `budget` bytes were added or none is left, and says how many bytes it added;
    /// 0 at the end. One event larger than `budget` still comes whole, up to `event_max`.
    ///
    /// Memory follows the bytes that really come out of the decompressor, not the lengths that they claim.
    ///
    /// # Errors
    /// A corrupt stream, an event cut off, an event longer than `event_max`. What was appended before stays.
    pub fn read_into(
        &mut self,
        out: &mut Vec<u8>,
        budget: usize,
        event_max: usize,
    ) -> Result<usize, DecodeError> {
        let read = self.read_up_to_large(out, budget, event_max)?;
        match self.large() {
            None => Ok(read),
            Some(header) => Err(DecodeError::new(
                "TRANSACTION_PAYLOAD event length",
                self.at,
                DecodeErrorKind::TooLong {
                    length: header.length.into(),
                    limit: event_max as u64,
                },
            )),
        }
    }

    /// The same, but stops before an event longer than `event_max`, which [`PayloadEvents::large`] then names: 0 comes there, too.
    ///
    /// # Errors
    /// A corrupt stream, or an event cut off. What was appended before stays.
    pub fn read_up_to_large(
        &mut self,
        out: &mut Vec<u8>,
        budget: usize,
        event_max: usize,
    ) -> Result<usize, DecodeError> {
        let start = out.len();
        while self.large.is_none() && out.len() - start < budget {
            let event_at = out.len();
            let got = self.read_up_to(out, HEADER_LENGTH)?;
            if got == 0 {
                break;
            }
            let head = out.get(event_at..).ok_or_else(|| self.corrupt())?;
            let header = Header::parse(head).map_err(|error| DecodeError {
                at: self.at,
                ..error
            })?;
            let length = header.length as usize;
            let body = length - HEADER_LENGTH;
            if length > event_max.min(MYSQL_EVENT_MAX) {
                self.large = Some(Large {
                    header,
                    head: head.first_chunk().copied(),
                    left: body,
                });
                out.truncate(event_at);
                break;
            }
            let got = self.read_up_to(out, body)?;
            if got < body {
                return Err(self.cut_off(&header, body - got));
            }
        }
        Ok(out.len() - start)
    }

    /// The event that comes next where it is longer than [`PayloadEvents::read_up_to_large`] was to take: it has to be had by
    /// [`PayloadEvents::read_piece`].
    #[must_use]
    pub fn large(&self) -> Option<&Header> {
        self.large.as_ref().map(|large| &large.header)
    }

    /// Appends at most about `budget` bytes of the large event, from its header on, and says how many; 0 once all of it was had.
    ///
    /// # Errors
    /// A corrupt stream, or the event is cut off.
    pub fn read_piece(&mut self, out: &mut Vec<u8>, budget: usize) -> Result<usize, DecodeError> {
        let start = out.len();
        let Some(large) = &mut self.large else {
            return Ok(0);
        };
        out.extend(large.head.take().into_iter().flatten());
        let (header, left) = (large.header, large.left);
        let wanted = left.min(budget);
        let got = self.read_up_to(out, wanted)?;
        if got < wanted {
            return Err(self.cut_off(&header, left - got));
        }
        match (&mut self.large, out.len() - start) {
            (large, 0) => *large = None,
            (Some(large), _) => large.left -= got,
            (None, _) => {}
        }
        Ok(out.len() - start)
    }

    #[cold]
    fn cut_off(&self, header: &Header, missing: usize) -> DecodeError {
        let missing = missing as u64;
        let kind = DecodeErrorKind::Truncated { missing };
        DecodeError::new(header.kind.name(), self.at, kind)
    }

    fn read_up_to(&mut self, out: &mut Vec<u8>, length: usize) -> Result<usize, DecodeError> {
        let limit = length as u64;
        let read = match &mut self.source {
            PayloadSource::Zstd(decoder) => decoder.by_ref().take(limit).read_to_end(out),
            PayloadSource::Plain(bytes) => bytes.take(limit).read_to_end(out),
        };
        let read = read.map_err(|_| self.corrupt())?;
        self.expanded += read as u64;
        Ok(read)
    }

    /// Bytes expanded so far.
    #[must_use]
    pub const fn expanded(&self) -> u64 {
        self.expanded
    }

    #[cold]
    fn corrupt(&self) -> DecodeError {
        corrupt(self.at, self.expanded)
    }
}

impl<R: BufRead> std::fmt::Debug for PayloadEvents<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayloadEvents")
            .field("expanded", &self.expanded)
            .finish_non_exhaustive()
    }
}

/// A MariaDB event whose tail is compressed (`log_bin_compress`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed<'a> {
    /// The header as sent; [`Compressed::expand`] writes one with the plain kind and length.
    pub header: Header,
    /// The kind that it is once expanded.
    pub kind: Kind,
    /// Bytes that it claims to have when expanded, header included.
    pub expanded_length: usize,
    plain: &'a [u8],
    stream: &'a [u8],
    stream_at: usize,
}

impl<'a> Compressed<'a> {
    /// `event` is the whole event without its checksum.
    pub(super) fn parse(
        format: &Format,
        header: Header,
        event: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(event);
        cursor.skip(HEADER_LENGTH, "compressed event header")?;
        let post_header = format.post_header_length(header.kind);
        let kind = if header.kind == Kind::QUERY_COMPRESSED {
            let fixed = cursor.take(post_header, "QUERY_COMPRESSED post-header")?;
            let mut fixed = Cursor::new(fixed);
            fixed.skip(8, "QUERY_COMPRESSED post-header")?;
            let database = usize::from(fixed.u8("QUERY_COMPRESSED database length")?);
            fixed.skip(2, "QUERY_COMPRESSED error code")?;
            let status = usize::from(fixed.u16_le("QUERY_COMPRESSED status length")?);
            cursor.skip(status, "QUERY_COMPRESSED status variables")?;
            cursor.skip(database + 1, "QUERY_COMPRESSED database")?;
            Kind::QUERY
        } else {
            cursor.skip(
                if post_header == 6 { 4 } else { 6 },
                "compressed ROWS table id",
            )?;
            cursor.skip(2, "compressed ROWS flags")?;
            if post_header == 10 {
                let extra = usize::from(cursor.u16_le("compressed ROWS extra data length")?);
                let Some(extra) = extra.checked_sub(2) else {
                    return Err(cursor.invalid("compressed ROWS extra data length", extra as u64));
                };
                cursor.skip(extra, "compressed ROWS extra data")?;
            }
            let columns = lenenc::integer(&mut cursor, "compressed ROWS column count")?;
            let bitmap = usize::try_from(columns.div_ceil(8)).unwrap_or(usize::MAX);
            cursor.skip(bitmap, "compressed ROWS columns")?;
            let update = matches!(
                header.kind,
                Kind::UPDATE_ROWS_COMPRESSED | Kind::UPDATE_ROWS_COMPRESSED_V1
            );
            if update {
                cursor.skip(bitmap, "compressed ROWS columns")?;
            }
            plain_kind(header.kind)
        };
        let plain = event.get(..cursor.at()).unwrap_or_default();
        let first = cursor.u8("compressed event algorithm")?;
        // 0x80, three bits of algorithm (0 is zlib, the only one), three of length.
        if first & 0xf0 != 0x80 {
            return Err(DecodeError::new(
                "compressed event algorithm",
                cursor.at() as u64 - 1,
                DecodeErrorKind::Unsupported {
                    value: u64::from(first),
                },
            ));
        }
        let length = match first & 0x07 {
            width @ 1..=4 => cursor.uint_be(usize::from(width), "compressed event length")?,
            width => return Err(cursor.invalid("compressed event length", u64::from(width))),
        };
        let expanded_length = plain.len() as u64 + length;
        if expanded_length > MYSQL_EVENT_MAX as u64 {
            return Err(DecodeError::new(
                "compressed event length",
                cursor.at() as u64,
                DecodeErrorKind::TooLong {
                    length: expanded_length,
                    limit: MYSQL_EVENT_MAX as u64,
                },
            ));
        }
        Ok(Self {
            header,
            kind,
            expanded_length: expanded_length as usize,
            plain,
            stream_at: cursor.at(),
            stream: cursor.rest(),
        })
    }

    /// Where the zlib stream stands in the event.
    pub(super) const fn stream_at(&self) -> usize {
        self.stream_at
    }

    /// Bytes that the stream claims to have when expanded.
    pub(super) const fn body_length(&self) -> usize {
        self.expanded_length - self.plain.len()
    }

    /// Appends the plain event, without checksum, to `out`: parse it with [`Format::without_checksum`].
    ///
    /// # Errors
    /// The stream is corrupt, or does not hold as many bytes as the event claims. `out` is as before then.
    pub fn expand(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let start = out.len();
        let length = self.expanded_length as u32;
        let mut header = [0_u8; HEADER_LENGTH];
        for (to, from) in header.iter_mut().zip(
            self.header
                .timestamp_s
                .to_le_bytes()
                .into_iter()
                .chain([self.kind.0])
                .chain(self.header.server_id.to_le_bytes())
                .chain(length.to_le_bytes())
                .chain(self.header.next_position.to_le_bytes())
                .chain(self.header.flags.to_le_bytes()),
        ) {
            *to = from;
        }
        out.extend_from_slice(&header);
        out.extend_from_slice(self.plain.get(HEADER_LENGTH..).unwrap_or_default());
        let body = self.body_length();
        // One byte more than claimed would show that the claim is wrong.
        let read = flate2::read::ZlibDecoder::new(self.stream)
            .take(body as u64 + 1)
            .read_to_end(out);
        match read {
            Ok(read) if read == body => Ok(()),
            other => {
                out.truncate(start);
                Err(DecodeError::new(
                    self.header.kind.name(),
                    self.plain.len() as u64,
                    DecodeErrorKind::Invalid {
                        value: other.unwrap_or(0) as u64,
                    },
                ))
            }
        }
    }
}

/// The kind that a compressed one is once expanded; any other is itself.
pub(super) const fn plain_kind(compressed: Kind) -> Kind {
    match compressed {
        Kind::WRITE_ROWS_COMPRESSED_V1 => Kind::WRITE_ROWS_V1,
        Kind::UPDATE_ROWS_COMPRESSED_V1 => Kind::UPDATE_ROWS_V1,
        Kind::DELETE_ROWS_COMPRESSED_V1 => Kind::DELETE_ROWS_V1,
        Kind::WRITE_ROWS_COMPRESSED => Kind::WRITE_ROWS,
        Kind::UPDATE_ROWS_COMPRESSED => Kind::UPDATE_ROWS,
        Kind::DELETE_ROWS_COMPRESSED => Kind::DELETE_ROWS,
        other => other,
    }
}
