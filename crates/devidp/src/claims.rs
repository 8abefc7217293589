//! What a token says: the claims of ID tokens (OpenID Connect Core, section 2) and of access tokens (RFC 9068).

use crate::ledger::Consent;
use crate::settings::Settings;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// The longest name that the login page takes.
pub(crate) const NAME_MAX: usize = 64;

/// Whether `name` can be signed in with: letters, digits and what mail addresses and account names need.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '@'))
}

/// The e-mail address of `user`: the name itself when it is one.
pub(crate) fn email(user: &str, settings: &Settings) -> String {
    if user.contains('@') {
        user.to_owned()
    } else {
        format!("{user}@{}", settings.email_domain)
    }
}

/// What an ID token says of `user` whatever the flow was. Seconds are Unix time.
pub(crate) fn identity(
    issuer: &str,
    settings: &Settings,
    user: &str,
    auth_time: i64,
    now: i64,
) -> Map<String, Value> {
    let life = i64::try_from(settings.id_token_life.as_secs()).unwrap_or(i64::MAX / 2);
    let mut claims = object(json!({
        "iss": issuer,
        "sub": user,
        "aud": settings.client_id,
        "exp": now.saturating_add(life),
        "iat": now,
        "auth_time": auth_time,
        "email": email(user, settings),
        "email_verified": true,
        "name": user,
        "preferred_username": user,
    }));
    claims.extend(settings.extra_claims.clone());
    claims
}

/// The claims of the ID token that comes with `access_token`. A refresh repeats no nonce (Core, section 12.2).
pub(crate) fn id_token(
    issuer: &str,
    settings: &Settings,
    consent: &Consent,
    nonce: Option<&str>,
    access_token: &str,
    now: i64,
) -> Map<String, Value> {
    let mut claims = identity(issuer, settings, &consent.user, consent.auth_time, now);
    claims.insert("at_hash".to_owned(), at_hash(access_token).into());
    if let Some(nonce) = nonce {
        claims.insert("nonce".to_owned(), nonce.into());
    }
    claims
}

/// The claims of an access token. `id` makes two tokens of the same second different.
pub(crate) fn access_token(
    issuer: &str,
    settings: &Settings,
    consent: &Consent,
    id: &str,
    now: i64,
) -> Map<String, Value> {
    let life = i64::try_from(settings.access_token_life.as_secs()).unwrap_or(i64::MAX / 2);
    object(json!({
        "iss": issuer,
        "sub": consent.user,
        "aud": consent.audience.as_deref().unwrap_or(issuer),
        "client_id": settings.client_id,
        "exp": now.saturating_add(life),
        "iat": now,
        "auth_time": consent.auth_time,
        "jti": id,
        "scope": consent.scope,
        "email": email(&consent.user, settings),
    }))
}

/// The left half of the access token's SHA-256 (Core, section 3.1.3.6).
pub(crate) fn at_hash(access_token: &str) -> String {
    let hash = digest::digest(&digest::SHA256, access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])
}

/// The members of a JSON object; anything else has none.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_the_specification_s_example_is_found() {
        // OpenID Connect Core 1.0, appendix A.3.
        assert_eq!(
            at_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"),
            "77QmUPtjPfzWtF2AnpK9RQ"
        );
    }

    #[test]
    fn names_are_account_names_or_mail_addresses() {
        for name in ["alice", "alice@example.org", "a.b-c_d+e"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "al ice", "<b>", "a\n", "al\u{ef}ce", &"x".repeat(65)] {
            assert!(!is_name(name), "{name:?}");
        }
        assert_eq!(email("alice", &Settings::default()), "alice@example.com");
        assert_eq!(email("alice@corp.test", &Settings::default()), "alice@corp.test");
    }
}
