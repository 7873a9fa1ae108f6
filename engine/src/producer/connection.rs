//! One connection to a broker: TCP, TLS, version negotiation, authentication, and calls one at a time.
//!
//! ```text
//! request   i32 length │ i16 api key │ i16 version │ i32 correlation id │ string client id │ body
//! response  i32 length │ i32 correlation id │ body
//! ```
//! Source: the Kafka protocol guide, <https://kafka.apache.org/protocol>.

mod stream;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiVersionsRequest, SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::{Encodable as _, StrBytes};
use protocol::Cursor;
use protocol::limits::KAFKA_BATCH_MAX;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock;
use crate::config::{KafkaSettings, Sasl, SaslMechanism};

use super::error::ProducerError;
use super::response::{ApiVersions, Response, SaslAuthenticate, SaslHandshake};
use super::sasl::{self, Hash, Scram};
use super::{tls, verdict};
pub(super) use stream::Stream;

/// How long a connection may take, TLS and authentication included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a broker may take to answer, in-sync replicas included: longer than what we give it in a produce request. What is large
/// takes its time on a thin line: it counts from when bytes have last moved.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A session is used for at least so long, however short its broker says that it is.
const SESSION_MIN: Duration = Duration::from_millis(100);

/// Largest first answer; what a peer sends that does not speak Kafka is mostly beyond it.
const FIRST_RESPONSE_MAX: usize = 1 << 20;

/// Largest answer: a record batch that is larger than what was asked for comes whole.
pub(super) const RESPONSE_MAX: usize = KAFKA_BATCH_MAX + (1 << 20);

/// Memory for an answer before any of it has come; it doubles as it is filled.
const READ_FIRST: usize = 8 << 10;

/// What we call ourselves, for the broker's logs and quotas.
const CLIENT_ID: &str = "walbrook";

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    /// Name or address, without brackets.
    pub(super) host: Arc<str>,
    /// TCP port.
    pub(super) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// Reads `host:port`, `[v6]:port`, or `host` with Kafka's usual port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, "9092"),
            Some((host, port)) => (host, port.strip_prefix(':')?),
            None => text.rsplit_once(':').unwrap_or((text, "9092")),
        };
        (!host.is_empty()).then_some(())?;
        Some(Self {
            host: host.into(),
            port: port.parse().ok()?,
        })
    }
}

/// What went wrong with a connection.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// May pass: connect again.
    Passing(String),
    /// Will not pass by itself.
    Lasting(ProducerError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(reason) => f.write_str(reason),
            Self::Lasting(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Passing(if error.kind() == io::ErrorKind::UnexpectedEof {
            "the broker has closed the connection".to_owned()
        } else {
            error.to_string()
        })
    }
}

/// How connections are made; the same for all brokers.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    tls: Option<Arc<tls::Renewable>>,
    sasl: Option<Sasl>,
}

/// An open, authenticated connection.
pub(super) struct Connection {
    /// `host:port`, for messages.
    pub(super) broker: Arc<str>,
    stream: Stream,
    versions: HashMap<i16, (i16, i16)>,
    correlation: i32,
    /// A call was begun and not ended (its future was dropped): the next answer would be another's.
    interrupted: bool,
    /// When another one should take its place: the broker ends its session some time later.
    replace_at: Option<Instant>,
}

impl Connector {
    /// Plain text, without login.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self {
            tls: None,
            sasl: None,
        }
    }

    /// Reads what is needed from the settings, certificate files included.
    ///
    /// # Errors
    /// Files of `kafka.tls` that cannot be used.
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, ProducerError> {
        Ok(Self {
            tls: match &settings.tls {
                Some(tls) => Some(Arc::new(tls::Renewable::new(tls)?)),
                None => None,
            },
            sasl: settings.sasl.clone(),
        })
    }

    /// Connects, negotiates versions and authenticates.
    pub(super) async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, Fault> {
        timeout(CONNECT_TIMEOUT, self.connect_unlimited(endpoint))
            .await
            .unwrap_or_else(|_| {
                Err(Fault::Passing(format!(
                    "no answer within {CONNECT_TIMEOUT:?}"
                )))
            })
    }

    async fn connect_unlimited(&self, endpoint: &Endpoint) -> Result<Connection, Fault> {
        let tcp = TcpStream::connect((&*endpoint.host, endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        // A process that dies takes its requests with it: no half-sent batch is written after a restart has looked at the log.
        let socket = socket2::SockRef::from(&tcp);
        socket.set_linger(Some(Duration::ZERO))?;
        socket
            .set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)))?;
        let config = match &self.tls {
            // Whoever replaces several files does so one after the other: what does not fit together yet may in a moment.
            Some(tls) => Some(
                tls.config()
                    .map_err(|error| Fault::Passing(error.to_string()))?,
            ),
            None => None,
        };
        let stream = match &config {
            None => Stream::Plain(tcp),
            Some(config) => Stream::Tls(Box::new(self.handshake(config, endpoint, tcp).await?)),
        };
        let mut connection = Connection {
            broker: endpoint.to_string().into(),
            stream,
            versions: HashMap::new(),
            correlation: 0,
            interrupted: false,
            replace_at: None,
        };
        if let Err(fault) = connection.negotiate(config.is_some()).await {
            // TLS 1.3 has the client done before the server has seen its certificate: what it says of that comes first thing after.
            return Err(match (&config, connection.stream.alert()) {
                (Some(config), Some(alert)) => self.refused(config, endpoint, &alert),
                _ => fault,
            });
        }
        if let Some(sasl) = &self.sasl {
            let begun = clock::now();
            let lifetime = connection.authenticate(sasl).await?;
            connection.replace_at = replace_at(begun, lifetime);
        }
        Ok(connection)
    }

    async fn handshake(
        &self,
        config: &Arc<ClientConfig>,
        endpoint: &Endpoint,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let lasting =
            |reason: String| Fault::Lasting(ProducerError::broker(&endpoint.to_string(), reason));
        let name = ServerName::try_from(endpoint.host.to_string()).map_err(|error| {
            lasting(format!(
                "not a host name that a certificate could name: {error}"
            ))
        })?;
        let connector = TlsConnector::from(Arc::clone(config));
        connector.connect(name, tcp).await.map_err(|error| {
            // rustls reports what the peer sent or is as InvalidData; everything else is the network's.
            if error.kind() == io::ErrorKind::InvalidData {
                self.refused(config, endpoint, &error)
            } else {
                error.into()
            }
        })
    }

    /// One side does not take the other's certificate, or does not speak TLS as the other does. That lasts, unless the files have been
    /// replaced in the meantime.
    fn refused(
        &self,
        config: &Arc<ClientConfig>,
        endpoint: &Endpoint,
        error: &dyn fmt::Display,
    ) -> Fault {
        let reason = format!(
            "TLS fails: {error}; check kafka.tls (ca, cert, key), that the broker's certificate names {}, and that this listener \
             speaks TLS",
            endpoint.host
        );
        let now = self.tls.as_ref().map(|tls| tls.config());
        match now {
            Some(Ok(now)) if Arc::ptr_eq(&now, config) => {
                Fault::Lasting(ProducerError::broker(&endpoint.to_string(), reason))
            }
            _ => Fault::Passing(reason),
        }
    }
}

impl Connection {
    /// The highest version of an API that both sides speak.
    pub(super) fn version(
        &self,
        key: i16,
        name: &str,
        ours: RangeInclusive<i16>,
    ) -> Result<i16, Fault> {
        let theirs = self.versions.get(&key).copied();
        let common = theirs.map(|(min, max)| (min.max(*ours.start()), max.min(*ours.end())));
        match common {
            Some((min, max)) if min <= max => Ok(max),
            _ => Err(Fault::Lasting(ProducerError::broker(
                &self.broker,
                format!(
                    "speaks no version of {name} that we do (ours {} to {}, theirs {}); Kafka 2.1 or later is needed",
                    ours.start(),
                    ours.end(),
                    theirs
                        .map_or_else(|| "none".to_owned(), |(min, max)| format!("{min} to {max}"))
                ),
            ))),
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call<R: Response>(&mut self, request: &R::Request) -> Result<R, Fault> {
        Ok(self.call_with::<R, R>(request, None).await?.0)
    }

    /// As [`call`](Self::call), and sends another request right behind, where the broker speaks it: two answers in one round trip. A
    /// broker processes what comes over a connection one after the other.
    pub(super) async fn call_with<R: Response, A: Response>(
        &mut self,
        request: &R::Request,
        along: Option<&A::Request>,
    ) -> Result<(R, Option<A>), Fault> {
        let version = self.version(R::KEY, R::NAME, R::VERSIONS)?;
        let along = along.and_then(|along| {
            let version = self.version(A::KEY, A::NAME, A::VERSIONS);
            Some((along, version.ok()?))
        });
        self.exchange::<R, A>((request, version), along, RESPONSE_MAX)
            .await
    }

    /// Sends one or two requests at their versions and waits for the answers.
    async fn exchange<R: Response, A: Response>(
        &mut self,
        (request, version): (&R::Request, i16),
        along: Option<(&A::Request, i16)>,
        max: usize,
    ) -> Result<(R, Option<A>), Fault> {
        if std::mem::replace(&mut self.interrupted, true) {
            return Err(Fault::Passing("an earlier call was interrupted".to_owned()));
        }
        let both = async {
            let first = self.send::<R>(request, version).await?;
            let second = match along {
                Some((along, version)) => Some((self.send::<A>(along, version).await?, version)),
                None => None,
            };
            Ok((first, second))
        };
        let (first, second) = within(Some(REQUEST_TIMEOUT), both).await?;
        let answer = self.receive::<R>(first, version, max).await?;
        let along = match second {
            Some((second, version)) => Some(self.receive::<A>(second, version, max).await?),
            None => None,
        };
        self.interrupted = false;
        Ok((answer, along))
    }

    /// Writes a request; its correlation id.
    async fn send<R: Response>(
        &mut self,
        request: &R::Request,
        version: i16,
    ) -> Result<i32, Fault> {
        self.correlation = self.correlation.wrapping_add(1);
        let mut frame = Vec::with_capacity(256);
        frame.extend_from_slice(&[0; 4]);
        write_header(&mut frame, R::KEY, version, self.correlation);
        request.encode(&mut frame, version).map_err(|error| {
            self.lasting(format!(
                "{} version {version} cannot be encoded: {error}",
                R::NAME
            ))
        })?;
        let length = u32::try_from(frame.len() - 4)
            .map_err(|_| self.lasting(format!("{} is too long", R::NAME)))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await?;
        self.stream.flush().await?;
        Ok(self.correlation)
    }

    /// Reads the answer to the request of this correlation id.
    async fn receive<R: Response>(
        &mut self,
        asked: i32,
        version: i16,
        max: usize,
    ) -> Result<R, Fault> {
        let patience = Some(REQUEST_TIMEOUT);
        let frame = read_frame(&mut self.stream, max, &self.broker, patience).await?;
        let mut cursor = Cursor::new(&frame);
        let correlation = cursor
            .i32_be("correlation id")
            .map_err(|error| self.lasting(error.to_string()))?;
        if correlation != asked {
            return Err(self.lasting(format!(
                "answers request {correlation}, but {asked} was asked"
            )));
        }
        let answer = R::read(&mut cursor, version)
            .and_then(|answer| cursor.finish(R::NAME).map(|()| answer))
            .map_err(|error| self.lasting(format!("its answer cannot be read: {error}")))?;
        Ok(answer)
    }

    fn lasting(&self, reason: String) -> Fault {
        Fault::Lasting(ProducerError::broker(&self.broker, reason))
    }

    async fn negotiate(&mut self, encrypted: bool) -> Result<(), Fault> {
        let request = ApiVersionsRequest::default();
        let answer = self
            .exchange::<ApiVersions, ApiVersions>((&request, 0), None, FIRST_RESPONSE_MAX)
            .await;
        // A TLS listener answers plain text by hanging up, most often with an alert before.
        let answer = match answer {
            Err(Fault::Lasting(_)) if !encrypted => {
                return Err(self.lasting(
                    "does not answer in Kafka's protocol; is this port a Kafka listener, and a plain-text one? (kafka.tls = { … } \
                     turns TLS on)"
                        .to_owned(),
                ));
            }
            other => other?.0,
        };
        self.versions = answer
            .ranges
            .into_iter()
            .map(|(key, min, max)| (key, (min, max)))
            .collect();
        Ok(())
    }

    /// Answers for how many milliseconds the broker takes us for authenticated; 0 for as long as the connection lasts.
    async fn authenticate(&mut self, sasl: &Sasl) -> Result<i64, Fault> {
        let (mechanism, hash) = match sasl.mechanism {
            SaslMechanism::Plain => ("PLAIN", None),
            SaslMechanism::ScramSha256 => ("SCRAM-SHA-256", Some(Hash::Sha256)),
            SaslMechanism::ScramSha512 => ("SCRAM-SHA-512", Some(Hash::Sha512)),
        };
        let broker = Arc::clone(&self.broker);
        let refused = |reason: String| {
            Fault::Lasting(ProducerError::Authentication {
                broker: Arc::clone(&broker),
                username: sasl.username.as_str().into(),
                mechanism,
                reason: reason.into(),
            })
        };
        let request =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let answer = self.call::<SaslHandshake>(&request).await?;
        if answer.code != 0 {
            return Err(refused(format!(
                "{}; it offers {}: set kafka.sasl.mechanism to one of them, or remove kafka.sasl",
                verdict::name(answer.code),
                answer.mechanisms.join(", ")
            )));
        }
        let password = sasl.password.reveal();
        let Some(hash) = hash else {
            let step = self.authenticate_step(sasl::plain(&sasl.username, password), &refused);
            return Ok(step.await?.session_lifetime_ms);
        };
        let (scram, first) = Scram::new(hash, &sasl.username, &rand::random::<[u8; 24]>());
        let challenge = self.authenticate_step(first, &refused).await?;
        let (proven, last) = scram
            .prove(password, &challenge.bytes)
            .map_err(|error| refused(error.to_string()))?;
        let signature = self.authenticate_step(last, &refused).await?;
        proven
            .verify(&signature.bytes)
            .map_err(|error| refused(error.to_string()))?;
        Ok(signature.session_lifetime_ms)
    }

    async fn authenticate_step(
        &mut self,
        bytes: Vec<u8>,
        refused: &impl Fn(String) -> Fault,
    ) -> Result<SaslAuthenticate, Fault> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(bytes.into());
        let answer = self.call::<SaslAuthenticate>(&request).await?;
        if answer.code == 0 {
            return Ok(answer);
        }
        Err(refused(format!(
            "{}{}; check kafka.sasl.username and kafka.sasl.password",
            verdict::name(answer.code),
            answer
                .message
                .map_or_else(String::new, |text| format!(" (\"{text}\")"))
        )))
    }

    /// When another connection should take its place: the broker takes no requests over this one soon after.
    pub(super) fn replace_at(&self) -> Option<Instant> {
        self.replace_at
    }

    /// Gives the stream away; correlation ids are the new owner's.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

/// When a connection is to be replaced whose session began at about `begun` and lasts so many milliseconds, as the broker says: Java's
/// clients authenticate anew at about the same part of it.
fn replace_at(begun: Instant, lifetime_ms: i64) -> Option<Instant> {
    let lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0)?;
    let usable = Duration::from_millis(lifetime / 100 * 85 + lifetime % 100 * 85 / 100);
    begun.checked_add(usable.max(SESSION_MIN))
}

/// Appends a request header: api key, version, correlation id, client id.
pub(super) fn write_header(frame: &mut Vec<u8>, key: i16, version: i16, correlation: i32) {
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&correlation.to_be_bytes());
    frame.extend_from_slice(&(CLIENT_ID.len() as u16).to_be_bytes());
    frame.extend_from_slice(CLIENT_ID.as_bytes());
}

/// Waits for `work`; without a limit where there is no patience to lose.
pub(super) async fn within<T>(
    patience: Option<Duration>,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let Some(patience) = patience else {
        return work.await;
    };
    let silent = |_| Err(Fault::Passing(format!("no answer within {patience:?}")));
    timeout(patience, work).await.unwrap_or_else(silent)
}

/// Reads one length-prefixed frame. Memory grows with what arrives, not with the length that is claimed. `patience`: how long the first
/// bytes, and each of those that follow, may keep us waiting.
pub(super) async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    max: usize,
    broker: &str,
    patience: Option<Duration>,
) -> Result<Vec<u8>, Fault> {
    let length = within(patience, async { Ok(reader.read_i32().await?) }).await?;
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= max)
        .ok_or_else(|| {
            Fault::Lasting(ProducerError::broker(
                broker,
                format!("announces an answer of {length} bytes; up to {max} are taken"),
            ))
        })?;
    let mut frame = Vec::with_capacity(length.min(READ_FIRST));
    let mut rest = reader.take(length as u64);
    while frame.len() < length {
        let more = async { Ok(rest.read_buf(&mut frame).await?) };
        if within(patience, more).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(frame)
}

#[cfg(test)]
mod tests;
