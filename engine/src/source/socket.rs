//! A connection to a server: a socket, and TLS over it where both want it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::receive::Received;
use super::wire::Wire;
use crate::clock;
use crate::config::Io;

/// How long all of a name's addresses but the last may take together: connecting may take 30 s in all, the handshake included.
const PATIENCE: Duration = Duration::from_secs(24);
/// How long one of several addresses may take: a firewall that swallows packets lets it hang for minutes.
const ADDRESS_MAX: Duration = Duration::from_secs(10);

/// A socket, with or without TLS.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Nothing is written any more, and a thread reads.
    Received(Received),
    /// Between the two: the handshake failed or was dropped.
    None,
}

/// Why TLS could not be put over a socket.
#[derive(Debug)]
pub(super) enum TlsError {
    /// The connection broke on the way.
    Lost(io::Error),
    /// What cannot go well the next time either, for people.
    Refused(String),
}

impl Socket {
    /// Connects; small writes leave at once, and a peer that is gone is noticed in the end. With how long TCP's handshake took:
    /// one round trip, none to this machine itself, where it would only tell how busy we are.
    pub(super) async fn connect(host: &str, port: u16) -> io::Result<(TcpStream, Duration)> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        let (stream, round_trip) = first_of(&addresses, PATIENCE, TcpStream::connect).await?;
        Ok((prepared(stream)?, round_trip))
    }

    /// Puts TLS over the socket.
    pub(super) async fn start_tls(
        &mut self,
        config: Arc<ClientConfig>,
        host: &str,
    ) -> Result<(), TlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsError::Refused(format!("{host:?} is neither a name nor an address")))?;
        let Self::Plain(socket) = std::mem::replace(self, Self::None) else {
            return Err(TlsError::Refused("already started".into()));
        };
        let connected = TlsConnector::from(config).connect(name, socket).await;
        let stream = connected.map_err(|error| match error.kind() {
            // rustls reports what the peer sent or is so; everything else is the network's, or a server's that is going down.
            io::ErrorKind::InvalidData => {
                TlsError::Refused(format!("handshake with {host}: {error}"))
            }
            _ => TlsError::Lost(error),
        })?;
        *self = Self::Tls(Box::new(stream));
        Ok(())
    }

    /// Has a thread read it from here on, `room` bytes at a time, by io_uring where that can be had; nothing can be written any more.
    pub(super) fn receive_by_ring(&mut self, name: &str, room: usize) -> io::Result<()> {
        let (socket, tls) = std::mem::replace(self, Self::None).into_parts()?;
        let wire = Wire::new(socket, tls);
        *self = Self::Received(wire.receive(name, room, Io::Uring, |_, _, _| Ok(Duration::ZERO))?);
        Ok(())
    }

    /// What a thread reads it by, where one does.
    pub(super) fn received(&self) -> Option<&Received> {
        match self {
            Self::Received(received) => Some(received),
            Self::Plain(_) | Self::Tls(_) | Self::None => None,
        }
    }

    /// Takes it away from the runtime: the socket, still non-blocking, and TLS's state.
    pub(super) fn into_parts(self) -> io::Result<(std::net::TcpStream, Option<ClientConnection>)> {
        match self {
            Self::Plain(stream) => Ok((stream.into_std()?, None)),
            Self::Tls(stream) => {
                let (stream, tls) = stream.into_inner();
                Ok((stream.into_std()?, Some(tls)))
            }
            Self::Received(_) | Self::None => Err(closed()),
        }
    }

    /// What ties an authentication to the line's encryption, where it has one: `tls-server-end-point` (RFC 5929).
    pub(super) fn end_point_hash(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => {
                let certificate = stream.get_ref().1.peer_certificates()?.first()?;
                super::postgres::end_point_hash(certificate)
            }
            Self::Plain(_) | Self::Received(_) | Self::None => None,
        }
    }
}

/// The first of a name's addresses that can be connected to, and how long that took; none but the last may use up more than its share
/// of `patience`.
async fn first_of<S, C: Future<Output = io::Result<S>>>(
    addresses: &[SocketAddr],
    patience: Duration,
    connect: impl Fn(SocketAddr) -> C,
) -> io::Result<(S, Duration)> {
    let mut failed = io::Error::other("the name has no address");
    let share = patience / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for (index, address) in addresses.iter().enumerate() {
        let began = clock::now();
        let connecting = connect(*address);
        let connected = match index + 1 == addresses.len() {
            true => connecting.await,
            false => tokio::time::timeout(share.min(ADDRESS_MAX), connecting)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        match connected {
            Ok(stream) => {
                let round_trip = match address.ip().to_canonical().is_loopback() {
                    true => Duration::ZERO,
                    false => clock::now() - began,
                };
                return Ok((stream, round_trip));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Received(received) => Pin::new(received).poll_read(cx, buf),
            Self::None => Poll::Ready(Err(closed())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Received(_) | Self::None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Received(_) | Self::None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Received(_) | Self::None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_that_never_answers_does_not_hide_the_next_one() {
        let addresses: Vec<SocketAddr> = (1..=4)
            .map(|n| SocketAddr::from(([192, 0, 2, n], 3306)))
            .collect();
        let connect = |address: SocketAddr| async move {
            match address.ip().to_string().as_str() {
                "192.0.2.1" => std::future::pending().await,
                "192.0.2.2" => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(address),
            }
        };
        let patience = Duration::from_millis(40);
        let (reached, _) = first_of(&addresses, patience, connect).await.unwrap();
        assert_eq!(reached, addresses[2]);
        let error = first_of(&addresses[1..2], patience, connect).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let never = |_| std::future::pending::<io::Result<()>>();
        let last = first_of(&addresses[..1], patience, never);
        // The last one has the caller's patience.
        assert!(tokio::time::timeout(4 * patience, last).await.is_err());
    }

    #[tokio::test]
    async fn this_machine_is_near_however_busy_it_is() {
        for address in ["127.0.0.1:0", "[::ffff:127.0.0.1]:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                eprintln!("{address} cannot be listened at here");
                continue;
            };
            let address = listener.local_addr().unwrap();
            let (_, round_trip) = Socket::connect(&address.ip().to_string(), address.port())
                .await
                .unwrap();
            assert_eq!(round_trip, Duration::ZERO, "{address}");
        }
    }
}
