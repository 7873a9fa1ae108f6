//! The tables of a replay's page.

use std::fmt::Write as _;

use netem::Backend;

use super::document::{Document, Figures, Percentiles};
use super::html::{capitalised, escaped};
use super::number::{grouped, three_digits};

/// What each of several sources brought; the large figures are of all.
pub(super) fn sources(out: &mut String, document: &Document) -> std::fmt::Result {
    if document.sources.len() < 2 {
        return Ok(());
    }
    out.push_str(
        "<div class=\"card wide\"><table><tr><th>source</th><th class=\"text\">server</th><th class=\"text\">topic</th><th>changes</th><th>MB read</th>\
         <th>by</th><th>seconds</th><th>changes/s</th></tr>",
    );
    let cell = |known: Option<String>| known.unwrap_or_else(|| "–".to_owned());
    for of in &document.sources {
        write!(
            out,
            "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&of.source),
            escaped(&of.server),
            escaped(&of.topic),
            cell(of.changes.map(grouped)),
            cell(
                of.bytes_in
                    .map(|bytes| format!("{:.1}", bytes as f64 / 1e6))
            ),
            cell(of.io.as_deref().map(escaped)),
            cell(of.seconds.map(|seconds| format!("{seconds:.3}"))),
            cell(of.changes_per_second.map(|rate| grouped(rate as u64))),
        )?;
    }
    out.write_str("</table></div>")
}

/// How long rows of a load took to the broker's log: since their commit was sent, and since it was due, so with what it had to wait for.
pub(super) fn commits(out: &mut String, figures: &Figures) -> std::fmt::Result {
    let ways = [
        (
            "commit sent to the broker’s log",
            figures.commit_percentiles(),
        ),
        ("commit due to the broker’s log", figures.due_percentiles()),
    ];
    let ways = ways.into_iter().filter_map(|(name, of)| Some((name, of?)));
    percentiles(out, "ms of a load’s rows", ways)
}

/// Where records spent their time inside the engine.
pub(super) fn stations(out: &mut String, figures: &Figures) -> std::fmt::Result {
    let Some(stations) = &figures.stations else {
        return Ok(());
    };
    let ways = [
        ("read to decoded", stations.decoded.ms),
        ("to encoded, waiting included", stations.encoded.ms),
        ("to sent", stations.sent.ms),
        ("to acknowledged", stations.acknowledged.ms),
    ];
    percentiles(out, "ms from the station before", ways.into_iter())
}

/// A table of times in milliseconds, a row for each of `ways`; nothing where there is none. `title` and names are HTML.
fn percentiles<'a>(
    out: &mut String,
    title: &str,
    ways: impl Iterator<Item = (&'a str, Percentiles)>,
) -> std::fmt::Result {
    let mut ways = ways.peekable();
    if ways.peek().is_none() {
        return Ok(());
    }
    write!(
        out,
        "<div class=\"card wide\"><table><tr><th>{title}</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>",
    )?;
    for (name, of) in ways {
        write!(out, "<tr><td>{name}</td>")?;
        [of.p50, of.p90, of.p99, of.p999, of.max]
            .iter()
            .try_for_each(|ms| write!(out, "<td>{ms:.2}</td>"))?;
        out.write_str("</tr>")?;
    }
    out.write_str("</table></div>")
}

/// What it cost to know the times.
pub(super) fn timing(out: &mut String, figures: &Figures) -> std::fmt::Result {
    let Some(timing) = &figures.timing else {
        return Ok(());
    };
    write!(
        out,
        "<div class=\"card\"><p>For its times the engine read clocks {} times, {:.1} ns each: {} % of its processor time.</p></div>",
        grouped(timing.clock_reads),
        timing.ns_per_read,
        three_digits(timing.cpu_share * 100.0),
    )
}

/// What the emulated links carried.
pub(super) fn links(out: &mut String, figures: &Figures) -> std::fmt::Result {
    let Some(links) = &figures.links else {
        return Ok(());
    };
    write!(
        out,
        "<div class=\"card wide\"><table><tr><th>links, emulated by {}</th><th>MB to<br>the engine</th><th class=\"text\">over</th>\
         <th>MB from<br>the engine</th><th class=\"text\">over</th><th>packets lost</th></tr>",
        escaped(&links.backend)
    )?;
    for link in &links.links {
        let (to, from) = (&link.to_engine, &link.from_engine);
        let host = match &link.seen_from {
            None => link.host.clone(),
            Some(one) => format!("{}, seen from {one} instead", link.host),
        };
        write!(
            out,
            "<tr><td>{}</td><td>{:.2}</td><td class=\"text\">{}</td><td>{:.2}</td><td class=\"text\">{}</td><td>{} of {}</td></tr>",
            escaped(&host),
            to.bytes as f64 / 1e6,
            escaped(&to.profile),
            from.bytes as f64 / 1e6,
            escaped(&from.profile),
            grouped(to.lost + to.overflowed + from.lost + from.overflowed),
            grouped(to.packets + from.packets),
        )?;
    }
    out.push_str("</table>");
    let backend = links.backend.parse::<Backend>().ok();
    if let Some(caveat) = backend.and_then(Backend::caveat) {
        write!(out, "<p>{}.</p>", escaped(&capitalised(caveat)))?;
    }
    for refusal in &links.refused {
        let refusal = refusal.trim_end_matches('.');
        write!(out, "<p>Not by {}.</p>", escaped(refusal))?;
    }
    if let (Some(limit), Some(times)) = (links.limit_seconds, links.times_limit) {
        write!(
            out,
            "<p>The busiest direction needs {limit:.2} s for its bytes at its rate; the run took {times:.2} times that.</p>"
        )?;
    }
    out.write_str("</div>")
}

/// A row per run, the median one marked.
pub(super) fn runs(out: &mut String, document: &Document) -> std::fmt::Result {
    let runs = &document.runs;
    let is_middle = |run: &Figures| {
        let middle = &document.figures;
        (run.seconds, run.cpu_seconds) == (middle.seconds, middle.cpu_seconds)
    };
    let middle = runs.iter().position(is_middle).unwrap_or(runs.len());
    out.write_str(
        "<div class=\"card wide\"><table><tr><th>run</th><th>seconds</th><th>changes/s</th><th>CPU µs<br>per change</th>\
         <th>peak MiB</th><th>MB to Kafka</th><th>p50 ms</th><th>p99 ms</th><th>p99.9 ms</th><th>max ms</th></tr>",
    )?;
    for (number, run) in runs.iter().enumerate() {
        let class = match number == middle && runs.len() > 1 {
            true => " class=\"median\"",
            false => "",
        };
        write!(
            out,
            "<tr{class}><td>{}{}</td><td>{:.3}</td><td>{}</td><td>{:.3}</td><td>{:.1}</td><td>{:.1}</td>",
            number + 1,
            if class.is_empty() { "" } else { ", the median" },
            run.seconds,
            grouped(run.changes_per_second as u64),
            run.cpu_us_per_change(),
            run.rss_mib(),
            run.bytes_out as f64 / 1e6,
        )?;
        match run.commit_percentiles().or(run.latency_ms) {
            Some(of) => [of.p50, of.p99, of.p999, of.max]
                .iter()
                .try_for_each(|ms| write!(out, "<td>{ms:.2}</td>"))?,
            None => out.write_str("<td>–</td><td>–</td><td>–</td><td>–</td>")?,
        }
        out.write_str("</tr>")?;
    }
    out.write_str("</table></div>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_refusal_ends_with_one_stop() {
        let mut document = samples::linked();
        let of = document.figures.links.as_mut().unwrap();
        of.refused = vec!["tc: Specified qdisc kind is unknown.".into()];
        let mut out = String::new();
        links(&mut out, &document.figures).unwrap();
        assert!(out.contains("kind is unknown.</p>"), "{out}");
    }

    #[test]
    fn figures_over_a_relay_say_what_they_do_not_mean() {
        let shown = |backend: &str| {
            let mut document = samples::linked();
            document.figures.links.as_mut().unwrap().backend = backend.into();
            let mut out = String::new();
            links(&mut out, &document.figures).unwrap();
            out
        };
        let proxy = shown("proxy");
        for said in [
            "<p>A relay of streams can neither lose nor reorder packets",
            "bytes are payload alone",
        ] {
            assert!(proxy.contains(said), "{proxy}");
        }
        assert!(!shown("tun").contains("relay"));
    }
}
