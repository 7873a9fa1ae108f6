//! `harness broker`: the embedded broker on its own.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::{Broker, Listener, Settings};
use crate::cli::Outcome;

/// `harness broker`: Kafka as far as tests need it, in memory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; several are several brokers over one log.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Create topics that clients name in metadata requests.
    #[arg(long)]
    auto_create: bool,
    /// Partitions of topics that are created without a number.
    #[arg(long, default_value_t = 3)]
    partitions: i32,
    /// Create a topic at start, as NAME or NAME:PARTITIONS.
    #[arg(long, value_name = "NAME[:PARTITIONS]")]
    topic: Vec<String>,
    /// Largest record batch taken, bytes.
    #[arg(long, default_value_t = 1_048_588)]
    message_max_bytes: usize,
    /// Decompress and walk every record, as real brokers do.
    #[arg(long)]
    validate_records: bool,
    /// Keep no records: check, count and acknowledge only.
    #[arg(long)]
    discard: bool,
    /// Answer everything that many milliseconds later.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Print what has been written when stopped.
    #[arg(long)]
    counts: bool,
}

/// Runs `harness broker` until it is interrupted.
///
/// # Errors
/// When a listener cannot be opened or a topic not be created.
pub async fn run(args: Args) -> Outcome {
    let broker = Broker::start(Settings {
        listeners: args.listen.into_iter().map(Listener::plain).collect(),
        auto_create: args.auto_create,
        partitions: args.partitions,
        message_max_bytes: args.message_max_bytes,
        validate_records: args.validate_records,
        discard: args.discard,
        ..Settings::default()
    })
    .await?;
    for topic in &args.topic {
        let (name, partitions) = match topic.rsplit_once(':') {
            Some((name, count)) => (
                name,
                count
                    .parse()
                    .map_err(|_| format!("--topic {topic}: partitions are a number"))?,
            ),
            None => (topic.as_str(), -1),
        };
        broker
            .create_topic(name, partitions)
            .map_err(|error| format!("--topic {topic}: {error}"))?;
    }
    broker
        .faults()
        .delay(None, Duration::from_millis(args.delay_ms));
    println!("{}", broker.bootstrap());
    stopped().await?;
    if args.counts {
        let counts = broker.counts();
        for (topic, partition, figures) in &counts.partitions {
            println!(
                "{topic} {partition}: {} records, {} bytes, {} batches",
                figures.records, figures.bytes, figures.batches
            );
        }
        println!(
            "{} records, {} bytes, {} duplicates",
            counts.records, counts.bytes, counts.duplicates
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// SIGINT or SIGTERM.
async fn stopped() -> std::io::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}
