//! A row image as a JSON object, and the key that it holds.
//!
//! Columns that an image lacks (`binlog_row_image` MINIMAL or NOBLOB) are null. In an after image they are taken from the before
//! image where that holds them: the update left them as they were.

use protocol::DecodeError;
use protocol::mysql::rows::{FullImage, Image};
use protocol::mysql::{Column, Value};

use super::value::{ValueError, ValueWriter};
use crate::encode::error::EncodeErrorKind;
use crate::encode::template::Template;

/// One image of a row: a bit per column that it holds, and the bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::encode) struct RowImage<'a> {
    pub(super) present: &'a [u8],
    pub(super) bytes: &'a [u8],
    /// Whether it may hold JSON diffs.
    pub(super) partial: bool,
    /// Whether it holds every column and no diffs: then nobody need look at `present`.
    pub(super) full: bool,
}

impl<'a> RowImage<'a> {
    #[inline]
    fn read<'t>(self, template: &'t Template) -> Result<Reader<'a, 't>, EncodeErrorKind> {
        let columns = template.mysql_columns();
        let image = if self.partial {
            Image::partial(columns, self.present, self.bytes)
        } else {
            Image::new(columns, self.present, self.bytes)
        };
        match image {
            Ok(image) => Ok(Reader {
                image,
                template,
                next: 0,
            }),
            Err(error) => Err(broken(template, 0, error)),
        }
    }
}

/// An image being read, and the column that it stands before.
struct Reader<'a, 't> {
    image: Image<'a, 't>,
    template: &'t Template,
    next: usize,
}

impl<'a> Reader<'a, '_> {
    /// The next column that the image holds.
    #[inline]
    fn next(&mut self) -> Result<Option<(usize, Option<Value<'a>>)>, EncodeErrorKind> {
        match self.image.next() {
            Ok(Some((column, value))) => {
                self.next = column + 1;
                Ok(Some((column, value)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(broken(self.template, self.next, error)),
        }
    }

    /// The value of `column`, which no earlier call went beyond; `None` where the image lacks it.
    #[inline]
    fn find(&mut self, column: usize) -> Result<Option<Option<Value<'a>>>, EncodeErrorKind> {
        while self.next <= column {
            match self.next()? {
                Some((found, value)) if found == column => return Ok(Some(value)),
                Some((found, _)) if found < column => {}
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

#[cold]
fn broken(template: &Template, column: usize, error: DecodeError) -> EncodeErrorKind {
    EncodeErrorKind::Value {
        column: template.column_name(column),
        error,
    }
}

#[cold]
fn unwritable(template: &Template, column: usize, error: ValueError) -> EncodeErrorKind {
    error.of_column(template.column_name(column))
}

#[inline]
fn holds(present: &[u8], column: usize) -> bool {
    present
        .get(column / 8)
        .is_some_and(|byte| byte >> (column % 8) & 1 != 0)
}

/// Appends the row as a JSON object. `before`: the image that lacking columns and JSON diffs of an after image refer to.
#[inline]
pub(super) fn write_row(
    out: &mut Vec<u8>,
    template: &Template,
    image: RowImage<'_>,
    before: Option<RowImage<'_>>,
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    if image.full {
        return write_full_row(out, template, image.bytes, values);
    }
    let columns = template.mysql_columns();
    let written = template.columns.len();
    let mut reader = image.read(template)?;
    let mut expected = 0;
    while let Some((column, value)) = reader.next()? {
        if column >= written {
            continue;
        }
        if column != expected {
            write_lacking(out, template, expected..column, before, values)?;
        }
        expected = column + 1;
        let (Some(of), Some(prepared)) = (columns.get(column), template.columns.get(column)) else {
            return Err(EncodeErrorKind::Batch(
                "an image with more columns than its table",
            ));
        };
        prepared.prefix.write(out);
        let Some(value) = value else {
            out.extend_from_slice(b"null");
            continue;
        };
        let diffed = match value {
            Value::JsonDiffs(_) => before_value(template, before, column)?,
            _ => None,
        };
        if let Err(error) = values.write::<false>(out, of, prepared.ascii, value, diffed) {
            return Err(unwritable(template, column, error));
        }
    }
    if expected != written {
        write_lacking(out, template, expected..written, before, values)?;
    }
    out.push(b'}');
    Ok(())
}

#[inline]
fn write_full_row(
    out: &mut Vec<u8>,
    template: &Template,
    image: &[u8],
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    let columns = template.mysql_columns();
    let mut reader = FullImage::new(columns, image).map_err(|error| broken(template, 0, error))?;
    for (column, prepared) in columns.iter().zip(&template.columns) {
        prepared.prefix.write(out);
        let written = reader.next_with(column, |value| {
            write_value::<false>(out, column, prepared.ascii, value, values)
        });
        written_of(written, template, reader.column() - 1)?;
    }
    out.push(b'}');
    // Past what is not written.
    let finished = (reader.skip_to(columns, columns.len())).and_then(|()| reader.finish());
    finished.map_err(|error| broken(template, columns.len(), error))
}

#[cold]
fn before_value<'a>(
    template: &Template,
    before: Option<RowImage<'a>>,
    column: usize,
) -> Result<Option<Value<'a>>, EncodeErrorKind> {
    match before {
        Some(before) => Ok(before.read(template)?.find(column)?.flatten()),
        None => Ok(None),
    }
}

/// Appends columns that an image lacks.
#[cold]
fn write_lacking(
    out: &mut Vec<u8>,
    template: &Template,
    lacking: std::ops::Range<usize>,
    before: Option<RowImage<'_>>,
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    let before =
        before.filter(|before| lacking.clone().any(|column| holds(before.present, column)));
    let mut before = before.map(|before| before.read(template)).transpose()?;
    for column in lacking {
        let (Some(of), Some(prepared)) = (
            template.mysql_columns().get(column),
            template.columns.get(column),
        ) else {
            return Err(EncodeErrorKind::Batch(
                "an image with more columns than its table",
            ));
        };
        let known = match &mut before {
            Some(before) => before.find(column)?.flatten(),
            None => None,
        };
        prepared.prefix.write(out);
        match known {
            Some(value) => values
                .write::<false>(out, of, prepared.ascii, value, None)
                .map_err(|error| unwritable(template, column, error))?,
            None => out.extend_from_slice(b"null"),
        }
    }
    Ok(())
}

/// Writes the key of a row into `out`: the value of each key column from `image`, or from `other` where that lacks it.
pub(super) fn write_key(
    out: &mut Vec<u8>,
    template: &Template,
    image: RowImage<'_>,
    other: Option<RowImage<'_>>,
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    out.clear();
    if image.full {
        return write_full_key(out, template, image.bytes, values);
    }
    let mut reader = image.read(template)?;
    for key in &template.key {
        let column = usize::from(key.column);
        // Key order need not be table order.
        if column < reader.next {
            reader = image.read(template)?;
        }
        let found = match reader.find(column)? {
            Some(value) => Some(value),
            None => match other {
                Some(other) => other.read(template)?.find(column)?,
                None => None,
            },
        };
        let (Some(value), Some(of), Some(prepared)) = (
            found,
            template.mysql_columns().get(column),
            template.columns.get(column),
        ) else {
            let column = template.column_name(column);
            return Err(EncodeErrorKind::KeyColumn { column });
        };
        key.prefix.write(out);
        match value {
            Some(value) => values
                .write::<true>(out, of, prepared.ascii, value, None)
                .map_err(|error| unwritable(template, column, error))?,
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    Ok(())
}

#[inline]
fn write_full_key(
    out: &mut Vec<u8>,
    template: &Template,
    image: &[u8],
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    let columns = template.mysql_columns();
    let start = FullImage::new(columns, image).map_err(|error| broken(template, 0, error))?;
    let mut reader = start;
    for key in &template.key {
        let index = usize::from(key.column);
        if index < reader.column() {
            reader = start;
        }
        let (Some(column), Some(prepared)) = (columns.get(index), template.columns.get(index))
        else {
            return Err(EncodeErrorKind::Batch(
                "a key column beyond the table's columns",
            ));
        };
        reader
            .skip_to(columns, index)
            .map_err(|error| broken(template, reader.column() - 1, error))?;
        key.prefix.write(out);
        let written = reader.next_with(column, |value| {
            write_value::<true>(out, column, prepared.ascii, value, values)
        });
        written_of(written, template, index)?;
    }
    out.push(b'}');
    Ok(())
}

/// Appends a value of a full image, which has no diffs.
#[inline(always)]
fn write_value<const KEY: bool>(
    out: &mut Vec<u8>,
    column: &Column,
    ascii: bool,
    value: Option<Value<'_>>,
    values: &mut ValueWriter,
) -> Result<(), ValueError> {
    match value {
        Some(value) => values.write::<KEY>(out, column, ascii, value, None),
        None => {
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}

/// What became of reading and writing the value of `column`.
#[inline(always)]
fn written_of(
    written: Result<Result<(), ValueError>, DecodeError>,
    template: &Template,
    column: usize,
) -> Result<(), EncodeErrorKind> {
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unwritable(template, column, error)),
        Err(error) => Err(broken(template, column, error)),
    }
}

/// Whether two full images certainly hold the same key. `false` where that is not so, and where it would take more to know.
#[inline]
pub(super) fn is_key_kept(template: &Template, before: RowImage<'_>, after: RowImage<'_>) -> bool {
    if !before.full || !after.full {
        return false;
    }
    let columns = template.mysql_columns();
    let readers = (
        FullImage::new(columns, before.bytes),
        FullImage::new(columns, after.bytes),
    );
    let (Ok(before), Ok(after)) = readers else {
        return false;
    };
    let (mut old, mut new) = (before, after);
    template.key.iter().all(|key| {
        let index = usize::from(key.column);
        if index < old.column() {
            (old, new) = (before, after);
        }
        let Some(column) = columns.get(index) else {
            return false;
        };
        let values = (
            stored(&mut old, columns, index, column),
            stored(&mut new, columns, index, column),
        );
        matches!(values, (Ok(a), Ok(b)) if a == b)
    })
}

/// The bytes of the column at `index` as they are stored.
#[inline]
fn stored<'a>(
    image: &mut FullImage<'a>,
    columns: &[Column],
    index: usize,
    column: &Column,
) -> Result<Option<&'a [u8]>, DecodeError> {
    image.skip_to(columns, index)?;
    image.stored(column)
}

/// The `unchanged` header: a JSON array of the columns that neither `present` nor `other` holds; empty where there are none.
pub(super) fn write_unchanged(
    out: &mut Vec<u8>,
    template: &Template,
    present: &[u8],
    other: Option<&[u8]>,
) {
    out.clear();
    let columns = template.mysql_columns();
    for (n, column) in columns.iter().take(template.columns.len()).enumerate() {
        if !holds(present, n) && !other.is_some_and(|other| holds(other, n)) {
            out.push(if out.is_empty() { b'[' } else { b',' });
            crate::encode::text::write_string(out, &column.name);
        }
    }
    if !out.is_empty() {
        out.push(b']');
    }
}
