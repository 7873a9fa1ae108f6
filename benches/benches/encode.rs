//! Batches of the recorded workload to Debezium records in record batches, beside `serde_json` writing the same values.
//!
//! Throughput is in row changes: half creates, a quarter updates (two row images), a quarter deletes (a record and a tombstone).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use benches::cpu_time::CpuTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::Batch;
use engine::config::{Compression, EncodeSettings, Keys};
use engine::encode::{Encoder, Template};
use engine::encoded::Route;
use protocol::kafka::record_batch::{Decoder, stamp};

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

/// Every value that the encoder writes for `batches`, parsed.
fn values(batches: &[Batch]) -> Vec<serde_json::Value> {
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
            values.extend(
                json.map(|json| serde_json::from_slice::<serde_json::Value>(json).expect("JSON")),
            );
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
            &format!("walbrook/{name}"),
            &batches,
            compression,
        );
    }
    let values = values(&batches);
    group.bench_function("serde_json/values only", |bencher| {
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
        "walbrook/postgres/none",
        &batches,
        Compression::None,
    );
    walbrook(
        &mut group,
        "walbrook/postgres/lz4",
        &batches,
        Compression::Lz4,
    );
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = encode
}
criterion_main!(benches);
