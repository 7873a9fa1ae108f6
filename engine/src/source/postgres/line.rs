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
/// at `began`.
fn collect(
    receive: &mut dyn Receive,
    coalesce: &mut Coalesce,
    buffer: &mut Vec<u8>,
    began: Instant,
    chunk: usize,
) -> io::Result<()> {
    if !coalesce.read(buffer.len(), began) {
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
    Ok(())
}
