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
const POINTS_PER_DECADE: u32 = 40;
/// 99.99999 %.
const DECADES_MAX: u32 = 7;
/// Bars of a distribution.
const BARS: u32 = 60;
/// Above this, maximum by median, the axis of a picture is logarithmic.
const LOGARITHMIC: f64 = 20.0;

/// Percentiles of these histograms.
///
/// # Errors
/// What keeps the picture from being drawn.
pub fn percentiles(curves: &[Curve<'_>]) -> Drawn {
    // As many nines as the largest histogram has values for.
    let most = curves.iter().map(|curve| curve.histogram.len()).max();
    let decades = (most.unwrap_or(1).max(10) as f64).log10().ceil() as u32;
    let decades = decades.clamp(2, DECADES_MAX);
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
        let x = 0.0..f64::from(decades);
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
                    .x_label_formatter(&|nines| percentile(*nines))
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

/// (log10 of 1/(1 − p), milliseconds) up to the percentile that the histogram still has values for.
fn points(histogram: &Histogram<u64>, decades: u32) -> Vec<(f64, f64)> {
    let end = f64::from(decades).min((histogram.len().max(1) as f64).log10());
    let count = f64::from(decades * POINTS_PER_DECADE);
    let mut points = Vec::new();
    for step in 0..=decades * POINTS_PER_DECADE {
        let nines = f64::from(step) / count * f64::from(decades);
        if nines > end {
            break;
        }
        let quantile = 1.0 - 10f64.powf(-nines);
        points.push((nines, histogram.value_at_quantile(quantile) as f64 / 1e3));
    }
    points.push((end, histogram.max() as f64 / 1e3));
    points
}

/// 3.1623 as `3.2`, 316.23 as `320`.
fn two_digits(ms: f64) -> String {
    let step = 10f64.powf(ms.log10().floor() - 1.0);
    chart::tick((ms / step).round() * step)
}

/// 0 as `0 %`, 1 as `90 %`, 3 as `99.9 %`.
fn percentile(nines: f64) -> String {
    if (nines - nines.round()).abs() > 1e-6 {
        return String::new();
    }
    match nines.round() as i32 {
        ..=0 => "0 %".into(),
        1 => "90 %".into(),
        2 => "99 %".into(),
        more => format!("99.{} %", "9".repeat(more as usize - 2)),
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
        let axis: Vec<String> = (0..5).map(|n| percentile(f64::from(n))).collect();
        assert_eq!(axis, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!(percentile(1.5), "");
        assert_eq!(two_digits(3.1623), "3.2");
        assert_eq!(two_digits(316.23), "320");
        assert_eq!(two_digits(0.0316), "0.032");
    }

    #[test]
    fn a_curve_rises_and_ends_at_the_maximum() {
        let histogram = spread(1);
        let points = points(&histogram, 4);
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
