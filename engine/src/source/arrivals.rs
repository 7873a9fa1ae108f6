//! When the bytes came that a batch begins with.
//!
//! ```text
//! read           read                     read
//! [ A A A A A B B | B B B B B B B C C C C C | C C …
//!             └ rest, since the first read     └ rest, since the second
//! ```
//! A seal leaves behind what is not a whole frame yet. The batch that it goes into is timed from the read that brought its first byte, not
//! from the one that completed it.

use std::time::Instant;

use crate::batch::Batch;

/// The reads that the bytes not yet decoded came with.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// When the last read ended, and what it brought.
    last: Option<(Instant, usize)>,
    /// When the first byte came of what was not decoded before the last read.
    rest_since: Option<Instant>,
}

impl Arrivals {
    /// Takes note of a read that brought `length` bytes of `batch`, behind `rest` bytes that were not decoded.
    pub(super) fn read(&mut self, batch: &mut Batch, at: Instant, length: usize, rest: usize) {
        let since = self.oldest(rest);
        // What was decoded and brought no row (a keepalive, another table's rows) makes no later row older.
        if batch.events.is_empty() || batch.read_at.is_none() {
            batch.read_at = since.or(Some(at));
        }
        self.rest_since = since;
        self.last = Some((at, length));
    }

    /// When the first byte came of the last `rest` bytes that were read; `None` where there are none.
    pub(super) fn oldest(&self, rest: usize) -> Option<Instant> {
        let (at, length) = self.last?;
        match rest {
            0 => None,
            _ if rest <= length => Some(at),
            _ => self.rest_since.or(Some(at)),
        }
    }

    /// As [`Arrivals::oldest`], of something of unknown length that the last read completed.
    pub(super) fn oldest_of_last(&self) -> Option<Instant> {
        self.rest_since.or(self.last.map(|(at, _)| at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::Span;

    use super::*;
    use crate::batch::{Event, Operation};

    const ROW: Event = Event {
        operation: Operation::Create,
        group: 0,
        row: 0,
        before: Span::NONE,
        after: Span::NONE,
    };

    #[test]
    fn a_rest_is_as_old_as_the_read_that_brought_its_first_byte() {
        let start = crate::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let batch = &mut Batch::default();
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.oldest(7), None);
        arrivals.read(batch, at(1), 100, 0);
        assert_eq!(arrivals.oldest(0), None);
        assert_eq!(arrivals.oldest(30), Some(at(1)));
        // The frame of those 30 bytes is completed by 20 more, and 10 of a next one come along,
        arrivals.read(batch, at(2), 30, 30);
        assert_eq!(arrivals.oldest(10), Some(at(2)));
        // or it is not.
        assert_eq!(arrivals.oldest(60), Some(at(1)));
        arrivals.read(batch, at(3), 5, 60);
        assert_eq!(arrivals.oldest(65), Some(at(1)));
        assert_eq!(arrivals.oldest_of_last(), Some(at(1)));
        // What follows on an empty rest begins anew.
        arrivals.read(batch, at(4), 5, 0);
        assert_eq!(arrivals.oldest_of_last(), Some(at(4)));
    }

    #[test]
    fn a_batch_is_as_old_as_the_first_byte_that_may_be_a_rows() {
        let start = crate::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut batch = Batch::default();
        let mut arrivals = Arrivals::default();
        // A keepalive, whole; then the first half of a row, and the second.
        arrivals.read(&mut batch, at(1), 18, 0);
        arrivals.read(&mut batch, at(900), 40, 0);
        arrivals.read(&mut batch, at(901), 40, 40);
        assert_eq!(batch.read_at, Some(at(900)));
        batch.events.push(ROW);
        arrivals.read(&mut batch, at(902), 40, 0);
        assert_eq!(batch.read_at, Some(at(900)));
    }
}
