//! What a QUERY event means for the stream.

use protocol::mysql::event::Query;

use super::xa::Xid;

/// A table that a statement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
}

/// What a statement says, as far as capture has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Begin,
    Commit,
    /// Of the whole transaction.
    Rollback,
    RollbackTo,
    Savepoint,
    XaStart,
    XaEnd,
    /// `None`: its XID cannot be read.
    XaCommit(Option<Xid>),
    XaRollback(Option<Xid>),
    /// INSERT, UPDATE, DELETE, LOAD DATA …: rows that no event shows. `None`: the table cannot be told.
    Change(Option<Table>),
    /// A definition changes: CREATE, ALTER, DROP, RENAME, TRUNCATE. `None`: of several tables, or it cannot be told.
    Define(Option<Table>),
    /// Anything else: GRANT, FLUSH, ANALYZE …
    Other,
}

impl Said {
    /// Reads a statement as far as needed.
    pub(super) fn read(query: &Query<'_>) -> Self {
        let statement = query.statement;
        // What nearly every transaction has.
        match statement {
            b"BEGIN" => return Self::Begin,
            b"COMMIT" => return Self::Commit,
            _ => {}
        }
        let text = String::from_utf8_lossy(statement);
        let text = skip_comments(&text);
        let mut words = text.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_ascii_uppercase();
        match word().as_str() {
            "BEGIN" => Self::Begin,
            "START" if word().starts_with("TRANSACTION") => Self::Begin,
            "COMMIT" => Self::Commit,
            "ROLLBACK" => match word().as_str() {
                "TO" => Self::RollbackTo,
                _ => Self::Rollback,
            },
            "SAVEPOINT" | "RELEASE" => Self::Savepoint,
            "XA" => {
                let verb = word();
                let xid = || {
                    let rest = text.get(2..)?.trim_start().get(verb.len()..)?;
                    Xid::parse(rest)
                };
                match verb.as_str() {
                    "START" | "BEGIN" => Self::XaStart,
                    "END" | "PREPARE" => Self::XaEnd,
                    "COMMIT" => Self::XaCommit(xid()),
                    "ROLLBACK" => Self::XaRollback(xid()),
                    _ => Self::Other,
                }
            }
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "CALL" | "WITH" => {
                Self::Change(None)
            }
            "CREATE" | "ALTER" | "DROP" | "RENAME" | "TRUNCATE" => Self::Define(None),
            _ => Self::Other,
        }
    }
}

/// The statement from its first word on.
fn skip_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        let rest = match text.strip_prefix("/*") {
            // Executable comments are part of the statement.
            Some(rest) if rest.starts_with('!') || rest.starts_with("M!") => {
                return text
                    .trim_start_matches(|c: char| !c.is_ascii_whitespace())
                    .trim_start();
            }
            Some(rest) => rest.split_once("*/"),
            None if text.starts_with("--") || text.starts_with('#') => text.split_once('\n'),
            None => return text,
        };
        match rest {
            Some((_, rest)) => text = rest,
            None => return "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(statement: &str) -> Said {
        Said::read(&Query {
            thread: 0,
            seconds: 0,
            error: 0,
            database: b"shop",
            statement: statement.as_bytes(),
            charset: None,
            flags: None,
            sql_mode: None,
            ddl_xid: None,
        })
    }

    #[test]
    fn transactions() {
        for (statement, expected) in [
            ("BEGIN", Said::Begin),
            ("START TRANSACTION", Said::Begin),
            ("COMMIT", Said::Commit),
            ("ROLLBACK", Said::Rollback),
            ("ROLLBACK TO `a`", Said::RollbackTo),
            ("SAVEPOINT `a`", Said::Savepoint),
            ("XA START X'61',X'',1", Said::XaStart),
            ("XA END X'61',X'',1", Said::XaEnd),
            (
                "XA COMMIT X'61',X'',1",
                Said::XaCommit(Xid::parse("X'61',X'',1")),
            ),
            ("XA COMMIT 'a'", Said::XaCommit(None)),
            (
                "XA ROLLBACK X'61',X'',1",
                Said::XaRollback(Xid::parse("X'61',X'',1")),
            ),
            ("FLUSH TABLES", Said::Other),
        ] {
            assert_eq!(said(statement), expected, "{statement}");
        }
    }

    #[test]
    fn changes_and_definitions() {
        for statement in [
            "insert into t values (1)",
            "/* app */ UPDATE t SET a = 1",
            "-- x\n# y\nDELETE FROM t",
            "LOAD DATA INFILE 'x' INTO TABLE t",
        ] {
            assert!(matches!(said(statement), Said::Change(_)), "{statement}");
        }
        for statement in [
            "create table t (a int)",
            "/* x */ ALTER TABLE t ADD b INT",
            "TRUNCATE t",
        ] {
            assert!(matches!(said(statement), Said::Define(_)), "{statement}");
        }
    }
}
