//! `kafka.tls` made into what rustls needs, and made anew when its files are.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tracing::info;

use crate::config::KafkaTls;

use super::error::ProducerError;

/// `kafka.tls` as its files had it last: certificates are renewed while the engine runs.
#[derive(Debug)]
pub(super) struct Renewable {
    settings: KafkaTls,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    digest: [u8; 32],
    config: Arc<ClientConfig>,
}

impl Renewable {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// As [`client_config`].
    pub(super) fn new(settings: &KafkaTls) -> Result<Self, ProducerError> {
        let (digest, config) = read(settings)?;
        Ok(Self {
            settings: settings.clone(),
            read: Mutex::new(Read { digest, config }),
        })
    }

    /// What the files have now; the same as before while they are the same.
    ///
    /// # Errors
    /// As [`client_config`]; perhaps somebody is about to replace the other files, too.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, ProducerError> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if Files::read(&self.settings)?.digest() != known.digest {
            let (digest, config) = read(&self.settings)?;
            *known = Read { digest, config };
            info!("files of kafka.tls have changed: connections are made with what is in them now");
        }
        Ok(Arc::clone(&known.config))
    }
}

/// Reads the files of `kafka.tls`: the authorities (the system's where none are named) and, where given, our own certificate.
/// Chain and host name of brokers are always verified.
///
/// # Errors
/// A file that cannot be read or used, by name; `cert` without `key` or the other way round.
pub(super) fn client_config(settings: &KafkaTls) -> Result<Arc<ClientConfig>, ProducerError> {
    read(settings).map(|(_, config)| config)
}

/// The contents of the files that are named.
struct Files {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Files {
    fn read(settings: &KafkaTls) -> Result<Self, ProducerError> {
        let read = |what, file: &Option<PathBuf>| {
            let file = file.as_deref();
            let read = |file| std::fs::read(file).map_err(|error| file_fault(what, file, &error));
            file.map(read).transpose()
        };
        Ok(Self {
            ca: read("ca", &settings.ca)?,
            cert: read("cert", &settings.cert)?,
            key: read("key", &settings.key)?,
        })
    }

    /// Tells them from others without keeping the key.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for file in [&self.ca, &self.cert, &self.key] {
            let bytes = file.as_deref().unwrap_or_default();
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }
}

/// The files, as a digest and made into a configuration.
fn read(settings: &KafkaTls) -> Result<([u8; 32], Arc<ClientConfig>), ProducerError> {
    let files = Files::read(settings)?;
    let ca = settings.ca.as_deref().zip(files.ca.as_deref());
    let cert = settings.cert.as_deref().zip(files.cert.as_deref());
    let key = settings.key.as_deref().zip(files.key.as_deref());
    let roots = roots(ca)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(fault)?
        .with_root_certificates(roots);
    let config = match (cert, key) {
        (None, None) => builder.with_no_client_auth(),
        (Some((cert, chain)), Some((key, private))) => {
            let chain = certificates(cert, chain)?;
            let private = PrivateKeyDer::from_pem_slice(private)
                .map_err(|error| file_fault("key", key, &error))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| {
                    fault(format!(
                        "cert {} and key {} do not make a pair: {error}",
                        cert.display(),
                        key.display()
                    ))
                })?
        }
        (Some(_), None) => return Err(fault("cert is given without key")),
        (None, Some(_)) => return Err(fault("key is given without cert")),
    };
    Ok((files.digest(), Arc::new(config)))
}

fn roots(ca: Option<(&Path, &[u8])>) -> Result<RootCertStore, ProducerError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some((file, pem)) => {
            for certificate in certificates(file, pem)? {
                roots
                    .add(certificate)
                    .map_err(|error| file_fault("ca", file, &error))?;
            }
        }
        None => {
            // Some files of a system's store are commonly unreadable for rustls; what counts is that something is trusted.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(fault(
                    "this system has no trusted authorities; name a file of them: kafka.tls.ca",
                ));
            }
        }
    }
    Ok(roots)
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ProducerError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| file_fault("certificate file", file, &error))?;
    if certificates.is_empty() {
        return Err(file_fault(
            "certificate file",
            file,
            &"it holds no certificate (PEM)",
        ));
    }
    Ok(certificates)
}

fn file_fault(what: &str, file: &Path, error: &dyn Display) -> ProducerError {
    fault(format!("{what} {}: {error}", file.display()))
}

fn fault(reason: impl Display) -> ProducerError {
    ProducerError::Tls {
        reason: reason.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::client_config;
    use crate::config::KafkaTls;

    #[test]
    fn names_the_file_that_is_missing() {
        let settings = KafkaTls {
            ca: Some(PathBuf::from("/nowhere/ca.pem")),
            ..KafkaTls::default()
        };
        let error = client_config(&settings).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn refuses_half_a_pair() {
        let ca = tempfile::NamedTempFile::new().unwrap();
        let settings = KafkaTls {
            ca: Some(ca.path().to_owned()),
            cert: Some(ca.path().to_owned()),
            key: None,
        };
        let error = client_config(&settings).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
