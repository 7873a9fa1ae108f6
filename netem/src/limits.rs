//! What this crate takes at most.

use std::time::Duration;

/// Hosts of one network: their addresses end in the number, and `prio` of tc has 16 bands, one of them for everybody else.
pub const HOSTS_MAX: usize = 15;

/// Longest one-way delay, as kernel netem has it with room for anything on Earth.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// Slowest and fastest rate, bits per second.
pub const RATE_MIN: u64 = 1_000;
/// See [`RATE_MIN`].
pub const RATE_MAX: u64 = 1_000_000_000_000;

/// A queue that is not given: at least so many bytes wait before a link, otherwise what it carries in a round trip.
pub const QUEUE_MIN: usize = 256 << 10;
/// The largest queue.
pub const QUEUE_MAX: usize = 1 << 30;

/// Longest packet of the emulated network, IP header included, as on Ethernet.
pub const MTU: usize = 1500;

/// Shortest IPv4 and TCP headers together.
pub(crate) const HEADERS_MIN: usize = 40;

/// Bytes that a stalled direction holds before it drops.
pub(crate) const HELD_MAX: usize = 64 << 20;

const _: () = assert!(QUEUE_MIN <= QUEUE_MAX && RATE_MIN < RATE_MAX && HOSTS_MAX < 200);
