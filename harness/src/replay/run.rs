//! One replay: broker, source, engine, faults; then counts, verification and figures.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::engine::{Engine, Running, Sample, Usage};
use super::faults::{Event, Schedule};
use super::kafka::Kept;
use super::load;
use super::report::{Figures, Happened};
use super::scenario::{Deed, Link, Scenario, merge};
use super::sink::{Contents, Sink};
use super::source::Upstream;
use super::sources::{Found, SourceFigures};
use crate::links::report::{Carried, LinkFigures};
use crate::links::{Links, Trouble};
use crate::serve::{Action, Place};
use crate::verify;

/// An engine that writes nothing for so long has hung.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a killed engine may take to be gone.
const END_MAX: Duration = Duration::from_secs(10);
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a run brought.
#[derive(Debug)]
pub struct Outcome {
    /// Measured from outside.
    pub figures: Figures,
    /// The same of each source, as far as it is known.
    pub sources: Vec<SourceFigures>,
    /// What does not hold; empty when all is well.
    pub failures: Vec<String>,
    /// Faults that happened.
    pub faults: Vec<Happened>,
    /// What the engine used, over time.
    pub samples: Vec<Sample>,
    /// Records in the broker over time.
    pub arrivals: Vec<(Instant, u64)>,
    /// When the first stream byte was served.
    pub start: Instant,
    /// What the records went to.
    pub broker: String,
    /// The engine's own report.
    pub engine_report: serde_json::Value,
}

impl Outcome {
    /// Whether what ran is the build that users run, as its own report says.
    #[must_use]
    pub fn is_of_release_build(&self) -> bool {
        self.engine_report
            .get("build")
            .and_then(serde_json::Value::as_str)
            == Some("release")
    }
}

/// Progress while a run goes on: changes that have arrived, and all of them.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Runs `scenario` once with the engine at `program`; `kept` has what the run before it left, and then what this one leaves.
///
/// # Errors
/// What keeps the run from being made at all; what goes wrong in it is in [`Outcome::failures`].
pub async fn run(
    scenario: &Scenario,
    program: &Path,
    kept: &mut Kept,
    progress: Progress<'_>,
) -> Result<Outcome, Failure> {
    let directory = tempfile::Builder::new()
        .prefix("walbrook-replay-")
        .tempdir()?;
    let links = Links::open(scenario, None)?;
    let upstreams = Upstream::start(scenario, links.as_ref()).await?;
    // After the source: a live server's workload takes a while, and warmed brokers should not cool.
    let topics = upstreams.iter().map(Upstream::topic).collect();
    let sink = Sink::start(scenario, topics, links.as_ref(), kept).await?;
    let changes = upstreams
        .iter()
        .map(|upstream| upstream.truth().changes)
        .sum();
    let deletes: u64 = upstreams
        .iter()
        .map(|upstream| upstream.truth().deletes)
        .sum();
    let engine = Engine {
        program: program.to_owned(),
        directory: directory.path().to_owned(),
        host: links.as_ref().map(|links| links.engine().clone()),
    };
    std::fs::write(engine.config(), configuration(scenario, &upstreams, &sink)?)?;

    if let (Some(load), [upstream]) = (&scenario.load, &upstreams[..]) {
        let links = links.as_ref();
        let outcome = load::run(load, scenario, upstream, &sink, &engine, links).await?;
        sink.end(outcome.failures.is_empty(), kept).await?;
        keep_failed(&outcome, directory);
        return Ok(outcome);
    }
    let mut course = Course {
        scenario,
        sink,
        carried: (links.as_ref().map(Carried::by).transpose()?).unwrap_or_default(),
        links: links.as_ref(),
        upstreams: &upstreams,
        engine: &engine,
        schedule: Schedule::new(scenario, changes),
        changes,
        deletes,
        happened: Vec::new(),
        failures: Vec::new(),
        usage: Usage::default(),
        samples: Vec::new(),
        arrivals: Vec::new(),
    };
    course.go(progress).await?;
    let (outcome, sink) = course.judge().await?;
    sink.end(outcome.failures.is_empty(), kept).await?;
    keep_failed(&outcome, directory);
    Ok(outcome)
}

/// Keeps the run's directory when it failed and `WALBROOK_KEEP` is set; otherwise it is removed.
fn keep_failed(outcome: &Outcome, directory: tempfile::TempDir) {
    if !outcome.failures.is_empty() && std::env::var_os("WALBROOK_KEEP").is_some() {
        let kept: PathBuf = directory.keep();
        eprintln!("kept {}", kept.display());
    }
}

/// walbrook.toml of the run: what the replay needs, then the scenario's own values over it.
fn configuration(
    scenario: &Scenario,
    upstreams: &[Upstream],
    sink: &Sink,
) -> Result<String, Failure> {
    let brokers: Vec<String> = sink.bootstrap().split(',').map(str::to_owned).collect();
    let mut text = "state = \"state\"\n".to_owned();
    for upstream in upstreams {
        let truth = upstream.truth();
        text += &format!(
            "[source.{}]\n{}tables = [\"{}.{}\"]\nstart = \"earliest\"\n",
            upstream.name(),
            upstream.settings(),
            truth.schema,
            truth.table,
        );
    }
    text += &format!(
        "[kafka]\nbrokers = {brokers:?}\n[kafka.topics]\npartitions = {}\nreplication = {}\n",
        scenario.broker.partitions,
        sink.replication(),
    );
    let mut table: toml::Table = toml::from_str(&text)?;
    merge(&mut table, &scenario.walbrook);
    Ok(toml::to_string(&table)?)
}

/// A run while it goes on.
struct Course<'a> {
    scenario: &'a Scenario,
    sink: Sink,
    links: Option<&'a Links>,
    /// What the links had carried before the engine started.
    carried: Carried,
    upstreams: &'a [Upstream],
    engine: &'a Engine,
    schedule: Schedule,
    /// Of all sources.
    changes: u64,
    deletes: u64,
    /// Besides those that the replay servers make.
    happened: Vec<Happened>,
    failures: Vec<String>,
    usage: Usage,
    samples: Vec<Sample>,
    arrivals: Vec<(Instant, u64)>,
}

impl Course<'_> {
    /// Starts the engine, again after each kill, until it ends by itself.
    async fn go(&mut self, progress: Progress<'_>) -> Result<(), Failure> {
        loop {
            let mut running = self.engine.start()?;
            let killed = self.attend(&mut running, progress).await?;
            let status = running
                .ended(crate::clock::now() + END_MAX)
                .await?
                .ok_or("the engine does not end after kill -9")?;
            let (usage, samples) = running.usage();
            self.usage.cpu_seconds += usage.cpu_seconds;
            self.usage.rss_max_bytes = self.usage.rss_max_bytes.max(usage.rss_max_bytes);
            self.samples.extend(samples);
            if killed {
                continue;
            }
            if !status.success() {
                self.failures.push(format!(
                    "the engine ended with {status}; its log ends:\n{}",
                    self.engine.last_words()
                ));
            }
            for event in self.schedule.ends() {
                self.befall(event).await?;
            }
            return Ok(());
        }
    }

    /// Watches one process until it ends or is killed by a fault (`true`).
    async fn attend(
        &mut self,
        running: &mut Running,
        progress: Progress<'_>,
    ) -> Result<bool, Failure> {
        let mut last = (crate::clock::now(), self.records());
        loop {
            if running.ended(crate::clock::now() + TICK).await?.is_some() {
                return Ok(false);
            }
            let records = self.records();
            if records != last.1 {
                last = (crate::clock::now(), records);
                self.arrivals.push(last);
            }
            let changes = self.changes(records);
            progress(changes, self.changes);
            if last.0.elapsed() > SILENCE_MAX {
                self.failures.push(format!(
                    "nothing arrived for {} s, after {changes} changes; the engine's log ends:\n{}",
                    SILENCE_MAX.as_secs(),
                    self.engine.last_words()
                ));
                running.kill()?;
                return Ok(false);
            }
            for event in self.schedule.due(changes) {
                if self.happen(event, changes, running).await? {
                    return Ok(true);
                }
            }
        }
    }

    /// Lets a fault happen; `true` when the engine was killed.
    async fn happen(
        &mut self,
        event: Event,
        changes: u64,
        running: &mut Running,
    ) -> Result<bool, Failure> {
        let deed = event.deed;
        if deed == Deed::KillEngine {
            running.kill()?;
        } else {
            self.befall(event).await?;
        }
        if event.starts {
            let link = is_of_link(deed).then_some(event.link);
            let start = self.first_byte();
            self.happened.push(Happened {
                deed,
                link,
                at_changes: changes,
                at_seconds: Some(start.elapsed().as_secs_f64()),
            });
        }
        Ok(deed == Deed::KillEngine)
    }

    /// Lets a fault of a link's or a broker's begin or end.
    async fn befall(&mut self, event: Event) -> Result<(), Failure> {
        let Event {
            deed, link, starts, ..
        } = event;
        let emulated = self
            .links
            .filter(|links| is_of_link(deed) && links.has(link));
        match emulated {
            Some(links) => Ok(links.trouble(Trouble {
                link,
                deed,
                way: event.way,
                rate_bits: event.rate_bits,
                starts,
            })?),
            None => self.sink.happen(deed, starts, event.length).await,
        }
    }

    fn records(&self) -> u64 {
        self.sink.records()
    }

    /// Changes that so many records stand for: a delete is a record and a tombstone.
    fn changes(&self, records: u64) -> u64 {
        let all = (self.changes + self.deletes).max(1);
        (u128::from(records) * u128::from(self.changes) / u128::from(all)) as u64
    }

    /// When the first of the sources began to send.
    fn first_byte(&self) -> Instant {
        let began = self.upstreams.iter().filter_map(Upstream::first_byte);
        began.min().unwrap_or_else(crate::clock::now)
    }

    /// Reads every source's topic back and compares it with its truth; what was found of each, where it could be read.
    async fn verify(&mut self) -> Vec<Option<Found>> {
        let mut found = Vec::with_capacity(self.upstreams.len());
        for upstream in self.upstreams {
            let settings = verify::Settings {
                brokers: self.sink.observed_bootstrap(),
                truth: upstream.truth().clone(),
                topic: Some(upstream.topic()),
                client: verification_client(self.scenario),
                allow_repeated: false,
            };
            match verify::verify(&settings).await {
                Ok(findings) => {
                    let named = |failure| match self.upstreams.len() {
                        1 => failure,
                        _ => format!("{}: {failure}", upstream.topic()),
                    };
                    self.failures
                        .extend(findings.failures.into_iter().map(named));
                    found.push(Some(Found {
                        changes: findings.changes,
                        records: findings.records,
                    }));
                }
                Err(error) => {
                    let topic = upstream.topic();
                    self.failures
                        .push(format!("cannot verify {topic}: {error}"));
                    found.push(None);
                }
            }
        }
        found
    }

    /// Counts, verifies, measures.
    async fn judge(mut self) -> Result<(Outcome, Sink), Failure> {
        let Contents {
            records,
            bytes,
            last_append,
        } = self.sink.contents().await?;
        let start = self.first_byte();
        let end = last_append.unwrap_or(start);
        let report = std::fs::read_to_string(self.engine.report()).ok();
        let engine_report = report
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or(serde_json::Value::Null);
        let links = self.link_figures(end.saturating_duration_since(start))?;
        let of_each = self.verify().await;
        let found = Found::of_all(&of_each);
        let changes = found.map_or_else(|| self.changes(records), |found| found.changes);
        self.failures
            .extend(found.and_then(|found| found.unread(records)));
        let seconds = end.saturating_duration_since(start).as_secs_f64();
        let field = |name: &str| {
            engine_report
                .get(name)
                .cloned()
                .unwrap_or(serde_json::Value::Null)
        };
        let killed = self.was_killed();
        // Of several processes only the last one reported.
        let of_one_process = |name| match killed {
            true => serde_json::Value::Null,
            false => field(name),
        };
        // A recording's commits are as old as it is, and so are totals with them.
        let of_live = |name| match self.upstreams.iter().all(|of| of.live().is_some()) {
            true => of_one_process(name),
            false => serde_json::Value::Null,
        };
        let figures = Figures {
            changes,
            records,
            bytes_in: (self.upstreams.iter())
                .map(Upstream::bytes)
                .sum::<Option<u64>>()
                .unwrap_or_else(|| field("bytes_in").as_u64().unwrap_or_default()),
            bytes_out: bytes,
            seconds,
            changes_per_second: if seconds > 0.0 {
                changes as f64 / seconds
            } else {
                0.0
            },
            cpu_seconds: self.usage.cpu_seconds,
            links,
            bare_changes_per_second: (self.upstreams.iter())
                .find_map(Upstream::bare_changes_per_second),
            rss_max_bytes: self.usage.rss_max_bytes,
            latency_ms: of_one_process("latency_ms"),
            histogram: of_one_process("histogram"),
            commit_latency_ms: of_live("commit_latency_ms"),
            commit_histogram: of_live("commit_histogram"),
            stations: of_one_process("stations"),
            timing: of_one_process("timing"),
            load: None,
        };
        let sources: Vec<SourceFigures> = (self.upstreams.iter().zip(of_each))
            .map(|(upstream, found)| {
                SourceFigures::of(upstream, found, &self.sink, &engine_report, killed)
            })
            .collect();
        let said = || self.engine.said("io_uring");
        let otherwise = sources
            .iter()
            .filter_map(|of| of.read_otherwise(self.scenario, said));
        self.failures.extend(otherwise);
        self.compare(&figures, &sources, &engine_report);
        let complaints = self.upstreams.iter().flat_map(Upstream::complaints);
        self.failures.extend(complaints);
        self.arrivals.push((end, records));
        let mut faults = served_faults(self.upstreams);
        faults.append(&mut self.happened);
        let outcome = Outcome {
            figures,
            sources,
            failures: self.failures,
            faults,
            samples: self.samples,
            arrivals: self.arrivals,
            start,
            broker: self.sink.title(),
            engine_report,
        };
        Ok((outcome, self.sink))
    }

    fn link_figures(&self, time: Duration) -> Result<Option<LinkFigures>, Failure> {
        let figures = self
            .links
            .map(|links| LinkFigures::of(links, &self.carried, time.as_secs_f64()));
        Ok(figures.transpose()?)
    }

    fn was_killed(&self) -> bool {
        self.happened
            .iter()
            .any(|fault| fault.deed == Deed::KillEngine)
    }

    /// The engine's own counts must be ours, where one process did all the work.
    fn compare(
        &mut self,
        figures: &Figures,
        sources: &[SourceFigures],
        engine_report: &serde_json::Value,
    ) {
        if self.was_killed() {
            return;
        }
        let own = |name: &str| engine_report.get(name).and_then(serde_json::Value::as_u64);
        for (name, ours) in [("changes", figures.changes), ("records", figures.records)] {
            if own(name) != Some(ours) {
                let own = own(name).map_or("nothing".to_owned(), |own| own.to_string());
                self.failures.push(format!(
                    "{name}: the engine reports {own}, {ours} are in the broker"
                ));
            }
        }
        // A sole one's counts are the totals.
        if sources.len() > 1 {
            let of_each = sources
                .iter()
                .flat_map(|of| of.disagreements(engine_report));
            self.failures.extend(of_each);
        }
    }
}

/// Whether the deed concerns a link.
fn is_of_link(deed: Deed) -> bool {
    matches!(
        deed,
        Deed::Cut | Deed::Stall | Deed::DropOneWay | Deed::Rate | Deed::OneByte
    )
}

/// rskafka reads what our own producer wrote; what rskafka wrote is read by librdkafka.
pub(super) fn verification_client(scenario: &Scenario) -> verify::Client {
    let producer = scenario
        .walbrook
        .get("kafka")
        .and_then(|kafka| kafka.get("producer")?.as_str());
    match producer {
        Some("rskafka") => verify::Client::Rdkafka,
        _ => verify::Client::Rskafka,
    }
}

/// Faults that the replay servers made by themselves, at their place in the stream.
fn served_faults(upstreams: &[Upstream]) -> Vec<Happened> {
    let taken = upstreams.iter().flat_map(Upstream::faults);
    let happened = taken.filter_map(|fault| {
        let deed = match fault.action {
            Action::Cut => Deed::Cut,
            Action::Stall(_) => Deed::Stall,
            // No scenario has these.
            Action::Split(_) | Action::Corrupt(_) => return None,
        };
        let Place::Changes(at_changes) = fault.at else {
            return None;
        };
        Some(Happened {
            deed,
            link: Some(Link::Source),
            at_changes,
            at_seconds: None,
        })
    });
    happened.collect()
}
