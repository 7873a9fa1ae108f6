//! Ways in which MySQL and MariaDB let the engine in, as the line and the server's log tell them; and what is not sent over it.

use std::sync::{Arc, Mutex};

use harness::broker::Broker;
use harness::servers::{Flavour, Server};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::records::states;
use crate::{configured, ready_with, run_to_end};

const PASSWORD: &str = "what-nobody-on-the-line-may-read";
/// How a server that has a key pair sends the public half.
const KEY: &str = "-----BEGIN PUBLIC KEY-----";

/// A server with a table, and the line to it.
struct Ground {
    program: std::path::PathBuf,
    server: Server,
    connection: Conn,
    line: Line,
    rows: usize,
}

impl Ground {
    async fn new(flavour: Flavour) -> Option<Ground> {
        let options = ["--general-log=1", "--general-log-file=general.log"];
        let (program, server) = ready_with(flavour, &options).await?;
        let connection = server.connect().await.expect("a connection");
        let mut ground = Ground {
            line: Line::to(server.port()).await,
            program,
            server,
            connection,
            rows: 0,
        };
        ground.run("CREATE DATABASE shop").await;
        ground.run("CREATE TABLE shop.t (id INT PRIMARY KEY)").await;
        Some(ground)
    }

    async fn run(&mut self, statement: &str) {
        (self.connection.query_drop(statement).await)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Makes a user who proves himself as `identified` says. The binary log does not tell: it goes over the same line.
    async fn user(&mut self, name: &str, identified: &str) {
        for statement in [
            "SET SESSION sql_log_bin = 0".to_owned(),
            format!("CREATE USER '{name}'@'%' IDENTIFIED {identified}"),
            format!("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{name}'@'%'"),
            "SET SESSION sql_log_bin = 1".to_owned(),
        ] {
            self.run(&statement).await;
        }
    }

    /// Whether the server has this way of proving who one is.
    async fn has(&mut self, plugin: &str) -> bool {
        let query = format!(
            "SELECT COUNT(*) FROM information_schema.plugins \
             WHERE plugin_name = '{plugin}' AND plugin_status = 'ACTIVE'"
        );
        let count: Option<u32> = self.connection.query_first(query).await.expect("a count");
        count == Some(1)
    }

    /// A new engine streams one more row as `user`, whom the server knows by `plugin`; what was said on the line, by the engine and by
    /// the server.
    async fn stream(&mut self, user: &str, plugin: &str, query: &str) -> (Vec<u8>, Vec<u8>) {
        let known = format!("SELECT plugin FROM mysql.user WHERE user = '{user}'");
        let known: Option<String> = self.connection.query_first(known).await.expect("a user");
        assert_eq!(known.as_deref(), Some(plugin));
        self.rows += 1;
        let insert = format!("INSERT INTO shop.t VALUES ({})", self.rows);
        self.run(&insert).await;
        let broker = Broker::loopback().await.expect("a broker");
        let directory = tempfile::tempdir().expect("a directory");
        let scheme = self.server.flavour().scheme();
        let port = self.line.port;
        let url = format!("{scheme}://{user}:{PASSWORD}@127.0.0.1:{port}?{query}");
        let engine = configured(&self.program, directory.path(), &url, &["shop.*"], &broker);
        let before = self.log().len();
        self.line.take();
        run_to_end(&engine).await;
        let (by_engine, by_server) = self.line.take();

        let mut states = states(&broker).await;
        let table = states.remove(&("shop".to_owned(), "t".to_owned()));
        assert_eq!(table.map(|rows| rows.len()), Some(self.rows), "{user}");
        let said = self.log().split_off(before);
        let connects: Vec<&str> = (said.lines())
            .filter(|line| line.contains("Connect\t") && line.contains(&format!("{user}@")))
            .collect();
        assert!(!connects.is_empty(), "{user}:\n{said}");
        let by = match query.contains("tls=disable") {
            true => " using TCP/IP",
            false => " using SSL/TLS",
        };
        assert!(
            connects.iter().all(|line| line.ends_with(by)),
            "{connects:#?}"
        );
        assert!(!holds(&by_engine, PASSWORD), "{user}: in the clear");
        (by_engine, by_server)
    }

    fn log(&self) -> String {
        let path = self.server.directory().join("data/general.log");
        std::fs::read_to_string(path).expect("the server's log")
    }
}

fn holds(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|it| it == words.as_bytes())
}

/// Whether the server told the engine to prove itself in this way instead of the one that it had begun with.
fn switched(by_server: &[u8], plugin: &str) -> bool {
    let request = [&b"\xfe"[..], plugin.as_bytes(), b"\0"].concat();
    (by_server.windows(request.len())).any(|it| it == request)
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_lets_the_engine_in_by_each_method() {
    let Some(mut ground) = Ground::new(Flavour::Mysql).await else {
        return;
    };
    let plugin = "caching_sha2_password";
    let identified = format!("WITH {plugin} BY '{PASSWORD}'");
    ground.user("sha2", &identified).await;
    // Who is new has to show the password itself, encrypted with the server's key; who was there lately does not.
    let (_, said) = ground.stream("sha2", plugin, "tls=disable").await;
    assert!(holds(&said, KEY));
    let (_, said) = ground.stream("sha2", plugin, "tls=disable").await;
    assert!(!holds(&said, KEY));
    // It forgets him, and he shows it again: without TLS, and inside it.
    for (query, sends_key) in [("tls=disable", true), ("tls=require", false)] {
        ground.run("FLUSH NO_WRITE_TO_BINLOG PRIVILEGES").await;
        let (_, said) = ground.stream("sha2", plugin, query).await;
        assert_eq!(holds(&said, KEY), sends_key, "{query}");
    }

    let plugin = "sha256_password";
    if !ground.has(plugin).await {
        eprintln!("\n*** SKIPPED: this MySQL has no {plugin} any more\n");
        return;
    }
    let identified = format!("WITH {plugin} BY '{PASSWORD}'");
    ground.user("sha256", &identified).await;
    let (_, said) = ground.stream("sha256", plugin, "tls=disable").await;
    assert!(switched(&said, plugin) && holds(&said, KEY));
    ground.stream("sha256", plugin, "tls=require").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_lets_the_engine_in_by_each_method() {
    let Some(mut ground) = Ground::new(Flavour::Mariadb).await else {
        return;
    };
    let plugin = "mysql_native_password";
    let identified = format!("VIA {plugin} USING PASSWORD('{PASSWORD}')");
    ground.user("native", &identified).await;
    let (by_engine, said) = ground.stream("native", plugin, "tls=disable").await;
    // The server begins with it, and nothing else is asked for.
    assert!(holds(&by_engine, plugin) && !switched(&said, "client_ed25519"));

    let installed = "INSTALL SONAME 'auth_ed25519'";
    if let Err(error) = ground.connection.query_drop(installed).await {
        eprintln!("\n*** SKIPPED: no login by client_ed25519: {error}\n");
        return;
    }
    let plugin = "ed25519";
    let identified = format!("VIA {plugin} USING PASSWORD('{PASSWORD}')");
    ground.user("edwards", &identified).await;
    let (_, said) = ground.stream("edwards", plugin, "tls=disable").await;
    assert!(switched(&said, "client_ed25519"));
}

/// Stands between the engine and the server, and keeps what each of them says.
struct Line {
    port: u16,
    heard: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
}

impl Line {
    async fn to(server: u16) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heard = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let kept = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await else {
                    continue;
                };
                let (from_engine, to_engine) = near.into_split();
                let (from_server, to_server) = far.into_split();
                let (by_engine, by_server) = (Arc::clone(&kept), Arc::clone(&kept));
                tokio::spawn(pass(from_engine, to_server, move |part| {
                    let mut heard = by_engine.lock().expect("no panic");
                    heard.0.extend_from_slice(part);
                }));
                tokio::spawn(pass(from_server, to_engine, move |part| {
                    let mut heard = by_server.lock().expect("no panic");
                    heard.1.extend_from_slice(part);
                }));
            }
        });
        Line { port, heard }
    }

    /// What the engine and the server have said since the last call.
    fn take(&self) -> (Vec<u8>, Vec<u8>) {
        std::mem::take(&mut *self.heard.lock().expect("no panic"))
    }
}

/// Hands on what comes until one side has gone; either way both learn of it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, heard: impl Fn(&[u8])) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        heard(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
