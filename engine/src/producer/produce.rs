//! Produce requests, framed around record batches that are sent from where they lie.
//!
//! ```text
//! i32 length │ header │ null transactional id │ i16 acks (−1: all) │ i32 timeout ms
//! i32 topics ┬ string name │ i32 partitions ┬ i32 partition │ i32 length │ record batch
//!            └ …                            └ …
//! ```
//! Versions 3 to 8 share this layout; 8 answers with the broker's own words. Source: the Kafka protocol guide, "Produce API".

use std::io::IoSlice;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};

use super::connection::write_header;
use super::dispatch::Request;

/// `api_key` of Produce.
pub(super) const KEY: i16 = 0;

/// Versions that we speak.
pub(super) const VERSIONS: RangeInclusive<i16> = 3..=8;

/// How long a leader may wait for its in-sync replicas.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(15);

const _: () = assert!(
    REPLICATION_TIMEOUT.as_secs() < super::connection::REQUEST_TIMEOUT.as_secs(),
    "the broker gives up before we do"
);

/// A framed request: pieces that are written one after the other, record batches among them uncopied.
#[derive(Debug)]
pub(super) struct Frame {
    pieces: Vec<Bytes>,
    /// The first piece that is not written whole.
    at: usize,
    left: usize,
}

/// Frames `request`. `name` tells the name of a topic id.
pub(super) fn frame(
    request: &Request,
    version: i16,
    correlation: i32,
    name: impl Fn(u32) -> Arc<str>,
) -> Frame {
    let mut heads = Vec::with_capacity(128 + request.parts.len() * 32);
    // Where in `heads` each batch is put in.
    let mut cuts = Vec::with_capacity(request.parts.len());
    heads.extend_from_slice(&[0; 4]);
    write_header(&mut heads, KEY, version, correlation);
    heads.extend_from_slice(&(-1_i16).to_be_bytes());
    heads.extend_from_slice(&(-1_i16).to_be_bytes());
    heads.extend_from_slice(&(REPLICATION_TIMEOUT.as_millis() as i32).to_be_bytes());
    let topics = request
        .parts
        .chunk_by(|(a, _), (b, _)| a.topic_id == b.topic_id);
    heads.extend_from_slice(&(topics.clone().count() as i32).to_be_bytes());
    for parts in topics {
        let name = name(parts[0].0.topic_id);
        heads.extend_from_slice(&(name.len() as i16).to_be_bytes());
        heads.extend_from_slice(name.as_bytes());
        heads.extend_from_slice(&(parts.len() as i32).to_be_bytes());
        for (key, batch) in parts {
            heads.extend_from_slice(&key.partition.to_be_bytes());
            heads.extend_from_slice(&(batch.len() as i32).to_be_bytes());
            cuts.push(heads.len());
        }
    }
    let batches: usize = request.parts.iter().map(|(_, batch)| batch.len()).sum();
    let left = heads.len() + batches;
    heads[..4].copy_from_slice(&((left - 4) as i32).to_be_bytes());
    let mut heads = Bytes::from(heads);
    let mut pieces = Vec::with_capacity(2 * cuts.len());
    let mut start = 0;
    for (cut, (_, batch)) in cuts.into_iter().zip(&request.parts) {
        pieces.push(heads.split_to(cut - start));
        pieces.push(batch.clone());
        start = cut;
    }
    Frame {
        pieces,
        at: 0,
        left,
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.get(self.at).map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.pieces.get(self.at..).unwrap_or_default();
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        slices.len().min(pieces.len())
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "advanced beyond the end of a request");
        self.left -= count;
        while let Some(piece) = self.pieces.get_mut(self.at) {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            // What is written is released at once: its memory is the dispatcher's alone from here on.
            *piece = Bytes::new();
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::Decodable as _;

    use super::super::dispatch::{PartitionKey, Request};
    use super::frame;

    fn request() -> Request {
        let part = |topic_id, partition, bytes: &'static [u8]| {
            (
                PartitionKey {
                    topic_id,
                    partition,
                },
                Bytes::from_static(bytes),
            )
        };
        Request {
            id: 1,
            parts: vec![
                part(0, 0, b"first"),
                part(0, 2, b"second batch"),
                part(7, 1, b"third"),
            ],
        }
    }

    fn written(mut frame: impl Buf, step: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while frame.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = frame.chunks_vectored(&mut slices);
            let mut left = step;
            let mut taken = 0;
            for slice in &slices[..count] {
                let part = left.min(slice.len());
                bytes.extend_from_slice(&slice[..part]);
                left -= part;
                taken += part;
            }
            frame.advance(taken);
        }
        bytes
    }

    /// The kafka-protocol crate reads what we frame, whatever pieces the socket takes it in.
    #[test]
    fn is_read_by_another_implementation() {
        for version in super::VERSIONS {
            let whole = written(
                frame(&request(), version, 42, |id| format!("topic-{id}").into()),
                usize::MAX,
            );
            for step in [1, 2, 7, 64] {
                let frame = frame(&request(), version, 42, |id| format!("topic-{id}").into());
                assert_eq!(
                    written(frame, step),
                    whole,
                    "written {step} bytes at a time"
                );
            }
            let mut bytes = Bytes::from(whole);
            assert_eq!(bytes.get_i32() as usize, bytes.remaining());
            let header = RequestHeader::decode(&mut bytes, 1).unwrap();
            assert_eq!(
                (header.request_api_version, header.correlation_id),
                (version, 42)
            );
            let decoded = ProduceRequest::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty());
            assert_eq!(decoded.acks, -1);
            assert_eq!(decoded.topic_data.len(), 2);
            assert_eq!(decoded.topic_data[0].name.as_str(), "topic-0");
            let batches: Vec<_> = decoded
                .topic_data
                .iter()
                .flat_map(|topic| &topic.partition_data)
                .map(|part| (part.index, part.records.clone().unwrap()))
                .collect();
            assert_eq!(
                batches,
                [
                    (0, Bytes::from_static(b"first")),
                    (2, Bytes::from_static(b"second batch")),
                    (1, Bytes::from_static(b"third"))
                ]
            );
        }
    }
}
