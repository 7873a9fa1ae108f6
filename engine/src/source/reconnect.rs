//! One unbroken stream over connections that break, for every kind of server.
//!
//! ```text
//!          ┌──────────────── came back ────────────────┐
//!          ▼                                           │
//! Up(line) ── read, decode, read, decode … ── lost ─► Coming(task: open, wait, open, …)
//!                                              │       │
//!                                              └───────┴── for good ─► Down
//! ```
//! It knows no database: what is read and how a session is opened is the [`Database`]'s.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::arrivals::Arrivals;
use super::asker::{Asker, Catalog};
use super::backoff::Backoff;
use super::{Counters, Filled, SourceError, Verdict};
use crate::batch::Batch;
use crate::clock;

/// A server's stream, as far as one connection carries it.
pub(super) trait Database: Sized + Send + 'static {
    /// How to open a session.
    type Plan: Clone + Send + Sync + 'static;
    /// A server whose stream has begun.
    type Session: Send + 'static;
    /// What a session reads from and writes to.
    type Line: fmt::Debug + Send;
    /// Where the stream stands.
    type Place: PartialEq + fmt::Debug + Send;
    /// Who knows what the stream does not say.
    type Catalog: Catalog;

    /// A server that has been silent for this long is gone.
    const SILENCE_MAX: Duration;
    /// What it did not do in that time, for the message: `without a heartbeat`.
    const SILENT: &'static str;
    /// What an operator can do about bytes that came twice and could not be read.
    const UNREADABLE: &'static str;

    /// Connects and begins the stream where `plan` says.
    fn open(plan: &Self::Plan) -> impl Future<Output = Result<Self::Session, SourceError>> + Send;

    /// Goes on in a session that was opened after the last one broke. What the last one left half-read is dropped.
    ///
    /// # Errors
    /// The session cannot be used.
    fn resume(
        &mut self,
        batch: &mut Batch,
        session: Self::Session,
    ) -> Result<Self::Line, SourceError>;

    /// Points the plan behind the last whole transaction, on the server that it was read from.
    fn aim(&self, plan: &mut Self::Plan);

    /// Why a stream that is lost cannot be had again; `None` where it can.
    fn gone_with_the_line(_plan: &Self::Plan) -> Option<&'static str> {
        None
    }

    /// Decodes what is there, until something else has to happen.
    ///
    /// # Errors
    /// Bytes that cannot be read (`Retry`: they may have been damaged on the way), or what must not be read over.
    fn decode(
        &mut self,
        plan: &Self::Plan,
        batch: &mut Batch,
    ) -> Result<Step<<Self::Catalog as Catalog>::Question>, SourceError>;

    /// What [`Step::Ask`] asked for.
    ///
    /// # Errors
    /// Going on with the answer would lose or bend data.
    fn answered(
        &mut self,
        question: <Self::Catalog as Catalog>::Question,
        shape: <Self::Catalog as Catalog>::Shape,
    ) -> Result<(), SourceError>;

    /// Makes room in the batch for the next read.
    fn make_room(&self, _batch: &mut Batch) {}

    /// Awaits one read; how many bytes came over the line, and when the first of them did. Cancel-safe.
    fn read(
        line: &mut Self::Line,
        bytes: &mut Vec<u8>,
    ) -> impl Future<Output = Result<(usize, Instant), ReadError>> + Send;

    /// Bytes read that belong to nothing whole yet.
    fn rest(&self, batch: &Batch) -> usize;

    /// Whether something is being expanded that came with the read that completed it, or earlier.
    fn is_expanding(&self) -> bool;

    /// As [`super::Source::seal`].
    fn seal(&mut self, batch: &mut Batch);

    /// How long to wait for a read before [`Database::ask_for_life`], and, with `asked`, before the server counts as gone.
    fn patience(&self, _asked: bool) -> Duration {
        Self::SILENCE_MAX
    }

    /// Asks a silent server for a sign of life; `false` where there is no way to.
    fn ask_for_life(&mut self) -> bool {
        false
    }

    /// The program ends with the line still up.
    fn leave(line: Self::Line) {
        drop(line);
    }

    /// Takes away what was made on the server for this stream alone.
    fn close(&self, _plan: &Self::Plan) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Whether everything up to the server's end at the first connect has been decoded.
    fn has_reached_end(&self) -> bool;

    /// Grows whenever there is a later position.
    fn progress(&self) -> u64;

    /// Where the stream stands.
    fn place(&self) -> Self::Place;

    /// Where it goes on, and on which server, for the log.
    fn whereabouts(&self) -> String;

    fn counters_mut(&mut self) -> &mut Counters;
}

/// Why decoding paused.
#[derive(Debug)]
pub(super) enum Step<Q> {
    /// More has to be read, into the batch.
    Read,
    /// The batch is full.
    Full,
    /// Something has to be asked first.
    Ask(Q),
    /// The stream ended here.
    Lost(SourceError),
}

/// Why nothing could be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// What came is no protocol of this server.
    Unreadable(SourceError),
    /// The connection broke.
    Lost(SourceError),
}

/// The line to the server.
#[derive(Debug)]
enum Link<D: Database> {
    Up(D::Line),
    /// Being established, in a task of its own so that nothing is lost when a future of [`Reconnecting::fill`] is dropped.
    Coming(JoinHandle<(Backoff, Result<D::Session, SourceError>)>),
    /// Given up.
    Down,
}

/// A stream that comes back after the last whole transaction when its connection is lost.
pub(super) struct Reconnecting<D: Database> {
    name: Box<str>,
    plan: D::Plan,
    database: D,
    link: Link<D>,
    backoff: Backoff,
    /// Progress when the connection was made: it counts as working once there is more.
    progress_at_connect: u64,
    asker: Asker<D::Catalog>,
    until_end: bool,
    last_read: Instant,
    arrivals: Arrivals,
    /// When the first byte came of what the last seal left over.
    left_at: Option<Instant>,
    /// Whether the server has been asked for a sign of life since the last read.
    asked: bool,
    /// Where bytes could not be read the last time: twice at the same place is no accident of the line.
    unreadable_at: Option<D::Place>,
}

impl<D: Database + fmt::Debug> fmt::Debug for Reconnecting<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("name", &self.name)
            .field("database", &self.database)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

impl<D: Database> Reconnecting<D> {
    /// A stream whose first session is open. `plan` opens the later ones.
    pub(super) fn new(
        name: Box<str>,
        plan: D::Plan,
        database: D,
        line: D::Line,
        catalog: D::Catalog,
        until_end: bool,
    ) -> Self {
        let now = clock::now();
        Self {
            left_at: (database.rest(&Batch::default()) > 0).then_some(now),
            name,
            plan,
            database,
            link: Link::Up(line),
            backoff: Backoff::default(),
            progress_at_connect: 0,
            asker: Asker::new(catalog),
            until_end,
            last_read: now,
            arrivals: Arrivals::default(),
            asked: false,
            unreadable_at: None,
        }
    }

    pub(super) fn database(&self) -> &D {
        &self.database
    }

    /// As [`super::Source::seal`].
    pub(super) fn seal(&mut self, batch: &mut Batch) {
        self.left_at = match self.database.is_expanding() {
            true => self.arrivals.oldest_of_last(),
            false => self.arrivals.oldest(self.database.rest(batch)),
        };
        self.database.seal(batch);
    }

    /// As [`super::Source::fill`].
    pub(super) async fn fill(&mut self, batch: &mut Batch) -> Result<Filled, SourceError> {
        let events = batch.events.len();
        let progress = self.database.progress();
        batch.read_at = batch.read_at.or(self.left_at.take());
        loop {
            if let Some((question, shape)) = self.asker.answer().await? {
                self.database.answered(question, shape)?;
            }
            match self.database.decode(&self.plan, batch) {
                Ok(Step::Read) => {}
                Ok(Step::Full) => return Ok(Filled::Full),
                Ok(Step::Ask(question)) => {
                    self.asker.ask(question);
                    continue;
                }
                Ok(Step::Lost(error)) => self.lost(error)?,
                Err(error) => self.unreadable(error)?,
            }
            if self.until_end && self.database.has_reached_end() {
                return Ok(Filled::End);
            }
            if batch.events.len() > events || self.database.progress() > progress {
                return Ok(Filled::More);
            }
            if self.read(batch).await? {
                return Ok(Filled::Nothing);
            }
        }
    }

    /// Awaits one read, or a step of coming back; whether that has come back. Then nothing has been decoded yet of what follows, which may
    /// be another server's.
    async fn read(&mut self, batch: &mut Batch) -> Result<bool, SourceError> {
        let line = match &mut self.link {
            Link::Up(line) => line,
            Link::Coming(task) => {
                let done = task.await;
                return self.came_back(batch, done).map(|()| true);
            }
            Link::Down => {
                return Err(SourceError::halt(format!(
                    "source {} has stopped after an earlier error",
                    self.name
                )));
            }
        };
        self.database.make_room(batch);
        let rest = self.database.rest(batch);
        let patience = self.database.patience(self.asked);
        let deadline = tokio::time::Instant::from_std(self.last_read + patience);
        let read = match tokio::time::timeout_at(deadline, D::read(line, &mut batch.bytes)).await {
            Ok(Ok((length, at))) => {
                self.last_read = clock::now();
                self.asked = false;
                self.arrivals.read(batch, at, length, rest);
                self.database.counters_mut().bytes += length as u64;
                Ok(())
            }
            Ok(Err(ReadError::Unreadable(error))) => self.unreadable(error),
            Ok(Err(ReadError::Lost(error))) => self.lost(error),
            Err(_) if !self.asked && self.database.ask_for_life() => {
                self.asked = true;
                self.last_read = clock::now();
                Ok(())
            }
            Err(_) => self.lost(SourceError::retry(format!(
                "the server has been silent for {} s, {}",
                patience.as_secs(),
                D::SILENT
            ))),
        };
        read.map(|()| false)
    }

    /// Bytes that cannot be read: once per place the line may have damaged them, twice it was not the line.
    fn unreadable(&mut self, error: SourceError) -> Result<(), SourceError> {
        let at = self.database.place();
        if error.verdict() == Verdict::Retry {
            if self.unreadable_at.as_ref() == Some(&at) {
                self.link = Link::Down;
                return Err(SourceError::halt(format!(
                    "{error}; it came twice like this over different connections, so {}",
                    D::UNREADABLE
                )));
            }
            self.unreadable_at = Some(at);
        }
        self.lost(error)
    }

    /// The stream broke off: come back, or give up.
    fn lost(&mut self, error: SourceError) -> Result<(), SourceError> {
        // The old connection is closed first: what the server keeps for it is free sooner.
        self.link = Link::Down;
        if error.verdict() != Verdict::Retry {
            return Err(error);
        }
        if let Some(why) = D::gone_with_the_line(&self.plan) {
            return Err(SourceError::halt(format!("{error}; {why}")));
        }
        if self.database.progress() > self.progress_at_connect {
            self.backoff.reset();
        }
        tracing::warn!(source = %self.name, "connection lost, coming back: {error}");
        self.database.aim(&mut self.plan);
        let task = tokio::spawn(come_back::<D>(
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
        done: Result<(Backoff, Result<D::Session, SourceError>), tokio::task::JoinError>,
    ) -> Result<(), SourceError> {
        self.link = Link::Down;
        let (backoff, session) =
            done.map_err(|error| SourceError::halt("reconnecting was given up").because(error))?;
        self.backoff = backoff;
        let line = self.database.resume(batch, session?)?;
        tracing::info!(source = %self.name, "connected again: {}", self.database.whereabouts());
        self.progress_at_connect = self.database.progress();
        self.database.counters_mut().reconnects += 1;
        self.last_read = clock::now();
        if self.database.rest(batch) > 0 {
            batch.read_at.get_or_insert(self.last_read);
        }
        self.asked = false;
        self.link = Link::Up(line);
        Ok(())
    }

    /// When something came last; tests let time pass by it.
    #[cfg(test)]
    pub(super) fn last_read_mut(&mut self) -> &mut Instant {
        &mut self.last_read
    }

    /// As [`super::Source::close`].
    pub(super) async fn close(mut self) {
        self.link = Link::Down;
        self.database.close(&self.plan).await;
    }
}

impl<D: Database> Drop for Reconnecting<D> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Up(line) => D::leave(line),
            Link::Coming(task) => task.abort(),
            Link::Down => {}
        }
    }
}

/// Opens sessions until one succeeds or fails for good.
async fn come_back<D: Database>(
    name: Box<str>,
    plan: D::Plan,
    mut backoff: Backoff,
) -> (Backoff, Result<D::Session, SourceError>) {
    loop {
        // The first attempt comes at once: most often only the connection was lost.
        if backoff.attempts() > 0 {
            tokio::time::sleep(backoff.next(rand::random())).await;
        } else {
            let _ = backoff.next(0.0);
        }
        match D::open(&plan).await {
            Err(error) if error.verdict() == Verdict::Retry => {
                tracing::warn!(source = %name, attempts = backoff.attempts(), "cannot come back yet: {error}");
            }
            other => return (backoff, other),
        }
    }
}
