//! A stretch of a buffer as two 32-bit offsets: what an event keeps instead of a slice, so that it outlives no borrow.

use std::ops::Range;

/// Bytes `start..end` of the buffer that the owner of this span names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// No bytes at all, and not an empty stretch either: "absent".
    pub const NONE: Self = Self {
        start: u32::MAX,
        end: u32::MAX,
    };

    /// The stretch `range`; `None` where an offset does not fit 32 bits.
    #[must_use]
    pub fn new(range: Range<usize>) -> Option<Self> {
        let start = u32::try_from(range.start).ok()?;
        let end = u32::try_from(range.end).ok()?;
        (end < u32::MAX && start <= end).then_some(Self { start, end })
    }

    /// Whether this is [`Span::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.start == u32::MAX
    }

    /// Number of bytes; 0 for [`Span::NONE`].
    #[must_use]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are no bytes in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The bytes in `buffer`; `None` when absent or outside the buffer.
    #[must_use]
    #[inline]
    pub fn of(self, buffer: &[u8]) -> Option<&[u8]> {
        buffer.get(self.start as usize..self.end as usize)
    }
}

impl Default for Span {
    fn default() -> Self {
        Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_not_empty() {
        assert!(Span::NONE.is_none());
        assert_eq!(Span::NONE.of(b"abc"), None);
        let empty = Span::new(1..1).unwrap();
        assert!(!empty.is_none());
        assert_eq!(empty.of(b"abc"), Some(&b""[..]));
    }

    #[test]
    fn offsets_beyond_32_bits_are_refused() {
        assert_eq!(Span::new(0..u32::MAX as usize), None);
        assert_eq!(Span::new(0..usize::MAX), None);
        assert_eq!(Span::new(2..5).unwrap().len(), 3);
    }
}
