//! Receiving by io_uring: a ring of its own for each connection, by `tokio-uring`, on the connection's thread.
//!
//! What `tokio-uring` does where the kernel refuses is not all errors: it panics where a ring cannot be registered with epoll, and waits for
//! ever where a ring can be made but not be entered. So everything that it is going to need is tried before it ([`available`]).

use std::io;
use std::net::TcpStream;

use io_uring::{IoUring, Probe, opcode};
use nix::poll::{PollFlags, PollTimeout};
use tokio::io::unix::AsyncFd;
use tokio_uring::buf::BoundedBuf as _;

use super::receive::{Receive, make_room, wait};
use crate::config::Io;

/// Entries of a ring: there is one operation at a time.
const ENTRIES: u32 = 8;

/// A socket and the ring that reads it. It cannot leave the thread that made it.
pub struct Ring {
    // Closed before the ring is.
    stream: tokio_uring::net::TcpStream,
    runtime: tokio_uring::Runtime,
    /// The same socket.
    socket: TcpStream,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for `socket`, which blocks from here on: from others a ring only reads what is there.
    ///
    /// # Errors
    /// The kernel gives no ring.
    pub fn new(socket: &TcpStream) -> io::Result<Self> {
        probe()?;
        let mut builder = tokio_uring::builder();
        builder.entries(ENTRIES);
        let runtime = tokio_uring::Runtime::new(&builder)?;
        let stream = tokio_uring::net::TcpStream::from_std(socket.try_clone()?);
        let socket = socket.try_clone()?;
        socket.set_nonblocking(false)?;
        Ok(Self {
            stream,
            runtime,
            socket,
        })
    }
}

impl Receive for Ring {
    fn receive(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        loop {
            make_room(&mut buffer);
            let end = buffer.len();
            let reading = self.stream.read(buffer.slice(end..));
            let (received, slice) = self.runtime.block_on(reading);
            buffer = slice.into_inner();
            match received {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return (other, buffer),
            }
        }
    }

    /// Asks whether there is something, and reads it by the ring all the same: nobody else reads it in between.
    fn receive_now(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match wait(&self.socket, PollFlags::POLLIN, PollTimeout::ZERO) {
            Ok(true) => self.receive(buffer),
            Ok(false) => (Err(io::ErrorKind::WouldBlock.into()), buffer),
            Err(error) => (Err(error), buffer),
        }
    }
}

/// What can be had of `wanted` on this machine. Where io_uring is asked for and is not there (an old kernel, a seccomp filter, a limit),
/// epoll, and the reason why. Never panics.
#[must_use]
pub fn available(wanted: Io) -> (Io, Option<io::Error>) {
    match wanted {
        Io::Epoll => (Io::Epoll, None),
        Io::Uring => match probe() {
            Ok(()) => (Io::Uring, None),
            Err(error) => (Io::Epoll, Some(error)),
        },
    }
}

/// Makes a ring, enters it, looks for the one operation that is used, and has epoll wait for it, as `tokio-uring` will; a millisecond at most.
fn probe() -> io::Result<()> {
    let step = |step: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{step}: {error}"))
    };
    let ring = IoUring::new(ENTRIES).map_err(step("io_uring_setup"))?;
    ring.submitter().submit().map_err(step("io_uring_enter"))?;
    let mut operations = Probe::new();
    ring.submitter()
        .register_probe(&mut operations)
        .map_err(step("io_uring_register"))?;
    if !operations.is_supported(opcode::Read::CODE) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel's io_uring does not read (Linux 5.6 is the first that does)",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(step("a runtime for it"))?;
    let registered = {
        let _inside = runtime.enter();
        #[expect(
            deprecated,
            reason = "its successors want AsFd, which this version of IoUring, tokio-uring's, is not; the descriptor is its own until it is dropped"
        )]
        AsyncFd::new(ring).map(drop)
    };
    // Dropped, it would panic where the caller is asynchronous.
    runtime.shutdown_background();
    registered.map_err(step("epoll_ctl"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::source::receive::Received;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    /// Whether this machine has io_uring; tests of it say so where it has not.
    fn has_uring() -> bool {
        let (io, why) = available(Io::Uring);
        if let Some(why) = why {
            eprintln!("\n*** SKIPPED: no io_uring here: {why}\n");
        }
        io == Io::Uring
    }

    /// What `done` says where the kernel refuses the system call `number`.
    fn forbidden<T: Send + 'static>(
        number: libc::c_long,
        done: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        // A thread of its own: a filter cannot be taken off again.
        let thread = std::thread::spawn(move || {
            let filter = SeccompFilter::new(
                [(number, Vec::new())].into(),
                SeccompAction::Allow,
                SeccompAction::Errno(libc::EPERM as u32),
                std::env::consts::ARCH.try_into().unwrap(),
            );
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
            done()
        });
        thread.join().unwrap()
    }

    #[test]
    fn epoll_is_always_there() {
        assert!(matches!(available(Io::Epoll), (Io::Epoll, None)));
    }

    #[test]
    fn where_a_filter_forbids_a_part_of_it_there_is_a_reason_and_no_panic() {
        let calls = [
            (libc::SYS_io_uring_setup, "io_uring_setup"),
            (libc::SYS_io_uring_enter, "io_uring_enter"),
            (libc::SYS_io_uring_register, "io_uring_register"),
        ];
        // A machine without it refuses at the first of them.
        let has_uring = has_uring();
        for (number, name) in calls {
            let (io, why) = forbidden(number, || available(Io::Uring));
            assert_eq!(io, Io::Epoll, "{name}");
            let why = why.unwrap().to_string();
            assert!(!has_uring || why.starts_with(name), "{name}: {why}");
        }
    }

    #[tokio::test]
    async fn a_connection_without_a_ring_is_read_all_the_same() {
        let (ours, mut theirs) = pair();
        let mut received = forbidden(libc::SYS_io_uring_setup, || {
            Received::plain("test", ours, 1024, Io::Uring).unwrap()
        });
        assert_eq!(received.io(), Io::Epoll);
        theirs.write_all(b"read").unwrap();
        drop(theirs);
        let mut all = Vec::new();
        received.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"read");
    }

    #[tokio::test]
    async fn a_ring_brings_everything_and_then_the_end() {
        if !has_uring() {
            return;
        }
        let (ours, mut theirs) = pair();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 3) as u8).collect();
        let bytes = sent.clone();
        let writer = std::thread::spawn(move || theirs.write_all(&bytes));
        let mut received = Received::plain("test", ours, 64 << 10, Io::Uring).unwrap();
        assert_eq!(received.io(), Io::Uring);
        let mut all = Vec::new();
        received.read_to_end(&mut all).await.unwrap();
        writer.join().unwrap().unwrap();
        assert!(all == sent, "{} of {} bytes", all.len(), sent.len());
    }

    #[tokio::test]
    async fn a_reset_is_an_error_as_it_is_by_poll() {
        for io in [Io::Epoll, Io::Uring] {
            if io == Io::Uring && !has_uring() {
                continue;
            }
            let (ours, theirs) = pair();
            let mut received = Received::plain("test", ours, 1024, io).unwrap();
            socket2::SockRef::from(&theirs)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap();
            drop(theirs);
            let error = received.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{io:?}");
        }
    }

    #[tokio::test]
    async fn dropping_the_reader_ends_the_thread() {
        if !has_uring() {
            return;
        }
        let (ours, theirs) = pair();
        let received = Received::plain("test", ours, 1024, Io::Uring).unwrap();
        let socket = std::sync::Arc::downgrade(received.socket());
        drop(received);
        // The thread holds the socket for as long as it runs; nothing has been sent that could wake it.
        while socket.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        drop(theirs);
    }
}
