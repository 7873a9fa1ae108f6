//! How large requests to a broker may be: a broker hangs up on one that is larger than its `socket.request.max.bytes`, without a word, and
//! would do so for ever.

use super::REQUEST_BYTES_MAX;

/// A request that is no larger is taken by every broker that is of use: what is smaller ends for another reason.
const SUSPECT_FROM: usize = 1 << 20;

/// Ends in a row from which on requests are made smaller: any broker may be stopped while it has requests.
const HALVED_FROM: u32 = 2;

/// The end in a row with which the log tells what it may be, and after how many again.
const TOLD_AT: u32 = 3;
const TOLD_EVERY: u32 = 16;

/// Answers after which requests may be twice as large again: whether the limit is still there costs two ends of a connection to know.
const RAISED_AFTER: u32 = 1_000;

/// The ceiling of one broker's requests.
#[derive(Debug, Default)]
pub(super) struct Ceiling {
    halvings: u32,
    /// Connections that ended in a row, without an answer in between, with a large request first.
    ends: u32,
    answers: u32,
}

impl Ceiling {
    /// A request is closed at this size, in bytes, unless its first batch alone is larger.
    pub(super) fn bytes(&self) -> usize {
        REQUEST_BYTES_MAX >> self.halvings
    }

    /// An answer has come.
    pub(super) fn answered(&mut self) {
        self.ends = 0;
        if self.halvings > 0 {
            self.answers += 1;
            if self.answers >= RAISED_AFTER {
                self.answers = 0;
                self.halvings -= 1;
            }
        }
    }

    /// A connection has ended; the oldest request without an answer had so many bytes. Whether that is to be told.
    pub(super) fn ended(&mut self, oldest: usize) -> bool {
        if oldest <= SUSPECT_FROM {
            return false;
        }
        self.ends += 1;
        self.answers = 0;
        if self.ends >= HALVED_FROM && self.bytes() > SUSPECT_FROM {
            self.halvings += 1;
        }
        self.ends % TOLD_EVERY == TOLD_AT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_halved_while_large_requests_end_connections_and_comes_back() {
        let mut ceiling = Ceiling::default();
        assert!(!ceiling.ended(SUSPECT_FROM), "not for its size");
        assert!(!ceiling.ended(REQUEST_BYTES_MAX));
        assert_eq!(
            ceiling.bytes(),
            REQUEST_BYTES_MAX,
            "it may have been stopped"
        );
        ceiling.answered();
        let told: Vec<_> = (0..40).map(|_| ceiling.ended(2 * SUSPECT_FROM)).collect();
        let told_at: Vec<_> = (1..).zip(told).filter(|(_, told)| *told).collect();
        assert_eq!(told_at, [(3, true), (19, true), (35, true)]);
        assert_eq!(ceiling.bytes(), SUSPECT_FROM);
        let mut answers = 0;
        while ceiling.bytes() < REQUEST_BYTES_MAX {
            ceiling.answered();
            answers += 1;
        }
        assert_eq!(answers, 4 * RAISED_AFTER);
    }
}
