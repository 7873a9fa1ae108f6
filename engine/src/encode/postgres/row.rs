//! A row image as a JSON object, and the key that it holds.
//!
//! An image is TupleData as pgoutput sends it (manual, section "Logical Replication Message Formats"):
//!
//! ```text
//! Int16 count │ per column: n           NULL
//!             │             u           unchanged TOAST: what it was, which the server does not say
//!             │             t Int32 …   the value as text
//!             │             b Int32 …   the value in binary, which is never asked for
//! ```
//! Unchanged values are taken from the image before where that has them. The columns of a key image (`K`) that do not belong to the
//! replica identity are null whatever they were.

use protocol::{Cursor, DecodeError, DecodeErrorKind};

use crate::encode::error::EncodeErrorKind;
use crate::encode::template::Template;

use super::value::ValueWriter;

/// What stands for a value that the server did not send because it is stored out of line and did not change (Debezium's
/// `unavailable.value.placeholder`).
const UNAVAILABLE: &[u8] = b"\"__debezium_unavailable_value\"";

/// One image of a row.
#[derive(Debug, Clone, Copy)]
pub(in crate::encode) struct Tuple<'a> {
    /// TupleData.
    pub(super) bytes: &'a [u8],
    /// Whether only the replica identity's columns are in it.
    pub(super) is_key: bool,
}

/// A column of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'a> {
    Null,
    Unchanged,
    Text(&'a [u8]),
    Binary,
}

/// An image being read, and the column that it stands before.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    cursor: Cursor<'a>,
    next: usize,
}

impl<'a> Reader<'a> {
    /// Begins to read an image that must have `columns` columns.
    #[inline]
    fn new(tuple: Tuple<'a>, columns: usize) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(tuple.bytes);
        let count = u16::from_be_bytes(*cursor.chunk::<2>("TupleData column count")?);
        if usize::from(count) != columns {
            return Err(wrong_count(count));
        }
        Ok(Self { cursor, next: 0 })
    }

    /// The next column.
    #[inline(always)]
    fn next(&mut self) -> Result<Cell<'a>, DecodeError> {
        self.next += 1;
        match self.cursor.u8("TupleData kind")? {
            b't' => Ok(Cell::Text(self.value()?)),
            b'n' => Ok(Cell::Null),
            b'u' => Ok(Cell::Unchanged),
            b'b' => {
                self.value()?;
                Ok(Cell::Binary)
            }
            kind => Err(self.cursor.invalid("TupleData kind", kind.into())),
        }
    }

    #[inline(always)]
    fn value(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = u32::from_be_bytes(*self.cursor.chunk::<4>("TupleData length")?);
        self.cursor.take(length as usize, "TupleData value")
    }

    /// The column `column`, which no earlier call went beyond.
    #[inline]
    fn find(&mut self, column: usize) -> Result<Cell<'a>, DecodeError> {
        while self.next < column {
            self.next()?;
        }
        self.next()
    }
}

#[cold]
fn wrong_count(count: u16) -> DecodeError {
    let value = count.into();
    DecodeError::new(
        "TupleData column count",
        0,
        DecodeErrorKind::Invalid { value },
    )
}

#[cold]
fn broken(template: &Template, column: usize, error: DecodeError) -> EncodeErrorKind {
    EncodeErrorKind::Value {
        column: template.column_name(column),
        error,
    }
}

#[cold]
fn binary(template: &Template, column: usize) -> EncodeErrorKind {
    EncodeErrorKind::Binary {
        column: template.column_name(column),
    }
}

/// Appends the row as a JSON object. `before`: the image that unchanged columns of an after image are taken from.
#[inline]
pub(super) fn write_row(
    out: &mut Vec<u8>,
    template: &Template,
    image: Tuple<'_>,
    before: Option<Tuple<'_>>,
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    let columns = template.postgres_columns();
    let mut reader =
        Reader::new(image, columns.len()).map_err(|error| broken(template, 0, error))?;
    for (column, prepared) in columns.iter().zip(&template.columns) {
        prepared.prefix.write(out);
        match reader.next() {
            Ok(Cell::Text(text)) => values
                .write::<false>(out, &column.kind, text)
                .map_err(|error| broken(template, reader.next - 1, error))?,
            Ok(Cell::Null) => out.extend_from_slice(b"null"),
            Ok(Cell::Unchanged) => write_unchanged(out, template, reader.next - 1, before, values)?,
            Ok(Cell::Binary) => return Err(binary(template, reader.next - 1)),
            Err(error) => return Err(broken(template, reader.next - 1, error)),
        }
    }
    if columns.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    let finished = reader.cursor.finish("TupleData");
    finished.map_err(|error| broken(template, columns.len(), error))
}

/// Appends the value of a column that did not change, from the image before where that has it.
#[cold]
fn write_unchanged(
    out: &mut Vec<u8>,
    template: &Template,
    column: usize,
    before: Option<Tuple<'_>>,
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    let found = match before {
        Some(before) => find(template, before, column)?,
        None => Cell::Unchanged,
    };
    match (found, template.postgres_columns().get(column)) {
        (Cell::Text(text), Some(of)) => values
            .write::<false>(out, &of.kind, text)
            .map_err(|error| broken(template, column, error)),
        (Cell::Binary, _) => Err(binary(template, column)),
        // NULL can only be that of a key image, which says nothing about columns outside of the key.
        _ => {
            out.extend_from_slice(UNAVAILABLE);
            Ok(())
        }
    }
}

fn find<'a>(
    template: &Template,
    image: Tuple<'a>,
    column: usize,
) -> Result<Cell<'a>, EncodeErrorKind> {
    Reader::new(image, template.postgres_columns().len())
        .and_then(|mut reader| reader.find(column))
        .map_err(|error| broken(template, column, error))
}

/// Writes the key of a row into `out`: the value of each key column from `image`, or from `other` where it did not change.
#[inline]
pub(super) fn write_key(
    out: &mut Vec<u8>,
    template: &Template,
    image: Tuple<'_>,
    other: Option<Tuple<'_>>,
    values: &mut ValueWriter,
) -> Result<(), EncodeErrorKind> {
    out.clear();
    let columns = template.postgres_columns();
    let start = Reader::new(image, columns.len()).map_err(|error| broken(template, 0, error))?;
    let mut reader = start;
    for key in &template.key {
        let column = usize::from(key.column);
        // Key order need not be table order.
        if column < reader.next {
            reader = start;
        }
        let mut cell = reader
            .find(column)
            .map_err(|error| broken(template, column, error))?;
        let mut is_key = image.is_key;
        if let (Cell::Unchanged, Some(other)) = (cell, other) {
            cell = find(template, other, column)?;
            is_key = other.is_key;
        }
        key.prefix.write(out);
        match (cell, columns.get(column)) {
            (Cell::Text(text), Some(of)) => values
                .write::<true>(out, &of.kind, text)
                .map_err(|error| broken(template, column, error))?,
            (Cell::Null, Some(_)) if !is_key => out.extend_from_slice(b"null"),
            (Cell::Binary, _) => return Err(binary(template, column)),
            // Unknown, and guessing would split the row's history: neither image has it, or it is outside of the replica identity.
            _ => {
                let column = template.column_name(column);
                return Err(EncodeErrorKind::ReplicaIdentity { column });
            }
        }
    }
    out.push(b'}');
    Ok(())
}

/// Whether two images certainly hold the same key. `false` where that is not so, and where it would take more to know.
#[inline]
pub(super) fn is_key_kept(template: &Template, before: Tuple<'_>, after: Tuple<'_>) -> bool {
    let columns = template.postgres_columns().len();
    let (Ok(start_old), Ok(start_new)) =
        (Reader::new(before, columns), Reader::new(after, columns))
    else {
        return false;
    };
    let (mut old, mut new) = (start_old, start_new);
    template.key.iter().all(|key| {
        let column = usize::from(key.column);
        if column < old.next {
            (old, new) = (start_old, start_new);
        }
        match (old.find(column), new.find(column)) {
            (Ok(Cell::Text(old)), Ok(Cell::Text(new))) => old == new,
            (Ok(Cell::Text(_)), Ok(Cell::Unchanged)) => true,
            _ => false,
        }
    })
}
