//! What the text of a QUERY event does: transaction control, XA, DDL and the tables that it changes, TRUNCATE, DML.
//!
//! This is no SQL parser. It reads a statement's first words and the names after them, which is all that a reader of rows needs:
//! whether a transaction begins or ends, whether a table may look different from here on, and whether rows changed without
//! ROWS events. What it cannot read with certainty it marks so ([`Tables::complete`]) rather than guess.

mod token;

pub use token::SqlMode;
use token::{Token, Tokens};

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK` of the whole transaction.
    Rollback,
    /// `SAVEPOINT name`.
    Savepoint,
    /// `RELEASE SAVEPOINT name`.
    ReleaseSavepoint,
    /// `ROLLBACK TO name`: rows since the savepoint do not count.
    RollbackToSavepoint,
    /// `XA START`, `END`, `PREPARE`, `COMMIT`, `ROLLBACK`.
    Xa(XaVerb, Xid),
    /// `TRUNCATE`.
    Truncate(TableName),
    /// `DROP DATABASE`: all of its tables.
    DropDatabase(String),
    /// DDL on tables.
    Ddl {
        /// First word, upper case: CREATE, ALTER, DROP, RENAME.
        verb: &'static str,
        /// The tables that it makes, changes or removes, new names included.
        tables: Tables,
        /// `CREATE TABLE … START TRANSACTION`: ROWS events and an XID follow (`CREATE TABLE … SELECT`, MySQL 8.0.21 and later).
        begins_transaction: bool,
        /// Whether no table that was there before can look different afterwards: `CREATE TABLE` without `OR REPLACE`.
        only_new: bool,
        /// `CREATE TABLE … SELECT` (`TABLE`, `VALUES`) as it was written: rows come with it, and no ROWS event says which.
        writes_rows: bool,
    },
    /// Statement-based logging: rows changed, and no ROWS event says how.
    Dml {
        /// Verb, upper case: INSERT, REPLACE, UPDATE, DELETE, LOAD, SELECT (of a function that writes), CALL, DO; WITH before SELECT.
        verb: &'static str,
        /// The tables that it changes; of a join all of them, for which one is changed its columns tell, not its text.
        tables: Tables,
    },
    /// Anything else: users, views, triggers, variables, temporary tables, maintenance. No table's rows or shape change.
    Other,
}

/// What an XA statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XaVerb {
    /// `XA START` (or `BEGIN`).
    Start,
    /// `XA END`.
    End,
    /// `XA PREPARE`.
    Prepare,
    /// `XA COMMIT`.
    Commit,
    /// `XA COMMIT … ONE PHASE`.
    CommitOnePhase,
    /// `XA ROLLBACK`.
    Rollback,
}

/// An XA transaction's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid {
    /// Format, 1 unless given.
    pub format: u32,
    /// Global transaction id.
    pub global: Vec<u8>,
    /// Branch qualifier.
    pub branch: Vec<u8>,
}

/// Tables named in a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// In order of appearance.
    pub named: Vec<TableName>,
    /// Whether these are surely all; false where the statement has joins, aliases or more that is not read here.
    pub complete: bool,
}

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// `None`: the session's default database.
    pub database: Option<String>,
    /// The table.
    pub table: String,
}

impl Statement {
    /// Recognises a statement of a session with this `sql_mode`.
    ///
    /// Comments are skipped; the insides of version comments (`/*!50003 … */`, `/*M!100100 … */`) count as text.
    #[must_use]
    pub fn recognise(text: &str, mode: SqlMode) -> Self {
        match text {
            "BEGIN" => return Self::Begin,
            "COMMIT" => return Self::Commit,
            _ => {}
        }
        let mut reader = Reader(Tokens::new(text, mode));
        reader.statement().unwrap_or(Self::Other)
    }
}

/// What follows the tables of a DELETE.
const DELETE_ENDS: [&str; 4] = ["WHERE", "ORDER", "LIMIT", "RETURNING"];

struct Reader<'a>(Tokens<'a>);

impl Reader<'_> {
    /// `None`: not a statement that we know, or not in a form that we know.
    fn statement(&mut self) -> Option<Statement> {
        // MariaDB: `SET STATEMENT variable = value, … FOR statement`
        if self.peek_is("SET") && self.0.lookahead(1).is_some_and(|t| t.is("STATEMENT")) {
            while !self.0.next()?.is("FOR") {}
        }
        // MariaDB: `ANALYZE [FORMAT = JSON] statement` runs it; `ANALYZE TABLE` is none that is known here.
        if self.skip("ANALYZE") && self.skip("FORMAT") {
            self.skip_sign('=');
            self.0.next()?;
        }
        // Around queries alone.
        while self.skip_sign('(') {}
        let Token::Word(verb) = self.0.next()? else {
            return None;
        };
        Some(match verb.to_ascii_uppercase().as_str() {
            "BEGIN" => Statement::Begin,
            "START" if self.skip("TRANSACTION") => Statement::Begin,
            "COMMIT" => Statement::Commit,
            "SAVEPOINT" => Statement::Savepoint,
            "RELEASE" => Statement::ReleaseSavepoint,
            "ROLLBACK" => {
                self.skip("WORK");
                if self.skip("TO") {
                    Statement::RollbackToSavepoint
                } else {
                    Statement::Rollback
                }
            }
            "XA" => return self.xa(),
            "TRUNCATE" => {
                self.skip("TABLE");
                Statement::Truncate(self.table_name()?)
            }
            "CREATE" => return self.create(),
            "ALTER" => return self.alter(),
            "DROP" => return self.drop(),
            "RENAME" => return self.rename(),
            "INSERT" => self.insert("INSERT"),
            "REPLACE" => self.insert("REPLACE"),
            "UPDATE" => self.update(),
            "DELETE" => self.delete(),
            "LOAD" => self.load(),
            "WITH" => self.with(),
            "SELECT" => dml("SELECT", Vec::new(), false),
            "CALL" => dml("CALL", Vec::new(), false),
            "DO" => dml("DO", Vec::new(), false),
            _ => return None,
        })
    }

    fn peek_is(&self, word: &str) -> bool {
        self.0.lookahead(0).is_some_and(|token| token.is(word))
    }

    /// Reads `word` if it comes next.
    fn skip(&mut self, word: &str) -> bool {
        let found = self.peek_is(word);
        if found {
            self.0.next();
        }
        found
    }

    /// Reads `sign` if it comes next.
    fn skip_sign(&mut self, sign: char) -> bool {
        let found = self.0.lookahead(0) == Some(Token::Sign(sign));
        if found {
            self.0.next();
        }
        found
    }

    fn skip_any(&mut self, words: &[&str]) {
        while words.iter().any(|word| self.skip(word)) {}
    }

    fn skip_if_exists(&mut self) {
        if self.skip("IF") {
            self.skip("NOT");
            self.skip("EXISTS");
        }
    }

    fn name(&mut self) -> Option<String> {
        match self.0.next()? {
            Token::Word(word) => Some(word.to_owned()),
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    fn table_name(&mut self) -> Option<TableName> {
        let first = self.name()?;
        if self.0.lookahead(0) != Some(Token::Sign('.')) {
            return Some(TableName {
                database: None,
                table: first,
            });
        }
        self.0.next();
        Some(TableName {
            database: Some(first),
            table: self.name()?,
        })
    }

    fn table_names(&mut self) -> Option<Vec<TableName>> {
        let mut names = vec![self.table_name()?];
        while self.0.lookahead(0) == Some(Token::Sign(',')) {
            self.0.next();
            names.push(self.table_name()?);
        }
        Some(names)
    }

    fn create(&mut self) -> Option<Statement> {
        let replaces = self.skip("OR") && self.skip("REPLACE");
        // A temporary table is its session's own: nobody else's rows or shapes change.
        if self.peek_is("TEMPORARY") {
            return None;
        }
        if self.skip("TABLE") {
            self.skip_if_exists();
            let table = self.table_name()?;
            let (begins_transaction, has_query) = self.behind_created();
            return Some(Statement::Ddl {
                verb: "CREATE",
                tables: Tables {
                    named: vec![table],
                    complete: true,
                },
                begins_transaction,
                only_new: !replaces,
                writes_rows: has_query && !begins_transaction,
            });
        }
        self.skip_any(&["UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR"]);
        if self.skip("INDEX") {
            return self.index_on("CREATE");
        }
        None
    }

    /// Behind `CREATE TABLE name`: whether `START TRANSACTION` is its end, and whether a query gives it rows; both outside of strings
    /// and of the parentheses around columns, keys, checks and partitions, of which none begins with a query's word.
    fn behind_created(&mut self) -> (bool, bool) {
        let (mut before, mut last) = (None, None);
        // Parentheses that are open, and how many of them stand directly before this token.
        let (mut depth, mut opened) = (0_usize, 0_usize);
        let mut has_query = false;
        for token in self.0.by_ref() {
            match token {
                Token::Sign(';') => continue,
                Token::Sign('(') => (depth, opened) = (depth + 1, opened + 1),
                Token::Sign(')') => (depth, opened) = (depth.saturating_sub(1), 0),
                ref word => {
                    let is_name = last == Some(Token::Sign('.'));
                    let queries = ["SELECT", "TABLE", "VALUES"];
                    has_query |=
                        depth == opened && !is_name && queries.iter().any(|query| word.is(query));
                    opened = 0;
                }
            }
            before = last.replace(token);
        }
        let is = |token: Option<Token<'_>>, word: &str| token.is_some_and(|t| t.is(word));
        let begins_transaction = is(before, "START") && is(last, "TRANSACTION");
        (begins_transaction, has_query)
    }

    /// `CREATE | DROP INDEX name [USING type] ON table`.
    fn index_on(&mut self, verb: &'static str) -> Option<Statement> {
        self.skip_if_exists();
        self.name()?;
        while !self.skip("ON") {
            self.0.next()?;
        }
        Some(ddl(verb, vec![self.table_name()?], true))
    }

    fn alter(&mut self) -> Option<Statement> {
        self.skip_any(&["ONLINE", "OFFLINE", "IGNORE"]);
        if !self.skip("TABLE") {
            return None;
        }
        self.skip_if_exists();
        let mut tables = vec![self.table_name()?];
        // `RENAME [TO | AS | =] new_name`, but not `RENAME COLUMN | INDEX | KEY`; `EXCHANGE PARTITION p WITH TABLE other`; MariaDB's
        // `CONVERT TABLE other TO PARTITION p` and `CONVERT PARTITION p TO TABLE new_name`.
        let mut depth = 0;
        while let Some(token) = self.0.next() {
            match token {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth -= 1,
                token if depth == 0 && token.is("RENAME") => {
                    let kinds = ["COLUMN", "INDEX", "KEY"];
                    if !kinds.iter().any(|kind| self.peek_is(kind)) {
                        self.skip_any(&["TO", "AS"]);
                        if self.0.lookahead(0) == Some(Token::Sign('=')) {
                            self.0.next();
                        }
                        tables.push(self.table_name()?);
                    }
                }
                token
                    if depth == 0
                        && ["WITH", "CONVERT", "TO"].iter().any(|word| token.is(word))
                        && self.skip("TABLE") =>
                {
                    tables.push(self.table_name()?);
                }
                _ => {}
            }
        }
        Some(ddl("ALTER", tables, true))
    }

    fn drop(&mut self) -> Option<Statement> {
        if self.skip("TABLE") || self.skip("TABLES") {
            self.skip_if_exists();
            return Some(ddl("DROP", self.table_names()?, true));
        }
        if self.skip("DATABASE") || self.skip("SCHEMA") {
            self.skip_if_exists();
            return Some(Statement::DropDatabase(self.name()?));
        }
        if self.skip("INDEX") {
            return self.index_on("DROP");
        }
        None
    }

    fn rename(&mut self) -> Option<Statement> {
        if !(self.skip("TABLE") || self.skip("TABLES")) {
            return None;
        }
        self.skip_if_exists();
        let mut tables = Vec::new();
        loop {
            tables.push(self.table_name()?);
            // MariaDB: WAIT n, NOWAIT
            while !self.skip("TO") {
                self.0.next()?;
            }
            tables.push(self.table_name()?);
            if self.0.next() != Some(Token::Sign(',')) {
                return Some(ddl("RENAME", tables, true));
            }
        }
    }

    fn insert(&mut self, verb: &'static str) -> Statement {
        self.skip_any(&["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE", "INTO"]);
        match self.table_name() {
            Some(table) => dml(verb, vec![table], true),
            None => dml(verb, Vec::new(), false),
        }
    }

    fn update(&mut self) -> Statement {
        self.skip_any(&["LOW_PRIORITY", "IGNORE"]);
        let tables = self.references(&["SET"]);
        match tables.filter(|_| self.peek_is("SET")) {
            Some(tables) => dml("UPDATE", tables, true),
            None => dml("UPDATE", Vec::new(), false),
        }
    }

    /// `DELETE FROM table`, `DELETE a, b.* FROM joined tables`, `DELETE FROM a, b.* USING joined tables`.
    fn delete(&mut self) -> Statement {
        self.skip_any(&["LOW_PRIORITY", "QUICK", "IGNORE"]);
        let mut tables = None;
        if self.skip("FROM") {
            let here = self.0.clone();
            if self.targets().is_none() || !self.skip("USING") {
                self.0 = here;
            }
            tables = self.references(&DELETE_ENDS);
        } else if self.targets().is_some() && self.skip("FROM") {
            tables = self.references(&DELETE_ENDS);
        }
        match tables {
            Some(tables) => dml("DELETE", tables, true),
            None => dml("DELETE", Vec::new(), false),
        }
    }

    /// `WITH [RECURSIVE] name [(columns)] AS (query), … statement`.
    fn with(&mut self) -> Statement {
        let mut depth = 0_usize;
        while let Some(token) = self.0.next() {
            match token {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth = depth.saturating_sub(1),
                token if depth == 0 && token.is("UPDATE") => return self.update(),
                token if depth == 0 && token.is("DELETE") => return self.delete(),
                _ => {}
            }
        }
        dml("WITH", Vec::new(), false)
    }

    /// Passes over `a, b.*, c.d.*`: tables or aliases of them.
    fn targets(&mut self) -> Option<()> {
        loop {
            self.name()?;
            while self.skip_sign('.') {
                if !self.skip_sign('*') {
                    self.name()?;
                }
            }
            if !self.skip_sign(',') {
                return Some(());
            }
        }
    }

    /// The tables of `a [AS] x JOIN (b, c.d) ON … , (SELECT …) AS y …` up to one of `ends`, which is not read, or to the statement's
    /// end. Queries in it are passed over: no statement changes what it reads there.
    fn references(&mut self, ends: &[&str]) -> Option<Vec<TableName>> {
        let mut tables = Vec::new();
        // Whether a table comes next, and parentheses around joins that are open.
        let (mut wanted, mut depth) = (true, 0_usize);
        loop {
            if wanted {
                if self.0.lookahead(1) == Some(Token::Sign('(')) {
                    self.skip("LATERAL");
                }
                if self.skip_sign('(') {
                    let queries = ["SELECT", "WITH", "TABLE", "VALUES"];
                    if queries.iter().any(|query| self.peek_is(query)) {
                        self.skip_parenthesis()?;
                        wanted = false;
                    } else {
                        depth += 1;
                    }
                } else if self.skip_sign('{') {
                    // ODBC: `{ OJ a LEFT OUTER JOIN b ON … }`
                    self.0.next();
                } else {
                    tables.push(self.table_name()?);
                    wanted = false;
                }
                continue;
            }
            let ended = depth == 0 && ends.iter().any(|end| self.peek_is(end));
            match self.0.lookahead(0) {
                None | Some(Token::Sign(';')) => return Some(tables),
                Some(_) if ended => return Some(tables),
                _ => {}
            }
            match self.0.next()? {
                // Of a condition, a function, columns, partitions or indexes.
                Token::Sign('(') => self.skip_parenthesis()?,
                Token::Sign(')') => depth = depth.checked_sub(1)?,
                Token::Sign(',') => wanted = true,
                // Behind a point every word is a name.
                Token::Sign('.') => {
                    self.0.next();
                }
                token => wanted = token.is("JOIN") || token.is("STRAIGHT_JOIN"),
            }
        }
    }

    /// Reads behind the end of a parenthesis that is open.
    fn skip_parenthesis(&mut self) -> Option<()> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.0.next()? {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }

    fn load(&mut self) -> Statement {
        while let Some(token) = self.0.next() {
            if token.is("INTO") && self.skip("TABLE") {
                return match self.table_name() {
                    Some(table) => dml("LOAD", vec![table], true),
                    None => break,
                };
            }
        }
        dml("LOAD", Vec::new(), false)
    }

    fn xa(&mut self) -> Option<Statement> {
        let Token::Word(verb) = self.0.next()? else {
            return None;
        };
        let mut verb = match verb.to_ascii_uppercase().as_str() {
            "START" | "BEGIN" => XaVerb::Start,
            "END" => XaVerb::End,
            "PREPARE" => XaVerb::Prepare,
            "COMMIT" => XaVerb::Commit,
            "ROLLBACK" => XaVerb::Rollback,
            _ => return None,
        };
        let mut xid = Xid {
            format: 1,
            global: self.bytes()?,
            branch: Vec::new(),
        };
        if self.0.lookahead(0) == Some(Token::Sign(',')) {
            self.0.next();
            xid.branch = self.bytes()?;
            if self.0.lookahead(0) == Some(Token::Sign(',')) {
                self.0.next();
                let Token::Word(format) = self.0.next()? else {
                    return None;
                };
                xid.format = format.parse().ok()?;
            }
        }
        if verb == XaVerb::Commit && self.skip("ONE") {
            verb = XaVerb::CommitOnePhase;
        }
        Some(Statement::Xa(verb, xid))
    }

    /// `'text'`, `X'00ff'` or `0x00ff`.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Token::Text(text) | Token::Name(text) => Some(text.into_bytes()),
            Token::Word(word) if word.eq_ignore_ascii_case("x") => match self.0.next()? {
                Token::Text(digits) => hex(&digits),
                _ => None,
            },
            Token::Word(word) => hex(word.strip_prefix("0x")?),
            Token::Sign(_) => None,
        }
    }
}

fn ddl(verb: &'static str, named: Vec<TableName>, complete: bool) -> Statement {
    Statement::Ddl {
        verb,
        tables: Tables { named, complete },
        begins_transaction: false,
        only_new: false,
        writes_rows: false,
    }
}

fn dml(verb: &'static str, named: Vec<TableName>, complete: bool) -> Statement {
    Statement::Dml {
        verb,
        tables: Tables { named, complete },
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok())
        .collect()
}

#[cfg(test)]
mod tests;
