//! TLS from PEM files, which may be replaced while the server runs.

use crate::tls_expiry;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// A certificate chain and its key, read from files. Clones share what they read.
#[derive(Debug, Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ArcSwap<Loaded>>,
}

/// What the files held.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// When the certificate ends, in seconds since 1970.
    not_after: Option<i64>,
}

/// Why TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read or is not PEM.
    #[error("cannot read the TLS {what} {}: {source}", path.display())]
    Unreadable {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate file without a certificate.
    #[error("{} holds no certificate; it must have the server's first, then the intermediates, in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// A private key that everybody on this machine can read.
    #[error("the TLS key {} can be read by everybody: run `chmod o= {}`", .0.display(), .0.display())]
    KeyReadable(PathBuf),
    /// A certificate and a key that do not go together, or of a kind that TLS cannot use.
    #[error("the TLS certificate {} and key {} cannot be used together: {source}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
}

impl Tls {
    /// Reads a certificate chain and its private key, both PEM. Offers TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let config = read(certificate, key)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            config: Arc::new(ArcSwap::from_pointee(config)),
        })
    }

    /// Reads the files again. New connections get what they hold now; on an error the old ones stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(Arc::new(read(&self.certificate, &self.key)?));
        Ok(())
    }

    /// When the certificate that is served now ends, in seconds since 1970.
    pub fn not_after(&self) -> Option<i64> {
        self.config.load().not_after
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.load().config))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Loaded, TlsError> {
    let unreadable = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unreadable { what, path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable("certificate", certificate))?;
    let Some(first) = chain.first() else {
        return Err(TlsError::NoCertificate(certificate.to_owned()));
    };
    let not_after = tls_expiry::not_after(first);
    if std::fs::metadata(key).is_ok_and(|found| found.mode() & 0o007 != 0) {
        return Err(TlsError::KeyReadable(key.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable("key", key))?;
    let unusable = |source| TlsError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Loaded {
        config: Arc::new(config),
        not_after,
    })
}
