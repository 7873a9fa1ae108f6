//! The end of a command from outside: SIGINT or SIGTERM drops what it is doing, so that engines, servers, namespaces and directories
//! that it made go with it. A process that a signal ends at once drops nothing.

use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Outcome;

/// How long a stopped command may take to leave nothing behind.
pub(crate) const LEAVE_MAX: Duration = Duration::from_secs(10);
/// Exit status of a shell for what a signal has ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether a signal has come. What blocks a thread for long has to look: it cannot be dropped.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Does `work` until it ends or a signal comes; then drops it and answers 130 (SIGINT) or 143 (SIGTERM).
///
/// # Errors
/// Those of `work`, or when signals cannot be waited for.
pub(crate) async fn until_asked(work: impl Future<Output = Outcome>) -> Outcome {
    let mut signals = Signals {
        interrupts: signal(SignalKind::interrupt())?,
        terminations: signal(SignalKind::terminate())?,
    };
    let (sender, asked) = tokio::sync::oneshot::channel();
    // A task of its own, because work that blocks keeps this one from looking.
    let watch = tokio::spawn(async move {
        let status = signals.next().await;
        ASKED.store(true, Ordering::Relaxed);
        eprintln!("harness: stopped by a signal, leaving nothing behind");
        let _ = sender.send(status);
        tokio::select! {
            () = tokio::time::sleep(LEAVE_MAX) => {}
            _ = signals.next() => {}
        }
        eprintln!("harness: ended at once; what it started may be left");
        std::process::exit(status.into());
    });
    let outcome = tokio::select! {
        biased;
        Ok(status) = asked => return Ok(ExitCode::from(status)),
        outcome = work => outcome,
    };
    watch.abort();
    outcome
}

struct Signals {
    interrupts: Signal,
    terminations: Signal,
}

impl Signals {
    /// The status that the next signal asks for.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupts.recv() => INTERRUPTED,
            _ = self.terminations.recv() => TERMINATED,
        }
    }
}
