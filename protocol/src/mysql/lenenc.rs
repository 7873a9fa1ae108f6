//! Length-encoded integers and strings of the client/server protocol.
//!
//! ```text
//! 0x00..=0xfa  the value itself          0xfd + 3 bytes
//! 0xfc + 2 bytes                         0xfe + 8 bytes
//! ```
//! 0xfb is NULL in a text row and 0xff an error packet: neither is an integer. Source: MySQL internals manual, "Protocol::LengthEncodedInteger".

use crate::cursor::Cursor;
use crate::error::DecodeError;

/// Reads an integer.
///
/// # Errors
/// Truncated input, or 0xfb or 0xff where an integer must stand.
#[inline]
pub fn integer(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u64, DecodeError> {
    match cursor.u8(what)? {
        small @ 0..=0xfa => Ok(small.into()),
        0xfc => cursor.u16_le(what).map(u64::from),
        0xfd => cursor.u24_le(what).map(u64::from),
        0xfe => cursor.u64_le(what),
        other => Err(cursor.invalid(what, other.into())),
    }
}

/// Reads a string: its length, then its bytes.
///
/// # Errors
/// Truncated input, or a first byte that is not an integer's.
pub fn string<'a>(cursor: &mut Cursor<'a>, what: &'static str) -> Result<&'a [u8], DecodeError> {
    let length = integer(cursor, what)?;
    cursor.take(usize::try_from(length).unwrap_or(usize::MAX), what)
}

/// Appends an integer in its shortest form.
pub fn write_integer(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    let [a, b, c, ..] = bytes;
    match value {
        0..=0xfa => out.push(a),
        0xfb..=0xffff => out.extend_from_slice(&[0xfc, a, b]),
        0x1_0000..=0xff_ffff => out.extend_from_slice(&[0xfd, a, b, c]),
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends a string with its length.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    write_integer(out, text.len() as u64);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_round_trips() {
        for value in [
            0,
            0xfa,
            0xfb,
            0xff,
            0x100,
            0xffff,
            0x1_0000,
            0xff_ffff,
            0x100_0000,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            write_integer(&mut out, value);
            let mut cursor = Cursor::new(&out);
            assert_eq!(integer(&mut cursor, "value"), Ok(value));
            cursor.finish("value").unwrap();
            for cut in 0..out.len() {
                assert!(integer(&mut Cursor::new(&out[..cut]), "value").is_err());
            }
        }
    }

    #[test]
    fn strings_do_not_reach_past_the_end() {
        let mut out = Vec::new();
        write_string(&mut out, b"abc");
        assert_eq!(string(&mut Cursor::new(&out), "text"), Ok(&b"abc"[..]));
        assert!(
            string(
                &mut Cursor::new(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffabc"),
                "text"
            )
            .is_err()
        );
        assert!(string(&mut Cursor::new(b"\xfb"), "text").is_err());
    }
}
