//! Any text as a statement.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = protocol::mysql::statement::Statement::recognise(text, false);
});
