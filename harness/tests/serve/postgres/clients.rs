//! Clients that share no code with the server.

use std::process::{Command, Output, Stdio};

use harness::serve::{AuthMethod, ServeOptions, Server};
use protocol::postgres::catalog;
use tokio_postgres::SimpleQueryMessage;

use super::guarded;
use crate::{PASSWORD, USER, start};

/// Runs one of PostgreSQL's own clients; `None` (and a loud word) when it is not installed.
async fn run(program: &str, password: &str, arguments: &[&str]) -> Option<Output> {
    let beside = format!("/usr/lib/postgresql/15/bin/{program}");
    let path = if std::path::Path::new(&beside).exists() {
        beside
    } else {
        program.to_owned()
    };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env("PGPASSWORD", password)
        .env("PGCONNECT_TIMEOUT", "20")
        .stdin(Stdio::null());
    match tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
    {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is not installed (Debian: postgresql-client)");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

async fn psql(server: &Server, password: &str, how: &str, statement: &str) -> Option<Output> {
    let port = server.address().port();
    let target = format!("host=localhost hostaddr=127.0.0.1 port={port} user={USER} {how}");
    run(
        "psql",
        password,
        &[
            "--no-psqlrc",
            "-X",
            "-A",
            "-t",
            "-d",
            &target,
            "-c",
            statement,
        ],
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_authenticates_every_way() {
    for auth in [
        AuthMethod::ScramSha256,
        AuthMethod::Md5,
        AuthMethod::Password,
    ] {
        let server = start("postgres-15-20k", guarded(auth, true)).await;
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), server.ca_pem().unwrap()).unwrap();
        let verify = format!("sslmode=verify-full sslrootcert={}", ca.path().display());
        let mut ways = vec![
            "sslmode=disable",
            "sslmode=require channel_binding=disable",
            &verify,
        ];
        if auth == AuthMethod::ScramSha256 {
            ways.push("sslmode=require channel_binding=require");
        }
        for how in ways {
            let how = format!("dbname=walbrook {how}");
            let Some(output) = psql(&server, PASSWORD, &how, "SHOW server_version").await else {
                return;
            };
            let said = text(&output);
            assert!(
                output.status.success() && said.starts_with("15."),
                "{auth:?} {how}: {said}"
            );
            let said = text(&psql(&server, "wrong", &how, "SELECT 1").await.unwrap());
            let expected = format!("FATAL:  password authentication failed for user \"{USER}\"");
            assert!(said.contains(&expected), "{auth:?} {how}: {said}");
        }
        let said = text(
            &psql(&server, PASSWORD, "dbname=nowhere", "SELECT 1")
                .await
                .unwrap(),
        );
        assert!(
            said.contains("FATAL:  database \"nowhere\" does not exist"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_speaks_both_kinds_of_sessions() {
    let server = start("postgres-15-20k", ServeOptions::default()).await;
    let end = server.end();
    let replication = "dbname=walbrook replication=database";
    let Some(output) = psql(&server, "", replication, "IDENTIFY_SYSTEM").await else {
        return;
    };
    let said = text(&output);
    assert!(said.contains(&format!("|1|{end}|walbrook")), "{said}");
    let slots = "SELECT slot_name, active, confirmed_flush_lsn FROM pg_replication_slots";
    for how in ["dbname=walbrook", replication] {
        let said = text(&psql(&server, "", how, slots).await.unwrap());
        assert!(said.starts_with("walbrook|f|0/"), "{how}: {said}");
        let said = text(
            &psql(&server, "", how, "SELECT * FROM shop.orders")
                .await
                .unwrap(),
        );
        let expected = "ERROR:  this recording cannot answer: SELECT * FROM shop.orders";
        assert!(said.contains(expected), "{how}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_recvlogical_makes_and_drops_slots_and_streams() {
    let server = start(
        "postgres-15-wal2json-20k",
        guarded(AuthMethod::ScramSha256, false),
    )
    .await;
    let port = server.address().port().to_string();
    let common = ["-h", "127.0.0.1", "-p", &port, "-U", USER, "-d", "walbrook"];
    let with = |more: &[&'static str]| [common.as_slice(), more].concat();
    let create = with(&["-S", "another", "--create-slot", "-P", "wal2json"]);
    let Some(output) = run("pg_recvlogical", PASSWORD, &create).await else {
        return;
    };
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&run("pg_recvlogical", PASSWORD, &create).await.unwrap());
    assert!(
        said.contains("replication slot \"another\" already exists"),
        "{said}"
    );
    let end = server.end();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut stream = with(&[
        "-S",
        "another",
        "--no-loop",
        "--start",
        "-o",
        "format-version=2",
    ]);
    for option in ["lsn", "pk", "timestamp", "transaction", "types", "xids"] {
        stream.extend([
            "-o",
            Box::leak(format!("include-{option}=true").into_boxed_str()),
        ]);
    }
    let path = file.path().to_str().unwrap();
    stream.extend(["-E", &end, "-f", path]);
    let output = run("pg_recvlogical", PASSWORD, &stream).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines = std::fs::read_to_string(path).unwrap();
    let count = |action: &str| {
        lines
            .lines()
            .filter(|line| line.starts_with(action))
            .count()
    };
    let counts = ["I", "U", "D"].map(|action| count(&format!("{{\"action\":\"{action}\"")));
    assert_eq!(counts, [10_000, 5_000, 5_000]);
    assert_eq!(count("{\"action\":\"B\""), count("{\"action\":\"C\""));
    assert_eq!(server.confirmed("another").as_deref(), Some(end.as_str()));
    assert_eq!(server.complaints(), Vec::<String>::new());
    // Nothing is left for the next one.
    let output = run("pg_recvlogical", PASSWORD, &stream).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(path).unwrap(), lines);
    let output = run(
        "pg_recvlogical",
        PASSWORD,
        &with(&["-S", "another", "--drop-slot"]),
    )
    .await;
    assert!(output.unwrap().status.success());
    assert_eq!(server.confirmed("another"), None);
    let said = text(&run("pg_recvlogical", PASSWORD, &stream).await.unwrap());
    assert!(
        said.contains("replication slot \"another\" does not exist"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokio_postgres_asks_the_catalog() {
    let server = start("postgres-15-20k", guarded(AuthMethod::ScramSha256, false)).await;
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.address().port());
    config.user(USER).password(PASSWORD).dbname("walbrook");
    config.options(catalog::session_options());
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let ask = async |statement: &str| -> Result<Vec<Vec<Option<String>>>, String> {
        let messages = client.simple_query(statement).await;
        let messages = messages.map_err(|error| {
            error
                .as_db_error()
                .map_or(error.to_string(), |error| error.code().code().into())
        })?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    };
    for statement in catalog::WHOLE {
        ask(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let some = |text: &str| Some(text.to_owned());
    let status = ask(catalog::STATUS).await.unwrap();
    assert_eq!(status, [[some("walbrook"), some("f"), Some(server.end())]]);
    let key = ask(&catalog::keys_of_table("walbrook", "events"))
        .await
        .unwrap();
    assert!(
        key.iter().any(|row| row.last() == Some(&some("id"))),
        "{key:?}"
    );
    let tables = ask(catalog::PUBLICATION_TABLES).await.unwrap();
    assert_eq!(tables, [["walbrook", "walbrook", "events"].map(some)]);
    for (statement, code) in [
        (
            "CREATE PUBLICATION walbrook FOR TABLE walbrook.events",
            "42710",
        ),
        (
            "CREATE PUBLICATION mine FOR TABLE walbrook.nothing",
            "42P01",
        ),
        (
            "ALTER PUBLICATION nobody ADD TABLE walbrook.events",
            "42704",
        ),
        ("SELECT pg_drop_replication_slot('nobody')", "42704"),
        ("SHOW nothing_of_this_kind", "42704"),
        ("SELECT secret FROM somewhere", "0A000"),
    ] {
        assert_eq!(ask(statement).await, Err(code.to_owned()), "{statement}");
    }
    ask("CREATE PUBLICATION \"mine\" FOR TABLE ONLY \"walbrook\".\"events\" WITH (publish = 'insert, update, delete')").await.unwrap();
    assert_eq!(ask(catalog::PUBLICATIONS).await.unwrap().len(), 2);
    assert_eq!(ask("DROP PUBLICATION mine").await, Ok(Vec::new()));
    assert_eq!(
        ask("SELECT 1 AS one, 'a;b'; SELECT NULL").await.unwrap(),
        [vec![some("1"), some("a;b")], vec![None]]
    );
    // A transaction that failed takes nothing but its end.
    ask("BEGIN").await.unwrap();
    assert!(ask("SELECT nothing").await.is_err());
    assert_eq!(ask("SELECT 1").await, Err("25P02".to_owned()));
    ask("ROLLBACK").await.unwrap();
    ask("SELECT 1").await.unwrap();
    // Prepared statements are refused, and the session goes on.
    assert!(client.query("SELECT 1", &[]).await.is_err());
    ask("SELECT 1").await.unwrap();
}
