//! Whether a batch that is full may hold more: where Kafka's answers are slow and requests small (docs/decisions/producer.md).

use std::sync::Arc;

use super::Progress;
use super::memory::{Memory, Reservation};

/// So many batches that are encoded and not acknowledged when another one is full mean that an answer takes as long as so many
/// batches take to come (Little's law): larger ones wait no longer for theirs, and there are fewer of them.
const SLOW_ANSWERS: u64 = 2;

/// Requests of so many bytes need not be larger: what one costs by itself is small beside what is in it, and over a thin link larger
/// ones hold up each other.
const REQUEST_BYTES_ENOUGH: usize = 512 << 10;

/// What batches may have beyond the usual size, and what the one that is being filled has of it.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Bytes by which one batch may grow; 0 where none may.
    bytes: usize,
    /// What all of them may have.
    all: Arc<Memory>,
    held: Option<Reservation>,
}

impl Stretch {
    /// `bytes` for each of `batches` at the same time.
    pub(super) fn new(bytes: usize, batches: usize) -> Stretch {
        Stretch {
            bytes,
            all: Memory::new(batches * bytes),
            held: None,
        }
    }

    /// Bytes that all batches may have together.
    pub(super) fn limit(&self) -> usize {
        self.all.limit()
    }

    /// By how many bytes the batch that is full may grow: once, where answers are slow and requests small. `None`: it has to leave.
    /// `bytes_per_broker` is what the batch before added to a request.
    pub(super) fn grow(&mut self, progress: &Progress, bytes_per_broker: usize) -> Option<usize> {
        let unanswered = progress.encoded.saturating_sub(progress.acknowledged);
        if self.bytes == 0
            || self.held.is_some()
            || unanswered < SLOW_ANSWERS
            || bytes_per_broker >= REQUEST_BYTES_ENOUGH
        {
            return None;
        }
        self.held = self.all.try_reserve(self.bytes);
        self.held.is_some().then_some(self.bytes)
    }

    /// What the batch that leaves has beyond the usual size; the next one has nothing yet.
    pub(super) fn take(&mut self) -> Option<Reservation> {
        self.held.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: usize = 100;

    /// So many batches are encoded, so many of them acknowledged.
    fn after(encoded: u64, acknowledged: u64) -> Progress {
        Progress {
            submitted: encoded + 1,
            encoded,
            acknowledged,
            ..Progress::default()
        }
    }

    #[test]
    fn a_full_batch_grows_only_where_answers_are_slow_and_requests_small() {
        let small = (512 << 10) - 1;
        for (progress, bytes_per_broker, may) in [
            (after(0, 0), 0, false),
            (after(9, 9), small, false),
            (after(9, 8), small, false),
            (after(9, 7), small, true),
            (after(9, 0), small, true),
            (after(9, 7), 0, true),
            (after(9, 7), small + 1, false),
            (after(9, 0), usize::MAX, false),
        ] {
            let grown = Stretch::new(MORE, 3).grow(&progress, bytes_per_broker);
            let expected = may.then_some(MORE);
            assert_eq!(grown, expected, "{progress:?}, {bytes_per_broker} bytes");
        }
    }

    #[test]
    fn a_batch_grows_once_and_only_into_what_is_set_aside() {
        let slow = after(9, 0);
        let mut stretch = Stretch::new(MORE, 2);
        assert_eq!(stretch.limit(), 2 * MORE);
        assert_eq!(stretch.grow(&slow, 0), Some(MORE));
        assert_eq!(stretch.grow(&slow, 0), None, "a second time");
        let first = stretch.take();
        assert!(first.is_some());
        assert!(stretch.take().is_none(), "of a batch that did not grow");
        assert_eq!(stretch.grow(&slow, 0), Some(MORE));
        let second = stretch.take();
        assert_eq!(stretch.grow(&slow, 0), None, "a third one");
        drop(first);
        assert_eq!(stretch.grow(&slow, 0), Some(MORE), "given back");
        drop(second);
    }

    #[test]
    fn where_there_is_no_room_for_more_nothing_grows() {
        assert_eq!(Stretch::new(0, 3).grow(&after(9, 0), 0), None);
    }
}
