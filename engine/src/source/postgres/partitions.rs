//! Under whose name the rows of partitions are sent, against what `tables` selects.
//!
//! A publication with `publish_via_partition_root` sends them as rows of the topmost table that it has of those above them
//! (`get_rel_sync_entry` in pgoutput.c). Any other publication, and wal2json, send them as rows of the partition itself.

pub(super) mod identities;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::checks::{Facts, listed, requirement};
use super::publication::sends_old_rows;
use super::server::{Publication, UserTable, quoted};
use crate::config::{Plugin, Selection};
use crate::source::{Outcome, Requirement};

/// The names that a publication sends rows under.
#[derive(Debug)]
struct Names<'a> {
    by_oid: HashMap<u32, &'a UserTable>,
    published: HashSet<(&'a str, &'a str)>,
    all_tables: bool,
    via_root: bool,
}

impl<'a> Names<'a> {
    /// `publication` has `published`, as (schema, table). Without one: of the one that would be made.
    fn of(
        tables: &'a [UserTable],
        publication: Option<&Publication>,
        published: &'a [(String, String)],
    ) -> Self {
        Self {
            by_oid: tables.iter().map(|table| (table.oid, table)).collect(),
            published: (published.iter())
                .map(|(schema, name)| (&**schema, &**name))
                .collect(),
            all_tables: publication.is_some_and(|publication| publication.all_tables),
            via_root: publication.is_none_or(|publication| publication.via_root),
        }
    }

    /// The table and those above it, nearest first.
    fn line(&self, table: &'a UserTable) -> impl Iterator<Item = &'a UserTable> {
        let above = (table.above.iter()).filter_map(|oid| self.by_oid.get(oid).copied());
        std::iter::once(table).chain(above)
    }

    /// Under whose name rows of `table` are sent; `None`: they are not.
    fn sent_as(&self, table: &'a UserTable) -> Option<&'a UserTable> {
        let is_published = |table: &&UserTable| {
            self.all_tables || self.published.contains(&(&*table.schema, &*table.name))
        };
        match self.via_root {
            true => self.line(table).filter(is_published).last(),
            false => Some(table).filter(is_published),
        }
    }
}

/// Whether it matters which tables a partition belongs to: to whether its root may be published, to what it is sent as, and to what its old
/// rows have to hold.
pub(super) fn matter(tables: &[UserTable], selection: &Selection) -> bool {
    let is_selected = |table: &UserTable| selection.includes(&table.schema, &table.name);
    let mut parts = (tables.iter()).filter(|table| table.is_partition || table.partitioned);
    let are_bare = (tables.iter()).any(|table| table.is_partition && table.is_bare());
    are_bare
        || may_be_at_odds(tables)
        || parts.next().is_some_and(|first| {
            let selected = is_selected(first);
            parts.any(|table| is_selected(table) != selected)
        })
}

/// The tables whose indices decide whether partitions hold what they are taken to hold: none where all have the primary key that they have
/// from their root.
pub(super) fn with_differing_identities(tables: &[UserTable]) -> Vec<u32> {
    let is_one_of_them =
        |table: &&UserTable| table.partitioned || table.is_partition && table.identity != 'f';
    match may_be_at_odds(tables) {
        true => (tables.iter().filter(is_one_of_them))
            .map(|table| table.oid)
            .collect(),
        false => Vec::new(),
    }
}

/// Whether there are partitions whose old rows do not hold everything, and anything but the primary key that they have from their root.
fn may_be_at_odds(tables: &[UserTable]) -> bool {
    let mut leaves = (tables.iter())
        .filter(|table| table.is_partition && !table.partitioned && table.identity != 'f')
        .peekable();
    let is_plain = |table: &UserTable| table.identity == 'd' && table.has_index;
    leaves.peek().is_some()
        && (leaves.any(|table| table.identity != 'd')
            || (tables.iter()).any(|table| table.partitioned && !is_plain(table)))
}

/// Captured tables whose updates and deletes the server refuses, as SQL writes them: the publication has them, and they have no replica
/// identity.
pub(super) fn refusing(
    tables: &[UserTable],
    publication: &Publication,
    published: &[(String, String)],
    selection: &Selection,
) -> Vec<String> {
    if !sends_old_rows(Some(publication)) {
        return Vec::new();
    }
    let names = Names::of(tables, Some(publication), published);
    (tables.iter().filter(|table| table.is_bare()))
        .filter(|table| {
            (names.sent_as(table)).is_some_and(|of| selection.includes(&of.schema, &of.name))
        })
        .map(UserTable::quoted)
        .collect()
}

/// What `tables` selects in vain: a partition that is sent under another name, a partitioned table of which nothing is sent by its own.
pub(super) fn selected_in_vain(facts: &Facts<'_>) -> Option<Requirement> {
    let publication = &facts.ours.publication;
    let via_root = facts.ours.plugin == Plugin::PgOutput
        && facts.publication.is_none_or(|found| found.via_root);
    let text = match via_root {
        true => partitions_in_vain(facts).map(|text| match facts.publication {
            None => text,
            Some(_) => format!(
                "{text}; or have each partition sent under its own name: ALTER PUBLICATION {} SET (publish_via_partition_root = false)",
                quoted(publication)
            ),
        }),
        false => roots_in_vain(facts).map(|text| match facts.ours.plugin {
            Plugin::PgOutput => format!(
                "{text}; or have them sent under the root's: ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
                quoted(publication)
            ),
            Plugin::Wal2Json => format!("{text}; plugin = \"pgoutput\" can send them under the root's"),
        }),
    };
    Some(requirement(
        "tables selects partitions by the name that they are sent under",
        Outcome::Advice(text?),
    ))
}

/// Selected partitions that are sent under the name of a table that is not selected.
fn partitions_in_vain(facts: &Facts<'_>) -> Option<String> {
    let names = Names::of(facts.tables, facts.publication, facts.published);
    let is_selected = |table: &UserTable| facts.selection.includes(&table.schema, &table.name);
    let mut vain: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in facts.tables {
        if table.above.is_empty() || !is_selected(table) {
            continue;
        }
        // What is not published, or not yet, would be by its root.
        let of = names
            .sent_as(table)
            .or_else(|| names.line(table).last())
            .filter(|of| !is_selected(of));
        if let Some(of) = of {
            vain.entry(written(of)).or_default().push(written(table));
        }
    }
    let parts: Vec<String> = (vain.iter())
        .map(|(of, partitions)| format!("{} under that of {of}", listed(partitions)))
        .collect();
    let roots: Vec<String> = vain.keys().map(|of| format!("{of:?}")).collect();
    (!vain.is_empty()).then(|| {
        format!(
            "rows of partitions are sent under the name of their root (publish_via_partition_root), which is not selected, so nothing of \
             them is captured: {}; write {} in tables",
            listed(&parts),
            roots.join(", ")
        )
    })
}

/// Selected partitioned tables of which no partition is selected, while these are what is sent.
fn roots_in_vain(facts: &Facts<'_>) -> Option<String> {
    let is_selected = |table: &UserTable| facts.selection.includes(&table.schema, &table.name);
    let mut vain = Vec::new();
    let mut write = Vec::new();
    for root in facts.tables.iter().filter(|table| table.partitioned) {
        let mut partitions = (facts.tables.iter())
            .filter(|table| !table.partitioned && table.above.contains(&root.oid))
            .peekable();
        // Those of one that is above it say it of this one too.
        let is_said = (facts.tables.iter())
            .any(|table| root.above.contains(&table.oid) && is_selected(table));
        if !is_selected(root) || is_said || partitions.peek().is_none() {
            continue;
        }
        let partitions: Vec<&UserTable> = partitions.collect();
        if !partitions.iter().any(|table| is_selected(table)) {
            let names: Vec<String> = partitions.into_iter().map(written).collect();
            vain.push(format!("{} ({})", written(root), listed(&names)));
            write.extend(names.into_iter().map(|name| format!("{name:?}")));
        }
    }
    (!vain.is_empty()).then(|| {
        format!(
            "rows are sent under the names of the partitions, none of which is selected, so nothing is captured of {}; write {} in tables, \
             or a pattern that takes in those to come",
            listed(&vain),
            listed(&write)
        )
    })
}

/// As `tables` has it.
fn written(table: &UserTable) -> String {
    format!("{}.{}", table.schema, table.name)
}

#[cfg(test)]
mod tests;
