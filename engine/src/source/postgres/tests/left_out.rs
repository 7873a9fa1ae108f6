//! Columns that wal2json leaves out of a row: unchanged TOAST, or of a table that does not have them any more, or not yet.

use protocol::postgres::{TypeKind, TypeRow};

use super::whole_rows::frame;
use super::*;
use crate::source::postgres::shapes::CatalogColumn;

/// Names, types and values of all columns that the table ever has.
const COLUMNS: [(&str, u32, &str, &str); 5] = [
    ("id", 23, "integer", "1"),
    ("a", 23, "integer", "2"),
    ("b", 25, "text", "\"x\""),
    ("m", 16_500, "public.mood", "\"ok\""),
    ("c", 25, "text", "null"),
];

fn of(name: &str) -> (&'static str, u32, &'static str, &'static str) {
    COLUMNS.into_iter().find(|column| column.0 == name).unwrap()
}

/// What the catalog says of a table with these columns and the primary key `id`.
fn catalog(identity: u8, names: &str) -> Shape {
    let column = |name: &str| CatalogColumn {
        name: name.into(),
        type_oid: of(name).1,
        type_modifier: -1,
        text: of(name).2.into(),
    };
    Shape {
        indices: vec![Index {
            name: "pkey".into(),
            is_primary: true,
            is_identity: false,
            is_deferrable: false,
            columns: vec!["id".into()],
        }],
        types: vec![TypeRow {
            oid: 16_500,
            schema: "public".into(),
            name: "mood".into(),
            kind: TypeKind::Enum,
            category: b'E',
            element: 0,
            base: 0,
            type_modifier: -1,
            delimiter: b',',
            length: 4,
        }],
        columns: names.split(' ').map(column).collect(),
        identity: Some(identity),
        ..Shape::default()
    }
}

/// A message with these columns, `-` for no such array.
fn message(action: &str, columns: &str, identity: &str) -> String {
    let array = |key: &str, names: &str| {
        let column = |name: &str| {
            let (name, _, text, value) = of(name);
            format!(r#"{{"name":"{name}","type":"{text}","value":{value}}}"#)
        };
        let all: Vec<String> = names.split(' ').map(column).collect();
        format!(r#","{key}":[{}]"#, all.join(","))
    };
    let mut text = format!(r#"{{"action":"{action}","lsn":"0/9","schema":"s","table":"t""#);
    for (key, names) in [("columns", columns), ("identity", identity)] {
        if names != "-" {
            text += &array(key, names);
        }
    }
    text + r#","pk":[{"name":"id","type":"integer"}]}"#
}

/// The values of a tuple: as they are, `NULL`, or `?` for unchanged TOAST.
fn told(tuple: Option<&Vec<u8>>) -> String {
    let Some(tuple) = tuple else {
        return "-".into();
    };
    let mut rest = &tuple[2..];
    let mut values = Vec::new();
    while let [kind, behind @ ..] = rest {
        rest = behind;
        values.push(match kind {
            b'n' => "NULL".to_owned(),
            b'u' => "?".to_owned(),
            _ => {
                let (length, text) = rest.split_at(4);
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                rest = &text[length..];
                String::from_utf8_lossy(&text[..length]).into_owned()
            }
        });
    }
    values.join(" ")
}

/// Columns, row before and row after of what becomes of each message, in one transaction, with the catalog of its time.
fn tell(messages: &[(Shape, String)]) -> Vec<[String; 3]> {
    let mut memory = Memory::of(Plugin::Wal2Json, &["*.*"], 1 << 20);
    memory
        .feed(&frame(r#"{"action":"B","xid":7,"lsn":"0/9"}"#))
        .unwrap();
    for (catalog, message) in messages {
        memory.catalog = catalog.clone();
        memory.feed(&frame(message)).unwrap();
    }
    let (changes, _) = memory.finish();
    let tell = |change: &Change| {
        assert_eq!(change.key, ["id"]);
        let before = told(change.before.as_ref());
        let before = match change.before_is_key && change.before.is_some() {
            true => format!("key {before}"),
            false => before,
        };
        [
            change.columns.join(" "),
            before,
            told(change.after.as_ref()),
        ]
    };
    changes.iter().map(tell).collect()
}

#[test]
fn a_dropped_column_is_gone_with_the_first_update() {
    let before = || catalog(b'd', "id a b m");
    let a = || catalog(b'd', "id b m");
    let m = || catalog(b'd', "id b");
    let found = tell(&[
        (before(), message("I", "id a b m", "-")),
        (before(), message("U", "id a m", "id")),
        // ALTER TABLE t DROP COLUMN a, then m.
        (a(), message("U", "id b m", "id")),
        (a(), message("U", "id m", "id")),
        (m(), message("U", "id", "id")),
        (m(), message("U", "id b", "id")),
        (m(), message("I", "id b", "-")),
    ]);
    let expected = [
        ["id a b m", "-", "1 2 x ok"],
        ["id a b m", "-", "1 2 ? ok"],
        ["id b m", "-", "1 x ok"],
        ["id b m", "-", "1 ? ok"],
        ["id b", "-", "1 ?"],
        ["id b", "-", "1 x"],
        ["id b", "-", "1 x"],
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_column_that_comes_later_is_not_there_before() {
    // The catalog is ahead from the beginning.
    let ahead = || catalog(b'd', "id a b m");
    let found = tell(&[
        (ahead(), message("D", "-", "id")),
        (ahead(), message("U", "id a b", "id")),
        (ahead(), message("U", "id a", "id")),
        (ahead(), message("I", "id a b", "-")),
        // ALTER TABLE t ADD COLUMN m.
        (ahead(), message("U", "id a m", "id")),
        (ahead(), message("I", "id a b m", "-")),
    ]);
    let expected = [
        // Nothing tells of a key alone what else there is.
        ["id a b m", "key 1 NULL NULL NULL", "-"],
        ["id a b", "-", "1 2 x"],
        ["id a b", "-", "1 2 ?"],
        ["id a b", "-", "1 2 x"],
        ["id a b m", "-", "1 2 ? ok"],
        ["id a b m", "-", "1 2 x ok"],
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_whole_identity_has_every_column() {
    let before = || catalog(b'f', "id a b c");
    let after = || catalog(b'f', "id a c");
    let found = tell(&[
        (before(), message("U", "id a c", "id a b c")),
        // ALTER TABLE t DROP COLUMN b: nothing but the identity tells, since b may be TOASTed.
        (after(), message("U", "id a c", "id a c")),
        (after(), message("D", "-", "id a c")),
    ]);
    let expected = [
        ["id a b c", "1 2 x NULL", "1 2 ? NULL"],
        ["id a c", "1 2 NULL", "1 2 NULL"],
        ["id a c", "1 2 NULL", "-"],
    ];
    assert_eq!(found, expected);
    let found = tell(&[
        (before(), message("D", "-", "id a b c")),
        (after(), message("D", "-", "id a c")),
    ]);
    let expected = [["id a b c", "1 2 x NULL", "-"], ["id a c", "1 2 NULL", "-"]];
    assert_eq!(found, expected);
    // ALTER TABLE t ADD COLUMN b, of which the catalog knows from the beginning.
    for (action, columns, after) in [("D", "-", "-"), ("U", "id a", "1 2 ?")] {
        let found = tell(&[
            (before(), message(action, columns, "id a c")),
            (before(), message("U", "id a b c", "id a b c")),
        ]);
        let expected = [
            ["id a c", "1 2 NULL", after],
            ["id a b c", "1 2 x NULL", "1 2 x NULL"],
        ];
        assert_eq!(found, expected);
    }
}

#[test]
fn an_identity_from_before_replica_identity_full_is_a_key() {
    let full = || catalog(b'f', "id a b");
    for first in [message("I", "id a b", "-"), message("D", "-", "id")] {
        let found = tell(&[
            (full(), first),
            (full(), message("U", "id a", "id")),
            (full(), message("D", "-", "id")),
            // ALTER TABLE t REPLICA IDENTITY FULL.
            (full(), message("U", "id a", "id a b")),
            (full(), message("D", "-", "id a b")),
        ]);
        let expected = [
            ["id a b", "-", "1 2 ?"],
            ["id a b", "key 1 NULL NULL", "-"],
            ["id a b", "1 2 x", "1 2 ?"],
            ["id a b", "1 2 x", "-"],
        ];
        assert_eq!(found[1..], expected);
    }
}
