//! What the links of a run carried, and how far the run was from what they can carry.

use netem::{Backend, Counters, Direction, LinkProfile, NetemError};
use serde::Serialize;

use super::Links;
use crate::replay::scenario::Link as Which;

/// In the order in which they are reported.
const KINDS: [Which; 3] = [Which::Source, Which::Kafka, Which::Brokers];

/// The links of a run. Units stand in the names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkFigures {
    /// How they were emulated: `tc`, `tun` or `proxy`.
    pub backend: String,
    /// The ways before it, and why they were not possible.
    pub refused: Vec<String>,
    /// Of everything that happened by chance.
    pub seed: u64,
    /// What the hosts' TCP does about congestion.
    pub congestion_control: String,
    /// Each link of the engine's, then each between brokers.
    pub links: Vec<LinkFigure>,
    /// The least time in which the busiest direction could have carried what it carried: bytes on the wire by its rate. None where no
    /// link has a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<f64>,
    /// The run's time by that; none under a load, which takes as long as it is offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_limit: Option<f64>,
}

/// A link of the engine's, or one between brokers, of which the lower-numbered one stands in the engine's place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkFigure {
    /// `source`, `kafka` or `brokers`.
    pub link: Which,
    /// The host at its other end.
    pub host: String,
    /// Between brokers: the one in the engine's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_from: Option<String>,
    /// Towards the engine.
    pub to_engine: WayFigure,
    /// Away from it.
    pub from_engine: WayFigure,
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WayFigure {
    /// In the words of `tc netem`.
    pub profile: String,
    /// Packets that came to the link; with the proxy the pieces that it read.
    pub packets: u64,
    /// Bytes on the wire, IP and TCP headers included; payload alone with the proxy.
    pub bytes: u64,
    /// Packets lost by chance; with tc also those dropped because the queue was full.
    pub lost: u64,
    /// Packets dropped because the queue was full; none are told apart with tc.
    pub overflowed: u64,
    /// Bytes on the wire by the rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<f64>,
}

impl WayFigure {
    fn new(profile: &LinkProfile, before: &Counters, now: &Counters) -> Self {
        let bytes = now.bytes.saturating_sub(before.bytes);
        Self {
            profile: profile.to_string(),
            packets: now.packets.saturating_sub(before.packets),
            bytes,
            lost: now.lost.saturating_sub(before.lost),
            overflowed: now.overflowed.saturating_sub(before.overflowed),
            limit_seconds: (profile.rate_bits).map(|rate| bytes as f64 * 8.0 / rate as f64),
        }
    }
}

/// What the links have carried up to a moment, in the order in which they are reported.
#[derive(Clone, Debug, Default)]
pub struct Carried(Vec<[Counters; 2]>);

impl Carried {
    /// Up to now.
    ///
    /// # Errors
    /// Those of tc.
    pub fn by(links: &Links) -> Result<Self, NetemError> {
        let all = KINDS.into_iter().flat_map(|which| links.of(which));
        let counted = all.map(|(_, link)| {
            let of = |direction| link.counters(direction);
            Ok([of(Direction::Forth)?, of(Direction::Back)?])
        });
        counted.collect::<Result<_, _>>().map(Self)
    }
}

impl LinkFigures {
    /// What the links have carried since `before`, in a run that took `seconds`: brokers that are made ready talk, too.
    ///
    /// # Errors
    /// Those of tc.
    pub fn of(links: &Links, before: &Carried, seconds: f64) -> Result<Self, NetemError> {
        let mut figures = Vec::new();
        let mut counted = Carried::by(links)?.0.into_iter();
        let mut before = before.0.iter();
        for which in KINDS {
            for ([one, other], link) in links.of(which) {
                let now = counted.next().unwrap_or_default();
                let before = before.next().copied().unwrap_or_default();
                let way = |direction| {
                    let at = direction as usize;
                    WayFigure::new(&link.profile(direction), &before[at], &now[at])
                };
                figures.push(LinkFigure {
                    link: which,
                    host: other.to_owned(),
                    seen_from: (which == Which::Brokers).then(|| one.to_owned()),
                    to_engine: way(Direction::Back),
                    from_engine: way(Direction::Forth),
                });
            }
        }
        let ways = figures
            .iter()
            .flat_map(|link| [&link.to_engine, &link.from_engine]);
        let limit_seconds = (ways.filter_map(|way| way.limit_seconds)).max_by(f64::total_cmp);
        let control = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
        Ok(Self {
            backend: links.network().backend().to_string(),
            refused: links
                .network()
                .refused()
                .iter()
                .map(ToString::to_string)
                .collect(),
            seed: links.network().seed(),
            congestion_control: control.unwrap_or_default().trim().to_owned(),
            links: figures,
            limit_seconds,
            times_limit: limit_seconds
                .filter(|limit| *limit > 0.0)
                .map(|limit| seconds / limit),
        })
    }

    /// The same of a run whose time says nothing about its links, because a load was offered at its own pace.
    #[must_use]
    pub fn at_own_pace(self) -> Self {
        Self {
            times_limit: None,
            ..self
        }
    }

    /// Lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "links emulated by {}{}, {}, seed {}",
            self.backend,
            match self.refused.is_empty() {
                true => String::new(),
                false => format!(" ({})", self.refused.join("; ")),
            },
            self.congestion_control,
            self.seed,
        )];
        let backend = self.backend.parse::<Backend>().ok();
        lines.extend(backend.and_then(Backend::caveat).map(str::to_owned));
        for link in &self.links {
            let way = |way: &WayFigure| {
                let megabytes = way.bytes as f64 / 1e6;
                let missing = match way.lost + way.overflowed {
                    0 => String::new(),
                    _ => format!(
                        ", {} lost and {} too many of {} packets",
                        way.lost, way.overflowed, way.packets
                    ),
                };
                format!("{megabytes:.2} MB{missing} over {}", way.profile)
            };
            let one = link.seen_from.as_deref().unwrap_or("the engine");
            lines.push(format!(
                "{}: to {one} {}; from it {}",
                link.host,
                way(&link.to_engine),
                way(&link.from_engine)
            ));
        }
        if let (Some(limit), Some(times)) = (self.limit_seconds, self.times_limit) {
            lines.push(format!(
                "the busiest direction needs {limit:.2} s for its bytes at its rate; the run took {times:.2} times that"
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_run_does_not_count() {
        let counters = |packets, bytes, lost| Counters {
            packets,
            bytes,
            lost,
            ..Counters::default()
        };
        let profile: LinkProfile = "delay 10ms rate 8mbit".parse().unwrap();
        let way = WayFigure::new(
            &profile,
            &counters(10, 1_000, 1),
            &counters(30, 3_001_000, 5),
        );
        assert_eq!((way.packets, way.bytes, way.lost), (20, 3_000_000, 4));
        assert_eq!(way.limit_seconds, Some(3.0));
    }
    #[test]
    fn what_a_way_of_emulation_cannot_show_is_said() {
        let lines = |backend: &str| {
            let figures = LinkFigures {
                backend: backend.to_owned(),
                refused: Vec::new(),
                seed: 1,
                congestion_control: "cubic".to_owned(),
                links: Vec::new(),
                limit_seconds: None,
                times_limit: None,
            };
            figures.lines()
        };
        assert_eq!(lines("tun").len(), 1);
        let proxy = lines("proxy");
        for said in ["neither lose nor reorder", "window", "payload alone"] {
            assert!(proxy[1].contains(said), "{proxy:?}");
        }
        assert!(lines("tc")[1].contains("together"));
    }
}
