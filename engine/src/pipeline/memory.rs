//! What `memory_max` counts: bytes received, expanded, encoded and not yet acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A budget of bytes. Reservations are always granted, so that work which has begun can end; the one place that begins new work
/// waits for [`Memory::room_for`] first. Every reservation is of work that ends by itself: what is set aside for good is taken off the
/// limit beforehand, or something larger than what is left would wait for ever.
#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            freed: Notify::new(),
        })
    }

    /// All of it.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether more than half of it is taken: what is left is for what cannot wait.
    pub(super) fn is_scarce(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit / 2
    }

    /// Takes `bytes` from the budget, whatever is left of it.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation {
            memory: Arc::clone(self),
            bytes,
        }
    }

    /// Takes `bytes` from the budget if they fit.
    pub(super) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
            .then(|| Reservation {
                memory: Arc::clone(self),
                bytes,
            })
    }

    /// Waits until `bytes` more fit, or until nothing is reserved: a single batch may be larger than the whole budget.
    pub(super) async fn room_for(&self, bytes: usize) {
        loop {
            let freed = self.freed.notified();
            let used = self.used.load(Ordering::Relaxed);
            if used == 0 || used.saturating_add(bytes) <= self.limit {
                return;
            }
            freed.await;
        }
    }
}

/// Bytes taken from the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.memory.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_room_and_lets_a_giant_pass_alone() {
        let memory = Memory::new(100);
        memory.room_for(1_000).await;
        let giant = memory.reserve(1_000);
        let waiting = tokio::spawn({
            let memory = Arc::clone(&memory);
            async move {
                memory.room_for(60).await;
                memory.reserve(60)
            }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(giant);
        let sixty = waiting.await.unwrap();
        memory.room_for(40).await;
        drop(sixty);
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn reserves_nothing_beyond_the_limit_when_asked_to_try() {
        let memory = Memory::new(100);
        let sixty = memory.try_reserve(60);
        assert!(sixty.is_some());
        assert!(memory.try_reserve(41).is_none());
        assert!(memory.try_reserve(usize::MAX).is_none());
        assert!(memory.try_reserve(40).is_some(), "and gives it back");
        drop(sixty);
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}
