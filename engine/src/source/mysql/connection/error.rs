//! How MySQL and MariaDB refuse, and what their error numbers mean for a replica.

use protocol::mysql::auth::AuthError;
use protocol::mysql::resultset::ServerError;

use crate::source::Verdict;
use crate::source::connection_error::{self, Words};
use crate::source::mysql::compression::NotOffered;

/// Why a connection could not be made or was lost. Never holds a secret.
pub type ConnectionError = connection_error::ConnectionError<MySqlWords>;

/// MySQL's and MariaDB's refusals.
#[derive(Debug)]
pub enum MySqlWords {}

impl Words for MySqlWords {
    const NAME: &'static str = "MySQL";
    type Refusal = ServerError;
    type Auth = AuthError;
    type Code<'a> = u16;

    fn code(refusal: &ServerError) -> u16 {
        refusal.code
    }

    fn hint(refusal: &ServerError) -> &'static str {
        match refusal.code {
            1045 | 1698 => {
                "; check user and password, and that the user may connect from this host"
            }
            1040 | 1203 => "; raise max_connections or max_user_connections",
            1226 => {
                "; raise the user's limit (ALTER USER … WITH MAX_USER_CONNECTIONS, MAX_CONNECTIONS_PER_HOUR, …)"
            }
            1129 => "; run FLUSH HOSTS on the server",
            1130 => "; create the user for this host",
            3159 => "; connect with ?tls=require",
            _ => "",
        }
    }

    fn verdict(refusal: &ServerError) -> Verdict {
        server_verdict(refusal.code)
    }
}

impl From<NotOffered> for ConnectionError {
    fn from(error: NotOffered) -> Self {
        Self::NotOffered(error.to_string())
    }
}

impl From<AuthError> for ConnectionError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

/// What a server's error number means for a replica.
#[must_use]
pub fn server_verdict(code: u16) -> Verdict {
    match code {
        // Too many connections (of this user; a dead one of ours may count until the server notices), shutting down or starting, killed,
        // timeouts, out of resources for now.
        1040
        | 1203
        | 1226
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_the_user_may_be_free_again_soon() {
        let text = "User 'cdc' has exceeded the 'max_user_connections' resource (current value: 1)";
        let error = ServerError::new(1226, "42000", text);
        assert_eq!(MySqlWords::verdict(&error), Verdict::Retry);
        assert!(MySqlWords::hint(&error).contains("MAX_USER_CONNECTIONS"));
    }
}
