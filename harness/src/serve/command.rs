//! The command line of `harness serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use fixtures::Recording;
use protocol::mysql::auth::Plugin;

use super::{
    Action, AuthMethod, Fault, NewSlots, Place, PostgresOptions, Rate, ServeOptions, Server, Writes,
};
use crate::cli::Outcome;

/// Which database is played.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Database {
    /// MySQL or MariaDB, as the recording says.
    Mysql,
    /// PostgreSQL.
    Postgres,
}

/// Arguments of `harness serve`.
#[derive(Debug, Parser)]
pub struct Args {
    #[arg(value_enum)]
    database: Database,
    /// The recording, FILE.zst with FILE.toml beside it; or the name of one of `fixtures/recordings`.
    #[arg(long)]
    recording: PathBuf,
    /// Address to listen on; the database's own port on 127.0.0.1 without it.
    #[arg(long)]
    listen: Option<String>,
    /// User that is let in; anybody without it.
    #[arg(long)]
    user: Option<String>,
    /// The user's password.
    #[arg(
        long,
        default_value = "",
        env = "HARNESS_SERVE_PASSWORD",
        hide_env_values = true
    )]
    password: String,
    /// caching_sha2_password, sha256_password, mysql_native_password or client_ed25519.
    #[arg(long, default_value = "caching_sha2_password", value_parser = plugin)]
    auth_plugin: Plugin,
    /// How a client of PostgreSQL proves its password.
    #[arg(long, value_enum, default_value_t)]
    auth_method: AuthMethod,
    /// PostgreSQL: the slot that is there from the beginning; the recording's without it.
    #[arg(long)]
    slot: Option<String>,
    /// PostgreSQL: where slots begin that clients create.
    #[arg(long, value_enum, default_value_t)]
    new_slots: NewSlots,
    /// Offer TLS with a certificate made for this run, which is written to this file (PEM).
    #[arg(long, value_name = "CA_FILE")]
    tls: Option<PathBuf>,
    /// Changes per second (100000) or bytes per second (1000000b); as fast as the socket takes it without it.
    #[arg(long)]
    rate: Option<Rate>,
    /// How much one write takes: large pieces, or one message as a real walsender does.
    #[arg(long, value_enum, default_value_t)]
    send: Writes,
    /// Break the connection at this change (400000) or byte (1024b), once; may be given again.
    #[arg(long, value_name = "PLACE")]
    cut_at: Vec<Place>,
    /// cut@PLACE, stall@PLACE+MSms, split@PLACE+BYTES, corrupt@PLACE; once; may be given again.
    #[arg(long)]
    fault: Vec<Fault>,
    /// Serve one transaction of so many rows, made of the recording's.
    #[arg(long, value_name = "ROWS")]
    transaction_rows: Option<u64>,
}

fn plugin(text: &str) -> Result<Plugin, String> {
    Plugin::named(text).ok_or_else(|| {
        let known: Vec<&str> = Plugin::ALL.iter().map(|plugin| plugin.name()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// Serves until stopped.
///
/// # Errors
/// `ServeError`.
pub async fn run(args: Args) -> Outcome {
    let recording = match args.recording.exists() || args.recording.components().count() > 1 {
        true => Recording::open(&args.recording)?,
        false => Recording::named(&args.recording.to_string_lossy())?,
    };
    let (is_postgres, port) = match args.database {
        Database::Mysql => (false, 3306),
        Database::Postgres => (true, 5432),
    };
    if recording.sidecar.is_postgres() != is_postgres {
        let server = &recording.sidecar.server;
        return Err(format!("{}: this is a recording of {server}", recording.name).into());
    }
    let listen = args.listen.unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let cuts = args.cut_at.into_iter().map(|at| Fault {
        at,
        action: Action::Cut,
    });
    let options = ServeOptions {
        user: args.user.map(|user| (user, args.password)),
        auth_plugin: args.auth_plugin,
        postgres: PostgresOptions {
            auth: args.auth_method,
            slot: args.slot,
            new_slots: args.new_slots,
        },
        tls: args.tls.is_some(),
        rate: args.rate,
        writes: args.send,
        faults: args.fault.into_iter().chain(cuts).collect(),
        transaction_rows: args.transaction_rows,
        host: None,
    };
    let server = Server::start(&recording, &listen, options).await?;
    if let (Some(file), Some(pem)) = (&args.tls, server.ca_pem()) {
        std::fs::write(file, pem)?;
    }
    println!(
        "serving {} on {}: {} changes up to {}",
        recording.name,
        server.address(),
        server.changes(),
        server.end()
    );
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}
