//! TABLE_MAP: what the rows of a table id look like.
//!
//! ```text
//! | table id 6 | flags 2 | length 1, database, NUL | length 1, table, NUL | column count lenenc | type 1 each |
//! | metadata length lenenc | metadata | NULL-able bits | optional metadata: { type 1, length lenenc, value } … |
//! ```
//! Source: `libs/mysql/binlog/event/rows_event.{h,cpp}` (MySQL), `sql/log_event_server.cc` (MariaDB). The optional part is written
//! since MySQL 8.0.1 and MariaDB 10.5, as `binlog_row_metadata` says.

mod metadata;

use super::column::{Column, ColumnType};
use super::event::{Format, HEADER_LENGTH, Kind};
use super::lenenc;
use crate::limits::COLUMNS_MAX;
use crate::{Cursor, DecodeError, DecodeErrorKind};
pub use metadata::{Description, KeyPart};

/// A TABLE_MAP event, borrowed; [`TableMap::describe`] makes columns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableMap<'a> {
    /// What ROWS events call the table, until the server flushes it.
    pub table_id: u64,
    /// Database.
    pub database: &'a str,
    /// Table.
    pub table: &'a str,
    /// Everything after the table id. Two events of one table with equal bodies describe the same columns, so a repeated one
    /// need not be described again.
    pub body: &'a [u8],
    /// Whether a MariaDB wrote it.
    pub mariadb: bool,
    types: &'a [u8],
    metadata: &'a [u8],
    nullable: &'a [u8],
    optional: &'a [u8],
    metadata_at: usize,
    optional_at: usize,
}

impl<'a> TableMap<'a> {
    /// `event` is the whole event without its checksum.
    pub(super) fn parse(format: &Format, event: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(event);
        cursor.skip(HEADER_LENGTH, "TABLE_MAP header")?;
        let post_header = format.post_header_length(Kind::TABLE_MAP);
        let table_id = if post_header == 6 {
            u64::from(cursor.u32_le("TABLE_MAP table id")?)
        } else {
            cursor.u48_le("TABLE_MAP table id")?
        };
        let mut rest = cursor;
        let body = rest.rest();
        cursor.skip(2, "TABLE_MAP flags")?;
        let database = name(&mut cursor, "TABLE_MAP database")?;
        let table = name(&mut cursor, "TABLE_MAP table")?;
        let count = lenenc::integer(&mut cursor, "TABLE_MAP column count")?;
        if count > COLUMNS_MAX as u64 {
            return Err(DecodeError::new(
                "TABLE_MAP column count",
                cursor.at() as u64,
                DecodeErrorKind::TooLong {
                    length: count,
                    limit: COLUMNS_MAX as u64,
                },
            ));
        }
        let count = count as usize;
        let types = cursor.take(count, "TABLE_MAP column types")?;
        let metadata = lenenc::string(&mut cursor, "TABLE_MAP metadata")?;
        let metadata_at = cursor.at() - metadata.len();
        let nullable = cursor.take(count.div_ceil(8), "TABLE_MAP NULL bits")?;
        let optional_at = cursor.at();
        Ok(Self {
            table_id,
            database,
            table,
            body,
            mariadb: format.mariadb,
            types,
            metadata,
            nullable,
            optional: cursor.rest(),
            metadata_at,
            optional_at,
        })
    }

    /// Number of columns.
    #[must_use]
    pub const fn column_count(&self) -> usize {
        self.types.len()
    }

    /// The columns and what else the optional metadata say, as far as the server wrote them.
    ///
    /// # Errors
    /// A type that we do not know, metadata that do not fit their columns, labels in a character set that we do not read.
    pub fn describe(&self) -> Result<Description, DecodeError> {
        self.described(true)
    }

    /// The same without labels, which nobody needs who only passes over rows: theirs are no text that could be wrong.
    ///
    /// # Errors
    /// As [`Self::describe`], but for labels.
    pub fn describe_without_labels(&self) -> Result<Description, DecodeError> {
        self.described(false)
    }

    fn described(&self, with_labels: bool) -> Result<Description, DecodeError> {
        let mut columns = Vec::with_capacity(self.types.len());
        let mut cursor = Cursor::new(self.metadata);
        for (index, wire_type) in self.types.iter().enumerate() {
            let kind = ColumnType::read(*wire_type, &mut cursor)
                .map_err(|error| error.shifted(self.metadata_at as u64))?;
            let nullable = self
                .nullable
                .get(index >> 3)
                .is_some_and(|byte| byte >> (index & 7) & 1 != 0);
            columns.push(Column {
                name: Box::default(),
                kind,
                nullable,
                visible: true,
            });
        }
        cursor
            .finish("TABLE_MAP metadata")
            .map_err(|error| error.shifted(self.metadata_at as u64))?;
        let (types, optional) = (self.types, self.optional);
        metadata::describe(columns, types, optional, self.mariadb, with_labels)
            .map_err(|error| error.shifted(self.optional_at as u64))
    }
}

/// `| length lenenc | name | NUL |`, UTF-8.
fn name<'a>(cursor: &mut Cursor<'a>, what: &'static str) -> Result<&'a str, DecodeError> {
    let bytes = lenenc::string(cursor, what)?;
    let at = (cursor.at() - bytes.len()) as u64;
    let nul = cursor.u8(what)?;
    if nul != 0 {
        return Err(cursor.invalid(what, u64::from(nul)));
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::new(what, at, DecodeErrorKind::Encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `CREATE TABLE im (id INT PRIMARY KEY, m ENUM('A', 'ü'), s SET('x', 'é')) DEFAULT CHARSET=binary` as MariaDB 10.11 writes it with
    /// `binlog_row_metadata=FULL`, its labels' collation and the last one of ENUM given.
    fn with_labels(collation: u8, label: &[u8]) -> TableMap<'static> {
        let mut optional = b"\x01\x01\0\x04\x07\x02id\x01m\x01s".to_vec();
        optional.extend_from_slice(&[10, 1, collation]);
        optional.extend_from_slice(b"\x05\x06\x02\x01x\x02\xc3\xa9");
        optional.extend_from_slice(&[6, 4 + label.len() as u8, 2, 1, b'A', label.len() as u8]);
        optional.extend_from_slice(label);
        optional.extend_from_slice(&[8, 1, 0]);
        TableMap {
            table_id: 31,
            database: "shop",
            table: "im",
            body: &[],
            mariadb: true,
            types: &[3, 254, 254],
            metadata: &[247, 1, 248, 1],
            nullable: &[0b110],
            optional: optional.leak(),
            metadata_at: 0,
            optional_at: 0,
        }
    }

    fn labels(description: &Description) -> Vec<Vec<&str>> {
        let labels = description.columns.iter().map(|column| match &column.kind {
            ColumnType::Enum { labels, .. } | ColumnType::Set { labels, .. } => &**labels,
            _ => &[],
        });
        labels
            .map(|labels| labels.iter().map(|label| &**label).collect())
            .collect()
    }

    #[test]
    fn labels_of_binary_are_text() {
        let description = with_labels(63, "ü".as_bytes()).describe().unwrap();
        assert_eq!(
            labels(&description),
            [vec![], vec!["A", "ü"], vec!["x", "é"]]
        );
        assert!(description.labels && description.names);
    }

    #[test]
    fn labels_that_are_no_text_are_an_error_for_who_needs_them() {
        for (collation, label) in [(63, &b"\xfc"[..]), (45, b"\xfc"), (0x7f, b"y")] {
            let map = with_labels(collation, label);
            map.describe().unwrap_err();
            let description = map.describe_without_labels().unwrap();
            assert_eq!(labels(&description), [const { Vec::<&str>::new() }; 3]);
            assert!(!description.labels && description.names);
        }
    }
}
