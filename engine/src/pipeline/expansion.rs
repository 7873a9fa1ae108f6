//! How many bytes encoding makes of those that were received: what the memory of the next batch is reserved by.

/// Encoded bytes expected per received byte before anything has been measured: a change of 54 bytes becomes about 1.25 records of
/// 75 compressed bytes.
const FIRST_GUESS: u64 = 2;

/// What was measured counts half once so many bytes have been received behind it. An idle stream makes much of little, a busy one much
/// less of it, and days of the one say nothing about the other.
const HALF_LIFE: u64 = 4 << 20;

/// Received and encoded bytes of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Expansion {
    received: u64,
    encoded: u64,
}

impl Expansion {
    /// A batch of `received` bytes took `encoded` bytes of memory.
    pub(super) const fn add(&mut self, received: u64, encoded: u64) {
        self.received += received;
        self.encoded += encoded;
        while self.received > 2 * HALF_LIFE {
            self.received /= 2;
            self.encoded /= 2;
        }
    }

    /// Bytes to expect of a batch of `received`, at least as many.
    pub(super) fn expect(&self, received: usize) -> usize {
        let each = match self.received {
            0 => FIRST_GUESS,
            all => self.encoded.div_ceil(all).max(1),
        };
        received.saturating_mul(usize::try_from(each).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_by_what_was_measured_rounded_up() {
        let mut expansion = Expansion::default();
        assert_eq!(expansion.expect(1000), 2000);
        expansion.add(1000, 2500);
        assert_eq!(expansion.expect(1000), 3000);
        expansion.add(9000, 100);
        assert_eq!(expansion.expect(1000), 1000, "never less than was received");
        expansion.add(0, 1 << 60);
        assert_eq!(expansion.expect(usize::MAX), usize::MAX);
    }

    #[test]
    fn days_of_idling_are_forgotten_within_a_few_full_batches() {
        let mut expansion = Expansion::default();
        for _ in 0..1_000_000 {
            expansion.add(300, 6000);
        }
        assert_eq!(expansion.expect(1), 20);
        for _ in 0..64 {
            expansion.add(512 << 10, 600 << 10);
        }
        assert_eq!(expansion.expect(1), 2);
    }
}
