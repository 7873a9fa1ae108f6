//! A slot is made while a transaction is open: the server waits for its end, and so does the engine.

use std::time::{Duration, Instant};

use harness::seed::postgres::{self as seed, Identity};

use crate::postgres_faults::NAME;
use crate::postgres_refusals::{Stage, configure};
use crate::{stop, until};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_slot_is_made_when_older_transactions_have_ended() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    seed::prepare(&stage.client, Identity::Default)
        .await
        .expect("a table");
    seed::publish(&stage.client, NAME, Some(seed::TABLE))
        .await
        .expect("a publication");
    let engine = stage.engine("waits");
    configure(&engine, "start = \"earliest\"", "start = \"now\"");
    let insert = |id: u32| {
        format!(
            "INSERT INTO {} VALUES ({id}, 'c', 'd', DEFAULT)",
            seed::TABLE
        )
    };
    let old = stage.server.connect_postgres().await.expect("a connection");
    let begin = format!("BEGIN; {}", insert(1));
    old.batch_execute(&begin).await.expect("a transaction");

    let mut running = engine.start_until_stopped().expect("the engine starts");
    let said = || std::fs::read_to_string(engine.log()).expect("a log");
    let words = format!(
        "slot {NAME} is being made: the server is waiting for transactions that were open before"
    );
    until("the engine to say what it waits for", async || {
        said().contains(&words)
    })
    .await;
    let slot = |what: &str| {
        format!("SELECT active AND {what} FROM pg_replication_slots WHERE slot_name = '{NAME}'")
    };
    let holds = async |query: String| -> bool {
        let row = stage
            .client
            .query_opt(&query, &[])
            .await
            .expect("an answer");
        row.is_some_and(|row| row.get(0))
    };
    assert!(holds(slot("confirmed_flush_lsn IS NULL")).await);
    // It goes on waiting, longer than it waits for any other answer.
    let patience = Instant::now() + Duration::from_secs(35);
    let ended = running.ended(patience).await.expect("a child");
    assert_eq!(ended, None, "{}", engine.last_words());
    assert!(said().matches(&words).count() > 2, "{}", said());
    assert!(holds(slot("confirmed_flush_lsn IS NULL")).await);

    old.batch_execute("COMMIT").await.expect("its end");
    until("the slot", async || {
        holds(slot("confirmed_flush_lsn IS NOT NULL")).await
    })
    .await;
    stage.run(&insert(2)).await;
    until("the record", async || stage.broker.counts().records >= 1).await;
    stop(&engine, running).await;
    // What was open before is not in it.
    assert_eq!(stage.broker.counts().records, 1);
}
