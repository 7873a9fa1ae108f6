//! Which table an id of the stream means, at no cost for what repeats.
//!
//! Every statement brings the TABLE_MAP of its tables again, so one with the same bytes as before is recognised by comparing them.
//! A table whose TABLE_MAP changes gets a new version; one that comes under a new id with the same bytes keeps its version.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::DecodeError;
use protocol::mysql::table_map::{Description, TableMap};
use protocol::mysql::{Column, ColumnType};

use super::{names, shapes};
use crate::config::Selection;
use crate::schema::{Columns, Table};

/// Ids and tables that are remembered. Beyond it all are forgotten between two transactions: ids grow for ever on a server whose
/// table cache is too small.
const REMEMBERED_MAX: usize = 1 << 16;

/// What is known of a table.
#[derive(Debug)]
pub(super) enum Shape {
    /// Captured: rows become events.
    Captured(Arc<Table>),
    /// Not captured: rows are counted, for which types suffice.
    Excluded(Box<[Column]>),
    /// The TABLE_MAP says too little; to be completed by [`Tables::complete`] before its rows are read.
    Wanted {
        /// What it does say.
        description: Box<Description>,
        /// Whether rows become events.
        captured: bool,
    },
}

/// A table as its last TABLE_MAP has it.
#[derive(Debug)]
pub(super) struct Entry {
    /// `database.table`, for messages.
    pub(super) name: Box<str>,
    body: Box<[u8]>,
    pub(super) shape: Shape,
    /// Where the table stands in a batch: the batch's number, and its index in [`crate::batch::Batch::tables`].
    pub(super) slot: (u64, u32),
}

impl Entry {
    /// The columns, as far as walking over rows needs them.
    pub(super) fn columns(&self) -> &[Column] {
        match &self.shape {
            Shape::Captured(table) => table.columns.mysql(),
            Shape::Excluded(columns) => columns,
            Shape::Wanted { description, .. } => &description.columns,
        }
    }
}

/// A table whose shape has to be asked from the server before its rows can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) schema: Box<str>,
    pub(super) name: Box<str>,
    /// The TABLE_MAP's bytes behind the table id: what the shape belongs to.
    pub(super) body: Box<[u8]>,
    pub(super) description: Description,
    pub(super) captured: bool,
    index: usize,
}

#[cfg(test)]
impl Wanted {
    /// A table `shop.t` of this description.
    pub(super) fn for_test(description: Description) -> Self {
        Self {
            schema: "shop".into(),
            name: "t".into(),
            body: Box::default(),
            description,
            captured: true,
            index: 0,
        }
    }
}

/// All tables of the stream.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Index into `entries` by table id.
    by_id: HashMap<u64, usize>,
    /// Index into `entries` by database and table.
    by_name: HashMap<(Box<str>, Box<str>), usize>,
    entries: Vec<Entry>,
    /// The id asked last, which most often is the next one too.
    last: Option<(u64, usize)>,
    versions: u64,
    /// Tables that a TRUNCATE named, by database and table.
    truncated: HashMap<(Box<str>, Box<str>), Truncated>,
}

/// A table that a TRUNCATE names: no event says what columns it has, and its record needs none.
#[derive(Debug)]
pub(super) struct Truncated {
    /// Without columns and key.
    pub(super) table: Arc<Table>,
    /// Where it stands in a batch, as [`Entry::slot`].
    pub(super) slot: (u64, u32),
}

impl Tables {
    /// Takes note of a TABLE_MAP. Returns what has to be asked from the server when the event says too little.
    ///
    /// # Errors
    /// The event cannot be read.
    pub(super) fn note(
        &mut self,
        map: &TableMap<'_>,
        selection: &Selection,
    ) -> Result<Option<Wanted>, DecodeError> {
        if let Some(index) = self.index(map.table_id)
            && self
                .entries
                .get(index)
                .is_some_and(|entry| *entry.body == *map.body)
        {
            return Ok(self.wanted(index, map));
        }
        self.note_unknown(map, selection)
    }

    #[cold]
    fn note_unknown(
        &mut self,
        map: &TableMap<'_>,
        selection: &Selection,
    ) -> Result<Option<Wanted>, DecodeError> {
        let name: (Box<str>, Box<str>) = (map.database.into(), map.table.into());
        let known = self.by_name.get(&name).copied();
        let index = match known {
            Some(index) if *self.entries[index].body == *map.body => index,
            _ => {
                let entry = Entry {
                    name: format!("{}.{}", map.database, map.table).into(),
                    body: map.body.into(),
                    shape: self.shape(map, selection)?,
                    slot: (u64::MAX, 0),
                };
                match known {
                    Some(index) => {
                        self.entries[index] = entry;
                        index
                    }
                    None => {
                        self.entries.push(entry);
                        let index = self.entries.len() - 1;
                        self.by_name.insert(name, index);
                        index
                    }
                }
            }
        };
        self.by_id.insert(map.table_id, index);
        self.last = Some((map.table_id, index));
        Ok(self.wanted(index, map))
    }

    fn shape(&mut self, map: &TableMap<'_>, selection: &Selection) -> Result<Shape, DecodeError> {
        if !selection.includes(map.database, map.table) {
            let description = map.describe_without_labels()?;
            let hides_widths = map.mariadb && shapes::hides_widths(&description.columns);
            return Ok(match hides_widths {
                false => Shape::Excluded(description.columns.into_iter().map(bare).collect()),
                true => Shape::Wanted {
                    description: Box::new(description),
                    captured: false,
                },
            });
        }
        let mut description = map.describe()?;
        if map.mariadb {
            shapes::unname_hashes(&mut description.columns);
        }
        match &description.primary_key {
            // With names in the log, none says that there was no key: see `shapes`.
            Some(parts) if shapes::is_whole(&description, map.mariadb) => {
                let key = parts.iter().map(|part| part.column).collect();
                Ok(Shape::Captured(self.table(
                    map.database,
                    map.table,
                    description.columns,
                    key,
                )))
            }
            _ => Ok(Shape::Wanted {
                description: Box::new(description),
                captured: true,
            }),
        }
    }

    fn table(
        &mut self,
        schema: &str,
        name: &str,
        columns: Vec<Column>,
        key: Box<[u16]>,
    ) -> Arc<Table> {
        self.versions += 1;
        Arc::new(Table {
            version: self.versions,
            schema: schema.into(),
            name: name.into(),
            key,
            columns: Columns::MySql(columns.into()),
        })
    }

    /// The table of a TRUNCATE, a version of its own.
    pub(super) fn truncated(&mut self, schema: &str, name: &str) -> &mut Truncated {
        let Self {
            truncated,
            versions,
            ..
        } = self;
        truncated
            .entry((schema.into(), name.into()))
            .or_insert_with(|| {
                *versions += 1;
                Truncated {
                    table: Arc::new(Table {
                        version: *versions,
                        schema: schema.into(),
                        name: name.into(),
                        key: Box::default(),
                        columns: Columns::MySql(Box::default()),
                    }),
                    slot: (u64::MAX, 0),
                }
            })
    }

    fn wanted(&self, index: usize, map: &TableMap<'_>) -> Option<Wanted> {
        match &self.entries.get(index)?.shape {
            Shape::Wanted {
                description,
                captured,
            } => Some(Wanted {
                captured: *captured,
                schema: map.database.into(),
                name: map.table.into(),
                body: map.body.into(),
                description: (**description).clone(),
                index,
            }),
            _ => None,
        }
    }

    /// Gives a wanted table its columns and key.
    pub(super) fn complete(&mut self, wanted: &Wanted, columns: Vec<Column>, key: Box<[u16]>) {
        let shape = match wanted.captured {
            true => Shape::Captured(self.table(&wanted.schema, &wanted.name, columns, key)),
            // Their names tell which ones hide their widths.
            false => Shape::Excluded(columns.into()),
        };
        if let Some(entry) = self.entries.get_mut(wanted.index) {
            entry.shape = shape;
        }
    }

    #[inline]
    fn index(&mut self, id: u64) -> Option<usize> {
        match self.last {
            Some((last, index)) if last == id => Some(index),
            _ => {
                let index = *self.by_id.get(&id)?;
                self.last = Some((id, index));
                Some(index)
            }
        }
    }

    /// The table of a ROWS event.
    #[inline]
    pub(super) fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        let index = self.index(id)?;
        self.entries.get_mut(index)
    }

    /// Forgets a table whose definition changed (`None`: all tables), so that its next TABLE_MAP is read anew even where it has
    /// the same bytes: without names in it, a renamed column does not show. Statements may spell names in another case.
    pub(super) fn forget(&mut self, table: Option<(&str, &str)>) {
        for ((schema, name), index) in &self.by_name {
            let meant =
                table.is_none_or(|(a, b)| names::are_same(schema, a) && names::are_same(name, b));
            if meant {
                self.entries[*index].body = Box::default();
            }
        }
    }

    /// How many ids and tables are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize) {
        (self.by_id.len(), self.entries.len())
    }

    /// How many versions of captured tables there were.
    #[cfg(test)]
    pub(super) fn versions(&self) -> u64 {
        self.versions
    }

    /// Between two transactions: keeps memory bounded.
    pub(super) fn tidy(&mut self) {
        if self.by_id.len() > REMEMBERED_MAX {
            self.by_id.clear();
            self.last = None;
        }
        if self.entries.len() > REMEMBERED_MAX {
            self.by_id.clear();
            self.by_name.clear();
            self.entries.clear();
            self.last = None;
        }
        if self.truncated.len() > REMEMBERED_MAX {
            self.truncated.clear();
        }
    }
}

/// A column without the texts that counting rows does not need: a server may have many thousands of tables that are not captured.
fn bare(column: Column) -> Column {
    let labels = Box::default();
    Column {
        name: Box::default(),
        kind: match column.kind {
            ColumnType::Enum { width, .. } => ColumnType::Enum { width, labels },
            ColumnType::Set { width, .. } => ColumnType::Set { width, labels },
            kind => kind,
        },
        ..column
    }
}
