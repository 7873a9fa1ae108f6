//! The packet-level emulation in user space: one TUN device per host, each in its own namespace, and threads that carry packets from
//! one to the other through a [`Shaper`] per ordered pair of hosts.
//!
//! ```text
//! host a ─ link0 ─► reader ─► shaper a→b ─┬─ due at once ────────────► link0 ─ host b
//!                                         └─ arrivals of b ─ writer ─►
//! ```
//! What is due at once is written by the reader itself, so an unshaped network costs one read and one write per segment. What is due
//! later waits in the arrivals of its host, whose writer sleeps on the kernel's high-resolution timer; nothing spins.
//!
//! Segments that a host left whole for its card (up to 64 KiB) pass whole; their time on the link follows from all the packets that they
//! stand for. Where a profile treats single packets, they are cut first and their sums completed, and so is a segment that does not fit
//! into the queue, so that only what does not fit is dropped.

mod device;
mod flows;
mod packet;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;
use crate::limits::{HELD_MAX, MTU};
use crate::namespace::Namespace;
use crate::profile::LinkProfile;
use crate::shaper::{Counters, Fate, Shaper};
use crate::{NetemError, network};
use flows::{Flows, Reset};
use packet::{Facts, PACKET_MAX};

/// The device of each host.
const DEVICE: &str = "link0";
/// Packets that wait for a reader before the host's own queue begins.
const DEVICE_QUEUE: &str = "10000";
/// Arrivals longer than this keep the buffer that they were read into.
const COPIED_MAX: usize = 4096;
/// Buffers kept for the next large packets.
const POOLED_MAX: usize = 256;

/// Makes the device of a host and sets it up.
///
/// # Errors
/// Those of the system.
fn attach(namespace: &Namespace, address: Ipv4Addr) -> Result<File, NetemError> {
    let open = || device::open(DEVICE);
    let file = (namespace.within(open))
        .and_then(|opened| opened)
        .map_err(|error| NetemError::system(&"TUN device", error))?;
    let with_prefix = format!("{address}/{}", network::PREFIX_BITS);
    namespace.ip(&["address", "add", &with_prefix, "dev", DEVICE])?;
    let mtu = MTU.to_string();
    namespace.ip(&[
        "link",
        "set",
        DEVICE,
        "mtu",
        &mtu,
        "txqueuelen",
        DEVICE_QUEUE,
        "up",
    ])?;
    Ok(file)
}

/// The running emulation; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Emulator {
    fabric: Arc<Fabric>,
    /// Closed to wake the readers.
    stop: Option<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Fabric {
    ports: Vec<Port>,
    /// From a to b at `a * ports + b`.
    pairs: Vec<Pair>,
    flows: Mutex<Flows>,
    pool: Mutex<Vec<Vec<u8>>>,
    stopped: AtomicBool,
}

/// Where a host is attached.
#[derive(Debug)]
struct Port {
    address: Ipv4Addr,
    device: File,
    arrivals: Mutex<Arrivals>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct Arrivals {
    heap: BinaryHeap<Reverse<Arrival>>,
    number: u64,
}

/// A packet on its way. Ordered by time, then as they came.
#[derive(Debug)]
struct Arrival {
    due: Instant,
    number: u64,
    pair: usize,
    bytes: Vec<u8>,
    length: usize,
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// One direction between two hosts.
#[derive(Debug)]
struct Pair {
    gate: Mutex<Gate>,
    /// Packets in the arrivals of its host.
    queued: AtomicUsize,
}

#[derive(Debug)]
struct Gate {
    shaper: Shaper,
    /// Everything is dropped.
    is_down: bool,
    /// Everything is held.
    is_stalled: bool,
    held: Vec<Vec<u8>>,
    held_bytes: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emulator {
    /// Whether there can be one, tried in a namespace.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn probe(namespace: &Namespace) -> Result<(), NetemError> {
        attach(namespace, network::address(0)).map(drop)
    }

    /// Attaches the hosts, in their order, and starts to carry packets between them.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn start(hosts: &[(&Namespace, Ipv4Addr)], seed: u64) -> Result<Self, NetemError> {
        let mut ports = Vec::with_capacity(hosts.len());
        for (namespace, address) in hosts {
            ports.push(Port {
                address: *address,
                device: attach(namespace, *address)?,
                arrivals: Mutex::default(),
                earlier: Condvar::new(),
            });
        }
        let now = clock::now();
        let pairs = (0..ports.len() * ports.len()).map(|number| Pair {
            gate: Mutex::new(Gate {
                shaper: Shaper::new(
                    LinkProfile::default(),
                    seed.wrapping_add(number as u64),
                    now,
                ),
                is_down: false,
                is_stalled: false,
                held: Vec::new(),
                held_bytes: 0,
            }),
            queued: AtomicUsize::new(0),
        });
        let fabric = Arc::new(Fabric {
            pairs: pairs.collect(),
            ports,
            flows: Mutex::default(),
            pool: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let (woken, stop) = io::pipe().map_err(|error| NetemError::system(&"pipe", error))?;
        let woken = Arc::new(OwnedFd::from(woken));
        let mut emulator = Self {
            fabric: Arc::clone(&fabric),
            stop: Some(OwnedFd::from(stop)),
            threads: Vec::new(),
        };
        for port in 0..hosts.len() {
            let (reading, woken) = (Arc::clone(&fabric), Arc::clone(&woken));
            emulator.spawn(format!("netem-read-{port}"), move || {
                reading.read(port, &woken);
            })?;
            let writing = Arc::clone(&fabric);
            emulator.spawn(format!("netem-write-{port}"), move || writing.write(port))?;
        }
        Ok(emulator)
    }

    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), NetemError> {
        let thread = std::thread::Builder::new().name(name).spawn(work);
        let thread = thread.map_err(|error| NetemError::system(&"thread", error))?;
        self.threads.push(thread);
        Ok(())
    }

    pub(crate) fn set(&self, from: usize, to: usize, profile: LinkProfile) {
        self.fabric.gate(from, to).shaper.set(profile, clock::now());
    }

    pub(crate) fn counters(&self, from: usize, to: usize) -> Counters {
        self.fabric.gate(from, to).shaper.counters
    }

    /// Drops everything, or nothing any more.
    pub(crate) fn down(&self, from: usize, to: usize, is_down: bool) {
        self.fabric.gate(from, to).is_down = is_down;
    }

    /// Holds everything, or lets it go on.
    pub(crate) fn stall(&self, from: usize, to: usize, is_stalled: bool) {
        let mut gate = self.fabric.gate(from, to);
        gate.is_stalled = is_stalled;
        if !is_stalled {
            gate.held_bytes = 0;
            let held = std::mem::take(&mut gate.held);
            for mut bytes in held {
                if let Some(facts) = packet::read(&bytes) {
                    self.fabric.shape(&mut gate, (from, to), &mut bytes, &facts);
                }
            }
        }
    }

    /// Ends every TCP connection between two hosts.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        let ports = &self.fabric.ports;
        let resets = locked(&self.fabric.flows).cut(ports[one].address, ports[other].address);
        for reset in resets {
            self.fabric.send_reset(reset);
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.fabric.stopped.store(true, Ordering::Relaxed);
        self.stop = None;
        for port in &self.fabric.ports {
            // Under the lock, so that no writer is between looking and waiting.
            let _arrivals = locked(&port.arrivals);
            port.earlier.notify_all();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Fabric {
    fn pair(&self, from: usize, to: usize) -> usize {
        from * self.ports.len() + to
    }

    fn gate(&self, from: usize, to: usize) -> MutexGuard<'_, Gate> {
        locked(&self.pairs[self.pair(from, to)].gate)
    }

    fn port(&self, address: Ipv4Addr) -> Option<usize> {
        self.ports.iter().position(|port| port.address == address)
    }

    /// Takes what a host sends until the end.
    fn read(&self, from: usize, woken: &OwnedFd) {
        let mut buffer = vec![0; PACKET_MAX];
        let mut device = &self.ports[from].device;
        while !self.stopped.load(Ordering::Relaxed) {
            match device.read(&mut buffer) {
                Ok(length) => self.carry(from, &mut buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut sources = [
                        PollFd::new(device.as_fd(), PollFlags::POLLIN),
                        PollFd::new(woken.as_fd(), PollFlags::POLLIN),
                    ];
                    let _ = poll(&mut sources, PollTimeout::NONE);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "a host's device cannot be read any more");
                    return;
                }
            }
        }
    }

    /// A packet of a host.
    fn carry(&self, from: usize, bytes: &mut [u8]) {
        // Neighbour discovery and the like: nobody in here needs it.
        let Some(facts) = packet::read(bytes) else {
            return;
        };
        let Some(to) = self.port(facts.destination) else {
            return;
        };
        if let Some(tcp) = &facts.tcp {
            let passes = locked(&self.flows).pass(facts.source, facts.destination, tcp);
            if let Err(reset) = passes {
                self.gate(from, to).shaper.counters.cut += facts.packets as u64;
                if let Some(reset) = reset {
                    self.send_reset(reset);
                }
                return;
            }
        }
        let mut gate = self.gate(from, to);
        if gate.is_down {
            gate.shaper.counters.cut += facts.packets as u64;
        } else if gate.is_stalled {
            match gate.held_bytes + bytes.len() > HELD_MAX {
                true => gate.shaper.counters.overflowed += facts.packets as u64,
                false => {
                    gate.held_bytes += bytes.len();
                    gate.held.push(bytes.to_vec());
                }
            }
        } else {
            self.shape(&mut gate, (from, to), bytes, &facts);
        }
    }

    /// A packet comes to a link.
    fn shape(&self, gate: &mut Gate, way: (usize, usize), bytes: &mut [u8], facts: &Facts) {
        let profile = gate.shaper.profile();
        let (limit, singly) = (profile.segment_bytes, profile.needs_packets());
        if !singly && (limit.is_none() || packet::is_small(facts, limit)) {
            let now = clock::now();
            let is_one = facts.packets == 1;
            match (gate.shaper).admit(facts.wire_bytes, facts.packets, is_one, now) {
                Fate::TooLarge => {}
                fate => return self.meet(fate, way, bytes, now),
            }
        }
        packet::split(bytes, facts, limit, |mut packet| {
            let now = clock::now();
            let wire_bytes = packet.len() - device::HEADER;
            let fate = gate.shaper.admit(wire_bytes, 1, true, now);
            self.meet(fate, way, &mut packet, now);
        });
    }

    fn meet(&self, fate: Fate, way: (usize, usize), bytes: &mut [u8], now: Instant) {
        let Fate::Arrives {
            due,
            twice,
            flipped,
        } = fate
        else {
            return;
        };
        if let Some(random) = flipped {
            let bits = (bytes.len() - device::HEADER) as u64 * 8;
            let bit = (random % bits.max(1)) as usize;
            bytes[device::HEADER + bit / 8] ^= 1 << (bit % 8);
        }
        for _ in 0..=usize::from(twice) {
            self.deliver(way, due, bytes, now);
        }
    }

    /// Writes a packet to its host, now or when it is due. The caller holds the gate of its pair, which keeps the order.
    fn deliver(&self, (from, to): (usize, usize), due: Instant, bytes: &[u8], now: Instant) {
        let port = &self.ports[to];
        let pair = self.pair(from, to);
        let queued = &self.pairs[pair].queued;
        if due <= now && queued.load(Ordering::Acquire) == 0 {
            put(port, bytes);
            return;
        }
        let length = bytes.len();
        let bytes = match length <= COPIED_MAX {
            true => bytes.to_vec(),
            false => {
                let pooled = locked(&self.pool).pop();
                let mut buffer = pooled.unwrap_or_else(|| vec![0; PACKET_MAX]);
                buffer[..length].copy_from_slice(bytes);
                buffer
            }
        };
        queued.fetch_add(1, Ordering::Release);
        let mut arrivals = locked(&port.arrivals);
        let is_next = (arrivals.heap.peek()).is_none_or(|Reverse(next)| due < next.due);
        arrivals.number += 1;
        let number = arrivals.number;
        arrivals.heap.push(Reverse(Arrival {
            due,
            number,
            pair,
            bytes,
            length,
        }));
        drop(arrivals);
        if is_next {
            port.earlier.notify_one();
        }
    }

    fn send_reset(&self, reset: Reset) {
        if let (Some(from), Some(to)) = (self.port(reset.from), self.port(reset.to)) {
            let _gate = self.gate(from, to);
            let now = clock::now();
            // Behind what is on its way: a reset ahead of it would not be at the awaited number.
            let on_its_way = locked(&self.ports[to].arrivals).last_of(self.pair(from, to));
            self.deliver((from, to), on_its_way.unwrap_or(now), &reset.packet, now);
        }
    }

    /// Writes arrivals of a host when they are due.
    fn write(&self, to: usize) {
        // Timers of this thread may not be late for the sake of fewer wake-ups.
        let _ = nix::sys::prctl::set_timerslack(1);
        let port = &self.ports[to];
        let mut due = Vec::new();
        let mut arrivals = locked(&port.arrivals);
        while !self.stopped.load(Ordering::Relaxed) {
            let now = clock::now();
            let mut pause = None;
            while let Some(Reverse(next)) = arrivals.heap.peek() {
                if next.due > now {
                    pause = Some(next.due - now);
                    break;
                }
                due.extend(arrivals.heap.pop());
            }
            if due.is_empty() {
                arrivals = wait(&port.earlier, arrivals, pause);
                continue;
            }
            drop(arrivals);
            for Reverse(arrival) in due.drain(..) {
                put(port, &arrival.bytes[..arrival.length]);
                (self.pairs[arrival.pair].queued).fetch_sub(1, Ordering::Release);
                if arrival.bytes.len() == PACKET_MAX {
                    let mut pool = locked(&self.pool);
                    if pool.len() < POOLED_MAX {
                        pool.push(arrival.bytes);
                    }
                }
            }
            arrivals = locked(&port.arrivals);
        }
    }
}

impl Arrivals {
    /// When the last packet of a pair arrives that is on its way.
    fn last_of(&self, pair: usize) -> Option<Instant> {
        let of_pair = self.heap.iter().filter(|Reverse(next)| next.pair == pair);
        of_pair.map(|Reverse(next)| next.due).max()
    }
}

fn wait<'a>(
    condition: &Condvar,
    arrivals: MutexGuard<'a, Arrivals>,
    pause: Option<Duration>,
) -> MutexGuard<'a, Arrivals> {
    match pause {
        None => (condition.wait(arrivals)).unwrap_or_else(PoisonError::into_inner),
        Some(pause) => {
            let waited = condition.wait_timeout(arrivals, pause);
            waited.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

/// Hands a packet to a host. What it does not take is lost, as on any network.
fn put(port: &Port, bytes: &[u8]) {
    if let Err(error) = (&port.device).write(bytes) {
        tracing::debug!(%error, address = %port.address, "a packet was not taken");
    }
}
