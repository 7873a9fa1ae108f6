//! Where a restart goes on, and what it has to know to write nothing twice.
//!
//! A checkpoint says: every record before `position` is acknowledged by Kafka. It is durable before it is fed back upstream. What was
//! written after it is found in the topics: from `offsets` on, in records of `producers` (see [`crate::settled`]).
//!
//! Today there is one store, files in the state directory ([`FileStore`]). The trait is here from the start because a
//! transactional producer will keep checkpoints in Kafka, next to the records they speak of.

mod file;
mod ledger;
mod lock;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use crate::position::Position;
use crate::source::Identity;

pub use file::FileStore;
pub use ledger::{Ledger, Resume};
pub use lock::StateLock;

/// The durable Position of one source, and what deduplication after a restart needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything before it is acknowledged by Kafka. Always between two transactions.
    pub position: Position,
    /// The server that the position was read from; `None` when the operator set the position.
    pub server: Option<Identity>,
    /// Digest of what decides which row goes to which partition (`tables`, `topic`); empty when the operator set the
    /// position. With another one there is no dedupe.
    pub selection: String,
    /// The Kafka cluster that `producers` and `offsets` belong to; `None` where it is not known.
    pub cluster: Option<String>,
    /// Producer ids whose records may lie behind `offsets`, each with the servers that it wrote changes of. Saved before the first
    /// record of a new id is sent.
    pub producers: BTreeMap<i64, BTreeSet<String>>,
    /// Per topic and partition an offset before which every record belongs to changes before `position`; for every partition that a
    /// topic had when it was first used. Empty: no dedupe.
    pub offsets: BTreeMap<String, BTreeMap<i32, i64>>,
}

impl Checkpoint {
    /// A checkpoint that the operator set: a position and nothing else, so that a start from it writes whatever comes.
    #[must_use]
    pub fn set_by_operator(position: Position) -> Self {
        Self {
            position,
            server: None,
            selection: String::new(),
            cluster: None,
            producers: BTreeMap::new(),
            offsets: BTreeMap::new(),
        }
    }
}

/// Where checkpoints live. Calls block (an fsync): asynchronous callers use a blocking thread.
pub trait CheckpointStore: Debug + Send + Sync {
    /// The checkpoint of `source`; `None` when there is none.
    ///
    /// # Errors
    /// It is there but cannot be read or is damaged: never a reason to start elsewhere.
    fn load(&self, source: &str) -> Result<Option<Checkpoint>, CheckpointError>;

    /// Replaces the checkpoint of `source`. When it returns, the new one is durable; when it fails, the old one stands.
    ///
    /// # Errors
    /// The store cannot take it (full, read-only, gone).
    fn save(&self, source: &str, checkpoint: &Checkpoint) -> Result<(), CheckpointError>;

    /// Forgets the checkpoint of `source`; `false` when there was none.
    ///
    /// # Errors
    /// The store cannot do it.
    fn remove(&self, source: &str) -> Result<bool, CheckpointError>;
}

/// Why a checkpoint could not be read or written. All of them halt; none loses anything.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Somebody else holds the lock of the state directory.
    #[error(
        "state directory {dir} is in use by process {pid}: one engine at a time; stop that process, or give this one another `state` directory",
        dir = .dir.display()
    )]
    InUse {
        /// The state directory.
        dir: PathBuf,
        /// What the lock file says; `unknown` when it says nothing.
        pid: String,
    },
    /// The file is there and cannot be trusted.
    #[error(
        "checkpoint {path} is damaged ({why}) and is not used; restore the file, or choose where to go on with `walbrook position set` or `walbrook position reset`",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A later version of walbrook wrote it.
    #[error(
        "checkpoint {path} has format {version}, this walbrook reads format {ours} and below; use the version that wrote it",
        path = .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The newest that we read.
        ours: u32,
    },
    /// The file system refused.
    #[error(
        "cannot {doing} {path}: {cause}{advice}",
        path = .path.display(), advice = advice(.cause)
    )]
    Io {
        /// What was tried, e.g. `save checkpoint`.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
}

/// What the operator can do about a refusal of the file system.
fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; nothing is lost: the last checkpoint stands; free some space and start again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; nothing is lost: the last checkpoint stands; make the file system writable, or move the `state` directory, and start again"
        }
        io::ErrorKind::PermissionDenied => {
            "; give this user read and write permission on the `state` directory, or name another one"
        }
        _ => "",
    }
}
