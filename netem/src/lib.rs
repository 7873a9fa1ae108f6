//! Link emulation: hosts that are network namespaces of this machine, and links between them that are slow, long, lossy or broken,
//! as a profile says and while a test runs.
//!
//! ```text
//!            ┌──────────┐  delay, rate, loss, …  ┌────────┐
//!            │ engine   ├────────────────────────┤ k1     │      tc: kernel netem on veth pairs
//!            │ 10.89…   ├───────────┐            │ 10.89… │      tun: packets carried by this process
//!            └──────────┘           │            └────────┘      proxy: a relay of TCP streams on loopback
//!                                   └── …
//! ```
//! Three ways to do it behind one [`Network`], tried in this order; which one was possible, and why the earlier ones were not, is in
//! [`Network::refused`] and belongs into every report:
//!
//! - `tc` is the kernel's own. It needs root and the module `sch_netem`, which many kernels of containers and small virtual machines
//!   lack.
//! - `tun` needs root and `/dev/net/tun`. Real TCP stacks on both ends, so congestion control, retransmission and window limits are
//!   genuine.
//! - `proxy` needs nothing. It can neither lose nor reorder packets, and hides the sender's window from the receiver.
//!
//! Only addresses inside namespaces that the run made itself, and loopback, are ever used.
//!
//! Layer rule: no project crate. Unsafe code stands in `tun/device.rs` alone.
#![deny(unsafe_code)]

mod clock;
pub mod limits;
mod namespace;
mod network;
mod profile;
mod proxy;
pub mod selftest;
mod shaper;
mod tc;
mod tun;

pub use network::{
    Backend, Direction, Door, Host, Link, LinkPlan, NetemError, Network, Plan, Refusal,
};
pub use profile::{InvalidProfile, LinkProfile};
pub use proxy::Relay;
pub use shaper::Counters;
