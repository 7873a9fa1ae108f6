//! Columns and their types.
//!
//! What a type's values look like is decided once per table version ([`super::TypeCatalog`]); after that a value costs one
//! look at [`ColumnType`].

/// A column of a table, as one version of the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: Box<str>,
    /// `pg_type.oid` of the column as declared: a domain's own, not its base type's.
    pub type_oid: u32,
    /// `atttypmod`: −1 for none.
    pub type_modifier: i32,
    /// What its values look like.
    pub kind: ColumnType,
}

/// How a column's values are written in the server's text format; domains are resolved to what they are based on.
///
/// The texts are those of the session settings `datestyle=ISO`, `intervalstyle=postgres`, `TimeZone=UTC`, `extra_float_digits=3`,
/// `bytea_output=hex`, `lc_monetary=C` and `client_encoding=UTF8`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnType {
    /// The server's text says it all: `text`, `varchar`, `char` (padded), `name`, `uuid`, `inet`, `xml`, `json`, enums, ranges, and every
    /// type without a mapping of its own (composite types, `tsvector`, `pg_lsn`, `box` …).
    Text,
    /// `smallint`, `integer`, `bigint`, `oid`: decimal digits, a minus sign before negative ones.
    Integer,
    /// `t` or `f`.
    Boolean,
    /// `real`: shortest decimal, `1e-07`, `NaN`, `Infinity`, `-Infinity`.
    Real,
    /// `double precision`, as [`Self::Real`].
    Double,
    /// `numeric`: exact decimal, never with an exponent, `NaN`, `Infinity`, `-Infinity`.
    Numeric,
    /// `money`: `-$1,234.50`, whatever the currency. The value is a number of its smallest units, and how many of these are one is not in
    /// the text.
    Money {
        /// Fractional digits that the database's `lc_monetary` has: 0 for a yen, 2 for a euro, 3 for a dinar.
        digits: u8,
    },
    /// `bytea`: `\x` and two hexadecimal digits per byte.
    Bytea,
    /// `bit(n)`: exactly `width` binary digits, the most significant first.
    Bit {
        /// Number of bits.
        width: u32,
    },
    /// `bit varying`: binary digits, the most significant first.
    VarBit,
    /// `2025-02-17`, `0044-03-15 BC`, `12025-01-01`, `infinity`.
    Date,
    /// `15:19:39.123`, `24:00:00`.
    Time,
    /// `15:19:39.123456+02`.
    TimeTz,
    /// `2025-02-17 15:19:39.12`, `… BC`, `infinity`.
    Timestamp,
    /// `2025-02-17 14:19:39.123456+00`, `… BC`, `infinity`.
    TimestampTz {
        /// Fractional digits that the column keeps, 0 to 6.
        digits: u8,
    },
    /// `1 year 2 mons 3 days 04:05:06.7`.
    Interval,
    /// `(1.5,2)`.
    Point,
    /// PostGIS's `geometry` and `geography`: EWKB in hexadecimal.
    Geometry,
    /// pgvector's `vector` and `halfvec`: `[1,2.5,3]`.
    Vector,
    /// `"a"=>"1", "b"=>NULL`.
    Hstore,
    /// `{1,NULL,3}`, nested for more than one dimension.
    Array(Box<Array>),
}

/// What an array column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Type of the elements, never an array.
    pub element: ColumnType,
    /// What stands between elements: `,`, and `;` for `box`.
    pub delimiter: u8,
}
