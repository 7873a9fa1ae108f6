//! Produce and Fetch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse,
};
use protocol::kafka::Compression;
use protocol::kafka::record_batch::{self, BatchHeader, Decoder};

use super::Shared;
use super::partition::{Appended, Partition};
use super::topics::Topic;
use crate::clock;

/// Longest that a fetch waits, whatever it asks for.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);

/// First version of Produce that may carry zstd.
const ZSTD_SINCE: i16 = 7;

/// Appends what the request carries and answers per partition.
pub(super) fn produce(
    shared: &Arc<Shared>,
    node: i32,
    version: i16,
    request: ProduceRequest,
    error: Option<ResponseError>,
) -> ProduceResponse {
    let error = error.or_else(|| {
        let allowed = matches!(request.acks, -1..=1);
        (!allowed).then_some(ResponseError::InvalidRequiredAcks)
    });
    let mut appended_any = false;
    let mut topic_response = |data: TopicProduceData| {
        let topic = shared.topics.find(&data.name);
        let partitions = data.partition_data.into_iter().map(|partition| {
            let index = partition.index;
            let result = match (error, &topic) {
                (Some(error), _) => Err(error),
                (None, None) => Err(ResponseError::UnknownTopicOrPartition),
                (None, Some(topic)) => append(shared, node, version, topic, partition),
            };
            appended_any |= matches!(
                result,
                Ok(Appended {
                    duplicate: false,
                    ..
                })
            );
            partition_response(index, result)
        });
        TopicProduceResponse::default()
            .with_partition_responses(partitions.collect())
            .with_name(data.name)
    };
    let responses = request
        .topic_data
        .into_iter()
        .map(&mut topic_response)
        .collect();
    if appended_any {
        shared.topics.appended.notify_waiters();
    }
    ProduceResponse::default().with_responses(responses)
}

fn partition_response(
    index: i32,
    result: Result<Appended, ResponseError>,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default()
        .with_index(index)
        .with_log_append_time_ms(-1);
    match result {
        Ok(appended) => response
            .with_base_offset(appended.base_offset)
            .with_log_start_offset(0),
        Err(error) => response
            .with_base_offset(-1)
            .with_log_start_offset(-1)
            .with_error_code(error.code()),
    }
}

fn append(
    shared: &Shared,
    node: i32,
    version: i16,
    topic: &Topic,
    partition: PartitionProduceData,
) -> Result<Appended, ResponseError> {
    let max_bytes = topic.max_message_bytes.unwrap_or_else(|| {
        shared
            .message_max_bytes
            .load(std::sync::atomic::Ordering::Relaxed)
    });
    let bytes = partition.records.unwrap_or_default();
    // The leader is asked first, as a real broker does: a moved leader must not be hidden by another error.
    topic.with(partition.index, |p| led_here(p, node))??;
    let header = check(&bytes, version, max_bytes, shared.validate_records)?;
    topic.with(partition.index, |p| {
        led_here(p, node)?;
        p.append(&header, bytes, clock::now())
    })?
}

fn led_here(partition: &Partition, node: i32) -> Result<(), ResponseError> {
    if partition.leader == node {
        Ok(())
    } else {
        Err(ResponseError::NotLeaderOrFollower)
    }
}

/// What a broker checks of a batch before it is written.
fn check(
    bytes: &Bytes,
    version: i16,
    max_bytes: usize,
    validate_records: bool,
) -> Result<BatchHeader, ResponseError> {
    if bytes
        .get(16)
        .is_some_and(|magic| *magic as i8 != record_batch::MAGIC)
    {
        return Err(ResponseError::UnsupportedForMessageFormat);
    }
    let header = BatchHeader::parse(bytes)
        .ok()
        .flatten()
        .ok_or(ResponseError::CorruptMessage)?;
    // Exactly one batch per partition since Produce 3.
    if header.encoded_len() != bytes.len() {
        return Err(ResponseError::InvalidRecord);
    }
    if bytes.len() > max_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    record_batch::verify_crc(bytes).map_err(|_| ResponseError::CorruptMessage)?;
    if header.records == 0 || header.last_offset_delta != header.records - 1 || header.is_control()
    {
        return Err(ResponseError::InvalidRecord);
    }
    if header.producer_id >= 0 && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return Err(ResponseError::InvalidRecord);
    }
    if header.compression() == Compression::Zstd && version < ZSTD_SINCE {
        return Err(ResponseError::UnsupportedCompressionType);
    }
    if validate_records {
        validate(bytes, &header)?;
    }
    Ok(header)
}

/// Walks every record, as `LogValidator` does.
fn validate(bytes: &Bytes, header: &BatchHeader) -> Result<(), ResponseError> {
    let mut decoder = Decoder::new();
    let (_, records) = decoder
        .decode(bytes)
        .ok()
        .flatten()
        .ok_or(ResponseError::CorruptMessage)?;
    for (i, record) in records.enumerate() {
        let record = record.map_err(|_| ResponseError::InvalidRecord)?;
        if record.offset - header.base_offset != i as i64 {
            return Err(ResponseError::InvalidRecord);
        }
    }
    Ok(())
}

/// Answers as soon as `min_bytes` are there or something is wrong, otherwise after `max_wait_ms` with what there is.
pub(super) async fn fetch(
    shared: &Arc<Shared>,
    node: i32,
    request: FetchRequest,
    error: Option<ResponseError>,
) -> FetchResponse {
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(FETCH_WAIT_MAX);
    let deadline = clock::now() + wait;
    loop {
        // Enlisted before looking, so that an append in between is not missed.
        let mut appended = std::pin::pin!(shared.topics.appended.notified());
        appended.as_mut().enable();
        let (response, bytes, failed) = fetch_now(shared, node, &request, error);
        let enough =
            failed || request.topics.is_empty() || bytes >= request.min_bytes.max(0) as usize;
        if enough || clock::now() >= deadline {
            return response;
        }
        let _ = tokio::time::timeout_at(deadline.into(), appended).await;
    }
}

/// What is there, how many bytes of records, and whether a partition has an error.
fn fetch_now(
    shared: &Shared,
    node: i32,
    request: &FetchRequest,
    error: Option<ResponseError>,
) -> (FetchResponse, usize, bool) {
    let (mut total, mut failed) = (0, false);
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in &request.topics {
        let topic = shared.topics.find(&wanted.topic);
        let mut partitions = Vec::with_capacity(wanted.partitions.len());
        for partition in &wanted.partitions {
            let left = (request.max_bytes.max(0) as usize).saturating_sub(total);
            let most = left.min(partition.partition_max_bytes.max(0) as usize);
            let data = match (error, &topic) {
                (Some(error), _) => Err(error),
                (None, None) => Err(ResponseError::UnknownTopicOrPartition),
                (None, Some(topic)) => topic
                    .with(partition.partition, |p| {
                        led_here(p, node)?;
                        check_epoch(p, partition.current_leader_epoch)?;
                        let records = p.read(partition.fetch_offset, most, total == 0)?;
                        Ok((records, p.high_watermark()))
                    })
                    .and_then(|result| result),
            };
            failed |= data.is_err();
            total += data.as_ref().map_or(0, |(records, _)| records.len());
            partitions.push(partition_data(partition.partition, data));
        }
        topics.push(
            FetchableTopicResponse::default()
                .with_topic(wanted.topic.clone())
                .with_partitions(partitions),
        );
    }
    (
        FetchResponse::default().with_responses(topics),
        total,
        failed,
    )
}

fn partition_data(index: i32, data: Result<(Bytes, i64), ResponseError>) -> PartitionData {
    let (records, high_watermark, error) = match data {
        Ok((records, high_watermark)) => (records, high_watermark, 0),
        Err(error) => (Bytes::new(), -1, error.code()),
    };
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(error)
        .with_high_watermark(high_watermark)
        .with_last_stable_offset(high_watermark)
        .with_log_start_offset(if error == 0 { 0 } else { -1 })
        .with_aborted_transactions(Some(Vec::new()))
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(records))
}

/// A client that knows another leader epoch is told so; -1 does not ask.
pub(super) fn check_epoch(partition: &Partition, known: i32) -> Result<(), ResponseError> {
    match known {
        -1 => Ok(()),
        known if known < partition.leader_epoch() => Err(ResponseError::FencedLeaderEpoch),
        known if known > partition.leader_epoch() => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// As [`led_here`], for the other APIs about partitions.
pub(super) fn check_leader(
    partition: &Partition,
    node: i32,
    known_epoch: i32,
) -> Result<(), ResponseError> {
    led_here(partition, node)?;
    check_epoch(partition, known_epoch)
}
