//! What a column is, as the row decoder needs to know it: the wire type with its metadata resolved.

use super::charset::Charset;

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
    /// CHAR(n).
    Char {
        /// 1 or 2.
        length_bytes: u8,
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
