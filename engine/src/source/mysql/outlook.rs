//! What the binary log changes between a place and the server's end: a look ahead, on a connection of its own.
//!
//! ```text
//! rows of shop.t ──────── ALTER TABLE shop.t ───────── end of the log
//! ▲ the stream is here    ▲ would be found             ▲ information_schema speaks of here
//! ```
//! Where rows have no column names, those that information_schema has now are theirs only if nothing in between has changed the table.
//! The look ahead reads the headers of all events and the text of statements; everything else is passed over as it comes, so that it
//! costs a transfer of that part of the log and no memory. What was looked at once is not looked at again.

use std::collections::HashMap;
use std::time::Duration;

use protocol::limits::MYSQL_EVENT_MAX;
use protocol::mysql::command::DUMP_NON_BLOCK;
use protocol::mysql::event::{Format, HEADER_LENGTH, Header, Kind, Message, Query};
use protocol::mysql::packet;
use protocol::mysql::resultset::ServerError;
use protocol::mysql::statement::Statement;
use protocol::{DecodeError, DecodeErrorKind};

use super::connection::{ConnectOptions, Connection, ConnectionError};
use super::names;
use super::server::{self, Variables};
use super::session;
use super::transaction::Place;
use super::{MySql, is_past};
use crate::config::Selection;
use crate::source::reconnect::Database;
use crate::source::{Identity, SourceError};

/// Statements are shown up to here.
const SHOWN_MAX: usize = 200;

/// Bytes that one read may bring.
const READ: usize = 256 << 10;

/// A server that reads its own log says something at least this often.
const PATIENCE: Duration = Duration::from_secs(60);

/// A statement that may have changed what a table looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Where the statement begins.
    pub(super) at: Place,
    /// Behind it.
    pub(super) end: Place,
    /// Its text, cut where it is long.
    pub(super) statement: Box<str>,
}

/// The last change of every captured table on a stretch of one server's log.
#[derive(Debug)]
pub(super) struct Outlook {
    server: Identity,
    from: Place,
    until: Place,
    tables: HashMap<(String, String), Change>,
    databases: HashMap<String, Change>,
    /// The last one that may have changed any table.
    any: Option<Change>,
    /// Where bytes could not be read the last time: twice at the same place is no accident of the line.
    unreadable_at: Option<Place>,
}

impl Outlook {
    /// Nothing has been looked at yet.
    pub(super) fn new(server: Identity, from: Place) -> Self {
        Self {
            server,
            until: from.clone(),
            from,
            tables: HashMap::new(),
            databases: HashMap::new(),
            any: None,
            unreadable_at: None,
        }
    }

    /// Whether what follows `place` on `server` has been looked at from there on, or can be by going on.
    pub(super) fn covers(&self, server: &Identity, place: &Place) -> bool {
        self.server == *server && is_past(place, &self.from) && is_past(&self.until, place)
    }

    /// The last change of a table at or behind `place`.
    pub(super) fn change(&self, schema: &str, table: &str, place: &Place) -> Option<&Change> {
        let name = (names::folded(schema), names::folded(table));
        let changes = [
            self.tables.get(&name),
            self.databases.get(&name.0),
            self.any.as_ref(),
        ];
        let behind = |change: &&Change| is_past(&change.at, place);
        (changes.into_iter().flatten().filter(behind))
            .max_by(|a, b| super::order(&a.at).cmp(&super::order(&b.at)))
    }

    /// Looks on up to `until`.
    ///
    /// # Errors
    /// The server cannot be reached, refuses, or sends what cannot be read.
    pub(super) async fn extend(
        &mut self,
        options: &ConnectOptions,
        selection: &Selection,
        until: &Place,
    ) -> Result<(), SourceError> {
        if is_past(&self.until, until) {
            return Ok(());
        }
        if self.until.file != until.file {
            tracing::info!(
                "looking from {} ahead to {} for definitions that change, because the binary log has no column names \
                 (binlog_row_metadata is not FULL)",
                self.until.to_position(),
                until.to_position()
            );
        }
        let mut dump = Dump::open(options, &self.until).await?;
        let read = self.read(&mut dump, selection, until).await;
        read.map_err(|error| match dump.unreadable {
            true => self.unreadable(dump.place, error),
            false => error,
        })
    }

    /// Nobody stops asking as long as another attempt may help; here the second one is the last.
    fn unreadable(&mut self, at: Place, error: SourceError) -> SourceError {
        if self.unreadable_at.as_ref() == Some(&at) {
            return SourceError::halt(format!(
                "{error}; it came twice like this over different connections, so {}",
                MySql::UNREADABLE
            ));
        }
        self.unreadable_at = Some(at);
        error
    }

    async fn read(
        &mut self,
        dump: &mut Dump,
        selection: &Selection,
        until: &Place,
    ) -> Result<(), SourceError> {
        let from = self.until.clone();
        let mut statements = Vec::new();
        while dump.next(until, &mut statements).await? {
            for Found { text, at, end } in statements.drain(..) {
                // A dump that begins at the start of the file brings what was seen before.
                if is_past(&at, &from) {
                    self.note(&text, at, end, selection);
                }
            }
        }
        self.until = until.clone();
        Ok(())
    }

    fn note(&mut self, said: &Text, at: Place, end: Place, selection: &Selection) {
        let change = || Change {
            at: at.clone(),
            end: end.clone(),
            statement: said.shown.clone(),
        };
        match &said.statement {
            // A table that is made was not there before, or is not changed (IF NOT EXISTS).
            Statement::Ddl { only_new: true, .. } => {}
            Statement::Ddl { tables, .. } => {
                for table in &tables.named {
                    let (schema, table) = names::stored(table, &said.database, said.folds_names);
                    if selection.includes(&schema, &table) {
                        let name = (names::folded(&schema), names::folded(&table));
                        self.tables.insert(name, change());
                    }
                }
                if !tables.complete {
                    self.any = Some(change());
                }
            }
            Statement::DropDatabase(database) => {
                let stored = match said.folds_names {
                    true => &names::folded(database),
                    false => database,
                };
                if selection.may_include_schema(stored) {
                    self.databases.insert(names::folded(database), change());
                }
            }
            _ => {}
        }
    }
}

/// A statement's meaning, and its text for people.
#[derive(Debug)]
struct Text {
    statement: Statement,
    database: Vec<u8>,
    /// Whether the server stores the names of tables in lower case, however they are written here.
    folds_names: bool,
    shown: Box<str>,
}

impl Text {
    fn of(query: &Query<'_>, folds_names: bool) -> Self {
        let mut shown = String::from_utf8_lossy(query.statement).into_owned();
        if let Some((at, _)) = shown.char_indices().nth(SHOWN_MAX) {
            shown.truncate(at);
            shown.push('…');
        }
        Self {
            statement: query.recognise(),
            database: query.database.to_vec(),
            folds_names,
            shown: shown.into(),
        }
    }
}

/// A statement of the dump.
#[derive(Debug)]
struct Found {
    text: Text,
    at: Place,
    end: Place,
}

/// A dump of which only statements are kept.
struct Dump {
    connection: Connection,
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are done with.
    used: usize,
    format: Format,
    folds_names: bool,
    place: Place,
    /// Whether something came that cannot be read.
    unreadable: bool,
}

impl Dump {
    async fn open(options: &ConnectOptions, from: &Place) -> Result<Self, SourceError> {
        let mut connection = Connection::connect(options).await?;
        let variables = session::text(connection.query(server::VARIABLES).await?);
        let variables = Variables::read(variables);
        session::understand(&mut connection, variables.flavour(), "").await?;
        let mut position = from.to_position();
        if u32::try_from(position.offset).is_err() {
            position.offset = 4;
        }
        // As mysqlbinlog: server id 0 is no replica, and drops no other connection of ours.
        connection.binlog_dump(&position, 0, DUMP_NON_BLOCK).await?;
        Ok(Self {
            connection,
            bytes: Vec::new(),
            used: 0,
            format: Format::before_description(variables.checksum()),
            folds_names: variables.folds_names(),
            place: Place::new(&position),
            unreadable: false,
        })
    }

    /// Reads one event, and puts it into `statements` when it is one. `false` at `until`, or at the log's end.
    async fn next(
        &mut self,
        until: &Place,
        statements: &mut Vec<Found>,
    ) -> Result<bool, SourceError> {
        if is_past(&self.place, until) && !self.place.file.is_empty() {
            return Ok(false);
        }
        // | packet header | 0x00 | event header |, where the whole of an event is no longer than its packet.
        self.need(packet::HEADER_LENGTH + 1).await?;
        let length = self.packet_length()?;
        let marker = self.bytes[self.used + packet::HEADER_LENGTH];
        match marker {
            0x00 => {}
            0xfe if length < 9 => return Ok(false),
            _ => return Err(self.refusal().await),
        }
        self.need(packet::HEADER_LENGTH + 1 + HEADER_LENGTH).await?;
        let start = self.used + packet::HEADER_LENGTH + 1;
        let header = Header::parse(&self.bytes[start..]).map_err(|error| self.unreadable(error))?;
        if !is_read(header.kind) {
            self.place.advance(&header);
            self.pass_over().await?;
            return Ok(true);
        }
        let event = self.take().await?;
        self.event(&header, &event[1..], statements)
            .map_err(|error| self.unreadable(error))?;
        Ok(true)
    }

    fn event(
        &mut self,
        header: &Header,
        event: &[u8],
        statements: &mut Vec<Found>,
    ) -> Result<(), DecodeError> {
        let (_, message) = Message::parse(&self.format, event)?;
        let at = self.place.advance(header);
        let at = Place {
            file: self.place.file.clone(),
            offset: at,
        };
        let folds_names = self.folds_names;
        let found = |query: &Query<'_>, end: &Place| Found {
            text: Text::of(query, folds_names),
            at: at.clone(),
            end: end.clone(),
        };
        match message {
            Message::FormatDescription(format) => self.format = format,
            Message::Rotate(rotate) => self.place.jump(rotate.file, rotate.position),
            Message::Query(query) => statements.push(found(&query, &self.place)),
            Message::Compressed(compressed) => {
                let mut plain = Vec::new();
                compressed.expand(&mut plain)?;
                let format = self.format.without_checksum();
                if let (_, Message::Query(query)) = Message::parse(&format, &plain)? {
                    statements.push(found(&query, &self.place));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Payload bytes of the packet that comes next.
    fn packet_length(&self) -> Result<usize, SourceError> {
        let header = self.bytes.get(self.used..self.used + 3);
        match header {
            Some([a, b, c]) => Ok(u32::from_le_bytes([*a, *b, *c, 0]) as usize),
            _ => Err(SourceError::retry("the server ended the look ahead")),
        }
    }

    /// Reads until `length` bytes are there.
    async fn need(&mut self, length: usize) -> Result<(), SourceError> {
        while self.bytes.len() < self.used + length {
            if self.used > 0 {
                self.bytes.drain(..self.used);
                self.used = 0;
            }
            self.bytes.reserve(READ.max(length - self.bytes.len()));
            let read = self.connection.read_into(&mut self.bytes);
            let timed_out = |_| ConnectionError::TimedOut {
                doing: "reading the binary log ahead",
                after: PATIENCE,
            };
            tokio::time::timeout(PATIENCE, read)
                .await
                .map_err(timed_out)??;
        }
        Ok(())
    }

    /// Drops `length` bytes, also those that are still to come.
    async fn drop(&mut self, mut length: usize) -> Result<(), SourceError> {
        loop {
            let here = length.min(self.bytes.len() - self.used);
            self.used += here;
            length -= here;
            if length == 0 {
                return Ok(());
            }
            self.need(1).await?;
        }
    }

    /// Passes over a packet, and those that go on with it.
    async fn pass_over(&mut self) -> Result<(), SourceError> {
        loop {
            self.need(packet::HEADER_LENGTH).await?;
            let length = self.packet_length()?;
            self.drop(packet::HEADER_LENGTH + length).await?;
            if length < protocol::limits::MYSQL_PACKET_MAX {
                return Ok(());
            }
        }
    }

    /// A packet's payload, with those that go on with it.
    async fn take(&mut self) -> Result<Vec<u8>, SourceError> {
        let mut payload = Vec::new();
        loop {
            self.need(packet::HEADER_LENGTH).await?;
            let length = self.packet_length()?;
            if payload.len() + length > MYSQL_EVENT_MAX {
                let limit = MYSQL_EVENT_MAX as u64;
                let length = (payload.len() + length) as u64;
                let kind = DecodeErrorKind::TooLong { length, limit };
                return Err(self.unreadable(DecodeError::new("packet payload", 0, kind)));
            }
            self.drop(packet::HEADER_LENGTH).await?;
            self.need(length).await?;
            payload.extend_from_slice(&self.bytes[self.used..self.used + length]);
            self.drop(length).await?;
            if length < protocol::limits::MYSQL_PACKET_MAX {
                return Ok(payload);
            }
        }
    }

    async fn refusal(&mut self) -> SourceError {
        let at = self.place.to_position();
        match self.take().await {
            Ok(payload) => match ServerError::decode(&payload) {
                Ok(error) => session::refused(&error, 0, &at),
                Err(error) => self.unreadable(error),
            },
            Err(error) => error,
        }
    }

    fn unreadable(&mut self, error: DecodeError) -> SourceError {
        self.unreadable = true;
        let at = self.place.to_position();
        SourceError::retry(format!(
            "the look ahead for definitions that change cannot be read at {at}"
        ))
        .because(error)
    }
}

/// Whether an event of this kind is looked into.
fn is_read(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::QUERY | Kind::QUERY_COMPRESSED | Kind::ROTATE | Kind::FORMAT_DESCRIPTION
    )
}

#[cfg(test)]
mod tests {
    use protocol::mysql::statement::SqlMode;

    use super::*;
    use crate::source::Verdict;

    #[test]
    fn a_change_is_found_however_its_statement_spells_the_table() {
        let place = |offset| Place {
            file: "b.000001".into(),
            offset,
        };
        let selection = Selection::new(&["shop.*", "!shop.Audit"]).unwrap();
        let found = |statement: &str, folds_names: bool, table: &str| {
            let mut outlook = Outlook::new("mysql:test".parse().unwrap(), place(4));
            let text = Text {
                statement: Statement::recognise(statement, SqlMode::default()),
                database: b"Shop".to_vec(),
                folds_names,
                shown: statement.into(),
            };
            outlook.note(&text, place(100), place(200), &selection);
            outlook.change("shop", table, &place(50)).is_some()
        };
        let rename = "ALTER TABLE ÜBER RENAME COLUMN a TO b";
        assert!(found(rename, true, "über"));
        assert!(found("DROP DATABASE SHOP", true, "über"));
        assert!(!found(rename, true, "orders"));
        // Where case matters it is another database.
        assert!(!found(rename, false, "über"));
        assert!(!found("DROP DATABASE SHOP", false, "über"));
        let excluded = "ALTER TABLE shop.Audit RENAME COLUMN a TO b";
        assert!(found(excluded, true, "audit"));
        assert!(!found(excluded, false, "audit"));
    }

    #[test]
    fn what_cannot_be_read_twice_halts() {
        let place = |offset| Place {
            file: "b.000001".into(),
            offset,
        };
        let mut outlook = Outlook::new("mysql:test".parse().unwrap(), place(4));
        let mut again = |offset| {
            let error = SourceError::retry("the look ahead cannot be read");
            outlook.unreadable(place(offset), error)
        };
        assert_eq!(again(100).verdict(), Verdict::Retry);
        // It came further than before.
        assert_eq!(again(200).verdict(), Verdict::Retry);
        let error = again(200);
        assert_eq!(error.verdict(), Verdict::Halt);
        let text = error.to_string();
        assert!(
            text.contains("look ahead") && text.contains("mysqlbinlog"),
            "{text}"
        );
    }
}
