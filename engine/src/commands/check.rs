//! `walbrook check`: one line per requirement, ok or what is wrong and what mends it. Changes nothing.
//!
//! ```text
//! ok    shop: log_bin is ON
//! note  shop: binlog_row_metadata is FULL: …          works, but something is lost or slower
//! FAIL  kafka: …                                      streaming is refused
//! ```

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use tokio::time::timeout;
use tracing::error;

use super::Exit;
use crate::checkpoint::{CheckpointStore as _, FileStore};
use crate::cli::ConfigArguments;
use crate::config::{Config, KafkaSettings, SourceSettings};
use crate::producer::Producer;
use crate::source::{Outcome, Requirement, Source};

/// How long one server may take to answer everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the producer may take to say goodbye: it has nothing in flight.
const GOODBYE: Duration = Duration::from_secs(1);

/// Checks everything that the file names, and prints the lines to stdout.
#[must_use]
pub fn run(arguments: &ConfigArguments) -> Exit {
    let config = match Config::load(&arguments.config, &arguments.set) {
        Ok(config) => config,
        Err(e) => {
            error!("{e}");
            return Exit::Usage;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            error!("cannot start the asynchronous runtime: {e}");
            return Exit::Halted;
        }
    };
    let mut report = Report::new(io::stdout());
    report.add(
        &arguments.config.display().to_string(),
        "valid",
        Outcome::Met,
    );
    state(&config, &mut report);
    runtime.block_on(async {
        for settings in &config.sources {
            source(settings, &mut report).await;
        }
        kafka(&config.kafka, &mut report).await;
    });
    report.exit()
}

/// Lines as they come, and whether all is well.
struct Report<W> {
    out: W,
    failed: bool,
}

impl<W: Write> Report<W> {
    fn new(out: W) -> Self {
        Self { out, failed: false }
    }

    fn add(&mut self, subject: &str, what: &str, outcome: Outcome) {
        let line = match outcome {
            Outcome::Met => format!("ok    {subject}: {what}"),
            Outcome::Advice(text) => format!("note  {subject}: {what}: {text}"),
            Outcome::Missing(text) => {
                self.failed = true;
                format!("FAIL  {subject}: {what}: {text}")
            }
        };
        // Whoever closed the pipe does not want the rest; the exit status still says how it went.
        let _ = writeln!(self.out, "{line}");
    }

    fn exit(&self) -> Exit {
        match self.failed {
            true => Exit::Halted,
            false => Exit::Done,
        }
    }
}

/// Whether checkpoints can be kept, and whether those that are there can be read.
fn state(config: &Config, report: &mut Report<impl Write>) {
    let dir = &config.state;
    let shown = dir.display();
    let outcome = match nearest_existing(dir) {
        Some(place) if !place.is_dir() => {
            Outcome::Missing(format!("{} is not a directory", place.display()))
        }
        Some(place) => match access(place, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => Outcome::Met,
            Err(e) => Outcome::Missing(format!(
                "{}: {}; give this user the right to write there",
                place.display(),
                e.desc()
            )),
        },
        None => Outcome::Missing("there is no such place".to_owned()),
    };
    report.add(
        "state",
        &format!("directory {shown} can be written"),
        outcome,
    );
    let store = FileStore::new(dir);
    for source in &config.sources {
        let (what, outcome) = match store.load(&source.name) {
            Ok(None) => ("no checkpoint yet".to_owned(), Outcome::Met),
            Ok(Some(checkpoint)) => (
                format!("checkpoint {:#}", checkpoint.position),
                Outcome::Met,
            ),
            Err(e) => (
                "checkpoint can be read".to_owned(),
                Outcome::Missing(e.to_string()),
            ),
        };
        report.add(&source.name, &what, outcome);
    }
}

/// The directory itself, or the one that it would be created in.
fn nearest_existing(dir: &Path) -> Option<&Path> {
    dir.ancestors()
        .map(|place| {
            if place.as_os_str().is_empty() {
                Path::new(".")
            } else {
                place
            }
        })
        .find(|place| place.exists())
}

async fn source(settings: &SourceSettings, report: &mut Report<impl Write>) {
    let address = &settings.address;
    let reached = format!(
        "server {}:{} answers user {}",
        address.host, address.port, address.user
    );
    let requirements = match timeout(PATIENCE, Source::check(settings)).await {
        Ok(Ok(requirements)) => requirements,
        Ok(Err(e)) => return report.add(&settings.name, &reached, Outcome::Missing(e.to_string())),
        Err(_) => {
            let text = format!(
                "no answer within {} s: check host, port and firewall",
                PATIENCE.as_secs()
            );
            return report.add(&settings.name, &reached, Outcome::Missing(text));
        }
    };
    report.add(&settings.name, &reached, Outcome::Met);
    for Requirement { what, outcome } in requirements {
        report.add(&settings.name, &what, outcome);
    }
}

async fn kafka(settings: &KafkaSettings, report: &mut Report<impl Write>) {
    let reached = format!(
        "brokers {} answer and give a producer id",
        settings.brokers.join(", ")
    );
    match timeout(PATIENCE, Producer::connect(settings)).await {
        Ok(Ok(producer)) => {
            report.add("kafka", &reached, Outcome::Met);
            // Nothing was sent: how the goodbye goes changes nothing.
            let _ = producer.close(GOODBYE).await;
        }
        Ok(Err(e)) => report.add("kafka", &reached, Outcome::Missing(e.to_string())),
        Err(_) => {
            let text = format!(
                "no answer within {} s: check kafka.brokers and the firewall",
                PATIENCE.as_secs()
            );
            report.add("kafka", &reached, Outcome::Missing(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_status() {
        let mut report = Report::new(Vec::new());
        report.add("shop", "log_bin is ON", Outcome::Met);
        report.add("shop", "metadata", Outcome::Advice("SET GLOBAL …".into()));
        assert_eq!(report.exit(), Exit::Done);
        report.add(
            "shop",
            "grants",
            Outcome::Missing("GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%'".into()),
        );
        assert_eq!(report.exit(), Exit::Halted);
        assert_eq!(
            String::from_utf8(report.out).unwrap(),
            "ok    shop: log_bin is ON\n\
             note  shop: metadata: SET GLOBAL …\n\
             FAIL  shop: grants: GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%'\n"
        );
    }

    #[test]
    fn a_directory_that_is_yet_to_be_made_is_judged_by_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest_existing(&dir.path().join("a/b")), Some(dir.path()));
        assert_eq!(
            nearest_existing(Path::new("no-such-thing")),
            Some(Path::new("."))
        );
    }
}
