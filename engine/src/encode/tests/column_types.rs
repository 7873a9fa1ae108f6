//! Every type's mapping at its edges.

use super::*;

/// The JSON of one value, and of the same value as a key.
fn both(kind: ColumnType, stored: &[u8]) -> (String, String) {
    let mut maker = Maker::new();
    maker.group(&table("t", &[0], vec![column("v", kind)]));
    maker.row(None, Some(&[Some(stored.to_vec())]));
    let record = &encode(&maker.batch)[0];
    let value = record.value.as_deref().unwrap();
    let value = value
        .strip_prefix("{\"before\":null,\"after\":{\"v\":")
        .unwrap();
    let end = value.find("},\"source\":").unwrap();
    let key = record.key.as_deref().unwrap();
    let key = key
        .strip_prefix("{\"v\":")
        .and_then(|key| key.strip_suffix('}'));
    (value[..end].to_owned(), key.unwrap().to_owned())
}

fn value(kind: ColumnType, stored: &[u8]) -> String {
    let (value, key) = both(kind, stored);
    assert_eq!(value, key);
    value
}

fn text(text: &str) -> Vec<u8> {
    stored_text(text).unwrap()
}

fn labels(labels: &[&str]) -> Box<[Box<str>]> {
    labels.iter().map(|label| (*label).into()).collect()
}

/// A column of each type, for noise.
pub(super) fn every_type() -> Vec<Column> {
    use ColumnType as T;
    let charset = UTF8;
    let kinds = [
        T::TinyInt { unsigned: true },
        T::Decimal {
            precision: 12,
            scale: 3,
        },
        T::Year,
        T::Bit { bits: 10 },
        T::Date,
        T::Time { fsp: 6, old: false },
        T::Time { fsp: 0, old: true },
        T::DateTime { fsp: 3, old: false },
        T::DateTime { fsp: 0, old: true },
        T::Timestamp { fsp: 6, old: false },
        T::Timestamp { fsp: 0, old: true },
        T::Char {
            length_bytes: 1,
            width: 20,
            charset,
        },
        T::Binary {
            length_bytes: 1,
            width: 9,
        },
        T::VarChar {
            length_bytes: 1,
            charset,
            compressed: true,
        },
        T::Blob {
            length_bytes: 1,
            compressed: false,
        },
        T::Enum {
            width: 1,
            labels: labels(&["a", "b"]),
        },
        T::Set {
            width: 1,
            labels: labels(&["a", "b"]),
        },
        T::Json { length_bytes: 1 },
        T::Geometry {
            length_bytes: 1,
            point: true,
        },
        T::Vector { length_bytes: 1 },
        T::Uuid,
        T::Inet4,
        T::Inet6,
    ];
    let named = |(n, kind)| column(&format!("c{n}"), kind);
    kinds.into_iter().enumerate().map(named).collect()
}

#[test]
fn integers_at_their_edges() {
    use ColumnType as T;
    assert_eq!(value(T::TinyInt { unsigned: false }, &[0x80]), "-128");
    assert_eq!(value(T::TinyInt { unsigned: true }, &[0xff]), "255");
    assert_eq!(
        value(T::MediumInt { unsigned: false }, &[0, 0, 0x80]),
        "-8388608"
    );
    assert_eq!(
        value(T::MediumInt { unsigned: true }, &[0xff; 3]),
        "16777215"
    );
    assert_eq!(
        value(T::BigInt { unsigned: false }, &i64::MIN.to_le_bytes()),
        "-9223372036854775808"
    );
    assert_eq!(
        value(T::BigInt { unsigned: true }, &[0xff; 8]),
        "18446744073709551615"
    );
    assert_eq!(value(T::Year, &[0]), "0");
    assert_eq!(value(T::Year, &[255]), "2155");
}

#[test]
fn numbers_with_a_fraction() {
    use ColumnType as T;
    assert_eq!(value(T::Float, &1.1_f32.to_le_bytes()), "1.1");
    assert_eq!(value(T::Float, &f32::MAX.to_le_bytes()), "3.4028235E38");
    assert_eq!(value(T::Double, &(-0.0_f64).to_le_bytes()), "-0.0");
    assert_eq!(value(T::Double, &1e21_f64.to_le_bytes()), "1.0E21");
    let decimal = T::Decimal {
        precision: 5,
        scale: 2,
    };
    assert_eq!(value(decimal.clone(), &[0x80, 0, 50]), "\"0.50\"");
    assert_eq!(value(decimal, &[0x7f, 0xff, !50]), "\"-0.50\"");
}

#[test]
fn bits_begin_with_the_least_significant_byte() {
    use ColumnType as T;
    assert_eq!(value(T::Bit { bits: 1 }, &[0]), "false");
    assert_eq!(value(T::Bit { bits: 1 }, &[1]), "true");
    assert_eq!(value(T::Bit { bits: 10 }, &[0x02, 0x03]), "\"AwI=\"");
    assert_eq!(
        value(T::Bit { bits: 64 }, &[0, 0, 0, 0, 0, 0, 0, 1]),
        "\"AQAAAAAAAAA=\""
    );
}

#[test]
fn binary_is_padded() {
    use ColumnType as T;
    let binary = T::Binary {
        length_bytes: 1,
        width: 4,
    };
    assert_eq!(value(binary.clone(), &[2, 0, 1]), "\"AAEAAA==\"");
    assert_eq!(value(binary, &[0]), "\"AAAAAA==\"");
    let varbinary = T::VarBinary {
        length_bytes: 1,
        compressed: false,
    };
    assert_eq!(value(varbinary.clone(), &[2, 0, 1]), "\"AAE=\"");
    assert_eq!(value(varbinary, &[0]), "\"\"");
}

#[test]
fn labels_are_taken_as_they_are() {
    use ColumnType as T;
    let of_enum = T::Enum {
        width: 1,
        labels: labels(&["a", "b,c", "ü\""]),
    };
    assert_eq!(value(of_enum.clone(), &[2]), "\"b,c\"");
    assert_eq!(value(of_enum.clone(), &[3]), "\"ü\\\"\"");
    assert_eq!(value(of_enum.clone(), &[0]), "\"\"");
    let set = T::Set {
        width: 1,
        labels: labels(&["x", "y", "z"]),
    };
    assert_eq!(value(set.clone(), &[0]), "\"\"");
    assert_eq!(value(set.clone(), &[0b110]), "\"y,z\"");

    for (kind, stored) in [(of_enum, 4), (set, 0b1001)] {
        let mut maker = Maker::new();
        maker.group(&table("t", &[], vec![column("v", kind)]));
        maker.row(None, Some(&[Some(vec![stored])]));
        let error = encode_with(&maker.batch, settings()).unwrap_err();
        assert!(error.to_string().contains("column v: value"), "{error}");
        assert!(matches!(
            error.kind,
            EncodeErrorKind::Label { labels: 3, .. }
        ));
    }
}

#[test]
fn zero_dates_are_null_and_counted() {
    use ColumnType as T;
    let zeros: [(T, Vec<u8>); 5] = [
        (T::Date, vec![0; 3]),
        (T::Date, (1_u32 | 2025 << 9).to_le_bytes()[..3].to_vec()),
        (T::DateTime { fsp: 0, old: false }, vec![0x80, 0, 0, 0, 0]),
        (T::Timestamp { fsp: 0, old: false }, vec![0; 4]),
        (T::Timestamp { fsp: 6, old: false }, vec![0; 7]),
    ];
    let columns = zeros
        .iter()
        .enumerate()
        .map(|(n, (kind, _))| column(&format!("c{n}"), kind.clone()));
    let mut maker = Maker::new();
    maker.group(&table("t", &[], columns.collect()));
    let row: Vec<Stored> = zeros
        .iter()
        .map(|(_, stored)| Some(stored.clone()))
        .collect();
    maker.row(None, Some(&row));
    let settings = settings();
    let templates = templates(&maker.batch, &settings);
    let mut encoder = Encoder::new(Arc::new(settings));
    let records = read(&encoder.encode(&maker.batch, &templates, None, NOW).unwrap());
    let after = records[0].json()["after"].clone();
    assert!(
        after
            .as_object()
            .unwrap()
            .values()
            .all(serde_json::Value::is_null)
    );
    assert_eq!(encoder.zero_dates(), 5);
}

/// A key of null would be one row of several: compaction keeps the last of them.
#[test]
fn zero_dates_in_keys_keep_rows_apart() {
    use ColumnType as T;
    let date = |day: u32, month: u32, year: u32| {
        (day | month << 5 | year << 9).to_le_bytes()[..3].to_vec()
    };
    let datetime = |month: u64, day: u64, hour: u64| {
        let packed = ((2025 * 13 + month) << 5 | day) << 17 | hour << 12;
        (packed | 1 << 39).to_be_bytes()[3..].to_vec()
    };
    let cases = [
        (T::Date, date(0, 0, 0), r#""0000-00-00Z""#),
        (T::Date, date(0, 0, 2025), r#""2025-00-00Z""#),
        (T::Date, date(0, 2, 2025), r#""2025-02-00Z""#),
        (
            T::DateTime { fsp: 0, old: false },
            vec![0x80, 0, 0, 0, 0],
            r#""0000-00-00T00:00:00Z""#,
        ),
        (
            T::DateTime { fsp: 0, old: false },
            datetime(2, 0, 15),
            r#""2025-02-00T15:00:00Z""#,
        ),
        (T::Timestamp { fsp: 0, old: false }, vec![0; 4], "null"),
    ];
    for (kind, stored, text) in cases {
        let mut maker = Maker::new();
        maker.group(&table("t", &[0], vec![column("k", kind)]));
        maker.row(None, Some(&[Some(stored)]));
        let record = encode(&maker.batch).remove(0);
        assert_eq!(record.key, Some(format!("{{\"k\":{text}}}")));
        assert!(record.json()["after"]["k"].is_null(), "{text}");
    }
}

#[test]
fn strings_in_values_and_keys() {
    use ColumnType as T;
    let varchar = T::VarChar {
        length_bytes: 1,
        charset: UTF8,
        compressed: false,
    };
    assert_eq!(value(varchar.clone(), &text("")), "\"\"");
    assert_eq!(
        value(varchar.clone(), &text("a\"b\\\u{1}é")),
        "\"a\\\"b\\\\\\u0001é\""
    );
    let (in_value, in_key) = both(varchar, &text("𝄞"));
    assert_eq!((&*in_value, &*in_key), ("\"𝄞\"", "\"\\uD834\\uDD1E\""));
}

#[test]
fn geometry_is_an_object() {
    let geometry = |point| ColumnType::Geometry {
        length_bytes: 1,
        point,
    };
    let mut stored = vec![25, 0, 0, 0, 0, 1, 1, 0, 0, 0];
    stored.extend_from_slice(&1.0_f64.to_le_bytes());
    stored.extend_from_slice(&(-2.5_f64).to_le_bytes());
    let wkb = "AQEAAAAAAAAAAADwPwAAAAAAAATA";
    assert_eq!(
        value(geometry(true), &stored),
        format!("{{\"x\":1.0,\"y\":-2.5,\"wkb\":\"{wkb}\",\"srid\":null}}")
    );
    stored[1..3].copy_from_slice(&4326_u16.to_le_bytes());
    assert_eq!(
        value(geometry(false), &stored),
        format!("{{\"wkb\":\"{wkb}\",\"srid\":4326}}")
    );
    for point in [true, false] {
        assert_eq!(value(geometry(point), &[0]), "null");
    }
}

#[test]
fn vectors_are_arrays() {
    let vector = ColumnType::Vector { length_bytes: 1 };
    let stored = [&[8][..], &1.0_f32.to_le_bytes(), &(-0.1_f32).to_le_bytes()].concat();
    assert_eq!(value(vector.clone(), &stored), "[1.0,-0.1]");
    assert_eq!(value(vector, &[0]), "[]");
}

#[test]
fn mariadb_types_get_their_zeros_back() {
    use ColumnType as T;
    let uuid = stored_text(b"\x12\x3e\x45\x67\xe8\x9b\x12\xd3\xa4\x56\x42\x66\x55").unwrap();
    assert_eq!(
        value(T::Uuid, &uuid),
        "\"123e4567-e89b-12d3-a456-426655000000\""
    );
    assert_eq!(value(T::Inet4, &[2, 10, 1]), "\"10.1.0.0\"");
    let inet6 = |bytes: &[u8]| value(T::Inet6, &stored_text(bytes).unwrap());
    assert_eq!(inet6(&[]), "\"::\"");
    assert_eq!(inet6(b"\x20\x01\x0d\xb8"), "\"2001:db8::\"");
    assert_eq!(
        inet6(b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x80"),
        "\"::ffff:192.0.2.128\""
    );
    assert_eq!(
        inet6(b"\0\0\0\0\0\0\0\0\0\0\0\0\xc0\0\x02\x80"),
        "\"::192.0.2.128\""
    );
    assert_eq!(inet6(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"), "\"::1\"");
    assert_eq!(
        inet6(b"\x20\x01\x0d\xb8\0\0\0\x01\0\0\0\0\0\0\0\x01"),
        "\"2001:db8:0:1::1\""
    );
}
