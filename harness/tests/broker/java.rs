//! The Java clients, by the command-line tools of the real Kafka's own artifacts.
//!
//! With `CI=true` artifacts that cannot be had are a failure; elsewhere the test is skipped, and says so loudly.

use std::io::Write as _;
use std::process::Stdio;

use harness::broker::Broker;
use harness::servers::kafka::Programs;

use crate::support::{broker, read_rskafka, rskafka};

const TOPIC_COMMAND: &str = "org.apache.kafka.tools.TopicCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const PRODUCER: &str = "kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

fn programs() -> Option<Programs> {
    let installed = Programs::install();
    if let Err(error) = &installed {
        assert!(!harness::is_ci(), "required in CI: {error}");
        eprintln!("\n*** SKIPPED: no test of the Java clients: {error}\n");
    }
    installed.ok()
}

/// What a tool prints.
async fn tool(
    programs: &Programs,
    broker: &Broker,
    class: &str,
    arguments: &[&str],
    input: String,
) -> String {
    // A tool runs for a second: the optimising compiler would only cost time.
    let mut command = programs.class(&["-XX:TieredStopAtLevel=1", "-Xmx128m"], class);
    command
        .args(["--bootstrap-server", &broker.bootstrap()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let shown = format!("{class} {arguments:?}");
    let run = move || {
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{shown}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_clients_administer_produce_and_consume() {
    let Some(programs) = tokio::task::block_in_place(programs) else {
        return;
    };
    let broker = broker(2).await;
    let run = |class, arguments: &'static [&'static str], input: String| {
        tool(&programs, &broker, class, arguments, input)
    };
    let create = ["--create", "--topic", "u", "--partitions", "2"].as_slice();
    run(TOPIC_COMMAND, create, String::new()).await;
    let described = run(TOPIC_COMMAND, &["--describe"], String::new()).await;
    for line in ["Topic: t\t", "PartitionCount: 3", "Topic: u\t", "Leader: 1"] {
        assert!(described.contains(line), "{line}: {described}");
    }

    // Idempotent by default, with whatever API versions this client prefers.
    let mut expected = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let lines: Vec<String> = (0..200).map(|n| format!("{codec}{n}\tvalue {n}")).collect();
        let codec: &'static [&'static str] = match codec {
            "none" => &["--compression-codec", "none"],
            "gzip" => &["--compression-codec", "gzip"],
            "snappy" => &["--compression-codec", "snappy"],
            "lz4" => &["--compression-codec", "lz4"],
            _ => &["--compression-codec", "zstd"],
        };
        let topic = ["--topic", "t", "--property", "parse.key=true"].as_slice();
        let arguments = [topic, codec].concat();
        tool(
            &programs,
            &broker,
            PRODUCER,
            &arguments,
            lines.join("\n") + "\n",
        )
        .await;
        expected.extend(lines);
    }
    let client = rskafka(&broker).await;
    let mut seen = Vec::new();
    for partition in 0..3 {
        for record in read_rskafka(&client, "t", partition).await {
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap()).unwrap();
            seen.push(format!("{}\t{}", text(record.key), text(record.value)));
        }
    }
    seen.sort_unstable();
    expected.sort_unstable();
    assert!(seen == expected, "rskafka saw {} records", seen.len());

    let offsets = run(OFFSETS, &["--topic", "t"], String::new()).await;
    let total: u64 = offsets
        .lines()
        .map(|line| line.rsplit(':').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(total, 1000, "{offsets}");

    let consume = [
        "--topic",
        "t",
        "--group",
        "java",
        "--from-beginning",
        "--max-messages",
        "1000",
        "--timeout-ms",
        "30000",
        "--property",
        "print.key=true",
    ];
    let consumed = tool(&programs, &broker, CONSUMER, &consume, String::new()).await;
    let mut consumed: Vec<&str> = consumed.lines().collect();
    consumed.sort_unstable();
    assert!(
        consumed == expected,
        "the Java consumer saw {} records",
        consumed.len()
    );
}
