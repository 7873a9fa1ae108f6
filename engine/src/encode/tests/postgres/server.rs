//! Against what a real server says of its own texts: `fixtures/golden/postgres-15-texts.txt`, made by
//! `fixtures/sql/texts-postgres.sql`.

use base64::Engine as _;
use protocol::postgres::Array;

use super::*;

const TEXTS: &str = include_str!("../../../../../fixtures/golden/postgres-15-texts.txt");

/// Text and meaning of each line of a kind; there are `count` of them.
fn lines(kind: &str, count: usize) -> Vec<(&'static str, &'static str)> {
    let lines = TEXTS.lines().filter_map(|line| {
        let (found, rest) = line.split_once(" | ")?;
        (found == kind).then(|| rest.split_once(" | ").unwrap())
    });
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), count, "{kind}");
    lines
}

fn json(kind: &ColumnType, text: &str) -> serde_json::Value {
    let written = written(kind, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    serde_json::from_str(&written).unwrap()
}

#[test]
fn intervals_are_those_of_the_style_iso_8601() {
    for (text, expected) in lines("interval", 200) {
        assert_eq!(json(&ColumnType::Interval, text), expected, "{text}");
    }
}

#[test]
fn times_and_instants_are_turned_to_utc() {
    for (text, expected) in lines("timetz", 200) {
        assert_eq!(
            json(&ColumnType::TimeTz, text),
            format!("{expected}Z"),
            "{text}"
        );
    }
    for (text, expected) in lines("timestamptz", 200) {
        let kind = ColumnType::TimestampTz { digits: 6 };
        assert_eq!(json(&kind, text), expected, "{text}");
    }
}

#[test]
fn money_is_the_number_that_the_server_makes_of_it() {
    for (text, expected) in lines("money", 60) {
        assert_eq!(
            json(&ColumnType::Money { digits: 2 }, text),
            expected,
            "{text}"
        );
    }
}

#[test]
fn bits_are_little_endian_numbers() {
    for (text, expected) in lines("bits", 60) {
        let value = json(&ColumnType::VarBit, text);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(value.as_str().unwrap())
            .unwrap();
        assert_eq!(bytes.len(), text.len().div_ceil(8));
        let number = bytes
            .iter()
            .rev()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        assert_eq!(number.to_string(), expected, "{text}");
    }
}

#[test]
fn arrays_and_hstores_are_the_json_that_the_server_makes_of_them() {
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for (kind, element, count) in [
        ("text[]", ColumnType::Text, 30),
        ("integer[]", ColumnType::Integer, 6),
        ("boolean[]", ColumnType::Boolean, 1),
    ] {
        let array = ColumnType::Array(Box::new(Array {
            element,
            delimiter: b',',
        }));
        for (text, expected) in lines(kind, count) {
            assert_eq!(json(&array, text), parsed(expected), "{text}");
        }
    }
    for (text, expected) in lines("hstore", 4) {
        let value = json(&ColumnType::Hstore, text);
        assert_eq!(parsed(value.as_str().unwrap()), parsed(expected), "{text}");
    }
}
