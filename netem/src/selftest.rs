//! Measures a link against its profile: round trip and throughput by TCP, loss, duplicates and order by numbered datagrams.
//!
//! What a busy machine can spoil is only reported; what it cannot is asserted ([`Finding::holds`]): something comes, a round trip is never
//! shorter than twice the delay less the jitter, a link never carries more payload than its rate leaves room for, and parts that are a matter
//! of chance lie within five standard deviations of a binomial distribution, and a thousandth that the machine itself may lose uncounted.

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
/// When nothing has come for so long, over what the delay makes of it, nothing comes.
const SILENCE: Duration = Duration::from_secs(60);
/// Headers of IP and TCP, with the timestamps that Linux puts into every segment.
const HEADERS: usize = 52;
/// A measured throughput may lie above what the rate leaves for payload by this part: it ends at a clock, not at a packet.
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
    let patience = SILENCE + 4 * (options.forth.delay + options.back.delay);
    let round_trip = pings(connected(&network, patience).map_err(failed)?).map_err(failed)?;
    let mut throughput = [0.0; 2];
    for (direction, measured) in [(Direction::Forth, 0), (Direction::Back, 1)] {
        let (near, far) = connected(&network, patience).map_err(failed)?;
        let ends = match direction {
            Direction::Forth => (near, far),
            Direction::Back => (far, near),
        };
        throughput[measured] = bulk(ends, options.bulk).map_err(failed)?;
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

/// A TCP connection between the hosts: its ends on the first and on the second. No read waits for longer than `patience`.
fn connected(network: &Network, patience: Duration) -> io::Result<(TcpStream, TcpStream)> {
    let door = network.door("one", "other", 9).map_err(io::Error::other)?;
    let listener: TcpListener = door.host().listen(door.listen())?;
    door.lead_to(listener.local_addr()?);
    let one = network.host("one").map_err(io::Error::other)?;
    let near = one.connect(door.address())?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
    }
    Ok((near, far))
}

/// Shortest and median round trip.
fn pings((mut near, mut far): (TcpStream, TcpStream)) -> io::Result<(Duration, Duration)> {
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
/// any moment of the middle third to the end. Where nothing came in that third, of all the time; 0 only where nothing came at all.
///
/// The least, since a machine that has just kept the link or the reader waiting hands over what is late all at once: the rate from such a
/// moment lies above what the link let through. A link that is too fast is too fast from every moment.
fn bulk((mut from, mut to): (TcpStream, TcpStream), time: Duration) -> io::Result<f64> {
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
        match to.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => counted += length,
            Err(error) if is_silence(&error) => break,
            Err(error) => return Err(error),
        }
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
    Ok(least_rate(&begins, (last, counted)))
}

/// Whether a read waited for as long as it may.
fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut)
}

/// The least of the rates, bits per second, from any of the moments to the last one; where there is none before that, from the start. A moment
/// comes with the bytes that had come by then.
fn least_rate(begins: &[(Duration, usize)], (last, counted): (Duration, usize)) -> f64 {
    let since = |&(begin, before): &(Duration, usize)| {
        let time = last.saturating_sub(begin);
        (!time.is_zero()).then(|| (counted - before) as f64 * 8.0 / time.as_secs_f64())
    };
    let rates = begins.iter().filter_map(since);
    let least = rates.reduce(f64::min);
    least.or_else(|| since(&(Duration::ZERO, 0))).unwrap_or(0.0)
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
            findings.push(judge_throughput(way, profile, self.backend, throughput));
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
            // One of no time at all is none.
            holds: (!may_overtake || shortest.is_zero())
                .then_some(shortest >= least && !shortest.is_zero()),
            good: !shortest.is_zero() && median <= usual + forth.jitter + back.jitter + ABOVE_DELAY,
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

/// Payload bits per second of a link that carries packets of so much payload at this rate. A relay counts payload alone.
fn payload(profile: &LinkProfile, backend: Backend, rate: f64) -> f64 {
    const PAYLOAD_MAX: usize = MTU - HEADERS;
    let each = profile
        .segment_bytes
        .map_or(PAYLOAD_MAX, |segment| segment.min(PAYLOAD_MAX));
    match backend {
        Backend::Proxy => rate,
        _ => rate * each as f64 / (each + HEADERS) as f64,
    }
}

fn judge_throughput(way: &str, profile: &LinkProfile, backend: Backend, measured: f64) -> Finding {
    let shown = of_payload(measured);
    let Some(rate) = profile.rate_bits.map(|rate| rate as f64) else {
        return Finding {
            what: format!("throughput {way}"),
            promised: "something, without a limit".to_owned(),
            measured: shown,
            holds: Some(measured > 0.0),
            good: measured > 0.0,
        };
    };
    let payload = payload(profile, backend, rate);
    let (least, most) = (payload * (1.0 - BELOW_RATE), payload * (1.0 + ABOVE_RATE));
    let is_lossless = !profile.needs_packets() && profile.segment_bytes.is_none();
    let least = is_lossless.then_some(least);
    Finding {
        what: format!("throughput {way}"),
        promised: format!(
            "{}≤ {:.1} Mbit/s: at {:.1} Mbit/s {:.1} are payload",
            least.map_or(String::new(), |least| format!("≥ {:.1} and ", least / 1e6)),
            most / 1e6,
            rate / 1e6,
            payload / 1e6
        ),
        measured: shown,
        holds: Some(measured > 0.0 && measured <= most),
        good: measured > 0.0 && least.is_none_or(|least| measured >= least),
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
            round_trip: (Duration::from_micros(30), Duration::from_micros(50)),
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

    #[test]
    fn payload_is_held_to_what_headers_leave_of_the_rate() {
        let judged = |profile: &str, backend, measured| {
            judge_throughput("there", &profile.parse().unwrap(), backend, measured)
        };
        // 96.5 Mbit/s of payload fit into 100 in packets of 1,500 bytes.
        let plain = |measured| judged("rate 100mbit", Backend::Tun, measured);
        assert_eq!(plain(98e6).holds, Some(true));
        assert_eq!(
            plain(99e6).holds,
            Some(false),
            "more than there is room for"
        );
        assert!(plain(87e6).good && !plain(86e6).good);
        let promised = "≥ 86.9 and ≤ 98.5 Mbit/s: at 100.0 Mbit/s 96.5 are payload";
        assert_eq!(plain(90e6).promised, promised);
        // A byte of payload takes 53 of the link.
        let bytes = |measured| judged("rate 53mbit segment 1", Backend::Tun, measured);
        assert_eq!(bytes(1.01e6).holds, Some(true));
        assert_eq!(bytes(1.03e6).holds, Some(false));
        assert!(bytes(1.0).good, "no promise of how much");
        // A relay knows no headers.
        assert_eq!(
            judged("rate 100mbit", Backend::Proxy, 101e6).holds,
            Some(true)
        );
    }
    #[test]
    fn a_link_that_carries_nothing_holds_no_promise() {
        let nothing = Measured {
            backend: Backend::Tun,
            refused: Vec::new(),
            round_trip: (Duration::ZERO, Duration::ZERO),
            throughput: [0.0; 2],
            datagrams: Some([Datagrams::default(); 2]),
            counters: [Counters::default(); 2],
        };
        for profile in [
            "unshaped",
            "rate 100mbit",
            "segment 1",
            "delay 1ms reorder 1%",
        ] {
            let profile = profile.parse().unwrap();
            let findings = nothing.judge(&profile, &profile, None);
            let failed = |what: &str| {
                let found = findings.iter().find(|finding| finding.what == what);
                found.is_some_and(|finding| finding.holds == Some(false) && !finding.good)
            };
            for what in ["round trip", "throughput there", "throughput back"] {
                assert!(failed(what), "{profile}: {findings:#?}");
            }
        }
    }

    #[test]
    fn a_rate_is_nought_only_where_nothing_came() {
        let at = Duration::from_millis;
        let begins = [(at(500), 1_000), (at(600), 3_000)];
        // 1,000 bytes in the last 400 ms are less than 3,000 in the last 500.
        assert_eq!(least_rate(&begins, (at(1_000), 4_000)), 20_000.0);
        // The reader slept through the middle third.
        assert_eq!(least_rate(&[], (at(1_000), 4_000)), 32_000.0);
        // The last read was the one of the only moment.
        assert_eq!(least_rate(&[(at(500), 4_000)], (at(500), 4_000)), 64_000.0);
        assert_eq!(least_rate(&[], (Duration::ZERO, 0)), 0.0);
    }
}
