//! What a broker is warmed by: requests like the engine's, into a topic of their own, before the run.
//!
//! A JVM compiles what has run often, for what it has seen then, and throws that code away at the first record that is different, in
//! the middle of the run. So these records have what the engine's have: a JSON key, an envelope of about 600 bytes, two headers, a
//! tombstone behind a delete; lz4 batches of as many records as the engine's, those of all partitions of a broker in one request, with a
//! producer id and `acks=all`. A few batches are encoded and sent again and again under new sequence numbers: the broker reads every
//! record of each as if it were new, and the processors are its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProducerId};
use protocol::kafka::Compression;
use protocol::kafka::record_batch::{self, Builder, Header};
use tokio::task::JoinSet;

use super::{Failure, RETRY, Watch, led};
use crate::admin::{self, Admin};
use crate::replay::scenario::BrokerKind;

const TOPIC: &str = "walbrook-warm-up";
/// Topics, one after the other: creating one is part of a run, too, and when a run's was created after a warm-up into a single one,
/// compiled code that reading records needs was dropped.
const TOPICS: u64 = 4;
/// Records of the batches that are sent in turn: as many as the engine's have of a partition, from those that leave early to those that
/// grew. More than 8192 must be among them: from there on a record's offset within its batch takes three bytes, and a broker that has
/// never read such a number (`ByteUtils.readUnsignedVarint`) drops the compiled form of its innermost loop at the first one.
const BATCH_RECORDS: [u64; 4] = [4_000, 8_000, 12_000, 14_000];
/// Of five records four are changes, and one of those a delete, which has a tombstone behind it.
const CYCLE: u64 = 5;
const PRODUCE: i16 = 8;
const INIT_PRODUCER_ID: i16 = 1;
/// What a broker is given for one request.
const REQUEST_MS_MAX: i32 = 10_000;
/// For one topic, and what does not get better meanwhile is an error.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Writes `broker.warm_up_records` records into topics of as many partitions as the run's topics have, one topic after the other, and
/// deletes each of them.
///
/// # Errors
/// What the brokers refuse, or still do not take after five minutes.
pub(super) async fn records(bootstrap: &str, broker: &BrokerKind) -> Result<(), Failure> {
    for number in 0..TOPICS {
        let records = part(broker.warm_up_records, number, TOPICS);
        if records > 0 {
            into_topic(bootstrap, broker, number, records, &BATCH_RECORDS).await?;
        }
    }
    Ok(())
}

/// Sends `broker.warm_up_requests` requests to each broker that leads a partition, with a record for each partition that it leads.
///
/// # Errors
/// As of [`records`].
pub(super) async fn requests(bootstrap: &str, broker: &BrokerKind) -> Result<(), Failure> {
    let records = broker.warm_up_requests * u64::from(broker.partitions.unsigned_abs());
    if records > 0 {
        into_topic(bootstrap, broker, 0, records, &[1]).await?;
    }
    Ok(())
}

/// By what brokers are warmed, for reports; `shared` when they serve several runs.
pub(super) fn title(broker: &BrokerKind, shared: bool) -> String {
    let (requests, records) = (broker.warm_up_requests, broker.warm_up_records);
    let mut parts = Vec::new();
    if requests > 0 {
        let when = if shared { " at first" } else { "" };
        parts.push(format!("{requests} requests each{when}"));
    }
    if records > 0 {
        let when = if shared { " before each" } else { "" };
        parts.push(format!("{records} records{when}"));
    }
    match parts.is_empty() {
        true => ", not warmed".to_owned(),
        false => format!(", warmed by {}", parts.join(" and ")),
    }
}

/// Writes so many records into a topic that is there only for that time, while its end is asked for as often as a run's.
async fn into_topic(
    bootstrap: &str,
    broker: &BrokerKind,
    number: u64,
    records: u64,
    batch_records: &[u64],
) -> Result<(), Failure> {
    let mut admin = Admin::new(bootstrap);
    let replication = i16::try_from(broker.count)?;
    let topic = format!("{TOPIC}-{number}");
    admin
        .create_topic(&topic, broker.partitions, replication)
        .await?;
    let watch = super::watch(Admin::new(bootstrap), vec![topic.clone()], Arc::default());
    let watch = Watch(tokio::spawn(watch));
    let plan = (broker.partitions, records, batch_records);
    let written = write(&mut admin, bootstrap, &topic, plan).await;
    drop(watch);
    // Named brokers outlive this run, and the next one creates it again.
    let deleted = admin.delete_topic(&topic).await;
    written?;
    deleted?;
    Ok(())
}

/// Of `whole`, what falls to `number` of `count`.
fn part(whole: u64, number: u64, count: u64) -> u64 {
    whole / count + u64::from(number < whole % count)
}

/// Writes into `topic`, of so many partitions, so many records in batches of these sizes in turn.
async fn write(
    admin: &mut Admin,
    bootstrap: &str,
    topic: &str,
    (partitions, records, batch_records): (i32, u64, &[u64]),
) -> Result<(), Failure> {
    let deadline = crate::clock::now() + TIME_MAX;
    let count = u64::from(partitions.unsigned_abs()).max(1);
    let partitions = led(admin, topic, partitions, TIME_MAX).await?;
    let sizes = batch_records.to_vec();
    let batches = tokio::task::spawn_blocking(move || {
        let batches = sizes
            .into_iter()
            .map(|records| Ok((records, batch(records)?)));
        batches.collect::<Result<Vec<_>, record_batch::BuildError>>()
    })
    .await??;
    let mut shares: BTreeMap<i32, Vec<Share>> = BTreeMap::new();
    for partition in partitions {
        let number = u64::from(partition.number.unsigned_abs());
        shares.entry(partition.leader).or_default().push(Share {
            partition: partition.number,
            records: part(records, number, count),
            sequence: 0,
        });
    }
    let mut writers = JoinSet::new();
    for (leader, shares) in shares {
        let mut writer = Writer::new(bootstrap, topic, leader, deadline).await?;
        (writer.batches, writer.shares) = (batches.clone(), shares);
        writers.spawn(async move { writer.write().await });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}

/// What one partition is still to be written.
struct Share {
    partition: i32,
    records: u64,
    sequence: i32,
}

/// Writes what one broker leads, over one connection and with one producer id.
struct Writer {
    admin: Admin,
    topic: String,
    leader: i32,
    producer: (i64, i16),
    /// Sent in turn, with how many records are in each.
    batches: Vec<(u64, Vec<u8>)>,
    shares: Vec<Share>,
    deadline: Instant,
}

impl Writer {
    /// With nothing to write yet.
    async fn new(
        bootstrap: &str,
        topic: &str,
        leader: i32,
        deadline: Instant,
    ) -> Result<Writer, Failure> {
        let mut admin = Admin::new(bootstrap);
        admin.brokers().await?;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
            .with_transaction_timeout_ms(i32::MAX);
        let producer = loop {
            let answer = admin.ask(leader, &request, INIT_PRODUCER_ID).await?;
            if answer.error_code == 0 {
                break (answer.producer_id.0, answer.producer_epoch);
            }
            again("a producer id", answer.error_code, deadline).await?;
        };
        Ok(Writer {
            admin,
            topic: topic.to_owned(),
            leader,
            producer,
            batches: Vec::new(),
            shares: Vec::new(),
            deadline,
        })
    }

    async fn write(&mut self) -> Result<(), Failure> {
        for round in 0.. {
            self.shares.retain(|share| share.records > 0);
            if self.shares.is_empty() {
                break;
            }
            self.round(round).await?;
        }
        Ok(())
    }

    /// A batch for each partition that lacks records, in one request; the same again until all are written.
    async fn round(&mut self, round: usize) -> Result<(), Failure> {
        let mut unwritten = Vec::new();
        for share in &mut self.shares {
            let (whole, encoded) = &self.batches[round % self.batches.len()];
            let records = share.records.min(*whole);
            let mut batch = match records == *whole {
                true => encoded.clone(),
                false => batch(records)?,
            };
            let (id, epoch) = self.producer;
            record_batch::stamp(&mut batch, id, epoch, share.sequence)?;
            unwritten.push((share.partition, Bytes::from(batch)));
            share.records -= records;
            // Sequence numbers go round past their largest one.
            share.sequence = share.sequence.wrapping_add(i32::try_from(records)?) & i32::MAX;
        }
        loop {
            let data = unwritten.iter().map(|(partition, batch)| {
                PartitionProduceData::default()
                    .with_index(*partition)
                    .with_records(Some(batch.clone()))
            });
            let topic = TopicProduceData::default()
                .with_name(admin::name(&self.topic))
                .with_partition_data(data.collect());
            let request = ProduceRequest::default()
                .with_acks(-1)
                .with_timeout_ms(REQUEST_MS_MAX)
                .with_topic_data(vec![topic]);
            let answer = self.admin.ask(self.leader, &request, PRODUCE).await?;
            let parts = (answer.responses.iter()).flat_map(|topic| &topic.partition_responses);
            let mut failed = 0;
            for part in parts {
                match part.error_code {
                    0 => unwritten.retain(|(partition, _)| *partition != part.index),
                    code => failed = code,
                }
            }
            if unwritten.is_empty() {
                return Ok(());
            }
            again("warming the brokers", failed, self.deadline).await?;
        }
    }
}

/// Waits before another attempt where that may help: a new topic's leader may not know it yet, nor its replicas be in sync.
async fn again(what: &str, code: i16, deadline: Instant) -> Result<(), Failure> {
    let error = ResponseError::try_from_code(code);
    let passes = error.as_ref().is_some_and(ResponseError::is_retriable);
    if !passes || crate::clock::now() > deadline {
        let why = error.map_or(format!("error {code}"), |error| format!("{error:?}"));
        return Err(format!("{what}: {why}").into());
    }
    tokio::time::sleep(RETRY).await;
    Ok(())
}

/// A batch of so many records, finished but not stamped.
fn batch(records: u64) -> Result<Vec<u8>, record_batch::BuildError> {
    let now = crate::clock::since_epoch();
    let mut builder = Builder::new(Compression::Lz4);
    for record in 0..records {
        let (cycle, step) = (record / CYCLE, record % CYCLE);
        // The tombstone is the delete's.
        let change = Change::new(cycle * (CYCLE - 1) + step.min(CYCLE - 2), now);
        let key = change.key();
        let pos = change.pos();
        let gtid = change.gtid();
        let headers = [
            Header::new("pos", pos.as_bytes()),
            Header::new("gtid", gtid.as_bytes()),
        ];
        let value = (step < CYCLE - 1).then(|| change.envelope(step));
        let value = value.as_ref().map(String::as_bytes);
        let ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        builder.append(ms, Some(key.as_bytes()), value, &headers)?;
    }
    builder.finish()
}

/// A row change that nobody made.
struct Change {
    number: u64,
    /// Since 1970.
    at: Duration,
    /// Digits without an order, for what differs from row to row.
    noise: u64,
}

impl Change {
    fn new(number: u64, at: Duration) -> Change {
        // splitmix64: <https://prng.di.unimi.it/splitmix64.c>
        let mut noise = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        noise = (noise ^ (noise >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        noise = (noise ^ (noise >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        noise ^= noise >> 31;
        Change { number, at, noise }
    }

    fn key(&self) -> String {
        format!("{{\"id\":{}}}", self.noise % 1_000_000)
    }

    /// Transactions of 500 changes.
    fn transaction(&self) -> u64 {
        self.number / 500
    }

    fn pos(&self) -> String {
        let offset = self.transaction() * 26_843;
        format!("binlog.000001:{offset}/{}", self.number % 500)
    }

    fn gtid(&self) -> String {
        let transaction = self.transaction();
        format!("c3ea3cf0-e59d-11f1-81fc-02fc00000001:{transaction}")
    }

    fn row(&self) -> String {
        const CATEGORIES: [&str; 4] = ["news", "shopping", "science", "sports"];
        let category = CATEGORIES[(self.noise >> 20) as usize % CATEGORIES.len()];
        let (host, second) = ((self.noise >> 32) % 100_000, (self.noise >> 24) % 60);
        format!(
            "{{\"id\":{},\"category\":\"{category}\",\"domain\":\"host{host}.example.org\",\"timestamp\":\"2025-02-17T15:19:{second:02}Z\"}}",
            self.noise % 1_000_000
        )
    }

    /// Of an insert (steps 0 and 1), an update or a delete.
    fn envelope(&self, step: u64) -> String {
        let null = || "null".to_owned();
        let (before, after, op) = match step {
            0 | 1 => (null(), self.row(), "c"),
            2 => (self.row(), self.row(), "u"),
            _ => (self.row(), null(), "d"),
        };
        let (us, gtid, number) = (self.at.as_micros(), self.gtid(), self.number);
        let (transaction, pos) = (self.transaction(), number * 54);
        let (ms, row) = (us / 1000, number % 20);
        format!(
            "{{\"before\":{before},\"after\":{after},\"source\":{{\"version\":\"0.1.0\",\"connector\":\"mysql\",\"name\":\"warm\",\
             \"ts_ms\":{ms},\"snapshot\":\"false\",\"db\":\"warm\",\"sequence\":null,\"ts_us\":{us},\"ts_ns\":{us}000,\"table\":\"up\",\
             \"server_id\":1001,\"gtid\":\"{gtid}\",\"file\":\"binlog.000001\",\"pos\":{pos},\"row\":{row},\"thread\":{thread},\
             \"query\":null}},\"transaction\":null,\"op\":\"{op}\",\"ts_ms\":{ms},\"ts_us\":{now_us},\"ts_ns\":{now_us}{nanos:03}}}",
            thread = 30 + transaction % 8,
            now_us = us + u128::from(number),
            nanos = self.noise % 1000,
        )
    }
}

#[cfg(test)]
mod tests {
    use protocol::kafka::record_batch::Decoder;

    use super::*;
    use crate::broker::{Broker, Listener, Settings};

    #[tokio::test]
    async fn as_many_records_are_written_as_the_title_says() {
        let settings = Settings {
            listeners: vec![Listener::loopback(); 3],
            validate_records: true,
            ..Settings::default()
        };
        let broker = Broker::start(settings).await.unwrap();
        let bootstrap = broker.bootstrap();
        let mut admin = Admin::new(&bootstrap);
        for (records, partitions) in [(2, 3), (4_000, 1), (60_001, 4)] {
            broker.create_topic(TOPIC, partitions).unwrap();
            let plan = (partitions, records, &BATCH_RECORDS[..]);
            write(&mut admin, &bootstrap, TOPIC, plan).await.unwrap();
            let ends = (0..partitions).map(|number| broker.log_end(TOPIC, number).unwrap());
            assert_eq!(ends.sum::<i64>(), records as i64, "{partitions} partitions");
            admin.delete_topic(TOPIC).await.unwrap();
        }
        for (records, count) in [(0, 3), (1, 3), (12_000_001, 4)] {
            let parts = (0..count).map(|number| part(records, number, count));
            assert_eq!(parts.sum::<u64>(), records);
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_warm_up() {
        let broker = Broker::loopback().await.unwrap();
        let kind = BrokerKind {
            warm_up_records: 5,
            warm_up_requests: 7,
            ..BrokerKind::default()
        };
        // Twice: what is left would be in the way of the second.
        for _ in 0..2 {
            requests(&broker.bootstrap(), &kind).await.unwrap();
            records(&broker.bootstrap(), &kind).await.unwrap();
        }
        let names: Vec<_> = (0..TOPICS)
            .map(|number| format!("{TOPIC}-{number}"))
            .collect();
        let left = Admin::new(&broker.bootstrap()).partitions(&names).await;
        let left = left.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_report_says_what_the_brokers_were_warmed_by() {
        let title = |requests, records, shared| {
            let broker = BrokerKind {
                warm_up_requests: requests,
                warm_up_records: records,
                ..BrokerKind::default()
            };
            title(&broker, shared)
        };
        assert_eq!(title(0, 0, true), ", not warmed");
        assert_eq!(title(0, 7, false), ", warmed by 7 records");
        assert_eq!(title(3, 0, true), ", warmed by 3 requests each at first");
        assert_eq!(
            title(3, 7, true),
            ", warmed by 3 requests each at first and 7 records before each"
        );
    }

    #[test]
    fn records_are_of_the_kinds_and_sizes_of_a_run() {
        for count in BATCH_RECORDS {
            let mut batch = batch(count).unwrap();
            record_batch::stamp(&mut batch, 7, 0, 0).unwrap();
            let each = batch.len() as u64 / count;
            assert!((50..75).contains(&each), "{each} bytes a record as sent");
            // A topic's usual max.message.bytes.
            assert!(batch.len() < 1 << 20, "{} bytes", batch.len());
            let mut decoder = Decoder::new();
            let (_, records) = decoder.decode(&batch).unwrap().unwrap();
            let records: Vec<_> = records.map(Result::unwrap).collect();
            let mut ops = BTreeMap::<String, u64>::new();
            let mut bytes = 0;
            for (at, record) in records.iter().enumerate() {
                assert!(record.header("pos").is_some() && record.header("gtid").is_some());
                let Some(value) = record.value else {
                    assert_eq!(record.key, records[at - 1].key, "the tombstone's delete");
                    *ops.entry("tombstone".to_owned()).or_default() += 1;
                    continue;
                };
                bytes += value.len() as u64;
                let value: serde_json::Value = serde_json::from_slice(value).unwrap();
                let key: serde_json::Value =
                    serde_json::from_slice(record.key.unwrap_or_default()).unwrap();
                let row = match value["after"].is_null() {
                    true => &value["before"],
                    false => &value["after"],
                };
                assert_eq!(row["id"], key["id"]);
                let op = value["op"].as_str().unwrap_or_default().to_owned();
                *ops.entry(op).or_default() += 1;
            }
            let expected = [("c", 2), ("d", 1), ("tombstone", 1), ("u", 1)];
            let expected = expected.map(|(op, part)| (op.to_owned(), part * count / 5));
            assert_eq!(ops, expected.into());
            let each = bytes / (count * 4 / 5);
            assert!((550..680).contains(&each), "{each} bytes a value");
        }
    }
}
