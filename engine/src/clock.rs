//! The one place where the engine asks what time it is, and where it counts how often.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Readings since the start of the process. Clocks are read per batch, read and request, never per change: a shared counter is cheap.
static READS: AtomicU64 = AtomicU64::new(0);

/// Readings that [`cost`] takes the mean of.
const SAMPLE: u32 = 4096;

/// The monotonic clock.
#[must_use]
pub fn now() -> Instant {
    READS.fetch_add(1, Ordering::Relaxed);
    Instant::now()
}

/// Time since 1970-01-01 00:00:00 UTC.
#[must_use]
pub fn since_epoch() -> Duration {
    READS.fetch_add(1, Ordering::Relaxed);
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Microseconds since 2000-01-01 00:00:00 UTC, PostgreSQL's epoch.
#[must_use]
pub fn since_2000_us() -> i64 {
    const SINCE_1970: Duration = Duration::from_secs(946_684_800);
    let micros = since_epoch().saturating_sub(SINCE_1970).as_micros();
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// How often the clocks were read since the start of the process.
#[must_use]
pub fn reads() -> u64 {
    READS.load(Ordering::Relaxed)
}

/// What one reading costs here and now, counting included: a machine whose clock is a system call pays twenty times another's.
#[must_use]
pub fn cost() -> Duration {
    // These are not the run's.
    let counter = AtomicU64::new(0);
    let began = Instant::now();
    for _ in 0..SAMPLE {
        counter.fetch_add(1, Ordering::Relaxed);
        black_box(Instant::now());
    }
    let cost = began.elapsed() / SAMPLE;
    black_box(counter);
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_counted_and_cost_something() {
        let before = reads();
        black_box(now());
        black_box(since_epoch());
        assert!(reads() >= before + 2);
        assert!(cost() > Duration::ZERO);
    }
}
