//! What partitions hold: ListOffsets, OffsetForLeaderEpoch, Fetch.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use protocol::{Cursor, DecodeError};

use super::{Response, array, nullable_bytes, string};

/// An offset of a partition, as ListOffsets and OffsetForLeaderEpoch tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct PartitionOffset {
    /// The topic's name.
    pub(in crate::producer) topic: String,
    /// The partition.
    pub(in crate::producer) partition: i32,
    /// Error code.
    pub(in crate::producer) code: i16,
    /// The offset, −1 without one.
    pub(in crate::producer) offset: i64,
}

/// High watermarks, or log start offsets: what the timestamp of the question asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct ListOffsets(pub(in crate::producer) Vec<PartitionOffset>);

impl Response for ListOffsets {
    type Request = ListOffsetsRequest;
    const KEY: i16 = 2;
    const NAME: &'static str = "ListOffsets";
    const VERSIONS: RangeInclusive<i16> = 1..=5;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        if version >= 2 {
            cursor.i32_be("ListOffsets throttle time")?;
        }
        let offsets = offsets(cursor, "ListOffsets topics", |cursor, topic| {
            let partition = cursor.i32_be("ListOffsets partition")?;
            let code = cursor.i16_be("ListOffsets error code")?;
            cursor.i64_be("ListOffsets timestamp")?;
            let offset = cursor.i64_be("ListOffsets offset")?;
            if version >= 4 {
                cursor.i32_be("ListOffsets leader epoch")?;
            }
            Ok(PartitionOffset {
                topic,
                partition,
                code,
                offset,
            })
        })?;
        Ok(Self(offsets))
    }
}

/// Log end offsets: where the asked epoch, the present one, ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct OffsetForLeaderEpoch(pub(in crate::producer) Vec<PartitionOffset>);

impl Response for OffsetForLeaderEpoch {
    type Request = OffsetForLeaderEpochRequest;
    const KEY: i16 = 23;
    const NAME: &'static str = "OffsetForLeaderEpoch";
    const VERSIONS: RangeInclusive<i16> = 2..=3;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("OffsetForLeaderEpoch throttle time")?;
        let offsets = offsets(cursor, "OffsetForLeaderEpoch topics", |cursor, topic| {
            let code = cursor.i16_be("OffsetForLeaderEpoch error code")?;
            let partition = cursor.i32_be("OffsetForLeaderEpoch partition")?;
            cursor.i32_be("OffsetForLeaderEpoch leader epoch")?;
            let offset = cursor.i64_be("OffsetForLeaderEpoch end offset")?;
            Ok(PartitionOffset {
                topic,
                partition,
                code,
                offset,
            })
        })?;
        Ok(Self(offsets))
    }
}

/// Partitions by topic, flat: `read` is given the name of each one's topic. Errors outside of it name `what`.
fn offsets(
    cursor: &mut Cursor<'_>,
    what: &'static str,
    mut read: impl FnMut(&mut Cursor<'_>, String) -> Result<PartitionOffset, DecodeError>,
) -> Result<Vec<PartitionOffset>, DecodeError> {
    let topics = array(cursor, what, |cursor| {
        let topic = string(cursor, what)?;
        array(cursor, what, |cursor| read(cursor, topic.clone()))
    })?;
    Ok(topics.into_iter().flatten().collect())
}

/// Record batches of the one partition that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct Fetch {
    /// Error code of the partition or the request.
    pub(in crate::producer) code: i16,
    /// The high watermark.
    pub(in crate::producer) high_watermark: i64,
    /// Whole record batches; the last may be cut off.
    pub(in crate::producer) records: Vec<u8>,
}

impl Response for Fetch {
    type Request = FetchRequest;
    const KEY: i16 = 1;
    const NAME: &'static str = "Fetch";
    const VERSIONS: RangeInclusive<i16> = 4..=11;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("Fetch throttle time")?;
        let mut request_code = 0;
        if version >= 7 {
            request_code = cursor.i16_be("Fetch error code")?;
            cursor.i32_be("Fetch session id")?;
        }
        let topics = array(cursor, "Fetch topics", |cursor| {
            string(cursor, "Fetch topic name")?;
            array(cursor, "Fetch partitions", |cursor| {
                fetched(cursor, version)
            })
        })?;
        let mut partitions = topics.into_iter().flatten();
        Ok(match (request_code, partitions.next()) {
            (0, Some(fetched)) => fetched,
            (0, None) => return Err(cursor.invalid("Fetch topics", 0)),
            (code, _) => Self {
                code,
                high_watermark: -1,
                records: Vec::new(),
            },
        })
    }
}

fn fetched(cursor: &mut Cursor<'_>, version: i16) -> Result<Fetch, DecodeError> {
    cursor.i32_be("Fetch partition")?;
    let code = cursor.i16_be("Fetch partition error")?;
    let high_watermark = cursor.i64_be("Fetch high watermark")?;
    cursor.i64_be("Fetch last stable offset")?;
    if version >= 5 {
        cursor.i64_be("Fetch log start offset")?;
    }
    array(cursor, "Fetch aborted transactions", |cursor| {
        cursor.i64_be("Fetch aborted producer id")?;
        cursor.i64_be("Fetch aborted first offset")
    })?;
    if version >= 11 {
        cursor.i32_be("Fetch preferred read replica")?;
    }
    Ok(Fetch {
        code,
        high_watermark,
        records: nullable_bytes(cursor, "Fetch records")?.unwrap_or_default(),
    })
}
