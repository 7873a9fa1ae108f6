//! Commands: what a client asks after the handshake, as far as replication needs it.
//!
//! ```text
//! 01 COM_QUIT             |
//! 03 COM_QUERY            | statement                     (no query attributes: the capability is not used)
//! 0e COM_PING             |
//! 12 COM_BINLOG_DUMP      | offset: 4 | flags: 2 | server id: 4 | file
//! 15 COM_REGISTER_SLAVE   | server id: 4 | host: 1 + n | user: 1 + n | password: 1 + n | port: 2 | rank: 4 | source id: 4
//! 1e COM_BINLOG_DUMP_GTID | flags: 2 | server id: 4 | file length: 4, file | offset: 8 | set length: 4, GTID set
//! ```
//! Source: MySQL internals manual, "Text Protocol" and "Replication Protocol".

use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::BINLOG_FILE_NAME_MAX;
use crate::mysql::gtid::IntervalSet;

/// Flag of both dump commands: end with an EOF packet instead of waiting for more.
pub const DUMP_NON_BLOCK: u16 = 0x01;
/// Flag of both dump commands on MySQL: send HEARTBEAT v2, which holds offsets above 4 GiB.
pub const DUMP_HEARTBEAT_V2: u16 = 0x02;
/// The same bit on MariaDB: send ANNOTATE_ROWS events.
pub const DUMP_ANNOTATE_ROWS: u16 = 0x02;
/// Flag of COM_BINLOG_DUMP_GTID: start after the GTID set, not at the file and offset.
pub const DUMP_THROUGH_GTID: u16 = 0x04;

/// One command of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Good bye; the server closes.
    Quit,
    /// A statement; text as the client sent it.
    Query(&'a [u8]),
    /// Are you there.
    Ping,
    /// Change the default database.
    InitDb(&'a [u8]),
    /// Forget the session's state: MySQL's COM_RESET_CONNECTION.
    Reset,
    /// Names this replica, so that SHOW REPLICAS lists it.
    RegisterReplica(Replica<'a>),
    /// Stream a binlog from a file's offset on.
    BinlogDump(BinlogDump<'a>),
    /// Stream what is not in a GTID set (MySQL only).
    BinlogDumpGtid(BinlogDumpGtid<'a>),
    /// Anything else, by its number.
    Other(u8),
}

/// What COM_REGISTER_SLAVE says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replica<'a> {
    /// The replica's server id.
    pub server_id: u32,
    /// Host name that SHOW REPLICAS shows; at most 255 bytes.
    pub host: &'a [u8],
    /// Port that SHOW REPLICAS shows.
    pub port: u16,
}

/// What COM_BINLOG_DUMP asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogDump<'a> {
    /// First byte wanted; at least 4. Offsets above 4 GiB cannot be asked for.
    pub offset: u32,
    /// `DUMP_…` flags.
    pub flags: u16,
    /// The replica's server id: another replica of the same id is thrown out.
    pub server_id: u32,
    /// The file; empty for the server's first. With MariaDB's `@slave_connect_state` set, file and offset are ignored.
    pub file: &'a [u8],
}

/// What COM_BINLOG_DUMP_GTID asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogDumpGtid<'a> {
    /// `DUMP_…` flags.
    pub flags: u16,
    /// The replica's server id: another replica of the same id is thrown out.
    pub server_id: u32,
    /// The file where [`DUMP_THROUGH_GTID`] is not set.
    pub file: &'a [u8],
    /// The offset where [`DUMP_THROUGH_GTID`] is not set; at least 4.
    pub offset: u64,
    /// What the replica has.
    pub gtids: IntervalSet,
}

impl<'a> Command<'a> {
    /// Appends the payload. Texts of COM_REGISTER_SLAVE over 255 bytes are cut there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Quit => out.push(0x01),
            Self::InitDb(name) => {
                out.push(0x02);
                out.extend_from_slice(name);
            }
            Self::Query(statement) => {
                out.push(0x03);
                out.extend_from_slice(statement);
            }
            Self::Ping => out.push(0x0e),
            Self::Reset => out.push(0x1f),
            Self::RegisterReplica(replica) => {
                out.push(0x15);
                out.extend_from_slice(&replica.server_id.to_le_bytes());
                let length = replica.host.len().min(255);
                out.push(u8::try_from(length).unwrap_or(u8::MAX));
                out.extend_from_slice(replica.host.get(..length).unwrap_or_default());
                // User and password are what SHOW REPLICAS would show: ours stay here.
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(&replica.port.to_le_bytes());
                out.extend_from_slice(&[0; 8]);
            }
            Self::BinlogDump(dump) => {
                out.push(0x12);
                out.extend_from_slice(&dump.offset.to_le_bytes());
                out.extend_from_slice(&dump.flags.to_le_bytes());
                out.extend_from_slice(&dump.server_id.to_le_bytes());
                out.extend_from_slice(dump.file);
            }
            Self::BinlogDumpGtid(dump) => {
                out.push(0x1e);
                out.extend_from_slice(&dump.flags.to_le_bytes());
                out.extend_from_slice(&dump.server_id.to_le_bytes());
                write_u32_counted(out, dump.file);
                out.extend_from_slice(&dump.offset.to_le_bytes());
                let mut set = Vec::new();
                dump.gtids.encode(&mut set);
                write_u32_counted(out, &set);
            }
            Self::Other(number) => out.push(*number),
        }
    }

    /// Reads a command's payload.
    ///
    /// # Errors
    /// Truncated or left-over bytes, a file name over [`BINLOG_FILE_NAME_MAX`], a broken GTID set.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let command = match cursor.u8("command")? {
            0x01 => Self::Quit,
            0x02 => Self::InitDb(cursor.rest()),
            0x03 => Self::Query(cursor.rest()),
            0x0e => Self::Ping,
            0x1f => Self::Reset,
            0x15 => Self::RegisterReplica(Replica::decode(&mut cursor)?),
            0x12 => Self::BinlogDump(BinlogDump {
                offset: cursor.u32_le("COM_BINLOG_DUMP offset")?,
                flags: cursor.u16_le("COM_BINLOG_DUMP flags")?,
                server_id: cursor.u32_le("COM_BINLOG_DUMP server id")?,
                file: file_name(cursor.rest())?,
            }),
            0x1e => Self::BinlogDumpGtid(BinlogDumpGtid::decode(&mut cursor)?),
            other => {
                cursor.rest();
                Self::Other(other)
            }
        };
        cursor.finish("command")?;
        Ok(command)
    }
}

impl<'a> Replica<'a> {
    fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let server_id = cursor.u32_le("COM_REGISTER_SLAVE server id")?;
        let mut texts = [&b""[..]; 3];
        for text in &mut texts {
            let length = cursor.u8("COM_REGISTER_SLAVE text length")?;
            *text = cursor.take(length.into(), "COM_REGISTER_SLAVE text")?;
        }
        let port = cursor.u16_le("COM_REGISTER_SLAVE port")?;
        cursor.skip(8, "COM_REGISTER_SLAVE rank and source id")?;
        let [host, _user, _password] = texts;
        Ok(Self {
            server_id,
            host,
            port,
        })
    }
}

impl<'a> BinlogDumpGtid<'a> {
    fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let flags = cursor.u16_le("COM_BINLOG_DUMP_GTID flags")?;
        let server_id = cursor.u32_le("COM_BINLOG_DUMP_GTID server id")?;
        let file = take_u32_counted(cursor, "COM_BINLOG_DUMP_GTID file")?;
        let offset = cursor.u64_le("COM_BINLOG_DUMP_GTID offset")?;
        let start = cursor.at() as u64 + 4;
        let set = take_u32_counted(cursor, "COM_BINLOG_DUMP_GTID set")?;
        let gtids = IntervalSet::decode(set).map_err(|error| error.shifted(start))?;
        Ok(Self {
            flags,
            server_id,
            file: file_name(file)?,
            offset,
            gtids,
        })
    }
}

fn file_name(name: &[u8]) -> Result<&[u8], DecodeError> {
    // Clients count the NUL in or leave it out.
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    match name.len() > BINLOG_FILE_NAME_MAX {
        false => Ok(name),
        true => Err(DecodeError::new(
            "binlog file name",
            0,
            DecodeErrorKind::TooLong {
                length: name.len() as u64,
                limit: BINLOG_FILE_NAME_MAX as u64,
            },
        )),
    }
}

fn write_u32_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take_u32_counted<'a>(
    cursor: &mut Cursor<'a>,
    what: &'static str,
) -> Result<&'a [u8], DecodeError> {
    let length = cursor.u32_le(what)?;
    cursor.take(length as usize, what)
}

#[cfg(test)]
mod tests {
    use mysql_common::packets::{
        BinlogDumpFlags, ComBinlogDump, ComBinlogDumpGtid, ComRegisterSlave, GnoInterval, Sid,
    };
    use mysql_common::proto::MySerialize;

    use super::*;

    fn dump_gtid() -> BinlogDumpGtid<'static> {
        BinlogDumpGtid {
            flags: DUMP_THROUGH_GTID,
            server_id: 7,
            file: b"binlog.000003",
            offset: 4,
            gtids: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7-8"
                .parse()
                .unwrap(),
        }
    }

    fn all() -> Vec<Command<'static>> {
        vec![
            Command::Quit,
            Command::Query(b"SELECT 1"),
            Command::Ping,
            Command::InitDb(b"shop"),
            Command::Reset,
            Command::Other(0x16),
            Command::RegisterReplica(Replica {
                server_id: 7,
                host: b"here",
                port: 3306,
            }),
            Command::BinlogDump(BinlogDump {
                offset: 4,
                flags: DUMP_HEARTBEAT_V2,
                server_id: 7,
                file: b"binlog.000001",
            }),
            Command::BinlogDumpGtid(dump_gtid()),
        ]
    }

    fn encoded(command: &Command<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        bytes
    }

    #[test]
    fn round_trip_and_every_cut() {
        for command in all() {
            let bytes = encoded(&command);
            assert_eq!(Command::decode(&bytes).as_ref(), Ok(&command));
            for cut in 0..bytes.len() {
                assert_ne!(
                    Command::decode(&bytes[..cut]).as_ref(),
                    Ok(&command),
                    "cut at {cut}"
                );
            }
        }
        assert!(Command::decode(b"\x0e\x00").is_err(), "left over bytes");
    }

    #[test]
    fn encoded_as_mysql_common() {
        let mut theirs = Vec::new();
        ComBinlogDump::new(7)
            .with_pos(4)
            .with_filename(&b"binlog.000001"[..])
            .with_flags(BinlogDumpFlags::from_bits_retain(DUMP_HEARTBEAT_V2))
            .serialize(&mut theirs);
        assert_eq!(encoded(&all()[7]), theirs);

        theirs.clear();
        let uuid = dump_gtid().gtids.intervals().next().unwrap().0.uuid.0;
        let intervals = vec![GnoInterval::new(1, 6), GnoInterval::new(7, 9)];
        ComBinlogDumpGtid::new(7)
            .with_pos(4)
            .with_filename(&b"binlog.000003"[..])
            .with_flags(BinlogDumpFlags::BINLOG_THROUGH_GTID)
            .with_sids(vec![Sid::new(uuid).with_intervals(intervals)])
            .serialize(&mut theirs);
        assert_eq!(encoded(&all()[8]), theirs);

        theirs.clear();
        ComRegisterSlave::new(7)
            .with_hostname(&b"here"[..])
            .with_port(3306)
            .serialize(&mut theirs);
        assert_eq!(encoded(&all()[6]), theirs);
    }
}
