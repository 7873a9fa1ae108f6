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

use std::ops::Range;
use std::sync::Arc;

use protocol::mysql::BinlogPosition;
use protocol::mysql::event::{Checksum, Format, Header, Kind, Message, Query, XaPrepare};
use protocol::mysql::gtid::{DomainGtid, Gtid, GtidSet, IntervalSet, SourceId, Tag, Uuid};
use protocol::mysql::rows::{Rows, RowsKind};
use protocol::mysql::statement::{self, TableName, XaVerb, Xid};
use protocol::{DecodeError, DecodeErrorKind, Span};

use super::shapes;
use super::tables::{Shape, Tables, Wanted};
use super::transaction::{Delivered, Open, Place, Point};
use super::xa;
use crate::batch::{Batch, Event, Operation, RowGroup, Transaction};
use crate::config::Selection;
use crate::position::Position;
use crate::schema::Table;
use crate::source::{Counters, SourceError};

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
    /// Rows up to this offset of the first file are only looked at to know the GTIDs before it.
    warm_up: Option<u64>,
    tables: Tables,
    held: Option<xa::Writer>,
    store: xa::Store,
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
        store: xa::Store,
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
            warm_up: None,
            tables: Tables::default(),
            held: None,
            store,
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

    pub(super) fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
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
                    Err(error) => Err(self.unreadable(header.kind, offset, error)),
                }
            }
            // The statement's text: Debezium leaves it out of its records unless told otherwise (`include.query`), and so do we.
            Message::RowsQuery(_) => Ok(Next::Event),
            message => self.rare(&header, message, offset),
        }
    }

    /// Everything that comes at most a few times per transaction.
    fn rare(
        &mut self,
        header: &Header,
        message: Message<'_>,
        offset: u64,
    ) -> Result<Next, SourceError> {
        match message {
            Message::Xid(_) => self.end_transaction()?,
            Message::Query(query) => return self.query(&query, offset),
            Message::Gtid(gtid) => {
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
            Message::ExecuteLoadQuery(load) => return self.query(&load.query, offset),
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

    /// A statement.
    fn query(&mut self, query: &Query<'_>, offset: u64) -> Result<Next, SourceError> {
        use statement::Statement as Said;
        let said = recognise(query);
        if self.open.is_none() {
            // Servers without GTIDs begin with the statement itself.
            self.begin_transaction(offset)?;
            if said != Said::Begin {
                self.check_delivered(offset)?;
            }
        }
        let Some(open) = &mut self.open else {
            return Ok(Next::Event);
        };
        match said {
            Said::Begin => {
                open.begun = true;
                open.thread = Some(query.thread);
                if open.gtid.is_none() && open.rows == 0 {
                    self.check_delivered(offset)?;
                }
            }
            Said::Commit => self.end_transaction()?,
            Said::Rollback if open.captured > 0 => {
                let id = open.id();
                return Err(self.refuse(
                    offset,
                    format_args!(
                        "transaction {id} changed tables with and without transactions and was rolled back: which of its rows \
                         remain cannot be known; compare the tables with their topics, and set a later position by \
                         `walbrook position set`"
                    ),
                ));
            }
            Said::Rollback => self.end_transaction()?,
            Said::RollbackToSavepoint if open.captured > 0 || self.held.is_some() => {
                return Err(self.refuse(
                    offset,
                    "ROLLBACK TO SAVEPOINT after rows: which of them remain cannot be known; set a later position by \
                     `walbrook position set`",
                ));
            }
            Said::RollbackToSavepoint | Said::Savepoint | Said::ReleaseSavepoint => {}
            Said::Xa(verb, xid) => return self.xa(verb, &xid, query, offset),
            Said::Dml { tables, .. } if self.captures(&tables, query.database) => {
                return Err(self.refuse(offset, statement_based(query)));
            }
            Said::Ddl {
                tables,
                begins_transaction,
                ..
            } => {
                self.redefined(&tables, query.database, offset)?;
                if let Some(open) = &mut self.open {
                    open.begun |= begins_transaction;
                }
                self.end_if_alone()?;
            }
            Said::DropDatabase(_) => {
                self.tables.forget(None);
                self.end_if_alone()?;
            }
            Said::Truncate(_) | Said::Dml { .. } | Said::Other => self.end_if_alone()?,
        }
        Ok(Next::Event)
    }

    /// Definitions changed: TABLE_MAPs with the same bytes as before may mean something else from here on.
    /// # Errors
    /// The names that rows before this place got were asked from the server behind it.
    fn redefined(
        &mut self,
        tables: &statement::Tables,
        database: &[u8],
        offset: u64,
    ) -> Result<(), SourceError> {
        for table in &tables.named {
            let schema = schema(table, database);
            let name = Some((&*schema, &*table.table));
            if self.tables.described_behind(name, &self.place) {
                let text = format!(
                    "the definition of {schema}.{} changes here, but its rows before were named by information_schema as of a \
                     later place, because the binary log has no names (binlog_row_metadata is not FULL): columns renamed or \
                     swapped here would be wrong in them; compare its records since the stream began, run SET GLOBAL \
                     binlog_row_metadata = FULL, and go on from here by `walbrook position set`",
                    table.table
                );
                return Err(self.refuse(offset, text));
            }
            self.tables.forget(name);
        }
        if !tables.complete {
            self.tables.forget(None);
        }
        Ok(())
    }

    /// Whether a statement may change a captured table.
    fn captures(&self, tables: &statement::Tables, database: &[u8]) -> bool {
        let captured = |table: &TableName| {
            self.selection
                .includes(&schema(table, database), &table.table)
        };
        if tables.named.iter().any(captured) {
            return true;
        }
        // What it changes besides may be anything; without any name, anything of its database.
        let database = String::from_utf8_lossy(database);
        !tables.complete && (database.is_empty() || self.selection.may_include_schema(&database))
    }

    /// A statement outside BEGIN and COMMIT is a transaction of its own.
    fn end_if_alone(&mut self) -> Result<(), SourceError> {
        match &self.open {
            Some(open) if open.begun => Ok(()),
            _ => self.end_transaction(),
        }
    }

    /// An XA statement.
    fn xa(
        &mut self,
        verb: XaVerb,
        xid: &Xid,
        query: &Query<'_>,
        offset: u64,
    ) -> Result<Next, SourceError> {
        match verb {
            XaVerb::Start => {
                if let Some(open) = &mut self.open {
                    open.begun = true;
                    open.thread = Some(query.thread);
                }
                self.hold()?;
            }
            XaVerb::End | XaVerb::Prepare => {}
            XaVerb::Commit | XaVerb::CommitOnePhase => {
                if let Some(reader) = self.store.commit(xid)? {
                    return Ok(Next::Replay(reader, offset));
                }
                let done = self.open.as_ref().is_some_and(|open| {
                    let first = &open.first;
                    self.store.was_decided(open.gtid.as_ref(), first)
                });
                if self.warm_up.is_none() && !done {
                    return Err(self.prepared_before(xid, offset));
                }
                self.end_transaction()?;
            }
            XaVerb::Rollback => {
                self.store.roll_back(xid);
                self.end_transaction()?;
            }
        }
        Ok(Next::Event)
    }

    /// The rows that follow are kept until it is decided whether they count.
    fn hold(&mut self) -> Result<(), SourceError> {
        self.drop_held();
        if self.warm_up.is_none() {
            self.held = Some(self.store.start(self.safe.clone())?);
        }
        Ok(())
    }

    /// Rows that were being kept never were, or come again.
    fn drop_held(&mut self) {
        if let Some(held) = self.held.take() {
            held.discard();
        }
    }

    #[cold]
    fn prepared_before(&self, xid: &Xid, offset: u64) -> SourceError {
        let text = format!(
            "XA transaction {} commits here, but it was prepared before the stream began, so its rows were not read; to capture them, \
             go on from before its XA PREPARE by `walbrook position set` (changes since then are written again); to leave them \
             out, go on behind it: `walbrook position set` with {}",
            xa::show(xid),
            self.place.to_position()
        );
        self.refuse(offset, text)
    }

    fn xa_prepared(&mut self, prepare: &XaPrepare<'_>, offset: u64) -> Result<Next, SourceError> {
        if let Some(writer) = self.held.take() {
            if prepare.one_phase {
                let reader = self.store.commit_at_once(writer)?;
                return Ok(Next::Replay(reader, offset));
            }
            self.store.prepare(xa::xid(prepare), writer)?;
        }
        self.end_transaction()?;
        Ok(Next::Event)
    }

    /// The rows that [`Next::Replay`] asked for have all been read.
    pub(super) fn replayed(&mut self) -> Result<(), SourceError> {
        self.end_transaction()?;
        self.store.replayed(&self.safe)
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
        match (&open.gtid, &mut self.safe.gtids) {
            (Some(gtid), Some(set)) => {
                set.add(gtid);
            }
            // No set can describe a position after an anonymous transaction.
            (None, gtids) => *gtids = None,
            (Some(_), None) => {}
        }
        self.counters.transactions += 1;
        self.tables.tidy();
        self.settle()
    }

    /// Between two transactions every place is safe.
    #[inline]
    fn settle(&mut self) -> Result<(), SourceError> {
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
        // A dump by GTIDs begins at the start of a file and leaves out what we have.
        if !same_file || self.place.offset > self.safe.place.offset {
            self.safe.place = self.place.clone();
            self.moved = true;
            self.progress += 1;
        }
        Ok(())
    }

    /// A ROWS event: `base` is where it starts in the batch's bytes.
    #[inline]
    fn rows(
        &mut self,
        sink: &mut Sink<'_>,
        header: &Header,
        rows: &Rows<'_>,
        base: usize,
        offset: u64,
    ) -> Result<(), SourceError> {
        let Some(open) = &mut self.open else {
            return Err(self.refuse(offset, IN_A_TRANSACTION));
        };
        let Some(entry) = self.tables.entry(rows.table_id) else {
            // The end of a statement without rows (`DUMMY_TABLE_ID`, MySQL 5.6 and MariaDB).
            if rows.column_count == 0 {
                return Ok(());
            }
            return Err(self.refuse(offset, IN_A_TRANSACTION));
        };
        let first_row = open.rows;
        let skip = match &self.delivered {
            _ if self.warm_up.is_some() => u64::MAX,
            Some(delivered) => delivered.rows.saturating_sub(first_row),
            None => 0,
        };
        let first_event = sink.events.len();
        let walked = match &entry.shape {
            Shape::Captured(table) => {
                let group = Group {
                    rows,
                    base,
                    header,
                    offset,
                    first_row,
                    skip,
                    row_max: self.row_max,
                };
                let names = Names {
                    batch: self.batch,
                    file_text: &mut self.file_text,
                };
                walk(sink, names, open, table, &mut entry.slot, &group)
            }
            _ => count(rows, entry.columns()),
        };
        let walked = match walked {
            Ok(walked) => walked,
            Err(Unwalkable::Event(error)) => {
                sink.events.truncate(first_event);
                let mariadb = matches!(open.gtid, Some(Gtid::MariaDb(_)));
                return match shapes::hidden_widths(entry.columns()) {
                    Some(columns) if mariadb => {
                        let text = hidden_widths(&entry.name, &columns);
                        Err(self.refuse(offset, text).because(error))
                    }
                    _ => Err(self.unreadable(header.kind, offset, error)),
                };
            }
            Err(Unwalkable::Large(bytes)) => {
                sink.events.truncate(first_event);
                let table = match &entry.shape {
                    Shape::Captured(table) => format!("{}.{}", table.schema, table.name),
                    _ => String::new(),
                };
                let max = self.row_max;
                return Err(self.refuse(
                    offset,
                    format_args!(
                        "a row of {table} has {bytes} bytes, more than row_max ({max}); raise engine.row_max, or leave the \
                         table out by tables = [\"!{table}\"]"
                    ),
                ));
            }
        };
        open.rows += walked;
        let pushed = (sink.events.len() - first_event) as u64;
        if let Shape::Captured(_) = entry.shape {
            open.captured += walked;
            self.counters.rows += pushed;
        } else {
            self.counters.rows_filtered += walked;
        }
        Ok(())
    }
}

const IN_A_TRANSACTION: &str = "rows come without their transaction and table: the position is inside a transaction; use one that \
     lies between two, as `walbrook position show` prints it";

/// The kind that an event's header says, as far as it can be trusted.
fn kind_of(event: &[u8]) -> Kind {
    Kind(event.get(4).copied().unwrap_or_default())
}

/// Rows of a MariaDB table with temporal columns of the old form do not have the lengths that the server's present description of
/// the table gives them.
fn hidden_widths(table: &str, columns: &str) -> String {
    format!(
        "rows of {table} do not fit its present definition: columns {columns} are stored as before MariaDB 10.1, where the binary log \
         does not tell how many fractional digits, and so bytes, they have, and they had others here than now; run SET GLOBAL \
         mysql56_temporal_format = ON, then ALTER TABLE {table} FORCE, and go on behind it by `walbrook position set` after a new \
         snapshot of the table, or leave it out by tables = [\"!{table}\"]"
    )
}

/// An event without its checksum.
fn bare(event: &[u8], checksum: usize) -> &[u8] {
    &event[..event.len().saturating_sub(checksum)]
}

/// What a statement does. Bytes that are not UTF-8 stand in literals, which nobody looks at.
fn recognise(query: &Query<'_>) -> statement::Statement {
    const ANSI_QUOTES: u64 = 0x4;
    let text = String::from_utf8_lossy(query.statement);
    let ansi_quotes = query.sql_mode.is_some_and(|mode| mode & ANSI_QUOTES != 0);
    statement::Statement::recognise(&text, ansi_quotes)
}

/// The database of a table that a statement names.
fn schema(table: &TableName, database: &[u8]) -> String {
    match &table.database {
        Some(database) => database.clone(),
        None => String::from_utf8_lossy(database).into_owned(),
    }
}

fn statement_based(query: &Query<'_>) -> String {
    let mut statement = String::from_utf8_lossy(query.statement).into_owned();
    if let Some((at, _)) = statement.char_indices().nth(200) {
        statement.truncate(at);
        statement.push('…');
    }
    format!(
        "a captured table was changed by a logged statement instead of rows: {statement:?}; run SET GLOBAL binlog_format = ROW (no \
         session may set another one), repeat the change or take a new snapshot, then set a later position by \
         `walbrook position set`"
    )
}

/// The parts of a batch that are not its bytes.
struct Sink<'b> {
    text: &'b mut Vec<u8>,
    tables: &'b mut Vec<Arc<Table>>,
    transactions: &'b mut Vec<Transaction>,
    groups: &'b mut Vec<RowGroup>,
    events: &'b mut Vec<Event>,
}

/// What the texts of a batch need.
struct Names<'b> {
    batch: u64,
    file_text: &'b mut Option<(Arc<str>, Span)>,
}

/// A ROWS event and what its rows share.
struct Group<'e> {
    rows: &'e Rows<'e>,
    base: usize,
    header: &'e Header,
    offset: u64,
    first_row: u64,
    /// This many rows are passed over.
    skip: u64,
    row_max: usize,
}

enum Unwalkable {
    Event(DecodeError),
    /// Bytes of a row over the limit.
    Large(usize),
}

impl From<DecodeError> for Unwalkable {
    fn from(error: DecodeError) -> Self {
        Self::Event(error)
    }
}

/// Counts the rows of a table that is not captured.
fn count(rows: &Rows<'_>, columns: &[protocol::mysql::Column]) -> Result<u64, Unwalkable> {
    let mut counted = 0;
    for row in rows.walk(columns)? {
        row?;
        counted += 1;
    }
    Ok(counted)
}

/// Pushes the rows of a captured table and returns how many there are, those passed over included.
#[inline]
fn walk(
    sink: &mut Sink<'_>,
    names: Names<'_>,
    open: &mut Open,
    table: &Arc<Table>,
    slot: &mut (u64, u32),
    group: &Group<'_>,
) -> Result<u64, Unwalkable> {
    let columns = table.columns.mysql();
    let Group { rows, base, .. } = *group;
    let operation = match rows.kind {
        RowsKind::Write => Operation::Create,
        RowsKind::Update => Operation::Update,
        RowsKind::Delete => Operation::Delete,
    };
    // Bounded by the batch's size and MYSQL_EVENT_MAX, so that every offset in it fits 32 bits.
    let event_end = base + rows.bytes().len();
    if u32::try_from(event_end).is_err() {
        return Err(Unwalkable::Large(rows.bytes().len()));
    }
    let base = base as u32;
    let shifted = |span: Span| match span.is_none() {
        true => span,
        false => Span {
            start: span.start + base,
            end: span.end + base,
        },
    };
    let number = sink.groups.len() as u32;
    let first_event = sink.events.len() as u32;
    let mut row_number: u32 = 0;
    for row in rows.walk(columns)? {
        let row = row?;
        let length = row.before.len() + row.after.len();
        if length > group.row_max {
            return Err(Unwalkable::Large(length));
        }
        if u64::from(row_number) >= group.skip {
            sink.events.push(Event {
                operation,
                group: number,
                row: row_number,
                before: shifted(row.before),
                after: shifted(row.after),
            });
        }
        row_number += 1;
    }
    if u64::from(row_number) <= group.skip {
        return Ok(u64::from(row_number));
    }
    if slot.0 != names.batch {
        *slot = (names.batch, sink.tables.len() as u32);
        sink.tables.push(Arc::clone(table));
    }
    let transaction = transaction(sink, names, open, first_event);
    sink.groups.push(RowGroup {
        table: slot.1,
        transaction,
        first_row: group.first_row,
        offset: group.offset,
        timestamp_s: group.header.timestamp_s,
        server_id: group.header.server_id,
        columns_before: shifted(rows.columns_before),
        columns_after: shifted(rows.columns_after),
        before_is_key: false,
        partial_json: rows.partial,
        query: Span::NONE,
    });
    Ok(u64::from(row_number))
}

/// The open transaction's index in the batch; `first_event` is the place of its first row there, where it is the first.
#[inline]
fn transaction(sink: &mut Sink<'_>, names: Names<'_>, open: &mut Open, first_event: u32) -> u32 {
    match open.slot {
        Some((batch, index)) if batch == names.batch => index,
        _ => {
            let index = sink.transactions.len() as u32;
            let file = match names.file_text {
                Some((file, span)) if *file == open.first.file => *span,
                other => {
                    let span = append(sink.text, |text| {
                        text.extend_from_slice(open.first.file.as_bytes());
                    });
                    *other = Some((Arc::clone(&open.first.file), span));
                    span
                }
            };
            let gtid = match open.gtid {
                Some(gtid) => append(sink.text, |text| {
                    use std::io::Write as _;
                    // Writing into a vector does not fail.
                    drop(write!(text, "{gtid}"));
                }),
                None => Span::NONE,
            };
            sink.transactions.push(Transaction {
                file,
                offset: open.first.offset,
                gtid,
                commit_us: open.commit_us,
                thread: open.thread,
                xid: None,
                previous_commit: None,
                first_event,
            });
            open.slot = Some((names.batch, index));
            index
        }
    }
}

fn append(text: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Span {
    let start = text.len();
    write(text);
    Span::new(start..text.len()).unwrap_or(Span::NONE)
}
