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
/// How long the first wait is. They double for as long as they bring little, up to the longest: what a batch costs beside its rows (five
/// threads and processes woken for it) is then shared by more of them, and the walsender keeps its core.
const FIRST: Duration = Duration::from_micros(500);
const LONGEST: Duration = Duration::from_millis(4);

/// Decides after each read whether the next one waits.
#[derive(Debug)]
pub(super) struct Coalesce {
    /// A read of this many bytes needs no waiting for more.
    plenty: usize,
    last: Option<Instant>,
    quick: u32,
    /// The wait before the read to come.
    pause: Option<Duration>,
}

impl Coalesce {
    /// For reads that bring at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            plenty: most / 4 * 3,
            last: None,
            quick: 0,
            pause: None,
        }
    }

    /// Takes note of a read that ended at `now`; how long the next one is to wait.
    pub(super) fn read(&mut self, now: Instant, length: usize) -> Option<Duration> {
        // What a wait took does not count as calm; sleeping takes up to as long again on a busy machine.
        let quick = QUICK + self.pause.unwrap_or_default() * 2;
        let in_succession =
            (self.last).is_some_and(|last| now.saturating_duration_since(last) <= quick);
        self.last = Some(now);
        self.quick = if in_succession {
            self.quick.saturating_add(1)
        } else {
            0
        };
        self.pause = match (self.quick >= BUSY, self.pause) {
            (false, _) => None,
            (true, None) => Some(FIRST),
            (true, Some(pause)) if length < self.plenty / 2 => Some((pause * 2).min(LONGEST)),
            (true, Some(pause)) if length >= self.plenty => Some((pause / 2).max(FIRST)),
            (true, pause) => pause,
        };
        self.pause.filter(|_| length < self.plenty)
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
            assert_eq!(calm.read(at(n * 5000), 100), None);
        }
        let mut busy = Coalesce::new(1000);
        for n in 0..3 {
            assert_eq!(busy.read(at(n), 100), None);
        }
        assert_eq!(busy.read(at(3), 100), Some(FIRST));
        // After a wait that brought little the next one is longer,
        assert_eq!(busy.read(at(600), 100), Some(FIRST * 2));
        assert_eq!(busy.read(at(1700), 400), Some(FIRST * 2));
        // a read that brings plenty is followed by another at once,
        assert_eq!(busy.read(at(2800), 750), None);
        // and one that had nothing to read for a while ends it.
        assert_eq!(busy.read(at(9000), 100), None);
    }
}
