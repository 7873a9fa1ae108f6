//! Record batches, format v2: what a producer sends, a broker keeps and a consumer gets.
//!
//! ```text
//!  at  width  field                   all integers big-endian
//!   0      8  base offset             assigned by the broker, outside of the checksum
//!   8      4  length                  of everything behind this field
//!  12      4  partition leader epoch  assigned by the broker, outside of the checksum
//!  16      1  magic                   2
//!  17      4  CRC32C                  of everything behind this field
//!  21      2  attributes              bits 0–2 compression, 3 log append time, 4 transactional, 5 control
//!  23      4  last offset delta       records - 1
//!  27      8  base timestamp          of the first record, ms since 1970
//!  35      8  max timestamp
//!  43      8  producer id             -1: none
//!  51      2  producer epoch          -1: none
//!  53      4  base sequence           -1: none
//!  57      4  records
//!  61      …  the records, together compressed
//!
//!  record: varint length · i8 attributes (0) · varlong timestamp delta · varint offset delta
//!          · varint key length (-1: null) · key · varint value length (-1: null) · value
//!          · varint headers · { varint name length · name · varint value length (-1: null) · value } …
//! ```
//!
//! [`Builder`] writes a batch record by record, compressing block by block; [`stamp`] fills in producer id, epoch, sequence and
//! checksum when it is sent. [`Decoder`] reads one back.
//!
//! Specification: <https://kafka.apache.org/documentation/#recordbatch>.

mod builder;
mod decode;
#[cfg(test)]
mod tests;

pub use builder::{Anchors, BuildError, Builder, Mark, RecordHeaders, encode_header};
pub use decode::{Decoder, Headers, Record, Records};

use crate::{Cursor, DecodeError, DecodeErrorKind, limits};

use super::Compression;

/// Bytes before the first record.
pub const HEADER_LEN: usize = 61;

/// Bytes before what the batch's length counts.
pub const LENGTH_END: usize = 12;

/// The only format since Kafka 0.11 that carries headers and producer ids.
pub const MAGIC: i8 = 2;

const CRC_AT: usize = 17;
/// Everything from here on is under the checksum.
const ATTRIBUTES_AT: usize = 21;
const PRODUCER_AT: usize = 43;
const SEQUENCE_END: usize = 57;

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header with a value.
    #[must_use]
    pub const fn new(name: &'a str, value: &'a [u8]) -> Self {
        Self {
            name,
            value: Some(value),
        }
    }
}

/// The fixed part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes behind the length field.
    pub length: i32,
    /// Epoch of the leader that assigned the offsets.
    pub partition_leader_epoch: i32,
    /// CRC32C over everything behind it.
    pub crc: u32,
    /// Compression, timestamp type, transactional, control.
    pub attributes: i16,
    /// Offset of the last record, from the first; in a compacted log it may exceed the records that are left.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, ms since 1970.
    pub base_timestamp: i64,
    /// Latest timestamp, ms since 1970.
    pub max_timestamp: i64,
    /// Who wrote it; -1: no idempotent producer.
    pub producer_id: i64,
    /// The producer's epoch; -1 without one.
    pub producer_epoch: i16,
    /// Sequence number of the first record; -1 without one.
    pub base_sequence: i32,
    /// Number of records.
    pub records: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may go on with more batches. `None`: the header or the batch that it
    /// announces is not complete, as at the end of a fetch response.
    ///
    /// # Errors
    /// Another format than v2, a length below the header's own or above [`limits::KAFKA_BATCH_MAX`], a negative count, or an
    /// unknown codec. The checksum is not looked at: [`verify_crc`].
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        if bytes.len() < HEADER_LEN {
            return Ok(None);
        }
        let mut c = Cursor::new(bytes);
        let base_offset = c.i64_be("batch base offset")?;
        let length = c.i32_be("batch length")?;
        let header = Self {
            base_offset,
            length,
            partition_leader_epoch: c.i32_be("partition leader epoch")?,
            crc: {
                let magic = c.i8("batch magic")?;
                if magic != MAGIC {
                    let kind = DecodeErrorKind::Unsupported {
                        value: magic as u64,
                    };
                    return Err(DecodeError::new("batch magic", 16, kind));
                }
                c.u32_be("batch crc")?
            },
            attributes: c.i16_be("batch attributes")?,
            last_offset_delta: c.i32_be("last offset delta")?,
            base_timestamp: c.i64_be("base timestamp")?,
            max_timestamp: c.i64_be("max timestamp")?,
            producer_id: c.i64_be("producer id")?,
            producer_epoch: c.i16_be("producer epoch")?,
            base_sequence: c.i32_be("base sequence")?,
            records: c.i32_be("record count")?,
        };
        let body = usize::try_from(length).unwrap_or(0);
        if body < HEADER_LEN - LENGTH_END {
            let kind = DecodeErrorKind::Invalid {
                value: length as u64,
            };
            return Err(DecodeError::new("batch length", 8, kind));
        }
        if body > limits::KAFKA_BATCH_MAX {
            let (length, limit) = (body as u64, limits::KAFKA_BATCH_MAX as u64);
            return Err(DecodeError::new(
                "batch length",
                8,
                DecodeErrorKind::TooLong { length, limit },
            ));
        }
        if header.records < 0 || header.last_offset_delta < 0 {
            let kind = DecodeErrorKind::Invalid {
                value: header.records as u64,
            };
            return Err(DecodeError::new("record count", 57, kind));
        }
        if Compression::of_attributes(header.attributes).is_none() {
            let kind = DecodeErrorKind::Unsupported {
                value: (header.attributes & 7) as u64,
            };
            return Err(DecodeError::new("batch compression", 21, kind));
        }
        Ok((bytes.len() >= LENGTH_END + body).then_some(header))
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        LENGTH_END + self.length as usize
    }

    /// The codec of the records.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        match Compression::of_attributes(self.attributes) {
            Some(compression) => compression,
            None => Compression::None,
        }
    }

    /// Whether it is a marker of the transaction protocol, which consumers do not see.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// Whether it belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// Offset of the record after the last one.
    #[must_use]
    pub const fn next_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(self.last_offset_delta as i64)
            .saturating_add(1)
    }
}

/// Proves that `batch`, exactly one batch, has not changed since it was stamped.
///
/// # Errors
/// Fewer bytes than a header, or a checksum that differs.
pub fn verify_crc(batch: &[u8]) -> Result<(), DecodeError> {
    let mut c = Cursor::new(batch);
    c.skip(CRC_AT, "batch header")?;
    let stored = c.u32_be("batch crc")?;
    let computed = crc32c(c.rest());
    if stored != computed {
        let kind = DecodeErrorKind::Checksum { stored, computed };
        return Err(DecodeError::new("batch crc", CRC_AT as u64, kind));
    }
    Ok(())
}

/// Fills in who sends `batch`, exactly one finished batch, and its checksum. Called once per batch and producer session; a retry
/// sends the same bytes again. Without an idempotent producer all three are -1.
///
/// # Errors
/// Fewer bytes than a header.
pub fn stamp(
    batch: &mut [u8],
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
) -> Result<(), DecodeError> {
    let missing = (HEADER_LEN as u64).saturating_sub(batch.len() as u64);
    let truncated = DecodeError::new("batch header", 0, DecodeErrorKind::Truncated { missing });
    if missing > 0 {
        return Err(truncated);
    }
    let producer = batch.get_mut(PRODUCER_AT..SEQUENCE_END).ok_or(truncated)?;
    let (id, rest) = producer.split_at_mut(8);
    let (epoch, sequence) = rest.split_at_mut(2);
    id.copy_from_slice(&producer_id.to_be_bytes());
    epoch.copy_from_slice(&producer_epoch.to_be_bytes());
    sequence.copy_from_slice(&base_sequence.to_be_bytes());
    let crc = crc32c(batch.get(ATTRIBUTES_AT..).ok_or(truncated)?);
    batch
        .get_mut(CRC_AT..ATTRIBUTES_AT)
        .ok_or(truncated)?
        .copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// CRC32C (Castagnoli) as Kafka uses it.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
