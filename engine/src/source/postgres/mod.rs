//! PostgreSQL as a source: logical replication of one database.
//!
//! ```text
//! session ─► connection ─► stream (frames) ─► decode (transactions, rows) ─► Batch
//!    ▲            │ ▲                             │
//!    └─ backoff ◄─┘ └ feedback ◄─ checkpoint      └─ shapes (the catalog) where a description says too little
//! ```

mod binding;
mod checks;
mod coalesce;
pub mod connection;
mod decode;
mod feedback;
mod held;
mod line;
mod publication;
mod server;
mod session;
mod shapes;
mod stream;
mod tables;
mod transaction;
mod wal2json;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::postgres::Lsn;
use tokio::task::JoinHandle;

pub(in crate::source) use self::binding::end_point_hash;
use self::connection::ConnectOptions;
use self::decode::Decoder;
pub(in crate::source) use self::feedback::Confirmed;
use self::feedback::Feedback;
use self::line::Reader;
use self::session::{From, Plan, Session};
use self::shapes::Asking;
use self::stream::{Step, Stream};
use self::watch::Watch;
use super::arrivals::Arrivals;
use super::backoff::Backoff;
use super::{Counters, Filled, Identity, Limits, Requirement, Resume, SourceError, Verdict};
use crate::batch::Batch;
use crate::clock;
use crate::config::{SourceSettings, Start};
use crate::position::Position;

/// Bytes that one read may bring, at most and at least; half a batch otherwise.
const READ_MAX: usize = 128 << 10;
const READ_MIN: usize = 8 << 10;
/// A server that has been silent for this long is gone: it answers our status updates at least, being asked to.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long the end of the log may stay away before the server is asked for it.
const END_PATIENCE: Duration = Duration::from_millis(20);

/// A stream of a PostgreSQL database's changes.
#[derive(Debug)]
pub struct Postgres {
    name: Box<str>,
    plan: Plan,
    stream: Stream,
    link: Link,
    backoff: Backoff,
    /// Progress when the connection was made: it counts as working once there is more.
    progress_at_connect: u64,
    asking: Option<Asking>,
    asker: shapes::Asker,
    watch: Option<Watch>,
    confirmed: Arc<Confirmed>,
    identity: Identity,
    ancestors: Vec<(Identity, Position)>,
    end: Position,
    end_lsn: Lsn,
    until_end: bool,
    last_read: Instant,
    arrivals: Arrivals,
    /// When the first byte came of what the last seal left over.
    left_at: Option<Instant>,
    /// Bytes that one read may bring.
    chunk: usize,
    /// Whether the server has been asked for a sign of life since the last read.
    asked: bool,
    /// Whether the publication was made by us.
    made_publication: bool,
    /// Where bytes could not be read the last time: twice at the same place is no accident of the line.
    unreadable_at: Option<Lsn>,
}

/// The line to the server.
#[derive(Debug)]
enum Link {
    Up {
        reader: Reader,
        feedback: Feedback,
    },
    /// Being established, in a task of its own so that nothing is lost when a future of [`Postgres::fill`] is dropped.
    Coming(JoinHandle<(Backoff, Result<Session, SourceError>)>),
    /// Given up.
    Down,
}

fn plan(settings: &SourceSettings, from: From, server: Option<Identity>) -> Plan {
    Plan {
        options: ConnectOptions::to(&settings.address),
        slot: settings.slot.clone(),
        selection: settings.tables.clone(),
        from,
        server,
        first: true,
    }
}

impl Postgres {
    pub(super) async fn connect(
        settings: &SourceSettings,
        resume: Option<Resume>,
        limits: Limits,
        state: &Path,
    ) -> Result<Self, SourceError> {
        // What an operator sets names no server.
        let continued = resume.as_ref().is_some_and(|it| it.server.is_some());
        let (from, server) = match resume {
            Some(Resume { position, server }) => (point(&position)?, server),
            None => (from(&settings.start)?, None),
        };
        let mut plan = plan(settings, from, server);
        let held = held::Store::open(state, &settings.name, continued)?;
        let session = Session::open(&plan).await?;
        plan.first = false;
        let decoder = Decoder::new(
            &settings.address.database,
            settings.tables.clone(),
            session.start,
            held,
        );
        let mut stream = Stream::new(
            decoder,
            plan.slot.plugin,
            limits.batch_bytes,
            limits.row_max,
        );
        let mut first = Batch::default();
        stream.begin(&mut first, &session.streaming.first);
        let left_at = (!first.bytes.is_empty()).then(clock::now);
        stream.keep(&mut first);
        let confirmed = Arc::new(Confirmed::default());
        confirmed.confirm(session.start);
        let asker = shapes::Asker::new(plan.options.clone());
        let watch = Watch::start(&plan);
        let chunk = (limits.batch_bytes / 2).clamp(READ_MIN, READ_MAX);
        let (socket, round_trip) = (session.streaming.socket, session.streaming.round_trip);
        let (reader, writer) = line(socket, chunk, round_trip)?;
        Ok(Self {
            name: settings.name.clone(),
            stream,
            link: Link::Up {
                feedback: Feedback::start(Arc::clone(&confirmed), writer),
                reader,
            },
            plan,
            backoff: Backoff::default(),
            progress_at_connect: 0,
            asking: None,
            asker,
            watch,
            confirmed,
            identity: session.identity,
            ancestors: session.ancestors,
            end: Position::Postgres { lsn: session.end },
            end_lsn: session.end,
            until_end: limits.until_end,
            last_read: clock::now(),
            arrivals: Arrivals::default(),
            left_at,
            chunk,
            asked: false,
            made_publication: session.made_publication,
            unreadable_at: None,
        })
    }

    pub(super) async fn check(settings: &SourceSettings) -> Result<Vec<Requirement>, SourceError> {
        session::check(&plan(settings, From::Now, None)).await
    }

    pub(super) async fn fill(&mut self, batch: &mut Batch) -> Result<Filled, SourceError> {
        let events = batch.events.len();
        let progress = self.stream.decoder.progress();
        batch.read_at = batch.read_at.or(self.left_at.take());
        loop {
            if let Some(asking) = &mut self.asking {
                let answer = self.asker.answer(asking).await;
                self.asking = None;
                let (question, shape) = answer?;
                self.stream.answered(&question, shape);
            }
            if let Some(watch) = &mut self.watch {
                watch.check()?;
            }
            match self.stream.decode(batch) {
                Ok(Step::Read) => {}
                Ok(Step::Full) => return Ok(Filled::Full),
                Ok(Step::Ask(question)) => {
                    self.asking = Some(self.asker.ask(*question));
                    continue;
                }
                Ok(Step::Refused(error)) => {
                    let at = self.stream.decoder.safe();
                    self.lost(session::refused(&error, &self.plan, at))?;
                }
                Ok(Step::Ended) => self.lost(SourceError::retry("the server ended the stream"))?,
                Err(error) => self.unreadable(error)?,
            }
            if std::mem::take(&mut self.stream.server_wants_reply) {
                self.confirmed.answer();
            }
            let decoder = &self.stream.decoder;
            if self.until_end && decoder.is_between_transactions() && decoder.safe() >= self.end_lsn
            {
                return Ok(Filled::End);
            }
            if batch.events.len() > events || decoder.progress() > progress {
                return Ok(Filled::More);
            }
            self.read(batch).await?;
        }
    }

    /// Awaits one read, or a step of coming back.
    async fn read(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        let reader = match &mut self.link {
            Link::Up { reader, .. } => reader,
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
        // A server that has nothing to say is asked once for a sign of life: soon, where its end is waited for.
        let patience = match (self.until_end, self.asked) {
            (_, true) => SILENCE_MAX,
            (true, false) => END_PATIENCE,
            (false, false) => SILENCE_MAX / 2,
        };
        let deadline = tokio::time::Instant::from_std(self.last_read + patience);
        let rest = self.stream.rest(batch);
        let read = tokio::time::timeout_at(deadline, reader.read(&mut batch.bytes)).await;
        match read {
            Ok(Ok(None)) => self.lost(SourceError::retry("the server closed the connection")),
            Ok(Ok(Some((length, at)))) => {
                self.last_read = clock::now();
                self.asked = false;
                self.arrivals.read(at, length, rest);
                batch.read_at.get_or_insert(at);
                self.stream.decoder.counters_mut().bytes += length as u64;
                Ok(())
            }
            Ok(Err(error)) => {
                self.lost(SourceError::retry("the connection was lost").because(error))
            }
            Err(_) if !self.asked => {
                self.asked = true;
                self.last_read = clock::now();
                self.confirmed.ask();
                Ok(())
            }
            Err(_) => self.lost(SourceError::retry(format!(
                "the server has been silent for {} s, though asked for a sign of life",
                SILENCE_MAX.as_secs()
            ))),
        }
    }

    /// Bytes that cannot be read: once per place the line may have damaged them, twice it was not the line.
    fn unreadable(&mut self, error: SourceError) -> Result<(), SourceError> {
        let at = self.stream.decoder.safe();
        if error.verdict() == Verdict::Retry && self.unreadable_at.replace(at) == Some(at) {
            self.link = Link::Down;
            return Err(SourceError::halt(format!(
                "{error}; it came twice like this over different connections, so the server has something that this version does not \
                 read (compare pg_recvlogical on a copy of the slot: pg_copy_logical_replication_slot)"
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
        if self.plan.slot.temporary {
            self.link = Link::Down;
            return Err(SourceError::halt(format!(
                "{error}; the temporary slot went with the connection, and what was written since cannot be had"
            )));
        }
        let decoder = &self.stream.decoder;
        if decoder.progress() > self.progress_at_connect {
            self.backoff.reset();
        }
        tracing::warn!(source = %self.name, "connection lost, coming back: {error}");
        self.plan.from = From::Point(decoder.safe());
        self.plan.server = Some(self.identity.clone());
        // The old connection is closed first: the slot is free sooner.
        self.link = Link::Down;
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
        tracing::info!(source = %self.name, server = %session.identity, from = %session.start, "connected again");
        let (socket, round_trip) = (session.streaming.socket, session.streaming.round_trip);
        let (reader, writer) = line(socket, self.chunk, round_trip)?;
        self.stream.begin(batch, &session.streaming.first);
        let decoder = &mut self.stream.decoder;
        self.progress_at_connect = decoder.progress();
        decoder.counters_mut().reconnects += 1;
        self.identity = session.identity;
        self.ancestors = session.ancestors;
        self.last_read = clock::now();
        if self.stream.rest(batch) > 0 {
            batch.read_at.get_or_insert(self.last_read);
        }
        self.asked = false;
        self.link = Link::Up {
            feedback: Feedback::start(Arc::clone(&self.confirmed), writer),
            reader,
        };
        Ok(())
    }

    /// Ends the stream, and takes away what was made for this one alone.
    pub(super) async fn close(mut self) {
        self.link = Link::Down;
        if self.plan.slot.temporary
            && self.made_publication
            && let Err(error) = session::tidy(&self.plan).await
        {
            tracing::warn!(
                "publication {} remains: {error}",
                self.plan.slot.publication
            );
        }
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

    pub(super) fn ancestors(&self) -> &[(Identity, Position)] {
        &self.ancestors
    }

    pub(super) fn counters(&self) -> Counters {
        *self.stream.decoder.counters()
    }

    pub(super) fn confirmed(&self) -> Arc<Confirmed> {
        Arc::clone(&self.confirmed)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.link, Link::Down) {
            // What becomes durable after the last read is still to be said: the task ends with `Confirmed::close`.
            Link::Up { feedback, .. } => feedback.detach(),
            Link::Coming(task) => task.abort(),
            Link::Down => {}
        }
    }
}

fn line(
    socket: super::socket::Socket,
    chunk: usize,
    round_trip: Duration,
) -> Result<(Reader, line::Writer), SourceError> {
    line::take(socket, chunk, round_trip).map_err(|error| {
        SourceError::halt("the thread that reads the server's stream cannot be started")
            .because(error)
    })
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
        Start::At(position) => point(position),
    }
}

/// Where a checkpoint, or the operator, says to go on.
fn point(position: &Position) -> Result<From, SourceError> {
    match position {
        Position::Postgres { lsn } => Ok(From::Point(*lsn)),
        Position::MySql { .. } => Err(SourceError::halt(format!(
            "{position} is a position of MySQL, but the source is PostgreSQL; set one of its own by `walbrook position set`"
        ))),
    }
}

#[cfg(test)]
mod tests;
