//! Our readers of PostgreSQL's messages beside other people's: frames and results beside `postgres-protocol`, wal2json's rows beside
//! `simd-json`, and what wal2json says beside what pgoutput says of the same workload.

use std::collections::HashMap;
use std::ops::Range;

use bytes::BytesMut;
use fixtures::Recording;
use postgres_protocol::message::backend;
use protocol::postgres::copy::Replication;
use protocol::postgres::packet;
use protocol::postgres::pgoutput::{Message, OldTuple, Tuple, TupleValue};
use protocol::postgres::resultset::{ResultSet, ServerError};
use protocol::postgres::wal2json::{self, Action, Described, DescribedColumn, Shape};
use simd_json::OwnedValue;
use simd_json::prelude::*;

/// CopyData bodies of a recording, each found by us and by `postgres-protocol`, read in pieces of odd sizes.
fn both_find(name: &str, mut each: impl FnMut(&[u8])) {
    let recording = Recording::named(name).unwrap();
    let mut frames = recording.frames().unwrap();
    let mut theirs = BytesMut::new();
    while let Some(message) = frames.next_frame().unwrap() {
        let ours = packet::next(message).unwrap().unwrap();
        // `W` is none of theirs: replication is not in that crate.
        if ours.tag != b'd' {
            assert_eq!((ours.tag, ours.wire_length), (b'W', message.len()));
            continue;
        }
        theirs.extend_from_slice(message);
        let Some(backend::Message::CopyData(copy)) = backend::Message::parse(&mut theirs).unwrap()
        else {
            panic!("CopyData")
        };
        assert_eq!(copy.data(), &message[ours.body.clone()]);
        each(&message[ours.body]);
    }
}

fn texts(bytes: &[u8]) -> Vec<TupleValue<'_>> {
    let mut tuple = Tuple::new(bytes).unwrap();
    let mut values = Vec::new();
    while let Some(value) = tuple.next().unwrap() {
        values.push(value);
    }
    values
}

/// A row change without what only one of the plugins says.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Change {
    before: Option<Vec<u8>>,
    is_key: bool,
    after: Option<Vec<u8>>,
}

#[test]
fn both_plugins_say_the_same_of_the_same_workload() {
    let mut by_pgoutput = Vec::new();
    both_find("postgres-15-20k", |body| {
        let Replication::XLogData(data) = Replication::decode(body).unwrap() else {
            return;
        };
        let bytes = |range: Range<usize>| data.message[range].to_vec();
        let old = |old: &OldTuple| matches!(old, OldTuple::Key(_));
        by_pgoutput.push(match Message::decode(data.message).unwrap() {
            Message::Insert(row) => Change {
                before: None,
                is_key: false,
                after: Some(bytes(row.new)),
            },
            Message::Update(row) => Change {
                is_key: row.old.as_ref().is_some_and(old),
                before: row.old.map(|old| bytes(old.range())),
                after: Some(bytes(row.new)),
            },
            Message::Delete(row) => Change {
                is_key: old(&row.old),
                before: Some(bytes(row.old.range())),
                after: None,
            },
            _ => return,
        });
    });
    let mut by_wal2json = Vec::new();
    let mut shape = None;
    both_find("postgres-15-wal2json-20k", |body| {
        let Replication::XLogData(data) = Replication::decode(body).unwrap() else {
            return;
        };
        let head = wal2json::Message::decode(data.message).unwrap();
        if !matches!(
            head.action,
            Action::Insert | Action::Update | Action::Delete
        ) {
            return;
        }
        assert_eq!(head.lsn, Some(data.start));
        let shape = shape.get_or_insert_with(|| {
            let described = Described::read(data.message, &head).unwrap();
            Shape::new(&described.columns.expect("the first change is an insert"))
        });
        let mut bytes = data.message.to_vec();
        let whole = 0..bytes.len();
        let row = shape
            .rewrite(&mut bytes, 0, whole, head.action, head.row_at)
            .unwrap();
        let copy = |range: Option<Range<usize>>| range.map(|range| bytes[range].to_vec());
        by_wal2json.push(Change {
            before: copy(row.before),
            is_key: row.before_is_key,
            after: copy(row.after),
        });
    });
    assert_eq!(by_pgoutput.len(), 20_000);
    assert_eq!(by_wal2json.len(), by_pgoutput.len());
    for (n, (ours, theirs)) in by_wal2json.iter().zip(&by_pgoutput).enumerate() {
        assert_eq!(ours, theirs, "change {n}");
    }
}

/// A value as simd-json reads it, against what became of it.
fn assert_same(value: &OwnedValue, found: TupleValue<'_>, column: &DescribedColumn) {
    let TupleValue::Text(text) = found else {
        assert!(value.is_null() && found == TupleValue::Null, "{column:?}");
        return;
    };
    let text = std::str::from_utf8(text).unwrap();
    if let Some(expected) = value.as_str() {
        let prefix = if &*column.type_name == "bytea" {
            "\\x"
        } else {
            ""
        };
        assert_eq!(text.strip_prefix(prefix), Some(expected), "{column:?}");
    } else if let Some(expected) = value.as_bool() {
        assert_eq!(text == "t", expected, "{column:?}");
        assert!(matches!(text, "t" | "f"));
    } else if let Some(expected) = value.as_i64() {
        assert_eq!(text.parse(), Ok(expected), "{column:?}");
    } else if let Some(expected) = value.as_u64() {
        assert_eq!(text.parse(), Ok(expected), "{column:?}");
    } else {
        // The tree has a double where the text has digits: that is why rows are not made from the tree.
        let expected = value.as_f64().unwrap();
        assert_eq!(
            text.parse::<f64>().unwrap().to_bits(),
            expected.to_bits(),
            "{column:?}"
        );
    }
}

/// The message with quotes around numbers of many digits, which simd-json refuses though they are JSON (`numeric` has up to 147455).
fn readable(message: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = b"\"value\":";
    let mut text = Vec::new();
    let mut rest = message;
    // In a string these quotes would be escaped.
    while let Some(at) = rest
        .windows(BEFORE.len())
        .position(|window| window == BEFORE)
    {
        let (before, value) = rest.split_at(at + BEFORE.len());
        let is_number = |byte: &u8| b"+-.eE0123456789".contains(byte);
        let length = value.iter().take_while(|byte| is_number(byte)).count();
        let quote: &[u8] = if length > 19 { b"\"" } else { b"" };
        text.extend_from_slice(&[before, quote, &value[..length], quote].concat());
        rest = &value[length..];
    }
    text.extend_from_slice(rest);
    text
}

fn compare_rows(name: &str) -> usize {
    let mut rows = 0;
    let mut shapes: HashMap<Vec<DescribedColumn>, Shape> = HashMap::new();
    both_find(name, |body| {
        let Replication::XLogData(data) = Replication::decode(body).unwrap() else {
            return;
        };
        let tree = simd_json::to_owned_value(&mut readable(data.message)).unwrap();
        let head = wal2json::Message::decode(data.message).unwrap();
        let member = |name: &str| tree.get(name).filter(|value| !value.is_null());
        assert_eq!(member("xid").and_then(ValueAsScalar::as_u32), head.xid);
        for (name, found) in [("lsn", head.lsn), ("nextlsn", head.next_lsn)] {
            let expected = member(name).and_then(ValueAsScalar::as_str);
            assert_eq!(expected, found.map(|lsn| lsn.to_string()).as_deref());
        }
        for (name, found) in [("schema", head.schema), ("table", head.table)] {
            let expected = member(name).and_then(ValueAsScalar::as_str).unwrap_or("");
            assert_eq!(expected.as_bytes(), &*found.unescaped());
        }
        if !matches!(
            head.action,
            Action::Insert | Action::Update | Action::Delete
        ) {
            return;
        }
        let described = Described::read(data.message, &head).unwrap();
        // With TOAST unchanged, the identity names columns that the row after does not.
        let mut columns = described.columns.unwrap_or_default();
        let mut at = 0;
        for column in described.identity.unwrap_or_default() {
            let known = columns.iter().position(|known| *known == column);
            match known {
                Some(known) => at = known,
                None => columns.insert(at, column),
            }
            at += 1;
        }
        let shape = shapes
            .entry(columns.clone())
            .or_insert_with(|| Shape::new(&columns));
        let mut bytes = data.message.to_vec();
        let whole = 0..bytes.len();
        let row = shape
            .rewrite(&mut bytes, 0, whole, head.action, head.row_at)
            .unwrap();
        let array = |name: &str| tree.get(name).and_then(ValueAsArray::as_array);
        for (array, tuple, absent) in [
            (array("identity"), row.before, TupleValue::Null),
            (array("columns"), row.after, TupleValue::Unchanged),
        ] {
            let Some(tuple) = tuple else { continue };
            let mut expected = array.unwrap().iter().peekable();
            for (column, found) in columns.iter().zip(texts(&bytes[tuple])) {
                let is_next = expected
                    .peek()
                    .is_some_and(|next| next.get_str("name") == Some(&*column.name));
                if is_next {
                    let next = expected.next().unwrap();
                    // The one type whose quotes the plugin takes for JSON's.
                    let type_name = match next.get_str("type") {
                        Some("char") => Some("\"char\""),
                        other => other,
                    };
                    assert_eq!(type_name, Some(&*column.type_name));
                    assert_same(&next["value"], found, column);
                } else {
                    assert_eq!(found, absent, "{column:?} is not there");
                }
            }
            assert!(expected.next().is_none(), "a column was passed over");
        }
        rows += 1;
    });
    rows
}

#[test]
fn rows_of_wal2json_are_what_another_parser_reads() {
    assert_eq!(compare_rows("postgres-15-wal2json-20k"), 20_000);
    assert!(compare_rows("postgres-15-wal2json-types") > 1000);
}

#[test]
fn results_are_what_another_parser_reads() {
    let mut description = vec![0, 2];
    for (name, oid) in [("id", 20_u32), ("näme", 25)] {
        description.extend_from_slice(name.as_bytes());
        description.extend_from_slice(&[0, 0, 0, 0x40, 0x24, 0, 1]);
        description.extend_from_slice(&oid.to_be_bytes());
        description.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    }
    let row = b"\0\x02\0\0\0\x0242\xff\xff\xff\xff";
    let error = b"SFEHLER\0VERROR\0C42704\0Mslot \"x\" does not exist\0Dsome detail\0Hsome hint\0Fslot.c\0L1\0\0";
    let mut wire = Vec::new();
    for (tag, body) in [(b'T', &description[..]), (b'D', row), (b'E', error)] {
        packet::write(&mut wire, tag, |out| out.extend_from_slice(body));
    }
    let mut set = ResultSet::default();
    set.describe(&description).unwrap();
    set.row(row).unwrap();
    let ours = ServerError::decode(error).unwrap();

    use fallible_iterator::FallibleIterator;
    let mut theirs = BytesMut::from(&wire[..]);
    let Some(backend::Message::RowDescription(body)) =
        backend::Message::parse(&mut theirs).unwrap()
    else {
        panic!("RowDescription")
    };
    let names: Vec<String> = body
        .fields()
        .map(|field| Ok(field.name().to_owned()))
        .collect()
        .unwrap();
    assert_eq!(set.columns, names);
    let Some(backend::Message::DataRow(body)) = backend::Message::parse(&mut theirs).unwrap()
    else {
        panic!("DataRow")
    };
    let cells: Vec<Option<String>> = body
        .ranges()
        .map(|range| {
            Ok(range.map(|range| String::from_utf8(body.buffer()[range].to_vec()).unwrap()))
        })
        .collect()
        .unwrap();
    assert_eq!(set.rows, [cells]);
    let Some(backend::Message::ErrorResponse(body)) = backend::Message::parse(&mut theirs).unwrap()
    else {
        panic!("ErrorResponse")
    };
    let fields: HashMap<u8, String> = body
        .fields()
        .map(|field| {
            Ok((
                field.type_(),
                String::from_utf8_lossy(field.value_bytes()).into_owned(),
            ))
        })
        .collect()
        .unwrap();
    for (kind, found) in [
        (b'V', ours.severity),
        (b'C', ours.code),
        (b'M', ours.message),
        (b'D', ours.detail),
        (b'H', ours.hint),
    ] {
        assert_eq!(fields[&kind], found);
    }
}
