//! The token endpoint (RFC 6749 sections 3.2 and 5): codes, refresh tokens and device codes become tokens.

use crate::client_auth::{self, ClientAuthChoice};
use crate::http::{FetchError, shown};
use crate::json::{self, JsonError};
use crate::options::LoginOptions;
use crate::random::NoRandomness;
use crate::reply::Reply;
use crate::secret::Secret;
use epithet_wire::display::sanitize_line;
use serde_json::{Map, Value};
use std::fmt;
use url::Url;
use zeroize::{Zeroize, Zeroizing};

/// The provider's own words for a refusal (RFC 6749 section 5.2), made harmless for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error code, such as `invalid_grant`.
    pub error: String,
    /// What the provider says about it.
    pub description: Option<String>,
}

impl Refusal {
    /// Answers to a refresh after which only the person can help.
    pub(crate) fn ends_the_session(&self) -> bool {
        const ENDS: [&str; 8] = [
            "invalid_grant",
            "invalid_token",
            "login_required",
            "interaction_required",
            "consent_required",
            "account_selection_required",
            "unauthorized_client",
            "unsupported_grant_type",
        ];
        ENDS.contains(&self.error.as_str())
    }

    /// Answers that speak about the flow or the client's permission for it, not about the person.
    pub(crate) fn forbids_the_flow(&self) -> bool {
        const FORBIDS: [&str; 6] = [
            "unauthorized_client",
            "unsupported_grant_type",
            "unsupported_response_type",
            "redirect_uri_mismatch",
            "invalid_request",
            "invalid_request_uri",
        ];
        FORBIDS.contains(&self.error.as_str())
        // Conditional Access of Entra forbids the device flow like this.
        || self.description.as_deref().is_some_and(|text| text.contains("AADSTS53003"))
    }

    /// Takes the words over; at most 64 and 512 characters of them.
    pub fn new(error: &str, description: Option<&str>) -> Self {
        Self {
            error: sanitize_line(error, 64).trim().to_owned(),
            description: description
                .map(|text| sanitize_line(text, 512).trim().to_owned())
                .filter(|text| !text.is_empty()),
        }
    }

    /// What a person can do about it, where we know.
    pub fn advice(&self) -> Option<&'static str> {
        let description = self.description.as_deref().unwrap_or_default();
        let mentions = |code: &str| description.contains(code);
        if mentions("AADSTS700025") {
            return Some("this is a public client: leave out --client-secret");
        }
        if mentions("AADSTS7000218") {
            return Some(
                "the client is registered as a confidential one: give --client-secret, or allow public client flows",
            );
        }
        if mentions("AADSTS53003") {
            return Some("a Conditional Access policy forbids this flow: try --flow browser");
        }
        match self.error.as_str() {
            "invalid_client" => Some("check --client-id and --client-secret, and --client-auth"),
            "unauthorized_client" => {
                Some("the client is not allowed to do this: check its grants at the provider")
            }
            "invalid_scope" => Some("check --scopes"),
            "redirect_uri_mismatch" => Some(
                "register the redirect address at the provider, or use --port, --redirect-host, --redirect-path",
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if let Some(description) = &self.description {
            write!(f, ": {description}")?;
        }
        if let Some(advice) = self.advice() {
            write!(f, " ({advice})")?;
        }
        Ok(())
    }
}

/// Why there are no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenEndpointError {
    /// The provider refused, in its own words.
    #[error("the provider refused: {0}")]
    Refused(Refusal),
    /// The provider is down, overloaded, or not there.
    #[error(transparent)]
    Unavailable(FetchError),
    /// The reply is not what RFC 6749 says.
    #[error("the token reply of {url} is unusable: {reason}")]
    Malformed {
        /// Where from.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// No assertion could be made.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// What a successful reply holds.
#[derive(Debug)]
pub(crate) struct TokenSet {
    pub(crate) access_token: Option<Secret>,
    pub(crate) token_type: String,
    pub(crate) id_token: Option<Secret>,
    pub(crate) refresh_token: Option<Secret>,
    /// Seconds that the access token lives.
    pub(crate) expires_in: Option<u64>,
}

/// Asks for tokens with a grant.
pub(crate) async fn request(
    options: &LoginOptions,
    auth: ClientAuthChoice,
    endpoint: &Url,
    grant: &[(&str, &str)],
) -> Result<TokenSet, TokenEndpointError> {
    let reply = post(options, auth, endpoint, grant).await?;
    reply
        .require_json(endpoint)
        .map_err(TokenEndpointError::Unavailable)?;
    let body = Zeroizing::new(reply.body);
    let malformed = |reason: String| TokenEndpointError::Malformed {
        url: shown(endpoint),
        reason,
    };
    let reply = json::parse_object(&body).map_err(|error| malformed(error.to_string()))?;
    // Some providers say no with status 200.
    if let Some(refusal) = refusal(&reply) {
        return Err(TokenEndpointError::Refused(refusal));
    }
    read(reply).map_err(|member| malformed(format!("its {member:?} is missing or not text")))
}

/// Posts a form with our credentials and sorts out the refusals.
pub(crate) async fn post(
    options: &LoginOptions,
    auth: ClientAuthChoice,
    endpoint: &Url,
    parameters: &[(&str, &str)],
) -> Result<Reply, TokenEndpointError> {
    let mut credentials = client_auth::credentials(options, auth, endpoint)?;
    let mut form: Vec<(String, String)> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    form.append(&mut credentials.form);
    let authorization = credentials.authorization.as_ref().map(|value| value.as_str());
    let reply = options.http.post(endpoint, &form, authorization).await;
    form.iter_mut().for_each(|(_, value)| value.zeroize());
    let reply = reply.map_err(TokenEndpointError::Unavailable)?;
    sort_out(reply, endpoint)
}

/// A refusal is a 4xx with an error in JSON; anything else that is not success means that the provider is unwell.
fn sort_out(reply: Reply, endpoint: &Url) -> Result<Reply, TokenEndpointError> {
    let unavailable = || {
        TokenEndpointError::Unavailable(FetchError::Status {
            url: shown(endpoint),
            status: reply.status,
        })
    };
    if reply.status >= 500 || reply.status == 429 {
        return Err(unavailable());
    }
    if reply.is_success() {
        return Ok(reply);
    }
    let refusal = json::parse_object(&reply.body).ok().as_ref().and_then(refusal);
    Err(refusal.map_or_else(unavailable, TokenEndpointError::Refused))
}

fn refusal(body: &Map<String, Value>) -> Option<Refusal> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    Some(Refusal::new(text("error")?, text("error_description")))
}

fn read(mut reply: Map<String, Value>) -> Result<TokenSet, &'static str> {
    let mut secret = |name: &'static str| match reply.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(Secret::new(text))),
        Some(_) => Err(name),
    };
    let access_token = secret("access_token")?;
    let id_token = secret("id_token")?;
    let refresh_token = secret("refresh_token")?;
    let token_type = match reply.get("token_type") {
        Some(Value::String(name)) => sanitize_line(name, 32),
        None => "Bearer".to_owned(),
        Some(_) => return Err("token_type"),
    };
    // Some providers write the number as a string.
    let expires_in = match reply.get("expires_in") {
        Some(Value::Number(seconds)) => seconds.as_u64(),
        Some(Value::String(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    Ok(TokenSet {
        access_token,
        token_type,
        id_token,
        refresh_token,
        expires_in,
    })
}

/// The reply body as JSON, for endpoints that answer with something else than tokens.
pub(crate) fn object(reply: &Reply, endpoint: &Url) -> Result<Map<String, Value>, TokenEndpointError> {
    reply
        .require_json(endpoint)
        .map_err(TokenEndpointError::Unavailable)?;
    json::parse_object(&reply.body).map_err(|error: JsonError| TokenEndpointError::Malformed {
        url: shown(endpoint),
        reason: error.to_string(),
    })
}
