//! `engine.io = "uring"`: recorded streams of both databases, plain, encrypted and compressed, cut and killed, all verified; and a machine
//! that forbids io_uring.
//!
//! Whether there is a ring to be had is asked of the kernel by this test itself. Where there is none, the same runs have to say that
//! epoll read, and the test says loudly that no ring was tested.

use harness::replay;
use harness::replay::scenario::Scenario;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Runs the scenario `name` with `engine.io = "uring"`, the source's URL with these `options`; what the engine says has read.
async fn replayed(name: &str, options: Option<&str>) -> String {
    let program = crate::engine().unwrap_or_else(|error| panic!("{error}"));
    let mut scenario = Scenario::read(name.as_ref()).expect("a scenario");
    scenario.set("engine.io=uring").expect("a setting");
    if options.is_some() {
        scenario.source[0].url_options = options.map(str::to_owned);
    }
    let outcome = replay::replay(&scenario, &program, 1, false).await;
    let (report, outcome) = outcome.expect("a replay");
    assert!(
        report.holds(),
        "{name}: {:#?} {:#?}",
        report.failures,
        report.unmet
    );
    let io = &outcome.engine_report["io"];
    io.as_str().expect("the report names what read").to_owned()
}

async fn by_ring(name: &str, options: Option<&str>) {
    let ring = io_uring::IoUring::new(8).and_then(|ring| ring.submit());
    let expected = match &ring {
        Ok(_) => "uring",
        Err(error) => {
            eprintln!(
                "\n*** SKIPPED: {name} by io_uring, which this machine has not: {error}; by epoll it is run\n"
            );
            "epoll"
        }
    };
    assert_eq!(replayed(name, options).await, expected, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_mysql() {
    by_ring("mysql-20k", Some("tls=disable&compression=off")).await;
}

/// Compressed and encrypted, over a connection that is cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_what_is_compressed_inside_tls() {
    by_ring("mysql-zstd-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_what_is_compressed() {
    by_ring("mysql-zstd-20k", Some("compression=zstd&tls=disable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_mysql_on_after_cuts_and_stalls() {
    by_ring("mysql-cut-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_mariadb() {
    by_ring("mariadb-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsenders_messages() {
    by_ring("postgres-20k", Some("tls=disable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsender_inside_tls() {
    by_ring("postgres-20k", Some("tls=require")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsender_on_after_cuts_and_stalls() {
    by_ring("postgres-cut-20k", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_reads_a_walsender_on_after_kills() {
    by_ring("postgres-kill-20k", None).await;
}

/// As in a container whose filter forbids io_uring: processes inherit the filter of the thread that starts them, and here that is this one.
#[tokio::test]
async fn where_io_uring_is_forbidden_epoll_reads() {
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
    for name in ["mysql-20k", "postgres-20k"] {
        assert_eq!(replayed(name, None).await, "epoll", "{name}");
    }
}
