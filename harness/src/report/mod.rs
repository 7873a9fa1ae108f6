//! Reports as files: the JSON read back, and pages drawn from it. What a replay measured is in [`crate::replay::report`]; here is what
//! people look at: `harness replay --report`, `harness demo` and `harness compare` share these pieces.
//!
//! ```text
//! replay ─ JSON ─► Document ─► page (one file, SVG inside, nothing to load)
//! ```

pub mod chart;
pub mod document;
pub mod html;
pub mod latency;
pub mod number;
pub mod page;
pub mod palette;
#[cfg(test)]
pub(crate) mod samples;
pub mod timeline;

use std::path::Path;

use crate::replay::report::{self, Report};
use document::Document;
use page::Chapter;

/// Writes `NAME.json`, `NAME.engine.json` and `NAME.html` into `directory`, which is there.
///
/// # Errors
/// A file that cannot be written, with its name; a picture that cannot be drawn.
pub fn write(
    report: &Report,
    engine_report: &serde_json::Value,
    directory: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let name = &report.scenario;
    report::write(report, &directory.join(format!("{name}.json")))?;
    let engine = serde_json::to_string_pretty(engine_report)? + "\n";
    put(&directory.join(format!("{name}.engine.json")), &engine)?;
    let chapter = Chapter {
        title: name.clone(),
        document: Document::of(report)?,
    };
    let lead = format!(
        "{}, {} run{}: replayed through walbrook (broker: {}), read back by an independent client and compared with what must be there.",
        report.source,
        report.runs.len(),
        if report.runs.len() == 1 { "" } else { "s" },
        report.broker,
    );
    let repeat = format!("harness replay {name} --runs {}", report.runs.len());
    let page = page::html("Walbrook replay", &lead, &repeat, &[chapter])?;
    put(&directory.join(format!("{name}.html")), &page)?;
    Ok(())
}

/// Writes a file; its name is in the error.
///
/// # Errors
/// The path and what the system said.
pub fn put(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
