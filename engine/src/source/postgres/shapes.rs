//! What a relation's description lacks, from the catalog on a connection of its own.

use protocol::postgres::{TypeKind, TypeRow, catalog};

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
}

impl Catalog {
    pub(super) fn new(options: ConnectOptions) -> Self {
        Self { options }
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
            Question::Named { schema, name } => of_name(&mut connection, schema, name).await?,
        };
        let missing = match question {
            Question::Relation(wanted) => wanted.types.clone(),
            Question::Named { .. } => (shape.columns.iter())
                .map(|column| column.type_oid)
                .filter(|oid| *oid >= FIRST_OF_USERS)
                .collect(),
        };
        learn(&mut connection, &mut shape, missing).await?;
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
        types: Vec::new(),
        columns: columns.rows().filter(is_it).filter_map(column).collect(),
        identity: identity(&table),
    })
}

fn identity(table: &Row<'_>) -> Option<u8> {
    table.text("relreplident")?.bytes().next()
}

/// Asks for types, and for what they are made of.
async fn learn(
    connection: &mut Connection,
    shape: &mut Shape,
    missing: Vec<u32>,
) -> Result<(), SourceError> {
    let mut missing = missing;
    for _ in 0..DEPTH_MAX {
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
                    .filter(|oid| *oid >= FIRST_OF_USERS),
            );
            shape.types.push(row);
        }
        missing.retain(|oid| !shape.types.iter().any(|row| row.oid == *oid));
    }
    Ok(())
}

/// OIDs from here on are not built in (`FirstGenbkiObjectId`).
const FIRST_OF_USERS: u32 = 10_000;

/// Indices of `relation` from an answer to [`catalog::KEYS`].
pub(super) fn indices(answer: &Answer, relation: u32) -> Vec<Index> {
    let mut cells: Vec<(u32, Row<'_>)> = (answer.rows())
        .filter(|row| row.number("relation") == Some(relation))
        .filter_map(|row| Some((row.number("position")?, row)))
        .collect();
    cells.sort_by_key(|(position, _)| *position);
    let mut indices: Vec<Index> = Vec::new();
    for (_, row) in cells {
        let (Some(name), Some(column)) = (row.text("index"), row.text("attname")) else {
            continue;
        };
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
    indices
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
}
