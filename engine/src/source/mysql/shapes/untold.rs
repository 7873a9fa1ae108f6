//! What MariaDB's TABLE_MAP does not tell of some columns, whatever else it has: UUID, INET4 and INET6 look like BINARY, and temporal
//! columns from before 10.1 hide their fractional digits. Where it has names, these columns alone are asked for by theirs.

use protocol::mysql::gtid::Flavour;
use protocol::mysql::table_map::Description;
use protocol::mysql::{Column, ColumnType};

use super::super::server::Answer;
use super::super::tables::Wanted;
use super::Mismatch;
use super::declared::Declared;

/// Whether a captured table's TABLE_MAP says all that its rows need.
pub(in crate::source::mysql) fn is_whole(description: &Description, mariadb: bool) -> bool {
    let is_open = |column: &Column| mariadb && (hides_type(column) || hides_width(column));
    says_all(description, true) && !description.columns.iter().any(is_open)
}

/// Whether it says all that TABLE_MAPs can say. Labels are needed of captured tables only.
pub(super) fn says_all(description: &Description, captured: bool) -> bool {
    description.names
        && description.signedness
        && description.charsets
        && (description.labels || !captured)
}

/// Whether MariaDB may have written a UUID, INET4 or INET6 column as this one: where character sets are in its TABLE_MAP, these have
/// that of BINARY; without them they may be CHAR as well, but then the column is asked anyway.
fn hides_type(column: &Column) -> bool {
    matches!(column.kind, ColumnType::Binary { width: 4 | 16, .. })
}

/// Whether MariaDB wrote temporal columns in its form before 10.1 (`mysql56_temporal_format=OFF`): their TABLE_MAP does not tell how
/// many fractional digits they have, and with that not even how long their values are.
pub(in crate::source::mysql) fn hides_widths(columns: &[Column]) -> bool {
    columns.iter().any(hides_width)
}

/// Names of these columns, separated by commas, where there are any; by number where the stream does not name them.
pub(in crate::source::mysql) fn hidden_widths(columns: &[Column]) -> Option<String> {
    let hidden = columns.iter().enumerate().filter(|(_, c)| hides_width(c));
    let names: Vec<String> = hidden
        .map(|(index, column)| match column.name.is_empty() {
            true => format!("number {}", index + 1),
            false => column.name.to_string(),
        })
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn hides_width(column: &Column) -> bool {
    matches!(
        column.kind,
        ColumnType::Time { old: true, .. }
            | ColumnType::DateTime { old: true, .. }
            | ColumnType::Timestamp { old: true, .. }
    )
}

/// A column that the TABLE_MAP names, its type as the server has it where it is not told there.
pub(super) fn settle(
    wanted: &Wanted,
    column: &Column,
    listed: &Answer,
    flavour: Flavour,
) -> Result<Column, Mismatch> {
    let is_told = !hides_width(column) && (!wanted.captured || !hides_type(column));
    if is_told {
        return Ok(column.clone());
    }
    let name = &*column.name;
    let row = listed
        .iter()
        .find(|row| row.first().and_then(Option::as_deref) == Some(name));
    let Some(row) = row else {
        return Err(format!("it has no column {name}"));
    };
    let declared = row.get(1).and_then(Option::as_deref).unwrap_or_default();
    let kind = Declared::read(declared)
        .resolve(&wanted.description, &column.kind, None, flavour)
        .ok_or_else(|| format!("column {name} is {declared} now, {:?} there", column.kind))?;
    Ok(Column {
        kind,
        ..column.clone()
    })
}

#[cfg(test)]
mod tests {
    use protocol::mysql::charset::Charset;

    use super::super::super::versions::Described;
    use super::super::shape;
    use super::*;

    const INT: ColumnType = ColumnType::Int { unsigned: false };
    const TIME: ColumnType = ColumnType::Time { fsp: 0, old: true };

    fn binary(width: u16) -> ColumnType {
        ColumnType::Binary {
            length_bytes: 1,
            width,
        }
    }

    fn char(width: u16, collation: u16) -> ColumnType {
        ColumnType::Char {
            length_bytes: 1,
            width,
            charset: Charset { collation },
        }
    }

    /// A TABLE_MAP that says everything, of columns `a`, `b`, ….
    fn wanted(kinds: &[ColumnType]) -> Wanted {
        let column = |(kind, name): (&ColumnType, char)| Column {
            name: name.to_string().into(),
            kind: kind.clone(),
            nullable: true,
            visible: true,
        };
        Wanted::for_test(Description {
            columns: kinds.iter().zip('a'..).map(column).collect(),
            names: true,
            signedness: true,
            charsets: true,
            labels: true,
            geometries: true,
            primary_key: Some(Vec::new()),
        })
    }

    fn listed(columns: &[(&str, &str)]) -> Described {
        let row = |(name, declared): &(&str, &str)| {
            [*name, *declared, "NO", "", "utf8mb4"].map(|cell| Some(cell.to_owned()))
        };
        Described {
            columns: columns.iter().map(|column| row(column).to_vec()).collect(),
            keys: Answer::new(),
        }
    }

    #[test]
    fn text_hides_no_type() {
        let whole = |kinds: &[ColumnType]| is_whole(&wanted(kinds).description, true);
        // CHAR(1) and CHAR(4) of utf8mb4, CHAR(4) and CHAR(16) of latin1, BINARY(8).
        let text = [
            char(4, 45),
            char(16, 45),
            char(4, 8),
            char(16, 8),
            binary(8),
        ];
        assert!(whole(&text));
        for open in [binary(4), binary(16), TIME] {
            assert!(!whole(&[INT, open.clone()]));
            assert!(
                is_whole(&wanted(&[open]).description, false),
                "MySQL has none"
            );
        }
        let mut nameless = wanted(&text);
        nameless.description.names = false;
        assert!(!is_whole(&nameless.description, false));
    }

    #[test]
    fn only_what_is_not_told_is_asked_and_by_name() {
        let wanted = wanted(&[INT, binary(16), char(4, 45), binary(4), TIME, binary(16)]);
        // Altered since: moved, made NOT NULL, renamed, dropped and added.
        let now = listed(&[
            ("new", "text"),
            ("f", "binary(16)"),
            ("b", "uuid"),
            ("renamed", "int(11)"),
            ("e", "time(3)"),
            ("d", "inet4"),
        ]);
        let shape = shape(&wanted, now, Flavour::MariaDb).unwrap();
        let kinds: Vec<ColumnType> = shape.columns.iter().map(|it| it.kind.clone()).collect();
        let time = ColumnType::Time { fsp: 3, old: true };
        let expected = [
            INT,
            ColumnType::Uuid,
            char(4, 45),
            ColumnType::Inet4,
            time,
            binary(16),
        ];
        assert_eq!(kinds, expected);
        for (column, of) in shape.columns.iter().zip(&wanted.description.columns) {
            assert_eq!((&column.name, column.nullable), (&of.name, of.nullable));
        }
    }

    #[test]
    fn what_changed_since_is_never_guessed() {
        let said = |now| shape(&wanted(&[INT, binary(16)]), now, Flavour::MariaDb).unwrap_err();
        for (now, part) in [
            (listed(&[]), "it is gone"),
            (listed(&[("a", "int(11)")]), "it has no column b"),
            (
                listed(&[("b", "varchar(36)")]),
                "column b is varchar(36) now",
            ),
            (listed(&[("b", "inet4")]), "column b is inet4 now"),
        ] {
            let said = said(now);
            assert!(said.contains(part), "{said}");
        }
    }
}
