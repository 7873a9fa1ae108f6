//! The frame of a page: one HTML file with everything in it, no scripts, no fonts, nothing to load; light and dark, also on a phone.

use std::fmt::{self, Write as _};

use super::palette;

const STYLE: &str = "
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
header{background:linear-gradient(120deg,#0b1f4b,#1d4ed8 70%,#0d9488);color:#fff;padding:44px 0 72px}
header>div,main{max-width:1080px;margin:0 auto;padding:0 24px}main{padding-bottom:56px;margin-top:-44px}
h1{font-size:34px;line-height:1.2;margin:0 0 8px;letter-spacing:-.02em}header p{margin:0;opacity:.88;max-width:780px}
header p+p{margin-top:10px;font-size:14px}section{margin-bottom:40px}
h2{font-size:21px;line-height:1.35;margin:36px 0 4px;letter-spacing:-.01em}h2+p{margin:0 0 14px;color:var(--soft)}
h3{font-size:15px;line-height:1.4;margin:0 0 6px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px}.figures+div,.pictures+div,section>.card+.card{margin-top:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:18px 20px;box-shadow:0 1px 2px var(--shade);min-width:0}
.figure b{display:block;font-size:30px;line-height:1.15;letter-spacing:-.02em;white-space:nowrap}.figure span{color:var(--soft);font-size:14px}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:14px}
.card p{margin:6px 0 0;color:var(--soft);font-size:14px}svg{width:100%;height:auto;display:block}svg text{font-family:inherit}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:9px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-size:13px;color:var(--soft);font-weight:600;vertical-align:bottom}th:first-child,td:first-child{text-align:left;white-space:normal}
tr:last-child td{border-bottom:0}tr.median td{font-weight:600}.text{text-align:left;white-space:normal}td.verdict{min-width:220px}
td.good{color:var(--good)}td.bad{color:var(--bad);font-weight:600}td.soft{color:var(--soft)}
.badge{display:inline-block;border-radius:999px;padding:2px 12px;font-size:14px;font-weight:600;background:var(--good-ground);color:var(--good);white-space:nowrap}
.badge.bad{background:var(--bad-ground);color:var(--bad)}.badge.soft{background:var(--code);color:var(--soft)}
.notice{border-left:4px solid var(--bad);background:var(--card);border-radius:8px;padding:10px 16px;margin:10px 0;white-space:pre-wrap;overflow-wrap:anywhere}
.notice.soft{border-color:var(--grey)}footer{color:var(--soft);font-size:14px}
code{background:var(--code);border-radius:5px;padding:1px 6px;font-size:14px;overflow-wrap:anywhere}
@media(max-width:560px){header{padding:28px 0 64px}header>div,main{padding-left:14px;padding-right:14px}h1{font-size:27px}
.figures{grid-template-columns:1fr 1fr;gap:10px}.figure b{font-size:23px}.card{padding:12px 12px}
th,td{padding:7px 6px;font-size:14px}td.verdict{min-width:140px}}
@media print{header{background:none;color:inherit;padding:0}main{margin-top:0}.card{break-inside:avoid;box-shadow:none}}";

/// A whole page around `body`, which is HTML; `title` and `lead` are text.
#[must_use]
pub fn page(title: &str, lead: &str, body: &str) -> String {
    let (title, lead) = (escaped(title), escaped(lead));
    let palette = palette::css();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{palette}{STYLE}</style></head><body><header><div><h1>{title}</h1><p>{lead}</p></div></header>\
         <main>{body}</main></body></html>\n"
    )
}

/// Large figures: value and what it is, both text.
///
/// # Errors
/// Those of `out`.
pub fn cards(out: &mut String, cards: &[(String, String)]) -> fmt::Result {
    out.push_str("<div class=\"figures\">");
    for (value, what) in cards {
        let (value, what) = (escaped(value), escaped(what));
        write!(
            out,
            "<div class=\"card figure\"><b>{value}</b><span>{what}</span></div>"
        )?;
    }
    out.write_str("</div>")
}

/// A picture with its title and, where it needs one, a note; `title` and `note` are text.
///
/// # Errors
/// Those of `out`.
pub fn picture(out: &mut String, title: &str, svg: &str, note: &str) -> fmt::Result {
    let title = escaped(title);
    // The picture's title is also what is read to those who cannot see it.
    let svg = svg.replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-label=\"{title}\" "),
        1,
    );
    write!(out, "<div class=\"card\"><h3>{title}</h3>{svg}")?;
    if !note.is_empty() {
        write!(out, "<p>{}</p>", escaped(note))?;
    }
    out.write_str("</div>")
}

/// A mark beside a heading.
#[must_use]
pub fn badge(good: bool, text: &str) -> String {
    let class = if good { "badge" } else { "badge bad" };
    format!("<span class=\"{class}\">{}</span>", escaped(text))
}

/// A mark that is neither.
#[must_use]
pub fn soft_badge(text: &str) -> String {
    format!("<span class=\"badge soft\">{}</span>", escaped(text))
}

/// Text for use in HTML and its attributes.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The first letter as a capital.
#[must_use]
pub fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let page = page("a <b>", "c & \"d\"", "<p>body</p>");
        assert!(page.contains("<h1>a &lt;b&gt;</h1>"), "{page}");
        assert!(page.contains("c &amp; &quot;d&quot;"), "{page}");
        assert!(page.contains("<p>body</p>"), "{page}");
    }

    #[test]
    fn a_page_loads_nothing() {
        let page = page("x", "y", "");
        for text in ["<script", "<link", "src=", "@import", "url(", "http"] {
            assert!(!page.contains(text), "{text}");
        }
    }
}
