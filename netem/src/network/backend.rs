//! The ways of emulation, and why one was not possible.

use std::fmt;
use std::str::FromStr;

/// A way of emulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's `tc netem`.
    Tc,
    /// Packets carried by this process between TUN devices.
    Tun,
    /// A relay of TCP streams.
    Proxy,
}

impl Backend {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Tc, Self::Tun, Self::Proxy];

    /// What figures over links of this way do not mean, for a report: clauses, where there is something to say.
    #[must_use]
    pub fn caveat(self) -> Option<&'static str> {
        match self {
            Self::Tc => Some(
                "the kernel counts what was lost by chance together with what a queue had no room for, its chance is not the seed's, and a \
                 stall loses packets",
            ),
            Self::Tun => None,
            Self::Proxy => Some(
                "a relay of streams can neither lose nor reorder packets, and answers each end itself, so that neither sees the other's window; \
                 bytes are payload alone, and packets the pieces that the relay read",
            ),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tc => "tc",
            Self::Tun => "tun",
            Self::Proxy => "proxy",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.to_string() == text);
        found.ok_or_else(|| format!("{text:?}: expected tc, tun or proxy"))
    }
}

/// A way that was not possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub backend: Backend,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.reason)
    }
}
