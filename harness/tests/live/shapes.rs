//! Rows without column names: `binlog_row_metadata=MINIMAL` and `NO_LOG`. The names are those of the time when a row was written, or
//! there is no record of it.

use std::collections::BTreeMap;

use harness::broker::Broker;
use harness::replay::engine::Engine;
use harness::servers::{Flavour, Server};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::records::{records, states};
use crate::{configured, position, ready, run_to_end, run_to_halt, select};

/// A server that writes no names, an engine, and where its records go.
struct Nameless {
    server: Server,
    connection: Conn,
    broker: Broker,
    engine: Engine,
    _directory: tempfile::TempDir,
}

impl Nameless {
    async fn new(flavour: Flavour) -> Option<Self> {
        let (program, server) = ready(flavour).await?;
        let broker = Broker::loopback().await.expect("a broker");
        let directory = tempfile::tempdir().expect("a directory");
        let tables = ["shop.*"];
        let url = server.cdc_url();
        let engine = configured(&program, directory.path(), &url, &tables, &broker);
        let mut connection = server.connect().await.expect("a connection");
        let metadata = match flavour {
            Flavour::Mariadb => "NO_LOG",
            _ => "MINIMAL",
        };
        let set = format!("SET GLOBAL binlog_row_metadata = {metadata}");
        connection.query_drop(set).await.expect("a setting");
        let mut nameless = Self {
            server,
            connection,
            broker,
            engine,
            _directory: directory,
        };
        nameless.run("CREATE DATABASE shop").await;
        nameless
            .run("CREATE TABLE shop.t (id INT PRIMARY KEY, a INT NOT NULL, b INT NOT NULL)")
            .await;
        Some(nameless)
    }

    async fn run(&mut self, statement: &str) {
        self.connection
            .query_drop(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Where the server stands, as `FILE:OFFSET`.
    async fn end(&mut self) -> String {
        let query = match self.server.flavour() {
            Flavour::Mariadb => "SHOW MASTER STATUS",
            _ => "SHOW BINARY LOG STATUS",
        };
        let row: mysql_async::Row = (self.connection.query_first(query).await)
            .expect("a status")
            .expect("a row");
        let file: String = row.get(0).expect("a file");
        let offset: u64 = row.get(1).expect("an offset");
        format!("{file}:{offset}")
    }

    /// The rows that records left in a table, by their key.
    async fn rows(&self, table: &str) -> BTreeMap<String, Value> {
        let mut states = states(&self.broker).await;
        (states.remove(&("shop".to_owned(), table.to_owned()))).unwrap_or_default()
    }
}

/// A column is renamed while the engine is stopped in front of it: the rows before have the old name, those behind it the new one.
async fn renamed_behind_the_checkpoint(flavour: Flavour) {
    let Some(mut it) = Nameless::new(flavour).await else {
        return;
    };
    it.run("INSERT INTO shop.t VALUES (1, 10, 100)").await;
    run_to_end(&it.engine).await;
    it.run("INSERT INTO shop.t VALUES (2, 20, 200)").await;
    it.run("ALTER TABLE shop.t RENAME COLUMN a TO c").await;
    it.run("INSERT INTO shop.t VALUES (3, 30, 300)").await;
    run_to_end(&it.engine).await;
    let expected = [
        ("{\"id\":1}", json!({"id": 1, "a": 10, "b": 100})),
        ("{\"id\":2}", json!({"id": 2, "a": 20, "b": 200})),
        ("{\"id\":3}", json!({"id": 3, "c": 30, "b": 300})),
    ];
    let expected = expected.map(|(key, row)| (key.to_owned(), row));
    assert_eq!(it.rows("t").await, BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_names_are_kept_over_a_restart() {
    renamed_behind_the_checkpoint(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_names_are_kept_over_a_restart() {
    renamed_behind_the_checkpoint(Flavour::Mariadb).await;
}

/// The first start lies before a change that the types do not show: no record, but a halt that says what to do; and doing it helps.
async fn changed_before_the_first_start(flavour: Flavour) {
    let Some(mut it) = Nameless::new(flavour).await else {
        return;
    };
    it.run("CREATE TABLE shop.other (id INT PRIMARY KEY, n INT NOT NULL)")
        .await;
    it.run("INSERT INTO shop.other VALUES (1, 1)").await;
    it.run("INSERT INTO shop.t VALUES (1, 10, 100)").await;
    // Swapped: types and NULL-ability are the same.
    it.run("ALTER TABLE shop.t CHANGE a b INT NOT NULL, CHANGE b a INT NOT NULL")
        .await;
    let behind = it.end().await;
    it.run("INSERT INTO shop.t VALUES (2, 200, 20)").await;
    // None of these changes what shop.t looks like.
    it.run("CREATE TABLE IF NOT EXISTS shop.t (id INT PRIMARY KEY)")
        .await;
    it.run("ALTER TABLE shop.other RENAME COLUMN n TO m").await;
    for _ in 0..2 {
        let said = run_to_halt(&it.engine).await;
        for part in [
            "the names of shop.",
            "cannot be known",
            "ALTER TABLE shop.",
            "walbrook position set",
        ] {
            assert!(said.contains(part), "{part:?} is missing:\n{said}");
        }
        assert_eq!(it.rows("t").await, BTreeMap::new(), "{said}");
    }
    // Without the other table it is shop.t that is named, with the place behind its change.
    let text = std::fs::read_to_string(it.engine.config()).expect("a configuration");
    let text = text.replace("[\"shop.*\"]", "[\"shop.*\", \"!shop.other\"]");
    std::fs::write(it.engine.config(), text).expect("a configuration");
    let said = run_to_halt(&it.engine).await;
    assert!(said.contains("the names of shop.t's columns"), "{said}");
    assert!(said.contains(&behind), "{behind} is missing:\n{said}");
    position(&it.engine, &["set", &behind]);
    run_to_end(&it.engine).await;
    let row = json!({"id": 2, "b": 200, "a": 20});
    let expected = BTreeMap::from([("{\"id\":2}".to_owned(), row)]);
    assert_eq!(it.rows("t").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_names_that_cannot_be_known_halt() {
    changed_before_the_first_start(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_names_that_cannot_be_known_halt() {
    changed_before_the_first_start(Flavour::Mariadb).await;
}

/// An ALTER in two phases changes its table at its end only, and one that fails changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_alters_in_two_phases() {
    let Some(mut it) = Nameless::new(Flavour::Mariadb).await else {
        return;
    };
    it.run("SET SESSION binlog_alter_two_phase = 1").await;
    it.run("INSERT INTO shop.t VALUES (1, 10, 100), (2, 20, 100)")
        .await;
    let failed = (it.connection)
        .query_drop("ALTER TABLE shop.t ADD UNIQUE (b)")
        .await;
    failed.expect_err("a value that is there twice");
    run_to_end(&it.engine).await;
    it.run("INSERT INTO shop.t VALUES (3, 30, 300)").await;
    it.run("ALTER TABLE shop.t RENAME COLUMN a TO c").await;
    it.run("INSERT INTO shop.t VALUES (4, 40, 400)").await;
    let phases: Vec<mysql_async::Row> =
        (it.connection.query("SHOW BINLOG EVENTS").await).expect("events");
    let phases: Vec<String> = phases.iter().filter_map(|row| row.get(5)).collect();
    for phase in ["START ALTER", "COMMIT ALTER", "ROLLBACK ALTER"] {
        assert!(phases.iter().any(|it| it.contains(phase)), "{phases:?}");
    }
    run_to_end(&it.engine).await;
    let expected = [
        ("{\"id\":1}", json!({"id": 1, "a": 10, "b": 100})),
        ("{\"id\":2}", json!({"id": 2, "a": 20, "b": 100})),
        ("{\"id\":3}", json!({"id": 3, "a": 30, "b": 300})),
        ("{\"id\":4}", json!({"id": 4, "c": 40, "b": 400})),
    ];
    let expected = expected.map(|(key, row)| (key.to_owned(), row));
    assert_eq!(it.rows("t").await, BTreeMap::from(expected));
}

/// information_schema escapes labels, and the binary log has none here.
async fn escaped_labels(flavour: Flavour) {
    let Some(mut it) = Nameless::new(flavour).await else {
        return;
    };
    it.run(
        r"CREATE TABLE shop.l (id INT PRIMARY KEY, e ENUM('C:\\x', 'a\nb', 'it''s', 'c\rd'), s SET('C:\\n', 'x\0y', '\\'))",
    )
    .await;
    it.run("INSERT INTO shop.l VALUES (1, 1, 1), (2, 2, 2), (3, 3, 4), (4, 4, 7)")
        .await;
    run_to_end(&it.engine).await;
    let expected = [
        ("{\"id\":1}", json!({"id": 1, "e": "C:\\x", "s": "C:\\n"})),
        ("{\"id\":2}", json!({"id": 2, "e": "a\nb", "s": "x\0y"})),
        ("{\"id\":3}", json!({"id": 3, "e": "it's", "s": "\\"})),
        (
            "{\"id\":4}",
            json!({"id": 4, "e": "c\rd", "s": "C:\\n,x\0y,\\"}),
        ),
    ];
    let expected = expected.map(|(key, row)| (key.to_owned(), row));
    assert_eq!(it.rows("l").await, BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_labels_are_those_of_the_table() {
    escaped_labels(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_labels_are_those_of_the_table() {
    escaped_labels(Flavour::Mariadb).await;
}

/// A system-versioned table has two columns that no description of it lists, and its rows of the past are rows of their own.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_versioned_tables_have_their_hidden_columns() {
    let Some(mut it) = Nameless::new(Flavour::Mariadb).await else {
        return;
    };
    for (table, key) in [("v", "PRIMARY KEY"), ("u", "NOT NULL UNIQUE")] {
        let create =
            format!("CREATE TABLE shop.{table} (id INT {key}, v INT) WITH SYSTEM VERSIONING");
        it.run(&create).await;
        it.run(&format!("INSERT INTO shop.{table} VALUES (1, 1)"))
            .await;
        it.run(&format!("UPDATE shop.{table} SET v = 2")).await;
    }
    run_to_end(&it.engine).await;
    for table in ["v", "u"] {
        let rows = it.rows(table).await;
        let told = format!("{table}: {rows:?}");
        assert_eq!(rows.len(), 2, "{told}");
        let now = "{\"id\":1,\"row_end\":\"2038-01-19T03:14:07.999999Z\"}";
        for (key, row) in &rows {
            let key_of_row = json!({"id": row["id"], "row_end": row["row_end"]});
            assert_eq!(*key, key_of_row.to_string(), "{told}");
            assert!(row["row_start"].is_string(), "{told}");
            assert_eq!(row["v"], if key == now { 2 } else { 1 }, "{told}");
        }
        assert!(rows.contains_key(now), "{told}");
    }
}

/// MariaDB adds a column to a table for each of its unique indices that is a hash: no SELECT shows it, and no record.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_hashes_of_unique_indices_are_not_written() {
    let Some(mut it) = Nameless::new(Flavour::Mariadb).await else {
        return;
    };
    it.run("SET NAMES utf8mb4").await;
    for (n, metadata) in ["NO_LOG", "MINIMAL", "FULL"].iter().enumerate() {
        let set = format!("SET GLOBAL binlog_row_metadata = {metadata}");
        it.run(&set).await;
        // A name that is taken, several, one that is NULL, one over two columns; with a history.
        for definition in [
            "one# (id INT PRIMARY KEY, t TEXT, DB_ROW_HASH_1 INT, UNIQUE (t))",
            "many# (id INT PRIMARY KEY, t TEXT, b BIGINT UNSIGNED, v VARCHAR(20), UNIQUE (t), UNIQUE (v, b) USING HASH, UNIQUE (v))",
            "past# (id INT PRIMARY KEY, t TEXT, UNIQUE (t)) WITH SYSTEM VERSIONING",
        ] {
            let create = format!("CREATE TABLE shop.{definition}").replace('#', &n.to_string());
            it.run(&create).await;
        }
        for change in [
            "INSERT INTO shop.one# VALUES (1, 'ü', 5), (2, NULL, 6), (3, 'x', 7)",
            "UPDATE shop.one# SET t = 'y' WHERE id = 2",
            "DELETE FROM shop.one# WHERE id = 3",
            "INSERT INTO shop.many# VALUES (1, 'a', 18446744073709551615, 'b'), (2, NULL, NULL, NULL), (3, 'c', 3, 'd')",
            "SET SESSION binlog_row_image = MINIMAL",
            "UPDATE shop.many# SET t = 'z', b = 7, v = 'w' WHERE id = 2",
            "DELETE FROM shop.many# WHERE id = 3",
            "SET SESSION binlog_row_image = FULL",
            "INSERT INTO shop.past# VALUES (1, 'a'), (2, NULL)",
        ] {
            it.run(&change.replace('#', &n.to_string())).await;
        }
    }
    run_to_end(&it.engine).await;
    let mut compared = 0;
    for n in 0..3 {
        for table in ["one", "many"] {
            let table = format!("{table}{n}");
            let (columns, _) = select::columns(&mut it.connection, "shop", &table).await;
            let rows = select::rows(&mut it.connection, "shop", &table, &columns).await;
            let expected = rows.iter().map(|row| {
                let cells = columns.iter().zip(row);
                let cells = cells.map(|(column, cell)| {
                    let value = select::expected(column, cell.as_deref());
                    (column.name.clone(), value)
                });
                let row: serde_json::Map<String, Value> = cells.collect();
                (format!("{{\"id\":{}}}", row["id"]), Value::Object(row))
            });
            let expected: BTreeMap<String, Value> = expected.collect();
            assert_eq!(expected.len(), 2, "{table}");
            assert_eq!(it.rows(&table).await, expected, "{table}");
            compared += 1;
        }
        let rows = it.rows(&format!("past{n}")).await;
        let texts: Vec<&Value> = rows.values().map(|row| &row["t"]).collect();
        assert_eq!(texts, [&json!("a"), &Value::Null]);
        for row in rows.values() {
            let mut names: Vec<&String> = row.as_object().expect("a row").keys().collect();
            names.sort();
            assert_eq!(names, ["id", "row_end", "row_start", "t"]);
        }
    }
    assert_eq!(compared, 6);
}

/// With names in the binary log, only the types that it does not tell are asked: a table that is altered later is read as it was.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_names_in_the_log_outlast_an_alter() {
    let Some(mut it) = Nameless::new(Flavour::Mariadb).await else {
        return;
    };
    const UUID: &str = "123e4567-e89b-12d3-a456-426655440000";
    for statement in [
        "SET GLOBAL binlog_row_metadata = FULL",
        "CREATE TABLE shop.text (id INT PRIMARY KEY, a CHAR(1), b CHAR(4), c CHAR(16) CHARACTER SET latin1) CHARACTER SET utf8mb4",
        "CREATE TABLE shop.ids (id INT PRIMARY KEY, u UUID, b BINARY(4))",
        "INSERT INTO shop.text VALUES (1, 'a', 'b', 'c')",
        &format!("INSERT INTO shop.ids VALUES (1, '{UUID}', X'00010203')"),
        "ALTER TABLE shop.text ADD COLUMN n INT FIRST, RENAME COLUMN b TO d",
        "ALTER TABLE shop.ids ADD COLUMN n INT FIRST",
    ] {
        it.run(statement).await;
    }
    run_to_end(&it.engine).await;
    let row = |row: Value| BTreeMap::from([("{\"id\":1}".to_owned(), row)]);
    let text = row(json!({"id": 1, "a": "a", "b": "b", "c": "c"}));
    assert_eq!(it.rows("text").await, text);
    let ids = row(json!({"id": 1, "u": UUID, "b": "AAECAw=="}));
    assert_eq!(it.rows("ids").await, ids);

    it.run(&format!("INSERT INTO shop.ids VALUES (5, 2, '{UUID}', '')"))
        .await;
    it.run("ALTER TABLE shop.ids DROP COLUMN u").await;
    let said = run_to_halt(&it.engine).await;
    for part in [
        "the types of shop.ids's columns",
        "it has no column u",
        "walbrook position set",
        "tables = [\"!shop.ids\"]",
    ] {
        assert!(said.contains(part), "{part:?} is missing:\n{said}");
    }
}

/// Kills at any moment while columns are renamed again and again: every record has the names of its time, or there is none.
#[tokio::test(flavor = "multi_thread")]
async fn mysql_names_are_right_whenever_the_engine_dies() {
    let Some(mut it) = Nameless::new(Flavour::Mysql).await else {
        return;
    };
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let (mut id, mut halts) = (0, 0);
    let mut random = seed;
    let mut names = ("a".to_owned(), "b".to_owned());
    let mut expected = BTreeMap::new();
    for round in 0..8 {
        let mut running = it.engine.start().expect("the engine starts");
        for _ in 0..20 {
            id += 1;
            let insert = format!(
                "INSERT INTO shop.t VALUES ({id}, {}, {})",
                id * 10,
                id * 100
            );
            it.run(&insert).await;
            let row = [("id", id), (&*names.0, id * 10), (&*names.1, id * 100)];
            let row: serde_json::Map<String, Value> = (row.into_iter())
                .map(|(name, n)| (name.to_owned(), n.into()))
                .collect();
            expected.insert(format!("{{\"id\":{id}}}"), Value::Object(row));
        }
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        tokio::time::sleep(std::time::Duration::from_millis(random >> 33 & 0xff)).await;
        // Still running or done: both are states to start from.
        let _ = running.kill();
        drop(running);
        let old = std::mem::replace(&mut names.0, format!("a{round}"));
        let rename = format!("ALTER TABLE shop.t RENAME COLUMN {old} TO {}", names.0);
        it.run(&rename).await;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut running = it.engine.start().expect("the engine starts");
        let status = running.ended(deadline).await.expect("a child");
        let status = status.unwrap_or_else(|| panic!("it hangs:\n{}", it.engine.last_words()));
        if !status.success() {
            // Killed before anything was kept: nobody knows the names of the rows before the change any more.
            let said = it.engine.last_words();
            assert!(said.contains("the names of shop.t's columns"), "{said}");
            halts += 1;
            let end = it.end().await;
            position(&it.engine, &["set", &end]);
        }
    }
    let found = it.rows("t").await;
    for (key, row) in &found {
        assert_eq!(row, &expected[key], "{key}");
    }
    println!("{} of {id} rows, {halts} halts", found.len());
    if halts == 0 {
        assert_eq!(found.len(), expected.len());
    }
}

/// The binary log names the key of its time, also that of a table without a primary key: an index that is newer than a row is not its
/// key, whenever the row is read.
async fn indexed_before_the_first_start(flavour: Flavour) {
    let Some(mut it) = Nameless::new(flavour).await else {
        return;
    };
    for statement in [
        "SET GLOBAL binlog_row_metadata = FULL",
        "CREATE TABLE shop.none (a INT NOT NULL, b INT NOT NULL)",
        "CREATE TABLE shop.one (a INT NOT NULL, b INT NOT NULL, UNIQUE KEY v (b))",
        "INSERT INTO shop.none VALUES (1, 10)",
        "INSERT INTO shop.one VALUES (1, 10)",
        "CREATE UNIQUE INDEX u ON shop.none (a)",
        // Before the other one by its name.
        "CREATE UNIQUE INDEX u ON shop.one (a)",
        "INSERT INTO shop.none VALUES (2, 20)",
        "INSERT INTO shop.one VALUES (2, 20)",
        "DROP INDEX v ON shop.one",
        "INSERT INTO shop.one VALUES (3, 30)",
        "DROP INDEX u ON shop.one",
        "INSERT INTO shop.one VALUES (4, 40)",
    ] {
        it.run(statement).await;
    }
    run_to_end(&it.engine).await;
    let mut keys = BTreeMap::new();
    for (topic, record) in records(&it.broker).await {
        let value = record.value.expect("no deletes");
        let value: Value = serde_json::from_slice(&value).expect("JSON");
        let key = record.key.map(|key| String::from_utf8(key).expect("text"));
        keys.insert((topic, value["after"]["a"].as_i64()), key);
    }
    let expected = [
        ("none", 1, None),
        ("none", 2, Some("{\"a\":2}")),
        ("one", 1, Some("{\"b\":10}")),
        ("one", 2, Some("{\"b\":20}")),
        ("one", 3, Some("{\"a\":3}")),
        ("one", 4, None),
    ];
    let expected = expected.map(|(table, row, key)| {
        let key = key.map(str::to_owned);
        ((format!("live.shop.{table}"), Some(row)), key)
    });
    assert_eq!(keys, BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_keys_are_those_of_their_time() {
    indexed_before_the_first_start(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_keys_are_those_of_their_time() {
    indexed_before_the_first_start(Flavour::Mariadb).await;
}
