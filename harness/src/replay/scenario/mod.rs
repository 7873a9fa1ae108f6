//! Scenario files: a source, a broker, the engine's configuration, faults, and what must hold afterwards.

mod check;
#[cfg(test)]
mod promised;

use std::path::{Path, PathBuf};

use fixtures::Recording;
use serde::Deserialize;

use super::load::Load;
use crate::links::settings::LinkSettings;
use crate::serve::Writes;
use crate::servers::Flavour;
use crate::servers::kafka::Properties;
use crate::workload::SplitMix64;

/// One scenario file. Unknown keys are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without extension; set by [`Scenario::read`].
    #[serde(skip)]
    pub name: String,
    /// The file's tables as they stand there, for [`Scenario::settings`]; set by [`Scenario::read`].
    #[serde(skip)]
    pub file: toml::Table,
    /// What was put over `walbrook` by [`Scenario::set`], in that order.
    #[serde(skip)]
    pub set: Vec<String>,
    /// Where the changes come from.
    pub source: Vec<Source>,
    /// Where they go.
    #[serde(default)]
    pub broker: BrokerKind,
    /// Any part of walbrook.toml, over what the replay sets itself.
    #[serde(default)]
    pub walbrook: toml::Table,
    /// Emulated links; none where this is absent.
    #[serde(default)]
    pub link: Option<LinkSettings>,
    /// What goes wrong on the way.
    #[serde(default)]
    pub fault: Vec<Fault>,
    /// With one live server: what is committed into it while the engine streams.
    #[serde(default)]
    pub load: Option<Load>,
    /// What must hold.
    #[serde(default)]
    pub expect: Expect,
}

/// A recording or a live server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of a recording in `fixtures/recordings`, or a path relative to the scenario.
    #[serde(default)]
    pub recording: Option<String>,
    /// A live server instead.
    #[serde(default)]
    pub server: Option<LiveServer>,
    /// With `server`: row changes that wait in its binlog before the engine starts.
    #[serde(default)]
    pub rows: Option<u64>,
    /// With `server`: seed of the workload.
    #[serde(default = "seed")]
    pub seed: u64,
    /// With `recording`: all its row events as one transaction of so many rows, repeated as often as needed.
    #[serde(default)]
    pub one_transaction_rows: Option<u64>,
    /// With `recording`: sent at this rate; as fast as the socket takes it when absent.
    #[serde(default)]
    pub rate_changes_per_second: Option<u64>,
    /// With `recording`: how much one write takes, `large` or `message`.
    #[serde(default)]
    pub send: Writes,
    /// With `server`: its options (`--name=value`) over those of `harness servers`, which throw durability away.
    #[serde(default)]
    pub server_options: Vec<String>,
    /// With `server = "postgres"`: the output plugin, `pgoutput` or `wal2json`.
    #[serde(default = "pgoutput")]
    pub plugin: String,
    /// Options of the engine's URL, `compression=zstd&tls=require`.
    #[serde(default)]
    pub url_options: Option<String>,
}

fn pgoutput() -> String {
    "pgoutput".to_owned()
}

fn seed() -> u64 {
    42
}

/// Kinds of live servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LiveServer {
    /// MySQL 9.x.
    Mysql,
    /// MariaDB 10.11.
    Mariadb,
    /// PostgreSQL 15.
    Postgres,
}

impl From<LiveServer> for Flavour {
    fn from(server: LiveServer) -> Flavour {
        match server {
            LiveServer::Mysql => Flavour::Mysql,
            LiveServer::Mariadb => Flavour::Mariadb,
            LiveServer::Postgres => Flavour::Postgres,
        }
    }
}

/// Where the records go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerKind {
    /// `embedded`, or `kafka` for real ones: those that `WALBROOK_KAFKA` names (addresses, comma-separated), or started for the run.
    #[serde(default)]
    pub kind: Kind,
    /// How many brokers; real ones are 1 or 3, with as many replicas.
    #[serde(default = "one")]
    pub count: usize,
    /// Partitions of each topic.
    #[serde(default = "three")]
    pub partitions: i32,
    /// With `kafka`: so many records like the engine's are written into other topics before the run, so that the JVM has compiled what it
    /// needs.
    #[serde(default)]
    pub warm_up_records: u64,
    /// With `kafka`: before the first run, so many requests of one record a partition are sent to each broker, so that it has compiled
    /// what a request takes, too.
    #[serde(default)]
    pub warm_up_requests: u64,
    /// With `kafka`: the run's topics are there before it, as they are for whoever does not start for the first time; otherwise the
    /// engine creates them.
    #[serde(default)]
    pub existing_topics: bool,
    /// With `kafka`: lines of server.properties over those of the harness.
    #[serde(default)]
    pub properties: Properties,
}

/// Kinds of brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In this process, in memory.
    #[default]
    Embedded,
    /// Apache Kafka.
    Kafka,
}

impl Default for BrokerKind {
    fn default() -> BrokerKind {
        BrokerKind {
            kind: Kind::default(),
            count: one(),
            partitions: three(),
            warm_up_records: 0,
            warm_up_requests: 0,
            existing_topics: false,
            properties: Properties::default(),
        }
    }
}

fn one() -> usize {
    1
}

fn three() -> i32 {
    3
}

/// Something that goes wrong, once or again and again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Once, when so many changes have arrived.
    #[serde(default)]
    pub at_changes: Option<u64>,
    /// Again and again, after a random number of changes around this one.
    #[serde(default)]
    pub every_changes: Option<u64>,
    /// Seed of the random numbers.
    #[serde(default = "seed")]
    pub seed: u64,
    /// Which link, where the deed concerns one.
    #[serde(default = "source_link")]
    pub link: Link,
    /// What happens.
    #[serde(rename = "do")]
    pub deed: Deed,
    /// For how long, where the deed lasts.
    #[serde(default = "half_a_second")]
    pub for_ms: u64,
    /// With `drop_one_way`: which way; the way of the data when absent, between brokers towards the higher number.
    #[serde(default)]
    pub way: Option<Way>,
    /// With `rate`: the rate meanwhile.
    #[serde(default)]
    pub rate_mbit: Option<f64>,
}

/// One way of a link of the engine's; between brokers the lower-numbered one stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Towards the engine.
    ToEngine,
    /// Away from it.
    FromEngine,
}

fn source_link() -> Link {
    Link::Source
}

fn half_a_second() -> u64 {
    500
}

/// A kind of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// From the database.
    Source,
    /// To the broker.
    Kafka,
    /// Between each two real brokers.
    Brokers,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// The connection is closed.
    Cut,
    /// Nothing comes for a while, the connection stays.
    Stall,
    /// Everything that goes one way is lost; needs an emulated link.
    DropOneWay,
    /// The link is slower for a while; needs an emulated link.
    Rate,
    /// Every TCP segment carries one byte for a while, both ways; needs an emulated link.
    OneByte,
    /// `kill -9` of the engine, and a new one.
    KillEngine,
    /// A broker goes away for a while (`kill -9` of a real one) and comes back with what it had.
    RestartBroker,
    /// Every partition gets another leader.
    MoveLeader,
}

/// What must hold afterwards, besides the truth.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Row changes.
    #[serde(default)]
    pub rows: Option<u64>,
    /// From the first stream byte to the last append; not asserted with `--no-timing`.
    #[serde(default)]
    pub seconds_max: Option<f64>,
    /// Changes per second at least; not asserted with `--no-timing`.
    #[serde(default)]
    pub changes_per_second_min: Option<f64>,
    /// Processor time of the engine per change at most, in microseconds; not asserted with `--no-timing`.
    #[serde(default)]
    pub cpu_us_per_change_max: Option<f64>,
    /// Peak resident set of the engine at most, in MiB, in every run. Memory is not time, so this is asserted with `--no-timing`, too, where the
    /// engine is a release build.
    #[serde(default)]
    pub rss_mib_max: Option<f64>,
    /// Part of the engine's processor time that reading clocks may take, 0 to 1; not asserted with `--no-timing`.
    #[serde(default)]
    pub timing_share_max: Option<f64>,
    /// With `server = "postgres"`: at least this part of what a bare reader gets from the same server right before; not asserted with
    /// `--no-timing`.
    #[serde(default)]
    pub of_bare_reader_min: Option<f64>,
    /// At most so many times what the busiest link needs for its bytes; not asserted with `--no-timing`.
    #[serde(default)]
    pub times_limit_max: Option<f64>,
    /// With `[load]`: milliseconds from sending COMMIT to the broker's log that half of the rows may take; not asserted with `--no-timing`.
    #[serde(default)]
    pub commit_p50_ms_max: Option<f64>,
    /// With `[load]`: the same of 99 of 100 rows.
    #[serde(default)]
    pub commit_p99_ms_max: Option<f64>,
    /// With `[load]`: the same from when the commit was due, so with the writer's and the server's own delays.
    #[serde(default)]
    pub due_p99_ms_max: Option<f64>,
    /// With `[load]`: milliseconds from the server's timestamp of a commit to acknowledged that 99 of 100 rows may take, by the engine's own
    /// report; not asserted with `--no-timing`. MariaDB's timestamps are too coarse for it.
    #[serde(default)]
    pub acknowledged_p99_ms_max: Option<f64>,
    /// With `[load]` and links: milliseconds that half of the rows may take from sending COMMIT to acknowledged, over what the links need
    /// of that by themselves; not asserted with `--no-timing`.
    #[serde(default)]
    pub commit_p50_over_round_trip_ms_max: Option<f64>,
    /// The same of 99 of 100 rows.
    #[serde(default)]
    pub commit_p99_over_round_trip_ms_max: Option<f64>,
    /// Faults of the scenario that must have happened in every run, at least.
    #[serde(default)]
    pub faults_min: Option<usize>,
}

impl Scenario {
    /// Reads and checks the file at `path`; a bare name is looked for in `fixtures/scenarios`.
    ///
    /// # Errors
    /// A message that names the file and what is wrong.
    pub fn read(path: &Path) -> Result<Scenario, String> {
        let path = match path.exists() {
            true => path.to_owned(),
            // Not `with_extension`: names hold versions.
            false => fixtures::directory()
                .join("scenarios")
                .join(format!("{}.toml", path.display())),
        };
        let wrong = |message: String| format!("{}: {message}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let mut scenario: Scenario =
            toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        scenario.file = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        scenario.name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        scenario.check().map_err(wrong)?;
        Ok(scenario)
    }

    /// Puts `key=value` over the engine's settings; the value is TOML where it can be read so, a text otherwise.
    ///
    /// # Errors
    /// What is no setting.
    pub fn set(&mut self, setting: &str) -> Result<(), String> {
        let (key, value) = (setting.split_once('='))
            .ok_or_else(|| format!("--set {setting}: expected key=value"))?;
        let read = |value: &str| toml::from_str::<toml::Table>(&format!("{key} = {value}"));
        let table = read(value)
            .or_else(|_| read(&format!("{value:?}")))
            .map_err(|error| format!("--set {setting}: {error}"))?;
        merge(&mut self.walbrook, &table);
        self.set.push(setting.to_owned());
        Ok(())
    }

    /// What a run is made of, for its report: the file's tables with what was [set](Scenario::set) over them, without its expectations. A
    /// comment or a number's underscores are no other work, nor is another name.
    pub fn settings(&self) -> toml::Table {
        let mut settings = self.file.clone();
        settings.remove("expect");
        let walbrook = toml::Value::Table(self.walbrook.clone());
        settings.insert("walbrook".to_owned(), walbrook);
        settings
    }

    /// Whether the links of this kind are emulated.
    pub fn is_emulated(&self, which: Link) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| match which {
            Link::Source => link.source.is_some(),
            Link::Kafka => link.kafka.is_some(),
            Link::Brokers => link.brokers.is_some(),
        })
    }

    /// Whether the replay server makes this fault, at its place in the stream; otherwise an emulated link or the broker does.
    pub fn is_served(&self, fault: &Fault) -> bool {
        let is_cut_or_stall = matches!(fault.deed, Deed::Cut | Deed::Stall);
        fault.link == Link::Source && is_cut_or_stall && !self.is_emulated(Link::Source)
    }
}

impl Source {
    /// Whether the engine's URL asks for TLS, so that a replay server has to offer it.
    pub(super) fn asks_for_tls(&self) -> bool {
        let options = self.url_options.as_deref().unwrap_or_default();
        let mode = (options.split('&')).find_map(|option| option.strip_prefix("tls="));
        mode.is_some_and(|mode| mode != "disable")
    }

    /// The engine's URL with the scenario's options.
    pub(super) fn url(&self, url: &str) -> String {
        match &self.url_options {
            None => url.to_owned(),
            Some(options) if url.contains('?') => format!("{url}&{options}"),
            Some(options) => format!("{url}?{options}"),
        }
    }

    /// What it is called in reports: the recording, or the kind of the live server.
    pub fn title(&self) -> String {
        match (&self.recording, self.server) {
            (Some(recording), _) => recording.clone(),
            (None, Some(server)) => format!("live {}", Flavour::from(server).name()),
            // Refused when the scenario was read.
            (None, None) => String::new(),
        }
    }

    /// Opens the recording, if it is one.
    ///
    /// # Errors
    /// Those of [`Recording::open`].
    pub fn open(&self) -> Option<Result<Recording, fixtures::FixtureError>> {
        let name = self.recording.as_ref()?;
        let path = PathBuf::from(name);
        Some(if path.components().count() > 1 {
            Recording::open(&path)
        } else {
            Recording::named(name)
        })
    }
}

/// Puts `over`'s values into `table`, table by table.
pub(super) fn merge(table: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

impl Fault {
    /// The numbers of changes at which it happens, below `changes`.
    pub fn moments(&self, changes: u64) -> Vec<u64> {
        if let Some(at) = self.at_changes {
            return vec![at];
        }
        let every = self.every_changes.unwrap_or(changes).max(1);
        let mut random = SplitMix64(self.seed);
        let mut moments = Vec::new();
        let mut at = 0;
        loop {
            at += random.between(every / 2, every + every / 2).max(1);
            if at >= changes {
                return moments;
            }
            moments.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parsed(text: &str) -> Result<Scenario, String> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
        scenario.check().map(|()| scenario)
    }

    #[test]
    fn committed_scenarios_are_understood() {
        let entries = std::fs::read_dir(fixtures::directory().join("scenarios")).unwrap();
        let mut seen = 0;
        for entry in entries {
            Scenario::read(&entry.unwrap().path()).unwrap();
            seen += 1;
        }
        assert!(seen >= 5, "{seen} scenarios");
    }

    #[test]
    fn sources_say_what_they_are() {
        let text = "[[source]]\nrecording = \"mysql-9.7-20k\"\n\
            [[source]]\nserver = \"postgres\"\nrows = 5\n[[source]]\nserver = \"mariadb\"\nrows = 5";
        let sources = parsed(text).unwrap().source;
        let titles: Vec<String> = sources.iter().map(Source::title).collect();
        assert_eq!(titles, ["mysql-9.7-20k", "live postgres", "live mariadb"]);
    }

    #[test]
    fn settings_go_over_the_scenario_s_own() {
        let text = "[[source]]\nrecording = \"x\"\n[walbrook]\nengine.io = \"epoll\"\nkafka.acks = \"all\"";
        let mut scenario = parsed(text).unwrap();
        scenario.set("engine.io=uring").unwrap();
        scenario.set("kafka.topics.partitions=5").unwrap();
        let expected = "engine.io = \"uring\"\nkafka.acks = \"all\"\nkafka.topics.partitions = 5";
        assert_eq!(scenario.walbrook, toml::from_str(expected).unwrap());
        assert!(scenario.set("engine.io").is_err());
        assert!(scenario.set("=3").is_err());
        assert_eq!(
            scenario.set,
            ["engine.io=uring", "kafka.topics.partitions=5"]
        );
    }

    #[test]
    fn settings_are_what_is_run_and_not_what_is_expected() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Scenario::read(&path).unwrap()
        };
        let text = "[[source]]\nrecording = \"x\"\n[walbrook]\nengine.io = \"epoll\"\n";
        let plain = read("a.toml", text);
        let expected = format!("# the same\n{text}[expect]\nrows = 5");
        let expecting = read("b.toml", &expected);
        assert_eq!(plain.settings(), toml::from_str(text).unwrap());
        assert_eq!(expecting.settings(), plain.settings());
        let mut set = plain.clone();
        set.set("engine.io=uring").unwrap();
        assert_eq!(
            set.settings(),
            toml::from_str(&text.replace("epoll", "uring")).unwrap()
        );
        let fault = "[[fault]]\nat_changes = 5\ndo = \"kill_engine\"";
        let faulty = read("c.toml", &format!("{text}{fault}"));
        assert_ne!(faulty.settings(), plain.settings());
    }

    #[test]
    fn repeated_faults_come_at_seeded_moments() {
        let text = "[[source]]\nrecording = \"x\"\n[[fault]]\nevery_changes = 100\nseed = 3\ndo = \"kill_engine\"";
        let fault = &parsed(text).unwrap().fault[0];
        let moments = fault.moments(1000);
        assert_eq!(moments, fault.moments(1000));
        assert!((6..=20).contains(&moments.len()), "{moments:?}");
        assert!(
            moments
                .windows(2)
                .all(|pair| (50..=150).contains(&(pair[1] - pair[0])))
        );
    }
}
