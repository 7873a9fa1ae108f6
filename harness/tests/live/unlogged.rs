//! What servers change and leave out of their logs: `walbrook check` says so where that is the case, and not elsewhere. And the rows that
//! MariaDB writes besides those of a statement, for tables with system versioning.

use harness::broker::Broker;
use harness::servers::{Flavour, Server};
use mysql_async::prelude::Queryable as _;

use crate::failover::{caught_up, replicate};
use crate::records::{records, states};
use crate::session::Session;
use crate::{check, configured, ready, ready_with, run_to_end};

/// The line about `what`, which begins with how it stands.
fn line<'a>(said: &'a str, what: &str) -> &'a str {
    let found = said.lines().find(|line| line.contains(what));
    found.unwrap_or_else(|| panic!("nothing is said of {what:?}:\n{said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_logs_what_foreign_keys_change() {
    foreign_keys(Flavour::Mysql, &[], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_does_not_log_what_innodb_changes_for_foreign_keys() {
    foreign_keys(Flavour::Mysql, &["--innodb-native-foreign-keys=ON"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_does_not_log_what_foreign_keys_change() {
    foreign_keys(Flavour::Mariadb, &[], false).await;
}

async fn foreign_keys(flavour: Flavour, options: &[&str], logged: bool) {
    let Some((program, server)) = ready_with(flavour, options).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["shop.*"], &broker);
    let mut session = Session::of(&server).await;
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY)",
        "CREATE TABLE shop.lines (id INT PRIMARY KEY, o INT, FOREIGN KEY (o) REFERENCES shop.orders (id) ON DELETE CASCADE)",
        "CREATE TABLE shop.notes (id INT PRIMARY KEY, o INT, FOREIGN KEY (o) REFERENCES shop.orders (id) ON DELETE SET NULL)",
        // Has none of its rows changed.
        "CREATE TABLE shop.bills (id INT PRIMARY KEY, o INT, FOREIGN KEY (o) REFERENCES shop.orders (id))",
        "INSERT INTO shop.orders VALUES (1), (2)",
        "INSERT INTO shop.lines VALUES (1, 1), (2, 2)",
        "INSERT INTO shop.notes VALUES (1, 1), (2, 2)",
        "DELETE FROM shop.orders WHERE id = 1",
    ] {
        session.run(statement).await;
    }
    run_to_end(&engine).await;
    let mut states = states(&broker).await;
    let mut state = |table: &str| {
        let rows = states.remove(&("shop".to_owned(), table.to_owned()));
        let rows = rows.unwrap_or_default().into_values();
        rows.map(|row| row.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(state("orders"), [r#"{"id":2}"#]);
    let (lines, notes) = (state("lines"), state("notes"));
    let second = r#"{"id":2,"o":2}"#;
    let what = "foreign keys change no captured rows";
    if flavour == Flavour::Mariadb {
        // It shows no keys to who may only read.
        let (status, said) = check(&engine).await;
        assert_eq!(status, Some(0), "{said}");
        let said = line(&said, what);
        assert!(
            said.contains("is not known; run GRANT REFERENCES"),
            "{said}"
        );
        session.run("GRANT REFERENCES ON *.* TO 'cdc'@'%'").await;
    }
    let (status, said) = check(&engine).await;
    assert_eq!(status, Some(0), "{said}");
    let said = line(&said, what);
    if logged {
        assert_eq!(lines, [second]);
        assert_eq!(notes, [r#"{"id":1,"o":null}"#, second]);
        assert!(said.starts_with("ok "), "{said}");
    } else {
        let both = [r#"{"id":1,"o":1}"#, second];
        assert_eq!(
            (&*lines, &*notes),
            (&both.map(String::from)[..], &both.map(String::from)[..])
        );
        assert!(said.starts_with("note "), "{said}");
        assert!(
            said.contains("rows of shop.lines, shop.notes that"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_replica_that_logs_nothing_is_told_of() {
    replica_that_logs_nothing(Flavour::Mysql, "log_replica_updates").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_replica_that_logs_nothing_is_told_of() {
    replica_that_logs_nothing(Flavour::Mariadb, "log_slave_updates").await;
}

async fn replica_that_logs_nothing(flavour: Flavour, variable: &str) {
    // It is the default of MariaDB.
    let Some((program, server)) = ready_with(flavour, &["--log-slave-updates=OFF"]).await else {
        return;
    };
    let replica = Server::start(flavour, &["--log-slave-updates=OFF", "--server-id=1002"]).await;
    let replica = replica.expect("a second server");
    let broker = Broker::loopback().await.expect("a broker");
    let mut session = Session::of(&server).await;
    session.run("CREATE DATABASE shop").await;
    replicate(&server, &replica).await;
    caught_up(&server, &replica).await;
    let what = format!("{variable} is ON");
    for (server, how) in [(&server, "ok "), (&replica, "note ")] {
        let directory = tempfile::tempdir().expect("a directory");
        let url = server.cdc_url();
        let engine = configured(&program, directory.path(), &url, &["shop.*"], &broker);
        let (status, said) = check(&engine).await;
        assert_eq!(status, Some(0), "{said}");
        let said = line(&said, &what);
        assert!(said.starts_with(how), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_databases_that_are_not_logged_are_told_of() {
    databases(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_databases_that_are_not_logged_are_told_of() {
    databases(Flavour::Mariadb).await;
}

async fn databases(flavour: Flavour) {
    let options = ["--binlog-ignore-db=crm"];
    let Some((program, server)) = ready_with(flavour, &options).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let mut session = Session::of(&server).await;
    for statement in [
        "CREATE DATABASE shop",
        "CREATE DATABASE crm",
        "CREATE TABLE shop.t (id INT PRIMARY KEY)",
        "CREATE TABLE crm.t (id INT PRIMARY KEY)",
        "INSERT INTO shop.t VALUES (1)",
        "INSERT INTO crm.t VALUES (1)",
    ] {
        session.run(statement).await;
    }
    for (tables, how, status) in [
        (&["shop.*", "crm.*"][..], "note ", 0),
        (&["crm.*"], "FAIL ", 1),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let url = server.cdc_url();
        let engine = configured(&program, directory.path(), &url, tables, &broker);
        let (found, said) = check(&engine).await;
        assert_eq!(found, Some(status), "{said}");
        let said = line(&said, "every database is logged");
        assert!(said.starts_with(how), "{said}");
        assert!(said.contains("changes in crm are not in the log"), "{said}");
        if status == 0 {
            run_to_end(&engine).await;
            let topics: Vec<String> = (records(&broker).await.into_iter())
                .map(|(topic, _)| topic)
                .collect();
            assert_eq!(topics, ["live.shop.t"]);
        }
    }
}

/// A table with system versioning keeps what its rows were: the server logs that as rows of their own, whose keys end with when they ended.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_rows_of_system_versioning() {
    let Some((program, server)) = ready(Flavour::Mariadb).await else {
        return;
    };
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = server.cdc_url();
    let engine = configured(&program, directory.path(), &url, &["shop.*"], &broker);
    let mut connection = server.connect().await.expect("a connection");
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING",
        "INSERT INTO shop.t VALUES (1, 10), (2, 20)",
        "UPDATE shop.t SET v = 11 WHERE id = 1",
        "DELETE FROM shop.t WHERE id = 2",
    ] {
        (connection.query_drop(statement).await)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    run_to_end(&engine).await;
    let states = states(&broker).await;
    let rows = &states[&("shop".to_owned(), "t".to_owned())];
    let mut found: Vec<(bool, String)> = rows
        .iter()
        .map(|(key, row)| {
            let key: serde_json::Value = serde_json::from_str(key).expect("a key in JSON");
            assert_eq!(key["row_end"], row["row_end"]);
            let now = row["row_end"] == "2038-01-19T03:14:07.999999Z";
            (now, format!("{}:{}", row["id"], row["v"]))
        })
        .collect();
    found.sort();
    let query = "SELECT CONCAT(id, ':', v) FROM shop.t FOR SYSTEM_TIME ALL ORDER BY 1";
    let all: Vec<String> = connection.query(query).await.expect("rows");
    assert_eq!(all, ["1:10", "1:11", "2:20"]);
    let expected = [(false, "1:10"), (false, "2:20"), (true, "1:11")];
    assert_eq!(found, expected.map(|(now, row)| (now, row.to_owned())));
}
