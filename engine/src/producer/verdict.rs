//! What a broker's answer to a record batch means for its delivery.
//!
//! Source: the Kafka protocol guide, "Error codes"; `ProducerStateManager` and `ProducerAppendInfo` of Kafka 3.9 for what a leader
//! checks of an idempotent producer.

use kafka_protocol::error::ResponseError;

/// How often in a row a fault that has no business lasting is tried before it halts the engine.
pub(super) const DOUBTFUL_ATTEMPTS_MAX: u32 = 10;

/// The consequence of one error code of a produce response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Written.
    Written,
    /// Written by an earlier attempt; the broker no longer knows at which offset.
    Repeated,
    /// Passes by itself; the same broker is asked again after a pause.
    Pause,
    /// Ask for metadata before the next attempt: the leader is elsewhere, or nowhere for now.
    Refresh,
    /// Might pass, might be a defect: retried [`DOUBTFUL_ATTEMPTS_MAX`] times.
    Doubtful,
    /// The sequence does not follow what the leader has. Expected behind a batch that failed; otherwise the leader has lost records
    /// or producer state.
    OutOfSequence,
    /// The leader does not know our producer id (any more).
    Forgotten,
    /// Never passes: the operator has to change something.
    Halt,
}

/// The verdict on error `code`.
pub(super) fn verdict(code: i16) -> Verdict {
    use ResponseError as E;
    let Some(error) = ResponseError::try_from_code(code) else {
        return Verdict::Written;
    };
    match error {
        E::DuplicateSequenceNumber => Verdict::Repeated,
        E::OutOfOrderSequenceNumber => Verdict::OutOfSequence,
        E::UnknownProducerId | E::InvalidProducerEpoch | E::InvalidProducerIdMapping => {
            Verdict::Forgotten
        }
        E::NotLeaderOrFollower
        | E::LeaderNotAvailable
        | E::UnknownTopicOrPartition
        | E::UnknownTopicId
        | E::FencedLeaderEpoch
        | E::UnknownLeaderEpoch
        | E::ReplicaNotAvailable
        | E::BrokerNotAvailable
        | E::ListenerNotFound
        | E::KafkaStorageError
        | E::NetworkException => Verdict::Refresh,
        E::UnknownServerError | E::CorruptMessage => Verdict::Doubtful,
        other if other.is_retriable() => Verdict::Pause,
        _ => Verdict::Halt,
    }
}

/// Whether a fault is part of an ordinary leader change, which deserves no warning while it is short.
pub(super) fn is_leader_change(code: i16) -> bool {
    matches!(
        ResponseError::try_from_code(code),
        Some(
            ResponseError::NotLeaderOrFollower
                | ResponseError::LeaderNotAvailable
                | ResponseError::FencedLeaderEpoch
                | ResponseError::UnknownLeaderEpoch
        )
    )
}

/// Whether the leader has waited in vain for the replicas in sync.
pub(super) fn is_timeout(code: i16) -> bool {
    ResponseError::try_from_code(code) == Some(ResponseError::RequestTimedOut)
}

/// Whether the broker does not know the topic, or the partition: perhaps not yet.
pub(super) fn is_missing(code: i16) -> bool {
    matches!(
        ResponseError::try_from_code(code),
        Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId)
    )
}

/// Whether an error code that metadata give a topic will not pass by itself.
pub(super) fn is_lasting(code: i16) -> bool {
    ResponseError::try_from_code(code)
        .is_some_and(|error| !error.is_retriable() && error != ResponseError::UnknownServerError)
}

/// The protocol guide's name of an error code.
pub(super) fn name(code: i16) -> &'static str {
    use ResponseError as E;
    match ResponseError::try_from_code(code) {
        None => "NONE",
        Some(error) => match error {
            E::UnknownServerError => "UNKNOWN_SERVER_ERROR",
            E::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
            E::CorruptMessage => "CORRUPT_MESSAGE",
            E::UnknownTopicOrPartition => "UNKNOWN_TOPIC_OR_PARTITION",
            E::LeaderNotAvailable => "LEADER_NOT_AVAILABLE",
            E::NotLeaderOrFollower => "NOT_LEADER_OR_FOLLOWER",
            E::RequestTimedOut => "REQUEST_TIMED_OUT",
            E::BrokerNotAvailable => "BROKER_NOT_AVAILABLE",
            E::ReplicaNotAvailable => "REPLICA_NOT_AVAILABLE",
            E::MessageTooLarge => "MESSAGE_TOO_LARGE",
            E::NetworkException => "NETWORK_EXCEPTION",
            E::CoordinatorLoadInProgress => "COORDINATOR_LOAD_IN_PROGRESS",
            E::CoordinatorNotAvailable => "COORDINATOR_NOT_AVAILABLE",
            E::NotCoordinator => "NOT_COORDINATOR",
            E::InvalidTopicException => "INVALID_TOPIC_EXCEPTION",
            E::RecordListTooLarge => "RECORD_LIST_TOO_LARGE",
            E::NotEnoughReplicas => "NOT_ENOUGH_REPLICAS",
            E::NotEnoughReplicasAfterAppend => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            E::InvalidRequiredAcks => "INVALID_REQUIRED_ACKS",
            E::TopicAuthorizationFailed => "TOPIC_AUTHORIZATION_FAILED",
            E::ClusterAuthorizationFailed => "CLUSTER_AUTHORIZATION_FAILED",
            E::InvalidTimestamp => "INVALID_TIMESTAMP",
            E::UnsupportedSaslMechanism => "UNSUPPORTED_SASL_MECHANISM",
            E::IllegalSaslState => "ILLEGAL_SASL_STATE",
            E::UnsupportedVersion => "UNSUPPORTED_VERSION",
            E::TopicAlreadyExists => "TOPIC_ALREADY_EXISTS",
            E::InvalidPartitions => "INVALID_PARTITIONS",
            E::InvalidReplicationFactor => "INVALID_REPLICATION_FACTOR",
            E::InvalidConfig => "INVALID_CONFIG",
            E::NotController => "NOT_CONTROLLER",
            E::InvalidRequest => "INVALID_REQUEST",
            E::UnsupportedForMessageFormat => "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            E::PolicyViolation => "POLICY_VIOLATION",
            E::OutOfOrderSequenceNumber => "OUT_OF_ORDER_SEQUENCE_NUMBER",
            E::DuplicateSequenceNumber => "DUPLICATE_SEQUENCE_NUMBER",
            E::InvalidProducerEpoch => "INVALID_PRODUCER_EPOCH",
            E::InvalidProducerIdMapping => "INVALID_PRODUCER_ID_MAPPING",
            E::KafkaStorageError => "KAFKA_STORAGE_ERROR",
            E::SaslAuthenticationFailed => "SASL_AUTHENTICATION_FAILED",
            E::UnknownProducerId => "UNKNOWN_PRODUCER_ID",
            E::FencedLeaderEpoch => "FENCED_LEADER_EPOCH",
            E::UnknownLeaderEpoch => "UNKNOWN_LEADER_EPOCH",
            E::UnsupportedCompressionType => "UNSUPPORTED_COMPRESSION_TYPE",
            E::OffsetNotAvailable => "OFFSET_NOT_AVAILABLE",
            E::InvalidRecord => "INVALID_RECORD",
            E::ThrottlingQuotaExceeded => "THROTTLING_QUOTA_EXCEEDED",
            E::ProducerFenced => "PRODUCER_FENCED",
            _ => "an error of another name",
        },
    }
}

/// Why a refused batch halts the engine and what the operator can do. `bytes` is the batch as sent.
pub(super) fn remedy(topic: &str, code: i16, bytes: usize, message: Option<&str>) -> String {
    use ResponseError as E;
    let said = message.map_or_else(String::new, |text| format!(" (\"{text}\")"));
    let name = name(code);
    match ResponseError::try_from_code(code) {
        Some(E::MessageTooLarge | E::RecordListTooLarge) => format!(
            "the broker takes no record batch of {bytes} bytes: {name}{said}; lower kafka.batch_max below the topic's \
             max.message.bytes and the broker's message.max.bytes, or raise those above what they are now (for the topic: \
             kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config max.message.bytes=…; it must stay below \
             segment.bytes); where they are above {bytes} already and the topic's compression.type is neither producer nor \
             kafka.compression, the broker compresses the batch anew and counts that: --add-config compression.type=producer"
        ),
        Some(E::TopicAuthorizationFailed) => format!(
            "not allowed to write: {name}{said}; grant it with kafka-acls.sh --add --allow-principal User:… --operation Write \
             --operation Describe --topic {topic}"
        ),
        Some(E::ClusterAuthorizationFailed) => format!(
            "not allowed to write as an idempotent producer: {name}{said}; grant it with kafka-acls.sh --add --allow-principal \
             User:… --operation IdempotentWrite --cluster"
        ),
        Some(E::UnsupportedCompressionType) => format!(
            "the broker does not take this compression: {name}{said}; zstd needs Kafka 2.1, otherwise set kafka.compression = \"lz4\""
        ),
        Some(E::InvalidTimestamp) => format!(
            "the broker refuses the records' timestamps, which are the times at which they were encoded here: {name}{said}; compare this \
             machine's clock with the broker's; if both are right, the records have waited too long to be written: set the topic's \
             message.timestamp.before.max.ms and message.timestamp.after.max.ms (message.timestamp.difference.max.ms before Kafka 3.6) \
             wider, or message.timestamp.type=LogAppendTime"
        ),
        Some(E::InvalidRecord | E::CorruptMessage) => format!(
            "the broker refuses the records: {name}{said}; a topic with cleanup.policy=compact takes no records without a key: set \
             cleanup.policy=delete for tables without a primary key"
        ),
        Some(E::PolicyViolation) => {
            format!("a policy of the broker refuses the records: {name}{said}")
        }
        Some(E::InvalidTopicException) => {
            format!("the broker does not take this topic name: {name}{said}; set kafka.topic")
        }
        Some(E::ProducerFenced) => format!(
            "another producer has taken our producer id over: {name}{said}; look for a second engine, then start again"
        ),
        _ => format!("the broker refuses the records for good: {name} (error {code}){said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, remedy, verdict};

    #[test]
    fn separates_what_passes_from_what_does_not() {
        for (code, expected) in [
            (0, Verdict::Written),
            (46, Verdict::Repeated),
            (45, Verdict::OutOfSequence),
            (59, Verdict::Forgotten),
            (47, Verdict::Forgotten),
            (6, Verdict::Refresh),
            (5, Verdict::Refresh),
            (3, Verdict::Refresh),
            (7, Verdict::Pause),
            (19, Verdict::Pause),
            (20, Verdict::Pause),
            (89, Verdict::Pause),
            (13, Verdict::Refresh),
            (-1, Verdict::Doubtful),
            (2, Verdict::Doubtful),
            (10, Verdict::Halt),
            (29, Verdict::Halt),
            (31, Verdict::Halt),
            (76, Verdict::Halt),
            (90, Verdict::Halt),
            (4711, Verdict::Halt),
        ] {
            assert_eq!(verdict(code), expected, "error {code}");
        }
    }

    #[test]
    fn says_what_to_change() {
        let text = remedy("shop.orders", 10, 2_000_000, Some("too big"));
        for part in [
            "MESSAGE_TOO_LARGE",
            "kafka.batch_max",
            "max.message.bytes",
            "message.max.bytes",
            "2000000",
            "too big",
            "compression.type=producer",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        // The limit may be above that: what the broker counts is the batch as it has compressed it.
        assert!(!text.contains("max.message.bytes=2000000"), "{text}");
        assert!(remedy("t", 29, 1, None).contains("kafka-acls.sh"));
        assert!(remedy("t", 31, 1, None).contains("IdempotentWrite"));
        // Records carry the time of their encoding: of what may be wrong the clock comes first.
        let text = remedy("t", 32, 1, None);
        let at = |part| {
            text.find(part)
                .unwrap_or_else(|| panic!("{part} is missing in {text}"))
        };
        assert!(at("this machine's clock") < at("message.timestamp.before.max.ms"));
        assert!(!text.contains("age of the changes"), "{text}");
    }
}
