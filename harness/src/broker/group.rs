//! One consumer group: who is in it, in which generation, with which assignment. No clock and no waiting: `now` is an argument,
//! and [`groups`](super::groups) waits.
//!
//! ```text
//! Empty ──join──► Joining ──all joined, or too late──► Syncing ──leader's assignment──► Stable
//!                    ▲                                    │                               │
//!                    └────────── join, leave, silence ────┴───────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    Joining { until: Instant },
    Syncing,
    Stable,
}

/// One member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    /// Names and metadata of the assignors that it knows, best first.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) assignment: Bytes,
    seen: Instant,
    joined: bool,
    /// A JoinGroup of it is being answered.
    awaiting: bool,
}

/// What a member joins with.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    pub(super) member_id: String,
    pub(super) client_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) protocol_type: String,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// A new member is first told its id (since JoinGroup 4).
    pub(super) id_first: bool,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
}

/// Why a member could not join.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Error(ResponseError),
    /// Join again with this id.
    IdFirst(String),
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    phase: Phase,
    pub(super) generation: i32,
    pub(super) protocol_type: String,
    pub(super) protocol: String,
    pub(super) leader: String,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids that were handed out and have not joined yet.
    expected: BTreeSet<String>,
    pub(super) offsets: BTreeMap<(String, i32), Committed>,
    named: u64,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            expected: BTreeSet::new(),
            offsets: BTreeMap::new(),
            named: 0,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes a member in; answers its id. It has joined as soon as the phase is no longer [`Phase::Joining`].
    pub(super) fn join(&mut self, joining: Joining, now: Instant) -> Result<String, Refusal> {
        self.tick(now);
        let refuse = |error| Err(Refusal::Error(error));
        if joining.protocols.is_empty()
            || (!self.members.is_empty() && self.protocol_type != joining.protocol_type)
        {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        let others = self
            .members
            .iter()
            .filter(|(id, _)| **id != joining.member_id);
        let shared = |name: &String| others.clone().all(|(_, other)| other.knows(name));
        if !joining.protocols.iter().any(|(name, _)| shared(name)) {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        let id = self.identify(&joining)?;
        self.protocol_type = joining.protocol_type;
        let known = self.members.get(&id);
        let unchanged = known.is_some_and(|known| known.protocols == joining.protocols);
        let settled = matches!(self.phase, Phase::Stable | Phase::Syncing);
        let member = Member {
            instance_id: joining.instance_id,
            protocols: joining.protocols,
            session_timeout: joining.session_timeout,
            rebalance_timeout: joining.rebalance_timeout,
            assignment: known
                .map(|known| known.assignment.clone())
                .unwrap_or_default(),
            seen: now,
            joined: true,
            awaiting: true,
        };
        self.members.insert(id.clone(), member);
        // A follower that repeats itself gets what it has; the leader's repetition means that subscriptions changed.
        if settled && unchanged && id != self.leader {
            return Ok(id);
        }
        if !matches!(self.phase, Phase::Joining { .. }) {
            self.rebalance(now);
        }
        self.tick(now);
        Ok(id)
    }

    fn identify(&mut self, joining: &Joining) -> Result<String, Refusal> {
        if !joining.member_id.is_empty() {
            let known = self.members.contains_key(&joining.member_id)
                || self.expected.remove(&joining.member_id);
            return if known {
                Ok(joining.member_id.clone())
            } else {
                Err(Refusal::Error(ResponseError::UnknownMemberId))
            };
        }
        self.named += 1;
        let id = format!("{}-{}", joining.client_id, self.named);
        if let Some(instance) = &joining.instance_id {
            // A static member comes back under a new id and takes its old place.
            self.members
                .retain(|_, member| member.instance_id.as_ref() != Some(instance));
        } else if joining.id_first {
            self.expected.insert(id.clone());
            return Err(Refusal::IdFirst(id));
        }
        Ok(id)
    }

    /// The member's JoinGroup has been answered.
    pub(super) fn answered(&mut self, member: &str) {
        if let Some(member) = self.members.get_mut(member) {
            member.awaiting = false;
        }
    }

    /// The member is still there, also while it waits.
    pub(super) fn touch(&mut self, member: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member) {
            member.seen = now;
        }
    }

    /// Checks that a request comes from a member of the present generation.
    pub(super) fn check(&self, member: &str, generation: i32) -> Result<(), ResponseError> {
        if !self.members.contains_key(member) {
            return Err(ResponseError::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    /// The leader's assignments end the rebalance.
    pub(super) fn assign(&mut self, assignments: Vec<(String, Bytes)>) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
    }

    /// Removes a member; whether it was one.
    pub(super) fn leave(&mut self, member: &str, now: Instant) -> bool {
        let left = self.members.remove(member).is_some();
        if left {
            self.rebalance(now);
            self.tick(now);
        }
        left
    }

    /// Drops members that fell silent, and ends the joining when everybody is there or the time is up.
    pub(super) fn tick(&mut self, now: Instant) {
        let before = self.members.len();
        self.members
            .retain(|_, member| now.duration_since(member.seen) <= member.session_timeout);
        if self.members.len() != before && !matches!(self.phase, Phase::Joining { .. }) {
            self.rebalance(now);
        }
        let Phase::Joining { until } = self.phase else {
            return;
        };
        if now >= until {
            self.members.retain(|_, member| member.joined);
        }
        if self.members.values().all(|member| member.joined) {
            self.begin_generation();
        }
    }

    fn rebalance(&mut self, now: Instant) {
        let longest = self
            .members
            .values()
            .map(|member| member.rebalance_timeout)
            .max();
        self.phase = Phase::Joining {
            until: now + longest.unwrap_or_default(),
        };
        for member in self.members.values_mut() {
            member.joined = member.awaiting;
        }
    }

    fn begin_generation(&mut self) {
        self.generation += 1;
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        let leader = self.members.get(&self.leader);
        let preferred = leader.and_then(|leader| {
            let shared = |name: &String| self.members.values().all(|member| member.knows(name));
            leader.protocols.iter().find(|(name, _)| shared(name))
        });
        match preferred {
            Some((name, _)) => {
                self.protocol = name.clone();
                self.phase = Phase::Syncing;
            }
            None => {
                self.protocol.clear();
                self.phase = Phase::Empty;
            }
        }
    }
}

impl Member {
    fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Its metadata for the chosen protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|(name, _)| name == protocol);
        known
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(member_id: &str, protocols: &[&str]) -> Joining {
        Joining {
            member_id: member_id.into(),
            client_id: "test".into(),
            instance_id: None,
            protocol_type: "consumer".into(),
            protocols: protocols
                .iter()
                .map(|name| ((*name).to_owned(), Bytes::new()))
                .collect(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(30),
            id_first: false,
        }
    }

    #[test]
    fn a_second_member_waits_for_the_first_to_join_again() {
        let now = crate::clock::now();
        let mut group = Group::new();
        let first = group
            .join(joining("", &["range", "roundrobin"]), now)
            .unwrap();
        group.answered(&first);
        assert_eq!(
            (group.phase(), group.generation, &group.leader),
            (Phase::Syncing, 1, &first)
        );
        group.assign(vec![(first.clone(), Bytes::from_static(b"all"))]);
        let second = group.join(joining("", &["roundrobin"]), now).unwrap();
        assert!(matches!(group.phase(), Phase::Joining { .. }));
        assert_eq!(group.check(&first, 1), Ok(()));
        assert_eq!(
            group.join(joining("", &["other"]), now),
            Err(Refusal::Error(ResponseError::InconsistentGroupProtocol))
        );
        group
            .join(joining(&first, &["range", "roundrobin"]), now)
            .unwrap();
        assert_eq!(
            (group.phase(), group.generation, group.protocol.as_str()),
            (Phase::Syncing, 2, "roundrobin")
        );
        assert_eq!(
            group.check(&second, 1),
            Err(ResponseError::IllegalGeneration)
        );
        group.answered(&first);
        group.answered(&second);
        group.assign(vec![]);
        assert!(group.leave(&first, now));
        group.join(joining(&second, &["roundrobin"]), now).unwrap();
        assert_eq!((group.generation, &group.leader), (3, &second));
    }

    #[test]
    fn silence_ends_a_membership_and_lateness_a_rebalance() {
        let now = crate::clock::now();
        let mut group = Group::new();
        let first = group.join(joining("", &["range"]), now).unwrap();
        group.answered(&first);
        group.assign(vec![]);
        let later = now + Duration::from_secs(9);
        let second = group.join(joining("", &["range"]), later).unwrap();
        group.tick(now + Duration::from_secs(11));
        assert_eq!(group.members.keys().collect::<Vec<_>>(), [&second]);
        assert_eq!(
            (group.phase(), group.generation, &group.leader),
            (Phase::Syncing, 2, &second)
        );
        let mut ids = joining("", &["range"]);
        ids.id_first = true;
        let Err(Refusal::IdFirst(id)) = group.join(ids, later) else {
            panic!("an id comes first")
        };
        assert!(group.join(joining(&id, &["range"]), later).is_ok());
        assert_eq!(
            group.join(joining("stranger", &["range"]), later),
            Err(Refusal::Error(ResponseError::UnknownMemberId))
        );
    }
}
