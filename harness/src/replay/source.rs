//! Where a replay's changes come from: a replay server in this process, or a live one with the workload in its log.

use std::time::{Duration, Instant};

use fixtures::{Recording, Sidecar};
use netem::Door;

use super::live::Live;
use super::scenario::{Deed, Fault, Scenario, Source};
use crate::links::Links;
use crate::serve::{self, Action, Place, Rate, ServeOptions};
use crate::truth::Truth;
use crate::workload::Workload;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A sole source's name; several are numbered.
const SOURCE: &str = "replay";

/// A running source.
pub(super) struct Upstream {
    name: String,
    title: String,
    server: String,
    kind: Kind,
    truth: Truth,
}

enum Kind {
    Replayed {
        server: serve::Server,
        /// The engine's settings for this source.
        settings: String,
    },
    Live(Box<Live>),
}

impl Upstream {
    /// Starts the scenario's sources, each with the faults of the link to it.
    pub(super) async fn start(
        scenario: &Scenario,
        links: Option<&Links>,
    ) -> Result<Vec<Upstream>, Failure> {
        let mut upstreams = Vec::new();
        for (number, source) in scenario.source.iter().enumerate() {
            let door = links.map(|links| links.source(number)).transpose()?;
            let (kind, truth, server) = match source.open() {
                Some(recording) => {
                    let recording = recording?;
                    let faults = scenario.fault.iter();
                    let served = faults.filter(|fault| scenario.is_served(fault)).cloned();
                    let served = served.collect::<Vec<_>>();
                    let (kind, truth) = replayed(&recording, source, &served, door).await?;
                    let Sidecar {
                        server, version, ..
                    } = recording.sidecar;
                    (kind, truth, format!("{server} {version}"))
                }
                None => {
                    let (mut live, truth) = match &scenario.load {
                        Some(load) => Live::start_for_load(source, load).await?,
                        None => Live::start(source).await?,
                    };
                    if let Some(door) = &door {
                        live.put_behind(door).await?;
                    }
                    let server = live.version().await?;
                    (Kind::Live(Box::new(live)), truth, server)
                }
            };
            upstreams.push(Upstream {
                name: match scenario.source.len() {
                    1 => SOURCE.to_owned(),
                    _ => format!("{SOURCE}{}", number + 1),
                },
                title: source.title(),
                server,
                kind,
                truth,
            });
        }
        Ok(upstreams)
    }

    /// Its name in the engine's configuration and the prefix of its topics.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it is called in reports.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// Kind and version of the server, a recording's too.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The topic of its table.
    pub(super) fn topic(&self) -> String {
        let Truth { schema, table, .. } = &self.truth;
        format!("{}.{schema}.{table}", self.name)
    }

    /// What must come out.
    pub(super) fn truth(&self) -> &Truth {
        &self.truth
    }

    /// The engine's settings for this source, lines of TOML.
    pub(super) fn settings(&self) -> String {
        match &self.kind {
            Kind::Replayed { settings, .. } => settings.clone(),
            Kind::Live(live) => live.settings(),
        }
    }

    /// When the first byte of the stream was sent; for a live server, when its sender was first seen.
    pub(super) fn first_byte(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Replayed { server, .. } => server.first_byte_at(),
            Kind::Live(live) => live.began(),
        }
    }

    /// Bytes of the stream sent; a live server does not tell.
    pub(super) fn bytes(&self) -> Option<u64> {
        match &self.kind {
            Kind::Replayed { server, .. } => Some(server.bytes_sent()),
            Kind::Live(_) => None,
        }
    }

    /// What the engine did to its source that it must not do, and faults that were to happen there and did not.
    pub(super) fn complaints(&self) -> Vec<String> {
        let Kind::Replayed { server, .. } = &self.kind else {
            return Vec::new();
        };
        let mut complaints = server.complaints();
        let changes = self.truth.changes;
        complaints.extend(server.faults_left().iter().map(|fault| {
            format!(
                "{}: fault {fault} never happened, in a stream of {changes} changes",
                self.name
            )
        }));
        complaints
    }

    /// The faults that the replay server has made.
    pub(super) fn faults(&self) -> Vec<serve::Fault> {
        match &self.kind {
            Kind::Replayed { server, .. } => server.faults_taken(),
            Kind::Live(_) => Vec::new(),
        }
    }

    /// The server, if it is a live one.
    pub(super) fn live(&self) -> Option<&Live> {
        match &self.kind {
            Kind::Replayed { .. } => None,
            Kind::Live(live) => Some(live),
        }
    }

    /// What a bare reader got from a live server.
    pub(super) fn bare_changes_per_second(&self) -> Option<f64> {
        match &self.kind {
            Kind::Replayed { .. } => None,
            Kind::Live(live) => live.bare_changes_per_second(),
        }
    }
}

async fn replayed(
    recording: &Recording,
    source: &Source,
    served: &[Fault],
    door: Option<Door>,
) -> Result<(Kind, Truth), Failure> {
    let mut truth = Truth::read(&recording.truth_path())?;
    if let Some(rows) = source.one_transaction_rows {
        // The recording's rows over and over are so many passes of its workload.
        let workload = truth
            .workload
            .clone()
            .filter(|workload| rows % workload.changes == 0);
        let workload = workload.ok_or(
            "one_transaction_rows must be a multiple of the changes of a recording with a workload",
        )?;
        let passes = u32::try_from(rows / workload.changes)?;
        let (schema, table) = (truth.schema.clone(), truth.table.clone());
        truth = Truth {
            schema,
            table,
            ..tokio::task::block_in_place(|| {
                Truth::with(&Workload { passes, ..workload }, truth.images)
            })
        };
    }
    let faults = served.iter().flat_map(|fault| {
        let action = match fault.deed {
            Deed::Cut => Some(Action::Cut),
            Deed::Stall => Some(Action::Stall(Duration::from_millis(fault.for_ms))),
            _ => None,
        };
        let moments = action
            .map(|_| fault.moments(truth.changes))
            .unwrap_or_default();
        moments.into_iter().filter_map(move |at| {
            Some(serve::Fault {
                at: Place::Changes(at),
                action: action?,
            })
        })
    });
    let options = ServeOptions {
        user: Some(("cdc".to_owned(), "cdc".to_owned())),
        rate: source.rate_changes_per_second.map(Rate::Changes),
        writes: source.send,
        faults: faults.collect(),
        transaction_rows: source.one_transaction_rows,
        tls: source.asks_for_tls(),
        host: door.as_ref().map(|door| door.host().clone()),
        ..ServeOptions::default()
    };
    let listen = match &door {
        None => "127.0.0.1:0".to_owned(),
        Some(door) => door.listen().to_string(),
    };
    let server = serve::Server::start(recording, &listen, options).await?;
    let address = match &door {
        None => server.address(),
        Some(door) => {
            door.lead_to(server.address());
            door.address()
        }
    };
    let settings = match &recording.sidecar.postgres {
        None => {
            let url = source.url(&format!("mysql://cdc:cdc@{address}"));
            format!("url = {url:?}\n")
        }
        Some(postgres) => {
            let url = format!("postgres://cdc:cdc@{address}/{}", postgres.database);
            let url = source.url(&url);
            let mut settings = postgres_settings(&url, &postgres.slot, &postgres.plugin);
            if postgres.options.contains_key("streaming") {
                settings.push_str(
                    "streaming = \"on\"
",
                );
            }
            settings
        }
    };
    Ok((Kind::Replayed { server, settings }, truth))
}

/// The engine's settings for a slot; the publication of ours is called as the slot.
pub(super) fn postgres_settings(url: &str, slot: &str, plugin: &str) -> String {
    format!("url = {url:?}\nslot = {slot:?}\npublication = {slot:?}\nplugin = {plugin:?}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fault_that_never_happened_is_a_complaint() {
        let text = "[[source]]\nrecording = \"mysql-9.7-20k\"\n\
            [[fault]]\nat_changes = 30_000\ndo = \"cut\"";
        let scenario: Scenario = toml::from_str(text).unwrap();
        let upstreams = Upstream::start(&scenario, None).await.unwrap();
        assert_eq!(upstreams[0].faults(), []);
        let complaints = upstreams[0].complaints();
        assert_eq!(
            complaints,
            ["replay: fault cut@30000 never happened, in a stream of 20000 changes"]
        );
    }
}
