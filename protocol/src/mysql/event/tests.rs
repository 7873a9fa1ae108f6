//! Event decoding: kinds, checksums, damage.

use super::*;

/// An event of `kind` with `body` and a right checksum.
fn event(kind: Kind, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_LENGTH + body.len() + 4) as u32;
    let mut bytes = 1_700_000_000_u32.to_le_bytes().to_vec();
    bytes.push(kind.0);
    bytes.extend(7_u32.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(1234_u32.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend_from_slice(body);
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn format() -> Format {
    Format::before_description(Checksum::Crc32)
}

#[test]
fn a_rotate_and_every_byte_of_it_flipped() {
    let bytes = event(
        Kind::ROTATE,
        FLAG_ARTIFICIAL,
        b"\x04\0\0\0\0\0\0\0binlog.000002",
    );
    let (header, message) = Message::parse(&format(), &bytes).unwrap();
    assert_eq!(header.server_id, 7);
    let expected = Rotate {
        artificial: true,
        position: 4,
        file: "binlog.000002",
    };
    assert_eq!(message, Message::Rotate(expected));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            Message::parse(&format(), &damaged).unwrap_err();
        }
    }
    for cut in 0..bytes.len() {
        Message::parse(&format(), &bytes[..cut]).unwrap_err();
    }
}

#[test]
fn unknown_events_pass_only_with_the_ignorable_flag() {
    let bytes = event(Kind(99), FLAG_IGNORABLE, b"x");
    assert_eq!(
        Message::parse(&format(), &bytes).unwrap().1,
        Message::Ignorable
    );
    let error = Message::parse(&format(), &event(Kind(99), 0, b"x")).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Unsupported { value: 99 });
}

#[test]
fn a_wide_heartbeat() {
    let mut body = b"\x01\x06binlog\x02\x09\xfe".to_vec();
    body.extend((5_u64 << 32).to_le_bytes());
    body.push(0);
    let bytes = event(Kind::HEARTBEAT_V2, 0, &body);
    let expected = Heartbeat {
        file: "binlog",
        position: 5 << 32,
        wide: true,
    };
    assert_eq!(
        Message::parse(&format(), &bytes).unwrap().1,
        Message::Heartbeat(expected)
    );
}

#[test]
fn an_xid_and_an_xa_prepare() {
    let bytes = event(Kind::XID, 0, &77_u64.to_le_bytes());
    assert_eq!(
        Message::parse(&format(), &bytes).unwrap().1,
        Message::Xid(77)
    );
    let body = b"\0\x01\0\0\0\x02\0\0\0\x01\0\0\0ggb";
    let bytes = event(Kind::XA_PREPARE, 0, body);
    let Message::XaPrepare(xa) = Message::parse(&format(), &bytes).unwrap().1 else {
        panic!("not an XA_PREPARE");
    };
    assert_eq!(
        (xa.global, xa.branch, xa.one_phase),
        (&b"gg"[..], &b"b"[..], false)
    );
}
