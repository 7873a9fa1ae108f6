//! What carries the packets: a socket, TLS over it, wire compression inside either.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use protocol::DecodeError;
use protocol::mysql::compress::{Algorithm, Compressor, Decompressor};
use protocol::mysql::packet::HEADER_LENGTH;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why bytes could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The system says so; `UnexpectedEof` when the peer closed.
    Io(io::Error),
    /// A compressed packet is broken.
    Compression(DecodeError),
}

/// A socket, with or without TLS.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two: the handshake failed or was dropped.
    None,
}

/// The way to the server.
#[derive(Debug)]
pub(super) struct Transport {
    stream: Stream,
    codec: Option<Codec>,
}

#[derive(Debug)]
struct Codec {
    compressor: Compressor,
    decompressor: Decompressor,
    /// Compressed packets as read; the last one may be incomplete.
    received: Vec<u8>,
}

impl Transport {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            codec: None,
        }
    }

    pub(super) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Puts TLS over the socket. The error is a text for people.
    pub(super) async fn start_tls(
        &mut self,
        config: Arc<ClientConfig>,
        host: &str,
    ) -> Result<(), String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is neither a name nor an address"))?;
        let Stream::Plain(socket) = std::mem::replace(&mut self.stream, Stream::None) else {
            return Err("already started".into());
        };
        let connected = TlsConnector::from(config).connect(name, socket).await;
        let stream = connected.map_err(|error| format!("handshake with {host}: {error}"))?;
        self.stream = Stream::Tls(Box::new(stream));
        Ok(())
    }

    /// From here on both sides compress.
    pub(super) fn compress(&mut self, algorithm: Algorithm) {
        self.codec = Some(Codec {
            compressor: Compressor::new(algorithm),
            decompressor: Decompressor::new(algorithm),
            received: Vec::new(),
        });
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.codec.is_some()
    }

    /// A command follows: compressed packets count from 0 again, and the answer from 1.
    pub(super) fn restart_sequence(&mut self) {
        if let Some(codec) = &mut self.codec {
            codec.compressor.restart_at(0);
            codec.decompressor.restart_at(1);
        }
    }

    pub(super) async fn write(&mut self, packets: &[u8]) -> io::Result<()> {
        match &mut self.codec {
            None => self.stream.write_all(packets).await?,
            Some(codec) => {
                let mut compressed = Vec::new();
                codec.compressor.write(packets, &mut compressed);
                self.stream.write_all(&compressed).await?;
            }
        }
        self.stream.flush().await
    }

    /// Appends what is there to `buffer`, at least one byte. Cancel-safe.
    pub(super) async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, ReadError> {
        let Some(codec) = &mut self.codec else {
            return fill(&mut self.stream, buffer).await;
        };
        let before = buffer.len();
        loop {
            let mut used = 0;
            while let Some(length) = (codec.decompressor)
                .next(codec.received.get(used..).unwrap_or_default(), buffer)
                .map_err(ReadError::Compression)?
            {
                used += length;
            }
            codec.received.drain(..used);
            if buffer.len() > before {
                return Ok(buffer.len() - before);
            }
            codec.received.reserve(64 << 10);
            fill(&mut self.stream, &mut codec.received).await?;
        }
    }
}

async fn fill(stream: &mut Stream, buffer: &mut Vec<u8>) -> Result<usize, ReadError> {
    buffer.reserve(HEADER_LENGTH);
    match stream.read_buf(buffer).await {
        Ok(0) => Err(ReadError::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed it",
        ))),
        Ok(length) => Ok(length),
        Err(error) => Err(ReadError::Io(error)),
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::None => Poll::Ready(Err(closed())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::None => Poll::Ready(Ok(())),
        }
    }
}
