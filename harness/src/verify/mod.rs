//! Reads topics with an independent client and compares them with the truth: every change once, in order per key, nothing else.
//!
//! ```text
//! topic ─ client (rskafka, librdkafka) ─► Checker ─► History ─► compared with Truth
//!                                            └─ per partition: positions, tombstones, keys, counts
//! only where they differ: the same topic once more ─► the first differing keys, change by change
//! ```
//!
//! A record at or before a position that its partition has already had is counted as repeated and otherwise left out: a restarted
//! engine may repeat what was on the wire when it died, and whether it did is the caller's question ([`Settings::allow_repeated`]).

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::Outcome;
use crate::clock;
use crate::truth::{History, Truth};

mod check;
mod explain;
mod position;
mod read;

pub use read::Client;
pub(crate) use read::{Read, records};

use check::Checker;
use explain::Explainer;

/// Examples that are printed of each kind of failure.
const EXAMPLES_MAX: usize = 5;

/// `harness verify`: compares topics with a truth.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Addresses of brokers, comma-separated.
    #[arg(long)]
    brokers: String,
    /// What must be there, as `harness seed`, `record` and `truth` write it.
    #[arg(long)]
    truth: PathBuf,
    /// The topic; by default the only one that ends in `.SCHEMA.TABLE` of the truth.
    #[arg(long)]
    topic: Option<String>,
    /// Who reads: a client that had no part in writing.
    #[arg(long, value_enum, default_value_t = Client::Rskafka)]
    client: Client,
    /// Count records that came again, but do not fail because of them.
    #[arg(long)]
    allow_repeated: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// What to verify.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses of brokers, comma-separated.
    pub brokers: String,
    /// What must be there.
    pub truth: Truth,
    /// The topic; `None`: the only one that ends in `.schema.table` of the truth.
    pub topic: Option<String>,
    /// Who reads.
    pub client: Client,
    /// Whether repeated records are counted without being a failure.
    pub allow_repeated: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// Topic that was read.
    pub topic: String,
    /// Partitions with records in them.
    pub partitions: usize,
    /// Records in all, tombstones and repeated ones among them.
    pub records: u64,
    /// Row changes, each counted once.
    pub changes: u64,
    /// Of these, inserts.
    pub inserts: u64,
    /// Of these, updates.
    pub updates: u64,
    /// Of these, deletes.
    pub deletes: u64,
    /// Tombstones; as many as deletes.
    pub tombstones: u64,
    /// Records at or before a position that their partition has already had.
    pub repeated: u64,
    /// Everything that does not hold, with examples; empty when all is well.
    pub failures: Vec<String>,
    /// Examples of repeated records.
    pub repeated_examples: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Findings {
    /// Whether everything expected holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Why topics could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No topic or several fit.
    #[error("{0}")]
    Topic(String),
    /// A broker cannot be reached, or answers an error.
    #[error("reading {topic} by {client}: {why}")]
    Read {
        /// What was read.
        topic: String,
        /// Who read.
        client: Client,
        /// What went wrong.
        why: String,
    },
}

/// Reads the topic to its present end and compares.
///
/// # Errors
/// Where the topic cannot be read; what was read and does not hold stands in the findings.
pub async fn verify(settings: &Settings) -> Result<Findings, Error> {
    let begun = clock::now();
    let topics = read::topics(settings.client, &settings.brokers).await?;
    let (topic, partitions) = find_topic(settings, topics)?;
    let mut checker = Checker::new(&settings.truth, partitions.len());
    read::records(
        settings.client,
        &settings.brokers,
        &topic,
        &partitions,
        |record| checker.record(&record),
    )
    .await?;
    let (mut findings, history) = checker.finish();
    findings.topic = topic.clone();
    let differences = settings.truth.differences(&history.truth());
    if findings.repeated > 0 && !settings.allow_repeated {
        let examples = findings.repeated_examples.join("; ");
        findings.failures.push(format!(
            "{} records are repeated or out of order: {examples}",
            findings.repeated
        ));
    }
    if !differences.is_empty() {
        findings.failures.extend(differences);
        findings
            .failures
            .extend(explain(settings, &topic, &partitions, &history).await?);
    }
    findings.seconds = begun.elapsed().as_secs_f64();
    Ok(findings)
}

/// Names the first keys that differ, change by change; needs the generator.
async fn explain(
    settings: &Settings,
    topic: &str,
    partitions: &[i32],
    found: &History,
) -> Result<Vec<String>, Error> {
    let Some(workload) = &settings.truth.workload else {
        return Ok(vec![
            "the truth has no generator, so the keys cannot be named".into(),
        ]);
    };
    let mut explainer = Explainer::new(workload, settings.truth.images, found);
    read::records(
        settings.client,
        &settings.brokers,
        topic,
        partitions,
        |record| explainer.record(&record),
    )
    .await?;
    Ok(explainer.finish())
}

type Topic = (String, Vec<i32>);

fn find_topic(settings: &Settings, topics: Vec<Topic>) -> Result<Topic, Error> {
    let truth = &settings.truth;
    let suffix = format!(".{}.{}", truth.schema, truth.table);
    let fits = |name: &str| match &settings.topic {
        Some(topic) => name == topic,
        None => name.ends_with(&suffix),
    };
    let names: Vec<_> = topics.iter().map(|(name, _)| name.clone()).collect();
    let mut fitting = topics.into_iter().filter(|(name, _)| fits(name));
    let wanted = settings
        .topic
        .clone()
        .unwrap_or_else(|| format!("*{suffix}"));
    match (fitting.next(), fitting.next()) {
        (Some(topic), None) => Ok(topic),
        (None, _) => Err(Error::Topic(format!(
            "no topic {wanted}; there are: {}",
            names.join(", ")
        ))),
        (Some((one, _)), Some((other, _))) => Err(Error::Topic(format!(
            "both {one} and {other} fit {wanted}; choose by --topic"
        ))),
    }
}

/// Runs `harness verify`.
///
/// # Errors
/// Where the truth or the topic cannot be read.
pub async fn run(args: Args) -> Outcome {
    let settings = Settings {
        brokers: args.brokers,
        truth: Truth::read(&args.truth)?,
        topic: args.topic,
        client: args.client,
        allow_repeated: args.allow_repeated,
    };
    let findings = verify(&settings).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        println!(
            "{}: {} records in {} partitions, {} changes ({} inserts, {} updates, {} deletes, {} tombstones), {} repeated, read in {:.1} s",
            findings.topic,
            findings.records,
            findings.partitions,
            findings.changes,
            findings.inserts,
            findings.updates,
            findings.deletes,
            findings.tombstones,
            findings.repeated,
            findings.seconds
        );
        for failure in &findings.failures {
            println!("  {failure}");
        }
        println!(
            "{}",
            if findings.holds() {
                "verified"
            } else {
                "NOT what the truth says"
            }
        );
    }
    Ok(if findings.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
