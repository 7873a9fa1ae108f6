//! The client against brokers of a few lines that fail in the order which a test sets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataResponse, ProduceRequest,
    ProduceResponse, ProducerId, RequestHeader,
};
use kafka_protocol::protocol::{Decodable as _, Encodable, StrBytes};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::producer::connection::{RESPONSE_MAX, read_frame};
use crate::producer::metadata::tests::settings;
use crate::producer::metadata::topic_name;

const TOPIC: &str = "shop.orders";
const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;

const NOT_LEADER: i16 = 6;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;

/// Nothing here takes longer; who hangs is found out.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two brokers, 1 and 2, of a topic with two partitions; the first partition is led by the first one.
#[derive(Default)]
struct Peers {
    addresses: Vec<SocketAddr>,
    /// Who leads the second partition.
    leads_second: AtomicI32,
    /// The first partition's leader does not know the producer.
    forgets: AtomicBool,
    /// The first broker's name leads to another cluster, which knows the same topic.
    is_elsewhere: AtomicBool,
    /// Producer ids asked for; only the first one is given.
    ids: watch::Sender<u32>,
    /// Metadata questions to the other cluster.
    elsewhere_asked: watch::Sender<u32>,
    /// Requests to write that came there; they end the connection.
    elsewhere_written: AtomicU32,
}

impl Peers {
    async fn start() -> Arc<Self> {
        let mut listeners = Vec::new();
        for _ in 0..2 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap());
        let peers = Arc::new(Self {
            addresses: addresses.collect(),
            leads_second: AtomicI32::new(1),
            ..Self::default()
        });
        for (id, listener) in (1..).zip(listeners) {
            let peers = Arc::clone(&peers);
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(Arc::clone(&peers).serve(id, stream));
                }
            });
        }
        peers
    }

    /// Connected, with the topic known.
    async fn native(&self) -> (Native, u32) {
        let settings = settings(vec![self.addresses[0].to_string()]);
        let native = Native::connect(&settings).await.unwrap();
        let routes = native.topics(&[TOPIC]).await.unwrap();
        (native, routes[0].topic_id)
    }

    async fn serve(self: Arc<Self>, id: i32, mut stream: TcpStream) {
        while let Ok(frame) = read_frame(&mut stream, RESPONSE_MAX, "peer", None).await {
            let Some(body) = self.answer(id, frame).await else {
                return;
            };
            if stream.write_all(&body).await.is_err() {
                return;
            }
        }
    }

    /// What is to be sent back; the connection ends without it.
    async fn answer(&self, id: i32, frame: Vec<u8>) -> Option<Vec<u8>> {
        let is_elsewhere = id == 1 && self.is_elsewhere.load(Ordering::SeqCst);
        let mut answer = vec![0; 4];
        answer.extend_from_slice(&frame[4..8]);
        match i16::from_be_bytes(frame[..2].try_into().unwrap()) {
            API_VERSIONS => {
                let range = |(key, version)| {
                    let api = ApiVersion::default().with_api_key(key);
                    api.with_min_version(version).with_max_version(version)
                };
                let spoken = [(PRODUCE, 8), (METADATA, 8), (INIT_PRODUCER_ID, 1)];
                let versions = ApiVersionsResponse::default();
                let versions = versions.with_api_keys(spoken.map(range).to_vec());
                versions.encode(&mut answer, 0).unwrap();
            }
            METADATA => {
                if is_elsewhere {
                    self.elsewhere_asked.send_modify(|asked| *asked += 1);
                }
                self.metadata(is_elsewhere).encode(&mut answer, 8).unwrap();
            }
            INIT_PRODUCER_ID => {
                let mut is_first = false;
                self.ids.send_modify(|asked| {
                    is_first = *asked == 0;
                    *asked += 1;
                });
                if !is_first {
                    std::future::pending::<()>().await;
                }
                let given = InitProducerIdResponse::default().with_producer_id(ProducerId(7));
                given.encode(&mut answer, 1).unwrap();
            }
            PRODUCE if is_elsewhere => {
                self.elsewhere_written.fetch_add(1, Ordering::SeqCst);
                return None;
            }
            PRODUCE => self.produced(id, frame).encode(&mut answer, 8).unwrap(),
            other => panic!("asked {other}"),
        }
        let length = answer.len() as u32 - 4;
        answer[..4].copy_from_slice(&length.to_be_bytes());
        Some(answer)
    }

    fn metadata(&self, is_elsewhere: bool) -> MetadataResponse {
        let broker = |(id, address): (i32, &SocketAddr)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_string(address.ip().to_string()))
                .with_port(address.port().into())
        };
        let partition = |(index, leader): (i32, i32)| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(leader))
                .with_leader_epoch(leader)
        };
        let leaders = [1, self.leads_second.load(Ordering::SeqCst)];
        let topic = MetadataResponseTopic::default()
            .with_name(Some(topic_name(TOPIC)))
            .with_partitions((0..).zip(leaders).map(partition).collect());
        let name = if is_elsewhere { "elsewhere" } else { "here" };
        MetadataResponse::default()
            .with_cluster_id(Some(StrBytes::from_static_str(name)))
            .with_brokers((1..).zip(&self.addresses).map(broker).collect())
            .with_topics(vec![topic])
    }

    fn produced(&self, id: i32, frame: Vec<u8>) -> ProduceResponse {
        let mut frame = bytes::Bytes::from(frame);
        RequestHeader::decode(&mut frame, 1).unwrap();
        let request = ProduceRequest::decode(&mut frame, 8).unwrap();
        let code = |index| match index {
            0 if self.forgets.load(Ordering::SeqCst) => OUT_OF_ORDER_SEQUENCE,
            1 if self.leads_second.load(Ordering::SeqCst) != id => NOT_LEADER,
            _ => 0,
        };
        let topics = request.topic_data.into_iter().map(|topic| {
            let partitions = topic.partition_data.into_iter().map(|partition| {
                PartitionProduceResponse::default()
                    .with_index(partition.index)
                    .with_error_code(code(partition.index))
            });
            TopicProduceResponse::default()
                .with_name(topic.name)
                .with_partition_responses(partitions.collect())
        });
        ProduceResponse::default().with_responses(topics.collect())
    }
}

fn part(topic_id: u32, partition: i32) -> EncodedBatch {
    EncodedBatch {
        topic_id,
        partition,
        records: 1,
        changes: 1,
        bytes: vec![0; 61].into(),
    }
}

async fn seen(count: &watch::Sender<u32>, at_least: u32) {
    let mut seen = count.subscribe();
    let waited = timeout(PATIENCE, seen.wait_for(|count| *count >= at_least)).await;
    waited.expect("nobody hangs").unwrap();
}

/// A cluster that gives no producer ids, for want of a controller, say, still knows who leads what.
#[tokio::test]
async fn leaders_are_learnt_while_a_producer_id_is_awaited() {
    let peers = Peers::start().await;
    let (native, topic_id) = peers.native().await;
    peers.forgets.store(true, Ordering::SeqCst);
    native.send(0, vec![part(topic_id, 0)]);
    seen(&peers.ids, 2).await;
    peers.leads_second.store(2, Ordering::SeqCst);
    native.send(1, vec![part(topic_id, 1)]);
    // Ordinals are told in order: it shows in what is written.
    let written = async {
        while native.traffic().written == 0 {
            native.traffic_changed().await;
        }
    };
    timeout(PATIENCE, written)
        .await
        .expect("it is written elsewhere");
    assert!(native.shared.with(|dispatch| dispatch.wants_identity()));
}

/// Its address may lead to another cluster by now, which takes whatever comes.
#[tokio::test]
async fn nothing_is_written_to_another_cluster_behind_the_same_name() {
    let peers = Peers::start().await;
    let (native, topic_id) = peers.native().await;
    native.send(0, vec![part(topic_id, 0)]);
    assert_eq!(native.acknowledged().await.unwrap().ordinal, 0);
    peers.is_elsewhere.store(true, Ordering::SeqCst);
    // The connection is there, and ends by that.
    native.send(1, vec![part(topic_id, 0)]);
    seen(&peers.elsewhere_asked, 3).await;
    assert_eq!(peers.elsewhere_written.load(Ordering::SeqCst), 1);
    peers.is_elsewhere.store(false, Ordering::SeqCst);
    let acknowledged = timeout(PATIENCE, native.acknowledged()).await;
    assert_eq!(acknowledged.expect("it goes on").unwrap().ordinal, 1);
    assert_eq!(peers.elsewhere_written.load(Ordering::SeqCst), 1);
}
