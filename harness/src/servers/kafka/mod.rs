//! Apache Kafka from its Maven artifacts: one broker or a quorum of several, each a controller, too (KRaft).
//!
//! ```text
//! CACHE/kafka/            pom.xml  libs/*.jar; complete once `libs/.complete` is there
//! TMP/walbrook-servers-UID/
//!   kafka-PID-COUNT-NODE/  owner pid log server.properties log4j.properties data/
//!   up-kafka-NODE/         the same of `servers up kafka`, and `url` with the addresses of all; the first one's certificates/
//! ```

mod programs;
mod properties;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use netem::Relay;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use programs::Programs;
pub use properties::Properties;

use super::install::checked;
use super::process::{End, Process, free_ports};
use super::{ServerError, registry};
use crate::admin::Admin;

/// The version that is fetched.
pub const VERSION: &str = "3.9.1";

const TITLE: &str = "Apache Kafka";
/// In the directory of a standing cluster's first broker.
const CERTIFICATES: &str = "certificates";
/// The cluster's id: 16 bytes in base64.
const CLUSTER: &str = "d2FsYnJvb2std2FsYnJvbw";
/// How long a cluster may take to answer; a JVM takes 8 s on two idle cores, and minutes beside a build.
const START_MAX: Duration = Duration::from_secs(600);
/// Of a broker: for clients, for controllers, with SASL, with SASL and TLS, for whoever looks past the links.
const PORTS: usize = 5;
/// How often it is asked.
const POLL: Duration = Duration::from_millis(100);

/// The heap is fixed: growing it would be part of what is measured. The rest is what Kafka's own scripts set.
const JVM: [&str; 6] = [
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-Djava.awt.headless=true",
];

/// Where one broker runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// The address that it listens on and tells clients and the other brokers.
    address: IpAddr,
    /// Where there is a network namespace of that address; otherwise it is this machine's.
    emulated: Option<netem::Host>,
}

impl Host {
    /// This machine's loopback interface.
    pub fn loopback() -> Host {
        Host {
            address: Ipv4Addr::LOCALHOST.into(),
            emulated: None,
        }
    }

    /// An emulated host. In a namespace of its own its address means nothing to this process, so a broker there gets one more listener,
    /// to which an unshaped relay leads.
    pub fn emulated(host: &netem::Host) -> Host {
        Host {
            address: host.address().into(),
            emulated: host.namespace().map(|_| host.clone()),
        }
    }
}

/// Running brokers; they end, with their data, when this is dropped or the process dies.
#[derive(Debug)]
pub struct Kafka {
    nodes: Vec<Node>,
    /// Whether dropping ends them.
    owned: bool,
}

#[derive(Debug)]
struct Node {
    process: Process,
    command: Vec<String>,
    address: String,
    /// Where this process reaches it: the same, or a relay that leads there.
    direct: String,
    _relay: Option<Relay>,
    /// With SASL, and with SASL and TLS.
    secured: [String; 2],
}

/// What a cluster is prepared from.
struct Plan<'a> {
    hosts: &'a [Host],
    /// Lines over ours.
    properties: &'a Properties,
    /// Of its directories.
    name: &'a str,
    /// Whether it is that of `servers up`.
    standing: bool,
}

impl Kafka {
    /// Starts a broker on each of `hosts`, which must reach each other: one, or a quorum with as many replicas and
    /// `min.insync.replicas` of a majority; waits until all of them answer.
    ///
    /// # Errors
    /// [`ServerError`]: not to be had, or the log's last lines.
    pub async fn start(hosts: &[Host], properties: &Properties) -> Result<Kafka, ServerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        registry::remove_leftovers();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Kafka::launch(Plan {
            hosts,
            properties,
            name: &format!("kafka-{}-{number}", std::process::id()),
            standing: false,
        })
        .await
    }

    /// Starts the instance of `servers up`, which stays, with listeners for every kind of security, and answers its lines.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub(super) async fn stand(name: &str, count: usize) -> Result<String, ServerError> {
        down(name, count)?;
        let mut kafka = Kafka::launch(Plan {
            hosts: &vec![Host::loopback(); count],
            properties: &Properties::default(),
            name: &format!("up-{name}"),
            standing: true,
        })
        .await?;
        let lines = kafka.lines(name);
        for node in &kafka.nodes {
            let url = node.process.directory().join("url");
            fs::write(&url, &lines).map_err(ServerError::io(&url))?;
        }
        kafka.owned = false;
        Ok(lines)
    }

    /// What `servers up` prints: the addresses of each listener, and where the certificates are.
    fn lines(&self, name: &str) -> String {
        let mut lines = self.bootstrap();
        if let Some(first) = self.nodes.first() {
            let directory = first.process.directory().join(CERTIFICATES);
            lines += &format!(
                "\n{name}.sasl {}\n{name}.tls {}\n{name}.tls-files {}",
                self.joined(|node| &node.secured[0]),
                self.joined(|node| &node.secured[1]),
                directory.display()
            );
        }
        lines
    }

    async fn launch(plan: Plan<'_>) -> Result<Kafka, ServerError> {
        let programs = tokio::task::block_in_place(Programs::install)?;
        let mut failure = None;
        // A port may be taken between finding it and listening on it.
        for _ in 0..2 {
            let nodes = tokio::task::block_in_place(|| prepare(&programs, &plan))?;
            let mut kafka = Kafka { nodes, owned: true };
            for node in &mut kafka.nodes {
                node.process
                    .spawn(&node.command, End::Kill, plan.standing)?;
            }
            match kafka.answers().await {
                Ok(()) => return Ok(kafka),
                Err(reason) => {
                    let logs = kafka.nodes.iter().map(|node| node.process.last_words());
                    failure = Some(ServerError::Start {
                        flavour: TITLE,
                        reason,
                        log: logs.collect::<Vec<_>>().join("\n"),
                    });
                }
            }
        }
        Err(failure.unwrap_or_else(|| ServerError::Install("no broker is asked for".into())))
    }

    /// Waits until every broker knows all others.
    async fn answers(&self) -> Result<(), String> {
        let deadline = crate::clock::now() + START_MAX;
        for node in &self.nodes {
            loop {
                let seen = Admin::new(&node.direct).brokers().await;
                if seen.as_ref().is_ok_and(|count| *count == self.nodes.len()) {
                    break;
                }
                if let Some(dead) = self
                    .nodes
                    .iter()
                    .find(|node| node.process.running().is_none())
                {
                    return Err(format!("the broker at {} ended at once", dead.address));
                }
                if crate::clock::now() > deadline {
                    let seen =
                        seen.map_or_else(|error| error.to_string(), |n| format!("{n} brokers"));
                    return Err(format!("after {} s: {seen}", START_MAX.as_secs()));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// The addresses as clients take them: `host:port,host:port`.
    pub fn bootstrap(&self) -> String {
        self.joined(|node| &node.address)
    }

    /// The same for this process, which may be on none of the brokers' hosts: past the links between them.
    pub fn observed_bootstrap(&self) -> String {
        self.joined(|node| &node.direct)
    }

    fn joined(&self, address: fn(&Node) -> &str) -> String {
        let addresses: Vec<&str> = self.nodes.iter().map(address).collect();
        addresses.join(",")
    }

    /// How many brokers.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// `kill -9` of a broker, counted from 0.
    pub fn kill(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.process.kill();
        }
    }

    /// Starts a killed broker again, at its address and with what it had on disk; does not wait until it answers.
    ///
    /// # Errors
    /// When its process cannot be started.
    pub fn resume(&mut self, node: usize) -> Result<(), ServerError> {
        match self.nodes.get_mut(node) {
            Some(node) => node.process.spawn(&node.command, End::Kill, false),
            None => Ok(()),
        }
    }

    /// Stops every broker where it stands (SIGSTOP), or lets all go on (SIGCONT).
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        for pid in self.nodes.iter().filter_map(|node| node.process.running()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if self.owned {
            for node in &mut self.nodes {
                node.process.kill();
                registry::remove(node.process.directory());
            }
        }
    }
}

/// The addresses of the instance that `servers up` started, if all of it still runs.
pub(super) fn standing(name: &str, count: usize) -> Option<String> {
    let directories = (1..=count).map(|id| node_directory(&format!("up-{name}"), id));
    let mut url = None;
    for directory in directories {
        let directory = directory.ok()?;
        registry::running(&directory)?;
        url = fs::read_to_string(directory.join("url")).ok();
    }
    url
}

/// Ends the instance that `servers up` started and removes its data.
pub(super) fn down(name: &str, count: usize) -> Result<(), ServerError> {
    for id in 1..=count {
        registry::remove(&node_directory(&format!("up-{name}"), id)?);
    }
    Ok(())
}

fn node_directory(name: &str, id: usize) -> Result<PathBuf, ServerError> {
    Ok(registry::directory()?.join(format!("{name}-{id}")))
}

/// Directories, properties and formatted storage of every broker.
fn prepare(programs: &Programs, plan: &Plan<'_>) -> Result<Vec<Node>, ServerError> {
    let Plan { hosts, name, .. } = *plan;
    // What is free here is free in a namespace of its own, too.
    let ports = free_ports(Ipv4Addr::LOCALHOST.into(), PORTS * hosts.len())?;
    let ports: Vec<[u16; PORTS]> = (ports.chunks_exact(PORTS))
        .map(|ports| std::array::from_fn(|at| ports[at]))
        .collect();
    let voters = hosts.iter().zip(&ports).enumerate();
    let voters: Vec<String> = voters
        .map(|(at, (host, [_, controller, ..]))| {
            format!("{}@{}:{controller}", at + 1, host.address)
        })
        .collect();
    let certificates = node_directory(name, 1)?.join(CERTIFICATES);
    let mut nodes = Vec::new();
    let mut formatting = Vec::new();
    for (at, (host, ports)) in hosts.iter().zip(ports).enumerate() {
        let directory = node_directory(name, at + 1)?;
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).map_err(ServerError::io(&directory))?;
        if !plan.standing {
            registry::note(&directory.join("owner"), std::process::id())?;
        } else if at == 0 {
            properties::certify(&certificates)?;
        }
        let [client, controller, sasl, tls, direct] = ports;
        let [address, controller, sasl, tls] =
            [client, controller, sasl, tls].map(|port| format!("{}:{port}", host.address));
        let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, direct));
        let relay = (host.emulated.as_ref())
            .map(|host| Relay::into_host(host, inside))
            .transpose()
            .map_err(|error| ServerError::Install(format!("relay to a broker: {error}")))?;
        let direct = relay.as_ref().map(Relay::address);
        let broker = properties::Broker {
            id: at + 1,
            data: directory.join("data"),
            address: &address,
            controller: &controller,
            voters: &voters,
            direct: direct.map(|advertised| [inside, advertised]),
            secured: (plan.standing).then_some((&*sasl, &*tls, &*certificates)),
            properties: plan.properties,
        };
        let file = directory.join("server.properties");
        let log4j = directory.join("log4j.properties");
        fs::write(&file, broker.properties()).map_err(ServerError::io(&file))?;
        fs::write(&log4j, properties::LOG4J).map_err(ServerError::io(&log4j))?;
        let logging = format!("-Dlog4j.configuration=file:{}", log4j.display());
        let mut format = programs.class(
            &["-XX:TieredStopAtLevel=1", &logging],
            "kafka.tools.StorageTool",
        );
        format.args(["format", "-t", CLUSTER, "-c"]).arg(&file);
        for user in properties::SCRAM_USERS {
            format.args(["--add-scram", user]);
        }
        formatting.push(std::thread::spawn(move || checked(format)));
        let class = programs.class(&[JVM.as_slice(), &[&logging]].concat(), "kafka.Kafka");
        let words = [class.get_program()].into_iter().chain(class.get_args());
        let words = words.map(|word| word.to_string_lossy().into_owned());
        let mut command: Vec<String> = words.collect();
        command.push(file.display().to_string());
        nodes.push(Node {
            process: Process::on(host.emulated.clone(), directory),
            command,
            direct: direct.map_or_else(|| address.clone(), |direct| direct.to_string()),
            _relay: relay,
            address,
            secured: [sasl, tls],
        });
    }
    for formatted in formatting {
        formatted
            .join()
            .map_err(|_| ServerError::Install("formatting the storage failed".into()))??;
    }
    Ok(nodes)
}
