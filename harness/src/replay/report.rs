//! The JSON of a replay: what was measured from outside, and whether it is what was expected.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde::Serialize;
use serde_json::Value;

use super::load::LoadFigures;
use super::scenario::{Deed, Link};
use super::sources::SourceFigures;
use crate::links::report::LinkFigures;
use crate::report::timeline::Timeline;

/// One object per scenario; of several runs the one with the median time, all of them in `runs`. Units stand in the names.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the harness; the engine's is the same, checked by the demo.
    pub version: &'static str,
    /// Processor, cores and kernel.
    pub machine: String,
    /// Commit that the engine was built from, as its own report says; the harness's where it left none.
    pub commit: String,
    /// How the engine was built, `release` or `debug`, where its own report says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Name of the scenario.
    pub scenario: String,
    /// What `--set` put over the scenario's `walbrook`, in its order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// What was run: the scenario's tables with `set` over them, without what it expects.
    pub settings: toml::Table,
    /// Recording, or kind of live server; of several all, with a plus sign between them.
    pub source: String,
    /// The median run's figures of each source, which together are those beside them.
    pub sources: Vec<SourceFigures>,
    /// What the records went to; of real brokers their version, how many, and whether they were warmed.
    pub broker: String,
    /// The median run's figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Whether every run's content is what it must be: then its figures are a measure, whatever they are.
    pub verified: bool,
    /// What is wrong with the content.
    pub failures: Vec<String>,
    /// What the runs were expected to take at most, or to reach at least, and did not: times, processor, memory, rates.
    pub unmet: Vec<String>,
    /// Of the median run.
    pub faults: Vec<Happened>,
    /// Every run's figures.
    pub runs: Vec<Figures>,
    /// The median run over time.
    pub timeline: Timeline,
}

impl Report {
    /// Whether everything that was expected holds: content and figures.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verified && self.unmet.is_empty()
    }
}

/// What one run measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Row changes that arrived.
    pub changes: u64,
    /// Records in the broker, tombstones included.
    pub records: u64,
    /// Bytes of the source's stream.
    pub bytes_in: u64,
    /// Bytes of record batches in the broker.
    pub bytes_out: u64,
    /// From the first stream byte served to the broker's last append.
    pub seconds: f64,
    /// `changes` by `seconds`.
    pub changes_per_second: f64,
    /// Of the engine's processes.
    pub cpu_seconds: f64,
    /// Highest of the engine's processes (VmHWM).
    pub rss_max_bytes: u64,
    /// The emulated links, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<LinkFigures>,
    /// What a bare reader got from the same live server right before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare_changes_per_second: Option<f64>,
    /// Read to acknowledged, from the engine's own report.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub latency_ms: Value,
    /// The same as hdrhistogram V2, base64.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub histogram: Value,
    /// Under a load: from sending COMMIT to the broker's log, measured from outside. Otherwise the engine's own, from the source's timestamp
    /// of the commit to acknowledged; absent where a source is a recording, whose commits are as old as it is.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub commit_latency_ms: Value,
    /// The same in microseconds as hdrhistogram V2, base64.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub commit_histogram: Value,
    /// From station to station, from the engine's own report.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub stations: Value,
    /// What measuring times cost the engine, from its own report.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub timing: Value,
    /// What was offered while the engine streamed, and what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadFigures>,
}

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Percentiles {
    /// Of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }

    /// What is over so many milliseconds of each.
    #[must_use]
    pub fn over(&self, ms: f64) -> Percentiles {
        Percentiles {
            p50: self.p50 - ms,
            p90: self.p90 - ms,
            p99: self.p99 - ms,
            p999: self.p999 - ms,
            max: self.max - ms,
        }
    }
}

/// As hdrhistogram V2, base64.
pub fn encoded(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Serialising fails only where writing fails, and a Vec takes everything.
    let written = V2Serializer::new().serialize(histogram, &mut bytes);
    written.map_or_else(|_| String::new(), |_| BASE64_STANDARD.encode(bytes))
}

impl Figures {
    /// Engine's processor time per change, in microseconds.
    pub fn cpu_us_per_change(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.changes.max(1) as f64
    }

    /// A percentile from commit to the broker's log, in milliseconds: `p50`, `p99`, …
    pub fn commit_ms(&self, percentile: &str) -> Option<f64> {
        self.commit_latency_ms.get(percentile)?.as_f64()
    }

    /// From commit to acknowledged, over what the links need of that by themselves.
    pub fn over_round_trip(&self) -> Option<Percentiles> {
        self.load.as_ref()?.over_links.as_ref()?.commit_ms
    }

    /// Peak resident set in MiB.
    pub fn rss_mib(&self) -> f64 {
        self.rss_max_bytes as f64 / f64::from(1 << 20)
    }
}

/// A fault that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Happened {
    /// What.
    #[serde(rename = "do")]
    pub deed: Deed,
    /// On which link, where it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Changes that had arrived, by the broker's count of records.
    pub at_changes: u64,
    /// Since the first stream byte; absent for what the replay server does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_seconds: Option<f64>,
}

/// The place of the run with the median time; under a load, which takes as long as it takes, with the median latency. Of an even number of
/// runs it is the slower of the two in the middle, so that of two runs not the better one is reported and held against what is expected.
pub fn median(runs: &[Figures]) -> usize {
    let time = |run: &usize| match &runs[*run].load {
        Some(_) => runs[*run].commit_ms("p99").unwrap_or(f64::INFINITY),
        None => runs[*run].seconds,
    };
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|left, right| time(left).total_cmp(&time(right)));
    order.get(order.len() / 2).copied().unwrap_or_default()
}

/// Writes `report` as JSON.
///
/// # Errors
/// The path and what the system said.
pub fn write(report: &Report, path: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_run_of_an_even_number_is_the_slower_one_in_the_middle() {
        let middle = |seconds: &[f64]| {
            let of = |seconds: &f64| Figures {
                seconds: *seconds,
                ..Figures::default()
            };
            let runs: Vec<Figures> = seconds.iter().map(of).collect();
            seconds[median(&runs)]
        };
        assert_eq!(middle(&[1.0]), 1.0);
        assert_eq!(middle(&[2.0, 1.0]), 2.0);
        assert_eq!(middle(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(&[4.0, 1.0, 3.0, 2.0]), 3.0);
    }
}
