//! MySQL and MariaDB as a source: the binary log over the replication protocol.
//!
//! ```text
//! session ─► connection ─► stream (packets, containers) ─► decode (transactions, rows) ─► Batch
//!    ▲            │                                          │
//!    └ reconnect ◄┘ lost                                     └─ shapes (information_schema) where TABLE_MAP says too little
//! ```

mod checks;
mod compression;
pub mod connection;
mod decode;
mod names;
mod outlook;
mod packets;
mod server;
mod session;
mod shapes;
mod stream;
mod tables;
mod transaction;
mod transport;
mod unlogged;
mod versions;
mod xa;

use std::path::Path;
use std::time::{Duration, Instant};

use protocol::mysql::BinlogPosition;
use protocol::mysql::gtid::{Flavour, GtidSet};

use self::connection::{ConnectOptions, Connection, ConnectionError};
use self::decode::{Decoder, Truncates};
use self::session::{From, Plan, Session};
use self::shapes::{Catalog, Question, Shape};
use self::stream::{Step, Stream};
use self::transaction::{Place, Point};
use self::versions::{Mark, Versions};
use super::reconnect::{self, Database, ReadError, Reconnecting};
use super::{Counters, Identity, Limits, Outcome, Requirement, Resume, SourceError, key_columns};
use crate::batch::Batch;
use crate::clock;
use crate::config::{Io, SourceSettings, Start};
use crate::position::Position;

/// Bytes that one read may bring: what a socket buffer holds.
const READ_MAX: usize = 256 << 10;
/// Bytes that one read of a ring may bring: up to four such buffers are under way.
const RING_READ_MAX: usize = 128 << 10;

/// A stream of a MySQL or MariaDB server's binary log.
#[derive(Debug)]
pub struct MySql {
    stream: Stream,
    flavour: Flavour,
    end: Position,
    end_point: Point,
    /// The server that `end` was read from.
    end_server: Identity,
    /// What has read the dumps.
    io: Io,
}

impl MySql {
    pub(super) async fn connect(
        settings: &SourceSettings,
        resume: Option<Resume>,
        limits: Limits,
        state: &Path,
    ) -> Result<Reconnecting<Self>, SourceError> {
        // What an operator sets names no server.
        let continued = resume.as_ref().is_some_and(|it| it.server.is_some());
        let (from, server) = match resume {
            Some(Resume { position, server }) => (point(position)?, server),
            None => (from(&settings.start)?, None),
        };
        let mut plan = Plan {
            options: ConnectOptions::to(&settings.address),
            server_id: settings.server_id,
            tables: settings.tables.clone(),
            from,
            server,
            check: true,
            io: limits.io,
        };
        let store = xa::Store::open(state, &settings.name, continued)?;
        let resume = match (&plan.from, &plan.server) {
            (From::Point(point), Some(server)) => Some(Mark::new(server, point.clone())),
            _ => None,
        };
        let versions = Versions::open(state, &settings.name, resume.as_ref())?;
        let session = Session::open(&plan).await?;
        plan.check = false;
        let compression = session.connection.compression();
        plan.options.round_trip = Some(session.connection.round_trip());
        tracing::info!(source = %settings.name, "wire compression {compression}");
        let mut decoder = Decoder::new(
            settings.tables.clone(),
            limits.row_max,
            session.has_gtids,
            session.start.clone(),
            session.identity.clone(),
            store,
            versions,
        );
        decoder.truncates = Truncates::new(settings.truncates);
        decoder.folds_names = session.folds_names;
        let mut stream = Stream::new(decoder, limits.batch_bytes, limits.row_max);
        stream.begin(
            &mut Batch::default(),
            session.frames,
            session.checksum,
            session.warm_up,
        );
        let catalog = Catalog::new(
            plan.options.clone(),
            session.flavour,
            settings.tables.clone(),
        );
        let mysql = Self {
            stream,
            flavour: session.flavour,
            end: position(&session.end),
            end_server: session.identity,
            end_point: session.end,
            io: session.connection.io(),
        };
        Ok(Reconnecting::new(
            settings.name.clone(),
            plan,
            mysql,
            session.connection,
            catalog,
            limits.until_end,
        ))
    }

    pub(super) async fn check(settings: &SourceSettings) -> Result<Vec<Requirement>, SourceError> {
        let options = ConnectOptions::to(&settings.address);
        let mut connection = Connection::connect(&options).await?;
        let tables = &settings.tables;
        let (variables, _, mut list) =
            session::requirements(&mut connection, &options, settings.server_id, Some(tables))
                .await?;
        list.push(unlogged::cascades(&mut connection, &variables, tables, &options.user).await?);
        for (schema, table, key) in settings.keys.iter() {
            let rows = connection
                .query(&shapes::columns_query(schema, table))
                .await?;
            let names: Vec<String> = (session::text(rows).into_iter())
                .filter_map(|row| row.into_iter().next()?)
                .collect();
            list.push(key_columns(schema, table, key, &names));
        }
        list.push(Requirement {
            what: format!("wire compression {}", connection.compression()),
            outcome: Outcome::Met,
        });
        connection.close().await;
        Ok(list)
    }

    pub(super) fn position(&self) -> Position {
        self.stream.decoder.position()
    }

    pub(super) fn end(&self) -> &Position {
        &self.end
    }

    pub(super) fn identity(&self) -> &Identity {
        self.stream.decoder.server()
    }

    pub(super) fn io(&self) -> Io {
        self.io
    }

    pub(super) fn counters(&self) -> Counters {
        *self.stream.decoder.counters()
    }
}

impl Database for MySql {
    type Plan = Plan;
    type Session = Session;
    type Line = Connection;
    type Place = BinlogPosition;
    type Catalog = Catalog;

    const SILENCE_MAX: Duration = Duration::from_secs(15);
    const SILENT: &'static str = "without a heartbeat";
    const UNREADABLE: &'static str = "either the server's file is damaged there (compare `mysqlbinlog --verify-binlog-checksum`), or it \
         has something that this version does not read";

    async fn open(plan: &Plan) -> Result<Session, SourceError> {
        Session::open(plan).await
    }

    fn resume(&mut self, batch: &mut Batch, session: Session) -> Result<Connection, SourceError> {
        self.stream
            .begin(batch, session.frames, session.checksum, session.warm_up);
        self.flavour = session.flavour;
        self.io = self.io.and(session.connection.io());
        self.stream.decoder.read_from(session.identity);
        Ok(session.connection)
    }

    fn aim(&self, plan: &mut Plan) {
        plan.from = From::Point(self.stream.decoder.safe().clone());
        plan.server = Some(self.identity().clone());
    }

    fn decode(
        &mut self,
        plan: &Plan,
        batch: &mut Batch,
    ) -> Result<reconnect::Step<Question>, SourceError> {
        use reconnect::Step as Next;
        loop {
            return Ok(match self.stream.decode(batch)? {
                Step::Read => Next::Read,
                Step::Full => Next::Full,
                Step::Ask(wanted) => {
                    let decoder = &mut self.stream.decoder;
                    if decoder.complete_from_kept(&wanted, self.flavour) {
                        continue;
                    }
                    Next::Ask(Question {
                        wanted: *wanted,
                        from: decoder.begin_of_transaction().clone(),
                        server: decoder.server().clone(),
                    })
                }
                Step::Refused(error) => {
                    Next::Lost(session::refused(&error, plan.server_id, &self.place()))
                }
                Step::Ended => Next::Lost(SourceError::retry("the server ended the stream")),
            });
        }
    }

    fn answered(&mut self, question: Question, shape: Shape) -> Result<(), SourceError> {
        self.stream.decoder.complete(&question.wanted, shape)
    }

    fn make_room(&self, batch: &mut Batch) {
        let room = self.stream.room(batch).min(READ_MAX);
        batch.bytes.reserve(room);
    }

    async fn read(
        line: &mut Connection,
        bytes: &mut Vec<u8>,
    ) -> Result<(usize, Instant), ReadError> {
        match line.read_into(bytes).await {
            Ok(length) => Ok((length, line.arrived().unwrap_or_else(clock::now))),
            Err(error @ ConnectionError::Protocol { .. }) => {
                Err(ReadError::Unreadable(SourceError::retry(error.to_string())))
            }
            Err(error) => Err(ReadError::Lost(error.into())),
        }
    }

    fn rest(&self, batch: &Batch) -> usize {
        self.stream.rest(batch)
    }

    fn is_expanding(&self) -> bool {
        self.stream.is_expanding()
    }

    fn seal(&mut self, batch: &mut Batch) {
        self.stream.seal(batch);
    }

    /// Whether everything up to the end at connect has been decoded.
    fn has_reached_end(&self) -> bool {
        let safe = self.stream.decoder.safe();
        let end = &self.end_point;
        if let (Some(safe), Some(end)) = (&safe.gtids, &end.gtids)
            && !end.is_empty()
            && end.is_subset(safe)
        {
            return true;
        }
        *self.identity() == self.end_server && is_past(&safe.place, &end.place)
    }

    fn progress(&self) -> u64 {
        self.stream.decoder.progress()
    }

    fn place(&self) -> BinlogPosition {
        self.stream.decoder.last_position()
    }

    fn whereabouts(&self) -> String {
        // GTIDs, where the server is another one than before.
        let from = position(self.stream.decoder.safe());
        format!("{} from {from}", self.identity())
    }

    fn counters_mut(&mut self) -> &mut Counters {
        self.stream.decoder.counters_mut()
    }
}

fn from(start: &Start) -> Result<From, SourceError> {
    match start {
        Start::Now => Ok(From::Now),
        Start::Earliest => Ok(From::Earliest),
        Start::At(position) => point(position.clone()),
    }
}

/// Where a checkpoint, or the operator, says to go on.
fn point(position: Position) -> Result<From, SourceError> {
    let Position::MySql { binlog, gtids } = position else {
        return Err(SourceError::halt(format!(
            "{position} is a position of PostgreSQL, but the source is MySQL; set one of its own by `walbrook position set`"
        )));
    };
    let read = |text: String| {
        text.parse::<GtidSet>().map_err(|error| {
            SourceError::halt(format!("the position's GTIDs {text:?} cannot be read"))
                .because(error)
        })
    };
    Ok(From::Point(Point {
        place: Place::new(&binlog),
        gtids: gtids.map(read).transpose()?,
    }))
}

fn position(point: &Point) -> Position {
    Position::MySql {
        binlog: point.place.to_position(),
        gtids: point.gtids.as_ref().map(ToString::to_string),
    }
}

/// Whether `place` is at or past `end`, on one server.
fn is_past(place: &Place, end: &Place) -> bool {
    order(place) >= order(end)
}

/// Orders places of one server: files are numbered, also beyond 999999.
fn order(place: &Place) -> (u64, u64) {
    let digits = (place.file.rsplit_once('.')).map_or("", |(_, digits)| digits);
    (digits.parse().unwrap_or(0), place.offset)
}

#[cfg(test)]
mod tests;
