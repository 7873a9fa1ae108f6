//! Transactions much longer than a batch, as they come and compressed: what holds no change does not stay in memory.

use super::*;

const BATCH: usize = 64 << 10;
/// How often the rows of a transaction are repeated.
const TIMES: usize = 2_000;

/// Where the first event from `from` on stands that is of this kind or, for rows, of any of theirs.
pub(super) fn first(events: &[Vec<u8>], from: usize, kind: Kind) -> usize {
    let is_one = |event: &Vec<u8>| {
        let found = Kind(event[4]);
        found == kind || found.is_rows() && kind.is_rows()
    };
    from + events[from..].iter().position(is_one).unwrap()
}

/// `events` with the one at `at` this many times.
fn repeated(events: &[Vec<u8>], at: usize, times: usize) -> Vec<Vec<u8>> {
    let again = std::iter::repeat_n(&events[at], times);
    let (before, behind) = events.split_at(at);
    before
        .iter()
        .chain(again)
        .chain(&behind[1..])
        .cloned()
        .collect()
}

/// A TRANSACTION_PAYLOAD of these events, not compressed: fields of two bytes and eight, then the events without checksums.
pub(super) fn payload(events: &[Vec<u8>]) -> Vec<u8> {
    let mut inner = Vec::new();
    for event in events {
        let length = event.len() - 4;
        inner.extend_from_slice(&event[..9]);
        inner.extend_from_slice(&(length as u32).to_le_bytes());
        inner.extend_from_slice(&event[13..length]);
    }
    let mut event = events.last().unwrap()[..19].to_vec();
    event[4] = Kind::TRANSACTION_PAYLOAD.0;
    event.extend_from_slice(&[2, 3, 0xfc, 255, 0]);
    for field in [3, 1] {
        event.extend_from_slice(&[field, 9, 0xfe]);
        event.extend_from_slice(&(inner.len() as u64).to_le_bytes());
    }
    event.push(0);
    event.append(&mut inner);
    event.extend_from_slice(&[0; 4]);
    let length = event.len() as u32;
    event[9..13].copy_from_slice(&length.to_le_bytes());
    seal(&mut event);
    event
}

/// Feeds everything as reads bring it, and asserts that this took a few batches of memory and not what all of it has.
fn feed_bounded(memory: &mut Memory, events: &[Vec<u8>]) {
    let wire = packets(events, 1);
    assert!(wire.len() > 40 * BATCH, "{} bytes are too few", wire.len());
    for chunk in wire.chunks(7_001) {
        memory.feed(chunk).unwrap();
        let held = memory.batch.bytes.capacity();
        assert!(held <= 4 * BATCH, "{held} bytes in a batch of {BATCH}");
    }
}

#[test]
fn rows_of_tables_that_are_not_captured_do_not_pile_up() {
    for name in ["mysql-9.7-20k", "mariadb-10.11-20k", "mysql-5.6-20k"] {
        let events = events(name);
        let (expected, end) = whole(name);
        let at = first(&events, 0, Kind::WRITE_ROWS);
        let long = repeated(&events, at, TIMES);
        let mut memory = Memory::new(&["*.*", "!*.events"], BATCH);
        feed_bounded(&mut memory, &long);
        let counters = *memory.stream.decoder.counters();
        assert!(counters.rows_filtered >= (expected.len() + TIMES - 1) as u64);
        let (changes, ends) = memory.finish();
        assert_eq!(changes, [], "{name}");
        assert_eq!(ends.last(), Some(&end), "{name}");
    }
}

pub(super) fn start_at(offset: u64) -> Point {
    let file = "binlog.000001".into();
    Point {
        place: Place::new(&BinlogPosition { file, offset }),
        gtids: None,
    }
}

#[test]
fn a_row_that_is_too_large_halts_unless_it_stands_before_the_start() {
    // Larger than `row_max`, in several packets, of which only the beginning is here.
    let mut wire = vec![0xff, 0xff, 0xff, 1, 0];
    let mut event = vec![0; BATCH];
    event[4] = Kind::WRITE_ROWS.0;
    event[9..13].copy_from_slice(&(70_u32 << 20).to_le_bytes());
    wire.append(&mut event);
    let mut memory = Memory::starting_at(start_at(4), false, &["*.*"], BATCH);
    let error = memory.feed(&wire).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Halt);
    let text = error.to_string();
    for part in [
        "binlog.000001:4",
        "73400320",
        "engine.row_max",
        "position set",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let mut memory = Memory::starting_at(start_at(1 << 30), true, &["*.*"], BATCH);
    memory.feed(&wire).unwrap();
}

#[test]
fn what_stands_before_the_start_does_not_pile_up() {
    let name = "mysql-9.7-20k";
    let events = events(name);
    let (expected, end) = whole(name);
    let at = first(&events, 0, Kind::WRITE_ROWS);
    let behind = Header::parse(&events[first(&events, at, Kind::XID)]).unwrap();
    let start = start_at(behind.next_position.into());
    let mut memory = Memory::starting_at(start, true, &["*.*"], BATCH);
    feed_bounded(&mut memory, &repeated(&events, at, TIMES));
    let (changes, ends) = memory.finish();
    assert!(!changes.is_empty() && changes.len() < expected.len());
    assert!(expected.ends_with(&changes));
    assert_eq!(ends.last(), Some(&end));
}

#[test]
fn rows_out_of_a_payload_do_not_pile_up() {
    let name = "mysql-9.7-20k";
    let events = events(name);
    let (_, end) = whole(name);
    let rows = first(&events, 0, Kind::WRITE_ROWS);
    let is_query = |event: &Vec<u8>| event[4] == Kind::QUERY.0;
    let begin = events[..rows].iter().rposition(is_query).unwrap();
    let commit = first(&events, rows, Kind::XID);
    let long = repeated(&events[begin..=commit], rows - begin, TIMES);
    let mut compressed = events[..begin].to_vec();
    compressed.push(payload(&long));
    compressed.extend_from_slice(&events[commit + 1..]);
    let mut memory = Memory::new(&["*.*", "!*.events"], BATCH);
    memory.feed(&packets(&compressed, 1)).unwrap();
    // The buffer that the payload came in went with it.
    let held = memory.batch.bytes.capacity();
    assert!(held <= 4 * BATCH, "{held} bytes in a batch of {BATCH}");
    let counters = *memory.stream.decoder.counters();
    assert!(counters.rows_filtered >= (20_000 + TIMES - 1) as u64);
    let (changes, ends) = memory.finish();
    assert_eq!(changes, []);
    assert_eq!(ends.last(), Some(&end));
}

/// The events of the XA transaction `one`, from XA START to XA_PREPARE, and where they stand.
pub(super) fn xa_one(events: &[Vec<u8>]) -> std::ops::RangeInclusive<usize> {
    let start = b"XA START X'6f6e65'";
    let holds = |event: &Vec<u8>| event.windows(start.len()).any(|text| text == start);
    let at = events.iter().position(holds).unwrap();
    at..=first(events, at, Kind::XA_PREPARE)
}

#[test]
fn rows_that_wait_for_a_decision_do_not_pile_up() {
    let name = "mysql-9.7-types";
    let events = events(name);
    let (expected, end) = whole(name);
    let rows = first(&events, *xa_one(&events).start(), Kind::WRITE_ROWS);
    let times = 50 * BATCH / events[rows].len();
    let mut memory = Memory::new(&["*.*"], BATCH);
    feed_bounded(&mut memory, &repeated(&events, rows, times));
    let (changes, ends) = memory.finish();
    assert_eq!(changes.len(), expected.len() + times - 1);
    assert_eq!(ends.last(), Some(&end));
}

#[test]
fn a_compressed_xa_transaction_may_commit_in_one_phase() {
    let events = events("mysql-9.7-types");
    let one = xa_one(&events);
    let mut plain = events[..=*one.end()].to_vec();
    // The first byte behind the header says so.
    plain[*one.end()][19] = 1;
    seal(&mut plain[*one.end()]);
    let changes_of = |events: &[Vec<u8>], batch_bytes: usize| {
        let mut memory = Memory::new(&["*.*"], batch_bytes);
        for chunk in packets(events, 1).chunks(701) {
            memory.feed(chunk).unwrap();
        }
        let (mut changes, ends) = memory.finish();
        // Rows out of a container have its offset.
        let last = changes.last_mut().unwrap();
        let (offset, table) = (std::mem::take(&mut last.offset), last.table.clone());
        assert_eq!(table, "forms.xa");
        (changes, ends.last().cloned(), offset)
    };
    let mut compressed = events[..*one.start()].to_vec();
    compressed.push(payload(&plain[one]));
    let (expected, end, offset) = changes_of(&plain, 1 << 20);
    for batch_bytes in [1 << 10, 1 << 20] {
        let got = changes_of(&compressed, batch_bytes);
        assert!((&got.0, &got.1) == (&expected, &end), "{batch_bytes}");
        assert_ne!(got.2, offset);
    }
}

#[test]
fn nothing_follows_a_commit_in_one_phase_inside_a_payload() {
    let events = events("mysql-9.7-types");
    let one = xa_one(&events);
    let mut inner = events[one.clone()].to_vec();
    let prepare = inner.last_mut().unwrap();
    prepare[19] = 1;
    seal(prepare);
    inner.push(inner[0].clone());
    let mut compressed = events[..*one.start()].to_vec();
    compressed.push(payload(&inner));
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    let error = memory.feed(&packets(&compressed, 1)).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Retry);
    assert!(
        error.to_string().starts_with("TRANSACTION_PAYLOAD at "),
        "{error}"
    );
}
