//! Frame: binlog events from bytes to messages, their checksums verified, beside mysql_common's event reader.
//!
//! Input: the first 2,000 events of the recording `mysql-9.7-1m`; CPU time by bytes. mysql_common never checks an event's checksum: its
//! figure stands there as it is, and once more with the same CRC32 (of the same crate) computed beside it, which is the same work. Its
//! reader copies each event's body; ours borrows it.

use std::hint::black_box;
use std::time::Duration;

use benches::built;
use benches::cpu_time::CpuTime;
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

/// Whether the last four bytes are the CRC32 of the others.
fn is_intact(event: &[u8]) -> bool {
    let Some((body, checksum)) = event.split_last_chunk::<4>() else {
        return false;
    };
    crc32fast::hash(body) == u32::from_le_bytes(*checksum)
}

fn read(reader: &mut EventStreamReader, event: &[u8]) {
    let event = reader.read(event).expect("recorded events are sound");
    let event = event.expect("a whole event");
    black_box(event.read_data().expect("recorded events are sound"));
}

fn frame(c: &mut Criterion<CpuTime>) {
    let events = events();
    let bytes: usize = events.iter().map(Vec::len).sum();
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("walbrook header alone", |b| {
        b.iter(|| {
            for event in &events {
                black_box(Header::parse(event).expect("recorded events are sound"));
            }
        });
    });
    group.bench_function("walbrook message and CRC32", |b| {
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
    let reader = || EventStreamReader::new(BinlogVersion::Version4);
    group.bench_function("mysql_common message", |b| {
        b.iter_batched(
            reader,
            |mut reader| events.iter().for_each(|event| read(&mut reader, event)),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("mysql_common message and CRC32", |b| {
        b.iter_batched(
            reader,
            |mut reader| {
                for event in &events {
                    assert!(is_intact(event));
                    read(&mut reader, event);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime::Thread).sample_size(30).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = frame
}
criterion_main!(built::begin, benches, built::end);
