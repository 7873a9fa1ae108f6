//! Topics that are missing, against a broker of a few lines.

use std::collections::VecDeque;
use std::sync::Mutex;

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, CreateTopicsResponse, MetadataResponse,
};
use kafka_protocol::protocol::Encodable;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::producer::connection::{Connector, RESPONSE_MAX, read_frame};

const TOPIC: &str = "shop.orders";
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;
const INVALID_REPLICATION_FACTOR: i16 = 38;

const SETTINGS: TopicSettings = TopicSettings {
    create: true,
    partitions: 1,
    replication: 3,
};

/// No pause to speak of.
const HASTE: Duration = Duration::from_nanos(1);

/// A broker that answers these codes to attempts to create the topic, and 0 from then on; it knows the topic once it is created.
struct Peer {
    refusals: Mutex<VecDeque<i16>>,
    /// What was asked since it was connected to.
    asked: Mutex<Vec<i16>>,
}

impl Peer {
    async fn start(refusals: impl IntoIterator<Item = i16>) -> (Arc<Self>, Cluster) {
        let peer = Arc::new(Self {
            refusals: Mutex::new(refusals.into_iter().collect()),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = Arc::clone(&peer);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut is_created = false;
            while let Ok(frame) = read_frame(&mut stream, RESPONSE_MAX, "peer", None).await {
                serving.answer(&mut stream, &frame, &mut is_created).await;
            }
        });
        let cluster = Cluster::new(Arc::new(Connector::plain()), &[address]).unwrap();
        (peer, cluster)
    }

    async fn answer(&self, stream: &mut TcpStream, frame: &[u8], is_created: &mut bool) {
        let api = i16::from_be_bytes(frame[..2].try_into().unwrap());
        let name = || topic_name(TOPIC);
        let mut answer = vec![0; 4];
        answer.extend_from_slice(&frame[4..8]);
        match api {
            API_VERSIONS => {
                let range = |key, version| {
                    let api = ApiVersion::default().with_api_key(key);
                    api.with_min_version(version).with_max_version(version)
                };
                let ranges = vec![range(METADATA, 8), range(CREATE_TOPICS, 4)];
                let versions = ApiVersionsResponse::default().with_api_keys(ranges);
                versions.encode(&mut answer, 0).unwrap();
            }
            METADATA => {
                let topic = MetadataResponseTopic::default().with_name(Some(name()));
                let leader = MetadataResponsePartition::default().with_leader_id(BrokerId(1));
                let topic = match *is_created {
                    true => topic.with_partitions(vec![leader]),
                    false => topic.with_error_code(3),
                };
                let metadata = MetadataResponse::default().with_topics(vec![topic]);
                metadata.encode(&mut answer, 8).unwrap();
            }
            CREATE_TOPICS => {
                let code = self.refusals.lock().unwrap().pop_front().unwrap_or(0);
                *is_created |= code == 0;
                let said = "larger than available brokers: 2";
                let topic = CreatableTopicResult::default()
                    .with_name(name())
                    .with_error_code(code)
                    .with_error_message((code != 0).then(|| StrBytes::from_static_str(said)));
                let created = CreateTopicsResponse::default().with_topics(vec![topic]);
                created.encode(&mut answer, 4).unwrap();
            }
            other => panic!("asked {other}"),
        }
        if api != API_VERSIONS {
            self.asked.lock().unwrap().push(api);
        }
        let length = answer.len() as u32 - 4;
        answer[..4].copy_from_slice(&length.to_be_bytes());
        stream.write_all(&answer).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_just_created_is_asked_for_without_a_pause() {
    let (peer, mut cluster) = Peer::start([]).await;
    let mut backoff = Backoff::new(HASTE, HASTE);
    let names = [TOPIC.into()];
    let found = ensure_with(&mut cluster, &names, Some(&SETTINGS), &mut backoff).await;
    assert!(found.unwrap()[0].created);
    assert_eq!(backoff.attempts(), 0, "pauses");
    let asked = peer.asked.lock().unwrap().clone();
    assert_eq!(asked, [METADATA, CREATE_TOPICS, METADATA]);
}

#[tokio::test]
async fn too_few_brokers_for_a_new_topic_may_pass() {
    let (peer, mut cluster) = Peer::start([INVALID_REPLICATION_FACTOR; 2]).await;
    let mut backoff = Backoff::new(HASTE, HASTE);
    let names = [TOPIC.into()];
    let found = ensure_with(&mut cluster, &names, Some(&SETTINGS), &mut backoff).await;
    assert!(found.unwrap()[0].created);
    assert_eq!(backoff.attempts(), 2, "pauses");
    let round = [METADATA, CREATE_TOPICS];
    let expected = [&round[..], &round, &round, &[METADATA]].concat();
    assert_eq!(*peer.asked.lock().unwrap(), expected);
}

#[tokio::test]
async fn too_few_brokers_for_a_new_topic_halt_in_the_end() {
    let refusals = [INVALID_REPLICATION_FACTOR; ROUNDS_UNTIL_REFUSED as usize];
    let (peer, mut cluster) = Peer::start(refusals).await;
    let mut backoff = Backoff::new(HASTE, HASTE);
    let names = [TOPIC.into()];
    let found = ensure_with(&mut cluster, &names, Some(&SETTINGS), &mut backoff).await;
    let text = found.unwrap_err().to_string();
    for part in [
        TOPIC,
        "INVALID_REPLICATION_FACTOR",
        "larger than available brokers: 2",
        "kafka.topics.replication (3 now)",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(peer.refusals.lock().unwrap().is_empty(), "tried each time");
}
