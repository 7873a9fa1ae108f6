//! The one place where the engine asks what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since 1970-01-01 00:00:00 UTC.
#[must_use]
pub fn since_epoch() -> Duration {
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
