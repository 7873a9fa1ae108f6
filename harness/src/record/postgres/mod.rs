//! A slot's stream of PostgreSQL: the messages of START_REPLICATION from CopyBothResponse on.

mod catalog;
pub(crate) mod client;
mod count;

use std::collections::BTreeMap;

use fixtures::{PostgresRecording, RecordingWriter, Sidecar};

use super::{Args, RecordError};
use crate::seed::postgres::config;
use crate::truth::Truth;
use catalog::{Catalog, answer};
use client::{Client, refused};
use count::Counter;

/// CopyData's tag, length and kind.
const COPY_HEADER: usize = 6;
/// XLogData before what the plugin wrote: tag and length, kind, start, end, clock.
const XLOG_HEADER: usize = 5 + 1 + 8 + 8 + 8;
/// Known by wal2json from 2.6 on.
const NUMERIC_AS_STRING: &str = "numeric-data-types-as-string";

/// Records what `args` name; blocking.
pub(super) fn record(
    args: &Args,
    truth: Option<&Truth>,
) -> Result<fixtures::Recording, RecordError> {
    let config = config(&args.url).map_err(RecordError::Usage)?;
    let name = args.slot.as_deref().unwrap_or_default();
    let mut catalog = Catalog::read(&mut Client::connect(&config, false)?)?;
    let slot = catalog.slot(name)?;
    let mut client = Client::connect(&config, true)?;
    let identity = answer("IDENTIFY_SYSTEM", client.rows("IDENTIFY_SYSTEM")?);
    let [system_id, timeline, end, ..] = identity.rows.first().map_or(&[][..], Vec::as_slice)
    else {
        return Err(RecordError::Unexpected("no identity"));
    };
    let mut recording = PostgresRecording {
        start: slot.confirmed,
        end: end.clone(),
        system_id: system_id.clone(),
        timeline: timeline
            .parse()
            .map_err(|_| RecordError::Unexpected("a timeline that is no number"))?,
        database: slot.database,
        slot: name.to_owned(),
        publication: match slot.plugin == "pgoutput" {
            true => name.to_owned(),
            false => String::new(),
        },
        options: options(&slot.plugin, name, &args.options)?,
        plugin: slot.plugin,
        parameters: client.parameters.clone(),
    };
    catalog.answers.push(identity);

    let first = start(&mut client, &mut recording)?;
    let mut writer = RecordingWriter::create(&args.out, args.level)?;
    writer.event(&first)?;
    let changes = copy(&mut client, &mut writer, &recording)?;
    if let Some(truth) = truth
        && truth.changes != changes
    {
        return Err(RecordError::Usage(format!(
            "the slot streams {changes} changes, its truth has {}: was it made right before the workload?",
            truth.changes
        )));
    }
    let version = recording.parameters.get("server_version");
    let sidecar = Sidecar {
        server: args.server.scheme().into(),
        version: version.cloned().unwrap_or_default(),
        provenance: args.provenance.clone(),
        changes,
        bytes: 0,
        sha256: String::new(),
        start: Default::default(),
        end: Default::default(),
        postgres: Some(recording),
        variables: catalog.variables,
        answers: catalog.answers,
        relations: Vec::new(),
    };
    Ok(writer.finish(sidecar)?)
}

/// What the engine asks of a plugin, with `over` (`NAME=VALUE`) over it.
fn options(
    plugin: &str,
    publication: &str,
    over: &[String],
) -> Result<BTreeMap<String, String>, RecordError> {
    let publication = format!("\"{}\"", publication.replace('"', "\"\""));
    let ours = match plugin {
        "pgoutput" => vec![
            ("proto_version", "1"),
            ("publication_names", publication.as_str()),
        ],
        "wal2json" => vec![
            ("format-version", "2"),
            ("include-lsn", "true"),
            ("include-pk", "true"),
            ("include-timestamp", "true"),
            ("include-transaction", "true"),
            ("include-types", "true"),
            ("include-xids", "true"),
            (NUMERIC_AS_STRING, "true"),
        ],
        _ => Vec::new(),
    };
    let mut options: BTreeMap<String, String> = ours
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for option in over {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| RecordError::Usage(format!("--option {option}: expected NAME=VALUE")))?;
        options.insert(name.to_owned(), value.to_owned());
    }
    Ok(options)
}

/// Starts the stream and answers its CopyBothResponse, without the options that the plugin does not know.
fn start(client: &mut Client, recording: &mut PostgresRecording) -> Result<Vec<u8>, RecordError> {
    loop {
        let options: Vec<String> = recording
            .options
            .iter()
            .map(|(name, value)| format!("\"{name}\" '{}'", value.replace('\'', "''")))
            .collect();
        client.command(&format!(
            "START_REPLICATION SLOT \"{}\" LOGICAL {} ({})",
            recording.slot,
            recording.start,
            options.join(", ")
        ))?;
        let message = client.message()?;
        if message.first() == Some(&b'W') {
            return Ok(message.to_vec());
        }
        let refusal = refused(message);
        let unknown =
            matches!(&refusal, RecordError::Refused(text) if text.contains(NUMERIC_AS_STRING));
        if !unknown || recording.options.remove(NUMERIC_AS_STRING).is_none() {
            return Err(refusal);
        }
        // ReadyForQuery follows the error.
        client.message()?;
    }
}

/// Writes messages until the server says that it has sent everything up to the recording's end; answers the row changes.
///
/// ```text
/// d length:4 w start:8 end:8 clock:8 data            XLogData in a CopyData
/// d length:4 k end:8 clock:8 reply:1                 keepalive: everything before `end` has been sent
/// ```
fn copy(
    client: &mut Client,
    writer: &mut RecordingWriter,
    recording: &PostgresRecording,
) -> Result<u64, RecordError> {
    let end = lsn(&recording.end).ok_or(RecordError::Unexpected("an end that is no LSN"))?;
    let json = recording.plugin == "wal2json";
    let mut counter = Counter::default();
    loop {
        let message = client.message()?;
        match (message.first(), message.get(COPY_HEADER - 1)) {
            (Some(b'd'), Some(b'w')) => {
                let data = message.get(XLOG_HEADER..).unwrap_or_default();
                match json {
                    true => counter.json(data),
                    false => counter.pgoutput(data),
                }
                writer.event(message)?;
            }
            (Some(b'd'), Some(b'k')) => {
                let Some(fields) = message
                    .get(COPY_HEADER..)
                    .and_then(<[u8]>::first_chunk::<17>)
                else {
                    return Err(RecordError::Unexpected("a keepalive cut short"));
                };
                let sent = fields.first_chunk().copied().map(u64::from_be_bytes);
                let reply = fields[16] == 1;
                writer.event(message)?;
                if sent >= Some(end) {
                    return Ok(counter.changes);
                }
                if reply {
                    client.status()?;
                }
            }
            // Notices and changed parameters are no part of the stream.
            (Some(b'N' | b'S'), _) => {}
            _ => return Err(refused(message)),
        }
    }
}

/// `16/B374D848` as a number.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |digits| u64::from_str_radix(digits, 16).ok();
    Some(part(high)? << 32 | part(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_the_server_writes_them() {
        assert_eq!(lsn("16/B374D848"), Some(0x0000_0016_b374_d848));
        assert_eq!(lsn("0/0"), Some(0));
        assert_eq!(lsn("16"), None);
    }

    #[test]
    fn options_of_the_command_line_come_over_ours() {
        let options = options("pgoutput", "a\"b", &["proto_version=2".into()]).unwrap();
        assert_eq!(options["proto_version"], "2");
        assert_eq!(options["publication_names"], "\"a\"\"b\"");
        let error = super::options("wal2json", "", &["x".into()]).unwrap_err();
        assert_eq!(error.to_string(), "--option x: expected NAME=VALUE");
    }
}
