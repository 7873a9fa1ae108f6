//! Against Debezium's own output: `fixtures/golden/debezium-3.1/postgres.txt`, byte by byte, every difference named.

use std::time::Duration;

use protocol::postgres::Array;

use super::*;

const REFERENCE: &str = include_str!("../../../../../fixtures/golden/debezium-3.1/postgres.txt");

/// Where we keep what Debezium bends or leaves out (docs/formats.md), and where the same JSON is written in another way.
const DIFFERENCES: &[(&str, &str)] = &[
    ("\"iv\":37091106700000", "\"iv\":\"P1Y2M3DT4H5M6.7S\""),
    ("\"nu0\":\"NAN\"", "\"nu0\":\"NaN\""),
    ("\"da\":\"-5877611-06-21Z\"", "\"da\":\"infinity\""),
    (
        "\"ts\":\"-290308-12-21T19:59:27.6Z\"",
        "\"ts\":\"-infinity\"",
    ),
    (
        "\"oi\":123,\"nm\":null",
        "\"oi\":123,\"tv\":\"'cat' 'fat'\",\"ln\":\"16/B374D848\",\"nm\":\"nm\"",
    ),
    (
        "\"oi\":null,\"nm\":null",
        "\"oi\":null,\"tv\":null,\"ln\":null,\"nm\":null",
    ),
    ("\\uD834\\uDD1E", "𝄞"),
];

/// A record of the reference.
struct Expected {
    partition: i32,
    headers: String,
    key: String,
    value: String,
}

fn expected(topic: &str) -> Vec<Expected> {
    let start = format!("# topic {topic}:");
    let lines = REFERENCE
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .skip(1);
    lines
        .take_while(|line| !line.starts_with('#'))
        .map(|line| {
            let mut parts = line.splitn(3, " | ");
            let mut next = || parts.next().unwrap_or_default().trim().to_owned();
            let (place, key, mut value) = (next(), next(), next());
            for (theirs, ours) in DIFFERENCES {
                value = value.replace(theirs, ours);
            }
            value = value.replace("<9000 times x>", &"x".repeat(9000));
            let mut place = place.splitn(3, ' ');
            Expected {
                partition: place.next().unwrap().parse().unwrap(),
                headers: place.nth(1).unwrap().to_owned(),
                key,
                value,
            }
        })
        .collect()
}

/// Encodes one change as the reference's server described it, and finds each of its records there.
struct Comparison {
    table: Arc<Table>,
    expected: Vec<Expected>,
    found: usize,
}

impl Comparison {
    fn new(table: Arc<Table>) -> Self {
        let expected = expected(&format!("tpg.public.{}", table.name));
        assert!(!expected.is_empty());
        Self {
            table,
            expected,
            found: 0,
        }
    }

    /// The change of transaction `xid`; commit time and place come from the reference, which alone knows them.
    fn change(
        &mut self,
        xid: u32,
        operation: Operation,
        before: Before<'_>,
        after: Option<&[Cell<'_>]>,
    ) {
        let named = format!("\"txId\":{xid},");
        let theirs: Vec<&Expected> = self
            .expected
            .iter()
            .filter(|e| e.value.contains(&named))
            .collect();
        assert!(!theirs.is_empty(), "{xid}");
        for theirs in theirs {
            let record: serde_json::Value = serde_json::from_str(&theirs.value).unwrap();
            let source = &record["source"];
            let number = |value: &serde_json::Value| value.as_u64().unwrap();
            let mut maker = Maker::new();
            let transaction = &mut maker.batch.transactions[0];
            transaction.xid = Some(xid);
            transaction.commit_us = Some(number(&source["ts_us"]));
            let sequence: Vec<Option<String>> =
                serde_json::from_str(source["sequence"].as_str().unwrap()).unwrap();
            transaction.previous_commit = sequence[0].as_ref().map(|lsn| lsn.parse().unwrap());
            maker.row(&self.table, before, after);
            maker.batch.events[0].operation = operation;
            maker.batch.lsns[0] = number(&source["lsn"]);
            let settings = settings();
            let templates = templates(&maker.batch, &settings);
            let now = Duration::from_nanos(number(&record["ts_ns"]));
            let parts = Encoder::new(Arc::new(settings))
                .encode(&maker.batch, &templates, None, now)
                .unwrap();
            let ours = read(&parts);
            let same = ours
                .iter()
                .position(|ours| ours.value.as_ref() == Some(&theirs.value));
            let same = same.unwrap_or_else(|| panic!("ours {ours:#?}\ntheirs {}", theirs.value));
            compare(&ours[same], theirs);
            self.found += 1;
            // A delete's tombstone is the next record of its partition on both sides.
            if record["op"] == "d" {
                let at = self
                    .expected
                    .iter()
                    .position(|e| e.value == theirs.value)
                    .unwrap();
                let tombstone = &self.expected[at + 1];
                assert_eq!(
                    (ours[same + 1].value.as_deref(), &*tombstone.value),
                    (None, "")
                );
                compare(&ours[same + 1], tombstone);
                self.found += 1;
            }
        }
    }

    fn finish(self) {
        assert_eq!(
            self.found,
            self.expected.len(),
            "records of the reference that nothing made"
        );
    }
}

fn compare(ours: &Read, theirs: &Expected) {
    assert_eq!(ours.key.as_deref().unwrap_or_default(), theirs.key);
    // Debezium puts null keys anywhere.
    assert!(ours.partition == theirs.partition || ours.key.is_none());
    let headers: Vec<String> = ours
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("__debezium"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let headers = if headers.is_empty() {
        "-".into()
    } else {
        headers.join(",")
    };
    assert_eq!(headers, theirs.headers);
    assert_eq!(ours.header("pos"), Some("16/B374D848/0"));
}

/// `postgres.sql`, table t: name, type, and what the server prints of the first INSERT's value.
fn types() -> Vec<(&'static str, ColumnType, &'static str)> {
    use ColumnType as T;
    let array = |element| {
        T::Array(Box::new(Array {
            element,
            delimiter: b',',
        }))
    };
    vec![
        ("id", T::Integer, "1"),
        ("si", T::Integer, "-5"),
        ("bi", T::Integer, "-9007199254740993"),
        ("re", T::Real, "1.1"),
        ("dp", T::Double, "1e-07"),
        ("nu", T::Numeric, "-123456789012345.12345"),
        ("nu0", T::Numeric, "1000000000000000000000000000000"),
        ("mo", T::Money { digits: 2 }, "$1,234.50"),
        ("bo", T::Boolean, "t"),
        ("ch", T::Text, "ab   "),
        ("vc", T::Text, "a\"\\\n\t\u{1}é𝄞/"),
        ("tx", T::Text, "text"),
        ("by", T::Bytea, "\\x00ff"),
        ("da", T::Date, "2025-02-17"),
        ("t0", T::Time, "15:19:39"),
        ("t3", T::Time, "15:19:39.123"),
        ("ttz", T::TimeTz, "15:19:39.123456+02"),
        ("ts", T::Timestamp, "2025-02-17 15:19:39.123456"),
        ("ts3", T::Timestamp, "2025-02-17 15:19:39.12"),
        (
            "tsz",
            T::TimestampTz { digits: 6 },
            "2025-02-17 14:19:39.123456+00",
        ),
        ("iv", T::Interval, "1 year 2 mons 3 days 04:05:06.7"),
        ("uu", T::Text, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("js", T::Text, "{\"a\": [1, 2.50]}"),
        ("jb", T::Text, "{\"a\": [1, 2.50]}"),
        ("ine", T::Text, "10.0.0.1/24"),
        ("ci", T::Text, "10.0.0.0/24"),
        ("ma", T::Text, "08:00:2b:01:02:03"),
        ("b1", T::Bit { width: 1 }, "1"),
        ("b8", T::Bit { width: 8 }, "10101010"),
        ("vb", T::VarBit, "101"),
        ("xm", T::Text, "<a>x</a>"),
        ("en", T::Text, "ok"),
        ("ai", array(T::Integer), "{1,NULL,3}"),
        ("at", array(T::Text), "{\"a,b\",NULL,\"c\\\"d\"}"),
        ("hs", T::Hstore, "\"a\"=>\"1\", \"b\"=>NULL"),
        ("po", T::Point, "(1.5,2)"),
        ("ir", T::Text, "[1,5)"),
        (
            "tsr",
            T::Text,
            "[\"2025-01-01 00:00:00+00\",\"2025-01-02 00:00:00+00\")",
        ),
        ("dm", T::Integer, "5"),
        ("oi", T::Integer, "123"),
        ("tv", T::Text, "'cat' 'fat'"),
        ("ln", T::Text, "16/B374D848"),
        ("nm", T::Text, "nm"),
    ]
}

#[test]
fn every_type_as_debezium_writes_it() {
    use Operation::{Create, Delete, Update};
    let columns = types();
    let declared: Vec<_> = columns
        .iter()
        .map(|(name, kind, _)| (*name, kind.clone()))
        .collect();
    let with = |values: &[(&str, &'static str)]| -> Vec<Cell<'static>> {
        let value = |name: &str| {
            values
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(Null, |(_, text)| Text(text))
        };
        columns.iter().map(|(name, _, _)| value(name)).collect()
    };
    let all: Vec<_> = columns
        .iter()
        .map(|(name, _, text)| (*name, *text))
        .collect();
    let odd = [
        ("re", "NaN"),
        ("dp", "Infinity"),
        ("nu0", "NaN"),
        ("da", "infinity"),
        ("ts", "-infinity"),
        ("vc", "new"),
    ];
    let (two, odd_two, odd_three) = (
        with(&[("id", "2")]),
        with(&[&[("id", "2")], &odd[..]].concat()),
        with(&[&[("id", "3")], &odd[..]].concat()),
    );
    let ancient = [
        ("id", "5"),
        ("da", "0044-03-15 BC"),
        ("ts", "0044-03-15 12:00:00 BC"),
        ("tsz", "12025-01-01 00:00:00+00"),
    ];

    let mut t = Comparison::new(table("t", &[0], &declared));
    t.change(802, Create, Before::Nothing, Some(&with(&all)));
    t.change(803, Create, Before::Nothing, Some(&two));
    t.change(804, Update, Before::Full(&two), Some(&odd_two));
    t.change(805, Update, Before::Full(&odd_two), Some(&odd_three));
    t.change(806, Delete, Before::Full(&odd_three), None);
    t.change(807, Create, Before::Nothing, Some(&with(&ancient)));
    t.finish();
}

#[test]
fn unchanged_values_and_key_images() {
    use Operation::{Create, Delete, Update};
    let columns = [
        ("id", ColumnType::Integer),
        ("v", ColumnType::Text),
        ("big", ColumnType::Text),
    ];
    let mut td = Comparison::new(table("td", &[0], &columns));
    let big = "x".repeat(9000);
    let key = |id| [Text(id), Null, Null];
    td.change(
        808,
        Create,
        Before::Nothing,
        Some(&[Text("1"), Text("a"), Text(&big)]),
    );
    td.change(
        809,
        Update,
        Before::Nothing,
        Some(&[Text("1"), Text("b"), Unchanged]),
    );
    td.change(
        810,
        Update,
        Before::Key(&key("1")),
        Some(&[Text("2"), Text("b"), Unchanged]),
    );
    td.change(811, Delete, Before::Key(&key("2")), None);
    td.finish();
}

#[test]
fn without_a_key() {
    use Operation::{Create, Delete, Update};
    let mut nopk = Comparison::new(table(
        "nopk",
        &[],
        &[("a", ColumnType::Integer), ("b", ColumnType::Text)],
    ));
    let row = |b| [Text("1"), Text(b)];
    nopk.change(812, Create, Before::Nothing, Some(&row("x")));
    nopk.change(813, Update, Before::Full(&row("x")), Some(&row("y")));
    nopk.change(814, Delete, Before::Full(&row("y")), None);
    nopk.finish();
}

#[test]
fn every_difference_is_in_the_reference() {
    for (theirs, _) in DIFFERENCES {
        assert!(REFERENCE.contains(theirs), "{theirs}");
    }
}
