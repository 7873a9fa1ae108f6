//! Topics: found, created where the configuration allows it, and asked how large a record batch they take, and how compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{self, Arc, PoisonError};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::config::{Compression, TopicSettings};

use super::backoff::Backoff;
use super::connection::Fault;
use super::error::ProducerError;
use super::metadata::{Cluster, topic_name};
use super::registry::Registry;
use super::response::{CreateTopics, DescribeConfigs, TopicMetadata};
use super::verdict;

/// How long the controller may take to create topics.
const CREATE_TIMEOUT: Duration = Duration::from_secs(15);

/// Topics of one CreateTopics request: a controller applies one request as a whole.
const CREATE_MAX: usize = 500;

/// Rounds of asking about the same topics before the log tells what they wait for, and again after as many.
const ROUNDS_UNTIL_WARNING: u32 = 10;

/// Rounds, over some five seconds, in which a topic that is not to be created must be unknown, to each broker in turn, until it counts
/// as gone: one that has just started may not know all topics.
const ROUNDS_UNTIL_GONE: u32 = 13;

/// Rounds, over a minute, in which a cluster may lack the brokers for the replicas of a new topic: one of them may be restarting.
const ROUNDS_UNTIL_REFUSED: u32 = 60;

/// The version of CreateTopics from which on −1 is the broker's default (KIP-464, Kafka 2.4).
const DEFAULTS_FROM: i16 = 4;

/// Settings of a topic.
const MESSAGE_BYTES_MAX: &str = "max.message.bytes";
const COMPRESSION_TYPE: &str = "compression.type";

/// Resource type TOPIC of DescribeConfigs.
const RESOURCE_TOPIC: i8 = 2;

/// A topic that can be written.
#[derive(Debug)]
pub(super) struct Found {
    /// Its partitions, each with a leader.
    pub(super) metadata: TopicMetadata,
    /// Its `max.message.bytes`, where the broker tells us: it asks for DescribeConfigs on the topic, which is not needed to write.
    pub(super) message_bytes_max: Option<usize>,
    /// Its `compression.type`, where the broker tells us.
    pub(super) compression_type: Option<Box<str>>,
    /// Whether it was us who created it: nobody has written to it before.
    pub(super) created: bool,
}

/// What became of topics that were missing.
#[derive(Debug, Default)]
struct Created {
    /// By us.
    ours: BTreeSet<Arc<str>>,
    /// They exist, perhaps by somebody else.
    all: BTreeSet<Arc<str>>,
    /// By nobody, for want of brokers: rounds in which that was so.
    refused: BTreeMap<Arc<str>, u32>,
    /// By nobody, as they are not to be created: rounds in which they were unknown.
    unknown: BTreeMap<Arc<str>, u32>,
}

/// Enters those of these topics into the registry that it does not know yet, and answers them; missing ones are created by `settings`,
/// or left out without. Warns of those of which the broker compresses anew what comes in `compression`.
///
/// # Errors
/// As [`ensure`].
pub(super) async fn look_up(
    cluster: &Mutex<Cluster>,
    registry: &sync::Mutex<Registry>,
    names: &[&str],
    settings: Option<&TopicSettings>,
    compression: Compression,
) -> Result<Vec<Found>, ProducerError> {
    let registry = || registry.lock().unwrap_or_else(PoisonError::into_inner);
    let new = registry().unknown(names);
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let found = ensure(cluster, &new, settings).await?;
    let differing = |topic: &&Found| is_compressed_anew(topic, compression);
    if let Some(topic) = found.iter().find(differing) {
        warn!(
            topic = %topic.metadata.name,
            compression_type = topic.compression_type.as_deref(),
            topics = found.iter().filter(differing).count(),
            "the broker compresses every record batch of the topic anew, which takes its processors' time, and counts what comes of it \
             against max.message.bytes: set the topic's compression.type=producer, or kafka.compression to what it has"
        );
    }
    let mut registry = registry();
    for topic in &found {
        registry.enter(topic);
    }
    Ok(found)
}

/// The topics' partitions, each topic existing and each partition with a leader; missing topics are created, or left out without
/// `settings`.
/// A topic comes once, in the order of names.
///
/// # Errors
/// A topic that is missing and may not be created, that cannot be created, or that we may not see. Faults that pass are waited out.
async fn ensure(
    cluster: &Mutex<Cluster>,
    names: &[Arc<str>],
    settings: Option<&TopicSettings>,
) -> Result<Vec<Found>, ProducerError> {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
    ensure_with(cluster, names, settings, &mut backoff).await
}

/// As [`ensure`], with these pauses.
async fn ensure_with(
    cluster: &Mutex<Cluster>,
    names: &[Arc<str>],
    settings: Option<&TopicSettings>,
    backoff: &mut Backoff,
) -> Result<Vec<Found>, ProducerError> {
    let mut wanted: BTreeSet<Arc<str>> = names.iter().cloned().collect();
    let mut created = Created::default();
    let mut found = BTreeMap::new();
    while !wanted.is_empty() {
        let known = created.all.len();
        // Free between the rounds: others wait to learn who leads what has moved.
        let mut asked = cluster.lock().await;
        let round = round(&mut asked, &wanted, &mut created, settings).await;
        if !created.unknown.is_empty() {
            asked.ask_another();
        }
        drop(asked);
        let waits_for = match round {
            Ok((ready, waits_for)) => {
                for topic in ready {
                    wanted.remove(topic.metadata.name.as_str());
                    found.insert(topic.metadata.name.clone(), topic);
                }
                waits_for
            }
            Err(Fault::Passing(reason)) => Some(reason),
            Err(Fault::Lasting(error)) => return Err(error),
        };
        wanted.retain(|name| created.unknown.get(name) < Some(&ROUNDS_UNTIL_GONE));
        // Whoever has just created topics often knows them at once, and the stream waits for them.
        if wanted.is_empty() || created.all.len() > known {
            continue;
        }
        let pause = backoff.pause();
        if backoff.attempts().is_multiple_of(ROUNDS_UNTIL_WARNING) {
            let reason = waits_for.unwrap_or_else(|| "metadata do not mention them yet".to_owned());
            warn!(topics = wanted.len(), %reason, "topics are not ready, waiting until they are");
        }
        sleep(pause).await;
    }
    Ok(found.into_values().collect())
}

/// Asks once, creates what is missing. Answers the topics that are ready, and what one of the others waits for.
async fn round(
    cluster: &mut Cluster,
    wanted: &BTreeSet<Arc<str>>,
    created: &mut Created,
    settings: Option<&TopicSettings>,
) -> Result<(Vec<Found>, Option<String>), Fault> {
    let names: Vec<_> = wanted.iter().cloned().collect();
    let mut ready = Vec::new();
    let mut missing = Vec::new();
    let mut waits_for = None;
    let (metadata, limits) = cluster
        .metadata_with::<DescribeConfigs>(&names, Some(&limits_request(&names)))
        .await?;
    let limits = limits.map(limits_of).unwrap_or_default();
    for topic in metadata.topics {
        let Some(name) = wanted.get(topic.name.as_str()) else {
            continue;
        };
        match ResponseError::try_from_code(topic.code) {
            None => match topic
                .partitions
                .iter()
                .find(|partition| partition.leader < 0)
            {
                Some(partition) => {
                    waits_for = Some(format!(
                        "\"{name}\" partition {} has no leader",
                        partition.index
                    ))
                }
                None if topic.partitions.is_empty() => {
                    waits_for = Some(format!("\"{name}\" has no partitions"))
                }
                None => {
                    let limits = limits.get(name).cloned().unwrap_or_default();
                    ready.push(Found {
                        message_bytes_max: limits.message_bytes_max,
                        compression_type: limits.compression_type,
                        created: created.ours.contains(name),
                        metadata: topic,
                    });
                }
            },
            Some(ResponseError::UnknownTopicOrPartition) if created.all.contains(name) => {
                waits_for = Some(format!(
                    "\"{name}\" is created, but this broker does not know it yet"
                ));
            }
            Some(ResponseError::UnknownTopicOrPartition) => missing.push(Arc::clone(name)),
            Some(error) if error.is_retriable() => {
                waits_for = Some(format!("\"{name}\": {}", verdict::name(topic.code)));
            }
            Some(_) => return Err(Fault::Lasting(unusable(name, topic.code))),
        }
    }
    let Some(settings) = settings else {
        for name in missing {
            waits_for = Some(format!("\"{name}\" is not known"));
            *created.unknown.entry(name).or_default() += 1;
        }
        return Ok((ready, waits_for));
    };
    if let Some(name) = missing.first()
        && !settings.create
    {
        return Err(Fault::Lasting(ProducerError::topic(
            name,
            format!(
                "does not exist ({} topics are missing); create it (kafka-topics.sh --create --topic {name} --partitions {}) or set \
                 kafka.topics.create = true",
                missing.len(),
                settings.partitions
            ),
        )));
    }
    for names in missing.chunks(CREATE_MAX) {
        if let Some(reason) = create(cluster, names, created, settings).await? {
            waits_for = Some(reason);
        }
    }
    Ok((ready, waits_for))
}

/// Creates topics; answers why one of them has to be tried again.
async fn create(
    cluster: &mut Cluster,
    names: &[Arc<str>],
    created: &mut Created,
    settings: &TopicSettings,
) -> Result<Option<String>, Fault> {
    // They would take it for a number, and say that too few brokers are up.
    let version = cluster.version::<CreateTopics>();
    if settings.replication < 0
        && version.is_some_and(|version| version < DEFAULTS_FROM)
        && let Some(name) = names.first()
    {
        return Err(Fault::Lasting(ProducerError::topic(
            name,
            "cannot be created: brokers before Kafka 2.4 know no default for the number of replicas; set kafka.topics.replication (-1 \
             now) to a number, at most that of the brokers",
        )));
    }
    let topics = names
        .iter()
        .map(|name| {
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(settings.partitions)
                .with_replication_factor(settings.replication)
        })
        .collect();
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(CREATE_TIMEOUT.as_millis() as i32);
    let mut answer = cluster.call::<CreateTopics>(&request).await?;
    let is_misplaced = |(_, code, _): &(String, i16, Option<String>)| {
        ResponseError::try_from_code(*code) == Some(ResponseError::NotController)
    };
    if answer.topics.iter().any(is_misplaced) {
        answer = cluster.call_controller::<CreateTopics>(&request).await?;
    }
    let mut again = None;
    for (name, code, message) in answer.topics {
        match ResponseError::try_from_code(code) {
            None => {
                info!(topic = %name, partitions = settings.partitions, "topic created");
                created.ours.insert(name.as_str().into());
            }
            // Somebody else was faster, or a request that timed out was carried out.
            Some(ResponseError::TopicAlreadyExists) => {}
            Some(error) if error.is_retriable() || error == ResponseError::UnknownServerError => {
                again = Some(format!(
                    "\"{name}\" is not created: {}",
                    verdict::name(code)
                ));
                continue;
            }
            Some(error) => {
                let refusal = not_created(&name, code, message.as_deref(), settings);
                if error != ResponseError::InvalidReplicationFactor {
                    return Err(Fault::Lasting(refusal));
                }
                if created.refused.is_empty() {
                    warn!(reason = %refusal, "too few brokers are up for a new topic, trying again for a minute");
                }
                let rounds = created.refused.entry(name.into()).or_default();
                *rounds += 1;
                if *rounds >= ROUNDS_UNTIL_REFUSED {
                    return Err(Fault::Lasting(refusal));
                }
                again = Some(refusal.to_string());
                continue;
            }
        }
        created.all.insert(name.into());
    }
    Ok(again)
}

/// A topic that metadata refuse to speak of, and what helps.
pub(super) fn unusable(name: &str, code: i16) -> ProducerError {
    let reason = match ResponseError::try_from_code(code) {
        Some(ResponseError::TopicAuthorizationFailed) => format!(
            "we may not see it: TOPIC_AUTHORIZATION_FAILED; grant it with kafka-acls.sh --add --allow-principal User:… --operation \
             Describe --operation Write --operation Create --topic {name}"
        ),
        Some(ResponseError::InvalidTopicException) => {
            "not a topic name that Kafka takes (letters, digits, '.', '_', '-', at most 249); change kafka.topic".to_owned()
        }
        _ => format!("cannot be used: {} (error {code})", verdict::name(code)),
    };
    ProducerError::topic(name, reason)
}

fn not_created(
    name: &str,
    code: i16,
    message: Option<&str>,
    settings: &TopicSettings,
) -> ProducerError {
    use ResponseError as E;
    let said = message.map_or_else(String::new, |text| format!(" (\"{text}\")"));
    let error = verdict::name(code);
    let remedy = match ResponseError::try_from_code(code) {
        Some(E::InvalidReplicationFactor) => format!(
            "set kafka.topics.replication ({} now) to at most the number of brokers",
            settings.replication
        ),
        Some(E::InvalidPartitions) => format!("set kafka.topics.partitions ({} now)", settings.partitions),
        Some(E::TopicAuthorizationFailed | E::ClusterAuthorizationFailed) => format!(
            "grant it with kafka-acls.sh --add --allow-principal User:… --operation Create --topic {name}, or create the topic and set \
             kafka.topics.create = false"
        ),
        Some(E::InvalidTopicException) => {
            "Kafka takes letters, digits, '.', '_' and '-', at most 249 of them; change kafka.topic".to_owned()
        }
        Some(E::PolicyViolation) => {
            "the cluster's create.topic.policy forbids it: change kafka.topics.partitions or kafka.topics.replication, or create the \
             topic yourself"
                .to_owned()
        }
        _ => "create the topic yourself and start again".to_owned(),
    };
    ProducerError::topic(name, format!("cannot be created: {error}{said}; {remedy}"))
}

/// Asks for the topics' settings that record batches have to go by.
fn limits_request(names: &[Arc<str>]) -> DescribeConfigsRequest {
    let keys: Vec<_> = [MESSAGE_BYTES_MAX, COMPRESSION_TYPE]
        .into_iter()
        .map(StrBytes::from_static_str)
        .collect();
    let resources = names
        .iter()
        .map(|name| {
            DescribeConfigsResource::default()
                .with_resource_type(RESOURCE_TOPIC)
                .with_resource_name(StrBytes::from_string(name.to_string()))
                .with_configuration_keys(Some(keys.clone()))
        })
        .collect();
    DescribeConfigsRequest::default().with_resources(resources)
}

/// What a topic's settings say of record batches, as far as the broker tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Limits {
    message_bytes_max: Option<usize>,
    compression_type: Option<Box<str>>,
}

/// The answer to [`limits_request`], of those topics that exist and that we may ask about.
fn limits_of(answer: DescribeConfigs) -> BTreeMap<Arc<str>, Limits> {
    let mut topics: BTreeMap<Arc<str>, Limits> = BTreeMap::new();
    for resource in answer.resources {
        if resource.code != 0 {
            debug!(topic = %resource.name, error = verdict::name(resource.code), "topic does not tell its settings");
            continue;
        }
        let limits = topics.entry(resource.name.into()).or_default();
        for (key, value) in resource.values {
            match key.as_str() {
                MESSAGE_BYTES_MAX => {
                    limits.message_bytes_max = value.and_then(|text| text.parse().ok());
                }
                COMPRESSION_TYPE => limits.compression_type = value.map(Into::into),
                _ => {}
            }
        }
    }
    topics
}

/// Whether the broker compresses what comes so compressed into this topic anew, because the topic is set to something else.
fn is_compressed_anew(topic: &Found, compression: Compression) -> bool {
    let ours: &[&str] = match compression {
        Compression::None => &["uncompressed"],
        Compression::Lz4 => &["lz4"],
        Compression::Zstd => &["zstd"],
        Compression::Snappy => &["snappy"],
        Compression::Gzip => &["gzip"],
        // It changes from one to the other: both cannot be the topic's.
        Compression::Auto => &[],
    };
    let theirs = topic.compression_type.as_deref();
    theirs.is_some_and(|theirs| theirs != "producer" && !ours.contains(&theirs))
}

#[cfg(test)]
mod tests;
