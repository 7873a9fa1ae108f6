//! TLS of the listeners, and certificates made for tests.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Error;

/// What a TLS listener needs, as PEM.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The listener's certificate and those between it and the authority.
    pub certificates: String,
    /// Its private key.
    pub key: String,
    /// Set: clients must show a certificate of this authority.
    pub client_ca: Option<String>,
}

/// A certificate authority made for one test, with a server's and a client's certificate.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The authority's certificate, which clients must trust; PEM.
    pub ca: String,
    /// For a listener; asks for no client certificate until `client_ca` is set.
    pub server: ServerTls,
    /// A client's certificate, PEM.
    pub client_certificate: String,
    /// The client's private key, PEM.
    pub client_key: String,
}

impl Tls {
    /// Makes everything anew for servers of these names or addresses.
    ///
    /// # Errors
    /// [`Error::Tls`] for a name that certificates cannot carry.
    pub fn generate(names: &[&str]) -> Result<Self, Error> {
        let made = |error: rcgen::Error| Error::Tls(error.to_string());
        let mut authority = CertificateParams::new(Vec::new()).map_err(made)?;
        // Two different subjects: OpenSSL takes a certificate whose issuer has its own name for self-signed.
        authority
            .distinguished_name
            .push(DnType::CommonName, "walbrook test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().map_err(made)?;
        let ca = authority.self_signed(&authority_key).map_err(made)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let issue = |names: &[&str], usage| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).map_err(made)?;
            params
                .distinguished_name
                .push(DnType::CommonName, "walbrook test peer");
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().map_err(made)?;
            let certificate = params.signed_by(&key, &issuer).map_err(made)?;
            Ok::<_, Error>((certificate.pem(), key.serialize_pem()))
        };
        let (certificates, key) = issue(names, ExtendedKeyUsagePurpose::ServerAuth)?;
        let (client_certificate, client_key) =
            issue(&["client"], ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(Self {
            ca,
            server: ServerTls {
                certificates,
                key,
                client_ca: None,
            },
            client_certificate,
            client_key,
        })
    }
}

/// An acceptor for a listener.
pub(super) fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, Error> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| Error::Tls(format!("{what}: {error}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("protocol versions", &error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem)? {
                roots
                    .add(certificate)
                    .map_err(|error| wrong("client authority", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| wrong("client authority", &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes())
        .map_err(|error| wrong("private key", &error))?;
    let config = builder
        .with_single_cert(certificates(&tls.certificates)?, key)
        .map_err(|error| wrong("certificate", &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Tls(format!("certificate: {error}")))
}
