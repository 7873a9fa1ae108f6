//! Damaged messages of PostgreSQL: messages of the recordings cut at their bytes, and bytes flipped.
//!
//! Nothing checks this stream, so that anything may come out of it. But nothing panics, nothing is read outside the message, and what is
//! in one message changes no other.
//!
//! Of the small recordings every message is damaged: the first ones of each kind and size at each of their bytes (larger ones than
//! [`EXHAUSTED_BYTES`] at seeded places), more of the same at a few seeded places. Of the large ones seeded messages are damaged at seeded
//! places. So the test's time is bounded.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use fixtures::Recording;
use protocol::DecodeError;
use protocol::postgres::copy::{Replication, XLOG_DATA_HEADER};
use protocol::postgres::packet;
use protocol::postgres::pgoutput::{Message, OldTuple, Tuple};
use protocol::postgres::wal2json::{self, Action, Described, RowError, Shape};

/// Frames up to this size are damaged at every byte.
const EXHAUSTED_BYTES: usize = 600;
/// Places tried in each larger frame, besides its first and last bytes.
const SAMPLES: usize = 24;
/// Messages of one kind and about one size that are damaged thoroughly.
const ALIKE_MAX: usize = 4;
/// Places tried in each of the others.
const FEW: usize = 2;
/// Of so many messages of a large recording one is damaged.
const ONE_OF: usize = 97;
/// Stands before and behind each damaged message: what is read or written outside of it shows.
const NEIGHBOUR: &[u8] = b"\0\x01t\0\0\0\x09neighbour";

/// Deterministic places: SplitMix64 from a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % limit as u64) as usize
    }
}

/// How a message is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Thorough,
    AtFewPlaces,
}

/// How much of a recording is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    EveryMessage,
    SomeMessages,
}

fn places(length: usize, depth: Depth, random: &mut Random) -> Vec<usize> {
    if depth == Depth::AtFewPlaces {
        return (0..FEW).map(|_| random.below(length)).collect();
    }
    if length <= EXHAUSTED_BYTES {
        return (0..length).collect();
    }
    let mut places: Vec<usize> = (0..60).chain(length - 8..length).collect();
    places.extend((0..SAMPLES).map(|_| random.below(length)));
    places
}

/// Bodies of the recording's CopyData messages that are to be damaged, and how.
fn bodies(name: &str, share: Share, random: &mut Random) -> Vec<(Vec<u8>, Depth)> {
    let recording = Recording::named(name).unwrap();
    let mut frames = recording.frames().unwrap();
    let mut alike: HashMap<(u8, u8, usize), usize> = HashMap::new();
    let mut seen = HashSet::new();
    let mut bodies = Vec::new();
    while let Some(message) = frames.next_frame().unwrap() {
        let frame = packet::next(message).unwrap().unwrap();
        assert_eq!(frame.wire_length, message.len());
        if frame.tag != b'd' {
            continue;
        }
        let body = &message[frame.body];
        // What kind of message, also of wal2json's: `{"action":"I"…`.
        let kind = |at: usize| body.get(XLOG_DATA_HEADER + at).copied().unwrap_or(0);
        let count = alike
            .entry((kind(0), kind(11), body.len() / 16))
            .or_default();
        *count += 1;
        let depth = match share {
            Share::EveryMessage if *count <= ALIKE_MAX && seen.insert(body.to_vec()) => {
                Some(Depth::Thorough)
            }
            Share::EveryMessage => Some(Depth::AtFewPlaces),
            Share::SomeMessages => (random.below(ONE_OF) == 0).then_some(Depth::AtFewPlaces),
        };
        bodies.extend(depth.map(|depth| (body.to_vec(), depth)));
    }
    assert!(bodies.len() > 20, "{name}: {}", bodies.len());
    bodies
}

/// Everything a reader would do with the body of a CopyData message. `shape` is made when it is needed first, and kept.
fn read(body: &[u8], plugin: Plugin, shape: &mut Option<Shape>) -> Result<String, DecodeError> {
    match Replication::decode(body)? {
        Replication::Keepalive(keepalive) => Ok(format!("{keepalive:?}")),
        Replication::XLogData(data) => match plugin {
            Plugin::PgOutput => {
                // As it would be read in a streamed piece, which it is not: any outcome, as long as there is one.
                if let Ok((_, message)) = Message::decode_streamed(data.message) {
                    read_message(data.message, message);
                }
                let message = Message::decode(data.message)?;
                Ok(read_message(data.message, message))
            }
            Plugin::Wal2Json => read_json(data.message, shape),
        },
    }
}

#[derive(Debug, Clone, Copy)]
enum Plugin {
    PgOutput,
    Wal2Json,
}

fn read_message(bytes: &[u8], message: Message<'_>) -> String {
    match message {
        Message::Relation(relation) => {
            let columns: Vec<_> = relation.columns().map(Result::unwrap).collect();
            format!("{relation:?} {columns:?}")
        }
        Message::Insert(row) => read_tuple(bytes, row.new),
        Message::Update(row) => {
            let old = row.old.map(OldTuple::range);
            let old = old.map(|range| read_tuple(bytes, range));
            format!("{old:?} {}", read_tuple(bytes, row.new))
        }
        Message::Delete(row) => read_tuple(bytes, row.old.range()),
        other => format!("{other:?}"),
    }
}

/// A tuple that a message was found to hold is read to its end.
fn read_tuple(bytes: &[u8], range: Range<usize>) -> String {
    let mut tuple = Tuple::new(&bytes[range]).unwrap();
    let mut text = String::new();
    while let Some(value) = tuple.next().unwrap() {
        text += &format!("{value:?} ");
    }
    text
}

/// Reads the message between two neighbours, rewrites its row in place, and looks after the neighbours.
fn read_json(message: &[u8], shape: &mut Option<Shape>) -> Result<String, DecodeError> {
    let head = wal2json::Message::decode(message)?;
    if !matches!(
        head.action,
        Action::Insert | Action::Update | Action::Delete
    ) {
        return Ok(format!("{head:?} {:?}", head.committed_us()));
    }
    let described = Described::read(message, &head)?;
    let columns = described.columns.as_ref().or(described.identity.as_ref());
    let Some(columns) = columns else {
        return Ok("nothing".into());
    };
    let shape = shape.get_or_insert_with(|| Shape::new(columns));
    let mut bytes = [NEIGHBOUR, message, NEIGHBOUR].concat();
    let range = NEIGHBOUR.len()..NEIGHBOUR.len() + message.len();
    let result = shape.rewrite(
        &mut bytes,
        range.start,
        range.clone(),
        head.action,
        head.row_at,
    );
    assert_eq!(&bytes[..range.start], NEIGHBOUR);
    assert_eq!(&bytes[range.end..], NEIGHBOUR);
    match result {
        Ok(tuples) => {
            let read = |tuple: Option<Range<usize>>| {
                tuple.map(|tuple| {
                    assert!(range.start <= tuple.start && tuple.end <= range.end);
                    read_tuple(&bytes, tuple)
                })
            };
            Ok(format!(
                "{:?} {:?}",
                read(tuples.before),
                read(tuples.after)
            ))
        }
        Err(error) => {
            assert_eq!(&bytes[range], message, "{error}");
            match error {
                RowError::Decode(error) => Err(error),
                other => Ok(format!("{other:?}")),
            }
        }
    }
}

fn damage(name: &str, plugin: Plugin, share: Share) {
    let mut random = Random(0x5eed_0004);
    let mut refused = 0_usize;
    let mut tried = 0_usize;
    for (body, depth) in bodies(name, share, &mut random) {
        let mut shape = None;
        let whole = read(&body, plugin, &mut shape);
        assert!(whole.is_ok(), "{name}: {whole:?}");
        for at in places(body.len(), depth, &mut random) {
            // Cut: never the same row as before, and an error inside the message. A prefix that is complete by itself does not exist.
            let cut = read(&body[..at], plugin, &mut shape);
            let error = cut.expect_err("a cut message");
            assert!(error.at <= at as u64, "{error} in {at} bytes");
            for flip in [1 << random.below(8), 0xff] {
                let mut bytes = body.clone();
                bytes[at] ^= flip;
                tried += 1;
                match read(&bytes, plugin, &mut shape) {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(error.at <= body.len() as u64, "{error}");
                        refused += 1;
                    }
                }
            }
        }
        // What was remembered of damaged messages spoils no other.
        assert_eq!(read(&body, plugin, &mut shape), whole);
    }
    assert!(refused > tried / 20, "{refused} of {tried} refused");
}

#[test]
fn pgoutput_of_the_workload() {
    damage("postgres-15-20k", Plugin::PgOutput, Share::EveryMessage);
}

#[test]
fn pgoutput_of_all_types() {
    damage("postgres-15-types", Plugin::PgOutput, Share::EveryMessage);
}

#[test]
fn wal2json_of_the_workload() {
    damage(
        "postgres-15-wal2json-20k",
        Plugin::Wal2Json,
        Share::EveryMessage,
    );
}

#[test]
fn wal2json_of_all_types() {
    damage(
        "postgres-15-wal2json-types",
        Plugin::Wal2Json,
        Share::EveryMessage,
    );
}

#[test]
fn pgoutput_large() {
    damage("postgres-15-1m", Plugin::PgOutput, Share::SomeMessages);
}

#[test]
fn pgoutput_of_whole_rows() {
    damage(
        "postgres-15-full-50k",
        Plugin::PgOutput,
        Share::SomeMessages,
    );
}

#[test]
fn wal2json_large() {
    damage(
        "postgres-15-wal2json-100k",
        Plugin::Wal2Json,
        Share::SomeMessages,
    );
}
