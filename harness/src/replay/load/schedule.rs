//! When commits are due: fixed beforehand, and the same for every run of a scenario.

use std::time::Duration;

use super::{Gaps, Load};
use crate::workload::SplitMix64;

/// The commits that are due within `seconds`, since the beginning; `None` where the server's own pace decides.
pub(super) fn due(load: &Load, seconds: Duration) -> Option<Vec<Duration>> {
    let mean = 1.0 / load.commits_per_second?;
    let end = seconds.as_secs_f64();
    let mut random = SplitMix64(load.seed);
    let mut due = Vec::new();
    let mut at = 0.0;
    loop {
        // 53 bits make an f64 between 0 and 1.
        let uniform = (random.draw() >> 11) as f64 / (1u64 << 53) as f64;
        at += match load.gaps {
            Gaps::Even => mean,
            Gaps::Uneven => mean * (0.5 + uniform),
            Gaps::Poisson => -mean * (1.0 - uniform).ln(),
        };
        if at >= end {
            return Some(due);
        }
        due.push(Duration::from_secs_f64(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(gaps: &str) -> Load {
        let text = format!("commits_per_second = 1000.0\nseconds = 10.0\ngaps = {gaps:?}");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn the_offered_rate_is_kept_whatever_the_gaps() {
        for gaps in ["even", "uneven", "poisson"] {
            let due = due(&load(gaps), Duration::from_secs(10)).unwrap();
            assert!(
                (9_700..=10_300).contains(&due.len()),
                "{gaps}: {}",
                due.len()
            );
            assert!(due.is_sorted());
        }
    }

    #[test]
    fn uneven_gaps_differ_and_leave_time_between_commits() {
        let due = due(&load("uneven"), Duration::from_secs(1)).unwrap();
        let gaps: Vec<u128> = (due.windows(2))
            .map(|pair| (pair[1] - pair[0]).as_micros())
            .collect();
        assert!(
            gaps.iter().all(|gap| (499..=1501).contains(gap)),
            "{gaps:?}"
        );
        let (least, most) = (gaps.iter().min(), gaps.iter().max());
        assert!(
            least < Some(&600) && most > Some(&1400),
            "{least:?} {most:?}"
        );
    }

    #[test]
    fn without_a_rate_nothing_is_due() {
        let load: Load = toml::from_str("seconds = 1.0").unwrap();
        assert_eq!(due(&load, Duration::from_secs(1)), None);
    }
}
