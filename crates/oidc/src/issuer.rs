//! The name of a provider, which is also where its discovery document is.

use crate::http::is_loopback;
use std::fmt;
use url::Url;

/// Longest issuer URL.
const ISSUER_MAX: usize = 2048;

/// An issuer identifier (OpenID Connect Discovery 1.0 section 3): compared byte for byte, never normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Issuer {
    text: String,
    discovery: Url,
}

/// Why an issuer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// It is no URL, or far too long.
    #[error("the issuer {0:?} is not a URL; write it as the provider does, like https://accounts.google.com")]
    NotAUrl(String),
    /// http to another machine, or another scheme.
    #[error("the issuer {0:?} must begin with https:// (http:// is for 127.0.0.1, [::1] and localhost only)")]
    Insecure(String),
    /// A user name, password, query or fragment.
    #[error("the issuer {0:?} must not have a user name, a query or a fragment")]
    Superfluous(String),
    /// The address of the document instead of the issuer.
    #[error("the issuer is {0:?}: leave out /.well-known/openid-configuration")]
    DocumentAddress(String),
}

impl Issuer {
    /// Reads an issuer. White space around it is forgiven; everything else is kept exactly.
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        let text = text.trim();
        let shown = || text.chars().take(200).collect::<String>();
        // A URL parser drops line ends and tabs silently; an issuer with one in it is no issuer.
        if text.len() > ISSUER_MAX || text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
            return Err(IssuerError::NotAUrl(shown()));
        }
        let url = Url::parse(text).map_err(|_| IssuerError::NotAUrl(shown()))?;
        if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
            return Err(IssuerError::Insecure(shown()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(IssuerError::Superfluous(
                url.host_str().unwrap_or_default().to_owned(),
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(IssuerError::Superfluous(shown()));
        }
        if let Some(issuer) = text.strip_suffix("/.well-known/openid-configuration") {
            return Err(IssuerError::DocumentAddress(issuer.to_owned()));
        }
        let mut discovery = url;
        let path = format!(
            "{}/.well-known/openid-configuration",
            discovery.path().trim_end_matches('/')
        );
        discovery.set_path(&path);
        Ok(Self {
            text: text.to_owned(),
            discovery,
        })
    }

    /// Exactly as it was written, as it must stand in documents and tokens.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where the discovery document is (OpenID Connect Discovery 1.0 section 4.1: the path is appended).
    pub fn discovery_url(&self) -> &Url {
        &self.discovery
    }

    /// Whether the provider runs on this machine without TLS, as development providers do.
    pub fn is_on_loopback(&self) -> bool {
        self.discovery.scheme() == "http"
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Issuer {
    type Err = IssuerError;
    fn from_str(text: &str) -> Result<Self, IssuerError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_kept_exactly_and_its_document_is_found() {
        for (issuer, discovery) in [
            (
                "https://accounts.google.com",
                "https://accounts.google.com/.well-known/openid-configuration",
            ),
            (
                "https://t.eu.auth0.com/",
                "https://t.eu.auth0.com/.well-known/openid-configuration",
            ),
            (
                "https://kc.example/realms/a",
                "https://kc.example/realms/a/.well-known/openid-configuration",
            ),
            (
                "http://127.0.0.1:9/x/",
                "http://127.0.0.1:9/x/.well-known/openid-configuration",
            ),
        ] {
            let parsed = Issuer::parse(issuer).unwrap();
            assert_eq!(
                (parsed.as_str(), parsed.discovery_url().as_str()),
                (issuer, discovery)
            );
        }
    }

    #[test]
    fn what_is_no_issuer_is_refused() {
        for bad in [
            "",
            "accounts.google.com",
            "http://idp.example",
            "HTTP://idp.example",
            "http://127.0.0.1.example",
            "https://u:p@idp.example",
            "https://idp.example?x",
            "https://idp.example#x",
            "https://idp.example/a\nb",
            "https://idp.example/; touch /tmp/x #",
            "--help",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://idp.example/.well-known/openid-configuration",
        ] {
            assert!(Issuer::parse(bad).is_err(), "{bad:?}");
        }
        assert!(
            !Issuer::parse("https://u:canary@idp.example")
                .unwrap_err()
                .to_string()
                .contains("canary")
        );
    }
}
