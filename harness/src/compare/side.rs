//! One side of a comparison: a report, a directory of reports, criterion's results, or all of these.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::stages::Stages;
use crate::report::document::Document;

/// What a side holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// Where it was read from, for messages.
    pub(crate) shown: String,
    /// Reports by scenario.
    pub(crate) reports: BTreeMap<String, Document>,
    /// Criterion's results.
    pub(crate) stages: Option<Stages>,
    /// Whether it is one thing, a report or stages, and no directory of them, in which something may be missing.
    pub(crate) is_one: bool,
}

impl Side {
    /// Reads `path`: a report, a file of `harness stages`, criterion's directory (`target/criterion`, or `target/criterion:NAME` for a
    /// saved baseline), or a directory with any of these.
    ///
    /// # Errors
    /// A message that names the file and what is wrong; a directory that holds nothing to compare.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let mut side = Self {
            shown: path.display().to_string(),
            ..Self::default()
        };
        let (path, baseline) = named_baseline(path);
        if path.is_dir() {
            side.read_directory(&path, &baseline)?;
        } else {
            side.read_file(&path)?;
            side.is_one = true;
        }
        Ok(side)
    }

    /// The side's commits, each once: `commit A`, `commits A, B`.
    #[must_use]
    pub(crate) fn commits(&self) -> String {
        let reports = self.reports.values().map(|report| report.commit.as_str());
        let mut commits: Vec<&str> = reports
            .chain(self.stages.iter().map(|of| of.commit.as_str()))
            .collect();
        commits.sort_unstable();
        commits.dedup();
        let noun = if commits.len() == 1 {
            "commit"
        } else {
            "commits"
        };
        format!("{noun} {}", commits.join(", "))
    }

    fn read_directory(&mut self, path: &Path, baseline: &str) -> Result<(), String> {
        let entries =
            std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.is_file() && is_report(file))
            .collect();
        files.sort();
        files.iter().try_for_each(|file| self.read_file(file))?;
        let criterion = path.join("criterion");
        if criterion.is_dir() {
            self.add_stages(Stages::of_criterion(&criterion, baseline)?)?;
        } else if files.is_empty() {
            // It may be criterion's own.
            self.add_stages(Stages::of_criterion(path, baseline).map_err(|error| {
                format!("{error}; nor is there a report of `harness replay --report`")
            })?)?;
            self.is_one = true;
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        // A whole file must be one or the other; which of them decides what is said of a damaged one.
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| format!("{shown}: {error}"))?;
        if value.get("stages").is_some() {
            let stages = Stages::parse(&text).map_err(|error| format!("{shown}: {error}"))?;
            return self.add_stages(stages);
        }
        let report = Document::read(path)?;
        let scenario = report.scenario.clone();
        if self.reports.insert(scenario.clone(), report).is_some() {
            return Err(format!(
                "{shown}: a second report of scenario {scenario} in one directory"
            ));
        }
        Ok(())
    }

    fn add_stages(&mut self, stages: Stages) -> Result<(), String> {
        match &mut self.stages {
            Some(ours) => ours.add(stages),
            None => {
                self.stages = Some(stages);
                Ok(())
            }
        }
    }
}

/// `DIR:NAME` as the directory and the baseline's name.
fn named_baseline(path: &Path) -> (PathBuf, String) {
    let text = path.to_string_lossy();
    match text.rsplit_once(':') {
        Some((directory, name)) if !path.exists() && Path::new(directory).is_dir() => {
            (directory.into(), name.to_owned())
        }
        _ => (path.to_owned(), "new".to_owned()),
    }
}

/// The engine's own reports lie beside the harness's.
fn is_report(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".json") && !name.ends_with(".engine.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::criterion::tests::criterion;

    #[test]
    fn criterion_alone_with_a_baseline_or_inside_a_directory() {
        let directory = criterion(&[("a/b", 5.0)], "main");
        let named = PathBuf::from(format!("{}:main", directory.path().display()));
        assert_eq!(Side::read(&named).unwrap().stages.unwrap().stages.len(), 1);
        let outer = tempfile::tempdir().unwrap();
        std::fs::rename(directory.path(), outer.path().join("criterion")).unwrap();
        let error = Side::read(outer.path()).unwrap_err();
        assert!(error.contains("no results named `new`"), "{error}");
    }

    #[test]
    fn nothing_to_compare_is_an_error_that_says_what_would_be() {
        let empty = tempfile::tempdir().unwrap();
        let error = Side::read(empty.path()).unwrap_err();
        assert!(
            error.contains("cargo bench") && error.contains("harness replay --report"),
            "{error}"
        );
        let missing = Side::read(Path::new("/nowhere/a.json")).unwrap_err();
        assert!(missing.starts_with("/nowhere/a.json: "), "{missing}");
        std::fs::write(empty.path().join("x.json"), "{\"a\":").unwrap();
        let cut = Side::read(empty.path()).unwrap_err();
        assert!(cut.contains("x.json: EOF"), "{cut}");
    }
}
