//! Intervals in the server's text form (`intervalstyle=postgres`).
//!
//! ```text
//! 1 year 2 mons 3 days 04:05:06.7     -1 years -2 mons +3 days -04:05:06     00:00:00     infinity (from 17)
//! ```
//! Manual: section 8.5.5, "Interval Output" (<https://www.postgresql.org/docs/current/datatype-datetime.html>).

use crate::error::DecodeError;

use super::scan::Scan;
use super::temporal::{Bounded, fraction};

/// An interval, its parts as the server writes them: each with a sign of its own, those of the time with one in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interval {
    /// Years.
    pub years: i64,
    /// Months, −11 to 11, with the sign of the years.
    pub months: i64,
    /// Days.
    pub days: i64,
    /// Whether hours to microseconds count backwards.
    pub negative_time: bool,
    /// Hours, as many as there are.
    pub hours: u64,
    /// 0 to 59.
    pub minutes: u8,
    /// 0 to 59.
    pub seconds: u8,
    /// Millionths of a second.
    pub micros: u32,
}

/// Reads an `interval`.
///
/// # Errors
/// A text that the server does not write for one.
pub fn interval(text: &[u8]) -> Result<Bounded<Interval>, DecodeError> {
    let mut scan = Scan::new(text, "interval");
    for (word, infinite) in [
        (&b"infinity"[..], Bounded::Infinity),
        (b"-infinity", Bounded::NegativeInfinity),
    ] {
        if scan.eat(word) {
            scan.finish()?;
            return Ok(infinite);
        }
    }
    let mut interval = Interval::default();
    // Units come in falling order, each at most once; whichever is missing is zero.
    let mut units: &[&[u8]] = &[b" year", b" mon", b" day"];
    loop {
        let start = scan;
        let negative = scan.eat(b"-");
        if !negative {
            scan.eat(b"+");
        }
        // `+3 days` has a sign, and so has `-04:05:06`.
        let number = scan.number(1, 18)?;
        if scan.peek() == Some(b':') {
            interval.negative_time = negative;
            interval.hours = number;
            time(&mut scan, &mut interval)?;
            scan.finish()?;
            return Ok(Bounded::Finite(interval));
        }
        let found = units.iter().position(|unit| scan.eat(unit));
        let Some((index, rest)) =
            found.and_then(|n| Some((3 - units.len() + n, units.get(n + 1..)?)))
        else {
            return Err(start.error());
        };
        units = rest;
        scan.eat(b"s");
        let number = number as i64;
        let number = if negative { -number } else { number };
        match index {
            0 => interval.years = number,
            1 => interval.months = number,
            _ => interval.days = number,
        }
        if scan.is_done() {
            return Ok(Bounded::Finite(interval));
        }
        scan.expect(b" ")?;
    }
}

/// `:05:06.7`, behind the hours.
fn time(scan: &mut Scan<'_>, interval: &mut Interval) -> Result<(), DecodeError> {
    for part in [&mut interval.minutes, &mut interval.seconds] {
        scan.expect(b":")?;
        let start = *scan;
        *part = match scan.number(2, 2)? {
            number if number < 60 => number as u8,
            _ => return Err(start.error()),
        };
    }
    interval.micros = fraction(scan)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finite(text: &str) -> Interval {
        match interval(text.as_bytes()) {
            Ok(Bounded::Finite(interval)) => interval,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_a_server_writes() {
        let mut expected = Interval {
            years: 1,
            months: 2,
            days: 3,
            negative_time: false,
            hours: 4,
            minutes: 5,
            seconds: 6,
            micros: 700_000,
        };
        assert_eq!(finite("1 year 2 mons 3 days 04:05:06.7"), expected);
        expected = Interval {
            years: -1,
            months: -2,
            negative_time: true,
            micros: 0,
            ..expected
        };
        assert_eq!(finite("-1 years -2 mons +3 days -04:05:06"), expected);
        assert_eq!(finite("00:00:00"), Interval::default());
        assert_eq!(finite("1 mon").months, 1);
        assert_eq!(finite("-178000000 years").years, -178_000_000);
        assert_eq!(finite("2562047788:00:54.775807").hours, 2_562_047_788);
        assert_eq!(finite("1 day -00:00:01.000001").micros, 1);
        assert!(finite("-00:00:00.5").negative_time);
        assert_eq!(interval(b"-infinity"), Ok(Bounded::NegativeInfinity));
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for text in [
            "",
            "1",
            "1 ",
            "1 day ",
            "1 day 1 year",
            "1 year 1 year",
            "1 fortnight",
            "04:05",
            "04:60:00",
            "P1Y",
            "@ 1 year",
            "infinity 1",
            "1 year 04:05:06 1 day",
        ] {
            assert!(interval(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(text in "[0-9: +ydmonears.-]{0,40}") {
            let _ = interval(text.as_bytes());
        }
    }
}
