//! The lock file that keeps two engines off one state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use super::CheckpointError;

/// Name of the lock file in the state directory. It stays when the process ends; the lock does not.
const FILE_NAME: &str = "lock";

/// An exclusive lock on a state directory, held until dropped. The operating system releases it when the process dies, however it
/// dies, so that a stale lock cannot exist.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

impl StateLock {
    /// Creates the directory when it is missing, and locks it.
    ///
    /// # Errors
    /// [`CheckpointError::InUse`] naming the process that holds it, or what the file system refused.
    pub fn acquire(dir: &Path) -> Result<Self, CheckpointError> {
        let io = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |cause| CheckpointError::Io { doing, path, cause }
        };
        std::fs::create_dir_all(dir).map_err(io("create state directory", dir))?;
        let path = dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut pid);
                let pid = match pid.trim() {
                    "" => "unknown".to_owned(),
                    text => text.to_owned(),
                };
                return Err(CheckpointError::InUse {
                    dir: dir.to_path_buf(),
                    pid,
                });
            }
            Err(TryLockError::Error(cause)) => {
                return Err(CheckpointError::Io {
                    doing: "lock",
                    path,
                    cause,
                });
            }
        }
        // The pid is for the message of whoever comes second. On a full disk it is missing there, and nothing else suffers.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let first = StateLock::acquire(&state).unwrap();
        let refused = StateLock::acquire(&state).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains(&format!("in use by process {}", std::process::id())),
            "{text}"
        );
        drop(first);
        StateLock::acquire(&state).unwrap();
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = StateLock::acquire(file.path()).unwrap_err().to_string();
        assert!(
            text.starts_with("cannot create state directory /"),
            "{text}"
        );
    }
}
