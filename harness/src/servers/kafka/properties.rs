//! What a broker is configured with: `server.properties`, its log, and listeners that ask for a password and a certificate.
//!
//! | listener | what a client needs |
//! |---|---|
//! | PLAINTEXT | nothing; the other brokers come here, too |
//! | DIRECT | to look from outside at a broker in a namespace of its own, past the links |
//! | SASL_PLAINTEXT | user `cdc`, password `secret`, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 |
//! | SASL_SSL | the same, and a certificate of the cluster's authority |

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::broker::Tls;
use crate::servers::ServerError;

/// Files below a cluster's directory of certificates.
pub(super) const CLIENT_FILES: [&str; 3] = ["ca.pem", "client.pem", "client.key"];
const SERVER_FILE: &str = "server.pem";

/// What SCRAM's users are made of when storage is formatted.
pub(super) const SCRAM_USERS: [&str; 2] = [
    "SCRAM-SHA-256=[name=cdc,password=secret]",
    "SCRAM-SHA-512=[name=cdc,password=secret]",
];

pub(super) const LOG4J: &str = "log4j.rootLogger=WARN, stdout\nlog4j.appender.stdout=org.apache.log4j.ConsoleAppender\n\
    log4j.appender.stdout.layout=org.apache.log4j.PatternLayout\n\
    log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n\n";

/// One broker's own.
pub(super) struct Broker<'a> {
    /// From 1.
    pub(super) id: usize,
    pub(super) data: PathBuf,
    /// Where clients come, `host:port`.
    pub(super) address: &'a str,
    /// Where the other controllers come.
    pub(super) controller: &'a str,
    /// `id@host:port` of every controller.
    pub(super) voters: &'a [String],
    /// Where it listens for whoever looks past the links, and where that listener is reached.
    pub(super) direct: Option<[SocketAddr; 2]>,
    /// Addresses of the listeners with SASL and with SASL and TLS, and the directory of the certificates.
    pub(super) secured: Option<(&'a str, &'a str, &'a Path)>,
    /// Over ours.
    pub(super) properties: &'a Properties,
}

/// Lines of `server.properties` over ours, by name. In TOML a table, whose dotted names may be quoted or not; values are texts, numbers
/// or booleans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct Properties(BTreeMap<String, String>);

/// What makes a broker the one that the rest of the harness knows.
const OURS: [&str; 10] = [
    "process.roles",
    "node.id",
    "broker.id",
    "controller.quorum.voters",
    "controller.listener.names",
    "listeners",
    "advertised.listeners",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "log.dirs",
];

impl Properties {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `name=value` of each, in the order of their names.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        lines.collect()
    }

    fn collect(&mut self, prefix: &str, table: toml::Table) -> Result<(), String> {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            let value = match value {
                toml::Value::Table(inner) => {
                    self.collect(&format!("{name}."), inner)?;
                    continue;
                }
                toml::Value::String(text) => text,
                toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                    value.to_string()
                }
                toml::Value::Array(_) | toml::Value::Datetime(_) => {
                    return Err(format!("{name}: expected a text, a number or a boolean"));
                }
            };
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if name.is_empty() || !name.chars().all(is_plain) {
                return Err(format!(
                    "{name:?}: a broker's setting has letters, digits, \".\", \"-\" and \"_\" in its name"
                ));
            }
            if value.chars().any(|c| c.is_control() || c == '\\') {
                return Err(format!(
                    "{name}: a value has neither control characters nor backslashes"
                ));
            }
            if OURS.contains(&&*name) {
                return Err(format!("{name} is set by the harness itself; leave it out"));
            }
            self.0.insert(name, value);
        }
        Ok(())
    }
}

impl TryFrom<toml::Table> for Properties {
    type Error = String;

    fn try_from(table: toml::Table) -> Result<Self, String> {
        let mut properties = Self::default();
        properties.collect("", table)?;
        Ok(properties)
    }
}

impl Broker<'_> {
    /// `server.properties`.
    pub(super) fn properties(&self) -> String {
        let Broker {
            id,
            data,
            address,
            controller,
            voters,
            ..
        } = self;
        let count = voters.len();
        let majority = count / 2 + 1;
        let mut clients = format!("PLAINTEXT://{address}");
        if let Some((sasl, tls, _)) = self.secured {
            clients += &format!(",SASL_PLAINTEXT://{sasl},SASL_SSL://{tls}");
        }
        let [mut inside, mut advertised] = [clients.clone(), clients];
        if let Some([listens, reached]) = self.direct {
            inside += &format!(",DIRECT://{listens}");
            advertised += &format!(",DIRECT://{reached}");
        }
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\nlisteners={inside},CONTROLLER://{controller}\n\
             advertised.listeners={advertised}\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
             log.dirs={data}\ndefault.replication.factor={count}\noffsets.topic.replication.factor={count}\n\
             transaction.state.log.replication.factor={count}\nmin.insync.replicas={majority}\n\
             transaction.state.log.min.isr={majority}\nauto.create.topics.enable=false\ngroup.initial.rebalance.delay.ms=0\n\
             offsets.topic.num.partitions=3\ntransaction.state.log.num.partitions=3\n\
             controlled.shutdown.enable=false\n",
            voters = voters.join(","),
            data = data.display(),
        );
        if let Some((_, _, certificates)) = self.secured {
            text += &security(certificates);
        }
        // The last line of a name counts.
        for line in self.properties.lines() {
            text += &line;
            text.push('\n');
        }
        text
    }
}

fn security(certificates: &Path) -> String {
    let mut text = "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n".to_owned();
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        for (mechanism, module) in [
            (
                "plain",
                "plain.PlainLoginModule required user_cdc=\"secret\"",
            ),
            ("scram-sha-256", "scram.ScramLoginModule required"),
            ("scram-sha-512", "scram.ScramLoginModule required"),
        ] {
            text += &format!(
                "listener.name.{listener}.{mechanism}.sasl.jaas.config=org.apache.kafka.common.security.{module};\n"
            );
        }
    }
    let shown = |name: &str| certificates.join(name).display().to_string();
    text + &format!(
        "ssl.client.auth=required\nssl.keystore.type=PEM\nssl.keystore.location={}\n\
         ssl.truststore.type=PEM\nssl.truststore.location={}\n",
        shown(SERVER_FILE),
        shown(CLIENT_FILES[0])
    )
}

/// Writes an authority, a certificate for `localhost` and `127.0.0.1`, and one for clients into `directory`.
pub(super) fn certify(directory: &Path) -> Result<(), ServerError> {
    let tls = Tls::generate(&["localhost", "127.0.0.1"])
        .map_err(|error| ServerError::Install(error.to_string()))?;
    fs::create_dir_all(directory).map_err(ServerError::io(directory))?;
    let server = tls.server.key + &tls.server.certificates;
    let [ca, client, key] = CLIENT_FILES;
    for (name, text) in [
        (ca, tls.ca),
        (client, tls.client_certificate),
        (key, tls.client_key),
        (SERVER_FILE, server),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(ServerError::io(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_must_be_in_sync() {
        let properties = |voters: &[&str]| {
            let voters: Vec<String> = voters.iter().map(|voter| (*voter).to_owned()).collect();
            let broker = Broker {
                id: 1,
                data: "/d/data".into(),
                address: "127.0.0.1:1",
                controller: "127.0.0.1:2",
                voters: &voters,
                direct: None,
                secured: None,
                properties: &Properties::default(),
            };
            broker.properties()
        };
        let one = properties(&["1@127.0.0.1:2"]);
        assert!(one.contains("\nmin.insync.replicas=1\n") && one.contains("\nlog.dirs=/d/data\n"));
        let three = properties(&["1@127.0.0.1:2", "2@127.0.0.1:4", "3@127.0.0.1:6"]);
        assert!(three.contains("\nmin.insync.replicas=2\n"), "{three}");
        assert!(
            three.contains("\ndefault.replication.factor=3\n"),
            "{three}"
        );
    }
    #[test]
    fn whoever_looks_past_the_links_has_a_listener_of_its_own() {
        let listens = "127.0.0.1:5".parse().unwrap();
        let reached = "127.0.0.1:6".parse().unwrap();
        let broker = Broker {
            id: 1,
            data: "/d/data".into(),
            address: "10.0.0.2:1",
            controller: "10.0.0.2:2",
            voters: &["1@10.0.0.2:2".to_owned()],
            direct: Some([listens, reached]),
            secured: None,
            properties: &Properties::default(),
        };
        let text = broker.properties();
        for line in [
            "listeners=PLAINTEXT://10.0.0.2:1,DIRECT://127.0.0.1:5,CONTROLLER://10.0.0.2:2",
            "advertised.listeners=PLAINTEXT://10.0.0.2:1,DIRECT://127.0.0.1:6",
            "inter.broker.listener.name=PLAINTEXT",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
    }

    #[test]
    fn lines_of_a_scenario_come_last() {
        let properties = |text: &str| toml::from_str::<Properties>(text);
        let text = "socket.receive.buffer.bytes = -1\n\"min.insync.replicas\" = 1\nunclean.leader.election.enable = true\ncompression.type = \"lz4\"";
        let given = properties(text).unwrap();
        assert_eq!(
            given.lines(),
            [
                "compression.type=lz4",
                "min.insync.replicas=1",
                "socket.receive.buffer.bytes=-1",
                "unclean.leader.election.enable=true",
            ]
        );
        let broker = Broker {
            id: 1,
            data: "/d/data".into(),
            address: "127.0.0.1:1",
            controller: "127.0.0.1:2",
            voters: &["1@127.0.0.1:2".to_owned()],
            direct: None,
            secured: None,
            properties: &given,
        };
        let all = broker.properties();
        let of_name = |line: &&str| line.starts_with("min.insync.replicas=");
        assert_eq!(
            all.lines().rfind(of_name),
            Some("min.insync.replicas=1"),
            "{all}"
        );
        for (wrong, named) in [
            ("node.id = 7", "node.id"),
            ("\"listeners\" = \"PLAINTEXT://:1\"", "listeners"),
            ("a.b = [1]", "a.b"),
            ("a.b = \"1\\nnode.id=7\"", "a.b"),
            ("\"a b\" = 1", "a b"),
            ("\"\" = 1", "name"),
        ] {
            let error = properties(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }
}
