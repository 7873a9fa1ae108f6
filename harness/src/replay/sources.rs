//! What a run measured of each of its sources; the figures beside them in a report are totals.

use serde::Serialize;
use serde_json::Value;

use super::scenario::Scenario;
use super::sink::Sink;
use super::source::Upstream;

/// One source of a run. What is not known of it alone is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceFigures {
    /// In the engine's configuration, and before its topics.
    pub name: String,
    /// Recording, or the kind of live server.
    pub source: String,
    /// Kind and version of the server, a recording's too.
    pub server: String,
    /// That was read back.
    pub topic: String,
    /// Row changes in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// Records in it, tombstones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Bytes of the stream; a live server's by the engine's own report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// From its first stream byte to the last append to its topic; real brokers do not tell that of a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// `changes` by `seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_per_second: Option<f64>,
    /// What read its stream by the engine's own report, `epoll` or `uring`; of a killed engine by that of its last process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<String>,
}

/// What reading a topic back found, or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) changes: u64,
    /// Repeated ones and tombstones among them.
    pub(super) records: u64,
}

impl Found {
    /// Of all topics; none where one of them could not be read.
    pub(super) fn of_all(found: &[Option<Found>]) -> Option<Found> {
        found.iter().try_fold(Found::default(), |all, found| {
            let found = (*found)?;
            Some(Found {
                changes: all.changes + found.changes,
                records: all.records + found.records,
            })
        })
    }

    /// Whether the brokers have more than was read, or less: records in a topic that nobody reads are not verified.
    pub(super) fn unread(&self, in_brokers: u64) -> Option<String> {
        (self.records != in_brokers).then(|| {
            format!(
                "records: {in_brokers} are in the broker, {} in the topics that were verified",
                self.records
            )
        })
    }
}

impl SourceFigures {
    /// What is known of a source before it has sent anything.
    pub(super) fn named(upstream: &Upstream) -> SourceFigures {
        SourceFigures {
            name: upstream.name().to_owned(),
            source: upstream.title().to_owned(),
            server: upstream.server().to_owned(),
            topic: upstream.topic(),
            ..SourceFigures::default()
        }
    }

    /// After a run; `found` in its topic, `engine_report` of the last process, which did all the work where none was killed.
    pub(super) fn of(
        upstream: &Upstream,
        found: Option<Found>,
        sink: &Sink,
        engine_report: &Value,
        was_killed: bool,
    ) -> SourceFigures {
        let figures = SourceFigures::named(upstream);
        let by_engine = figures.by_engine(engine_report);
        let end = sink.last_append(&figures.topic);
        let time = upstream.first_byte().zip(end);
        let seconds = time.map(|(start, end)| end.saturating_duration_since(start).as_secs_f64());
        let changes = found.map(|found| found.changes);
        let rate = |changes: u64, seconds: f64| (seconds > 0.0).then(|| changes as f64 / seconds);
        let of_engine = || {
            let of_all = by_engine.filter(|_| !was_killed)?;
            of_all.get("bytes_in")?.as_u64()
        };
        SourceFigures {
            changes,
            records: found.map(|found| found.records),
            bytes_in: upstream.bytes().or_else(of_engine),
            seconds,
            changes_per_second: changes
                .zip(seconds)
                .and_then(|(changes, seconds)| rate(changes, seconds)),
            io: figures.io_by(engine_report),
            ..figures
        }
    }

    /// What read its stream, as the engine's own report says.
    pub(super) fn io_by(&self, report: &Value) -> Option<String> {
        let io = self.by_engine(report)?.get("io")?.as_str()?;
        Some(io.to_owned())
    }

    /// That something else read its stream than the scenario's `engine.io` asks for: the engine falls back where the machine has no ring, and
    /// then a run is of what was not asked for. `said` has the engine's words about it.
    pub(super) fn read_otherwise(
        &self,
        scenario: &Scenario,
        said: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        let asked = scenario.walbrook.get("engine")?.get("io")?.as_str()?;
        if self.io.as_deref() == Some(asked) {
            return None;
        }
        let read = match &self.io {
            Some(io) => format!("{io} read {}", self.name),
            None => format!("the engine does not say what read {}", self.name),
        };
        let why = said().map_or_else(String::new, |said| format!("; its log says: {said}"));
        Some(format!("engine.io = {asked:?} is set, and {read}{why}"))
    }

    /// What the engine's own report says of this source; of a sole one it says it at its top.
    fn by_engine<'a>(&self, report: &'a Value) -> Option<&'a Value> {
        let several = report.get("sources").and_then(Value::as_array);
        let mut all = several.into_iter().flatten().chain([report]);
        all.find(|of| of.get("source").and_then(Value::as_str) == Some(self.name.as_str()))
    }

    /// Where the engine counts otherwise than its topic was read: with several sources one's loss could be another's gain.
    pub(super) fn disagreements(&self, report: &Value) -> Vec<String> {
        let ours = [("changes", self.changes), ("records", self.records)];
        let ours = ours
            .into_iter()
            .filter_map(|(what, ours)| ours.map(|ours| (what, ours)));
        ours.filter_map(|(what, ours)| {
            let own = self
                .by_engine(report)
                .and_then(|own| own.get(what)?.as_u64());
            let shown = own.map_or("nothing".to_owned(), |own| own.to_string());
            let (name, topic) = (&self.name, &self.topic);
            (own != Some(ours)).then(|| {
                format!("{what} of {name}: the engine reports {shown}, {ours} are in {topic}")
            })
        })
        .collect()
    }

    /// As a line of text.
    pub(super) fn line(&self) -> String {
        let known = [
            self.changes.map(|changes| format!("{changes} changes")),
            self.seconds.map(|seconds| format!("in {seconds:.3} s")),
            self.changes_per_second
                .map(|rate| format!("{:.2} M/s", rate / 1e6)),
            self.bytes_in
                .map(|bytes| format!("{:.1} MB read", bytes as f64 / 1e6)),
            self.io.as_ref().map(|io| format!("by {io}")),
        ];
        let known: Vec<String> = known.into_iter().flatten().collect();
        format!("{} ({}): {}", self.source, self.server, known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::replay::scenario::Scenario;
    use crate::replay::{program_for_test_of, replay};
    use crate::report::document::Document;

    #[test]
    fn records_that_nobody_read_are_not_verified() {
        let found = Found {
            changes: 10,
            records: 12,
        };
        assert_eq!(found.unread(12), None);
        let more = found.unread(13).unwrap();
        assert!(
            more.contains("13 are in the broker, 12 in the topics"),
            "{more}"
        );
        assert!(found.unread(11).is_some());
        let twice = Found {
            changes: 20,
            records: 24,
        };
        assert_eq!(Found::of_all(&[Some(found), Some(found)]), Some(twice));
        assert_eq!(Found::of_all(&[Some(found), None]), None);
    }

    #[test]
    fn the_engine_must_count_each_source_as_its_topic_was_read() {
        let of = |name: &str| SourceFigures {
            name: name.to_owned(),
            topic: format!("{name}.a.b"),
            changes: Some(10),
            records: Some(12),
            ..SourceFigures::default()
        };
        let own =
            |name: &str, changes: u64| json!({"source": name, "changes": changes, "records": 12});
        // The totals agree.
        let report = json!({"changes": 20, "records": 24, "sources": [own("a", 9), own("b", 11)]});
        let expected = "changes of a: the engine reports 9, 10 are in a.a.b";
        assert_eq!(of("a").disagreements(&report), [expected]);
        assert_eq!(of("b").disagreements(&report).len(), 1);
        let missing = of("c").disagreements(&report);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].contains("reports nothing"), "{missing:?}");
        assert_eq!(of("a").disagreements(&own("a", 10)), [""; 0]);
    }

    #[test]
    fn what_read_must_be_what_was_set() {
        let text = "[[source]]\nrecording = \"x\"\n[walbrook]\nkafka.acks = \"all\"";
        let mut scenario: Scenario = toml::from_str(text).unwrap();
        let by = |io: Option<&str>| SourceFigures {
            name: "a".to_owned(),
            io: io.map(str::to_owned),
            ..SourceFigures::default()
        };
        let said = || Some("no io_uring here (forbidden)".to_owned());
        // What nobody asked for is not missed.
        assert_eq!(by(Some("epoll")).read_otherwise(&scenario, said), None);
        scenario.set("engine.io=uring").unwrap();
        assert_eq!(by(Some("uring")).read_otherwise(&scenario, said), None);
        let expected = "engine.io = \"uring\" is set, and epoll read a; its log says: no io_uring here (forbidden)";
        let found = by(Some("epoll")).read_otherwise(&scenario, said);
        assert_eq!(found.as_deref(), Some(expected));
        let unknown = by(None).read_otherwise(&scenario, || None);
        let expected = "engine.io = \"uring\" is set, and the engine does not say what read a";
        assert_eq!(unknown.as_deref(), Some(expected));
        // Each of several says it of itself.
        let own = |name: &str, io: &str| json!({"source": name, "io": io});
        let report = json!({"sources": [own("b", "epoll"), own("a", "uring")]});
        assert_eq!(by(None).io_by(&report).as_deref(), Some("uring"));
        assert_eq!(by(None).io_by(&own("a", "epoll")).as_deref(), Some("epoll"));
    }

    /// A million each is the demo's; this is the same with less.
    #[tokio::test(flavor = "multi_thread")]
    async fn each_source_of_two_has_figures_of_its_own() {
        let Some(program) = program_for_test_of("two sources") else {
            return;
        };
        let text = "[[source]]\nrecording = \"mysql-9.7-20k\"\n\
            [[source]]\nrecording = \"postgres-15-full-50k\"";
        let scenario: Scenario = toml::from_str(text).unwrap();
        let (report, _) = replay(&scenario, &program, 1, false).await.unwrap();
        assert!(report.verified, "{:#?}", report.failures);
        assert_eq!(report.source, "mysql-9.7-20k + postgres-15-full-50k");
        let value = serde_json::to_value(&report).unwrap();
        let found: Vec<[&Value; 4]> = (value["sources"].as_array().unwrap().iter())
            .map(|of| ["name", "source", "topic", "changes"].map(|key| &of[key]))
            .collect();
        let of = |name: &str, source: &str, schema: &str, changes: u64| {
            let topic = format!("{name}.{schema}.events");
            [json!(name), json!(source), json!(topic), json!(changes)]
        };
        let expected = [
            of("replay1", "mysql-9.7-20k", "walbrook", 20_000),
            of("replay2", "postgres-15-full-50k", "walbrook", 50_000),
        ];
        assert_eq!(found, expected.each_ref().map(|of| of.each_ref()));
        let servers = report.sources.iter().map(|of| of.server.as_str());
        let kinds: Vec<&str> = servers
            .map(|server| &server[..server.find('.').unwrap()])
            .collect();
        assert_eq!(kinds, ["mysql 9", "postgres 15"]);
        // A reader of the file has the same.
        let read = Document::of(&report).unwrap().sources;
        assert_eq!(read.len(), 2);
        for (read, ours) in read.iter().zip(&report.sources) {
            assert_eq!((&read.source, &read.server), (&ours.source, &ours.server));
            assert_eq!((read.changes, read.records), (ours.changes, ours.records));
            assert_eq!((read.bytes_in, read.seconds), (ours.bytes_in, ours.seconds));
            assert_eq!(ours.io.as_deref(), Some("epoll"));
            assert_eq!(read.io, ours.io);
        }
        // Recorded commits say nothing of this run.
        let commits = ["commit_latency_ms", "commit_histogram"];
        for run in [&value, &value["runs"][0]] {
            assert!(run["latency_ms"].is_object());
            assert_eq!(commits.map(|name| run.get(name)), [None; 2]);
        }
        // Totals are the sums of what each has.
        let figures = &report.figures;
        let sum = |of: fn(&SourceFigures) -> Option<u64>| -> u64 {
            report.sources.iter().map(|one| of(one).unwrap()).sum()
        };
        assert_eq!(sum(|of| of.changes), figures.changes);
        assert_eq!(sum(|of| of.records), figures.records);
        assert_eq!(sum(|of| of.bytes_in), figures.bytes_in);
        for of in &report.sources {
            let seconds = of.seconds.unwrap();
            // None takes longer than both together.
            assert!(seconds > 0.0 && seconds <= figures.seconds, "{of:?}");
            let rate = of.changes.unwrap() as f64 / seconds;
            assert_eq!(of.changes_per_second, Some(rate));
        }
    }
}
