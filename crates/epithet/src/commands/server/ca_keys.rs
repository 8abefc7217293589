//! The CA's key: the private one from its file, the public one from wherever the policy server is told.

use anyhow::{Context, bail};
use epithet_ssh::{CaKey, CaPublicKey};
use epithet_wire::limits::{CA_DEADLINE, HTTP_BODY_MAX};
use epithet_wire::{Endpoint, SecretBytes};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

/// The environment variable that opens an encrypted key where nobody is at a terminal.
const PASSPHRASE: &str = "EPITHET_CA_PASSPHRASE_FILE";

/// Loads the CA's private key; an encrypted one is opened with the passphrase of a file or of whoever is at the terminal.
/// `flag` is the one that names it, for errors.
pub(super) fn load(path: &Path, flag: &'static str) -> anyhow::Result<Arc<CaKey>> {
    let path = crate::logging::home_expanded(path)?;
    CaKey::load(&path, passphrase).map(Arc::new).context(flag)
}

fn passphrase() -> Option<SecretBytes> {
    if let Some(file) = std::env::var_os(PASSPHRASE) {
        let mut text = std::fs::read(file).ok()?;
        while text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            text.pop();
        }
        return Some(SecretBytes::new(text));
    }
    ask()
}

/// Asks at the terminal, without showing what is typed.
fn ask() -> Option<SecretBytes> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    let shown = tcgetattr(&stdin).ok()?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let _ = write!(std::io::stderr(), "Passphrase of the CA's key: ");
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).ok()?;
    let mut text = String::with_capacity(1024);
    let read = stdin.read_line(&mut text);
    let _ = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    let _ = writeln!(std::io::stderr());
    read.ok()?;
    let mut bytes = text.into_bytes();
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    Some(SecretBytes::new(bytes))
}

/// The CA's public key, for the policy server: a key line, a file, or the CA's URL.
pub(super) async fn public(named: &str, roots: Option<&[u8]>) -> anyhow::Result<CaPublicKey> {
    let named = named.trim();
    let line = if named.contains("://") {
        fetch(named, roots).await?
    } else if named.contains(' ') {
        named.to_owned()
    } else {
        let path = crate::logging::home_expanded(Path::new(named))?;
        std::fs::read_to_string(&path).with_context(|| format!("--ca-pubkey {}", path.display()))?
    };
    let Some(line) = line.lines().find(|line| !line.trim().is_empty()) else {
        bail!("--ca-pubkey {named}: there is no key")
    };
    let key = CaPublicKey::parse(line.trim()).context("--ca-pubkey")?;
    tracing::info!(fingerprint = %key.fingerprint(), "requests of this CA are answered");
    Ok(key)
}

async fn fetch(url: &str, roots: Option<&[u8]>) -> anyhow::Result<String> {
    let endpoint = Endpoint::parse(url).context("--ca-pubkey")?;
    let Endpoint::Http(url) = endpoint else {
        bail!("--ca-pubkey: a Unix socket has no key; name a file")
    };
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(CA_DEADLINE);
    let builder = match url.scheme() {
        "https" => {
            let roots = roots.map_or(Ok(Vec::new()), reqwest::Certificate::from_pem_bundle);
            builder
                .https_only(true)
                .tls_certs_merge(roots.context("--tls-ca-cert")?)
        }
        // This machine only, as an Endpoint guarantees: a proxy would ask another one, or answer for it.
        _ => builder.no_proxy().tls_certs_only([]),
    };
    let response = builder
        .build()?
        .get(url.clone())
        .send()
        .await
        .with_context(|| format!("--ca-pubkey {url}"))?;
    let status = response.status();
    let text = response
        .text()
        .await
        .with_context(|| format!("--ca-pubkey {url}"))?;
    if !status.is_success() || text.len() > HTTP_BODY_MAX {
        bail!("--ca-pubkey {url}: the CA answered {status}");
    }
    Ok(text)
}
