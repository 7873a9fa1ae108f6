//! The server is lost and a replica of it takes over: the stream goes on there by GTIDs, without a loss and without a repeat.

use harness::broker::Broker;
use harness::seed;
use harness::servers::{Flavour, Server};
use harness::truth::Truth;
use harness::workload::Workload;
use mysql_async::prelude::Queryable as _;

use crate::{configured, ready, run_to_end, run_to_halt, verified};

const CHANGES: u64 = 4_000;

/// A replica of `source` that has everything, or a server that was told so.
async fn replicate(source: &Server, replica: &Server) {
    let mut connection = replica.connect().await.expect("a connection");
    let change = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'cdc', SOURCE_PASSWORD = 'cdc', \
         SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
        source.port()
    );
    for statement in [change.as_str(), "START REPLICA"] {
        (connection.query_drop(statement).await)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Waits until the replica has executed what the source has.
async fn caught_up(source: &Server, replica: &Server) {
    let mut connection = source.connect().await.expect("a connection");
    let executed: String = (connection
        .query_first("SELECT @@GLOBAL.gtid_executed")
        .await)
        .expect("an answer")
        .expect("a set");
    let mut connection = replica.connect().await.expect("a connection");
    let query = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 60)");
    let late: Option<u8> = connection.query_first(query).await.expect("an answer");
    if late != Some(0) {
        let status: Option<mysql_async::Row> =
            (connection.query_first("SHOW REPLICA STATUS").await).expect("a status");
        panic!("the replica does not catch up: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_goes_on_on_the_replica_that_takes_over() {
    let Some((program, mut source)) = ready(Flavour::Mysql).await else {
        return;
    };
    let replica = Server::start(
        Flavour::Mysql,
        &["--server-id=1002", "--log-replica-updates=ON"],
    )
    .await
    .expect("a replica");
    replicate(&source, &replica).await;
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let tables = ["walbrook.*"];
    let url = source.cdc_url();
    let engine = configured(&program, directory.path(), &url, &tables, &broker);
    let workload = Workload::new(CHANGES, 7);
    let transactions: Vec<_> = workload.transactions().collect();
    let (first, second) = transactions.split_at(transactions.len() / 2);
    let mut connection = source.connect().await.expect("a connection");
    seed::mysql::prepare(&mut connection)
        .await
        .expect("a table");
    (seed::mysql::write(&mut connection, first.iter().cloned()).await).expect("the first half");
    run_to_end(&engine).await;
    caught_up(&source, &replica).await;
    // The replica's log has other files and offsets for the same transactions.
    let mut connection = replica.connect().await.expect("a connection");
    for statement in ["STOP REPLICA", "RESET REPLICA ALL", "FLUSH BINARY LOGS"] {
        connection.query_drop(statement).await.expect(statement);
    }
    (seed::mysql::write(&mut connection, second.iter().cloned()).await).expect("the second half");
    let text = std::fs::read_to_string(engine.config()).expect("a configuration");
    let other = text.replace(&source.cdc_url(), &replica.cdc_url());
    std::fs::write(engine.config(), other).expect("a configuration");
    run_to_end(&engine).await;
    verified(&broker, Truth::of(&workload)).await;

    // Back on the old server, which never had the second half: named, not guessed.
    source.restart().await.expect("the old server");
    std::fs::write(engine.config(), text).expect("a configuration");
    let said = run_to_halt(&engine).await;
    assert!(said.contains("the server never had transactions"), "{said}");
}
