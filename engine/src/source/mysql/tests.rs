//! Recordings fed from memory through packets, containers and decoder: whatever the reads bring, and wherever the line is cut,
//! the changes are the same.

use fixtures::Recording;
use protocol::mysql::event::{Checksum, Header, Kind};
use protocol::mysql::packet::{self, Frames};
use protocol::mysql::{BinlogPosition, ColumnType};

use super::decode::{Decoder, Truncates};
use super::is_past;
use super::stream::{Step, Stream};
use super::transaction::{Place, Point};
use super::versions::Versions;
use super::xa;
use crate::batch::{Batch, Operation};
use crate::config::Selection;
use crate::position::Position;
use crate::source::seed::Seed;
use crate::source::{SourceError, Verdict};

const SMALL: [&str; 5] = [
    "mysql-9.7-20k",
    "mysql-5.6-20k",
    "mariadb-10.11-20k",
    "mysql-9.7-types",
    "mariadb-10.11-types",
];

/// The events of a recording, the first an artificial ROTATE.
fn events(name: &str) -> Vec<Vec<u8>> {
    let mut stream = Recording::named(name).unwrap().events().unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next_event().unwrap() {
        events.push(event.to_vec());
    }
    events
}

fn packets(events: &[Vec<u8>], mut sequence: u8) -> Vec<u8> {
    let mut wire = Vec::new();
    for event in events {
        let mut payload = vec![0];
        payload.extend_from_slice(event);
        packet::write(&mut wire, &mut sequence, &payload);
    }
    wire
}

/// Everything that a change's records can show, apart from where it lies in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    table: String,
    operation: String,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    columns: Vec<Vec<u8>>,
    position: String,
    gtid: Option<String>,
    times: (u32, Option<u64>),
    offset: u64,
    origin: (u32, Option<u32>),
    query: Option<String>,
}

fn changes(batch: &Batch) -> Vec<Change> {
    let text = |span: protocol::Span| {
        span.of(&batch.text)
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    };
    let bytes = |span: protocol::Span| span.of(&batch.bytes).map(<[u8]>::to_vec);
    batch
        .events
        .iter()
        .map(|event| {
            let group = &batch.groups[event.group as usize];
            let transaction = &batch.transactions[group.transaction as usize];
            let table = &batch.tables[group.table as usize];
            let is_any = |of: &[Operation]| of.contains(&event.operation);
            assert_eq!(
                event.before.is_none(),
                is_any(&[Operation::Create, Operation::Truncate])
            );
            assert_eq!(
                event.after.is_none(),
                is_any(&[Operation::Delete, Operation::Truncate])
            );
            Change {
                table: format!("{}.{}", table.schema, table.name),
                operation: format!("{:?}", event.operation),
                before: bytes(event.before),
                after: bytes(event.after),
                columns: [group.columns_before, group.columns_after]
                    .into_iter()
                    .filter_map(bytes)
                    .collect(),
                position: format!(
                    "{}:{}/{}",
                    text(transaction.file).unwrap(),
                    transaction.offset,
                    group.first_row + u64::from(event.row)
                ),
                gtid: text(transaction.gtid),
                times: (group.timestamp_s, transaction.commit_us),
                offset: group.offset,
                origin: (group.server_id, transaction.thread),
                query: bytes(group.query).map(|text| String::from_utf8_lossy(&text).into_owned()),
            }
        })
        .collect()
}

/// A stream without a server: bytes are handed in, shapes that are asked for are made up.
struct Memory {
    stream: Stream,
    batch: Batch,
    changes: Vec<Change>,
    ends: Vec<Position>,
    /// By how much batches that are full are stretched.
    stretch: usize,
    /// Batches sealed because they were full.
    full: usize,
    /// Digits that shapes give MariaDB's old temporal columns beyond those that they had.
    more_digits: u8,
    /// Whether dumps begin before the start.
    warm_up: bool,
    _state: tempfile::TempDir,
}

impl Memory {
    fn new(tables: &[&str], batch_bytes: usize) -> Self {
        let start = Point {
            place: Place::new(&BinlogPosition {
                file: "".into(),
                offset: 4,
            }),
            gtids: None,
        };
        Self::starting_at(start, false, tables, batch_bytes)
    }

    fn starting_at(start: Point, warm_up: bool, tables: &[&str], batch_bytes: usize) -> Self {
        Self::with_row_max(start, warm_up, tables, batch_bytes, 64 << 20)
    }

    fn with_row_max(
        start: Point,
        warm_up: bool,
        tables: &[&str],
        batch_bytes: usize,
        row_max: usize,
    ) -> Self {
        let state = tempfile::tempdir().unwrap();
        let store = xa::Store::open(state.path(), "test", false).unwrap();
        let selection = Selection::new(tables).unwrap();
        let versions = Versions::open(state.path(), "test", None).unwrap();
        let server = "mysql:test".parse().unwrap();
        let mut decoder = Decoder::new(selection, row_max, true, start, server, store, versions);
        // Whatever holds of changes holds of truncates.
        decoder.truncates = Truncates::new(true);
        let mut memory = Self {
            stream: Stream::new(decoder, batch_bytes, row_max),
            batch: Batch::default(),
            changes: Vec::new(),
            ends: Vec::new(),
            stretch: 0,
            full: 0,
            more_digits: 0,
            warm_up,
            _state: state,
        };
        memory.begin();
        memory
    }

    fn begin(&mut self) {
        let frames = Frames::starting_at(1);
        let checksum = Checksum::Crc32;
        self.stream
            .begin(&mut self.batch, frames, checksum, self.warm_up);
    }

    fn seal(&mut self) {
        self.stream.seal(&mut self.batch);
        self.changes.extend(changes(&self.batch));
        self.ends.extend(self.batch.end.take());
        self.batch.clear();
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        // As after a read: the stream wants bytes only when nothing else is left to do.
        self.run()?;
        self.batch.bytes.extend_from_slice(bytes);
        self.run()
    }

    fn run(&mut self) -> Result<(), SourceError> {
        loop {
            match self.stream.decode(&mut self.batch)? {
                Step::Read => return Ok(()),
                Step::Full if self.batch.stretch < self.stretch => {
                    self.batch.stretch = self.stretch;
                }
                Step::Full => {
                    self.full += 1;
                    self.seal();
                }
                Step::Ask(wanted) => {
                    let mut columns = wanted.description.columns.clone();
                    for (index, column) in columns.iter_mut().enumerate() {
                        // MariaDB's old temporal types hide their digits; the recording has them in the names.
                        let digits = column.name.chars().last().and_then(|c| c.to_digit(10));
                        if let (
                            ColumnType::Time { fsp, old: true }
                            | ColumnType::DateTime { fsp, old: true }
                            | ColumnType::Timestamp { fsp, old: true },
                            Some(digits),
                        ) = (&mut column.kind, digits)
                        {
                            *fsp = digits as u8 + self.more_digits;
                        }
                        column.name = format!("c{index}").into();
                    }
                    let tables = self.stream.decoder.tables_mut();
                    tables.complete(&wanted, columns, Box::default());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn finish(mut self) -> (Vec<Change>, Vec<Position>) {
        self.seal();
        (self.changes, self.ends)
    }
}

/// The changes and the last position when everything comes at once.
fn whole(name: &str) -> (Vec<Change>, Position) {
    let mut memory = Memory::new(&["*.*"], 64 << 20);
    memory.feed(&packets(&events(name), 1)).unwrap();
    let (changes, ends) = memory.finish();
    (changes, ends.last().unwrap().clone())
}

#[test]
fn every_chunking_gives_the_same_changes() {
    for name in SMALL {
        let (expected, end) = whole(name);
        let wire = packets(&events(name), 1);
        let mut seed = Seed(7);
        for batch_bytes in [16 << 10, 100_000, 1 << 20] {
            for chunk_max in [1, 700, 70_000] {
                if chunk_max == 1 && wire.len() > 200_000 && batch_bytes > 16 << 10 {
                    continue;
                }
                let mut memory = Memory::new(&["*.*"], batch_bytes);
                let mut at = 0;
                while at < wire.len() {
                    let length = (1 + seed.below(chunk_max)).min(wire.len() - at);
                    memory.feed(&wire[at..at + length]).unwrap();
                    at += length;
                    if seed.below(50) == 0 {
                        memory.seal();
                    }
                }
                let (changes, ends) = memory.finish();
                assert_eq!(
                    changes.len(),
                    expected.len(),
                    "{name} {batch_bytes} {chunk_max}"
                );
                for (got, want) in changes.iter().zip(&expected) {
                    assert_eq!(got, want, "{name} {batch_bytes} {chunk_max}");
                }
                assert_eq!(ends.last(), Some(&end));
            }
        }
    }
}

#[test]
fn a_full_batch_that_is_stretched_goes_on_where_it_was() {
    for name in ["mysql-9.7-20k", "mariadb-10.11-20k"] {
        let (expected, end) = whole(name);
        let wire = packets(&events(name), 1);
        let mut full = Vec::new();
        for stretch in [0, 3 * 40_000] {
            let mut memory = Memory::new(&["*.*"], 40_000);
            memory.stretch = stretch;
            for chunk in wire.chunks(7_001) {
                memory.feed(chunk).unwrap();
            }
            full.push(memory.full);
            let (changes, ends) = memory.finish();
            assert!(changes == expected, "{name}, {stretch}");
            assert_eq!(ends.last(), Some(&end), "{name}, {stretch}");
        }
        assert!(full[0] > 8, "{name}: {full:?}");
        // Four times as large, but for the read that filled it.
        assert!(
            (2 * full[1]..4 * full[1] + 4).contains(&full[0]),
            "{name}: {full:?}"
        );
    }
}

#[test]
fn recordings_end_where_their_server_stood() {
    for (name, rows) in [
        ("mysql-9.7-20k", 20_000),
        ("mysql-5.6-20k", 20_000),
        ("mariadb-10.11-20k", 20_000),
    ] {
        let (changes, end) = whole(name);
        let sidecar = Recording::named(name).unwrap().sidecar;
        let Position::MySql { binlog, gtids } = end else {
            panic!("a position of MySQL");
        };
        assert_eq!(changes.len(), rows, "{name}");
        // MySQL 5.6's ends with the ROTATE to a file that is not in it.
        if *binlog.file == *sidecar.end.file {
            assert_eq!(binlog.offset, sidecar.end.offset, "{name}");
        } else {
            assert_eq!(binlog.to_string(), "binlog.000004:4", "{name}");
        }
        assert!(gtids.is_some(), "{name}");
        // Rows are numbered within their transaction, without gaps.
        for pair in changes.windows(2) {
            let part = |change: &Change| {
                let (transaction, row) = change.position.rsplit_once('/').unwrap();
                (transaction.to_owned(), row.parse::<u64>().unwrap())
            };
            let (one, two) = (part(&pair[0]), part(&pair[1]));
            assert!(
                one.0 != two.0 && two.1 == 0 || two.1 == one.1 + 1,
                "{one:?} {two:?}"
            );
        }
    }
}

#[test]
fn rows_of_tables_that_are_not_captured_are_counted() {
    let mut memory = Memory::new(&["*.*", "!*.events"], 1 << 20);
    memory.feed(&packets(&events("mysql-9.7-20k"), 1)).unwrap();
    let counters = *memory.stream.decoder.counters();
    let (changes, ends) = memory.finish();
    assert_eq!(changes, []);
    assert_eq!(counters.rows, 0);
    assert_eq!(counters.rows_filtered, 20_000);
    assert!(!ends.is_empty());
}

#[test]
fn widths_that_cannot_be_known_halt_and_say_how_to_go_on() {
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    memory.more_digits = 3;
    let wire = packets(&events("mariadb-10.11-types"), 1);
    let error = memory.feed(&wire).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Halt);
    let text = error.to_string();
    for part in [
        "binlog.000001:",
        "types.",
        "columns c",
        "mysql56_temporal_format",
        " FORCE",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_event_that_cannot_be_read_is_named() {
    let mut events = events("mysql-9.7-20k");
    let rows = |event: &&mut Vec<u8>| event[4] == 30;
    let event = events.iter_mut().find(rows).unwrap();
    event[40] ^= 1;
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    let error = memory.feed(&packets(&events, 1)).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Retry);
    let text = error.to_string();
    assert!(text.starts_with("WRITE_ROWS at binlog.000001:"), "{text}");
}

/// The rows that a recording writes into `forms.xa`: id, text, and the place that `pos` shows.
fn xa_rows(name: &str) -> Vec<(u32, String, String)> {
    let (changes, _) = whole(name);
    let forms = changes.iter().filter(|change| change.table == "forms.xa");
    forms
        .map(|change| {
            let after = change.after.as_ref().unwrap();
            // NULL bits, INT, VARCHAR with one byte of length.
            let id = u32::from_le_bytes(after[1..5].try_into().unwrap());
            let text = String::from_utf8(after[6..].to_vec()).unwrap();
            (id, text, change.position.clone())
        })
        .collect()
}

/// Where the transaction begins whose only statement starts with `statement`: at its GTID.
fn decided_at(name: &str, statement: &[u8]) -> u64 {
    let events = events(name);
    let at = events
        .iter()
        .position(|event| event.windows(statement.len()).any(|text| text == statement))
        .unwrap();
    let gtid = Header::parse(&events[at - 1]).unwrap();
    u64::from(gtid.next_position) - u64::from(gtid.length)
}

#[test]
fn rows_of_a_prepared_transaction_wait_for_its_decision() {
    for name in ["mariadb-10.11-types", "mysql-9.7-types"] {
        let rows = xa_rows(name);
        let ids: Vec<u32> = rows.iter().map(|(id, ..)| *id).collect();
        let rolled_back = rows.iter().any(|(_, text, _)| text == "rolled back");
        assert!(!rolled_back, "{name}: {rows:?}");
        assert!(ids.starts_with(&[1, 3]), "{name}: {ids:?}");
        let place = format!(
            "binlog.000001:{}/0",
            decided_at(name, b"XA COMMIT X'6f6e65',X'',1")
        );
        assert_eq!((&*rows[0].1, &rows[0].2), ("committed", &place), "{name}");
    }
}

#[test]
fn a_commit_whose_rows_came_before_the_stream_halts() {
    for name in ["mariadb-10.11-types", "mysql-9.7-types"] {
        let from = decided_at(name, b"XA COMMIT X'6f6e65',X'',1");
        let mut memory = Memory::new(&["*.*"], 1 << 20);
        let dump = dump_from(&events(name)[..], "binlog.000001", from);
        let error = memory.feed(&packets(&dump, 1)).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Halt, "{error}");
        let text = error.to_string();
        for part in ["XA transaction X'6f6e65',X'',1", "position set"] {
            assert!(text.contains(part), "{name}: {text}");
        }
    }
}

#[test]
fn the_texts_of_statements_stay_in_the_log() {
    for (name, kind) in [
        ("mariadb-10.11-types", Kind::ANNOTATE_ROWS),
        ("mysql-9.7-types", Kind::ROWS_QUERY),
    ] {
        let logged = events(name).iter().any(|event| event[4] == kind.0);
        assert!(logged, "{name} has no statement's text");
        let (changes, _) = whole(name);
        assert!(
            changes.iter().all(|change| change.query.is_none()),
            "{name}"
        );
    }
}

/// An event of this kind and body, in no file, with the rest of its header as `template` has it.
fn in_no_file(template: &[u8], kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut event = template[..19].to_vec();
    event[4] = kind.0;
    event[13..17].fill(0);
    completed(event, body)
}

/// A header with its body, and with its length and sum set right.
fn completed(mut event: Vec<u8>, body: &[u8]) -> Vec<u8> {
    event.extend_from_slice(body);
    event.extend_from_slice(&[0; 4]);
    let length = event.len() as u32;
    event[9..13].copy_from_slice(&length.to_le_bytes());
    seal(&mut event);
    event
}

/// Gives an event the checksum of what it holds now.
fn seal(event: &mut [u8]) {
    let end = event.len() - 4;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &event[..end]) as u32;
    event[end..].copy_from_slice(&crc.to_le_bytes());
}

/// What a server sends that is asked to go on at `from`.
fn dump_from(events: &[Vec<u8>], file: &str, from: u64) -> Vec<Vec<u8>> {
    let mut rotate = vec![0; 19];
    rotate[4] = Kind::ROTATE.0;
    rotate[17] = 0x20;
    rotate.extend_from_slice(&from.to_le_bytes());
    rotate.extend_from_slice(file.as_bytes());
    rotate.extend_from_slice(&[0; 4]);
    let length = rotate.len() as u32;
    rotate[9..13].copy_from_slice(&length.to_le_bytes());
    seal(&mut rotate);
    let mut description = events[1].clone();
    assert_eq!(description[4], Kind::FORMAT_DESCRIPTION.0);
    description[13..17].fill(0);
    seal(&mut description);
    let mut dump = vec![rotate, description];
    let starts_at = |event: &&Vec<u8>| {
        let header = Header::parse(event).unwrap();
        u64::from(header.next_position) >= from + u64::from(header.length)
    };
    dump.extend(events.iter().skip(1).filter(starts_at).cloned());
    dump
}

#[test]
fn a_cut_line_repeats_and_loses_nothing() {
    for name in ["mysql-9.7-20k", "mariadb-10.11-20k", "mysql-5.6-20k"] {
        let events = events(name);
        let (expected, end) = whole(name);
        for round in 0..6 {
            let mut seed = Seed(round);
            let mut memory = Memory::new(&["*.*"], 200_000);
            let mut wire = packets(&events, 1);
            // Several cuts, some of them before what was read before has come again.
            for _ in 0..8 {
                let cut = seed.below(wire.len() / 3 + 1);
                let mut at = 0;
                while at < cut {
                    let length = (1 + seed.below(90_000)).min(cut - at);
                    memory.feed(&wire[at..at + length]).unwrap();
                    at += length;
                }
                if seed.below(3) == 0 {
                    memory.seal();
                }
                let safe = memory.stream.decoder.safe().place.clone();
                memory.begin();
                wire = match safe.file.is_empty() {
                    true => packets(&events, 1),
                    false => packets(&dump_from(&events, &safe.file, safe.offset), 1),
                };
            }
            memory.feed(&wire).unwrap();
            let (changes, ends) = memory.finish();
            assert_eq!(changes.len(), expected.len(), "{name} round {round}");
            assert!(changes == expected, "{name} round {round}");
            assert_eq!(ends.last(), Some(&end));
        }
    }
}

#[test]
fn a_flipped_byte_is_an_error_or_does_not_matter() {
    for name in ["mysql-9.7-20k", "mariadb-10.11-20k", "mysql-9.7-types"] {
        let events = events(name);
        let mut seed = Seed(11);
        for _ in 0..150 {
            let number = seed.below(events.len().min(100));
            let mut damaged = events[..=number].to_vec();
            let at = seed.below(damaged[number].len());
            damaged[number][at] ^= 1 << seed.below(8);
            let mut sound = Memory::new(&["*.*"], 1 << 20);
            sound.feed(&packets(&events[..=number], 1)).unwrap();
            let mut memory = Memory::new(&["*.*"], 1 << 20);
            match memory.feed(&packets(&damaged, 1)) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains(" at byte ") || text.contains("byte"),
                        "{text}"
                    );
                    assert!(text.contains(':'), "{text}");
                }
                Ok(()) => {
                    let place = format!("{name} event {number} byte {at}");
                    assert!(memory.finish().0 == sound.finish().0, "{place}");
                }
            }
        }
    }
}

#[test]
fn a_position_inside_a_transaction_is_refused() {
    let events = events("mysql-9.7-20k");
    let inside = events
        .iter()
        .filter_map(|event| Header::parse(event).ok())
        .filter(|header| header.kind == Kind::TABLE_MAP)
        .nth(3)
        .unwrap()
        .next_position;
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    let wire = packets(&dump_from(&events, "binlog.000001", u64::from(inside)), 1);
    let error = memory.feed(&wire).unwrap_err().to_string();
    assert!(error.contains("inside a transaction"), "{error}");
}

#[test]
fn files_are_compared_by_number() {
    let place = |text: &str| Place::new(&text.parse().unwrap());
    assert!(is_past(&place("b.1000000:4"), &place("b.999999:500")));
    assert!(is_past(&place("b.000002:157"), &place("b.000002:157")));
    assert!(!is_past(&place("b.000002:156"), &place("b.000002:157")));
}

mod far;
mod labels;
mod large;
mod long;
mod many;
mod starts;
mod statements;
mod truncates;
