//! Which table a relation of the stream means, at no cost for what repeats.
//!
//! The server describes a table before its first row in a session, and again after every change of it. A description with the same
//! content as before keeps its version. What a description lacks (the order of a key's columns, types that are not built in) is asked
//! from the catalog. A key that the catalog said is asked for again whenever the table is described again: REPLICA IDENTITY FULL flags
//! every column, so that another primary key does not show.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::postgres::{Column, TypeCatalog};

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
    /// About a table that wal2json named.
    Named { schema: String, name: String },
}

/// A table of which more has to be asked before its rows can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Wanted {
    pub(super) described: Described,
    /// Types that the catalog has to explain.
    pub(super) types: Vec<u32>,
    pub(super) index: usize,
}

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
            }),
        }))
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
fn key(described: &Described, indices: &[Index]) -> Box<[u16]> {
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
mod tests {
    use super::*;

    fn described(identity: u8, columns: &[(&str, bool)]) -> Described {
        Described {
            relation: 16_384,
            schema: "public".into(),
            name: "t".into(),
            identity,
            columns: (columns.iter())
                .map(|(name, is_key)| DescribedColumn {
                    name: (*name).into(),
                    type_oid: 25,
                    type_modifier: -1,
                    is_key: *is_key,
                })
                .collect(),
        }
    }

    fn index(name: &str, is_primary: bool, is_identity: bool, columns: &[&str]) -> Index {
        Index {
            name: name.into(),
            is_primary,
            is_identity,
            is_deferrable: false,
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        }
    }

    #[test]
    fn keys_follow_the_catalog_where_it_fits_the_stream() {
        let pk = || index("t_pkey", true, false, &["b", "a"]);
        let unique = || index("t_u", false, false, &["c"]);
        let all = [("a", true), ("b", true), ("c", true)];
        let two = [("a", true), ("b", true), ("c", false)];
        let third = [("a", false), ("b", false), ("c", true)];
        let none = [("a", false), ("b", false), ("c", false)];
        let cases: [(Described, Vec<Index>, &[u16]); 9] = [
            // Key order is the index's, not the table's.
            (described(b'd', &two), vec![pk(), unique()], &[1, 0]),
            // REPLICA IDENTITY FULL flags everything; the primary key stays the key.
            (described(b'f', &all), vec![pk(), unique()], &[1, 0]),
            (described(b'f', &all), vec![unique()], &[2]),
            (described(b'f', &all), vec![], &[]),
            (described(b'n', &none), vec![pk()], &[1, 0]),
            // By an index that lacks the primary key: old images have nothing but the index's columns.
            (
                described(b'i', &third),
                vec![pk(), index("t_u", false, true, &["c"])],
                &[2],
            ),
            (
                described(b'i', &all),
                vec![pk(), index("t_u", false, true, &["c", "a", "b"])],
                &[1, 0],
            ),
            // The catalog has moved on: what the stream flags is the key.
            (
                described(b'd', &two),
                vec![index("t_pkey", true, false, &["c"])],
                &[0, 1],
            ),
            (
                described(b'd', &none),
                vec![unique(), index("a_u", false, false, &["gone"])],
                &[2],
            ),
        ];
        for (described, indices, expected) in cases {
            assert_eq!(
                &*key(&described, &indices),
                expected,
                "{described:?} {indices:?}"
            );
        }
    }

    /// What is advised for such a table, REPLICA IDENTITY FULL, keeps its key.
    #[test]
    fn a_deferrable_primary_key_is_a_key() {
        let deferrable = Index {
            is_deferrable: true,
            ..index("t_pkey", true, false, &["b", "a"])
        };
        let unique = index("t_u", false, false, &["c"]);
        let indices = [deferrable.clone(), unique];
        let columns = |flagged| [("a", flagged), ("b", flagged), ("c", flagged)];
        for (identity, flagged) in [(b'f', true), (b'n', false), (b'd', false)] {
            let described = described(identity, &columns(flagged));
            assert_eq!(&*key(&described, &indices), &[1, 0], "{identity}");
            assert!(is_of_its_time(&described, Some(identity), &indices));
        }
        // Flagged columns are of a time with another primary key.
        let before = described(b'd', &[("a", false), ("b", false), ("c", true)]);
        assert_eq!(&*key(&before, std::slice::from_ref(&deferrable)), &[2]);
        assert!(!is_of_its_time(&before, Some(b'd'), &[deferrable]));
    }

    #[test]
    fn a_description_is_a_version_only_when_it_says_something_new() {
        let mut tables = Tables::new("shop");
        let everything = Selection::everything();
        let version = |tables: &mut Tables| match &tables.find(16_384).unwrap().shape {
            Shape::Captured(table) => table.version,
            other => panic!("{other:?}"),
        };
        let first = described(b'd', &[("a", true), ("b", false)]);
        assert_eq!(tables.note(first.clone(), &everything), None);
        let one = version(&mut tables);
        assert_eq!(tables.note(first, &everything), None);
        assert_eq!(version(&mut tables), one);
        let other = described(b'd', &[("a", true), ("c", false)]);
        assert_eq!(tables.note(other, &everything), None);
        assert_ne!(version(&mut tables), one);
    }

    #[test]
    fn what_the_stream_does_not_say_is_asked() {
        let mut tables = Tables::new("shop");
        let everything = Selection::everything();
        let mut table = described(b'd', &[("a", true), ("b", false)]);
        table.columns[1].type_oid = 99_999;
        let wanted = tables.note(table, &everything).expect("an unknown type");
        assert_eq!(wanted.types, [99_999]);
        assert!(matches!(tables.find(16_384).unwrap().shape, Shape::Wanted));
        tables.complete(&wanted, None, &[index("t_pkey", true, false, &["a"])]);
        let Shape::Captured(table) = &tables.find(16_384).unwrap().shape else {
            panic!("still wanted");
        };
        assert_eq!(&*table.key, &[0]);
        let excluded = Selection::new(&["shop.*"]).unwrap();
        assert_eq!(
            tables.note(described(b'f', &[("a", true)]), &excluded),
            None
        );
        assert!(matches!(
            tables.find(16_384).unwrap().shape,
            Shape::Excluded
        ));
        assert!(tables.find(1).is_none());
    }

    #[test]
    fn a_key_that_no_description_shows_is_asked_for_again() {
        let pk = |columns: &[&str]| vec![index("t_pkey", true, false, columns)];
        let identity = |columns: &[&str]| vec![index("t_u", false, true, columns)];
        let all = [("a", true), ("b", true)];
        let none = [("a", false), ("b", false)];
        // The table, what the catalog says first and later, and the keys of both.
        let cases = [
            (
                described(b'f', &all),
                pk(&["a"]),
                pk(&["b", "a"]),
                ["a", "b a"],
            ),
            (described(b'f', &all), vec![], pk(&["b"]), ["", "b"]),
            (described(b'f', &all), pk(&["a"]), vec![], ["a", ""]),
            (described(b'n', &none), pk(&["a"]), pk(&["b"]), ["a", "b"]),
            (
                described(b'd', &all),
                pk(&["a", "b"]),
                pk(&["b", "a"]),
                ["a b", "b a"],
            ),
            (
                described(b'i', &all),
                identity(&["a", "b"]),
                identity(&["b", "a"]),
                ["a b", "b a"],
            ),
        ];
        for (table, first, later, keys) in cases {
            let mut tables = Tables::new("shop");
            let mut describe = |answer: Option<&[Index]>| -> (u64, String) {
                let everything = Selection::everything();
                let wanted = tables.note(table.clone(), &everything);
                let wanted = wanted.expect("a question");
                let relation = answer.map(|_| table.identity);
                tables.complete(&wanted, relation, answer.unwrap_or_default());
                // The description that led to the question is read once more.
                assert_eq!(tables.note(table.clone(), &everything), None);
                let Shape::Captured(found) = &tables.find(16_384).unwrap().shape else {
                    panic!("still wanted");
                };
                let name = |n: &u16| &*table.columns[usize::from(*n)].name;
                let key: Vec<&str> = found.key.iter().map(name).collect();
                (found.version, key.join(" "))
            };
            let one = describe(Some(&first));
            assert_eq!(one.1, keys[0], "{table:?}");
            // As after every reconnect; the third time the table is gone, while the stream is not there yet.
            assert_eq!(describe(Some(&first)), one);
            assert_eq!(describe(None), one);
            let two = describe(Some(&later));
            assert_eq!(two.1, keys[1], "{table:?}");
            assert_ne!(two.0, one.0);
            assert_eq!(describe(Some(&later)), two);
        }
        // What the description shows needs no catalog.
        let mut tables = Tables::new("shop");
        let everything = Selection::everything();
        let sole = described(b'd', &[("a", true), ("b", false)]);
        for _ in 0..3 {
            assert_eq!(tables.note(sole.clone(), &everything), None);
        }
    }

    #[test]
    fn a_new_key_is_of_a_new_table_in_the_batch() {
        let mut tables = Tables::new("shop");
        let everything = Selection::everything();
        let table = described(b'f', &[("a", true), ("b", true)]);
        for (column, slot) in [("a", Entry::NO_SLOT), ("a", (7, 3)), ("b", Entry::NO_SLOT)] {
            let wanted = tables.note(table.clone(), &everything).unwrap();
            let keys = [index("t_pkey", true, false, &[column])];
            tables.complete(&wanted, Some(b'f'), &keys);
            tables.note(table.clone(), &everything);
            let entry = tables.find(16_384).unwrap();
            assert_eq!(entry.slot, slot, "{column}");
            entry.slot = (7, 3);
        }
    }

    #[test]
    fn a_catalog_of_another_time_changes_no_key() {
        let pk = |columns: &[&str]| vec![index("t_pkey", true, false, columns)];
        let full = described(b'f', &[("a", true), ("b", true)]);
        let default = described(b'd', &[("b", true), ("a", true), ("c", false)]);
        let cases: [(Described, Option<u8>, Vec<Index>); 6] = [
            // A column that comes later, another identity, and a table that is gone or has another name.
            (full.clone(), Some(b'f'), pk(&["later"])),
            (full.clone(), Some(b'd'), pk(&["b"])),
            (full, None, pk(&["b"])),
            // The flagged columns are another primary key's, whose order nobody knows any more.
            (default.clone(), Some(b'd'), pk(&["a", "c"])),
            (default.clone(), Some(b'd'), pk(&["a"])),
            (default, Some(b'd'), vec![]),
        ];
        for (table, identity, indices) in cases {
            let mut tables = Tables::new("shop");
            let everything = Selection::everything();
            let mut complete = |identity, indices: &[Index]| -> Box<[u16]> {
                let wanted = tables.note(table.clone(), &everything).unwrap();
                tables.complete(&wanted, identity, indices);
                tables.note(table.clone(), &everything);
                match &tables.find(16_384).unwrap().shape {
                    Shape::Captured(table) => table.key.clone(),
                    other => panic!("{other:?}"),
                }
            };
            let first: &[&str] = match table.identity {
                b'f' => &["a"],
                _ => &["a", "b"],
            };
            let one = complete(Some(table.identity), &pk(first));
            assert_eq!(complete(identity, &indices), one, "{table:?} {indices:?}");
        }
    }
}
