//! Recordings fed from memory through frames and decoder: whatever the reads bring, and wherever the line is cut, the changes are the
//! same.

use fixtures::Recording;
use protocol::Span;
use protocol::postgres::Lsn;

use super::decode::Decoder;
use super::held;
use super::shapes::Shape;
use super::stream::{Step, Stream};
use super::tables::{Index, Question};
use crate::batch::{Batch, Operation};
use crate::config::{Plugin, Selection};
use crate::position::Position;
use crate::source::seed::Seed;
use crate::source::{SourceError, Verdict};

const SMALL: [&str; 2] = ["postgres-15-20k", "postgres-15-types"];

/// CopyData messages of a recording.
fn frames(name: &str) -> Vec<Vec<u8>> {
    let mut stream = Recording::named(name).unwrap().frames().unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = stream.next_frame().unwrap() {
        if frame[0] == b'd' {
            frames.push(frame.to_vec());
        }
    }
    frames
}

/// The kind of a frame's message; keepalives have none.
fn kind(frame: &[u8]) -> Option<u8> {
    frame.get(30).copied().filter(|_| frame[5] == b'w')
}

/// Everything that a change's records can show, apart from where it lies in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    table: String,
    columns: Vec<String>,
    /// Columns of the record's key, in its order.
    key: Vec<String>,
    operation: Operation,
    before: Option<Vec<u8>>,
    before_is_key: bool,
    after: Option<Vec<u8>>,
    commit: u64,
    row: u64,
    lsn: u64,
    xid: Option<u32>,
    commit_us: Option<u64>,
}

fn changes(batch: &Batch) -> Vec<Change> {
    let bytes = |span: Span| span.of(&batch.bytes).map(<[u8]>::to_vec);
    assert_eq!(batch.events.len(), batch.lsns.len());
    (batch.events.iter().zip(&batch.lsns))
        .map(|(event, lsn)| {
            let group = &batch.groups[event.group as usize];
            let transaction = &batch.transactions[group.transaction as usize];
            let table = &batch.tables[group.table as usize];
            let has_no_after = [Operation::Delete, Operation::Truncate];
            assert_eq!(
                event.after.is_none(),
                has_no_after.contains(&event.operation)
            );
            let name = |number: &u16| {
                table.columns.postgres()[usize::from(*number)]
                    .name
                    .to_string()
            };
            Change {
                table: format!("{}.{}", table.schema, table.name),
                key: table.key.iter().map(name).collect(),
                columns: (table.columns.postgres().iter())
                    .map(|column| column.name.to_string())
                    .collect(),
                operation: event.operation,
                before: bytes(event.before),
                before_is_key: event.before.is_none() || group.before_is_key,
                after: bytes(event.after),
                commit: transaction.offset,
                row: group.first_row + u64::from(event.row),
                lsn: *lsn,
                xid: transaction.xid,
                commit_us: transaction.commit_us,
            }
        })
        .collect()
}

/// A stream without a server: bytes are handed in, keys that are asked for are made up.
struct Memory {
    stream: Stream,
    batch: Batch,
    changes: Vec<Change>,
    ends: Vec<Lsn>,
    /// What the catalog says about every table that wal2json names: by default it knows nothing any more, and rows describe themselves.
    catalog: Shape,
    /// By how much batches that are full are stretched.
    stretch: usize,
    /// Batches sealed because they were full.
    full: usize,
    /// Where transactions wait for their ends.
    _state: tempfile::TempDir,
}

impl Memory {
    fn new(tables: &[&str], batch_bytes: usize) -> Self {
        Self::of(Plugin::PgOutput, tables, batch_bytes)
    }

    fn of(plugin: Plugin, tables: &[&str], batch_bytes: usize) -> Self {
        let selection = Selection::new(tables).unwrap();
        let state = tempfile::tempdir().unwrap();
        let held = held::Store::open(state.path(), "shop", true).unwrap();
        let decoder = Decoder::new("walbrook", selection, Lsn(1), held);
        Self {
            stream: Stream::new(decoder, plugin, batch_bytes, 64 << 20),
            batch: Batch::default(),
            changes: Vec::new(),
            ends: Vec::new(),
            catalog: Shape::default(),
            stretch: 0,
            full: 0,
            _state: state,
        }
    }

    /// Another connection, which begins at the last position.
    fn begin(&mut self) {
        self.stream.begin(&mut self.batch, &[]);
    }

    fn seal(&mut self) {
        self.stream.seal(&mut self.batch);
        self.changes.extend(changes(&self.batch));
        match self.batch.end.take() {
            Some(Position::Postgres { lsn }) => self.ends.push(lsn),
            Some(other) => panic!("{other}"),
            None => {}
        }
        self.batch.clear();
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
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
                Step::Ask(question) => {
                    let Question::Relation(wanted) = &*question else {
                        self.stream.answered(&question, self.catalog.clone());
                        continue;
                    };
                    let first = wanted.described.columns.iter().take(1);
                    let shape = Shape {
                        indices: vec![Index {
                            name: "pkey".into(),
                            is_primary: true,
                            is_identity: false,
                            is_deferrable: false,
                            columns: first.map(|column| column.name.to_string()).collect(),
                        }],
                        money_digits: Some(2),
                        ..Shape::default()
                    };
                    self.stream.answered(&question, shape);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn finish(mut self) -> (Vec<Change>, Vec<Lsn>) {
        self.seal();
        (self.changes, self.ends)
    }
}

fn whole(frames: &[Vec<u8>], tables: &[&str], batch_bytes: usize) -> (Vec<Change>, Vec<Lsn>) {
    let mut memory = Memory::new(tables, batch_bytes);
    memory.feed(&frames.concat()).unwrap();
    memory.finish()
}

#[test]
fn the_changes_are_the_recordings() {
    for name in SMALL {
        let recording = Recording::named(name).unwrap();
        let (changes, ends) = whole(&frames(name), &["*.*"], 1 << 20);
        assert_eq!(changes.len() as u64, recording.sidecar.changes, "{name}");
        assert!(ends.is_sorted(), "{name}");
        // The order of a server is that of commits, and of rows within each.
        let order: Vec<_> = changes.iter().map(|c| (c.commit, c.row)).collect();
        assert!(order.is_sorted_by(|a, b| a < b), "{name}");
    }
}

#[test]
fn reads_and_batches_may_end_anywhere() {
    for name in SMALL {
        let frames = frames(name);
        let expected = whole(&frames, &["*.*"], 1 << 20).0;
        let wire = frames.concat();
        for seed in 0..4 {
            let mut random = Seed(seed);
            let mut memory = Memory::new(&["*.*"], 1 << (9 + seed));
            let mut rest = &*wire;
            while !rest.is_empty() {
                let length = (1 + random.below(3000)).min(rest.len());
                memory.feed(&rest[..length]).unwrap();
                rest = &rest[length..];
                if random.below(4) == 0 {
                    memory.seal();
                }
            }
            assert!(memory.finish().0 == expected, "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_full_batch_that_is_stretched_goes_on_where_it_was() {
    let frames = frames("postgres-15-20k");
    let expected = whole(&frames, &["*.*"], 1 << 20).0;
    let mut full = Vec::new();
    for stretch in [0, 3 << 14] {
        let mut memory = Memory::new(&["*.*"], 1 << 14);
        memory.stretch = stretch;
        for chunk in frames.concat().chunks(7_001) {
            memory.feed(chunk).unwrap();
        }
        full.push(memory.full);
        assert!(memory.finish().0 == expected, "{stretch}");
    }
    assert!(full[0] > 8, "{full:?}");
    // Four times as large, to a message.
    assert!(
        (3 * full[1]..4 * full[1] + 4).contains(&full[0]),
        "{full:?}"
    );
}

/// After a cut the server sends again from the last position: whole transactions, descriptions included.
#[test]
fn a_cut_line_loses_nothing_and_repeats_nothing() {
    let name = "postgres-15-20k";
    let frames = frames(name);
    let expected = whole(&frames, &["*.*"], 1 << 20).0;
    // Where transactions begin, and where the description of the one table stands.
    let begins: Vec<usize> = (frames.iter().enumerate())
        .filter(|(_, frame)| kind(frame) == Some(b'B'))
        .map(|(n, _)| n)
        .collect();
    let description = frames
        .iter()
        .find(|frame| kind(frame) == Some(b'R'))
        .unwrap();
    for seed in 0..20 {
        let mut random = Seed(seed);
        let mut memory = Memory::new(&["*.*"], 16 << 10);
        let mut at = 0;
        while at < frames.len() {
            let until = (at + 1 + random.below(4000)).min(frames.len());
            memory.feed(&frames[at..until].concat()).unwrap();
            if until == frames.len() {
                break;
            }
            let part = random.below(frames[until].len());
            memory.feed(&frames[until][..part]).unwrap();
            if random.below(2) == 0 {
                memory.seal();
            }
            memory.begin();
            // The transaction that was open, from its begin on; in it the description comes again.
            let begin = begins
                .iter()
                .rfind(|begin| **begin <= until)
                .copied()
                .unwrap_or(0);
            memory.feed(&frames[begin]).unwrap();
            memory.feed(description).unwrap();
            at = begin + 1;
        }
        let (changes, ends) = memory.finish();
        assert!(changes == expected, "seed {seed}");
        assert!(ends.is_sorted(), "seed {seed}");
    }
}

#[test]
fn a_transaction_that_another_server_never_had_is_not_passed_over() {
    let frames = frames("postgres-15-20k");
    let begins: Vec<usize> = (frames.iter().enumerate())
        .filter(|(_, frame)| kind(frame) == Some(b'B'))
        .map(|(n, _)| n)
        .collect();
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    memory.feed(&frames[..begins[0] + 10].concat()).unwrap();
    memory.begin();
    let error = memory.feed(&frames[begins[1]]).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Resync);
    assert!(
        error
            .to_string()
            .contains("does not have the transaction any more"),
        "{error}"
    );
}

#[test]
fn tables_that_are_not_captured_are_counted() {
    let frames = frames("postgres-15-20k");
    let mut memory = Memory::new(&["other.*"], 1 << 20);
    memory.feed(&frames.concat()).unwrap();
    let counters = *memory.stream.decoder.counters();
    assert_eq!((counters.rows, counters.rows_filtered), (0, 20_000));
    let (changes, ends) = memory.finish();
    assert!(changes.is_empty());
    // The position goes on all the same.
    assert!(!ends.is_empty());
}

#[test]
fn an_idle_stream_goes_on_by_keepalives() {
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    let keepalive = |lsn: u64| {
        let mut frame = b"d\0\0\0\x16k".to_vec();
        frame.extend_from_slice(&lsn.to_be_bytes());
        frame.extend_from_slice(&[0; 8]);
        frame.push(1);
        frame
    };
    memory.feed(&keepalive(500)).unwrap();
    assert!(memory.stream.server_wants_reply);
    memory.seal();
    // One that says less than is known says nothing.
    memory.feed(&keepalive(400)).unwrap();
    let (_, ends) = memory.finish();
    assert_eq!(ends, [Lsn(500)]);
}

/// This stream has no checksum: a flipped byte may change the row it is in, and no other; never a panic, never another number of rows
/// unless it is an error.
#[test]
fn damage_stays_in_its_frame() {
    let all = frames("postgres-15-types");
    let expected = whole(&all, &["*.*"], 1 << 20).0;
    let mut random = Seed(7);
    for _ in 0..3000 {
        let at = random.below(all.len());
        let byte = random.below(all[at].len());
        let mut damaged = all.clone();
        damaged[at][byte] ^= 1 << random.below(8);
        let mut memory = Memory::new(&["*.*"], 1 << 20);
        let fed = memory.feed(&damaged.concat());
        let (changes, _) = memory.finish();
        // What came before is untouched in any case.
        let before = whole(&all[..at], &["*.*"], 1 << 20).0.len();
        assert!(changes.len() >= before, "frame {at}, byte {byte}");
        assert!(
            changes[..before] == expected[..before],
            "frame {at}, byte {byte}"
        );
        // A frame's own length decides where the next one begins: behind such a flip everything may be misread.
        let is_row = matches!(kind(&all[at]), Some(b'I' | b'U' | b'D'));
        if fed.is_ok() && is_row && byte >= 36 && changes.len() == expected.len() {
            assert!(
                changes[before + 1..] == expected[before + 1..],
                "frame {at}, byte {byte}"
            );
        }
    }
}

/// The same workload through both plugins: what the rows hold is the same, byte for byte.
#[test]
fn wal2json_says_what_pgoutput_says() {
    for (json, binary) in [("postgres-15-wal2json-20k", "postgres-15-20k")] {
        let expected = whole(&frames(binary), &["*.*"], 1 << 20).0;
        let wire = frames(json).concat();
        for seed in 0..3 {
            let mut random = Seed(seed);
            let mut memory = Memory::of(Plugin::Wal2Json, &["*.*"], 1 << (12 + 2 * seed));
            let mut rest = &*wire;
            while !rest.is_empty() {
                let length = (1 + random.below(5000)).min(rest.len());
                memory.feed(&rest[..length]).unwrap();
                rest = &rest[length..];
            }
            let (changes, ends) = memory.finish();
            assert!(ends.is_sorted());
            assert_eq!(changes.len(), expected.len());
            for (n, (ours, other)) in changes.iter().zip(&expected).enumerate() {
                let what = |c: &Change| {
                    let rows = (c.before.clone(), c.after.clone());
                    (c.table.clone(), c.columns.clone(), c.operation, rows, c.row)
                };
                assert_eq!(what(ours), what(other), "change {n}");
                assert!(
                    ours.xid > Some(0) && ours.commit_us.is_some() && ours.lsn > 0,
                    "change {n}"
                );
            }
        }
    }
}

#[test]
fn wal2json_reads_every_type_and_form() {
    let recording = Recording::named("postgres-15-wal2json-types").unwrap();
    let mut memory = Memory::of(Plugin::Wal2Json, &["*.*"], 1 << 20);
    memory
        .feed(&frames("postgres-15-wal2json-types").concat())
        .unwrap();
    let (changes, _) = memory.finish();
    assert_eq!(changes.len() as u64, recording.sidecar.changes);
}

mod heads;
mod left_out;
mod pieces;
mod truncates;
mod warnings;
mod whole_rows;
