//! Every row of the recordings that mysql_common can read, value by value beside ours.
//!
//! mysql_common shares no code with the decoder under test. It knows no MariaDB event, so of MariaDB's recordings it sees the
//! FORMAT_DESCRIPTION, TABLE_MAP and ROWS events only; it reads no old temporal type with a sign, which the MySQL recordings do not have.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fixtures::Recording;
use mysql_common::Value as Theirs;
use mysql_common::binlog::EventStreamReader;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{EventData, TableMapEvent};
use mysql_common::binlog::row::BinlogRow;
use mysql_common::binlog::value::BinlogValue;
use mysql_common::serde_json;
use protocol::mysql::column::ColumnType;
use protocol::mysql::event::{Checksum, Format, Header, Message};
use protocol::mysql::json;
use protocol::mysql::rows::{FullImage, Image, Rows};
use protocol::mysql::table_map::Description;
use protocol::mysql::value::Value;

#[derive(Default)]
struct Counts {
    rows: usize,
    values: usize,
    diffs: usize,
    /// Images that hold every column, read as such too.
    full: usize,
    /// ROWS events that mysql_common cannot read.
    unread: usize,
}

/// Our events, compressed transactions expanded: mysql_common is handed the same.
fn events(name: &str) -> Vec<Vec<u8>> {
    let recording = Recording::named(name).unwrap();
    let mut stream = recording.events().unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next_event().unwrap() {
        events.push(event.to_vec());
    }
    events
}

fn compare(name: &str) -> Counts {
    let mut both = Both::new();
    for event in events(name) {
        both.event(&event);
    }
    both.counts
}

struct Both {
    format: Format,
    ours: HashMap<u64, Description>,
    reader: EventStreamReader,
    theirs: HashMap<u64, TableMapEvent<'static>>,
    counts: Counts,
}

impl Both {
    fn new() -> Self {
        Self {
            format: Format::before_description(Checksum::Crc32),
            ours: HashMap::new(),
            reader: EventStreamReader::new(BinlogVersion::Version4),
            theirs: HashMap::new(),
            counts: Counts::default(),
        }
    }

    fn event(&mut self, bytes: &[u8]) {
        let (header, message) = Message::parse(&self.format, bytes).unwrap();
        let theirs = match header.kind.0 {
            15 | 19 | 23..=25 | 30..=32 | 39 => self.reader.read(bytes).unwrap(),
            _ => None,
        };
        let data = theirs.map(|event| event.read_data().unwrap().unwrap().into_owned());
        match (message, data) {
            (Message::FormatDescription(described), _) => self.format = described,
            (Message::TableMap(map), Some(EventData::TableMapEvent(theirs))) => {
                assert_eq!(map.table, theirs.table_name());
                self.ours.insert(map.table_id, map.describe().unwrap());
                self.theirs.insert(map.table_id, theirs);
            }
            (Message::Rows(ours), Some(EventData::RowsEvent(theirs))) => {
                let table = &self.theirs[&ours.table_id];
                // It subtracts unsigned numbers below zero, which only release builds overlook, and fails on values that it
                // does not expect.
                let theirs = catch_unwind(AssertUnwindSafe(|| {
                    theirs.rows(table).collect::<Result<Vec<_>, _>>().ok()
                }));
                match theirs {
                    Ok(Some(theirs)) => self.rows(&ours, theirs),
                    _ => self.counts.unread += 1,
                }
            }
            (Message::TransactionPayload(payload), _) => {
                // Their reader wants checksums in the format's way: events from inside are given to it with their own format.
                let mut expanded = Vec::new();
                let mut events = payload.events().unwrap();
                while events.read_into(&mut expanded, 1000, 1 << 20).unwrap() > 0 {}
                assert_eq!(expanded.len() as u64, payload.expanded_length);
                let checked = self.format.clone();
                let mut at = 0;
                while at < expanded.len() {
                    let header = Header::parse(&expanded[at..]).unwrap();
                    let plain = &expanded[at..at + header.length as usize];
                    at += plain.len();
                    // With a checksum again, as the format says.
                    let mut event = plain.to_vec();
                    event[9..13].copy_from_slice(&(header.length + 4).to_le_bytes());
                    let crc = crc32fast::hash(&event);
                    event.extend(crc.to_le_bytes());
                    self.event(&event);
                }
                self.format = checked;
            }
            _ => {}
        }
    }

    fn rows(&mut self, ours: &Rows<'_>, theirs: Vec<(Option<BinlogRow>, Option<BinlogRow>)>) {
        let table = &self.ours[&ours.table_id];
        let walked: Vec<_> = ours
            .walk(&table.columns)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(walked.len(), theirs.len());
        for (row, (before, after)) in walked.iter().zip(theirs) {
            self.counts.rows += 1;
            for (present, span, partial, theirs) in [
                (ours.columns_before, row.before, false, before),
                (ours.columns_after, row.after, ours.partial, after),
            ] {
                assert_eq!(span.is_none(), theirs.is_none());
                let Some(theirs) = theirs else { continue };
                let present = present.of(ours.bytes()).unwrap();
                let image = span.of(ours.bytes()).unwrap();
                let start = FullImage::new(&table.columns, image)
                    .ok()
                    .filter(|_| !partial && theirs.len() == table.columns.len());
                let mut full = start;
                self.counts.full += usize::from(full.is_some());
                let mut image = if partial {
                    Image::partial(&table.columns, present, image).unwrap()
                } else {
                    Image::new(&table.columns, present, image).unwrap()
                };
                let mut nth = 0;
                while let Some((index, value)) = image.next().unwrap() {
                    let theirs = theirs.as_ref(nth);
                    let kind = &table.columns[index].kind;
                    check(kind, value, theirs, &mut self.counts);
                    if let Some(full) = &mut full {
                        // By its text, because NaN is not itself.
                        let again = full.next(&table.columns[index]).unwrap();
                        assert_eq!(format!("{again:?}"), format!("{value:?}"));
                        let mut there = start.unwrap();
                        there.skip_to(&table.columns, index).unwrap();
                        let again = there.next(&table.columns[index]).unwrap();
                        assert_eq!(format!("{again:?}"), format!("{value:?}"));
                        there.skip_to(&table.columns, table.columns.len()).unwrap();
                        there.finish().unwrap();
                    }
                    nth += 1;
                }
                assert_eq!(nth, theirs.len());
                full.map_or(Ok(()), |full| full.finish()).unwrap();
            }
        }
    }
}

fn check(
    kind: &ColumnType,
    ours: Option<Value<'_>>,
    theirs: Option<&BinlogValue<'_>>,
    counts: &mut Counts,
) {
    counts.values += 1;
    let theirs = theirs.expect("mysql_common has the column too");
    let Some(ours) = ours else {
        assert_eq!(theirs, &BinlogValue::Value(Theirs::NULL));
        return;
    };
    let text = |bytes: Vec<u8>| Theirs::Bytes(bytes);
    let ours = match ours {
        Value::Json(document) => {
            let mut out = Vec::new();
            json::write_text(document, &mut out).unwrap();
            let BinlogValue::Jsonb(theirs) = theirs else {
                panic!("{theirs:?}");
            };
            json_equals(&out, theirs.clone());
            return;
        }
        Value::JsonDiffs(_) => {
            assert!(matches!(theirs, BinlogValue::JsonDiff(_)));
            counts.diffs += 1;
            return;
        }
        // mysql_common 0.38.2 gives negative MEDIUMINTs their magnitude.
        Value::Int(value) if value < 0 && matches!(kind, ColumnType::MediumInt { .. }) => {
            let BinlogValue::Value(Theirs::Int(theirs)) = theirs else {
                panic!("{theirs:?}");
            };
            assert_eq!((value - theirs) % (1 << 24), 0, "{value} {theirs}");
            return;
        }
        // mysql_common answers signed and unsigned alike with `Int` where the value fits.
        Value::Int(value) => Theirs::Int(value),
        Value::UInt(value) => match theirs {
            BinlogValue::Value(Theirs::Int(_)) => Theirs::Int(i64::try_from(value).unwrap()),
            _ => Theirs::UInt(value),
        },
        Value::Float(value) => Theirs::Float(value),
        Value::Double(value) => Theirs::Double(value),
        Value::Decimal(value) => {
            let mut out = Vec::new();
            value.write(&mut out).unwrap();
            text(out)
        }
        // mysql_common reads year 0 as 1900.
        Value::Year(0) => text(b"1900".to_vec()),
        Value::Year(year) => text(year.to_string().into_bytes()),
        Value::Date(date) => Theirs::Date(date.year, date.month, date.day, 0, 0, 0, 0),
        Value::Time(time) => Theirs::Time(
            time.negative,
            u32::from(time.hours) / 24,
            (time.hours % 24) as u8,
            time.minutes,
            time.seconds,
            time.micros,
        ),
        Value::DateTime(value) => Theirs::Date(
            value.date.year,
            value.date.month,
            value.date.day,
            value.hours,
            value.minutes,
            value.seconds,
            value.micros,
        ),
        Value::Timestamp(value) if value.micros == 0 => text(value.seconds.to_string().into()),
        Value::Timestamp(value) => text(format!("{}.{:06}", value.seconds, value.micros).into()),
        Value::Enum(index) => Theirs::Int(i64::from(index)),
        Value::Set(bits) => {
            let ColumnType::Set { width, .. } = kind else {
                panic!("{kind:?}");
            };
            text(bits.to_le_bytes()[..usize::from(*width)].to_vec())
        }
        Value::Bit(bytes)
        | Value::Text(bytes)
        | Value::Bytes(bytes)
        | Value::Compressed(bytes)
        | Value::Geometry(bytes)
        | Value::Vector(bytes)
        | Value::Uuid(bytes)
        | Value::Inet4(bytes)
        | Value::Inet6(bytes) => text(bytes.to_vec()),
    };
    let BinlogValue::Value(theirs) = theirs else {
        panic!("{theirs:?}");
    };
    assert_eq!(&ours, theirs, "{kind:?}");
}

/// Equal as parsed JSON.
fn json_equals(ours: &[u8], theirs: mysql_common::binlog::jsonb::Value<'_>) {
    let parsed: serde_json::Value = serde_json::from_slice(ours).unwrap();
    let theirs = serde_json::Value::from(theirs.parse().unwrap());
    assert!(same(&parsed, &theirs), "{parsed} is not {theirs}");
}

fn same(ours: &serde_json::Value, theirs: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object, String};
    match (ours, theirs) {
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        // Whole numbers to the last digit, beyond what a double holds.
        (Number(a), Number(b)) if !a.is_f64() || !b.is_f64() => a == b,
        (Number(a), Number(b)) => a.as_f64() == b.as_f64(),
        // Its text of a DECIMAL is a string.
        (Number(a), String(b)) => a.as_f64() == b.parse().ok(),
        (a, b) => a == b,
    }
}

#[test]
fn mysql_5_6() {
    let counts = compare("mysql-5.6-20k");
    assert_eq!(counts.rows, 20_000);
}

#[test]
fn mysql_9_7() {
    let counts = compare("mysql-9.7-20k");
    assert_eq!(counts.rows, 20_000);
    assert!(counts.full >= counts.rows, "its images are full");
}

#[test]
fn mysql_9_7_types() {
    let counts = compare("mysql-9.7-types");
    let Counts {
        rows,
        values,
        diffs,
        unread,
        ..
    } = counts;
    println!("{rows} rows, {values} values, {diffs} diffs, {unread} events unread");
    assert!(rows > 100 && diffs > 3 && unread < 20);
}

#[test]
fn mariadb_10_11() {
    let counts = compare("mariadb-10.11-20k");
    assert_eq!(counts.rows, 20_000);
}
