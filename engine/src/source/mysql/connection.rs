//! A client connection to MySQL or MariaDB: handshake, TLS, queries, and then the raw bytes of a dump.
//!
//! ```text
//! connect ─► query … ─► register_replica ─► binlog_dump | binlog_dump_gtid ─► read_into, read_into, …
//! ```
//! After a dump command the server only sends: the caller reads what the socket has straight into its own buffer and finds the
//! packets there ([`protocol::mysql::packet`]), numbered from 1. Within [`ConnectOptions::timeout`] the handshake and each
//! query must be over; reading a dump waits as long as it takes (heartbeats are the caller's business).

use std::time::{Duration, Instant};

use protocol::mysql::BinlogPosition;
use protocol::mysql::auth::{self, AuthError, ClientStep, Request};
use protocol::mysql::command::{BinlogDump, BinlogDumpGtid, Command, DUMP_THROUGH_GTID, Replica};
use protocol::mysql::gtid::{Flavour, IntervalSet};
use protocol::mysql::handshake::{Greeting, Response, capability};
use protocol::mysql::packet::{self, Frames};
use protocol::mysql::resultset::{Answer, AnswerReader, ServerError};
use protocol::{DecodeError, DecodeErrorKind};
use tokio::io::AsyncWriteExt as _;

pub use protocol::mysql::resultset::ResultSet;

pub use error::{ConnectionError, server_verdict};

use super::compression::{self, Choice};
use super::transport::Transport;
use crate::config::{Io, Secret, SourceAddress, SourceTls, TlsMode, WireCompression};
use crate::source::receive::Received;
use crate::source::socket::Socket;
use crate::source::tls;

mod error;

/// Where to connect, as whom, and how.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Name or address, without brackets.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
    /// User name.
    pub user: Box<str>,
    /// Password; empty without one.
    pub password: Secret,
    /// How the connection is protected.
    pub tls: SourceTls,
    /// How the stream of packets is compressed.
    pub compression: WireCompression,
    /// The round trip of an earlier connection, by which `auto` was decided.
    pub round_trip: Option<Duration>,
    /// How long the handshake, and each query, may take.
    pub timeout: Duration,
}

impl ConnectOptions {
    /// Options for the server of a source's URL: 30 s.
    #[must_use]
    pub fn to(address: &SourceAddress) -> Self {
        Self {
            host: address.host.clone(),
            port: address.port,
            user: address.user.clone(),
            password: address.password.clone(),
            tls: address.tls.clone(),
            compression: address.compression,
            round_trip: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    greeting: Greeting,
    capabilities: u32,
    secure: bool,
    round_trip: Duration,
    compression: Choice,
    timeout: Duration,
    /// Bytes read and not yet used.
    incoming: Vec<u8>,
    frames: Frames,
}

impl Connection {
    /// Connects, protects the line as asked, and authenticates.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectionError> {
        let doing = "connecting";
        let after = options.timeout;
        tokio::time::timeout(after, Self::connect_untimed(options))
            .await
            .map_err(|_| ConnectionError::TimedOut { doing, after })?
    }

    async fn connect_untimed(options: &ConnectOptions) -> Result<Self, ConnectionError> {
        let unreachable = |source| ConnectionError::Unreachable {
            host: options.host.clone(),
            port: options.port,
            source,
        };
        let (stream, round_trip) = Socket::connect(&options.host, options.port)
            .await
            .map_err(unreachable)?;
        let mut connection = Self {
            transport: Transport::plain(stream),
            greeting: Greeting {
                version: String::new(),
                connection_id: 0,
                nonce: Vec::new(),
                capabilities: 0,
                charset: 0,
                status: 0,
                plugin: String::new(),
            },
            capabilities: 0,
            secure: false,
            round_trip: options.round_trip.unwrap_or(round_trip),
            compression: Choice::OFF,
            timeout: options.timeout,
            incoming: Vec::new(),
            frames: Frames::starting_at(0),
        };
        connection.shake_hands(options).await?;
        Ok(connection)
    }

    async fn shake_hands(&mut self, options: &ConnectOptions) -> Result<(), ConnectionError> {
        let doing = "greeting";
        let (payload, mut sequence) = self.packet(doing).await?;
        if payload.first() == Some(&0xff) {
            return Err(denied(options, &payload, doing));
        }
        self.greeting = Greeting::decode(&payload).map_err(|source| protocol(doing, source))?;
        self.compression = Choice::new(
            options.compression,
            self.greeting.capabilities,
            self.round_trip,
        )?;
        sequence = sequence.wrapping_add(1);
        let mut response = self.response(options);
        if options.tls.mode != TlsMode::Disable {
            sequence = self.start_tls(options, &mut response, sequence).await?;
        }
        self.capabilities = response.capabilities;

        let password = options.password.reveal().as_bytes();
        let nonce = &self.greeting.nonce;
        // Where the server's default is a plugin that we do not speak, the user may still have one that we do: any answer
        // makes the server switch to it.
        let mut client = auth::Client::new(&self.greeting.plugin, nonce, password, self.secure)
            .or_else(|_| {
                let nonce = nonce.get(..20).unwrap_or(nonce);
                auth::Client::new("mysql_native_password", nonce, password, self.secure)
            })?;
        response.plugin = client.plugin().name().to_owned();
        response.auth_response = client.first()?;
        let mut payload = Vec::new();
        response.encode(&mut payload);
        self.send(&payload, sequence, "authenticating").await?;
        self.authenticate(options, client).await?;
        if let Some(algorithm) = self.compression.algorithm {
            (self.transport.compress(algorithm)).map_err(|source| protocol(doing, source))?;
        }
        Ok(())
    }

    fn response(&self, options: &ConnectOptions) -> Response {
        let mut wanted = capability::REQUIRED
            | capability::LONG_PASSWORD
            | capability::LONG_FLAG
            | capability::TRANSACTIONS
            | capability::CONNECT_ATTRS
            | capability::PLUGIN_AUTH_LENENC_CLIENT_DATA
            | capability::DEPRECATE_EOF;
        let mut zstd_level = 0;
        if let Some(algorithm) = self.compression.algorithm {
            wanted |= compression::bit(algorithm);
            zstd_level = algorithm.level();
        }
        let attributes = [
            ("_client_name", env!("CARGO_PKG_NAME").to_owned()),
            ("_client_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("_pid", std::process::id().to_string()),
            ("program_name", "walbrook".to_owned()),
        ];
        Response {
            capabilities: wanted & self.greeting.capabilities,
            packet_max: 1 << 24,
            charset: 45,
            user: options.user.to_string(),
            attributes: attributes
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            zstd_level,
            ..Response::default()
        }
    }

    /// Asks for TLS where the server offers it; the next sequence id.
    async fn start_tls(
        &mut self,
        options: &ConnectOptions,
        response: &mut Response,
        sequence: u8,
    ) -> Result<u8, ConnectionError> {
        if self.greeting.capabilities & capability::SSL == 0 {
            return match options.tls.mode {
                TlsMode::Prefer | TlsMode::Disable => Ok(sequence),
                TlsMode::Require | TlsMode::VerifyFull => Err(ConnectionError::Tls(
                    "the server offers no TLS: configure ssl_cert and ssl_key there, or connect with ?tls=disable".into(),
                )),
            };
        }
        if !self.incoming.is_empty() {
            // Somebody on the line put bytes where the server waits for us: they must not count as said inside TLS.
            let at = DecodeError::new(
                "bytes before TLS",
                0,
                DecodeErrorKind::TrailingBytes {
                    left: self.incoming.len() as u64,
                },
            );
            return Err(protocol("starting TLS", at));
        }
        response.capabilities |= capability::SSL;
        let mut payload = Vec::new();
        response.encode_ssl_request(&mut payload);
        self.send(&payload, sequence, "starting TLS").await?;
        let config = tls::client_config(&options.tls).map_err(ConnectionError::Tls)?;
        self.transport
            .socket()
            .start_tls(config, &options.host)
            .await
            .map_err(ConnectionError::tls)?;
        self.secure = true;
        Ok(sequence.wrapping_add(1))
    }

    async fn authenticate(
        &mut self,
        options: &ConnectOptions,
        mut client: auth::Client,
    ) -> Result<(), ConnectionError> {
        let doing = "authenticating";
        loop {
            let (payload, sequence) = self.packet(doing).await?;
            match payload.first() {
                Some(0x00) => return Ok(()),
                Some(0xff) => return Err(denied(options, &payload, doing)),
                _ => {}
            }
            let request = Request::decode(&payload).map_err(|source| protocol(doing, source))?;
            match client.answer(request.ok_or(AuthError::Unexpected)?, rand::random())? {
                ClientStep::Wait => {}
                ClientStep::Send(answer) => {
                    self.send(&answer, sequence.wrapping_add(1), doing).await?;
                }
            }
        }
    }

    /// What the server said first: version, connection id, capabilities.
    #[must_use]
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Which family the server is of.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.greeting.flavour()
    }

    /// Whether the line is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// How packets are compressed, and why.
    #[must_use]
    pub fn compression(&self) -> Choice {
        self.compression
    }

    /// How far it is to the server: how long TCP's handshake took, and what later connections go by
    /// ([`ConnectOptions::round_trip`]).
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Whether packets travel compressed. Their sequence ids then jump and must not be checked ([`Frames::unchecked`]).
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.transport.is_compressed()
    }

    /// Runs a statement and reads its whole answer; one without rows (SET …) gives an empty [`ResultSet`].
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] with the server's words, after which the connection can be used on; any other error leaves
    /// it unusable.
    pub async fn query(&mut self, statement: &str) -> Result<ResultSet, ConnectionError> {
        let command = Command::Query(statement.as_bytes());
        self.ask(&command, statement).await
    }

    /// Whether the server still answers.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn ping(&mut self) -> Result<(), ConnectionError> {
        self.ask(&Command::Ping, "COM_PING").await.map(|_| ())
    }

    /// Registers as replica `server_id`, so that SHOW REPLICAS lists us.
    ///
    /// # Errors
    /// As [`Connection::query`]: 1045 or 1227 without REPLICATION SLAVE.
    pub async fn register_replica(&mut self, server_id: u32) -> Result<(), ConnectionError> {
        let command = Command::RegisterReplica(Replica {
            server_id,
            host: b"walbrook",
            port: 0,
        });
        self.ask(&command, "COM_REGISTER_SLAVE").await.map(|_| ())
    }

    /// Starts a dump at `position`, or on MariaDB after `@slave_connect_state` where that was set. Returns when the command is
    /// sent: a refusal comes as the dump's first packet. `flags` are the `DUMP_…` of [`protocol::mysql::command`].
    ///
    /// # Errors
    /// The connection is lost; [`ConnectionError::Protocol`] for an offset beyond the command's 32 bits (such a place can be
    /// reached by GTID only).
    pub async fn binlog_dump(
        &mut self,
        position: &BinlogPosition,
        server_id: u32,
        flags: u16,
    ) -> Result<(), ConnectionError> {
        let offset = u32::try_from(position.offset).map_err(|_| {
            let limit = u32::MAX.into();
            let length = position.offset;
            let kind = DecodeErrorKind::TooLong { length, limit };
            protocol(
                "asking for a dump",
                DecodeError::new("COM_BINLOG_DUMP offset", 1, kind),
            )
        })?;
        let command = Command::BinlogDump(BinlogDump {
            offset,
            flags,
            server_id,
            file: position.file.as_bytes(),
        });
        self.command(&command, "asking for a dump").await
    }

    /// Starts a dump of everything that is not in `gtids` (MySQL only). Returns when the command is sent: a refusal comes as
    /// the dump's first packet. [`DUMP_THROUGH_GTID`] is set here.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn binlog_dump_gtid(
        &mut self,
        gtids: &IntervalSet,
        server_id: u32,
        flags: u16,
    ) -> Result<(), ConnectionError> {
        let command = Command::BinlogDumpGtid(BinlogDumpGtid {
            flags: flags | DUMP_THROUGH_GTID,
            server_id,
            file: b"",
            offset: 4,
            gtids: gtids.clone(),
        });
        self.command(&command, "asking for a dump").await
    }

    /// Reads what the socket has into the spare capacity of `buffer` (at least one byte's worth is reserved): packets, of which
    /// the first may be the rest of one and the last incomplete. Their sequence ids go on from 1 after a dump command. Returns
    /// how many bytes came over the line since the last call: fewer than were appended where they are compressed. Cancel-safe:
    /// nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`], with `UnexpectedEof` when the server closed; a broken compressed packet.
    pub async fn read_into(&mut self, buffer: &mut Vec<u8>) -> Result<usize, ConnectionError> {
        if !self.incoming.is_empty() {
            buffer.extend_from_slice(&self.incoming);
            self.incoming.clear();
            return Ok(self.transport.take_received());
        }
        let doing = "reading the binary log";
        self.transport
            .read(buffer)
            .await
            .map_err(|error| failed(doing, error))?;
        Ok(self.transport.take_received())
    }

    /// A dump has begun: a thread reads it from here on, `room` bytes at a time, by io_uring where that can be had. Nothing can be sent any
    /// more.
    ///
    /// # Errors
    /// There is no thread to be had; the connection is lost.
    pub fn receive_by_ring(&mut self, room: usize) -> Result<(), ConnectionError> {
        let doing = "handing the connection to io_uring";
        let received = self.transport.socket().receive_by_ring("binlog", room);
        received.map_err(|source| ConnectionError::Lost { doing, source })
    }

    /// What reads the connection.
    #[must_use]
    pub fn io(&self) -> Io {
        self.transport.received().map_or(Io::Epoll, Received::io)
    }

    /// When what the last read brought had come, where that is known better than by the time of the read.
    #[must_use]
    pub fn arrived(&self) -> Option<Instant> {
        self.transport.received().and_then(Received::arrived)
    }

    async fn ask(
        &mut self,
        command: &Command<'_>,
        statement: &str,
    ) -> Result<ResultSet, ConnectionError> {
        let doing = "asking";
        let after = self.timeout;
        tokio::time::timeout(after, self.ask_untimed(command, statement))
            .await
            .map_err(|_| ConnectionError::TimedOut { doing, after })?
    }

    async fn ask_untimed(
        &mut self,
        command: &Command<'_>,
        statement: &str,
    ) -> Result<ResultSet, ConnectionError> {
        let doing = "asking";
        self.command(command, doing).await?;
        let mut reader = AnswerReader::new(self.capabilities & capability::DEPRECATE_EOF != 0);
        loop {
            let (payload, _) = self.packet(doing).await?;
            match reader
                .packet(&payload)
                .map_err(|source| protocol(doing, source))?
            {
                None => {}
                Some(Answer::Done) => return Ok(ResultSet::default()),
                Some(Answer::Rows(rows)) => return Ok(rows),
                Some(Answer::Refused(error)) => {
                    let statement = statement.to_owned();
                    return Err(ConnectionError::Refused { error, statement });
                }
            }
        }
    }

    async fn command(
        &mut self,
        command: &Command<'_>,
        doing: &'static str,
    ) -> Result<(), ConnectionError> {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        self.transport.restart_sequence();
        // What came before belongs to no dump.
        self.transport.take_received();
        self.send(&payload, 0, doing).await?;
        self.frames = match self.is_compressed() {
            true => Frames::unchecked(),
            false => Frames::starting_at(1),
        };
        Ok(())
    }

    async fn send(
        &mut self,
        payload: &[u8],
        mut sequence: u8,
        doing: &'static str,
    ) -> Result<(), ConnectionError> {
        let mut bytes = Vec::with_capacity(payload.len() + packet::HEADER_LENGTH);
        packet::write(&mut bytes, &mut sequence, payload);
        self.frames = Frames::starting_at(sequence);
        self.transport
            .write(&bytes)
            .await
            .map_err(|source| ConnectionError::Lost { doing, source })
    }

    /// The next packet's payload and sequence id.
    async fn packet(&mut self, doing: &'static str) -> Result<(Vec<u8>, u8), ConnectionError> {
        loop {
            let next = self.frames.next(&self.incoming);
            if let Some(frame) = next.map_err(|source| protocol(doing, source))? {
                if frame.is_split() {
                    frame.join(&mut self.incoming);
                }
                let payload = self
                    .incoming
                    .get(frame.payload())
                    .unwrap_or_default()
                    .to_vec();
                self.incoming.drain(..frame.wire_length);
                return Ok((payload, frame.sequence));
            }
            self.incoming
                .reserve(packet::missing(&self.incoming).clamp(4096, 1 << 20));
            self.transport
                .read(&mut self.incoming)
                .await
                .map_err(|error| failed(doing, error))?;
        }
    }

    /// Says good bye and closes; errors no longer matter.
    pub async fn close(mut self) {
        self.transport.restart_sequence();
        let _ = self.send(&[0x01], 0, "closing").await;
        let _ = self.transport.socket().shutdown().await;
    }
}

/// Answers go out at once; a peer that vanished without a word is noticed by the system within about a minute and a half.
fn denied(options: &ConnectOptions, payload: &[u8], doing: &'static str) -> ConnectionError {
    match ServerError::decode(payload) {
        Ok(error) => ConnectionError::Denied {
            user: options.user.clone(),
            error,
        },
        Err(source) => protocol(doing, source),
    }
}

fn protocol(doing: &'static str, source: DecodeError) -> ConnectionError {
    ConnectionError::Protocol { doing, source }
}

fn failed(doing: &'static str, error: super::transport::ReadError) -> ConnectionError {
    match error {
        super::transport::ReadError::Io(source) => ConnectionError::Lost { doing, source },
        super::transport::ReadError::Compression(source) => protocol(doing, source),
    }
}

#[cfg(test)]
mod tests;
