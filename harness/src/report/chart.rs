//! What the pictures have in common, and those over time. Drawn at twice the size that they are shown at: plotters' SVG backend
//! rounds to whole units, which then are half a pixel.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::number::three_digits;
use super::palette::{Colour, GREY, LINE, RED, SOFT};

/// Units of a picture.
pub const SIZE: (u32, u32) = (1120, 520);
/// Around everything.
const MARGIN: u32 = 16;
/// At the right, where half of the last label stands.
const MARGIN_RIGHT: u32 = 76;
/// For the labels of the vertical axis.
const LABELS: u32 = 136;
/// Units that the horizontal axis is long.
pub const WIDTH: u32 = SIZE.0 - MARGIN - LABELS - MARGIN_RIGHT;
/// And as far from its beginning a picture ends.
pub const END: u32 = WIDTH + MARGIN_RIGHT;
/// Units of its text: 13 pixels where a picture is 430 pixels wide, and still legible on a phone.
const TEXT: i32 = 34;

/// Faults that have labels, at most.
const MARKS_LABELLED: usize = 4;

/// A picture, or what keeps it from being drawn.
pub type Drawn = Result<String, Box<dyn std::error::Error + Send + Sync>>;

/// A filled line over time.
#[derive(Debug)]
pub struct OverTime<'a> {
    /// Seconds and value.
    pub points: &'a [(f64, f64)],
    /// Where the axis ends, in seconds.
    pub end: f64,
    /// Top of the axis at least.
    pub top: f64,
    /// Of the line.
    pub colour: Colour,
    /// What the value is in.
    pub unit: &'a str,
    /// Faults: seconds and label.
    pub marks: &'a [(f64, String)],
    /// A limit as a line, or as a mark at the upper edge where it lies far above everything: value and label.
    pub limit: Option<(f64, String)>,
}

/// Draws `chart`.
///
/// # Errors
/// What keeps the picture from being drawn.
pub fn over_time(chart: &OverTime<'_>) -> Drawn {
    let highest = chart
        .points
        .iter()
        .map(|point| point.1)
        .fold(chart.top, f64::max);
    // A limit far above everything would press the line to the ground: it is said at the upper edge instead.
    let (limit, above) = match &chart.limit {
        Some(limit) if limit.0 < highest * 4.0 => (Some(limit), None),
        above => (None, above.as_ref()),
    };
    let top = limit.map_or(highest, |limit| highest.max(limit.0)) * 1.15;
    let end = chart.end.max(0.01);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut context = builder(&root).build_cartesian_2d(0.0..end, 0.0..top)?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(LINE.light)
            .bold_line_style(LINE.light.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .label_style(label())
            .x_desc("seconds since the first byte")
            .y_desc(chart.unit)
            .y_labels(5)
            .x_labels(8)
            .x_label_formatter(&|seconds| tick(*seconds))
            .y_label_formatter(&|value| tick(*value))
            .draw()?;
        // Behind everything else, and where there are many, faint.
        let many = chart.marks.len() > MARKS_LABELLED;
        let faults = match many {
            true => RED.light.mix(0.4).stroke_width(2),
            false => RED.light.stroke_width(3),
        };
        for (at, _) in chart.marks {
            context.draw_series(LineSeries::new([(*at, 0.0), (*at, top)], faults))?;
        }
        let points = chart
            .points
            .iter()
            .filter(|point| point.0 >= 0.0 && point.0 <= end);
        let colour = chart.colour.light;
        context.draw_series(
            AreaSeries::new(points.copied(), 0.0, colour.mix(0.16))
                .border_style(colour.stroke_width(5)),
        )?;
        if let Some((value, text)) = limit {
            let ends = [(0.0, *value), (end, *value)];
            let style = GREY.light.stroke_width(3);
            context.draw_series(DashedLineSeries::new(ends, 14, 8, style))?;
            let place = (end * 0.01, *value + top * 0.055);
            context.draw_series([Text::new(text.clone(), place, small(&GREY))])?;
        }
        if let Some((value, text)) = above {
            let mark = TriangleMarker::new((end * 0.016, top * 0.945), 13, GREY.light.filled());
            context.draw_series([mark])?;
            let text = format!("{text}: {} {}", tick(*value), chart.unit);
            let style = small(&GREY).pos(Pos::new(HPos::Left, VPos::Top));
            context.draw_series([Text::new(text, (end * 0.036, top * 0.99), style)])?;
        }
        // Labels of many faults would cover each other.
        let labelled = chart.marks.iter().filter(|_| !many);
        for (number, (at, text)) in labelled.enumerate() {
            let right = *at > end * 0.8;
            let anchor = if right { HPos::Right } else { HPos::Left };
            let style = small(&RED).pos(Pos::new(anchor, VPos::Top));
            let beside = if right { -end * 0.008 } else { end * 0.008 };
            // The first row is the limit's, where it is said there.
            let row = number % 3 + usize::from(above.is_some());
            let place = (at + beside, top * (0.99 - 0.06 * row as f64));
            context.draw_series([Text::new(text.clone(), place, style)])?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// One of several lines over time.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// In the legend.
    pub name: &'a str,
    /// Its colour.
    pub colour: Colour,
    /// Seconds and value.
    pub points: Vec<(f64, f64)>,
}

/// Draws several lines over time.
///
/// # Errors
/// What keeps the picture from being drawn.
pub fn lines(lines: &[Line<'_>], unit: &str) -> Drawn {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let end = points().map(|point| point.0).fold(0.01, f64::max);
    // Room for the names above.
    let top = points().map(|point| point.1).fold(0.01, f64::max) * 1.4;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut context = builder(&root).build_cartesian_2d(0.0..end, 0.0..top)?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(LINE.light)
            .bold_line_style(LINE.light.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .label_style(label())
            .x_desc("seconds since the first byte")
            .y_desc(unit)
            .y_labels(5)
            .x_labels(8)
            .x_label_formatter(&|seconds| tick(*seconds))
            .y_label_formatter(&|value| tick(*value))
            .draw()?;
        for line in lines {
            let colour = line.colour.light;
            let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(5));
            context
                .draw_series(series)?
                .label(line.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 36, y)], colour.stroke_width(5))
                });
        }
        legend(&mut context, SeriesLabelPosition::UpperLeft)?;
        root.present()?;
    }
    Ok(svg)
}

/// Margins and places for labels.
pub fn builder<'a, 'b>(
    root: &'a DrawingArea<SVGBackend<'b>, Shift>,
) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(root);
    builder
        .margin(MARGIN)
        .margin_right(MARGIN_RIGHT)
        .x_label_area_size(92)
        .y_label_area_size(LABELS);
    builder
}

/// The text of axes.
#[must_use]
pub fn label() -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&SOFT.light)
}

/// Text inside a picture.
#[must_use]
pub fn small(colour: &Colour) -> TextStyle<'static> {
    ("sans-serif", TEXT - 2).into_font().color(&colour.light)
}

/// The names of the curves, without a ground of their own.
///
/// # Errors
/// What keeps them from being drawn.
pub fn legend<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    place: SeriesLabelPosition,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_series_labels()
        .position(place)
        .margin(16)
        .legend_area_size(48)
        .label_font(label())
        .background_style(TRANSPARENT)
        .border_style(TRANSPARENT)
        .draw()?;
    Ok(())
}

/// Units that a number beside an axis takes at most, with room to the next one: readers' fonts differ, and this is a wide one (DejaVu Sans).
#[must_use]
pub fn room(number: &str) -> f64 {
    let em = |letter: char| if letter == '.' { 0.32 } else { 0.64 };
    (number.chars().map(em).sum::<f64>() + 0.3) * f64::from(TEXT)
}

/// A number beside an axis.
#[must_use]
pub fn tick(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let text = three_digits(value);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::palette::BLUE;

    fn chart(limit: Option<(f64, String)>, marks: &[(f64, String)]) -> String {
        let points: Vec<(f64, f64)> = (0..50).map(|n| (f64::from(n) / 50.0, 2.0)).collect();
        over_time(&OverTime {
            points: &points,
            end: 1.0,
            top: 0.1,
            colour: BLUE,
            unit: "M changes/s",
            marks,
            limit,
        })
        .unwrap()
    }

    #[test]
    fn limits_and_faults_are_drawn() {
        let svg = chart(
            Some((3.0, "a limit".into())),
            &[(0.5, "kill engine".into())],
        );
        for text in [
            "a limit",
            "kill engine",
            "M changes/s",
            "#64748B",
            "#DC2626",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        let plain = chart(None, &[]);
        assert!(!plain.contains("#64748B") && !plain.contains("#DC2626"));
    }

    #[test]
    fn a_limit_far_above_is_said_at_the_edge_and_does_not_press_the_line_down() {
        let limit = |value| chart(Some((value, "a limit".into())), &[]);
        let (far, near, plain) = (limit(100.0), limit(3.0), chart(None, &[]));
        assert!(far.contains("a limit: 100 M changes/s"), "{far}");
        assert!(far.contains("#64748B"), "{far}");
        assert!(!near.contains("a limit: "), "{near}");
        // What is under the line.
        let area = |svg: &str| {
            let mut tags = svg.split('<');
            tags.find(|tag| tag.starts_with("polygon"))
                .map(str::to_owned)
        };
        assert!(area(&plain).is_some());
        assert_eq!(area(&far), area(&plain));
        assert_ne!(area(&near), area(&plain));
    }

    #[test]
    fn a_fault_and_a_limit_far_above_do_not_cover_each_other() {
        let height = |svg: &str, text: &str| {
            let before = svg.split(text).next().unwrap();
            let tag = &before[before.rfind("<text").unwrap()..];
            let y = tag.split(" y=\"").nth(1).unwrap();
            y.split('"').next().unwrap().parse::<i32>().unwrap()
        };
        let faults = [(0.01, "kill engine".to_owned())];
        let far = chart(Some((100.0, "a limit".into())), &faults);
        assert!(height(&far, "kill engine") > height(&far, "a limit: "));
        let plain = chart(None, &faults);
        assert!(height(&plain, "kill engine") < height(&far, "kill engine"));
    }

    #[test]
    fn many_faults_are_faint_lines_behind_the_rate() {
        let faults = |count: u32| -> Vec<(f64, String)> {
            let at = |n: u32| f64::from(n) / f64::from(count + 1);
            (1..=count).map(|n| (at(n), "cut link".into())).collect()
        };
        let (few, many) = (chart(None, &faults(3)), chart(None, &faults(30)));
        assert_eq!(few.matches("cut link").count(), 3);
        assert!(!many.contains("cut link"), "{many}");
        let red = "stroke=\"#DC2626\"";
        let opacity = |svg: &str| {
            let mut tags = svg.split('<');
            let line = tags.find(|tag| tag.contains(red)).unwrap();
            line.contains("opacity=\"0.4\"")
        };
        assert!(!opacity(&few) && opacity(&many), "{many}");
        for svg in [few, many] {
            let (first, area) = (svg.find(red), svg.find("<polygon"));
            assert!(first.unwrap() < area.unwrap(), "{svg}");
        }
    }

    #[test]
    fn lines_are_named() {
        let line = |name, colour| Line {
            name,
            colour,
            points: vec![(0.0, 0.0), (1.0, 2.0)],
        };
        let svg = lines(&[line("before", GREY), line("after", BLUE)], "k changes/s").unwrap();
        for text in ["before", "after", "#64748B", "#2563EB", "k changes/s"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(tick(0.5), "0.5");
        assert_eq!(tick(20.0), "20");
        assert_eq!(tick(0.0125), "0.0125");
        assert_eq!(tick(1500.0), "1500");
    }
}
