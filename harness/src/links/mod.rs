//! Emulated links of a scenario: which hosts there are, how the engine reaches them, what goes wrong between them, and how far a run
//! was from what its links can carry.
//!
//! ```text
//! source, source1, … ─ [link.source] ─ engine ─ [link.kafka] ─ k1, k2, …     k1 ─ [link.brokers] ─ k2
//! ```
//! Without `[link.source]` the databases are on the engine's own host; with neither `[link.kafka]` nor `[link.brokers]` the brokers are.

mod command;
mod passage;
pub mod report;
pub mod round_trip;
pub mod settings;

use std::net::SocketAddr;
use std::sync::Arc;

use netem::{
    Backend, Direction, Door, Host, Link, LinkPlan, LinkProfile, NetemError, Network, Plan,
};
use tokio::net::TcpListener;

use crate::replay::scenario::{Deed, Kind, Link as Which, Scenario, Way};
pub use command::{Args, run};
pub use passage::Passage;
use round_trip::RoundTrip;
use settings::{LinkSettings, Shapes};

/// The engine's host.
const ENGINE: &str = "engine";
/// Where links are measured; no service of ours listens there.
const DISCARD: u16 = 9;

/// A scenario's network, while it runs.
#[derive(Clone, Debug)]
pub struct Links {
    network: Arc<Network>,
    engine: Host,
    sources: Vec<String>,
    brokers: Vec<String>,
    settings: LinkSettings,
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
        // The way of emulation must be one that can do what a fault will ask of it.
        let asked = |which: Which, profile: &LinkProfile| match cuts_segments(scenario, which) {
            true => one_byte(profile.clone()),
            false => profile.clone(),
        };
        let plan = |which: Which, one: &str, other: &str, shapes: &Shapes| LinkPlan {
            one: one.to_owned(),
            other: other.to_owned(),
            forth: asked(which, &shapes.from_engine),
            back: asked(which, &shapes.to_engine),
        };
        let from_engine = |which: Which, hosts: &[String]| -> Vec<LinkPlan> {
            let shapes = links.shapes(which).into_iter();
            shapes
                .flat_map(|shapes| hosts.iter().map(|host| plan(which, ENGINE, host, shapes)))
                .collect()
        };
        let mut all = from_engine(Which::Source, &sources);
        all.extend(from_engine(Which::Kafka, &brokers));
        for (number, one) in brokers.iter().enumerate() {
            let others = brokers[number + 1..].iter();
            all.extend(others.flat_map(|other| {
                (links.brokers.iter()).map(|shapes| plan(Which::Brokers, one, other, shapes))
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
        let links = Self {
            engine: network.host(ENGINE)?.clone(),
            network: Arc::new(network),
            sources,
            brokers,
            settings: links.clone(),
        };
        for which in [Which::Source, Which::Kafka, Which::Brokers] {
            if cuts_segments(scenario, which) {
                links.cut_segments(which, false)?;
            }
        }
        Ok(Some(links))
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

    /// What a link of this kind takes by itself; `None` where the scenario has none. All of a kind are shaped alike, so the first is
    /// measured. Blocking.
    ///
    /// # Errors
    /// Those of the system.
    pub fn measure(&self, which: Which) -> Result<Option<RoundTrip>, NetemError> {
        let Some(([_, host], _)) = self.of(which).into_iter().next() else {
            return Ok(None);
        };
        let door = self.network.door(ENGINE, host, DISCARD)?;
        let measured = RoundTrip::measure(&self.engine, &door);
        let failed = |source| NetemError::System {
            what: format!("measuring the link to {host}"),
            source,
        };
        measured.map(Some).map_err(failed)
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
                // All links of the kind at once.
                Deed::OneByte => return self.cut_segments(trouble.link, trouble.starts),
                Deed::Cut | Deed::KillEngine | Deed::RestartBroker | Deed::MoveLeader => {}
            }
        }
        Ok(())
    }

    /// Has every TCP segment on the links of a kind carry one byte, or as many again as the scenario says.
    fn cut_segments(&self, which: Which, to_one_byte: bool) -> Result<(), NetemError> {
        let Some(shapes) = self.settings.shapes(which) else {
            return Ok(());
        };
        for (_, link) in self.of(which) {
            for (direction, own) in [
                (Direction::Forth, &shapes.from_engine),
                (Direction::Back, &shapes.to_engine),
            ] {
                let own = own.clone();
                let profile = match to_one_byte {
                    true => one_byte(own),
                    false => own,
                };
                link.set(direction, profile)?;
            }
        }
        Ok(())
    }
}

/// Whether a fault of the scenario cuts the segments on links of this kind.
fn cuts_segments(scenario: &Scenario, which: Which) -> bool {
    let mut faults = scenario.fault.iter();
    faults.any(|fault| fault.deed == Deed::OneByte && fault.link == which)
}

/// The same with one byte in every segment.
fn one_byte(profile: LinkProfile) -> LinkProfile {
    LinkProfile {
        segment_bytes: Some(1),
        ..profile
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
    fn segments_are_cut_while_the_fault_lasts() {
        let text = "[[source]]\nrecording = \"x\"\n[link.source]\ndelay_ms = 1\nto_engine = { segment_bytes = 7 }\n\
            [[fault]]\nat_changes = 1\nlink = \"source\"\ndo = \"one_byte\"";
        let scenario: Scenario = toml::from_str(text).unwrap();
        let links = Links::open(&scenario, Some(Backend::Proxy)).unwrap();
        let links = links.unwrap();
        let profiles = || {
            let of = links.of(Which::Source);
            [Direction::Forth, Direction::Back].map(|way| of[0].1.profile(way).to_string())
        };
        let own = ["delay 1ms", "delay 1ms segment 7"];
        assert_eq!(profiles(), own);
        let trouble = |starts| {
            links.trouble(Trouble {
                link: Which::Source,
                deed: Deed::OneByte,
                way: None,
                rate_bits: None,
                starts,
            })
        };
        trouble(true).unwrap();
        assert_eq!(profiles(), ["delay 1ms segment 1"; 2]);
        trouble(false).unwrap();
        assert_eq!(profiles(), own);
        // The kernel cannot do it, which must be known before the fault.
        let error = Links::open(&scenario, Some(Backend::Tc)).unwrap_err();
        assert!(error.to_string().contains("segment"), "{error}");
    }

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
