//! Which ends of partitions count: those after which nothing of ours has come for a while, whatever others write.
//!
//! ```text
//!  ends   E0      E1      E2          E5
//!  ───────┴───────┴───────┴─────…─────┴──►   high watermarks have come to each before the next are asked for
//!         └ ours? ┴ ours? ┴  …  ours? ┘      none of ours for 300 ms: E5 are the ends
//! ```
//! Requests of the process that died may still be on their way, so that one look is not enough. Other producers may write to the same
//! topics for ever: what they add is read, and does not count.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{info, warn};

use crate::clock;

use super::super::backoff::Backoff;
use super::super::connection::Fault;
use super::super::dispatch::PartitionKey;
use super::super::error::ProducerError;
use super::{Ends, IsOurs, LOOK_EVERY, Reader, SETTLE};

/// After how long the log tells what a start waits for.
const QUIET_UNTIL_TOLD: Duration = Duration::from_secs(5);

impl Reader<'_> {
    /// The ends of the partitions that exist, once nothing of ours has come behind them for [`SETTLE`]; high watermarks are there.
    pub(super) async fn settled(
        &mut self,
        keys: &[PartitionKey],
        is_ours: IsOurs<'_>,
    ) -> Result<Ends, ProducerError> {
        let mut backoff = Backoff::new(LOOK_EVERY, Duration::from_secs(2));
        let mut last: Option<Ends> = None;
        let mut quiet = Quiet::default();
        let mut notice = Notice::new();
        loop {
            let asked = clock::now();
            let ends = match self.reached(keys, &mut notice).await {
                Ok(ends) => ends,
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing(reason)) => {
                    if backoff.attempts() == 3 {
                        warn!(%reason, "the ends of partitions cannot be read yet, retrying until they can");
                    }
                    self.forget();
                    last = None;
                    sleep(backoff.pause()).await;
                    continue;
                }
            };
            let answered = clock::now();
            let ours = match &last {
                Some(last) => self.has_ours(last, &ends, is_ours).await?,
                None => true,
            };
            if quiet.is_over(asked, answered, ours) {
                return Ok(ends);
            }
            notice.tell();
            last = Some(ends);
            sleep(LOOK_EVERY).await;
        }
    }

    /// Where logs end now, once high watermarks have come there, so that it can be fetched. Others may write on meanwhile.
    async fn reached(&mut self, keys: &[PartitionKey], notice: &mut Notice) -> Result<Ends, Fault> {
        let mut now = self.ends(keys).await?;
        let mut ends: Ends = now.iter().map(|(key, end)| (*key, end.log())).collect();
        loop {
            let is_reached = |(key, end): (&PartitionKey, &i64)| {
                now.get(key).is_some_and(|now| now.watermark >= *end)
            };
            if ends.iter().all(is_reached) {
                return Ok(ends);
            }
            notice.tell();
            sleep(LOOK_EVERY).await;
            now = self.ends(keys).await?;
            // Who leads since may have less of what was never confirmed.
            ends.retain(|key, end| match now.get(key) {
                Some(now) => {
                    *end = (*end).min(now.log());
                    true
                }
                None => false,
            });
        }
    }

    /// Whether something of ours lies between two looks, or that cannot be known because logs were cut.
    async fn has_ours(
        &mut self,
        before: &Ends,
        now: &Ends,
        is_ours: IsOurs<'_>,
    ) -> Result<bool, ProducerError> {
        if !before.keys().eq(now.keys()) {
            return Ok(true);
        }
        let mut ours = false;
        for ((key, from), end) in before.iter().zip(now.values()) {
            let mut look = |record: super::TailRecord<'_>| ours |= is_ours(&record);
            let read_to = match from <= end {
                true => self.fetch_all(*key, *from, *end, &mut look).await?,
                false => *end,
            };
            if ours || read_to < *end || end < from {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// How long nothing of ours has come.
#[derive(Debug, Default)]
struct Quiet {
    since: Option<Instant>,
}

impl Quiet {
    /// Whether ends that were asked for and answered then count. `ours`: something of ours may have come since the ends before.
    fn is_over(&mut self, asked: Instant, answered: Instant, ours: bool) -> bool {
        match self.since {
            Some(since) if !ours => asked.saturating_duration_since(since) >= SETTLE,
            _ => {
                self.since = Some(answered);
                false
            }
        }
    }
}

/// Tells once what a start waits for.
struct Notice {
    started: Instant,
    told: bool,
}

impl Notice {
    fn new() -> Self {
        Self {
            started: clock::now(),
            told: false,
        }
    }

    fn tell(&mut self) {
        let waited = clock::now().saturating_duration_since(self.started);
        if !self.told && waited > QUIET_UNTIL_TOLD {
            self.told = true;
            info!(
                "waiting until followers have what leaders have, and until nobody writes as we did: is the engine before this one still \
                 running?"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_starts_the_wait_anew() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut quiet = Quiet::default();
        assert!(!quiet.is_over(at(0), at(5), true), "the first look");
        assert!(!quiet.is_over(at(250), at(400), false), "asked too early");
        assert!(!quiet.is_over(at(310), at(320), true));
        assert!(!quiet.is_over(at(600), at(610), false));
        assert!(quiet.is_over(at(620), at(630), false));
    }
}
