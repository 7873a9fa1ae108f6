//! A reading position in JSON text. The ends of short strings and numbers are found by words of eight bytes, those of long strings by
//! `memchr`; what is not asked for is passed over.

use std::borrow::Cow;

use memchr::{memchr2, memmem};

use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::JSON_DEPTH_MAX;
use crate::postgres::position::Lsn;

/// A JSON string without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonText<'a> {
    raw: &'a [u8],
    at: usize,
    escaped: bool,
}

impl<'a> JsonText<'a> {
    pub(super) const EMPTY: Self = Self {
        raw: b"",
        at: 0,
        escaped: false,
    };

    /// The bytes between the quotes as they stand there: equal for equal texts, since the plugin escapes in one way.
    #[must_use]
    #[inline]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Where they begin, counted from the message's first byte.
    #[must_use]
    #[inline]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Whether there is an escape in them.
    #[must_use]
    #[inline]
    pub const fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// What the string means.
    #[must_use]
    pub fn unescaped(&self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut text = self.raw.to_vec();
        let length = unescape_in_place(&mut text, 0, 0, self.raw.len());
        text.truncate(length);
        Cow::Owned(text)
    }
}

/// Writes the JSON string contents at `from`, `length` bytes whose escapes have been checked, to `to`, which is not behind `from`, and
/// returns how many bytes they are without escapes.
pub(super) fn unescape_in_place(bytes: &mut [u8], from: usize, to: usize, length: usize) -> usize {
    let end = from.saturating_add(length);
    if to > from || bytes.get(from..end).is_none() {
        return 0;
    }
    // `write` never passes `read`: no escape is shorter than what it means.
    let (mut read, mut write) = (from, to);
    while read < end {
        let rest = bytes.get(read..end).unwrap_or_default();
        let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        bytes.copy_within(read..read + plain, write);
        read += plain;
        write += plain;
        if read >= end {
            break;
        }
        let escape = bytes.get(read..end).unwrap_or_default();
        let mut buffer = [0; 4];
        let (width, text): (usize, &[u8]) = match escape {
            [_, b'u', ..] => match unicode(escape) {
                Some((width, character)) => (width, character.encode_utf8(&mut buffer).as_bytes()),
                None => break,
            },
            [_, letter, ..] => (2, simple(*letter).unwrap_or(b"")),
            _ => break,
        };
        if let Some(place) = bytes.get_mut(write..write + text.len()) {
            place.copy_from_slice(text);
        }
        read += width;
        write += text.len();
    }
    write - to
}

const fn simple(letter: u8) -> Option<&'static [u8]> {
    Some(match letter {
        b'"' => b"\"",
        b'\\' => b"\\",
        b'/' => b"/",
        b'b' => b"\x08",
        b'f' => b"\x0c",
        b'n' => b"\n",
        b'r' => b"\r",
        b't' => b"\t",
        _ => return None,
    })
}

/// The `\uXXXX` that `bytes` start with, or the pair of them that makes a character, and its width.
fn unicode(bytes: &[u8]) -> Option<(usize, char)> {
    let unit = |bytes: &[u8]| -> Option<u32> {
        let [b'\\', b'u', digits @ ..] = bytes else {
            return None;
        };
        let digits = digits.first_chunk::<4>()?;
        digits.iter().try_fold(0, |value, digit| {
            Some(value << 4 | char::from(*digit).to_digit(16)?)
        })
    };
    let first = unit(bytes)?;
    if let Some(character) = char::from_u32(first) {
        return Some((6, character));
    }
    let second = unit(bytes.get(6..)?)?;
    char::decode_utf16([first, second].map(|unit| unit as u16))
        .next()?
        .ok()
        .map(|character| (12, character))
}

/// In each of a word's eight bytes, that one.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The index of the lowest byte of a little-endian word whose top bit is set.
const fn first(tops: u64) -> usize {
    (tops.trailing_zeros() / 8) as usize
}

/// The top bits of bytes that are zero. Bytes above the lowest of them may be wrong.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(each(1)) & !word & each(0x80)
}

/// How far short strings reach: what is longer is worth a call of `memchr`.
const SHORT: usize = 40;

/// The place of the first quote or backslash.
#[inline]
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < SHORT
        && let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk())
    {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ each(b'"')) | zeros(word ^ each(b'\\'));
        if found != 0 {
            return Some(at + first(found));
        }
        at += 8;
    }
    memchr2(b'"', b'\\', text.get(at..)?).map(|found| at + found)
}

/// How many decimal digits `text` begins with.
#[inline]
fn digits(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*word) ^ each(b'0');
        // 0 to 9 stay below 0x80. The low seven bits alone are added, so that no byte carries into its neighbour.
        let others = (word | (word & each(0x7f)).wrapping_add(each(0x76))) & each(0x80);
        if others != 0 {
            return at + first(others);
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The number of one to eight hexadecimal digits that `text` begins with, and how many those are.
#[inline]
fn hexadecimal(text: &[u8]) -> Option<(u64, usize)> {
    let (mut value, mut digits) = (0, 0);
    for byte in text.iter().take(9) {
        // Selected, not branched for: digits are as good as random.
        let (decimal, letter) = (byte.wrapping_sub(b'0'), (byte | 0x20).wrapping_sub(b'a'));
        let digit = if decimal < 10 {
            decimal
        } else {
            letter.saturating_add(10)
        };
        if digit > 15 {
            break;
        }
        value = value << 4 | u64::from(digit);
        digits += 1;
    }
    matches!(digits, 1..=8).then_some((value, digits))
}

/// The place in the log that `text` begins with (`16/B374D848`), and how many bytes it takes.
#[inline]
pub(super) fn leading_lsn(text: &[u8]) -> Option<(Lsn, usize)> {
    let (high, slash) = hexadecimal(text)?;
    let (b'/', rest) = text.get(slash..)?.split_first()? else {
        return None;
    };
    let (low, digits) = hexadecimal(rest)?;
    Some((Lsn(high << 32 | low), slash + 1 + digits))
}

/// As the slices' own; those have a call for every length that only the run knows.
#[inline]
pub(super) fn starts_with(text: &[u8], known: &[u8]) -> bool {
    let Some(text) = text.get(..known.len()) else {
        return false;
    };
    let (Some(text_end), Some(known_end)) = (text.last_chunk::<16>(), known.last_chunk::<16>())
    else {
        return text == known;
    };
    let ((text, _), (known, _)) = (text.as_chunks::<16>(), known.as_chunks::<16>());
    text.iter().zip(known).all(|(text, known)| text == known) && text_end == known_end
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    #[inline]
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes over `count` bytes that have been seen in [`Scan::rest`].
    #[inline]
    pub(super) fn pass(&mut self, count: usize) {
        self.at += count;
    }

    /// Passes over `expected` if it stands here to the letter.
    #[inline]
    pub(super) fn eat_exactly(&mut self, expected: &[u8]) -> bool {
        let found = starts_with(self.rest(), expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Passes over blanks and then `byte`, if that follows.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        if self.peek() != Some(byte) {
            self.blanks();
            if self.peek() != Some(byte) {
                return false;
            }
        }
        self.at += 1;
        true
    }

    #[inline]
    pub(super) fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeError> {
        match self.eat(byte) {
            true => Ok(()),
            false => Err(self.unexpected(what)),
        }
    }

    /// Whether another member follows; otherwise the object or array ends here, with `end`.
    #[inline]
    pub(super) fn comma_or(&mut self, end: u8, what: &'static str) -> Result<bool, DecodeError> {
        if self.eat(b',') {
            return Ok(true);
        }
        self.expect(end, what).map(|()| false)
    }

    /// Blanks may follow, nothing else.
    pub(super) fn finish(&mut self, what: &'static str) -> Result<(), DecodeError> {
        self.blanks();
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(DecodeError::new(
                what,
                self.at as u64,
                DecodeErrorKind::TrailingBytes { left: left as u64 },
            )),
        }
    }

    #[inline]
    pub(super) fn string(&mut self, what: &'static str) -> Result<JsonText<'a>, DecodeError> {
        self.expect(b'"', what)?;
        let at = self.at;
        let mut escaped = false;
        loop {
            let rest = self.rest();
            let Some(found) = quote_or_escape(rest) else {
                return Err(truncated(self.bytes, what));
            };
            self.at += found;
            if rest.get(found) == Some(&b'"') {
                let raw = self.bytes.get(at..self.at).unwrap_or_default();
                self.at += 1;
                return Ok(JsonText { raw, at, escaped });
            }
            escaped = true;
            self.escape(what)?;
        }
    }

    /// Passes over one escape.
    fn escape(&mut self, what: &'static str) -> Result<(), DecodeError> {
        let rest = self.rest();
        let width = match rest.get(1) {
            Some(b'u') => unicode(rest).map(|(width, _)| width),
            Some(letter) => simple(*letter).map(|_| 2),
            None => return Err(truncated(self.bytes, what)),
        };
        match width {
            Some(width) => {
                self.at += width;
                Ok(())
            }
            None => Err(DecodeError::new(
                what,
                self.at as u64,
                DecodeErrorKind::Encoding,
            )),
        }
    }

    #[inline]
    pub(super) fn string_or_null(
        &mut self,
        what: &'static str,
    ) -> Result<Option<JsonText<'a>>, DecodeError> {
        self.blanks();
        match self.peek() {
            Some(b'n') => self.word(b"null", what).map(|()| None),
            _ => self.string(what).map(Some),
        }
    }

    #[inline]
    pub(super) fn number_or_null(
        &mut self,
        what: &'static str,
    ) -> Result<Option<u32>, DecodeError> {
        self.blanks();
        if self.peek() == Some(b'n') {
            return self.word(b"null", what).map(|()| None);
        }
        let start = self.at;
        let mut number = 0_u32;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number
                .checked_mul(10)
                .and_then(|number| number.checked_add((digit - b'0').into()))
                .ok_or_else(|| self.invalid_at(start, what))?;
            self.at += 1;
        }
        match self.at > start {
            true => Ok(Some(number)),
            false => Err(self.unexpected(what)),
        }
    }

    pub(super) fn boolean(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        self.blanks();
        match self.peek() {
            Some(b't') => self.word(b"true", what).map(|()| true),
            _ => self.word(b"false", what).map(|()| false),
        }
    }

    #[inline]
    pub(super) fn word(&mut self, word: &[u8], what: &'static str) -> Result<(), DecodeError> {
        match self.eat_exactly(word) {
            true => Ok(()),
            false => Err(self.unexpected(what)),
        }
    }

    /// A number as it is written: the range of its bytes.
    #[inline]
    pub(super) fn number(&mut self, what: &'static str) -> Result<(usize, usize), DecodeError> {
        let start = self.at;
        let sign = usize::from(self.peek() == Some(b'-'));
        let digits = digits(self.bytes.get(start + sign..).unwrap_or_default());
        if digits > 0 {
            self.at += sign + digits;
            // An integer, most often.
            if !matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E')) {
                return Ok((start, self.at));
            }
        }
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = self.peek() {
            self.at += 1;
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        match digits.first().is_some_and(u8::is_ascii_digit)
            && text.last().is_some_and(u8::is_ascii_digit)
        {
            true => Ok((start, self.at)),
            false => {
                self.at = start;
                Err(self.unexpected(what))
            }
        }
    }

    /// The name of a type, as the plugin writes it. `end` is what follows where it is not a string: see the module above.
    pub(super) fn type_name(
        &mut self,
        end: &[u8],
        what: &'static str,
    ) -> Result<Cow<'a, [u8]>, DecodeError> {
        self.blanks();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.unexpected(what));
        }
        if let Ok(text) = self.string(what)
            && matches!(
                self.peek(),
                Some(b',' | b'}' | b' ' | b'\n' | b'\t' | b'\r')
            )
        {
            // `format_type` writes `character`: a type `char` is always the quoted one.
            return Ok(match text.raw() {
                b"char" => Cow::Borrowed(b"\"char\""),
                _ => text.unescaped(),
            });
        }
        let rest = self.bytes.get(start..).unwrap_or_default();
        let length = memmem::find(rest, end).ok_or_else(|| truncated(self.bytes, what))?;
        self.at = start + length;
        Ok(Cow::Borrowed(rest.get(..length).unwrap_or_default()))
    }

    /// Passes over a value of any kind.
    pub(super) fn skip_value(&mut self, what: &'static str) -> Result<(), DecodeError> {
        // What closes the objects and arrays that are open, a bit each: 1 for `}`.
        let mut closing = 0_u128;
        let mut depth = 0_usize;
        loop {
            self.blanks();
            match self.peek() {
                Some(b'"') => drop(self.string(what)?),
                Some(b't') => self.word(b"true", what)?,
                Some(b'f') => self.word(b"false", what)?,
                Some(b'n') => self.word(b"null", what)?,
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    let is_object = open == b'{';
                    if !self.eat(if is_object { b'}' } else { b']' }) {
                        if depth == JSON_DEPTH_MAX {
                            return Err(self.too_deep(what));
                        }
                        depth += 1;
                        closing = closing << 1 | u128::from(is_object);
                        if is_object {
                            self.key(what)?;
                        }
                        continue;
                    }
                }
                _ => drop(self.number(what)?),
            }
            // A value has ended, and with it perhaps what it stands in.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = closing & 1 == 1;
                if self.comma_or(if is_object { b'}' } else { b']' }, what)? {
                    if is_object {
                        self.key(what)?;
                    }
                    break;
                }
                depth -= 1;
                closing >>= 1;
            }
        }
    }

    fn key(&mut self, what: &'static str) -> Result<(), DecodeError> {
        self.string(what)?;
        self.expect(b':', what)
    }

    #[cold]
    fn too_deep(&self, what: &'static str) -> DecodeError {
        let kind = DecodeErrorKind::TooLong {
            length: JSON_DEPTH_MAX as u64 + 1,
            limit: JSON_DEPTH_MAX as u64,
        };
        DecodeError::new(what, self.at as u64, kind)
    }

    /// What stands here has no place here, or nothing does.
    #[cold]
    pub(super) fn unexpected(&self, what: &'static str) -> DecodeError {
        match self.peek() {
            Some(_) => self.invalid_at(self.at, what),
            None => truncated(self.bytes, what),
        }
    }

    #[cold]
    pub(super) fn invalid_at(&self, at: usize, what: &'static str) -> DecodeError {
        let value = self.bytes.get(at).copied().unwrap_or_default().into();
        DecodeError::new(what, at as u64, DecodeErrorKind::Invalid { value })
    }
}

#[cold]
fn truncated(bytes: &[u8], what: &'static str) -> DecodeError {
    let kind = DecodeErrorKind::Truncated { missing: 1 };
    DecodeError::new(what, bytes.len() as u64, kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Words beside bytes one by one, and beside the standard library.
        #[test]
        fn words_find_what_bytes_find(
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..100),
                prop::collection::vec(prop::sample::select(&b"0123456789:/\x00\x80\xb0 azAF"[..]), 0..100),
                prop::collection::vec(prop::sample::select(&b"!\"#[\\]\xa2\xdc\x01"[..]), 0..20),
                "[a-z]{0,90}[\"\\\\]?.{0,9}".prop_map(String::into_bytes),
            ],
            known in 0_usize..100,
            flipped in prop::option::of((0_usize..100, any::<u8>())),
        ) {
            let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_escape(&text), end);
            let others = text.iter().position(|byte| !byte.is_ascii_digit());
            prop_assert_eq!(digits(&text), others.unwrap_or(text.len()));
            let mut known = text.get(..known).unwrap_or(b"another text").to_vec();
            if let Some((at, flip)) = flipped
                && let Some(byte) = known.get_mut(at)
            {
                *byte ^= flip;
            }
            prop_assert_eq!(starts_with(&text, &known), text.starts_with(&known));
        }

        #[test]
        fn a_place_is_what_the_standard_library_reads(text in "[0-9A-Fa-f/]{0,10}/[0-9A-Fa-f/]{0,10}|[0-9A-Fg-]{1,3}/[+0-9a-fG ]{1,3}") {
            let expected = text.split_once('/').and_then(|(high, low)| {
                let half = |text: &str| {
                    let is_one = matches!(text.len(), 1..=8) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                    u64::from_str_radix(text, 16).ok().filter(|_| is_one)
                };
                Some(Lsn(half(high)? << 32 | half(low)?))
            });
            let found = leading_lsn(text.as_bytes());
            prop_assert_eq!(found.filter(|(_, length)| *length == text.len()).map(|(lsn, _)| lsn), expected);
        }

        #[test]
        fn a_number_ends_where_its_letters_end(text in "-{0,2}[0-9]{0,20}(\\.[0-9]{0,9})?([eE][+-]?[0-9]{0,3})?[,}a ]?") {
            let length = text.bytes().take_while(|byte| b"0123456789-+.eE".contains(byte)).count();
            let number = &text[..length];
            let first = number.strip_prefix('-').unwrap_or(number).bytes().next();
            let is_one = first.is_some_and(|byte| byte.is_ascii_digit())
                && number.bytes().last().is_some_and(|byte| byte.is_ascii_digit());
            let mut scan = Scan::new(text.as_bytes());
            let found = scan.number("number");
            prop_assert_eq!(found.is_ok(), is_one, "{}", text);
            prop_assert_eq!(scan.at(), if is_one { length } else { 0 });
        }
    }
}
