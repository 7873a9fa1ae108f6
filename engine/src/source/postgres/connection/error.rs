//! Why a connection could not be made or was lost, and what the caller can do about it.

use std::io;
use std::time::Duration;

use protocol::DecodeError;
use protocol::postgres::auth::AuthError;
use protocol::postgres::resultset::ServerError;

use crate::source::{SourceError, Verdict};

/// Why a connection could not be made or was lost. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
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
    /// The peer sent what PostgreSQL does not send.
    #[error("the server sent what is not PostgreSQL's protocol while {doing}: {source}")]
    Protocol {
        /// What was going on.
        doing: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// The server refused the session.
    #[error("the server refused user {user:?}: {error}{}", hint(error))]
    Denied {
        /// Who we said we are.
        user: Box<str>,
        /// The server's words.
        error: Box<ServerError>,
    },
    /// The server refused a statement.
    #[error("{error}, on {statement:?}{}", hint(error))]
    Refused {
        /// The server's words.
        error: Box<ServerError>,
        /// The statement.
        statement: String,
    },
    /// No way to prove the password.
    #[error("cannot authenticate: {0}")]
    Auth(#[from] AuthError),
    /// TLS cannot be set up or the server's certificate is not trusted.
    #[error("tls: {0}")]
    Tls(String),
}

fn hint(error: &ServerError) -> &'static str {
    match &*error.code {
        "28P01" => "; check user and password",
        "28000" if error.message.contains("pg_hba") => {
            "; add a line for this user and host to pg_hba.conf (database \"replication\" is for physical replication only: name the \
             database, or all)"
        }
        "3D000" => "; check the database in the url",
        "53300" => "; raise max_connections or max_wal_senders",
        "53400" => {
            "; raise max_replication_slots, or drop a slot that nobody uses (pg_drop_replication_slot)"
        }
        "58P01" => "; install the plugin on the server (package postgresql-NN-wal2json)",
        "42501" => "; run ALTER ROLE … REPLICATION, or GRANT what the message names",
        _ => "",
    }
}

impl ConnectionError {
    /// The server's SQLSTATE, where it is the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Denied { error, .. } | Self::Refused { error, .. } => Some(&error.code),
            _ => None,
        }
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Lost { .. } => Verdict::Retry,
            Self::Protocol { .. } | Self::Auth(_) | Self::Tls(_) => Verdict::Halt,
            Self::Denied { error, .. } | Self::Refused { error, .. } => server_verdict(&error.code),
        }
    }
}

/// What a server's SQLSTATE means for a replica (appendix A of the manual).
#[must_use]
pub fn server_verdict(code: &str) -> Verdict {
    match code {
        // Too many connections, starting or shutting down, cancelled, out of resources for now; the slot is still somebody's.
        "53300" | "57P01" | "57P02" | "57P03" | "57014" | "53100" | "53200" | "55006" | "40001" => {
            Verdict::Retry
        }
        _ if code.starts_with("08") => Verdict::Retry,
        _ => Verdict::Halt,
    }
}

impl From<ConnectionError> for SourceError {
    fn from(error: ConnectionError) -> Self {
        match error.verdict() {
            Verdict::Retry => Self::retry(error.to_string()),
            Verdict::Resync => Self::resync(error.to_string()),
            Verdict::Halt => Self::halt(error.to_string()),
        }
    }
}
