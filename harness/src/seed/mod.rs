//! `harness seed`: puts the deterministic workload into a real server and proves that it arrived there.
//!
//! Afterwards the table is read back: a truth that the server itself contradicts is worth nothing.

pub mod interleaved;
pub mod mysql;
pub mod postgres;

use std::path::{Path, PathBuf};
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
    /// Read the password from this file instead of the URL.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
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
pub async fn run(mut args: Args) -> Outcome {
    args.url = with_password(args.server, args.url, args.password_file.as_deref())?;
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

/// `url` with the password of `file`, where there is one; encoded, so that nothing in it is read as a part of the URL or a variable.
///
/// # Errors
/// An unusable URL, a file that cannot be read or holds none, a password in the URL besides.
pub fn with_password(server: Flavour, url: String, file: Option<&Path>) -> Result<String, String> {
    let Some(file) = file else {
        return Ok(url);
    };
    let wrong = |text: String| Err(format!("--password-file: {text}"));
    let has_password = match server.postgres() {
        Some(_) => postgres::config(&url)?.get_password().is_some(),
        None => (mysql::options(&url)?.pass()).is_some_and(|password| !password.is_empty()),
    };
    if has_password {
        return wrong("the URL has a password too: give one of them".to_owned());
    }
    let shown = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return wrong(format!("cannot read {shown}: {error}")),
    };
    // The first line: editors end files with a line end that belongs to no password.
    let Some(password) = text.lines().next().filter(|line| !line.is_empty()) else {
        return wrong(format!("{shown} has no first line to be the password"));
    };
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.find(['/', '?']).unwrap_or(rest.len());
        let at = rest[..authority].rfind('@')?;
        let user = rest[..at].trim_end_matches(':');
        (!user.is_empty()).then_some((scheme, user, &rest[at..]))
    });
    let Some((scheme, user, rest)) = parts else {
        return wrong("the URL names no user".to_owned());
    };
    let password =
        percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
    Ok(format!("{scheme}://{user}:{password}{rest}"))
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

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_password_of_a_file_arrives_as_it_is() {
        const PASSWORD: &str = "s e:c/r@t%41?#${PATH}ü";
        let file = file(&format!("{PASSWORD}\r\nnot this\n"));
        let url = |server, url: &str| with_password(server, url.to_owned(), Some(file.path()));
        for mysql in ["mysql://u@h:3307", "mariadb://u:@h:3307/"] {
            let options = mysql::options(&url(Flavour::Mysql, mysql).unwrap()).unwrap();
            assert_eq!(options.pass(), Some(PASSWORD), "{mysql}");
            assert_eq!(options.user(), Some("u"), "{mysql}");
            assert_eq!((options.ip_or_hostname(), options.tcp_port()), ("h", 3307));
        }
        for postgres in [
            "postgres://u@h/db",
            "postgresql://u@h/db?application_name=a@b",
        ] {
            let config = postgres::config(&url(Flavour::Postgres17, postgres).unwrap()).unwrap();
            assert_eq!(config.get_password(), Some(PASSWORD.as_bytes()));
            assert_eq!(
                (config.get_user(), config.get_dbname()),
                (Some("u"), Some("db"))
            );
        }
        let plain = with_password(Flavour::Mysql, "mysql://u:p@h".to_owned(), None);
        assert_eq!(plain.unwrap(), "mysql://u:p@h");
    }

    #[test]
    fn passwords_come_from_one_place() {
        let (full, empty) = (file("secret"), file("\nsecret"));
        let error = |server, url: &str, file: &Path| {
            with_password(server, url.to_owned(), Some(file)).unwrap_err()
        };
        let twice = "--password-file: the URL has a password too: give one of them";
        for (server, url) in [
            (Flavour::Mysql, "mysql://u:secret@h"),
            (Flavour::Postgres, "postgres://u:${PATH}@h/db"),
            (Flavour::Postgres, "postgres://u@h/db?password=secret"),
        ] {
            assert_eq!(error(server, url, full.path()), twice, "{url}");
        }
        let none = error(Flavour::Mysql, "mysql://u@h", empty.path());
        assert!(
            none.ends_with("has no first line to be the password"),
            "{none}"
        );
        let missing = error(Flavour::Mysql, "mysql://u@h", Path::new("/nowhere/x"));
        let expected = "--password-file: cannot read /nowhere/x: No such file";
        assert!(missing.starts_with(expected), "{missing}");
        for (server, url) in [
            (Flavour::Mysql, "mysql://h"),
            (Flavour::Postgres, "host=h user=u"),
        ] {
            let nobody = error(server, url, full.path());
            assert_eq!(nobody, "--password-file: the URL names no user");
        }
    }
}
