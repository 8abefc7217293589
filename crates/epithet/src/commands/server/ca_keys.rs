//! The CA's keys: the private one from a file or an agent, those that are published beside it, and the public ones
//! that a policy server is told.

use super::passphrase::Passphrases;
use crate::published_text::{innermost, published_text};
use anyhow::{Context, bail};
use epithet_ssh::{AgentAddress, AgentKey, CaKey, CaKeyError, CaKeyFormatError, CaPublicKey, CaSigner};
use epithet_wire::Endpoint;
use epithet_wire::limits::{CA_DEADLINE, CA_KEYS_MAX};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio_util::sync::CancellationToken;

/// How often a passphrase is asked for at a terminal.
const ATTEMPTS: usize = 3;

/// A key as `--key` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyName {
    /// A file: a private key, or with `.pub` at its end a public one.
    File(PathBuf),
    /// A key in an ssh-agent.
    Agent(AgentAddress),
}

impl FromStr for KeyName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if AgentAddress::is_meant(text) {
            return Ok(Self::Agent(text.parse()?));
        }
        if text.is_empty() {
            bail!("name a file, or a key in an agent: agent:SHA256:...");
        }
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Agent(address) => address.fmt(f),
        }
    }
}

/// The keys of a running CA.
pub(super) struct CaKeys {
    /// The first that was named.
    pub(super) signer: CaSigner,
    /// The others, published for hosts to trust.
    pub(super) others: Vec<CaPublicKey>,
}

/// Loads them all: the first signs, the others are published. `flag` is the one that names them, for errors.
pub(super) async fn load(
    names: &[KeyName],
    flag: &'static str,
    passphrases: &mut Passphrases,
) -> anyhow::Result<CaKeys> {
    let Some((first, others)) = names.split_first() else {
        bail!("{flag} is required");
    };
    if names.len() > CA_KEYS_MAX {
        bail!("{flag}: at most {CA_KEYS_MAX} keys can be published at once");
    }
    if is_public(first) {
        bail!("{flag} {first}: the first key signs, so it must be a private one; public keys may follow it");
    }
    let signer = private(first, passphrases)
        .await
        .with_context(|| flag.to_owned())?;
    let mut published = Vec::new();
    for name in others {
        let key = match name {
            KeyName::File(path) if is_public(name) => one_public(path),
            _ => private(name, passphrases)
                .await
                .map(|signer| signer.public().clone()),
        };
        published.push(key.with_context(|| flag.to_owned())?);
    }
    tracing::info!(key = %first, fingerprint = %signer.fingerprint(), "this key signs");
    for key in &published {
        tracing::info!(fingerprint = %key.fingerprint(), "published beside it");
    }
    Ok(CaKeys {
        signer,
        others: published,
    })
}

fn is_public(name: &KeyName) -> bool {
    matches!(name, KeyName::File(path) if path.extension().is_some_and(|extension| extension == "pub"))
}

fn one_public(path: &Path) -> anyhow::Result<CaPublicKey> {
    let path = crate::logging::home_expanded(path)?;
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read the key {}", path.display()))?;
    CaPublicKey::parse(text.trim()).with_context(|| path.display().to_string())
}

async fn private(name: &KeyName, passphrases: &mut Passphrases) -> anyhow::Result<CaSigner> {
    match name {
        KeyName::Agent(address) => Ok(find_in_agent(address).await?.into()),
        KeyName::File(path) => {
            let path = crate::logging::home_expanded(path)?;
            Ok(from_file(&path, passphrases)?.into())
        }
    }
}

async fn find_in_agent(address: &AgentAddress) -> anyhow::Result<AgentKey> {
    let default = std::env::var_os("SSH_AUTH_SOCK")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    Ok(AgentKey::find(address, default.as_deref()).await?)
}

/// A person may mistype a passphrase; a file or a descriptor says the same each time.
fn from_file(path: &Path, passphrases: &mut Passphrases) -> anyhow::Result<CaKey> {
    let mut problem = None;
    let source = passphrases.next()?;
    for _ in 0..ATTEMPTS {
        match CaKey::load(path, || source.get(path, &mut problem)) {
            Err(CaKeyError::Format {
                source: CaKeyFormatError::WrongPassphrase,
                ..
            }) if source.is_a_person() => {
                eprintln_quietly("That passphrase is wrong.");
            }
            loaded => return problem.map_or(Ok(()), Err).and(loaded.map_err(Into::into)),
        }
    }
    bail!("{}: the passphrase was wrong {ATTEMPTS} times", path.display())
}

fn eprintln_quietly(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One private key, of a policy server.
pub(super) async fn one(
    name: &KeyName,
    flag: &'static str,
    ending: &CancellationToken,
) -> anyhow::Result<CaSigner> {
    if is_public(name) {
        bail!("{flag} {name}: a private key is needed to sign with");
    }
    private(name, &mut Passphrases::new(None, ending))
        .await
        .with_context(|| flag.to_owned())
}

/// Public keys, each by a line or by the file that has it.
pub(super) fn named(names: &[String], flag: &'static str) -> anyhow::Result<Vec<CaPublicKey>> {
    let keys = names.iter().map(|name| match name.trim() {
        line if line.contains(' ') => Ok(CaPublicKey::parse(line)?),
        path => one_public(Path::new(path)),
    });
    keys.map(|key| key.with_context(|| flag.to_owned())).collect()
}

/// The public half of a key that `--next` names: without the private one, which may be elsewhere.
pub(crate) async fn public_half(name: &KeyName) -> anyhow::Result<CaPublicKey> {
    match name {
        KeyName::Agent(address) => Ok(find_in_agent(address).await?.public().clone()),
        KeyName::File(path) if is_public(name) => one_public(path),
        KeyName::File(path) => {
            let mut public = path.clone().into_os_string();
            public.push(".pub");
            one_public(Path::new(&public))
                .with_context(|| format!("the public half of {} is needed", path.display()))
        }
    }
}

/// The CA's public keys, for the policy server: a key line, a file, or the CA's URL.
pub(super) async fn public(named: &str, roots: Option<&[u8]>) -> anyhow::Result<Vec<CaPublicKey>> {
    let named = named.trim();
    let text = if named.contains("://") {
        fetch("--ca-pubkey", named, roots).await?
    } else if named.contains(' ') {
        named.to_owned()
    } else {
        let path = crate::logging::home_expanded(Path::new(named))?;
        std::fs::read_to_string(&path).with_context(|| format!("--ca-pubkey {}", path.display()))?
    };
    let keys = parse_lines(&text).context("--ca-pubkey")?;
    if keys.is_empty() {
        bail!("--ca-pubkey {named}: there is no key")
    }
    for key in &keys {
        tracing::info!(fingerprint = %key.fingerprint(), "requests of the CA with this key are answered");
    }
    Ok(keys)
}

/// One key a line; empty lines and `#` comments are skipped, as sshd does in `TrustedUserCAKeys`.
pub(crate) fn parse_lines(text: &str) -> anyhow::Result<Vec<CaPublicKey>> {
    let lines = text.lines().map(str::trim);
    let keys: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(CaPublicKey::parse)
        .collect::<Result<_, _>>()?;
    if keys.len() > CA_KEYS_MAX {
        bail!("there are {} keys; at most {CA_KEYS_MAX} are read", keys.len());
    }
    Ok(keys)
}

/// What a CA answers to `GET /`. `flag` named the URL, for errors.
pub(crate) async fn fetch(flag: &str, url: &str, roots: Option<&[u8]>) -> anyhow::Result<String> {
    let endpoint = Endpoint::parse(url).with_context(|| flag.to_owned())?;
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(CA_DEADLINE);
    let (url, builder) = match &endpoint {
        Endpoint::Http(url) if url.scheme() == "https" => {
            let roots = roots.map_or(Ok(Vec::new()), reqwest::Certificate::from_pem_bundle);
            let builder = builder
                .https_only(true)
                .tls_certs_merge(roots.context("--tls-ca-cert")?);
            (url.as_str(), builder)
        }
        // This machine only, as an Endpoint guarantees: a proxy would ask another one, or answer for it.
        Endpoint::Http(url) => (url.as_str(), builder.no_proxy().tls_certs_only([])),
        Endpoint::Unix(path) => {
            let builder = builder.unix_socket(path.as_path());
            ("http://localhost/", builder.no_proxy().tls_certs_only([]))
        }
    };
    let failed = || format!("{flag} {endpoint}");
    let response = builder.build()?.get(url).send().await;
    let response = response.map_err(innermost).with_context(failed)?;
    let status = response.status();
    if !status.is_success() {
        bail!("{flag} {endpoint}: the CA answered {status}");
    }
    published_text(response).await.with_context(failed)
}
