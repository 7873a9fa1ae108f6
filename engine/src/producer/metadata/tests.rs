//! Brokers of which some cannot be used, each of a few lines.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataResponse, ProducerId,
};
use kafka_protocol::protocol::Encodable;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{Compression, KafkaSettings, OnOversize, ProducerKind, TopicSettings};
use crate::producer::Producer;
use crate::producer::connection::{RESPONSE_MAX, read_frame};
use crate::producer::native::Native;

const METADATA: i16 = 3;
const INIT_PRODUCER_ID: i16 = 22;

/// What a broker does with whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It answers, once per connection, and hangs up.
    Good,
    /// It speaks something else.
    Bad,
    /// It hangs up.
    Away,
    /// It takes the connection and says nothing.
    Silent,
    /// As good, of the cluster of this name.
    Of(&'static str),
    /// It takes the question and says nothing to it.
    Deaf,
    /// It gives producer ids as well.
    Whole,
    /// As whole, once it has hung up on so many.
    Late(u32),
}

async fn answer(stream: &mut TcpStream, frame: &[u8], body: &impl Encodable, version: i16) {
    let mut answer = vec![0; 4];
    answer.extend_from_slice(&frame[4..8]);
    body.encode(&mut answer, version).unwrap();
    let length = answer.len() as u32 - 4;
    answer[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&answer).await.unwrap();
}

async fn serve(listener: TcpListener, mut kind: Kind) {
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if let Kind::Late(left) = kind {
            kind = left.checked_sub(1).map_or(Kind::Whole, Kind::Late);
            continue;
        }
        if kind == Kind::Away {
            continue;
        }
        if kind == Kind::Silent {
            held.push(stream);
            continue;
        }
        let Ok(frame) = read_frame(&mut stream, RESPONSE_MAX, "peer", None).await else {
            continue;
        };
        if kind == Kind::Bad {
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            continue;
        }
        let range = |key, version| {
            let api = ApiVersion::default().with_api_key(key);
            api.with_min_version(version).with_max_version(version)
        };
        let mut ranges = vec![range(METADATA, 8)];
        if kind == Kind::Whole {
            ranges.push(range(INIT_PRODUCER_ID, 1));
        }
        let versions = ApiVersionsResponse::default().with_api_keys(ranges);
        answer(&mut stream, &frame, &versions, 0).await;
        let Ok(frame) = read_frame(&mut stream, RESPONSE_MAX, "peer", None).await else {
            continue;
        };
        if kind == Kind::Deaf {
            held.push(stream);
            continue;
        }
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(address.port().into());
        let mut metadata = MetadataResponse::default().with_brokers(vec![broker]);
        if let Kind::Of(name) = kind {
            metadata.cluster_id = Some(StrBytes::from_static_str(name));
        }
        answer(&mut stream, &frame, &metadata, 8).await;
        if kind == Kind::Whole {
            let frame = read_frame(&mut stream, RESPONSE_MAX, "peer", None).await;
            let id = InitProducerIdResponse::default().with_producer_id(ProducerId(7));
            answer(&mut stream, &frame.unwrap(), &id, 1).await;
        }
    }
}

/// Brokers of these kinds, in this order.
async fn started(kinds: &[Kind]) -> Vec<String> {
    let mut brokers = Vec::new();
    for kind in kinds {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        brokers.push(listener.local_addr().unwrap().to_string());
        tokio::spawn(serve(listener, *kind));
    }
    brokers
}

/// A cluster that is configured with brokers of these kinds, in this order.
async fn cluster(kinds: &[Kind]) -> Cluster {
    let brokers = started(kinds).await;
    Cluster::new(Arc::new(Connector::plain()), &brokers).unwrap()
}

#[tokio::test]
async fn a_broker_that_cannot_be_used_is_passed_over() {
    for kinds in [
        &[Kind::Bad, Kind::Good][..],
        &[Kind::Bad, Kind::Away, Kind::Good],
    ] {
        let mut cluster = cluster(kinds).await;
        // The second time the connection over which it was asked is gone, too.
        for _ in 0..2 {
            let metadata = cluster.metadata(&[]).await;
            assert_eq!(metadata.unwrap().brokers.len(), 1, "{kinds:?}");
        }
    }
}

#[tokio::test]
async fn brokers_that_cannot_be_used_end_the_run_only_when_there_are_no_others() {
    for (kinds, lasts) in [
        (&[Kind::Bad][..], true),
        (&[Kind::Bad, Kind::Bad], true),
        (&[Kind::Bad, Kind::Away], false),
        (&[Kind::Away, Kind::Bad], false),
    ] {
        let fault = cluster(kinds).await.metadata(&[]).await.unwrap_err();
        let is_lasting = matches!(fault, Fault::Lasting(_));
        assert_eq!(is_lasting, lasts, "{kinds:?}: {fault}");
        let text = fault.to_string();
        assert!(text.contains("Kafka listener"), "{kinds:?}: {text}");
    }
}

/// Of a producer that may not make topics.
pub(in crate::producer) fn settings(brokers: Vec<String>) -> KafkaSettings {
    KafkaSettings {
        brokers,
        topic: "{source}.{table}".to_owned(),
        compression: Compression::Lz4,
        producer: ProducerKind::Native,
        batch_max: 1 << 20,
        on_oversize: OnOversize::Halt,
        tombstones: true,
        truncates: false,
        tls: None,
        sasl: None,
        topics: TopicSettings {
            create: false,
            partitions: 1,
            replication: 1,
        },
    }
}

/// A machine that is gone answers nothing at all, wherever in the list it is.
#[tokio::test]
async fn starts_while_a_broker_that_is_named_first_is_silent() {
    let brokers = started(&[Kind::Silent, Kind::Whole]).await;
    let native = Native::connect(&settings(brokers)).await.unwrap();
    assert_eq!(native.producer_ids(), [7]);
}

/// More often than one attempt to find Kafka connects.
#[tokio::test]
async fn brokers_that_come_later_are_reached() {
    let brokers = started(&[Kind::Late(8)]).await;
    let producer = Producer::reach(&settings(brokers)).await.unwrap();
    assert_eq!(producer.producer_ids(), [7]);
}

/// Whoever has had a turn is the last of the configured ones next time; whom others do not reach comes behind all of them.
#[tokio::test]
async fn candidates_take_turns_and_those_to_be_avoided_come_last() {
    let mut cluster = cluster(&[Kind::Away, Kind::Away, Kind::Away]).await;
    let configured = cluster.bootstrap.clone();
    assert_eq!(cluster.candidates(), configured);
    cluster.turn = 1;
    let [a, b, c] = &configured[..] else { panic!() };
    assert_eq!(cluster.candidates(), [b.clone(), c.clone(), a.clone()]);
    cluster.brokers = (1..).zip(configured.iter().cloned()).collect();
    cluster.avoid(&BTreeSet::from([2]));
    assert_eq!(cluster.candidates(), [c.clone(), a.clone(), b.clone()]);
    cluster.avoid(&BTreeSet::new());
    assert_eq!(cluster.candidates(), [b.clone(), c.clone(), a.clone()]);
}

/// It speaks as brokers do and then hangs: the next one is asked as soon as patience is over.
#[tokio::test]
async fn a_broker_that_does_not_answer_the_question_is_passed_over() {
    let mut cluster = cluster(&[Kind::Deaf, Kind::Good]).await;
    let question = MetadataRequest::default().with_topics(Some(Vec::new()));
    let little = Duration::from_millis(20);
    let asked = cluster.call_with::<Metadata, Metadata>(&question, None, little);
    // Without that it is twenty seconds.
    let answer = timeout(Duration::from_secs(15), asked).await;
    assert_eq!(
        answer.expect("it is waited for").unwrap().0.brokers.len(),
        1
    );
}

/// A name that leads to another cluster, as after a failover: what is written there lacks everything before.
#[tokio::test]
async fn a_broker_of_another_cluster_is_passed_over() {
    let mut cluster = cluster(&[Kind::Of("first"), Kind::Of("second")]).await;
    cluster.metadata(&[]).await.unwrap();
    let known = cluster.brokers.clone();
    for turn in [1, 3] {
        cluster.ask_another();
        cluster.brokers.clear();
        cluster.turn = turn;
        let fault = cluster.metadata(&[]).await.unwrap_err();
        assert!(matches!(fault, Fault::Passing(_)), "{fault}");
        let text = fault.to_string();
        let address = cluster.bootstrap[1].to_string();
        for part in ["first", "second", "start again", &address] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(cluster.brokers.is_empty(), "what it says of brokers");
        cluster.metadata(&[]).await.unwrap();
        assert_eq!(cluster.brokers, known);
    }
    assert_eq!(cluster.cluster_id(), Some("first"));
}

/// The name that the configuration has for a broker may be any broker's: the one that is silent is perhaps the one that is asked.
#[tokio::test]
async fn who_is_known_by_a_name_of_the_configuration_alone_may_be_who_is_silent() {
    let [address] = &started(&[Kind::Good]).await[..] else {
        panic!()
    };
    for (host, is_left) in [("localhost", true), ("127.0.0.1", false)] {
        let name = address.replace("127.0.0.1", host);
        let mut cluster = Cluster::new(Arc::new(Connector::plain()), &[name]).unwrap();
        cluster.metadata(&[]).await.unwrap();
        let other = Endpoint::parse("127.0.0.1:1").unwrap();
        cluster.brokers.insert(2, other);
        cluster.avoid(&BTreeSet::new());
        assert!(cluster.control.is_some(), "nobody is silent");
        cluster.avoid(&BTreeSet::from([2]));
        assert_eq!(cluster.control.is_none(), is_left, "{host}");
    }
}
