//! What the server hears from us while it streams: how far its log is safe to forget.
//!
//! ```text
//! checkpoint durable ─► Confirmer ─► task ─► `r` written, flushed, applied = confirmed ─► the slot's confirmed_flush_lsn
//! ```
//! A task of its own writes it, so that the server hears from us also while nothing is read for want of memory: `wal_sender_timeout`
//! (60 s by default) would end the connection otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use protocol::postgres::Lsn;
use protocol::postgres::copy::StatusUpdate;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::line::Writer;
use crate::clock;

/// The server hears from us at least this often, and more often where it has less patience.
const INTERVAL: Duration = Duration::from_secs(5);
/// But not more often than this.
const SHORTEST: Duration = Duration::from_millis(10);
/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What is confirmed, shared by whoever makes it durable and by the task of the present connection.
#[derive(Debug, Default)]
pub(in crate::source) struct Confirmed {
    lsn: AtomicU64,
    changed: Notify,
    closing: AtomicBool,
    asking: AtomicBool,
    /// The last one that has been written to a socket.
    sent: AtomicU64,
    was_sent: Notify,
}

impl Confirmed {
    /// Everything before `lsn` is durable elsewhere. Never goes back.
    pub(in crate::source) fn confirm(&self, lsn: Lsn) {
        if self.lsn.fetch_max(lsn.0, Ordering::AcqRel) < lsn.0 {
            self.changed.notify_one();
        }
    }

    /// Has the server told at once: it asked.
    pub(super) fn answer(&self) {
        self.changed.notify_one();
    }

    /// Asks the server for a sign of life, which says how far its log goes.
    pub(super) fn ask(&self) {
        self.asking.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Waits until what is confirmed has been said, and ends the task.
    pub(in crate::source) async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.changed.notify_one();
        let said = async {
            while self.sent.load(Ordering::Acquire) < self.lsn.load(Ordering::Acquire) {
                self.was_sent.notified().await;
            }
        };
        // A server that does not read is told at the next start.
        let _ = tokio::time::timeout(LAST_WORD, said).await;
    }
}

/// How often a server has to hear from us that waits for `wal_sender_timeout` milliseconds; 0: for ever.
pub(super) fn interval(wal_sender_timeout: Option<i64>) -> Duration {
    let timeout = wal_sender_timeout.and_then(|timeout| u64::try_from(timeout).ok());
    match timeout {
        None | Some(0) => INTERVAL,
        Some(timeout) => (Duration::from_millis(timeout) / 2).clamp(SHORTEST, INTERVAL),
    }
}

/// The task that tells one connection's server.
#[derive(Debug)]
pub(super) struct Feedback(Option<JoinHandle<()>>);

impl Feedback {
    /// Begins to tell the server at the other end of `writer`, at least as often as every `interval`.
    pub(super) fn start(confirmed: Arc<Confirmed>, writer: Writer, interval: Duration) -> Self {
        // Another server may not have heard of it.
        confirmed.sent.store(0, Ordering::Release);
        Self(Some(tokio::spawn(tell(confirmed, writer, interval))))
    }

    /// Leaves the task to itself: it ends with [`Confirmed::close`], or with its connection.
    pub(super) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Feedback {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn tell(confirmed: Arc<Confirmed>, writer: Writer, interval: Duration) {
    loop {
        let closing = confirmed.closing.load(Ordering::Acquire);
        let lsn = confirmed.lsn.load(Ordering::Acquire);
        let mut message = Vec::new();
        let update = StatusUpdate {
            written: Lsn(lsn),
            flushed: Lsn(lsn),
            applied: Lsn(lsn),
            clock_us: clock::since_2000_us(),
            reply: confirmed.asking.swap(false, Ordering::AcqRel),
        };
        update.write(&mut message);
        // A lost connection is the reader's to notice.
        if writer.write(message).await.is_err() {
            return;
        }
        confirmed.sent.store(lsn, Ordering::Release);
        confirmed.was_sent.notify_one();
        if closing {
            return;
        }
        let _ = tokio::time::timeout(interval, confirmed.changed.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_little_patience_hears_from_us_in_time() {
        for (timeout, expected) in [(None, 5_000), (Some(0), 5_000), (Some(60_000), 5_000)] {
            assert_eq!(interval(timeout), Duration::from_millis(expected));
        }
        for timeout in [9_999, 5_000, 1_000, 100] {
            let every = interval(Some(timeout));
            assert_eq!(every * 2, Duration::from_millis(timeout as u64));
        }
        assert_eq!(interval(Some(1)), SHORTEST);
    }
}
