//! How PostgreSQL refuses, and what its SQLSTATEs mean for a replica.

use protocol::postgres::auth::AuthError;
use protocol::postgres::resultset::ServerError;

use crate::source::Verdict;
use crate::source::connection_error::{self, Words};

/// Why a connection could not be made or was lost. Never holds a secret.
pub type ConnectionError = connection_error::ConnectionError<PostgresWords>;

/// PostgreSQL's refusals.
#[derive(Debug)]
pub enum PostgresWords {}

impl Words for PostgresWords {
    const NAME: &'static str = "PostgreSQL";
    type Refusal = Box<ServerError>;
    type Auth = AuthError;
    type Code<'a> = &'a str;

    fn code(refusal: &Box<ServerError>) -> &str {
        &refusal.code
    }

    fn hint(refusal: &Box<ServerError>) -> &'static str {
        match &*refusal.code {
            "28P01" => "; check user and password",
            "28000" if refusal.message.contains("pg_hba") => {
                "; add a line for this user and host to pg_hba.conf (database \"replication\" is for physical replication only: name the \
                 database, or all)"
            }
            "3D000" => "; check the database in the url",
            "53300" => "; raise max_connections or max_wal_senders",
            "53400" => {
                "; raise max_replication_slots, or drop a slot that nobody uses (pg_drop_replication_slot)"
            }
            "58P01" => "; install the plugin on the server (package postgresql-NN-wal2json)",
            // Who may not see the setting is told of it by the refusal alone.
            "42501" if refusal.message.contains("output plugin") => {
                "; run ALTER SYSTEM SET output_plugin_libraries with it among the others, then SELECT pg_reload_conf()"
            }
            "42501" => "; run ALTER ROLE … REPLICATION, or GRANT what the message names",
            _ => "",
        }
    }

    fn hint_on_statement(refusal: &Box<ServerError>) -> &'static str {
        Self::hint(refusal)
    }

    fn verdict(refusal: &Box<ServerError>) -> Verdict {
        server_verdict(&refusal.code)
    }
}

impl From<AuthError> for ConnectionError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
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
