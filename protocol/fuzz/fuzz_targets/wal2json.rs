//! Any bytes as a message of wal2json: rewritten in place, or an error that leaves them as they were.
#![no_main]
use protocol::postgres::wal2json::{Described, Message, Shape};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let Ok(head) = Message::decode(text) else {
        return;
    };
    let Ok(described) = Described::read(text, &head) else {
        return;
    };
    let columns = described.columns.or(described.identity).unwrap_or_default();
    let mut bytes = text.to_vec();
    let whole = 0..bytes.len();
    let row = Shape::new(&columns).rewrite(&mut bytes, 0, whole, head.action, head.row_at);
    assert!(row.is_ok() || bytes == text);
});
