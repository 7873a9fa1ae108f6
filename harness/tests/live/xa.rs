//! XA transactions over restarts of the engine: rows come out once, when and if they are committed.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::broker::Broker;
use harness::servers::Flavour;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::records::states;
use crate::{configured, ready, run_to_end};

async fn run(connection: &mut Conn, statements: &[&str]) {
    for statement in statements {
        (connection.query_drop(*statement).await)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn rows(broker: &Broker) -> BTreeMap<String, Value> {
    let name = ("shop".to_owned(), "t".to_owned());
    states(broker).await.remove(&name).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_xa_over_restarts() {
    over_restarts(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_xa_over_restarts() {
    over_restarts(Flavour::Mariadb).await;
}

async fn over_restarts(flavour: Flavour) {
    let Some((program, server)) = ready(flavour).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["shop.*"], &broker);
    let mut connection = server.connect().await.expect("a connection");
    run(
        &mut connection,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(20))",
            "XA START 'one'",
            "INSERT INTO shop.t VALUES (1, 'one'), (2, 'one')",
            "XA END 'one'",
            "XA PREPARE 'one'",
        ],
    )
    .await;
    // Prepared transactions outlive their sessions.
    drop(connection);
    let mut connection = server.connect().await.expect("a connection");
    run(
        &mut connection,
        &[
            "XA START 'two'",
            "INSERT INTO shop.t VALUES (3, 'two')",
            "XA END 'two'",
            "XA PREPARE 'two'",
        ],
    )
    .await;
    drop(connection);
    let mut connection = server.connect().await.expect("a connection");
    run(&mut connection, &["INSERT INTO shop.t VALUES (4, 'plain')"]).await;

    run_to_end(&engine).await;
    let row = |id: u32, v: &str| (format!("{{\"id\":{id}}}"), json!({"id": id, "v": v}));
    assert_eq!(rows(&broker).await, BTreeMap::from([row(4, "plain")]));
    // Killed while it has both on its disk, at some moment; and once more.
    for pause in [30, 120] {
        let mut running = engine.start().expect("the engine starts");
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let _ = running.kill();
    }
    run(
        &mut connection,
        &["XA COMMIT 'one'", "INSERT INTO shop.t VALUES (5, 'plain')"],
    )
    .await;
    run_to_end(&engine).await;
    let committed = [
        row(1, "one"),
        row(2, "one"),
        row(4, "plain"),
        row(5, "plain"),
    ];
    assert_eq!(rows(&broker).await, BTreeMap::from(committed.clone()));
    // 'two' still holds the position back: a restart reads the commit of 'one' again, without its rows or behind them.
    run_to_end(&engine).await;
    run(
        &mut connection,
        &[
            "XA ROLLBACK 'two'",
            "INSERT INTO shop.t VALUES (6, 'plain')",
        ],
    )
    .await;
    run_to_end(&engine).await;
    let expected = committed.into_iter().chain([row(6, "plain")]);
    assert_eq!(rows(&broker).await, expected.collect());
    assert_eq!(
        broker.counts().records,
        5,
        "each row once, whatever was killed"
    );
}
