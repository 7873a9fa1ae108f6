//! Rows larger than a batch, and than `row_max`, of tables that are not captured: counted as they come, and never held.

use super::long::{first, payload, start_at, xa_one};
use super::*;

const BATCH: usize = 32 << 10;
/// What the recordings' own rows need.
const ROW_MAX: usize = 280 << 10;
/// Lengths of the text in the rows of `aside.large`.
const LARGE: [usize; 5] = [5, 2_000_000, 0, 70_001, 3];
const SMALL_ONES: [usize; 5] = [1, 2, 3, 4, 5];
const TABLE_ID: u64 = 0x00c0_ffee;

/// The TABLE_MAP of `aside.large (id INT, v LONGBLOB)`.
fn table_map(template: &[u8]) -> Vec<u8> {
    let mut body = TABLE_ID.to_le_bytes()[..6].to_vec();
    body.extend_from_slice(b"\x01\0\x05aside\0\x05large\0\x02\x03\xfc\x01\x04\0");
    in_no_file(template, Kind::TABLE_MAP, &body)
}

/// What stands before the rows of an INSERT into it.
fn head(kind: Kind) -> Vec<u8> {
    let mut body = TABLE_ID.to_le_bytes()[..6].to_vec();
    body.extend_from_slice(b"\x01\0");
    if kind == Kind::WRITE_ROWS {
        body.extend_from_slice(&[2, 0]);
    }
    body.extend_from_slice(&[2, 3]);
    body
}

fn rows(lengths: &[usize]) -> Vec<u8> {
    let mut rows = Vec::new();
    for (id, length) in lengths.iter().enumerate() {
        rows.push(0);
        rows.extend_from_slice(&(id as u32).to_le_bytes());
        rows.extend_from_slice(&(*length as u32).to_le_bytes());
        rows.extend((0..*length).map(|at| (at % 251) as u8));
    }
    rows
}

fn insert(template: &[u8], kind: Kind, lengths: &[usize]) -> Vec<u8> {
    let mut body = head(kind);
    body.append(&mut rows(lengths));
    in_no_file(template, kind, &body)
}

/// The same as MariaDB compresses it: a zlib stream of stored blocks.
fn insert_compressed(template: &[u8], lengths: &[usize]) -> Vec<u8> {
    let rows = rows(lengths);
    let mut body = head(Kind::WRITE_ROWS_V1);
    body.push(0x84);
    body.extend_from_slice(&(rows.len() as u32).to_be_bytes());
    body.extend_from_slice(&[0x78, 1]);
    let mut blocks = rows.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        body.push(u8::from(blocks.peek().is_none()));
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&(!length).to_le_bytes());
        body.extend_from_slice(block);
    }
    let (a, b) = rows.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    body.extend_from_slice(&(b << 16 | a).to_be_bytes());
    in_no_file(template, Kind::WRITE_ROWS_COMPRESSED_V1, &body)
}

/// The same as zlib compresses it, which is a small part of it.
fn insert_compressed_well(template: &[u8], lengths: &[usize]) -> Vec<u8> {
    use protocol::mysql::compress::{Algorithm, Compressor};

    let rows = rows(lengths);
    let mut body = head(Kind::WRITE_ROWS_V1);
    body.push(0x84);
    body.extend_from_slice(&(rows.len() as u32).to_be_bytes());
    let mut packet = Vec::new();
    Compressor::new(Algorithm::Zlib).write(&rows, &mut packet);
    // Behind the header of a compressed packet.
    body.extend_from_slice(&packet[7..]);
    assert!(body.len() < BATCH, "{} bytes", body.len());
    in_no_file(template, Kind::WRITE_ROWS_COMPRESSED_V1, &body)
}

/// `events` with these before the one at `at`.
fn with(events: &[Vec<u8>], at: usize, more: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (before, behind) = events.split_at(at);
    [before, more, behind].concat()
}

fn memory(tables: &[&str]) -> Memory {
    let start = Point {
        place: Place::new(&BinlogPosition {
            file: "".into(),
            offset: 4,
        }),
        gtids: None,
    };
    Memory::with_row_max(start, false, tables, BATCH, ROW_MAX)
}

const CAPTURED: [&str; 2] = ["*.*", "!aside.*"];

/// The changes, and the last position, when `events` come so many bytes at a time; no batch becomes much larger than it may.
fn fed(events: &[Vec<u8>], step: usize) -> (Vec<Change>, Option<Position>) {
    let mut memory = memory(&CAPTURED);
    for chunk in packets(events, 1).chunks(step) {
        memory.feed(chunk).unwrap();
        let held = memory.batch.bytes.capacity();
        assert!(held <= 4 * BATCH + 2 * step, "{held} bytes, {step} a read");
    }
    let counters = *memory.stream.decoder.counters();
    assert_eq!(counters.rows_filtered, LARGE.len() as u64);
    let (changes, ends) = memory.finish();
    (changes, ends.last().cloned())
}

/// Where the statement of the first rows begins.
fn first_statement(events: &[Vec<u8>]) -> usize {
    first(events, 0, Kind::TABLE_MAP)
}

#[test]
fn rows_that_are_too_large_and_not_captured_are_counted() {
    for (name, kind) in [
        ("mysql-9.7-20k", Kind::WRITE_ROWS),
        ("mariadb-10.11-20k", Kind::WRITE_ROWS_V1),
    ] {
        let events = events(name);
        let at = first_statement(&events);
        let inserted = |lengths: &[usize]| {
            let template = &events[at];
            let more = [table_map(template), insert(template, kind, lengths)];
            with(&events, at, &more)
        };
        let expected = fed(&inserted(&SMALL_ONES), 7_001);
        // The numbers of the other rows show those before them.
        let position = &expected.0[0].position;
        assert!(position.ends_with("/5"), "{name}: {position}");
        for step in [1_000, 7_001, 100_000] {
            let got = fed(&inserted(&LARGE), step);
            assert!(got == expected, "{name}, {step} bytes a read");
        }
    }
}

#[test]
fn an_event_of_several_packets_is_passed_over() {
    let name = "mysql-9.7-20k";
    let events = events(name);
    let at = first_statement(&events);
    let expected = whole(name);
    let exactly = protocol::limits::MYSQL_PACKET_MAX;
    // The last packet is empty where the payload fills those before it: the marker, header, head, row and checksum take 51 bytes.
    let around = 1 + 19 + head(Kind::WRITE_ROWS).len() + 9 + 4;
    for length in [exactly - around, 2 * exactly + 1] {
        let template = &events[at];
        let more = [
            table_map(template),
            insert(template, Kind::WRITE_ROWS, &[length]),
        ];
        let mut memory = memory(&CAPTURED);
        let mut held = 0;
        for chunk in packets(&with(&events, at, &more), 1).chunks(70_001) {
            memory.feed(chunk).unwrap();
            held = held.max(memory.batch.bytes.capacity());
        }
        assert!(held <= 8 * BATCH + 2 * 70_001, "{held} bytes");
        let (changes, ends) = memory.finish();
        assert_eq!(changes.len(), expected.0.len());
        assert!(changes[0].position.ends_with("/1"));
        assert_eq!(ends.last(), Some(&expected.1));
    }
}

#[test]
fn a_compressed_event_is_passed_over_whole_or_in_pieces() {
    let events = events("mariadb-10.11-20k");
    let at = first_statement(&events);
    let template = &events[at];
    let map = table_map(template);
    let small = [
        map.clone(),
        insert(template, Kind::WRITE_ROWS_V1, &SMALL_ONES),
    ];
    let expected = fed(&with(&events, at, &small), 7_001);
    let large = [map, insert_compressed(template, &LARGE)];
    for step in [7_001, 4 << 20] {
        let got = fed(&with(&events, at, &large), step);
        assert!(got == expected, "{step} bytes a read");
    }
}

#[test]
fn rows_in_a_payload_are_passed_over() {
    let events = events("mysql-9.7-20k");
    let rows = first(&events, 0, Kind::WRITE_ROWS);
    let is_query = |event: &Vec<u8>| event[4] == Kind::QUERY.0;
    let begin = events[..rows].iter().rposition(is_query).unwrap();
    let commit = first(&events, rows, Kind::XID);
    let at = first_statement(&events);
    let changes_of = |lengths: &[usize]| {
        let template = &events[at];
        let more = [
            table_map(template),
            insert(template, Kind::WRITE_ROWS, lengths),
        ];
        let inner = with(&events[begin..=commit], at - begin, &more);
        let mut compressed = events[..begin].to_vec();
        compressed.push(payload(&inner));
        compressed.extend_from_slice(&events[commit + 1..]);
        let mut memory = memory(&CAPTURED);
        memory.feed(&packets(&compressed, 1)).unwrap();
        // The buffer that the payload came in goes with it, where it is large.
        let held = memory.batch.bytes.capacity();
        assert!(lengths != LARGE || held <= 8 * BATCH, "{held} bytes");
        let (mut changes, ends) = memory.finish();
        // Rows out of a payload have its offset, which its length decides here.
        changes.iter_mut().for_each(|change| change.offset = 0);
        (changes, ends)
    };
    let expected = changes_of(&SMALL_ONES);
    assert!(expected.0[0].position.ends_with("/5"));
    let (changes, ends) = changes_of(&LARGE);
    assert!(changes == expected.0);
    assert_eq!(ends.last(), expected.1.last());
}

#[test]
fn rows_that_wait_for_a_decision_are_kept_and_passed_over_in_pieces() {
    let events = events("mysql-9.7-types");
    let at = first(&events, *xa_one(&events).start(), Kind::TABLE_MAP);
    let changes_of = |lengths: &[usize], step: usize| {
        let template = &events[at];
        let more = [
            table_map(template),
            insert(template, Kind::WRITE_ROWS, lengths),
        ];
        let mut memory = memory(&CAPTURED);
        for chunk in packets(&with(&events, at, &more), 1).chunks(step) {
            memory.feed(chunk).unwrap();
            let held = memory.batch.bytes.capacity();
            assert!(held <= 2 * ROW_MAX + 2 * step, "{held} bytes");
        }
        memory.finish()
    };
    let expected = changes_of(&SMALL_ONES, 701);
    let xa = expected.0.iter().find(|change| change.table == "forms.xa");
    assert!(xa.unwrap().position.ends_with("/5"));
    for step in [701, 50_000] {
        let (changes, ends) = changes_of(&LARGE, step);
        assert!(changes == expected.0, "{step} bytes a read");
        assert_eq!(ends.last(), expected.1.last());
    }
}

/// They are expanded before they are kept, and rolled back perhaps.
#[test]
fn compressed_rows_that_wait_for_a_decision_may_be_large() {
    let events = events("mariadb-10.11-types");
    let prepare = first(&events, 0, Kind::XA_PREPARE);
    let is_map = |event: &Vec<u8>| event[4] == Kind::TABLE_MAP.0;
    let at = events[..prepare].iter().rposition(is_map).unwrap();
    let template = &events[at];
    let changes_of = |rows: Vec<u8>| {
        let mut memory = memory(&CAPTURED);
        let more = [table_map(template), rows];
        memory.feed(&packets(&with(&events, at, &more), 1)).unwrap();
        memory.finish()
    };
    let expected = changes_of(insert(template, Kind::WRITE_ROWS_V1, &SMALL_ONES));
    let xa = expected.0.iter().find(|change| change.table == "forms.xa");
    assert!(xa.unwrap().position.ends_with("/5"));
    let (changes, ends) = changes_of(insert_compressed_well(template, &LARGE));
    assert!(changes == expected.0);
    assert_eq!(ends.last(), expected.1.last());
}

#[test]
fn damage_in_what_is_passed_over_is_found_and_counts_nothing() {
    let events = events("mysql-9.7-20k");
    let at = first_statement(&events);
    // Behind other rows of its transaction, so that some are out when the damage is found.
    let at = first(&events, at + 2, Kind::TABLE_MAP);
    let template = &events[at];
    let large = insert(template, Kind::WRITE_ROWS, &LARGE);
    let sound = with(&events, at, &[table_map(template), large.clone()]);
    let expected = fed(&sound, 7_001);
    // In a length of a value (which then lies elsewhere), in a value, in the checksum.
    let length_at = 19 + 10 + 2 + (1 + 4 + 4 + LARGE[0]) + 5 + 1;
    for byte in [length_at, large.len() / 2, large.len() - 2] {
        let mut memory = memory(&CAPTURED);
        let mut damaged = sound.clone();
        damaged[at + 1][byte] ^= 0x10;
        let mut failed = None;
        for chunk in packets(&damaged, 1).chunks(7_001) {
            if let Err(error) = memory.feed(chunk) {
                failed = Some(error);
                break;
            }
        }
        let error = failed.unwrap();
        assert_eq!(error.verdict(), Verdict::Retry);
        let text = error.to_string();
        assert!(text.starts_with("WRITE_ROWS at binlog.000001:"), "{text}");
        assert!(text.contains("checksum"), "{text}");
        // It comes again, and nothing twice.
        let safe = memory.stream.decoder.safe().place.clone();
        memory.begin();
        let again = match safe.file.is_empty() {
            true => sound.clone(),
            false => {
                let mut again = dump_from(&events, &safe.file, safe.offset);
                let at = again.iter().position(|event| event == template).unwrap();
                again.splice(at..at, [table_map(template), large.clone()]);
                again
            }
        };
        for chunk in packets(&again, 1).chunks(7_001) {
            memory.feed(chunk).unwrap();
        }
        let (changes, ends) = memory.finish();
        assert!(changes == expected.0, "byte {byte}");
        assert_eq!(ends.last().cloned(), expected.1);
    }
}

#[test]
fn a_row_that_is_too_large_and_captured_halts_and_names_its_table() {
    let events = events("mysql-9.7-20k");
    let at = first_statement(&events);
    let template = &events[at];
    let more = [
        table_map(template),
        insert(template, Kind::WRITE_ROWS, &LARGE),
    ];
    let mut memory = memory(&["*.*"]);
    let mut failed = None;
    for chunk in packets(&with(&events, at, &more), 1).chunks(7_001) {
        if let Err(error) = memory.feed(chunk) {
            failed = Some(error);
            break;
        }
        assert!(memory.batch.bytes.len() <= 2 * BATCH);
    }
    let error = failed.unwrap();
    assert_eq!(error.verdict(), Verdict::Halt);
    let text = error.to_string();
    for part in [
        "aside.large",
        "engine.row_max",
        "tables = [\"!aside.large\"]",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_is_too_large_before_the_start_is_not_held() {
    let events = events("mysql-9.7-20k");
    let at = first_statement(&events);
    let behind = Header::parse(&events[first(&events, at, Kind::XID)]).unwrap();
    let template = &events[at];
    // Captured, and a statement's text.
    let more = [
        in_no_file(template, Kind::ROWS_QUERY, &[b'x'; 200_000]),
        table_map(template),
        insert(template, Kind::WRITE_ROWS, &LARGE),
    ];
    let start = start_at(behind.next_position.into());
    let mut memory = Memory::with_row_max(start, true, &["*.*"], BATCH, ROW_MAX);
    for chunk in packets(&with(&events, at, &more), 1).chunks(7_001) {
        memory.feed(chunk).unwrap();
        let held = memory.batch.bytes.capacity();
        assert!(held <= 4 * BATCH, "{held} bytes in a batch of {BATCH}");
    }
    let (changes, _) = memory.finish();
    let (expected, _) = whole("mysql-9.7-20k");
    assert!(!changes.is_empty() && expected.ends_with(&changes));
}
