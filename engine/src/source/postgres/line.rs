//! The line to a walsender: a thread that reads, and a side to write on.
//!
//! ```text
//! socket ─► thread: polls while calm, pauses while busy ─► chunks (two at most) ─► Batch
//!                    ▲ spare buffers ◄───────────────────────┘
//! ```
//! A thread, because a socket that the runtime polls is woken by every arrival, whether anybody wants to read or not. A thread that
//! sleeps is not woken, and how long it sleeps decides how fast a walsender sends ([`super::coalesce`]).

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc as sync};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::ClientConnection;
use tokio::sync::mpsc;

use super::coalesce::{self, COLLECT, Coalesce};
use crate::clock;
use crate::source::socket::Socket;

/// Chunks that have been read and not yet been taken.
const CHUNKS: usize = 2;
/// Most bytes that one read asks for: they are cleared before each.
const READ: usize = 128 << 10;
/// A peer that takes nothing of 39 bytes for so many milliseconds takes nothing any more.
const WRITE_PATIENCE: u16 = 10_000;

/// What is written and read on, by two sides.
#[derive(Debug, Clone)]
struct Wire {
    socket: Arc<TcpStream>,
    tls: Option<Arc<Mutex<ClientConnection>>>,
}

/// What the thread read.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// When the first of them had come.
    at: Instant,
}

/// The side that is read.
#[derive(Debug)]
pub(super) struct Reader {
    chunks: mpsc::Receiver<io::Result<Chunk>>,
    spare: sync::Sender<Vec<u8>>,
    socket: Arc<TcpStream>,
}

/// The side that is written.
#[derive(Debug, Clone)]
pub(super) struct Writer(Wire);

/// Takes a connection to a server that answers within `round_trip` away from the runtime: `chunk` bytes are read at a time.
pub(super) fn take(
    socket: Socket,
    chunk: usize,
    round_trip: Duration,
) -> io::Result<(Reader, Writer)> {
    let (socket, tls) = socket.into_parts()?;
    let near = coalesce::is_near(round_trip);
    if near {
        socket2::SockRef::from(&socket).set_recv_buffer_size(coalesce::WINDOW)?;
    }
    let wire = Wire {
        socket: Arc::new(socket),
        tls: tls.map(|tls| Arc::new(Mutex::new(tls))),
    };
    let (full, chunks) = mpsc::channel(CHUNKS);
    let (spare, empty) = sync::channel();
    let reading = wire.clone();
    thread::Builder::new()
        .name("walsender".into())
        .spawn(move || read(&reading, chunk, Coalesce::new(near), &full, &empty))?;
    let reader = Reader {
        chunks,
        spare,
        socket: Arc::clone(&wire.socket),
    };
    Ok((reader, Writer(wire)))
}

impl Reader {
    /// Appends what has been read; how much that is, and when the thread had the first byte of it. `None`: the peer closed. Cancel-safe.
    pub(super) async fn read(
        &mut self,
        bytes: &mut Vec<u8>,
    ) -> io::Result<Option<(usize, Instant)>> {
        match self.chunks.recv().await {
            None => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(Chunk {
                bytes: mut chunk,
                at,
            })) => {
                let length = chunk.len();
                bytes.extend_from_slice(&chunk);
                chunk.clear();
                // The thread may have ended.
                let _ = self.spare.send(chunk);
                Ok(Some((length, at)))
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
    mut coalesce: Coalesce,
    full: &mpsc::Sender<io::Result<Chunk>>,
    empty: &sync::Receiver<Vec<u8>>,
) {
    let mut ciphertext = vec![0; if wire.tls.is_some() { chunk } else { 0 }];
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.reserve(chunk);
        let waited = wire.wait(&mut buffer, &mut ciphertext);
        let at = clock::now();
        let read = waited
            .and_then(|()| collect(wire, &mut coalesce, &mut buffer, at, chunk, &mut ciphertext));
        let is_over = buffer.is_empty();
        // What came before an error is handed on before it.
        if !is_over && full.blocking_send(Ok(Chunk { bytes: buffer, at })).is_err() {
            return;
        }
        match read {
            Ok(()) if is_over => return,
            Ok(()) => {}
            Err(error) => {
                // Nobody may be listening any more.
                let _ = full.blocking_send(Err(error));
                return;
            }
        }
    }
}

/// While the stream is busy: reads on, pausing as [`Coalesce`] says, until there is a chunk, or nothing more comes; what is there was read
/// at `began`.
fn collect(
    wire: &Wire,
    coalesce: &mut Coalesce,
    buffer: &mut Vec<u8>,
    began: Instant,
    chunk: usize,
    ciphertext: &mut [u8],
) -> io::Result<()> {
    if buffer.is_empty() || !coalesce.read(buffer.len(), began) {
        return Ok(());
    }
    let mut now = began;
    while buffer.len() < chunk / 4 * 3 {
        let pauses = !coalesce.has_more();
        if pauses {
            if !coalesce.is_behind() && now.saturating_duration_since(began) >= COLLECT {
                break;
            }
            thread::sleep(coalesce.pause(now));
        }
        let more = wire.read(buffer, ciphertext);
        now = clock::now();
        coalesce.collected(*more.as_ref().unwrap_or(&0), now);
        match more {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if pauses {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Wire {
    /// Waits until something comes and appends it to `buffer`; nothing where the peer closed.
    fn wait(&self, buffer: &mut Vec<u8>, ciphertext: &mut [u8]) -> io::Result<()> {
        loop {
            match self.read(buffer, ciphertext) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    match poll(&mut fds, PollTimeout::NONE) {
                        Ok(_) | Err(nix::Error::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends what is there to `buffer`, as far as it has room; 0: the peer closed. `WouldBlock` when there is nothing.
    fn read(&self, buffer: &mut Vec<u8>, ciphertext: &mut [u8]) -> io::Result<usize> {
        let before = buffer.len();
        let Some(tls) = &self.tls else {
            buffer.resize(buffer.capacity().min(before + READ), 0);
            let read = retry(|| (&*self.socket).read(&mut buffer[before..]));
            buffer.truncate(before + *read.as_ref().unwrap_or(&0));
            return read;
        };
        loop {
            // What the handshake or an earlier read left over comes first.
            if drain(&mut lock(tls), buffer)? > 0 {
                return Ok(buffer.len() - before);
            }
            let length = retry(|| (&*self.socket).read(ciphertext))?;
            if length == 0 {
                return Ok(0);
            }
            let mut records = ciphertext.get(..length).unwrap_or_default();
            let mut tls = lock(tls);
            while !records.is_empty() {
                tls.read_tls(&mut records)?;
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                drain(&mut tls, buffer)?;
                if state.peer_has_closed() && buffer.len() == before {
                    return Ok(0);
                }
            }
            // A key update wants an answer.
            self.flush(&mut tls)?;
            if buffer.len() > before {
                return Ok(buffer.len() - before);
            }
        }
    }

    fn write(&self, message: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            let mut rest = message;
            while !rest.is_empty() {
                let written = self.patiently(|mut socket| socket.write(rest))?;
                rest = rest.get(written..).unwrap_or_default();
            }
            return Ok(());
        };
        let mut tls = lock(tls);
        tls.writer().write_all(message)?;
        self.flush(&mut tls)
    }

    fn flush(&self, tls: &mut ClientConnection) -> io::Result<()> {
        while tls.wants_write() {
            self.patiently(|mut socket| tls.write_tls(&mut socket))?;
        }
        Ok(())
    }

    /// Writes once the socket takes something.
    fn patiently(
        &self,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match retry(|| write(&self.socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    if poll(&mut fds, PollTimeout::from(WRITE_PATIENCE))? == 0 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }
}

/// Again for as long as signals interrupt it.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
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
