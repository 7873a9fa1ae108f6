//! Packets: the frames of MySQL's client/server protocol.
//!
//! ```text
//! | length: 3, little-endian | sequence: 1 | payload: length |
//! ```
//! A payload of 0xffffff bytes continues in the next packet, so that one of exactly that length is followed by an empty packet.
//! The sequence starts at 0 with every command of the client, counts the packets of both sides, and wraps at 256.
//! Source: MySQL internals manual, "MySQL Packets".

use std::ops::Range;

use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::{MYSQL_EVENT_MAX, MYSQL_PACKET_MAX};

/// Bytes before each packet's payload.
pub const HEADER_LENGTH: usize = 4;

/// Finds the frames in bytes as received, and checks that none is missing.
#[derive(Debug, Clone)]
pub struct Frames {
    expected: u8,
    checked: bool,
}

/// One frame at the start of the bytes that were looked at: a packet, or a payload with all packets it is split into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes on the wire, headers included.
    pub wire_length: usize,
    /// Bytes of payload.
    pub payload_length: usize,
    /// Sequence id of its last packet: an answer takes the next one.
    pub sequence: u8,
}

/// One packet of a payload that is taken in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Bytes of the payload that it holds.
    pub length: usize,
    /// Whether the payload ends with it.
    pub is_last: bool,
}

impl Frames {
    /// Frames from sequence id `first` on: 0 for a greeting or a command, 1 for what answers a command.
    #[must_use]
    pub const fn starting_at(first: u8) -> Self {
        Self {
            expected: first,
            checked: true,
        }
    }

    /// Frames whose sequence ids are not checked: inside wire compression servers let them jump, because there the
    /// compressed packets are numbered (`net_serv.cc`: `pkt_nr = compress_pkt_nr`).
    #[must_use]
    pub const fn unchecked() -> Self {
        Self {
            expected: 0,
            checked: false,
        }
    }

    /// The frame that `bytes` starts with; `None` when more bytes are needed ([`missing`] says how many at least).
    ///
    /// # Errors
    /// A sequence id out of order (bytes were lost, or the peer speaks something else), or a payload over
    /// [`MYSQL_EVENT_MAX`].
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Frame>, DecodeError> {
        let mut at = 0;
        let mut payload_length = 0;
        let mut expected = self.expected;
        loop {
            let header = bytes
                .get(at..)
                .and_then(|rest| rest.first_chunk::<HEADER_LENGTH>());
            let Some([a, b, c, sequence]) = header.copied() else {
                return Ok(None);
            };
            if self.checked && sequence != expected {
                return Err(out_of_order(at, sequence));
            }
            expected = sequence.wrapping_add(1);
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            payload_length += length;
            if payload_length > MYSQL_EVENT_MAX {
                return Err(DecodeError::new(
                    "packet payload",
                    at as u64,
                    DecodeErrorKind::TooLong {
                        length: payload_length as u64,
                        limit: MYSQL_EVENT_MAX as u64,
                    },
                ));
            }
            at += HEADER_LENGTH + length;
            if at > bytes.len() {
                return Ok(None);
            }
            if length < MYSQL_PACKET_MAX {
                self.expected = expected;
                return Ok(Some(Frame {
                    wire_length: at,
                    payload_length,
                    sequence,
                }));
            }
        }
    }

    /// The packet whose header `bytes` starts with, for payloads that are taken as they come; `None` where the header is cut off.
    /// [`HEADER_LENGTH`] bytes are used then. Once it began so, a payload goes on so until its last part.
    ///
    /// # Errors
    /// A sequence id out of order.
    pub fn part(&mut self, bytes: &[u8]) -> Result<Option<Part>, DecodeError> {
        let Some([a, b, c, sequence]) = bytes.first_chunk::<HEADER_LENGTH>().copied() else {
            return Ok(None);
        };
        if self.checked && sequence != self.expected {
            return Err(out_of_order(0, sequence));
        }
        self.expected = sequence.wrapping_add(1);
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        Ok(Some(Part {
            length,
            is_last: length < MYSQL_PACKET_MAX,
        }))
    }
}

#[cold]
fn out_of_order(at: usize, sequence: u8) -> DecodeError {
    let value = sequence.into();
    let kind = DecodeErrorKind::Invalid { value };
    DecodeError::new("packet sequence id", at as u64 + 3, kind)
}

/// How many bytes `bytes` lacks at least to hold the frame that it starts with; 0 when it is there.
#[must_use]
pub fn missing(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let header = bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<HEADER_LENGTH>());
        let Some([a, b, c, _]) = header.copied() else {
            return (at + HEADER_LENGTH).saturating_sub(bytes.len());
        };
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        at += HEADER_LENGTH + length;
        if at > bytes.len() {
            return at - bytes.len();
        }
        if length < MYSQL_PACKET_MAX {
            return 0;
        }
    }
}

impl Frame {
    /// Where the payload of an unsplit frame stands, or that of a split one after [`Frame::join`].
    #[must_use]
    #[inline]
    pub const fn payload(&self) -> Range<usize> {
        HEADER_LENGTH..HEADER_LENGTH + self.payload_length
    }

    /// Whether the payload is split into several packets, so that headers stand in it.
    #[must_use]
    #[inline]
    pub const fn is_split(&self) -> bool {
        self.wire_length > HEADER_LENGTH + self.payload_length
    }

    /// Moves the parts of a split payload together over the headers between them, in `bytes`, which start with this frame.
    /// The `wire_length − 4 − payload_length` bytes after the payload are then without meaning.
    pub fn join(&self, bytes: &mut [u8]) {
        let part = HEADER_LENGTH + MYSQL_PACKET_MAX;
        let mut from = part;
        let mut to = part;
        while from < self.wire_length {
            let start = from + HEADER_LENGTH;
            let end = (from + part).min(self.wire_length);
            if end > bytes.len() || start > end {
                return;
            }
            bytes.copy_within(start..end, to);
            to += end - start;
            from = end;
        }
    }
}

/// Appends `payload` as packets from `sequence` on, which is then the next free one.
pub fn write(out: &mut Vec<u8>, sequence: &mut u8, payload: &[u8]) {
    for part in payload.chunks(MYSQL_PACKET_MAX) {
        header(out, sequence, part.len());
        out.extend_from_slice(part);
    }
    if payload.len().is_multiple_of(MYSQL_PACKET_MAX) {
        header(out, sequence, 0);
    }
}

fn header(out: &mut Vec<u8>, sequence: &mut u8, length: usize) {
    let [a, b, c, ..] = length.to_le_bytes();
    out.extend_from_slice(&[a, b, c, *sequence]);
    *sequence = sequence.wrapping_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(payloads: &[&[u8]]) -> Vec<u8> {
        let (mut out, mut sequence) = (Vec::new(), 0);
        for payload in payloads {
            write(&mut out, &mut sequence, payload);
        }
        out
    }

    #[test]
    fn every_cut_needs_more() {
        let bytes = packets(&[b"hello"]);
        assert_eq!(bytes, b"\x05\x00\x00\x00hello");
        for cut in 0..bytes.len() {
            assert_eq!(
                Frames::starting_at(0).next(&bytes[..cut]),
                Ok(None),
                "cut at {cut}"
            );
            assert_eq!(
                missing(&bytes[..cut]),
                if cut < 4 { 4 - cut } else { 9 - cut }
            );
        }
        let frame = Frames::starting_at(0).next(&bytes).unwrap().unwrap();
        assert_eq!(&bytes[frame.payload()], b"hello");
        assert!(!frame.is_split());
        assert_eq!(missing(&bytes), 0);
    }

    #[test]
    fn payloads_around_the_split() {
        for length in [
            MYSQL_PACKET_MAX - 1,
            MYSQL_PACKET_MAX,
            MYSQL_PACKET_MAX + 1,
            2 * MYSQL_PACKET_MAX + 7,
        ] {
            let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut bytes = packets(&[&payload, b"next"]);
            let mut frames = Frames::starting_at(0);
            let frame = frames.next(&bytes).unwrap().unwrap();
            assert_eq!(frame.payload_length, length);
            assert_eq!(frame.is_split(), length >= MYSQL_PACKET_MAX);
            assert_eq!(
                Frames::starting_at(0).next(&bytes[..frame.wire_length - 1]),
                Ok(None)
            );
            frame.join(&mut bytes);
            assert!(
                bytes[frame.payload()] == payload,
                "payload of {length} bytes"
            );
            let rest = &bytes[frame.wire_length..];
            let next = frames.next(rest).unwrap().unwrap();
            assert_eq!(&rest[next.payload()], b"next");
        }
    }

    #[test]
    fn lost_packets_are_noticed() {
        let mut bytes = packets(&[b"a", b"b", b"c"]);
        let mut frames = Frames::starting_at(0);
        frames.next(&bytes).unwrap().unwrap();
        bytes.drain(..10);
        let error = frames.next(&bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "packet sequence id at byte 3: 2 is not allowed here"
        );
        assert!(Frames::unchecked().next(&bytes).unwrap().is_some());
        let mut wrapping = Frames::starting_at(255);
        assert!(wrapping.next(b"\x00\x00\x00\xff").unwrap().is_some());
        assert!(wrapping.next(b"\x00\x00\x00\x00").unwrap().is_some());
    }
}
