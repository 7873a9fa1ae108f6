//! The line to a walsender: a thread that reads, and a side to write on.
//!
//! ```text
//! socket ─► thread: blocking read, a pause while busy ─► chunks (two at most) ─► Batch
//!                    ▲ spare buffers ◄───────────────────────┘
//! ```
//! A thread, because a socket that the runtime polls is woken by every arrival, whether anybody wants to read or not: with a walsender
//! that writes change by change that alone takes away half of its speed ([`super::coalesce`]). A blocking reader that sleeps is not woken.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, mpsc as sync};
use std::thread;
use std::time::Duration;

use rustls::ClientConnection;
use tokio::sync::mpsc;

use super::coalesce::Coalesce;
use crate::clock;
use crate::source::socket::Socket;

/// Chunks that have been read and not yet been taken.
const CHUNKS: usize = 2;
/// A peer that takes nothing of 39 bytes for so long takes nothing any more.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// What is written and read on, by two sides.
#[derive(Debug, Clone)]
struct Wire {
    socket: Arc<TcpStream>,
    tls: Option<Arc<Mutex<ClientConnection>>>,
}

/// The side that is read.
#[derive(Debug)]
pub(super) struct Reader {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    spare: sync::Sender<Vec<u8>>,
    socket: Arc<TcpStream>,
}

/// The side that is written.
#[derive(Debug, Clone)]
pub(super) struct Writer(Wire);

/// Takes a connection away from the runtime: `chunk` bytes are read at a time.
pub(super) fn take(socket: Socket, chunk: usize) -> io::Result<(Reader, Writer)> {
    let (socket, tls) = socket.into_parts()?;
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(WRITE_PATIENCE))?;
    let wire = Wire {
        socket: Arc::new(socket),
        tls: tls.map(|tls| Arc::new(Mutex::new(tls))),
    };
    let (full, chunks) = mpsc::channel(CHUNKS);
    let (spare, empty) = sync::channel();
    let reading = wire.clone();
    thread::Builder::new()
        .name("walsender".into())
        .spawn(move || read(&reading, chunk, &full, &empty))?;
    let reader = Reader {
        chunks,
        spare,
        socket: Arc::clone(&wire.socket),
    };
    Ok((reader, Writer(wire)))
}

impl Reader {
    /// Appends what has been read; 0: the peer closed. Cancel-safe.
    pub(super) async fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        match self.chunks.recv().await {
            None => Ok(0),
            Some(Err(error)) => Err(error),
            Some(Ok(mut chunk)) => {
                let length = chunk.len();
                bytes.extend_from_slice(&chunk);
                chunk.clear();
                // The thread may have ended.
                let _ = self.spare.send(chunk);
                Ok(length)
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Ends the thread's read. What is still to be said can be.
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}

impl Writer {
    /// Writes `message` whole.
    pub(super) async fn write(&self, message: Vec<u8>) -> io::Result<()> {
        let wire = self.0.clone();
        let written = tokio::task::spawn_blocking(move || wire.write(&message)).await;
        written.map_err(io::Error::other)?
    }
}

fn read(
    wire: &Wire,
    chunk: usize,
    full: &mpsc::Sender<io::Result<Vec<u8>>>,
    empty: &sync::Receiver<Vec<u8>>,
) {
    let mut coalesce = Coalesce::new(chunk);
    let mut ciphertext = vec![0; if wire.tls.is_some() { chunk } else { 0 }];
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        let length = match wire.read(&mut buffer, chunk, &mut ciphertext) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Nobody may be listening any more.
                let _ = full.blocking_send(Err(error));
                return;
            }
        };
        if full.blocking_send(Ok(buffer)).is_err() {
            return;
        }
        if let Some(pause) = coalesce.read(clock::now(), length) {
            thread::sleep(pause);
        }
    }
}

impl Wire {
    /// Reads up to `most` bytes of what the peer said into `buffer`, waiting for the first; 0: it closed.
    fn read(&self, buffer: &mut Vec<u8>, most: usize, ciphertext: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            buffer.resize(most, 0);
            let length = (&*self.socket).read(buffer)?;
            buffer.truncate(length);
            return Ok(length);
        };
        loop {
            // What the handshake or an earlier read left over comes first.
            if drain(&mut lock(tls), buffer)? > 0 {
                return Ok(buffer.len());
            }
            // Not under the lock: whoever writes does not wait for the peer.
            let length = (&*self.socket).read(ciphertext)?;
            if length == 0 {
                return Ok(0);
            }
            let mut records = ciphertext.get(..length).unwrap_or_default();
            let mut tls = lock(tls);
            while !records.is_empty() {
                tls.read_tls(&mut records)?;
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                drain(&mut tls, buffer)?;
                if state.peer_has_closed() && buffer.is_empty() {
                    return Ok(0);
                }
            }
            // A key update wants an answer.
            while tls.wants_write() {
                tls.write_tls(&mut &*self.socket)?;
            }
            if !buffer.is_empty() {
                return Ok(buffer.len());
            }
        }
    }

    fn write(&self, message: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return (&*self.socket).write_all(message);
        };
        let mut tls = lock(tls);
        tls.writer().write_all(message)?;
        while tls.wants_write() {
            tls.write_tls(&mut &*self.socket)?;
        }
        Ok(())
    }
}

/// A thread that panicked under the lock aborts the process in release builds; in others its state is what it was.
fn lock(tls: &Mutex<ClientConnection>) -> std::sync::MutexGuard<'_, ClientConnection> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends the plaintext that is there.
fn drain(tls: &mut ClientConnection, buffer: &mut Vec<u8>) -> io::Result<usize> {
    match tls.reader().read_to_end(buffer) {
        Ok(length) => Ok(length),
        // What was there has been appended.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}
