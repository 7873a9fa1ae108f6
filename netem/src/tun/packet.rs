//! IPv4 packets as the TUN devices give and take them: what they say, segments cut into packets, sums completed, and resets made.
//!
//! ```text
//! virtio-net header (device.rs) │ IPv4 header, 20 bytes and options │ TCP header, 20 bytes and options │ payload
//! ```
//! Sources: RFC 791, RFC 793, RFC 1071 (the sum), virtio 1.2 section 5.1.6.

use std::net::Ipv4Addr;

use super::device::HEADER;
use crate::limits::{HEADERS_MIN, MTU};

/// Longest packet that a device gives, header of virtio-net included.
pub(super) const PACKET_MAX: usize = HEADER + (64 << 10);

const TCP: u8 = 6;
/// virtio-net: the sum is still to be completed.
const NEEDS_SUM: u8 = 1;
/// virtio-net: a TCP segment over IPv4 larger than a packet; the bit besides it stands for ECN.
const SEGMENTED_TCP4: u8 = 1;
const SEGMENTED_ECN: u8 = 0x80;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// What a packet says, as far as we care. Places are counted from the start of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// From whom.
    pub(super) source: Ipv4Addr,
    /// To whom.
    pub(super) destination: Ipv4Addr,
    /// Where it is one.
    pub(super) tcp: Option<Segment>,
    /// Payload bytes of each packet that it stands for, where it stands for several.
    pub(super) segment_bytes: Option<usize>,
    /// Bytes of the IP packet, all that it stands for, each with its headers.
    pub(super) wire_bytes: usize,
    /// How many packets it stands for.
    pub(super) packets: usize,
}

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Ports: source, destination.
    pub(super) ports: (u16, u16),
    /// Its first byte's number.
    pub(super) sequence: u32,
    /// The next byte that is awaited from the other side, where `ACK` is set.
    pub(super) acknowledged: u32,
    /// Control bits.
    pub(super) flags: u8,
    /// Place of the payload.
    pub(super) payload_at: usize,
    /// Bytes of payload.
    pub(super) payload: usize,
}

impl Segment {
    /// The number of the byte behind it.
    pub(super) fn next_sequence(&self) -> u32 {
        let marks = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.sequence
            .wrapping_add(self.payload as u32)
            .wrapping_add(marks)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

fn header_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*pair))
}

/// Reads a packet with its header of virtio-net; `None` where it is no whole IPv4 packet.
pub(super) fn read(bytes: &[u8]) -> Option<Facts> {
    let ip = HEADER;
    let version = *bytes.get(ip)?;
    let header = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header < 20 || bytes.len() < ip + header {
        return None;
    }
    let total = bytes.len() - ip;
    if usize::from(u16_at(bytes, ip + 2)?) != total {
        return None;
    }
    let address = |at: usize| u32_at(bytes, ip + at).map(Ipv4Addr::from_bits);
    let mut facts = Facts {
        source: address(12)?,
        destination: address(16)?,
        tcp: None,
        segment_bytes: None,
        wire_bytes: total,
        packets: 1,
    };
    // A fragment's ports are only in the first one; our hosts send none.
    let is_fragment = u16_at(bytes, ip + 6)? & 0x3fff != 0;
    if bytes[ip + 9] == TCP && !is_fragment {
        facts.tcp = segment(bytes, ip + header);
    }
    let segmented = bytes[1] & !SEGMENTED_ECN == SEGMENTED_TCP4;
    if let (true, Some(tcp)) = (segmented, &facts.tcp) {
        let each = usize::from(header_u16(bytes, 4)?).max(1);
        let headers = tcp.payload_at - ip;
        facts.segment_bytes = Some(each);
        facts.packets = tcp.payload.div_ceil(each).max(1);
        facts.wire_bytes = tcp.payload + facts.packets * headers;
    }
    Some(facts)
}

fn segment(bytes: &[u8], at: usize) -> Option<Segment> {
    let header = usize::from(*bytes.get(at + 12)? >> 4) * 4;
    let payload_at = at + header;
    if header < 20 || payload_at > bytes.len() {
        return None;
    }
    Some(Segment {
        ports: (u16_at(bytes, at)?, u16_at(bytes, at + 2)?),
        sequence: u32_at(bytes, at + 4)?,
        acknowledged: u32_at(bytes, at + 8)?,
        flags: bytes[at + 13],
        payload_at,
        payload: bytes.len() - payload_at,
    })
}

/// Calls `each` with every packet that this one stands for: payloads of at most `limit` bytes, sums completed, ready for a device.
/// What cannot be cut (no TCP, or small enough) comes as one.
pub(super) fn split(
    bytes: &mut [u8],
    facts: &Facts,
    limit: Option<usize>,
    mut each: impl FnMut(Vec<u8>),
) {
    let most = match (facts.segment_bytes, limit) {
        (Some(each), Some(limit)) => Some(each.min(limit)),
        (one, other) => one.or(other),
    };
    let (Some(most), Some(tcp)) = (most, facts.tcp) else {
        complete_sum(bytes);
        return each(bytes.to_vec());
    };
    if tcp.payload <= most && facts.segment_bytes.is_none() {
        complete_sum(bytes);
        return each(bytes.to_vec());
    }
    let (headers, payload) = bytes.split_at(tcp.payload_at);
    let tcp_at = HEADER + usize::from(headers[HEADER] & 0x0f) * 4;
    let identity = u16::from_be_bytes([headers[HEADER + 4], headers[HEADER + 5]]);
    let count = payload.len().div_ceil(most).max(1);
    for (number, part) in payload.chunks(most).enumerate() {
        let mut packet = Vec::with_capacity(headers.len() + part.len());
        packet.extend_from_slice(headers);
        packet.extend_from_slice(part);
        packet[..HEADER].fill(0);
        let total = (packet.len() - HEADER) as u16;
        packet[HEADER + 2..HEADER + 4].copy_from_slice(&total.to_be_bytes());
        let identity = identity.wrapping_add(number as u16);
        packet[HEADER + 4..HEADER + 6].copy_from_slice(&identity.to_be_bytes());
        let sequence = tcp.sequence.wrapping_add((number * most) as u32);
        packet[tcp_at + 4..tcp_at + 8].copy_from_slice(&sequence.to_be_bytes());
        let mut flags = tcp.flags;
        if number + 1 < count {
            flags &= !(FIN | PSH);
        }
        if number > 0 {
            flags &= !CWR;
        }
        packet[tcp_at + 13] = flags;
        sum_all(&mut packet);
        each(packet);
    }
}

/// Completes a sum that was left to the card.
fn complete_sum(bytes: &mut [u8]) {
    if bytes[0] & NEEDS_SUM == 0 {
        return;
    }
    let from = HEADER + usize::from(header_u16(bytes, 6).unwrap_or_default());
    let at = from + usize::from(header_u16(bytes, 8).unwrap_or_default());
    if at + 2 > bytes.len() {
        return;
    }
    // The field holds the pseudo-header's part already.
    let sum = !folded(added(&bytes[from..]));
    // UDP: a sum of zero is written as its other form, because zero says that there is none.
    let sum = if sum == 0 { 0xffff } else { sum };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes[..HEADER].fill(0);
}

/// Sums of the IP header and the TCP segment, anew.
fn sum_all(packet: &mut [u8]) {
    let ip = HEADER;
    let tcp = ip + usize::from(packet[ip] & 0x0f) * 4;
    packet[ip + 10..ip + 12].fill(0);
    let sum = !folded(added(&packet[ip..tcp]));
    packet[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    packet[tcp + 16..tcp + 18].fill(0);
    let pseudo = added(&packet[ip + 12..ip + 20]) + u64::from(TCP) + (packet.len() - tcp) as u64;
    let sum = !folded(pseudo + added(&packet[tcp..]));
    packet[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Sum of the bytes as big-endian pairs, not folded: of 64 KiB it stays far below 2^64.
fn added(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let pairs: u64 = (pairs.iter())
        .map(|pair| u64::from(u16::from_be_bytes(*pair)))
        .sum();
    pairs + rest.first().map_or(0, |byte| u64::from(*byte) << 8)
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A packet that resets a connection, from one end to the other.
pub(super) fn reset(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    sequence: u32,
    acknowledged: Option<u32>,
) -> Vec<u8> {
    let mut packet = vec![0; HEADER + HEADERS_MIN];
    let ip = HEADER;
    packet[ip] = 0x45;
    packet[ip + 2..ip + 4].copy_from_slice(&(HEADERS_MIN as u16).to_be_bytes());
    // Do not fragment.
    packet[ip + 6] = 0x40;
    packet[ip + 8] = 64;
    packet[ip + 9] = TCP;
    packet[ip + 12..ip + 16].copy_from_slice(&from.0.octets());
    packet[ip + 16..ip + 20].copy_from_slice(&to.0.octets());
    let tcp = ip + 20;
    packet[tcp..tcp + 2].copy_from_slice(&from.1.to_be_bytes());
    packet[tcp + 2..tcp + 4].copy_from_slice(&to.1.to_be_bytes());
    packet[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    packet[tcp + 8..tcp + 12].copy_from_slice(&acknowledged.unwrap_or_default().to_be_bytes());
    packet[tcp + 12] = 0x50;
    packet[tcp + 13] = RST | if acknowledged.is_some() { ACK } else { 0 };
    sum_all(&mut packet);
    packet
}

/// Whether `packet` is one that no splitting is needed for.
pub(super) fn is_small(facts: &Facts, limit: Option<usize>) -> bool {
    let payload = facts.tcp.map_or(0, |tcp| tcp.payload);
    facts.segment_bytes.is_none() && limit.is_none_or(|limit| payload <= limit)
}

const _: () = assert!(MTU > HEADERS_MIN && PACKET_MAX > MTU);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A segment as a host hands it to its card: segmented where `each` says so, the pseudo-header's sum in the field.
    pub(in crate::tun) fn segmented(payload: &[u8], each: Option<u16>, flags: u8) -> Vec<u8> {
        let mut bytes = reset(
            (Ipv4Addr::new(10, 0, 0, 1), 1000),
            (Ipv4Addr::new(10, 0, 0, 2), 2000),
            u32::MAX - 10,
            Some(77),
        );
        bytes.extend_from_slice(payload);
        let total = (bytes.len() - HEADER) as u16;
        bytes[HEADER + 2..HEADER + 4].copy_from_slice(&total.to_be_bytes());
        let tcp = HEADER + 20;
        bytes[tcp + 13] = flags;
        sum_all(&mut bytes);
        let pseudo = added(&bytes[HEADER + 12..HEADER + 20]) + 6 + (bytes.len() - tcp) as u64;
        bytes[tcp + 16..tcp + 18].copy_from_slice(&folded(pseudo).to_be_bytes());
        bytes[0] = NEEDS_SUM;
        bytes[6..8].copy_from_slice(&20u16.to_ne_bytes());
        bytes[8..10].copy_from_slice(&16u16.to_ne_bytes());
        if let Some(each) = each {
            bytes[1] = SEGMENTED_TCP4;
            bytes[4..6].copy_from_slice(&each.to_ne_bytes());
        }
        bytes
    }

    /// RFC 1071 by the letter: words added one by one with the carry brought round at once.
    fn is_summed(bytes: &[u8]) -> bool {
        let ones = |sum: u16, word: u16| {
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        };
        let words = |bytes: &[u8]| {
            bytes.chunks(2).fold(0, |sum, pair| {
                let low = pair.get(1).copied().unwrap_or_default();
                ones(sum, u16::from(pair[0]) << 8 | u16::from(low))
            })
        };
        let (ip, tcp) = bytes[HEADER..].split_at(20);
        let pseudo = ones(ones(words(&ip[12..20]), 6), tcp.len() as u16);
        words(ip) == 0xffff && ones(pseudo, words(tcp)) == 0xffff
    }

    #[test]
    fn segments_are_cut_and_summed() {
        let payload: Vec<u8> = (0..4001u32).map(|n| (n * 7) as u8).collect();
        for limit in [None, Some(1), Some(999), Some(9999)] {
            let mut bytes = segmented(&payload, Some(1448), ACK | PSH | FIN | CWR);
            let facts = read(&bytes).unwrap();
            assert_eq!((facts.packets, facts.wire_bytes), (3, 4001 + 3 * 40));
            let mut packets = Vec::new();
            split(&mut bytes, &facts, limit, |packet| packets.push(packet));
            let each = limit.unwrap_or(1448).min(1448);
            assert_eq!(packets.len(), 4001usize.div_ceil(each));
            let mut whole = Vec::new();
            for (number, packet) in packets.iter().enumerate() {
                assert!(is_summed(packet), "packet {number} of {limit:?}");
                let facts = read(packet).unwrap();
                assert_eq!((facts.packets, facts.segment_bytes), (1, None));
                let tcp = facts.tcp.unwrap();
                let sequence = (u32::MAX - 10).wrapping_add(whole.len() as u32);
                assert_eq!(tcp.sequence, sequence);
                assert_eq!(tcp.acknowledged, 77);
                let is_last = number + 1 == packets.len();
                assert_eq!(tcp.flags & FIN != 0, is_last);
                assert_eq!(tcp.flags & PSH != 0, is_last);
                assert_eq!(tcp.flags & CWR != 0, number == 0);
                whole.extend_from_slice(&packet[tcp.payload_at..]);
            }
            assert_eq!(whole, payload);
        }
    }

    #[test]
    fn a_sum_is_completed() {
        for payload in [&b""[..], b"x", b"hello"] {
            let mut bytes = segmented(payload, None, ACK);
            let facts = read(&bytes).unwrap();
            assert!(is_small(&facts, None) && !is_summed(&bytes));
            let mut packets = Vec::new();
            split(&mut bytes, &facts, None, |packet| packets.push(packet));
            assert_eq!(packets.len(), 1);
            assert!(is_summed(&packets[0]));
            assert_eq!(packets[0][..HEADER], [0; HEADER]);
        }
    }

    #[test]
    fn what_is_no_packet_is_none() {
        let bytes = segmented(b"hello", None, SYN);
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length}");
        }
        let facts = read(&bytes).unwrap();
        assert_eq!(facts.tcp.unwrap().next_sequence(), u32::MAX - 10 + 6);
        let mut six = bytes;
        six[HEADER] = 0x65;
        assert_eq!(read(&six), None);
    }
}
