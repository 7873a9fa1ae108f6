//! wal2json's heads that are like those before them: whether they are read in short or whole, the changes are the same.

use super::*;

/// A message at `lsn` as the server frames it.
fn framed(message: &[u8], lsn: u64) -> Vec<u8> {
    let mut frame = vec![b'd'];
    frame.extend_from_slice(&(29 + message.len() as u32).to_be_bytes());
    frame.push(b'w');
    for number in [lsn, lsn, 0] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    frame.extend_from_slice(message);
    frame
}

/// The frame with blanks, so that neither its head nor its arrays are what was remembered.
fn respelt(frame: &[u8]) -> Vec<u8> {
    let Some(message) = frame.get(30..).filter(|_| frame[5] == b'w') else {
        return frame.to_vec();
    };
    let lsn = u64::from_be_bytes(frame[6..14].try_into().unwrap());
    let mut text = b"{ ".to_vec();
    text.extend_from_slice(&message[1..]);
    for array in [&b"\"columns\":["[..], b"\"identity\":[", b"\"pk\":["] {
        let found = text
            .windows(array.len())
            .position(|window| window == array)
            // Not inside of a value, where quotes are escaped.
            .filter(|at| text[at - 1] == b',');
        if let Some(at) = found {
            text.insert(at + array.len() - 1, b' ');
        }
    }
    framed(&text, lsn)
}

fn told(frames: &[Vec<u8>]) -> Vec<Change> {
    let mut memory = Memory::of(Plugin::Wal2Json, &["*.*"], 1 << 14);
    memory.feed(&frames.concat()).unwrap();
    memory.finish().0
}

#[test]
fn recordings_say_the_same_in_other_spellings() {
    for name in ["postgres-15-wal2json-20k", "postgres-15-wal2json-types"] {
        let frames = frames(name);
        let respelt: Vec<_> = frames.iter().map(|frame| respelt(frame)).collect();
        assert!(told(&frames) == told(&respelt), "{name}");
    }
}

#[test]
fn a_head_like_the_one_before_does_not_hide_what_is_new() {
    let column = |name: &str, type_name: &str, value: &str| {
        format!(r#"{{"name":"{name}","type":"{type_name}","value":{value}}}"#)
    };
    let key = |name: &str| format!(r#""pk":[{{"name":"{name}","type":"bigint"}}]"#);
    let (id, v) = (
        column("id", "bigint", "1"),
        column("v", "text", r#""a\"b""#),
    );
    let renamed = column("w", "text", "null");
    let retyped = column("w", "uuid", r#""x""#);
    let insert = |columns: &[&String]| {
        let columns: Vec<&str> = columns.iter().map(|column| &***column).collect();
        format!(r#""columns":[{}]"#, columns.join(","))
    };
    let (shop, other, by_id) = (("shop", "t"), ("other", "t"), key("id"));
    // Action, table, row, key; what comes of it: columns and key.
    let rows = [
        ("I", shop, insert(&[&id, &v]), &by_id, "id v", "id"),
        ("I", shop, insert(&[&id, &v]), &by_id, "id v", "id"),
        // The same name in another schema, and back.
        ("I", other, insert(&[&v, &id]), &by_id, "v id", "id"),
        ("I", shop, insert(&[&id, &v]), &by_id, "id v", "id"),
        // Neither action nor array are the last one's.
        (
            "D",
            shop,
            format!(r#""identity":[{id}]"#),
            &by_id,
            "id v",
            "id",
        ),
        (
            "U",
            shop,
            format!(r#"{},"identity":[{id}]"#, insert(&[&id])),
            &by_id,
            "id v",
            "id",
        ),
        // Renamed, retyped, and with another key.
        ("I", shop, insert(&[&id, &renamed]), &by_id, "id w", "id"),
        ("I", shop, insert(&[&id, &retyped]), &by_id, "id w", "id"),
        ("I", shop, insert(&[&id, &retyped]), &key("w"), "id w", "w"),
        ("I", other, insert(&[&v, &id]), &by_id, "v id", "id"),
    ];
    let mut frames = vec![framed(
        br#"{"action":"B","xid":7,"timestamp":"2026-11-21 14:47:46.114922+00","lsn":"1/F0","nextlsn":"1/FF"}"#,
        1,
    )];
    let mut expected = Vec::new();
    for (n, (action, (schema, table), row, key, columns, by)) in rows.iter().enumerate() {
        // Places of one to three digits, in either case.
        let lsn = [0x9, 0xab, 0xfff][n % 3] + n as u64;
        let digits = if n % 2 == 0 {
            format!("{lsn:X}")
        } else {
            format!("{lsn:x}")
        };
        let message = format!(
            r#"{{"action":"{action}","xid":7,"timestamp":"2026-11-21 14:47:46.114922+00","lsn":"1/{digits}","schema":"{schema}","table":"{table}",{row},{key}}}"#
        );
        frames.push(framed(message.as_bytes(), 1));
        let operation = match *action {
            "I" => Operation::Create,
            "U" => Operation::Update,
            _ => Operation::Delete,
        };
        expected.push((
            format!("{schema}.{table}"),
            (*columns).to_owned(),
            (*by).to_owned(),
            operation,
            1 << 32 | lsn,
        ));
    }
    frames.push(framed(
        br#"{"action":"C","xid":7,"timestamp":"2026-11-21 14:47:46.114922+00","lsn":"1/F0","nextlsn":"1/FF"}"#,
        1,
    ));
    let changes = told(&frames);
    let found: Vec<_> = (changes.iter())
        .map(|change| {
            let table = change.table.clone();
            let (columns, key) = (change.columns.join(" "), change.key.join(" "));
            (table, columns, key, change.operation, change.lsn)
        })
        .collect();
    assert_eq!(found, expected);
    let respelt: Vec<_> = frames.iter().map(|frame| respelt(frame)).collect();
    assert!(changes == told(&respelt));
}
