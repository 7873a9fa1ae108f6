//! What carries the packets: a socket, wire compression inside it.

use std::io;

use protocol::DecodeError;
use protocol::mysql::compress::{Algorithm, Compressor, Decompressor};
use protocol::mysql::packet::HEADER_LENGTH;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::source::receive::Received;
use crate::source::socket::Socket;

/// Why bytes could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The system says so; `UnexpectedEof` when the peer closed.
    Io(io::Error),
    /// A compressed packet is broken.
    Compression(DecodeError),
}

/// Compressed bytes that are read at a time: a few dozen of a server's compressed packets.
const RECEIVED: usize = 64 << 10;

/// Room that is made where the caller left none.
const ROOM: usize = 4 << 10;

/// The way to the server.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    codec: Option<Codec>,
    /// Bytes that came over the line, TLS's own not counted.
    received: usize,
}

#[derive(Debug)]
struct Codec {
    compressor: Compressor,
    decompressor: Decompressor,
    /// Compressed packets as read, of [`RECEIVED`] bytes at most; the last one may be incomplete.
    received: Vec<u8>,
    /// Bytes of them that are used up.
    used: usize,
}

impl Codec {
    /// Appends what has been received to `buffer`, as far as there is room.
    fn expand(&mut self, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        let received = self.received.get(self.used..).unwrap_or_default();
        let used = self.decompressor.read(received, buffer);
        self.used += used.map_err(ReadError::Compression)?;
        Ok(())
    }
}

impl Transport {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self {
            socket: Socket::Plain(stream),
            codec: None,
            received: 0,
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// What a thread reads the socket by, where one does.
    pub(super) fn received(&self) -> Option<&Received> {
        self.socket.received()
    }

    /// From here on both sides compress.
    pub(super) fn compress(&mut self, algorithm: Algorithm) -> Result<(), DecodeError> {
        self.codec = Some(Codec {
            compressor: Compressor::new(algorithm),
            decompressor: Decompressor::new(algorithm)?,
            received: Vec::with_capacity(RECEIVED),
            used: 0,
        });
        Ok(())
    }

    /// Bytes that came over the line since the last call.
    pub(super) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
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
            None => self.socket.write_all(packets).await?,
            Some(codec) => {
                let mut compressed = Vec::new();
                codec.compressor.write(packets, &mut compressed);
                self.socket.write_all(&compressed).await?;
            }
        }
        self.socket.flush().await
    }

    /// Appends what is there to `buffer`, at least one byte. Cancel-safe.
    pub(super) async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        let before = buffer.len();
        let Some(codec) = &mut self.codec else {
            buffer.reserve(HEADER_LENGTH);
            self.received += fill(&mut self.socket, buffer).await?;
            return Ok(());
        };
        if buffer.capacity() == before {
            buffer.reserve(ROOM);
        }
        loop {
            codec.expand(buffer)?;
            if buffer.len() > before {
                return Ok(());
            }
            // What is left is the beginning of a header.
            codec.received.drain(..codec.used);
            codec.used = 0;
            self.received += fill(&mut self.socket, &mut codec.received).await?;
        }
    }
}

async fn fill(socket: &mut Socket, buffer: &mut Vec<u8>) -> Result<usize, ReadError> {
    match socket.read_buf(buffer).await {
        Ok(0) => Err(ReadError::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed it",
        ))),
        Ok(length) => Ok(length),
        Err(error) => Err(ReadError::Io(error)),
    }
}
