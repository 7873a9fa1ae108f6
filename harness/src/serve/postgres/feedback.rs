//! What a client says while it is streamed to: status updates are checked, confirmed positions kept, requests passed on.
//!
//! ```text
//! CopyData = 'r' written:8 flushed:8 applied:8 clock:8 reply:1         standby status update
//!          | 'h' …                                                     hot standby feedback: read over
//! ```
//! A client that confirms more than it was sent would lose rows after its next start, one that goes back would get them twice. A real
//! server believes both; here each is a complaint of the harness.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::postgres::Lsn;
use tokio::sync::Notify;

use super::error::Failure;
use super::slots::Held;
use super::wire::{Reader, Received};
use crate::serve::stage::{Stage, locked};

/// What the two directions of a stream tell each other.
#[derive(Debug)]
pub(super) struct Feedback {
    /// Everything before it was sent, or is about to be.
    sent: AtomicU64,
    /// The client wants a keepalive.
    pinged: AtomicBool,
    /// The stream shall end at the next message's end.
    stopped: AtomicBool,
    changed: Notify,
    heard: std::sync::Mutex<Instant>,
}

/// Why nothing more is heard from a client.
#[derive(Debug)]
pub(super) enum Heard {
    /// CopyDone: back to commands.
    Done,
    /// It left.
    Gone,
    /// It said what it must not.
    Wrong(Failure),
}

impl Feedback {
    /// A stream that begins at `from`.
    pub(super) fn new(from: Lsn) -> Self {
        Self {
            sent: AtomicU64::new(from.0),
            pinged: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            changed: Notify::new(),
            heard: std::sync::Mutex::new(crate::clock::now()),
        }
    }

    /// Everything before `lsn` is about to be sent.
    pub(super) fn sending(&self, lsn: Lsn) {
        self.sent.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Everything before it was sent.
    pub(super) fn sent(&self) -> Lsn {
        Lsn(self.sent.load(Ordering::Relaxed))
    }

    /// Whether a keepalive is wanted; asked again it is not.
    pub(super) fn take_ping(&self) -> bool {
        self.pinged.load(Ordering::Relaxed) && self.pinged.swap(false, Ordering::Relaxed)
    }

    /// Whether anything makes the sender stop and look.
    pub(super) fn is_urgent(&self) -> bool {
        self.pinged.load(Ordering::Relaxed) || self.is_stopped()
    }

    /// The stream shall end at the next message's end.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Whether it shall.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Waits for a request or the stop.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How long nothing was heard.
    pub(super) fn silence(&self) -> Duration {
        locked(&self.heard).elapsed()
    }
}

/// Listens until the client has nothing more to say.
pub(super) async fn listen(
    reader: &mut Reader,
    feedback: &Feedback,
    held: &Held,
    stage: &Stage,
) -> io::Result<Heard> {
    let mut last = [Lsn::INVALID; 3];
    loop {
        let Some(Received { tag, body }) = reader.receive().await? else {
            return Ok(Heard::Gone);
        };
        *locked(&feedback.heard) = crate::clock::now();
        match (tag, body.as_slice()) {
            (b'd', [b'r', update @ ..]) => {
                let Some((positions, reply)) = read(update) else {
                    return Ok(wrong("a standby status update of a wrong length".into()));
                };
                if let Some(complaint) = judge(positions, last, feedback.sent(), held.confirmed()) {
                    stage.complain(complaint.clone());
                    return Ok(wrong(complaint));
                }
                last = positions;
                if positions[1] != Lsn::INVALID {
                    held.confirm(positions[1]);
                }
                if reply {
                    feedback.pinged.store(true, Ordering::Relaxed);
                    feedback.changed.notify_one();
                }
            }
            (b'd', [b'h', ..]) => {}
            (b'd', other) => {
                let kind = other.first().map_or('?', |byte| *byte as char);
                return Ok(wrong(format!("unexpected message type \"{kind}\"")));
            }
            (b'c', _) => return Ok(Heard::Done),
            (b'X', _) => return Ok(Heard::Gone),
            (other, _) => {
                let what = format!("invalid standby message type \"{}\"", other as char);
                return Ok(wrong(what));
            }
        }
    }
}

fn wrong(what: String) -> Heard {
    Heard::Wrong(Failure::fatal("08P01", what))
}

/// Written, flushed and applied positions, and whether an answer is wanted.
fn read(update: &[u8]) -> Option<([Lsn; 3], bool)> {
    let (positions, rest) = update.split_first_chunk::<24>()?;
    let (_clock, [reply]) = rest.split_first_chunk::<8>()? else {
        return None;
    };
    let mut read = [Lsn::INVALID; 3];
    for (lsn, bytes) in read.iter_mut().zip(positions.as_chunks::<8>().0) {
        *lsn = Lsn(u64::from_be_bytes(*bytes));
    }
    Some((read, *reply != 0))
}

const NAMES: [&str; 3] = ["written", "flushed", "applied"];

/// What is wrong with a status update; 0/0 says nothing and is always right.
fn judge(now: [Lsn; 3], last: [Lsn; 3], sent: Lsn, confirmed: Lsn) -> Option<String> {
    for ((name, now), last) in NAMES.into_iter().zip(now).zip(last) {
        if now == Lsn::INVALID {
            continue;
        }
        if now > sent {
            return Some(format!(
                "the client says it has {name} up to {now}, but was sent only up to {sent}"
            ));
        }
        if now < last {
            return Some(format!(
                "the client goes back: it had {name} up to {last}, and now says {now}"
            ));
        }
    }
    let flushed = now[1];
    (flushed != Lsn::INVALID && flushed < confirmed).then(|| {
        format!(
            "the client goes back: the slot was confirmed up to {confirmed}, and it says {flushed}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirming_too_much_or_less_than_before_is_wrong() {
        let zero = Lsn::INVALID;
        let judged = |now: u64, last: u64| {
            judge(
                [Lsn(now), Lsn(now), zero],
                [Lsn(last), Lsn(last), zero],
                Lsn(100),
                Lsn(50),
            )
        };
        assert_eq!(judged(100, 60), None);
        assert_eq!(judged(0, 60), None);
        assert!(
            judged(101, 60)
                .unwrap()
                .contains("was sent only up to 0/64")
        );
        assert!(judged(59, 60).unwrap().contains("goes back"));
        assert!(
            judged(49, 0)
                .unwrap()
                .contains("slot was confirmed up to 0/32")
        );
    }

    #[test]
    fn status_updates_have_one_length() {
        let mut update = [1_u64, 2, 3, 4].map(u64::to_be_bytes).concat();
        assert_eq!(read(&update), None);
        update.push(1);
        assert_eq!(read(&update), Some(([Lsn(1), Lsn(2), Lsn(3)], true)));
        update.push(0);
        assert_eq!(read(&update), None);
    }
}
