//! When to read: at once while the stream is calm, in gulps while it is busy.
//!
//! A walsender writes each change by itself. As long as the connection's window is open, each of them becomes a segment of its own, whose
//! way through the kernel costs the server more than decoding the change did. While the window is closed, what the server writes is put
//! together in its send queue and leaves in large segments. So a near server's stream gets a small window, and while it is busy it is left
//! alone for a while and then read until it is dry:
//!
//! ```text
//! pause            the window fills by small segments, then closes; the server's send queue grows
//! read, read, ...  each opens the window at once for the next gulp of the queue, until there is less than half of one
//! ```
//! The queue is bounded, too: a server that has filled it waits for the reader. So a pause is never longer than the stream takes for
//! [`QUEUE`] bytes, at the speed at which it came since the pause before.
//! The longer the pause, the smaller the part that travels in small segments. A stream that brings so much that it may be all that the
//! server can send is worth a [`LONG`] pause, one that keeps up with its writers is not: whether it is, a long pause tries from time to
//! time. Over a long line the window is what carries the stream, so a far server keeps the kernel's own (docs/decisions/walsender.md).
//!
//! What the reads bring is collected for a few milliseconds before it becomes a batch, whose cost beside its rows (five threads and
//! processes woken for it) is then shared by more of them. The first wait that brings nothing ends all this: an idle stream is read, and
//! handed on, as soon as something comes.

use std::time::{Duration, Instant};

/// Reads within this time of each other are in quick succession.
const QUICK: Duration = Duration::from_micros(200);
/// So many of them begin the waiting.
const BUSY: u32 = 3;
/// How long what is read is collected.
pub(super) const COLLECT: Duration = Duration::from_millis(4);
/// A server whose answers take less than this is near.
const NEAR: Duration = Duration::from_millis(1);
/// Receive buffer of a near server's stream, bytes as asked for; the kernel's window is between this and twice as large.
pub(super) const WINDOW: usize = 32 << 10;
/// A near server's pause while the stream keeps up with its writers. Shorter ones cost the server and us more than they bring: at 50,000
/// changes/s 300 µs let the server fall behind (docs/decisions/walsender.md).
const SHORT: Duration = COLLECT;
/// A short pause that brings less, bytes, is not worth its wait: the stream is calm. Some 5,000 small changes/s bring as much.
const FEW: usize = 2 << 10;
/// A near server's pause while it has more to send than it can.
const LONG: Duration = Duration::from_millis(8);
/// What a long pause must bring to be worth it, bytes: as much as the window can hold.
const WORTH: usize = WINDOW * 2;
/// After how long without long pauses one is tried again: twice as long each time that it was not worth it, for fewer than one in a hundred
/// changes may wait for that.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(1);
/// Bytes that a near server may put together during a pause. Linux lets a loopback connection's send queue have about five times as much.
const QUEUE: usize = 512 << 10;
/// So many long pauses in a row that bring less end them: a server that gathers a large transaction sends nothing meanwhile.
const POOR: u32 = 3;
/// The pause before the others' reads, whose window follows what is read.
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
    /// Bytes since the last pause.
    gulp: usize,
    /// When that began.
    paused: Option<Instant>,
    /// The last read brought so much that there is more.
    is_full: bool,
    is_long: bool,
    /// Since the stream became busy: what it brings can be judged.
    has_paused: bool,
    /// Long pauses that may still be poor.
    patience: u32,
    /// When the last long pauses ended.
    tried: Option<Instant>,
    retry: Duration,
}

impl Coalesce {
    /// For a stream over a [`WINDOW`] (`near`), or over whatever the kernel makes of it.
    pub(super) fn new(near: bool) -> Self {
        Self {
            last: None,
            quick: 0,
            near,
            gulp: 0,
            paused: None,
            is_full: false,
            is_long: false,
            has_paused: false,
            patience: 0,
            tried: None,
            retry: RETRY.start,
        }
    }

    /// Takes note of a read that waited for its `bytes` and ended at `now`; whether the stream is busy.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) -> bool {
        // A busy one stays so over the moments between transactions, and while the server waits for a processor.
        let quick = match (self.is_long, self.quick >= BUSY) {
            (true, _) => LONG,
            (false, true) => SHORT,
            (false, false) => QUICK,
        };
        let in_succession =
            (self.last).is_some_and(|last| now.saturating_duration_since(last) <= quick);
        self.collected(bytes, now);
        self.quick = match in_succession {
            true => self.quick.saturating_add(1),
            false => 0,
        };
        self.has_paused &= in_succession;
        self.quick >= BUSY
    }

    /// Whether there is more to be read at once, without a pause. Once there is not, no read comes before the pause is over: any read
    /// would open the window for all of it.
    pub(super) fn has_more(&self) -> bool {
        self.near && self.is_full
    }

    /// How long to wait before the next read of a busy stream, at `now`.
    pub(super) fn pause(&mut self, now: Instant) -> Duration {
        let pause = match self.near {
            true => self.judged(now),
            false => PAUSE_FAR,
        };
        // It does not count as calm.
        self.last = Some(now + pause);
        pause
    }

    /// Whether what was read is handed on before this `pause`: a near server's are for its queue, the others' only for fewer reads.
    pub(super) fn hands_on(&self, pause: Duration) -> bool {
        self.near && !pause.is_zero()
    }

    /// By what the pause before has brought.
    fn judged(&mut self, now: Instant) -> Duration {
        let gulp = std::mem::take(&mut self.gulp);
        let took = (self.paused.replace(now)).map(|began| now.saturating_duration_since(began));
        let is_worth_it = gulp >= WORTH;
        if self.has_paused && !self.is_long && gulp < FEW {
            self.quick = 0;
            self.has_paused = false;
            return Duration::ZERO;
        }
        self.has_paused = true;
        if !self.is_long {
            let is_time =
                (self.tried).is_none_or(|tried| now.saturating_duration_since(tried) >= self.retry);
            self.is_long = is_time;
            // The first one has to be worth it.
            self.patience = 1;
        } else if is_worth_it {
            self.patience = POOR;
            self.retry = RETRY.start;
        } else {
            self.patience = self.patience.saturating_sub(1);
            if self.patience == 0 {
                self.is_long = false;
                self.tried = Some(now);
                self.retry = (self.retry * 2).min(RETRY.end);
            }
        }
        let pause = if self.is_long { LONG } else { SHORT };
        // What the stream takes for as much as the queue may have.
        let filled = took.map(|took| took.mul_f64(QUEUE as f64 / gulp.max(1) as f64));
        filled.map_or(pause, |filled| pause.min(filled))
    }

    /// Takes note that a read of a busy stream brought `bytes` and ended at `now`.
    pub(super) fn collected(&mut self, bytes: usize, now: Instant) {
        self.last = Some(now);
        self.gulp = self.gulp.saturating_add(bytes);
        self.is_full = bytes >= WINDOW / 2;
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
            assert!(!calm.read(100, at(n * 1000)));
        }
        let mut busy = Coalesce::new(true);
        for n in 0..3 {
            assert!(!busy.read(100, at(n)));
        }
        assert!(busy.read(100, at(3)));
        // What collecting took does not count as calm,
        busy.collected(WINDOW, at(4000));
        assert!(busy.read(100, at(4100)));
        // what nothing came in does,
        assert!(!busy.read(100, at(9000)));
        // and so does a pause that brought little.
        for n in 0..4 {
            busy.read(FEW, at(9001 + n));
        }
        let mut now = at(9005);
        for _ in 0..10 {
            now += busy.pause(now);
            busy.collected(FEW, now);
        }
        busy.collected(0, now);
        busy.pause(now);
        busy.collected(FEW - 1, now);
        assert_eq!(busy.pause(now), Duration::ZERO);
        assert!(!busy.read(100, now));
    }

    /// A stream of `rate` bytes per second for `seconds`: how many of its pauses were long, and how long all of them took together.
    fn paused(rate: f64, seconds: u64) -> (usize, usize, Duration) {
        let mut now = crate::clock::now();
        let end = now + Duration::from_secs(seconds);
        let mut near = Coalesce::new(true);
        let (mut pauses, mut long, mut took) = (0, 0, Duration::ZERO);
        while now < end {
            let pause = near.pause(now);
            pauses += 1;
            if pause == LONG {
                long += 1;
                took += pause;
            }
            now += pause;
            let mut waiting = (pause.as_secs_f64() * rate) as usize;
            while waiting > 0 {
                let gulp = waiting.min(2 * WINDOW);
                near.collected(gulp, now);
                waiting -= gulp;
            }
            if near.has_more() {
                near.collected(0, now);
            }
        }
        (pauses, long, took)
    }

    #[test]
    fn what_fills_the_window_is_left_alone_for_longer() {
        let (pauses, long, _) = paused(12e6, 5);
        assert_eq!(pauses, long);
    }

    #[test]
    fn a_fast_server_does_not_wait_with_a_full_queue() {
        let rate = 300e6;
        let mut now = crate::clock::now();
        let mut near = Coalesce::new(true);
        // The first pause cannot know.
        let mut pause = near.pause(now);
        for _ in 0..100 {
            now += pause;
            near.collected((pause.as_secs_f64() * rate) as usize, now);
            pause = near.pause(now);
            let queued = pause.as_secs_f64() * rate;
            assert!((queued / QUEUE as f64 - 1.0).abs() < 0.01, "{pause:?}");
        }
        // As soon as it is slower it is left alone for longer.
        near.collected(WORTH, now + pause * 10);
        assert!(near.pause(now + pause * 10) > pause);
    }

    #[test]
    fn what_keeps_up_is_seldom_left_alone_for_long() {
        let (pauses, long, took) = paused(3e6, 20);
        assert!(pauses > 4_900, "{pauses}");
        assert!((20..=24).contains(&long), "{long}");
        // Less than the hundredth that a 99th percentile would see.
        assert!(took < Duration::from_millis(200), "{took:?}");
    }

    #[test]
    fn a_transaction_being_gathered_does_not_end_long_pauses() {
        let mut now = crate::clock::now();
        let mut near = Coalesce::new(true);
        for bytes in [WORTH, 10, 20, WORTH, 0, 5, WORTH] {
            assert_eq!(near.pause(now), LONG, "{bytes}");
            now += LONG;
            near.collected(bytes, now);
            near.collected(0, now);
        }
        for _ in 0..POOR {
            assert_eq!(near.pause(now), LONG);
            now += LONG;
            near.collected(10, now);
        }
        assert_eq!(near.pause(now), SHORT);
    }

    #[test]
    fn a_full_read_is_followed_by_another_at_once() {
        let now = crate::clock::now();
        let mut near = Coalesce::new(true);
        near.collected(WINDOW, now);
        assert!(near.has_more());
        near.collected(WINDOW / 2 - 1, now);
        assert!(!near.has_more());
        let mut far = Coalesce::new(false);
        far.collected(WINDOW, now);
        assert!(!far.has_more());
        assert_eq!(far.pause(now), PAUSE_FAR);
    }
}
