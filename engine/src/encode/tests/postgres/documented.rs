//! TRUNCATE's record against the one that Debezium's documentation shows; how they are compared: `../documented.rs`.

use std::time::Duration;

use serde_json::json;

use super::super::documented::{compare, snapshot};
use super::*;

/// From "truncate events" in `documentation/modules/ROOT/pages/connectors/postgresql.adoc` of <https://github.com/debezium/debezium> at
/// 0046fa8e, also <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-truncate-events>.
#[test]
fn a_truncate_is_the_documented_one() {
    let documented = json!({
        "source": {
            "version": "3.1.3.Final", "connector": "postgresql", "name": "PostgreSQL_server",
            "ts_ms": 1_559_033_904_863_u64, "ts_us": 1_559_033_904_863_112_u64, "ts_ns": 1_559_033_904_863_112_000_u64,
            "snapshot": false, "db": "postgres", "schema": "public", "table": "customers",
            "txId": 556, "lsn": 46_523_128, "xmin": null,
        },
        "op": "t",
        "ts_ms": 1_559_033_904_961_u64, "ts_us": 1_559_033_904_961_654_u64, "ts_ns": 1_559_033_904_961_654_789_u64,
    });
    let customers = Arc::new(Table {
        version: 1,
        schema: "public".into(),
        name: "customers".into(),
        key: [].into(),
        columns: Columns::Postgres(Postgres {
            database: "postgres".into(),
            columns: [].into(),
            identity: [].into(),
            is_full: false,
        }),
    });
    let mut maker = Maker::new();
    maker.truncate(&customers);
    let batch = &mut maker.batch;
    batch.lsns = vec![46_523_128];
    let transaction = &mut batch.transactions[0];
    (transaction.xid, transaction.previous_commit) = (Some(556), None);
    transaction.commit_us = Some(1_559_033_904_863_112);
    let settings = EncodeSettings {
        source: "PostgreSQL_server".into(),
        ..settings()
    };
    let templates = templates(batch, &settings);
    let now = Duration::new(1_559_033_904, 961_654_789);
    let parts = Encoder::new(Arc::new(settings))
        .encode(batch, &templates, None, now)
        .unwrap();
    let [record] = &read(&parts)[..] else {
        panic!("one record");
    };
    // The commit before, of which the example says nothing, and the LSN once more.
    let sequence = ("source.sequence", json!("[null,\"46523128\"]"));
    let reference = include_str!("../../../../../fixtures/golden/debezium-3.1/postgres.txt");
    compare(record, &documented, reference, &[snapshot(), sequence]);
}
