//! `batch_max`, oversize rows, malformed images, and compression.

use protocol::kafka::record_batch::Decoder;

use super::*;

fn text_table() -> Arc<Table> {
    let kind = ColumnType::Text {
        length_bytes: 4,
        charset: UTF8,
        compressed: false,
    };
    table("t", &[0], vec![int("id"), column("text", kind)])
}

fn row(id: i32, text: &str) -> [Stored; 2] {
    let stored = [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    [stored_int(id), Some(stored)]
}

/// Text that does not compress.
fn noise(length: usize, seed: u32) -> String {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'0' + (state % 75) as u8)
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn no_batch_exceeds_the_limit_and_no_row_is_split() {
    for (n, compression) in [
        Compression::None,
        Compression::Lz4,
        Compression::Zstd,
        Compression::Snappy,
        Compression::Gzip,
    ]
    .into_iter()
    .enumerate()
    {
        let mut maker = Maker::new();
        maker.group(&text_table());
        for id in 0..300 {
            let text = noise(200 + id as usize * 7 % 3000, id as u32 + 1);
            maker.row(Some(&row(id, &text)), Some(&row(id, "x")));
            maker.row(Some(&row(id, &text)), None);
        }
        let limits = EncodeSettings {
            compression,
            batch_max: 64 << 10,
            ..settings()
        };
        let parts = encode_with(&maker.batch, limits).unwrap();
        assert!(parts.len() > 9, "{n}");
        let mut rows = 0;
        for part in &parts {
            assert!(part.bytes.len() <= 64 << 10);
            let mut bytes = part.bytes.clone();
            stamp(&mut bytes, -1, -1, -1).unwrap();
            let (mut keys, mut tombstones) = (Vec::new(), 0);
            let mut decoder = Decoder::default();
            let (_, records) = decoder.decode(&bytes).unwrap().unwrap();
            for record in records {
                let record = record.unwrap();
                keys.push(record.key.map(<[u8]>::to_vec));
                tombstones += usize::from(record.value.is_none());
            }
            // A delete and its tombstone are in the same batch: the last record of none is a delete's.
            assert_eq!(keys.len(), part.records as usize);
            assert_eq!(keys.len() - tombstones, part.changes as usize);
            rows += part.changes;
        }
        assert_eq!(rows, 600);
    }
}

#[test]
fn a_large_row_goes_alone_where_it_fits_compressed() {
    let mut maker = Maker::new();
    maker.group(&text_table());
    maker.row(None, Some(&row(1, "small")));
    maker.row(None, Some(&row(1, &"large".repeat(100_000))));
    maker.row(None, Some(&row(1, "small")));
    let limits = EncodeSettings {
        compression: Compression::Lz4,
        batch_max: 20 << 10,
        ..settings()
    };
    let parts = encode_with(&maker.batch, limits).unwrap();
    assert_eq!(parts.iter().map(|part| part.records).sum::<u32>(), 3);
    assert!(parts.iter().all(|part| part.bytes.len() <= 20 << 10));
}

#[test]
fn an_oversize_row_halts_and_names_everything() {
    let mut maker = Maker::new();
    maker.group(&text_table());
    maker.row(None, Some(&row(7, "small")));
    maker.row(Some(&row(7, "small")), Some(&row(7, &noise(5000, 1))));
    let limits = EncodeSettings {
        batch_max: 4000,
        ..settings()
    };
    let error = encode_with(&maker.batch, limits).unwrap_err();
    assert!(
        matches!(
            error.kind,
            EncodeErrorKind::Oversize {
                size: 5500..6500,
                limit: 4000,
                ..
            }
        ),
        "{error:?}"
    );
    let text = error.to_string();
    for part in [
        "table tt.t at binlog.000002:1000/1",
        "{\"id\":7}",
        "kafka.batch_max",
        "message.max.bytes",
        "max.message.bytes",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_is_no_text_in_its_character_set_halts_and_says_what_to_do() {
    let mut maker = Maker::new();
    maker.group(&table("t", &[0], vec![int("id"), varchar("name")]));
    maker.row(None, Some(&[stored_int(1), stored_text(b"ab\xfc")]));
    let error = encode_with(&maker.batch, settings()).unwrap_err();
    let text = error.to_string();
    for part in [
        "table tt.t at binlog.000002:1000/0: column name: ",
        "`walbrook position set`",
        "source.tables",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_encoder_goes_on_after_an_error() {
    let mut maker = Maker::new();
    maker.group(&text_table());
    for id in 0..10 {
        maker.row(None, Some(&row(id, "x")));
    }
    let whole = maker.batch.events[9].after;
    maker.batch.events[9].after.end -= 1;
    let settings = settings();
    let templates = templates(&maker.batch, &settings);
    let mut encoder = Encoder::new(Arc::new(settings));
    let error = encoder
        .encode(&maker.batch, &templates, None, NOW)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("table tt.t at binlog.000002:1000/9: column text: "),
        "{text}"
    );
    maker.batch.events[9].after = whole;
    let parts = encoder.encode(&maker.batch, &templates, None, NOW).unwrap();
    assert_eq!(parts.iter().map(|part| part.records).sum::<u32>(), 10);
}

#[test]
fn what_the_source_may_not_do_is_an_error_too() {
    let mut maker = Maker::new();
    maker.group(&text_table());
    maker.row(None, Some(&row(1, "x")));
    let damages: [fn(&mut Batch); 6] = [
        |batch| batch.events[0].group = 5,
        |batch| batch.groups[0].table = 5,
        |batch| batch.groups[0].transaction = 5,
        |batch| batch.transactions[0].file.end = 9999,
        |batch| batch.events[0].after.end += 9999,
        |batch| batch.events[0].operation = Operation::Update,
    ];
    for damage in damages {
        let mut batch = Batch::default();
        batch.bytes.clone_from(&maker.batch.bytes);
        batch.text.clone_from(&maker.batch.text);
        batch.tables.clone_from(&maker.batch.tables);
        batch.transactions.clone_from(&maker.batch.transactions);
        batch.groups.clone_from(&maker.batch.groups);
        batch.events.clone_from(&maker.batch.events);
        damage(&mut batch);
        let error = encode_with(&batch, settings()).unwrap_err();
        assert!(matches!(error.kind, EncodeErrorKind::Batch(_)), "{error}");
    }
}
