//! What tables look like: Relation, Type and Truncate.
//!
//! ```text
//! R | relation 4 | schema 0 | name 0 | identity 1 | count 2 | flags 1, name 0, type 4, modifier 4 | …
//! Y | type 4 | schema 0 | name 0
//! T | count 4 | options 1 | relation 4 | …
//! ```

use super::{one_of, text};
use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::COLUMNS_MAX;

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

impl<'a> Relation<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let oid = cursor.u32_be("Relation OID")?;
        let schema = text(cursor, "Relation schema")?;
        let name = text(cursor, "Relation name")?;
        let identity = one_of(cursor, b"dnfi", "Relation identity")?;
        let at = cursor.at() as u64;
        let count = cursor.u16_be("Relation columns")?;
        if usize::from(count) > COLUMNS_MAX {
            let kind = DecodeErrorKind::TooLong {
                length: count.into(),
                limit: COLUMNS_MAX as u64,
            };
            return Err(DecodeError::new("Relation columns", at, kind));
        }
        // Read once to know that they are all there.
        let mut walked = *cursor;
        for _ in 0..count {
            RelationColumn::decode(&mut walked)?;
        }
        let columns = cursor.take(walked.at() - cursor.at(), "Relation columns")?;
        Ok(Self {
            oid,
            schema,
            name,
            identity,
            count,
            columns,
        })
    }

    /// Its columns, in the order of the tuples.
    pub fn columns(&self) -> impl Iterator<Item = Result<RelationColumn<'a>, DecodeError>> {
        let mut cursor = Cursor::new(self.columns);
        (0..self.count).map(move |_| RelationColumn::decode(&mut cursor))
    }
}

impl<'a> RelationColumn<'a> {
    fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            is_key: one_of(cursor, &[0, 1], "Relation column flags")? == 1,
            name: text(cursor, "Relation column name")?,
            type_oid: cursor.u32_be("Relation column type")?,
            type_modifier: cursor.i32_be("Relation column modifier")?,
        })
    }
}

impl<'a> Type<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            oid: cursor.u32_be("Type OID")?,
            schema: text(cursor, "Type schema")?,
            name: text(cursor, "Type name")?,
        })
    }
}

impl<'a> Truncate<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let count = cursor.u32_be("Truncate count")? as usize;
        Ok(Self {
            options: one_of(cursor, &[0, 1, 2, 3], "Truncate options")?,
            relations: cursor.take(count.saturating_mul(4), "Truncate relations")?,
        })
    }
}
