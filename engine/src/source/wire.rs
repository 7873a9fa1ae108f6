//! A connection that was taken away from the runtime: one thread receives, anybody may write a little, TLS between them where there is some.
//!
//! ```text
//! socket ─► Receive (poll or a ring) ─► ciphertext ─► Deciphered ─┐
//!    ▲                                       ClientConnection ◄───┤ key updates want an answer
//!    └────────────────────── Wire::write ◄────────────────────────┘
//! ```

use std::io::{self, Read as _, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFlags, PollTimeout};
use rustls::ClientConnection;
use socket2::SockRef;

use super::receive::{Receive, Received, Receiver, retry, wait};
use crate::config::Io;

/// A peer that takes nothing of a few dozen bytes for so many milliseconds takes nothing any more.
const WRITE_PATIENCE: u16 = 10_000;

/// What is written on, and read by the thread of [`Wire::receive`].
#[derive(Debug, Clone)]
pub(super) struct Wire {
    socket: Arc<TcpStream>,
    tls: Option<Arc<Mutex<ClientConnection>>>,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, tls: Option<ClientConnection>) -> Self {
        Self {
            socket: Arc::new(socket),
            tls: tls.map(|tls| Arc::new(Mutex::new(tls))),
        }
    }

    /// Has a thread receive, by `io` where it can be had, and decipher; see [`Received::start`].
    pub(super) fn receive(
        &self,
        name: &str,
        room: usize,
        io: Io,
        gather: impl FnMut(&mut dyn Receive, &mut Vec<u8>, Instant) -> io::Result<Duration>
        + Send
        + 'static,
    ) -> io::Result<Received> {
        let wire = self.clone();
        let make = move |socket: &Arc<TcpStream>| {
            let Receiver { receive, io } = Receiver::of(socket, io)?;
            let receive = match &wire.tls {
                None => receive,
                Some(tls) => Box::new(Deciphered {
                    receive,
                    tls: Arc::clone(tls),
                    ciphertext: Vec::with_capacity(room),
                    wire,
                }),
            };
            Ok(Receiver { receive, io })
        };
        Received::start(name, Arc::clone(&self.socket), room, make, gather)
    }

    /// Writes `message` whole.
    pub(super) fn write(&self, message: &[u8]) -> io::Result<()> {
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
        mut write: impl FnMut(AtOnce<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match retry(|| write(AtOnce(&self.socket))) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let patience = PollTimeout::from(WRITE_PATIENCE);
                    if !wait(&self.socket, PollFlags::POLLOUT, patience)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }
}

/// Writes what a socket takes at once: one that a ring reads blocks otherwise.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(self.0).send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes TLS's records apart.
struct Deciphered {
    receive: Box<dyn Receive>,
    tls: Arc<Mutex<ClientConnection>>,
    ciphertext: Vec<u8>,
    wire: Wire,
}

impl Deciphered {
    /// Appends plaintext, at least a byte; 0: the peer closed. `next` has ciphertext received.
    fn decipher(
        &mut self,
        buffer: &mut Vec<u8>,
        next: impl Fn(&mut dyn Receive, Vec<u8>) -> (io::Result<usize>, Vec<u8>),
    ) -> io::Result<usize> {
        let before = buffer.len();
        loop {
            // What the handshake or an earlier read left over comes first.
            if drain(&mut lock(&self.tls), buffer)? > 0 {
                return Ok(buffer.len() - before);
            }
            self.ciphertext.clear();
            let (received, ciphertext) =
                next(&mut *self.receive, std::mem::take(&mut self.ciphertext));
            self.ciphertext = ciphertext;
            if received? == 0 {
                return Ok(0);
            }
            let mut records = self.ciphertext.as_slice();
            let mut tls = lock(&self.tls);
            while !records.is_empty() {
                tls.read_tls(&mut records)?;
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                drain(&mut tls, buffer)?;
                if state.peer_has_closed() && buffer.len() == before {
                    return Ok(0);
                }
            }
            // A key update wants an answer.
            self.wire.flush(&mut tls)?;
            if buffer.len() > before {
                return Ok(buffer.len() - before);
            }
        }
    }
}

impl Receive for Deciphered {
    fn receive(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let next = |receive: &mut dyn Receive, ciphertext| receive.receive(ciphertext);
        (self.decipher(&mut buffer, next), buffer)
    }

    fn receive_now(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let next = |receive: &mut dyn Receive, ciphertext| receive.receive_now(ciphertext);
        (self.decipher(&mut buffer, next), buffer)
    }
}

/// A thread that panicked under the lock aborts the process in release builds; in others its state is what it was.
fn lock(tls: &Mutex<ClientConnection>) -> MutexGuard<'_, ClientConnection> {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_write_to_a_socket_that_blocks_does_not_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _theirs = listener.accept().unwrap();
        socket.set_nonblocking(false).unwrap();
        let mut written = 0;
        let error = loop {
            match AtOnce(&socket).write(&[7; 64 << 10]) {
                Ok(length) => written += length,
                Err(error) => break error,
            }
        };
        assert!(written > 0);
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
