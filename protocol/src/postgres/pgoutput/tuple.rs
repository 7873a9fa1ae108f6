//! TupleData: a row.
//!
//! ```text
//! | count 2 | n | u | t length 4 text | b length 4 bytes | …       null, unchanged TOAST, text, binary
//! ```

use std::ops::Range;

use crate::cursor::Cursor;
use crate::error::DecodeError;

/// Passes over a TupleData and returns where it stands.
#[inline]
pub(super) fn range(cursor: &mut Cursor<'_>) -> Result<Range<usize>, DecodeError> {
    let start = cursor.at();
    for _ in 0..cursor.u16_be("TupleData columns")? {
        if is_long(cursor)? {
            let length = cursor.u32_be("TupleData length")?;
            cursor.skip(length as usize, "TupleData value")?;
        }
    }
    Ok(start..cursor.at())
}

/// Passes over a value's kind; whether a length and bytes follow.
#[inline]
fn is_long(cursor: &mut Cursor<'_>) -> Result<bool, DecodeError> {
    match cursor.peek() {
        Some(b't' | b'b') => cursor.skip(1, "TupleData kind").map(|()| true),
        Some(b'n' | b'u') | None => cursor.skip(1, "TupleData kind").map(|()| false),
        Some(other) => Err(cursor.invalid("TupleData kind", other.into())),
    }
}

/// One column of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TupleValue<'a> {
    /// NULL.
    Null,
    /// A TOASTed value that the update left as it was and the server did not read.
    Unchanged,
    /// As the type's output function wrote it.
    Text(&'a [u8]),
    /// As the type's send function wrote it; only where `binary` was asked for.
    Binary(&'a [u8]),
}

/// Reads a TupleData column by column.
#[derive(Debug, Clone)]
pub struct Tuple<'a> {
    cursor: Cursor<'a>,
    left: u16,
}

impl<'a> Tuple<'a> {
    /// Begins to read.
    ///
    /// # Errors
    /// Fewer than two bytes.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let left = cursor.u16_be("TupleData columns")?;
        Ok(Self { cursor, left })
    }

    /// Columns that are left.
    #[inline]
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.into()
    }

    /// The next column; `None` after the last one.
    ///
    /// # Errors
    /// A kind that is none, or a value that is not there whole.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a fallible iterator")]
    pub fn next(&mut self) -> Result<Option<TupleValue<'a>>, DecodeError> {
        if self.left == 0 {
            self.cursor.finish("TupleData")?;
            return Ok(None);
        }
        self.left -= 1;
        let cursor = &mut self.cursor;
        let place = *cursor;
        let kind = cursor.u8("TupleData kind")?;
        Ok(Some(match kind {
            b't' | b'b' => {
                let length = cursor.u32_be("TupleData length")?;
                let bytes = cursor.take(length as usize, "TupleData value")?;
                match kind {
                    b't' => TupleValue::Text(bytes),
                    _ => TupleValue::Binary(bytes),
                }
            }
            b'n' => TupleValue::Null,
            b'u' => TupleValue::Unchanged,
            other => return Err(place.invalid("TupleData kind", other.into())),
        }))
    }
}
