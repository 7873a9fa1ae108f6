//! What encoding hands to the producer: finished record batches, each for one partition, and where topics lead.
//!
//! Neither `encode` nor `producer` imports the other; both speak in these words.

use std::sync::Arc;

/// Where the records of a topic go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The producer's own number for the topic, stable within the process: what queues are keyed by.
    pub topic_id: u32,
    /// Number of partitions, at least 1: a key's partition is `(murmur2(key) & 0x7fffffff) % partitions`.
    pub partitions: u32,
}

/// One record batch (format v2) for one partition, compressed and complete but for what the producer stamps when it sends:
/// producer id, epoch, base sequence and the CRC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBatch {
    /// The topic, by [`Route::topic_id`].
    pub topic_id: u32,
    /// The partition, from 0.
    pub partition: i32,
    /// Records in `bytes`; the next base sequence is this many further.
    pub records: u32,
    /// Row changes whose first record is in `bytes`: a delete and its tombstone are one, and so are the delete and the create of a
    /// changed key, counted where the delete stands. Summed over the parts of one batch they are the changes that were written.
    pub changes: u32,
    /// The record batch as sent.
    pub bytes: Vec<u8>,
}
