//! Packets of a dump, found in place in the bytes as read; those that were split at 16 MiB − 1 are joined in place.
//!
//! ```text
//! payload: | 0x00 | event |                an event
//!          | 0xff | code 2 | message |     the server refuses to go on
//!          | 0xfe | 4 bytes |              the dump is over (only when asked not to block)
//! ```

use std::ops::Range;

use protocol::DecodeError;
use protocol::mysql::packet::{Frames, HEADER_LENGTH};

/// One packet of a dump, as ranges of the bytes it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// An event's bytes.
    Event(Range<usize>),
    /// An error's payload, `0xff` included.
    Error(Range<usize>),
    /// The server ended the dump.
    End,
    /// Neither: a packet that begins with this byte (`None`: an empty one) has no place in a dump.
    Unknown(Option<u8>),
}

/// What comes next of an event that is taken in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes of the event.
    Bytes(Range<usize>),
    /// It is over.
    End,
    /// More has to be read.
    More,
}

/// Where the next packet starts, and what its number must be.
#[derive(Debug, Clone)]
pub(super) struct Packets {
    frames: Frames,
    start: usize,
    /// The payload that is being taken in pieces.
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    /// Bytes of the present packet that are still to come.
    left: usize,
    is_last: bool,
    /// Whether the byte before the event has come.
    marked: bool,
}

impl Packets {
    /// Packets from `start` on.
    pub(super) fn new(frames: Frames, start: usize) -> Self {
        Self {
            frames,
            start,
            open: None,
        }
    }

    /// First byte that belongs to no packet, and no piece of one, that has been returned.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Goes on in another buffer, into which everything from [`Packets::start`] on has been moved, to `start`.
    pub(super) fn moved(&mut self, start: usize) {
        self.start = start;
    }

    /// The next whole packet in `bytes`; `None` when more has to be read.
    ///
    /// # Errors
    /// Framing that cannot be right: bytes were lost.
    #[inline]
    pub(super) fn next(&mut self, bytes: &mut [u8]) -> Result<Option<Packet>, DecodeError> {
        let Some(rest) = bytes.get_mut(self.start..) else {
            return Ok(None);
        };
        let Some(frame) = self.frames.next(rest)? else {
            return Ok(None);
        };
        if frame.is_split() {
            frame.join(rest);
        }
        let payload = frame.payload();
        let marker = rest.get(payload.start).filter(|_| !payload.is_empty());
        let payload = self.start + payload.start..self.start + payload.end;
        self.start += frame.wire_length;
        Ok(Some(match marker {
            Some(0x00) => Packet::Event(payload.start + 1..payload.end),
            Some(0xff) => Packet::Error(payload),
            Some(0xfe) if payload.len() < 9 => Packet::End,
            other => Packet::Unknown(other.copied()),
        }))
    }

    /// What comes next of the event whose packet begins at [`Packets::start`], which need not be there in whole. Once this was asked
    /// for it has to be until the event's end.
    ///
    /// # Errors
    /// As [`Packets::next`].
    pub(super) fn piece(&mut self, bytes: &[u8]) -> Result<Piece, DecodeError> {
        let open = self.open.get_or_insert(Open {
            left: 0,
            is_last: false,
            marked: false,
        });
        while open.left == 0 {
            if open.is_last {
                self.open = None;
                return Ok(Piece::End);
            }
            let rest = bytes.get(self.start..).unwrap_or_default();
            let Some(part) = self.frames.part(rest)? else {
                return Ok(Piece::More);
            };
            self.start += HEADER_LENGTH;
            open.left = part.length;
            open.is_last = part.is_last;
        }
        let there = bytes.len().saturating_sub(self.start).min(open.left);
        if there == 0 {
            return Ok(Piece::More);
        }
        let mut piece = self.start..self.start + there;
        if !open.marked {
            open.marked = true;
            piece.start += 1;
        }
        self.start += there;
        open.left -= there;
        Ok(Piece::Bytes(piece))
    }

    /// The first bytes of the event that is still arriving, for deciding what becomes of one that is large before it is collected.
    pub(super) fn arriving<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes
            .get(self.start + HEADER_LENGTH + 1..)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use protocol::limits::MYSQL_PACKET_MAX;
    use protocol::mysql::packet::write;

    use super::*;

    #[test]
    fn packets_come_whole_whatever_the_reads_bring() {
        let mut wire = Vec::new();
        let mut sequence = 0xff;
        for payload in [
            &b"\0first"[..],
            b"\0second",
            b"\xff\xd4\x04oops",
            b"\xfe\0\0\x02\0",
        ] {
            write(&mut wire, &mut sequence, payload);
        }
        for step in 1..wire.len() {
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            let mut packets = Packets::new(Frames::starting_at(0xff), 0);
            for read in wire.chunks(step) {
                bytes.extend_from_slice(read);
                while let Some(packet) = packets.next(&mut bytes).unwrap() {
                    found.push(packet);
                }
            }
            assert_eq!(
                found,
                [
                    Packet::Event(5..10),
                    Packet::Event(15..21),
                    Packet::Error(25..32),
                    Packet::End
                ]
            );
            assert_eq!(packets.start(), wire.len());
        }
    }

    #[test]
    fn split_packets_are_joined_in_place() {
        for extra in [0, 1, 70_000] {
            let mut payload = vec![7; 2 * MYSQL_PACKET_MAX + extra];
            payload[0] = 0;
            for (i, byte) in payload.iter_mut().enumerate().skip(1).step_by(4099) {
                *byte = i as u8;
            }
            let (mut wire, mut sequence) = (Vec::new(), 9);
            write(&mut wire, &mut sequence, &payload);
            write(&mut wire, &mut sequence, b"\0after");
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            let mut packets = Packets::new(Frames::starting_at(9), 0);
            for read in wire.chunks(3_000_017) {
                bytes.extend_from_slice(read);
                while let Some(packet) = packets.next(&mut bytes).unwrap() {
                    let Packet::Event(event) = packet else {
                        panic!("{packet:?}")
                    };
                    found.push(bytes[event].to_vec());
                }
            }
            assert_eq!(found.len(), 2);
            assert!(found[0] == payload[1..]);
            assert_eq!(found[1], b"after");
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let next = |wire: &[u8]| Packets::new(Frames::starting_at(0), 0).next(&mut wire.to_vec());
        assert!(next(b"\x01\0\0\x05\0").is_err());
        assert_eq!(next(b"\0\0\0\0"), Ok(Some(Packet::Unknown(None))));
        assert_eq!(
            next(b"\x01\0\0\0\x0a"),
            Ok(Some(Packet::Unknown(Some(0x0a))))
        );
        assert_eq!(next(b"\x05\0\0"), Ok(None));
    }
}
