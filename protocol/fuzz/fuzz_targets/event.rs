//! Any bytes as an event without checksum: a message or an error.
#![no_main]
use protocol::mysql::event::{Checksum, Format, Message};

libfuzzer_sys::fuzz_target!(|event: &[u8]| {
    if let Ok((_, Message::TableMap(map))) = Message::parse(&Format::before_description(Checksum::Off), event) {
        let _ = map.describe();
    }
});
