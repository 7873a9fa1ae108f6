//! Wire compression: packets inside compressed packets.
//!
//! ```text
//! | stored length: 3 | sequence: 1 | original length: 3, 0 when stored as it is | payload: stored length |
//! ```
//! The payload is a stretch of the stream of packets, which may begin and end anywhere in a packet. Compressed packets have
//! their own sequence, which starts at 0 with every command. Source: MySQL internals manual, "Compression";
//! `CLIENT_COMPRESS` is zlib, `CLIENT_ZSTD_COMPRESSION_ALGORITHM` is zstd.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation as _, OutBuffer};

use crate::cursor::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::limits::{MYSQL_PACKET_MAX, MYSQL_ZSTD_WINDOW_LOG_MAX};

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

impl Algorithm {
    /// The level that a client's response names; 0 for zlib, whose level is the server's.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::Zlib => 0,
            Self::Zstd { level } => level,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zlib => "zlib",
            Self::Zstd { .. } => "zstd",
        })
    }
}

/// Writes compressed packets.
pub struct Compressor {
    codec: Encoder,
    sequence: u8,
    /// The payload that is being made.
    payload: Vec<u8>,
}

enum Encoder {
    Zlib(Box<Compress>),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    /// The library has no memory for its tables: everything is stored as it is, which any reader reads.
    Store,
}

impl Compressor {
    /// A writer whose first packet has sequence id 0.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let codec = match algorithm {
            Algorithm::Zlib => Encoder::Zlib(Box::new(Compress::new(Compression::default(), true))),
            Algorithm::Zstd { level } => zstd::bulk::Compressor::new(level.into())
                .map_or(Encoder::Store, |codec| Encoder::Zstd(Box::new(codec))),
        };
        Self {
            codec,
            sequence: 0,
            payload: Vec::new(),
        }
    }

    /// The next packet has sequence id `sequence`: 0 for a command, 1 for its answer.
    pub const fn restart_at(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// Appends `packets`, a stretch of the stream of packets, to `out` as compressed packets.
    pub fn write(&mut self, packets: &[u8], out: &mut Vec<u8>) {
        for part in packets.chunks(MYSQL_PACKET_MAX) {
            let smaller = part.len() >= COMPRESS_LENGTH_MIN && self.compress(part);
            let (payload, original) = match smaller {
                true => (self.payload.as_slice(), part.len()),
                false => (part, 0),
            };
            let [a, b, c, ..] = payload.len().to_le_bytes();
            let [x, y, z, ..] = original.to_le_bytes();
            out.extend_from_slice(&[a, b, c, self.sequence, x, y, z]);
            out.extend_from_slice(payload);
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// Whether `payload` is now `part`, and smaller.
    fn compress(&mut self, part: &[u8]) -> bool {
        self.payload.clear();
        let done = match &mut self.codec {
            Encoder::Zlib(codec) => {
                // No room for more than the part itself: what does not fit is stored.
                self.payload.reserve(part.len());
                codec.reset();
                let done = codec.compress_vec(part, &mut self.payload, FlushCompress::Finish);
                matches!(done, Ok(Status::StreamEnd))
            }
            Encoder::Zstd(codec) => {
                self.payload
                    .reserve(zstd::zstd_safe::compress_bound(part.len()));
                codec.compress_to_buffer(part, &mut self.payload).is_ok()
            }
            Encoder::Store => false,
        };
        done && self.payload.len() < part.len()
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Reads compressed packets, a piece at a time: what it holds of one is the codec's window, not the packet.
pub struct Decompressor {
    codec: Decoder,
    expected: u8,
    /// Bytes of the compressed stream so far: where errors stand.
    at: u64,
    open: Option<Open>,
}

enum Decoder {
    Zlib(Box<Decompress>),
    Zstd(Box<ZstdDecoder<'static>>),
}

/// A packet whose header has been read.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// Where its payload begins in the compressed stream.
    at: u64,
    /// Bytes of the payload that have not been read.
    stored: usize,
    /// Whether the payload is compressed.
    compressed: bool,
    /// Bytes that it still has to expand to.
    missing: usize,
    /// Bytes that it expands to, as its header says.
    original: usize,
}

/// What one call of the codec did.
struct Expanded {
    taken: usize,
    ended: bool,
}

impl Decompressor {
    /// A reader whose first packet has sequence id 0.
    ///
    /// # Errors
    /// The library has no memory for its tables.
    pub fn new(algorithm: Algorithm) -> Result<Self, DecodeError> {
        let codec = match algorithm {
            Algorithm::Zlib => Decoder::Zlib(Box::new(Decompress::new(true))),
            Algorithm::Zstd { .. } => Decoder::Zstd(Box::new(zstd_decoder()?)),
        };
        Ok(Self {
            codec,
            expected: 0,
            at: 0,
            open: None,
        })
    }

    /// The next packet must have sequence id `sequence`: 0 for a command, 1 for its answer.
    pub const fn restart_at(&mut self, sequence: u8) {
        self.expected = sequence;
    }

    /// Appends what `bytes`, the next of the compressed stream, expand to as far as `out` has spare capacity (it never grows),
    /// and returns how many of `bytes` are used up. Fewer than all: `out` is full, or the rest is the beginning of a header.
    /// With capacity left, and nothing appended, more bytes are needed.
    ///
    /// # Errors
    /// A sequence id out of order; a payload that is corrupt, or does not expand to exactly the length in its header. They
    /// stand at bytes of the compressed stream. The reader is of no use afterwards.
    pub fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let mut used = 0;
        while out.len() < out.capacity() {
            let rest = bytes.get(used..).unwrap_or_default();
            let mut open = match self.open {
                Some(open) => open,
                None => {
                    let Some(header) = rest.first_chunk() else {
                        break;
                    };
                    used += HEADER_LENGTH;
                    self.open = Some(self.header(header)?);
                    continue;
                }
            };
            let input = rest.get(..open.stored).unwrap_or(rest);
            if input.is_empty() && open.stored > 0 {
                break;
            }
            let start = out.len();
            let expanded = self.expand(&mut open, input, out);
            let Expanded { taken, ended } = expanded.inspect_err(|_| out.truncate(start))?;
            used += taken;
            self.at += taken as u64;
            self.open = (!ended).then_some(open);
        }
        Ok(used)
    }

    fn header(&mut self, header: &[u8; HEADER_LENGTH]) -> Result<Open, DecodeError> {
        let mut cursor = Cursor::new(header);
        let stored = cursor.u24_le("compressed packet length")? as usize;
        let sequence = cursor.u8("compressed packet sequence id")?;
        let original = cursor.u24_le("compressed packet original length")? as usize;
        if sequence != self.expected {
            let value = sequence.into();
            return Err(DecodeError::new(
                "compressed packet sequence id",
                self.at + 3,
                DecodeErrorKind::Invalid { value },
            ));
        }
        self.expected = sequence.wrapping_add(1);
        self.at += HEADER_LENGTH as u64;
        let restarted = match &mut self.codec {
            Decoder::Zlib(codec) => {
                codec.reset(true);
                Ok(())
            }
            Decoder::Zstd(codec) => codec.reinit(),
        };
        restarted.map_err(|_| corrupt(self.at))?;
        let compressed = original > 0;
        let length = if compressed { original } else { stored };
        Ok(Open {
            at: self.at,
            stored,
            compressed,
            missing: length,
            original: length,
        })
    }

    fn expand(
        &mut self,
        open: &mut Open,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Expanded, DecodeError> {
        let start = out.len();
        let done = match open.compressed {
            true => self.run(open.at, input, out)?,
            false => {
                let taken = input.len().min(out.capacity() - start);
                out.extend_from_slice(input.get(..taken).unwrap_or_default());
                let ended = taken == open.stored;
                Expanded { taken, ended }
            }
        };
        let grown = out.len() - start;
        open.stored -= done.taken;
        let error = |kind| DecodeError::new("compressed packet payload", open.at, kind);
        let Some(missing) = open.missing.checked_sub(grown) else {
            return Err(error(DecodeErrorKind::TooLong {
                length: (open.original - open.missing + grown) as u64,
                limit: open.original as u64,
            }));
        };
        open.missing = missing;
        // Without progress there is none to come: there was room, and input unless the payload is over.
        if !done.ended && (done.taken > 0 || grown > 0) {
            return Ok(done);
        }
        let kind = match (done.ended, open.stored as u64, missing as u64) {
            (true, 0, 0) => return Ok(done),
            (true, 0, missing) => DecodeErrorKind::Truncated { missing },
            (true, left, _) => DecodeErrorKind::TrailingBytes { left },
            // Its end lacks, and perhaps more: at least one byte of payload.
            (false, 0, missing) => DecodeErrorKind::Truncated {
                missing: missing.max(1),
            },
            (false, ..) => DecodeErrorKind::Corrupt,
        };
        Err(error(kind))
    }

    /// One call of the codec: into the spare capacity of `out`, which is not empty.
    fn run(&mut self, at: u64, input: &[u8], out: &mut Vec<u8>) -> Result<Expanded, DecodeError> {
        match &mut self.codec {
            Decoder::Zlib(codec) => {
                let before = codec.total_in();
                let status = codec
                    .decompress_vec(input, out, FlushDecompress::None)
                    .map_err(|_| corrupt(at))?;
                Ok(Expanded {
                    taken: (codec.total_in() - before) as usize,
                    ended: status == Status::StreamEnd,
                })
            }
            Decoder::Zstd(codec) => {
                let end = out.len();
                let mut from = InBuffer::around(input);
                let mut to = OutBuffer::around_pos(out, end);
                let hint = codec.run(&mut from, &mut to).map_err(|_| corrupt(at))?;
                Ok(Expanded {
                    taken: from.pos(),
                    ended: hint == 0,
                })
            }
        }
    }
}

/// A packet holds at most 16 MiB, so no frame in it needs a larger window, whatever it claims.
fn zstd_decoder() -> Result<ZstdDecoder<'static>, DecodeError> {
    let decoder = ZstdDecoder::new().and_then(|mut decoder| {
        decoder.set_parameter(DParameter::WindowLogMax(MYSQL_ZSTD_WINDOW_LOG_MAX))?;
        Ok(decoder)
    });
    decoder.map_err(|_| DecodeError::new("zstd decompressor", 0, DecodeErrorKind::Corrupt))
}

fn corrupt(at: u64) -> DecodeError {
    DecodeError::new("compressed packet payload", at, DecodeErrorKind::Corrupt)
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor")
            .field("expected", &self.expected)
            .field("at", &self.at)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALGORITHMS: [Algorithm; 2] = [Algorithm::Zlib, Algorithm::Zstd { level: 3 }];

    /// Everything that `bytes` expand to, and how many of them were used.
    fn expand(reader: &mut Decompressor, bytes: &[u8]) -> Result<(usize, Vec<u8>), DecodeError> {
        let (mut used, mut all) = (0, Vec::new());
        loop {
            let mut out = Vec::with_capacity(100);
            used += reader.read(&bytes[used..], &mut out)?;
            if out.is_empty() {
                return Ok((used, all));
            }
            all.append(&mut out);
        }
    }

    #[test]
    fn round_trip_and_every_cut() {
        let text = b"the same words again and again ".repeat(20);
        for algorithm in ALGORITHMS {
            let mut bytes = Vec::new();
            let mut writer = Compressor::new(algorithm);
            writer.write(b"short", &mut bytes);
            writer.write(&text, &mut bytes);
            assert_eq!(&bytes[..12], b"\x05\x00\x00\x00\x00\x00\x00short");
            for cut in 0..bytes.len() {
                let mut reader = Decompressor::new(algorithm).unwrap();
                let (used, mut out) = expand(&mut reader, &bytes[..cut]).unwrap();
                assert!(cut - used < HEADER_LENGTH, "cut at {cut}, used {used}");
                let (rest, more) = expand(&mut reader, &bytes[used..]).unwrap();
                assert_eq!(used + rest, bytes.len());
                out.extend_from_slice(&more);
                assert_eq!(out, [b"short", text.as_slice()].concat(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn long_streams_are_cut_into_packets() {
        let long = vec![7; MYSQL_PACKET_MAX + 100];
        for algorithm in ALGORITHMS {
            let mut bytes = Vec::new();
            Compressor::new(algorithm).write(&long, &mut bytes);
            let mut reader = Decompressor::new(algorithm).unwrap();
            let (mut used, mut out) = (0, Vec::with_capacity(long.len()));
            while out.len() < long.len() {
                used += reader.read(&bytes[used..], &mut out).unwrap();
            }
            assert!(used == bytes.len() && out == long);
        }
    }

    #[test]
    fn it_never_grows_the_buffer() {
        for algorithm in ALGORITHMS {
            let mut bytes = Vec::new();
            Compressor::new(algorithm).write(&[1; 100_000], &mut bytes);
            let mut reader = Decompressor::new(algorithm).unwrap();
            let mut out = Vec::with_capacity(1000);
            let capacity = out.capacity();
            let used = reader.read(&bytes, &mut out).unwrap();
            assert!(used <= bytes.len());
            assert_eq!((out.len(), out.capacity()), (capacity, capacity));
            assert_eq!(reader.read(&bytes[used..], &mut out), Ok(0));
        }
    }

    #[test]
    fn payloads_that_lie_are_errors() {
        for algorithm in ALGORITHMS {
            let mut bytes = Vec::new();
            let mut writer = Compressor::new(algorithm);
            writer.write(b"first", &mut bytes);
            writer.write(&[1; 1000], &mut bytes);
            for (at, value, expected) in [
                (
                    3,
                    9,
                    "compressed packet sequence id at byte 15: 9 is not allowed here",
                ),
                (
                    4,
                    0xe7,
                    "compressed packet payload at byte 19: 1000 is over the limit of 999",
                ),
                (
                    4,
                    0xe9,
                    "compressed packet payload at byte 19: 1 bytes are missing",
                ),
                (
                    HEADER_LENGTH,
                    0,
                    "compressed packet payload at byte 19: corrupt",
                ),
            ] {
                let mut flipped = bytes.clone();
                flipped[12 + at] = value;
                let mut out = b"before".to_vec();
                out.reserve(4096);
                let error = Decompressor::new(algorithm)
                    .unwrap()
                    .read(&flipped, &mut out)
                    .unwrap_err();
                assert!(
                    error.to_string().starts_with(expected),
                    "{algorithm:?}: {error}"
                );
                assert_eq!(out, b"beforefirst");
            }
        }
    }

    #[test]
    fn payloads_that_end_early_or_late_are_errors() {
        for algorithm in ALGORITHMS {
            let mut bytes = Vec::new();
            Compressor::new(algorithm).write(&[1; 1000], &mut bytes);
            let mut short = bytes.clone();
            short[0] -= 1;
            short.pop();
            let mut long = bytes.clone();
            long[0] += 1;
            long.push(0);
            for (bytes, expected) in [(short, "missing"), (long, "1 bytes follow")] {
                let error = Decompressor::new(algorithm)
                    .unwrap()
                    .read(&bytes, &mut Vec::with_capacity(4096))
                    .unwrap_err();
                assert!(
                    error.to_string().contains(expected),
                    "{algorithm:?}: {error}"
                );
            }
        }
    }
}
