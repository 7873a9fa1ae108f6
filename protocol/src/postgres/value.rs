//! Values in the server's text form that are neither text nor temporal: numbers, booleans, bits, bytes, money, points, vectors, EWKB.
//!
//! Manual: chapter 8, "Data Types" (<https://www.postgresql.org/docs/current/datatype.html>); EWKB: PostGIS's `ST_AsEWKB`.

use crate::Cursor;
use crate::error::{DecodeError, DecodeErrorKind};

use super::scan::Scan;

#[cold]
fn invalid(what: &'static str, text: &[u8], at: usize) -> DecodeError {
    let kind = match text.get(at) {
        Some(byte) => DecodeErrorKind::Invalid {
            value: (*byte).into(),
        },
        None => DecodeErrorKind::Truncated { missing: 1 },
    };
    DecodeError::new(what, at as u64, kind)
}

/// Whether `text` is a whole number as JSON writes one: digits without a leading zero, perhaps behind a minus sign.
#[inline]
#[must_use]
pub fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        [b'0'] => true,
        _ => false,
    }
}

/// Checks that `text` is an integer ([`is_integer`]).
///
/// # Errors
/// A text that the server does not write for one.
#[inline]
pub fn integer(text: &[u8]) -> Result<&[u8], DecodeError> {
    match is_integer(text) {
        true => Ok(text),
        false => Err(not_integer(text)),
    }
}

#[cold]
fn not_integer(text: &[u8]) -> DecodeError {
    let sign = usize::from(text.first() == Some(&b'-'));
    let digits = text.get(sign..).unwrap_or_default();
    let at = match digits.iter().position(|byte| !byte.is_ascii_digit()) {
        Some(at) => at,
        None if digits.len() > 1 => 0,
        None => digits.len(),
    };
    invalid("integer", text, sign + at)
}

/// Checks that `text` is a `numeric`: digits, perhaps behind a minus sign, perhaps with a point among them; `NaN`, `Infinity`,
/// `-Infinity`.
///
/// # Errors
/// A text that the server does not write for one.
#[inline]
pub fn numeric(text: &[u8]) -> Result<&[u8], DecodeError> {
    let mut scan = Scan::new(text, "numeric");
    if !scan.eat(b"NaN") {
        scan.eat(b"-");
        if !scan.eat(b"Infinity") {
            skip_digits(&mut scan)?;
            if scan.eat(b".") {
                skip_digits(&mut scan)?;
            }
        }
    }
    scan.finish()?;
    Ok(text)
}

fn skip_digits(scan: &mut Scan<'_>) -> Result<(), DecodeError> {
    match scan.digits(usize::MAX).len() {
        0 => Err(scan.error()),
        digits => {
            scan.skip(digits);
            Ok(())
        }
    }
}

/// Reads a `boolean`: `t`, `f`, and as wal2json writes it, `true`, `false`.
///
/// # Errors
/// A text that the server does not write for one.
#[inline]
pub fn boolean(text: &[u8]) -> Result<bool, DecodeError> {
    match text {
        b"t" | b"true" => Ok(true),
        b"f" | b"false" => Ok(false),
        _ => Err(invalid("boolean", text, 0)),
    }
}

/// Reads a `real` or `double precision`: `1.5`, `1e-07`, `NaN`, `-Infinity`; `T` is `f32` or `f64`.
///
/// # Errors
/// A text that the server does not write for one.
pub fn float<T: std::str::FromStr>(text: &[u8]) -> Result<T, DecodeError> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = unsigned.first().is_some_and(u8::is_ascii_digit);
    if is_plain || unsigned == b"Infinity" || text == b"NaN" {
        let number = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok());
        if let Some(number) = number {
            return Ok(number);
        }
    }
    let odd = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e');
    Err(invalid(
        "floating point",
        text,
        text.iter().position(odd).unwrap_or(text.len()),
    ))
}

/// Reads `money` and appends it as a plain decimal: `-$1,234.50` is `-1234.50`. Whatever the currency, `lc_monetary=C` writes it so, with
/// two fractional digits; where the database's has another number of `digits`, the point stands elsewhere: with 3 it is `-123.450`, with
/// none `-123450`.
///
/// # Errors
/// A text without digits, or with others than `lc_monetary=C` writes.
pub fn money(text: &[u8], digits: u8, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const WRITTEN: usize = 2;

    let start = out.len();
    let mut seen = 0;
    let mut point = None;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'-' if out.len() == start => out.push(b'-'),
            b'$' | b',' => {}
            b'.' if seen > 0 && point.is_none() => {
                point = Some(at);
                out.push(b'.');
            }
            b'0'..=b'9' => {
                seen += 1;
                out.push(*byte);
            }
            _ => {
                out.truncate(start);
                return Err(invalid("money", text, at));
            }
        }
    }
    let is_whole = point.is_some_and(|point| text.len() - point - 1 == WRITTEN);
    if seen == 0 || !is_whole {
        out.truncate(start);
        return Err(invalid("money", text, text.len()));
    }
    if usize::from(digits) != WRITTEN {
        move_point(out, start, WRITTEN, digits.into());
    }
    Ok(())
}

/// Gives the decimal from `start` on, which has `from` digits behind its point, `to` of them; there is always one before it.
#[cold]
fn move_point(out: &mut Vec<u8>, start: usize, from: usize, to: usize) {
    let point = out.len().saturating_sub(from + 1);
    if out.get(point) == Some(&b'.') {
        out.remove(point);
    }
    let start = start + usize::from(out.get(start) == Some(&b'-'));
    let missing = (to + 1).saturating_sub(out.len().saturating_sub(start));
    out.splice(start..start, std::iter::repeat_n(b'0', missing));
    let zeros = (out.iter().skip(start)).take_while(|byte| **byte == b'0');
    let surplus = zeros.count().min(out.len().saturating_sub(start + to + 1));
    out.drain(start..start + surplus);
    if to > 0 {
        out.insert(out.len().saturating_sub(to), b'.');
    }
}

/// What `\x` and hexadecimal digits stand for: appends the bytes of a `bytea`.
///
/// # Errors
/// A text that is not in this form, which is that of `bytea_output=hex`.
pub fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match text.strip_prefix(b"\\x") {
        Some(digits) => hex("bytea", digits, out).map_err(|error| error.shifted(2)),
        None => Err(invalid("bytea", text, 0)),
    }
}

/// The value of each hexadecimal digit, 0xff for other bytes.
static NIBBLES: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut n: u8 = 0;
    while n < 16 {
        let digit = if n < 10 { b'0' + n } else { b'a' + n - 10 };
        #[allow(clippy::indexing_slicing)]
        {
            table[digit as usize] = n;
            table[digit.to_ascii_uppercase() as usize] = n;
        }
        n += 1;
    }
    table
};

fn hex(what: &'static str, digits: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let nibble = |digit: u8| NIBBLES.get(usize::from(digit)).copied().unwrap_or(0xff);
    let (pairs, rest) = digits.as_chunks::<2>();
    let start = out.len();
    out.extend(
        pairs
            .iter()
            .map(|[high, low]| nibble(*high) << 4 | nibble(*low) & 15),
    );
    let odd = |digit: &u8| nibble(*digit) == 0xff;
    match digits.iter().position(odd) {
        Some(at) => {
            out.truncate(start);
            Err(invalid(what, digits, at))
        }
        None if !rest.is_empty() => {
            out.truncate(start);
            Err(invalid(what, digits, digits.len()))
        }
        None => Ok(()),
    }
}

/// Appends the bytes of a `bit` or `bit varying`, the least significant first: `1000000011` is `[3, 2]`.
///
/// # Errors
/// A text with other characters than `0` and `1`.
pub fn bits(text: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if let Some(at) = text.iter().position(|byte| !matches!(byte, b'0' | b'1')) {
        return Err(invalid("bit string", text, at));
    }
    let byte = |digits: &[u8]| {
        digits
            .iter()
            .fold(0_u8, |byte, digit| byte << 1 | digit & 1)
    };
    out.extend(text.rchunks(8).map(byte));
    Ok(())
}

/// Reads a `point`: `(1.5,2)`.
///
/// # Errors
/// A text that the server does not write for one.
pub fn point(text: &[u8]) -> Result<(f64, f64), DecodeError> {
    let inside = text
        .strip_prefix(b"(")
        .and_then(|text| text.strip_suffix(b")"));
    let Some(inside) = inside else {
        return Err(invalid("point", text, 0));
    };
    let Some(comma) = memchr::memchr(b',', inside) else {
        return Err(invalid("point", text, text.len()));
    };
    let (x, y) = inside.split_at_checked(comma).unwrap_or_default();
    let x = float(x).map_err(|error| error.shifted(1))?;
    let y =
        float(y.get(1..).unwrap_or_default()).map_err(|error| error.shifted(comma as u64 + 2))?;
    Ok((x, y))
}

/// The numbers of a pgvector `vector` or `halfvec` (`[1,2.5,3]`), one after the other.
///
/// # Errors
/// A text that the extension does not write for one.
pub fn vector(text: &[u8]) -> Result<impl Iterator<Item = Result<f32, DecodeError>>, DecodeError> {
    let inside = text
        .strip_prefix(b"[")
        .and_then(|text| text.strip_suffix(b"]"));
    match inside {
        Some(inside) if !inside.is_empty() => Ok(inside.split(|byte| *byte == b',').map(float)),
        _ => Err(invalid("vector", text, 0)),
    }
}

/// Appends the bytes of a PostGIS value (EWKB in hexadecimal) and returns its SRID; `None` where it names none.
///
/// ```text
/// byte order (0 big-endian, 1 little-endian) │ u32 type, 0x20000000: with SRID │ u32 SRID │ …
/// ```
/// # Errors
/// A text that is not hexadecimal, or too short for what it says.
pub fn geometry(text: &[u8], out: &mut Vec<u8>) -> Result<Option<u32>, DecodeError> {
    const WITH_SRID: u32 = 0x2000_0000;
    let start = out.len();
    hex("EWKB", text, out)?;
    let mut cursor = Cursor::new(out.get(start..).unwrap_or_default());
    let order = cursor.u8("EWKB byte order")?;
    let mut number = |what| -> Result<u32, DecodeError> {
        let bytes = *cursor.chunk::<4>(what)?;
        Ok(match order {
            0 => u32::from_be_bytes(bytes),
            _ => u32::from_le_bytes(bytes),
        })
    };
    match number("EWKB type")? & WITH_SRID {
        0 => Ok(None),
        _ => number("EWKB SRID").map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn appended(
        read: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), DecodeError>,
        text: &str,
    ) -> Result<Vec<u8>, DecodeError> {
        let mut out = b"before".to_vec();
        let result = read(text.as_bytes(), &mut out);
        let rest = out.strip_prefix(b"before").unwrap().to_vec();
        assert!(result.is_ok() || rest.is_empty(), "{text}");
        result.map(|()| rest)
    }

    #[test]
    fn integers_are_those_of_json() {
        for text in [
            "0",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "10",
        ] {
            assert!(integer(text.as_bytes()).is_ok(), "{text}");
        }
        for text in [
            "", "-", "00", "01", "+1", "1.0", "1e5", " 1", "1 ", "NaN", "-01",
        ] {
            assert!(integer(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn numerics_have_one_point_and_no_exponent() {
        for text in [
            "0",
            "0.00",
            "-123456789012345.12345",
            "NaN",
            "Infinity",
            "-Infinity",
            "1000000000000000000000000000000",
        ] {
            assert!(numeric(text.as_bytes()).is_ok(), "{text}");
        }
        for text in [
            "", "-", ".5", "5.", "1.2.3", "1e5", "-NaN", "infinity", "1,5", "\"1\"",
        ] {
            assert!(numeric(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn floats_are_read_exactly() {
        assert_eq!(float::<f64>(b"5e-324"), Ok(f64::from_bits(1)));
        assert_eq!(float::<f32>(b"1e-45"), Ok(f32::from_bits(1)));
        assert!(float::<f64>(b"NaN").unwrap().is_nan());
        assert_eq!(float::<f64>(b"-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(float::<f64>(b"-0").unwrap().is_sign_negative());
        for text in [
            "", "inf", "infinity", "nan", "-NaN", "1,5", "x", "+1", ".5", "1e", "--1", "-Inf",
        ] {
            assert!(float::<f64>(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn money_loses_its_clothes() {
        for (text, expected) in [
            ("$1,234.50", "1234.50"),
            ("-$1,234.50", "-1234.50"),
            ("$0.00", "0.00"),
            ("-$0.01", "-0.01"),
            ("$1,000,000,000,000.00", "1000000000000.00"),
        ] {
            let money = |text: &[u8], out: &mut Vec<u8>| money(text, 2, out);
            assert_eq!(appended(money, text).as_deref(), Ok(expected.as_bytes()));
        }
        for text in [
            "",
            "$",
            "-",
            "1.234,50 €",
            "$1.",
            "$.5",
            "1-2",
            "$1",
            "$1.5",
            "$1.234",
            "$1.2.34",
        ] {
            for digits in [0, 2, 3] {
                let money = |text: &[u8], out: &mut Vec<u8>| money(text, digits, out);
                assert!(appended(money, text).is_err(), "{text}");
            }
        }
    }

    /// What PostgreSQL 15 writes of '1234'::money, '-5'::money and '0'::money with `lc_monetary=ja_JP` and `ar_KW`, of '1234' with the
    /// first; and further numbers of units.
    #[test]
    fn money_has_the_digits_of_its_currency() {
        for (digits, text, expected) in [
            (0, "$12.34", "1234"),
            (0, "-$0.05", "-5"),
            (0, "$0.00", "0"),
            (0, "$1,000.00", "100000"),
            (3, "$12.34", "1.234"),
            (3, "-$0.05", "-0.005"),
            (3, "$0.00", "0.000"),
            (3, "$1,234,567.89", "123456.789"),
            (1, "$0.00", "0.0"),
            (1, "-$0.12", "-1.2"),
            (4, "$92,233,720,368,547,758.07", "922337203685477.5807"),
            (10, "-$0.01", "-0.0000000001"),
        ] {
            let money = |text: &[u8], out: &mut Vec<u8>| money(text, digits, out);
            let found = appended(money, text);
            assert_eq!(found.as_deref(), Ok(expected.as_bytes()), "{text} {digits}");
        }
    }

    #[test]
    fn bits_begin_with_the_least_significant() {
        for (text, expected) in [
            ("", &[][..]),
            ("1", &[1]),
            ("101", &[5]),
            ("10101010", &[0xaa]),
            ("1000000011", &[3, 2]),
            ("0000000000000001", &[1, 0]),
        ] {
            assert_eq!(appended(bits, text).as_deref(), Ok(expected), "{text}");
        }
        assert!(appended(bits, "12").is_err());
    }

    #[test]
    fn bytes_are_hexadecimal() {
        assert_eq!(appended(bytea, "\\x00Ff").as_deref(), Ok(&[0, 0xff][..]));
        assert_eq!(appended(bytea, "\\x").as_deref(), Ok(&[][..]));
        for text in [
            "", "\\", "00ff", "\\x0", "\\x0g", "\\xg0", "\\377", "\\x00 ",
        ] {
            assert!(appended(bytea, text).is_err(), "{text}");
        }
    }

    #[test]
    fn points_and_vectors() {
        assert_eq!(point(b"(1.5,2)"), Ok((1.5, 2.0)));
        assert_eq!(point(b"(1e-07,-Infinity)"), Ok((1e-7, f64::NEG_INFINITY)));
        for text in ["", "()", "(1)", "(1,2", "1,2", "(1,2,3)", "(,)"] {
            assert!(point(text.as_bytes()).is_err(), "{text}");
        }
        let all = |text: &str| vector(text.as_bytes())?.collect::<Result<Vec<f32>, _>>();
        assert_eq!(all("[1,2.5,-3e-05]"), Ok(vec![1.0, 2.5, -3e-5]));
        for text in ["", "[]", "[1", "1]", "[1,]", "[a]"] {
            assert!(all(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ewkb_names_its_srid() {
        let mut out = Vec::new();
        // SELECT 'SRID=4326;POINT(1 2)'::geometry, and without SRID.
        let text = b"0101000020E6100000000000000000F03F0000000000000040";
        assert_eq!(geometry(text, &mut out), Ok(Some(4326)));
        assert_eq!(out.len(), 25);
        assert_eq!(
            geometry(
                b"0101000000000000000000F03F0000000000000040",
                &mut Vec::new()
            ),
            Ok(None)
        );
        assert_eq!(
            geometry(b"0020000001000010e6", &mut Vec::new()),
            Ok(Some(4326))
        );
        for text in ["", "01", "0101000020E610", "01x1", "010"] {
            assert!(
                geometry(text.as_bytes(), &mut Vec::new()).is_err(),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn numbers_of_any_size_are_integers(number: i128) {
            prop_assert!(is_integer(number.to_string().as_bytes()));
        }

        #[test]
        fn integers_are_written_in_one_way(text in "-?[0-9]{0,20}|[-+0-9.e_]{0,5}") {
            let number = text.parse::<num_bigint::BigInt>();
            let expected = number.is_ok_and(|number| number.to_string() == text) || text == "-0";
            prop_assert_eq!(is_integer(text.as_bytes()), expected);
        }

        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let found = appended(bytea, &format!("\\x{text}"));
            prop_assert_eq!(found, Ok(bytes));
        }

        #[test]
        fn bits_have_their_value(bits in "[01]{0,64}") {
            let found = appended(super::bits, &bits).unwrap();
            prop_assert_eq!(found.len(), bits.len().div_ceil(8));
            let mut whole = [0; 8];
            whole[..found.len()].copy_from_slice(&found);
            prop_assert_eq!(u64::from_le_bytes(whole), u64::from_str_radix(&format!("0{bits}"), 2).unwrap());
        }
    }
}
