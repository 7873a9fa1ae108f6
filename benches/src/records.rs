//! Records of about 600 bytes as the encoder writes them, for benches of what comes after it: constant parts and a few fields that
//! differ, written straight into a record batch. And the same records as the clients of others want them.

use protocol::kafka::record_batch::{BuildError, Builder, Header};

/// Records in a batch.
pub const RECORDS: u64 = 2000;
/// Of every record.
pub const TIMESTAMP_MS: i64 = 1_795_253_701_178;

const BEFORE: &[u8] = br#"{"before":null,"after":"#;
const SOURCE: &[u8] = br#","source":{"version":"0.1.0","connector":"mysql","name":"shop","ts_ms":1795253701000,"snapshot":"false","db":"walbrook","sequence":null,"ts_us":1795253701000000,"ts_ns":1795253701000000000,"table":"events","server_id":1,"gtid":"3e11fa47-71ca-11e1-9e33-c80aa9429562:23","file":"binlog.000002","pos":53632951,"row":0,"thread":17,"query":null},"transaction":null,"op":"c","ts_ms":1795253701178,"ts_us":1795253701178462,"ts_ns":1795253701178462084}"#;

/// What of a record differs from the others.
#[derive(Debug, Clone)]
pub struct Row {
    /// Key of the record.
    pub key: Vec<u8>,
    /// Header `pos`.
    pub position: Vec<u8>,
    fields: Vec<u8>,
}

impl Row {
    /// Appends the record's value.
    pub fn write_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(BEFORE);
        out.extend_from_slice(&self.fields);
        out.extend_from_slice(SOURCE);
    }

    /// The record's value in a vector of its own.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(BEFORE.len() + self.fields.len() + SOURCE.len());
        self.write_value(&mut value);
        value
    }
}

/// The rows of one batch, the same on every call.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut random = 42_u64;
    let mut draw = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    (0..RECORDS)
        .map(|i| {
            let fields = format!(
                r#"{{"id":{i},"category":"category-{}","domain":"host-{:x}.example.org","timestamp":"2025-02-17T15:{:02}:{:02}Z"}}"#,
                draw(40),
                draw(1 << 30),
                draw(60),
                draw(60)
            );
            Row {
                key: format!(r#"{{"id":{i}}}"#).into_bytes(),
                position: format!("binlog.000002:53632951/{i}").into_bytes(),
                fields: fields.into_bytes(),
            }
        })
        .collect()
}

/// One record batch of `rows`, without producer id and sequence, which are stamped when it is sent.
///
/// # Panics
/// When the rows do not fit a batch: they are made to.
#[must_use]
pub fn build(builder: &mut Builder, rows: &[Row]) -> Vec<u8> {
    for row in rows {
        let _ = builder.mark().expect("memory");
        let headers = [Header::new("pos", &row.position)];
        builder
            .append_with(TIMESTAMP_MS, Some(&row.key), &headers, |out| {
                row.write_value(out);
                Ok::<_, BuildError>(())
            })
            .expect("room");
    }
    builder.finish().expect("memory")
}
