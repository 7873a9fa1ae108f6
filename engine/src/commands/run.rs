//! `walbrook run`: every source of the file into Kafka, until stopped.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::Exit;
use crate::checkpoint::{CheckpointStore, FileStore, StateLock};
use crate::cli::RunArguments;
use crate::clock;
use crate::config::Config;
use crate::pipeline::{self, Outcome, PipelineError, Progress, Until};
use crate::report::{self, Report};
use crate::source::ring;

/// How long threads that are blocked (by a name server that does not answer) keep the process alive when everything else is over.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// Exit status of a process that a signal ends, as shells have it: this and the signal's number.
const KILLED_BY: i32 = 128;

/// How often the progress line is drawn.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Runs until every source has ended or a signal came. One source that halts stops the others too: a process that works half goes
/// unnoticed.
#[must_use]
pub fn run(arguments: &RunArguments, quiet: bool) -> Exit {
    let mut config = match Config::load(&arguments.file.config, &arguments.file.set) {
        Ok(config) => config,
        Err(e) => {
            error!("{e}");
            return Exit::Usage;
        }
    };
    let (io, why_not) = ring::available(config.engine.io);
    config.engine.io = io;
    if let Some(why_not) = why_not {
        warn!("engine.io: no io_uring here ({why_not}): epoll reads the sources");
    }
    let lock = match StateLock::acquire(&config.state) {
        Ok(lock) => lock,
        Err(e) => {
            error!("{e}");
            return Exit::Halted;
        }
    };
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("io")
        .build();
    let exit = match runtime {
        Ok(runtime) => over(runtime, stream(&Arc::new(config), arguments, quiet)),
        Err(e) => {
            error!("cannot start the asynchronous runtime: {e}");
            Exit::Halted
        }
    };
    drop(lock);
    exit
}

/// What `work` came to. Nothing that it left behind is waited for: a runtime that is dropped waits for every blocked thread.
fn over<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(BLOCKED_MAX);
    result
}

async fn stream(config: &Arc<Config>, arguments: &RunArguments, quiet: bool) -> Exit {
    let until = match arguments.until {
        Some(_) => Until::End,
        None => Until::Stopped,
    };
    let (stop, stopped) = watch::channel(false);
    if let Err(e) = stop_on_signals(stop.clone()) {
        error!("cannot listen for signals: {e}");
        return Exit::Halted;
    }
    let store: Arc<dyn CheckpointStore> = Arc::new(FileStore::new(&config.state));
    // Before anything is connected: a damaged checkpoint is to be said at once.
    for source in &config.sources {
        if let Err(e) = store.load(&source.name) {
            error!("{}: {e}", source.name);
            return Exit::Halted;
        }
    }
    let mut pipelines = JoinSet::new();
    let mut shown = Vec::new();
    for (n, source) in config.sources.iter().enumerate() {
        let (progress, watched) = watch::channel(Progress::default());
        shown.push(watched);
        let config = Arc::clone(config);
        let store = Arc::clone(&store);
        let stopped = stopped.clone();
        let name = source.name.to_string();
        pipelines.spawn(async move {
            let settings = &config.sources[n];
            let result = pipeline::run(&config, settings, store, until, stopped, progress).await;
            (name, result)
        });
    }
    let drawing = (!quiet && std::io::stderr().is_terminal()).then(|| tokio::spawn(draw(shown)));
    let (outcomes, exit) = collect(pipelines, &stop).await;
    if let Some(drawing) = drawing {
        drawing.abort();
        // The line is cleared when the bar is dropped with its task.
        drop(drawing.await);
    }
    finish(&outcomes, arguments, exit)
}

/// Awaits every pipeline; the first that fails stops the others.
async fn collect(
    mut pipelines: JoinSet<(String, Result<Option<Outcome>, PipelineError>)>,
    stop: &watch::Sender<bool>,
) -> (Vec<(String, Outcome)>, Exit) {
    let mut outcomes = Vec::new();
    let mut exit = Exit::Done;
    while let Some(ended) = pipelines.join_next().await {
        let failure = match ended {
            Ok((_, Ok(None))) => None,
            Ok((name, Ok(Some(mut outcome)))) => {
                let failure = outcome.error.take().map(|e| format!("{name}: {e}"));
                outcomes.push((name, outcome));
                failure
            }
            Ok((name, Err(e))) => Some(format!("{name}: {e}")),
            Err(e) => Some(format!("a pipeline ended: {e}")),
        };
        if let Some(failure) = failure {
            error!("{failure}");
            exit = Exit::Halted;
            stop.send_replace(true);
        }
    }
    outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
    (outcomes, exit)
}

fn finish(outcomes: &[(String, Outcome)], arguments: &RunArguments, exit: Exit) -> Exit {
    for (name, outcome) in outcomes {
        println!("{}", report::summary_line(name, outcome));
    }
    if let (Some(file), Some(report)) = (&arguments.report, Report::of(outcomes))
        && let Err(e) = report.write(file)
    {
        error!("cannot write the report {}: {e}", file.display());
        return Exit::Halted;
    }
    exit
}

/// The first signal stops everything in order; the second one does not wait for that.
fn stop_on_signals(stop: watch::Sender<bool>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let (name, _) = received(&mut terminate, &mut interrupt).await;
        info!("received {name}");
        stop.send_replace(true);
        let (name, number) = received(&mut terminate, &mut interrupt).await;
        warn!(
            "received {name} while stopping: ending at once; the next start goes on after the last checkpoint"
        );
        std::process::exit(KILLED_BY + number);
    });
    Ok(())
}

/// Name and number of the next signal.
async fn received(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
        _ = interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
    }
}

/// Draws one line for all sources: changes so far, and the rate of the last interval.
async fn draw(shown: Vec<watch::Receiver<Progress>>) {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let _cleared = Cleared(bar.clone());
    let mut before = (clock::now(), 0);
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let changes: u64 = shown.iter().map(|progress| progress.borrow().changes).sum();
        let now = clock::now();
        let seconds = now.saturating_duration_since(before.0).as_secs_f64();
        let rate = (changes - before.1) as f64 / seconds.max(f64::MIN_POSITIVE);
        bar.set_message(format!(
            "{} changes, {}",
            report::grouped(changes),
            report::human_rate(rate)
        ));
        bar.tick();
        before = (now, changes);
    }
}

/// Clears the progress line when its task ends, however it ends.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It would wait for ever, and this test with it.
    #[test]
    fn a_thread_that_is_blocked_for_ever_is_not_waited_for() {
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let runtime = runtime::Builder::new_multi_thread().build().unwrap();
        let answer = over(runtime, async {
            let (blocking, blocks) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = blocking.send(());
                let _ = blocked.recv();
            });
            blocks.await.unwrap();
            7
        });
        assert_eq!(answer, 7);
        drop(release);
    }
}
