//! The median run over time, thinned for the report: enough points for a picture, and few enough for a file that people keep.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::replay::Outcome;

/// Points of each series at most.
const POINTS_MAX: usize = 300;

/// Series of one run; seconds count from the first stream byte, negative before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Seconds, and records in the broker by then.
    #[serde(default)]
    pub arrivals: Vec<(f64, u64)>,
    /// Seconds, the engine's processor time by then in seconds (anew from nought after each kill), its resident set in bytes.
    #[serde(default)]
    pub usage: Vec<(f64, f64, u64)>,
}

impl Timeline {
    /// Of the run `outcome`.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let arrivals: Vec<(f64, u64)> = (outcome.arrivals.iter())
            .map(|(at, records)| (since(outcome.start, *at), *records))
            .collect();
        let usage: Vec<(f64, f64, u64)> = (outcome.samples.iter())
            .map(|sample| {
                let at = since(outcome.start, sample.at);
                (at, sample.cpu_seconds, sample.rss_bytes)
            })
            .collect();
        Self {
            arrivals: thinned(&arrivals, |point| point.1),
            usage: thinned(&usage, |point| point.2),
        }
    }

    /// Records per second in windows of `window` seconds, at the middle of each; an end at `seconds`.
    #[must_use]
    pub fn rates(&self, window: f64, seconds: f64) -> Vec<(f64, f64)> {
        let (mut points, mut from) = (vec![(0.0, 0.0)], (0.0, 0u64));
        for (at, records) in &self.arrivals {
            if at - from.0 >= window {
                let rate = records.saturating_sub(from.1) as f64 / (at - from.0);
                points.push(((at + from.0) / 2.0, rate));
                from = (*at, *records);
            }
        }
        if let Some(last) = points.last().copied() {
            points.push((seconds.max(last.0), last.1));
        }
        points
    }

    /// Cores kept busy, in windows of `window` seconds.
    #[must_use]
    pub fn cores(&self, window: f64) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        let Some(mut from) = self.usage.first().copied() else {
            return points;
        };
        for sample in &self.usage {
            let length = sample.0 - from.0;
            if sample.1 < from.1 {
                // A new process begins at nought.
                from = *sample;
            } else if length >= window {
                points.push((from.0 + length / 2.0, (sample.1 - from.1) / length));
                from = *sample;
            }
        }
        points
    }
}

/// At most [`POINTS_MAX`] of `points`: the one with the largest `value` of each stretch, so that peaks stay, and the last.
fn thinned<T: Copy>(points: &[T], value: impl Fn(&T) -> u64) -> Vec<T> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS_MAX - 1);
    let mut kept: Vec<T> = points
        .chunks(stretch)
        .filter_map(|chunk| chunk.iter().max_by_key(|point| value(point)).copied())
        .collect();
    kept.extend(points.last().copied());
    kept
}

/// Seconds from `start` to `at`, to a tenth of a millisecond; negative before it.
fn since(start: Instant, at: Instant) -> f64 {
    let seconds = match at.checked_duration_since(start) {
        Some(length) => length.as_secs_f64(),
        None => -start.duration_since(at).as_secs_f64(),
    };
    (seconds * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_series_keeps_its_peak_and_its_end() {
        let points: Vec<(u32, u64)> = (0..10_000).map(|n| (n, u64::from(n == 5_001))).collect();
        let kept = thinned(&points, |point| point.1);
        assert!(kept.len() <= POINTS_MAX, "{}", kept.len());
        assert!(kept.contains(&(5_001, 1)));
        assert_eq!(kept.last(), points.last());
        assert_eq!(thinned(&points[..20], |point| point.1), points[..20]);
    }

    #[test]
    fn rates_and_cores_are_slopes() {
        let timeline = Timeline {
            arrivals: (1..=100)
                .map(|n| (f64::from(n) / 100.0, n as u64 * 50))
                .collect(),
            usage: vec![(0.0, 1.0, 1), (1.0, 1.5, 1), (1.1, 0.0, 1), (2.1, 2.0, 1)],
        };
        let rates = timeline.rates(0.095, 1.0);
        assert!(
            rates[1..]
                .iter()
                .all(|(_, rate)| (rate - 5000.0).abs() < 1.0),
            "{rates:?}"
        );
        assert_eq!(rates.last().map(|point| point.0), Some(1.0));
        // The second process starts anew.
        let cores: Vec<f64> = timeline.cores(0.5).iter().map(|point| point.1).collect();
        assert_eq!(cores.len(), 2);
        assert!(
            (cores[0] - 0.5).abs() < 1e-9 && (cores[1] - 2.0).abs() < 1e-9,
            "{cores:?}"
        );
    }
}
