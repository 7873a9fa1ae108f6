//! LZ4 blocks, compressed with the encoder's help: it says where a text begins that most likely stood in the record before, too.
//!
//! ```text
//!  block     { token · [literal length] · literals · u16 LE distance · [match length] } … token · [literal length] · literals
//!  token     literal length (15: more follows) << 4 | match length - 4 (15: more follows)
//!  length    255 … · the rest, below 255
//! ```
//! The last five bytes are literals, and the last match begins twelve bytes before the end or earlier
//! (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>).
//!
//! Where the time goes is not comparing bytes but finding out where matches begin and end: every such branch that the processor does
//! not foresee costs as much as comparing a few hundred bytes. An [`Anchor`] saves the search, and the short accidental
//! matches before it. It is a hint only: what stands there is compared, so that no anchor can make a wrong block.

/// Kinds of texts that [`Anchor`]s distinguish.
pub(crate) const KINDS: usize = 8;
/// Most bytes of a block: positions have 16 bits, and a match may be as far away as that.
pub(super) const BLOCK_MAX: usize = u16::MAX as usize;

/// A place where a text begins that probably stood at the anchor of the same kind before, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Position in the input.
    pub(crate) at: u32,
    /// Below [`KINDS`]; others are ignored.
    pub(crate) kind: u8,
}

/// Where four bytes stood last, by their hash. 8 KiB: it shares the first-level cache with the block.
type Table = [u16; TABLE_LEN];

const TABLE_BITS: u32 = 12;
const TABLE_LEN: usize = 1 << TABLE_BITS;
/// Shortest match of the format, and what is searched for.
const MATCH_MIN: usize = 4;
/// Shortest match that an anchor makes.
const ANCHORED_MIN: usize = 8;
/// The search begins no match so few bytes before an anchor: the anchor's match reaches back over them mostly.
const BEFORE_ANCHOR: usize = 12;
/// Literals at the end of a block.
const LAST_LITERALS: usize = 5;
/// No match is begun within so many bytes of the end: the format's twelve, and room to read words.
const SEARCH_END: usize = 16;
/// After so many positions without a match the search looks at every second one, then at every third.
const SKIP_BITS: u32 = 5;
/// A length that its half of the token cannot hold.
const LENGTH_MORE: usize = 15;

/// A block with whatever lies behind it: every position of 16 bits has a word of bytes, so that reading it needs no check.
type Window = [u8; WINDOW_LEN];
const WINDOW_LEN: usize = (1 << 16) + 64;

/// Room for a compressed block. A block grows by a byte in 255 at most; that positions are cut to 17 bits saves their checks.
type Output = [u8; OUTPUT_LEN];
const OUTPUT_LEN: usize = OUTPUT_MASK + 1 + ROOM;
const OUTPUT_MASK: usize = (1 << 17) - 1;
/// Bytes of output that a sequence of short literals writes at once, needed or not.
const ROOM: usize = 32;

/// The compressor's memory, reused from block to block.
pub(crate) struct Lz4 {
    table: Box<Table>,
    /// Holds a block that has too little behind it for a window.
    window: Box<Window>,
    output: Box<Output>,
}

impl Lz4 {
    pub(super) fn new() -> Self {
        Self {
            table: zeroed(),
            window: zeroed(),
            output: zeroed(),
        }
    }

    /// Compresses the first `length` bytes of `input`, at most [`BLOCK_MAX`]; `None` where there are more or `input` has fewer.
    /// `anchors` are in the order of their positions.
    pub(super) fn compress(
        &mut self,
        input: &[u8],
        length: usize,
        anchors: impl Iterator<Item = Anchor>,
    ) -> Option<&[u8]> {
        let Self {
            table,
            window,
            output,
        } = self;
        let window = match input.first_chunk() {
            Some(window) => window,
            None => {
                let block = input.get(..length)?;
                window.get_mut(..length)?.copy_from_slice(block);
                &*window
            }
        };
        let compressed = compress(window, length, anchors, table, output)?;
        output.get(..compressed)
    }
}

/// Memory that the system gives when it is first written to: small batches never need most of it.
fn zeroed<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    let zeros = vec![T::default(); N].into_boxed_slice().try_into();
    zeros.unwrap_or_else(|_| Box::new([T::default(); N]))
}

/// Compresses the first `length` bytes of `input` (at most [`BLOCK_MAX`]) into `out` and returns how many bytes that gave.
/// `anchors` are in the order of their positions. `None`: the length is beyond that.
#[inline(never)]
fn compress(
    input: &Window,
    length: usize,
    anchors: impl Iterator<Item = Anchor>,
    table: &mut Table,
    out: &mut Output,
) -> Option<usize> {
    if length > BLOCK_MAX {
        return None;
    }
    let limit = length.saturating_sub(LAST_LITERALS);
    let mut writer = Writer { out, at: 0 };
    let mut literals = 0;
    if let Some(search_end) = length.checked_sub(SEARCH_END) {
        table.fill(0);
        let mut anchors = Anchors::new(anchors);
        let mut anchor = anchors.next(0);
        let mut at = 1;
        while let Some(found) = search(input, at, search_end, &anchor, table) {
            let (mut start, candidate, end) = match found {
                Found::Match { start, candidate } => {
                    let end = end_of_match(input, limit, start + MATCH_MIN, candidate + MATCH_MIN);
                    (start, candidate, end)
                }
                Found::Anchor(passed) => {
                    let (start, candidate) = (anchor.at, anchor.candidate);
                    anchor = anchors.next(literals);
                    let end = end_of_match(input, limit, start, candidate);
                    if end < start + ANCHORED_MIN {
                        at = passed;
                        continue;
                    }
                    (start, candidate, end)
                }
            };
            let distance = start - candidate;
            start -= common_before(input, start, candidate).min(start - literals);
            writer.sequence(input, literals, start, distance, end - start)?;
            if anchor.at < end {
                anchor = anchors.next(end);
            }
            remember(input, end - 2, table);
            at = end;
            literals = end;
        }
    }
    writer.last_literals(input.get(literals..length)?)?;
    Some(writer.at)
}

enum Found {
    /// Four bytes at `start` stand at `candidate`, too.
    Match { start: usize, candidate: usize },
    /// Nothing before the anchor; where the search has got to.
    Anchor(usize),
}

/// Looks for a match from `at` on. `None`: there is none, and no anchor before `end`.
#[inline(always)]
fn search(
    input: &Window,
    mut at: usize,
    end: usize,
    anchor: &Target,
    table: &mut Table,
) -> Option<Found> {
    let bound = end.min(anchor.at.saturating_sub(BEFORE_ANCHOR));
    let mut tries = 1 << SKIP_BITS;
    while at <= bound {
        let bytes = chunk::<MATCH_MIN>(input, at);
        let place = table.get_mut(hash(*bytes))?;
        let candidate = usize::from(*place);
        *place = at as u16;
        if chunk(input, candidate) == bytes {
            return Some(Found::Match {
                start: at,
                candidate,
            });
        }
        at += tries >> SKIP_BITS;
        tries += 1;
    }
    (anchor.at <= end).then_some(Found::Anchor(at))
}

#[inline(always)]
fn remember(input: &Window, at: usize, table: &mut Table) {
    if let Some(place) = table.get_mut(hash(*chunk(input, at))) {
        *place = at as u16;
    }
}

/// Knuth's: the golden ratio's bits spread those of the four bytes upwards.
#[inline(always)]
fn hash(bytes: [u8; MATCH_MIN]) -> usize {
    (u32::from_le_bytes(bytes).wrapping_mul(2_654_435_761) >> (32 - TABLE_BITS)) as usize
}

/// The bytes at `at`.
#[inline(always)]
fn chunk<const N: usize>(input: &Window, at: usize) -> &[u8; N] {
    const { assert!(N <= WINDOW_LEN - (1 << 16)) };
    let at = usize::from(at as u16);
    input
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .unwrap_or(&[0; N])
}

/// The eight bytes at `at`, the first one lowest.
#[inline(always)]
fn word(input: &Window, at: usize) -> u64 {
    u64::from_le_bytes(*chunk(input, at))
}

/// Where the text at `at` ceases to equal that at `before`.
#[inline(always)]
fn end_of_match(input: &Window, limit: usize, at: usize, before: usize) -> usize {
    if at + 16 > limit {
        return end_of_long_match(input, limit, at, before);
    }
    // Most matches are short; an unforeseen number of rounds of a loop costs more than both words.
    let differs = word(input, at) ^ word(input, before);
    if differs != 0 {
        return at + differs.trailing_zeros() as usize / 8;
    }
    let differs = word(input, at + 8) ^ word(input, before + 8);
    if differs != 0 {
        return at + 8 + differs.trailing_zeros() as usize / 8;
    }
    end_of_long_match(input, limit, at + 16, before + 16)
}

#[inline(always)]
fn end_of_long_match(input: &Window, limit: usize, at: usize, before: usize) -> usize {
    const WIDE: usize = 32;
    let (mut at, mut before) = (at, before);
    while at + WIDE <= limit {
        if chunk::<WIDE>(input, at) != chunk::<WIDE>(input, before) {
            break;
        }
        at += WIDE;
        before += WIDE;
    }
    while at + 8 <= limit {
        let differs = word(input, at) ^ word(input, before);
        if differs != 0 {
            return at + differs.trailing_zeros() as usize / 8;
        }
        at += 8;
        before += 8;
    }
    while at < limit && chunk::<1>(input, at) == chunk::<1>(input, before) {
        at += 1;
        before += 1;
    }
    at
}

/// How many bytes before both places are equal, of seven.
#[inline(always)]
fn common_before(input: &Window, at: usize, before: usize) -> usize {
    if before < 8 {
        return 0;
    }
    let differs = word(input, at - 8) ^ word(input, before - 8);
    // Seven at most: by that bit the instruction needs no case for zero.
    (differs | 1).leading_zeros() as usize / 8
}

/// An anchor that has a predecessor; beyond everything where there is none.
struct Target {
    at: usize,
    candidate: usize,
}

/// The anchors that have one of their kind before them.
struct Anchors<I> {
    anchors: I,
    last: [u32; KINDS],
}

impl<I: Iterator<Item = Anchor>> Anchors<I> {
    fn new(anchors: I) -> Self {
        Self {
            anchors,
            last: [u32::MAX; KINDS],
        }
    }

    /// The first that does not lie before `from`.
    #[inline(always)]
    fn next(&mut self, from: usize) -> Target {
        for Anchor { at, kind } in self.anchors.by_ref() {
            let Some(last) = self.last.get_mut(usize::from(kind)) else {
                continue;
            };
            let candidate = std::mem::replace(last, at);
            if at as usize >= from && candidate < at {
                return Target {
                    at: at as usize,
                    candidate: candidate as usize,
                };
            }
        }
        Target {
            at: usize::MAX,
            candidate: 0,
        }
    }
}

struct Writer<'a> {
    out: &'a mut Output,
    at: usize,
}

impl Writer<'_> {
    /// The literals from `literals` to `start`, and a match of `length` bytes at `distance`.
    #[inline(always)]
    fn sequence(
        &mut self,
        input: &Window,
        literals: usize,
        start: usize,
        distance: usize,
        length: usize,
    ) -> Option<()> {
        let literal_len = start - literals;
        let more = length - MATCH_MIN;
        if literal_len >= LENGTH_MORE {
            self.long_literals(input.get(literals..start)?, more)?;
            return self.match_end(distance, more);
        }
        // Sixteen bytes are copied in place of as many as there are: that is one instruction, and what is too much is
        // overwritten.
        let text = chunk::<16>(input, literals);
        let (token, place) = self.place::<ROOM>()?.split_first_mut()?;
        *token = (literal_len << 4 | more.min(LENGTH_MORE)) as u8;
        *place.first_chunk_mut()? = *text;
        self.at += 1 + literal_len;
        self.match_end(distance, more)
    }

    #[inline(always)]
    fn match_end(&mut self, distance: usize, more: usize) -> Option<()> {
        let place = self.place::<4>()?;
        let [low, high] = (distance as u16).to_le_bytes();
        if more < LENGTH_MORE {
            *place = [low, high, 0, 0];
            self.at += 2;
        } else if more < LENGTH_MORE + 255 {
            *place = [low, high, (more - LENGTH_MORE) as u8, 0];
            self.at += 3;
        } else if more < LENGTH_MORE + 2 * 255 {
            *place = [low, high, 255, (more - LENGTH_MORE - 255) as u8];
            self.at += 4;
        } else {
            *place = [low, high, 0, 0];
            self.at += 2;
            self.length(more - LENGTH_MORE)?;
        }
        Some(())
    }

    /// The next bytes to be written.
    #[inline(always)]
    fn place<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        const { assert!(N <= ROOM) };
        let at = self.at & OUTPUT_MASK;
        self.out.get_mut(at..)?.first_chunk_mut()
    }

    #[cold]
    fn long_literals(&mut self, literals: &[u8], more: usize) -> Option<()> {
        *self.out.get_mut(self.at)? = (LENGTH_MORE << 4 | more.min(LENGTH_MORE)) as u8;
        self.at += 1;
        self.length(literals.len() - LENGTH_MORE)?;
        self.copy(literals)
    }

    fn last_literals(&mut self, literals: &[u8]) -> Option<()> {
        if literals.len() >= LENGTH_MORE {
            return self.long_literals(literals, 0);
        }
        *self.out.get_mut(self.at)? = (literals.len() << 4) as u8;
        self.at += 1;
        self.copy(literals)
    }

    fn copy(&mut self, literals: &[u8]) -> Option<()> {
        let end = self.at + literals.len();
        self.out.get_mut(self.at..end)?.copy_from_slice(literals);
        self.at = end;
        Some(())
    }

    /// What a length exceeds its half of the token by.
    #[cold]
    fn length(&mut self, more: usize) -> Option<()> {
        let end = self.at + more / 255;
        self.out.get_mut(self.at..end)?.fill(255);
        *self.out.get_mut(end)? = (more % 255) as u8;
        self.at = end + 1;
        Some(())
    }
}

#[cfg(test)]
mod tests;
