//! Rows that wal2json leaves out of the stream for want of a replica identity: named once, or a reason to stop.

use std::collections::BTreeSet;

use harness::seed::postgres as seed;

use crate::postgres::set_plugin;
use crate::postgres_faults::NAME;
use crate::postgres_refusals::{Stage, configure, refused};
use crate::records::records;
use crate::run_to_end;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_rows_that_wal2json_leaves_out_are_named() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    stage
        .run(
            "CREATE SCHEMA walbrook; CREATE SCHEMA other; CREATE TABLE walbrook.log (v int); CREATE TABLE other.log (v int); \
             CREATE TABLE walbrook.late (id int PRIMARY KEY DEFERRABLE, v int); ALTER TABLE walbrook.late REPLICA IDENTITY FULL",
        )
        .await;
    seed::make_slot(&stage.client, NAME, "wal2json", false)
        .await
        .expect("a slot");
    let engine = stage.engine("json");
    set_plugin(&engine, "wal2json");
    stage
        .run(
            "INSERT INTO walbrook.log VALUES (1), (2); UPDATE walbrook.log SET v = v + 1; INSERT INTO other.log VALUES (1); \
             DELETE FROM other.log; INSERT INTO walbrook.late VALUES (1, 1); UPDATE walbrook.late SET v = 2",
        )
        .await;
    run_to_end(&engine).await;
    let said = std::fs::read_to_string(engine.log()).expect("a log");
    let words = "wal2json leaves rows out of the stream of slot walbrook_live after";
    assert_eq!(said.matches(words).count(), 1, "{said}");
    assert!(
        said.contains("UPDATE of walbrook.log, which has no replica identity"),
        "{said}"
    );
    assert!(!said.contains("other.log"), "{said}");
    assert_eq!(stage.broker.counts().records, 4, "{said}");
    // A deferrable primary key is no identity, but a key.
    let keys: BTreeSet<Option<Vec<u8>>> = (records(&stage.broker).await.into_iter())
        .filter(|(topic, _)| topic == "live.walbrook.late")
        .map(|(_, record)| record.key)
        .collect();
    assert_eq!(keys, BTreeSet::from([Some(br#"{"id":1}"#.to_vec())]));

    // The same is a reason not to start, and, where the table had none only then, to stop.
    configure(&engine, "[kafka]\n", "on_unpublished = \"halt\"\n[kafka]\n");
    stage.run("DELETE FROM walbrook.log").await;
    let mend = "ALTER TABLE walbrook.log REPLICA IDENTITY FULL";
    refused(&engine, &["captured tables have a replica identity", mend]).await;
    stage.run(mend).await;
    let deleted = "DELETE of walbrook.log, which has no replica identity";
    refused(&engine, &[words, deleted, mend]).await;
    configure(&engine, "\"halt\"", "\"warn\"");
    run_to_end(&engine).await;
}
