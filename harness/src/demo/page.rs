//! The demo's page: one HTML file with everything in it, no scripts, no fonts, nothing to load.

use std::fmt::Write as _;

use super::{Chapter, grouped, pictures};
use crate::replay::report::Figures;

const STYLE: &str = "
:root{--ink:#0f172a;--soft:#475569;--line:#e2e8f0;--paper:#f8fafc;--card:#fff;--blue:#2563eb;--good:#047857;--bad:#b91c1c}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
header{background:linear-gradient(120deg,#0b1f4b,#1d4ed8 70%,#0d9488);color:#fff;padding:44px 0 72px}header>div{padding:0 24px}
header>div,main{max-width:1040px;margin:0 auto}h1{font-size:34px;line-height:1.2;margin:0 0 8px;letter-spacing:-.02em}
header p{margin:0;opacity:.85;max-width:760px}main{padding:0 24px 56px;margin-top:-44px}
section{margin-bottom:36px}h2{font-size:20px;margin:36px 0 4px;letter-spacing:-.01em}h2+p{margin:0 0 14px;color:var(--soft)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:18px 20px;box-shadow:0 1px 2px rgba(15,23,42,.05)}
.figure b{display:block;font-size:30px;line-height:1.15;letter-spacing:-.02em}.figure span{color:var(--soft);font-size:14px}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:14px}.card h3{font-size:15px;margin:0 0 6px}
.card p{margin:4px 0 0;color:var(--soft);font-size:14px}svg{width:100%;height:auto;display:block}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:9px 10px;text-align:right;border-bottom:1px solid var(--line)}
th{font-size:13px;color:var(--soft);font-weight:600}th:first-child,td:first-child{text-align:left}tr:last-child td{border-bottom:0}
.badge{display:inline-block;border-radius:999px;padding:2px 12px;font-size:14px;font-weight:600;background:#d1fae5;color:var(--good)}
.badge.bad{background:#fee2e2;color:var(--bad)}footer{color:var(--soft);font-size:14px}code{background:#eef2f7;border-radius:5px;padding:1px 6px;font-size:14px}
@media(max-width:560px){.pictures{grid-template-columns:1fr}}";

/// The page for these chapters.
///
/// # Errors
/// A picture that cannot be drawn.
pub(super) fn html(
    chapters: &[Chapter],
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Walbrook demo</title><style>{STYLE}</style></head><body>\
         <header><div><h1>Walbrook</h1><p>Row changes recorded from real MySQL and PostgreSQL servers, replayed over their replication protocols, \
         encoded as Debezium records, produced into Kafka&rsquo;s protocol, read back by an independent client and compared with \
         what the workload&rsquo;s generator says must be there.</p></div></header><main>"
    );
    for (number, chapter) in chapters.iter().enumerate() {
        section(&mut page, chapter, number == 0)?;
    }
    if let Some(chapter) = chapters.first() {
        write!(
            page,
            "<footer><p>{} &middot; version {} &middot; commit <code>{}</code> &middot; engine, replay server, broker and \
             measurement share this machine. Repeat it with <code>cargo demo</code>.</p></footer>",
            escaped(&chapter.report.machine),
            chapter.report.version,
            chapter.report.commit
        )?;
    }
    page.push_str("</main></body></html>\n");
    Ok(page)
}

fn section(
    page: &mut String,
    chapter: &Chapter,
    first: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Chapter {
        report, outcome, ..
    } = chapter;
    page.push_str("<section>");
    // The first chapter's figures stand on the page's head.
    if first {
        cards(page, &report.figures)?;
        heading(page, chapter)?;
    } else {
        heading(page, chapter)?;
        cards(page, &report.figures)?;
        page.push_str("<div style=\"height:14px\"></div>");
    }
    page.push_str("<div class=\"pictures\">");
    picture(
        page,
        "Changes arriving in the broker",
        &pictures::throughput(outcome)?,
        "Red lines: the engine is killed and started again.",
        !outcome.faults.is_empty(),
    )?;
    if let Some(svg) = pictures::latency(outcome)? {
        picture(
            page,
            "Latency under full load",
            &svg,
            "Everything is waiting from the start, so this is queueing, not idle latency.",
            true,
        )?;
    }
    picture(page, "Processor", &pictures::processor(outcome)?, "", false)?;
    picture(
        page,
        "Memory (resident set)",
        &pictures::memory(outcome)?,
        "",
        false,
    )?;
    page.push_str("</div>");
    runs(page, &report.runs)?;
    page.push_str("</section>");
    Ok(())
}

/// Title, verdict, story, and what failed.
fn heading(page: &mut String, chapter: &Chapter) -> std::fmt::Result {
    let (class, verdict) = if chapter.report.verified {
        ("badge", "verified")
    } else {
        ("badge bad", "failed")
    };
    let mut letters = chapter.title.chars();
    let title: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(letters)
        .collect();
    let (title, story) = (escaped(&title), escaped(&story(chapter)));
    write!(
        page,
        "<h2>{title} <span class=\"{class}\">{verdict}</span></h2><p>{story}</p>"
    )?;
    for failure in &chapter.report.failures {
        write!(page, "<p class=\"badge bad\">{}</p>", escaped(failure))?;
    }
    Ok(())
}

/// The four large figures.
fn cards(page: &mut String, figures: &Figures) -> std::fmt::Result {
    let p99 = figures
        .latency_ms
        .get("p99")
        .and_then(serde_json::Value::as_f64);
    let cards = [
        (
            format!("{:.2} M/s", figures.changes_per_second / 1e6),
            "row changes per second",
        ),
        (
            format!("{:.2} µs", figures.cpu_us_per_change()),
            "engine CPU per change",
        ),
        (
            format!("{:.1} MiB", figures.rss_mib()),
            "engine peak memory",
        ),
        match p99 {
            Some(p99) => (
                format!("{p99:.0} ms"),
                "99th percentile, read to acknowledged",
            ),
            None => (
                format!("{:.2} s", figures.seconds),
                "first byte to last append",
            ),
        },
    ];
    page.write_str("<div class=\"figures\">")?;
    for (value, what) in cards {
        write!(
            page,
            "<div class=\"card figure\"><b>{value}</b><span>{what}</span></div>"
        )?;
    }
    page.write_str("</div>")
}

/// What happened, in a sentence or two.
fn story(chapter: &Chapter) -> String {
    let figures = &chapter.report.figures;
    let mut text = format!(
        "{} changes became {} records (a delete is a record and a tombstone): {:.1} MB read, {:.1} MB written, in {:.3} s.",
        grouped(figures.changes),
        grouped(figures.records),
        figures.bytes_in as f64 / 1e6,
        figures.bytes_out as f64 / 1e6,
        figures.seconds,
    );
    if !chapter.report.faults.is_empty() {
        text.push_str(&format!(
            " {} faults on the way.",
            chapter.report.faults.len()
        ));
    }
    if chapter.report.verified {
        text.push_str(" Every change arrived once, in the order of its key, and nothing else did.");
    }
    text
}

fn picture(page: &mut String, title: &str, svg: &str, note: &str, noted: bool) -> std::fmt::Result {
    write!(page, "<div class=\"card\"><h3>{title}</h3>{svg}")?;
    if noted {
        write!(page, "<p>{note}</p>")?;
    }
    page.write_str("</div>")
}

fn runs(page: &mut String, runs: &[Figures]) -> std::fmt::Result {
    page.write_str(
        "<div class=\"card\" style=\"margin-top:14px\"><table><tr><th>run</th><th>seconds</th><th>changes per second</th>\
         <th>CPU µs per change</th><th>peak MiB</th><th>bytes to Kafka</th></tr>",
    )?;
    for (number, run) in runs.iter().enumerate() {
        write!(
            page,
            "<tr><td>{}</td><td>{:.3}</td><td>{}</td><td>{:.3}</td><td>{:.1}</td><td>{}</td></tr>",
            number + 1,
            run.seconds,
            grouped(run.changes_per_second as u64),
            run.cpu_us_per_change(),
            run.rss_mib(),
            grouped(run.bytes_out)
        )?;
    }
    page.write_str("</table></div>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
