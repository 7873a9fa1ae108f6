//! The line to a walsender: a thread that reads, and a side to write on.
//!
//! ```text
//! socket ─► thread: waits while calm, pauses while busy ─► chunks (two at most) ─► Batch
//!                    ▲ spare buffers ◄────────────────────────┘
//! ```
//! How long the thread ([`crate::source::receive`]) sleeps while the stream is busy decides how fast a walsender sends ([`super::coalesce`]).

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::coalesce::{self, COLLECT, Coalesce};
use crate::clock;
use crate::config::Io;
use crate::source::receive::{Receive, Received};
use crate::source::socket::Socket;
use crate::source::wire::Wire;

/// The side that is written.
#[derive(Debug, Clone)]
pub(super) struct Writer(Wire);

/// Takes a connection to a server that answers within `round_trip` away from the runtime: `chunk` bytes are read at a time, by `io` where
/// it can be had.
pub(super) fn take(
    socket: Socket,
    chunk: usize,
    round_trip: Duration,
    io: Io,
) -> io::Result<(Received, Writer)> {
    let (socket, tls) = socket.into_parts()?;
    let near = coalesce::is_near(round_trip);
    if near {
        socket2::SockRef::from(&socket).set_recv_buffer_size(coalesce::WINDOW)?;
    }
    let wire = Wire::new(socket, tls);
    let mut coalesce = Coalesce::new(near);
    let received = wire.receive("walsender", chunk, io, move |receive, buffer, began| {
        collect(receive, &mut coalesce, buffer, began, chunk)
    })?;
    Ok((received, Writer(wire)))
}

impl Writer {
    /// Writes `message` whole.
    pub(super) async fn write(&self, message: Vec<u8>) -> io::Result<()> {
        let wire = self.0.clone();
        let written = tokio::task::spawn_blocking(move || wire.write(&message)).await;
        written.map_err(io::Error::other)?
    }
}

/// While the stream is busy: reads on, pausing as [`Coalesce`] says, until there is a chunk, or nothing more comes; what is there was read
/// at `began`. How long nothing is to be read once that has been handed on.
fn collect(
    receive: &mut dyn Receive,
    coalesce: &mut Coalesce,
    buffer: &mut Vec<u8>,
    began: Instant,
    chunk: usize,
) -> io::Result<Duration> {
    if !coalesce.read(buffer.len(), began) {
        return Ok(Duration::ZERO);
    }
    let mut now = began;
    while buffer.len() < chunk / 4 * 3 {
        let pauses = !coalesce.has_more();
        if pauses {
            let pause = coalesce.pause(now);
            // What a near server's pause was for is not kept back for another one.
            if coalesce.hands_on(pause) || now.saturating_duration_since(began) >= COLLECT {
                return Ok(pause);
            }
            thread::sleep(pause);
        }
        let (more, back) = receive.receive_now(std::mem::take(buffer));
        *buffer = back;
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
    Ok(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Brings these many bytes per call, then nothing; counts the calls.
    struct Script(Vec<usize>, usize);

    impl Receive for Script {
        fn receive(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
            self.receive_now(buffer)
        }

        fn receive_now(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
            self.1 += 1;
            match self.0.pop() {
                Some(length) => {
                    buffer.resize(buffer.len() + length, 0);
                    (Ok(length), buffer)
                }
                None => (Err(io::ErrorKind::WouldBlock.into()), buffer),
            }
        }
    }

    /// What is collected behind a first read of `first` bytes of a busy near stream, in how many reads, and the rest after it.
    fn collected(first: usize, more: &[usize]) -> (usize, usize, Duration) {
        let now = clock::now();
        let mut coalesce = Coalesce::new(true);
        for _ in 0..4 {
            coalesce.read(100, now);
        }
        let mut script = Script(more.iter().rev().copied().collect(), 0);
        let mut buffer = vec![0; first];
        let rest = collect(&mut script, &mut coalesce, &mut buffer, now, 128 << 10);
        (buffer.len(), script.1, rest.unwrap())
    }

    #[test]
    fn before_a_long_pause_everything_is_handed_on_and_nothing_is_read() {
        let (length, reads, rest) = collected(100, &[100]);
        assert_eq!((length, reads), (100, 0));
        assert!(rest > COLLECT);
    }

    #[test]
    fn a_busy_stream_is_read_until_it_is_dry() {
        // Less than half a window, or nothing at all, is dry.
        let window = coalesce::WINDOW;
        for (more, length, reads) in [
            (&[window, 10, 100][..], 2 * window + 10, 2),
            (&[window], 2 * window, 2),
        ] {
            let collected = collected(window, more);
            assert_eq!((collected.0, collected.1), (length, reads));
            assert!(collected.2 > COLLECT);
        }
    }
}
