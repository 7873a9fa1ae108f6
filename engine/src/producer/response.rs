//! Decoders of the broker's responses that the producer needs, at the versions it asks for.
//!
//! Requests are encoded by the `kafka-protocol` crate. Its decoders are not used: they allocate arrays by the length that the wire
//! claims, and a broken or hostile peer could end the process with eight bytes. All versions here are "non-flexible" (no compact
//! lengths, no tagged fields), which every broker from 2.1 to 4.x speaks (KIP-896), so that each decoder is a list of fields:
//!
//! ```text
//! string  i16 length (−1: null), bytes        bytes  i32 length (−1: null), bytes        array  i32 count (−1: null), elements
//! ```
//! Source: the Kafka protocol guide, <https://kafka.apache.org/protocol>.

mod admin;
mod log;
mod metadata;
mod produce;
mod session;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use kafka_protocol::protocol::{Encodable, HeaderVersion};
use protocol::{Cursor, DecodeError, DecodeErrorKind};

#[cfg(test)]
pub(super) use admin::ResourceConfigs;
pub(super) use admin::{CreateTopics, DescribeConfigs, InitProducerId};
pub(super) use log::{Fetch, ListOffsets, OffsetForLeaderEpoch, PartitionOffset};
pub(super) use metadata::{Metadata, TopicMetadata};
pub(super) use produce::Produced;
pub(super) use session::{ApiVersions, SaslAuthenticate, SaslHandshake};

/// A response, the request that it answers, and the versions of both that we speak.
pub(super) trait Response: Sized {
    /// The request.
    type Request: Encodable + HeaderVersion;
    /// `api_key` of the request header.
    const KEY: i16;
    /// The API's name, for messages.
    const NAME: &'static str;
    /// Versions that we speak.
    const VERSIONS: RangeInclusive<i16>;

    /// Reads the body of a response.
    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError>;
}

fn boolean(cursor: &mut Cursor<'_>, what: &'static str) -> Result<bool, DecodeError> {
    Ok(cursor.i8(what)? != 0)
}

fn nullable_string(
    cursor: &mut Cursor<'_>,
    what: &'static str,
) -> Result<Option<String>, DecodeError> {
    let at = cursor.at() as u64;
    let Ok(length) = usize::try_from(cursor.i16_be(what)?) else {
        return Ok(None);
    };
    let bytes = cursor.take(length, what)?;
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::new(what, at, DecodeErrorKind::Encoding))?;
    Ok(Some(text.to_owned()))
}

fn string(cursor: &mut Cursor<'_>, what: &'static str) -> Result<String, DecodeError> {
    nullable_string(cursor, what)?.ok_or_else(|| cursor.invalid(what, u64::MAX))
}

fn nullable_bytes(
    cursor: &mut Cursor<'_>,
    what: &'static str,
) -> Result<Option<Vec<u8>>, DecodeError> {
    let Ok(length) = usize::try_from(cursor.i32_be(what)?) else {
        return Ok(None);
    };
    Ok(Some(cursor.take(length, what)?.to_vec()))
}

/// The elements of an array; memory grows with what has been read, never with what is claimed.
fn array<T>(
    cursor: &mut Cursor<'_>,
    what: &'static str,
    mut element: impl FnMut(&mut Cursor<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = cursor.i32_be(what)?;
    let mut elements = Vec::new();
    for _ in 0..count.max(0) {
        elements.push(element(cursor)?);
    }
    Ok(elements)
}
