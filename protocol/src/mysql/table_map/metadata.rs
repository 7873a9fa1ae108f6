//! TABLE_MAP's optional metadata: what makes columns out of wire types.
//!
//! Each field speaks only of the columns of its class, in table order: SIGNEDNESS of the numeric ones, charsets of the character
//! ones, and so on. Which types are in a class differs between MySQL and MariaDB (see [`Class`]).

use crate::mysql::charset::Charset;
use crate::mysql::column::{Column, ColumnType, wire};
use crate::mysql::lenenc;
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// What a TABLE_MAP says about its columns, and which parts of it the server wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The columns in table order. Names, signedness, character sets and labels are to be believed only as the flags say.
    pub columns: Vec<Column>,
    /// Whether the columns have their names (`binlog_row_metadata=FULL`).
    pub names: bool,
    /// Whether it is known which numbers are unsigned (`MINIMAL` on; MariaDB's `NO_LOG` leaves it out).
    pub signedness: bool,
    /// Whether the character sets are known: without them TEXT cannot be told from BLOB.
    pub charsets: bool,
    /// Whether ENUM and SET columns have their labels (`FULL`).
    pub labels: bool,
    /// Whether it is known which geometries are points (`MINIMAL` on).
    pub geometries: bool,
    /// The primary key in key order; empty when there is none, `None` when the server did not say (names are missing too).
    pub primary_key: Option<Vec<KeyPart>>,
}

/// A column of the primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPart {
    /// Index of the column.
    pub column: u16,
    /// Characters that the key covers; 0 for the whole column.
    pub prefix: u32,
}

/// Classes of columns that fields speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Numeric,
    Character,
    Enum,
    Set,
    EnumOrSet,
    Geometry,
}

impl Class {
    fn contains(self, code: u8, kind: &ColumnType, mariadb: bool) -> bool {
        let is_enum = matches!(kind, ColumnType::Enum { .. });
        let is_set = matches!(kind, ColumnType::Set { .. });
        match self {
            // `is_numeric_type`: YEAR is in it on both servers.
            Self::Numeric => matches!(
                code,
                wire::TINY
                    | wire::SHORT
                    | wire::INT24
                    | wire::LONG
                    | wire::LONGLONG
                    | wire::NEWDECIMAL
                    | wire::FLOAT
                    | wire::DOUBLE
                    | wire::YEAR
            ),
            Self::Character => match code {
                wire::STRING | wire::ENUM | wire::SET => !is_enum && !is_set,
                wire::VAR_STRING
                | wire::VARCHAR
                | wire::BLOB
                | wire::TINY_BLOB
                | wire::MEDIUM_BLOB
                | wire::LONG_BLOB => true,
                wire::VECTOR => !mariadb,
                // MariaDB asks whether the field has a character set at all.
                wire::GEOMETRY | wire::BLOB_COMPRESSED | wire::VARCHAR_COMPRESSED => mariadb,
                _ => false,
            },
            Self::Enum => is_enum,
            Self::Set => is_set,
            Self::EnumOrSet => is_enum || is_set,
            Self::Geometry => code == wire::GEOMETRY,
        }
    }
}

mod field {
    pub(super) const SIGNEDNESS: u8 = 1;
    pub(super) const DEFAULT_CHARSET: u8 = 2;
    pub(super) const COLUMN_CHARSET: u8 = 3;
    pub(super) const COLUMN_NAME: u8 = 4;
    pub(super) const SET_STR_VALUE: u8 = 5;
    pub(super) const ENUM_STR_VALUE: u8 = 6;
    pub(super) const GEOMETRY_TYPE: u8 = 7;
    pub(super) const SIMPLE_PRIMARY_KEY: u8 = 8;
    pub(super) const PRIMARY_KEY_WITH_PREFIX: u8 = 9;
    pub(super) const ENUM_AND_SET_DEFAULT_CHARSET: u8 = 10;
    pub(super) const ENUM_AND_SET_COLUMN_CHARSET: u8 = 11;
    pub(super) const COLUMN_VISIBILITY: u8 = 12;
}

struct Describer<'a> {
    columns: Vec<Column>,
    types: &'a [u8],
    mariadb: bool,
}

/// Labels as written, each column's in order: they can be read only once their character set is known, whatever the fields' order.
type RawLabels<'a> = Vec<(usize, Vec<(usize, &'a [u8])>)>;

/// `with_labels`: whether labels are made into text, or passed over as if the server had written none.
pub(super) fn describe(
    columns: Vec<Column>,
    types: &[u8],
    optional: &[u8],
    mariadb: bool,
    with_labels: bool,
) -> Result<Description, DecodeError> {
    let mut table = Describer {
        columns,
        types,
        mariadb,
    };
    let mut cursor = Cursor::new(optional);
    let (mut names, mut signedness, mut charsets, mut geometries) = (false, false, false, false);
    let mut raw_labels: RawLabels<'_> = Vec::new();
    let mut label_charsets = vec![Charset::UNKNOWN; table.columns.len()];
    let mut primary_key = None;
    while !cursor.is_empty() {
        let kind = cursor.u8("TABLE_MAP optional field type")?;
        let value = lenenc::string(&mut cursor, "TABLE_MAP optional field")?;
        let at = (cursor.at() - value.len()) as u64;
        let mut value = Cursor::new(value);
        let read = match kind {
            field::SIGNEDNESS => {
                signedness = true;
                table.read_signedness(&mut value)
            }
            field::DEFAULT_CHARSET | field::COLUMN_CHARSET => {
                charsets = true;
                let default = kind == field::DEFAULT_CHARSET;
                table
                    .read_charsets(Class::Character, default, &mut value)
                    .map(|charsets| table.set_charsets(&charsets))
            }
            field::COLUMN_NAME => {
                names = true;
                table.read_names(&mut value)
            }
            field::SET_STR_VALUE => table.read_labels(Class::Set, &mut value, &mut raw_labels),
            field::ENUM_STR_VALUE => table.read_labels(Class::Enum, &mut value, &mut raw_labels),
            field::GEOMETRY_TYPE => {
                geometries = true;
                table.read_geometry(&mut value)
            }
            field::SIMPLE_PRIMARY_KEY | field::PRIMARY_KEY_WITH_PREFIX => {
                let prefixes = kind == field::PRIMARY_KEY_WITH_PREFIX;
                table
                    .read_key(prefixes, &mut value)
                    .map(|key| primary_key = Some(key))
            }
            field::ENUM_AND_SET_DEFAULT_CHARSET | field::ENUM_AND_SET_COLUMN_CHARSET => {
                let default = kind == field::ENUM_AND_SET_DEFAULT_CHARSET;
                table
                    .read_charsets(Class::EnumOrSet, default, &mut value)
                    .map(|read| {
                        for (column, charset) in read {
                            if let Some(slot) = label_charsets.get_mut(column) {
                                *slot = charset;
                            }
                        }
                    })
            }
            field::COLUMN_VISIBILITY => table.read_visibility(&mut value),
            // VECTOR_DIMENSIONALITY and what later servers add: each has its length and can be passed over.
            _ => {
                value.rest();
                Ok(())
            }
        };
        read.and_then(|()| value.finish("TABLE_MAP optional field"))
            .map_err(|error| error.shifted(at))?;
    }
    if with_labels {
        table.set_labels(raw_labels, &label_charsets)?;
    }
    Ok(Description {
        names: names || table.columns.is_empty(),
        signedness: signedness || table.indices(Class::Numeric).next().is_none(),
        charsets: charsets || table.indices(Class::Character).next().is_none(),
        geometries: geometries || table.indices(Class::Geometry).next().is_none(),
        labels: table.columns.iter().all(|column| match &column.kind {
            ColumnType::Enum { labels, .. } | ColumnType::Set { labels, .. } => !labels.is_empty(),
            _ => true,
        }),
        primary_key: primary_key.or_else(|| names.then(Vec::new)),
        columns: table.columns,
    })
}

impl Describer<'_> {
    /// Indices of the columns in a class.
    fn indices(&self, class: Class) -> impl Iterator<Item = usize> + '_ {
        self.columns
            .iter()
            .zip(self.types)
            .enumerate()
            .filter(move |(_, (column, code))| class.contains(**code, &column.kind, self.mariadb))
            .map(|(index, _)| index)
    }

    fn update(&mut self, index: usize, change: impl FnOnce(ColumnType) -> ColumnType) {
        if let Some(column) = self.columns.get_mut(index) {
            let kind = std::mem::replace(&mut column.kind, ColumnType::Year);
            column.kind = change(kind);
        }
    }

    /// A bit per numeric column, most significant first.
    fn read_signedness(&mut self, value: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let indices: Vec<usize> = self.indices(Class::Numeric).collect();
        let bits = value.take(indices.len().div_ceil(8), "TABLE_MAP signedness")?;
        for (nth, index) in indices.into_iter().enumerate() {
            self.update(index, |kind| kind.with_unsigned(high_bit(bits, nth)));
        }
        Ok(())
    }

    /// A default and the exceptions from it, or one collation per column of the class.
    fn read_charsets(
        &self,
        class: Class,
        default: bool,
        value: &mut Cursor<'_>,
    ) -> Result<Vec<(usize, Charset)>, DecodeError> {
        let collation = |value: &mut Cursor<'_>| {
            let id = lenenc::integer(value, "TABLE_MAP collation")?;
            u16::try_from(id)
                .map(|collation| Charset { collation })
                .map_err(|_| value.invalid("TABLE_MAP collation", id))
        };
        let default = if default {
            Some(collation(value)?)
        } else {
            None
        };
        let mut charsets = Vec::new();
        for index in self.indices(class) {
            let charset = match default {
                Some(charset) => charset,
                None => collation(value)?,
            };
            charsets.push((index, charset));
        }
        if default.is_some() {
            while !value.is_empty() {
                let nth = lenenc::integer(value, "TABLE_MAP collation's column")?;
                let charset = collation(value)?;
                let slot = usize::try_from(nth)
                    .ok()
                    .and_then(|nth| charsets.get_mut(nth));
                let Some(slot) = slot else {
                    return Err(value.invalid("TABLE_MAP collation's column", nth));
                };
                slot.1 = charset;
            }
        }
        Ok(charsets)
    }

    fn set_charsets(&mut self, charsets: &[(usize, Charset)]) {
        for (index, charset) in charsets {
            self.update(*index, |kind| kind.with_charset(*charset));
        }
    }

    fn read_names(&mut self, value: &mut Cursor<'_>) -> Result<(), DecodeError> {
        for column in &mut self.columns {
            let bytes = lenenc::string(value, "TABLE_MAP column name")?;
            let text = std::str::from_utf8(bytes).map_err(|_| {
                DecodeError::new(
                    "TABLE_MAP column name",
                    (value.at() - bytes.len()) as u64,
                    DecodeErrorKind::Encoding,
                )
            })?;
            column.name = text.into();
        }
        Ok(())
    }

    fn read_labels<'a>(
        &self,
        class: Class,
        value: &mut Cursor<'a>,
        into: &mut RawLabels<'a>,
    ) -> Result<(), DecodeError> {
        for index in self.indices(class) {
            let count = lenenc::integer(value, "TABLE_MAP label count")?;
            let mut labels = Vec::new();
            for _ in 0..count {
                let label = lenenc::string(value, "TABLE_MAP label")?;
                labels.push((value.at() - label.len(), label));
            }
            into.push((index, labels));
        }
        Ok(())
    }

    fn set_labels(&mut self, raw: RawLabels<'_>, charsets: &[Charset]) -> Result<(), DecodeError> {
        for (index, raw) in raw {
            let charset = match charsets.get(index) {
                // Labels are text also where values count as bytes: those of `binary` have the bytes of the statement that made them,
                // and information_schema shows them as UTF-8.
                Some(charset) if *charset == Charset::BINARY => Charset::UTF8MB4,
                Some(charset) if *charset != Charset::UNKNOWN => *charset,
                // A server that writes labels writes their character sets; without them only ASCII can be read.
                _ => Charset::ASCII,
            };
            let decoded: Result<Box<[Box<str>]>, DecodeError> = raw
                .into_iter()
                .map(|(_, label)| charset.decode(label).map(|text| text.as_ref().into()))
                .collect();
            let decoded = decoded?;
            self.update(index, |kind| match kind {
                ColumnType::Enum { width, .. } => ColumnType::Enum {
                    width,
                    labels: decoded,
                },
                ColumnType::Set { width, .. } => ColumnType::Set {
                    width,
                    labels: decoded,
                },
                other => other,
            });
        }
        Ok(())
    }

    fn read_geometry(&mut self, value: &mut Cursor<'_>) -> Result<(), DecodeError> {
        const POINT: u64 = 1;
        let indices: Vec<usize> = self.indices(Class::Geometry).collect();
        for index in indices {
            let geometry = lenenc::integer(value, "TABLE_MAP geometry type")?;
            self.update(index, |kind| match kind {
                ColumnType::Geometry { length_bytes, .. } => ColumnType::Geometry {
                    length_bytes,
                    point: geometry == POINT,
                },
                other => other,
            });
        }
        Ok(())
    }

    fn read_key(
        &self,
        prefixes: bool,
        value: &mut Cursor<'_>,
    ) -> Result<Vec<KeyPart>, DecodeError> {
        let mut key = Vec::new();
        while !value.is_empty() {
            let column = lenenc::integer(value, "TABLE_MAP key column")?;
            let prefix = if prefixes {
                lenenc::integer(value, "TABLE_MAP key prefix")?
            } else {
                0
            };
            if column >= self.columns.len() as u64 {
                return Err(value.invalid("TABLE_MAP key column", column));
            }
            let Ok(prefix) = u32::try_from(prefix) else {
                return Err(value.invalid("TABLE_MAP key prefix", prefix));
            };
            key.push(KeyPart {
                column: column as u16,
                prefix,
            });
        }
        Ok(key)
    }

    /// A bit per column, most significant first.
    fn read_visibility(&mut self, value: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let bits = value.take(self.columns.len().div_ceil(8), "TABLE_MAP visibility")?;
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.visible = high_bit(bits, index);
        }
        Ok(())
    }
}

fn high_bit(bits: &[u8], index: usize) -> bool {
    bits.get(index >> 3)
        .is_some_and(|byte| byte << (index & 7) & 0x80 != 0)
}
