//! What a server must have for its changes to be captured whole, and the statement that mends what it lacks.

use super::generated::{self, Generated};
use super::partitions;
use super::partitions::identities::{self, AtOdds};
use super::publication::{self, Lacking};
use super::server::{Answer, Publication, Role, Settings, Slot, UserTable};
use super::unsent::{self, Unsent};
use crate::config::{Keys, OnUnpublished, Plugin, Selection, SlotSettings};
use crate::source::{Outcome, Requirement, SourceError};

/// What [`requirements`] judges: answers of one server to our role.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) role: &'a Role,
    /// The database that we are connected to.
    pub(super) database: &'a str,
    pub(super) recovery: bool,
    pub(super) ours: &'a SlotSettings,
    pub(super) slot: Option<&'a Slot>,
    /// Slots of all kinds that the server has, as it says them.
    pub(super) slots: &'a Answer,
    pub(super) publication: Option<&'a Publication>,
    /// Tables of the publication, as (schema, table).
    pub(super) published: &'a [(String, String)],
    pub(super) tables: &'a [UserTable],
    pub(super) selection: &'a Selection,
    /// Whether a TRUNCATE becomes a change.
    pub(super) truncates: bool,
    pub(super) generated: &'a Generated,
    /// Keys that the configuration names.
    pub(super) keys: &'a Keys,
    pub(super) unsent: &'a Unsent,
}

impl Facts<'_> {
    /// Selected tables that the publication, or a new one, has not.
    pub(super) fn lacking(&self) -> Lacking {
        publication::lacking(
            self.tables,
            self.publication,
            self.published,
            self.selection,
        )
    }

    /// Captured partitions whose old rows hold less than the stream says.
    pub(super) fn at_odds(&self) -> AtOdds {
        match self.ours.plugin {
            Plugin::PgOutput => identities::at_odds(
                self.tables,
                self.publication,
                self.published,
                self.selection,
                self.keys,
            ),
            // It sends them as what they are.
            Plugin::Wal2Json => AtOdds::default(),
        }
    }

    /// Captured tables whose updates and deletes the server refuses, or, with wal2json, does not send.
    pub(super) fn refusing(&self) -> Vec<String> {
        match self.ours.plugin {
            // Those that are not published yet, and therefore withheld, are named with the publication.
            Plugin::PgOutput => self.publication.map_or_else(Vec::new, |publication| {
                partitions::refusing(self.tables, publication, self.published, self.selection)
            }),
            Plugin::Wal2Json => (self.tables.iter())
                .filter(|table| table.is_bare())
                .filter(|table| self.selection.includes(&table.schema, &table.name))
                .map(UserTable::quoted)
                .collect(),
        }
    }
}

/// Every requirement in the order that an operator would look at them.
pub(super) fn requirements(facts: &Facts<'_>) -> Vec<Requirement> {
    let mut list = vec![
        wal_level(facts.settings),
        role(facts.role),
        senders(facts.settings),
        slot(facts),
    ];
    list.extend(standby(facts));
    list.extend(failover(facts));
    list.extend(encoding_of(
        facts.settings,
        facts.ours.plugin,
        facts.slot.is_some(),
    ));
    list.extend(libraries(facts));
    list.extend(streaming(facts));
    if facts.ours.plugin == Plugin::PgOutput {
        list.extend(publication::requirements(facts));
    }
    list.extend(partitions::selected_in_vain(facts));
    list.push(without_any(facts));
    list.extend(identities::requirement_of(facts));
    list.extend(unsent::requirements(facts));
    list.extend(generated::requirement_of(facts));
    list.extend(keeping(facts.settings));
    list.extend(idling(facts.settings));
    list.extend(wal2json(facts.ours));
    list
}

/// The missing requirements as an error.
pub(super) fn refuse(requirements: &[Requirement]) -> Result<(), SourceError> {
    let missing: Vec<String> = requirements
        .iter()
        .filter_map(|requirement| match &requirement.outcome {
            Outcome::Missing(mend) => Some(format!("{}: {mend}", requirement.what)),
            _ => None,
        })
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(SourceError::halt(format!(
            "the server cannot be captured: {}",
            missing.join("; ")
        ))),
    }
}

/// What a key of the configuration needs of the replica identity, where that does not show all of it.
pub(super) fn key_identity(
    schema: &str,
    table: &str,
    key: &[String],
    shown: &[String],
) -> Option<Requirement> {
    let hidden: Vec<&str> = (key.iter().map(String::as_str))
        .filter(|name| !shown.iter().any(|column| column == name))
        .collect();
    (!hidden.is_empty()).then(|| {
        requirement(
            format!("keys: the replica identity of {schema}.{table} shows its key"),
            Outcome::Advice(format!(
                "it does not hold {}, so updates and deletes of the table halt; ALTER TABLE {}.{} REPLICA IDENTITY FULL",
                hidden.join(", "),
                super::server::quoted(schema),
                super::server::quoted(table)
            )),
        )
    })
}

pub(super) fn requirement(what: impl Into<String>, outcome: Outcome) -> Requirement {
    Requirement {
        what: what.into(),
        outcome,
    }
}

fn wal_level(settings: &Settings) -> Requirement {
    let outcome = match settings.text("wal_level") {
        Some("logical") => Outcome::Met,
        // The setting is only for those who may see it; then creating the slot will say.
        None => Outcome::Met,
        Some(value) => Outcome::Missing(format!(
            "it is {value}; run ALTER SYSTEM SET wal_level = 'logical' and restart the server"
        )),
    };
    requirement("wal_level is logical", outcome)
}

fn role(role: &Role) -> Requirement {
    let outcome = match role.may_replicate() {
        true => Outcome::Met,
        false => Outcome::Missing(format!(
            "{0} has it not; run ALTER ROLE {0} REPLICATION (on Amazon RDS: GRANT rds_replication TO {0})",
            super::server::quoted(&role.name)
        )),
    };
    requirement("the role may replicate", outcome)
}

fn senders(settings: &Settings) -> Requirement {
    let outcome = match settings.number("max_wal_senders") {
        Some(0) => Outcome::Missing(
            "max_wal_senders is 0; run ALTER SYSTEM SET max_wal_senders = 10 and restart the server".into(),
        ),
        _ => Outcome::Met,
    };
    requirement("the server sends its log", outcome)
}

fn slot(facts: &Facts<'_>) -> Requirement {
    let name = &facts.ours.name;
    let what = format!("slot {name} can be used");
    let Some(slot) = facts.slot else {
        let most = facts
            .settings
            .number("max_replication_slots")
            .unwrap_or(i64::MAX);
        let full = usize::try_from(most).is_ok_and(|most| facts.slots.rows.len() >= most);
        let outcome = match full {
            true => Outcome::Missing(format!(
                "it is not there and all {most} slots are taken; drop one (SELECT pg_drop_replication_slot(…)), or run ALTER \
                 SYSTEM SET max_replication_slots = {} and restart the server",
                most.saturating_add(10)
            )),
            false => Outcome::Met,
        };
        return requirement(format!("slot {name} can be created"), outcome);
    };
    requirement(
        what,
        usable(slot, facts.ours, facts.database, facts.recovery)
            .map_or_else(Outcome::Missing, |()| Outcome::Met),
    )
}

/// Standbys decode their log from version 16 on.
fn standby(facts: &Facts<'_>) -> Option<Requirement> {
    let outcome = match facts.settings.major() {
        _ if !facts.recovery => return None,
        16.. => Outcome::Met,
        other => Outcome::Missing(format!(
            "it is version {other}, whose standbys cannot: they do from 16 on; connect to the primary"
        )),
    };
    Some(requirement("the standby decodes its log", outcome))
}

/// Where standbys may take over, they should have our slot.
fn failover(facts: &Facts<'_>) -> Option<Requirement> {
    const FROM: u32 = 17;
    let slot = facts.slot?;
    let has_standbys = (facts.slots.rows()).any(|row| row.text("slot_type") == Some("physical"));
    if facts.settings.major() < FROM || facts.recovery || facts.ours.temporary || !has_standbys {
        return None;
    }
    let outcome = match slot.failover {
        true => Outcome::Met,
        false => Outcome::Advice(format!(
            "it was made without FAILOVER, so a standby that is promoted would not have it; while nobody reads from it, run \
             ALTER_REPLICATION_SLOT {} (FAILOVER true) over a connection with replication=database",
            super::server::quoted(&slot.name)
        )),
    };
    Some(requirement(
        format!("slot {} goes over to a promoted standby", slot.name),
        outcome,
    ))
}

/// Whether a slot that exists is ours to use; the error says what it is instead.
pub(super) fn usable(
    slot: &Slot,
    ours: &SlotSettings,
    database: &str,
    recovery: bool,
) -> Result<(), String> {
    let name = &slot.name;
    let other_name = "name another one by slot = \"…\"";
    let Some(plugin) = &slot.plugin else {
        return Err(format!("it is a physical slot; {other_name}"));
    };
    if plugin != ours.plugin.as_str() {
        return Err(format!(
            "it decodes with {plugin}, not {}; {other_name}, or set plugin = \"{plugin}\" if that is one of ours",
            ours.plugin.as_str()
        ));
    }
    if slot.database.as_deref().is_some_and(|of| of != database) {
        return Err(format!(
            "it belongs to database {}; {other_name}",
            slot.database.as_deref().unwrap_or_default()
        ));
    }
    if let Some(reason) = &slot.invalidation {
        return Err(lost(name, &format!("it was invalidated ({reason})")));
    }
    if slot.wal_status.as_deref() == Some("lost") {
        return Err(lost(
            name,
            "it is lost: the server removed log that it had not sent yet (max_slot_wal_keep_size)",
        ));
    }
    if slot.synced && recovery {
        return Err(format!(
            "it is the primary's, kept here for a failover; connect to the primary, or {other_name}"
        ));
    }
    if slot.is_being_made() {
        return Err(being_made(slot));
    }
    if slot.active {
        let by = slot.active_pid.as_deref().unwrap_or("unknown");
        return Err(format!(
            "somebody reads from it (server process {by}): another walbrook with the same slot? End that one, or {other_name}"
        ));
    }
    Ok(())
}

/// A slot that cannot be read from yet.
pub(super) fn being_made(slot: &Slot) -> String {
    format!(
        "server process {} is still making it, and waits for transactions that were open before: see pg_stat_activity",
        slot.active_pid.as_deref().unwrap_or("unknown")
    )
}

fn lost(name: &str, what: &str) -> String {
    format!(
        "{what}, so changes are missing that no log has any more; take a new snapshot of the captured tables, drop the slot (SELECT \
         pg_drop_replication_slot('{name}')), and start again with `walbrook position reset`"
    )
}

/// Open transactions are sent from version 14 on.
fn streaming(facts: &Facts<'_>) -> Option<Requirement> {
    let outcome = match facts.settings.major() {
        _ if !facts.ours.streaming => return None,
        14.. => Outcome::Met,
        other => Outcome::Missing(format!(
            "it is version {other}, and open transactions are sent from 14 on; leave streaming out"
        )),
    };
    Some(requirement("the server sends open transactions", outcome))
}

/// Minor versions of 2025 and later load only the plugins that a setting names.
fn libraries(facts: &Facts<'_>) -> Option<Requirement> {
    let allowed = facts.settings.text("output_plugin_libraries")?;
    let plugin = facts.ours.plugin.as_str();
    let named = allowed.split(',').any(|name| {
        matches!(name.trim().trim_matches('"'), "*" | "") && !allowed.is_empty()
            || name.trim().trim_matches('"') == plugin
    });
    let outcome = match named {
        true => Outcome::Met,
        false => Outcome::Missing(format!(
            "it is '{allowed}'; run ALTER SYSTEM SET output_plugin_libraries = '{}', then SELECT pg_reload_conf()",
            match allowed.is_empty() {
                true => plugin.to_owned(),
                false => format!("{allowed}, {plugin}"),
            }
        )),
    };
    Some(requirement(
        format!("output_plugin_libraries has {plugin}"),
        outcome,
    ))
}

/// Whether the server sends text in UTF-8. pgoutput writes it in `client_encoding`, which is ours to choose, wal2json in the database's
/// encoding. Of a database without one (`SQL_ASCII`) nobody knows: the server ends pgoutput's stream where it is not UTF-8, and we do
/// wal2json's. Text of any other encoding may be valid UTF-8 of another text (`Ã©` in Latin-1 is `é`): nothing would show that it is wrong.
fn encoding_of(settings: &Settings, plugin: Plugin, has_slot: bool) -> Option<Requirement> {
    let encoding = settings.text("server_encoding")?;
    let outcome = match (encoding, plugin) {
        ("UTF8", _) => Outcome::Met,
        ("SQL_ASCII", _) => Outcome::Advice(
            "the database is SQL_ASCII, so the server does not know the encoding of its text: it is taken for UTF-8, and the first row with \
             text that is not stops the stream; make sure that applications write UTF-8"
                .into(),
        ),
        (_, Plugin::PgOutput) => Outcome::Met,
        (_, Plugin::Wal2Json) => {
            let slot = match has_slot {
                true => " (a slot is of one plugin: with another slot = …, and a new snapshot of the captured tables)",
                false => "",
            };
            Outcome::Missing(format!(
                "wal2json sends it in the database's encoding, {encoding}; set plugin = \"pgoutput\", with which the server converts it{slot}"
            ))
        }
    };
    Some(requirement(
        format!("{} sends text in UTF-8", plugin.as_str()),
        outcome,
    ))
}

/// Tables whose updates and deletes the server refuses, or, with wal2json, does not send.
fn without_any(facts: &Facts<'_>) -> Requirement {
    let outcome = match without_identity(&facts.refusing()) {
        None => Outcome::Met,
        // Nothing is lost of what the server refuses.
        Some(text) => match (facts.ours.plugin, facts.ours.on_unpublished) {
            (Plugin::Wal2Json, OnUnpublished::Halt) => Outcome::Missing(text),
            _ => Outcome::Advice(text),
        },
    };
    requirement("captured tables have a replica identity", outcome)
}

/// What it means that these tables, which are captured, have no replica identity; `None` where there are none.
pub(super) fn without_identity(tables: &[String]) -> Option<String> {
    let first = tables.first()?;
    Some(format!(
        "{} {} none ({}): the server refuses their updates and deletes while they are published (with wal2json: sends none); run ALTER \
         TABLE {first} REPLICA IDENTITY FULL",
        listed(tables),
        if tables.len() == 1 { "has" } else { "have" },
        publication::NO_IDENTITY,
    ))
}

/// How a slot that nobody reads from comes to be lost.
fn keeping(settings: &Settings) -> Option<Requirement> {
    let outcome = match settings.number("max_slot_wal_keep_size")? {
        -1 => Outcome::Met,
        size => Outcome::Advice(format!(
            "max_slot_wal_keep_size is {size} MB: an engine that is down while more than that is written loses its slot; run ALTER \
             SYSTEM SET max_slot_wal_keep_size = -1 where the disk allows it"
        )),
    };
    Some(requirement("the server keeps log for slots", outcome))
}

/// From version 18 on a slot can be lost by time alone.
fn idling(settings: &Settings) -> Option<Requirement> {
    let outcome = match settings.number("idle_replication_slot_timeout")? {
        0 => Outcome::Met,
        seconds => Outcome::Advice(format!(
            "idle_replication_slot_timeout is {seconds} s: an engine that is down for longer loses its slot; run ALTER SYSTEM SET \
             idle_replication_slot_timeout = 0"
        )),
    };
    Some(requirement("the server keeps slots that are idle", outcome))
}

fn wal2json(ours: &SlotSettings) -> Option<Requirement> {
    (ours.plugin == Plugin::Wal2Json).then(|| {
        requirement(
            "wal2json writes every value",
            Outcome::Advice(
                "before version 2.6 it writes null for NaN and the infinities of numeric, real and double precision; plugin = \
                 \"pgoutput\" does not"
                    .into(),
            ),
        )
    })
}

/// The first names of a list, the rest counted.
pub(super) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0..=SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}

#[cfg(test)]
pub(super) mod tests;
