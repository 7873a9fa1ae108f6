//! The one place of this crate where the time is asked.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic moment.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The calendar's time since 1970.
#[must_use]
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
