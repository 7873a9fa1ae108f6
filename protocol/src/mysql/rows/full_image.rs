//! Row images that hold every column: what servers send by default (`binlog_row_image=FULL`), so this is the path that nearly every row
//! takes.

use super::super::column::Column;
use super::super::value::Value;
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

    /// The index of the column that [`FullImage::next`] will read.
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
        let index = self.next;
        self.next = index + 1;
        if super::bit(self.nulls, index) {
            return Ok(None);
        }
        Value::read(&column.kind, &mut self.cursor).map(Some)
    }

    /// The value of the column with `index`, which no earlier call went beyond; `None` for NULL and beyond the last.
    ///
    /// # Errors
    /// A value on the way that is cut off or not of its type.
    #[inline]
    pub fn find(
        &mut self,
        columns: &[Column],
        index: usize,
    ) -> Result<Option<Value<'a>>, DecodeError> {
        let mut found = None;
        for passed in columns.get(self.next..=index).unwrap_or_default() {
            found = self.next(passed)?;
        }
        Ok(found)
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
