//! The workload into PostgreSQL.
//!
//! Statements are those of an application that writes in bulk: multi-row INSERT, `INSERT … ON CONFLICT DO UPDATE` (the one
//! statement that updates many rows to different values), `DELETE … WHERE id IN (…)`.

use std::fmt::Write as _;
use std::path::Path;

use tokio_postgres::{Client, Config, NoTls};

use super::{differing, sql_timestamp};
use crate::truth::{Images, Truth, columns_text, row_digest};
use crate::workload::{Operation, Run, Transaction, Workload};

/// The workload's table.
pub const TABLE: &str = "walbrook.events";

/// Of a session that writes: dates as we spell them; deletes walk the primary key, which is the order of the truth.
pub(super) const SESSION: &str = "SET TimeZone = 'UTC'; SET datestyle = 'ISO'; SET enable_seqscan = off; SET enable_bitmapscan = off";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What updates and deletes write of the row as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Identity {
    /// The primary key, where it changes or the row is deleted.
    #[default]
    Default,
    /// The whole row.
    Full,
}

/// Connects to `url` without TLS.
///
/// # Errors
/// An unusable URL, an unset variable, no connection.
pub async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = config(url)?.connect(NoTls).await.map_err(reason)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!("connection to PostgreSQL: {error}");
        }
    });
    Ok(client)
}

/// Reads a URL argument.
///
/// # Errors
/// An unusable URL or an unset variable; the message does not repeat the URL, which may hold a password.
pub fn config(url: &str) -> Result<Config, String> {
    super::expanded(url)?
        .parse()
        .map_err(|_| "--url: expected postgres://user:password@host:port/database".to_owned())
}

/// Makes schema and table anew.
///
/// # Errors
/// Those of the server.
pub async fn prepare(client: &Client, identity: Identity) -> Result<(), Error> {
    let identity = match identity {
        Identity::Default => "DEFAULT",
        Identity::Full => "FULL",
    };
    let statements = format!(
        "CREATE SCHEMA IF NOT EXISTS walbrook; DROP TABLE IF EXISTS {TABLE}; \
         CREATE TABLE {TABLE} (id BIGINT NOT NULL PRIMARY KEY, category VARCHAR(64) NOT NULL, \
         domain VARCHAR(255) NOT NULL, timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP); \
         ALTER TABLE {TABLE} REPLICA IDENTITY {identity}"
    );
    Ok(client.batch_execute(&statements).await.map_err(reason)?)
}

/// Makes the publication `name` anew, of one table or of all; partitions as their root.
///
/// # Errors
/// Those of the server.
pub async fn publish(client: &Client, name: &str, table: Option<&str>) -> Result<(), Error> {
    let name = quoted(name);
    let tables = table.map_or("ALL TABLES".to_owned(), |table| format!("TABLE {table}"));
    for statement in [
        format!("DROP PUBLICATION IF EXISTS {name}"),
        format!("CREATE PUBLICATION {name} FOR {tables} WITH (publish_via_partition_root = true)"),
    ] {
        client.batch_execute(&statement).await.map_err(reason)?;
    }
    Ok(())
}

/// Makes a logical replication slot; everything committed from now on waits in it, and with `two_phase` (from version 14 on) also what
/// is prepared.
///
/// # Errors
/// Those of the server.
pub async fn make_slot(
    client: &Client,
    name: &str,
    plugin: &str,
    two_phase: bool,
) -> Result<(), Error> {
    let two_phase = if two_phase { ", false, true" } else { "" };
    let select = format!(
        "SELECT lsn::text FROM pg_create_logical_replication_slot($1::text::name, $2::text::name{two_phase})"
    );
    client
        .query_one(&select, &[&name, &plugin])
        .await
        .map_err(reason)?;
    Ok(())
}

impl Identity {
    /// What records tell of rows as they were.
    pub fn images(self) -> Images {
        match self {
            Identity::Default => Images::Key,
            Identity::Full => Images::Full,
        }
    }
}

/// Runs one pass of `workload` into the table that [`prepare`] made with `identity`; answers the truth after comparing it with the
/// table.
///
/// # Errors
/// Those of the server, or the differing line.
pub async fn seed(
    client: &Client,
    workload: &Workload,
    identity: Identity,
) -> Result<Truth, Error> {
    write(client, workload.transactions()).await?;
    let truth = Truth::with(workload, identity.images());
    let (rows, state) = table_state(client).await?;
    differing(&truth, rows, &state)?;
    Ok(truth)
}

/// Runs `transactions` into the table that [`prepare`] made.
///
/// # Errors
/// Those of the server.
pub async fn write(
    client: &Client,
    transactions: impl Iterator<Item = Transaction>,
) -> Result<(), Error> {
    client.batch_execute(SESSION).await.map_err(reason)?;
    for transaction in transactions {
        let mut request = "BEGIN".to_owned();
        for run in &transaction.runs {
            request.push_str(";\n");
            request.push_str(&statement(run));
        }
        request.push_str(";\nCOMMIT");
        client.batch_execute(&request).await.map_err(reason)?;
    }
    Ok(())
}

/// One statement for a whole run.
pub(super) fn statement(run: &Run) -> String {
    if run.operation == Operation::Delete {
        let ids: Vec<String> = run
            .changes
            .iter()
            .filter_map(|change| change.before.as_ref())
            .map(|row| row.id.to_string())
            .collect();
        return format!("DELETE FROM {TABLE} WHERE id IN ({})", ids.join(","));
    }
    let mut sql = format!("INSERT INTO {TABLE} VALUES ");
    for row in run
        .changes
        .iter()
        .filter_map(|change| change.after.as_ref())
    {
        // The generator's strings need no escaping.
        let _ = write!(
            sql,
            "({},'{}','{}','{}'),",
            row.id,
            row.category,
            row.domain,
            sql_timestamp(row.timestamp_s)
        );
    }
    sql.pop();
    if run.operation == Operation::Update {
        sql.push_str(" ON CONFLICT (id) DO UPDATE SET category = EXCLUDED.category, timestamp = EXCLUDED.timestamp");
    }
    sql
}

/// Rows of the table and their digest, as [`Truth::state`] has it.
pub(super) async fn table_state(client: &Client) -> Result<(u64, String), Error> {
    let select = format!(
        "SELECT id, category, domain, replace(timestamp::text, ' ', 'T') || 'Z' FROM {TABLE}"
    );
    let (mut rows, mut state) = (0u64, 0u128);
    let mut text = Vec::new();
    for row in client.query(&select, &[]).await.map_err(reason)? {
        text.clear();
        let timestamp: String = row.try_get(3).map_err(reason)?;
        columns_text(
            row.try_get(0).map_err(reason)?,
            row.try_get(1).map_err(reason)?,
            row.try_get(2).map_err(reason)?,
            &timestamp,
            &mut text,
        );
        state = state.wrapping_add(u128::from_le_bytes(row_digest(&text)));
        rows += 1;
    }
    Ok((rows, format!("{state:032x}")))
}

/// Runs the statements of the file at `path`, each by itself: sent together they would be one transaction.
///
/// # Errors
/// An unreadable file; the server's refusal, with the number of the statement.
pub async fn script(client: &Client, path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    for (number, statement) in statements(&text).into_iter().enumerate() {
        client.batch_execute(statement).await.map_err(|error| {
            let start: String = statement.chars().take(80).collect();
            format!(
                "{shown}: statement {}, {start}: {}",
                number + 1,
                reason(error)
            )
        })?;
    }
    Ok(())
}

/// Cuts a script at the semicolons that end statements: not those in quotes, dollar quotes and comments (section 4.1, "Lexical
/// Structure"). Backslashes escape in `E'…'` only.
fn statements(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let length = |rest: &str| match bytes[at] {
            b'\'' => {
                let escapes = at > 0 && bytes[at - 1].eq_ignore_ascii_case(&b'e');
                quotation(rest, '\'', escapes)
            }
            b'"' => quotation(rest, '"', false),
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'$' => dollar_quotation(rest).unwrap_or(1),
            _ => 1,
        };
        if bytes[at] == b';' {
            found.push(text[start..at].trim());
            start = at + 1;
        }
        // Inside a character of several bytes nothing begins.
        at += text.get(at..).map_or(1, length);
    }
    found.push(text[start..].trim());
    let only_comment = |statement: &str| {
        statement
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with("--"))
    };
    found.retain(|statement| !only_comment(statement));
    found
}

/// Length of the quotation that `text` starts with; a doubled quote is two quotations side by side.
fn quotation(text: &str, quote: char, escapes: bool) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' if escapes => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of `$tag$…$tag$` at the start of `text`.
fn dollar_quotation(text: &str) -> Option<usize> {
    let tag_end = text[1..].find('$')? + 2;
    let tag = &text[..tag_end];
    let inner = &tag[1..tag_end - 1];
    if !inner.chars().all(|c| c.is_alphanumeric() || c == '_')
        || inner.starts_with(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    let end = text[tag_end..].find(tag)?;
    Some(tag_end + end + tag.len())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The server's own words, which the library's error hides behind `db error`.
pub(crate) fn reason(error: tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => server.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Change, Row};

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
            statement(&update),
            "INSERT INTO walbrook.events VALUES (1,'b','d.io','2025-02-17 15:19:39') \
             ON CONFLICT (id) DO UPDATE SET category = EXCLUDED.category, timestamp = EXCLUDED.timestamp"
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
            statement(&deletes),
            "DELETE FROM walbrook.events WHERE id IN (3,5)"
        );
    }

    #[test]
    fn scripts_are_cut_where_statements_end() {
        let script = "-- one; two\nSELECT ';', ';''', \"a;b\"; /* ; */ SELECT E'\\';', '\\';\n\
                      DO $body$ BEGIN PERFORM $1; END $body$;\nSELECT 'é𝄞;', 1 -- no end\n;\n\n-- last";
        assert_eq!(
            statements(script),
            [
                "-- one; two\nSELECT ';', ';''', \"a;b\"",
                "/* ; */ SELECT E'\\';', '\\'",
                "DO $body$ BEGIN PERFORM $1; END $body$",
                "SELECT 'é𝄞;', 1 -- no end",
            ]
        );
    }
}
