//! What encoding hands to the producer: finished record batches, each for one partition, and where topics lead.
//!
//! Neither `encode` nor `producer` imports the other; both speak in these words.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

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
    pub bytes: Buffer,
}

/// Bytes of a record batch. Dropped, which is when Kafka has acknowledged them, their memory goes back to the encoder that asked
/// for it: growing anew, and pages that are given to the system and fetched again, cost some 5 % of the whole encoding.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Where the memory goes back to.
    home: Option<Arc<Spares>>,
    /// What goes with them.
    kept: Option<Attached>,
}

/// What is held for as long as bytes are.
pub(crate) type Attached = Box<dyn Any + Send + Sync>;

impl Buffer {
    /// Memory that bytes may hold: so many times their number.
    const EXCESS_MAX: usize = 4;

    /// Bytes whose memory goes back to `home`; at once where it is much more than they need: few bytes are copied sooner than a
    /// large buffer waits for their acknowledgement, and `memory_max` counts what waits.
    #[must_use]
    pub(crate) fn of(bytes: Vec<u8>, home: Arc<Spares>) -> Self {
        if bytes.capacity() / Self::EXCESS_MAX > bytes.len() {
            let fitting = Self::from(bytes.as_slice().to_vec());
            home.put(bytes);
            return fitting;
        }
        Self {
            bytes,
            home: Some(home),
            kept: None,
        }
    }

    /// Keeps `what` for as long as these bytes are held: what they take of a budget. A copy of them does not have it.
    pub(crate) fn keep(&mut self, what: impl Any + Send + Sync) {
        self.kept = Some(Box::new(what));
    }

    /// What is kept with these bytes, for whoever holds them longer, or as a copy.
    pub(crate) fn take_kept(&mut self) -> Option<Attached> {
        self.kept.take()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.put(std::mem::take(&mut self.bytes));
        }
    }
}

/// Bytes whose memory is nobody's in particular.
impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            home: None,
            kept: None,
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.bytes.clone().into()
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Buffer {}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Memory of acknowledged record batches, kept for the next ones of the same encoder: at most [`Self::BYTES_MAX`], which
/// `memory_max` does not count.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// Room for the parts of three batches of the usual size.
    pub(crate) const BYTES_MAX: usize = 2 << 20;

    /// Memory for a record batch; without any where none is spare.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = kept.buffers.pop().unwrap_or_default();
        kept.bytes -= buffer.capacity();
        buffer
    }

    fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes + buffer.capacity();
        if buffer.capacity() > 0 && bytes <= Self::BYTES_MAX {
            kept.bytes = bytes;
            kept.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_from_the_last_holder() {
        let spares = Arc::new(Spares::default());
        let mut memory = Vec::with_capacity(20);
        let at = memory.as_ptr();
        memory.extend_from_slice(b"batch");
        let buffer = Buffer::of(memory, Arc::clone(&spares));
        let sent = bytes::Bytes::from_owner(buffer);
        let resent = sent.clone();
        drop(sent);
        assert_eq!(spares.take().capacity(), 0, "still on the wire");
        assert_eq!(&*resent, b"batch");
        drop(resent);
        let again = spares.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        assert_eq!(spares.take().capacity(), 0);
    }

    #[test]
    fn what_is_kept_with_bytes_goes_with_their_last_holder() {
        let kept = Arc::new(());
        let mut buffer = Buffer::from(vec![1]);
        buffer.keep(Arc::clone(&kept));
        let copy = buffer.clone();
        let sent = bytes::Bytes::from_owner(buffer);
        let resent = sent.clone();
        drop(sent);
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(resent);
        assert_eq!(Arc::strong_count(&kept), 1);
        drop(copy);
    }

    #[test]
    fn few_bytes_do_not_hold_a_large_buffer() {
        let spares = Arc::new(Spares::default());
        let mut memory = Vec::with_capacity(1000);
        memory.extend_from_slice(&[7; 249]);
        let buffer = Buffer::of(memory, Arc::clone(&spares));
        assert_eq!(spares.take().capacity(), 1000, "spare at once");
        assert_eq!((&**buffer, buffer.capacity()), (&[7; 249][..], 249));
        drop(buffer);
        assert_eq!(spares.take().capacity(), 0, "not worth keeping");
    }

    #[test]
    fn keeps_so_much_and_no_more() {
        let spares = Arc::new(Spares::default());
        let half = Spares::BYTES_MAX / 2;
        for _ in 0..3 {
            drop(Buffer::of(vec![0; half], Arc::clone(&spares)));
        }
        drop(Buffer::of(Vec::new(), Arc::clone(&spares)));
        let kept: Vec<usize> = (0..3).map(|_| spares.take().capacity()).collect();
        assert_eq!(kept, [half, half, 0]);
        drop(Buffer::of(vec![0; half], Arc::clone(&spares)));
        assert_eq!(spares.take().capacity(), half);
    }
}
