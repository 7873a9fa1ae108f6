//! Kafka: record batches in format v2, their compression codecs, and the partitioner of the Java client.
//!
//! Requests and responses are not here: they come from the `kafka-protocol` crate, which copies every record twice and is
//! therefore kept off the path of the records themselves.

pub mod compression;
mod lz4;
pub mod murmur2;
pub mod record_batch;
pub mod varint;

pub use compression::Compression;
