//! How a CA is named on the command line: `https://ca.example.com`, or `priority=50:https://backup.example.com`.

use epithet_wire::{Endpoint, EndpointError};
use std::fmt;
use url::Url;

/// A CA's URL and its rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaAddress {
    /// Where.
    pub url: Url,
    /// CAs with a higher priority are asked first; 100 unless named. 0 is the lowest.
    pub priority: u32,
}

/// Why a CA's address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaAddressError {
    /// Nothing there.
    #[error("empty CA URL; write it like https://ca.example.com")]
    Empty,
    /// `priority=50` without the colon.
    #[error("missing colon after priority value in `{0}`; write priority=50:https://ca.example.com")]
    MissingColon(String),
    /// Not a number.
    #[error("invalid priority value `{0}`; write priority=50:https://ca.example.com")]
    InvalidPriority(String),
    /// Below zero.
    #[error("priority must be non-negative, not {0}")]
    NegativePriority(String),
    /// The URL itself.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// `unix:` and others.
    #[error("a CA's URL begins with https:// (or with http:// on this machine), not like `{0}`")]
    Scheme(String),
}

/// The priority of a CA that names none.
const DEFAULT_PRIORITY: u32 = 100;

impl CaAddress {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, CaAddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(CaAddressError::Empty);
        }
        let (priority, url) = match text.strip_prefix("priority=") {
            None => (DEFAULT_PRIORITY, text),
            Some(rest) => {
                let (value, url) = rest
                    .split_once(':')
                    .ok_or_else(|| CaAddressError::MissingColon(text.to_owned()))?;
                if value.starts_with('-') {
                    return Err(CaAddressError::NegativePriority(value.to_owned()));
                }
                (
                    value
                        .parse()
                        .map_err(|_| CaAddressError::InvalidPriority(value.to_owned()))?,
                    url,
                )
            }
        };
        match Endpoint::parse(url) {
            Ok(Endpoint::Http(mut url)) => {
                // It is never sent, and one CA must not be two by it.
                url.set_fragment(None);
                Ok(Self { url, priority })
            }
            Ok(Endpoint::Unix(_)) | Err(EndpointError::Scheme(_)) => {
                Err(CaAddressError::Scheme(url.to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Display for CaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl std::str::FromStr for CaAddress {
    type Err = CaAddressError;
    fn from_str(text: &str) -> Result<Self, CaAddressError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_epithet_0_19_reads_them() {
        let good = [
            ("https://ca.example.com/", "https://ca.example.com/", 100),
            (
                "priority=50:https://backup-ca.example.com/",
                "https://backup-ca.example.com/",
                50,
            ),
            (
                "priority=0:https://last.example.com/",
                "https://last.example.com/",
                0,
            ),
            ("http://localhost:8080", "http://localhost:8080/", 100),
            (
                "  https://ca.example.com/api/v1/cert  ",
                "https://ca.example.com/api/v1/cert",
                100,
            ),
        ];
        for (text, url, priority) in good {
            let address = CaAddress::parse(text).unwrap();
            assert_eq!((address.url.as_str(), address.priority), (url, priority));
        }
        let bad = [
            ("", "empty CA URL"),
            ("   ", "empty CA URL"),
            ("priority=50", "missing colon"),
            ("priority=50https://ca.example.com", "invalid priority value"),
            ("priority=abc:https://ca.example.com", "invalid priority value"),
            ("priority=-10:https://ca.example.com", "non-negative"),
            ("ftp://ca.example.com", "https://"),
            ("unix:///run/ca.sock", "begins with https://"),
            ("http://ca.example.com", "in the clear"),
            ("not-a-url", "not a URL"),
        ];
        for (text, word) in bad {
            let error = CaAddress::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
