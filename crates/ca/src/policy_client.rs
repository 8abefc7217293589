//! Asking a policy server: HTTPS, plain HTTP to this machine, or a Unix socket, with the CA's own token.
//!
//! Whoever can answer in a policy server's place can have any certificate within the CA's limits. So the answer comes
//! over TLS with a checked name, from this machine, or from a Unix socket that is ours or root's.

use crate::policy_source::{PolicyFailure, PolicyRefusal};
use crate::service_token::ServiceTokens;
use axum::body::Bytes;
use epithet_ssh::CaSigner;
use epithet_wire::ca::{Discovery, REQUEST_ID_HEADER};
use epithet_wire::limits::{HTTP_BODY_MAX, POLICY_DEADLINE};
use epithet_wire::policy::{GROUNDS_HEADER, Grounds, PolicyRequest, PolicyResponse};
use epithet_wire::{ConnectionFields, Endpoint, RequestId, Token};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::{Certificate, Client, redirect};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use url::{Position, Url};
use zeroize::Zeroizing;

/// Unused connections are closed before the server does it: it gives them twice as long.
const IDLE: Duration = Duration::from_secs(5);
/// The header with which a policy server says that a refusal is about the CA.
const SERVICE_ERROR_HEADER: &str = "epithet-error";
/// The beginning of the same refusal from policy servers that do not set the header (epithet 0.18 and 0.19).
const SERVICE_ERROR_TEXT: &[u8] = b"request verification failed:";

/// A policy server that is another process. Connections are kept and reused.
#[derive(Debug)]
pub struct PolicyClient {
    endpoint: Endpoint,
    url: Url,
    socket: Option<PathBuf>,
    client: Client,
    tokens: ServiceTokens,
    deadline: Duration,
}

/// Why a policy server cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum PolicyClientError {
    /// The additional roots are no certificates.
    #[error("the file of --tls-ca-cert cannot be used: {0}")]
    Roots(String),
    /// TLS could not be set up.
    #[error("cannot set up the connection to the policy server: {0}")]
    Setup(String),
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl PolicyClient {
    /// A client for the policy server at `endpoint`, which knows the CA by `key`. `roots` is a PEM bundle of
    /// certificates to trust beside the system's (`--tls-ca-cert`). Connects to nobody yet.
    ///
    /// # Errors
    /// [`PolicyClientError`] when TLS cannot be set up.
    pub fn new(
        endpoint: &Endpoint,
        key: impl Into<CaSigner>,
        roots: Option<&[u8]>,
    ) -> Result<Self, PolicyClientError> {
        let setup = |error: &dyn std::error::Error| PolicyClientError::Setup(error.to_string());
        let socket = endpoint.unix_path().map(ToOwned::to_owned);
        let url = match endpoint.url() {
            Some(url) => url.clone(),
            None => Url::parse("http://localhost/").map_err(|error| setup(&error))?,
        };
        let mut builder = Client::builder();
        builder = match (&socket, url.scheme()) {
            (Some(path), _) => builder.unix_socket(path.as_path()).no_proxy().tls_certs_only([]),
            (None, "https") => {
                let unusable = |error: String| PolicyClientError::Roots(error);
                let roots = roots.map_or(Ok(Vec::new()), Certificate::from_pem_bundle);
                builder
                    .https_only(true)
                    .tls_certs_merge(roots.map_err(|error| unusable(error.to_string()))?)
            }
            // This machine only, as an Endpoint guarantees.
            (None, _) => builder.no_proxy().tls_certs_only([]),
        };
        let client = builder
            .redirect(redirect::Policy::none())
            .referer(false)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("epithet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| setup(&error))?;
        let target = format!(
            "{}{}",
            &url[Position::BeforeHost..Position::AfterPort],
            url.path()
        );
        Ok(Self {
            endpoint: endpoint.clone(),
            tokens: ServiceTokens::new(key.into(), &target),
            url,
            socket,
            client,
            deadline: POLICY_DEADLINE,
        })
    }

    /// Waits this long for an answer instead of [`POLICY_DEADLINE`].
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Where the policy server is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks for a decision.
    pub(crate) async fn decide(
        &self,
        token: &Token,
        connection: &ConnectionFields,
        request_id: &RequestId,
    ) -> Result<PolicyResponse, PolicyFailure> {
        let request = PolicyRequest::new(token, connection.clone());
        let body = Zeroizing::new(serde_json::to_vec(&request).map_err(|error| garbled(&error))?);
        let answer = self.ask(Method::POST, &body, Some(request_id)).await?;
        if answer.status == StatusCode::OK {
            return serde_json::from_slice(&answer.body).map_err(|error| garbled(&error));
        }
        Err(answer.refusal())
    }

    /// Asks for the discovery document, and how long it may be kept.
    pub(crate) async fn discovery(&self) -> Result<(Discovery, Option<HeaderValue>), PolicyFailure> {
        let mut answer = self.ask(Method::GET, b"", None).await?;
        if answer.status == StatusCode::OK {
            let discovery = serde_json::from_slice(&answer.body).map_err(|error| garbled(&error))?;
            return Ok((discovery, answer.headers.remove(CACHE_CONTROL)));
        }
        Err(answer.refusal())
    }

    async fn ask(
        &self,
        method: Method,
        body: &[u8],
        request_id: Option<&RequestId>,
    ) -> Result<Answer, PolicyFailure> {
        self.check_socket()?;
        let token = self
            .tokens
            .mint(method.as_str(), body, crate::unix_now())
            .await
            .map_err(|error| PolicyFailure::Unsigned(error.to_string()))?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| PolicyFailure::Unreachable(error.to_string()))?;
        bearer.set_sensitive(true);
        let mut request = self
            .client
            .request(method, self.url.clone())
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json");
        if let Some(id) = request_id {
            request = request.header(REQUEST_ID_HEADER, id.as_str());
        }
        if !body.is_empty() {
            request = request.body(body.to_vec());
        }
        let whole = async {
            let response = request.send().await.map_err(|error| unreachable(&error))?;
            read(response).await
        };
        let late =
            || PolicyFailure::Unreachable(format!("no answer within {} s", self.deadline.as_secs_f64()));
        tokio::time::timeout(self.deadline, whole)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// Refuses a socket that somebody else put there.
    fn check_socket(&self) -> Result<(), PolicyFailure> {
        let Some(path) = &self.socket else { return Ok(()) };
        let owner = std::fs::symlink_metadata(path)
            .map_err(|error| PolicyFailure::Unreachable(format!("{}: {error}", path.display())))?
            .uid();
        if owner == 0 || owner == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        Err(PolicyFailure::Unreachable(format!(
            "{} belongs to uid {owner}",
            path.display()
        )))
    }
}

async fn read(mut response: reqwest::Response) -> Result<Answer, PolicyFailure> {
    let too_large = || PolicyFailure::Garbled(format!("the answer is larger than {HTTP_BODY_MAX} bytes"));
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let mut body = response
        .chunk()
        .await
        .map_err(|error| unreachable(&error))?
        .unwrap_or_default();
    if body.len() > HTTP_BODY_MAX {
        return Err(too_large());
    }
    // Nearly every answer comes in one piece.
    if let Some(second) = response.chunk().await.map_err(|error| unreachable(&error))? {
        let mut all = [&body[..], &second[..]].concat();
        while let Some(more) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if all.len() + more.len() > HTTP_BODY_MAX {
                return Err(too_large());
            }
            all.extend_from_slice(&more);
        }
        body = all.into();
    }
    if body.len() > HTTP_BODY_MAX {
        return Err(too_large());
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

impl Answer {
    /// What an answer other than 200 means.
    fn refusal(self) -> PolicyFailure {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let is_about_the_ca = self
            .headers
            .get(SERVICE_ERROR_HEADER)
            .is_some_and(|value| value == "service-auth")
            || self.status == StatusCode::UNAUTHORIZED && self.body.starts_with(SERVICE_ERROR_TEXT);
        if is_about_the_ca {
            return PolicyFailure::NotTrusted(text);
        }
        if self.status.is_client_error() || self.status.is_server_error() {
            return PolicyFailure::Refused(PolicyRefusal {
                status: self.status,
                message: text,
                grounds: self
                    .headers
                    .get(GROUNDS_HEADER)
                    .and_then(|value| Grounds::from_header(value.as_bytes()))
                    .map(Box::new),
            });
        }
        PolicyFailure::Garbled(format!("the answer has the status {}", self.status.as_u16()))
    }
}

fn garbled(error: &serde_json::Error) -> PolicyFailure {
    PolicyFailure::Garbled(format!("the answer is not that of a policy server: {error}"))
}

/// The innermost reason, which is the one that helps; without the URL, which may be internal.
fn unreachable(error: &reqwest::Error) -> PolicyFailure {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    PolicyFailure::Unreachable(reason.to_string())
}
