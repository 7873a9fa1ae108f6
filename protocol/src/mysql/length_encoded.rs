//! Length-encoded integers: one byte below 251, otherwise a marker and 2, 3 or 8 bytes ("Protocol::LengthEncodedInteger").

use crate::{Cursor, DecodeError};

/// Reads a length-encoded integer. 251 (SQL NULL in result sets) and 255 are no integers.
///
/// # Errors
/// Truncated input, or `Invalid` for the markers 251 and 255.
#[inline]
pub fn read(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u64, DecodeError> {
    match cursor.u8(what)? {
        small @ 0..=250 => Ok(u64::from(small)),
        252 => cursor.u16_le(what).map(u64::from),
        253 => cursor.u24_le(what).map(u64::from),
        254 => cursor.u64_le(what),
        marker => Err(cursor.invalid(what, u64::from(marker))),
    }
}

/// Reads a length-encoded integer and as many bytes as it says.
///
/// # Errors
/// As [`read`], and when fewer bytes are left.
#[inline]
pub fn bytes<'a>(cursor: &mut Cursor<'a>, what: &'static str) -> Result<&'a [u8], DecodeError> {
    let length = read(cursor, what)?;
    // A length beyond the address space is beyond the slice as well.
    cursor.take(usize::try_from(length).unwrap_or(usize::MAX), what)
}
