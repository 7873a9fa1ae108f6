//! Measures a link against its profile: round trip and throughput by TCP, loss, duplicates and order by numbered datagrams.
//!
//! What a busy machine can spoil is only reported; what it cannot is asserted ([`Finding::holds`]): a round trip is never shorter than
//! twice the delay less the jitter, a link never carries more than its rate, and parts that are a matter of chance lie within five
//! standard deviations of a binomial distribution, and a thousandth that the machine itself may lose uncounted.

mod datagrams;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::clock;
use crate::limits::MTU;
use crate::network::{Backend, Direction, Host, LinkPlan, NetemError, Network, Plan};
use crate::profile::LinkProfile;
use crate::shaper::Counters;
pub use datagrams::Datagrams;

/// Round trips that are measured, unless they take too long.
const PINGS: u32 = 50;
/// For so long at most.
const PINGS_FOR: Duration = Duration::from_secs(3);
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
    let link = network.link("one", "other")?;
    let datagrams = match network.backend() {
        Backend::Proxy => None,
        _ => {
            let measure = |direction, profile: &LinkProfile| {
                let hosts = ends(&network, direction)?;
                datagrams::measure(hosts, (&link, direction), profile, options.datagrams)
            };
            let there = measure(Direction::Forth, &options.forth)?;
            let back = measure(Direction::Back, &options.back)?;
            Some([there, back])
        }
    };
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

impl Measured {
    /// Every promise of the profiles and what was measured; `at_least` so many payload bits per second are asked of each direction besides.
    #[must_use]
    pub fn judge(
        &self,
        forth: &LinkProfile,
        back: &LinkProfile,
        at_least: Option<u64>,
    ) -> Vec<Finding> {
        let mut findings = vec![self.judge_round_trip(forth, back)];
        for (number, (way, profile)) in [("there", forth), ("back", back)].into_iter().enumerate() {
            let throughput = self.throughput[number];
            findings.push(judge_throughput(way, profile, throughput));
            findings.extend(at_least.map(|least| judge_least(way, least as f64, throughput)));
            if let Some(datagrams) = &self.datagrams {
                findings.extend(datagrams[number].judge(way, profile));
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

/// What was asked for besides the profile; a busy machine can always be the reason that it is less.
fn judge_least(way: &str, least: f64, measured: f64) -> Finding {
    Finding {
        what: format!("least throughput {way}"),
        promised: format!("≥ {}", of_payload(least)),
        measured: of_payload(measured),
        holds: None,
        good: measured >= least,
    }
}

fn of_payload(bits: f64) -> String {
    format!("{:.1} Mbit/s of payload", bits / 1e6)
}

fn judge_throughput(way: &str, profile: &LinkProfile, measured: f64) -> Finding {
    let shown = of_payload(measured);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_besides_the_profile_is_judged() {
        let measured = Measured {
            backend: Backend::Tun,
            refused: Vec::new(),
            round_trip: (Duration::ZERO, Duration::ZERO),
            throughput: [7.9e9, 8.1e9],
            datagrams: None,
            counters: [Counters::default(); 2],
        };
        let plain = LinkProfile::default();
        let not_good = |at_least| {
            let findings = measured.judge(&plain, &plain, at_least);
            assert!(findings.iter().all(|finding| finding.holds != Some(false)));
            let off = findings.into_iter().filter(|finding| !finding.good);
            off.map(|finding| finding.what).collect::<Vec<_>>()
        };
        assert_eq!(not_good(None), [""; 0]);
        assert_eq!(not_good(Some(8_000_000_000)), ["least throughput there"]);
    }
}
