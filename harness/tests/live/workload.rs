//! Twenty thousand changes of the workload, and a restart in the middle of them.

use harness::broker::Broker;
use harness::seed;
use harness::servers::Flavour;
use harness::truth::Truth;
use harness::workload::Workload;

use crate::{configured, ready, run_to_end, verified};

const CHANGES: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn mysql_workload_with_a_restart_in_the_middle() {
    restart_in_the_middle(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_workload_with_a_restart_in_the_middle() {
    restart_in_the_middle(Flavour::Mariadb).await;
}

/// Half of the workload, a run to the end; the other half, another run that must go on exactly there.
async fn restart_in_the_middle(flavour: Flavour) {
    let Some((program, server)) = ready(flavour).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let engine = configured(
        &program,
        directory.path(),
        &server.cdc_url(),
        &["walbrook.*"],
        &broker,
    );

    let workload = Workload::new(CHANGES, 42);
    let transactions: Vec<_> = workload.transactions().collect();
    let (first, second) = transactions.split_at(transactions.len() / 2);
    let mut connection = server.connect().await.expect("a connection");
    seed::mysql::prepare(&mut connection)
        .await
        .expect("a table");
    seed::mysql::write(&mut connection, first.iter().cloned())
        .await
        .expect("the first half");
    run_to_end(&engine).await;
    let halfway = broker.counts().records;
    seed::mysql::write(&mut connection, second.iter().cloned())
        .await
        .expect("the second half");
    run_to_end(&engine).await;
    assert!(
        halfway > 0 && broker.counts().records > halfway,
        "both runs wrote"
    );

    verified(&broker, Truth::of(&workload)).await;
}
