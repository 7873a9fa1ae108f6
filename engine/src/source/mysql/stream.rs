//! From bytes as read to events of a Batch: packets found in place, containers of events expanded a piece at a time.
//!
//! ```text
//! direct:  batch.bytes  [ packet | packet | packet | part of a packet ]◄─ the socket reads here
//! staged:  staged       [ packet | packet | part of a packet ]            what came behind a container, or behind the last seal
//!          container    [ compressed events ]
//!          batch.bytes  [ … | events out of the container | events copied out of staged ]
//! ```
//! In direct mode nothing is copied. A compressed transaction, a compressed event and the rows of a committed XA transaction are
//! expanded into the batch, a bounded piece at a time; what had been read behind them waits in `staged`. Once that is used up, the
//! socket reads into the batch again.

mod passing;

use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;

use protocol::limits::MYSQL_EVENT_MAX;
use protocol::mysql::event::{Checksum, HEADER_LENGTH, Header, Kind, Message};
use protocol::mysql::packet::Frames;
use protocol::mysql::payload::PayloadEvents;
use protocol::mysql::resultset::ServerError;
use protocol::{DecodeError, DecodeErrorKind};

use self::passing::Passing;
use super::decode::{Decoder, Next, Origin};
use super::packets::{Packet, Packets};
use super::tables::Wanted;
use super::xa;
use crate::batch::{Batch, Event};
use crate::source::SourceError;

/// Bytes that a container is expanded by at a time.
const EXPAND: usize = 64 << 10;
/// Containers larger than this are not copied out of the buffer they came in; the buffer goes with them.
const COPY_MAX: usize = 256 << 10;
/// Bytes beside the row images that an event may have: header, bitmaps, checksum.
const EVENT_OVERHEAD: usize = 4096;

/// Where an event's header has its kind.
const KIND_AT: usize = 4;

/// Why decoding paused.
#[derive(Debug)]
pub(super) enum Step {
    /// More has to be read, into the batch.
    Read,
    /// The batch is full.
    Full,
    /// The shape of a table has to be asked from the server.
    Ask(Box<Wanted>),
    /// The server ended the dump with this error.
    Refused(ServerError),
    /// The server ended the dump.
    Ended,
}

/// Events that are being expanded.
enum Expansion {
    Payload(PayloadEvents<io::Cursor<Vec<u8>>>),
    Xa(xa::Reader),
}

impl fmt::Debug for Expansion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload(_) => "Payload",
            Self::Xa(_) => "Xa",
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) decoder: Decoder,
    packets: Packets,
    /// `Some`: packets are found here, and the batch has no unread bytes at its end.
    staged: Option<Vec<u8>>,
    expansion: Option<Expansion>,
    /// Events out of a container, in the batch, that have not been decoded.
    expanded: Range<usize>,
    /// Where the container of `expansion` and `expanded` stands.
    origin: Origin,
    /// What kind of event that container is.
    container: Kind,
    /// What was not decoded of `expanded` at the last seal.
    expanded_kept: Vec<u8>,
    /// The large event of the log that is being passed over.
    passing: Option<Passing>,
    /// Whether the batch is one that nothing has been put into.
    fresh: bool,
    batch_bytes: usize,
    row_max: usize,
}

impl Stream {
    pub(super) fn new(decoder: Decoder, batch_bytes: usize, row_max: usize) -> Self {
        Self {
            decoder,
            packets: Packets::new(Frames::unchecked(), 0),
            staged: None,
            expansion: None,
            expanded: 0..0,
            origin: Origin::Log,
            container: Kind::QUERY,
            expanded_kept: Vec::new(),
            passing: None,
            fresh: true,
            batch_bytes,
            row_max,
        }
    }

    /// Begins a dump on a new connection. What the last one left half-read is dropped: it comes again.
    pub(super) fn begin(
        &mut self,
        batch: &mut Batch,
        frames: Frames,
        checksum: Checksum,
        warm_up: bool,
    ) {
        if self.staged.take().is_none() && !self.fresh {
            batch.bytes.truncate(self.packets.start());
        }
        // A container is used up before anything more is read, unless it was damaged.
        self.expansion = None;
        self.expanded = 0..0;
        self.expanded_kept.clear();
        self.passing = None;
        self.packets = Packets::new(frames, batch.bytes.len());
        self.decoder.begin(checksum, warm_up);
    }

    /// Bytes to read into the batch at once: until it is full, but some in any case, so that a large event can be completed.
    pub(super) fn room(&self, batch: &Batch) -> usize {
        let least = (self.batch_bytes / 16).max(4096);
        self.full_at(batch).saturating_sub(load(batch)).max(least)
    }

    /// Bytes read that belong to no whole packet.
    pub(super) fn rest(&self, batch: &Batch) -> usize {
        let read = self.staged.as_ref().unwrap_or(&batch.bytes);
        read.len().saturating_sub(self.packets.start())
    }

    /// Whether a container is being expanded: what it holds came with the read that completed it, or earlier.
    pub(super) fn is_expanding(&self) -> bool {
        self.expansion.is_some() || !self.expanded.is_empty() || !self.expanded_kept.is_empty()
    }

    fn full_at(&self, batch: &Batch) -> usize {
        self.batch_bytes.saturating_add(batch.stretch)
    }

    /// Whether the batch holds as much as it may.
    pub(super) fn is_full(&self, batch: &Batch) -> bool {
        load(batch) >= self.full_at(batch) && (!batch.events.is_empty() || self.decoder.moved())
    }

    /// Drops what was decoded of a batch that is as large as it may be, but has nothing to hand on yet: a long transaction of tables
    /// that are not captured, rows that are kept aside, what stands before the start. Only events refer to bytes.
    fn shed(&mut self, batch: &mut Batch) {
        if !batch.events.is_empty() || load(batch) < self.full_at(batch) {
            return;
        }
        match self.staged {
            // All of it came out of a container or was copied in, and `expanded` is used up.
            Some(_) => batch.bytes.clear(),
            None => {
                batch.bytes.drain(..self.packets.start());
                self.packets.moved(0);
            }
        }
    }

    /// Decodes every whole event that is there, until something else has to happen.
    ///
    /// # Errors
    /// See [`Decoder::event`], and framing that cannot be right.
    pub(super) fn decode(&mut self, batch: &mut Batch) -> Result<Step, SourceError> {
        if mem::take(&mut self.fresh) {
            self.start_batch(batch);
        }
        loop {
            let step = if let Some(passing) = self.passing.take() {
                self.pass(passing, batch)?
            } else if !self.expanded.is_empty() {
                self.decode_expanded(batch)?
            } else if self.is_full(batch) && (self.expansion.is_some() || self.staged.is_some()) {
                Some(Step::Full)
            } else if self.expansion.is_some() {
                self.expand(batch)?;
                None
            } else if self.staged.is_some() {
                self.decode_staged(batch)?
            } else {
                self.decode_direct(batch)?
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    #[inline]
    fn decode_direct(&mut self, batch: &mut Batch) -> Result<Option<Step>, SourceError> {
        loop {
            let event = match self.packets.next(&mut batch.bytes) {
                Ok(Some(Packet::Event(event))) => event,
                Ok(Some(other)) => return self.end_of_dump(&batch.bytes, other).map(Some),
                Ok(None) => {
                    if self.look_at_arriving(&batch.bytes)? {
                        return Ok(None);
                    }
                    if self.is_full(batch) {
                        return Ok(Some(Step::Full));
                    }
                    self.shed(batch);
                    return Ok(Some(Step::Read));
                }
                Err(error) => return Err(self.misframed(error)),
            };
            if is_container(&batch.bytes, &event) {
                let behind = self.packets.start();
                self.staged = Some(batch.bytes.get(behind..).unwrap_or_default().to_vec());
                self.packets.moved(0);
                let container = if event.len() > COPY_MAX {
                    // The buffer goes with the container and is freed with it; what stands before it is less than a batch.
                    let before = batch.bytes.get(..event.start).unwrap_or_default().to_vec();
                    Container {
                        buffer: mem::replace(&mut batch.bytes, before),
                        event,
                    }
                } else {
                    let container = Container::copied(&batch.bytes, event.clone());
                    batch.bytes.truncate(event.start);
                    container
                };
                self.open_container(batch, container)?;
                return Ok(None);
            }
            match self.decoder.event(batch, event, Origin::Log)? {
                Next::Event => {}
                Next::Ask(wanted) => return Ok(Some(Step::Ask(wanted))),
                Next::Replay(reader, offset) => {
                    let behind = self.packets.start();
                    self.staged = Some(batch.bytes.split_off(behind));
                    self.packets.moved(0);
                    self.replay(reader, offset);
                    return Ok(None);
                }
            }
        }
    }

    /// One packet out of `staged`; when no whole one is left, back to direct mode.
    fn decode_staged(&mut self, batch: &mut Batch) -> Result<Option<Step>, SourceError> {
        self.shed(batch);
        let Some(staged) = &mut self.staged else {
            return Ok(None);
        };
        let event = match self.packets.next(staged) {
            Ok(Some(Packet::Event(event))) => event,
            Ok(Some(other)) => {
                let staged = mem::take(staged);
                return self.end_of_dump(&staged, other).map(Some);
            }
            Ok(None) => {
                self.unstage(batch);
                return Ok(None);
            }
            Err(error) => return Err(self.misframed(error)),
        };
        if is_container(staged, &event) {
            let container = if event.len() > COPY_MAX {
                let behind = staged.split_off(self.packets.start());
                self.packets.moved(0);
                Container {
                    buffer: mem::replace(staged, behind),
                    event,
                }
            } else {
                Container::copied(staged, event)
            };
            self.open_container(batch, container)?;
            return Ok(None);
        }
        let at = batch.bytes.len();
        batch.bytes.extend_from_slice(&staged[event]);
        let end = batch.bytes.len();
        match self.decoder.event(batch, at..end, Origin::Log)? {
            Next::Event => Ok(None),
            Next::Ask(wanted) => Ok(Some(Step::Ask(wanted))),
            Next::Replay(reader, offset) => {
                self.replay(reader, offset);
                Ok(None)
            }
        }
    }

    /// Back to direct mode: no whole packet is left.
    fn unstage(&mut self, batch: &mut Batch) {
        if let Some(staged) = self.staged.take() {
            let at = batch.bytes.len();
            let left = staged.get(self.packets.start()..).unwrap_or_default();
            batch.bytes.extend_from_slice(left);
            self.packets.moved(at);
        }
    }

    fn open_container(
        &mut self,
        batch: &mut Batch,
        Container { buffer, event }: Container,
    ) -> Result<(), SourceError> {
        let bytes = &buffer[event.clone()];
        let kind = Kind(bytes.get(KIND_AT).copied().unwrap_or_default());
        let parsed = Message::parse(self.decoder.format(Origin::Log), bytes);
        let (header, message) =
            parsed.map_err(|error| self.decoder.unreadable_next(kind, error))?;
        self.origin = self.decoder.enter(&header);
        self.container = kind;
        match message {
            Message::TransactionPayload(payload) => {
                let (compressed, range) = (payload.compressed, payload.range());
                let start = event.start + range.start;
                let end = event.start + range.end;
                let at = range.start as u64;
                let mut buffer = buffer;
                buffer.truncate(end);
                let mut payload = io::Cursor::new(buffer);
                payload.set_position(start as u64);
                let events = PayloadEvents::new(compressed, payload, at);
                self.expansion = Some(Expansion::Payload(
                    events.map_err(|error| self.unreadable(error))?,
                ));
            }
            Message::Compressed(compressed) => {
                if self.pass_compressed(header, bytes, compressed.expanded_length)? {
                    return Ok(());
                }
                let start = batch.bytes.len();
                let expanded = compressed.expand(&mut batch.bytes);
                if let Err(error) = expanded {
                    batch.bytes.truncate(start);
                    return Err(self.unreadable(error));
                }
                self.expanded = start..batch.bytes.len();
            }
            _ => {}
        }
        Ok(())
    }

    fn replay(&mut self, reader: xa::Reader, offset: u64) {
        self.origin = Origin::Container(offset);
        self.container = Kind::XA_PREPARE;
        self.expansion = Some(Expansion::Xa(reader));
    }

    /// The next piece of the open container.
    fn expand(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        self.shed(batch);
        let start = batch.bytes.len();
        let event_max = self.batch_bytes.min(self.event_max());
        let mut expanded = match &mut self.expansion {
            Some(Expansion::Payload(events)) => {
                match events.read_up_to_large(&mut batch.bytes, EXPAND, event_max) {
                    Ok(expanded) => expanded,
                    Err(error) => {
                        batch.bytes.truncate(start);
                        return Err(self.unreadable(error));
                    }
                }
            }
            Some(Expansion::Xa(reader)) => reader.read_into(&mut batch.bytes, EXPAND, event_max)?,
            None => 0,
        };
        if expanded == 0 && self.is_at_large() {
            expanded = self.take_large(batch)?;
            if expanded == 0 {
                return Ok(());
            }
        }
        if expanded > 0 {
            self.expanded = start..batch.bytes.len();
        } else if let Some(Expansion::Xa(_)) = self.expansion.take() {
            self.decoder.replayed()?;
        }
        Ok(())
    }

    fn is_at_large(&self) -> bool {
        match &self.expansion {
            Some(Expansion::Payload(events)) => events.large().is_some(),
            Some(Expansion::Xa(reader)) => reader.is_at_large(),
            None => false,
        }
    }

    fn decode_expanded(&mut self, batch: &mut Batch) -> Result<Option<Step>, SourceError> {
        while !self.expanded.is_empty() {
            let start = self.expanded.start;
            let bytes = batch.bytes.get(self.expanded.clone()).unwrap_or_default();
            let header = Header::parse(bytes).map_err(|error| self.unreadable(error))?;
            let end = start + header.length as usize;
            if end > self.expanded.end {
                let what = header.kind.name();
                let missing = (end - self.expanded.end) as u64;
                let kind = DecodeErrorKind::Truncated { missing };
                return Err(self.unreadable(DecodeError::new(what, 0, kind)));
            }
            self.expanded.start = end;
            match self.decoder.event(batch, start..end, self.origin)? {
                Next::Event => {}
                Next::Ask(wanted) => return Ok(Some(Step::Ask(wanted))),
                // A compressed XA transaction that commits in one phase: its rows stood before this, its last event.
                Next::Replay(reader, offset) if self.is_used_up()? => {
                    self.replay(reader, offset);
                    return Ok(None);
                }
                Next::Replay(..) => {
                    let kind = DecodeErrorKind::Invalid {
                        value: u64::from(header.kind.0),
                    };
                    return Err(self.unreadable(DecodeError::new("XA COMMIT", 0, kind)));
                }
            }
        }
        Ok(None)
    }

    /// Whether the open container holds nothing behind what was decoded of it.
    fn is_used_up(&mut self) -> Result<bool, SourceError> {
        if !self.expanded.is_empty() {
            return Ok(false);
        }
        match &mut self.expansion {
            Some(Expansion::Payload(events)) => {
                let mut behind = Vec::new();
                match events.read_into(&mut behind, 1, MYSQL_EVENT_MAX) {
                    Ok(length) => Ok(length == 0),
                    Err(error) => Err(self.unreadable(error)),
                }
            }
            // Rows that are read back commit nothing.
            Some(Expansion::Xa(_)) => Ok(false),
            None => Ok(true),
        }
    }

    /// Closes the batch: what is not decoded yet waits for the next one.
    pub(super) fn seal(&mut self, batch: &mut Batch) {
        if mem::take(&mut self.fresh) {
            self.start_batch(batch);
        }
        self.decoder.seal(batch);
        if self.staged.is_none() {
            self.staged = Some(batch.bytes.split_off(self.packets.start()));
            self.packets.moved(0);
        }
        if !self.expanded.is_empty() {
            self.expanded_kept = batch.bytes.split_off(self.expanded.start);
            self.expanded = 0..0;
        }
        self.fresh = true;
    }

    fn start_batch(&mut self, batch: &mut Batch) {
        if !self.expanded_kept.is_empty() {
            let start = batch.bytes.len();
            batch.bytes.append(&mut self.expanded_kept);
            self.expanded = start..batch.bytes.len();
        }
        if self.staged.is_none() {
            self.packets.moved(batch.bytes.len());
        }
    }

    /// What ends a dump.
    #[cold]
    fn end_of_dump(&self, bytes: &[u8], packet: Packet) -> Result<Step, SourceError> {
        match packet {
            Packet::Error(range) => {
                let payload = bytes.get(range).unwrap_or_default();
                ServerError::decode(payload)
                    .map(Step::Refused)
                    .map_err(|error| {
                        SourceError::retry("the server's error cannot be read").because(error)
                    })
            }
            Packet::Unknown(first) => Err(SourceError::retry(format!(
                "after {}: a packet begins with {first:02x?}, which no event, error or end does",
                self.decoder.last_position()
            ))),
            Packet::Event(_) | Packet::End => Ok(Step::Ended),
        }
    }

    #[cold]
    fn misframed(&self, error: DecodeError) -> SourceError {
        let last = self.decoder.last_position();
        SourceError::retry(format!(
            "after {last}: the connection's packets are damaged"
        ))
        .because(error)
    }

    #[cold]
    fn unreadable(&self, error: DecodeError) -> SourceError {
        match self.origin {
            Origin::Container(offset) => self.decoder.unreadable(self.container, offset, error),
            Origin::Log => self.decoder.unreadable_next(self.container, error),
        }
    }
}

/// A compressed transaction or event in a buffer of its own.
struct Container {
    buffer: Vec<u8>,
    event: Range<usize>,
}

impl Container {
    fn copied(bytes: &[u8], event: Range<usize>) -> Self {
        let buffer = bytes.get(event).unwrap_or_default().to_vec();
        Self {
            event: 0..buffer.len(),
            buffer,
        }
    }
}

/// Bytes that a batch holds, its indices included: small rows have more index than content.
#[inline]
fn load(batch: &Batch) -> usize {
    batch.bytes.len() + batch.events.len() * size_of::<Event>()
}

#[inline]
fn is_container(bytes: &[u8], event: &Range<usize>) -> bool {
    event.len() >= HEADER_LENGTH
        && bytes
            .get(event.start + KIND_AT)
            .is_some_and(|kind| is_container_kind(Kind(*kind)))
}

#[inline]
fn is_container_kind(kind: Kind) -> bool {
    kind.0 == Kind::TRANSACTION_PAYLOAD.0
        || (Kind::QUERY_COMPRESSED.0..=Kind::DELETE_ROWS_COMPRESSED.0).contains(&kind.0)
}
