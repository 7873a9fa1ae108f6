//! What is on its way, and whether some of it is held up: ordinals are acknowledged in order, so one partition that cannot be written
//! keeps all later ones from being told, although others are written as before.

use super::Dispatch;

/// How it stands with what was handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Record batches written since the start.
    pub written: u64,
    /// Partitions that have something to be written cannot be: they have no leader, their leader refuses, or it cannot be reached.
    pub is_held_up: bool,
    /// Something is on the wire, or about to be, to a broker that can be reached.
    pub is_busy: bool,
}

impl Dispatch {
    /// As of now.
    pub(in crate::producer) fn traffic(&self) -> Traffic {
        let is_busy = self.brokers.iter().any(|(id, broker)| {
            !broker.is_unreachable && (!broker.in_flight.is_empty() || self.has_work(*id))
        });
        Traffic {
            written: self.written,
            is_held_up: self.is_held_up(),
            is_busy,
        }
    }

    /// Tells whoever waits for others than those that are held up.
    pub(super) fn note_traffic(&mut self) {
        self.signals.traffic |= self.is_held_up();
    }

    /// Notes whether a partition is held up by itself, not by its broker.
    pub(super) fn note_held_up(&mut self, at: usize) {
        if !self.partitions[at].is_held_up() {
            self.held_up.remove(&at);
        } else if self.held_up.insert(at) {
            self.signals.traffic = true;
        }
    }

    fn is_held_up(&self) -> bool {
        let is_cut_off =
            |(id, broker): (&i32, &super::Broker)| broker.is_unreachable && self.has_work(*id);
        !self.held_up.is_empty() || self.brokers.iter().any(is_cut_off)
    }
}
