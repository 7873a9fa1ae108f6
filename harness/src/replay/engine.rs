//! The engine as a process, measured from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike as _;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How often memory and processor time are looked at: reading /proc costs about 20 µs.
const SAMPLING: Duration = Duration::from_millis(5);
/// What /proc says of processor time falls short by: a tick each of user and system time.
const TICKS: f64 = 0.02;

/// The engine's program and where it works.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `walbrook`.
    pub program: PathBuf,
    /// Directory of configuration, report and state.
    pub directory: PathBuf,
    /// The emulated host on which it runs; this machine without it.
    pub host: Option<netem::Host>,
}

/// Usage of a process over its life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Peak resident set (VmHWM).
    pub rss_max_bytes: u64,
}

/// What a process used at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// User and system time so far, in seconds.
    pub cpu_seconds: f64,
    /// Resident set.
    pub rss_bytes: u64,
}

/// A running engine.
pub struct Running {
    child: Child,
    pid: u32,
    /// How it ended, and the processor time of its whole life, once it has been waited for.
    awaited: Option<(ExitStatus, f64)>,
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    sampler: Option<std::thread::JoinHandle<Vec<Sample>>>,
}

impl Engine {
    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("walbrook.toml")
    }

    /// The engine's own report.
    pub fn report(&self) -> PathBuf {
        self.directory.join("engine.json")
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> PathBuf {
        self.directory.join("engine.log")
    }

    /// `walbrook run --until end` in its own process.
    ///
    /// # Errors
    /// When it cannot be started or its log not be opened.
    pub fn start(&self) -> std::io::Result<Running> {
        self.spawn(&["--until", "end"])
    }

    /// `walbrook run` in its own process, until it is [terminated](Running::terminate).
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_until_stopped(&self) -> std::io::Result<Running> {
        self.spawn(&[])
    }

    fn spawn(&self, until: &[&str]) -> std::io::Result<Running> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg("-c")
            .arg(self.config())
            .args(until)
            .arg("--report")
            .arg(self.report());
        command
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = match &self.host {
            None => command.spawn()?,
            Some(host) => host.spawn(&mut command)?,
        };
        let pid = child.id();
        let (peak, done) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let sampler = {
            let (peak, done) = (Arc::clone(&peak), Arc::clone(&done));
            std::thread::spawn(move || sample(pid, &peak, &done))
        };
        Ok(Running {
            child,
            pid,
            awaited: None,
            peak,
            done,
            sampler: Some(sampler),
        })
    }

    /// The last line of its log that has `word`.
    pub fn said(&self, word: &str) -> Option<String> {
        let log = fs::read_to_string(self.log()).ok()?;
        let line = log.lines().rfind(|line| line.contains(word))?;
        Some(line.trim().to_owned())
    }

    /// The end of its log, for messages.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()
    }

    /// SIGTERM: it is to stop when everything is acknowledged. One that has ended already is left alone.
    ///
    /// # Errors
    /// Those of the system.
    pub fn terminate(&mut self) -> std::io::Result<()> {
        // Until it has been waited for, its id is nobody else's.
        if self.awaited()?.is_none() {
            kill(Pid::from_raw(self.pid as i32), Signal::SIGTERM)?;
        }
        Ok(())
    }

    /// Waits for its end, at most until `deadline`.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn ended(&mut self, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
        loop {
            let status = self.awaited()?;
            if status.is_some() || crate::clock::now() >= deadline {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Its status, if it has ended.
    ///
    /// The kernel's sum over awaited children grows by what `wait4` would say of this one. Others, a killed broker's JVM or tc, are awaited
    /// at any time, in a thread beside this one even at this moment: /proc, coarser, says what can be its own.
    fn awaited(&mut self) -> std::io::Result<Option<ExitStatus>> {
        // From then on its id may be another's.
        if let Some((status, _)) = self.awaited {
            return Ok(Some(status));
        }
        let only_look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if waitid(Id::Pid(Pid::from_raw(self.pid as i32)), only_look)? == WaitStatus::StillAlive {
            return Ok(None);
        }
        let coarse = processor(&PathBuf::from(format!("/proc/{}/stat", self.pid)));
        let before = children_seconds();
        let status = self.child.wait()?;
        let precise = children_seconds() - before;
        let own = match coarse {
            Some(coarse) if precise > coarse + 2.0 * TICKS => coarse,
            _ => precise,
        };
        self.awaited = Some((status, own));
        Ok(Some(status))
    }

    /// What it used, after [`Running::ended`].
    pub fn usage(mut self) -> (Usage, Vec<Sample>) {
        self.done.store(true, Ordering::Relaxed);
        let samples = self
            .sampler
            .take()
            .and_then(|sampler| sampler.join().ok())
            .unwrap_or_default();
        let usage = Usage {
            cpu_seconds: self.awaited.map_or(0.0, |(_, seconds)| seconds),
            rss_max_bytes: self.peak.load(Ordering::Relaxed),
        };
        (usage, samples)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        // No engine outlives its run; one that has ended is not there to be killed.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Processor time of all children that have been waited for.
fn children_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return 0.0;
    };
    let microseconds =
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    microseconds as f64 / 1e6
}

fn sample(pid: u32, peak: &AtomicU64, done: &AtomicBool) -> Vec<Sample> {
    let status = PathBuf::from(format!("/proc/{pid}/status"));
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    let mut samples = Vec::new();
    while !done.load(Ordering::Relaxed) {
        if let (Some([high, now]), Some(cpu_seconds)) = (memory(&status), processor(&stat)) {
            peak.fetch_max(high, Ordering::Relaxed);
            samples.push(Sample {
                at: crate::clock::now(),
                cpu_seconds,
                rss_bytes: now,
            });
        }
        std::thread::sleep(SAMPLING);
    }
    samples
}

/// VmHWM and VmRSS in bytes.
fn memory(status: &Path) -> Option<[u64; 2]> {
    let text = fs::read_to_string(status).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(
            line.trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<u64>()
                .ok()?
                * 1024,
        )
    };
    Some([field("VmHWM:")?, field("VmRSS:")?])
}

/// User and system time in seconds; ticks are hundredths of a second on every Linux.
fn processor(stat: &Path) -> Option<f64> {
    let text = fs::read_to_string(stat).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use nix::sys::stat::Mode;

    use super::*;

    /// A shell takes the arguments of an engine and runs the script `run`.
    fn scripted(directory: &Path, script: &str) -> Engine {
        fs::write(directory.join("run"), script).unwrap();
        Engine {
            program: "/bin/sh".into(),
            directory: directory.to_owned(),
            host: None,
        }
    }

    const BUSY: &str = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";

    #[tokio::test]
    async fn what_other_children_use_is_not_the_engine_s() {
        let directory = tempfile::tempdir().unwrap();
        let gate = directory.path().join("gate");
        nix::unistd::mkfifo(&gate, Mode::S_IRWXU).unwrap();
        // Both ways, so that opening waits for nobody.
        let gate = fs::OpenOptions::new().read(true).write(true).open(gate);
        let mut gate = gate.unwrap();
        let engine = scripted(directory.path(), "read line < gate\n");
        let mut running = engine.start().unwrap();
        let before = children_seconds();
        let busy = Command::new("/bin/sh").args(["-c", BUSY]).status();
        assert!(busy.unwrap().success());
        let others = children_seconds() - before;
        gate.write_all(b"go\n").unwrap();
        let deadline = crate::clock::now() + Duration::from_secs(60);
        let ended = running.ended(deadline).await.unwrap();
        assert!(ended.unwrap().success(), "{}", engine.last_words());
        let (usage, _) = running.usage();
        let own = usage.cpu_seconds;
        assert!(own > 0.0 && own < others / 2.0, "{own} s of {others} s");
    }

    #[tokio::test]
    async fn what_the_engine_uses_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let engine = scripted(directory.path(), BUSY);
        let mut running = engine.start().unwrap();
        let deadline = crate::clock::now() + Duration::from_secs(60);
        let ended = running.ended(deadline).await.unwrap();
        assert!(ended.unwrap().success(), "{}", engine.last_words());
        // Once more: it has been waited for.
        assert!(running.ended(deadline).await.unwrap().is_some());
        running.terminate().unwrap();
        let (usage, samples) = running.usage();
        let seen = samples.last().map_or(0.0, |sample| sample.cpu_seconds);
        assert!(usage.cpu_seconds > 0.0 && usage.cpu_seconds >= seen);
    }
}
