//! Every type's values. What stands left is what PostgreSQL 15 (17 for infinite intervals) prints.

use protocol::postgres::Array;

use super::*;

fn array(element: ColumnType) -> ColumnType {
    array_of(element, b',')
}

fn array_of(element: ColumnType, delimiter: u8) -> ColumnType {
    ColumnType::Array(Box::new(Array { element, delimiter }))
}

/// A column of each type.
pub(super) fn every_type() -> Vec<(&'static str, ColumnType)> {
    use ColumnType as T;
    vec![
        ("integer", T::Integer),
        ("text", T::Text),
        ("boolean", T::Boolean),
        ("real", T::Real),
        ("double", T::Double),
        ("numeric", T::Numeric),
        ("money", T::Money { digits: 2 }),
        ("bytea", T::Bytea),
        ("bit1", T::Bit { width: 1 }),
        ("bit10", T::Bit { width: 10 }),
        ("varbit", T::VarBit),
        ("date", T::Date),
        ("time", T::Time),
        ("timetz", T::TimeTz),
        ("timestamp", T::Timestamp),
        ("timestamptz", T::TimestampTz { digits: 6 }),
        ("timestamptz0", T::TimestampTz { digits: 0 }),
        ("interval", T::Interval),
        ("point", T::Point),
        ("geometry", T::Geometry),
        ("vector", T::Vector),
        ("hstore", T::Hstore),
        ("texts", array(T::Text)),
        ("integers", array(T::Integer)),
        ("hstores", array(T::Hstore)),
        ("instants", array(T::TimestampTz { digits: 3 })),
        ("boxes", array_of(T::Text, b';')),
    ]
}

fn check(kind: &ColumnType, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let found = written(kind, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(found, *expected, "{text}");
        serde_json::from_str::<serde_json::Value>(&found).unwrap();
    }
}

fn refuse(kind: &ColumnType, texts: &[&str]) {
    for text in texts {
        assert!(written(kind, text).is_err(), "{text}");
    }
}

#[test]
fn numbers() {
    use ColumnType as T;
    check(
        &T::Integer,
        &[
            ("0", "0"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("4294967295", "4294967295"),
        ],
    );
    refuse(&T::Integer, &["", "1.0", "01", "NaN", "1 ", "0x1"]);
    check(
        &T::Real,
        &[
            ("1.1", "1.1"),
            ("1e-45", "1.4E-45"),
            ("NaN", "\"NaN\""),
            ("-Infinity", "\"-Infinity\""),
            ("3", "3.0"),
            ("1e+10", "1.0E10"),
        ],
    );
    check(
        &T::Double,
        &[
            ("1e-07", "1.0E-7"),
            ("5e-324", "4.9E-324"),
            ("-0", "-0.0"),
            ("1e+15", "1.0E15"),
            ("123456.7", "123456.7"),
            ("Infinity", "\"Infinity\""),
        ],
    );
    refuse(&T::Double, &["", "inf", "1,5", "nan"]);
    check(
        &T::Numeric,
        &[
            ("-123456789012345.12345", "\"-123456789012345.12345\""),
            ("0.00", "\"0.00\""),
            ("NaN", "\"NaN\""),
            ("Infinity", "\"Infinity\""),
            ("-Infinity", "\"-Infinity\""),
        ],
    );
    refuse(&T::Numeric, &["", "1e5", "1\"", "1.2.3"]);
    check(
        &T::Money { digits: 2 },
        &[("$1,234.50", "\"1234.50\""), ("-$0.01", "\"-0.01\"")],
    );
    refuse(&T::Money { digits: 2 }, &["", "1.234,50 €"]);
    check(
        &T::Boolean,
        &[
            ("t", "true"),
            ("f", "false"),
            ("true", "true"),
            ("false", "false"),
        ],
    );
    refuse(&T::Boolean, &["", "1", "T"]);
}

#[test]
fn texts() {
    use ColumnType as T;
    check(
        &T::Text,
        &[
            ("", "\"\""),
            ("ab   ", "\"ab   \""),
            ("a\"\\\n\u{1}é𝄞/", "\"a\\\"\\\\\\n\\u0001é𝄞/\""),
            ("{\"a\": [1, 2.50]}", "\"{\\\"a\\\": [1, 2.50]}\""),
        ],
    );
    let mut maker = Maker::new();
    maker.create(&table("t", &[], &[("v", T::Text)]), &[Text("\u{fffd}")]);
    let at = maker.batch.bytes.len() - 1;
    maker.batch.bytes[at] = b'x';
    let error = encode_with(&maker.batch, settings())
        .unwrap_err()
        .to_string();
    assert!(error.contains("column v: text"), "{error}");
}

#[test]
fn bits_and_bytes() {
    use ColumnType as T;
    check(&T::Bit { width: 1 }, &[("1", "true"), ("0", "false")]);
    check(
        &T::Bit { width: 10 },
        &[("1000000011", "\"AwI=\""), ("0000000001", "\"AQA=\"")],
    );
    check(&T::Bit { width: 8 }, &[("10101010", "\"qg==\"")]);
    check(&T::VarBit, &[("101", "\"BQ==\""), ("", "\"\"")]);
    refuse(&T::VarBit, &["2", "1 "]);
    check(&T::Bytea, &[("\\x00ff", "\"AP8=\""), ("\\x", "\"\"")]);
    refuse(&T::Bytea, &["", "\\377", "\\x0"]);
}

#[test]
fn dates_and_times() {
    use ColumnType as T;
    check(
        &T::Date,
        &[
            ("2025-02-17", "\"2025-02-17Z\""),
            ("0044-03-15 BC", "\"-0043-03-15Z\""),
            ("0001-12-31 BC", "\"0000-12-31Z\""),
            ("4714-11-24 BC", "\"-4713-11-24Z\""),
            ("5874897-12-31", "\"+5874897-12-31Z\""),
            ("infinity", "\"infinity\""),
            ("-infinity", "\"-infinity\""),
        ],
    );
    refuse(&T::Date, &["", "17/02/2025", "2025-13-01"]);
    check(
        &T::Time,
        &[
            ("15:19:39", "\"15:19:39Z\""),
            ("15:19:39.120", "\"15:19:39.12Z\""),
            ("24:00:00", "\"24:00:00Z\""),
        ],
    );
    refuse(&T::Time, &["", "25:00:00", "15:19"]);
    check(
        &T::TimeTz,
        &[
            ("15:19:39.123456+02", "\"13:19:39.123456Z\""),
            ("01:00:00+05:30", "\"19:30:00Z\""),
            ("24:00:00+00", "\"24:00:00Z\""),
        ],
    );
    check(
        &T::Timestamp,
        &[
            ("2025-02-17 15:19:39", "\"2025-02-17T15:19:39Z\""),
            ("2025-02-17 15:19:39.12", "\"2025-02-17T15:19:39.12Z\""),
            ("0044-03-15 12:00:00 BC", "\"-0043-03-15T12:00:00Z\""),
            (
                "294276-12-31 23:59:59.999999",
                "\"+294276-12-31T23:59:59.999999Z\"",
            ),
            ("-infinity", "\"-infinity\""),
        ],
    );
    refuse(
        &T::Timestamp,
        &[
            "",
            "2025-02-17",
            "2025-02-17 15:19:39+00",
            "2025-02-17 15:19:39.",
            "2025-02-17 15:19:39.1234567",
        ],
    );
    check(
        &T::TimestampTz { digits: 6 },
        &[
            (
                "2025-02-17 14:19:39.123456+00",
                "\"2025-02-17T14:19:39.123456Z\"",
            ),
            ("2025-02-17 14:19:39+00", "\"2025-02-17T14:19:39.000000Z\""),
            (
                "12025-01-01 00:00:00+00",
                "\"+12025-01-01T00:00:00.000000Z\"",
            ),
            (
                "0044-03-15 12:00:00+00 BC",
                "\"-0043-03-15T12:00:00.000000Z\"",
            ),
            (
                "2025-02-17 15:19:39.5+01",
                "\"2025-02-17T14:19:39.500000Z\"",
            ),
            ("infinity", "\"infinity\""),
        ],
    );
    check(
        &T::TimestampTz { digits: 0 },
        &[
            ("2025-02-17 14:19:39+00", "\"2025-02-17T14:19:39Z\""),
            ("2025-02-17 23:30:00-00:44:30", "\"2025-02-18T00:14:30Z\""),
        ],
    );
    check(
        &T::TimestampTz { digits: 3 },
        &[("2025-02-17 14:19:39.1+00", "\"2025-02-17T14:19:39.100Z\"")],
    );
    refuse(
        &T::TimestampTz { digits: 6 },
        &["", "2025-02-17 14:19:39", "18/02/2025 00:00:00 JST"],
    );
}

/// Right: what the same server prints for the same interval with `intervalstyle=iso_8601`.
#[test]
fn intervals() {
    check(
        &ColumnType::Interval,
        &[
            ("1 year 2 mons 3 days 04:05:06.7", "\"P1Y2M3DT4H5M6.7S\""),
            (
                "-1 years -2 mons +3 days -04:05:06",
                "\"P-1Y-2M3DT-4H-5M-6S\"",
            ),
            ("00:00:00", "\"PT0S\""),
            ("-00:00:00.5", "\"PT-0.5S\""),
            ("1 mon", "\"P1M\""),
            ("1 day -00:00:01.000001", "\"P1DT-1.000001S\""),
            ("100 years 100:00:00", "\"P100YT100H\""),
            ("-178000000 years", "\"P-178000000Y\""),
            ("2562047788:00:54.775807", "\"PT2562047788H54.775807S\""),
            ("infinity", "\"infinity\""),
        ],
    );
    refuse(
        &ColumnType::Interval,
        &["", "P1Y", "@ 1 year", "1 fortnight"],
    );
}

#[test]
fn geometry_and_vectors() {
    use ColumnType as T;
    check(
        &T::Point,
        &[(
            "(1.5,2)",
            "{\"x\":1.5,\"y\":2.0,\"wkb\":\"AQEAAAAAAAAAAAD4PwAAAAAAAABA\",\"srid\":null}",
        )],
    );
    refuse(&T::Point, &["", "(1)", "1,2"]);
    check(
        &T::Geometry,
        &[
            (
                "0101000020E6100000000000000000F03F0000000000000040",
                "{\"wkb\":\"AQEAACDmEAAAAAAAAAAA8D8AAAAAAAAAQA==\",\"srid\":4326}",
            ),
            (
                "0101000000000000000000F03F0000000000000040",
                "{\"wkb\":\"AQEAAAAAAAAAAADwPwAAAAAAAABA\",\"srid\":null}",
            ),
        ],
    );
    check(&T::Vector, &[("[1,2.5,-3e-05]", "[1.0,2.5,-3.0E-5]")]);
    refuse(&T::Vector, &["", "[]", "1,2"]);
}

#[test]
fn hstores() {
    check(
        &ColumnType::Hstore,
        &[
            ("\"a\"=>\"1\", \"b\"=>NULL", r#""{\"a\":\"1\",\"b\":null}""#),
            ("", "\"{}\""),
            (r#""a\"b"=>"c\\d""#, r#""{\"a\\\"b\":\"c\\\\d\"}""#),
        ],
    );
    refuse(&ColumnType::Hstore, &["a=>1", "\"a\""]);
}

#[test]
fn arrays() {
    use ColumnType as T;
    check(
        &array(T::Integer),
        &[
            ("{1,NULL,3}", "[1,null,3]"),
            ("{}", "[]"),
            ("{{1,2},{3,NULL}}", "[[1,2],[3,null]]"),
            ("[0:1]={1,2}", "[1,2]"),
        ],
    );
    check(
        &array(T::Text),
        &[
            (r#"{"a,b",NULL,"c\"d"}"#, r#"["a,b",null,"c\"d"]"#),
            (
                r#"{"NULL",null,""," a","\\"}"#,
                r#"["NULL","null",""," a","\\"]"#,
            ),
        ],
    );
    check(
        &array(T::Double),
        &[("{NaN,1.5,-Infinity}", "[\"NaN\",1.5,\"-Infinity\"]")],
    );
    check(&array(T::Numeric), &[("{NaN,1.50}", "[\"NaN\",\"1.50\"]")]);
    check(&array(T::Boolean), &[("{t,f,NULL}", "[true,false,null]")]);
    check(&array(T::Bytea), &[(r#"{"\\x00ff"}"#, "[\"AP8=\"]")]);
    check(&array(T::Bit { width: 1 }), &[("{1,0}", "[true,false]")]);
    check(
        &array(T::Money { digits: 2 }),
        &[(r#"{$1.50,"$1,234.50"}"#, "[\"1.50\",\"1234.50\"]")],
    );
    check(
        &array(T::Timestamp),
        &[(
            r#"{"2020-01-01 00:00:00",infinity}"#,
            "[\"2020-01-01T00:00:00Z\",\"infinity\"]",
        )],
    );
    check(
        &array(T::Interval),
        &[(r#"{"1 day 00:00:01"}"#, "[\"P1DT1S\"]")],
    );
    check(
        &array(T::Hstore),
        &[(r#"{"\"a\"=>\"1\""}"#, r#"["{\"a\":\"1\"}"]"#)],
    );
    check(
        &array_of(T::Text, b';'),
        &[(
            "{(3,4),(1,2);(7,8),(5,6)}",
            r#"["(3,4),(1,2)","(7,8),(5,6)"]"#,
        )],
    );
    refuse(&array(T::Integer), &["", "1", "{1", "{1,}", "{a}", "{1}x"]);
}

#[test]
fn keys_are_what_jackson_writes() {
    let t = table(
        "t",
        &[1, 0],
        &[("a", array(ColumnType::Text)), ("b", ColumnType::Text)],
    );
    let mut maker = Maker::new();
    maker.create(&t, &[Text("{𝄞,\"\\\"\"}"), Text("é𝄞/\u{1f}")]);
    let key = encode(&maker.batch)[0].key.clone().unwrap();
    assert_eq!(
        key,
        r#"{"b":"é\uD834\uDD1E/\u001F","a":["\uD834\uDD1E","\""]}"#
    );
}
