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
        metadata::describe(columns, self.types, self.optional, self.mariadb)
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
