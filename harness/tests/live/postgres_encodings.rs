//! Databases that are not in UTF-8: their text arrives as it is meant, or is refused in words.

use harness::replay::engine::Engine;
use harness::seed::postgres as seed;
use tokio_postgres::Client;

use crate::postgres::set_plugin;
use crate::postgres_faults::NAME;
use crate::postgres_refusals::{Stage, refused};
use crate::records::states;
use crate::run_to_end;

/// A database of this encoding with a table, a publication and a slot; an administrator there.
async fn database(stage: &Stage, encoding: &str, plugin: &str) -> Client {
    let name = encoding.to_lowercase();
    let slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    stage.run(slots).await;
    stage
        .run(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        .await;
    let create = format!(
        "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    );
    stage.run(&create).await;
    let client = seed::connect(&at(&stage.server.url(), &name)).await;
    let client = client.expect("a connection");
    let table = "CREATE SCHEMA walbrook; CREATE TABLE walbrook.t (id int PRIMARY KEY, v text)";
    client.batch_execute(table).await.expect("a table");
    seed::publish(&client, NAME, None)
        .await
        .expect("a publication");
    seed::make_slot(&client, NAME, plugin, false)
        .await
        .expect("a slot");
    client
}

fn at(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a database");
    format!("{server}/{database}")
}

fn engine(stage: &Stage, encoding: &str, plugin: &str) -> Engine {
    let url = at(&stage.server.cdc_url(), &encoding.to_lowercase());
    let engine = stage.engine_at(&format!("{encoding}-{plugin}"), &url);
    set_plugin(&engine, plugin);
    engine
}

/// A column's text by the records.
async fn text(stage: &Stage, id: u32) -> String {
    let states = states(&stage.broker).await;
    let table = &states[&("walbrook".to_owned(), "t".to_owned())];
    let row = &table[&format!("{{\"id\":{id}}}")];
    row["v"].as_str().expect("a text").to_owned()
}

/// The server converts for pgoutput alone: what wal2json sends would be taken for something else.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_text_of_latin_1_arrives_in_utf_8() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    let client = database(&stage, "LATIN1", "pgoutput").await;
    // In Latin-1 the bytes of the second are those of the first in UTF-8.
    let insert = "INSERT INTO walbrook.t VALUES (1, 'é'), (2, 'Ã©')";
    client.batch_execute(insert).await.expect("rows");
    run_to_end(&engine(&stage, "LATIN1", "pgoutput")).await;
    assert_eq!(text(&stage, 1).await, "é");
    assert_eq!(text(&stage, 2).await, "Ã©");
    drop(client);

    let client = database(&stage, "LATIN1", "wal2json").await;
    client.batch_execute(insert).await.expect("rows");
    refused(
        &engine(&stage, "LATIN1", "wal2json"),
        &["wal2json sends it in the database's encoding, LATIN1; set plugin = \"pgoutput\""],
    )
    .await;
}

/// Where the server does not know the encoding, text counts as UTF-8 while it can.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_text_without_an_encoding_is_utf_8_or_refused() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    let wrong = [
        (
            "pgoutput",
            &["SHOW server_encoding", "0xe9", "`walbrook position reset`"][..],
        ),
        ("wal2json", &["text", "walbrook.t"]),
    ];
    for (plugin, words) in wrong {
        let client = database(&stage, "SQL_ASCII", plugin).await;
        let insert = r"INSERT INTO walbrook.t VALUES (1, E'\xc3\xa9')";
        client.batch_execute(insert).await.expect("a row");
        let engine = engine(&stage, "SQL_ASCII", plugin);
        run_to_end(&engine).await;
        assert_eq!(text(&stage, 1).await, "é");
        let said = std::fs::read_to_string(engine.log()).expect("a log");
        assert!(said.contains("the database is SQL_ASCII"), "{said}");
        let records = stage.broker.counts().records;
        let insert = r"INSERT INTO walbrook.t VALUES (2, E'\xe9 ')";
        client.batch_execute(insert).await.expect("a row");
        refused(&engine, words).await;
        assert_eq!(stage.broker.counts().records, records);
    }
}
