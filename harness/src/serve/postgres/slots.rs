//! Replication slots: what a server keeps across connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use protocol::postgres::Lsn;

use super::super::stage::locked;
use super::error::Failure;

/// A logical slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) plugin: String,
    pub(super) database: String,
    /// Everything before it was confirmed by a client.
    pub(super) confirmed: Lsn,
    /// The session that streams from it.
    pub(super) active: Option<u32>,
    /// The session that it goes away with.
    pub(super) temporary: Option<u32>,
    pub(super) two_phase: bool,
    pub(super) failover: bool,
}

/// All slots of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<Mutex<BTreeMap<String, Slot>>>);

impl Slots {
    /// Every slot as it is now, by name.
    pub(super) fn all(&self) -> BTreeMap<String, Slot> {
        locked(&self.0).clone()
    }

    /// Adds a slot.
    pub(super) fn create(&self, name: &str, slot: Slot) -> Result<(), Failure> {
        let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 63 {
            let what = if name.is_empty() { "short" } else { "long" };
            return Err(Failure::new(
                "42602",
                format!("replication slot name \"{name}\" is too {what}"),
            ));
        }
        if !name.chars().all(is_valid) {
            let mut failure = Failure::new(
                "42602",
                format!("replication slot name \"{name}\" contains invalid character"),
            );
            failure.hint = Some(
                "Replication slot names may only contain lower case letters, numbers, and the underscore character."
                    .into(),
            );
            return Err(failure);
        }
        let mut slots = locked(&self.0);
        if slots.contains_key(name) {
            return Err(Failure::new(
                "42710",
                format!("replication slot \"{name}\" already exists"),
            ));
        }
        slots.insert(name.to_owned(), slot);
        Ok(())
    }

    /// Removes a slot that nobody streams from.
    pub(super) fn drop(&self, name: &str) -> Result<(), Failure> {
        let mut slots = locked(&self.0);
        available(&slots, name)?;
        slots.remove(name);
        Ok(())
    }

    /// Makes `session` the one that streams from the slot, for as long as the answer lives.
    pub(super) fn acquire(&self, name: &str, session: u32) -> Result<Held, Failure> {
        let mut slots = locked(&self.0);
        available(&slots, name)?;
        let slot = slots.get_mut(name).ok_or_else(|| missing(name))?;
        slot.active = Some(session);
        Ok(Held {
            slots: self.clone(),
            name: name.to_owned(),
            slot: slot.clone(),
        })
    }

    /// A session is over, or failed: its temporary slots go.
    pub(super) fn leave(&self, session: u32) {
        locked(&self.0).retain(|_, slot| slot.temporary != Some(session));
    }
}

fn missing(name: &str) -> Failure {
    Failure::new(
        "42704",
        format!("replication slot \"{name}\" does not exist"),
    )
}

fn available(slots: &BTreeMap<String, Slot>, name: &str) -> Result<(), Failure> {
    match slots.get(name).ok_or_else(|| missing(name))?.active {
        None => Ok(()),
        Some(session) => Err(Failure::new(
            "55006",
            format!("replication slot \"{name}\" is active for PID {session}"),
        )),
    }
}

/// A slot while a session streams from it.
#[derive(Debug)]
pub(super) struct Held {
    slots: Slots,
    name: String,
    /// As it was when it was acquired.
    pub(super) slot: Slot,
}

impl Held {
    /// A client confirmed everything before `lsn`.
    pub(super) fn confirm(&self, lsn: Lsn) {
        if let Some(slot) = locked(&self.slots.0).get_mut(&self.name) {
            slot.confirmed = lsn;
        }
    }

    /// What was confirmed last.
    pub(super) fn confirmed(&self) -> Lsn {
        let slots = locked(&self.slots.0);
        slots
            .get(&self.name)
            .map_or(self.slot.confirmed, |slot| slot.confirmed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(slot) = locked(&self.slots.0).get_mut(&self.name) {
            slot.active = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot {
            plugin: "pgoutput".into(),
            database: "shop".into(),
            confirmed: Lsn(1),
            active: None,
            temporary: None,
            two_phase: false,
            failover: false,
        }
    }

    #[test]
    fn one_session_at_a_time_and_what_it_confirmed_stays() {
        let slots = Slots::default();
        slots.create("s", slot()).unwrap();
        assert_eq!(slots.create("s", slot()).unwrap_err().code, "42710");
        assert_eq!(slots.create("S", slot()).unwrap_err().code, "42602");
        let held = slots.acquire("s", 7).unwrap();
        held.confirm(Lsn(9));
        for error in [
            slots.acquire("s", 8).unwrap_err(),
            slots.drop("s").unwrap_err(),
        ] {
            assert_eq!(
                (error.code, error.message.as_str()),
                ("55006", "replication slot \"s\" is active for PID 7")
            );
        }
        drop(held);
        assert_eq!(slots.acquire("s", 8).unwrap().slot.confirmed, Lsn(9));
        slots.drop("s").unwrap();
        assert_eq!(slots.acquire("s", 8).unwrap_err().code, "42704");
    }

    #[test]
    fn temporary_slots_go_with_their_session() {
        let slots = Slots::default();
        let temporary = Slot {
            temporary: Some(3),
            ..slot()
        };
        slots.create("t", temporary).unwrap();
        slots.leave(4);
        assert_eq!(slots.all().len(), 1);
        slots.leave(3);
        assert!(slots.all().is_empty());
    }
}
