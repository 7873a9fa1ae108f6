//! `kafka.tls` made into what rustls needs.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::KafkaTls;

use super::error::ProducerError;

/// Reads the files of `kafka.tls`: the authorities (the system's where none are named) and, where given, our own certificate.
/// Chain and host name of brokers are always verified.
///
/// # Errors
/// A file that cannot be read or used, by name; `cert` without `key` or the other way round.
pub(super) fn client_config(settings: &KafkaTls) -> Result<Arc<ClientConfig>, ProducerError> {
    let roots = roots(settings.ca.as_deref())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(fault)?
        .with_root_certificates(roots);
    let config = match (&settings.cert, &settings.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let private = PrivateKeyDer::from_pem_file(key)
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
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, ProducerError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            for certificate in certificates(file)? {
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

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ProducerError> {
    let read = || -> Result<Vec<_>, rustls_pki_types::pem::Error> {
        CertificateDer::pem_file_iter(file)?.collect()
    };
    let certificates = read().map_err(|error| file_fault("certificate file", file, &error))?;
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
            cert: Some(PathBuf::from("/nowhere/cert.pem")),
            key: None,
        };
        let error = client_config(&settings).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
