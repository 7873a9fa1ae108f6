//! `harness`: replays recorded streams of real servers and proves what arrived.

fn main() {}
