//! Numbers as text: integers in decimal, floating point as Java's `Double.toString` and `Float.toString` (JDK 19 and later).
//!
//! Java's text is the shortest decimal that reads back as the same value, plain from 10⁻³ to below 10⁷ (`1.0`, `0.001`,
//! `9999999.0`), otherwise with an exponent (`1.0E-7`, `3.4E38`): Javadoc of `java.lang.Double.toString(double)`.
//! Where one digit would do, Java takes the nearest decimal of two (`4.9E-324`), which differs for the smallest subnormals only.

use std::io::Write;

/// Appends a signed integer.
#[inline]
pub(super) fn write_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an unsigned integer.
#[inline]
pub(super) fn write_uint(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a double as a JSON number, NaN and infinities as strings.
pub(super) fn write_double(out: &mut Vec<u8>, value: f64) {
    match special(value) {
        Some(text) => out.extend_from_slice(text),
        None => {
            let subnormal = value.is_subnormal();
            write_java(out, ryu::Buffer::new().format_finite(value), |two| {
                subnormal.then(|| write!(two, "{value:.1e}")).is_some()
            });
        }
    }
}

/// Appends a float as a JSON number, NaN and infinities as strings.
pub(super) fn write_float(out: &mut Vec<u8>, value: f32) {
    match special(value.into()) {
        Some(text) => out.extend_from_slice(text),
        None => {
            let subnormal = value.is_subnormal();
            write_java(out, ryu::Buffer::new().format_finite(value), |two| {
                subnormal.then(|| write!(two, "{value:.1e}")).is_some()
            });
        }
    }
}

/// JSON has no numbers for these.
fn special(value: f64) -> Option<&'static [u8]> {
    if value.is_nan() {
        Some(b"\"NaN\"")
    } else if value == f64::INFINITY {
        Some(b"\"Infinity\"")
    } else if value == f64::NEG_INFINITY {
        Some(b"\"-Infinity\"")
    } else {
        None
    }
}

/// Digits and exponent of a shortest text such as `-1.25e-7`, `100.0` or `5e-324`: `0.DIGITS × 10^exponent`.
struct Shortest {
    negative: bool,
    digits: [u8; 20],
    count: usize,
    exponent: i32,
}

fn parse(text: &[u8]) -> Shortest {
    let mut parsed = Shortest {
        negative: false,
        digits: [b'0'; 20],
        count: 0,
        exponent: 0,
    };
    let mut point_seen = false;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'-' => parsed.negative = true,
            b'.' => point_seen = true,
            b'e' => {
                let exponent = std::str::from_utf8(bytes.as_slice()).ok();
                parsed.exponent += exponent.and_then(|e| e.parse::<i32>().ok()).unwrap_or(0);
                break;
            }
            b'0' if parsed.count == 0 => parsed.exponent -= i32::from(point_seen),
            digit => {
                if let Some(slot) = parsed.digits.get_mut(parsed.count) {
                    *slot = *digit;
                    parsed.count += 1;
                }
                parsed.exponent += i32::from(!point_seen);
            }
        }
    }
    while parsed.count > 0 && parsed.digits[parsed.count - 1] == b'0' {
        parsed.count -= 1;
    }
    parsed
}

fn write_java(out: &mut Vec<u8>, shortest: &str, two_digits: impl Fn(&mut &mut [u8]) -> bool) {
    let mut number = parse(shortest.as_bytes());
    if number.count == 1 {
        let mut text = [0; 16];
        let mut rest = &mut text[..];
        if two_digits(&mut rest) {
            let written = 16 - rest.len();
            number = parse(&text[..written]);
        }
    }
    let Shortest {
        negative,
        digits,
        count,
        exponent,
    } = number;
    if negative {
        out.push(b'-');
    }
    let digits = &digits[..count];
    match exponent {
        _ if digits.is_empty() => out.extend_from_slice(b"0.0"),
        -2..=0 => {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize));
            out.extend_from_slice(digits);
        }
        1..=7 => {
            let whole = exponent.unsigned_abs() as usize;
            for at in 0..whole.max(count) {
                if at == whole {
                    out.push(b'.');
                }
                out.push(*digits.get(at).unwrap_or(&b'0'));
            }
            if count <= whole {
                out.extend_from_slice(b".0");
            }
        }
        _ => {
            out.extend_from_slice(&[digits[0], b'.']);
            out.extend_from_slice(digits.get(1..).filter(|d| !d.is_empty()).unwrap_or(b"0"));
            out.push(b'E');
            write_int(out, i64::from(exponent) - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        write_double(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn float(value: f32) -> String {
        let mut out = Vec::new();
        write_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_java_writes() {
        // Left: values of mysql.txt, of Javadoc and of JDK 19's own tests (ToDecimal checks).
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (1e-7, "1.0E-7"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157E308"),
            (0.001, "0.001"),
            (0.000_999, "9.99E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (12_345_678.9, "1.23456789E7"),
            (1_234_567.5, "1234567.5"),
            (100.0, "100.0"),
            (2e-3, "0.002"),
            (0.012_5, "0.0125"),
            (2e23, "2.0E23"),
            (f64::from_bits(1), "4.9E-324"),
            (f64::from_bits(2), "9.9E-324"),
            (f64::from_bits(3), "1.5E-323"),
            (f64::MIN_POSITIVE, "2.2250738585072014E-308"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(double(value), text);
        }
        for (value, text) in [
            (1.1f32, "1.1"),
            (3.4e38, "3.4E38"),
            (f32::MAX, "3.4028235E38"),
            (f32::from_bits(1), "1.4E-45"),
            (1e-3, "0.001"),
            (1.0e10, "1.0E10"),
            (3.355_443_2e7, "3.3554432E7"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    proptest! {
        #[test]
        fn doubles_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                prop_assert_eq!(double(value).parse::<f64>().unwrap().to_bits(), bits);
                prop_assert!(serde_json::from_str::<f64>(&double(value)).is_ok());
            }
        }

        #[test]
        fn floats_read_back(bits: u32) {
            let value = f32::from_bits(bits);
            if value.is_finite() {
                prop_assert_eq!(float(value).parse::<f32>().unwrap().to_bits(), bits);
            }
        }
    }
}
