//! FORMAT_DESCRIPTION: how the events after it are written (`Format_description_event`).
//!
//! ```text
//! | header 19 | binlog version 2 | server version 50 | created 4 | header length 1 | post-header lengths n | alg 1 | crc 4 |
//! ```
//! The algorithm byte and the checksum's room are there since MySQL 5.6.1 and MariaDB 5.3, whatever the algorithm is.

use super::{HEADER_LENGTH, Header, Kind, computed_checksum};
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// Checksum at the end of each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// None.
    Off,
    /// CRC32 (IEEE), 4 bytes, little-endian, over everything before it.
    Crc32,
}

impl Checksum {
    /// Bytes at the end of each event.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Crc32 => 4,
        }
    }
}

/// What FORMAT_DESCRIPTION says about the events after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// 4 for every server since MySQL 5.0.
    pub binlog_version: u16,
    /// The server's version text, e.g. `9.7.0` or `10.11.6-MariaDB-log`.
    pub server_version: Box<str>,
    /// Seconds since 1970 when the server started, 0 when it did not restart before this file.
    pub created_s: u32,
    /// Checksum of the events that follow.
    pub checksum: Checksum,
    /// Whether the server is a MariaDB.
    pub mariadb: bool,
    post_header_lengths: Box<[u8]>,
}

const SERVER_VERSION_LENGTH: usize = 50;

impl Format {
    /// The format to read a stream's first events with, before its FORMAT_DESCRIPTION: a dump begins with an artificial ROTATE
    /// whose checksum follows the session's `@source_binlog_checksum`; a binlog file's first event is the description itself.
    #[must_use]
    pub fn before_description(checksum: Checksum) -> Self {
        Self {
            binlog_version: 4,
            server_version: Box::default(),
            created_s: 0,
            checksum,
            mariadb: false,
            post_header_lengths: Box::default(),
        }
    }

    /// The same format without checksums: that of events inside a TRANSACTION_PAYLOAD or expanded from MariaDB's compressed ones.
    #[must_use]
    pub fn without_checksum(&self) -> Self {
        Self {
            checksum: Checksum::Off,
            ..self.clone()
        }
    }

    /// Length of an event kind's fixed part after the header: as described, otherwise as today's servers write it.
    #[must_use]
    pub fn post_header_length(&self, kind: Kind) -> usize {
        let described = usize::from(kind.0)
            .checked_sub(1)
            .and_then(|index| self.post_header_lengths.get(index));
        match described {
            Some(length) => usize::from(*length),
            None => match kind {
                Kind::QUERY | Kind::QUERY_COMPRESSED => 13,
                Kind::ROTATE => 8,
                Kind::EXECUTE_LOAD_QUERY => 26,
                Kind::TABLE_MAP
                | Kind::WRITE_ROWS_V1
                | Kind::UPDATE_ROWS_V1
                | Kind::DELETE_ROWS_V1
                | Kind::WRITE_ROWS_COMPRESSED_V1
                | Kind::UPDATE_ROWS_COMPRESSED_V1
                | Kind::DELETE_ROWS_COMPRESSED_V1 => 8,
                Kind::WRITE_ROWS
                | Kind::UPDATE_ROWS
                | Kind::DELETE_ROWS
                | Kind::PARTIAL_UPDATE_ROWS
                | Kind::WRITE_ROWS_COMPRESSED
                | Kind::UPDATE_ROWS_COMPRESSED
                | Kind::DELETE_ROWS_COMPRESSED => 10,
                Kind::INCIDENT => 2,
                _ => 0,
            },
        }
    }

    /// Reads a FORMAT_DESCRIPTION event, whose checksum algorithm stands in itself.
    ///
    /// Which servers write one follows from the version text, which may be damaged itself: a server that has written checksums
    /// so far cannot be one that knows none.
    pub(super) fn parse(current: &Self, event: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(event);
        cursor.skip(HEADER_LENGTH, "FORMAT_DESCRIPTION header")?;
        let binlog_version = cursor.u16_le("FORMAT_DESCRIPTION binlog version")?;
        if binlog_version != 4 {
            return Err(DecodeError::new(
                "FORMAT_DESCRIPTION binlog version",
                HEADER_LENGTH as u64,
                DecodeErrorKind::Unsupported {
                    value: u64::from(binlog_version),
                },
            ));
        }
        let version_at = cursor.at() as u64;
        let version = cursor.take(SERVER_VERSION_LENGTH, "FORMAT_DESCRIPTION server version")?;
        let version = version.split(|byte| *byte == 0).next().unwrap_or_default();
        let version = std::str::from_utf8(version).map_err(|_| {
            DecodeError::new(
                "FORMAT_DESCRIPTION server version",
                version_at,
                DecodeErrorKind::Encoding,
            )
        })?;
        let created_s = cursor.u32_le("FORMAT_DESCRIPTION creation time")?;
        let header_length = cursor.u8("FORMAT_DESCRIPTION header length")?;
        if usize::from(header_length) != HEADER_LENGTH {
            return Err(DecodeError::new(
                "FORMAT_DESCRIPTION header length",
                cursor.at() as u64 - 1,
                DecodeErrorKind::Unsupported {
                    value: u64::from(header_length),
                },
            ));
        }
        let mariadb = version.contains("MariaDB");
        let mut checksum = Checksum::Off;
        let mut lengths = cursor.rest();
        if current.checksum == Checksum::Crc32 || knows_checksums(version, mariadb) {
            let (rest, stored) = split_tail::<4>(lengths, event)?;
            let (rest, [algorithm]) = split_tail::<1>(rest, event)?;
            checksum = verify(event, u32::from_le_bytes(*stored), *algorithm)?;
            lengths = rest;
        }
        Ok(Self {
            binlog_version,
            server_version: version.into(),
            created_s,
            checksum,
            mariadb,
            post_header_lengths: lengths.into(),
        })
    }
}

fn split_tail<'a, const N: usize>(
    bytes: &'a [u8],
    event: &[u8],
) -> Result<(&'a [u8], &'a [u8; N]), DecodeError> {
    bytes.split_last_chunk::<N>().ok_or(DecodeError::new(
        "FORMAT_DESCRIPTION checksum",
        event.len() as u64,
        DecodeErrorKind::Truncated {
            missing: (N - bytes.len().min(N)) as u64,
        },
    ))
}

/// Checks the event's checksum and its algorithm byte against each other.
///
/// With the algorithm off the server does not renew the checksum of an event that it edits for a dump, so a wrong one is no
/// fault then, unless it fits an event that says CRC32: then it is the algorithm byte that was damaged.
fn verify(event: &[u8], stored: u32, algorithm: u8) -> Result<Checksum, DecodeError> {
    let at = event.len() as u64 - 4;
    let computed = computed_checksum(event);
    let error = DecodeErrorKind::Checksum { stored, computed };
    match algorithm {
        1 if stored == computed => Ok(Checksum::Crc32),
        1 => Err(DecodeError::new("FORMAT_DESCRIPTION checksum", at, error)),
        0 => {
            let mut as_crc32 = event.to_vec();
            if let Some(byte) = as_crc32.iter_mut().rev().nth(4) {
                *byte = 1;
            }
            if computed_checksum(&as_crc32) == stored {
                return Err(DecodeError::new("FORMAT_DESCRIPTION checksum", at, error));
            }
            Ok(Checksum::Off)
        }
        other => Err(DecodeError::new(
            "FORMAT_DESCRIPTION checksum algorithm",
            at - 1,
            DecodeErrorKind::Unsupported {
                value: u64::from(other),
            },
        )),
    }
}

/// MySQL 5.6.1 and MariaDB 5.3 write the algorithm and a checksum into the description, older ones neither.
fn knows_checksums(version: &str, mariadb: bool) -> bool {
    let mut parts = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version = (next(), next(), next());
    version >= if mariadb { (5, 3, 0) } else { (5, 6, 1) }
}

impl Header {
    /// Whether the event's own checksum rule is FORMAT_DESCRIPTION's.
    pub(super) fn describes_itself(&self) -> bool {
        self.kind == Kind::FORMAT_DESCRIPTION
    }
}
