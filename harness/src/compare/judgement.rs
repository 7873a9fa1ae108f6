//! What a difference means: better, worse, neither, or not to be told with so few runs.

use super::statistics::{self, Difference, Mean};
use crate::report::number::{change, percent};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Throughput.
    Higher,
    /// Time, memory, bytes.
    Lower,
}

/// How to judge.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A difference of at most this, as a ratio above 1, does not matter.
    pub tolerance: f64,
    /// Probability of an interval that misses, for all figures of one kind together.
    pub alpha: f64,
}

/// What is said of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Worse, beyond noise and tolerance.
    Regression,
    /// Better, beyond noise and tolerance.
    Improvement,
    /// Beyond the noise, but no more than the tolerance.
    Tolerated,
    /// No difference, and one beyond the tolerance would have shown.
    Equal,
    /// Too few runs, or too much noise.
    CannotTell {
        /// Runs a side that would show a difference of the tolerance; `None` where nothing is known about the noise, or no sensible number does.
        runs: Option<usize>,
    },
    /// Machine, scenario or amount of work differ.
    NotComparable,
}

/// A figure of both sides.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What it is.
    pub name: String,
    /// Median before, as text with unit.
    pub before: String,
    /// Median after, likewise.
    pub after: String,
    /// How they differ; `None` where a side holds something that is no positive number.
    pub difference: Option<Difference>,
    /// Median after by median before, where nothing better is known.
    pub ratio: f64,
    /// Which way is better.
    pub better: Better,
    /// What it means.
    pub verdict: Verdict,
    /// Whether a side has a single run, so that its noise is assumed.
    pub is_noise_assumed: bool,
    /// Whether it is of a peer, in which nothing is ours: what it does is a measure of everything else that differs.
    pub is_peer: bool,
}

impl Verdict {
    /// Judges `difference`; `alpha` is that of the one figure.
    #[must_use]
    pub fn of(difference: Option<&Difference>, better: Better, tolerance: f64, alpha: f64) -> Self {
        let Some(difference) = difference else {
            return Self::CannotTell { runs: None };
        };
        let size = difference.ratio.max(1.0 / difference.ratio);
        let is_worse = (difference.ratio < 1.0) == (better == Better::Higher);
        match (difference.is_beyond_noise(), size > tolerance) {
            (true, true) if is_worse => Self::Regression,
            (true, true) => Self::Improvement,
            (true, false) => Self::Tolerated,
            (false, _) if difference.detectable <= tolerance => Self::Equal,
            (false, _) => Self::CannotTell {
                runs: statistics::runs_needed(difference.noise, tolerance, alpha),
            },
        }
    }

    /// In the table.
    #[must_use]
    pub fn text(&self, tolerance: f64) -> String {
        match self {
            Self::Regression => "REGRESSION".into(),
            Self::Improvement => "better".into(),
            Self::Tolerated => "within the tolerance".into(),
            Self::Equal => format!("no difference of {} or more", percent(tolerance)),
            Self::CannotTell { runs: Some(runs) } => {
                format!(
                    "cannot tell; {runs} runs a side would show {}",
                    percent(tolerance)
                )
            }
            Self::CannotTell { runs: None } => "cannot tell; more runs a side are needed".into(),
            Self::NotComparable => "not comparable".into(),
        }
    }
}

impl Judged {
    /// Of a figure in `runs` of both sides, shown by `show`.
    pub fn of_runs(
        name: &str,
        runs: (&[f64], &[f64]),
        better: Better,
        show: impl Fn(f64) -> String,
        (tolerance, alpha): (f64, f64),
    ) -> Self {
        let (before, after) = (median(runs.0), median(runs.1));
        let is_noise_assumed = runs.0.len() == 1 || runs.1.len() == 1;
        let mean = |runs: &[f64]| match runs {
            [one] => Mean::of_single_run(*one),
            _ => Mean::of_runs(runs),
        };
        let difference = (mean(runs.0).zip(mean(runs.1)))
            .map(|(before, after)| statistics::difference(&before, &after, alpha));
        let verdict = match Verdict::of(difference.as_ref(), better, tolerance, alpha) {
            // From assumed noise no number of runs follows.
            Verdict::CannotTell { .. } if is_noise_assumed => Verdict::CannotTell { runs: None },
            verdict => verdict,
        };
        Self {
            name: name.to_owned(),
            before: show(before),
            after: show(after),
            difference,
            ratio: after / before,
            better,
            verdict,
            is_noise_assumed,
            is_peer: false,
        }
    }

    /// The verdict in the table.
    #[must_use]
    pub fn said(&self, tolerance: f64) -> String {
        let text = self.verdict.text(tolerance);
        match self.verdict {
            Verdict::Regression if self.is_peer => "slower, but a peer".into(),
            Verdict::Improvement if self.is_peer => "faster, but a peer".into(),
            Verdict::CannotTell { .. } | Verdict::NotComparable => text,
            _ if self.is_noise_assumed => format!("{text}, the noise being assumed"),
            _ => text,
        }
    }

    /// The change, and where it may lie: `−4.2 %`, `−6.0 % … −2.3 %`.
    #[must_use]
    pub fn moved(&self) -> (String, String) {
        match &self.difference {
            Some(of) => (
                change(of.ratio),
                format!("{} … {}", change(of.low), change(of.high)),
            ),
            None => (change(self.ratio), "unknown".into()),
        }
    }

    /// The change, in words: `−4.2 % (−6.0 % … −2.3 %)`.
    #[must_use]
    pub fn change(&self) -> String {
        let (moved, interval) = self.moved();
        match &self.difference {
            Some(_) => format!("{moved} ({interval})"),
            None => moved,
        }
    }
}

/// The middle value; of an even number of them the mean of the two in the middle; of none NaN.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => f64::NAN,
        (1, Some(value)) => *value,
        (_, Some(value)) => (value + sorted.get(middle.wrapping_sub(1)).unwrap_or(value)) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(before: &[f64], after: &[f64], better: Better) -> Verdict {
        Judged::of_runs(
            "x",
            (before, after),
            better,
            |x| x.to_string(),
            (1.05, 0.05 / 6.0),
        )
        .verdict
    }

    const QUIET: [f64; 5] = [1.00, 1.004, 0.996, 1.002, 0.999];

    fn scaled(by: f64) -> Vec<f64> {
        QUIET.iter().map(|run| run * by).collect()
    }

    #[test]
    fn a_real_regression_is_one_whichever_way_is_better() {
        assert_eq!(
            judged(&QUIET, &scaled(0.88), Better::Higher),
            Verdict::Regression
        );
        assert_eq!(
            judged(&QUIET, &scaled(1.12), Better::Lower),
            Verdict::Regression
        );
    }

    #[test]
    fn an_improvement_is_none() {
        assert_eq!(
            judged(&QUIET, &scaled(1.12), Better::Higher),
            Verdict::Improvement
        );
        assert_eq!(
            judged(&QUIET, &scaled(0.88), Better::Lower),
            Verdict::Improvement
        );
    }

    #[test]
    fn equal_runs_are_equal() {
        assert_eq!(
            judged(&QUIET, &scaled(1.001), Better::Higher),
            Verdict::Equal
        );
    }

    #[test]
    fn a_small_difference_is_tolerated() {
        assert_eq!(
            judged(&QUIET, &scaled(0.97), Better::Higher),
            Verdict::Tolerated
        );
    }

    #[test]
    fn one_run_is_judged_by_an_assumed_noise() {
        let of = |before: &[f64], after: &[f64]| {
            let show = |x: f64| x.to_string();
            let rules = (1.05, 0.05 / 14.0);
            Judged::of_runs("x", (before, after), Better::Higher, show, rules)
        };
        let halved = of(&[1.0], &[0.5]);
        assert_eq!(halved.verdict, Verdict::Regression);
        assert_eq!(halved.said(1.05), "REGRESSION, the noise being assumed");
        assert_eq!(of(&[1.0], &[2.0]).verdict, Verdict::Improvement);
        for after in [0.9, 1.0, 1.1] {
            let little = of(&[1.0], &[after]);
            assert_eq!(little.verdict, Verdict::CannotTell { runs: None });
            let said = "cannot tell; more runs a side are needed";
            assert_eq!(little.said(1.05), said);
        }
        // One side of one run is as little known.
        assert_eq!(of(&QUIET, &[0.5]).verdict, Verdict::Regression);
        assert!(of(&[1.0], &scaled(0.5)).is_noise_assumed);
        assert_eq!(
            of(&QUIET, &[0.9]).verdict,
            Verdict::CannotTell { runs: None }
        );
        assert_eq!(of(&QUIET, &scaled(0.5)).said(1.05), "REGRESSION");
        // What is no number has no noise either.
        assert_eq!(
            of(&[1.0], &[0.0]).verdict,
            Verdict::CannotTell { runs: None }
        );
    }

    #[test]
    fn noise_larger_than_the_effect_says_how_many_runs_would_do() {
        let (before, after) = ([1.0, 1.2, 0.85, 1.1, 0.9], [0.95, 1.1, 0.8, 1.15, 0.85]);
        match judged(&before, &after, Better::Higher) {
            Verdict::CannotTell { runs: Some(runs) } => {
                assert!((50..500).contains(&runs), "{runs}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
