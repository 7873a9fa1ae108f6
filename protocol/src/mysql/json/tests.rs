//! JSON: the binary form against an independent writer, and text as the server prints it.

use super::*;
use proptest::prelude::*;

/// A JSON value as the tests think of it, and an independent writer of the binary form.
#[derive(Debug, Clone)]
enum Json {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

fn length(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn scalar_or_container(value: &Json, large: bool) -> (u8, Vec<u8>) {
    match value {
        Json::Null => (4, vec![0]),
        Json::Bool(true) => (4, vec![1]),
        Json::Bool(false) => (4, vec![2]),
        Json::Int(v) => match i16::try_from(*v) {
            Ok(v) => (5, v.to_le_bytes().to_vec()),
            Err(_) => match i32::try_from(*v) {
                Ok(v) => (7, v.to_le_bytes().to_vec()),
                Err(_) => (9, v.to_le_bytes().to_vec()),
            },
        },
        Json::UInt(v) => match u16::try_from(*v) {
            Ok(v) => (6, v.to_le_bytes().to_vec()),
            Err(_) => match u32::try_from(*v) {
                Ok(v) => (8, v.to_le_bytes().to_vec()),
                Err(_) => (10, v.to_le_bytes().to_vec()),
            },
        },
        Json::Text(text) => {
            let mut bytes = Vec::new();
            length(text.len(), &mut bytes);
            bytes.extend(text.as_bytes());
            (12, bytes)
        }
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| (None, item)).collect();
            (if large { 3 } else { 2 }, container(&items, large))
        }
        Json::Object(items) => {
            let items: Vec<_> = items.iter().map(|(k, v)| (Some(k.as_str()), v)).collect();
            (if large { 1 } else { 0 }, container(&items, large))
        }
    }
}

fn container(items: &[(Option<&str>, &Json)], large: bool) -> Vec<u8> {
    let width = if large { 4 } else { 2 };
    let put = |value: usize| (value as u64).to_le_bytes()[..width].to_vec();
    let object = items.first().is_some_and(|(key, _)| key.is_some());
    let entries = items.len() * (1 + width + if object { width + 2 } else { 0 });
    let mut at = 2 * width + entries;
    let (mut keys, mut values, mut tail) = (Vec::new(), Vec::new(), Vec::new());
    for (key, _) in items {
        let Some(key) = key else { continue };
        keys.extend(put(at));
        keys.extend((key.len() as u16).to_le_bytes());
        tail.extend(key.as_bytes());
        at += key.len();
    }
    for (_, value) in items {
        let (kind, bytes) = scalar_or_container(value, large);
        values.push(kind);
        let inlined = matches!(kind, 4..=6) || (large && matches!(kind, 7 | 8));
        if inlined {
            let mut cell = bytes;
            cell.resize(width, 0);
            values.extend(cell);
        } else {
            values.extend(put(at));
            at += bytes.len();
            tail.extend(bytes);
        }
    }
    [put(items.len()), put(at), keys, values, tail].concat()
}

fn document(value: &Json, large: bool) -> Vec<u8> {
    let (kind, bytes) = scalar_or_container(value, large);
    [vec![kind], bytes].concat()
}

fn text_of(value: &Json) -> String {
    match value {
        Json::Null => "null".into(),
        Json::Bool(v) => v.to_string(),
        Json::Int(v) => v.to_string(),
        Json::UInt(v) => v.to_string(),
        Json::Text(text) => {
            let mut out = String::from("\"");
            for c in text.chars() {
                match c {
                    '"' => out += "\\\"",
                    '\\' => out += "\\\\",
                    '\n' => out += "\\n",
                    '\t' => out += "\\t",
                    '\r' => out += "\\r",
                    '\u{8}' => out += "\\b",
                    '\u{c}' => out += "\\f",
                    c if c < ' ' => out += &format!("\\u00{:02x}", c as u32),
                    c => out.push(c),
                }
            }
            out + "\""
        }
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(text_of).collect();
            format!("[{}]", items.join(","))
        }
        Json::Object(items) if items.is_empty() => "{}".into(),
        Json::Object(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|(k, v)| format!("{}:{}", text_of(&Json::Text(k.clone())), text_of(v)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
    }
}

fn text(document: &[u8]) -> Result<String, DecodeError> {
    let mut out = Vec::new();
    write_text(document, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(Json::Int),
        (-40_000_i64..40_000).prop_map(Json::Int),
        any::<u64>().prop_map(Json::UInt),
        (0_u64..100_000).prop_map(Json::UInt),
        "\\PC{0,20}".prop_map(Json::Text),
        "[\\x00-\\x20\"\\\\]{0,5}".prop_map(Json::Text),
        "a{100,200}".prop_map(Json::Text),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..6).prop_map(Json::Array),
            prop::collection::btree_map("[a-z\"]{0,4}", inner, 1..6)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_document(value in any_json(), large: bool) {
        let bytes = document(&value, large);
        prop_assert_eq!(text(&bytes).unwrap(), text_of(&value));
        for cut in 1..bytes.len() {
            let _ = text(&bytes[..cut]);
        }
    }

    #[test]
    fn any_bytes(kind in 0_u8..17, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = text(&[vec![kind], bytes].concat());
    }

    #[test]
    fn damaged_documents_stay_bounded(value in any_json(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = document(&value, false);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut out = Vec::new();
        let _ = write_text(&bytes, &mut out);
        // Six bytes of text at most per byte of a string, some for punctuation and numbers per entry.
        prop_assert!(out.len() <= 30 * (bytes.len() + 1), "{} from {}", out.len(), bytes.len());
    }

    #[test]
    fn doubles_read_back(value: f64) {
        prop_assume!(value.is_finite());
        let bytes = [vec![0x0b], value.to_le_bytes().to_vec()].concat();
        let text = text(&bytes).unwrap();
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{}", text);
    }
}

#[test]
fn doubles_look_like_the_servers() {
    for (value, expected) in [
        (0.0, "0.0"),
        (1.0, "1.0"),
        (-2.5, "-2.5"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (1e-14, "0.00000000000001"),
        (1.5e-16, "1.5e-16"),
        (123_456_789_012_345.0, "123456789012345.0"),
        (1e15, "1e15"),
        (1e20, "1e20"),
        (1.797_693_134_862_315_7e308, "1.7976931348623157e308"),
    ] {
        let bytes = [vec![0x0b], f64::to_le_bytes(value).to_vec()].concat();
        assert_eq!(text(&bytes).unwrap(), expected);
    }
}

#[test]
fn opaque_values_look_like_the_servers() {
    let opaque = |field_type: u8, bytes: &[u8]| {
        let mut document = vec![0x0f, field_type];
        length(bytes.len(), &mut document);
        document.extend_from_slice(bytes);
        text(&document).unwrap()
    };
    assert_eq!(opaque(246, &[4, 2, 0x8c, 34]), "12.34");
    // 2015-01-15 23:24:25.000012
    let packed = (((2015_i64 * 13 + 1) << 5 | 15) << 17 | 23 << 12 | 24 << 6 | 25) << 24 | 12;
    assert_eq!(
        opaque(12, &packed.to_le_bytes()),
        "\"2015-01-15 23:24:25.000012\""
    );
    assert_eq!(opaque(10, &packed.to_le_bytes()), "\"2015-01-15\"");
    let time = (23_i64 << 12 | 24 << 6 | 25) << 24 | 12;
    assert_eq!(opaque(11, &(-time).to_le_bytes()), "\"-23:24:25.000012\"");
    assert_eq!(opaque(16, &[1]), "\"base64:type16:AQ==\"");
    let long = opaque(252, &[0; 58]);
    assert_eq!(
        long,
        format!("\"base64:type252:{}\\nAA==\"", "A".repeat(76))
    );
}

#[test]
fn nesting_is_limited() {
    let mut value = Json::Null;
    for _ in 0..JSON_DEPTH_MAX {
        value = Json::Array(vec![value]);
    }
    text(&document(&value, true)).unwrap();
    let error = text(&document(&Json::Array(vec![value]), true)).unwrap_err();
    assert!(matches!(error.kind, DecodeErrorKind::TooLong { .. }));
}

#[test]
fn an_empty_document_is_null() {
    assert_eq!(text(&[]).unwrap(), "null");
}

fn diff(operation: u8, path: &str, value: Option<&Json>) -> Vec<u8> {
    let mut out = vec![operation, path.len() as u8];
    out.extend(path.as_bytes());
    if let Some(value) = value {
        let bytes = document(value, false);
        out.push(bytes.len() as u8);
        out.extend(bytes);
    }
    out
}

#[test]
fn diffs_replace_insert_and_remove() {
    let before = Json::Object(vec![
        ("a".into(), Json::Array(vec![Json::Int(1), Json::Int(2)])),
        ("d e".into(), Json::Object(vec![("x".into(), Json::Null)])),
    ]);
    let before = document(&before, false);
    let diffs = [
        diff(0, "$.a[1]", Some(&Json::Text("two".into()))),
        diff(1, "$.a[0]", Some(&Json::Int(0))),
        diff(1, "$.bb", Some(&Json::Bool(true))),
        diff(1, "$.a[9]", Some(&Json::Int(9))),
        diff(2, "$.\"d e\".x", None),
    ]
    .concat();
    let mut out = Vec::new();
    apply_diffs(&before, &diffs, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"a":[0,1,"two",9],"bb":true,"d e":{}}"#
    );
    let missing = diff(0, "$.nothing", Some(&Json::Null));
    apply_diffs(&before, &missing, &mut Vec::new()).unwrap_err();
    for cut in 1..diffs.len() {
        let _ = apply_diffs(&before, &diffs[..cut], &mut Vec::new());
    }
}
