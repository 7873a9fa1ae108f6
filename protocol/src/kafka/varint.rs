//! Variable-length integers of record batches: zigzag, then seven bits a byte, least significant first, as in Protocol Buffers'
//! `sint32` and `sint64`.
//!
//! ```text
//!  value   zigzag   bytes
//!      0        0   00
//!     -1        1   01
//!     63      126   7e
//!     64      128   80 01
//!  -8192    16383   ff 7f
//! ```
//!
//! Specification: <https://kafka.apache.org/documentation/#recordbatch>, "varint encoding for records".

use crate::{Cursor, DecodeError};

/// Bytes of the longest `varint` (32 bits).
pub const VARINT_MAX: usize = 5;

/// Bytes of the longest `varlong` (64 bits).
pub const VARLONG_MAX: usize = 10;

/// Bytes that `value` takes; at most [`VARLONG_MAX`], and at most [`VARINT_MAX`] for values of 32 bits.
#[must_use]
#[inline]
pub const fn width(value: i64) -> usize {
    let significant = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    significant.div_ceil(7)
}

/// Appends `value`, which may be a `varint` or a `varlong`: their encodings agree where both exist.
#[inline]
pub fn write(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes `value` at the start of `place`; returns the bytes taken, or `None` where `place` is too short.
#[inline]
pub(crate) fn write_at(place: &mut [u8], value: i64) -> Option<usize> {
    let mut rest = zigzag(value);
    let mut slots = place.iter_mut();
    let mut taken = 1;
    while rest >= 0x80 {
        *slots.next()? = rest as u8 | 0x80;
        rest >>= 7;
        taken += 1;
    }
    *slots.next()? = rest as u8;
    Some(taken)
}

/// Reads a `varint`.
///
/// # Errors
/// Truncated input, or `Invalid` for one that does not fit 32 bits.
#[inline]
pub fn read(cursor: &mut Cursor<'_>, what: &'static str) -> Result<i32, DecodeError> {
    let value = read_long(cursor, what)?;
    i32::try_from(value).map_err(|_| cursor.invalid(what, value as u64))
}

/// Reads a `varlong`.
///
/// # Errors
/// Truncated input, or `Invalid` for one of more than ten bytes or 64 bits.
#[inline]
pub fn read_long(cursor: &mut Cursor<'_>, what: &'static str) -> Result<i64, DecodeError> {
    let mut value = 0_u64;
    let mut shift = 0;
    loop {
        let byte = cursor.u8(what)?;
        if shift == 63 && byte > 1 {
            return Err(cursor.invalid(what, u64::from(byte)));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
    }
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn values_of_the_specification() {
        assert_eq!(written(0), [0x00]);
        assert_eq!(written(-1), [0x01]);
        assert_eq!(written(63), [0x7e]);
        assert_eq!(written(64), [0x80, 0x01]);
        assert_eq!(written(-8192), [0xff, 0x7f]);
        assert_eq!(written(i64::MIN).len(), VARLONG_MAX);
        assert_eq!(written(i64::from(i32::MIN)).len(), VARINT_MAX);
    }

    #[test]
    fn more_bits_than_the_type_has_are_refused() {
        let too_long = [0xff; 11];
        assert!(read_long(&mut Cursor::new(&too_long), "x").is_err());
        let mut eleventh_bit = [0x80; 10];
        eleventh_bit[9] = 0x02;
        assert!(read_long(&mut Cursor::new(&eleventh_bit), "x").is_err());
        assert!(read(&mut Cursor::new(&written(1 << 31)), "x").is_err());
        assert!(read(&mut Cursor::new(&[0x80]), "x").is_err());
    }

    proptest! {
        #[test]
        fn round_trip(value: i64, shift in 0..64) {
            let value = value >> shift;
            let bytes = written(value);
            prop_assert_eq!(bytes.len(), width(value));
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(read_long(&mut cursor, "x"), Ok(value));
            prop_assert!(cursor.is_empty());
            let mut place = [0; VARLONG_MAX];
            prop_assert_eq!(write_at(&mut place, value), Some(bytes.len()));
            prop_assert_eq!(&place[..bytes.len()], &bytes[..]);
        }
    }
}
