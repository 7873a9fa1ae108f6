//! Tables that cannot be published without harm: the server's own refusal of an UPDATE says which these are, and the engine has to know it
//! before.

use std::collections::BTreeSet;

use harness::replay::engine::Engine;
use harness::seed::postgres::{self as seed, Identity};

use crate::postgres_faults::NAME;
use crate::postgres_refusals::{Stage, configure, refused};
use crate::records::records;
use crate::{check, stop, until};

/// An engine that makes its publication itself, as the administrator, and looks at it several times a second.
fn engine(stage: &Stage) -> Engine {
    let engine = stage.engine_at("identities", &stage.server.url());
    configure(&engine, "start = \"earliest\"", "start = \"now\"");
    Engine {
        program: crate::often(&engine),
        ..engine
    }
}

/// Whether the server runs an update of `table` now.
async fn updates(stage: &Stage, table: &str) -> bool {
    let update = format!("UPDATE walbrook.{table} SET v = v + 1");
    match stage.client.batch_execute(&update).await {
        Ok(()) => true,
        Err(error) => {
            let error = error.as_db_error().expect("a refusal").message().to_owned();
            let refusal = "does not have a replica identity and publishes updates";
            assert!(error.contains(refusal), "{error}");
            false
        }
    }
}

/// A deferrable primary key is none, and an identity's index may be gone.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_identities_that_the_server_does_not_take_are_withheld() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    seed::prepare(&stage.client, Identity::Default)
        .await
        .expect("a table");
    stage
        .run(
            "CREATE TABLE walbrook.late (id int PRIMARY KEY DEFERRABLE, v int); \
             CREATE TABLE walbrook.gone (id int NOT NULL, v int); CREATE UNIQUE INDEX gone_id ON walbrook.gone (id); \
             ALTER TABLE walbrook.gone REPLICA IDENTITY USING INDEX gone_id; DROP INDEX walbrook.gone_id; \
             CREATE TABLE walbrook.kept (id int NOT NULL, v int); CREATE UNIQUE INDEX kept_id ON walbrook.kept (id); \
             ALTER TABLE walbrook.kept REPLICA IDENTITY USING INDEX kept_id; \
             INSERT INTO walbrook.late VALUES (1, 1); INSERT INTO walbrook.gone VALUES (1, 1); INSERT INTO walbrook.kept VALUES (1, 1)",
        )
        .await;
    // What the server says of them.
    stage
        .run("CREATE PUBLICATION other FOR TABLE walbrook.late, walbrook.gone, walbrook.kept")
        .await;
    assert!(!updates(&stage, "late").await);
    assert!(!updates(&stage, "gone").await);
    assert!(updates(&stage, "kept").await);
    stage.run("DROP PUBLICATION other").await;

    let engine = engine(&stage);
    let running = engine.start_until_stopped().expect("the engine starts");
    let published = format!(
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = '{NAME}'"
    );
    until("the publication", async || {
        let row = stage.client.query_one(&published, &[]).await;
        row.expect("tables").get::<_, Option<String>>(0).as_deref() == Some("events kept")
    })
    .await;
    let said = || std::fs::read_to_string(engine.log()).expect("a log");
    for table in ["late", "gone"] {
        assert!(updates(&stage, table).await, "{table}");
        let words = format!("ALTER TABLE walbrook.{table} REPLICA IDENTITY FULL");
        assert!(said().contains(&words), "{}", said());
    }
    // One that comes later is left alone, too.
    stage
        .run("CREATE TABLE walbrook.later (id int PRIMARY KEY DEFERRABLE, v int); INSERT INTO walbrook.later VALUES (1, 1)")
        .await;
    until("the table to be named", async || {
        said().contains("ALTER TABLE walbrook.later REPLICA IDENTITY FULL")
    })
    .await;
    assert!(updates(&stage, "later").await);
    // What is advised has it captured, under its key: the engine adds it by itself.
    stage
        .run("ALTER TABLE walbrook.late REPLICA IDENTITY FULL")
        .await;
    until("the table to be published", async || {
        let row = stage.client.query_one(&published, &[]).await;
        let names: Option<String> = row.expect("tables").get(0);
        names.as_deref() == Some("events kept late")
    })
    .await;
    let before = stage.broker.counts().records;
    stage.run("INSERT INTO walbrook.late VALUES (2, 1)").await;
    assert!(updates(&stage, "late").await);
    until("its records", async || {
        stage.broker.counts().records >= before + 3
    })
    .await;
    stop(&engine, running).await;
    let keys: BTreeSet<Option<String>> = (records(&stage.broker).await.into_iter())
        .filter(|(topic, _)| topic == "live.walbrook.late")
        .map(|(_, record)| record.key.map(|key| String::from_utf8(key).expect("text")))
        .collect();
    let expected = [r#"{"id":1}"#, r#"{"id":2}"#].map(|key| Some(key.to_owned()));
    assert_eq!(keys, BTreeSet::from(expected));
}

/// The root is published when a partition comes: an application's updates fail, and the engine says why.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_partition_without_an_identity_is_named_when_it_comes() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    stage
        .run(
            "CREATE SCHEMA walbrook; CREATE TABLE walbrook.log (kind int, v int) PARTITION BY LIST (kind); \
             CREATE TABLE walbrook.log_1 PARTITION OF walbrook.log FOR VALUES IN (1); \
             ALTER TABLE walbrook.log_1 REPLICA IDENTITY FULL",
        )
        .await;
    let engine = engine(&stage);
    let running = engine.start_until_stopped().expect("the engine starts");
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'");
    until("the engine to read", async || {
        let row = stage.client.query_opt(&active, &[]).await.expect("slots");
        row.is_some_and(|row| row.get(0))
    })
    .await;
    stage.run("INSERT INTO walbrook.log VALUES (1, 1)").await;
    assert!(updates(&stage, "log").await);
    let said = || std::fs::read_to_string(engine.log()).expect("a log");
    let words = "run ALTER TABLE walbrook.log_2 REPLICA IDENTITY FULL";
    assert!(!said().contains("replica identity"), "{}", said());
    stage
        .run(
            "CREATE TABLE walbrook.log_2 PARTITION OF walbrook.log FOR VALUES IN (2); \
             INSERT INTO walbrook.log VALUES (2, 1)",
        )
        .await;
    assert!(!updates(&stage, "log").await);
    until("the partition to be named", async || said().contains(words)).await;
    // The statement that is named mends it.
    stage
        .run("ALTER TABLE walbrook.log_2 REPLICA IDENTITY FULL")
        .await;
    assert!(updates(&stage, "log").await);
    // Two inserts, an update of the first row, and one of both.
    until("the records", async || stage.broker.counts().records >= 5).await;
    stop(&engine, running).await;
    assert_eq!(said().matches(words).count(), 1, "{}", said());
}

/// `ALTER TABLE … REPLICA IDENTITY` of a partitioned table does not reach its partitions, and theirs is what old rows have. The stream
/// says nothing of it: what was written as `before`, and under which keys, would be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_partitions_with_another_identity_are_named() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    stage
        .run(
            "CREATE SCHEMA walbrook; CREATE TABLE walbrook.log (id int PRIMARY KEY, device text, uuid text NOT NULL) PARTITION BY RANGE (id); \
             CREATE TABLE walbrook.log_1 PARTITION OF walbrook.log FOR VALUES FROM (0) TO (100); \
             ALTER TABLE walbrook.log REPLICA IDENTITY FULL",
        )
        .await;
    let often = engine(&stage);
    // The table's own key is in every old row; the rest of it is not.
    let (status, said) = check(&often).await;
    let lesser = "walbrook.log_1 of walbrook.log: ";
    let mend = "run ALTER TABLE walbrook.log_1 REPLICA IDENTITY FULL";
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains(lesser) && said.contains(mend), "{said}");

    // A key of the configuration is not.
    let keyed = "keys = { \"walbrook.log\" = [\"device\"] }\n[kafka]\n";
    configure(&often, "[kafka]\n", keyed);
    let lesser = "walbrook.log_1 of walbrook.log (lacks device): ";
    let (status, said) = check(&often).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(lesser) && said.contains(mend), "{said}");
    refused(&often, &[lesser, mend]).await;
    let mend = "ALTER TABLE walbrook.log_1 REPLICA IDENTITY FULL";
    stage.run(mend).await;
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'");
    let is_read = async || {
        let row = stage.client.query_opt(&active, &[]).await.expect("slots");
        row.is_some_and(|row| row.get(0))
    };
    let mut running = often.start_until_stopped().expect("the engine starts");
    until("the engine to read", is_read).await;
    stage
        .run(
            "INSERT INTO walbrook.log VALUES (1, 'a', 'u'); UPDATE walbrook.log SET device = 'b'; DELETE FROM walbrook.log; \
             INSERT INTO walbrook.log VALUES (2, 'c', 'v')",
        )
        .await;
    until("its records", async || stage.broker.counts().records >= 7).await;
    let mut keys: Vec<String> = (records(&stage.broker).await.into_iter())
        .map(|(_, record)| String::from_utf8(record.key.expect("a key")).expect("text"))
        .collect();
    keys.sort();
    let (a, b, c) = (
        r#"{"device":"a"}"#,
        r#"{"device":"b"}"#,
        r#"{"device":"c"}"#,
    );
    assert_eq!(keys, [a, a, a, b, b, b, c]);

    // One that comes later is named at once, and ends the stream where that is of no use.
    stage
        .run("CREATE TABLE walbrook.log_2 PARTITION OF walbrook.log FOR VALUES FROM (100) TO (200)")
        .await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let status = running.ended(deadline).await.expect("a child");
    let said = std::fs::read_to_string(often.log()).expect("a log");
    assert_eq!(status.map(|status| status.code()), Some(Some(1)), "{said}");
    let lesser = "walbrook.log_2 of walbrook.log (lacks device): ";
    assert_eq!(said.matches(lesser).count(), 2, "{said}");
    stage.run("DROP TABLE walbrook.log_2").await;

    // Before anybody looks, an update shows it.
    let seldom = Engine {
        program: stage.program.clone(),
        ..often
    };
    until("the slot to be free", async || !is_read().await).await;
    let mut running = seldom.start_until_stopped().expect("the engine starts");
    until("the engine to read", is_read).await;
    stage
        .run("ALTER TABLE walbrook.log_1 REPLICA IDENTITY DEFAULT; UPDATE walbrook.log SET device = 'd'")
        .await;
    let status = running.ended(deadline).await.expect("a child");
    let said = std::fs::read_to_string(seldom.log()).expect("a log");
    assert_eq!(status.map(|status| status.code()), Some(Some(1)), "{said}");
    let words = "what key column device was before is in no row image";
    assert!(said.contains(words), "{said}");

    // By an index of its own: without the primary key, which is the key of the records.
    configure(&seldom, keyed, "[kafka]\n");
    stage
        .run(
            "ALTER TABLE walbrook.log REPLICA IDENTITY DEFAULT; CREATE UNIQUE INDEX log_1_uuid ON walbrook.log_1 (uuid); \
             ALTER TABLE walbrook.log_1 REPLICA IDENTITY USING INDEX log_1_uuid",
        )
        .await;
    let mend = "run ALTER TABLE walbrook.log_1 REPLICA IDENTITY DEFAULT";
    refused(
        &seldom,
        &["walbrook.log_1 of walbrook.log (lacks id): ", mend],
    )
    .await;
}
