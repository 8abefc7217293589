//! HTTP to a provider: bounded in time and size, never redirected where that could matter, never in the clear.
//!
//! A provider is not trusted with our memory or our patience: 256 KiB, 5 s to connect, 30 s in all. Redirects
//! are followed for documents only, at most three, and only within the same origin.

use crate::reply::{Reply, reply};
use epithet_wire::display::sanitize_line;
use epithet_wire::limits;
use reqwest::header;
use reqwest::{Certificate, Client, RequestBuilder, redirect};
use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;
use url::{Host, Url};

/// Why a provider did not answer, or not usefully. The address is in every message; nothing secret is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The address is neither https nor this machine.
    #[error("`{url}` would be fetched in the clear; the provider must use https://")]
    Insecure {
        /// Where to.
        url: String,
    },
    /// The client could not be set up: an unreadable root certificate, no system roots.
    #[error("cannot set up TLS: {detail}; check --tls-ca-cert and the system's CA certificates")]
    Setup {
        /// What the TLS library said.
        detail: String,
    },
    /// No connection: name, network, refused, or a certificate that does not check out.
    #[error("cannot reach {url}: {detail}")]
    Unreachable {
        /// Where to.
        url: String,
        /// The innermost reason.
        detail: String,
    },
    /// A deadline of `wire::limits` passed.
    #[error("{url} did not answer in time ({seconds} s)")]
    TimedOut {
        /// Where to.
        url: String,
        /// The limit that was hit.
        seconds: u64,
    },
    /// The reply is larger than `wire::limits::OIDC_BODY_MAX`.
    #[error("the reply of {url} is larger than {max} KiB", max = limits::OIDC_BODY_MAX / 1024)]
    TooLarge {
        /// Where from.
        url: String,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects to {target}, which is not followed; {advice}")]
    Redirected {
        /// Where from.
        url: String,
        /// Where to.
        target: String,
        /// What to configure instead.
        advice: &'static str,
    },
    /// A status that is not success.
    #[error("{url} answered with status {status}")]
    Status {
        /// Where from.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// Something else than JSON, for example the page of a captive portal.
    #[error("{url} answered with {found:?} instead of JSON; is there a sign-on page or proxy in between?")]
    ContentType {
        /// Where from.
        url: String,
        /// The content type.
        found: String,
    },
}

/// How requests are made. One per process; connections are kept and reused.
#[derive(Debug)]
pub struct Http {
    deadline: Duration,
    roots: Vec<Certificate>,
    secure: OnceLock<Result<Client, FetchError>>,
    loopback: OnceLock<Result<Client, FetchError>>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            deadline: limits::OIDC_DEADLINE,
            roots: Vec::new(),
            secure: OnceLock::new(),
            loopback: OnceLock::new(),
        }
    }
}

impl Http {
    /// Trusts the system's roots and, in addition, the certificates of this PEM bundle (`--tls-ca-cert`).
    ///
    /// # Errors
    /// [`FetchError::Setup`] when the bundle holds no readable certificate.
    pub fn with_roots(pem: &[u8]) -> Result<Self, FetchError> {
        let roots = Certificate::from_pem_bundle(pem).map_err(|error| setup(&error))?;
        if roots.is_empty() {
            return Err(FetchError::Setup {
                detail: "the file has no certificate in it".into(),
            });
        }
        Ok(Self {
            roots,
            ..Self::default()
        })
    }

    /// Waits no longer than this for a whole reply, if it is less than the usual 30 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self {
            deadline: deadline.min(limits::OIDC_DEADLINE),
            ..self
        }
    }

    /// Fetches a document, following redirects within its origin; `etag` makes the request conditional.
    pub(crate) async fn get(&self, url: &Url, etag: Option<&str>) -> Result<Reply, FetchError> {
        let mut url = url.clone();
        for _ in 0..=limits::OIDC_REDIRECTS_MAX {
            let mut request = self
                .client(&url)?
                .get(url.clone())
                .header(header::ACCEPT, "application/json");
            if let Some(etag) = etag {
                request = request.header(header::IF_NONE_MATCH, etag);
            }
            let reply = self.send(request, &url).await?;
            if reply.status == 304 || !(300..400).contains(&reply.status) {
                return Ok(reply);
            }
            let target = reply
                .location
                .as_deref()
                .and_then(|location| url.join(location).ok());
            match target {
                Some(target) if target.origin() == url.origin() => url = target,
                _ => {
                    return Err(redirected(
                        &url,
                        reply.location,
                        "give the address it redirects to",
                    ));
                }
            }
        }
        Err(redirected(&url, None, "it redirects without end"))
    }

    /// Fetches a document that may not be redirected at all: keys.
    pub(crate) async fn get_directly(&self, url: &Url, etag: Option<&str>) -> Result<Reply, FetchError> {
        let mut request = self
            .client(url)?
            .get(url.clone())
            .header(header::ACCEPT, "application/json");
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        refuse_redirect(self.send(request, url).await?, url)
    }

    /// Posts a form, with an `Authorization` header when there is one. Never redirected.
    pub(crate) async fn post(
        &self,
        url: &Url,
        form: &[(String, String)],
        authorization: Option<&str>,
    ) -> Result<Reply, FetchError> {
        let mut request = self
            .client(url)?
            .post(url.clone())
            .header(header::ACCEPT, "application/json")
            .form(form);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        refuse_redirect(self.send(request, url).await?, url)
    }

    /// The client for an address: the system's proxies and roots for others, neither for this machine.
    fn client(&self, url: &Url) -> Result<&Client, FetchError> {
        let client = match url.scheme() {
            "https" => self.secure.get_or_init(|| {
                self.build(
                    Client::builder()
                        .https_only(true)
                        .tls_certs_merge(self.roots.iter().cloned()),
                )
            }),
            "http" if is_loopback(url) => {
                // No roots: reading the system's takes longer than the whole request, and nothing here uses them.
                self.loopback
                    .get_or_init(|| self.build(Client::builder().no_proxy().tls_certs_only([])))
            }
            _ => return Err(FetchError::Insecure { url: shown(url) }),
        };
        client.as_ref().map_err(Clone::clone)
    }

    fn build(&self, builder: reqwest::ClientBuilder) -> Result<Client, FetchError> {
        builder
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(limits::OIDC_CONNECT_DEADLINE)
            .timeout(self.deadline)
            .user_agent(concat!("epithet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| setup(&error))
    }

    async fn send(&self, request: RequestBuilder, url: &Url) -> Result<Reply, FetchError> {
        let failure = |error: &reqwest::Error| failure(error, url, self.deadline);
        let mut response = request.send().await.map_err(|error| failure(&error))?;
        if response
            .content_length()
            .is_some_and(|length| length > limits::OIDC_BODY_MAX as u64)
        {
            return Err(FetchError::TooLarge { url: shown(url) });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len() + chunk.len() > limits::OIDC_BODY_MAX {
                return Err(FetchError::TooLarge { url: shown(url) });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(reply(&response, body))
    }
}

fn refuse_redirect(reply: Reply, url: &Url) -> Result<Reply, FetchError> {
    if (300..400).contains(&reply.status) && reply.status != 304 {
        return Err(redirected(
            url,
            reply.location,
            "the provider's discovery document must name the final address",
        ));
    }
    Ok(reply)
}

fn redirected(url: &Url, location: Option<String>, advice: &'static str) -> FetchError {
    let target = sanitize_line(location.as_deref().unwrap_or("nowhere"), 200);
    FetchError::Redirected {
        url: shown(url),
        target,
        advice,
    }
}

fn setup(error: &reqwest::Error) -> FetchError {
    FetchError::Setup {
        detail: innermost(error),
    }
}

fn failure(error: &reqwest::Error, url: &Url, deadline: Duration) -> FetchError {
    if error.is_timeout() {
        let limit = if error.is_connect() {
            limits::OIDC_CONNECT_DEADLINE
        } else {
            deadline
        };
        return FetchError::TimedOut {
            url: shown(url),
            seconds: limit.as_secs(),
        };
    }
    FetchError::Unreachable {
        url: shown(url),
        detail: innermost(error),
    }
}

fn innermost(error: &dyn Error) -> String {
    sanitize_line(&epithet_wire::display::innermost(error), 250)
}

/// An address as it may be shown: without a query, which may hold what is not for others.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    sanitize_line(url.as_str(), 200)
}

/// Whether a URL's host is this machine: a loopback address, or `localhost` by name.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_query() {
        assert_eq!(
            shown(&Url::parse("https://idp.example/cb?code=secret#x").unwrap()),
            "https://idp.example/cb"
        );
    }

    #[tokio::test]
    async fn nothing_travels_in_the_clear_but_to_this_machine() {
        let http = Http::default();
        for bad in [
            "http://idp.example/",
            "ftp://127.0.0.1/",
            "http://127.0.0.1.example/",
        ] {
            let refused = http.get(&Url::parse(bad).unwrap(), None).await.err().unwrap();
            assert!(matches!(refused, FetchError::Insecure { .. }), "{bad}: {refused}");
        }
    }
}
