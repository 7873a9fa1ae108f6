//! LZ4 blocks against another implementation's decoder and against the rules that decoders do not enforce.

use proptest::prelude::*;

use super::*;

/// The block's sequences by the specification, which decoders do not enforce: (literals, match), the last with none.
fn sequences(mut block: &[u8]) -> Vec<(usize, usize)> {
    let length = |nibble: u8, block: &mut &[u8]| {
        let mut length = usize::from(nibble);
        let mut more = nibble == 15;
        while more {
            length += usize::from(block[0]);
            more = block[0] == 255;
            *block = &block[1..];
        }
        length
    };
    let mut found = Vec::new();
    loop {
        let token = block[0];
        block = &block[1..];
        let literals = length(token >> 4, &mut block);
        block = &block[literals..];
        if block.is_empty() {
            assert_eq!(token & 15, 0, "the last token names a match");
            found.push((literals, 0));
            return found;
        }
        block = &block[2..];
        found.push((literals, length(token & 15, &mut block) + MATCH_MIN));
    }
}

/// Compresses `length` bytes of `input` and has a decoder of others read them (liblz4 does in the tests of
/// batches); returns the compressed block.
fn assert_roundtrip(lz4: &mut Lz4, input: &[u8], length: usize, anchors: &[Anchor]) -> Vec<u8> {
    let plain = &input[..length];
    let compressed = lz4
        .compress(input, length, anchors.iter().copied())
        .expect("a block is not too long")
        .to_vec();
    assert!(
        compressed.len() <= length + length / 255 + 16,
        "{length} bytes became {}",
        compressed.len()
    );
    let decoded = lz4_flex::block::decompress(&compressed, length);
    assert_eq!(decoded.as_deref().ok(), Some(plain));
    let found = sequences(&compressed);
    if let [.., (_, last_match), (end, 0)] = found[..] {
        assert!(end >= 5, "{end} literals at the end");
        assert!(end + last_match >= 12, "the last match begins too late");
    }
    compressed
}

fn anchor((at, kind): (u32, u8)) -> Anchor {
    Anchor { at, kind }
}

/// Like the records that we send, with an anchor of each kind in them that is right mostly.
fn records(seed: u64, count: usize) -> (Vec<u8>, Vec<Anchor>) {
    let (mut out, mut anchors) = (Vec::new(), Vec::new());
    let mut noise = seed;
    let mut next = |below: u64| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) % below
    };
    for row in 0..count {
        let shift = next(8).saturating_sub(6) as u32;
        anchors.push(anchor((out.len() as u32 + shift, 0)));
        let (id, word) = (next(100_000), next(50));
        out.extend_from_slice(
            format!("{{\"before\":null,\"after\":{{\"id\":{id},\"name\":\"{word:x}\"}}").as_bytes(),
        );
        anchors.push(anchor((out.len() as u32, 1)));
        let table = row / 30;
        out.extend_from_slice(
            format!(
                ",\"source\":{{\"table\":\"t{table}\",\"file\":\"binlog.{:0>600}\",\"row\":",
                1
            )
            .as_bytes(),
        );
        out.extend_from_slice(next(1000).to_string().as_bytes());
        anchors.push(anchor((out.len() as u32, 2)));
        out.extend_from_slice(b",\"thread\":7,\"query\":null},\"transaction\":null}");
    }
    (out, anchors)
}

#[test]
fn anchors_make_records_no_larger_than_a_twentieth_more() {
    let mut lz4 = Lz4::new();
    let (input, anchors) = records(1, 80);
    let with = assert_roundtrip(&mut lz4, &input, input.len(), &anchors);
    let without = assert_roundtrip(&mut lz4, &input, input.len(), &[]);
    let others = lz4_flex::block::compress(&input);
    for (what, ours) in [("with", with), ("without", without)] {
        assert!(
            ours.len() * 20 <= others.len() * 21,
            "{} bytes {what} anchors, lz4_flex {}",
            ours.len(),
            others.len()
        );
    }
}

#[test]
fn blocks_of_every_small_length_and_around_the_largest() {
    let mut lz4 = Lz4::new();
    let (input, anchors) = records(2, 200);
    let upto = |length: usize| anchors.partition_point(|anchor| (anchor.at as usize) < length);
    for length in (0..700).chain(BLOCK_MAX - 40..=BLOCK_MAX) {
        // With a window behind it and without one.
        assert_roundtrip(&mut lz4, &input, length, &anchors[..upto(length)]);
        assert_roundtrip(&mut lz4, &input[..length], length, &anchors[..upto(length)]);
        assert_roundtrip(&mut lz4, &vec![b'a'; length], length, &[]);
    }
    assert!(
        lz4.compress(&input, BLOCK_MAX + 1, std::iter::empty())
            .is_none()
    );
    assert!(lz4.compress(&input[..9], 10, std::iter::empty()).is_none());
}

#[test]
fn lengths_around_what_a_token_and_its_bytes_hold() {
    let mut lz4 = Lz4::new();
    let mut noise = 7_u32;
    let mut random = |length: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(length)
        .collect()
    };
    let (text, end) = (random(1100), random(30));
    for literals in (0..20).chain(265..275).chain(520..530) {
        for matched in (8..25).chain(268..280).chain(523..535).chain(1030..1045) {
            let between = random(literals);
            let mut input = [&text, &*between, &text[..matched], &end].concat();
            let length = input.len();
            let at = (text.len() + literals) as u32;
            let anchors = [(0, 3), (at, 3)].map(anchor);
            assert_roundtrip(&mut lz4, &input, length, &anchors);
            assert_roundtrip(&mut lz4, &input, length, &[]);
            input.resize(WINDOW_LEN, 0);
            assert_roundtrip(&mut lz4, &input, length, &anchors);
        }
    }
}

#[test]
fn what_lies_behind_a_block_makes_no_difference() {
    let mut lz4 = Lz4::new();
    let (mut input, anchors) = records(3, 200);
    let length = 30_000;
    let count = anchors.partition_point(|anchor| (anchor.at as usize) < length);
    let first = assert_roundtrip(&mut lz4, &input, length, &anchors[..count]);
    input[length..].fill(0);
    let second = assert_roundtrip(&mut lz4, &input, length, &anchors[..count]);
    let alone = assert_roundtrip(&mut lz4, &input[..length], length, &anchors[..count]);
    assert!(first == second && first == alone);
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        (any::<u8>(), 0..2000_usize).prop_map(|(byte, length)| vec![byte; length]),
        (proptest::collection::vec(0..3_u8, 1..20), 0..200_usize)
            .prop_map(|(bytes, times)| bytes.repeat(times)),
        (any::<u64>(), 1..5_usize).prop_map(|(seed, count)| records(seed, count).0),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| {
        let mut bytes = pieces.concat();
        bytes.truncate(BLOCK_MAX);
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_with_any_anchors_survive(
        input in texts(),
        places in proptest::collection::vec((0..70_000_u32, 0..10_u8), 0..200),
    ) {
        let mut anchors: Vec<_> = places.into_iter().map(anchor).collect();
        anchors.sort_by_key(|anchor| anchor.at);
        anchors.retain(|anchor| (anchor.at as usize) < input.len());
        assert_roundtrip(&mut Lz4::new(), &input, input.len(), &anchors);
    }

    #[test]
    fn records_with_anchors_of_their_own_survive(seed in any::<u64>(), count in 0..90_usize, cut in 0..800_usize) {
        let (input, mut anchors) = records(seed, count);
        let length = input.len().saturating_sub(cut).min(BLOCK_MAX);
        anchors.retain(|anchor| (anchor.at as usize) < length);
        assert_roundtrip(&mut Lz4::new(), &input, length, &anchors);
    }
}
