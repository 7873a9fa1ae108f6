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
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use protocol::DecodeError;
use protocol::mysql::event::{HEADER_LENGTH, Header, XaPrepare};
use protocol::mysql::gtid::Gtid;
use protocol::mysql::statement::Xid;

use super::transaction::{Place, Point};
use crate::position::Position;
use crate::source::SourceError;

/// Bytes that all prepared transactions may hold on disk.
const HELD_MAX: u64 = 16 << 30;

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
    path: PathBuf,
    bytes: u64,
    /// Where the stream stood before it.
    before: Point,
}

/// The rows of one XA transaction while they arrive.
#[derive(Debug)]
pub(super) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    before: Point,
}

impl Writer {
    /// Drops the rows: they come again.
    pub(super) fn discard(self) {
        drop(fs::remove_file(&self.path));
    }

    /// Keeps an event, given without its checksum.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn push(&mut self, event: &[u8]) -> Result<(), SourceError> {
        // The header's length counts the checksum that is gone.
        let length = (event.len() as u32).to_le_bytes();
        let write = |file: &mut BufWriter<File>| {
            file.write_all(&event[..9])?;
            file.write_all(&length)?;
            file.write_all(&event[13..])
        };
        if event.len() < HEADER_LENGTH {
            return Ok(());
        }
        self.bytes += event.len() as u64;
        write(&mut self.file).map_err(|error| disk(&self.path, error))
    }
}

/// Reads the events of a committed XA transaction back; the store has its file until all are read.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    /// Whether nobody else needs the file.
    owned: bool,
}

impl Reader {
    /// Appends whole events to `out` until at least `budget` bytes were added, and says how many; 0 at the end.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold what was written.
    pub(super) fn read_into(
        &mut self,
        out: &mut Vec<u8>,
        budget: usize,
    ) -> Result<usize, SourceError> {
        let start = out.len();
        while out.len() - start < budget {
            let at = out.len();
            let got = self.read_up_to(out, HEADER_LENGTH)?;
            if got == 0 {
                break;
            }
            let length = out
                .get(at..)
                .map_or(Err(None), |bytes| Header::parse(bytes).map_err(Some))
                .map_err(|error: Option<DecodeError>| self.damaged(error))?
                .length as usize;
            if self.read_up_to(out, length - HEADER_LENGTH)? < length - HEADER_LENGTH {
                return Err(self.damaged(None));
            }
        }
        Ok(out.len() - start)
    }

    fn read_up_to(&mut self, out: &mut Vec<u8>, length: usize) -> Result<usize, SourceError> {
        self.file
            .by_ref()
            .take(length as u64)
            .read_to_end(out)
            .map_err(|error| disk(&self.path, error))
    }

    fn damaged(&self, error: Option<DecodeError>) -> SourceError {
        let text = format!(
            "{} does not hold the rows of the XA transaction that were kept in it; restart the engine to read them again",
            self.path.display()
        );
        match error {
            Some(error) => SourceError::halt(text).because(error),
            None => SourceError::halt(text),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // A file that stays is removed at the next start.
        if self.owned {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// All XA transactions of the stream that are prepared and not decided.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    next: u64,
    prepared: BTreeMap<Xid, Prepared>,
    bytes: u64,
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
        let directory = state.join(format!("{name}.xa"));
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(&directory, error)),
            _ => Ok(Self {
                directory,
                next: 0,
                prepared: BTreeMap::new(),
                bytes: 0,
                replaying: None,
                decided,
                decided_path,
            }),
        }
    }

    /// Starts keeping rows; `before` is where the stream stands before the transaction.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(super) fn start(&mut self, before: Point) -> Result<Writer, SourceError> {
        fs::create_dir_all(&self.directory).map_err(|error| disk(&self.directory, error))?;
        self.next += 1;
        let path = self.directory.join(self.next.to_string());
        let file = File::create_new(&path).map_err(|error| disk(&path, error))?;
        Ok(Writer {
            file: BufWriter::with_capacity(64 << 10, file),
            path,
            bytes: 0,
            before,
        })
    }

    /// The rows are complete and prepared under `xid`.
    ///
    /// # Errors
    /// The file cannot be written, or more is prepared than we keep.
    pub(super) fn prepare(&mut self, xid: Xid, writer: Writer) -> Result<(), SourceError> {
        let (path, bytes, before) = (writer.path.clone(), writer.bytes, writer.before.clone());
        seal(writer)?;
        self.bytes += bytes;
        if self.bytes > HELD_MAX {
            return Err(SourceError::halt(format!(
                "XA transactions with more than {} GiB of rows are prepared and not decided, the last one {}: \
                 run XA RECOVER on the server, and XA COMMIT or XA ROLLBACK for those that are left over",
                HELD_MAX >> 30,
                show(&xid)
            )));
        }
        let replaced = self.prepared.insert(
            xid,
            Prepared {
                path,
                bytes,
                before,
            },
        );
        if let Some(old) = replaced {
            self.drop_rows(&old);
        }
        Ok(())
    }

    /// The rows of a transaction that commits in one phase: it was never prepared.
    ///
    /// # Errors
    /// The file cannot be written or read.
    pub(super) fn commit_at_once(&mut self, writer: Writer) -> Result<Reader, SourceError> {
        let path = writer.path.clone();
        seal(writer)?;
        reader(path, true)
    }

    /// `XA COMMIT`: the rows, to be read back; `None` when the transaction was prepared before the stream began.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn commit(&mut self, xid: &Xid) -> Result<Option<Reader>, SourceError> {
        let Some(prepared) = self.prepared.remove(xid) else {
            return Ok(None);
        };
        let reader = reader(prepared.path.clone(), false)?;
        self.replaying = Some((xid.clone(), prepared));
        Ok(Some(reader))
    }

    /// All rows of the committed transaction are out; the stream stands at `after`.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(super) fn replayed(&mut self, after: &Point) -> Result<(), SourceError> {
        let Some((_, prepared)) = self.replaying.take() else {
            return Ok(());
        };
        self.bytes -= prepared.bytes;
        self.drop_rows(&prepared);
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

    /// `XA ROLLBACK`: the rows never were.
    pub(super) fn roll_back(&mut self, xid: &Xid) {
        if let Some(prepared) = self.prepared.remove(xid) {
            self.bytes -= prepared.bytes;
            self.drop_rows(&prepared);
        }
    }

    fn drop_rows(&self, prepared: &Prepared) {
        drop(fs::remove_file(&prepared.path));
    }

    /// Where the stream stood before the earliest transaction that is not decided.
    pub(super) fn earliest(&self) -> Option<&Point> {
        // Numbers of files are given in the order of the stream.
        let number = |prepared: &&Prepared| {
            let name = prepared.path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.parse::<u64>().ok())
        };
        let replaying = self.replaying.iter().map(|(_, prepared)| prepared);
        self.prepared
            .values()
            .chain(replaying)
            .min_by_key(number)
            .map(|prepared| &prepared.before)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn seal(writer: Writer) -> Result<(), SourceError> {
    let path = writer.path;
    writer
        .file
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_data())
        .map_err(|error| disk(&path, error))
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

fn reader(path: PathBuf, owned: bool) -> Result<Reader, SourceError> {
    let file = File::open(&path).map_err(|error| disk(&path, error))?;
    Ok(Reader {
        file: BufReader::with_capacity(64 << 10, file),
        path,
        owned,
    })
}

fn disk(path: &Path, error: io::Error) -> SourceError {
    SourceError::halt(format!(
        "rows of a prepared XA transaction cannot be kept in {}; make room there or change `state`",
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
        while reader.read_into(&mut bytes, 500).unwrap() > 0 {
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
