//! What is not captured, or not as it was, although nothing refuses it: it is named.

use harness::seed::postgres as seed;

use crate::postgres_faults::NAME;
use crate::postgres_refusals::{Stage, configure};
use crate::records::states;
use crate::{check, run_to_end};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_tables_that_are_not_sent_whole_are_named() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    stage
        .run(&format!(
            "CREATE SCHEMA walbrook; CREATE UNLOGGED TABLE walbrook.cache (id int PRIMARY KEY); \
             CREATE TABLE walbrook.log (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); \
             CREATE UNLOGGED TABLE walbrook.log_1 PARTITION OF walbrook.log FOR VALUES FROM (0) TO (9); \
             CREATE TABLE walbrook.some (id int PRIMARY KEY, v int); CREATE TABLE walbrook.narrow (id int PRIMARY KEY, v int); \
             CREATE PUBLICATION {NAME} FOR TABLE walbrook.some WHERE (id > 5), walbrook.narrow (id), walbrook.log \
             WITH (publish_via_partition_root = true)"
        ))
        .await;
    let engine = stage.engine("losses");
    configure(&engine, "start = \"earliest\"", "start = \"now\"");
    configure(
        &engine,
        "[\"walbrook.*\"]",
        "[\"walbrook.*\", \"!walbrook.log_1\"]",
    );
    let (status, said) = check(&engine).await;
    assert_eq!(status, Some(0), "{said}");
    for words in [
        "nothing of walbrook.cache, walbrook.log_1 is captured",
        "leaves out are not captured of walbrook.some; records lack the columns that are not in its list of walbrook.narrow",
    ] {
        assert!(said.contains(words), "{said}");
    }
    // As it is advised.
    stage
        .run(&format!(
            "ALTER TABLE walbrook.cache SET LOGGED; ALTER TABLE walbrook.log_1 SET LOGGED; \
             BEGIN; ALTER PUBLICATION {NAME} DROP TABLE ONLY walbrook.some; ALTER PUBLICATION {NAME} ADD TABLE ONLY walbrook.some; COMMIT; \
             ALTER PUBLICATION {NAME} DROP TABLE walbrook.narrow"
        ))
        .await;
    let (_, said) = check(&engine).await;
    for words in ["captured of", "is captured", "records lack"] {
        assert!(!said.contains(words), "{words}: {said}");
    }
}

/// Nobody knows any more what it was made of, so its values are the server's texts.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_types_that_are_gone_are_named() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    stage
        .run(&format!(
            "CREATE SCHEMA walbrook; CREATE DOMAIN walbrook.amount AS int; \
             CREATE TABLE walbrook.t (id int PRIMARY KEY, v walbrook.amount, m money); CREATE PUBLICATION {NAME} FOR TABLE walbrook.t"
        ))
        .await;
    seed::make_slot(&stage.client, NAME, "pgoutput", false)
        .await
        .expect("a slot");
    stage
        .run(
            "INSERT INTO walbrook.t VALUES (1, 5, 1234.5); ALTER TABLE walbrook.t DROP COLUMN v; DROP DOMAIN walbrook.amount; \
             INSERT INTO walbrook.t VALUES (2, -1)",
        )
        .await;
    let engine = stage.engine("gone");
    run_to_end(&engine).await;
    let states = states(&stage.broker).await;
    let rows = &states[&("walbrook".to_owned(), "t".to_owned())];
    let first = serde_json::json!({"id": 1, "v": "5", "m": "1234.50"});
    assert_eq!(rows[r#"{"id":1}"#], first);
    let second = serde_json::json!({"id": 2, "m": "-1.00"});
    assert_eq!(rows[r#"{"id":2}"#], second);
    let said = std::fs::read_to_string(engine.log()).expect("a log");
    let words = "column v of walbrook.t has a type (OID ";
    assert_eq!(said.matches(words).count(), 1, "{said}");
}
