//! From an address to a running stream: what is asked and made before, and what the server's refusals mean.
//!
//! ```text
//! connect ─ settings, role, slots, publications, tables ─► may we? ─ publication ─ slot ─ from where? ─ START_REPLICATION
//! ```

use std::time::Duration;

use protocol::postgres::{Lsn, catalog, command};

use self::beginning::Beginning;
use self::surroundings::Surroundings;
use super::checks;
use super::connection::{ConnectOptions, Connection, Purpose, Streaming};
use super::feedback;
use super::publication;
use super::refusals::{refused_at_start, waits_for_promotion};
use super::server::{Answer, Slot, Status};
use super::watch::Named;
use crate::config::{Keys, Plugin, Selection, SlotSettings};
use crate::position::Position;
use crate::source::{Identity, Outcome, Requirement, SourceError, key_columns};

mod beginning;
mod surroundings;
mod timeline;

pub(super) use self::surroundings::{published_by, with_roots};

/// A process that was killed keeps its slot for as long as the server takes to notice: this long where its kernel is still there to say
/// so, `wal_sender_timeout` where the machine is gone.
const SLOT_BUSY_MAX: Duration = Duration::from_secs(10);
const SLOT_BUSY_PAUSE: Duration = Duration::from_millis(250);
/// How often it is said that making the slot takes its time.
const CREATE_SAID_EVERY: Duration = Duration::from_secs(10);

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// At the server's end.
    Now,
    /// Where the slot has come to.
    Earliest,
    /// After this place.
    Point(Lsn),
}

/// How to open a session.
#[derive(Debug, Clone)]
pub(in crate::source) struct Plan {
    pub(super) options: ConnectOptions,
    pub(super) slot: SlotSettings,
    pub(super) selection: Selection,
    /// Keys that the configuration names in place of tables' own.
    pub(super) keys: Keys,
    /// Whether a TRUNCATE becomes a change.
    pub(super) truncates: bool,
    pub(super) from: From,
    /// The server that `from` belongs to.
    pub(super) server: Option<Identity>,
    /// Where that was a standby, when it was started ([`catalog::STARTED`]): it may have been promoted since.
    pub(super) standby: Option<String>,
    /// Whether this is the process's first session: everything is checked, and what is missing is made.
    pub(super) first: bool,
}

/// A server whose stream has begun.
#[derive(Debug)]
pub(in crate::source) struct Session {
    pub(super) streaming: Streaming,
    pub(super) identity: Identity,
    pub(super) ancestors: Vec<(Identity, Position)>,
    pub(super) start: Lsn,
    /// Where the server stood.
    pub(super) end: Lsn,
    /// Whether the publication was made by this session.
    pub(super) made_publication: bool,
    /// Where the server is a standby, when it was started ([`catalog::STARTED`]).
    pub(super) standby: Option<String>,
    /// What has been said of tables without a replica identity.
    pub(super) named: Named,
    /// How often the server has to hear from us.
    pub(super) feedback: Duration,
}

/// What `walbrook check` looks at.
pub(super) async fn check(plan: &Plan) -> Result<Vec<Requirement>, SourceError> {
    let mut connection = Connection::connect(&plan.options, Purpose::Queries).await?;
    let surroundings = Surroundings::ask(&mut connection, plan).await?;
    let mut list = surroundings.requirements(plan);
    for (schema, table, key) in plan.keys.iter() {
        let columns = connection
            .query(&catalog::columns_of(schema, table))
            .await?;
        let indices = connection
            .query(&catalog::keys_of_table(schema, table))
            .await?;
        let names = |answer: &Answer, flag: Option<&str>| -> Vec<String> {
            (answer.rows())
                .filter(|row| flag.is_none_or(|flag| row.is(flag) && row.is("indimmediate")))
                .filter_map(|row| Some(row.text("attname")?.to_owned()))
                .collect()
        };
        let columns = names(&columns, None);
        list.push(key_columns(schema, table, key, &columns));
        let identity = (surroundings.tables.iter())
            .find(|of| of.schema == schema && of.name == table)
            .map(|of| of.identity);
        let shown = match identity {
            Some('d') => names(&indices, Some("indisprimary")),
            Some('i') => names(&indices, Some("indisreplident")),
            Some('n') => Vec::new(),
            _ => columns,
        };
        list.extend(checks::key_identity(schema, table, key, &shown));
    }
    connection.close().await;
    Ok(list)
}

impl Session {
    /// Connects and begins the stream.
    ///
    /// # Errors
    /// As [`crate::source::Source::connect`].
    pub(super) async fn open(plan: &Plan) -> Result<Self, SourceError> {
        let mut beginning = Beginning::new(plan).await?;
        beginning.publish(plan).await?;
        beginning.stream(plan).await
    }

    /// As [`Session::open`], of a stream that leaves nothing behind, until `stop` ends (`None`): what was made is taken away again.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub(super) async fn open_until(
        plan: &Plan,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Self>, SourceError> {
        let mut stop = std::pin::pin!(stop);
        let mut beginning = tokio::select! {
            beginning = Beginning::new(plan) => beginning?,
            () = stop.as_mut() => return Ok(None),
        };
        let makes = beginning.makes_publication(plan);
        // Not interrupted: the server would make it all the same, perhaps after it was to be taken away. Behind it the slot may wait for
        // hours.
        let opened = match beginning.publish(plan).await {
            Ok(()) => tokio::select! {
                session = beginning.stream(plan) => session.map(Some),
                () = stop => Ok(None),
            },
            Err(error) => Err(error),
        };
        if makes && !matches!(opened, Ok(Some(_))) {
            tidy(plan).await;
        }
        opened
    }
}

/// The surroundings once nobody reads from our slot any more: a predecessor that was killed is noticed by the server within moments.
async fn undisturbed(
    connection: &mut Connection,
    plan: &Plan,
) -> Result<Surroundings, SourceError> {
    let mut waited = Duration::ZERO;
    loop {
        let surroundings = Surroundings::ask(connection, plan).await?;
        let slot = surroundings.slot.as_ref();
        let busy = slot.is_some_and(|slot| slot.active);
        let most = match plan.first {
            true => busy_max(surroundings.settings.number("wal_sender_timeout")),
            // Then it is tried again in any case.
            false => SLOT_BUSY_MAX,
        };
        if !busy || waited >= most {
            // Left half made by a predecessor: when it is done, the server finds that out and lets go.
            if let Some(slot) = slot.filter(|slot| slot.is_being_made()) {
                let text = checks::being_made(slot);
                return Err(SourceError::retry(format!("slot {}: {text}", slot.name)));
            }
            return match busy && !plan.first {
                // On the way back, whoever it is may leave again.
                true => Err(SourceError::retry(format!(
                    "slot {} is still being read from",
                    plan.slot.name
                ))),
                false => Ok(surroundings),
            };
        }
        if waited == SLOT_BUSY_MAX {
            tracing::warn!(
                "slot {} is still being read from: waiting for {} s more, since a server takes wal_sender_timeout to notice that the \
                 machine of a reader is gone",
                plan.slot.name,
                (most - waited).as_secs()
            );
        }
        tokio::time::sleep(SLOT_BUSY_PAUSE).await;
        waited += SLOT_BUSY_PAUSE;
    }
}

/// How long a reader that is gone may keep its slot with a server that waits for `wal_sender_timeout` milliseconds (0, for ever, is not
/// waited for).
fn busy_max(wal_sender_timeout: Option<i64>) -> Duration {
    let timeout = wal_sender_timeout.and_then(|timeout| u64::try_from(timeout).ok());
    SLOT_BUSY_MAX.max(Duration::from_millis(timeout.unwrap_or(0)))
}

/// Takes away what was made for a while: the publication of a temporary slot.
pub(super) async fn tidy(plan: &Plan) {
    let name = super::server::quoted(&plan.slot.publication);
    let statement = format!("DROP PUBLICATION IF EXISTS {name}");
    let dropped = async {
        let mut connection = Connection::connect(&plan.options, Purpose::Queries).await?;
        connection.query(&statement).await?;
        connection.close().await;
        Ok::<_, SourceError>(())
    };
    if let Err(error) = dropped.await {
        tracing::warn!("publication {name} may remain: run {statement}: {error}");
    }
}

/// Makes the publication, or adds what it lacks, where we may, and where no statement of an application fails for it.
async fn publish(
    connection: &mut Connection,
    plan: &Plan,
    found: &Surroundings,
) -> Result<(), SourceError> {
    let name = &plan.slot.publication;
    if found.status.recovery {
        // Nothing is altered on a standby: the statement has been printed.
        return Ok(());
    }
    let missing = found.facts(plan).lacking().harmless;
    let statement = match &found.publication {
        None => {
            let all = publication::may_be_of_all(&found.role, &found.tables, &plan.selection);
            publication::create(name, &missing, all, found.settings.major())
        }
        Some(publication) if publication.all_tables || !publication.owned => return Ok(()),
        Some(_) => {
            if missing.is_empty() || !missing.iter().all(|table| table.owned) {
                return Ok(());
            }
            publication::add(name, &missing)
        }
    };
    match found.publication.is_some() {
        true => publication::warn_of_adding(&statement),
        false => tracing::info!("{statement}"),
    }
    connection.query(&statement).await?;
    Ok(())
}

/// Where the stream begins; makes the slot where that is the beginning.
async fn start(
    connection: &mut Connection,
    plan: &Plan,
    found: &Surroundings,
) -> Result<Lsn, SourceError> {
    let name = &plan.slot.name;
    let end = found.status.flushed;
    if waits_for_promotion(plan, found.status.recovery, found.slot.as_ref()) {
        return Err(SourceError::retry(format!(
            "the server is a standby, and slot {name} cannot be read from there before it is promoted"
        )));
    }
    let Some(slot) = &found.slot else {
        return match plan.from {
            From::Now => create(connection, plan, found).await,
            From::Earliest if plan.slot.temporary => Err(SourceError::halt(
                "a temporary slot begins now: what was written before cannot be had of it",
            )),
            From::Earliest => Err(SourceError::halt(format!(
                "start = \"earliest\" begins where slot {name} has come to, and there is no such slot: log from before its creation \
                 cannot be had; use start = \"now\", which creates it"
            ))),
            From::Point(_) if plan.slot.temporary => Err(SourceError::halt(
                "a temporary slot begins now: what was written before cannot be had of it",
            )),
            From::Point(point) => Err(SourceError::resync(format!(
                "slot {name} is gone, and with it the log between {point} and now; take a new snapshot of the captured tables, then start \
                 again with `walbrook position reset`"
            ))),
        };
    };
    checks::usable(
        slot,
        &plan.slot,
        &found.status.database,
        found.status.recovery,
    )
    .map_err(|text| {
        match slot.invalidation.is_some() || slot.wal_status.as_deref() == Some("lost") {
            true => SourceError::resync(format!("slot {name}: {text}")),
            false => SourceError::halt(format!("slot {name}: {text}")),
        }
    })?;
    let confirmed = slot.confirmed.unwrap_or(Lsn::INVALID);
    match plan.from {
        From::Now => {
            if let Some(text) = passed_over(name, slot.confirmed, end) {
                tracing::warn!("{text}");
            }
            Ok(end.max(confirmed))
        }
        From::Earliest => Ok(confirmed),
        From::Point(point) if point < confirmed => Err(SourceError::resync(format!(
            "slot {name} is at {confirmed}, beyond the position {point}: it was made anew, or somebody else has read from it, and the \
             changes in between are gone; take a new snapshot of the captured tables, then start again with `walbrook position reset`"
        ))),
        From::Point(point) if point > end && !found.status.recovery => {
            Err(SourceError::resync(format!(
                "the position {point} lies behind the end of the server's log, {end}: the server was restored from a backup, or is another \
             one; take a new snapshot of the captured tables, then start again with `walbrook position reset`"
            )))
        }
        From::Point(point) => Ok(point),
    }
}

/// What is lost by beginning at `end` with a slot that was there before and stands at `confirmed`.
fn passed_over(name: &str, confirmed: Option<Lsn>, end: Lsn) -> Option<String> {
    let confirmed = confirmed.filter(|confirmed| *confirmed < end)?;
    Some(format!(
        "start = \"now\" begins at {end}, but slot {name} was there before and stands at {confirmed}: {} bytes of log are passed over, and \
         captured changes in them are not written and cannot be had any more; start = \"earliest\" begins where a slot stands",
        end.0 - confirmed.0
    ))
}

/// Makes the slot; where its log begins.
async fn create(
    connection: &mut Connection,
    plan: &Plan,
    found: &Surroundings,
) -> Result<Lsn, SourceError> {
    let slot = command::CreateSlot {
        name: &plan.slot.name,
        plugin: plan.slot.plugin.as_str(),
        temporary: plan.slot.temporary,
        failover: !plan.slot.temporary && !found.status.recovery,
    };
    let statement = slot.text(found.settings.major());
    tracing::info!("{statement}");
    // The server waits for every transaction that writes: hours, where one is left open.
    let what_for = waited_for(found.status.recovery);
    let waiting = || {
        tracing::warn!("slot {} is being made: {what_for}", plan.slot.name);
    };
    let answer = connection.query_patiently(&statement, CREATE_SAID_EVERY, waiting);
    let answer = answer.await?;
    let point = answer.first().and_then(|row| row.lsn("consistent_point"));
    point.ok_or_else(|| {
        SourceError::halt("the server's answer to CREATE_REPLICATION_SLOT cannot be read")
    })
}

/// What the server waits for that makes a slot.
fn waited_for(recovery: bool) -> &'static str {
    match recovery {
        false => {
            "the server is waiting for transactions that were open before: see pg_stat_activity"
        }
        // An idle primary writes it when something changes, and no sooner.
        true => {
            "the server is a standby, and waits for its primary to log which transactions are open: run SELECT pg_log_standby_snapshot() \
             there; transactions that were open before have to end"
        }
    }
}

/// Begins the stream. Options that only later versions of a plugin know are left out where it does not.
async fn stream(
    connection: Connection,
    plan: &Plan,
    start: Lsn,
    recovery: bool,
) -> Result<Streaming, SourceError> {
    let mut options = options(plan);
    let mut connection = connection;
    loop {
        let statement = command::start_replication(&plan.slot.name, start, &options);
        match connection.start_replication(&statement).await? {
            Ok(streaming) => return Ok(streaming),
            Err((back, error)) => {
                let named = |(name, _): &(&str, String)| {
                    OPTIONAL.contains(name) && error.message.contains(*name)
                };
                let Some(at) = options.iter().position(named) else {
                    return Err(refused_at_start(&error, plan, start, recovery));
                };
                options.remove(at);
                connection = back;
            }
        }
    }
}

/// Options that not every version of wal2json knows.
const OPTIONAL: [&str; 1] = ["numeric-data-types-as-string"];

fn options(plan: &Plan) -> Vec<(&'static str, String)> {
    match plan.slot.plugin {
        Plugin::PgOutput => {
            let version = if plan.slot.streaming { "2" } else { "1" };
            let mut options = vec![
                ("proto_version", version.to_owned()),
                // A list of identifiers, read as SQL reads them.
                ("publication_names", command::quoted(&plan.slot.publication)),
            ];
            if plan.slot.streaming {
                options.push(("streaming", "on".to_owned()));
            }
            options
        }
        Plugin::Wal2Json => [
            ("format-version", "2"),
            ("include-transaction", "true"),
            ("include-xids", "true"),
            ("include-timestamp", "true"),
            ("include-lsn", "true"),
            ("include-types", "true"),
            ("include-typmod", "true"),
            ("include-pk", "true"),
            ("numeric-data-types-as-string", "true"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_on_a_standby_waits_for_the_primary() {
        assert!(waited_for(true).contains("run SELECT pg_log_standby_snapshot()"));
        assert!(!waited_for(false).contains("standby"));
    }

    #[test]
    fn a_reader_that_is_gone_is_waited_for_as_long_as_the_server_does() {
        let seconds = |timeout| busy_max(timeout).as_secs();
        assert_eq!(seconds(Some(60_000)), 60);
        for short in [None, Some(0), Some(-1), Some(3_000)] {
            assert_eq!(seconds(short), 10, "{short:?}");
        }
    }

    #[test]
    fn log_that_is_passed_over_is_counted() {
        let text = passed_over("shop", Some(Lsn(0x100_0000)), Lsn(0x100_0400)).unwrap();
        for words in [
            "begins at 0/1000400",
            "stands at 0/1000000",
            ": 1024 bytes of log",
            "start = \"earliest\"",
        ] {
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(passed_over("shop", Some(Lsn(7)), Lsn(7)), None);
        assert_eq!(passed_over("shop", Some(Lsn(8)), Lsn(7)), None);
        assert_eq!(passed_over("shop", None, Lsn(7)), None);
    }
}
