//! wal2json under REPLICA IDENTITY FULL: `identity` holds every column, and the key is the primary key's all the same, whatever time the
//! catalog is of.

use super::*;
use crate::source::postgres::shapes::CatalogColumn;

/// A message as the server sends it.
pub(super) fn frame(text: &str) -> Vec<u8> {
    let mut frame = b"d\0\0\0\0w".to_vec();
    frame.extend_from_slice(&[0; 7]);
    frame.push(9);
    frame.extend_from_slice(&[0; 16]);
    frame.extend_from_slice(text.as_bytes());
    let length = frame.len() as u32 - 1;
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame
}

/// `{"name":…,"type":…,"value":…}` of (a, b, v), each with its value.
fn row(values: [&str; 3]) -> String {
    let types = [("a", "integer"), ("b", "integer"), ("v", "text")];
    let column = |((name, of), value): (&(&str, &str), &str)| {
        format!(r#"{{"name":"{name}","type":"{of}","value":{value}}}"#)
    };
    let columns: Vec<String> = types.iter().zip(values).map(column).collect();
    columns.join(",")
}

fn pk(names: &[&str]) -> String {
    let column = |name: &&str| format!(r#"{{"name":"{name}","type":"integer"}}"#);
    let columns: Vec<String> = names.iter().map(column).collect();
    columns.join(",")
}

/// An update of `v`, one of the key, and a delete, as wal2json tells them of a table with REPLICA IDENTITY FULL and this primary key.
fn messages(key: &[&str]) -> Vec<String> {
    let pk = pk(key);
    let head =
        |action: &str| format!(r#"{{"action":"{action}","lsn":"0/9","schema":"s","table":"t""#);
    let (first, second, third) = (
        row(["1", "2", "null"]),
        row(["1", "2", "\"x\""]),
        row(["5", "6", "\"x\""]),
    );
    vec![
        format!(
            r#"{},"columns":[{second}],"identity":[{first}],"pk":[{pk}]}}"#,
            head("U")
        ),
        format!(
            r#"{},"columns":[{third}],"identity":[{second}],"pk":[{pk}]}}"#,
            head("U")
        ),
        format!(r#"{},"identity":[{third}],"pk":[{pk}]}}"#, head("D")),
    ]
}

fn catalog(identity: u8, primary: &[&str]) -> Shape {
    let column = |(name, type_oid, text): (&str, u32, &str)| CatalogColumn {
        name: name.into(),
        type_oid,
        type_modifier: -1,
        text: text.into(),
    };
    let index = |name: &str, is_primary, columns: &[&str]| Index {
        name: name.into(),
        is_primary,
        is_identity: false,
        is_deferrable: false,
        columns: columns.iter().map(|name| (*name).into()).collect(),
    };
    let mut indices = vec![index("unique", false, &["v"])];
    if !primary.is_empty() {
        indices.push(index("pkey", true, primary));
    }
    Shape {
        indices,
        types: Vec::new(),
        columns: [
            ("a", 23, "integer"),
            ("b", 23, "integer"),
            ("v", 25, "text"),
        ]
        .map(column)
        .into(),
        identity: Some(identity),
        ..Shape::default()
    }
}

/// The changes of one transaction of these messages, with this catalog.
fn changes_of(catalog: Shape, messages: &[String]) -> Vec<Change> {
    let mut memory = Memory::of(Plugin::Wal2Json, &["*.*"], 1 << 20);
    memory.catalog = catalog;
    let transaction = [r#"{"action":"B","xid":7,"lsn":"0/9"}"#.to_owned()]
        .into_iter()
        .chain(messages.iter().cloned())
        .chain([r#"{"action":"C","xid":7,"lsn":"0/9","nextlsn":"0/A"}"#.to_owned()]);
    let wire: Vec<u8> = transaction.flat_map(|text| frame(&text)).collect();
    memory.feed(&wire).unwrap();
    memory.finish().0
}

/// TupleData of texts.
fn tuple(values: [Option<&str>; 3]) -> Option<Vec<u8>> {
    let mut data = vec![0, 3];
    for value in values {
        match value {
            None => data.push(b'n'),
            Some(text) => {
                data.push(b't');
                data.extend_from_slice(&(text.len() as u32).to_be_bytes());
                data.extend_from_slice(text.as_bytes());
            }
        }
    }
    Some(data)
}

/// What pgoutput says of the same rows: every image whole, and the primary key for a key.
fn expect(changes: &[Change], key: &[&str], what: &str) {
    let (first, second, third) = (
        tuple([Some("1"), Some("2"), None]),
        tuple([Some("1"), Some("2"), Some("x")]),
        tuple([Some("5"), Some("6"), Some("x")]),
    );
    let told: Vec<_> = (changes.iter())
        .map(|c| (c.operation, c.before.clone(), c.after.clone()))
        .collect();
    let expected = [
        (Operation::Update, first, second.clone()),
        (Operation::Update, second, third.clone()),
        (Operation::Delete, third, None),
    ];
    assert_eq!(told, expected, "{what}");
    for change in changes {
        assert!(!change.before_is_key, "{what}");
        assert_eq!(change.key, key, "{what}");
        assert_eq!(change.columns, ["a", "b", "v"], "{what}");
    }
}

#[test]
fn the_key_is_the_primary_keys_where_every_column_is_there() {
    // The order of the key's columns is the index's.
    let of = |identity, primary: &[&str], key: &[&str]| {
        changes_of(catalog(identity, primary), &messages(key))
    };
    expect(&of(b'f', &["a"], &["a"]), &["a"], "as it is");
    expect(
        &of(b'f', &["b", "a"], &["a", "b"]),
        &["b", "a"],
        "of two columns",
    );
    expect(&of(b'f', &[], &[]), &["v"], "without a primary key");
}

#[test]
fn the_key_is_that_of_the_rows_where_the_catalog_is_of_another_time() {
    for identity in [b'f', b'd', b'n'] {
        let of =
            |primary: &[&str], key: &[&str]| changes_of(catalog(identity, primary), &messages(key));
        let what = char::from(identity).to_string();
        expect(&of(&["b"], &["a"]), &["a"], &what);
        expect(&of(&[], &["a"]), &["a"], &what);
        expect(&of(&["a", "b"], &["a"]), &["a"], &what);
        expect(&of(&["a"], &["a", "b"]), &["a", "b"], &what);
        expect(&of(&["a"], &[]), &["v"], &what);
    }
    let gone = changes_of(Shape::default(), &messages(&["b"]));
    expect(&gone, &["b"], "the table is gone");
}

#[test]
fn the_key_changes_with_the_primary_key() {
    let mut all = messages(&["a"]);
    all.extend(messages(&["b"]));
    all.extend(messages(&[]));
    all.extend(messages(&["a"]));
    let changes = changes_of(catalog(b'f', &["b"]), &all);
    let keys: [&[&str]; 4] = [&["a"], &["b"], &["v"], &["a"]];
    assert_eq!(changes.len(), 12);
    for (part, key) in changes.chunks(3).zip(keys) {
        expect(part, key, "one after the other");
    }
}

#[test]
fn a_truncate_before_the_first_row_does_not_settle_the_key() {
    let truncate = r#"{"action":"T","lsn":"0/9","schema":"s","table":"t"}"#.to_owned();
    let all: Vec<String> = [truncate].into_iter().chain(messages(&["a"])).collect();
    expect(
        &changes_of(catalog(b'f', &["b"]), &all),
        &["a"],
        "TRUNCATE first",
    );
}
