//! Events about the stream itself rather than about rows: where files begin and end, heartbeats, incidents, XA, LOAD DATA.

use super::{Format, Header, Kind, Query};
use crate::limits::BINLOG_FILE_NAME_MAX;
use crate::mysql::lenenc;
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// ROTATE: `| position 8 | file name |`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate<'a> {
    /// Made up by the server at the start of a dump (and on a reconnect), in no file.
    pub artificial: bool,
    /// Offset of the next event in `file`.
    pub position: u64,
    /// The file that the next event is in.
    pub file: &'a str,
}

impl<'a> Rotate<'a> {
    pub(super) fn parse(
        format: &Format,
        header: &Header,
        mut cursor: Cursor<'a>,
    ) -> Result<Self, DecodeError> {
        let position = match format.post_header_length(Kind::ROTATE) {
            0 => 4,
            length => {
                let position = cursor.u64_le("ROTATE position")?;
                cursor.skip(length.saturating_sub(8), "ROTATE post-header")?;
                position
            }
        };
        Ok(Self {
            // MariaDB's dump thread sets no flag on them: a zero timestamp and position tell as well.
            artificial: header.is_artificial()
                || (header.timestamp_s == 0 && header.next_position == 0),
            position,
            file: file_name(cursor.rest(), cursor.at(), "ROTATE file name")?,
        })
    }
}

/// Proves that `bytes`, which end at `end`, can name a binlog file.
fn file_name<'a>(bytes: &'a [u8], end: usize, what: &'static str) -> Result<&'a str, DecodeError> {
    let at = (end - bytes.len()) as u64;
    if bytes.len() >= BINLOG_FILE_NAME_MAX {
        return Err(DecodeError::new(
            what,
            at,
            DecodeErrorKind::TooLong {
                length: bytes.len() as u64,
                limit: BINLOG_FILE_NAME_MAX as u64 - 1,
            },
        ));
    }
    if bytes.is_empty() {
        return Err(DecodeError::new(
            what,
            at,
            DecodeErrorKind::Truncated { missing: 1 },
        ));
    }
    match std::str::from_utf8(bytes) {
        Ok(name) if !bytes.contains(&0) => Ok(name),
        _ => Err(DecodeError::new(what, at, DecodeErrorKind::Encoding)),
    }
}

/// MariaDB's BINLOG_CHECKPOINT: `| length 4 | file name |`.
pub(super) fn binlog_checkpoint<'a>(mut cursor: Cursor<'a>) -> Result<&'a [u8], DecodeError> {
    let length = cursor.u32_le("BINLOG_CHECKPOINT file name length")?;
    cursor.take(length as usize, "BINLOG_CHECKPOINT file name")
}

/// HEARTBEAT: nothing new up to `position` of `file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    /// The file that the server is reading.
    pub file: &'a str,
    /// Where it stands there: 64 bits in version 2 and in MariaDB's beyond 4 GiB, otherwise the header's 32.
    pub position: u64,
    /// Whether `position` has all of its bits.
    pub wide: bool,
}

impl<'a> Heartbeat<'a> {
    /// Version 1: the file's name. Beyond 4 GiB MariaDB writes 0 into the header, and the position in 8 bytes before the name
    /// (`send_heartbeat_event`, `HB_SUB_HEADER_LEN`).
    pub(super) fn parse(
        format: &Format,
        header: &Header,
        mut cursor: Cursor<'a>,
    ) -> Result<Self, DecodeError> {
        let wide = format.mariadb && header.next_position == 0;
        let position = match wide {
            true => cursor.u64_le("HEARTBEAT position")?,
            false => u64::from(header.next_position),
        };
        Ok(Self {
            position,
            file: file_name(cursor.rest(), cursor.at(), "HEARTBEAT file name")?,
            wide,
        })
    }

    /// Version 2 (`codecs::binary::Heartbeat`): `{ type lenenc, length lenenc, value }`, type 0 ends.
    pub(super) fn parse_v2(mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let (mut file, mut position) = (None, None);
        loop {
            let kind = lenenc::integer(&mut cursor, "HEARTBEAT_V2 field type")?;
            if kind == 0 {
                break;
            }
            let value = lenenc::string(&mut cursor, "HEARTBEAT_V2 field")?;
            let at = cursor.at() - value.len();
            match kind {
                1 => file = Some(file_name(value, cursor.at(), "HEARTBEAT_V2 file name")?),
                2 => {
                    let mut inner = Cursor::new(value);
                    let read = lenenc::integer(&mut inner, "HEARTBEAT_V2 position")
                        .and_then(|read| inner.finish("HEARTBEAT_V2 position").map(|()| read));
                    position = Some(read.map_err(|error| error.shifted(at as u64))?);
                }
                // The server's own reader skips what it does not know.
                _ => {}
            }
        }
        cursor.finish("HEARTBEAT_V2")?;
        match (file, position) {
            (Some(file), Some(position)) => Ok(Self {
                file,
                position,
                wide: true,
            }),
            _ => Err(DecodeError::new(
                "HEARTBEAT_V2 file name and position",
                cursor.at() as u64,
                DecodeErrorKind::Truncated { missing: 1 },
            )),
        }
    }
}

/// INCIDENT: `| number 2 | length 1 | message |`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incident<'a> {
    /// 1: LOST_EVENTS, the only one there is.
    pub number: u16,
    /// The server's words.
    pub message: &'a [u8],
}

impl<'a> Incident<'a> {
    pub(super) fn parse(mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let number = cursor.u16_le("INCIDENT number")?;
        let length = usize::from(cursor.u8("INCIDENT message length")?);
        let message = cursor.take(length, "INCIDENT message")?;
        cursor.finish("INCIDENT")?;
        Ok(Self { number, message })
    }
}

/// XA_PREPARE: `| one phase 1 | format 4 | global length 4 | branch length 4 | global | branch |`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// `XA COMMIT … ONE PHASE`: committed here and now.
    pub one_phase: bool,
    /// XID format, usually 1.
    pub format: u32,
    /// Global transaction id.
    pub global: &'a [u8],
    /// Branch qualifier.
    pub branch: &'a [u8],
}

impl<'a> XaPrepare<'a> {
    /// Longest part of an XID.
    const PART_MAX: u32 = 64;

    pub(super) fn parse(mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let one_phase = cursor.u8("XA_PREPARE one phase")? != 0;
        let format = cursor.u32_le("XA_PREPARE format")?;
        let lengths = [
            cursor.u32_le("XA_PREPARE global length")?,
            cursor.u32_le("XA_PREPARE branch length")?,
        ];
        if let Some(length) = lengths.into_iter().find(|length| *length > Self::PART_MAX) {
            return Err(DecodeError::new(
                "XA_PREPARE XID",
                cursor.at() as u64,
                DecodeErrorKind::TooLong {
                    length: u64::from(length),
                    limit: u64::from(Self::PART_MAX),
                },
            ));
        }
        let [global, branch] = lengths.map(|length| length as usize);
        let xid = Self {
            one_phase,
            format,
            global: cursor.take(global, "XA_PREPARE global id")?,
            branch: cursor.take(branch, "XA_PREPARE branch id")?,
        };
        cursor.finish("XA_PREPARE")?;
        Ok(xid)
    }
}

/// EXECUTE_LOAD_QUERY: a QUERY with the file that it loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadQuery<'a> {
    /// Id of the file's content in the events before it.
    pub file_id: u32,
    /// The statement.
    pub query: Query<'a>,
}

impl<'a> LoadQuery<'a> {
    /// QUERY's 13 bytes, then file id 4, two positions of the file name 4 each, duplicate handling 1.
    const POST_HEADER_LENGTH: usize = 26;

    pub(super) fn parse(format: &Format, mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let thread = cursor.u32_le("EXECUTE_LOAD_QUERY thread")?;
        let seconds = cursor.u32_le("EXECUTE_LOAD_QUERY seconds")?;
        let database_length = usize::from(cursor.u8("EXECUTE_LOAD_QUERY database length")?);
        let error = cursor.u16_le("EXECUTE_LOAD_QUERY error code")?;
        let status_length = usize::from(cursor.u16_le("EXECUTE_LOAD_QUERY status length")?);
        let file_id = cursor.u32_le("EXECUTE_LOAD_QUERY file id")?;
        cursor.skip(9, "EXECUTE_LOAD_QUERY file name")?;
        let more = format
            .post_header_length(Kind::EXECUTE_LOAD_QUERY)
            .saturating_sub(Self::POST_HEADER_LENGTH);
        cursor.skip(more, "EXECUTE_LOAD_QUERY post-header")?;
        let query = Query::after_post_header(
            cursor,
            thread,
            seconds,
            error,
            database_length,
            status_length,
        )?;
        Ok(Self { file_id, query })
    }
}
