//! What all connections of a replay server share, whichever database it plays.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustls::ServerConfig;

use super::fault::{Fault, Place};
use super::outlet::Event;
use super::{ServeOptions, Tls};

/// Options, scheduled faults and what happened so far.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) options: ServeOptions,
    pub(super) tls: Option<Tls>,
    pub(super) statistics: Statistics,
    /// Still to come.
    faults: Mutex<Vec<Fault>>,
    /// Those that came, in their order.
    taken: Mutex<Vec<Fault>>,
    faulty: AtomicBool,
    complaints: Mutex<Vec<String>>,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    started: AtomicBool,
    first_byte_at: OnceLock<Instant>,
    pub(super) bytes: AtomicU64,
    pub(super) connections: AtomicU32,
    pub(super) ends: AtomicU32,
}

impl Statistics {
    /// A byte of a stream is about to be sent.
    pub(super) fn first_byte(&self) {
        if !self.started.swap(true, Ordering::Relaxed) {
            let _ = self.first_byte_at.set(crate::clock::now());
        }
    }

    /// When the first byte of a stream was sent.
    pub(super) fn first_byte_at(&self) -> Option<Instant> {
        self.first_byte_at.get().copied()
    }
}

/// The contents of a mutex; a panic elsewhere does not matter for what ours hold.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    pub(super) fn new(options: ServeOptions, tls: Option<Tls>) -> Self {
        Self {
            tls,
            statistics: Statistics::default(),
            faulty: AtomicBool::new(!options.faults.is_empty()),
            faults: Mutex::new(options.faults.clone()),
            taken: Mutex::default(),
            complaints: Mutex::default(),
            options,
        }
    }

    /// A client did what it must not do.
    pub(super) fn complain(&self, what: String) {
        locked(&self.complaints).push(what);
    }

    /// What clients did that they must not do.
    pub(super) fn complaints(&self) -> Vec<String> {
        locked(&self.complaints).clone()
    }

    /// The certificate and key, where TLS is offered.
    pub(super) fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| tls.config.clone())
    }

    /// Whether any fault is still to come.
    pub(super) fn has_faults(&self) -> bool {
        self.faulty.load(Ordering::Relaxed)
    }

    /// The first fault inside the event, and how far inside it is. It will not come again.
    pub(super) fn take_fault(&self, event: &Event) -> Option<(Fault, u64)> {
        let &Event {
            place,
            length,
            head,
            ref changes,
            ..
        } = event;
        let mut faults = locked(&self.faults);
        let inside = |fault: &Fault| match fault.at {
            Place::Bytes(at) => (at < place + length).then(|| at.saturating_sub(place)),
            Place::Changes(at) if changes.contains(&at) => {
                // Rows of one event are of similar length: somewhere about the row, never in the header.
                let share = (at - changes.start) as f64 / (changes.end - changes.start) as f64;
                Some(head + (share * (length - head) as f64) as u64)
            }
            Place::Changes(at) => (at < changes.start).then_some(0),
        };
        let (index, at) = (faults.iter().enumerate())
            .filter_map(|(i, fault)| Some((i, inside(fault)?)))
            .min_by_key(|(_, at)| *at)?;
        let fault = faults.remove(index);
        self.faulty.store(!faults.is_empty(), Ordering::Relaxed);
        locked(&self.taken).push(fault);
        Some((fault, at.min(length - 1)))
    }

    /// The faults that came so far.
    pub(super) fn faults_taken(&self) -> Vec<Fault> {
        locked(&self.taken).clone()
    }

    /// The faults whose place was not sent yet.
    pub(super) fn faults_left(&self) -> Vec<Fault> {
        locked(&self.faults).clone()
    }

    /// Schedules another fault.
    pub(super) fn schedule(&self, fault: Fault) {
        locked(&self.faults).push(fault);
        self.faulty.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Action;

    #[test]
    fn a_fault_is_left_until_its_place_is_sent() {
        let fault = |at| Fault {
            at: Place::Changes(at),
            action: Action::Cut,
        };
        let options = ServeOptions {
            faults: vec![fault(5), fault(50)],
            ..ServeOptions::default()
        };
        let stage = Stage::new(options, None);
        let event = Event {
            first: 0,
            place: 0,
            length: 100,
            head: 20,
            changes: 0..10,
        };
        assert_eq!(stage.faults_taken(), []);
        assert_eq!(stage.take_fault(&event), Some((fault(5), 60)));
        assert_eq!(stage.take_fault(&event), None);
        assert_eq!(stage.faults_taken(), [fault(5)]);
        assert_eq!(stage.faults_left(), [fault(50)]);
    }
}
