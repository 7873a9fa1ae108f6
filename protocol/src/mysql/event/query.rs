//! QUERY: a statement as text, with the session that ran it (`Query_event`).
//!
//! ```text
//! | thread 4 | seconds 4 | database length 1 | error 2 | status length 2 | status variables | database, NUL | statement |
//! ```

use std::borrow::Cow;

use super::{Format, Kind};
use crate::mysql::charset::Charset;
use crate::mysql::statement::{SqlMode, Statement};
use crate::{Cursor, DecodeError};

/// A QUERY event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The session that ran it.
    pub thread: u32,
    /// Seconds it took.
    pub seconds: u32,
    /// Error that it ended with on the server, 0 for none.
    pub error: u16,
    /// The session's default database, empty for none.
    pub database: &'a [u8],
    /// The statement, in the character set of `charset`.
    pub statement: &'a [u8],
    /// `character_set_client` of the session; `None` where the server wrote none.
    pub charset: Option<Charset>,
    /// `OPTION_…` flags of the session (`Q_FLAGS2_CODE`): e.g. `OPTION_NO_FOREIGN_KEY_CHECKS`.
    pub flags: Option<u32>,
    /// `@@sql_mode` of the session.
    pub sql_mode: Option<SqlMode>,
    /// XID of the DDL statement (`Q_DDL_LOGGED_WITH_XID`), MySQL 8.
    pub ddl_xid: Option<u64>,
    /// Which part of an ALTER in two phases it is; `None`: it is whole, or no ALTER.
    pub phase: Option<AlterPhase>,
}

/// MariaDB, `binlog_alter_two_phase=1`: an ALTER is written when it starts and when it ends, both times with its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterPhase {
    /// It starts. The table looks as before, also in rows that follow.
    Start,
    /// It is done: from here on the table looks different.
    Commit,
    /// It failed: the table stays as it was.
    Rollback,
}

impl AlterPhase {
    /// By the bits of `Gtid_log_event::flags_extra`.
    const fn of(flags: u8) -> Option<Self> {
        match flags & 0xe {
            0x2 => Some(Self::Start),
            0x4 => Some(Self::Commit),
            0x8 => Some(Self::Rollback),
            _ => None,
        }
    }
}

/// Length of the part of the post-header that every server writes.
const POST_HEADER_LENGTH: usize = 13;

impl<'a> Query<'a> {
    /// The statement as text: converted from the session's character set, bytes that are none in it replaced.
    ///
    /// For recognising and reporting a statement, not for values: those come from ROWS events.
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        let converted = self.charset.map(|charset| charset.decode(self.statement));
        match converted {
            Some(Ok(text)) => text,
            _ => String::from_utf8_lossy(self.statement),
        }
    }

    /// What the statement does.
    #[must_use]
    pub fn recognise(&self) -> Statement {
        // Nearly all of them, and plain ASCII in every character set that a client can have.
        match self.statement {
            b"BEGIN" => return Statement::Begin,
            b"COMMIT" => return Statement::Commit,
            _ => {}
        }
        // Only the COMMIT of an ALTER changes what its table looks like.
        if let Some(AlterPhase::Start | AlterPhase::Rollback) = self.phase {
            return Statement::Other;
        }
        Statement::recognise(&self.text(), self.sql_mode.unwrap_or_default())
    }

    pub(super) fn parse(format: &Format, mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let thread = cursor.u32_le("QUERY thread")?;
        let seconds = cursor.u32_le("QUERY seconds")?;
        let database_length = usize::from(cursor.u8("QUERY database length")?);
        let error = cursor.u16_le("QUERY error code")?;
        let status_length = usize::from(cursor.u16_le("QUERY status length")?);
        let more = format
            .post_header_length(Kind::QUERY)
            .saturating_sub(POST_HEADER_LENGTH);
        cursor.skip(more, "QUERY post-header")?;
        Self::after_post_header(
            cursor,
            thread,
            seconds,
            error,
            database_length,
            status_length,
        )
    }

    /// What QUERY and EXECUTE_LOAD_QUERY share.
    pub(super) fn after_post_header(
        mut cursor: Cursor<'a>,
        thread: u32,
        seconds: u32,
        error: u16,
        database_length: usize,
        status_length: usize,
    ) -> Result<Self, DecodeError> {
        let status_at = cursor.at() as u64;
        let status = cursor.take(status_length, "QUERY status variables")?;
        let database = cursor.take(database_length, "QUERY database")?;
        let nul = cursor.u8("QUERY database end")?;
        if nul != 0 {
            return Err(cursor.invalid("QUERY database end", u64::from(nul)));
        }
        let mut query = Self {
            thread,
            seconds,
            error,
            database,
            statement: cursor.rest(),
            charset: None,
            flags: None,
            sql_mode: None,
            ddl_xid: None,
            phase: None,
        };
        query
            .read_status(status)
            .map_err(|error| error.shifted(status_at))?;
        Ok(query)
    }

    /// Reads the status variables up to the first code that we do not know: they have no lengths, so it ends what can be read,
    /// as in the server's own reader.
    fn read_status(&mut self, status: &'a [u8]) -> Result<(), DecodeError> {
        let mut cursor = Cursor::new(status);
        let what = "QUERY status variable";
        while !cursor.is_empty() {
            match cursor.u8(what)? {
                0 => self.flags = Some(cursor.u32_le(what)?),
                1 => self.sql_mode = Some(SqlMode(cursor.u64_le(what)?)),
                // Catalog with a NUL, up to 5.0.3.
                2 => {
                    let length = usize::from(cursor.u8(what)?);
                    cursor.skip(length + 1, what)?;
                }
                3 => cursor.skip(4, what)?, // auto_increment increment and offset
                4 => {
                    let client = cursor.u16_le("QUERY client character set")?;
                    cursor.skip(4, what)?;
                    self.charset = Some(Charset { collation: client });
                }
                // time zone, catalog
                5 | 6 => {
                    let length = usize::from(cursor.u8(what)?);
                    cursor.skip(length, what)?;
                }
                7 | 8 => cursor.skip(2, what)?, // lc_time_names, charset of the database
                9 => cursor.skip(8, what)?,     // tables of a multi-table update
                10 => cursor.skip(4, what)?,    // bytes of a slave's relay log event
                // invoker: user and host
                11 => {
                    for _ in 0..2 {
                        let length = usize::from(cursor.u8(what)?);
                        cursor.skip(length, what)?;
                    }
                }
                // updated databases: a count (254: too many to name), names with NUL
                12 => {
                    let count = cursor.u8(what)?;
                    if count != 254 {
                        for _ in 0..count {
                            cursor.until_nul(what)?;
                        }
                    }
                }
                13 => cursor.skip(3, what)?,      // microseconds
                14 | 15 => cursor.skip(8, what)?, // commit timestamps, never released
                16 => cursor.skip(1, what)?,      // explicit_defaults_for_timestamp
                17 => self.ddl_xid = Some(cursor.u64_le(what)?),
                18 => cursor.skip(2, what)?, // default_collation_for_utf8mb4
                19 | 20 => cursor.skip(1, what)?, // sql_require_primary_key, default_table_encryption
                128 => cursor.skip(3, what)?,     // MariaDB: microseconds of now()
                129 => self.ddl_xid = Some(cursor.u64_le(what)?), // MariaDB: XID of the DDL
                // MariaDB: an ALTER in two phases, at its end with the number of the GTID that it started with
                130 => {
                    let flags = cursor.u8(what)?;
                    if flags & 0xc != 0 {
                        cursor.skip(8, what)?;
                    }
                    self.phase = AlterPhase::of(flags);
                }
                // MariaDB 11.3: collations of character sets, a count and pairs; it comes before the character set
                131 => {
                    let count = usize::from(cursor.u8(what)?);
                    cursor.skip(4 * count, what)?;
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}
