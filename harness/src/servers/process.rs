//! A server's process: started under a watcher that outlives nobody, ended as by a crash.

use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{ServerError, registry};

/// How long the watcher may take to say which process it has started.
const SPAWN_MAX: Duration = Duration::from_secs(10);
/// Lines of a log that an error shows.
const LOG_LINES: usize = 12;

/// Waits until its standard input is closed, which happens however its parent ends, then ends the server at once.
const WATCHER: &str = r#"trap '' INT TERM HUP
signal=$1; log=$2; pid=$3; shift 3
"$@" </dev/null >>"$log" 2>&1 &
echo $! >"$pid.new" && mv "$pid.new" "$pid"
read -r _
kill -s "$signal" $! 2>/dev/null
wait"#;

/// The same without a parent to wait for: stays until `servers down`.
const STANDING: &str = r#"log=$2; pid=$3; shift 3
"$@" </dev/null >>"$log" 2>&1 &
echo $! >"$pid.new" && mv "$pid.new" "$pid""#;

/// How a server's first process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `kill -9`.
    Kill,
    /// SIGQUIT: it ends its children.
    Quit,
}

impl End {
    fn signal(self) -> &'static str {
        match self {
            End::Kill => "KILL",
            End::Quit => "QUIT",
        }
    }
}

/// The process of the instance in a directory, which has its `log` and `pid`.
#[derive(Debug)]
pub(super) struct Process {
    directory: PathBuf,
    /// The emulated host on which it runs; this machine without it.
    host: Option<netem::Host>,
    watcher: Option<Child>,
}

impl Process {
    /// Not started yet; on this machine.
    pub(super) fn new(directory: PathBuf) -> Process {
        Process::on(None, directory)
    }

    /// Not started yet; on an emulated host, if one is given.
    pub(super) fn on(host: Option<netem::Host>, directory: PathBuf) -> Process {
        Process {
            directory,
            host,
            watcher: None,
        }
    }

    /// Data, log and socket.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts `command`; it ends with this process, unless it is to stay (`standing`).
    pub(super) fn spawn(
        &mut self,
        command: &[String],
        end: End,
        standing: bool,
    ) -> Result<(), ServerError> {
        use std::os::unix::process::CommandExt as _;
        let raw_pid = self.directory.join("pid.raw");
        let _ = fs::remove_file(&raw_pid);
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(if standing { STANDING } else { WATCHER })
            .arg("walbrook-server")
            .arg(end.signal())
            .arg(self.directory.join("log"))
            .arg(&raw_pid)
            .args(command);
        shell.stdin(if standing {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        // Its own process group: an interrupt at the terminal is for us, and we end it.
        shell
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let spawned = match &self.host {
            None => shell.spawn(),
            Some(host) => host.spawn(&mut shell),
        };
        let mut child =
            spawned.map_err(|error| ServerError::Install(format!("cannot run sh: {error}")))?;
        if standing {
            let _ = child.wait();
        } else {
            self.watcher = Some(child);
        }
        let deadline = crate::clock::now() + SPAWN_MAX;
        while !raw_pid.exists() && crate::clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = fs::read_to_string(&raw_pid).map_err(ServerError::io(&raw_pid))?;
        let pid = text
            .trim()
            .parse()
            .map_err(|_| ServerError::Install(format!("no process id in {}", raw_pid.display())))?;
        registry::note(&self.directory.join("pid"), pid)
    }

    /// Its pid, if it runs.
    pub(super) fn running(&self) -> Option<i32> {
        registry::running(&self.directory)
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        registry::end(&self.directory);
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
    }

    /// The last lines of its log.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// So many different ports of `host` that nobody listens on; somebody may, before we do.
pub(super) fn free_ports(host: IpAddr, count: usize) -> Result<Vec<u16>, ServerError> {
    let shown = host.to_string();
    let wrong = || ServerError::io(Path::new(&shown));
    // All are held until the last is found, so that none is found twice.
    let listeners = (0..count)
        .map(|_| TcpListener::bind((host, 0)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong())?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr().map_err(wrong())?.port()))
        .collect()
}
