//! `harness seed`: puts the deterministic workload into a real server and proves that it arrived there.
//!
//! Afterwards the table is read back: a truth that the server itself contradicts is worth nothing.

pub mod interleaved;
pub mod mysql;
pub mod postgres;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::Outcome;
use crate::servers::Flavour;
use crate::truth::{Truth, timestamp_text};
use crate::workload::Workload;

/// `harness seed`: the workload into a real server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind of server.
    #[arg(value_enum)]
    server: Flavour,
    /// `mysql://user:password@host:port` or `postgres://user:password@host:port/database`; `${NAME}` stands for an environment
    /// variable.
    #[arg(long)]
    url: String,
    /// Row changes of the workload.
    #[arg(long, required_unless_present = "sql", conflicts_with = "sql")]
    rows: Option<u64>,
    /// Scripts to run instead of the workload, in order.
    #[arg(long)]
    sql: Vec<PathBuf>,
    /// Seed of the workload.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where to write what must come out.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// PostgreSQL: what updates and deletes tell of the row as it was.
    #[arg(long, value_enum, default_value_t)]
    identity: postgres::Identity,
    /// PostgreSQL: make this replication slot, and a publication of the same name, so that the changes wait there.
    #[arg(long)]
    slot: Option<String>,
    /// PostgreSQL: the slot's output plugin.
    #[arg(long, default_value = "pgoutput")]
    plugin: String,
    /// PostgreSQL: write through so many sessions at once, each its share, in large transactions with parts that are rolled back.
    #[arg(long)]
    sessions: Option<u32>,
    /// With --sessions: every other session commits in two phases, and the slot sends what is prepared.
    #[arg(long, requires = "sessions")]
    two_phase: bool,
}

/// Runs `harness seed`.
///
/// # Errors
/// No connection, a refused statement, a table that is not what the workload makes of it, an unwritable truth file.
pub async fn run(args: Args) -> Outcome {
    let workload = args.rows.map(|rows| Workload::new(rows, args.seed));
    let truth = match args.server {
        Flavour::Mysql | Flavour::Mariadb => into_mysql(&args, workload.as_ref()).await?,
        Flavour::Postgres | Flavour::Postgres17 | Flavour::Postgres18 => {
            into_postgres(&args, workload.as_ref()).await?
        }
    };
    let Some(truth) = truth else {
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(path) = args.truth {
        std::fs::write(&path, truth.to_toml())
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    println!(
        "{} changes in {}.{}: {} rows left",
        truth.changes, truth.schema, truth.table, truth.live_rows
    );
    Ok(ExitCode::SUCCESS)
}

/// The workload's truth, or none after scripts.
type Seeded = Result<Option<Truth>, Box<dyn std::error::Error + Send + Sync>>;

async fn into_mysql(args: &Args, workload: Option<&Workload>) -> Seeded {
    let mut connection = mysql::connect(&args.url).await?;
    for path in &args.sql {
        mysql::script(&mut connection, path).await?;
    }
    let truth = match workload {
        Some(workload) => Some(mysql::seed(&mut connection, workload).await?),
        None => None,
    };
    connection.disconnect().await?;
    Ok(truth)
}

async fn into_postgres(args: &Args, workload: Option<&Workload>) -> Seeded {
    let client = postgres::connect(&args.url).await?;
    if workload.is_some() {
        postgres::prepare(&client, args.identity).await?;
    }
    if let Some(slot) = &args.slot {
        let table = workload.map(|_| postgres::TABLE);
        postgres::publish(&client, slot, table).await?;
        postgres::make_slot(&client, slot, &args.plugin, args.two_phase).await?;
    }
    for path in &args.sql {
        postgres::script(&client, path).await?;
    }
    match (workload, args.sessions) {
        (Some(workload), None) => Ok(Some(
            postgres::seed(&client, workload, args.identity).await?,
        )),
        (Some(workload), Some(sessions)) => {
            let plan = interleaved::Interleaving {
                changes: workload.changes,
                seed: workload.seed,
                sessions,
                two_phase: args.two_phase,
            };
            Ok(Some(
                interleaved::seed(&args.url, plan, args.identity).await?,
            ))
        }
        (None, _) => Ok(None),
    }
}

/// Replaces `${NAME}` by the environment's value, so that passwords need not stand in process lists.
pub fn expanded(text: &str) -> Result<String, String> {
    let mut parts = text.split("${");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').ok_or("`${` without `}`")?;
        let value =
            std::env::var(name).map_err(|_| format!("environment variable {name} is not set"))?;
        result.extend(percent_encoding::utf8_percent_encode(
            &value,
            percent_encoding::NON_ALPHANUMERIC,
        ));
        result.push_str(rest);
    }
    Ok(result)
}

fn sql_timestamp(seconds: i64) -> String {
    timestamp_text(seconds).replace('T', " ").replace('Z', "")
}

/// Refuses a table that is not what the workload makes of it, by its rows and their digest.
fn differing(truth: &Truth, rows: u64, state: &str) -> Result<(), String> {
    if (rows, state) == (truth.live_rows, truth.state.as_str()) {
        return Ok(());
    }
    let expected = format!("{} rows, digest {}", truth.live_rows, truth.state);
    Err(format!(
        "the table is not what the workload makes of it: expected {expected}, found {rows} rows, digest {state}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_and_escaped() {
        let path = expanded("mysql://u:${PATH}@h").unwrap();
        assert!(path.contains("%2F") && !path.contains('$'), "{path}");
        assert_eq!(
            expanded("${WALBROOK_NO_SUCH}").unwrap_err(),
            "environment variable WALBROOK_NO_SUCH is not set"
        );
    }
}
