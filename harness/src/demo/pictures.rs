//! The pictures of the demo's page, as SVG.

use std::time::{Duration, Instant};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use plotters::prelude::*;

use crate::replay::Outcome;

const SIZE: (u32, u32) = (560, 230);
const BLUE: RGBColor = RGBColor(37, 99, 235);
const TEAL: RGBColor = RGBColor(13, 148, 136);
const AMBER: RGBColor = RGBColor(217, 119, 6);
const VIOLET: RGBColor = RGBColor(124, 58, 237);
const INK: RGBColor = RGBColor(71, 85, 105);
const GRID: RGBColor = RGBColor(226, 232, 240);

type Drawn = Result<String, Box<dyn std::error::Error + Send + Sync>>;

/// Changes per second that arrived in the broker, over time; red lines where the engine was killed.
pub(super) fn throughput(outcome: &Outcome) -> Drawn {
    let figures = &outcome.figures;
    let scale = figures.changes as f64 / figures.records.max(1) as f64;
    let window = (figures.seconds / 40.0).max(0.01);
    let points = rates(outcome, window)
        .into_iter()
        .map(|(at, records)| (at, records * scale / 1e6))
        .collect::<Vec<_>>();
    let top = points.iter().map(|(_, rate)| *rate).fold(0.1, f64::max) * 1.15;
    let lines: Vec<f64> = outcome
        .faults
        .iter()
        .filter_map(|fault| fault.at_seconds)
        .collect();
    area(&Chart {
        points: &points,
        end: figures.seconds,
        top,
        colour: BLUE,
        unit: "M changes/s",
        lines: &lines,
    })
}

/// Cores that the engine kept busy, over time.
pub(super) fn processor(outcome: &Outcome) -> Drawn {
    let window = Duration::from_secs_f64((outcome.figures.seconds / 20.0).max(0.04));
    let mut points = Vec::new();
    let mut from = 0;
    for (place, sample) in outcome.samples.iter().enumerate() {
        let first = &outcome.samples[from];
        let length = sample.at.duration_since(first.at);
        if sample.cpu_seconds < first.cpu_seconds {
            // A new process begins at nought.
            from = place;
        } else if length >= window {
            let cores = (sample.cpu_seconds - first.cpu_seconds) / length.as_secs_f64();
            points.push((since(outcome.start, first.at + length / 2), cores));
            from = place;
        }
    }
    let end = points
        .last()
        .map_or(1.0, |(at, _)| at.max(outcome.figures.seconds));
    area(&Chart {
        points: &points,
        end,
        top: 2.2,
        colour: TEAL,
        unit: "cores",
        lines: &[],
    })
}

/// Resident set of the engine, over time.
pub(super) fn memory(outcome: &Outcome) -> Drawn {
    let points: Vec<(f64, f64)> = outcome
        .samples
        .iter()
        .map(|sample| {
            (
                since(outcome.start, sample.at),
                sample.rss_bytes as f64 / f64::from(1 << 20),
            )
        })
        .collect();
    let top = points.iter().map(|(_, mib)| *mib).fold(16.0, f64::max) * 1.25;
    let end = points
        .last()
        .map_or(1.0, |(at, _)| at.max(outcome.figures.seconds));
    area(&Chart {
        points: &points,
        end,
        top,
        colour: VIOLET,
        unit: "MiB",
        lines: &[],
    })
}

/// How long changes took from read to acknowledged; `None` where the engine left no histogram (it was killed).
pub(super) fn latency(
    outcome: &Outcome,
) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(text) = outcome.figures.histogram.as_str() else {
        return Ok(None);
    };
    let bytes = base64::prelude::BASE64_STANDARD.decode(text)?;
    let histogram: Histogram<u64> = Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("{error:?}"))?;
    if histogram.is_empty() {
        return Ok(None);
    }
    let (low, high) = (histogram.min().max(1) as f64, histogram.max().max(2) as f64);
    // Buckets of equal width on a logarithmic scale, so that tail and body both show.
    let buckets = 48u32;
    let edge = |bucket: u32| low * (high / low).powf(f64::from(bucket) / f64::from(buckets));
    let count = |from: f64, to: f64| {
        histogram.count_between(from.floor() as u64, (to.ceil() as u64).saturating_sub(1)) as f64
    };
    let bars: Vec<(f64, f64, f64)> = (0..buckets)
        .map(|bucket| {
            (
                edge(bucket) / 1e3,
                edge(bucket + 1) / 1e3,
                count(edge(bucket), edge(bucket + 1)),
            )
        })
        .collect();
    let all = bars.iter().map(|bar| bar.2).sum::<f64>().max(1.0);
    let top = bars
        .iter()
        .map(|bar| bar.2 / all * 100.0)
        .fold(1.0, f64::max)
        * 1.15;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let range = (low / 1e3)..(high / 1e3 * 1.02);
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(52)
            .build_cartesian_2d(range.log_scale(), 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 13, &INK))
            .x_desc("ms, read to acknowledged (logarithmic)")
            .y_desc("% of records")
            .y_labels(5)
            .x_label_formatter(&|ms| {
                if *ms < 1.0 {
                    format!("{ms:.2}")
                } else {
                    format!("{ms:.1}")
                }
            })
            .draw()?;
        chart.draw_series(bars.iter().map(|(from, to, count)| {
            Rectangle::new(
                [(*from, 0.0), (*to, count / all * 100.0)],
                AMBER.mix(0.75).filled(),
            )
        }))?;
        root.present()?;
    }
    Ok(Some(svg))
}

/// A filled line over time.
struct Chart<'a> {
    /// Seconds and value.
    points: &'a [(f64, f64)],
    end: f64,
    top: f64,
    colour: RGBColor,
    unit: &'a str,
    /// Moments to mark.
    lines: &'a [f64],
}

fn area(chart: &Chart<'_>) -> Drawn {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut context = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..chart.end.max(0.05), 0.0..chart.top)?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 13, &INK))
            .x_desc("seconds since the first byte")
            .y_desc(chart.unit)
            .y_labels(5)
            .x_labels(8)
            .draw()?;
        let points = chart.points.iter().filter(|(at, _)| *at >= 0.0).copied();
        context.draw_series(
            AreaSeries::new(points, 0.0, chart.colour.mix(0.14))
                .border_style(chart.colour.stroke_width(2)),
        )?;
        for at in chart.lines {
            let ends = [(*at, 0.0), (*at, chart.top)];
            context.draw_series(LineSeries::new(ends, RGBColor(220, 38, 38).stroke_width(1)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// Records per second in windows of `window` seconds, at the middle of each.
fn rates(outcome: &Outcome, window: f64) -> Vec<(f64, f64)> {
    let (mut points, mut from) = (vec![(0.0, 0.0)], (0.0, 0u64));
    for (at, records) in &outcome.arrivals {
        let at = since(outcome.start, *at);
        if at - from.0 >= window {
            points.push((
                (at + from.0) / 2.0,
                records.saturating_sub(from.1) as f64 / (at - from.0),
            ));
            from = (at, *records);
        }
    }
    if let Some(last) = points.last().copied() {
        points.push((outcome.figures.seconds, last.1));
    }
    points
}

/// Seconds from `start` to `at`, negative before it.
fn since(start: Instant, at: Instant) -> f64 {
    match at.checked_duration_since(start) {
        Some(length) => length.as_secs_f64(),
        None => -start.duration_since(at).as_secs_f64(),
    }
}
