//! Any bytes as a message of pgoutput: what it holds can be read to its end, or it is an error.
#![no_main]
use protocol::postgres::pgoutput::{Message, Tuple};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Message::decode_streamed(bytes);
    if let Ok(Message::Insert(row)) = Message::decode(bytes) {
        let mut tuple = Tuple::new(&bytes[row.new]).unwrap();
        while tuple.next().unwrap().is_some() {}
    }
});
