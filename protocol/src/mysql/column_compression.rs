//! MariaDB's `COMPRESSED` columns.
//!
//! ```text
//! | algorithm 4 bits, raw deflate 1, bytes of length 3 | length, big-endian | stream |      0x00: | value as it is |
//! ```
//! An empty value has no byte at all. Source: MariaDB's `sql/field.cc` (`compress_zlib`, `uncompress_zlib`).

use std::io::Read;

use crate::{Cursor, DecodeError, DecodeErrorKind};

/// Algorithms: 0 as it is, 8 zlib.
const ZLIB: u8 = 8;

/// Appends the value that `stored` holds, which may have at most `length_max` bytes.
///
/// Memory follows the bytes that come out of the decompressor, not the length that they claim.
///
/// # Errors
/// An unknown algorithm, a corrupt stream, a length that is not the stream's or above `length_max`. `out` is as before then.
pub fn inflate(stored: &[u8], length_max: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(stored);
    if stored.is_empty() {
        return Ok(());
    }
    let first = cursor.u8("compressed column header")?;
    let (algorithm, raw, width) = (first >> 4, first & 0x08 != 0, usize::from(first & 0x07));
    if first == 0 {
        out.extend_from_slice(cursor.rest());
        return Ok(());
    }
    if algorithm != ZLIB || !(1..=4).contains(&width) {
        return Err(DecodeError::new(
            "compressed column algorithm",
            0,
            DecodeErrorKind::Unsupported {
                value: u64::from(first),
            },
        ));
    }
    let length = cursor.uint_be(width, "compressed column length")?;
    if length > length_max as u64 {
        return Err(DecodeError::new(
            "compressed column length",
            1,
            DecodeErrorKind::TooLong {
                length,
                limit: length_max as u64,
            },
        ));
    }
    let start = out.len();
    let stream = cursor.rest();
    // One byte more than claimed would show that the claim is wrong.
    let read = if raw {
        flate2::read::DeflateDecoder::new(stream)
            .take(length + 1)
            .read_to_end(out)
    } else {
        flate2::read::ZlibDecoder::new(stream)
            .take(length + 1)
            .read_to_end(out)
    };
    match read {
        Ok(read) if read as u64 == length => Ok(()),
        other => {
            out.truncate(start);
            Err(DecodeError::new(
                "compressed column",
                1 + width as u64,
                DecodeErrorKind::Invalid {
                    value: other.unwrap_or(0) as u64,
                },
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zlib(value: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(value).unwrap();
        encoder.finish().unwrap()
    }

    fn inflated(stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = b"kept".to_vec();
        inflate(stored, 1000, &mut out).map(|()| out.split_off(4))
    }

    #[test]
    fn every_form() {
        assert_eq!(inflated(b"").unwrap(), b"");
        assert_eq!(inflated(b"\0plain").unwrap(), b"plain");
        let value = vec![b'x'; 300];
        let stored = [&[0x82, 0x01, 0x2c][..], &zlib(&value)].concat();
        assert_eq!(inflated(&stored).unwrap(), value);
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(&value).unwrap();
        let stored = [&[0x8a, 0x01, 0x2c][..], &encoder.finish().unwrap()].concat();
        assert_eq!(inflated(&stored).unwrap(), value);
    }

    /// `REPEAT('é', 900)` in a VARCHAR(1000) COMPRESSED, as MariaDB 10.11 wrote it (fixtures/recordings/mariadb-10.11-types).
    #[test]
    fn what_a_real_server_wrote() {
        let stored = [
            0x8a, 0x07, 0x08, 0x3b, 0xbc, 0xf2, 0xf0, 0x28, 0x1c, 0x85, 0xa3, 0x70, 0x14, 0x8e,
            0xc2, 0x51, 0x38, 0x62, 0x21, 0x00,
        ];
        let mut out = Vec::new();
        inflate(&stored, 4000, &mut out).unwrap();
        assert_eq!(out, "é".repeat(900).into_bytes());
    }

    #[test]
    fn false_claims_are_errors() {
        let value = vec![b'x'; 300];
        for claim in [299_u16, 301, 5000] {
            let stored = [&[0x82][..], &claim.to_be_bytes(), &zlib(&value)].concat();
            inflated(&stored).unwrap_err();
        }
        inflated(&[0x91, 1, 0]).unwrap_err();
        inflated(&[0x85, 0, 0, 0, 0, 0]).unwrap_err();
    }
}
