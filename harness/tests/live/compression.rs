//! Wire compression as real servers do it: the workload over each algorithm, verified, and what the log says about it.

use harness::broker::Broker;
use harness::seed;
use harness::servers::{Flavour, Server};
use harness::truth::Truth;
use harness::verify;
use harness::workload::Workload;
use mysql_async::prelude::Queryable as _;

use crate::{configured, ready, run_to_end};

const CHANGES: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn mysql_compresses_by_zstd_and_by_zlib() {
    let Some((program, server)) = ready(Flavour::Mysql).await else {
        return;
    };
    let truth = seeded(&server).await;
    let plain = stream(
        &program,
        &server,
        "compression=off",
        "off: as the url says",
        &truth,
    )
    .await;
    // With TLS, the server's default, and without.
    for (options, says) in [
        ("compression=zstd", "zstd: as the url says"),
        ("compression=zlib", "zlib: as the url says"),
        ("compression=zstd&tls=disable", "zstd: as the url says"),
        ("compression=auto", "off: the round trip of"),
    ] {
        let received = stream(&program, &server, options, says, &truth).await;
        let is_compressed = !says.starts_with("off");
        assert_eq!(
            received < plain / 2,
            is_compressed,
            "{options}: {received} bytes came over the line, {plain} without compression"
        );
    }

    // A server that offers no zstd.
    let mut connection = server.connect().await.expect("a connection");
    let setting = "SET GLOBAL protocol_compression_algorithms = 'zlib,uncompressed'";
    connection.query_drop(setting).await.expect("a setting");
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("{}?compression=zstd", server.cdc_url());
    let engine = configured(&program, directory.path(), &url, &["walbrook.*"], &broker);
    let mut running = engine.start().expect("an engine");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let status = running.ended(deadline).await.expect("its end");
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    assert!(
        engine
            .last_words()
            .contains("the server does not offer zstd compression"),
        "{}",
        engine.last_words()
    );
    stream(
        &program,
        &server,
        "compression=zlib",
        "zlib: as the url says",
        &truth,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_compresses_by_zlib() {
    let Some((program, server)) = ready(Flavour::Mariadb).await else {
        return;
    };
    let truth = seeded(&server).await;
    let plain = stream(
        &program,
        &server,
        "compression=off",
        "off: as the url says",
        &truth,
    )
    .await;
    let received = stream(
        &program,
        &server,
        "compression=zlib",
        "zlib: as the url says",
        &truth,
    )
    .await;
    assert!(received < plain / 2, "{received} of {plain} bytes");
}

/// The workload in the server's log, and what must come out.
async fn seeded(server: &Server) -> Truth {
    let workload = Workload::new(CHANGES, 42);
    let mut connection = server.connect().await.expect("a connection");
    seed::mysql::seed(&mut connection, &workload)
        .await
        .expect("the workload")
}

/// Streams all of it over a connection of these options, and verifies it; how many bytes came over the line.
async fn stream(
    program: &std::path::Path,
    server: &Server,
    options: &str,
    says: &str,
    truth: &Truth,
) -> u64 {
    let broker = Broker::loopback().await.expect("a broker");
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("{}?{options}", server.cdc_url());
    let engine = configured(program, directory.path(), &url, &["walbrook.*"], &broker);
    run_to_end(&engine).await;
    let settings = verify::Settings {
        brokers: broker.bootstrap(),
        truth: truth.clone(),
        topic: Some("live.walbrook.events".to_owned()),
        client: verify::Client::Rskafka,
        allow_repeated: false,
    };
    let findings = verify::verify(&settings).await.expect("a readable topic");
    assert!(
        findings.failures.is_empty(),
        "{options}: {:#?}",
        findings.failures
    );
    let log = std::fs::read_to_string(engine.log()).expect("a log");
    assert!(
        log.contains(&format!("wire compression {says}")),
        "{options}: {log}"
    );
    let report = std::fs::read_to_string(engine.report()).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    report["bytes_in"].as_u64().expect("bytes_in")
}
