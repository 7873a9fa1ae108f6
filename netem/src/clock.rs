//! The one place of this crate where the time is asked.

use std::time::Instant;

/// A monotonic moment.
#[must_use]
pub(crate) fn now() -> Instant {
    Instant::now()
}
