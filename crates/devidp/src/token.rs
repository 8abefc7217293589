//! The token endpoint: codes, refresh tokens and device codes in, tokens out (RFC 6749, section 5).

use crate::claims;
use crate::ledger::{Granted, Refusal};
use crate::parameters::{Parameters, Repeated};
use crate::provider::Provider;
use crate::random::random_text;
use crate::settings::RefreshTokens;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use epithet_wire::SecretBytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use url::form_urlencoded;

/// The grant type of the device flow (RFC 8628, section 3.4).
pub(crate) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// An error answer of RFC 6749, section 5.2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenError {
    status: StatusCode,
    code: &'static str,
    sentence: String,
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.code, "error_description": self.sentence }));
        let caching = [(header::CACHE_CONTROL, "no-store")];
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"token\"")];
            return (self.status, challenge, caching, body).into_response();
        }
        (self.status, caching, body).into_response()
    }
}

impl From<Refusal> for TokenError {
    fn from(refusal: Refusal) -> Self {
        let (code, sentence) = match refusal {
            Refusal::InvalidGrant(why) => ("invalid_grant", why),
            Refusal::AuthorizationPending => ("authorization_pending", "the person has not answered yet"),
            Refusal::SlowDown => ("slow_down", "wait five seconds more between two questions"),
            Refusal::AccessDenied => ("access_denied", "the person refused to sign in"),
            Refusal::ExpiredToken => ("expired_token", "the device code has expired"),
            Refusal::Full => {
                return Self {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    code: "temporarily_unavailable",
                    sentence: "too much is going on".to_owned(),
                };
            }
        };
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            sentence: sentence.to_owned(),
        }
    }
}

/// A request that misses something or says it twice.
pub(crate) fn invalid_request(sentence: &str) -> TokenError {
    TokenError {
        status: StatusCode::BAD_REQUEST,
        code: "invalid_request",
        sentence: sentence.to_owned(),
    }
}

/// The fields of a posted form.
pub(crate) fn read_form(headers: &HeaderMap, body: &[u8]) -> Result<Parameters, TokenError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(invalid_request(
            "the body must be application/x-www-form-urlencoded",
        ));
    }
    Parameters::parse(body)
        .map_err(|Repeated(name)| invalid_request(&format!("the parameter {name} came twice")))
}

/// Whether the client is ours and proves it as it should (RFC 6749, section 2.3).
pub(crate) fn authenticate_client(
    provider: &Provider,
    headers: &HeaderMap,
    form: &Parameters,
) -> Result<(), TokenError> {
    let refuse = |sentence: &str| {
        Err(TokenError {
            status: StatusCode::UNAUTHORIZED,
            code: "invalid_client",
            sentence: sentence.to_owned(),
        })
    };
    let (id, secret) = match headers.get(header::AUTHORIZATION) {
        None => (
            form.get("client_id").map(ToOwned::to_owned),
            form.get("client_secret").map(ToOwned::to_owned),
        ),
        Some(value) => {
            if form.get("client_secret").is_some() {
                return Err(invalid_request("the client authenticates in two ways at once"));
            }
            match value.to_str().ok().and_then(basic_credentials) {
                Some((id, secret)) => (Some(id), Some(secret)),
                None => return refuse("the Authorization header is not HTTP Basic"),
            }
        }
    };
    if id.as_deref() != Some(provider.settings.client_id.as_str()) {
        return refuse("the client is not known");
    }
    let secret = secret.map(|secret| SecretBytes::new(secret.into_bytes()));
    match (&provider.settings.client_secret, secret) {
        (None, None) => Ok(()),
        (None, Some(_)) => refuse("this is a public client: it must not send a secret"),
        (Some(_), None) => refuse("the client's secret is missing"),
        (Some(expected), Some(sent)) if sent == *expected => Ok(()),
        (Some(_), Some(_)) => refuse("the client's secret is wrong"),
    }
}

/// Client id and secret of an HTTP Basic header, each form-encoded (RFC 6749, section 2.3.1).
fn basic_credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    // As the name of a parameter without `=`, a text is decoded and nothing else.
    let decode = |text: &str| {
        let escaped = text.replace('&', "%26").replace('=', "%3D");
        form_urlencoded::parse(escaped.as_bytes())
            .next()
            .map(|(name, _)| name.into_owned())
            .unwrap_or_default()
    };
    Some((decode(id), decode(secret)))
}

/// `POST /token`.
pub(crate) async fn token(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    provider.count(|requests| &mut requests.tokens);
    provider.wait_while_held().await;
    match answer(&provider, &headers, &body) {
        Ok(tokens) => ([(header::CACHE_CONTROL, "no-store")], Json(tokens)).into_response(),
        Err(error) => error.into_response(),
    }
}

fn answer(provider: &Provider, headers: &HeaderMap, body: &[u8]) -> Result<Value, TokenError> {
    let form = read_form(headers, body)?;
    authenticate_client(provider, headers, &form)?;
    let required = |name: &str| {
        form.get(name)
            .ok_or_else(|| invalid_request(&format!("the parameter {name} is missing")))
    };
    let now = provider.now_ms();
    match required("grant_type")? {
        "authorization_code" => {
            let (code, redirect_uri) = (required("code")?, required("redirect_uri")?);
            let verifier = required("code_verifier")?;
            let granted = provider.ledger().redeem_code(code, redirect_uri, verifier, now)?;
            let tokens = issue(provider, &granted, None, true)?;
            provider.count(|requests| &mut requests.codes);
            Ok(tokens)
        }
        "refresh_token" if provider.settings.refresh_tokens != RefreshTokens::Never => {
            let token = required("refresh_token")?;
            let rotate = provider.settings.rotate_refresh_tokens;
            let granted = provider
                .ledger()
                .redeem_refresh_token(token, rotate, now)
                .inspect_err(|_| {
                    provider.count(|requests| &mut requests.refused_refreshes);
                })?;
            let kept = (!rotate).then_some(token);
            let tokens = issue(provider, &granted, kept, provider.settings.id_token_on_refresh)?;
            provider.count(|requests| &mut requests.refreshes);
            Ok(tokens)
        }
        DEVICE_GRANT if provider.settings.device_flow => {
            provider.count(|requests| &mut requests.device_polls);
            let granted = provider
                .ledger()
                .redeem_device_code(required("device_code")?, now)?;
            issue(provider, &granted, None, true)
        }
        _ => Err(TokenError {
            status: StatusCode::BAD_REQUEST,
            code: "unsupported_grant_type",
            sentence: "this provider does not offer this grant_type".to_owned(),
        }),
    }
}

/// The tokens for a grant that was good. A refresh token that was not used up is kept by the client and not repeated.
fn issue(
    provider: &Provider,
    granted: &Granted,
    kept_refresh_token: Option<&str>,
    with_id_token: bool,
) -> Result<Value, TokenError> {
    let settings = &provider.settings;
    let (now_ms, now) = (provider.now_ms(), provider.now());
    let consent = &granted.consent;
    let claims = claims::access_token(&provider.issuer, settings, consent, &random_text(), now);
    let access_token = provider.sign(&claims::object(json!({ "typ": "at+jwt" })), &claims);
    let mut tokens = json!({
        "token_type": "Bearer",
        "expires_in": settings.access_token_life.as_secs(),
        "scope": consent.scope,
    });
    if with_id_token {
        let claims = claims::id_token(
            &provider.issuer,
            settings,
            consent,
            granted.nonce.as_deref(),
            &access_token,
            now,
        );
        tokens["id_token"] = provider.sign_id_token(claims).into();
    }
    let may_refresh = match settings.refresh_tokens {
        RefreshTokens::Always => true,
        RefreshTokens::OfflineAccess => consent.scope.split(' ').any(|word| word == "offline_access"),
        RefreshTokens::Never => false,
    };
    let mut ledger = provider.ledger();
    ledger.record_access_token(
        &access_token,
        granted.family,
        milliseconds(settings.access_token_life),
        now_ms,
    )?;
    if may_refresh && kept_refresh_token.is_none() {
        let life = milliseconds(settings.refresh_token_life);
        tokens["refresh_token"] = ledger.make_refresh_token(granted.family, life, now_ms)?.into();
    }
    tokens["access_token"] = access_token.into();
    Ok(tokens)
}

/// A life in milliseconds, short of where adding the time to it would overflow.
pub(crate) fn milliseconds(life: Duration) -> i64 {
    i64::try_from(life.as_millis())
        .unwrap_or(i64::MAX)
        .min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_form_decoded() {
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(basic_credentials(&header("a:b")), Some(("a".into(), "b".into())));
        assert_eq!(
            basic_credentials(&header("a%3Ab:c+d%25&=")),
            Some(("a:b".into(), "c d%&=".into()))
        );
        assert_eq!(basic_credentials(&header("nothing")), None);
        assert_eq!(basic_credentials("Bearer x"), None);
    }
}
