//! Scenarios over emulated links: the engine as a process in a namespace, everything verified. Times are reported, not asserted.
//!
//! Needs root, iproute2 and `/dev/net/tun`, and the built engine (`WALBROOK`, or beside this test's own directory). Without privileges
//! these tests say so and pass, except with `CI=true`.

use std::path::PathBuf;
use std::process::Command;

use harness::links::Links;
use harness::replay::report::Report;
use harness::replay::scenario::Scenario;
use harness::replay::{Outcome, program_for_test, replay};
use harness::servers::kafka::Programs;
use harness::servers::{Flavour, install};

fn engine() -> PathBuf {
    program_for_test().unwrap_or_else(|error| panic!("{error}"))
}

/// One scenario at a time: each takes the whole machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Says that what `name` tests cannot be tested here.
fn skipped(name: &str, why: &dyn std::fmt::Display) {
    assert!(!harness::is_ci(), "required in CI: {why}");
    eprintln!("SKIPPED {name}: {why}");
}

/// Replays the committed scenario `name`; `None` where its links cannot be.
async fn verified(name: &str) -> Option<(Report, Outcome)> {
    let scenario = Scenario::read(name.as_ref()).unwrap();
    run(name, &scenario).await
}

/// Replays `scenario` and expects it to be verified; `None` where its links cannot be.
async fn run(name: &str, scenario: &Scenario) -> Option<(Report, Outcome)> {
    let _alone = ALONE.lock().await;
    if let Err(error) = Links::open(scenario, None) {
        skipped(name, &error);
        return None;
    }
    let (report, outcome) = replay(scenario, &engine(), 1, false).await.unwrap();
    let figures = &report.figures;
    println!(
        "{name}: {} changes in {:.2} s",
        figures.changes, figures.seconds
    );
    for line in figures.links.iter().flat_map(|links| links.lines()) {
        println!("  {line}");
    }
    assert!(
        report.holds(),
        "{name}: {:#?} {:#?}",
        report.failures,
        report.unmet
    );
    Some((report, outcome))
}

/// The committed scenario `name`, each of these texts in it replaced: smaller.
fn small(name: &str, replaced: &[(&str, &str)]) -> String {
    let committed = fixtures::directory().join(format!("scenarios/{name}.toml"));
    let mut text = std::fs::read_to_string(committed).unwrap();
    for (large, small) in replaced {
        assert!(text.contains(large), "{large}: {text}");
        text = text.replace(large, small);
    }
    text
}

/// The scenario of this text, checked as those of files are.
fn scenario(name: &str, text: &str) -> Scenario {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    Scenario::read(&path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_behind_links_at_once_from_two_databases() {
    verified("list-sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_lost() {
    let Some((report, _)) = verified("lossy").await else {
        return;
    };
    for link in report.figures.links.unwrap().links {
        for way in [&link.to_engine, &link.from_engine] {
            assert!(way.lost > 0, "nothing was lost: {link:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_cut_again_and_again() {
    let Some((_, outcome)) = verified("flapping").await else {
        return;
    };
    // A cut that only counts as one cuts nothing.
    let report = &outcome.engine_report;
    assert!(report["reconnects"].as_u64() > Some(0), "{report}");
}

/// As `flapping`, with fewer rows, read by io_uring.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_over_links_that_are_cut() {
    let replaced = [
        (
            "\"mysql-9.7-1m\"",
            "\"mysql-9.7-20k\"\nrate_changes_per_second = 10_000",
        ),
        ("50_000", "4_000"),
        ("rows = 1_000_000", "rows = 20_000"),
        ("faults_min = 10", "faults_min = 4"),
    ];
    by_ring("flapping", &small("flapping", &replaced)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_segments_of_one_byte() {
    by_ring("one-byte", &small("one-byte", &ONE_BYTE_SMALL)).await;
}

/// Replays the scenario of this text with `engine.io = "uring"`, where there is a ring to be had.
async fn by_ring(name: &str, text: &str) {
    let ring = io_uring::IoUring::new(8).and_then(|ring| ring.submit());
    if let Err(error) = ring {
        eprintln!("\n*** SKIPPED: {name} by io_uring, which this machine has not: {error}\n");
        return;
    }
    let mut scenario = scenario(name, text);
    scenario.set("engine.io=uring").unwrap();
    let Some((report, _)) = run(name, &scenario).await else {
        return;
    };
    for source in &report.sources {
        assert_eq!(source.io.as_deref(), Some("uring"), "{name}: {source:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_fall_silent() {
    verified("stall").await;
}

/// As `slow-link`, with fewer rows, and the codec that follows the link: what waits for it is what zstd is for.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_far_away_behind_a_thin_link() {
    let replaced = [
        (
            "\"mysql-9.7-1m\"",
            "\"mysql-9.7-20k\"\none_transaction_rows = 200_000",
        ),
        ("rows = 1_000_000", "rows = 200_000"),
    ];
    let mut scenario = scenario("slow-link", &small("slow-link", &replaced));
    scenario.set("kafka.compression=auto").unwrap();
    let Some((_, outcome)) = run("slow-link", &scenario).await else {
        return;
    };
    let codecs = &outcome.engine_report["compression"];
    for codec in ["lz4", "zstd"] {
        assert!(codecs[codec].as_u64() > Some(0), "{codecs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_far_away_behind_a_thin_link() {
    let replaced = [("1m\"", "20k\""), ("rows = 1_000_000", "rows = 20_000")];
    let scenario = scenario("far-source", &small("far-source", &replaced));
    let Some((report, outcome)) = run("far-source", &scenario).await else {
        return;
    };
    // So far away the stream is compressed, as nothing else says.
    let links = report.figures.links.unwrap();
    let came = links.links[0].to_engine.bytes;
    let stream = outcome.figures.bytes_in;
    if links.backend == "proxy" {
        // A relay answers from beside the engine, whatever it holds back: no server looks far away behind it.
        assert!(!harness::is_ci(), "required in CI: links of packets");
        eprintln!(
            "\n*** SKIPPED: far-source's compression: behind a relay the server looks near\n"
        );
        return;
    }
    assert!(came < stream * 3 / 4, "{came} bytes came for {stream}");
}

/// As `far-source-off`, with fewer rows: all of the stream comes over the link.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_from_far_away_is_as_it_is_where_that_is_asked_for() {
    let replaced = [("1m\"", "20k\""), ("rows = 1_000_000", "rows = 20_000")];
    let scenario = scenario("far-source-off", &small("far-source-off", &replaced));
    let Some((report, outcome)) = run("far-source-off", &scenario).await else {
        return;
    };
    let came = report.figures.links.unwrap().links[0].to_engine.bytes;
    let stream = outcome.figures.bytes_in;
    assert!(came >= stream, "{came} bytes came for {stream}");
}

/// As `one-byte`, with a database of each kind.
const ONE_BYTE_SMALL: [(&str, &str); 3] = [
    ("[[source]]\nrecording = \"mysql-5.6-20k\"\n", ""),
    ("[[source]]\nrecording = \"mariadb-10.11-20k\"\n", ""),
    ("rows = 80_000", "rows = 40_000"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_segment_carries_one_byte() {
    let scenario = scenario("one-byte", &small("one-byte", &ONE_BYTE_SMALL));
    run("one-byte", &scenario).await;
}

/// As `one-byte-wal2json`, whose JSON takes half a minute by single bytes: three split all that it consists of, too.
#[tokio::test(flavor = "multi_thread")]
async fn every_segment_of_json_carries_three_bytes() {
    let replaced = [(
        "[link.source]\nsegment_bytes = 1",
        "[link.source]\nsegment_bytes = 3",
    )];
    let name = "one-byte-wal2json";
    run(name, &scenario(name, &small(name, &replaced))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_while_every_segment_carries_one_byte() {
    // Not faster, so that there is something to come when the fault begins, however late that is seen.
    let text = "[[source]]\nrecording = \"mysql-9.7-20k\"\nrate_changes_per_second = 5_000\n\
        [link.source]\ndelay_ms = 1\n[link.kafka]\ndelay_ms = 1\n\
        [[fault]]\nat_changes = 2_000\nlink = \"source\"\ndo = \"one_byte\"\nfor_ms = 400\n\
        [[fault]]\nat_changes = 6_000\nlink = \"kafka\"\ndo = \"one_byte\"\nfor_ms = 400\n\
        [expect]\nrows = 20_000\nfaults_min = 2\n";
    let Some((report, _)) = run("one byte", &scenario("one-byte-fault", text)).await else {
        return;
    };
    let links = report.figures.links.unwrap();
    for link in &links.links {
        // The stream takes a thousand packets or two; in one burst of single bytes there are more. A relay counts no packets.
        let packets = link.to_engine.packets + link.from_engine.packets;
        assert!(links.backend == "proxy" || packets > 5_000, "{link:?}");
        assert_eq!(link.to_engine.profile, "delay 1ms", "the fault is over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_committed_into_a_mysql_behind_a_link() {
    load_over_links(Flavour::Mysql, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_committed_into_a_mariadb_behind_a_link() {
    load_over_links(Flavour::Mariadb, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_committed_into_a_postgres_behind_a_link() {
    load_over_links(Flavour::Postgres, true).await;
}

/// The scenario `NAME-idle-link`, shorter; `has_commit_times`: the source says when a transaction was committed.
async fn load_over_links(flavour: Flavour, has_commit_times: bool) {
    let name = format!("{}-idle-link", flavour.name());
    if let Err(error) = tokio::task::block_in_place(|| install(flavour)) {
        skipped(&name, &error);
        return;
    }
    let mut scenario = Scenario::read(name.as_ref()).unwrap();
    let load = scenario.load.as_mut().unwrap();
    (load.warm_up_seconds, load.seconds, load.bare_seconds) = (0.5, 2.5, 0.0);
    let Some((report, _)) = run(&name, &scenario).await else {
        return;
    };
    let figures = &report.figures;
    let load = figures.load.as_ref().unwrap();
    assert!(load.commits > 20, "{} commits", load.commits);
    assert_eq!(figures.changes, load.commits);
    // What the links take is measured, and never less than what they are told to take.
    let over = load.over_links.unwrap();
    let (source, kafka) = (over.source.unwrap(), over.kafka.unwrap());
    for way in [source, kafka].map(|link| [link.to_engine_ms, link.from_engine_ms]) {
        assert!(way.into_iter().all(|ms| ms >= 10.0), "{over:?}");
    }
    assert!(over.round_trip_ms >= 30.0, "{over:?}");
    let commit = |name| figures.commit_ms(name).unwrap();
    assert!(commit("p50") >= 20.0, "{}", figures.commit_latency_ms);
    let there = source.to_engine_ms + kafka.from_engine_ms;
    let above = over.commit_ms.unwrap();
    assert!((commit("p50") - there - above.p50).abs() < 1e-6, "{over:?}");
    // The engine's own, with the answer's way back.
    let own = load.acknowledged_ms("p50");
    assert_eq!(own.is_some(), has_commit_times);
    assert!(own.is_none_or(|own| own >= 30.0), "{own:?}");
    let links = figures.links.as_ref().unwrap();
    assert_eq!(links.links.len(), 2);
    assert!(links.links.iter().all(|link| link.to_engine.bytes > 0));
    println!("  {}, over that {above:?}", over.round_trip_ms);
}

/// With its workload waiting, behind a link that is cut: the server sees its reader go, and another one come.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_server_is_behind_a_link_that_is_cut() {
    if let Err(error) = tokio::task::block_in_place(|| install(Flavour::Mysql)) {
        skipped("a live server behind a link", &error);
        return;
    }
    let text = "[[source]]\nserver = \"mysql\"\nrows = 20_000\n[link.source]\ndelay_ms = 1\nrate_mbit = 4\n\
        [[fault]]\nat_changes = 4_000\nlink = \"source\"\ndo = \"cut\"\n\
        [expect]\nrows = 20_000\nfaults_min = 1\n";
    let scenario = scenario("mysql-live-cut", text);
    let Some((report, outcome)) = run("mysql-live-cut", &scenario).await else {
        return;
    };
    let own = &outcome.engine_report;
    assert!(own["reconnects"].as_u64() > Some(0), "{own}");
    // How long its commits waited is told: they are of this run.
    assert!(report.figures.commit_ms("p99") > Some(0.0));
}

/// As `list-sync-kafka`, with fewer rows, cold brokers and links that fail. As a process, because this one's environment may name brokers
/// for other tests.
#[tokio::test(flavor = "multi_thread")]
async fn real_brokers_are_behind_links_of_their_own() {
    const NAME: &str = "list-sync-kafka";
    let _alone = ALONE.lock().await;
    let committed = fixtures::directory().join(format!("scenarios/{NAME}.toml"));
    if let Err(error) = Links::open(&Scenario::read(&committed).unwrap(), None) {
        skipped(NAME, &error);
        return;
    }
    if let Err(error) = tokio::task::block_in_place(Programs::install) {
        skipped(NAME, &error);
        return;
    }
    let replaced = [
        // Slowly: when the last fault is due, half of it is still to come, however late that is seen.
        (
            "\"mysql-9.7-1m\"",
            "\"mysql-9.7-20k\"\nrate_changes_per_second = 5_000",
        ),
        (
            "\"postgres-15-1m\"",
            "\"postgres-15-20k\"\nrate_changes_per_second = 5_000",
        ),
        ("rows = 2_000_000", "rows = 40_000\nfaults_min = 2"),
        ("warm_up_records = 4_000_000", "warm_up_records = 0"),
    ];
    let mut text = small(NAME, &replaced);
    text += "[[fault]]\nat_changes = 8_000\nlink = \"brokers\"\ndo = \"stall\"\nfor_ms = 700\n\
             [[fault]]\nat_changes = 20_000\nlink = \"kafka\"\ndo = \"cut\"\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("small.toml");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["replay", "--no-timing", "--report"])
        .arg(directory.path())
        .arg("--walbrook")
        .arg(engine())
        .arg(&path)
        .env_remove("WALBROOK_KAFKA")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let report = std::fs::read(directory.path().join("small.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(report["faults"].as_array().map(Vec::len), Some(2));
    let links = report["links"]["links"].as_array().unwrap();
    let bytes = |link: &serde_json::Value, way: &str| link[way]["bytes"].as_u64().unwrap();
    let of = |kind: &'static str| links.iter().filter(move |link| link["link"] == kind);
    // Everything goes to the leaders once, and from each leader to each other broker once.
    let sent: u64 = of("kafka").map(|link| bytes(link, "from_engine")).sum();
    let copied: u64 = (of("brokers"))
        .map(|link| bytes(link, "to_engine") + bytes(link, "from_engine"))
        .sum();
    let stored = report["bytes_out"].as_u64().unwrap();
    assert_eq!((of("kafka").count(), of("brokers").count()), (3, 3));
    assert!(sent >= stored && copied >= 2 * stored, "{report}");
    // Nobody but the engine uses its links: the verification reads everything once more, past them.
    let answered: u64 = of("kafka").map(|link| bytes(link, "to_engine")).sum();
    assert!(answered < stored, "{report}");
}
