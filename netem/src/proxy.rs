//! The emulation without privileges: a relay of TCP streams, with delay and rate in each direction. It treats bytes, not packets, so it
//! can neither lose nor reorder; it answers the sender's window itself, so the sender does not see the receiver's. What is dropped one
//! way comes late instead, as TCP would make it.
//!
//! ```text
//! client ─► reader ─► lane: rate, delay ─► writer ─► service      and the same back
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;
use crate::network::Host;
use crate::profile::LinkProfile;
use crate::shaper::{Counters, Fate, Shaper};

/// What one read takes where there is no rate.
const PIECE: usize = 64 << 10;
/// At a rate, what one read takes: some packets, so that the rate is even.
const PIECE_AT_RATE: usize = 8 << 10;
/// Pieces on their way in one direction of one connection.
const PIECES_MAX: usize = 1024;

/// One direction between two hosts, shared by all connections.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    shaper: Shaper,
    is_held: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    pub(crate) fn new(profile: LinkProfile, seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                shaper: Shaper::new(profile, seed, clock::now()),
                is_held: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn set(&self, profile: LinkProfile) {
        locked(&self.state).shaper.set(profile, clock::now());
    }

    pub(crate) fn hold(&self, is_held: bool) {
        locked(&self.state).is_held = is_held;
        self.changed.notify_all();
    }

    pub(crate) fn counters(&self) -> Counters {
        locked(&self.state).shaper.counters
    }

    fn piece(&self) -> usize {
        match locked(&self.state).shaper.profile().rate_bits {
            None => PIECE,
            Some(_) => PIECE_AT_RATE,
        }
    }

    /// When `bytes` arrive; waits until the link has room for them.
    fn admit(&self, bytes: usize) -> Instant {
        loop {
            let now = clock::now();
            let mut state = locked(&self.state);
            let pause = state.shaper.room(bytes, now);
            if pause.is_zero()
                && let Fate::Arrives { due, .. } = state.shaper.admit(bytes, 1, true, now)
            {
                return due;
            }
            drop(state);
            std::thread::sleep(pause.max(Duration::from_micros(50)));
        }
    }

    /// Waits while the direction is held, and then says how large a write may be.
    fn pass(&self) -> usize {
        let mut state = locked(&self.state);
        while state.is_held {
            state = (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
        (state.shaper.profile().segment_bytes).unwrap_or(usize::MAX)
    }
}

/// A relay: whoever connects to it is connected to a service. It ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Closed to end the listener.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Where the service runs.
    host: Host,
    service: Mutex<Option<SocketAddr>>,
    /// Towards the service and back.
    lanes: [Arc<Lane>; 2],
    open: Mutex<Vec<(u64, TcpStream, TcpStream)>>,
}

impl Relay {
    /// An unshaped relay from a free loopback port of this process's own namespace to `service` inside `host`: for whoever looks at a
    /// service from outside.
    ///
    /// # Errors
    /// Those of the system.
    pub fn into_host(host: &Host, service: SocketAddr) -> io::Result<Self> {
        let lane = || Arc::new(Lane::new(LinkProfile::default(), 0));
        let relay = Self::start(host.clone(), [lane(), lane()])?;
        relay.lead_to(service);
        Ok(relay)
    }

    pub(crate) fn start(host: Host, lanes: [Arc<Lane>; 2]) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (woken, stop) = io::pipe()?;
        let shared = Arc::new(Shared {
            host,
            service: Mutex::default(),
            lanes,
            open: Mutex::default(),
        });
        let listening = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("netem-relay".to_owned())
            .spawn(move || listening.listen(&listener, &woken.into()))?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop.into()),
            thread: Some(thread),
        })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads from now on.
    pub(crate) fn lead_to(&self, service: SocketAddr) {
        *locked(&self.shared.service) = Some(service);
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.cut();
        // No writer waits for a fault that nobody will end.
        self.shared.lanes.iter().for_each(|lane| lane.hold(false));
    }
}

impl Shared {
    fn listen(self: &Arc<Self>, listener: &TcpListener, woken: &OwnedFd) {
        for number in 0.. {
            let client = loop {
                let mut sources = [
                    PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                    PollFd::new(woken.as_fd(), PollFlags::POLLIN),
                ];
                let _ = poll(&mut sources, PollTimeout::NONE);
                if sources[1].any() == Some(true) {
                    return;
                }
                if let Ok((client, _)) = listener.accept() {
                    break client;
                }
            };
            if let Err(error) = self.connect(number, client) {
                tracing::debug!(%error, "a relayed connection could not be made");
            }
        }
    }

    /// Joins a client to the service; one that cannot be reached breaks the client's connection.
    fn connect(self: &Arc<Self>, number: u64, client: TcpStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        let nothing = || io::Error::new(io::ErrorKind::NotConnected, "the relay leads nowhere yet");
        let target = locked(&self.service).ok_or_else(nothing)?;
        let service = self.host.within(|| TcpStream::connect(target))??;
        socket2::SockRef::from(&client).set_linger(None)?;
        for stream in [&client, &service] {
            stream.set_nodelay(true)?;
        }
        let ends = (client.try_clone()?, service.try_clone()?);
        locked(&self.open).push((number, ends.0, ends.1));
        let ways = [
            (client.try_clone()?, service.try_clone()?),
            (service, client),
        ];
        let left = Arc::new(());
        for ((from, to), lane) in ways.into_iter().zip(&self.lanes) {
            let (sender, receiver) = sync_channel(PIECES_MAX);
            let (reading, writing) = (Arc::clone(lane), Arc::clone(lane));
            spawn("netem-relay-in", move || take(from, &reading, &sender))?;
            let (shared, left) = (Arc::clone(self), Arc::clone(&left));
            spawn("netem-relay-out", move || {
                give(to, &writing, &receiver);
                // The last one out closes the door.
                if Arc::into_inner(left).is_none() {
                    return;
                }
                locked(&shared.open).retain(|(of, ..)| *of != number);
            })?;
        }
        Ok(())
    }

    fn cut(&self) {
        for (_, client, service) in locked(&self.open).drain(..) {
            for stream in [client, service] {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map(drop)
}

/// Reads until the end, at the lane's rate.
fn take(mut from: TcpStream, lane: &Lane, queue: &SyncSender<(Instant, Vec<u8>)>) {
    let _ = nix::sys::prctl::set_timerslack(1);
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = lane.piece();
        let length = match from.read(&mut buffer[..piece]) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let due = lane.admit(length);
        if queue.send((due, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Writes what is due until the end, and passes the end on.
fn give(mut to: TcpStream, lane: &Lane, queue: &Receiver<(Instant, Vec<u8>)>) {
    let _ = nix::sys::prctl::set_timerslack(1);
    while let Ok((due, bytes)) = queue.recv() {
        let pause = due.saturating_duration_since(clock::now());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let most = lane.pass();
        for part in bytes.chunks(most) {
            if to.write_all(part).is_err() {
                // The other way ends by itself, the reader of this one by this.
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
