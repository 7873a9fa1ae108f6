//! MySQL's GTIDs: transaction numbers as intervals per source, with the encoding of COM_BINLOG_DUMP_GTID and PREVIOUS_GTIDS.
//!
//! ```text
//! untagged  u64 sources { 16 uuid, u64 intervals { u64 first, u64 last + 1 } }
//! tagged    u64 1 << 56 | sources << 8 | 1 { 16 uuid, u8 tag length << 1, tag, u64 intervals { … } }      8.3 and later
//! ```
//! A set without tags is always written in the first form, which every server reads. Source: `sql/rpl_gtid_set.cc`,
//! `encode_nsids_format`; the tag's length is the first byte of MySQL's variable-length integer, which for up to 32 is `n << 1`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::InvalidGtid;
use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};

/// Highest transaction number (the server's `GNO_END` − 1).
const NUMBER_MAX: u64 = i64::MAX as u64 - 1;

/// A server's UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// 32 hexadecimal digits of either case, with the usual dashes or none.
impl FromStr for Uuid {
    type Err = InvalidGtid;

    fn from_str(text: &str) -> Result<Self, InvalidGtid> {
        let dashes = text.bytes().enumerate().filter(|(_, b)| *b == b'-');
        let usual = [8, 13, 18, 23];
        if !matches!(text.len(), 32 | 36)
            || !dashes
                .map(|(at, _)| at)
                .eq(usual.into_iter().filter(|_| text.len() == 36))
        {
            return Err(InvalidGtid);
        }
        let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(InvalidGtid);
            };
            *byte = u8::try_from(high << 4 | low).map_err(|_| InvalidGtid)?;
        }
        Ok(Self(bytes))
    }
}

/// A GTID's tag: up to 32 of `a-z 0-9 _`, not starting with a digit; empty for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag {
    // Zero-padded, so that the derived order is the text's order.
    text: [u8; 32],
    length: u8,
}

impl Tag {
    /// No tag.
    pub const NONE: Self = Self {
        text: [0; 32],
        length: 0,
    };

    /// The tag of these bytes (empty: none); upper case is folded, as the server does. `None` when it is not a tag.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut tag = Self {
            text: [0; 32],
            length: u8::try_from(bytes.len()).ok()?,
        };
        if bytes.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        for (i, byte) in bytes.iter().enumerate() {
            if !byte.is_ascii_alphanumeric() && *byte != b'_' {
                return None;
            }
            *tag.text.get_mut(i)? = byte.to_ascii_lowercase();
        }
        Some(tag)
    }

    /// Its text; empty for none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self
            .text
            .get(..usize::from(self.length))
            .unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.length == 0
    }
}

/// What numbers transactions: a server, or a tag on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SourceId {
    /// The server's UUID.
    pub uuid: Uuid,
    /// The tag, [`Tag::NONE`] for plain GTIDs.
    pub tag: Tag,
}

impl SourceId {
    /// A source without a tag.
    #[must_use]
    pub const fn untagged(uuid: [u8; 16]) -> Self {
        Self {
            uuid: Uuid(uuid),
            tag: Tag::NONE,
        }
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)?;
        match self.tag.is_none() {
            true => Ok(()),
            false => write!(f, ":{}", self.tag.as_str()),
        }
    }
}

impl FromStr for SourceId {
    type Err = InvalidGtid;

    fn from_str(text: &str) -> Result<Self, InvalidGtid> {
        let (uuid, tag) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            uuid: uuid.parse()?,
            tag: Tag::new(tag.as_bytes()).ok_or(InvalidGtid)?,
        })
    }
}

/// Numbers `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Interval {
    first: u64,
    last: u64,
}

/// One source's numbers: ascending, disjoint, never adjacent, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Source {
    id: SourceId,
    intervals: Vec<Interval>,
}

/// A set of MySQL transactions: intervals per source, in the order of sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct IntervalSet {
    sources: Vec<Source>,
}

impl IntervalSet {
    /// Whether no transaction is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Every interval, in the order of sources and numbers.
    pub fn intervals(&self) -> impl Iterator<Item = (SourceId, RangeInclusive<u64>)> + '_ {
        self.sources.iter().flat_map(|source| {
            let each = source.intervals.iter();
            each.map(|interval| (source.id, interval.first..=interval.last))
        })
    }

    /// Adds transaction `number` of `source`. Numbers outside 1 ..= 2^63 − 2 do not exist and are ignored.
    pub fn add(&mut self, source: &SourceId, number: u64) {
        if let Ok(at) = self.find(source)
            && let Some(last) = self
                .sources
                .get_mut(at)
                .and_then(|s| s.intervals.last_mut())
            && last.last + 1 == number
            && number <= NUMBER_MAX
        {
            last.last = number;
            return;
        }
        self.add_range(source, number, number);
    }

    /// Adds transactions `first..=last` of `source`, within the numbers that exist.
    pub fn add_range(&mut self, source: &SourceId, first: u64, last: u64) {
        let (first, last) = (first.max(1), last.min(NUMBER_MAX));
        if first > last {
            return;
        }
        let at = self.find(source).unwrap_or_else(|at| {
            let new = Source {
                id: *source,
                intervals: Vec::new(),
            };
            self.sources.insert(at, new);
            at
        });
        if let Some(source) = self.sources.get_mut(at) {
            source.add(first, last);
        }
    }

    /// Adds every transaction of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (source, range) in other.intervals() {
            self.add_range(&source, *range.start(), *range.end());
        }
    }

    /// Whether transaction `number` of `source` is in it.
    #[must_use]
    pub fn contains(&self, source: &SourceId, number: u64) -> bool {
        self.contains_range(source, number, number)
    }

    /// Whether everything in it is in `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.intervals()
            .all(|(source, range)| other.contains_range(&source, *range.start(), *range.end()))
    }

    /// Appends the encoding of COM_BINLOG_DUMP_GTID (see the top of this file).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let count = self.sources.len() as u64;
        let tagged = self.sources.iter().any(|source| !source.id.tag.is_none());
        let head = if tagged {
            1 << 56 | count << 8 | 1
        } else {
            count
        };
        out.extend_from_slice(&head.to_le_bytes());
        for source in &self.sources {
            out.extend_from_slice(&source.id.uuid.0);
            if tagged {
                out.push(source.id.tag.length << 1);
                out.extend_from_slice(source.id.tag.as_str().as_bytes());
            }
            out.extend_from_slice(&(source.intervals.len() as u64).to_le_bytes());
            for interval in &source.intervals {
                out.extend_from_slice(&interval.first.to_le_bytes());
                out.extend_from_slice(&(interval.last + 1).to_le_bytes());
            }
        }
    }

    /// Reads what [`IntervalSet::encode`] writes, all of `bytes`: the set of COM_BINLOG_DUMP_GTID or of a PREVIOUS_GTIDS event.
    ///
    /// # Errors
    /// Truncated or left-over bytes, an unknown format, intervals or tags that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let head = cursor.u64_le("GTID set count")?;
        let tagged = match head >> 56 {
            0 => false,
            1 => true,
            format => {
                return Err(DecodeError::new(
                    "GTID set format",
                    7,
                    DecodeErrorKind::Unsupported { value: format },
                ));
            }
        };
        let count = if tagged { (head << 8) >> 16 } else { head };
        let mut set = Self::default();
        // Each round reads at least 24 bytes, so that a lying count ends at the end of the bytes.
        for _ in 0..count {
            let uuid = *cursor.chunk::<16>("GTID set UUID")?;
            let mut tag = Tag::NONE;
            if tagged {
                let length = usize::from(cursor.u8("GTID tag length")? >> 1);
                let at = cursor.invalid("GTID tag", length as u64);
                tag = Tag::new(cursor.take(length, "GTID tag")?).ok_or(at)?;
            }
            let source = SourceId {
                uuid: Uuid(uuid),
                tag,
            };
            for _ in 0..cursor.u64_le("GTID interval count")? {
                let first = cursor.u64_le("GTID interval start")?;
                let end = cursor.u64_le("GTID interval end")?;
                if first == 0 || first >= end || end > NUMBER_MAX + 1 {
                    return Err(cursor.invalid("GTID interval", end));
                }
                set.add_range(&source, first, end - 1);
            }
        }
        cursor.finish("GTID set")?;
        Ok(set)
    }

    fn contains_range(&self, source: &SourceId, first: u64, last: u64) -> bool {
        let source = self.find(source).ok().and_then(|at| self.sources.get(at));
        source.is_some_and(|source| {
            let after = source.intervals.partition_point(|i| i.last < first);
            let interval = source.intervals.get(after);
            interval.is_some_and(|i| i.first <= first && last <= i.last)
        })
    }

    fn find(&self, source: &SourceId) -> Result<usize, usize> {
        self.sources.binary_search_by(|s| s.id.cmp(source))
    }
}

impl Source {
    fn add(&mut self, first: u64, last: u64) {
        // All intervals that touch or overlap the new one become one.
        let start = self.intervals.partition_point(|i| i.last + 1 < first);
        let end = self.intervals.partition_point(|i| i.first <= last + 1);
        let mut merged = Interval { first, last };
        if let Some(touching) = self.intervals.get(start..end)
            && let (Some(low), Some(high)) = (touching.first(), touching.last())
        {
            merged.first = merged.first.min(low.first);
            merged.last = merged.last.max(high.last);
        }
        self.intervals.splice(start..end, [merged]);
    }
}

/// As the server writes it: sources in order, a UUID once, its tags after its untagged numbers.
impl fmt::Display for IntervalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut uuid = None;
        for source in &self.sources {
            if uuid != Some(source.id.uuid) {
                let comma = if uuid.is_some() { "," } else { "" };
                write!(f, "{comma}{}", source.id.uuid)?;
                uuid = Some(source.id.uuid);
            }
            if !source.id.tag.is_none() {
                write!(f, ":{}", source.id.tag.as_str())?;
            }
            for Interval { first, last } in &source.intervals {
                match first == last {
                    true => write!(f, ":{first}")?,
                    false => write!(f, ":{first}-{last}")?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for IntervalSet {
    type Err = InvalidGtid;

    fn from_str(text: &str) -> Result<Self, InvalidGtid> {
        let mut set = Self::default();
        // Servers end lines after commas, and people leave commas at ends.
        for group in text.split(',').map(str::trim).filter(|g| !g.is_empty()) {
            let mut parts = group.split(':').map(str::trim);
            let mut source = SourceId {
                uuid: parts.next().ok_or(InvalidGtid)?.parse()?,
                tag: Tag::NONE,
            };
            let mut intervals = 0;
            for part in parts {
                if !part.starts_with(|c: char| c.is_ascii_digit()) {
                    source.tag = Tag::new(part.as_bytes()).ok_or(InvalidGtid)?;
                    if source.tag.is_none() {
                        return Err(InvalidGtid);
                    }
                    continue;
                }
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (parse_number(first)?, parse_number(last)?);
                if first > last {
                    return Err(InvalidGtid);
                }
                set.add_range(&source, first, last);
                intervals += 1;
            }
            if intervals == 0 {
                return Err(InvalidGtid);
            }
        }
        Ok(set)
    }
}

/// A transaction number.
pub(super) fn parse_number(text: &str) -> Result<u64, InvalidGtid> {
    let text = text.trim();
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidGtid);
    }
    let number = text.parse().map_err(|_| InvalidGtid)?;
    match (1..=NUMBER_MAX).contains(&number) {
        true => Ok(number),
        false => Err(InvalidGtid),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mysql_common::packets::{GnoInterval, Sid};
    use mysql_common::proto::MySerialize;
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> IntervalSet {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_the_servers() {
        let same = [
            String::new(),
            format!("{UUID}:1-5:7"),
            format!("{UUID}:1-5:a:3:b_1:2-4"),
            format!("{UUID}:tag:1,4e11fa47-71ca-11e1-9e33-c80aa9429562:9"),
        ];
        for text in same {
            assert_eq!(set(&text).to_string(), text);
        }
        let upper = UUID.to_uppercase();
        assert_eq!(
            set(&format!("{upper}:7-9 : 1-5,\n{UUID}:6:TAG:1,")).to_string(),
            format!("{UUID}:1-9:tag:1")
        );
        for text in [
            "x",
            UUID,
            "3e11:1",
            &format!("{UUID}:5-1"),
            &format!("{UUID}:0"),
            &format!("{UUID}:t"),
        ] {
            assert_eq!(text.parse::<IntervalSet>(), Err(InvalidGtid), "{text}");
        }
    }

    #[test]
    fn subset_and_contains() {
        let big = set(&format!("{UUID}:1-10:20-30:t:1-2"));
        assert!(set(&format!("{UUID}:2-3:25:t:2")).is_subset(&big));
        assert!(!set(&format!("{UUID}:10-20")).is_subset(&big));
        assert!(!set(&format!("{UUID}:u:1")).is_subset(&big));
        let source = UUID.parse().unwrap();
        assert!(big.contains(&source, 10) && !big.contains(&source, 11));
    }

    #[test]
    fn hostile_encodings_are_errors() {
        let mut bytes = Vec::new();
        set(&format!("{UUID}:1-5:t:7-9")).encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(IntervalSet::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let lying = u64::MAX >> 8;
        assert!(IntervalSet::decode(&lying.to_le_bytes()).is_err());
        assert!(IntervalSet::decode(&(2u64 << 56).to_le_bytes()).is_err());
    }

    fn numbers() -> impl Strategy<Value = Vec<(u8, u8, u64, u64)>> {
        let one = (0u8..2, 0u8..3, 1u64..60, 0u64..8);
        proptest::collection::vec(one, 0..40)
    }

    fn source(uuid: u8, tag: u8) -> SourceId {
        let tags = ["", "a", "tag_2"];
        SourceId {
            uuid: Uuid([uuid; 16]),
            tag: Tag::new(tags[usize::from(tag)].as_bytes()).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(ranges in numbers(), more in numbers()) {
            let mut model = BTreeSet::new();
            let (mut ours, mut other) = (IntervalSet::default(), IntervalSet::default());
            for (uuid, tag, first, width) in ranges {
                ours.add_range(&source(uuid, tag), first, first + width);
                model.extend((first..=first + width).map(|n| (source(uuid, tag), n)));
            }
            for (uuid, tag, first, _) in more {
                ours.add(&source(uuid, tag), first);
                other.add(&source(uuid, tag), first);
                model.insert((source(uuid, tag), first));
            }
            let flat: BTreeSet<_> = ours.intervals().flat_map(|(id, r)| r.map(move |n| (id, n))).collect();
            prop_assert_eq!(&flat, &model);
            prop_assert!(other.is_subset(&ours));
            prop_assert_eq!(ours.is_subset(&other), ours == other);
            let mut merged = other.clone();
            merged.merge(&ours);
            prop_assert_eq!(&merged, &ours);
            prop_assert_eq!(&set(&ours.to_string()), &ours);
            let mut bytes = Vec::new();
            ours.encode(&mut bytes);
            prop_assert_eq!(IntervalSet::decode(&bytes).unwrap(), ours);
        }

        #[test]
        fn encodes_as_mysql_common(ranges in numbers()) {
            let mut ours = IntervalSet::default();
            for (uuid, _, first, width) in ranges {
                ours.add_range(&source(uuid, 0), first, first + width);
            }
            let mut theirs = (ours.sources.len() as u64).to_le_bytes().to_vec();
            for s in &ours.sources {
                let intervals = s.intervals.iter().map(|i| GnoInterval::new(i.first, i.last + 1));
                Sid::new(s.id.uuid.0).with_intervals(intervals.collect()).serialize(&mut theirs);
            }
            let mut bytes = Vec::new();
            ours.encode(&mut bytes);
            prop_assert_eq!(bytes, theirs);
        }
    }
}
