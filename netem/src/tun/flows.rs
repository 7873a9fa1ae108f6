//! TCP connections that pass, remembered so that they can be cut: both ends get a reset at the number that they await, as when a
//! firewall between them ends a connection.
//!
//! A reset counts only at the very number that is awaited (RFC 5961); whoever gets another one answers with the right number, and that
//! answer is answered in turn. So a cut reaches both ends whatever was lost before.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::packet::{ACK, RST, SYN, Segment, reset};

/// Connections that are remembered.
const FLOWS_MAX: usize = 4096;

/// One end: address and port.
type End = (Ipv4Addr, u16);

/// All connections of a network.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// By ends, the smaller one first.
    flows: HashMap<(End, End), Flow>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    /// What comes next from the smaller end and from the other.
    next: [Option<u32>; 2],
    is_cut: bool,
}

/// A reset to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reset {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) packet: Vec<u8>,
}

fn key(one: End, other: End) -> ((End, End), usize) {
    match one <= other {
        true => ((one, other), 0),
        false => ((other, one), 1),
    }
}

impl Flows {
    /// A segment passes. Where its connection has been cut it must not, and its sender gets the reset that comes back.
    pub(super) fn pass(
        &mut self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        segment: &Segment,
    ) -> Result<(), Option<Reset>> {
        let (from, to) = ((source, segment.ports.0), (destination, segment.ports.1));
        let (key, side) = key(from, to);
        let opens = segment.flags & (SYN | ACK) == SYN;
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&key) {
            self.flows.retain(|_, flow| flow.is_cut);
        }
        let flow = self.flows.entry(key).or_default();
        if opens {
            *flow = Flow::default();
        }
        if flow.is_cut {
            // A reset is never answered.
            let answerable = segment.flags & RST == 0 && segment.flags & ACK != 0;
            return Err(answerable.then(|| Reset {
                from: destination,
                to: source,
                packet: reset(to, from, segment.acknowledged, None),
            }));
        }
        let next = segment.next_sequence();
        let known = &mut flow.next[side];
        // A repeated segment does not move the end back.
        let is_ahead = known.is_none_or(|known| (next.wrapping_sub(known) as i32) > 0);
        if is_ahead {
            *known = Some(next);
        }
        Ok(())
    }

    /// Cuts every connection between two hosts; the resets for both ends of each.
    pub(super) fn cut(&mut self, one: Ipv4Addr, other: Ipv4Addr) -> Vec<Reset> {
        let mut resets = Vec::new();
        for ((left, right), flow) in &mut self.flows {
            let concerned = [(one, other), (other, one)].contains(&(left.0, right.0));
            if !concerned || flow.is_cut {
                continue;
            }
            flow.is_cut = true;
            for (side, from, to) in [(0, left, right), (1, right, left)] {
                if let Some(next) = flow.next[side] {
                    resets.push(Reset {
                        from: from.0,
                        to: to.0,
                        packet: reset(*from, *to, next, flow.next[1 - side]),
                    });
                }
            }
        }
        resets
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::read;
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

    fn segment(ports: (u16, u16), sequence: u32, payload: usize, flags: u8) -> Segment {
        Segment {
            ports,
            sequence,
            acknowledged: 5000,
            flags,
            payload_at: 0,
            payload,
        }
    }

    #[test]
    fn both_ends_are_reset_at_what_they_await() {
        let mut flows = Flows::default();
        assert!(flows.pass(A, B, &segment((1, 2), 100, 0, SYN)).is_ok());
        assert!(
            flows
                .pass(B, A, &segment((2, 1), 900, 0, SYN | ACK))
                .is_ok()
        );
        assert!(flows.pass(A, B, &segment((1, 2), 101, 50, ACK)).is_ok());
        assert!(flows.pass(A, B, &segment((1, 2), 111, 10, ACK)).is_ok());
        assert!(flows.pass(A, C, &segment((1, 2), 7, 0, SYN)).is_ok());
        let mut resets = flows.cut(B, A);
        resets.sort_by_key(|reset| reset.from);
        let told: Vec<_> = (resets.iter())
            .map(|reset| {
                let facts = read(&reset.packet).unwrap();
                assert_eq!((facts.source, facts.destination), (reset.from, reset.to));
                let tcp = facts.tcp.unwrap();
                (reset.from, tcp.ports, tcp.sequence, tcp.flags & RST)
            })
            .collect();
        assert_eq!(told, [(A, (1, 2), 151, RST), (B, (2, 1), 901, RST)]);
        // Who did not hear it hears it again, at the number that it names.
        let late = flows.pass(B, A, &segment((2, 1), 901, 10, ACK));
        let reset = late.unwrap_err().unwrap();
        let tcp = read(&reset.packet).unwrap().tcp.unwrap();
        assert_eq!((reset.to, tcp.sequence), (B, 5000));
        assert_eq!(
            flows.pass(B, A, &segment((2, 1), 901, 0, RST | ACK)),
            Err(None)
        );
        // Others stay, and the same ports may be used anew.
        assert!(flows.pass(A, C, &segment((1, 2), 8, 1, ACK)).is_ok());
        assert!(flows.pass(A, B, &segment((1, 2), 4, 0, SYN)).is_ok());
        assert!(flows.pass(B, A, &segment((2, 1), 0, 0, SYN | ACK)).is_ok());
    }
}
