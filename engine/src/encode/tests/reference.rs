//! Against Debezium's own output: `fixtures/golden/debezium-3.1`, byte by byte, every difference named.

use super::*;

const REFERENCE: &str = include_str!("../../../../fixtures/golden/debezium-3.1/mysql.txt");

/// Where we keep what Debezium bends (docs/formats.md), and where the same JSON is written in another way.
const DIFFERENCES: &[(&str, &str)] = &[
    ("\"biu\":-1", "\"biu\":18446744073709551615"),
    (
        "\"t0\":null,\"t6\":\"1",
        "\"t0\":\"-100:00:01Z\",\"t6\":\"1",
    ),
    ("\"en\":\"b\\\\,c\"", "\"en\":\"b,c\""),
    ("\"ye\":1900", "\"ye\":0"),
    ("\"ts\":\"1970-01-01T00:00:00Z\"", "\"ts\":null"),
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
        let expected = expected(&format!("tmy.tt.{}", table.name));
        assert!(!expected.is_empty());
        Self {
            table,
            expected,
            found: 0,
        }
    }

    /// The change of transaction `gtid`; commit time and place come from the reference, which alone knows them.
    fn change(&mut self, gtid: u32, before: Option<&[Stored]>, after: Option<&[Stored]>) {
        let gtid = format!("a6255251-e58c-11f1-8263-02fc00000001:{gtid}");
        let named = format!("\"gtid\":\"{gtid}\"");
        let theirs: Vec<&Expected> = self
            .expected
            .iter()
            .filter(|e| e.value.contains(&named))
            .collect();
        assert!(!theirs.is_empty(), "{gtid}");
        for theirs in theirs {
            let source: serde_json::Value = serde_json::from_str(&theirs.value).unwrap();
            let number = |path: &str| {
                source
                    .pointer(path)
                    .and_then(serde_json::Value::as_u64)
                    .unwrap()
            };
            let mut maker = Maker::new();
            maker.batch.text.truncate(13);
            maker.batch.text.extend_from_slice(gtid.as_bytes());
            maker.batch.transactions[0].gtid.end = maker.batch.text.len() as u32;
            maker.batch.transactions[0].commit_us = Some(number("/source/ts_us"));
            maker.group(&self.table).offset = number("/source/pos");
            maker.row(before, after);
            let settings = settings();
            let templates = templates(&maker.batch, &settings);
            let now = Duration::from_nanos(number("/ts_ns"));
            let parts = Encoder::new(Arc::new(settings))
                .encode(&maker.batch, &templates, None, now)
                .unwrap();
            let ours = read(&parts);
            let same = ours
                .iter()
                .position(|ours| ours.value.as_ref() == Some(&theirs.value));
            let same = same.unwrap_or_else(|| panic!("ours {ours:#?}\ntheirs {}", theirs.value));
            self.compare(&ours[same], theirs);
            self.found += 1;
            // A delete's tombstone is the next record of its partition on both sides.
            if theirs.value.contains("\"op\":\"d\"") {
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
                self.compare(&ours[same + 1], tombstone);
                self.found += 1;
            }
        }
    }

    fn compare(&self, ours: &Read, theirs: &Expected) {
        assert_eq!(ours.key.as_deref().unwrap_or_default(), theirs.key);
        // Debezium puts null keys anywhere.
        assert!(ours.partition == theirs.partition || ours.key.is_none());
        let headers: Vec<String> = ours
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("__debezium"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            if headers.is_empty() {
                "-".into()
            } else {
                headers.join(",")
            },
            theirs.headers
        );
        assert_eq!(ours.header("pos"), Some("binlog.000002:1000/0"));
        assert!(ours.header("gtid").is_some());
    }

    fn finish(self) {
        assert_eq!(
            self.found,
            self.expected.len(),
            "records of the reference that nothing made"
        );
    }
}

fn types() -> Vec<Column> {
    use ColumnType as T;
    let text = |length_bytes| T::Text {
        length_bytes,
        charset: UTF8,
        compressed: false,
    };
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).into()).collect();
    let geometry = |point| T::Geometry {
        length_bytes: 4,
        point,
    };
    let kinds = [
        ("id", T::Int { unsigned: false }),
        ("ti", T::TinyInt { unsigned: false }),
        ("tiu", T::TinyInt { unsigned: true }),
        ("b1", T::TinyInt { unsigned: false }),
        ("bo", T::TinyInt { unsigned: false }),
        ("si", T::SmallInt { unsigned: false }),
        ("mi", T::MediumInt { unsigned: false }),
        ("miu", T::MediumInt { unsigned: true }),
        ("bi", T::BigInt { unsigned: false }),
        ("biu", T::BigInt { unsigned: true }),
        (
            "de",
            T::Decimal {
                precision: 20,
                scale: 5,
            },
        ),
        (
            "de0",
            T::Decimal {
                precision: 10,
                scale: 0,
            },
        ),
        ("fl", T::Float),
        ("db", T::Double),
        ("bit1", T::Bit { bits: 1 }),
        ("bit10", T::Bit { bits: 10 }),
        ("ye", T::Year),
        ("da", T::Date),
        ("t0", T::Time { fsp: 0, old: false }),
        ("t6", T::Time { fsp: 6, old: false }),
        ("dt", T::DateTime { fsp: 0, old: false }),
        ("dt3", T::DateTime { fsp: 3, old: false }),
        ("dt6", T::DateTime { fsp: 6, old: false }),
        ("ts", T::Timestamp { fsp: 0, old: false }),
        ("ts6", T::Timestamp { fsp: 6, old: false }),
        (
            "ch",
            T::Char {
                length_bytes: 1,
                width: 20,
                charset: UTF8,
            },
        ),
        (
            "vc",
            T::VarChar {
                length_bytes: 1,
                charset: UTF8,
                compressed: false,
            },
        ),
        (
            "l1",
            T::VarChar {
                length_bytes: 1,
                charset: Charset { collation: 8 },
                compressed: false,
            },
        ),
        ("tx", text(2)),
        (
            "bin",
            T::Binary {
                length_bytes: 1,
                width: 4,
            },
        ),
        (
            "vb",
            T::VarBinary {
                length_bytes: 1,
                compressed: false,
            },
        ),
        (
            "bl",
            T::Blob {
                length_bytes: 2,
                compressed: false,
            },
        ),
        (
            "en",
            T::Enum {
                width: 1,
                labels: labels(&["a", "b,c", "ü"]),
            },
        ),
        (
            "se",
            T::Set {
                width: 1,
                labels: labels(&["x", "y", "z"]),
            },
        ),
        ("js", T::Json { length_bytes: 4 }),
        ("ge", geometry(true)),
        ("ls", geometry(false)),
    ];
    kinds
        .into_iter()
        .map(|(name, kind)| column(name, kind))
        .collect()
}

/// `{"a": [1, 2.5, null, true, "s\"q"], "d": 1.0, "big": 18446744073709551615}` as the server stores it.
fn json() -> Vec<u8> {
    let mut array = vec![
        5, 0, 31, 0, 0x05, 1, 0, 0x0b, 19, 0, 0x04, 0, 0, 0x04, 1, 0, 0x0c, 27, 0,
    ];
    array.extend_from_slice(&2.5_f64.to_le_bytes());
    array.extend_from_slice(b"\x03s\"q");
    let mut object = vec![3, 0, 77, 0, 25, 0, 1, 0, 26, 0, 1, 0, 27, 0, 3, 0];
    object.extend_from_slice(&[0x02, 30, 0, 0x0b, 61, 0, 0x0a, 69, 0]);
    object.extend_from_slice(b"adbig");
    object.extend_from_slice(&array);
    object.extend_from_slice(&1.0_f64.to_le_bytes());
    object.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(object.len(), 77);
    let length = (object.len() as u32 + 1).to_le_bytes();
    [&length[..], &[0x00], &object].concat()
}

fn geometry(srid: u32, wkb: &[&[u8]]) -> Vec<u8> {
    let body = [&srid.to_le_bytes()[..], &wkb.concat()].concat();
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// The row of `mysql.sql`'s first INSERT.
fn first_row() -> Vec<Stored> {
    let clock = |hours: u64, minutes: u64, seconds: u64| hours << 12 | minutes << 6 | seconds;
    let datetime = 0x80_0000_0000 | ((2025 * 13 + 2) << 5 | 17) << 17 | clock(15, 19, 39);
    let big_endian = |value: u64, width: usize| value.to_be_bytes()[8 - width..].to_vec();
    let seconds = 1_739_805_579_u64;
    let float = |value: f64| value.to_le_bytes();
    [
        vec![1, 0, 0, 0],
        vec![0xfb],
        vec![200],
        vec![0xff],
        vec![1],
        (-300_i16).to_le_bytes().to_vec(),
        (-70_000_i32).to_le_bytes()[..3].to_vec(),
        16_000_000_i32.to_le_bytes()[..3].to_vec(),
        (-9_007_199_254_740_993_i64).to_le_bytes().to_vec(),
        u64::MAX.to_le_bytes().to_vec(),
        vec![0x7e, 0x1d, 0xbf, 0xd0, 0xf8, 0xa0, 0x86, 0xff, 0xcf, 0xc6],
        vec![0x80, 0, 0, 0, 42],
        1.1_f32.to_le_bytes().to_vec(),
        float(1e-7).to_vec(),
        vec![1],
        vec![0x02, 0x03],
        vec![125],
        (17_u32 | 2 << 5 | 2025 << 9).to_le_bytes()[..3].to_vec(),
        big_endian(0x80_0000 - clock(100, 0, 1), 3),
        big_endian(0x8000_0000_0000 | clock(15, 19, 39) << 24 | 123_456, 6),
        big_endian(datetime, 5),
        [big_endian(datetime, 5), big_endian(1200, 2)].concat(),
        [big_endian(datetime, 5), big_endian(123_456, 3)].concat(),
        big_endian(seconds, 4),
        [big_endian(seconds, 4), big_endian(100, 3)].concat(),
        stored_text("ab").unwrap(),
        stored_text("a\"\\\n\tu0001é𝄞/").unwrap(),
        stored_text([0xe9]).unwrap(),
        b"\x04\0text".to_vec(),
        stored_text([0, 1, 2]).unwrap(),
        stored_text([0xff, 0]).unwrap(),
        b"\x04\0blob".to_vec(),
        vec![2],
        vec![0b101],
        json(),
        geometry(0, &[&[1, 1, 0, 0, 0], &float(1.0), &float(2.0)]),
        geometry(
            4326,
            &[
                &[1, 2, 0, 0, 0, 2, 0, 0, 0],
                &[float(0.0), float(0.0), float(1.0), float(1.0)].concat(),
            ],
        ),
    ]
    .into_iter()
    .map(Some)
    .collect()
}

#[test]
fn every_type_as_debezium_writes_it() {
    let mut t = Comparison::new(table("t", &[0], types()));
    let one = first_row();
    let nulls = |id| {
        let mut row = vec![None; one.len()];
        row[0] = stored_int(id);
        row
    };
    t.change(2709, None, Some(&one));
    t.change(2710, None, Some(&nulls(2)));
    let mut updated = one.clone();
    updated[26] = stored_text("new");
    updated[12] = Some(3.4e38_f32.to_le_bytes().to_vec());
    updated[13] = Some(f64::MAX.to_le_bytes().to_vec());
    t.change(2711, Some(&one), Some(&updated));
    t.change(2712, Some(&nulls(2)), Some(&nulls(3)));
    t.change(2713, Some(&nulls(3)), None);
    let mut zeros = nulls(4);
    zeros[16] = Some(vec![0]);
    zeros[17] = Some(vec![0; 3]);
    zeros[20] = Some(vec![0x80, 0, 0, 0, 0]);
    zeros[23] = Some(vec![0; 4]);
    t.change(2714, None, Some(&zeros));
    t.finish();
}

#[test]
fn without_a_key() {
    let mut nopk = Comparison::new(table("nopk", &[], vec![int("a"), varchar("b")]));
    let row = |b| [stored_int(1), stored_text(b)];
    nopk.change(2715, None, Some(&row("x")));
    nopk.change(2716, Some(&row("x")), Some(&row("y")));
    nopk.change(2717, Some(&row("y")), None);
    nopk.finish();
}

#[test]
fn with_a_key_of_two_columns_in_another_order() {
    let columns = vec![varchar("b"), int("a"), int("c")];
    let mut cpk = Comparison::new(table("cpk", &[1, 0], columns));
    let row = |a, c| [stored_text("k"), stored_int(a), stored_int(c)];
    cpk.change(2718, None, Some(&row(1, 1)));
    cpk.change(2719, Some(&row(1, 1)), Some(&row(1, 2)));
    cpk.change(2720, Some(&row(1, 2)), Some(&row(9, 2)));
    cpk.finish();
}
