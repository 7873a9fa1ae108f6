//! What became of record batches: Produce.

use std::time::Duration;

use protocol::{Cursor, DecodeError};

use super::{array, nullable_string, string};

/// Answers to the record batches of a produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct Produced {
    /// One entry per batch.
    pub(in crate::producer) parts: Vec<ProducedPart>,
    /// For how long the broker reads no further request over this connection, for a quota (from Kafka 2.0 on, KIP-219).
    pub(in crate::producer) throttle: Duration,
}

/// One entry of [`Produced`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct ProducedPart {
    /// The topic's name.
    pub(in crate::producer) topic: String,
    /// The partition.
    pub(in crate::producer) partition: i32,
    /// Error code.
    pub(in crate::producer) code: i16,
    /// Offset of the batch's first record.
    pub(in crate::producer) base_offset: i64,
    /// The broker's words.
    pub(in crate::producer) message: Option<String>,
}

impl Produced {
    /// Reads the body of a produce response of versions 3 to 8.
    pub(in crate::producer) fn read(
        cursor: &mut Cursor<'_>,
        version: i16,
    ) -> Result<Self, DecodeError> {
        let topics = array(cursor, "Produce responses", |cursor| {
            let topic = string(cursor, "Produce topic name")?;
            array(cursor, "Produce partition responses", |cursor| {
                produced_part(cursor, &topic, version)
            })
        })?;
        let throttle = cursor.i32_be("Produce throttle time")?;
        Ok(Self {
            throttle: Duration::from_millis(u64::try_from(throttle).unwrap_or(0)),
            parts: topics.into_iter().flatten().collect(),
        })
    }
}

fn produced_part(
    cursor: &mut Cursor<'_>,
    topic: &str,
    version: i16,
) -> Result<ProducedPart, DecodeError> {
    let partition = cursor.i32_be("Produce partition")?;
    let code = cursor.i16_be("Produce error code")?;
    let base_offset = cursor.i64_be("Produce base offset")?;
    cursor.i64_be("Produce log append time")?;
    if version >= 5 {
        cursor.i64_be("Produce log start offset")?;
    }
    let mut message = None;
    if version >= 8 {
        let records = array(cursor, "Produce record errors", |cursor| {
            cursor.i32_be("Produce record index")?;
            nullable_string(cursor, "Produce record error")
        })?;
        message = nullable_string(cursor, "Produce error message")?
            .or_else(|| records.into_iter().flatten().next());
    }
    Ok(ProducedPart {
        topic: topic.to_owned(),
        partition,
        code,
        base_offset,
        message,
    })
}
