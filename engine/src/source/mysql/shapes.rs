//! The shape of tables whose TABLE_MAP says too little, from information_schema on a connection of its own.
//!
//! With `binlog_row_metadata=MINIMAL` (MySQL's default) a TABLE_MAP has types and signedness, with MariaDB's default `NO_LOG` types
//! alone. Names, key, character sets and labels are asked from the server, and must agree with everything that the event does say:
//! column count, types, sizes, NULL-ability. What disagrees was changed since: the shape at this place cannot be known, and the
//! stream halts rather than guess.

use std::collections::BTreeMap;

use protocol::mysql::charset::Charset;
use protocol::mysql::gtid::Flavour;
use protocol::mysql::table_map::Description;
use protocol::mysql::{BinlogPosition, Column, ColumnType};
use tokio::task::JoinHandle;

use super::connection::{ConnectOptions, Connection};
use super::server::Answer;
use super::session;
use super::tables::Wanted;
use crate::source::{SourceError, Verdict};

/// Whether MariaDB may have written UUID, INET4 or INET6 columns as these: their TABLE_MAP does not tell them from CHAR and BINARY.
pub(super) fn may_hide_types(columns: &[Column]) -> bool {
    columns.iter().any(|column| {
        matches!(
            column.kind,
            ColumnType::Binary { width: 4 | 16, .. } | ColumnType::Char { width: 4 | 16, .. }
        )
    })
}

/// Whether MariaDB wrote temporal columns in its form before 10.1 (`mysql56_temporal_format=OFF`): their TABLE_MAP does not tell how
/// many fractional digits they have, and with that not even how long their values are.
pub(super) fn hides_widths(columns: &[Column]) -> bool {
    columns.iter().any(hides_width)
}

/// Names of these columns, separated by commas, where there are any; by number where the stream does not name them.
pub(super) fn hidden_widths(columns: &[Column]) -> Option<String> {
    let hidden = columns.iter().enumerate().filter(|(_, c)| hides_width(c));
    let names: Vec<String> = hidden
        .map(|(index, column)| match column.name.is_empty() {
            true => format!("number {}", index + 1),
            false => column.name.to_string(),
        })
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn hides_width(column: &Column) -> bool {
    matches!(
        column.kind,
        ColumnType::Time { old: true, .. }
            | ColumnType::DateTime { old: true, .. }
            | ColumnType::Timestamp { old: true, .. }
    )
}

/// A table as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) columns: Vec<Column>,
    pub(super) key: Box<[u16]>,
    /// Where the server stood just after it was asked.
    pub(super) as_of: Option<BinlogPosition>,
}

/// Asks for shapes.
#[derive(Debug)]
pub(super) struct Asker {
    options: ConnectOptions,
    flavour: Flavour,
    /// Kept open: thousands of tables may follow each other.
    connection: Option<Connection>,
}

/// An answer that is awaited, in a task of its own so that nothing is lost when the future that waits is dropped.
#[derive(Debug)]
pub(super) struct Asking {
    wanted: Wanted,
    task: JoinHandle<(Option<Connection>, Result<Shape, SourceError>)>,
}

impl Asker {
    pub(super) fn new(options: ConnectOptions, flavour: Flavour) -> Self {
        Self {
            options,
            flavour,
            connection: None,
        }
    }

    /// Begins to ask for the shape of `wanted`, whose TABLE_MAP ends at `at`.
    pub(super) fn ask(&mut self, wanted: Wanted, at: BinlogPosition) -> Asking {
        let options = self.options.clone();
        let connection = self.connection.take();
        let (question, flavour) = (wanted.clone(), self.flavour);
        let task = tokio::spawn(async move {
            let mut connection = connection;
            let shape = look_up(&options, &mut connection, &question, flavour, &at).await;
            (connection, shape)
        });
        Asking { wanted, task }
    }

    /// Waits for the answer. Cancel-safe.
    pub(super) async fn answer(
        &mut self,
        asking: &mut Asking,
    ) -> Result<(Wanted, Shape), SourceError> {
        let (connection, shape) = (&mut asking.task)
            .await
            .map_err(|error| SourceError::halt("asking for a table's shape").because(error))?;
        self.connection = connection;
        shape.map(|shape| (asking.wanted.clone(), shape))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const ATTEMPTS: usize = 5;

async fn look_up(
    options: &ConnectOptions,
    slot: &mut Option<Connection>,
    wanted: &Wanted,
    flavour: Flavour,
    at: &BinlogPosition,
) -> Result<Shape, SourceError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match look_up_once(options, slot, wanted, flavour, at).await {
            Err(error) if error.verdict() == Verdict::Retry && attempt < ATTEMPTS => {
                tracing::warn!("asking information_schema again: {error}");
                *slot = None;
                tokio::time::sleep(std::time::Duration::from_millis(200 << attempt)).await;
            }
            other => return other,
        }
    }
}

async fn look_up_once(
    options: &ConnectOptions,
    slot: &mut Option<Connection>,
    wanted: &Wanted,
    flavour: Flavour,
    at: &BinlogPosition,
) -> Result<Shape, SourceError> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => Connection::connect(options).await?,
    };
    let columns = connection.query(&columns_query(wanted)).await?;
    let keys = connection.query(&keys_query(wanted)).await?;
    let status = session::status(&mut connection).await?;
    *slot = Some(connection);
    let columns = session::text(columns);
    let mut shape = shape(wanted, &columns, &session::text(keys), flavour).map_err(|mismatch| {
        let Wanted { schema, name, .. } = wanted;
        SourceError::halt(format!(
            "the shape of {schema}.{name} at {at} cannot be known: the binary log has only its columns' types there, and the \
             table is another one now ({mismatch}); run SET GLOBAL binlog_row_metadata = FULL for what comes, and start \
             after the table's last ALTER by `walbrook position set`, or leave it out by tables = [\"!{schema}.{name}\"]"
        ))
    })?;
    shape.as_of = status.map(|status| status.position);
    Ok(shape)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn columns_query(wanted: &Wanted) -> String {
    format!(
        "SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, EXTRA, CHARACTER_SET_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
        quoted(&wanted.schema),
        quoted(&wanted.name)
    )
}

fn keys_query(wanted: &Wanted) -> String {
    format!(
        "SELECT INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, NULLABLE, NON_UNIQUE FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quoted(&wanted.schema),
        quoted(&wanted.name)
    )
}

/// What the TABLE_MAP and the server's present description disagree about.
type Mismatch = String;

/// Joins what the TABLE_MAP says with the server's description.
fn shape(
    wanted: &Wanted,
    columns: &Answer,
    keys: &Answer,
    flavour: Flavour,
) -> Result<Shape, Mismatch> {
    let description = &wanted.description;
    if columns.is_empty() {
        return Err("it is gone, or the user may not see it: GRANT SELECT on it".into());
    }
    if columns.len() != description.columns.len() {
        return Err(format!(
            "{} columns, {} there",
            columns.len(),
            description.columns.len()
        ));
    }
    let joined = description
        .columns
        .iter()
        .zip(columns)
        .map(|(column, row)| join(description, column, row, flavour))
        .collect::<Result<Vec<Column>, Mismatch>>()?;
    let key = key(description, &joined, keys);
    Ok(Shape {
        columns: joined,
        key,
        as_of: None,
    })
}

/// The key's columns: as the TABLE_MAP says, otherwise the primary key, otherwise the first unique index without NULL.
fn key(description: &Description, columns: &[Column], keys: &Answer) -> Box<[u16]> {
    if let Some(parts) = &description.primary_key
        && !parts.is_empty()
    {
        return parts.iter().map(|part| part.column).collect();
    }
    // The primary key first, then by name; the parts of each in their order.
    let mut indexes: BTreeMap<(bool, &str), BTreeMap<u32, Option<u16>>> = BTreeMap::new();
    for row in keys {
        let cell = |at: usize| row.get(at).and_then(Option::as_deref);
        let (Some(index), Some("0")) = (cell(0), cell(4)) else {
            continue;
        };
        let sequence = cell(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        // An index over an expression has no column name.
        let column = cell(2)
            .filter(|_| matches!(cell(3), Some("" | "NO")))
            .and_then(|name| columns.iter().position(|column| *column.name == *name));
        indexes
            .entry((index != "PRIMARY", index))
            .or_default()
            .insert(sequence, column.map(|column| column as u16));
    }
    indexes
        .into_values()
        .find_map(|parts| parts.into_values().collect::<Option<Vec<u16>>>())
        .unwrap_or_default()
        .into()
}

/// One column of both descriptions.
fn join(
    description: &Description,
    column: &Column,
    row: &[Option<String>],
    flavour: Flavour,
) -> Result<Column, Mismatch> {
    let cell = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
    let (name, declared, extra) = (cell(0), cell(1), cell(3));
    let mismatch = |what: &str| format!("column {name} is {declared} now, {what} there");
    if description.names && *column.name != *name {
        return Err(format!("column {name} was {} there", column.name));
    }
    if column.nullable != cell(2).eq_ignore_ascii_case("YES") {
        return Err(mismatch(match column.nullable {
            true => "and may be NULL",
            false => "and NOT NULL",
        }));
    }
    let charset = charset(cell(4));
    let declared_type = Declared::read(declared);
    let kind = declared_type
        .resolve(description, &column.kind, charset, flavour)
        .ok_or_else(|| mismatch(&format!("{:?}", column.kind)))?;
    Ok(Column {
        name: name.into(),
        kind,
        nullable: column.nullable,
        visible: column.visible && !extra.to_ascii_uppercase().contains("INVISIBLE"),
    })
}

/// The character set of this name, by the lowest of its collations' ids.
fn charset(name: &str) -> Option<Charset> {
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
struct Declared<'a> {
    base: &'a str,
    arguments: &'a str,
    unsigned: bool,
}

impl<'a> Declared<'a> {
    fn read(text: &'a str) -> Self {
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
    fn resolve(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnType, nullable: bool) -> Column {
        Column {
            name: Box::default(),
            kind,
            nullable,
            visible: true,
        }
    }

    fn wanted(columns: Vec<Column>) -> Wanted {
        Wanted::for_test(Description {
            columns,
            names: false,
            signedness: false,
            charsets: false,
            labels: false,
            primary_key: None,
        })
    }

    fn row(
        name: &str,
        declared: &str,
        nullable: &str,
        charset: Option<&str>,
    ) -> Vec<Option<String>> {
        let text = |text: &str| Some(text.to_owned());
        vec![
            text(name),
            text(declared),
            text(nullable),
            text(""),
            charset.map(str::to_owned),
        ]
    }

    fn keys(rows: &[(&str, &str, &str)]) -> Answer {
        let text = |text: &str| Some(text.to_owned());
        let sequence = |at: usize| Some((at + 1).to_string());
        rows.iter()
            .enumerate()
            .map(|(at, (index, column, nullable))| {
                vec![
                    text(index),
                    sequence(at),
                    text(column),
                    text(nullable),
                    text("0"),
                ]
            })
            .collect()
    }

    const UNKNOWN: Charset = Charset::UNKNOWN;

    #[test]
    fn names_signs_charsets_and_labels_come_from_the_server() {
        let wanted = wanted(vec![
            column(ColumnType::BigInt { unsigned: false }, false),
            column(
                ColumnType::VarChar {
                    length_bytes: 1,
                    charset: UNKNOWN,
                    compressed: false,
                },
                true,
            ),
            column(
                ColumnType::Char {
                    length_bytes: 1,
                    width: 16,
                    charset: UNKNOWN,
                },
                true,
            ),
            column(
                ColumnType::Enum {
                    width: 1,
                    labels: Box::default(),
                },
                true,
            ),
        ]);
        let columns = vec![
            row("id", "bigint(20) unsigned", "NO", None),
            row("name", "varchar(20)", "YES", Some("latin1")),
            row("u", "uuid", "YES", None),
            row("e", "enum('a','it''s','x,y')", "YES", Some("latin1")),
        ];
        let shape = shape(
            &wanted,
            &columns,
            &keys(&[("name", "name", "YES"), ("u", "id", "")]),
            Flavour::MariaDb,
        )
        .unwrap();
        assert_eq!(*shape.key, [0]);
        assert_eq!(shape.columns[0].kind, ColumnType::BigInt { unsigned: true });
        assert_eq!(&*shape.columns[1].name, "name");
        assert_eq!(
            shape.columns[1].kind,
            ColumnType::VarChar {
                length_bytes: 1,
                charset: charset("latin1").unwrap(),
                compressed: false
            }
        );
        assert_eq!(shape.columns[2].kind, ColumnType::Uuid);
        let ColumnType::Enum { labels, .. } = &shape.columns[3].kind else {
            panic!("{:?}", shape.columns[3])
        };
        assert_eq!(**labels, ["a".into(), "it's".into(), "x,y".into()]);
    }

    #[test]
    fn what_changed_since_is_never_guessed() {
        let int = || wanted(vec![column(ColumnType::Int { unsigned: false }, false)]);
        let try_row = |wanted: Wanted, rows: Vec<Vec<Option<String>>>| {
            shape(&wanted, &rows, &Answer::new(), Flavour::MySql).unwrap_err()
        };
        for (rows, part) in [
            (vec![], "it is gone"),
            (
                vec![row("a", "bigint", "NO", None)],
                "column a is bigint now",
            ),
            (vec![row("a", "int", "YES", None)], "NOT NULL"),
            (
                vec![row("a", "int", "NO", None), row("b", "int", "NO", None)],
                "2 columns, 1 there",
            ),
        ] {
            let said = try_row(int(), rows);
            assert!(said.contains(part), "{said}");
        }
        let mut signed = int();
        signed.description.signedness = true;
        try_row(signed, vec![row("a", "int unsigned", "NO", None)]);
        let mut named = int();
        named.description.names = true;
        named.description.columns[0].name = "b".into();
        assert_eq!(
            try_row(named, vec![row("a", "int", "NO", None)]),
            "column a was b there"
        );
    }

    #[test]
    fn the_key_is_the_primary_one_or_the_first_unique_one_without_null() {
        let columns = ["a", "b", "c"].map(|name| Column {
            name: name.into(),
            ..column(ColumnType::Int { unsigned: false }, false)
        });
        let description = wanted(vec![]).description;
        let key_of = |rows| key(&description, &columns, &keys(rows)).to_vec();
        assert_eq!(
            key_of(&[("PRIMARY", "c", ""), ("PRIMARY", "a", "")]),
            [2, 0]
        );
        assert_eq!(
            key_of(&[
                ("u1", "a", ""),
                ("u1", "b", "YES"),
                ("u2", "b", ""),
                ("u2", "c", "")
            ]),
            [1, 2]
        );
        assert_eq!(key_of(&[("u1", "a", "YES")]), Vec::<u16>::new());
    }
}
