//! Wire compression: packets inside compressed packets.
//!
//! ```text
//! | stored length: 3 | sequence: 1 | original length: 3, 0 when stored as it is | payload: stored length |
//! ```
//! The payload is a stretch of the stream of packets, which may begin and end anywhere in a packet. Compressed packets have
//! their own sequence, which starts at 0 with every command. Source: MySQL internals manual, "Compression";
//! `CLIENT_COMPRESS` is zlib, `CLIENT_ZSTD_COMPRESSION_ALGORITHM` is zstd.

use std::io::Write;

use flate2::Compression;
use flate2::write::{ZlibDecoder, ZlibEncoder};

use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::MYSQL_PACKET_MAX;

/// Bytes before each compressed packet's payload.
pub const HEADER_LENGTH: usize = 7;

/// Payloads under this are stored as they are (the server's `MIN_COMPRESS_LENGTH`).
const COMPRESS_LENGTH_MIN: usize = 50;

/// How the stream of packets is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `CLIENT_COMPRESS`, level 6 as the server.
    Zlib,
    /// `CLIENT_ZSTD_COMPRESSION_ALGORITHM` with a level of 1 to 22.
    Zstd {
        /// Compression level.
        level: u8,
    },
}

/// Writes compressed packets.
#[derive(Debug, Clone)]
pub struct Compressor {
    algorithm: Algorithm,
    sequence: u8,
}

impl Compressor {
    /// A writer whose first packet has sequence id 0.
    #[must_use]
    pub const fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            sequence: 0,
        }
    }

    /// The next packet has sequence id `sequence`: 0 for a command, 1 for its answer.
    pub const fn restart_at(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// Appends `packets`, a stretch of the stream of packets, to `out` as compressed packets.
    pub fn write(&mut self, packets: &[u8], out: &mut Vec<u8>) {
        for part in packets.chunks(MYSQL_PACKET_MAX) {
            let compressed = match part.len() < COMPRESS_LENGTH_MIN {
                true => None,
                false => self.compress(part).filter(|c| c.len() < part.len()),
            };
            let (payload, original) = match &compressed {
                Some(payload) => (payload.as_slice(), part.len()),
                None => (part, 0),
            };
            let [a, b, c, ..] = payload.len().to_le_bytes();
            let [x, y, z, ..] = original.to_le_bytes();
            out.extend_from_slice(&[a, b, c, self.sequence, x, y, z]);
            out.extend_from_slice(payload);
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// `None` where the library fails: the part is then stored.
    fn compress(&self, part: &[u8]) -> Option<Vec<u8>> {
        match self.algorithm {
            Algorithm::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(part).ok()?;
                encoder.finish().ok()
            }
            Algorithm::Zstd { level } => zstd::bulk::compress(part, level.into()).ok(),
        }
    }
}

/// Reads compressed packets.
#[derive(Debug, Clone)]
pub struct Decompressor {
    algorithm: Algorithm,
    expected: u8,
}

impl Decompressor {
    /// A reader whose first packet has sequence id 0.
    #[must_use]
    pub const fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            expected: 0,
        }
    }

    /// The next packet must have sequence id `sequence`: 0 for a command, 1 for its answer.
    pub const fn restart_at(&mut self, sequence: u8) {
        self.expected = sequence;
    }

    /// Appends the content of the compressed packet that `bytes` starts with to `out`, and returns the packet's length on the
    /// wire; `None` when more bytes are needed. What it appends is at most 16 MiB, and exactly what the header says.
    ///
    /// # Errors
    /// A sequence id out of order, or a payload that does not expand to the length in its header.
    pub fn next(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, DecodeError> {
        let Some(header) = bytes.get(..HEADER_LENGTH) else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(header);
        let stored = cursor.u24_le("compressed packet length")? as usize;
        let sequence = cursor.u8("compressed packet sequence id")?;
        let original = cursor.u24_le("compressed packet original length")? as usize;
        if sequence != self.expected {
            let kind = DecodeErrorKind::Invalid {
                value: sequence.into(),
            };
            return Err(DecodeError::new("compressed packet sequence id", 3, kind));
        }
        let Some(payload) = bytes.get(HEADER_LENGTH..HEADER_LENGTH + stored) else {
            return Ok(None);
        };
        self.expected = sequence.wrapping_add(1);
        match original {
            0 => out.extend_from_slice(payload),
            original => self.expand(payload, original, out)?,
        }
        Ok(Some(HEADER_LENGTH + stored))
    }

    fn expand(
        &self,
        payload: &[u8],
        original: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let start = out.len();
        let mut sink = Bounded {
            out,
            left: original,
        };
        let done = match self.algorithm {
            Algorithm::Zlib => {
                let mut decoder = ZlibDecoder::new(&mut sink);
                decoder
                    .write_all(payload)
                    .and_then(|()| decoder.try_finish())
            }
            Algorithm::Zstd { .. } => zstd::stream::copy_decode(payload, &mut sink),
        };
        if done.is_ok() && sink.left == 0 {
            return Ok(());
        }
        out.truncate(start);
        Err(DecodeError::new(
            "compressed packet payload",
            HEADER_LENGTH as u64,
            DecodeErrorKind::Invalid {
                value: original as u64,
            },
        ))
    }
}

/// Takes as many bytes as were announced and not one more, so that no payload expands without bound.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.left = (self.left.checked_sub(bytes.len()))
            .ok_or(std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALGORITHMS: [Algorithm; 2] = [Algorithm::Zlib, Algorithm::Zstd { level: 3 }];

    #[test]
    fn round_trip_and_every_cut() {
        let text = b"the same words again and again ".repeat(20);
        for algorithm in ALGORITHMS {
            let mut bytes = Vec::new();
            let mut writer = Compressor::new(algorithm);
            writer.write(b"short", &mut bytes);
            writer.write(&text, &mut bytes);
            assert_eq!(&bytes[..12], b"\x05\x00\x00\x00\x00\x00\x00short");
            let mut out = Vec::new();
            let mut reader = Decompressor::new(algorithm);
            for cut in 0..12 {
                assert_eq!(reader.next(&bytes[..cut], &mut out), Ok(None));
            }
            assert_eq!(reader.next(&bytes, &mut out), Ok(Some(12)));
            for cut in 12..bytes.len() {
                assert_eq!(reader.next(&bytes[12..cut], &mut out), Ok(None));
            }
            assert_eq!(
                reader.next(&bytes[12..], &mut out),
                Ok(Some(bytes.len() - 12))
            );
            assert_eq!(out, [b"short", text.as_slice()].concat());
        }
    }

    #[test]
    fn long_streams_are_cut_into_packets() {
        let long = vec![7; MYSQL_PACKET_MAX + 100];
        let mut bytes = Vec::new();
        Compressor::new(Algorithm::Zlib).write(&long, &mut bytes);
        let (mut at, mut out, mut reader) = (0, Vec::new(), Decompressor::new(Algorithm::Zlib));
        while let Some(length) = reader.next(&bytes[at..], &mut out).unwrap() {
            at += length;
        }
        assert!(at == bytes.len() && out == long);
    }

    #[test]
    fn payloads_that_lie_are_errors() {
        for algorithm in ALGORITHMS {
            let mut bytes = Vec::new();
            Compressor::new(algorithm).write(&[1; 1000], &mut bytes);
            for (at, value) in [(3, 9), (4, 0xe7), (4, 0xe9), (HEADER_LENGTH, 0)] {
                let mut flipped = bytes.clone();
                flipped[at] = value;
                let mut out = b"before".to_vec();
                let got = Decompressor::new(algorithm).next(&flipped, &mut out);
                assert!(got.is_err(), "{algorithm:?} byte {at}");
                assert_eq!(out, b"before");
            }
        }
    }
}
