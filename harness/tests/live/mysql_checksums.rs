//! Servers with `binlog_checksum = NONE`: the workload verified, with a restart in the middle; and behind it events with checksums, in
//! the same stream.

use harness::broker::Broker;
use harness::seed;
use harness::servers::{Flavour, Server};
use harness::truth::Truth;
use harness::workload::{Transaction, Workload};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::{configured, ready_with, run_to_end, verified};

const CHANGES: u64 = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn mysql_without_checksums() {
    without_checksums(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_without_checksums() {
    without_checksums(Flavour::Mariadb).await;
}

async fn without_checksums(flavour: Flavour) {
    let Some((program, server)) = ready_with(flavour, &["--binlog-checksum=NONE"]).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);

    let workload = Workload::new(CHANGES, 11);
    let transactions: Vec<_> = workload.transactions().collect();
    let quarter = |number: usize| {
        let at = |number: usize| transactions.len() * number / 4;
        &transactions[at(number)..at(number + 1)]
    };
    assert!((0..4).all(|number| !quarter(number).is_empty()));
    let mut connection = server.connect().await.expect("a connection");
    let prepared = seed::mysql::prepare(&mut connection).await;
    prepared.expect("a table");
    let mut records = 0;
    for number in 0..2 {
        write(&mut connection, quarter(number)).await;
        run_to_end(&engine).await;
        let now = broker.counts().records;
        assert!(now > records, "{now} records after {records}");
        records = now;
    }
    assert_eq!(algorithm(&server, &mut connection).await, 0);
    // The engine goes on in the file without them and comes to one that has them.
    write(&mut connection, quarter(2)).await;
    let statement = "SET GLOBAL binlog_checksum = 'CRC32'";
    connection.query_drop(statement).await.expect("a setting");
    write(&mut connection, quarter(3)).await;
    assert_eq!(algorithm(&server, &mut connection).await, 1);
    run_to_end(&engine).await;
    verified(&broker, Truth::of(&workload)).await;
}

async fn write(connection: &mut Conn, part: &[Transaction]) {
    let written = seed::mysql::write(connection, part.iter().cloned()).await;
    written.expect("a part of the workload");
}

/// The algorithm that the server's last binlog file names in its FORMAT_DESCRIPTION, which stands behind four bytes of magic and ends
/// with the algorithm and four bytes of checksum.
async fn algorithm(server: &Server, connection: &mut Conn) -> u8 {
    let files: Vec<mysql_async::Row> = (connection.query("SHOW BINARY LOGS").await).expect("files");
    let name: String = (files.last().expect("a file").get(0)).expect("a name");
    let path = server.directory().join("data").join(name);
    let bytes = std::fs::read(&path).expect("a binlog file");
    let length: [u8; 4] = bytes[13..17].try_into().expect("four bytes");
    bytes[4 + u32::from_le_bytes(length) as usize - 5]
}
