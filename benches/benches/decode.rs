//! Decode: row changes of the `events` table (BIGINT, two VARCHARs, TIMESTAMP), beside mysql_common's decoder.
//!
//! Input: the ROWS events among the first 2,000 events of the recording `mysql-9.7-1m`, already parsed as messages in both decoders; CPU
//! time per row change, of which a quarter are updates with two images. `walk` finds the images, as the source does; `full images` is what
//! the encoder uses on them where the server sends every column (its default), `any images` where it may lack some. mysql_common's rows own
//! their values, ours borrow them; that is the decoders' nature, and its price is in the figures.

use std::hint::black_box;
use std::time::Duration;

use benches::built;
use benches::cpu_time::CpuTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fixtures::Recording;
use mysql_common::binlog::EventStreamReader;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{EventData, RowsEventData, TableMapEvent};
use protocol::mysql::Column;
use protocol::mysql::event::{Checksum, Format, Message};
use protocol::mysql::rows::{FullImage, Image, Rows};

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

/// The ROWS events and their table's columns; the recording has one table.
fn rows(events: &[Vec<u8>]) -> (Vec<Column>, Vec<Rows<'_>>) {
    let mut format = Format::before_description(Checksum::Crc32);
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for event in events {
        match Message::parse(&format, event)
            .expect("recorded events are sound")
            .1
        {
            Message::FormatDescription(described) => format = described,
            Message::TableMap(map) => {
                columns = map.describe().expect("recorded events are sound").columns;
            }
            Message::Rows(event) => rows.push(event),
            _ => {}
        }
    }
    (columns, rows)
}

fn walk(columns: &[Column], rows: &[Rows<'_>]) -> u64 {
    let mut count = 0;
    for event in rows {
        for row in event.walk(columns).expect("the shape is the event's") {
            black_box(row.expect("recorded rows are sound"));
            count += 1;
        }
    }
    count
}

/// Walks, and calls `decode` with each image and the bits of the columns that it holds; the images' number.
fn images<'a>(columns: &[Column], rows: &[Rows<'a>], decode: impl Fn(&'a [u8], &'a [u8])) -> u64 {
    let mut count = 0;
    for event in rows {
        let bytes = event.bytes();
        for row in event.walk(columns).expect("the shape is the event's") {
            let row = row.expect("recorded rows are sound");
            for (present, image) in [
                (event.columns_before, row.before),
                (event.columns_after, row.after),
            ] {
                if let (Some(present), Some(image)) = (present.of(bytes), image.of(bytes)) {
                    decode(present, image);
                    count += 1;
                }
            }
        }
    }
    count
}

fn decode_full(columns: &[Column], image: &[u8]) {
    let mut image = FullImage::new(columns, image).expect("sound");
    for column in columns {
        black_box(image.next(column).expect("recorded values are sound"));
    }
    image.finish().expect("nothing is left over");
}

fn decode_any(columns: &[Column], present: &[u8], image: &[u8]) {
    let mut image = Image::new(columns, present, image).expect("sound");
    while let Some(value) = image.next().expect("recorded values are sound") {
        black_box(value);
    }
}

fn theirs(events: &[Vec<u8>]) -> (TableMapEvent<'static>, Vec<RowsEventData<'static>>) {
    let mut reader = EventStreamReader::new(BinlogVersion::Version4);
    let (mut table, mut rows) = (None, Vec::new());
    for event in events {
        let Some(event) = reader.read(&event[..]).expect("recorded events are sound") else {
            continue;
        };
        match event.read_data().expect("recorded events are sound") {
            Some(EventData::TableMapEvent(map)) => table = Some(map.into_owned()),
            Some(EventData::RowsEvent(data)) => rows.push(data.into_owned()),
            _ => {}
        }
    }
    (table.expect("there is a table"), rows)
}

fn decoders(c: &mut Criterion<CpuTime>) {
    let events = events();
    let (columns, rows) = rows(&events);
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(walk(&columns, &rows)));
    group.bench_function("walbrook walk", |b| b.iter(|| walk(&columns, &rows)));
    group.bench_function("walbrook walk and full images", |b| {
        b.iter(|| images(&columns, &rows, |_, image| decode_full(&columns, image)));
    });
    group.bench_function("walbrook walk and any images", |b| {
        b.iter(|| {
            images(&columns, &rows, |present, image| {
                decode_any(&columns, present, image);
            })
        });
    });
    let (table, their_rows) = theirs(&events);
    let changes = |data: &RowsEventData<'_>| data.rows(&table).count() as u64;
    let their_count: u64 = their_rows.iter().map(changes).sum();
    assert_eq!(their_count, walk(&columns, &rows), "the same rows");
    group.bench_function("mysql_common", |b| {
        b.iter(|| {
            for data in &their_rows {
                for row in data.rows(&table) {
                    black_box(row.expect("recorded rows are sound"));
                }
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime::Thread).sample_size(30).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = decoders
}
criterion_main!(built::begin, benches, built::end);
