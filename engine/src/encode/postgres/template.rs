//! What can be prepared of PostgreSQL's tables.

use crate::encode::template::{SourceParts, pieces, string};
use crate::schema::{Postgres, Table};

/// The table's parts of the `source` block.
pub(in crate::encode) fn source_parts(table: &Table, of: &Postgres) -> SourceParts {
    SourceParts {
        database: pieces(&[
            b",\"snapshot\":\"false\",\"db\":",
            &string(&of.database),
            b",\"sequence\":\"[",
        ]),
        table: pieces(&[
            b",\"schema\":",
            &string(&table.schema),
            b",\"table\":",
            &string(&table.name),
            b",\"txId\":",
        ]),
    }
}
