//! Asking a policy server: HTTPS, plain HTTP to this machine, or a Unix socket, with the CA's own token.
//!
//! Whoever can answer in a policy server's place can have any certificate within the CA's limits. So the answer comes
//! over TLS with a checked name, from this machine, or from a Unix socket that is ours or root's.

use crate::policy_source::{PolicyFailure, PolicyRefusal};
use crate::reply_token::{self, Received};
use crate::service_token::ServiceTokens;
use crate::unix_client::UnixClient;
use crate::waiting::Waiting;
use axum::body::Bytes;
use epithet_ssh::{CaPublicKey, CaSigner};
use epithet_wire::ca::{Discovery, REQUEST_ID_HEADER};
use epithet_wire::display::innermost;
use epithet_wire::limits::{HTTP_BODY_MAX, POLICY_DEADLINE, POLICY_WAITING_MAX};
use epithet_wire::policy::{GROUNDS_HEADER, Grounds, PolicyRequest, PolicyResponse, REPLY_SIGNATURE_HEADER};
use epithet_wire::{ConnectionFields, Endpoint, RequestId, Token};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use reqwest::{Certificate, Client, redirect};
use std::time::{Duration, Instant};
use url::{Position, Url};
use zeroize::Zeroizing;

/// Unused connections are closed before the server does it: it gives them twice as long.
const IDLE: Duration = Duration::from_secs(5);
/// What it says it is.
const USER_AGENT_NAME: &str = concat!("epithet/", env!("CARGO_PKG_VERSION"));
/// The header with which a policy server says that a refusal is about the CA.
const SERVICE_ERROR_HEADER: &str = "epithet-error";
/// The beginning of the same refusal from policy servers that do not set the header (epithet 0.18 and 0.19).
const SERVICE_ERROR_TEXT: &[u8] = b"request verification failed:";

/// A policy server that is another process. Connections are kept and reused.
#[derive(Debug)]
pub struct PolicyClient {
    endpoint: Endpoint,
    url: Url,
    transport: Transport,
    tokens: ServiceTokens,
    /// The keys that answers are signed with, when they have to be.
    reply_keys: Vec<CaPublicKey>,
    deadline: Duration,
    waiting: Waiting,
}

/// How the policy server is reached.
#[derive(Debug)]
enum Transport {
    Tcp(Client),
    Unix(Box<UnixClient>),
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
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
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
        let url = match endpoint.url() {
            Some(url) => url.clone(),
            None => Url::parse("http://localhost/").map_err(|error| setup(&error))?,
        };
        let builder = Client::builder();
        let builder = match url.scheme() {
            "https" => {
                let unusable = |error: String| PolicyClientError::Roots(error);
                let roots = roots.map_or(Ok(Vec::new()), Certificate::from_pem_bundle);
                builder
                    .https_only(true)
                    .tls_certs_merge(roots.map_err(|error| unusable(error.to_string()))?)
            }
            // This machine only, as an Endpoint guarantees.
            _ => builder.no_proxy().tls_certs_only([]),
        };
        let tcp = builder
            .redirect(redirect::Policy::none())
            .referer(false)
            .pool_idle_timeout(IDLE)
            .user_agent(USER_AGENT_NAME)
            .build()
            .map_err(|error| setup(&error))?;
        let transport = match endpoint.unix_path() {
            Some(path) => Transport::Unix(Box::new(UnixClient::new(path, IDLE))),
            None => Transport::Tcp(tcp),
        };
        let target = format!(
            "{}{}",
            &url[Position::BeforeHost..Position::AfterPort],
            url.path()
        );
        Ok(Self {
            endpoint: endpoint.clone(),
            tokens: ServiceTokens::new(key.into(), &target),
            url,
            transport,
            reply_keys: Vec::new(),
            deadline: POLICY_DEADLINE,
            waiting: Waiting::new(POLICY_WAITING_MAX),
        })
    }

    /// Waits this long for an answer instead of [`POLICY_DEADLINE`].
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Believes only answers that are signed by one of these keys (`--reply-key` of the policy server), each for the very
    /// question that was asked.
    #[must_use]
    pub fn with_reply_keys(self, keys: impl IntoIterator<Item = CaPublicKey>) -> Self {
        let reply_keys = keys.into_iter().collect();
        Self { reply_keys, ..self }
    }

    /// Where the policy server is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether one more request may wait for a decision.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.has_room(Instant::now())
    }

    /// Asks for a decision.
    pub(crate) async fn decide(
        &self,
        token: &Token,
        connection: &ConnectionFields,
        request_id: &RequestId,
    ) -> Result<PolicyResponse, PolicyFailure> {
        let place = self.waiting.enter(Instant::now())?;
        let request = PolicyRequest::new(token, connection.clone());
        let body = Zeroizing::new(serde_json::to_vec(&request).map_err(|error| garbled(&error))?);
        let answer = tokio::select! {
            biased;
            answer = self.ask(Method::POST, &body, Some(request_id)) => answer?,
            () = place.is_lost() => return Err(PolicyFailure::Busy(POLICY_WAITING_MAX)),
        };
        place.answered(Instant::now());
        if answer.status == StatusCode::OK {
            return epithet_wire::read_document(&answer.body).map_err(|error| garbled(&error));
        }
        Err(answer.refusal())
    }

    /// Asks for the discovery document, and how long it may be kept.
    pub(crate) async fn discovery(&self) -> Result<(Discovery, Option<HeaderValue>), PolicyFailure> {
        let mut answer = self.ask(Method::GET, b"", None).await?;
        if answer.status == StatusCode::OK {
            let discovery = epithet_wire::read_document(&answer.body).map_err(|error| garbled(&error))?;
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
        let (token, question) = self
            .tokens
            .mint(method.as_str(), body, crate::unix_now())
            .await
            .map_err(|error| PolicyFailure::Unsigned(error.to_string()))?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| PolicyFailure::Unreachable(error.to_string()))?;
        bearer.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(self.url.as_str())
            .header(AUTHORIZATION, bearer)
            .header(USER_AGENT, USER_AGENT_NAME)
            .header(CONTENT_TYPE, "application/json");
        if let Some(id) = request_id {
            request = request.header(REQUEST_ID_HEADER, id.as_str());
        }
        let setup = |error: &dyn std::error::Error| PolicyFailure::Unreachable(error.to_string());
        let request = request
            .body(Bytes::copy_from_slice(body))
            .map_err(|error| setup(&error))?;
        let whole = async {
            match &self.transport {
                Transport::Unix(client) => client.ask(request.map(Full::new)).await,
                Transport::Tcp(client) => {
                    let request = request
                        .try_into()
                        .map_err(|error: reqwest::Error| setup(&error))?;
                    let response = client.execute(request).await;
                    read(response.map_err(|error| unreachable(&error))?).await
                }
            }
        };
        let late =
            || PolicyFailure::Unreachable(format!("no answer within {} s", self.deadline.as_secs_f64()));
        let answer = tokio::time::timeout(self.deadline, whole)
            .await
            .unwrap_or_else(|_| Err(late()))?;
        self.check_signature(&answer, &question)?;
        Ok(answer)
    }

    /// Refuses an answer without the signature that it has to have. That the CA itself is refused needs none: it is not
    /// about a question that was understood, and opens nothing.
    fn check_signature(&self, answer: &Answer, question: &str) -> Result<(), PolicyFailure> {
        if self.reply_keys.is_empty() || answer.is_about_the_ca() {
            return Ok(());
        }
        let token = answer
            .headers
            .get(REPLY_SIGNATURE_HEADER)
            .map(HeaderValue::as_bytes);
        let received = Received {
            question,
            status: answer.status.as_u16(),
            body: &answer.body,
        };
        reply_token::verify(&self.reply_keys, token, &received, crate::unix_now())
            .map_err(|error| PolicyFailure::Garbled(format!("the answer is not believed: {error}")))
    }
}

pub(crate) fn too_large() -> PolicyFailure {
    PolicyFailure::Garbled(format!("the answer is larger than {HTTP_BODY_MAX} bytes"))
}

async fn read(mut response: reqwest::Response) -> Result<Answer, PolicyFailure> {
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
    /// Whether it refuses the CA and not a person.
    fn is_about_the_ca(&self) -> bool {
        let is_said = self
            .headers
            .get(SERVICE_ERROR_HEADER)
            .is_some_and(|value| value == "service-auth");
        let is_refusal = self.status.is_client_error() || self.status.is_server_error();
        is_refusal
            && (is_said
                || self.status == StatusCode::UNAUTHORIZED && self.body.starts_with(SERVICE_ERROR_TEXT))
    }

    /// What an answer other than 200 means.
    fn refusal(self) -> PolicyFailure {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        if self.is_about_the_ca() {
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
    PolicyFailure::Unreachable(innermost(error))
}
