//! Hosts, the links between them, and which way of emulation carries them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::HOSTS_MAX;
use crate::namespace::{self, Namespace};
use crate::profile::{InvalidProfile, LinkProfile};
use crate::proxy::{Lane, Relay};
use crate::shaper::Counters;
use crate::tc::{self, Kernel};
use crate::tun::Emulator;

/// Length of the network part of the hosts' addresses.
pub(crate) const PREFIX_BITS: u8 = 24;

/// Address of a host inside its network; every network has the same ones, each in its own namespaces.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 89, 0, host as u8 + 1)
}

/// Why a network cannot be.
#[derive(Debug, thiserror::Error)]
pub enum NetemError {
    /// A program of iproute2 failed.
    #[error("{command}: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// What it said.
        reason: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A profile is out of its range.
    #[error("link {link}: {source}")]
    Profile {
        /// Which link.
        link: String,
        /// What is wrong.
        source: InvalidProfile,
    },
    /// The plan names what it does not have, or too much.
    #[error("{0}")]
    Plan(String),
    /// No way of emulation can do it.
    #[error("these links cannot be emulated here: {}", listed(.0))]
    Impossible(Vec<Refusal>),
}

impl NetemError {
    pub(crate) fn system(what: &dyn fmt::Display, source: io::Error) -> Self {
        Self::System {
            what: what.to_string(),
            source,
        }
    }
}

fn listed(refusals: &[Refusal]) -> String {
    let listed: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
    listed.join("; ")
}

/// A way of emulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's `tc netem`.
    Tc,
    /// Packets carried by this process between TUN devices.
    Tun,
    /// A relay of TCP streams.
    Proxy,
}

impl Backend {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Tc, Self::Tun, Self::Proxy];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tc => "tc",
            Self::Tun => "tun",
            Self::Proxy => "proxy",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.to_string() == text);
        found.ok_or_else(|| format!("{text:?}: expected tc, tun or proxy"))
    }
}

/// A way that was not possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub backend: Backend,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.reason)
    }
}

/// Hosts and the links between them. Hosts without a link between them reach each other unshaped.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Names of the hosts, lower-case letters and digits.
    pub hosts: Vec<String>,
    /// At most one for two hosts.
    pub links: Vec<LinkPlan>,
    /// Of everything that happens by chance.
    pub seed: u64,
}

/// A link between two hosts.
#[derive(Debug, Clone)]
pub struct LinkPlan {
    /// One end.
    pub one: String,
    /// The other.
    pub other: String,
    /// From the one to the other.
    pub forth: LinkProfile,
    /// From the other to the one.
    pub back: LinkProfile,
}

/// One of a link's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the first named host to the second.
    Forth,
    /// From the second to the first.
    Back,
}

/// A host; cheap to clone. Its namespace is removed with the last of them.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<HostInner>,
}

#[derive(Debug)]
struct HostInner {
    name: String,
    address: Ipv4Addr,
    /// None with the proxy: all hosts are this machine's loopback.
    namespace: Option<Namespace>,
}

impl Host {
    /// Its name in the plan.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where it is reached by the others; loopback with the proxy.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.inner.address
    }

    /// The name of its network namespace (`ip netns exec NAME …`), if it has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.inner.namespace.as_ref().map(Namespace::name)
    }

    /// Calls `what` as on this host: sockets that it opens stay there.
    ///
    /// # Errors
    /// The thread for it cannot be started or moved.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.inner.namespace {
            None => Ok(what()),
            Some(namespace) => namespace.within(what),
        }
    }

    /// Starts a process on this host, a child of this one as any other.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.within(|| command.spawn())?
    }

    /// Listens on this host.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.within(|| TcpListener::bind(address))?
    }

    /// Connects from this host.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.within(|| TcpStream::connect(address))?
    }
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
        for name in namespace::remove_leftovers() {
            tracing::info!(name, "removed the namespace of a process that is gone");
        }
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

/// Looks for what no way of emulation could do.
fn check(plan: &Plan) -> Result<(), NetemError> {
    let wrong = |reason: String| Err(NetemError::Plan(reason));
    if plan.hosts.len() > HOSTS_MAX {
        return wrong(format!("{} hosts: at most {HOSTS_MAX}", plan.hosts.len()));
    }
    for (number, name) in plan.hosts.iter().enumerate() {
        let is_plain = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if name.is_empty() || !is_plain || plan.hosts[..number].contains(name) {
            return wrong(format!(
                "host {name:?}: lower-case letters and digits, each name once"
            ));
        }
    }
    for (number, link) in plan.links.iter().enumerate() {
        let named = format!("{}-{}", link.one, link.other);
        for end in [&link.one, &link.other] {
            if !plan.hosts.contains(end) {
                return wrong(format!("link {named}: there is no host {end:?}"));
            }
        }
        let same = |other: &LinkPlan| {
            [(&other.one, &other.other), (&other.other, &other.one)]
                .contains(&(&link.one, &link.other))
        };
        if link.one == link.other || plan.links[..number].iter().any(same) {
            return wrong(format!("link {named}: one link between two hosts"));
        }
        for profile in [&link.forth, &link.back] {
            profile.check().map_err(|source| NetemError::Profile {
                link: named.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Whether this way of emulation can do the plan here; if not, why.
fn possible(backend: Backend, plan: &Plan) -> Result<(), String> {
    let profiles = || plan.links.iter().flat_map(|link| [&link.forth, &link.back]);
    let said = |error: NetemError| error.to_string();
    match backend {
        Backend::Tc => {
            if let Some(reason) = profiles().find_map(tc::refuses) {
                return Err(reason);
            }
            let namespace = Namespace::create(&namespace::network_name()).map_err(said)?;
            tc::probe(&namespace).map_err(said)
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

/// A running link.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    network: &'a Network,
    ends: usize,
}

impl Link<'_> {
    fn ends(&self) -> &Ends {
        &self.network.links[self.ends]
    }

    fn way(&self, direction: Direction) -> (usize, usize) {
        let ends = self.ends();
        match direction {
            Direction::Forth => (ends.one, ends.other),
            Direction::Back => (ends.other, ends.one),
        }
    }

    fn lane(&self, lanes: &[Arc<Lane>], direction: Direction) -> Arc<Lane> {
        let (from, to) = self.way(direction);
        Arc::clone(&lanes[from * self.network.hosts.len() + to])
    }

    /// The profile of a direction, faults aside.
    #[must_use]
    pub fn profile(&self, direction: Direction) -> LinkProfile {
        let profiles = &self.ends().profiles;
        let profiles = profiles.lock().unwrap_or_else(PoisonError::into_inner);
        profiles[direction as usize].clone()
    }

    /// Gives a direction another profile, at once.
    ///
    /// # Errors
    /// A profile that makes no sense or that this way of emulation cannot do; those of tc.
    pub fn set(&self, direction: Direction, profile: LinkProfile) -> Result<(), NetemError> {
        profile.check().map_err(|source| NetemError::Profile {
            link: self.name(),
            source,
        })?;
        if self.network.backend() == Backend::Proxy && profile.needs_packets() {
            return Err(NetemError::Plan(format!(
                "link {}: a relay cannot do {profile}",
                self.name()
            )));
        }
        self.apply(direction, &profile)?;
        let profiles = &self.ends().profiles;
        profiles.lock().unwrap_or_else(PoisonError::into_inner)[direction as usize] = profile;
        Ok(())
    }

    fn apply(&self, direction: Direction, profile: &LinkProfile) -> Result<(), NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(kernel) => kernel.set(from, to, profile)?,
            Carrier::Tun(emulator) => emulator.set(from, to, profile.clone()),
            Carrier::Proxy { lanes, .. } => self.lane(lanes, direction).set(profile.clone()),
        }
        Ok(())
    }

    fn name(&self) -> String {
        let Ends { one, other, .. } = self.ends();
        let hosts = &self.network.hosts;
        format!("{}-{}", hosts[*one].name(), hosts[*other].name())
    }

    /// Lowers the rate of a direction for a while; `None` brings back its own.
    ///
    /// # Errors
    /// Those of tc.
    pub fn slow(&self, direction: Direction, rate_bits: Option<u64>) -> Result<(), NetemError> {
        let mut profile = self.profile(direction);
        profile.rate_bits = rate_bits.or(profile.rate_bits);
        self.apply(direction, &profile)
    }

    /// What has passed a direction so far.
    ///
    /// # Errors
    /// Those of tc.
    pub fn counters(&self, direction: Direction) -> Result<Counters, NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(kernel) => kernel.counters(from, to),
            Carrier::Tun(emulator) => Ok(emulator.counters(from, to)),
            Carrier::Proxy { lanes, .. } => Ok(self.lane(lanes, direction).counters()),
        }
    }

    /// Ends every TCP connection over this link, as a firewall would: both ends are reset. New ones can be made at once.
    ///
    /// # Errors
    /// Those of tc.
    pub fn cut(&self) -> Result<(), NetemError> {
        let Ends { one, other, .. } = *self.ends();
        match &self.network.carrier {
            Carrier::Tc(kernel) => kernel.cut(one, other)?,
            Carrier::Tun(emulator) => emulator.cut(one, other),
            Carrier::Proxy { relays, .. } => {
                let relays = relays.lock().unwrap_or_else(PoisonError::into_inner);
                let between =
                    |from: usize, to: usize| [(one, other), (other, one)].contains(&(from, to));
                let concerned = relays.iter().filter(|(from, to, _)| between(*from, *to));
                concerned.for_each(|(.., relay)| relay.cut());
            }
        }
        Ok(())
    }

    /// Holds what goes in a direction, or lets it go on. With tc it is lost meanwhile.
    ///
    /// # Errors
    /// Those of tc.
    pub fn stall(&self, direction: Direction, is_stalled: bool) -> Result<(), NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(_) => self.down(direction, is_stalled)?,
            Carrier::Tun(emulator) => emulator.stall(from, to, is_stalled),
            Carrier::Proxy { lanes, .. } => self.lane(lanes, direction).hold(is_stalled),
        }
        Ok(())
    }

    /// Drops everything that goes in a direction, or nothing any more. With the proxy it is held meanwhile.
    ///
    /// # Errors
    /// Those of tc.
    pub fn down(&self, direction: Direction, is_down: bool) -> Result<(), NetemError> {
        let (from, to) = self.way(direction);
        match &self.network.carrier {
            Carrier::Tc(kernel) => {
                let mut profile = self.profile(direction);
                if is_down {
                    profile.loss = 1.0;
                }
                kernel.set(from, to, &profile)?;
            }
            Carrier::Tun(emulator) => emulator.down(from, to, is_down),
            Carrier::Proxy { lanes, .. } => self.lane(lanes, direction).hold(is_down),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(hosts: &[&str], links: &[(&str, &str, &str)]) -> Plan {
        Plan {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            links: (links.iter())
                .map(|(one, other, profile)| LinkPlan {
                    one: (*one).to_owned(),
                    other: (*other).to_owned(),
                    forth: profile.parse().unwrap(),
                    back: profile.parse().unwrap(),
                })
                .collect(),
            seed: 1,
        }
    }

    #[test]
    fn plans_that_cannot_be_are_named() {
        for (plan, named) in [
            (plan(&["a", "a"], &[]), "host \"a\""),
            (plan(&["A"], &[]), "host \"A\""),
            (plan(&["a"], &[("a", "b", "unshaped")]), "no host \"b\""),
            (
                plan(
                    &["a", "b"],
                    &[("a", "b", "unshaped"), ("b", "a", "unshaped")],
                ),
                "one link",
            ),
            (plan(&["a"], &[("a", "a", "unshaped")]), "one link"),
        ] {
            let error = check(&plan).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

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
