//! Any text as a statement.
#![no_main]

use protocol::mysql::statement::{SqlMode, Statement};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Statement::recognise(text, SqlMode::default());
});
