//! When to read: at once while the stream is calm, in gulps while it is busy.
//!
//! A walsender writes each change by itself. As long as the connection's window is open, each of them becomes a segment of its own, whose
//! way through the kernel costs the server more than decoding the change did. While the window is closed, what the server
//! writes is put together in its send queue and leaves in large segments. So a busy stream is read when the window has been filled, not
//! before: after some reads in quick succession the next one waits a moment, longer while reads bring less than the window holds,
//! shorter while they bring it all. A small receive buffer makes that moment short; only a near server gets one, because over a long line
//! the window is what carries the stream (docs/decisions/walsender.md).
//!
//! What the reads bring is collected for a few milliseconds before it becomes a batch, whose cost beside its rows (five threads and
//! processes woken for it) is then shared by more of them. The first wait that brings nothing ends all this: an idle stream is read, and
//! handed on, as soon as something comes.

use std::time::{Duration, Instant};

/// Reads within this time of each other are in quick succession.
const QUICK: Duration = Duration::from_millis(1);
/// So many of them begin the waiting.
const BUSY: u32 = 3;
/// How long what is read is collected.
pub(super) const COLLECT: Duration = Duration::from_millis(4);
/// A server whose answers take less than this is near.
const NEAR: Duration = Duration::from_millis(1);
/// Receive buffer of a near server's stream, bytes as asked for; the kernel's window is about as large.
pub(super) const WINDOW: usize = 48 << 10;
/// The waits before a near server's reads.
const PAUSE: std::ops::Range<Duration> = Duration::from_micros(300)..Duration::from_millis(4);
/// The wait before the others', whose window follows what is read.
const PAUSE_FAR: Duration = Duration::from_micros(500);

/// Whether a server that answers within `round_trip` is near enough for a small window.
pub(super) fn is_near(round_trip: Duration) -> bool {
    round_trip < NEAR
}

/// Decides after each read whether the stream is busy, and how long to wait before the next one.
#[derive(Debug)]
pub(super) struct Coalesce {
    last: Option<Instant>,
    quick: u32,
    near: bool,
    pause: Duration,
}

impl Coalesce {
    /// For a stream over a [`WINDOW`] (`near`), or over whatever the kernel makes of it.
    pub(super) fn new(near: bool) -> Self {
        Self {
            last: None,
            quick: 0,
            near,
            pause: match near {
                true => PAUSE.start * 4,
                false => PAUSE_FAR,
            },
        }
    }

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

    /// How long to wait before the next read of a busy stream.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Takes note that a read after a [`Self::pause`] brought `bytes` and ended at `now`.
    pub(super) fn collected(&mut self, bytes: usize, now: Instant) {
        self.last = Some(now);
        if self.near {
            // Slowly shorter, quickly longer: an open window costs the server more than a pause that is a little too long.
            let pause = match bytes >= WINDOW / 4 * 3 {
                true => self.pause - self.pause / 50,
                false => self.pause * 2,
            };
            self.pause = pause.clamp(PAUSE.start, PAUSE.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_stream_is_not_busy_and_a_quick_one_is() {
        let start = crate::clock::now();
        let at = |us: u64| start + Duration::from_micros(us);
        let mut calm = Coalesce::new(true);
        for n in 0..100 {
            assert!(!calm.read(at(n * 5000)));
        }
        let mut busy = Coalesce::new(true);
        for n in 0..3 {
            assert!(!busy.read(at(n)));
        }
        assert!(busy.read(at(3)));
        // What collecting took does not count as calm,
        busy.collected(WINDOW, at(4000));
        assert!(busy.read(at(4600)));
        // what nothing came in does.
        assert!(!busy.read(at(9000)));
    }

    #[test]
    fn a_near_servers_pause_follows_what_fills_the_window() {
        let now = crate::clock::now();
        let mut near = Coalesce::new(true);
        for _ in 0..20 {
            near.collected(100, now);
        }
        assert_eq!(near.pause(), PAUSE.end);
        let longest = near.pause();
        near.collected(WINDOW, now);
        assert!(near.pause() < longest);
        for _ in 0..1000 {
            near.collected(WINDOW, now);
        }
        assert_eq!(near.pause(), PAUSE.start);
        let mut far = Coalesce::new(false);
        far.collected(1, now);
        assert_eq!(far.pause(), PAUSE_FAR);
    }
}
