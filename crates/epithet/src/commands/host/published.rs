//! The keys that a CA publishes, and what time it is there.

use crate::cli::{CaKeyOptions, Global};
use crate::config;
use crate::published_text::{innermost, published_text};
use anyhow::{Context, bail};
use epithet_ssh::CaPublicKey;
use epithet_wire::Endpoint;
use epithet_wire::limits::{CA_DEADLINE, HTTP_BODY_MAX};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use std::io::Read;
use std::path::Path;

/// A CA's keys: never none.
#[derive(Debug)]
pub(super) struct Published {
    /// The CA's URL, or the file's absolute name.
    pub(super) source: String,
    /// Whether the source is the same CA's each time. Standard input may be anybody's.
    pub(super) names_one_ca: bool,
    /// The keys, in the order in which they are published.
    pub(super) keys: Vec<CaPublicKey>,
    /// How far this host's clock is ahead of the CA's, in seconds; negative when it is behind. Unknown for a file.
    pub(super) ahead: Option<i64>,
}

/// Reads the keys from wherever the command line says; `None` when it says nothing.
pub(super) fn published(global: &Global, options: &CaKeyOptions) -> anyhow::Result<Option<Published>> {
    let published = match (&options.ca_url, &options.ca_pubkey) {
        (Some(url), _) => from_ca(global, url)?,
        (None, Some(file)) => from_file(file)?,
        (None, None) if options.fingerprint.is_empty() => return Ok(None),
        (None, None) => {
            bail!("--fingerprint is of a key that --ca-url or --ca-pubkey names; give one of them")
        }
    };
    expect(&published, &options.fingerprint)?;
    Ok(Some(published))
}

fn from_file(file: &Path) -> anyhow::Result<Published> {
    let named = || format!("--ca-pubkey {}", file.display());
    let (source, names_one_ca, text) = if file == Path::new("-") {
        let mut text = String::new();
        let limit = u64::try_from(HTTP_BODY_MAX).unwrap_or(u64::MAX);
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
            .context("--ca-pubkey: cannot read standard input")?;
        ("standard input".to_owned(), false, text)
    } else {
        // A name that is relative, or a link, may be another CA's file elsewhere; a pipe's name is anybody's.
        let path = file.canonicalize().ok().filter(|path| path.is_file());
        let text = std::fs::read_to_string(file).with_context(named)?;
        let source = path.as_deref().unwrap_or(file).display().to_string();
        (source, path.is_some(), text)
    };
    let keys = keys(&text).with_context(named)?;
    Ok(Published {
        source,
        names_one_ca,
        keys,
        ahead: None,
    })
}

fn from_ca(global: &Global, url: &str) -> anyhow::Result<Published> {
    let Endpoint::Http(url) = Endpoint::parse(url).context("--ca-url")? else {
        bail!(
            "--ca-url {url}: hosts fetch keys over https; for a CA at a Unix socket name its key's .pub file with --ca-pubkey"
        )
    };
    let config = config::load(global.config.as_deref())?;
    let roots = global.tls_ca_cert.clone().or(config.tls_ca_cert);
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(CA_DEADLINE);
    if let Some(pem) = crate::tls_roots::read_if_named(roots.as_deref())? {
        let roots = reqwest::Certificate::from_pem_bundle(&pem).context("--tls-ca-cert")?;
        builder = builder.tls_certs_merge(roots);
    }
    if url.scheme() == "http" {
        builder = builder.no_proxy();
    }
    let client = builder.build().context("cannot set up TLS")?;
    let source = url.to_string();
    let (text, ahead) =
        crate::runtime::briefly(fetch(client, url))?.with_context(|| format!("--ca-url {source}"))?;
    let keys =
        keys(&text).with_context(|| format!("--ca-url {source}: the CA did not answer with its keys"))?;
    Ok(Published {
        source,
        names_one_ca: true,
        keys,
        ahead,
    })
}

async fn fetch(client: reqwest::Client, url: url::Url) -> anyhow::Result<(String, Option<i64>)> {
    let response = client.get(url).send().await.map_err(innermost)?;
    let now = Timestamp::now().as_second();
    if !response.status().is_success() {
        bail!("the CA answered {}", response.status());
    }
    let date = response.headers().get("date").and_then(|date| date.to_str().ok());
    let there = date.and_then(|date| rfc2822::parse(date).ok());
    let ahead = there.map(|there| now - there.timestamp().as_second());
    let text = published_text(response).await?;
    Ok((text, ahead))
}

/// One key a line; blank lines and comments are passed over.
fn keys(text: &str) -> anyhow::Result<Vec<CaPublicKey>> {
    let mut keys: Vec<CaPublicKey> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = CaPublicKey::parse(line).with_context(|| format!("line {number}"))?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        bail!("there is no key in it");
    }
    Ok(keys)
}

/// Every key has to be one whose fingerprint was given, when any was.
fn expect(published: &Published, fingerprints: &[String]) -> anyhow::Result<()> {
    if let Some(wrong) = fingerprints.iter().find(|text| !looks_like_one(text)) {
        bail!("--fingerprint {wrong}: write it as `ssh-keygen -l` shows it: SHA256: and 43 characters");
    }
    if fingerprints.is_empty() {
        return Ok(());
    }
    let known = |key: &CaPublicKey| fingerprints.contains(&key.fingerprint());
    match published.keys.iter().find(|key| !known(key)) {
        None => Ok(()),
        Some(key) => bail!(
            "{} has the key {}, which no --fingerprint names; if it is the CA's, add it; if nobody knows it, do not trust it",
            published.source,
            key.fingerprint()
        ),
    }
}

fn looks_like_one(text: &str) -> bool {
    let digits = text.strip_prefix("SHA256:").unwrap_or_default();
    digits.len() == 43
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
}

/// `ssh-ed25519` and so on.
pub(super) fn algorithm(key: &CaPublicKey) -> String {
    let line = key.line();
    line.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
    const FINGERPRINT: &str = "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg";

    #[test]
    fn keys_are_one_a_line_and_anything_else_is_named_by_its_line() {
        let read = |text: &str| {
            keys(text)
                .map(|keys| keys.len())
                .map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read(&format!("# ours\n\n{KEY} comment\n{KEY}\n")), Ok(1));
        assert!(read("").unwrap_err().contains("no key"));
        let error = read(&format!("{KEY}\n<html>\n")).unwrap_err();
        assert!(error.starts_with("line 2"), "{error}");
    }

    #[test]
    fn a_key_that_nobody_named_is_refused_when_any_was_named() {
        let published = Published {
            source: "https://ca".into(),
            names_one_ca: true,
            keys: keys(KEY).unwrap(),
            ahead: None,
        };
        let expect = |fingerprint: &str| {
            expect(&published, &[fingerprint.to_owned()]).map_err(|error| error.to_string())
        };
        assert_eq!(expect(FINGERPRINT), Ok(()));
        let other = format!("SHA256:{}", "A".repeat(43));
        assert!(expect(&other).unwrap_err().contains(FINGERPRINT));
        for wrong in ["lbms", "SHA256:short", "MD5:00:11", ""] {
            assert!(expect(wrong).unwrap_err().contains("ssh-keygen -l"), "{wrong}");
        }
    }
}
