//! The CA's HTTP, wire-compatible with epithet 0.19 in every byte that a client sees.

use crate::asked::{Asked, BadRequest, bearer};
use crate::audit::AuditLog;
use crate::authority::Authority;
use crate::discovery::DiscoveryCache;
use crate::issuing::{Issuing, Outcome};
use crate::policy_source::{PolicyFailure, PolicySource};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use epithet_serve::{json, method_not_allowed, read_body, text};
use epithet_wire::ca::CertificateResponse;
use epithet_wire::limits::HTTP_BODY_MAX;
use http::header::{CACHE_CONTROL, LINK};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use std::sync::Arc;

/// Where the discovery document is, for clients of 0.17 (the first link) and of 0.19 (the second).
const DISCOVERY_LINK: HeaderValue = HeaderValue::from_static(
    r#"</discovery>; rel="discovery", <discovery>; rel="https://epithet.dev/rel/auth""#,
);

/// What every request needs.
struct Ca {
    issuing: Issuing,
    discovery: DiscoveryCache,
    public_keys: Bytes,
}

/// The CA's routes.
///
/// `GET /` are the public keys for hosts to trust, one per line; `POST /` is a certificate; `GET /discovery` is what a
/// client needs to log in; `/healthz` and `/readyz` are for whoever keeps the CA running. Every other path is taken
/// for `/`, as in epithet 0.19.
pub fn router(authority: Authority, policy: PolicySource, audit: Arc<AuditLog>) -> Router {
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
        },
        public_keys: public_keys.into(),
    };
    Router::new().fallback(handle).with_state(Arc::new(ca))
}

async fn handle(State(ca): State<Arc<Ca>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match (parts.uri.path(), &parts.method) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n"),
        ("/readyz", _) => ca.ready().await,
        ("/discovery", &Method::GET) => ca.discovery().await,
        ("/discovery", _) => method_not_allowed("GET"),
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

    async fn certificate(&self, parts: &Parts, body: Body) -> Response {
        let bad = |error: BadRequest| text(error.status(), error.to_string());
        let token = match bearer(&parts.headers) {
            Ok(token) => token,
            Err(error) => return bad(error),
        };
        let body = match read_body(body, &parts.headers, HTTP_BODY_MAX).await {
            Ok(body) => body,
            Err(error) => return text(error.status(), error.to_string()),
        };
        let asked = match Asked::read(&body) {
            Ok(asked) => asked,
            Err(error) => return bad(error),
        };
        match self.issuing.issue(&asked, &token, &parts.extensions).await {
            Outcome::Issued(certificate) => {
                let certificate = CertificateResponse {
                    certificate: certificate.line() + "\n",
                };
                match serde_json::to_vec(&certificate) {
                    Ok(body) => json(body),
                    Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }
            Outcome::Refused(refused) => text(refused.status, refused.message),
        }
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
                .get()
                .await
                .map(|_| ())
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
        PolicyFailure::Unreachable(_) => "the policy server cannot be reached".to_owned(),
        PolicyFailure::Garbled(_) => "the policy server's answer cannot be used".to_owned(),
    }
}
