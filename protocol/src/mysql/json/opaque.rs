//! Opaque JSON values: SQL values that JSON has no type for.

use std::fmt::Write;

use super::Appender;
use crate::mysql::column::wire;
use crate::mysql::decimal::Decimal;
use crate::mysql::temporal::{Date, DateTime, Time};
use crate::{Cursor, DecodeError, DecodeErrorKind};

/// Appends an opaque value: DECIMAL as a number, dates and times as strings, everything else as `"base64:typeNN:…"`.
pub(super) fn write(field_type: u8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match field_type {
        wire::NEWDECIMAL => write_decimal(bytes, out),
        wire::TIME => write_time(bytes, out),
        wire::DATE | wire::DATETIME | wire::TIMESTAMP => write_date_time(field_type, bytes, out),
        _ => {
            let _ = write!(Appender(out), "\"base64:type{field_type}:");
            write_base64(bytes, out);
            out.push(b'"');
            Ok(())
        }
    }
}

/// `| precision 1 | scale 1 | packed |`.
fn write_decimal(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let precision = cursor.u8("JSON DECIMAL precision")?;
    let scale = cursor.u8("JSON DECIMAL scale")?;
    if precision > Decimal::PRECISION_MAX || scale > precision {
        return Err(cursor.invalid("JSON DECIMAL", u64::from(precision)));
    }
    let packed = Decimal {
        bytes: cursor.rest(),
        precision,
        scale,
    };
    packed.write(out).map_err(|error| error.shifted(2))
}

/// The packed form as a 64-bit number: parts, then 24 bits of microseconds.
fn packed(bytes: &[u8]) -> Result<(i64, Cursor<'_>), DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let value = cursor.i64_le("JSON date or time")?;
    cursor.finish("JSON date or time")?;
    Ok((value, cursor))
}

const MICROS_BITS: u32 = 24;
const MICROS_MASK: u64 = (1 << MICROS_BITS) - 1;

fn write_time(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (value, cursor) = packed(bytes)?;
    let magnitude = value.unsigned_abs();
    let time = Time::from_packed(
        &cursor,
        value < 0,
        magnitude >> MICROS_BITS,
        (magnitude & MICROS_MASK) as u32,
    )?;
    let Time {
        hours,
        minutes,
        seconds,
        micros,
        negative,
    } = time;
    let sign = if negative { "-" } else { "" };
    let _ = write!(
        Appender(out),
        "\"{sign}{hours:02}:{minutes:02}:{seconds:02}.{micros:06}\""
    );
    Ok(())
}

fn write_date_time(field_type: u8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (value, cursor) = packed(bytes)?;
    let Ok(magnitude) = u64::try_from(value) else {
        return Err(cursor.invalid("JSON date", value as u64));
    };
    let micros = (magnitude & MICROS_MASK) as u32;
    if micros >= 1_000_000 {
        return Err(DecodeError::new(
            "JSON date",
            0,
            DecodeErrorKind::Invalid {
                value: u64::from(micros),
            },
        ));
    }
    let DateTime {
        date: Date { year, month, day },
        hours,
        minutes,
        seconds,
        ..
    } = DateTime::from_packed(&cursor, magnitude >> MICROS_BITS, micros)?;
    let _ = write!(Appender(out), "\"{year:04}-{month:02}-{day:02}");
    if field_type != wire::DATE {
        let _ = write!(
            Appender(out),
            " {hours:02}:{minutes:02}:{seconds:02}.{micros:06}"
        );
    }
    out.push(b'"');
    Ok(())
}

/// Base64 as `base64_encode` of the server writes it, with a line break (escaped here, as in the server's text) after each 76
/// characters that more follow.
fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const GROUPS_PER_LINE: usize = 76 / 4;
    let letter = |index: u32| ALPHABET.get(index as usize & 63).copied().unwrap_or(b'=');
    for (nth, group) in bytes.chunks(3).enumerate() {
        if nth > 0 && nth % GROUPS_PER_LINE == 0 {
            out.extend_from_slice(b"\\n");
        }
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        out.push(letter(bits >> 18));
        out.push(letter(bits >> 12));
        out.push(if group.len() > 1 {
            letter(bits >> 6)
        } else {
            b'='
        });
        out.push(if group.len() > 2 { letter(bits) } else { b'=' });
    }
}
