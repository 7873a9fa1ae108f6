//! The events that begin a transaction: MySQL's GTID in three forms, MariaDB's GTID and GTID_LIST.
//!
//! ```text
//! GTID, ANONYMOUS_GTID:
//! | flags 1 | uuid 16 | number 8 | 2 | last committed 8 | sequence 8 | immediate µs 7 (+ original 7) | length lenenc |
//! | immediate version 4 (+ original 4) | ticket 8 |               each part from `2` on only where the server is new enough
//! GTID_TAGGED (mysql::serialization, libs/mysql/serialization/readme.md), all numbers of variable length:
//! | version | size | last non-ignorable field | { field id, value } … |
//! MariaDB GTID:
//! | sequence 8 | domain 4 | flags 1 | commit id 8 if flag 2 | XID if flags 0x40, 0x80 | extra flags … |
//! ```

use super::{Header, Kind};
use crate::mysql::lenenc;
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// A MySQL transaction's identity and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gtid<'a> {
    /// Whether there is an identity at all: false for ANONYMOUS_GTID.
    pub anonymous: bool,
    /// The server's UUID, in the order of its text.
    pub uuid: [u8; 16],
    /// The tag, empty for none (MySQL 8.3 and later).
    pub tag: &'a str,
    /// The transaction's number, from 1; 0 when anonymous.
    pub number: u64,
    /// Whether statements (not only rows) may follow.
    pub may_have_statements: bool,
    /// Logical clock: the youngest transaction that this one depends on.
    pub last_committed: Option<u64>,
    /// Logical clock: this transaction.
    pub sequence_number: Option<u64>,
    /// Microseconds since 1970 of the commit on the server that sends it; MySQL 8.
    pub immediate_commit_us: Option<u64>,
    /// Microseconds since 1970 of the commit where the transaction was made; MySQL 8.
    pub original_commit_us: Option<u64>,
    /// Bytes of the transaction in the binary log, this event included; MySQL 8.
    pub transaction_length: Option<u64>,
    /// Version of the sending server, e.g. 90700.
    pub immediate_server_version: Option<u32>,
    /// Version of the server where the transaction was made.
    pub original_server_version: Option<u32>,
}

const MAY_HAVE_STATEMENTS: u8 = 1;
const LOGICAL_CLOCK: u8 = 2;
/// Longest tag (`Tag::max_length`).
const TAG_MAX: u64 = 32;

impl<'a> Gtid<'a> {
    const fn empty(anonymous: bool) -> Self {
        Self {
            anonymous,
            uuid: [0; 16],
            tag: "",
            number: 0,
            may_have_statements: true,
            last_committed: None,
            sequence_number: None,
            immediate_commit_us: None,
            original_commit_us: None,
            transaction_length: None,
            immediate_server_version: None,
            original_server_version: None,
        }
    }

    pub(super) fn parse(kind: Kind, mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let mut gtid = Self::empty(kind == Kind::ANONYMOUS_GTID);
        gtid.may_have_statements = cursor.u8("GTID flags")? & MAY_HAVE_STATEMENTS != 0;
        gtid.uuid = *cursor.chunk::<16>("GTID server UUID")?;
        gtid.number = cursor.u64_le("GTID number")?;
        let allowed = if gtid.anonymous {
            gtid.number == 0
        } else {
            (1..i64::MAX as u64).contains(&gtid.number)
        };
        if !allowed {
            return Err(cursor.invalid("GTID number", gtid.number));
        }
        // 5.6 ends here; 5.7.4 and earlier milestones had another clock, which nobody needs.
        if cursor.is_empty() || cursor.u8("GTID clock type")? != LOGICAL_CLOCK {
            return Ok(gtid);
        }
        gtid.last_committed = Some(cursor.u64_le("GTID last committed")?);
        gtid.sequence_number = Some(cursor.u64_le("GTID sequence number")?);
        if cursor.is_empty() {
            return Ok(gtid);
        }
        const BOTH_TIMES: u64 = 1 << 55;
        let immediate = cursor.uint_le(7, "GTID immediate commit time")?;
        gtid.immediate_commit_us = Some(immediate & !BOTH_TIMES);
        gtid.original_commit_us = Some(if immediate & BOTH_TIMES != 0 {
            cursor.uint_le(7, "GTID original commit time")?
        } else {
            immediate
        });
        if cursor.is_empty() {
            return Ok(gtid);
        }
        gtid.transaction_length = Some(lenenc::integer(&mut cursor, "GTID transaction length")?);
        if cursor.is_empty() {
            return Ok(gtid);
        }
        const BOTH_VERSIONS: u32 = 1 << 31;
        let immediate = cursor.u32_le("GTID immediate server version")?;
        gtid.immediate_server_version = Some(immediate & !BOTH_VERSIONS);
        gtid.original_server_version = Some(if immediate & BOTH_VERSIONS != 0 {
            cursor.u32_le("GTID original server version")?
        } else {
            immediate
        });
        // A commit group ticket and whatever later versions append: of no use to a reader.
        Ok(gtid)
    }

    pub(super) fn parse_tagged(mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let start = cursor.at();
        let version = unsigned(&mut cursor, "GTID_TAGGED version")?;
        if version != 1 {
            return Err(DecodeError::new(
                "GTID_TAGGED version",
                start as u64,
                DecodeErrorKind::Unsupported { value: version },
            ));
        }
        let size = unsigned(&mut cursor, "GTID_TAGGED size")?;
        let available = (cursor.at() - start + cursor.remaining()) as u64;
        if size != available {
            return Err(cursor.invalid("GTID_TAGGED size", size));
        }
        let last_needed = unsigned(&mut cursor, "GTID_TAGGED last non-ignorable field")?;
        let mut gtid = Self::empty(false);
        while !cursor.is_empty() {
            let at = cursor.at() as u64;
            let field = unsigned(&mut cursor, "GTID_TAGGED field id")?;
            if !gtid.read_field(field, &mut cursor)? {
                // Fields carry no length: an unknown one ends what can be read, unless it must be understood.
                if field <= last_needed {
                    return Err(DecodeError::new(
                        "GTID_TAGGED field",
                        at,
                        DecodeErrorKind::Unsupported { value: field },
                    ));
                }
                break;
            }
        }
        gtid.original_commit_us = gtid.original_commit_us.or(gtid.immediate_commit_us);
        gtid.original_server_version = gtid
            .original_server_version
            .or(gtid.immediate_server_version);
        if !(1..i64::MAX as u64).contains(&gtid.number) {
            return Err(cursor.invalid("GTID_TAGGED number", gtid.number));
        }
        Ok(gtid)
    }

    /// Reads one field's value; `false` for a field that we do not know.
    fn read_field(&mut self, field: u64, cursor: &mut Cursor<'a>) -> Result<bool, DecodeError> {
        match field {
            0 => {
                let flags = unsigned(cursor, "GTID_TAGGED flags")?;
                self.may_have_statements = flags & u64::from(MAY_HAVE_STATEMENTS) != 0;
            }
            1 => {
                for byte in &mut self.uuid {
                    *byte = narrow(cursor, "GTID_TAGGED server UUID")?;
                }
            }
            2 => self.number = signed(cursor, "GTID_TAGGED number")?,
            3 => {
                let length = unsigned(cursor, "GTID_TAGGED tag length")?;
                if length > TAG_MAX {
                    return Err(cursor.invalid("GTID_TAGGED tag length", length));
                }
                let at = cursor.at() as u64;
                let tag = cursor.take(length as usize, "GTID_TAGGED tag")?;
                let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
                self.tag = match std::str::from_utf8(tag) {
                    Ok(text) if tag.iter().all(plain) => text,
                    _ => {
                        return Err(DecodeError::new(
                            "GTID_TAGGED tag",
                            at,
                            DecodeErrorKind::Encoding,
                        ));
                    }
                };
            }
            4 => self.last_committed = Some(signed(cursor, "GTID_TAGGED last committed")?),
            5 => self.sequence_number = Some(signed(cursor, "GTID_TAGGED sequence number")?),
            6 => self.immediate_commit_us = Some(unsigned(cursor, "GTID_TAGGED commit time")?),
            7 => self.original_commit_us = Some(unsigned(cursor, "GTID_TAGGED original time")?),
            8 => self.transaction_length = Some(unsigned(cursor, "GTID_TAGGED length")?),
            9 => self.immediate_server_version = Some(narrow(cursor, "GTID_TAGGED version")?),
            10 => self.original_server_version = Some(narrow(cursor, "GTID_TAGGED version")?),
            11 => {
                unsigned(cursor, "GTID_TAGGED commit group ticket")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A number of variable length: as many low one bits in the first byte as bytes follow it (at most eight).
fn unsigned(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u64, DecodeError> {
    let first = cursor.u8(what)?;
    let following = first.trailing_ones();
    let low = u64::from(first).checked_shr(following + 1).unwrap_or(0);
    let high = cursor.uint_le(following as usize, what)?;
    // Eight following bytes hold the whole number; fewer leave 7 - n bits in the first byte.
    let shift = 7_u32.saturating_sub(following);
    if following > 0 && high.leading_zeros() < shift {
        return Err(cursor.invalid(what, high));
    }
    Ok(low | high << shift)
}

/// A number of variable length with its sign in the lowest bit, which must be positive here.
fn signed(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u64, DecodeError> {
    let zigzag = unsigned(cursor, what)?;
    if zigzag & 1 != 0 {
        return Err(cursor.invalid(what, zigzag));
    }
    Ok(zigzag >> 1)
}

fn narrow<T: TryFrom<u64>>(cursor: &mut Cursor<'_>, what: &'static str) -> Result<T, DecodeError> {
    let value = unsigned(cursor, what)?;
    T::try_from(value).map_err(|_| cursor.invalid(what, value))
}

/// A MariaDB transaction's identity: `domain-server-sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MariaDbGtid<'a> {
    /// Replication domain.
    pub domain: u32,
    /// The server that made it: the event header's.
    pub server_id: u32,
    /// Number within the domain.
    pub sequence: u64,
    /// `FL_…` bits as on the wire.
    pub flags: u8,
    /// Number of the group commit it was in.
    pub commit_id: Option<u64>,
    /// The XA transaction that it prepares or completes: format, global part, branch part.
    pub xid: Option<(u32, &'a [u8], &'a [u8])>,
}

impl<'a> MariaDbGtid<'a> {
    const GROUP_COMMIT_ID: u8 = 0x2;
    const PREPARED_XA: u8 = 0x40;
    const COMPLETED_XA: u8 = 0x80;

    /// Whether it is one statement without a COMMIT of its own (DDL, XA COMMIT, XA ROLLBACK).
    #[must_use]
    pub const fn is_standalone(&self) -> bool {
        self.flags & 0x1 != 0
    }

    /// Whether it is DDL.
    #[must_use]
    pub const fn is_ddl(&self) -> bool {
        self.flags & 0x20 != 0
    }

    /// Whether its rows belong to an XA transaction that is only prepared at its end.
    #[must_use]
    pub const fn is_prepared_xa(&self) -> bool {
        self.flags & Self::PREPARED_XA != 0
    }

    /// Whether it commits or rolls back a prepared XA transaction.
    #[must_use]
    pub const fn is_completed_xa(&self) -> bool {
        self.flags & Self::COMPLETED_XA != 0
    }

    pub(super) fn parse(header: &Header, mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let sequence = cursor.u64_le("MARIADB_GTID sequence")?;
        let domain = cursor.u32_le("MARIADB_GTID domain")?;
        let flags = cursor.u8("MARIADB_GTID flags")?;
        let commit_id = if flags & Self::GROUP_COMMIT_ID != 0 {
            Some(cursor.u64_le("MARIADB_GTID commit id")?)
        } else {
            None
        };
        let xid = if flags & (Self::PREPARED_XA | Self::COMPLETED_XA) != 0 {
            let format = cursor.u32_le("MARIADB_GTID XID format")?;
            let global = usize::from(cursor.u8("MARIADB_GTID XID length")?);
            let branch = usize::from(cursor.u8("MARIADB_GTID XID length")?);
            Some((
                format,
                cursor.take(global, "MARIADB_GTID XID")?,
                cursor.take(branch, "MARIADB_GTID XID")?,
            ))
        } else {
            None
        };
        // Extra flags (engines, split ALTER) and zero padding follow: nothing that a reader of rows needs.
        Ok(Self {
            domain,
            server_id: header.server_id,
            sequence,
            flags,
            commit_id,
            xid,
        })
    }
}

/// MariaDB's GTID_LIST: where the file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MariaDbGtidList<'a> {
    entries: &'a [u8],
}

impl<'a> MariaDbGtidList<'a> {
    const ENTRY: usize = 16;

    pub(super) fn parse(mut cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        // The upper four bits are flags.
        let count = (cursor.u32_le("MARIADB_GTID_LIST count")? & 0x0fff_ffff) as usize;
        let length = count.saturating_mul(Self::ENTRY);
        let entries = cursor.take(length, "MARIADB_GTID_LIST entries")?;
        // An empty list is padded to the length of a GTID event's header.
        Ok(Self { entries })
    }

    /// `(domain, server id, sequence)` of each entry.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, u64)> + 'a {
        let (chunks, _) = self.entries.as_chunks::<16>();
        chunks.iter().map(|entry| {
            let [a, b, c, d, e, f, g, h, sequence @ ..] = *entry;
            (
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, g, h]),
                u64::from_le_bytes(sequence),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(value: u64) -> Vec<u8> {
        let bits = 64 - value.leading_zeros() as usize;
        let count = ((bits * 575) >> 12) + 1;
        if count == 9 {
            let mut bytes = vec![0xff];
            bytes.extend(value.to_le_bytes());
            return bytes;
        }
        let whole = (u128::from(value) << count) | ((1 << (count - 1)) - 1);
        whole.to_le_bytes()[..count].to_vec()
    }

    #[test]
    fn numbers_of_variable_length() {
        for value in (0..64)
            .flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1])
            .chain([u64::MAX])
        {
            let bytes = encode(value);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(unsigned(&mut cursor, "n").unwrap(), value, "{bytes:x?}");
            cursor.finish("n").unwrap();
            for cut in 0..bytes.len() {
                assert!(unsigned(&mut Cursor::new(&bytes[..cut]), "n").is_err());
            }
        }
    }

    #[test]
    fn a_tagged_gtid() {
        let mut fields = Vec::new();
        let mut field = |id: u64, value: &[u8]| {
            fields.extend(encode(id));
            fields.extend_from_slice(value);
        };
        field(0, &encode(1));
        let uuid: Vec<u8> = (200..216_u64).flat_map(encode).collect();
        field(1, &uuid);
        field(2, &encode(77 << 1));
        field(3, &[encode(3), b"abc".to_vec()].concat());
        field(4, &encode(5 << 1));
        field(5, &encode(6 << 1));
        field(6, &encode(1_700_000_000_000_000));
        field(8, &encode(321));
        field(9, &encode(90_700));
        let size = 1 + 1 + 1 + fields.len() as u64;
        let event = [encode(1), encode(size), encode(9), fields].concat();
        assert_eq!(event.len() as u64, size);
        let gtid = Gtid::parse_tagged(Cursor::new(&event)).unwrap();
        assert_eq!((gtid.number, gtid.tag), (77, "abc"));
        assert_eq!(gtid.uuid.to_vec(), (200..216).collect::<Vec<u8>>());
        assert_eq!(gtid.original_commit_us, Some(1_700_000_000_000_000));
        assert_eq!(gtid.transaction_length, Some(321));
        assert_eq!(gtid.original_server_version, Some(90_700));
        for cut in 0..event.len() {
            Gtid::parse_tagged(Cursor::new(&event[..cut])).unwrap_err();
        }
    }
}
