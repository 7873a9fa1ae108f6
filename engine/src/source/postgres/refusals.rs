//! What it means that a server refuses the stream, ends it, or cannot give it yet.

use protocol::postgres::Lsn;
use protocol::postgres::resultset::ServerError;

use super::connection::server_verdict;
use super::publication;
use super::server::{Slot, quoted};
use super::session::Plan;
use crate::config::{OnUnpublished, Plugin, SlotSettings};
use crate::source::{SourceError, Verdict};

/// Whether this is a standby that was reached before its promotion is over. At the first start it is where we were told to go: then
/// that is an error.
pub(super) fn waits_for_promotion(plan: &Plan, recovery: bool, slot: Option<&Slot>) -> bool {
    !plan.first && recovery && slot.is_none_or(|slot| slot.synced)
}

/// As [`refused`], of START_REPLICATION: a standby that is about to be promoted is tried again.
pub(super) fn refused_at_start(
    error: &ServerError,
    plan: &Plan,
    at: Lsn,
    recovery: bool,
) -> SourceError {
    let refused = refused(error, plan, at);
    // Not in the state for it, not supported there.
    let not_yet = matches!(&*error.code, "55000" | "0A000") && !plan.first && recovery;
    match not_yet && refused.verdict() == Verdict::Halt {
        true => SourceError::retry(format!("{refused}; it is a standby")),
        false => refused,
    }
}

/// What it means that the server refuses the stream, or ends it.
pub(super) fn refused(error: &ServerError, plan: &Plan, at: Lsn) -> SourceError {
    let name = &plan.slot.name;
    let text = format!("the server ends the stream of slot {name} at {at}: {error}");
    if is_gone(error) {
        return SourceError::resync(format!(
            "{text}: the log it needs is gone; take a new snapshot of the captured tables, drop the slot, and start again with `walbrook \
             position reset`"
        ));
    }
    match (server_verdict(&error.code), &*error.code) {
        (_, "42704") if error.message.contains("publication") => {
            SourceError::halt(format!("{text}: {}", publication_gone(plan)))
        }
        (_, "22021" | "22P05") => SourceError::halt(format!(
            "{text}: the database holds text that cannot be sent as UTF-8 (SHOW server_encoding; with SQL_ASCII it takes any bytes), and \
             nothing behind that row can be read before it is passed over; correct the text, take a new snapshot of the captured tables, \
             then start again with `walbrook position reset`"
        )),
        (Verdict::Retry, _) => SourceError::retry(text),
        _ => SourceError::halt(text),
    }
}

/// Whether the server says that it has the log no more that the slot needs: `requested WAL segment … has already been removed`, `can no
/// longer get changes from replication slot …` (to 17) or `can no longer access replication slot …`, with the reason as the detail.
///
/// A process that is ended by a conflict with recovery (40001) may have lost its slot to it: then the slot says so when we come back.
fn is_gone(error: &ServerError) -> bool {
    let says = |words: &str| error.message.contains(words);
    says("has already been removed")
        || error.code != "40001"
            && says("replication slot")
            && (says("can no longer")
                || says("invalidated")
                || error.detail.contains("invalidated"))
}

/// What it means to us that the server warns of something while it streams.
#[derive(Debug)]
pub(super) enum Warned {
    Nothing,
    /// wal2json leaves rows of a captured table out of the stream.
    LeftOut {
        /// Its schema and name.
        table: (String, String),
        text: String,
    },
    /// The stream must not go on.
    Lost(SourceError),
}

/// What it means that the server warns of something while it streams.
pub(super) fn warned(warning: &ServerError, plan: &Plan, at: Lsn) -> Warned {
    match plan.slot.plugin {
        Plugin::PgOutput => match without_publication(warning, plan, at) {
            Some(error) => Warned::Lost(error),
            None => Warned::Nothing,
        },
        Plugin::Wal2Json => left_out(warning, plan, at),
    }
}

/// wal2json warns of each row that it leaves out: `no tuple identifier for UPDATE in table "schema"."table"`, in English alone.
fn left_out(warning: &ServerError, plan: &Plan, at: Lsn) -> Warned {
    let Some((what, schema, name)) = row_left_out(&warning.message) else {
        return Warned::Nothing;
    };
    if !plan.selection.includes(schema, name) {
        return Warned::Nothing;
    }
    let text = format!(
        "wal2json leaves rows out of the stream of slot {} after {at}: {what} of {schema}.{name}, which has no replica identity ({}): run \
         ALTER TABLE {}.{} REPLICA IDENTITY FULL",
        plan.slot.name,
        publication::NO_IDENTITY,
        quoted(schema),
        quoted(name)
    );
    match plan.slot.on_unpublished {
        OnUnpublished::Warn => Warned::LeftOut {
            table: (schema.to_owned(), name.to_owned()),
            text: format!(
                "{text}; what was left out before cannot be had any more: take a new snapshot of the table"
            ),
        },
        OnUnpublished::Halt => Warned::Lost(SourceError::halt(format!(
            "{text}; what was left out before cannot be had any more: take a new snapshot of the table, then go on with on_unpublished = \
             \"warn\" until the stream is behind that place"
        ))),
    }
}

/// Operation, schema and table of a row that wal2json left out.
fn row_left_out(message: &str) -> Option<(&str, &str, &str)> {
    let (what, table) = message
        .strip_prefix("no tuple identifier for ")?
        .split_once(" in table \"")?;
    // Quotes inside of names are as they are: the first that can be between them counts.
    let (schema, name) = table.strip_suffix('"')?.split_once("\".\"")?;
    Some((what, schema, name))
}

/// Whether pgoutput leaves rows out because the publication is not there.
fn without_publication(warning: &ServerError, plan: &Plan, at: Lsn) -> Option<SourceError> {
    let SlotSettings {
        name, publication, ..
    } = &plan.slot;
    // From version 18 on, pgoutput goes on without a publication that is not there and sends nothing (`LoadPublications`); the warning
    // comes before the first row that it leaves out. Its words are in the server's language, but the name is among them. With the same
    // code the server names standbys' slots that it waits for.
    let is_gone = warning.code == "55000" && names(&warning.message, publication);
    is_gone.then(|| {
        SourceError::halt(format!(
            "the server leaves rows out of the stream of slot {name} after {at}: {warning}: {}",
            publication_gone(plan)
        ))
    })
}

/// Whether `name` stands in `text`, and is not a part of a slot's name.
fn names(text: &str, name: &str) -> bool {
    // Slots have no other characters.
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, behind) = (text.get(..at), text.get(at + name.len()..));
        !before.is_some_and(|text| text.ends_with(is_of_name))
            && !behind.is_some_and(|text| text.starts_with(is_of_name))
    })
}

fn publication_gone(plan: &Plan) -> String {
    format!(
        "publication {} is gone, and the server cannot decode what was written while it was (at this place of the log it is not there, \
         whatever there is now); create it where it is not, then drop the slot, take a new snapshot of the captured tables, and start again \
         with `walbrook position reset`; where none of them was written to meanwhile, go on behind that place by `walbrook position set`",
        plan.slot.publication
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Selection;
    use crate::source::postgres::connection::ConnectOptions;
    use crate::source::postgres::session::From;

    fn plan() -> Plan {
        Plan {
            options: ConnectOptions {
                host: "h".into(),
                port: 1,
                user: "u".into(),
                password: crate::config::Secret::default(),
                database: "d".into(),
                tls: crate::config::SourceTls {
                    mode: crate::config::TlsMode::Disable,
                    ca: None,
                },
                timeout: Duration::from_secs(1),
            },
            slot: SlotSettings::of("shop"),
            selection: Selection::everything(),
            keys: crate::config::Keys::default(),
            truncates: false,
            from: From::Now,
            server: None,
            standby: None,
            first: true,
        }
    }

    fn warning(code: &str, message: &str) -> ServerError {
        ServerError {
            severity: "WARNING".into(),
            code: code.into(),
            message: message.into(),
            ..ServerError::default()
        }
    }

    #[test]
    fn a_standby_before_its_promotion_is_tried_again_on_the_way_back() {
        let synced = Slot {
            name: "walbrook_shop".into(),
            plugin: Some("pgoutput".into()),
            database: Some("d".into()),
            active_pid: None,
            active: false,
            confirmed: Some(Lsn(1)),
            wal_status: Some("reserved".into()),
            invalidation: None,
            failover: true,
            synced: true,
        };
        let own = Slot {
            synced: false,
            ..synced.clone()
        };
        let first = plan();
        let back = Plan {
            first: false,
            ..plan()
        };
        assert!(waits_for_promotion(&back, true, None));
        assert!(waits_for_promotion(&back, true, Some(&synced)));
        assert!(!waits_for_promotion(&back, true, Some(&own)));
        assert!(!waits_for_promotion(&back, false, None));
        assert!(!waits_for_promotion(&first, true, None));
        assert!(!waits_for_promotion(&first, true, Some(&synced)));

        let verdict = |plan: &Plan, code: &str, message: &str, recovery| {
            let error = ServerError {
                code: code.into(),
                message: message.into(),
                ..ServerError::default()
            };
            refused_at_start(&error, plan, Lsn(1), recovery).verdict()
        };
        let not_there = "cannot use replication slot \"s\" for logical decoding";
        assert_eq!(verdict(&back, "55000", not_there, true), Verdict::Retry);
        assert_eq!(verdict(&back, "55000", not_there, false), Verdict::Halt);
        assert_eq!(verdict(&first, "55000", not_there, true), Verdict::Halt);
        let not_at_all = "logical decoding cannot be used while in recovery";
        assert_eq!(verdict(&back, "0A000", not_at_all, true), Verdict::Retry);
        assert_eq!(verdict(&back, "42601", "syntax error", true), Verdict::Halt);
        let gone = "can no longer get changes from replication slot \"s\"";
        assert_eq!(verdict(&back, "55000", gone, true), Verdict::Resync);
    }

    /// What the server says of a row of a SQL_ASCII database.
    #[test]
    fn text_that_is_not_utf_8_says_what_to_do() {
        let error = ServerError {
            code: "22021".into(),
            message: "invalid byte sequence for encoding \"UTF8\": 0xe9 0x20".into(),
            ..ServerError::default()
        };
        let refused = refused(&error, &plan(), Lsn(1));
        assert_eq!(refused.verdict(), Verdict::Halt);
        let text = refused.to_string();
        for words in [
            "0xe9 0x20",
            "SHOW server_encoding",
            "`walbrook position reset`",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }

    /// As PostgreSQL 18 says it in two languages.
    #[test]
    fn rows_that_are_left_out_for_want_of_the_publication_stop_the_stream() {
        let pgoutput = plan();
        for message in [
            "skipped loading publication \"walbrook_shop\"",
            "Laden der Publikation »walbrook_shop« wurde übersprungen",
        ] {
            let Warned::Lost(error) = warned(&warning("55000", message), &pgoutput, Lsn(7)) else {
                panic!("read over: {message}");
            };
            assert_eq!(error.verdict(), Verdict::Halt);
            let text = error.to_string();
            for words in ["after 0/7", "publication walbrook_shop is gone", message] {
                assert!(text.contains(words), "{text}");
            }
        }
        // What does not concern us.
        for other in [
            "skipped loading publication \"other\"",
            "replication slot \"walbrook_shop_standby\" specified in parameter \"synchronized_standby_slots\" does not have active_pid",
        ] {
            let warned = warned(&warning("55000", other), &pgoutput, Lsn(7));
            assert!(matches!(warned, Warned::Nothing), "{warned:?}");
        }
        let identity = "no tuple identifier for UPDATE in table \"walbrook_shop\"";
        let mut wal2json = plan();
        wal2json.slot.plugin = Plugin::Wal2Json;
        let same = "skipped loading publication \"walbrook_shop\"";
        for (plan, code, message) in [
            (&pgoutput, "01000", identity),
            (&wal2json, "55000", same),
            (&wal2json, "01000", identity),
        ] {
            let warned = warned(&warning(code, message), plan, Lsn(7));
            assert!(matches!(warned, Warned::Nothing), "{warned:?}");
        }
    }

    #[test]
    fn rows_that_wal2json_leaves_out_are_named_or_stop_the_stream() {
        let mut plan = plan();
        plan.slot.plugin = Plugin::Wal2Json;
        plan.selection = Selection::new(&["public.*"]).unwrap();
        let of = |operation: &str, schema: &str| {
            let table = format!("\"{schema}\".\"Orders\"");
            warning(
                "01000",
                &format!("no tuple identifier for {operation} in table {table}"),
            )
        };
        for operation in ["UPDATE", "DELETE"] {
            let Warned::LeftOut { table, text } = warned(&of(operation, "public"), &plan, Lsn(7))
            else {
                panic!("read over");
            };
            assert_eq!(table, ("public".to_owned(), "Orders".to_owned()));
            for words in [
                operation,
                "after 0/7",
                "ALTER TABLE public.\"Orders\" REPLICA IDENTITY FULL",
            ] {
                assert!(text.contains(words), "{text}");
            }
        }
        let other = warned(&of("UPDATE", "other"), &plan, Lsn(7));
        assert!(matches!(other, Warned::Nothing), "{other:?}");
        plan.slot.on_unpublished = OnUnpublished::Halt;
        let Warned::Lost(error) = warned(&of("DELETE", "public"), &plan, Lsn(7)) else {
            panic!("read over");
        };
        assert_eq!(error.verdict(), Verdict::Halt);
        assert!(error.to_string().contains("DELETE of public.Orders"));
    }

    /// As versions 15 to 18 say it.
    #[test]
    fn a_conflict_is_a_loss_only_where_the_slot_is_lost() {
        let plan = plan();
        let verdict = |code: &str, message: &str, detail: &str| {
            let error = ServerError {
                code: code.into(),
                message: message.into(),
                detail: detail.into(),
                ..ServerError::default()
            };
            refused(&error, &plan, Lsn(1)).verdict()
        };
        for (message, detail) in [
            (
                "can no longer get changes from replication slot \"s\"",
                "This slot has been invalidated because it was conflicting with recovery.",
            ),
            (
                "can no longer access replication slot \"s\"",
                "This replication slot has been invalidated due to \"idle_timeout\".",
            ),
            (
                "cannot read from logical replication slot \"s\"",
                "This slot has been invalidated because it exceeded the maximum reserved size.",
            ),
        ] {
            assert_eq!(verdict("55000", message, detail), Verdict::Resync);
        }
        let recovery = "terminating connection due to conflict with recovery";
        for detail in [
            "User query might have needed to see row versions that must be removed.",
            "User was using a logical replication slot that must be invalidated.",
        ] {
            assert_eq!(verdict("40001", recovery, detail), Verdict::Retry);
        }
        for (code, message, expected) in [
            ("XX000", "conflicting or redundant options", Verdict::Halt),
            (
                "57P03",
                "the database system is no longer accepting connections",
                Verdict::Retry,
            ),
        ] {
            assert_eq!(verdict(code, message, ""), expected, "{message}");
        }
    }

    #[test]
    fn a_log_that_is_gone_is_not_tried_again() {
        let plan = plan();
        let verdict = |code: &str, message: &str| {
            let error = ServerError {
                code: code.into(),
                message: message.into(),
                ..ServerError::default()
            };
            refused(&error, &plan, Lsn(1)).verdict()
        };
        assert_eq!(
            verdict(
                "58P01",
                "requested WAL segment 000000010000000000000001 has already been removed"
            ),
            Verdict::Resync
        );
        assert_eq!(
            verdict(
                "57P01",
                "terminating connection due to administrator command"
            ),
            Verdict::Retry
        );
        assert_eq!(
            verdict("55006", "replication slot \"s\" is active for PID 7"),
            Verdict::Retry
        );
        assert_eq!(
            verdict("42704", "publication \"p\" does not exist"),
            Verdict::Halt
        );
        assert_eq!(verdict("42601", "syntax error"), Verdict::Halt);
    }
}
