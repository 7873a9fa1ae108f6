//! Changes that a server makes and leaves out of its binary log, however its rows are set to be logged: what it replicates, the
//! databases that it filters out, and the rows that InnoDB changes for the sake of foreign keys.
//!
//! Nothing of this can be seen in the stream, so the server is asked. What only `walbrook check` and a first start want to know is asked
//! only where a variable says that there may be something.

use std::collections::BTreeSet;

use protocol::mysql::gtid::IntervalSet;

use super::connection::{Connection, ConnectionError};
use super::server::{Answer, Status, Variables};
use super::session::ask;
use crate::config::Selection;
use crate::source::{Outcome, Requirement};

/// Whether the server is a replica, in the words of MySQL 8.0.22 and later, then of everybody else. MySQL asks for REPLICATION CLIENT,
/// which our user has; MariaDB for a privilege that it has not: see [`THREADS`].
const REPLICA: [&str; 2] = ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"];

/// How many connections MariaDB replicates by, which everybody may ask.
const THREADS: &str = "SHOW GLOBAL STATUS LIKE 'Slaves_running'";

/// Every table that our user sees: database and name.
const TABLES: &str = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE NOT LIKE '%VIEW%'";

/// Foreign keys that have rows changed: database and name of the table with those rows. With SET DEFAULT, InnoDB refuses the change of the
/// other table, as with RESTRICT.
const CASCADES: &str = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS \
     WHERE DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL')";

/// Whether our user sees any key of a table. MariaDB shows them to whoever has another privilege on the table than SELECT.
const KEYS: &str = "SELECT TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS LIMIT 1";

/// Tables that a message names: it has to be read.
const NAMED_MAX: usize = 10;

/// What the server was asked besides its variables.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Where changes come from that the server may not log; `None` where nothing says that there are any.
    replicates: Option<&'static str>,
    /// The tables that our user sees, where some databases are filtered out.
    tables: Answer,
}

/// Asks what [`requirements`] judges.
///
/// # Errors
/// As [`Connection::query`], but for refusals: what may not be asked is not known.
pub(super) async fn look(
    connection: &mut Connection,
    variables: &Variables,
    status: Option<&Status>,
) -> Result<Known, ConnectionError> {
    let mut known = Known::default();
    if leaves_out_replicated(variables).is_some() {
        known.replicates = replicates(connection, variables).await?;
    }
    if status.is_some_and(Status::is_filtered) {
        known.tables = ask_where_permitted(connection, TABLES)
            .await?
            .unwrap_or_default();
    }
    Ok(known)
}

async fn ask_where_permitted(
    connection: &mut Connection,
    statement: &str,
) -> Result<Option<Answer>, ConnectionError> {
    match ask(connection, statement).await {
        Ok(answer) => Ok(Some(answer)),
        Err(ConnectionError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn replicates(
    connection: &mut Connection,
    variables: &Variables,
) -> Result<Option<&'static str>, ConnectionError> {
    const REPLICA_OF: &str = "is a replica";
    if variables.is("wsrep_on", "ON") {
        return Ok(Some("is a node of a Galera cluster"));
    }
    // Where MariaDB has replicated to; it keeps that when it becomes a primary.
    if variables
        .text("gtid_slave_pos")
        .is_some_and(|set| !set.is_empty())
    {
        return Ok(Some("is, or was, a replica"));
    }
    let threads = ask_where_permitted(connection, THREADS).await?;
    let count = threads
        .into_iter()
        .flatten()
        .find_map(|row| row.into_iter().nth(1)?);
    if let Some(count) = count {
        return Ok((count != "0").then_some(REPLICA_OF));
    }
    for statement in REPLICA {
        if let Some(answer) = ask_where_permitted(connection, statement).await? {
            return Ok((!answer.is_empty()).then_some(REPLICA_OF));
        }
    }
    Ok(None)
}

/// The variable that says whether the server logs what it replicates, by the name that the server has for it.
fn replicated_variable(variables: &Variables) -> Option<&'static str> {
    ["log_replica_updates", "log_slave_updates"]
        .into_iter()
        .find(|name| variables.text(name).is_some())
}

/// The variable where the server does not log what it replicates.
pub(super) fn leaves_out_replicated(variables: &Variables) -> Option<&'static str> {
    replicated_variable(variables).filter(|name| variables.is(name, "OFF"))
}

/// Why transactions that were executed and not captured are not in the log of a MySQL, and what to do. What it replicates without logging
/// it counts as purged at once.
pub(super) fn purged(variables: &Variables, missing: &IntervalSet) -> String {
    let (what, mend) = match leaves_out_replicated(variables) {
        None => (String::new(), String::new()),
        Some(name) => (
            format!(", or replicated without logging them ({name} is OFF),"),
            format!("start the server with {name} = ON in [mysqld], or "),
        ),
    };
    format!(
        "the server has purged{what} transactions {missing} that were not captured yet; take a new snapshot of the captured tables, then \
         start again with `walbrook position reset` (and {mend}raise binlog_expire_logs_seconds)"
    )
}

/// One more reason why a transaction is not in the log; empty where it is none.
pub(super) fn aside(variables: &Variables) -> String {
    leaves_out_replicated(variables).map_or_else(String::new, |name| {
        format!(" or does not log what it replicates ({name} is OFF; start it with ON in [mysqld])")
    })
}

/// What the log lacks for what the server replicates and filters.
pub(super) fn requirements(
    variables: &Variables,
    status: Option<&Status>,
    selection: &Selection,
    known: &Known,
) -> Vec<Requirement> {
    let mut list: Vec<Requirement> = replicated(variables, known).into_iter().collect();
    list.extend(status.map(|status| filtered(status, selection, known)));
    list
}

fn replicated(variables: &Variables, known: &Known) -> Option<Requirement> {
    let name = replicated_variable(variables)?;
    let outcome = match known.replicates {
        None => Outcome::Met,
        Some(role) => Outcome::Advice(format!(
            "it is OFF and the server {role}: what it replicates is not in its log, and not captured; start it with {name} = ON in \
             [mysqld], or capture the server that the changes are made on"
        )),
    };
    Some(Requirement {
        what: format!("{name} is ON, or the server replicates nothing"),
        outcome,
    })
}

fn filtered(status: &Status, selection: &Selection, known: &Known) -> Requirement {
    let mut hidden = BTreeSet::new();
    let mut logged = BTreeSet::new();
    for row in &known.tables {
        if let [Some(schema), Some(table), ..] = row.as_slice()
            && selection.includes(schema, table)
        {
            match status.logs(schema) {
                true => logged.insert(schema.as_str()),
                false => hidden.insert(schema.as_str()),
            };
        }
    }
    let settings = status.filters();
    let outcome = if settings.is_empty() {
        Outcome::Met
    } else if hidden.is_empty() {
        Outcome::Advice(format!(
            "{settings}: no captured table that this user sees is left out, but TRUNCATE, ALTER TABLE and other statements are logged by \
             the session's default database, whatever table they name; take it out of [mysqld] and restart the server"
        ))
    } else {
        let databases = hidden.into_iter().collect::<Vec<_>>().join(", ");
        let text = format!(
            "{settings}: changes in {databases} are not in the log, and not captured; take it out of [mysqld] and restart the server, or \
             exclude them in source.tables"
        );
        match logged.is_empty() {
            true => Outcome::Missing(text),
            false => Outcome::Advice(text),
        }
    };
    Requirement {
        what: "every database is logged".into(),
        outcome,
    }
}

/// Which captured tables have rows changed by foreign keys that the log does not have. MySQL from 9.6 on changes them above InnoDB, and logs
/// them, unless it is told not to (`innodb_native_foreign_keys`); a server without that variable never does.
///
/// # Errors
/// As [`Connection::query`], but for refusals.
pub(super) async fn cascades(
    connection: &mut Connection,
    variables: &Variables,
    selection: &Selection,
    user: &str,
) -> Result<Requirement, ConnectionError> {
    let mut answer = Some(Answer::new());
    if !variables.is("innodb_native_foreign_keys", "OFF") {
        answer = ask_where_permitted(connection, CASCADES).await?;
        // None, or none that our user may see?
        if answer.as_ref().is_some_and(Vec::is_empty) {
            let keys = ask_where_permitted(connection, KEYS).await?;
            answer = answer.filter(|_| keys.is_some_and(|keys| !keys.is_empty()));
        }
    }
    Ok(Requirement {
        what: "foreign keys change no captured rows without a word in the log".into(),
        outcome: cascading(variables, selection, user, answer),
    })
}

/// `answer`: to [`CASCADES`]; `None` where our user may not see them.
fn cascading(
    variables: &Variables,
    selection: &Selection,
    user: &str,
    answer: Option<Answer>,
) -> Outcome {
    let Some(answer) = answer else {
        return Outcome::Advice(format!(
            "this user sees no keys of any table, so whether rows of captured ones are changed by ON DELETE or ON UPDATE CASCADE or SET \
             NULL, which the log does not have, is not known; run GRANT REFERENCES ON *.* TO '{user}'@'%' and check again, or have \
             somebody else run {CASCADES}"
        ));
    };
    // A table may have several.
    let mut tables = BTreeSet::new();
    for row in answer {
        let mut row = row.into_iter().flatten();
        if let (Some(schema), Some(table)) = (row.next(), row.next())
            && selection.includes(&schema, &table)
        {
            tables.insert((schema, table));
        }
    }
    if tables.is_empty() {
        return Outcome::Met;
    }
    let more = tables.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = (tables.iter().take(NAMED_MAX))
        .map(|(schema, table)| format!("{schema}.{table}"))
        .collect();
    let mut named = named.join(", ");
    if more > 0 {
        named += &format!(" and {more} more");
    }
    let mend = match variables.text("innodb_native_foreign_keys") {
        Some(_) => {
            "start the server with innodb_native_foreign_keys = OFF in [mysqld], or delete and update those rows by statements"
        }
        None => "delete and update those rows by statements, ahead of the rows that they refer to",
    };
    Outcome::Advice(format!(
        "rows of {named} that ON DELETE or ON UPDATE CASCADE or SET NULL changes are not in the log, and not captured; {mend}"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::server::answer;
    use super::*;

    fn variables(pairs: &[[&str; 2]]) -> Variables {
        let rows: Vec<&[&str]> = pairs.iter().map(<[&str; 2]>::as_slice).collect();
        Variables::read(answer(&rows))
    }

    fn status(only: &str, not: &str) -> Status {
        let read = Status::read(answer(&[&["b.000001", "330", only, not]]));
        read.unwrap().unwrap()
    }

    /// What is said of a server of these variables whose log has these filters, where our user sees these tables.
    fn said(pairs: &[[&str; 2]], filters: [&str; 2], known: &Known) -> Vec<Outcome> {
        let [only, not] = filters;
        let selection = Selection::new(&["shop.*", "crm.*", "!crm.scratch"]).unwrap();
        let status = status(only, not);
        let list = requirements(&variables(pairs), Some(&status), &selection, known);
        list.into_iter().map(|it| it.outcome).collect()
    }

    #[test]
    fn a_replica_that_does_not_log_what_it_replicates_is_told_of() {
        let replica = Known {
            replicates: Some("is a replica"),
            ..Known::default()
        };
        let primary = Known::default();
        for name in ["log_replica_updates", "log_slave_updates"] {
            let off = [[name, "OFF"]];
            assert_eq!(said(&off, ["", ""], &primary), [Outcome::Met, Outcome::Met]);
            let list = said(&off, ["", ""], &replica);
            let Some(Outcome::Advice(text)) = list.first() else {
                panic!("{list:?}");
            };
            let mend = format!("start it with {name} = ON in [mysqld]");
            assert!(text.contains(&mend), "{text}");
            assert_eq!(leaves_out_replicated(&variables(&off)), Some(name));
            assert_eq!(leaves_out_replicated(&variables(&[[name, "ON"]])), None);
        }
        // MySQL 8.0.26 and later have both names.
        let both = [["log_slave_updates", "OFF"], ["log_replica_updates", "OFF"]];
        let list = said(&both, ["", ""], &replica);
        assert!(
            matches!(list.first(), Some(Outcome::Advice(text)) if text.contains("log_replica_updates = ON")),
            "{list:?}"
        );
    }

    #[test]
    fn databases_that_are_not_logged_are_named() {
        let known = Known {
            replicates: None,
            tables: answer(&[
                &["shop", "t"],
                &["crm", "t"],
                &["crm", "scratch"],
                &["other", "t"],
            ]),
        };
        let said = |only, not| {
            let mut list = said(&[], [only, not], &known);
            assert_eq!(list.len(), 1);
            list.remove(0)
        };
        assert_eq!(said("", ""), Outcome::Met);
        for (only, not, setting) in [
            ("shop", "", "binlog_do_db is shop"),
            ("shop,other", "", "binlog_do_db is shop,other"),
            ("", "mysql,crm", "binlog_ignore_db is mysql,crm"),
        ] {
            let outcome = said(only, not);
            let Outcome::Advice(text) = &outcome else {
                panic!("{outcome:?}");
            };
            let begin = format!("{setting}: changes in crm are not in the log");
            assert!(text.starts_with(&begin), "{text}");
        }
        // Nothing that is to be captured ever would be.
        for (only, not) in [("other", ""), ("", "shop,crm")] {
            let outcome = said(only, not);
            assert!(
                matches!(&outcome, Outcome::Missing(text) if text.contains("changes in crm, shop")),
                "{outcome:?}"
            );
        }
        // It hides no rows of ours, but may hide statements.
        let outcome = said("", "mysql,other");
        assert!(
            matches!(&outcome, Outcome::Advice(text) if text.contains("session's default database")),
            "{outcome:?}"
        );
    }

    #[test]
    fn tables_that_foreign_keys_change_are_named_where_the_log_lacks_it() {
        let selection = Selection::new(&["shop.*", "!shop.scratch"]).unwrap();
        let keys: &[&[&str]] = &[
            &["shop", "lines"],
            &["shop", "lines"],
            &["shop", "scratch"],
            &["other", "t"],
        ];
        let said = |pairs: &[[&str; 2]], keys: Option<&[&[&str]]>| {
            cascading(&variables(pairs), &selection, "cdc", keys.map(answer))
        };
        let Outcome::Advice(text) = said(&[], Some(keys)) else {
            panic!("nothing is said");
        };
        assert!(
            text.starts_with("rows of shop.lines that ON DELETE"),
            "{text}"
        );
        let native = said(&[["innodb_native_foreign_keys", "ON"]], Some(keys));
        assert!(
            matches!(&native, Outcome::Advice(text) if text.contains("innodb_native_foreign_keys = OFF")),
            "{native:?}"
        );
        assert_eq!(said(&[], Some(&[&["other", "t"]])), Outcome::Met);
        let unseen = said(&[], None);
        assert!(
            matches!(&unseen, Outcome::Advice(text) if text.contains("GRANT REFERENCES ON *.* TO 'cdc'@'%'")),
            "{unseen:?}"
        );

        let many: Vec<String> = (10..25).map(|n| format!("t{n}")).collect();
        let many: Vec<[&str; 2]> = many.iter().map(|table| ["shop", table.as_str()]).collect();
        let many: Vec<&[&str]> = many.iter().map(<[&str; 2]>::as_slice).collect();
        let Outcome::Advice(text) = said(&[], Some(&many)) else {
            panic!("nothing is said");
        };
        assert!(text.contains("shop.t19 and 5 more that"), "{text}");
    }
}
