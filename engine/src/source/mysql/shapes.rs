//! The shape of tables whose TABLE_MAP says too little, from information_schema on a connection of its own.
//!
//! With `binlog_row_metadata=MINIMAL` (MySQL's default) a TABLE_MAP has types and signedness, with MariaDB's default `NO_LOG` types
//! alone. Names, key, character sets and labels are asked from the server, and must agree with everything that the event does say:
//! column count, types, sizes, NULL-ability. What disagrees was changed since: the shape at this place cannot be known, and the
//! stream halts rather than guess. So it does where nothing disagrees but the binary log changes the table between this place and
//! the server's end ([`super::outlook`]): a column that was renamed has the type it had.
//!
//! With `FULL` everything is in the TABLE_MAP but for what MariaDB writes of some types. Of these columns alone the type is asked, by
//! the name that they have there: the table may have been altered since.

mod declared;
mod hashes;
mod untold;
mod versioned;

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::mysql::Column;
use protocol::mysql::gtid::Flavour;
use protocol::mysql::table_map::Description;
use tokio::sync::Mutex;

use self::declared::{Declared, charset};
pub(super) use self::hashes::unname as unname_hashes;
pub(super) use self::untold::{hidden_widths, hides_widths, is_whole};
use self::untold::{says_all, settle};
use super::connection::{ConnectOptions, Connection};
use super::outlook::Outlook;
use super::server::Answer;
use super::session;
use super::tables::Wanted;
use super::transaction::Place;
use super::versions::Described;
use crate::config::Selection;
use crate::source::{Identity, SourceError, asker};

/// A table as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Shape {
    pub(super) columns: Vec<Column>,
    pub(super) key: Box<[u16]>,
    /// What it was made from.
    pub(super) described: Described,
}

/// A table whose TABLE_MAP says too little, and where that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Question {
    pub(super) wanted: Wanted,
    /// Where the transaction begins that has the TABLE_MAP.
    pub(super) from: Place,
    /// The server whose log it is in.
    pub(super) server: Identity,
}

/// information_schema.
#[derive(Debug, Clone)]
pub(in crate::source) struct Catalog {
    options: ConnectOptions,
    flavour: Flavour,
    selection: Selection,
    /// What is known of the log between the stream and the server's end.
    outlook: Arc<Mutex<Option<Outlook>>>,
}

impl Catalog {
    pub(super) fn new(options: ConnectOptions, flavour: Flavour, selection: Selection) -> Self {
        Self {
            options,
            flavour,
            selection,
            outlook: Arc::default(),
        }
    }

    /// Refuses a table that is changed between its place in the stream and `until`, where it was described.
    async fn unchanged(&self, question: &Question, until: Place) -> Result<(), SourceError> {
        let Question {
            wanted,
            from,
            server,
        } = question;
        let mut kept = self.outlook.lock().await;
        let outlook = match &mut *kept {
            Some(outlook) if outlook.covers(server, from) => outlook,
            other => other.insert(Outlook::new(server.clone(), from.clone())),
        };
        outlook
            .extend(&self.options, &self.selection, &until)
            .await?;
        let Wanted { schema, name, .. } = wanted;
        match outlook.change(schema, name, from) {
            None => Ok(()),
            Some(change) => Err(SourceError::halt(format!(
                "the names of {schema}.{name}'s columns at {} cannot be known: the binary log has none there (binlog_row_metadata was \
                 not FULL), and its definition was changed since, last at {} by {:?}; run SET GLOBAL binlog_row_metadata = FULL for what \
                 comes, then take a new snapshot of the table and go on behind the change by `walbrook position set` with {}, or \
                 leave the table out by tables = [\"!{schema}.{name}\"]",
                from.to_position(),
                change.at.to_position(),
                change.statement,
                change.end.to_position()
            ))),
        }
    }
}

impl asker::Catalog for Catalog {
    type Connection = Connection;
    type Question = Question;
    type Shape = Shape;

    const NAME: &'static str = "information_schema";

    async fn look_up(
        &self,
        slot: &mut Option<Connection>,
        question: &Question,
    ) -> Result<Shape, SourceError> {
        let wanted = &question.wanted;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Connection::connect(&self.options).await?,
        };
        let columns = connection
            .query(&columns_query(&wanted.schema, &wanted.name))
            .await?;
        let keys = connection.query(&keys_query(wanted)).await?;
        let mut described = Described {
            columns: session::text(columns),
            keys: session::text(keys),
        };
        if self.flavour == Flavour::MariaDb && versioned::may_be(wanted, &described) {
            let types = connection.query(&versioned::type_query(wanted)).await?;
            if versioned::is_one(&session::text(types)) {
                described = versioned::complete(described);
            }
        }
        let status = session::status(&mut connection).await?;
        *slot = Some(connection);
        let shape = shape(wanted, described, self.flavour).map_err(|mismatch| {
            let Wanted { schema, name, .. } = wanted;
            let at = question.from.to_position();
            SourceError::halt(match says_all(&wanted.description, wanted.captured) {
                false => format!(
                    "the shape of {schema}.{name} at {at} cannot be known: the binary log has only its columns' types there, and the \
                     table is another one now ({mismatch}); run SET GLOBAL binlog_row_metadata = FULL for what comes, and start \
                     after the table's last ALTER by `walbrook position set`, or leave it out by tables = [\"!{schema}.{name}\"]"
                ),
                true => format!(
                    "the types of {schema}.{name}'s columns at {at} cannot be known: MariaDB's binary log does not tell UUID and INET \
                     from BINARY, nor how many digits temporal columns from before 10.1 have, and the table is another one now \
                     ({mismatch}); take a new snapshot of the table and start after its last ALTER by `walbrook position set`, or \
                     leave it out by tables = [\"!{schema}.{name}\"]"
                ),
            })
        })?;
        // Names in the stream itself are proof enough.
        if wanted.captured && !wanted.description.names {
            let status =
                status.ok_or_else(|| SourceError::halt("the server's binary log has no status"))?;
            self.unchanged(question, Place::new(&status.position))
                .await?;
        }
        Ok(shape)
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Asks for the columns of a table, whose names come first.
pub(super) fn columns_query(schema: &str, table: &str) -> String {
    format!(
        "SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, EXTRA, CHARACTER_SET_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
        quoted(schema),
        quoted(table)
    )
}

fn keys_query(wanted: &Wanted) -> String {
    format!(
        "SELECT INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, NULLABLE, NON_UNIQUE, INDEX_TYPE FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quoted(&wanted.schema),
        quoted(&wanted.name)
    )
}

/// What the TABLE_MAP and the server's present description disagree about.
pub(super) type Mismatch = String;

/// Joins what the TABLE_MAP says with the server's description.
pub(super) fn shape(
    wanted: &Wanted,
    described: Described,
    flavour: Flavour,
) -> Result<Shape, Mismatch> {
    let description = &wanted.description;
    let listed = &described.columns;
    if listed.is_empty() {
        return Err("it is gone, or the user may not see it: GRANT SELECT on it".into());
    }
    let hashes = match flavour {
        Flavour::MariaDb => hashes::count(description, &described),
        Flavour::MySql => 0,
    };
    let (shown, hashes) = (description.columns).split_at(description.columns.len() - hashes);
    let mut joined = if says_all(description, wanted.captured) {
        let settle = |column| settle(wanted, column, listed, flavour);
        shown.iter().map(settle).collect()
    } else if listed.len() != shown.len() {
        Err(format!("{} columns, {} there", listed.len(), shown.len()))
    } else {
        let joined = shown.iter().zip(listed);
        joined
            .map(|(column, row)| join(description, column, row, flavour))
            .collect::<Result<Vec<Column>, Mismatch>>()
    }?;
    joined.extend(hashes.iter().cloned());
    let key = key(description, &joined, &described.keys);
    Ok(Shape {
        columns: joined,
        key,
        described,
    })
}

/// The key's columns: as the TABLE_MAP says, where it says something of keys, otherwise the primary key, otherwise the first unique
/// index without NULL.
///
/// With names a TABLE_MAP has a key, too, where the table has one. For the servers that is the primary key, and without one the first
/// unique index over whole columns without NULL (`TABLE_SHARE::primary_key`). So where there are names and no key there was none, and
/// an index that information_schema has is of a later time.
fn key(description: &Description, columns: &[Column], keys: &Answer) -> Box<[u16]> {
    if let Some(parts) = &description.primary_key {
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

#[cfg(test)]
mod tests {
    use protocol::mysql::ColumnType;
    use protocol::mysql::charset::Charset;
    use protocol::mysql::table_map::KeyPart;

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
            geometries: false,
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
        let described = Described {
            columns,
            keys: keys(&[("name", "name", "YES"), ("u", "id", "")]),
        };
        let shape = shape(&wanted, described, Flavour::MariaDb).unwrap();
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
        let try_row = |wanted: Wanted, columns: Vec<Vec<Option<String>>>| {
            let keys = Answer::new();
            shape(&wanted, Described { columns, keys }, Flavour::MySql).unwrap_err()
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
        // The log speaks of keys: what it does not name was not there.
        let rows = keys(&[("PRIMARY", "c", ""), ("u1", "a", "")]);
        for (logged, expected) in [(vec![], vec![]), (vec![1], vec![1])] {
            let part = |column| KeyPart { column, prefix: 0 };
            let description = Description {
                primary_key: Some(logged.into_iter().map(part).collect()),
                ..wanted(vec![]).description
            };
            assert_eq!(key(&description, &columns, &rows).to_vec(), expected);
        }
    }
}
