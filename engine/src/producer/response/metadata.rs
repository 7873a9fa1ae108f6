//! Metadata: who leads what.

use std::ops::RangeInclusive;

use kafka_protocol::messages::MetadataRequest;
use protocol::{Cursor, DecodeError};

use super::{Response, array, boolean, nullable_string, string};

/// Brokers, topics, partitions and who leads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct Metadata {
    /// Node id, host, port.
    pub(in crate::producer) brokers: Vec<(i32, String, i32)>,
    /// The cluster's own name for itself.
    pub(in crate::producer) cluster_id: Option<String>,
    /// Node id of the controller, −1 without one.
    pub(in crate::producer) controller: i32,
    /// The topics asked for.
    pub(in crate::producer) topics: Vec<TopicMetadata>,
}

/// One topic of [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct TopicMetadata {
    /// Error code of the topic.
    pub(in crate::producer) code: i16,
    /// Its name.
    pub(in crate::producer) name: String,
    /// Its partitions, in no particular order.
    pub(in crate::producer) partitions: Vec<PartitionMetadata>,
}

/// One partition of [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) struct PartitionMetadata {
    /// Error code; `LEADER_NOT_AVAILABLE` and the like.
    pub(in crate::producer) code: i16,
    /// Its number.
    pub(in crate::producer) index: i32,
    /// Node id of its leader, −1 without one.
    pub(in crate::producer) leader: i32,
    /// The leader's epoch, −1 where the version does not carry it.
    pub(in crate::producer) leader_epoch: i32,
}

impl Response for Metadata {
    type Request = MetadataRequest;
    const KEY: i16 = 3;
    const NAME: &'static str = "Metadata";
    const VERSIONS: RangeInclusive<i16> = 4..=8;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("Metadata throttle time")?;
        let brokers = array(cursor, "Metadata brokers", |cursor| {
            let broker = (
                cursor.i32_be("Metadata node id")?,
                string(cursor, "Metadata host")?,
                cursor.i32_be("Metadata port")?,
            );
            nullable_string(cursor, "Metadata rack")?;
            Ok(broker)
        })?;
        let cluster_id = nullable_string(cursor, "Metadata cluster id")?;
        let controller = cursor.i32_be("Metadata controller id")?;
        let topics = array(cursor, "Metadata topics", |cursor| {
            let code = cursor.i16_be("Metadata topic error")?;
            let name = string(cursor, "Metadata topic name")?;
            boolean(cursor, "Metadata is internal")?;
            let partitions = array(cursor, "Metadata partitions", |cursor| {
                partition_metadata(cursor, version)
            })?;
            if version >= 8 {
                cursor.i32_be("Metadata topic operations")?;
            }
            Ok(TopicMetadata {
                code,
                name,
                partitions,
            })
        })?;
        if version >= 8 {
            cursor.i32_be("Metadata cluster operations")?;
        }
        Ok(Self {
            brokers,
            cluster_id,
            controller,
            topics,
        })
    }
}

fn partition_metadata(
    cursor: &mut Cursor<'_>,
    version: i16,
) -> Result<PartitionMetadata, DecodeError> {
    let metadata = PartitionMetadata {
        code: cursor.i16_be("Metadata partition error")?,
        index: cursor.i32_be("Metadata partition index")?,
        leader: cursor.i32_be("Metadata leader id")?,
        leader_epoch: if version >= 7 {
            cursor.i32_be("Metadata leader epoch")?
        } else {
            -1
        },
    };
    array(cursor, "Metadata replicas", |cursor| {
        cursor.i32_be("Metadata replica")
    })?;
    array(cursor, "Metadata in-sync replicas", |cursor| {
        cursor.i32_be("Metadata in-sync replica")
    })?;
    if version >= 5 {
        array(cursor, "Metadata offline replicas", |cursor| {
            cursor.i32_be("Metadata offline replica")
        })?;
    }
    Ok(metadata)
}
