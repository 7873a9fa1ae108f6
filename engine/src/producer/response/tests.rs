//! Every response as the `kafka-protocol` crate encodes it, at every version that we speak.

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
    ApiVersionsResponse, BrokerId, CreateTopicsResponse, DescribeConfigsResponse, FetchResponse,
    InitProducerIdResponse, ListOffsetsResponse, MetadataResponse, OffsetForLeaderEpochResponse,
    ProduceResponse, ProducerId, SaslAuthenticateResponse, SaslHandshakeResponse, TopicName,
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
    let message = ProduceResponse::default().with_throttle_time_ms(70);
    let message = message.with_responses(vec![
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
    for version in crate::producer::produce::VERSIONS {
        let mut message = message.clone();
        if version >= 8 {
            message.responses[0].partition_responses[1].record_errors = vec![
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(2)
                    .with_batch_index_error_message(Some(text("no key"))),
            ];
        }
        let produced = through(&message, version, Produced::read);
        assert_eq!(produced.throttle.as_millis(), 70);
        let parts = produced.parts;
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
        let OffsetForLeaderEpoch(offsets) = through(&message, version, OffsetForLeaderEpoch::read);
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
            .with_auth_bytes(Bytes::from_static(b"x"))
            .with_session_lifetime_ms(3_600_000);
        let answer = through(&message, version, SaslAuthenticate::read);
        let lifetime = answer.session_lifetime_ms;
        assert_eq!(lifetime, 3_600_000 * i64::from(version), "since version 1");
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
