//! Latency under an offered load: a live server into which rows are committed on a schedule while the engine streams it, and when each of
//! them stands in the broker's log.
//!
//! ```text
//! schedule ─► writers ── BEGIN, INSERT ─ COMMIT ─► server ─► walbrook ─► embedded broker ─► topic, read back by an independent client
//!    │                                     │                                  │
//!   due ──────────────────────────────── sent ─────────────────────────── appended
//! ```
//! Rows are matched by their id, and their texts compared. The schedule is fixed beforehand and does not wait for anybody: a commit that
//! comes late because the one before took long counts from when it was due as well as from when it was sent (coordinated omission).

mod bare;
mod judge;
mod over_links;
mod rows;
mod schedule;
mod write;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::engine::{Engine, Sample};
use super::live::Live;
use super::report::{Figures, Percentiles, encoded};
use super::run::Outcome;
use super::scenario::Scenario;
use super::sink::Sink;
use super::source::Upstream;
use super::sources::SourceFigures;
use crate::broker::Broker;
use crate::links::Links;
use crate::links::report::{Carried, LinkFigures};
pub use over_links::OverLinks;
use rows::Rows;
pub(super) use rows::{COLUMNS, FIRST};
use write::Written;

/// How often the broker is looked at.
const TICK: Duration = Duration::from_millis(2);
/// How long the engine may take until it streams.
const START_MAX: Duration = Duration::from_secs(60);
/// An engine that writes nothing for so long, although something is missing, has hung.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long the engine may take to end.
const END_MAX: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is committed while the engine streams; the table `[load]` of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Commits offered; as many as the server takes when absent.
    #[serde(default)]
    pub commits_per_second: Option<f64>,
    /// Rows that each of them inserts.
    #[serde(default = "one")]
    pub rows_per_commit: u64,
    /// The times between commits that are due.
    #[serde(default)]
    pub gaps: Gaps,
    /// Connections that commit, in turn.
    #[serde(default = "one")]
    pub writers: u64,
    /// How long.
    pub seconds: f64,
    /// For so long at the beginning commits are verified, but not timed.
    #[serde(default = "second")]
    pub warm_up_seconds: f64,
    /// How long the same load is read by a bare reader before.
    #[serde(default)]
    pub bare_seconds: f64,
    /// Seed of the gaps and of the rows' texts.
    #[serde(default = "seed")]
    pub seed: u64,
}

fn one() -> u64 {
    1
}

fn second() -> f64 {
    1.0
}

fn seed() -> u64 {
    42
}

/// How commits follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gaps {
    /// All alike.
    #[default]
    Even,
    /// Between half and one and a half times the mean, so that nothing falls into step with a timer.
    Uneven,
    /// Exponential, as of independent arrivals.
    Poisson,
}

impl Load {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_time = |seconds: f64| (0.0..=3600.0).contains(&seconds);
        let wrong = |what: &str| Err(format!("load: {what}"));
        if !is_time(self.seconds) || self.seconds <= self.warm_up_seconds {
            return wrong("seconds must be more than warm_up_seconds, and at most 3600");
        }
        if !is_time(self.warm_up_seconds) || !is_time(self.bare_seconds) {
            return wrong("warm_up_seconds and bare_seconds must be between 0 and 3600");
        }
        if self.bare_seconds > 0.0 && self.bare_seconds <= self.warm_up_seconds {
            return wrong("bare_seconds must be 0 or more than warm_up_seconds");
        }
        if self.rows_per_commit == 0 || self.rows_per_commit > 100_000 {
            return wrong("rows_per_commit must be between 1 and 100,000");
        }
        if !(1..=64).contains(&self.writers) {
            return wrong("writers must be between 1 and 64");
        }
        match self.commits_per_second {
            Some(rate) if !(rate > 0.0 && rate <= 1e6) => {
                wrong("commits_per_second must be more than 0 and at most 1,000,000")
            }
            _ => Ok(()),
        }
    }
}

/// What was offered and how long it took, beside the figures that every replay has. Percentiles are of rows.
#[derive(Clone, Debug, Serialize)]
pub struct LoadFigures {
    /// Commits that were due; absent where as many were made as the server took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_commits_per_second: Option<f64>,
    /// Rows that were due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_changes_per_second: Option<f64>,
    /// Rows that the server committed, the warm-up's included.
    pub committed_changes_per_second: f64,
    /// Commits that were made.
    pub commits: u64,
    /// Rows of each.
    pub rows_per_commit: u64,
    /// Connections that made them.
    pub writers: u64,
    /// How long commits were offered.
    pub offered_seconds: f64,
    /// From sending COMMIT to the server's answer.
    pub server_commit_ms: Percentiles,
    /// From when the commit was due, the writer's lateness and the INSERT included, to the broker's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_latency_ms: Option<Percentiles>,
    /// The same in microseconds as an hdrhistogram V2, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_histogram: Option<String>,
    /// From sending COMMIT to a bare reader that got the row from the same server right before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare_latency_ms: Option<Percentiles>,
    /// The same in microseconds as an hdrhistogram V2, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare_histogram: Option<String>,
    /// Over emulated links: what they need by themselves, and what a commit took over that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_links: Option<OverLinks>,
    /// The engine's own: from the server's timestamp of the commit to acknowledged.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub engine_commit_latency_ms: Value,
}

impl LoadFigures {
    /// A percentile of the engine's own, `p50`, `p99`, …: from the server's timestamp of a commit to acknowledged, in milliseconds; none where
    /// the server does not say when.
    pub fn acknowledged_ms(&self, percentile: &str) -> Option<f64> {
        self.engine_commit_latency_ms.get(percentile)?.as_f64()
    }
}

/// Milliseconds are kept as microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    // Bounds and digits are constants that the constructor takes.
    Histogram::new_with_bounds(1, 3_600_000_000, 3)
        .unwrap_or_else(|_| Histogram::new(3).unwrap_or_else(|_| unreachable!()))
}

/// Counts the time from `from` to `to`, `rows` times.
fn note(histogram: &mut Histogram<u64>, from: Instant, to: Instant, rows: u64) {
    let us = u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record_n(us.max(1), rows);
}

/// Runs the scenario's load through the engine.
///
/// # Errors
/// What keeps the run from being made at all; what goes wrong in it is in [`Outcome::failures`].
pub(super) async fn run(
    load: &Load,
    scenario: &Scenario,
    upstream: &Upstream,
    sink: &Sink,
    engine: &Engine,
    links: Option<&Links>,
) -> Result<Outcome, Failure> {
    let broker = sink.embedded().ok_or("load: needs the embedded broker")?;
    let live = upstream.live().ok_or("load: needs a live server")?;
    let bare = match load.bare_seconds > 0.0 {
        true => Some(bare_latency(load, live).await?),
        false => None,
    };
    live.begin_load().await?;
    let over_links = links.map(|links| tokio::task::block_in_place(|| OverLinks::measure(links)));
    let over_links = over_links.transpose()?;
    let carried = (links.map(Carried::by).transpose()?).unwrap_or_default();
    let rows = Rows::new(load, &live.probe_table());
    let mut course = Course {
        broker,
        failures: Vec::new(),
        arrivals: Vec::new(),
    };
    let mut running = engine.start_until_stopped()?;
    let is_streaming = course.wait(&mut running, 1, START_MAX).await?;
    let written = match is_streaming {
        true => {
            let seconds = Duration::from_secs_f64(load.seconds);
            tokio::task::block_in_place(|| write::run(live.server(), &rows, load, seconds))?
        }
        false => Written::default(),
    };
    let expected = 1 + written.commits.len() as u64 * load.rows_per_commit;
    if is_streaming && !course.wait(&mut running, expected, SILENCE_MAX).await? {
        course.hung(engine, expected);
    } else if !is_streaming {
        course.hung(engine, 1);
    }
    course.end(&mut running, engine).await?;
    let (usage, samples) = running.usage();
    let topic = upstream.topic();
    let partitions = 0..scenario.broker.partitions;
    course.arrivals = arrivals(partitions.map(|partition| broker.appends(&topic, partition)));
    let timed = judge::timed(scenario, broker, &topic, &rows, load, &written).await;
    let timed = timed.unwrap_or_else(|error| judge::Timed {
        failures: vec![format!("cannot verify {topic}: {error}")],
        ..judge::Timed::default()
    });
    course.failures.extend(timed.failures.iter().cloned());
    let links = links.map(|links| {
        let figures = LinkFigures::of(links, &carried, written.seconds);
        figures.map(LinkFigures::at_own_pace)
    });
    let measured = Measured {
        load,
        written: &written,
        timed: &timed,
        bare,
        links: links.transpose()?,
        over_links,
        cpu_seconds: usage.cpu_seconds,
        rss_max_bytes: usage.rss_max_bytes,
    };
    let mut outcome = course.outcome(&measured, engine, samples, sink.title());
    // There is one source.
    let figures = &outcome.figures;
    let source = SourceFigures::named(upstream);
    let source = SourceFigures {
        io: source.io_by(&outcome.engine_report),
        changes: Some(figures.changes),
        records: Some(figures.records),
        bytes_in: Some(figures.bytes_in),
        seconds: Some(figures.seconds),
        changes_per_second: Some(figures.changes_per_second),
        ..source
    };
    let otherwise = source.read_otherwise(scenario, || engine.said("io_uring"));
    outcome.failures.extend(otherwise);
    outcome.sources = vec![source];
    Ok(outcome)
}

/// The same load, seen by a reader that does nothing else; from sending COMMIT.
async fn bare_latency(load: &Load, live: &Live) -> Result<Histogram<u64>, Failure> {
    let table = live.begin_bare().await?;
    let rows = Rows::new(load, &table);
    let reader = bare::Reader::start(live.server(), live.bare_slot())?;
    let seconds = Duration::from_secs_f64(load.bare_seconds);
    let written = tokio::task::block_in_place(|| write::run(live.server(), &rows, load, seconds))?;
    let expected = written.commits.len() as u64 * load.rows_per_commit;
    let seen = tokio::task::block_in_place(|| reader.finish(expected))?;
    live.end_bare().await?;
    let mut latency = histogram();
    for commit in written.timed() {
        for id in rows.ids(commit.number) {
            let at = seen
                .get(&id)
                .ok_or_else(|| format!("the bare reader has not seen row {id}"))?;
            note(&mut latency, commit.sent, *at, 1);
        }
    }
    Ok(latency)
}

/// What a run brought, to be made figures of.
struct Measured<'a> {
    load: &'a Load,
    written: &'a Written,
    timed: &'a judge::Timed,
    bare: Option<Histogram<u64>>,
    links: Option<LinkFigures>,
    over_links: Option<OverLinks>,
    cpu_seconds: f64,
    rss_max_bytes: u64,
}

impl Measured<'_> {
    /// From COMMIT to the broker's log. No row is no short way.
    fn to_log(&self) -> Option<Percentiles> {
        let commit = &self.timed.from_sent;
        (!commit.is_empty()).then(|| Percentiles::of(commit))
    }

    fn figures(&self) -> LoadFigures {
        let Measured {
            load,
            written,
            timed,
            ..
        } = self;
        let rate = load.commits_per_second;
        let due = Some(&timed.from_due).filter(|due| !due.is_empty());
        let rows = written.commits.len() as u64 * load.rows_per_commit;
        let to_log = self.to_log();
        let over_links = (self.over_links).map(|links| match &to_log {
            Some(to_log) => links.with(to_log),
            None => links,
        });
        LoadFigures {
            offered_commits_per_second: rate,
            offered_changes_per_second: rate.map(|rate| rate * load.rows_per_commit as f64),
            committed_changes_per_second: rows as f64 / written.seconds.max(f64::MIN_POSITIVE),
            commits: written.commits.len() as u64,
            rows_per_commit: load.rows_per_commit,
            writers: load.writers,
            offered_seconds: load.seconds,
            server_commit_ms: Percentiles::of(&timed.server_commit),
            due_latency_ms: due.map(Percentiles::of),
            due_histogram: due.map(encoded),
            bare_latency_ms: self.bare.as_ref().map(Percentiles::of),
            bare_histogram: self.bare.as_ref().map(encoded),
            over_links,
            engine_commit_latency_ms: Value::Null,
        }
    }
}

/// How many records there were after each append, but those after a partition's last one, of each partition's (base offset, when) in order.
fn arrivals(appends: impl Iterator<Item = Vec<(i64, Instant)>>) -> Vec<(Instant, u64)> {
    let mut batches: Vec<(Instant, u64)> = appends
        .flat_map(|appends| {
            let pairs = appends.windows(2).map(|pair| {
                let records = pair[1].0.saturating_sub(pair[0].0);
                (pair[0].1, u64::try_from(records).unwrap_or_default())
            });
            pairs.collect::<Vec<_>>()
        })
        .collect();
    batches.sort_by_key(|(at, _)| *at);
    let mut all = 0;
    for (_, records) in &mut batches {
        all += *records;
        *records = all;
    }
    batches
}

/// A run while it goes on.
struct Course<'a> {
    broker: &'a Broker,
    failures: Vec<String>,
    arrivals: Vec<(Instant, u64)>,
}

impl Course<'_> {
    /// Waits until the broker has `records`; `false` when nothing came for `patience`, or the engine ended.
    async fn wait(
        &mut self,
        running: &mut super::engine::Running,
        records: u64,
        patience: Duration,
    ) -> Result<bool, Failure> {
        let mut last = (crate::clock::now(), 0);
        loop {
            let found = self.broker.counts().records;
            if found != last.1 {
                last = (crate::clock::now(), found);
            }
            if found >= records {
                return Ok(true);
            }
            let ended = running.ended(crate::clock::now() + TICK).await?.is_some();
            if ended || last.0.elapsed() > patience {
                return Ok(false);
            }
        }
    }

    /// Has the engine end; one that does not is killed.
    async fn end(
        &mut self,
        running: &mut super::engine::Running,
        engine: &Engine,
    ) -> Result<(), Failure> {
        running.terminate()?;
        match running.ended(crate::clock::now() + END_MAX).await? {
            Some(status) if status.success() => {}
            Some(status) => self.failures.push(format!(
                "the engine ended with {status}; its log ends:\n{}",
                engine.last_words()
            )),
            None => {
                running.kill()?;
                running.ended(crate::clock::now() + END_MAX).await?;
                let seconds = END_MAX.as_secs();
                self.failures
                    .push(format!("the engine does not end {seconds} s after SIGTERM"));
            }
        }
        Ok(())
    }

    fn hung(&mut self, engine: &Engine, expected: u64) {
        self.failures.push(format!(
            "{} of {expected} records arrived, and no more came; the engine's log ends:\n{}",
            self.broker.counts().records,
            engine.last_words()
        ));
    }

    fn outcome(
        mut self,
        measured: &Measured<'_>,
        engine: &Engine,
        samples: Vec<Sample>,
        broker: String,
    ) -> Outcome {
        let counts = self.broker.counts();
        let engine_report: Value = std::fs::read_to_string(engine.report())
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or(Value::Null);
        let field = |name: &str| engine_report.get(name).cloned().unwrap_or(Value::Null);
        let own = field("changes").as_u64();
        if own != Some(counts.records) {
            let own = own.map_or("nothing".to_owned(), |own| own.to_string());
            let records = counts.records;
            self.failures.push(format!(
                "changes: the engine reports {own}, {records} are in the broker"
            ));
        }
        let start =
            (measured.written.commits.first()).map_or_else(crate::clock::now, |commit| commit.sent);
        let end = counts.last_append.unwrap_or(start);
        let seconds = end.saturating_duration_since(start).as_secs_f64();
        let changes = measured.timed.changes;
        let mut load = measured.figures();
        load.engine_commit_latency_ms = field("commit_latency_ms");
        let commit = &measured.timed.from_sent;
        let figures = Figures {
            changes,
            records: counts.records,
            bytes_in: field("bytes_in").as_u64().unwrap_or_default(),
            bytes_out: counts.bytes,
            seconds,
            changes_per_second: changes as f64 / seconds.max(f64::MIN_POSITIVE),
            cpu_seconds: measured.cpu_seconds,
            rss_max_bytes: measured.rss_max_bytes,
            bare_changes_per_second: None,
            latency_ms: field("latency_ms"),
            histogram: field("histogram"),
            commit_latency_ms: (measured.to_log())
                .map(|to_log| serde_json::to_value(to_log).unwrap_or_default())
                .unwrap_or_default(),
            commit_histogram: match commit.is_empty() {
                true => Value::Null,
                false => Value::from(encoded(commit)),
            },
            stations: field("stations"),
            timing: field("timing"),
            load: Some(load),
            links: measured.links.clone(),
        };
        self.arrivals.push((end, counts.records));
        Outcome {
            figures,
            sources: Vec::new(),
            failures: self.failures,
            faults: Vec::new(),
            samples,
            arrivals: self.arrivals,
            start,
            broker,
            engine_report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_counted_over_all_partitions_in_the_order_of_time() {
        let start = crate::clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let one = vec![(0, at(0)), (10, at(20)), (30, at(40))];
        let other = vec![(0, at(10)), (5, at(30))];
        let counted = arrivals([one, other, Vec::new()].into_iter());
        assert_eq!(counted, [(at(0), 10), (at(10), 15), (at(20), 35)]);
    }

    #[tokio::test]
    async fn a_run_without_a_timed_row_has_no_latency() {
        let broker = Broker::loopback().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine {
            program: "walbrook".into(),
            directory: directory.path().to_owned(),
            host: None,
        };
        let load: Load = toml::from_str("seconds = 2.0").unwrap();
        let (written, mut timed) = (Written::default(), judge::Timed::default());
        let outcome = |timed: &judge::Timed| {
            let course = Course {
                broker: &broker,
                failures: Vec::new(),
                arrivals: Vec::new(),
            };
            let measured = Measured {
                load: &load,
                written: &written,
                timed,
                bare: None,
                links: None,
                over_links: None,
                cpu_seconds: 0.0,
                rss_max_bytes: 0,
            };
            course.outcome(&measured, &engine, Vec::new(), String::new())
        };
        let figures = outcome(&timed).figures;
        assert_eq!(figures.commit_ms("p99"), None);
        assert_eq!(figures.commit_histogram, Value::Null);
        timed.from_sent.saturating_record(5000);
        assert_eq!(
            outcome(&timed).figures.commit_ms("p50").map(f64::round),
            Some(5.0)
        );
    }
}
