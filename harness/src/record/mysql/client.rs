//! A small blocking client that hands out packets exactly as they came: recordings must hold what the server sent, not what a
//! library made of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mysql_async::Opts;
use protocol::mysql::auth::{Client as Authentication, ClientStep, Request};
use protocol::mysql::command::Command;
use protocol::mysql::handshake::{Greeting, Response, capability};
use protocol::mysql::packet::{self, Frames};
use protocol::mysql::resultset::{Answer, AnswerReader, ResultSet, ServerError};

use crate::record::RecordError;

/// Larger than any event that a server sends.
const PACKET_MAX: u32 = 1 << 30;
/// A server that is silent for so long while it has something to send is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A connection after authentication.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// Where the unread part of `received` starts.
    at: usize,
    /// The last packet's place, until the next is asked for.
    consumed: usize,
    frames: Frames,
    /// What the greeting said.
    pub(super) greeting: Greeting,
}

impl Client {
    /// Connects as `url` says and authenticates, without TLS.
    pub(crate) fn connect(options: &Opts) -> Result<Client, RecordError> {
        let stream = TcpStream::connect((options.ip_or_hostname(), options.tcp_port()))
            .map_err(RecordError::Connection)?;
        stream.set_nodelay(true).map_err(RecordError::Connection)?;
        stream
            .set_read_timeout(Some(SILENCE_MAX))
            .map_err(RecordError::Connection)?;
        let empty = Greeting {
            version: String::new(),
            connection_id: 0,
            nonce: Vec::new(),
            capabilities: 0,
            charset: 0,
            status: 0,
            plugin: String::new(),
        };
        let frames = Frames::starting_at(0);
        let mut client = Client {
            stream,
            received: Vec::new(),
            at: 0,
            consumed: 0,
            frames,
            greeting: empty,
        };
        let (greeting, _) = client.packet()?;
        if greeting.first() == Some(&0xff) {
            return Err(refused(greeting));
        }
        client.greeting = Greeting::decode(greeting)?;
        client.authenticate(options)?;
        Ok(client)
    }

    fn authenticate(&mut self, options: &Opts) -> Result<(), RecordError> {
        let password = options.pass().unwrap_or_default().as_bytes();
        let wrong = |error: protocol::mysql::auth::AuthError| {
            RecordError::Authentication(error.to_string())
        };
        let mut authentication =
            Authentication::new(&self.greeting.plugin, &self.greeting.nonce, password, false)
                .map_err(wrong)?;
        let wanted = capability::REQUIRED
            | capability::LONG_PASSWORD
            | capability::LONG_FLAG
            | capability::TRANSACTIONS
            | capability::PLUGIN_AUTH_LENENC_CLIENT_DATA;
        let response = Response {
            capabilities: wanted & (self.greeting.capabilities | capability::LONG_PASSWORD),
            packet_max: PACKET_MAX,
            charset: 45,
            user: options.user().unwrap_or_default().to_owned(),
            auth_response: authentication.first().map_err(wrong)?,
            plugin: authentication.plugin().name().to_owned(),
            ..Response::default()
        };
        let mut payload = Vec::new();
        response.encode(&mut payload);
        let mut sequence = 1;
        loop {
            if !payload.is_empty() {
                self.send(&payload, sequence)?;
            }
            let (answer, last) = self.packet()?;
            match answer.first() {
                Some(0x00) => return Ok(()),
                Some(0xff) => return Err(refused(answer)),
                _ => {}
            }
            let request = Request::decode(answer)?
                .ok_or(RecordError::Unexpected("an answer to our authentication"))?;
            payload = match authentication
                .answer(request, rand::random())
                .map_err(wrong)?
            {
                ClientStep::Send(payload) => payload,
                ClientStep::Wait => Vec::new(),
            };
            sequence = last.wrapping_add(1);
        }
    }

    /// Runs a statement and reads its whole answer.
    pub(super) fn query(&mut self, sql: &str) -> Result<Answer, RecordError> {
        self.command(&Command::Query(sql.as_bytes()))?;
        let mut reader = AnswerReader::new(false);
        loop {
            let (payload, _) = self.packet()?;
            if let Some(answer) = reader.packet(payload)? {
                return Ok(answer);
            }
        }
    }

    /// Runs a statement that answers rows; `None` when the server refuses it (an older or newer one may know it).
    pub(crate) fn rows(&mut self, sql: &str) -> Result<Option<ResultSet>, RecordError> {
        match self.query(sql)? {
            Answer::Rows(rows) => Ok(Some(rows)),
            Answer::Done | Answer::Refused(_) => Ok(None),
        }
    }

    /// Runs a statement that must succeed.
    pub(crate) fn run(&mut self, sql: &str) -> Result<(), RecordError> {
        match self.query(sql)? {
            Answer::Refused(error) => Err(RecordError::Refused(format!("{sql}: {error}"))),
            Answer::Done | Answer::Rows(_) => Ok(()),
        }
    }

    /// Sends a command; its answer starts with the next [`Client::packet`].
    pub(crate) fn command(&mut self, command: &Command<'_>) -> Result<(), RecordError> {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        self.send(&payload, 0)
    }

    /// Another handle of the socket, to shut it down by.
    pub(crate) fn socket(&self) -> std::io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// The next payload, joined where it came in several packets, and its last sequence id.
    pub(crate) fn packet(&mut self) -> Result<(&[u8], u8), RecordError> {
        self.at += std::mem::take(&mut self.consumed);
        loop {
            if let Some(frame) = self.frames.next(&self.received[self.at..])? {
                if frame.is_split() {
                    frame.join(&mut self.received[self.at..]);
                }
                self.consumed = frame.wire_length;
                let payload = frame.payload();
                return Ok((
                    &self.received[self.at + payload.start..self.at + payload.end],
                    frame.sequence,
                ));
            }
            self.receive()?;
        }
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

    fn send(&mut self, payload: &[u8], mut sequence: u8) -> Result<(), RecordError> {
        let mut bytes = Vec::with_capacity(payload.len() + packet::HEADER_LENGTH);
        packet::write(&mut bytes, &mut sequence, payload);
        // Both sides count in turn.
        self.frames = Frames::starting_at(sequence);
        self.stream
            .write_all(&bytes)
            .map_err(RecordError::Connection)
    }
}

/// The server's own words.
pub(crate) fn refused(payload: &[u8]) -> RecordError {
    match ServerError::decode(payload) {
        Ok(error) => RecordError::Refused(error.to_string()),
        Err(error) => RecordError::Decode(error),
    }
}
