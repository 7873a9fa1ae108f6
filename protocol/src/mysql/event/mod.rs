//! Binlog events: the header, the checksum, and one [`Message`] per event.
//!
//! ```text
//! | timestamp 4 | type 1 | server id 4 | length 4 | next position 4 | flags 2 | post-header | body | CRC32 4, with checksums |
//! ```
//! All little-endian. Source: MySQL's `libs/mysql/binlog/event/`, MariaDB's `sql/log_event.{h,cc}`.
//! Offsets in errors and ranges count from the event's first byte.

mod control;
mod format;
mod gtid;
mod kind;
mod pieces;
mod query;

pub use control::{Heartbeat, Incident, LoadQuery, Rotate, XaPrepare};
pub use format::{Checksum, Format};
pub use gtid::{Gtid, MariaDbGtid, MariaDbGtidList};
pub use kind::Kind;
pub use pieces::EventPieces;
pub use query::{AlterPhase, Query};

use super::payload::{Compressed, TransactionPayload};
use super::rows::Rows;
use super::table_map::TableMap;
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// Length of an event's header.
pub const HEADER_LENGTH: usize = 19;

/// Header flag: the file is (or was, after a crash) being written. Not part of the checksum.
pub const FLAG_IN_USE: u16 = 0x1;
/// Header flag: made up by the server for this dump, in no file.
pub const FLAG_ARTIFICIAL: u16 = 0x20;
/// Header flag: who does not know the event may skip it.
pub const FLAG_IGNORABLE: u16 = 0x80;

/// An event's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970, UTC, when the statement began.
    pub timestamp_s: u32,
    /// What the event is.
    pub kind: Kind,
    /// The server that wrote it first.
    pub server_id: u32,
    /// Bytes of the whole event, header and checksum included.
    pub length: u32,
    /// Low 32 bits of the offset after this event in its file; 0 in artificial events and inside compressed transactions.
    pub next_position: u32,
    /// `FLAG_…` bits.
    pub flags: u16,
}

impl Header {
    /// Reads the header of the event that starts with `bytes`; what follows it need not be there yet.
    ///
    /// # Errors
    /// Fewer than [`HEADER_LENGTH`] bytes, or a length that is shorter than the header.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let header = Self {
            timestamp_s: cursor.u32_le("event timestamp")?,
            kind: Kind(cursor.u8("event type")?),
            server_id: cursor.u32_le("event server id")?,
            length: cursor.u32_le("event length")?,
            next_position: cursor.u32_le("event next position")?,
            flags: cursor.u16_le("event flags")?,
        };
        if (header.length as usize) < HEADER_LENGTH {
            return Err(DecodeError::new(
                "event length",
                9,
                DecodeErrorKind::Invalid {
                    value: u64::from(header.length),
                },
            ));
        }
        Ok(header)
    }

    /// Whether the event stands in no file: the server made it up for this dump.
    #[must_use]
    pub const fn is_artificial(&self) -> bool {
        self.flags & FLAG_ARTIFICIAL != 0
    }

    /// Whether who does not know the event may skip it.
    #[must_use]
    pub const fn is_ignorable(&self) -> bool {
        self.flags & FLAG_IGNORABLE != 0
    }
}

/// A decoded event. Everything of variable length is borrowed from the event's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// FORMAT_DESCRIPTION: read what follows with it.
    FormatDescription(Format),
    /// ROTATE: the next event is in another file (artificial ones tell where a dump starts).
    Rotate(Rotate<'a>),
    /// STOP: the server shut down; the file ends.
    Stop,
    /// QUERY: a statement. `BEGIN`, `COMMIT`, DDL, or DML of statement-based logging; see [`super::statement`].
    Query(Query<'a>),
    /// XID: the transaction is committed.
    Xid(u64),
    /// XA_PREPARE: the rows before it belong to a prepared (or one-phase committed) XA transaction.
    XaPrepare(XaPrepare<'a>),
    /// TABLE_MAP: what the rows of a table id look like.
    TableMap(TableMap<'a>),
    /// WRITE, UPDATE, DELETE or PARTIAL_UPDATE_ROWS.
    Rows(Rows<'a>),
    /// ROWS_QUERY or ANNOTATE_ROWS: the statement behind the rows that follow.
    RowsQuery(&'a [u8]),
    /// GTID, ANONYMOUS_GTID or GTID_TAGGED: a transaction begins.
    Gtid(Gtid<'a>),
    /// PREVIOUS_GTIDS: the GTID set executed before this file, in the binary form that `gtid` reads.
    PreviousGtids(&'a [u8]),
    /// MariaDB's GTID: a transaction begins.
    MariaDbGtid(MariaDbGtid<'a>),
    /// MariaDB's GTID_LIST: the last GTID per domain and server before this file.
    MariaDbGtidList(MariaDbGtidList<'a>),
    /// MariaDB's BINLOG_CHECKPOINT: the oldest file that recovery needs.
    BinlogCheckpoint(&'a [u8]),
    /// HEARTBEAT of either version: nothing new up to there.
    Heartbeat(Heartbeat<'a>),
    /// INCIDENT: the server lost events; what follows cannot be trusted.
    Incident(Incident<'a>),
    /// TRANSACTION_PAYLOAD: a compressed transaction.
    TransactionPayload(TransactionPayload<'a>),
    /// MariaDB's compressed QUERY or ROWS event.
    Compressed(Compressed<'a>),
    /// MariaDB's START_ENCRYPTION: the file is encrypted on the server's disk. In a dump the events come decrypted.
    StartEncryption,
    /// EXECUTE_LOAD_QUERY: LOAD DATA as a statement, i.e. DML that no ROWS event repeats.
    ExecuteLoadQuery(LoadQuery<'a>),
    /// INTVAR, RAND, USER_VAR, BEGIN_LOAD_QUERY, APPEND_BLOCK, DELETE_FILE: what a following statement needs.
    StatementContext,
    /// VIEW_CHANGE or TRANSACTION_CONTEXT of Group Replication: nothing for us.
    GroupReplication,
    /// IGNORABLE, or an unknown event with the ignorable flag.
    Ignorable,
}

impl<'a> Message<'a> {
    /// Reads one whole event: header, checksum (verified as `format` says), body.
    ///
    /// # Errors
    /// The event's length is not `event`'s; the checksum differs; the body is malformed; an unknown event without the ignorable
    /// flag (`Unsupported` with the type code). `what` names the event and field.
    pub fn parse(format: &Format, event: &'a [u8]) -> Result<(Header, Self), DecodeError> {
        let header = Header::parse(event)?;
        if header.length as usize != event.len() {
            return Err(DecodeError::new(
                header.kind.name(),
                9,
                if header.length as usize > event.len() {
                    DecodeErrorKind::Truncated {
                        missing: u64::from(header.length) - event.len() as u64,
                    }
                } else {
                    DecodeErrorKind::TrailingBytes {
                        left: event.len() as u64 - u64::from(header.length),
                    }
                },
            ));
        }
        if header.describes_itself() {
            return Ok((
                header,
                Self::FormatDescription(Format::parse(format, event)?),
            ));
        }
        let event = match format.checksum {
            Checksum::Off => event,
            Checksum::Crc32 => checked(&header, event)?,
        };
        Ok((header, Self::body(format, &header, event)?))
    }

    /// `event` ends before its checksum.
    fn body(format: &Format, header: &Header, event: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(event);
        cursor.skip(HEADER_LENGTH, "event header")?;
        Ok(match header.kind {
            Kind::TABLE_MAP => Self::TableMap(TableMap::parse(format, event)?),
            kind if kind.is_rows() && kind.0 < Kind::ANNOTATE_ROWS.0 => {
                Self::Rows(Rows::parse(format, kind, event)?)
            }
            Kind::QUERY => Self::Query(Query::parse(format, cursor)?),
            Kind::XID => {
                cursor.skip(format.post_header_length(Kind::XID), "XID post-header")?;
                let xid = cursor.u64_le("XID")?;
                cursor.finish("XID")?;
                Self::Xid(xid)
            }
            kind @ (Kind::GTID | Kind::ANONYMOUS_GTID) => Self::Gtid(Gtid::parse(kind, cursor)?),
            Kind::GTID_TAGGED => Self::Gtid(Gtid::parse_tagged(cursor)?),
            Kind::MARIADB_GTID => Self::MariaDbGtid(MariaDbGtid::parse(header, cursor)?),
            Kind::MARIADB_GTID_LIST => Self::MariaDbGtidList(MariaDbGtidList::parse(cursor)?),
            Kind::PREVIOUS_GTIDS => Self::PreviousGtids(cursor.rest()),
            Kind::ROTATE => Self::Rotate(Rotate::parse(format, header, cursor)?),
            Kind::HEARTBEAT => Self::Heartbeat(Heartbeat::parse(format, header, cursor)?),
            Kind::HEARTBEAT_V2 => Self::Heartbeat(Heartbeat::parse_v2(cursor)?),
            Kind::STOP => Self::Stop,
            Kind::ROWS_QUERY => {
                // The length byte is the statement's length modulo 256: the server's own reader ignores it too.
                cursor.skip(1, "ROWS_QUERY length")?;
                Self::RowsQuery(cursor.rest())
            }
            Kind::ANNOTATE_ROWS => Self::RowsQuery(cursor.rest()),
            Kind::BINLOG_CHECKPOINT => Self::BinlogCheckpoint(control::binlog_checkpoint(cursor)?),
            Kind::XA_PREPARE => Self::XaPrepare(XaPrepare::parse(cursor)?),
            Kind::INCIDENT => Self::Incident(Incident::parse(cursor)?),
            Kind::TRANSACTION_PAYLOAD => {
                Self::TransactionPayload(TransactionPayload::parse(cursor)?)
            }
            kind if kind == Kind::QUERY_COMPRESSED || kind.is_rows() => {
                Self::Compressed(Compressed::parse(format, *header, event)?)
            }
            Kind::START_ENCRYPTION => Self::StartEncryption,
            Kind::EXECUTE_LOAD_QUERY => Self::ExecuteLoadQuery(LoadQuery::parse(format, cursor)?),
            Kind::INTVAR
            | Kind::RAND
            | Kind::USER_VAR
            | Kind::BEGIN_LOAD_QUERY
            | Kind::APPEND_BLOCK
            | Kind::DELETE_FILE => Self::StatementContext,
            Kind::VIEW_CHANGE | Kind::TRANSACTION_CONTEXT => Self::GroupReplication,
            Kind::IGNORABLE => Self::Ignorable,
            _ if header.is_ignorable() => Self::Ignorable,
            kind => {
                return Err(DecodeError::new(
                    "event type",
                    4,
                    DecodeErrorKind::Unsupported {
                        value: u64::from(kind.0),
                    },
                ));
            }
        })
    }
}

/// The event without its checksum, once that is found right.
#[inline]
fn checked<'a>(header: &Header, event: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let Some((body, stored)) = event.split_last_chunk::<4>() else {
        return Err(DecodeError::new(
            header.kind.name(),
            event.len() as u64,
            DecodeErrorKind::Truncated { missing: 4 },
        ));
    };
    let stored = u32::from_le_bytes(*stored);
    if body.len() < HEADER_LENGTH {
        return Err(DecodeError::new(
            header.kind.name(),
            body.len() as u64,
            DecodeErrorKind::Truncated {
                missing: (HEADER_LENGTH - body.len()) as u64,
            },
        ));
    }
    let computed = crc32fast::hash(body);
    if stored != computed {
        return Err(DecodeError::new(
            header.kind.name(),
            body.len() as u64,
            DecodeErrorKind::Checksum { stored, computed },
        ));
    }
    Ok(body)
}

/// CRC32 of everything but the last four bytes, the in-use flag taken as unset: FORMAT_DESCRIPTION's checksum is computed before
/// the server sets it (`Log_event_footer::event_checksum_test`).
fn computed_checksum(event: &[u8]) -> u32 {
    const FLAGS_AT: usize = 17;
    let mut hasher = crc32fast::Hasher::new();
    let body = event
        .split_last_chunk::<4>()
        .map_or(event, |(body, _)| body);
    match body.split_at_checked(FLAGS_AT) {
        Some((head, [flags, rest @ ..])) => {
            hasher.update(head);
            hasher.update(&[flags & !(FLAG_IN_USE as u8)]);
            hasher.update(rest);
        }
        _ => hasher.update(body),
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests;
