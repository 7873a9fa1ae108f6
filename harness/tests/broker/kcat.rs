//! kcat, where it is installed: librdkafka in the version that a distribution ships.

use std::io::Write;
use std::process::{Command, Stdio};

use harness::broker::Broker;

use crate::support::broker;

/// What kcat prints; `None`, loudly, where it is not installed.
pub(crate) async fn kcat(broker: &Broker, arguments: &[&str], input: &[u8]) -> Option<String> {
    let mut command = Command::new("timeout");
    command
        .args(["30", "kcat", "-b", &broker.bootstrap()])
        .args(arguments)
        // cargo points it at the libraries built for this workspace, a librdkafka without TLS among them.
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (arguments, input) = (format!("{arguments:?}"), input.to_vec());
    let run = move || {
        if let Err(error) = Command::new("kcat").arg("-V").output() {
            eprintln!("SKIPPED: kcat cannot be run ({error}); install the package kcat");
            return None;
        }
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kcat {arguments}: {errors}");
        Some(String::from_utf8(output.stdout).unwrap())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_lists_produces_and_consumes() {
    let broker = broker(2).await;
    let Some(listed) = kcat(&broker, &["-L"], b"").await else {
        return;
    };
    assert!(listed.contains("topic \"t\" with 3 partitions"), "{listed}");
    assert!(
        listed.contains("partition 1, leader 1, replicas: 0,1"),
        "{listed}"
    );
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let lines: String = (0..100)
            .map(|i| format!("{codec}{i}:{}\n", "value ".repeat(50)))
            .collect();
        let before = broker.counts().bytes;
        kcat(
            &broker,
            &[
                "-P",
                "-t",
                "t",
                "-p",
                "0",
                "-K",
                ":",
                "-z",
                codec,
                "-H",
                "pos=f:1/0",
            ],
            lines.as_bytes(),
        )
        .await;
        let bytes = broker.counts().bytes - before;
        assert!(
            bytes > 0 && (codec == "none") == (bytes > 30_000),
            "{codec}: {bytes} bytes on the wire"
        );
    }
    let consumed = kcat(
        &broker,
        &[
            "-C",
            "-t",
            "t",
            "-p",
            "0",
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "%o %k %h\n",
        ],
        b"",
    );
    let consumed = consumed.await.unwrap();
    assert_eq!(consumed.lines().count(), 500);
    assert_eq!(consumed.lines().nth(499), Some("499 zstd99 pos=f:1/0"));
    let grouped = kcat(
        &broker,
        &[
            "-G",
            "kcat",
            "-e",
            "-q",
            "-X",
            "auto.offset.reset=earliest",
            "t",
        ],
        b"",
    );
    assert_eq!(grouped.await.unwrap().lines().count(), 500);
}
