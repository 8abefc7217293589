//! The CA's HTTP API, wire-compatible with epithet 0.19: `GET /`, `POST /`, `GET /discovery`; errors are plain text.

use crate::audit::{Asked, AuditLine, AuditLog};
use crate::authority::Authority;
use crate::ceilings::Excess;
use crate::policy_source::{PolicyRefusal, PolicySource};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use epithet_serve::{ClientAddress, json, method_not_allowed, read_body, request_id, text};
use epithet_ssh::SubjectPublicKey;
use epithet_wire::ca::{CertificateRequest, CertificateResponse, Discovery};
use epithet_wire::limits::{DISCOVERY_MAX_AGE, HTTP_BODY_MAX};
use epithet_wire::{Principal, RequestId, TOKEN_ENCODING_HEADER, Token};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// Both relations, the older one first, because the client of 0.17 reads only the first link.
const LINKS: &str = "</discovery>; rel=\"discovery\", <discovery>; rel=\"https://epithet.dev/rel/auth\"";

/// A CA: its authority, its policy, its audit log.
#[derive(Debug)]
pub struct Ca {
    authority: Authority,
    policy: PolicySource,
    audit: AuditLog,
    public_keys: String,
    fingerprint: String,
    discovery: Mutex<Option<(Instant, Discovery)>>,
}

impl Ca {
    /// A CA out of its parts.
    pub fn new(authority: Authority, policy: PolicySource, audit: AuditLog) -> Self {
        let public_keys = format!("{}\n", authority.key().public_line());
        let fingerprint = authority.key().fingerprint();
        Self {
            authority,
            policy,
            audit,
            public_keys,
            fingerprint,
            discovery: Mutex::default(),
        }
    }

    /// The audit log, to be reopened.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }
}

/// The routes of `ca`. Every path but the named ones behaves as `/`.
pub fn router(ca: Arc<Ca>) -> Router {
    Router::new().fallback(answer).with_state(ca)
}

async fn answer(State(ca): State<Arc<Ca>>, request: Request) -> Response {
    match (request.uri().path(), request.method()) {
        ("/discovery", &Method::GET) => discovery(&ca).await,
        ("/discovery", _) => method_not_allowed("GET"),
        ("/healthz", &Method::GET) => text(StatusCode::OK, "ok\n"),
        ("/readyz", &Method::GET) => ready(&ca).await,
        (_, &Method::GET) => public_key(&ca),
        (_, &Method::POST) => certificate(&ca, request).await,
        _ => method_not_allowed("GET, POST"),
    }
}

fn public_key(ca: &Ca) -> Response {
    let mut response = text(StatusCode::OK, ca.public_keys.clone());
    response
        .headers_mut()
        .insert(LINK, HeaderValue::from_static(LINKS));
    response
}

async fn ready(ca: &Ca) -> Response {
    match known_discovery(ca).await {
        Ok(_) => text(StatusCode::OK, "ready\n"),
        Err(refusal) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
    }
}

async fn discovery(ca: &Ca) -> Response {
    let document = match known_discovery(ca).await {
        Ok(document) => document,
        Err(refusal) => {
            return text(
                StatusCode::BAD_GATEWAY,
                format!("failed to fetch discovery: {refusal}"),
            );
        }
    };
    match serde_json::to_vec(&document) {
        Ok(document) => {
            let mut response = json(document);
            let age = format!("max-age={}", DISCOVERY_MAX_AGE.as_secs());
            if let Ok(age) = HeaderValue::try_from(age) {
                response.headers_mut().insert(CACHE_CONTROL, age);
            }
            response
        }
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot write the discovery document: {error}"),
        ),
    }
}

/// The discovery document, asked of policy at most once in its life. One asks, the others wait for it.
async fn known_discovery(ca: &Ca) -> Result<Discovery, PolicyRefusal> {
    let mut known = ca.discovery.lock().await;
    if let Some((since, document)) = &*known
        && since.elapsed() < DISCOVERY_MAX_AGE
    {
        return Ok(document.clone());
    }
    let document = ca.policy.discovery(ca.authority.key()).await?;
    *known = Some((Instant::now(), document.clone()));
    Ok(document)
}

/// A no: the status and the words that the client gets.
struct No {
    status: StatusCode,
    words: String,
}

impl No {
    fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self {
            status,
            words: words.into(),
        }
    }
}

/// `POST /`: from the token to the certificate.
async fn certificate(ca: &Ca, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let id = request_id(&head.extensions);
    let client = head
        .extensions
        .get::<ClientAddress>()
        .map(ToString::to_string)
        .unwrap_or_default();
    let parsed = match bearer(&head.headers) {
        Ok(token) => read_request(body, &head.headers)
            .await
            .map(|request| (token, request)),
        Err(no) => Err(no),
    };
    let (token, request) = match parsed {
        Ok(parsed) => parsed,
        // Nobody was named yet: these go to the log of requests, not of decisions.
        Err(no) => return text(no.status, no.words),
    };
    let subject = SubjectPublicKey::parse(request.public_key.trim_end());
    let asked = Asked {
        request_id: &id,
        connection: &request.connection,
        subject: subject.as_ref().ok(),
        ca_fingerprint: &ca.fingerprint,
        client,
    };
    let issued = match &subject {
        Ok(subject) => decide_and_issue(ca, &token, &request, subject, &id).await,
        Err(error) => Err(No::new(StatusCode::BAD_REQUEST, format!("publicKey: {error}"))),
    };
    let now = Timestamp::now();
    let (line, response) = match &issued {
        Ok(issued) => (AuditLine::issued(&asked, issued, now), granted(issued)),
        Err(no) => (
            AuditLine::refused(&asked, no.status.as_u16(), &no.words, now),
            text(no.status, no.words.clone()),
        ),
    };
    match ca.audit.write(&line) {
        Ok(()) => response,
        Err(error) => {
            tracing::error!(%error, request_id = %id, "nothing is issued while the audit log cannot be written");
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the CA cannot write its audit log, so it issues nothing",
            )
        }
    }
}

/// The token of the `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<Token, No> {
    let unauthorized = |words: &str| No::new(StatusCode::UNAUTHORIZED, words);
    let value = headers
        .get(AUTHORIZATION)
        .ok_or_else(|| unauthorized("missing Authorization header"))?;
    let value = value.as_bytes().strip_prefix(b"Bearer ");
    let value = value.ok_or_else(|| unauthorized("Authorization header must use Bearer scheme"))?;
    if value.is_empty() {
        return Err(unauthorized("empty Bearer token"));
    }
    let encoding = headers.get(TOKEN_ENCODING_HEADER).map(HeaderValue::as_bytes);
    Token::from_header(value, encoding).map_err(|error| No::new(StatusCode::BAD_REQUEST, error.to_string()))
}

/// The body: a public key and a connection.
async fn read_request(body: Body, headers: &HeaderMap) -> Result<CertificateRequest, No> {
    let body = read_body(body, headers, HTTP_BODY_MAX)
        .await
        .map_err(|error| No::new(error.status(), error.to_string()))?;
    let request: CertificateRequest = serde_json::from_slice(&body)
        .map_err(|error| No::new(StatusCode::BAD_REQUEST, format!("unable to parse body: {error}")))?;
    if request.public_key.is_empty() || request.connection.remote_host.is_empty() {
        return Err(No::new(
            StatusCode::BAD_REQUEST,
            "publicKey and connection.remoteHost are required",
        ));
    }
    Ok(request)
}

/// Policy's decision, checked, and the certificate it allows.
async fn decide_and_issue(
    ca: &Ca,
    token: &Token,
    request: &CertificateRequest,
    subject: &SubjectPublicKey,
    id: &RequestId,
) -> Result<crate::authority::Issued, No> {
    let connection = &request.connection;
    let params = ca
        .policy
        .decide(ca.authority.key(), token, connection)
        .await
        .map_err(|refusal| refused(&refusal, id))?;
    let user = Principal::parse(&connection.remote_user)
        .map_err(|error| No::new(StatusCode::BAD_REQUEST, format!("connection.remoteUser: {error}")))?;
    let allowed = ca.authority.allow(params, &user, id, Timestamp::now()).map_err(|excess| match excess {
        Excess::TokenEnds => No::new(StatusCode::UNAUTHORIZED, format!("{excess}; log in again")),
        excess => {
            tracing::error!(%excess, request_id = %id, "policy's decision is not one that this CA carries out");
            No::new(StatusCode::BAD_GATEWAY, format!("{excess} (request {id})"))
        }
    })?;
    ca.authority.issue(allowed, subject.clone()).map_err(|error| {
        tracing::error!(%error, request_id = %id, "a certificate could not be signed");
        No::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("error generating crt (request {id})"),
        )
    })
}

fn refused(refusal: &PolicyRefusal, id: &RequestId) -> No {
    match refusal {
        PolicyRefusal::Refused { status, message } => No::new(
            StatusCode::from_u16(*status).unwrap_or(StatusCode::FORBIDDEN),
            message,
        ),
        PolicyRefusal::NotBelieved(_) => No::new(
            StatusCode::BAD_GATEWAY,
            format!("the policy server does not accept this CA; tell whoever runs it (request {id})"),
        ),
        PolicyRefusal::Unavailable(_) => No::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{refusal} (request {id})"),
        ),
    }
}

fn granted(issued: &crate::authority::Issued) -> Response {
    let reply = CertificateResponse {
        certificate: format!("{}\n", issued.certificate.line()),
    };
    match serde_json::to_vec(&reply) {
        Ok(reply) => {
            let mut response = Response::new(Body::from(reply));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
