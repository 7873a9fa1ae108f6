//! The page of a comparison: the verdict first, then per scenario what changed and how far that can be known, then the stages.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::comparison::Comparison;
use super::forest;
use super::judgement::{Judged, Verdict};
use super::side::Side;
use super::statistics::SINGLE_RUN_WITHIN;
use super::whole::Pair;
use crate::report::chart;
use crate::report::document::Document;
use crate::report::html::{self, badge, escaped};
use crate::report::latency::{self, Curve};
use crate::report::number::{counted, magnitude, percent};
use crate::report::palette::{AMBER, BLUE, GREY};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const WHAT_DOTS_MEAN: &str = "Dots: the change; lines: where it may lie. Red is worse, green better, blue the same, grey left open. \
    Grey band: the tolerance.";

/// Draws `comparison`.
///
/// # Errors
/// A picture that cannot be drawn.
pub(super) fn html(comparison: &Comparison) -> Result<String, Failure> {
    let mut body = String::new();
    html::cards(&mut body, &cards(comparison))?;
    verdict(&mut body, comparison)?;
    for pair in &comparison.pairs {
        section(&mut body, pair, comparison)?;
    }
    if !comparison.stages.is_empty() {
        stages(&mut body, comparison)?;
    }
    how_to_read(&mut body, comparison)?;
    let lead = format!(
        "{} compared with {}. Intervals hold together with {:.0} % confidence; what they leave open is said to be open.",
        html::capitalised(&comparison.after.commits()),
        comparison.before.commits(),
        (1.0 - comparison.rules.alpha) * 100.0,
    );
    Ok(html::page("Walbrook comparison", &lead, &body))
}

fn cards(comparison: &Comparison) -> [(String, String); 4] {
    let count = |of: fn(&Verdict) -> bool| {
        comparison
            .judged()
            .filter(|(_, judged)| of(&judged.verdict))
            .count()
            .to_string()
    };
    [
        (
            count(|of| *of == Verdict::Regression),
            "worse, beyond noise and tolerance".into(),
        ),
        (
            count(|of| *of == Verdict::Improvement),
            "better, beyond noise and tolerance".into(),
        ),
        (
            count(|of| matches!(of, Verdict::Equal | Verdict::Tolerated)),
            format!("the same, to {}", percent(comparison.rules.tolerance)),
        ),
        (
            count(|of| matches!(of, Verdict::CannotTell { .. } | Verdict::NotComparable)),
            "cannot be told".into(),
        ),
    ]
}

fn verdict(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let (text, figures) = comparison.verdict();
    let class = if comparison.is_good() {
        "notice soft"
    } else {
        "notice"
    };
    write!(out, "<div class=\"{class}\"><b>{}</b>", escaped(&text))?;
    for figure in &figures {
        write!(out, "<br>{}", escaped(figure))?;
    }
    out.push_str("</div>");
    for line in &comparison.unmatched {
        write!(out, "<div class=\"notice soft\">{}</div>", escaped(line))?;
    }
    Ok(())
}

fn section(out: &mut String, pair: &Pair, comparison: &Comparison) -> Result<(), Failure> {
    let mark = mark(&pair.figures);
    write!(
        out,
        "<section><h2>{} {mark}</h2><p>{} against {}.</p>",
        escaped(&pair.after.scenario),
        escaped(&described(&pair.after)),
        escaped(&described(&pair.before)),
    )?;
    for obstacle in &pair.obstacles {
        write!(out, "<div class=\"notice\">{}</div>", escaped(obstacle))?;
    }
    for note in &pair.notes {
        write!(out, "<div class=\"notice soft\">{}</div>", escaped(note))?;
    }
    out.push_str("<div class=\"pictures\">");
    if pair
        .figures
        .iter()
        .any(|figure| figure.difference.is_some())
    {
        let rows = pair
            .figures
            .iter()
            .map(|figure| (figure.name.as_str(), figure));
        let rows: Vec<(&str, &Judged)> = rows.collect();
        let reach = forest::reach(pair.figures.iter());
        let svg = forest::picture(&rows, comparison.rules.tolerance, reach)?;
        html::picture(out, "What changed", &svg, WHAT_DOTS_MEAN)?;
    }
    throughput(out, pair)?;
    histograms(out, pair)?;
    out.push_str("</div>");
    table(out, &pair.figures, comparison.rules.tolerance)?;
    runs(out, pair)?;
    out.push_str("</section>");
    Ok(())
}

/// The worst that is said of these figures.
fn mark(figures: &[Judged]) -> String {
    let any = |of: fn(&Verdict) -> bool| {
        let mut ours = figures.iter().filter(|figure| !figure.is_peer);
        ours.any(|figure| of(&figure.verdict))
    };
    if any(|of| *of == Verdict::Regression) {
        badge(false, "regression")
    } else if any(|of| *of == Verdict::NotComparable) {
        badge(false, "not comparable")
    } else if any(|of| matches!(of, Verdict::CannotTell { .. })) {
        html::soft_badge("no regression found")
    } else {
        badge(true, "no regression")
    }
}

fn described(document: &Document) -> String {
    format!(
        "{} ({} on {})",
        document.commit,
        counted(document.runs.len(), "run"),
        document.machine
    )
}

/// Changes arriving over time on both sides, of the median runs.
fn throughput(out: &mut String, pair: &Pair) -> Result<(), Failure> {
    let rates = |document: &Document| crate::report::page::rates(document);
    let (before, after) = (rates(&pair.before), rates(&pair.after));
    if before.is_empty() || after.is_empty() {
        return Ok(());
    }
    let highest = (before.iter().chain(&after))
        .map(|point| point.1)
        .fold(0.0, f64::max);
    let (scale, unit) = crate::report::page::rate_unit(highest);
    let scaled = |rates: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        rates
            .into_iter()
            .map(|(at, rate)| (at, rate / scale))
            .collect()
    };
    let line = |name, colour, rates| chart::Line {
        name,
        colour,
        points: scaled(rates),
    };
    let lines = [line("before", GREY, before), line("after", BLUE, after)];
    let svg = chart::lines(&lines, unit)?;
    html::picture(
        out,
        "Changes arriving in the broker",
        &svg,
        "Of the median runs.",
    )?;
    Ok(())
}

/// Latency of both, over each other: of the median runs. Under a load what counts begins with the commit, so that is what is drawn.
fn histograms(out: &mut String, pair: &Pair) -> Result<(), Failure> {
    let (old, new) = (&pair.before.figures, &pair.after.figures);
    let commit = old.commit_latency()?.zip(new.commit_latency()?);
    let note = match commit {
        Some(_) => "Of the median runs, commit to the broker’s log.",
        None => "Of the median runs, read to acknowledged.",
    };
    let both = if commit.is_some() {
        commit
    } else {
        old.latency()?.zip(new.latency()?)
    };
    let Some((before, after)) = both else {
        return Ok(());
    };
    let curves = [
        Curve {
            label: "before",
            histogram: &before,
            colour: GREY,
        },
        Curve {
            label: "after",
            histogram: &after,
            colour: AMBER,
        },
    ];
    html::picture(
        out,
        "Latency percentiles",
        &latency::percentiles(&curves)?,
        note,
    )?;
    html::picture(
        out,
        "Latency distribution",
        &latency::distribution(&curves)?,
        note,
    )?;
    Ok(())
}

fn table(out: &mut String, figures: &[Judged], tolerance: f64) -> std::fmt::Result {
    out.push_str(
        "<div class=\"card wide\"><table><tr><th></th><th>before</th><th>after</th><th>change</th><th>interval</th>\
         <th class=\"text\">verdict</th></tr>",
    );
    for figure in figures {
        let class = match figure.verdict {
            _ if figure.is_peer => "text verdict soft",
            Verdict::Regression => "text verdict bad",
            Verdict::Improvement => "text verdict good",
            _ => "text verdict soft",
        };
        let (moved, interval) = figure.moved();
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{moved}</td><td>{interval}</td><td class=\"{class}\">{}</td></tr>",
            escaped(&figure.name),
            escaped(&figure.before),
            escaped(&figure.after),
            escaped(&figure.said(tolerance)),
        )?;
    }
    out.write_str("</table></div>")
}

/// Every run of both sides.
fn runs(out: &mut String, pair: &Pair) -> std::fmt::Result {
    out.push_str(
        "<div class=\"card wide\"><table><tr><th>every run</th><th>changes/s</th><th>CPU µs<br>per change</th><th>peak MiB</th>\
         <th>p50 ms</th><th>p99 ms</th></tr>",
    );
    for (side, document) in [("before", &pair.before), ("after", &pair.after)] {
        for (number, run) in document.runs.iter().enumerate() {
            // The same measure as the pictures'.
            let latency = run.commit_percentiles().or(run.latency_ms);
            let latency = latency.map_or("<td>–</td><td>–</td>".to_owned(), |of| {
                format!("<td>{:.2}</td><td>{:.2}</td>", of.p50, of.p99)
            });
            write!(
                out,
                "<tr><td>{side}, {}</td><td>{}</td><td>{:.3}</td><td>{:.1}</td>{latency}</tr>",
                number + 1,
                magnitude(run.changes_per_second),
                run.cpu_us_per_change(),
                run.rss_mib(),
            )?;
        }
    }
    out.write_str("</table></div>")
}

fn stages(out: &mut String, comparison: &Comparison) -> Result<(), Failure> {
    let described = |side: &Side| {
        let of = side.stages.as_ref();
        of.map_or_else(String::new, |of| {
            format!("{} (on {})", of.commit, of.machine)
        })
    };
    write!(
        out,
        "<section><h2>Stages {}</h2><p>{} against {}. Criterion&rsquo;s benches, time per row or record, or bytes by time: ours, and \
         peers beside them in the same run. {WHAT_DOTS_MEAN} Peers are grey, however they differ.</p>",
        mark(&comparison.stages),
        escaped(&described(&comparison.after)),
        escaped(&described(&comparison.before)),
    )?;
    for obstacle in &comparison.stage_obstacles {
        write!(out, "<div class=\"notice\">{}</div>", escaped(obstacle))?;
    }
    for note in &comparison.stage_notes {
        write!(out, "<div class=\"notice soft\">{}</div>", escaped(note))?;
    }
    out.push_str("<div class=\"pictures\">");
    let reach = forest::reach(comparison.stages.iter());
    for (group, rows) in groups(&comparison.stages) {
        let svg = forest::picture(&rows, comparison.rules.tolerance, reach)?;
        html::picture(out, group, &svg, "")?;
    }
    out.push_str("</div>");
    table(out, &comparison.stages, comparison.rules.tolerance)?;
    out.push_str("</section>");
    Ok(())
}

/// The benches of each group that have an interval, named without it.
fn groups(stages: &[Judged]) -> BTreeMap<&str, Vec<(&str, &Judged)>> {
    let mut groups: BTreeMap<&str, Vec<(&str, &Judged)>> = BTreeMap::new();
    for stage in stages.iter().filter(|stage| stage.difference.is_some()) {
        let (group, bench) = stage.name.split_once('/').unwrap_or(("", &stage.name));
        groups.entry(group).or_default().push((bench, stage));
    }
    groups
}

fn how_to_read(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    write!(
        out,
        "<footer><p>Intervals are Welch&rsquo;s, on logarithms, made wide enough that all of a kind (whole runs; stages) hold together with \
         {:.0} % confidence. A regression is a figure whose interval leaves out &ldquo;no difference&rdquo; on the bad side and whose change \
         is more than {}. Runs of one session do not show how sessions differ: alternate the sides, or measure the baseline again, when \
         a verdict matters. A single run is assumed to lie within {} of what many would come to. A bench measured in one process is \
         believed only beyond the 2 % that processes are assumed to differ by.</p></footer>",
        (1.0 - comparison.rules.alpha) * 100.0,
        percent(comparison.rules.tolerance),
        percent(SINGLE_RUN_WITHIN),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    /// The pictures of two reports, the second one changed.
    fn pictures(report: fn() -> Document, change: impl Fn(&mut Document)) -> String {
        let mut after = report();
        change(&mut after);
        let pair = Pair {
            before: report(),
            after,
            figures: Vec::new(),
            obstacles: Vec::new(),
            gone: Vec::new(),
            new: Vec::new(),
            notes: Vec::new(),
        };
        let mut out = String::new();
        histograms(&mut out, &pair).unwrap();
        out
    }

    #[test]
    fn under_a_load_the_pictures_are_of_commits() {
        let slower_commits = |after: &mut Document| {
            after.figures.commit_histogram = Some(samples::histogram(0.9));
        };
        let slower_reads = |after: &mut Document| {
            after.figures.histogram = Some(samples::histogram(70.0));
        };
        let loaded = pictures(samples::loaded, |_| {});
        assert_eq!(loaded.matches("<svg").count(), 2);
        let note = loaded.matches("commit to the broker’s log").count();
        assert_eq!(note, 2, "{loaded}");
        assert!(!loaded.contains("read to acknowledged"));
        assert_ne!(pictures(samples::loaded, slower_commits), loaded);
        assert_eq!(pictures(samples::loaded, slower_reads), loaded);
    }

    #[test]
    fn without_a_load_the_pictures_are_of_what_was_read() {
        let plain = || samples::document(3, 2e6);
        let same = pictures(plain, |_| {});
        assert_eq!(same.matches("read to acknowledged").count(), 2);
        let slower = pictures(plain, |after| {
            after.figures.histogram = Some(samples::histogram(70.0));
        });
        assert_ne!(slower, same);
        // A replay's own commit times say how old the recording is.
        let aged = pictures(plain, |after| {
            after.figures.commit_histogram = Some(samples::histogram(1e3));
        });
        assert_eq!(aged, same);
        // With a load on one side alone, what both have is drawn.
        let mixed = pictures(plain, |after| *after = samples::loaded());
        assert_eq!(mixed.matches("read to acknowledged").count(), 2);
    }
}
