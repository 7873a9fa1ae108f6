//! Which events a dump command gets: the place found, or refused in the real server's words.

use protocol::mysql::event::{Checksum, FLAG_ARTIFICIAL, HEADER_LENGTH, Kind};
use protocol::mysql::gtid::{DomainSet, Gtid, GtidSet, IntervalSet};
use protocol::mysql::resultset::ServerError;

use super::film::{Film, Stretch, seal};

/// What is sent after a dump command.
#[derive(Debug)]
pub(super) struct Plan {
    /// Events made up for this dump: ROTATE, and FORMAT_DESCRIPTION where the dump starts inside a file.
    pub(super) prefix: Vec<Vec<u8>>,
    /// Stretches of the film, in order.
    pub(super) stretches: Vec<Stretch>,
}

/// What bears on the events that are made up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    /// `server_id` of the server that is played.
    pub(super) server_id: u32,
    /// Whether the first ROTATE has a checksum, as the client's `@source_binlog_checksum` says.
    pub(super) checksum: Checksum,
    /// Whether ANNOTATE_ROWS are sent (always on MySQL, which has none).
    pub(super) annotate: bool,
}

/// ER_SOURCE_FATAL_ERROR_READING_BINLOG, which carries every refusal of a dump.
fn refuse(message: impl Into<String>) -> ServerError {
    ServerError::new(1236, "HY000", message)
}

/// From `offset` of `file` (empty: the first one) on.
pub(super) fn at_position(
    film: &Film,
    file: &str,
    offset: u64,
    session: Session,
) -> Result<Plan, ServerError> {
    let index = match file {
        "" => Some(0),
        name => film.files.iter().position(|f| f.name == name),
    };
    let Some(index) = index else {
        return Err(refuse(
            "Could not find first log file name in binary log index file",
        ));
    };
    if offset < 4 {
        return Err(refuse(
            "Client requested source to start replication from position < 4",
        ));
    }
    let is_last = index + 1 == film.files.len();
    if is_last && offset > film.end.offset {
        return Err(refuse(
            "Client requested source to start replication from position > file size",
        ));
    }
    let name = &film.files[index].name;
    let Some(start) = film.find(index as u32, offset) else {
        return Err(refuse(format!(
            "bogus data in log event; the first event '{name}' at {offset}, the last event read from './{name}' at {offset}, the last byte read from './{name}' at {}.",
            offset + HEADER_LENGTH as u64
        )));
    };
    let mut prefix = vec![rotate(name, offset, session)];
    if offset > 4 {
        prefix.push(description(film, index, session));
    }
    let stretches: Vec<Stretch> = std::iter::once(start..film.count()).collect();
    Ok(Plan {
        prefix,
        stretches: without_annotations(film, stretches, session),
    })
}

/// Everything that is not in `has` (COM_BINLOG_DUMP_GTID).
pub(super) fn after_gtids(
    film: &Film,
    has: &IntervalSet,
    session: Session,
) -> Result<Plan, ServerError> {
    let (GtidSet::MySql(purged), GtidSet::MySql(executed)) = (&film.purged, &film.executed) else {
        return Err(ServerError::new(1047, "08S01", "Unknown command"));
    };
    if film.transactions.iter().all(|t| t.gtid.is_none()) {
        return Err(refuse(
            "The replication sender thread cannot start in AUTO_POSITION mode: this server has GTID_MODE = OFF instead of ON.",
        ));
    }
    if !purged.is_subset(has) {
        return Err(refuse(format!(
            "Cannot replicate because the source purged required binary logs. Replicate the missing transactions from elsewhere, or provision a new replica from backup. Consider increasing the source's binary log expiration period. The GTID set sent by the replica is '{has}', and the missing transactions are '{purged}'"
        )));
    }
    // Of this server's own transactions a replica cannot have more than there are; of others it can.
    let own = |source: protocol::mysql::gtid::SourceId| {
        executed.intervals().any(|(id, _)| id.uuid == source.uuid)
    };
    let more = has
        .intervals()
        .any(|(source, range)| own(source) && !executed.contains(&source, *range.end()));
    if more {
        return Err(refuse(
            "Replica has more GTIDs than the source has, using the source's SERVER_UUID. This may indicate that the end of the binary log was truncated or that the last binary log file was lost, e.g., after a power or disk failure when sync_binlog != 1. The source may or may not have rolled back transactions that were already replicated to the replica. Replicate any transactions that source has rolled back from replica to source, and/or commit empty transactions on source to account for transactions that have been committed on source but are not included in GTID_EXECUTED.",
        ));
    }
    Ok(skipping(film, session, |gtid| match gtid {
        Gtid::MySql { source, number } => has.contains(source, *number),
        Gtid::MariaDb(_) => false,
    }))
}

/// Everything after `@slave_connect_state` (MariaDB).
pub(super) fn after_domains(
    film: &Film,
    has: &DomainSet,
    session: Session,
) -> Result<Plan, ServerError> {
    for gtid in has.domains() {
        let known = Gtid::MariaDb(*gtid);
        let is_here = film.transactions.iter().any(|t| t.gtid == Some(known));
        if is_here
            || film.purged.contains(&known) && film.purged.to_string().contains(&gtid.to_string())
        {
            continue;
        }
        return Err(match film.purged.contains(&known) {
            true => refuse(
                "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old and required binlog files have been purged.",
            ),
            false => refuse(format!(
                "Error: connecting slave requested to start from GTID {gtid}, which is not in the master's binlog"
            )),
        });
    }
    if let GtidSet::MariaDb(purged) = &film.purged
        && !purged
            .domains()
            .iter()
            .all(|gtid| has.last(gtid.domain).is_some())
    {
        return Err(refuse(
            "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old and required binlog files have been purged.",
        ));
    }
    Ok(skipping(film, session, |gtid| match gtid {
        Gtid::MariaDb(gtid) => has.contains(*gtid),
        Gtid::MySql { .. } => false,
    }))
}

/// From the start of the file that holds the first transaction that `has` has not, without the transactions that it has.
fn skipping(film: &Film, session: Session, has: impl Fn(&Gtid) -> bool) -> Plan {
    let has_shot = |t: &super::film::Transaction| t.gtid.as_ref().is_some_and(&has);
    let wanted = film.transactions.iter().find(|t| !has_shot(t));
    let file = match wanted {
        Some(transaction) => film.shot(transaction.first).file as usize,
        None => film.files.len() - 1,
    };
    let name = &film.files[file].name;
    let mut prefix = vec![rotate(name, 4, session)];
    let start = film.find(file as u32, 4).unwrap_or_else(|| {
        // The recording begins inside this file: its description is sent as made up.
        prefix.push(description(film, file, session));
        film.files[file].description + 1
    });
    let mut stretches: Vec<Stretch> = std::iter::once(start..film.count()).collect();
    for (i, transaction) in film
        .transactions
        .iter()
        .enumerate()
        .filter(|(_, t)| has_shot(t))
    {
        let end = film
            .transactions
            .get(i + 1)
            .map_or(film.count(), |next| next.first);
        // What stands between transactions (file ends and starts) is sent nevertheless.
        let last = (transaction.first..end)
            .take_while(|index| !stands_between(film.shot(*index).kind))
            .last();
        let end = last.map_or(transaction.first, |last| last + 1);
        cut(&mut stretches, transaction.first..end);
    }
    Plan {
        prefix,
        stretches: without_annotations(film, stretches, session),
    }
}

fn stands_between(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ROTATE
            | Kind::STOP
            | Kind::FORMAT_DESCRIPTION
            | Kind::PREVIOUS_GTIDS
            | Kind::MARIADB_GTID_LIST
            | Kind::BINLOG_CHECKPOINT
    )
}

/// Takes `gap`, which lies behind all gaps so far, out of the last stretch.
fn cut(stretches: &mut Vec<Stretch>, gap: Stretch) {
    if let Some(last) = stretches.last_mut()
        && gap.end > last.start
    {
        let rest = gap.end..last.end;
        last.end = gap.start.max(last.start);
        if last.is_empty() {
            stretches.pop();
        }
        if !rest.is_empty() {
            stretches.push(rest);
        }
    }
}

fn without_annotations(film: &Film, stretches: Vec<Stretch>, session: Session) -> Vec<Stretch> {
    if session.annotate {
        return stretches;
    }
    let mut kept: Vec<Stretch> = Vec::new();
    for index in stretches.into_iter().flatten() {
        if film.shot(index).kind == Kind::ANNOTATE_ROWS {
            continue;
        }
        match kept.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            _ => kept.push(index..index + 1),
        }
    }
    kept
}

/// The ROTATE that tells a client where its dump begins.
fn rotate(file: &str, offset: u64, session: Session) -> Vec<u8> {
    let mut body = offset.to_le_bytes().to_vec();
    body.extend_from_slice(file.as_bytes());
    event(Kind::ROTATE, 0, FLAG_ARTIFICIAL, &body, session)
}

/// HEARTBEAT: nothing after `offset` of `file`. Version 2 holds offsets above 4 GiB.
pub(super) fn heartbeat(file: &str, offset: u64, wide: bool, session: Session) -> Vec<u8> {
    if !wide {
        return event(Kind::HEARTBEAT, offset as u32, 0, file.as_bytes(), session);
    }
    let mut position = Vec::new();
    protocol::mysql::lenenc::write_integer(&mut position, offset);
    let mut body = vec![1];
    protocol::mysql::lenenc::write_string(&mut body, file.as_bytes());
    body.push(2);
    protocol::mysql::lenenc::write_string(&mut body, &position);
    body.push(0);
    event(Kind::HEARTBEAT_V2, 0, 0, &body, session)
}

fn event(kind: Kind, next: u32, flags: u16, body: &[u8], session: Session) -> Vec<u8> {
    let length = HEADER_LENGTH + body.len() + session.checksum.length();
    let mut event = vec![0; 4];
    event.push(kind.0);
    event.extend_from_slice(&session.server_id.to_le_bytes());
    event.extend_from_slice(&(length as u32).to_le_bytes());
    event.extend_from_slice(&next.to_le_bytes());
    event.extend_from_slice(&flags.to_le_bytes());
    event.extend_from_slice(body);
    event.resize(length, 0);
    seal(&mut event, session.checksum);
    event
}

/// A file's FORMAT_DESCRIPTION as sent when the dump starts further on: in no place, and not saying that the server restarted
/// (which would drop the replica's temporary tables).
fn description(film: &Film, file: usize, _session: Session) -> Vec<u8> {
    let mut event = film.recorded(film.files[file].description).to_vec();
    event[13..17].fill(0);
    // Binlog version 2, server version 50, then the time of creation.
    let created = HEADER_LENGTH + 2 + 50;
    event[created..created + 4].fill(0);
    // This event has a checksum in every server that knows them, whatever the algorithm.
    seal(&mut event, Checksum::Crc32);
    event
}
