//! Topics that are missing, against a broker of a few lines.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, CreateTopicsResponse, MetadataResponse,
};
use kafka_protocol::protocol::Encodable;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::producer::connection::{Connector, RESPONSE_MAX, read_frame};
use crate::producer::response::ResourceConfigs;

const TOPIC: &str = "shop.orders";
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const NOT_CONTROLLER: i16 = 41;

const SETTINGS: TopicSettings = TopicSettings {
    create: true,
    partitions: 1,
    replication: 3,
};

type Known = tokio::sync::Mutex<Cluster>;

/// No pause to speak of.
const HASTE: Duration = Duration::from_nanos(1);

/// A broker that answers these codes to attempts to create the topic, and 0 from then on; it knows the topic once it is created.
struct Peer {
    address: SocketAddr,
    refusals: Mutex<VecDeque<i16>>,
    /// Answers to questions for metadata that it has still to give without knowing anything, as one that has just started.
    ignorant: Mutex<u32>,
    /// What was asked since it was connected to.
    asked: Mutex<Vec<i16>>,
    /// The version of CreateTopics that it speaks.
    version: i16,
    /// Whom it names as the controller; itself without one.
    controller: Option<SocketAddr>,
}

impl Peer {
    async fn start(refusals: impl IntoIterator<Item = i16>) -> (Arc<Self>, Known) {
        Self::start_with(refusals, 4, None).await
    }

    async fn start_with(
        refusals: impl IntoIterator<Item = i16>,
        version: i16,
        controller: Option<SocketAddr>,
    ) -> (Arc<Self>, Known) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = Arc::new(Self {
            address,
            ignorant: Mutex::default(),
            refusals: Mutex::new(refusals.into_iter().collect()),
            asked: Mutex::default(),
            version,
            controller,
        });
        let serving = Arc::clone(&peer);
        tokio::spawn(async move {
            let mut is_created = false;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                while let Ok(frame) = read_frame(&mut stream, RESPONSE_MAX, "peer", None).await {
                    serving.answer(&mut stream, &frame, &mut is_created).await;
                }
            }
        });
        let cluster = Cluster::new(Arc::new(Connector::plain()), &[address.to_string()]);
        (peer, Known::new(cluster.unwrap()))
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
                let ranges = vec![range(METADATA, 8), range(CREATE_TOPICS, self.version)];
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
                let broker = |(id, address): (i32, SocketAddr)| {
                    MetadataResponseBroker::default()
                        .with_node_id(BrokerId(id))
                        .with_host(StrBytes::from_string(address.ip().to_string()))
                        .with_port(address.port().into())
                };
                let brokers = [Some(self.address), self.controller];
                let brokers: Vec<_> = (1..).zip(brokers.into_iter().flatten()).collect();
                let controller = brokers.len() as i32;
                let mut ignorant = self.ignorant.lock().unwrap();
                let metadata = match ignorant.checked_sub(1) {
                    Some(left) => {
                        *ignorant = left;
                        let unknown = MetadataResponseTopic::default().with_name(Some(name()));
                        MetadataResponse::default().with_topics(vec![unknown.with_error_code(3)])
                    }
                    None => MetadataResponse::default()
                        .with_topics(vec![topic])
                        .with_controller_id(BrokerId(controller))
                        .with_brokers(brokers.into_iter().map(broker).collect()),
                };
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
                created.encode(&mut answer, self.version).unwrap();
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

/// The broker's own setting decides how a batch is stored, and what of it is counted.
#[test]
fn tells_topics_that_compress_what_comes_anew() {
    let value = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    let resource = |name: &str, code, values| ResourceConfigs {
        code,
        name: name.to_owned(),
        values,
    };
    let set = vec![
        value(MESSAGE_BYTES_MAX, "2000000"),
        value(COMPRESSION_TYPE, "gzip"),
    ];
    let mut limits = limits_of(DescribeConfigs {
        resources: vec![
            resource("set", 0, set),
            resource("untold", 29, Vec::new()),
            resource("older", 0, vec![value(MESSAGE_BYTES_MAX, "7")]),
        ],
    });
    let of = |limits: Limits| Found {
        metadata: TopicMetadata {
            code: 0,
            name: TOPIC.to_owned(),
            partitions: Vec::new(),
        },
        message_bytes_max: limits.message_bytes_max,
        compression_type: limits.compression_type,
        created: false,
    };
    assert!(!limits.contains_key("untold"));
    let older = of(limits.remove("older").unwrap());
    assert_eq!(older.message_bytes_max, Some(7));
    assert!(!is_compressed_anew(&older, Compression::Lz4), "not known");
    let mut set = of(limits.remove("set").unwrap());
    assert_eq!(set.message_bytes_max, Some(2_000_000));
    for (compression, expected) in [
        (Compression::Gzip, false),
        (Compression::Lz4, true),
        (Compression::None, true),
        (Compression::Auto, true),
    ] {
        let is_anew = is_compressed_anew(&set, compression);
        assert_eq!(is_anew, expected, "{compression:?}");
    }
    set.compression_type = Some("producer".into());
    assert!(!is_compressed_anew(&set, Compression::Lz4));
}

#[tokio::test]
async fn what_was_just_created_is_asked_for_without_a_pause() {
    let (peer, cluster) = Peer::start([]).await;
    let mut backoff = Backoff::new(HASTE, HASTE);
    let names = [TOPIC.into()];
    let found = ensure_with(&cluster, &names, Some(&SETTINGS), &mut backoff).await;
    assert!(found.unwrap()[0].created);
    assert_eq!(backoff.attempts(), 0, "pauses");
    let asked = peer.asked.lock().unwrap().clone();
    assert_eq!(asked, [METADATA, CREATE_TOPICS, METADATA]);
}

#[tokio::test]
async fn too_few_brokers_for_a_new_topic_may_pass() {
    let (peer, cluster) = Peer::start([INVALID_REPLICATION_FACTOR; 2]).await;
    let mut backoff = Backoff::new(HASTE, HASTE);
    let names = [TOPIC.into()];
    let found = ensure_with(&cluster, &names, Some(&SETTINGS), &mut backoff).await;
    assert!(found.unwrap()[0].created);
    assert_eq!(backoff.attempts(), 2, "pauses");
    let round = [METADATA, CREATE_TOPICS];
    let expected = [&round[..], &round, &round, &[METADATA]].concat();
    assert_eq!(*peer.asked.lock().unwrap(), expected);
}

#[tokio::test]
async fn too_few_brokers_for_a_new_topic_halt_in_the_end() {
    let refusals = [INVALID_REPLICATION_FACTOR; ROUNDS_UNTIL_REFUSED as usize];
    let (peer, cluster) = Peer::start(refusals).await;
    let mut backoff = Backoff::new(HASTE, HASTE);
    let names = [TOPIC.into()];
    let found = ensure_with(&cluster, &names, Some(&SETTINGS), &mut backoff).await;
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

/// With KRaft metadata name one of the brokers at random, and any passes the question on; with ZooKeeper only the controller answers it.
#[tokio::test]
async fn the_controller_is_asked_where_another_broker_refuses() {
    for (refusals, is_passed_on) in [(&[][..], true), (&[NOT_CONTROLLER], false)] {
        let (controller, _) = Peer::start([]).await;
        let refusals = refusals.iter().copied();
        let (peer, cluster) = Peer::start_with(refusals, 4, Some(controller.address)).await;
        let mut cluster = cluster.lock().await;
        let asked = cluster.metadata(&[TOPIC.into()]).await.unwrap();
        assert_eq!(asked.controller, 2);
        let mut created = Created::default();
        let again = create(&mut cluster, &[TOPIC.into()], &mut created, &SETTINGS).await;
        assert_eq!(again.unwrap(), None);
        assert!(created.ours.contains(TOPIC));
        assert_eq!(*peer.asked.lock().unwrap(), [METADATA, CREATE_TOPICS]);
        let expected: &[i16] = if is_passed_on { &[] } else { &[CREATE_TOPICS] };
        assert_eq!(*controller.asked.lock().unwrap(), expected);
    }
}

/// They would say for a minute that brokers are missing.
#[tokio::test]
async fn brokers_that_know_no_default_are_not_asked_for_it() {
    let settings = TopicSettings {
        replication: -1,
        ..SETTINGS
    };
    for (version, is_known) in [(3, false), (4, true)] {
        let (peer, cluster) = Peer::start_with([], version, None).await;
        let mut backoff = Backoff::new(HASTE, HASTE);
        let found = ensure_with(&cluster, &[TOPIC.into()], Some(&settings), &mut backoff).await;
        if is_known {
            assert!(found.unwrap()[0].created);
            continue;
        }
        let text = found.unwrap_err().to_string();
        for part in [TOPIC, "Kafka 2.4", "kafka.topics.replication"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(*peer.asked.lock().unwrap(), [METADATA]);
        // A number is all that it takes.
        let found = ensure_with(&cluster, &[TOPIC.into()], Some(&SETTINGS), &mut backoff).await;
        assert!(found.unwrap()[0].created);
    }
}

/// A broker that knows no brokers knows no topics either: that is no reason to create one, or to take it for gone.
#[tokio::test]
async fn a_broker_that_knows_nothing_yet_is_asked_again() {
    for settings in [Some(&SETTINGS), None] {
        let (peer, cluster) = Peer::start([]).await;
        let mut backoff = Backoff::new(HASTE, HASTE);
        let names = [TOPIC.into()];
        let made = ensure_with(&cluster, &names, Some(&SETTINGS), &mut backoff).await;
        assert!(made.unwrap()[0].created);
        *peer.ignorant.lock().unwrap() = 2 * ROUNDS_UNTIL_GONE;
        peer.asked.lock().unwrap().clear();
        let found = ensure_with(&cluster, &names, settings, &mut backoff).await;
        assert!(!found.unwrap()[0].created);
        let asked = peer.asked.lock().unwrap().clone();
        assert_eq!(asked, [METADATA; 2 * ROUNDS_UNTIL_GONE as usize + 1]);
    }
}

/// What nobody has told to create is asked for until it counts as gone.
#[tokio::test]
async fn a_topic_that_is_not_to_be_created_is_left_out_in_the_end() {
    let (peer, cluster) = Peer::start([]).await;
    let mut backoff = Backoff::new(HASTE, HASTE);
    let found = ensure_with(&cluster, &[TOPIC.into()], None, &mut backoff).await;
    assert!(found.unwrap().is_empty());
    let asked = peer.asked.lock().unwrap().clone();
    assert_eq!(asked, [METADATA; ROUNDS_UNTIL_GONE as usize]);
}
