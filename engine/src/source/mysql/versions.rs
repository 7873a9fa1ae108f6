//! What information_schema said about tables, kept beside the checkpoint together with the stretch of the stream that it holds for.
//!
//! ```text
//! rows ─ rows ─ rows ─ ALTER ─ rows ─ rows …       the stream
//! └─── from … until ────┘└── from …
//! ```
//! Where the binary log has no column names, today's names are not those of rows that were written before an ALTER. A description
//! holds from where it was first needed up to the statement that changes its table, so a restart between the two need not ask again,
//! when it may be too late.
//!
//! `STATE/NAME.shapes` has a line per fact, in the order of the stream:
//!
//! ```text
//! 0a1b2c3d {"table":["shop","t"],"from":{"server":"mysql:…","at":"binlog.000001:154 …:1-5"},"columns":[…],"keys":[…]}
//! └ CRC32C {"table":["shop","t"],"until":{"server":"mysql:…","at":"binlog.000001:977 …:1-9"}}
//! ```
//! An end is durable before anything behind it is handed out. A beginning that a power cut takes with it is asked for again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::names;
use super::server::Answer;
use super::transaction::Point;
use crate::position::Position;
use crate::source::{Identity, SourceError};

/// Descriptions of one table that are kept, the latest ones.
const KEPT_MAX: usize = 64;

/// Lines beyond those that are needed before the file is written anew.
const STALE_MAX: usize = 4096;

/// What information_schema says about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Described {
    /// Its columns.
    pub(super) columns: Answer,
    /// Its indices.
    pub(super) keys: Answer,
}

/// A place between two transactions of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    server: Box<str>,
    point: Point,
}

impl Mark {
    pub(super) fn new(server: &Identity, point: Point) -> Self {
        Self {
            server: server.to_string().into(),
            point,
        }
    }

    /// Whether this one is at or behind `other`; `None` where the two cannot be compared: other servers without GTIDs.
    fn reaches(&self, other: &Self) -> Option<bool> {
        match (&self.point.gtids, &other.point.gtids) {
            (Some(set), Some(other)) => Some(other.is_subset(set)),
            _ if self.server == other.server => {
                Some(super::is_past(&self.point.place, &other.point.place))
            }
            _ => None,
        }
    }
}

/// A description and where it holds.
#[derive(Debug, Clone)]
struct Version {
    from: Mark,
    until: Option<Mark>,
    described: Described,
}

impl Version {
    fn holds(&self, at: &Mark) -> bool {
        let ended = |until: &Mark| at.reaches(until) != Some(false);
        at.reaches(&self.from) == Some(true) && !self.until.as_ref().is_some_and(ended)
    }

    /// Whether a change at `until` ends it: not where it began behind that, and the stream has gone back since.
    fn ends_with(&self, until: &Mark) -> bool {
        self.until.is_none() && until.reaches(&self.from) != Some(false)
    }
}

/// Database and table.
type Name = (Box<str>, Box<str>);

/// Every description that may still be needed.
#[derive(Debug)]
pub(super) struct Versions {
    tables: BTreeMap<Name, Vec<Version>>,
    path: PathBuf,
    /// Opened with the first line.
    file: Option<File>,
    /// Lines of the file.
    lines: usize,
}

impl Versions {
    /// What an earlier run kept in `STATE/NAME.shapes`, as far as a start at `resume` can need it. `None`: the stream does not go on
    /// after a checkpoint of an earlier run, so nothing that was kept belongs to it.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn open(
        state: &Path,
        name: &str,
        resume: Option<&Mark>,
    ) -> Result<Self, SourceError> {
        let path = state.join(format!("{name}.shapes"));
        let mut versions = Self {
            tables: BTreeMap::new(),
            path,
            file: None,
            lines: 0,
        };
        let text = match fs::read(&versions.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(versions),
            Err(error) => return Err(versions.refused(error)),
        };
        if let Some(resume) = resume {
            match read(&text) {
                Some(facts) => {
                    for fact in facts {
                        versions.note(fact);
                    }
                }
                None => tracing::warn!(
                    "{} is damaged and not used: information_schema is asked again",
                    versions.path.display()
                ),
            }
            let ended = |version: &Version| {
                let until = version.until.as_ref();
                until.is_some_and(|until| resume.reaches(until) == Some(true))
            };
            for kept in versions.tables.values_mut() {
                kept.retain(|version| !ended(version));
            }
            versions.tables.retain(|_, kept| !kept.is_empty());
        }
        versions.rewrite()?;
        Ok(versions)
    }

    /// What holds for a table at `at`.
    pub(super) fn at(&self, schema: &str, table: &str, at: &Mark) -> Option<&Described> {
        let kept = self.tables.get(&(schema.into(), table.into()))?;
        kept.iter()
            .rev()
            .find(|version| version.holds(at))
            .map(|version| &version.described)
    }

    /// A description that holds from `from` on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn begin(
        &mut self,
        schema: &str,
        table: &str,
        from: Mark,
        described: Described,
    ) -> Result<(), SourceError> {
        self.append(Fact {
            table: (schema.into(), table.into()),
            from: Some(from),
            until: None,
            described: Some(described),
        })
    }

    /// The definition of a table (`None`: any table) changes at `until`. Durable when it returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn end(
        &mut self,
        table: Option<(&str, &str)>,
        until: &Mark,
    ) -> Result<(), SourceError> {
        let wanted = |name: &Name| {
            table.is_none_or(|(schema, table)| {
                names::are_same(&name.0, schema) && names::are_same(&name.1, table)
            })
        };
        let names: Vec<Name> = (self.tables.iter())
            .filter(|(name, kept)| wanted(name) && kept.iter().any(|it| it.ends_with(until)))
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        for table in names {
            self.append(Fact {
                table,
                from: None,
                until: Some(until.clone()),
                described: None,
            })?;
        }
        self.sync()
    }

    fn note(&mut self, fact: Fact) {
        let kept = self.tables.entry(fact.table).or_default();
        if let (Some(from), Some(described)) = (fact.from, fact.described) {
            // The same place comes again after a restart before it, or was asked again because the columns did not fit.
            kept.retain(|version| version.from != from);
            kept.push(Version {
                from,
                until: None,
                described,
            });
            if kept.len() > KEPT_MAX {
                kept.remove(0);
            }
        } else if let Some(until) = fact.until {
            for version in kept.iter_mut().filter(|it| it.ends_with(&until)) {
                version.until = Some(until.clone());
            }
        }
    }

    fn append(&mut self, fact: Fact) -> Result<(), SourceError> {
        if self.lines > STALE_MAX + 2 * self.tables.values().map(Vec::len).sum::<usize>() {
            self.rewrite()?;
        }
        let line = fact.line();
        let written = match &mut self.file {
            Some(file) => file.write_all(&line),
            None => OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)
                .and_then(|mut file| {
                    file.write_all(&line)?;
                    self.file = Some(file);
                    Ok(())
                }),
        };
        written.map_err(|error| self.refused(error))?;
        self.lines += 1;
        self.note(fact);
        Ok(())
    }

    fn sync(&self) -> Result<(), SourceError> {
        match &self.file {
            Some(file) => file.sync_data().map_err(|error| self.refused(error)),
            None => Ok(()),
        }
    }

    /// Writes the file anew with what is kept; removes it where that is nothing.
    fn rewrite(&mut self) -> Result<(), SourceError> {
        self.file = None;
        let mut text = Vec::new();
        self.lines = 0;
        for (name, kept) in &self.tables {
            for version in kept {
                let fact = |from, until, described| Fact {
                    table: name.clone(),
                    from,
                    until,
                    described,
                };
                let described = Some(version.described.clone());
                text.extend(fact(Some(version.from.clone()), None, described).line());
                self.lines += 1;
                if version.until.is_some() {
                    text.extend(fact(None, version.until.clone(), None).line());
                    self.lines += 1;
                }
            }
        }
        let replaced = if text.is_empty() {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            let temporary = self.path.with_extension("shapes.new");
            File::create(&temporary)
                .and_then(|mut file| {
                    file.write_all(&text)?;
                    file.sync_data()
                })
                .and_then(|()| fs::rename(&temporary, &self.path))
        };
        replaced.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: io::Error) -> SourceError {
        SourceError::halt(format!(
            "the shapes of tables, which the binary log does not have, cannot be kept in {}; make room there or change `state`",
            self.path.display()
        ))
        .because(error)
    }
}

/// A line of the file.
#[derive(Debug)]
struct Fact {
    table: Name,
    from: Option<Mark>,
    until: Option<Mark>,
    described: Option<Described>,
}

/// What a line's JSON holds; the names are the format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactBody {
    table: (Box<str>, Box<str>),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<MarkBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<MarkBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Answer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Answer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkBody {
    server: Box<str>,
    at: String,
}

impl From<&Mark> for MarkBody {
    fn from(mark: &Mark) -> Self {
        Self {
            server: mark.server.clone(),
            at: format!("{:#}", super::position(&mark.point)),
        }
    }
}

impl MarkBody {
    fn read(self) -> Option<Mark> {
        let position: Position = self.at.parse().ok()?;
        match super::point(position) {
            Ok(super::From::Point(point)) => Some(Mark {
                server: self.server,
                point,
            }),
            _ => None,
        }
    }
}

impl Fact {
    fn line(&self) -> Vec<u8> {
        let body = FactBody {
            table: self.table.clone(),
            from: self.from.as_ref().map(MarkBody::from),
            until: self.until.as_ref().map(MarkBody::from),
            columns: self.described.as_ref().map(|it| it.columns.clone()),
            keys: self.described.as_ref().map(|it| it.keys.clone()),
        };
        let json = serde_json::to_vec(&body).expect("texts in arrays are JSON");
        let mut line = format!("{:08x} ", checksum(&json)).into_bytes();
        line.extend_from_slice(&json);
        line.push(b'\n');
        line
    }

    fn read(line: &[u8]) -> Option<Self> {
        let (crc, json) = line.split_at_checked(9)?;
        let crc = std::str::from_utf8(crc).ok()?.strip_suffix(' ')?;
        if u32::from_str_radix(crc, 16).ok()? != checksum(json) {
            return None;
        }
        let body: FactBody = serde_json::from_slice(json).ok()?;
        let mark = |body: Option<MarkBody>| body.map(MarkBody::read);
        let (from, until) = (mark(body.from), mark(body.until));
        let described =
            (body.columns.zip(body.keys)).map(|(columns, keys)| Described { columns, keys });
        match (from, until, described) {
            (Some(Some(from)), None, Some(described)) => Some(Self {
                table: body.table,
                from: Some(from),
                until: None,
                described: Some(described),
            }),
            (None, Some(Some(until)), None) => Some(Self {
                table: body.table,
                from: None,
                until: Some(until),
                described: None,
            }),
            _ => None,
        }
    }
}

/// The facts of a file; `None` when it is damaged elsewhere than at its end, where a crash may have torn a line that nothing relies
/// on: without one of the others, what a table looked like somewhere would be told wrongly.
fn read(text: &[u8]) -> Option<Vec<Fact>> {
    let mut facts = Vec::new();
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        match line.strip_suffix(b"\n").and_then(Fact::read) {
            Some(fact) => facts.push(fact),
            None if lines.peek().is_none() && is_torn(line) => break,
            None => return None,
        }
    }
    Some(facts)
}

/// Whether a line is the beginning of one, rather than a whole one that is damaged.
fn is_torn(line: &[u8]) -> bool {
    let json = line.get(9..).unwrap_or_default();
    let value = serde_json::from_slice::<serde_json::Value>(json);
    !line.ends_with(b"\n") && value.is_err_and(|error| error.is_eof())
}

fn checksum(bytes: &[u8]) -> u32 {
    // The 32-bit CRC is the low half of what crc-fast returns for any width.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mysql::transaction::Place;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn mark(server: &str, offset: u64, gtids: Option<&str>) -> Mark {
        Mark {
            server: server.into(),
            point: Point {
                place: Place {
                    file: "b.000001".into(),
                    offset,
                },
                gtids: gtids.map(|range| format!("{A}:{range}").parse().unwrap()),
            },
        }
    }

    fn described(name: &str) -> Described {
        Described {
            columns: vec![vec![Some(name.into()), None]],
            keys: Vec::new(),
        }
    }

    #[test]
    fn a_description_holds_from_its_place_up_to_the_change_also_after_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let at = |offset| mark("mysql:a", offset, None);
        let mut versions = Versions::open(state.path(), "shop", None).unwrap();
        versions
            .begin("shop", "t", at(100), described("old"))
            .unwrap();
        versions
            .begin("shop", "über", at(120), described("u"))
            .unwrap();
        versions.end(Some(("shop", "T")), &at(200)).unwrap();
        // A statement spells it in another case.
        versions.end(Some(("Shop", "ÜBER")), &at(250)).unwrap();
        let other = |offset| versions.at("shop", "über", &at(offset)).is_some();
        assert_eq!((other(249), other(250)), (true, false));
        versions
            .begin("shop", "t", at(300), described("new"))
            .unwrap();
        let look = |versions: &Versions, offset| {
            let found = versions.at("shop", "t", &at(offset));
            found.map(|it| it.columns[0][0].clone().unwrap())
        };
        let expected = |versions: &Versions| {
            for (offset, name) in [
                (99, None),
                (100, Some("old")),
                (199, Some("old")),
                (200, None),
                (299, None),
                (300, Some("new")),
                (9000, Some("new")),
            ] {
                assert_eq!(look(versions, offset).as_deref(), name, "{offset}");
            }
        };
        expected(&versions);
        assert_eq!(versions.at("shop", "t", &mark("mysql:b", 350, None)), None);
        drop(versions);
        // A crash tears the line that was being written.
        let path = state.path().join("shop.shapes");
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"0a1b2c3d {\"table\":[\"shop\"");
        fs::write(&path, text).unwrap();
        expected(&Versions::open(state.path(), "shop", Some(&at(150))).unwrap());
        // Behind the change the old one is not needed any more; only now it is forgotten.
        let later = Versions::open(state.path(), "shop", Some(&at(400))).unwrap();
        assert_eq!(look(&later, 150), None);
        assert_eq!(look(&later, 400).as_deref(), Some("new"));
        drop(later);
        // A place that the operator chose has no history.
        let chosen = Versions::open(state.path(), "shop", None).unwrap();
        assert_eq!(look(&chosen, 400), None);
        assert!(!path.exists());
    }

    #[test]
    fn gtids_say_it_on_every_server() {
        let state = tempfile::tempdir().unwrap();
        let mut versions = Versions::open(state.path(), "shop", None).unwrap();
        let begin = mark("mysql:a", 100, Some("1-5"));
        versions
            .begin("shop", "t", begin, described("old"))
            .unwrap();
        let end = mark("mysql:b", 40, Some("1-9"));
        versions.end(None, &end).unwrap();
        for (range, holds) in [("1-4", false), ("1-5", true), ("1-8", true), ("1-9", false)] {
            let at = mark("mysql:c", 4, Some(range));
            assert_eq!(versions.at("shop", "t", &at).is_some(), holds, "{range}");
        }
        // A place on another server says nothing.
        assert!(
            versions
                .at("shop", "t", &mark("mysql:c", 4, None))
                .is_none()
        );
    }

    #[test]
    fn a_damaged_file_is_asked_again_whatever_is_damaged() {
        let state = tempfile::tempdir().unwrap();
        let at = |offset| mark("mysql:a", offset, None);
        let mut versions = Versions::open(state.path(), "shop", None).unwrap();
        versions
            .begin("shop", "t", at(100), described("old"))
            .unwrap();
        versions.end(Some(("shop", "t")), &at(200)).unwrap();
        versions
            .begin("shop", "t", at(200), described("new"))
            .unwrap();
        drop(versions);
        let path = state.path().join("shop.shapes");
        let good = fs::read(&path).unwrap();
        let second = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for at_byte in 0..good.len() {
            let mut bad = good.clone();
            bad[at_byte] ^= 1;
            fs::write(&path, &bad).unwrap();
            let versions = Versions::open(state.path(), "shop", Some(&at(100))).unwrap();
            let found = |offset| versions.at("shop", "t", &at(offset)).cloned();
            let name = |offset| found(offset).map(|it| it.columns[0][0].clone().unwrap());
            assert_ne!(name(250).as_deref(), Some("old"), "byte {at_byte}");
            assert_ne!(name(150).as_deref(), Some("new"), "byte {at_byte}");
            if at_byte < second {
                assert_eq!(found(100), None, "byte {at_byte}");
            }
        }
    }

    #[test]
    fn the_file_does_not_grow_with_what_is_over() {
        let state = tempfile::tempdir().unwrap();
        let mut versions = Versions::open(state.path(), "shop", None).unwrap();
        for n in 0..3 * STALE_MAX as u64 {
            let at = |more| mark("mysql:a", 100 + 2 * n + more, None);
            versions.begin("shop", "t", at(0), described("c")).unwrap();
            // Without the sync of `Versions::end`, which would take its time.
            versions
                .append(Fact {
                    table: ("shop".into(), "t".into()),
                    from: None,
                    until: Some(at(1)),
                    described: None,
                })
                .unwrap();
        }
        let text = fs::read(state.path().join("shop.shapes")).unwrap();
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        assert!(lines <= STALE_MAX + 4 * KEPT_MAX, "{lines}");
        assert_eq!(
            versions.tables.values().map(Vec::len).sum::<usize>(),
            KEPT_MAX
        );
    }
}
