//! What a link takes by itself: single bytes to and fro over the very link that the engine will use, timed at both ends. Both ends are
//! threads of this process, so one clock times them and each way is known, not only their sum.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use netem::{Door, Host};
use serde::Serialize;

use crate::clock;

/// Bytes that go to and fro, unless they take too long.
const PINGS: usize = 20;
/// For so long at most.
const PINGS_FOR: Duration = Duration::from_secs(3);
/// A link on which a byte takes longer is none to measure.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a byte takes over a link, in milliseconds: the shortest of several, so that nothing of what is over it is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct RoundTrip {
    pub to_engine_ms: f64,
    pub from_engine_ms: f64,
    /// There and back.
    pub round_trip_ms: f64,
    /// The median of the same.
    pub median_round_trip_ms: f64,
}

impl RoundTrip {
    /// Between `engine` and the host behind `door`; blocking.
    ///
    /// # Errors
    /// Those of the system, and bytes that do not come.
    pub(super) fn measure(engine: &Host, door: &Door) -> io::Result<Self> {
        let (mut near, far) = connected(engine, door)?;
        let echo = std::thread::spawn(move || echo(far));
        let mut pings = Vec::with_capacity(PINGS);
        let start = clock::now();
        while pings.len() < PINGS && (pings.is_empty() || start.elapsed() < PINGS_FOR) {
            let sent = clock::now();
            near.write_all(b"!")?;
            near.read_exact(&mut [0])?;
            pings.push((sent, clock::now()));
        }
        drop(near);
        let turned = (echo.join()).map_err(|_| io::Error::other("the echo panicked"))?;
        // The echo noted every byte that came back.
        let of = |time: fn(Instant, Instant, Instant) -> Duration| -> Vec<Duration> {
            let all = pings.iter().zip(&turned);
            let mut all: Vec<Duration> =
                (all.map(|((sent, back), there)| time(*sent, *there, *back))).collect();
            all.sort_unstable();
            all
        };
        let round_trips = of(|sent, _, back| back - sent);
        let shortest = |times: &[Duration]| times.first().copied().unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(Self {
            to_engine_ms: ms(shortest(&of(|_, there, back| back - there))),
            from_engine_ms: ms(shortest(&of(|sent, there, _| there - sent))),
            round_trip_ms: ms(shortest(&round_trips)),
            median_round_trip_ms: ms(round_trips[round_trips.len() / 2]),
        })
    }
}

/// A connection as the engine's: its end on the engine's host, and the other.
fn connected(engine: &Host, door: &Door) -> io::Result<(TcpStream, TcpStream)> {
    let listener: TcpListener = door.host().listen(door.listen())?;
    door.lead_to(listener.local_addr()?);
    let near = engine.connect(door.address())?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((near, far))
}

/// Sends every byte back; when each came.
fn echo(mut far: TcpStream) -> Vec<Instant> {
    let mut came = Vec::with_capacity(PINGS);
    let mut byte = [0];
    while far.read_exact(&mut byte).is_ok() {
        came.push(clock::now());
        if far.write_all(&byte).is_err() {
            break;
        }
    }
    came
}

#[cfg(test)]
mod tests {
    use netem::{Backend, Direction};

    use super::super::passage::tests::network;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn both_ways_of_a_link_are_measured() {
        for backend in [Backend::Tun, Backend::Proxy] {
            let Some(network) = network(backend) else {
                continue;
            };
            let link = network.link("engine", "source").unwrap();
            let slower = "delay 5ms".parse().unwrap();
            link.set(Direction::Back, slower).unwrap();
            let door = network.door("engine", "source", 9).unwrap();
            let engine = network.host("engine").unwrap();
            let measured = tokio::task::block_in_place(|| RoundTrip::measure(engine, &door));
            let measured = measured.unwrap();
            // Never shorter than the link; how much longer is the machine's matter.
            assert!(measured.from_engine_ms >= 1.0, "{measured:?}");
            assert!(measured.to_engine_ms >= 5.0, "{measured:?}");
            assert!(measured.round_trip_ms >= 6.0, "{measured:?}");
            assert!(
                measured.median_round_trip_ms >= measured.round_trip_ms,
                "{measured:?}"
            );
            assert!(
                measured.round_trip_ms + 1e-6 >= measured.from_engine_ms + measured.to_engine_ms,
                "{measured:?}"
            );
        }
    }
}
