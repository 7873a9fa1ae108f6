//! Labels that cannot be read: a reason to halt for their table where it is captured, and for nothing else.

use super::long::first;
use super::*;

/// A TABLE_MAP of `shop.im (id INT PRIMARY KEY, m ENUM('A', …))` with everything in it, the second label and its collation given, and an
/// INSERT of one row; in no file.
fn statement(template: &[u8], collation: u8, label: u8) -> [Vec<u8>; 2] {
    const ID: &[u8] = &[77, 0, 0, 0, 0, 0];
    let mut map = [ID, b"\x01\0\x04shop\0\x02im\0"].concat();
    // Types with their metadata, then signedness, names, collation, labels and key.
    map.extend_from_slice(&[2, 3, 254, 2, 247, 1, 0]);
    map.extend_from_slice(b"\x01\x01\0\x04\x05\x02id\x01m");
    map.extend_from_slice(&[10, 1, collation, 6, 5, 2, 1, b'A', 1, label, 8, 1, 0]);
    let rows = [ID, &[1, 0, 2, 0, 2, 3, 0, 7, 0, 0, 0, 2]].concat();
    [(Kind::TABLE_MAP, map), (Kind::WRITE_ROWS, rows)]
        .map(|(kind, body)| in_no_file(template, kind, &body))
}

/// What becomes of a stream with this table; the rows that are captured and not.
fn read(tables: &[&str], collation: u8, label: u8) -> Result<(u64, u64), SourceError> {
    let events = events("mysql-9.7-20k");
    let at = first(&events, 0, Kind::TABLE_MAP);
    let more = statement(&events[at], collation, label);
    let (before, behind) = events.split_at(at);
    let mut memory = Memory::new(tables, 64 << 20);
    memory.feed(&packets(&[before, &more[..], behind].concat(), 1))?;
    let counters = memory.stream.decoder.counters();
    Ok((counters.rows, counters.rows_filtered))
}

#[test]
fn labels_halt_where_their_table_is_captured_alone() {
    // Of `binary`; no text in UTF-8; in a character set that there is not.
    assert_eq!(read(&["*.*"], 63, b'B').unwrap(), (20_001, 0));
    for (collation, label) in [(63, 0xfc), (45, 0xfc), (127, b'B')] {
        let error = read(&["*.*"], collation, label).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Halt, "{error}");
        let text = error.to_string();
        for part in ["shop.im", "tables = [\"!shop.im\"]", "ALTER TABLE"] {
            assert!(text.contains(part), "{text}");
        }
        let rows = read(&["*.*", "!shop.im"], collation, label).unwrap();
        assert_eq!(rows, (20_000, 1));
    }
}
