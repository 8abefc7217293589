//! The file of `--tls-ca-cert`: read in one place, and refused there when TLS could do nothing with it.

use anyhow::{Context, bail};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use std::path::Path;

/// The PEM text of a file, which has certificates to trust and none that cannot be used. `~/` is the home directory.
///
/// # Errors
/// Named by the flag and the file: it cannot be read, has no certificate, or which of them is broken.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let path = crate::logging::home_expanded(path)?;
    let named = || format!("--tls-ca-cert {}", path.display());
    let pem = std::fs::read(&path).with_context(named)?;
    check(&pem).with_context(named)?;
    Ok(pem)
}

/// The same, where a file is named at all.
pub(crate) fn read_if_named(path: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    path.map(read).transpose()
}

fn check(pem: &[u8]) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
        let unreadable = || format!("certificate {number} cannot be read");
        let certificate = certificate.map_err(plain).with_context(unreadable)?;
        roots.add(certificate).with_context(unreadable)?;
    }
    if roots.is_empty() {
        bail!("no certificate in it; it has to be PEM: -----BEGIN CERTIFICATE-----");
    }
    Ok(())
}

/// The error in words where its own are lists of bytes.
fn plain(error: PemError) -> anyhow::Error {
    match error {
        PemError::MissingSectionEnd { .. } => anyhow::anyhow!("its -----END line is missing"),
        PemError::IllegalSectionStart { .. } => anyhow::anyhow!("its -----BEGIN line is wrong"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_certificate_or_a_broken_one_is_said_so() {
        let block = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        for (text, said) in [
            (String::new(), "no certificate in it"),
            ("hello\n".to_owned(), "no certificate in it"),
            ("ssh-ed25519 AAAA\n".to_owned(), "no certificate in it"),
            (
                block("").replace("CERTIFICATE", "PRIVATE KEY"),
                "no certificate in it",
            ),
            (block("!"), "certificate 1 cannot be read: "),
            (block("aGVsbG8="), "certificate 1 cannot be read: "),
            (
                "-----BEGIN CERTIFICATE-----\naGVs\n".to_owned(),
                "certificate 1 cannot be read: its -----END line is missing",
            ),
        ] {
            let error = format!("{:#}", check(text.as_bytes()).unwrap_err());
            assert!(error.starts_with(said), "{error}");
        }
    }
}
