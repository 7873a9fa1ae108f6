//! When to read: at once while the stream is calm, in gulps while it is busy.
//!
//! A walsender writes each change by itself, and a reader that is woken for each of them takes its time away on a machine that both
//! share, and makes it send small segments everywhere else: 152,000 changes per second against 404,000 with pauses of 500 µs. So after
//! some small reads in quick succession the next one waits a moment, unless reads bring much anyway. The first wait that brings nothing
//! ends it: an idle stream is read as soon as something comes.

use std::time::{Duration, Instant};

/// Reads within this time of each other are in quick succession.
const QUICK: Duration = Duration::from_millis(1);
/// So many of them begin the waiting.
const BUSY: u32 = 3;
/// How long a wait is.
pub(super) const PAUSE: Duration = Duration::from_micros(500);

/// Decides after each read whether the next one waits.
#[derive(Debug)]
pub(super) struct Coalesce {
    /// A read of this many bytes needs no waiting for more.
    plenty: usize,
    last: Option<Instant>,
    quick: u32,
}

impl Coalesce {
    /// For reads that bring at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            plenty: most / 4 * 3,
            last: None,
            quick: 0,
        }
    }

    /// Takes note of a read that ended at `now`; whether the next one is to wait.
    pub(super) fn read(&mut self, now: Instant, length: usize, waited: bool) -> bool {
        // What a wait took does not count as calm.
        let quick = QUICK + if waited { 2 * PAUSE } else { Duration::ZERO };
        let in_succession =
            (self.last).is_some_and(|last| now.saturating_duration_since(last) <= quick);
        self.last = Some(now);
        self.quick = if in_succession {
            self.quick.saturating_add(1)
        } else {
            0
        };
        self.quick >= BUSY && length < self.plenty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_stream_never_waits_and_a_busy_one_does() {
        let start = crate::clock::now();
        let at = |us: u64| start + Duration::from_micros(us);
        let mut calm = Coalesce::new(1000);
        for n in 0..100 {
            assert!(!calm.read(at(n * 5000), 100, false));
        }
        let mut busy = Coalesce::new(1000);
        for n in 0..3 {
            assert!(!busy.read(at(n), 100, false));
        }
        assert!(busy.read(at(3), 100, false));
        // After a wait the next small read waits again,
        assert!(busy.read(at(1500), 700, true));
        // one that brings plenty does not,
        assert!(!busy.read(at(2100), 750, true));
        // and one that had nothing to read for a while ends it.
        assert!(!busy.read(at(9000), 100, true));
    }
}
