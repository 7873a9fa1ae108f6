//! A report as it is read back: what `harness replay --report` wrote, with this version or another. Fields that an older version did
//! not write are absent, fields that a newer one adds are passed over, and a file that is no report says what it lacks.

use std::path::Path;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::Deserialize;

use super::timeline::Timeline;
use crate::replay::report::Report;

/// The report of one scenario.
#[derive(Clone, Debug, Deserialize)]
pub struct Document {
    /// Version of the harness.
    pub version: String,
    /// Processor, cores and kernel.
    pub machine: String,
    /// Commit of harness and engine.
    pub commit: String,
    /// How the engine was built, `release` or `debug`; older reports do not say.
    #[serde(default)]
    pub build: Option<String>,
    /// Name of the scenario.
    pub scenario: String,
    /// What `--set` put over the scenario's own settings.
    #[serde(default)]
    pub set: Vec<String>,
    /// The scenario that was run, without what it expects; older reports do not say.
    #[serde(default)]
    pub settings: Option<serde_json::Value>,
    /// Recording or kind of server, or several.
    #[serde(default)]
    pub source: String,
    /// The median run's figures of each source; older reports have none.
    #[serde(default)]
    pub sources: Vec<SourceOf>,
    /// What the records went to.
    #[serde(default)]
    pub broker: String,
    /// The median run's figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Whether every run's content was what it must be; in older reports also whether `unmet` would have been empty.
    pub verified: bool,
    /// What was wrong with the content.
    #[serde(default)]
    pub failures: Vec<String>,
    /// Times, processor, memory and rates that were expected and missed; in older reports these are `failures`.
    #[serde(default)]
    pub unmet: Vec<String>,
    /// Faults of the median run.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Every run's figures.
    pub runs: Vec<Figures>,
    /// The median run over time.
    #[serde(default)]
    pub timeline: Timeline,
}

/// What the median run measured of one source.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SourceOf {
    /// Recording or kind of server.
    pub source: String,
    /// Kind and version of the server, a recording's too.
    #[serde(default)]
    pub server: String,
    /// Where its records went.
    #[serde(default)]
    pub topic: String,
    /// Row changes that arrived there.
    #[serde(default)]
    pub changes: Option<u64>,
    /// Records that arrived there.
    #[serde(default)]
    pub records: Option<u64>,
    /// Bytes of its stream.
    #[serde(default)]
    pub bytes_in: Option<u64>,
    /// Its first stream byte to the last append there.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// `changes` by `seconds`.
    #[serde(default)]
    pub changes_per_second: Option<f64>,
    /// What read its stream, `epoll` or `uring`; older reports do not say.
    #[serde(default)]
    pub io: Option<String>,
}

/// What one run measured.
#[derive(Clone, Debug, Deserialize)]
pub struct Figures {
    /// Row changes that arrived.
    pub changes: u64,
    /// Records in the broker.
    pub records: u64,
    /// Bytes of the source's stream.
    pub bytes_in: u64,
    /// Bytes of record batches.
    pub bytes_out: u64,
    /// First stream byte to last append.
    pub seconds: f64,
    /// `changes` by `seconds`.
    pub changes_per_second: f64,
    /// Of the engine's processes.
    pub cpu_seconds: f64,
    /// Of the engine's processes.
    pub rss_max_bytes: u64,
    /// What a bare reader got from the same live server right before.
    #[serde(default)]
    pub bare_changes_per_second: Option<f64>,
    /// Read to acknowledged.
    #[serde(default)]
    pub latency_ms: Option<Percentiles>,
    /// The same as hdrhistogram V2, base64, in microseconds.
    #[serde(default)]
    pub histogram: Option<String>,
    /// Commit to the broker's log, where a load was offered. Without one the engine's own to acknowledged, of live servers alone; in older reports
    /// of recordings, too, of which it said how old they were, up to an hour.
    #[serde(default)]
    pub commit_latency_ms: Option<Percentiles>,
    /// The same as hdrhistogram V2, base64, in microseconds.
    #[serde(default)]
    pub commit_histogram: Option<String>,
    /// What was offered to a live server while the engine streamed.
    #[serde(default)]
    pub load: Option<Load>,
    /// From station to station inside the engine.
    #[serde(default)]
    pub stations: Option<Stations>,
    /// What measuring times cost the engine.
    #[serde(default)]
    pub timing: Option<Timing>,
    /// The emulated links, where there were any.
    #[serde(default)]
    pub links: Option<Links>,
}

/// What measuring times cost the engine, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Timing {
    /// How often its clocks were read.
    pub clock_reads: u64,
    /// What one reading costs.
    pub ns_per_read: f64,
    /// Both multiplied, as a part of its processor time.
    pub cpu_share: f64,
}

/// A load on a live server.
#[derive(Clone, Debug, Deserialize)]
pub struct Load {
    /// Rows that were due; absent where as many were made as the server took.
    #[serde(default)]
    pub offered_changes_per_second: Option<f64>,
    /// Rows that the server committed.
    pub committed_changes_per_second: f64,
    /// Rows of each commit.
    pub rows_per_commit: u64,
    /// Connections that made them.
    pub writers: u64,
    /// How long commits were offered; older reports do not say.
    #[serde(default)]
    pub offered_seconds: Option<f64>,
    /// From when the commit was due, whatever it had to wait for, to the broker's log; absent where nothing was due.
    #[serde(default)]
    pub due_latency_ms: Option<Percentiles>,
    /// The same as hdrhistogram V2, base64, in microseconds.
    #[serde(default)]
    pub due_histogram: Option<String>,
    /// What emulated links needed by themselves, and what commits took over that.
    #[serde(default)]
    pub over_links: Option<OverLinks>,
    /// Commit to a bare reader of the same server right before, as hdrhistogram V2, base64, in microseconds.
    #[serde(default)]
    pub bare_histogram: Option<String>,
}

/// Commits over emulated links.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct OverLinks {
    /// What the links need by themselves until a commit is acknowledged.
    pub round_trip_ms: f64,
    /// Commit to acknowledged, over that.
    #[serde(default)]
    pub commit_ms: Option<Percentiles>,
}

/// How long records took to each station, from the one before.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Stations {
    pub decoded: Station,
    pub encoded: Station,
    pub sent: Station,
    pub acknowledged: Station,
}

/// The way to one station.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Station {
    /// Percentiles.
    pub ms: Percentiles,
}

/// Emulated links.
#[derive(Clone, Debug, Deserialize)]
pub struct Links {
    /// How they were emulated.
    pub backend: String,
    /// The ways before it, and why they were not possible.
    #[serde(default)]
    pub refused: Vec<String>,
    /// Each link of the engine's, then each between brokers.
    pub links: Vec<LinkOf>,
    /// The least time in which the busiest direction could have carried its bytes.
    #[serde(default)]
    pub limit_seconds: Option<f64>,
    /// The run's time by that.
    #[serde(default)]
    pub times_limit: Option<f64>,
}

/// A link to one host.
#[derive(Clone, Debug, Deserialize)]
pub struct LinkOf {
    /// The host at its other end.
    pub host: String,
    /// Between brokers: the one in the engine's place.
    #[serde(default)]
    pub seen_from: Option<String>,
    /// Towards the engine.
    pub to_engine: Way,
    /// Away from it.
    pub from_engine: Way,
}

/// One direction of a link.
#[derive(Clone, Debug, Deserialize)]
pub struct Way {
    /// In the words of `tc netem`.
    pub profile: String,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Packets that came to the link.
    #[serde(default)]
    pub packets: u64,
    /// Packets lost by chance.
    #[serde(default)]
    pub lost: u64,
    /// Packets dropped because the queue was full.
    #[serde(default)]
    pub overflowed: u64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// A fault that happened.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Fault {
    /// What, in the scenario's word.
    #[serde(rename = "do")]
    pub deed: String,
    /// On which link.
    #[serde(default)]
    pub link: Option<String>,
    /// Changes that had arrived.
    #[serde(default)]
    pub at_changes: u64,
    /// Since the first stream byte.
    #[serde(default)]
    pub at_seconds: Option<f64>,
}

/// What the run could not have been faster than.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// At most.
    pub changes_per_second: f64,
    /// What sets it.
    pub label: String,
}

impl Document {
    /// Reads the report at `path`.
    ///
    /// # Errors
    /// A message that names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        let document = serde_json::from_str::<Self>(&text).map_err(|error| {
            format!("{shown}: {error}: this is no report of `harness replay --report`")
        })?;
        document
            .check()
            .map_err(|wrong| format!("{shown}: {wrong}"))?;
        Ok(document)
    }

    /// The report that a replay has just made, as a reader of its file would have it.
    ///
    /// # Errors
    /// None, unless writer and reader disagree about a field.
    pub fn of(report: &Report) -> Result<Self, String> {
        let value = serde_json::to_value(report).map_err(|error| error.to_string())?;
        serde_json::from_value(value)
            .map_err(|error| format!("a report that cannot be read back: {error}"))
    }

    /// Whether everything that was expected held: content and figures.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verified && self.unmet.is_empty()
    }

    /// What the median run could not have been faster than, where the report says so.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        if let Some(bare) = self.figures.bare_changes_per_second {
            return Some(Limit {
                changes_per_second: bare,
                label: "a bare reader".into(),
            });
        }
        let seconds = self.figures.links.as_ref()?.limit_seconds?;
        (seconds > 0.0).then(|| Limit {
            changes_per_second: self.figures.changes as f64 / seconds,
            label: "the link’s limit".into(),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.runs.is_empty() {
            return Err("`runs` is empty: a report holds at least one run".into());
        }
        for (number, run) in self.runs.iter().enumerate() {
            let wrong = |what: &str| Err(format!("run {}: {what}", number + 1));
            let sound = |figure: f64| figure.is_finite() && figure >= 0.0;
            if !sound(run.seconds) || !sound(run.changes_per_second) || !sound(run.cpu_seconds) {
                return wrong("a figure that is negative or no number");
            }
            run.latency().map(drop).or_else(|error| wrong(&error))?;
            run.commit_latency()
                .map(drop)
                .or_else(|error| wrong(&error))?;
            run.due_latency().map(drop).or_else(|error| wrong(&error))?;
        }
        Ok(())
    }
}

impl Figures {
    /// Engine's processor time per change, in microseconds.
    #[must_use]
    pub fn cpu_us_per_change(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.changes.max(1) as f64
    }

    /// Peak resident set in MiB.
    #[must_use]
    pub fn rss_mib(&self) -> f64 {
        self.rss_max_bytes as f64 / f64::from(1 << 20)
    }

    /// Read to acknowledged, in microseconds; `None` where the engine left none (it was killed) or it is empty.
    ///
    /// # Errors
    /// What is wrong with its text.
    pub fn latency(&self) -> Result<Option<Histogram<u64>>, String> {
        self.histogram.as_deref().map_or(Ok(None), histogram)
    }

    /// Commit to the broker's log, likewise; `None` without a load.
    ///
    /// # Errors
    /// What is wrong with its text.
    pub fn commit_latency(&self) -> Result<Option<Histogram<u64>>, String> {
        match (&self.load, &self.commit_histogram) {
            (Some(_), Some(text)) => histogram(text),
            _ => Ok(None),
        }
    }

    /// From when a commit was due to the broker's log, likewise; `None` also where nothing was due.
    ///
    /// # Errors
    /// What is wrong with its text.
    pub fn due_latency(&self) -> Result<Option<Histogram<u64>>, String> {
        let load = self.load.as_ref();
        let text = load.and_then(|load| load.due_histogram.as_deref());
        text.map_or(Ok(None), histogram)
    }

    /// Commit to a bare reader of the same server, likewise.
    ///
    /// # Errors
    /// What is wrong with its text.
    pub fn bare_latency(&self) -> Result<Option<Histogram<u64>>, String> {
        let load = self.load.as_ref();
        let text = load.and_then(|load| load.bare_histogram.as_deref());
        text.map_or(Ok(None), histogram)
    }

    /// Percentiles from commit to the broker's log; `None` without a load.
    #[must_use]
    pub fn commit_percentiles(&self) -> Option<Percentiles> {
        self.load.as_ref().and(self.commit_latency_ms)
    }

    /// Percentiles from when a commit was due to the broker's log; `None` where nothing was due.
    #[must_use]
    pub fn due_percentiles(&self) -> Option<Percentiles> {
        self.load.as_ref()?.due_latency_ms
    }

    /// Percentiles from commit to acknowledged over what links need by themselves; `None` without a load over links.
    #[must_use]
    pub fn over_round_trip(&self) -> Option<Percentiles> {
        self.load.as_ref()?.over_links?.commit_ms
    }
}

/// A histogram from its text (V2, base64); `None` when it is empty.
///
/// # Errors
/// What is wrong with it.
pub fn histogram(text: &str) -> Result<Option<Histogram<u64>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = (base64::prelude::BASE64_STANDARD.decode(text))
        .map_err(|error| format!("`histogram` is no base64: {error}"))?;
    let histogram: Histogram<u64> = Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("`histogram` is no hdrhistogram V2: {error:?}"))?;
    Ok((!histogram.is_empty()).then_some(histogram))
}

impl Fault {
    /// As a label: `kill_engine` as `kill engine`, with the link where there is one.
    #[must_use]
    pub fn label(&self) -> String {
        let deed = self.deed.replace('_', " ");
        match &self.link {
            Some(link) => format!("{deed} ({link})"),
            None => deed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_file_that_is_no_report_says_what_it_lacks() {
        let missing = Document::read(Path::new("/nowhere/x.json")).unwrap_err();
        assert!(missing.starts_with("/nowhere/x.json: "), "{missing}");
        let cut = Document::read(written("{\"version\":\"0.1").path()).unwrap_err();
        assert!(cut.contains("EOF while parsing"), "{cut}");
        let other = Document::read(written("{\"version\":\"0.1.0\",\"machine\":\"m\"}").path())
            .unwrap_err();
        assert!(other.contains("missing field"), "{other}");
        assert!(
            other.contains("no report of `harness replay --report`"),
            "{other}"
        );
    }

    #[test]
    fn runs_are_checked() {
        let figures = "\"changes\":1,\"records\":1,\"bytes_in\":1,\"bytes_out\":1,\"seconds\":1.0,\"changes_per_second\":1.0,\"cpu_seconds\":1.0,\"rss_max_bytes\":1";
        let report = |runs: &str| {
            let text = format!(
                "{{\"version\":\"0\",\"machine\":\"m\",\"commit\":\"c\",\"scenario\":\"s\",\"verified\":true,{figures},\"runs\":[{runs}]}}"
            );
            Document::read(written(&text).path())
        };
        assert_eq!(report(&format!("{{{figures}}}")).unwrap().runs.len(), 1);
        let none = report("").unwrap_err();
        assert!(none.contains("`runs` is empty"), "{none}");
        let damaged = report(&format!("{{{figures},\"histogram\":\"AAAA\"}}")).unwrap_err();
        assert!(
            damaged.contains("run 1: `histogram` is no hdrhistogram V2"),
            "{damaged}"
        );
        let no_base64 = report(&format!("{{{figures},\"histogram\":\"*\"}}")).unwrap_err();
        assert!(no_base64.contains("no base64"), "{no_base64}");
    }
}
