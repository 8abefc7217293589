//! The policy server's HTTP, wire-compatible with epithet 0.19: one address, for the CA alone.
//!
//! `GET` is the discovery document, `POST` a decision; both only with the CA's own token. Errors are plain text.
//! A request that is not the CA's is marked with [`SERVICE_ERROR_HEADER`], so that the CA does not take the 401 for
//! one about the user's token. `/healthz` and `/readyz` are for whoever keeps the server running.

use crate::metrics::outcome_of;
use crate::policy::{Policy, Refusal};
use crate::reply_token;
use crate::service_token::{Received, ServiceTokenError, ServiceTokens};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use epithet_oidc::clock::unix_now;
use epithet_serve::{method_not_allowed, read_body, request_id, text};
use epithet_ssh::CaSigner;
use epithet_wire::limits::{DISCOVERY_MAX_AGE, POLICY_BODY_MAX};
use epithet_wire::policy::{GROUNDS_HEADER, PolicyRequest};
use http::header::{AUTHORIZATION, CACHE_CONTROL, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use std::sync::Arc;

/// Says that a 401 is about the CA: its value is `service-auth`.
pub const SERVICE_ERROR_HEADER: &str = "epithet-error";

struct Server {
    policy: Arc<Policy>,
    callers: Arc<ServiceTokens>,
    reply_key: Option<CaSigner>,
    cache_control: HeaderValue,
}

/// The policy server's routes. Every path but the two about health means the same, as in epithet 0.19; the CA's
/// token binds the path it was made for.
pub fn router(policy: Arc<Policy>, callers: impl Into<Arc<ServiceTokens>>) -> Router {
    router_with(policy, callers, None)
}

/// The same, with a key that signs every answer to a CA's question.
pub fn router_with(
    policy: Arc<Policy>,
    callers: impl Into<Arc<ServiceTokens>>,
    reply_key: Option<CaSigner>,
) -> Router {
    let cache_control = HeaderValue::from_str(&format!("max-age={}", DISCOVERY_MAX_AGE.as_secs()))
        .unwrap_or_else(|_| HeaderValue::from_static("max-age=300"));
    let server = Arc::new(Server {
        policy,
        callers: callers.into(),
        reply_key,
        cache_control,
    });
    Router::new().fallback(handle).with_state(server)
}

async fn handle(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match parts.uri.path() {
        "/healthz" => return text(StatusCode::OK, "ok\n"),
        "/readyz" => return server.ready().await,
        _ => {}
    }
    let body = match read_body(body, &parts, POLICY_BODY_MAX).await {
        Ok(body) => body,
        Err(error) => return error.response(),
    };
    let question = match server.verify_caller(&parts, &body).await {
        Ok(question) => question,
        Err(error) => {
            let id = request_id(&parts.extensions);
            tracing::warn!(request_id = %id, %error, "refused a request that is not from the CA");
            server.policy.metrics().refused("not_the_ca");
            return not_the_ca(&error);
        }
    };
    let answer = match parts.method {
        Method::GET => server.discovery(),
        Method::POST => server.decision(&body).await.unwrap_or_else(refused),
        _ => method_not_allowed("GET, POST"),
    };
    match &server.reply_key {
        Some(key) => reply_token::sign(key, question, answer, unix_now()).await,
        None => answer,
    }
}

impl Server {
    async fn verify_caller(&self, parts: &Parts, body: &[u8]) -> Result<String, ServiceTokenError> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
        let target = format!("{}{}", authority.unwrap_or_default(), parts.uri.path());
        let received = Received {
            method: parts.method.as_str(),
            target: &target,
            body,
        };
        let authorization = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        self.callers
            .verify_or_ask(authorization, received, unix_now())
            .await
    }

    fn discovery(&self) -> Response {
        let mut response = epithet_serve::json(self.policy.discovery_json());
        response
            .headers_mut()
            .insert(CACHE_CONTROL, self.cache_control.clone());
        response
    }

    async fn decision(&self, body: &[u8]) -> Result<Response, Refusal> {
        let refused = |refusal: Refusal| {
            self.policy.metrics().refused(outcome_of(refusal.status));
            refusal
        };
        let request: PolicyRequest = epithet_wire::read_document(body).map_err(|error| {
            refused(Refusal::plain(
                StatusCode::BAD_REQUEST,
                format!("Invalid JSON: {error}"),
            ))
        })?;
        let token = request
            .token()
            .map_err(|error| refused(Refusal::invalid_token(&error)))?;
        let response = self.policy.decide(&token, &request.connection).await?;
        let json = serde_json::to_vec_pretty(&response).map_err(|error| {
            let message = format!("the decision could not be written: {error}");
            Refusal::plain(StatusCode::INTERNAL_SERVER_ERROR, message)
        })?;
        Ok(epithet_serve::json(json))
    }

    async fn ready(&self) -> Response {
        match self.policy.ready().await {
            Ok(()) => text(StatusCode::OK, self.policy.status().readiness()),
            Err(error) => {
                tracing::warn!(%error, "not ready");
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the identity provider is not available\n",
                )
            }
        }
    }
}

fn refused(refusal: Refusal) -> Response {
    let grounds = refusal.grounds.and_then(|grounds| grounds.to_header());
    let mut response = text(refusal.status, refusal.message);
    if let Some(grounds) = grounds.and_then(|grounds| HeaderValue::try_from(grounds).ok()) {
        response.headers_mut().insert(GROUNDS_HEADER, grounds);
    }
    response
}

fn not_the_ca(error: &ServiceTokenError) -> Response {
    let status = match error {
        ServiceTokenError::TooMany => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    };
    let mut response = text(status, format!("request verification failed: {error}"));
    response
        .headers_mut()
        .insert(SERVICE_ERROR_HEADER, HeaderValue::from_static("service-auth"));
    response
}
