//! A column's value as it stands in a row image: numbers decoded, everything of variable length borrowed.

/// A value that is not NULL. Which [`super::column::ColumnType`] yields which variant is said at each variant.
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
    Decimal(super::decimal::Decimal<'a>),
    /// YEAR: 0 or 1901 to 2155.
    Year(u16),
    /// BIT(n), most significant byte first, `(n + 7) / 8` bytes.
    Bit(&'a [u8]),
    /// DATE.
    Date(super::temporal::Date),
    /// TIME.
    Time(super::temporal::Time),
    /// DATETIME.
    DateTime(super::temporal::DateTime),
    /// TIMESTAMP.
    Timestamp(super::temporal::Timestamp),
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
