//! The one error of all decoders: small, `Copy`, free of strings made at run time.

use std::fmt;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// The field or structure that was being read, in the protocol's own terms, e.g. `"TABLE_MAP column count"`.
    pub what: &'static str,
    /// Where it stands: bytes from the start of the frame (or event) that was handed to the decoder.
    pub at: u64,
    /// What is wrong with it.
    pub kind: DecodeErrorKind,
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The frame ends before the field does; `missing` bytes are not there.
    Truncated {
        /// Bytes that the field would need beyond the end.
        missing: u64,
    },
    /// The structure ends before the frame does; `left` bytes are unexplained.
    TrailingBytes {
        /// Bytes left over.
        left: u64,
    },
    /// A value that the protocol does not allow here.
    Invalid {
        /// The value, widened.
        value: u64,
    },
    /// A length or count beyond our limit (see `limits.rs`).
    TooLong {
        /// The claimed length.
        length: u64,
        /// The limit that it exceeds.
        limit: u64,
    },
    /// Stored and computed checksums differ.
    Checksum {
        /// As stored in the bytes.
        stored: u32,
        /// As computed over the bytes.
        computed: u32,
    },
    /// A compressed stream that its codec refuses.
    Corrupt,
    /// Text that is not valid in its declared encoding.
    Encoding,
    /// A well-formed value that this version does not read.
    Unsupported {
        /// The value (a type code, version, flag …), widened.
        value: u64,
    },
}

impl DecodeError {
    /// An error about `what` at byte `at`.
    #[must_use]
    pub const fn new(what: &'static str, at: u64, kind: DecodeErrorKind) -> Self {
        Self { what, at, kind }
    }

    /// The same error, `by` bytes further from the start: for callers that handed a part of their frame to a decoder.
    #[must_use]
    pub const fn shifted(self, by: u64) -> Self {
        Self {
            at: self.at.saturating_add(by),
            ..self
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, at, kind } = self;
        match kind {
            DecodeErrorKind::Truncated { missing } => {
                write!(f, "{what} at byte {at}: {missing} bytes are missing")
            }
            DecodeErrorKind::TrailingBytes { left } => {
                write!(f, "{what} ends at byte {at}, but {left} bytes follow")
            }
            DecodeErrorKind::Invalid { value } => {
                write!(f, "{what} at byte {at}: {value} is not allowed here")
            }
            DecodeErrorKind::TooLong { length, limit } => {
                write!(
                    f,
                    "{what} at byte {at}: {length} is over the limit of {limit}"
                )
            }
            DecodeErrorKind::Checksum { stored, computed } => write!(
                f,
                "{what} at byte {at}: checksum {stored:#010x} stored, {computed:#010x} computed"
            ),
            DecodeErrorKind::Corrupt => {
                write!(f, "{what} at byte {at}: corrupt, it cannot be decompressed")
            }
            DecodeErrorKind::Encoding => {
                write!(f, "{what} at byte {at}: not valid in its character set")
            }
            DecodeErrorKind::Unsupported { value } => {
                write!(f, "{what} at byte {at}: {value} is not supported")
            }
        }
    }
}

impl std::error::Error for DecodeError {}
