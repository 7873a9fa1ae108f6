//! How long to wait between attempts to reach a server that was lost.

use std::time::Duration;

/// The first wait is at most this long.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Exponential backoff with full jitter: attempt `n` waits a random time up to `FIRST * 2^n`, at least a tenth of it, so that many
/// engines that lost the same server do not come back at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Attempts since the last success.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next wait; `random` is uniform in `0.0..1.0`.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let ceiling = FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(0.1 + 0.9 * random.clamp(0.0, 1.0))
    }

    /// The stream flows again.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(
            waits,
            [
                200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        assert_eq!(backoff.attempts(), 10);
        for _ in 0..100 {
            assert_eq!(backoff.next(0.0), LONGEST.mul_f64(0.1));
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0), FIRST);
    }
}
