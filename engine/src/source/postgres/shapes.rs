//! What a relation's description lacks, from the catalog on a connection of its own.

use protocol::postgres::{TypeKind, TypeRow, catalog};
use tokio::task::JoinHandle;

use super::connection::{ConnectOptions, Connection, Purpose};
use super::server::{Answer, Row};
use super::tables::{Index, Wanted};
use crate::source::{SourceError, Verdict};

const ATTEMPTS: usize = 5;

/// A type is made of types at most this deep: arrays of domains over arrays.
const DEPTH_MAX: usize = 16;

/// What the catalog says about a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) indices: Vec<Index>,
    pub(super) types: Vec<TypeRow>,
}

/// Asks the catalog.
#[derive(Debug)]
pub(super) struct Asker {
    options: ConnectOptions,
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
    pub(super) fn new(options: ConnectOptions) -> Self {
        Self {
            options,
            connection: None,
        }
    }

    pub(super) fn ask(&mut self, wanted: Wanted) -> Asking {
        let options = self.options.clone();
        let connection = self.connection.take();
        let question = wanted.clone();
        let task = tokio::spawn(async move {
            let mut connection = connection;
            let shape = look_up(&options, &mut connection, &question).await;
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

async fn look_up(
    options: &ConnectOptions,
    slot: &mut Option<Connection>,
    wanted: &Wanted,
) -> Result<Shape, SourceError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match look_up_once(options, slot, wanted).await {
            Err(error) if error.verdict() == Verdict::Retry && attempt < ATTEMPTS => {
                tracing::warn!("asking the catalog again: {error}");
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
) -> Result<Shape, SourceError> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => Connection::connect(options, Purpose::Queries).await?,
    };
    let keys = connection
        .query(&catalog::keys_of(&[wanted.described.relation]))
        .await?;
    let mut shape = Shape {
        indices: indices(&keys, wanted.described.relation),
        types: Vec::new(),
    };
    let mut missing = wanted.types.clone();
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
            // What it is made of may be unknown, too; the table asks for what remains so.
            missing.extend(
                [row.element, row.base]
                    .into_iter()
                    .filter(|oid| *oid >= FIRST_OF_USERS),
            );
            shape.types.push(row);
        }
        missing.retain(|oid| !shape.types.iter().any(|row| row.oid == *oid));
    }
    *slot = Some(connection);
    Ok(shape)
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

    fn answer(columns: &[&str], rows: &[&[&str]]) -> Answer {
        Answer {
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: (rows.iter())
                .map(|row| row.iter().map(|cell| Some((*cell).to_owned())).collect())
                .collect(),
        }
    }

    #[test]
    fn indices_have_their_columns_in_their_order() {
        let columns = [
            "relation",
            "index",
            "indisprimary",
            "indisreplident",
            "position",
            "attname",
        ];
        let keys = answer(
            &columns,
            &[
                &["7", "t_pkey", "t", "f", "2", "a"],
                &["8", "other", "t", "f", "1", "z"],
                &["7", "t_pkey", "t", "f", "1", "b"],
                &["7", "t_u", "f", "t", "1", "c"],
            ],
        );
        let found = indices(&keys, 7);
        assert_eq!(found.len(), 2);
        let primary = found.iter().find(|index| index.is_primary).unwrap();
        assert_eq!(primary.columns, ["b", "a"]);
        assert!(
            found
                .iter()
                .any(|index| index.is_identity && index.columns == ["c"])
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
        let rows = answer(
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
