//! The JSON summary of a run (`--report`), and the line that a person can paste.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::clock;
use crate::pipeline::{Codecs, Outcome, Timings};

/// A whole run. Units stand in the names.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of walbrook.
    pub version: &'static str,
    /// Commit that it was built from.
    pub commit: &'static str,
    /// `release`, or `debug`, whose times and memory say little.
    pub build: &'static str,
    /// Processor, cores and kernel.
    pub machine: String,
    /// The source's name, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// One report per source, where there are several; the figures beside them are totals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceReport>,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Processor time of this process, user and system.
    pub cpu_seconds: f64,
    /// Largest resident set of this process.
    pub rss_max_bytes: u64,
    /// What measuring the times has cost.
    pub timing: Timing,
}

/// The cost of the clocks.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// How often a clock was read, for whatever reason.
    pub clock_reads: u64,
    /// What one reading costs, measured at the end of the run.
    pub ns_per_read: f64,
    /// Both multiplied, by `cpu_seconds`.
    pub cpu_share: f64,
}

impl Timing {
    fn of(cpu_seconds: f64) -> Self {
        let clock_reads = clock::reads();
        let cost = clock::cost().as_secs_f64();
        Self {
            clock_reads,
            ns_per_read: cost * 1e9,
            cpu_share: clock_reads as f64 * cost / cpu_seconds.max(f64::MIN_POSITIVE),
        }
    }
}

/// One source of several.
#[derive(Debug, Serialize)]
pub struct SourceReport {
    /// Its name.
    pub source: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What a source, or all of them, did.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Row changes that Kafka acknowledged; a delete and its tombstone are one.
    pub changes: u64,
    /// Records that Kafka acknowledged.
    pub records: u64,
    /// Bytes of the source's stream as read.
    pub bytes_in: u64,
    /// Bytes of record batches that Kafka acknowledged.
    pub bytes_out: u64,
    /// From connecting to the last acknowledgement.
    pub seconds: f64,
    /// `changes` by `seconds`.
    pub changes_per_second: f64,
    /// What read the source's stream, `epoll` or `uring`: the latter only where it read every connection. For totals absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<&'static str>,
    /// From read to acknowledged, one count per record.
    pub latency_ms: Latency,
    /// The same in microseconds as an hdrhistogram V2, base64.
    pub histogram: String,
    /// With `kafka.compression = "auto"`: batches by codec, and changes from one to the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Codecs>,
    /// From the commit by the source's clock to acknowledged by ours, one count per change; absent where the source does not say when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_latency_ms: Option<Latency>,
    /// The same in microseconds as an hdrhistogram V2, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_histogram: Option<String>,
    /// Changes whose commit lay ahead of our clock when they were acknowledged: not zero where the clocks differ.
    #[serde(skip_serializing_if = "is_zero")]
    pub commits_ahead: u64,
    /// How long it took from station to station; together they are `latency_ms`, one count per record.
    pub stations: Stations,
    /// Produce requests, those sent again included.
    pub requests: u64,
    /// Record batches that were sent again.
    pub retries: u64,
    /// Times a source connection was made anew.
    pub reconnects: u64,
    /// The durable position at the end; for totals empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checkpoint: String,
}

/// Each from the station before it.
#[derive(Debug, Serialize)]
pub struct Stations {
    /// From read: its batch was closed.
    pub decoded: Station,
    /// Its records are complete.
    pub encoded: Station,
    /// They were put on the wire.
    pub sent: Station,
    /// Kafka has them, and everything before them.
    pub acknowledged: Station,
}

/// The way to one station.
#[derive(Debug, Serialize)]
pub struct Station {
    /// Percentiles.
    pub ms: Latency,
    /// The same in microseconds as an hdrhistogram V2, base64.
    pub histogram: String,
}

impl Station {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            ms: Latency::of(histogram),
            histogram: encoded(histogram),
        }
    }
}

impl Stations {
    fn of(timings: &Timings) -> Self {
        Self {
            decoded: Station::of(&timings.decoded),
            encoded: Station::of(&timings.encoded),
            sent: Station::of(&timings.sent),
            acknowledged: Station::of(&timings.acknowledged),
        }
    }
}

/// Percentiles, in milliseconds.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

impl Figures {
    fn of(outcome: &Outcome) -> Self {
        Self {
            io: Some(outcome.io.name()),
            compression: outcome.codecs,
            checkpoint: outcome.position.to_string(),
            ..Self::sum([outcome].into_iter(), &outcome.timings)
        }
    }

    /// Sums, over the longest of the runs.
    fn totals(outcomes: &[(String, Outcome)]) -> Self {
        let outcomes = outcomes.iter().map(|(_, outcome)| outcome);
        let mut timings = Timings::default();
        for outcome in outcomes.clone() {
            timings.add(&outcome.timings);
        }
        Self::sum(outcomes, &timings)
    }

    fn sum<'o>(outcomes: impl Iterator<Item = &'o Outcome> + Clone, timings: &Timings) -> Self {
        let sum = |of: &dyn Fn(&Outcome) -> u64| outcomes.clone().map(of).sum::<u64>();
        let elapsed = outcomes.clone().map(|outcome| outcome.elapsed).max();
        let seconds = elapsed.unwrap_or_default().as_secs_f64();
        let changes = sum(&|o| o.totals.changes);
        let commit = Some(&timings.commit).filter(|commit| !commit.is_empty());
        Self {
            changes,
            records: sum(&|o| o.totals.records),
            bytes_in: sum(&|o| o.source.bytes),
            bytes_out: sum(&|o| o.totals.bytes_out),
            seconds,
            changes_per_second: rate(changes, seconds),
            io: None,
            latency_ms: Latency::of(&timings.total),
            histogram: encoded(&timings.total),
            commit_latency_ms: commit.map(Latency::of),
            commit_histogram: commit.map(encoded),
            commits_ahead: timings.commits_ahead,
            stations: Stations::of(timings),
            compression: None,
            requests: sum(&|o| o.producer.requests),
            retries: sum(&|o| o.producer.retries),
            reconnects: sum(&|o| o.source.reconnects),
            checkpoint: String::new(),
        }
    }
}

impl Report {
    /// The report of these runs, by source name; `None` without any.
    #[must_use]
    pub fn of(outcomes: &[(String, Outcome)]) -> Option<Self> {
        let (source, sources, figures) = match outcomes {
            [] => return None,
            [(name, outcome)] => (Some(name.clone()), Vec::new(), Figures::of(outcome)),
            several => {
                let each = several
                    .iter()
                    .map(|(name, outcome)| SourceReport {
                        source: name.clone(),
                        figures: Figures::of(outcome),
                    })
                    .collect();
                (None, each, Figures::totals(several))
            }
        };
        let cpu_seconds = cpu_seconds();
        Some(Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("WALBROOK_COMMIT"),
            build: match cfg!(debug_assertions) {
                true => "debug",
                false => "release",
            },
            machine: machine(),
            source,
            sources,
            figures,
            cpu_seconds,
            rss_max_bytes: rss_max_bytes(),
            timing: Timing::of(cpu_seconds),
        })
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(file, text)
    }
}

/// `shop: 1,000,000 changes in 0.52 s (1.92 M/s), 62.6 MB to Kafka, checkpoint binlog.000002:53632951`
#[must_use]
pub fn summary_line(source: &str, outcome: &Outcome) -> String {
    let seconds = outcome.elapsed.as_secs_f64();
    let changes = outcome.totals.changes;
    let mut line = format!("{source}: {} changes", grouped(changes));
    if changes > 0 {
        let megabytes = outcome.totals.bytes_out as f64 / 1e6;
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            " in {seconds:.2} s ({}), {megabytes:.1} MB to Kafka",
            human_rate(rate(changes, seconds))
        );
    }
    let _ = write!(line, ", checkpoint {}", outcome.position);
    line
}

/// 1234567 as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.92 M/s`, `42.0 k/s`, `17 /s`.
#[must_use]
pub fn human_rate(per_second: f64) -> String {
    match per_second {
        r if r >= 1e6 => format!("{:.2} M/s", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k/s", r / 1e3),
        r => format!("{r:.0} /s"),
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn encoded(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2Serializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => BASE64_STANDARD.encode(bytes),
        // Serialising fails only where writing fails, and a Vec takes everything.
        Err(_) => String::new(),
    }
}

fn cpu_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| {
                Duration::new(time.tv_sec().unsigned_abs(), 0).as_secs_f64()
                    + time.tv_usec() as f64 / 1e6
            })
            .sum()
    })
}

/// The kernel's own high-water mark; `getrusage` counts what a parent process had before exec as well.
fn rss_max_bytes() -> u64 {
    proc_value("/proc/self/status", "VmHWM:")
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// For example `AMD EPYC 9R14, 2 cores, Linux 6.18.44`.
fn machine() -> String {
    let processor = proc_value("/proc/cpuinfo", "model name")
        .map(|value| value.trim_start_matches([':', ' ', '\t']).to_owned())
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{processor}, {cores} cores, {} {}",
        std::env::consts::OS,
        kernel.trim()
    )
}

fn proc_value(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line[key.len()..].trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(human_rate(1_923_000.0), "1.92 M/s");
        assert_eq!(human_rate(42_000.0), "42.0 k/s");
        assert_eq!(human_rate(17.4), "17 /s");
    }

    #[test]
    fn the_histogram_can_be_read_back() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
        histogram.record_n(1_500, 7).unwrap();
        let bytes = BASE64_STANDARD.decode(encoded(&histogram)).unwrap();
        let back: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(back, histogram);
    }

    #[test]
    fn this_process_has_figures() {
        assert!(rss_max_bytes() > 100_000);
        assert!(machine().contains("cores"));
    }
}
