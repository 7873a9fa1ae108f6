//! TRUNCATE as a change: rows behind it are numbered alike with and without, by both plugins, whole and in pieces, and over a cut line.

use super::*;

/// The recording's tables and how they are emptied: `emptied_child`, `emptied CASCADE`, both by name, and in the middle of a
/// transaction `emptied CASCADE` again; `nopk` at the end of another script.
const EMPTIED: [&str; 8] = [
    "forms.emptied_child",
    "forms.emptied",
    "forms.emptied_child",
    "forms.emptied",
    "forms.emptied_child",
    "forms.emptied",
    "forms.emptied_child",
    "public.nopk",
];

fn told(plugin: Plugin, frames: &[Vec<u8>], recorded: bool) -> Vec<Change> {
    let mut memory = Memory::of(plugin, &["*.*"], 1 << 20);
    if recorded {
        memory.stream.decoder.record_truncates();
    }
    memory.feed(&frames.concat()).unwrap();
    memory.finish().0
}

fn is_truncate(change: &Change) -> bool {
    change.operation == Operation::Truncate
}

#[test]
fn a_truncate_counts_as_a_row_for_each_table() {
    for (plugin, name) in [
        (Plugin::PgOutput, "postgres-15-types"),
        (Plugin::Wal2Json, "postgres-15-wal2json-types"),
    ] {
        let frames = frames(name);
        let changes = told(plugin, &frames, true);
        let truncates: Vec<&str> = (changes.iter())
            .filter(|change| is_truncate(change))
            .map(|change| &*change.table)
            .collect();
        assert_eq!(truncates, EMPTIED, "{name}");
        assert!(
            changes.is_sorted_by(|a, b| (a.commit, a.row) < (b.commit, b.row)),
            "{name}"
        );
        // INSERT, TRUNCATE … CASCADE, INSERT in one transaction.
        let middle = changes.iter().rposition(|change| {
            is_truncate(change) && change.table == "forms.emptied" && change.row == 1
        });
        let commit = changes[middle.unwrap()].commit;
        let operations: Vec<_> = (changes.iter())
            .filter(|change| change.commit == commit)
            .map(|change| (change.operation, change.row))
            .collect();
        assert_eq!(
            operations,
            [
                (Operation::Create, 0),
                (Operation::Truncate, 1),
                (Operation::Truncate, 2),
                (Operation::Create, 3)
            ],
            "{name}"
        );
        let rows: Vec<Change> = (changes.into_iter())
            .filter(|change| !is_truncate(change))
            .collect();
        assert!(told(plugin, &frames, false) == rows, "{name}");
    }
}

#[test]
fn a_truncate_of_a_table_that_is_not_captured_is_counted() {
    let frames = frames("postgres-15-types");
    let rows = |change: &&Change| change.table != "forms.emptied";
    let everything = told(Plugin::PgOutput, &frames, true);
    let expected: Vec<&Change> = everything.iter().filter(rows).collect();
    for recorded in [true, false] {
        let mut memory = Memory::new(&["*.*", "!forms.emptied"], 1 << 20);
        if recorded {
            memory.stream.decoder.record_truncates();
        }
        memory.feed(&frames.concat()).unwrap();
        let counters = *memory.stream.decoder.counters();
        let (changes, _) = memory.finish();
        let left_out = everything.len() - expected.len();
        assert_eq!(counters.rows_filtered, left_out as u64);
        let expected: Vec<&Change> = (expected.iter().copied())
            .filter(|change| recorded || !is_truncate(change))
            .collect();
        assert!(changes.iter().eq(expected), "recorded: {recorded}");
    }
}

/// Frames of the transaction with a TRUNCATE between two rows: where it begins, and behind its commit.
fn middle(frames: &[Vec<u8>]) -> (usize, usize) {
    let truncates = (frames.iter().enumerate()).filter(|(_, frame)| kind(frame) == Some(b'T'));
    for (at, _) in truncates {
        let begin = frames[..at].iter().rposition(|it| kind(it) == Some(b'B'));
        let begin = begin.unwrap();
        let end = at
            + frames[at..]
                .iter()
                .position(|it| kind(it) == Some(b'C'))
                .unwrap()
            + 1;
        let rows = frames[begin..end]
            .iter()
            .filter(|it| kind(it) == Some(b'I'));
        if rows.count() == 2 {
            return (begin, end);
        }
    }
    panic!("no such transaction");
}

#[test]
fn a_cut_line_loses_no_truncate_and_repeats_none() {
    let frames = frames("postgres-15-types");
    let expected = told(Plugin::PgOutput, &frames, true);
    let (begin, end) = middle(&frames);
    for cut in begin..=end {
        for sealed in [false, true] {
            let mut memory = Memory::new(&["*.*"], 1 << 20);
            memory.stream.decoder.record_truncates();
            memory.feed(&frames[..cut].concat()).unwrap();
            if sealed {
                memory.seal();
            }
            memory.begin();
            // What has committed does not come again.
            let from = if cut == end { end } else { begin };
            memory.feed(&frames[from..].concat()).unwrap();
            assert!(memory.finish().0 == expected, "cut at {cut}");
        }
    }
}

#[test]
fn a_truncate_in_pieces_is_the_one_of_the_whole_transaction() {
    use super::pieces::{PAYLOAD, streamed, with};
    let frames = frames("postgres-15-types");
    let (begin, end) = middle(&frames);
    let expected = told(Plugin::PgOutput, &frames[..end], true);
    let xid = u32::from_be_bytes(frames[begin][PAYLOAD + 17..][..4].try_into().unwrap());
    let number = xid.to_be_bytes();
    let mut pieces = frames[..begin].to_vec();
    let (rows, commit) = frames[begin + 1..end].split_at(end - begin - 2);
    for (n, row) in rows.iter().enumerate() {
        let start = [b"S".as_slice(), &number, &[u8::from(n == 0)]].concat();
        pieces.push(with(row, &start));
        pieces.push(streamed(row, xid));
        pieces.push(with(row, b"E"));
    }
    let body = &commit[0][PAYLOAD + 1..];
    pieces.push(with(&commit[0], &[b"c".as_slice(), &number, body].concat()));
    assert!(told(Plugin::PgOutput, &pieces, true) == expected);
}

#[test]
fn a_truncate_outside_of_a_transaction_is_an_error() {
    let frames = frames("postgres-15-types");
    let truncate = (frames.iter())
        .find(|frame| kind(frame) == Some(b'T'))
        .unwrap();
    for recorded in [true, false] {
        let mut memory = Memory::new(&["*.*"], 1 << 20);
        if recorded {
            memory.stream.decoder.record_truncates();
        }
        let error = memory.feed(truncate).unwrap_err();
        assert_eq!(error.verdict(), Verdict::Retry);
        assert!(error.to_string().contains("outside of a transaction"));
    }
}
