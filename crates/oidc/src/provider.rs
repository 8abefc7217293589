//! What a provider says about itself (OpenID Connect Discovery 1.0, RFC 8414).
//!
//! Metadata is attacker's data when the provider is: addresses from it reach a browser and receive secrets. So
//! each is parsed, must be https (loopback http only for a provider that is itself on loopback), and carries no
//! user name; the document counts only when it names exactly the issuer that was asked for.

use crate::document::{self, Document, Kind};
use crate::http::{FetchError, Http, is_loopback};
use crate::issuer::Issuer;
use crate::json::{self, JsonError};
use crate::jws::Algorithm;
use serde_json::{Map, Value};
use url::Url;

/// Why a provider cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It did not answer, or not usefully.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The discovery document is not strict JSON.
    #[error("the discovery document of {issuer} is unusable: {error}")]
    Json {
        /// Whose.
        issuer: String,
        /// What is wrong.
        error: JsonError,
    },
    /// The document is another issuer's (Discovery section 4.3: it must not be used).
    #[error("the discovery document is for the issuer {found:?}, not {expected:?}; {}", issuer_hint(.expected, .found))]
    WrongIssuer {
        /// What was configured.
        expected: String,
        /// What the document says.
        found: String,
    },
    /// A member that is needed is missing or of the wrong type.
    #[error("the discovery document of {issuer} has no usable {member:?}")]
    Member {
        /// Whose.
        issuer: String,
        /// Which.
        member: &'static str,
    },
    /// An address in it is not one that we go to.
    #[error(
        "the discovery document of {issuer} has an unsafe {member:?}: {address:?} must be an https:// address without user name or fragment"
    )]
    Address {
        /// Whose.
        issuer: String,
        /// Which member.
        member: &'static str,
        /// What it says.
        address: String,
    },
    /// The key set is not usable.
    #[error("{0} (from {1})")]
    Keys(crate::jwks::KeySetError, String),
}

fn issuer_hint(expected: &str, found: &str) -> &'static str {
    if found.trim_end_matches('/') == expected.trim_end_matches('/') {
        "the two differ in the slash at the end, which counts: configure it as the provider writes it"
    } else if found.contains("{tenant") {
        "it is shared by all tenants: configure your own tenant's issuer, with its id in it"
    } else {
        "configure the issuer as the provider writes it"
    }
}

/// A provider's metadata, checked.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Who it is.
    pub issuer: Issuer,
    /// Where a browser is sent.
    pub authorization_endpoint: Option<Url>,
    /// Where codes and refresh tokens are exchanged.
    pub token_endpoint: Option<Url>,
    /// Where the keys are.
    pub jwks_uri: Url,
    /// Where a device code comes from (RFC 8628).
    pub device_authorization_endpoint: Option<Url>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Scopes it says it knows; empty when it does not say.
    pub scopes_supported: Vec<String>,
    /// Grants it says it serves; empty when it does not say.
    pub grant_types_supported: Vec<String>,
    /// Ways for a client to authenticate; empty when it does not say (then it is `client_secret_basic`).
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// PKCE methods; empty when it does not say.
    pub code_challenge_methods_supported: Vec<String>,
    /// How it says its ID tokens are signed, as far as we accept that; all we accept when it does not say.
    pub algorithms: Vec<Algorithm>,
    /// Whether each authorization response has an `iss` (RFC 9207): one without it is then refused.
    pub sends_issuer: bool,
    /// The whole document, for `probe`.
    pub raw: Map<String, Value>,
}

impl Provider {
    /// Fetches and checks the discovery document.
    ///
    /// A fresh `known` document is used without a request; a stale one when the provider is down, for up to 24 h.
    pub async fn discover(
        http: &Http,
        issuer: &Issuer,
        known: Option<&Document>,
        now: u64,
    ) -> Result<(Self, Document), ProviderError> {
        // What cannot be read any more is as good as not there.
        let known = known.filter(|document| Self::parse(issuer, document.body.as_bytes()).is_ok());
        let document = match known {
            Some(document) if document.is_fresh(now) => document.clone(),
            _ => match document::fetch(http, issuer.discovery_url(), Kind::Discovery, known, now).await {
                Ok(document) => document,
                Err(error) => match known {
                    Some(document) if document.is_usable(now) => {
                        tracing::warn!(%issuer, %error, "provider is unreachable, using its last discovery document");
                        document.clone()
                    }
                    _ => return Err(error.into()),
                },
            },
        };
        Ok((Self::parse(issuer, document.body.as_bytes())?, document))
    }

    /// Reads a discovery document that was asked for at `issuer`.
    pub fn parse(issuer: &Issuer, document: &[u8]) -> Result<Self, ProviderError> {
        let raw = json::parse_object(document).map_err(|error| ProviderError::Json {
            issuer: issuer.to_string(),
            error,
        })?;
        match raw.get("issuer") {
            Some(Value::String(found)) if found == issuer.as_str() => {}
            Some(Value::String(found)) => {
                return Err(ProviderError::WrongIssuer {
                    expected: issuer.to_string(),
                    found: found.chars().take(200).collect(),
                });
            }
            _ => {
                return Err(ProviderError::Member {
                    issuer: issuer.to_string(),
                    member: "issuer",
                });
            }
        }
        let address = |member: &'static str| endpoint(issuer, &raw, member);
        let list = |member: &str| -> Vec<String> {
            let values = raw.get(member).and_then(Value::as_array).into_iter().flatten();
            values
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect()
        };
        let named = list("id_token_signing_alg_values_supported");
        let algorithms = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| {
                named.is_empty()
                    || named
                        .iter()
                        .any(|name| Algorithm::from_name(name) == Some(*algorithm))
            })
            .collect();
        Ok(Self {
            issuer: issuer.clone(),
            authorization_endpoint: address("authorization_endpoint")?,
            token_endpoint: address("token_endpoint")?,
            jwks_uri: address("jwks_uri")?.ok_or_else(|| ProviderError::Member {
                issuer: issuer.to_string(),
                member: "jwks_uri",
            })?,
            device_authorization_endpoint: address("device_authorization_endpoint")?,
            revocation_endpoint: address("revocation_endpoint")?,
            scopes_supported: list("scopes_supported"),
            grant_types_supported: list("grant_types_supported"),
            token_endpoint_auth_methods_supported: list("token_endpoint_auth_methods_supported"),
            code_challenge_methods_supported: list("code_challenge_methods_supported"),
            algorithms,
            sends_issuer: raw.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
            raw,
        })
    }
}

fn endpoint(
    issuer: &Issuer,
    raw: &Map<String, Value>,
    member: &'static str,
) -> Result<Option<Url>, ProviderError> {
    let text = match raw.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => {
            return Err(ProviderError::Member {
                issuer: issuer.to_string(),
                member,
            });
        }
    };
    parse_endpoint(issuer, text)
        .map(Some)
        .ok_or_else(|| ProviderError::Address {
            issuer: issuer.to_string(),
            member,
            address: text.chars().take(200).collect(),
        })
}

/// An address that a provider gave, when it is one to go to: https, or loopback http for a provider on loopback.
pub(crate) fn parse_endpoint(issuer: &Issuer, text: &str) -> Option<Url> {
    // A URL parser drops line ends and tabs silently, and repairs blanks.
    if text.len() > 2048 || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_safe = match url.scheme() {
        "https" => true,
        "http" => issuer.is_on_loopback() && is_loopback(&url),
        _ => false,
    };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (is_safe && is_plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(document: &Value) -> Result<Provider, ProviderError> {
        let issuer = Issuer::parse("https://idp.example").unwrap();
        Provider::parse(&issuer, document.to_string().as_bytes())
    }

    #[test]
    fn the_smallest_document_is_enough_to_verify_tokens() {
        let provider =
            parse(&json!({"issuer": "https://idp.example", "jwks_uri": "https://idp.example/keys"})).unwrap();
        assert_eq!(
            provider.algorithms,
            Algorithm::ALL,
            "it does not say how it signs"
        );
        assert!(provider.token_endpoint.is_none() && !provider.sends_issuer);
    }

    #[test]
    fn only_algorithms_that_are_offered_and_sound_remain() {
        let provider = parse(&json!({
            "issuer": "https://idp.example", "jwks_uri": "https://idp.example/keys",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "EdDSA"],
        }));
        assert_eq!(provider.unwrap().algorithms, [Algorithm::RS256, Algorithm::EdDSA]);
    }

    #[test]
    fn another_issuers_document_is_refused() {
        for (found, hint) in [
            ("https://idp.example/", "slash"),
            ("https://idp.example/{tenantid}/v2.0", "tenant"),
            ("https://evil.example", "as the provider writes it"),
        ] {
            let error = parse(&json!({"issuer": found, "jwks_uri": "https://idp.example/keys"})).unwrap_err();
            assert!(matches!(error, ProviderError::WrongIssuer { .. }));
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn an_unsafe_address_anywhere_spoils_the_document() {
        for bad in [
            "http://idp.example/a",
            "http://127.0.0.1/a",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "smb://h/x",
            "https://u:p@idp.example/a",
            "https://idp.example/a#b",
            "https://idp.example/a b",
            "https://idp.example/a\nb",
            "--remote-debugging-port=1",
            "",
        ] {
            for member in [
                "authorization_endpoint",
                "token_endpoint",
                "jwks_uri",
                "device_authorization_endpoint",
            ] {
                let mut document =
                    json!({"issuer": "https://idp.example", "jwks_uri": "https://idp.example/keys"});
                document[member] = bad.into();
                let error = parse(&document).unwrap_err();
                assert!(
                    matches!(error, ProviderError::Address { .. }),
                    "{member} {bad}: {error}"
                );
            }
        }
    }
}
