//! Received bytes in owned buffers that go around: a thread has them filled, the source empties them.
//!
//! ```text
//! socket ─► thread: Receive::receive(buffer) ─► chunks, two at most ─► Received ─► Batch
//!                      ▲ spare buffers ◄──────────────────────────────────┘
//! ```
//! io_uring writes into a buffer while nobody is looking, so it has to own it until it is done; a future that is dropped half-way
//! must not take received bytes with it. Hence buffers that are handed over and back, and a thread that waits for them. A walsender's
//! stream is read so in any case: a socket that the runtime polls is woken by every arrival, whether anybody wants to read or not, and a
//! thread that sleeps is not.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::{Arc, mpsc as sync};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::buffer::spare_capacity;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use super::ring::Ring;
use crate::clock;
use crate::config::Io;

/// Chunks that have been received and not yet been taken.
const CHUNKS: usize = 2;
/// Room that is made in a buffer that has none.
const ROOM: usize = 4 << 10;

/// Reads into a buffer that it owns until it hands it back, whatever happens.
pub trait Receive {
    /// Waits for bytes and appends them to `buffer` as far as it has room (some is made where there is none). How many came; 0: the
    /// peer closed.
    fn receive(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>);

    /// As [`Receive::receive`], but only what is there already: `WouldBlock` where there is nothing.
    fn receive_now(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>);
}

/// What receives on a thread, and what it does that by.
pub struct Receiver {
    /// It.
    pub receive: Box<dyn Receive>,
    /// [`Io::Epoll`] stands for `poll`: one thread has one socket.
    pub io: Io,
}

impl Receiver {
    /// Of what a socket has, by `io`; where there is no ring to be had for this connection, by `poll`, and the log says so.
    ///
    /// # Errors
    /// The socket does not change its mode.
    pub fn of(socket: &Arc<TcpStream>, io: Io) -> io::Result<Self> {
        if io == Io::Uring {
            match Ring::new(socket) {
                Ok(ring) => {
                    let receive = Box::new(ring);
                    return Ok(Self { receive, io });
                }
                Err(error) => {
                    let peer = socket.peer_addr();
                    let peer = peer.map_or_else(|_| "a server".to_owned(), |it| it.to_string());
                    tracing::warn!(
                        "no io_uring for the stream from {peer} ({error}): epoll reads it"
                    );
                }
            }
        }
        Ok(Self {
            receive: Box::new(Polled::new(Arc::clone(socket))?),
            io: Io::Epoll,
        })
    }
}

/// Receives by `poll` and `read`.
#[derive(Debug)]
pub struct Polled(Arc<TcpStream>);

impl Polled {
    /// Of `socket`, which does not block from here on.
    ///
    /// # Errors
    /// The socket does not change its mode.
    pub fn new(socket: Arc<TcpStream>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        make_room(buffer);
        retry(|| Ok(rustix::io::read(&*self.0, spare_capacity(buffer))?))
    }
}

impl Receive for Polled {
    fn receive(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        loop {
            match self.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = wait(&self.0, PollFlags::POLLIN, PollTimeout::NONE) {
                        return (Err(error), buffer);
                    }
                }
                other => return (other, buffer),
            }
        }
    }

    fn receive_now(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        (self.read(&mut buffer), buffer)
    }
}

/// Whether `socket` has become ready within `patience`, or has an end or an error to tell.
pub(super) fn wait(
    socket: &TcpStream,
    readiness: PollFlags,
    patience: PollTimeout,
) -> io::Result<bool> {
    let mut fds = [PollFd::new(socket.as_fd(), readiness)];
    loop {
        match poll(&mut fds, patience) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Again for as long as signals interrupt it.
pub(super) fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A read of no bytes would look like the peer's end.
pub(super) fn make_room(buffer: &mut Vec<u8>) {
    if buffer.capacity() == buffer.len() {
        buffer.reserve(ROOM);
    }
}

/// What the thread received.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// When the first of them had come.
    at: Instant,
}

/// The side that is read: what a thread has received, in order.
#[derive(Debug)]
pub struct Received {
    chunks: mpsc::Receiver<io::Result<Chunk>>,
    spare: sync::Sender<Vec<u8>>,
    /// What is being read, and how far.
    open: Vec<u8>,
    used: usize,
    /// When `open` had come.
    at: Option<Instant>,
    socket: Arc<TcpStream>,
    io: Io,
}

impl Received {
    /// Has a thread called `name` receive from `socket`, `room` bytes at a time, by what `make` makes there. What a wait has brought
    /// is given to `gather` before it is handed on: it may append more of what comes, and says for how long nothing is to be read once
    /// it has been handed on.
    ///
    /// # Errors
    /// `make` fails, or there is no thread to be had.
    pub fn start(
        name: &str,
        socket: Arc<TcpStream>,
        room: usize,
        make: impl FnOnce(&Arc<TcpStream>) -> io::Result<Receiver> + Send + 'static,
        gather: impl FnMut(&mut dyn Receive, &mut Vec<u8>, Instant) -> io::Result<Duration>
        + Send
        + 'static,
    ) -> io::Result<Self> {
        let (full, chunks) = mpsc::channel(CHUNKS);
        let (spare, empty) = sync::channel();
        let (made, is_made) = sync::channel();
        let receiving = Arc::clone(&socket);
        thread::Builder::new().name(name.into()).spawn(move || {
            // Made there: a ring belongs to the thread that made it.
            match make(&receiving) {
                Err(error) => drop(made.send(Err(error))),
                Ok(Receiver { mut receive, io }) => {
                    drop(made.send(Ok(io)));
                    run(&mut *receive, room, gather, &full, &empty);
                }
            }
        })?;
        let io = is_made.recv().map_err(io::Error::other)??;
        Ok(Self {
            chunks,
            spare,
            open: Vec::new(),
            used: 0,
            at: None,
            socket,
            io,
        })
    }

    /// The same of a socket without TLS, each read handed on as it comes, by `io`.
    ///
    /// # Errors
    /// As [`Received::start`].
    pub fn plain(name: &str, socket: TcpStream, room: usize, io: Io) -> io::Result<Self> {
        let make = move |socket: &Arc<TcpStream>| Receiver::of(socket, io);
        Self::start(name, Arc::new(socket), room, make, |_, _, _| {
            Ok(Duration::ZERO)
        })
    }

    /// What really receives.
    #[must_use]
    pub fn io(&self) -> Io {
        self.io
    }

    /// When the thread had the first byte of what the last read came from.
    #[must_use]
    pub fn arrived(&self) -> Option<Instant> {
        self.at
    }

    /// Appends the rest of a chunk; how much that is, and when the thread had the first byte of it. `None`: the peer closed. Cancel-safe.
    ///
    /// # Errors
    /// Those of receiving, behind everything that came before them.
    pub async fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<(usize, Instant)>> {
        if !std::future::poll_fn(|cx| self.poll_open(cx)).await? {
            return Ok(None);
        }
        let rest = self.open.get(self.used..).unwrap_or_default();
        bytes.extend_from_slice(rest);
        let length = rest.len();
        self.use_up(length);
        Ok(self.at.map(|at| (length, at)))
    }

    /// Waits until there is something unused; `false`: the peer closed.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.used == self.open.len() {
            match ready!(self.chunks.poll_recv(cx)) {
                None => return Poll::Ready(Ok(false)),
                Some(chunk) => {
                    let Chunk { bytes, at } = chunk?;
                    self.open = bytes;
                    self.used = 0;
                    self.at = Some(at);
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    fn use_up(&mut self, length: usize) {
        self.used += length;
        if self.used == self.open.len() {
            let mut used = std::mem::take(&mut self.open);
            self.used = 0;
            used.clear();
            // The thread may have ended.
            let _ = self.spare.send(used);
        }
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }
}

impl AsyncRead for Received {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.poll_open(cx))? {
            let rest = self.open.get(self.used..).unwrap_or_default();
            let length = rest.len().min(buf.remaining());
            buf.put_slice(rest.get(..length).unwrap_or_default());
            self.use_up(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // Ends what the thread waits for. What is still to be said can be.
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}

fn run(
    receive: &mut dyn Receive,
    room: usize,
    mut gather: impl FnMut(&mut dyn Receive, &mut Vec<u8>, Instant) -> io::Result<Duration>,
    full: &mpsc::Sender<io::Result<Chunk>>,
    empty: &sync::Receiver<Vec<u8>>,
) {
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.reserve(room);
        let (waited, mut bytes) = receive.receive(buffer);
        let at = clock::now();
        let is_over = bytes.is_empty();
        let read = match waited {
            Ok(_) if is_over => return,
            Ok(_) => gather(receive, &mut bytes, at),
            Err(error) => Err(error),
        };
        // What came before an error is handed on before it.
        if !is_over && full.blocking_send(Ok(Chunk { bytes, at })).is_err() {
            return;
        }
        match read {
            Ok(rest) if rest.is_zero() => {}
            Ok(rest) => thread::sleep(rest),
            Err(error) => {
                // Nobody may be listening any more.
                let _ = full.blocking_send(Err(error));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Write as _;
    use std::net::TcpListener;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Hands out what it was given, a piece per call, then fails or closes.
    struct Script {
        pieces: VecDeque<Vec<u8>>,
        fails: bool,
    }

    impl Receive for Script {
        fn receive(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
            match self.pieces.pop_front() {
                Some(piece) => {
                    buffer.extend_from_slice(&piece);
                    (Ok(piece.len()), buffer)
                }
                None if self.fails => (Err(io::ErrorKind::ConnectionReset.into()), buffer),
                None => (Ok(0), buffer),
            }
        }

        fn receive_now(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
            self.receive(buffer)
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn scripted(pieces: &[&[u8]], fails: bool, gathers: bool) -> Received {
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        let script = Script { pieces, fails };
        let make = |_: &Arc<TcpStream>| {
            Ok(Receiver {
                receive: Box::new(script),
                io: Io::Epoll,
            })
        };
        let gather = move |receive: &mut dyn Receive, buffer: &mut Vec<u8>, _: Instant| {
            if !gathers {
                return Ok(Duration::ZERO);
            }
            let (more, back) = receive.receive_now(std::mem::take(buffer));
            *buffer = back;
            more.map(|_| Duration::from_micros(10))
        };
        Received::start("test", Arc::new(pair().0), 8, make, gather).unwrap()
    }

    #[tokio::test]
    async fn bytes_come_in_order_whatever_the_reader_takes() {
        let pieces: [&[u8]; 5] = [b"one ", b"two ", b"three ", b"four ", b"five"];
        for room in [1, 3, 100] {
            let mut received = scripted(&pieces, false, false);
            let mut all = Vec::new();
            loop {
                let mut bytes = Vec::with_capacity(room);
                let limit = (&mut received).take(room as u64).read_buf(&mut bytes).await;
                if limit.unwrap() == 0 {
                    break;
                }
                all.extend_from_slice(&bytes);
            }
            assert_eq!(all, pieces.concat(), "room for {room}");
        }
    }

    #[tokio::test]
    async fn what_came_before_an_error_comes_before_it() {
        for gathers in [false, true] {
            let mut received = scripted(&[b"last words"], true, gathers);
            let mut all = Vec::new();
            let error = received.read_to_end(&mut all).await.unwrap_err();
            assert_eq!(all, b"last words", "gathers: {gathers}");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn what_was_gathered_is_one_chunk_and_a_chunk_may_be_begun_by_the_other_way_of_reading() {
        let mut received = scripted(&[b"one ", b"two ", b"three"], false, true);
        let mut bytes = vec![0; 2];
        received.read_exact(&mut bytes).await.unwrap();
        let (length, at) = received.next(&mut bytes).await.unwrap().unwrap();
        assert_eq!((length, &*bytes), (6, &b"one two "[..]));
        assert_eq!(received.arrived(), Some(at));
        // Then the end, which gathering meets first.
        assert_eq!(received.next(&mut bytes).await.unwrap().unwrap().0, 5);
        assert!(received.next(&mut bytes).await.unwrap().is_none());
        assert_eq!(bytes, b"one two three");
    }

    #[test]
    fn a_receiver_that_cannot_be_made_is_an_error() {
        let refused =
            |_: &Arc<TcpStream>| Err::<Receiver, _>(io::ErrorKind::PermissionDenied.into());
        let socket = Arc::new(pair().0);
        let error =
            Received::start("test", socket, 8, refused, |_, _, _| Ok(Duration::ZERO)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    /// What every backend does; a ring where the machine has one.
    #[test]
    fn receivers_wait_or_do_not_and_tell_the_end() {
        for io in [Io::Epoll, Io::Uring] {
            if super::super::ring::available(io).0 != io {
                eprintln!("NOT TESTED: no io_uring here");
                continue;
            }
            let (ours, mut theirs) = pair();
            let mut receiver = Receiver::of(&Arc::new(ours), io).unwrap();
            assert_eq!(receiver.io, io);
            let receive = &mut *receiver.receive;
            let (nothing, buffer) = receive.receive_now(b"kept ".to_vec());
            assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(buffer, b"kept ");
            theirs.write_all(b"first ").unwrap();
            let (first, buffer) = receive.receive(buffer);
            assert_eq!((first.unwrap(), &*buffer), (6, &b"kept first "[..]));
            // A buffer without room is no end.
            theirs.write_all(b"second").unwrap();
            wait(&theirs, PollFlags::POLLOUT, PollTimeout::NONE).unwrap();
            let mut full = buffer;
            full.shrink_to_fit();
            let (second, buffer) = loop {
                match receive.receive_now(full) {
                    (Err(error), back) if error.kind() == io::ErrorKind::WouldBlock => full = back,
                    other => break other,
                }
            };
            assert_eq!((second.unwrap(), &*buffer), (6, &b"kept first second"[..]));
            drop(theirs);
            let (end, buffer) = receive.receive(buffer);
            assert_eq!(end.unwrap(), 0);
            assert_eq!(receive.receive_now(buffer).0.unwrap(), 0);
        }
    }
}
