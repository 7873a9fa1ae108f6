//! Frame: binlog event headers and checksums, and whole messages, beside mysql_common's event reader.
//!
//! Input: the first 2,000 events of the recording `mysql-9.7-1m`. mysql_common never checks an event's checksum, so its
//! figure is for less work.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fixtures::Recording;
use mysql_common::binlog::EventStreamReader;
use mysql_common::binlog::consts::BinlogVersion;
use protocol::mysql::event::{Checksum, Format, Header, Message};

fn events() -> Vec<Vec<u8>> {
    let recording = Recording::named("mysql-9.7-1m").expect("the recording is committed");
    let mut stream = recording.events().expect("the recording opens");
    let mut events = Vec::new();
    while events.len() < 2_000
        && let Some(event) = stream.next_event().expect("the recording reads")
    {
        events.push(event.to_vec());
    }
    events
}

fn frame(c: &mut Criterion) {
    let events = events();
    let bytes: usize = events.iter().map(Vec::len).sum();
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("header", |b| {
        b.iter(|| {
            for event in &events {
                black_box(Header::parse(event).expect("recorded events are sound"));
            }
        });
    });
    group.bench_function("message with CRC32", |b| {
        b.iter(|| {
            let mut format = Format::before_description(Checksum::Crc32);
            for event in &events {
                let parsed = Message::parse(&format, event).expect("recorded events are sound");
                if let (_, Message::FormatDescription(described)) = parsed {
                    format = described;
                } else {
                    black_box(parsed);
                }
            }
        });
    });
    group.bench_function("mysql_common", |b| {
        b.iter_batched(
            || EventStreamReader::new(BinlogVersion::Version4),
            |mut reader| {
                for event in &events {
                    black_box(reader.read(&event[..]).expect("recorded events are sound"));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
