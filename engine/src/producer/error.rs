//! What can stop a producer, in words an operator can act on.
//!
//! Faults that pass (a broker restarting, a leader moving, too few replicas) are not errors: delivery is retried for as long as it
//! takes and the log says so. What is here ends the run.

use std::sync::Arc;

/// Why the producer cannot go on. Cheap to clone: the first one is kept and answered to every later call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// None of the configured brokers could be reached at start.
    #[error(
        "no broker of kafka.brokers answers ({brokers}): {reason}; start Kafka, or correct kafka.brokers, and check that this \
         machine may connect to it"
    )]
    Unreachable {
        /// The brokers that were tried, comma-separated.
        brokers: Arc<str>,
        /// What the last one said.
        reason: Arc<str>,
    },
    /// A file of `kafka.tls` cannot be used.
    #[error("kafka.tls: {reason}")]
    Tls {
        /// File and fault.
        reason: Arc<str>,
    },
    /// The broker refused us, or could not prove that it knows our password.
    #[error("broker {broker} does not authenticate user \"{username}\" by {mechanism}: {reason}")]
    Authentication {
        /// `host:port`.
        broker: Arc<str>,
        /// `kafka.sasl.username`.
        username: Arc<str>,
        /// `kafka.sasl.mechanism`.
        mechanism: &'static str,
        /// What happened and what to change.
        reason: Arc<str>,
    },
    /// A broker lacks what we need, or sends what cannot be decoded.
    #[error("broker {broker}: {reason}")]
    Broker {
        /// `host:port`.
        broker: Arc<str>,
        /// What happened and what to change.
        reason: Arc<str>,
    },
    /// A topic cannot be used or created.
    #[error("topic \"{topic}\": {reason}")]
    Topic {
        /// Its name.
        topic: Arc<str>,
        /// What happened and what to change.
        reason: Arc<str>,
    },
    /// A partition refuses records for good.
    #[error("topic \"{topic}\", partition {partition}: {reason}")]
    Partition {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// What happened and what to change.
        reason: Arc<str>,
    },
    /// Everything that was sent could not be acknowledged in the time given to [`close`](super::Producer::close).
    #[error(
        "{batches} record batches were not acknowledged in time; they are sent again at the next start"
    )]
    Unacknowledged {
        /// Record batches without an acknowledgement.
        batches: usize,
    },
    /// The producer has been closed.
    #[error("the producer is closed")]
    Closed,
}

impl ProducerError {
    pub(super) fn topic(topic: &str, reason: impl Into<Arc<str>>) -> Self {
        Self::Topic {
            topic: topic.into(),
            reason: reason.into(),
        }
    }

    pub(super) fn partition(topic: &str, partition: i32, reason: impl Into<Arc<str>>) -> Self {
        Self::Partition {
            topic: topic.into(),
            partition,
            reason: reason.into(),
        }
    }

    pub(super) fn broker(broker: &str, reason: impl Into<Arc<str>>) -> Self {
        Self::Broker {
            broker: broker.into(),
            reason: reason.into(),
        }
    }
}
