//! The latency picture: percentiles on an axis that is logarithmic in 1/(1 − p), as HdrHistogram draws them, so that the tail gets
//! as much room as the body; and the distribution as bars.

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::chart::{self, Drawn};
use super::palette::{Colour, LINE};

/// One curve.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// In the legend; none where there is one curve alone.
    pub label: &'a str,
    /// In microseconds; not empty.
    pub histogram: &'a Histogram<u64>,
    /// Its colour.
    pub colour: Colour,
}

/// Points of a curve between one decade and the next.
const POINTS_PER_DECADE: f64 = 40.0;
/// 99.9999999 %, of a thousand million records.
const DECADES_MAX: f64 = 9.0;
/// And at least the percentile 99.
const DECADES_MIN: f64 = 2.0;
/// Bars of a distribution.
const BARS: u32 = 60;
/// Above this, maximum by median, the axis of a picture is logarithmic.
const LOGARITHMIC: f64 = 20.0;

/// Percentiles of these histograms.
///
/// # Errors
/// What keeps the picture from being drawn.
pub fn percentiles(curves: &[Curve<'_>]) -> Drawn {
    let most = curves.iter().map(|curve| curve.histogram.len()).max();
    let decades = decades(most.unwrap_or(1));
    let names = Names::of(decades);
    let lines: Vec<Vec<(f64, f64)>> = (curves.iter())
        .map(|curve| points(curve.histogram, decades))
        .collect();
    let all = || lines.iter().flatten().map(|point| point.1);
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let low = low.max(1e-3);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, chart::SIZE).into_drawing_area();
        let mut builder = chart::builder(&root);
        let x = 0.0..decades;
        macro_rules! draw {
            ($y:expr) => {{
                let mut chart = builder.build_cartesian_2d(x, $y)?;
                chart
                    .configure_mesh()
                    .axis_style(LINE.light)
                    .bold_line_style(LINE.light.stroke_width(2))
                    .light_line_style(TRANSPARENT)
                    .label_style(chart::label())
                    .x_labels(decades as usize + 1)
                    .x_label_formatter(&|nines| names.at(*nines))
                    .y_label_formatter(&|ms| chart::tick(*ms))
                    .y_labels(6)
                    .x_desc("percentile of records")
                    .y_desc("ms")
                    .draw()?;
                for (curve, line) in curves.iter().zip(&lines) {
                    let colour = curve.colour.light;
                    let series = LineSeries::new(line.iter().copied(), colour.stroke_width(5));
                    let drawn = chart.draw_series(series)?;
                    if !curve.label.is_empty() {
                        drawn.label(curve.label).legend(move |(x, y)| {
                            PathElement::new([(x, y), (x + 36, y)], colour.stroke_width(5))
                        });
                    }
                }
                if curves.iter().any(|curve| !curve.label.is_empty()) {
                    chart::legend(&mut chart, SeriesLabelPosition::LowerRight)?;
                }
            }};
        }
        let medians = curves
            .iter()
            .map(|curve| curve.histogram.value_at_quantile(0.5));
        let median = medians.min().unwrap_or(1).max(1) as f64 / 1e3;
        if high / median > LOGARITHMIC {
            draw!((low * 0.8..high * 1.4).log_scale());
        } else {
            draw!(0.0..high * 1.1);
        }
        root.present()?;
    }
    Ok(svg)
}

/// How the values of these histograms are spread, in percent of all, over buckets of equal width on a logarithmic axis.
///
/// # Errors
/// What keeps the picture from being drawn.
pub fn distribution(curves: &[Curve<'_>]) -> Drawn {
    let low = curves.iter().map(|curve| curve.histogram.min()).min();
    let high = curves.iter().map(|curve| curve.histogram.max()).max();
    let low = low.unwrap_or(1).max(1) as f64;
    let high = (high.unwrap_or(2) as f64).max(low * 1.5);
    let edge = |bar: u32| low * (high / low).powf(f64::from(bar) / f64::from(BARS));
    let shares: Vec<Vec<f64>> = (curves.iter())
        .map(|curve| {
            let all = curve.histogram.len().max(1) as f64;
            // By the middle of each of the histogram's own buckets: no value is counted twice.
            let mut counts = vec![0.0; BARS as usize];
            for value in curve.histogram.iter_recorded() {
                let at = (value.value_iterated_to().max(1) as f64 / low).ln() / (high / low).ln();
                let bar = (at * f64::from(BARS)).max(0.0) as usize;
                if let Some(count) = counts.get_mut(bar.min(BARS as usize - 1)) {
                    *count += value.count_at_value() as f64 / all * 100.0;
                }
            }
            counts
        })
        .collect();
    // Room for the names above.
    let named = curves.iter().any(|curve| !curve.label.is_empty());
    let headroom = if named { 1.4 } else { 1.15 };
    let top = shares.iter().flatten().copied().fold(1.0, f64::max) * headroom;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, chart::SIZE).into_drawing_area();
        // Decades would be too few labels for a narrow distribution: the axis counts logarithms.
        let range = (low / 1e3).log10()..(high / 1e3 * 1.02).log10();
        let mut chart = chart::builder(&root).build_cartesian_2d(range, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(LINE.light)
            .bold_line_style(LINE.light.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .label_style(chart::label())
            .x_desc("ms")
            .y_desc("% of records")
            .y_labels(5)
            .x_labels(7)
            .x_label_formatter(&|decade| two_digits(10f64.powf(*decade)))
            .y_label_formatter(&|share| chart::tick(*share))
            .draw()?;
        for (curve, shares) in curves.iter().zip(&shares) {
            let colour = curve.colour.light;
            let steps = (shares.iter().enumerate()).flat_map(|(bar, share)| {
                let at = |bar: usize| (edge(bar as u32) / 1e3).log10();
                let (from, to) = (at(bar), at(bar + 1));
                [(from, *share), (to, *share)]
            });
            let series =
                AreaSeries::new(steps, 0.0, colour.mix(0.22)).border_style(colour.stroke_width(4));
            let drawn = chart.draw_series(series)?;
            if !curve.label.is_empty() {
                drawn.label(curve.label).legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 36, y)], colour.stroke_width(5))
                });
            }
        }
        if named {
            chart::legend(&mut chart, SeriesLabelPosition::UpperLeft)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// Where the axis ends, as log10 of 1/(1 − p): where 1 − p is one record of `count`. Finer percentiles mean nothing.
fn decades(count: u64) -> f64 {
    (count.max(1) as f64)
        .log10()
        .clamp(DECADES_MIN, DECADES_MAX)
}

/// (log10 of 1/(1 − p), milliseconds) up to the percentile that the histogram still has values for.
fn points(histogram: &Histogram<u64>, decades: f64) -> Vec<(f64, f64)> {
    let end = (histogram.len().max(1) as f64).log10().min(decades);
    let steps = (end * POINTS_PER_DECADE).floor() as u32;
    let mut points: Vec<(f64, f64)> = (0..=steps)
        .map(|step| {
            let nines = f64::from(step) / POINTS_PER_DECADE;
            let quantile = 1.0 - 10f64.powf(-nines);
            (nines, histogram.value_at_quantile(quantile) as f64 / 1e3)
        })
        .collect();
    points.push((end, histogram.max() as f64 / 1e3));
    points
}

/// The percentiles beside the axis, as many as have room.
#[derive(Debug)]
struct Names(Vec<Option<String>>);

impl Names {
    /// Of an axis of so many decades; from the left, each that has room beside the one before.
    fn of(decades: f64) -> Self {
        let decade = f64::from(chart::WIDTH) / decades;
        let mut end = f64::MIN;
        let names = (0..=decades as u32).map(|nines| {
            let name = percentile(nines);
            let half = chart::room(&name) / 2.0;
            let middle = f64::from(nines) * decade;
            let has_room = middle - half > end && middle + half < f64::from(chart::END);
            if has_room {
                end = middle + half;
            }
            has_room.then_some(name)
        });
        Self(names.collect())
    }

    fn at(&self, nines: f64) -> String {
        let is_whole = (nines - nines.round()).abs() < 1e-6;
        let name = self.0.get(nines.round() as usize).filter(|_| is_whole);
        name.cloned().flatten().unwrap_or_default()
    }
}

/// 3.1623 as `3.2`, 316.23 as `320`.
fn two_digits(ms: f64) -> String {
    let step = 10f64.powf(ms.log10().floor() - 1.0);
    chart::tick((ms / step).round() * step)
}

/// 0 as `0`, 1 as `90`, 3 as `99.9`.
fn percentile(nines: u32) -> String {
    match nines {
        0 => "0".into(),
        1 => "90".into(),
        2 => "99".into(),
        more => format!("99.{}", "9".repeat(more as usize - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::palette::{AMBER, GREY};

    fn spread(scale: u64) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=5000u64).for_each(|n| histogram.record(scale * (100 + n * n / 900)).unwrap());
        histogram
    }

    #[test]
    fn the_axis_counts_nines() {
        let names = Names::of(4.0);
        let axis: Vec<String> = (0..5).map(|n| names.at(f64::from(n))).collect();
        assert_eq!(axis, ["0", "90", "99", "99.9", "99.99"]);
        assert_eq!(names.at(1.5), "");
        assert_eq!(two_digits(3.1623), "3.2");
        assert_eq!(two_digits(316.23), "320");
        assert_eq!(two_digits(0.0316), "0.032");
    }

    #[test]
    fn a_curve_rises_and_ends_at_the_maximum() {
        let histogram = spread(1);
        let points = points(&histogram, decades(histogram.len()));
        assert!(
            points
                .windows(2)
                .all(|pair| pair[0].1 <= pair[1].1 && pair[0].0 <= pair[1].0)
        );
        assert_eq!(points.last().unwrap().1, histogram.max() as f64 / 1e3);
        let median = points
            .iter()
            .find(|point| (point.0 - 0.3).abs() < 0.01)
            .unwrap();
        assert!((median.1 - histogram.value_at_quantile(0.5) as f64 / 1e3).abs() < 0.05);
    }

    /// The picture of `count` records.
    fn picture_of(count: u64) -> String {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        histogram.record_n(500, count / 10 * 9).unwrap();
        histogram.record_n(3000, count - histogram.len()).unwrap();
        let curve = Curve {
            label: "",
            histogram: &histogram,
            colour: AMBER,
        };
        percentiles(&[curve]).unwrap()
    }

    /// The percentiles beside the axis, and where in the picture their middles are.
    fn labels(svg: &str) -> Vec<(String, f64)> {
        let texts = svg.split("<text ").skip(1).filter_map(|text| {
            let (tag, rest) = text.split_once('>')?;
            let name = rest.split('<').next()?.trim();
            let x = tag.split("x=\"").nth(1)?.split('"').next()?;
            let is_percentile = name == "0" || name == "90" || name.starts_with("99");
            // The other axis has its own nought.
            let is_below = tag.contains("text-anchor=\"middle\"");
            (is_percentile && is_below).then(|| (name.to_owned(), x.parse().unwrap()))
        });
        texts.collect()
    }

    #[test]
    fn no_percentile_covers_the_next_one() {
        for exponent in 1..=12u32 {
            let labels = labels(&picture_of(10u64.pow(exponent) * 5 / 4));
            // Digits of DejaVu Sans are 1303 of 2048 wide, its stop 651.
            let spans = labels.iter().map(|(name, middle)| {
                let digits = name.chars().filter(char::is_ascii_digit).count() as f64;
                let stops = name.len() as f64 - digits;
                let width = 34.0 * (digits * 1303.0 + stops * 651.0) / 2048.0;
                (middle - width / 2.0, middle + width / 2.0)
            });
            let spans: Vec<(f64, f64)> = spans.collect();
            assert!(spans.len() >= 3, "10^{exponent}: {labels:?}");
            let apart = spans.windows(2).all(|pair| pair[0].1 + 8.0 < pair[1].0);
            assert!(apart, "10^{exponent}: {labels:?}");
            let right = spans.last().unwrap().1;
            assert!(
                right < f64::from(chart::SIZE.0),
                "10^{exponent}: {labels:?}"
            );
        }
    }

    #[test]
    fn no_percentile_is_finer_than_a_record() {
        let named = |count: u64| -> Vec<String> {
            let labels = labels(&picture_of(count)).into_iter();
            labels.map(|(name, _)| name).collect()
        };
        assert_eq!(named(9_000), ["0", "90", "99", "99.9"]);
        assert_eq!(named(11_000), ["0", "90", "99", "99.9", "99.99"]);
        let million = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999"];
        assert_eq!(named(1_250_000), million);
        // The curve goes to the end of the axis, and no further.
        let svg = picture_of(1_250_000);
        let line = svg.split("<polyline").find(|tag| tag.contains("#D97706"));
        let points = line.unwrap().split("points=\"").nth(1).unwrap();
        let last = points.split('"').next().unwrap().split_whitespace().last();
        let x = last.unwrap().split(',').next().unwrap();
        assert!(x.parse::<u32>().unwrap().abs_diff(1120 - 76) <= 1, "{x}");
    }

    #[test]
    fn both_pictures_hold_both_curves() {
        let (one, two) = (spread(1), spread(2));
        let curves = [
            Curve {
                label: "before",
                histogram: &one,
                colour: GREY,
            },
            Curve {
                label: "after",
                histogram: &two,
                colour: AMBER,
            },
        ];
        for svg in [
            percentiles(&curves).unwrap(),
            distribution(&curves).unwrap(),
        ] {
            for text in ["before", "after", "#64748B", "#D97706"] {
                assert!(svg.contains(text), "{text}");
            }
        }
    }
}
