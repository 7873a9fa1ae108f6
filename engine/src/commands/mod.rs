//! The commands of `walbrook`, and how they end: 0 done, 1 halted by an error, 2 usage or configuration error.

pub mod check;
pub mod position;
pub mod run;
pub mod tap;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::logging;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped by a signal after a clean shutdown.
    Done,
    /// Halted by an error, which has been logged.
    Halted,
    /// The command line or the configuration is wrong, which has been logged.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Halted => Self::from(1),
            Exit::Usage => Self::from(2),
        }
    }
}

/// Runs what the command line asks for.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    logging::start(cli.log_format, cli.verbose, cli.quiet);
    let exit = match cli.command {
        Command::Run(arguments) => run::run(&arguments, cli.quiet),
        Command::Check { file } => check::run(&file),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Position { action } => position::run(&action),
    };
    exit.into()
}
