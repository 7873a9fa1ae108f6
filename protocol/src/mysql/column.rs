//! What a column is, as the row decoder needs to know it: the wire type with its metadata resolved.

use super::charset::Charset;
use super::decimal::Decimal;
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// One column of a table, in table order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name; empty where the server wrote none (`binlog_row_metadata=MINIMAL`) and nobody has filled it in.
    pub name: Box<str>,
    /// How its values stand in a row image.
    pub kind: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether `SELECT *` shows it (MySQL 8.0.23+); true where the server does not say.
    pub visible: bool,
}

/// Wire type and metadata of a column, `real_type` already unwrapped for ENUM, SET and CHAR.
///
/// `length_bytes` is the width of the length prefix of a value in the row image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// TINYINT, 1 byte.
    TinyInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// SMALLINT, 2 bytes.
    SmallInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// MEDIUMINT, 3 bytes.
    MediumInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// INT, 4 bytes.
    Int {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// BIGINT, 8 bytes.
    BigInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// FLOAT, 4 bytes.
    Float,
    /// DOUBLE, 8 bytes.
    Double,
    /// DECIMAL(precision, scale) in the server's packed form.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// YEAR, 1 byte.
    Year,
    /// BIT(bits).
    Bit {
        /// 1 to 64.
        bits: u8,
    },
    /// DATE, 3 bytes.
    Date,
    /// TIME; `old` is the 3-byte form before MySQL 5.6.
    Time {
        /// Fractional digits, 0 to 6.
        fsp: u8,
        /// The form before 5.6.4 (also MariaDB's Hires form is `fsp > 0`, `old`).
        old: bool,
    },
    /// DATETIME; `old` is the 8-byte form before MySQL 5.6.
    DateTime {
        /// Fractional digits, 0 to 6.
        fsp: u8,
        /// The form before 5.6.4.
        old: bool,
    },
    /// TIMESTAMP; `old` is the 4-byte form before MySQL 5.6.
    Timestamp {
        /// Fractional digits, 0 to 6.
        fsp: u8,
        /// The form before 5.6.4.
        old: bool,
    },
    /// CHAR(n). A MariaDB UUID, INET4 or INET6 looks the same until `information_schema` tells.
    Char {
        /// 1 or 2.
        length_bytes: u8,
        /// Longest value in bytes: characters declared, times bytes per character.
        width: u16,
        /// Character set of the bytes.
        charset: Charset,
    },
    /// BINARY(n); trailing zero bytes are cut in the image and belong to the value.
    Binary {
        /// 1 or 2.
        length_bytes: u8,
        /// Declared width in bytes.
        width: u16,
    },
    /// VARCHAR(n).
    VarChar {
        /// 1 or 2.
        length_bytes: u8,
        /// Character set of the bytes.
        charset: Charset,
        /// MariaDB's `COMPRESSED` attribute (wire type 141).
        compressed: bool,
    },
    /// VARBINARY(n).
    VarBinary {
        /// 1 or 2.
        length_bytes: u8,
        /// MariaDB's `COMPRESSED` attribute (wire type 141).
        compressed: bool,
    },
    /// TINYTEXT to LONGTEXT.
    Text {
        /// 1 to 4.
        length_bytes: u8,
        /// Character set of the bytes.
        charset: Charset,
        /// MariaDB's `COMPRESSED` attribute (wire type 140).
        compressed: bool,
    },
    /// TINYBLOB to LONGBLOB.
    Blob {
        /// 1 to 4.
        length_bytes: u8,
        /// MariaDB's `COMPRESSED` attribute (wire type 140).
        compressed: bool,
    },
    /// ENUM: a 1-based index into `labels`; 0 is the empty error value.
    Enum {
        /// 1 or 2.
        width: u8,
        /// Labels in order, UTF-8; empty where the server wrote none.
        labels: Box<[Box<str>]>,
    },
    /// SET: a bit per label.
    Set {
        /// 1 to 8 bytes.
        width: u8,
        /// Labels in bit order, UTF-8; empty where the server wrote none.
        labels: Box<[Box<str>]>,
    },
    /// JSON in the server's binary form.
    Json {
        /// 1 to 4.
        length_bytes: u8,
    },
    /// GEOMETRY and its subtypes: SRID (4 bytes, little-endian), then WKB.
    Geometry {
        /// 1 to 4.
        length_bytes: u8,
        /// Declared POINT (optional metadata `GEOMETRY_TYPE` 1, or `information_schema`).
        point: bool,
    },
    /// VECTOR(n): 32-bit floats, little-endian.
    Vector {
        /// 1 to 4.
        length_bytes: u8,
    },
    /// MariaDB UUID: written as a CHAR-typed string of 16 bytes, trailing zero bytes cut; only `information_schema` tells.
    Uuid,
    /// MariaDB INET4: 4 bytes, trailing zero bytes cut; only `information_schema` tells.
    Inet4,
    /// MariaDB INET6: 16 bytes, trailing zero bytes cut; only `information_schema` tells.
    Inet6,
}

/// Type codes of TABLE_MAP (`enum_field_types`).
pub(super) mod wire {
    pub(in crate::mysql) const TINY: u8 = 1;
    pub(in crate::mysql) const SHORT: u8 = 2;
    pub(in crate::mysql) const LONG: u8 = 3;
    pub(in crate::mysql) const FLOAT: u8 = 4;
    pub(in crate::mysql) const DOUBLE: u8 = 5;
    pub(in crate::mysql) const TIMESTAMP: u8 = 7;
    pub(in crate::mysql) const LONGLONG: u8 = 8;
    pub(in crate::mysql) const INT24: u8 = 9;
    pub(in crate::mysql) const DATE: u8 = 10;
    pub(in crate::mysql) const TIME: u8 = 11;
    pub(in crate::mysql) const DATETIME: u8 = 12;
    pub(in crate::mysql) const YEAR: u8 = 13;
    pub(in crate::mysql) const NEWDATE: u8 = 14;
    pub(in crate::mysql) const VARCHAR: u8 = 15;
    pub(in crate::mysql) const BIT: u8 = 16;
    pub(in crate::mysql) const TIMESTAMP2: u8 = 17;
    pub(in crate::mysql) const DATETIME2: u8 = 18;
    pub(in crate::mysql) const TIME2: u8 = 19;
    pub(in crate::mysql) const TYPED_ARRAY: u8 = 20;
    pub(in crate::mysql) const BLOB_COMPRESSED: u8 = 140;
    pub(in crate::mysql) const VARCHAR_COMPRESSED: u8 = 141;
    pub(in crate::mysql) const VECTOR: u8 = 242;
    pub(in crate::mysql) const JSON: u8 = 245;
    pub(in crate::mysql) const NEWDECIMAL: u8 = 246;
    pub(in crate::mysql) const ENUM: u8 = 247;
    pub(in crate::mysql) const SET: u8 = 248;
    pub(in crate::mysql) const TINY_BLOB: u8 = 249;
    pub(in crate::mysql) const MEDIUM_BLOB: u8 = 250;
    pub(in crate::mysql) const LONG_BLOB: u8 = 251;
    pub(in crate::mysql) const BLOB: u8 = 252;
    pub(in crate::mysql) const VAR_STRING: u8 = 253;
    pub(in crate::mysql) const STRING: u8 = 254;
    pub(in crate::mysql) const GEOMETRY: u8 = 255;
}

impl ColumnType {
    /// From a TABLE_MAP's type code and the metadata that belong to it. Signedness, character set and labels stand elsewhere:
    /// until they are known numbers are signed, text has [`Charset::UNKNOWN`] and labels are none.
    ///
    /// # Errors
    /// A type that we do not know (`Unsupported` with its code), or metadata that it cannot have.
    pub(super) fn read(code: u8, metadata: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let what = "TABLE_MAP column metadata";
        let unsigned = false;
        let charset = Charset::UNKNOWN;
        Ok(match code {
            wire::TINY => Self::TinyInt { unsigned },
            wire::SHORT => Self::SmallInt { unsigned },
            wire::INT24 => Self::MediumInt { unsigned },
            wire::LONG => Self::Int { unsigned },
            wire::LONGLONG => Self::BigInt { unsigned },
            wire::FLOAT => exactly(metadata, 4, Self::Float)?,
            wire::DOUBLE => exactly(metadata, 8, Self::Double)?,
            wire::YEAR => Self::Year,
            wire::DATE | wire::NEWDATE => Self::Date,
            wire::TIME => Self::Time { fsp: 0, old: true },
            wire::DATETIME => Self::DateTime { fsp: 0, old: true },
            wire::TIMESTAMP => Self::Timestamp { fsp: 0, old: true },
            wire::TIME2 | wire::DATETIME2 | wire::TIMESTAMP2 => {
                let fsp = metadata.u8(what)?;
                if fsp > 6 {
                    return Err(metadata.invalid("TABLE_MAP fractional digits", u64::from(fsp)));
                }
                let old = false;
                match code {
                    wire::TIME2 => Self::Time { fsp, old },
                    wire::DATETIME2 => Self::DateTime { fsp, old },
                    _ => Self::Timestamp { fsp, old },
                }
            }
            wire::NEWDECIMAL => {
                let (precision, scale) = (metadata.u8(what)?, metadata.u8(what)?);
                if precision == 0 || precision > Decimal::PRECISION_MAX || scale > precision {
                    return Err(metadata.invalid("TABLE_MAP DECIMAL", u64::from(precision)));
                }
                Self::Decimal { precision, scale }
            }
            wire::BIT => {
                let (rest, bytes) = (metadata.u8(what)?, metadata.u8(what)?);
                let bits = u16::from(bytes) * 8 + u16::from(rest);
                if rest > 7 || !(1..=64).contains(&bits) {
                    return Err(metadata.invalid("TABLE_MAP BIT", u64::from(bits)));
                }
                Self::Bit { bits: bits as u8 }
            }
            wire::VARCHAR | wire::VAR_STRING | wire::VARCHAR_COMPRESSED => Self::VarChar {
                length_bytes: if metadata.u16_le(what)? > 255 { 2 } else { 1 },
                charset,
                compressed: code == wire::VARCHAR_COMPRESSED,
            },
            wire::STRING | wire::ENUM | wire::SET => Self::read_string(metadata)?,
            wire::TINY_BLOB
            | wire::MEDIUM_BLOB
            | wire::LONG_BLOB
            | wire::BLOB
            | wire::BLOB_COMPRESSED => Self::Text {
                length_bytes: length_bytes(metadata)?,
                charset,
                compressed: code == wire::BLOB_COMPRESSED,
            },
            wire::GEOMETRY => Self::Geometry {
                length_bytes: length_bytes(metadata)?,
                point: false,
            },
            wire::JSON => Self::Json {
                length_bytes: length_bytes(metadata)?,
            },
            wire::VECTOR => Self::Vector {
                length_bytes: length_bytes(metadata)?,
            },
            // The hidden column of a multi-valued index: servers leave it out of the binlog, but its metadata have a form.
            wire::TYPED_ARRAY => {
                let element = metadata.u8(what)?;
                let more = match element {
                    wire::VARCHAR => 3,
                    wire::NEWDECIMAL | wire::STRING | wire::ENUM | wire::SET | wire::BIT => 2,
                    wire::TIME2 | wire::DATETIME2 | wire::TIMESTAMP2 => 1,
                    wire::FLOAT | wire::DOUBLE | wire::BLOB | wire::JSON => 1,
                    _ => 0,
                };
                metadata.skip(more, what)?;
                Self::Json { length_bytes: 4 }
            }
            unknown => {
                return Err(DecodeError::new(
                    "TABLE_MAP column type",
                    metadata.at() as u64,
                    DecodeErrorKind::Unsupported {
                        value: u64::from(unknown),
                    },
                ));
            }
        })
    }

    /// MYSQL_TYPE_STRING: the first metadata byte is the real type, or CHAR with two bits of a length over 255 in it, inverted.
    fn read_string(metadata: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let (first, second) = (
            metadata.u8("TABLE_MAP STRING metadata")?,
            metadata.u8("TABLE_MAP STRING metadata")?,
        );
        let high_bits = u16::from(first & 0x30 ^ 0x30) << 4;
        let (real_type, length) = (first | 0x30, high_bits | u16::from(second));
        match (first, real_type) {
            (wire::ENUM, _) if matches!(second, 1 | 2) => Ok(Self::Enum {
                width: second,
                labels: Box::default(),
            }),
            (wire::SET, _) if matches!(second, 1..=8) => Ok(Self::Set {
                width: second,
                labels: Box::default(),
            }),
            (wire::ENUM | wire::SET, _) => {
                Err(metadata.invalid("TABLE_MAP ENUM or SET width", u64::from(second)))
            }
            (_, wire::STRING | wire::VAR_STRING) => Ok(Self::Char {
                length_bytes: if length > 255 { 2 } else { 1 },
                width: length,
                charset: Charset::UNKNOWN,
            }),
            _ => Err(DecodeError::new(
                "TABLE_MAP STRING real type",
                metadata.at() as u64,
                DecodeErrorKind::Unsupported {
                    value: u64::from(first),
                },
            )),
        }
    }

    /// The same type for bytes of `charset`: with `binary` it is BINARY, VARBINARY or BLOB. Types without text stay as they are.
    #[must_use]
    pub fn with_charset(self, charset: Charset) -> Self {
        let binary = charset == Charset::BINARY;
        match self {
            Self::Char {
                length_bytes,
                width,
                ..
            } if binary => Self::Binary {
                length_bytes,
                width,
            },
            Self::Char {
                length_bytes,
                width,
                ..
            } => Self::Char {
                length_bytes,
                width,
                charset,
            },
            Self::VarChar {
                length_bytes,
                compressed,
                ..
            } if binary => Self::VarBinary {
                length_bytes,
                compressed,
            },
            Self::VarChar {
                length_bytes,
                compressed,
                ..
            } => Self::VarChar {
                length_bytes,
                charset,
                compressed,
            },
            Self::Text {
                length_bytes,
                compressed,
                ..
            } if binary => Self::Blob {
                length_bytes,
                compressed,
            },
            Self::Text {
                length_bytes,
                compressed,
                ..
            } => Self::Text {
                length_bytes,
                charset,
                compressed,
            },
            other => other,
        }
    }

    /// The same integer type, unsigned or not. Other types stay as they are.
    #[must_use]
    pub fn with_unsigned(self, unsigned: bool) -> Self {
        match self {
            Self::TinyInt { .. } => Self::TinyInt { unsigned },
            Self::SmallInt { .. } => Self::SmallInt { unsigned },
            Self::MediumInt { .. } => Self::MediumInt { unsigned },
            Self::Int { .. } => Self::Int { unsigned },
            Self::BigInt { .. } => Self::BigInt { unsigned },
            other => other,
        }
    }
}

/// FLOAT and DOUBLE state their own width.
fn exactly(
    metadata: &mut Cursor<'_>,
    width: u8,
    kind: ColumnType,
) -> Result<ColumnType, DecodeError> {
    let stated = metadata.u8("TABLE_MAP FLOAT or DOUBLE width")?;
    if stated == width {
        Ok(kind)
    } else {
        Err(metadata.invalid("TABLE_MAP FLOAT or DOUBLE width", u64::from(stated)))
    }
}

/// The width of a value's length prefix, 1 to 4.
fn length_bytes(metadata: &mut Cursor<'_>) -> Result<u8, DecodeError> {
    match metadata.u8("TABLE_MAP length bytes")? {
        width @ 1..=4 => Ok(width),
        width => Err(metadata.invalid("TABLE_MAP length bytes", u64::from(width))),
    }
}
