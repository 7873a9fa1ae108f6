//! Any bytes as a binary JSON document: bounded text or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|document: &[u8]| {
    let mut out = Vec::new();
    let _ = protocol::mysql::json::write_text(document, &mut out);
    assert!(out.len() <= 30 * (document.len() + 1));
});
