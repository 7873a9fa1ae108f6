//! Whether links do what they are told, tried on one of its own before a way of emulation is taken: that a kernel took the commands says
//! little about what it does with packets.
//!
//! ```text
//! nothing passes ─► a delay ─► a rate as well ─► the rate is gone ─► cut, connected again
//! ```
//! No busy machine can spoil it: nothing is early, and where a rate or a chance of before stays, it stays every time.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::plan::{Direction, LinkPlan, Plan};
use super::{NetemError, Network};
use crate::clock;
use crate::profile::LinkProfile;
use crate::tc::is_ended;

/// The hosts at the ends of the link.
const HOSTS: [&str; 2] = ["one", "other"];
/// Of the way there.
const DELAY: Duration = Duration::from_millis(10);
/// Round trips.
const TRIES: usize = 5;
/// The rate for a while, bits per second.
const SLOW_BITS: u64 = 1_000_000;
/// What is sent at that rate: as much as TCP sends at once.
const BYTES: usize = 12_500;
/// How long it takes at least.
const SLOW: Duration = Duration::from_millis(100);
/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(5);

const _: () = assert!(BYTES as u64 * 8 * 1000 == SLOW_BITS * SLOW.as_millis() as u64);

/// What was found.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    /// Shortest time of a byte there and another back.
    round_trip: Duration,
    /// Time of [`BYTES`] at [`SLOW_BITS`].
    slowed: Duration,
    /// Shortest time of as many after that.
    after: Duration,
    /// Counted on the way there.
    counted: u64,
    /// Whether a cut ended both ends.
    ends: [bool; 2],
}

/// Two hosts and a link over which nothing comes until it is told otherwise.
pub(super) fn plan() -> Plan {
    let nothing = LinkProfile {
        loss: 1.0,
        corrupt: 1.0,
        ..LinkProfile::default()
    };
    Plan {
        hosts: HOSTS.map(str::to_owned).to_vec(),
        links: vec![LinkPlan {
            one: HOSTS[0].to_owned(),
            other: HOSTS[1].to_owned(),
            forth: nothing,
            back: LinkProfile::default(),
        }],
        seed: 0,
    }
}

/// Whether the link of a network by [`plan`] does what it is told; if not, what it does.
///
/// # Errors
/// A reason.
pub(super) fn passes(network: &Network) -> Result<(), String> {
    let failed = |error: NetemError| format!("a link that was tried failed: {error}");
    find(network).map_err(failed)?.judge()
}

fn find(network: &Network) -> Result<Found, NetemError> {
    let failed = |error| NetemError::system(&"trying a link", error);
    let link = network.link(HOSTS[0], HOSTS[1])?;
    let delayed = LinkProfile {
        delay: DELAY,
        ..LinkProfile::default()
    };
    link.set(Direction::Forth, delayed)?;
    let mut ends = connected(network).map_err(failed)?;
    let mut shortest = |bytes, tries| {
        let times = (0..tries).map(|_| pass(&mut ends, bytes));
        let times = times.collect::<io::Result<Vec<Duration>>>().map_err(failed);
        times.map(|times| times.into_iter().min().unwrap_or_default())
    };
    let round_trip = shortest(1, TRIES)?;
    link.slow(Direction::Forth, Some(SLOW_BITS))?;
    let slowed = shortest(BYTES, 1)?;
    link.slow(Direction::Forth, None)?;
    let after = shortest(BYTES, TRIES)?;
    let counted = link.counters(Direction::Forth)?.bytes;
    link.cut()?;
    let (near, far) = ends;
    let is_ended = |end| is_ended(end, PATIENCE).map_err(failed);
    let ended = [is_ended(near)?, is_ended(far)?];
    let mut again = connected(network).map_err(failed)?;
    pass(&mut again, 1).map_err(failed)?;
    Ok(Found {
        round_trip,
        slowed,
        after,
        counted,
        ends: ended,
    })
}

/// A connection over the link: its ends on the one host and on the other.
fn connected(network: &Network) -> io::Result<(TcpStream, TcpStream)> {
    let [one, other] = HOSTS.map(|host| network.host(host).map_err(io::Error::other));
    let (one, other) = (one?, other?);
    let listener: TcpListener = other.listen((other.address(), 0).into())?;
    let address = listener.local_addr()?;
    let near = one.within(|| TcpStream::connect_timeout(&address, PATIENCE))??;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_write_timeout(Some(PATIENCE))?;
    }
    Ok((near, far))
}

/// How long so many bytes took there, and one back.
fn pass((near, far): &mut (TcpStream, TcpStream), bytes: usize) -> io::Result<Duration> {
    let start = clock::now();
    near.write_all(&vec![0x5a; bytes])?;
    far.read_exact(&mut vec![0; bytes])?;
    far.write_all(b"!")?;
    near.read_exact(&mut [0])?;
    Ok(start.elapsed())
}

impl Found {
    fn judge(&self) -> Result<(), String> {
        let Self {
            round_trip,
            slowed,
            after,
            counted,
            ends,
        } = self;
        let sent = TRIES + BYTES + TRIES * BYTES;
        let wrong = if *round_trip < DELAY {
            format!("a round trip of {round_trip:?} over a delay of {DELAY:?}")
        } else if *slowed < SLOW {
            format!("{BYTES} bytes in {slowed:?} at {SLOW_BITS} bit/s")
        } else if *after >= SLOW {
            format!("{BYTES} bytes in {after:?} after a rate was taken back")
        } else if *counted < sent as u64 {
            format!("{sent} bytes were carried and {counted} counted")
        } else if *ends != [true; 2] {
            "a cut left an end of a connection".to_owned()
        } else {
            return Ok(());
        };
        Err(format!(
            "a link that was tried does otherwise than it was told: {wrong}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::*;

    const GOOD: Found = Found {
        round_trip: DELAY,
        slowed: SLOW,
        after: Duration::from_millis(99),
        counted: 1_000_000,
        ends: [true; 2],
    };

    #[test]
    fn what_a_link_does_otherwise_is_named() {
        assert_eq!(GOOD.judge(), Ok(()));
        let early = Duration::from_millis(9);
        for (found, named) in [
            (
                Found {
                    round_trip: early,
                    ..GOOD
                },
                "round trip of 9ms",
            ),
            (
                Found {
                    slowed: early,
                    ..GOOD
                },
                "12500 bytes in 9ms at",
            ),
            (
                Found {
                    after: SLOW,
                    ..GOOD
                },
                "after a rate was taken back",
            ),
            (Found { counted: 0, ..GOOD }, "0 counted"),
            (
                Found {
                    ends: [true, false],
                    ..GOOD
                },
                "cut left an end",
            ),
        ] {
            let reason = found.judge().unwrap_err();
            assert!(reason.contains(named), "{reason}");
        }
    }

    /// The trial itself, on links that are known to be good.
    #[test]
    fn links_that_do_what_they_are_told_pass() {
        match Network::open(&plan(), Some(Backend::Tun)) {
            Ok(network) => assert_eq!(passes(&network), Ok(())),
            Err(error) => {
                let is_required = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
                assert!(!is_required, "required in CI: {error}");
                eprintln!("SKIPPED, needs root, iproute2 and /dev/net/tun: {error}");
            }
        }
    }
}
