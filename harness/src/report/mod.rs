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
mod tables;
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
    let page = page::html("Walbrook replay", &lead, &repeat(report), &[chapter])?;
    put(&directory.join(format!("{name}.html")), &page)?;
    Ok(())
}

/// The command that makes the report again.
fn repeat(report: &Report) -> String {
    let (name, runs) = (&report.scenario, report.runs.len());
    let mut command = format!("harness replay {name} --runs {runs}");
    for setting in &report.set {
        command += " --set ";
        command += &quoted(setting);
    }
    command
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/=:,@%+".contains(&byte);
    match word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Writes a file, and makes the directory for it; their names are in the errors.
///
/// # Errors
/// The path and what the system said.
pub fn put(path: &Path, text: &str) -> Result<(), String> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::report::Figures;
    use crate::replay::scenario::Scenario;

    /// The report of `runs` runs of a scenario with `settings` over it.
    fn report(settings: &[&str], runs: usize) -> Report {
        let mut scenario: Scenario = toml::from_str("[[source]]\nrecording = \"x\"").unwrap();
        scenario.name = "mysql-1m".into();
        settings
            .iter()
            .for_each(|setting| scenario.set(setting).unwrap());
        let outcome = || crate::replay::Outcome {
            figures: Figures::default(),
            sources: Vec::new(),
            failures: Vec::new(),
            faults: Vec::new(),
            samples: Vec::new(),
            arrivals: Vec::new(),
            start: crate::clock::now(),
            broker: String::new(),
            engine_report: serde_json::json!({ "build": "release" }),
        };
        let outcomes = (0..runs).map(|_| outcome()).collect();
        crate::replay::summary(&scenario, outcomes, false).0
    }

    #[test]
    fn a_report_is_repeated_with_its_settings() {
        let plain = repeat(&report(&[], 5));
        assert_eq!(plain, "harness replay mysql-1m --runs 5");
        let set = [
            "engine.io=uring",
            "source.a.tables=[\"x.*\"]",
            "kafka.client_id=it's",
        ];
        assert_eq!(
            repeat(&report(&set, 1)),
            "harness replay mysql-1m --runs 1 --set engine.io=uring --set 'source.a.tables=[\"x.*\"]' \
             --set 'kafka.client_id=it'\\''s'"
        );
    }

    #[test]
    fn what_was_set_is_read_back() {
        let document = Document::of(&report(&["engine.io=uring"], 1)).unwrap();
        assert_eq!(document.set, ["engine.io=uring"]);
        assert_eq!(document.build.as_deref(), Some("release"));
        let settings = document.settings.unwrap();
        assert_eq!(settings["walbrook"]["engine"]["io"], "uring");
        let plain = Document::of(&report(&[], 1)).unwrap();
        assert!(plain.set.is_empty() && plain.settings.is_some());
    }
}
