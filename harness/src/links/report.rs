//! What the links of a run carried, and how far the run was from what they can carry.

use netem::{Counters, Direction, LinkProfile, NetemError};
use serde::Serialize;

use super::Links;
use crate::replay::scenario::Link as Which;

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
    /// Each link of the engine's.
    pub links: Vec<LinkFigure>,
    /// The least time in which the busiest direction could have carried what it carried: bytes on the wire by its rate. None where no
    /// link has a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<f64>,
    /// The run's time by that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_limit: Option<f64>,
}

/// A link of the engine's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkFigure {
    /// `source` or `kafka`.
    pub link: Which,
    /// The host at its other end.
    pub host: String,
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
    /// Packets that came to the link.
    pub packets: u64,
    /// Bytes on the wire, IP and TCP headers included; payload alone with the proxy.
    pub bytes: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets dropped because the queue was full.
    pub overflowed: u64,
    /// Bytes on the wire by the rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<f64>,
}

impl WayFigure {
    fn new(profile: &LinkProfile, counters: &Counters) -> Self {
        Self {
            profile: profile.to_string(),
            packets: counters.packets,
            bytes: counters.bytes,
            lost: counters.lost,
            overflowed: counters.overflowed,
            limit_seconds: (profile.rate_bits)
                .map(|rate| counters.bytes as f64 * 8.0 / rate as f64),
        }
    }
}

impl LinkFigures {
    /// What the links have carried so far, in a run that took `seconds`.
    ///
    /// # Errors
    /// Those of tc.
    pub fn of(links: &Links, seconds: f64) -> Result<Self, NetemError> {
        let mut figures = Vec::new();
        for which in [Which::Source, Which::Kafka] {
            for (host, link) in links.of(which) {
                let way = |direction| {
                    let counters = link.counters(direction)?;
                    Ok::<_, NetemError>(WayFigure::new(&link.profile(direction), &counters))
                };
                figures.push(LinkFigure {
                    link: which,
                    host: host.to_owned(),
                    to_engine: way(Direction::Back)?,
                    from_engine: way(Direction::Forth)?,
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
            lines.push(format!(
                "{}: to the engine {}; from it {}",
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
