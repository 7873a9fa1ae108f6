//! Which table a relation of the stream means, at no cost for what repeats.
//!
//! The server describes a table before its first row in a session, and again after every change of it. A description with the same
//! content as before keeps its version. What a description lacks (the order of a key's columns, types that are not built in) is asked
//! from the catalog. A key that the catalog said is asked for again whenever the table is described again: REPLICA IDENTITY FULL flags
//! every column, so that another primary key does not show.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use protocol::postgres::{Column, TypeCatalog};

use super::shapes;
use crate::config::Selection;
use crate::schema::{Columns, Postgres, Table};

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// OID of the relation.
    pub(super) relation: u32,
    pub(super) schema: Box<str>,
    pub(super) name: Box<str>,
    /// `d` default, `n` nothing, `f` full, `i` index.
    pub(super) identity: u8,
    pub(super) columns: Box<[DescribedColumn]>,
}

/// A column as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DescribedColumn {
    pub(super) name: Box<str>,
    pub(super) type_oid: u32,
    pub(super) type_modifier: i32,
    /// Whether it belongs to the replica identity.
    pub(super) is_key: bool,
}

/// A unique index whose columns are never null, from the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) name: String,
    pub(super) is_primary: bool,
    pub(super) is_identity: bool,
    /// A constraint that may be broken until its transaction ends: no replica identity, but a key of what is committed.
    pub(super) is_deferrable: bool,
    /// Names of its columns in its order.
    pub(super) columns: Vec<String>,
}

/// What is known of a table.
#[derive(Debug)]
pub(super) enum Shape {
    /// Captured: rows become events.
    Captured(Arc<Table>),
    /// Not captured: rows are counted.
    Excluded,
    /// To be completed by [`Tables::complete`] before its rows are read.
    Wanted,
}

/// A table as it was described last.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) described: Described,
    pub(super) shape: Shape,
    /// Whether the catalog has just answered: the description that led to the question is read once more.
    is_answered: bool,
    /// Where the table stands in a batch: the batch's number, and its index in [`crate::batch::Batch::tables`].
    pub(super) slot: (u64, u32),
}

impl Entry {
    /// In no batch.
    const NO_SLOT: (u64, u32) = (u64::MAX, 0);

    fn new(described: Described, shape: Shape) -> Self {
        Self {
            described,
            shape,
            is_answered: false,
            slot: Self::NO_SLOT,
        }
    }
}

/// What has to be asked from the catalog before the stream can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) enum Question {
    /// About a relation that pgoutput described.
    Relation(Wanted),
    /// About a table that wal2json named, and about types that a row of it has.
    Named {
        schema: String,
        name: String,
        types: Vec<u32>,
    },
}

/// A table of which more has to be asked before its rows can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Wanted {
    pub(super) described: Described,
    /// Types that the catalog has to explain.
    pub(super) types: Vec<u32>,
    pub(super) index: usize,
}

/// The type of what nobody can name any more (`InvalidOid`).
pub(super) const UNKNOWN_OID: u32 = 0;

/// All tables of the stream.
#[derive(Debug)]
pub(super) struct Tables {
    database: Box<str>,
    /// Index into `entries` by the relation's OID.
    by_relation: HashMap<u32, usize>,
    entries: Vec<Entry>,
    /// The relation asked last, which most often is the next one too.
    last: Option<(u32, usize)>,
    versions: u64,
    /// Columns of types that nobody knows, and those types, of which that has been said.
    told: BTreeSet<(String, u32)>,
    pub(super) types: TypeCatalog,
}

impl Tables {
    pub(super) fn new(database: &str) -> Self {
        Self {
            database: database.into(),
            by_relation: HashMap::new(),
            entries: Vec::new(),
            last: None,
            versions: 0,
            told: BTreeSet::new(),
            types: TypeCatalog::new(),
        }
    }

    /// Takes note of a description. Returns what has to be asked from the catalog before rows of it can be read.
    pub(super) fn note(&mut self, described: Described, selection: &Selection) -> Option<Wanted> {
        let known = self.by_relation.get(&described.relation).copied();
        let index = match known {
            Some(index) if self.entries.get(index)?.described == described => index,
            Some(index) => {
                let shape = self.shape(&described, selection);
                *self.entries.get_mut(index)? = Entry::new(described, shape);
                index
            }
            None => {
                let shape = self.shape(&described, selection);
                self.by_relation
                    .insert(described.relation, self.entries.len());
                self.entries.push(Entry::new(described, shape));
                return self.wanted(self.entries.len() - 1, false);
            }
        };
        let entry = self.entries.get_mut(index)?;
        let is_answered = std::mem::take(&mut entry.is_answered);
        self.wanted(index, !is_answered)
    }

    /// What has to be asked about a table: what is not known, and `again` what its description does not show, which may have changed.
    fn wanted(&self, index: usize, again: bool) -> Option<Wanted> {
        let entry = self.entries.get(index)?;
        let is_wanted = match &entry.shape {
            Shape::Wanted => true,
            Shape::Captured(_) => again && shown_key(&entry.described).is_none(),
            Shape::Excluded => false,
        };
        is_wanted.then(|| Wanted {
            described: entry.described.clone(),
            types: self.missing_types(&entry.described),
            index,
        })
    }

    /// Takes note of the types that the catalog has explained.
    pub(super) fn learn(&mut self, shape: &shapes::Shape) {
        for row in &shape.types {
            self.types.insert(row.clone());
        }
        if let Some(digits) = shape.money_digits {
            self.types.note_money(digits);
        }
    }

    fn missing_types(&self, described: &Described) -> Vec<u32> {
        let missing = |column: &DescribedColumn| self.types.missing(column.type_oid);
        let mut oids: Vec<u32> = described.columns.iter().filter_map(missing).collect();
        oids.sort_unstable();
        oids.dedup();
        oids
    }

    fn shape(&mut self, described: &Described, selection: &Selection) -> Shape {
        if !selection.includes(&described.schema, &described.name) {
            return Shape::Excluded;
        }
        match shown_key(described) {
            Some(key) if self.missing_types(described).is_empty() => self.captured(described, key),
            _ => Shape::Wanted,
        }
    }

    fn captured(&mut self, described: &Described, key: Box<[u16]>) -> Shape {
        self.versions += 1;
        for text in self.unknown(described) {
            tracing::warn!("{text}");
        }
        let column = |column: &DescribedColumn| Column {
            name: column.name.clone(),
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            // What even the catalog does not know (dropped since) is text, as the server wrote it.
            kind: (self.types)
                .resolve(column.type_oid, column.type_modifier)
                .unwrap_or(protocol::postgres::ColumnType::Text),
        };
        Shape::Captured(Arc::new(Table {
            version: self.versions,
            schema: described.schema.clone(),
            name: described.name.clone(),
            key,
            columns: Columns::Postgres(Postgres {
                database: self.database.clone(),
                columns: described.columns.iter().map(column).collect(),
                identity: (0u16..)
                    .zip(&described.columns)
                    .filter(|(_, column)| column.is_key || described.identity == b'f')
                    .map(|(number, _)| number)
                    .collect(),
                is_full: described.identity == b'f',
            }),
        }))
    }

    /// What is to be said of columns whose types even the catalog does not know.
    fn unknown(&mut self, described: &Described) -> Vec<String> {
        let mut texts = Vec::new();
        for column in &described.columns {
            let Some(missing) = self.types.missing(column.type_oid) else {
                continue;
            };
            let place = format!(
                "column {} of {}.{}",
                column.name, described.schema, described.name
            );
            let which = match missing {
                UNKNOWN_OID => String::new(),
                oid => format!(" (OID {oid})"),
            };
            if self.told.insert((place.clone(), missing)) {
                texts.push(format!(
                    "{place} has a type{which} that the catalog does not have, or no more: its values are written as the texts that the \
                     server has for them"
                ));
            }
        }
        texts
    }

    /// Gives `wanted` its key, from the indices that the catalog has; `identity` is its `relreplident` of the relation, `None` where it
    /// does not have that under this name. A later description that came meanwhile stays, and so does what was known where the catalog
    /// says the same, or is of another time than the stream.
    pub(super) fn complete(&mut self, wanted: &Wanted, identity: Option<u8>, indices: &[Index]) {
        let described = &wanted.described;
        let Some(entry) =
            (self.entries.get_mut(wanted.index)).filter(|entry| entry.described == *described)
        else {
            return;
        };
        entry.is_answered = true;
        let key = key(described, indices);
        if let Shape::Captured(table) = &entry.shape
            && (table.key == key || !is_of_its_time(described, identity, indices))
        {
            return;
        }
        let shape = self.captured(described, key);
        if let Some(entry) = self.entries.get_mut(wanted.index) {
            entry.shape = shape;
            entry.slot = Entry::NO_SLOT;
        }
    }

    /// Takes note of a table whose key is known. Its number stands for the relation's OID.
    pub(super) fn define(&mut self, described: Described, indices: &[Index]) {
        let key = key(&described, indices);
        let shape = self.captured(&described, key);
        self.put(described, shape);
    }

    /// Takes note of a table that is not captured.
    pub(super) fn exclude(&mut self, described: Described) {
        self.put(described, Shape::Excluded);
    }

    fn put(&mut self, described: Described, shape: Shape) {
        let relation = described.relation;
        let entry = Entry::new(described, shape);
        match self.by_relation.get(&relation) {
            Some(index) => {
                if let Some(place) = self.entries.get_mut(*index) {
                    *place = entry;
                }
            }
            None => {
                self.by_relation.insert(relation, self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// The table of `relation`; `None` when the stream has not described it.
    #[inline]
    pub(super) fn find(&mut self, relation: u32) -> Option<&mut Entry> {
        let index = match self.last {
            Some((last, index)) if last == relation => index,
            _ => {
                let index = *self.by_relation.get(&relation)?;
                self.last = Some((relation, index));
                index
            }
        };
        self.entries.get_mut(index)
    }
}

/// The key where the description alone says what it is: with the default identity the flagged columns are the primary key's, and what one
/// column's order is, everybody knows.
fn shown_key(described: &Described) -> Option<Box<[u16]>> {
    if described.identity != b'd' {
        return None;
    }
    let mut flagged = (0u16..)
        .zip(&described.columns)
        .filter(|(_, column)| column.is_key);
    match (flagged.next(), flagged.next()) {
        (Some((number, _)), None) => Some([number].into()),
        _ => None,
    }
}

/// The key's columns in key order (docs/formats.md): the primary key, unless the old images lack columns of it; then the identity's
/// index; otherwise the first unique index by name.
pub(super) fn key(described: &Described, indices: &[Index]) -> Box<[u16]> {
    let numbers = |index: &Index| -> Option<Box<[u16]>> {
        let number = |name: &String| {
            let at = described.columns.iter().position(|c| *c.name == **name)?;
            u16::try_from(at).ok()
        };
        index.columns.iter().map(number).collect()
    };
    let has_old = |key: &[u16]| {
        let flagged = |n: &u16| {
            described
                .columns
                .get(usize::from(*n))
                .is_some_and(|c| c.is_key)
        };
        described.identity != b'i' || key.iter().all(flagged)
    };
    let primary = indices.iter().find(|index| index.is_primary);
    if let Some(key) = primary.and_then(numbers).filter(|key| has_old(key)) {
        let flagged = described.columns.iter().filter(|c| c.is_key).count();
        // A deferrable one is no identity: no column is flagged, and the server refuses updates and deletes.
        let is_hidden = flagged == 0 && primary.is_some_and(|index| index.is_deferrable);
        if described.identity != b'd'
            || is_hidden
            || flagged == key.len() && key.iter().all(|n| has_flag(described, *n))
        {
            return key;
        }
    }
    let flagged: Box<[u16]> = (0u16..)
        .zip(&described.columns)
        .filter(|(_, column)| column.is_key)
        .map(|(number, _)| number)
        .collect();
    match described.identity {
        b'i' => {
            let identity = indices.iter().find(|index| index.is_identity);
            identity.and_then(numbers).unwrap_or(flagged)
        }
        // The catalog is of another time than the stream: its primary key is not the one of these rows.
        b'd' if !flagged.is_empty() => flagged,
        _ => {
            let mut unique: Vec<&Index> =
                indices.iter().filter(|index| !index.is_primary).collect();
            unique.sort_by_key(|index| (index.is_deferrable, &index.name));
            unique.into_iter().find_map(numbers).unwrap_or_default()
        }
    }
}

/// Whether the catalog, which may be ahead of the stream by any number of changes, can be one that a description was made from: the same
/// identity, of the flagged columns, and a primary key of columns that there are.
fn is_of_its_time(described: &Described, identity: Option<u8>, indices: &[Index]) -> bool {
    let is_column = |name: &String| {
        described
            .columns
            .iter()
            .any(|column| *column.name == **name)
    };
    let shows = |index: Option<&Index>| {
        let columns = index.map_or(&[][..], |index| &index.columns);
        (described.columns.iter())
            .all(|column| column.is_key == columns.iter().any(|name| **name == *column.name))
    };
    let primary = indices.iter().find(|index| index.is_primary);
    identity == Some(described.identity)
        && primary.is_none_or(|index| index.columns.iter().all(is_column))
        && match described.identity {
            b'd' => shows(primary.filter(|index| !index.is_deferrable)),
            b'i' => shows(indices.iter().find(|index| index.is_identity)),
            _ => true,
        }
}

fn has_flag(described: &Described, number: u16) -> bool {
    (described.columns.get(usize::from(number))).is_some_and(|column| column.is_key)
}

#[cfg(test)]
mod tests;
