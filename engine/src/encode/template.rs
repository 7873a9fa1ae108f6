//! What can be prepared of a table's records: once per table version, so that a row only fills the gaps.

use std::sync::Arc;

use protocol::kafka::murmur2;
use protocol::{mysql, postgres};

use crate::config::EncodeSettings;
use crate::encoded::Route;
use crate::schema::{Columns, Table};

use super::mysql::template as of_mysql;
use super::postgres::template as of_postgres;
use super::text::{write_key_string, write_string};

/// The constant parts of one table version's records, and where they go.
#[derive(Debug)]
pub struct Template {
    pub(super) table: Arc<Table>,
    pub(super) route: Route,
    /// Bytes that a record batch of the topic may have as sent.
    pub(super) batch_max: usize,
    /// In table order.
    pub(super) columns: Box<[ColumnTemplate]>,
    /// In key order; empty for a null key.
    pub(super) key: Box<[KeyColumn]>,
    /// A key column of which an update without an image before does not say what it was; PostgreSQL only, where the configuration names
    /// the key.
    pub(super) unseen_key_column: Option<u16>,
    /// The partition of records without a key.
    pub(super) null_key_partition: u32,
    /// `,"source":{"version":…,"name":…,"ts_ms":`
    pub(super) source_head: Box<[u8]>,
    /// `,"snapshot":"false","db":…,"sequence":null`; PostgreSQL: up to `"sequence":"[`
    pub(super) source_database: Box<[u8]>,
    /// `,"table":…,"server_id":`; PostgreSQL: `,"schema":…,"table":…,"txId":`
    pub(super) source_table: Box<[u8]>,
}

/// What can be prepared of a column.
#[derive(Debug)]
pub(super) struct ColumnTemplate {
    /// `{"name":` of the first column, `,"name":` of the others.
    pub(super) prefix: Prefix,
    /// MySQL: whether ASCII bytes of the column are the same in UTF-8: true of every character set but UCS-2, UTF-16, UTF-32 and SWE7.
    /// PostgreSQL: true, it sends UTF-8.
    pub(super) ascii: bool,
}

/// What can be prepared of a key's column.
#[derive(Debug)]
pub(super) struct KeyColumn {
    /// Index in table order.
    pub(super) column: u16,
    /// `{"name":` of the first column, `,"name":` of the others.
    pub(super) prefix: Prefix,
}

/// A short constant text. Those of up to 32 bytes are copied as 32, of which the surplus is cut off again: that is a few
/// instructions, where a copy of a length that only the run knows is a call.
#[derive(Debug)]
pub(super) struct Prefix {
    short: [u8; Self::SHORT],
    length: usize,
    /// The whole text where it is longer.
    long: Option<Box<[u8]>>,
}

impl Prefix {
    const SHORT: usize = 32;

    fn new(text: &[u8]) -> Self {
        let mut short = [0; Self::SHORT];
        let long = match short.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text);
                None
            }
            None => Some(text.into()),
        };
        Self {
            short,
            length: text.len(),
            long,
        }
    }

    /// Appends it.
    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match &self.long {
            None => {
                let end = out.len() + self.length;
                out.extend_from_slice(&self.short);
                out.truncate(end);
            }
            Some(text) => out.extend_from_slice(text),
        }
    }
}

impl Template {
    /// Prepares what the records of `table` have in common when they go to `route`, whose topic takes record batches of
    /// `settings.batch_max` bytes.
    ///
    /// # Errors
    /// `settings.keys` names a column that the table does not have.
    pub fn new(
        table: Arc<Table>,
        route: Route,
        settings: &EncodeSettings,
    ) -> Result<Arc<Self>, UnknownKeyColumn> {
        let columns: Vec<(&str, bool)> = match &table.columns {
            Columns::MySql(columns) => of_mysql::written(columns)
                .iter()
                .map(|column| (&*column.name, of_mysql::keeps_ascii(column)))
                .collect(),
            Columns::Postgres(of) => of
                .columns
                .iter()
                .map(|column| (&*column.name, true))
                .collect(),
        };
        let source = match &table.columns {
            Columns::MySql(_) => of_mysql::source_parts(&table),
            Columns::Postgres(of) => of_postgres::source_parts(&table, of),
        };
        let column_templates = columns
            .iter()
            .enumerate()
            .map(|(n, (name, ascii))| ColumnTemplate {
                prefix: prefix(n, name, write_string),
                ascii: *ascii,
            })
            .collect();
        let numbers = match &table.columns {
            // All that is known of it is its name, from a TRUNCATE, whose record has no key.
            Columns::MySql(none) if none.is_empty() => Box::default(),
            _ => key_columns(&table, &columns, settings)?,
        };
        let unseen_key_column = match &table.columns {
            Columns::Postgres(of) if numbers != table.key => {
                // With FULL every update has one: whatever comes without is of a partition whose identity may lack any column.
                let is_unseen = |number: &u16| of.is_full || !of.identity.contains(number);
                numbers.iter().copied().find(is_unseen)
            }
            _ => None,
        };
        let key = numbers
            .iter()
            .filter_map(|n| columns.get(usize::from(*n)).map(|(name, _)| (*n, name)))
            .enumerate()
            .map(|(place, (column, name))| KeyColumn {
                column,
                prefix: prefix(place, name, write_key_string),
            })
            .collect();
        let whole_name = format!("{}.{}", table.schema, table.name);
        let null_key_partition = murmur2::partition(whole_name.as_bytes(), route.partitions.max(1));
        Ok(Arc::new(Self {
            batch_max: settings.batch_max,
            columns: column_templates,
            key,
            unseen_key_column,
            null_key_partition,
            source_head: source_head(settings),
            source_database: source.database,
            source_table: source.table,
            table,
            route,
        }))
    }

    /// The table version that it was made for.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Where its records go.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// MySQL's columns.
    #[inline]
    pub(super) fn mysql_columns(&self) -> &[mysql::Column] {
        self.table.columns.mysql()
    }

    /// PostgreSQL's columns.
    #[inline]
    pub(super) fn postgres_columns(&self) -> &[postgres::Column] {
        self.table.columns.postgres()
    }

    /// A column's name for messages.
    #[cold]
    pub(super) fn column_name(&self, column: usize) -> Box<str> {
        let name = match &self.table.columns {
            Columns::MySql(columns) => columns.get(column).map(|of| &of.name),
            Columns::Postgres(of) => of.columns.get(column).map(|of| &of.name),
        };
        match name {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("number {}", column + 1).into(),
        }
    }
}

/// Numbers of the columns that make the key: those that the configuration names, otherwise the table's own.
fn key_columns(
    table: &Table,
    columns: &[(&str, bool)],
    settings: &EncodeSettings,
) -> Result<Box<[u16]>, UnknownKeyColumn> {
    let Some(names) = settings.keys.of(&table.schema, &table.name) else {
        return Ok(table.key.clone());
    };
    let number = |name: &String| {
        let at = columns.iter().position(|(column, _)| column == name);
        at.and_then(|at| u16::try_from(at).ok())
            .ok_or_else(|| UnknownKeyColumn {
                table: format!("{}.{}", table.schema, table.name).into(),
                column: name.as_str().into(),
                columns: columns.iter().map(|(name, _)| (*name).into()).collect(),
            })
    };
    names.iter().map(number).collect()
}

/// The configuration names a key column that a table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`keys` names column {column} of table {table}, which has {} at this place of the stream; name columns that it has, or \
     leave the table out of keys for its own key",
    .columns.join(", ")
)]
pub struct UnknownKeyColumn {
    /// `schema.table`.
    pub table: Box<str>,
    /// What it does not have.
    pub column: Box<str>,
    /// What it has.
    pub columns: Box<[Box<str>]>,
}

/// A table's parts of the `source` block.
pub(super) struct SourceParts {
    pub(super) database: Box<[u8]>,
    pub(super) table: Box<[u8]>,
}

fn source_head(settings: &EncodeSettings) -> Box<[u8]> {
    pieces(&[
        b",\"source\":{\"version\":",
        &string(settings.version),
        b",\"connector\":",
        &string(settings.connector),
        b",\"name\":",
        &string(&settings.source),
        b",\"ts_ms\":",
    ])
}

fn prefix(place: usize, name: &str, write: impl Fn(&mut Vec<u8>, &str)) -> Prefix {
    let mut text = vec![if place == 0 { b'{' } else { b',' }];
    write(&mut text, name);
    text.push(b':');
    Prefix::new(&text)
}

/// A JSON string.
pub(super) fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

/// Texts put together.
pub(super) fn pieces(pieces: &[&[u8]]) -> Box<[u8]> {
    pieces.concat().into()
}
