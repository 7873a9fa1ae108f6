//! Dates and times as text: Debezium's `isostring` forms (`IsoDate`, `IsoTime`, `IsoTimestamp`, `ZonedTimestamp`).
//!
//! ```text
//! DATE       2025-02-17Z                      TIME       15:19:39.123456Z  -100:00:01Z   zeros of the fraction cut
//! TIMESTAMP  2025-02-17T15:19:39.000100Z      DATETIME   2025-02-17T15:19:39.12Z         zeros of the fraction cut
//!            exactly the column's digits
//! ```

use protocol::mysql::temporal::{Date, DateTime, Time, Timestamp};

use crate::encode::number::write_uint;

/// `00` to `99`.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

#[inline]
fn pair(n: u32) -> [u8; 2] {
    PAIRS[(n % 100) as usize]
}

/// Whether a date is none: MySQL's `0000-00-00`, and those with month or day 0, which no calendar has.
#[must_use]
pub(super) const fn is_zero(date: Date) -> bool {
    date.month == 0 || date.day == 0
}

/// `2025-02-17`.
fn date_text(year: u32, month: u32, day: u32) -> [u8; 10] {
    let [a, b] = pair(year / 100);
    let [c, d] = pair(year);
    let [e, f] = pair(month);
    let [g, h] = pair(day);
    [a, b, c, d, b'-', e, f, b'-', g, h]
}

/// `15:19:39`.
#[inline]
fn clock_text(hours: u32, minutes: u32, seconds: u32) -> [u8; 8] {
    let [a, b] = pair(hours);
    let [c, d] = pair(minutes);
    let [e, f] = pair(seconds);
    [a, b, b':', c, d, b':', e, f]
}

/// A point and `digits` digits of a fraction given in millionths; nothing for 0 digits.
fn write_fraction(out: &mut Vec<u8>, micros: u32, digits: usize) {
    if digits > 0 {
        let [a, b] = pair(micros / 10_000);
        let [c, d] = pair(micros / 100);
        let [e, f] = pair(micros);
        let text = [b'.', a, b, c, d, e, f];
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

/// Appends a DATE with its quotes. Zero dates come here in keys alone; elsewhere the caller has turned them into null.
pub(super) fn write_date(out: &mut Vec<u8>, date: Date) {
    out.push(b'"');
    out.extend_from_slice(&date_text(
        date.year.into(),
        date.month.into(),
        date.day.into(),
    ));
    out.extend_from_slice(b"Z\"");
}

/// Appends a TIME with its quotes, sign and hours over 24 kept.
pub(super) fn write_time(out: &mut Vec<u8>, time: Time) {
    out.push(b'"');
    if time.negative {
        out.push(b'-');
    }
    let clock = clock_text(time.hours.into(), time.minutes.into(), time.seconds.into());
    if time.hours > 99 {
        write_uint(out, time.hours.into());
        out.extend_from_slice(&clock[2..]);
    } else {
        out.extend_from_slice(&clock);
    }
    write_fraction(out, time.micros, digits_needed(time.micros));
    out.extend_from_slice(b"Z\"");
}

/// Appends a DATETIME with its quotes. Zero dates: as [`write_date`].
pub(super) fn write_datetime(out: &mut Vec<u8>, at: DateTime) {
    out.push(b'"');
    out.extend_from_slice(&date_text(
        at.date.year.into(),
        at.date.month.into(),
        at.date.day.into(),
    ));
    out.push(b'T');
    out.extend_from_slice(&clock_text(
        at.hours.into(),
        at.minutes.into(),
        at.seconds.into(),
    ));
    write_fraction(out, at.micros, digits_needed(at.micros));
    out.extend_from_slice(b"Z\"");
}

/// Writes TIMESTAMPs, remembering the day of the last one: neighbouring rows mostly share it.
#[derive(Debug)]
pub(super) struct TimestampWriter {
    day: u32,
    /// `"2025-02-17T`
    text: [u8; 12],
}

impl Default for TimestampWriter {
    fn default() -> Self {
        Self {
            day: 0,
            text: *b"\"1970-01-01T",
        }
    }
}

impl TimestampWriter {
    /// Appends a TIMESTAMP of `fsp` fractional digits with its quotes. The caller has turned the zero value into null.
    #[inline]
    pub(super) fn write(&mut self, out: &mut Vec<u8>, at: Timestamp, fsp: u8) {
        let (day, second) = (at.seconds / 86_400, at.seconds % 86_400);
        if day != self.day {
            self.turn(day);
        }
        let clock = clock_text(second / 3600, second / 60 % 60, second % 60);
        let mut text = [0; 22];
        text[..12].copy_from_slice(&self.text);
        text[12..20].copy_from_slice(&clock);
        if fsp == 0 {
            text[20..].copy_from_slice(b"Z\"");
            out.extend_from_slice(&text);
        } else {
            out.extend_from_slice(&text[..20]);
            write_fraction(out, at.micros, fsp.into());
            out.extend_from_slice(b"Z\"");
        }
    }

    #[cold]
    fn turn(&mut self, day: u32) {
        let (year, month, day_of_month) = civil(day);
        self.day = day;
        self.text[1..11].copy_from_slice(&date_text(year, month, day_of_month));
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`, for days that are not negative).
const fn civil(day: u32) -> (u32, u32, u32) {
    let from_march_0000 = day + 719_468;
    let era = from_march_0000 / 146_097;
    let of_era = from_march_0000 % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn time(negative: bool, hours: u16, minutes: u8, seconds: u8, micros: u32) -> String {
        text(|out| {
            write_time(
                out,
                Time {
                    negative,
                    hours,
                    minutes,
                    seconds,
                    micros,
                },
            );
        })
    }

    #[test]
    fn times_keep_sign_and_hours() {
        assert_eq!(time(false, 15, 19, 39, 123_456), "\"15:19:39.123456Z\"");
        assert_eq!(time(true, 100, 0, 1, 0), "\"-100:00:01Z\"");
        assert_eq!(time(true, 838, 59, 59, 999_999), "\"-838:59:59.999999Z\"");
        assert_eq!(time(false, 24, 0, 0, 0), "\"24:00:00Z\"");
        assert_eq!(time(true, 0, 0, 0, 500_000), "\"-00:00:00.5Z\"");
        assert_eq!(time(false, 0, 0, 0, 1), "\"00:00:00.000001Z\"");
    }

    #[test]
    fn dates_have_four_digits() {
        let date = |year, month, day| text(|out| write_date(out, Date { year, month, day }));
        assert_eq!(date(2025, 2, 17), "\"2025-02-17Z\"");
        assert_eq!(date(44, 3, 15), "\"0044-03-15Z\"");
        assert_eq!(date(9999, 12, 31), "\"9999-12-31Z\"");
        assert!(is_zero(Date {
            year: 2025,
            month: 0,
            day: 1
        }));
    }

    #[test]
    fn datetimes_cut_zeros_and_timestamps_do_not() {
        let at = |micros| DateTime {
            date: Date {
                year: 2025,
                month: 2,
                day: 17,
            },
            hours: 15,
            minutes: 19,
            seconds: 0,
            micros,
        };
        assert_eq!(
            text(|out| write_datetime(out, at(0))),
            "\"2025-02-17T15:19:00Z\""
        );
        assert_eq!(
            text(|out| write_datetime(out, at(120_000))),
            "\"2025-02-17T15:19:00.12Z\""
        );

        let mut writer = TimestampWriter::default();
        let mut timestamp = |seconds, micros, fsp| {
            text(|out| writer.write(out, Timestamp { seconds, micros }, fsp))
        };
        assert_eq!(timestamp(1_739_805_579, 0, 0), "\"2025-02-17T15:19:39Z\"");
        assert_eq!(
            timestamp(1_739_805_579, 100, 6),
            "\"2025-02-17T15:19:39.000100Z\""
        );
        assert_eq!(
            timestamp(1_739_805_579, 120_000, 3),
            "\"2025-02-17T15:19:39.120Z\""
        );
        assert_eq!(timestamp(1, 0, 0), "\"1970-01-01T00:00:01Z\"");
        assert_eq!(timestamp(u32::MAX, 0, 0), "\"2106-02-07T06:28:15Z\"");
        assert_eq!(timestamp(951_782_400, 0, 1), "\"2000-02-29T00:00:00.0Z\"");
    }

    #[test]
    fn the_calendar_agrees_with_counting() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for n in 0..=49_710 {
            assert_eq!(civil(n), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
