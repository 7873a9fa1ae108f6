//! A publication that is gone with PostgreSQL 18, which streams on without it: nothing that it leaves out is passed over.

use harness::broker::Broker;
use harness::seed::postgres as seed;
use harness::servers::{Flavour, install};

use crate::postgres_faults::{NAME, prepare};
use crate::postgres_refusals::{Stage, configure, refused};
use crate::records::states;
use crate::{often, ready_with, run_to_end, stop, until};

async fn stage() -> Option<Stage> {
    // Debian has it in the unstable suite alone, which is another one every day: a day without it fails nothing, in CI either.
    let installed = tokio::task::spawn_blocking(|| install(Flavour::Postgres18));
    if let Err(reason) = installed.await.expect("no panic") {
        eprintln!(
            "\n*** SKIPPED: no live test with PostgreSQL 18, which cannot be had: {reason}\n"
        );
        return None;
    }
    let (program, server) = ready_with(Flavour::Postgres18, &[]).await?;
    let client = server.connect_postgres().await.expect("a connection");
    Some(Stage {
        program,
        broker: Broker::loopback().await.expect("a broker"),
        directory: tempfile::tempdir().expect("a directory"),
        client,
        server,
    })
}

async fn text(stage: &Stage, query: &str) -> String {
    let row = stage.client.query_one(query, &[]).await;
    row.expect("an answer").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_rows_without_a_publication_are_not_passed_over() {
    let Some(stage) = stage().await else {
        return;
    };
    prepare(&stage.server, false).await;
    let engine = stage.engine("first");
    stage.write(1).await;
    run_to_end(&engine).await;
    let publish = format!("CREATE PUBLICATION {NAME} FOR TABLE {}", seed::TABLE);
    let words = "is gone, and the server cannot decode what was written while it was";

    // While nobody streams, and made again before somebody does.
    stage.run(&format!("DROP PUBLICATION {NAME}")).await;
    stage.run(&format!("DELETE FROM {}", seed::TABLE)).await;
    let deleted = text(&stage, "SELECT pg_current_wal_insert_lsn()::text").await;
    let kept = format!(
        "SELECT (confirmed_flush_lsn < '{deleted}')::text FROM pg_replication_slots WHERE slot_name = '{NAME}'"
    );
    stage.run(&publish).await;
    for _ in 0..2 {
        refused(&engine, &[words, "skipped loading publication"]).await;
        assert_eq!(text(&stage, &kept).await, "true");
    }
}

/// Gone while the engine streams: found by the look at the publication, or by the first row.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_publication_that_goes_stops_the_stream() {
    let Some(stage) = stage().await else {
        return;
    };
    prepare(&stage.server, false).await;
    let publish = format!("CREATE PUBLICATION {NAME} FOR TABLE {}", seed::TABLE);
    for by_a_row in [true, false] {
        let mut engine = stage.engine(if by_a_row { "row" } else { "look" });
        if !by_a_row {
            engine.program = often(&engine);
        }
        let records = stage.broker.counts().records;
        let mut running = engine.start_until_stopped().expect("the engine starts");
        stage.write(1).await;
        until("records", async || {
            let ended = running.ended(std::time::Instant::now()).await;
            assert_eq!(ended.expect("a child"), None, "{}", engine.last_words());
            stage.broker.counts().records > records
        })
        .await;
        stage.run(&format!("DROP PUBLICATION {NAME}")).await;
        if by_a_row {
            stage.run(&format!("DELETE FROM {}", seed::TABLE)).await;
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        let status = running.ended(deadline).await.expect("a child");
        let said = std::fs::read_to_string(engine.log()).expect("a log");
        assert_eq!(status.map(|status| status.code()), Some(Some(1)), "{said}");
        let words = match by_a_row {
            true => "leaves rows out of the stream of slot",
            false => "what is written before it is there again cannot be captured",
        };
        assert!(said.contains(words), "{said}");
        let drop_slot = format!("SELECT pg_drop_replication_slot('{NAME}')");
        until("the slot to be free", async || {
            stage.client.batch_execute(&drop_slot).await.is_ok()
        })
        .await;
        stage.run(&publish).await;
        seed::make_slot(&stage.client, NAME, "pgoutput", false)
            .await
            .expect("a slot");
    }
}

/// Stored generated columns are published where they can be; before version 18 they are not.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_generated_columns_are_captured() {
    let Some(stage) = stage().await else {
        return;
    };
    stage
        .run(
            "CREATE SCHEMA walbrook; CREATE TABLE walbrook.made (id int PRIMARY KEY, \
             twice int GENERATED ALWAYS AS (id * 2) STORED, half int GENERATED ALWAYS AS (id / 2) VIRTUAL)",
        )
        .await;
    let engine = stage.engine_at("generated", &stage.server.url());
    configure(&engine, "start = \"earliest\"", "start = \"now\"");
    let running = engine.start_until_stopped().expect("the engine starts");
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'");
    until("the engine to read", async || {
        let row = stage.client.query_opt(&active, &[]).await.expect("slots");
        row.is_some_and(|row| row.get(0))
    })
    .await;
    stage.run("INSERT INTO walbrook.made VALUES (8)").await;
    until("the record", async || stage.broker.counts().records >= 1).await;
    stop(&engine, running).await;
    let states = states(&stage.broker).await;
    let rows = &states[&("walbrook".to_owned(), "made".to_owned())];
    assert_eq!(
        rows[r#"{"id":8}"#],
        serde_json::json!({"id": 8, "twice": 16})
    );
    let said = std::fs::read_to_string(engine.log()).expect("a log");
    let words = "no record has a value of walbrook.made.half";
    assert!(said.contains(words), "{said}");
}
