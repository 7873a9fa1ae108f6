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

use std::ops::RangeInclusive;

use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use protocol::{Cursor, DecodeError, DecodeErrorKind};

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

/// What a broker speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiVersions {
    /// 0, or 35 where the broker does not know the version of our question (it answers all the same).
    pub(super) code: i16,
    /// API key, lowest, highest version.
    pub(super) ranges: Vec<(i16, i16, i16)>,
}

impl Response for ApiVersions {
    type Request = ApiVersionsRequest;
    const KEY: i16 = 18;
    const NAME: &'static str = "ApiVersions";
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        Ok(Self {
            code: cursor.i16_be("ApiVersions error code")?,
            ranges: array(cursor, "ApiVersions api keys", |cursor| {
                Ok((
                    cursor.i16_be("ApiVersions api key")?,
                    cursor.i16_be("ApiVersions min version")?,
                    cursor.i16_be("ApiVersions max version")?,
                ))
            })?,
        })
    }
}

/// Brokers, topics, partitions and who leads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Node id, host, port.
    pub(super) brokers: Vec<(i32, String, i32)>,
    /// The cluster's own name for itself.
    pub(super) cluster_id: Option<String>,
    /// Node id of the controller, −1 without one.
    pub(super) controller: i32,
    /// The topics asked for.
    pub(super) topics: Vec<TopicMetadata>,
}

/// One topic of [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicMetadata {
    /// Error code of the topic.
    pub(super) code: i16,
    /// Its name.
    pub(super) name: String,
    /// Its partitions, in no particular order.
    pub(super) partitions: Vec<PartitionMetadata>,
}

/// One partition of [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionMetadata {
    /// Error code; `LEADER_NOT_AVAILABLE` and the like.
    pub(super) code: i16,
    /// Its number.
    pub(super) index: i32,
    /// Node id of its leader, −1 without one.
    pub(super) leader: i32,
    /// The leader's epoch, −1 where the version does not carry it.
    pub(super) leader_epoch: i32,
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

/// A producer id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InitProducerId {
    /// Error code.
    pub(super) code: i16,
    /// The producer id.
    pub(super) producer_id: i64,
    /// Its epoch.
    pub(super) producer_epoch: i16,
}

impl Response for InitProducerId {
    type Request = InitProducerIdRequest;
    const KEY: i16 = 22;
    const NAME: &'static str = "InitProducerId";
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("InitProducerId throttle time")?;
        Ok(Self {
            code: cursor.i16_be("InitProducerId error code")?,
            producer_id: cursor.i64_be("InitProducerId producer id")?,
            producer_epoch: cursor.i16_be("InitProducerId producer epoch")?,
        })
    }
}

/// What became of the topics that were to be created: name, error code, the broker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CreateTopics {
    /// One entry per topic.
    pub(super) topics: Vec<(String, i16, Option<String>)>,
}

impl Response for CreateTopics {
    type Request = CreateTopicsRequest;
    const KEY: i16 = 19;
    const NAME: &'static str = "CreateTopics";
    const VERSIONS: RangeInclusive<i16> = 2..=4;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("CreateTopics throttle time")?;
        let topics = array(cursor, "CreateTopics topics", |cursor| {
            Ok((
                string(cursor, "CreateTopics name")?,
                cursor.i16_be("CreateTopics error code")?,
                nullable_string(cursor, "CreateTopics error message")?,
            ))
        })?;
        Ok(Self { topics })
    }
}

/// Configurations of resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DescribeConfigs {
    /// One entry per resource.
    pub(super) resources: Vec<ResourceConfigs>,
}

/// One entry of [`DescribeConfigs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceConfigs {
    /// Error code.
    pub(super) code: i16,
    /// The resource's name.
    pub(super) name: String,
    /// The values asked for, by name.
    pub(super) values: Vec<(String, Option<String>)>,
}

impl Response for DescribeConfigs {
    type Request = DescribeConfigsRequest;
    const KEY: i16 = 32;
    const NAME: &'static str = "DescribeConfigs";
    const VERSIONS: RangeInclusive<i16> = 1..=3;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("DescribeConfigs throttle time")?;
        let resources = array(cursor, "DescribeConfigs results", |cursor| {
            let code = cursor.i16_be("DescribeConfigs error code")?;
            nullable_string(cursor, "DescribeConfigs error message")?;
            cursor.i8("DescribeConfigs resource type")?;
            let name = string(cursor, "DescribeConfigs resource name")?;
            let values = array(cursor, "DescribeConfigs configs", |cursor| {
                config(cursor, version)
            })?;
            Ok(ResourceConfigs { code, name, values })
        })?;
        Ok(Self { resources })
    }
}

fn config(cursor: &mut Cursor<'_>, version: i16) -> Result<(String, Option<String>), DecodeError> {
    let name = string(cursor, "DescribeConfigs name")?;
    let value = nullable_string(cursor, "DescribeConfigs value")?;
    boolean(cursor, "DescribeConfigs read only")?;
    cursor.i8("DescribeConfigs source")?;
    boolean(cursor, "DescribeConfigs is sensitive")?;
    array(cursor, "DescribeConfigs synonyms", |cursor| {
        string(cursor, "DescribeConfigs synonym name")?;
        nullable_string(cursor, "DescribeConfigs synonym value")?;
        cursor.i8("DescribeConfigs synonym source")
    })?;
    if version >= 3 {
        cursor.i8("DescribeConfigs type")?;
        nullable_string(cursor, "DescribeConfigs documentation")?;
    }
    Ok((name, value))
}

/// An offset of a partition, as ListOffsets and OffsetForLeaderEpoch tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionOffset {
    /// The topic's name.
    pub(super) topic: String,
    /// The partition.
    pub(super) partition: i32,
    /// Error code.
    pub(super) code: i16,
    /// The offset, −1 without one.
    pub(super) offset: i64,
}

/// High watermarks, or log start offsets: what the timestamp of the question asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListOffsets(pub(super) Vec<PartitionOffset>);

impl Response for ListOffsets {
    type Request = ListOffsetsRequest;
    const KEY: i16 = 2;
    const NAME: &'static str = "ListOffsets";
    const VERSIONS: RangeInclusive<i16> = 1..=5;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        if version >= 2 {
            cursor.i32_be("ListOffsets throttle time")?;
        }
        let topics = array(cursor, "ListOffsets topics", |cursor| {
            let topic = string(cursor, "ListOffsets topic name")?;
            array(cursor, "ListOffsets partitions", |cursor| {
                let partition = cursor.i32_be("ListOffsets partition")?;
                let code = cursor.i16_be("ListOffsets error code")?;
                cursor.i64_be("ListOffsets timestamp")?;
                let offset = cursor.i64_be("ListOffsets offset")?;
                if version >= 4 {
                    cursor.i32_be("ListOffsets leader epoch")?;
                }
                Ok(PartitionOffset {
                    topic: topic.clone(),
                    partition,
                    code,
                    offset,
                })
            })
        })?;
        Ok(Self(topics.into_iter().flatten().collect()))
    }
}

/// Log end offsets: where the asked epoch, the present one, ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OffsetForLeaderEpoch(pub(super) Vec<PartitionOffset>);

impl Response for OffsetForLeaderEpoch {
    type Request = OffsetForLeaderEpochRequest;
    const KEY: i16 = 23;
    const NAME: &'static str = "OffsetForLeaderEpoch";
    const VERSIONS: RangeInclusive<i16> = 2..=3;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        cursor.i32_be("OffsetForLeaderEpoch throttle time")?;
        let topics = array(cursor, "OffsetForLeaderEpoch topics", |cursor| {
            let topic = string(cursor, "OffsetForLeaderEpoch topic name")?;
            array(cursor, "OffsetForLeaderEpoch partitions", |cursor| {
                let code = cursor.i16_be("OffsetForLeaderEpoch error code")?;
                let partition = cursor.i32_be("OffsetForLeaderEpoch partition")?;
                cursor.i32_be("OffsetForLeaderEpoch leader epoch")?;
                let offset = cursor.i64_be("OffsetForLeaderEpoch end offset")?;
                Ok(PartitionOffset {
                    topic: topic.clone(),
                    partition,
                    code,
                    offset,
                })
            })
        })?;
        Ok(Self(topics.into_iter().flatten().collect()))
    }
}

/// Record batches of the one partition that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetch {
    /// Error code of the partition or the request.
    pub(super) code: i16,
    /// The high watermark.
    pub(super) high_watermark: i64,
    /// Whole record batches; the last may be cut off.
    pub(super) records: Vec<u8>,
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

/// Whether the broker knows the mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SaslHandshake {
    /// Error code.
    pub(super) code: i16,
    /// Mechanisms that it knows.
    pub(super) mechanisms: Vec<String>,
}

impl Response for SaslHandshake {
    type Request = SaslHandshakeRequest;
    const KEY: i16 = 17;
    const NAME: &'static str = "SaslHandshake";
    const VERSIONS: RangeInclusive<i16> = 1..=1;

    fn read(cursor: &mut Cursor<'_>, _version: i16) -> Result<Self, DecodeError> {
        Ok(Self {
            code: cursor.i16_be("SaslHandshake error code")?,
            mechanisms: array(cursor, "SaslHandshake mechanisms", |cursor| {
                string(cursor, "SaslHandshake mechanism")
            })?,
        })
    }
}

/// One step of an authentication exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SaslAuthenticate {
    /// Error code.
    pub(super) code: i16,
    /// The broker's words.
    pub(super) message: Option<String>,
    /// The mechanism's own message.
    pub(super) bytes: Vec<u8>,
}

impl Response for SaslAuthenticate {
    type Request = SaslAuthenticateRequest;
    const KEY: i16 = 36;
    const NAME: &'static str = "SaslAuthenticate";
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        let answer = Self {
            code: cursor.i16_be("SaslAuthenticate error code")?,
            message: nullable_string(cursor, "SaslAuthenticate error message")?,
            bytes: nullable_bytes(cursor, "SaslAuthenticate bytes")?.unwrap_or_default(),
        };
        if version >= 1 {
            cursor.i64_be("SaslAuthenticate session lifetime")?;
        }
        Ok(answer)
    }
}

/// Answers to the record batches of a produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Produced {
    /// One entry per batch.
    pub(super) parts: Vec<ProducedPart>,
}

/// One entry of [`Produced`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProducedPart {
    /// The topic's name.
    pub(super) topic: String,
    /// The partition.
    pub(super) partition: i32,
    /// Error code.
    pub(super) code: i16,
    /// Offset of the batch's first record.
    pub(super) base_offset: i64,
    /// The broker's words.
    pub(super) message: Option<String>,
}

impl Produced {
    /// Reads the body of a produce response of versions 3 to 8.
    pub(super) fn read(cursor: &mut Cursor<'_>, version: i16) -> Result<Self, DecodeError> {
        let topics = array(cursor, "Produce responses", |cursor| {
            let topic = string(cursor, "Produce topic name")?;
            array(cursor, "Produce partition responses", |cursor| {
                produced_part(cursor, &topic, version)
            })
        })?;
        cursor.i32_be("Produce throttle time")?;
        Ok(Self {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
    use kafka_protocol::messages::describe_configs_response::{
        DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
    };
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction, FetchableTopicResponse, PartitionData,
    };
    use kafka_protocol::messages::list_offsets_response::{
        ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
    };
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::offset_for_leader_epoch_response::{
        EpochEndOffset, OffsetForLeaderTopicResult,
    };
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{
        ApiVersionsResponse, BrokerId, CreateTopicsResponse, DescribeConfigsResponse,
        FetchResponse, InitProducerIdResponse, ListOffsetsResponse, MetadataResponse,
        OffsetForLeaderEpochResponse, ProduceResponse, ProducerId, SaslAuthenticateResponse,
        SaslHandshakeResponse, TopicName,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use protocol::{Cursor, DecodeError, DecodeErrorKind};

    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn topic(name: &'static str) -> TopicName {
        TopicName::from(text(name))
    }

    /// Encodes by the kafka-protocol crate, decodes by us; every shorter prefix is an error, never a panic.
    fn through<T>(
        message: &impl Encodable,
        version: i16,
        read: impl Fn(&mut Cursor<'_>, i16) -> Result<T, DecodeError>,
    ) -> T {
        let mut bytes = Vec::new();
        message.encode(&mut bytes, version).unwrap();
        for length in 0..bytes.len() {
            let cut = read(&mut Cursor::new(&bytes[..length]), version);
            let error = cut.err().expect("a part is not the whole");
            assert!(
                matches!(error.kind, DecodeErrorKind::Truncated { .. }),
                "{error}"
            );
        }
        let mut cursor = Cursor::new(&bytes);
        let decoded = read(&mut cursor, version).unwrap();
        cursor.finish("response").unwrap();
        decoded
    }

    #[test]
    fn reads_metadata() {
        let message = MetadataResponse::default()
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(7))
                    .with_host(text("k1"))
                    .with_port(9093)
                    .with_rack(Some(text("r"))),
            ])
            .with_cluster_id(Some(text("c")))
            .with_controller_id(BrokerId(7))
            .with_topics(vec![
                MetadataResponseTopic::default()
                    .with_name(Some(topic("t")))
                    .with_partitions(vec![
                        MetadataResponsePartition::default()
                            .with_partition_index(1)
                            .with_leader_id(BrokerId(7))
                            .with_replica_nodes(vec![BrokerId(7), BrokerId(8)])
                            .with_isr_nodes(vec![BrokerId(7)]),
                    ]),
            ]);
        for version in Metadata::VERSIONS {
            let mut message = message.clone();
            message.topics[0].partitions[0].leader_epoch = if version >= 7 { 5 } else { -1 };
            let metadata = through(&message, version, Metadata::read);
            assert_eq!(metadata.brokers, [(7, "k1".to_owned(), 9093)]);
            assert_eq!(metadata.cluster_id.as_deref(), Some("c"));
            assert_eq!(metadata.controller, 7);
            assert_eq!(metadata.topics[0].name, "t");
            let partition = &metadata.topics[0].partitions[0];
            let epoch = if version >= 7 { 5 } else { -1 };
            assert_eq!(
                (partition.index, partition.leader, partition.leader_epoch),
                (1, 7, epoch)
            );
        }
    }

    #[test]
    fn reads_produce_responses() {
        let message = ProduceResponse::default().with_responses(vec![
            TopicProduceResponse::default()
                .with_name(topic("t"))
                .with_partition_responses(vec![
                    PartitionProduceResponse::default()
                        .with_index(3)
                        .with_base_offset(42),
                    PartitionProduceResponse::default()
                        .with_index(4)
                        .with_error_code(87)
                        .with_base_offset(-1),
                ]),
        ]);
        for version in super::super::produce::VERSIONS {
            let mut message = message.clone();
            if version >= 8 {
                message.responses[0].partition_responses[1].record_errors = vec![
                    BatchIndexAndErrorMessage::default()
                        .with_batch_index(2)
                        .with_batch_index_error_message(Some(text("no key"))),
                ];
            }
            let parts = through(&message, version, Produced::read).parts;
            assert_eq!(
                (parts[0].partition, parts[0].code, parts[0].base_offset),
                (3, 0, 42)
            );
            assert_eq!((parts[1].topic.as_str(), parts[1].code), ("t", 87));
            assert_eq!(
                parts[1].message.as_deref(),
                (version >= 8).then_some("no key")
            );
        }
    }

    #[test]
    fn reads_offsets() {
        for version in ListOffsets::VERSIONS {
            let message = ListOffsetsResponse::default().with_topics(vec![
                ListOffsetsTopicResponse::default()
                    .with_name(topic("t"))
                    .with_partitions(vec![
                        ListOffsetsPartitionResponse::default()
                            .with_partition_index(2)
                            .with_offset(77)
                            .with_leader_epoch(if version >= 4 { 3 } else { -1 }),
                    ]),
            ]);
            let ListOffsets(offsets) = through(&message, version, ListOffsets::read);
            assert_eq!((offsets[0].partition, offsets[0].offset), (2, 77));
        }
        for version in OffsetForLeaderEpoch::VERSIONS {
            let message = OffsetForLeaderEpochResponse::default().with_topics(vec![
                OffsetForLeaderTopicResult::default()
                    .with_topic(topic("t"))
                    .with_partitions(vec![
                        EpochEndOffset::default()
                            .with_partition(2)
                            .with_leader_epoch(3)
                            .with_end_offset(78),
                    ]),
            ]);
            let OffsetForLeaderEpoch(offsets) =
                through(&message, version, OffsetForLeaderEpoch::read);
            assert_eq!(
                (
                    offsets[0].topic.as_str(),
                    offsets[0].partition,
                    offsets[0].offset
                ),
                ("t", 2, 78)
            );
        }
    }

    #[test]
    fn reads_fetches() {
        for version in Fetch::VERSIONS {
            let mut partition = PartitionData::default()
                .with_partition_index(0)
                .with_high_watermark(9)
                .with_aborted_transactions(Some(vec![AbortedTransaction::default()]))
                .with_records(Some(Bytes::from_static(b"batches")));
            if version >= 11 {
                partition.preferred_read_replica = BrokerId(2);
            }
            let message = FetchResponse::default().with_responses(vec![
                FetchableTopicResponse::default()
                    .with_topic(topic("t"))
                    .with_partitions(vec![partition]),
            ]);
            let fetched = through(&message, version, Fetch::read);
            assert_eq!((fetched.code, fetched.high_watermark), (0, 9));
            assert_eq!(fetched.records, b"batches");
        }
    }

    #[test]
    fn reads_what_administers() {
        let message = InitProducerIdResponse::default()
            .with_producer_id(ProducerId(4000))
            .with_producer_epoch(1);
        for version in InitProducerId::VERSIONS {
            let answer = through(&message, version, InitProducerId::read);
            assert_eq!(
                (answer.code, answer.producer_id, answer.producer_epoch),
                (0, 4000, 1)
            );
        }
        let message = CreateTopicsResponse::default().with_topics(vec![
            CreatableTopicResult::default()
                .with_name(topic("t"))
                .with_error_code(38)
                .with_error_message(Some(text("too many"))),
        ]);
        for version in CreateTopics::VERSIONS {
            let answer = through(&message, version, CreateTopics::read);
            assert_eq!(
                answer.topics,
                [("t".to_owned(), 38, Some("too many".to_owned()))]
            );
        }
        for version in DescribeConfigs::VERSIONS {
            let value = DescribeConfigsResourceResult::default()
                .with_name(text("max.message.bytes"))
                .with_value(Some(text("1048588")))
                .with_synonyms(vec![
                    DescribeConfigsSynonym::default().with_name(text("message.max.bytes")),
                ]);
            let message = DescribeConfigsResponse::default().with_results(vec![
                DescribeConfigsResult::default()
                    .with_resource_name(text("t"))
                    .with_configs(vec![value]),
            ]);
            let answer = through(&message, version, DescribeConfigs::read);
            assert_eq!(answer.resources[0].name, "t");
            assert_eq!(
                answer.resources[0].values,
                [("max.message.bytes".to_owned(), Some("1048588".to_owned()))]
            );
        }
    }

    #[test]
    fn reads_what_opens_a_connection() {
        let message = ApiVersionsResponse::default().with_api_keys(vec![
            kafka_protocol::messages::api_versions_response::ApiVersion::default()
                .with_api_key(3)
                .with_max_version(9),
        ]);
        assert_eq!(through(&message, 0, ApiVersions::read).ranges, [(3, 0, 9)]);
        let message = SaslHandshakeResponse::default()
            .with_error_code(33)
            .with_mechanisms(vec![text("PLAIN")]);
        assert_eq!(
            through(&message, 1, SaslHandshake::read).mechanisms,
            ["PLAIN"]
        );
        for version in SaslAuthenticate::VERSIONS {
            let message = SaslAuthenticateResponse::default()
                .with_error_code(58)
                .with_error_message(Some(text("no")))
                .with_auth_bytes(Bytes::from_static(b"x"));
            let answer = through(&message, version, SaslAuthenticate::read);
            assert_eq!(
                (answer.code, answer.message.as_deref(), answer.bytes),
                (58, Some("no"), b"x".to_vec())
            );
        }
    }

    /// Eight bytes that claim two thousand million topics.
    #[test]
    fn does_not_believe_lengths() {
        let bytes = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let error = Produced::read(&mut Cursor::new(&bytes), 8).unwrap_err();
        assert!(
            matches!(error.kind, DecodeErrorKind::Truncated { .. }),
            "{error}"
        );
    }
}
