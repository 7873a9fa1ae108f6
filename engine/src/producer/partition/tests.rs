//! What a partition holds of batches.

use std::sync::Arc;

use super::*;
use crate::clock;

const NOT_ENOUGH_REPLICAS: i16 = 19;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;

/// What is kept with a batch of one record that waits from now on.
fn push(partition: &mut Partition) -> Arc<()> {
    let kept = Arc::new(());
    let mut bytes = Buffer::from(vec![0; 61]);
    bytes.keep(Arc::clone(&kept));
    partition.push(Waiting {
        serial: 0,
        records: 1,
        bytes,
    });
    kept
}

/// A partition whose leader has written a batch.
fn known() -> (Partition, Instant) {
    let (mut partition, now) = (Partition::new(), clock::now());
    partition.lead(Some(1), 0);
    let kept = push(&mut partition);
    partition.identify(Identity { id: 100, epoch: 0 });
    partition.take(0, 1).unwrap();
    partition.answered(0, 0, 0, now);
    assert_eq!(Arc::strong_count(&kept), 1, "it is written");
    (partition, now)
}

#[test]
fn a_batch_that_is_written_behind_one_that_is_not_takes_no_room() {
    let (mut partition, now) = known();
    let (first, second) = (push(&mut partition), push(&mut partition));
    for request in [1, 2] {
        assert!(partition.sendable(now).is_some());
        partition.take(request, 1).unwrap();
    }
    partition.answered(1, NOT_ENOUGH_REPLICAS, -1, now);
    let outcome = partition.answered(2, 0, 2, now);
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    let held = [&first, &second].map(Arc::strong_count);
    assert_eq!(held, [2, 1]);
}

#[test]
fn a_batch_that_is_numbered_anew_is_counted_until_it_is_written() {
    let (mut partition, now) = known();
    let kept = push(&mut partition);
    partition.take(1, 1).unwrap();
    partition.answered(1, OUT_OF_ORDER_SEQUENCE, -1, now);
    partition.identify(Identity { id: 101, epoch: 0 });
    assert_eq!(Arc::strong_count(&kept), 2, "it is still to be written");
    partition.take(2, 1).unwrap();
    partition.answered(2, 0, 1, now);
    assert_eq!(Arc::strong_count(&kept), 1);
}
