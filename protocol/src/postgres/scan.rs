//! Reading the server's text values: a place in a text, and what may stand there.

use crate::error::{DecodeError, DecodeErrorKind};

/// A text being read from left to right. Nothing is consumed by what fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Scan<'a> {
    /// Reads `text`, which `what` names in errors.
    #[inline]
    pub(super) const fn new(text: &'a [u8], what: &'static str) -> Self {
        Self { text, at: 0, what }
    }

    #[inline]
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Everything that is left.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips `count` bytes that [`Self::rest`] has shown.
    #[inline]
    pub(super) fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.text.len());
    }

    /// Skips `tag` where it stands here.
    #[inline]
    pub(super) fn eat(&mut self, tag: &[u8]) -> bool {
        let found = self.rest().starts_with(tag);
        if found {
            self.at += tag.len();
        }
        found
    }

    /// Skips `tag`, which must stand here.
    #[inline]
    pub(super) fn expect(&mut self, tag: &[u8]) -> Result<(), DecodeError> {
        match self.eat(tag) {
            true => Ok(()),
            false => Err(self.error()),
        }
    }

    /// A decimal number of `least` to `most` digits; `most` is at most 18.
    #[inline]
    pub(super) fn number(&mut self, least: usize, most: usize) -> Result<u64, DecodeError> {
        let digits = self.digits(most);
        if digits.len() < least {
            let mut end = *self;
            end.skip(digits.len());
            return Err(end.error());
        }
        let number = digits
            .iter()
            .fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        self.at += digits.len();
        Ok(number)
    }

    /// The digits that stand here, at most `most` of them; not consumed.
    #[inline]
    pub(super) fn digits(&self, most: usize) -> &'a [u8] {
        let rest = self.rest();
        let most = rest.get(..most.min(rest.len())).unwrap_or_default();
        let count = most.iter().take_while(|byte| byte.is_ascii_digit()).count();
        most.get(..count).unwrap_or_default()
    }

    /// Proves that everything has been read.
    #[inline]
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.is_done() {
            true => Ok(()),
            false => Err(self.error()),
        }
    }

    /// What stands here cannot stand here, or nothing stands here and something must.
    #[cold]
    pub(super) fn error(&self) -> DecodeError {
        let kind = match self.peek() {
            Some(byte) => DecodeErrorKind::Invalid { value: byte.into() },
            None => DecodeErrorKind::Truncated { missing: 1 },
        };
        DecodeError::new(self.what, self.at as u64, kind)
    }
}
