//! The producer id: one at the start, and a new one where a leader has forgotten it.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::sleep;
use tracing::warn;

use crate::clock;
use crate::config::KafkaSettings;

use super::backoff::Backoff;
use super::connection::Fault;
use super::dispatch::Dispatch;
use super::error::ProducerError;
use super::metadata::Cluster;
use super::native::Shared;
use super::partition::Identity;
use super::response::InitProducerId;
use super::verdict;

/// How long it may take at the start until a broker answers, before another round of asking them is not begun. Once connected, we wait for
/// ever.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// The pauses between questions for a new one.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Finds a broker and gets a producer id, with some patience.
pub(super) async fn start(
    cluster: &mut Cluster,
    settings: &KafkaSettings,
) -> Result<Identity, ProducerError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let give_up = clock::now() + START_PATIENCE;
    loop {
        // Not cut short: each of the brokers has its turn.
        let reason = match ask(cluster).await {
            Ok(identity) => return Ok(identity),
            Err(Fault::Lasting(error)) => return Err(error),
            Err(Fault::Passing(reason)) => reason,
        };
        let pause = backoff.pause();
        if backoff.attempts() > 5 || clock::now() + pause >= give_up {
            return Err(ProducerError::Unreachable {
                brokers: settings.brokers.join(", ").into(),
                reason: reason.into(),
            });
        }
        warn!(%reason, "no broker answers yet");
        sleep(pause).await;
    }
}

/// Keeps the producer identified. Over connections of its own: a broker that gives no producer id, or is long about it, keeps nobody from
/// learning who leads what.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        let is_wanted = |dispatch: &mut Dispatch| {
            let wanted = dispatch.wants_identity();
            (wanted, dispatch.failure().is_some())
        };
        match shared.with(is_wanted) {
            (_, true) => return,
            (true, _) => {}
            (false, _) => {
                shared.unidentified.notified().await;
                continue;
            }
        }
        match anew(&shared).await {
            Ok(identity) => shared.identify(identity).await,
            Err(error) => shared.with(|dispatch| dispatch.fail(error)),
        }
    }
}

/// Another producer id, for as long as it takes.
async fn anew(shared: &Shared) -> Result<Identity, ProducerError> {
    let mut cluster = shared.another_cluster().await;
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        match ask(&mut cluster).await {
            Ok(identity) => return Ok(identity),
            Err(Fault::Lasting(error)) => return Err(error),
            Err(Fault::Passing(reason)) => {
                if backoff.attempts() == 0 {
                    warn!(%reason, "no broker gives a new producer id, retrying until one does");
                }
                cluster.ask_another();
                sleep(backoff.pause()).await;
            }
        }
    }
}

/// Asks for a producer id, and in the same round trip whether it is the cluster that we know.
async fn ask(cluster: &mut Cluster) -> Result<Identity, Fault> {
    // An empty transactional id, the default, would be one.
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
        .with_transaction_timeout_ms(i32::MAX);
    match cluster
        .metadata_with::<InitProducerId>(&[], Some(&request))
        .await?
    {
        (_, Some(answer)) => identity(&answer),
        (_, None) => identity(&cluster.call::<InitProducerId>(&request).await?),
    }
}

fn identity(answer: &InitProducerId) -> Result<Identity, Fault> {
    match ResponseError::try_from_code(answer.code) {
        None => Ok(Identity {
            id: answer.producer_id,
            epoch: answer.producer_epoch,
        }),
        Some(error) if error.is_retriable() || answer.code == -1 => Err(Fault::Passing(format!(
            "no producer id: {}",
            verdict::name(answer.code)
        ))),
        Some(_) => Err(Fault::Lasting(no_producer_id(answer.code))),
    }
}

fn no_producer_id(code: i16) -> ProducerError {
    let name = verdict::name(code);
    let reason = match ResponseError::try_from_code(code) {
        Some(
            ResponseError::ClusterAuthorizationFailed | ResponseError::TopicAuthorizationFailed,
        ) => format!(
            "we may not write as an idempotent producer: {name}; grant it with kafka-acls.sh --add --allow-principal User:… \
             --operation Write --topic … (from Kafka 2.8 on), or --operation IdempotentWrite --cluster"
        ),
        _ => format!("no producer id is given: {name} (error {code})"),
    };
    ProducerError::broker("that was asked", reason)
}
