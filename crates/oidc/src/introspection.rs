//! Asking a provider about a token that nobody else can read: RFC 7662.

use crate::http::{FetchError, Http};
use crate::json;
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::sync::Arc;
use url::Url;

/// An introspection endpoint, and who we are there.
#[derive(Debug, Clone)]
pub struct Introspection {
    http: Arc<Http>,
    endpoint: Url,
    authorization: Secret,
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectionError {
    /// The provider says that it is not valid, or no longer.
    #[error("the provider says that the token is not active")]
    Inactive,
    /// A token that a form cannot carry: it is not UTF-8.
    #[error("the token is not text, so the provider cannot be asked about it")]
    NotText,
    /// The provider cannot be reached, refuses us, or answers something else. Says nothing about the token.
    #[error("the introspection endpoint cannot be asked: {0}")]
    Unavailable(String),
}

impl Introspection {
    /// An endpoint at which we are `client_id` with `client_secret` (HTTP basic, RFC 6749 section 2.3.1).
    ///
    /// # Errors
    /// When the address is neither https nor on this machine.
    pub fn new(
        http: Arc<Http>,
        endpoint: &str,
        client_id: &str,
        client_secret: &Secret,
    ) -> Result<Self, String> {
        let endpoint = Url::parse(endpoint).map_err(|error| format!("{endpoint:?} is not a URL: {error}"))?;
        if endpoint.scheme() != "https" && !crate::http::is_loopback(&endpoint) {
            return Err(format!("{endpoint} must be https (http is for this machine)"));
        }
        let encoded =
            |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
        let pair = format!("{}:{}", encoded(client_id), encoded(client_secret.expose()));
        let authorization = Secret::new(format!("Basic {}", STANDARD.encode(pair)));
        Ok(Self {
            http,
            endpoint,
            authorization,
        })
    }

    /// Asks about a token, and returns what the provider says of an active one.
    ///
    /// # Errors
    /// See [`IntrospectionError`].
    pub async fn ask(&self, token: &[u8]) -> Result<Map<String, Value>, IntrospectionError> {
        let unavailable = |error: String| IntrospectionError::Unavailable(error);
        let token = std::str::from_utf8(token).map_err(|_| IntrospectionError::NotText)?;
        let form = [
            ("token".to_owned(), token.to_owned()),
            ("token_type_hint".to_owned(), "access_token".to_owned()),
        ];
        let reply = self
            .http
            .post(&self.endpoint, &form, Some(self.authorization.expose()))
            .await
            .map_err(|error: FetchError| unavailable(error.to_string()))?;
        if !reply.is_success() {
            return Err(unavailable(format!("it answered {}", reply.status)));
        }
        let claims = json::parse_object(&reply.body)
            .map_err(|error| unavailable(format!("its answer is not understood: {error}")))?;
        match claims.get("active") {
            Some(Value::Bool(true)) => Ok(claims),
            Some(Value::Bool(false)) => Err(IntrospectionError::Inactive),
            _ => Err(unavailable(
                "its answer does not say whether the token is active".to_owned(),
            )),
        }
    }
}
