//! Whether a position is of a server's history: its timelines, and where each of them ended.
//!
//! ```text
//! timeline 1 ───────●──────── what the old primary wrote after the other's promotion: of its history alone
//!                   └──────── timeline 2, begun by the standby that was promoted at ●
//! ```
//! A stream does not say which timeline it is of, and goes on through the promotion of the standby that it comes from: then what was read
//! under the name of timeline 1 is of timeline 2.

use protocol::postgres::{Lsn, catalog, command};

use super::{Connection, From, Plan, Slot};
use crate::position::Position;
use crate::source::{Identity, SourceError};

/// Asks the server who it is.
pub(super) async fn identify(connection: &mut Connection) -> Result<Identity, SourceError> {
    let answer = connection.query(command::IDENTIFY_SYSTEM).await?;
    let read = answer.first().and_then(|row| {
        Some(Identity::Postgres {
            system: row.number("systemid")?,
            timeline: row.number("timeline")?,
        })
    });
    read.ok_or_else(|| SourceError::halt("the server's answer to IDENTIFY_SYSTEM cannot be read"))
}

/// When the server was started; `None` where it does not say.
pub(super) async fn started(connection: &mut Connection) -> Result<Option<String>, SourceError> {
    let answer = connection.query(catalog::STARTED).await?;
    let row = answer.first();
    Ok(row.and_then(|row| row.text("started").map(str::to_owned)))
}

/// The timelines that this one went on from, each with the place up to which what was read under its name is of this history; refuses a
/// position that is not. `slot` is ours on this server.
pub(super) async fn ancestors(
    connection: &mut Connection,
    plan: &Plan,
    identity: &Identity,
    slot: Option<&Slot>,
) -> Result<Vec<(Identity, Position)>, SourceError> {
    let Identity::Postgres { system, timeline } = identity else {
        return Ok(Vec::new());
    };
    let mut history = match timeline {
        0 | 1 => Vec::new(),
        _ => {
            let answer = connection
                .query(&command::timeline_history(*timeline))
                .await?;
            let content = answer.first().and_then(|row| row.text("content"));
            history(content.unwrap_or_default())
        }
    };
    if let (Some(server), From::Point(point)) = (&plan.server, &plan.from) {
        let is_same_run = match &plan.standby {
            Some(before) => started(connection).await?.as_ref() == Some(before),
            None => false,
        };
        let was_read_here = is_same_run || has_sent(slot, &history);
        belongs(*point, server, identity, &mut history, was_read_here)?;
    }
    let ancestor = |(timeline, until)| {
        let system = *system;
        (
            Identity::Postgres { system, timeline },
            Position::Postgres { lsn: until },
        )
    };
    Ok(history.into_iter().map(ancestor).collect())
}

/// Whether this server has sent us what it wrote since its last promotion. Only a reader moves a slot: one that the server has from its
/// primary (`failover`) may have been moved there, up to the promotion, and one that it had of its own before was read from a standby.
fn has_sent(slot: Option<&Slot>, history: &[(u32, Lsn)]) -> bool {
    let own = slot.filter(|slot| !slot.failover && !slot.synced);
    match (own.and_then(|slot| slot.confirmed), history.last()) {
        (Some(confirmed), Some((_, promoted))) => confirmed > *promoted,
        _ => false,
    }
}

/// Timelines and the places where they ended, from a history file: `1\t0/3000000\tno recovery target specified`.
fn history(content: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    content.lines().filter_map(line).collect()
}

/// Whether `point` of `server` is a place of this server's history. Where the server `was_read_here`, under the name that it had as a
/// standby, all that was read under that name is.
fn belongs(
    point: Lsn,
    server: &Identity,
    identity: &Identity,
    history: &mut [(u32, Lsn)],
    was_read_here: bool,
) -> Result<(), SourceError> {
    if server == identity {
        return Ok(());
    }
    let afresh = "take a new snapshot of the captured tables, then start again with `walbrook position reset`";
    match (server, identity) {
        (Identity::Postgres { system, timeline }, Identity::Postgres { system: here, .. })
            if system == here =>
        {
            let last = history.last().map(|(timeline, _)| *timeline);
            match history
                .iter_mut()
                .find(|(ancestor, _)| ancestor == timeline)
            {
                Some((_, until)) if point <= *until => {
                    tracing::info!(server = %identity, was = %server, "going on after a promotion");
                    Ok(())
                }
                Some((_, until)) if was_read_here && last == Some(*timeline) => {
                    tracing::info!(
                        server = %identity, was = %server, promoted = %until,
                        "going on after a promotion that the stream went through"
                    );
                    *until = Lsn(u64::MAX);
                    Ok(())
                }
                Some((_, until)) => Err(SourceError::resync(format!(
                    "the server was promoted at {until}, but changes up to {point} of {server} have been written. Unless they were read \
                     from this server, promoted while it was read from (then go on with `walbrook position set` at {point}), those in \
                     between never reached it: undo them downstream, then go on with `walbrook position set` at {until}, or {afresh}"
                ))),
                None => Err(SourceError::resync(format!(
                    "the position {point} belongs to {server}, which is not in the history of {identity}; {afresh}"
                ))),
            }
        }
        _ => Err(SourceError::resync(format!(
            "the server is {identity}, but the position {point} belongs to {server}, and means nothing here; {afresh}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Verdict;

    fn server(timeline: u32) -> Identity {
        Identity::Postgres {
            system: 7_301,
            timeline,
        }
    }

    fn two() -> Vec<(u32, Lsn)> {
        history("1\t0/3000000\tno recovery target specified\n\n2\t0/4000000\tbefore\n")
    }

    #[test]
    fn a_position_goes_on_only_in_its_own_history() {
        assert_eq!(two(), [(1, Lsn(0x300_0000)), (2, Lsn(0x400_0000))]);
        let says = |point, from: &Identity| {
            let mut history = two();
            match belongs(Lsn(point), from, &server(3), &mut history, false) {
                Ok(()) => String::new(),
                Err(error) => {
                    assert_eq!(error.verdict(), Verdict::Resync);
                    error.to_string()
                }
            }
        };
        assert_eq!(says(u64::MAX, &server(3)), "");
        assert_eq!(says(0x300_0000, &server(1)), "");
        let beyond = says(0x300_0001, &server(1));
        for words in [
            "was promoted at 0/3000000",
            // Nobody knows whether it was this server: then nothing is to be undone.
            "Unless they were read from this server",
            "`walbrook position set` at 0/3000001",
        ] {
            assert!(beyond.contains(words), "{beyond}");
        }
        assert!(says(1, &server(9)).contains("not in the history"));
        let other = Identity::Postgres {
            system: 1,
            timeline: 3,
        };
        assert!(says(1, &other).contains("means nothing here"));
    }

    /// What was read from it after its promotion goes by the standby's name, and is known again in the topics.
    #[test]
    fn a_stream_goes_on_through_the_promotion_of_its_standby() {
        let mut history = two();
        let behind = Lsn(0x400_0001);
        belongs(behind, &server(2), &server(3), &mut history, true).unwrap();
        assert_eq!(history, [(1, Lsn(0x300_0000)), (2, Lsn(u64::MAX))]);
        // A server that was promoted before the last time was another one.
        let mut history = two();
        belongs(behind, &server(1), &server(3), &mut history, true).unwrap_err();
        belongs(behind, &server(2), &server(3), &mut history, false).unwrap_err();
        assert_eq!(history, two());
    }

    #[test]
    fn a_slot_that_was_moved_since_the_promotion_was_read_here() {
        let slot = |confirmed| Slot {
            name: "walbrook_shop".into(),
            plugin: Some("pgoutput".into()),
            database: Some("d".into()),
            active_pid: None,
            active: false,
            confirmed: Some(Lsn(confirmed)),
            wal_status: Some("reserved".into()),
            invalidation: None,
            failover: false,
            synced: false,
        };
        assert!(has_sent(Some(&slot(0x400_0001)), &two()));
        assert!(!has_sent(Some(&slot(0x400_0000)), &two()));
        assert!(!has_sent(Some(&slot(0x400_0001)), &[]));
        assert!(!has_sent(None, &two()));
        let of_the_primary = Slot {
            failover: true,
            ..slot(0x400_0001)
        };
        assert!(!has_sent(Some(&of_the_primary), &two()));
    }
}
