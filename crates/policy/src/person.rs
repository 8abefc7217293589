//! From a token's claims to the person the rules know.
//!
//! A provider that does not vouch for an address lets people claim anybody's, so `email` names a person only with
//! `email_verified`; epithet 0.19 believed it always. A provider that never sends `email_verified` (Entra ID does
//! not) needs `oidc.identity-claim`.

use crate::decision::Person;
use epithet_oidc::Claims;
use serde_json::{Map, Value};

/// How a provider names people and their groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimNames {
    /// The claim that is a person's identity. `None`: `email` if the provider vouches for it, else `sub`.
    pub identity: Option<String>,
    /// The claim that lists a person's groups, if any; dots lead into objects (`realm_access.roles`).
    pub groups: Option<String>,
}

impl ClaimNames {
    /// The person a token is about; `None` when it lacks the claim that people are named by.
    pub fn person(&self, claims: &Claims) -> Option<Person> {
        let identity = match self.identity.as_deref() {
            None => Some(claims.verified_email().unwrap_or(&claims.subject)),
            Some("email") => claims.verified_email(),
            Some("sub") => Some(claims.subject.as_str()),
            Some(claim) => claim_at(&claims.raw, claim).and_then(Value::as_str),
        };
        let identity = identity.filter(|identity| !identity.is_empty())?.to_owned();
        let groups = self
            .groups
            .as_deref()
            .map_or_else(Vec::new, |claim| groups_at(&claims.raw, claim));
        Some(Person { identity, groups })
    }

    /// What to say of a token that lacks the claim.
    pub(crate) fn missing(&self) -> String {
        match self.identity.as_deref() {
            Some("email") => {
                "the token has no email that its provider vouches for (email_verified)".to_owned()
            }
            Some(claim) => format!("the token has no claim {claim:?}, by which this server knows people"),
            None => "the token names nobody".to_owned(),
        }
    }
}

/// A claim by its whole name (some have dots in them), else by its path.
pub(crate) fn claim_at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    claim_at(claims.get(first)?.as_object()?, rest)
}

pub(crate) fn groups_at(claims: &Map<String, Value>, claim: &str) -> Vec<String> {
    match claim_at(claims, claim) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => {
            // Entra ID leaves the claim out when there are too many groups, and says so here.
            if claims
                .get("_claim_names")
                .is_some_and(|names| names.get(claim).is_some())
            {
                tracing::warn!(
                    claim,
                    "the provider left out the groups because they are too many; limit them there"
                );
            }
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(extra: Value) -> Claims {
        let Value::Object(raw) = extra else {
            panic!("an object")
        };
        Claims {
            issuer: "https://i".into(),
            subject: "s1".into(),
            email: raw.get("email").and_then(Value::as_str).map(str::to_owned),
            email_verified: raw.get("email_verified") == Some(&Value::Bool(true)),
            audience: vec!["c".into()],
            expires_at: 2,
            issued_at: 1,
            auth_time: None,
            acr: None,
            amr: vec![],
            raw,
        }
    }

    fn identity(claim: Option<&str>, token: Value) -> Option<String> {
        let names = ClaimNames {
            identity: claim.map(str::to_owned),
            groups: None,
        };
        names.person(&claims(token)).map(|person| person.identity)
    }

    #[test]
    fn an_address_names_a_person_only_when_the_provider_vouches_for_it() {
        let verified = json!({"email": "a@b", "email_verified": true, "upn": "a@corp", "n": 1, "e": ""});
        let claimed = json!({"email": "a@b"});
        for (claim, token, expected) in [
            (None, &verified, Some("a@b")),
            (None, &claimed, Some("s1")),
            (Some("email"), &verified, Some("a@b")),
            (Some("email"), &claimed, None),
            (Some("sub"), &verified, Some("s1")),
            (Some("upn"), &verified, Some("a@corp")),
            (Some("upn"), &claimed, None),
            (Some("n"), &verified, None),
            (Some("e"), &verified, None),
        ] {
            assert_eq!(
                identity(claim, token.clone()).as_deref(),
                expected,
                "{claim:?} {token}"
            );
        }
    }

    #[test]
    fn groups_are_found_where_the_provider_puts_them() {
        let token = json!({
            "groups": ["a", "b", 7], "one": "c", "realm_access": {"roles": ["d"]}, "https://x.y/roles": ["e"],
            "_claim_names": {"over": "src1"}
        });
        for (claim, expected) in [
            ("groups", &["a", "b"][..]),
            ("one", &["c"]),
            ("realm_access.roles", &["d"]),
            ("https://x.y/roles", &["e"]),
            ("over", &[]),
            ("none.at.all", &[]),
        ] {
            let names = ClaimNames {
                identity: None,
                groups: Some(claim.into()),
            };
            assert_eq!(
                names.person(&claims(token.clone())).unwrap().groups,
                expected,
                "{claim}"
            );
        }
    }
}
