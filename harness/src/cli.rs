//! The command line: one subcommand per module, each with its own `Args` and `run`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// What a subcommand answers: the exit status (0: everything expected holds; 1: it does not; 130 or 143: a signal has stopped it), or
/// why it could not tell.
pub type Outcome = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>;

/// Replays recorded replication streams of real servers and proves what arrived.
#[derive(Debug, Parser)]
#[command(name = "harness", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The two-minute tour: millions of recorded changes of MySQL and PostgreSQL through the engine, verified, with pictures.
    Demo(crate::demo::Args),
    /// Replay scenarios through the engine and say whether what they expect holds.
    Replay(crate::replay::Args),
    /// Compare two reports, or directories of them, and name regressions beyond the noise.
    Compare(crate::compare::Args),
    /// Gather criterion's results into one small file, to keep and compare.
    Stages(crate::compare::StagesArgs),
    /// Start, stop or list real servers for tests, installed by the command itself.
    Servers(crate::servers::Args),
    /// Run the deterministic workload into a real server.
    Seed(crate::seed::Args),
    /// Capture a real server's replication stream as sent.
    Record(crate::record::Args),
    /// Play a recorded server to real clients.
    Serve(crate::serve::Args),
    /// Print what a workload must make of a table: counts and digests.
    Truth(crate::truth::Args),
    /// Run the embedded broker: Kafka as far as tests need it, in memory.
    Broker(crate::broker::Args),
    /// Emulate a link and measure whether it does what its profile says.
    Netem(crate::links::Args),
    /// Compare topics with a truth: every change once, in order per key, nothing else.
    Verify(crate::verify::Args),
}

/// Runs the command; errors go to stderr with exit status 1.
pub fn main(cli: Cli) -> ExitCode {
    let level = ["warn", "info", "debug", "trace"][usize::from(cli.verbose.min(3))];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("harness: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            // These wait for signals themselves.
            command @ (Command::Serve(_) | Command::Broker(_)) => run(command).await,
            command => crate::stop::until_asked(run(command)).await,
        }
    });
    // What tasks hold goes with them, and a thread that still works for a stopped command is not waited for.
    runtime.shutdown_timeout(crate::stop::LEAVE_MAX);
    match outcome {
        Ok(status) => status,
        Err(error) => {
            eprintln!("harness: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => crate::demo::run(args).await,
        Command::Replay(args) => crate::replay::run(args).await,
        Command::Compare(args) => crate::compare::run(&args),
        Command::Stages(args) => crate::compare::run_stages(&args),
        Command::Servers(args) => crate::servers::run(args).await,
        Command::Seed(args) => crate::seed::run(args).await,
        Command::Record(args) => crate::record::run(args).await,
        Command::Serve(args) => crate::serve::run(args).await,
        Command::Truth(args) => crate::truth::run(args),
        Command::Broker(args) => crate::broker::run(args).await,
        Command::Netem(args) => crate::links::run(args).await,
        Command::Verify(args) => crate::verify::run(args).await,
    }
}
