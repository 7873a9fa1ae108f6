//! When to read: at once while the stream is calm, in sips while it is busy, handed on in gulps.
//!
//! A walsender writes each change by itself, and a reader that is woken for each of them takes its time away on a machine that both
//! share, and makes it send small segments everywhere else: 152,000 changes per second against 404,000 with pauses of 500 µs. So after
//! some small reads in quick succession the next one waits a moment, unless reads bring much anyway. What they bring is collected for a
//! few milliseconds before it becomes a batch, whose cost beside its rows (five threads and processes woken for it) is then shared by more of
//! them; but it is read often, so that the kernel's buffers are few and warm. The first wait that brings nothing ends it: an idle stream is
//! read, and handed on, as soon as something comes.

use std::time::{Duration, Instant};

/// Reads within this time of each other are in quick succession.
const QUICK: Duration = Duration::from_millis(1);
/// So many of them begin the waiting.
const BUSY: u32 = 3;
/// How long a wait is.
pub(super) const PAUSE: Duration = Duration::from_micros(500);
/// How long what is read is collected.
pub(super) const COLLECT: Duration = Duration::from_millis(4);

/// Decides after each read whether the stream is busy.
#[derive(Debug, Default)]
pub(super) struct Coalesce {
    last: Option<Instant>,
    quick: u32,
}

impl Coalesce {
    /// Takes note of a read that waited for its bytes and ended at `now`; whether the stream is busy.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let in_succession =
            (self.last).is_some_and(|last| now.saturating_duration_since(last) <= QUICK);
        self.last = Some(now);
        self.quick = match in_succession {
            true => self.quick.saturating_add(1),
            false => 0,
        };
        self.quick >= BUSY
    }

    /// Takes note that what was there has been collected up to `now`.
    pub(super) fn collected(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_stream_is_not_busy_and_a_quick_one_is() {
        let start = crate::clock::now();
        let at = |us: u64| start + Duration::from_micros(us);
        let mut calm = Coalesce::default();
        for n in 0..100 {
            assert!(!calm.read(at(n * 5000)));
        }
        let mut busy = Coalesce::default();
        for n in 0..3 {
            assert!(!busy.read(at(n)));
        }
        assert!(busy.read(at(3)));
        // What collecting took does not count as calm,
        busy.collected(at(4000));
        assert!(busy.read(at(4600)));
        // what nothing came in does.
        assert!(!busy.read(at(9000)));
    }
}
