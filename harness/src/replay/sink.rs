//! Where a replay's records go: the embedded broker, or real ones.

use std::time::Instant;

use netem::Door;

use super::kafka::{Kept, RealKafka};
use super::scenario::{BrokerKind, Deed, Kind, Scenario};
use crate::broker::{Broker, Listener, Settings};
use crate::links::Links;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the sole embedded broker is called.
pub(super) const EMBEDDED: &str = "embedded broker";

/// A running broker, or several.
pub(super) enum Sink {
    /// In this process.
    Embedded(Broker),
    /// Apache Kafka, one process each.
    Kafka(Box<RealKafka>),
}

/// What is in a broker when a run is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contents {
    /// Records of the run's topics, tombstones included.
    pub(super) records: u64,
    /// Bytes of their batches.
    pub(super) bytes: u64,
    /// When the last record was there.
    pub(super) last_append: Option<Instant>,
}

impl Sink {
    /// Starts what the scenario asks for, or goes on with what the run before has `kept`; `topics` are those that the run will write.
    /// With links each broker is on the host to which the engine's link leads.
    pub(super) async fn start(
        scenario: &Scenario,
        topics: Vec<String>,
        links: Option<&Links>,
        kept: &mut Kept,
    ) -> Result<Sink, Failure> {
        let BrokerKind {
            count, partitions, ..
        } = scenario.broker;
        if scenario.broker.kind == Kind::Kafka {
            let kafka = RealKafka::start(scenario, topics, links, kept).await?;
            return Ok(Sink::Kafka(Box::new(kafka)));
        }
        let doors = (0..count.max(1)).filter_map(|node| Some(links?.broker(node)));
        let doors = doors.collect::<Result<Vec<Door>, _>>()?;
        let listeners = match links {
            None => (0..count.max(1)).map(|_| Listener::loopback()).collect(),
            Some(_) => doors.iter().map(behind).collect(),
        };
        let broker = Broker::start(Settings {
            listeners,
            partitions,
            ..Settings::default()
        })
        .await?;
        for (door, address) in doors.iter().zip(broker.addresses()) {
            door.lead_to(address);
        }
        Ok(Sink::Embedded(broker))
    }

    /// Ends what the next run does not go on with.
    pub(super) async fn end(self, verified: bool, kept: &mut Kept) -> Result<(), Failure> {
        match self {
            Sink::Embedded(_) => Ok(()),
            Sink::Kafka(kafka) => kafka.end(verified, kept).await,
        }
    }

    /// The broker of this process, whose log says when it was written.
    pub(super) fn embedded(&self) -> Option<&Broker> {
        match self {
            Sink::Embedded(broker) => Some(broker),
            Sink::Kafka(_) => None,
        }
    }

    /// Addresses, comma-separated.
    pub(super) fn bootstrap(&self) -> String {
        match self {
            Sink::Embedded(broker) => broker.bootstrap(),
            Sink::Kafka(kafka) => kafka.bootstrap(),
        }
    }

    /// Addresses for whoever looks past the links.
    pub(super) fn observed_bootstrap(&self) -> String {
        match self {
            Sink::Embedded(broker) => broker.observed_bootstrap(),
            Sink::Kafka(kafka) => kafka.observed_bootstrap(),
        }
    }

    /// What it is, for reports.
    pub(super) fn title(&self) -> String {
        match self {
            Sink::Embedded(broker) => match broker.addresses().len() {
                1 => EMBEDDED.to_owned(),
                count => format!("{EMBEDDED}, {count} listeners"),
            },
            Sink::Kafka(kafka) => kafka.title(),
        }
    }

    /// Replicas of each partition.
    pub(super) fn replication(&self) -> usize {
        match self {
            Sink::Embedded(_) => 1,
            Sink::Kafka(kafka) => kafka.count(),
        }
    }

    /// Records that have arrived, as far as is known.
    pub(super) fn records(&self) -> u64 {
        match self {
            Sink::Embedded(broker) => broker.counts().records,
            Sink::Kafka(kafka) => kafka.records(),
        }
    }

    /// What is there now that nothing comes any more.
    pub(super) async fn contents(&self) -> Result<Contents, Failure> {
        match self {
            Sink::Embedded(broker) => {
                let counts = broker.counts();
                Ok(Contents {
                    records: counts.records,
                    bytes: counts.bytes,
                    last_append: counts.last_append,
                })
            }
            Sink::Kafka(kafka) => kafka.contents().await,
        }
    }

    /// When the last record of `topic` was there; real brokers tell it of all together only.
    pub(super) fn last_append(&self, topic: &str) -> Option<Instant> {
        let partitions = self.embedded()?.counts().partitions.into_iter();
        let of_topic = partitions.filter(|(name, ..)| name == topic);
        of_topic.filter_map(|(_, _, of)| of.last_append).max()
    }

    /// Lets a fault of the broker's or of the link to it begin, or end.
    pub(super) async fn happen(
        &mut self,
        deed: Deed,
        starts: bool,
        length: std::time::Duration,
    ) -> Result<(), Failure> {
        match self {
            Sink::Embedded(broker) => {
                embedded(broker, deed, starts, length)?;
                Ok(())
            }
            Sink::Kafka(kafka) => kafka.happen(deed, starts).await,
        }
    }
}

/// A listener that clients are told to reach by the door.
fn behind(door: &Door) -> Listener {
    let address = door.address();
    Listener {
        advertised: Some((address.ip().to_string(), address.port())),
        host: Some(door.host().clone()),
        ..Listener::plain(door.listen())
    }
}

fn embedded(
    broker: &Broker,
    deed: Deed,
    starts: bool,
    length: std::time::Duration,
) -> Result<(), Failure> {
    let nodes = broker.addresses().len();
    match (deed, starts) {
        (Deed::Cut, _) => (0..nodes).for_each(|node| broker.disconnect(node)),
        (Deed::Stall, true) => broker.faults().delay(None, length),
        (Deed::Stall, false) => broker.faults().clear(),
        (Deed::RestartBroker, true) => broker.stop(0),
        (Deed::RestartBroker, false) => broker.resume(0),
        (Deed::MoveLeader, _) => {
            for (topic, partition, _) in broker.counts().partitions {
                let leader = broker.leader(&topic, partition).unwrap_or_default();
                let next = (leader + 1) % nodes as i32;
                broker
                    .move_leader(&topic, partition, next)
                    .map_err(|error| format!("moving {topic}/{partition}: {error:?}"))?;
            }
        }
        // The engine's, or refused when the scenario was read.
        (Deed::KillEngine | Deed::DropOneWay | Deed::Rate | Deed::OneByte, _) => {}
    }
    Ok(())
}
