//! Event type codes of MySQL and MariaDB (`libs/mysql/binlog/event/binlog_event.h`, MariaDB's `sql/log_event.h`).

use std::fmt;

/// An event's type code. Any byte is a valid `Kind`; what we know has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

macro_rules! kinds {
    ($($name:ident = $code:literal;)*) => {
        impl Kind {
            $(#[doc = concat!("Type code ", stringify!($code), ".")]
            pub const $name: Self = Self($code);)*

            /// Its name in the server's own terms, `"unknown event"` for codes that we do not know.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => stringify!($name),)*
                    _ => "unknown event",
                }
            }
        }
    };
}

kinds! {
    QUERY = 2;
    STOP = 3;
    ROTATE = 4;
    INTVAR = 5;
    APPEND_BLOCK = 9;
    DELETE_FILE = 11;
    RAND = 13;
    USER_VAR = 14;
    FORMAT_DESCRIPTION = 15;
    XID = 16;
    BEGIN_LOAD_QUERY = 17;
    EXECUTE_LOAD_QUERY = 18;
    TABLE_MAP = 19;
    WRITE_ROWS_V0 = 20;
    UPDATE_ROWS_V0 = 21;
    DELETE_ROWS_V0 = 22;
    WRITE_ROWS_V1 = 23;
    UPDATE_ROWS_V1 = 24;
    DELETE_ROWS_V1 = 25;
    INCIDENT = 26;
    HEARTBEAT = 27;
    IGNORABLE = 28;
    ROWS_QUERY = 29;
    WRITE_ROWS = 30;
    UPDATE_ROWS = 31;
    DELETE_ROWS = 32;
    GTID = 33;
    ANONYMOUS_GTID = 34;
    PREVIOUS_GTIDS = 35;
    TRANSACTION_CONTEXT = 36;
    VIEW_CHANGE = 37;
    XA_PREPARE = 38;
    PARTIAL_UPDATE_ROWS = 39;
    TRANSACTION_PAYLOAD = 40;
    HEARTBEAT_V2 = 41;
    GTID_TAGGED = 42;
    ANNOTATE_ROWS = 160;
    BINLOG_CHECKPOINT = 161;
    MARIADB_GTID = 162;
    MARIADB_GTID_LIST = 163;
    START_ENCRYPTION = 164;
    QUERY_COMPRESSED = 165;
    WRITE_ROWS_COMPRESSED_V1 = 166;
    UPDATE_ROWS_COMPRESSED_V1 = 167;
    DELETE_ROWS_COMPRESSED_V1 = 168;
    WRITE_ROWS_COMPRESSED = 169;
    UPDATE_ROWS_COMPRESSED = 170;
    DELETE_ROWS_COMPRESSED = 171;
}

impl Kind {
    /// Whether this is a ROWS event of any operation and version, compressed ones included.
    #[must_use]
    pub const fn is_rows(self) -> bool {
        matches!(self.0, 20..=25 | 30..=32 | 39 | 166..=171)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}
