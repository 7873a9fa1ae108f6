//! PostgreSQL as a source: logical replication of one database.
//!
//! ```text
//! session ─► connection ─► stream (frames) ─► decode (transactions, rows) ─► Batch
//!    ▲            │ ▲                             │
//!    └ reconnect ◄┘ └ feedback ◄─ checkpoint      └─ shapes (the catalog) where a description says too little
//! ```

mod binding;
mod checks;
mod coalesce;
pub mod connection;
mod decode;
mod feedback;
mod generated;
mod held;
mod line;
mod partitions;
mod publication;
mod refusals;
mod server;
mod session;
mod shapes;
mod silence;
mod stream;
mod tables;
mod transaction;
mod unsent;
mod wal2json;
mod watch;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::postgres::Lsn;

pub(in crate::source) use self::binding::end_point_hash;
use self::connection::{ConnectOptions, Streaming};
use self::decode::Decoder;
pub(in crate::source) use self::feedback::Confirmed;
use self::feedback::Feedback;
use self::refusals::Warned;
use self::session::{From, Plan, Session};
use self::shapes::{Catalog, Shape};
use self::silence::Silence;
use self::stream::{Step, Stream};
use self::tables::Question;
use self::watch::Watch;
use super::receive::Received;
use super::reconnect::{self, Database, ReadError, Reconnecting};
use super::{Counters, Identity, Limits, Requirement, Resume, SourceError};
use crate::batch::Batch;
use crate::config::{Io, SourceSettings, Start};
use crate::position::Position;

/// Bytes that one read may bring, at most and at least; half a batch otherwise.
const READ_MAX: usize = 128 << 10;
const READ_MIN: usize = 8 << 10;
/// How long the end of the log may stay away before the server is asked for it.
const END_PATIENCE: Duration = Duration::from_millis(20);

/// A stream of a PostgreSQL database's changes.
#[derive(Debug)]
pub struct Postgres {
    stream: Stream,
    watch: Option<Watch>,
    confirmed: Arc<Confirmed>,
    identity: Identity,
    ancestors: Vec<(Identity, Position)>,
    /// Where the server is a standby, when it was started: what [`Plan::standby`] says of the next session.
    standby: Option<String>,
    end: Position,
    end_lsn: Lsn,
    until_end: bool,
    /// Bytes that one read may bring.
    chunk: usize,
    /// Whether the publication was made by us.
    made_publication: bool,
    /// Tables of which wal2json left rows out, and we said so.
    left_out: BTreeSet<(String, String)>,
    silence: Silence,
    /// What is to read the stream, and what has read it.
    wanted: Io,
    io: Io,
}

/// What a session reads from and writes to.
#[derive(Debug)]
pub(in crate::source) struct Line {
    reader: Received,
    feedback: Feedback,
}

fn plan(settings: &SourceSettings, from: From, server: Option<Identity>) -> Plan {
    Plan {
        options: ConnectOptions::to(&settings.address),
        slot: settings.slot.clone(),
        selection: settings.tables.clone(),
        keys: settings.keys.clone(),
        truncates: settings.truncates,
        from,
        server,
        standby: None,
        first: true,
    }
}

impl Postgres {
    pub(super) async fn connect(
        settings: &SourceSettings,
        resume: Option<Resume>,
        limits: Limits,
        state: &Path,
    ) -> Result<Reconnecting<Self>, SourceError> {
        // What an operator sets names no server.
        let continued = resume.as_ref().is_some_and(|it| it.server.is_some());
        let (from, server) = match resume {
            Some(Resume { position, server }) => (point(&position)?, server),
            None => (from(&settings.start)?, None),
        };
        let plan = plan(settings, from, server);
        let held = held::Store::open(state, &settings.name, continued)?;
        let session = Session::open(&plan).await?;
        Self::streaming(settings, plan, held, session, limits)
    }

    /// As [`Postgres::connect`] without a checkpoint, until `stop` ends (`None`), of a stream that leaves nothing behind.
    pub(super) async fn connect_until(
        settings: &SourceSettings,
        limits: Limits,
        state: &Path,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Reconnecting<Self>>, SourceError> {
        let plan = plan(settings, from(&settings.start)?, None);
        let held = held::Store::open(state, &settings.name, false)?;
        let Some(session) = Session::open_until(&plan, stop).await? else {
            return Ok(None);
        };
        let made_publication = session.made_publication;
        let streaming = Self::streaming(settings, plan.clone(), held, session, limits);
        if streaming.is_err() && made_publication {
            session::tidy(&plan).await;
        }
        streaming.map(Some)
    }

    fn streaming(
        settings: &SourceSettings,
        mut plan: Plan,
        held: held::Store,
        session: Session,
        limits: Limits,
    ) -> Result<Reconnecting<Self>, SourceError> {
        plan.first = false;
        let mut decoder = Decoder::new(
            &settings.address.database,
            settings.tables.clone(),
            session.start,
            held,
        );
        if settings.truncates {
            decoder.record_truncates();
        }
        let mut stream = Stream::new(
            decoder,
            plan.slot.plugin,
            limits.batch_bytes,
            limits.row_max,
        );
        let mut first = Batch::default();
        stream.begin(&mut first, &session.streaming.first);
        stream.keep(&mut first);
        let confirmed = Arc::new(Confirmed::default());
        confirmed.confirm(session.start);
        let mut postgres = Self {
            stream,
            watch: Watch::start(&plan, session.named),
            confirmed,
            identity: session.identity,
            ancestors: session.ancestors,
            standby: session.standby,
            end: Position::Postgres { lsn: session.end },
            end_lsn: session.end,
            until_end: limits.until_end,
            chunk: (limits.batch_bytes / 2).clamp(READ_MIN, READ_MAX),
            made_publication: session.made_publication,
            left_out: BTreeSet::new(),
            silence: Silence::default(),
            wanted: limits.io,
            io: limits.io,
        };
        let line = postgres.line(session.streaming, session.feedback)?;
        let catalog = Catalog::new(plan.options.clone());
        Ok(Reconnecting::new(
            settings.name.clone(),
            plan,
            postgres,
            line,
            catalog,
            limits.until_end,
        ))
    }

    fn line(&mut self, streaming: Streaming, feedback: Duration) -> Result<Line, SourceError> {
        let Streaming {
            socket, round_trip, ..
        } = streaming;
        let (reader, writer) =
            line::take(socket, self.chunk, round_trip, self.wanted).map_err(|error| {
                SourceError::halt("the thread that reads the server's stream cannot be started")
                    .because(error)
            })?;
        self.io = self.io.and(reader.io());
        Ok(Line {
            feedback: Feedback::start(Arc::clone(&self.confirmed), writer, feedback),
            reader,
        })
    }

    pub(super) async fn check(settings: &SourceSettings) -> Result<Vec<Requirement>, SourceError> {
        session::check(&plan(settings, From::Now, None)).await
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

    pub(super) fn io(&self) -> Io {
        self.io
    }

    pub(super) fn counters(&self) -> Counters {
        *self.stream.decoder.counters()
    }

    pub(super) fn confirmed(&self) -> Arc<Confirmed> {
        Arc::clone(&self.confirmed)
    }
}

impl Database for Postgres {
    type Plan = Plan;
    type Session = Session;
    type Line = Line;
    type Place = Lsn;
    type Catalog = Catalog;

    /// It answers our status updates at least, being asked to.
    const SILENCE_MAX: Duration = Duration::from_secs(30);
    const SILENT: &'static str = "though asked for a sign of life";
    const UNREADABLE: &'static str = "the server has something that this version does not read (compare pg_recvlogical on a copy of the \
         slot: pg_copy_logical_replication_slot)";

    async fn open(plan: &Plan) -> Result<Session, SourceError> {
        Session::open(plan).await
    }

    fn resume(&mut self, batch: &mut Batch, session: Session) -> Result<Line, SourceError> {
        let (place, bytes) = (self.place(), self.counters().bytes);
        self.silence.came_back(place, bytes);
        self.stream.begin(batch, &session.streaming.first);
        let line = self.line(session.streaming, session.feedback)?;
        self.identity = session.identity;
        self.ancestors = session.ancestors;
        self.standby = session.standby;
        Ok(line)
    }

    fn aim(&self, plan: &mut Plan) {
        plan.from = From::Point(self.stream.decoder.safe());
        plan.server = Some(self.identity.clone());
        plan.standby.clone_from(&self.standby);
    }

    fn gone_with_the_line(plan: &Plan) -> Option<&'static str> {
        plan.slot.temporary.then_some(
            "the temporary slot went with the connection, and what was written since cannot be had",
        )
    }

    fn decode(
        &mut self,
        plan: &Plan,
        batch: &mut Batch,
    ) -> Result<reconnect::Step<Question>, SourceError> {
        use reconnect::Step as Next;
        if let Some(watch) = &mut self.watch {
            watch.check()?;
        }
        loop {
            let step = self.stream.decode(batch);
            if std::mem::take(&mut self.stream.server_wants_reply) {
                self.confirmed.answer();
            }
            return Ok(match step? {
                Step::Read => Next::Read,
                Step::Full => Next::Full,
                Step::Ask(question) => Next::Ask(*question),
                Step::Refused(error) => Next::Lost(refusals::refused(&error, plan, self.place())),
                Step::Warned(warning) => match refusals::warned(&warning, plan, self.place()) {
                    Warned::Nothing => continue,
                    Warned::LeftOut { table, text } => {
                        // The server says it of every row.
                        if self.left_out.insert(table) {
                            tracing::warn!("{text}");
                        }
                        continue;
                    }
                    Warned::Lost(error) => Next::Lost(error),
                },
                Step::Ended => Next::Lost(SourceError::retry("the server ended the stream")),
            });
        }
    }

    fn answered(&mut self, question: Question, shape: Shape) -> Result<(), SourceError> {
        self.stream.answered(&question, shape);
        Ok(())
    }

    async fn read(line: &mut Line, bytes: &mut Vec<u8>) -> Result<(usize, Instant), ReadError> {
        match line.reader.next(bytes).await {
            Ok(None) => Err(ReadError::Lost(SourceError::retry(
                "the server closed the connection",
            ))),
            Ok(Some(arrived)) => Ok(arrived),
            Err(error) => Err(ReadError::Lost(
                SourceError::retry("the connection was lost").because(error),
            )),
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

    /// A server that has nothing to say is asked once for a sign of life: soon, where its end is waited for.
    fn patience(&self, asked: bool) -> Duration {
        match (self.until_end, asked) {
            (_, true) => self.silence.patience(Self::SILENCE_MAX, self.place()),
            (true, false) => END_PATIENCE,
            (false, false) => Self::SILENCE_MAX / 2,
        }
    }

    fn ask_for_life(&mut self) -> bool {
        let (place, bytes) = (self.place(), self.counters().bytes);
        self.silence.asked(place, bytes);
        self.confirmed.ask();
        true
    }

    /// What becomes durable after the last read is still to be said: the task ends with [`Confirmed::close`].
    fn leave(line: Line) {
        line.feedback.detach();
    }

    async fn close(&self, plan: &Plan) {
        if plan.slot.temporary && self.made_publication {
            session::tidy(plan).await;
        }
    }

    fn has_reached_end(&self) -> bool {
        let decoder = &self.stream.decoder;
        decoder.is_between_transactions() && decoder.safe() >= self.end_lsn
    }

    fn progress(&self) -> u64 {
        self.stream.decoder.progress()
    }

    fn place(&self) -> Lsn {
        self.stream.decoder.safe()
    }

    fn whereabouts(&self) -> String {
        format!("{} from {}", self.identity, self.stream.decoder.safe())
    }

    fn counters_mut(&mut self) -> &mut Counters {
        self.stream.decoder.counters_mut()
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
