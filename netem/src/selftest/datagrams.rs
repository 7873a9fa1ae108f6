//! Numbered datagrams over a link: which arrive, how often and in which order, and which of the missing ones the link has nothing to do with.
//!
//! ```text
//! sent ─► came to the link ─► lost by chance? ─► queue ─► … ─► socket ─► arrived
//!    └ the host's queue            │              └ overflowed   └ unread
//!      was full                    └ what the profile promises
//! ```
//! A busy machine keeps threads waiting for longer than queues hold. The link counts what its queue had no room for, and the kernel what the
//! socket had none for (`RcvbufErrors` of `/proc/net/snmp`): neither is the profile's loss. What the kernel dropped because its sum was wrong,
//! which it counts elsewhere, is.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Finding;
use crate::NetemError;
use crate::clock;
use crate::limits::MTU;
use crate::network::{Direction, Host, Link};
use crate::profile::LinkProfile;

/// Payload of a datagram.
const DATAGRAM: usize = 1000;
/// Headers of IP and UDP.
const HEADERS: usize = 28;
/// Between two datagrams at least: what a receiver on a busy machine keeps up with.
const PAUSE_MIN: Duration = Duration::from_micros(100);
/// A link is idle when nothing has come for so long after the last that may.
const SILENCE: Duration = Duration::from_secs(1);
/// What a receiver holds that is not scheduled for a while, where the system lets it have as much.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What the machine itself may lose where nobody counts it.
const MACHINE: f64 = 0.001;

/// What became of numbered datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Datagrams {
    /// Sent.
    pub sent: u32,
    /// Of those, that came to the link.
    pub came: u32,
    /// For which the link's queue had no room.
    pub overflowed: u32,
    /// For which the receiver's socket had no room.
    pub unread: u32,
    /// Arrived, each counted once.
    pub arrived: u32,
    /// Arrived once more.
    pub again: u32,
    /// Arrived behind a later one.
    pub late: u32,
}

/// Sends numbered datagrams, slower than the link, and looks which arrive.
///
/// # Errors
/// Those of the system, of tc, and a kernel that does not count what sockets have no room for.
pub(super) fn measure(
    (from, to): (&Host, &Host),
    (link, direction): (&Link<'_>, Direction),
    profile: &LinkProfile,
    count: u32,
) -> Result<Datagrams, NetemError> {
    let failed = |error| NetemError::system(&"measuring datagrams", error);
    let (before, unread_before) = (link.counters(direction)?, unread(to).map_err(failed)?);
    let found = pass((from, to), profile, count).map_err(failed)?;
    let passed = link.counters(direction)?.since(&before);
    let unread = unread(to).map_err(failed)?.saturating_sub(unread_before);
    let at_most_sent = |packets: u64| u32::try_from(packets).unwrap_or(count).min(count);
    Ok(Datagrams {
        came: at_most_sent(passed.packets),
        overflowed: at_most_sent(passed.overflowed),
        unread: at_most_sent(unread),
        ..found
    })
}

fn bound(host: &Host) -> io::Result<UdpSocket> {
    let address = SocketAddr::from((host.address(), 0));
    host.within(|| UdpSocket::bind(address))?
}

/// Datagrams that the kernel of a host dropped for want of room in sockets.
fn unread(host: &Host) -> io::Result<u64> {
    let counted = host.within(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    buffer_errors(&counted).ok_or_else(|| {
        let reason = format!("/proc/net/snmp: no RcvbufErrors of UDP in {counted:?}");
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })
}

/// Out of a line with names, and one with numbers.
fn buffer_errors(counted: &str) -> Option<u64> {
    let mut lines = counted.lines().filter(|line| line.starts_with("Udp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut columns = names.split_whitespace().zip(numbers.split_whitespace());
    let (_, errors) = columns.find(|(name, _)| *name == "RcvbufErrors")?;
    errors.parse().ok()
}

/// When the next one is due: never in a burst after a moment in which the sender was kept waiting, for which no queue has room.
fn next(due: Instant, now: Instant, pause: Duration) -> Instant {
    due.max(now) + pause
}

fn pass((from, to): (&Host, &Host), profile: &LinkProfile, count: u32) -> io::Result<Datagrams> {
    let (sender, receiver) = (bound(from)?, bound(to)?);
    sender.connect(receiver.local_addr()?)?;
    let _ = socket2::SockRef::from(&receiver).set_recv_buffer_size(RECEIVE_BUFFER);
    receiver.set_read_timeout(Some(profile.delay * 2 + SILENCE))?;
    let (done, finished) = mpsc::channel::<()>();
    let wire = DATAGRAM + HEADERS;
    let pause = profile.serialisation(wire).mul_f64(1.25).max(PAUSE_MIN);
    std::thread::scope(|scope| {
        let counting = scope.spawn(move || counted(&receiver, count, &finished));
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut due = clock::now();
        let mut datagram = [0; DATAGRAM];
        for number in 0..count {
            std::thread::sleep(due.saturating_duration_since(clock::now()));
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            // What the host's own queue has no room for does not come to the link.
            let _ = sender.send(&datagram);
            due = next(due, clock::now(), pause);
        }
        let _ = done.send(());
        (counting.join()).map_err(|_| io::Error::other("the receiver of datagrams panicked"))
    })
}

/// Receives until everything has been sent and nothing comes any more.
fn counted(receiver: &UdpSocket, count: u32, finished: &mpsc::Receiver<()>) -> Datagrams {
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
}

const _: () = assert!(DATAGRAM + HEADERS < MTU);

impl Datagrams {
    /// Every promise of the profile about single packets.
    pub(super) fn judge(&self, way: &str, profile: &LinkProfile) -> Vec<Finding> {
        // A flipped bit makes the sum wrong, so the host drops the packet.
        let lost = 1.0 - (1.0 - profile.loss) * (1.0 - profile.corrupt);
        let twice = profile.duplicate * (1.0 - profile.corrupt);
        // What had no room in the socket may have been the second of two: then nothing is missing for it.
        let missing = self.came.saturating_sub(self.overflowed + self.arrived);
        let surely_lost = missing.saturating_sub(self.unread);
        let perhaps_lost = match profile.duplicate > 0.0 {
            true => missing,
            false => surely_lost,
        };
        let perhaps_again = match profile.duplicate > 0.0 {
            true => self.again + self.unread,
            false => self.again,
        };
        vec![
            part(
                &format!("loss {way}"),
                (surely_lost, perhaps_lost),
                self.came,
                lost,
            ),
            part(
                &format!("duplicates {way}"),
                (self.again, perhaps_again),
                self.arrived,
                twice,
            ),
            self.judge_order(way, profile),
        ]
    }

    /// How many are late depends on how many were on their way when one overtook them.
    fn judge_order(&self, way: &str, profile: &LinkProfile) -> Finding {
        let holds = (self.late > 0) == (profile.reorder > 0.0);
        Finding {
            what: format!("order {way}"),
            promised: match profile.reorder > 0.0 {
                true => "some late".to_owned(),
                false => "none late".to_owned(),
            },
            measured: format!("{} late", self.late),
            holds: Some(holds),
            good: holds,
        }
    }
}

/// That a part of so many is what was promised, where the part lies between `least` and `most`.
fn part(what: &str, (least, most): (u32, u32), of: u32, promised: f64) -> Finding {
    let all = f64::from(of.max(1));
    let tolerance = 5.0 * (promised * (1.0 - promised) / all).sqrt() + MACHINE;
    let (low, high) = (f64::from(least) / all, f64::from(most) / all);
    let holds = of > 0 && low <= promised + tolerance && high >= promised - tolerance;
    let shown = match least == most {
        true => least.to_string(),
        false => format!("{least} to {most}"),
    };
    Finding {
        what: what.to_owned(),
        promised: format!("{:.2} % ± {:.2}", promised * 100.0, tolerance * 100.0),
        measured: format!("{:.2} % ({shown} of {of})", low * 100.0),
        holds: Some(holds),
        good: holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: u32 = 5_000;

    /// Which promises do not hold.
    fn broken(profile: &str, found: Datagrams) -> Vec<String> {
        let findings = found.judge("there", &profile.parse().unwrap());
        let failed = findings
            .into_iter()
            .filter(|finding| finding.holds == Some(false));
        failed.map(|finding| finding.what).collect()
    }

    fn arrived(arrived: u32) -> Datagrams {
        Datagrams {
            sent: SENT,
            came: SENT,
            arrived,
            ..Datagrams::default()
        }
    }

    #[test]
    fn what_the_link_did_not_lose_is_not_its_loss() {
        let plain = "delay 10ms rate 100mbit";
        assert_eq!(broken(plain, arrived(SENT)), [""; 0]);
        for found in [
            Datagrams {
                overflowed: 300,
                ..arrived(SENT - 300)
            },
            Datagrams {
                unread: 300,
                ..arrived(SENT - 300)
            },
            Datagrams {
                came: SENT - 300,
                ..arrived(SENT - 300)
            },
        ] {
            assert_eq!(broken(plain, found), [""; 0], "{found:?}");
        }
    }

    #[test]
    fn what_the_link_lost_and_did_not_promise_is() {
        let plain = "delay 10ms rate 100mbit";
        assert_eq!(broken(plain, arrived(SENT - 300)), ["loss there"]);
        let overflowed = Datagrams {
            overflowed: 300,
            ..arrived(SENT - 400)
        };
        assert_eq!(broken(plain, overflowed), ["loss there"]);
        let unread = Datagrams {
            unread: 300,
            ..arrived(SENT - 400)
        };
        assert_eq!(broken(plain, unread), ["loss there"]);
        // Promised, and not lost.
        assert_eq!(broken("loss 6%", arrived(SENT)), ["loss there"]);
        assert_eq!(broken("loss 6%", arrived(SENT - 300)), [""; 0]);
        assert_eq!(
            broken(plain, Datagrams::default()),
            ["loss there", "duplicates there"]
        );
    }

    #[test]
    fn a_copy_for_which_the_socket_had_no_room_is_no_loss() {
        let twice = "duplicate 4%";
        let found = Datagrams {
            again: 200,
            ..arrived(SENT)
        };
        assert_eq!(broken(twice, found), [""; 0]);
        let unread = Datagrams {
            again: 100,
            unread: 100,
            ..found
        };
        assert_eq!(broken(twice, unread), [""; 0]);
        let never = Datagrams { again: 0, ..found };
        assert_eq!(broken(twice, never), ["duplicates there"]);
        assert_eq!(broken("unshaped", found), ["duplicates there"]);
    }

    #[test]
    fn a_sender_that_was_kept_waiting_sends_no_burst() {
        let (begin, pause) = (clock::now(), Duration::from_micros(100));
        let on_time = next(begin, begin, pause);
        assert_eq!(on_time, begin + pause);
        let late = begin + Duration::from_millis(34);
        assert_eq!(next(on_time, late, pause), late + pause);
        // An early wake-up shortens no pause.
        assert_eq!(next(late, begin, pause), late + pause);
    }

    #[test]
    fn the_kernel_says_what_sockets_had_no_room_for() {
        let counted = "Icmp: InMsgs\nIcmp: 5\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors\n\
            Udp: 4739 0 67 5000 17 0 50\nUdpLite: InDatagrams RcvbufErrors\nUdpLite: 0 3\n";
        assert_eq!(buffer_errors(counted), Some(17));
        assert_eq!(buffer_errors("Udp: InDatagrams\nUdp: 4739\n"), None);
        assert_eq!(buffer_errors(""), None);
    }
}
