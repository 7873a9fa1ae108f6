//! Sans-IO codecs of Walbrook: bytes in, values out.
//!
//! No runtime, no sockets, no clock, no randomness: time and nonces are arguments. "Need more bytes" is `Ok(None)`, never an
//! error. Lengths on the wire are claims: they are checked against the bytes that are there and against [`limits`] before
//! anything is read or reserved.
//!
//! Layer rules (checked by the `tidy` test):
//! - no project crate is imported, no tokio, no `std::net`, no `std::fs`, no `std::time::{Instant, SystemTime}`;
//! - `mysql`, `postgres` and `kafka` do not import each other; all may use `cursor`, `error`, `limits` and `span`.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod cursor;
pub mod error;
pub mod kafka;
pub mod limits;
pub mod mysql;
pub mod postgres;
pub mod span;

pub use cursor::Cursor;
pub use error::{DecodeError, DecodeErrorKind};
pub use span::Span;
