//! A small blocking client that hands out messages exactly as they came: recordings must hold what the server sent, not what a
//! library made of it.
//!
//! Authentication and everything before the stream are read by `postgres-protocol`, which shares no code with ours.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;
use protocol::postgres::catalog::session_options;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::fallible_iterator::FallibleIterator as _;

use crate::record::RecordError;

/// A server that is silent for so long while it has something to send is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Tag and length of a message.
const HEADER: usize = 5;

/// One answer of rows: column names, and cells as text.
pub(super) type Rows = (Vec<String>, Vec<Vec<Option<String>>>);

/// A connection after authentication.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// Where the unread part of `received` starts.
    at: usize,
    /// The last message's length, until the next is asked for.
    consumed: usize,
    /// Every ParameterStatus so far.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Client {
    /// Connects as `config` says, without TLS; `replication` for the commands of logical replication.
    pub(crate) fn connect(config: &Config, replication: bool) -> Result<Client, RecordError> {
        let (Some(Host::Tcp(host)), Some(user)) = (config.get_hosts().first(), config.get_user())
        else {
            return Err(RecordError::Usage("--url: names no host or no user".into()));
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let stream = TcpStream::connect((host.as_str(), port)).map_err(RecordError::Connection)?;
        stream.set_nodelay(true).map_err(RecordError::Connection)?;
        stream
            .set_read_timeout(Some(SILENCE_MAX))
            .map_err(RecordError::Connection)?;
        let mut client = Client {
            stream,
            received: Vec::new(),
            at: 0,
            consumed: 0,
            parameters: BTreeMap::new(),
        };
        let options = session_options();
        let mut parameters = vec![
            ("user", user),
            ("database", config.get_dbname().unwrap_or(user)),
            ("application_name", "walbrook-record"),
            ("options", &options),
        ];
        if replication {
            parameters.push(("replication", "database"));
        }
        client.send(|out| frontend::startup_message(parameters.iter().copied(), out))?;
        client.authenticate(user, config.get_password().unwrap_or_default())?;
        client.ready()?;
        Ok(client)
    }

    fn authenticate(&mut self, user: &str, password: &[u8]) -> Result<(), RecordError> {
        let wrong = |error: std::io::Error| RecordError::Authentication(error.to_string());
        let mut scram = None;
        loop {
            match self.parsed()? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    self.send(|out| frontend::password_message(password, out))?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), password, body.salt());
                    self.send(|out| frontend::password_message(hash.as_bytes(), out))?;
                }
                Message::AuthenticationSasl(body) => {
                    let mut mechanisms = body.mechanisms();
                    if !mechanisms
                        .any(|name| Ok(name == SCRAM_SHA_256))
                        .map_err(wrong)?
                    {
                        return Err(RecordError::Authentication(
                            "the server offers no SCRAM-SHA-256".into(),
                        ));
                    }
                    let begun = ScramSha256::new(password, ChannelBinding::unsupported());
                    self.send(|out| {
                        frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), out)
                    })?;
                    scram = Some(begun);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().ok_or(UNASKED)?;
                    scram.update(body.data()).map_err(wrong)?;
                    self.send(|out| frontend::sasl_response(scram.message(), out))?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let scram = scram.as_mut().ok_or(UNASKED)?;
                    scram.finish(body.data()).map_err(wrong)?;
                }
                _ => return Err(UNASKED),
            }
        }
    }

    /// Reads up to ReadyForQuery.
    fn ready(&mut self) -> Result<(), RecordError> {
        loop {
            match self.parsed()? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ParameterStatus(body) => {
                    let name = body.name().map_err(RecordError::Connection)?.to_owned();
                    let value = body.value().map_err(RecordError::Connection)?.to_owned();
                    self.parameters.insert(name, value);
                }
                _ => {}
            }
        }
    }

    /// Runs one statement or replication command and reads its whole answer.
    pub(super) fn rows(&mut self, sql: &str) -> Result<Rows, RecordError> {
        self.command(sql)?;
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        loop {
            match self.parsed()? {
                Message::RowDescription(body) => {
                    columns = body
                        .fields()
                        .map(|field| Ok(field.name().to_owned()))
                        .collect()
                        .map_err(RecordError::Connection)?;
                }
                Message::DataRow(body) => rows.push(cells(&body)?),
                Message::ReadyForQuery(_) => return Ok((columns, rows)),
                _ => {}
            }
        }
    }

    /// Sends a statement or replication command; its answer starts with the next message.
    pub(crate) fn command(&mut self, sql: &str) -> Result<(), RecordError> {
        self.send(|out| frontend::query(sql, out))
    }

    /// Tells the server that we live and that nothing is confirmed.
    ///
    /// ```text
    /// r written:8 flushed:8 applied:8 clock:8 reply:1      (in a CopyData; big endian; 0: unknown)
    /// ```
    pub(super) fn status(&mut self) -> Result<(), RecordError> {
        self.send(|out| {
            out.put_u8(b'd');
            out.put_u32(4 + 34);
            out.put_u8(b'r');
            out.put_bytes(0, 33);
            Ok(())
        })
    }

    /// The next message, whole: tag, length, body.
    pub(crate) fn message(&mut self) -> Result<&[u8], RecordError> {
        self.at += std::mem::take(&mut self.consumed);
        loop {
            if let Some(header) = self.received[self.at..].first_chunk::<HEADER>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
                let whole = length as usize + 1;
                if whole < HEADER {
                    return Err(RecordError::Unexpected("a message of impossible length"));
                }
                if self.received.len() - self.at >= whole {
                    self.consumed = whole;
                    return Ok(&self.received[self.at..self.at + whole]);
                }
            }
            self.receive()?;
        }
    }

    /// The next message that is no notice, as `postgres-protocol` understands it; an error of the server is ours.
    fn parsed(&mut self) -> Result<Message, RecordError> {
        loop {
            let mut bytes = BytesMut::from(self.message()?);
            match Message::parse(&mut bytes).map_err(RecordError::Connection)? {
                Some(Message::ErrorResponse(body)) => return Err(refusal(body.fields())),
                Some(Message::NoticeResponse(_)) => {}
                Some(message) => return Ok(message),
                None => return Err(RecordError::Unexpected("a message cut short")),
            }
        }
    }

    /// The socket, and what was read of it behind the last message.
    pub(crate) fn into_parts(mut self) -> (TcpStream, Vec<u8>) {
        self.received.drain(..self.at + self.consumed);
        (self.stream, self.received)
    }

    /// Appends what the socket has, after moving the unread rest to the front.
    fn receive(&mut self) -> Result<(), RecordError> {
        self.received.drain(..self.at);
        self.at = 0;
        let filled = self.received.len();
        self.received.resize(filled + (256 << 10), 0);
        let read = self
            .stream
            .read(&mut self.received[filled..])
            .map_err(RecordError::Connection)?;
        self.received.truncate(filled + read);
        if read == 0 {
            return Err(RecordError::Unexpected("the end of the connection"));
        }
        Ok(())
    }

    fn send(
        &mut self,
        message: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), RecordError> {
        let mut bytes = BytesMut::new();
        message(&mut bytes).map_err(RecordError::Connection)?;
        self.stream
            .write_all(&bytes)
            .map_err(RecordError::Connection)
    }
}

const UNASKED: RecordError = RecordError::Unexpected("an answer to our authentication");

fn cells(row: &DataRowBody) -> Result<Vec<Option<String>>, RecordError> {
    let buffer = row.buffer();
    let cell = |range: Option<std::ops::Range<usize>>| {
        Ok(range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned()))
    };
    row.ranges()
        .map(cell)
        .collect()
        .map_err(RecordError::Connection)
}

/// The server's own words, with the code by which clients know the kind.
pub(crate) fn refused(message: &[u8]) -> RecordError {
    match Message::parse(&mut BytesMut::from(message)) {
        Ok(Some(Message::ErrorResponse(body))) => refusal(body.fields()),
        _ => RecordError::Unexpected("no part of a stream"),
    }
}

fn refusal(mut fields: ErrorFields<'_>) -> RecordError {
    let (mut text, mut code) = (String::new(), String::new());
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'M' => text = value.into_owned(),
            b'C' => code = value.into_owned(),
            _ => {}
        }
    }
    RecordError::Refused(format!("{text} ({code})"))
}
