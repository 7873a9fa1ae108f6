//! What is on its way, and whether some of it is held up: ordinals are acknowledged in order, so one partition that cannot be written
//! keeps all later ones from being told, although others are written as before.

use super::{Broker, Dispatch};

/// How it stands with what was handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Record batches written since the start.
    pub written: u64,
    /// Partitions that have something to be written cannot be: they have no leader, their leader refuses, or it cannot be reached.
    pub is_held_up: bool,
    /// Something is on the wire, or about to be, to a broker that can be reached.
    pub is_busy: bool,
    /// There is a broker that can be reached.
    pub is_anyone_there: bool,
    /// Ordinals handed over since a record batch was last written, less one for each that was refused since.
    pub unrewarded: u64,
}

impl Dispatch {
    /// As of now.
    pub(in crate::producer) fn traffic(&self) -> Traffic {
        let others_answer = self.others_answer();
        let is_busy = self.brokers.iter().any(|(id, broker)| {
            !broker.is_cut_off(others_answer) && self.has_anything(*id, broker)
        });
        Traffic {
            written: self.written,
            is_held_up: self.is_held_up(),
            is_busy,
            is_anyone_there: others_answer,
            unrewarded: self.unrewarded,
        }
    }

    /// A broker is silent while answers are due: others are not to wait for it, and may lead by now what it led. Answers whether they do,
    /// as metadata say, of something that is on the wire to it: it is not worth waiting for any longer.
    pub(in crate::producer) fn silent(&mut self, broker: i32) -> bool {
        let Some(state) = self.brokers.get_mut(&broker) else {
            return false;
        };
        state.is_unreachable = true;
        let mut on_wire = state
            .in_flight
            .iter()
            .flat_map(|request| &request.partitions);
        let has_moved = on_wire.any(|at| self.partitions[*at].leader() != Some(broker));
        self.wants_metadata = true;
        self.signals.driver = true;
        self.note_traffic();
        has_moved
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
        let others_answer = self.others_answer();
        let is_kept = |(id, broker): (&i32, &Broker)| {
            broker.is_cut_off(others_answer) && self.has_anything(*id, broker)
        };
        !self.held_up.is_empty() || self.brokers.iter().any(is_kept)
    }

    /// Whether something is on the wire to this broker, or could be.
    fn has_anything(&self, id: i32, broker: &Broker) -> bool {
        !broker.in_flight.is_empty() || self.has_work(id)
    }

    /// Whether there is a broker that is not silent.
    pub(super) fn others_answer(&self) -> bool {
        self.brokers.values().any(|broker| !broker.is_unreachable)
    }
}

impl Broker {
    /// Whether nothing is to be expected of it for now. Where all that have something on the wire are silent, the line may be so thin that
    /// answers are seconds apart, and nothing is gained by not waiting for them.
    pub(super) fn is_cut_off(&self, others_answer: bool) -> bool {
        self.is_unreachable && (self.in_flight.is_empty() || others_answer)
    }
}
