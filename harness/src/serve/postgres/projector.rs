//! The walsender: shows stretches of film to a client and then sends keepalives for as long as the client stays.
//!
//! ```text
//! keepalive = 'd' length:4 'k' end:8 clock:8 reply:1
//! ```

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use protocol::postgres::Lsn;

use super::Shared;
use super::error::Failure;
use super::feedback::Feedback;
use super::film::Stretch;
use super::frame::{self, Note};
use super::plan;
use super::wire::{Writer, message};
use crate::serve::outlet::{Broken, Event, Outlet};

/// Seconds from 1970 to 2000, where PostgreSQL's clock begins.
const EPOCH: u64 = 946_684_800;
/// Bytes at the start of a row's message that hold no column: kind, table, image, number of columns.
const ROW_HEAD: u64 = 8;

/// Why a stream ended.
pub(super) enum Ended {
    /// It was told to stop.
    Stopped,
    /// A scheduled fault: break the connection.
    Cut,
    /// The client is silent for longer than `wal_sender_timeout`.
    Silent,
    /// An error comes instead of the next message; the session goes on.
    Failed(Failure),
}

/// How a stream was asked for.
#[derive(Debug)]
pub(super) struct Show {
    pub(super) from: Lsn,
    /// Comes instead of the first row.
    pub(super) missing: Option<Failure>,
    /// `wal_sender_timeout`; none where it is off.
    pub(super) patience: Option<Duration>,
}

/// Sends everything from `show.from` on.
pub(super) async fn project(
    shared: &Shared,
    writer: &mut Writer,
    feedback: &Feedback,
    show: Show,
) -> io::Result<Ended> {
    let mut projector = Projector {
        shared,
        out: Outlet::new(&shared.stage, writer),
        feedback,
        told: BTreeSet::new(),
        missing: show.missing.clone(),
    };
    let ended = match &shared.film.repeat {
        Some(repeat) if repeat.commit_lsn() >= show.from => projector.repeat().await?,
        Some(_) => None,
        None => projector.stretches(show.from).await?,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            projector.out.flush().await?;
            return projector.stay(show.patience).await;
        }
    };
    if !matches!(ended, Ended::Cut) {
        projector.out.flush().await?;
    }
    Ok(ended)
}

struct Projector<'a> {
    shared: &'a Shared,
    out: Outlet<'a, Writer>,
    feedback: &'a Feedback,
    /// Tables whose definition this session has.
    told: BTreeSet<u32>,
    missing: Option<Failure>,
}

impl Projector<'_> {
    async fn stretches(&mut self, from: Lsn) -> io::Result<Option<Ended>> {
        let film = &self.shared.film;
        let first = plan::stretches(film, from).next();
        // From the beginning on the film itself has every definition before its first use.
        let whole = first.is_none_or(|first| first.bytes.start == film.stretches[0].bytes.start);
        for stretch in plan::stretches(film, from) {
            if self.feedback.is_stopped() {
                return Ok(Some(Ended::Stopped));
            }
            if whole && self.missing.is_none() && self.out.is_plain() && !self.feedback.is_urgent()
            {
                self.feedback.sending(stretch.end);
                let messages = film.messages(stretch.bytes.clone());
                self.out.write(messages, stretch.changes).await?;
            } else if let Some(ended) = self.stretch(stretch).await? {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    /// Sends a stretch message by message.
    async fn stretch(&mut self, stretch: &Stretch) -> io::Result<Option<Ended>> {
        let film = &self.shared.film;
        let (mut at, mut changes, mut streamed) =
            (stretch.bytes.start, stretch.changes_before, false);
        while at < stretch.bytes.end {
            let rest = film.messages(at..stretch.bytes.end);
            let unreadable = |what| io::Error::new(io::ErrorKind::InvalidData, what);
            let (frame, length) = frame::next(rest).map_err(unreadable)?;
            let note = frame::note(&frame, streamed).map_err(unreadable)?;
            let mut rows = 0;
            match note {
                Note::StreamStart { .. } => streamed = true,
                Note::StreamStop => streamed = false,
                Note::Relation { table } => _ = self.told.insert(table),
                Note::Row { table } | Note::Truncate { table } => {
                    if let Some(failure) = &self.missing {
                        return Ok(Some(Ended::Failed(failure.clone())));
                    }
                    if !streamed && self.told.insert(table) {
                        let definition = film.definitions.before(table, at);
                        self.out
                            .buffer
                            .extend_from_slice(definition.unwrap_or_default());
                    }
                    rows = u64::from(matches!(note, Note::Row { .. }));
                }
                _ => {}
            }
            if at + length == stretch.bytes.end {
                self.feedback.sending(stretch.end);
            }
            let first = self.out.buffer.len();
            self.out.buffer.extend_from_slice(&rest[..length]);
            let event = Event {
                first,
                place: at as u64,
                length: length as u64,
                head: row_head(length),
                changes: changes..changes + rows,
            };
            if let Some(ended) = self.framed(event).await? {
                return Ok(Some(ended));
            }
            at += length;
            changes += rows;
        }
        Ok(None)
    }

    /// Sends the film of one transaction.
    async fn repeat(&mut self) -> io::Result<Option<Ended>> {
        let film = &self.shared.film;
        let Some(repeat) = &film.repeat else {
            return Ok(None);
        };
        let mut messages = repeat.messages(film);
        loop {
            let first = self.out.buffer.len();
            let Some(shown) = messages.next(&mut self.out.buffer) else {
                return Ok(None);
            };
            if let Some(failure) = self.missing.as_ref().filter(|_| shown.changes > 0) {
                self.out.buffer.truncate(first);
                return Ok(Some(Ended::Failed(failure.clone())));
            }
            if let Some(end) = shown.end {
                self.feedback.sending(end);
            }
            let length = self.out.buffer.len() - first;
            let event = Event {
                first,
                place: shown.place,
                length: length as u64,
                head: row_head(length),
                changes: shown.changes_before..shown.changes_before + shown.changes,
            };
            if let Some(ended) = self.framed(event).await? {
                return Ok(Some(ended));
            }
        }
    }

    /// A message stands at the buffer's end: writes it when it is due, and answers what the client wants in between.
    async fn framed(&mut self, event: Event) -> io::Result<Option<Ended>> {
        if let Err(Broken) = self.out.framed(event).await? {
            return Ok(Some(Ended::Cut));
        }
        if self.feedback.is_urgent() {
            if self.feedback.take_ping() {
                self.keepalive(self.feedback.sent(), false).await?;
            }
            if self.feedback.is_stopped() {
                return Ok(Some(Ended::Stopped));
            }
        }
        Ok(None)
    }

    /// Sends a keepalive at once: everything before `end` was sent.
    async fn keepalive(&mut self, end: Lsn, reply: bool) -> io::Result<()> {
        let clock = crate::clock::since_epoch().saturating_sub(Duration::from_secs(EPOCH));
        message(&mut self.out.buffer, b'd', |out| {
            out.push(b'k');
            out.extend(end.0.to_be_bytes());
            out.extend((clock.as_micros() as u64).to_be_bytes());
            out.push(u8::from(reply));
        });
        self.out.flush().await
    }

    /// The end of the film: keepalives until the client leaves.
    async fn stay(&mut self, patience: Option<Duration>) -> io::Result<Ended> {
        let statistics = &self.shared.stage.statistics;
        statistics.ends.fetch_add(1, Ordering::Relaxed);
        let end = self.shared.film.end;
        self.feedback.sending(end);
        self.keepalive(end, false).await?;
        let mut asked: Option<Instant> = None;
        loop {
            // Half of the time the client may be silent, then it is asked, then it is given up.
            let silence = self.feedback.silence();
            let next = patience.map(|patience| match asked {
                Some(_) => patience,
                None => patience / 2,
            });
            let pause = next.map_or(Duration::from_secs(3600), |next| {
                next.saturating_sub(silence)
            });
            tokio::select! {
                () = self.feedback.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if self.feedback.is_stopped() {
                return Ok(Ended::Stopped);
            }
            if self.feedback.take_ping() {
                self.keepalive(end, false).await?;
            }
            let Some(patience) = patience else { continue };
            let silence = self.feedback.silence();
            if silence >= patience {
                return Ok(Ended::Silent);
            }
            // What it said since it was asked is its answer.
            if asked.is_some_and(|asked| silence < asked.elapsed()) {
                asked = None;
            }
            if silence >= patience / 2 && asked.is_none() {
                asked = Some(crate::clock::now());
                self.keepalive(end, true).await?;
            }
        }
    }
}

/// Bytes of a message of `length` in which no column stands.
fn row_head(length: usize) -> u64 {
    (frame::PAYLOAD as u64 + ROW_HEAD).min(length as u64 - 1)
}
