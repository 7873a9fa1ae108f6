//! Our record batches, sent over a bare socket, read by both foreign clients.

use bytes::{BufMut, Bytes, BytesMut};
use harness::broker::Broker;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use protocol::kafka::Compression;
use protocol::kafka::record_batch::{self, Builder, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Seen, broker, read_rdkafka, read_rskafka, rskafka};

const VERSION: i16 = 9;

/// Sends one batch for partition `partition` of topic `t`; answers error code and base offset.
pub(crate) async fn produce(
    broker: &Broker,
    node: usize,
    partition: i32,
    batch: Vec<u8>,
) -> (i16, i64) {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(Bytes::from(batch)));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![topic]);
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::Produce as i16)
        .with_request_api_version(VERSION)
        .with_correlation_id(7);
    let mut out = BytesMut::new();
    out.put_i32(0);
    header
        .encode(&mut out, ApiKey::Produce.request_header_version(VERSION))
        .unwrap();
    request.encode(&mut out, VERSION).unwrap();
    let length = out.len() as i32 - 4;
    out[..4].copy_from_slice(&length.to_be_bytes());

    let mut stream = TcpStream::connect(broker.addresses()[node]).await.unwrap();
    stream.write_all(&out).await.unwrap();
    let mut answer = vec![0; stream.read_i32().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let mut answer = Bytes::from(answer);
    let header = ResponseHeader::decode(
        &mut answer,
        ApiKey::Produce.response_header_version(VERSION),
    )
    .unwrap();
    assert_eq!(header.correlation_id, 7);
    let response = ProduceResponse::decode(&mut answer, VERSION).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// A batch of records that begin at `first`, and what readers must see of them.
pub(crate) fn batch(compression: Compression, first: i64, records: i64) -> (Vec<u8>, Vec<Seen>) {
    let mut builder = Builder::new(compression);
    let mut expected = Vec::new();
    for offset in first..first + records {
        let key = format!("{{\"id\":{offset}}}").into_bytes();
        let value = (offset % 4 != 3).then(|| {
            format!(
                "{{\"after\":{{\"id\":{offset},\"text\":\"{:0600}\"}}}}",
                offset * 7
            )
            .into_bytes()
        });
        let position = format!("binlog.000002:{offset}/0");
        let timestamp_ms = 1_700_000_000_000 + offset;
        let headers = [Header::new("pos", position.as_bytes())];
        builder
            .append(timestamp_ms, Some(&key), value.as_deref(), &headers)
            .unwrap();
        expected.push(Seen {
            offset,
            key: Some(key),
            value,
            headers: vec![("pos".into(), position.into_bytes())],
            timestamp_ms,
        });
    }
    (builder.finish().unwrap(), expected)
}

#[tokio::test]
async fn our_batches_are_read_by_rskafka_and_librdkafka() {
    let broker = broker(1).await;
    let mut expected = Vec::new();
    for (i, compression) in Compression::ALL.into_iter().enumerate() {
        let (mut batch, records) = batch(compression, i as i64 * 1000, 1000);
        record_batch::stamp(&mut batch, 77, 0, i as i32 * 1000).unwrap();
        assert_eq!(
            produce(&broker, 0, 1, batch).await,
            (0, i as i64 * 1000),
            "{compression:?}"
        );
        expected.extend(records);
    }
    let client = rskafka(&broker).await;
    assert!(
        read_rskafka(&client, "t", 1).await == expected,
        "rskafka saw something else"
    );
    assert!(
        read_rdkafka(&broker, "t", 1).await == expected,
        "librdkafka saw something else"
    );
    assert!(read_rdkafka(&broker, "t", 0).await.is_empty());
    let counts = broker.counts();
    assert_eq!(
        (counts.records, counts.batches, counts.duplicates),
        (5000, 5, 0)
    );
    assert!(counts.first_append < counts.last_append);
}

#[tokio::test]
async fn what_a_broker_refuses() {
    let broker = broker(2).await;
    let stamped = |mut batch: Vec<u8>, sequence: i32| {
        record_batch::stamp(&mut batch, 77, 0, sequence).unwrap();
        batch
    };
    let good = stamped(batch(Compression::Lz4, 0, 10).0, 0);
    assert_eq!(
        produce(&broker, 0, 1, good.clone()).await.0,
        6,
        "node 1 leads partition 1"
    );
    assert_eq!(
        produce(&broker, 0, 9, good.clone()).await.0,
        3,
        "no such partition"
    );
    assert_eq!(produce(&broker, 0, 0, good.clone()).await, (0, 0));
    assert_eq!(
        produce(&broker, 0, 0, good.clone()).await,
        (0, 0),
        "a repetition gets the first offset"
    );
    assert_eq!(
        produce(&broker, 0, 0, stamped(batch(Compression::None, 0, 1).0, 11))
            .await
            .0,
        45,
        "a gap"
    );
    let mut damaged = good.clone();
    damaged[100] ^= 1;
    assert_eq!(produce(&broker, 0, 0, damaged).await.0, 2);
    let mut magic = good.clone();
    magic[16] = 1;
    assert_eq!(produce(&broker, 0, 0, magic).await.0, 43);
    assert_eq!(
        produce(&broker, 0, 0, [good.clone(), good].concat())
            .await
            .0,
        87,
        "two batches"
    );
    broker.limit_message_bytes(1000);
    assert_eq!(
        produce(
            &broker,
            0,
            0,
            stamped(batch(Compression::None, 0, 10).0, 10)
        )
        .await
        .0,
        10
    );
    assert_eq!(broker.counts().records, 10);
    assert_eq!(broker.counts().duplicates, 1);
}
