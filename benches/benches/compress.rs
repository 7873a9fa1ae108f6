//! Records of about 600 bytes into record batches of 2000 and back, per codec, beside `kafka-protocol`'s encoder without compression
//! (with it, its own compressors would be measured, not its encoder).
//!
//! CPU time per record. Both sides get keys, header values and fields as bytes. Ours writes the value's parts straight into the batch;
//! `kafka-protocol` needs an owned record first, whose making is part of its figure, because its users have to do it.

use std::hint::black_box;
use std::time::Duration;

use benches::built;
use benches::cpu_time::CpuTime;
use benches::records::{RECORDS, Row, TIMESTAMP_MS, build, rows};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as foreign;
use protocol::kafka::Compression;
use protocol::kafka::record_batch::{Builder, Decoder, stamp};

fn stamped(builder: &mut Builder, rows: &[Row]) -> Vec<u8> {
    let mut batch = build(builder, rows);
    stamp(&mut batch, 1, 0, 0).expect("a batch");
    batch
}

fn foreign_records(rows: &[Row]) -> Vec<foreign::Record> {
    let record = |(i, row): (usize, &Row)| foreign::Record {
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
        value: Some(Bytes::from(row.value())),
        headers: IndexMap::from([(
            StrBytes::from_static_str("pos"),
            Some(Bytes::copy_from_slice(&row.position)),
        )]),
    };
    rows.iter().enumerate().map(record).collect()
}

fn name(compression: Compression) -> String {
    format!("{compression:?}").to_lowercase()
}

fn compress(c: &mut Criterion<CpuTime>) {
    let rows = rows();
    let mut group = c.benchmark_group("compress");
    group.throughput(Throughput::Elements(RECORDS));
    for compression in Compression::ALL {
        let mut builder = Builder::new(compression);
        let length = stamped(&mut builder, &rows).len();
        eprintln!(
            "{compression:?}: {} bytes per record",
            length as u64 / RECORDS
        );
        group.bench_function(format!("walbrook {}", name(compression)), |b| {
            b.iter(|| {
                let batch = black_box(stamped(&mut builder, &rows));
                builder.recycle(batch);
            });
        });
    }
    group.bench_function("kafka-protocol none", |b| {
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

fn decompress(c: &mut Criterion<CpuTime>) {
    let rows = rows();
    let mut group = c.benchmark_group("decompress");
    group.throughput(Throughput::Elements(RECORDS));
    for compression in Compression::ALL {
        let batch = stamped(&mut Builder::new(compression), &rows);
        let mut decoder = Decoder::new();
        group.bench_function(format!("walbrook {}", name(compression)), |b| {
            b.iter(|| {
                let (_, records) = decoder.decode(&batch).expect("a batch").expect("all of it");
                records
                    .map(|record| record.expect("a record").value.map_or(0, <[u8]>::len))
                    .sum::<usize>()
            });
        });
    }
    let batch = Bytes::from(stamped(&mut Builder::new(Compression::None), &rows));
    group.bench_function("kafka-protocol none", |b| {
        b.iter(|| {
            let mut bytes = batch.clone();
            let set = foreign::RecordBatchDecoder::decode(&mut bytes).expect("a batch");
            let lengths = set
                .records
                .iter()
                .map(|record| record.value.as_ref().map_or(0, Bytes::len));
            lengths.sum::<usize>()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime::Thread).sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = compress, decompress
}
criterion_main!(built::begin, benches, built::end);
