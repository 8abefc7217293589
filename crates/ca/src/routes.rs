//! The CA's HTTP, wire-compatible with epithet 0.19 in every byte that a client sees.

use crate::asked::{Asked, BadRequest, bearer};
use crate::audit::AuditLog;
use crate::authority::Authority;
use crate::discovery::DiscoveryCache;
use crate::failed_tokens::FailedTokens;
use crate::issuing::{BUSY, Issuing, Outcome, Repeatable};
use crate::metrics::{CaMetrics, outcome_of};
use crate::policy_source::{PolicyFailure, PolicySource};
use crate::repeats::{self, Repeats};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use epithet_serve::{ClientAddress, json, method_not_allowed, read_body, text};
use epithet_wire::ca::CertificateResponse;
use epithet_wire::limits::HTTP_BODY_MAX;
use http::header::{CACHE_CONTROL, LINK, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the discovery document is, for clients of 0.17 (the first link) and of 0.19 (the second).
const DISCOVERY_LINK: HeaderValue = HeaderValue::from_static(
    r#"</discovery>; rel="discovery", <discovery>; rel="https://epithet.dev/rel/auth""#,
);

/// What every request needs.
struct Ca {
    issuing: Issuing,
    discovery: DiscoveryCache,
    public_keys: Bytes,
    failed_tokens: FailedTokens,
    metrics: CaMetrics,
}

/// The CA's routes.
///
/// `GET /` are the public keys for hosts to trust, one per line; `POST /` is a certificate; `GET /discovery` is what a
/// client needs to log in; `/healthz` and `/readyz` are for whoever keeps the CA running. Every other path is taken
/// for `/`, as in epithet 0.19.
pub fn router(authority: Authority, policy: PolicySource, audit: Arc<AuditLog>) -> Router {
    router_with(authority, policy, audit, CaMetrics::default())
}

/// The same, with numbers that somebody looks at.
pub fn router_with(
    authority: Authority,
    policy: PolicySource,
    audit: Arc<AuditLog>,
    metrics: CaMetrics,
) -> Router {
    let public_keys: String = authority
        .public_keys()
        .iter()
        .map(|key| key.line() + "\n")
        .collect();
    let ca = Ca {
        discovery: DiscoveryCache::new(policy.clone()),
        issuing: Issuing {
            authority,
            policy,
            audit,
            repeats: Repeats::default(),
            metrics: metrics.clone(),
        },
        public_keys: public_keys.into(),
        failed_tokens: FailedTokens::default(),
        metrics,
    };
    Router::new().fallback(handle).with_state(Arc::new(ca))
}

async fn handle(State(ca): State<Arc<Ca>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match (parts.uri.path(), &parts.method) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n"),
        ("/readyz", _) => ca.ready().await,
        ("/discovery", &Method::GET) => ca.discovery().await,
        ("/ca-keys", &Method::GET) => text(StatusCode::OK, ca.public_keys.clone()),
        ("/discovery" | "/ca-keys", _) => method_not_allowed("GET"),
        (_, &Method::GET) => ca.public_keys(),
        (_, &Method::POST) => ca.certificate(&parts, body).await,
        _ => method_not_allowed("GET, POST"),
    }
}

impl Ca {
    fn public_keys(&self) -> Response {
        let mut response = text(StatusCode::OK, self.public_keys.clone());
        response.headers_mut().insert(LINK, DISCOVERY_LINK);
        response
    }

    /// Counts how it ended, and slows down who sends token after token that nobody believes.
    async fn certificate(&self, parts: &Parts, body: Body) -> Response {
        let (begun, client) = (Instant::now(), parts.extensions.get::<ClientAddress>());
        if let Some(wait) = self.failed_tokens.wait(client, begun) {
            self.metrics
                .answered(outcome_of(StatusCode::TOO_MANY_REQUESTS), begun.elapsed());
            return too_many(wait);
        }
        // Nothing is decided, and nothing read: those who are too many must cost those who are not as little as can be.
        if !self.issuing.policy.has_room() {
            self.metrics.answered("busy", begun.elapsed());
            return busy();
        }
        let (response, outcome) = match self.answer(parts, body).await {
            Ok((certificate, outcome)) => (certificate, outcome),
            Err(response) => {
                let outcome = outcome_of(response.status());
                (*response, outcome)
            }
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            self.failed_tokens.note(client, begun);
        }
        self.metrics.answered(outcome, begun.elapsed());
        response
    }

    /// One request for a certificate: a certificate and the name of the outcome, or a refusal.
    async fn answer(&self, parts: &Parts, body: Body) -> Result<(Response, &'static str), Box<Response>> {
        let bad = |error: BadRequest| Box::new(text(error.status(), error.to_string()));
        let token = bearer(&parts.headers).map_err(bad)?;
        let key = repeats::key(&parts.headers).map_err(|()| bad(BadRequest::IdempotencyKey))?;
        let body = read_body(body, &parts.headers, HTTP_BODY_MAX)
            .await
            .map_err(|error| Box::new(text(error.status(), error.to_string())))?;
        let asked = Asked::read(&body).map_err(bad)?;
        let repeatable = key.map(|key| Repeatable { key, body: &body });
        // Boxed, so that a client that is slow to send its body costs only what reading it needs.
        let issuing = Box::pin(
            self.issuing
                .issue_once(&asked, &token, repeatable, &parts.extensions),
        );
        let outcome = issuing.await;
        let (issued, name) = match outcome {
            Outcome::Issued(issued) => (issued, "issued"),
            Outcome::Repeated(issued) => (issued, "repeated"),
            Outcome::Refused(refused) => {
                let mut response = text(refused.status, refused.message);
                if let Some(wait) = refused.retry_after {
                    retry_after(&mut response, wait);
                }
                return Err(Box::new(response));
            }
        };
        let certificate = CertificateResponse {
            certificate: issued.certificate.line() + "\n",
        };
        let body = serde_json::to_vec(&certificate)
            .map_err(|error| Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())))?;
        Ok((json(body), name))
    }

    async fn discovery(&self) -> Response {
        match self.discovery.get().await {
            Ok(document) => {
                let mut response = json(document.json);
                response
                    .headers_mut()
                    .insert(CACHE_CONTROL, document.cache_control);
                response
            }
            Err(error) => {
                tracing::warn!(%error, "cannot fetch the discovery document from policy");
                text(
                    StatusCode::BAD_GATEWAY,
                    format!("failed to fetch discovery: {}", public_reason(&error)),
                )
            }
        }
    }

    async fn ready(&self) -> Response {
        if let Err(error) = self.issuing.authority.signer().ready().await {
            tracing::error!(%error, "not ready: the CA's key cannot be used");
            return text(StatusCode::SERVICE_UNAVAILABLE, "the CA's key cannot be used\n");
        }
        let policy = match &self.issuing.policy {
            PolicySource::Local(policy) => policy.ready().await,
            PolicySource::Remote(_) => self
                .discovery
                .reachable()
                .await
                .map_err(|error| public_reason(&error)),
        };
        match policy {
            Ok(()) if self.issuing.audit.is_failing() => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the audit log cannot be written\n",
            ),
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        }
    }
}

/// 429, with the seconds to wait.
fn too_many(wait: Duration) -> Response {
    let mut response = text(
        StatusCode::TOO_MANY_REQUESTS,
        "too many tokens from this address were refused; wait, and log in again",
    );
    retry_after(&mut response, wait);
    response
}

/// 503, because too many requests wait for policy.
fn busy() -> Response {
    let mut response = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the policy server does not keep up; ask another CA, or again in a moment",
    );
    retry_after(&mut response, BUSY);
    response
}

/// Whole seconds, and none too few.
fn retry_after(response: &mut Response, wait: Duration) {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
}

/// What anybody may know of a failure: nothing about where the policy server is.
fn public_reason(failure: &PolicyFailure) -> String {
    match failure {
        PolicyFailure::Refused(refusal) => {
            format!(
                "policy server returned {} for discovery: {}",
                refusal.status.as_u16(),
                refusal.message
            )
        }
        PolicyFailure::NotTrusted(_) => "the policy server does not accept this CA".to_owned(),
        PolicyFailure::Unsigned(_) => "the CA's key cannot be used".to_owned(),
        PolicyFailure::Busy(_) => "the policy server does not keep up".to_owned(),
        PolicyFailure::Unreachable(_) => "the policy server cannot be reached".to_owned(),
        PolicyFailure::Garbled(_) => "the policy server's answer cannot be used".to_owned(),
    }
}
