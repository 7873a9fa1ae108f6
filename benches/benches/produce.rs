//! Records of about 600 bytes, built into one lz4 batch of 2000, sent over loopback and acknowledged by the embedded broker, which
//! keeps nothing: ours (record batch and request alone, one request at a time) beside rskafka's `produce`.
//!
//! Throughput is in records. The broker's share of the two cores is the same for both.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harness::broker::{Broker, Settings};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use protocol::kafka::Compression;
use protocol::kafka::record_batch::{BuildError, Builder, Header, stamp};
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::UnknownTopicHandling;
use rskafka::record::Record;

const RECORDS: u64 = 2000;
const TIMESTAMP_MS: i64 = 1_795_253_701_178;
const VERSION: i16 = 9;

const SOURCE: &str = r#"},"source":{"version":"0.1.0","connector":"mysql","name":"shop","ts_ms":1795253701000,"snapshot":"false","db":"walbrook","sequence":null,"ts_us":1795253701000000,"ts_ns":1795253701000000000,"table":"events","server_id":1,"gtid":"3e11fa47-71ca-11e1-9e33-c80aa9429562:23","file":"binlog.000002","pos":53632951,"row":0,"thread":17,"query":null},"transaction":null,"op":"c","ts_ms":1795253701178,"ts_us":1795253701178462,"ts_ns":1795253701178462084}"#;

/// Key, position, and the fields that differ.
fn rows() -> Vec<(Vec<u8>, Vec<u8>, String)> {
    let row = |i: u64| {
        let host = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 36;
        (
            format!(r#"{{"id":{i}}}"#).into_bytes(),
            format!("binlog.000002:53632951/{i}").into_bytes(),
            format!(
                r#""id":{i},"category":"category-{}","domain":"host-{host:x}.example.org","timestamp":"2025-02-17T15:19:39Z""#,
                i % 40
            ),
        )
    };
    (0..RECORDS).map(row).collect()
}

fn write_value(fields: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"before":null,"after":{"#);
    out.extend_from_slice(fields.as_bytes());
    out.extend_from_slice(SOURCE.as_bytes());
}

fn request(batch: Vec<u8>) -> BytesMut {
    let data = PartitionProduceData::default()
        .with_index(0)
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
        .with_request_api_version(VERSION);
    let mut out = BytesMut::new();
    out.put_i32(0);
    header
        .encode(&mut out, ApiKey::Produce.request_header_version(VERSION))
        .expect("a header");
    request.encode(&mut out, VERSION).expect("a request");
    let length = out.len() as i32 - 4;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn produce(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads");
    let settings = Settings {
        discard: true,
        ..Settings::default()
    };
    let broker = runtime.block_on(Broker::start(settings)).expect("a port");
    broker.create_topic("t", 1).expect("a topic");
    let rows = rows();
    let mut group = c.benchmark_group("produce lz4, acknowledged");
    group
        .throughput(Throughput::Elements(RECORDS))
        .sample_size(20);

    let mut stream = TcpStream::connect(broker.addresses()[0]).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut builder = Builder::new(Compression::Lz4);
    group.bench_function("ours", |b| {
        b.iter(|| {
            for (key, position, fields) in &rows {
                let _ = builder.mark().expect("memory");
                let headers = [Header::new("pos", position)];
                builder
                    .append_with(TIMESTAMP_MS, Some(key), &headers, |out| {
                        write_value(fields, out);
                        Ok::<_, BuildError>(())
                    })
                    .expect("room");
            }
            let mut batch = builder.finish().expect("memory");
            stamp(&mut batch, -1, -1, -1).expect("a batch");
            stream.write_all(&request(batch)).expect("sent");
            let mut length = [0; 4];
            stream.read_exact(&mut length).expect("an answer");
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut answer).expect("an answer");
        });
    });

    let client = runtime.block_on(async {
        let client = ClientBuilder::new(vec![broker.bootstrap()])
            .build()
            .await
            .expect("a client");
        client
            .partition_client("t", 0, UnknownTopicHandling::Error)
            .await
            .expect("a partition")
    });
    let timestamp = DateTime::<Utc>::from_timestamp_millis(TIMESTAMP_MS).expect("a time");
    group.bench_function("rskafka", |b| {
        b.iter(|| {
            let records = rows.iter().map(|(key, position, fields)| {
                let mut value = Vec::with_capacity(640);
                write_value(fields, &mut value);
                Record {
                    key: Some(key.clone()),
                    value: Some(value),
                    headers: BTreeMap::from([("pos".to_owned(), position.clone())]),
                    timestamp,
                }
            });
            let lz4 = rskafka::client::partition::Compression::Lz4;
            runtime
                .block_on(client.produce(records.collect(), lz4))
                .expect("acknowledged")
        });
    });
    group.finish();
}

criterion_group!(benches, produce);
criterion_main!(benches);
