//! The columns that MariaDB from 10.4 on adds to a table for its unique indices that are hashes (`UNIQUE (text)`, `UNIQUE … USING HASH`),
//! one each, which information_schema does not list and no SELECT shows.
//!
//! ```text
//! TABLE_MAP             id ─ t ─ DB_ROW_HASH_1     of a system-versioned table behind row_end
//! information_schema    id ─ t                     index t: NON_UNIQUE 0, INDEX_TYPE HASH
//! ```
//! Their values stand in every row image. They are read like others and not written: a column at the end without a name.
//! Source: `add_hash_field` in `sql/sql_table.cc`.

use std::collections::BTreeSet;

use protocol::mysql::table_map::Description;
use protocol::mysql::{Column, ColumnType};

use super::super::versions::Described;

/// What the server calls them, with a number behind it that makes the name unique in its table.
const PREFIX: &str = "DB_ROW_HASH_";

/// Takes the names from those that the binary log names.
pub(in crate::source::mysql) fn unname(columns: &mut [Column]) {
    for column in columns.iter_mut().rev() {
        let number = column.name.strip_prefix(PREFIX);
        let is_named = number.is_some_and(|number| number.parse::<u32>().is_ok());
        if !is_named || !may_be_one(column, true) {
            return;
        }
        column.name = Box::default();
    }
}

/// How many there are at the end of a table's columns: those without a name where the binary log has names, otherwise as many as the
/// table has such indices, where it has so many columns more.
pub(super) fn count(description: &Description, described: &Described) -> usize {
    let columns = &description.columns;
    if description.names {
        let unnamed = |column: &&Column| column.name.is_empty();
        return columns.iter().rev().take_while(unnamed).count();
    }
    let mut indices = BTreeSet::new();
    for key in &described.keys {
        // Of tables in memory every index is a hash, and none has a column.
        if let [Some(index), _, _, _, Some(non_unique), Some(kind)] = key.as_slice()
            && non_unique == "0"
            && kind == "HASH"
        {
            indices.insert(index);
        }
    }
    let listed = described.columns.len();
    let added = (columns.len().checked_sub(indices.len()))
        .filter(|rest| *rest >= listed)
        .map_or(&[][..], |rest| &columns[rest..]);
    let fit = (added.iter()).all(|column| may_be_one(column, description.signedness));
    if fit { added.len() } else { 0 }
}

/// `BIGINT UNSIGNED`. `signedness`: whether the binary log tells it from BIGINT.
fn may_be_one(column: &Column, signedness: bool) -> bool {
    matches!(column.kind, ColumnType::BigInt { unsigned } if unsigned || !signedness)
}

#[cfg(test)]
mod tests {
    use protocol::mysql::gtid::Flavour;

    use super::super::super::server::Answer;
    use super::super::super::tables::Wanted;
    use super::super::{shape, versioned};
    use super::*;

    const INT: ColumnType = ColumnType::Int { unsigned: false };
    const HASH: ColumnType = ColumnType::BigInt { unsigned: false };
    const TIME: ColumnType = ColumnType::Timestamp { fsp: 6, old: false };

    /// A TABLE_MAP of these, with nothing but types.
    fn wanted(kinds: &[ColumnType]) -> Wanted {
        let column = |kind: &ColumnType| Column {
            name: Box::default(),
            kind: kind.clone(),
            nullable: false,
            visible: true,
        };
        Wanted::for_test(Description {
            columns: kinds.iter().map(column).collect(),
            names: false,
            signedness: false,
            charsets: false,
            labels: false,
            geometries: false,
            primary_key: None,
        })
    }

    fn rows<const N: usize>(rows: &[[&str; N]]) -> Answer {
        let row = |row: &[&str; N]| row.map(|cell| Some(cell.to_owned())).to_vec();
        rows.iter().map(row).collect()
    }

    /// As MariaDB 10.11 answers of `(id INT PRIMARY KEY, v INT NOT NULL, UNIQUE a (v) USING HASH, UNIQUE b (v, id) USING HASH)`, the
    /// character set left out.
    fn described() -> Described {
        Described {
            columns: rows(&[
                ["id", "int(11)", "NO", "", ""],
                ["v", "int(11)", "NO", "", ""],
            ]),
            keys: rows(&[
                ["PRIMARY", "1", "id", "", "0", "BTREE"],
                ["a", "1", "v", "", "0", "HASH"],
                ["b", "1", "v", "", "0", "HASH"],
                ["b", "2", "id", "", "0", "HASH"],
                ["c", "1", "id", "", "1", "HASH"],
            ]),
        }
    }

    fn names(columns: &[Column]) -> Vec<&str> {
        columns.iter().map(|column| &*column.name).collect()
    }

    #[test]
    fn there_is_a_column_without_a_name_for_each_index() {
        let plain = shape(
            &wanted(&[INT, INT, HASH, HASH]),
            described(),
            Flavour::MariaDb,
        );
        let plain = plain.unwrap();
        assert_eq!(names(&plain.columns), ["id", "v", "", ""]);
        assert_eq!(plain.columns[3].kind, HASH);
        assert_eq!(*plain.key, [0]);
        // What is kept for a restart says what the server said.
        assert_eq!(plain.described, described());

        let wanted = wanted(&[INT, INT, TIME, TIME, HASH, HASH]);
        assert!(versioned::may_be(&wanted, &described()));
        let complete = versioned::complete(described());
        let shape = shape(&wanted, complete, Flavour::MariaDb).unwrap();
        let expected = ["id", "v", "row_start", "row_end", "", ""];
        assert_eq!(names(&shape.columns), expected);
        assert_eq!(*shape.key, [0, 3]);
    }

    #[test]
    fn other_columns_are_none_of_these() {
        for kinds in [
            &[INT, INT, INT, HASH][..],
            &[INT, INT, HASH],
            &[INT, INT, HASH, HASH, HASH],
        ] {
            let said = shape(&wanted(kinds), described(), Flavour::MariaDb).unwrap_err();
            assert!(said.contains("2 columns, "), "{said}");
        }
        // As of a table in memory: no more columns than are listed.
        let shape_of = |wanted: &Wanted| shape(wanted, described(), Flavour::MariaDb);
        assert_eq!(
            names(&shape_of(&wanted(&[INT, INT])).unwrap().columns),
            ["id", "v"]
        );
        let mut signed = wanted(&[INT, INT, HASH, HASH]);
        signed.description.signedness = true;
        shape_of(&signed).unwrap_err();
        // Kept by a version that did not ask for the kind of an index.
        let mut old = described();
        for key in &mut old.keys {
            key.truncate(5);
        }
        shape(&wanted(&[INT, INT, HASH, HASH]), old, Flavour::MariaDb).unwrap_err();
        // MySQL has none.
        let wanted = wanted(&[INT, INT, HASH, HASH]);
        shape(&wanted, described(), Flavour::MySql).unwrap_err();
    }

    #[test]
    fn names_of_the_log_tell_them() {
        let unsigned = ColumnType::BigInt { unsigned: true };
        let named = |columns: &[(&str, &ColumnType)]| {
            let column = |(name, kind): &(&str, &ColumnType)| Column {
                name: (*name).into(),
                kind: (*kind).clone(),
                nullable: true,
                visible: true,
            };
            let mut columns: Vec<Column> = columns.iter().map(column).collect();
            unname(&mut columns);
            columns
        };
        let columns = named(&[
            ("id", &INT),
            ("DB_ROW_HASH_1", &unsigned),
            ("n", &INT),
            ("DB_ROW_HASH_2", &unsigned),
            ("DB_ROW_HASH_3", &unsigned),
        ]);
        assert_eq!(names(&columns), ["id", "DB_ROW_HASH_1", "n", "", ""]);
        for (name, kind) in [
            ("DB_ROW_HASH_1", &HASH),
            ("DB_ROW_HASH_1", &INT),
            ("DB_ROW_HASH_x", &unsigned),
            ("DB_ROW_HASH_", &unsigned),
            ("hash", &unsigned),
        ] {
            assert_eq!(names(&named(&[("id", &INT), (name, kind)])), ["id", name]);
        }
    }
}
