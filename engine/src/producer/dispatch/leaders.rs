//! Who leads which partition, and what is said of those that nobody leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tracing::{info, warn};

use super::super::{topics, verdict};
use super::{Dispatch, OTHERS_GO_ON, Partition, PartitionKey};

/// Answers in a row that leave a partition which has something to write without a leader, before the log tells.
pub(super) const LEADERLESS_UNTIL_WARNING: u32 = 5;

/// Whom not to ask who leads what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::producer) struct Doubts {
    /// Brokers that cannot be reached, are silent, or may be cut off from the others without knowing it.
    pub(in crate::producer) brokers: BTreeSet<i32>,
    /// What was answered before keeps leading to brokers that refuse: whoever gave it may be behind.
    pub(in crate::producer) of_answers: bool,
}

impl Dispatch {
    /// Whom not to ask now; brokers that have refused are doubted once, and again when they go on.
    pub(in crate::producer) fn take_doubts(&mut self) -> Doubts {
        let mut brokers = std::mem::take(&mut self.doubted);
        let of_answers = !brokers.is_empty();
        let unreachable = self
            .brokers
            .iter()
            .filter(|(_, state)| state.is_unreachable);
        brokers.extend(unreachable.map(|(id, _)| *id));
        Doubts {
            brokers,
            of_answers,
        }
    }

    /// Takes leaders and their epochs (−1 where the broker does not say) from metadata. `None`: the partition has no leader now.
    pub(in crate::producer) fn metadata(
        &mut self,
        leaders: &[(PartitionKey, Option<i32>, i32)],
        now: Instant,
    ) {
        for (key, leader, epoch) in leaders {
            if let Some(&at) = self.index.get(key) {
                self.partitions[at].lead(*leader, *epoch);
                self.touch(at, now);
            }
        }
        // An answer may be about some topics only, and may lack a partition, or all of a topic: that is no reason to stop asking.
        if self.partitions.iter().any(Partition::wants_leader) {
            self.wants_metadata = true;
            self.signals.driver = true;
        }
    }

    /// As [`metadata`](Self::metadata), of all topics that are registered. `refused`: topics that come with an error code, and so
    /// without partitions.
    pub(in crate::producer) fn refreshed(
        &mut self,
        leaders: &[(PartitionKey, Option<i32>, i32)],
        refused: &[(u32, i16)],
        now: Instant,
    ) {
        for (topic_id, code) in refused {
            if verdict::is_missing(*code) {
                for (at, key) in self.keys.iter().enumerate() {
                    if key.topic_id == *topic_id {
                        self.partitions[at].gone();
                    }
                }
            }
        }
        // Here everything was asked about, as not in every answer about some topics.
        self.wants_metadata = false;
        self.metadata(leaders, now);
        let mut waiting: BTreeMap<u32, PartitionKey> = BTreeMap::new();
        for (key, partition) in self.keys.iter().zip(&self.partitions) {
            if partition.wants_leader() {
                waiting.entry(key.topic_id).or_insert(*key);
            }
        }
        let had_none = std::mem::take(&mut self.leaderless);
        for (topic_id, rounds) in &had_none {
            if *rounds >= LEADERLESS_UNTIL_WARNING && !waiting.contains_key(topic_id) {
                info!(topic = %self.topic(*topic_id), "the topic has leaders again");
            }
        }
        for (topic_id, key) in waiting {
            let rounds = had_none.get(&topic_id).map_or(1, |rounds| rounds + 1);
            self.leaderless.insert(topic_id, rounds);
            let topic = self.topic(topic_id);
            let code = refused.iter().find(|(of, _)| *of == topic_id);
            let code = code.map_or(0, |(_, code)| *code);
            if verdict::is_lasting(code) {
                self.fail(topics::unusable(&topic, code));
            } else if rounds == LEADERLESS_UNTIL_WARNING {
                let is_named = leaders.iter().any(|(of, ..)| *of == key);
                let reason = self.leaderless_because(&topic, key, code, is_named);
                warn!(%topic, partition = key.partition, %reason, "records cannot be written, retrying until they can; {OTHERS_GO_ON}");
            }
        }
    }

    /// Why nobody leads a partition, and what helps.
    pub(super) fn leaderless_because(
        &self,
        topic: &str,
        key: PartitionKey,
        code: i16,
        is_named: bool,
    ) -> String {
        let of_topic = |of: &&PartitionKey| of.topic_id == key.topic_id;
        let partitions = self.keys.iter().filter(of_topic).count();
        match code {
            _ if verdict::is_missing(code) => format!(
                "the topic does not exist any more: {}; create it again (kafka-topics.sh --create --topic {topic} --partitions \
                 {partitions})",
                verdict::name(code)
            ),
            0 if !is_named => format!(
                "the topic has no such partition any more; it had {partitions} when we started: give it as many (kafka-topics.sh --alter \
                 --topic {topic} --partitions {partitions}), or start again"
            ),
            0 => "it has no leader".to_owned(),
            code => format!("the topic cannot be asked about: {}", verdict::name(code)),
        }
    }
}
