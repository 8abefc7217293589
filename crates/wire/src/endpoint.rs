//! Where a server is: `https` anywhere, `http` on this machine only, or a Unix socket.

use std::fmt;
use std::path::{Path, PathBuf};
use url::{Host, Url};

/// The address of a CA, a policy server or a provider that it is safe to talk to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `https://...`, or `http://` to a loopback address.
    Http(Url),
    /// `unix:///path/to.sock`.
    Unix(PathBuf),
}

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL.
    #[error("`{0}` is not a URL: {1}; write it like https://ca.example.com")]
    NotAUrl(String, String),
    /// Neither https, http nor unix.
    #[error("`{0}` must begin with https:// (or http:// to this machine, or unix://)")]
    Scheme(String),
    /// http to another machine.
    #[error(
        "`{0}` would send secrets in the clear: use https:// (http:// is for 127.0.0.1, [::1] and localhost only)"
    )]
    Insecure(String),
    /// A user name or password in the URL.
    #[error("the URL for {0} has a user name or password in it; remove it")]
    Credentials(String),
    /// A URL without a host, or a Unix socket with one.
    #[error("`{0}` {1}")]
    Host(String, &'static str),
}

impl Endpoint {
    /// Reads an address and refuses what would not be safe. White space around it is forgiven.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        let url =
            Url::parse(text).map_err(|error| EndpointError::NotAUrl(text.to_owned(), error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials(
                url.host_str().unwrap_or_default().to_owned(),
            ));
        }
        match url.scheme() {
            "unix" => match (url.host_str(), url.path()) {
                (None | Some(""), path) if path.len() > 1 => Ok(Self::Unix(PathBuf::from(path))),
                _ => Err(EndpointError::Host(
                    text.to_owned(),
                    "must name an absolute path: unix:///run/policy.sock",
                )),
            },
            "https" => Ok(Self::Http(url)),
            "http" if is_loopback(&url) => Ok(Self::Http(url)),
            "http" => Err(EndpointError::Insecure(text.to_owned())),
            _ => Err(EndpointError::Scheme(text.to_owned())),
        }
    }

    /// The URL, when it is not a Unix socket.
    pub fn url(&self) -> Option<&Url> {
        match self {
            Self::Http(url) => Some(url),
            Self::Unix(_) => None,
        }
    }

    /// The Unix socket's path, when it is one.
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Http(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

/// Whether a URL's host is this machine: a loopback address, or `localhost` by name.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_keep_a_secret_are_accepted() {
        for good in [
            "https://ca.example.com",
            "https://ca.example.com:8443/api/v1/cert",
            "  https://ca.example.com/  ",
            "http://127.0.0.1:8080",
            "HTTP://127.0.0.1",
            "http://[::1]:1/",
            "http://localhost:9999",
            "unix:///run/policy.sock",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ca.example.com",
            "http://ca.example.com",
            "HTTP://ca",
            " http://ca",
            "http://127.0.0.1.evil",
            "http://localhost.evil.com",
            "https://u:p@ca",
            "https://u@ca",
            "ftp://ca",
            "file:///etc/passwd",
            "unix://host/path",
            "unix:///",
            "https:///path",
        ] {
            match Endpoint::parse(bad) {
                Err(_) => {}
                // A URL parser repairs `https:///path` to the host `path`; it is safe, if odd.
                Ok(endpoint) => assert_eq!(
                    (bad, endpoint.to_string().as_str()),
                    ("https:///path", "https://path/")
                ),
            }
        }
    }

    #[test]
    fn a_refused_password_is_not_repeated() {
        let error = Endpoint::parse("https://user:canary@ca.example.com")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("canary"), "{error}");
    }
}
