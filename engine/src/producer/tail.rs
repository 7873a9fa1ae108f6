//! Reads the ends of partitions after a restart: what was written and perhaps never acknowledged.
//!
//! ```text
//!        from (checkpoint)                high watermark      log end
//! ─────────┴──────────────────────────────────┴─────────────────┴───   leader
//!          └──────────── read ─────────────────────────────────►┘
//! ```
//! A high watermark hides what the leader has and followers lack, so the log end is asked for by OffsetForLeaderEpoch; records can be
//! fetched once the high watermark has reached it. Requests of the process that died may still be on their way: what counts as the
//! end is one behind which nothing of ours has come for [`SETTLE`] (`settle`).

mod settle;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use protocol::kafka::record_batch::Decoder;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::warn;

use super::TailRecord;
use super::backoff::Backoff;
use super::connection::{Connection, Fault, within};
use super::dispatch::PartitionKey;
use super::error::ProducerError;
use super::metadata::{Cluster, topic_name};
use super::response::{Fetch, ListOffsets, OffsetForLeaderEpoch, PartitionOffset, Response};
use super::verdict;

/// How long nothing of ours must have come.
const SETTLE: Duration = Duration::from_millis(300);

/// How often ends are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(60);

/// Bytes of one fetch; a record batch that is larger comes whole.
const FETCH_BYTES: i32 = 1 << 20;

/// How long a broker may hold a fetch that finds nothing.
const FETCH_WAIT: Duration = Duration::from_millis(250);

/// How long a leader may take to say where its logs end: it needs nobody else to know.
const ENDS_PATIENCE: Duration = Duration::from_secs(5);

/// Timestamps that ask ListOffsets for the high watermark and for the first offset that is left.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Replica id of those who are none.
const NO_REPLICA: BrokerId = BrokerId(-1);

type Name<'a> = &'a (dyn Fn(u32) -> Arc<str> + Sync);

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    /// The broker.
    pub(super) id: i32,
    /// Its term, −1 where the broker does not say.
    pub(super) epoch: i32,
}

/// Leaders of all partitions that are asked for as they were just learnt; empty where they are to be asked for.
pub(super) type Leaders = BTreeMap<PartitionKey, Leader>;

/// An offset for each partition that exists.
type Ends = BTreeMap<PartitionKey, i64>;

/// Whether a record is one that a restart looks for.
pub(super) type IsOurs<'a> = &'a (dyn Fn(&TailRecord<'_>) -> bool + Sync);

/// The end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    /// What all replicas in sync have.
    watermark: i64,
    /// What the leader has, where it tells.
    log: Option<i64>,
}

impl End {
    /// What the leader has, as far as that is known.
    fn log(self) -> i64 {
        self.log.unwrap_or(self.watermark).max(self.watermark)
    }
}

struct Reader<'a> {
    /// Free while records are asked for: others wait to learn who leads what has moved.
    cluster: &'a Mutex<Cluster>,
    name: Name<'a>,
    leaders: Leaders,
    /// Partitions that metadata did not mention when they were asked for the leaders.
    absent: BTreeSet<PartitionKey>,
    connections: HashMap<i32, Connection>,
}

/// Shows every record from the given offsets to the partitions' ends to `visit`, partition by partition, in order, once no more come
/// that `is_ours`; answers the ends. Partitions that do not exist any more are left out. Holds one fetch and one decompressed record batch in memory.
///
/// # Errors
/// What does not pass. Everything else is waited out.
pub(super) async fn read(
    cluster: &Mutex<Cluster>,
    name: Name<'_>,
    from: &[(u32, i32, i64)],
    leaders: Leaders,
    is_ours: IsOurs<'_>,
    visit: &mut (dyn FnMut(TailRecord<'_>) + Send),
) -> Result<Vec<(u32, i32, i64)>, ProducerError> {
    if from.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader {
        cluster,
        name,
        leaders,
        absent: BTreeSet::new(),
        connections: HashMap::new(),
    };
    let keys: Vec<PartitionKey> = from
        .iter()
        .map(|(topic_id, partition, _)| PartitionKey {
            topic_id: *topic_id,
            partition: *partition,
        })
        .collect();
    let ends = reader.settled(&keys, is_ours).await?;
    let mut read_to = Vec::with_capacity(from.len());
    for (key, (topic_id, partition, offset)) in keys.iter().zip(from) {
        let Some(end) = ends.get(key) else { continue };
        if end < offset {
            warn!(
                topic = %name(*topic_id), partition, checkpoint = offset, end,
                "the partition ends before the checkpoint's offset: it has lost records or was created anew"
            );
        }
        let end = reader.fetch_all(*key, *offset, *end, visit).await?;
        read_to.push((*topic_id, *partition, end));
    }
    Ok(read_to)
}

/// The log end offset of each partition as it stands now, without waiting for anybody to settle; partitions that do not exist are
/// left out.
///
/// # Errors
/// What does not pass. Everything else is waited out.
pub(super) async fn ends(
    cluster: &Mutex<Cluster>,
    name: Name<'_>,
    keys: &[PartitionKey],
    leaders: Leaders,
) -> Result<BTreeMap<PartitionKey, i64>, ProducerError> {
    let mut reader = Reader {
        cluster,
        name,
        leaders,
        absent: BTreeSet::new(),
        connections: HashMap::new(),
    };
    let mut backoff = Backoff::new(LOOK_EVERY, Duration::from_secs(2));
    loop {
        match reader.ends(keys).await {
            Ok(ends) => {
                return Ok(ends
                    .into_iter()
                    .map(|(key, end)| (key, end.log()))
                    .collect());
            }
            Err(Fault::Lasting(error)) => return Err(error),
            Err(Fault::Passing(reason)) => {
                if backoff.attempts() == 3 {
                    warn!(%reason, "the ends of partitions cannot be read yet, retrying until they can");
                }
                reader.forget();
                sleep(backoff.pause()).await;
            }
        }
    }
}

impl Reader<'_> {
    /// The ends now, of the partitions that exist.
    async fn ends(&mut self, keys: &[PartitionKey]) -> Result<BTreeMap<PartitionKey, End>, Fault> {
        self.find_leaders(keys).await?;
        let mut by_leader: BTreeMap<i32, Vec<PartitionKey>> = BTreeMap::new();
        for key in keys {
            if let Some(leader) = self.leaders.get(key) {
                by_leader.entry(leader.id).or_default().push(*key);
            }
        }
        let mut ends = BTreeMap::new();
        for (leader, keys) in by_leader {
            let (watermarks, log_ends) = self.watermarks_and_ends(leader, &keys).await?;
            for (key, watermark) in watermarks {
                let log = log_ends.get(&key).copied().filter(|end| *end >= 0);
                ends.insert(key, End { watermark, log });
            }
        }
        Ok(ends)
    }

    async fn find_leaders(&mut self, keys: &[PartitionKey]) -> Result<(), Fault> {
        // Of many, some may not exist any more; one alone that is not known is asked for again.
        let is_known = |key: &PartitionKey| {
            self.leaders.contains_key(key) || (keys.len() > 1 && self.absent.contains(key))
        };
        if keys.iter().all(is_known) {
            return Ok(());
        }
        let names: BTreeMap<Arc<str>, u32> = keys
            .iter()
            .map(|key| ((self.name)(key.topic_id), key.topic_id))
            .collect();
        let wanted: BTreeSet<PartitionKey> = keys.iter().copied().collect();
        let asked: Vec<Arc<str>> = names.keys().cloned().collect();
        let metadata = self.cluster.lock().await.metadata(&asked).await?;
        for topic in metadata.topics {
            let Some(&topic_id) = names.get(topic.name.as_str()) else {
                continue;
            };
            match ResponseError::try_from_code(topic.code) {
                None | Some(ResponseError::UnknownTopicOrPartition) => {}
                Some(_) => return Err(self.fault(&topic.name, -1, topic.code)),
            }
            for partition in topic.partitions {
                let key = PartitionKey {
                    topic_id,
                    partition: partition.index,
                };
                if !wanted.contains(&key) {
                    continue;
                }
                if partition.leader < 0 {
                    self.leaders.remove(&key);
                    return Err(Fault::Passing(format!(
                        "\"{}\" partition {} has no leader",
                        topic.name, partition.index
                    )));
                }
                let leader = Leader {
                    id: partition.leader,
                    epoch: partition.leader_epoch,
                };
                self.leaders.insert(key, leader);
            }
        }
        for key in wanted {
            match self.leaders.contains_key(&key) {
                true => self.absent.remove(&key),
                false => self.absent.insert(key),
            };
        }
        Ok(())
    }

    /// The offset at a timestamp, or at one of the constants.
    async fn list_offsets(
        &mut self,
        leader: i32,
        keys: &[PartitionKey],
        timestamp: i64,
    ) -> Result<BTreeMap<PartitionKey, i64>, Fault> {
        let request = self.list_request(keys, timestamp);
        let ListOffsets(offsets) = self.call::<ListOffsets>(leader, &request).await?;
        self.keyed(keys, offsets)
    }

    /// High watermarks, and right after them where the leader's logs end; the latter are absent where the broker does not tell.
    async fn watermarks_and_ends(
        &mut self,
        leader: i32,
        keys: &[PartitionKey],
    ) -> Result<(BTreeMap<PartitionKey, i64>, BTreeMap<PartitionKey, i64>), Fault> {
        let epoch = |key: &PartitionKey| self.leaders.get(key).map_or(-1, |leader| leader.epoch);
        let known: Vec<PartitionKey> = (keys.iter().copied())
            .filter(|key| epoch(key) >= 0)
            .collect();
        let partition = |key: &PartitionKey| {
            OffsetForLeaderPartition::default()
                .with_partition(key.partition)
                .with_current_leader_epoch(-1)
                .with_leader_epoch(epoch(key))
        };
        let topics = by_topic(&known)
            .map(|keys| {
                OffsetForLeaderTopic::default()
                    .with_topic(topic_name(&(self.name)(keys[0].topic_id)))
                    .with_partitions(keys.iter().map(partition).collect())
            })
            .collect();
        let ends = OffsetForLeaderEpochRequest::default()
            .with_replica_id(NO_REPLICA)
            .with_topics(topics);
        let ends = (!known.is_empty()).then_some(&ends);
        let watermarks = self.list_request(keys, LATEST);
        let answers = self.call_with::<ListOffsets, OffsetForLeaderEpoch>(
            leader,
            &watermarks,
            ends,
            Some(ENDS_PATIENCE),
        );
        let (ListOffsets(watermarks), ends) = answers.await?;
        let ends = match ends {
            Some(OffsetForLeaderEpoch(offsets)) => self.keyed(&known, offsets)?,
            None => BTreeMap::new(),
        };
        Ok((self.keyed(keys, watermarks)?, ends))
    }

    fn list_request(&self, keys: &[PartitionKey], timestamp: i64) -> ListOffsetsRequest {
        let partition = |key: &PartitionKey| {
            ListOffsetsPartition::default()
                .with_partition_index(key.partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp)
        };
        let topics = by_topic(keys)
            .map(|keys| {
                ListOffsetsTopic::default()
                    .with_name(topic_name(&(self.name)(keys[0].topic_id)))
                    .with_partitions(keys.iter().map(partition).collect())
            })
            .collect();
        ListOffsetsRequest::default()
            .with_replica_id(NO_REPLICA)
            .with_topics(topics)
    }

    fn keyed(
        &self,
        keys: &[PartitionKey],
        offsets: Vec<PartitionOffset>,
    ) -> Result<BTreeMap<PartitionKey, i64>, Fault> {
        let names: HashMap<Arc<str>, u32> = keys
            .iter()
            .map(|key| ((self.name)(key.topic_id), key.topic_id))
            .collect();
        let mut keyed = BTreeMap::new();
        for offset in offsets {
            if offset.code != 0 {
                return Err(self.fault(&offset.topic, offset.partition, offset.code));
            }
            if let Some(&topic_id) = names.get(offset.topic.as_str()) {
                let partition = offset.partition;
                keyed.insert(
                    PartitionKey {
                        topic_id,
                        partition,
                    },
                    offset.offset,
                );
            }
        }
        Ok(keyed)
    }

    /// Reads one partition up to `end`; answers where it ended: before that when the log was cut meanwhile, which an unclean election
    /// does, or a topic that is created anew. What had been shown of it by then may be more than there is.
    async fn fetch_all(
        &mut self,
        key: PartitionKey,
        from: i64,
        mut end: i64,
        visit: &mut (dyn FnMut(TailRecord<'_>) + Send),
    ) -> Result<i64, ProducerError> {
        let mut backoff = Backoff::new(LOOK_EVERY, Duration::from_secs(2));
        let mut decoder = Decoder::new();
        let mut at = from;
        while at < end {
            let before = at;
            let reason = match self
                .fetch(key, &mut at, from..end, &mut decoder, visit)
                .await
            {
                Ok(()) if at > before => {
                    backoff.reset();
                    continue;
                }
                Ok(()) => "nothing is returned".to_owned(),
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing(reason)) => reason,
            };
            let topic = (self.name)(key.topic_id);
            if let Some(now) = self.log_end(key).await
                && now < end
            {
                warn!(%topic, partition = key.partition, end = now, before = end, "the partition has lost records while it was read");
                end = now;
                continue;
            }
            if backoff.attempts() == 3 {
                warn!(%topic, partition = key.partition, offset = at, end, %reason, "records cannot be read, retrying until they can");
            }
            sleep(backoff.pause()).await;
        }
        Ok(end)
    }

    /// Where a partition's log ends now, if its leader tells.
    async fn log_end(&mut self, key: PartitionKey) -> Option<i64> {
        // An end is asked for by the leader's term, and the one that we know may be over.
        self.leaders.remove(&key);
        let ends = self.ends(&[key]).await;
        let end = ends.ok()?.get(&key).copied()?;
        end.log.map(|_| end.log())
    }

    async fn fetch(
        &mut self,
        key: PartitionKey,
        at: &mut i64,
        within: Range<i64>,
        decoder: &mut Decoder,
        visit: &mut (dyn FnMut(TailRecord<'_>) + Send),
    ) -> Result<(), Fault> {
        self.find_leaders(&[key]).await?;
        let topic = (self.name)(key.topic_id);
        let Some(leader) = self.leaders.get(&key).map(|leader| leader.id) else {
            return Err(Fault::Passing(format!(
                "metadata do not mention \"{topic}\" partition {}",
                key.partition
            )));
        };
        let partition = FetchPartition::default()
            .with_partition(key.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*at)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_BYTES);
        let request = FetchRequest::default()
            .with_replica_id(NO_REPLICA)
            .with_max_wait_ms(FETCH_WAIT.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(topic_name(&topic))
                    .with_partitions(vec![partition]),
            ]);
        let fetched = self.call::<Fetch>(leader, &request).await?;
        match ResponseError::try_from_code(fetched.code) {
            None => {}
            Some(ResponseError::OffsetOutOfRange) => {
                let first = self
                    .list_offsets(leader, &[key], EARLIEST)
                    .await?
                    .get(&key)
                    .copied()
                    .unwrap_or(-1);
                if first > *at {
                    // Retention has removed what lay before; what is gone cannot be compared.
                    *at = first;
                    return Ok(());
                }
                return Err(Fault::Passing(format!(
                    "offset {at} is out of range, the first one is {first}"
                )));
            }
            Some(_) => return Err(self.fault(&topic, key.partition, fetched.code)),
        }
        show(key, &fetched.records, at, within, decoder, visit).map_err(|error| {
            Fault::Lasting(ProducerError::partition(
                &topic,
                key.partition,
                format!("the record batch at offset {at} cannot be read: {error}"),
            ))
        })
    }

    async fn call<R: Response>(&mut self, leader: i32, request: &R::Request) -> Result<R, Fault> {
        let answers = self.call_with::<R, R>(leader, request, None, None);
        Ok(answers.await?.0)
    }

    async fn call_with<R: Response, A: Response>(
        &mut self,
        leader: i32,
        request: &R::Request,
        along: Option<&A::Request>,
        patience: Option<Duration>,
    ) -> Result<(R, Option<A>), Fault> {
        let connection = self.connection(leader).await?;
        let result = within(patience, connection.call_with::<R, A>(request, along)).await;
        if result.is_err() {
            self.connections.remove(&leader);
        }
        result
    }

    async fn connection(&mut self, leader: i32) -> Result<&mut Connection, Fault> {
        if !self.connections.contains_key(&leader) {
            let cluster = self.cluster.lock().await;
            let connector = Arc::clone(cluster.connector());
            let endpoint = cluster.brokers().get(&leader).cloned();
            drop(cluster);
            let endpoint = endpoint
                .ok_or_else(|| Fault::Passing(format!("broker {leader} is not in the metadata")))?;
            let connection = connector.connect(&endpoint).await?;
            self.connections.insert(leader, connection);
        }
        self.connections
            .get_mut(&leader)
            .ok_or_else(|| Fault::Passing("the connection is gone".to_owned()))
    }

    /// After a fault that may be anybody's: leaders may have moved.
    fn forget(&mut self) {
        self.leaders.clear();
        self.absent.clear();
        self.connections.clear();
    }

    fn fault(&self, topic: &str, partition: i32, code: i16) -> Fault {
        let name = verdict::name(code);
        match ResponseError::try_from_code(code) {
            Some(ResponseError::TopicAuthorizationFailed) => Fault::Lasting(ProducerError::topic(
                topic,
                format!(
                    "we may not read it, which a restart needs to see what is written: {name}; grant it with kafka-acls.sh --add \
                     --allow-principal User:… --operation Read --operation Describe --topic {topic}"
                ),
            )),
            Some(error) if error.is_retriable() || code == -1 => {
                Fault::Passing(format!("\"{topic}\" partition {partition}: {name}"))
            }
            _ => Fault::Lasting(ProducerError::partition(
                topic,
                partition,
                format!("cannot be read: {name} (error {code})"),
            )),
        }
    }
}

/// Shows the records of whole batches, those `within` these offsets, and advances `at` behind them.
fn show(
    key: PartitionKey,
    mut bytes: &[u8],
    at: &mut i64,
    within: Range<i64>,
    decoder: &mut Decoder,
    visit: &mut (dyn FnMut(TailRecord<'_>) + Send),
) -> Result<(), protocol::DecodeError> {
    while let Some((header, records)) = decoder.decode(bytes)? {
        bytes = bytes.get(header.encoded_len()..).unwrap_or_default();
        *at = header.next_offset().max(*at);
        if header.is_control() {
            continue;
        }
        for record in records {
            let record = record?;
            if !within.contains(&record.offset) {
                continue;
            }
            visit(TailRecord {
                topic_id: key.topic_id,
                partition: key.partition,
                offset: record.offset,
                producer_id: header.producer_id,
                has_key: record.key.is_some(),
                has_value: record.value.is_some(),
                pos: record.header("pos"),
                gtid: record.header("gtid"),
            });
        }
    }
    Ok(())
}

/// Runs of keys of the same topic.
fn by_topic(keys: &[PartitionKey]) -> impl Iterator<Item = &[PartitionKey]> {
    keys.chunk_by(|a, b| a.topic_id == b.topic_id)
}

#[cfg(test)]
mod tests;
