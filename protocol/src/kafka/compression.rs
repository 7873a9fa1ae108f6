//! The compression codecs of record batches: blocks as they fill on the way out, bounded expansion on the way in.
//!
//! ```text
//!  none    records
//!  gzip    RFC 1952, one member
//!  snappy  82 "SNAPPY" 00 · 00000001 · 00000001 · { i32 length · snappy block } …      (xerial's framing, as the Java client)
//!  lz4     04 22 4d 18 · 60 (v1, independent blocks) · 40 (64 KiB) · 82 (header checksum) · { u32 LE length · block } … · 00000000
//!  zstd    RFC 8878, one frame, no checksum
//! ```
//!
//! Every codec empties its input at each call of `Compressor::block`, so that the length of what has been written is known,
//! and with it an upper bound of the finished batch.

use std::io::{Read, Write};
use std::ops::Range;

use flate2::write::GzEncoder;
use zstd::zstd_safe;

use super::lz4::{self, Anchor, Lz4};
use crate::{DecodeError, DecodeErrorKind, limits};

/// What the records of a batch are compressed with; the numbers stand in the batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in xerial's framing.
    Snappy = 2,
    /// LZ4 frame of independent 64 KiB blocks.
    Lz4 = 3,
    /// Zstandard at level 1; brokers since 2.1.
    Zstd = 4,
}

impl Compression {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of a batch's attributes (bits 0 to 2); `None` for numbers that have no codec.
    #[must_use]
    pub const fn of_attributes(attributes: i16) -> Option<Self> {
        match attributes & 0x07 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Uncompressed bytes that one block should have. LZ4's is just below 64 KiB, so that every position in it has 16 bits.
    #[must_use]
    pub(crate) const fn block_len(self) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::Lz4 => LZ4_BLOCK,
            Self::Gzip | Self::Snappy => 64 * 1024,
            Self::Zstd => 128 * 1024,
        }
    }

    /// Most bytes that `uncompressed` bytes can become, in blocks of [`Self::block_len`], with the end of the stream.
    #[must_use]
    pub(crate) const fn bound(self, uncompressed: usize) -> usize {
        let blocks = uncompressed / self.block_len() + 1;
        uncompressed
            + match self {
                Self::None => 0,
                // zlib's own bound for any of its ways (`deflateBound`), an empty block per flush, header, CRC and length: where bytes
                // are written by the fixed code, every one of them may take nine bits.
                Self::Gzip => uncompressed / 8 + uncompressed / 64 + blocks * 16 + 64,
                Self::Snappy => blocks * (4 + 32) + uncompressed / 6,
                Self::Lz4 => blocks * 4 + 4,
                Self::Zstd => blocks * 3 + 16,
            }
    }
}

const LZ4_BLOCK: usize = lz4::BLOCK_MAX - 1;
const LZ4_FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
/// In an LZ4 block's length: the block is stored, not compressed.
const LZ4_STORED: u32 = 1 << 31;
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0x00];
/// Version and oldest compatible version, both 1.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const ZSTD_LEVEL: i32 = 1;

/// The codec refused its input or found no memory; nothing in our data explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompressionFailed;

/// What is to be compressed: the bytes `from` to `to` of a buffer.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// The buffer; LZ4 reads beyond `to`, so that it need not look where the bytes end, but makes nothing of it.
    of: &'a [u8],
    from: usize,
    to: usize,
    /// Those that lie in between, in their order; positions in the buffer.
    anchors: &'a [Anchor],
}

impl<'a> Input<'a> {
    /// `anchors` are those of the whole buffer.
    pub(crate) fn new(of: &'a [u8], range: Range<usize>, anchors: &'a [Anchor]) -> Self {
        let to = range.end.min(of.len());
        let from = range.start.min(to);
        let index = |at: usize| anchors.partition_point(|anchor| (anchor.at as usize) < at);
        let anchors = anchors.get(index(from)..index(to)).unwrap_or_default();
        Self {
            of,
            from,
            to,
            anchors,
        }
    }

    fn bytes(self) -> &'a [u8] {
        self.of.get(self.from..self.to).unwrap_or_default()
    }

    fn blocks(self, block_len: usize) -> impl Iterator<Item = Self> {
        (self.from..self.to).step_by(block_len).map(move |from| {
            let to = self.to.min(from + block_len);
            Self::new(self.of, from..to, self.anchors)
        })
    }
}

/// One codec with its tables and contexts, reused from batch to batch.
pub(crate) enum Compressor {
    None,
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Snappy {
        encoder: Box<snap::raw::Encoder>,
        block: Vec<u8>,
    },
    Lz4(Lz4),
    Zstd(zstd_safe::CCtx<'static>),
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip(Box::new(gzip())),
            Compression::Snappy => Self::Snappy {
                encoder: Box::new(snap::raw::Encoder::new()),
                block: Vec::new(),
            },
            Compression::Lz4 => Self::Lz4(Lz4::new()),
            Compression::Zstd => Self::Zstd(zstd_safe::CCtx::create()),
        }
    }

    /// Begins a stream at the end of `out`.
    pub(crate) fn start(&mut self, out: &mut Vec<u8>) -> Result<(), CompressionFailed> {
        match self {
            Self::None => {}
            Self::Gzip(encoder) => **encoder = gzip(),
            Self::Snappy { .. } => {
                out.extend_from_slice(&XERIAL_MAGIC);
                out.extend_from_slice(&XERIAL_VERSIONS);
            }
            Self::Lz4(_) => out.extend_from_slice(&LZ4_FRAME_HEADER),
            Self::Zstd(context) => {
                context
                    .reset(zstd_safe::ResetDirective::SessionOnly)
                    .and_then(|_| {
                        context.set_parameter(zstd_safe::CParameter::CompressionLevel(ZSTD_LEVEL))
                    })
                    .map_err(|_| CompressionFailed)?;
            }
        }
        Ok(())
    }

    /// Appends all of `input` to `out`, compressed; nothing of it is held back.
    pub(crate) fn block(
        &mut self,
        input: Input<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionFailed> {
        let place = input;
        let input = place.bytes();
        match self {
            Self::None => out.extend_from_slice(input),
            Self::Gzip(encoder) => {
                encoder
                    .write_all(input)
                    .and_then(|()| encoder.flush())
                    .map_err(|_| CompressionFailed)?;
                out.append(encoder.get_mut());
            }
            Self::Snappy { encoder, block } => {
                for chunk in input.chunks(Compression::Snappy.block_len()) {
                    let most = snap::raw::max_compress_len(chunk.len());
                    if block.len() < most {
                        block.resize(most, 0);
                    }
                    let length = encoder
                        .compress(chunk, block)
                        .map_err(|_| CompressionFailed)?;
                    let compressed = block.get(..length).ok_or(CompressionFailed)?;
                    out.extend_from_slice(&(length as u32).to_be_bytes());
                    out.extend_from_slice(compressed);
                }
            }
            Self::Lz4(lz4) => {
                for block in place.blocks(LZ4_BLOCK) {
                    lz4_block(lz4, block, out)?;
                }
            }
            Self::Zstd(context) => zstd_run(context, input, out, Directive::Flush)?,
        }
        Ok(())
    }

    /// Ends the stream.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CompressionFailed> {
        match self {
            Self::None | Self::Snappy { .. } => {}
            Self::Gzip(encoder) => {
                encoder.try_finish().map_err(|_| CompressionFailed)?;
                out.append(encoder.get_mut());
            }
            Self::Lz4(_) => out.extend_from_slice(&[0; 4]),
            Self::Zstd(context) => zstd_run(context, &[], out, Directive::End)?,
        }
        Ok(())
    }
}

fn gzip() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), flate2::Compression::new(6))
}

#[inline]
fn lz4_block(lz4: &mut Lz4, input: Input<'_>, out: &mut Vec<u8>) -> Result<(), CompressionFailed> {
    let plain = input.bytes();
    let anchors = input.anchors.iter().map(|anchor| Anchor {
        at: anchor.at - input.from as u32,
        ..*anchor
    });
    let behind = input.of.get(input.from..).unwrap_or_default();
    match lz4.compress(behind, plain.len(), anchors) {
        Some(compressed) if compressed.len() < plain.len() => {
            out.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
            out.extend_from_slice(compressed);
        }
        Some(_) => {
            out.extend_from_slice(&(plain.len() as u32 | LZ4_STORED).to_le_bytes());
            out.extend_from_slice(plain);
        }
        None => return Err(CompressionFailed),
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Flush,
    End,
}

fn zstd_run(
    context: &mut zstd_safe::CCtx<'static>,
    input: &[u8],
    out: &mut Vec<u8>,
    directive: Directive,
) -> Result<(), CompressionFailed> {
    let mut from = zstd_safe::InBuffer::around(input);
    loop {
        out.reserve(zstd_safe::compress_bound(input.len() - from.pos) / 4 + 512);
        let at = out.len();
        let mut to = zstd_safe::OutBuffer::around_pos(out, at);
        let left = if from.pos < input.len() {
            context.compress_stream(&mut to, &mut from).map(|_| 1)
        } else if directive == Directive::Flush {
            context.flush_stream(&mut to)
        } else {
            context.end_stream(&mut to)
        };
        match left {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(_) => return Err(CompressionFailed),
        }
    }
}

/// Decompresses `input` into `out`, which is cleared first and grows with what comes out, never by a length on the wire.
/// `at` is where `input` stands in the batch, for the error.
///
/// # Errors
/// Input that the codec refuses, that ends early, or that expands beyond [`limits::KAFKA_BATCH_UNCOMPRESSED_MAX`].
pub(crate) fn decompress(
    compression: Compression,
    input: &[u8],
    out: &mut Vec<u8>,
    at: u64,
) -> Result<(), DecodeError> {
    const WHAT: &str = "compressed records";
    let invalid = |_| {
        DecodeError::new(
            WHAT,
            at,
            DecodeErrorKind::Invalid {
                value: compression as u64,
            },
        )
    };
    let limit = limits::KAFKA_BATCH_UNCOMPRESSED_MAX as u64;
    out.clear();
    let read = match compression {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(input.len())
        }
        Compression::Gzip => flate2::read::MultiGzDecoder::new(input)
            .take(limit + 1)
            .read_to_end(out),
        Compression::Lz4 => lz4_flex::frame::FrameDecoder::new(input)
            .take(limit + 1)
            .read_to_end(out),
        Compression::Zstd => zstd::stream::read::Decoder::with_buffer(input)
            .and_then(|decoder| decoder.take(limit + 1).read_to_end(out)),
        Compression::Snappy => return snappy(input, out, at),
    };
    let length = read.map_err(invalid)? as u64;
    if length > limit {
        return Err(DecodeError::new(
            WHAT,
            at,
            DecodeErrorKind::TooLong { length, limit },
        ));
    }
    Ok(())
}

/// Snappy in xerial's framing, or one bare block as librdkafka and others have sent.
fn snappy(input: &[u8], out: &mut Vec<u8>, at: u64) -> Result<(), DecodeError> {
    let mut cursor = crate::Cursor::new(input);
    let framed = input.starts_with(&XERIAL_MAGIC);
    if framed {
        cursor
            .skip(XERIAL_MAGIC.len() + XERIAL_VERSIONS.len(), "snappy header")
            .map_err(|e| e.shifted(at))?;
    }
    let mut decoder = snap::raw::Decoder::new();
    while !cursor.is_empty() {
        let from = at + cursor.at() as u64;
        let block = if framed {
            let length = cursor
                .u32_be("snappy block length")
                .map_err(|e| e.shifted(at))?;
            cursor
                .take(length as usize, "snappy block")
                .map_err(|e| e.shifted(at))?
        } else {
            cursor.rest()
        };
        snappy_block(&mut decoder, block, out, from)?;
    }
    Ok(())
}

fn snappy_block(
    decoder: &mut snap::raw::Decoder,
    block: &[u8],
    out: &mut Vec<u8>,
    at: u64,
) -> Result<(), DecodeError> {
    // Snappy's shortest element that yields the most makes 64 bytes of 3; a claim beyond that is a lie and reserves nothing.
    const EXPANSION_MAX: usize = 22;
    let invalid = |_| DecodeError::new("snappy block", at, DecodeErrorKind::Invalid { value: 2 });
    let length = snap::raw::decompress_len(block).map_err(invalid)?;
    let start = out.len();
    let limit = block
        .len()
        .saturating_mul(EXPANSION_MAX)
        .min(limits::KAFKA_BATCH_UNCOMPRESSED_MAX - start);
    if length > limit {
        return Err(DecodeError::new(
            "snappy block",
            at,
            DecodeErrorKind::TooLong {
                length: length as u64,
                limit: limit as u64,
            },
        ));
    }
    out.resize(start + length, 0);
    let place = out.get_mut(start..).unwrap_or_default();
    decoder.decompress(block, place).map_err(invalid)?;
    Ok(())
}
