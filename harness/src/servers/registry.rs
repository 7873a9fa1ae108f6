//! What runs: one directory per instance, and how to tell whether anybody still wants it.
//!
//! ```text
//! TMP/walbrook-servers-UID/
//!   NAME/            NAME: up-mysql for `servers up`, otherwise flavour-PID-COUNT
//!     owner          pid and start time of the process that holds the Server; absent for `up` instances
//!     pid            pid and start time of the server
//!     url            how to reach it
//!     data/ tmp/ log socket
//! ```
//!
//! A pid alone may have been given to somebody else since: the start time (field 22 of /proc/PID/stat) tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Flavour, ServerError};

/// The directory of this user's instances, created.
pub(super) fn directory() -> Result<PathBuf, ServerError> {
    let path = std::env::temp_dir().join(format!("walbrook-servers-{}", nix::unistd::getuid()));
    fs::create_dir_all(&path).map_err(ServerError::io(&path))?;
    Ok(path)
}

/// The directory of the instance that `servers up` starts.
pub(super) fn standing_directory(flavour: Flavour) -> Result<PathBuf, ServerError> {
    Ok(directory()?.join(format!("up-{}", flavour.name())))
}

/// The URL of the instance that `servers up` started, if it still runs.
pub(super) fn standing(flavour: Flavour) -> Option<String> {
    let directory = standing_directory(flavour).ok()?;
    alive(&directory.join("pid"))?;
    fs::read_to_string(directory.join("url"))
        .ok()
        .map(|url| url.trim().to_owned())
}

/// Ends the instance that `servers up` started and removes its data.
pub(super) fn down(flavour: Flavour) -> Result<(), ServerError> {
    remove(&standing_directory(flavour)?);
    Ok(())
}

/// Ends the instances of processes that no longer run.
pub(super) fn remove_leftovers() {
    let Ok(directory) = directory() else { return };
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let wanted = match path.join("owner").exists() {
            true => alive(&path.join("owner")).is_some(),
            // An `up` instance without a pid file is just being started; one whose server is dead is of no use to anybody.
            false => !path.join("pid").exists() || alive(&path.join("pid")).is_some(),
        };
        if !wanted {
            tracing::info!("removing what {} left", path.display());
            remove(&path);
        }
    }
}

/// The server's pid, if it runs.
pub(super) fn running(directory: &Path) -> Option<i32> {
    alive(&directory.join("pid"))
}

/// Kills the server of `directory`, waits until it is gone, removes the directory.
pub(super) fn remove(directory: &Path) {
    end(directory);
    let _ = fs::remove_dir_all(directory);
}

/// Ends the server of `directory` as a crash would, and waits until it is gone.
///
/// PostgreSQL is many processes and a segment of shared memory: SIGQUIT has its first process end the others without a checkpoint
/// and release the memory; killed itself it could do neither.
pub(super) fn end(directory: &Path) {
    let signals = match directory.join("data/PG_VERSION").exists() {
        true => [Signal::SIGQUIT, Signal::SIGKILL].as_slice(),
        false => [Signal::SIGKILL].as_slice(),
    };
    for signal in signals {
        if ends_by(directory, *signal, Duration::from_secs(10)) {
            return;
        }
    }
}

/// Sends `signal` to the server of `directory`, and whether it is gone within `patience`.
pub(super) fn ends_by(directory: &Path, signal: Signal, patience: Duration) -> bool {
    const PAUSE: Duration = Duration::from_millis(10);
    let file = directory.join("pid");
    let Some(pid) = alive(&file) else { return true };
    let _ = kill(Pid::from_raw(pid), signal);
    let mut waited = Duration::ZERO;
    while alive(&file).is_some() {
        if waited >= patience {
            return false;
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
    true
}

/// Notes `pid` with its start time in `file`.
pub(super) fn note(file: &Path, pid: u32) -> Result<(), ServerError> {
    let started = start_time(pid as i32).unwrap_or_default();
    fs::write(file, format!("{pid} {started}")).map_err(ServerError::io(file))
}

/// The pid noted in `file`, if that very process still runs.
fn alive(file: &Path) -> Option<i32> {
    let text = fs::read_to_string(file).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid: i32 = pid.parse().ok()?;
    (start_time(pid)? == started).then_some(pid)
}

/// Field 22 of /proc/PID/stat, unless the process is a zombie; the name in field 2 may hold blanks and parentheses.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then_some(())?;
    fields.get(19).map(|time| (*time).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("owner");
        note(&file, std::process::id()).unwrap();
        assert_eq!(alive(&file), Some(std::process::id() as i32));
        fs::write(&file, format!("{} 1", std::process::id())).unwrap();
        assert_eq!(alive(&file), None);
    }
}
