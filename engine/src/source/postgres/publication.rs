//! Which tables the server publishes, against those that `tables` selects.

use super::checks::{Facts, listed, requirement};
use super::server::{Publication, UserTable, quoted};
use crate::config::{OnUnpublished, Selection};
use crate::source::{Outcome, Requirement};

/// What has to be published for a table's rows to arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// `schema.table`, as SQL writes it.
    pub(super) quoted: String,
    /// Whether we may publish it.
    pub(super) owned: bool,
}

/// Selected tables that the publication lacks. A partition is published by its root where the publication goes by roots, and by
/// itself otherwise; a partitioned table has no rows of its own.
pub(super) fn missing(
    tables: &[UserTable],
    published: &[(String, String)],
    via_root: bool,
    selection: &Selection,
) -> Vec<Missing> {
    let mut missing: Vec<Missing> = (tables.iter())
        .filter(|table| match via_root {
            true => !table.is_partition,
            false => !table.partitioned,
        })
        .filter(|table| selection.includes(&table.schema, &table.name))
        .filter(|table| {
            !(published.iter()).any(|(schema, name)| *schema == table.schema && *name == table.name)
        })
        .map(|table| Missing {
            quoted: table.quoted(),
            owned: table.owned,
        })
        .collect();
    missing.sort_by(|a, b| a.quoted.cmp(&b.quoted));
    missing
}

/// `ALTER PUBLICATION … ADD TABLE …`.
pub(super) fn add(publication: &str, tables: &[Missing]) -> String {
    let names: Vec<&str> = tables.iter().map(|table| &*table.quoted).collect();
    format!(
        "ALTER PUBLICATION {} ADD TABLE {}",
        quoted(publication),
        names.join(", ")
    )
}

/// `CREATE PUBLICATION …` for the tables that are selected: all of them where the selection is everything and we may.
pub(super) fn create(publication: &str, tables: &[Missing], all: bool) -> String {
    let what = match (all, tables.is_empty()) {
        (true, _) => " FOR ALL TABLES".to_owned(),
        (false, true) => String::new(),
        (false, false) => {
            let names: Vec<&str> = tables.iter().map(|table| &*table.quoted).collect();
            format!(" FOR TABLE {}", names.join(", "))
        }
    };
    format!(
        "CREATE PUBLICATION {}{what} WITH (publish_via_partition_root = true)",
        quoted(publication)
    )
}

/// What the publication must be.
pub(super) fn requirements(facts: &Facts<'_>) -> Vec<Requirement> {
    let name = &facts.ours.publication;
    let Some(publication) = facts.publication else {
        return vec![creatable(facts)];
    };
    let mut list = vec![operations(name, publication)];
    if facts.truncates {
        list.push(truncates(name, publication));
    }
    let missing = missing(
        facts.tables,
        facts.published,
        publication.via_root,
        facts.selection,
    );
    let what = format!("publication {name} has every captured table");
    let outcome = if publication.all_tables || missing.is_empty() {
        Outcome::Met
    } else if publication.owned && missing.iter().all(|table| table.owned) {
        // Added when the stream begins.
        Outcome::Met
    } else {
        let names: Vec<String> = missing.iter().map(|table| table.quoted.clone()).collect();
        let text = format!(
            "it lacks {}; run {} as their owner",
            listed(&names),
            add(name, &missing)
        );
        match facts.ours.on_unpublished {
            OnUnpublished::Warn => Outcome::Advice(text),
            OnUnpublished::Halt => Outcome::Missing(text),
        }
    };
    list.push(requirement(what, outcome));
    list
}

fn creatable(facts: &Facts<'_>) -> Requirement {
    let name = &facts.ours.publication;
    let wanted = missing(facts.tables, &[], true, facts.selection);
    let all = facts.role.superuser && facts.selection.is_everything();
    let may =
        facts.role.superuser || (facts.role.may_create && wanted.iter().all(|table| table.owned));
    let outcome = match may && !facts.recovery {
        true => Outcome::Met,
        false => Outcome::Missing(format!(
            "it is not there and we may not create it; run {} in database {}",
            create(name, &wanted, all),
            facts.database
        )),
    };
    requirement(
        format!("publication {name} exists or can be created"),
        outcome,
    )
}

fn truncates(name: &str, publication: &Publication) -> Requirement {
    let outcome = match publication.truncates {
        true => Outcome::Met,
        false => Outcome::Advice(format!(
            "it leaves out truncate, so kafka.truncates = true has nothing to write; run ALTER PUBLICATION {} SET (publish = 'insert, \
             update, delete, truncate')",
            quoted(name)
        )),
    };
    requirement(format!("publication {name} has truncates"), outcome)
}

fn operations(name: &str, publication: &Publication) -> Requirement {
    let outcome = match publication.lacks.is_empty() {
        true => Outcome::Met,
        false => Outcome::Advice(format!(
            "it leaves out {}; run ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
            publication.lacks.join(" and "),
            quoted(name)
        )),
    };
    requirement(
        format!("publication {name} has inserts, updates and deletes"),
        outcome,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, partitioned: bool, is_partition: bool) -> UserTable {
        UserTable {
            schema: "public".into(),
            name: name.into(),
            partitioned,
            is_partition,
            identity: 'd',
            has_key: true,
            owned: true,
        }
    }

    #[test]
    fn partitions_count_as_the_publication_names_them() {
        let tables = [
            table("events", false, false),
            table("Log", true, false),
            table("log_1", false, true),
        ];
        let selection = Selection::new(&["public.*"]).unwrap();
        let names = |via_root| -> Vec<String> {
            let published = [("public".to_owned(), "events".to_owned())];
            missing(&tables, &published, via_root, &selection)
                .into_iter()
                .map(|table| table.quoted)
                .collect()
        };
        assert_eq!(names(true), ["public.\"Log\""]);
        assert_eq!(names(false), ["public.log_1"]);
    }

    #[test]
    fn statements_are_ready_to_run() {
        let tables = [
            Missing {
                quoted: "public.a".into(),
                owned: true,
            },
            Missing {
                quoted: "public.\"B\"".into(),
                owned: true,
            },
        ];
        assert_eq!(
            add("walbrook_shop", &tables),
            "ALTER PUBLICATION walbrook_shop ADD TABLE public.a, public.\"B\""
        );
        assert_eq!(
            create("w", &tables, false),
            "CREATE PUBLICATION w FOR TABLE public.a, public.\"B\" WITH (publish_via_partition_root = true)"
        );
        assert!(create("w", &tables, true).contains("FOR ALL TABLES"));
    }
}
