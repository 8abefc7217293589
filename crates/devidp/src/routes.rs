//! The addresses that the provider answers, and what it says about itself.

use crate::claims;
use crate::page::{self, page};
use crate::parameters::Parameters;
use crate::provider::Provider;
use crate::settings::RefreshTokens;
use crate::{authorize, device, html, token};
use aws_lc_rs::digest;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_wire::limits;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// How long clients may keep the discovery document and the keys without asking again, in seconds.
const CACHE_SECONDS: u32 = 300;

/// Everything the provider answers.
pub(crate) fn router(provider: Arc<Provider>) -> Router {
    let guard = middleware::from_fn_with_state(Arc::clone(&provider), admit);
    let mut router = Router::new()
        .route("/", get(front_page))
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(keys))
        .route("/authorize", get(authorize::begin))
        .route("/login", post(authorize::answer))
        .route("/token", post(token::token))
        .route("/revoke", post(revoke))
        .route("/userinfo", get(userinfo).post(userinfo));
    if provider.settings.device_flow {
        router = router
            .route("/device_authorization", post(device::begin))
            .route("/device", get(device::ask).post(device::answer));
    }
    router
        .fallback(|| async {
            page::problem(
                StatusCode::NOT_FOUND,
                "Not found",
                "There is nothing at this address.",
            )
        })
        .layer(DefaultBodyLimit::max(limits::HTTP_BODY_MAX))
        .layer(guard)
        .with_state(provider)
}

/// Lets nobody in while the provider plays dead, and no request that a foreign name was made to point here for
/// (DNS rebinding).
async fn admit(State(provider): State<Arc<Provider>>, request: Request, next: Next) -> Response {
    if provider.is_down() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the provider is down for a test\n",
        )
            .into_response();
    }
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = host
        .strip_suffix(&format!(":{}", provider.port))
        .unwrap_or_default();
    if !matches!(name, "127.0.0.1" | "localhost" | "[::1]") && provider.issuer != format!("http://{host}") {
        let message = format!("this provider is {}: open that address\n", provider.issuer);
        return (StatusCode::MISDIRECTED_REQUEST, message).into_response();
    }
    next.run(request).await
}

async fn front_page(State(provider): State<Arc<Provider>>) -> Response {
    let device = if provider.settings.device_flow {
        "<p><a href=\"/device\">Enter the code of a device</a></p>"
    } else {
        ""
    };
    let body = format!(
        "<p>The issuer is <code>{issuer}</code>, the client <code>{client}</code>.</p>\n\
         <p>Nobody has a password here: whoever opens the login page types a name and is that person.</p>\n\
         <p><a href=\"/.well-known/openid-configuration\">What this provider can do</a></p>\n{device}",
        issuer = html::escape(&provider.issuer),
        client = html::escape(&provider.settings.client_id),
    );
    page(StatusCode::OK, "Identity provider", &body, "")
}

/// The discovery document (OpenID Connect Discovery 1.0, section 3; RFC 8414).
async fn discovery(State(provider): State<Arc<Provider>>, headers: HeaderMap) -> Response {
    provider.count(|requests| &mut requests.discoveries);
    let at = |path: &str| format!("{}{path}", provider.issuer);
    let settings = &provider.settings;
    let client_authentication = if settings.client_secret.is_some() {
        json!(["client_secret_basic", "client_secret_post"])
    } else {
        json!(["none"])
    };
    let mut grants = vec!["authorization_code"];
    let mut scopes = vec!["openid", "profile", "email"];
    if settings.refresh_tokens != RefreshTokens::Never {
        grants.push("refresh_token");
        scopes.push("offline_access");
    }
    let mut document = json!({
        "issuer": provider.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"),
        "userinfo_endpoint": at("/userinfo"),
        "revocation_endpoint": at("/revoke"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": scopes,
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "email",
            "email_verified", "name", "preferred_username"],
        "token_endpoint_auth_methods_supported": client_authentication,
        "revocation_endpoint_auth_methods_supported": client_authentication,
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent"],
        "authorization_response_iss_parameter_supported": true,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
    });
    if settings.device_flow {
        grants.push(token::DEVICE_GRANT);
        document["device_authorization_endpoint"] = at("/device_authorization").into();
    }
    document["grant_types_supported"] = grants.into();
    cacheable(&headers, &document)
}

async fn keys(State(provider): State<Arc<Provider>>, headers: HeaderMap) -> Response {
    provider.count(|requests| &mut requests.key_sets);
    cacheable(&headers, &provider.key_set())
}

/// A JSON answer that the client may keep, or "not modified" when it has this one already.
fn cacheable(headers: &HeaderMap, document: &Value) -> Response {
    let text = document.to_string();
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]));
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .is_some_and(|known| known == tag);
    let caching = [
        (header::CACHE_CONTROL, format!("public, max-age={CACHE_SECONDS}")),
        (header::ETAG, tag),
        (header::CONTENT_TYPE, "application/json".to_owned()),
    ];
    if is_known {
        (StatusCode::NOT_MODIFIED, caching).into_response()
    } else {
        (caching, text).into_response()
    }
}

/// Revocation (RFC 7009): an unknown token is as good as a revoked one.
async fn revoke(State(provider): State<Arc<Provider>>, headers: HeaderMap, body: Bytes) -> Response {
    provider.count(|requests| &mut requests.revocations);
    let outcome = token::read_form(&headers, &body).and_then(|form| {
        token::authenticate_client(&provider, &headers, &form)?;
        let token = form
            .get("token")
            .ok_or_else(|| token::invalid_request("`token` is missing"))?;
        provider.ledger().revoke(token);
        Ok(())
    });
    match outcome {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => error.into_response(),
    }
}

/// Who the bearer of an access token is (Core, section 5.3).
async fn userinfo(State(provider): State<Arc<Provider>>, headers: HeaderMap) -> Response {
    provider.count(|requests| &mut requests.userinfos);
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let consent = match authorization.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            provider.ledger().access(token.trim(), provider.now_ms()).cloned()
        }
        _ => None,
    };
    match consent {
        Some(consent) => Json(json!({
            "sub": consent.user,
            "email": claims::email(&consent.user, &provider.settings),
            "email_verified": true,
            "name": consent.user,
            "preferred_username": consent.user,
        }))
        .into_response(),
        None => {
            let challenge =
                "Bearer error=\"invalid_token\", error_description=\"the access token is not good\"";
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
        }
    }
}

/// The parameters of a request's query.
pub(crate) fn query(request: &http::Uri) -> Result<Parameters, crate::parameters::Repeated> {
    Parameters::parse(request.query().unwrap_or_default().as_bytes())
}
