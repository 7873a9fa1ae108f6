//! wal2json: lines of its format 2 from bytes to values, beside `serde_json` and `simd-json`.
//!
//! Input: the row messages among the first frames of the recording `postgres-15-wal2json-20k`; CPU time per message. Everybody ends with
//! every member read and every column's name, type and value at hand:
//! - ours (a scanner that knows the plugin's writing, and reads any other JSON more slowly) rewrites the row in place into the
//!   tuples that pgoutput would have sent, which is what the engine encodes; it checks the whole message and copies values once;
//! - the others make a tree (`Value`), borrowed where they can, or fill borrowed structs of exactly this shape (`typed`), which is the
//!   least that they can do. Numbers become numbers; ours stay text, as the server wrote them.
//!
//! Ours and `simd-json` write into their input, so each iteration works on a fresh copy, made outside the measured time.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use benches::built;
use benches::cpu_time::CpuTime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fixtures::Recording;
use protocol::postgres::copy::Replication;
use protocol::postgres::wal2json::{Action, Described, Message, Shape};
use serde::Deserialize;

const MESSAGES: usize = 2_000;

/// Row messages one after the other, and where each is.
struct Lines {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

fn lines() -> Lines {
    let recording =
        Recording::named("postgres-15-wal2json-20k").expect("the recording is committed");
    let mut frames = recording.frames().expect("the recording opens");
    let mut lines = Lines {
        bytes: Vec::new(),
        ranges: Vec::new(),
    };
    while lines.ranges.len() < MESSAGES
        && let Some(frame) = frames.next_frame().expect("the recording reads")
    {
        let (Some(b'd'), Some(body)) = (frame.first(), frame.get(5..)) else {
            continue;
        };
        let Ok(Replication::XLogData(data)) = Replication::decode(body) else {
            continue;
        };
        let message = Message::decode(data.message).expect("recorded messages are sound");
        if matches!(
            message.action,
            Action::Insert | Action::Update | Action::Delete
        ) {
            let start = lines.bytes.len();
            lines.bytes.extend_from_slice(data.message);
            lines.ranges.push(start..lines.bytes.len());
        }
    }
    assert_eq!(lines.ranges.len(), MESSAGES);
    lines
}

/// The table's columns, from the first message that has them all: the recording has one table.
fn shape(lines: &Lines) -> Shape {
    let columns = lines.ranges.iter().find_map(|range| {
        let bytes = &lines.bytes[range.clone()];
        let message = Message::decode(bytes).ok()?;
        Described::read(bytes, &message).ok()?.columns
    });
    Shape::new(&columns.expect("an insert"))
}

fn ours(shape: &mut Shape, bytes: &mut [u8], ranges: &[Range<usize>]) {
    for range in ranges {
        let message = Message::decode(&bytes[range.clone()]).expect("recorded messages are sound");
        black_box(message.lsn);
        let (action, row_at) = (message.action, message.row_at);
        let tuples = shape
            .rewrite(bytes, range.start, range.clone(), action, row_at)
            .expect("recorded rows are sound");
        black_box(tuples);
    }
}

#[derive(Deserialize)]
struct Typed<'a> {
    action: &'a str,
    xid: Option<u32>,
    timestamp: Option<&'a str>,
    lsn: Option<&'a str>,
    schema: &'a str,
    table: &'a str,
    #[serde(borrow)]
    columns: Option<Vec<TypedColumn<'a>>>,
    #[serde(borrow)]
    identity: Option<Vec<TypedColumn<'a>>>,
    #[serde(borrow)]
    pk: Option<Vec<TypedKey<'a>>>,
}

#[derive(Deserialize)]
struct TypedColumn<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    #[serde(borrow)]
    value: TypedValue<'a>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TypedValue<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

#[derive(Deserialize)]
struct TypedKey<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
}

/// Every member of a typed message is looked at, so that none is left out as unused.
fn look(message: &Typed<'_>) -> usize {
    let columns = message.columns.iter().chain(&message.identity).flatten();
    let values = columns.map(|column| {
        let value = match column.value {
            TypedValue::Null => 0,
            TypedValue::Bool(is) => usize::from(is),
            TypedValue::Int(number) => number as usize,
            TypedValue::Float(number) => number as usize,
            TypedValue::Text(text) => text.len(),
        };
        value.wrapping_add(column.name.len() + column.type_name.len())
    });
    let keys = message
        .pk
        .iter()
        .flatten()
        .map(|key| key.name.len() + key.type_name.len());
    let texts = [message.timestamp, message.lsn]
        .into_iter()
        .flatten()
        .map(str::len);
    let heads = message.action.len() + message.schema.len() + message.table.len();
    (values
        .chain(keys)
        .chain(texts)
        .fold(heads, usize::wrapping_add))
    .wrapping_add(message.xid.unwrap_or(0) as usize)
}

fn wal2json(c: &mut Criterion<CpuTime>) {
    let lines = lines();
    let each = lines.bytes.len() / MESSAGES;
    eprintln!("{each} bytes per message");
    let copy = || lines.bytes.clone();
    let mut shape = shape(&lines);
    let mut group = c.benchmark_group("wal2json");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("walbrook rewrite", |b| {
        b.iter_batched_ref(
            copy,
            |bytes| ours(&mut shape, bytes, &lines.ranges),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("simd-json borrowed value", |b| {
        let mut buffers = simd_json::Buffers::new(8 << 10);
        b.iter_batched_ref(
            copy,
            |bytes| {
                for range in &lines.ranges {
                    let value = simd_json::to_borrowed_value_with_buffers(
                        &mut bytes[range.clone()],
                        &mut buffers,
                    );
                    black_box(value.expect("recorded messages are sound"));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("simd-json typed", |b| {
        let mut buffers = simd_json::Buffers::new(8 << 10);
        b.iter_batched_ref(
            copy,
            |bytes| {
                for range in &lines.ranges {
                    let message: Typed<'_> = simd_json::serde::from_slice_with_buffers(
                        &mut bytes[range.clone()],
                        &mut buffers,
                    )
                    .expect("recorded messages are sound");
                    black_box(look(&message));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("serde_json value", |b| {
        b.iter(|| {
            for range in &lines.ranges {
                let value =
                    serde_json::from_slice::<serde_json::Value>(&lines.bytes[range.clone()]);
                black_box(value.expect("recorded messages are sound"));
            }
        });
    });
    group.bench_function("serde_json typed", |b| {
        b.iter(|| {
            for range in &lines.ranges {
                let message: Typed<'_> = serde_json::from_slice(&lines.bytes[range.clone()])
                    .expect("recorded messages are sound");
                black_box(look(&message));
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime::Thread).sample_size(30).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = wal2json
}
criterion_main!(built::begin, benches, built::end);
