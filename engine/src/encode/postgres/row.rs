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

use protocol::postgres::pgoutput::{self, TupleValue};
use protocol::{DecodeError, DecodeErrorKind};

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

/// An image being read, and the column that it stands before.
#[derive(Debug, Clone)]
struct Reader<'a> {
    tuple: pgoutput::Tuple<'a>,
    next: usize,
}

impl<'a> Reader<'a> {
    /// Begins to read an image that must have `columns` columns.
    #[inline]
    fn new(image: Tuple<'a>, columns: usize) -> Result<Self, DecodeError> {
        let tuple = pgoutput::Tuple::new(image.bytes)?;
        match tuple.left() {
            count if count == columns => Ok(Self { tuple, next: 0 }),
            count => Err(wrong_count(count)),
        }
    }

    /// The next column; `None` after the last one, when nothing more is there.
    #[inline]
    fn next(&mut self) -> Result<Option<TupleValue<'a>>, DecodeError> {
        self.next += 1;
        self.tuple.next()
    }

    /// The column `column`, which no earlier call went beyond.
    #[inline]
    fn find(&mut self, column: usize) -> Result<Option<TupleValue<'a>>, DecodeError> {
        while self.next < column {
            self.next()?;
        }
        self.next()
    }
}

#[cold]
fn wrong_count(count: usize) -> DecodeError {
    let value = count as u64;
    DecodeError::new("TupleData columns", 0, DecodeErrorKind::Invalid { value })
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
            Ok(Some(TupleValue::Text(text))) => values
                .write::<false>(out, &column.kind, text)
                .map_err(|error| broken(template, reader.next - 1, error))?,
            Ok(Some(TupleValue::Null)) => out.extend_from_slice(b"null"),
            Ok(Some(TupleValue::Unchanged)) => {
                write_unchanged(out, template, reader.next - 1, before, values)?;
            }
            Ok(Some(TupleValue::Binary(_))) => return Err(binary(template, reader.next - 1)),
            Ok(None) => return Err(broken(template, 0, wrong_count(reader.next - 1))),
            Err(error) => return Err(broken(template, reader.next - 1, error)),
        }
    }
    if columns.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    match reader.next() {
        Ok(_) => Ok(()),
        Err(error) => Err(broken(template, columns.len(), error)),
    }
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
        None => None,
    };
    match (found, template.postgres_columns().get(column)) {
        (Some(TupleValue::Text(text)), Some(of)) => values
            .write::<false>(out, &of.kind, text)
            .map_err(|error| broken(template, column, error)),
        (Some(TupleValue::Binary(_)), _) => Err(binary(template, column)),
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
) -> Result<Option<TupleValue<'a>>, EncodeErrorKind> {
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
    let mut reader = start.clone();
    for key in &template.key {
        let column = usize::from(key.column);
        // Key order need not be table order.
        if column < reader.next {
            reader = start.clone();
        }
        let mut cell = reader
            .find(column)
            .map_err(|error| broken(template, column, error))?;
        let mut is_key = image.is_key;
        if let (Some(TupleValue::Unchanged), Some(other)) = (cell, other) {
            cell = find(template, other, column)?;
            is_key = other.is_key;
        }
        key.prefix.write(out);
        match (cell, columns.get(column)) {
            (Some(TupleValue::Text(text)), Some(of)) => {
                values
                    .write::<true>(out, &of.kind, text)
                    .map_err(|error| broken(template, column, error))?
            }
            (Some(TupleValue::Null), Some(_)) if !is_key => out.extend_from_slice(b"null"),
            (Some(TupleValue::Binary(_)), _) => return Err(binary(template, column)),
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
    let (mut old, mut new) = (start_old.clone(), start_new.clone());
    template.key.iter().all(|key| {
        let column = usize::from(key.column);
        if column < old.next {
            (old, new) = (start_old.clone(), start_new.clone());
        }
        match (old.find(column), new.find(column)) {
            (Ok(Some(TupleValue::Text(old))), Ok(Some(TupleValue::Text(new)))) => old == new,
            (Ok(Some(TupleValue::Text(_))), Ok(Some(TupleValue::Unchanged))) => true,
            _ => false,
        }
    })
}
