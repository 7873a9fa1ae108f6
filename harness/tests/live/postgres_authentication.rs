//! Ways in which a server lets the engine in, as the server's log tells them; and what is not sent to it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use harness::broker::Tls;
use harness::servers::Server;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::postgres_faults::prepare;
use crate::postgres_refusals::{Stage, refused};
use crate::{run_to_end, until};

/// The administrator's rule, which stays.
const OURS: &str = "host all,replication postgres 127.0.0.1/32 trust";
/// A request for TLS (section "Message Formats", SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Has the server let `cdc` in by this line of pg_hba.conf alone, its password kept by `encryption`.
async fn rule(stage: &Stage, line: &str, encryption: &str) {
    let path = stage.server.directory().join("data/pg_hba.conf");
    std::fs::write(&path, format!("{OURS}\n{line}\n")).expect("a writable file");
    let set = format!("SET password_encryption = '{encryption}'; ALTER ROLE cdc PASSWORD 'cdc'");
    stage.run(&set).await;
    let loaded = async || -> String {
        let row = (stage.client).query_one("SELECT pg_conf_load_time()::text", &[]);
        row.await.expect("a time").get(0)
    };
    let before = loaded().await;
    // A process is told of it once the server itself has begun to read its files, and until it has read them it starts none.
    stage.run("SELECT pg_reload_conf()").await;
    until("the server to read its files", async || {
        loaded().await != before
    })
    .await;
}

fn log(stage: &Stage) -> String {
    std::fs::read_to_string(stage.server.directory().join("log")).expect("the server's log")
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_lets_the_engine_in_by_each_method() {
    let Some(stage) = Stage::set(&["-c", "log_connections=on"]).await else {
        return;
    };
    prepare(&stage.server, false).await;
    let verified = format!("tls=verify-full&ca={}", stage.server.ca().display());
    // Kind of line, method, how the password is kept, and the URL's query.
    let ways = [
        ("hostnossl", "md5", "md5", "tls=disable"),
        ("hostnossl", "scram-sha-256", "scram-sha-256", "tls=disable"),
        ("hostssl", "scram-sha-256", "scram-sha-256", &*verified),
        ("hostssl", "md5", "md5", "tls=require"),
        ("hostssl", "password", "scram-sha-256", "tls=require"),
    ];
    for (number, (kind, method, encryption, query)) in ways.into_iter().enumerate() {
        let line = format!("{kind} all,replication cdc 127.0.0.1/32 {method}");
        rule(&stage, &line, encryption).await;
        // A password that is kept as MD5 cannot be proven by SCRAM.
        let kept = "SELECT rolpassword FROM pg_authid WHERE rolname = 'cdc'";
        let kept = stage.client.query_one(kept, &[]).await.expect("a role");
        let kept: String = kept.get(0);
        assert_eq!(kept.starts_with("md5"), encryption == "md5", "{kept}");
        let before = log(&stage).len();
        let url = format!("{}?{query}", stage.server.cdc_url());
        run_to_end(&stage.engine_at(&format!("way-{number}"), &url)).await;
        let said = log(&stage).split_off(before);
        let lines = |words: &str| -> Vec<&str> {
            said.lines().filter(|line| line.contains(words)).collect()
        };
        let let_in = lines("connection authenticated: identity=\"cdc\"");
        assert!(!let_in.is_empty(), "{line} {query}:\n{said}");
        let by = format!("method={method} ");
        assert!(let_in.iter().all(|it| it.contains(&by)), "{let_in:#?}");
        for line in lines("connection authorized: user=cdc") {
            assert_eq!(line.contains("SSL enabled"), kind == "hostssl", "{line}");
        }
    }

    // The password in the clear goes over TLS alone.
    rule(
        &stage,
        "host all,replication cdc 127.0.0.1/32 password",
        "scram-sha-256",
    )
    .await;
    let clear = stage.engine_at("clear", &format!("{}?tls=disable", stage.server.cdc_url()));
    let words = "the server wants the password in clear text and the line is not encrypted";
    refused(&clear, &[words, "connect with ?tls=require"]).await;
    let secure = format!("{}?tls=require", stage.server.cdc_url());
    run_to_end(&stage.engine_at("clear", &secure)).await;
}

/// Over TLS the proof holds for one certificate: somebody between, whose certificate the engine trusts, gets nothing that the server takes.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_takes_no_proof_that_was_meant_for_somebody_between() {
    let Some(stage) = Stage::set(&["-c", "log_connections=on"]).await else {
        return;
    };
    prepare(&stage.server, false).await;
    let rule_of = |method: &str| format!("hostssl all,replication cdc 127.0.0.1/32 {method}");
    rule(&stage, &rule_of("scram-sha-256"), "scram-sha-256").await;
    let between = Between::start(&stage).await;
    let own = stage.server.port().to_string();
    let url = (stage.server.cdc_url()).replace(&own, &between.port.to_string());
    let url = format!("{url}?tls=verify-full&ca={}", between.ca.display());
    let engine = stage.engine_at("between", &url);
    refused(&engine, &["channel binding"]).await;
    assert!(between.heard("SCRAM-SHA-256-PLUS"));
    assert!(!log(&stage).contains("connection authenticated: identity=\"cdc\""));
    // Nothing but the binding stands in its way.
    rule(&stage, &rule_of("password"), "scram-sha-256").await;
    run_to_end(&engine).await;
}

/// A man in the middle: TLS to the engine, TLS to the server, and what the engine says in between.
struct Between {
    port: u16,
    /// What the engine has to trust.
    ca: PathBuf,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Between {
    async fn start(stage: &Stage) -> Between {
        let tls = Tls::generate(&["127.0.0.1"]).expect("certificates");
        let ca = stage.directory.path().join("between.pem");
        std::fs::write(&ca, &tls.ca).expect("a writable directory");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = certificates(tls.server.certificates.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(tls.server.key.as_bytes()).expect("a key");
        let near = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("a certificate");
        let mut roots = RootCertStore::empty();
        for certificate in trusted(&stage.server) {
            roots.add(certificate).expect("an authority");
        }
        let far = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = (
            TlsAcceptor::from(Arc::new(near)),
            TlsConnector::from(Arc::new(far)),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (heard, server) = (Arc::clone(&said), stage.server.port());
        tokio::spawn(async move {
            while let Ok((line, _)) = listener.accept().await {
                let (near, far) = (near.clone(), far.clone());
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    // Whoever leaves ends both.
                    let _ = relay(line, near, far, server, heard).await;
                });
            }
        });
        Between { port, ca, said }
    }

    /// Whether the engine has said this.
    fn heard(&self, words: &str) -> bool {
        let said = self.said.lock().expect("no panic");
        said.windows(words.len()).any(|it| it == words.as_bytes())
    }
}

async fn relay(
    mut line: TcpStream,
    near: TlsAcceptor,
    far: TlsConnector,
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
) -> std::io::Result<()> {
    let mut request = [0; 8];
    line.read_exact(&mut request).await?;
    assert_eq!(request, SSL_REQUEST);
    line.write_all(b"S").await?;
    let engine = near.accept(line).await?;
    let mut line = TcpStream::connect(("127.0.0.1", port)).await?;
    line.write_all(&SSL_REQUEST).await?;
    assert_eq!(line.read_u8().await?, b'S');
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let server = far.connect(name, line).await?;
    let (mut from_engine, mut to_engine) = tokio::io::split(engine);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    tokio::select! {
        done = listen(&mut from_engine, &mut to_server, &heard) => done,
        done = tokio::io::copy(&mut from_server, &mut to_engine) => done.map(drop),
    }
}

/// Hands on what comes, and keeps it.
async fn listen(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    heard: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let part = &buffer[..length];
        heard.lock().expect("no panic").extend_from_slice(part);
        to.write_all(part).await?;
        to.flush().await?;
    }
}

fn trusted(server: &Server) -> Vec<CertificateDer<'static>> {
    certificates(&std::fs::read(server.ca()).expect("an authority"))
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
    all.expect("certificates")
}
