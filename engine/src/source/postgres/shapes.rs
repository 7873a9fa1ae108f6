//! What a relation's description lacks, from the catalog on a connection of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::postgres::{MONEY, TypeKind, TypeRow, catalog};
use tokio::sync::OnceCell;

use super::connection::{ConnectOptions, Connection, Purpose};
use super::server::{Answer, Row};
use super::tables::{Index, Question, Wanted};
use crate::source::{SourceError, asker};

/// A type is made of types at most this deep: arrays of domains over arrays.
const DEPTH_MAX: usize = 16;

/// What the catalog says about a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::source) struct Shape {
    pub(super) indices: Vec<Index>,
    pub(super) types: Vec<TypeRow>,
    /// Of a table that was named: its columns; none where the catalog has it no more.
    pub(super) columns: Vec<CatalogColumn>,
    /// How many fractional digits money has, where that was asked.
    pub(super) money_digits: Option<u8>,
    /// `relreplident`; `None` where the catalog has the table no more, or under another name.
    pub(super) identity: Option<u8>,
}

/// A column as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CatalogColumn {
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) type_modifier: i32,
    /// The type as `format_type` writes it.
    pub(super) text: String,
}

/// The system catalog.
#[derive(Debug, Clone)]
pub(in crate::source) struct Catalog {
    options: ConnectOptions,
    /// Asked once.
    money_digits: Arc<OnceCell<u8>>,
}

impl Catalog {
    pub(super) fn new(options: ConnectOptions) -> Self {
        Self {
            options,
            money_digits: Arc::default(),
        }
    }
}

impl asker::Catalog for Catalog {
    type Connection = Connection;
    type Question = Question;
    type Shape = Shape;

    const NAME: &'static str = "the catalog";

    async fn look_up(
        &self,
        slot: &mut Option<Connection>,
        question: &Question,
    ) -> Result<Shape, SourceError> {
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Connection::connect(&self.options, Purpose::Queries).await?,
        };
        let mut shape = match question {
            Question::Relation(wanted) => of_relation(&mut connection, wanted).await?,
            Question::Named { schema, name, .. } => of_name(&mut connection, schema, name).await?,
        };
        let missing = match question {
            Question::Relation(wanted) => wanted.types.clone(),
            Question::Named { types, .. } => (shape.columns.iter())
                .map(|column| column.type_oid)
                .chain(types.iter().copied())
                .filter(|oid| is_to_be_asked(*oid))
                .collect(),
        };
        if learn(&mut connection, &mut shape, missing).await? {
            let digits = self.money_digits.get_or_try_init(|| money(&self.options));
            shape.money_digits = Some(*digits.await?);
        }
        *slot = Some(connection);
        Ok(shape)
    }
}

async fn of_relation(connection: &mut Connection, wanted: &Wanted) -> Result<Shape, SourceError> {
    let described = &wanted.described;
    let relation = described.relation;
    let [keys, tables] = connection
        .query_all([
            &catalog::keys_of(&[relation]),
            &catalog::table_named(&described.schema, &described.name),
        ])
        .await?;
    let is_it = |row: &Row<'_>| row.number("oid") == Some(relation);
    Ok(Shape {
        indices: indices(&keys, relation),
        identity: tables.rows().find(is_it).and_then(|row| identity(&row)),
        ..Shape::default()
    })
}

async fn of_name(
    connection: &mut Connection,
    schema: &str,
    name: &str,
) -> Result<Shape, SourceError> {
    let columns = connection.query(&catalog::columns_of(schema, name)).await?;
    let keys = connection
        .query(&catalog::keys_of_table(schema, name))
        .await?;
    let tables = connection
        .query(&catalog::table_named(schema, name))
        .await?;
    let is_it =
        |row: &Row<'_>| row.text("nspname") == Some(schema) && row.text("relname") == Some(name);
    let Some(table) = tables.rows().find(is_it) else {
        return Ok(Shape::default());
    };
    let relation = table.number("oid").unwrap_or(0);
    let column = |row: Row<'_>| {
        Some(CatalogColumn {
            name: row.text("attname")?.to_owned(),
            type_oid: row.number("atttypid")?,
            type_modifier: row.number("atttypmod")?,
            text: row.text("text")?.to_owned(),
        })
    };
    Ok(Shape {
        indices: indices(&keys, relation),
        columns: columns.rows().filter(is_it).filter_map(column).collect(),
        identity: identity(&table),
        ..Shape::default()
    })
}

fn identity(table: &Row<'_>) -> Option<u8> {
    table.text("relreplident")?.bytes().next()
}

/// How many fractional digits the database's money has.
async fn money(options: &ConnectOptions) -> Result<u8, SourceError> {
    let mut connection = Connection::connect(options, Purpose::Money).await?;
    let answer = connection.query(catalog::MONEY_DIGITS).await?;
    connection.close().await;
    digits(&answer)
}

/// Reads the answer to [`catalog::MONEY_DIGITS`].
fn digits(answer: &Answer) -> Result<u8, SourceError> {
    let digits = answer.first().and_then(|row| row.number("digits"));
    digits.ok_or_else(|| {
        SourceError::halt(
            "the server does not say how many fractional digits the type money has there; leave tables with it out of tables",
        )
    })
}

/// Asks for types, and for what they are made of. Whether money is among them.
async fn learn(
    connection: &mut Connection,
    shape: &mut Shape,
    missing: Vec<u32>,
) -> Result<bool, SourceError> {
    let mut missing = missing;
    let mut has_money = false;
    for _ in 0..DEPTH_MAX {
        has_money |= missing.iter().any(|oid| MONEY.contains(oid));
        missing.retain(|oid| *oid >= FIRST_OF_USERS);
        if missing.is_empty() {
            break;
        }
        let found = types(&connection.query(&catalog::types_of(&missing)).await?);
        let asked = std::mem::take(&mut missing);
        for row in found {
            if !asked.contains(&row.oid) {
                continue;
            }
            missing.extend(
                [row.element, row.base]
                    .into_iter()
                    .filter(|oid| is_to_be_asked(*oid)),
            );
            shape.types.push(row);
        }
        missing.retain(|oid| !shape.types.iter().any(|row| row.oid == *oid));
    }
    Ok(has_money)
}

/// OIDs from here on are not built in (`FirstGenbkiObjectId`).
const FIRST_OF_USERS: u32 = 10_000;

fn is_to_be_asked(oid: u32) -> bool {
    oid >= FIRST_OF_USERS || MONEY.contains(&oid)
}

/// Indices of `relation` from an answer to [`catalog::KEYS`].
pub(super) fn indices(answer: &Answer, relation: u32) -> Vec<Index> {
    let mut all = indices_by_relation(answer);
    all.remove(&relation).unwrap_or_default()
}

/// Indices of every relation in an answer to [`catalog::KEYS`].
pub(super) fn indices_by_relation(answer: &Answer) -> BTreeMap<u32, Vec<Index>> {
    let mut cells: Vec<((u32, u32), Row<'_>)> = (answer.rows())
        .filter_map(|row| Some(((row.number("relation")?, row.number("position")?), row)))
        .collect();
    cells.sort_by_key(|(place, _)| *place);
    let mut all: BTreeMap<u32, Vec<Index>> = BTreeMap::new();
    for ((relation, _), row) in cells {
        let (Some(name), Some(column)) = (row.text("index"), row.text("attname")) else {
            continue;
        };
        let indices = all.entry(relation).or_default();
        match indices.iter_mut().find(|index| index.name == name) {
            Some(index) => index.columns.push(column.to_owned()),
            None => indices.push(Index {
                name: name.to_owned(),
                is_primary: row.is("indisprimary"),
                is_identity: row.is("indisreplident"),
                is_deferrable: !row.is("indimmediate"),
                columns: vec![column.to_owned()],
            }),
        }
    }
    all
}

/// Types from an answer to [`catalog::TYPES`].
pub(super) fn types(answer: &Answer) -> Vec<TypeRow> {
    let byte = |row: &Row<'_>, column: &str| row.text(column)?.bytes().next();
    (answer.rows())
        .filter_map(|row| {
            Some(TypeRow {
                oid: row.number("oid")?,
                schema: row.text("nspname")?.into(),
                name: row.text("typname")?.into(),
                kind: TypeKind::of(row.text("typtype")?)?,
                category: byte(&row, "typcategory")?,
                element: row.number("typelem")?,
                base: row.number("typbasetype")?,
                type_modifier: row.number("typtypmod")?,
                delimiter: byte(&row, "typdelim")?,
                length: row.number("typlen")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_have_their_columns_in_their_order() {
        let columns = [
            "relation",
            "index",
            "indisprimary",
            "indisreplident",
            "indimmediate",
            "position",
            "attname",
        ];
        let keys = Answer::of(
            &columns,
            &[
                &["7", "t_pkey", "t", "f", "f", "2", "a"],
                &["8", "other", "t", "f", "t", "1", "z"],
                &["7", "t_pkey", "t", "f", "f", "1", "b"],
                &["7", "t_u", "f", "t", "t", "1", "c"],
            ],
        );
        let found = indices(&keys, 7);
        assert_eq!(found.len(), 2);
        let primary = found.iter().find(|index| index.is_primary).unwrap();
        assert_eq!(primary.columns, ["b", "a"]);
        assert!(primary.is_deferrable);
        assert!(
            found
                .iter()
                .any(|index| index.is_identity && !index.is_deferrable && index.columns == ["c"])
        );
    }

    #[test]
    fn types_are_read_whole_or_not_at_all() {
        let columns = [
            "oid",
            "nspname",
            "typname",
            "typtype",
            "typcategory",
            "typelem",
            "typbasetype",
            "typtypmod",
            "typdelim",
            "typlen",
        ];
        let rows = Answer::of(
            &columns,
            &[
                &[
                    "16384", "public", "mood", "e", "E", "0", "0", "-1", ",", "4",
                ],
                &["16385", "public", "odd", "?", "E", "0", "0", "-1", ",", "4"],
            ],
        );
        let found = types(&rows);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].oid, found[0].kind), (16_384, TypeKind::Enum));
    }

    #[test]
    fn the_digits_of_money_are_never_guessed() {
        let said = |cells: &[&[&str]]| digits(&Answer::of(&["digits"], cells));
        assert_eq!(said(&[&["0"]]).unwrap(), 0);
        assert_eq!(said(&[&["3"]]).unwrap(), 3);
        for odd in [&[][..], &[&[""][..]], &[&["-1"]]] {
            assert!(said(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn indices_are_those_of_their_tables() {
        let columns = ["relation", "index", "position", "attname"];
        let keys = Answer::of(
            &columns,
            &[
                &["7", "pkey", "2", "a"],
                &["8", "pkey", "1", "z"],
                &["7", "pkey", "1", "b"],
            ],
        );
        let all = indices_by_relation(&keys);
        let columns = |relation| all[&relation][0].columns.clone();
        assert_eq!((all.len(), all[&7].len()), (2, 1));
        assert_eq!(columns(7), ["b", "a"]);
        assert_eq!(columns(8), ["z"]);
    }
}
