//! The picture of a verdict: per figure the change with its interval, better to the right, around the line of no difference.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::judgement::{Better, Judged, Verdict};
use crate::report::chart::{self, Drawn};
use crate::report::palette::{BLUE, Colour, GREY, LINE, RED, SOFT, TEAL};

/// Units of a row.
const ROW: u32 = 62;
/// Units of a letter of the names, and the most of all.
const LETTER: usize = 18;
const NAMES_MAX: usize = 620;
/// The axis ends at least there, as a part.
const REACH_MIN: f64 = 0.08;
/// And at most there: what lies beyond is drawn to the edge.
const REACH_MAX: f64 = 1.0;

/// How far the axis of a picture of these figures goes, as a logarithm.
pub(super) fn reach<'a>(figures: impl Iterator<Item = &'a Judged>) -> f64 {
    let ends = figures.filter_map(ends).flatten().map(f64::abs);
    (ends.fold(0.0, f64::max) * 1.1).clamp(REACH_MIN, REACH_MAX)
}

/// The logarithms of a figure's interval and of its change, ascending, better upwards.
fn ends(figure: &Judged) -> Option<[f64; 3]> {
    let of = figure.difference.as_ref()?;
    let ends = [of.low.ln(), of.ratio.ln(), of.high.ln()];
    Some(match figure.better {
        Better::Higher => ends,
        Better::Lower => [-ends[2], -ends[1], -ends[0]],
    })
}

/// Draws the figures that have an interval, under these names, on an axis to `reach`; `tolerance` as a band around the middle.
///
/// # Errors
/// What keeps the picture from being drawn.
pub(super) fn picture(figures: &[(&str, &Judged)], tolerance: f64, reach: f64) -> Drawn {
    let rows: Vec<(&str, &Judged, [f64; 3])> = (figures.iter())
        .filter_map(|(name, figure)| Some((*name, *figure, ends(figure)?)))
        .collect();
    let letters = rows.iter().map(|row| row.0.chars().count()).max();
    let names = (letters.unwrap_or_default() * LETTER + 14).min(NAMES_MAX);
    let count = rows.len().max(1) as u32;
    let mut svg = String::new();
    {
        let size = (chart::SIZE.0, ROW * count + 136);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let mut builder = ChartBuilder::on(&root);
        builder.margin(16).margin_right(64).x_label_area_size(94);
        let mut context = builder
            .margin_left(names as i32)
            .build_cartesian_2d(-reach..reach, 0.0..f64::from(count))?;
        context
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .axis_style(LINE.light)
            .bold_line_style(LINE.light.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .label_style(chart::label())
            .x_labels(5)
            .x_label_formatter(&|log| whole_percent(*log))
            .x_desc("◄ worse · better ►")
            .draw()?;
        let band = tolerance.ln().min(reach);
        let corners = [(-band, 0.0), (band, f64::from(count))];
        context.draw_series([Rectangle::new(corners, GREY.light.mix(0.12).filled())])?;
        let middle = [(0.0, 0.0), (0.0, f64::from(count))];
        context.draw_series(LineSeries::new(middle, GREY.light.stroke_width(3)))?;
        for (place, (name, figure, ends)) in rows.iter().enumerate() {
            let y = f64::from(count) - place as f64 - 0.5;
            let [low, at, high] = ends.map(|end| end.clamp(-reach, reach));
            let colour = colour(figure).light;
            context.draw_series(LineSeries::new(
                [(low, y), (high, y)],
                colour.stroke_width(5),
            ))?;
            context.draw_series([Circle::new((at, y), 9, colour.filled())])?;
            let style = chart::small(&SOFT).pos(Pos::new(HPos::Right, VPos::Center));
            let (x, y) = context.backend_coord(&(-reach, y));
            root.draw(&Text::new(*name, (x - 14, y), style))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// −0.3 as `−26 %`.
fn whole_percent(log: f64) -> String {
    let percent = (log.exp_m1() * 100.0).round();
    let sign = if percent > 0.0 { "+" } else { "" };
    format!("{sign}{} %", percent as i64).replace('-', "−")
}

fn colour(figure: &Judged) -> Colour {
    match figure.verdict {
        _ if figure.is_peer => GREY,
        Verdict::Regression => RED,
        Verdict::Improvement => TEAL,
        Verdict::Tolerated | Verdict::Equal => BLUE,
        Verdict::CannotTell { .. } | Verdict::NotComparable => GREY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::judgement::Judged;

    #[test]
    fn better_is_to_the_right_whichever_way_that_is() {
        let of = |better| {
            let runs: (&[f64], &[f64]) = (&[1.0, 1.01, 0.99, 1.0], &[1.3, 1.31, 1.29, 1.3]);
            let judged = Judged::of_runs("figure", runs, better, |x| x.to_string(), (1.05, 0.01));
            let reach = reach([&judged].into_iter());
            let svg = picture(&[("figure", &judged)], 1.05, reach).unwrap();
            let circle = svg.split("<circle cx=\"").nth(1).unwrap();
            circle.split('"').next().unwrap().parse::<u32>().unwrap()
        };
        let (higher, lower) = (of(Better::Higher), of(Better::Lower));
        let names = "figure".len() * LETTER + 14;
        let middle = (names as u32 + chart::SIZE.0 - 64) / 2;
        assert!(
            lower < middle && middle < higher,
            "{lower} {middle} {higher}"
        );
    }
}
