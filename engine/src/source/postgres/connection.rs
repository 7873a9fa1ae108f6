//! A client connection to PostgreSQL: start-up, TLS, queries, and then the raw bytes of a replication stream.
//!
//! ```text
//! connect ─► query … ─► start_replication ─► Streaming { what came behind the answer, the line }
//! ```
//! Within [`ConnectOptions::timeout`] the start-up and each query must be over.

use std::time::Duration;

use protocol::postgres::auth::{self, Step};
use protocol::postgres::packet::{self, Backend};
use protocol::postgres::resultset::{ResultSet, ServerError};
use protocol::postgres::{catalog, command};
use protocol::{DecodeError, DecodeErrorKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub use error::{ConnectionError, server_verdict};

use super::server::Answer;
use crate::clock;
use crate::config::{Secret, SourceAddress, SourceTls, TlsMode};
use crate::source::socket::Socket;
use crate::source::tls;

mod error;

/// After how long a peer that is gone is noticed while nothing else limits the wait: the time that the keep-alive of
/// [`Socket::connect`] takes (60 s, then nine questions 10 s apart). Without it a statement that never arrived would be sent again and
/// again for a quarter of an hour.
const GONE_AFTER: Duration = Duration::from_secs(150);

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
    /// The database.
    pub database: Box<str>,
    /// How the connection is protected.
    pub tls: SourceTls,
    /// How long the start-up, and each query, may take.
    pub timeout: Duration,
}

impl ConnectOptions {
    /// Options for the database of a source's URL: 30 s.
    #[must_use]
    pub fn to(address: &SourceAddress) -> Self {
        Self {
            host: address.host.clone(),
            port: address.port,
            user: address.user.clone(),
            password: address.password.clone(),
            database: address.database.clone(),
            tls: address.tls.clone(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// SQL.
    Queries,
    /// SQL whose money is that of the database.
    Money,
    /// Replication commands, and SQL as simple queries.
    Replication,
}

/// A connection whose start-up is over.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// The shortest of TCP's handshake and of all answers: a busy machine makes single ones long.
    round_trip: Duration,
    timeout: Duration,
    /// Bytes read and not yet used.
    incoming: Vec<u8>,
}

/// A connection that streams.
#[derive(Debug)]
pub(super) struct Streaming {
    /// What came behind the answer already.
    pub(super) first: Vec<u8>,
    /// The line, for [`super::line::take`].
    pub(super) socket: Socket,
    /// The shortest time in which the server, or its kernel, answered.
    pub(super) round_trip: Duration,
}

impl Connection {
    /// Connects, protects the line as asked, and authenticates.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn connect(
        options: &ConnectOptions,
        purpose: Purpose,
    ) -> Result<Self, ConnectionError> {
        let doing = "connecting";
        let after = options.timeout;
        tokio::time::timeout(after, Self::connect_untimed(options, purpose))
            .await
            .map_err(|_| ConnectionError::TimedOut { doing, after })?
    }

    async fn connect_untimed(
        options: &ConnectOptions,
        purpose: Purpose,
    ) -> Result<Self, ConnectionError> {
        let (stream, round_trip) =
            Socket::connect(&options.host, options.port)
                .await
                .map_err(|source| ConnectionError::Unreachable {
                    host: options.host.clone(),
                    port: options.port,
                    source,
                })?;
        let mut connection = Self {
            socket: Socket::Plain(stream),
            round_trip,
            timeout: options.timeout,
            incoming: Vec::new(),
        };
        let secure = match options.tls.mode {
            TlsMode::Disable => false,
            _ => connection.start_tls(options).await?,
        };
        connection.start_up(options, purpose, secure).await?;
        Ok(connection)
    }

    /// Asks for TLS; whether the line is encrypted now.
    async fn start_tls(&mut self, options: &ConnectOptions) -> Result<bool, ConnectionError> {
        let doing = "starting TLS";
        let mut message = Vec::new();
        auth::write_ssl_request(&mut message);
        self.send(&message, doing).await?;
        // One byte and no more: what stands behind it was put there by somebody on the line.
        let answer = (self.socket.read_u8().await)
            .map_err(|source| ConnectionError::Lost { doing, source })?;
        match (answer, options.tls.mode) {
            (b'S', _) => {
                let config = tls::client_config(&options.tls).map_err(ConnectionError::Tls)?;
                self.socket
                    .start_tls(config, &options.host)
                    .await
                    .map_err(ConnectionError::tls)?;
                Ok(true)
            }
            (b'N', TlsMode::Prefer | TlsMode::Disable) => Ok(false),
            (b'N', TlsMode::Require | TlsMode::VerifyFull) => Err(ConnectionError::Tls(
                "the server offers no TLS: set ssl = on with ssl_cert_file and ssl_key_file there, or connect with ?tls=disable".into(),
            )),
            (Backend::ERROR_RESPONSE, _) => Err(no_process(doing)),
            (other, _) => Err(protocol(doing, unexpected("answer to SSLRequest", other))),
        }
    }

    async fn start_up(
        &mut self,
        options: &ConnectOptions,
        purpose: Purpose,
        secure: bool,
    ) -> Result<(), ConnectionError> {
        let doing = "authenticating";
        let session = match purpose {
            Purpose::Money => catalog::session_options_for_money(),
            Purpose::Queries | Purpose::Replication => catalog::session_options(),
        };
        let mut parameters = vec![
            ("user", &*options.user),
            ("database", &*options.database),
            ("application_name", "walbrook"),
            ("options", &*session),
        ];
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        let mut message = Vec::new();
        auth::write_startup(&mut message, &parameters);
        self.send(&message, doing).await?;
        let password = options.password.reveal().as_bytes();
        let binding = self.socket.end_point_hash();
        let mut client = auth::Client::new(&options.user, password, secure, binding);
        loop {
            let (tag, body) = match self.message(doing).await {
                // Without a length: what it says begins with a letter, and no message is as long as that.
                Err(ConnectionError::Protocol { .. })
                    if self.incoming.first() == Some(&Backend::ERROR_RESPONSE) =>
                {
                    return Err(no_process(doing));
                }
                message => message?,
            };
            match tag {
                Backend::AUTHENTICATION => match client.answer(&body)? {
                    Step::Done | Step::Wait => {}
                    Step::Send(answer) => self.send(&answer, doing).await?,
                },
                Backend::ERROR_RESPONSE => {
                    let error =
                        ServerError::decode(&body).map_err(|source| protocol(doing, source))?;
                    return Err(ConnectionError::Denied {
                        user: options.user.clone(),
                        error: Box::new(error),
                    });
                }
                Backend::READY_FOR_QUERY => return Ok(()),
                Backend::PARAMETER_STATUS
                | Backend::BACKEND_KEY_DATA
                | Backend::NOTICE_RESPONSE
                | Backend::NEGOTIATE_PROTOCOL_VERSION => {}
                other => return Err(protocol(doing, unexpected("start-up message", other))),
            }
        }
    }

    /// Runs a statement and reads its whole answer; of several, the last one's rows.
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] with the server's words, after which the connection can be used on; any other error leaves it
    /// unusable.
    pub(super) async fn query(&mut self, statement: &str) -> Result<Answer, ConnectionError> {
        let (after, began) = (self.timeout, clock::now());
        let answer = tokio::time::timeout(after, self.query_untimed(statement))
            .await
            .map_err(|_| ConnectionError::TimedOut {
                doing: "waiting for an answer",
                after,
            })?;
        self.round_trip = self.round_trip.min(clock::now() - began);
        answer
    }

    /// As [`Connection::query`], but waits for as long as it takes, and calls `waiting` every time that `every` has passed. A server that
    /// works on it in silence still acknowledges what TCP asks it; one that does not for [`GONE_AFTER`] is gone.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub(super) async fn query_patiently(
        &mut self,
        statement: &str,
        every: Duration,
        waiting: impl Fn() + Send,
    ) -> Result<Answer, ConnectionError> {
        self.give_up_after(Some(GONE_AFTER))?;
        let answer = {
            let mut answer = std::pin::pin!(self.query_untimed(statement));
            loop {
                match tokio::time::timeout(every, answer.as_mut()).await {
                    Ok(answer) => break answer,
                    Err(_) => waiting(),
                }
            }
        };
        self.give_up_after(None)?;
        answer
    }

    /// Has TCP end the connection when what was sent, or its keep-alive, is not acknowledged for `time`; `None`: as the system does.
    fn give_up_after(&self, time: Option<Duration>) -> Result<(), ConnectionError> {
        let socket = match &self.socket {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => stream.get_ref().0,
            Socket::Received(_) | Socket::None => return Ok(()),
        };
        let doing = "asking";
        (socket2::SockRef::from(socket).set_tcp_user_timeout(time))
            .map_err(|source| ConnectionError::Lost { doing, source })
    }

    /// Runs several statements, the next one sent before the one before is answered: one round trip for all. Their answers, in order.
    ///
    /// # Errors
    /// As [`Connection::query`], of the first statement that was refused; the others have run all the same.
    pub(super) async fn query_all<const N: usize>(
        &mut self,
        statements: [&str; N],
    ) -> Result<[Answer; N], ConnectionError> {
        let after = self.timeout;
        tokio::time::timeout(after, self.query_all_untimed(statements))
            .await
            .map_err(|_| ConnectionError::TimedOut {
                doing: "waiting for an answer",
                after,
            })?
    }

    async fn query_all_untimed<const N: usize>(
        &mut self,
        statements: [&str; N],
    ) -> Result<[Answer; N], ConnectionError> {
        let mut messages = Vec::new();
        for statement in statements {
            command::write_query(&mut messages, statement);
        }
        self.send(&messages, "asking").await?;
        let mut answers = [const { None }; N];
        let mut refused = None;
        for (answer, statement) in answers.iter_mut().zip(statements) {
            match self.answer(statement).await {
                Ok(rows) => *answer = Some(rows),
                Err(error @ ConnectionError::Refused { .. }) => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(answers.map(Option::unwrap_or_default)),
        }
    }

    async fn query_untimed(&mut self, statement: &str) -> Result<Answer, ConnectionError> {
        let mut message = Vec::new();
        command::write_query(&mut message, statement);
        self.send(&message, "asking").await?;
        self.answer(statement).await
    }

    /// Reads the answer to one statement, up to where the server is ready for the next.
    async fn answer(&mut self, statement: &str) -> Result<Answer, ConnectionError> {
        let doing = "reading an answer";
        let mut set = ResultSet::default();
        let mut refused = None;
        loop {
            let (tag, body) = self.message(doing).await?;
            let read = match tag {
                Backend::ROW_DESCRIPTION => set.describe(&body),
                Backend::DATA_ROW => set.row(&body),
                Backend::ERROR_RESPONSE => {
                    ServerError::decode(&body).map(|error| refused = Some(error))
                }
                Backend::READY_FOR_QUERY => break,
                Backend::COMMAND_COMPLETE
                | Backend::EMPTY_QUERY_RESPONSE
                | Backend::NOTICE_RESPONSE
                | Backend::PARAMETER_STATUS => Ok(()),
                other => Err(unexpected("answer", other)),
            };
            read.map_err(|source| protocol(doing, source))?;
        }
        match refused {
            Some(error) => Err(ConnectionError::Refused {
                error: Box::new(error),
                statement: statement.to_owned(),
            }),
            None => Ok(Answer {
                columns: set.columns,
                rows: set.rows,
            }),
        }
    }

    /// Begins a stream by a START_REPLICATION. A refusal gives the connection back, for another attempt.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn start_replication(
        mut self,
        statement: &str,
    ) -> Result<Result<Streaming, (Self, ServerError)>, ConnectionError> {
        let after = self.timeout;
        let doing = "starting the stream";
        let started = tokio::time::timeout(after, self.begin_copy(statement)).await;
        match started.map_err(|_| ConnectionError::TimedOut { doing, after })?? {
            None => {}
            Some(error) => return Ok(Err((self, error))),
        }
        Ok(Ok(Streaming {
            first: self.incoming,
            socket: self.socket,
            round_trip: self.round_trip,
        }))
    }

    async fn begin_copy(
        &mut self,
        statement: &str,
    ) -> Result<Option<ServerError>, ConnectionError> {
        let doing = "starting the stream";
        let mut message = Vec::new();
        command::write_query(&mut message, statement);
        self.send(&message, doing).await?;
        let mut refused = None;
        loop {
            let (tag, body) = self.message(doing).await?;
            match tag {
                Backend::COPY_BOTH_RESPONSE => return Ok(None),
                Backend::ERROR_RESPONSE => {
                    let error =
                        ServerError::decode(&body).map_err(|source| protocol(doing, source))?;
                    // What ends the session is followed by nothing.
                    if error.severity != "ERROR" {
                        return Ok(Some(error));
                    }
                    refused = Some(error);
                }
                Backend::READY_FOR_QUERY => match refused {
                    Some(error) => return Ok(Some(error)),
                    None => return Err(protocol(doing, unexpected("answer", tag))),
                },
                Backend::NOTICE_RESPONSE | Backend::PARAMETER_STATUS => {}
                other => return Err(protocol(doing, unexpected("answer", other))),
            }
        }
    }

    /// Ends the session.
    pub async fn close(mut self) {
        let mut message = Vec::new();
        command::write_terminate(&mut message);
        // Who leaves need not know whether it was heard.
        let _ = self.send(&message, "closing").await;
        let _ = self.socket.shutdown().await;
    }

    async fn send(&mut self, message: &[u8], doing: &'static str) -> Result<(), ConnectionError> {
        let lost = |source| ConnectionError::Lost { doing, source };
        self.socket.write_all(message).await.map_err(lost)?;
        self.socket.flush().await.map_err(lost)
    }

    async fn message(&mut self, doing: &'static str) -> Result<(u8, Vec<u8>), ConnectionError> {
        loop {
            let found = packet::next(&self.incoming).map_err(|source| protocol(doing, source))?;
            if let Some(frame) = found {
                let body = self
                    .incoming
                    .get(frame.body.clone())
                    .unwrap_or_default()
                    .to_vec();
                self.incoming.drain(..frame.wire_length);
                return Ok((frame.tag, body));
            }
            self.incoming.reserve(16 << 10);
            match self.socket.read_buf(&mut self.incoming).await {
                Ok(0) => {
                    let source = std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "the server closed it",
                    );
                    return Err(ConnectionError::Lost { doing, source });
                }
                Ok(_) => {}
                Err(source) => return Err(ConnectionError::Lost { doing, source }),
            }
        }
    }
}

/// A server that cannot fork says so in the form of protocol 2.0 (`report_fork_failure_to_client`), to SSLRequest, too. Its words are not
/// shown: anybody on the line may have put them there.
fn no_process(doing: &'static str) -> ConnectionError {
    let source = std::io::Error::other("it has no process for us now; its log says why");
    ConnectionError::Lost { doing, source }
}

fn protocol(doing: &'static str, source: DecodeError) -> ConnectionError {
    ConnectionError::Protocol { doing, source }
}

fn unexpected(what: &'static str, tag: u8) -> DecodeError {
    DecodeError::new(what, 0, DecodeErrorKind::Invalid { value: tag.into() })
}

#[cfg(test)]
mod tests;
