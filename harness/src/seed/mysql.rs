//! The workload into MySQL or MariaDB.
//!
//! Statements are those of an application that writes in bulk: multi-row INSERT, `INSERT … ON DUPLICATE KEY UPDATE` (the one
//! statement that updates many rows to different values), `DELETE … WHERE id IN (…)`.

use std::fmt::Write as _;
use std::path::Path;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};

use super::{differing, sql_timestamp};
use crate::servers::Flavour;
use crate::truth::{Truth, columns_text, row_digest};
use crate::workload::{Operation, Row, Run, Transaction, Workload};

/// Connects to `url`; `mariadb://` is the same protocol.
///
/// # Errors
/// An unusable URL, an unset variable, no connection.
pub async fn connect(url: &str) -> Result<Conn, Box<dyn std::error::Error + Send + Sync>> {
    let options = OptsBuilder::from_opts(options(url)?)
        .prefer_socket(false)
        .max_allowed_packet(Some(64 << 20));
    Ok(Conn::new(options).await?)
}

/// Reads a URL argument.
///
/// # Errors
/// An unusable URL or an unset variable; the message does not repeat the URL, which may hold a password.
pub fn options(url: &str) -> Result<Opts, String> {
    let url = super::expanded(url)?;
    let url = url
        .strip_prefix("mariadb:")
        .map_or(url.clone(), |rest| format!("mysql:{rest}"));
    Opts::from_url(&url).map_err(|_| "--url: expected mysql://user:password@host:port".to_owned())
}

/// Runs the statements of the file at `path`.
///
/// # Errors
/// An unreadable file; the server's refusal, with the number of the statement.
pub async fn script(
    connection: &mut Conn,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let failed =
        |number: usize, error: mysql_async::Error| format!("{shown}: statement {number}: {error}");
    // One request with many statements: what ends a statement is for the server to know.
    let mut result = connection
        .query_iter(text)
        .await
        .map_err(|error| failed(1, error))?;
    let mut number = 1;
    while !result.is_empty() {
        result
            .for_each(drop)
            .await
            .map_err(|error| failed(number, error))?;
        number += 1;
    }
    Ok(())
}

/// Makes the table anew and runs one pass of `workload` into it; answers the truth after comparing it with the table.
///
/// # Errors
/// Those of the server, or the differing line.
pub async fn seed(
    connection: &mut Conn,
    workload: &Workload,
) -> Result<Truth, Box<dyn std::error::Error + Send + Sync>> {
    prepare(connection).await?;
    write(connection, workload.transactions()).await?;
    let truth = Truth::of(workload);
    let (rows, state) = table_state(connection).await?;
    differing(&truth, rows, &state)?;
    Ok(truth)
}

/// Makes database and table anew.
///
/// # Errors
/// Those of the server.
pub async fn prepare(connection: &mut Conn) -> Result<(), mysql_async::Error> {
    for statement in [
        "SET time_zone = '+00:00'",
        "CREATE DATABASE IF NOT EXISTS walbrook CHARACTER SET utf8mb4",
        "DROP TABLE IF EXISTS walbrook.events",
        "CREATE TABLE walbrook.events (id BIGINT NOT NULL PRIMARY KEY, category VARCHAR(64) NOT NULL, \
         domain VARCHAR(255) NOT NULL, timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ] {
        connection.query_drop(statement).await?;
    }
    Ok(())
}

/// Runs `transactions` into the table that [`prepare`] made.
///
/// # Errors
/// Those of the server.
pub async fn write(
    connection: &mut Conn,
    transactions: impl Iterator<Item = Transaction>,
) -> Result<(), mysql_async::Error> {
    let version: Option<String> = connection.query_first("SELECT VERSION()").await?;
    let flavour = match version.is_some_and(|version| version.contains("MariaDB")) {
        true => Flavour::Mariadb,
        false => Flavour::Mysql,
    };
    connection.query_drop("SET time_zone = '+00:00'").await?;
    for transaction in transactions {
        connection.query_drop("BEGIN").await?;
        for run in &transaction.runs {
            connection.query_drop(statement(run, flavour)).await?;
        }
        connection.query_drop("COMMIT").await?;
    }
    Ok(())
}

/// One statement for a whole run.
fn statement(run: &Run, flavour: Flavour) -> String {
    if run.operation == Operation::Delete {
        let ids: Vec<String> = run
            .changes
            .iter()
            .filter_map(|change| change.before.as_ref())
            .map(|row| row.id.to_string())
            .collect();
        return format!(
            "DELETE FROM walbrook.events WHERE id IN ({})",
            ids.join(",")
        );
    }
    let mut sql = "INSERT INTO walbrook.events VALUES ".to_owned();
    for row in run
        .changes
        .iter()
        .filter_map(|change| change.after.as_ref())
    {
        let Row {
            id,
            category,
            domain,
            timestamp_s,
        } = row;
        // The generator's strings need no escaping.
        let _ = write!(
            sql,
            "({id},'{category}','{domain}','{}'),",
            sql_timestamp(*timestamp_s)
        );
    }
    sql.pop();
    match (run.operation, flavour) {
        (Operation::Update, Flavour::Mysql) => {
            sql.push_str(" AS new ON DUPLICATE KEY UPDATE category = new.category, timestamp = new.timestamp");
        }
        (Operation::Update, _) => {
            sql.push_str(" ON DUPLICATE KEY UPDATE category = VALUES(category), timestamp = VALUES(timestamp)");
        }
        _ => {}
    }
    sql
}

/// Rows of the table and their digest, as [`Truth::state`] has it.
async fn table_state(connection: &mut Conn) -> Result<(u64, String), mysql_async::Error> {
    let select = "SELECT id, category, domain, CONCAT(REPLACE(CAST(timestamp AS CHAR), ' ', 'T'), 'Z') FROM walbrook.events";
    let mut result = connection.query_iter(select).await?;
    let (mut rows, mut state) = (0u64, 0u128);
    let mut text = Vec::new();
    while let Some(row) = result.next().await? {
        let (id, category, domain, timestamp) =
            mysql_async::from_row_opt::<(i64, String, String, String)>(row)
                .map_err(|error| mysql_async::Error::Other(error.into()))?;
        text.clear();
        columns_text(id, &category, &domain, &timestamp, &mut text);
        state = state.wrapping_add(u128::from_le_bytes(row_digest(&text)));
        rows += 1;
    }
    Ok((rows, format!("{state:032x}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Change;

    #[test]
    fn a_run_is_one_statement() {
        let row = |id, category: &str| Row {
            id,
            category: category.into(),
            domain: "d.io".into(),
            timestamp_s: 1_739_805_579,
        };
        let update = Run {
            operation: Operation::Update,
            changes: vec![Change {
                before: Some(row(1, "a")),
                after: Some(row(1, "b")),
            }],
        };
        assert_eq!(
            statement(&update, Flavour::Mariadb),
            "INSERT INTO walbrook.events VALUES (1,'b','d.io','2025-02-17 15:19:39') \
             ON DUPLICATE KEY UPDATE category = VALUES(category), timestamp = VALUES(timestamp)"
        );
        let delete = |id| Change {
            before: Some(row(id, "a")),
            after: None,
        };
        let deletes = Run {
            operation: Operation::Delete,
            changes: vec![delete(3), delete(5)],
        };
        assert_eq!(
            statement(&deletes, Flavour::Mysql),
            "DELETE FROM walbrook.events WHERE id IN (3,5)"
        );
    }
}
