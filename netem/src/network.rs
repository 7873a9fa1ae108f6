//! Hosts, the links between them, and which way of emulation carries them.

mod backend;
mod error;
mod host;
mod link;
mod plan;
mod trial;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

pub use backend::{Backend, Refusal};
pub use error::NetemError;
pub use host::Host;
pub use link::Link;
pub use plan::{Direction, LinkPlan, Plan};

use crate::namespace::{self, Namespace};
use crate::profile::LinkProfile;
use crate::proxy::{Lane, Relay};
use crate::tc::{self, Kernel};
use crate::tun::Emulator;
use host::HostInner;
use plan::check;

/// Length of the network part of the hosts' addresses.
pub(crate) const PREFIX_BITS: u8 = 24;

/// Address of a host inside its network; every network has the same ones, each in its own namespaces.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 89, 0, host as u8 + 1)
}

/// Running links; they end, and the namespaces are removed, when this and all its hosts are dropped.
#[derive(Debug)]
pub struct Network {
    carrier: Carrier,
    hosts: Vec<Host>,
    links: Vec<Ends>,
    refused: Vec<Refusal>,
    seed: u64,
}

#[derive(Debug)]
enum Carrier {
    Tc(Kernel),
    Tun(Emulator),
    Proxy {
        /// From a to b at `a * hosts + b`.
        lanes: Vec<Arc<Lane>>,
        relays: Mutex<Vec<(usize, usize, Arc<Relay>)>>,
    },
}

/// A link's ends, and the profiles that it has without faults.
#[derive(Debug)]
struct Ends {
    one: usize,
    other: usize,
    profiles: Mutex<[LinkProfile; 2]>,
}

impl Network {
    /// Makes the hosts and links of `plan`, the first way that is possible; only `wanted` where that is given.
    ///
    /// # Errors
    /// [`NetemError`]; [`NetemError::Impossible`] says of every way why not.
    pub fn open(plan: &Plan, wanted: Option<Backend>) -> Result<Self, NetemError> {
        check(plan)?;
        namespace::remove_leftovers();
        let mut refused = Vec::new();
        for backend in Backend::ALL {
            if wanted.is_some_and(|wanted| wanted != backend) {
                continue;
            }
            match possible(backend, plan) {
                Ok(()) => return Self::start(backend, plan, refused),
                Err(reason) => refused.push(Refusal { backend, reason }),
            }
        }
        Err(NetemError::Impossible(refused))
    }

    fn start(backend: Backend, plan: &Plan, refused: Vec<Refusal>) -> Result<Self, NetemError> {
        let network = namespace::network_name();
        let mut hosts = Vec::with_capacity(plan.hosts.len());
        for (number, name) in plan.hosts.iter().enumerate() {
            let namespace = match backend {
                Backend::Proxy => None,
                _ => Some(Namespace::create(&format!("{network}-{name}"))?),
            };
            hosts.push(Host {
                inner: Arc::new(HostInner {
                    name: name.clone(),
                    address: match namespace {
                        None => Ipv4Addr::LOCALHOST,
                        Some(_) => address(number),
                    },
                    namespace,
                }),
            });
        }
        let inside = hosts.iter().filter_map(|host| {
            let namespace = host.inner.namespace.as_ref()?;
            Some((namespace, host.address()))
        });
        let inside: Vec<(&Namespace, Ipv4Addr)> = inside.collect();
        let carrier = match backend {
            Backend::Tc => {
                let switch = Namespace::create(&format!("{network}-switch"))?;
                Carrier::Tc(Kernel::start(&inside, switch)?)
            }
            Backend::Tun => Carrier::Tun(Emulator::start(&inside, plan.seed)?),
            Backend::Proxy => Carrier::Proxy {
                lanes: (0..hosts.len() * hosts.len())
                    .map(|number| {
                        let seed = plan.seed.wrapping_add(number as u64);
                        Arc::new(Lane::new(LinkProfile::default(), seed))
                    })
                    .collect(),
                relays: Mutex::default(),
            },
        };
        let place = |name: &String| plan.hosts.iter().position(|host| host == name);
        let links = plan.links.iter().filter_map(|link| {
            Some(Ends {
                one: place(&link.one)?,
                other: place(&link.other)?,
                profiles: Mutex::new([link.forth.clone(), link.back.clone()]),
            })
        });
        let network = Self {
            carrier,
            links: links.collect(),
            hosts,
            refused,
            seed: plan.seed,
        };
        for ends in 0..network.links.len() {
            let link = Link {
                network: &network,
                ends,
            };
            for direction in [Direction::Forth, Direction::Back] {
                link.apply(direction, &link.profile(direction))?;
            }
        }
        Ok(network)
    }

    /// The way that was possible.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self.carrier {
            Carrier::Tc(_) => Backend::Tc,
            Carrier::Tun(_) => Backend::Tun,
            Carrier::Proxy { .. } => Backend::Proxy,
        }
    }

    /// The ways before it, and why they were not possible.
    #[must_use]
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// The seed of everything that happens by chance.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A host of the plan.
    ///
    /// # Errors
    /// [`NetemError::Plan`] where there is none of that name.
    pub fn host(&self, name: &str) -> Result<&Host, NetemError> {
        Ok(&self.hosts[self.place(name)?])
    }

    fn place(&self, name: &str) -> Result<usize, NetemError> {
        (self.hosts.iter().position(|host| host.name() == name))
            .ok_or_else(|| NetemError::Plan(format!("there is no host {name:?}")))
    }

    /// A link of the plan, either end first.
    ///
    /// # Errors
    /// [`NetemError::Plan`] where there is none between these two.
    pub fn link(&self, one: &str, other: &str) -> Result<Link<'_>, NetemError> {
        let (one, other) = (self.place(one)?, self.place(other)?);
        let found = self
            .links
            .iter()
            .position(|ends| (ends.one, ends.other) == (one, other));
        let ends = found.ok_or_else(|| {
            NetemError::Plan("there is no such link, in this order of hosts".to_owned())
        })?;
        Ok(Link {
            network: self,
            ends,
        })
    }

    /// The way from host `from` to a service of host `to`. With namespaces that is the service's own address; with the proxy it leads
    /// through a relay, so it must be known to the service before it starts, when the service tells its clients where it is.
    ///
    /// # Errors
    /// An unknown host; those of the system.
    pub fn door(&self, from: &str, to: &str, port: u16) -> Result<Door, NetemError> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let host = self.hosts[to].clone();
        let Carrier::Proxy { lanes, relays } = &self.carrier else {
            let address = SocketAddr::from((host.address(), port));
            return Ok(Door {
                host,
                listen: address,
                relay: None,
            });
        };
        let lane = |a: usize, b: usize| Arc::clone(&lanes[a * self.hosts.len() + b]);
        let relay = Relay::start(host.clone(), [lane(from, to), lane(to, from)])
            .map_err(|error| NetemError::system(&"relay", error))?;
        let relay = Arc::new(relay);
        let mut all = relays.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((from, to, Arc::clone(&relay)));
        Ok(Door {
            host,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            relay: Some(relay),
        })
    }
}

/// Where a service of a host is reached.
#[derive(Debug, Clone)]
pub struct Door {
    host: Host,
    listen: SocketAddr,
    relay: Option<Arc<Relay>>,
}

impl Door {
    /// The host behind it.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where the service is to listen, on its host; port 0 for a free one.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// What clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.relay
            .as_ref()
            .map_or(self.listen, |relay| relay.address())
    }

    /// The service listens there now.
    pub fn lead_to(&self, service: SocketAddr) {
        if let Some(relay) = &self.relay {
            relay.lead_to(service);
        }
    }
}

/// Whether this way of emulation can do the plan here; if not, why.
fn possible(backend: Backend, plan: &Plan) -> Result<(), String> {
    let profiles = || plan.links.iter().flat_map(|link| [&link.forth, &link.back]);
    let said = |error: NetemError| error.to_string();
    match backend {
        Backend::Tc => {
            let refuses = |profile| tc::refuses(profile, plan.hosts.len());
            if let Some(reason) = profiles().find_map(refuses) {
                return Err(reason);
            }
            let namespace = Namespace::create(&namespace::network_name()).map_err(said)?;
            tc::probe(&namespace).map_err(said)?;
            let tried = Network::start(backend, &trial::plan(), Vec::new()).map_err(said)?;
            trial::passes(&tried)
        }
        Backend::Tun => {
            let namespace = Namespace::create(&namespace::network_name()).map_err(said)?;
            Emulator::probe(&namespace).map_err(said)
        }
        Backend::Proxy => match profiles().any(LinkProfile::needs_packets) {
            true => Err(
                "a relay of streams can neither lose, reorder, duplicate nor corrupt packets"
                    .to_owned(),
            ),
            false => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::plan::tests::plan;
    use super::*;

    #[test]
    fn a_relay_refuses_loss() {
        let plan = plan(&["a", "b"], &[("a", "b", "loss 1%")]);
        let error = Network::open(&plan, Some(Backend::Proxy)).unwrap_err();
        assert!(
            matches!(&error, NetemError::Impossible(refused) if refused.len() == 1),
            "{error}"
        );
        assert!(error.to_string().contains("proxy: a relay"), "{error}");
    }
}
