//! The one place where bytes become integers. It cannot panic and never reads past its slice.

use crate::error::{DecodeError, DecodeErrorKind};

/// A reading position in a slice. Every method either advances past what it returns or leaves the cursor where it was and
/// returns an error that names `what` and the offset.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! fixed_width {
    ($($name:ident, $type:ty, $from:ident, $width:literal, $doc:literal;)*) => {$(
        #[doc = $doc]
        ///
        /// # Errors
        /// [`DecodeErrorKind::Truncated`] when fewer bytes are left.
        #[inline]
        pub fn $name(&mut self, what: &'static str) -> Result<$type, DecodeError> {
            match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<$width>()) {
                Some(chunk) => {
                    self.at += $width;
                    Ok(<$type>::$from(*chunk))
                }
                None => Err(self.truncated(what, $width)),
            }
        }
    )*};
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    #[inline]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Bytes left.
    #[must_use]
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether everything has been read.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    fixed_width! {
        u8, u8, from_le_bytes, 1, "One byte.";
        i8, i8, from_le_bytes, 1, "One signed byte.";
        u16_le, u16, from_le_bytes, 2, "Two bytes, little-endian.";
        u32_le, u32, from_le_bytes, 4, "Four bytes, little-endian.";
        u64_le, u64, from_le_bytes, 8, "Eight bytes, little-endian.";
        i16_le, i16, from_le_bytes, 2, "Two bytes, little-endian, signed.";
        i32_le, i32, from_le_bytes, 4, "Four bytes, little-endian, signed.";
        i64_le, i64, from_le_bytes, 8, "Eight bytes, little-endian, signed.";
        u16_be, u16, from_be_bytes, 2, "Two bytes, big-endian.";
        u32_be, u32, from_be_bytes, 4, "Four bytes, big-endian.";
        u64_be, u64, from_be_bytes, 8, "Eight bytes, big-endian.";
        i16_be, i16, from_be_bytes, 2, "Two bytes, big-endian, signed.";
        i32_be, i32, from_be_bytes, 4, "Four bytes, big-endian, signed.";
        i64_be, i64, from_be_bytes, 8, "Eight bytes, big-endian, signed.";
    }

    /// Three bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when fewer bytes are left.
    #[inline]
    pub fn u24_le(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let [a, b, c] = *self.chunk::<3>(what)?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// Six bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when fewer bytes are left.
    #[inline]
    pub fn u48_le(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let [a, b, c, d, e, f] = *self.chunk::<6>(what)?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// `width` bytes (at most 8) as a little-endian integer.
    ///
    /// # Errors
    /// Truncated input, or `Invalid` for a width over 8.
    #[inline]
    pub fn uint_le(&mut self, width: usize, what: &'static str) -> Result<u64, DecodeError> {
        self.uint(width, what, |acc, i, byte| acc | u64::from(byte) << (8 * i))
    }

    /// `width` bytes (at most 8) as a big-endian integer.
    ///
    /// # Errors
    /// Truncated input, or `Invalid` for a width over 8.
    #[inline]
    pub fn uint_be(&mut self, width: usize, what: &'static str) -> Result<u64, DecodeError> {
        self.uint(width, what, |acc, _, byte| acc << 8 | u64::from(byte))
    }

    #[inline]
    fn uint(
        &mut self,
        width: usize,
        what: &'static str,
        fold: impl Fn(u64, usize, u8) -> u64,
    ) -> Result<u64, DecodeError> {
        if width > 8 {
            return Err(self.invalid(what, width as u64));
        }
        let bytes = self.take(width, what)?;
        Ok(bytes
            .iter()
            .enumerate()
            .fold(0, |acc, (i, byte)| fold(acc, i, *byte)))
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when fewer bytes are left.
    #[inline]
    pub fn chunk<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<&'a [u8; N], DecodeError> {
        match self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>())
        {
            Some(chunk) => {
                self.at += N;
                Ok(chunk)
            }
            None => Err(self.truncated(what, N)),
        }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when fewer bytes are left.
    #[inline]
    pub fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        match self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..length))
        {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.truncated(what, length)),
        }
    }

    /// Skips `length` bytes.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when fewer bytes are left.
    #[inline]
    pub fn skip(&mut self, length: usize, what: &'static str) -> Result<(), DecodeError> {
        self.take(length, what).map(|_| ())
    }

    /// Everything that is left.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at = self.bytes.len();
        rest
    }

    /// The bytes that are left, without reading them.
    #[must_use]
    #[inline]
    pub fn unread(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The bytes up to a NUL, which is consumed and not returned.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when no NUL follows.
    pub fn until_nul(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match memchr::memchr(0, rest).and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.at += taken.len() + 1;
                Ok(taken)
            }
            None => Err(self.truncated(what, rest.len() + 1)),
        }
    }

    /// The byte that would be read next, without reading it.
    #[must_use]
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Proves that everything has been read.
    ///
    /// # Errors
    /// [`DecodeErrorKind::TrailingBytes`] when something is left over.
    #[inline]
    pub fn finish(&self, what: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::new(
                what,
                self.at as u64,
                DecodeErrorKind::TrailingBytes { left: left as u64 },
            )),
        }
    }

    /// An [`DecodeErrorKind::Invalid`] error at the present position.
    #[must_use]
    #[cold]
    pub fn invalid(&self, what: &'static str, value: u64) -> DecodeError {
        DecodeError::new(what, self.at as u64, DecodeErrorKind::Invalid { value })
    }

    #[cold]
    fn truncated(&self, what: &'static str, needed: usize) -> DecodeError {
        let missing = needed.saturating_sub(self.remaining()) as u64;
        DecodeError::new(what, self.at as u64, DecodeErrorKind::Truncated { missing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width() {
        let bytes: Vec<u8> = (1..=14).collect();
        let mut c = Cursor::new(&bytes);
        assert_eq!(c.u8("a").unwrap(), 0x01);
        assert_eq!(c.u16_le("b").unwrap(), 0x0302);
        assert_eq!(c.u24_le("c").unwrap(), 0x06_05_04);
        assert_eq!(c.u48_le("d").unwrap(), 0x0c0b_0a09_0807);
        assert_eq!(c.uint_be(2, "e").unwrap(), 0x0d0e);
        c.finish("all").unwrap();
    }

    #[test]
    fn an_error_moves_nothing_and_names_the_place() {
        let mut c = Cursor::new(&[1, 2, 3]);
        c.u8("first").unwrap();
        let error = c.u32_le("second").unwrap_err();
        assert_eq!(error.to_string(), "second at byte 1: 2 bytes are missing");
        assert_eq!(c.at(), 1);
        assert_eq!(c.take(usize::MAX, "all").unwrap_err().at, 1);
        assert_eq!(c.rest(), [2, 3]);
    }

    #[test]
    fn leftovers_are_an_error() {
        let c = Cursor::new(&[1]);
        assert_eq!(
            c.finish("event").unwrap_err().kind,
            DecodeErrorKind::TrailingBytes { left: 1 }
        );
    }
}
