//! What carries messages to a client and back: a socket, with TLS over it, read and written at the same time.
//!
//! ```text
//! start-up packet = length:4 code:4 …                 before anything else, without a tag
//! message         = tag:1 length:4 body               length counts itself and the body
//! ```
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::serve::outlet::Sink;
use crate::serve::stream::Stream;

/// The server's own bound on start-up packets (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_MAX: usize = 10_000;
/// More than any statement or status update of a client takes.
const MESSAGE_MAX: usize = 16 << 20;

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Appends a message with the body that `body` writes.
pub(super) fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = ((out.len() - start) as u32).to_be_bytes();
    out[start..start + 4].copy_from_slice(&length);
}

/// Appends `text` as a C string.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// A start-up packet without its length; `None` when the client left. Not a byte more is read: TLS may follow.
pub(super) async fn startup(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if let Err(error) = stream.read_exact(&mut length).await {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        };
    }
    let length = u32::from_be_bytes(length) as usize;
    if !(8..=STARTUP_MAX).contains(&length) {
        return Err(invalid("invalid length of startup packet"));
    }
    let mut packet = vec![0; length - 4];
    stream.read_exact(&mut packet).await?;
    Ok(Some(packet))
}

/// The client's half.
#[derive(Debug)]
pub(super) struct Reader {
    stream: ReadHalf<Stream>,
    incoming: Vec<u8>,
}

/// A message of the client's.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

impl Reader {
    /// The client's next message; `None` when it closed between messages. Safe to drop and call again.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Received>> {
        loop {
            if let [tag, a, b, c, d, ..] = *self.incoming {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if !(4..=MESSAGE_MAX).contains(&length) {
                    return Err(invalid("invalid message length"));
                }
                if self.incoming.len() > length {
                    let body = self.incoming[5..=length].to_vec();
                    self.incoming.drain(..=length);
                    return Ok(Some(Received { tag, body }));
                }
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return match self.incoming.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

/// The server's half.
#[derive(Debug)]
pub(super) struct Writer {
    stream: WriteHalf<Stream>,
}

impl Sink for Writer {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// Both halves.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Reader {
                stream: reader,
                incoming: Vec::new(),
            },
            writer: Writer { stream: writer },
        }
    }

    /// Breaks the connection: the client's next read fails instead of ending in peace.
    pub(super) fn reset(self) {
        self.reader.stream.unsplit(self.writer.stream).reset();
    }
}
