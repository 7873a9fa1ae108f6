//! The group coordinator: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, OffsetFetch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;

use super::group::{Committed, Group, Joining, Phase, Refusal};
use crate::clock;

/// How often a waiting request looks for members that fell silent.
const TICK: Duration = Duration::from_millis(100);

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Mutex<HashMap<String, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    group: Mutex<Group>,
    changed: Notify,
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` answers, keeping `member` alive meanwhile.
    async fn wait<T>(&self, member: &str, mut ready: impl FnMut(&mut Group) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut group = self.lock();
                let now = clock::now();
                group.touch(member, now);
                let before = group.phase();
                group.tick(now);
                if group.phase() != before {
                    self.changed.notify_waiters();
                }
                if let Some(answer) = ready(&mut group) {
                    return answer;
                }
            }
            let _ = tokio::time::timeout(TICK, changed).await;
        }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(ms.max(0) as u64)
}

impl Groups {
    fn entry(&self, group: &str) -> Arc<Entry> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = groups.entry(group.to_owned()).or_insert_with(|| {
            Arc::new(Entry {
                group: Mutex::new(Group::new()),
                changed: Notify::new(),
            })
        });
        Arc::clone(entry)
    }

    pub(super) async fn join(
        &self,
        version: i16,
        client_id: &str,
        request: JoinGroupRequest,
        error: Option<ResponseError>,
    ) -> JoinGroupResponse {
        let refused = |error: ResponseError, member: &str| {
            JoinGroupResponse::default()
                .with_error_code(error.code())
                .with_generation_id(-1)
                .with_protocol_name(Some(StrBytes::new()))
                .with_member_id(text(member))
        };
        if let Some(error) = error {
            return refused(error, &request.member_id);
        }
        let session_timeout = millis(request.session_timeout_ms);
        let joining = Joining {
            member_id: request.member_id.to_string(),
            client_id: client_id.to_owned(),
            instance_id: request.group_instance_id.map(|id| id.to_string()),
            protocol_type: request.protocol_type.to_string(),
            protocols: request
                .protocols
                .into_iter()
                .map(|p| (p.name.to_string(), p.metadata))
                .collect(),
            session_timeout,
            // Version 0 knows one timeout for both.
            rebalance_timeout: if version == 0 {
                session_timeout
            } else {
                millis(request.rebalance_timeout_ms)
            },
            id_first: version >= 4,
        };
        let entry = self.entry(&request.group_id);
        let joined = entry.lock().join(joining, clock::now());
        entry.changed.notify_waiters();
        let member = match joined {
            Ok(member) => member,
            Err(Refusal::IdFirst(id)) => return refused(ResponseError::MemberIdRequired, &id),
            Err(Refusal::Error(error)) => return refused(error, &request.member_id),
        };
        let joined = |group: &mut Group| match group.phase() {
            _ if !group.members.contains_key(&member) => {
                Some(refused(ResponseError::UnknownMemberId, &member))
            }
            Phase::Joining { .. } => None,
            _ => {
                group.answered(&member);
                Some(joined_response(group, &member))
            }
        };
        entry.wait(&member, joined).await
    }

    pub(super) async fn sync(
        &self,
        request: SyncGroupRequest,
        error: Option<ResponseError>,
    ) -> SyncGroupResponse {
        let refused =
            |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
        if let Some(error) = error {
            return refused(error);
        }
        let entry = self.entry(&request.group_id);
        let (member, generation) = (request.member_id.to_string(), request.generation_id);
        {
            let mut group = entry.lock();
            if let Err(error) = group.check(&member, generation) {
                return refused(error);
            }
            if group.phase() == Phase::Syncing && group.leader == member {
                let assignments = request.assignments.into_iter();
                group.assign(
                    assignments
                        .map(|a| (a.member_id.to_string(), a.assignment))
                        .collect(),
                );
                entry.changed.notify_waiters();
            }
        }
        let synced = |group: &mut Group| {
            if let Err(error) = group.check(&member, generation) {
                return Some(refused(error));
            }
            match group.phase() {
                Phase::Joining { .. } | Phase::Empty => {
                    Some(refused(ResponseError::RebalanceInProgress))
                }
                Phase::Syncing => None,
                Phase::Stable => {
                    let assignment = group.members.get(&member).map(|m| m.assignment.clone());
                    Some(
                        SyncGroupResponse::default()
                            .with_assignment(assignment.unwrap_or_default())
                            .with_protocol_type(Some(text(&group.protocol_type)))
                            .with_protocol_name(Some(text(&group.protocol))),
                    )
                }
            }
        };
        entry.wait(&member, synced).await
    }

    pub(super) fn heartbeat(
        &self,
        request: &HeartbeatRequest,
        error: Option<ResponseError>,
    ) -> HeartbeatResponse {
        let entry = self.entry(&request.group_id);
        let mut group = entry.lock();
        let now = clock::now();
        group.touch(&request.member_id, now);
        group.tick(now);
        let error = error
            .or_else(|| group.check(&request.member_id, request.generation_id).err())
            .or_else(|| {
                matches!(group.phase(), Phase::Joining { .. })
                    .then_some(ResponseError::RebalanceInProgress)
            });
        HeartbeatResponse::default().with_error_code(error.map_or(0, |error| error.code()))
    }

    pub(super) fn leave(
        &self,
        version: i16,
        request: LeaveGroupRequest,
        error: Option<ResponseError>,
    ) -> LeaveGroupResponse {
        if let Some(error) = error {
            return LeaveGroupResponse::default().with_error_code(error.code());
        }
        let entry = self.entry(&request.group_id);
        let mut group = entry.lock();
        let now = clock::now();
        let mut leave = |member: &str| match group.leave(member, now) {
            true => 0,
            false => ResponseError::UnknownMemberId.code(),
        };
        // One member until version 2, several from 3 on.
        let response = if version < 3 {
            LeaveGroupResponse::default().with_error_code(leave(&request.member_id))
        } else {
            let members = request.members.into_iter().map(|member| {
                MemberResponse::default()
                    .with_error_code(leave(&member.member_id))
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
            });
            LeaveGroupResponse::default().with_members(members.collect())
        };
        entry.changed.notify_waiters();
        response
    }

    pub(super) fn commit(
        &self,
        request: OffsetCommitRequest,
        error: Option<ResponseError>,
    ) -> OffsetCommitResponse {
        let entry = self.entry(&request.group_id);
        let mut group = entry.lock();
        let (member, generation) = (&request.member_id, request.generation_id_or_member_epoch);
        // Who assigns partitions by itself commits without a generation, to a group without members.
        let error = error.or_else(|| match group.phase() {
            _ if generation < 0 && group.members.is_empty() => None,
            Phase::Syncing => Some(ResponseError::RebalanceInProgress),
            _ => group.check(member, generation).err(),
        });
        group.touch(member, clock::now());
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                if error.is_none() {
                    let committed = Committed {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition
                            .committed_metadata
                            .map(|m| m.to_string())
                            .unwrap_or_default(),
                    };
                    group.offsets.insert(
                        (topic.name.to_string(), partition.partition_index),
                        committed,
                    );
                }
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error.map_or(0, |error| error.code()))
            });
            OffsetCommitResponseTopic::default()
                .with_partitions(partitions.collect())
                .with_name(topic.name.clone())
        });
        OffsetCommitResponse::default().with_topics(topics.collect())
    }

    pub(super) fn committed(
        &self,
        version: i16,
        request: OffsetFetchRequest,
        error: Option<ResponseError>,
    ) -> OffsetFetchResponse {
        let entry = self.entry(&request.group_id);
        let group = entry.lock();
        // An empty list means all until version 1, a missing one from version 2 on.
        let wanted: Vec<(TopicName, Vec<i32>)> = match request.topics {
            Some(topics) if version > 1 || !topics.is_empty() => topics
                .into_iter()
                .map(|topic| (topic.name, topic.partition_indexes))
                .collect(),
            _ => {
                let mut all: HashMap<&String, Vec<i32>> = HashMap::new();
                for (topic, partition) in group.offsets.keys() {
                    all.entry(topic).or_default().push(*partition);
                }
                all.into_iter()
                    .map(|(topic, partitions)| (TopicName(text(topic)), partitions))
                    .collect()
            }
        };
        let code = error.map_or(0, |error| error.code());
        let topics = wanted.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|index| {
                let committed = group.offsets.get(&(name.to_string(), index));
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.map_or(-1, |c| c.offset))
                    .with_committed_leader_epoch(committed.map_or(-1, |c| c.leader_epoch))
                    .with_metadata(Some(text(committed.map_or("", |c| &c.metadata))))
                    .with_error_code(code)
            });
            OffsetFetchResponseTopic::default()
                .with_partitions(partitions.collect())
                .with_name(name.clone())
        });
        OffsetFetchResponse::default()
            .with_topics(topics.collect())
            .with_error_code(if version > 1 { code } else { 0 })
    }
}

fn joined_response(group: &Group, member: &str) -> JoinGroupResponse {
    let members = group
        .members
        .iter()
        .filter(|_| group.leader == member)
        .map(|(id, other)| {
            JoinGroupResponseMember::default()
                .with_member_id(text(id))
                .with_group_instance_id(other.instance_id.as_deref().map(text))
                .with_metadata(other.metadata(&group.protocol))
        });
    JoinGroupResponse::default()
        .with_generation_id(group.generation)
        .with_protocol_type(Some(text(&group.protocol_type)))
        .with_protocol_name(Some(text(&group.protocol)))
        .with_leader(text(&group.leader))
        .with_member_id(text(member))
        .with_members(members.collect::<Vec<_>>())
}
