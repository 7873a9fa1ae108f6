//! From bytes as read to events of a Batch: frames found in place.
//!
//! ```text
//! batch.bytes  [ CopyData | CopyData | CopyData | part of one ]◄─ the socket reads here
//! kept                                          [ part of one ]    moved into the next batch by a seal
//! ```
//! While a transaction that was kept aside is read back, its messages come into the batch instead, and what had been read waits in
//! `kept`: nothing more is read until all of it is out.

use std::fmt;

use protocol::DecodeError;
use protocol::postgres::copy::Replication;
use protocol::postgres::packet::{self, Backend};
use protocol::postgres::resultset::ServerError;
use protocol::postgres::{Lsn, copy};

use super::decode::{Decoder, Next};
use super::held::Replay;
use super::shapes::Shape;
use super::tables::Question;
use super::wal2json::Wal2Json;
use crate::batch::{Batch, Event};
use crate::config::Plugin;
use crate::source::SourceError;

/// What a frame has beside a row's values: headers, and in JSON names and types.
const FRAME_OVERHEAD: usize = 64 << 10;

/// What the stream needs next.
#[derive(Debug)]
pub(super) enum Step {
    /// More bytes.
    Read,
    /// An empty batch.
    Full,
    /// What only the catalog knows.
    Ask(Box<Question>),
    /// The server ended the stream with an error.
    Refused(Box<ServerError>),
    /// The server warned of something, and goes on.
    Warned(Box<ServerError>),
    /// The server ended the stream.
    Ended,
}

/// Frames of one session after another.
pub(super) struct Stream {
    pub(super) decoder: Decoder,
    plugin: Plugin,
    pub(super) json: Wal2Json,
    /// First byte of the batch that belongs to no frame that has been decoded.
    start: usize,
    /// Whole frames decoded into this batch.
    frames: usize,
    /// What was read behind the last whole frame of the batch that was sealed.
    kept: Vec<u8>,
    replay: Option<Box<Replay>>,
    /// The message of `replay` that waits for an answer, and where it stands.
    waiting: Option<(Vec<u8>, Lsn)>,
    batch_bytes: usize,
    row_max: usize,
    /// The server asked to hear from us.
    pub(super) server_wants_reply: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("start", &self.start)
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(
        decoder: Decoder,
        plugin: Plugin,
        batch_bytes: usize,
        row_max: usize,
    ) -> Self {
        Self {
            decoder,
            plugin,
            json: Wal2Json::default(),
            start: 0,
            frames: 0,
            kept: Vec::new(),
            replay: None,
            waiting: None,
            batch_bytes,
            row_max,
            server_wants_reply: false,
        }
    }

    /// Begins a session whose first bytes may have come with its answer. What the last one left unfinished is dropped: it comes again.
    pub(super) fn begin(&mut self, batch: &mut Batch, first: &[u8]) {
        batch.bytes.truncate(self.start);
        batch.bytes.extend_from_slice(first);
        self.kept.clear();
        // All of it was read before anything else, unless it could not be.
        self.replay = None;
        self.waiting = None;
        self.decoder.begin_session();
    }

    /// Takes what [`Stream::begin`] put into a batch that is not the one to come.
    pub(super) fn keep(&mut self, batch: &mut Batch) {
        self.kept = std::mem::take(&mut batch.bytes);
    }

    /// Decodes until something is needed.
    pub(super) fn decode(&mut self, batch: &mut Batch) -> Result<Step, SourceError> {
        loop {
            if self.replay.is_some()
                && let Some(step) = self.read_back(batch)?
            {
                return Ok(step);
            }
            if !self.kept.is_empty() {
                batch.bytes.append(&mut self.kept);
            }
            if let Some(step) = self.decode_frames(batch)? {
                return Ok(step);
            }
        }
    }

    /// Decodes until something is needed; `None`: a transaction is to be read back.
    fn decode_frames(&mut self, batch: &mut Batch) -> Result<Option<Step>, SourceError> {
        loop {
            if self.is_full(batch) {
                return Ok(Some(Step::Full));
            }
            let rest = batch.bytes.get(self.start..).unwrap_or_default();
            let frame = match packet::next(rest) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.check_arriving(rest)?;
                    return Ok(Some(Step::Read));
                }
                Err(error) => return Err(self.misframed(error)),
            };
            let body = self.start + frame.body.start..self.start + frame.body.end;
            match frame.tag {
                Backend::COPY_DATA => match self.copy_data(batch, body)? {
                    Next::Message => self.start += self.json.take_growth(),
                    // It is read once more when there is an answer.
                    Next::Ask(question) => return Ok(Some(Step::Ask(Box::new(question)))),
                    Next::Replay(replay) => {
                        self.start += frame.wire_length;
                        self.frames += 1;
                        self.kept = batch.bytes.split_off(self.start);
                        self.replay = Some(replay);
                        return Ok(None);
                    }
                },
                Backend::ERROR_RESPONSE => {
                    let body = batch.bytes.get(body).unwrap_or_default();
                    let error = ServerError::decode(body).map_err(|error| self.misframed(error))?;
                    return Ok(Some(Step::Refused(Box::new(error))));
                }
                Backend::COPY_DONE | Backend::COMMAND_COMPLETE | Backend::READY_FOR_QUERY => {
                    return Ok(Some(Step::Ended));
                }
                Backend::NOTICE_RESPONSE => {
                    let body = batch.bytes.get(body).unwrap_or_default();
                    let notice =
                        ServerError::decode(body).map_err(|error| self.misframed(error))?;
                    self.start += frame.wire_length;
                    self.frames += 1;
                    return Ok(Some(Step::Warned(Box::new(notice))));
                }
                Backend::PARAMETER_STATUS => {}
                other => {
                    return Err(SourceError::retry(format!(
                        "after {}: a message {:?} has no place in a replication stream",
                        self.decoder.safe(),
                        char::from(other)
                    )));
                }
            }
            self.start += frame.wire_length;
            self.frames += 1;
        }
    }

    /// Decodes messages of a transaction that was kept; `None` at its end.
    fn read_back(&mut self, batch: &mut Batch) -> Result<Option<Step>, SourceError> {
        loop {
            if self.is_full(batch) {
                return Ok(Some(Step::Full));
            }
            let Some(replay) = &mut self.replay else {
                return Ok(None);
            };
            let start = batch.bytes.len();
            let next = match self.waiting.take() {
                Some((message, lsn)) => {
                    batch.bytes.extend_from_slice(&message);
                    Some(lsn)
                }
                None => replay.next(&mut batch.bytes)?,
            };
            let Some(lsn) = next else {
                let commit = replay.commit;
                self.replay = None;
                self.decoder.replayed(&commit)?;
                return Ok(None);
            };
            let end = batch.bytes.len();
            match self.decoder.message(batch, start..end, lsn)? {
                Next::Message => {}
                Next::Ask(question) => {
                    self.waiting = Some((batch.bytes.split_off(start), lsn));
                    return Ok(Some(Step::Ask(Box::new(question))));
                }
                // None of what is kept ends a transaction.
                Next::Replay(_) => {
                    return Err(self.decoder.misplaced(lsn, "a commit inside a transaction"));
                }
            }
            self.start = end;
            self.frames += 1;
        }
    }

    #[inline]
    fn copy_data(
        &mut self,
        batch: &mut Batch,
        body: std::ops::Range<usize>,
    ) -> Result<Next, SourceError> {
        let bytes = batch.bytes.get(body.clone()).unwrap_or_default();
        match Replication::decode(bytes) {
            Ok(Replication::XLogData(data)) => {
                let message = body.start + copy::XLOG_DATA_HEADER..body.end;
                match self.plugin {
                    Plugin::PgOutput => self.decoder.message(batch, message, data.start),
                    Plugin::Wal2Json => {
                        let question =
                            (self.json).message(&mut self.decoder, batch, message, data.start)?;
                        Ok(question.map_or(Next::Message, Next::Ask))
                    }
                }
            }
            Ok(Replication::Keepalive(keepalive)) => {
                self.server_wants_reply |= keepalive.reply;
                self.decoder.keepalive(keepalive.end);
                Ok(Next::Message)
            }
            Err(error) => Err(self.misframed(error)),
        }
    }

    /// Bytes of `batch` behind its last whole frame.
    pub(super) fn rest(&self, batch: &Batch) -> usize {
        batch.bytes.len().saturating_sub(self.start) + self.kept.len()
    }

    /// Whether a kept transaction is being read back: it counts from the read that brought its commit.
    pub(super) fn is_expanding(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether the batch holds as much as it may.
    #[inline]
    fn is_full(&self, batch: &Batch) -> bool {
        self.frames > 0 && self.load(batch) >= self.batch_bytes.saturating_add(batch.stretch)
    }

    /// Decoded bytes, their events included: small rows have more index than content.
    #[inline]
    fn load(&self, batch: &Batch) -> usize {
        self.start + batch.events.len() * (size_of::<Event>() + size_of::<u64>())
    }

    /// Takes what the catalog answered.
    pub(super) fn answered(&mut self, question: &Question, shape: Shape) {
        match question {
            Question::Relation(wanted) => self.decoder.complete(wanted, shape),
            Question::Named { schema, name, .. } => self.json.answered(schema, name, shape),
        }
    }

    /// Closes the batch.
    pub(super) fn seal(&mut self, batch: &mut Batch) {
        // While a transaction is read back, nothing that was read is in the batch.
        if self.replay.is_none() {
            self.kept.clear();
            self.kept
                .extend_from_slice(batch.bytes.get(self.start..).unwrap_or_default());
        }
        batch.bytes.truncate(self.start);
        self.start = 0;
        self.frames = 0;
        self.json.sealed();
        self.decoder.seal(batch);
    }

    /// Refuses a row that is too large before it is collected: as the server writes it, BYTEA in hexadecimal, which takes twice its length.
    fn check_arriving(&self, rest: &[u8]) -> Result<(), SourceError> {
        let claimed = rest
            .len()
            .saturating_add(packet::missing(rest).unwrap_or(0));
        // An update has its row twice.
        let most = self
            .row_max
            .saturating_mul(2)
            .saturating_add(FRAME_OVERHEAD);
        match claimed > most {
            true => Err(SourceError::halt(format!(
                "after {}: a message of {claimed} bytes holds a row larger than row_max ({}); raise engine.row_max, or leave its \
                 table out of tables and of the publication",
                self.decoder.safe(),
                self.row_max
            ))),
            false => Ok(()),
        }
    }

    #[cold]
    fn misframed(&self, error: DecodeError) -> SourceError {
        let last: Lsn = self.decoder.safe();
        SourceError::retry(format!(
            "after {last}: the connection's messages are damaged"
        ))
        .because(error)
    }
}
