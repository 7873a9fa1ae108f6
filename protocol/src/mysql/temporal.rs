//! DATE, TIME, DATETIME and TIMESTAMP, in the forms before and since MySQL 5.6.4.
//!
//! ```text
//! DATE           3 bytes LE: year 15 bits, month 4, day 5
//! TIME2          3 bytes BE, offset 0x800000: sign, 1 bit unused, hours 10, minutes 6, seconds 6; then the fraction
//! DATETIME2      5 bytes BE, offset 0x8000000000: sign, year * 13 + month 17, day 5, hours 5, minutes 6, seconds 6; fraction
//! TIMESTAMP2     4 bytes BE: seconds since 1970; fraction
//! fraction       0, 1, 2 or 3 bytes BE for 0, 1-2, 3-4, 5-6 digits, in units of 1, 10⁻², 10⁻⁴, 10⁻⁶ s
//! TIME           3 bytes LE, signed: decimal HHMMSS                       before 5.6.4, and MariaDB's without fraction
//! DATETIME       8 bytes LE: decimal YYYYMMDDHHMMSS
//! TIMESTAMP      4 bytes LE: seconds since 1970
//! Hires          big-endian, MariaDB 5.3 to 10.1 and `mysql56_temporal_format=OFF` with a fraction: see [`Time::read_old`]
//! ```
//! Source: `my_time_packed_from_binary` and its neighbours in `mysys/my_time.cc`; MariaDB's `sql/field.cc` (`Field_time_hires`).

use crate::{Cursor, DecodeError, DecodeErrorKind};

/// A DATE. Zero parts are possible (`0000-00-00`, `2025-00-00`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// 0 to 9999.
    pub year: u16,
    /// 0 to 12.
    pub month: u8,
    /// 0 to 31.
    pub day: u8,
}

/// A TIME: −838:59:59.999999 to 838:59:59.999999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Whether it is below zero.
    pub negative: bool,
    /// 0 to 838.
    pub hours: u16,
    /// 0 to 59.
    pub minutes: u8,
    /// 0 to 59.
    pub seconds: u8,
    /// 0 to 999,999.
    pub micros: u32,
}

/// A DATETIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Its date.
    pub date: Date,
    /// 0 to 23.
    pub hours: u8,
    /// 0 to 59.
    pub minutes: u8,
    /// 0 to 59.
    pub seconds: u8,
    /// 0 to 999,999.
    pub micros: u32,
}

/// A TIMESTAMP. 0 seconds and 0 micros is the zero value `0000-00-00 00:00:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Since 1970-01-01 00:00:00 UTC.
    pub seconds: u32,
    /// 0 to 999,999.
    pub micros: u32,
}

/// Bytes of a fraction of `fsp` digits in the new forms.
#[must_use]
#[inline]
pub const fn fraction_bytes(fsp: u8) -> usize {
    fsp.div_ceil(2) as usize
}

/// Bytes of an old TIME with `fsp` digits.
#[must_use]
#[inline]
pub const fn old_time_bytes(fsp: u8) -> usize {
    match fsp {
        0 => 3,
        1 | 2 => 4,
        3..=5 => 5,
        _ => 6,
    }
}

/// Bytes of an old DATETIME with `fsp` digits.
#[must_use]
#[inline]
pub const fn old_date_time_bytes(fsp: u8) -> usize {
    match fsp {
        0 => 8,
        1 | 2 => 6,
        3..=5 => 7,
        _ => 8,
    }
}

/// Bytes of an old TIMESTAMP with `fsp` digits.
#[must_use]
#[inline]
pub const fn old_timestamp_bytes(fsp: u8) -> usize {
    4 + match fsp {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 2,
        _ => 3,
    }
}

/// Microseconds per unit of a fraction written with exactly `fsp` digits.
const fn unit(fsp: u8) -> u32 {
    10_u32.pow(6_u32.saturating_sub(fsp as u32))
}

/// A fraction of the new forms: 1, 2 or 3 bytes holding an even number of digits.
#[inline]
fn fraction(cursor: &mut Cursor<'_>, fsp: u8, what: &'static str) -> Result<u32, DecodeError> {
    let width = fraction_bytes(fsp);
    if width == 0 {
        return Ok(0);
    }
    let value = cursor.uint_be(width, what)? as u32;
    micros(value.saturating_mul(unit(2 * width as u8)), cursor, what)
}

fn micros(value: u32, cursor: &Cursor<'_>, what: &'static str) -> Result<u32, DecodeError> {
    if value < 1_000_000 {
        Ok(value)
    } else {
        Err(cursor.invalid(what, u64::from(value)))
    }
}

impl Date {
    /// Reads the three bytes of a DATE.
    ///
    /// # Errors
    /// Truncated, or a month over 12.
    #[inline]
    pub fn read(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let bits = cursor.u24_le("DATE")?;
        let date = Self {
            year: (bits >> 9) as u16,
            month: (bits >> 5 & 0xf) as u8,
            day: (bits & 0x1f) as u8,
        };
        date.check(cursor, u64::from(bits))
    }

    #[inline]
    fn check(self, cursor: &Cursor<'_>, value: u64) -> Result<Self, DecodeError> {
        if self.month <= 12 && self.day <= 31 && self.year <= 9999 {
            Ok(self)
        } else {
            Err(cursor.invalid("DATE", value))
        }
    }
}

impl Time {
    /// Reads a TIME of the form since MySQL 5.6.4.
    ///
    /// # Errors
    /// Truncated, or parts out of range.
    pub fn read(cursor: &mut Cursor<'_>, fsp: u8) -> Result<Self, DecodeError> {
        let width = fraction_bytes(fsp);
        let raw = cursor.uint_be(3 + width, "TIME")?;
        // The whole is one number, so that a negative value's fraction counts up from the next lower second.
        let bits = 8 * (3 + width as u32);
        let signed = raw as i64 - (1 << (bits - 1));
        let magnitude = signed.unsigned_abs();
        let fraction_bits = 8 * width as u32;
        let fraction = (magnitude & ((1 << fraction_bits) - 1)) as u32;
        Self::from_packed(
            cursor,
            signed < 0,
            magnitude >> fraction_bits,
            fraction.saturating_mul(unit(2 * width as u8)),
        )
    }

    /// From the packed form: hours 10 bits, minutes 6, seconds 6.
    pub(super) fn from_packed(
        cursor: &Cursor<'_>,
        negative: bool,
        packed: u64,
        fraction: u32,
    ) -> Result<Self, DecodeError> {
        let time = Self {
            negative,
            hours: (packed >> 12).min(u64::from(u16::MAX)) as u16,
            minutes: (packed >> 6 & 0x3f) as u8,
            seconds: (packed & 0x3f) as u8,
            micros: micros(fraction, cursor, "TIME")?,
        };
        time.check(cursor, packed)
    }

    fn check(self, cursor: &Cursor<'_>, value: u64) -> Result<Self, DecodeError> {
        if self.hours <= 838 && self.minutes <= 59 && self.seconds <= 59 {
            Ok(self)
        } else {
            Err(cursor.invalid("TIME", value))
        }
    }

    /// Reads a TIME of the form before MySQL 5.6.4; with `fsp` digits, MariaDB's: units of 10^-fsp s, shifted by 838:59:60, big-endian.
    ///
    /// # Errors
    /// Truncated, or parts out of range.
    pub fn read_old(cursor: &mut Cursor<'_>, fsp: u8) -> Result<Self, DecodeError> {
        if fsp == 0 {
            let bits = cursor.u24_le("TIME")?;
            let value = (bits as i32) << 8 >> 8;
            let digits = value.unsigned_abs();
            let time = Self {
                negative: value < 0,
                hours: (digits / 10_000) as u16,
                minutes: (digits / 100 % 100) as u8,
                seconds: (digits % 100) as u8,
                micros: 0,
            };
            return time.check(cursor, u64::from(digits));
        }
        const SHIFT_S: i64 = 838 * 3600 + 59 * 60 + 59 + 1;
        let units_per_s = i64::from(1_000_000 / unit(fsp));
        let raw = cursor.uint_be(old_time_bytes(fsp), "TIME")?;
        let units = raw as i64 - SHIFT_S * units_per_s;
        let magnitude = units.unsigned_abs();
        let (seconds, part) = (
            magnitude / units_per_s as u64,
            magnitude % units_per_s as u64,
        );
        let time = Self {
            negative: units < 0,
            hours: (seconds / 3600).min(u64::from(u16::MAX)) as u16,
            minutes: (seconds / 60 % 60) as u8,
            seconds: (seconds % 60) as u8,
            micros: part as u32 * unit(fsp),
        };
        time.check(cursor, raw)
    }
}

impl DateTime {
    /// Reads a DATETIME of the form since MySQL 5.6.4.
    ///
    /// # Errors
    /// Truncated, or parts out of range.
    pub fn read(cursor: &mut Cursor<'_>, fsp: u8) -> Result<Self, DecodeError> {
        const SIGN: u64 = 0x80_0000_0000;
        let raw = cursor.uint_be(5, "DATETIME")?;
        if raw < SIGN {
            return Err(cursor.invalid("DATETIME", raw));
        }
        let fraction = fraction(cursor, fsp, "DATETIME fraction")?;
        Self::from_packed(cursor, raw - SIGN, fraction)
    }

    /// From the packed form: year * 13 + month 17 bits, day 5, hours 5, minutes 6, seconds 6.
    pub(super) fn from_packed(
        cursor: &Cursor<'_>,
        packed: u64,
        micros: u32,
    ) -> Result<Self, DecodeError> {
        let year_month = packed >> 22;
        let date = Date {
            year: (year_month / 13).min(u64::from(u16::MAX)) as u16,
            month: (year_month % 13) as u8,
            day: (packed >> 17 & 0x1f) as u8,
        };
        let value = Self {
            date: date.check(cursor, packed)?,
            hours: (packed >> 12 & 0x1f) as u8,
            minutes: (packed >> 6 & 0x3f) as u8,
            seconds: (packed & 0x3f) as u8,
            micros,
        };
        value.check(cursor, packed)
    }

    fn check(self, cursor: &Cursor<'_>, value: u64) -> Result<Self, DecodeError> {
        if self.hours <= 23 && self.minutes <= 59 && self.seconds <= 59 && self.micros < 1_000_000 {
            Ok(self)
        } else {
            Err(cursor.invalid("DATETIME", value))
        }
    }

    /// Reads a DATETIME of the form before MySQL 5.6.4; with `fsp` digits, MariaDB's: the parts as one mixed-radix number (13
    /// months, 32 days, 24 hours …) in units of 10^-fsp s, big-endian.
    ///
    /// # Errors
    /// Truncated, or parts out of range.
    pub fn read_old(cursor: &mut Cursor<'_>, fsp: u8) -> Result<Self, DecodeError> {
        let (raw, parts, micros) = if fsp == 0 {
            let raw = cursor.u64_le("DATETIME")?;
            let (date, time) = (raw / 1_000_000, raw % 1_000_000);
            let parts = [
                date / 10_000,
                date / 100 % 100,
                date % 100,
                time / 10_000,
                time / 100 % 100,
                time % 100,
            ];
            (raw, parts, 0)
        } else {
            let raw = cursor.uint_be(old_date_time_bytes(fsp), "DATETIME")?;
            let units_per_s = u64::from(1_000_000 / unit(fsp));
            let part = (raw % units_per_s) as u32 * unit(fsp);
            let mut rest = raw / units_per_s;
            let mut next = |radix: u64| {
                let digit = rest % radix;
                rest /= radix;
                digit
            };
            let (second, minute, hour) = (next(60), next(60), next(24));
            let (day, month) = (next(32), next(13));
            (raw, [rest, month, day, hour, minute, second], part)
        };
        let [year, month, day, hours, minutes, seconds] = parts;
        if year > 9999 || month > 12 || day > 31 || hours > 23 || minutes > 59 || seconds > 59 {
            return Err(cursor.invalid("DATETIME", raw));
        }
        Ok(Self {
            date: Date {
                year: year as u16,
                month: month as u8,
                day: day as u8,
            },
            hours: hours as u8,
            minutes: minutes as u8,
            seconds: seconds as u8,
            micros,
        })
    }
}

impl Timestamp {
    /// Reads a TIMESTAMP of the form since MySQL 5.6.4.
    ///
    /// # Errors
    /// Truncated, or a fraction of a second or more.
    #[inline]
    pub fn read(cursor: &mut Cursor<'_>, fsp: u8) -> Result<Self, DecodeError> {
        Ok(Self {
            seconds: cursor.u32_be("TIMESTAMP")?,
            micros: fraction(cursor, fsp, "TIMESTAMP fraction")?,
        })
    }

    /// Reads a TIMESTAMP of the form before MySQL 5.6.4; with `fsp` digits, MariaDB's: seconds, then the digits, big-endian.
    ///
    /// # Errors
    /// Truncated, or a fraction of a second or more.
    pub fn read_old(cursor: &mut Cursor<'_>, fsp: u8) -> Result<Self, DecodeError> {
        if fsp == 0 {
            return Ok(Self {
                seconds: cursor.u32_le("TIMESTAMP")?,
                micros: 0,
            });
        }
        let seconds = cursor.u32_be("TIMESTAMP")?;
        let width = old_timestamp_bytes(fsp) - 4;
        let digits = cursor.uint_be(width, "TIMESTAMP fraction")? as u32;
        let at = cursor.at() as u64;
        let micros = digits.saturating_mul(unit(fsp));
        if micros >= 1_000_000 {
            return Err(DecodeError::new(
                "TIMESTAMP fraction",
                at,
                DecodeErrorKind::Invalid {
                    value: u64::from(digits),
                },
            ));
        }
        Ok(Self { seconds, micros })
    }
}
