//! The CA's HTTP, wire-compatible with epithet 0.19 in every byte that a client sees.

use crate::asked::{Asked, BadRequest, Unreadable, bearer};
use crate::audit::{AuditLog, Entry, timestamp};
use crate::authority::Authority;
use crate::discovery::DiscoveryCache;
use crate::failed_tokens::FailedTokens;
use crate::issued_ids::IssuedIds;
use crate::issuing::{BUSY, Issuing, Outcome, REASON_MAX, Repeatable, client_name};
use crate::metrics::{CaMetrics, outcome_of};
use crate::policy_source::{PolicyFailure, PolicySource};
use crate::repeats::{self, Repeats};
use crate::turned_away::TurnedAway;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use epithet_serve::{BodyError, ClientAddress, REQUEST_ID, json, method_not_allowed, read_body, text};
use epithet_wire::RequestId;
use epithet_wire::ca::CertificateResponse;
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::{HTTP_BODY_MAX, POLICY_DEADLINE};
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
    let turned_away = TurnedAway::new(Arc::clone(&audit), authority.fingerprint());
    let ca = Ca {
        discovery: DiscoveryCache::new(policy.clone()),
        issuing: Issuing {
            authority,
            policy,
            audit,
            repeats: Repeats::default(),
            issued_ids: IssuedIds::default(),
            turned_away,
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
        let place = match tokio::time::timeout(POLICY_DEADLINE, self.failed_tokens.place(client)).await {
            Ok(Ok(place)) => place,
            Ok(Err(wait)) => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                self.issuing
                    .turned_away
                    .count(&self.turned_away(parts, status))
                    .await;
                self.metrics.answered(outcome_of(status), begun.elapsed());
                return too_many(wait);
            }
            Err(_) => {
                self.metrics.answered("busy", begun.elapsed());
                return busy();
            }
        };
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
            place.refused();
        }
        self.metrics.answered(outcome, begun.elapsed());
        response
    }

    /// Refuses a request that nobody can decide, and writes that down.
    async fn undecidable(&self, parts: &Parts, unreadable: Unreadable) -> Box<Response> {
        let Unreadable { error, connection } = unreadable;
        let (status, message) = (error.status(), error.to_string());
        let reason = sanitize_line(&message, REASON_MAX);
        let connection = connection.unwrap_or_default();
        let entry = Entry {
            reason: Some(&reason),
            host: &connection.remote_host,
            user: &connection.remote_user,
            port: connection.port,
            jump: &connection.proxy_jump,
            ..self.turned_away(parts, status)
        };
        self.issuing.turned_away.note(&entry).await;
        Box::new(text(status, message))
    }

    /// The beginning of a line about a request that is refused without a question to policy.
    fn turned_away<'a>(&'a self, parts: &'a Parts, status: StatusCode) -> Entry<'a> {
        Entry {
            time: timestamp(),
            request_id: parts.extensions.get().map_or("", RequestId::as_str),
            decision: "refused",
            status: status.as_u16(),
            client: client_name(parts.extensions.get()),
            ca: self.issuing.authority.fingerprint(),
            ..Entry::default()
        }
    }

    /// One request for a certificate: a certificate and the name of the outcome, or a refusal.
    async fn answer(&self, parts: &Parts, body: Body) -> Result<(Response, &'static str), Box<Response>> {
        let token = match bearer(&parts.headers) {
            Ok(token) => token,
            Err(error) => return Err(self.undecidable(parts, error.into()).await),
        };
        let Ok(key) = repeats::key(&parts.headers) else {
            return Err(self.undecidable(parts, BadRequest::IdempotencyKey.into()).await);
        };
        let body = match read_body(body, parts, HTTP_BODY_MAX).await {
            Ok(body) => body,
            Err(error) => {
                self.not_read(parts, &error).await;
                return Err(Box::new(error.response()));
            }
        };
        let asked = match Asked::read(&body) {
            Ok(asked) => asked,
            Err(unreadable) => return Err(self.undecidable(parts, unreadable).await),
        };
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
        let mut response = json(body);
        if let ("issued", Ok(id)) = (name, HeaderValue::from_str(issued.request_id.as_str())) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        Ok((response, name))
    }

    /// Writes down that a body was not read. One that never came to its end is no request.
    async fn not_read(&self, parts: &Parts, error: &BodyError) {
        if matches!(error, BodyError::TooLarge | BodyError::NoRoom) {
            let reason = error.to_string();
            let entry = Entry {
                reason: Some(&reason),
                ..self.turned_away(parts, error.status())
            };
            self.issuing.turned_away.note(&entry).await;
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
                .reachable()
                .await
                .map_err(|error| public_reason(&error)),
        };
        match policy {
            Ok(()) => match self.issuing.audit.trouble() {
                Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
                None => text(StatusCode::OK, "ready\n"),
            },
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
