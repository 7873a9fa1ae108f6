//! The probe writers: threads that commit at the times of the schedule, whatever became of the commits before.
//!
//! ```text
//! due ─► BEGIN; INSERT … ─► answer ─► sent ─► COMMIT ─► answered
//! ```
//! A thread each with a runtime of its own: nothing else on this machine's runtimes delays a commit, and sleeping is as precise as the
//! system's, not as a runtime's timer.

use std::thread;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;

use super::rows::Rows;
use super::{Failure, Load, schedule};
use crate::clock;
use crate::seed::postgres::reason;
use crate::servers::{Flavour, Server};

/// Between connecting and the first commit.
const LEAD: Duration = Duration::from_millis(200);

/// One commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    pub(super) number: u64,
    /// When it was to begin, where a rate was offered.
    pub(super) due: Option<Instant>,
    /// What its rows say of that: microseconds since 1970.
    pub(super) due_us: u64,
    /// When COMMIT was sent.
    pub(super) sent: Instant,
    /// When the server had answered it.
    pub(super) answered: Instant,
}

/// Everything that was committed.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By number. Where no rate is offered some numbers are missing: writers do not keep pace with each other.
    pub(super) commits: Vec<Commit>,
    /// From the beginning of the schedule to the last answer.
    pub(super) seconds: f64,
    /// Those that were sent before are the warm-up.
    pub(super) timed_from: Option<Instant>,
}

impl Written {
    /// Commits that count.
    pub(super) fn timed(&self) -> impl Iterator<Item = &Commit> {
        self.commits.iter().filter(|commit| self.is_timed(commit))
    }

    /// Whether the commit came after the warm-up.
    pub(super) fn is_timed(&self, commit: &Commit) -> bool {
        self.timed_from.is_some_and(|from| commit.begin() >= from)
    }
}

impl Commit {
    /// When it was due, or sent where nothing was.
    pub(super) fn begin(&self) -> Instant {
        self.due.unwrap_or(self.sent)
    }
}

enum Connection {
    MySql(mysql_async::Conn),
    Postgres(tokio_postgres::Client),
}

impl Connection {
    async fn open(server: &Server) -> Result<Connection, Failure> {
        Ok(match server.flavour() {
            Flavour::Postgres => Connection::Postgres(server.connect_postgres().await?),
            _ => Connection::MySql(server.connect().await?),
        })
    }

    async fn execute(&mut self, sql: &str) -> Result<(), Failure> {
        match self {
            Connection::MySql(connection) => connection.query_drop(sql).await?,
            Connection::Postgres(client) => client.batch_execute(sql).await.map_err(reason)?,
        }
        Ok(())
    }
}

/// Commits for `seconds`; blocking.
pub(super) fn run(
    server: &Server,
    rows: &Rows,
    load: &Load,
    seconds: Duration,
) -> Result<Written, Failure> {
    let schedule = schedule::due(load, seconds);
    let begin = clock::now() + LEAD;
    let begin_us = (clock::since_epoch() + LEAD).as_micros();
    let plan = Plan {
        schedule: schedule.as_deref(),
        begin,
        begin_us: u64::try_from(begin_us)?,
        end: begin + seconds,
        writers: load.writers,
    };
    let written: Vec<Result<Vec<Commit>, Failure>> = thread::scope(|scope| {
        let writers: Vec<_> = (0..load.writers)
            .map(|writer| {
                let plan = &plan;
                scope.spawn(move || plan.write(server, rows, writer))
            })
            .collect();
        let joined = writers.into_iter().map(|writer| match writer.join() {
            Ok(written) => written,
            Err(_) => Err("a writer panicked".into()),
        });
        joined.collect()
    });
    let mut commits = Vec::new();
    for written in written {
        commits.extend(written?);
    }
    commits.sort_unstable_by_key(|commit| commit.number);
    let last = commits.iter().map(|commit| commit.answered).max();
    Ok(Written {
        seconds: last.map_or(0.0, |last| (last - begin).as_secs_f64()),
        commits,
        timed_from: Some(begin + Duration::from_secs_f64(load.warm_up_seconds)),
    })
}

/// What the writers have in common.
struct Plan<'a> {
    schedule: Option<&'a [Duration]>,
    begin: Instant,
    begin_us: u64,
    end: Instant,
    writers: u64,
}

impl Plan<'_> {
    /// One writer's part: every so many commits, in order.
    fn write(&self, server: &Server, rows: &Rows, writer: u64) -> Result<Vec<Commit>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut connection = runtime.block_on(Connection::open(server))?;
        let mut commits = Vec::new();
        let mut number = writer;
        loop {
            if crate::stop::is_asked() {
                return Err("stopped by a signal".into());
            }
            let offset = match self.schedule {
                Some(schedule) => match schedule.get(usize::try_from(number)?) {
                    Some(offset) => *offset,
                    None => break,
                },
                None if clock::now() >= self.end => break,
                None => clock::now().saturating_duration_since(self.begin),
            };
            let due = self.begin + offset;
            let due_us = self.begin_us + u64::try_from(offset.as_micros())?;
            let insert = format!("BEGIN; {}", rows.insert(number, due_us));
            thread::sleep(due.saturating_duration_since(clock::now()));
            runtime.block_on(connection.execute(&insert))?;
            let sent = clock::now();
            runtime.block_on(connection.execute("COMMIT"))?;
            commits.push(Commit {
                number,
                due: self.schedule.map(|_| due),
                due_us,
                sent,
                answered: clock::now(),
            });
            number += self.writers;
        }
        Ok(commits)
    }
}
