//! Messages of the frontend/backend protocol 3.0, found in place in the bytes as read.
//!
//! ```text
//! | tag 1 | length 4, itself included | body … |        both directions, after the start-up
//! | length 4 | body … |                                 the client's first message (StartupMessage, SSLRequest)
//! ```
//! Section "Message Formats" of the manual.

use std::ops::Range;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::POSTGRES_MESSAGE_MAX;

/// Bytes before a body.
pub const HEADER_LENGTH: usize = 5;

/// Tags of messages from the server.
#[derive(Debug, Clone, Copy)]
pub struct Backend;

#[allow(missing_docs)]
impl Backend {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// A whole message, as offsets into the bytes it was found at the start of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub tag: u8,
    /// Its body.
    pub body: Range<usize>,
    /// Bytes that it takes on the wire: where the next one begins.
    pub wire_length: usize,
}

/// The message at the start of `bytes`; `None` when it is not there whole.
///
/// # Errors
/// A length that cannot be one.
#[inline]
pub fn next(bytes: &[u8]) -> Result<Option<Frame>, DecodeError> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_LENGTH>() else {
        return Ok(None);
    };
    let wire_length = wire_length(u32::from_be_bytes([a, b, c, d]))?;
    if bytes.len() < wire_length {
        return Ok(None);
    }
    Ok(Some(Frame {
        tag,
        body: HEADER_LENGTH..wire_length,
        wire_length,
    }))
}

/// Bytes that are missing of the message at the start of `bytes`; `None` while not even its length is there, or where that is wrong.
#[must_use]
pub fn missing(bytes: &[u8]) -> Option<usize> {
    let &[_, a, b, c, d] = bytes.first_chunk::<HEADER_LENGTH>()?;
    let whole = wire_length(u32::from_be_bytes([a, b, c, d])).ok()?;
    Some(whole.saturating_sub(bytes.len()))
}

#[inline]
fn wire_length(length: u32) -> Result<usize, DecodeError> {
    let length = length as usize;
    if !(4..=POSTGRES_MESSAGE_MAX).contains(&length) {
        return Err(wrong(length));
    }
    Ok(1 + length)
}

#[cold]
fn wrong(length: usize) -> DecodeError {
    let kind = match length < 4 {
        true => DecodeErrorKind::Invalid {
            value: length as u64,
        },
        false => DecodeErrorKind::TooLong {
            length: length as u64,
            limit: POSTGRES_MESSAGE_MAX as u64,
        },
    };
    DecodeError::new("message length", 1, kind)
}

/// Appends a message whose body is what `write` appends.
pub fn write(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    write_untagged(out, write);
}

/// Appends a message without a tag: the client's first ones.
pub fn write_untagged(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a text and the byte that ends it; what stands behind a NUL in it is cut off.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().take_while(|byte| *byte != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_whatever_the_reads_bring() {
        let mut wire = Vec::new();
        write(&mut wire, b'd', |out| out.extend_from_slice(b"first"));
        write(&mut wire, b'c', |_| {});
        let first = Frame {
            tag: b'd',
            body: 5..10,
            wire_length: 10,
        };
        for cut in 0..10 {
            assert_eq!(next(&wire[..cut]), Ok(None));
            assert_eq!(missing(&wire[..cut]), (cut >= 5).then(|| 10 - cut));
        }
        assert_eq!(next(&wire), Ok(Some(first)));
        let second = next(&wire[10..]).unwrap().unwrap();
        assert_eq!((second.tag, second.body), (b'c', 5..5));
    }

    #[test]
    fn impossible_lengths_are_errors() {
        for length in [0u32, 3, POSTGRES_MESSAGE_MAX as u32 + 1, u32::MAX] {
            let mut wire = vec![b'd'];
            wire.extend_from_slice(&length.to_be_bytes());
            assert!(next(&wire).is_err());
            assert_eq!(missing(&wire), None);
        }
    }
}
