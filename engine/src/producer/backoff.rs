//! Growing pauses between attempts.

use std::time::Duration;

/// Doubles from `first` up to `longest`; each pause is stretched by up to a quarter, so that many clients do not come back at once.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            attempts: 0,
        }
    }

    /// Failed attempts since the last success.
    pub(super) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next attempt counts as the first.
    pub(super) const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << self.attempts.min(20))
            .min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        doubled.mul_f64(1.0 + rand::random::<f64>() / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use std::time::Duration;

    #[test]
    fn grows_to_its_longest_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        for attempt in 0..40_u32 {
            let least = Duration::from_millis(50 << attempt.min(6)).min(Duration::from_secs(2));
            let pause = backoff.pause();
            assert!(
                pause >= least && pause <= least.mul_f64(1.25),
                "attempt {attempt}: {pause:?}"
            );
        }
        backoff.reset();
        assert!(backoff.pause() < Duration::from_millis(63));
    }
}
