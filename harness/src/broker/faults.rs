//! What the broker is told to do wrong: delays, error codes, dropped connections.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

/// When a connection is dropped, relative to the request that meets the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// The request is read and has no effect.
    Before,
    /// The request takes effect and is never answered: a client that repeats it must not write twice.
    After,
}

/// What one request meets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) delay: Duration,
    pub(super) error: Option<ResponseError>,
    pub(super) drop: Option<Drop>,
}

/// The faults of a broker, shared by all its listeners. Costs one atomic load per request while there are none.
#[derive(Debug, Default)]
pub struct Faults {
    armed: AtomicBool,
    plans: Mutex<Vec<Plan>>,
    drops: AtomicU64,
    in_midst: AtomicU64,
}

/// Connections that requests dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// All of them.
    pub all: u64,
    /// At which answers to earlier requests were still on their way: the client had several on the wire.
    pub in_midst: u64,
}

#[derive(Debug)]
struct Plan {
    api: Option<ApiKey>,
    skip: u64,
    left: u64,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Delay(Duration),
    Error(ResponseError),
    Drop(Drop),
}

impl Faults {
    /// Answers the next `times` requests of `api` with `error` in every topic and partition, without other effect.
    pub fn fail(&self, api: ApiKey, error: ResponseError, times: u64) {
        self.arm(Some(api), 0, times, What::Error(error));
    }

    /// The same after `skip` requests have been answered properly.
    pub fn fail_after(&self, skip: u64, api: ApiKey, error: ResponseError, times: u64) {
        self.arm(Some(api), skip, times, What::Error(error));
    }

    /// Answers every request of `api` (`None`: of all APIs) that much later, in order and without holding up the next request:
    /// what a long line does. Zero ends it.
    pub fn delay(&self, api: Option<ApiKey>, by: Duration) {
        let mut plans = self.plans();
        plans.retain(|plan| !(plan.api == api && matches!(plan.what, What::Delay(_))));
        drop(plans);
        if !by.is_zero() {
            self.arm(api, 0, u64::MAX, What::Delay(by));
        }
    }

    /// Drops the connection at each of the next `times` requests of `api`, after `skip` that are answered.
    pub fn drop_connection(&self, api: ApiKey, when: Drop, skip: u64, times: u64) {
        self.arm(Some(api), skip, times, What::Drop(when));
    }

    /// What has been dropped until now.
    pub fn drops(&self) -> Drops {
        Drops {
            all: self.drops.load(Ordering::Relaxed),
            in_midst: self.in_midst.load(Ordering::Relaxed),
        }
    }

    /// A connection is dropped, some of whose answers wait.
    pub(super) fn dropped(&self, answers_wait: bool) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        self.in_midst
            .fetch_add(u64::from(answers_wait), Ordering::Relaxed);
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.plans().clear();
        self.armed.store(false, Ordering::Release);
    }

    fn arm(&self, api: Option<ApiKey>, skip: u64, left: u64, what: What) {
        self.plans().push(Plan {
            api,
            skip,
            left,
            what,
        });
        self.armed.store(true, Ordering::Release);
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, Vec<Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next request of `api` meets; uses up what it is told.
    pub(super) fn fate(&self, api: ApiKey) -> Fate {
        let mut fate = Fate::default();
        if !self.armed.load(Ordering::Acquire) {
            return fate;
        }
        let mut plans = self.plans();
        for plan in plans
            .iter_mut()
            .filter(|plan| plan.api.is_none_or(|key| key == api))
        {
            if plan.skip > 0 {
                plan.skip -= 1;
                continue;
            }
            match plan.what {
                What::Delay(by) => fate.delay += by,
                What::Error(error) if fate.error.is_none() => fate.error = Some(error),
                What::Drop(when) if fate.drop.is_none() => fate.drop = Some(when),
                // One request meets one error and one drop; the next plan's turn comes with the next request.
                What::Error(_) | What::Drop(_) => continue,
            }
            plan.left -= 1;
        }
        plans.retain(|plan| plan.left > 0);
        self.armed.store(!plans.is_empty(), Ordering::Release);
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_up_in_their_order() {
        let faults = Faults::default();
        faults.fail_after(1, ApiKey::Produce, ResponseError::NotLeaderOrFollower, 1);
        faults.fail(ApiKey::Produce, ResponseError::RequestTimedOut, 1);
        faults.delay(None, Duration::from_millis(5));
        let errors: Vec<_> = (0..3).map(|_| faults.fate(ApiKey::Produce).error).collect();
        assert_eq!(
            errors,
            [
                Some(ResponseError::RequestTimedOut),
                Some(ResponseError::NotLeaderOrFollower),
                None
            ]
        );
        assert_eq!(faults.fate(ApiKey::Fetch).delay, Duration::from_millis(5));
        faults.delay(None, Duration::ZERO);
        assert_eq!(faults.fate(ApiKey::Fetch), Fate::default());
    }
}
