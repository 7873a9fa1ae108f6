//! A column's value as it stands in a row image: numbers decoded, everything of variable length borrowed.

use super::column::ColumnType;
use super::decimal::Decimal;
use super::temporal::{
    Date, DateTime, Time, Timestamp, fraction_bytes, old_date_time_bytes, old_time_bytes,
    old_timestamp_bytes,
};
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// A value that is not NULL. Which [`ColumnType`] yields which variant is said at each variant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Signed TINYINT to BIGINT.
    Int(i64),
    /// Unsigned TINYINT to BIGINT.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL.
    Decimal(Decimal<'a>),
    /// YEAR: 0 or 1901 to 2155.
    Year(u16),
    /// BIT(n), most significant byte first, `(n + 7) / 8` bytes.
    Bit(&'a [u8]),
    /// DATE.
    Date(Date),
    /// TIME.
    Time(Time),
    /// DATETIME.
    DateTime(DateTime),
    /// TIMESTAMP.
    Timestamp(Timestamp),
    /// CHAR, VARCHAR, TEXT: bytes in the column's character set.
    Text(&'a [u8]),
    /// BINARY (not yet padded to its width), VARBINARY, BLOB.
    Bytes(&'a [u8]),
    /// A value of a MariaDB `COMPRESSED` column: [`super::column_compression::inflate`] gives its bytes.
    Compressed(&'a [u8]),
    /// ENUM: index from 1, 0 for the empty error value.
    Enum(u16),
    /// SET: a bit per label.
    Set(u64),
    /// JSON, binary form: [`super::json::write_text`] gives its text.
    Json(&'a [u8]),
    /// The diffs of a partial JSON update, to be applied to the before image's value.
    JsonDiffs(&'a [u8]),
    /// GEOMETRY: SRID (4 bytes, little-endian), then WKB.
    Geometry(&'a [u8]),
    /// VECTOR: 32-bit floats, little-endian.
    Vector(&'a [u8]),
    /// MariaDB UUID, trailing zero bytes cut.
    Uuid(&'a [u8]),
    /// MariaDB INET4, trailing zero bytes cut.
    Inet4(&'a [u8]),
    /// MariaDB INET6, trailing zero bytes cut.
    Inet6(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads one value that is not NULL.
    ///
    /// # Errors
    /// Truncated input, or a number that its type does not allow.
    #[inline(always)]
    pub fn read(kind: &ColumnType, cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Self::read_with(kind, cursor, |value| value)
    }

    /// Reads one value that is not NULL and gives it to `take`.
    ///
    /// For the usual types `take` is compiled once per type, where the variant is known: a value that is handed on as a [`Value`] goes
    /// through memory in pieces of other sizes than it is read in, which stalls the processor for longer than all the rest takes.
    ///
    /// # Errors
    /// As [`Value::read`]; `take` is not called then.
    #[inline(always)]
    pub fn read_with<R>(
        kind: &ColumnType,
        cursor: &mut Cursor<'a>,
        take: impl FnOnce(Self) -> R,
    ) -> Result<R, DecodeError> {
        Ok(match *kind {
            ColumnType::BigInt { unsigned: false } => take(Self::Int(cursor.i64_le("BIGINT")?)),
            ColumnType::BigInt { unsigned: true } => take(Self::UInt(cursor.u64_le("BIGINT")?)),
            ColumnType::Int { unsigned: false } => {
                take(Self::Int(i64::from(cursor.i32_le("INT")?)))
            }
            ColumnType::Int { unsigned: true } => {
                take(Self::UInt(u64::from(cursor.u32_le("INT")?)))
            }
            ColumnType::VarChar {
                length_bytes,
                compressed: false,
                ..
            } => take(Self::Text(prefixed(cursor, length_bytes, "VARCHAR")?)),
            ColumnType::Text {
                length_bytes,
                compressed: false,
                ..
            } => take(Self::Text(prefixed(cursor, length_bytes, "TEXT")?)),
            ColumnType::Char { length_bytes, .. } => {
                take(Self::Text(prefixed(cursor, length_bytes, "CHAR")?))
            }
            ColumnType::Timestamp { fsp, old: false } => {
                take(Self::Timestamp(Timestamp::read(cursor, fsp)?))
            }
            ColumnType::DateTime { fsp, old: false } => {
                take(Self::DateTime(DateTime::read(cursor, fsp)?))
            }
            ColumnType::Time { fsp, old: false } => take(Self::Time(Time::read(cursor, fsp)?)),
            ColumnType::Date => take(Self::Date(Date::read(cursor)?)),
            ColumnType::Decimal { precision, scale } => take(Self::Decimal(Decimal {
                bytes: cursor.take(Decimal::packed_length(precision, scale), "DECIMAL")?,
                precision,
                scale,
            })),
            ColumnType::TinyInt { unsigned: false } => {
                take(Self::Int(i64::from(cursor.i8("TINYINT")?)))
            }
            ColumnType::TinyInt { unsigned: true } => {
                take(Self::UInt(u64::from(cursor.u8("TINYINT")?)))
            }
            ColumnType::SmallInt { unsigned: false } => {
                take(Self::Int(i64::from(cursor.i16_le("SMALLINT")?)))
            }
            ColumnType::SmallInt { unsigned: true } => {
                take(Self::UInt(u64::from(cursor.u16_le("SMALLINT")?)))
            }
            ColumnType::Double => take(Self::Double(f64::from_le_bytes(*cursor.chunk("DOUBLE")?))),
            ColumnType::Json { length_bytes } => {
                take(Self::Json(prefixed(cursor, length_bytes, "JSON")?))
            }
            _ => take(Self::read_rarer(kind, cursor)?),
        })
    }

    #[inline(never)]
    fn read_rarer(kind: &ColumnType, cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(match *kind {
            ColumnType::MediumInt { unsigned: false } => {
                Self::Int(i64::from((cursor.u24_le("MEDIUMINT")? as i32) << 8 >> 8))
            }
            ColumnType::MediumInt { unsigned: true } => {
                Self::UInt(u64::from(cursor.u24_le("MEDIUMINT")?))
            }
            ColumnType::Float => Self::Float(f32::from_le_bytes(*cursor.chunk("FLOAT")?)),
            ColumnType::Year => match cursor.u8("YEAR")? {
                0 => Self::Year(0),
                since => Self::Year(1900 + u16::from(since)),
            },
            ColumnType::Bit { bits } => {
                Self::Bit(cursor.take(usize::from(bits).div_ceil(8), "BIT")?)
            }
            ColumnType::Time { fsp, .. } => Self::Time(Time::read_old(cursor, fsp)?),
            ColumnType::DateTime { fsp, .. } => Self::DateTime(DateTime::read_old(cursor, fsp)?),
            ColumnType::Timestamp { fsp, .. } => Self::Timestamp(Timestamp::read_old(cursor, fsp)?),
            ColumnType::VarChar { length_bytes, .. } => {
                Self::Compressed(prefixed(cursor, length_bytes, "VARCHAR")?)
            }
            ColumnType::Text { length_bytes, .. } => {
                Self::Compressed(prefixed(cursor, length_bytes, "TEXT")?)
            }
            ColumnType::Binary { length_bytes, .. } => {
                Self::Bytes(prefixed(cursor, length_bytes, "BINARY")?)
            }
            ColumnType::VarBinary {
                length_bytes,
                compressed,
            } => {
                let bytes = prefixed(cursor, length_bytes, "VARBINARY")?;
                if compressed {
                    Self::Compressed(bytes)
                } else {
                    Self::Bytes(bytes)
                }
            }
            ColumnType::Blob {
                length_bytes,
                compressed,
            } => {
                let bytes = prefixed(cursor, length_bytes, "BLOB")?;
                if compressed {
                    Self::Compressed(bytes)
                } else {
                    Self::Bytes(bytes)
                }
            }
            ColumnType::Enum { width, .. } => {
                Self::Enum(cursor.uint_le(usize::from(width.min(2)), "ENUM")? as u16)
            }
            ColumnType::Set { width, .. } => Self::Set(cursor.uint_le(usize::from(width), "SET")?),
            ColumnType::Geometry { length_bytes, .. } => {
                Self::Geometry(prefixed(cursor, length_bytes, "GEOMETRY")?)
            }
            ColumnType::Vector { length_bytes } => {
                Self::Vector(prefixed(cursor, length_bytes, "VECTOR")?)
            }
            ColumnType::Uuid => Self::Uuid(fixed_binary(cursor, 16, "UUID")?),
            ColumnType::Inet4 => Self::Inet4(fixed_binary(cursor, 4, "INET4")?),
            ColumnType::Inet6 => Self::Inet6(fixed_binary(cursor, 16, "INET6")?),
            // `read_with` has answered all others.
            _ => return Err(cursor.invalid("column type", 0)),
        })
    }
}

/// A value with its length before it, in 1 to 4 bytes.
#[inline]
fn prefixed<'a>(
    cursor: &mut Cursor<'a>,
    length_bytes: u8,
    what: &'static str,
) -> Result<&'a [u8], DecodeError> {
    let length = match length_bytes {
        1 => usize::from(cursor.u8(what)?),
        2 => usize::from(cursor.u16_le(what)?),
        width => cursor.uint_le(usize::from(width), what)? as usize,
    };
    cursor.take(length, what)
}

/// MariaDB's UUID and addresses: a CHAR of `width` bytes, trailing zero bytes cut.
fn fixed_binary<'a>(
    cursor: &mut Cursor<'a>,
    width: u64,
    what: &'static str,
) -> Result<&'a [u8], DecodeError> {
    let at = cursor.at() as u64;
    let bytes = prefixed(cursor, 1, what)?;
    if bytes.len() as u64 > width {
        return Err(DecodeError::new(
            what,
            at,
            DecodeErrorKind::TooLong {
                length: bytes.len() as u64,
                limit: width,
            },
        ));
    }
    Ok(bytes)
}

/// How much room a type's values take in a row image.
#[derive(Debug, Clone, Copy)]
pub(super) enum StoredWidth {
    /// So many bytes.
    Fixed(usize),
    /// A length of so many bytes, then as many as it says.
    Prefixed(u8),
}

#[inline]
pub(super) fn stored_width(kind: &ColumnType) -> StoredWidth {
    StoredWidth::Fixed(match *kind {
        ColumnType::TinyInt { .. } | ColumnType::Year => 1,
        ColumnType::SmallInt { .. } => 2,
        ColumnType::MediumInt { .. } | ColumnType::Date => 3,
        ColumnType::Int { .. } | ColumnType::Float => 4,
        ColumnType::BigInt { .. } | ColumnType::Double => 8,
        ColumnType::Decimal { precision, scale } => Decimal::packed_length(precision, scale),
        ColumnType::Bit { bits } => usize::from(bits).div_ceil(8),
        ColumnType::Timestamp { fsp, old: false } => 4 + fraction_bytes(fsp),
        ColumnType::DateTime { fsp, old: false } => 5 + fraction_bytes(fsp),
        ColumnType::Time { fsp, old: false } => 3 + fraction_bytes(fsp),
        ColumnType::Timestamp { fsp, old: true } => old_timestamp_bytes(fsp),
        ColumnType::DateTime { fsp, old: true } => old_date_time_bytes(fsp),
        ColumnType::Time { fsp, old: true } => old_time_bytes(fsp),
        ColumnType::Enum { width, .. } | ColumnType::Set { width, .. } => usize::from(width),
        ColumnType::Char { length_bytes, .. }
        | ColumnType::Binary { length_bytes, .. }
        | ColumnType::VarChar { length_bytes, .. }
        | ColumnType::VarBinary { length_bytes, .. }
        | ColumnType::Text { length_bytes, .. }
        | ColumnType::Blob { length_bytes, .. }
        | ColumnType::Json { length_bytes }
        | ColumnType::Geometry { length_bytes, .. }
        | ColumnType::Vector { length_bytes } => return StoredWidth::Prefixed(length_bytes),
        ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
            return StoredWidth::Prefixed(1);
        }
    })
}

/// Bytes of the value at the start of `bytes`, its length prefix included; `None` when the prefix is cut off. The value itself may
/// be: who skips it checks the sum.
pub(super) fn stored_length(kind: &ColumnType, bytes: &[u8]) -> Option<usize> {
    Some(match stored_width(kind) {
        StoredWidth::Fixed(width) => width,
        StoredWidth::Prefixed(1) => 1 + usize::from(*bytes.first()?),
        StoredWidth::Prefixed(2) => 2 + usize::from(u16::from_le_bytes(*bytes.first_chunk()?)),
        StoredWidth::Prefixed(3) => {
            let [a, b, c] = *bytes.first_chunk()?;
            3 + u32::from_le_bytes([a, b, c, 0]) as usize
        }
        StoredWidth::Prefixed(_) => 4 + u32::from_le_bytes(*bytes.first_chunk()?) as usize,
    })
}
