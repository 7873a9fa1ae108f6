//! What the server sends nothing of, or only a part, although it is selected: tables that the log has nothing of (UNLOGGED), rows and
//! columns that a publication made by somebody else leaves out.

use super::checks::{Facts, listed, requirement};
use super::server::{Answer, Publication, Row, quoted};
use crate::config::{Plugin, Selection};
use crate::source::{Outcome, Requirement};

/// The first version whose publications can leave out rows and columns.
const NARROWED_FROM: u32 = 15;

/// Selected tables of which not everything is sent, as SQL writes them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unsent {
    unlogged: Vec<String>,
    /// With a row filter in our publication.
    filtered: Vec<String>,
    /// With a list of columns there.
    listed: Vec<String>,
}

impl Unsent {
    /// Reads the answer to [`protocol::postgres::catalog::UNLOGGED`].
    pub(super) fn read(answer: &Answer, selection: &Selection) -> Self {
        let name = |row: Row<'_>| {
            let (schema, table) = (row.text("nspname")?, row.text("relname")?);
            let root = (row.text("root_nspname")?, row.text("root_relname")?);
            let is_it = selection.includes(schema, table) || selection.includes(root.0, root.1);
            is_it.then_some(format!("{}.{}", quoted(schema), quoted(table)))
        };
        let mut unlogged: Vec<String> = answer.rows().filter_map(name).collect();
        unlogged.sort();
        Self {
            unlogged,
            ..Self::default()
        }
    }

    /// Whether there is something to ask about our publication, on a server of version `major`.
    pub(super) fn depend_on_publication(major: u32, publication: Option<&Publication>) -> bool {
        major >= NARROWED_FROM && publication.is_some_and(|publication| !publication.all_tables)
    }

    /// Reads the answer to [`protocol::postgres::catalog::narrowed`].
    pub(super) fn note_publication(&mut self, answer: &Answer, selection: &Selection) {
        let with = |flag: &str| -> Vec<String> {
            let name = |row: Row<'_>| {
                let (schema, table) = (row.text("nspname")?, row.text("relname")?);
                let is_it = row.is(flag) && selection.includes(schema, table);
                is_it.then_some(format!("{}.{}", quoted(schema), quoted(table)))
            };
            let mut names: Vec<String> = answer.rows().filter_map(name).collect();
            names.sort();
            names
        };
        self.filtered = with("has_filter");
        self.listed = with("has_list");
    }
}

/// Names what is not sent; nothing where everything is.
pub(super) fn requirements(facts: &Facts<'_>) -> Vec<Requirement> {
    let mut list = Vec::new();
    let Unsent { unlogged, .. } = facts.unsent;
    if let Some(first) = unlogged.first() {
        list.push(requirement(
            "captured tables are in the server's log",
            Outcome::Advice(format!(
                "nothing of {} is captured: UNLOGGED tables are not; run ALTER TABLE {first} SET LOGGED, or leave it out of tables",
                listed(unlogged)
            )),
        ));
    }
    let Unsent {
        filtered,
        listed: narrowed,
        ..
    } = facts.unsent;
    if facts.ours.plugin == Plugin::PgOutput
        && let Some(first) = filtered.first().or(narrowed.first())
    {
        let name = &facts.ours.publication;
        let mut parts = Vec::new();
        if !filtered.is_empty() {
            parts.push(format!(
                "rows that its filter (WHERE) leaves out are not captured of {}",
                listed(filtered)
            ));
        }
        if !narrowed.is_empty() {
            parts.push(format!(
                "records lack the columns that are not in its list of {}",
                listed(narrowed)
            ));
        }
        let publication = quoted(name);
        list.push(requirement(
            format!("publication {name} has all of its tables"),
            Outcome::Advice(format!(
                "{}; where that is not meant, run BEGIN; ALTER PUBLICATION {publication} DROP TABLE ONLY {first}; ALTER PUBLICATION \
                 {publication} ADD TABLE ONLY {first}; COMMIT",
                parts.join("; ")
            )),
        ));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::checks::tests::judged;

    #[test]
    fn what_is_not_sent_is_named() {
        let selection = Selection::new(&["s.*", "!s.cache"]).unwrap();
        let columns = ["nspname", "relname", "root_nspname", "root_relname"];
        let unlogged = Answer::of(
            &columns,
            &[
                &["s", "Counts", "s", "Counts"],
                &["s", "cache", "s", "cache"],
                &["other", "t", "other", "t"],
                // Its rows would come under the name of its root.
                &["other", "log_1", "s", "log"],
            ],
        );
        let narrowed = Answer::of(
            &["nspname", "relname", "has_filter", "has_list"],
            &[
                &["s", "a", "t", "f"],
                &["s", "b", "f", "t"],
                &["other", "c", "t", "t"],
            ],
        );
        let mut unsent = Unsent::read(&unlogged, &selection);
        unsent.note_publication(&narrowed, &selection);
        let said = |unsent: &Unsent, plugin| {
            let ours = crate::config::SlotSettings {
                plugin,
                ..crate::config::SlotSettings::of("shop")
            };
            judged("15", |facts| {
                let facts = Facts {
                    ours: &ours,
                    unsent,
                    ..*facts
                };
                let texts = requirements(&facts).into_iter().map(|it| match it.outcome {
                    Outcome::Advice(text) => text,
                    other => panic!("{other:?}"),
                });
                texts.collect::<Vec<String>>()
            })
        };
        let texts = said(&unsent, Plugin::PgOutput);
        for (text, words) in texts.iter().zip([
            "nothing of other.log_1, s.\"Counts\" is captured",
            "leaves out are not captured of s.a; records lack the columns that are not in its list of s.b; where",
        ]) {
            assert!(text.contains(words), "{text}");
        }
        let statements =
            "DROP TABLE ONLY s.a; ALTER PUBLICATION walbrook_shop ADD TABLE ONLY s.a; COMMIT";
        assert!(texts[1].contains(statements), "{texts:?}");
        // It has no publication.
        assert_eq!(said(&unsent, Plugin::Wal2Json).len(), 1);
        assert_eq!(said(&Unsent::default(), Plugin::PgOutput), [""; 0]);
    }
}
