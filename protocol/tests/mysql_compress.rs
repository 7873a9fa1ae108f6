//! Wire compression against foreign codecs, at every chunking, and damaged.
//!
//! What is read was written by the compression libraries and framed here; what is written is read by mysql_common. A failure
//! prints proptest's seed.

use std::io::Write as _;

use mysql_common::proto::codec::{Compression, PacketCodec};
use proptest::prelude::*;
use protocol::DecodeError;
use protocol::limits::MYSQL_PACKET_MAX;
use protocol::mysql::compress::{Algorithm, Compressor, Decompressor, HEADER_LENGTH};
use protocol::mysql::packet;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Zlib, Algorithm::Zstd { level: 3 }];

/// One compressed packet, as a server would send it.
fn frame(algorithm: Algorithm, part: &[u8], sequence: u8, stored: bool, wire: &mut Vec<u8>) {
    let payload = match (stored, algorithm) {
        (true, _) => part.to_vec(),
        (false, Algorithm::Zlib) => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        }
        (false, Algorithm::Zstd { level }) => zstd::stream::encode_all(part, level.into()).unwrap(),
    };
    let original = if stored { 0 } else { part.len() };
    wire.extend_from_slice(&payload.len().to_le_bytes()[..3]);
    wire.push(sequence);
    wire.extend_from_slice(&original.to_le_bytes()[..3]);
    wire.extend_from_slice(&payload);
}

/// Reads `wire` as it comes, `chunk` bytes at a time, into buffers of `room` bytes.
fn read(
    algorithm: Algorithm,
    wire: &[u8],
    chunk: usize,
    room: usize,
) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Decompressor::new(algorithm).unwrap();
    let (mut received, mut all) = (Vec::new(), Vec::new());
    for read in wire.chunks(chunk) {
        received.extend_from_slice(read);
        loop {
            let mut out = Vec::with_capacity(room);
            let used = reader.read(&received, &mut out)?;
            received.drain(..used);
            if out.is_empty() {
                break;
            }
            all.append(&mut out);
        }
    }
    Ok(all)
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    // Runs of one byte compress, noise does not.
    let run = (any::<u8>(), 0_usize..2000).prop_map(|(byte, length)| vec![byte; length]);
    let noise = prop::collection::vec(any::<u8>(), 0..2000);
    prop::collection::vec(prop_oneof![run, noise], 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_packets_in_any_chunks(
        content in content(),
        lengths in prop::collection::vec((1_usize..4000, any::<bool>()), 1..8),
        chunk in 1_usize..5000,
        room in 1_usize..5000,
    ) {
        for algorithm in ALGORITHMS {
            let (mut wire, mut rest, mut sequence) = (Vec::new(), content.as_slice(), 0_u8);
            for (length, stored) in lengths.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, behind) = rest.split_at(rest.len().min(*length));
                frame(algorithm, part, sequence, *stored, &mut wire);
                sequence = sequence.wrapping_add(1);
                rest = behind;
            }
            prop_assert_eq!(read(algorithm, &wire, chunk, room), Ok(content.clone()));
        }
    }

    #[test]
    fn mysql_common_reads_what_we_write(content in content()) {
        let mut packets = Vec::new();
        packet::write(&mut packets, &mut 0, &content);
        let mut wire = Vec::new();
        Compressor::new(Algorithm::Zlib).write(&packets, &mut wire);
        let mut codec = PacketCodec::default();
        codec.compress(Compression::default());
        let (mut source, mut payload) = (bytes::BytesMut::from(wire.as_slice()), Vec::new());
        prop_assert!(codec.decode(&mut source, &mut payload).unwrap());
        prop_assert_eq!(payload, content);
    }
}

#[test]
fn packets_of_16_mib_split_over_compressed_packets() {
    // A payload in two packets; compressed packets end in the first one's header, in its middle and in the second one's header.
    let payload: Vec<u8> = (0..MYSQL_PACKET_MAX + 1000)
        .map(|i| (i / 7) as u8)
        .collect();
    let mut packets = Vec::new();
    packet::write(&mut packets, &mut 0, &payload);
    for algorithm in ALGORITHMS {
        let (mut wire, mut from) = (Vec::new(), 0);
        let ends = [2, 1 << 20, MYSQL_PACKET_MAX + 6, packets.len()];
        for (sequence, to) in ends.into_iter().enumerate() {
            frame(
                algorithm,
                &packets[from..to],
                sequence as u8,
                false,
                &mut wire,
            );
            from = to;
        }
        for (chunk, room) in [
            (1 << 16, 1 << 18),
            (wire.len(), packets.len()),
            (4099, 70_001),
        ] {
            let got = read(algorithm, &wire, chunk, room).unwrap();
            assert!(
                got == packets,
                "{algorithm}, chunks of {chunk}, room of {room}"
            );
        }
    }
}

#[test]
fn every_cut_and_flip_is_noticed_or_harmless() {
    /// What one compressed packet holds.
    const PART: usize = 300;
    let content = b"INSERT, UPDATE and DELETE ".repeat(30);
    for algorithm in ALGORITHMS {
        let mut wire = Vec::new();
        for (sequence, part) in content.chunks(PART).enumerate() {
            frame(algorithm, part, sequence as u8, sequence == 1, &mut wire);
        }
        for cut in 0..wire.len() {
            // What is there is a beginning of what was sent.
            let got = read(algorithm, &wire[..cut], 64, 100).unwrap();
            assert!(content.starts_with(&got), "{algorithm} cut at {cut}");
        }
        // The second packet is stored as it is: neither its payload nor its length are protected by anything.
        let first = usize::from(u16::from_le_bytes([wire[0], wire[1]]));
        let stored = first + HEADER_LENGTH..first + 2 * HEADER_LENGTH + PART;
        let (mut flips, mut noticed) = (0, 0);
        for at in (0..wire.len()).filter(|at| !stored.contains(at)) {
            for mask in [0x01, 0x80, 0xff] {
                let mut flipped = wire.clone();
                flipped[at] ^= mask;
                flips += 1;
                match read(algorithm, &flipped, 64, 100) {
                    Err(error) => {
                        assert!(error.what.starts_with("compressed packet"), "{error}");
                        assert!(error.at <= wire.len() as u64, "{error}");
                        noticed += 1;
                    }
                    // A last packet that claims to be longer is waited for. zstd frames carry no checksum here: the events' own notices.
                    Ok(got) => assert!(
                        match algorithm {
                            Algorithm::Zlib => content.starts_with(&got),
                            Algorithm::Zstd { .. } => got.len() <= content.len(),
                        },
                        "{algorithm} byte {at}"
                    ),
                }
            }
        }
        assert!(noticed > flips / 3, "{algorithm}: {noticed} of {flips}");
    }
}

#[test]
fn a_bomb_yields_what_its_header_says_and_no_more() {
    for algorithm in ALGORITHMS {
        let mut wire = Vec::new();
        frame(algorithm, &vec![0; 10 << 20], 0, false, &mut wire);
        // It says 1000 bytes.
        wire[4..7].copy_from_slice(&[0xe8, 0x03, 0]);
        let error = read(algorithm, &wire, 1 << 16, 4096).unwrap_err();
        assert!(
            error.to_string().contains("is over the limit of 1000"),
            "{error}"
        );
    }
}
