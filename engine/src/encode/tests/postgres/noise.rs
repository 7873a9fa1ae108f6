//! Whatever stands in a tuple: an error or records, never a panic, and what is not malformed comes back.

use proptest::prelude::*;
use serde_json::json;

use super::column_types::every_type;
use super::*;

proptest! {
    #[test]
    fn tuples_of_anything_are_refused_or_encoded(noise in proptest::collection::vec(any::<u8>(), 0..120), columns in 0..40_usize) {
        let mut maker = Maker::new();
        let kinds = every_type();
        let columns = columns.min(kinds.len());
        maker.create(&table("t", &[0], &kinds[..columns]), &[]);
        let start = maker.batch.bytes.len();
        maker.batch.bytes.extend_from_slice(&(columns as u16).to_be_bytes());
        maker.batch.bytes.extend_from_slice(&noise);
        maker.batch.events[0].after = Span::new(start..maker.batch.bytes.len()).unwrap();
        if let Ok(parts) = encode_with(&maker.batch, settings()) {
            read(&parts).iter().for_each(|record| { record.json(); });
        }
    }

    #[test]
    fn texts_of_anything_are_refused_or_encoded(text in "[-0-9:., {}()\\[\\]\"\\\\=>NULLtfxBC+infy]{0,30}|\\PC{0,20}", column in 0..40_usize) {
        let kinds = every_type();
        let (_, kind) = &kinds[column % kinds.len()];
        if let Ok(value) = written(kind, &text) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&value).is_ok(), "{kind:?} {text} {value}");
        }
    }

    #[test]
    fn values_come_back(big: i64, text in "\\PC{0,40}|[\\x00-\\x7f]{0,60}", double: f64, float: f32, bytes: Vec<u8>, number: bool) {
        prop_assert_eq!(written(&ColumnType::Integer, &big.to_string()).unwrap(), big.to_string());
        let read: String = serde_json::from_str(&written(&ColumnType::Text, &text).unwrap()).unwrap();
        prop_assert_eq!(&read, &text);
        if double.is_finite() {
            // Both ways in which the server writes numbers.
            let sent = if number { format!("{double:e}") } else { double.to_string() };
            let read = written(&ColumnType::Double, &sent).unwrap();
            prop_assert_eq!(read.parse::<f64>().unwrap().to_bits(), double.to_bits());
        }
        if float.is_finite() {
            let read = written(&ColumnType::Real, &float.to_string()).unwrap();
            prop_assert_eq!(read.parse::<f32>().unwrap().to_bits(), float.to_bits());
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
        prop_assert_eq!(written(&ColumnType::Bytea, &format!("\\x{hex}")).unwrap(), json!(base64).to_string());
    }

    /// Arrays of texts, quoted as `array_out` quotes them, against what `serde_json` makes of the same elements.
    #[test]
    fn arrays_come_back(elements in proptest::collection::vec(proptest::option::of("\\PC{0,8}|[\"\\\\{}, ]{0,5}|NULL"), 0..6)) {
        let quote = |element: &Option<String>| match element {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        };
        let text = format!("{{{}}}", elements.iter().map(quote).collect::<Vec<_>>().join(","));
        let kind = ColumnType::Array(Box::new(protocol::postgres::Array { element: ColumnType::Text, delimiter: b',' }));
        let read: serde_json::Value = serde_json::from_str(&written(&kind, &text).unwrap()).unwrap();
        prop_assert_eq!(read, json!(elements));
    }

    /// The usual shape is copied, the others are read: both must say the same. The oracle pads and joins by itself.
    #[test]
    fn timestamps_keep_every_part(year in 1..=12_000_u32, month in 1..=12_u32, day in 1..=28_u32, second in 0..86_400_u32, micros in 0..1_000_000_u32, digits in 0..=6_u32) {
        let micros = micros / 10_u32.pow(6 - digits) * 10_u32.pow(6 - digits);
        let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        let six = format!(".{micros:06}");
        let cut = six.trim_end_matches('0').trim_end_matches('.');
        let sign = if year > 9999 { "+" } else { "" };
        let sent = format!("{year:04}-{month:02}-{day:02} {clock}{cut}");
        let expected = format!("\"{sign}{year:04}-{month:02}-{day:02}T{clock}{cut}Z\"");
        prop_assert_eq!(written(&ColumnType::Timestamp, &sent).unwrap(), expected);
        let fraction = if digits == 0 { "" } else { &six[..=digits as usize] };
        let expected = format!("\"{sign}{year:04}-{month:02}-{day:02}T{clock}{fraction}Z\"");
        let kind = ColumnType::TimestampTz { digits: digits as u8 };
        prop_assert_eq!(written(&kind, &format!("{sent}+00")).unwrap(), expected);
    }

    /// One byte of a usual timestamp replaced by anything: what is not one is refused or is an unusual one, and never looks usual.
    #[test]
    fn a_usual_timestamp_has_nothing_else_in_it(at in 0..19_usize, byte in 0x20..0x7f_u8) {
        let mut text = *b"2025-02-17 15:19:39";
        text[at] = byte;
        let found = written(&ColumnType::Timestamp, std::str::from_utf8(&text).unwrap());
        let is_separator = !b"2025-02-17 15:19:39"[at].is_ascii_digit();
        let same_kind = if is_separator { byte == b"2025-02-17 15:19:39"[at] || at == 10 && byte == b'T' } else { byte.is_ascii_digit() };
        prop_assert_eq!(found.is_ok(), same_kind, "{}", String::from_utf8_lossy(&text));
    }
}
