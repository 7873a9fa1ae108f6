//! A recording in memory with an index of its events: what a replay server's dump thread reads instead of binlog files.
//!
//! Besides the recording as it is there is [`Film::one_transaction`]: the head of the recording, one BEGIN, its ROWS events over
//! and over until the wanted number of rows, one XID. Of that only the recording is in memory; positions, lengths and
//! checksums of the repeated events are made when they are sent.

use std::collections::HashMap;
use std::ops::Range;

use fixtures::Recording;
use protocol::mysql::event::{
    Checksum, FLAG_ARTIFICIAL, Format, HEADER_LENGTH, Header, Kind, Message,
};
use protocol::mysql::gtid::{DomainGtid, Gtid, GtidSet, SourceId, Tag, Uuid};
use protocol::mysql::rows::Rows;
use protocol::mysql::{BinlogPosition, Column, Flavour};

use super::ServeError;

/// One event of a film.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shot {
    /// Place of its bytes in the recording.
    bytes: u64,
    /// Length with header and checksum.
    pub(super) length: u32,
    /// What it is.
    pub(super) kind: Kind,
    /// Whether it stands in no file.
    pub(super) artificial: bool,
    /// Index into [`Film::files`].
    pub(super) file: u32,
    /// Where it starts in its file.
    pub(super) offset: u64,
    /// Row changes before it.
    pub(super) changes_before: u64,
    /// Row changes in it.
    pub(super) changes: u32,
}

/// A binlog file of the film.
#[derive(Debug)]
pub(super) struct File {
    /// Its name.
    pub(super) name: String,
    /// Index of its FORMAT_DESCRIPTION.
    pub(super) description: u64,
}

/// A transaction of the film.
#[derive(Debug)]
pub(super) struct Transaction {
    /// Index of its first event.
    pub(super) first: u64,
    /// Its name.
    pub(super) gtid: Option<Gtid>,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Film {
    bytes: Vec<u8>,
    shots: Vec<Shot>,
    pub(super) files: Vec<File>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) flavour: Flavour,
    pub(super) checksum: Checksum,
    /// The set before the first event.
    pub(super) purged: GtidSet,
    /// The end, with the set executed there.
    pub(super) end: BinlogPosition,
    pub(super) executed: GtidSet,
    repeat: Option<Repeat>,
}

/// The repeated middle of a film of one transaction.
#[derive(Debug)]
struct Repeat {
    /// Events before the middle.
    head: u64,
    /// What is repeated: indices of TABLE_MAP and ROWS events, with the bytes and changes of the cycle before each.
    cycle: Vec<(usize, u64, u64)>,
    cycle_bytes: u64,
    cycle_changes: u64,
    /// Events of the middle.
    count: u64,
    /// The last event of the middle where it is not a whole one: its first rows only.
    trimmed: Option<Vec<u8>>,
    /// Index of the XID event at the end.
    commit: usize,
    /// Offset and changes where the middle ends.
    end_offset: u64,
    end_changes: u64,
}

impl Film {
    /// Reads the recording into memory and indexes it.
    pub(super) fn load(recording: &Recording) -> Result<Self, ServeError> {
        let bytes = recording.bytes()?;
        let sidecar = &recording.sidecar;
        let flavour = match sidecar.is_mariadb() {
            true => Flavour::MariaDb,
            false => Flavour::MySql,
        };
        let set = |text: &str| {
            GtidSet::parse(flavour, text)
                .map_err(|error| ServeError::Recording(format!("{}: {error}", recording.name)))
        };
        let mut film = Self {
            bytes: Vec::new(),
            shots: Vec::new(),
            files: Vec::new(),
            transactions: Vec::new(),
            flavour,
            checksum: Checksum::Off,
            purged: set(&sidecar.start.gtid)?,
            end: BinlogPosition {
                file: sidecar.end.file.as_str().into(),
                offset: sidecar.end.offset,
            },
            executed: set(&sidecar.end.gtid)?,
            repeat: None,
        };
        let start = (sidecar.start.file.as_str(), sidecar.start.offset);
        let mut indexer = Indexer::new(&mut film, start, sidecar);
        indexer.read(&bytes).map_err(|(at, error)| {
            ServeError::Recording(format!("{}: event at byte {at}: {error}", recording.name))
        })?;
        film.bytes = bytes;
        film.find_end()?;
        Ok(film)
    }

    /// The stream may hold less than the sidecar says was executed: what is really there counts.
    fn find_end(&mut self) -> Result<(), ServeError> {
        let last = self.shots.iter().rev().find(|shot| !shot.artificial);
        let last =
            last.ok_or_else(|| ServeError::Recording("a recording without events".into()))?;
        let name = self
            .files
            .get(last.file as usize)
            .map(|file| file.name.as_str());
        self.end = BinlogPosition {
            file: name.unwrap_or_default().into(),
            offset: last.offset + u64::from(last.length),
        };
        let mut executed = self.purged.clone();
        for gtid in self.transactions.iter().filter_map(|t| t.gtid.as_ref()) {
            executed.add(gtid);
        }
        self.executed = executed;
        Ok(())
    }

    /// Of MariaDB, which is asked for it: where each transaction begins, with the GTIDs up to its own.
    pub(super) fn sets(&self) -> Vec<(BinlogPosition, String)> {
        let mut set = self.purged.clone();
        let mut after = |transaction: &Transaction| {
            set.add(transaction.gtid.as_ref()?);
            let shot = self.shot(transaction.first);
            let file = self.files.get(shot.file as usize)?;
            let begin = BinlogPosition {
                file: file.name.as_str().into(),
                offset: shot.offset,
            };
            Some((begin, set.to_string()))
        };
        match self.flavour {
            Flavour::MariaDb => self.transactions.iter().filter_map(&mut after).collect(),
            Flavour::MySql => Vec::new(),
        }
    }

    /// Number of events.
    pub(super) fn count(&self) -> u64 {
        match &self.repeat {
            Some(repeat) => repeat.head + repeat.count + 1,
            None => self.shots.len() as u64,
        }
    }

    /// Row changes in all events.
    pub(super) fn changes(&self) -> u64 {
        match &self.repeat {
            Some(repeat) => repeat.end_changes,
            None => self
                .shots
                .last()
                .map_or(0, |shot| shot.changes_before + u64::from(shot.changes)),
        }
    }

    /// The event at `index`, which must be below [`Film::count`].
    pub(super) fn shot(&self, index: u64) -> Shot {
        let Some(repeat) = self.repeat.as_ref().filter(|repeat| index >= repeat.head) else {
            return self.shots[index as usize];
        };
        let place = index - repeat.head;
        if place == repeat.count {
            return Shot {
                offset: repeat.end_offset,
                changes_before: repeat.end_changes,
                ..self.shots[repeat.commit]
            };
        }
        let (round, step) = (
            place / repeat.cycle.len() as u64,
            place as usize % repeat.cycle.len(),
        );
        let (shot, bytes, changes) = repeat.cycle[step];
        let first = self.shots[repeat.cycle[0].0];
        let shot = self.shots[shot];
        let length = match &repeat.trimmed {
            Some(trimmed) if place + 1 == repeat.count => trimmed.len() as u32,
            _ => shot.length,
        };
        let changes_before = round * repeat.cycle_changes + changes;
        Shot {
            length,
            file: first.file,
            offset: first.offset + round * repeat.cycle_bytes + bytes,
            changes_before,
            changes: (shot.changes).min((repeat.end_changes - changes_before) as u32),
            ..shot
        }
    }

    /// Appends the bytes of the event at `index`, header to checksum.
    pub(super) fn append(&self, index: u64, out: &mut Vec<u8>) {
        let shot = self.shot(index);
        let start = shot.bytes as usize;
        let repeat = self.repeat.as_ref().filter(|repeat| index >= repeat.head);
        let Some(repeat) = repeat else {
            out.extend_from_slice(&self.bytes[start..start + shot.length as usize]);
            return;
        };
        let at = out.len();
        match &repeat.trimmed {
            Some(trimmed) if index + 1 == repeat.head + repeat.count => {
                out.extend_from_slice(trimmed)
            }
            _ => out.extend_from_slice(&self.bytes[start..start + shot.length as usize]),
        }
        let end = (shot.offset + u64::from(shot.length)) as u32;
        out[at + 13..at + 17].copy_from_slice(&end.to_le_bytes());
        seal(&mut out[at..], self.checksum);
    }

    /// Bytes of the stream before the event at `index`.
    pub(super) fn place(&self, index: u64) -> u64 {
        let Some(repeat) = self.repeat.as_ref().filter(|repeat| index >= repeat.head) else {
            return self.shots[index as usize].bytes;
        };
        let first = self.shots[repeat.head as usize];
        first.bytes + (self.shot(index).offset - first.offset)
    }

    /// Bytes of the event at `index` of the recording itself.
    pub(super) fn recorded(&self, index: u64) -> &[u8] {
        let shot = self.shots[index as usize];
        &self.bytes[shot.bytes as usize..shot.bytes as usize + shot.length as usize]
    }

    /// Index of the event that starts at `offset` of `file` (or, at the file's end, one past its last event); `None` when none
    /// starts there.
    pub(super) fn find(&self, file: u32, offset: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            let shot = self.shot(middle);
            // Of several at one place (artificial events take no room) the last is the one in the file.
            let before = (shot.file, shot.offset, u8::from(!shot.artificial)) < (file, offset, 1);
            match before {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let end = low.checked_sub(1).map(|last| self.shot(last));
        let ends_here = end.is_some_and(|shot| {
            let length = if shot.artificial {
                0
            } else {
                u64::from(shot.length)
            };
            shot.file == file && shot.offset + length == offset
        });
        let starts_here = low < self.count() && {
            let shot = self.shot(low);
            shot.file == file && shot.offset == offset
        };
        (starts_here || ends_here).then_some(low)
    }

    /// A film of one transaction of `rows` rows (see the top of this file).
    pub(super) fn one_transaction(mut self, rows: u64) -> Result<Self, ServeError> {
        let lacking = |what: &str| {
            ServeError::Recording(format!("a recording without {what} makes no transaction"))
        };
        let is = |kind: Kind, shot: &Shot| shot.kind == kind && !shot.artificial;
        let body: Vec<usize> = (0..self.shots.len())
            .filter(|i| is(Kind::TABLE_MAP, &self.shots[*i]) || self.shots[*i].changes > 0)
            .collect();
        let first = *body.first().ok_or_else(|| lacking("rows"))?;
        let commit = (0..self.shots.len()).find(|i| is(Kind::XID, &self.shots[*i]));
        let commit = commit.ok_or_else(|| lacking("XID"))?;
        let (mut cycle, mut bytes, mut changes) = (Vec::with_capacity(body.len()), 0, 0);
        for index in body {
            cycle.push((index, bytes, changes));
            bytes += u64::from(self.shots[index].length);
            changes += u64::from(self.shots[index].changes);
        }
        if rows == 0 || changes == 0 {
            return Err(lacking("rows"));
        }
        let (rounds, left) = (rows / changes, rows % changes);
        let whole = cycle.partition_point(|(index, _, before)| {
            before + u64::from(self.shots[*index].changes) <= left
        });
        let (mut count, mut end) = (rounds * cycle.len() as u64, rounds * bytes);
        let mut trimmed = None;
        if left > 0 {
            // Events that fit wholly, then the one in which the wanted number is reached.
            let needs_part = whole < cycle.len() && cycle[whole].2 < left;
            let steps = if needs_part { whole + 1 } else { whole };
            count += steps as u64;
            end += cycle.get(steps).map_or(bytes, |(_, before, _)| *before);
            if needs_part {
                let (index, _, before) = cycle[whole];
                let event = self.trim(index, left - before)?;
                end -= u64::from(self.shots[index].length) - event.len() as u64;
                trimmed = Some(event);
            }
        }
        let end_offset = self.shots[first].offset + end;
        self.end.file = self.files[self.shots[first].file as usize]
            .name
            .as_str()
            .into();
        self.end.offset = end_offset + u64::from(self.shots[commit].length);
        self.transactions
            .retain(|transaction| transaction.first < first as u64);
        let last_file = self.shots[first].file as usize;
        self.files.truncate(last_file + 1);
        self.executed = self.purged.clone();
        for gtid in self.transactions.iter().filter_map(|t| t.gtid.as_ref()) {
            self.executed.add(gtid);
        }
        self.repeat = Some(Repeat {
            head: first as u64,
            cycle,
            cycle_bytes: bytes,
            cycle_changes: changes,
            count,
            trimmed,
            commit,
            end_offset,
            end_changes: rows,
        });
        Ok(self)
    }

    /// The ROWS event at `index` with its first `rows` rows only, ending its statement.
    fn trim(&self, index: usize, rows: u64) -> Result<Vec<u8>, ServeError> {
        let wrong = |error: protocol::DecodeError| ServeError::Recording(error.to_string());
        let file = &self.files[self.shots[index].file as usize];
        let Message::FormatDescription(format) = parse(
            &Format::before_description(Checksum::Off),
            self.recorded(file.description),
        )
        .map_err(wrong)?
        else {
            return Err(ServeError::Recording(
                "a file without FORMAT_DESCRIPTION".into(),
            ));
        };
        let map = (0..index)
            .rev()
            .find(|i| self.shots[*i].kind == Kind::TABLE_MAP);
        let map = self.recorded(map.unwrap_or_default() as u64);
        let event = self.recorded(index as u64);
        let (Message::TableMap(map), Message::Rows(found)) = (
            parse(&format, map).map_err(wrong)?,
            parse(&format, event).map_err(wrong)?,
        ) else {
            return Err(ServeError::Recording("rows without TABLE_MAP".into()));
        };
        let columns = map.describe().map_err(wrong)?.columns;
        let walker = found.walk(&columns).map_err(wrong)?;
        let mut end = 0;
        for row in walker.take(rows as usize) {
            let row = row.map_err(wrong)?;
            let last = if row.after.is_none() {
                row.before
            } else {
                row.after
            };
            end = last.end as usize;
        }
        let mut event = event[..end].to_vec();
        // Flag 1: the statement ends here; the header is followed by a table id of 6 bytes.
        event[HEADER_LENGTH + 6] |= 1;
        event.extend_from_slice(&[0; 4][..self.checksum.length()]);
        let length = (event.len() as u32).to_le_bytes();
        event[9..13].copy_from_slice(&length);
        Ok(event)
    }
}

/// Writes the checksum at the end of `event` anew.
pub(super) fn seal(event: &mut [u8], checksum: Checksum) {
    if checksum == Checksum::Crc32 {
        let (body, stored) = event.split_at_mut(event.len() - 4);
        let computed = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, body) as u32;
        stored.copy_from_slice(&computed.to_le_bytes());
    }
}

fn parse<'a>(format: &Format, event: &'a [u8]) -> Result<Message<'a>, protocol::DecodeError> {
    Message::parse(format, event).map(|(_, message)| message)
}

struct Indexer<'f> {
    film: &'f mut Film,
    format: Format,
    file: u32,
    next: u64,
    changes: u64,
    tables: HashMap<u64, Vec<Column>>,
}

impl<'f> Indexer<'f> {
    fn new(film: &'f mut Film, start: (&str, u64), sidecar: &fixtures::Sidecar) -> Self {
        // The first event, an artificial ROTATE, has a checksum where the recording client asked for one.
        let checksum = match sidecar.variables.get("binlog_checksum").map(String::as_str) {
            Some("NONE") => Checksum::Off,
            _ => Checksum::Crc32,
        };
        film.files.push(File {
            name: start.0.to_owned(),
            description: u64::MAX,
        });
        Self {
            film,
            format: Format::before_description(checksum),
            file: 0,
            next: start.1,
            changes: 0,
            tables: HashMap::new(),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), (usize, protocol::DecodeError)> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let header = Header::parse(rest).map_err(|error| (at, error))?;
            let event = &rest[..rest.len().min(header.length as usize)];
            self.event(at, &header, event)
                .map_err(|error| (at, error))?;
            at += event.len();
        }
        Ok(())
    }

    fn event(
        &mut self,
        at: usize,
        header: &Header,
        event: &[u8],
    ) -> Result<(), protocol::DecodeError> {
        let message = parse(&self.format, event)?;
        let artificial = header.flags & FLAG_ARTIFICIAL != 0 || header.next_position == 0;
        if !artificial {
            let end = self.next + u64::from(header.length);
            // The header has the low half of the end; where files leave gaps it is right and our sum is not.
            self.next =
                (end & !0xffff_ffff | u64::from(header.next_position)) - u64::from(header.length);
        }
        let index = self.film.shots.len() as u64;
        let mut shot = Shot {
            bytes: at as u64,
            length: event.len() as u32,
            kind: header.kind,
            artificial,
            file: self.file,
            offset: self.next,
            changes_before: self.changes,
            changes: 0,
        };
        match message {
            Message::FormatDescription(format) => {
                self.film.checksum = format.checksum;
                self.film.files[self.file as usize].description = index;
                self.format = format;
            }
            Message::Rotate(rotate) if artificial => {
                let current = &mut self.film.files[self.file as usize];
                if current.name != rotate.file {
                    self.film.files.push(File {
                        name: rotate.file.to_owned(),
                        description: u64::MAX,
                    });
                    self.file += 1;
                }
                self.next = rotate.position;
                (shot.file, shot.offset) = (self.file, self.next);
            }
            Message::TableMap(map) => {
                self.tables.insert(map.table_id, map.describe()?.columns);
            }
            Message::Rows(rows) => {
                shot.changes = count_rows(&rows, self.tables.get(&rows.table_id))?
            }
            message => {
                if let Some(gtid) = transaction_start(&message) {
                    self.film
                        .transactions
                        .push(Transaction { first: index, gtid });
                }
            }
        }
        self.changes += u64::from(shot.changes);
        if !artificial {
            self.next += u64::from(header.length);
        }
        self.film.shots.push(shot);
        Ok(())
    }
}

fn count_rows(
    rows: &Rows<'_>,
    columns: Option<&Vec<Column>>,
) -> Result<u32, protocol::DecodeError> {
    // Rows of a table that no TABLE_MAP described are the server's "ignore me" (table id 0xffffff): no rows at all.
    let Some(columns) = columns else {
        return Ok(0);
    };
    let mut count = 0;
    for row in rows.walk(columns)? {
        row?;
        count += 1;
    }
    Ok(count)
}

/// The transaction that `message` begins: `Some(None)` for one without a name.
fn transaction_start(message: &Message<'_>) -> Option<Option<Gtid>> {
    match message {
        Message::Gtid(gtid) if gtid.anonymous => Some(None),
        Message::Gtid(gtid) => {
            let source = SourceId {
                uuid: Uuid(gtid.uuid),
                tag: Tag::new(gtid.tag.as_bytes()).unwrap_or_default(),
            };
            let number = gtid.number;
            Some(Some(Gtid::MySql { source, number }))
        }
        Message::MariaDbGtid(gtid) => Some(Some(Gtid::MariaDb(DomainGtid {
            domain: gtid.domain,
            server: gtid.server_id,
            sequence: gtid.sequence,
        }))),
        _ => None,
    }
}

/// A stretch of events.
pub(super) type Stretch = Range<u64>;
