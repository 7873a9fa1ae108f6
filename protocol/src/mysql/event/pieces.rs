//! An event that comes in pieces and is never held whole: its length and checksum are verified at its end.

use super::{Checksum, Format, Header};
use crate::{DecodeError, DecodeErrorKind};

/// Bytes of a checksum.
const CHECKSUM: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct EventPieces {
    header: Header,
    /// Bytes before the checksum that are still to come.
    left: usize,
    checksum: Checksum,
    hasher: crc32fast::Hasher,
    stored: Vec<u8>,
    /// Bytes behind what the header says.
    beyond: u64,
}

impl EventPieces {
    /// Of the event with this header.
    ///
    /// # Errors
    /// It is too short for its checksum.
    pub fn new(format: &Format, header: Header) -> Result<Self, DecodeError> {
        let trailer = format.checksum.length();
        let Some(left) = (header.length as usize).checked_sub(trailer) else {
            let missing = trailer as u64 - u64::from(header.length);
            let kind = DecodeErrorKind::Truncated { missing };
            return Err(DecodeError::new(header.kind.name(), 9, kind));
        };
        Ok(Self {
            header,
            left,
            checksum: format.checksum,
            hasher: crc32fast::Hasher::new(),
            stored: Vec::with_capacity(CHECKSUM),
            beyond: 0,
        })
    }

    /// Whose pieces these are.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Takes what comes next, from the header on, and returns as much of it as stands before the checksum.
    pub fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (body, rest) = bytes.split_at_checked(self.left).unwrap_or((bytes, &[]));
        self.left -= body.len();
        let missing = self.checksum.length() - self.stored.len();
        let (stored, beyond) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
        self.stored.extend_from_slice(stored);
        self.beyond += beyond.len() as u64;
        if self.checksum == Checksum::Crc32 {
            self.hasher.update(body);
        }
        body
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// As [`super::Message::parse`]: the length is another one, or the checksum differs.
    pub fn finish(self) -> Result<(), DecodeError> {
        let what = self.header.kind.name();
        let missing = self.left + self.checksum.length() - self.stored.len();
        if missing > 0 || self.beyond > 0 {
            let kind = match self.beyond {
                0 => DecodeErrorKind::Truncated {
                    missing: missing as u64,
                },
                left => DecodeErrorKind::TrailingBytes { left },
            };
            return Err(DecodeError::new(what, 9, kind));
        }
        let Some(stored) = self.stored.first_chunk::<CHECKSUM>() else {
            return Ok(());
        };
        let (stored, computed) = (u32::from_le_bytes(*stored), self.hasher.finalize());
        match stored == computed {
            true => Ok(()),
            false => Err(DecodeError::new(
                what,
                u64::from(self.header.length) - CHECKSUM as u64,
                DecodeErrorKind::Checksum { stored, computed },
            )),
        }
    }
}
