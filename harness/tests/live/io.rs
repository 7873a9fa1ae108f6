//! `engine.io = "uring"`: recorded streams of both databases, plain, encrypted and compressed, cut and killed, and rows that are committed
//! meanwhile, all verified; and a machine that forbids io_uring.
//!
//! Whether there is a ring to be had is asked of the kernel by this test itself. Where there is none, the same runs have to say that
//! epoll read, and fail for that alone, and the test says loudly that no ring was tested.

use std::path::Path;

use harness::replay;
use harness::replay::report::Report;
use harness::replay::scenario::Scenario;
use harness::servers::Flavour;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::load::{program, short};

/// The report of `scenario` with `engine.io = "uring"`, each of whose sources `io` read, as the engine says, too.
async fn replayed(mut scenario: Scenario, program: &Path, io: &str) -> Report {
    scenario.set("engine.io=uring").expect("a setting");
    let outcome = replay::replay(&scenario, program, 1, false).await;
    let (report, outcome) = outcome.expect("a replay");
    let name = &scenario.name;
    assert_eq!(outcome.engine_report["io"], io, "{name}");
    let read: Vec<Option<&str>> = report.sources.iter().map(|of| of.io.as_deref()).collect();
    assert_eq!(read, [Some(io)], "{name}");
    report
}

/// By a ring, where there is one, and then everything holds.
async fn by_ring(scenario: Scenario, program: &Path) {
    let name = scenario.name.clone();
    let ring = io_uring::IoUring::new(8).and_then(|ring| ring.submit());
    match ring {
        Ok(_) => {
            let report = replayed(scenario, program, "uring").await;
            let wrong = (&report.failures, &report.unmet);
            assert!(report.holds(), "{name}: {wrong:#?}");
        }
        Err(error) => {
            eprintln!(
                "\n*** SKIPPED: {name} by io_uring, which this machine has not: {error}; by epoll it is run\n"
            );
            by_epoll(scenario, program).await;
        }
    }
}

/// By epoll, which was not asked for: that, and nothing else, is wrong.
async fn by_epoll(scenario: Scenario, program: &Path) {
    let report = replayed(scenario, program, "epoll").await;
    let name = &report.scenario;
    let [failure] = report.failures.as_slice() else {
        panic!("{name}: {:#?}", report.failures);
    };
    let words = "engine.io = \"uring\" is set, and epoll read replay; its log says: ";
    assert!(failure.starts_with(words), "{name}: {failure}");
    assert!(failure.contains("no io_uring "), "{name}: {failure}");
    assert!(!report.verified && report.unmet.is_empty(), "{name}");
}

/// The committed scenario `name`, the source's URL with these `options`.
fn scenario(name: &str, options: Option<&str>) -> Scenario {
    let mut scenario = Scenario::read(name.as_ref()).expect("a scenario");
    if options.is_some() {
        scenario.source[0].url_options = options.map(str::to_owned);
    }
    scenario
}

async fn recorded(name: &str, options: Option<&str>) {
    let program = crate::engine().unwrap_or_else(|error| panic!("{error}"));
    by_ring(scenario(name, options), &program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_mysql() {
    recorded("mysql-20k", Some("tls=disable&compression=off")).await;
}

/// Compressed and encrypted, over a connection that is cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_what_is_compressed_inside_tls() {
    recorded("mysql-zstd-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_what_is_compressed() {
    recorded("mysql-zstd-20k", Some("compression=zstd&tls=disable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_mysql_on_after_cuts_and_stalls() {
    recorded("mysql-cut-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_mariadb() {
    recorded("mariadb-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsenders_messages() {
    recorded("postgres-20k", Some("tls=disable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsender_inside_tls() {
    recorded("postgres-20k", Some("tls=require")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsender_on_after_cuts_and_stalls() {
    recorded("postgres-cut-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsender_on_after_kills() {
    recorded("postgres-kill-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_wal2json() {
    recorded("postgres-wal2json-100k", None).await;
}

/// Transactions in pieces, cut and killed in the midst of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_streamed_transactions() {
    recorded("postgres-streamed", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_what_is_committed_into_mysql() {
    committed(Flavour::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_what_is_committed_into_postgres() {
    committed(Flavour::Postgres).await;
}

/// A little at a time, as it is committed.
async fn committed(flavour: Flavour) {
    if let Some(program) = program(flavour) {
        by_ring(short(flavour), &program).await;
    }
}

/// As in a container whose filter forbids io_uring: threads and processes inherit the filter of the thread that starts them, and here that is
/// this one.
#[test]
fn where_io_uring_is_forbidden_epoll_reads_and_the_replay_says_so() {
    let filter = SeccompFilter::new(
        [(libc::SYS_io_uring_setup, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into().expect("an architecture"),
    );
    let program: BpfProgram = (filter.expect("a filter").try_into()).expect("a program");
    seccompiler::apply_filter(&program).expect("a filter may be put on");
    let refused = (io_uring::IoUring::new(8).err()).expect("it is forbidden");
    assert!(matches!(
        refused.raw_os_error(),
        Some(libc::EPERM | libc::ENOSYS)
    ));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let engine = crate::engine().unwrap_or_else(|error| panic!("{error}"));
        for name in ["mysql-20k", "postgres-20k"] {
            by_epoll(scenario(name, None), &engine).await;
        }
        if let Some(engine) = crate::load::program(Flavour::Postgres) {
            by_epoll(short(Flavour::Postgres), &engine).await;
        }
    });
}
