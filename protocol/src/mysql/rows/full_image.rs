//! Row images that hold every column: what servers send by default (`binlog_row_image=FULL`), so this is the path that nearly every row
//! takes.

use super::super::column::Column;
use super::super::value::{Value, stored_length};
use crate::{Cursor, DecodeError};

/// A full image being read: as [`super::Image`], without asking which columns are there. The caller goes through the columns, because it
/// has something of its own to do for each.
#[derive(Debug, Clone, Copy)]
pub struct FullImage<'a> {
    nulls: &'a [u8],
    cursor: Cursor<'a>,
    next: usize,
}

impl<'a> FullImage<'a> {
    /// An image of a table with `columns`, all of which it holds.
    ///
    /// # Errors
    /// The NULL bits are cut off.
    #[inline]
    pub fn new(columns: &[Column], image: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(image);
        let nulls = cursor.take(columns.len().div_ceil(8), "ROWS NULL bits")?;
        Ok(Self {
            nulls,
            cursor,
            next: 0,
        })
    }

    /// The index of the column that is read next.
    #[inline]
    #[must_use]
    pub const fn column(&self) -> usize {
        self.next
    }

    /// The value of `column`, `None` for NULL. Called once per column, in the table's order.
    ///
    /// # Errors
    /// A value that is cut off or not of its type.
    #[inline(always)]
    pub fn next(&mut self, column: &Column) -> Result<Option<Value<'a>>, DecodeError> {
        self.next_with(column, |value| value)
    }

    /// The value of `column`, `None` for NULL, given to `take`; see [`Value::read_with`] for why. Called once per column, in the
    /// table's order.
    ///
    /// # Errors
    /// A value that is cut off or not of its type; `take` is not called then.
    #[inline(always)]
    pub fn next_with<R>(
        &mut self,
        column: &Column,
        take: impl FnOnce(Option<Value<'a>>) -> R,
    ) -> Result<R, DecodeError> {
        let index = self.next;
        self.next = index + 1;
        if super::bit(self.nulls, index) {
            return Ok(take(None));
        }
        Value::read_with(&column.kind, &mut self.cursor, |value| take(Some(value)))
    }

    /// Moves to the column with `index`, which no earlier call went beyond.
    ///
    /// # Errors
    /// A value on the way that is cut off.
    #[inline]
    pub fn skip_to(&mut self, columns: &[Column], index: usize) -> Result<(), DecodeError> {
        for passed in columns.get(self.next..index).unwrap_or_default() {
            self.stored(passed)?;
        }
        Ok(())
    }

    /// The bytes of `column` as they are stored, `None` for NULL; otherwise as [`Self::next_with`].
    ///
    /// # Errors
    /// A value that is cut off.
    #[inline]
    pub fn stored(&mut self, column: &Column) -> Result<Option<&'a [u8]>, DecodeError> {
        let index = self.next;
        self.next = index + 1;
        if super::bit(self.nulls, index) {
            return Ok(None);
        }
        let length = stored_length(&column.kind, self.cursor.unread())
            .unwrap_or(self.cursor.remaining() + 1);
        self.cursor.take(length, "ROWS value").map(Some)
    }

    /// Proves that nothing is left over, once every column has been read.
    ///
    /// # Errors
    /// Bytes left over.
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        self.cursor.finish("ROWS image")
    }
}
