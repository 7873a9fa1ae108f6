//! DECIMAL in the server's packed form (`strings/decimal.cc`, `decimal2bin`): base-10⁹ groups, big-endian, the sign bit inverted.
//!
//! ```text
//! DECIMAL(14,4) = 10 digits before the point, 4 after:
//! | 1 digit: 1 byte | 9 digits: 4 bytes | 4 digits: 2 bytes |      first bit: 1 for positive; negative values have all bits inverted
//! ```

use crate::{Cursor, DecodeError, DecodeErrorKind};

/// A packed DECIMAL and its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal<'a> {
    /// Packed bytes, as in the row image.
    pub bytes: &'a [u8],
    /// Digits in all.
    pub precision: u8,
    /// Digits after the point.
    pub scale: u8,
}

/// Digits that one full group holds.
const GROUP: usize = 9;

/// Bytes that `digits` (0 to 9) take.
const fn group_bytes(digits: usize) -> usize {
    match digits {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 2,
        5 | 6 => 3,
        _ => 4,
    }
}

impl Decimal<'_> {
    /// Most digits that a server allows.
    pub const PRECISION_MAX: u8 = 65;

    /// Bytes of a packed DECIMAL(`precision`, `scale`).
    #[must_use]
    #[inline]
    pub const fn packed_length(precision: u8, scale: u8) -> usize {
        let scale = scale as usize;
        let whole = (precision as usize).saturating_sub(scale);
        whole / GROUP * 4
            + group_bytes(whole % GROUP)
            + scale / GROUP * 4
            + group_bytes(scale % GROUP)
    }

    /// Appends its text, all digits of the scale kept: `-1234.50`.
    ///
    /// # Errors
    /// The bytes are not as many as the declaration needs, or a group exceeds its digits. Nothing is appended then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let start = out.len();
        let written = self.write_digits(out, start);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write_digits(&self, out: &mut Vec<u8>, start: usize) -> Result<(), DecodeError> {
        let scale = usize::from(self.scale);
        let whole = usize::from(self.precision).saturating_sub(scale);
        let positive = self.bytes.first().is_some_and(|first| first & 0x80 != 0);
        let mut groups = Groups {
            cursor: Cursor::new(self.bytes),
            first: true,
            negative: !positive,
        };
        let mut nonzero = false;
        if !positive {
            out.push(b'-');
        }
        let digits_at = out.len();
        for digits in std::iter::once(whole % GROUP).chain((0..whole / GROUP).map(|_| GROUP)) {
            let group = groups.next(digits)?;
            nonzero |= group != 0;
            if out.len() > digits_at {
                write_padded(group, digits, out);
            } else if group != 0 {
                write_padded(group, digit_count(group), out);
            }
        }
        if out.len() == digits_at {
            out.push(b'0');
        }
        if scale > 0 {
            out.push(b'.');
        }
        for digits in (0..scale / GROUP)
            .map(|_| GROUP)
            .chain(std::iter::once(scale % GROUP))
        {
            let group = groups.next(digits)?;
            nonzero |= group != 0;
            write_padded(group, digits, out);
        }
        groups.cursor.finish("DECIMAL")?;
        if !positive && !nonzero {
            out.remove(start);
        }
        Ok(())
    }
}

struct Groups<'a> {
    cursor: Cursor<'a>,
    first: bool,
    negative: bool,
}

impl Groups<'_> {
    fn next(&mut self, digits: usize) -> Result<u32, DecodeError> {
        if digits == 0 {
            return Ok(0);
        }
        let width = group_bytes(digits);
        let at = self.cursor.at() as u64;
        let mut group = self.cursor.uint_be(width, "DECIMAL digits")? as u32;
        let bits = 8 * width as u32;
        let mask = u32::MAX >> (32 - bits);
        if std::mem::take(&mut self.first) {
            group ^= 1 << (bits - 1);
        }
        if self.negative {
            group = !group & mask;
        }
        if group >= 10_u32.pow(digits as u32) {
            return Err(DecodeError::new(
                "DECIMAL digits",
                at,
                DecodeErrorKind::Invalid {
                    value: u64::from(group),
                },
            ));
        }
        Ok(group)
    }
}

fn digit_count(value: u32) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// `value` in exactly `digits` (at most 9) decimal digits.
fn write_padded(mut value: u32, digits: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; GROUP];
    for byte in text.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(text.get(GROUP.saturating_sub(digits)..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8], precision: u8, scale: u8) -> String {
        let mut out = b"x".to_vec();
        Decimal {
            bytes,
            precision,
            scale,
        }
        .write(&mut out)
        .unwrap();
        String::from_utf8(out[1..].to_vec()).unwrap()
    }

    /// An independent packer: from text, digit by digit.
    fn pack(negative: bool, whole: &str, fraction: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut push = |digits: &str| {
            if digits.is_empty() {
                return;
            }
            let width = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4][digits.len()];
            let value: u32 = digits.parse().unwrap();
            bytes.extend_from_slice(&value.to_be_bytes()[4 - width..]);
        };
        let (head, tail) = whole.split_at(whole.len() % 9);
        push(head);
        tail.as_bytes()
            .chunks(9)
            .for_each(|chunk| push(std::str::from_utf8(chunk).unwrap()));
        fraction
            .as_bytes()
            .chunks(9)
            .for_each(|chunk| push(std::str::from_utf8(chunk).unwrap()));
        bytes[0] |= 0x80;
        if negative {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        bytes
    }

    #[test]
    fn the_manuals_example() {
        // strings/decimal.cc: 1234567890.1234 as DECIMAL(14,4)
        assert_eq!(
            text(&[0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2], 14, 4),
            "1234567890.1234"
        );
        assert_eq!(
            text(&[0x7e, 0xf2, 0x04, 0xc7, 0x2d, 0xfb, 0x2d], 14, 4),
            "-1234567890.1234"
        );
    }

    #[test]
    fn zero_has_no_sign_and_groups_are_checked() {
        assert_eq!(text(&[0x80, 0], 4, 2), "0.00");
        assert_eq!(text(&[0x7f, 0xff], 4, 2), "0.00");
        let mut out = b"kept".to_vec();
        let bad = Decimal {
            bytes: &[0x80 | 100, 0],
            precision: 4,
            scale: 2,
        };
        assert_eq!(
            bad.write(&mut out).unwrap_err().kind,
            DecodeErrorKind::Invalid { value: 100 }
        );
        assert_eq!(out, b"kept");
    }

    proptest! {
        #[test]
        fn any_digits(negative: bool, whole in "[0-9]{0,35}", fraction in "[0-9]{0,30}") {
            prop_assume!(!whole.is_empty() || !fraction.is_empty());
            let precision = (whole.len() + fraction.len()) as u8;
            let scale = fraction.len() as u8;
            let bytes = pack(negative, &whole, &fraction);
            prop_assert_eq!(bytes.len(), Decimal::packed_length(precision, scale));
            let digits = whole.trim_start_matches('0');
            let zero = digits.is_empty() && fraction.bytes().all(|b| b == b'0');
            let mut expected = String::new();
            if negative && !zero { expected.push('-'); }
            expected.push_str(if digits.is_empty() { "0" } else { digits });
            if !fraction.is_empty() { expected.push('.'); expected.push_str(&fraction); }
            prop_assert_eq!(text(&bytes, precision, scale), expected);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40), precision in 0_u8..=80, scale in 0_u8..=80) {
            let _ = Decimal { bytes: &bytes, precision, scale }.write(&mut Vec::new());
        }
    }
}
