//! Which ordinals are written, told in the order in which they were given. Pure logic.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::Acknowledged;
use super::dispatch::PartitionKey;

/// The ordinals that are not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    outstanding: VecDeque<Outstanding>,
    /// Serial number of the first of them: serial numbers count the ordinals, whatever their values.
    first: u64,
}

#[derive(Debug)]
struct Outstanding {
    ordinal: u64,
    left: usize,
    offsets: BTreeMap<PartitionKey, i64>,
    sent_at: Option<Instant>,
}

impl Ledger {
    /// Enters an ordinal of so many record batches; answers its serial number.
    pub(super) fn enter(&mut self, ordinal: u64, batches: usize) -> u64 {
        let serial = self.first + self.outstanding.len() as u64;
        self.outstanding.push_back(Outstanding {
            ordinal,
            left: batches,
            offsets: BTreeMap::new(),
            sent_at: None,
        });
        serial
    }

    /// One of its batches is put on the wire for the first time.
    pub(super) fn sent(&mut self, serial: u64, at: Instant) {
        if let Some(outstanding) = self.find(serial) {
            outstanding.sent_at = outstanding.sent_at.max(Some(at));
        }
    }

    /// One of its batches is written; `next_offset` is the offset after its last record, where the broker said it.
    pub(super) fn written(&mut self, serial: u64, key: PartitionKey, next_offset: Option<i64>) {
        let Some(outstanding) = self.find(serial) else {
            return;
        };
        outstanding.left = outstanding.left.saturating_sub(1);
        if let Some(next) = next_offset {
            let offset = outstanding.offsets.entry(key).or_insert(next);
            *offset = next.max(*offset);
        }
    }

    fn find(&mut self, serial: u64) -> Option<&mut Outstanding> {
        let at = usize::try_from(serial.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        self.outstanding.get_mut(at)
    }

    /// Whether the next ordinal is complete.
    pub(super) fn is_ready(&self) -> bool {
        self.outstanding
            .front()
            .is_some_and(|front| front.left == 0)
    }

    /// The next ordinal that is complete.
    pub(super) fn poll(&mut self) -> Option<Acknowledged> {
        if !self.is_ready() {
            return None;
        }
        let Outstanding {
            ordinal,
            offsets,
            sent_at,
            ..
        } = self.outstanding.pop_front()?;
        self.first += 1;
        let offsets = offsets
            .into_iter()
            .map(|(key, next)| (key.topic_id, key.partition, next))
            .collect();
        Some(Acknowledged {
            ordinal,
            offsets,
            sent_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::PartitionKey;
    use super::Ledger;

    #[test]
    fn tells_ordinals_in_order() {
        let key = |partition| PartitionKey {
            topic_id: 3,
            partition,
        };
        let mut ledger = Ledger::default();
        let first = ledger.enter(10, 2);
        let second = ledger.enter(20, 1);
        let empty = ledger.enter(30, 0);
        assert_eq!([first, second, empty], [0, 1, 2]);
        let sent_at = crate::clock::now();
        ledger.sent(second, sent_at);
        ledger.written(second, key(1), Some(7));
        assert_eq!(ledger.poll(), None, "the first is not complete");
        ledger.written(first, key(0), Some(9));
        ledger.written(first, key(0), Some(5));
        let acknowledged = ledger.poll().unwrap();
        assert_eq!(
            (acknowledged.ordinal, acknowledged.offsets),
            (10, vec![(3, 0, 9)])
        );
        let acknowledged = ledger.poll().unwrap();
        assert_eq!(
            (
                acknowledged.ordinal,
                acknowledged.offsets,
                acknowledged.sent_at
            ),
            (20, vec![(3, 1, 7)], Some(sent_at))
        );
        assert_eq!(ledger.poll().unwrap().ordinal, 30);
        assert_eq!(ledger.poll(), None);
    }
}
