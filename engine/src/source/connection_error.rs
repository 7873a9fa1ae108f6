//! Why a connection could not be made or was lost, and what the caller can do about it, for every kind of server.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use protocol::DecodeError;

use super::socket::TlsError;
use super::{SourceError, Verdict};

/// What differs between servers: how they refuse.
pub trait Words: fmt::Debug + Send + Sync + 'static {
    /// Whose protocol it is.
    const NAME: &'static str;
    /// A server's refusal.
    type Refusal: fmt::Debug + fmt::Display + Send + Sync;
    /// No way to prove the password.
    type Auth: Error + Send + Sync + 'static;
    /// The refusal's code.
    type Code<'a>;

    /// The refusal's code.
    fn code(refusal: &Self::Refusal) -> Self::Code<'_>;
    /// What the operator can do about it, from a semicolon on; empty where nothing is known.
    fn hint(refusal: &Self::Refusal) -> &'static str;
    /// The same where it was a statement that was refused, not the session.
    fn hint_on_statement(_refusal: &Self::Refusal) -> &'static str {
        ""
    }
    /// What it means for a replica.
    fn verdict(refusal: &Self::Refusal) -> Verdict;
}

/// Why a connection could not be made or was lost. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError<W: Words> {
    /// No TCP connection.
    #[error("cannot connect to {host}:{port}: {source}")]
    Unreachable {
        /// Name or address.
        host: Box<str>,
        /// TCP port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing came in time.
    #[error("the server did not answer within {} s while {doing}", after.as_secs())]
    TimedOut {
        /// What was going on.
        doing: &'static str,
        /// `ConnectOptions::timeout`.
        after: Duration,
    },
    /// The connection broke, or the server closed it (`UnexpectedEof`).
    #[error("the connection to the server was lost while {doing}: {source}")]
    Lost {
        /// What was going on.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The peer sent what the server does not send.
    #[error(
        "the server sent what is not {}'s protocol while {doing}: {source}",
        W::NAME
    )]
    Protocol {
        /// What was going on.
        doing: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// The server refused the user.
    #[error("the server refused user {user:?}: {error}{}", W::hint(error))]
    Denied {
        /// Who we said we are.
        user: Box<str>,
        /// The server's words.
        error: W::Refusal,
    },
    /// The server refused a command.
    #[error("{error}, on {statement:?}{}", W::hint_on_statement(error))]
    Refused {
        /// The server's words.
        error: W::Refusal,
        /// The statement, or the command's name.
        statement: String,
    },
    /// No way to prove the password.
    #[error("cannot authenticate: {0}")]
    Auth(W::Auth),
    /// The server does not offer what was asked for.
    #[error("{0}")]
    NotOffered(String),
    /// TLS cannot be set up or the server's certificate is not trusted.
    #[error("tls: {0}")]
    Tls(String),
}

impl<W: Words> ConnectionError<W> {
    /// TLS could not be started.
    pub(super) fn tls(error: TlsError) -> Self {
        match error {
            TlsError::Lost(source) => Self::Lost {
                doing: "starting TLS",
                source,
            },
            TlsError::Refused(text) => Self::Tls(text),
        }
    }

    /// The server's code, where it is the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<W::Code<'_>> {
        match self {
            Self::Denied { error, .. } | Self::Refused { error, .. } => Some(W::code(error)),
            _ => None,
        }
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Lost { .. } => Verdict::Retry,
            Self::Protocol { .. } | Self::Auth(_) | Self::NotOffered(_) | Self::Tls(_) => {
                Verdict::Halt
            }
            Self::Denied { error, .. } | Self::Refused { error, .. } => W::verdict(error),
        }
    }
}

impl<W: Words> From<ConnectionError<W>> for SourceError {
    fn from(error: ConnectionError<W>) -> Self {
        match error.verdict() {
            Verdict::Retry => Self::retry(error.to_string()),
            Verdict::Resync => Self::resync(error.to_string()),
            Verdict::Halt => Self::halt(error.to_string()),
        }
    }
}
