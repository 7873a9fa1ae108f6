//! Events that come in pieces: rows are counted, lengths and checksums verified, as where the whole event is there.

use std::collections::HashMap;
use std::io::Write as _;

use fixtures::Recording;
use protocol::DecodeErrorKind;
use protocol::mysql::Column;
use protocol::mysql::event::{Checksum, EventPieces, Format, Header, Kind, Message};
use protocol::mysql::rows::{RowCounter, Rows};

const NAMES: [&str; 5] = [
    "mysql-9.7-types",
    "mariadb-10.11-types",
    "mysql-9.7-20k",
    "mysql-5.6-20k",
    "mariadb-10.11-20k",
];

/// Every ROWS event of a recording, as sent, with the format and columns to read it with, and its rows.
fn rows_events(name: &str, mut visit: impl FnMut(&Format, &[u8], &Rows<'_>, &[Column])) {
    let mut stream = Recording::named(name).unwrap().events().unwrap();
    let mut format = Format::before_description(Checksum::Crc32);
    let mut tables: HashMap<u64, Vec<Column>> = HashMap::new();
    while let Some(event) = stream.next_event().unwrap() {
        match Message::parse(&format, event).unwrap().1 {
            Message::FormatDescription(described) => format = described,
            Message::TableMap(map) => {
                tables.insert(map.table_id, map.describe().unwrap().columns);
            }
            Message::Rows(rows) if rows.column_count > 0 => {
                visit(&format, event, &rows, &tables[&rows.table_id]);
            }
            _ => {}
        }
    }
}

/// How many rows a walk over the whole event finds; `None` where it fails (MariaDB hides widths of old temporal types).
fn walked(rows: &Rows<'_>, columns: &[Column]) -> Option<u64> {
    let mut count = 0;
    for row in rows.walk(columns).unwrap() {
        row.ok()?;
        count += 1;
    }
    Some(count)
}

fn counted(format: &Format, event: &[u8], columns: &[Column], step: usize) -> Option<u64> {
    let header = Header::parse(event).unwrap();
    let mut pieces = EventPieces::new(format, header).unwrap();
    let mut counter = RowCounter::new(format, event, columns).unwrap();
    let mut failed = false;
    for piece in event.chunks(step) {
        let body = pieces.take(piece);
        failed |= !failed && counter.feed(body).is_err();
    }
    pieces.finish().unwrap();
    (!failed).then(|| counter.finish().ok()).flatten()
}

#[test]
fn rows_in_pieces_are_as_many_as_in_whole_events() {
    for name in NAMES {
        let (mut events, mut rows_of_all) = (0, 0);
        rows_events(name, |format, event, rows, columns| {
            let expected = walked(rows, columns);
            let id = RowCounter::table_id(format, event).unwrap();
            assert_eq!(id, rows.table_id);
            for step in [1, 3, 64, event.len()] {
                if step == 1 && events % 50 > 0 {
                    continue;
                }
                let got = counted(format, event, columns, step);
                assert_eq!(got, expected, "{name}, event {events}, pieces of {step}");
            }
            events += 1;
            rows_of_all += expected.unwrap_or(0);
        });
        assert!(
            events > 50 && rows_of_all > 50,
            "{name}: {events}, {rows_of_all}"
        );
    }
}

/// The event as MariaDB's `log_bin_compress` writes it: the rows a zlib stream behind their length. Without a checksum.
fn compressed(event: &[u8], rows: &Rows<'_>, claimed_more: u32) -> Option<Vec<u8>> {
    let kind = match Header::parse(event).unwrap().kind {
        Kind::WRITE_ROWS_V1 => Kind::WRITE_ROWS_COMPRESSED_V1,
        Kind::UPDATE_ROWS_V1 => Kind::UPDATE_ROWS_COMPRESSED_V1,
        Kind::DELETE_ROWS_V1 => Kind::DELETE_ROWS_COMPRESSED_V1,
        Kind::WRITE_ROWS => Kind::WRITE_ROWS_COMPRESSED,
        Kind::UPDATE_ROWS => Kind::UPDATE_ROWS_COMPRESSED,
        Kind::DELETE_ROWS => Kind::DELETE_ROWS_COMPRESSED,
        _ => return None,
    };
    let body = rows.bytes();
    let head = [rows.columns_before, rows.columns_after]
        .iter()
        .filter(|span| !span.is_none())
        .map(|span| span.end as usize)
        .max()?;
    let mut out = body[..head].to_vec();
    out[4] = kind.0;
    out.push(0x84);
    let length = (body.len() - head) as u32 + claimed_more;
    out.extend_from_slice(&length.to_be_bytes());
    let mut encoder = flate2::write::ZlibEncoder::new(out, flate2::Compression::default());
    encoder.write_all(&body[head..]).unwrap();
    let mut out = encoder.finish().unwrap();
    let length = out.len() as u32;
    out[9..13].copy_from_slice(&length.to_le_bytes());
    Some(out)
}

#[test]
fn compressed_rows_in_pieces_are_as_many_as_in_whole_events() {
    for name in ["mariadb-10.11-types", "mysql-9.7-20k"] {
        let mut events = 0;
        rows_events(name, |format, event, rows, columns| {
            let format = format.without_checksum();
            let (Some(expected), Some(small)) = (walked(rows, columns), compressed(event, rows, 0))
            else {
                return;
            };
            events += 1;
            for step in [1, 64, small.len()] {
                let got = counted(&format, &small, columns, step);
                assert_eq!(got, Some(expected), "{name}, event {events}, {step}");
            }
            // Neither a stream that is cut off nor one that holds less than it claims.
            let cut = small.len() - 1;
            let mut counter = RowCounter::new(&format, &small, columns).unwrap();
            counter.feed(&small[..cut]).unwrap();
            assert!(counter.finish().is_err(), "{name}, event {events}");
            let wrong = compressed(event, rows, 1).unwrap();
            assert_eq!(counted(&format, &wrong, columns, 64), None);
        });
        assert!(events > 20, "{name}: {events}");
    }
}

#[test]
fn what_is_wrong_with_pieces_is_found() {
    let mut checked = 0;
    rows_events("mysql-9.7-types", |format, event, rows, columns| {
        if walked(rows, columns).is_none_or(|rows| rows == 0) || event.len() > 2000 {
            return;
        }
        checked += 1;
        let header = Header::parse(event).unwrap();
        let finish = |bytes: &[u8]| {
            let mut pieces = EventPieces::new(format, header).unwrap();
            for piece in bytes.chunks(7) {
                pieces.take(piece);
            }
            pieces.finish().map_err(|error| error.kind)
        };
        assert_eq!(finish(event), Ok(()));
        for at in 0..event.len() {
            let mut damaged = event.to_vec();
            damaged[at] ^= 1;
            let found = finish(&damaged);
            assert!(
                matches!(found, Err(DecodeErrorKind::Checksum { .. })),
                "byte {at}: {found:?}"
            );
            let found = finish(&event[..at]);
            let missing = (event.len() - at) as u64;
            assert_eq!(found, Err(DecodeErrorKind::Truncated { missing }));
            // A head that is cut off asks for more; a counter never panics, whatever it is fed.
            match RowCounter::new(format, &event[..at], columns) {
                Ok(mut counter) => {
                    if counter.feed(&damaged[..event.len() - 4]).is_ok() {
                        let _ = counter.finish();
                    }
                }
                Err(error) => {
                    let kind = error.kind;
                    assert!(
                        matches!(kind, DecodeErrorKind::Truncated { .. }),
                        "{kind:?}"
                    );
                }
            }
        }
        let mut longer = event.to_vec();
        longer.push(0);
        let left = DecodeErrorKind::TrailingBytes { left: 1 };
        assert_eq!(finish(&longer), Err(left));
    });
    assert!(checked > 20, "{checked}");
}
