//! Binlog files larger than 4 GiB, where events tell the low 32 bits of their place: positions have all of them, however a dump begins.

use super::*;

/// So far behind are the transactions, but for the first one.
const BY: u64 = 5 << 30;
const NAMES: [&str; 2] = ["mariadb-10.11-20k", "mysql-9.7-20k"];

/// How many events come up to the end of the first transaction, where that is, and with which GTIDs.
fn first_transaction(events: &[Vec<u8>]) -> (usize, Point) {
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    let commit = events.iter().position(|event| event[4] == Kind::XID.0);
    let commit = commit.unwrap();
    memory.feed(&packets(&events[..=commit], 1)).unwrap();
    (commit + 1, memory.stream.decoder.safe().clone())
}

fn shifted(event: &[u8]) -> Vec<u8> {
    let mut event = event.to_vec();
    let position = Header::parse(&event).unwrap().next_position;
    event[13..17].copy_from_slice(&position.wrapping_add(BY as u32).to_le_bytes());
    seal(&mut event);
    event
}

/// A position `file:offset/row`, or one of a batch's end, further behind.
fn behind(position: &str) -> String {
    let (file, rest) = position.split_once(':').unwrap();
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    let (offset, rest) = rest.split_at(digits.unwrap_or(rest.len()));
    format!("{file}:{}{rest}", offset.parse::<u64>().unwrap() + BY)
}

/// The changes behind the first transaction, and the last position, as they are in the larger file.
fn expected(name: &str, first: &Point) -> (Vec<Change>, String) {
    let (mut changes, end) = whole(name);
    let begins = |change: &Change| {
        let (_, rest) = change.position.split_once(':').unwrap();
        let offset: u64 = rest.split_once('/').unwrap().0.parse().unwrap();
        offset >= first.place.offset
    };
    changes.retain(begins);
    for change in &mut changes {
        change.position = behind(&change.position);
        change.offset += BY;
    }
    (changes, behind(&format!("{end:#}")))
}

fn assert_as_expected(name: &str, memory: Memory, first: &Point) {
    let (changes, ends) = memory.finish();
    let (expected, end) = expected(name, first);
    assert_eq!(changes.len(), expected.len(), "{name}");
    for (got, want) in changes.iter().zip(&expected) {
        assert_eq!(got, want, "{name}");
    }
    assert_eq!(format!("{:#}", ends.last().unwrap()), end, "{name}");
}

/// What stands at the beginning of a file, as a dump of it from there brings it.
fn beginning(events: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let is_first = |kind: Kind| [Kind::GTID, Kind::MARIADB_GTID, Kind::GTID_TAGGED].contains(&kind);
    let before = events.iter().take_while(|event| !is_first(Kind(event[4])));
    before.cloned().collect()
}

#[test]
fn what_a_dump_by_gtids_leaves_out_may_be_any_length() {
    for name in NAMES {
        let events = events(name);
        let (at, mut first) = first_transaction(&events);
        let mut dump = beginning(&events);
        dump.extend(events[at..].iter().map(|event| shifted(event)));
        let safe = first.clone();
        first.place.offset += BY;
        let mut memory = Memory::starting_at(first, false, &["*.*"], 1 << 20);
        memory.feed(&packets(&dump, 1)).unwrap();
        assert_as_expected(name, memory, &safe);
    }
}

#[test]
fn another_servers_files_are_not_taken_for_those_of_before() {
    let name = NAMES[0];
    let events = events(name);
    let (at, mut first) = first_transaction(&events);
    first.place.offset += BY;
    let mut memory = Memory::starting_at(first, false, &["*.*"], 1 << 20);
    let other = "mysql:other".parse().unwrap();
    memory.stream.decoder.read_from(other);
    let mut dump = beginning(&events);
    dump.extend_from_slice(&events[at..]);
    memory.feed(&packets(&dump, 1)).unwrap();
    let (changes, ends) = memory.finish();
    let (expected, end) = whole(name);
    assert!(!changes.is_empty() && expected.ends_with(&changes));
    assert_eq!(ends.last(), Some(&end));
}

#[test]
fn a_place_that_no_dump_can_ask_for_is_reached_from_the_start_of_its_file() {
    for name in NAMES {
        let events = events(name);
        let (at, first) = first_transaction(&events);
        let mut dump = events[..at].to_vec();
        // What stands between, in events that are passed over.
        let step = 3_u64 << 29;
        let mut place = first.place.offset;
        while place < first.place.offset + BY {
            place = (place + step).min(first.place.offset + BY);
            let mut filler = events[at][..19].to_vec();
            filler[4] = Kind::IGNORABLE.0;
            filler[9..13].copy_from_slice(&23_u32.to_le_bytes());
            filler[13..17].copy_from_slice(&(place as u32).to_le_bytes());
            filler[17..19].copy_from_slice(&0x80_u16.to_le_bytes());
            filler.extend_from_slice(&[0; 4]);
            seal(&mut filler);
            dump.push(filler);
        }
        dump.extend(events[at..].iter().map(|event| shifted(event)));
        let mut start = first.clone();
        start.place.offset += BY;
        start.gtids = None;
        let mut memory = Memory::starting_at(start, true, &["*.*"], 1 << 20);
        memory.feed(&packets(&dump, 1)).unwrap();
        assert_as_expected(name, memory, &first);
    }
}
