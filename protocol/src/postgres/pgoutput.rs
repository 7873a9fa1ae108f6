//! The messages of the server's own output plugin, protocol 1 (section "Logical Replication Message Formats").
//!
//! ```text
//! B | final LSN 8 | commit time 8 | xid 4
//! C | flags 1 | commit LSN 8 | end LSN 8 | commit time 8
//! R | relation 4 | schema 0 | name 0 | identity 1 | count 2 | flags 1, name 0, type 4, modifier 4 | …
//! I | relation 4 | N TupleData
//! U | relation 4 | [K TupleData | O TupleData] | N TupleData
//! D | relation 4 | K TupleData | O TupleData
//! T | count 4 | options 1 | relation 4 | …
//! O | origin's LSN 8 | name 0      Y | type 4 | schema 0 | name 0      M | flags 1 | LSN 8 | prefix 0 | length 4 | bytes
//!
//! TupleData | count 2 | n | u | t length 4 text | b length 4 bytes | …       null, unchanged TOAST, text, binary
//! ```

use std::ops::Range;

use super::Lsn;
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A transaction begins.
    Begin(Begin),
    /// A transaction ends.
    Commit(Commit),
    /// Where the transaction was first committed.
    Origin(Origin<'a>),
    /// What a table looks like from here on.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type(Type<'a>),
    /// A new row.
    Insert(Insert),
    /// A changed row.
    Update(Update),
    /// A removed row.
    Delete(Delete),
    /// Emptied tables.
    Truncate(Truncate<'a>),
    /// What `pg_logical_emit_message` wrote.
    Message(LogicalMessage<'a>),
}

/// A transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit stands.
    pub final_lsn: Lsn,
    /// When it was committed, microseconds since 2000-01-01 UTC.
    pub commit_us: i64,
    /// Its id.
    pub xid: u32,
}

/// A transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit stands.
    pub commit_lsn: Lsn,
    /// After its commit.
    pub end_lsn: Lsn,
    /// When it was committed, microseconds since 2000-01-01 UTC.
    pub commit_us: i64,
}

/// Where the transaction was first committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The commit there.
    pub lsn: Lsn,
    /// The origin's name.
    pub name: &'a str,
}

/// What a table looks like from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The table's OID.
    pub oid: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `relreplident`: `d` default, `n` nothing, `f` full, `i` index.
    pub identity: u8,
    count: u16,
    columns: &'a [u8],
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether it belongs to the replica identity.
    pub is_key: bool,
    /// Its name.
    pub name: &'a str,
    /// Its type's OID.
    pub type_oid: u32,
    /// `atttypmod`; −1 for none.
    pub type_modifier: i32,
}

/// The name of a type that is not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type<'a> {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A new row. Ranges are of the message's bytes and hold TupleData.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The table.
    pub relation: u32,
    /// The row.
    pub new: Range<usize>,
}

/// A changed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The table.
    pub relation: u32,
    /// The row before, where the replica identity has the server send it.
    pub old: Option<OldTuple>,
    /// The row after.
    pub new: Range<usize>,
}

/// A removed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The table.
    pub relation: u32,
    /// The row before.
    pub old: OldTuple,
}

/// A row before its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldTuple {
    /// The replica identity's columns; the others are null whatever they were.
    Key(Range<usize>),
    /// All of it (`REPLICA IDENTITY FULL`).
    Full(Range<usize>),
}

impl OldTuple {
    /// Its bytes.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        match self {
            Self::Key(range) | Self::Full(range) => range,
        }
    }
}

/// Emptied tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncate<'a> {
    /// Bit 0: CASCADE; bit 1: RESTART IDENTITY.
    pub options: u8,
    relations: &'a [u8],
}

impl Truncate<'_> {
    /// The tables.
    pub fn relations(&self) -> impl Iterator<Item = u32> {
        let (chunks, _) = self.relations.as_chunks::<4>();
        chunks.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

/// What `pg_logical_emit_message` wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to the open transaction.
    pub transactional: bool,
    /// Where it stands.
    pub lsn: Lsn,
    /// Whose it is.
    pub prefix: &'a str,
    /// What it says.
    pub content: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one message. Every length in it has been checked then.
    ///
    /// # Errors
    /// It ends too early or late, or is of a kind that protocol 1 does not have.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let message = match cursor.u8("pgoutput message")? {
            b'I' => {
                let relation = cursor.u32_be("Insert relation")?;
                marker(&mut cursor, b'N', "Insert marker")?;
                let new = tuple(&mut cursor)?;
                Self::Insert(Insert { relation, new })
            }
            b'U' => {
                let relation = cursor.u32_be("Update relation")?;
                let old = match cursor.peek() {
                    Some(b'N') => None,
                    _ => Some(old(&mut cursor, "Update marker")?),
                };
                marker(&mut cursor, b'N', "Update marker")?;
                let new = tuple(&mut cursor)?;
                Self::Update(Update { relation, old, new })
            }
            b'D' => Self::Delete(Delete {
                relation: cursor.u32_be("Delete relation")?,
                old: old(&mut cursor, "Delete marker")?,
            }),
            other => rarer(other, &mut cursor)?,
        };
        cursor.finish("pgoutput message")?;
        Ok(message)
    }
}

fn rarer<'a>(kind: u8, cursor: &mut Cursor<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(match kind {
        b'B' => Message::Begin(Begin {
            final_lsn: Lsn(cursor.u64_be("Begin final LSN")?),
            commit_us: cursor.i64_be("Begin time")?,
            xid: cursor.u32_be("Begin xid")?,
        }),
        b'C' => {
            cursor.u8("Commit flags")?;
            Message::Commit(Commit {
                commit_lsn: Lsn(cursor.u64_be("Commit LSN")?),
                end_lsn: Lsn(cursor.u64_be("Commit end LSN")?),
                commit_us: cursor.i64_be("Commit time")?,
            })
        }
        b'O' => Message::Origin(Origin {
            lsn: Lsn(cursor.u64_be("Origin LSN")?),
            name: text(cursor, "Origin name")?,
        }),
        b'R' => Message::Relation(relation(cursor)?),
        b'Y' => Message::Type(Type {
            oid: cursor.u32_be("Type OID")?,
            schema: text(cursor, "Type schema")?,
            name: text(cursor, "Type name")?,
        }),
        b'T' => {
            let count = cursor.u32_be("Truncate count")?;
            Message::Truncate(Truncate {
                options: cursor.u8("Truncate options")?,
                relations: cursor.take(count as usize * 4, "Truncate relations")?,
            })
        }
        b'M' => {
            let transactional = cursor.u8("Message flags")? & 1 != 0;
            let lsn = Lsn(cursor.u64_be("Message LSN")?);
            let prefix = text(cursor, "Message prefix")?;
            let length = cursor.u32_be("Message length")?;
            Message::Message(LogicalMessage {
                transactional,
                lsn,
                prefix,
                content: cursor.take(length as usize, "Message content")?,
            })
        }
        other => return Err(cursor.invalid("pgoutput message", other.into())),
    })
}

fn relation<'a>(cursor: &mut Cursor<'a>) -> Result<Relation<'a>, DecodeError> {
    let oid = cursor.u32_be("Relation OID")?;
    let schema = text(cursor, "Relation schema")?;
    let name = text(cursor, "Relation name")?;
    let identity = cursor.u8("Relation identity")?;
    let count = cursor.u16_be("Relation columns")?;
    let columns = cursor.rest();
    // Read once to know that they are all there.
    let mut walked = Cursor::new(columns);
    for _ in 0..count {
        relation_column(&mut walked)?;
    }
    walked.finish("Relation columns")?;
    Ok(Relation {
        oid,
        schema,
        name,
        identity,
        count,
        columns,
    })
}

fn relation_column<'a>(cursor: &mut Cursor<'a>) -> Result<RelationColumn<'a>, DecodeError> {
    Ok(RelationColumn {
        is_key: cursor.u8("Relation column flags")? & 1 != 0,
        name: text(cursor, "Relation column name")?,
        type_oid: cursor.u32_be("Relation column type")?,
        type_modifier: cursor.i32_be("Relation column modifier")?,
    })
}

impl<'a> Relation<'a> {
    /// Its columns, in the order of the tuples.
    pub fn columns(&self) -> impl Iterator<Item = Result<RelationColumn<'a>, DecodeError>> {
        let mut cursor = Cursor::new(self.columns);
        (0..self.count).map(move |_| relation_column(&mut cursor))
    }
}

fn text<'a>(cursor: &mut Cursor<'a>, what: &'static str) -> Result<&'a str, DecodeError> {
    let at = cursor.at();
    std::str::from_utf8(cursor.until_nul(what)?)
        .map_err(|_| DecodeError::new(what, at as u64, crate::DecodeErrorKind::Encoding))
}

#[inline]
fn marker(cursor: &mut Cursor<'_>, expected: u8, what: &'static str) -> Result<(), DecodeError> {
    match cursor.u8(what)? {
        found if found == expected => Ok(()),
        found => Err(cursor.invalid(what, found.into())),
    }
}

fn old(cursor: &mut Cursor<'_>, what: &'static str) -> Result<OldTuple, DecodeError> {
    match cursor.u8(what)? {
        b'K' => tuple(cursor).map(OldTuple::Key),
        b'O' => tuple(cursor).map(OldTuple::Full),
        found => Err(cursor.invalid(what, found.into())),
    }
}

/// Passes over a TupleData and returns where it stands.
#[inline]
fn tuple(cursor: &mut Cursor<'_>) -> Result<Range<usize>, DecodeError> {
    let start = cursor.at();
    for _ in 0..cursor.u16_be("TupleData columns")? {
        match cursor.u8("TupleData kind")? {
            b't' | b'b' => {
                let length = cursor.u32_be("TupleData length")?;
                cursor.skip(length as usize, "TupleData value")?;
            }
            b'n' | b'u' => {}
            other => return Err(cursor.invalid("TupleData kind", other.into())),
        }
    }
    Ok(start..cursor.at())
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
    pub fn next(&mut self) -> Result<Option<TupleValue<'a>>, DecodeError> {
        if self.left == 0 {
            self.cursor.finish("TupleData")?;
            return Ok(None);
        }
        self.left -= 1;
        let cursor = &mut self.cursor;
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
            other => return Err(cursor.invalid("TupleData kind", other.into())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUPLE: &[u8] = b"\0\x04t\0\0\0\x0242nub\0\0\0\x01\xff";

    #[test]
    fn rows_are_ranges_of_the_message() {
        let mut bytes = b"U\0\0\x40\x00O".to_vec();
        bytes.extend_from_slice(TUPLE);
        bytes.push(b'N');
        bytes.extend_from_slice(TUPLE);
        let end = bytes.len();
        let Message::Update(update) = Message::decode(&bytes).unwrap() else {
            panic!("an update");
        };
        assert_eq!(update.relation, 0x4000);
        assert_eq!(update.old, Some(OldTuple::Full(6..6 + TUPLE.len())));
        assert_eq!(update.new, end - TUPLE.len()..end);
        let mut tuple = Tuple::new(&bytes[update.new]).unwrap();
        let mut values = Vec::new();
        while let Some(value) = tuple.next().unwrap() {
            values.push(value);
        }
        let expected = [
            TupleValue::Text(b"42"),
            TupleValue::Null,
            TupleValue::Unchanged,
            TupleValue::Binary(b"\xff"),
        ];
        assert_eq!(values, expected);
        for cut in 0..end {
            assert!(Message::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        bytes.push(0);
        assert!(Message::decode(&bytes).is_err(), "a byte too many");
    }

    #[test]
    fn relations_name_their_columns() {
        let bytes = b"R\0\0\x40\x24public\0events\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0name\0\0\0\x04\x13\0\0\0\x44";
        let Message::Relation(relation) = Message::decode(bytes).unwrap() else {
            panic!("a relation");
        };
        assert_eq!(
            (relation.schema, relation.name, relation.identity),
            ("public", "events", b'd')
        );
        let columns: Vec<_> = relation.columns().map(Result::unwrap).collect();
        let column = |is_key, name, type_oid, type_modifier| RelationColumn {
            is_key,
            name,
            type_oid,
            type_modifier,
        };
        assert_eq!(
            columns,
            [column(true, "id", 20, -1), column(false, "name", 1043, 68)]
        );
        for cut in 0..bytes.len() {
            assert!(Message::decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn transactions_have_their_places_and_times() {
        let begin = b"B\0\0\0\0\x49\xcb\x0d\xe0\0\x03\x03\xc4\x52\x6f\x86\x3b\0\0\x17\xe8";
        let Message::Begin(begin) = Message::decode(begin).unwrap() else {
            panic!("a begin");
        };
        assert_eq!((begin.final_lsn, begin.xid), (Lsn(0x49cb_0de0), 6120));
        let commit = b"C\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03";
        let expected = Commit {
            commit_lsn: Lsn(1),
            end_lsn: Lsn(2),
            commit_us: 3,
        };
        assert_eq!(Message::decode(commit), Ok(Message::Commit(expected)));
        let Message::Truncate(truncate) =
            Message::decode(b"T\0\0\0\x02\x01\0\0\0\x05\0\0\0\x06").unwrap()
        else {
            panic!("a truncate");
        };
        assert_eq!(truncate.relations().collect::<Vec<_>>(), [5, 6]);
        assert!(Message::decode(b"T\xff\xff\xff\xff\x01\0\0\0\x05").is_err());
        assert!(Message::decode(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xffx").is_err());
        assert!(Message::decode(b"Z").is_err());
    }
}
