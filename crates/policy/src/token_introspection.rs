//! `token: introspection`: the provider is asked about each token (RFC 7662), and its answer kept for a moment.

use crate::decision::Person;
use crate::document::IntrospectionSection;
use crate::person::{claim_at, groups_at};
use crate::policy::PolicyError;
use crate::token_check::{Bearer, TokenRefusal};
use crate::verdict_cache::VerdictCache;
use epithet_oidc::{Http, Introspection, IntrospectionError, Secret};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer is used again unless configured.
const KEEP: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct TokenIntrospection {
    introspection: Introspection,
    identity_claim: String,
    groups_claim: Option<String>,
    audience: Option<String>,
    issuer: Option<String>,
    cache: VerdictCache,
}

impl TokenIntrospection {
    pub(crate) fn new(section: &IntrospectionSection, http: &Arc<Http>) -> Result<Self, PolicyError> {
        let wrong = |problem: String| PolicyError::Token(format!("introspection.{problem}"));
        let required = |value: &Option<String>, key: &str| {
            value
                .clone()
                .filter(|value| !value.trim().is_empty())
                .ok_or_else(|| wrong(format!("{key} is required")))
        };
        let secret = match (&section.client_secret, &section.client_secret_file) {
            (Some(secret), None) => secret.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|error| wrong(format!("client-secret-file {}: {error}", file.display())))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            (None, None) => return Err(wrong("client-secret-file is required".to_owned())),
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "client-secret and client-secret-file exclude each other".to_owned(),
                ));
            }
        };
        let url = required(&section.url, "url")?;
        let client_id = required(&section.client_id, "client-id")?;
        let introspection = Introspection::new(Arc::clone(http), &url, &client_id, &Secret::new(secret))
            .map_err(|problem| wrong(format!("url: {problem}")))?;
        Ok(Self {
            introspection,
            identity_claim: section.identity_claim.clone().unwrap_or_else(|| "sub".to_owned()),
            groups_claim: section.groups_claim.clone(),
            audience: section.audience.clone(),
            issuer: section.issuer.clone(),
            cache: VerdictCache::new(section.cache.map_or(KEEP, |span| span.0)),
        })
    }

    pub(crate) async fn holder(&self, token: &[u8], now: u64) -> Result<Bearer, TokenRefusal> {
        if let Some(answer) = self.cache.get(token, now) {
            return answer;
        }
        let answer = match self.introspection.ask(token).await {
            Ok(claims) => self.read(&claims, now),
            Err(error @ IntrospectionError::Unavailable(_)) => {
                tracing::error!(%error, "tokens cannot be checked");
                Err(TokenRefusal::Unavailable(
                    "the identity provider is not available to the policy server; try again".to_owned(),
                ))
            }
            Err(error) => Err(TokenRefusal::Invalid(error.to_string())),
        };
        self.cache.put(token, &answer, now);
        answer
    }

    /// What the provider's answer amounts to at `now`.
    fn read(&self, claims: &Map<String, Value>, now: u64) -> Result<Bearer, TokenRefusal> {
        let invalid = |problem: String| Err(TokenRefusal::Invalid(problem));
        let expires_at = match claims.get("exp") {
            None | Some(Value::Null) => None,
            Some(exp) => match exp.as_u64() {
                Some(exp) if exp > now => Some(exp),
                Some(_) => return invalid("the token has ended".to_owned()),
                None => return invalid("the provider's exp is not a time".to_owned()),
            },
        };
        if claims
            .get("nbf")
            .and_then(Value::as_u64)
            .is_some_and(|nbf| nbf > now + 60)
        {
            return invalid("the token is not valid yet".to_owned());
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return invalid(format!("the token is not of the issuer {issuer}"));
        }
        if let Some(audience) = &self.audience
            && !groups_at(claims, "aud").iter().any(|named| named == audience)
        {
            return invalid(format!("the token is not for {audience}"));
        }
        let identity = claim_at(claims, &self.identity_claim)
            .and_then(Value::as_str)
            .filter(|identity| !identity.is_empty());
        let Some(identity) = identity else {
            return Err(TokenRefusal::Nameless(format!(
                "the provider does not say {:?}, by which this server knows people",
                self.identity_claim
            )));
        };
        let groups = self
            .groups_claim
            .as_deref()
            .map_or_else(Vec::new, |claim| groups_at(claims, claim));
        Ok(Bearer {
            person: Person {
                identity: identity.to_owned(),
                groups,
            },
            expires_at,
        })
    }
}
