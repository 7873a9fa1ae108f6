//! Encode: batches of the recorded workloads to Debezium records in record batches, beside `serde_json` writing the same values.
//!
//! CPU time per row change: half creates, a quarter updates (two row images), a quarter deletes (a record and a tombstone). Ours decodes
//! the rows, writes keys, values and headers into record batches per partition, and compresses them. `serde_json` serialises structs that
//! hold every value already decoded, and nothing but the values: the least that an encoder built on it would do.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use benches::built;
use benches::cpu_time::CpuTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::Batch;
use engine::config::{Compression, EncodeSettings, Keys};
use engine::encode::{Encoder, Template};
use engine::encoded::Route;
use protocol::kafka::record_batch::{Decoder, stamp};
use serde::{Deserialize, Serialize};

const NOW: Duration = Duration::new(1_795_253_701, 178_462_084);

fn settings(compression: Compression) -> Arc<EncodeSettings> {
    Arc::new(EncodeSettings {
        source: "shop".into(),
        connector: "mysql",
        version: env!("CARGO_PKG_VERSION"),
        keys: Keys::default(),
        compression,
        batch_max: 1 << 20,
        row_max: 64 << 20,
        tombstones: true,
    })
}

fn templates(batch: &Batch, settings: &EncodeSettings) -> Vec<Arc<Template>> {
    let template = |table: &Arc<_>| {
        let route = Route {
            topic: "shop.shop.events".into(),
            topic_id: 0,
            partitions: 3,
        };
        Template::new(Arc::clone(table), route, settings).unwrap()
    };
    batch.tables.iter().map(template).collect()
}

/// A record's value as a struct, decoded: what serde would be given.
#[derive(Serialize, Deserialize)]
struct Envelope {
    before: Option<Events>,
    after: Option<Events>,
    source: Origin,
    transaction: Option<()>,
    op: String,
    ts_ms: i64,
    ts_us: i64,
    ts_ns: i64,
}

/// A row of the workload's table.
#[derive(Serialize, Deserialize)]
struct Events {
    id: i64,
    category: Option<String>,
    domain: Option<String>,
    timestamp: Option<String>,
}

/// Debezium's `source` for MySQL.
#[derive(Serialize, Deserialize)]
struct Origin {
    version: String,
    connector: String,
    name: String,
    ts_ms: i64,
    snapshot: String,
    db: String,
    sequence: Option<String>,
    ts_us: i64,
    ts_ns: i64,
    table: String,
    server_id: u32,
    gtid: Option<String>,
    file: String,
    pos: u64,
    row: u32,
    thread: Option<u32>,
    query: Option<String>,
}

/// Every value that the encoder writes for `batches`, parsed; serde writes them back to the same text.
fn values(batches: &[Batch]) -> Vec<Envelope> {
    let settings = settings(Compression::None);
    let mut encoder = Encoder::new(Arc::clone(&settings));
    let mut values = Vec::new();
    for batch in batches {
        let templates = templates(batch, &settings);
        for mut part in encoder
            .encode(batch, &templates, None, NOW)
            .expect("records")
        {
            stamp(&mut part.bytes, -1, -1, -1).expect("a batch");
            let mut decoder = Decoder::new();
            let (_, records) = decoder
                .decode(&part.bytes)
                .expect("a batch")
                .expect("all of it");
            let json = records.filter_map(|record| record.expect("a record").value);
            values.extend(json.map(|json| {
                let value: Envelope = serde_json::from_slice(json).expect("the envelope");
                let back = serde_json::to_vec(&value).expect("JSON");
                assert_eq!(
                    String::from_utf8_lossy(&back),
                    String::from_utf8_lossy(json),
                    "the same text"
                );
                value
            }));
        }
    }
    values
}

fn walbrook(
    group: &mut BenchmarkGroup<'_, CpuTime>,
    name: &str,
    batches: &[Batch],
    compression: Compression,
) {
    let settings = settings(compression);
    let prepared: Vec<_> = batches
        .iter()
        .map(|batch| (batch, templates(batch, &settings)))
        .collect();
    let mut encoder = Encoder::new(settings);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            for (batch, templates) in &prepared {
                let parts = encoder.encode(batch, templates, None, NOW);
                black_box(parts.expect("records"));
            }
        });
    });
}

fn encode(criterion: &mut Criterion<CpuTime>) {
    let (batches, changes) = benches::batches::of_recording("mysql-9.7-20k", 256 << 10);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(changes));
    for (name, compression) in [
        ("none", Compression::None),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ] {
        walbrook(
            &mut group,
            &format!("walbrook MySQL {name}"),
            &batches,
            compression,
        );
    }
    let values = values(&batches);
    group.bench_function("serde_json MySQL values alone", |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            for value in &values {
                serde_json::to_writer(&mut out, value).expect("JSON");
            }
            black_box(&out);
        });
    });
    let (batches, changes) = benches::postgres_batches::of_recording("postgres-15-20k", 256 << 10);
    group.throughput(Throughput::Elements(changes));
    walbrook(
        &mut group,
        "walbrook PostgreSQL none",
        &batches,
        Compression::None,
    );
    walbrook(
        &mut group,
        "walbrook PostgreSQL lz4",
        &batches,
        Compression::Lz4,
    );
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime::Thread).sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = encode
}
criterion_main!(built::begin, benches, built::end);
