//! What a broker is configured with: `server.properties`, its log, and listeners that ask for a password and a certificate.
//!
//! | listener | what a client needs |
//! |---|---|
//! | PLAINTEXT | nothing |
//! | SASL_PLAINTEXT | user `cdc`, password `secret`, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 |
//! | SASL_SSL | the same, and a certificate of the cluster's authority |

use std::fs;
use std::path::{Path, PathBuf};

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
    /// Addresses of the listeners with SASL and with SASL and TLS, and the directory of the certificates.
    pub(super) secured: Option<(&'a str, &'a str, &'a Path)>,
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
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\nlisteners={clients},CONTROLLER://{controller}\n\
             advertised.listeners={clients}\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
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
                secured: None,
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
}
