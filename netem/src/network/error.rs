//! Why a network cannot be.

use std::fmt;
use std::io;

use super::backend::Refusal;
use crate::profile::InvalidProfile;

/// Why a network cannot be.
#[derive(Debug, thiserror::Error)]
pub enum NetemError {
    /// A program of iproute2 failed.
    #[error("{command}: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// What it said.
        reason: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A profile is out of its range.
    #[error("link {link}: {source}")]
    Profile {
        /// Which link.
        link: String,
        /// What is wrong.
        source: InvalidProfile,
    },
    /// The plan names what it does not have, or too much.
    #[error("{0}")]
    Plan(String),
    /// No way of emulation can do it.
    #[error("these links cannot be emulated here: {}", listed(.0))]
    Impossible(Vec<Refusal>),
}

impl NetemError {
    pub(crate) fn system(what: &dyn fmt::Display, source: io::Error) -> Self {
        // Of a read or write that has waited for as long as it may the system says "resource temporarily unavailable".
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "nothing went on for too long")
            }
            _ => source,
        };
        Self::System {
            what: what.to_string(),
            source,
        }
    }
}

fn listed(refusals: &[Refusal]) -> String {
    let listed: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
    listed.join("; ")
}
