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
        nullable_string(cursor, "Metadata cluster id")?;
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
    /// Error code, resource name, and the values asked for by name.
    pub(super) resources: Vec<(i16, String, Vec<(String, Option<String>)>)>,
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
            Ok((code, name, values))
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
