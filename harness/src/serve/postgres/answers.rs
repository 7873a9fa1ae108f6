//! SQL of one session, answered from a recording's sidecar, and from what lives: settings, slots, publications.
//!
//! A statement that the recording cannot answer gets an error that names it: a replay server never makes up what a real one
//! would have said. Understood, besides the sidecar's literal answers and the engine's catalog queries
//! ([`protocol::postgres::catalog`], also with a filter behind them), is what clients of replication send:
//! ```text
//! SET … | RESET … | BEGIN | COMMIT | ROLLBACK | SHOW name
//! SELECT version(), current_setting('x'), pg_current_wal_flush_lsn(), 1, 'text' AS t, …
//! SELECT columns FROM pg_replication_slots [WHERE column = 'value' AND …]
//! SELECT … FROM pg_create_logical_replication_slot('name', 'plugin' [, temporary]); SELECT pg_drop_replication_slot('name')
//! CREATE | ALTER | DROP PUBLICATION …
//! ```

use std::collections::BTreeMap;

use fixtures::NULL;
use protocol::postgres::{Lsn, catalog};

use super::Shared;
use super::error::Failure;
use super::lexer::{Token, tokens};
use super::slots::Slot;
use super::wire::{message, text};

/// `pg_type.oid` of text and int4.
pub(super) const TEXT: u32 = 25;
pub(super) const INT4: u32 = 23;

type Cell = Option<String>;

/// The answer to one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// A command tag.
    Done(String),
    /// Columns with their types, rows, and a command tag.
    Rows {
        columns: Vec<(String, u32)>,
        rows: Vec<Vec<Cell>>,
        tag: String,
    },
}

impl Answer {
    /// Rows of texts.
    pub(super) fn select<'n>(columns: impl Iterator<Item = &'n str>, rows: Vec<Vec<Cell>>) -> Self {
        Self::Rows {
            columns: columns.map(|name| (name.to_owned(), TEXT)).collect(),
            tag: format!("SELECT {}", rows.len()),
            rows,
        }
    }

    /// RowDescription, DataRows and CommandComplete.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let tag = match self {
            Self::Done(tag) => tag,
            Self::Rows { columns, rows, tag } => {
                describe(out, columns);
                rows.iter().for_each(|row| data(out, row));
                tag
            }
        };
        complete(out, tag);
    }
}

/// CommandComplete.
pub(super) fn complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| text(out, tag));
}

/// Name 00, table:4, column:2, type:4, length:2, modifier:4, format:2.
fn describe(out: &mut Vec<u8>, columns: &[(String, u32)]) {
    message(out, b'T', |out| {
        out.extend((columns.len() as u16).to_be_bytes());
        for (name, oid) in columns {
            text(out, name);
            out.extend([0; 6]);
            out.extend(oid.to_be_bytes());
            let length: i16 = if *oid == INT4 { 4 } else { -1 };
            out.extend(length.to_be_bytes());
            out.extend((-1_i32).to_be_bytes());
            out.extend([0; 2]);
        }
    });
}

fn data(out: &mut Vec<u8>, row: &[Cell]) {
    message(out, b'D', |out| {
        out.extend((row.len() as u16).to_be_bytes());
        for cell in row {
            let length = cell.as_ref().map_or(-1, |cell| cell.len() as i32);
            out.extend(length.to_be_bytes());
            out.extend(cell.iter().flat_map(|cell| cell.bytes()));
        }
    });
}

/// One session's view.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    shared: &'a Shared,
    user: String,
    database: String,
    session: u32,
    settings: BTreeMap<String, String>,
    /// As ReadyForQuery tells it: `I` idle, `T` in a transaction, `E` in a failed one.
    pub(super) status: u8,
}

impl<'a> Answers<'a> {
    pub(super) fn new(shared: &'a Shared, client: super::handshake::Client, session: u32) -> Self {
        Self {
            shared,
            user: client.user,
            database: client.database,
            session,
            settings: client.settings,
            status: b'I',
        }
    }

    /// Answers one statement.
    pub(super) fn answer(&mut self, statement: &str) -> Result<Answer, Failure> {
        let unknown = || {
            Failure::new(
                "0A000",
                format!("this recording cannot answer: {statement}"),
            )
        };
        let tokens = tokens(statement).ok_or_else(unknown)?;
        let words: Vec<&str> = tokens.iter().take(2).map_while(Token::name).collect();
        if self.status == b'E' && !matches!(words.first(), Some(&("rollback" | "commit" | "end"))) {
            let what =
                "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Failure::new("25P02", what));
        }
        let done = |tag: &str| Ok(Answer::Done(tag.to_owned()));
        match words.as_slice() {
            ["begin" | "start", ..] => {
                self.status = b'T';
                done("BEGIN")
            }
            ["commit" | "end" | "rollback" | "abort", ..] => {
                let failed = std::mem::replace(&mut self.status, b'I') == b'E';
                let back = failed || matches!(words[0], "rollback" | "abort");
                done(if back { "ROLLBACK" } else { "COMMIT" })
            }
            ["set", ..] => self.set(&tokens).ok_or_else(unknown),
            ["reset" | "discard" | "deallocate", ..] => done(&words[0].to_ascii_uppercase()),
            ["show", ..] => self.show(&tokens),
            ["create" | "alter" | "drop", "publication"] => {
                let answer = self.shared.publications.run(&tokens);
                answer.unwrap_or_else(|| Err(unknown()))
            }
            _ => {
                let known = self.catalog(statement).or_else(|| self.literal(statement));
                match known {
                    Some(answer) => Ok(answer),
                    None => self.select(&tokens).unwrap_or_else(|| Err(unknown())),
                }
            }
        }
    }

    /// The engine's own queries: whole answers, live where something lives.
    fn catalog(&self, statement: &str) -> Option<Answer> {
        if catalog::is_of_none(statement) {
            return Some(Answer::select(std::iter::empty(), Vec::new()));
        }
        // Recorded with lc_monetary = C.
        if statement.trim() == catalog::MONEY_DIGITS {
            let digits = vec![Some("2".to_owned())];
            return Some(Answer::select(["digits"].into_iter(), vec![digits]));
        }
        let whole = catalog::whole(statement)?;
        if whole == catalog::SLOTS {
            return Some(self.slots(None, &[]));
        }
        // A recording is of one database; others are empty.
        if self.database != self.shared.database() {
            return match self.literal(whole)? {
                Answer::Rows { columns, .. }
                    if ![catalog::SETTINGS, catalog::ROLE].contains(&whole) =>
                {
                    Some(Answer::select(
                        columns.iter().map(|(name, _)| name.as_str()),
                        Vec::new(),
                    ))
                }
                answer => Some(answer),
            };
        }
        if whole == catalog::PUBLICATIONS {
            return Some(self.shared.publications.list());
        }
        if whole == catalog::PUBLICATION_TABLES {
            return Some(self.shared.publications.list_tables());
        }
        let mut answer = self.literal(whole)?;
        if whole == catalog::STATUS
            && let Answer::Rows { columns, rows, .. } = &mut answer
        {
            let at = columns.iter().position(|(name, _)| name == "flushed")?;
            *rows.first_mut()?.get_mut(at)? = Some(self.shared.film.end.to_string());
        }
        Some(answer)
    }

    fn literal(&self, statement: &str) -> Option<Answer> {
        let answer = self.shared.sidecar.answer(statement)?;
        let cell = |text: &String| (text != NULL).then(|| text.clone());
        let row = |row: &Vec<String>| row.iter().map(cell).collect();
        let rows = answer.rows.iter().map(row).collect();
        Some(Answer::select(
            answer.columns.iter().map(String::as_str),
            rows,
        ))
    }

    /// `SET [SESSION | LOCAL] name { TO | = } value`.
    fn set(&mut self, tokens: &[Token]) -> Option<Answer> {
        let mut rest = &tokens[1..];
        if rest.first()?.is("session") || rest.first()?.is("local") {
            rest = &rest[1..];
        }
        let names: Vec<&str> = rest
            .iter()
            .take_while(|token| !token.is("to") && **token != Token::Symbol('='))
            .map(|token| token.value().unwrap_or("."))
            .collect();
        let value = rest.get(names.len() + 1..).unwrap_or_default();
        let value: Vec<&str> = value.iter().filter_map(Token::value).collect();
        self.settings
            .insert(names.concat().to_ascii_lowercase(), value.join(", "));
        Some(Answer::Done("SET".into()))
    }

    fn show(&self, tokens: &[Token]) -> Result<Answer, Failure> {
        let name: String = tokens[1..]
            .iter()
            .map(|token| token.value().unwrap_or("."))
            .collect();
        let value = self.setting(&name)?;
        let mut answer = Answer::select([name.as_str()].into_iter(), vec![vec![Some(value)]]);
        if let Answer::Rows { tag, .. } = &mut answer {
            "SHOW".clone_into(tag);
        }
        Ok(answer)
    }

    fn setting(&self, name: &str) -> Result<String, Failure> {
        let name = name.to_ascii_lowercase();
        let own = self.settings.get(&name).cloned();
        own.or_else(|| self.shared.setting(&name)).ok_or_else(|| {
            let what =
                format!("unrecognized configuration parameter \"{name}\" (not in this recording)");
            Failure::new("42704", what)
        })
    }

    /// `SELECT …`; `None` when it is not understood.
    fn select(&self, tokens: &[Token]) -> Option<Result<Answer, Failure>> {
        let [first, rest @ ..] = tokens else {
            return None;
        };
        if !first.is("select") {
            return None;
        }
        let from = rest.iter().position(|token| token.is("from"));
        let (list, from) = rest.split_at(from.unwrap_or(rest.len()));
        if let [_, from @ ..] = from {
            return self.select_from(list, without_schema(from));
        }
        let (mut columns, mut row) = (Vec::new(), Vec::new());
        for expression in split(list) {
            let (expression, alias) = aliased(expression);
            let (name, value) = match self.value(without_schema(expression))? {
                Ok(found) => found,
                Err(failure) => return Some(Err(failure)),
            };
            columns.push(alias.map_or(name, str::to_owned));
            row.push(value);
        }
        Some(Ok(Answer::select(
            columns.iter().map(String::as_str),
            vec![row],
        )))
    }

    fn select_from(&self, list: &[Token], from: &[Token]) -> Option<Result<Answer, Failure>> {
        let columns: Vec<&[Token]> = split(list);
        let named = || -> Option<Option<Vec<String>>> {
            if columns == [[Token::Symbol('*')].as_slice()] {
                return Some(None);
            }
            let name = |column: &&[Token]| match column {
                [name] => name.name().map(str::to_owned),
                _ => None,
            };
            columns
                .iter()
                .map(name)
                .collect::<Option<Vec<_>>>()
                .map(Some)
        };
        match from {
            [table, condition @ ..] if table.is("pg_replication_slots") => {
                let conditions = match condition {
                    [] => Vec::new(),
                    [word, rest @ ..] if word.is("where") => conditions(rest)?,
                    _ => return None,
                };
                Some(Ok(self.slots(named()?, &conditions)))
            }
            [function, arguments @ ..] if function.is("pg_create_logical_replication_slot") => {
                let created = match self.create_slot(arguments)? {
                    Ok(created) => created,
                    Err(failure) => return Some(Err(failure)),
                };
                let wanted = named()?.unwrap_or_else(|| vec!["slot_name".into(), "lsn".into()]);
                let cell = |name: &String| match name.as_str() {
                    "slot_name" => Some(Some(created.0.clone())),
                    "lsn" => Some(Some(created.1.to_string())),
                    _ => None,
                };
                let row = wanted.iter().map(cell).collect::<Option<Vec<_>>>()?;
                Some(Ok(Answer::select(
                    wanted.iter().map(String::as_str),
                    vec![row],
                )))
            }
            _ => None,
        }
    }

    /// The name and value of an expression without FROM.
    fn value(&self, expression: &[Token]) -> Option<Result<(String, Cell), Failure>> {
        let found = |name: &str, value: String| Some(Ok((name.to_owned(), Some(value))));
        let failed = |failure| Some(Err(failure));
        let expression = match expression {
            // A cast changes no text that matters here.
            [value, Token::Symbol(':'), Token::Symbol(':'), _] => std::slice::from_ref(value),
            other => other,
        };
        let [first, rest @ ..] = expression else {
            return None;
        };
        let Token::Word(word) = first else {
            return match (first, rest) {
                (Token::Text(text), []) => found("?column?", text.clone()),
                _ => None,
            };
        };
        let word = word.as_str();
        match (word, rest) {
            ("null", []) => Some(Ok(("?column?".into(), None))),
            ("true", []) => found("bool", "t".into()),
            ("false", []) => found("bool", "f".into()),
            ("current_user" | "session_user" | "user", []) => found(word, self.user.clone()),
            (number, []) if number.parse::<u64>().is_ok() => found("?column?", number.to_owned()),
            (_, [Token::Symbol('('), Token::Symbol(')')]) => match word {
                "version" => found(word, self.shared.version()),
                "current_database" => found(word, self.database.clone()),
                "pg_is_in_recovery" => found(word, "f".into()),
                "pg_backend_pid" => found(word, self.session.to_string()),
                "pg_current_wal_lsn" | "pg_current_wal_flush_lsn" | "pg_current_wal_insert_lsn" => {
                    found(word, self.shared.film.end.to_string())
                }
                _ => None,
            },
            ("current_setting", [Token::Symbol('('), name, ..]) => {
                match self.setting(name.value()?) {
                    Ok(value) => found(word, value),
                    Err(failure) => failed(failure),
                }
            }
            // Settings of a session change nothing in a recording.
            ("set_config", [Token::Symbol('('), _, Token::Symbol(','), value, ..]) => {
                found(word, value.value()?.to_owned())
            }
            ("pg_drop_replication_slot", [Token::Symbol('('), name, Token::Symbol(')')]) => {
                match self.shared.slots.drop(name.value()?) {
                    Ok(()) => found(word, String::new()),
                    Err(failure) => failed(failure),
                }
            }
            ("pg_create_logical_replication_slot", arguments) => {
                match self.create_slot(arguments)? {
                    Ok((name, at)) => found(word, format!("({name},{at})")),
                    Err(failure) => failed(failure),
                }
            }
            _ => None,
        }
    }

    /// `('name', 'plugin' [, temporary])`.
    fn create_slot(&self, arguments: &[Token]) -> Option<Result<(String, Lsn), Failure>> {
        let [Token::Symbol('('), arguments @ .., Token::Symbol(')')] = arguments else {
            return None;
        };
        let arguments = split(arguments);
        let argument = |at: usize| match arguments.get(at) {
            Some([value]) => value.value(),
            _ => None,
        };
        let (name, plugin) = (argument(0)?, argument(1)?);
        let temporary = matches!(argument(2), Some("true" | "t"));
        let session = temporary.then_some(self.session);
        let created = self
            .shared
            .create_slot(name, plugin, &self.database, session);
        Some(created.map(|at| (name.to_owned(), at)))
    }

    /// Rows of `pg_replication_slots`: the columns that the recorded server had, or those wanted.
    fn slots(&self, wanted: Option<Vec<String>>, conditions: &[(String, String)]) -> Answer {
        let recorded = self.shared.sidecar.answer(catalog::SLOTS);
        let columns = recorded.map_or_else(
            || {
                let of_15 = "slot_name plugin slot_type datoid database temporary active active_pid xmin \
                             catalog_xmin restart_lsn confirmed_flush_lsn wal_status safe_wal_size two_phase";
                of_15.split_whitespace().map(str::to_owned).collect()
            },
            |answer| answer.columns.clone(),
        );
        let columns = wanted.unwrap_or(columns);
        let slots = self.shared.slots.all();
        let matching = slots.iter().filter(|(name, slot)| {
            conditions.iter().all(|(column, value)| {
                slot_column(name, slot, column).as_deref() == Some(value.as_str())
            })
        });
        let row = |(name, slot): (&String, &Slot)| {
            columns
                .iter()
                .map(|column| slot_column(name, slot, column))
                .collect()
        };
        let rows = matching.map(row).collect();
        Answer::select(columns.iter().map(String::as_str), rows)
    }
}

fn slot_column(name: &str, slot: &Slot, column: &str) -> Cell {
    let flag = |on: bool| Some(if on { "t" } else { "f" }.to_owned());
    match column {
        "slot_name" => Some(name.to_owned()),
        "plugin" => Some(slot.plugin.clone()),
        "slot_type" => Some("logical".into()),
        "database" => Some(slot.database.clone()),
        "temporary" => flag(slot.temporary.is_some()),
        "active" => flag(slot.active.is_some()),
        "active_pid" => slot.active.map(|session| session.to_string()),
        "restart_lsn" | "confirmed_flush_lsn" => Some(slot.confirmed.to_string()),
        "wal_status" => Some("reserved".into()),
        "two_phase" => flag(slot.two_phase),
        "failover" => flag(slot.failover),
        "conflicting" | "synced" => flag(false),
        _ => None,
    }
}

/// `column = 'value' AND …`.
fn conditions(tokens: &[Token]) -> Option<Vec<(String, String)>> {
    tokens
        .split(|token| token.is("and"))
        .map(|condition| match condition {
            [column, Token::Symbol('='), value] => {
                Some((column.name()?.to_owned(), value.value()?.to_owned()))
            }
            _ => None,
        })
        .collect()
}

/// Splits at commas outside of parentheses.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth -= 1,
            Token::Symbol(',') if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

/// An expression and the name given to it.
fn aliased(expression: &[Token]) -> (&[Token], Option<&str>) {
    match expression {
        [value @ .., word, name] if word.is("as") => (value, name.name()),
        other => (other, None),
    }
}

fn without_schema(tokens: &[Token]) -> &[Token] {
    match tokens {
        [schema, Token::Symbol('.'), rest @ ..] if schema.is("pg_catalog") => rest,
        other => other,
    }
}
