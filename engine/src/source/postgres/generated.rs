//! Columns whose values the server computes, and which of them it sends.
//!
//! | | pgoutput up to 17 | pgoutput from 18 on | wal2json |
//! |---|---|---|---|
//! | stored | never | with `publish_generated_columns = stored` | always |
//! | virtual (from 18 on) | | never | without a value |

use super::checks::{Facts, listed, requirement};
use super::server::{Answer, Row, quoted};
use crate::config::{Plugin, Selection};
use crate::source::{Outcome, Requirement};

/// The first version whose publications can have stored ones.
pub(super) const PUBLISHED_FROM: u32 = 18;

/// Generated columns of selected tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Generated {
    /// As `schema.table.column`.
    stored: Vec<String>,
    /// As `schema.table.column`.
    computed_on_read: Vec<String>,
    /// Whether our publication, which is there, sends the stored ones.
    are_published: bool,
}

impl Generated {
    /// Reads the answer to [`protocol::postgres::catalog::GENERATED`].
    pub(super) fn read(answer: &Answer, selection: &Selection) -> Self {
        let of_kind = |kind: &str| -> Vec<String> {
            let name = |row: Row<'_>| {
                let (schema, table) = (row.text("nspname")?, row.text("relname")?);
                let is_it =
                    row.text("attgenerated") == Some(kind) && selection.includes(schema, table);
                is_it.then_some(format!("{schema}.{table}.{}", row.text("attname")?))
            };
            let mut names: Vec<String> = answer.rows().filter_map(name).collect();
            names.sort();
            names
        };
        Self {
            stored: of_kind("s"),
            computed_on_read: of_kind("v"),
            are_published: false,
        }
    }

    /// Whether it matters what the publication does with them, which a server of version `major` can tell.
    pub(super) fn depend_on_publication(&self, major: u32) -> bool {
        !self.stored.is_empty() && major >= PUBLISHED_FROM
    }

    /// Reads the answer to [`protocol::postgres::catalog::publishes_generated`].
    pub(super) fn note_publication(&mut self, answer: &Answer) {
        self.are_published = answer
            .first()
            .is_some_and(|row| row.text("pubgencols") == Some("s"));
    }
}

/// Names what no record will have; `None` where captured tables have no such columns.
pub(super) fn requirement_of(facts: &Facts<'_>) -> Option<Requirement> {
    let Generated {
        stored,
        computed_on_read,
        are_published,
    } = facts.generated;
    let major = facts.settings.major();
    // The publication that we make has them.
    let are_published = match facts.publication {
        Some(_) => *are_published,
        None => major >= PUBLISHED_FROM,
    };
    let mut parts = Vec::new();
    if !stored.is_empty() && facts.ours.plugin == Plugin::PgOutput && !are_published {
        let names = listed(stored);
        parts.push(match major >= PUBLISHED_FROM {
            true => format!(
                "the publication leaves out {names}; run ALTER PUBLICATION {} SET (publish_generated_columns = stored)",
                quoted(&facts.ours.publication)
            ),
            false => format!(
                "records lack {names}: pgoutput sends generated columns from version {PUBLISHED_FROM} on; plugin = \"wal2json\" sends \
                 them, or compute them downstream"
            ),
        });
    }
    if !computed_on_read.is_empty() {
        parts.push(format!(
            "no record has a value of {}: virtual columns are not in the log; make them STORED, or compute them downstream",
            listed(computed_on_read)
        ));
    }
    let outcome = match parts.is_empty() {
        true if stored.is_empty() => return None,
        true => Outcome::Met,
        false => Outcome::Advice(parts.join("; ")),
    };
    Some(requirement("generated columns are captured", outcome))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Keys, SlotSettings};
    use crate::source::postgres::server::{Publication, Role, Settings};
    use crate::source::postgres::unsent::Unsent;

    #[test]
    fn generated_columns_that_are_not_sent_are_named() {
        use Plugin::{PgOutput, Wal2Json};

        let columns = ["nspname", "relname", "attname", "attgenerated"];
        let stored: &[&str] = &["s", "t", "sum", "s"];
        let other: &[&str] = &["other", "t", "sum", "s"];
        let computed: &[&str] = &["s", "t", "half", "v"];
        let selection = Selection::new(&["s.*"]).unwrap();
        let publication = Publication {
            all_tables: false,
            lacks: Vec::new(),
            truncates: true,
            via_root: true,
            owned: true,
        };
        let said = |major: &str, plugin, rows: &[&[&str]], pubgencols: Option<&str>| {
            let number = format!("{major}0001");
            let settings = Answer::of(&["name", "setting"], &[&["server_version_num", &*number]]);
            let mut generated = Generated::read(&Answer::of(&columns, rows), &selection);
            if let Some(how) = pubgencols {
                generated.note_publication(&Answer::of(&["pubgencols"], &[&[how]]));
            }
            let ours = SlotSettings {
                plugin,
                ..SlotSettings::of("shop")
            };
            let facts = Facts {
                settings: &Settings::read(&settings),
                role: &Role::default(),
                database: "shop",
                recovery: false,
                ours: &ours,
                slot: None,
                slots: &Answer::default(),
                publication: pubgencols.map(|_| &publication),
                published: &[],
                tables: &[],
                selection: &selection,
                truncates: false,
                generated: &generated,
                keys: &Keys::default(),
                unsent: &Unsent::default(),
            };
            requirement_of(&facts).map(|requirement| match requirement.outcome {
                Outcome::Met => String::new(),
                Outcome::Advice(text) => text,
                Outcome::Missing(text) => panic!("{text}"),
            })
        };
        assert_eq!(said("17", PgOutput, &[], Some("n")), None);
        assert_eq!(said("17", PgOutput, &[other], Some("n")), None);
        let text = said("17", PgOutput, &[stored, other], None).unwrap();
        assert!(text.starts_with("records lack s.t.sum: "), "{text}");
        let text = said("18", PgOutput, &[stored], Some("n")).unwrap();
        let statement = "ALTER PUBLICATION walbrook_shop SET (publish_generated_columns = stored)";
        assert!(text.contains(statement), "{text}");
        for published in [None, Some("s")] {
            let said = said("18", PgOutput, &[stored], published);
            assert_eq!(said.as_deref(), Some(""), "{published:?}");
        }
        let said_of_json = said("17", Wal2Json, &[stored], None);
        assert_eq!(said_of_json.as_deref(), Some(""));
        for plugin in [PgOutput, Wal2Json] {
            let text = said("18", plugin, &[stored, computed], Some("s")).unwrap();
            assert!(text.starts_with("no record has a value of s.t.half: "));
        }
    }
}
