//! Whether the stream of packets is compressed, decided once per source: by the URL, or by how far away the server is.
//!
//! A near server's stream costs less than compressing it; over a long line bytes are what the stream waits for. The round trip
//! is that of TCP's handshake, which the peer's kernel answers: how long a busy server takes to greet is no distance. What is behind
//! a tunnel or a proxy on this machine cannot be seen so, and counts as near; there the URL says it.

use std::fmt;
use std::time::Duration;

use protocol::mysql::compress::Algorithm;
use protocol::mysql::handshake::capability;

use crate::config::WireCompression;

/// A server whose round trip is longer is far.
const FAR: Duration = Duration::from_millis(20);

/// The level where zstd is asked for by name: the default of MySQL's own clients (`zstd-compression-level`).
const ZSTD_LEVEL: u8 = 3;

/// The level over a far line, which a packet of 16 KiB (the server's `net_buffer_length`) needs 6 % fewer bytes with: the line
/// waits, not the server, which still compresses more than 40 MB of binlog a second.
const FAR_ZSTD_LEVEL: u8 = 6;

/// What a connection does, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What the packets are compressed by.
    pub algorithm: Option<Algorithm>,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Asked,
    /// The round trip as it was measured, and whether a far server offers less than would be used.
    Auto {
        round_trip: Duration,
        lacks: Lacks,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Nothing,
    Zstd,
    Both,
}

/// What was asked for by name, and is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOffered(pub(super) Algorithm);

impl Choice {
    /// Before the server has said what it offers.
    pub(super) const OFF: Self = Self {
        algorithm: None,
        reason: Reason::Asked,
    };

    /// What to do with a server of these [`capability`] bits. `Auto` goes by `round_trip`, that of the source's first connection.
    ///
    /// # Errors
    /// What is asked for by name is not offered.
    pub(super) fn new(
        wanted: WireCompression,
        capabilities: u32,
        round_trip: Duration,
    ) -> Result<Self, NotOffered> {
        let zstd = Algorithm::Zstd { level: ZSTD_LEVEL };
        let offers = |algorithm| capabilities & bit(algorithm) != 0;
        let asked = |algorithm| {
            Ok(Self {
                algorithm,
                reason: Reason::Asked,
            })
        };
        match wanted {
            WireCompression::Off => asked(None),
            WireCompression::Zstd if offers(zstd) => asked(Some(zstd)),
            WireCompression::Zlib if offers(Algorithm::Zlib) => asked(Some(Algorithm::Zlib)),
            WireCompression::Zstd => Err(NotOffered(zstd)),
            WireCompression::Zlib => Err(NotOffered(Algorithm::Zlib)),
            WireCompression::Auto => {
                let zstd = Algorithm::Zstd {
                    level: FAR_ZSTD_LEVEL,
                };
                let (algorithm, lacks) = match (round_trip > FAR, offers(zstd)) {
                    (false, _) => (None, Lacks::Nothing),
                    (true, true) => (Some(zstd), Lacks::Nothing),
                    (true, false) if offers(Algorithm::Zlib) => {
                        (Some(Algorithm::Zlib), Lacks::Zstd)
                    }
                    (true, false) => (None, Lacks::Both),
                };
                let reason = Reason::Auto { round_trip, lacks };
                Ok(Self { algorithm, reason })
            }
        }
    }
}

/// The capability that both sides must name.
pub(super) const fn bit(algorithm: Algorithm) -> u32 {
    match algorithm {
        Algorithm::Zlib => capability::COMPRESS,
        Algorithm::Zstd { .. } => capability::ZSTD_COMPRESSION,
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.algorithm {
            Some(algorithm) => write!(f, "{algorithm}: ")?,
            None => f.write_str("off: ")?,
        }
        match self.reason {
            Reason::Asked => f.write_str("as the url says"),
            Reason::Auto { round_trip, lacks } => {
                let (round_trip, far) = (round_trip.as_secs_f64() * 1e3, FAR.as_millis());
                let compared = match round_trip > far as f64 {
                    true => "over",
                    false => "not over",
                };
                write!(
                    f,
                    "the round trip of {round_trip:.1} ms is {compared} {far} ms"
                )?;
                f.write_str(match lacks {
                    Lacks::Nothing => "",
                    Lacks::Zstd => ", and the server does not offer zstd",
                    Lacks::Both => {
                        ", but the server offers no compression (MySQL: protocol_compression_algorithms)"
                    }
                })
            }
        }
    }
}

impl fmt::Display for NotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(algorithm) = self;
        write!(
            f,
            "the server does not offer {algorithm} compression; on MySQL from 8.0.18 run SET PERSIST \
             protocol_compression_algorithms = 'zstd,zlib,uncompressed' (MariaDB has zlib alone), or connect with \
             ?compression=auto"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: u32 = capability::COMPRESS | capability::ZSTD_COMPRESSION;

    fn auto(capabilities: u32, round_trip_ms: u64) -> String {
        let round_trip = Duration::from_millis(round_trip_ms);
        Choice::new(WireCompression::Auto, capabilities, round_trip)
            .unwrap()
            .to_string()
    }

    #[test]
    fn auto_compresses_to_a_far_server_with_the_best_that_it_offers() {
        for (capabilities, expected) in [
            (BOTH, "zstd: the round trip of 400.0 ms is over 20 ms"),
            (
                capability::COMPRESS,
                "zlib: the round trip of 400.0 ms is over 20 ms, and the server does not offer zstd",
            ),
            (
                0,
                "off: the round trip of 400.0 ms is over 20 ms, but the server offers no compression \
                 (MySQL: protocol_compression_algorithms)",
            ),
        ] {
            assert_eq!(auto(capabilities, 400), expected);
        }
        assert_eq!(
            auto(BOTH, 20),
            "off: the round trip of 20.0 ms is not over 20 ms"
        );
        assert!(auto(BOTH, 21).starts_with("zstd: "));
    }

    #[test]
    fn a_far_line_gets_more_of_the_servers_time_than_one_that_is_asked_for_by_name() {
        let level = |wanted| {
            let choice = Choice::new(wanted, BOTH, Duration::from_millis(400)).unwrap();
            choice.algorithm.map(Algorithm::level)
        };
        assert_eq!(level(WireCompression::Auto), Some(6));
        assert_eq!(level(WireCompression::Zstd), Some(3));
    }

    #[test]
    fn what_is_asked_by_name_is_had_or_refused() {
        let near = Duration::from_millis(1);
        let choose = |wanted, capabilities| Choice::new(wanted, capabilities, near);
        let zstd = choose(WireCompression::Zstd, BOTH).unwrap();
        assert_eq!(zstd.to_string(), "zstd: as the url says");
        let zlib = choose(WireCompression::Zlib, BOTH).unwrap();
        assert_eq!(zlib.algorithm, Some(Algorithm::Zlib));
        let off = choose(WireCompression::Off, BOTH).unwrap();
        assert_eq!(off.to_string(), "off: as the url says");
        let refused = choose(WireCompression::Zstd, capability::COMPRESS).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("the server does not offer zstd")
        );
        assert!(choose(WireCompression::Zlib, 0).is_err());
    }
}
