//! The topics of the cluster and their partitions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kafka_protocol::ResponseError;
use tokio::sync::Notify;

use super::partition::{Figures, Partition};

/// Longest topic name (Kafka's `Topic.MAX_NAME_LENGTH`).
const NAME_MAX: usize = 249;

/// Partitions that one topic may be created with here.
const PARTITIONS_MAX: i32 = 10_000;

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) partitions: Vec<Mutex<Partition>>,
    /// As given when it was created, `max.message.bytes` among them.
    pub(super) configs: BTreeMap<String, String>,
    /// `max.message.bytes`.
    pub(super) max_message_bytes: Option<usize>,
}

/// All topics.
#[derive(Debug)]
pub(super) struct Topics {
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    nodes: i32,
    partitions: i32,
    discard: bool,
    /// Told after every append: fetches that wait look again.
    pub(super) appended: Notify,
}

impl Topics {
    pub(super) fn new(nodes: i32, partitions: i32, discard: bool) -> Self {
        Self {
            topics: RwLock::default(),
            nodes,
            partitions,
            discard,
            appended: Notify::new(),
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<(String, Arc<Topic>)> {
        let topics = self.read();
        topics
            .iter()
            .map(|(name, topic)| (name.clone(), Arc::clone(topic)))
            .collect()
    }

    /// Runs `f` on a partition.
    pub(super) fn with<T>(
        &self,
        topic: &str,
        partition: i32,
        f: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, ResponseError> {
        let topic = self
            .find(topic)
            .ok_or(ResponseError::UnknownTopicOrPartition)?;
        topic.with(partition, f)
    }

    /// Checks what [`Self::create`] would do.
    pub(super) fn may_create(&self, name: &str, partitions: i32) -> Result<i32, ResponseError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty()
            || name.len() > NAME_MAX
            || matches!(name, "." | "..")
            || !name.chars().all(allowed)
        {
            return Err(ResponseError::InvalidTopicException);
        }
        let partitions = if partitions == -1 {
            self.partitions
        } else {
            partitions
        };
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(ResponseError::InvalidPartitions);
        }
        if self.find(name).is_some() {
            return Err(ResponseError::TopicAlreadyExists);
        }
        Ok(partitions)
    }

    /// Creates a topic; -1 partitions are the default number. Leaders go round the nodes.
    pub(super) fn create(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(String, String)],
    ) -> Result<(), ResponseError> {
        let partitions = self.may_create(name, partitions)?;
        let configs: BTreeMap<_, _> = configs.iter().cloned().collect();
        let max_message_bytes = configs
            .get("max.message.bytes")
            .map(|text| text.parse().map_err(|_| ResponseError::InvalidConfig))
            .transpose()?;
        let nodes = self.nodes.max(1);
        let topic = Topic {
            partitions: (0..partitions)
                .map(|p| Mutex::new(Partition::new(p % nodes, self.discard)))
                .collect(),
            configs,
            max_message_bytes,
        };
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if topics.contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        topics.insert(name.to_owned(), Arc::new(topic));
        Ok(())
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), ResponseError> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics
            .remove(name)
            .map(drop)
            .ok_or(ResponseError::UnknownTopicOrPartition)
    }

    pub(super) fn figures(&self) -> Vec<(String, i32, Figures)> {
        let mut figures = Vec::new();
        for (name, topic) in self.all() {
            for (i, partition) in topic.partitions.iter().enumerate() {
                let partition = partition.lock().unwrap_or_else(PoisonError::into_inner);
                figures.push((name.clone(), i as i32, partition.figures()));
            }
        }
        figures
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Topic>>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    pub(super) fn with<T>(
        &self,
        partition: i32,
        f: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, ResponseError> {
        let partition = usize::try_from(partition)
            .ok()
            .and_then(|i| self.partitions.get(i))
            .ok_or(ResponseError::UnknownTopicOrPartition)?;
        Ok(f(&mut partition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)))
    }
}
