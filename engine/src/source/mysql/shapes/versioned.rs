//! The two columns that MariaDB adds to a system-versioned table, which information_schema does not list.
//!
//! ```text
//! TABLE_MAP             id ─ v ─ row_start ─ row_end     key: id, row_end
//! information_schema    id ─ v                           key: id
//! ```
//! A table whose statement names them itself lists them like any others.

use std::collections::BTreeMap;

use protocol::mysql::ColumnType;

use super::super::server::Answer;
use super::super::tables::Wanted;
use super::super::versions::Described;
use super::{hashes, quoted};

/// Their names, in the order of the columns.
const START: &str = "row_start";
const END: &str = "row_end";

/// Whether a table has two more columns in the stream than it lists, and these could be the ones.
pub(super) fn may_be(wanted: &Wanted, described: &Described) -> bool {
    let columns = &wanted.description.columns;
    let hashes = hashes::count(&wanted.description, described);
    let columns = &columns[..columns.len() - hashes];
    let Some((listed, added @ [start, end])) = columns.split_last_chunk::<2>() else {
        return false;
    };
    let fits = added.iter().all(|column| {
        !column.nullable
            && matches!(
                column.kind,
                ColumnType::Timestamp { fsp: 6, .. } | ColumnType::Timestamp { old: true, .. }
            )
    });
    let named = match wanted.description.names {
        // The table may have been altered since.
        true => (&*start.name, &*end.name) == (START, END) && !lists(described, START),
        false => listed.len() == described.columns.len(),
    };
    !listed.is_empty() && fits && named
}

fn lists(described: &Described, name: &str) -> bool {
    let mut names = described.columns.iter().filter_map(|row| row.first());
    names.any(|listed| listed.as_deref() == Some(name))
}

/// Asks for a table's type.
pub(super) fn type_query(wanted: &Wanted) -> String {
    format!(
        "SELECT TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quoted(&wanted.schema),
        quoted(&wanted.name)
    )
}

/// Whether the answer says that it is one.
pub(super) fn is_one(types: &Answer) -> bool {
    let mut cells = types.iter().flatten().flatten();
    cells.any(|cell| cell.eq_ignore_ascii_case("SYSTEM VERSIONED"))
}

/// The description with the two columns; the second is the last part of every unique index, because rows of the past stay in the table.
pub(super) fn complete(mut described: Described) -> Described {
    let row = |cells: [&str; 5]| cells.map(|cell| Some(cell.to_owned())).to_vec();
    for name in [START, END] {
        let mut row = row([name, "timestamp(6)", "NO", "INVISIBLE", ""]);
        row[4] = None;
        described.columns.push(row);
    }
    let mut parts: BTreeMap<String, usize> = BTreeMap::new();
    for key in &described.keys {
        if let [Some(index), _, _, _, Some(non_unique), ..] = key.as_slice()
            && non_unique == "0"
        {
            *parts.entry(index.clone()).or_default() += 1;
        }
    }
    for (index, count) in parts {
        let part = (count + 1).to_string();
        described.keys.push(row([&index, &part, END, "", "0"]));
    }
    described
}

#[cfg(test)]
mod tests {
    use protocol::mysql::Column;
    use protocol::mysql::gtid::Flavour;
    use protocol::mysql::table_map::Description;

    use super::super::shape;
    use super::*;

    /// A TABLE_MAP of `id`, `v` and these, with nothing but types.
    fn wanted(added: &[(ColumnType, bool)]) -> Wanted {
        let int = ColumnType::Int { unsigned: false };
        let columns = [(int.clone(), false), (int, true)]
            .iter()
            .chain(added)
            .map(|(kind, nullable)| Column {
                name: Box::default(),
                kind: kind.clone(),
                nullable: *nullable,
                visible: true,
            })
            .collect();
        Wanted::for_test(Description {
            columns,
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

    /// As MariaDB 10.11 answers, the character set left out.
    fn described() -> Described {
        Described {
            columns: rows(&[
                ["id", "int(11)", "NO", "", ""],
                ["v", "int(11)", "YES", "", ""],
            ]),
            keys: rows(&[["PRIMARY", "1", "id", "", "0"], ["i", "1", "v", "YES", "1"]]),
        }
    }

    const TIME: ColumnType = ColumnType::Timestamp { fsp: 6, old: false };

    #[test]
    fn the_columns_that_are_not_listed_have_names_and_part_of_the_key() {
        let wanted = wanted(&[(TIME, false), (TIME, false)]);
        assert!(may_be(&wanted, &described()));
        let shape = shape(&wanted, complete(described()), Flavour::MariaDb).unwrap();
        let names: Vec<&str> = shape.columns.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["id", "v", "row_start", "row_end"]);
        assert_eq!(shape.columns[3].kind, TIME);
        assert_eq!(*shape.key, [0, 3]);
        // What is kept for a restart is whole.
        assert_eq!(shape.described, complete(described()));
    }

    #[test]
    fn other_columns_are_none_of_these() {
        let whole = ColumnType::Timestamp { fsp: 0, old: false };
        let int = ColumnType::Int { unsigned: false };
        for added in [
            &[][..],
            &[(TIME, false)],
            &[(TIME, false), (TIME, true)],
            &[(TIME, false), (whole, false)],
            &[(int.clone(), false), (TIME, false)],
            &[(int, false), (TIME, false), (TIME, false)],
        ] {
            assert!(!may_be(&wanted(added), &described()), "{added:?}");
        }
        let mut named = wanted(&[(TIME, false), (TIME, false)]);
        named.description.names = true;
        assert!(!may_be(&named, &described()));
        named.description.columns[2].name = START.into();
        named.description.columns[3].name = END.into();
        assert!(may_be(&named, &described()));
        for (answer, expected) in [
            (rows(&[["SYSTEM VERSIONED"]]), true),
            (rows(&[["BASE TABLE"]]), false),
            (Answer::new(), false),
        ] {
            assert_eq!(is_one(&answer), expected);
        }
    }
}
