//! The nodes, and the requests about the cluster: Metadata, CreateTopics, DeleteTopics, InitProducerId, FindCoordinator.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
    MetadataRequest, MetadataResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::connection::LinkReceiver;
use super::topics::Topic;
use super::{Error, Listener, ServerTls, Shared};

/// Authorized operations that were not asked for.
const NOT_ASKED: i32 = i32::MIN;

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// It listens; connections of an earlier generation end.
    Up { generation: u64 },
    /// It refuses connections.
    Down,
    /// The broker has been dropped.
    Ended,
}

/// The listener by which a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entrance {
    /// Number of the node.
    pub(super) node: usize,
    /// Whether it is the node's second listener, for whoever looks past the links.
    pub(super) is_observer: bool,
}

/// One listener as clients see it.
pub(super) struct Node {
    id: i32,
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) port: u16,
    /// Where the first listener is opened.
    place: Option<netem::Host>,
    pub(super) observer: Option<SocketAddr>,
    pub(super) sasl: bool,
    tls: Mutex<Option<TlsAcceptor>>,
    link: watch::Sender<Link>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the listener, and the observers' one where there is to be one.
    pub(super) async fn open(
        id: i32,
        listener: &Listener,
    ) -> Result<(Self, TcpListener, Option<TcpListener>), Error> {
        let listen = |source| Error::Listen {
            address: listener.address,
            source,
        };
        let place = listener.host.clone();
        let socket = crate::links::listen(place.as_ref(), listener.address)
            .await
            .map_err(listen)?;
        let address = socket.local_addr().map_err(listen)?;
        let (observer, observed) = match &place {
            None => (None, None),
            Some(_) => {
                let socket = TcpListener::bind(("127.0.0.1", 0)).await.map_err(listen)?;
                (Some(socket.local_addr().map_err(listen)?), Some(socket))
            }
        };
        let (host, port) = listener
            .advertised
            .clone()
            .unwrap_or_else(|| (reachable(address), address.port()));
        let tls = listener
            .tls
            .as_ref()
            .map(super::tls::acceptor)
            .transpose()?;
        let (link, _) = watch::channel(Link::Up { generation: 0 });
        Ok((
            Self {
                id,
                address,
                host,
                port,
                place,
                observer,
                sasl: listener.sasl,
                tls: Mutex::new(tls),
                link,
            },
            socket,
            observed,
        ))
    }

    pub(super) async fn reopen(&self, is_observer: bool) -> Option<TcpListener> {
        let opened = match is_observer {
            true => TcpListener::bind(self.observer?).await,
            false => crate::links::listen(self.place.as_ref(), self.address).await,
        };
        opened.ok()
    }

    /// Where clients are told to find it, by where they came in.
    pub(super) fn told(&self, by: Entrance) -> (String, u16) {
        match self.observer {
            Some(address) if by.is_observer => (address.ip().to_string(), address.port()),
            _ => (self.host.clone(), self.port),
        }
    }

    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn renew_tls(&self, tls: &ServerTls) -> Result<(), Error> {
        let acceptor = super::tls::acceptor(tls)?;
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(acceptor);
        Ok(())
    }

    pub(super) fn link(&self) -> LinkReceiver {
        self.link.subscribe()
    }

    fn is_up(&self) -> bool {
        matches!(*self.link.borrow(), Link::Up { .. })
    }

    pub(super) fn disconnect(&self) {
        self.link.send_modify(|link| {
            if let Link::Up { generation } = link {
                *generation += 1;
            }
        });
    }

    pub(super) fn set_up(&self, up: bool) {
        self.link.send_if_modified(|link| match (&link, up) {
            (Link::Up { .. }, false) => {
                *link = Link::Down;
                true
            }
            (Link::Down, true) => {
                *link = Link::Up { generation: 0 };
                true
            }
            _ => false,
        });
    }

    pub(super) fn end(&self) {
        self.link.send_replace(Link::Ended);
    }
}

/// A wildcard address is no place to connect to.
fn reachable(address: SocketAddr) -> String {
    match address.ip() {
        ip if !ip.is_unspecified() => ip.to_string(),
        std::net::IpAddr::V4(_) => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(_) => "::1".to_owned(),
    }
}

fn is_up(shared: &Shared, node: i32) -> bool {
    usize::try_from(node)
        .ok()
        .and_then(|i| shared.nodes.get(i))
        .is_some_and(Node::is_up)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The nodes that are up, and the topics asked for.
pub(super) fn metadata(
    shared: &Arc<Shared>,
    by: Entrance,
    version: i16,
    request: MetadataRequest,
    error: Option<ResponseError>,
) -> MetadataResponse {
    let brokers = shared.nodes.iter().filter(|node| node.is_up()).map(|node| {
        let (host, port) = node.told(by);
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(node.id))
            .with_host(text(&host))
            .with_port(i32::from(port))
    });
    // Before version 4 every request may create, before version 1 an empty list means all.
    let may_create = shared.auto_create && (version < 4 || request.allow_auto_topic_creation);
    let wanted = request
        .topics
        .filter(|topics| version > 0 || !topics.is_empty());
    let topics: Vec<_> = match wanted {
        None => shared
            .topics
            .all()
            .into_iter()
            .map(|(name, topic)| topic_metadata(shared, text(&name), error.map_or(Ok(topic), Err)))
            .collect(),
        Some(wanted) => wanted
            .into_iter()
            .map(|wanted| {
                let name = wanted.name.map(|name| name.0).unwrap_or_default();
                let topic = error.map_or_else(|| find_or_create(shared, &name, may_create), Err);
                topic_metadata(shared, name, topic)
            })
            .collect(),
    };
    let controller = shared
        .nodes
        .iter()
        .find(|node| node.is_up())
        .map_or(-1, |node| node.id);
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text("walbrook-harness")))
        .with_controller_id(BrokerId(controller))
        .with_topics(topics)
        .with_cluster_authorized_operations(NOT_ASKED)
}

fn find_or_create(
    shared: &Shared,
    name: &str,
    may_create: bool,
) -> Result<Arc<Topic>, ResponseError> {
    if let Some(topic) = shared.topics.find(name) {
        return Ok(topic);
    }
    match shared.topics.may_create(name, -1) {
        Ok(_) if may_create => match shared.topics.create(name, -1, &[]) {
            Ok(()) | Err(ResponseError::TopicAlreadyExists) => shared
                .topics
                .find(name)
                .ok_or(ResponseError::UnknownTopicOrPartition),
            Err(error) => Err(error),
        },
        Ok(_) => Err(ResponseError::UnknownTopicOrPartition),
        Err(error) => Err(error),
    }
}

fn topic_metadata(
    shared: &Shared,
    name: StrBytes,
    topic: Result<Arc<Topic>, ResponseError>,
) -> MetadataResponseTopic {
    let replicas: Vec<_> = shared.nodes.iter().map(|node| BrokerId(node.id)).collect();
    let partition = |topic: &Topic, index: i32| {
        let (leader, epoch) = topic
            .with(index, |p| (p.leader, p.leader_epoch()))
            .unwrap_or((-1, -1));
        let up = is_up(shared, leader);
        let error = if up {
            0
        } else {
            ResponseError::LeaderNotAvailable.code()
        };
        MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(BrokerId(if up { leader } else { -1 }))
            .with_leader_epoch(epoch)
            .with_replica_nodes(replicas.clone())
            .with_isr_nodes(replicas.clone())
    };
    let response = MetadataResponseTopic::default()
        .with_name(Some(TopicName(name)))
        .with_topic_authorized_operations(NOT_ASKED);
    match topic {
        Ok(topic) => {
            let partitions =
                (0..topic.partitions.len() as i32).map(|index| partition(&topic, index));
            response.with_partitions(partitions.collect())
        }
        Err(error) => response.with_error_code(error.code()),
    }
}

/// Creates topics; replication is accepted up to the number of nodes and otherwise without effect.
pub(super) fn create_topics(
    shared: &Arc<Shared>,
    request: CreateTopicsRequest,
    error: Option<ResponseError>,
) -> CreateTopicsResponse {
    let validate_only = request.validate_only;
    let topics = request.topics.into_iter().map(|topic| {
        let created = error.map_or_else(|| create_topic(shared, &topic, validate_only), Err);
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        match created {
            Ok((partitions, replication)) => result
                .with_num_partitions(partitions)
                .with_replication_factor(replication)
                .with_configs(Some(Vec::new())),
            Err(error) => result
                .with_error_code(error.code())
                .with_error_message(Some(text(&format!("{error} (embedded broker)"))))
                .with_num_partitions(-1)
                .with_replication_factor(-1),
        }
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn create_topic(
    shared: &Shared,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(i32, i16), ResponseError> {
    let replication = if topic.replication_factor == -1 {
        1
    } else {
        topic.replication_factor
    };
    let assigned = topic.assignments.len() as i32;
    if replication < 1 || replication as usize > shared.nodes.len() {
        return Err(ResponseError::InvalidReplicationFactor);
    }
    let partitions = if assigned > 0 {
        assigned
    } else {
        topic.num_partitions
    };
    let partitions = shared.topics.may_create(&topic.name, partitions)?;
    if !validate_only {
        let configs: Vec<_> = topic
            .configs
            .iter()
            .filter_map(|config| {
                Some((config.name.to_string(), config.value.as_ref()?.to_string()))
            })
            .collect();
        shared.topics.create(&topic.name, partitions, &configs)?;
    }
    Ok((partitions, replication))
}

/// Deletes topics with everything in them.
pub(super) fn delete_topics(
    shared: &Arc<Shared>,
    request: DeleteTopicsRequest,
    error: Option<ResponseError>,
) -> DeleteTopicsResponse {
    let responses = request.topic_names.into_iter().map(|name| {
        let deleted = error.map_or_else(|| shared.topics.delete(&name), Err);
        DeletableTopicResult::default()
            .with_error_code(deleted.err().map_or(0, |error| error.code()))
            .with_name(Some(name))
    });
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

/// A new producer id; the same with the next epoch for a transactional id that is known.
pub(super) fn init_producer_id(
    shared: &Arc<Shared>,
    request: InitProducerIdRequest,
    error: Option<ResponseError>,
) -> InitProducerIdResponse {
    if let Some(error) = error {
        return InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
    }
    let fresh = || shared.next_producer_id.fetch_add(1, Ordering::Relaxed);
    let (id, epoch) = match request.transactional_id {
        None => (fresh(), 0),
        Some(name) => {
            let mut known = shared
                .transactional
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let entry = known
                .entry(name.to_string())
                .or_insert_with(|| (fresh(), -1));
            entry.1 = entry.1.checked_add(1).unwrap_or_else(|| {
                entry.0 = fresh();
                0
            });
            *entry
        }
    };
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(epoch)
}

/// The node that was asked coordinates every group.
pub(super) fn find_coordinator(
    shared: &Arc<Shared>,
    by: Entrance,
    request: FindCoordinatorRequest,
    error: Option<ResponseError>,
) -> FindCoordinatorResponse {
    const GROUP: i8 = 0;
    let error =
        error.or((request.key_type != GROUP).then_some(ResponseError::CoordinatorNotAvailable));
    match (error, shared.nodes.get(by.node)) {
        (None, Some(node)) => {
            let (host, port) = node.told(by);
            FindCoordinatorResponse::default()
                .with_node_id(BrokerId(node.id))
                .with_host(text(&host))
                .with_port(i32::from(port))
        }
        (error, _) => FindCoordinatorResponse::default()
            .with_error_code(
                error
                    .unwrap_or(ResponseError::CoordinatorNotAvailable)
                    .code(),
            )
            .with_node_id(BrokerId(-1))
            .with_port(-1),
    }
}
