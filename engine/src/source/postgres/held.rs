//! Transactions that come before their end: in pieces while they are still open, or prepared for a commit in two phases.
//!
//! ```text
//! S x ─ rows ─ E │ others │ S x ─ rows ─ E │ A x/part │ others │ c x      in pieces: read back at c, without what A took away
//! b x ─ rows ─ P │ others │ K x                                           in two phases: read back at K (never after r x)
//! S x ─ rows ─ E │ others │ p x │ others │ K x                            both
//!  └── the position that checkpoints keep stays before the earliest P or p that is not decided
//! ```
//! Until then they are on disk, in `STATE/NAME.held/NUMBER`, message by message:
//!
//! ```text
//! length 4 | transaction or part 4 | LSN 8 | message, as it is outside of Stream Start and Stream Stop          big endian
//! ```
//! A server sends open transactions again in every session, from their beginning: pieces go with the session. Prepared ones it does not
//! send again to a session that begins behind their P: they stay. A restart begins before the earliest of them:
//!
//! ```text
//! P a ─ P b ─ K a ─ (restart: from before P b) ─ K a, whose rows came out the first time
//! ```
//! `STATE/NAME.held-decided` says up to where such commits are done with. Any other K without its rows would lose them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::postgres::Lsn;
use protocol::postgres::pgoutput::Commit;

use crate::source::SourceError;
use crate::source::spill::{self, Kept, Spill, Whose};

const WHOSE: Whose = Whose {
    one: "a transaction that is not committed",
    advice: "end what is open on the server (pg_stat_activity, pg_prepared_xacts), or set streaming = \"off\", which leaves it there",
};

/// Length, part, LSN, and the kind that the message begins with.
const HEADER: usize = 4 + 4 + 8 + 1;

/// A set of transaction ids: a bit each, because the parts of one transaction have ids close to each other.
#[derive(Debug, Clone, Default)]
struct Xids(BTreeMap<u32, u64>);

impl Xids {
    fn insert(&mut self, xid: u32) {
        *self.0.entry(xid >> 6).or_default() |= 1 << (xid & 63);
    }

    fn contains(&self, xid: u32) -> bool {
        let word = self.0.get(&(xid >> 6)).copied().unwrap_or_default();
        word & (1 << (xid & 63)) != 0
    }
}

/// What has come of a transaction.
#[derive(Debug)]
struct Pieces {
    kept: Kept,
    aborted: Arc<Xids>,
}

/// A transaction that is prepared and not decided.
#[derive(Debug)]
struct Prepared {
    pieces: Pieces,
    gid: Box<str>,
    /// From where a session gets it again.
    before: Lsn,
}

/// The transaction whose rows arrive.
#[derive(Debug)]
struct Arriving {
    xid: u32,
    file: spill::Writer,
    aborted: Arc<Xids>,
    /// Whether it stands between Stream Start and Stream Stop, otherwise between Begin Prepare and Prepare.
    in_pieces: bool,
}

/// A committed transaction while it is read back, as the store knows it.
#[derive(Debug)]
struct Replaying {
    xid: u32,
    pieces: Pieces,
    /// Its name, and from where a session gets it again, where it was prepared.
    prepared: Option<(Box<str>, Lsn)>,
}

/// A committed transaction that is read back.
#[derive(Debug)]
pub(super) struct Replay {
    file: spill::Reader,
    aborted: Arc<Xids>,
    pub(super) commit: Commit,
}

impl Replay {
    /// Appends the next message that counts to `out`, and says where it stands; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold what was written.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Lsn>, SourceError> {
        while let Some(header) = self.file.array::<HEADER>()? {
            let [a, b, c, d, e, f, g, h, lsn @ .., kind] = header;
            let length = u32::from_be_bytes([a, b, c, d]);
            let part = u32::from_be_bytes([e, f, g, h]);
            let rest = length.checked_sub(1).ok_or_else(|| self.file.damaged())?;
            // A description stays what the session was told, whatever became of the part that it came with.
            if kind != b'R' && self.aborted.contains(part) {
                self.file.skip(rest)?;
                continue;
            }
            out.push(kind);
            if self.file.append(out, rest as usize)? < rest as usize {
                return Err(self.file.damaged());
            }
            return Ok(Some(Lsn(u64::from_be_bytes(lsn))));
        }
        Ok(None)
    }
}

/// All transactions of the stream that have come and not ended.
#[derive(Debug)]
pub(super) struct Store {
    spill: Spill,
    arriving: Option<Arriving>,
    open: HashMap<u32, Pieces>,
    prepared: HashMap<u32, Prepared>,
    replaying: Option<Replaying>,
    /// Commits of prepared transactions up to here are done with, also where a restart begins behind their rows.
    decided: Lsn,
    decided_path: PathBuf,
}

impl Store {
    /// A store in `STATE/NAME.held`, emptied; the directory is made when it is first needed. `continued`: the stream goes on after
    /// a checkpoint of an earlier run, not at a place that the operator chose.
    ///
    /// # Errors
    /// What an earlier process left cannot be removed.
    pub(super) fn open(state: &Path, name: &str, continued: bool) -> Result<Self, SourceError> {
        let decided_path = state.join(format!("{name}.held-decided"));
        let decided = match fs::read_to_string(&decided_path) {
            // What cannot be read is as if nothing had been noted, which loses nothing.
            Ok(text) if continued => text.trim().parse().unwrap_or(Lsn::INVALID),
            Ok(_) => {
                fs::remove_file(&decided_path).map_err(|error| disk(&decided_path, error))?;
                Lsn::INVALID
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lsn::INVALID,
            Err(error) => return Err(disk(&decided_path, error)),
        };
        Ok(Self {
            spill: Spill::open(state.join(format!("{name}.held")), WHOSE)?,
            arriving: None,
            open: HashMap::new(),
            prepared: HashMap::new(),
            replaying: None,
            decided,
            decided_path,
        })
    }

    /// Begins a session: what was open comes again, from its beginning, and so does a commit that was being read back.
    pub(super) fn begin_session(&mut self) {
        match self.replaying.take() {
            Some(Replaying {
                xid,
                pieces,
                prepared: Some((gid, before)),
            }) => {
                let prepared = Prepared {
                    pieces,
                    gid,
                    before,
                };
                self.prepared.insert(xid, prepared);
            }
            Some(Replaying { pieces, .. }) => self.spill.remove(pieces.kept),
            None => {}
        }
        if let Some(arriving) = self.arriving.take() {
            arriving.file.discard();
        }
        for (_, pieces) in self.open.drain() {
            self.spill.remove(pieces.kept);
        }
    }

    /// Whether the messages that come are to be kept; then, whether they are a piece's.
    #[inline]
    pub(super) fn arriving(&self) -> Option<bool> {
        self.arriving.as_ref().map(|arriving| arriving.in_pieces)
    }

    /// A piece of transaction `xid` begins. False where earlier pieces are missing.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn start(&mut self, xid: u32, is_first: bool) -> Result<bool, SourceError> {
        let (file, aborted) = match (self.open.remove(&xid), is_first) {
            (Some(pieces), false) => (self.spill.resume(pieces.kept)?, pieces.aborted),
            (None, false) => return Ok(false),
            (earlier, true) => {
                if let Some(pieces) = earlier {
                    self.spill.remove(pieces.kept);
                }
                (self.spill.create()?, Arc::default())
            }
        };
        self.arriving = Some(Arriving {
            xid,
            file,
            aborted,
            in_pieces: true,
        });
        Ok(true)
    }

    /// A transaction begins that ends with being prepared.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn start_prepare(&mut self, xid: u32) -> Result<(), SourceError> {
        self.arriving = Some(Arriving {
            xid,
            file: self.spill.create()?,
            aborted: Arc::default(),
            in_pieces: false,
        });
        Ok(())
    }

    /// Keeps a message, given as its kind and what follows where it is outside of pieces. `part`: the subtransaction, where told.
    ///
    /// # Errors
    /// The disk, or more is kept than may be.
    pub(super) fn push(
        &mut self,
        part: Option<u32>,
        lsn: Lsn,
        kind: u8,
        rest: &[u8],
    ) -> Result<(), SourceError> {
        let Some(arriving) = &mut self.arriving else {
            return Ok(());
        };
        let length = (rest.len() as u32 + 1).to_be_bytes();
        let part = part.unwrap_or(arriving.xid).to_be_bytes();
        let lsn = lsn.0.to_be_bytes();
        arriving.file.push(&[&length, &part, &lsn, &[kind], rest])
    }

    /// The piece, or what was to be prepared, ends.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn stop(&mut self) -> Result<(), SourceError> {
        let Some(arriving) = self.arriving.take() else {
            return Ok(());
        };
        let pieces = Pieces {
            kept: self.spill.finish(arriving.file)?,
            aborted: arriving.aborted,
        };
        if let Some(earlier) = self.open.insert(arriving.xid, pieces) {
            self.spill.remove(earlier.kept);
        }
        Ok(())
    }

    /// Part `part` of transaction `xid` is rolled back, which may be all of it.
    pub(super) fn abort(&mut self, xid: u32, part: u32) {
        if xid != part {
            if let Some(pieces) = self.open.get_mut(&xid) {
                Arc::make_mut(&mut pieces.aborted).insert(part);
            }
        } else if let Some(pieces) = self.open.remove(&xid) {
            self.spill.remove(pieces.kept);
        }
    }

    /// Transaction `xid`, which came in pieces, commits: what is to be read back; `None` where it has not come.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn commit(
        &mut self,
        xid: u32,
        commit: Commit,
    ) -> Result<Option<Replay>, SourceError> {
        match self.open.remove(&xid) {
            Some(pieces) => self.replay(xid, pieces, None, commit).map(Some),
            None => Ok(None),
        }
    }

    /// Transaction `xid`, all of which has come, is prepared as `gid`; a session that begins at `before` gets it again. False where it
    /// has not come.
    pub(super) fn prepare(&mut self, xid: u32, gid: &str, before: Lsn) -> bool {
        let Some(pieces) = self.open.remove(&xid) else {
            return false;
        };
        let gid = gid.into();
        let prepared = Prepared {
            pieces,
            gid,
            before,
        };
        if let Some(earlier) = self.prepared.insert(xid, prepared) {
            self.spill.remove(earlier.pieces.kept);
        }
        true
    }

    /// The prepared transaction commits: what is to be read back; `None` where it was prepared before the stream began.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn commit_prepared(
        &mut self,
        xid: u32,
        gid: &str,
        commit: Commit,
    ) -> Result<Option<Replay>, SourceError> {
        let is_it = |prepared: &Prepared| &*prepared.gid == gid;
        match self.prepared.remove(&xid) {
            Some(prepared) if is_it(&prepared) => {
                let was = Some((prepared.gid, prepared.before));
                self.replay(xid, prepared.pieces, was, commit).map(Some)
            }
            Some(other) => {
                self.prepared.insert(xid, other);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn replay(
        &mut self,
        xid: u32,
        pieces: Pieces,
        prepared: Option<(Box<str>, Lsn)>,
        commit: Commit,
    ) -> Result<Replay, SourceError> {
        let replay = Replay {
            file: self.spill.read(&pieces.kept)?,
            aborted: Arc::clone(&pieces.aborted),
            commit,
        };
        self.replaying = Some(Replaying {
            xid,
            pieces,
            prepared,
        });
        Ok(replay)
    }

    /// All of what [`Store::replay`] read back is out; the stream stands at `after`.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(super) fn replayed(&mut self, after: Lsn) -> Result<(), SourceError> {
        let Some(replaying) = self.replaying.take() else {
            return Ok(());
        };
        self.spill.remove(replaying.pieces.kept);
        // Without others the next checkpoint is behind this commit. Read again after a restart it is known already.
        if replaying.prepared.is_none() || self.prepared.is_empty() || after <= self.decided {
            return Ok(());
        }
        let temporary = self.decided_path.with_extension("held-decided.new");
        File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(after.to_string().as_bytes())?;
                file.sync_data()
            })
            .and_then(|()| fs::rename(&temporary, &self.decided_path))
            .map_err(|error| disk(&self.decided_path, error))?;
        self.decided = after;
        Ok(())
    }

    /// Whether an earlier run was done with the commit at `commit`.
    pub(super) fn was_decided(&self, commit: Lsn) -> bool {
        commit < self.decided
    }

    /// The prepared transaction is rolled back: its rows never were.
    pub(super) fn roll_back_prepared(&mut self, xid: u32) {
        if let Some(prepared) = self.prepared.remove(&xid) {
            self.spill.remove(prepared.pieces.kept);
        }
    }

    /// From where a session gets everything that is not decided.
    pub(super) fn earliest(&self) -> Option<Lsn> {
        let prepared = self.prepared.values().map(|prepared| prepared.before);
        let replaying = self.replaying.as_ref().and_then(|it| it.prepared.as_ref());
        prepared.chain(replaying.map(|(_, before)| *before)).min()
    }
}

fn disk(path: &Path, error: io::Error) -> SourceError {
    SourceError::halt(format!(
        "what is decided of prepared transactions cannot be noted in {}; make room there or change `state`",
        path.display()
    ))
    .because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(at: u64) -> Commit {
        Commit {
            commit_lsn: Lsn(at),
            end_lsn: Lsn(at + 8),
            commit_us: 0,
        }
    }

    fn store(state: &Path) -> Store {
        Store::open(state, "shop", true).unwrap()
    }

    /// `part`'s message `I` with a number.
    fn push(store: &mut Store, part: u32, number: u8) {
        (store.push(Some(part), Lsn(u64::from(number)), b'I', &[number])).unwrap();
    }

    fn numbers(mut replay: Replay) -> Vec<u64> {
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        while let Some(lsn) = replay.next(&mut bytes).unwrap() {
            numbers.push(lsn.0);
            let expected = [b'I', lsn.0 as u8];
            assert!(bytes.ends_with(&expected) || bytes.ends_with(b"R"));
        }
        numbers
    }

    #[test]
    fn pieces_of_several_transactions_come_back_without_what_was_rolled_back() {
        let state = tempfile::tempdir().unwrap();
        let mut store = store(state.path());
        assert!(
            !store.start(7, false).unwrap(),
            "its first piece is missing"
        );
        for (xid, numbers) in [(7, [1, 2]), (9, [3, 4]), (7, [5, 6]), (9, [7, 8])] {
            assert!(store.start(xid, numbers[0] < 4).unwrap());
            assert_eq!(store.arriving(), Some(true));
            push(&mut store, xid, numbers[0]);
            push(&mut store, xid + 100, numbers[1]);
            store.push(Some(xid + 100), Lsn(0), b'R', &[]).unwrap();
            store.stop().unwrap();
            assert_eq!(store.arriving(), None);
        }
        store.abort(7, 107);
        // One that nothing has come of.
        store.abort(11, 12);
        store.abort(11, 11);
        assert!(store.commit(11, commit(10)).unwrap().is_none());
        let replay = store.commit(7, commit(10)).unwrap().unwrap();
        assert_eq!(numbers(replay), [1, 0, 5, 0]);
        assert_eq!(store.earliest(), None);
        store.replayed(Lsn(18)).unwrap();
        assert!(store.commit(7, commit(10)).unwrap().is_none());
        store.abort(9, 9);
        assert!(store.commit(9, commit(20)).unwrap().is_none());
        let held = state.path().join("shop.held");
        assert_eq!(fs::read_dir(&held).unwrap().count(), 0);
        // Another session has it all again.
        store.start(13, true).unwrap();
        push(&mut store, 13, 1);
        store.stop().unwrap();
        store.start(15, true).unwrap();
        store.begin_session();
        assert_eq!(fs::read_dir(&held).unwrap().count(), 0);
        assert!(!store.start(13, false).unwrap());
        drop(store);
        assert!(!held.exists());
    }

    #[test]
    fn prepared_ones_hold_the_position_until_they_are_decided() {
        let state = tempfile::tempdir().unwrap();
        let mut store = store(state.path());
        for (xid, gid) in [(1, "a"), (2, "b"), (3, "c")] {
            store.start_prepare(xid).unwrap();
            assert_eq!(store.arriving(), Some(false));
            store
                .push(None, Lsn(xid.into()), b'I', &[xid as u8])
                .unwrap();
            store.stop().unwrap();
            assert!(store.prepare(xid, gid, Lsn(100 * u64::from(xid))));
        }
        assert!(!store.prepare(4, "d", Lsn(400)));
        assert_eq!(store.earliest(), Some(Lsn(100)));
        store.roll_back_prepared(1);
        assert_eq!(store.earliest(), Some(Lsn(200)));
        // They outlast the session.
        store.begin_session();
        assert!(
            store
                .commit_prepared(3, "other", commit(900))
                .unwrap()
                .is_none()
        );
        let replay = store.commit_prepared(3, "c", commit(900)).unwrap().unwrap();
        assert_eq!(store.earliest(), Some(Lsn(200)));
        assert_eq!(numbers(replay), [3]);
        store.replayed(Lsn(908)).unwrap();
        assert!(store.was_decided(Lsn(900)));
        // Until all of it is out, another session has the commit again.
        for _ in 0..2 {
            store.begin_session();
            let replay = store.commit_prepared(2, "b", commit(950)).unwrap().unwrap();
            assert_eq!(store.earliest(), Some(Lsn(200)));
            assert_eq!(numbers(replay), [2]);
        }
        store.replayed(Lsn(958)).unwrap();
        assert_eq!(store.earliest(), None);
        // The last one's commit is behind the next checkpoint: nothing to note.
        for continued in [true, false] {
            let other = Store::open(state.path(), "shop", continued).unwrap();
            assert_eq!(other.was_decided(Lsn(900)), continued);
            assert!(!other.was_decided(Lsn(950)));
            std::mem::forget(other);
        }
    }

    #[test]
    fn a_set_of_ids_is_a_set() {
        let mut set = Xids::default();
        for xid in [0, 63, 64, u32::MAX] {
            assert!(!set.contains(xid));
            set.insert(xid);
        }
        for xid in [0, 63, 64, u32::MAX] {
            assert!(set.contains(xid));
        }
        assert!(!set.contains(1) && !set.contains(65));
    }
}
