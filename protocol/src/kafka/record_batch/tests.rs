//! Record batches against an independent implementation (the `kafka-protocol` crate), against damage, and against their own bound.

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as foreign;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Plain {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn plain_records() -> impl Strategy<Value = Vec<Plain>> {
    let bytes = |most: usize| {
        prop_oneof![
            Just(None),
            proptest::collection::vec(any::<u8>(), 0..most).prop_map(Some),
            (0..most, any::<u8>()).prop_map(|(length, byte)| Some(vec![byte; length])),
        ]
    };
    let header = ("[a-z_.]{0,12}", bytes(80));
    let record = (
        0_i64..100_000,
        bytes(100),
        bytes(10_000),
        proptest::collection::vec(header, 0..4),
    );
    let record = record.prop_map(|(after, key, value, mut headers)| {
        // The foreign implementation keeps headers in a map.
        headers.sort();
        headers.dedup_by(|a, b| a.0 == b.0);
        Plain {
            timestamp_ms: 1_700_000_000_000 + after,
            key,
            value,
            headers,
        }
    });
    proptest::collection::vec(record, 1..40).prop_map(|mut records| {
        // The foreign implementation counts from the earliest timestamp, the Java client and we from the first.
        records[0].timestamp_ms = 1_700_000_000_000;
        records
    })
}

fn build(builder: &mut Builder, records: &[Plain]) -> Vec<u8> {
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| Header {
                name,
                value: value.as_deref(),
            })
            .collect();
        builder
            .append(
                record.timestamp_ms,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
            .unwrap();
    }
    let bound = builder.encoded_len_bound();
    let mut batch = builder.finish().unwrap();
    assert!(
        batch.len() <= bound,
        "{} over the bound {bound}",
        batch.len()
    );
    stamp(&mut batch, 4711, 3, 100).unwrap();
    batch
}

fn to_foreign(records: &[Plain]) -> Vec<foreign::Record> {
    let record = |(i, record): (usize, &Plain)| foreign::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: 4711,
        producer_epoch: 3,
        timestamp_type: foreign::TimestampType::Creation,
        offset: i as i64,
        sequence: 100 + i as i32,
        timestamp: record.timestamp_ms,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    StrBytes::from_string(name.clone()),
                    value.clone().map(Bytes::from),
                )
            })
            .collect::<IndexMap<_, _>>(),
    };
    records.iter().enumerate().map(record).collect()
}

fn foreign_encode(records: &[Plain], compression: foreign::Compression) -> Vec<u8> {
    let mut out = BytesMut::new();
    let options = foreign::RecordEncodeOptions {
        version: 2,
        compression,
    };
    foreign::RecordBatchEncoder::encode(&mut out, &to_foreign(records), &options).unwrap();
    out.to_vec()
}

const FOREIGN: [foreign::Compression; 5] = [
    foreign::Compression::None,
    foreign::Compression::Gzip,
    foreign::Compression::Snappy,
    foreign::Compression::Lz4,
    foreign::Compression::Zstd,
];

fn assert_same(batch: &[u8], records: &[Plain]) {
    let mut decoder = Decoder::new();
    let (header, decoded) = decoder.decode(batch).unwrap().unwrap();
    assert_eq!(header.encoded_len(), batch.len());
    assert_eq!(
        (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence
        ),
        (4711, 3, 100)
    );
    assert_eq!(
        header.max_timestamp,
        records.iter().map(|r| r.timestamp_ms).max().unwrap()
    );
    let decoded: Vec<_> = decoded.collect::<Result<_, _>>().unwrap();
    assert_eq!(decoded.len(), records.len());
    for (i, (decoded, record)) in decoded.iter().zip(records).enumerate() {
        assert_eq!(decoded.offset, i as i64);
        assert_eq!(decoded.timestamp_ms, record.timestamp_ms);
        assert_eq!(decoded.key, record.key.as_deref());
        assert_eq!(decoded.value, record.value.as_deref());
        let headers: Vec<_> = decoded.headers.clone().collect();
        let expected: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_deref()))
            .collect();
        assert_eq!(headers, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn uncompressed_batches_are_byte_equal(records in plain_records()) {
        let ours = build(&mut Builder::new(Compression::None), &records);
        prop_assert_eq!(ours, foreign_encode(&records, foreign::Compression::None));
    }

    #[test]
    fn each_reads_the_other(records in plain_records(), codec in 0_usize..5) {
        let ours = build(&mut Builder::new(Compression::ALL[codec]), &records);
        assert_same(&ours, &records);
        let theirs = foreign::RecordBatchDecoder::decode(&mut Bytes::from(ours)).unwrap();
        prop_assert_eq!(theirs.compression, FOREIGN[codec]);
        prop_assert_eq!(theirs.records, to_foreign(&records));
        assert_same(&foreign_encode(&records, FOREIGN[codec]), &records);
    }

    #[test]
    fn what_is_rolled_back_was_never_there(
        before in plain_records(),
        dropped in plain_records(),
        after in plain_records(),
        codec in 0_usize..5,
    ) {
        let mut builder = Builder::new(Compression::ALL[codec]);
        for record in &before {
            builder.append(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &[]).unwrap();
        }
        let mark = builder.mark().unwrap();
        for record in &dropped {
            builder.append(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &[]).unwrap();
        }
        builder.rollback(mark);
        prop_assert_eq!(builder.records() as usize, before.len());
        for record in &after {
            builder.append(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &[]).unwrap();
        }
        let mut batch = builder.finish().unwrap();
        stamp(&mut batch, 4711, 3, 100).unwrap();
        let without_headers = |record: &Plain| Plain { headers: Vec::new(), ..record.clone() };
        let expected: Vec<_> = before.iter().chain(&after).map(without_headers).collect();
        assert_same(&batch, &expected);
    }
}

/// Half text that compresses, half noise that does not, over several blocks.
fn large_records() -> Vec<Plain> {
    let mut noise = 42_u64;
    let mut record = |i: usize| {
        let value: Vec<u8> = (0..600 + i % 97)
            .map(|at| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                if i.is_multiple_of(2) {
                    b'a' + (at % 26) as u8
                } else {
                    (noise >> 56) as u8
                }
            })
            .collect();
        Plain {
            timestamp_ms: 1_700_000_000_000 + i as i64,
            key: Some(format!("{{\"id\":{i}}}").into_bytes()),
            value: (i % 5 != 4).then_some(value),
            headers: vec![(
                "pos".into(),
                Some(format!("binlog.000002:{i}/0").into_bytes()),
            )],
        }
    };
    (0..1500).map(&mut record).collect()
}

#[test]
fn batches_of_many_blocks_and_builders_in_reuse() {
    let records = large_records();
    for compression in Compression::ALL {
        let mut builder = Builder::new(compression);
        let first = build(&mut builder, &records);
        assert_same(&first, &records);
        let theirs = foreign::RecordBatchDecoder::decode(&mut Bytes::from(first.clone())).unwrap();
        assert_eq!(theirs.records, to_foreign(&records));
        builder.recycle(Vec::with_capacity(1 << 20));
        assert_eq!(build(&mut builder, &records), first, "{compression:?}");
        builder.append(0, None, Some(b"dropped"), &[]).unwrap();
        builder.clear();
        assert_eq!(
            build(&mut builder, &records[..3]),
            build(&mut Builder::new(compression), &records[..3])
        );
    }
}

#[test]
fn the_bound_holds_for_what_no_codec_can_shrink() {
    let mut noise = 7_u64;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (noise >> 56) as u8
    })
    .take(3_000_000)
    .collect();
    for compression in Compression::ALL {
        for length in [0, 1, 60_000, 65_534, 65_535, 131_072, 1_000_000, 3_000_000] {
            let record = Plain {
                timestamp_ms: 0,
                key: None,
                value: Some(value[..length].to_vec()),
                headers: vec![],
            };
            let batch = build(
                &mut Builder::new(compression),
                std::slice::from_ref(&record),
            );
            assert_same(&batch, &[record]);
        }
    }
}

#[test]
fn the_writer_of_a_value_may_fail_and_widths_may_be_guessed_wrong() {
    let mut builder = Builder::new(Compression::None);
    let mut records = Vec::new();
    for length in [10, 63, 64, 100_000, 8191, 8192, 0, 8000, 50, 1 << 21, 1] {
        let failed = builder.append_with(5, Some(b"gone"), &[], |out| {
            out.extend_from_slice(b"half a value");
            Err(BuildError::TooLarge { bytes: length })
        });
        assert_eq!(failed, Err(BuildError::TooLarge { bytes: length }));
        let value = vec![b'v'; length];
        records.push(Plain {
            timestamp_ms: 9,
            key: None,
            value: Some(value),
            headers: vec![],
        });
        builder
            .append(9, None, records.last().unwrap().value.as_deref(), &[])
            .unwrap();
    }
    let mut batch = builder.finish().unwrap();
    stamp(&mut batch, 4711, 3, 100).unwrap();
    assert_eq!(batch, foreign_encode(&records, foreign::Compression::None));
}

/// Marks that are right, wrong, taken back, and moved by widths guessed wrong: over many blocks, read by others.
#[test]
fn anchors_change_no_record() {
    let constant = vec![b'c'; 300];
    for compression in Compression::ALL {
        let mut builder = Builder::new(compression);
        let mut records = Vec::new();
        let mut lengths = Vec::new();
        for row in 0..2000_usize {
            let filler = match row % 97 {
                0 => 9000,
                1 => 0,
                _ => row % 13,
            };
            let mut value = format!("{{\"id\":{},", row * 7919 % 10_007).into_bytes();
            value.resize(value.len() + filler, b'a' + (row % 26) as u8);
            let constant_at = value.len();
            value.extend_from_slice(&constant);
            value.extend_from_slice(row.to_string().as_bytes());
            let mut append = |fails: bool| {
                builder.append_prepared(9, None, [].as_slice().into(), |out, anchors| {
                    anchors.mark(0, out);
                    out.extend_from_slice(&value[..constant_at]);
                    anchors.mark((row % 50 == 0).into(), out);
                    out.extend_from_slice(&value[constant_at..]);
                    anchors.mark(2, out);
                    match fails {
                        true => Err(BuildError::TooLarge { bytes: 0 }),
                        false => Ok(()),
                    }
                })
            };
            if row % 31 == 0 {
                append(true).unwrap_err();
            }
            append(false).unwrap();
            if row % 41 == 0 {
                let mark = builder.mark().unwrap();
                builder
                    .append_prepared(9, None, [].as_slice().into(), |out, anchors| {
                        anchors.mark(0, out);
                        out.extend_from_slice(b"taken back");
                        Ok::<_, BuildError>(())
                    })
                    .unwrap();
                builder.rollback(mark);
            }
            lengths.push(value.len());
            records.push(Plain {
                timestamp_ms: 9,
                key: None,
                value: Some(value),
                headers: vec![],
            });
        }
        let mut batch = builder.finish().unwrap();
        stamp(&mut batch, 4711, 3, 100).unwrap();
        assert_same(&batch, &records);
        assert!(compression == Compression::None || batch.len() * 5 < lengths.iter().sum());
    }
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    for compression in Compression::ALL {
        let batch = build(&mut Builder::new(compression), &large_records()[..3]);
        let mut decoder = Decoder::new();
        for end in 0..batch.len() {
            assert!(
                matches!(decoder.decode(&batch[..end]), Ok(None)),
                "{compression:?} cut at {end}"
            );
        }
        for at in LENGTH_END + 4..batch.len() {
            for bit in 0..8 {
                let mut flipped = batch.clone();
                flipped[at] ^= 1 << bit;
                assert!(
                    decoder.decode(&flipped).is_err(),
                    "{compression:?} byte {at} bit {bit}"
                );
            }
        }
    }
}

/// With a checksum that agrees, damage reaches the codecs and the record parser: an error or other records, never a panic.
#[test]
fn damage_under_a_valid_checksum_does_not_panic() {
    for compression in Compression::ALL {
        let batch = build(&mut Builder::new(compression), &large_records()[..2]);
        let mut decoder = Decoder::new();
        for at in ATTRIBUTES_AT..batch.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = batch.clone();
                damaged[at] ^= flip;
                let crc = crc32c(&damaged[ATTRIBUTES_AT..]);
                damaged[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
                if let Ok(Some((_, records))) = decoder.decode(&damaged) {
                    records.take(10_000).for_each(drop);
                }
            }
        }
        for cut in HEADER_LEN..batch.len() {
            let mut damaged = batch[..cut].to_vec();
            damaged[8..LENGTH_END].copy_from_slice(&((cut - LENGTH_END) as i32).to_be_bytes());
            let crc = crc32c(&damaged[ATTRIBUTES_AT..]);
            damaged[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
            let whole = decoder
                .decode(&damaged)
                .map(|decoded| decoded.unwrap().1.collect::<Result<Vec<_>, _>>().is_ok());
            // zstd's and gzip's ends carry no record; everything before them does.
            assert!(
                whole != Ok(true) || batch.len() - cut <= 16,
                "{compression:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn the_lz4_header_is_the_frame_encoders() {
    use std::io::Write;

    let info = lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Independent);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&[7; 100]).unwrap();
    let frame = encoder.finish().unwrap();
    let batch = build(
        &mut Builder::new(Compression::Lz4),
        &[Plain {
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: vec![],
        }],
    );
    assert_eq!(batch[HEADER_LEN..HEADER_LEN + 7], frame[..7]);
}

#[test]
fn errors_name_the_place() {
    let batch = build(&mut Builder::new(Compression::None), &large_records()[..1]);
    let mut other_magic = batch.clone();
    other_magic[16] = 1;
    let error = BatchHeader::parse(&other_magic).unwrap_err();
    assert_eq!(
        error.to_string(),
        "batch magic at byte 16: 1 is not supported"
    );
    let mut long = batch.clone();
    long[8] = 0x7f;
    assert!(matches!(
        BatchHeader::parse(&long).unwrap_err().kind,
        DecodeErrorKind::TooLong { .. }
    ));
    let mut damaged = batch;
    damaged[100] ^= 1;
    assert!(matches!(
        verify_crc(&damaged).unwrap_err().kind,
        DecodeErrorKind::Checksum { .. }
    ));
    assert!(verify_crc(&[]).is_err());
    assert!(stamp(&mut [0; 60], 0, 0, 0).is_err());
}
