//! How long changes take from station to station, as hdrhistograms in microseconds.
//!
//! ```text
//! commit ─► read ─► decoded ─► encoded ─► sent ─► acknowledged
//!   │        └──────── one count per record ────────┘ │
//!   └──────────── one count per row change ───────────┘
//! ```
//! A batch is timed, not a change: its clock readings are shared by all its records, and each of them counts with the time of the batch,
//! so with the wait of its oldest one. A batch that stays open while others are in flight is timed from its first byte. From the commit on
//! it is the source's own clock against this machine's: on two machines the figure holds their difference.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::batch::Batch;

/// Longest time that the histograms tell apart, in microseconds: 142 years, so that no commit since 1970 is too old to be told, whatever backlog
/// it waited in. That takes 344 KiB a histogram (an hour would take 184), of which memory is used where times are counted.
const US_MAX: u64 = (1 << 52) - 1;

/// Transactions of a batch are told apart in so many groups at most, each as old as its oldest: what is noted of a batch in flight must not grow
/// with the number of its transactions.
const COMMITS_MAX: usize = 32;

/// When a batch passed the stations before it was handed to the producer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamps {
    /// The first of its bytes was read.
    pub(super) read: Option<Instant>,
    /// It was sealed.
    pub(super) decoded: Instant,
    /// Its record batches are complete.
    pub(super) encoded: Instant,
}

/// Row changes, and when the oldest of their transactions was committed, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    us: u64,
    changes: u64,
}

impl Commit {
    /// Those of `batch`, where its source says when.
    pub(super) fn of(batch: &Batch) -> Box<[Self]> {
        let transactions = &batch.transactions;
        let first_event = |at: usize| {
            transactions
                .get(at)
                .map_or(batch.events.len(), |next| next.first_event as usize)
        };
        let together = transactions.len().div_ceil(COMMITS_MAX).max(1);
        let groups = (0..transactions.len())
            .step_by(together)
            .zip(transactions.chunks(together));
        groups
            .filter_map(|(at, group)| {
                let changes = first_event(at + group.len()).saturating_sub(first_event(at));
                let us = group
                    .iter()
                    .filter_map(|transaction| transaction.commit_us)
                    .min()?;
                (changes > 0).then_some(Self {
                    us,
                    changes: changes as u64,
                })
            })
            .collect()
    }
}

/// What a run measured.
#[derive(Debug, Clone)]
pub struct Timings {
    /// From the first byte read to acknowledged; a count per record.
    pub total: Histogram<u64>,
    /// From read to decoded: its batch was closed.
    pub decoded: Histogram<u64>,
    /// From decoded to encoded, the wait for memory and for an encoding thread included.
    pub encoded: Histogram<u64>,
    /// From encoded to sent: the last of its record batches was put on the wire.
    pub sent: Histogram<u64>,
    /// From sent to acknowledged, in order: everything before it is, too.
    pub acknowledged: Histogram<u64>,
    /// From the commit by the source's clock to acknowledged by this machine's; a count per row change. Empty where the source does not say
    /// it finely enough.
    pub commit: Histogram<u64>,
    /// Row changes whose commit lay ahead of this machine's clock when they were acknowledged: the clocks differ.
    pub commits_ahead: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            total: histogram(),
            decoded: histogram(),
            encoded: histogram(),
            sent: histogram(),
            acknowledged: histogram(),
            commit: histogram(),
            commits_ahead: 0,
        }
    }
}

impl Timings {
    /// Takes a batch of so many records that was acknowledged at `now`, and when it was sent.
    pub(super) fn record(
        &mut self,
        stamps: &Stamps,
        sent: Option<Instant>,
        now: Instant,
        records: u64,
    ) {
        let sent = sent.unwrap_or(now);
        let read = stamps.read.unwrap_or(stamps.decoded);
        let passed = [
            (&mut self.total, read, now),
            (&mut self.decoded, read, stamps.decoded),
            (&mut self.encoded, stamps.decoded, stamps.encoded),
            (&mut self.sent, stamps.encoded, sent),
            (&mut self.acknowledged, sent, now),
        ];
        for (histogram, from, to) in passed {
            let us = to.saturating_duration_since(from).as_micros();
            let us = u64::try_from(us).unwrap_or(US_MAX);
            histogram.saturating_record_n(us.clamp(1, US_MAX), records);
        }
    }

    /// Takes when a batch's transactions were committed; `now` is the time since 1970 at which it was acknowledged.
    pub(super) fn record_commits(&mut self, commits: &[Commit], now: Duration) {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        for commit in commits {
            if commit.us > now {
                self.commits_ahead += commit.changes;
            }
            let us = now.saturating_sub(commit.us).clamp(1, US_MAX);
            self.commit.saturating_record_n(us, commit.changes);
        }
    }

    /// Adds what another source of the same run measured.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.total, &other.total),
            (&mut self.decoded, &other.decoded),
            (&mut self.encoded, &other.encoded),
            (&mut self.sent, &other.sent),
            (&mut self.acknowledged, &other.acknowledged),
            (&mut self.commit, &other.commit),
        ];
        for (sum, part) in pairs {
            // Fails only where bounds differ, and all are made by one constructor.
            let _ = sum.add(part);
        }
        self.commits_ahead += other.commits_ahead;
    }
}

fn histogram() -> Histogram<u64> {
    // Three significant digits and a fixed range: bounds that the constructor accepts by its own documentation.
    Histogram::new_with_bounds(1, US_MAX, 3)
        .unwrap_or_else(|_| Histogram::new(3).unwrap_or_else(|_| unreachable!()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Event, Operation, Transaction};
    use protocol::Span;

    fn batch(commits: &[(Option<u64>, u32)]) -> Batch {
        let mut batch = Batch::default();
        for (commit_us, rows) in commits {
            batch.transactions.push(Transaction {
                file: Span::NONE,
                offset: 0,
                gtid: Span::NONE,
                commit_us: *commit_us,
                thread: None,
                xid: None,
                previous_commit: None,
                first_event: batch.events.len() as u32,
            });
            for row in 0..*rows {
                batch.events.push(Event {
                    operation: Operation::Create,
                    group: 0,
                    row,
                    before: Span::NONE,
                    after: Span::NONE,
                });
            }
        }
        batch
    }

    #[test]
    fn each_row_counts_with_its_own_commit() {
        let commits = Commit::of(&batch(&[(Some(10), 3), (None, 5), (Some(30), 2)]));
        let expected = [(10, 3), (30, 2)].map(|(us, changes)| Commit { us, changes });
        assert_eq!(*commits, expected);
        assert!(Commit::of(&Batch::default()).is_empty());
    }

    #[test]
    fn many_commits_are_counted_together_and_as_old_as_the_oldest() {
        let many: Vec<_> = (0..1000).map(|n| (Some(5000 - n), 2)).collect();
        let commits = Commit::of(&batch(&many));
        assert!(commits.len() <= COMMITS_MAX, "{}", commits.len());
        assert_eq!(
            commits.iter().map(|commit| commit.changes).sum::<u64>(),
            2000
        );
        // 32 at a time: the first group's last one is its oldest.
        assert_eq!(
            commits[0],
            Commit {
                us: 5000 - 31,
                changes: 64
            }
        );
    }

    #[test]
    fn times_are_between_stations_and_weighted_by_records() {
        let start = crate::clock::now();
        let at = |us| start + Duration::from_micros(us);
        let mut timings = Timings::default();
        let stamps = Stamps {
            read: Some(at(0)),
            decoded: at(100),
            encoded: at(300),
        };
        timings.record(&stamps, Some(at(350)), at(1350), 7);
        let found = [
            &timings.decoded,
            &timings.encoded,
            &timings.sent,
            &timings.acknowledged,
            &timings.total,
        ];
        for (histogram, us) in found.into_iter().zip([100, 200, 50, 1000, 1350]) {
            assert_eq!((histogram.len(), histogram.min()), (7, us));
        }
        // Nothing of a batch was to be sent, and one was acknowledged by a clock that goes back: both count as nothing.
        timings.record(&stamps, None, at(0), 1);
        assert_eq!(timings.acknowledged.min(), 1);
    }

    #[test]
    fn a_commit_that_waited_for_long_is_told() {
        const HOUR: u64 = 3_600_000_000;
        let now = 60 * 365 * 24 * HOUR;
        // The last one's server has not set its clock.
        let ages = [2 * HOUR, 26 * HOUR, 40 * 24 * HOUR, now];
        for age in ages {
            let mut timings = Timings::default();
            let commit = Commit {
                us: now - age,
                changes: 3,
            };
            timings.record_commits(&[commit], Duration::from_micros(now));
            let told = timings.commit.value_at_quantile(0.5);
            assert_eq!(timings.commit.len(), 3);
            assert!(told.abs_diff(age) <= age / 1000, "{told} of {age}");
        }
        // What memory they take at most.
        let timings = Timings::default();
        assert_eq!(timings.commit.distinct_values() * 8, 344 << 10);
    }

    #[test]
    fn a_commit_ahead_of_our_clock_is_counted_as_such() {
        let mut timings = Timings::default();
        let commits = [(1_000, 4), (9_000, 2)].map(|(us, changes)| Commit { us, changes });
        timings.record_commits(&commits, Duration::from_micros(2_500));
        assert_eq!(timings.commit.len(), 6);
        assert_eq!(timings.commit.max(), 1_500);
        assert_eq!((timings.commit.min(), timings.commits_ahead), (1, 2));
    }
}
