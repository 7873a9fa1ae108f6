//! Connections against a peer of a few lines.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest,
    MetadataResponse, ProducerId,
};
use tokio::net::TcpListener;

use super::*;
use crate::producer::response::{InitProducerId, Metadata};

/// The correlation id of the next request.
async fn asked(peer: &mut TcpStream) -> i32 {
    let frame = read_frame(peer, 1 << 16, "peer", None).await.unwrap();
    i32::from_be_bytes(frame[4..8].try_into().unwrap())
}

async fn answer(
    peer: &mut TcpStream,
    correlation: i32,
    body: &impl kafka_protocol::protocol::Encodable,
    version: i16,
) {
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&correlation.to_be_bytes());
    body.encode(&mut frame, version).unwrap();
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    peer.write_all(&frame).await.unwrap();
}

/// A broker that speaks these versions of these APIs, answers two requests only when both have come, and then one alone.
async fn connected(apis: &'static [(i16, i16)], pairs: bool) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let first = asked(&mut peer).await;
        let api = |&(key, version)| {
            let api = ApiVersion::default().with_api_key(key);
            api.with_min_version(version).with_max_version(version)
        };
        let versions = apis.iter().map(api).collect();
        let versions = ApiVersionsResponse::default().with_api_keys(versions);
        answer(&mut peer, first, &versions, 0).await;
        let one = asked(&mut peer).await;
        let two = match pairs {
            true => Some(asked(&mut peer).await),
            false => None,
        };
        answer(&mut peer, one, &MetadataResponse::default(), 8).await;
        if let Some(two) = two {
            let id = InitProducerIdResponse::default().with_producer_id(ProducerId(7));
            answer(&mut peer, two, &id, 1).await;
        }
        let three = asked(&mut peer).await;
        answer(&mut peer, three, &MetadataResponse::default(), 8).await;
    });
    let connector = Connector::plain();
    let host = "127.0.0.1".into();
    connector.connect(&Endpoint { host, port }).await.unwrap()
}

/// The broker would wait for the second request for ever if it were sent only after the first one's answer.
#[tokio::test]
async fn two_requests_take_one_round_trip() {
    let id = InitProducerIdRequest::default();
    let mut connection = connected(&[(3, 8), (22, 1)], true).await;
    let request = MetadataRequest::default();
    let asked = connection.call_with::<Metadata, InitProducerId>(&request, Some(&id));
    let (metadata, id) = asked.await.unwrap();
    assert!(metadata.brokers.is_empty());
    assert_eq!(id.map(|id| id.producer_id), Some(7));
    connection.call::<Metadata>(&request).await.unwrap();
}

#[tokio::test]
async fn what_the_broker_does_not_speak_is_not_asked_along() {
    let id = InitProducerIdRequest::default();
    let mut connection = connected(&[(3, 8)], false).await;
    let request = MetadataRequest::default();
    let asked = connection.call_with::<Metadata, InitProducerId>(&request, Some(&id));
    assert_eq!(asked.await.unwrap().1, None);
    connection.call::<Metadata>(&request).await.unwrap();
}

#[tokio::test]
async fn frames_come_in_pieces_and_silence_ends_the_wait() {
    let body: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
    let (mut peer, mut stream) = tokio::io::duplex(1000);
    let sent = body.clone();
    tokio::spawn(async move {
        peer.write_i32(sent.len() as i32).await.unwrap();
        peer.write_all(&sent).await.unwrap();
        // Half of a second one, and then nothing more.
        peer.write_i32(sent.len() as i32).await.unwrap();
        peer.write_all(&sent[..sent.len() / 2]).await.unwrap();
        std::future::pending::<()>().await;
    });
    let limit = RESPONSE_MAX;
    let frame = read_frame(&mut stream, limit, "peer", None).await;
    assert_eq!(frame.unwrap(), body);
    let patience = Some(Duration::from_millis(50));
    let frame = read_frame(&mut stream, limit, "peer", patience).await;
    let text = frame.unwrap_err().to_string();
    assert_eq!(text, "no answer within 50ms");
    let frame = read_frame(&mut stream, limit, "peer", patience).await;
    assert!(frame.is_err(), "nor does another one begin");
}

#[test]
fn reads_endpoints() {
    for (text, expected) in [
        ("k1:9093", Some("k1:9093")),
        ("k1", Some("k1:9092")),
        ("[::1]:9092", Some("[::1]:9092")),
        ("[::1]", Some("[::1]:9092")),
        ("10.0.0.1:1", Some("10.0.0.1:1")),
        ("k1:", None),
        ("k1:70000", None),
        (":9092", None),
        ("", None),
    ] {
        assert_eq!(
            Endpoint::parse(text)
                .map(|endpoint| endpoint.to_string())
                .as_deref(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn a_connection_is_replaced_before_its_session_ends() {
    let begun = clock::now();
    for (lifetime, expected) in [
        (0, None),
        (-1, None),
        (1, Some(SESSION_MIN)),
        (1_000, Some(Duration::from_millis(850))),
        (3_600_000, Some(Duration::from_secs(3060))),
    ] {
        let after = replace_at(begun, lifetime).map(|at| at - begun);
        assert_eq!(after, expected, "{lifetime} ms");
    }
    // It may be longer than clocks count.
    assert!(replace_at(begun, i64::MAX).is_none_or(|at| at > begun));
}
