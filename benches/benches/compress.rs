//! Records of about 600 bytes into record batches of 2000, per codec, `kafka-protocol`'s encoder beside ours without compression
//! (with it, its own compressors would be measured, not its encoder).
//!
//! Throughput is in records; ns per record is the time divided by 2000. Values are written as the encoder writes them: constant
//! parts and a few fields straight into the builder's buffer.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as foreign;
use protocol::kafka::Compression;
use protocol::kafka::record_batch::{BuildError, Builder, Decoder, Header, stamp};

const RECORDS: u64 = 2000;
const TIMESTAMP_MS: i64 = 1_795_253_701_178;

/// What of a record differs from the others.
struct Row {
    key: Vec<u8>,
    position: Vec<u8>,
    fields: Vec<u8>,
}

fn rows() -> Vec<Row> {
    let mut random = 42_u64;
    let mut draw = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    (0..RECORDS)
        .map(|i| {
            let fields = format!(
                r#"{{"id":{i},"category":"category-{}","domain":"host-{:x}.example.org","timestamp":"2025-02-17T15:{:02}:{:02}Z"}}"#,
                draw(40),
                draw(1 << 30),
                draw(60),
                draw(60)
            );
            Row {
                key: format!(r#"{{"id":{i}}}"#).into_bytes(),
                position: format!("binlog.000002:53632951/{i}").into_bytes(),
                fields: fields.into_bytes(),
            }
        })
        .collect()
}

const BEFORE: &[u8] = br#"{"before":null,"after":"#;
const SOURCE: &[u8] = br#","source":{"version":"0.1.0","connector":"mysql","name":"shop","ts_ms":1795253701000,"snapshot":"false","db":"walbrook","sequence":null,"ts_us":1795253701000000,"ts_ns":1795253701000000000,"table":"events","server_id":1,"gtid":"3e11fa47-71ca-11e1-9e33-c80aa9429562:23","file":"binlog.000002","pos":53632951,"row":0,"thread":17,"query":null},"transaction":null,"op":"c","ts_ms":1795253701178,"ts_us":1795253701178462,"ts_ns":1795253701178462084}"#;

fn value(row: &Row, out: &mut Vec<u8>) {
    out.extend_from_slice(BEFORE);
    out.extend_from_slice(&row.fields);
    out.extend_from_slice(SOURCE);
}

fn build(builder: &mut Builder, rows: &[Row]) -> Vec<u8> {
    for row in rows {
        let _ = builder.mark().expect("memory");
        let headers = [Header::new("pos", &row.position)];
        builder
            .append_with(TIMESTAMP_MS, Some(&row.key), &headers, |out| {
                value(row, out);
                Ok::<_, BuildError>(())
            })
            .expect("room");
    }
    let mut batch = builder.finish().expect("memory");
    stamp(&mut batch, 1, 0, 0).expect("a batch");
    batch
}

fn foreign_records(rows: &[Row]) -> Vec<foreign::Record> {
    let record = |(i, row): (usize, &Row)| {
        let mut text = Vec::new();
        value(row, &mut text);
        foreign::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: 1,
            producer_epoch: 0,
            timestamp_type: foreign::TimestampType::Creation,
            offset: i as i64,
            sequence: i as i32,
            timestamp: TIMESTAMP_MS,
            key: Some(Bytes::copy_from_slice(&row.key)),
            value: Some(Bytes::from(text)),
            headers: IndexMap::from([(
                StrBytes::from_static_str("pos"),
                Some(Bytes::copy_from_slice(&row.position)),
            )]),
        }
    };
    rows.iter().enumerate().map(record).collect()
}

fn compress(c: &mut Criterion) {
    let rows = rows();
    let mut group = c.benchmark_group("record batch");
    group
        .throughput(Throughput::Elements(RECORDS))
        .sample_size(30);
    for compression in Compression::ALL {
        let mut builder = Builder::new(compression);
        let length = build(&mut builder, &rows).len();
        eprintln!(
            "{compression:?}: {} bytes per record",
            length as u64 / RECORDS
        );
        group.bench_function(format!("ours, {compression:?}"), |b| {
            b.iter(|| {
                let batch = black_box(build(&mut builder, &rows));
                builder.recycle(batch);
            });
        });
    }
    group.bench_function("kafka-protocol, None", |b| {
        let options = foreign::RecordEncodeOptions {
            version: 2,
            compression: foreign::Compression::None,
        };
        let mut out = BytesMut::new();
        b.iter(|| {
            out.clear();
            let records = foreign_records(&rows);
            foreign::RecordBatchEncoder::encode(&mut out, &records, &options).expect("a batch");
            black_box(out.len())
        });
    });
    group.finish();
}

fn decode(c: &mut Criterion) {
    let rows = rows();
    let mut group = c.benchmark_group("decode a record batch");
    group
        .throughput(Throughput::Elements(RECORDS))
        .sample_size(30);
    for compression in Compression::ALL {
        let batch = build(&mut Builder::new(compression), &rows);
        let mut decoder = Decoder::new();
        group.bench_function(format!("ours, {compression:?}"), |b| {
            b.iter(|| {
                let (_, records) = decoder.decode(&batch).expect("a batch").expect("all of it");
                records
                    .map(|record| record.expect("a record").value.map_or(0, <[u8]>::len))
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, compress, decode);
criterion_main!(benches);
