//! Where a stream begins: on another server than the one before, and behind what must not be read over.

use protocol::mysql::gtid::{Flavour, GtidSet};

use super::*;

const RECORDINGS: [(&str, Flavour); 2] = [
    ("mysql-9.7-20k", Flavour::MySql),
    ("mariadb-10.11-20k", Flavour::MariaDb),
];
const FILE: &str = "binlog.000001";

fn point(offset: u64, gtids: Option<GtidSet>) -> Point {
    let file = FILE.into();
    Point {
        place: Place::new(&BinlogPosition { file, offset }),
        gtids,
    }
}

fn binlog(position: &Position) -> &BinlogPosition {
    match position {
        Position::MySql { binlog, .. } => binlog,
        other => panic!("{other:?}"),
    }
}

fn next_position(event: &[u8]) -> u64 {
    Header::parse(event).unwrap().next_position.into()
}

#[test]
fn another_server_may_stand_at_a_lower_offset_of_a_file_of_the_same_name() {
    for (name, flavour) in RECORDINGS {
        let (expected, end) = whole(name);
        // The server before had come further in the file of this name, but had none of these transactions.
        let start = point(800_000_000, Some(GtidSet::empty(flavour)));
        let mut memory = Memory::starting_at(start, false, &["*.*"], 1 << 20);
        let events = events(name);
        let (half, rest) = events.split_at(events.len() / 2);
        memory.feed(&packets(half, 1)).unwrap();
        memory.seal();
        let first = memory
            .ends
            .last()
            .unwrap_or_else(|| panic!("{name} stands still"));
        let first = binlog(first).offset;
        assert!(first < binlog(&end).offset, "{name}: {first}");
        memory.feed(&packets(rest, half.len() as u8 + 1)).unwrap();
        let (changes, ends) = memory.finish();
        assert!(changes == expected, "{name}");
        assert_eq!(binlog(ends.last().unwrap()), binlog(&end), "{name}");
    }
}

#[test]
fn transactions_that_are_known_do_not_take_the_position_back() {
    for (name, _) in RECORDINGS {
        let (_, end) = whole(name);
        let Position::MySql { binlog, gtids } = end else {
            panic!("{end:?}");
        };
        let known = gtids.unwrap().parse().unwrap();
        let start = point(binlog.offset, Some(known));
        let mut memory = Memory::starting_at(start, false, &["*.*"], 1 << 20);
        memory.feed(&packets(&events(name), 1)).unwrap();
        assert_eq!(memory.finish().1, [], "{name}");
    }
}

/// Where the first statement stands that is a transaction of its own, behind its GTID.
fn statement(events: &[Vec<u8>]) -> usize {
    let is_gtid = |event: &[u8]| [Kind::GTID.0, Kind::MARIADB_GTID.0].contains(&event[4]);
    let begins = |event: &[u8]| event.windows(5).any(|text| text == b"BEGIN");
    let is_one =
        |pair: &[Vec<u8>]| is_gtid(&pair[0]) && pair[1][4] == Kind::QUERY.0 && !begins(&pair[1]);
    1 + events.windows(2).position(is_one).unwrap()
}

/// An event that says that changes were lost, ending at `next_position`.
fn incident(like: &[u8]) -> Vec<u8> {
    let mut event = like[..19].to_vec();
    event[4] = Kind::INCIDENT.0;
    event.extend_from_slice(&[1, 0, 4]);
    event.extend_from_slice(b"LOST\0\0\0\0");
    let length = event.len() as u32;
    event[9..13].copy_from_slice(&length.to_le_bytes());
    seal(&mut event);
    event
}

#[test]
fn changes_that_were_lost_before_the_start_do_not_halt() {
    for (name, _) in RECORDINGS {
        let (expected, end) = whole(name);
        let plain = events(name);
        let at = statement(&plain);
        let mut instead = plain.clone();
        instead[at] = incident(&plain[at]);
        let mut between = plain.clone();
        between.insert(at - 1, incident(&plain[at - 2]));
        for events in [instead, between] {
            let mut memory = Memory::new(&["*.*"], 1 << 20);
            let error = memory.feed(&packets(&events, 1)).unwrap_err();
            assert_eq!(error.verdict(), Verdict::Halt, "{error}");
            assert!(error.to_string().contains("incident"), "{error}");
            // What it advises: a later position, right behind it or behind more.
            let behind = |event: &&Vec<u8>| event[4] == Kind::XID.0;
            let later = plain.iter().filter(behind).nth(2).unwrap();
            for start in [&plain[at], later] {
                let start = point(next_position(start), None);
                let mut memory = Memory::starting_at(start, true, &["*.*"], 1 << 20);
                memory.feed(&packets(&events, 1)).unwrap();
                let (changes, ends) = memory.finish();
                assert!(
                    !changes.is_empty() && expected.ends_with(&changes),
                    "{name}"
                );
                assert_eq!(ends.last(), Some(&end), "{name}");
            }
        }
    }
}

#[test]
fn a_line_that_is_cut_behind_a_warm_up_goes_on_in_the_same_transaction() {
    for (name, _) in RECORDINGS {
        let (expected, end) = whole(name);
        let events = events(name);
        let commits = |event: &Vec<u8>| event[4] == Kind::XID.0;
        let start = events.iter().position(commits).unwrap();
        let rows = |event: &Vec<u8>| Kind(event[4]).is_rows();
        let cut = start + 1 + events[start..].iter().position(rows).unwrap();
        let from = point(next_position(&events[start]), None);
        let mut memory = Memory::starting_at(from, true, &["*.*"], 1 << 20);
        memory.feed(&packets(&events[..cut], 1)).unwrap();
        memory.seal();
        assert!(!memory.changes.is_empty(), "{name}");
        memory.begin();
        memory.feed(&packets(&events, 1)).unwrap();
        let (changes, ends) = memory.finish();
        assert!(expected.ends_with(&changes), "{name}");
        assert_eq!(ends.last(), Some(&end), "{name}");
    }
}

#[test]
fn what_another_server_prepared_holds_the_position_by_its_gtids_alone() {
    let events = events("mysql-9.7-types");
    let (expected, end) = whole("mysql-9.7-types");
    let prepared = *super::long::xa_one(&events).end();
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    memory.feed(&packets(&events[..=prepared], 1)).unwrap();
    memory.seal();
    let gtids = |position: &Position| match position {
        Position::MySql { gtids, .. } => gtids.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    let held = memory.stream.decoder.position();
    assert_eq!(memory.ends.last(), Some(&held));
    assert_eq!(&*binlog(&held).file, FILE);
    let before = memory.ends.len();

    // The other server's file has the same name: that does not make the places its own.
    memory.begin();
    let decoder = &mut memory.stream.decoder;
    decoder.read_from("mysql:other".parse().unwrap());
    let alone = Position::MySql {
        binlog: Position::unknown_binlog(),
        gtids: Some(gtids(&held)),
    };
    assert_eq!(decoder.position(), alone);
    assert!(decoder.safe().place.file.is_empty());
    let (before_it, rest) = events.split_at(prepared + 1);
    let mut dump = dump_from(before_it, FILE, next_position(&events[prepared]));
    dump.extend_from_slice(rest);
    let committed = first_with(&dump, b"XA COMMIT X'6f6e65'");
    memory.feed(&packets(&dump[..committed], 1)).unwrap();
    memory.seal();
    memory
        .feed(&packets(&dump[committed..], committed as u8 + 1))
        .unwrap();
    let (changes, ends) = memory.finish();
    assert!(ends.len() > before);
    assert_eq!(ends[before], alone);
    assert_eq!(ends.last(), Some(&end));
    assert!(changes == expected);
}

fn first_with(events: &[Vec<u8>], text: &[u8]) -> usize {
    let holds = |event: &Vec<u8>| event.windows(text.len()).any(|part| part == text);
    events.iter().position(holds).unwrap()
}
