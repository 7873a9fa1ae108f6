//! The server is lost and a replica of it takes over: the stream goes on there by GTIDs, without a loss and without a repeat.

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::seed;
use harness::servers::{Flavour, Server};
use harness::truth::Truth;
use harness::workload::{Transaction, Workload};
use mysql_async::prelude::Queryable as _;
use nix::sys::signal::Signal;

use crate::{configured, killed_unheard, ready, run_to_end, run_to_halt, verified};

const CHANGES: u64 = 4_000;

/// Has `replica` follow `source`.
pub(crate) async fn replicate(source: &Server, replica: &Server) {
    let mut connection = replica.connect().await.expect("a connection");
    let port = source.port();
    let (change, start) = match source.flavour() {
        Flavour::Mariadb => (
            format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'cdc', MASTER_PASSWORD = 'cdc', \
                 MASTER_USE_GTID = slave_pos"
            ),
            "START SLAVE",
        ),
        _ => (
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'cdc', \
                 SOURCE_PASSWORD = 'cdc', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1"
            ),
            "START REPLICA",
        ),
    };
    for statement in [change.as_str(), start] {
        (connection.query_drop(statement).await)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// What a server has executed, or a MariaDB logged.
async fn executed(server: &Server) -> String {
    let mut connection = server.connect().await.expect("a connection");
    let query = match server.flavour() {
        Flavour::Mariadb => "SELECT @@GLOBAL.gtid_binlog_pos",
        _ => "SELECT @@GLOBAL.gtid_executed",
    };
    let set: Option<String> = connection.query_first(query).await.expect("an answer");
    set.expect("a set")
}

/// Waits until the replica has executed what the source has.
pub(crate) async fn caught_up(source: &Server, replica: &Server) {
    let executed = executed(source).await;
    let mut connection = replica.connect().await.expect("a connection");
    let wait = match source.flavour() {
        Flavour::Mariadb => "MASTER_GTID_WAIT",
        _ => "WAIT_FOR_EXECUTED_GTID_SET",
    };
    let query = format!("SELECT {wait}('{executed}', 60)");
    let late: Option<i8> = connection.query_first(query).await.expect("an answer");
    if late != Some(0) {
        let query = match source.flavour() {
            Flavour::Mariadb => "SHOW SLAVE STATUS",
            _ => "SHOW REPLICA STATUS",
        };
        let status: Option<mysql_async::Row> =
            connection.query_first(query).await.expect("a status");
        panic!("the replica does not catch up: {status:?}");
    }
}

/// Where a server writes its log.
async fn end_of_log(server: &Server) -> (String, u64) {
    let mut connection = server.connect().await.expect("a connection");
    let query = match server.flavour() {
        Flavour::Mariadb => "SHOW MASTER STATUS",
        _ => "SHOW BINARY LOG STATUS",
    };
    let row: Option<mysql_async::Row> = connection.query_first(query).await.expect("an answer");
    let row = row.expect("a server that logs");
    (row.get(0).expect("a file"), row.get(1).expect("an offset"))
}

/// Has a server write into the file of this number, or a later one; how often it was started, and so began a file, nobody knows.
async fn write_into(server: &Server, number: u32) {
    let mut connection = server.connect().await.expect("a connection");
    while file_number(server).await < number {
        (connection.query_drop("FLUSH BINARY LOGS").await).expect("another file");
    }
}

/// Of the file that a server writes into.
async fn file_number(server: &Server) -> u32 {
    let (file, _) = end_of_log(server).await;
    let number = file.rsplit('.').next().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{file} has no number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_goes_on_on_the_replica_that_takes_over() {
    goes_on_on_the_replica_that_takes_over(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_goes_on_on_the_replica_that_takes_over() {
    goes_on_on_the_replica_that_takes_over(Flavour::Mariadb).await;
}

async fn goes_on_on_the_replica_that_takes_over(flavour: Flavour) {
    let Some((program, mut source)) = ready(flavour).await else {
        return;
    };
    let replica = replica(flavour).await;
    replicate(&source, &replica).await;
    let (broker, directory) = (broker().await, directory());
    let url = source.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    let (workload, first, second) = halves();
    begun(&source, first).await;
    run_to_end(&engine).await;
    caught_up(&source, &replica).await;
    // The replica's log has other files and offsets for the same transactions; later ones, so that positions show the order.
    let mut connection = taken_over(&replica).await;
    write_into(&replica, file_number(&source).await + 1).await;
    (seed::mysql::write(&mut connection, second.into_iter()).await).expect("the second half");
    let text = turn_to(&engine, &source, &replica);
    run_to_end(&engine).await;
    verified(&broker, Truth::of(&workload)).await;

    // Back on the old server, which never had the second half: named, not guessed.
    source.restart().await.expect("the old server");
    std::fs::write(engine.config(), text).expect("a configuration");
    let said = run_to_halt(&engine).await;
    assert!(said.contains("the server never had transaction"), "{said}");
}

/// MariaDB has no other identity than its number, which an operator may change.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_goes_on_when_the_server_gets_another_id() {
    let Some((program, mut server)) = ready(Flavour::Mariadb).await else {
        return;
    };
    let (broker, directory) = (broker().await, directory());
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    let (workload, first, second) = halves();
    begun(&server, first).await;
    run_to_end(&engine).await;
    // With a restart, which also begins another file; not a kill, as a server like these forgets what it committed.
    server.stop(Signal::SIGTERM).expect("a clean end");
    server.start_again().await.expect("the server");
    let mut connection = server.connect().await.expect("a connection");
    let set = "SET GLOBAL server_id = 1003";
    connection.query_drop(set).await.expect(set);
    // A session has the number of its beginning.
    let mut connection = server.connect().await.expect("a connection");
    (seed::mysql::write(&mut connection, second.into_iter()).await).expect("the second half");
    let executed = executed(&server).await;
    assert!(executed.starts_with("0-1003-"), "{executed}");
    run_to_end(&engine).await;
    verified(&broker, Truth::of(&workload)).await;
}

/// All servers of a cluster may have one number, behind one address: then a place of one must not pass for one of another.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_goes_on_on_another_server_of_the_same_number_after_a_kill() {
    let Some((program, source)) = ready(Flavour::Mariadb).await else {
        return;
    };
    let replica = replica(Flavour::Mariadb).await;
    // Later ones, so that positions show the order: what is taken for not written would come twice.
    write_into(&replica, file_number(&source).await + 3).await;
    replicate(&source, &replica).await;
    let (broker, directory) = (broker().await, directory());
    let url = source.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    let (workload, first, mut second) = halves();
    let third = second.split_off(second.len() / 2);
    let mut connection = begun(&source, first).await;
    run_to_end(&engine).await;
    let mut running = engine.start_until_stopped().expect("the engine starts");
    killed_unheard(&mut running, &broker, async {
        let written = seed::mysql::write(&mut connection, second.into_iter()).await;
        written.expect("the second part");
    })
    .await;
    caught_up(&source, &replica).await;
    let id: Option<u32> = (connection.query_first("SELECT @@server_id").await).expect("an answer");
    let set = format!("SET GLOBAL server_id = {}", id.expect("a number"));
    (taken_over(&replica).await.query_drop(&set).await).expect("the same number");
    // A session has the number of its beginning.
    let mut connection = replica.connect().await.expect("a connection");
    (seed::mysql::write(&mut connection, third.into_iter()).await).expect("the third part");
    turn_to(&engine, &source, &replica);
    run_to_end(&engine).await;
    verified(&broker, Truth::of(&workload)).await;
}

/// Statements that make the log of a source large. Of the large row replicas log nothing, MariaDB's not even the GTID: the last
/// transaction is one that they have.
const LARGE: [&str; 4] = [
    "CREATE DATABASE aside",
    "CREATE TABLE aside.large (id INT PRIMARY KEY, text LONGTEXT)",
    "INSERT INTO aside.large VALUES (1, REPEAT('x', 4000000))",
    "CREATE DATABASE beside",
];

/// The replica stands in a file of the same name as the source, and before its place there.
async fn assert_lower(source: &Server, replica: &Server) {
    let ((old_file, old), (new_file, new)) = (end_of_log(source).await, end_of_log(replica).await);
    assert_eq!(old_file, new_file);
    assert!(new < old, "{new} on the replica, {old} on the source");
}

/// Files of two servers have the same names, and an offset of one lies behind all that the other has: it must neither pass for its end
/// nor keep the checkpoint from following it.
async fn goes_on_at_a_lower_offset(flavour: Flavour) {
    let Some((program, source)) = ready(flavour).await else {
        return;
    };
    let replica = replica(flavour).await;
    write_into(&source, file_number(&replica).await).await;
    write_into(&replica, file_number(&source).await).await;
    replicate(&source, &replica).await;
    let (broker, directory) = (broker().await, directory());
    let url = source.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    let (workload, first, second) = halves();
    let mut connection = begun(&source, first).await;
    for statement in LARGE {
        connection.query_drop(statement).await.expect(statement);
    }
    run_to_end(&engine).await;
    caught_up(&source, &replica).await;
    let mut connection = taken_over(&replica).await;
    (seed::mysql::write(&mut connection, second.into_iter()).await).expect("the second half");
    assert_lower(&source, &replica).await;
    turn_to(&engine, &source, &replica);
    run_to_end(&engine).await;
    verified(&broker, Truth::of(&workload)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_goes_on_at_a_lower_offset_of_a_file_of_the_same_name() {
    goes_on_at_a_lower_offset(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_goes_on_at_a_lower_offset_of_a_file_of_the_same_name() {
    goes_on_at_a_lower_offset(Flavour::Mariadb).await;
}

async fn replica(flavour: Flavour) -> Server {
    let options: &[&str] = match flavour {
        Flavour::Mariadb => &[
            "--server-id=1002",
            "--log-slave-updates=ON",
            "--replicate-wild-ignore-table=aside.%",
        ],
        _ => &[
            "--server-id=1002",
            "--log-replica-updates=ON",
            "--replicate-wild-ignore-table=aside.%",
        ],
    };
    Server::start(flavour, options).await.expect("a replica")
}

/// A connection to the replica, which follows nobody any more.
async fn taken_over(replica: &Server) -> mysql_async::Conn {
    let mut connection = replica.connect().await.expect("a connection");
    let statements = match replica.flavour() {
        Flavour::Mariadb => ["STOP SLAVE", "RESET SLAVE ALL"],
        _ => ["STOP REPLICA", "RESET REPLICA ALL"],
    };
    for statement in statements {
        connection.query_drop(statement).await.expect(statement);
    }
    connection
}

/// A table, and so much written into it; the connection that did.
async fn begun(source: &Server, first: Vec<Transaction>) -> mysql_async::Conn {
    let mut connection = source.connect().await.expect("a connection");
    seed::mysql::prepare(&mut connection)
        .await
        .expect("a table");
    (seed::mysql::write(&mut connection, first.into_iter()).await).expect("the first half");
    connection
}

/// Has the engine read the replica instead of the source; its configuration before that.
fn turn_to(engine: &Engine, source: &Server, replica: &Server) -> String {
    let text = std::fs::read_to_string(engine.config()).expect("a configuration");
    let other = text.replace(&source.cdc_url(), &replica.cdc_url());
    std::fs::write(engine.config(), other).expect("a configuration");
    text
}

async fn broker() -> Broker {
    Broker::loopback().await.expect("a broker")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A workload, and its transactions in two halves.
fn halves() -> (Workload, Vec<Transaction>, Vec<Transaction>) {
    let workload = Workload::new(CHANGES, 7);
    let mut first: Vec<_> = workload.transactions().collect();
    let second = first.split_off(first.len() / 2);
    (workload, first, second)
}
