//! Debian's `mariadb` and `mariadb-binlog`.

use std::process::{Command, Output, Stdio};

use harness::serve::{ServeOptions, Server};
use protocol::mysql::auth::Plugin;

use crate::{PASSWORD, USER, guarded, start};

/// Runs a client against `server`; `None` (and a loud word) when it is not installed.
async fn run(program: &str, server: &Server, password: &str, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(program);
    command
        .arg("--no-defaults")
        .args(["--protocol=tcp", "--host=127.0.0.1", "--user", USER])
        .arg(format!("--port={}", server.address().port()))
        .args(arguments)
        .env("MYSQL_PWD", password)
        .stdin(Stdio::null());
    match tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
    {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is not installed (Debian: mariadb-client)");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_authenticates_every_way() {
    for plugin in Plugin::ALL {
        for tls in ["--skip-ssl", "--ssl"] {
            if plugin == Plugin::Sha256Password && tls == "--ssl" {
                // libmariadb asks for the RSA key inside TLS too, where MySQL's server takes that byte for the password.
                continue;
            }
            let server = start("mysql-9.7-20k", guarded(plugin, true)).await;
            for round in ["full", "cached"] {
                let arguments = [
                    tls,
                    "--batch",
                    "--skip-column-names",
                    "--execute",
                    "SELECT @@binlog_format",
                ];
                let Some(output) = run("mariadb", &server, PASSWORD, &arguments).await else {
                    return;
                };
                let said = text(&output);
                if said.contains("cannot be loaded") {
                    eprintln!("SKIPPED: this mariadb has no {}", plugin.name());
                    break;
                }
                assert!(output.status.success(), "{plugin:?} {tls} {round}: {said}");
                assert_eq!(said.trim(), "ROW", "{plugin:?} {tls} {round}");
            }
            let arguments = [tls, "--execute", "SELECT 1"];
            let output = run("mariadb", &server, "wrong", &arguments).await.unwrap();
            let said = text(&output);
            let refused = said.contains("Access denied") || said.contains("cannot be loaded");
            assert!(refused, "{plugin:?} {tls}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_verifies_the_certificate_and_compresses() {
    let server = start("mysql-9.7-20k", guarded(Plugin::MysqlNativePassword, true)).await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), server.ca_pem().unwrap()).unwrap();
    let ca = format!("--ssl-ca={}", ca.path().display());
    let arguments = [
        ca.as_str(),
        "--ssl-verify-server-cert",
        "--compress",
        "--batch",
        "--execute",
        "SHOW GLOBAL VARIABLES; SHOW BINARY LOGS",
    ];
    let Some(output) = run("mariadb", &server, PASSWORD, &arguments).await else {
        return;
    };
    let said = text(&output);
    assert!(
        output.status.success()
            && said.contains("binlog_format\tROW")
            && said.contains("binlog.000001"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_binlog_reads_the_whole_recording() {
    let options = ServeOptions {
        ..guarded(Plugin::ClientEd25519, false)
    };
    let server = start("mariadb-10.11-20k", options).await;
    let end = server.end();
    let (file, end) = end.rsplit_once(':').unwrap();
    let arguments = [
        "--read-from-remote-server",
        "--base64-output=decode-rows",
        "--verbose",
        "--verify-binlog-checksum",
        file,
    ];
    let Some(output) = run("mariadb-binlog", &server, PASSWORD, &arguments).await else {
        return;
    };
    let said = text(&output);
    assert!(
        output.status.success(),
        "{}",
        &said[said.len().saturating_sub(500)..]
    );
    let changes = said.lines().filter(|line| {
        ["### INSERT", "### UPDATE", "### DELETE"]
            .iter()
            .any(|s| line.starts_with(s))
    });
    assert_eq!(changes.count(), 20_000);
    assert!(said.contains(&format!("end_log_pos {end}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_binlog_starts_where_it_is_told() {
    let server = start("mariadb-10.11-20k", ServeOptions::default()).await;
    let end = server.end();
    let (file, end) = end.rsplit_once(':').unwrap();
    let at_end = format!("--start-position={end}");
    let Some(output) = run(
        "mariadb-binlog",
        &server,
        "",
        &["--read-from-remote-server", &at_end, file],
    )
    .await
    else {
        return;
    };
    let said = text(&output);
    assert!(output.status.success() && !said.contains("### "), "{said}");
    let output = run(
        "mariadb-binlog",
        &server,
        "",
        &["--read-from-remote-server", "binlog.999999"],
    )
    .await
    .unwrap();
    let said = text(&output);
    assert!(
        said.contains("Could not find first log file name in binary log index file"),
        "{said}"
    );
}
