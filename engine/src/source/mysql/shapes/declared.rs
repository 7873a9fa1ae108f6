//! Column types as information_schema writes them, joined with those of the binary log.

use protocol::mysql::ColumnType;
use protocol::mysql::charset::Charset;
use protocol::mysql::gtid::Flavour;
use protocol::mysql::table_map::Description;

/// The character set of this name, by the lowest of its collations' ids.
pub(super) fn charset(name: &str) -> Option<Charset> {
    let name = match name {
        "utf8" => "utf8mb3",
        name => name,
    };
    (1..=u16::from(u8::MAX))
        .map(|collation| Charset { collation })
        .find(|charset| {
            charset.name() == Some(name) || name == "utf8mb3" && charset.name() == Some("utf8")
        })
}

/// A COLUMN_TYPE: `decimal(10,2) unsigned`, `enum('a','b')`, `varchar(20)`.
pub(super) struct Declared<'a> {
    base: &'a str,
    arguments: &'a str,
    unsigned: bool,
}

impl<'a> Declared<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let (base, rest) = match text.find(['(', ' ']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let (arguments, rest) = match (rest.strip_prefix('('), rest.rfind(')')) {
            (Some(inner), Some(end)) => (&inner[..end - 1], &rest[end + 1..]),
            _ => ("", rest),
        };
        Self {
            base,
            arguments,
            unsigned: rest.contains("unsigned") || rest.contains("zerofill"),
        }
    }

    fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.arguments
            .split(',')
            .filter_map(|number| number.trim().parse().ok())
    }

    fn labels(&self) -> Box<[Box<str>]> {
        let (mut labels, mut label) = (Vec::new(), String::new());
        let mut characters = self.arguments.chars().peekable();
        let mut inside = false;
        while let Some(character) = characters.next() {
            match character {
                '\'' if inside && characters.peek() == Some(&'\'') => {
                    characters.next();
                    label.push('\'');
                }
                '\'' if inside => {
                    labels.push(std::mem::take(&mut label).into_boxed_str());
                    inside = false;
                }
                '\'' => inside = true,
                other if inside => label.push(other),
                _ => {}
            }
        }
        labels.into()
    }

    /// The wire type with what the declaration adds; `None` when they cannot be the same column.
    pub(super) fn resolve(
        &self,
        description: &Description,
        wire: &ColumnType,
        charset: Option<Charset>,
        flavour: Flavour,
    ) -> Option<ColumnType> {
        use ColumnType as T;
        let unsigned = self.unsigned;
        let signed_as = |known: bool| !description.signedness || known == unsigned;
        let base = self.base.to_ascii_lowercase();
        // Of other types the number is a width, VARBINARY(300), that need not fit.
        let fsp = u8::try_from(self.numbers().next().unwrap_or(0)).unwrap_or(u8::MAX);
        let mariadb = flavour == Flavour::MariaDb;
        Some(match (base.as_str(), wire) {
            ("tinyint" | "bool" | "boolean", T::TinyInt { unsigned: known })
                if signed_as(*known) =>
            {
                T::TinyInt { unsigned }
            }
            ("smallint", T::SmallInt { unsigned: known }) if signed_as(*known) => {
                T::SmallInt { unsigned }
            }
            ("mediumint", T::MediumInt { unsigned: known }) if signed_as(*known) => {
                T::MediumInt { unsigned }
            }
            ("int" | "integer", T::Int { unsigned: known }) if signed_as(*known) => {
                T::Int { unsigned }
            }
            ("bigint", T::BigInt { unsigned: known }) if signed_as(*known) => {
                T::BigInt { unsigned }
            }
            ("float", T::Float)
            | ("double" | "real", T::Double)
            | ("year", T::Year)
            | ("date", T::Date)
            | ("json", T::Json { .. })
            | ("vector", T::Vector { .. }) => wire.clone(),
            ("decimal" | "numeric", T::Decimal { precision, scale })
                if self
                    .numbers()
                    .eq([u64::from(*precision), u64::from(*scale)]) =>
            {
                wire.clone()
            }
            ("bit", T::Bit { bits }) if self.numbers().eq([u64::from(*bits)]) => wire.clone(),
            ("time", T::Time { old: true, .. }) => T::Time { fsp, old: true },
            ("datetime", T::DateTime { old: true, .. }) => T::DateTime { fsp, old: true },
            ("timestamp", T::Timestamp { old: true, .. }) => T::Timestamp { fsp, old: true },
            ("time", T::Time { fsp: known, .. })
            | ("datetime", T::DateTime { fsp: known, .. })
            | ("timestamp", T::Timestamp { fsp: known, .. })
                if *known == fsp =>
            {
                wire.clone()
            }
            ("uuid", T::Char { width: 16, .. } | T::Binary { width: 16, .. }) if mariadb => T::Uuid,
            ("inet6", T::Char { width: 16, .. } | T::Binary { width: 16, .. }) if mariadb => {
                T::Inet6
            }
            ("inet4", T::Char { width: 4, .. } | T::Binary { width: 4, .. }) if mariadb => T::Inet4,
            ("char", T::Char { .. }) => wire.clone().with_charset(charset?),
            ("binary", T::Char { width, .. } | T::Binary { width, .. })
                if self.numbers().eq([u64::from(*width)]) =>
            {
                wire.clone().with_charset(Charset::BINARY)
            }
            ("varchar", T::VarChar { .. }) => wire.clone().with_charset(charset?),
            ("varbinary", T::VarChar { .. } | T::VarBinary { .. }) => {
                wire.clone().with_charset(Charset::BINARY)
            }
            ("tinytext" | "text" | "mediumtext" | "longtext", T::Text { length_bytes, .. })
                if width(&base) == *length_bytes =>
            {
                wire.clone().with_charset(charset?)
            }
            (
                "tinyblob" | "blob" | "mediumblob" | "longblob",
                T::Text { length_bytes, .. } | T::Blob { length_bytes, .. },
            ) if width(&base) == *length_bytes => wire.clone().with_charset(Charset::BINARY),
            // MariaDB writes VECTOR as VARBINARY or BLOB.
            (
                "vector",
                T::VarChar { .. } | T::VarBinary { .. } | T::Text { .. } | T::Blob { .. },
            ) => wire.clone().with_charset(Charset::BINARY),
            ("enum", T::Enum { width, labels }) => {
                let declared = self.labels();
                let fits = usize::from(*width) == if declared.len() > 255 { 2 } else { 1 };
                if !fits || description.labels && *labels != declared {
                    return None;
                }
                T::Enum {
                    width: *width,
                    labels: declared,
                }
            }
            ("set", T::Set { width, labels }) => {
                let declared = self.labels();
                let bytes = match declared.len().div_ceil(8) {
                    5..=8 => 8,
                    3 => 3,
                    few => few,
                };
                if usize::from(*width) != bytes || description.labels && *labels != declared {
                    return None;
                }
                T::Set {
                    width: *width,
                    labels: declared,
                }
            }
            (
                "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
                | "multipolygon" | "geomcollection" | "geometrycollection",
                T::Geometry { length_bytes, .. },
            ) => T::Geometry {
                length_bytes: *length_bytes,
                point: base == "point",
            },
            _ => return None,
        })
    }
}

/// Length bytes of a TEXT or BLOB of this name.
fn width(base: &str) -> u8 {
    match base.as_bytes().first() {
        Some(b't') if base.starts_with("tiny") => 1,
        Some(b'm') => 3,
        Some(b'l') => 4,
        _ => 2,
    }
}
