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
/// A read of this many bytes needs no waiting for more.
const PLENTY: usize = 96 << 10;
/// How long a wait is. The runtime's timer rounds it up to its own resolution, 1 ms.
pub(super) const PAUSE: Duration = Duration::from_micros(500);

/// Decides after each read whether the next one waits.
#[derive(Debug, Default)]
pub(super) struct Coalesce {
    last: Option<Instant>,
    quick: u32,
}

impl Coalesce {
    /// Takes note of a read that ended at `now`; until when the next one is to wait.
    pub(super) fn read(&mut self, now: Instant, length: usize, waited: bool) -> Option<Instant> {
        // What a wait took does not count as calm.
        let quick = QUICK + if waited { 4 * PAUSE } else { Duration::ZERO };
        let in_succession = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) <= quick);
        self.last = Some(now);
        self.quick = if in_succession {
            self.quick.saturating_add(1)
        } else {
            0
        };
        (self.quick >= BUSY && length < PLENTY).then(|| now + PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_stream_never_waits_and_a_busy_one_does() {
        let start = crate::clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut calm = Coalesce::default();
        for n in 0..100 {
            assert_eq!(calm.read(at(n * 5), 100, false), None);
        }
        let mut busy = Coalesce::default();
        let now = at(0);
        for _ in 0..3 {
            assert_eq!(busy.read(now, 100, false), None);
        }
        assert_eq!(busy.read(now, 100, false), Some(now + PAUSE));
        // After a wait of the timer's resolution the next small read waits again,
        assert_eq!(busy.read(at(2), 5_000, true), Some(at(2) + PAUSE));
        // one that brings plenty does not,
        assert_eq!(busy.read(at(4), PLENTY, true), None);
        // and one that had nothing to read for a while ends it.
        assert_eq!(busy.read(at(20), 100, true), None);
    }
}
