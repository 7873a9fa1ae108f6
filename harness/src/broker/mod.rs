//! The embedded broker: enough of Kafka that unmodified clients (rskafka, librdkafka, the Java clients) produce to it, consume from
//! it and form groups, cheap enough to stand beside the engine on two cores, and able to fail on command.
//!
//! ```text
//! listener 0 ─┐                     ┌─ topics ─ partitions: batches as received, one `Bytes` each
//! listener 1 ─┼─ connection ─ apis ─┼─ groups
//! listener … ─┘     │               └─ producer ids
//!                 faults
//! ```
//!
//! Several listeners are several brokers over one log: partitions have their leaders on different ones, and asking the wrong one
//! gets the error that a real one gives. Nothing is stored on disk. APIs and versions: [`apis`](self), /docs in kafka's own
//! protocol guide, <https://kafka.apache.org/protocol>.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use kafka_protocol::ResponseError;

mod apis;
mod cluster;
mod command;
mod configs;
mod connection;
mod faults;
mod group;
mod groups;
mod offsets;
mod partition;
mod records;
mod sasl;
mod tls;
mod topics;

pub use command::{Args, run};
pub use faults::{Drop, Drops, Faults};
pub use partition::Figures;
pub use tls::{ServerTls, Tls};

use cluster::{Entrance, Node};
use groups::Groups;
use sasl::Credentials;
use topics::Topics;

/// Largest request that is read; Kafka's own `socket.request.max.bytes`.
const REQUEST_MAX: usize = 100 << 20;

/// Why the broker could not start or had to end a connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener cannot be opened.
    #[error("cannot listen on {address}: {source}; is another broker running there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A key or certificate does not do.
    #[error("tls of the broker: {0}")]
    Tls(String),
    /// A client sent what the protocol does not allow.
    #[error("a client sent {0}")]
    Protocol(String),
    /// An answer cannot be written in the version that was asked for.
    #[error("an answer cannot be encoded: {0}")]
    Answer(String),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// One listener: one broker of the cluster as clients see it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// What metadata tells clients to connect to, where that is not the address.
    pub advertised: Option<(String, u16)>,
    /// TLS; `None` is plain text.
    pub tls: Option<ServerTls>,
    /// Whether clients must log in by SASL.
    pub sasl: bool,
    /// The emulated host on which it listens; then the node listens on loopback besides, see [`Broker::observed_bootstrap`].
    pub host: Option<netem::Host>,
}

impl Listener {
    /// Plain text, without login, on `address`.
    #[must_use]
    pub const fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            advertised: None,
            tls: None,
            sasl: false,
            host: None,
        }
    }

    /// Plain text, without login, on a free port of the loopback interface.
    #[must_use]
    pub fn loopback() -> Self {
        Self::plain(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The listeners; node ids count from 0 in their order.
    pub listeners: Vec<Listener>,
    /// Whether metadata requests create the topics that they name (`auto.create.topics.enable`).
    pub auto_create: bool,
    /// Partitions of topics that are created without a number (`num.partitions`).
    pub partitions: i32,
    /// Largest record batch taken (`message.max.bytes`); a topic's `max.message.bytes` goes before it.
    pub message_max_bytes: usize,
    /// Whether every record of a batch is decompressed and walked, as real brokers do. Costs their CPU, too.
    pub validate_records: bool,
    /// Check, count and acknowledge, but keep no batch: for benches and endless runs, where memory would run out.
    pub discard: bool,
    /// Names and passwords for listeners with SASL: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    pub users: Vec<(String, String)>,
    /// After how many milliseconds clients are told to log in again (`connections.max.reauth.ms`); 0 for never. Nothing is done to
    /// those that do not.
    pub session_lifetime_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::loopback()],
            auto_create: false,
            partitions: 3,
            message_max_bytes: 1_048_588,
            validate_records: false,
            discard: false,
            users: Vec::new(),
            session_lifetime_ms: 0,
        }
    }
}

/// A running broker. Dropping it ends its listeners and connections.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
}

/// What the listeners have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    nodes: Vec<Node>,
    topics: Topics,
    groups: Groups,
    faults: Faults,
    credentials: Credentials,
    message_max_bytes: AtomicUsize,
    auto_create: bool,
    validate_records: bool,
    next_producer_id: AtomicI64,
    transactional: std::sync::Mutex<std::collections::HashMap<String, (i64, i16)>>,
}

/// Figures of all partitions.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Per topic and partition, in order.
    pub partitions: Vec<(String, i32, Figures)>,
    /// Records written.
    pub records: u64,
    /// Bytes of their batches, as received.
    pub bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Batches that came again and were not written again.
    pub duplicates: u64,
    /// When the first batch of all was written.
    pub first_append: Option<Instant>,
    /// When the last batch of all was written.
    pub last_append: Option<Instant>,
}

impl Broker {
    /// Opens the listeners and serves them on the present tokio runtime.
    ///
    /// # Errors
    /// [`Error::Listen`] or [`Error::Tls`].
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let mut nodes = Vec::with_capacity(settings.listeners.len());
        let mut sockets = Vec::with_capacity(settings.listeners.len());
        for (id, listener) in settings.listeners.iter().enumerate() {
            let (node, socket, observed) = Node::open(id as i32, listener).await?;
            nodes.push(node);
            let entrance = |is_observer| Entrance {
                node: id,
                is_observer,
            };
            sockets.push((entrance(false), socket));
            sockets.extend(observed.map(|socket| (entrance(true), socket)));
        }
        let shared = Arc::new(Shared {
            topics: Topics::new(nodes.len() as i32, settings.partitions, settings.discard),
            nodes,
            groups: Groups::default(),
            faults: Faults::default(),
            credentials: Credentials::new(&settings.users, settings.session_lifetime_ms),
            message_max_bytes: AtomicUsize::new(settings.message_max_bytes),
            auto_create: settings.auto_create,
            validate_records: settings.validate_records,
            next_producer_id: AtomicI64::new(1000),
            transactional: std::sync::Mutex::default(),
        });
        for (entrance, socket) in sockets {
            connection::listen(&shared, entrance, socket);
        }
        Ok(Self { shared })
    }

    /// A broker of one plain listener on a free loopback port.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn loopback() -> Result<Self, Error> {
        Self::start(Settings::default()).await
    }

    /// Where the listeners are, in the order of their node ids.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.nodes.iter().map(|node| node.address).collect()
    }

    /// The addresses as clients take them: `host:port,host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let nodes = self.shared.nodes.iter();
        let nodes: Vec<_> = nodes
            .map(|node| format!("{}:{}", node.host, node.port))
            .collect();
        nodes.join(",")
    }

    /// The same for whoever looks at the cluster from this process past all emulated links: the brokers that it finds there name
    /// loopback listeners to it. Where there are no links, it is [`Self::bootstrap`].
    #[must_use]
    pub fn observed_bootstrap(&self) -> String {
        let nodes = self.shared.nodes.iter();
        let nodes: Vec<_> = nodes
            .map(|node| {
                let by = Entrance {
                    node: 0,
                    is_observer: true,
                };
                let (host, port) = node.told(by);
                format!("{host}:{port}")
            })
            .collect();
        nodes.join(",")
    }

    /// What it is told to do wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Creates a topic, its leaders spread over the nodes.
    ///
    /// # Errors
    /// The code that a client would get.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), ResponseError> {
        self.shared.topics.create(name, partitions, &[])
    }

    /// Deletes a topic with everything in it.
    ///
    /// # Errors
    /// The code that a client would get.
    pub fn delete_topic(&self, name: &str) -> Result<(), ResponseError> {
        self.shared.topics.delete(name)
    }

    /// The log end offset of a partition; `None` where it does not exist.
    #[must_use]
    pub fn log_end(&self, topic: &str, partition: i32) -> Option<i64> {
        self.shared
            .topics
            .with(topic, partition, |p| p.log_end())
            .ok()
    }

    /// The node that leads a partition; `None` where it does not exist.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.shared.topics.with(topic, partition, |p| p.leader).ok()
    }

    /// Base offset of every batch of a partition, in order, and when it was written; empty where the partition does not exist.
    #[must_use]
    pub fn appends(&self, topic: &str, partition: i32) -> Vec<(i64, Instant)> {
        self.shared
            .topics
            .with(topic, partition, |p| p.appends())
            .unwrap_or_default()
    }

    /// Makes `node` the leader of a partition, with the next epoch; producers learn it by error 6.
    ///
    /// # Errors
    /// Where the partition does not exist.
    pub fn move_leader(&self, topic: &str, partition: i32, node: i32) -> Result<(), ResponseError> {
        self.shared.topics.with(topic, partition, |p| p.elect(node))
    }

    /// Keeps consumers from seeing records from offset `at` on, as if no follower had them yet; `None` lets them through.
    ///
    /// # Errors
    /// Where the partition does not exist.
    pub fn hold_high_watermark(
        &self,
        topic: &str,
        partition: i32,
        at: Option<i64>,
    ) -> Result<(), ResponseError> {
        self.shared
            .topics
            .with(topic, partition, |p| p.hold_high_watermark(at))?;
        self.shared.topics.appended.notify_waiters();
        Ok(())
    }

    /// Has a partition's leader refuse everything that is to be written there; `None` ends it.
    ///
    /// # Errors
    /// Where the partition does not exist.
    pub fn refuse(
        &self,
        topic: &str,
        partition: i32,
        error: Option<ResponseError>,
    ) -> Result<(), ResponseError> {
        self.shared
            .topics
            .with(topic, partition, |p| p.refusal = error)
    }

    /// How often clients have logged in by SASL.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.shared.credentials.logins()
    }

    /// Gives `node` another certificate, and other clients to let in; connections that are open stay.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn renew_tls(&self, node: usize, tls: &ServerTls) -> Result<(), Error> {
        match self.shared.nodes.get(node) {
            Some(node) => node.renew_tls(tls),
            None => Ok(()),
        }
    }

    /// Sets the largest record batch taken (`message.max.bytes`).
    pub fn limit_message_bytes(&self, bytes: usize) {
        self.shared
            .message_max_bytes
            .store(bytes, Ordering::Relaxed);
    }

    /// Closes every connection to `node`; it can be connected to again at once.
    pub fn disconnect(&self, node: usize) {
        if let Some(node) = self.shared.nodes.get(node) {
            node.disconnect();
        }
    }

    /// Stops `node`: connections end, new ones are refused, metadata no longer names it. Its partitions have no leader until
    /// it is [`resumed`](Self::resume) or their leaders are [moved](Self::move_leader).
    pub fn stop(&self, node: usize) {
        if let Some(node) = self.shared.nodes.get(node) {
            node.set_up(false);
        }
    }

    /// Lets a stopped node listen again at its address, with what it had.
    pub fn resume(&self, node: usize) {
        if let Some(node) = self.shared.nodes.get(node) {
            node.set_up(true);
        }
    }

    /// What has been written.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            partitions: self.shared.topics.figures(),
            ..Counts::default()
        };
        for (.., figures) in &counts.partitions {
            counts.records += figures.records;
            counts.bytes += figures.bytes;
            counts.batches += figures.batches;
            counts.duplicates += figures.duplicates;
            counts.first_append = counts
                .first_append
                .into_iter()
                .chain(figures.first_append)
                .min();
            counts.last_append = counts
                .last_append
                .into_iter()
                .chain(figures.last_append)
                .max();
        }
        counts
    }
}

impl std::ops::Drop for Broker {
    fn drop(&mut self) {
        self.shared.nodes.iter().for_each(Node::end);
    }
}
