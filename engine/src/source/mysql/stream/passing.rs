//! Large events that are passed over as they come: of rows that are not captured nothing is needed but how many they are.
//!
//! ```text
//! socket ─► packet's parts, piece by piece ──┐
//! payload ─► zstd, piece by piece ───────────┼─► length, checksum ─► RowCounter ─► rows of the transaction so far
//! kept XA rows, piece by piece ──────────────┘               └─► while an XA transaction is being prepared: its file
//! ```
//! Whatever their size, they take a read's worth of memory. Nothing counts before the whole event was found sound.

use protocol::limits::MYSQL_EVENT_MAX;
use protocol::mysql::event::{EventPieces, Header};
use protocol::{DecodeError, DecodeErrorKind};

use super::super::decode::{Decoder, Origin, Passage, Passed, Unpassable};
use super::super::packets::Piece;
use super::{EVENT_OVERHEAD, Expansion, Step, Stream};
use crate::batch::Batch;
use crate::source::SourceError;

/// Bytes of an event that are there before it is decided what becomes of it: nearly every head is in them.
const HEAD: usize = 4 << 10;
/// Bytes that no head exceeds: extra data of 64 KiB, and what stands around it.
const HEAD_MAX: usize = 80 << 10;
/// Bytes that are taken out of a container at a time; the first piece holds the whole head.
const PIECE: usize = 128 << 10;
const _: () = assert!(HEAD_MAX <= PIECE);

/// An event that is being passed over.
#[derive(Debug)]
pub(super) struct Passing {
    pieces: EventPieces,
    passed: Passed,
    /// Why its rows cannot be walked over. As long as the checksum is not known that may be damage, which it names better.
    failed: Option<DecodeError>,
}

impl Passing {
    fn feed(&mut self, decoder: &mut Decoder, piece: &[u8]) -> Result<(), SourceError> {
        let body = self.pieces.take(piece);
        if self.failed.is_some() {
            return Ok(());
        }
        match decoder.pass(&mut self.passed, body) {
            Ok(()) => Ok(()),
            Err(Unpassable::Event(error)) => {
                self.failed = Some(error);
                Ok(())
            }
            Err(Unpassable::Source(error)) => Err(error),
        }
    }
}

impl Stream {
    /// Looks at the event that is still arriving, and begins to pass it over where nothing of it is needed: whether it does.
    ///
    /// # Errors
    /// A row that is too large, before it is collected.
    pub(super) fn look_at_arriving(&mut self, bytes: &[u8]) -> Result<bool, SourceError> {
        let event = self.packets.arriving(bytes);
        if event.len() < HEAD.min(self.batch_bytes) {
            return Ok(false);
        }
        let Ok(header) = Header::parse(event) else {
            return Ok(false);
        };
        if header.length as usize <= self.batch_bytes {
            return Ok(false);
        }
        match self.passage(&header, event, Origin::Log)? {
            Passage::Over(passed) => {
                self.passing = Some(self.begin_to_pass(header, passed, Origin::Log)?);
                Ok(true)
            }
            // A length that was damaged on its way is told from a large one by that much coming.
            Passage::Whole(table)
                if header.kind.is_rows()
                    && self.is_beyond(&header)
                    && event.len() >= self.batch_bytes =>
            {
                Err(self.too_large(header.length as usize, table))
            }
            Passage::Whole(_) | Passage::Unclear => Ok(false),
        }
    }

    /// What becomes of a large event that begins with `event`.
    fn passage(
        &mut self,
        header: &Header,
        event: &[u8],
        origin: Origin,
    ) -> Result<Passage, SourceError> {
        match self.decoder.passage(header, event, origin) {
            // It can be held, and what is wrong with it is told better when all of it is there: its checksum is looked at first.
            Err(_) if !self.is_beyond(header) => Ok(Passage::Unclear),
            // The rest of the head comes with a later read.
            Err(error)
                if matches!(error.kind, DecodeErrorKind::Truncated { .. })
                    && event.len() < HEAD_MAX.min(header.length as usize) =>
            {
                Ok(Passage::Unclear)
            }
            other => other.map_err(|error| self.unreadable_at(header, origin, error)),
        }
    }

    /// The longest event that is held whole.
    pub(super) fn event_max(&self) -> usize {
        (self.row_max.saturating_add(EVENT_OVERHEAD)).min(MYSQL_EVENT_MAX)
    }

    fn is_beyond(&self, header: &Header) -> bool {
        header.length as usize > self.event_max()
    }

    fn begin_to_pass(
        &self,
        header: Header,
        passed: Passed,
        origin: Origin,
    ) -> Result<Passing, SourceError> {
        let pieces = EventPieces::new(self.decoder.format(origin), header);
        Ok(Passing {
            pieces: pieces.map_err(|error| self.unreadable_at(&header, origin, error))?,
            passed,
            failed: None,
        })
    }

    /// Passes over what is there of the event.
    pub(super) fn pass(
        &mut self,
        mut passing: Passing,
        batch: &mut Batch,
    ) -> Result<Option<Step>, SourceError> {
        let from = self.packets.start();
        let ended = loop {
            let bytes = self.staged.as_ref().unwrap_or(&batch.bytes);
            match self.packets.piece(bytes) {
                Ok(Piece::Bytes(piece)) => {
                    let piece = bytes.get(piece).unwrap_or_default();
                    passing.feed(&mut self.decoder, piece)?;
                }
                Ok(Piece::End) => break true,
                Ok(Piece::More) => break false,
                Err(error) => return Err(self.misframed(error)),
            }
        };
        match &self.staged {
            // Only events refer to bytes, and this one has none.
            None => {
                batch.bytes.drain(from..self.packets.start());
                self.packets.moved(from);
            }
            Some(_) if ended => {}
            Some(_) => self.unstage(batch),
        }
        if ended {
            self.end_passing(passing, Origin::Log)?;
            return Ok(None);
        }
        self.passing = Some(passing);
        Ok(Some(match self.is_full(batch) {
            true => Step::Full,
            false => Step::Read,
        }))
    }

    /// The large event that comes next out of the open container: passes it over, or puts it into the batch whole. How many bytes it
    /// put there.
    pub(super) fn take_large(&mut self, batch: &mut Batch) -> Result<usize, SourceError> {
        let mut piece = Vec::new();
        self.read_piece(&mut piece)?;
        let header = Header::parse(&piece).map_err(|error| self.unreadable(error))?;
        match self.passage(&header, &piece, self.origin)? {
            Passage::Over(passed) => {
                let mut passing = self.begin_to_pass(header, passed, self.origin)?;
                while !piece.is_empty() {
                    passing.feed(&mut self.decoder, &piece)?;
                    piece.clear();
                    self.read_piece(&mut piece)?;
                }
                self.end_passing(passing, self.origin)?;
                Ok(0)
            }
            Passage::Whole(table) if self.is_beyond(&header) => {
                Err(self.too_large(header.length as usize, table))
            }
            Passage::Whole(_) | Passage::Unclear => {
                let start = batch.bytes.len();
                batch.bytes.append(&mut piece);
                while self.read_piece(&mut batch.bytes)? > 0 {}
                Ok(batch.bytes.len() - start)
            }
        }
    }

    /// The next piece of the container's large event.
    fn read_piece(&mut self, piece: &mut Vec<u8>) -> Result<usize, SourceError> {
        let read = match &mut self.expansion {
            Some(Expansion::Payload(events)) => events.read_piece(piece, PIECE),
            Some(Expansion::Xa(reader)) => return reader.read_piece(piece, PIECE),
            None => Ok(0),
        };
        read.map_err(|error| self.unreadable(error))
    }

    /// MariaDB's compressed ROWS event, which is here in whole and expands to more than a batch: whether it was passed over.
    pub(super) fn pass_compressed(
        &mut self,
        header: Header,
        event: &[u8],
        expanded: usize,
    ) -> Result<bool, SourceError> {
        // What is kept for a decision may yet be rolled back, and is looked at when it comes back.
        if !header.kind.is_rows() || expanded <= self.batch_bytes || self.decoder.is_holding() {
            return Ok(false);
        }
        match self.passage(&header, event, self.origin)? {
            Passage::Over(passed) => {
                // Its length counts the checksum, which was found right.
                let format = self.decoder.format(Origin::Log);
                let pieces = EventPieces::new(format, header);
                let mut passing = Passing {
                    pieces: pieces.map_err(|error| self.unreadable(error))?,
                    passed,
                    failed: None,
                };
                passing.feed(&mut self.decoder, event)?;
                self.end_passing(passing, self.origin)?;
                Ok(true)
            }
            Passage::Whole(table) if expanded > self.event_max() => {
                Err(self.too_large(expanded, table))
            }
            Passage::Whole(_) | Passage::Unclear => Ok(false),
        }
    }

    fn end_passing(&mut self, passing: Passing, origin: Origin) -> Result<(), SourceError> {
        let Passing {
            pieces,
            passed,
            failed,
        } = passing;
        let header = *pieces.header();
        (pieces.finish()).map_err(|error| self.unreadable_at(&header, origin, error))?;
        self.decoder.passed(&header, passed, failed, origin)
    }

    #[cold]
    fn unreadable_at(&self, header: &Header, origin: Origin, error: DecodeError) -> SourceError {
        match origin {
            Origin::Container(offset) => self.decoder.unreadable(header.kind, offset, error),
            Origin::Log => self.decoder.unreadable_next(header.kind, error),
        }
    }

    #[cold]
    fn too_large(&self, length: usize, table: Option<String>) -> SourceError {
        let last = self.decoder.last_position();
        let max = self.row_max;
        let (of, leave_out) = match table {
            Some(table) => (
                format!(" of {table}"),
                format!("leave the table out by tables = [\"!{table}\"]"),
            ),
            None => (String::new(), "leave its table out by `tables`".to_owned()),
        };
        SourceError::halt(format!(
            "after {last}: a ROWS event{of} of {length} bytes holds a row larger than row_max ({max}), or many rows because of a \
             large binlog_row_event_max_size; raise engine.row_max, or {leave_out}, or go on behind its transaction by \
             `walbrook position set`"
        ))
    }
}
