//! A connection to a server: a socket, and TLS over it where both want it.

use std::io;
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
        let mut failed = io::Error::other("the name has no address");
        for address in tokio::net::lookup_host((host, port)).await? {
            let began = clock::now();
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let round_trip = match address.ip().to_canonical().is_loopback() {
                        true => Duration::ZERO,
                        false => clock::now() - began,
                    };
                    return Ok((prepared(stream)?, round_trip));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
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
