//! Dates and times in the server's text form (`datestyle=ISO`, `TimeZone=UTC`).
//!
//! ```text
//! date         2025-02-17   12025-01-01   0044-03-15 BC   infinity   -infinity
//! time         15:19:39.123456   24:00:00
//! timetz       15:19:39.123456+02   10:00:00+05:30   10:00:00-07:52:58
//! timestamp    2025-02-17 15:19:39.12   0044-03-15 12:00:00 BC   infinity
//! timestamptz  2025-02-17 14:19:39.12+00   0044-03-15 12:00:00+00 BC   infinity
//! ```
//! Manual: section 8.5, "Date/Time Types" (<https://www.postgresql.org/docs/current/datatype-datetime.html>). The server cuts the
//! fraction's trailing zeros.

use crate::error::DecodeError;

use super::scan::Scan;

/// A value of a type that also has infinities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounded<T> {
    /// `-infinity`: before everything.
    NegativeInfinity,
    /// A value.
    Finite(T),
    /// `infinity`: after everything.
    Infinity,
}

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Astronomical: 0 is 1 BC, −43 is 44 BC. −4713 to 5874897.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// A time of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// 0 to 24; 24 only as 24:00:00.
    pub hours: u8,
    /// 0 to 59.
    pub minutes: u8,
    /// 0 to 59.
    pub seconds: u8,
    /// Millionths of a second.
    pub micros: u32,
}

/// A date and a time of that day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// The date.
    pub date: Date,
    /// The time; 24:00:00 does not occur.
    pub time: Time,
}

impl Timestamp {
    /// Microseconds since 1970-01-01 00:00, for times that are UTC.
    #[must_use]
    pub fn unix_us(self) -> i64 {
        let seconds = day_number(self.date) * DAY_S + seconds_of(self.time);
        seconds * 1_000_000 + i64::from(self.time.micros)
    }
}

const DAY_S: i64 = 86_400;

/// Reads a `date`.
///
/// # Errors
/// A text that the server does not write for one.
pub fn date(text: &[u8]) -> Result<Bounded<Date>, DecodeError> {
    let mut scan = Scan::new(text, "date");
    if let Some(infinite) = infinite(&mut scan)? {
        return Ok(infinite);
    }
    let mut date = calendar_day(&mut scan)?;
    era(&mut scan, &mut date);
    scan.finish()?;
    Ok(Bounded::Finite(date))
}

/// Reads a `time`.
///
/// # Errors
/// A text that the server does not write for one.
pub fn time(text: &[u8]) -> Result<Time, DecodeError> {
    let mut scan = Scan::new(text, "time");
    let time = clock(&mut scan)?;
    scan.finish()?;
    Ok(time)
}

/// Reads a `timetz` and turns it to UTC, modulo a day; 24:00:00 stays what it is where it is UTC already.
///
/// # Errors
/// A text that the server does not write for one.
pub fn time_tz(text: &[u8]) -> Result<Time, DecodeError> {
    let mut scan = Scan::new(text, "timetz");
    let time = clock(&mut scan)?;
    let offset_s = offset(&mut scan)?;
    scan.finish()?;
    Ok(match offset_s {
        0 => time,
        _ => clock_of((seconds_of(time) - offset_s).rem_euclid(DAY_S), time.micros),
    })
}

/// Reads a `timestamp`.
///
/// # Errors
/// A text that the server does not write for one.
pub fn timestamp(text: &[u8]) -> Result<Bounded<Timestamp>, DecodeError> {
    let mut scan = Scan::new(text, "timestamp");
    if let Some(infinite) = infinite(&mut scan)? {
        return Ok(infinite);
    }
    let mut at = date_and_time(&mut scan)?;
    era(&mut scan, &mut at.date);
    scan.finish()?;
    Ok(Bounded::Finite(at))
}

/// Reads a `timestamptz` and turns it to UTC, which it is already where the session's `TimeZone` is UTC.
///
/// # Errors
/// A text that the server does not write for one.
pub fn timestamp_tz(text: &[u8]) -> Result<Bounded<Timestamp>, DecodeError> {
    let mut scan = Scan::new(text, "timestamptz");
    if let Some(infinite) = infinite(&mut scan)? {
        return Ok(infinite);
    }
    let mut at = date_and_time(&mut scan)?;
    let offset_s = offset(&mut scan)?;
    era(&mut scan, &mut at.date);
    scan.finish()?;
    if offset_s != 0 {
        let seconds = day_number(at.date) * DAY_S + seconds_of(at.time) - offset_s;
        at.date = day_of_number(seconds.div_euclid(DAY_S));
        at.time = clock_of(seconds.rem_euclid(DAY_S), at.time.micros);
    }
    Ok(Bounded::Finite(at))
}

fn infinite<T>(scan: &mut Scan<'_>) -> Result<Option<Bounded<T>>, DecodeError> {
    let found = if scan.eat(b"infinity") {
        Bounded::Infinity
    } else if scan.eat(b"-infinity") {
        Bounded::NegativeInfinity
    } else {
        return Ok(None);
    };
    scan.finish()?;
    Ok(Some(found))
}

/// A number that must not exceed `max`.
fn limited(scan: &mut Scan<'_>, least: u64, max: u64) -> Result<u8, DecodeError> {
    let before = *scan;
    match scan.number(2, 2)? {
        number if (least..=max).contains(&number) => Ok(number as u8),
        _ => Err(before.error()),
    }
}

fn calendar_day(scan: &mut Scan<'_>) -> Result<Date, DecodeError> {
    let year = scan.number(4, 7)? as i32;
    scan.expect(b"-")?;
    let month = limited(scan, 1, 12)?;
    scan.expect(b"-")?;
    let day = limited(scan, 1, 31)?;
    Ok(Date { year, month, day })
}

/// ` BC` at the end.
fn era(scan: &mut Scan<'_>, date: &mut Date) {
    if scan.eat(b" BC") {
        date.year = 1 - date.year;
    }
}

fn clock(scan: &mut Scan<'_>) -> Result<Time, DecodeError> {
    let start = *scan;
    let hours = limited(scan, 0, 24)?;
    scan.expect(b":")?;
    let minutes = limited(scan, 0, 59)?;
    scan.expect(b":")?;
    let seconds = limited(scan, 0, 59)?;
    let micros = fraction(scan)?;
    let time = Time {
        hours,
        minutes,
        seconds,
        micros,
    };
    if hours == 24 && (minutes, seconds, micros) != (0, 0, 0) {
        return Err(start.error());
    }
    Ok(time)
}

/// A point and up to six digits, in millionths; 0 where there is no point.
pub(super) fn fraction(scan: &mut Scan<'_>) -> Result<u32, DecodeError> {
    if !scan.eat(b".") {
        return Ok(0);
    }
    let digits = scan.digits(6).len();
    let number = scan.number(1, 6)?;
    let missing = 6_usize.saturating_sub(digits) as u32;
    Ok((number * 10_u64.pow(missing)) as u32)
}

/// `+02`, `-07:52:58`, in seconds.
fn offset(scan: &mut Scan<'_>) -> Result<i64, DecodeError> {
    let negative = scan.eat(b"-");
    if !negative {
        scan.expect(b"+")?;
    }
    let mut seconds = i64::from(limited(scan, 0, 99)?) * 3600;
    if scan.eat(b":") {
        seconds += i64::from(limited(scan, 0, 59)?) * 60;
        if scan.eat(b":") {
            seconds += i64::from(limited(scan, 0, 59)?);
        }
    }
    Ok(if negative { -seconds } else { seconds })
}

fn date_and_time(scan: &mut Scan<'_>) -> Result<Timestamp, DecodeError> {
    let date = calendar_day(scan)?;
    // wal2json's JSON has a blank, too; ISO 8601's T stands in some servers' forks.
    if !scan.eat(b" ") {
        scan.expect(b"T")?;
    }
    let time = clock(scan)?;
    Ok(Timestamp { date, time })
}

fn seconds_of(time: Time) -> i64 {
    i64::from(time.hours) * 3600 + i64::from(time.minutes) * 60 + i64::from(time.seconds)
}

fn clock_of(seconds: i64, micros: u32) -> Time {
    Time {
        hours: (seconds / 3600) as u8,
        minutes: (seconds / 60 % 60) as u8,
        seconds: (seconds % 60) as u8,
        micros,
    }
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`).
fn day_number(date: Date) -> i64 {
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`day_number`] (`civil_from_days`).
fn day_of_number(number: i64) -> Date {
    let from_march_0000 = number + 719_468;
    let era = from_march_0000.div_euclid(146_097);
    let of_era = from_march_0000.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = (from_march + 2) % 12 + 1;
    Date {
        year: (year_of_era + era * 400 + i64::from(month <= 2)) as i32,
        month: month as u8,
        day: (of_year - (153 * from_march + 2) / 5 + 1) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(year: i32, month: u8, day: u8, clock: (u8, u8, u8, u32)) -> Bounded<Timestamp> {
        let (hours, minutes, seconds, micros) = clock;
        Bounded::Finite(Timestamp {
            date: Date { year, month, day },
            time: Time {
                hours,
                minutes,
                seconds,
                micros,
            },
        })
    }

    #[test]
    fn what_a_server_writes() {
        let noon = (12, 0, 0, 0);
        let cases = [
            (
                "2025-02-17 15:19:39.12",
                at(2025, 2, 17, (15, 19, 39, 120_000)),
            ),
            ("0044-03-15 12:00:00 BC", at(-43, 3, 15, noon)),
            ("0001-01-01 12:00:00 BC", at(0, 1, 1, noon)),
            (
                "294276-12-31 23:59:59.999999",
                at(294_276, 12, 31, (23, 59, 59, 999_999)),
            ),
            ("infinity", Bounded::Infinity),
            ("-infinity", Bounded::NegativeInfinity),
        ];
        for (text, expected) in cases {
            assert_eq!(timestamp(text.as_bytes()), Ok(expected), "{text}");
        }
        let cases = [
            ("0044-03-15 12:00:00+00 BC", at(-43, 3, 15, noon)),
            ("2024-03-01 00:30:00+01", at(2024, 2, 29, (23, 30, 0, 0))),
            (
                "2024-12-31 23:30:00.5-00:44:30",
                at(2025, 1, 1, (0, 14, 30, 500_000)),
            ),
            ("0001-01-01 00:00:00+01", at(0, 12, 31, (23, 0, 0, 0))),
        ];
        for (text, expected) in cases {
            assert_eq!(timestamp_tz(text.as_bytes()), Ok(expected), "{text}");
        }
        assert_eq!(date(b"infinity"), Ok(Bounded::Infinity));
        let last = Date {
            year: 5_874_897,
            month: 12,
            day: 31,
        };
        assert_eq!(date(b"5874897-12-31"), Ok(Bounded::Finite(last)));
    }

    #[test]
    fn times_with_a_zone_turn_to_utc() {
        for (text, expected) in [
            ("15:19:39.123456+02", (13, 19, 39, 123_456)),
            ("01:00:00+05:30", (19, 30, 0, 0)),
            ("22:00:00-07:52:58", (5, 52, 58, 0)),
            ("24:00:00+00", (24, 0, 0, 0)),
            ("24:00:00+02", (22, 0, 0, 0)),
            ("24:00:00-02", (2, 0, 0, 0)),
        ] {
            let time = time_tz(text.as_bytes()).unwrap();
            let found = (time.hours, time.minutes, time.seconds, time.micros);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for text in [
            "",
            "2025",
            "2025-13-01",
            "2025-00-01",
            "2025-01-32",
            "25-01-01",
            "2025-01-01 AD",
            "2025-01-01x",
            "infinityx",
            "17/02/2025",
        ] {
            assert!(date(text.as_bytes()).is_err(), "{text}");
        }
        for text in [
            "",
            "24:00:01",
            "25:00:00",
            "12:60:00",
            "12:00:60",
            "12:00:00.",
            "12:00:00.1234567",
            "1:00:00",
        ] {
            assert!(time(text.as_bytes()).is_err(), "{text}");
        }
        assert!(time_tz(b"12:00:00").is_err());
        assert!(timestamp(b"2025-01-01").is_err());
        assert!(timestamp_tz(b"2025-01-01 00:00:00").is_err());
        assert!(timestamp_tz(b"18/02/2025 00:00:00 JST").is_err());
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(text in "[0-9:. +BC-]{0,32}|\\PC{0,20}") {
            let text = text.as_bytes();
            let _ = (date(text), time(text), time_tz(text), timestamp(text), timestamp_tz(text));
        }

        #[test]
        fn days_are_numbered_both_ways(number in -2_500_000_i64..2_145_000_000) {
            let day = day_of_number(number);
            prop_assert_eq!(day_number(day), number);
            let next = day_of_number(number + 1);
            prop_assert!((day.year, day.month, day.day) < (next.year, next.month, next.day));
        }
    }
}
