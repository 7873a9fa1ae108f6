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

    /// The labels of `enum('a','it''s','C:\\x')`. The servers escape these as here, whatever a session's `sql_mode`
    /// (`append_unescaped`).
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
                '\\' if inside => {
                    let escaped = match characters.peek() {
                        Some('\\') => Some('\\'),
                        Some('n') => Some('\n'),
                        Some('r') => Some('\r'),
                        Some('0') => Some('\0'),
                        _ => None,
                    };
                    if escaped.is_some() {
                        characters.next();
                    }
                    label.push(escaped.unwrap_or('\\'));
                }
                other if inside => label.push(other),
                _ => {}
            }
        }
        labels.into()
    }

    /// The wire type with what the declaration adds; `None` when they cannot be the same column. What the stream says itself goes
    /// before the declaration, which is of a later time.
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
        let text = || match (description.charsets, wire) {
            (true, T::Char { .. } | T::VarChar { .. } | T::Text { .. }) => Some(wire.clone()),
            (true, _) => None,
            (false, _) => Some(wire.clone().with_charset(charset?)),
        };
        let bytes = || match (description.charsets, wire) {
            (true, T::Binary { .. } | T::VarBinary { .. } | T::Blob { .. }) => Some(wire.clone()),
            (true, _) => None,
            (false, _) => Some(wire.clone().with_charset(Charset::BINARY)),
        };
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
            ("char", T::Char { .. }) => text()?,
            ("binary", T::Char { width, .. } | T::Binary { width, .. })
                if self.numbers().eq([u64::from(*width)]) =>
            {
                bytes()?
            }
            ("varchar", T::VarChar { .. }) => text()?,
            ("varbinary", T::VarChar { .. } | T::VarBinary { .. }) => bytes()?,
            ("tinytext" | "text" | "mediumtext" | "longtext", T::Text { length_bytes, .. })
                if width(&base) == *length_bytes =>
            {
                text()?
            }
            (
                "tinyblob" | "blob" | "mediumblob" | "longblob",
                T::Text { length_bytes, .. } | T::Blob { length_bytes, .. },
            ) if width(&base) == *length_bytes => bytes()?,
            // MariaDB writes VECTOR as VARBINARY or BLOB.
            (
                "vector",
                T::VarChar { .. } | T::VarBinary { .. } | T::Text { .. } | T::Blob { .. },
            ) => bytes()?,
            ("enum", T::Enum { .. }) | ("set", T::Set { .. }) if description.labels => wire.clone(),
            ("enum", T::Enum { width, .. }) => {
                let declared = self.labels();
                if usize::from(*width) != if declared.len() > 255 { 2 } else { 1 } {
                    return None;
                }
                T::Enum {
                    width: *width,
                    labels: declared,
                }
            }
            ("set", T::Set { width, .. }) => {
                let declared = self.labels();
                let bytes = match declared.len().div_ceil(8) {
                    5..=8 => 8,
                    3 => 3,
                    few => few,
                };
                if usize::from(*width) != bytes {
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
                T::Geometry {
                    length_bytes,
                    point,
                },
            ) => T::Geometry {
                length_bytes: *length_bytes,
                point: match description.geometries {
                    true => *point,
                    false => base == "point",
                },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A TABLE_MAP that says everything, or nothing but types.
    fn description(says: bool) -> Description {
        Description {
            columns: Vec::new(),
            names: says,
            signedness: says,
            charsets: says,
            labels: says,
            geometries: says,
            primary_key: None,
        }
    }

    fn resolve(declared: &str, says: bool, wire: &ColumnType) -> Option<ColumnType> {
        let charset = charset("latin1");
        Declared::read(declared).resolve(&description(says), wire, charset, Flavour::MySql)
    }

    fn labels(of: &[&str]) -> Box<[Box<str>]> {
        of.iter().map(|label| Box::from(*label)).collect()
    }

    #[test]
    fn labels_are_escaped_as_the_servers_do() {
        // As MySQL 9.7 and MariaDB 10.11 write it of labels with a backslash, LF, CR, NUL, tab, quotes and a percent sign.
        let declared = "enum('C:\\\\x','a\\nb','c\\rd','it''s','q\"q','a\tb','a\\0z','x,y','\\\\n','\\\\','%')";
        let expected = labels(&[
            "C:\\x", "a\nb", "c\rd", "it's", "q\"q", "a\tb", "a\0z", "x,y", "\\n", "\\", "%",
        ]);
        assert_eq!(Declared::read(declared).labels(), expected);
        // None of theirs.
        assert_eq!(Declared::read("set('a\\b')").labels(), labels(&["a\\b"]));
    }

    #[test]
    fn labels_of_the_stream_go_before_those_of_now() {
        let wire = |of: &[&str]| ColumnType::Enum {
            width: 1,
            labels: labels(of),
        };
        let declared = "enum('a','b')";
        assert_eq!(resolve(declared, true, &wire(&["a"])), Some(wire(&["a"])));
        assert_eq!(
            resolve(declared, false, &wire(&[])),
            Some(wire(&["a", "b"]))
        );
        let wire = |of: &[&str]| ColumnType::Set {
            width: 1,
            labels: labels(of),
        };
        let declared = "set('a','b')";
        assert_eq!(resolve(declared, true, &wire(&["a"])), Some(wire(&["a"])));
        assert_eq!(
            resolve(declared, false, &wire(&[])),
            Some(wire(&["a", "b"]))
        );
    }

    #[test]
    fn character_sets_of_the_stream_go_before_those_of_now() {
        const UTF8MB4: Charset = Charset { collation: 255 };
        let types = |charset| {
            [
                (
                    "char(20)",
                    "binary(20)",
                    ColumnType::Char {
                        length_bytes: 1,
                        width: 20,
                        charset,
                    },
                ),
                (
                    "varchar(20)",
                    "varbinary(20)",
                    ColumnType::VarChar {
                        length_bytes: 1,
                        charset,
                        compressed: false,
                    },
                ),
                (
                    "text",
                    "blob",
                    ColumnType::Text {
                        length_bytes: 2,
                        charset,
                        compressed: false,
                    },
                ),
            ]
        };
        for (text, bytes, wire) in types(UTF8MB4) {
            assert_eq!(resolve(text, true, &wire), Some(wire.clone()));
            // Text became bytes, or the other way round: the table is another one.
            assert_eq!(resolve(bytes, true, &wire), None);
            let binary = wire.clone().with_charset(Charset::BINARY);
            assert_eq!(resolve(bytes, true, &binary), Some(binary.clone()));
            assert_eq!(resolve(text, true, &binary), None);
        }
        let latin1 = charset("latin1").unwrap();
        for (text, bytes, wire) in types(Charset::UNKNOWN) {
            let expected = wire.clone().with_charset(latin1);
            assert_eq!(resolve(text, false, &wire), Some(expected));
            let expected = wire.clone().with_charset(Charset::BINARY);
            assert_eq!(resolve(bytes, false, &wire), Some(expected));
        }
    }

    #[test]
    fn what_the_stream_says_of_geometries_goes_before_what_holds_now() {
        let wire = |point| ColumnType::Geometry {
            length_bytes: 4,
            point,
        };
        for point in [false, true] {
            for (declared, now) in [("geometry", false), ("point", true)] {
                assert_eq!(resolve(declared, true, &wire(point)), Some(wire(point)));
                assert_eq!(resolve(declared, false, &wire(false)), Some(wire(now)));
            }
        }
    }
}
