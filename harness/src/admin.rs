//! A Kafka cluster looked at and set right by bare requests: who is there, how far partitions are, how large, who leads them.
//!
//! What rskafka and librdkafka do not offer, and what would cost too much through them: one ListOffsets request per broker tells
//! how far a whole topic is. Codecs from the `kafka-protocol` crate; <https://kafka.apache.org/protocol>.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, ApiKey, BrokerId, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeLogDirsRequest, ElectLeadersRequest, ListOffsetsRequest, MetadataRequest,
    MetadataResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Largest answer taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What brokers are given for what they do on request.
const WORK_MS_MAX: i32 = 10_000;

const METADATA: i16 = 9;
const LIST_OFFSETS: i16 = 5;
const CREATE_TOPICS: i16 = 5;
const DELETE_TOPICS: i16 = 4;
const DESCRIBE_LOG_DIRS: i16 = 1;
const REASSIGN: i16 = 0;
const ELECT_LEADERS: i16 = 1;

/// Why a cluster does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No connection, or one that broke.
    #[error("{address}: {source}")]
    Io {
        /// Which broker.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Bytes that are no answer.
    #[error("{address} answers what cannot be read: {why}")]
    Answer {
        /// Which broker.
        address: String,
        /// Why.
        why: String,
    },
    /// A request that is refused.
    #[error("{what}: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the broker says.
        why: String,
    },
}

/// A partition as metadata tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its topic.
    pub topic: String,
    /// Its number, from 0.
    pub number: i32,
    /// Node that leads it; −1 while nobody does.
    pub leader: i32,
    /// Nodes that have it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those that have everything of it.
    pub in_sync: Vec<i32>,
}

impl Partition {
    /// Its replicas with the next one in sync after the leader in front; `None` where only the leader is.
    fn turned(&self) -> Option<Vec<i32>> {
        let at = self.replicas.iter().position(|node| *node == self.leader)?;
        let mut replicas = self.replicas.clone();
        replicas.rotate_left(at);
        let next = replicas[1..]
            .iter()
            .position(|node| self.in_sync.contains(node))?;
        replicas.rotate_left(next + 1);
        Some(replicas)
    }
}

/// Connections to a cluster.
#[derive(Debug)]
pub struct Admin {
    bootstrap: Vec<String>,
    nodes: BTreeMap<i32, String>,
    connections: HashMap<String, TcpStream>,
}

impl Admin {
    /// For the cluster that `bootstrap` (addresses, comma-separated) names; connects when it is asked something.
    pub fn new(bootstrap: &str) -> Admin {
        Admin {
            bootstrap: bootstrap.split(',').map(str::to_owned).collect(),
            nodes: BTreeMap::new(),
            connections: HashMap::new(),
        }
    }

    /// How many brokers are there.
    ///
    /// # Errors
    /// When none answers.
    pub async fn brokers(&mut self) -> Result<usize, AdminError> {
        self.metadata(&[]).await?;
        Ok(self.nodes.len())
    }

    /// The partitions of `topics`, as far as those exist.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn partitions(&mut self, topics: &[String]) -> Result<Vec<Partition>, AdminError> {
        let answer = self.metadata(topics).await?;
        let mut partitions = Vec::new();
        for topic in answer.topics {
            let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
            partitions.extend(topic.partitions.into_iter().map(|partition| Partition {
                topic: name.clone(),
                number: partition.partition_index,
                leader: partition.leader_id.0,
                replicas: partition.replica_nodes.iter().map(|node| node.0).collect(),
                in_sync: partition.isr_nodes.iter().map(|node| node.0).collect(),
            }));
        }
        Ok(partitions)
    }

    /// Whether no broker knows any of `topics` any more: each of them learns by itself that a topic is deleted.
    ///
    /// # Errors
    /// When a broker does not answer.
    pub async fn have_forgotten(&mut self, topics: &[String]) -> Result<bool, AdminError> {
        self.metadata(topics).await?;
        for address in self.nodes.values().cloned().collect::<Vec<_>>() {
            let answer = self.call(&address, &metadata_of(topics), METADATA).await?;
            if answer
                .topics
                .iter()
                .any(|topic| !topic.partitions.is_empty())
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The end of each of `partitions` as consumers see it, the high watermark, one request per leader; `None` where the leader has
    /// changed or does not answer.
    pub async fn ends(&mut self, partitions: &[Partition]) -> Vec<Option<i64>> {
        let mut ends = vec![None; partitions.len()];
        let mut leaders: Vec<i32> = partitions.iter().map(|part| part.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        for leader in leaders {
            let Some(address) = self.nodes.get(&leader).cloned() else {
                continue;
            };
            let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
            for part in partitions.iter().filter(|part| part.leader == leader) {
                let latest = ListOffsetsPartition::default()
                    .with_partition_index(part.number)
                    .with_current_leader_epoch(-1)
                    .with_timestamp(-1);
                topics.entry(&part.topic).or_default().push(latest);
            }
            let topics = topics.into_iter().map(|(topic, parts)| {
                ListOffsetsTopic::default()
                    .with_name(name(topic))
                    .with_partitions(parts)
            });
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(topics.collect());
            let Ok(answer) = self.call(&address, &request, LIST_OFFSETS).await else {
                continue;
            };
            for topic in answer.topics {
                for part in topic.partitions.iter().filter(|part| part.error_code == 0) {
                    let place = partitions.iter().position(|known| {
                        known.topic == topic.name.as_str() && known.number == part.partition_index
                    });
                    if let Some(place) = place {
                        ends[place] = Some(part.offset);
                    }
                }
            }
        }
        ends
    }

    /// Bytes of record batches in `topics`, each partition once: that of the replica with the most.
    ///
    /// # Errors
    /// When a broker does not answer.
    pub async fn bytes(&mut self, topics: &[String]) -> Result<u64, AdminError> {
        self.metadata(topics).await?;
        let mut sizes: HashMap<(String, i32), i64> = HashMap::new();
        for address in self.nodes.values().cloned().collect::<Vec<_>>() {
            let request = DescribeLogDirsRequest::default().with_topics(None);
            let answer = self.call(&address, &request, DESCRIBE_LOG_DIRS).await?;
            for topic in answer.results.into_iter().flat_map(|dir| dir.topics) {
                for part in topic.partitions {
                    let key = (topic.name.to_string(), part.partition_index);
                    let size = sizes.entry(key).or_default();
                    *size = (*size).max(part.partition_size);
                }
            }
        }
        let of_ours = sizes
            .iter()
            .filter(|((topic, _), _)| topics.contains(topic));
        Ok(of_ours.map(|(_, size)| size.unsigned_abs()).sum())
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When it exists, or the cluster cannot.
    pub async fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        replication: i16,
    ) -> Result<(), AdminError> {
        let address = self.any().await?;
        let wanted = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replication);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(WORK_MS_MAX);
        let answer = self.call(&address, &request, CREATE_TOPICS).await?;
        let codes = answer.topics.iter().map(|topic| topic.error_code);
        accepted(&format!("topic {topic}"), codes)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// When there is none, or the cluster cannot.
    pub async fn delete_topic(&mut self, topic: &str) -> Result<(), AdminError> {
        let address = self.any().await?;
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name(topic)])
            .with_timeout_ms(WORK_MS_MAX);
        let answer = self.call(&address, &request, DELETE_TOPICS).await?;
        let codes = answer.responses.iter().map(|topic| topic.error_code);
        accepted(&format!("deleting topic {topic}"), codes)
    }

    /// Makes another replica in sync the leader of each of the partitions of `topics`; answers of how many. A partition without one
    /// keeps its own.
    ///
    /// # Errors
    /// What the cluster refuses.
    pub async fn move_leaders(&mut self, topics: &[String]) -> Result<usize, AdminError> {
        let partitions = self.partitions(topics).await?;
        let mut turned: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        let mut elected: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for part in &partitions {
            let Some(replicas) = part.turned() else {
                continue;
            };
            let wanted = ReassignablePartition::default()
                .with_partition_index(part.number)
                .with_replicas(Some(replicas.into_iter().map(BrokerId).collect()));
            turned.entry(&part.topic).or_default().push(wanted);
            elected.entry(&part.topic).or_default().push(part.number);
        }
        if turned.is_empty() {
            return Ok(0);
        }
        let address = self.any().await?;
        // The same replicas in another order: nothing is copied, but another one is preferred.
        let turned = turned.into_iter().map(|(topic, partitions)| {
            ReassignableTopic::default()
                .with_name(name(topic))
                .with_partitions(partitions)
        });
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(turned.collect())
            .with_timeout_ms(WORK_MS_MAX);
        let answer = self.call(&address, &request, REASSIGN).await?;
        let parts = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let codes = parts.map(|part| part.error_code).chain([answer.error_code]);
        accepted("another preferred leader", codes)?;
        let elected = elected.into_iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic(name(topic))
                .with_partitions(partitions)
        });
        let request = ElectLeadersRequest::default()
            .with_topic_partitions(Some(elected.collect()))
            .with_timeout_ms(WORK_MS_MAX);
        let answer = self.call(&address, &request, ELECT_LEADERS).await?;
        accepted("electing leaders", [answer.error_code])?;
        let results = answer.replica_election_results.iter();
        let results = results.flat_map(|topic| &topic.partition_result);
        // The others have lost that replica meanwhile, or have its lead already.
        Ok(results.filter(|part| part.error_code == 0).count())
    }

    /// Any request to a node that metadata have named.
    ///
    /// # Errors
    /// When there is no such node, or it does not answer; what its answer says is the caller's to read.
    pub(crate) async fn ask<R: Request>(
        &mut self,
        node: i32,
        request: &R,
        version: i16,
    ) -> Result<R::Response, AdminError> {
        let address = self.nodes.get(&node).cloned();
        let address = address.ok_or_else(|| AdminError::Refused {
            what: format!("a request to node {node}"),
            why: "no broker names it".into(),
        })?;
        self.call(&address, request, version).await
    }

    async fn metadata(&mut self, topics: &[String]) -> Result<MetadataResponse, AdminError> {
        // A broker that is just starting takes connections and resets them.
        let mut answer = Err(unnamed());
        for address in self.addresses() {
            answer = self.call(&address, &metadata_of(topics), METADATA).await;
            if answer.is_ok() {
                break;
            }
        }
        let answer = answer?;
        let nodes = answer.brokers.iter();
        self.nodes = nodes
            .map(|node| (node.node_id.0, format!("{}:{}", node.host, node.port)))
            .collect();
        Ok(answer)
    }

    /// A broker that can be connected to.
    async fn any(&mut self) -> Result<String, AdminError> {
        let mut last = unnamed();
        for address in self.addresses() {
            match self.connection(&address).await {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Brokers that metadata have named, then those that this was made with.
    fn addresses(&self) -> Vec<String> {
        let known = self.nodes.values().chain(&self.bootstrap);
        known.cloned().collect()
    }

    async fn connection(&mut self, address: &str) -> Result<&mut TcpStream, AdminError> {
        if !self.connections.contains_key(address) {
            let connected = TcpStream::connect(address).await;
            let stream = connected.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            let stream = stream.map_err(|source| AdminError::Io {
                address: address.to_owned(),
                source,
            })?;
            self.connections.insert(address.to_owned(), stream);
        }
        // Inserted above where it was missing.
        self.connections
            .get_mut(address)
            .ok_or_else(|| AdminError::Refused {
                what: "connecting".into(),
                why: address.to_owned(),
            })
    }

    /// Asks `address`; a connection that fails is given up.
    async fn call<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        version: i16,
    ) -> Result<R::Response, AdminError> {
        let stream = self.connection(address).await?;
        let answered = tokio::time::timeout(ANSWER_MAX, exchange(stream, request, version)).await;
        let answered = answered.unwrap_or_else(|_| {
            let why = format!("no answer within {ANSWER_MAX:?}");
            Err(Failure::Io(std::io::Error::other(why)))
        });
        answered.map_err(|failure| {
            self.connections.remove(address);
            let address = address.to_owned();
            match failure {
                Failure::Io(source) => AdminError::Io { address, source },
                Failure::Answer(why) => AdminError::Answer { address, why },
            }
        })
    }
}

enum Failure {
    Io(std::io::Error),
    Answer(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// One request and its answer; requests do not overlap, so the correlation id says nothing new.
async fn exchange<R: Request>(
    stream: &mut TcpStream,
    request: &R,
    version: i16,
) -> Result<R::Response, Failure> {
    const CORRELATION: i32 = 1;
    let unread = |error: &dyn std::fmt::Display| Failure::Answer(error.to_string());
    let key = ApiKey::try_from(R::KEY).map_err(|()| unread(&"an unknown API"))?;
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("harness-admin")))
        .with_correlation_id(CORRELATION);
    let mut out = BytesMut::new();
    out.put_i32(0);
    header
        .encode(&mut out, key.request_header_version(version))
        .map_err(|error| unread(&error))?;
    request
        .encode(&mut out, version)
        .map_err(|error| unread(&error))?;
    let length = out.len() as i32 - 4;
    out[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&out).await?;
    let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
    if length > ANSWER_BYTES_MAX {
        return Err(Failure::Answer(format!("{length} bytes")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    let mut answer = Bytes::from(answer);
    let header = ResponseHeader::decode(&mut answer, key.response_header_version(version))
        .map_err(|error| unread(&error))?;
    if header.correlation_id != CORRELATION {
        return Err(unread(&format!("request {}", header.correlation_id)));
    }
    R::Response::decode(&mut answer, version).map_err(|error| unread(&error))
}

/// Asks for `topics`, and creates none.
fn metadata_of(topics: &[String]) -> MetadataRequest {
    let topics = topics
        .iter()
        .map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
    MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false)
}

/// `topic` as requests have it.
pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn unnamed() -> AdminError {
    AdminError::Refused {
        what: "connecting".into(),
        why: "no broker is named".into(),
    }
}

fn accepted(what: &str, codes: impl IntoIterator<Item = i16>) -> Result<(), AdminError> {
    match codes.into_iter().find(|code| *code != 0) {
        None => Ok(()),
        Some(code) => Err(AdminError::Refused {
            what: what.to_owned(),
            why: ResponseError::try_from_code(code)
                .map_or(format!("error {code}"), |error| format!("{error:?}")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, Listener, Settings};

    /// Two nodes of a cluster that do not know the same: the second one's address leads to a broker of its own.
    #[tokio::test]
    async fn a_topic_is_forgotten_when_every_broker_has_forgotten_it() {
        let late = Broker::loopback().await.unwrap();
        let address = late.addresses()[0];
        let other = Listener {
            advertised: Some((address.ip().to_string(), address.port())),
            ..Listener::loopback()
        };
        let settings = Settings {
            listeners: vec![Listener::loopback(), other],
            ..Settings::default()
        };
        let first = Broker::start(settings).await.unwrap();
        let topics = ["t".to_owned()];
        let bootstrap = first.addresses()[0].to_string();
        for broker in [&first, &late] {
            broker.create_topic("t", 1).unwrap();
        }
        assert!(
            !Admin::new(&bootstrap)
                .have_forgotten(&topics)
                .await
                .unwrap()
        );
        Admin::new(&bootstrap).delete_topic("t").await.unwrap();
        let mut admin = Admin::new(&bootstrap);
        assert_eq!(admin.partitions(&topics).await.unwrap(), []);
        assert!(!admin.have_forgotten(&topics).await.unwrap());
        Admin::new(&late.bootstrap())
            .delete_topic("t")
            .await
            .unwrap();
        assert!(admin.have_forgotten(&topics).await.unwrap());
    }

    #[tokio::test]
    async fn a_broker_that_resets_connections_is_not_the_only_one_to_be_asked() {
        let starting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = starting.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = starting.accept().await {
                drop(stream);
            }
        });
        let broker = Broker::loopback().await.unwrap();
        let mut admin = Admin::new(&format!("{address},{}", broker.bootstrap()));
        assert_eq!(admin.brokers().await.unwrap(), 1);
        let alone = Admin::new(&address.to_string()).brokers().await;
        assert!(matches!(alone, Err(AdminError::Io { .. })), "{alone:?}");
    }

    #[test]
    fn only_a_replica_in_sync_becomes_the_leader() {
        let turned = |leader, in_sync: &[i32]| {
            let partition = Partition {
                topic: "t".into(),
                number: 0,
                leader,
                replicas: vec![2, 3, 1],
                in_sync: in_sync.to_vec(),
            };
            partition.turned()
        };
        assert_eq!(turned(2, &[1, 2, 3]), Some(vec![3, 1, 2]));
        assert_eq!(turned(2, &[1, 2]), Some(vec![1, 2, 3]));
        assert_eq!(turned(1, &[1, 2]), Some(vec![2, 3, 1]));
        assert_eq!(turned(3, &[3]), None);
        assert_eq!(turned(-1, &[1, 2]), None);
    }
}
