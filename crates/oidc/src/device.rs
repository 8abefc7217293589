//! Logging in on another device with a code (RFC 8628).

use crate::authorization::Pkce;
use crate::client_auth::ClientAuthChoice;
use crate::http::{FetchError, shown};
use crate::options::LoginOptions;
use crate::provider::{Provider, parse_endpoint};
use crate::secret::Secret;
use crate::token_endpoint::{self, Refusal, TokenEndpointError, TokenSet};
use epithet_wire::display::sanitize_line;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// When the provider names none (RFC 8628 section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// What each `slow_down` adds (RFC 8628 section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest wait that we grow to on our own.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The longest life of a code that we believe.
const LIFE_MAX: Duration = Duration::from_secs(1800);

/// Why a device login ended without tokens.
#[derive(Debug)]
pub(crate) enum DeviceError {
    /// The person, or a policy of the provider, said no.
    Denied(Refusal),
    /// Nobody entered the code in time.
    Expired,
    /// The provider refused or broke.
    Endpoint(TokenEndpointError),
}

/// A code that a person can enter.
#[derive(Debug)]
pub(crate) struct DeviceCode {
    pub(crate) user_code: String,
    pub(crate) verification_uri: Url,
    pub(crate) complete: Option<Url>,
    pub(crate) expires_in: Duration,
    device_code: Secret,
    interval: Duration,
    pkce: Option<Pkce>,
}

/// Asks for a code. PKCE goes along where the provider lists S256: Keycloak may demand it here too.
pub(crate) async fn request_code(
    options: &LoginOptions,
    provider: &Provider,
    auth: ClientAuthChoice,
    endpoint: &Url,
) -> Result<DeviceCode, TokenEndpointError> {
    let knows_s256 = provider
        .code_challenge_methods_supported
        .iter()
        .any(|method| method == "S256");
    let pkce = if knows_s256 { Some(Pkce::new()?) } else { None };
    let scope = options.scope(&provider.scopes_supported);
    let mut parameters = vec![("scope", scope.as_str())];
    if let Some(pkce) = &pkce {
        parameters.extend([
            ("code_challenge", pkce.challenge.as_str()),
            ("code_challenge_method", "S256"),
        ]);
    }
    parameters.extend(options.audience.as_deref().map(|audience| ("audience", audience)));
    parameters.extend(
        options
            .resources
            .iter()
            .map(|resource| ("resource", resource.as_str())),
    );
    let reply = token_endpoint::post(options, auth, endpoint, &parameters).await?;
    let reply = token_endpoint::object(&reply, endpoint)?;

    let unusable = |member: &str| TokenEndpointError::Malformed {
        url: shown(endpoint),
        reason: format!("it has no usable {member:?}"),
    };
    let text = |name: &str| {
        reply
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let seconds = |name: &str| reply.get(name).and_then(Value::as_u64).map(Duration::from_secs);
    // Google calls it `verification_url`.
    let verification_uri = text("verification_uri")
        .or_else(|| text("verification_url"))
        .and_then(|address| parse_endpoint(&provider.issuer, address))
        .ok_or_else(|| unusable("verification_uri"))?;
    let complete =
        text("verification_uri_complete").and_then(|address| parse_endpoint(&provider.issuer, address));
    Ok(DeviceCode {
        user_code: sanitize_line(text("user_code").ok_or_else(|| unusable("user_code"))?, 64),
        verification_uri,
        complete,
        expires_in: seconds("expires_in")
            .ok_or_else(|| unusable("expires_in"))?
            .min(LIFE_MAX),
        device_code: Secret::new(
            text("device_code")
                .ok_or_else(|| unusable("device_code"))?
                .to_owned(),
        ),
        interval: seconds("interval")
            .unwrap_or(INTERVAL)
            .clamp(Duration::from_secs(1), INTERVAL_MAX),
        pkce,
    })
}

/// Asks, at the provider's pace, until the person has entered the code.
pub(crate) async fn wait(
    options: &LoginOptions,
    auth: ClientAuthChoice,
    endpoint: &Url,
    code: &DeviceCode,
) -> Result<TokenSet, DeviceError> {
    let end = Instant::now() + code.expires_in;
    let mut pace = Pace(code.interval);
    let mut grant = vec![("grant_type", GRANT), ("device_code", code.device_code.expose())];
    grant.extend(
        code.pkce
            .as_ref()
            .map(|pkce| ("code_verifier", pkce.verifier.expose())),
    );
    loop {
        if timeout_at(end, sleep(pace.0)).await.is_err() {
            return Err(DeviceError::Expired);
        }
        match token_endpoint::request(options, auth, endpoint, &grant).await {
            Ok(tokens) => return Ok(tokens),
            Err(TokenEndpointError::Refused(refusal)) => match refusal.error.as_str() {
                "authorization_pending" => {}
                "slow_down" => pace.slow_down(),
                "expired_token" => return Err(DeviceError::Expired),
                // The second is Entra's word for it.
                "access_denied" | "authorization_declined" => return Err(DeviceError::Denied(refusal)),
                _ => return Err(DeviceError::Endpoint(TokenEndpointError::Refused(refusal))),
            },
            // The provider is unwell, or the network is: ask less often, the code lives on.
            Err(TokenEndpointError::Unavailable(
                FetchError::TimedOut { .. }
                | FetchError::Unreachable { .. }
                | FetchError::Status {
                    status: 429 | 500..=599,
                    ..
                },
            )) => pace.back_off(),
            Err(error) => return Err(DeviceError::Endpoint(error)),
        }
    }
}

/// How long to wait between two questions. It only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace(Duration);

impl Pace {
    fn slow_down(&mut self) {
        self.0 += SLOW_DOWN;
    }

    fn back_off(&mut self) {
        self.0 = (self.0 * 2).min(INTERVAL_MAX).max(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_only_ever_grows() {
        let mut pace = Pace(Duration::from_secs(5));
        pace.slow_down();
        assert_eq!(pace.0.as_secs(), 10);
        pace.back_off();
        assert_eq!(pace.0.as_secs(), 20);
        for _ in 0..5 {
            pace.back_off();
        }
        assert_eq!(pace.0, INTERVAL_MAX);
        pace.slow_down();
        assert_eq!(pace.0.as_secs(), 65);
        pace.back_off();
        assert_eq!(pace.0.as_secs(), 65);
    }
}
