//! From a checkpoint to a running stream: connect, read the tails of the topics, know what is written already.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::mysql::GtidSet;
use tracing::{info, warn};

use super::PipelineError;
use crate::checkpoint::{self, Checkpoint, CheckpointStore, Ledger};
use crate::config::{Config, SourceSettings};
use crate::position::Position;
use crate::producer::{Producer, TailRecord};
use crate::settled::{NO_PRODUCER, Settled, SettledError, Tails};
use crate::source::{self, Source};

/// A connected source and what is known about earlier runs.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) source: Source,
    pub(super) ledger: Ledger,
    /// What an earlier run wrote beyond the checkpoint; `None` when that is nothing.
    pub(super) settled: Option<Arc<Settled>>,
    /// Topics that the checkpoint names, by the producer's number.
    pub(super) topics: HashMap<u32, Arc<str>>,
}

/// Connects the source after the checkpoint, or where the configuration says when there is none, and reads what earlier runs wrote
/// after it. `patience` is how long the server may stay away.
pub(super) async fn resume(
    config: &Config,
    settings: &SourceSettings,
    limits: source::Limits,
    patience: Option<Duration>,
    store: &dyn CheckpointStore,
    producer: &Producer,
) -> Result<Resumed, PipelineError> {
    let name = &settings.name;
    let previous = store.load(name)?;
    let after = previous.as_ref().map(|checkpoint| source::Resume {
        position: checkpoint.position.clone(),
        server: checkpoint.server.clone(),
    });
    let source =
        Source::connect_patiently(settings, after, limits, &config.state, patience).await?;
    let now = checkpoint::Resume {
        server: source.identity().clone(),
        position: source.position(),
        selection: config.routing_digest(settings),
        cluster: producer.cluster_id().map(str::to_owned),
        producers: producer.producer_ids(),
    };
    info!(source = %name, server = %now.server, position = %now.position, resumed = previous.is_some(), "streaming");
    let previous = previous
        .filter(|checkpoint| may_dedupe(name, checkpoint, &now, config.kafka.shares_topics()));
    let Some(mut previous) = previous else {
        return Ok(Resumed {
            source,
            ledger: Ledger::fresh(now),
            settled: None,
            topics: HashMap::new(),
        });
    };
    let (topics, settled) = read_tails(&mut previous, &source, producer).await?;
    for (topic, partitions) in settled.restarted() {
        warn!(
            source = %name,
            topic,
            partitions = ?partitions.keys(),
            "these partitions were compacted and written from another server: changes since the checkpoint are written again"
        );
    }
    let ledger = Ledger::continued(previous, now, &settled);
    Ok(Resumed {
        source,
        ledger,
        settled: (!settled.is_empty()).then(|| Arc::new(settled)),
        topics,
    })
}

/// Whether what the checkpoint says about topics still holds for this configuration and cluster. `shared`: other sources may write to
/// the same topics.
fn may_dedupe(
    source: &str,
    checkpoint: &Checkpoint,
    now: &checkpoint::Resume,
    shared: bool,
) -> bool {
    if checkpoint.offsets.is_empty() {
        return false;
    }
    if checkpoint.selection != now.selection {
        warn!(
            source,
            "`tables`, `keys`, `topic`, `plugin` or `publication` changed since the checkpoint: changes that were written after it are written again"
        );
        return false;
    }
    if shared && checkpoint.producers.contains_key(&NO_PRODUCER) {
        // Another source's would be taken for ours, and rows left out. It is the mistake that loses nothing.
        warn!(
            source,
            "the checkpoint is of producer = \"rskafka\", whose records in topics without {{source}} cannot be told from other sources': \
             changes that were written after it are written again"
        );
        return false;
    }
    // A client that does not know the cluster can tell nothing.
    if let (Some(was), Some(is)) = (&checkpoint.cluster, &now.cluster)
        && was != is
    {
        warn!(
            source,
            "the checkpoint is of the Kafka cluster {was}, this one is {is}: going on after the checkpoint's position, which says that \
             what was before it is in the other cluster; changes that were written after it are written again"
        );
        return false;
    }
    true
}

/// Reads every partition from the checkpoint's offset to its end.
async fn read_tails(
    checkpoint: &mut Checkpoint,
    source: &Source,
    producer: &Producer,
) -> Result<(HashMap<u32, Arc<str>>, Settled), PipelineError> {
    let names: Vec<&str> = checkpoint.offsets.keys().map(String::as_str).collect();
    // Whoever drops a table deletes its topic some time: that is no reason to halt, or to make it again.
    let mut routes = producer.existing(&names).await?;
    let existing: HashSet<&str> = routes.iter().map(|route| &*route.topic).collect();
    checkpoint.offsets.retain(|topic, _| {
        let exists = existing.contains(topic.as_str());
        if !exists {
            warn!(%topic, "the checkpoint names this topic, which does not exist any more: it is taken out");
        }
        exists
    });
    routes.retain(|route| {
        let known = checkpoint.offsets.get(&*route.topic).map_or(0, BTreeMap::len);
        let same = known == route.partitions as usize;
        if !same {
            // Keys go to other partitions now: what one holds says nothing about the rows that belong there.
            warn!(
                topic = %route.topic, before = known, now = route.partitions,
                "the number of partitions changed since the checkpoint: changes that were written after it are written again"
            );
            checkpoint.offsets.remove(&*route.topic);
        }
        same
    });
    let mut tails = Tails::new(checkpoint, source.identity());
    tails.share_history(source.ancestors());
    tails.end_at(source.end());
    let mut from = Vec::new();
    for (route, (topic, partitions)) in routes.iter().zip(&checkpoint.offsets) {
        for (partition, offset) in partitions {
            tails.begin(topic, route.topic_id, *partition, *offset, *offset);
            from.push((route.topic_id, *partition, *offset));
        }
    }
    let mut refused: Option<SettledError> = None;
    let ours = tails.ours();
    let is_ours = |record: &TailRecord<'_>| ours(record.producer_id, record.pos);
    let ends = producer
        .tails(&from, is_ours, |record| {
            if refused.is_none() {
                let noted = tails.record(
                    record.topic_id,
                    record.partition,
                    record.offset,
                    record.producer_id,
                    record.pos,
                    record.gtid,
                );
                refused = noted.err();
            }
        })
        .await?;
    if let Some(refused) = refused {
        return Err(refused.into());
    }
    for (topic_id, partition, end) in ends {
        tails.finish(topic_id, partition, end);
    }
    let settled = tails.settled(executed(source.end()).as_ref())?;
    let topics = routes
        .into_iter()
        .map(|route| (route.topic_id, route.topic))
        .collect();
    Ok((topics, settled))
}

/// The GTIDs that the server had executed when we connected.
fn executed(end: &Position) -> Option<GtidSet> {
    match end {
        Position::MySql { gtids, .. } => gtids.as_deref()?.parse().ok(),
        Position::Postgres { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(producer: i64) -> checkpoint::Resume {
        checkpoint::Resume {
            server: "mysql:a".parse().unwrap(),
            position: "binlog.000001:4".parse().unwrap(),
            selection: "s".into(),
            cluster: None,
            producers: vec![producer],
        }
    }

    #[test]
    fn records_that_anybody_may_have_written_settle_nothing_in_shared_topics() {
        let of = |producer| {
            let mut ledger = Ledger::fresh(now(producer));
            ledger.topic("shop.orders", &[(0, 10)]);
            ledger.checkpoint().clone()
        };
        let may = |before: i64, shared| may_dedupe("shop", &of(before), &now(8), shared);
        assert!(may(7, true) && may(7, false) && may(NO_PRODUCER, false));
        assert!(!may(NO_PRODUCER, true));
    }
}
