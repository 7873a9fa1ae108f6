//! Whether two sets of runs differ by more than their noise.
//!
//! Figures of runs are positive and their noise is a matter of percent, so everything is done on logarithms, where a ratio is a
//! difference. The interval of the ratio is Welch's (unequal variances, few runs); `alpha` is what is left for one figure of
//! several that are judged together (Bonferroni), so that a whole comparison of equal things is wrong as seldom as it says. Source: B. L. Welch,
//! "The generalization of Student's problem when several different population variances are involved", Biometrika 34 (1947).

use distrs::{Normal, StudentsT};

/// No figure here is finer than this, in logarithms: processor time and histograms round. Keeps runs that happen to agree to the last
/// digit from being taken for runs without noise.
const RESOLUTION: f64 = 0.002;
/// A single run is assumed to lie within this ratio of what many would come to, 19 times of 20: nothing it holds says more about its noise.
pub const SINGLE_RUN_WITHIN: f64 = 1.2;
/// Standard deviations within which 19 of 20 lie.
const DEVIATIONS_95: f64 = 1.96;
/// How certainly a difference should show that is called detectable.
const POWER: f64 = 0.8;
/// More runs than this nobody makes.
const RUNS_MAX: usize = 1000;

/// The mean of one side, in logarithms, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    log: f64,
    /// Variance of `log` as an estimate.
    variance: f64,
    /// Degrees of freedom of `variance`.
    freedom: f64,
    /// Standard deviation of a single run.
    deviation: f64,
}

/// How the side after compares with the side before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Geometric mean after by geometric mean before.
    pub ratio: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// The smallest ratio above 1 that would have shown four times out of five.
    pub detectable: f64,
    /// Standard deviation of a single run, both sides together, as a part of the figure.
    pub noise: f64,
}

impl Mean {
    /// Of runs; `None` of fewer than two, or where one is not a positive number: then nothing is known about noise.
    #[must_use]
    pub fn of_runs(runs: &[f64]) -> Option<Self> {
        if runs.len() < 2 || runs.iter().any(|run| !(run.is_finite() && *run > 0.0)) {
            return None;
        }
        let count = runs.len() as f64;
        let log = runs.iter().map(|run| run.ln()).sum::<f64>() / count;
        let squares: f64 = runs.iter().map(|run| (run.ln() - log).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt().max(RESOLUTION);
        Some(Self {
            log,
            variance: deviation.powi(2) / count,
            freedom: count - 1.0,
            deviation,
        })
    }

    /// Of a single run, with the noise that is [assumed](SINGLE_RUN_WITHIN) of one; `None` where it is no positive number.
    #[must_use]
    pub fn of_single_run(run: f64) -> Option<Self> {
        Self::of_one(run, 0.0, SINGLE_RUN_WITHIN.ln() / DEVIATIONS_95)
    }

    /// Of one process's many samples: `value` with its standard error, and the assumed standard deviation between processes as a part
    /// of the value, which one process cannot show.
    #[must_use]
    pub fn of_one(value: f64, error: f64, between: f64) -> Option<Self> {
        let sound = value.is_finite() && value > 0.0 && error.is_finite() && error >= 0.0;
        let deviation = ((error / value).powi(2) + between.powi(2)).sqrt();
        sound.then(|| Self {
            log: value.ln(),
            variance: deviation.powi(2),
            // Assumed, not estimated.
            freedom: 1e6,
            deviation,
        })
    }
}

/// Compares two sides; the interval misses the true ratio with a probability of `alpha`.
#[must_use]
pub fn difference(before: &Mean, after: &Mean, alpha: f64) -> Difference {
    let variance = before.variance + after.variance;
    let freedom = variance.powi(2)
        / (before.variance.powi(2) / before.freedom + after.variance.powi(2) / after.freedom);
    let error = variance.sqrt();
    let log = after.log - before.log;
    let reach = error * quantile(freedom, 1.0 - alpha / 2.0);
    Difference {
        ratio: log.exp(),
        low: (log - reach).exp(),
        high: (log + reach).exp(),
        detectable: (reach + error * quantile(freedom, POWER)).exp(),
        noise: ((before.deviation.powi(2) + after.deviation.powi(2)) / 2.0).sqrt(),
    }
}

impl Difference {
    /// The same of what figures are the reciprocals of: rates of times.
    #[must_use]
    pub fn inverted(self) -> Self {
        Self {
            ratio: 1.0 / self.ratio,
            low: 1.0 / self.high,
            high: 1.0 / self.low,
            ..self
        }
    }

    /// Whether the interval leaves out "no difference".
    #[must_use]
    pub fn is_beyond_noise(&self) -> bool {
        self.low > 1.0 || self.high < 1.0
    }
}

/// How many runs a side it takes, with single runs as noisy as `noise`, to see a ratio of `ratio` (above 1) four times out of five; `None`
/// where no sensible number does.
#[must_use]
pub fn runs_needed(noise: f64, ratio: f64, alpha: f64) -> Option<usize> {
    (2..=RUNS_MAX).find(|runs| {
        let freedom = 2.0 * (*runs as f64) - 2.0;
        let error = noise * (2.0 / *runs as f64).sqrt();
        error * (quantile(freedom, 1.0 - alpha / 2.0) + quantile(freedom, POWER)) <= ratio.ln()
    })
}

/// Student's t with so many degrees of freedom.
fn quantile(freedom: f64, probability: f64) -> f64 {
    if freedom < 1e5 {
        // Welch's formula never gives less than 1, but rounding may.
        StudentsT::ppf(probability, freedom.max(1.0))
    } else {
        // The limit, and faster.
        Normal::ppf(probability, 0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::SplitMix64;

    /// Kinds of noise that runs of real programs have.
    #[derive(Clone, Copy, Debug)]
    enum Noise {
        Normal,
        /// One run in ten is disturbed.
        Outliers,
        /// Two modes, half a run in each.
        TwoModes,
        /// A tail to one side.
        Skewed,
    }

    const KINDS: [Noise; 4] = [
        Noise::Normal,
        Noise::Outliers,
        Noise::TwoModes,
        Noise::Skewed,
    ];

    fn unit(random: &mut SplitMix64) -> f64 {
        (random.between(1, 1 << 53) as f64) / (1u64 << 53) as f64
    }

    fn normal(random: &mut SplitMix64) -> f64 {
        let (a, b) = (unit(random), unit(random));
        (-2.0 * a.ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()
    }

    fn run(random: &mut SplitMix64, noise: Noise, deviation: f64) -> f64 {
        let log = match noise {
            Noise::Normal => normal(random),
            Noise::Outliers if unit(random) < 0.1 => 4.0 + normal(random),
            Noise::Outliers => normal(random),
            Noise::TwoModes => normal(random) * 0.3 + if unit(random) < 0.5 { 1.0 } else { -1.0 },
            Noise::Skewed => -unit(random).ln() - 1.0,
        };
        1e6 * (log * deviation).exp()
    }

    fn runs(random: &mut SplitMix64, noise: Noise, deviation: f64, count: usize) -> Vec<f64> {
        (0..count).map(|_| run(random, noise, deviation)).collect()
    }

    fn compared(before: &[f64], after: &[f64], alpha: f64) -> Difference {
        let mean = |runs| Mean::of_runs(runs).unwrap();
        difference(&mean(before), &mean(after), alpha)
    }

    /// How often equal things are told apart, out of 1.
    fn false_positives(
        noise: Noise,
        counts: (usize, usize),
        spreads: (f64, f64),
        alpha: f64,
        seed: u64,
    ) -> f64 {
        const TRIALS: u32 = 4000;
        let mut random = SplitMix64(seed);
        let wrong = (0..TRIALS).filter(|_| {
            let before = runs(&mut random, noise, spreads.0, counts.0);
            let after = runs(&mut random, noise, spreads.1, counts.1);
            compared(&before, &after, alpha).is_beyond_noise()
        });
        wrong.count() as f64 / f64::from(TRIALS)
    }

    #[test]
    fn equal_things_are_seldom_told_apart() {
        let seed = 42;
        for noise in KINDS {
            for count in [2, 3, 5, 10] {
                let rate = false_positives(noise, (count, count), (0.03, 0.03), 0.05, seed);
                // Two runs a side of two modes fall into one mode each now and then; Welch's interval is not made for that.
                let most = match (noise, count) {
                    (Noise::TwoModes, 2) => 0.09,
                    _ => 0.065,
                };
                assert!(
                    rate <= most,
                    "{noise:?}, {count} runs a side, seed {seed}: {rate}"
                );
            }
        }
    }

    #[test]
    fn unequal_sides_do_not_change_that() {
        let seed = 43;
        for (counts, spreads) in [((3, 10), (0.06, 0.01)), ((10, 4), (0.01, 0.05))] {
            let rate = false_positives(Noise::Normal, counts, spreads, 0.05, seed);
            assert!(rate <= 0.075, "{counts:?} {spreads:?}, seed {seed}: {rate}");
        }
    }

    #[test]
    fn six_figures_together_are_as_seldom_wrong_as_one() {
        let seed = 44;
        let mut random = SplitMix64(seed);
        let trials = 2000;
        let wrong = (0..trials).filter(|_| {
            (0..6).fold(false, |wrong, _| {
                let before = runs(&mut random, Noise::Normal, 0.03, 5);
                let after = runs(&mut random, Noise::Normal, 0.03, 5);
                wrong | compared(&before, &after, 0.05 / 6.0).is_beyond_noise()
            })
        });
        let rate = wrong.count() as f64 / f64::from(trials);
        assert!(rate <= 0.065, "seed {seed}: {rate}");
    }

    #[test]
    fn a_large_difference_is_found_and_its_size_too() {
        let seed = 45;
        let mut random = SplitMix64(seed);
        let (mut found, mut covered) = (0, 0);
        for _ in 0..1000 {
            let before = runs(&mut random, Noise::Normal, 0.03, 5);
            let after: Vec<f64> = runs(&mut random, Noise::Normal, 0.03, 5)
                .iter()
                .map(|run| run * 0.85)
                .collect();
            let difference = compared(&before, &after, 0.05 / 6.0);
            found += u32::from(difference.high < 1.0);
            covered += u32::from(difference.low <= 0.85 && 0.85 <= difference.high);
        }
        assert!(found >= 950, "seed {seed}: {found} of 1000");
        assert!(covered >= 980, "seed {seed}: {covered} of 1000");
    }

    #[test]
    fn what_is_called_detectable_is_detected_four_times_of_five() {
        let (seed, alpha) = (46, 0.01);
        let needed = runs_needed(0.03, 1.05, alpha).unwrap();
        let mut random = SplitMix64(seed);
        let found = (0..1000).filter(|_| {
            let before = runs(&mut random, Noise::Normal, 0.03, needed);
            let after: Vec<f64> = runs(&mut random, Noise::Normal, 0.03, needed)
                .iter()
                .map(|run| run * 1.05)
                .collect();
            compared(&before, &after, alpha).low > 1.0
        });
        let found = found.count();
        assert!(
            (730..=880).contains(&found),
            "seed {seed}, {needed} runs: {found} of 1000"
        );
    }

    #[test]
    fn single_runs_are_seldom_told_apart_where_the_assumption_holds() {
        const TRIALS: u32 = 4000;
        let (seed, deviation) = (47, 1.2f64.ln() / 1.96);
        let mut random = SplitMix64(seed);
        let wrong = (0..TRIALS).filter(|_| {
            let mut side = || Mean::of_single_run(run(&mut random, Noise::Normal, deviation));
            let (before, after) = (side().unwrap(), side().unwrap());
            difference(&before, &after, 0.05).is_beyond_noise()
        });
        let rate = wrong.count() as f64 / f64::from(TRIALS);
        assert!((0.035..=0.065).contains(&rate), "seed {seed}: {rate}");
    }

    #[test]
    fn intervals_are_those_of_the_textbook() {
        // Welch's t for logarithms 0, 0.1, 0.2 against 0.3, 0.4, 0.5: t = 0.3 / sqrt(2 · 0.01 / 3), 4 degrees of freedom, t(0.975) = 2.7764.
        let of = |logs: [f64; 3]| logs.map(f64::exp);
        let difference = compared(&of([0.0, 0.1, 0.2]), &of([0.3, 0.4, 0.5]), 0.05);
        let reach = 2.776_445 * (2.0f64 * 0.01 / 3.0).sqrt();
        assert!((difference.ratio.ln() - 0.3).abs() < 1e-9);
        assert!(
            (difference.low.ln() - (0.3 - reach)).abs() < 1e-3,
            "{difference:?}"
        );
        assert!(
            (difference.high.ln() - (0.3 + reach)).abs() < 1e-3,
            "{difference:?}"
        );
    }

    #[test]
    fn one_run_or_nonsense_says_nothing_about_noise() {
        assert_eq!(Mean::of_runs(&[1.0]), None);
        assert_eq!(Mean::of_runs(&[]), None);
        assert_eq!(Mean::of_runs(&[1.0, 0.0]), None);
        assert_eq!(Mean::of_runs(&[1.0, f64::NAN]), None);
        assert_eq!(Mean::of_one(1.0, -1.0, 0.02), None);
        assert_eq!(Mean::of_single_run(0.0), None);
        assert_eq!(Mean::of_single_run(f64::NAN), None);
    }

    #[test]
    fn equal_figures_are_equal_and_a_rounded_one_is_no_difference() {
        let same = compared(&[3.0, 3.0, 3.0], &[3.0, 3.0, 3.0], 0.01);
        assert!(!same.is_beyond_noise() && (same.ratio - 1.0).abs() < 1e-12);
        assert!(!compared(&[3.0, 3.0, 3.0], &[3.003, 3.003, 3.003], 0.01).is_beyond_noise());
        assert!(compared(&[3.0, 3.0, 3.0], &[3.3, 3.3, 3.3], 0.01).low > 1.0);
    }

    #[test]
    fn hopeless_noise_needs_more_runs_than_anybody_makes() {
        assert_eq!(runs_needed(2.0, 1.01, 0.01), None);
        assert!(runs_needed(0.03, 1.05, 0.01) > runs_needed(0.03, 1.2, 0.01));
    }
}
