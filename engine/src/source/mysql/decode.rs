//! The sequential decoder: events of the binary log into transactions, row groups and row changes of a Batch.
//!
//! ```text
//! GTID ─ QUERY BEGIN ─ [ROWS_QUERY] ─ TABLE_MAP … ─ ROWS … ─ XID         a transaction
//! GTID ─ QUERY ddl                                                       a transaction of its own
//! GTID ─ QUERY XA START ─ … rows … ─ QUERY XA END ─ XA_PREPARE           kept aside (see `xa`)
//! GTID that says so ─ … rows … ─ QUERY XA END ─ XA_PREPARE               the same of MariaDB, which writes no XA START
//! ```
//! It reads no socket and asks nobody: it is fed one event at a time, in place, and says what it needs ([`Next`]).
//! Events are indices into the batch's bytes; per row it finds where the images are and pushes one [`Event`].

mod kept;
mod passing;
mod prepared;
mod rows;
mod statements;
mod truncates;

use std::ops::Range;
use std::sync::Arc;

use protocol::mysql::BinlogPosition;
use protocol::mysql::event::{Checksum, Format, Header, Kind, Message};
use protocol::mysql::gtid::{DomainGtid, Gtid, GtidSet, IntervalSet, SourceId, Tag, Uuid};
use protocol::{DecodeError, DecodeErrorKind, Span};

pub(super) use self::passing::{Passage, Passed, Unpassable};
use self::rows::Sink;
pub(super) use self::truncates::Truncates;
use super::tables::{Tables, Truncated, Wanted};
use super::transaction::{Delivered, Open, Place, Point};
use super::versions::Versions;
use super::xa;
use crate::batch::Batch;
use crate::config::Selection;
use crate::position::Position;
use crate::source::{Counters, Identity, SourceError};

/// What has to happen before the next event.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing.
    Event,
    /// The shape of a table has to be asked from the server.
    Ask(Box<Wanted>),
    /// The rows of a committed XA transaction come here, as from this offset; [`Decoder::replayed`] afterwards.
    Replay(xa::Reader, u64),
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// As it stands in the binary log, checksum and all.
    Log,
    /// Out of a container (a compressed transaction or event, kept XA rows) at this offset, without a checksum.
    Container(u64),
}

/// From here on, what a server leaves out from the start of a file may be longer than [`Place::advance`] follows.
const FAR: u64 = 1 << 31;

/// See the module.
#[derive(Debug)]
pub(super) struct Decoder {
    selection: Selection,
    row_max: usize,
    /// Whether the server's transactions have GTIDs, so that a set can describe a position.
    has_gtids: bool,
    format: Format,
    bare_format: Format,
    /// After the last event.
    place: Place,
    /// After the last whole transaction.
    safe: Point,
    /// Whether `safe` moved since the last seal.
    moved: bool,
    /// How often `safe` moved.
    progress: u64,
    open: Option<Open>,
    delivered: Option<Delivered>,
    /// Where a dump by GTIDs goes on that begins at the start of a file, until its first transaction: that does not stand before it.
    resumed: Option<Place>,
    /// Up to this offset of the first file only GTIDs are read, to know those before it.
    warm_up: Option<u64>,
    tables: Tables,
    pub(super) truncates: Truncates,
    /// Whether the server stores the names of tables in lower case, so that a statement's name need not be the table's.
    pub(super) folds_names: bool,
    held: Option<xa::Writer>,
    store: xa::Store,
    /// What was asked about tables, and where it holds.
    versions: Versions,
    /// The server that is read.
    server: Identity,
    /// Number of the present batch.
    batch: u64,
    /// The file's name in the present batch's text.
    file_text: Option<(Arc<str>, Span)>,
    counters: Counters,
}

impl Decoder {
    pub(super) fn new(
        selection: Selection,
        row_max: usize,
        has_gtids: bool,
        start: Point,
        server: Identity,
        store: xa::Store,
        versions: Versions,
    ) -> Self {
        let format = Format::before_description(Checksum::Off);
        Self {
            selection,
            row_max,
            has_gtids,
            bare_format: format.without_checksum(),
            format,
            place: start.place.clone(),
            safe: start,
            moved: false,
            progress: 0,
            open: None,
            delivered: None,
            resumed: None,
            warm_up: None,
            tables: Tables::default(),
            truncates: Truncates::default(),
            folds_names: false,
            held: None,
            store,
            versions,
            server,
            batch: 0,
            file_text: None,
            counters: Counters::default(),
        }
    }

    /// Begins a dump, the first or a later one. `checksum` is how its first event is written. With `warm_up` the dump begins at the
    /// start of the file and rows before the point are passed over.
    pub(super) fn begin(&mut self, checksum: Checksum, warm_up: bool) {
        self.format = Format::before_description(checksum);
        self.bare_format = self.format.without_checksum();
        if let Some(open) = self.open.take().filter(|open| open.captured > 0) {
            let rows = match &self.delivered {
                // Lost again before everything had come that was handed out the first time.
                Some(before) if before.transaction == open.id() => before.rows.max(open.rows),
                _ => open.rows,
            };
            self.delivered = Some(Delivered {
                transaction: open.id(),
                rows,
            });
        }
        self.drop_held();
        self.store.again();
        self.warm_up = warm_up.then_some(self.safe.place.offset);
        self.place = self.safe.place.clone();
        self.resumed = (!warm_up && self.place.offset >= FAR).then(|| self.place.clone());
    }

    /// After the last event.
    pub(super) fn last_position(&self) -> BinlogPosition {
        self.place.to_position()
    }

    pub(super) fn safe(&self) -> &Point {
        &self.safe
    }

    /// Whether there is a position that no batch has yet.
    pub(super) fn moved(&self) -> bool {
        self.moved
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    #[cfg(test)]
    pub(super) fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// The server that is read.
    pub(super) fn server(&self) -> &Identity {
        &self.server
    }

    /// From here on the stream comes from this server.
    pub(super) fn read_from(&mut self, server: Identity) {
        if self.server != server {
            // Another server's place means nothing in this one's files.
            self.resumed = None;
            self.store.forget_places();
            // Until it says where its stream begins, only the GTIDs are known.
            if self.safe.gtids.is_some() {
                self.safe.place = Place::new(&Position::unknown_binlog());
                self.place = self.safe.place.clone();
            }
        }
        self.server = server;
    }

    /// From where a restart loses nothing.
    pub(super) fn position(&self) -> Position {
        let point = self.store.earliest().unwrap_or(&self.safe);
        Position::MySql {
            binlog: point.place.to_position(),
            gtids: point.gtids.as_ref().map(ToString::to_string),
        }
    }

    /// Grows whenever there is a later position.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    /// What of the present batch goes on in the next one; the batch's end is written.
    pub(super) fn seal(&mut self, batch: &mut Batch) {
        if std::mem::take(&mut self.moved) {
            batch.end = Some(self.position());
        }
        self.batch += 1;
        self.file_text = None;
    }

    /// Notes a container of events and returns its offset.
    pub(super) fn enter(&mut self, header: &Header) -> Origin {
        Origin::Container(self.place.advance(header))
    }

    /// The format of events in containers.
    pub(super) fn format(&self, origin: Origin) -> &Format {
        match origin {
            Origin::Log => &self.format,
            Origin::Container(_) => &self.bare_format,
        }
    }

    /// An error about the event at `offset`, told with its kind, file and offset. Bytes may have been damaged on their way: worth
    /// another attempt, unless the event is one that we do not read.
    #[cold]
    pub(super) fn unreadable(&self, kind: Kind, offset: u64, error: DecodeError) -> SourceError {
        let text = format!(
            "{} at {}:{offset} cannot be read",
            kind.name(),
            self.place.file
        );
        match error.kind {
            DecodeErrorKind::Unsupported { .. } => SourceError::halt(text),
            _ => SourceError::retry(text),
        }
        .because(error)
    }

    /// The same for the event that comes next.
    #[cold]
    pub(super) fn unreadable_next(&self, kind: Kind, error: DecodeError) -> SourceError {
        self.unreadable(kind, self.place.offset, error)
    }

    #[cold]
    fn refuse(&self, offset: u64, text: impl std::fmt::Display) -> SourceError {
        SourceError::halt(format!("{}:{offset}: {text}", self.place.file))
    }

    /// Reads the event `at` in the batch's bytes.
    ///
    /// # Errors
    /// The event cannot be read, or going on would lose changes.
    #[inline]
    pub(super) fn event(
        &mut self,
        batch: &mut Batch,
        at: Range<usize>,
        origin: Origin,
    ) -> Result<Next, SourceError> {
        let Batch {
            bytes,
            text,
            tables,
            transactions,
            groups,
            events,
            ..
        } = batch;
        let bytes = bytes.get(at.clone()).unwrap_or_default();
        let before = self.place.offset;
        let (header, message) = match Message::parse(self.format(origin), bytes) {
            Ok(parsed) => parsed,
            Err(error) => {
                let offset = match origin {
                    Origin::Log => before,
                    Origin::Container(offset) => offset,
                };
                return Err(self.unreadable(kind_of(bytes), offset, error));
            }
        };
        let offset = match origin {
            Origin::Log => self.place.advance(&header),
            Origin::Container(offset) => offset,
        };
        let checksum = match origin {
            Origin::Log => self.format.checksum.length(),
            Origin::Container(_) => 0,
        };
        let mut sink = Sink {
            text,
            tables,
            transactions,
            groups,
            events,
        };
        match message {
            // What stands before the start is not looked at.
            Message::Rows(_) | Message::TableMap(_) if self.warm_up.is_some() => Ok(Next::Event),
            Message::Rows(rows) => {
                match &mut self.held {
                    Some(held) => held.push(rows.bytes())?,
                    None => self.rows(&mut sink, &header, &rows, at.start, offset)?,
                }
                Ok(Next::Event)
            }
            Message::TableMap(map) => {
                if let Some(held) = &mut self.held {
                    held.push(bare(bytes, checksum))?;
                    return Ok(Next::Event);
                }
                match self.tables.note(&map, &self.selection) {
                    Ok(None) => Ok(Next::Event),
                    Ok(Some(wanted)) => Ok(Next::Ask(Box::new(wanted))),
                    Err(error) => Err(self.undescribed(&map, offset, error)),
                }
            }
            // The statement's text: Debezium leaves it out of its records unless told otherwise (`include.query`), and so do we.
            Message::RowsQuery(_) => Ok(Next::Event),
            message => self.rare(&mut sink, &header, message, offset),
        }
    }

    /// Everything that comes at most a few times per transaction.
    fn rare(
        &mut self,
        sink: &mut Sink<'_>,
        header: &Header,
        message: Message<'_>,
        offset: u64,
    ) -> Result<Next, SourceError> {
        match message {
            Message::Xid(_) => self.end_transaction()?,
            Message::Query(query) => return self.query(sink, header, &query, offset),
            Message::Gtid(gtid) => {
                let offset = self.first_offset(header, offset);
                self.begin_transaction(offset)?;
                if let Some(open) = &mut self.open {
                    open.commit_us = gtid.original_commit_us;
                    let tag = Tag::new(gtid.tag.as_bytes()).unwrap_or(Tag::NONE);
                    let uuid = Uuid(gtid.uuid);
                    open.gtid = (!gtid.anonymous).then_some(Gtid::MySql {
                        source: SourceId { uuid, tag },
                        number: gtid.number,
                    });
                }
                self.check_delivered(offset)?;
            }
            Message::MariaDbGtid(gtid) => {
                let offset = self.first_offset(header, offset);
                self.begin_transaction(offset)?;
                if let Some(open) = &mut self.open {
                    open.begun = !gtid.is_standalone();
                    open.gtid = Some(Gtid::MariaDb(DomainGtid {
                        domain: gtid.domain,
                        server: gtid.server_id,
                        sequence: gtid.sequence,
                    }));
                }
                self.check_delivered(offset)?;
                if gtid.is_prepared_xa() {
                    self.hold()?;
                }
            }
            Message::XaPrepare(prepare) => return self.xa_prepared(&prepare, offset),
            Message::FormatDescription(format) => self.described(header, format, offset)?,
            Message::Rotate(rotate) => {
                self.place.jump(rotate.file, rotate.position);
                if self.warm_up.is_some() && *self.place.file != *self.safe.place.file {
                    let start = self.safe.place.to_position();
                    return Err(SourceError::resync(format!(
                        "position {start} lies behind the end of its file; choose one that SHOW BINARY LOGS covers"
                    )));
                }
                self.settle()?;
            }
            Message::Heartbeat(heartbeat) => {
                if heartbeat.wide || *self.place.file != *heartbeat.file {
                    self.place.jump(heartbeat.file, heartbeat.position);
                } else {
                    self.place.widen(heartbeat.position as u32);
                }
                self.settle()?;
            }
            Message::PreviousGtids(set) => {
                if self.has_gtids && self.safe.gtids.is_none() {
                    let set = IntervalSet::decode(set)
                        .map_err(|error| self.unreadable(header.kind, offset, error))?;
                    self.safe.gtids = Some(GtidSet::MySql(set));
                }
                self.settle()?;
            }
            Message::MariaDbGtidList(list) => {
                if self.has_gtids && self.safe.gtids.is_none() {
                    let mut set = protocol::mysql::gtid::DomainSet::default();
                    for (domain, server, sequence) in list.iter() {
                        set.add(DomainGtid {
                            domain,
                            server,
                            sequence,
                        });
                    }
                    self.safe.gtids = Some(GtidSet::MariaDb(set));
                }
                self.settle()?;
            }
            // It stands before a start that was chosen behind it, and is a transaction of its own where it has a GTID.
            Message::Incident(_) if self.warm_up.is_some() => {
                if self.open.as_ref().is_none_or(|open| !open.begun) {
                    self.end_transaction()?;
                }
            }
            Message::Incident(incident) => {
                return Err(self.refuse(
                    offset,
                    format_args!(
                        "the server lost changes here (incident {}: {}); take a new snapshot of the captured tables, then set a \
                         later position by `walbrook position set`",
                        incident.number,
                        String::from_utf8_lossy(incident.message)
                    ),
                ));
            }
            Message::ExecuteLoadQuery(load) => {
                return self.query(sink, header, &load.query, offset);
            }
            _ => self.settle()?,
        }
        Ok(Next::Event)
    }

    /// FORMAT_DESCRIPTION: a file begins, or the dump does.
    fn described(
        &mut self,
        header: &Header,
        format: Format,
        offset: u64,
    ) -> Result<(), SourceError> {
        self.bare_format = format.without_checksum();
        self.format = format;
        // Made up for the dump it says nothing about transactions; in a file, a transaction before it was never finished.
        if header.next_position != 0
            && let Some(open) = self.open.take()
        {
            self.drop_held();
            if open.captured > 0 {
                return Err(self.refuse(
                    offset,
                    format_args!(
                        "transaction {} breaks off after {} rows that were handed on: the server crashed in it; compare its \
                         tables with their topics",
                        open.id(),
                        open.captured
                    ),
                ));
            }
        }
        self.settle()
    }

    /// The offset of an event that begins a transaction, put right where the server left out what stands before it: MariaDB does not say
    /// so, and of an offset events tell 32 bits.
    fn first_offset(&mut self, header: &Header, offset: u64) -> u64 {
        match self.resumed.take() {
            Some(resumed) if *resumed.file == *self.place.file => self
                .place
                .advance_behind(resumed.offset, header)
                .unwrap_or(offset),
            _ => offset,
        }
    }

    fn begin_transaction(&mut self, offset: u64) -> Result<(), SourceError> {
        if let Some(open) = &self.open
            && open.begun
        {
            let id = open.id();
            return Err(self.refuse(
                offset,
                format_args!("a transaction begins before {id} has ended"),
            ));
        }
        let first = Place {
            file: Arc::clone(&self.place.file),
            offset,
        };
        self.open = Some(Open::new(first));
        Ok(())
    }

    /// After a reconnect in the middle of a transaction that very one has to come first: its rows are out.
    fn check_delivered(&mut self, offset: u64) -> Result<(), SourceError> {
        // What stands before the start is not looked at: that transaction is the first one behind it.
        if self.warm_up.is_some() {
            return Ok(());
        }
        match (&self.delivered, &self.open) {
            (Some(delivered), Some(open)) if delivered.transaction != open.id() => {
                let text = format!(
                    "transaction {} was cut off after {} rows that were handed on, and the server goes on with {} instead: it \
                     does not have it; compare its tables with their topics",
                    delivered.transaction,
                    delivered.rows,
                    open.id()
                );
                Err(self.refuse(offset, text))
            }
            _ => Ok(()),
        }
    }

    fn end_transaction(&mut self) -> Result<(), SourceError> {
        let Some(open) = self.open.take() else {
            return self.settle();
        };
        self.drop_held();
        if let Some(delivered) = self.delivered.take_if(|d| d.transaction == open.id())
            && open.rows < delivered.rows
        {
            return Err(self.refuse(
                open.first.offset,
                format_args!(
                    "transaction {} has {} rows here, {} of it were handed on from another server",
                    delivered.transaction, open.rows, delivered.rows
                ),
            ));
        }
        let mut is_new = false;
        match (&open.gtid, &mut self.safe.gtids) {
            (Some(gtid), Some(set)) => {
                is_new = self.warm_up.is_none() && !set.contains(gtid);
                set.add(gtid);
            }
            // No set can describe a position after an anonymous transaction.
            (None, gtids) => *gtids = None,
            (Some(_), None) => {}
        }
        self.counters.transactions += 1;
        self.tables.tidy();
        self.settle_after(is_new)
    }

    /// Between two transactions every place is safe.
    #[inline]
    fn settle(&mut self) -> Result<(), SourceError> {
        self.settle_after(false)
    }

    /// The same; `is_new` behind a transaction whose GTID was not known before.
    #[inline]
    fn settle_after(&mut self, is_new: bool) -> Result<(), SourceError> {
        if self.open.is_some() {
            return Ok(());
        }
        if let Some(target) = self.warm_up {
            if self.place.offset < target {
                return Ok(());
            }
            if self.place.offset > target {
                return Err(SourceError::resync(format!(
                    "position {}:{target} lies inside a transaction or event; the next one after it begins at {}",
                    self.place.file, self.place.offset
                )));
            }
            self.warm_up = None;
        }
        let same_file = Arc::ptr_eq(&self.place.file, &self.safe.place.file)
            || self.place.file == self.safe.place.file;
        // A dump by GTIDs begins at the start of a file and leaves out what we have. A transaction that is new moves the place in any
        // case: another server may have a file of the same name, and stand at a lower offset in it.
        if is_new || !same_file || self.place.offset > self.safe.place.offset {
            self.safe.place = self.place.clone();
            self.moved = true;
            self.progress += 1;
        }
        Ok(())
    }
}

/// The kind that an event's header says, as far as it can be trusted.
fn kind_of(event: &[u8]) -> Kind {
    Kind(event.get(4).copied().unwrap_or_default())
}

/// An event without its checksum.
fn bare(event: &[u8], checksum: usize) -> &[u8] {
    &event[..event.len().saturating_sub(checksum)]
}
