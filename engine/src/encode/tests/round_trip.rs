//! Whatever the values, records parse back to them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn columns() -> Vec<Column> {
    vec![
        column("big", ColumnType::BigInt { unsigned: false }),
        column("huge", ColumnType::BigInt { unsigned: true }),
        varchar("text"),
        column("double", ColumnType::Double),
        column("float", ColumnType::Float),
        column(
            "bytes",
            ColumnType::VarBinary {
                length_bytes: 1,
                compressed: false,
            },
        ),
        column("at", ColumnType::Timestamp { fsp: 0, old: false }),
    ]
}

/// The text of a number: serde_json's own parser rounds.
fn number(record: &Read, name: &str) -> String {
    let (_, rest) = record
        .value
        .as_ref()
        .unwrap()
        .split_once(&format!("\"{name}\":"))
        .unwrap();
    rest.split(',').next().unwrap().to_owned()
}

fn unquoted(value: &serde_json::Value) -> String {
    value.as_str().unwrap().to_owned()
}

proptest! {
    #[test]
    fn values_come_back(
        big: Option<i64>,
        huge: Option<u64>,
        text in proptest::option::of("\\PC{0,40}|[\\x00-\\x7f]{0,60}"),
        double in proptest::option::of(proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO),
        float in proptest::option::of(proptest::num::f32::NORMAL | proptest::num::f32::ZERO),
        bytes: Option<[u8; 7]>,
        at in proptest::option::of(1u32..),
        key in 0..7_u16,
    ) {
        let row = [
            big.map(|v| v.to_le_bytes().to_vec()),
            huge.map(|v| v.to_le_bytes().to_vec()),
            text.as_ref().and_then(stored_text),
            double.map(|v| v.to_le_bytes().to_vec()),
            float.map(|v| v.to_le_bytes().to_vec()),
            bytes.and_then(stored_text),
            at.map(|v| v.to_be_bytes().to_vec()),
        ];
        let mut maker = Maker::new();
        maker.group(&table("t", &[key], columns()));
        maker.row(None, Some(&row));
        let record = &encode(&maker.batch)[0];
        let after = &record.json()["after"];
        prop_assert_eq!(&after["big"], &json!(big));
        prop_assert_eq!(&after["huge"], &json!(huge));
        prop_assert_eq!(&after["text"], &json!(text));
        prop_assert_eq!(number(record, "double").parse().ok(), double);
        prop_assert_eq!(number(record, "float").parse().ok(), float);
        let base64 = |v: [u8; 7]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, v);
        prop_assert_eq!(&after["bytes"], &json!(bytes.map(base64)));
        if let Some(at) = at {
            prop_assert_eq!(seconds_of(&unquoted(&after["at"])), i64::from(at));
        }
        let name = &columns()[usize::from(key)].name;
        let key: serde_json::Value = serde_json::from_str(record.key.as_ref().unwrap()).unwrap();
        prop_assert_eq!(&key[&**name], &after[&**name]);
        prop_assert_eq!(key.as_object().unwrap().len(), 1);
    }

    /// Images made of anything give an error or a record, never a panic.
    #[test]
    fn noise_is_refused_or_encoded(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0..37_usize) {
        let mut maker = Maker::new();
        maker.group(&table("t", &[0], super::column_types::every_type()));
        maker.row(None, Some(&[]));
        let start = maker.batch.bytes.len();
        maker.batch.bytes.extend_from_slice(&vec![0; at % 8]);
        maker.batch.bytes.extend_from_slice(&noise);
        maker.batch.events[0].after = Span::new(start..maker.batch.bytes.len()).unwrap();
        let settings = settings();
        let templates = templates(&maker.batch, &settings);
        if let Ok(parts) = Encoder::new(Arc::new(settings)).encode(&maker.batch, &templates, None, NOW) {
            for record in read(&parts) {
                record.json();
            }
        }
    }
}

/// `2025-02-17T15:19:39Z` as seconds since 1970, by counting days.
fn seconds_of(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [
        31,
        28 + i64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let days: i64 = (1970..year).map(|year| 365 + i64::from(leap(year))).sum();
    let days = days + lengths[..month as usize - 1].iter().sum::<i64>() + day - 1;
    days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)
}
