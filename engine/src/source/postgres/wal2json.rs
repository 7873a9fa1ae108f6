//! From wal2json's messages to events of a Batch.
//!
//! ```text
//! B ─► I | U | D … ─► C        each row with the names and types of its columns, and no relation's OID
//! ```
//! A row is made into what pgoutput would have sent, in the message's own bytes ([`protocol::postgres::wal2json::Shape`]), so that
//! everything behind the decoder knows one form. Which columns a table has is asked from the catalog when it comes up first, and again when
//! a row does not fit; where the catalog is of another time, the row's own description counts. What a row leaves out is unchanged TOAST only
//! where it can be: a column of fixed length, or one that a whole identity lacks, is one that the table did not have.

use std::collections::HashMap;
use std::ops::Range;

use protocol::postgres::wal2json::{self, Action, Heads, JsonText, Message, RowError};
use protocol::postgres::{Lsn, TypeCatalog};

use super::decode::{Change, Decoder};
use super::shapes::{CatalogColumn, Shape};
use super::tables::{Described, DescribedColumn, Index, Question, UNKNOWN_OID};
use crate::batch::{Batch, Operation};
use crate::source::SourceError;

/// Built-in types of a fixed length (`typlen` above 0 in `src/include/catalog/pg_type.dat`).
#[rustfmt::skip]
const FIXED_LENGTH: [u32; 40] = [
    // bool, "char", name, the integers, and numbers that stand for objects
    16, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,
    // point, lseg, box, line, circle
    600, 601, 603, 628, 718,
    // real, double precision, money, macaddr8, macaddr, uuid, pg_lsn, xid8
    700, 701, 790, 774, 829, 2950, 3220, 5069,
    // date, time, timestamp, timestamp with time zone, interval, time with time zone
    1082, 1083, 1114, 1184, 1186, 1266,
];

/// Tables by what the messages call them.
#[derive(Debug, Default)]
pub(super) struct Wal2Json {
    tables: HashMap<(Vec<u8>, Vec<u8>), usize>,
    entries: Vec<Entry>,
    /// The table of the last row, which most often is the next one's, too.
    last: Option<usize>,
    /// The head of the last row that was read whole, and the index of its table.
    heads: Heads,
    headed: usize,
    /// What the catalog said about a table that the next message needs.
    answer: Option<(String, String, Shape)>,
    /// End of the tuples of the last row in this batch.
    written: usize,
    /// Bytes that the batch grew by before the present message's end.
    growth: usize,
}

#[derive(Debug)]
struct Entry {
    /// As they stand in the messages.
    schema: Vec<u8>,
    name: Vec<u8>,
    /// Stands for the relation's OID.
    relation: u32,
    /// `None`: not captured.
    shape: Option<wal2json::Shape>,
}

impl Wal2Json {
    /// Decodes the message at `range` of `batch.bytes`, which stands at `lsn`. Returns what has to be asked before it can be read.
    pub(super) fn message(
        &mut self,
        decoder: &mut Decoder,
        batch: &mut Batch,
        range: Range<usize>,
        lsn: Lsn,
    ) -> Result<Option<Question>, SourceError> {
        let bytes = batch.bytes.get(range.clone()).unwrap_or_default();
        if let Some(head) = self.heads.again(bytes) {
            let row = (head.action, head.row_at, head.lsn);
            return self.row(decoder, batch, range, self.headed, row);
        }
        let head = Message::decode(bytes).map_err(|error| decoder.unreadable(lsn, error))?;
        match head.action {
            Action::Begin => {
                let commit = head.lsn.ok_or_else(|| decoder.misplaced(lsn, LACKS_LSN))?;
                let committed = head
                    .committed_us()
                    .map_err(|error| decoder.unreadable(lsn, error))?;
                let commit_us = committed.and_then(|us| u64::try_from(us).ok());
                decoder.begin(commit, head.xid.unwrap_or(0), commit_us)?;
            }
            Action::Commit => {
                let commit = head.lsn.ok_or_else(|| decoder.misplaced(lsn, LACKS_LSN))?;
                // A commit's frame stands where its transaction ends.
                decoder.commit(commit, head.next_lsn.unwrap_or(lsn))?;
            }
            Action::Truncate => {
                let row_lsn = head.lsn.unwrap_or(lsn);
                let index = match self.noted(decoder, bytes, &head)? {
                    Ok(index) => index,
                    Err(question) => return Ok(Some(question)),
                };
                let relation = self.entries.get(index).map_or(0, |entry| entry.relation);
                decoder.truncate(batch, relation, row_lsn)?;
            }
            Action::Message => {}
            Action::Insert | Action::Update | Action::Delete => {
                let (action, row_at, row_lsn) = (head.action, head.row_at, head.lsn.unwrap_or(lsn));
                let index = match self.noted(decoder, bytes, &head)? {
                    Ok(index) => index,
                    Err(question) => return Ok(Some(question)),
                };
                self.heads.remember(bytes, &head);
                self.headed = index;
                return self.row(decoder, batch, range, index, (action, row_at, row_lsn));
            }
        }
        Ok(None)
    }

    #[inline]
    fn find(&mut self, schema: JsonText<'_>, table: JsonText<'_>) -> Option<usize> {
        if let Some(last) = self.last
            && let Some(entry) = self.entries.get(last)
            && entry.name == table.raw()
            && entry.schema == schema.raw()
        {
            return Some(last);
        }
        let key = (schema.raw().to_vec(), table.raw().to_vec());
        self.last = self.tables.get(&key).copied();
        self.last
    }

    /// The message's table, noted where it comes up first; or what to ask about it.
    #[inline]
    fn noted(
        &mut self,
        decoder: &mut Decoder,
        bytes: &[u8],
        head: &Message<'_>,
    ) -> Result<Result<usize, Question>, SourceError> {
        match self.find(head.schema, head.table) {
            Some(index) => Ok(Ok(index)),
            None => self.add(decoder, bytes, head),
        }
    }

    /// Takes note of a table that comes up first, or comes anew; or what to ask about it.
    #[cold]
    fn add(
        &mut self,
        decoder: &mut Decoder,
        bytes: &[u8],
        head: &Message<'_>,
    ) -> Result<Result<usize, Question>, SourceError> {
        let text = |of: JsonText<'_>| String::from_utf8_lossy(&of.unescaped()).into_owned();
        let (schema, name) = (text(head.schema), text(head.table));
        let key = (head.schema.raw().to_vec(), head.table.raw().to_vec());
        let known = self.tables.get(&key).copied();
        let index = known.unwrap_or(self.entries.len());
        let relation = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let described = |identity, columns| Described {
            relation,
            schema: schema.as_str().into(),
            name: name.as_str().into(),
            identity,
            columns,
        };
        let shape = if decoder.selection.includes(&schema, &name) {
            // The catalog, and readers of the records, would know it by another name.
            for (raw, text) in [(head.schema, &schema), (head.table, &name)] {
                if *raw.unescaped() != *text.as_bytes() {
                    return Err(SourceError::halt(format!(
                        "at {}: the name of {schema}.{name} is not UTF-8; rename it, or leave it out of tables",
                        head.lsn.unwrap_or_default()
                    )));
                }
            }
            let row = match head.action {
                // It has no row that says anything.
                Action::Truncate => wal2json::Described::default(),
                _ => wal2json::Described::read(bytes, head)
                    .map_err(|error| decoder.unreadable(head.lsn.unwrap_or_default(), error))?,
            };
            let answer = self
                .answer
                .take()
                .filter(|(s, n, _)| *s == schema && *n == name);
            let Some((_, _, catalog)) = answer else {
                let types = missing_types(&decoder.tables.types, &row);
                return Ok(Err(Question::Named {
                    schema,
                    name,
                    types,
                }));
            };
            Some(define(decoder, head.action, &row, &catalog, described))
        } else {
            decoder.tables.exclude(described(b'd', Box::default()));
            None
        };
        decoder.forget_group();
        let entry = Entry {
            schema: key.0.clone(),
            name: key.1.clone(),
            relation,
            shape,
        };
        match self.entries.get_mut(index) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        self.tables.insert(key, index);
        self.last = Some(index);
        Ok(Ok(index))
    }

    #[inline]
    fn row(
        &mut self,
        decoder: &mut Decoder,
        batch: &mut Batch,
        range: Range<usize>,
        index: usize,
        (action, row_at, lsn): (Action, usize, Lsn),
    ) -> Result<Option<Question>, SourceError> {
        let mut range = range;
        let mut is_new = false;
        loop {
            let Some(entry) = self.entries.get_mut(index) else {
                return Err(decoder.misplaced(lsn, "a table that was just noted is not there"));
            };
            let relation = entry.relation;
            let operation = match action {
                Action::Insert => Operation::Create,
                Action::Update => Operation::Update,
                _ => Operation::Delete,
            };
            let Some(shape) = &mut entry.shape else {
                let nothing = Change {
                    relation,
                    operation,
                    before: None,
                    before_is_key: false,
                    after: None,
                    lsn,
                };
                return decoder.change(batch, nothing).map(|()| None);
            };
            let to = self.written.min(range.start);
            match shape.rewrite(&mut batch.bytes, to, range.clone(), action, row_at) {
                Ok(tuples) => {
                    let end =
                        |tuple: &Option<Range<usize>>| tuple.as_ref().map_or(0, |range| range.end);
                    self.written = end(&tuples.before).max(end(&tuples.after));
                    let change = Change {
                        relation,
                        operation,
                        before: tuples.before,
                        before_is_key: tuples.before_is_key,
                        after: tuples.after,
                        lsn,
                    };
                    return decoder.change(batch, change).map(|()| None);
                }
                Err(RowError::NoRoom { missing }) => {
                    batch
                        .bytes
                        .splice(range.start..range.start, std::iter::repeat_n(0, missing));
                    range = range.start + missing..range.end + missing;
                    self.growth += missing;
                }
                // The table has changed, here or in the catalog: what it is now is asked once, then the row's own words count.
                Err(RowError::Mismatch(mismatch)) => {
                    let bytes = batch.bytes.get(range.clone()).unwrap_or_default();
                    let head =
                        Message::decode(bytes).map_err(|error| decoder.unreadable(lsn, error))?;
                    if is_new {
                        let what = format!(
                            "a row that fits no description of its table: {:?}",
                            mismatch
                        );
                        return Err(decoder.misplaced(lsn, &what));
                    }
                    match self.add(decoder, bytes, &head)? {
                        Ok(_) => is_new = true,
                        Err(question) => return Ok(Some(question)),
                    }
                }
                Err(RowError::Decode(error)) => return Err(decoder.unreadable(lsn, error)),
            }
        }
    }

    /// Takes what the catalog says about a table.
    pub(super) fn answered(&mut self, schema: &str, name: &str, shape: Shape) {
        self.answer = Some((schema.to_owned(), name.to_owned(), shape));
    }

    /// Bytes that the batch grew by before the end of the message just read.
    #[inline]
    pub(super) fn take_growth(&mut self) -> usize {
        std::mem::take(&mut self.growth)
    }

    /// Another batch follows.
    pub(super) fn sealed(&mut self) {
        self.written = 0;
    }
}

const LACKS_LSN: &str = "wal2json gives no lsn, although include-lsn was asked for";

/// Defines a table from a row of it and what the catalog says; returns how its rows are read.
fn define(
    decoder: &mut Decoder,
    action: Action,
    row: &wal2json::Described,
    catalog: &Shape,
    described: impl FnOnce(u8, Box<[DescribedColumn]>) -> Described,
) -> wal2json::Shape {
    decoder.tables.learn(catalog);
    let types = &decoder.tables.types;
    let identity = catalog.identity.unwrap_or(b'd');
    let whole = whole(action, row, identity, &catalog.indices);
    let columns = columns(row, whole, &catalog.columns, types);
    let indices = indices(row, &catalog.indices);
    let key = key_names(row, &columns, &indices);
    let flagged = identity_columns(identity, row, &catalog.indices);
    let typed: Box<[DescribedColumn]> = columns
        .iter()
        .map(|column| typed(types, column, &catalog.columns, &flagged))
        .collect();
    // What this row lacks it may lack, whatever its type.
    let is_left_out = |column| {
        let mut there = row.columns.iter().flatten();
        action == Action::Update && !there.any(|other| other == column)
    };
    let inline: Vec<bool> = (columns.iter().zip(&typed))
        .map(|(column, typed)| is_inline(types, typed.type_oid) && !is_left_out(column))
        .collect();
    let is_full = identity == b'f' && (row.identity.is_none() || whole.is_some());
    decoder.tables.define(described(identity, typed), &indices);
    wal2json::Shape::new(&columns)
        .keyed_by(&key)
        .inline(&inline)
        .full(is_full)
}

/// Built-in types of the row's columns of which something has to be asked.
fn missing_types(types: &TypeCatalog, row: &wal2json::Described) -> Vec<u32> {
    (row.columns.iter().chain(&row.identity).flatten())
        .filter_map(|column| types.missing(types.by_name(&column.type_name)?.0))
        .collect()
}

/// The part of a row that has every column that the table had: an insert's columns, an identity of REPLICA IDENTITY FULL. That the catalog
/// says so is not enough, since it may be of another time: such an identity has more than the key, and all that the row after has.
fn whole<'a>(
    action: Action,
    row: &'a wal2json::Described,
    identity: u8,
    indices: &[Index],
) -> Option<&'a [wal2json::DescribedColumn]> {
    if action == Action::Insert {
        return row.columns.as_deref();
    }
    let old = row.identity.as_deref().filter(|_| identity == b'f')?;
    let key = key_of(row, indices);
    let has = |name: &str| old.iter().any(|column| *column.name == *name);
    let has_more = (old.iter()).any(|column| !key.iter().any(|name| **name == *column.name));
    let has_all = key.iter().all(|name| has(name))
        && (row.columns.iter().flatten()).all(|column| has(&column.name));
    (has_more && has_all).then_some(old)
}

/// The table's columns: the catalog's where the row can be one of them, without those that the row would have; otherwise those that the
/// row has. `whole` is what has them all.
fn columns(
    row: &wal2json::Described,
    whole: Option<&[wal2json::DescribedColumn]>,
    catalog: &[CatalogColumn],
    types: &TypeCatalog,
) -> Vec<wal2json::DescribedColumn> {
    let column = |column: &CatalogColumn| wal2json::DescribedColumn {
        name: column.name.as_str().into(),
        type_name: column.text.as_str().into(),
    };
    let named: Vec<_> = catalog.iter().map(column).collect();
    let fits = |part: &Option<Vec<wal2json::DescribedColumn>>| match part {
        None => true,
        Some(part) => {
            let mut rest = named.iter();
            part.iter().all(|column| rest.any(|other| other == column))
        }
    };
    let fits = fits(&row.columns) && fits(&row.identity);
    match (whole, &row.columns, &row.identity) {
        (Some(whole), ..) => whole.to_vec(),
        (None, None, _) if fits => named,
        // An update's own list lacks what is unchanged TOAST, so it is the catalog's that is made to fit.
        (None, Some(columns), _) if fits => (named.iter().zip(catalog))
            .filter(|(column, of)| columns.contains(column) || !is_inline(types, of.type_oid))
            .map(|(column, _)| column.clone())
            .collect(),
        (None, Some(columns), Some(identity)) if identity.len() > columns.len() => identity.clone(),
        (None, Some(columns), _) => columns.clone(),
        (None, None, Some(identity)) => identity.clone(),
        (None, None, None) => named,
    }
}

/// Whether values of the type are never TOASTed: those of a fixed length. A domain has the length of what it is based on.
fn is_inline(types: &TypeCatalog, oid: u32) -> bool {
    match types.row(oid) {
        Some(row) => row.length > 0,
        None => FIXED_LENGTH.contains(&oid),
    }
}

/// The catalog's indices with the primary key that the table had when the row was written: the catalog may be of another time, and
/// only it knows the order of the key's columns.
fn indices(row: &wal2json::Described, catalog: &[Index]) -> Vec<Index> {
    let Some(names) = &row.key else {
        return catalog.to_vec();
    };
    let is_it = |index: &Index| {
        index.is_primary
            && index.columns.len() == names.len()
            && (names.iter()).all(|name| index.columns.iter().any(|column| **column == **name))
    };
    // It tells of no deferrable one.
    let is_hidden = |index: &Index| index.is_primary && index.is_deferrable && names.is_empty();
    let is_it = |index: &Index| is_it(index) || is_hidden(index);
    let mut indices: Vec<Index> = (catalog.iter())
        .filter(|index| !index.is_primary || index.is_identity || is_it(index))
        .cloned()
        .collect();
    for index in &mut indices {
        index.is_primary = is_it(index);
    }
    if !names.is_empty() && !indices.iter().any(|index| index.is_primary) {
        indices.push(Index {
            name: String::new(),
            is_primary: true,
            is_identity: false,
            is_deferrable: false,
            columns: names.iter().map(ToString::to_string).collect(),
        });
    }
    indices
}

/// The primary key's columns in the table's order, as the plugin tells them of a row: those that it has told, or else the catalog's, of
/// which it tells no deferrable one. None without one.
fn key_names(
    row: &wal2json::Described,
    columns: &[wal2json::DescribedColumn],
    indices: &[Index],
) -> Vec<Box<str>> {
    let told = |index: &&Index| index.is_primary && !index.is_deferrable;
    let is_in_it = |name: &str| match &row.key {
        Some(names) => names.iter().any(|of| **of == *name),
        None => (indices.iter().find(told))
            .is_some_and(|index| index.columns.iter().any(|of| of == name)),
    };
    (columns.iter())
        .filter(|column| is_in_it(&column.name))
        .map(|column| column.name.clone())
        .collect()
}

/// Names of the columns that old images have for sure.
fn identity_columns(identity: u8, row: &wal2json::Described, indices: &[Index]) -> Vec<String> {
    let of = |index: Option<&Index>| index.map(|index| index.columns.clone()).unwrap_or_default();
    match identity {
        b'i' => of(indices.iter().find(|index| index.is_identity)),
        b'n' => Vec::new(),
        _ => key_of(row, indices),
    }
}

/// Names of the primary key's columns that the row tells, or else the catalog.
fn key_of(row: &wal2json::Described, indices: &[Index]) -> Vec<String> {
    match &row.key {
        Some(names) => names.iter().map(ToString::to_string).collect(),
        None => (indices.iter().find(|index| index.is_primary))
            .map(|index| index.columns.clone())
            .unwrap_or_default(),
    }
}

fn typed(
    types: &TypeCatalog,
    column: &wal2json::DescribedColumn,
    catalog: &[CatalogColumn],
    flagged: &[String],
) -> DescribedColumn {
    let same =
        |other: &&CatalogColumn| *other.name == *column.name && *other.text == *column.type_name;
    let (type_oid, type_modifier) = match catalog.iter().find(same) {
        Some(other) => (other.type_oid, other.type_modifier),
        None => (types.by_name(&column.type_name)).unwrap_or((UNKNOWN_OID, -1)),
    };
    DescribedColumn {
        name: column.name.clone(),
        type_oid,
        type_modifier,
        is_key: flagged.iter().any(|name| **name == *column.name),
    }
}
