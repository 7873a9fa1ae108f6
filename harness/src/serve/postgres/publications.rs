//! Publications: those of the recording, and what clients make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use fixtures::Sidecar;
use protocol::postgres::catalog;

use super::answers::Answer;
use super::error::Failure;
use super::lexer::Token;
use crate::serve::stage::locked;

/// Schema and name.
type Table = (String, String);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Publication {
    all_tables: bool,
    tables: BTreeSet<Table>,
    via_root: bool,
}

/// All publications of a server.
#[derive(Debug)]
pub(super) struct Publications {
    known: Mutex<BTreeMap<String, Publication>>,
    /// Tables that there are.
    tables: BTreeSet<Table>,
}

impl Publications {
    /// What the recording says.
    pub(super) fn load(sidecar: &Sidecar) -> Self {
        let mut known: BTreeMap<String, Publication> = BTreeMap::new();
        for row in rows(
            sidecar,
            catalog::PUBLICATIONS,
            &["pubname", "puballtables", "pubviaroot"],
        ) {
            let publication = known.entry(row[0].clone()).or_default();
            (publication.all_tables, publication.via_root) = (row[1] == "t", row[2] == "t");
        }
        let columns = ["pubname", "schemaname", "tablename"];
        for row in rows(sidecar, catalog::PUBLICATION_TABLES, &columns) {
            let publication = known.entry(row[0].clone()).or_default();
            publication.tables.insert((row[1].clone(), row[2].clone()));
        }
        let tables = rows(sidecar, catalog::TABLES, &["nspname", "relname"]);
        let tables = tables
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()));
        Self {
            known: Mutex::new(known),
            tables: tables.collect(),
        }
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        locked(&self.known).contains_key(name)
    }

    /// The first of `tables` that is in none of the publications `names`.
    pub(super) fn leaves_out<'t>(
        &self,
        names: &[String],
        tables: &'t BTreeSet<Table>,
    ) -> Option<&'t Table> {
        let known = locked(&self.known);
        let named: Vec<_> = names.iter().filter_map(|name| known.get(name)).collect();
        tables.iter().find(|table| {
            !named
                .iter()
                .any(|publication| publication.all_tables || publication.tables.contains(table))
        })
    }

    /// The answer to [`catalog::PUBLICATIONS`].
    pub(super) fn list(&self) -> Answer {
        let columns =
            "pubname puballtables pubinsert pubupdate pubdelete pubtruncate pubviaroot owned";
        let flag = |on: bool| if on { "t" } else { "f" }.to_owned();
        let rows = locked(&self.known)
            .iter()
            .map(|(name, publication)| {
                let (all, root) = (flag(publication.all_tables), flag(publication.via_root));
                let on = || flag(true);
                [name.clone(), all, on(), on(), on(), on(), root, on()]
                    .map(Some)
                    .to_vec()
            })
            .collect();
        Answer::select(columns.split(' '), rows)
    }

    /// The answer to [`catalog::PUBLICATION_TABLES`].
    pub(super) fn list_tables(&self) -> Answer {
        let mut rows = Vec::new();
        for (name, publication) in &*locked(&self.known) {
            let tables = match publication.all_tables {
                true => publication.tables.union(&self.tables),
                false => publication.tables.union(const { &BTreeSet::new() }),
            };
            rows.extend(tables.map(|(schema, table)| {
                [name, schema, table]
                    .map(|text| Some(text.clone()))
                    .to_vec()
            }));
        }
        Answer::select("pubname schemaname tablename".split(' '), rows)
    }

    /// Runs CREATE, ALTER or DROP PUBLICATION; `None` when it is a form that is not understood.
    pub(super) fn run(&self, tokens: &[Token]) -> Option<Result<Answer, Failure>> {
        let [verb, publication, name, rest @ ..] = tokens else {
            return None;
        };
        let (verb, name) = (verb.name()?, name.name()?);
        if !publication.is("publication") {
            return None;
        }
        let words: Vec<&str> = rest.iter().map_while(Token::name).collect();
        match (verb, words.as_slice()) {
            ("create", ["for", "all", "tables", ..]) => Some(self.create(name, None)),
            ("create", ["for", "table", ..]) => {
                let (tables, _) = self.tables(&rest[2..])?;
                Some(self.create(name, Some(tables)))
            }
            ("alter", [change @ ("add" | "set" | "drop"), "table", ..]) => {
                let (tables, left) = self.tables(&rest[2..])?;
                left.is_empty().then(|| self.alter(name, change, tables))
            }
            ("drop", []) => Some(self.drop(name)),
            _ => None,
        }
    }

    fn create(
        &self,
        name: &str,
        tables: Option<Result<BTreeSet<Table>, Failure>>,
    ) -> Result<Answer, Failure> {
        if self.has(name) {
            let what = format!("publication \"{name}\" already exists");
            return Err(Failure::new("42710", what));
        }
        let all_tables = tables.is_none();
        let tables = tables.transpose()?.unwrap_or_default();
        let publication = Publication {
            all_tables,
            tables,
            via_root: false,
        };
        locked(&self.known).insert(name.to_owned(), publication);
        Ok(Answer::Done("CREATE PUBLICATION".into()))
    }

    fn alter(
        &self,
        name: &str,
        change: &str,
        tables: Result<BTreeSet<Table>, Failure>,
    ) -> Result<Answer, Failure> {
        let mut known = locked(&self.known);
        let publication = known.get_mut(name).ok_or_else(|| missing(name))?;
        let tables = tables?;
        let is_in = |table: &&Table| publication.tables.contains(*table);
        let wrong = match change {
            "add" => tables.iter().find(is_in).map(|(_, table)| {
                let what =
                    format!("relation \"{table}\" is already member of publication \"{name}\"");
                Failure::new("42710", what)
            }),
            "drop" => tables.iter().find(|table| !is_in(table)).map(|(_, table)| {
                let what = format!("relation \"{table}\" is not part of the publication");
                Failure::new("42704", what)
            }),
            _ => None,
        };
        if let Some(failure) = wrong {
            return Err(failure);
        }
        match change {
            "add" => publication.tables.extend(tables),
            "drop" => publication.tables.retain(|table| !tables.contains(table)),
            _ => publication.tables = tables,
        }
        Ok(Answer::Done("ALTER PUBLICATION".into()))
    }

    fn drop(&self, name: &str) -> Result<Answer, Failure> {
        let found = locked(&self.known).remove(name);
        found
            .map(|_| Answer::Done("DROP PUBLICATION".into()))
            .ok_or_else(|| missing(name))
    }

    /// `[ONLY] [schema.]table [*], …` and what follows; `None` when it reads otherwise (columns, a row filter).
    #[expect(clippy::type_complexity, reason = "said above")]
    fn tables<'t>(
        &self,
        mut tokens: &'t [Token],
    ) -> Option<(Result<BTreeSet<Table>, Failure>, &'t [Token])> {
        let mut found = Ok(BTreeSet::new());
        loop {
            if tokens.first()?.is("only") {
                tokens = &tokens[1..];
            }
            let (schema, table);
            (schema, table, tokens) = match tokens {
                [a, Token::Symbol('.'), b, rest @ ..] => (a.name()?, b.name()?, rest),
                [a, rest @ ..] => ("public", a.name()?, rest),
                [] => return None,
            };
            let wanted = (schema.to_owned(), table.to_owned());
            match (&mut found, self.tables.contains(&wanted)) {
                (Ok(found), true) => _ = found.insert(wanted),
                (Ok(_), false) => {
                    let what = format!("relation \"{schema}.{table}\" does not exist");
                    found = Err(Failure::new("42P01", what));
                }
                (Err(_), _) => {}
            }
            match tokens {
                [Token::Symbol(','), rest @ ..] => tokens = rest,
                [Token::Symbol(_), ..] => return None,
                rest => return Some((found, rest)),
            }
        }
    }
}

pub(super) fn missing(name: &str) -> Failure {
    Failure::new("42704", format!("publication \"{name}\" does not exist"))
}

/// These columns of the recorded answer to `query`.
pub(super) fn rows(sidecar: &Sidecar, query: &str, columns: &[&str]) -> Vec<Vec<String>> {
    let Some(answer) = sidecar.answer(query) else {
        return Vec::new();
    };
    let place = |name: &&str| answer.columns.iter().position(|column| column == name);
    let places: Option<Vec<usize>> = columns.iter().map(place).collect();
    let Some(places) = places else {
        return Vec::new();
    };
    let row = |row: &Vec<String>| places.iter().map(|at| row[*at].clone()).collect();
    answer.rows.iter().map(row).collect()
}
