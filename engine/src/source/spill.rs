//! Rows that are kept on disk until it is decided whether they count: transactions that came before their end.
//!
//! ```text
//! create ─► Writer ─► finish ─► Kept ─► read ─► Reader
//!             ▲                  │ └──► remove
//!             └──── resume ◄─────┘
//! ```
//! One directory per source, `STATE/NAME.KIND/NUMBER`, a file per transaction, and a limit for all of them together. What is kept is
//! read again from the server after a restart: files of an earlier process are removed, and nothing has to be synced for safety. Only the
//! user that runs the engine may enter the directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::SourceError;

/// Bytes that all transactions of a source may hold on disk.
const KEPT_MAX: u64 = 16 << 30;
/// Bytes that are written and read at a time.
const BUFFER: usize = 64 << 10;

/// What an error says about the rows of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    /// `a prepared XA transaction`.
    pub(super) one: &'static str,
    /// What the operator can do when there are too many.
    pub(super) advice: &'static str,
}

/// A source's directory.
#[derive(Debug)]
pub(super) struct Spill {
    directory: PathBuf,
    whose: Whose,
    next: u64,
    bytes: u64,
    bytes_max: u64,
}

/// A file with all of a transaction that has come so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Grows from one transaction to the next.
    pub(super) number: u64,
    bytes: u64,
}

/// Adds to a file. There is one at a time.
#[derive(Debug)]
pub(super) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    kept: Kept,
    left: u64,
    bytes_max: u64,
    whose: Whose,
}

/// Reads a file from its beginning.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    whose: Whose,
}

impl Spill {
    /// The directory `path`, emptied; it is made when it is first needed.
    ///
    /// # Errors
    /// What an earlier process left cannot be removed.
    pub(super) fn open(path: PathBuf, whose: Whose) -> Result<Self, SourceError> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(&path, whose, error)),
            _ => Ok(Self {
                directory: path,
                whose,
                next: 0,
                bytes: 0,
                bytes_max: KEPT_MAX,
            }),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(number.to_string())
    }

    /// Begins a transaction's file.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn create(&mut self) -> Result<Writer, SourceError> {
        let whose = self.whose;
        // Rows are nobody else's business.
        (DirBuilder::new().recursive(true).mode(0o700))
            .create(&self.directory)
            .map_err(|error| disk(&self.directory, whose, error))?;
        self.next += 1;
        let path = self.path(self.next);
        let file = File::create_new(&path).map_err(|error| disk(&path, whose, error))?;
        let kept = Kept {
            number: self.next,
            bytes: 0,
        };
        Ok(self.writer(file, path, kept))
    }

    /// Goes on with a transaction's file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn resume(&mut self, kept: Kept) -> Result<Writer, SourceError> {
        let path = self.path(kept.number);
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(|error| disk(&path, self.whose, error))?;
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        Ok(self.writer(file, path, kept))
    }

    fn writer(&self, file: File, path: PathBuf, kept: Kept) -> Writer {
        let others = self.bytes + kept.bytes;
        Writer {
            file: BufWriter::with_capacity(BUFFER, file),
            path,
            kept,
            left: self.bytes_max.saturating_sub(others),
            bytes_max: self.bytes_max,
            whose: self.whose,
        }
    }

    /// All of the transaction that has come is on its way to the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(&mut self, writer: Writer) -> Result<Kept, SourceError> {
        let path = writer.path;
        (writer.file.into_inner()).map_err(|error| disk(&path, self.whose, error.into_error()))?;
        self.bytes += writer.kept.bytes;
        Ok(writer.kept)
    }

    /// Reads a transaction's file, which stays until [`Spill::remove`].
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn read(&self, kept: &Kept) -> Result<Reader, SourceError> {
        let path = self.path(kept.number);
        let file = File::open(&path).map_err(|error| disk(&path, self.whose, error))?;
        Ok(Reader {
            file: BufReader::with_capacity(BUFFER, file),
            path,
            whose: self.whose,
        })
    }

    /// Drops a transaction's rows.
    pub(super) fn remove(&mut self, kept: Kept) {
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        // A file that stays is removed at the next start.
        drop(fs::remove_file(self.path(kept.number)));
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

impl Writer {
    /// Adds `parts`, one behind the other.
    ///
    /// # Errors
    /// The disk is full, or all transactions together are larger than they may be.
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Result<(), SourceError> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let Some(left) = self.left.checked_sub(length) else {
            return Err(SourceError::halt(format!(
                "{}, with others that are kept until they are decided about, would take more than {} GiB of {}: {}",
                self.whose.one,
                self.bytes_max >> 30,
                self.path.parent().unwrap_or(&self.path).display(),
                self.whose.advice
            )));
        };
        self.left = left;
        self.kept.bytes += length;
        (parts.iter())
            .try_for_each(|part| self.file.write_all(part))
            .map_err(|error| disk(&self.path, self.whose, error))
    }

    /// Drops the rows.
    pub(super) fn discard(self) {
        drop(fs::remove_file(&self.path));
    }
}

impl Reader {
    /// Appends `length` bytes to `out`, or fewer where the file ends, and says how many.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn append(
        &mut self,
        out: &mut Vec<u8>,
        length: usize,
    ) -> Result<usize, SourceError> {
        (self.file.by_ref().take(length as u64))
            .read_to_end(out)
            .map_err(|error| disk(&self.path, self.whose, error))
    }

    /// The next `N` bytes; `None` at the file's end.
    ///
    /// # Errors
    /// The file cannot be read, or ends in the middle of them.
    pub(super) fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, SourceError> {
        let mut array = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.file.read(array.get_mut(filled..).unwrap_or_default()) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.damaged()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(disk(&self.path, self.whose, error)),
            }
        }
        Ok(Some(array))
    }

    /// Passes over `length` bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn skip(&mut self, length: u32) -> Result<(), SourceError> {
        (self.file.seek_relative(i64::from(length)))
            .map_err(|error| disk(&self.path, self.whose, error))
    }

    /// The error about a file that does not hold what was written.
    pub(super) fn damaged(&self) -> SourceError {
        SourceError::halt(format!(
            "{} does not hold the rows of {} that were kept in it; restart the engine to read them again",
            self.path.display(),
            self.whose.one
        ))
    }
}

fn disk(path: &Path, whose: Whose, error: io::Error) -> SourceError {
    SourceError::halt(format!(
        "rows of {} cannot be kept in {}; make room there or change `state` (TMPDIR for `walbrook tap`)",
        whose.one,
        path.display()
    ))
    .because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOSE: Whose = Whose {
        one: "a transaction",
        advice: "end some",
    };

    fn spill(state: &Path) -> Spill {
        Spill::open(state.join("shop.kept"), WHOSE).unwrap()
    }

    fn whole(spill: &Spill, kept: &Kept) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = spill.read(kept).unwrap();
        while reader.append(&mut bytes, 7).unwrap() > 0 {}
        bytes
    }

    #[test]
    fn files_grow_by_turns_and_are_read_whole() {
        let state = tempfile::tempdir().unwrap();
        let mut spill = spill(state.path());
        let mut kept = Vec::new();
        for name in [b"a", b"b"] {
            let mut writer = spill.create().unwrap();
            writer.push(&[name, b"1 "]).unwrap();
            kept.push(spill.finish(writer).unwrap());
        }
        for turn in 0..2 {
            for file in &mut kept {
                let taken = std::mem::replace(
                    file,
                    Kept {
                        number: 0,
                        bytes: 0,
                    },
                );
                let mut writer = spill.resume(taken).unwrap();
                writer.push(&[format!("turn {turn} ").as_bytes()]).unwrap();
                *file = spill.finish(writer).unwrap();
            }
        }
        assert_eq!(whole(&spill, &kept[0]), b"a1 turn 0 turn 1 ");
        assert_eq!(whole(&spill, &kept[1]), b"b1 turn 0 turn 1 ");
        assert_eq!(spill.bytes, 34);
        let mut reader = spill.read(&kept[0]).unwrap();
        assert_eq!(reader.array().unwrap(), Some(*b"a1 t"));
        reader.skip(11).unwrap();
        assert_eq!(reader.array().unwrap(), Some(*b"1 "));
        assert_eq!(reader.array::<1>().unwrap(), None);
        let mut reader = spill.read(&kept[0]).unwrap();
        assert!(
            reader
                .array::<18>()
                .unwrap_err()
                .to_string()
                .contains("does not hold")
        );
        for kept in kept {
            spill.remove(kept);
        }
        assert_eq!(spill.bytes, 0);
        drop(spill);
        assert!(!state.path().join("shop.kept").exists());
    }

    #[test]
    fn more_than_the_limit_is_refused_whoever_holds_it() {
        let state = tempfile::tempdir().unwrap();
        let mut spill = spill(state.path());
        spill.bytes_max = 10;
        let mut writer = spill.create().unwrap();
        writer.push(&[b"123456"]).unwrap();
        let kept = spill.finish(writer).unwrap();
        let mut writer = spill.create().unwrap();
        writer.push(&[b"1234"]).unwrap();
        let error = writer.push(&[b"5"]).unwrap_err().to_string();
        assert!(error.contains("end some"), "{error}");
        writer.discard();
        let mut writer = spill.resume(kept).unwrap();
        writer.push(&[b"1234"]).unwrap();
        assert!(writer.push(&[b"5"]).is_err());
    }

    #[test]
    fn nobody_else_may_look_into_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().unwrap();
        let mut spill = spill(state.path());
        let writer = spill.create().unwrap();
        let mode = fs::metadata(&spill.directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        writer.discard();
    }

    #[test]
    fn what_an_earlier_process_left_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let mut first = spill(state.path());
        let writer = first.create().unwrap();
        drop(first.finish(writer));
        std::mem::forget(first);
        let mut second = spill(state.path());
        assert!(!state.path().join("shop.kept/1").exists());
        assert!(second.create().is_ok());
    }
}
