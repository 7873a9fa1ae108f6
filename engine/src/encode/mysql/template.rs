//! What can be prepared of MySQL's tables.

use protocol::mysql::{Column, ColumnType};

use crate::encode::template::{SourceParts, pieces, string};
use crate::schema::Table;

/// The table's parts of the `source` block.
pub(in crate::encode) fn source_parts(table: &Table) -> SourceParts {
    SourceParts {
        database: pieces(&[
            b",\"snapshot\":\"false\",\"db\":",
            &string(&table.schema),
            b",\"sequence\":null",
        ]),
        table: pieces(&[b",\"table\":", &string(&table.name), b",\"server_id\":"]),
    }
}

/// The columns that records have, of a table's columns: those at its end without a name are the server's own.
pub(in crate::encode) fn written(columns: &[Column]) -> &[Column] {
    let end = columns.iter().rposition(|column| !column.name.is_empty());
    &columns[..end.map_or(0, |last| last + 1)]
}

/// Whether ASCII bytes of the column are the same in UTF-8. Asks the decoder itself, rather than a second list of character sets.
pub(in crate::encode) fn keeps_ascii(column: &Column) -> bool {
    let charset = match &column.kind {
        ColumnType::Char { charset, .. }
        | ColumnType::VarChar { charset, .. }
        | ColumnType::Text { charset, .. } => charset,
        _ => return false,
    };
    let ascii: Vec<u8> = (0x20..0x7f).collect();
    matches!(charset.decode(&ascii), Ok(text) if *text == *String::from_utf8_lossy(&ascii))
}
