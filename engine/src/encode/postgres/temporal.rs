//! Dates and times as text: Debezium's `isostring` forms (`IsoDate`, `IsoTime`, `IsoTimestamp`, `ZonedTimestamp`).
//!
//! ```text
//! date         2025-02-17Z    -0043-03-15Z    +12025-01-01Z       timestamp    2025-02-17T15:19:39.12Z      zeros of the fraction cut
//! time, timetz 13:19:39.123456Z   24:00:00Z                       timestamptz  2025-02-17T14:19:39.123456Z  exactly the column's digits
//! interval     P1Y2M3DT4H5M6.7S   PT0S                            all          infinity  -infinity
//! ```
//! Nearly all values have the server's usual shape and are copied with a few bytes moved; the others are read and written anew.

use std::io::Write as _;

use protocol::DecodeError;
use protocol::postgres::interval::{Interval, interval};
use protocol::postgres::temporal::{self, Bounded, Date, Time};

use crate::encode::number::{write_int, write_uint};

/// For each of eight bytes that are `pattern` XORed with a text: whether it is not what the pattern asks for. `0` in the pattern asks for a
/// digit, anything else for itself.
const fn differs(word: u64, pattern: [u8; 8]) -> u64 {
    let mut limit = [0x7f; 8];
    let mut n = 0;
    while n < 8 {
        if pattern[n] == b'0' {
            // 0 to 9 stay below 0x80, more does not.
            limit[n] = 0x76;
        }
        n += 1;
    }
    let found = word ^ u64::from_ne_bytes(pattern);
    // The low seven bits alone are added, so that no byte carries into its neighbour.
    let low = found & u64::from_ne_bytes([0x7f; 8]);
    (found | low.wrapping_add(u64::from_ne_bytes(limit))) & u64::from_ne_bytes([0x80; 8])
}

/// Whether `text` looks like `2025-02-17 15:19:39`. Nobody asks whether there is such a day: the server does not write others.
#[inline]
fn is_usual(text: &[u8; 19]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s] = *text;
    let head = differs(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), *b"0000-00-");
    let middle = differs(u64::from_ne_bytes([i, j, k, l, m, n, o, p]), *b"00 00:00");
    let tail = differs(u64::from_ne_bytes([l, m, n, o, p, q, r, s]), *b"00:00:00");
    head | middle | tail == 0
}

/// `"2025-02-17T15:19:39` of a usual text, with a quote and a `T`, and two bytes of room.
#[inline]
fn moved(text: &[u8; 19], end: [u8; 2]) -> [u8; 22] {
    let mut moved = [b'"'; 22];
    moved[1..20].copy_from_slice(text);
    moved[11] = b'T';
    moved[20..].copy_from_slice(&end);
    moved
}

/// The digits behind the point, where there is a point and nothing but one to six digits behind it; none where there is nothing at all.
#[inline]
fn fraction(text: &[u8]) -> Option<&[u8]> {
    match text {
        [] => Some(&[]),
        [b'.', digits @ ..]
            if matches!(digits.len(), 1..=6) && digits.iter().all(u8::is_ascii_digit) =>
        {
            Some(digits)
        }
        _ => None,
    }
}

/// Appends a `timestamp` with its quotes.
#[inline]
pub(super) fn write_timestamp(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    if let Some((usual, rest)) = text.split_first_chunk::<19>()
        && is_usual(usual)
    {
        if rest.is_empty() {
            out.extend_from_slice(&moved(usual, *b"Z\""));
            return Ok(());
        }
        if fraction(rest).is_some() {
            out.extend_from_slice(&moved(usual, *b"  ")[..20]);
            out.extend_from_slice(rest);
            out.extend_from_slice(b"Z\"");
            return Ok(());
        }
    }
    write_unusual_timestamp(out, text)
}

#[cold]
fn write_unusual_timestamp(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    write_bounded(out, temporal::timestamp(text)?, |out, at| {
        write_day(out, at.date);
        out.push(b'T');
        write_clock(out, at.time);
    });
    Ok(())
}

/// Appends a `timestamptz` with its quotes, in UTC, with a fraction of `digits` digits.
#[inline]
pub(super) fn write_timestamp_tz(
    out: &mut Vec<u8>,
    text: &[u8],
    digits: u8,
) -> Result<(), DecodeError> {
    if let Some((usual, rest)) = text.split_first_chunk::<19>()
        && is_usual(usual)
        && let Some(rest) = rest.strip_suffix(b"+00")
        && let Some(fraction) = fraction(rest)
        && fraction.len() <= usize::from(digits)
    {
        if digits == 0 {
            out.extend_from_slice(&moved(usual, *b"Z\""));
            return Ok(());
        }
        out.extend_from_slice(&moved(usual, *b". ")[..21]);
        out.extend_from_slice(fraction);
        let zeros = usize::from(digits) - fraction.len();
        out.extend_from_slice(b"000000".get(..zeros).unwrap_or_default());
        out.extend_from_slice(b"Z\"");
        return Ok(());
    }
    write_unusual_timestamp_tz(out, text, digits)
}

#[cold]
fn write_unusual_timestamp_tz(
    out: &mut Vec<u8>,
    text: &[u8],
    digits: u8,
) -> Result<(), DecodeError> {
    write_bounded(out, temporal::timestamp_tz(text)?, |out, at| {
        write_day(out, at.date);
        out.push(b'T');
        let whole = Time {
            micros: 0,
            ..at.time
        };
        write_clock(out, whole);
        // A value with more digits than its column would be a wonder; it keeps them.
        let digits = digits_needed(at.time.micros).max(digits.into());
        write_fraction(out, at.time.micros, digits);
    });
    Ok(())
}

/// Appends a `date` with its quotes.
#[inline]
pub(super) fn write_date(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    write_bounded(out, temporal::date(text)?, write_day);
    Ok(())
}

/// Appends a `time` with its quotes.
pub(super) fn write_time(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    let time = temporal::time(text)?;
    write_quoted(out, |out| write_clock(out, time));
    Ok(())
}

/// Appends a `timetz` with its quotes, in UTC.
pub(super) fn write_time_tz(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    let time = temporal::time_tz(text)?;
    write_quoted(out, |out| write_clock(out, time));
    Ok(())
}

/// Appends an `interval` with its quotes, exactly: parts that are zero are left out, the others have the server's signs.
pub(super) fn write_interval(out: &mut Vec<u8>, text: &[u8]) -> Result<(), DecodeError> {
    let interval = interval(text)?;
    out.push(b'"');
    match interval {
        Bounded::Infinity => out.extend_from_slice(b"infinity"),
        Bounded::NegativeInfinity => out.extend_from_slice(b"-infinity"),
        Bounded::Finite(interval) => write_duration(out, &interval),
    }
    out.push(b'"');
    Ok(())
}

fn write_duration(out: &mut Vec<u8>, interval: &Interval) {
    let Interval {
        years,
        months,
        days,
        negative_time,
        hours,
        minutes,
        seconds,
        micros,
    } = *interval;
    out.push(b'P');
    for (number, unit) in [(years, b'Y'), (months, b'M'), (days, b'D')] {
        if number != 0 {
            write_int(out, number);
            out.push(unit);
        }
    }
    let has_time = (hours, minutes, seconds, micros) != (0, 0, 0, 0);
    if !has_time {
        if (years, months, days) == (0, 0, 0) {
            out.extend_from_slice(b"T0S");
        }
        return;
    }
    out.push(b'T');
    let sign: &[u8] = if negative_time { b"-" } else { b"" };
    for (number, unit) in [(hours, b'H'), (minutes.into(), b'M')] {
        if number != 0 {
            out.extend_from_slice(sign);
            write_uint(out, number);
            out.push(unit);
        }
    }
    if (seconds, micros) != (0, 0) {
        out.extend_from_slice(sign);
        write_uint(out, seconds.into());
        write_fraction(out, micros, digits_needed(micros));
        out.push(b'S');
    }
}

/// `"…Z"`, or an infinity as the server writes it.
fn write_bounded<T>(out: &mut Vec<u8>, value: Bounded<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Bounded::Finite(value) => write_quoted(out, |out| write(out, value)),
        Bounded::Infinity => out.extend_from_slice(b"\"infinity\""),
        Bounded::NegativeInfinity => out.extend_from_slice(b"\"-infinity\""),
    }
}

fn write_quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.extend_from_slice(b"Z\"");
}

/// As `java.time.LocalDate` writes a day: at least four digits of the year, a sign where it is negative or has more.
fn write_day(out: &mut Vec<u8>, date: Date) {
    let Date { year, month, day } = date;
    let sign = match year {
        ..0 => "-",
        0..=9999 => "",
        _ => "+",
    };
    // Writing to a vector does not fail.
    let _ = write!(out, "{sign}{:04}-{month:02}-{day:02}", year.unsigned_abs());
}

fn write_clock(out: &mut Vec<u8>, time: Time) {
    let Time {
        hours,
        minutes,
        seconds,
        micros,
    } = time;
    // Writing to a vector does not fail.
    let _ = write!(out, "{hours:02}:{minutes:02}:{seconds:02}");
    write_fraction(out, micros, digits_needed(micros));
}

/// A point and `digits` digits of a fraction given in millionths; nothing for 0 digits.
fn write_fraction(out: &mut Vec<u8>, micros: u32, digits: usize) {
    let mut rest = micros;
    let mut text = [b'.'; 7];
    for digit in text.iter_mut().skip(1).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if digits > 0 {
        out.extend_from_slice(&text[..=digits.min(6)]);
    }
}

/// Digits that are left when a fraction's trailing zeros are cut.
const fn digits_needed(micros: u32) -> usize {
    let mut digits = 6;
    let mut rest = micros;
    while digits > 0 && rest.is_multiple_of(10) {
        rest /= 10;
        digits -= 1;
    }
    digits
}
