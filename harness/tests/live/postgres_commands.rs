//! `walbrook check` and `walbrook tap` with a real PostgreSQL: what they say, and that they leave nothing behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::seed::postgres::{self as seed, Identity};
use serde_json::Value;

use crate::postgres::set_plugin;
use crate::postgres_faults::{NAME, prepare};
use crate::postgres_refusals::{Stage, configure};
use crate::{check, until};

/// Names of slots and publications.
async fn made(stage: &Stage) -> Vec<String> {
    let names = "SELECT slot_name::text FROM pg_replication_slots UNION ALL SELECT pubname::text FROM pg_publication ORDER BY 1";
    let rows = stage.client.query(names, &[]).await.expect("names");
    rows.iter().map(|row| row.get(0)).collect()
}

fn expect(said: &str, lines: &[&str]) {
    for words in lines {
        assert!(
            said.lines().any(|line| line.starts_with(words)),
            "{words:?} is missing:\n{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_check_says_what_is_missing_and_changes_nothing() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    // Whoever may make everything has it made by the start.
    seed::prepare(&stage.client, Identity::Default)
        .await
        .expect("a table");
    let admin = stage.engine_at("admin", &stage.server.url());
    let (status, said) = check(&admin).await;
    assert_eq!(status, Some(0), "{said}");
    expect(
        &said,
        &[
            "ok    live: wal_level is logical",
            "ok    live: slot walbrook_live can be created",
            "ok    live: publication walbrook_live exists or can be created",
        ],
    );
    assert_eq!(made(&stage).await, [""; 0]);
    // Others are told the statement.
    let cdc = stage.engine("cdc");
    let (status, said) = check(&cdc).await;
    assert_eq!(status, Some(1), "{said}");
    let statement = "CREATE PUBLICATION walbrook_live FOR TABLE ONLY walbrook.events WITH (publish_via_partition_root = true)";
    expect(
        &said,
        &["FAIL  live: publication walbrook_live exists or can be created"],
    );
    assert!(said.contains(statement), "{said}");
    assert_eq!(made(&stage).await, [""; 0]);
    stage.run(statement).await;
    let (status, said) = check(&cdc).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("FAIL") && !said.contains("note"), "{said}");

    // With everything there.
    prepare(&stage.server, false).await;
    let (status, said) = check(&cdc).await;
    assert_eq!(status, Some(0), "{said}");
    expect(
        &said,
        &[
            "ok    live: the role may replicate",
            "ok    live: slot walbrook_live can be used",
            "ok    live: pgoutput sends text in UTF-8",
            "ok    live: publication walbrook_live has every captured table",
            "ok    live: captured tables have a replica identity",
        ],
    );
    assert_eq!(made(&stage).await, [NAME, NAME]);
    // What works, but not as one might think.
    stage
        .run(
            "CREATE TABLE walbrook.log (kind int, PRIMARY KEY (kind)) PARTITION BY LIST (kind); \
             CREATE TABLE walbrook.log_1 PARTITION OF walbrook.log FOR VALUES IN (1); \
             CREATE TABLE walbrook.work (a int); \
             CREATE TABLE walbrook.made (a int PRIMARY KEY, twice int GENERATED ALWAYS AS (a * 2) STORED)",
        )
        .await;
    let (status, said) = check(&cdc).await;
    assert_eq!(status, Some(0), "{said}");
    expect(
        &said,
        &["note  live: generated columns are captured: records lack walbrook.made.twice"],
    );
    assert!(
        said.contains("ALTER TABLE walbrook.work REPLICA IDENTITY FULL"),
        "{said}"
    );
    assert!(!said.contains("rows of partitions"), "{said}");
    configure(&cdc, "walbrook.*", "walbrook.log_1");
    let (status, said) = check(&cdc).await;
    assert_eq!(status, Some(0), "{said}");
    expect(
        &said,
        &["note  live: tables selects partitions by the name that they are sent under"],
    );
    let words = "walbrook.log_1 under that of walbrook.log; write \"walbrook.log\" in tables";
    assert!(said.contains(words), "{said}");
    // The other way round.
    configure(&cdc, "walbrook.log_1", "walbrook.log");
    set_plugin(&cdc, "wal2json");
    let (_, said) = check(&cdc).await;
    let words = "nothing is captured of walbrook.log (walbrook.log_1)";
    assert!(said.contains(words), "{said}");
    let words =
        "FAIL  live: slot walbrook_live can be used: it decodes with pgoutput, not wal2json";
    expect(&said, &[words]);
    stage.run("ALTER ROLE cdc NOREPLICATION").await;
    let (status, said) = check(&cdc).await;
    assert_eq!(status, Some(1), "{said}");
    expect(
        &said,
        &["FAIL  live: the role may replicate: cdc has it not; run ALTER ROLE cdc REPLICATION"],
    );
    // On Amazon RDS nobody can be given it: members of a role may.
    stage
        .run("CREATE ROLE rds_replication; GRANT rds_replication TO cdc")
        .await;
    let (_, said) = check(&cdc).await;
    expect(&said, &["ok    live: the role may replicate"]);
    assert_eq!(made(&stage).await, [NAME, NAME]);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_tap_prints_changes_and_leaves_nothing() {
    let Some(stage) = Stage::set(&[]).await else {
        return;
    };
    seed::prepare(&stage.client, Identity::Full)
        .await
        .expect("a table");
    let tap = |url: &str, out: &std::path::Path| {
        let file = |name: &str| std::fs::File::create(out.join(name)).expect("a file");
        Command::new(&stage.program)
            .args(["tap", url, "--tables", "walbrook.*", "--count", "3"])
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("log"))
            .spawn()
            .expect("walbrook runs")
    };
    let directory = stage.directory.path();
    let said = |name: &str| std::fs::read_to_string(directory.join(name)).expect("a file");
    let mut child = tap(&stage.server.url(), directory);
    let ready = "SELECT count(*) = 1 FROM pg_replication_slots WHERE temporary AND active AND confirmed_flush_lsn IS NOT NULL";
    until("the slot", async || {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "{ended:?}: {}", said("log"));
        stage
            .client
            .query_one(ready, &[])
            .await
            .expect("slots")
            .get(0)
    })
    .await;
    stage
        .run(
            "INSERT INTO walbrook.events VALUES (7, 'é', 'd.io', '2025-02-17 15:19:39'); \
             UPDATE walbrook.events SET category = 'b' WHERE id = 7; DELETE FROM walbrook.events",
        )
        .await;
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it does not end:\n{}\n{}", said("out"), said("log"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(status.success(), "{}", said("log"));
    let out = said("out");
    let lines: Vec<Value> = (out.lines())
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told: Vec<_> = (lines.iter())
        .map(|line| {
            let category = |image: &str| line[image]["category"].as_str();
            (line["op"].as_str(), category("before"), category("after"))
        })
        .collect();
    assert_eq!(
        told,
        [
            (Some("c"), None, Some("é")),
            (Some("u"), Some("é"), Some("b")),
            (Some("d"), Some("b"), None),
        ]
    );
    for line in &lines {
        assert_eq!(line["source"]["table"], "events");
        assert_eq!(line["source"]["db"], "walbrook");
    }
    until("the slot to be gone", async || {
        made(&stage).await.is_empty()
    })
    .await;

    // Whoever may make no publication is told the statement.
    let status = tap(&stage.server.cdc_url(), directory)
        .wait()
        .expect("a child");
    assert_eq!(status.code(), Some(1));
    let log = said("log");
    assert!(log.contains("CREATE PUBLICATION walbrook_tap_"), "{log}");
    assert_eq!(made(&stage).await, [""; 0]);
}
