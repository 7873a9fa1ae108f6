//! ListOffsets and OffsetForLeaderEpoch.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use super::Shared;
use super::partition::Partition;
use super::records::check_leader;

/// First version of ListOffsets that answers with the leader's epoch.
const EPOCH_SINCE: i16 = 4;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

/// Offsets by timestamp; the latest is the high watermark.
pub(super) fn list(
    shared: &Arc<Shared>,
    node: i32,
    version: i16,
    request: ListOffsetsRequest,
    error: Option<ResponseError>,
) -> ListOffsetsResponse {
    let find = |partition: &Partition, timestamp: i64| match timestamp {
        LATEST => Ok((-1, partition.high_watermark())),
        EARLIEST => Ok((-1, 0)),
        MAX_TIMESTAMP => Ok(partition.max_timestamp()),
        timestamp if timestamp >= 0 => Ok(partition.offset_at(timestamp)),
        _ => Err(ResponseError::InvalidRequest),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let found = error.map_or_else(
                || {
                    let found = shared
                        .topics
                        .with(&topic.name, wanted.partition_index, |p| {
                            check_leader(p, node, wanted.current_leader_epoch)?;
                            find(p, wanted.timestamp).map(|found| {
                                (
                                    found,
                                    if version >= EPOCH_SINCE {
                                        p.leader_epoch()
                                    } else {
                                        -1
                                    },
                                )
                            })
                        });
                    found.and_then(|found| found)
                },
                Err,
            );
            let response = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index);
            match found {
                Ok(((timestamp, offset), epoch)) => response
                    .with_timestamp(timestamp)
                    .with_offset(offset)
                    .with_leader_epoch(epoch),
                Err(error) => response
                    .with_error_code(error.code())
                    .with_timestamp(-1)
                    .with_offset(-1)
                    .with_leader_epoch(-1),
            }
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name.clone())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Where an epoch ends; the present one at the log's end, beyond the high watermark.
pub(super) fn for_leader_epoch(
    shared: &Arc<Shared>,
    node: i32,
    request: OffsetForLeaderEpochRequest,
    error: Option<ResponseError>,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let end = error.map_or_else(
                || {
                    let end = shared.topics.with(&topic.topic, wanted.partition, |p| {
                        check_leader(p, node, wanted.current_leader_epoch)?;
                        Ok(p.end_of_epoch(wanted.leader_epoch))
                    });
                    end.and_then(|end| end)
                },
                Err,
            );
            let (epoch, offset) = end.unwrap_or((-1, -1));
            EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_error_code(end.err().map_or(0, |error| error.code()))
                .with_leader_epoch(epoch)
                .with_end_offset(offset)
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic.clone())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
