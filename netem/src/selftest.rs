//! Measures a link against its profile: round trip and throughput by TCP, loss, duplicates and order by numbered datagrams.
//!
//! What a busy machine can spoil is only reported; what it cannot is asserted ([`Finding::holds`]): a round trip is never shorter than
//! twice the delay less the jitter, a link never carries more than its rate, and parts that are a matter of chance lie within five
//! standard deviations of a binomial distribution, and a thousandth that the machine itself may lose.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use crate::clock;
use crate::limits::MTU;
use crate::network::{Backend, Direction, Host, LinkPlan, NetemError, Network, Plan};
use crate::profile::LinkProfile;
use crate::shaper::Counters;

/// Round trips that are measured, unless they take too long.
const PINGS: u32 = 50;
/// For so long at most.
const PINGS_FOR: Duration = Duration::from_secs(3);
/// Payload of a datagram.
const DATAGRAM: usize = 1000;
/// Between two datagrams at least: what a receiver on a busy machine keeps up with.
const DATAGRAM_PAUSE: Duration = Duration::from_micros(20);
/// A link is idle when nothing has come for so long after the last that may.
const SILENCE: Duration = Duration::from_millis(500);
/// What a receiver holds that is not scheduled for a while.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What the machine itself may lose.
const MACHINE: f64 = 0.001;
/// A measured throughput may lie above the rate by this part: it ends at a clock, not at a packet.
const ABOVE_RATE: f64 = 0.02;
/// How far below rate and above delay a good measurement lies, for the report.
const BELOW_RATE: f64 = 0.10;
const ABOVE_DELAY: Duration = Duration::from_millis(2);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The link there.
    pub forth: LinkProfile,
    /// The link back.
    pub back: LinkProfile,
    /// Only this way of emulation.
    pub backend: Option<Backend>,
    /// Of chance.
    pub seed: u64,
    /// Throughput is measured for so long in each direction.
    pub bulk: Duration,
    /// Datagrams sent in each direction.
    pub datagrams: u32,
}

/// What was found out.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The way of emulation.
    pub backend: Backend,
    /// Why not an earlier one, a line each.
    pub refused: Vec<String>,
    /// Shortest and median round trip of a byte.
    pub round_trip: (Duration, Duration),
    /// Payload bits per second there and back.
    pub throughput: [f64; 2],
    /// What became of the datagrams; the proxy carries none.
    pub datagrams: Option<[Datagrams; 2]>,
    /// What the emulation counted there and back.
    pub counters: [Counters; 2],
}

/// What became of numbered datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Datagrams {
    /// Sent.
    pub sent: u32,
    /// Arrived, each counted once.
    pub arrived: u32,
    /// Arrived once more.
    pub again: u32,
    /// Arrived behind a later one.
    pub late: u32,
}

/// One promise of the profile, and what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Which promise.
    pub what: String,
    /// What the profile promises, with the tolerance.
    pub promised: String,
    /// What was measured.
    pub measured: String,
    /// Whether it holds, for what no busy machine can spoil.
    pub holds: Option<bool>,
    /// Whether it is as good as it should be on an idle machine.
    pub good: bool,
}

/// Makes two hosts and a link, and measures it.
///
/// # Errors
/// [`NetemError`].
pub fn run(options: &Options) -> Result<Measured, NetemError> {
    let plan = Plan {
        hosts: vec!["one".to_owned(), "other".to_owned()],
        links: vec![LinkPlan {
            one: "one".to_owned(),
            other: "other".to_owned(),
            forth: options.forth.clone(),
            back: options.back.clone(),
        }],
        seed: options.seed,
    };
    let network = Network::open(&plan, options.backend)?;
    let failed = |error| NetemError::system(&"measuring", error);
    let round_trip = pings(&network).map_err(failed)?;
    let mut throughput = [0.0; 2];
    for (direction, measured) in [(Direction::Forth, 0), (Direction::Back, 1)] {
        throughput[measured] = bulk(&network, direction, options.bulk).map_err(failed)?;
    }
    let datagrams = match network.backend() {
        Backend::Proxy => None,
        _ => {
            let measure = |direction, profile: &LinkProfile| {
                let (from, to) = ends(&network, direction)?;
                Ok(datagrams(from, to, profile, options.datagrams))
            };
            let there = measure(Direction::Forth, &options.forth)?.map_err(failed)?;
            let back = measure(Direction::Back, &options.back)?.map_err(failed)?;
            Some([there, back])
        }
    };
    let link = network.link("one", "other")?;
    Ok(Measured {
        backend: network.backend(),
        refused: network.refused().iter().map(ToString::to_string).collect(),
        round_trip,
        throughput,
        datagrams,
        counters: [
            link.counters(Direction::Forth)?,
            link.counters(Direction::Back)?,
        ],
    })
}

fn ends(network: &Network, direction: Direction) -> Result<(&Host, &Host), NetemError> {
    let (one, other) = (network.host("one")?, network.host("other")?);
    Ok(match direction {
        Direction::Forth => (one, other),
        Direction::Back => (other, one),
    })
}

/// A TCP connection between the hosts: its ends on the first and on the second.
fn connected(network: &Network) -> io::Result<(TcpStream, TcpStream)> {
    let door = network.door("one", "other", 9).map_err(io::Error::other)?;
    let listener: TcpListener = door.host().listen(door.listen())?;
    door.lead_to(listener.local_addr()?);
    let one = network.host("one").map_err(io::Error::other)?;
    let near = one.connect(door.address())?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    Ok((near, far))
}

/// Shortest and median round trip.
fn pings(network: &Network) -> io::Result<(Duration, Duration)> {
    let (mut near, mut far) = connected(network)?;
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
    });
    let mut times = Vec::new();
    let start = clock::now();
    for _ in 0..PINGS {
        let sent = clock::now();
        near.write_all(b"!")?;
        near.read_exact(&mut [0])?;
        times.push(sent.elapsed());
        if start.elapsed() > PINGS_FOR {
            break;
        }
    }
    drop(near);
    let _ = echo.join();
    times.sort();
    Ok((times[0], times[times.len() / 2]))
}

/// Payload bits per second that arrive in the last third of the time and more, when the connection is up to speed: the least of the rates from
/// any moment of the middle third to the end.
///
/// The least, since a machine that has just kept the link or the reader waiting hands over what is late all at once: the rate from such a
/// moment lies above what the link let through. A link that is too fast is too fast from every moment.
fn bulk(network: &Network, direction: Direction, time: Duration) -> io::Result<f64> {
    let (near, far) = connected(network)?;
    let (mut from, mut to) = match direction {
        Direction::Forth => (near, far),
        Direction::Back => (far, near),
    };
    let stopper = from.try_clone()?;
    let sender = std::thread::spawn(move || {
        let piece = vec![0x5a; 1 << 20];
        while from.write_all(&piece).is_ok() {}
    });
    let start = clock::now();
    let mut buffer = vec![0; 1 << 20];
    // Moments after reads, each with the bytes that had come by then.
    let mut begins: Vec<(Duration, usize)> = Vec::new();
    let (mut last, mut counted) = (Duration::ZERO, 0);
    while last < time {
        let length = to.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        counted += length;
        last = start.elapsed();
        if last > time / 3 && last < time * 2 / 3 {
            begins.push((last, counted));
        }
    }
    // Not in order: what is on its way would still have to arrive.
    for stream in [&stopper, &to] {
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    drop((stopper, to));
    let _ = sender.join();
    let rates = (begins.iter())
        .map(|&(begin, before)| (counted - before) as f64 * 8.0 / (last - begin).as_secs_f64());
    Ok(rates.reduce(f64::min).unwrap_or(0.0))
}

/// Sends numbered datagrams, slower than the link, and looks which arrive.
fn datagrams(from: &Host, to: &Host, profile: &LinkProfile, count: u32) -> io::Result<Datagrams> {
    let bind = |host: &Host| -> io::Result<UdpSocket> {
        let address = SocketAddr::from((host.address(), 0));
        host.within(|| UdpSocket::bind(address))?
    };
    let (sender, receiver) = (bind(from)?, bind(to)?);
    sender.connect(receiver.local_addr()?)?;
    let _ = socket2::SockRef::from(&receiver).set_recv_buffer_size(RECEIVE_BUFFER);
    let patience = profile.delay * 2 + SILENCE;
    receiver.set_read_timeout(Some(patience))?;
    let (done, finished) = mpsc::channel::<()>();
    let counting = std::thread::spawn(move || {
        let mut seen = vec![false; count as usize];
        let mut found = Datagrams {
            sent: count,
            ..Datagrams::default()
        };
        let mut highest = 0;
        let mut buffer = [0; DATAGRAM];
        loop {
            match receiver.recv(&mut buffer) {
                Ok(DATAGRAM) => {
                    let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
                    let Some(seen) = seen.get_mut(number as usize) else {
                        continue;
                    };
                    match std::mem::replace(seen, true) {
                        true => found.again += 1,
                        false => {
                            found.arrived += 1;
                            found.late += u32::from(number < highest);
                        }
                    }
                    highest = highest.max(number);
                }
                Ok(_) => {}
                // Silence counts once everything has been sent.
                Err(_) if finished.try_recv().is_ok() => return found,
                Err(_) => {}
            }
        }
    });
    let wire = DATAGRAM + 28;
    let pause = profile
        .serialisation(wire)
        .mul_f64(1.25)
        .max(DATAGRAM_PAUSE);
    let _ = nix::sys::prctl::set_timerslack(1);
    let start = clock::now();
    let mut datagram = [0; DATAGRAM];
    for number in 0..count {
        let due = start + pause * number;
        let early = due.saturating_duration_since(clock::now());
        if !early.is_zero() {
            std::thread::sleep(early);
        }
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        // A full queue of the host counts as the machine's own loss.
        let _ = sender.send(&datagram);
    }
    let _ = done.send(());
    (counting.join()).map_err(|_| io::Error::other("the receiver of datagrams panicked"))
}

const _: () = assert!(DATAGRAM < MTU);

impl Measured {
    /// Every promise of the profiles and what was measured.
    #[must_use]
    pub fn judge(&self, forth: &LinkProfile, back: &LinkProfile) -> Vec<Finding> {
        let mut findings = vec![self.judge_round_trip(forth, back)];
        for (number, (way, profile)) in [("there", forth), ("back", back)].into_iter().enumerate() {
            findings.push(judge_throughput(way, profile, self.throughput[number]));
            if let Some(datagrams) = &self.datagrams {
                findings.extend(judge_datagrams(way, profile, &datagrams[number]));
            }
        }
        findings
    }

    fn judge_round_trip(&self, forth: &LinkProfile, back: &LinkProfile) -> Finding {
        let least = (forth.delay - forth.jitter) + (back.delay - back.jitter);
        let usual = forth.delay + back.delay;
        let (shortest, median) = self.round_trip;
        // An overtaking packet is not delayed at all.
        let may_overtake = forth.reorder + back.reorder > 0.0;
        Finding {
            what: "round trip".to_owned(),
            promised: format!("≥ {least:?}, median within {ABOVE_DELAY:?} of {usual:?}"),
            measured: format!("shortest {shortest:.2?}, median {median:.2?}"),
            holds: (!may_overtake).then_some(shortest >= least),
            good: median <= usual + forth.jitter + back.jitter + ABOVE_DELAY,
        }
    }
}

fn judge_throughput(way: &str, profile: &LinkProfile, measured: f64) -> Finding {
    let shown = format!("{:.1} Mbit/s of payload", measured / 1e6);
    let Some(rate) = profile.rate_bits.map(|rate| rate as f64) else {
        return Finding {
            what: format!("throughput {way}"),
            promised: "no limit".to_owned(),
            measured: shown,
            holds: None,
            good: true,
        };
    };
    let payload = rate * (MTU - 52) as f64 / MTU as f64;
    let is_lossless = !profile.needs_packets() && profile.segment_bytes.is_none();
    Finding {
        what: format!("throughput {way}"),
        promised: format!(
            "≤ {:.1} Mbit/s, of which {:.1} are payload",
            rate / 1e6,
            payload / 1e6
        ),
        measured: shown,
        holds: Some(measured <= rate * (1.0 + ABOVE_RATE)),
        good: !is_lossless || measured >= payload * (1.0 - BELOW_RATE),
    }
}

fn judge_datagrams(way: &str, profile: &LinkProfile, found: &Datagrams) -> Vec<Finding> {
    let part = |what: &str, count: u32, of: u32, promised: f64| {
        let of = f64::from(of.max(1));
        let tolerance = 5.0 * (promised * (1.0 - promised) / of).sqrt() + MACHINE;
        let measured = f64::from(count) / of;
        let holds = (measured - promised).abs() <= tolerance;
        Finding {
            what: format!("{what} {way}"),
            promised: format!("{:.2} % ± {:.2}", promised * 100.0, tolerance * 100.0),
            measured: format!("{:.2} % ({count} of {of})", measured * 100.0),
            holds: Some(holds),
            good: holds,
        }
    };
    // A flipped bit makes the sum wrong, so the host drops the packet.
    let lost = 1.0 - (1.0 - profile.loss) * (1.0 - profile.corrupt);
    let mut findings = vec![
        part("loss", found.sent - found.arrived, found.sent, lost),
        part(
            "duplicates",
            found.again,
            found.arrived,
            profile.duplicate * (1.0 - profile.corrupt),
        ),
    ];
    // How many are late depends on how many were on their way when one overtook them.
    findings.push(Finding {
        what: format!("order {way}"),
        promised: match profile.reorder > 0.0 {
            true => "some late".to_owned(),
            false => "none late".to_owned(),
        },
        measured: format!("{} late", found.late),
        holds: Some((found.late > 0) == (profile.reorder > 0.0)),
        good: (found.late > 0) == (profile.reorder > 0.0),
    });
    findings
}
