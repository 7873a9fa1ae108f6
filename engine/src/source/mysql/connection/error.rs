//! Why a connection could not be made or was lost, and what the caller can do about it.

use std::io;
use std::time::Duration;

use protocol::DecodeError;
use protocol::mysql::auth::AuthError;
use protocol::mysql::resultset::ServerError;

use crate::source::mysql::compression::NotOffered;
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
    /// The peer sent what MySQL does not send.
    #[error("the server sent what is not MySQL's protocol while {doing}: {source}")]
    Protocol {
        /// What was going on.
        doing: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// The server refused the user.
    #[error("the server refused user {user:?}: {error}{}", hint(error))]
    Denied {
        /// Who we said we are.
        user: Box<str>,
        /// The server's words.
        error: ServerError,
    },
    /// The server refused a command.
    #[error("{error}, on {statement:?}")]
    Refused {
        /// The server's words.
        error: ServerError,
        /// The statement, or the command's name.
        statement: String,
    },
    /// No way to prove the password.
    #[error("cannot authenticate: {0}")]
    Auth(#[from] AuthError),
    /// No such compression.
    #[error("{0}")]
    Compression(NotOffered),
    /// TLS cannot be set up or the server's certificate is not trusted.
    #[error("tls: {0}")]
    Tls(String),
}

fn hint(error: &ServerError) -> &'static str {
    match error.code {
        1045 | 1698 => "; check user and password, and that the user may connect from this host",
        1040 | 1203 => "; raise max_connections or max_user_connections",
        1129 => "; run FLUSH HOSTS on the server",
        1130 => "; create the user for this host",
        3159 => "; connect with ?tls=require",
        _ => "",
    }
}

impl ConnectionError {
    /// The server's error number, where it is the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Denied { error, .. } | Self::Refused { error, .. } => Some(error.code),
            _ => None,
        }
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Lost { .. } => Verdict::Retry,
            Self::Protocol { .. } | Self::Auth(_) | Self::Compression(_) | Self::Tls(_) => {
                Verdict::Halt
            }
            Self::Denied { error, .. } | Self::Refused { error, .. } => server_verdict(error.code),
        }
    }
}

/// What a server's error number means for a replica.
#[must_use]
pub fn server_verdict(code: u16) -> Verdict {
    match code {
        // Too many connections (of this user), shutting down or starting, killed, timeouts, out of resources for now.
        1040
        | 1203
        | 1053
        | 1077
        | 1079
        | 1158..=1161
        | 1205
        | 1317
        | 1927
        | 3024
        | 3032
        | 4031 => Verdict::Retry,
        // ER_MASTER_FATAL_ERROR_READING_BINLOG: purged, unknown file, impossible position, GTIDs that are gone.
        1236 | 1373 | 1789 => Verdict::Resync,
        _ => Verdict::Halt,
    }
}

impl From<NotOffered> for ConnectionError {
    fn from(error: NotOffered) -> Self {
        Self::Compression(error)
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
