//! Rows larger than `memory_max`, which a row may be up to `row_max`, between small ones.

use std::collections::BTreeMap;

use harness::broker::Broker;
use harness::servers::Flavour;

use crate::postgres::set_plugin;
use crate::records::states;
use crate::session::{Session, slot};
use crate::{configured, ready, run_to_end};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn mysql_rows_beyond_the_memory_arrive() {
    large_rows(Flavour::Mysql, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_rows_beyond_the_memory_arrive() {
    large_rows(Flavour::Postgres, "pgoutput").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_rows_beyond_the_memory_arrive_by_wal2json() {
    large_rows(Flavour::Postgres, "wal2json").await;
}

async fn large_rows(flavour: Flavour, plugin: &str) {
    let Some((program, server)) = ready(flavour).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["shop.t"], &broker);
    let mut session = Session::of(&server).await;
    session.run("CREATE SCHEMA shop").await;
    let text = match &session {
        Session::MySql(_) => "LONGTEXT",
        Session::Postgres(_) => "TEXT",
    };
    session
        .run(&format!(
            "CREATE TABLE shop.t (id INT PRIMARY KEY, v {text})"
        ))
        .await;
    if let Session::Postgres(client) = &session {
        set_plugin(&engine, plugin);
        slot(client, plugin).await;
    }
    // By the default `memory_max` is 32 MiB and `row_max` 64 MiB.
    let lengths: BTreeMap<usize, usize> = [3, 15 * MIB, 3, 20 * MIB, 50 * MIB, 3]
        .into_iter()
        .enumerate()
        .collect();
    for (id, length) in &lengths {
        session
            .run(&format!(
                "INSERT INTO shop.t VALUES ({id}, REPEAT('x', {length}))"
            ))
            .await;
    }
    run_to_end(&engine).await;
    session
        .run(&format!(
            "UPDATE shop.t SET v = REPEAT('y', {}) WHERE id = 2",
            30 * MIB
        ))
        .await;
    run_to_end(&engine).await;

    let states = states(&broker).await;
    let state = &states[&("shop".to_owned(), "t".to_owned())];
    assert_eq!(state.len(), lengths.len());
    for row in state.values() {
        let id = row["id"].as_u64().expect("a number") as usize;
        let (byte, length) = match id {
            2 => (b'y', 30 * MIB),
            _ => (b'x', lengths[&id]),
        };
        let text = row["v"].as_str().expect("a text").as_bytes();
        assert_eq!(text.len(), length, "row {id}");
        assert!(text.iter().all(|found| *found == byte), "row {id}");
    }
}
