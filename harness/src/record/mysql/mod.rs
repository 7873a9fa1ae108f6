//! A dump of MySQL or MariaDB: the binlog's events as a replica gets them.

mod catalog;
pub(crate) mod client;

use fixtures::{BinlogPosition, RecordingWriter, Sidecar};
use protocol::mysql::command::{BinlogDump, Command, DUMP_ANNOTATE_ROWS, DUMP_NON_BLOCK};
use protocol::mysql::resultset::is_eof;

use super::{Args, RecordError};
use crate::seed::mysql::options;
use crate::servers::Flavour;
use crate::truth::Truth;
use catalog::Catalog;
use client::{Client, refused};

/// Type of the event that names the next file; sent also at the start of a dump, then with timestamp 0.
const ROTATE_EVENT: u8 = 4;
/// Types that a server makes up while it waits: no part of the binlog.
const HEARTBEATS: [u8; 2] = [27, 41];
/// Unused by replicas of ours; a replica of the same id would be thrown out.
const SERVER_ID: u32 = 4_204_204;

/// Records what `args` name; blocking.
pub(super) fn record(
    args: &Args,
    truth: Option<&Truth>,
) -> Result<fixtures::Recording, RecordError> {
    let mut client = Client::connect(&options(&args.url).map_err(RecordError::Usage)?)?;
    let catalog = Catalog::read(&mut client)?;
    let start = match &args.from {
        Some(text) => position(text)?,
        None => catalog.first.clone(),
    };
    let mut writer = RecordingWriter::create(&args.out, args.level)?;
    for statement in session(args.server) {
        client.run(statement)?;
    }
    let flags = DUMP_NON_BLOCK
        | if args.server == Flavour::Mariadb {
            DUMP_ANNOTATE_ROWS
        } else {
            0
        };
    let offset = u32::try_from(start.offset).map_err(|_| {
        RecordError::Usage("--from: a dump cannot start above 4 GiB into a file".into())
    })?;
    let file = start.file.clone();
    client.command(&Command::BinlogDump(BinlogDump {
        offset,
        flags,
        server_id: SERVER_ID,
        file: file.as_bytes(),
    }))?;
    copy(&mut client, &mut writer, &catalog.end)?;
    let sidecar = Sidecar {
        server: args.server.name().into(),
        version: catalog.version,
        provenance: args.provenance.clone(),
        changes: truth.map_or(0, |truth| truth.changes),
        bytes: 0,
        sha256: String::new(),
        start,
        end: catalog.end,
        postgres: None,
        variables: catalog.variables,
        answers: catalog.answers,
        relations: catalog.relations,
    };
    Ok(writer.finish(sidecar)?)
}

/// What a replica sets before it asks for the stream.
fn session(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Mysql => &[
            "SET @source_binlog_checksum = @@GLOBAL.binlog_checksum, @master_binlog_checksum = @@GLOBAL.binlog_checksum",
        ],
        // Capability 4: GTID events as they are, not rewritten into BEGIN for older replicas.
        _ => &[
            "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum",
            "SET @mariadb_slave_capability = 4",
        ],
    }
}

/// Writes events until the one that ends at `end`, or until the server says that there is no more.
fn copy(
    client: &mut Client,
    writer: &mut RecordingWriter,
    end: &BinlogPosition,
) -> Result<(), RecordError> {
    let mut file = String::new();
    loop {
        let (payload, _) = client.packet()?;
        match payload.first() {
            Some(0x00) => {}
            Some(0xff) => return Err(refused(payload)),
            _ if is_eof(payload, false) => return Ok(()),
            _ => return Err(RecordError::Unexpected("a packet that is no event")),
        }
        let event = &payload[1..];
        let Some(header) = event.get(..19) else {
            return Err(RecordError::Unexpected("an event without header"));
        };
        let kind = header[4];
        if HEARTBEATS.contains(&kind) {
            continue;
        }
        writer.event(event)?;
        let end_offset = u32::from_le_bytes([header[13], header[14], header[15], header[16]]);
        if kind == ROTATE_EVENT && header[..4] == [0; 4] {
            // Post-header: the position; then the name, and perhaps a checksum, which no file name's characters can be.
            file = String::from_utf8_lossy(event.get(27..).unwrap_or_default()).into_owned();
        } else if file.starts_with(&end.file) && u64::from(end_offset) == end.offset & 0xffff_ffff {
            return Ok(());
        }
    }
}

fn position(text: &str) -> Result<BinlogPosition, RecordError> {
    let wrong = || {
        RecordError::Usage(format!(
            "--from {text}: expected FILE:OFFSET, as in binlog.000001:4"
        ))
    };
    let (file, offset) = text.rsplit_once(':').ok_or_else(wrong)?;
    let offset = offset.parse().map_err(|_| wrong())?;
    Ok(BinlogPosition {
        file: file.to_owned(),
        offset,
        gtid: String::new(),
    })
}
