//! When faults happen: by the number of changes that have arrived, and their ends by the clock. Those of the link to the source
//! are not here: the replay server makes them itself, at the very place in the stream.

use std::time::{Duration, Instant};

use super::scenario::{Deed, Fault, Link, Scenario, Way};

/// The beginning or the end of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// What happens.
    pub(super) deed: Deed,
    /// On which link, where the deed concerns one.
    pub(super) link: Link,
    /// With `drop_one_way`: which way.
    pub(super) way: Option<Way>,
    /// With `rate`: bits per second.
    pub(super) rate_bits: Option<u64>,
    /// How long it lasts.
    pub(super) length: Duration,
    /// Whether it begins (or is over at once); `false` when it ends.
    pub(super) starts: bool,
}

/// What is still to happen.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Beginnings by number of changes, the next one last.
    beginnings: Vec<(u64, Fault)>,
    ends: Vec<(Instant, Event)>,
}

impl Schedule {
    /// The moments of the scenario's faults in a stream of `changes` changes.
    pub(super) fn new(scenario: &Scenario, changes: u64) -> Schedule {
        let faults = scenario
            .fault
            .iter()
            .filter(|fault| !scenario.is_served(fault));
        let moments = |fault: &Fault| -> Vec<(u64, Fault)> {
            fault
                .moments(changes)
                .into_iter()
                .map(|at| (at, fault.clone()))
                .collect()
        };
        let mut beginnings: Vec<(u64, Fault)> = faults.flat_map(moments).collect();
        beginnings.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Schedule {
            beginnings,
            ends: Vec::new(),
        }
    }

    /// The ends of what has begun and lasts.
    pub(super) fn ends(&mut self) -> Vec<Event> {
        self.ends.drain(..).map(|(_, event)| event).collect()
    }

    /// What happens now that `changes` have arrived. At most one beginning at a time: kills that fall together would be one.
    pub(super) fn due(&mut self, changes: u64) -> Vec<Event> {
        let now = crate::clock::now();
        let mut due: Vec<Event> = Vec::new();
        self.ends.retain(|(at, event)| {
            let over = *at <= now;
            if over {
                due.push(*event);
            }
            !over
        });
        if self.beginnings.last().is_some_and(|(at, _)| *at <= changes)
            && let Some((_, fault)) = self.beginnings.pop()
        {
            let event = Event {
                deed: fault.deed,
                link: fault.link,
                way: fault.way,
                rate_bits: fault.rate_mbit.map(|rate| (rate * 1e6) as u64),
                length: Duration::from_millis(fault.for_ms),
                starts: true,
            };
            let is_over = matches!(fault.deed, Deed::Cut | Deed::KillEngine | Deed::MoveLeader);
            if !is_over {
                self.ends.push((
                    now + event.length,
                    Event {
                        starts: false,
                        ..event
                    },
                ));
            }
            due.push(event);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_begin_by_changes_and_end_by_the_clock() {
        let text = "[[source]]\nrecording = \"x\"\n\
            [[fault]]\nat_changes = 10\nlink = \"kafka\"\ndo = \"stall\"\nfor_ms = 0\n\
            [[fault]]\nat_changes = 5\ndo = \"kill_engine\"\nfor_ms = 0\n\
            [[fault]]\nat_changes = 5\ndo = \"cut\"\n";
        let scenario: Scenario = toml::from_str(text).unwrap();
        let mut schedule = Schedule::new(&scenario, 100);
        assert_eq!(schedule.due(4), []);
        let begins = |deed| Event {
            deed,
            link: match deed {
                Deed::Stall => Link::Kafka,
                _ => Link::Source,
            },
            way: None,
            rate_bits: None,
            length: Duration::ZERO,
            starts: true,
        };
        assert_eq!(schedule.due(20), [begins(Deed::KillEngine)]);
        assert_eq!(schedule.due(20), [begins(Deed::Stall)]);
        assert_eq!(
            schedule.due(20),
            [Event {
                starts: false,
                ..begins(Deed::Stall)
            }]
        );
        assert_eq!(schedule.due(100), []);
    }
}
