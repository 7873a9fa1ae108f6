//! TLS and SASL: rskafka in process, kcat over both at once.

use std::sync::Arc;

use harness::broker::{Broker, Listener, Settings, Tls};
use rskafka::client::{ClientBuilder, Credentials, SaslConfig};
use rustls_pki_types::pem::PemObject;

async fn secured(sasl: bool, tls: Option<&Tls>) -> Broker {
    let listener = Listener {
        tls: tls.map(|tls| tls.server.clone()),
        sasl,
        ..Listener::loopback()
    };
    let settings = Settings {
        listeners: vec![listener],
        users: vec![("cdc".into(), "p=a,ss".into())],
        ..Settings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    broker
}

#[tokio::test]
async fn every_mechanism_lets_the_right_password_in_and_no_other() {
    let broker = secured(true, None).await;
    type Mechanism = fn(Credentials) -> SaslConfig;
    let mechanisms: [Mechanism; 3] = [
        SaslConfig::Plain,
        SaslConfig::ScramSha256,
        SaslConfig::ScramSha512,
    ];
    for mechanism in mechanisms {
        let client = |password: &str| {
            ClientBuilder::new(vec![broker.bootstrap()])
                .backoff_config(rskafka::BackoffConfig {
                    deadline: Some(std::time::Duration::from_millis(300)),
                    ..Default::default()
                })
                .sasl_config(mechanism(Credentials::new("cdc".into(), password.into())))
                .build()
        };
        let topics = client("p=a,ss").await.unwrap().list_topics().await.unwrap();
        assert_eq!(topics.len(), 1);
        assert!(client("wrong").await.is_err());
    }
    let anonymous = ClientBuilder::new(vec![broker.bootstrap()])
        .backoff_config(rskafka::BackoffConfig {
            deadline: Some(std::time::Duration::from_millis(300)),
            ..Default::default()
        })
        .build()
        .await;
    assert!(anonymous.is_err(), "nobody gets in without a login");
}

#[tokio::test]
async fn tls_with_and_without_client_certificates() {
    let tls = Tls::generate(&["127.0.0.1", "localhost"]).unwrap();
    let mut mutual = tls.clone();
    mutual.server.client_ca = Some(tls.ca.clone());
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let client = |certificate: bool| {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls_pki_types::CertificateDer::from_pem_slice(tls.ca.as_bytes()).unwrap())
            .unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if certificate {
            let chain =
                rustls_pki_types::CertificateDer::from_pem_slice(tls.client_certificate.as_bytes())
                    .unwrap();
            let key =
                rustls_pki_types::PrivateKeyDer::from_pem_slice(tls.client_key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        } else {
            config.with_no_client_auth()
        };
        Arc::new(config)
    };
    for (server, certificate, lets_in) in [
        (&tls, false, true),
        (&mutual, true, true),
        (&mutual, false, false),
    ] {
        let broker = secured(false, Some(server)).await;
        let built = ClientBuilder::new(vec![broker.bootstrap()])
            .tls_config(client(certificate))
            .backoff_config(rskafka::BackoffConfig {
                deadline: Some(std::time::Duration::from_millis(300)),
                ..Default::default()
            })
            .build()
            .await;
        assert_eq!(built.is_ok(), lets_in, "client certificate: {certificate}");
    }
}

#[tokio::test]
async fn kcat_logs_in_by_scram_over_tls() {
    let tls = Tls::generate(&["127.0.0.1"]).unwrap();
    let broker = secured(true, Some(&tls)).await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, &tls.ca).unwrap();
    let ca = format!("ssl.ca.location={}", ca.display());
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let arguments = [
            "-X",
            "security.protocol=SASL_SSL",
            "-X",
            &ca,
            "-X",
            &format!("sasl.mechanism={mechanism}"),
            "-X",
            "sasl.username=cdc",
            "-X",
            "sasl.password=p=a,ss",
            "-L",
        ];
        let Some(listed) = crate::kcat::kcat(&broker, &arguments, b"").await else {
            return;
        };
        assert!(
            listed.contains("topic \"t\" with 1 partitions"),
            "{mechanism}: {listed}"
        );
    }
}
