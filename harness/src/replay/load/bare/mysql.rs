//! MySQL and MariaDB: WRITE_ROWS events as the dump thread sends them, of the one table that is written meanwhile.
//!
//! ```text
//! header:19 table:6 flags:2 [v2: extra length:2 …] columns:1 present:1 ( nulls:1 id:8 due_us:8 length:2 note … ) …
//! ```

use std::time::Instant;

use protocol::mysql::command::{BinlogDump, Command};

use super::super::Failure;
use super::Noted;
use crate::record::mysql::client::{Client, refused};
use crate::seed::mysql::options;
use crate::servers::Flavour;

/// Nobody else's: the engine derives its own from more than this.
const SERVER_ID: u32 = 77_001;
/// Event header.
const HEADER: usize = 19;
const WRITE_ROWS_V1: u8 = 23;
const WRITE_ROWS_V2: u8 = 30;

/// Begins the dump of what is committed from now on.
pub(super) fn begin(url: &str, flavour: Flavour) -> Result<Client, Failure> {
    let mut client = Client::connect(&options(url)?)?;
    let (status, checksum) = match flavour {
        Flavour::Mysql => (
            "SHOW BINARY LOG STATUS",
            "SET @source_binlog_checksum = 'NONE', @master_binlog_checksum = 'NONE'",
        ),
        _ => (
            "SHOW MASTER STATUS",
            "SET @master_binlog_checksum = 'NONE', @mariadb_slave_capability = 4",
        ),
    };
    client.run(checksum)?;
    let rows = client
        .rows(status)?
        .ok_or("the server refuses its status")?;
    let cell = |column: usize| {
        let cell = rows.rows.first()?.get(column)?.as_ref()?;
        Some(String::from_utf8_lossy(cell).into_owned())
    };
    let (Some(file), Some(offset)) = (cell(0), cell(1)) else {
        return Err("the server writes no binary log".into());
    };
    client.command(&Command::BinlogDump(BinlogDump {
        offset: offset.parse()?,
        flags: 0,
        server_id: SERVER_ID,
        file: file.as_bytes(),
    }))?;
    Ok(client)
}

/// Reads to the end of the connection.
pub(super) fn read(mut client: Client, noted: &mut Noted) -> Result<(), String> {
    loop {
        let (payload, _) = client.packet().map_err(|error| error.to_string())?;
        let now = crate::clock::now();
        match payload.split_first() {
            Some((0x00, event)) => {
                note(event, now, noted);
            }
            Some((0xff, _)) => return Err(refused(payload).to_string()),
            _ => return Ok(()),
        }
    }
}

/// Notes the first column of every inserted row; `None` at the end of the event, or where it is another one.
fn note(event: &[u8], now: Instant, noted: &mut Noted) -> Option<()> {
    let body = event.get(HEADER + 8..)?;
    let columns = match *event.get(4)? {
        WRITE_ROWS_V1 => body,
        WRITE_ROWS_V2 => {
            let extra = body.first_chunk::<2>()?;
            body.get(usize::from(u16::from_le_bytes(*extra))..)?
        }
        _ => return None,
    };
    let mut rows = columns.get(2..)?;
    loop {
        let (id, rest) = rows.get(1..)?.split_first_chunk::<8>()?;
        noted.row(u64::from_le_bytes(*id), now);
        let (length, text) = rest.get(8..)?.split_first_chunk::<2>()?;
        rows = text.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_both_versions_of_the_event_are_noted() {
        for (kind, extra) in [(WRITE_ROWS_V1, &[][..]), (WRITE_ROWS_V2, &[2, 0][..])] {
            let mut event = vec![0; HEADER + 8];
            event[4] = kind;
            event.extend_from_slice(extra);
            event.extend_from_slice(&[3, 0b111]);
            for id in [7u64, 1 << 40] {
                event.push(0);
                event.extend_from_slice(&id.to_le_bytes());
                event.extend_from_slice(&[0; 8]);
                event.extend_from_slice(&[3, 0, b'a', b'b', b'c']);
            }
            let now = crate::clock::now();
            let mut noted = Noted::default();
            assert_eq!(note(&event, now, &mut noted), None);
            let ids: Vec<u64> = noted.rows.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, [7, 1 << 40], "{kind}");
        }
        let mut noted = Noted::default();
        assert_eq!(note(&[0; 40], crate::clock::now(), &mut noted), None);
        assert!(noted.rows.is_empty());
    }
}
