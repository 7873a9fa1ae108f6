//! A recording in memory, cut into stretches: what a replay server's walsender reads instead of the write-ahead log.
//!
//! ```text
//! recording = CopyBothResponse CopyData*               tag:1 length:4 body, as the server sent it
//! CopyData  = 'w' start:8 end:8 clock:8 payload        XLogData: one message of the output plugin
//!           | 'k' end:8 clock:8 reply:1                keepalive
//! stretch   = a transaction, a piece of a streamed one, or what stands between transactions
//! ```
//! Every stretch knows the LSN by which a server decides whether a client that starts at some LSN gets it. Table definitions are kept
//! beside them: a session that starts in the middle is told those first that it needs, as a real session is.
//!
//! Besides the recording as it is there is [`Film::one_transaction`]: one BEGIN, its rows over and over until the wanted number of
//! rows, one COMMIT. Of that only the recording is in memory; LSNs are made when it is sent.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fixtures::{PostgresRecording, Recording};
use protocol::postgres::Lsn;

use super::super::ServeError;
use super::frame::{self, Frame, Note};

/// What separates the rows of [`Film::one_transaction`] in the write-ahead log.
const ROW_STRIDE: u64 = 0x80;

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Film {
    /// The recording behind its CopyBothResponse.
    bytes: Vec<u8>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) definitions: Definitions,
    /// Names of the tables that rows belong to, as the definitions give them; of wal2json as its rows do.
    pub(super) tables: BTreeSet<(String, String)>,
    /// Every transaction that commits at or after it is in the film.
    pub(super) start: Lsn,
    /// The end of the write-ahead log.
    pub(super) end: Lsn,
    changes: u64,
    pub(super) repeat: Option<Repeat>,
}

/// Messages that a client gets all or none of.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    /// Place of its messages in the film.
    pub(super) bytes: Range<usize>,
    /// It is sent to clients that start at or before this: where its commit record is, or where a keepalive stands.
    pub(super) commit: Lsn,
    /// What a client that has it may confirm.
    pub(super) end: Lsn,
    /// Row changes before it.
    pub(super) changes_before: u64,
    /// Row changes in it.
    pub(super) changes: u64,
}

/// The latest definition of each table by its place in the film.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    by_table: BTreeMap<u32, Vec<Definition>>,
}

/// A Relation message, with the Type messages before it.
#[derive(Debug)]
struct Definition {
    /// Where its messages end in the film.
    end: usize,
    /// The messages, framed.
    messages: Vec<u8>,
}

impl Definitions {
    /// What a session has to be told about `table` before the message at `place` of the film; nothing where the recording
    /// defines it later or never.
    pub(super) fn before(&self, table: u32, place: usize) -> Option<&[u8]> {
        let versions = self.by_table.get(&table)?;
        let known = versions.partition_point(|definition| definition.end <= place);
        let latest = versions.get(known.checked_sub(1)?)?;
        Some(&latest.messages)
    }
}

/// A film of one transaction.
#[derive(Debug)]
pub(super) struct Repeat {
    /// Places of the messages of one round.
    cycle: Vec<Range<usize>>,
    begin: Vec<u8>,
    commit: Vec<u8>,
    /// LSN of the first row.
    first: Lsn,
    /// Row changes wanted.
    rows: u64,
}

impl Film {
    /// Reads the recording into memory and indexes it.
    pub(super) fn load(recording: &Recording) -> Result<Self, ServeError> {
        let wrong = |what: String| ServeError::Recording(format!("{}: {what}", recording.name));
        let sidecar = recording.sidecar.postgres.as_ref();
        let sidecar = sidecar.ok_or_else(|| wrong("no recording of PostgreSQL".into()))?;
        let (start, end) = (lsn(&sidecar.start), lsn(&sidecar.end));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(wrong(format!(
                "start {:?} or end {:?} is no LSN",
                sidecar.start, sidecar.end
            )));
        };
        let bytes = recording.bytes()?;
        let mut film = Self {
            bytes: Vec::new(),
            stretches: Vec::new(),
            definitions: Definitions::default(),
            tables: BTreeSet::new(),
            start,
            end,
            changes: 0,
            repeat: None,
        };
        let mut indexer = Indexer::new(&mut film, sidecar);
        indexer
            .read(&bytes)
            .map_err(|(at, what)| wrong(format!("message at byte {at}: {what}")))?;
        film.bytes = bytes;
        // What a server has sent it has flushed, whatever it said when it was asked.
        let sent = film.stretches.iter().map(|stretch| stretch.end).max();
        film.end = film.end.max(sent.unwrap_or(film.end));
        Ok(film)
    }

    /// Row changes in the whole film.
    pub(super) fn changes(&self) -> u64 {
        self.repeat
            .as_ref()
            .map_or(self.changes, |repeat| repeat.rows)
    }

    /// The messages at `place`.
    pub(super) fn messages(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// A film of one transaction of `rows` rows (see the top of this file).
    pub(super) fn one_transaction(mut self, rows: u64) -> Result<Self, ServeError> {
        let lacking = |what: &str| {
            ServeError::Recording(format!("a recording without {what} makes no transaction"))
        };
        let (mut cycle, mut first) = (Vec::new(), None);
        let (mut begin, mut commit) = (None, None);
        for stretch in &self.stretches {
            let mut at = stretch.bytes.start;
            while at < stretch.bytes.end {
                let (frame, length) =
                    frame::next(&self.bytes[at..]).map_err(ServeError::Recording)?;
                let note = frame::note(&frame, false).map_err(ServeError::Recording)?;
                let whole = at..at + length;
                match note {
                    Note::Begin { .. } => _ = begin.get_or_insert(self.bytes[whole].to_vec()),
                    Note::Commit { .. } => _ = commit.get_or_insert(self.bytes[whole].to_vec()),
                    Note::Row { .. } | Note::Relation { .. } | Note::Type => {
                        let is_row = matches!(note, Note::Row { .. });
                        if is_row && let Frame::Data { start, .. } = frame {
                            first.get_or_insert(start);
                        }
                        cycle.push(whole);
                    }
                    _ => {}
                }
                at += length;
            }
        }
        let begin = begin.ok_or_else(|| lacking("pgoutput's Begin"))?;
        let commit = commit.ok_or_else(|| lacking("pgoutput's Commit"))?;
        let first = first.filter(|_| rows > 0).ok_or_else(|| lacking("rows"))?;
        let mut repeat = Repeat {
            cycle,
            begin,
            commit,
            first,
            rows,
        };
        self.end = repeat.seal();
        self.stretches.clear();
        self.repeat = Some(repeat);
        Ok(self)
    }
}

impl Repeat {
    /// Writes the LSNs of the whole transaction into its Begin and Commit; where the write-ahead log ends with it.
    fn seal(&mut self) -> Lsn {
        let (commit, end) = (self.commit_lsn(), self.end_lsn());
        // Begin: 'B' final:8 …; Commit: 'C' flags:1 commit:8 end:8 …
        frame::place(&mut self.begin, self.first, self.first);
        self.begin[frame::PAYLOAD + 1..][..8].copy_from_slice(&commit.0.to_be_bytes());
        frame::place(&mut self.commit, end, end);
        self.commit[frame::PAYLOAD + 2..][..8].copy_from_slice(&commit.0.to_be_bytes());
        self.commit[frame::PAYLOAD + 10..][..8].copy_from_slice(&end.0.to_be_bytes());
        end
    }

    fn last_row(&self) -> Lsn {
        Lsn(self.first.0 + (self.rows - 1) * ROW_STRIDE)
    }

    /// Where the transaction commits.
    pub(super) fn commit_lsn(&self) -> Lsn {
        Lsn(self.last_row().0 + ROW_STRIDE)
    }

    /// Behind the commit record.
    pub(super) fn end_lsn(&self) -> Lsn {
        Lsn(self.commit_lsn().0 + 0x30)
    }

    /// Its messages in order, each appended to what `out` is.
    pub(super) fn messages<'f>(&'f self, film: &'f Film) -> Showing<'f> {
        Showing {
            repeat: self,
            film,
            step: Step::Begin,
            row: 0,
            place: 0,
        }
    }
}

/// [`Repeat::messages`]: where it is.
pub(super) struct Showing<'f> {
    repeat: &'f Repeat,
    film: &'f Film,
    step: Step,
    row: u64,
    place: u64,
}

enum Step {
    Begin,
    /// Index into the cycle.
    Middle(usize),
    Done,
}

/// One message of a film of one transaction.
pub(super) struct Shown {
    /// Place in the stream of messages.
    pub(super) place: u64,
    /// Row changes before it.
    pub(super) changes_before: u64,
    /// 1 for a row.
    pub(super) changes: u64,
    /// What a client that has it may confirm.
    pub(super) end: Option<Lsn>,
}

impl Showing<'_> {
    /// Appends the next message to `out`.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Option<Shown> {
        let before = out.len();
        let (row, place) = (self.row, self.place);
        let mut end = None;
        match self.step {
            Step::Begin => {
                out.extend_from_slice(&self.repeat.begin);
                self.step = Step::Middle(0);
            }
            Step::Middle(_) if self.row == self.repeat.rows => {
                out.extend_from_slice(&self.repeat.commit);
                end = Some(self.repeat.end_lsn());
                self.step = Step::Done;
            }
            Step::Middle(index) => {
                out.extend_from_slice(self.film.messages(self.repeat.cycle[index].clone()));
                if frame::is_row(&out[before..]) {
                    let at = Lsn(self.repeat.first.0 + self.row * ROW_STRIDE);
                    frame::place(&mut out[before..], at, at);
                    self.row += 1;
                }
                self.step = Step::Middle((index + 1) % self.repeat.cycle.len());
            }
            Step::Done => return None,
        }
        self.place += (out.len() - before) as u64;
        Some(Shown {
            place,
            changes_before: row,
            changes: self.row - row,
            end,
        })
    }
}

fn lsn(text: &str) -> Option<Lsn> {
    text.parse().ok()
}

/// Cuts a recording into stretches.
struct Indexer<'f> {
    film: &'f mut Film,
    at: usize,
    /// Where the open stretch begins, and the LSN of its commit where that is known.
    open: Option<(usize, Option<Lsn>)>,
    /// Changes before the open stretch.
    before: u64,
    streaming: bool,
    /// Stretches of streamed transactions that have not ended, by transaction.
    streamed: BTreeMap<u32, Vec<usize>>,
    xid: u32,
    /// The Type messages before a Relation message.
    types: Vec<u8>,
    /// The latest place that any message stood at: where what has no place of its own belongs.
    latest: Lsn,
    has_transactions: bool,
}

impl<'f> Indexer<'f> {
    fn new(film: &'f mut Film, sidecar: &PostgresRecording) -> Self {
        let included = sidecar.options.get("include-transaction");
        Self {
            latest: film.start,
            film,
            at: 0,
            open: None,
            before: 0,
            streaming: false,
            streamed: BTreeMap::new(),
            xid: 0,
            types: Vec::new(),
            // wal2json can be told to leave the ends of transactions out.
            has_transactions: !included
                .is_some_and(|on| ["0", "off", "false"].contains(&on.as_str())),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), (usize, String)> {
        // The server's answer to START_REPLICATION is made anew for every client.
        if bytes.first() == Some(&b'W') {
            let length = bytes.get(1..5).and_then(|b| b.try_into().ok());
            self.at = 1 + length.map_or(0, u32::from_be_bytes) as usize;
        }
        while self.at < bytes.len() {
            let at = self.at;
            let wrong = |what| (at, what);
            let (frame, length) = frame::next(&bytes[at..]).map_err(wrong)?;
            let note = frame::note(&frame, self.streaming).map_err(wrong)?;
            self.message(&frame, note, &bytes[at..at + length])
                .map_err(wrong)?;
            self.at += length;
        }
        match (self.open, self.streamed.is_empty()) {
            (None, true) => Ok(()),
            _ => Err((self.at, "the recording ends inside a transaction".into())),
        }
    }

    fn message(&mut self, frame: &Frame<'_>, note: Note, message: &[u8]) -> Result<(), String> {
        let is_type = note == Note::Type;
        match note {
            Note::Begin { commit } => self.begin(commit)?,
            Note::Commit { commit, end } => self.commit(commit, end, message.len()),
            Note::StreamStart { xid } => {
                self.begin(None)?;
                (self.streaming, self.xid) = (true, xid);
            }
            Note::StreamStop => {
                self.streaming = false;
                let index = self.film.stretches.len();
                self.streamed.entry(self.xid).or_default().push(index);
                self.close(Lsn::INVALID, Lsn::INVALID, message.len());
            }
            // Who gets the transaction gets this too.
            Note::StreamPart { xid } => match self.streamed.get_mut(&xid) {
                Some(pieces) => {
                    pieces.push(self.film.stretches.len());
                    self.begin(None)?;
                    self.close(Lsn::INVALID, Lsn::INVALID, message.len());
                }
                None => self.alone(self.latest, message.len())?,
            },
            Note::StreamEnd { xid, end } => {
                let end = end.unwrap_or(self.latest);
                for index in self.streamed.remove(&xid).unwrap_or_default() {
                    let stretch = &mut self.film.stretches[index];
                    // Its commit record begins before its end. A client that has a piece has nothing to confirm for it.
                    stretch.commit = Lsn(end.0.saturating_sub(1));
                }
                self.begin(None)?;
                self.commit(None, end, message.len());
            }
            Note::Type => self.types.extend(plain(message, self.streaming)),
            Note::Relation { table } => self.define(table, message),
            Note::Row { .. } => self.film.changes += 1,
            Note::Loose { at } if self.open.is_none() => self.alone(at, message.len())?,
            Note::Truncate { .. } | Note::Loose { .. } | Note::Other => {}
        }
        match *frame {
            Frame::Keepalive { end } if self.open.is_none() => self.alone(end, message.len())?,
            Frame::Keepalive { .. } => {}
            Frame::Data { start, .. } if self.open.is_none() && is_inside(note) => {
                match self.has_transactions {
                    true => return Err("it belongs to a transaction, and none is open".into()),
                    false => self.alone(start, message.len())?,
                }
            }
            Frame::Data { start, .. } => self.latest = self.latest.max(start),
        }
        if !is_type {
            self.types.clear();
        }
        Ok(())
    }

    fn begin(&mut self, commit: Option<Lsn>) -> Result<(), String> {
        if self.open.is_some() {
            return Err("a transaction begins inside another".into());
        }
        self.open = Some((self.at, commit));
        Ok(())
    }

    fn commit(&mut self, commit: Option<Lsn>, end: Lsn, length: usize) {
        let begun = self.open.and_then(|(_, commit)| commit);
        // The commit record begins before its end.
        let commit = begun.or(commit).unwrap_or(Lsn(end.0.saturating_sub(1)));
        self.open.get_or_insert((self.at, None));
        self.latest = self.latest.max(end);
        self.close(commit, end, length);
    }

    /// A stretch of one message.
    fn alone(&mut self, at: Lsn, length: usize) -> Result<(), String> {
        self.begin(None)?;
        self.close(at, at, length);
        Ok(())
    }

    /// The open stretch ends with the message here.
    fn close(&mut self, commit: Lsn, end: Lsn, length: usize) {
        let Some((start, _)) = self.open.take() else {
            return;
        };
        let changes = self.film.changes;
        self.film.stretches.push(Stretch {
            bytes: start..self.at + length,
            commit,
            end,
            changes_before: self.before,
            changes: changes - self.before,
        });
        self.before = changes;
    }

    fn define(&mut self, table: u32, relation: &[u8]) {
        // What a session is told before its first row is outside of streamed transactions: without the transaction's number.
        let relation_plain = plain(relation, self.streaming);
        if let Some(name) = frame::table_name(&relation_plain[frame::PAYLOAD..]) {
            self.film.tables.insert(name);
        }
        let mut messages = std::mem::take(&mut self.types);
        messages.extend(relation_plain);
        let end = self.at + relation.len();
        (self.film.definitions.by_table.entry(table).or_default())
            .push(Definition { end, messages });
    }
}

/// Whether a message belongs to a transaction.
fn is_inside(note: Note) -> bool {
    !matches!(
        note,
        Note::Begin { .. }
            | Note::Commit { .. }
            | Note::StreamStart { .. }
            | Note::StreamStop
            | Note::StreamPart { .. }
            | Note::StreamEnd { .. }
            | Note::Loose { .. }
    )
}

/// A Relation or Type message as it is outside of streamed transactions.
fn plain(message: &[u8], streamed: bool) -> Vec<u8> {
    let mut message = message.to_vec();
    if streamed && message.len() > frame::PAYLOAD + 5 {
        message.drain(frame::PAYLOAD + 1..frame::PAYLOAD + 5);
        let length = (message.len() as u32 - 1).to_be_bytes();
        message[1..5].copy_from_slice(&length);
    }
    message
}

#[cfg(test)]
mod tests;
