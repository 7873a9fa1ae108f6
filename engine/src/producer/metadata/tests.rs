//! Brokers of which some cannot be used, each of a few lines.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{ApiVersionsResponse, BrokerId, MetadataResponse};
use kafka_protocol::protocol::Encodable;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::producer::connection::{RESPONSE_MAX, read_frame};

const METADATA: i16 = 3;

/// What a broker does with whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It answers, once per connection, and hangs up.
    Good,
    /// It speaks something else.
    Bad,
    /// It hangs up.
    Away,
}

async fn answer(stream: &mut TcpStream, frame: &[u8], body: &impl Encodable, version: i16) {
    let mut answer = vec![0; 4];
    answer.extend_from_slice(&frame[4..8]);
    body.encode(&mut answer, version).unwrap();
    let length = answer.len() as u32 - 4;
    answer[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&answer).await.unwrap();
}

async fn serve(listener: TcpListener, kind: Kind) {
    let address = listener.local_addr().unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if kind == Kind::Away {
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
        let metadata = ApiVersion::default().with_api_key(METADATA);
        let metadata = metadata.with_min_version(8).with_max_version(8);
        let versions = ApiVersionsResponse::default().with_api_keys(vec![metadata]);
        answer(&mut stream, &frame, &versions, 0).await;
        let Ok(frame) = read_frame(&mut stream, RESPONSE_MAX, "peer", None).await else {
            continue;
        };
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(address.port().into());
        let metadata = MetadataResponse::default().with_brokers(vec![broker]);
        answer(&mut stream, &frame, &metadata, 8).await;
    }
}

/// A cluster that is configured with brokers of these kinds, in this order.
async fn cluster(kinds: &[Kind]) -> Cluster {
    let mut brokers = Vec::new();
    for kind in kinds {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        brokers.push(listener.local_addr().unwrap().to_string());
        tokio::spawn(serve(listener, *kind));
    }
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
