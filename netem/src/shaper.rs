//! What happens to each packet of one direction, and when it arrives: a pure function of profile, time and seeded chance.
//!
//! ```text
//! packet ─► lost? ─► queue (bounded) ─► serialised at the rate ─► delay ± jitter ─► arrives
//!                                                             └─ overtakes? no delay
//! ```
//! As with `tc netem`, loss comes before the queue. Unlike there, jitter does not reorder.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::profile::LinkProfile;

/// What has happened in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came to the link; a large segment counts as the packets that it stands for.
    pub packets: u64,
    /// The same as the hosts handed them over, a large segment as one; none with tc, where the kernel carries them.
    pub segments: u64,
    /// Bytes that went over the link, IP and TCP headers included (payload alone with the proxy).
    pub bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub overflowed: u64,
    /// Dropped while the direction was down, or after its connection had been cut.
    pub cut: u64,
    /// That came twice.
    pub duplicated: u64,
    /// That overtook others.
    pub reordered: u64,
    /// That arrived with a flipped bit.
    pub corrupted: u64,
}

impl Counters {
    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            segments: self.segments - earlier.segments,
            bytes: self.bytes - earlier.bytes,
            lost: self.lost - earlier.lost,
            overflowed: self.overflowed - earlier.overflowed,
            cut: self.cut - earlier.cut,
            duplicated: self.duplicated - earlier.duplicated,
            reordered: self.reordered - earlier.reordered,
            corrupted: self.corrupted - earlier.corrupted,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never arrives.
    Dropped,
    /// It arrives.
    Arrives {
        /// When.
        due: Instant,
        /// Twice.
        twice: bool,
        /// With a flipped bit: a random number that says which.
        flipped: Option<u64>,
    },
    /// The queue has no room for all of it: cut it and try again, packet by packet.
    TooLarge,
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Shaper {
    profile: LinkProfile,
    random: StdRng,
    /// When the link has put everything on the wire that it took.
    free: Instant,
    /// When the last packet in order arrives.
    last: Instant,
    pub(crate) counters: Counters,
}

impl Shaper {
    pub(crate) fn new(profile: LinkProfile, seed: u64, now: Instant) -> Self {
        Self {
            profile,
            random: StdRng::seed_from_u64(seed),
            free: now,
            last: now,
            counters: Counters::default(),
        }
    }

    pub(crate) fn profile(&self) -> &LinkProfile {
        &self.profile
    }

    /// Another profile from now on. What is on its way stays so; what waits for the link is put on it at the new rate.
    pub(crate) fn set(&mut self, profile: LinkProfile, now: Instant) {
        let waiting = self.waiting(now);
        self.profile = profile;
        self.free = now + self.profile.serialisation(waiting);
    }

    /// Bytes that wait for the link.
    fn waiting(&self, now: Instant) -> usize {
        let backlog = self.free.saturating_duration_since(now);
        (self.profile.rate_bits).map_or(0, |rate| {
            (backlog.as_secs_f64() * rate as f64 / 8.0) as usize
        })
    }

    /// When there will be room for `bytes` in the queue.
    pub(crate) fn room(&self, bytes: usize, now: Instant) -> Duration {
        let backlog = self.free.saturating_duration_since(now);
        let most = (self.profile).serialisation(self.profile.queue().saturating_sub(bytes));
        backlog.saturating_sub(most)
    }

    /// A packet comes, or several in one; `is_one` where it cannot be cut further.
    pub(crate) fn admit(
        &mut self,
        wire_bytes: usize,
        packets: usize,
        is_one: bool,
        now: Instant,
    ) -> Fate {
        if self.profile.is_plain() {
            self.counters.packets += packets as u64;
            self.counters.segments += 1;
            self.counters.bytes += wire_bytes as u64;
            // Never before what is on its way already.
            self.last = self.last.max(now);
            return Fate::Arrives {
                due: self.last,
                twice: false,
                flipped: None,
            };
        }
        let full = self.profile.rate_bits.is_some()
            && self.waiting(now) + wire_bytes > self.profile.queue();
        if full && !is_one {
            return Fate::TooLarge;
        }
        self.counters.packets += packets as u64;
        self.counters.segments += 1;
        if self.happens(self.profile.loss) {
            self.counters.lost += packets as u64;
            return Fate::Dropped;
        }
        // An empty queue takes a packet of any size.
        if full && self.free > now {
            self.counters.overflowed += packets as u64;
            return Fate::Dropped;
        }
        self.counters.bytes += wire_bytes as u64;
        self.free = self.free.max(now) + self.profile.serialisation(wire_bytes);
        let due = match self.happens(self.profile.reorder) {
            true => {
                self.counters.reordered += packets as u64;
                self.free
            }
            false => {
                let due = self.free + self.delay();
                self.last = self.last.max(due);
                self.last
            }
        };
        let twice = self.happens(self.profile.duplicate);
        self.counters.duplicated += u64::from(twice) * packets as u64;
        let flipped = (self.happens(self.profile.corrupt)).then(|| self.random.random());
        self.counters.corrupted += u64::from(flipped.is_some()) * packets as u64;
        Fate::Arrives {
            due,
            twice,
            flipped,
        }
    }

    fn happens(&mut self, part: f64) -> bool {
        part > 0.0 && self.random.random::<f64>() < part
    }

    fn delay(&mut self) -> Duration {
        let LinkProfile { delay, jitter, .. } = self.profile;
        if jitter.is_zero() {
            return delay;
        }
        let spread = jitter.as_secs_f64() * self.random.random_range(-1.0..=1.0);
        Duration::from_secs_f64((delay.as_secs_f64() + spread).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn shaper(profile: &str) -> (Shaper, Instant) {
        let now = clock::now();
        (Shaper::new(profile.parse().unwrap(), 1, now), now)
    }

    fn due(fate: Fate, start: Instant) -> Duration {
        match fate {
            Fate::Arrives { due, .. } => due - start,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rate_and_delay_add_up() {
        let (mut shaper, start) = shaper("delay 10ms rate 12mbit");
        // 1500 bytes are a millisecond of 12 Mbit/s.
        for number in 1..=5u64 {
            let fate = shaper.admit(1500, 1, true, start);
            assert_eq!(due(fate, start), Duration::from_millis(10 + number));
        }
        let later = start + Duration::from_secs(1);
        let fate = shaper.admit(1500, 1, true, later);
        assert_eq!(due(fate, later), Duration::from_millis(11));
        assert_eq!(shaper.counters.bytes, 9000);
    }

    #[test]
    fn a_full_queue_drops() {
        let (mut shaper, start) = shaper("rate 12mbit queue 3000");
        assert_eq!(shaper.admit(6000, 4, false, start), Fate::TooLarge);
        for expected in [true, true, false, false] {
            let fate = shaper.admit(1500, 1, true, start);
            assert_eq!(fate != Fate::Dropped, expected);
        }
        assert_eq!(shaper.counters.overflowed, 2);
        assert_eq!(shaper.room(1500, start), Duration::from_millis(1));
        let later = start + Duration::from_millis(1);
        assert_eq!(shaper.room(1500, later), Duration::ZERO);
        assert_ne!(shaper.admit(1500, 1, true, later), Fate::Dropped);
    }

    #[test]
    fn chance_is_seeded_and_near_its_part() {
        let run = || {
            let (mut shaper, start) =
                shaper("delay 5ms 3ms loss 10% duplicate 5% corrupt 2% reorder 3%");
            let fates: Vec<Fate> = (0..20_000)
                .map(|n| shaper.admit(1500, 1, true, start + Duration::from_micros(n)))
                .collect();
            (
                fates
                    .iter()
                    .map(|fate| format!("{:?}", matches!(fate, Fate::Dropped)))
                    .collect::<String>(),
                shaper.counters,
            )
        };
        let (one, counters) = run();
        assert_eq!(run().0, one);
        // Five standard deviations of a binomial distribution.
        let near = |count: u64, of: f64, part: f64| {
            let away = (count as f64 - of * part).abs();
            assert!(
                away < 5.0 * (of * part * (1.0 - part)).sqrt(),
                "{count} of {of}, {part}"
            );
        };
        near(counters.lost, 20_000.0, 0.1);
        let rest = (20_000 - counters.lost) as f64;
        near(counters.duplicated, rest, 0.05);
        near(counters.corrupted, rest, 0.02);
        near(counters.reordered, rest, 0.03);
    }

    #[test]
    fn jitter_keeps_the_order() {
        let (mut shaper, start) = shaper("delay 5ms 5ms");
        let mut last = Duration::ZERO;
        for n in 0..1000 {
            let now = Duration::from_micros(n * 10);
            let arrives = due(shaper.admit(100, 1, true, start + now), start);
            assert!(arrives >= last && arrives >= now);
            assert!(arrives <= now.max(last) + Duration::from_millis(10));
            last = arrives;
        }
    }

    #[test]
    fn a_new_profile_takes_over() {
        let (mut shaper, start) = shaper("delay 10ms rate 12mbit");
        let _ = shaper.admit(15_000, 10, true, start);
        shaper.set("delay 1ms rate 120mbit".parse().unwrap(), start);
        // The ten packets that waited take a millisecond now, but nothing overtakes what was promised before.
        assert_eq!(
            due(shaper.admit(1500, 1, true, start), start),
            Duration::from_millis(20)
        );
        shaper.set(LinkProfile::default(), start);
        let later = start + Duration::from_secs(1);
        assert_eq!(
            due(shaper.admit(1500, 1, true, later), later),
            Duration::ZERO
        );
    }
}
