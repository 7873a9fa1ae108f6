//! What a link does to the packets that pass it in one direction, written in the words of `tc netem`:
//!
//! ```text
//! delay 10ms 2ms rate 1000mbit loss 1% reorder 5% duplicate 0.1% corrupt 0.01% queue 256kib segment 1
//! ```
//! Source of the words: tc-netem(8). `queue` and `segment` are ours: bytes that may wait for the link, and the most bytes of a TCP
//! segment's payload.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{DELAY_MAX, MTU, QUEUE_MAX, QUEUE_MIN, RATE_MAX, RATE_MIN};

/// One direction of a link. The default passes everything at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkProfile {
    /// One-way propagation delay.
    pub delay: Duration,
    /// Evenly spread around the delay; never changes the order of packets.
    pub jitter: Duration,
    /// Bits per second, counted over IP packets with their headers.
    pub rate_bits: Option<u64>,
    /// Part of the packets that are lost, 0 to 1.
    pub loss: f64,
    /// Part of the packets that overtake the others by not being delayed, 0 to 1.
    pub reorder: f64,
    /// Part of the packets that come twice, 0 to 1.
    pub duplicate: f64,
    /// Part of the packets in which one bit is flipped, 0 to 1.
    pub corrupt: f64,
    /// Bytes that may wait for the link; what comes then is dropped. Without it what the link carries in twice its delay, at least
    /// 256 KiB.
    pub queue_bytes: Option<usize>,
    /// TCP segments are cut to so many bytes of payload.
    pub segment_bytes: Option<usize>,
}

/// A profile that makes no sense, or a text that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct InvalidProfile {
    /// The part of the profile.
    pub what: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

fn invalid(what: &str, reason: impl Into<String>) -> InvalidProfile {
    InvalidProfile {
        what: what.to_owned(),
        reason: reason.into(),
    }
}

impl LinkProfile {
    /// Whether packets pass untouched and at once.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self
            == Self {
                queue_bytes: self.queue_bytes,
                ..Self::default()
            }
    }

    /// Whether single packets must be treated, so that a byte stream is not enough.
    #[must_use]
    pub fn needs_packets(&self) -> bool {
        self.loss > 0.0 || self.reorder > 0.0 || self.duplicate > 0.0 || self.corrupt > 0.0
    }

    /// Bytes that may wait for the link.
    #[must_use]
    pub fn queue(&self) -> usize {
        let carried = |rate: u64| (rate as f64 / 8.0 * 2.0 * self.delay.as_secs_f64()) as usize;
        self.queue_bytes.unwrap_or_else(|| {
            self.rate_bits
                .map_or(0, carried)
                .clamp(QUEUE_MIN, QUEUE_MAX)
        })
    }

    /// How long `bytes` take to be put on the link.
    #[must_use]
    pub fn serialisation(&self, bytes: usize) -> Duration {
        self.rate_bits.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos((bytes as u128 * 8_000_000_000 / u128::from(rate.max(1))) as u64)
        })
    }

    /// Looks for what cannot be.
    ///
    /// # Errors
    /// The first part that is out of its range.
    pub fn check(&self) -> Result<(), InvalidProfile> {
        if self.delay > DELAY_MAX {
            return Err(invalid("delay", format!("at most {DELAY_MAX:?}")));
        }
        if self.jitter > self.delay {
            return Err(invalid("jitter", "at most the delay"));
        }
        if let Some(rate) = self.rate_bits
            && !(RATE_MIN..=RATE_MAX).contains(&rate)
        {
            return Err(invalid("rate", "1kbit to 1000gbit"));
        }
        for (what, part) in [
            ("loss", self.loss),
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
        ] {
            if !(0.0..=1.0).contains(&part) {
                return Err(invalid(what, "0% to 100%"));
            }
        }
        if self.reorder > 0.0 && self.delay.is_zero() {
            return Err(invalid("reorder", "not possible without a delay"));
        }
        if let Some(queue) = self.queue_bytes
            && !(MTU..=QUEUE_MAX).contains(&queue)
        {
            return Err(invalid("queue", "1500 bytes to 1 GiB"));
        }
        if self.segment_bytes == Some(0) {
            return Err(invalid("segment", "at least 1 byte"));
        }
        Ok(())
    }
}

impl fmt::Display for LinkProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        let milliseconds = |time: Duration| format!("{}ms", time.as_secs_f64() * 1e3);
        if !self.delay.is_zero() {
            words.push(format!("delay {}", milliseconds(self.delay)));
            if !self.jitter.is_zero() {
                words.push(milliseconds(self.jitter));
            }
        }
        if let Some(rate) = self.rate_bits {
            words.push(format!("rate {}mbit", rate as f64 / 1e6));
        }
        for (word, part) in [
            ("loss", self.loss),
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
        ] {
            if part > 0.0 {
                // Binary fractions of decimal percents have long tails.
                words.push(format!("{word} {}%", (part * 1e8).round() / 1e6));
            }
        }
        if let Some(queue) = self.queue_bytes {
            words.push(format!("queue {queue}"));
        }
        if let Some(segment) = self.segment_bytes {
            words.push(format!("segment {segment}"));
        }
        match words.is_empty() {
            true => f.write_str("unshaped"),
            false => f.write_str(&words.join(" ")),
        }
    }
}

/// Number and unit; without a unit `bare` counts.
fn measured(what: &str, text: &str, units: &[(&str, f64)]) -> Result<f64, InvalidProfile> {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let wrong = || {
        invalid(
            what,
            format!(
                "{text:?}: expected a number with one of {}",
                names.join(", ")
            ),
        )
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    Ok(number * factor)
}

fn time(what: &str, text: &str) -> Result<Duration, InvalidProfile> {
    let seconds = measured(what, text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])?;
    Duration::try_from_secs_f64(seconds).map_err(|error| invalid(what, error.to_string()))
}

impl FromStr for LinkProfile {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        let mut profile = Self::default();
        let mut words = text.split_whitespace().peekable();
        if text.trim() == "unshaped" {
            return Ok(profile);
        }
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| invalid(word, "a value is missing behind it"))
            };
            let percent = |text: &str| measured(word, text, &[("%", 0.01)]);
            let size = |text: &str| {
                let units = [("", 1.0), ("b", 1.0), ("kib", 1024.0), ("mib", 1_048_576.0)];
                Ok::<usize, InvalidProfile>(measured(word, text, &units)? as usize)
            };
            match word {
                "delay" => {
                    profile.delay = time(word, value()?)?;
                    if let Some(jitter) = words.next_if(|next| next.starts_with(char::is_numeric)) {
                        profile.jitter = time("jitter", jitter)?;
                    }
                }
                "rate" => {
                    let units = [("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
                    profile.rate_bits = Some(measured(word, value()?, &units)? as u64);
                }
                "loss" => profile.loss = percent(value()?)?,
                "reorder" => profile.reorder = percent(value()?)?,
                "duplicate" => profile.duplicate = percent(value()?)?,
                "corrupt" => profile.corrupt = percent(value()?)?,
                "queue" => profile.queue_bytes = Some(size(value()?)?),
                "segment" => profile.segment_bytes = Some(size(value()?)?),
                _ => {
                    return Err(invalid(
                        word,
                        "expected delay, rate, loss, reorder, duplicate, corrupt, queue or segment",
                    ));
                }
            }
        }
        profile.check()?;
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_profiles_and_back() {
        for text in [
            "unshaped",
            "delay 10ms rate 1000mbit",
            "delay 200ms 5ms rate 20mbit loss 1%",
            "delay 1ms reorder 25% duplicate 0.1% corrupt 0.01% queue 262144 segment 1",
        ] {
            let profile: LinkProfile = text.parse().unwrap();
            assert_eq!(profile.to_string(), text);
        }
        let profile: LinkProfile = "delay 1s 300us rate 1gbit queue 2mib".parse().unwrap();
        assert_eq!(profile.jitter, Duration::from_micros(300));
        assert_eq!(profile.rate_bits, Some(1_000_000_000));
        assert_eq!(profile.queue_bytes, Some(2 << 20));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, named) in [
            ("delay", "delay"),
            ("delay 10", "delay"),
            ("delay 5ms 6ms", "jitter"),
            ("rate 1", "rate"),
            ("rate 1bit", "rate"),
            ("loss 101%", "loss"),
            ("loss 1", "loss"),
            ("reorder 1%", "reorder"),
            ("queue 1", "queue"),
            ("segment 0", "segment"),
            ("gap 3", "gap"),
        ] {
            let error = text.parse::<LinkProfile>().unwrap_err();
            assert_eq!(error.what, named, "{text}: {error}");
        }
    }

    #[test]
    fn a_queue_holds_a_round_trip() {
        let profile: LinkProfile = "delay 200ms rate 20mbit".parse().unwrap();
        assert_eq!(profile.queue(), 1_000_000);
        let profile: LinkProfile = "rate 20mbit".parse().unwrap();
        assert_eq!(profile.queue(), QUEUE_MIN);
        assert_eq!(profile.serialisation(2500), Duration::from_millis(1));
    }
}
