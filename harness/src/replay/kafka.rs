//! Real brokers behind a replay: started or named by the environment, warmed, and watched from outside.
//!
//! How far the engine is, is the sum of its partitions' high watermarks, asked every [`POLL`] by a client that has no part in the
//! run: a record counts once every replica in sync has it and a consumer could read it. Its time is that at which the answer came, so
//! it is late by at most [`POLL`] and one request's way, never early.
//!
//! Brokers serve all runs of a scenario, one after the other, each into new topics: a JVM needs minutes until what a request takes is
//! compiled, not only what a record takes. Behind links, which are each run's own, and where a fault kills or stops them, every run has new ones.

mod warm_up;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::scenario::{BrokerKind, Deed, Scenario};
use super::sink::Contents;
use crate::admin::{Admin, AdminError, Partition};
use crate::links::Links;
use crate::servers::{Kafka, kafka};

/// How often the end offsets are asked for.
const POLL: Duration = Duration::from_millis(5);
/// How long partitions may be without a leader before a run cannot be judged, and a deleted topic be known to a broker.
const LEADERS_MAX: Duration = Duration::from_secs(60);
/// How long a new topic's followers may wait: one that asks before the leader knows of the partition asks again after
/// `replica.fetch.backoff.ms`, a second, and with it waits whoever writes with `acks=all`. No request tells whether they have.
const FOLLOWERS: Duration = Duration::from_millis(1500);
/// How often what may not be possible yet is tried.
const RETRY: Duration = Duration::from_millis(100);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Brokers that one run of a scenario leaves to the next.
#[derive(Debug, Default)]
pub struct Kept {
    /// Runs that there will be.
    runs: usize,
    kafka: Option<Kafka>,
    /// Whether the brokers, named ones too, have compiled what a request takes.
    warmed: bool,
}

impl Kept {
    /// None yet, for so many runs.
    pub fn new(runs: usize) -> Kept {
        Kept {
            runs,
            ..Kept::default()
        }
    }
}

/// Brokers and who watches them.
pub(super) struct RealKafka {
    servers: Servers,
    /// Whether the next run may have them.
    lasting: bool,
    title: String,
    topics: Vec<String>,
    seen: Arc<Mutex<Seen>>,
    _watch: Watch,
    count: usize,
}

enum Servers {
    Own(Kafka),
    /// Those that `WALBROOK_KAFKA` names.
    Named(String),
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    records: u64,
    last: Option<Instant>,
}

/// Ends with the brokers' watching.
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RealKafka {
    /// Starts as many brokers as `scenario` asks for, or takes those of the environment or of the run before, and warms them. With
    /// links each is on its host.
    pub(super) async fn start(
        scenario: &Scenario,
        topics: Vec<String>,
        links: Option<&Links>,
        kept: &mut Kept,
    ) -> Result<RealKafka, Failure> {
        let broker = &scenario.broker;
        let count = broker.count;
        let lasting = links.is_none() && !harms_brokers(scenario);
        let named = std::env::var("WALBROOK_KAFKA").ok();
        let servers = match named.filter(|named| !named.is_empty()) {
            Some(_) if links.is_some() => {
                return Err("WALBROOK_KAFKA: brokers that run already cannot be put behind emulated links; unset it for this scenario".into());
            }
            Some(_) if !broker.properties.is_empty() => {
                return Err("WALBROOK_KAFKA: broker.properties cannot be given to brokers that run already; unset it for this scenario".into());
            }
            Some(named) => Servers::Named(named),
            None => Servers::Own(match kept.kafka.take() {
                Some(kafka) => kafka,
                None => Kafka::start(&hosts(count, links)?, &broker.properties).await?,
            }),
        };
        let bootstrap = servers.observed_bootstrap();
        let mut title = match &servers {
            Servers::Named(_) => "named Kafka".to_owned(),
            Servers::Own(_) => format!("Apache Kafka {}", kafka::VERSION),
        };
        if let Servers::Named(_) = servers {
            ready(&mut Admin::new(&bootstrap), count, &topics).await?;
        }
        if count > 1 {
            title += &format!(
                ", {count} brokers, replication {count}, min.insync.replicas {}",
                count / 2 + 1
            );
        }
        for line in broker.properties.lines() {
            title += &format!(", {line}");
        }
        let shared = lasting && kept.runs > 1;
        if shared {
            title += ", the same for all runs";
        }
        if !(kept.warmed && shared) {
            warm_up::requests(&bootstrap, broker).await?;
            kept.warmed = true;
        }
        warm_up::records(&bootstrap, broker).await?;
        title += &warm_up::title(broker, shared);
        if broker.existing_topics {
            existing(&mut Admin::new(&bootstrap), broker, &topics).await?;
            title += ", topics there before";
        }
        let seen = Arc::new(Mutex::default());
        let watch = watch(Admin::new(&bootstrap), topics.clone(), Arc::clone(&seen));
        Ok(RealKafka {
            servers,
            lasting,
            title,
            topics,
            seen,
            _watch: Watch(tokio::spawn(watch)),
            count,
        })
    }

    pub(super) fn bootstrap(&self) -> String {
        match &self.servers {
            Servers::Named(named) => named.clone(),
            Servers::Own(kafka) => kafka.bootstrap(),
        }
    }

    pub(super) fn observed_bootstrap(&self) -> String {
        self.servers.observed_bootstrap()
    }

    pub(super) fn title(&self) -> String {
        self.title.clone()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn records(&self) -> u64 {
        lock(&self.seen).records
    }

    /// Asks once more, and for the sizes.
    pub(super) async fn contents(&self) -> Result<Contents, Failure> {
        let mut admin = Admin::new(&self.observed_bootstrap());
        let deadline = crate::clock::now() + LEADERS_MAX;
        // A broker that has just come back may be without an answer yet.
        let (records, bytes) = loop {
            let why = match self.ends_and_bytes(&mut admin).await {
                Ok(Some(found)) => break found,
                Ok(None) => "partitions stay without a leader".to_owned(),
                Err(error) => error.to_string(),
            };
            if crate::clock::now() > deadline {
                return Err(why.into());
            }
            tokio::time::sleep(POLL).await;
        };
        let now = crate::clock::now();
        let last_append = {
            let mut seen = lock(&self.seen);
            if seen.records != records {
                *seen = Seen {
                    records,
                    last: Some(now),
                };
            }
            seen.last
        };
        Ok(Contents {
            records,
            bytes,
            last_append,
        })
    }

    /// Records and bytes of the run's topics; `None` while a partition has no leader.
    async fn ends_and_bytes(&self, admin: &mut Admin) -> Result<Option<(u64, u64)>, AdminError> {
        let partitions = admin.partitions(&self.topics).await?;
        let ends: Option<Vec<i64>> = admin.ends(&partitions).await.into_iter().collect();
        let Some(ends) = ends else {
            return Ok(None);
        };
        let records = ends.into_iter().map(i64::unsigned_abs).sum();
        Ok(Some((records, admin.bytes(&self.topics).await?)))
    }

    pub(super) async fn happen(&mut self, deed: Deed, starts: bool) -> Result<(), Failure> {
        if deed == Deed::MoveLeader {
            self.move_leaders().await?;
        }
        let Servers::Own(kafka) = &mut self.servers else {
            return match deed {
                Deed::RestartBroker | Deed::Stall => {
                    Err("brokers that WALBROOK_KAFKA names are neither stopped nor killed".into())
                }
                _ => Ok(()),
            };
        };
        match (deed, starts) {
            (Deed::RestartBroker, true) => kafka.kill(0),
            (Deed::RestartBroker, false) => kafka.resume(0)?,
            (Deed::Stall, starts) => kafka.freeze(starts),
            _ => {}
        }
        Ok(())
    }
}

impl RealKafka {
    /// Makes room for the next run: deletes this one's topics, where somebody else's brokers or the next run would have them, and hands
    /// on the brokers. What a run that failed has written into named brokers stays, to be looked at.
    ///
    /// # Errors
    /// When a topic cannot be deleted, or a broker does not forget it.
    pub(super) async fn end(self, verified: bool, kept: &mut Kept) -> Result<(), Failure> {
        let clears = match self.servers {
            Servers::Named(_) => verified,
            Servers::Own(_) => self.lasting,
        };
        if clears {
            let mut admin = Admin::new(&self.observed_bootstrap());
            for topic in &self.topics {
                // A run that failed early may not have created it.
                if !(admin.partitions(std::slice::from_ref(topic)).await?).is_empty() {
                    admin.delete_topic(topic).await?;
                }
            }
            // The next run's engine would find what a broker has not forgotten yet.
            let deadline = crate::clock::now() + LEADERS_MAX;
            while !admin.have_forgotten(&self.topics).await? {
                if crate::clock::now() > deadline {
                    let (topics, seconds) = (self.topics.join(", "), LEADERS_MAX.as_secs());
                    return Err(format!(
                        "{topics}: deleted, but a broker still knows them after {seconds} s; look into the brokers' logs"
                    )
                    .into());
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        if let (true, Servers::Own(kafka)) = (self.lasting, self.servers) {
            kept.kafka = Some(kafka);
        }
        Ok(())
    }

    /// Moves leaders as soon as there are replicas in sync to move them to: after another fault that may take a while.
    async fn move_leaders(&self) -> Result<(), Failure> {
        let deadline = crate::clock::now() + LEADERS_MAX;
        loop {
            let moved = Admin::new(&self.observed_bootstrap())
                .move_leaders(&self.topics)
                .await;
            match moved {
                Ok(1..) => return Ok(()),
                moved if crate::clock::now() > deadline => {
                    let why = moved.map_or_else(
                        |error| error.to_string(),
                        |_| "no other replica is in sync".into(),
                    );
                    return Err(format!("leaders cannot be moved: {why}").into());
                }
                _ => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

impl Servers {
    /// Their addresses for this process, past the links.
    fn observed_bootstrap(&self) -> String {
        match self {
            Servers::Named(named) => named.clone(),
            Servers::Own(kafka) => kafka.observed_bootstrap(),
        }
    }
}

/// Whether a fault of `scenario` kills or stops brokers.
fn harms_brokers(scenario: &Scenario) -> bool {
    let mut faults = scenario.fault.iter();
    faults.any(|fault| matches!(fault.deed, Deed::RestartBroker | Deed::Stall))
}

/// Where each of `count` brokers runs.
fn hosts(count: usize, links: Option<&Links>) -> Result<Vec<kafka::Host>, Failure> {
    let Some(links) = links else {
        return Ok(vec![kafka::Host::loopback(); count]);
    };
    let hosts = (0..count).map(|number| {
        let host = links.broker_host(number)?;
        Ok(kafka::Host::emulated(host))
    });
    hosts.collect()
}

/// Named brokers must be enough, and must not have the run's topics.
async fn ready(admin: &mut Admin, count: usize, topics: &[String]) -> Result<(), Failure> {
    let there = admin.brokers().await?;
    if there < count {
        return Err(format!("WALBROOK_KAFKA: {there} brokers, the scenario wants {count}").into());
    }
    for topic in topics {
        if !admin
            .partitions(std::slice::from_ref(topic))
            .await?
            .is_empty()
        {
            return Err(format!(
                "WALBROOK_KAFKA: topic {topic} is there already; delete it before the run"
            )
            .into());
        }
    }
    Ok(())
}

/// Creates the run's topics, and waits until they can be written at once.
async fn existing(
    admin: &mut Admin,
    broker: &BrokerKind,
    topics: &[String],
) -> Result<(), Failure> {
    for topic in topics {
        let replication = i16::try_from(broker.count)?;
        admin
            .create_topic(topic, broker.partitions, replication)
            .await?;
        led(admin, topic, broker.partitions, LEADERS_MAX).await?;
    }
    if broker.count > 1 {
        tokio::time::sleep(FOLLOWERS).await;
    }
    Ok(())
}

/// The partitions of a topic that was just created, once each has a leader.
async fn led(
    admin: &mut Admin,
    topic: &str,
    count: i32,
    longest: Duration,
) -> Result<Vec<Partition>, Failure> {
    let deadline = crate::clock::now() + longest;
    let topics = [topic.to_owned()];
    loop {
        let partitions = admin.partitions(&topics).await?;
        if partitions.len() == usize::try_from(count)?
            && partitions.iter().all(|part| part.leader >= 0)
        {
            return Ok(partitions);
        }
        if crate::clock::now() > deadline {
            return Err(format!("topic {topic}: partitions stay without a leader").into());
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Follows the topics from when they are created.
async fn watch(mut admin: Admin, topics: Vec<String>, seen: Arc<Mutex<Seen>>) {
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut partitions: Vec<Partition> = Vec::new();
    let mut known: Vec<i64> = Vec::new();
    let mut stale = true;
    loop {
        ticks.tick().await;
        if stale
            || !topics
                .iter()
                .all(|topic| partitions.iter().any(|part| part.topic == *topic))
        {
            let Ok(mut found) = admin.partitions(&topics).await else {
                continue;
            };
            found.sort_by(|one, other| (&one.topic, one.number).cmp(&(&other.topic, other.number)));
            // A partition's end outlives its leader.
            let before = partitions.iter().zip(&known);
            let ends: Vec<((String, i32), i64)> = before
                .map(|(part, end)| ((part.topic.clone(), part.number), *end))
                .collect();
            known = found
                .iter()
                .map(|part| {
                    let key = (part.topic.clone(), part.number);
                    ends.iter()
                        .find_map(|(known, end)| (*known == key).then_some(*end))
                        .unwrap_or_default()
                })
                .collect();
            partitions = found;
        }
        let ends = admin.ends(&partitions).await;
        stale = ends.iter().any(Option::is_none);
        for (known, end) in known.iter_mut().zip(ends) {
            *known = end.unwrap_or(*known);
        }
        let records = known.iter().map(|end| end.unsigned_abs()).sum();
        let mut seen = lock(&seen);
        if records != seen.records {
            *seen = Seen {
                records,
                last: Some(crate::clock::now()),
            };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;

    #[tokio::test]
    async fn topics_that_are_to_be_there_are_made_once() {
        let broker = Broker::loopback().await.unwrap();
        let mut admin = Admin::new(&broker.bootstrap());
        let kind = BrokerKind {
            partitions: 2,
            ..BrokerKind::default()
        };
        let topics = ["a".to_owned(), "b".to_owned()];
        existing(&mut admin, &kind, &topics).await.unwrap();
        let partitions = admin.partitions(&topics).await.unwrap();
        let found: Vec<_> = (partitions.iter())
            .map(|part| (part.topic.as_str(), part.number))
            .collect();
        assert_eq!(found, [("a", 0), ("a", 1), ("b", 0), ("b", 1)]);
        let again = existing(&mut admin, &kind, &topics).await.unwrap_err();
        assert!(again.to_string().starts_with("topic a: "), "{again}");
    }
}
