//! MySQL and MariaDB as a source: the binary log over the replication protocol.
//!
//! ```text
//! session ─► connection ─► stream (packets, containers) ─► decode (transactions, rows) ─► Batch
//!    ▲            │                                          │
//!    └─ backoff ◄─┘ lost                                     └─ shapes (information_schema) where TABLE_MAP says too little
//! ```

mod checks;
mod compression;
pub mod connection;
mod decode;
mod packets;
mod server;
mod session;
mod shapes;
mod stream;
mod tables;
mod transaction;
mod transport;
mod xa;

use std::path::Path;
use std::time::Instant;

use protocol::mysql::gtid::GtidSet;
use tokio::task::JoinHandle;

use self::connection::{ConnectOptions, Connection, ConnectionError};
use self::decode::Decoder;
use self::session::{From, Plan, SILENCE_MAX, Session};
use self::shapes::Asking;
use self::stream::{Step, Stream};
use self::transaction::{Place, Point};
use super::arrivals::Arrivals;
use super::backoff::Backoff;
use super::{
    Counters, Filled, Identity, Limits, Outcome, Requirement, Resume, SourceError, Verdict,
};
use crate::batch::Batch;
use crate::clock;
use crate::config::{SourceSettings, Start};
use crate::position::Position;

/// Bytes that one read may bring: what a socket buffer holds.
const READ_MAX: usize = 256 << 10;

/// A stream of a MySQL or MariaDB server's binary log.
#[derive(Debug)]
pub struct MySql {
    name: Box<str>,
    plan: Plan,
    stream: Stream,
    link: Link,
    backoff: Backoff,
    /// Progress when the connection was made: it counts as working once there is more.
    progress_at_connect: u64,
    asking: Option<Asking>,
    asker: shapes::Asker,
    identity: Identity,
    end: Position,
    end_point: Point,
    /// The server that `end` was read from.
    end_server: Identity,
    until_end: bool,
    last_read: Instant,
    arrivals: Arrivals,
    /// When the first byte came of what the last seal left over.
    left_at: Option<Instant>,
    /// Where bytes could not be read the last time: twice at the same place is no accident of the line.
    unreadable_at: Option<protocol::mysql::BinlogPosition>,
}

/// The line to the server.
#[derive(Debug)]
enum Link {
    Up(Box<Connection>),
    /// Being established, in a task of its own so that nothing is lost when a future of [`MySql::fill`] is dropped.
    Coming(JoinHandle<(Backoff, Result<Session, SourceError>)>),
    /// Given up.
    Down,
}

impl MySql {
    pub(super) async fn connect(
        settings: &SourceSettings,
        resume: Option<Resume>,
        limits: Limits,
        state: &Path,
    ) -> Result<Self, SourceError> {
        // What an operator sets names no server.
        let continued = resume.as_ref().is_some_and(|it| it.server.is_some());
        let (from, server) = match resume {
            Some(Resume { position, server }) => (point(position)?, server),
            None => (from(&settings.start)?, None),
        };
        let mut plan = Plan {
            options: ConnectOptions::to(&settings.address),
            server_id: settings.server_id,
            from,
            server,
            check: true,
        };
        let store = xa::Store::open(state, &settings.name, continued)?;
        let session = Session::open(&plan).await?;
        plan.check = false;
        let compression = session.connection.compression();
        plan.options.approach = Some(session.connection.approach());
        tracing::info!(source = %settings.name, "wire compression {compression}");
        let decoder = Decoder::new(
            settings.tables.clone(),
            limits.row_max,
            session.has_gtids,
            session.start.clone(),
            store,
        );
        let mut stream = Stream::new(decoder, limits.batch_bytes, limits.row_max);
        stream.begin(
            &mut Batch::default(),
            session.frames,
            session.checksum,
            session.warm_up,
        );
        let asker = shapes::Asker::new(plan.options.clone(), session.flavour);
        Ok(Self {
            name: settings.name.clone(),
            plan,
            stream,
            link: Link::Up(Box::new(session.connection)),
            backoff: Backoff::default(),
            progress_at_connect: 0,
            asking: None,
            asker,
            end: position(&session.end),
            end_server: session.identity.clone(),
            identity: session.identity,
            end_point: session.end,
            until_end: limits.until_end,
            last_read: clock::now(),
            arrivals: Arrivals::default(),
            left_at: None,
            unreadable_at: None,
        })
    }

    pub(super) async fn check(settings: &SourceSettings) -> Result<Vec<Requirement>, SourceError> {
        let options = ConnectOptions::to(&settings.address);
        let mut connection = Connection::connect(&options).await?;
        let (_, _, mut list) =
            session::requirements(&mut connection, &options, settings.server_id).await?;
        list.push(Requirement {
            what: format!("wire compression {}", connection.compression()),
            outcome: Outcome::Met,
        });
        connection.close().await;
        Ok(list)
    }

    pub(super) async fn fill(&mut self, batch: &mut Batch) -> Result<Filled, SourceError> {
        let events = batch.events.len();
        let progress = self.stream.decoder.progress();
        batch.read_at = batch.read_at.or(self.left_at.take());
        loop {
            if let Some(asking) = &mut self.asking {
                let shape = self.asker.answer(asking).await;
                self.asking = None;
                let (wanted, shape) = shape?;
                let tables = self.stream.decoder.tables_mut();
                let as_of = shape.as_of.as_ref().map(Place::new);
                tables.complete(&wanted, shape.columns, shape.key, as_of);
            }
            match self.stream.decode(batch) {
                Ok(Step::Read) => {}
                Ok(Step::Full) => return Ok(Filled::Full),
                Ok(Step::Ask(wanted)) => {
                    let at = self.stream.decoder.last_position();
                    self.asking = Some(self.asker.ask(*wanted, at));
                    continue;
                }
                Ok(Step::Refused(error)) => {
                    let at = self.stream.decoder.last_position();
                    self.lost(session::refused(&error, self.plan.server_id, &at))?;
                }
                Ok(Step::Ended) => self.lost(SourceError::retry("the server ended the stream"))?,
                Err(error) => self.unreadable(error)?,
            }
            if self.until_end && self.has_reached_end() {
                return Ok(Filled::End);
            }
            let decoder = &self.stream.decoder;
            if batch.events.len() > events || decoder.progress() > progress {
                return Ok(Filled::More);
            }
            self.read(batch).await?;
        }
    }

    /// Awaits one read, or a step of coming back.
    async fn read(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        let connection = match &mut self.link {
            Link::Up(connection) => connection,
            Link::Coming(task) => {
                let done = task.await;
                return self.came_back(batch, done);
            }
            Link::Down => {
                return Err(SourceError::halt(format!(
                    "source {} has stopped after an earlier error",
                    self.name
                )));
            }
        };
        let room = self.stream.room(batch).min(READ_MAX);
        batch.bytes.reserve(room);
        let rest = self.stream.rest(batch);
        let deadline = tokio::time::Instant::from_std(self.last_read + SILENCE_MAX);
        let read = tokio::time::timeout_at(deadline, connection.read_into(&mut batch.bytes)).await;
        match read {
            Ok(Ok(length)) => {
                self.last_read = clock::now();
                self.arrivals.read(self.last_read, length, rest);
                batch.read_at.get_or_insert(self.last_read);
                self.stream.decoder.counters_mut().bytes += length as u64;
                Ok(())
            }
            Ok(Err(error @ ConnectionError::Protocol { .. })) => {
                self.unreadable(SourceError::retry(error.to_string()))
            }
            Ok(Err(error)) => self.lost(error.into()),
            Err(_) => self.lost(SourceError::retry(format!(
                "the server has been silent for {} s, without a heartbeat",
                SILENCE_MAX.as_secs()
            ))),
        }
    }

    /// Bytes that cannot be read: once per place the line may have damaged them, twice it was not the line.
    fn unreadable(&mut self, error: SourceError) -> Result<(), SourceError> {
        let at = self.stream.decoder.last_position();
        if error.verdict() == Verdict::Retry && self.unreadable_at.replace(at.clone()) == Some(at) {
            self.link = Link::Down;
            return Err(SourceError::halt(format!(
                "{error}; it came twice like this over different connections, so either the server's file is damaged there (compare \
                 `mysqlbinlog --verify-binlog-checksum`), or it has something that this version does not read"
            )));
        }
        self.lost(error)
    }

    /// The stream broke off: come back, or give up.
    fn lost(&mut self, error: SourceError) -> Result<(), SourceError> {
        if error.verdict() != Verdict::Retry {
            self.link = Link::Down;
            return Err(error);
        }
        let decoder = &self.stream.decoder;
        if decoder.progress() > self.progress_at_connect {
            self.backoff.reset();
        }
        tracing::warn!(source = %self.name, "connection lost, coming back: {error}");
        self.plan.from = From::Point(decoder.safe().clone());
        self.plan.server = Some(self.identity.clone());
        let task = tokio::spawn(come_back(
            self.name.clone(),
            self.plan.clone(),
            self.backoff.clone(),
        ));
        self.link = Link::Coming(task);
        Ok(())
    }

    fn came_back(
        &mut self,
        batch: &mut Batch,
        done: Result<(Backoff, Result<Session, SourceError>), tokio::task::JoinError>,
    ) -> Result<(), SourceError> {
        self.link = Link::Down;
        let (backoff, session) =
            done.map_err(|error| SourceError::halt("reconnecting was given up").because(error))?;
        self.backoff = backoff;
        let session = session?;
        tracing::info!(source = %self.name, server = %session.identity, from = %session.start.place.to_position(), "connected again");
        self.stream
            .begin(batch, session.frames, session.checksum, session.warm_up);
        let decoder = &mut self.stream.decoder;
        self.progress_at_connect = decoder.progress();
        decoder.counters_mut().reconnects += 1;
        self.identity = session.identity;
        self.last_read = clock::now();
        self.link = Link::Up(Box::new(session.connection));
        Ok(())
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
        self.identity == self.end_server && is_past(&safe.place, &end.place)
    }

    pub(super) fn seal(&mut self, batch: &mut Batch) {
        self.left_at = match self.stream.is_expanding() {
            true => self.arrivals.oldest_of_last(),
            false => self.arrivals.oldest(self.stream.rest(batch)),
        };
        self.stream.seal(batch);
    }

    pub(super) fn position(&self) -> Position {
        self.stream.decoder.position()
    }

    pub(super) fn end(&self) -> &Position {
        &self.end
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn counters(&self) -> Counters {
        *self.stream.decoder.counters()
    }
}

impl Drop for MySql {
    fn drop(&mut self) {
        if let Link::Coming(task) = &self.link {
            task.abort();
        }
    }
}

/// Opens sessions until one succeeds or fails for good.
async fn come_back(
    name: Box<str>,
    plan: Plan,
    mut backoff: Backoff,
) -> (Backoff, Result<Session, SourceError>) {
    loop {
        // The first attempt comes at once: most often only the connection was lost.
        if backoff.attempts() > 0 {
            tokio::time::sleep(backoff.next(rand::random())).await;
        } else {
            let _ = backoff.next(0.0);
        }
        match Session::open(&plan).await {
            Err(error) if error.verdict() == Verdict::Retry => {
                tracing::warn!(source = %name, attempts = backoff.attempts(), "cannot come back yet: {error}");
            }
            other => return (backoff, other),
        }
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

/// Whether `place` is at or past `end`, on one server: files are numbered, also beyond 999999.
fn is_past(place: &Place, end: &Place) -> bool {
    let number = |file: &str| {
        let digits = file.rsplit_once('.').map_or("", |(_, digits)| digits);
        digits.parse::<u64>().unwrap_or(0)
    };
    let key = |place: &Place| (number(&place.file), place.offset);
    key(place) >= key(end)
}

#[cfg(test)]
mod tests;
