//! XA transactions between their rows and the decision about them.
//!
//! The binary log holds an XA transaction's rows where it was prepared; whether they count is said by a later `XA COMMIT` or
//! `XA ROLLBACK`, perhaps days later. Until then they are kept on disk, event by event as they came (without checksums), in
//! `STATE/NAME.xa/NUMBER`:
//!
//! ```text
//! XA START ─ rows ─ XA END ─ XA_PREPARE │ other transactions │ XA COMMIT ─► rows are read back, in this transaction's place
//!     └── the position that checkpoints keep stays here ─────┘
//! ```
//! The position stays before the earliest prepared transaction, so a restart reads its rows from the binary log again: files of an
//! earlier process are removed.
//!
//! ```text
//! PREPARE a ─ PREPARE b ─ COMMIT a ─ (restart: from before PREPARE b) ─ COMMIT a, whose rows came out the first time
//! ```
//! `STATE/NAME.xa-decided` says up to where such commits are done with. Any other commit without its rows would lose them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use protocol::mysql::event::{HEADER_LENGTH, Header, XaPrepare};
use protocol::mysql::gtid::Gtid;
use protocol::mysql::statement::Xid;

use super::transaction::{Place, Point};
use crate::position::Position;
use crate::source::SourceError;
use crate::source::spill::{self, Kept, Spill, Whose};

const WHOSE: Whose = Whose {
    one: "a prepared XA transaction",
    advice: "run XA RECOVER on the server, and XA COMMIT or XA ROLLBACK for those that are left over",
};

/// The XID of the event that prepares it.
pub(super) fn xid(prepare: &XaPrepare<'_>) -> Xid {
    Xid {
        format: prepare.format,
        global: prepare.global.into(),
        branch: prepare.branch.into(),
    }
}

/// An XID as the servers write it: `X'6162',X'',1`.
pub(super) fn show(xid: &Xid) -> String {
    let hex = |bytes: &[u8]| {
        let digits = |text: String, byte: &u8| text + &format!("{byte:02x}");
        format!("X'{}'", bytes.iter().fold(String::new(), digits))
    };
    format!("{},{},{}", hex(&xid.global), hex(&xid.branch), xid.format)
}

/// A transaction that is prepared and not decided.
#[derive(Debug)]
struct Prepared {
    kept: Kept,
    /// Where the stream stood before it.
    before: Point,
}

/// The rows of one XA transaction while they arrive.
#[derive(Debug)]
pub(super) struct Writer {
    file: spill::Writer,
    before: Point,
}

impl Writer {
    /// Drops the rows: they come again.
    pub(super) fn discard(self) {
        self.file.discard();
    }

    /// Keeps an event, given without its checksum.
    ///
    /// # Errors
    /// The file cannot be written, or more is prepared than we keep.
    pub(super) fn push(&mut self, event: &[u8]) -> Result<(), SourceError> {
        self.begin(event, event.len() as u32)
    }

    /// Keeps the beginning of an event of `length` bytes, which holds its header; what follows goes to [`Writer::go_on`].
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub(super) fn begin(&mut self, event: &[u8], length: u32) -> Result<(), SourceError> {
        // The header's length counts the checksum that is gone.
        let length = length.to_le_bytes();
        match (event.get(..9), event.get(13..)) {
            (Some(head), Some(rest)) => self.file.push(&[head, &length, rest]),
            _ => Ok(()),
        }
    }

    /// Keeps what follows of an event.
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub(super) fn go_on(&mut self, piece: &[u8]) -> Result<(), SourceError> {
        self.file.push(&[piece])
    }
}

/// Reads the events of a committed XA transaction back; the store has its file until all are read.
#[derive(Debug)]
pub(super) struct Reader {
    file: spill::Reader,
    large: Option<Large>,
}

/// An event that is taken in pieces.
#[derive(Debug)]
struct Large {
    /// The header, until it is taken.
    head: Option<[u8; HEADER_LENGTH]>,
    /// Bytes behind the header that are still to come.
    left: usize,
}

impl Reader {
    fn new(file: spill::Reader) -> Self {
        Self { file, large: None }
    }

    /// Appends whole events to `out` until at least `budget` bytes were added, and says how many; 0 at the end, and before an event
    /// longer than `event_max`, which [`Reader::read_piece`] takes.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold what was written.
    pub(super) fn read_into(
        &mut self,
        out: &mut Vec<u8>,
        budget: usize,
        event_max: usize,
    ) -> Result<usize, SourceError> {
        let start = out.len();
        while self.large.is_none() && out.len() - start < budget {
            let at = out.len();
            if self.file.append(out, HEADER_LENGTH)? == 0 {
                break;
            }
            let head = out.get(at..).unwrap_or_default();
            let header = Header::parse(head).map_err(|error| self.file.damaged().because(error))?;
            let left = header.length as usize - HEADER_LENGTH;
            if header.length as usize > event_max {
                let head = head.first_chunk().copied();
                self.large = Some(Large { head, left });
                out.truncate(at);
                break;
            }
            if self.file.append(out, left)? < left {
                return Err(self.file.damaged());
            }
        }
        Ok(out.len() - start)
    }

    /// Whether an event comes next that is longer than [`Reader::read_into`] was to take.
    pub(super) fn is_at_large(&self) -> bool {
        self.large.is_some()
    }

    /// Appends at most about `budget` bytes of it, from its header on, and says how many; 0 once all of it was had.
    ///
    /// # Errors
    /// As [`Reader::read_into`].
    pub(super) fn read_piece(
        &mut self,
        out: &mut Vec<u8>,
        budget: usize,
    ) -> Result<usize, SourceError> {
        let start = out.len();
        let Some(large) = &mut self.large else {
            return Ok(0);
        };
        out.extend(large.head.take().into_iter().flatten());
        let wanted = large.left.min(budget);
        if self.file.append(out, wanted)? < wanted {
            return Err(self.file.damaged());
        }
        large.left -= wanted;
        if out.len() == start {
            self.large = None;
        }
        Ok(out.len() - start)
    }
}

/// All XA transactions of the stream that are prepared and not decided.
#[derive(Debug)]
pub(super) struct Store {
    spill: Spill,
    prepared: BTreeMap<Xid, Prepared>,
    /// The one that commits in one phase while its rows are read back.
    at_once: Option<Kept>,
    /// The one whose rows are being read back.
    replaying: Option<(Xid, Prepared)>,
    /// Commits up to here are done with, also where a restart begins behind their rows.
    decided: Option<Point>,
    decided_path: PathBuf,
}

impl Store {
    /// A store in `STATE/NAME.xa`, emptied; the directory is made when it is first needed. `continued`: the stream goes on after
    /// a checkpoint of an earlier run, not at a place that the operator chose.
    ///
    /// # Errors
    /// What an earlier process left cannot be removed.
    pub(super) fn open(state: &Path, name: &str, continued: bool) -> Result<Self, SourceError> {
        let decided_path = state.join(format!("{name}.xa-decided"));
        let decided = match fs::read_to_string(&decided_path) {
            Ok(text) if continued => text.parse().ok().and_then(point),
            Ok(_) => {
                fs::remove_file(&decided_path).map_err(|error| disk(&decided_path, error))?;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(disk(&decided_path, error)),
        };
        Ok(Self {
            spill: Spill::open(state.join(format!("{name}.xa")), WHOSE)?,
            prepared: BTreeMap::new(),
            at_once: None,
            replaying: None,
            decided,
            decided_path,
        })
    }

    /// Starts keeping rows; `before` is where the stream stands before the transaction.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(super) fn start(&mut self, before: Point) -> Result<Writer, SourceError> {
        Ok(Writer {
            file: self.spill.create()?,
            before,
        })
    }

    /// The rows are complete and prepared under `xid`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn prepare(&mut self, xid: Xid, writer: Writer) -> Result<(), SourceError> {
        let prepared = Prepared {
            kept: self.spill.finish(writer.file)?,
            before: writer.before,
        };
        if let Some(old) = self.prepared.insert(xid, prepared) {
            self.spill.remove(old.kept);
        }
        Ok(())
    }

    /// The rows of a transaction that commits in one phase: it was never prepared.
    ///
    /// # Errors
    /// The file cannot be written or read.
    pub(super) fn commit_at_once(&mut self, writer: Writer) -> Result<Reader, SourceError> {
        let kept = self.spill.finish(writer.file)?;
        let reader = self.spill.read(&kept)?;
        if let Some(earlier) = self.at_once.replace(kept) {
            self.spill.remove(earlier);
        }
        Ok(Reader::new(reader))
    }

    /// `XA COMMIT`: the rows, to be read back; `None` when the transaction was prepared before the stream began.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn commit(&mut self, xid: &Xid) -> Result<Option<Reader>, SourceError> {
        let Some(prepared) = self.prepared.remove(xid) else {
            return Ok(None);
        };
        let reader = self.spill.read(&prepared.kept)?;
        self.replaying = Some((xid.clone(), prepared));
        Ok(Some(Reader::new(reader)))
    }

    /// All rows of the committed transaction are out; the stream stands at `after`.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(super) fn replayed(&mut self, after: &Point) -> Result<(), SourceError> {
        if let Some(kept) = self.at_once.take() {
            self.spill.remove(kept);
        }
        let Some((_, prepared)) = self.replaying.take() else {
            return Ok(());
        };
        self.spill.remove(prepared.kept);
        // Without others the next checkpoint is behind this commit. Read again after a restart it is known already.
        if self.prepared.is_empty() || self.decided.as_ref().is_some_and(|it| reaches(it, after)) {
            return Ok(());
        }
        let temporary = self.decided_path.with_extension("xa-decided.new");
        let text = format!("{:#}", super::position(after));
        File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_data()
            })
            .and_then(|()| fs::rename(&temporary, &self.decided_path))
            .map_err(|error| disk(&self.decided_path, error))?;
        self.decided = Some(after.clone());
        Ok(())
    }

    /// The connection was lost: a commit that was being read back comes again.
    pub(super) fn again(&mut self) {
        self.prepared.extend(self.replaying.take());
    }

    /// Whether an earlier run was done with the commit that begins at `first`.
    pub(super) fn was_decided(&self, gtid: Option<&Gtid>, first: &Place) -> bool {
        match &self.decided {
            None => false,
            Some(decided) => match (gtid, &decided.gtids) {
                (Some(gtid), Some(set)) => set.contains(gtid),
                _ => decided.place != *first && super::is_past(&decided.place, first),
            },
        }
    }

    /// The stream goes on, by GTIDs, on another server: where the one before stood means nothing there, and would pass for a place
    /// of the new one.
    pub(super) fn forget_places(&mut self) {
        let replaying = self.replaying.iter_mut().map(|(_, prepared)| prepared);
        for Prepared { before, .. } in self.prepared.values_mut().chain(replaying) {
            if before.gtids.is_some() {
                before.place = Place::new(&Position::unknown_binlog());
            }
        }
    }

    /// `XA ROLLBACK`: the rows never were.
    pub(super) fn roll_back(&mut self, xid: &Xid) {
        if let Some(prepared) = self.prepared.remove(xid) {
            self.spill.remove(prepared.kept);
        }
    }

    /// Where the stream stood before the earliest transaction that is not decided.
    pub(super) fn earliest(&self) -> Option<&Point> {
        let replaying = self.replaying.iter().map(|(_, prepared)| prepared);
        self.prepared
            .values()
            .chain(replaying)
            // Numbers of files are given in the order of the stream.
            .min_by_key(|prepared| prepared.kept.number)
            .map(|prepared| &prepared.before)
    }
}

/// A place as it is kept, if it can be read: otherwise it is as if nothing was noted, which loses nothing.
fn point(position: Position) -> Option<Point> {
    match super::point(position) {
        Ok(super::From::Point(point)) => Some(point),
        _ => None,
    }
}

/// Whether `point` is at or behind `other`.
fn reaches(point: &Point, other: &Point) -> bool {
    match (&point.gtids, &other.gtids) {
        (Some(set), Some(other)) => other.is_subset(set),
        _ => super::is_past(&point.place, &other.place),
    }
}

fn disk(path: &Path, error: io::Error) -> SourceError {
    SourceError::halt(format!(
        "what is decided of prepared XA transactions cannot be noted in {}; make room there or change `state`",
        path.display()
    ))
    .because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(offset: u64) -> Point {
        Point {
            place: Place {
                file: "b.1".into(),
                offset,
            },
            gtids: None,
        }
    }

    fn event(body: &[u8]) -> Vec<u8> {
        let mut event = vec![0; HEADER_LENGTH];
        event[9..13].copy_from_slice(&(HEADER_LENGTH as u32 + body.len() as u32 + 4).to_le_bytes());
        event.extend_from_slice(body);
        event
    }

    fn xid(number: u8) -> Xid {
        Xid {
            format: 1,
            global: vec![number],
            branch: Vec::new(),
        }
    }

    #[test]
    fn names_are_shown_as_the_servers_write_them() {
        assert_eq!(show(&xid(0xa)), "X'0a',X'',1");
    }

    #[test]
    fn places_of_another_server_are_forgotten_and_gtids_are_not() {
        let state = tempfile::tempdir().unwrap();
        let mut store = Store::open(state.path(), "shop", true).unwrap();
        let mut before = point(100);
        before.gtids = Some("0-1-5".parse().unwrap());
        for number in [1, 2] {
            let writer = store.start(before.clone()).unwrap();
            store.prepare(xid(number), writer).unwrap();
        }
        // One is being read back.
        assert!(store.commit(&xid(1)).unwrap().is_some());
        store.forget_places();
        before.place = Place::new(&Position::unknown_binlog());
        assert_eq!(store.earliest(), Some(&before));
        store.again();
        store.roll_back(&xid(2));
        assert_eq!(store.earliest(), Some(&before));
    }

    #[test]
    fn rows_come_back_on_commit_and_are_gone_after_a_rollback() {
        let state = tempfile::tempdir().unwrap();
        let mut store = Store::open(state.path(), "shop", true).unwrap();
        let xids = [1, 2, 3].map(xid);
        for (i, xid) in xids.iter().enumerate() {
            let mut writer = store.start(point(100 * i as u64)).unwrap();
            for n in 0..1000 {
                writer.push(&event(format!("{i} {n}").as_bytes())).unwrap();
            }
            store.prepare(xid.clone(), writer).unwrap();
        }
        assert_eq!(store.earliest(), Some(&point(0)));
        store.roll_back(&xids[0]);
        assert_eq!(store.earliest(), Some(&point(100)));
        let mut reader = store.commit(&xids[2]).unwrap().unwrap();
        let (mut bytes, mut reads) = (Vec::new(), 0);
        while reader.read_into(&mut bytes, 500, 1000).unwrap() > 0 {
            reads += 1;
        }
        assert!(reads > 10);
        let (mut at, mut n) = (0, 0);
        while at < bytes.len() {
            let length = Header::parse(&bytes[at..]).unwrap().length as usize;
            assert_eq!(
                &bytes[at + HEADER_LENGTH..at + length],
                format!("2 {n}").as_bytes()
            );
            at += length;
            n += 1;
        }
        assert_eq!(n, 1000);
        drop(reader);
        // Until all of it is out it may be asked for again.
        store.again();
        assert!(store.commit(&xids[1]).unwrap().is_some());
        assert_eq!(store.earliest(), Some(&point(100)));
        store.again();
        assert!(store.commit(&xids[2]).unwrap().is_some());
        store.replayed(&point(900)).unwrap();
        assert_eq!(store.commit(&xids[2]).unwrap().map(|_| ()), None);
        // Another one is still prepared: a restart before it knows what was decided.
        for continued in [true, false] {
            let other = Store::open(state.path(), "shop", continued).unwrap();
            assert_eq!(other.was_decided(None, &point(800).place), continued);
            assert!(!other.was_decided(None, &point(900).place));
            std::mem::forget(other);
        }
        drop(store);
        assert!(!state.path().join("shop.xa").exists());
    }
}
