//! Damaged events: frames of the recordings cut at their bytes, and bytes flipped.
//!
//! With a checksum each damage is an error that names the event's kind and a place inside it. Without one (stripped here)
//! anything may come out, but nothing panics, nothing is read outside the event, and rows before the damage stay what they are.
//!
//! Of the small recordings every frame is damaged: with a checksum at each of its bytes; without one (where a damaged frame is read to its
//! end) the first ones of each kind and size at each byte up to [`EXHAUSTED_BYTES`] and at seeded places of larger frames, more of the same
//! at a few seeded places. Of the large recordings seeded frames are damaged at seeded places. So the test's time is bounded.

use std::collections::{HashMap, HashSet};

use fixtures::Recording;
use protocol::mysql::event::{Checksum, Format, Header, Kind, Message};
use protocol::mysql::rows::{Image, RowSpans, Rows};
use protocol::mysql::table_map::Description;
use protocol::{DecodeError, Span};

/// Frames without a checksum are damaged at every byte up to this size.
const EXHAUSTED_BYTES: usize = 400;
/// Places tried in each larger frame without a checksum.
const SAMPLES: usize = 24;
/// Frames of one kind and about one size that are damaged thoroughly without a checksum, too.
const ALIKE_MAX: usize = 6;
/// Places tried in each of the others.
const FEW: usize = 2;
/// Of so many frames of a large recording one is damaged.
const ONE_OF: usize = 61;

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

/// How a frame is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Thorough,
    AtFewPlaces,
}

fn places(length: usize, depth: Depth, exhausted: usize, random: &mut Random) -> Vec<usize> {
    if depth == Depth::AtFewPlaces {
        return (0..FEW).map(|_| random.below(length)).collect();
    }
    if length <= exhausted {
        return (0..length).collect();
    }
    // The header and the last bytes always, the rest by chance.
    let mut places: Vec<usize> = (0..40).chain(length - 8..length).collect();
    places.extend((0..SAMPLES).map(|_| random.below(length)));
    places
}

/// The tables that the stream has described so far.
type Tables = HashMap<u64, Description>;

/// Everything a reader would do with an event. Rows and values are read to the first error.
fn read(format: &Format, event: &[u8], tables: &Tables) -> Result<Vec<String>, DecodeError> {
    let mut seen = Vec::new();
    let (header, message) = Message::parse(format, event)?;
    match &message {
        Message::TableMap(map) => seen.push(format!("{:?}", map.describe()?)),
        Message::Rows(rows) => {
            if let Some(table) = tables.get(&rows.table_id) {
                read_rows(rows, table, &mut seen)?;
            }
        }
        Message::TransactionPayload(payload) => {
            let mut out = Vec::new();
            let mut events = payload.events()?;
            while events.read_into(&mut out, 1 << 16, 1 << 20)? > 0 {
                // A damaged frame may expand to a lot: a reader takes it in pieces, and gives up on none of them.
                seen.push(out.len().to_string());
                out.clear();
            }
        }
        Message::Compressed(compressed) => {
            let mut out = Vec::new();
            compressed.expand(&mut out)?;
            seen.push(format!("{out:?}"));
        }
        Message::Query(query) => seen.push(format!("{:?}", query.recognise())),
        _ => {}
    }
    seen.push(format!("{header:?} {message:?}"));
    Ok(seen)
}

fn read_rows(
    rows: &Rows<'_>,
    table: &Description,
    seen: &mut Vec<String>,
) -> Result<(), DecodeError> {
    for row in rows.walk(&table.columns)? {
        let RowSpans { before, after } = row?;
        let mut text = String::new();
        for (present, span, partial) in [
            (rows.columns_before, before, false),
            (rows.columns_after, after, rows.partial),
        ] {
            if span == Span::NONE {
                continue;
            }
            let bytes = rows.bytes();
            let image = span.of(bytes).expect("spans lie within the event");
            let present = present.of(bytes).expect("spans lie within the event");
            let mut image = if partial {
                Image::partial(&table.columns, present, image)?
            } else {
                Image::new(&table.columns, present, image)?
            };
            while let Some(value) = image.next()? {
                text += &format!("{value:?} ");
            }
        }
        seen.push(text);
    }
    Ok(())
}

/// Rows that a reader gets before an error stops it.
fn rows_before_error(format: &Format, event: &[u8], tables: &Tables) -> Vec<String> {
    let mut seen = Vec::new();
    if let Ok((_, Message::Rows(rows))) = Message::parse(format, event)
        && let Some(table) = tables.get(&rows.table_id)
    {
        let _ = read_rows(&rows, table, &mut seen);
    }
    seen
}

fn has_old_temporals(table: &Description) -> bool {
    use protocol::mysql::ColumnType::{DateTime, Time, Timestamp};
    table.columns.iter().any(|column| {
        matches!(
            column.kind,
            Time { old: true, .. } | DateTime { old: true, .. } | Timestamp { old: true, .. }
        )
    })
}

/// The event without its checksum, its length mended.
fn stripped(event: &[u8]) -> Vec<u8> {
    let mut plain = event[..event.len() - 4].to_vec();
    let length = plain.len() as u32;
    plain[9..13].copy_from_slice(&length.to_le_bytes());
    plain
}

/// How much of a recording is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    EveryFrame,
    SomeFrames,
}

fn damage(name: &str, share: Share) {
    let recording = Recording::named(name).unwrap();
    let mut stream = recording.events().unwrap();
    let mut random = Random(20_250_217);
    let mut format = Format::before_description(Checksum::Crc32);
    let mut tables = Tables::new();
    let mut alike: HashMap<(Kind, usize), usize> = HashMap::new();
    let mut distinct = HashSet::new();
    let (mut frames, mut damages) = (0, 0);
    while let Some(event) = stream.next_event().unwrap() {
        let header = Header::parse(event).unwrap();
        let count = alike.entry((header.kind, event.len() / 64)).or_default();
        *count += 1;
        let depth = match share {
            Share::EveryFrame if *count <= ALIKE_MAX && distinct.insert(event[4..].to_vec()) => {
                Some(Depth::Thorough)
            }
            Share::EveryFrame => Some(Depth::AtFewPlaces),
            Share::SomeFrames => (random.below(ONE_OF) == 0).then_some(Depth::AtFewPlaces),
        };
        if let Some(depth) = depth {
            frames += 1;
            let checked = match share {
                Share::EveryFrame => Depth::Thorough,
                Share::SomeFrames => depth,
            };
            damages += with_checksum(&format, event, &tables, checked, &mut random);
            if header.kind != Kind::FORMAT_DESCRIPTION {
                damages += without_checksum(&format, event, &tables, depth, &mut random);
            }
        }
        match Message::parse(&format, event).unwrap().1 {
            Message::FormatDescription(described) => format = described,
            Message::TableMap(map) => {
                tables.insert(map.table_id, map.describe().unwrap());
            }
            _ => {}
        }
    }
    println!("{name}: {frames} frames, {damages} damages");
    assert!(frames > 5 && damages > 1000);
}

fn with_checksum(
    format: &Format,
    event: &[u8],
    tables: &Tables,
    depth: Depth,
    random: &mut Random,
) -> usize {
    // MariaDB's old temporal types with fractions: only `information_schema` knows their width, which nobody asks here.
    let Ok(whole) = read(format, event, tables) else {
        assert!(tables.values().any(has_old_temporals));
        return 0;
    };
    let mut damages = 0;
    let mut damaged = event.to_vec();
    for at in places(event.len(), depth, usize::MAX, random) {
        let error = read(format, &event[..at], tables).unwrap_err();
        assert!(error.at <= event.len() as u64, "cut at {at}: {error}");
        damaged[at] ^= 1 << random.below(8);
        let found = read(format, &damaged, tables);
        damaged[at] = event[at];
        match found {
            Err(error) => {
                assert!(
                    !error.what.is_empty() && error.at <= event.len() as u64,
                    "{error}"
                );
            }
            // The in-use flag is not part of FORMAT_DESCRIPTION's checksum.
            Ok(_) => assert!(
                event[4] == Kind::FORMAT_DESCRIPTION.0 && at == 17,
                "byte {at} of {} changed unnoticed: {whole:?}",
                Kind(event[4])
            ),
        }
        damages += 2;
    }
    damages
}

fn without_checksum(
    format: &Format,
    event: &[u8],
    tables: &Tables,
    depth: Depth,
    random: &mut Random,
) -> usize {
    let format = format.without_checksum();
    let event = stripped(event);
    let rows = rows_before_error(&format, &event, tables);
    let mut damages = 0;
    for at in places(event.len(), depth, EXHAUSTED_BYTES, random) {
        // Cut, with the header's length mended: what is left must not be taken for more.
        if at >= 19 {
            let mut cut = event[..at].to_vec();
            cut[9..13].copy_from_slice(&(at as u32).to_le_bytes());
            let _ = read(&format, &cut, tables);
            // Rows of a cut event are the first ones of the whole.
            let got = rows_before_error(&format, &cut, tables);
            if !rows.is_empty() {
                assert!(got.len() <= rows.len());
                assert_eq!(got[..], rows[..got.len()], "cut at {at}");
            }
        }
        let mut damaged = event.clone();
        damaged[at] ^= 1 << random.below(8);
        let _ = read(&format, &damaged, tables);
        let got = rows_before_error(&format, &damaged, tables);
        unharmed_before(&format, &event, tables, at, &rows, &got);
        damages += 2;
    }
    damages
}

/// Rows that end before the damaged byte are what they were (unless it stands in the header of the event, which they depend on).
fn unharmed_before(
    format: &Format,
    event: &[u8],
    tables: &Tables,
    at: usize,
    rows: &[String],
    got: &[String],
) {
    let Ok((_, Message::Rows(parsed))) = Message::parse(format, event) else {
        return;
    };
    let table = match tables.get(&parsed.table_id) {
        Some(table) if !has_old_temporals(table) => table,
        _ => return,
    };
    let bitmaps = [parsed.columns_before, parsed.columns_after];
    let head = bitmaps
        .iter()
        .filter(|span| !span.is_none())
        .map(|span| span.end as usize)
        .max()
        .unwrap_or(0);
    if at < head {
        return;
    }
    let ends = parsed
        .walk(&table.columns)
        .unwrap()
        .map(Result::unwrap)
        .map(|row| {
            let last = if row.after.is_none() {
                row.before
            } else {
                row.after
            };
            last.end as usize
        });
    let unharmed = ends.take_while(|end| *end <= at).count();
    assert!(got.len() >= unharmed, "byte {at} took rows before it");
    assert_eq!(
        got[..unharmed],
        rows[..unharmed],
        "byte {at} changed rows before it"
    );
}

#[test]
fn mysql_5_6() {
    damage("mysql-5.6-20k", Share::EveryFrame);
}

#[test]
fn mysql_9_7() {
    damage("mysql-9.7-20k", Share::EveryFrame);
}

#[test]
fn mysql_9_7_types() {
    damage("mysql-9.7-types", Share::EveryFrame);
}

#[test]
fn mariadb_10_11() {
    damage("mariadb-10.11-20k", Share::EveryFrame);
}

#[test]
fn mariadb_10_11_types() {
    damage("mariadb-10.11-types", Share::EveryFrame);
}

#[test]
fn mysql_9_7_large() {
    damage("mysql-9.7-1m", Share::SomeFrames);
}
