//! Messages as the plugin writes them: read, rewritten, cut and damaged.

use proptest::prelude::*;

use super::super::pgoutput::{Tuple, TupleValue};
use super::*;

fn columns(described: &[(&str, &str)]) -> Vec<DescribedColumn> {
    let column = |(name, type_name): &(&str, &str)| DescribedColumn {
        name: (*name).into(),
        type_name: (*type_name).into(),
    };
    described.iter().map(column).collect()
}

/// What became of the only message in `text`: a list of values each, `before` first.
#[derive(Debug, PartialEq)]
struct Rewritten {
    before: Option<Vec<String>>,
    is_key: bool,
    after: Option<Vec<String>>,
}

fn values(tuple: &[u8]) -> Vec<String> {
    let mut tuple = Tuple::new(tuple).unwrap();
    let mut values = Vec::new();
    while let Some(value) = tuple.next().unwrap() {
        values.push(match value {
            TupleValue::Null => "NULL".into(),
            TupleValue::Unchanged => "UNCHANGED".into(),
            TupleValue::Text(text) => format!("={}", String::from_utf8_lossy(text)),
            TupleValue::Binary(_) => panic!("never asked for"),
        });
    }
    values
}

fn rewrite(shape: &mut Shape, text: &str) -> Result<Rewritten, RowError> {
    const AROUND: &[u8] = b"the neighbours' bytes";
    let message = Message::decode(text.as_bytes())?;
    let mut bytes = [AROUND, text.as_bytes(), AROUND].concat();
    let range = AROUND.len()..AROUND.len() + text.len();
    let result = shape.rewrite(
        &mut bytes,
        range.start,
        range.clone(),
        message.action,
        message.row_at,
    );
    assert_eq!(&bytes[..range.start], AROUND);
    assert_eq!(&bytes[range.end..], AROUND);
    let tuples = result.inspect_err(|_| assert_eq!(&bytes[range], text.as_bytes()))?;
    let values = |range: Option<std::ops::Range<usize>>| range.map(|range| values(&bytes[range]));
    Ok(Rewritten {
        before: values(tuples.before),
        is_key: tuples.before_is_key,
        after: values(tuples.after),
    })
}

const EVENTS: [(&str, &str); 4] = [
    ("id", "bigint"),
    ("ok", "boolean"),
    ("raw", "bytea"),
    ("text", "character varying(64)"),
];

const INSERT: &str = r#"{"action":"I","xid":731,"timestamp":"2026-11-21 14:47:46.114922+00","lsn":"16/B374D848","schema":"shop","table":"events","columns":[{"name":"id","type":"bigint","value":-42},{"name":"ok","type":"boolean","value":true},{"name":"raw","type":"bytea","value":"00ff"},{"name":"text","type":"character varying(64)","value":"a \"b\"\\ \n\u0001 ü"}],"pk":[{"name":"id","type":"bigint"}]}"#;
const UPDATE: &str = r#"{"action":"U","schema":"shop","table":"events","columns":[{"name":"id","type":"bigint","value":1},{"name":"ok","type":"boolean","value":false},{"name":"text","type":"character varying(64)","value":null}],"identity":[{"name":"id","type":"bigint","value":2}],"pk":[{"name":"id","type":"bigint"}]}"#;

#[test]
fn heads_say_what_it_is_about() {
    let message = Message::decode(INSERT.as_bytes()).unwrap();
    assert_eq!((message.action, message.xid), (Action::Insert, Some(731)));
    assert_eq!(message.lsn, Some("16/B374D848".parse().unwrap()));
    // 2026-11-21 14:47:46 UTC by date(1).
    assert_eq!(message.committed_us(), Ok(Some(1_795_272_466_114_922)));
    assert_eq!(
        (message.schema.raw(), message.table.raw()),
        (&b"shop"[..], &b"events"[..])
    );
    assert!(INSERT[message.row_at..].starts_with("\"columns\":["));

    let commit =
        r#"{"action":"C","xid":1,"timestamp":null,"origin":3,"lsn":"0/1","nextlsn":"ff/A"}"#;
    let message = Message::decode(commit.as_bytes()).unwrap();
    assert_eq!(
        (message.action, message.row_at),
        (Action::Commit, commit.len())
    );
    assert_eq!(message.lsn.map(|lsn| lsn.0), Some(1));
    assert_eq!(message.next_lsn.map(|lsn| lsn.0), Some(0xff_0000_000a));
    assert_eq!(message.committed_us(), Ok(None));

    let note = r#"{"action":"M","xid":null,"transactional":true,"prefix":"p","content":"c"}"#;
    let message = Message::decode(note.as_bytes()).unwrap();
    assert_eq!(
        (message.action, message.xid, message.transactional),
        (Action::Message, None, true)
    );
    let truncate = r#"{ "action" : "T" , "schema" : "a\"b" , "new" : [{"x":[1,{}]},-1.5e3,""] , "table" : "t" } "#;
    let message = Message::decode(truncate.as_bytes()).unwrap();
    assert_eq!(
        (message.action, &*message.schema.unescaped()),
        (Action::Truncate, &b"a\"b"[..])
    );
}

#[test]
fn heads_that_no_plugin_writes() {
    for text in [
        "",
        "{",
        "{}",
        "null",
        r#"{"action":"X"}"#,
        r#"{"xid":1,"action":"B"}"#,
        r#"{"action":"B"} x"#,
        r#"{"action":"B","xid":4294967296}"#,
        r#"{"action":"B","xid":"1"}"#,
        r#"{"action":"B","lsn":"1"}"#,
        r#"{"action":"B","lsn":"/1"}"#,
        r#"{"action":"B","lsn":"1/"}"#,
        r#"{"action":"B","lsn":"1/2/3"}"#,
        r#"{"action":"B","lsn":"123456789/1"}"#,
        r#"{"action":"B","x":[1,2}}"#,
        r#"{"action":"B","x":"\ud800"}"#,
        r#"{"action":"B","x":"\x"}"#,
        r#"{"action":"B",}"#,
        r#"{"action":"T","schema":"s"}"#,
        r#"{"action":"T","table":"t"}"#,
        r#"{"action":"I","schema":"s","table":"t"}"#,
        r#"{"action":"I","columns":[]}"#,
    ] {
        assert!(Message::decode(text.as_bytes()).is_err(), "{text}");
    }
    let deep = format!(
        r#"{{"action":"B","x":{}1{}}}"#,
        "[".repeat(129),
        "]".repeat(129)
    );
    let error = Message::decode(deep.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "wal2json member at byte 147: 129 is over the limit of 128"
    );
    assert!(Message::decode(deep.replacen('[', "", 1).replacen(']', "", 1).as_bytes()).is_ok());
}

#[test]
fn rows_become_what_pgoutput_sends() {
    let mut shape = Shape::new(&columns(&EVENTS));
    let all = |values: [&str; 4]| Some(values.map(String::from).to_vec());
    // Twice: the second time the message's tail is known.
    for _ in 0..2 {
        assert_eq!(
            rewrite(&mut shape, INSERT),
            Ok(Rewritten {
                before: None,
                is_key: false,
                after: all(["=-42", "=t", "=\\x00ff", "=a \"b\"\\ \n\u{1} ü"]),
            })
        );
        assert_eq!(
            rewrite(&mut shape, UPDATE),
            Ok(Rewritten {
                before: all(["=2", "NULL", "NULL", "NULL"]),
                is_key: true,
                after: all(["=1", "=f", "UNCHANGED", "NULL"]),
            })
        );
    }
    // An identity that the update kept is not news.
    let kept = UPDATE.replace("\"value\":2", "\"value\":1");
    let row = rewrite(&mut shape, &kept).unwrap();
    assert_eq!((row.before, row.is_key), (None, false));
    // The whole row is, kept or not.
    let full = r#"{"action":"D","schema":"s","table":"t","identity":[{"name":"id","type":"bigint","value":1},{"name":"ok","type":"boolean","value":null},{"name":"raw","type":"bytea","value":""},{"name":"text","type":"character varying(64)","value":"x"}],"pk":[]}"#;
    assert_eq!(
        rewrite(&mut shape, full),
        Ok(Rewritten {
            before: all(["=1", "NULL", "=\\x", "=x"]),
            is_key: false,
            after: None
        })
    );
    let key = r#"{"action":"D","schema":"s","table":"t","identity":[{"name":"ok","type":"boolean","value":true}]}"#;
    assert_eq!(
        rewrite(&mut shape, key),
        Ok(Rewritten {
            before: all(["NULL", "=t", "NULL", "NULL"]),
            is_key: true,
            after: None
        })
    );
}

#[test]
fn other_columns_than_known_are_named() {
    let insert = |columns: &str| {
        format!(r#"{{"action":"I","schema":"s","table":"t","columns":[{columns}]}}"#)
    };
    let id = r#"{"name":"id","type":"integer","value":1}"#;
    let mut shape = Shape::new(&columns(&[("id", "integer"), ("v", "text")]));
    let mut refused = |text: String| match rewrite(&mut shape, &text) {
        Err(RowError::Mismatch(Mismatch { column, kind })) => (column.into_string(), kind),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(insert(id)), ("v".into(), MismatchKind::Missing));
    let other = format!(r#"{id},{{"name":"w","type":"text","value":""}}"#);
    assert_eq!(refused(insert(&other)), ("w".into(), MismatchKind::Unknown));
    let other = format!(r#"{id},{{"name":"v","type":"uuid","value":""}}"#);
    assert_eq!(refused(insert(&other)), ("v".into(), MismatchKind::Type));
    let other = format!(r#"{{"name":"v","type":"text","value":""}},{id}"#);
    assert_eq!(
        refused(insert(&other)),
        ("id".into(), MismatchKind::Unknown)
    );
    let message = Message::decode(UPDATE.as_bytes()).unwrap();
    let described = Described::read(UPDATE.as_bytes(), &message).unwrap();
    assert_eq!(
        described.columns,
        Some(columns(&[EVENTS[0], EVENTS[1], EVENTS[3]]))
    );
    assert_eq!(described.identity, Some(columns(&EVENTS[..1])));
    assert_eq!(described.key, Some(vec!["id".into()]));
}

#[test]
fn only_what_can_be_toasted_may_be_left_out() {
    let missing = |shape: &mut Shape, text: &str| match rewrite(shape, text) {
        Ok(_) => None,
        Err(RowError::Mismatch(Mismatch { column, kind })) => {
            assert_eq!(kind, MismatchKind::Missing);
            Some(column.into_string())
        }
        Err(other) => panic!("{other:?}"),
    };
    let id = r#"{"name":"id","type":"bigint","value":1}"#;
    let ok = r#"{"name":"ok","type":"boolean","value":true}"#;
    let raw = r#"{"name":"raw","type":"bytea","value":"00"}"#;
    let text = r#"{"name":"text","type":"character varying(64)","value":null}"#;
    let of = |action: &str, row: String| {
        format!(r#"{{"action":"{action}","schema":"s","table":"t",{row}}}"#)
    };
    let update = |columns: &[&str]| of("U", format!(r#""columns":[{}]"#, columns.join(",")));
    let delete = |columns: &[&str]| of("D", format!(r#""identity":[{}]"#, columns.join(",")));
    let mut shape = Shape::new(&columns(&EVENTS)).inline(&[true, true, false, false]);
    // Twice: the second time the message's tail is known.
    for _ in 0..2 {
        assert_eq!(missing(&mut shape, &update(&[id, ok])), None);
        let found = missing(&mut shape, &update(&[id, raw, text]));
        assert_eq!(found.as_deref(), Some("ok"));
        // An identity may be a key; what was missing in the row before is not missing here.
        assert_eq!(missing(&mut shape, &delete(&[id])), None);
        let all = update(&[id, ok, raw, text]);
        let both = all.replacen(
            r#""columns""#,
            &format!(r#""columns":[{id},{ok}],"identity""#),
            1,
        );
        assert_eq!(missing(&mut shape, &both), None);
    }
    let mut shape = Shape::new(&columns(&EVENTS)).full(true);
    for _ in 0..2 {
        assert_eq!(missing(&mut shape, &delete(&[id, ok, raw, text])), None);
        let found = missing(&mut shape, &delete(&[id, ok, text]));
        assert_eq!(found.as_deref(), Some("raw"));
        assert_eq!(missing(&mut shape, &update(&[id])), None);
    }
}

#[test]
fn another_primary_key_is_named() {
    let with = |names: &[&str]| {
        let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
        Shape::new(&columns(&EVENTS)).keyed_by(&names)
    };
    for (known, expected) in [(&["text"][..], "id"), (&["id", "ok"], "ok"), (&[], "id")] {
        match rewrite(&mut with(known), UPDATE) {
            Err(RowError::Mismatch(Mismatch { column, kind })) => {
                assert_eq!((&*column, kind), (expected, MismatchKind::Key), "{known:?}");
            }
            other => panic!("{known:?}: {other:?}"),
        }
    }
    // What was found to be the same once may become another one.
    let mut shape = with(&["id"]);
    rewrite(&mut shape, UPDATE).unwrap();
    rewrite(&mut shape, UPDATE).unwrap();
    let other = UPDATE.replace(r#""pk":[{"name":"id""#, r#""pk":[{"name":"ok""#);
    assert!(matches!(
        rewrite(&mut shape, &other),
        Err(RowError::Mismatch(_))
    ));
    // Without `include-pk` nothing is said.
    let silent = UPDATE.replace(r#","pk":[{"name":"id","type":"bigint"}]"#, "");
    rewrite(&mut shape, &silent).unwrap();
}

#[test]
fn other_spellings_are_read_as_well() {
    let spelt = r#"{"action":"U","schema":"s","table":"t" , "columns" : [ { "type" : "bigint" , "name" : "id", "typeoid":20, "value" : 7 , "optional":false } ,{"name":"ok","type":"boolean","value":true,"position":2,"default":null}, {"name":"t\u0065xt","type":"character varying(64)","value":"\ud83d\ude00"} ] , "pk":[{"name":"id","type":"bigint"}], "identity":[{"name":"id","type":"bigint","value":7}] } "#;
    let mut shape = Shape::new(&columns(&EVENTS));
    let row = rewrite(&mut shape, spelt).unwrap();
    assert_eq!(row.after.unwrap(), ["=7", "=t", "UNCHANGED", "=😀"]);
    assert_eq!(row.before, None);
    for text in [
        r#"{"action":"U","schema":"s","table":"t","identity":[],"columns":[]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[],"columns":[]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","type":"bigint"}]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","type":"bigint","value":1,"value":2}]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","value":1}]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","type":"bigint","value":1-}]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","type":"bigint","value":[1]}]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"raw","type":"bytea","value":"\n"}]}"#,
        r#"{"action":"U","schema":"s","table":"t","columns":[{"name":"id","type":"bigint","value":1},]}"#,
        r#"{"action":"I","schema":"s","table":"t","identity":[]}"#,
        r#"{"action":"D","schema":"s","table":"t","pk":[]}"#,
    ] {
        let result = rewrite(&mut shape, text);
        assert!(
            matches!(result, Err(RowError::Decode(_))),
            "{text} {result:?}"
        );
    }
}

#[test]
fn type_names_that_are_no_json() {
    let mixed = columns(&[
        ("c", "\"char\""),
        ("s", "\"My \\Schema\".\"T,\"\"y\""),
        ("a", "\"S\".t[]"),
        ("g", "\"geo\"(Point,4326)"),
        ("p", "public.\"T\""),
    ]);
    // As the plugin writes them: raw where they begin with a quote and do not end with a bracket.
    let text = r#"{"action":"I","schema":"s","table":"t","columns":[{"name":"c","type":"char","value":"x"},{"name":"s","type":"My \Schema"."T,""y","value":"1"},{"name":"a","type":"\"S\".t[]","value":"{}"},{"name":"g","type":"geo"(Point,4326),"value":null},{"name":"p","type":"public.\"T\"","value":"2"}],"pk":[{"name":"s","type":"My \Schema"."T,""y"}]}"#;
    let message = Message::decode(text.as_bytes()).unwrap();
    let described = Described::read(text.as_bytes(), &message).unwrap();
    assert_eq!(described.columns.as_ref(), Some(&mixed));
    assert_eq!(described.key, Some(vec!["s".into()]));
    let row = rewrite(&mut Shape::new(&mixed), text).unwrap();
    assert_eq!(row.after.unwrap(), ["=x", "=1", "={}", "NULL", "=2"]);
}

#[test]
fn a_wide_table_needs_room_before_its_message() {
    let names: Vec<String> = (0..200).map(|n| format!("c{n}")).collect();
    let described: Vec<_> = names.iter().map(|name| (name.as_str(), "text")).collect();
    let mut shape = Shape::new(&columns(&described));
    let text = r#"{"action":"D","schema":"s","table":"t","identity":[{"name":"c199","type":"text","value":"abc"}]}"#;
    let message = Message::decode(text.as_bytes()).unwrap();
    let mut bytes = text.as_bytes().to_vec();
    let whole = 0..bytes.len();
    let error = shape.rewrite(&mut bytes, 0, whole, message.action, message.row_at);
    let Err(RowError::NoRoom { missing }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(bytes, text.as_bytes(), "untouched");
    // One byte less does not do, that many do.
    for (room, fits) in [(missing - 1, false), (missing, true)] {
        let mut bytes = vec![b' '; room];
        bytes.extend_from_slice(text.as_bytes());
        let range = room..bytes.len();
        let result = shape.rewrite(&mut bytes, 0, range, message.action, message.row_at);
        assert_eq!(result.is_ok(), fits);
        if let Ok(tuples) = result {
            let before = values(&bytes[tuples.before.unwrap()]);
            assert_eq!(before.iter().filter(|value| *value == "NULL").count(), 199);
            assert_eq!(before[199], "=abc");
        }
    }
}

#[test]
fn cut_anywhere_it_is_an_error_and_flipped_it_stays_inside() {
    let mut shape = Shape::new(&columns(&EVENTS));
    for text in [INSERT, UPDATE] {
        rewrite(&mut shape, text).unwrap();
        for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            assert!(rewrite(&mut shape, &text[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..text.len() {
            for flip in [0x01, 0x02, 0x20, 0x40, 0x80, 0xff] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] ^= flip;
                let Ok(message) = Message::decode(&bytes) else {
                    continue;
                };
                let (action, row_at) = (message.action, message.row_at);
                let whole = 0..bytes.len();
                if let Ok(tuples) = shape.rewrite(&mut bytes, 0, whole, action, row_at) {
                    for tuple in [tuples.before, tuples.after].into_iter().flatten() {
                        assert_eq!(values(&bytes[tuple]).len(), 4);
                    }
                }
            }
        }
    }
}

/// A JSON string with escapes where they have to be, and where they need not.
fn quoted(text: &str, needless: bool) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' if !needless => out += "\\n",
            character if character < ' ' || needless => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out += &format!("\\u{unit:04X}");
                }
            }
            character => out.push(character),
        }
    }
    out + "\""
}

proptest! {
    #[test]
    fn any_row_comes_back(
        cells in prop::collection::vec((".{0,4}", prop::option::of(".{0,20}"), any::<bool>(), any::<bool>()), 1..12),
        gap in 0_usize..40,
    ) {
        let described: Vec<_> = cells.iter().enumerate().map(|(n, (name, ..))| DescribedColumn {
            name: format!("{name}{n}").into(),
            type_name: "text".into(),
        }).collect();
        let mut array = Vec::new();
        let mut expected = Vec::new();
        for (column, (_, value, needless, absent)) in described.iter().zip(&cells) {
            if *absent {
                expected.push("UNCHANGED".to_owned());
                continue;
            }
            let text = value.as_ref().map_or("null".into(), |value| quoted(value, *needless));
            expected.push(value.as_ref().map_or("NULL".into(), |value| format!("={value}")));
            array.push(format!(r#"{{"name":{},"type":"text","value":{text}}}"#, quoted(&column.name, false)));
        }
        let text = format!(r#"{{"action":"U","schema":"s","table":"t","columns":[{}]}}"#, array.join(","));
        let message = Message::decode(text.as_bytes()).unwrap();
        let mut bytes = vec![b'#'; gap];
        bytes.extend_from_slice(text.as_bytes());
        let range = gap..bytes.len();
        let mut shape = Shape::new(&described);
        let tuples = shape.rewrite(&mut bytes, 0, range, message.action, message.row_at).unwrap();
        prop_assert_eq!(values(&bytes[tuples.after.unwrap()]), expected);
    }

    #[test]
    fn noise_does_not_panic(text in ".{0,60}", tail in r#"[{}\[\]":,a-z0-9\\ ]{0,60}"#) {
        for text in [text, format!(r#"{{"action":"U","schema":"s","table":"t","columns":[{tail}"#)] {
            let mut shape = Shape::new(&columns(&EVENTS));
            let mut bytes = text.clone().into_bytes();
            let whole = 0..bytes.len();
            if let Ok(message) = Message::decode(text.as_bytes())
                && shape.rewrite(&mut bytes, 0, whole, message.action, message.row_at).is_err()
            {
                prop_assert_eq!(bytes, text.into_bytes());
            }
        }
    }
}
