//! One client's connection: start-up, commands, streams.

use std::io;
use std::time::Duration;

use super::Shared;
use super::answers::{Answer, Answers, INT4, TEXT, complete};
use super::command::{self, Command, Options, is_on};
use super::error::Failure;
use super::feedback::{Feedback, Heard, listen};
use super::handshake::{Replication, shake_hands};
use super::lexer::statements;
use super::plan;
use super::projector::{Ended, Show, project};
use super::start::{self, Start};
use super::wire::{Received, Wire, message};
use crate::serve::outlet::Sink as _;
use crate::serve::stream::Stream;
use protocol::postgres::Lsn;

/// How long a client that said something wrong may take to read what is on its way.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves one client until it leaves.
pub(super) async fn serve(shared: &Shared, stream: Stream, id: u32) -> io::Result<()> {
    let Some((client, wire)) = shake_hands(shared, stream, id).await? else {
        return Ok(());
    };
    let timeout = client.settings.get("wal_sender_timeout").cloned();
    let mut session = Session {
        id,
        database: client.database.clone(),
        replicates: client.replication == Replication::Database,
        patience: patience(timeout.or_else(|| shared.setting("wal_sender_timeout"))),
        answers: Answers::new(shared, client, id),
        shared,
        wire,
    };
    session.ready(Vec::new()).await?;
    // After an error in an extended query everything up to its end is read over.
    let mut skipping = false;
    loop {
        let Some(Received { tag, body }) = session.wire.reader.receive().await? else {
            return Ok(());
        };
        match tag {
            b'X' => return Ok(()),
            b'Q' => {
                let text = body.strip_suffix(b"\0").unwrap_or(&body);
                let text = String::from_utf8_lossy(text).into_owned();
                match session.query(&text).await? {
                    Next::Command => {}
                    Next::Leave => return Ok(()),
                    Next::Reset => {
                        session.wire.reset();
                        return Ok(());
                    }
                }
            }
            b'S' => {
                skipping = false;
                session.ready(Vec::new()).await?;
            }
            b'P' | b'B' | b'D' | b'E' | b'C' | b'F' if !skipping => {
                skipping = true;
                let mut out = Vec::new();
                unextended(session.replicates).encode(&mut out);
                session.wire.writer.write(&out).await?;
            }
            // What follows a COPY that failed, and requests to flush.
            b'P' | b'B' | b'D' | b'E' | b'C' | b'F' | b'H' | b'd' | b'c' | b'f' => {}
            other => {
                let what = format!("invalid frontend message type {other}");
                return session.farewell(&Failure::fatal("08P01", what)).await;
            }
        }
    }
}

fn unextended(replicates: bool) -> Failure {
    match replicates {
        true => Failure::new(
            "08P01",
            "extended query protocol not supported in a replication connection",
        ),
        false => Failure::new("0A000", "a replay server answers simple queries only"),
    }
}

/// `wal_sender_timeout` as a time: milliseconds, or with a unit; none for 0.
fn patience(setting: Option<String>) -> Option<Duration> {
    let setting = setting.unwrap_or_else(|| "60s".into());
    let digits = setting.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|number| *number > 0)?;
    let unit = match setting[digits.len()..].trim() {
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => 1,
    };
    Some(Duration::from_millis(number * unit))
}

/// What comes after a query.
enum Next {
    Command,
    Leave,
    Reset,
}

struct Session<'a> {
    shared: &'a Shared,
    wire: Wire,
    id: u32,
    database: String,
    replicates: bool,
    patience: Option<Duration>,
    answers: Answers<'a>,
}

impl Session<'_> {
    /// Sends `out` and ReadyForQuery.
    async fn ready(&mut self, mut out: Vec<u8>) -> io::Result<()> {
        let status = self.answers.status;
        message(&mut out, b'Z', |out| out.push(status));
        self.wire.writer.write(&out).await
    }

    async fn farewell(&mut self, failure: &Failure) -> io::Result<()> {
        let mut out = Vec::new();
        failure.encode(&mut out);
        self.wire.writer.write(&out).await
    }

    /// A simple query: one command of replication, or any number of statements of SQL.
    async fn query(&mut self, text: &str) -> io::Result<Next> {
        let mut out = Vec::new();
        let statements = statements(text);
        if statements.is_empty() {
            message(&mut out, b'I', |_| {});
        }
        for statement in statements {
            let command = match self.replicates {
                true => command::parse(statement),
                false => Ok(None),
            };
            let answered = match command {
                Ok(Some(Command::Start { slot, at, options })) => {
                    tracing::info!(slot, %at, ?options, "START_REPLICATION");
                    let started =
                        start::check(self.shared, &self.database, self.id, &slot, &options);
                    match started {
                        Ok(start) => return self.stream(start, at, out).await,
                        Err(failure) => Err(failure),
                    }
                }
                Ok(Some(command)) => self.command(command, &mut out),
                Ok(None) => {
                    let answer = self.answers.answer(statement);
                    answer.map(|answer| answer.encode(&mut out))
                }
                Err(failure) => Err(failure),
            };
            let refused = answered.as_ref().err().map(ToString::to_string);
            tracing::debug!(id = self.id, statement, refused, "query");
            if let Err(failure) = answered {
                self.fail(&failure, &mut out);
                break;
            }
        }
        self.ready(out).await?;
        Ok(Next::Command)
    }

    /// An error of a command.
    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        failure.encode(out);
        if self.answers.status == b'T' {
            self.answers.status = b'E';
        }
        if self.replicates {
            // A walsender cleans up after any error, and its temporary slots are gone.
            self.shared.slots.leave(self.id);
        }
    }

    fn command(&mut self, command: Command, out: &mut Vec<u8>) -> Result<(), Failure> {
        let columns = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), TEXT)).collect();
        let cell = |text: &str| Some(text.to_owned());
        let shared = self.shared;
        let answer = match command {
            Command::IdentifySystem => {
                let mut columns: Vec<_> = columns(&["systemid", "timeline", "xlogpos", "dbname"]);
                columns[1].1 = INT4;
                let end = shared.film.end.to_string();
                let timeline = shared.recorded.timeline.to_string();
                let system = shared.recorded.system_id.as_str();
                Answer::Rows {
                    columns,
                    rows: vec![[system, &timeline, &end, &self.database].map(cell).to_vec()],
                    tag: "IDENTIFY_SYSTEM".into(),
                }
            }
            Command::TimelineHistory(timeline) => {
                let what = format!(
                    "could not open file \"pg_wal/{timeline:08X}.history\": No such file or directory"
                );
                return Err(Failure::new("58P01", what));
            }
            Command::CreateSlot {
                name,
                temporary,
                plugin,
                options,
            } => {
                let session = temporary.then_some(self.id);
                let snapshot = snapshot(shared, &options)?;
                let at = shared.create_slot(&name, &plugin, &self.database, session)?;
                let snapshot = snapshot.then(|| format!("{:08X}-{:08X}-1", self.id, 1));
                Answer::Rows {
                    columns: columns(&[
                        "slot_name",
                        "consistent_point",
                        "snapshot_name",
                        "output_plugin",
                    ]),
                    rows: vec![vec![
                        Some(name),
                        Some(at.to_string()),
                        snapshot,
                        Some(plugin),
                    ]],
                    tag: "CREATE_REPLICATION_SLOT".into(),
                }
            }
            Command::DropSlot(name) => {
                shared.slots.drop(&name)?;
                Answer::Done("DROP_REPLICATION_SLOT".into())
            }
            Command::ReadSlot(_) => {
                let what = "cannot use READ_REPLICATION_SLOT with a logical replication slot";
                return Err(Failure::new("0A000", what));
            }
            Command::Start { .. } => return Ok(()),
        };
        answer.encode(out);
        Ok(())
    }

    /// Streams from the slot until either side has enough.
    async fn stream(&mut self, start: Start, requested: Lsn, mut out: Vec<u8>) -> io::Result<Next> {
        let confirmed = start.held.slot.confirmed;
        let show = Show {
            from: plan::begins_at(requested, confirmed),
            missing: start.missing,
            patience: self.patience,
        };
        // CopyBothResponse: text, no columns.
        message(&mut out, b'W', |out| out.extend([0; 3]));
        self.wire.writer.write(&out).await?;
        let feedback = Feedback::new(show.from);
        let (ended, wrong) = {
            let Wire { reader, writer } = &mut self.wire;
            let stage = &self.shared.stage;
            let sending = project(self.shared, writer, &feedback, show);
            tokio::pin!(sending);
            let heard = tokio::select! {
                ended = &mut sending => Err(ended?),
                heard = listen(reader, &feedback, &start.held, stage) => Ok(heard?),
            };
            match heard {
                Err(ended) => (Some(ended), None),
                Ok(Heard::Gone) => (None, None),
                Ok(Heard::Done) => {
                    feedback.stop();
                    (Some(sending.await?), None)
                }
                Ok(Heard::Wrong(failure)) => {
                    feedback.stop();
                    let ended = tokio::time::timeout(FAREWELL, sending).await;
                    (ended.ok().transpose()?, Some(failure))
                }
            }
        };
        drop(start.held);
        match (ended, wrong) {
            (Some(Ended::Stopped), Some(failure)) => {
                tracing::warn!(%failure, "client");
                self.farewell(&failure).await?;
                Ok(Next::Leave)
            }
            (None, _) | (_, Some(_)) => Ok(Next::Leave),
            (Some(ended), None) => self.ended(ended).await,
        }
    }

    async fn ended(&mut self, ended: Ended) -> io::Result<Next> {
        let mut out = Vec::new();
        match ended {
            Ended::Cut => return Ok(Next::Reset),
            Ended::Silent => {
                let what = "terminating walsender process due to replication timeout";
                tracing::info!(what);
                return Ok(Next::Leave);
            }
            Ended::Failed(failure) => self.fail(&failure, &mut out),
            Ended::Stopped => {
                message(&mut out, b'c', |_| {});
                complete(&mut out, "COPY 0");
                complete(&mut out, "START_REPLICATION");
            }
        }
        self.ready(out).await?;
        Ok(Next::Command)
    }
}

/// Whether a snapshot is exported, which is what happens where nothing is said.
fn snapshot(shared: &Shared, options: &Options) -> Result<bool, Failure> {
    let mut export = true;
    for (name, value) in options {
        match (name.as_str(), value.as_deref()) {
            ("snapshot", Some(what)) => export = what == "export",
            ("export_snapshot", None) => export = true,
            ("noexport_snapshot" | "use_snapshot", None) => export = false,
            ("two_phase", value) if is_on(value) == Some(false) => {}
            ("two_phase", _) => {
                let what = "a replay server sends transactions as they were recorded: no two_phase";
                return Err(Failure::new("0A000", what));
            }
            ("failover", value) if shared.major() >= 17 && is_on(value).is_some() => {}
            (other, _) => {
                return Err(Failure::new(
                    "XX000",
                    format!("unrecognized option: {other}"),
                ));
            }
        }
    }
    Ok(export)
}
