//! Network namespaces that this process makes and removes. Their names carry the process id, so that whoever starts next removes what
//! a killed process left behind.
//!
//! Source: ip-netns(8); setns(2) moves one thread, and sockets and devices stay in the namespace they were made in.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sched::{CloneFlags, setns};

use crate::NetemError;

/// Where iproute2 keeps the names.
const NAMES: &str = "/run/netns";
/// What ours begin with.
const PREFIX: &str = "walbrook-";

/// Networks of this process so far.
static NETWORKS: AtomicU64 = AtomicU64::new(0);
/// Before the first of them.
static BEGIN: Once = Once::new();

/// A namespace of ours; removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    file: File,
}

/// The part of the names that all namespaces of one network share. Whatever has such a name before this process gave one away was left by
/// another of the same number, as in a container that was started again, and is removed.
pub(crate) fn network_name() -> String {
    let own = std::process::id();
    BEGIN.call_once(|| remove(|pid| pid == own));
    let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{own}-{number}")
}

/// Runs a program of iproute2 and answers its output.
///
/// # Errors
/// What it wrote to stderr.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> Result<String, NetemError> {
    let failed = |reason: String| NetemError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        reason,
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed("not installed; install iproute2".to_owned()),
            _ => failed(error.to_string()),
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(failed(text.trim().replace('\n', "; ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Namespace {
    /// Makes a namespace with nothing in it but its own loopback interface, which is up.
    ///
    /// # Errors
    /// No privilege, or no `ip`.
    pub(crate) fn create(name: &str) -> Result<Self, NetemError> {
        tool("ip", &["netns", "add", name])?;
        let path = Path::new(NAMES).join(name);
        let file = File::open(&path).map_err(|error| NetemError::system(&path.display(), error))?;
        let namespace = Self {
            name: name.to_owned(),
            file,
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        // Nothing speaks IPv6 in here, so nothing is to announce itself either; kernels without IPv6 have no such switch.
        let _ =
            namespace.within(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"));
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<String, NetemError> {
        tool("ip", &[&["-n", &self.name], arguments].concat())
    }

    /// Calls `what` on a thread of its own inside. Sockets stay in here wherever they are used; processes started there, too.
    ///
    /// # Errors
    /// The thread cannot be started or moved.
    pub(crate) fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name(self.name.clone())
                .spawn_scoped(scope, || {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                    Ok(what())
                })?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = tool("ip", &["netns", "del", &self.name]) {
            tracing::warn!(%error, "a namespace stays behind; the next start removes it");
        }
    }
}

/// Removes the namespaces of processes that are gone.
pub(crate) fn remove_leftovers() {
    remove(|pid| !is_alive(pid));
}

/// Removes the namespaces of ours whose process, by its number, is gone.
fn remove(is_gone: impl Fn(u32) -> bool) {
    let Ok(entries) = std::fs::read_dir(NAMES) else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names.filter(|name| owner(name).is_some_and(&is_gone)) {
        match tool("ip", &["netns", "del", &name]) {
            Ok(_) => tracing::info!(name, "removed the namespace of a process that is gone"),
            Err(error) => tracing::warn!(%error, "the namespace of a process that is gone stays"),
        }
    }
}

/// The process that made the namespace of this name; `None` where it is none of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_owner() {
        let name = format!("{}-k1", network_name());
        assert_eq!(owner(&name), Some(std::process::id()));
        assert!(is_alive(std::process::id()));
        for other in ["walbrook", "walbrook-", "walbrook-x-1", "other-1-2"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn a_failing_tool_says_what_it_said() {
        let error = tool("ip", &["link", "show", "dev", "no-such-device"]);
        let text = error.unwrap_err().to_string();
        assert!(
            text.starts_with("ip link show dev no-such-device:"),
            "{text}"
        );
    }
}
