//! `[link.kafka]`, `[link.source]` and `[link.brokers]` of a scenario.
//!
//! ```toml
//! [link.kafka]
//! delay_ms = 10          # one way
//! rate_mbit = 1000
//! loss_percent = 0.1
//! to_engine = { rate_mbit = 20 }     # over the rest, in this direction; likewise from_engine
//! ```

use std::time::Duration;

use netem::LinkProfile;
use serde::Deserialize;

use crate::replay::scenario::Link;

/// All links of a scenario.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSettings {
    /// Between the engine and each broker.
    #[serde(default)]
    pub kafka: Option<Shapes>,
    /// Between the engine and each source.
    #[serde(default)]
    pub source: Option<Shapes>,
    /// Between each two real brokers: what their replication goes over.
    #[serde(default)]
    pub brokers: Option<Shapes>,
    /// Of everything that happens by chance.
    #[serde(default = "seed")]
    pub seed: u64,
}

fn seed() -> u64 {
    42
}

impl LinkSettings {
    /// Those of a kind.
    #[must_use]
    pub fn shapes(&self, which: Link) -> Option<&Shapes> {
        match which {
            Link::Source => self.source.as_ref(),
            Link::Kafka => self.kafka.as_ref(),
            Link::Brokers => self.brokers.as_ref(),
        }
    }
}

/// Both directions of a link.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct Shapes {
    /// Towards the engine; between brokers towards the lower number.
    pub to_engine: LinkProfile,
    /// Away from it.
    pub from_engine: LinkProfile,
}

/// One direction as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Shape {
    delay_ms: f64,
    jitter_ms: f64,
    rate_mbit: Option<f64>,
    loss_percent: f64,
    reorder_percent: f64,
    duplicate_percent: f64,
    corrupt_percent: f64,
    queue_kib: Option<usize>,
    segment_bytes: Option<usize>,
}

impl Shape {
    fn profile(&self) -> Result<LinkProfile, String> {
        let time = |name: &str, milliseconds: f64| {
            Duration::try_from_secs_f64(milliseconds / 1e3)
                .map_err(|error| format!("{name} = {milliseconds}: {error}"))
        };
        let profile = LinkProfile {
            delay: time("delay_ms", self.delay_ms)?,
            jitter: time("jitter_ms", self.jitter_ms)?,
            rate_bits: self.rate_mbit.map(|rate| (rate * 1e6) as u64),
            loss: self.loss_percent / 100.0,
            reorder: self.reorder_percent / 100.0,
            duplicate: self.duplicate_percent / 100.0,
            corrupt: self.corrupt_percent / 100.0,
            queue_bytes: self.queue_kib.map(|kib| kib.saturating_mul(1024)),
            segment_bytes: self.segment_bytes,
        };
        profile.check().map_err(|error| error.to_string())?;
        Ok(profile)
    }
}

impl TryFrom<toml::Table> for Shapes {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let mut over = |name: &str| match table.remove(name) {
            None => Ok(toml::Table::new()),
            Some(toml::Value::Table(over)) => Ok(over),
            Some(_) => Err(format!("{name}: expected a table")),
        };
        let (to_engine, from_engine) = (over("to_engine")?, over("from_engine")?);
        let profile = |over: toml::Table| {
            let mut all = table.clone();
            all.extend(over);
            let shape = Shape::deserialize(all).map_err(|error| error.to_string())?;
            shape.profile()
        };
        Ok(Self {
            to_engine: profile(to_engine)?,
            from_engine: profile(from_engine)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(text: &str) -> Result<Shapes, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn directions_differ_where_they_say_so() {
        let text = "delay_ms = 200\nrate_mbit = 20\nloss_percent = 1\nto_engine = { rate_mbit = 100, queue_kib = 64 }";
        let shapes = shapes(text).unwrap();
        assert_eq!(
            shapes.from_engine.to_string(),
            "delay 200ms rate 20mbit loss 1%"
        );
        assert_eq!(
            shapes.to_engine.to_string(),
            "delay 200ms rate 100mbit loss 1% queue 65536"
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, named) in [
            ("delay = 1", "delay"),
            ("delay_ms = -1", "delay_ms"),
            ("loss_percent = 200", "loss"),
            ("to_engine = 1", "to_engine"),
            ("from_engine = { rate = 1 }", "rate"),
            ("jitter_ms = 1", "jitter"),
        ] {
            let error = shapes(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
