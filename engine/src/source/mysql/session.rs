//! From an address to a running dump: what is asked and set before, and what the server's refusals mean.
//!
//! ```text
//! connect ─ variables ─ grants ─ status ─► may we, and from where? ─ SET @… ─ COM_REGISTER_SLAVE ─ COM_BINLOG_DUMP[_GTID]
//! ```

use std::time::Duration;

use protocol::mysql::BinlogPosition;
use protocol::mysql::command::DUMP_HEARTBEAT_V2;
use protocol::mysql::event::Checksum;
use protocol::mysql::gtid::{Flavour, GtidSet, IntervalSet};
use protocol::mysql::packet::Frames;
use protocol::mysql::resultset::{ResultSet, ServerError};

use super::RING_READ_MAX;
use super::checks::{self, Facts};
use super::connection::{ConnectOptions, Connection, ConnectionError, server_verdict};
use super::server::{self, Answer, Status, Variables};
use super::transaction::{Place, Point};
use super::unlogged;
use crate::config::{Io, Selection};
use crate::source::{Identity, Requirement, SourceError, Verdict};

mod known;

/// The server says at least this often that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Where a dump begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// At the server's end.
    Now,
    /// At its oldest file.
    Earliest,
    /// After a point: by GTIDs where it has them (its file may be empty then), otherwise by place on the same server.
    Point(Point),
}

/// How to open a session.
#[derive(Debug, Clone)]
pub(in crate::source) struct Plan {
    pub(super) options: ConnectOptions,
    /// We register with it.
    pub(super) server_id: u32,
    /// What is captured, for the checks.
    pub(super) tables: Selection,
    pub(super) from: From,
    /// The server that `from` belongs to.
    pub(super) server: Option<Identity>,
    /// Whether everything that the server must have is checked: once per process.
    pub(super) check: bool,
    /// What reads the dump.
    pub(super) io: Io,
}

/// A server whose dump has begun.
#[derive(Debug)]
pub(in crate::source) struct Session {
    pub(super) connection: Connection,
    pub(super) identity: Identity,
    pub(super) flavour: Flavour,
    pub(super) has_gtids: bool,
    /// Whether names of tables are stored in lower case.
    pub(super) folds_names: bool,
    /// Where the stream begins.
    pub(super) start: Point,
    /// Whether the dump begins at the start of the file, to know the GTIDs before `start`.
    pub(super) warm_up: bool,
    /// How the dump's first event is written.
    pub(super) checksum: Checksum,
    pub(super) frames: Frames,
    /// Where the server stood.
    pub(super) end: Point,
}

/// An answer as text.
pub(super) fn text(result: ResultSet) -> Answer {
    let cell =
        |cell: Option<Vec<u8>>| cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    result
        .rows
        .into_iter()
        .map(|row| row.into_iter().map(cell).collect())
        .collect()
}

pub(super) async fn ask(
    connection: &mut Connection,
    statement: &str,
) -> Result<Answer, ConnectionError> {
    connection.query(statement).await.map(text)
}

/// The server's end, in whichever words it understands.
pub(super) async fn status(connection: &mut Connection) -> Result<Option<Status>, ConnectionError> {
    let [new, old] = server::STATUS;
    let answer = match ask(connection, new).await {
        // A syntax error, or whatever else stands in the way: the older statement's refusal is the one that counts.
        Err(ConnectionError::Refused { .. }) => ask(connection, old).await?,
        other => other?,
    };
    // An answer that cannot be read is as good as none: the log is said to be off.
    Ok(Status::read(answer).unwrap_or_default())
}

/// The server's global variables that we look at.
async fn variables(connection: &mut Connection) -> Result<Variables, ConnectionError> {
    let mut variables = Variables::read(ask(connection, server::VARIABLES).await?);
    if let Some(query) = variables.sets_query() {
        variables.read_sets(ask(connection, &query).await?);
    }
    Ok(variables)
}

/// What `walbrook check` and every start look at. What the log leaves out of `tables` is asked where these are given: once per process.
pub(super) async fn requirements(
    connection: &mut Connection,
    options: &ConnectOptions,
    server_id: u32,
    tables: Option<&Selection>,
) -> Result<(Variables, Option<Status>, Vec<Requirement>), SourceError> {
    let variables = variables(connection).await?;
    let grants = ask(connection, server::GRANTS).await?;
    let (status, refused) = match status(connection).await {
        Ok(status) => (status, None),
        Err(ConnectionError::Refused { error, .. }) => (None, Some(error.message)),
        Err(error) => return Err(error.into()),
    };
    let mut list = checks::requirements(&Facts {
        variables: &variables,
        grants: &grants,
        user: &options.user,
        server_id,
        status: match &refused {
            None => Ok(status.is_some()),
            Some(words) => Err(words),
        },
    });
    if let Some(tables) = tables {
        let known = unlogged::look(connection, &variables, status.as_ref()).await?;
        let more = unlogged::requirements(&variables, status.as_ref(), tables, &known);
        list.extend(more);
    }
    Ok((variables, status, list))
}

impl Session {
    /// Connects and begins the dump.
    ///
    /// # Errors
    /// As [`crate::source::Source::connect`].
    pub(super) async fn open(plan: &Plan) -> Result<Self, SourceError> {
        let mut connection = Connection::connect(&plan.options).await?;
        let tables = plan.check.then_some(&plan.tables);
        let (variables, status, list) =
            requirements(&mut connection, &plan.options, plan.server_id, tables).await?;
        if plan.check {
            checks::refuse(&list)?;
            for requirement in &list {
                if let crate::source::Outcome::Advice(text) = &requirement.outcome {
                    tracing::warn!("{}: {text}", requirement.what);
                }
            }
        }
        let Some(status) = status else {
            checks::refuse(&list)?;
            return Err(SourceError::halt("the server's binary log has no status"));
        };
        let identity = variables.identity().ok_or_else(|| {
            SourceError::halt("the server says neither server_uuid nor server_id")
        })?;
        let identity = known::named(&mut connection, plan, &variables, identity).await?;
        let flavour = variables.flavour();
        let has_gtids = variables.has_gtids();
        let end = end(&mut connection, &variables, status).await?;
        let (start, warm_up) = start(&mut connection, plan, &variables, &identity, &end).await?;
        // MariaDB says what precedes the very position that is its end; a dump goes on from there.
        let at_place = plan.from == From::Now && flavour == Flavour::MariaDb;
        let by_gtids = has_gtids && !warm_up && start.gtids.is_some() && !at_place;
        prepare(
            &mut connection,
            plan,
            flavour,
            start.gtids.as_ref().filter(|_| by_gtids),
        )
        .await?;
        connection.register_replica(plan.server_id).await?;
        let flags = match flavour {
            Flavour::MySql => DUMP_HEARTBEAT_V2,
            // The same bit would ask for ANNOTATE_ROWS: each statement's text, which Debezium does not copy into its records
            // either unless told to.
            Flavour::MariaDb => 0,
        };
        match &start.gtids {
            Some(GtidSet::MySql(set)) if by_gtids => {
                connection
                    .binlog_dump_gtid(set, plan.server_id, flags)
                    .await?;
            }
            _ => {
                let mut from = start.place.to_position();
                if warm_up || (by_gtids && u32::try_from(from.offset).is_err()) {
                    from.offset = 4;
                }
                connection.binlog_dump(&from, plan.server_id, flags).await?;
            }
        }
        if plan.io == Io::Uring {
            connection.receive_by_ring(RING_READ_MAX)?;
        }
        let checksum = variables.checksum();
        let frames = match connection.is_compressed() {
            true => Frames::unchecked(),
            false => Frames::starting_at(1),
        };
        Ok(Self {
            connection,
            identity,
            flavour,
            has_gtids,
            folds_names: variables.folds_names(),
            start,
            warm_up,
            checksum,
            frames,
            end,
        })
    }
}

/// The server's end with its GTIDs.
async fn end(
    connection: &mut Connection,
    variables: &Variables,
    status: Status,
) -> Result<Point, SourceError> {
    let gtids = match variables.flavour() {
        _ if !variables.has_gtids() => None,
        Flavour::MySql => {
            let executed = status.executed.as_deref().unwrap_or_default();
            let set = GtidSet::parse(Flavour::MySql, executed);
            Some(set.map_err(|error| {
                SourceError::halt("the server's Executed_Gtid_Set cannot be read").because(error)
            })?)
        }
        // Asked for this very position: @@gtid_binlog_pos may be further already.
        Flavour::MariaDb => match ask(connection, &server::gtid_position(&status.position)).await {
            Ok(answer) => {
                let text = answer.into_iter().flatten().flatten().next();
                text.and_then(|text| GtidSet::parse(Flavour::MariaDb, &text).ok())
            }
            Err(ConnectionError::Refused { .. }) => variables.gtids("gtid_binlog_pos")?,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(Point {
        place: Place::new(&status.position),
        gtids,
    })
}

/// Where the stream begins, and whether it has to warm up.
async fn start(
    connection: &mut Connection,
    plan: &Plan,
    variables: &Variables,
    identity: &Identity,
    end: &Point,
) -> Result<(Point, bool), SourceError> {
    let flavour = variables.flavour();
    match &plan.from {
        From::Now => {
            if flavour == Flavour::MySql && end.gtids.is_some() {
                // The server copies the set before it looks where its log ends. What was written in between, or waits there for its
                // commit, is before the place and not in the set: a later dump by the set would bring it, out of order. So this one
                // goes by the set too, and nothing that the set lacks may stand before its place.
                let mut start = end.clone();
                start.place.offset = 4;
                return Ok((start, false));
            }
            Ok((end.clone(), u32::try_from(end.place.offset).is_err()))
        }
        From::Earliest => {
            let place = first_file(connection, end).await?;
            Ok((Point { place, gtids: None }, false))
        }
        From::Point(point) => {
            let same = plan.server.as_ref().is_none_or(|server| server == identity);
            if let Some(set) = point.gtids.as_ref().filter(|_| variables.has_gtids()) {
                if set.flavour() != flavour && !set.is_empty() {
                    return Err(SourceError::resync(format!(
                        "the position has GTIDs {set}, which are not of this server's kind"
                    )));
                }
                // The text of an empty set does not tell whose it is.
                let set = match set.is_empty() {
                    true => GtidSet::empty(flavour),
                    false => set.clone(),
                };
                covered(&set, variables, end.gtids.as_ref())?;
                if !same {
                    tracing::info!(server = %identity, "going on by GTIDs on another server");
                }
                // Another server's place means nothing here; it could pass for one behind this server's end.
                let place = match same && !point.place.file.is_empty() {
                    true => point.place.clone(),
                    false => first_file(connection, end).await?,
                };
                let gtids = Some(set);
                return Ok((Point { place, gtids }, false));
            }
            if point.place.file.is_empty() {
                return Err(SourceError::halt(
                    "the position has GTIDs alone, but the server's gtid_mode is not ON; name a file and an offset",
                ));
            }
            let position = point.place.to_position();
            if !same {
                let was = plan
                    .server
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                return Err(SourceError::resync(format!(
                    "the server is {identity}, but the position {position} belongs to {was}, and without GTIDs a file and an \
                     offset mean nothing on another server; turn gtid_mode ON, or set a position of this one by \
                     `walbrook position set` after a new snapshot"
                )));
            }
            present(connection, &position).await?;
            let far = u32::try_from(position.offset).is_err();
            let warm_up = position.offset > 4 && (variables.has_gtids() || far);
            Ok((point.clone(), warm_up))
        }
    }
}

/// The oldest binlog file.
async fn first_file(connection: &mut Connection, end: &Point) -> Result<Place, SourceError> {
    let files = server::files(ask(connection, server::FILES).await?);
    Ok(match files.into_iter().next() {
        Some((file, _)) => Place {
            file: file.into(),
            offset: 4,
        },
        None => Place {
            file: end.place.file.clone(),
            offset: 4,
        },
    })
}

/// Refuses a place that the server does not have, naming what it has.
async fn present(
    connection: &mut Connection,
    position: &BinlogPosition,
) -> Result<(), SourceError> {
    let files = server::files(ask(connection, server::FILES).await?);
    let (Some((first, _)), Some((last, _))) = (files.first(), files.last()) else {
        return Ok(());
    };
    match files.iter().find(|(file, _)| **file == *position.file) {
        None => Err(SourceError::resync(format!(
            "binlog file {} of position {position} is gone (purged, or the logs were reset): the server has {first} to {last}; \
             take a new snapshot of the captured tables, then start again with `walbrook position reset` and start = \
             \"now\" or \"earliest\"",
            position.file
        ))),
        Some((_, size)) if *size < position.offset => Err(SourceError::resync(format!(
            "position {position} lies behind the end of its file ({size} bytes): the logs were reset or are another server's; \
             take a new snapshot of the captured tables, then start again with `walbrook position reset`"
        ))),
        Some(_) => Ok(()),
    }
}

/// Refuses a set of GTIDs that the server cannot go on from, naming those that are missing on either side. `end` is what was executed
/// a little later.
fn covered(set: &GtidSet, variables: &Variables, end: Option<&GtidSet>) -> Result<(), SourceError> {
    match set {
        GtidSet::MySql(set) => {
            if let Some(GtidSet::MySql(purged)) = variables.gtids("gtid_purged")? {
                let missing = without(&purged, set);
                if !missing.is_empty() {
                    return Err(SourceError::resync(unlogged::purged(variables, &missing)));
                }
            }
            if let Some(mut all) = variables.gtids("gtid_executed")? {
                // What was purged was executed; recordings do not always say so.
                if let Some(purged) = variables.gtids("gtid_purged")? {
                    all.merge(&purged);
                }
                // A commit may have been sent to us and still wait for another replica (`rpl_semi_sync_source_wait_point=AFTER_SYNC`):
                // until that answers it is owned by its session. Between the two questions it may go from one to the other.
                if let Some(owned) = variables.text("gtid_owned") {
                    all.merge(&GtidSet::MySql(server::owned(owned)));
                }
                if let Some(end) = end {
                    all.merge(end);
                }
                let GtidSet::MySql(known) = all else {
                    return Ok(());
                };
                let unknown = without(set, &known);
                if !unknown.is_empty() {
                    return Err(SourceError::resync(format!(
                        "the server never had transactions {unknown} that were captured: it was reset, restored from a backup, \
                         or is a replica that was behind; compare the captured tables with their topics or take a new \
                         snapshot, then start again with `walbrook position reset`"
                    )));
                }
            }
        }
        GtidSet::MariaDb(set) => {
            if let Some(GtidSet::MariaDb(now)) = variables.gtids("gtid_binlog_pos")? {
                let unknown = set.domains().iter().find(|gtid| !now.contains(**gtid));
                if let Some(gtid) = unknown {
                    let unlogged = unlogged::aside(variables);
                    return Err(SourceError::resync(format!(
                        "the server never had transaction {gtid} that was captured (its log has {now}): it was reset, restored \
                         from a backup, or is a replica that was behind{unlogged}; compare the captured tables with their topics or take \
                         a new snapshot, then start again with `walbrook position reset`"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// What is in `a` and not in `b`.
fn without(a: &IntervalSet, b: &IntervalSet) -> IntervalSet {
    let mut left = IntervalSet::default();
    for (source, range) in a.intervals() {
        let mut first = *range.start();
        for (_, taken) in b.intervals().filter(|(other, _)| *other == source) {
            if *taken.end() < first || *taken.start() > *range.end() {
                continue;
            }
            if *taken.start() > first {
                left.add_range(&source, first, taken.start() - 1);
            }
            first = taken.end().saturating_add(1);
        }
        if first <= *range.end() {
            left.add_range(&source, first, *range.end());
        }
    }
    left
}

/// Tells the server what a replica understands. Unknown user variables are no error, so both families' old and new names are set.
async fn prepare(
    connection: &mut Connection,
    plan: &Plan,
    flavour: Flavour,
    after: Option<&GtidSet>,
) -> Result<(), SourceError> {
    let period = HEARTBEAT.as_nanos();
    // The server drops an older connection that gives the same uuid: a dead one of ours, after a reconnect.
    let uuid = format!("77616c62-726f-4f6b-8000-{:012x}", plan.server_id);
    let mut assignments = format!(
        "@master_heartbeat_period = {period}, @source_heartbeat_period = {period}, @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"
    );
    if flavour == Flavour::MariaDb
        && let Some(set) = after
    {
        // Strict, or a server that lost the transaction and has later ones of the same number line would pass over all that another
        // one wrote in between, and say nothing.
        assignments += &format!(
            ", @slave_connect_state = '{set}', @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
        );
    }
    understand(connection, flavour, &assignments).await?;
    Ok(())
}

/// Tells the server that we read its events as they are (with checksums, and on MariaDB with its own kinds), and assigns what else is
/// to be set, in one round trip.
pub(super) async fn understand(
    connection: &mut Connection,
    flavour: Flavour,
    others: &str,
) -> Result<(), ConnectionError> {
    const CHECKSUMS: &str = "@master_binlog_checksum = @@global.binlog_checksum, \
         @source_binlog_checksum = @@global.binlog_checksum";
    let mut assignments = vec![CHECKSUMS];
    if flavour == Flavour::MariaDb {
        assignments.push("@mariadb_slave_capability = 4");
    }
    if !others.is_empty() {
        assignments.push(others);
    }
    match set(connection, &assignments).await {
        // Servers before 5.6.1 have no checksums.
        Err(ConnectionError::Refused { error, .. }) if error.code == 1193 => {
            assignments.remove(0);
            match assignments.is_empty() {
                true => Ok(()),
                false => set(connection, &assignments).await,
            }
        }
        other => other,
    }
}

async fn set(connection: &mut Connection, assignments: &[&str]) -> Result<(), ConnectionError> {
    let statement = format!("SET {}", assignments.join(", "));
    connection.query(&statement).await.map(|_| ())
}

/// What the server's refusal to go on with a dump means.
pub(super) fn refused(
    error: &ServerError,
    server_id: u32,
    position: &BinlogPosition,
) -> SourceError {
    let words = &error.message;
    let said = |part: &str| words.to_ascii_lowercase().contains(part);
    if said("same server_uuid/server_id") || said("same server_id") {
        return SourceError::halt(format!(
            "another replica has connected with our server_id {server_id}, so the server dropped us; give each its own \
             server_id (source.NAME.server_id), and look for a second engine with this configuration. The server said: {words}"
        ));
    }
    if said("purged") || said("could not find first log") || said("could not find next log") {
        return SourceError::resync(format!(
            "the server no longer has what follows {position}: take a new snapshot of the captured tables, then start again \
             with `walbrook position reset`. The server said: {words}"
        ));
    }
    // ER_GTID_START_FROM_BINLOG_HOLE, which MariaDB sends under the number of all refusals of a dump.
    if error.code == 1951 || said("binlog on the master is missing the gtid") {
        return SourceError::resync(format!(
            "the server has not the last transaction that was captured, but earlier and later ones of the same origin: another server \
             took over without it, and what that one wrote would be passed over; compare the captured tables with their topics or \
             take a new snapshot, then start again with `walbrook position reset`. On a replica that filters transactions out, \
             set the last one that it has by `walbrook position set`. The server said: {words}"
        ));
    }
    if error.code == 1236 {
        return SourceError::resync(format!(
            "the server cannot go on from {position}: its logs were reset or damaged, or the position is not between two \
             transactions; set another one by `walbrook position set`. The server said: {words}"
        ));
    }
    let text = format!("the server ended the stream after {position}: {error}");
    match server_verdict(error.code) {
        Verdict::Retry => SourceError::retry(text),
        Verdict::Resync => SourceError::resync(text),
        Verdict::Halt => SourceError::halt(text),
    }
}

#[cfg(test)]
mod tests;
