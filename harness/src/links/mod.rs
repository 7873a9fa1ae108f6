//! Emulated links of a scenario: which hosts there are, how the engine reaches them, what goes wrong between them, and how far a run
//! was from what its links can carry.
//!
//! ```text
//! source, source1, … ─ [link.source] ─ engine ─ [link.kafka] ─ k1, k2, …     k1 ─ [link.brokers] ─ k2
//! ```
//! Without `[link.source]` the databases are on the engine's own host; with neither `[link.kafka]` nor `[link.brokers]` the brokers are.

mod command;
pub mod report;
pub mod settings;

use std::net::SocketAddr;
use std::sync::Arc;

use netem::{Backend, Direction, Door, Host, Link, LinkPlan, NetemError, Network, Plan};
use tokio::net::TcpListener;

use crate::replay::scenario::{Deed, Kind, Link as Which, Scenario, Way};
pub use command::{Args, run};
use settings::Shapes;

/// The engine's host.
const ENGINE: &str = "engine";

/// A scenario's network, while it runs.
#[derive(Clone, Debug)]
pub struct Links {
    network: Arc<Network>,
    engine: Host,
    sources: Vec<String>,
    brokers: Vec<String>,
}

/// Something that goes wrong with a link.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Which links.
    pub link: Which,
    /// What.
    pub deed: Deed,
    /// Of one-way troubles which way.
    pub way: Option<Way>,
    /// The rate while it is lower, bits per second.
    pub rate_bits: Option<u64>,
    /// Whether it begins; `false` when it ends.
    pub starts: bool,
}

/// Listens on an emulated host, or on this machine where there is none.
///
/// # Errors
/// Those of the system.
pub async fn listen(host: Option<&Host>, address: SocketAddr) -> std::io::Result<TcpListener> {
    let Some(host) = host else {
        return TcpListener::bind(address).await;
    };
    let listener = host.listen(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Links {
    /// Makes the network of a scenario with links; `None` where it has none.
    ///
    /// # Errors
    /// Links that cannot be emulated here, with the reason of every way.
    pub fn open(scenario: &Scenario, backend: Option<Backend>) -> Result<Option<Self>, NetemError> {
        let Some(links) = &scenario.link else {
            return Ok(None);
        };
        let numbered = |name: &str, count: usize| -> Vec<String> {
            (1..=count)
                .map(|number| format!("{name}{number}"))
                .collect()
        };
        let sources = match (&links.source, scenario.source.len()) {
            (None, _) => Vec::new(),
            (Some(_), 1) => vec!["source".to_owned()],
            (Some(_), count) => numbered("source", count),
        };
        let brokers = match links.kafka.is_some() || links.brokers.is_some() {
            false => Vec::new(),
            true => numbered("k", scenario.broker.count.max(1)),
        };
        let plan = |one: &str, other: &str, shapes: &Shapes| LinkPlan {
            one: one.to_owned(),
            other: other.to_owned(),
            forth: shapes.from_engine.clone(),
            back: shapes.to_engine.clone(),
        };
        let from_engine = |hosts: &[String], shapes: &Option<Shapes>| -> Vec<LinkPlan> {
            let shapes = shapes.iter();
            shapes
                .flat_map(|shapes| hosts.iter().map(|host| plan(ENGINE, host, shapes)))
                .collect()
        };
        let mut all = from_engine(&sources, &links.source);
        all.extend(from_engine(&brokers, &links.kafka));
        for (number, one) in brokers.iter().enumerate() {
            let others = brokers[number + 1..].iter();
            all.extend(others.flat_map(|other| {
                (links.brokers.iter()).map(move |shapes| plan(one, other, shapes))
            }));
        }
        let plan = Plan {
            hosts: std::iter::once(ENGINE.to_owned())
                .chain(sources.iter().cloned())
                .chain(brokers.iter().cloned())
                .collect(),
            links: all,
            seed: links.seed,
        };
        let network = Network::open(&plan, backend)?;
        let is_on_hosts = scenario.broker.kind == Kind::Kafka && !brokers.is_empty();
        if is_on_hosts && network.backend() == Backend::Proxy {
            return Err(NetemError::Plan(homeless(&network)));
        }
        Ok(Some(Self {
            engine: network.host(ENGINE)?.clone(),
            network: Arc::new(network),
            sources,
            brokers,
        }))
    }

    /// Where the engine runs.
    #[must_use]
    pub fn engine(&self) -> &Host {
        &self.engine
    }

    /// How the engine reaches the source of this number, counted from 0.
    ///
    /// # Errors
    /// Those of the system.
    pub fn source(&self, number: usize) -> Result<Door, NetemError> {
        self.door(self.sources.get(number), 3306 + number as u16)
    }

    /// How the engine reaches the broker of this number, counted from 0.
    ///
    /// # Errors
    /// Those of the system.
    pub fn broker(&self, number: usize) -> Result<Door, NetemError> {
        self.door(self.brokers.get(number), 9092 + number as u16)
    }

    fn door(&self, host: Option<&String>, port: u16) -> Result<Door, NetemError> {
        self.network
            .door(ENGINE, host.map_or(ENGINE, String::as_str), port)
    }

    /// The host of the broker of this number, counted from 0: its own, or the engine's.
    ///
    /// # Errors
    /// None that can be met: every broker's host is in the plan.
    pub fn broker_host(&self, number: usize) -> Result<&Host, NetemError> {
        let name = self.brokers.get(number).map_or(ENGINE, String::as_str);
        self.network.host(name)
    }

    /// The network itself.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The links of a kind, with the hosts at their ends; the engine is the first.
    fn of(&self, which: Which) -> Vec<([&str; 2], Link<'_>)> {
        fn names(hosts: &[String]) -> impl Iterator<Item = &str> {
            hosts.iter().map(String::as_str)
        }
        let ends: Vec<[&str; 2]> = match which {
            Which::Source => names(&self.sources).map(|host| [ENGINE, host]).collect(),
            Which::Kafka => names(&self.brokers).map(|host| [ENGINE, host]).collect(),
            Which::Brokers => (names(&self.brokers).enumerate())
                .flat_map(|(at, one)| names(&self.brokers[at + 1..]).map(move |other| [one, other]))
                .collect(),
        };
        let linked = ends.into_iter().filter_map(|[one, other]| {
            let link = self.network.link(one, other).ok()?;
            Some(([one, other], link))
        });
        linked.collect()
    }

    /// Whether the scenario shapes links of this kind, so that they can be troubled.
    #[must_use]
    pub fn has(&self, which: Which) -> bool {
        !self.of(which).is_empty()
    }

    /// Lets something happen to every link of a kind.
    ///
    /// # Errors
    /// Those of tc.
    pub fn trouble(&self, trouble: Trouble) -> Result<(), NetemError> {
        let both = [Direction::Forth, Direction::Back];
        let data = match trouble.link {
            Which::Source => Direction::Back,
            Which::Kafka => Direction::Forth,
            // It goes both ways.
            Which::Brokers => Direction::Forth,
        };
        let one_way = match trouble.way {
            None => data,
            Some(Way::ToEngine) => Direction::Back,
            Some(Way::FromEngine) => Direction::Forth,
        };
        for (_, link) in self.of(trouble.link) {
            match trouble.deed {
                Deed::Cut if trouble.starts => link.cut()?,
                Deed::Stall => {
                    for direction in both {
                        link.stall(direction, trouble.starts)?;
                    }
                }
                Deed::DropOneWay => link.down(one_way, trouble.starts)?,
                Deed::Rate => {
                    for direction in both {
                        let lower = trouble.rate_bits.filter(|_| trouble.starts);
                        link.slow(direction, lower)?;
                    }
                }
                Deed::Cut | Deed::KillEngine | Deed::RestartBroker | Deed::MoveLeader => {}
            }
        }
        Ok(())
    }
}

/// Why real brokers cannot be where a relay is all that can be had.
fn homeless(network: &Network) -> String {
    let refused = network.refused().iter();
    let refused: String = refused.map(|refusal| format!("; {refusal}")).collect();
    format!(
        "link.kafka, link.brokers: real brokers need network namespaces of their own, which a relay does not give{refused}; run as root \
         with iproute2 and /dev/net/tun, or take broker.kind = \"embedded\" without link.brokers"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_no_home_for_real_brokers() {
        let text = "[[source]]\nrecording = \"x\"\n[broker]\nkind = \"kafka\"\n[link.source]\ndelay_ms = 1";
        let mut scenario: Scenario = toml::from_str(text).unwrap();
        assert!(Links::open(&scenario, Some(Backend::Proxy)).is_ok());
        scenario.link = toml::from_str("kafka = { delay_ms = 1 }").unwrap();
        let error = Links::open(&scenario, Some(Backend::Proxy)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("link.kafka") && error.contains("namespaces"),
            "{error}"
        );
    }
}
