//! The page of a replay: per scenario its verdict, the large figures, four pictures, and every run.

use std::fmt::Write as _;

use super::chart::{self, OverTime};
use super::document::{Document, Figures, SourceOf};
use super::html::{self, badge, escaped};
use super::latency::{self, Curve};
use super::number::{counted, grouped, magnitude, milliseconds};
use super::palette::{AMBER, BLUE, GREY, TEAL, VIOLET};
use super::tables;

/// Of fewer arrivals no rate over time can be drawn.
const ARRIVALS_MIN: usize = 8;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A scenario on a page.
#[derive(Clone, Debug)]
pub struct Chapter {
    /// What it shows.
    pub title: String,
    /// What was measured.
    pub document: Document,
}

/// The page for these chapters; `title` and `lead` are text, `repeat` the command that makes them again.
///
/// # Errors
/// A picture that cannot be drawn.
pub fn html(
    title: &str,
    lead: &str,
    repeat: &str,
    chapters: &[Chapter],
) -> Result<String, Failure> {
    let mut body = String::new();
    for (number, chapter) in chapters.iter().enumerate() {
        section(&mut body, chapter, number == 0)?;
    }
    if let Some(Chapter { document, .. }) = chapters.first() {
        write!(
            body,
            "<footer><p>{} &middot; version {} &middot; commit <code>{}</code> &middot; engine, what it reads from and the broker share \
             this machine. Repeat it with <code>{}</code>.</p></footer>",
            escaped(&document.machine),
            escaped(&document.version),
            escaped(&document.commit),
            escaped(repeat),
        )?;
    }
    Ok(html::page(title, lead, &body))
}

fn section(out: &mut String, chapter: &Chapter, first: bool) -> Result<(), Failure> {
    let document = &chapter.document;
    out.push_str("<section>");
    // The first chapter's figures stand on the page's head.
    if first {
        html::cards(out, &cards(&document.figures))?;
        heading(out, chapter)?;
    } else {
        heading(out, chapter)?;
        html::cards(out, &cards(&document.figures))?;
    }
    out.push_str("<div class=\"pictures\">");
    pictures(out, document)?;
    out.push_str("</div>");
    tables::sources(out, document)?;
    tables::commits(out, &document.figures)?;
    tables::stations(out, &document.figures)?;
    tables::timing(out, &document.figures)?;
    tables::links(out, &document.figures)?;
    tables::runs(out, document)?;
    out.push_str("</section>");
    Ok(())
}

/// Title, verdict, story, and what failed or was missed.
fn heading(out: &mut String, chapter: &Chapter) -> std::fmt::Result {
    let document = &chapter.document;
    // A scenario's name is a word that can be typed.
    let title = match chapter.title == document.scenario {
        true => chapter.title.clone(),
        false => html::capitalised(&chapter.title),
    };
    let mut verdict = match document.verified {
        true => badge(true, "verified"),
        false => badge(false, "failed"),
    };
    if !document.unmet.is_empty() {
        verdict += " ";
        verdict += &badge(false, "missed what is expected");
    }
    write!(
        out,
        "<h2>{} {verdict}</h2><p>{}</p>",
        escaped(&title),
        escaped(&story(document)),
    )?;
    for failure in document.failures.iter().chain(&document.unmet) {
        write!(out, "<div class=\"notice\">{}</div>", escaped(failure))?;
    }
    Ok(())
}

/// The four large figures.
fn cards(figures: &Figures) -> [(String, String); 4] {
    let rate = (
        format!("{}/s", magnitude(figures.changes_per_second)),
        "row changes per second",
    );
    let last = match (figures.commit_percentiles(), figures.latency_ms) {
        (Some(commit), _) => (
            milliseconds(commit.p99),
            "99th percentile, commit to the broker’s log",
        ),
        (None, Some(latency)) => (
            milliseconds(latency.p99),
            "99th percentile, read to acknowledged",
        ),
        (None, None) => (
            milliseconds(figures.seconds * 1e3),
            "first byte to last append",
        ),
    };
    // Under a load the rate is what was offered: latency is what counts.
    let first = figures.commit_percentiles().map_or(rate, |commit| {
        (
            milliseconds(commit.p50),
            "median, commit to the broker’s log",
        )
    });
    let processor = (
        format!("{:.2} µs", figures.cpu_us_per_change()),
        "engine CPU per change",
    );
    let memory = (
        format!("{:.1} MiB", figures.rss_mib()),
        "engine peak memory",
    );
    [first, processor, memory, last].map(|(value, what)| (value, what.to_owned()))
}

/// What happened, in a sentence or two.
fn story(document: &Document) -> String {
    let figures = &document.figures;
    // Of several each has it in its row.
    let by = match document.sources.as_slice() {
        [SourceOf { io: Some(io), .. }] => format!(" by {io}"),
        _ => String::new(),
    };
    let mut text = format!(
        "{} changes became {} records (a delete is a record and a tombstone): {:.1} MB read{by}, {:.1} MB written, in {:.3} s.",
        grouped(figures.changes),
        grouped(figures.records),
        figures.bytes_in as f64 / 1e6,
        figures.bytes_out as f64 / 1e6,
        figures.seconds,
    );
    if let Some(load) = &figures.load {
        let offered = load.offered_changes_per_second;
        let offered = offered.map_or("as much as it took".to_owned(), |rate| {
            format!("{} changes/s", magnitude(rate))
        });
        text += &format!(
            " Meanwhile {} offered the server {offered}, {} a commit; it committed {} changes/s.",
            counted(load.writers as usize, "writer"),
            counted(load.rows_per_commit as usize, "row"),
            magnitude(load.committed_changes_per_second),
        );
        if let (Some(links), Some(over)) = (&load.over_links, figures.over_round_trip()) {
            text += &format!(
                " Until a commit is acknowledged the links need {} by themselves; over that came {} for half of the rows, {} for 99 of 100.",
                milliseconds(links.round_trip_ms),
                milliseconds(over.p50),
                milliseconds(over.p99),
            );
        }
    }
    match document.faults.as_slice() {
        [] => {}
        [fault] => text += &format!(" One fault on the way: {}.", fault.label()),
        faults => text += &format!(" {} faults on the way.", faults.len()),
    }
    if document.verified {
        text += " Every change arrived once, in the order of its key, and nothing else did.";
    }
    text
}

fn pictures(out: &mut String, document: &Document) -> Result<(), Failure> {
    let (figures, timeline) = (&document.figures, &document.timeline);
    if !rates(document).is_empty() {
        let svg = throughput(document)?;
        html::picture(
            out,
            "Changes arriving in the broker",
            &svg,
            &throughput_note(document),
        )?;
    }
    latency(out, figures)?;
    if timeline.usage.is_empty() {
        return Ok(());
    }
    let end = (timeline.usage.last()).map_or(figures.seconds, |last| last.0.max(figures.seconds));
    // The kernel counts in hundredths of a second: shorter windows would show its ticks.
    let cores = timeline.cores((end / 40.0).max(0.05));
    let svg = chart::over_time(&OverTime {
        points: &cores,
        end,
        top: 1.0,
        colour: TEAL,
        unit: "cores",
        marks: &[],
        limit: None,
    })?;
    html::picture(out, "Processor", &svg, "")?;
    let memory: Vec<(f64, f64)> = (timeline.usage.iter())
        .map(|(at, _, bytes)| (*at, *bytes as f64 / f64::from(1 << 20)))
        .collect();
    let svg = chart::over_time(&OverTime {
        points: &memory,
        end,
        top: 16.0,
        colour: VIOLET,
        unit: "MiB",
        marks: &[],
        limit: None,
    })?;
    html::picture(out, "Memory (resident set)", &svg, "")?;
    Ok(())
}

/// Read to acknowledged, or commit to the broker's log where a load was offered: as it was sent and as it was due, beside a bare reader.
fn latency(out: &mut String, figures: &Figures) -> Result<(), Failure> {
    let (read, commit) = (figures.latency()?, figures.commit_latency()?);
    let due = figures.due_latency()?.filter(|_| commit.is_some());
    let bare = figures.bare_latency()?.filter(|_| commit.is_some());
    let name = |name| if commit.is_some() { name } else { "" };
    let curves = [
        (&due, name("commit due to the broker’s log"), TEAL),
        (&commit, name("commit to the broker’s log"), BLUE),
        (&read, name("of that, read to acknowledged"), AMBER),
        (&bare, name("commit to a bare reader"), GREY),
    ];
    let curves: Vec<Curve<'_>> = (curves.into_iter())
        .filter_map(|(histogram, label, colour)| {
            Some(Curve {
                label,
                histogram: histogram.as_ref()?,
                colour,
            })
        })
        .collect();
    if curves.is_empty() {
        return Ok(());
    }
    let (title, note) = match commit {
        Some(_) => ("Latency", ""),
        None => (
            "Latency, read to acknowledged",
            " Where everything waits from the start, this is queueing, not idle latency.",
        ),
    };
    html::picture(
        out,
        title,
        &latency::percentiles(&curves)?,
        &format!("Each step to the right is a tenth of the records of the one before.{note}"),
    )?;
    Ok(())
}

/// Seconds and changes per second of the median run; empty where the report does not hold it over time: older ones of a load have only
/// its end.
#[must_use]
pub fn rates(document: &Document) -> Vec<(f64, f64)> {
    if document.timeline.arrivals.len() < ARRIVALS_MIN {
        return Vec::new();
    }
    let figures = &document.figures;
    // Records arrive; a delete's two are one change.
    let changes = figures.changes as f64 / figures.records.max(1) as f64;
    let window = (figures.seconds / 50.0).max(0.01);
    let rates = document.timeline.rates(window, figures.seconds);
    rates
        .into_iter()
        .map(|(at, records)| (at, records * changes))
        .collect()
}

/// What to divide rates up to `highest` by, and the unit that they then have.
#[must_use]
pub fn rate_unit(highest: f64) -> (f64, &'static str) {
    match highest {
        rate if rate >= 5e5 => (1e6, "M changes/s"),
        rate if rate >= 5e2 => (1e3, "k changes/s"),
        _ => (1.0, "changes/s"),
    }
}

/// Changes per second over time.
fn throughput(document: &Document) -> chart::Drawn {
    let figures = &document.figures;
    let rates = rates(document);
    let (scale, unit) = rate_unit(rates.iter().map(|point| point.1).fold(0.0, f64::max));
    let points: Vec<(f64, f64)> = (rates.iter())
        .map(|(at, rate)| (*at, rate / scale))
        .collect();
    let marks: Vec<(f64, String)> = (document.faults.iter())
        .filter_map(|fault| Some((fault.at_seconds?, fault.label())))
        .collect();
    let limit = document
        .limit()
        .map(|limit| (limit.changes_per_second / scale, limit.label));
    chart::over_time(&OverTime {
        points: &points,
        end: figures.seconds,
        top: 0.0,
        colour: BLUE,
        unit,
        marks: &marks,
        limit,
    })
}

fn throughput_note(document: &Document) -> String {
    let mut notes = Vec::new();
    if document
        .faults
        .iter()
        .any(|fault| fault.at_seconds.is_some())
    {
        notes.push("Red lines: faults.".to_owned());
    }
    if let Some(limit) = document.limit() {
        let part = document.figures.changes_per_second / limit.changes_per_second * 100.0;
        notes.push(format!(
            "{}: {}/s, of which this is {part:.0} %.",
            html::capitalised(&limit.label),
            magnitude(limit.changes_per_second),
        ));
    }
    notes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_page_holds_everything_and_loads_nothing() {
        let chapter = |document| Chapter {
            title: "a million changes".into(),
            document,
        };
        let chapters = [
            chapter(samples::document(5, 2.0e6)),
            chapter(samples::killed()),
            chapter(samples::linked()),
            chapter(samples::loaded()),
            chapter(samples::both()),
        ];
        let page = html("Walbrook", "a lead", "cargo demo", &chapters).unwrap();
        assert_eq!(
            page.matches("<svg").count(),
            19,
            "four pictures, three where there is no histogram"
        );
        for text in [
            "2.00 M/s",
            "0.52 µs",
            "48.0 MiB",
            "verified",
            "failed",
            "A &lt;machine&gt;",
            "1,250,000",
            "found 2",
            "kill engine",
            "3, the median",
            "99.9\n",
            "the link’s limit",
            "delay 10ms rate 1gbit loss 1%",
            "Not by tc: no sch_netem.",
            "to encoded, waiting included",
            "commit to the broker’s log",
            "commit to a bare reader",
            "<td>commit sent to the broker’s log</td><td>8.00</td><td>15.00</td><td>21.00</td><td>25.00</td><td>26.00</td>",
            "<td>commit due to the broker’s log</td><td>8.50</td><td>15.00</td><td>30.00</td><td>55.00</td><td>66.00</td>",
            "read clocks 1,465 times, 29.0 ns each: 0.00470 % of its processor time",
            "4 writers offered the server 50.0 k changes/s",
            "<td class=\"text\">mysql 9.7.4</td><td class=\"text\">mysql-9.7-1m.events</td><td>600,000</td><td>53.6</td><td>uring</td><td>0.400</td><td>1,500,000</td>",
            "<td class=\"text\">postgres 15.18</td><td class=\"text\">live postgres.events</td><td>400,000</td><td>–</td><td>–</td><td>–</td><td>–</td>",
            "the links need 30.2 ms by themselves; over that came 8.00 ms for half of the rows",
        ] {
            assert!(page.contains(text), "{text}");
        }
        for text in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(text), "{text}");
        }
        if let Some(path) = std::env::var_os("WALBROOK_PAGE") {
            std::fs::write(path, page).unwrap();
        }
    }

    #[test]
    fn what_read_a_sole_source_stands_in_its_story() {
        let mut document = samples::both();
        assert!(!story(&document).contains(" by "), "{}", story(&document));
        document.sources.truncate(1);
        assert!(story(&document).contains("MB read by uring, "));
    }

    #[test]
    fn a_scenarios_name_stands_as_it_is_typed() {
        let heading = |title: &str| {
            let mut out = String::new();
            let document = samples::document(1, 2e6);
            let title = title.to_owned();
            heading(&mut out, &Chapter { title, document }).unwrap();
            out
        };
        assert!(heading("mysql-1m").starts_with("<h2>mysql-1m "));
        assert!(heading("a million changes").starts_with("<h2>A million changes "));
    }

    #[test]
    fn one_is_told_as_one() {
        let mut document = samples::loaded();
        let load = document.figures.load.as_mut().unwrap();
        (load.writers, load.rows_per_commit) = (1, 1);
        let story = story(&document);
        assert!(story.contains(" 1 writer offered "), "{story}");
        assert!(story.contains(", 1 row a commit"), "{story}");
    }

    #[test]
    fn a_rate_over_time_is_not_made_of_two_arrivals() {
        let mut document = samples::loaded();
        assert!(!rates(&document).is_empty());
        document.timeline.arrivals = vec![(-0.2, 1), (15.9, 799_101), (16.0, 799_101)];
        assert!(rates(&document).is_empty());
        let mut out = String::new();
        pictures(&mut out, &document).unwrap();
        assert!(!out.contains("Changes arriving") && out.contains("Latency"));
    }
}
