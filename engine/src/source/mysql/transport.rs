//! What carries the packets: a socket, wire compression inside it.

use std::io;

use protocol::DecodeError;
use protocol::mysql::compress::{Algorithm, Compressor, Decompressor};
use protocol::mysql::packet::HEADER_LENGTH;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::source::socket::Socket;

/// Why bytes could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The system says so; `UnexpectedEof` when the peer closed.
    Io(io::Error),
    /// A compressed packet is broken.
    Compression(DecodeError),
}

/// The way to the server.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
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
            socket: Socket::Plain(stream),
            codec: None,
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
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
    pub(super) async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, ReadError> {
        let Some(codec) = &mut self.codec else {
            return fill(&mut self.socket, buffer).await;
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
            fill(&mut self.socket, &mut codec.received).await?;
        }
    }
}

async fn fill(socket: &mut Socket, buffer: &mut Vec<u8>) -> Result<usize, ReadError> {
    buffer.reserve(HEADER_LENGTH);
    match socket.read_buf(buffer).await {
        Ok(0) => Err(ReadError::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed it",
        ))),
        Ok(length) => Ok(length),
        Err(error) => Err(ReadError::Io(error)),
    }
}
