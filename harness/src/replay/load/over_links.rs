//! What a commit takes over emulated links beyond what they need by themselves.
//!
//! ```text
//! server ── one way ──► engine ── one way ──► broker's log
//!                         ◄──── one way ─── acknowledged
//! ```
//! Without the engine, a commit could be acknowledged after one way from the source and a round trip to the broker. Both are measured on the
//! run's own links right before the engine starts. The answer's way back is the link's alone: what a row takes to the broker's log over the
//! two ways there is what it takes to acknowledged over the round trip.

use serde::Serialize;

use super::Failure;
use crate::links::Links;
use crate::links::round_trip::RoundTrip;
use crate::replay::report::Percentiles;
use crate::replay::scenario::Link;

/// The links of a load, and what was over them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OverLinks {
    /// Between the source and the engine, where that link is emulated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RoundTrip>,
    /// Between the engine and the broker, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<RoundTrip>,
    /// One way from the source, and to the broker and back: the least in which a commit can be acknowledged.
    pub round_trip_ms: f64,
    /// From sending COMMIT to acknowledged, over that; none where no row was timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_ms: Option<Percentiles>,
}

impl OverLinks {
    /// Measures the links; blocking.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn measure(links: &Links) -> Result<Self, Failure> {
        let of = |which| links.measure(which);
        Ok(Self::new(of(Link::Source)?, of(Link::Kafka)?))
    }

    fn new(source: Option<RoundTrip>, kafka: Option<RoundTrip>) -> Self {
        let from_source = source.map_or(0.0, |link| link.to_engine_ms);
        Self {
            source,
            kafka,
            round_trip_ms: from_source + kafka.map_or(0.0, |link| link.round_trip_ms),
            commit_ms: None,
        }
    }

    /// With what rows took from COMMIT to the broker's log.
    pub(super) fn with(self, to_log: &Percentiles) -> Self {
        let ways = [
            self.source.map(|link| link.to_engine_ms),
            self.kafka.map(|link| link.from_engine_ms),
        ];
        let there: f64 = ways.into_iter().flatten().sum();
        Self {
            commit_ms: Some(to_log.over(there)),
            ..self
        }
    }

    /// A line for people.
    pub(in crate::replay) fn line(&self) -> String {
        let source =
            (self.source).map(|link| format!("{:.2} ms from the source", link.to_engine_ms));
        let kafka =
            (self.kafka).map(|link| format!("{:.2} ms to the broker and back", link.round_trip_ms));
        let ways: Vec<String> = source.into_iter().chain(kafka).collect();
        format!(
            "until a commit is acknowledged the links need {:.2} ms by themselves: {}",
            self.round_trip_ms,
            ways.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(to_engine_ms: f64, from_engine_ms: f64) -> RoundTrip {
        RoundTrip {
            to_engine_ms,
            from_engine_ms,
            round_trip_ms: to_engine_ms + from_engine_ms,
            median_round_trip_ms: 100.0,
        }
    }

    const TO_LOG: Percentiles = Percentiles {
        p50: 31.0,
        p90: 32.0,
        p99: 33.0,
        p999: 34.0,
        max: 35.0,
    };

    #[test]
    fn a_commit_needs_one_way_and_a_round_trip() {
        let both = OverLinks::new(Some(link(20.0, 1.0)), Some(link(5.0, 10.0)));
        assert_eq!(both.round_trip_ms, 35.0);
        // What was measured ends at the broker: its answer's 5 ms are in neither.
        let over = both.with(&TO_LOG).commit_ms.unwrap();
        assert_eq!((over.p50, over.p99, over.max), (1.0, 3.0, 5.0));
        let line = both.line();
        assert!(
            line.contains("35.00 ms") && line.contains("20.00 ms from the source"),
            "{line}"
        );
    }

    #[test]
    fn a_link_that_is_not_emulated_needs_nothing() {
        let kafka = OverLinks::new(None, Some(link(5.0, 10.0)));
        assert_eq!(kafka.round_trip_ms, 15.0);
        assert_eq!(kafka.with(&TO_LOG).commit_ms.unwrap().p50, 21.0);
        let source = OverLinks::new(Some(link(20.0, 1.0)), None);
        assert_eq!(source.round_trip_ms, 20.0);
        assert_eq!(source.with(&TO_LOG).commit_ms.unwrap().p50, 11.0);
        assert!(!source.line().contains("broker"), "{}", source.line());
    }
}
