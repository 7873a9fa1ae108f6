//! Topics by number and by name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::encoded::Route;

use super::error::ProducerError;
use super::topics::Found;

/// Topics that were asked for, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Registry {
    topics: Vec<Entry>,
    ids: HashMap<Arc<str>, u32>,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    partitions: u32,
    /// `max.message.bytes`, where known.
    message_bytes_max: Option<usize>,
    /// Whether we created it.
    created: bool,
}

impl Registry {
    /// Enters a topic; a topic that is known keeps its number and its partitions, because keys have been put there by their count.
    pub(super) fn enter(&mut self, topic: &Found) -> u32 {
        let metadata = &topic.metadata;
        if let Some(topic_id) = self.id(&metadata.name) {
            return topic_id;
        }
        let topic_id = self.topics.len() as u32;
        let name: Arc<str> = metadata.name.as_str().into();
        self.ids.insert(Arc::clone(&name), topic_id);
        self.topics.push(Entry {
            name,
            partitions: metadata.partitions.len() as u32,
            message_bytes_max: topic.message_bytes_max,
            created: topic.created,
        });
        topic_id
    }

    /// Those of `names` that are not known, each once.
    pub(super) fn unknown(&self, names: &[&str]) -> Vec<Arc<str>> {
        let mut unknown: Vec<Arc<str>> = names
            .iter()
            .filter(|name| !self.ids.contains_key(**name))
            .map(|name| Arc::from(*name))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Where a topic leads.
    pub(super) fn route(&self, name: &str) -> Option<Route> {
        let topic_id = self.id(name)?;
        let entry = self.topics.get(topic_id as usize)?;
        Some(Route {
            topic: Arc::clone(&entry.name),
            topic_id,
            partitions: entry.partitions,
        })
    }

    /// Where topics lead, in the order of `names`.
    ///
    /// # Errors
    /// One of them is not known.
    pub(super) fn routes(&self, names: &[&str]) -> Result<Vec<Route>, ProducerError> {
        let missing = |name| ProducerError::topic(name, "metadata do not mention it");
        let names = names.iter();
        names
            .map(|name| self.route(name).ok_or_else(|| missing(name)))
            .collect()
    }

    /// Where those of these topics lead that are known, in the order of `names`.
    pub(super) fn known_routes(&self, names: &[&str]) -> Vec<Route> {
        names.iter().filter_map(|name| self.route(name)).collect()
    }

    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The name of a topic; empty for a number that was never given.
    pub(super) fn name(&self, topic_id: u32) -> Arc<str> {
        self.topics
            .get(topic_id as usize)
            .map_or_else(Arc::default, |entry| Arc::clone(&entry.name))
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.topics
            .iter()
            .map(|entry| Arc::clone(&entry.name))
            .collect()
    }

    /// Whether the topic was created by us: its partitions began at offset 0, in this run.
    pub(super) fn was_created(&self, topic_id: u32) -> bool {
        let entry = self.topics.get(topic_id as usize);
        entry.is_some_and(|entry| entry.created)
    }

    /// The largest record batch that a topic takes, in bytes: `configured`, or what the topic itself says where that is less.
    pub(super) fn batch_max(&self, topic_id: u32, configured: usize) -> usize {
        let entry = self.topics.get(topic_id as usize);
        let limit = entry.and_then(|entry| entry.message_bytes_max);
        limit.map_or(configured, |limit| limit.min(configured))
    }
}
