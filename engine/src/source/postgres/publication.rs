//! Which tables the server publishes, against those that `tables` selects.
//!
//! From the moment that a table without a replica identity is published, the server refuses its updates and deletes (chapter "Logical
//! Replication", section "Publication"): an engine that only reads must not do that to an application. Such tables are withheld.

use super::checks::{Facts, listed, requirement};
use super::generated;
use super::server::{Publication, Role, UserTable, quoted};
use crate::config::{OnUnpublished, Selection};
use crate::source::{Outcome, Requirement};

/// What has to be published for a table's rows to arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// `schema.table`, as SQL writes it.
    pub(super) quoted: String,
    /// Whether we may publish it.
    pub(super) owned: bool,
    /// The tables that hold its rows and have no replica identity, as SQL writes them: itself, or partitions.
    pub(super) bare: Vec<String>,
}

/// Selected tables that a publication has not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lacking {
    /// Those that can be published without harm.
    pub(super) harmless: Vec<Missing>,
    /// Those whose updates and deletes the server would refuse.
    pub(super) withheld: Vec<Missing>,
}

/// Selected tables that the publication lacks, which has `published`; without one, that a new one would have to have. A partition is
/// published by its root where the publication goes by roots, and by itself otherwise; a partitioned table has no rows of its own.
pub(super) fn lacking(
    tables: &[UserTable],
    publication: Option<&Publication>,
    published: &[(String, String)],
    selection: &Selection,
) -> Lacking {
    if publication.is_some_and(|publication| publication.all_tables) {
        return Lacking::default();
    }
    let via_root = publication.is_none_or(|publication| publication.via_root);
    let sends_old_rows = sends_old_rows(publication);
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
            bare: (tables.iter())
                .filter(|of| sends_old_rows && of.is_bare())
                .filter(|of| of.oid == table.oid || of.above.contains(&table.oid))
                .map(UserTable::quoted)
                .collect(),
        })
        .collect();
    missing.sort_by(|a, b| a.quoted.cmp(&b.quoted));
    let (harmless, withheld) = missing.into_iter().partition(|table| table.bare.is_empty());
    Lacking { harmless, withheld }
}

/// Whether updates or deletes are sent, as a new publication does: what is not sent needs no identity.
pub(super) fn sends_old_rows(publication: Option<&Publication>) -> bool {
    publication.is_none_or(|publication| {
        !["update", "delete"]
            .iter()
            .all(|it| publication.lacks.contains(it))
    })
}

/// Whether a new publication may be of all tables, those included that are made later.
pub(super) fn may_be_of_all(role: &Role, tables: &[UserTable], selection: &Selection) -> bool {
    role.superuser && selection.is_everything() && !tables.iter().any(UserTable::is_bare)
}

/// `ALTER PUBLICATION … ADD TABLE …`.
pub(super) fn add(publication: &str, tables: &[Missing]) -> String {
    format!(
        "ALTER PUBLICATION {} ADD TABLE {}",
        quoted(publication),
        names(tables)
    )
}

/// Warns before a `statement` that adds tables: rows are decoded with the publication of their time, so no stream has what they had before.
pub(super) fn warn_of_adding(statement: &str) {
    tracing::warn!(
        "{statement}: what was written there before is not captured; take a snapshot of it where there was anything"
    );
}

/// `CREATE PUBLICATION …` for these tables, or for all, on a server of version `major`.
pub(super) fn create(publication: &str, tables: &[Missing], all: bool, major: u32) -> String {
    let what = match (all, tables.is_empty()) {
        (true, _) => " FOR ALL TABLES".to_owned(),
        (false, true) => String::new(),
        (false, false) => format!(" FOR TABLE {}", names(tables)),
    };
    let generated = match major >= generated::PUBLISHED_FROM {
        true => ", publish_generated_columns = stored",
        false => "",
    };
    format!(
        "CREATE PUBLICATION {}{what} WITH (publish_via_partition_root = true{generated})",
        quoted(publication)
    )
}

/// Where, and as whom, a publication that lacks these tables is extended; nothing is altered on a standby.
pub(super) fn by_whom(recovery: bool) -> &'static str {
    match recovery {
        true => "on the primary, as their owner",
        false => "as their owner",
    }
}

/// Each by itself: without ONLY the tables that inherit from one come along, which need not be selected, and do not inherit its key.
fn names(tables: &[Missing]) -> String {
    let names: Vec<String> = (tables.iter())
        .map(|table| format!("ONLY {}", table.quoted))
        .collect();
    names.join(", ")
}

/// How a table comes to have none (`RelationGetReplicaIndex`).
pub(super) const NO_IDENTITY: &str =
    "no primary key or a deferrable one, NOTHING, or an index that was dropped";

/// Why these tables are withheld, and the statements that have them captured.
pub(super) fn why_withheld(publication: &str, withheld: &[Missing]) -> String {
    let names: Vec<String> = withheld.iter().map(|table| table.quoted.clone()).collect();
    let identities: Vec<String> = (withheld.iter().flat_map(|table| &table.bare))
        .map(|table| format!("ALTER TABLE {table} REPLICA IDENTITY FULL"))
        .collect();
    format!(
        "{} {} no replica identity ({NO_IDENTITY}): once published, the server would refuse updates and deletes there, so walbrook leaves it \
         to you, and nothing of it is captured; run {}; then {} (which is enough alone where rows are only inserted)",
        listed(&names),
        if names.len() == 1 { "has" } else { "each have" },
        identities.join("; "),
        add(publication, withheld)
    )
}

/// What the publication must be.
pub(super) fn requirements(facts: &Facts<'_>) -> Vec<Requirement> {
    let name = &facts.ours.publication;
    let lacking = facts.lacking();
    let Some(publication) = facts.publication else {
        let mut list = vec![creatable(facts, &lacking.harmless)];
        list.extend(identified(facts, &lacking.withheld));
        return list;
    };
    let mut list = vec![operations(name, publication)];
    if facts.truncates {
        list.push(truncates(name, publication));
    }
    let missing = &lacking.harmless;
    let what = format!("publication {name} has every captured table");
    let outcome = if missing.is_empty() {
        Outcome::Met
    } else if publication.owned && missing.iter().all(|table| table.owned) && !facts.recovery {
        // Added when the stream begins.
        Outcome::Met
    } else {
        let names: Vec<String> = missing.iter().map(|table| table.quoted.clone()).collect();
        unpublished(
            facts,
            format!(
                "it lacks {}; run {} {}",
                listed(&names),
                add(name, missing),
                by_whom(facts.recovery)
            ),
        )
    };
    list.push(requirement(what, outcome));
    list.extend(identified(facts, &lacking.withheld));
    list
}

/// What it means that selected tables are not published.
fn unpublished(facts: &Facts<'_>, text: String) -> Outcome {
    match facts.ours.on_unpublished {
        OnUnpublished::Warn => Outcome::Advice(text),
        OnUnpublished::Halt => Outcome::Missing(text),
    }
}

/// Selected tables that are withheld.
fn identified(facts: &Facts<'_>, withheld: &[Missing]) -> Option<Requirement> {
    let name = &facts.ours.publication;
    (!withheld.is_empty()).then(|| {
        requirement(
            format!("publication {name} can have every captured table"),
            unpublished(facts, why_withheld(name, withheld)),
        )
    })
}

fn creatable(facts: &Facts<'_>, wanted: &[Missing]) -> Requirement {
    let name = &facts.ours.publication;
    let all = may_be_of_all(facts.role, facts.tables, facts.selection);
    let may =
        facts.role.superuser || (facts.role.may_create && wanted.iter().all(|table| table.owned));
    let statement = || create(name, wanted, all, facts.settings.major());
    let outcome = match (may, facts.recovery) {
        (true, false) => Outcome::Met,
        (false, false) => Outcome::Missing(format!(
            "it is not there and we may not create it; run {} in database {}",
            statement(),
            facts.database
        )),
        (_, true) => Outcome::Missing(format!(
            "it is not there, and a standby cannot create it; run {} in database {} of the primary",
            statement(),
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
    use crate::config::{Keys, SlotSettings};
    use crate::source::postgres::generated::Generated;
    use crate::source::postgres::server::{Answer, Settings};
    use crate::source::postgres::unsent::Unsent;

    fn table(name: &str, partitioned: bool, is_partition: bool) -> UserTable {
        UserTable {
            oid: name.bytes().fold(0, |sum, byte| sum * 7 + u32::from(byte)),
            schema: "public".into(),
            name: name.into(),
            partitioned,
            is_partition,
            above: Vec::new(),
            indices: Vec::new(),
            identity: 'd',
            has_index: true,
            owned: true,
        }
    }

    /// Without a primary key.
    fn keyless(name: &str) -> UserTable {
        UserTable {
            has_index: false,
            ..table(name, false, false)
        }
    }

    fn publication(via_root: bool) -> Publication {
        Publication {
            all_tables: false,
            lacks: Vec::new(),
            truncates: true,
            via_root,
            owned: true,
        }
    }

    fn quotes(missing: &[Missing]) -> Vec<&str> {
        missing.iter().map(|table| &*table.quoted).collect()
    }

    #[test]
    fn partitions_count_as_the_publication_names_them() {
        let tables = [
            table("events", false, false),
            table("Log", true, false),
            table("log_1", false, true),
        ];
        let selection = Selection::new(&["public.*"]).unwrap();
        let names = |via_root| {
            let published = [("public".to_owned(), "events".to_owned())];
            let lacking = lacking(
                &tables,
                Some(&publication(via_root)),
                &published,
                &selection,
            );
            assert_eq!(lacking.withheld, []);
            lacking.harmless
        };
        assert_eq!(quotes(&names(true)), ["public.\"Log\""]);
        assert_eq!(quotes(&names(false)), ["public.log_1"]);
    }

    /// Once published, an application's UPDATE and DELETE of such a table fail.
    #[test]
    fn tables_without_an_identity_are_withheld() {
        let selection = Selection::new(&["public.*"]).unwrap();
        let whole = UserTable {
            identity: 'f',
            ..keyless("whole")
        };
        let nothing = UserTable {
            identity: 'n',
            ..keyless("nothing")
        };
        let tables = [
            table("events", false, false),
            keyless("work"),
            whole,
            nothing,
        ];
        let of = |publication: Option<&Publication>, published: &[(String, String)]| {
            lacking(&tables, publication, published, &selection)
        };
        for publication in [None, Some(&publication(true)), Some(&publication(false))] {
            let found = of(publication, &[]);
            assert_eq!(quotes(&found.harmless), ["public.events", "public.whole"]);
            assert_eq!(quotes(&found.withheld), ["public.nothing", "public.work"]);
        }
        // Those that somebody has published stay so.
        let published = [("public".to_owned(), "work".to_owned())];
        let found = of(Some(&publication(true)), &published);
        assert_eq!(quotes(&found.withheld), ["public.nothing"]);
        // One that sends inserts alone does no harm.
        let inserts = Publication {
            lacks: vec!["update", "delete"],
            ..publication(true)
        };
        assert_eq!(of(Some(&inserts), &[]).withheld, []);
        let updates = Publication {
            lacks: vec!["delete"],
            ..publication(true)
        };
        assert_eq!(of(Some(&updates), &[]).withheld.len(), 2);

        let role = Role {
            superuser: true,
            ..Role::default()
        };
        let everything = Selection::everything();
        assert!(!may_be_of_all(&role, &tables, &everything));
        assert!(may_be_of_all(&role, &tables[..1], &everything));
        assert!(!may_be_of_all(&role, &tables[..1], &selection));
    }

    /// The rows of a partitioned table are in its partitions: theirs is the identity that counts.
    #[test]
    fn a_partition_without_an_identity_withholds_its_root() {
        let selection = Selection::new(&["public.*"]).unwrap();
        let mut tables = [
            table("good", true, false),
            table("good_1", false, true),
            table("log", true, false),
            UserTable {
                is_partition: true,
                ..keyless("log_1")
            },
        ];
        let oids = tables.each_ref().map(|table| table.oid.to_string());
        let row = |oid: &String, above: &String| vec![Some(oid.clone()), Some(above.clone())];
        let answer = Answer {
            columns: vec!["oid".into(), "above".into()],
            rows: vec![row(&oids[1], &oids[0]), row(&oids[3], &oids[2])],
        };
        UserTable::note_above(&mut tables, &answer);
        let by_root = lacking(&tables, Some(&publication(true)), &[], &selection);
        assert_eq!(quotes(&by_root.harmless), ["public.good"]);
        assert_eq!(quotes(&by_root.withheld), ["public.log"]);
        assert_eq!(by_root.withheld[0].bare, ["public.log_1"]);
        let apart = lacking(&tables, Some(&publication(false)), &[], &selection);
        assert_eq!(quotes(&apart.withheld), ["public.log_1"]);
        let text = why_withheld("w", &by_root.withheld);
        for statement in [
            "ALTER TABLE public.log_1 REPLICA IDENTITY FULL;",
            "ALTER PUBLICATION w ADD TABLE ONLY public.log ",
        ] {
            assert!(text.contains(statement), "{text}");
        }
    }

    /// What is missing there has to be added on the primary, by somebody else.
    #[test]
    fn a_publication_is_not_extended_on_a_standby() {
        let tables = [table("events", false, false)];
        let found = publication(true);
        let selection = Selection::everything();
        let outcome = |recovery, on_unpublished| {
            let ours = SlotSettings {
                on_unpublished,
                ..SlotSettings::of("shop")
            };
            let facts = Facts {
                settings: &Settings::default(),
                role: &Role::default(),
                database: "shop",
                recovery,
                ours: &ours,
                slot: None,
                slots: &Answer::default(),
                publication: Some(&found),
                published: &[],
                tables: &tables,
                selection: &selection,
                truncates: false,
                generated: &Generated::default(),
                keys: &Keys::default(),
                unsent: &Unsent::default(),
            };
            let mut list = requirements(&facts).into_iter();
            let what = "publication walbrook_shop has every captured table";
            list.find(|it| it.what == what).expect("a line").outcome
        };
        assert_eq!(outcome(false, OnUnpublished::Halt), Outcome::Met);
        let statement =
            "run ALTER PUBLICATION walbrook_shop ADD TABLE ONLY public.events on the primary";
        let Outcome::Advice(text) = outcome(true, OnUnpublished::Warn) else {
            panic!("nothing said");
        };
        assert!(text.contains(statement), "{text}");
        let Outcome::Missing(text) = outcome(true, OnUnpublished::Halt) else {
            panic!("not refused");
        };
        assert!(text.contains(statement), "{text}");
    }

    #[test]
    fn statements_are_ready_to_run() {
        let missing = |quoted: &str| Missing {
            quoted: quoted.into(),
            owned: true,
            bare: Vec::new(),
        };
        let tables = [missing("public.a"), missing("public.\"B\"")];
        assert_eq!(
            add("walbrook_shop", &tables),
            "ALTER PUBLICATION walbrook_shop ADD TABLE ONLY public.a, ONLY public.\"B\""
        );
        assert_eq!(
            create("w", &tables, false, 17),
            "CREATE PUBLICATION w FOR TABLE ONLY public.a, ONLY public.\"B\" WITH (publish_via_partition_root = true)"
        );
        assert!(create("w", &tables, true, 17).contains("FOR ALL TABLES"));
        // Whatever the server has computed is sent where it can be.
        assert!(create("w", &tables, true, 18).ends_with(
            " WITH (publish_via_partition_root = true, publish_generated_columns = stored)"
        ));
    }
}
