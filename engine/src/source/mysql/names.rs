//! Names of tables: as statements write them, and as the server stores them and TABLE_MAP events have them.
//!
//! With `lower_case_table_names` the two differ: `UPDATE Orders` changes a table that is `orders` everywhere else.

use protocol::mysql::statement::TableName;

/// The database and the name of a table that a statement names, as the server stores them: in lower case where it `folds` names.
/// `database` is the session's default one.
pub(super) fn stored(table: &TableName, database: &[u8], folds: bool) -> (String, String) {
    let schema = match &table.database {
        Some(database) => database.as_str().into(),
        None => String::from_utf8_lossy(database),
    };
    match folds {
        true => (folded(&schema), folded(&table.table)),
        false => (schema.into_owned(), table.table.clone()),
    }
}

/// A name in lower case as the server makes it: each character by itself, and one for one.
pub(super) fn folded(name: &str) -> String {
    lower(name).collect()
}

/// Whether two names differ in nothing but case.
pub(super) fn are_same(one: &str, other: &str) -> bool {
    lower(one).eq(lower(other))
}

fn lower(name: &str) -> impl Iterator<Item = char> {
    name.chars()
        .map(|character| character.to_lowercase().next().unwrap_or(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_folds_names_stores_other_ones_than_statements_write() {
        let table = |database: Option<&str>| TableName {
            database: database.map(str::to_owned),
            table: "ÜBER_Orders".into(),
        };
        let name = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        for (database, schema) in [(None, "Shop"), (Some("Other"), "Other")] {
            let table = table(database);
            let as_written = name(schema, "ÜBER_Orders");
            assert_eq!(stored(&table, b"Shop", false), as_written);
            let folded = name(&schema.to_lowercase(), "über_orders");
            assert_eq!(stored(&table, b"Shop", true), folded);
        }
    }

    #[test]
    fn names_differ_in_case_whatever_their_letters() {
        assert!(are_same("ÜBER", "über"));
        assert!(are_same("ΟΔΟΣ", "οδοσ"));
        assert!(!are_same("uber", "über"));
        assert!(!are_same("a", "ab"));
        // As MariaDB 10.11 stores it: İ becomes one character, and Σ is the same at the end as elsewhere.
        assert_eq!(folded("ÜBERİΣ"), "überiσ");
    }
}
