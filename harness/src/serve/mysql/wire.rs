//! What carries packets to a client: a socket, TLS over it, wire compression inside either.

use std::io;
use std::sync::Arc;

use protocol::mysql::compress::{Algorithm, Compressor, Decompressor};
use protocol::mysql::packet::{self, Frames};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::serve::outlet::Sink;
use crate::serve::stream::Stream;

/// Bytes that a command has, most often.
const COMMAND: usize = 4096;

/// What a server gathers before it compresses: its `net_buffer_length`.
const GATHERED: usize = 16 << 10;

/// The way to a client.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    codec: Option<(Compressor, Decompressor)>,
    received: Vec<u8>,
    incoming: Vec<u8>,
    frames: Frames,
    /// The sequence id of the next packet that we send.
    pub(super) sequence: u8,
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            codec: None,
            received: Vec::new(),
            incoming: Vec::new(),
            frames: Frames::starting_at(1),
            sequence: 0,
        }
    }

    pub(super) async fn start_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        self.stream.start_tls(config).await?;
        // The client's response follows its request without a packet of ours between them.
        self.frames = Frames::starting_at(self.sequence);
        Ok(())
    }

    pub(super) fn compress(&mut self, algorithm: Algorithm) -> io::Result<()> {
        let decompressor = Decompressor::new(algorithm).map_err(invalid)?;
        self.codec = Some((Compressor::new(algorithm), decompressor));
        Ok(())
    }

    /// The client's next payload; `None` when it closed between packets. Our next packet takes the next sequence id.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let frame = self.frames.next(&self.incoming).map_err(invalid)?;
            if let Some(frame) = frame {
                if frame.is_split() {
                    frame.join(&mut self.incoming);
                }
                let payload = self.incoming[frame.payload()].to_vec();
                self.incoming.drain(..frame.wire_length);
                self.sequence = frame.sequence.wrapping_add(1);
                self.frames = Frames::starting_at(self.sequence.wrapping_add(1));
                return Ok(Some(payload));
            }
            if let Some((_, decompressor)) = &mut self.codec {
                let before = self.incoming.len();
                // Commands are short; a longer one takes several turns.
                self.incoming.reserve(COMMAND);
                let used = decompressor
                    .read(&self.received, &mut self.incoming)
                    .map_err(invalid)?;
                self.received.drain(..used);
                if self.incoming.len() > before {
                    continue;
                }
            }
            // Not a byte beyond the packet without compression: clients send the first of TLS right behind their request for it.
            let length = match self.codec {
                Some(_) => self.stream.read_buf(&mut self.received).await?,
                None => {
                    let missing = packet::missing(&self.incoming) as u64;
                    let stream = &mut self.stream;
                    stream.take(missing).read_buf(&mut self.incoming).await?
                }
            };
            if length == 0 {
                let between = self.incoming.is_empty() && self.received.is_empty();
                return if between {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// A command is due: both sides count from 0 again.
    pub(super) fn expect_command(&mut self) {
        self.frames = match &mut self.codec {
            Some((compressor, decompressor)) => {
                compressor.restart_at(1);
                decompressor.restart_at(0);
                Frames::unchecked()
            }
            None => Frames::starting_at(0),
        };
    }

    /// Sends a payload as the next packet.
    pub(super) async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + packet::HEADER_LENGTH);
        packet::write(&mut bytes, &mut self.sequence, payload);
        self.frames = Frames::starting_at(self.sequence);
        self.write_packets(&bytes).await
    }

    /// Sends packets that are framed already.
    pub(super) async fn write_packets(&mut self, packets: &[u8]) -> io::Result<()> {
        match &mut self.codec {
            None => self.stream.write_all(packets).await?,
            Some((compressor, _)) => {
                let mut compressed = Vec::with_capacity(packets.len() / 2);
                for part in packets.chunks(GATHERED) {
                    compressor.write(part, &mut compressed);
                }
                self.stream.write_all(&compressed).await?;
            }
        }
        self.stream.flush().await
    }

    /// Waits until the client sends something that nobody asked for, or closes.
    pub(super) async fn closed(&mut self) {
        let mut byte = [0];
        // Whatever comes: a replica does not talk during a dump (MariaDB's semi-sync acknowledgements are not offered).
        let _ = self.stream.read(&mut byte).await;
    }

    /// Breaks the connection: the client's next read fails instead of ending in peace.
    pub(super) fn reset(self) {
        self.stream.reset();
    }
}

impl Sink for Wire {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_packets(bytes).await
    }
}
